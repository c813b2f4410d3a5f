"""Find the records of a data blob without an index: from the first byte on, each proving itself."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crc32c import crc32c

from posjournal_async.format.header import HEADER_LENGTH
from posjournal_async.format.record import LENGTH_MASK, RECORD_HEAD, RECORD_HEAD_LENGTH, parse_records, seed_of
from posjournal_async.tail import LARGEST_SIZE

if TYPE_CHECKING:
    from posjournal_async.format.header import Header
    from posjournal_async.storage.protocols import Blob

__all__ = ["LONG", "Scan", "claimed_end", "is_record", "scan_records"]

# Bytes parsed between two awaits: a millisecond or so of records of 100 bytes, so that the event loop stays alive.
_PIECE = 256 * 1024

# A record longer than this is checked piece by piece: nothing is allocated on its word, which may be damaged.
LONG = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Scan:
    """The records that a data blob holds.

    Attributes:
        starts: Where each record starts, in bytes of the blob.
        end: Byte after the last record.
        length: Length of the blob, in bytes.
        has_extra: Whether a record follows the last one that the section has room for.
    """

    starts: array[int]
    end: int
    length: int
    has_extra: bool


async def scan_records(blob: Blob, length: int, header: Header) -> Scan:
    """Find all records up to the first bytes that are not the next one, with one piece of the blob in memory."""
    room = min((header.section + 1) * header.items_per_section, LARGEST_SIZE) - header.first
    starts = array("Q")
    end = HEADER_LENGTH
    wanted = _PIECE
    has_extra = False
    ends: list[int]
    while end < length:
        asked = min(wanted, length - end)
        run = await blob.read_at(end, asked)
        # One more than there is room for: if it is there, it must be known.
        records = parse_records(run, header.salt, header.first + len(starts), room + 1 - len(starts))
        if not records.ends:
            # A run shorter than asked for: the blob was cut meanwhile, by a rewind beside a read.
            if records.needed <= len(run) or end + records.needed > length or len(run) < asked:
                break
            if records.needed <= LONG:
                wanted = records.needed  # one record larger than a piece
                continue
            if not await is_record(blob, end, end + records.needed, header.salt, header.first + len(starts)):
                break
            ends = [records.needed]
        else:
            ends = records.ends
        wanted = _PIECE
        starts.append(end)
        starts.extend([end + record_end for record_end in ends[:-1]])
        if len(starts) > room:
            has_extra = True
            end = starts.pop()
            break
        end += ends[-1]
    return Scan(starts, end, length, has_extra)


async def claimed_end(blob: Blob, start: int) -> int | None:
    """Return where the record that starts at a byte says that it ends; None if the blob ends before it can."""
    head = await _head_at(blob, start)
    return None if head is None else _end_of(start, head[0])


async def is_record(blob: Blob, start: int, stop: int, salt: int, position: int) -> bool:
    """Say whether the bytes from `start` to `stop` are the record of a position, with one piece of them in memory."""
    head = await _head_at(blob, start)
    if head is None or _end_of(start, head[0]) != stop:
        return False
    word, crc = head
    value = seed_of(salt, position, word)
    for at in range(start + RECORD_HEAD_LENGTH, stop, _PIECE):
        value = crc32c(await blob.read_at(at, min(_PIECE, stop - at)), value)
    return value == crc


async def _head_at(blob: Blob, start: int) -> tuple[int, int] | None:
    head = await blob.read_at(start, RECORD_HEAD_LENGTH)
    return RECORD_HEAD.unpack(head) if len(head) == RECORD_HEAD_LENGTH else None


def _end_of(start: int, word: int) -> int:
    return start + RECORD_HEAD_LENGTH + (word & LENGTH_MASK) - 1
