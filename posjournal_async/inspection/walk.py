"""A walk over the records of a data blob, piece by piece, that can be put elsewhere when it stands before damage."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

from posjournal_async.format.header import HEADER_LENGTH
from posjournal_async.format.record import LENGTH_MASK, RECORD_HEAD, RECORD_HEAD_LENGTH, parse_records
from posjournal_async.scan import LONG, claimed_end, is_record

if TYPE_CHECKING:
    from posjournal_async.format.header import Header
    from posjournal_async.format.record import Records
    from posjournal_async.storage.protocols import Blob

__all__ = ["Piece", "Walk"]

# Bytes parsed between two awaits.
_PIECE = 256 * 1024


@dataclass(frozen=True, slots=True)
class Piece:
    """Records one after the other that check out.

    Attributes:
        first: Position of the first.
        starts: Where each starts, in bytes of the blob; at least one.
        end: Byte after the last.
        records: The records; None for a long one, which was not kept.
    """

    first: int
    starts: array[int]
    end: int
    records: Records | None

    @property
    def stop(self) -> int:
        """Position after the last."""
        return self.first + len(self.starts)


class Walk:
    """Where in a data blob the next record is to be.

    Attributes:
        header: Header of the blob.
        length: Length of the blob, in bytes.
        position: Position of the next record.
        at: Byte at which it is to start.
    """

    def __init__(self, blob: Blob, length: int, header: Header) -> None:
        self.header = header
        self.length = length
        self.position = header.first
        self.at = HEADER_LENGTH
        self._blob = blob

    def go_to(self, position: int, at: int) -> None:
        """Go on elsewhere."""
        self.position, self.at = position, at

    async def next_piece(self, stop: int) -> Piece | None:
        """Return the next records, those below position `stop`, and go behind them; None if the next is not there."""
        wanted = _PIECE
        while self.at < self.length:
            asked = min(wanted, self.length - self.at)
            run = await self._blob.read_at(self.at, asked)
            records = parse_records(run, self.header.salt, self.position, stop - self.position)
            if records.ends:
                starts = array("Q", [self.at, *(self.at + end for end in records.ends[:-1])])
                return self._passed(starts, self.at + records.ends[-1], records)
            if records.needed <= len(run) or self.at + records.needed > self.length or len(run) < asked:
                return None
            if records.needed > LONG:
                if await self.is_record_at(self.at, self.position):
                    return self._passed(array("Q", [self.at]), self.at + records.needed, None)
                return None
            wanted = records.needed
        return None

    def _passed(self, starts: array[int], end: int, records: Records | None) -> Piece:
        piece = Piece(self.position, starts, end, records)
        self.go_to(piece.stop, end)
        return piece

    async def read_again(self, piece: Piece) -> Records:
        """Return the one record of a piece that was not kept."""
        run = await self._blob.read_at(piece.starts[0], piece.end - piece.starts[0])
        return parse_records(run, self.header.salt, piece.first, 1)

    async def is_record_at(self, at: int, position: int, end: int | None = None) -> bool:
        """Say whether the record of a position starts at a byte, and if `end` is given, ends there."""
        stop = await self._end_at(at)
        if stop is None or end not in {None, stop}:
            return False
        return await is_record(self._blob, at, stop, self.header.salt, position)

    async def end_of_this(self) -> int | None:
        """Return where the bytes that the walk stands before say that their record ends; None if it cannot be."""
        return await self._end_at(self.at)

    async def what_is_here(self) -> str:
        """Say what stands where the next record is to be."""
        left = self.length - self.at
        if left <= 0:
            return "the end of the blob"
        raw = await self._blob.read_at(self.at, min(left, RECORD_HEAD_LENGTH))
        if not any(raw):
            return "zeros"
        if len(raw) < RECORD_HEAD_LENGTH:
            return f"{len(raw)} bytes, less than the head of one"
        word, _ = RECORD_HEAD.unpack(raw)
        claimed = (word & LENGTH_MASK) - 1
        if claimed < 0:
            return "a head without a length"
        if claimed > left - RECORD_HEAD_LENGTH:
            return f"a length of {claimed} bytes, {claimed - left + RECORD_HEAD_LENGTH} more than there are"
        return f"{claimed} bytes with another checksum"

    async def _end_at(self, at: int) -> int | None:
        """Return where what may be a record says that it ends; None if it cannot be one."""
        if not HEADER_LENGTH <= at <= self.length - RECORD_HEAD_LENGTH:
            return None
        end = await claimed_end(self._blob, at)
        return end if end is not None and at + RECORD_HEAD_LENGTH <= end <= self.length else None
