"""What most people write first: aiofiles, each item behind its length."""

from __future__ import annotations

import asyncio
import os
from array import array
from typing import TYPE_CHECKING, Any

import aiofiles

from benchmarks.adapters.adapter import Adapter
from benchmarks.adapters.framing import HEAD_BYTES, PIECE_BYTES, framed, framed_all, note_ends, parsed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class AioFiles(Adapter):
    """One file open for appending and once more for reading; a lock keeps writes in order, another seek with read."""

    async def open(self) -> None:
        """Open the file twice, and find where its items are."""
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / "log"
        self.writer: Any = await aiofiles.open(path, "ab")
        self.reader: Any = await aiofiles.open(path, "rb")
        self.writing, self.reading = asyncio.Lock(), asyncio.Lock()
        self.ends = array("Q", [0])
        rest = b""
        while piece := await self.reader.read(PIECE_BYTES):
            items, rest = parsed(rest + piece)
            note_ends(self.ends, items)

    async def close(self) -> None:
        """Close both."""
        await self.writer.close()
        await self.reader.close()

    async def append(self, item: bytes) -> None:
        """Write one item into the buffer of the file object."""
        async with self.writing:
            data = framed(item)
            await self.writer.write(data)
            self.ends.append(self.ends[-1] + len(data))

    async def append_many(self, items: list[bytes]) -> None:
        """Write many at once."""
        async with self.writing:
            await self.writer.write(framed_all(items))
            note_ends(self.ends, items)

    async def sync(self) -> None:
        """Empty the buffer, and sync the file."""
        await self.writer.flush()
        await asyncio.to_thread(os.fdatasync, self.writer.fileno())

    async def commit(self, items: list[bytes]) -> None:
        """Write and sync."""
        await self.append_many(items)
        await self.sync()

    async def read(self, position: int) -> bytes:
        """Seek and read."""
        start = self.ends[position] + HEAD_BYTES
        async with self.reading:
            await self.reader.seek(start)
            data: bytes = await self.reader.read(self.ends[position + 1] - start)
            return data

    async def replay(self) -> AsyncIterator[tuple[int, bytes]]:
        """Read pieces, and take them apart."""
        await self.reader.seek(0)
        position, rest = 0, b""
        while piece := await self.reader.read(PIECE_BYTES):
            items, rest = parsed(rest + piece)
            for item in items:
                yield position, item
                position += 1
