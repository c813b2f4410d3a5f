"""Plain files through `os`: in the loop, which is the floor, and through a thread."""

from __future__ import annotations

import asyncio
import os
from array import array
from typing import TYPE_CHECKING

from benchmarks.adapters.adapter import Adapter
from benchmarks.adapters.framing import HEAD_BYTES, PIECE_BYTES, framed, framed_all, note_ends, parsed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class RawLoop(Adapter):
    """`os.write`, `os.pread` and `os.fdatasync` on the event loop, which stands still meanwhile."""

    async def open(self) -> None:
        """Open the file, and find where its items are."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.fd = os.open(self.directory / "log", os.O_RDWR | os.O_CREAT, 0o644)
        self.ends = array("Q", [0])
        offset, rest = 0, b""
        while piece := os.pread(self.fd, PIECE_BYTES, offset):
            offset += len(piece)
            items, rest = parsed(rest + piece)
            note_ends(self.ends, items)
        os.lseek(self.fd, self.ends[-1], os.SEEK_SET)

    async def close(self) -> None:
        """Close the file."""
        os.close(self.fd)

    async def append(self, item: bytes) -> None:
        """Write one item."""
        data = framed(item)
        os.write(self.fd, data)
        self.ends.append(self.ends[-1] + len(data))

    async def append_many(self, items: list[bytes]) -> None:
        """Write many at once."""
        os.write(self.fd, framed_all(items))
        note_ends(self.ends, items)

    async def sync(self) -> None:
        """Sync the file."""
        os.fdatasync(self.fd)

    async def commit(self, items: list[bytes]) -> None:
        """Write and sync."""
        await self.append_many(items)
        os.fdatasync(self.fd)

    async def read(self, position: int) -> bytes:
        """Read one item."""
        start = self.ends[position]
        return os.pread(self.fd, self.ends[position + 1] - start, start)[HEAD_BYTES:]

    async def replay(self) -> AsyncIterator[tuple[int, bytes]]:
        """Read pieces, and take them apart."""
        position, offset, rest = 0, 0, b""
        while piece := os.pread(self.fd, PIECE_BYTES, offset):
            offset += len(piece)
            items, rest = parsed(rest + piece)
            for item in items:
                yield position, item
                position += 1


class RawThread(RawLoop):
    """The same calls, each in a thread. Places are taken on the loop, so that calls may overlap."""

    def _place(self, length: int) -> int:
        offset = self.ends[-1]
        self.ends.append(offset + length)
        return offset

    async def append(self, item: bytes) -> None:
        """Write one item."""
        data = framed(item)
        offset = self._place(len(data))
        await asyncio.to_thread(os.pwrite, self.fd, data, offset)

    async def append_many(self, items: list[bytes]) -> None:
        """Write many at once."""
        offset = note_ends(self.ends, items)
        await asyncio.to_thread(os.pwrite, self.fd, framed_all(items), offset)

    async def sync(self) -> None:
        """Sync the file."""
        await asyncio.to_thread(os.fdatasync, self.fd)

    async def append_durably(self, item: bytes) -> None:
        """Write and sync in one hop."""
        data = framed(item)
        await asyncio.to_thread(self._write_and_sync, data, self._place(len(data)))

    async def commit(self, items: list[bytes]) -> None:
        """Write and sync in one hop."""
        offset = note_ends(self.ends, items)
        await asyncio.to_thread(self._write_and_sync, framed_all(items), offset)

    def _write_and_sync(self, data: bytes, offset: int) -> None:
        os.pwrite(self.fd, data, offset)
        os.fdatasync(self.fd)

    async def read(self, position: int) -> bytes:
        """Read one item."""
        start = self.ends[position]
        return (await asyncio.to_thread(os.pread, self.fd, self.ends[position + 1] - start, start))[HEAD_BYTES:]

    async def replay(self) -> AsyncIterator[tuple[int, bytes]]:
        """Read pieces in a thread, and take them apart on the loop."""
        position, offset, rest = 0, 0, b""
        while piece := await asyncio.to_thread(os.pread, self.fd, PIECE_BYTES, offset):
            offset += len(piece)
            items, rest = parsed(rest + piece)
            for item in items:
                yield position, item
                position += 1
