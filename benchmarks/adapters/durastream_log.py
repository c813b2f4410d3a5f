"""durastream, the one package of the same shape: asyncio, positions, records with checksums."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import durastream

from benchmarks.adapters.adapter import Adapter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_STREAM = "log"

# Items that one call reads.
_ITEMS = 1_000


class Durastream(Adapter):
    """Its stream syncs each append; its batch writer buffers, and writes every 20 ms or when it is flushed."""

    async def open(self) -> None:
        """Open the stream."""
        is_new = not self.directory.exists()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.store: Any = durastream.AsyncStore(str(self.directory))
        self.stream: Any = await (self.store.create(_STREAM) if is_new else self.store.open(_STREAM))
        self.writer: Any = durastream.AsyncBatchWriter(self.stream)

    async def close(self) -> None:
        """Close it."""
        await self.writer.close()
        await self.store.close()

    async def append(self, item: bytes) -> None:
        """Hand one item to the batch writer."""
        self.writer.write(item)

    async def append_many(self, items: list[bytes]) -> None:
        """Append many, with one sync."""
        await self.stream.append_many(items)

    async def sync(self) -> None:
        """Flush the batch writer."""
        await self.writer.flush()

    async def append_durably(self, item: bytes) -> None:
        """Append, which syncs."""
        await self.stream.append(item)

    async def append_durably_beside_others(self, item: bytes) -> None:
        """Hand the item to the batch writer, and flush."""
        self.writer.write(item)
        await self.writer.flush()

    async def read(self, position: int) -> Any:
        """Read one item."""
        return (await self.stream.read(position, position + 1))[0]

    async def replay(self) -> AsyncIterator[tuple[int, bytes]]:
        """Read a thousand items in each call."""
        position = 0
        while items := await self.stream.read(position, position + _ITEMS):
            for item in items:
                yield position, item
                position += 1
