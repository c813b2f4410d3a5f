"""The format once more, from `docs/format.md` alone: a writer and a reader that share no line with the library.

What the library writes must be what this writes, and what it says it stored must be what this finds in the files.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence
    from pathlib import Path

__all__ = [
    "ALL_ONES",
    "HEADER_LENGTH",
    "SLOT_LENGTH",
    "Checkpoint",
    "Malformed",
    "checkpoint_blob",
    "checkpoint_slot",
    "crc32c",
    "data_blob",
    "data_header",
    "offsets_blob",
    "offsets_header",
    "path_of",
    "read_checkpoint",
    "read_journal",
    "record",
    "salt_of",
    "sealed_with_crc",
    "write_journal",
    "zstd_frame",
]

ALL_ONES = 2**64 - 1
HEADER_LENGTH = 64
SLOT_LENGTH = 4096

_DATA_MAGIC = b"PJRNDATA"
_OFFSETS_MAGIC = b"PJRNOFFS"
_CHECKPOINT_MAGIC = b"PJRNCKPT"
_SLOT_FIELDS_LENGTH = 72
_COMPRESSED = 1 << 31
_LONGEST_ZSTD_BLOCK = 128 * 1024

Part = Literal["data", "offsets", "checkpoint"]


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        register = byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
        table.append(register)
    return table


_CRC_TABLE = _crc_table()


def crc32c(data: bytes, value: int = 0) -> int:
    """Return the CRC-32C of `data`, continued from `value`."""
    register = value ^ 0xFFFF_FFFF
    for byte in data:
        register = register >> 8 ^ _CRC_TABLE[(register ^ byte) & 0xFF]
    return register ^ 0xFFFF_FFFF


def sealed_with_crc(fields: bytes) -> bytes:
    """Return the fields of a header or a slot with their checksum behind them."""
    return fields + crc32c(fields).to_bytes(4, "little")


# Blobs.


def _header(
    magic: bytes,
    *,
    journal_id: int,
    section: int,
    items_per_section: int,
    first: int,
    salt: int,
    codec: str,
    version: int,
) -> bytes:
    return sealed_with_crc(
        magic
        + version.to_bytes(2, "little")
        + bytes(6)
        + journal_id.to_bytes(8, "little")
        + section.to_bytes(8, "little")
        + items_per_section.to_bytes(8, "little")
        + first.to_bytes(8, "little")
        + salt.to_bytes(4, "little")
        + codec.encode("ascii").ljust(8, b"\0")
    )


def data_header(
    *,
    journal_id: int,
    section: int,
    items_per_section: int,
    first: int,
    salt: int,
    codec: str = "bytes",
    version: int = 1,
) -> bytes:
    """Return the first 64 bytes of a data blob."""
    return _header(
        _DATA_MAGIC,
        journal_id=journal_id,
        section=section,
        items_per_section=items_per_section,
        first=first,
        salt=salt,
        codec=codec,
        version=version,
    )


def offsets_header(
    *,
    journal_id: int,
    section: int,
    items_per_section: int,
    first: int,
    salt: int,
    codec: str = "bytes",
    version: int = 1,
) -> bytes:
    """Return the first 64 bytes of an offsets blob; `salt` is that of the data blob."""
    return _header(
        _OFFSETS_MAGIC,
        journal_id=journal_id,
        section=section,
        items_per_section=items_per_section,
        first=first,
        salt=salt,
        codec=codec,
        version=version,
    )


def record(payload: bytes, salt: int, position: int, *, compressed: bool = False) -> bytes:
    """Return the record of a payload, which is a zstd frame if it is `compressed`."""
    word = len(payload) + 1 + (_COMPRESSED if compressed else 0)
    seed = (salt ^ position ^ word) % 2**32
    return struct.pack("<II", word, crc32c(payload, seed)) + payload


def data_blob(header: bytes, records: Iterable[bytes]) -> bytes:
    """Return a data blob: its header, then its records."""
    return header + b"".join(records)


def offsets_blob(header: bytes, records: Iterable[bytes]) -> bytes:
    """Return the offsets blob of a data blob that holds these records."""
    blob = header
    start = HEADER_LENGTH
    for one in records:
        blob += struct.pack("<Q", start)
        start += len(one)
    return blob


def checkpoint_slot(
    *,
    sequence: int,
    journal_id: int,
    items_per_section: int,
    durable: int,
    boundary: int,
    reset: int | None = None,
    codec: str = "bytes",
    version: int = 1,
) -> bytes:
    """Return the 4,096 bytes of one slot."""
    fields = (
        _CHECKPOINT_MAGIC
        + version.to_bytes(2, "little")
        + bytes(6)
        + sequence.to_bytes(8, "little")
        + journal_id.to_bytes(8, "little")
        + items_per_section.to_bytes(8, "little")
        + codec.encode("ascii").ljust(8, b"\0")
        + durable.to_bytes(8, "little")
        + boundary.to_bytes(8, "little")
        + (ALL_ONES if reset is None else reset).to_bytes(8, "little")
    )
    return sealed_with_crc(fields).ljust(SLOT_LENGTH, b"\0")


def checkpoint_blob(slots: Sequence[bytes]) -> bytes:
    """Return the checkpoint's blob with one slot or two; an empty one is zeros."""
    return b"".join(slot.ljust(SLOT_LENGTH, b"\0") for slot in slots)


