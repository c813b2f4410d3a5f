"""The index of one section, read piece by piece: it is compared with the data, and leads on behind damage."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from posjournal_async.format.header import HEADER_LENGTH, BadHeader
from posjournal_async.format.index import ENTRY_LENGTH, index_header_of, starts_in
from posjournal_async.inspection.present import open_if_there
from posjournal_async.sections import closed_on_error, read_header

if TYPE_CHECKING:
    from posjournal_async.format.header import Header
    from posjournal_async.storage.protocols import Blob, Storage

__all__ = ["SectionIndex"]

# Entries read at once where they are asked for one by one.
_PIECE = 4096


class SectionIndex:
    """An offsets blob beside the data blob that it belongs to.

    Attributes:
        fault: What is wrong with it as a whole, as (expected, found); None if it is this section's.
        length: Length of the blob, in bytes.
    """

    def __init__(self, blob: Blob | None, length: int, fault: tuple[str, str] | None) -> None:
        self.fault = fault
        self.length = length
        self._blob = blob
        self._piece: array[int] = array("Q")
        self._piece_at = 0

    @classmethod
    async def open(cls, storage: Storage, partition: str, data: Header) -> SectionIndex:
        """Open the index of a data blob, whatever it holds."""
        found = await open_if_there(storage, partition, data.section)
        if found is None:
            return cls(None, 0, ("one", "none"))
        blob, length = found
        async with closed_on_error(blob):
            header = await read_header(blob, length)
        if isinstance(header, BadHeader):
            return cls(blob, length, ("a header that checks out", header.fault.value))
        if header != index_header_of(data):
            return cls(blob, length, ("the header of the data blob", "that of another"))
        return cls(blob, length, None)

    @property
    def count(self) -> int:
        """Whole entries that it has; 0 if it is not this section's."""
        return 0 if self.fault else max(self.length - HEADER_LENGTH, 0) // ENTRY_LENGTH

    async def read(self, start: int, count: int) -> array[int]:
        """Return entries from number `start` on, fewer where the blob ends."""
        if self._blob is None or self.fault or count <= 0:
            return array("Q")
        return starts_in(await self._blob.read_at(HEADER_LENGTH + start * ENTRY_LENGTH, count * ENTRY_LENGTH))

    async def entry(self, number: int) -> int | None:
        """Return one entry, or None where there is none."""
        if not self._piece_at <= number < self._piece_at + len(self._piece):
            self._piece = await self.read(number, _PIECE)
            self._piece_at = number
        return self._piece[number - self._piece_at] if number < self._piece_at + len(self._piece) else None

    async def close(self) -> None:
        """Release the blob."""
        if self._blob is not None:
            await self._blob.close()
