"""A section that can still grow: its records in memory, on their way to the storage."""

from __future__ import annotations

from array import array
from itertools import accumulate, chain
from typing import TYPE_CHECKING

from crc32c import crc32c

from posjournal_async.format.header import HEADER_LENGTH
from posjournal_async.format.record import COMPRESSED, RECORD_HEAD, RECORD_HEAD_LENGTH

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from posjournal_async.format.header import Header
    from posjournal_async.payloads import Payload
    from posjournal_async.storage.protocols import Blob

__all__ = ["LARGEST_SIZE", "Tail"]

LARGEST_SIZE = 2**64 - 1

_U32 = 0xFFFF_FFFF


class Tail:
    """The records of one section that is not sealed, and how far each of them has come.

    By byte of the data blob, in order:

        64 ........ written ........ handed ........ end
           in storage       in flight       in buffer

    `flight` is with the storage and does not change; `buffer` is where the next record goes. A record is never split
    between the two. Only bytes before `written` may be read from the blob.

    Attributes:
        header: Header of the data blob.
        stop: Position after the last one that the section has room for.
        last: Index in `starts` of the record that makes the section full.
        starts: Where each record starts.
        end: Byte after the last record.
        limit: Byte that the next record may reach without anybody being asked; 0 to have everybody ask.
        blob: The data blob, once it was created.
        index: The offsets blob, once it was created.
        indexed: Entries of `starts` that the offsets blob has.
    """

    __slots__ = (
        "_first",
        "_salt",
        "blob",
        "buffer",
        "end",
        "flight",
        "handed",
        "header",
        "index",
        "indexed",
        "last",
        "limit",
        "starts",
        "stop",
        "written",
    )

    def __init__(self, header: Header, starts: array[int] | None = None, end: int = HEADER_LENGTH) -> None:
        self.header = header
        self._first = header.first
        self._salt = header.salt
        # Not min(..., LARGEST_SIZE): a section that ends there is full, one that would end behind it never is.
        self.stop = (header.section + 1) * header.items_per_section
        self.last = self.stop - header.first - 1
        self.starts: array[int] = array("Q") if starts is None else starts
        self.end = end
        self.written = end
        self.handed = end
        self.flight: bytes | bytearray = b""
        self.buffer = bytearray()
        self.limit = 0
        self.blob: Blob | None = None
        self.index: Blob | None = None
        self.indexed = 0

    @property
    def read_at_once(self) -> Callable[[int, int], bytes | None] | None:
        """How to read the blob without waiting, or None where it cannot."""
        return getattr(self.blob, "read_at_once", None)

    @property
    def size(self) -> int:
        """Position that the next record gets."""
        return self._first + len(self.starts)

    @property
    def is_full(self) -> bool:
        """Whether the section has all its records."""
        return self._first + len(self.starts) >= self.stop

    def append(self, payload: bytes, is_compressed: bool = False) -> int:  # noqa: FBT001, FBT002 - called for each item
        """Add a record and return its position. No check of room: that is the caller's."""
        starts = self.starts
        end = self.end
        position = self._first + len(starts)
        word = len(payload) + 1
        if is_compressed:
            word |= COMPRESSED
        buffer = self.buffer
        buffer += RECORD_HEAD.pack(word, crc32c(payload, (self._salt ^ position ^ word) & _U32))
        buffer += payload
        starts.append(end)
        self.end = end + RECORD_HEAD_LENGTH + len(payload)
        return position

    def append_run(self, payloads: Sequence[Payload]) -> int:
        """Do `append` for each of one or more payloads, and return the position of the last.

        The same bytes in one go, for less: what can be is a loop in C, without a line of Python for each item.
        """
        first = self._first + len(self.starts)
        salt = self._salt
        datas = [data for data, _ in payloads]
        lengths = list(map(len, datas))
        words = [length + 1 for length in lengths]
        if any(is_compressed for _, is_compressed in payloads):
            words = [
                word | COMPRESSED * is_compressed for word, (_, is_compressed) in zip(words, payloads, strict=True)
            ]
        seeds = [(salt ^ position ^ word) & _U32 for position, word in enumerate(words, first)]
        heads = map(RECORD_HEAD.pack, words, map(crc32c, datas, seeds))
        starts = list(accumulate(map(RECORD_HEAD_LENGTH.__add__, lengths), initial=self.end))
        end = starts.pop()
        self.buffer += b"".join(chain.from_iterable(zip(heads, datas, strict=True)))
        self.starts.extend(starts)
        self.end = end
        return first + len(datas) - 1

    def take_off(self) -> bytes | bytearray:
        """Put what is buffered in flight and return it. Nothing else may be in flight."""
        assert not self.flight, "two pieces of one section in flight"
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

    def bounds_of(self, position: int) -> tuple[int, int]:
        """Return where the record of a position in this section starts and ends, in bytes of the blob."""
        index = position - self._first
        starts = self.starts
        return starts[index], starts[index + 1] if index + 1 < len(starts) else self.end

    def in_memory(self, start: int, stop: int) -> bytes | None:
        """Return the bytes from `start` to `stop`, or None if the first of them is in the storage already.

        Fewer bytes come back where what is in flight ends before `stop`.
        """
        if start >= self.handed:
            return bytes(self.buffer[start - self.handed : stop - self.handed])
        if start >= self.written:
            return bytes(self.flight[start - self.written : stop - self.written])
        return None
