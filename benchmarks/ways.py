"""The ways of keeping a journal that are compared: their names, where they work, and what they cannot do."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.adapters.adapter import Adapter
    from benchmarks.items import Kind


class Place(Enum):
    """Where the library does what may block."""

    LOOP = "in the loop"
    THREAD = "one hop to a thread for each call"
    OWN = "in its own way"


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way of keeping a journal.

    Attributes:
        name: What it is called on the command line and in the results.
        module: Where its adapter is, below `benchmarks.adapters`.
        adapter: The class there.
        place: Where the library does what may block.
        packages: Distributions that it needs, whose versions the report names.
        lacks: Workloads that it cannot do.
        groups_commits: Whether concurrent commits share a sync without help: a hand-written group commit would add
            nothing, or does so in the loop.
        on_uvloop: Whether the event loop is that of uvloop, not that of asyncio.
    """

    name: str
    module: str
    adapter: str
    place: Place
    packages: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    groups_commits: bool = False
    on_uvloop: bool = False

    def make(self, directory: Path, kind: Kind = "bytes") -> Adapter:
        """Return an adapter for a journal in `directory`.

        Raises:
            ImportError: The library is not installed.
        """
        module = importlib.import_module(f"benchmarks.adapters.{self.module}")
        return cast("Adapter", getattr(module, self.adapter)(directory, kind))


OWN = "posjournal"
OWN_ON_UVLOOP = "posjournal-uvloop"

WAYS = {
    way.name: way
    for way in (
        Way(
            name=OWN,
            module="posjournal",
            adapter="PosJournal",
            place=Place.OWN,
            packages=("posjournal_async",),
            groups_commits=True,
        ),
        Way(
            name=OWN_ON_UVLOOP,
            module="posjournal",
            adapter="PosJournal",
            place=Place.OWN,
            packages=("posjournal_async", "uvloop"),
            groups_commits=True,
            on_uvloop=True,
        ),
        Way(
            name="raw-loop",
            module="raw",
            adapter="RawLoop",
            place=Place.LOOP,
            lacks=("W9",),
            groups_commits=True,
        ),
        Way(name="raw-thread", module="raw", adapter="RawThread", place=Place.THREAD, lacks=("W9",)),
        Way(
            name="aiofiles",
            module="plain_aiofiles",
            adapter="AioFiles",
            place=Place.THREAD,
            packages=("aiofiles",),
            lacks=("W9",),
        ),
        Way(
            name="aiosqlite",
            module="sqlite_by_aiosqlite",
            adapter="AioSqlite",
            place=Place.THREAD,
            packages=("aiosqlite",),
        ),
        Way(name="apsw", module="sqlite_by_apsw", adapter="Apsw", place=Place.THREAD, packages=("apsw",)),
        Way(name="sqlite3-thread", module="sqlite_in_thread", adapter="SqliteThread", place=Place.THREAD),
        Way(
            name="lmdb-loop",
            module="lmdb_store",
            adapter="LmdbLoop",
            place=Place.LOOP,
            packages=("lmdb",),
            groups_commits=True,
        ),
        Way(name="lmdb-thread", module="lmdb_store", adapter="LmdbThread", place=Place.THREAD, packages=("lmdb",)),
        Way(
            name="rocksdict-thread",
            module="rocksdb_store",
            adapter="RocksThread",
            place=Place.THREAD,
            packages=("rocksdict",),
        ),
        Way(
            name="durastream",
            module="durastream_log",
            adapter="Durastream",
            place=Place.OWN,
            packages=("durastream",),
            lacks=("W9",),
            groups_commits=True,
        ),
    )
}

PEERS = tuple(name for name in WAYS if name not in (OWN, OWN_ON_UVLOOP))
HOPPING = tuple(name for name, way in WAYS.items() if way.place is Place.THREAD)
# All that leave the event loop free, beside the library itself.
NOT_BLOCKING = tuple(name for name in PEERS if WAYS[name].place is not Place.LOOP)
# Each item gets a sync of its own, and no two run at the same time.
ONE_BY_ONE = ("raw-loop", "apsw", "sqlite3-thread", "lmdb-loop", "lmdb-thread")
