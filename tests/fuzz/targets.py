"""What is fuzzed, and what has to hold for any bytes: a function for each target that raises if it does not."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from posjournal_async import (
    CodecError,
    Context,
    Corruption,
    InvalidConfiguration,
    Journal,
    JournalError,
    SizeOverflow,
)
from posjournal_async.checkpoint import Checkpoint, read_slots
from posjournal_async.format.checkpoint_slot import Slot, UnknownVersion, parse_slot
from posjournal_async.format.header import Header, HeaderFault, Kind, parse_header
from posjournal_async.format.record import parse_record, parse_records, record_of
from posjournal_async.payloads import Payloads
from posjournal_async.scan import scan_records
from tests.format import writer
from tests.fuzz import inputs
from tests.fuzz.inputs import CONFIG, ITEMS_PER_SECTION, LARGEST_ITEM, SLOT_FIELDS_LENGTH

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from posjournal_async import MemoryStorage
    from tests.fuzz.inputs import Tree

__all__ = ["TARGETS", "Target"]

T = TypeVar("T")

REFUSALS = (Corruption, InvalidConfiguration, CodecError)

_CODEC = CONFIG.codec.name.encode().ljust(8, b"\0")
_ZSTD_FRAMES = Payloads(CONFIG)


@dataclass(frozen=True, slots=True)
class Target:
    """Something that has to take any bytes.

    Attributes:
        run: Takes the bytes; raises if something is wrong that should not be.
        seeds: Returns inputs to begin with.
        mend: Returns an input with good checksums.
        longest: Length of an input at most, in bytes.
    """

    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    mend: Callable[[bytes], bytes]
    longest: int


def header(data: bytes) -> None:
    """Parse the first bytes of a blob."""
    parsed = parse_header(data[: writer.HEADER_LENGTH], len(data))
    fields = data[: writer.HEADER_LENGTH - 4]
    is_whole = len(data) >= writer.HEADER_LENGTH
    is_good = is_whole and writer.sealed_with_crc(fields) == data[: writer.HEADER_LENGTH]
    if isinstance(parsed, Header):
        assert is_good
        again = parsed.to_bytes()
        assert parse_header(again, len(data)) == parsed
        assert _looked_at(again) == _looked_at(data[: writer.HEADER_LENGTH])
        arguments: dict[str, Any] = {name: getattr(parsed, name) for name in ("journal_id", "section", "first", "salt")}
        written = writer.data_header if parsed.kind is Kind.DATA else writer.offsets_header
        assert again == written(items_per_section=parsed.items_per_section, codec=parsed.codec, **arguments)
    elif parsed.fault is HeaderFault.VERSION:
        assert is_good
        assert parsed.version != 1
    else:
        assert parsed.fault is HeaderFault.DAMAGED or len(data) <= writer.HEADER_LENGTH
        if is_good:
            is_known = data[:8] in {kind.value for kind in Kind}
            assert not (is_known and data[52:60].isascii() and data[32:40] != bytes(8))


def _looked_at(head: bytes) -> bytes:
    """Return a header without the six zeros that are not looked at, and the checksum over them."""
    return head[:10] + head[16:-4]


def record(data: bytes) -> None:
    """Find the records of a data blob, and decode them."""
    parsed = parse_header(data, len(data))
    if not isinstance(parsed, Header):
        return
    room = min((parsed.section + 1) * parsed.items_per_section, 2**64 - 1) - parsed.first
    if room < 0:
        return
    run = data[writer.HEADER_LENGTH :]
    ends = _ends_of(run, parsed.salt, parsed.first, room + 1)
    records = parse_records(run, parsed.salt, parsed.first, room + 1)
    assert records.ends == ends
    assert (records.fault is None) == (len(ends) == room + 1 or [0, *ends][-1] == len(run))
    start = 0
    for index, (payload, end) in enumerate(zip(records.payloads, ends, strict=True)):
        is_compressed = index in records.compressed
        position = parsed.first + index
        assert parse_record(run[start:end], parsed.salt, position) == (payload, is_compressed)
        assert record_of(payload, parsed.salt, position, compressed=is_compressed) == run[start:end]
        _decode(payload, position, is_compressed=is_compressed)
        start = end
    starts, scanned_end, has_extra = _run(_scanned(data, parsed))
    assert has_extra == (len(ends) > room)
    whole = [writer.HEADER_LENGTH + end for end in (0, *ends[:room])]
    assert [*starts, scanned_end] == whole


def _decode(payload: bytes, position: int, *, is_compressed: bool) -> None:
    try:
        item = _ZSTD_FRAMES.decode((payload, is_compressed), position)
    except CodecError:
        assert is_compressed
        return
    if is_compressed:
        assert len(item) <= LARGEST_ITEM
        decompressor = zstd.ZstdDecompressor()
        assert decompressor.decompress(payload) == item
        assert decompressor.eof
        assert not decompressor.unused_data
    else:
        assert item == payload


def _ends_of(run: bytes, salt: int, first: int, most: int) -> list[int]:
    """Return where the records end, found as `docs/format.md` says."""
    ends: list[int] = []
    at = 0
    while len(ends) < most and at + 8 <= len(run):
        word = int.from_bytes(run[at : at + 4], "little")
        end = at + 8 + word % 2**31 - 1
        seed = (salt ^ (first + len(ends)) ^ word) % 2**32
        checksum = int.from_bytes(run[at + 4 : at + 8], "little")
        if not at + 8 <= end <= len(run) or writer.crc32c(run[at + 8 : end], seed) != checksum:
            break
        ends.append(end)
        at = end
    return ends


async def _scanned(data: bytes, parsed: Header) -> tuple[list[int], int, bool]:
    storage = await inputs.storage_of({("j_data", bytes(8)): data})
    blob, length = await storage.open("j_data", bytes(8))
    scan = await scan_records(blob, length, parsed)
    await blob.close()
    return list(scan.starts), scan.end, scan.has_extra


def checkpoint(data: bytes) -> None:
    """Read the two slots of a checkpoint, and write the next one."""
    slots = [data[:SLOT_FIELDS_LENGTH], data[SLOT_FIELDS_LENGTH : 2 * SLOT_FIELDS_LENGTH]]
    expected = []
    for short in slots:
        parsed = parse_slot(short)
        if isinstance(parsed, Slot):
            assert parse_slot(parsed.to_bytes()) == parsed
            assert writer.sealed_with_crc(short[:-4]) == short
            if parsed.boundary <= parsed.durable and parsed.sequence and not any(short[10:16]):
                read = writer._checkpoint_of(short)
                assert read is not None
                assert read.codec.rstrip(b"\0").decode() == parsed.codec
                names = ("sequence", "journal_id", "items_per_section", "durable", "boundary", "reset")
                assert all(getattr(read, name) == getattr(parsed, name) for name in names)
            expected.append(parsed)
        elif isinstance(parsed, UnknownVersion):
            assert parsed.version != 1
            assert writer.sealed_with_crc(short[:-4]) == short
    _run(_stored(b"".join(slot.ljust(writer.SLOT_LENGTH, b"\0") for slot in slots), expected))


async def _stored(blob: bytes, slots: list[Slot]) -> None:
    storage = await inputs.storage_of({("j_checkpoint", bytes(8)): blob})
    try:
        handle, facts = await read_slots(storage, "j_checkpoint")
    except InvalidConfiguration:
        return
    highest = max((slot.sequence for slot in slots), default=None)
    assert (facts.current is None) == (highest is None)
    if facts.current is not None and facts.current.sequence < 2**63 - 1:
        assert facts.current.sequence == highest
        checkpoint = Checkpoint(handle, facts.current, facts.place)
        await checkpoint.confirm()
        await checkpoint.store(durable=5, boundary=3)
        again, stored = await read_slots(storage, "j_checkpoint")
        assert stored.current == checkpoint.slot
        await again.close()
    await handle.close()


def offsets(data: bytes) -> None:
    """Read a journal whose index is these bytes: an index is no item, and says nothing that is believed."""
    _run(_read_with_index(data))


async def _read_with_index(data: bytes) -> None:
    items = [b"item %d" % number * (number + 1) for number in range(5)]
    tree: Tree = {}
    for section, start in ((0, 0), (1, ITEMS_PER_SECTION)):
        kept = items[start : start + ITEMS_PER_SECTION]
        salt = writer.salt_of(section)
        head = writer.data_header(
            journal_id=1, section=section, items_per_section=ITEMS_PER_SECTION, first=start, salt=salt
        )
        records = [writer.record(item, salt, position) for position, item in enumerate(kept, start)]
        tree["j_data", section.to_bytes(8)] = writer.data_blob(head, records)
        tree["j_offsets", section.to_bytes(8)] = data
    slot = writer.checkpoint_slot(sequence=1, journal_id=1, items_per_section=ITEMS_PER_SECTION, durable=5, boundary=0)
    tree["j_checkpoint", bytes(8)] = writer.checkpoint_blob([slot])
    storage = await inputs.storage_of(tree)
    for _ in range(2):
        async with await Journal.init(Context(storage), CONFIG) as journal:
            assert [await journal.read(position) for position in reversed(journal.bounds())] == items[::-1]
            assert [pair async for pair in journal.replay(1)] == list(enumerate(items))[1:]
    after = await inputs.tree_of(storage)
    assert {key: blob for key, blob in after.items() if key[0] == "j_data"} == {
        key: blob for key, blob in tree.items() if key[0] == "j_data"
    }


# Whole journals.


def directory(data: bytes) -> None:
    """Open a journal, read all of it, do this and that with it, and open it again."""
    operations, tree = inputs.unpacked(data)
    _run(_lived(operations, tree))


@dataclass(frozen=True, slots=True)
class _Shown:
    bounds: range
    items: dict[int, bytes]

    @property
    def unreadable(self) -> list[int]:
        return [position for position in self.bounds if position not in self.items]


async def _lived(operations: int, tree: Tree) -> None:
    storage = await inputs.storage_of(tree)
    try:
        journal = await Journal.init(Context(storage), CONFIG)
    except (Corruption, InvalidConfiguration) as error:
        left = await inputs.tree_of(storage)
        assert left in (tree, {**tree, ("j_checkpoint", bytes(8)): b""}), "an opening that was refused changed files"
        _check_refusal(tree, error)
        return
    async with journal:
        shown = await _show(journal)
        after = await inputs.tree_of(storage)
        _check_shown(tree, shown)
    assert await inputs.tree_of(storage) == after, "reading or closing changed files"
    await _go_on(storage, shown, operations)


async def _show(journal: Journal[bytes]) -> _Shown:
    bounds = journal.bounds()
    items: dict[int, bytes] = {}
    for position in bounds:
        try:
            items[position] = await journal.read(position)
        except (Corruption, CodecError):
            continue
    replayed: dict[int, bytes] = {}
    try:
        async for position, item in journal.replay(bounds.start):
            replayed[position] = item  # noqa: PERF403 - what came before an error counts
    except (Corruption, CodecError):
        assert len(items) < len(bounds), "replay refused an item that can be read"
    assert len(replayed) == len(bounds) or len(items) < len(bounds)
    assert all(items[position] == item for position, item in replayed.items())
    return _Shown(bounds, items)


def _check_shown(tree: Tree, shown: _Shown) -> None:
    """Hold what is shown against what the independent reader finds."""
    for position, item in shown.items.items():
        assert item == _held_at(tree, position), f"position {position}: not what the files hold"
    _check_size(tree, shown)
    if len(shown.items) == len(shown.bounds):
        found = _found(tree)
        assert found is None or found == shown.items, f"expected {found}, found {shown}"


def _check_size(tree: Tree, shown: _Shown) -> None:
    """Refuse that less is shown than the checkpoint vouches for, or another beginning."""
    blob = tree.get(("j_checkpoint", bytes(8)), b"")
    try:
        slots = [writer._checkpoint_of(blob[at : at + SLOT_FIELDS_LENGTH]) for at in (0, writer.SLOT_LENGTH)]
    except writer.Malformed:
        return
    valid = [slot for slot in slots if slot is not None and slot.codec == _CODEC]
    if valid:
        slot = max(valid, key=lambda slot: slot.sequence)
        assert shown.bounds.start == (slot.boundary if slot.reset is None else slot.reset)
        assert shown.bounds.stop >= (slot.durable if slot.reset is None else slot.reset)


def _check_refusal(tree: Tree, error: JournalError) -> None:
    """Refuse a refusal of files that the independent reader can read, unless it is for a reason that it has not."""
    found = _found(tree)
    if not found or isinstance(error, InvalidConfiguration):
        return
    reasons = ("offsets", "section", "header", "blob name", "checkpoint")
    assert isinstance(error, Corruption)
    assert error.what in reasons, f"refused with {error}, and {found} is there"


def _held_at(tree: Tree, position: int) -> bytes | None:
    """Return the item whose record checks out at a position, from its own blob."""
    section = position // ITEMS_PER_SECTION
    blob = tree.get(("j_data", section.to_bytes(8)), b"")
    if len(blob) < writer.HEADER_LENGTH or writer.sealed_with_crc(blob[:60]) != blob[:64]:
        return None
    first, salt = int.from_bytes(blob[40:48], "little"), int.from_bytes(blob[48:52], "little")
    index = position - first
    try:
        held = writer._section_of(blob, writer._Header(section, first, salt), position + 1)
    except (writer.Malformed, zstd.ZstdError):
        return _plain_at(blob, salt, first, index)
    return held.items[index][1] if 0 <= index < len(held.items) else _plain_at(blob, salt, first, index)


def _plain_at(blob: bytes, salt: int, first: int, index: int) -> bytes | None:
    """Return an item that stands behind others that are damaged: wherever its record checks out."""
    for at in range(writer.HEADER_LENGTH, len(blob) - 7):
        word, checksum = int.from_bytes(blob[at : at + 4], "little"), int.from_bytes(blob[at + 4 : at + 8], "little")
        end = at + 8 + word % 2**31 - 1
        payload = blob[at + 8 : end]
        if at + 8 <= end <= len(blob) and writer.crc32c(payload, (salt ^ (first + index) ^ word) % 2**32) == checksum:
            return zstd.decompress(payload) if word >= 2**31 else payload
    return None


def _found(tree: Tree) -> dict[int, bytes] | None:
    """Return what the independent reader finds; None if it refuses the files."""
    with tempfile.TemporaryDirectory(dir=_SHARED_MEMORY) as name:
        root = Path(name)
        for (partition, blob_name), content in tree.items():
            (root / partition).mkdir(exist_ok=True)
            (root / partition / blob_name.hex()).write_bytes(content)
        try:
            said = writer.read_checkpoint(root, "j")
            if said is not None and (said.items_per_section, said.codec) != (ITEMS_PER_SECTION, _CODEC):
                return None  # the reader takes any
            return dict(writer.read_journal(root, "j", after_crash=True))
        except (writer.Malformed, zstd.ZstdError):
            return None


_SHARED_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - a directory of its own below it


async def _go_on(storage: MemoryStorage, shown: _Shown, operations: int) -> None:
    """Append, rewind and prune, and see that the next opening shows that and what was there before."""
    for bit, change in enumerate((_append, _rewind, _prune)):
        if operations & 1 << bit:
            try:
                async with await Journal.init(Context(storage), CONFIG) as journal:
                    assert await _show(journal) == shown
                    shown = await change(journal, shown)
            except Corruption as error:
                # A section that was not looked at as long as others were behind it is the last one now, or is to be.
                assert error.section in {position // ITEMS_PER_SECTION for position in shown.unreadable}  # noqa: PT017
                return
    size = shown.bounds.stop
    if operations & 8 and size < 2**64 - 1:
        async with await Journal.init_at_size(Context(storage), CONFIG, size) as journal:
            assert (journal.bounds().start, journal.bounds().stop) == (size, size)
        shown = _Shown(range(size, size), {})
    try:
        async with await Journal.init(Context(storage), CONFIG) as journal:
            assert await _show(journal) == shown
    except Corruption as error:
        assert error.section in {position // ITEMS_PER_SECTION for position in shown.unreadable}  # noqa: PT017


async def _append(journal: Journal[bytes], shown: _Shown) -> _Shown:
    items = dict(shown.items)
    position = shown.bounds.stop
    try:
        for item in (b"more", b"x" * 50, b"", b"and more"):
            assert await journal.append(item) == position
            items[position] = item
            position += 1
        await journal.sync()
    except SizeOverflow:
        assert position == 2**64 - 1
    return _Shown(range(shown.bounds.start, position), items)


async def _rewind(journal: Journal[bytes], shown: _Shown) -> _Shown:
    size = max(shown.bounds.stop - 2, shown.bounds.start)
    await journal.rewind(size)
    return _Shown(range(shown.bounds.start, size), {at: item for at, item in shown.items.items() if at < size})


async def _prune(journal: Journal[bytes], shown: _Shown) -> _Shown:
    await journal.prune(shown.bounds.start + ITEMS_PER_SECTION)
    bounds = journal.bounds()
    assert bounds.stop == shown.bounds.stop
    return _Shown(bounds, {at: item for at, item in shown.items.items() if at >= bounds.start})


def _run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine; whatever goes wrong behind it counts as well."""
    return asyncio.run(_watched(coroutine))


async def _watched(coroutine: Coroutine[Any, Any, T]) -> T:
    behind: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: behind.append(context))
    result = await coroutine
    assert not behind, behind
    return result


TARGETS = {
    "header": Target(header, inputs.seeds_of_headers, inputs.with_good_header, 128),
    "record": Target(record, inputs.seeds_of_data, inputs.with_good_blob, 1024),
    "checkpoint": Target(checkpoint, inputs.seeds_of_checkpoints, inputs.with_good_slots, 2 * SLOT_FIELDS_LENGTH),
    "offsets": Target(offsets, inputs.seeds_of_offsets, inputs.with_good_header, 256),
    "directory": Target(directory, inputs.seeds_of_journals, inputs.with_good_journal, 2048),
}
