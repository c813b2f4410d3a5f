"""The 64 bytes that every data and offsets blob begins with."""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

from crc32c import crc32c

__all__ = ["FORMAT_VERSION", "HEADER_LENGTH", "BadHeader", "Header", "HeaderFault", "Kind", "parse_header"]

FORMAT_VERSION = 1
HEADER_LENGTH = 64

_FIELDS = struct.Struct("<8sH6xQQQQI8s")
_CRC = struct.Struct("<I")


class Kind(enum.Enum):
    """What a blob holds; the value is its magic."""

    DATA = b"PJRNDATA"
    OFFSETS = b"PJRNOFFS"


class HeaderFault(enum.Enum):
    """Why bytes are not a header."""

    INTERRUPTED = "an interrupted creation: nothing, or a part of a header and zeros"
    VERSION = "another format version"
    DAMAGED = "bytes that are no header"


@dataclass(frozen=True, slots=True)
class BadHeader:
    """Bytes that are not a header that this version reads.

    Attributes:
        fault: Why.
        version: The version found, when that is the fault, else 0.
    """

    fault: HeaderFault
    version: int = 0


@dataclass(frozen=True, slots=True)
class Header:
    """What a blob says about itself.

    Attributes:
        kind: Data or offsets.
        journal_id: Random number that all blobs of a journal share.
        section: Section number.
        items_per_section: Positions in a section.
        first: Position of the first record.
        salt: Random number of the data blob, 32 bits.
        codec: Name of the codec.
    """

    kind: Kind
    journal_id: int
    section: int
    items_per_section: int
    first: int
    salt: int
    codec: str

    @property
    def place(self) -> tuple[Kind, int, int, int, int]:
        """What says where the blob belongs: kind, journal id, section, items per section and first position."""
        return self.kind, self.journal_id, self.section, self.items_per_section, self.first

    def to_bytes(self) -> bytes:
        """Return the 64 bytes."""
        fields = _FIELDS.pack(
            self.kind.value,
            FORMAT_VERSION,
            self.journal_id,
            self.section,
            self.items_per_section,
            self.first,
            self.salt,
            self.codec.encode("ascii"),
        )
        return fields + _CRC.pack(crc32c(fields))


def parse_header(start: bytes, length: int) -> Header | BadHeader:
    """Return the header that a blob begins with, or why there is none.

    Args:
        start: The first bytes of the blob, at least 64 of them where it has as many.
        length: Length of the blob, in bytes.
    """
    head = start[:HEADER_LENGTH]
    if len(head) == HEADER_LENGTH and crc32c(head[:-4]) == _CRC.unpack_from(head, HEADER_LENGTH - 4)[0]:
        magic, version, journal_id, section, items_per_section, first, salt, codec = _FIELDS.unpack_from(head)
        name = codec.rstrip(b"\0")
        if magic in (Kind.DATA.value, Kind.OFFSETS.value) and name.isascii() and items_per_section:
            if version != FORMAT_VERSION:
                return BadHeader(HeaderFault.VERSION, version)
            return Header(Kind(magic), journal_id, section, items_per_section, first, salt, name.decode("ascii"))
    # A creation syncs the header before anything is written behind it, so an interrupted one has nothing behind it.
    # Which bytes of the header itself arrived cannot be told from damage to it, and need not be: there is no record.
    if length <= HEADER_LENGTH and _is_torn(head):
        return BadHeader(HeaderFault.INTERRUPTED)
    return BadHeader(HeaderFault.DAMAGED)


def _is_torn(head: bytes) -> bool:
    """Say whether these bytes may be what a crash left of a header: a prefix of one, then nothing or zeros."""
    begun = head.rstrip(b"\0")
    magic = begun[:8]
    is_prefix = any(kind.value.startswith(magic) for kind in Kind)
    return is_prefix and len(begun) < HEADER_LENGTH
