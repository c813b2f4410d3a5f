"""The index of a section: an offsets blob, with where each record starts as 8 bytes for each behind the header."""

from __future__ import annotations

import sys
from array import array
from dataclasses import replace

from posjournal_async.format.header import Header, Kind

__all__ = ["ENTRY_LENGTH", "bytes_of", "index_header_of", "starts_in"]

ENTRY_LENGTH = 8


def index_header_of(data: Header) -> Header:
    """Return the header of the index that belongs to a data blob."""
    return replace(data, kind=Kind.OFFSETS)


def bytes_of(starts: array[int]) -> bytes:
    """Return the entries for records that start there."""
    if sys.byteorder == "big":
        starts = starts[:]
        starts.byteswap()
    return starts.tobytes()


def starts_in(entries: bytes) -> array[int]:
    """Return where records start by these entries; half an entry at their end is none."""
    starts = array("Q")
    starts.frombytes(entries[: len(entries) // ENTRY_LENGTH * ENTRY_LENGTH])
    if sys.byteorder == "big":
        starts.byteswap()
    return starts
