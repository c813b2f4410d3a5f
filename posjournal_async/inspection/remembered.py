"""What a follower has shown, remembered so that it can tell when the history has become another one.

A rewind cuts the blob of one section and removes those behind it; what is appended then gets blobs with new salts. So a
blob that has the salt remembered was not removed since, and no blob before it was touched: it is enough to look at the
newest section whose salt is the same. In it the heads of the records tell which are the same: length, flag and checksum
of each.
"""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

from posjournal_async.format.header import HEADER_LENGTH
from posjournal_async.format.record import LENGTH_MASK, RECORD_HEAD_LENGTH, RecordFault, Records, parse_records

if TYPE_CHECKING:
    from posjournal_async.storage.protocols import Blob

__all__ = ["NO_SALT", "Remembered", "read_records", "save_memory"]

# Stands for the salt of a section whose blob is missing or has not the header that it has to.
NO_SALT = -1

# Bytes read and parsed at a time.
_PIECE = 256 * 1024

# Records, of all sections together, whose heads are kept: 8 bytes each. The newest section always keeps its own.
_MOST_HEADS = 2**18

# Sections that are all remembered; of those before them fewer and fewer.
_MOST_SECTIONS = 1024

_HEAD = struct.Struct("<Q")  # a record's word and its checksum, as one number


@dataclass(slots=True, eq=False)
class Remembered:
    """A section as it was read.

    Attributes:
        section: Its number.
        first: Position of its first record.
        salt: Salt of its data blob; `NO_SALT` where that could not be read.
        heads: The head of each record that was read, in order; None where they are not known, or not any more.
        end: Byte behind the last of these records.
        stop: Position behind what was read; the end of the section where the rest of it cannot be read.
    """

    section: int
    first: int
    salt: int
    heads: array[int] | None
    end: int
    stop: int

    @classmethod
    def begun(cls, section: int, first: int, salt: int) -> Remembered:
        """Return a section of which nothing was read yet."""
        return cls(section, first, salt, array("Q"), HEADER_LENGTH, first)

    def add(self, run: bytes, records: Records) -> None:
        """Remember the records that follow; `run` is what they were parsed from."""
        if not records.ends:
            return
        assert self.heads is not None
        starts = [0, *records.ends[:-1]]
        self.heads.extend([_HEAD.unpack_from(run, start)[0] for start in starts])
        self.end += records.ends[-1]
        self.stop += len(records.ends)

    def cut(self, position: int) -> None:
        """Forget what was read from a position on."""
        assert self.heads is not None
        gone = self.heads[position - self.first :]
        del self.heads[position - self.first :]
        # The word of a record says the length of its payload and 1 more.
        self.end -= sum((head & LENGTH_MASK) - 1 + RECORD_HEAD_LENGTH for head in gone)
        self.stop = position

    async def parting(self, blob: Blob) -> int:
        """Return the position of the first record that the blob has not any more; `stop` if it has them all."""
        assert self.heads is not None
        now = Remembered.begun(self.section, self.first, self.salt)
        assert now.heads is not None
        while now.stop < self.first + len(self.heads):
            seen = len(now.heads)
            run, records = await read_records(blob, now, self.first + len(self.heads))
            now.add(run, records)
            if not records.ends or now.heads[seen:] != self.heads[seen : len(now.heads)]:
                return self.first + seen + _same(now.heads[seen:], self.heads[seen:])
        return self.stop


def _same(one: array[int], other: array[int]) -> int:
    """Return how many numbers two arrays have in common from their start on."""
    for index, (mine, theirs) in enumerate(zip(one, other, strict=False)):
        if mine != theirs:
            return index
    return min(len(one), len(other))


async def read_records(blob: Blob, after: Remembered, until: int) -> tuple[bytes, Records]:
    """Return the next records of a blob that check out, and the bytes that begin with them; none where there is none.

    Args:
        blob: The data blob.
        after: What was read of it.
        until: Position at which to stop, exclusive.
    """
    most = until - after.stop
    run = await blob.read_at(after.end, _PIECE)
    records = parse_records(run, after.salt, after.stop, most)
    is_larger = not records.ends and records.fault is RecordFault.SHORT and len(run) == _PIECE
    # One record larger than a piece, if its length can be believed: nothing is read on its word beyond the blob.
    if is_larger and await blob.read_at(after.end + records.needed - 1, 1):
        run = await blob.read_at(after.end, records.needed)
        records = parse_records(run, after.salt, after.stop, most)
    return run, records


def save_memory(known: list[Remembered]) -> None:
    """Give up what is remembered in detail of old sections, and most of those before the newest thousand."""
    room = _MOST_HEADS
    for one in reversed(known):
        if one.heads is not None:
            if room <= 0:
                one.heads = None
            else:
                room -= len(one.heads)
    surplus = len(known) - _MOST_SECTIONS
    if surplus > 0:
        known[: surplus + 1] = _thinned(known[: surplus + 1], known[-1].section)


def _thinned(known: list[Remembered], newest: int) -> list[Remembered]:
    """Return the last of these sections, and as many of those before it as tell how far back a rewind went.

    A section that still has its salt proves that no blob before it was touched, whichever section it is. So to forget
    one never hides a rewind: it only seems to go back farther, to the next older section that is remembered, and more
    is shown again.

    That is at most about twice of what was rewound, as for the anchors of a follower: a section is forgotten only if
    the next older one is at most twice as far from the newest as the next newer one that is kept. All get farther away
    by the same distance, so that stays true. Of three neighbours that are kept, the first is more than twice as far
    away as the last: there are no more than two for each doubling.

    A section whose blob was damaged has no salt to tell by, and is forgotten first.
    """
    *older, last = known
    kept = [last]
    salted = [one for one in reversed(older) if one.salt != NO_SALT]
    for one, before in zip_longest(salted, salted[1:]):
        nearer = newest - kept[-1].section + 1
        if before is None or newest - before.section + 1 > 2 * nearer:
            one.heads = None
            kept.append(one)
    kept.reverse()
    return kept
