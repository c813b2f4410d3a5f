"""A section that can still grow: its records in memory, on their way to the storage."""

from __future__ import annotations

from array import array
from itertools import accumulate
from typing import TYPE_CHECKING

from posjournal_async.format.header import HEADER_LENGTH
from posjournal_async.format.record import records_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from posjournal_async.format.header import Header
    from posjournal_async.payloads import Payload, Run
    from posjournal_async.storage.protocols import Blob

__all__ = ["LARGEST_SIZE", "Tail"]

LARGEST_SIZE = 2**64 - 1


class Tail:
    """The records of one section that is not sealed, and how far each of them has come.

    By byte of the data blob, in order:

        64 ........ synced ........ written ........ handed ........ framed ........ end
            durable         in storage      in flight       in buffer       pending

    An append leaves its payload as it is: making records of many at once (`frame`) costs half of making each alone.
    `buffer` has the records that were made, `flight` those that are with the storage, and does not change. A record is
    never split between two of them. Only bytes before `written` may be read from the blob.

    Attributes:
        header: Header of the data blob.
        first: Position of the first record.
        stop: Position after the last one that the section has room for.
        starts: Where each record starts.
        synced, written, handed, framed, end: The bytes of the picture.
        flight, buffer: The records between `written`, `handed` and `framed`.
        pending: The payloads behind them.
        limit: Byte that the next record may reach without anybody being asked; 0 to have everybody ask.
        most: Records that there may be without anybody being asked.
        blob: The data blob, once it was created.
        read_at_once: How to read it without waiting; None where it cannot.
        index: The offsets blob, once it was created.
        indexed: Entries of `starts` that the offsets blob has.
    """

    __slots__ = (
        "_compressed",
        "blob",
        "buffer",
        "end",
        "first",
        "flight",
        "framed",
        "handed",
        "header",
        "index",
        "indexed",
        "limit",
        "most",
        "pending",
        "read_at_once",
        "starts",
        "stop",
        "synced",
        "written",
    )

    def __init__(self, header: Header, starts: array[int] | None = None, end: int = HEADER_LENGTH) -> None:
        self.header = header
        self.first = header.first
        # Not min(..., LARGEST_SIZE): a section that ends there is full, one that would end behind it never is.
        self.stop = (header.section + 1) * header.items_per_section
        self.starts: array[int] = array("Q") if starts is None else starts
        self.end = end
        self.synced = end
        self.written = end
        self.handed = end
        self.framed = end
        self.flight: bytes | bytearray = b""
        self.buffer = bytearray()
        self.pending: list[bytes] = []
        self._compressed: set[int] = set()  # indices in `pending`
        self.limit = 0
        self.most = 0
        self.blob: Blob | None = None
        self.read_at_once: Callable[[int, int], bytes | None] | None = None
        self.index: Blob | None = None
        self.indexed = 0

    def put_into(self, blob: Blob) -> None:
        """Let the records be kept in this data blob."""
        self.blob = blob
        self.read_at_once = getattr(blob, "read_at_once", None)

    @property
    def size(self) -> int:
        """Position that the next record gets."""
        return self.first + len(self.starts)

    @property
    def is_full(self) -> bool:
        """Whether the section has all its records."""
        return self.first + len(self.starts) >= self.stop

    @property
    def unhanded(self) -> int:
        """Bytes of records that the storage was not given yet."""
        return self.end - self.handed

    @property
    def unsynced(self) -> int:
        """Bytes of records that are not known to be durable."""
        return self.end - self.synced

    # Growing. No check of room: that is the caller's.

    def append_run(self, run: Run) -> int:
        """Add the records of one or more payloads, and return the position of the last."""
        starts = list(accumulate(run.lengths, initial=self.end))
        end = starts.pop()
        self.starts.extend(starts)
        if run.compressed:
            count = len(self.pending)
            self._compressed.update(count + index for index in run.compressed)
        self.pending += run.payloads
        self.end = end
        return self.first + len(self.starts) - 1

    def frame(self) -> None:
        """Make the records of what is pending. Doing it again after an interruption does it right."""
        if self.framed == self.end:
            return
        records = records_of(self.pending, self.header.salt, self.size - len(self.pending), self._compressed)
        self.buffer[self.framed - self.handed :] = records  # over what an interruption left there
        nothing: set[int] = set()
        # One line, and nothing in it that can be interrupted.
        self.framed, self.pending, self._compressed = self.end, [], nothing

    def take_off(self) -> bytes | bytearray:
        """Put what is buffered in flight and return it. Nothing else may be in flight."""
        assert not self.flight, "two pieces of one section in flight"
        self.frame()
        self.flight = self.buffer
        self.handed = self.end
        self.buffer = bytearray()
        return self.flight

    def land(self) -> int:
        """Note that what was in flight is in the storage; return how many bytes that was."""
        length = len(self.flight)
        self.written += length
        self.flight = b""
        return length

    # Looking.

    def bounds_of(self, position: int) -> tuple[int, int]:
        """Return where the record of a position in this section starts and ends, in bytes of the blob."""
        index = position - self.first
        starts = self.starts
        start = starts[index]
        index += 1
        return start, starts[index] if index < len(starts) else self.end

    def pending_payload(self, position: int) -> Payload | None:
        """Return the payload of a position in this section that is no record yet; None if it is one."""
        index = position - self.size + len(self.pending)
        if index < 0:
            return None
        return self.pending[index], index in self._compressed

    def in_memory(self, start: int, stop: int) -> bytes | None:
        """Return the bytes from `start` to `stop`, or None if the first of them is in the storage already.

        Fewer bytes come back where what is in flight ends before `stop`.
        """
        if start >= self.handed:
            if stop > self.framed:
                self.frame()
            return bytes(self.buffer[start - self.handed : stop - self.handed])
        if start >= self.written:
            return bytes(self.flight[start - self.written : stop - self.written])
        return None
