"""One item in a data blob: a word, a checksum that binds it to its position, the payload."""

from __future__ import annotations

import enum
import operator
import struct
from dataclasses import dataclass
from itertools import pairwise, repeat
from typing import TYPE_CHECKING

from crc32c import crc32c

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = [
    "COMPRESSED",
    "LENGTH_MASK",
    "LONGEST_PAYLOAD",
    "RECORD_HEAD",
    "RECORD_HEAD_LENGTH",
    "RecordFault",
    "Records",
    "checksum",
    "parse_record",
    "parse_records",
    "record_of",
    "records_at",
    "records_of",
    "seed_of",
]

COMPRESSED = 0x8000_0000
LENGTH_MASK = 0x7FFF_FFFF

# The word of a record says 1 more than the length of its payload, in 31 bits.
LONGEST_PAYLOAD = LENGTH_MASK - 1

RECORD_HEAD = struct.Struct("<II")
RECORD_HEAD_LENGTH = RECORD_HEAD.size

_U32 = 0xFFFF_FFFF

# The standard library's stub does not say what it takes.
_xor: Callable[[int, int], int] = operator.xor  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def checksum(payload: bytes | memoryview, salt: int, position: int, word: int) -> int:
    """Return the checksum of a record's payload, bound to its blob, its position and its word.

    Each step of a CRC is a bijection of its register, so two different seeds never give the same checksum for the
    same payload: a record cannot pass for one at another position of its blob.
    """
    return crc32c(payload, seed_of(salt, position, word))


def seed_of(salt: int, position: int, word: int) -> int:
    """Return what the CRC of a record's payload begins with."""
    return (salt ^ position ^ word) & _U32


def record_of(payload: bytes, salt: int, position: int, *, compressed: bool = False) -> bytes:
    """Return the record of a payload of at most `LONGEST_PAYLOAD` bytes."""
    word = len(payload) + 1 | (COMPRESSED if compressed else 0)
    return RECORD_HEAD.pack(word, checksum(payload, salt, position, word)) + payload


def records_of(payloads: Sequence[bytes], salt: int, position: int, compressed: Iterable[int] = ()) -> bytes:
    """Return the records of payloads at positions one after the other, as `record_of` makes each.

    In one go, for less: what is done for each record is a loop in C, without a line of Python.

    Args:
        payloads: The payloads.
        salt: Salt of the blob.
        position: Position of the first record.
        compressed: Indices in `payloads` of those that are compressed.
    """
    words = [len(payload) + 1 for payload in payloads]
    for index in compressed:
        words[index] |= COMPRESSED
    low = position & _U32
    positions: Iterable[int] = range(low, low + len(payloads))
    if low + len(payloads) > _U32 + 1:
        positions = [expected & _U32 for expected in positions]
    seeds = map(_xor, map(_xor, words, repeat(salt)), positions)
    parts = [b""] * (2 * len(payloads))
    parts[0::2] = map(RECORD_HEAD.pack, words, map(crc32c, payloads, seeds))
    parts[1::2] = payloads
    return b"".join(parts)


def parse_record(record: bytes, salt: int, position: int) -> tuple[bytes, bool] | None:
    """Return the payload of exactly one record and whether it is compressed, or None if it is not that record."""
    if len(record) < RECORD_HEAD_LENGTH:
        return None
    word, crc = RECORD_HEAD.unpack_from(record)
    payload = record[RECORD_HEAD_LENGTH:]
    # As `checksum`, without the call: this is done for each item that is read.
    if (word & LENGTH_MASK) != len(payload) + 1 or crc32c(payload, (salt ^ position ^ word) & _U32) != crc:
        return None
    return payload, word >= COMPRESSED


class RecordFault(enum.Enum):
    """Why parsing stopped before the end of the bytes."""

    SHORT = "a record that goes on behind these bytes"
    BAD = "bytes that are not the record of this position"


@dataclass(frozen=True, slots=True)
class Records:
    """What a run of bytes holds.

    Attributes:
        payloads: The payloads, in order.
        compressed: Indices in `payloads` of those that are compressed.
        ends: Where each record ends, in bytes from the start of the run.
        fault: Why parsing stopped, or None at the end of the bytes or at `most` records.
        needed: Bytes of the run that the next record needs, at least; a claim of the bytes, not checked.
    """

    payloads: list[bytes]
    compressed: list[int]
    ends: list[int]
    fault: RecordFault | None
    needed: int


def parse_records(run: bytes, salt: int, position: int, most: int) -> Records:
    """Parse records one after the other until the bytes end, `most` are found, or one does not check out.

    Args:
        run: The bytes.
        salt: Salt of the blob.
        position: Position of the first record.
        most: Records to parse at most.
    """
    payloads: list[bytes] = []
    compressed: list[int] = []
    ends: list[int] = []
    unpack = RECORD_HEAD.unpack_from
    length = len(run)
    at = 0
    fault = None
    needed = 0
    for expected in range(position, position + most):
        body = at + RECORD_HEAD_LENGTH
        if body > length:
            if at < length:
                fault = RecordFault.SHORT
            needed = body
            break
        word, crc = unpack(run, at)
        end = body + (word & LENGTH_MASK) - 1
        if end < body:  # a length of -1: zeros
            fault = RecordFault.BAD
            break
        if end > length:
            fault = RecordFault.SHORT
            needed = end
            break
        payload = run[body:end]
        if crc32c(payload, (salt ^ expected ^ word) & _U32) != crc:
            fault = RecordFault.BAD
            break
        if word >= COMPRESSED:
            compressed.append(len(payloads))
        payloads.append(payload)
        ends.append(end)
        at = end
    return Records(payloads, compressed, ends, fault, needed)


def records_at(run: bytes, salt: int, position: int, edges: list[int]) -> Records | None:
    """Return what `parse_records` finds, for less, where an index says what the run holds; None where it is not so.

    The payloads are cut out where the index has them, their records are made again in one go, and compared with the
    run: if they are its beginning, they are what it begins with, wherever the index comes from.

    Args:
        run: The bytes.
        salt: Salt of the blob.
        position: Position of the first record.
        edges: Where each record starts and where the last one ends, in bytes of the run; anything may stand there.
    """
    is_compressed = run[3:4] >= b"\x80"  # the first one, and so the others, or most of them; they are not made here
    if is_compressed or len(edges) < 2 or edges[0] != 0 or edges[-1] > len(run) or edges != sorted(edges):
        return None
    payloads = [run[start + RECORD_HEAD_LENGTH : end] for start, end in pairwise(edges)]
    made = records_of(payloads, salt, position)
    if len(made) != edges[-1] or not run.startswith(made):
        return None
    return Records(payloads, [], edges[1:], None, 0)
