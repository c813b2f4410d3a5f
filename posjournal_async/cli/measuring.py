"""What a journal does on a disk: how often and how fast, on a temporary journal that is removed again."""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
import time
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from posjournal_async.codecs import BytesCodec
from posjournal_async.config import Config, Context
from posjournal_async.inspection.probes import measure_syncs
from posjournal_async.journal import Journal
from posjournal_async.metrics import Counters
from posjournal_async.storage.file import FileStorage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

__all__ = ["BENCH_DIRECTORY", "Measurement", "measured"]

# How the temporary directory begins: what a killed run leaves can be told by it.
BENCH_DIRECTORY = ".posjournal-bench-"

# How many may append at once, each waiting until its item is durable.
TASKS = (1, 16, 256)

# Each part writes this much at the most, more or less, so that a fast disk is not filled.
_MOST_BYTES = 64 * 2**20

# Each part measures so many at the most, so that memory is not filled.
_MOST_READS = 500_000

# Items, or reads, between two looks at the clock.
_ROUND = 64

# A probe is one call in a thread; an interrupted run waits for the end of it.
_PROBE_SECONDS = 0.2
_PROBES = 1_000


@dataclass(frozen=True, slots=True)
class Measurement:
    """What was measured of one thing.

    Attributes:
        name: What, in one word that stays the same from version to version.
        title: What, for people.
        count: How often it was done.
        seconds: How long that took altogether.
        p50: Median duration of one, in seconds, where each was measured.
        p99: Duration that one in a hundred exceeds, in seconds, where each was measured.
        per_sync: Items that one fsync made durable, on average, where that was measured.
    """

    name: str
    title: str
    count: int
    seconds: float
    p50: float | None = None
    p99: float | None = None
    per_sync: float | None = None

    @property
    def per_second(self) -> float:
        """How many were done in a second."""
        return self.count / self.seconds


async def measured(directory: Path, seconds: float, item_bytes: int) -> AsyncGenerator[Measurement, None]:
    """Measure fsync, append, durable append, read and replay below a directory, and give each as soon as it is known.

    All that is written lies in one directory of its own, which is removed at the end, also after an interruption.

    Args:
        directory: An existing directory on the disk in question.
        seconds: How long all of it shall take, more or less.
        item_bytes: Length of an item, in bytes, at least 1.

    Raises:
        StorageError, OSError: The disk refused.
    """
    share = seconds / 10
    with tempfile.TemporaryDirectory(dir=directory, prefix=BENCH_DIRECTORY) as place:
        yield await _syncs(Path(place), 1.5 * share)
        counters = Counters()
        config = Config(partition="bench", codec=BytesCodec(), items_per_section=16_384)
        item = random.Random(item_bytes).randbytes(item_bytes)  # noqa: S311 - bytes that do not compress, no secret
        journal = await Journal.init(Context(FileStorage(place), metrics=counters), config)
        async with journal:
            yield await _append(journal, item, share)
            for tasks in TASKS:
                yield await _durable(journal, counters, item, tasks, 1.5 * share)
            await journal.sync()
            blobs = _blobs_of(Path(place, "bench_data"))
            yield await _read(journal, share, "read_cached", "read at random, from the page cache")
            if _forget(blobs):
                yield await _read(journal, share, "read_device", "read at random, page cache emptied before")
            title = "replay, page cache emptied before" if _forget(blobs) else "replay"
            yield await _replay(journal, share, title)


async def _syncs(place: Path, seconds: float) -> Measurement:
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while not taken or time.perf_counter() < end:
        taken += await asyncio.to_thread(measure_syncs, place, min(_PROBE_SECONDS, seconds), _PROBES)
    return _measurement("fsync", "append 4 KiB to a file, fdatasync", sum(taken), taken)


async def _append(journal: Journal[bytes], item: bytes, seconds: float) -> Measurement:
    count = 0
    start = now = time.perf_counter()
    most = max(_MOST_BYTES // len(item), _ROUND)
    while now < start + seconds and count < most:
        for _ in range(_ROUND):
            await journal.append(item)
        count += _ROUND
        now = time.perf_counter()
    await journal.sync()  # not counted: it is what the next lines are about
    return Measurement("append", "append, not yet durable", count, now - start)


async def _durable(journal: Journal[bytes], counters: Counters, item: bytes, tasks: int, seconds: float) -> Measurement:
    taken: list[float] = []
    syncs_before = counters.totals.get(("bench", "commits"), 0)
    start = time.perf_counter()
    end = start + seconds

    most = max(_MOST_BYTES // len(item), tasks)

    async def append() -> None:
        now = time.perf_counter()
        while True:  # once at least, however late it is
            await journal.append(item)
            await journal.sync_data()
            before, now = now, time.perf_counter()
            taken.append(now - before)
            if now >= end or len(taken) >= most:
                break

    async with asyncio.TaskGroup() as group:
        for _ in range(tasks):
            group.create_task(append())
    elapsed = time.perf_counter() - start
    syncs = counters.totals["bench", "commits"] - syncs_before
    who = "1 task" if tasks == 1 else f"{tasks} tasks"
    return _measurement(f"durable_{tasks}", f"durable append, {who}", elapsed, taken, per_sync=len(taken) / syncs)


async def _read(journal: Journal[bytes], seconds: float, name: str, title: str) -> Measurement:
    chance = random.Random(journal.size())  # noqa: S311 - the same positions each time
    taken: list[float] = []
    start = now = time.perf_counter()
    while now < start + seconds and len(taken) < _MOST_READS:
        for _ in range(_ROUND):
            await journal.read(chance.randrange(journal.size()))
            before, now = now, time.perf_counter()
            taken.append(now - before)
    return _measurement(name, title, now - start, taken)


async def _replay(journal: Journal[bytes], seconds: float, title: str) -> Measurement:
    count = 0
    start = now = time.perf_counter()
    async with aclosing(journal.replay_batches(0)) as batches:
        async for _, items in batches:
            count += len(items)
            now = time.perf_counter()
            if now > start + seconds:
                break
    return Measurement("replay", title, count, now - start)


def _blobs_of(directory: Path) -> list[Path]:
    return sorted(directory.iterdir())


def _forget(blobs: list[Path]) -> bool:
    """Ask the kernel to drop what it keeps of files in memory; say whether it can be asked."""
    advise: Callable[[int, int, int, int], None] | None = getattr(os, "posix_fadvise", None)
    if advise is None:
        return False
    for blob in blobs:
        fd = os.open(blob, os.O_RDONLY | os.O_CLOEXEC)
        try:
            advise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)
    return True


def _measurement(
    name: str, title: str, seconds: float, taken: list[float], *, per_sync: float | None = None
) -> Measurement:
    taken.sort()
    p99 = taken[min(len(taken) * 99 // 100, len(taken) - 1)]
    return Measurement(name, title, len(taken), seconds, taken[len(taken) // 2], p99, per_sync)
