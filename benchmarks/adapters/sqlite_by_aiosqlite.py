"""SQLite through aiosqlite: one connection, which has a thread of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiosqlite

from benchmarks.adapters import sql
from benchmarks.adapters.adapter import Adapter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class AioSqlite(Adapter):
    """As its documentation shows: `execute`, `commit`, `async for`."""

    async def open(self) -> None:
        """Connect."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.database: Any = await aiosqlite.connect(self.directory / "db", iter_chunk_size=sql.ROWS)
        for statement in sql.OPEN:
            await self.database.execute(statement)
        await self.database.commit()

    async def close(self) -> None:
        """Close the connection."""
        await self.database.close()

    async def append(self, item: bytes) -> None:
        """Insert one item into the open transaction."""
        await self.database.execute(sql.INSERT, (item,))

    async def append_many(self, items: list[bytes]) -> None:
        """Insert many."""
        await self.database.executemany(sql.INSERT, [(item,) for item in items])

    async def sync(self) -> None:
        """Commit. Tasks that inserted before it are committed too: theirs has nothing left to do."""
        await self.database.commit()

    async def commit(self, items: list[bytes]) -> None:
        """Insert and commit."""
        await self.append_many(items)
        await self.database.commit()

    async def read(self, position: int) -> Any:
        """Select one item."""
        rows = await self.database.execute_fetchall(sql.SELECT, (position + 1,))
        return rows[0][0]

    async def replay(self) -> AsyncIterator[tuple[int, bytes]]:
        """Select all, a thousand rows in each hop."""
        async with self.database.execute(sql.REPLAY) as cursor:
            async for row in cursor:
                yield row

    async def prune(self, position: int) -> None:
        """Delete the rows, and empty the log."""
        await self.database.execute(sql.PRUNE, (position,))
        await self.database.commit()
        await self.database.execute_fetchall(sql.CHECKPOINT)

    async def reclaim(self) -> None:
        """Vacuum."""
        await self.database.execute(sql.VACUUM)
        await self.database.execute_fetchall(sql.CHECKPOINT)
