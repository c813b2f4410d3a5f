"""A full section that is open for reading: where its records are, by its index or, where that is wrong, by its data."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from posjournal_async.format.header import HEADER_LENGTH
from posjournal_async.format.record import RECORD_HEAD_LENGTH
from posjournal_async.scan import claimed_end, is_record, scan_records

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from posjournal_async.format.header import Header
    from posjournal_async.storage.protocols import Blob

__all__ = ["SealedSection"]


@dataclass(slots=True, eq=False)
class SealedSection:
    """A full section, open for reading.

    Attributes:
        header: Header of the data blob.
        blob: The data blob.
        starts: Where each record starts.
        end: Byte after the last record.
        is_scanned: Whether `starts` was found by parsing the data, not taken from the index.
        users: Readers that are at it; the blob is not closed before they are done.
        closing: The task that closes the blob, once there is one.
        read_at_once: How to read the blob without waiting; None where it cannot.
        first: Position of the first record.
        salt: Salt of the data blob.
    """

    header: Header
    blob: Blob
    starts: array[int]
    end: int
    is_scanned: bool = False
    users: set[object] = field(default_factory=set[object])
    closing: asyncio.Task[None] | None = None
    read_at_once: Callable[[int, int], bytes | None] | None = field(init=False)
    first: int = field(init=False)
    salt: int = field(init=False)

    def __post_init__(self) -> None:
        self.read_at_once = getattr(self.blob, "read_at_once", None)
        self.first = self.header.first
        self.salt = self.header.salt

    def bounds_of(self, position: int) -> tuple[int, int] | None:
        """Return where the record of a position starts and ends, or None if the index says what cannot be."""
        index = position - self.first
        starts = self.starts
        start = starts[index]
        index += 1
        stop = starts[index] if index < len(starts) else self.end
        if HEADER_LENGTH <= start <= stop - RECORD_HEAD_LENGTH and stop <= self.end:
            return start, stop
        return None

    async def reindex(self) -> bool:
        """Find the records, since the index did not lead to one; say whether that is worth another try.

        Reading repairs nothing: what is found is kept in memory only.
        """
        if self.is_scanned:
            return False
        scan = await scan_records(self.blob, self.end, self.header)
        count = len(scan.starts)
        if count == len(self.starts):
            self.starts, self.end = scan.starts, scan.end
        else:  # a record is damaged: only the index leads to those behind it
            self.starts = scan.starts + array("Q", [scan.end]) + self.starts[count + 1 :]
            self.end = await self._end_of_last()
        self.is_scanned = True
        return True

    async def _end_of_last(self) -> int:
        """Return where the last record ends if it checks out: other bytes may be behind it. Else where they all end."""
        blob, start = self.blob, self.starts[-1]
        stop = await claimed_end(blob, start)
        if stop is None or stop > self.end:
            return self.end
        position = self.first + len(self.starts) - 1
        return stop if await is_record(blob, start, stop, self.salt, position) else self.end
