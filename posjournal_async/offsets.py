"""The offsets journal: where the record of each position starts. Derived from the data, and rebuilt when lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from posjournal_async.format.header import HEADER_LENGTH
from posjournal_async.format.index import ENTRY_LENGTH, bytes_of, index_header_of, starts_in
from posjournal_async.sections import Sections, closed_on_error, read_header, write_durably

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterable

    from posjournal_async.format.header import Header
    from posjournal_async.storage.protocols import Blob, Storage
    from posjournal_async.tail import Tail

__all__ = ["OffsetsJournal"]


class OffsetsJournal:
    """The index of a journal, one blob for each section beside the blob of the data.

    Attributes:
        partition: Name of the partition in the storage.
    """

    def __init__(self, storage: Storage, partition: str) -> None:
        self._sections = Sections(storage, f"{partition}_offsets")
        self.partition = self._sections.partition

    async def scan(self) -> list[int]:
        """Return the sections that have a blob, ascending."""
        return await self._sections.scan()

    async def create(self, tail: Tail) -> None:
        """Make the blob of a section whose data blob was made."""
        tail.index = await self._sections.create(index_header_of(tail.header))
        tail.indexed = 0

    async def sync(self, tail: Tail) -> None:
        """Write the entries that the blob does not have, and make all of them durable."""
        assert tail.index is not None
        count = len(tail.starts)
        entries = bytes_of(tail.starts[tail.indexed :])
        await write_durably(tail.index, HEADER_LENGTH + tail.indexed * ENTRY_LENGTH, entries)
        tail.indexed = count

    async def cut(self, tail: Tail) -> None:
        """Drop the entries behind those of the section, durably."""
        assert tail.index is not None
        await tail.index.resize(HEADER_LENGTH + tail.indexed * ENTRY_LENGTH)
        await tail.index.sync()

    async def load(self, header: Header, count: int) -> array[int] | None:
        """Return where the records of a sealed section start, or None if the index is not that of this data blob.

        Args:
            header: Header of the data blob.
            count: Records of the section.
        """
        async with self._sections.opened(header.section) as (blob, length):
            if await read_header(blob, length) != index_header_of(header):
                return None
            starts = starts_in(await blob.read_at(HEADER_LENGTH, count * ENTRY_LENGTH))
            # Fewer also where a rewind that has found it wrong is writing it again.
            return starts if len(starts) == count else None

    async def align(self, header: Header, starts: array[int], *, was_synced: bool) -> tuple[Blob, bool]:
        """Make the blob of a section say exactly this, durably; return it open, and whether its bytes were others.

        The blob may hold anything: entries too many or too few, an index of another data blob, half a header. Unless
        what it holds is known to have been synced, it is written again even if it reads right: the page cache may be
        all that has it. A crash inside leaves an index that is compared again, or found wanting when it is read.
        """
        blob, length = await self._sections.open(header.section)
        async with closed_on_error(blob):
            wanted = index_header_of(header).to_bytes() + bytes_of(starts)
            found = await blob.read_at(0, min(length, len(wanted) + 1))
            is_other = found != wanted
            is_right = found.startswith(wanted)  # and longer, where it is another
            if is_other:
                await blob.resize(len(wanted) if is_right else 0)  # what is right stays: somebody may be looking at it
                await blob.sync()
            if not is_right or not was_synced:
                await blob.write_at(0, wanted)
                await blob.sync()
        return blob, is_other

    async def remove(self, sections: Iterable[int]) -> None:
        """Remove the blobs of sections in the order given, durably."""
        await self._sections.remove(sections)

    async def remove_all(self) -> None:
        """Remove the whole partition, durably."""
        await self._sections.remove_all()