def zstd_frame(content: bytes, *, claimed_length: int | None = None) -> bytes:
    """Return a zstd frame (RFC 8878) that holds the content as it is, in raw blocks.

    Args:
        content: What it decompresses to.
        claimed_length: Content size that the frame's header states, in bytes; that of the content if None.
    """
    length = len(content) if claimed_length is None else claimed_length
    # Descriptor 0xE0: a content size of 8 bytes, a single segment, no checksum, no dictionary.
    frame = struct.pack("<IBQ", 0xFD2FB528, 0xE0, length)
    pieces = [content[at : at + _LONGEST_ZSTD_BLOCK] for at in range(0, len(content), _LONGEST_ZSTD_BLOCK)] or [b""]
    for number, piece in enumerate(pieces, start=1):
        is_last = number == len(pieces)
        frame += (len(piece) << 3 | is_last).to_bytes(3, "little") + piece
    return frame


# Whole journals in files.


def path_of(root: Path, partition: str, part: Part, number: int = 0) -> Path:
    """Return the file of a section, or of the checkpoint, of the journal `partition`."""
    return root / f"{partition}_{part}" / number.to_bytes(8, "big").hex()


def salt_of(section: int) -> int:
    """Return the salt that `write_journal` gives the section unless told."""
    return crc32c(section.to_bytes(8, "big"))


