"""Find the records of a data blob without an index: from the first byte on, each proving itself."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

from posjournal_async.format.header import HEADER_LENGTH
from posjournal_async.format.record import parse_records

if TYPE_CHECKING:
    from posjournal_async.format.header import Header
    from posjournal_async.storage.protocols import Blob

__all__ = ["Scan", "scan_records"]

# Bytes parsed between two awaits: a millisecond or so of records of 100 bytes, so that the event loop stays alive.
_PIECE = 256 * 1024


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
    """Find all records up to the first bytes that are not the next one.

    Nothing is allocated on the word of a record: a length that goes beyond the blob is not believed.
    """
    room = (header.section + 1) * header.items_per_section - header.first
    starts = array("Q")
    end = HEADER_LENGTH
    wanted = _PIECE
    has_extra = False
    while end < length:
        asked = min(wanted, length - end)
        run = await blob.read_at(end, asked)
        # One more than there is room for: if it is there, it must be known.
        records = parse_records(run, header.salt, header.first + len(starts), room + 1 - len(starts))
        if not records.ends:
            # A run shorter than asked for: the blob was cut meanwhile, by a rewind beside a read.
            if records.needed <= len(run) or end + records.needed > length or len(run) < asked:
                break
            wanted = records.needed  # one record larger than a piece
            continue
        wanted = _PIECE
        starts.append(end)
        starts.extend([end + record_end for record_end in records.ends[:-1]])
        if len(starts) > room:
            has_extra = True
            end = starts.pop()
            break
        end += records.ends[-1]
    return Scan(starts, end, length, has_extra)
