"""The standard library's sqlite3, one connection, each call in a thread."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from typing import TYPE_CHECKING, Any

from benchmarks.adapters import sql
from benchmarks.adapters.adapter import Adapter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class SqliteThread(Adapter):
    """A lock keeps the threads of the pool apart."""

    async def open(self) -> None:
        """Open the database."""
        self.lock = threading.Lock()
        await asyncio.to_thread(self._open)

    def _open(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.database = sqlite3.connect(self.directory / "db", check_same_thread=False)
        for statement in sql.OPEN:
            self.database.execute(statement)
        self.database.commit()

    async def close(self) -> None:
        """Close it."""
        await asyncio.to_thread(self.database.close)

    async def append(self, item: bytes) -> None:
        """Insert one item into the open transaction."""
        await asyncio.to_thread(self._insert, item)

    async def append_many(self, items: list[bytes]) -> None:
        """Insert many."""
        await asyncio.to_thread(self._insert_many, items)

    async def sync(self) -> None:
        """Commit."""
        await asyncio.to_thread(self._commit)

    async def append_durably(self, item: bytes) -> None:
        """Insert and commit in one hop."""
        await asyncio.to_thread(self._insert_and_commit, item)

    async def commit(self, items: list[bytes]) -> None:
        """Insert many and commit in one hop."""
        await asyncio.to_thread(self._insert_many_and_commit, items)

    async def read(self, position: int) -> Any:
        """Select one item."""
        return await asyncio.to_thread(self._select, position)

    async def replay(self) -> AsyncIterator[tuple[int, bytes]]:
        """Select a thousand rows in each hop."""
        position = 0
        while rows := await asyncio.to_thread(self._select_from, position):
            for row in rows:
                yield row
            position = rows[-1][0] + 1

    async def prune(self, position: int) -> None:
        """Delete the rows, and empty the log."""
        await asyncio.to_thread(self._delete, position)

    async def reclaim(self) -> None:
        """Vacuum."""
        await asyncio.to_thread(self._vacuum)

    def _insert(self, item: bytes) -> None:
        with self.lock:
            self.database.execute(sql.INSERT, (item,))

    def _insert_many(self, items: list[bytes]) -> None:
        with self.lock:
            self.database.executemany(sql.INSERT, [(item,) for item in items])

    def _commit(self) -> None:
        with self.lock:
            self.database.commit()

    def _insert_and_commit(self, item: bytes) -> None:
        with self.lock:
            self.database.execute(sql.INSERT, (item,))
            self.database.commit()

    def _insert_many_and_commit(self, items: list[bytes]) -> None:
        with self.lock:
            self.database.executemany(sql.INSERT, [(item,) for item in items])
            self.database.commit()

    def _select(self, position: int) -> Any:
        with self.lock:
            return self.database.execute(sql.SELECT, (position + 1,)).fetchone()[0]

    def _select_from(self, position: int) -> list[Any]:
        with self.lock:
            return self.database.execute(sql.REPLAY_FROM, (position,)).fetchall()

    def _delete(self, position: int) -> None:
        with self.lock:
            self.database.execute(sql.PRUNE, (position,))
            self.database.commit()
            self.database.execute(sql.CHECKPOINT).fetchall()

    def _vacuum(self) -> None:
        with self.lock:
            self.database.execute(sql.VACUUM)
            self.database.execute(sql.CHECKPOINT).fetchall()
