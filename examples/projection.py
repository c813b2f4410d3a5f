"""Keep a projection of a journal in SQLite: how far it has come stands in the same transaction as what it says.

    python examples/projection.py [DIRECTORY]

Appends orders, brings the projection up to date, appends more, and brings it up to date again; then rebuilds it from
nothing. Prints the totals by customer and the positions. A projection is derived: it may be deleted at any time, and it
needs no fsync of its own, because what it has lost is read from the journal again.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, aclosing, asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from posjournal_async import ItemOutOfRange, Journal

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

T = TypeVar("T")

# Raise it when events are to be read in another way: what an older program projected is then built anew.
VERSION = 1

SCHEMA = """
DROP TABLE IF EXISTS totals;
DROP TABLE IF EXISTS progress;
CREATE TABLE totals (customer TEXT PRIMARY KEY, orders INTEGER NOT NULL, cents INTEGER NOT NULL);
CREATE TABLE progress (position INTEGER NOT NULL);
INSERT INTO progress VALUES (0);
"""

ADD = """
INSERT INTO totals VALUES (?, 1, ?)
ON CONFLICT (customer) DO UPDATE SET orders = orders + 1, cents = cents + excluded.cents
"""


class Totals:
    """What each customer has ordered. One thread does all that touches SQLite, one thing after the other."""

    def __init__(self, file: Path) -> None:
        """Name the file; use `open`."""
        self._file = file
        self._thread = ThreadPoolExecutor(1, "projection")
        self._resources = ExitStack()

    @classmethod
    @asynccontextmanager
    async def open(cls, file: Path) -> AsyncGenerator[Totals, None]:
        """Open the projection, an empty one if there is none or if it is of another version."""
        totals = cls(file)
        try:
            await totals._run(totals._connect)
            yield totals
        finally:
            ending = totals._run(totals._resources.close)  # in the thread, behind what a cancelled caller left there
            totals._thread.shutdown(wait=False)
            await asyncio.shield(ending)

    async def catch_up(self, journal: Journal[Any]) -> int:
        """Apply the events that it does not have yet, and return the position of the next one.

        May be cancelled, killed, and called twice at once: no event is applied twice or left out.

        Raises:
            ItemPruned: Events that it does not have are gone; start from a copy of a projection that has them.
        """
        size = journal.size()
        await journal.sync_data()  # else a crash could leave a projection of events that never were
        position = await self._run(self._position)
        try:
            batches = journal.replay_batches(position)
        except ItemOutOfRange:  # of another journal, or of one that was rewound
            await self.clear()
            batches = journal.replay_batches(0)
        async with aclosing(batches):
            async for first, events in batches:
                if first >= size:
                    break
                await self._run(partial(self._apply, first, events[: size - first]))
        return size

    async def clear(self) -> None:
        """Forget everything: the next `catch_up` reads the whole journal.

        To be called after a rewind: `catch_up` sees one only as long as the journal is shorter than what it has.
        """
        await self._run(self._create)

    async def rows(self) -> list[tuple[str, int, int]]:
        """Return customer, number of orders and cents, by customer."""
        return await self._run(lambda: self._connection.execute("SELECT * FROM totals ORDER BY customer").fetchall())

    # In the thread.

    def _run(self, work: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _connect(self) -> None:
        connection = sqlite3.connect(self._file, isolation_level=None, check_same_thread=False)
        self._connection = self._resources.enter_context(closing(connection))
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")  # a power cut may take the last transactions, not half
        if self._connection.execute("PRAGMA user_version").fetchone() != (VERSION,):
            self._create()

    def _create(self) -> None:
        self._connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")

    def _position(self) -> int:
        return int(self._connection.execute("SELECT position FROM progress").fetchone()[0])

    def _apply(self, first: int, events: list[Any]) -> None:
        with self._connection:  # commits, or rolls back when anything raises
            self._connection.execute("BEGIN IMMEDIATE")
            done = self._position() - first  # by somebody else: a call beside this one, or a cancelled one before it
            if not 0 <= done < len(events):
                return
            self._connection.executemany(ADD, ((event["customer"], event["cents"]) for event in events[done:]))
            self._connection.execute("UPDATE progress SET position = ?", [first + len(events)])


async def main(directory: Path) -> None:
    """Bring a projection up to date, twice, and rebuild it."""
    async with Journal.open(directory / "orders") as journal, Totals.open(directory / "totals.sqlite") as totals:
        for names in (["ann", "bob", "ann"], ["eve", "ann"]):
            await journal.append_many({"customer": name, "cents": 250} for name in names)
            print(f"up to position {await totals.catch_up(journal)}:", *await totals.rows())
        await totals.clear()
        print(f"rebuilt up to {await totals.catch_up(journal)}:", *await totals.rows())


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(main(Path(sys.argv[1])))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            asyncio.run(main(Path(temporary)))
