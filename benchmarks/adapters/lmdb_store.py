"""LMDB, positions as keys: in the loop, as it is often used since it is quick, and through a thread."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from struct import Struct
from typing import TYPE_CHECKING, Any

import lmdb

from benchmarks.adapters.adapter import Adapter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

_KEY = Struct(">Q")
_key = _KEY.pack

# Rows that a thread fetches in one hop.
_ROWS = 1_000

# Address space, not memory.
_MAP_BYTES = 16 * 2**30


class LmdbLoop(Adapter):
    """Calls on the event loop, which stands still meanwhile. One write transaction is open between two syncs."""

    async def open(self) -> None:
        """Open the environment."""
        self._open()

    async def close(self) -> None:
        """Commit, and close it."""
        self._commit()
        self.environment.close()

    async def append(self, item: bytes) -> None:
        """Put one item into the open transaction."""
        self._put(item)

    async def append_many(self, items: list[bytes]) -> None:
        """Put many."""
        self._put_many(items)

    async def sync(self) -> None:
        """Commit."""
        self._commit()

    async def commit(self, items: list[bytes]) -> None:
        """Put many and commit."""
        self._put_many_and_commit(items)

    async def read(self, position: int) -> Any:
        """Get one item."""
        return self._get(position)

    async def replay(self) -> AsyncIterator[tuple[int, bytes]]:
        """Go through the values."""
        with self.environment.begin() as transaction, transaction.cursor() as cursor:
            for position, item in enumerate(cursor.iternext(keys=False, values=True)):
                yield position, item

    async def prune(self, position: int) -> None:
        """Delete the items."""
        self._delete(position)

    async def reclaim(self) -> None:
        """Copy what is left."""
        self._compact()

    def _open(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.environment: Any = lmdb.open(
            str(self.directory), map_size=_MAP_BYTES, sync=True, metasync=True, max_spare_txns=8
        )
        self.transaction: Any = None
        with self.environment.begin() as transaction, transaction.cursor() as cursor:
            self.size = _KEY.unpack(cursor.key())[0] + 1 if cursor.last() else 0

    def _put(self, item: bytes) -> None:
        if self.transaction is None:
            self.transaction = self.environment.begin(write=True)
        self.transaction.put(_key(self.size), item, append=True)
        self.size += 1

    def _put_many(self, items: list[bytes]) -> None:
        if self.transaction is None:
            self.transaction = self.environment.begin(write=True)
        with self.transaction.cursor() as cursor:
            cursor.putmulti([(_key(position), item) for position, item in enumerate(items, self.size)], append=True)
        self.size += len(items)

    def _commit(self) -> None:
        if self.transaction is not None:
            transaction, self.transaction = self.transaction, None
            transaction.commit()

    def _put_and_commit(self, item: bytes) -> None:
        self._put(item)
        self._commit()

    def _put_many_and_commit(self, items: list[bytes]) -> None:
        self._put_many(items)
        self._commit()

    def _get(self, position: int) -> Any:
        with self.environment.begin() as transaction:
            return transaction.get(_key(position))

    def _get_from(self, position: int) -> list[bytes]:
        found: list[bytes] = []
        with self.environment.begin() as transaction, transaction.cursor() as cursor:
            if cursor.set_range(_key(position)):
                for item in cursor.iternext(keys=False, values=True):
                    found.append(item)
                    if len(found) == _ROWS:
                        break
        return found

    def _delete(self, position: int) -> None:
        limit = _key(position)
        with self.environment.begin(write=True) as transaction, transaction.cursor() as cursor:
            is_at_item = cursor.first()
            while is_at_item and cursor.key() < limit:
                is_at_item = cursor.delete()

    def _compact(self) -> None:
        copy = self.directory / "copy"
        copy.mkdir()
        self.environment.copy(str(copy), compact=True)
        self.environment.close()
        (copy / "data.mdb").replace(self.directory / "data.mdb")
        self._open()


class LmdbThread(LmdbLoop):
    """The same through threads; a write transaction belongs to its thread, so one thread does all the writing."""

    async def open(self) -> None:
        """Open the environment."""
        self.writer = ThreadPoolExecutor(1)
        await self._write(self._open)

    async def close(self) -> None:
        """Commit, and close it."""
        await self._write(self._commit)
        self.environment.close()
        self.writer.shutdown()

    async def _write(self, job: Callable[..., None], *arguments: Any) -> None:
        await asyncio.get_running_loop().run_in_executor(self.writer, job, *arguments)

    async def append(self, item: bytes) -> None:
        """Put one item into the open transaction."""
        await self._write(self._put, item)

    async def append_many(self, items: list[bytes]) -> None:
        """Put many."""
        await self._write(self._put_many, items)

    async def sync(self) -> None:
        """Commit."""
        await self._write(self._commit)

    async def append_durably(self, item: bytes) -> None:
        """Put and commit in one hop."""
        await self._write(self._put_and_commit, item)

    async def commit(self, items: list[bytes]) -> None:
        """Put many and commit in one hop."""
        await self._write(self._put_many_and_commit, items)

    async def read(self, position: int) -> Any:
        """Get one item."""
        return await asyncio.to_thread(self._get, position)

    async def replay(self) -> AsyncIterator[tuple[int, bytes]]:
        """Get a thousand items in each hop."""
        position = 0
        while items := await asyncio.to_thread(self._get_from, position):
            for item in items:
                yield position, item
                position += 1

    async def prune(self, position: int) -> None:
        """Delete the items."""
        await self._write(self._delete, position)

    async def reclaim(self) -> None:
        """Copy what is left."""
        await self._write(self._compact)