def write_journal(
    root: Path,
    partition: str,
    *,
    items: Sequence[bytes],
    first: int = 0,
    items_per_section: int = 10,
    durable: int | None = None,
    boundary: int | None = None,
    codec: str = "bytes",
    journal_id: int = 0x0123_4567_89AB_CDEF,
    salts: Sequence[int] = (),
    frames: Container[int] = (),
) -> None:
    """Lay out a journal in files as `FileStorage` would, as it is after a close.

    Args:
        root: Root of the storage.
        partition: Base name of the journal.
        items: The items as their codec encoded them.
        first: Position of the first item; inside a section it is where a reset left the journal.
        items_per_section: Positions in a section.
        durable: Durable size that the checkpoint states; the size if None.
        boundary: Pruning boundary that the checkpoint states; `first` if None.
        codec: Name of the codec.
        journal_id: Number that all blobs share.
        salts: Salts of the data blobs from the first on; `salt_of` the section where they end.
        frames: Positions of items that are given as a zstd frame.
    """
    size = first + len(items)
    for part in ("data", "offsets", "checkpoint"):
        (root / f"{partition}_{part}").mkdir(mode=0o700, parents=True, exist_ok=True)
    first_section = first // items_per_section
    for section in range(first_section, -(-size // items_per_section) if items else first_section):
        start = max(first, section * items_per_section)
        stop = min(size, (section + 1) * items_per_section)
        nth = section - first_section
        salt = salts[nth] if nth < len(salts) else salt_of(section)
        records = [
            record(items[position - first], salt, position, compressed=position in frames)
            for position in range(start, stop)
        ]
        for part, header_of, blob_of in (("data", data_header, data_blob), ("offsets", offsets_header, offsets_blob)):
            header = header_of(
                journal_id=journal_id,
                section=section,
                items_per_section=items_per_section,
                first=start,
                salt=salt,
                codec=codec,
            )
            _write_file(root / f"{partition}_{part}" / section.to_bytes(8, "big").hex(), blob_of(header, records))
    slot = checkpoint_slot(
        sequence=1,
        journal_id=journal_id,
        items_per_section=items_per_section,
        codec=codec,
        durable=size if durable is None else durable,
        boundary=first if boundary is None else boundary,
    )
    _write_file(path_of(root, partition, "checkpoint"), checkpoint_blob([slot]))


def _write_file(path: Path, blob: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(blob)


# Reading.


class Malformed(Exception):
    """The files are not a journal as the format has it."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What the slot that counts says; the names are those of `docs/format.md`."""

    sequence: int
    journal_id: int
    items_per_section: int
    codec: bytes
    durable: int
    boundary: int
    reset: int | None


@dataclass(frozen=True, slots=True)
class _Header:
    section: int
    first: int
    salt: int


@dataclass(frozen=True, slots=True)
class _Section:
    """What a data blob holds; `end` is the byte behind its last record."""

    header: _Header
    items: list[tuple[int, bytes]]
    starts: list[int]
    end: int


def read_checkpoint(root: Path, partition: str) -> Checkpoint | None:
    """Return the checkpoint that counts, or None if neither slot is valid or there is no file.

    Raises:
        Malformed: A slot has a good checksum and fields that no writer writes.
    """
    directory = root / f"{partition}_checkpoint"
    numbers = _numbers(directory)
    if not numbers:
        return None
    if numbers != [0]:
        raise Malformed(f"{directory}: expected one blob, number 0, found {numbers}")
    blob = path_of(root, partition, "checkpoint").read_bytes()
    if len(blob) > 2 * SLOT_LENGTH:
        raise Malformed(f"{directory}: expected two slots, found {len(blob)} bytes")
    slots = [_checkpoint_of(blob[at : at + SLOT_LENGTH]) for at in (0, SLOT_LENGTH)]
    return max((slot for slot in slots if slot is not None), key=lambda slot: slot.sequence, default=None)


def _checkpoint_of(slot: bytes) -> Checkpoint | None:
    fields, checksum = slot[:_SLOT_FIELDS_LENGTH], slot[_SLOT_FIELDS_LENGTH : _SLOT_FIELDS_LENGTH + 4]
    if checksum != crc32c(fields).to_bytes(4, "little") or len(fields) < _SLOT_FIELDS_LENGTH:
        return None
    magic, version, zeros, sequence, journal_id, items_per_section, codec, durable, boundary, reset = struct.unpack(
        "<8sH6sQQQ8sQQQ", fields
    )
    if (magic, version, zeros) != (_CHECKPOINT_MAGIC, 1, bytes(6)):
        raise Malformed(f"slot: expected magic, version 1 and zeros, found {fields[:16].hex()}")
    if not 0 < sequence < 2**63 or items_per_section < 1 or boundary > durable or any(slot[_SLOT_FIELDS_LENGTH + 4 :]):
        raise Malformed(f"slot: expected fields in their ranges and zeros behind them, found {fields.hex()}")
    target = None if reset == ALL_ONES else reset
    return Checkpoint(sequence, journal_id, items_per_section, codec, durable, boundary, target)


def read_journal(root: Path, partition: str, *, after_crash: bool = False) -> list[tuple[int, bytes]]:
    """Return the positions and items of a journal at rest, and refuse whatever a closed journal does not leave.

    Items come as their codec encoded them, decompressed. Nothing is trusted for being there: names, headers, checksums,
    the index, the lengths and the checkpoint must all agree.

    Args:
        root: Root of the storage.
        partition: Base name of the journal.
        after_crash: Return what recovery has to find instead: from the pruning boundary to the first record that does
            not check out, and nothing while a reset is in progress. Only the loss of what was durable, and fields that
            no writer writes, are refused then; the index is not looked at.

    Raises:
        Malformed: They do not agree.
    """
    checkpoint = read_checkpoint(root, partition)
    if after_crash and (checkpoint is None or checkpoint.reset is not None):
        if checkpoint is None and _numbers(root / f"{partition}_data"):
            raise Malformed(f"{partition}_checkpoint: expected a valid slot beside data, found none")
        return []
    if checkpoint is None or checkpoint.reset is not None:
        raise Malformed(f"{partition}_checkpoint: expected a valid slot without a reset, found {checkpoint}")
    sections = _read_sections(root, partition, checkpoint)
    items = [item for section in sections for item in section.items]
    size = checkpoint.boundary + len(items)
    if size < checkpoint.durable:
        raise Malformed(f"{partition}_data: expected {checkpoint.durable} durable items, found {size}")
    if not after_crash:
        _check_rest(root, partition, checkpoint, sections)
    return items


def _read_sections(root: Path, partition: str, checkpoint: Checkpoint) -> list[_Section]:
    """Return the sections from the pruning boundary on, up to one that is missing, not full or has a bad header."""
    sections: list[_Section] = []
    position = checkpoint.boundary
    number = position // checkpoint.items_per_section
    present = _numbers(root / f"{partition}_data")
    while number in present:
        blob = path_of(root, partition, "data", number).read_bytes()
        header = _header_of(blob, _DATA_MAGIC, number, checkpoint)
        if header is None or header.first != position:
            break
        stop = (number + 1) * checkpoint.items_per_section
        section = _section_of(blob, header, stop)
        sections.append(section)
        position += len(section.items)
        if position < stop:
            break
        number += 1
    return sections


def _check_rest(root: Path, partition: str, checkpoint: Checkpoint, sections: list[_Section]) -> None:
    """Refuse what a closed journal does not leave besides its items: other blobs, bytes behind, another index."""
    numbers = [section.header.section for section in sections]
    for part in ("data", "offsets"):
        found = _numbers(root / f"{partition}_{part}")
        if found != numbers:
            raise Malformed(f"{partition}_{part}: expected the sections {numbers}, found {found}")
    for number, section in zip(numbers, sections, strict=True):
        length = path_of(root, partition, "data", number).stat().st_size
        if length != section.end:
            raise Malformed(f"{partition}_data: expected {section.end} bytes in section {number}, found {length}")
        index = path_of(root, partition, "offsets", number).read_bytes()
        if _header_of(index, _OFFSETS_MAGIC, number, checkpoint) != section.header:
            raise Malformed(f"{partition}_offsets: expected the header of the data in section {number}")
        if index[HEADER_LENGTH:] != struct.pack(f"<{len(section.starts)}Q", *section.starts):
            raise Malformed(f"{partition}_offsets: expected the starts of the records of section {number}")


def _numbers(directory: Path) -> list[int]:
    if not directory.exists():
        return []
    names = sorted(path.name for path in directory.iterdir())
    for name in names:
        if len(name) != 16 or name.strip("0123456789abcdef"):
            raise Malformed(f"{directory}: expected names of 16 lower-case hex digits, found {name!r}")
    return [int(name, 16) for name in names]


def _header_of(blob: bytes, magic: bytes, section: int, checkpoint: Checkpoint) -> _Header | None:
    """Return the header of a blob of this journal, or None if its checksum is not good."""
    fields = blob[: HEADER_LENGTH - 4]
    if len(blob) < HEADER_LENGTH or blob[HEADER_LENGTH - 4 : HEADER_LENGTH] != crc32c(fields).to_bytes(4, "little"):
        return None
    *same, number, items_per_section, first, salt, codec = struct.unpack("<8sH6sQQQQI8s", fields)
    if same != [magic, 1, bytes(6), checkpoint.journal_id]:
        raise Malformed(f"header: expected {magic!r}, version 1, zeros and the journal's id, found {same}")
    is_written_by = codec == checkpoint.codec or _is_older(codec, checkpoint.codec)
    if (number, items_per_section) != (section, checkpoint.items_per_section) or not is_written_by:
        raise Malformed(f"header of section {section}: expected the values of the journal, found {fields.hex()}")
    return _Header(section, first, salt)


def _is_older(name: bytes, newest: bytes) -> bool:
    """Whether the name of a codec is that of an older version of the same encoding."""
    encoding, slash, version = name.rstrip(b"\0").partition(b"/")
    newest_encoding, newest_slash, newest_version = newest.rstrip(b"\0").partition(b"/")
    if not slash or (encoding, slash) != (newest_encoding, newest_slash):
        return False
    return 1 <= int(version) < int(newest_version) <= 255


def _section_of(blob: bytes, header: _Header, stop: int) -> _Section:
    """Return the records of a data blob up to `stop`, or to the first bytes that are not the next one."""
    items: list[tuple[int, bytes]] = []
    starts: list[int] = []
    at = HEADER_LENGTH
    for position in range(header.first, stop):
        if at + 8 > len(blob):
            break
        word, checksum = struct.unpack_from("<II", blob, at)
        end = at + 8 + word % _COMPRESSED - 1
        payload = blob[at + 8 : end]
        seed = (header.salt ^ position ^ word) % 2**32
        if not at + 8 <= end <= len(blob) or crc32c(payload, seed) != checksum:
            break
        items.append((position, _decompressed(payload) if word >= _COMPRESSED else payload))
        starts.append(at)
        at = end
    return _Section(header, items, starts, at)


def _decompressed(frame: bytes) -> bytes:
    decompressor = zstd.ZstdDecompressor()
    content = decompressor.decompress(frame)
    if not decompressor.eof or decompressor.unused_data:
        raise Malformed("payload: expected one whole zstd frame")
    return content
