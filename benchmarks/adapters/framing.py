"""The least that makes a file a journal: each item behind its length, and an array that knows where each begins.

No checksum, no repair, no sections: whoever is as fast as this has done nothing else.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from array import array

PIECE_BYTES = 256 * 1024

_LENGTH = Struct(">I")
HEAD_BYTES = _LENGTH.size
_pack = _LENGTH.pack
_length_at = _LENGTH.unpack_from


def framed(item: bytes) -> bytes:
    """Return an item behind its length."""
    return _pack(len(item)) + item


def framed_all(items: list[bytes]) -> bytes:
    """Return all items, each behind its length."""
    return b"".join([part for item in items for part in (_pack(len(item)), item)])


def parsed(piece: bytes) -> tuple[list[bytes], bytes]:
    """Return the whole items at the start of a piece, and what is left of it."""
    items: list[bytes] = []
    here, end = 0, len(piece)
    while here + HEAD_BYTES <= end:
        after = here + HEAD_BYTES + _length_at(piece, here)[0]
        if after > end:
            break
        items.append(piece[here + HEAD_BYTES : after])
        here = after
    return items, piece[here:]


def note_ends(ends: array[int], items: list[bytes]) -> int:
    """Note where items end that follow what is there; return where the first begins."""
    start = end = ends[-1]
    note = ends.append
    for item in items:
        end += HEAD_BYTES + len(item)
        note(end)
    return start
