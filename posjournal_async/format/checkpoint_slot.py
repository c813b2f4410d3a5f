"""The small record of what recovery may rely on, in one of two slots."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from crc32c import crc32c

from posjournal_async.format.header import FORMAT_VERSION

__all__ = ["SLOT_LENGTH", "Slot", "UnknownVersion", "parse_slot"]

SLOT_LENGTH = 4096

_MAGIC = b"PJRNCKPT"
_NO_RESET = 2**64 - 1

# No journal comes that far, and from there on the next number might not fit.
_MOST_CHECKPOINTS = 2**63

_FIELDS = struct.Struct("<8sH6xQQQ8sQQQ")
_CRC = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Slot:
    """What recovery may rely on.

    Attributes:
        sequence: Number of this checkpoint; the higher one counts.
        journal_id: Random number that all blobs of the journal share.
        items_per_section: Positions in a section.
        codec: Name of the codec.
        durable: Every position below it is durable.
        boundary: No position below it exists.
        reset: Size at which a reset in progress will leave the journal, or None.
    """

    sequence: int
    journal_id: int
    items_per_section: int
    codec: str
    durable: int
    boundary: int
    reset: int | None = None

    def to_bytes(self) -> bytes:
        """Return the 4,096 bytes."""
        fields = _FIELDS.pack(
            _MAGIC,
            FORMAT_VERSION,
            self.sequence,
            self.journal_id,
            self.items_per_section,
            self.codec.encode("ascii"),
            self.durable,
            self.boundary,
            _NO_RESET if self.reset is None else self.reset,
        )
        return (fields + _CRC.pack(crc32c(fields))).ljust(SLOT_LENGTH, b"\0")


@dataclass(frozen=True, slots=True)
class UnknownVersion:
    """A slot with a good checksum that another version wrote.

    Attributes:
        version: The version found.
    """

    version: int


def parse_slot(slot: bytes) -> Slot | UnknownVersion | None:
    """Return the checkpoint that these bytes begin with, or None if they are not one."""
    if len(slot) < _FIELDS.size + _CRC.size:
        return None
    if crc32c(slot[: _FIELDS.size]) != _CRC.unpack_from(slot, _FIELDS.size)[0]:
        return None
    magic, version, sequence, journal_id, items_per_section, codec, durable, boundary, reset = _FIELDS.unpack_from(slot)
    name = codec.rstrip(b"\0")
    if magic != _MAGIC or not name.isascii() or items_per_section < 1:
        return None
    if version != FORMAT_VERSION:
        return UnknownVersion(version)
    if not 0 < sequence < _MOST_CHECKPOINTS:
        return None
    codec_name = name.decode("ascii")
    target = None if reset == _NO_RESET else reset
    return Slot(sequence, journal_id, items_per_section, codec_name, durable, boundary, target)
