"""RocksDB through rocksdict, positions as keys, each call in a thread."""

from __future__ import annotations

import asyncio
from struct import Struct
from typing import TYPE_CHECKING, Any

import rocksdict

from benchmarks.adapters.adapter import Adapter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_KEY = Struct(">Q")
_key = _KEY.pack

# Rows that a thread fetches in one hop.
_ROWS = 1_000


class RocksThread(Adapter):
    """Keys are taken on the loop, so that calls may overlap; RocksDB joins commits that come at the same time."""

    async def open(self) -> None:
        """Open the database."""
        await asyncio.to_thread(self._open)

    def _open(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.database: Any = rocksdict.Rdict(str(self.directory / "db"), rocksdict.Options(raw_mode=True))
        self.durably: Any = rocksdict.WriteOptions()
        self.durably.sync = True
        last = self.database.iter()
        last.seek_to_last()
        self.size = _KEY.unpack(last.key())[0] + 1 if last.valid() else 0

    async def close(self) -> None:
        """Close it."""
        await asyncio.to_thread(self.database.close)

    def _next_key(self) -> bytes:
        self.size += 1
        return _key(self.size - 1)

    def _batch(self, items: list[bytes]) -> Any:
        batch = rocksdict.WriteBatch(raw_mode=True)
        for position, item in enumerate(items, self.size):
            batch.put(_key(position), item)
        self.size += len(items)
        return batch

    async def append(self, item: bytes) -> None:
        """Put one item."""
        await asyncio.to_thread(self.database.put, self._next_key(), item)

    async def append_many(self, items: list[bytes]) -> None:
        """Put many as one batch."""
        await asyncio.to_thread(self._write, items)

    def _write(self, items: list[bytes]) -> None:
        self.database.write(self._batch(items))

    async def sync(self) -> None:
        """Sync the write-ahead log."""
        await asyncio.to_thread(self.database.flush_wal, True)  # noqa: FBT003 - takes no keyword

    async def append_durably(self, item: bytes) -> None:
        """Put and sync in one hop."""
        await asyncio.to_thread(self.database.put, self._next_key(), item, self.durably)

    async def commit(self, items: list[bytes]) -> None:
        """Put many and sync in one hop."""
        await asyncio.to_thread(self._write_durably, items)

    def _write_durably(self, items: list[bytes]) -> None:
        self.database.write(self._batch(items), self.durably)

    async def read(self, position: int) -> Any:
        """Get one item."""
        return await asyncio.to_thread(self.database.get, _key(position))

    async def replay(self) -> AsyncIterator[tuple[int, bytes]]:
        """Get a thousand items in each hop."""
        position = 0
        while items := await asyncio.to_thread(self._get_from, position):
            for item in items:
                yield position, item
                position += 1

    def _get_from(self, position: int) -> list[bytes]:
        found: list[bytes] = []
        for item in self.database.values(from_key=_key(position)):
            found.append(item)
            if len(found) == _ROWS:
                break
        return found

    async def prune(self, position: int) -> None:
        """Delete the range."""
        await asyncio.to_thread(self._delete, position)

    def _delete(self, position: int) -> None:
        self.database.delete_range(_key(0), _key(position))
        self.database.flush_wal(True)  # noqa: FBT003 - takes no keyword

    async def reclaim(self) -> None:
        """Compact."""
        await asyncio.to_thread(self._compact)

    def _compact(self) -> None:
        self.database.flush()
        self.database.compact_range(None, None)
