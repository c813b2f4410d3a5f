"""Inputs of the targets: a journal as a short run of bytes, seeds made from real journals, checksums made good again.

A mutated byte is nearly always found by the checksum over it, and nothing behind the checksum is ever tried. So half of
the inputs get good checksums before they are tried.
"""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING

from posjournal_async import BytesCodec, Config, Context, Journal, MemoryStorage
from tests.format import writer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from posjournal_async import Storage

__all__ = [
    "CONFIG",
    "ITEMS_PER_SECTION",
    "LARGEST_ITEM",
    "SLOT_FIELDS_LENGTH",
    "Tree",
    "packed",
    "seeds_of_checkpoints",
    "seeds_of_data",
    "seeds_of_headers",
    "seeds_of_journals",
    "seeds_of_offsets",
    "storage_of",
    "tree_of",
    "unpacked",
    "with_good_blob",
    "with_good_header",
    "with_good_journal",
    "with_good_slots",
]

ITEMS_PER_SECTION = 3
LARGEST_ITEM = 4096
CONFIG: Config[bytes] = Config(
    partition="j", items_per_section=ITEMS_PER_SECTION, codec=BytesCodec(), max_item_size=LARGEST_ITEM
)

# Bytes of a slot that mean something; the rest is zeros that nobody looks at.
SLOT_FIELDS_LENGTH = 76

# Partition and name of each blob.
Tree = dict[tuple[str, bytes], bytes]

_PARTITIONS = ("j_data", "j_offsets", "j_checkpoint")
_ENTRY = struct.Struct("<BBH")

# Numbers from here on stand for the last sections there can be, up to the one of the largest position.
_HIGH = 250
_LAST_SECTION = (2**64 - 1) // ITEMS_PER_SECTION


# A journal as bytes: for each blob its partition, its number and its length in four bytes, then its content.


def packed(tree: Tree, operations: int = 0) -> bytes:
    """Return a journal as bytes, and before them what is to be done with it."""
    parts = [bytes([operations])]
    for (partition, name), blob in tree.items():
        content = blob
        section = int.from_bytes(name)
        number = section if section < _HIGH else section - _LAST_SECTION + 255
        if partition == "j_checkpoint":
            slots = (blob[at : at + SLOT_FIELDS_LENGTH] for at in (0, writer.SLOT_LENGTH))
            content = b"".join(slots)
        parts += [_ENTRY.pack(_PARTITIONS.index(partition), number, len(content)), content]
    return b"".join(parts)


def unpacked(data: bytes) -> tuple[int, Tree]:
    """Return what is to be done, and the journal; any bytes are one."""
    tree: Tree = {}
    for kind, number, content in _entries(data[1:]):
        section = number if number < _HIGH else _LAST_SECTION - 255 + number
        if kind == 2:
            slots = (content[at : at + SLOT_FIELDS_LENGTH] for at in (0, SLOT_FIELDS_LENGTH))
            tree["j_checkpoint", bytes(8)] = writer.checkpoint_blob([slot for slot in slots if slot])
        else:
            tree[_PARTITIONS[kind], section.to_bytes(8)] = content
    return data[0] if data else 0, tree


