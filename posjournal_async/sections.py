"""The blobs of one partition, one for each section."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from posjournal_async.errors import Corruption
from posjournal_async.format.header import HEADER_LENGTH, parse_header
from posjournal_async.storage.protocols import removes_many
from posjournal_async.waiting import release_beside

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Container, Iterable, Sequence

    from typing_extensions import Buffer

    from posjournal_async.format.header import BadHeader, Header
    from posjournal_async.storage.protocols import Blob, Storage

__all__ = ["Sections", "closed_on_error", "read_header", "unbroken", "write_durably"]

_NAME_LENGTH = 8


class Sections:
    """Opens, creates and removes the blobs of a partition by section number.

    Attributes:
        partition: Name of the partition in the storage.
    """

    def __init__(self, storage: Storage, partition: str) -> None:
        self.partition = partition
        self._storage = storage

    async def scan(self) -> list[int]:
        """Return the sections that have a blob, ascending.

        Raises:
            Corruption: A blob has a name that is no section number.
        """
        names = await self._storage.scan(self.partition)
        for name in names:
            if len(name) != _NAME_LENGTH:
                raise Corruption("blob name", f"{_NAME_LENGTH} bytes", name.hex(), self.partition)
        return sorted(int.from_bytes(name) for name in names)

    async def open(self, section: int) -> tuple[Blob, int]:
        """Open the blob of a section, which exists; return it with its length in bytes."""
        return await self._storage.open(self.partition, _name_of(section))

    @asynccontextmanager
    async def opened(self, section: int) -> AsyncGenerator[tuple[Blob, int]]:
        """Give the blob of a section, which exists, with its length in bytes; it is closed behind the block."""
        blob, length = await self.open(section)
        async with closed_on_error(blob):
            yield blob, length
        await blob.close()

    async def create(self, header: Header) -> Blob:
        """Make the blob of a section. Its name, then its header are durable on return, before anything is in it.

        Nothing of an interrupted creation may be left: recovery has removed it.
        """
        blob, _ = await self._storage.open(self.partition, _name_of(header.section))
        async with closed_on_error(blob):
            await write_durably(blob, 0, header.to_bytes())
        return blob

    async def remove(self, sections: Iterable[int]) -> None:
        """Remove the blobs of sections in the order given, durably."""
        names = [_name_of(section) for section in sections]
        if not names:
            return
        if removes_many(self._storage):
            await self._storage.remove_many(self.partition, names)
        else:
            for name in names:
                await self._storage.remove(self.partition, name)

    async def remove_from_end(self, sections: Sequence[int]) -> None:
        """Remove the blobs of the last sections, newest first, durably: the oldest when the others are gone.

        One removal of several may be lost in a crash, and another not. Apart from the others, the first blob of a
        journal is there as long as one behind it is: data that begins later was not left by a crash.
        """
        await self.remove(sections[:-1])
        await self.remove(sections[-1:])

    async def remove_all(self) -> None:
        """Remove the partition, durably."""
        await self._storage.remove(self.partition, None)


@asynccontextmanager
async def closed_on_error(*blobs: Blob) -> AsyncGenerator[None]:
    """Close blobs if what is done with them fails; that failure is the one to tell, also when closing fails too."""
    try:
        yield
    except BaseException as error:
        for blob in blobs:
            await release_beside(error, blob.close, "closing a blob")
        raise


async def read_header(blob: Blob, length: int) -> Header | BadHeader:
    """Return the header of a blob of `length` bytes, or why there is none."""
    return parse_header(await blob.read_at(0, min(length, HEADER_LENGTH)), length)


async def write_durably(blob: Blob, offset: int, data: Buffer) -> None:
    """Write and sync, in one operation where the blob has one. `data` must not change until it is done."""
    # As writes_durably(blob), without the call: this is done for each commit.
    write_durably_at = getattr(blob, "write_durably_at", None)
    if write_durably_at is not None:
        await write_durably_at(offset, data)
    else:
        await blob.write_at(offset, data)
        await blob.sync()


def unbroken(sections: Sequence[int], without: Container[int] = ()) -> Sequence[int]:
    """Return sections, ascending, up to the first gap, or to one of those that do not count."""
    for place, section in enumerate(sections):
        if section != sections[0] + place or section in without:
            return sections[:place]
    return sections


def _name_of(section: int) -> bytes:
    return section.to_bytes(_NAME_LENGTH)
