"""SQLite through apsw's own asyncio connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import apsw
import apsw.aio

from benchmarks.adapters import sql
from benchmarks.adapters.adapter import Adapter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Apsw(Adapter):
    """One connection, which has a thread of its own. Outside a transaction each statement commits by itself."""

    async def open(self) -> None:
        """Connect."""
        self.directory.mkdir(parents=True, exist_ok=True)
        apsw.async_cursor_prefetch.set(sql.ROWS)
        self.database: Any = await apsw.Connection.as_async(str(self.directory / "db"))
        for statement in sql.OPEN:
            await self.database.execute(statement)
        self.is_in_transaction = False

    async def close(self) -> None:
        """Close the connection."""
        await self.database.aclose()

    async def _begin(self) -> None:
        if not self.is_in_transaction:
            self.is_in_transaction = True
            await self.database.execute("BEGIN IMMEDIATE")

    async def append(self, item: bytes) -> None:
        """Insert one item into the open transaction."""
        if not self.is_in_transaction:
            await self._begin()
        await self.database.execute(sql.INSERT, (item,))

    async def append_many(self, items: list[bytes]) -> None:
        """Insert many."""
        await self._begin()
        await self.database.executemany(sql.INSERT, [(item,) for item in items])

    async def sync(self) -> None:
        """Commit."""
        if self.is_in_transaction:
            self.is_in_transaction = False
            await self.database.execute("COMMIT")

    async def append_durably(self, item: bytes) -> None:
        """Insert, which commits."""
        await self.database.execute(sql.INSERT, (item,))

    async def commit(self, items: list[bytes]) -> None:
        """Insert and commit."""
        await self.append_many(items)
        await self.sync()

    async def read(self, position: int) -> Any:
        """Select one item."""
        cursor = await self.database.execute(sql.SELECT, (position + 1,))
        return await cursor.get

    async def replay(self) -> AsyncIterator[tuple[int, bytes]]:
        """Select all, a thousand rows in each hop."""
        async for row in await self.database.execute(sql.REPLAY):
            yield row

    async def prune(self, position: int) -> None:
        """Delete the rows, and empty the log."""
        await self.database.execute(sql.PRUNE, (position,))
        await (await self.database.execute(sql.CHECKPOINT)).fetchall()

    async def reclaim(self) -> None:
        """Vacuum."""
        await self.database.execute(sql.VACUUM)
        await (await self.database.execute(sql.CHECKPOINT)).fetchall()