def _entries(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    at = 0
    while at + _ENTRY.size <= len(data):
        kind, number, length = _ENTRY.unpack_from(data, at)
        at += _ENTRY.size
        yield kind % len(_PARTITIONS), number, data[at : at + length]
        at += length


# Good checksums.


def with_good_header(blob: bytes) -> bytes:
    """Return a blob whose header has a good checksum."""
    fields = blob[: writer.HEADER_LENGTH - 4]
    return writer.sealed_with_crc(fields) + blob[writer.HEADER_LENGTH :] if len(blob) >= writer.HEADER_LENGTH else blob


def with_good_blob(blob: bytes) -> bytes:
    """Return a data blob whose header, and each record up to one that is too long, has a good checksum."""
    if len(blob) < writer.HEADER_LENGTH:
        return blob
    first, salt = struct.unpack_from("<QI", blob, 40)
    good = bytearray(with_good_header(blob))
    at = writer.HEADER_LENGTH
    position = first
    while at + 8 <= len(good):
        word = int.from_bytes(good[at : at + 4], "little")
        end = at + 8 + word % 2**31 - 1
        if not at + 8 <= end <= len(good):
            break
        seed = (salt ^ position ^ word) % 2**32
        good[at + 4 : at + 8] = writer.crc32c(bytes(good[at + 8 : end]), seed).to_bytes(4, "little")
        at = end
        position += 1
    return bytes(good)


def with_good_slots(slots: bytes) -> bytes:
    """Return one or two short slots, without their padding, that have a good checksum."""
    good = b""
    for at in range(0, len(slots), SLOT_FIELDS_LENGTH):
        slot = slots[at : at + SLOT_FIELDS_LENGTH]
        good += writer.sealed_with_crc(slot[:-4]) if len(slot) == SLOT_FIELDS_LENGTH else slot
    return good


def with_good_journal(data: bytes) -> bytes:
    """Return a journal as bytes in which all checksums are good."""
    mend = (with_good_blob, with_good_header, with_good_slots)
    parts = [data[:1]]
    for kind, number, content in _entries(data[1:]):
        good = mend[kind](content)
        parts += [_ENTRY.pack(kind, number, len(good)), good]
    return b"".join(parts)


# Storages.


async def storage_of(tree: Tree) -> MemoryStorage:
    """Return a storage that holds these blobs."""
    storage = MemoryStorage()
    for (partition, name), content in tree.items():
        blob, _ = await storage.open(partition, name)
        await blob.write_at(0, content)
        await blob.close()
    return storage


async def tree_of(storage: Storage) -> Tree:
    """Return all blobs of a journal."""
    tree: Tree = {}
    for partition in _PARTITIONS:
        for name in await storage.scan(partition):
            blob, length = await storage.open(partition, name)
            tree[partition, name] = await blob.read_at(0, length)
            await blob.close()
    return tree


# Seeds.


def seeds_of_journals() -> list[bytes]:
    """Return small journals of each kind, and for some of them things to do."""
    trees = _trees()
    return [packed(tree, operations) for number, tree in enumerate(trees) for operations in (0, 1 << number % 4, 15)]


def _trees() -> list[Tree]:
    """Return journals that are the same each time: what the library draws by chance is replaced."""
    drawn: list[bytes] = []
    return [{key: _settled(key, blob, drawn) for key, blob in tree.items()} for tree in asyncio.run(_drawn_by_chance())]


def _settled(key: tuple[str, bytes], blob: bytes, drawn: list[bytes]) -> bytes:
    """Return a blob with the journal's id replaced by its number, and the salt by one that the section has."""
    partition, name = key
    if partition == "j_checkpoint":
        slots = [blob[at : at + writer.SLOT_LENGTH] for at in range(0, len(blob), writer.SLOT_LENGTH)]
        good = [
            with_good_slots(slot[:24] + _number_of(slot[24:32], drawn) + slot[32:SLOT_FIELDS_LENGTH])
            if any(slot)
            else b""
            for slot in slots
        ]
        return writer.checkpoint_blob(good)
    salt = writer.salt_of(int.from_bytes(name) % 2**16).to_bytes(4, "little")
    settled = blob[:16] + _number_of(blob[16:24], drawn) + blob[24:48] + salt + blob[52:]
    return with_good_blob(settled) if partition == "j_data" else with_good_header(settled)


def _number_of(journal_id: bytes, drawn: list[bytes]) -> bytes:
    if journal_id not in drawn:
        drawn.append(journal_id)
    return (drawn.index(journal_id) + 1).to_bytes(8, "little")


async def _drawn_by_chance() -> list[Tree]:
    storage = MemoryStorage()
    trees: list[Tree] = []
    journal = await Journal.init(Context(storage), CONFIG)
    trees.append(await tree_of(storage))
    for count in (1, 2, 2, 3):
        await journal.append_many([b"item %d" % (journal.size() + number) for number in range(count)])
        await journal.sync_data()
        trees.append(await tree_of(storage))
        await journal.sync()
        trees.append(await tree_of(storage))
    await journal.rewind(5)
    await journal.append(b"another")
    await journal.sync()
    trees.append(await tree_of(storage))
    await journal.prune(3)
    trees.append(await tree_of(storage))
    await journal.close()
    config: Config[bytes] = Config(
        partition="j",
        items_per_section=ITEMS_PER_SECTION,
        codec=BytesCodec(),
        compression=3,
        max_item_size=LARGEST_ITEM,
    )
    journal = await Journal.init_at_size(Context(storage), config, 7)
    trees.append(await tree_of(storage))
    await journal.append_many([b"item %d " % number * 9 for number in range(4)])
    await journal.close()
    trees.append(await tree_of(storage))
    # As far up as positions go, and with a reset on record.
    last = 2**64 - 1
    journal = await Journal.init_at_size(Context(storage), config, last - 4)
    await journal.append_many([b"a", b"b"])
    await journal.close()
    trees.append(await tree_of(storage))
    reset = writer.checkpoint_slot(sequence=9, journal_id=1, items_per_section=3, durable=4, boundary=4, reset=4)
    trees.append({**trees[4], ("j_checkpoint", bytes(8)): writer.checkpoint_blob([reset])})
    trees.append({key: blob for key, blob in trees[6].items() if key[0] != "j_checkpoint"})
    trees.append({key: blob for key, blob in trees[6].items() if key[0] != "j_offsets"})
    return trees


def _blobs(partition: str) -> list[bytes]:
    trees = _trees()
    return list(dict.fromkeys(blob for tree in trees for key, blob in tree.items() if key[0] == partition))


def seeds_of_headers() -> list[bytes]:
    """Return the first bytes of data and offsets blobs."""
    return [blob[:cut] for blob in _blobs("j_data") + _blobs("j_offsets") for cut in (30, 64, 80)]


def seeds_of_data() -> list[bytes]:
    """Return data blobs, one of them with frames that are no good, behind a checksum that is."""
    frame = writer.zstd_frame(b"item " * 9)
    length = 2 * LARGEST_ITEM
    # One block that is one byte repeated, as RFC 8878 has it.
    large = writer.zstd_frame(b"", claimed_length=length)[:-3] + (length << 3 | 0b011).to_bytes(3, "little") + b"x"
    frames = (frame, frame + frame, frame + b"\0", frame[:-1], large)
    salt = writer.salt_of(0)
    header = writer.data_header(journal_id=1, section=0, items_per_section=len(frames), first=0, salt=salt)
    records = [writer.record(one, salt, position, compressed=True) for position, one in enumerate(frames)]
    return [*_blobs("j_data"), writer.data_blob(header, records)]


def seeds_of_offsets() -> list[bytes]:
    """Return offsets blobs."""
    return _blobs("j_offsets")


def seeds_of_checkpoints() -> list[bytes]:
    """Return slots, one or two, without their padding."""
    return [
        blob[:SLOT_FIELDS_LENGTH] + blob[writer.SLOT_LENGTH :][:SLOT_FIELDS_LENGTH] for blob in _blobs("j_checkpoint")
    ]
