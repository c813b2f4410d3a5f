"""What the independent reader of the format finds in files that are held in memory."""

from __future__ import annotations

import ast
import base64
import struct
import zlib
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from tests.format import writer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.damage.states import Key, Tree

__all__ = [
    "CHECKPOINT",
    "SLOT_FIELDS_LENGTH",
    "Found",
    "find",
    "items_in",
    "packed",
    "records_in",
    "slots_in",
    "unpacked",
]

# Bytes of a slot that mean something; the rest is zeros that nobody looks at.
SLOT_FIELDS_LENGTH = 76

CHECKPOINT: Key = ("j_checkpoint", "0" * 16)


@dataclass(frozen=True, slots=True)
class Found:
    """What recovery has to find.

    Attributes:
        start: The pruning boundary, or the size at which a reset leaves the journal.
        low: The durable size.
        items: The items.
    """

    start: int
    low: int
    items: dict[int, bytes]


def find(tree: Tree, root: Path) -> Found | None:
    """Return what recovery has to find in these files, None if it has to refuse them."""
    if not slots_in(tree):
        tree = {**tree, CHECKPOINT: _stand_in(tree)}
    _write(tree, root)
    try:
        checkpoint = writer.read_checkpoint(root, "j")
        items = dict(writer.read_journal(root, "j", after_crash=True))
    except writer.Malformed:
        return None
    if checkpoint is None:
        return None
    if checkpoint.reset is not None:
        return Found(checkpoint.reset, checkpoint.reset, {})
    return Found(checkpoint.boundary, checkpoint.durable, items)


def _stand_in(tree: Tree) -> bytes:
    """Return what takes the place of a checkpoint that is lost: all sections but the last are relied on."""
    data = [key for key in sorted(tree) if key[0] == "j_data"]
    if not data:
        return b""
    header = tree[data[0]][: writer.HEADER_LENGTH]
    journal_id, _, items_per_section, first = struct.unpack_from("<QQQQ", header, 16)
    slot = writer.checkpoint_slot(
        sequence=1,
        journal_id=journal_id,
        items_per_section=items_per_section,
        durable=max(int(data[-1][1], 16) * items_per_section, first),
        boundary=first,
    )
    return writer.checkpoint_blob([slot])


def items_in(tree: Tree) -> dict[int, bytes]:
    """Return the item of each record that checks out in its own blob, wherever recovery would stop."""
    items: dict[int, bytes] = {}
    for key, content in tree.items():
        if key[0] == "j_data" and len(content) >= writer.HEADER_LENGTH:
            items.update(_section_in(key, content).items)
    return items


def slots_in(tree: Tree) -> list[writer.Checkpoint]:
    """Return the valid slots of the checkpoint, the one that counts first."""
    blob = tree.get(CHECKPOINT, b"")
    slots = [writer._checkpoint_of(blob[at : at + SLOT_FIELDS_LENGTH]) for at in (0, writer.SLOT_LENGTH)]
    return sorted((slot for slot in slots if slot is not None), key=lambda slot: -slot.sequence)


def records_in(key: Key, content: bytes) -> dict[int, bytes]:
    """Return the records of a data blob by the byte at which they start; nothing of other files.

    The salt and the first position are taken as they are: the header is not checked.
    """
    if key[0] != "j_data" or len(content) < writer.HEADER_LENGTH:
        return {}
    section = _section_in(key, content)
    bounds = pairwise([*section.starts, section.end])
    return {start: content[start:end] for start, end in bounds}


def _section_in(key: Key, content: bytes) -> writer._Section:
    items_per_section, first, salt = struct.unpack_from("<QQI", content, 32)
    header = writer._Header(int(key[1], 16), first, salt)
    return writer._section_of(content, header, (header.section + 1) * items_per_section)


def packed(tree: Tree) -> str:
    """Return files as a short text, for a note of how to see a failure again."""
    return base64.b85encode(zlib.compress(repr(tree).encode())).decode("ascii")


def unpacked(text: str) -> Tree:
    """Return the files of such a text; `CrashStorage.holding` makes a storage of them."""
    tree: Tree = ast.literal_eval(zlib.decompress(base64.b85decode(text)).decode())
    return tree


def _write(tree: Tree, root: Path) -> None:
    for old in root.glob("*/*"):
        old.unlink()
    for partition, name in tree:
        (root / partition).mkdir(parents=True, exist_ok=True)
        (root / partition / name).write_bytes(tree[partition, name])
