"""Opening what a crash left, or what no crash leaves: index, prefix, adopted data, checkpoint, configuration."""

from __future__ import annotations

import asyncio
import random
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from posjournal_async import (
    Config,
    Context,
    Corruption,
    FileStorage,
    InvalidConfiguration,
    Journal,
    JsonCodec,
    MemoryStorage,
    StorageError,
)
from posjournal_async.checkpoint import SlotFacts
from posjournal_async.format.checkpoint_slot import Slot
from posjournal_async.inspection.blobs import Blobs
from posjournal_async.inspection.findings import Severity
from posjournal_async.inspection.survey import current_slots, survey
from posjournal_async.inspection.verification import Verification
from posjournal_async.mending.carrying_out import carry_out
from posjournal_async.mending.cutting import cut_away, cut_of
from posjournal_async.mending.plan import planned
from posjournal_async.offsets import OffsetsJournal
from posjournal_async.recovery.facts import observe
from posjournal_async.sections import Sections
from posjournal_async.storage.readonly import ReadOnlyFileStorage
from posjournal_async.testing import CrashStorage, GatedStorage, Luck, PowerCut
from tests.format import writer
from tests.format.writer import Part, path_of, read_checkpoint, read_journal
from tests.journals import limits_of
from tests.recovery.journals import CONFIG, ITEMS, change, lay_out, show, tree_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from posjournal_async.inspection.findings import Finding

RECORD = 8 + len(ITEMS[0])


async def assert_refused(root: Path, error: type[Exception], config: Config[bytes] = CONFIG) -> None:
    """Opening or reading raises, again at the next try, and no file is changed."""
    before = tree_of(root)
    for _ in range(2):
        with pytest.raises(error):
            await show(root, config)
        assert tree_of(root) == before


# The index.


@pytest.mark.parametrize("start", [0, 7, 10])
@pytest.mark.parametrize(
    "damaged",
    [
        lambda blob: blob[:-8],
        lambda blob: blob + bytes(8),
        lambda blob: blob + blob[-8:] * 20,
        lambda blob: blob[:64],
        lambda blob: blob[:30],
        lambda _: b"",
        lambda _: None,
        lambda blob: bytes(len(blob)),
        lambda blob: blob[:-1] + b"\xff",
        lambda blob: b"PJRNDATA" + blob[8:],
    ],
    ids=["shorter", "longer", "much longer", "header", "torn header", "empty", "missing", "zeros", "wrong", "other"],
)
async def test_the_index_of_the_last_section_is_made_to_say_what_the_data_says(
    tmp_path: Path, damaged: Callable[[bytes], bytes | None], start: int
) -> None:
    """A3: it costs no item, and the files are those of a closed journal again."""
    lay_out(tmp_path, 25, start=start)
    before = tree_of(tmp_path)
    change(tmp_path, "offsets", 2, damaged)
    shown = await show(tmp_path)
    assert shown.is_history(start, 25)
    assert shown.report.offsets_rebuilt == 1
    assert not shown.report.clean
    assert tree_of(tmp_path) == before


@pytest.mark.parametrize("start", [0, 7, 10])
async def test_a_lost_offsets_partition_is_rebuilt(tmp_path: Path, start: int) -> None:
    """A3, also after a prune and after a reset to a place inside a section."""
    lay_out(tmp_path, 35, start=start)
    before = tree_of(tmp_path)
    shutil.rmtree(tmp_path / "orders_offsets")
    shown = await show(tmp_path)
    assert shown.is_history(start, 35)
    assert shown.report.offsets_rebuilt == 4 - start // 10
    assert tree_of(tmp_path) == before


async def test_indexes_missing_at_the_end_are_rebuilt_with_the_one_before(tmp_path: Path) -> None:
    """A crash while they are rebuilt leaves a run of whole ones whose last is half-made."""
    lay_out(tmp_path, 45)
    before = tree_of(tmp_path)
    for section in (2, 3, 4):
        change(tmp_path, "offsets", section, lambda _: None)
    change(tmp_path, "offsets", 1, lambda blob: blob[:70])
    shown = await show(tmp_path)
    assert shown.is_history(0, 45)
    assert shown.report.offsets_rebuilt == 4
    assert tree_of(tmp_path) == before


async def test_an_index_that_was_not_pruned_yet_is_pruned(tmp_path: Path) -> None:
    """A crash came between the two removals of a prune."""
    lay_out(tmp_path, 25)
    index = path_of(tmp_path, "orders", "offsets").read_bytes()
    shutil.rmtree(tmp_path / "orders_data")
    lay_out(tmp_path, 25, start=10)
    assert path_of(tmp_path, "orders", "offsets").read_bytes() == index
    shown = await show(tmp_path)
    assert shown.is_history(10, 25)
    assert not path_of(tmp_path, "orders", "offsets").exists()
    assert read_journal(tmp_path, "orders") == [(position, ITEMS[position]) for position in range(10, 25)]


async def test_an_index_pruned_further_than_the_data_is_corruption(tmp_path: Path) -> None:
    """Data goes first, so no crash leaves that (F4)."""
    lay_out(tmp_path, 25)
    change(tmp_path, "offsets", 0, lambda _: None)
    await assert_refused(tmp_path, Corruption)


async def test_a_stale_index_of_the_right_length_is_not_believed() -> None:
    """Rewound, appended again with other lengths, data synced, crash: the new items are there."""
    storage = CrashStorage()
    journal = await Journal.init(Context(storage), CONFIG)
    await journal.append_many(ITEMS[:15])
    await journal.sync()
    await journal.rewind(12)
    new = [b"x" * length for length in (1, 30, 2)]
    await journal.append_many(new)
    stale = storage.photo()
    await journal.sync_data()
    left = storage.photo().power_cut(random.Random(1), Luck.NONE)
    await journal.close()
    # The worst index: that of before the rewind, whose truncation and rewriting are lost.
    left_index = left._partitions["orders_offsets"].visible[bytes(7) + b"\1"]
    index = stale._partitions["orders_offsets"].visible[bytes(7) + b"\1"].visible
    left_index.visible = index + b"".join((at * RECORD + 64).to_bytes(8, "little") for at in (2, 3, 4))
    left_index.durable = left_index.visible
    shown = await show(left)
    assert shown.items == dict(enumerate([*ITEMS[:12], *new]))


# The prefix.


@pytest.mark.parametrize("section", [0, 1])
@pytest.mark.parametrize(
    "damaged",
    [lambda blob: blob[:-1], lambda blob: blob[:64], lambda _: b"", lambda _: None, lambda blob: blob[:-9] + bytes(9)],
    ids=["short", "without records", "empty", "missing", "zeros"],
)
async def test_a_damaged_section_below_the_durable_size_is_corruption(
    tmp_path: Path, section: int, damaged: Callable[[bytes], bytes | None]
) -> None:
    """F4: with its index or without, the files stay as they are and the error comes at every try."""
    lay_out(tmp_path, 25)
    change(tmp_path, "data", section, damaged)
    await assert_refused(tmp_path, Corruption)
    shutil.rmtree(tmp_path / "orders_offsets")
    await assert_refused(tmp_path, Corruption)


@pytest.mark.parametrize(
    ("damaged", "size"),
    [
        (lambda blob: blob[:-1], 19),
        (lambda blob: blob[: 64 + 3 * RECORD], 13),
        (lambda blob: blob[:64], 10),
        (lambda _: b"", 10),
        (lambda _: None, 10),
        (lambda blob: blob[: 64 + 3 * RECORD + 8] + bytes(200), 13),
    ],
    ids=["short", "shorter", "without records", "empty", "missing", "zeros"],
)
async def test_above_the_durable_size_the_longest_prefix_stays(
    tmp_path: Path, damaged: Callable[[bytes], bytes | None], size: int
) -> None:
    """D2: newer blobs are dropped, the report says so, and what is left is a closed journal."""
    lay_out(tmp_path, 35, durable=7)
    change(tmp_path, "data", 1, damaged)
    shown = await show(tmp_path)
    assert shown.is_history(0, size)
    assert shown.report.items_dropped == 15
    assert shown.report.sections_removed >= 2
    assert not shown.report.clean
    assert read_journal(tmp_path, "orders") == list(enumerate(ITEMS[:size]))


async def test_empty_sections_at_the_end_are_dropped(tmp_path: Path) -> None:
    """However many there are, and whatever part of a header they hold."""
    lay_out(tmp_path, 20)
    before = tree_of(tmp_path)
    for section, content in ((2, b""), (3, b"PJRN"), (4, bytes(64))):
        path_of(tmp_path, "orders", "data", section).write_bytes(content)
    shown = await show(tmp_path)
    assert shown.is_history(0, 20)
    assert shown.report.sections_removed == 3
    assert tree_of(tmp_path) == before


async def test_an_unsynced_tail_may_be_lost() -> None:
    """Two sections sealed, five items buffered or written and not synced: 0..20, and the next append gets 20."""
    storage = CrashStorage()
    journal = await Journal.init(Context(storage), CONFIG)
    await journal.append_many(ITEMS[:25])
    left = storage.power_cut(random.Random(1), Luck.NONE)
    await journal.close()
    assert (await show(left)).is_history(0, 20)
    async with await Journal.init(Context(left), CONFIG) as journal:
        assert await journal.append(b"next") == 20


@pytest.mark.parametrize("start", [0, 7, 10])
async def test_data_that_is_gone_is_not_taken_for_pruned(tmp_path: Path, start: int) -> None:
    """F4: the durable size is above the boundary."""
    lay_out(tmp_path, 25, start=start)
    shutil.rmtree(tmp_path / "orders_data")
    await assert_refused(tmp_path, Corruption)


@pytest.mark.parametrize("sequence", [0, 2**63, 2**64 - 1])
async def test_a_checkpoint_with_a_number_that_no_journal_comes_to_is_none(tmp_path: Path, sequence: int) -> None:
    """The next one could not be written: it is as good as damaged, whatever its checksum says (A3)."""
    lay_out(tmp_path, 25)
    slot = writer.checkpoint_slot(sequence=sequence, journal_id=1, items_per_section=10, durable=20, boundary=10)
    path_of(tmp_path, "orders", "checkpoint").write_bytes(slot)
    assert (await show(tmp_path)).is_history(0, 25)


@pytest.mark.parametrize("checkpoint", ["there", "lost"])
async def test_a_record_behind_the_last_position_is_corruption(tmp_path: Path, checkpoint: str) -> None:
    """The size would be 2**64, which no checkpoint can say (F4)."""
    writer.write_journal(tmp_path, "orders", items=[b"item"], first=2**64 - 1, durable=2**64 - 1)
    if checkpoint == "lost":
        path_of(tmp_path, "orders", "checkpoint").write_bytes(b"")
    await assert_refused(tmp_path, Corruption)


async def test_a_checkpoint_from_before_the_first_item_removes_none(tmp_path: Path) -> None:
    """F4: put back from an older copy, it takes all data for what a rewind to the start has left; a prune says no."""
    async with await Journal.init(Context(FileStorage(tmp_path)), CONFIG) as journal:
        older = path_of(tmp_path, "orders", "checkpoint").read_bytes()
        await journal.append_many(ITEMS[:25])
        await journal.prune(10)
    change(tmp_path, "checkpoint", 0, lambda _: older)
    await assert_refused(tmp_path, Corruption)


async def test_a_checkpoint_from_before_a_reset_to_less_removes_no_item(tmp_path: Path) -> None:
    """F4: put back from an older copy, it takes all data for what a prune has left; that is of another journal."""
    await (await Journal.init_at_size(Context(FileStorage(tmp_path)), CONFIG, 100)).close()
    older = path_of(tmp_path, "orders", "checkpoint").read_bytes()
    async with await Journal.init_at_size(Context(FileStorage(tmp_path)), CONFIG, 0) as journal:
        await journal.append_many(ITEMS[:20])
    change(tmp_path, "checkpoint", 0, lambda _: older)
    await assert_refused(tmp_path, Corruption)
    change(tmp_path, "data", 2, lambda _: b"")  # the creation of the next section was interrupted
    await assert_refused(tmp_path, Corruption)
    change(tmp_path, "checkpoint", 0, lambda _: None)
    assert (await show(tmp_path)).is_history(0, 20)


async def test_no_section_above_the_durable_size_is_dropped_for_want_of_the_first(tmp_path: Path) -> None:
    """F4: a rewind removes the first one apart from the others. One that is lost alone is not what it has left."""
    lay_out(tmp_path, 25, durable=0)
    change(tmp_path, "data", 0, lambda _: None)
    await assert_refused(tmp_path, Corruption)


async def _rewind_all(storage: CrashStorage) -> None:
    async with await Journal.init(Context(storage), CONFIG) as journal:
        await journal.rewind(0)


async def _open(storage: CrashStorage) -> None:
    await (await Journal.init(Context(storage), CONFIG)).close()


async def _cut_all(storage: CrashStorage) -> None:
    slots = await current_slots(storage, "orders")
    assert slots.current is not None
    cut = await cut_of(storage, "orders", slots.current, slots.place, 0, size=35, behind=0)
    await cut_away(storage, "orders", cut)


@pytest.mark.parametrize("change_it", [_rewind_all, _open, _cut_all])
async def test_no_crash_leaves_data_without_the_first_section(
    tmp_path: Path, change_it: Callable[[CrashStorage], Awaitable[None]]
) -> None:
    """Of removals in one call any may be lost, and others not: the first section goes apart from the others (F4)."""
    lay_out(tmp_path, 35, durable=0)
    if change_it is _open:
        change(tmp_path, "data", 0, lambda _: b"")  # an interrupted creation, which goes with what is behind it
    storage = CrashStorage.of_files(tmp_path)
    photos: list[CrashStorage] = []
    storage.on_call = lambda: photos.append(storage.photo())
    await change_it(storage)
    storage.on_call = None
    left = [state for photo in photos for state in photo.states()]
    for state in left:
        shown = await show(state)
        assert shown.is_history(0, shown.bounds.stop)
    assert len(left) > 20


@pytest.mark.parametrize(("size", "durable"), [(20, None), (40, 5)], ids=["in_the_last", "above_the_durable_size"])
async def test_more_records_than_fit_are_corruption(tmp_path: Path, size: int, durable: int | None) -> None:
    """No writer writes an eleventh record into a section of ten."""
    lay_out(tmp_path, size, durable=durable)
    change(tmp_path, "data", 1, lambda blob: blob + writer.record(b"eleventh", writer.salt_of(1), 20))
    await assert_refused(tmp_path, Corruption)


async def test_a_full_last_section_is_legal(tmp_path: Path) -> None:
    """The next append opens its successor."""
    lay_out(tmp_path, 20)
    before = tree_of(tmp_path)
    assert (await show(tmp_path)).report.clean
    assert tree_of(tmp_path) == before
    async with await Journal.init(Context(FileStorage(tmp_path)), CONFIG) as journal:
        assert await journal.append(ITEMS[20]) == 20
    assert (await show(tmp_path)).is_history(0, 21)


@pytest.mark.parametrize("behind", [b"\0", bytes(5000), b"junk" * 10, writer.record(b"x", 1, 25)[:-1]])
async def test_junk_behind_the_tail_is_cut_durably(tmp_path: Path, behind: bytes) -> None:
    """D3: a power cut right after the opening finds the exact length."""
    lay_out(tmp_path, 25)
    before = tree_of(tmp_path)
    change(tmp_path, "data", 2, lambda blob: blob + behind)
    storage = CrashStorage.of_files(tmp_path)
    async with await Journal.init(Context(storage), CONFIG) as journal:
        assert journal.recovery.bytes_cut == len(behind)
        left = storage.durable_tree()
    assert {f"{partition}/{name}": content for (partition, name), content in left.items()} == before


# Adopted data: what can be read and was never synced.


async def test_an_opening_looks_at_both_partitions_at_the_same_time() -> None:
    """Each look makes directories durable: an opening does not wait for the one before it begins the other."""
    storage = GatedStorage(MemoryStorage())
    async with await Journal.init(Context(storage), CONFIG) as journal:
        await journal.append_many(ITEMS)
    storage.hold(lambda call: call.what == "scan" and not call.partition.endswith("_checkpoint"))
    opening = asyncio.ensure_future(Journal.init(Context(storage), CONFIG))
    await storage.until_held(2)
    looked_at = {call.partition for call in storage.held}
    storage.let_all_go()
    async with await opening as journal:
        assert journal.size() == len(ITEMS)
    assert looked_at == {f"{CONFIG.partition}_data", f"{CONFIG.partition}_offsets"}


async def test_a_failing_sync_while_opening_fails_the_opening(tmp_path: Path) -> None:
    """D3: nothing is vouched for, and what was durable is still there."""
    lay_out(tmp_path / "before", 25, durable=22)
    for partition in ("orders_data", "orders_checkpoint", "orders_offsets"):
        storage = CrashStorage.of_files(tmp_path / "before")
        storage.fail_sync = partition
        with pytest.raises(StorageError):
            await Journal.init(Context(storage), CONFIG)
        left = storage.power_cut(random.Random(1), Luck.NONE)
        left.to_files(tmp_path / partition)
        checkpoint = read_checkpoint(tmp_path / partition, "orders")
        assert checkpoint is not None
        assert checkpoint.durable == 22
        assert (await show(left)).is_history(0, 25)


async def test_what_the_page_cache_alone_has_is_written_again() -> None:
    """D3: a sync failed, the bytes are still visible, and a later sync says OK without writing them."""
    storage = CrashStorage()
    journal = await Journal.init(Context(storage), CONFIG)
    await journal.append_many(ITEMS[:3])
    await journal.sync()
    await journal.append_many(ITEMS[3:7])
    storage.fail_sync = "orders_data"
    with pytest.raises(StorageError):
        await journal.sync_data()
    killed = storage.killed(random.Random(1))
    with pytest.raises(Exception, match="failed"):
        await journal.close()
    assert (await show(killed)).is_history(0, 7)
    left = killed.power_cut(random.Random(1), Luck.NONE)
    assert (await show(left)).is_history(0, 7)


@pytest.mark.parametrize("durable", [0, 1, 12, 20, 24])
async def test_every_adopted_byte_is_written_then_synced_then_vouched_for(tmp_path: Path, durable: int) -> None:
    """D3 and rule 1: the bytes above the durable size, the sync of each blob, and only then the checkpoint."""
    lay_out(tmp_path, 25, durable=durable)
    storage = CrashStorage.of_files(tmp_path)
    async with await Journal.init(Context(storage), CONFIG):
        log = storage.log
    writes = [entry for entry in log if entry[0] == "write"]
    raised = max(number for number, (call, partition, *_) in enumerate(log) if (call, partition) == ("write", CKPT))
    for section in range(durable // 10, 3):
        above = durable - section * 10
        start = 64 + above * RECORD if above > 0 else 0
        at = log.index(("write", "orders_data", section, start))
        assert "sync" in {
            call for call, partition, number, _ in log[at:raised] if (partition, number) == (DATA, section)
        }
    assert not any(partition == DATA for _, partition, _, _ in log[raised:])
    assert {number for _, partition, number, _ in writes if partition == DATA} == set(range(durable // 10, 3))


CKPT = "orders_checkpoint"
DATA = "orders_data"


# A crash while recovering.


def _damaged_index(root: Path) -> None:
    lay_out(root, 25)
    shutil.rmtree(root / "orders_offsets")


def _gap(root: Path) -> None:
    lay_out(root, 45, durable=7)
    change(root, "data", 2, lambda blob: blob[:-3])


def _half_pruned(root: Path) -> None:
    lay_out(root, 45)
    slot = writer.checkpoint_slot(
        sequence=2, journal_id=0x0123_4567_89AB_CDEF, items_per_section=10, durable=45, boundary=20
    )
    path_of(root, "orders", "checkpoint").write_bytes(slot)


def _half_rewound(root: Path) -> None:
    lay_out(root, 45, durable=12)
    change(root, "data", 4, lambda _: None)


def _junk(root: Path) -> None:
    lay_out(root, 25, durable=22)
    change(root, "data", 2, lambda blob: blob + b"junk")
    change(root, "data", 3, lambda _: b"")
    change(root, "offsets", 2, lambda blob: blob[:70])


def _lost_checkpoint(root: Path) -> None:
    lay_out(root, 25, start=7)
    path_of(root, "orders", "checkpoint").write_bytes(b"torn" * 2000)


@pytest.mark.parametrize(
    "lay", [_damaged_index, _gap, _half_pruned, _half_rewound, _junk, _lost_checkpoint], ids=lambda lay: lay.__name__
)
async def test_a_crash_at_each_call_of_the_opening_changes_nothing_about_its_result(
    tmp_path: Path, lay: Callable[[Path], None]
) -> None:
    """D6: whatever the crash leaves, the next opening makes the same of it, byte for byte."""
    lay(tmp_path)
    whole = CrashStorage.of_files(tmp_path)
    expected = await show(whole)
    calls = whole.calls
    assert calls >= 3
    for crash_at in range(1, calls + 1):
        for seed in range(8):
            rng = random.Random(seed)
            storage = CrashStorage.of_files(tmp_path)
            storage.crash_at = crash_at
            with pytest.raises(PowerCut):
                await Journal.init(Context(storage), CONFIG)
            left = storage.killed(rng) if seed % 4 == 3 else storage.power_cut(rng)
            shown = await show(left)
            where = f"call {crash_at}, seed {seed}"
            assert (limits_of(shown.bounds), shown.items) == (limits_of(expected.bounds), expected.items), where
            assert _without_checkpoint(left) == _without_checkpoint(whole), where
            assert _without_checkpoint(left.power_cut(rng, Luck.NONE), DATA) == _without_checkpoint(whole, DATA), where


def _without_checkpoint(storage: CrashStorage, *only: str) -> dict[tuple[str, str], bytes]:
    """Return the blobs but the checkpoint, whose sequence number says how many openings there were."""
    partitions = only or (DATA, "orders_offsets")
    return {key: content for key, content in storage.tree().items() if key[0] in partitions}


# The checkpoint.


def _slots(root: Path, *slots: bytes) -> None:
    path_of(root, "orders", "checkpoint").write_bytes(writer.checkpoint_blob(slots))


def _slot(sequence: int, durable: int, *, boundary: int = 0, reset: int | None = None, version: int = 1) -> bytes:
    return writer.checkpoint_slot(
        sequence=sequence,
        journal_id=0x0123_4567_89AB_CDEF,
        items_per_section=10,
        durable=durable,
        boundary=boundary,
        reset=reset,
        version=version,
    )


@pytest.mark.parametrize("start", [0, 7, 10])
@pytest.mark.parametrize("how", ["both torn", "empty", "partition removed"])
async def test_a_lost_checkpoint_costs_nothing_that_can_be_read(tmp_path: Path, start: int, how: str) -> None:
    """A3: the boundary is that of the data, and the report says so."""
    lay_out(tmp_path, 25, start=start)
    if how == "both torn":
        _slots(tmp_path, b"torn", b"torn")
    elif how == "empty":
        path_of(tmp_path, "orders", "checkpoint").write_bytes(b"")
    else:
        shutil.rmtree(tmp_path / CKPT)
    shown = await show(tmp_path)
    assert shown.is_history(start, 25)
    assert not shown.report.clean
    assert "checkpoint is lost" in shown.report.notes[0]
    again = await show(tmp_path)
    assert again.is_history(start, 25)
    assert again.report.notes == shown.report.notes[1:] or how == "both torn"  # the other slot stays as it is
    assert read_journal(tmp_path, "orders") == [(position, ITEMS[position]) for position in range(start, 25)]


@pytest.mark.parametrize("part", ["data", "offsets"])
async def test_without_a_checkpoint_the_blob_of_another_section_is_no_first_one(tmp_path: Path, part: Part) -> None:
    """F4: it says another boundary, below which everything would be removed."""
    lay_out(tmp_path, 45)
    path_of(tmp_path, "orders", "checkpoint").write_bytes(b"")
    other = path_of(tmp_path, "orders", part, 2).read_bytes()
    change(tmp_path, "data", 0, lambda _: other)
    await assert_refused(tmp_path, Corruption)


async def test_without_a_checkpoint_all_but_the_last_section_is_relied_on(tmp_path: Path) -> None:
    """The last one may be torn by a crash; the others were sealed (F4)."""
    lay_out(tmp_path, 25)
    _slots(tmp_path, b"torn", b"torn")
    change(tmp_path, "data", 2, lambda blob: blob[:-1])
    kept = tree_of(tmp_path)
    assert (await show(tmp_path)).is_history(0, 24)
    shutil.rmtree(tmp_path)
    for name, content in kept.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    change(tmp_path, "data", 1, lambda _: None)
    await assert_refused(tmp_path, Corruption)


def _header(section: int, codec: str, journal_id: int = 0x0123_4567_89AB_CDEF) -> bytes:
    """Return the header of a data blob as `lay_out` writes it, with another name of the codec."""
    return writer.data_header(
        journal_id=journal_id,
        section=section,
        items_per_section=10,
        first=section * 10,
        salt=writer.salt_of(section),
        codec=codec,
    )


def _rename_codec(root: Path, section: int, codec: str) -> None:
    change(root, "data", section, lambda blob: _header(section, codec) + blob[64:])


@pytest.mark.parametrize(
    ("last", "codec"),
    [
        (_header(2, "json/3"), "json/3"),
        (b"", "json/2"),
        (_header(2, "json/3")[:40], "json/2"),
        (_header(2, "json/3")[:63] + b"?", "json/2"),
        (_header(2, "json/3", journal_id=1), "json/2"),
        (_header(0, "json/1"), "json/2"),
        (b"PJRNOFFS" + _header(2, "json/3")[8:], "json/2"),
    ],
    ids=["sound", "no creation", "half a creation", "damaged", "another journal", "another section", "an index"],
)
async def test_without_a_checkpoint_the_last_good_header_names_the_codec(
    tmp_path: Path, last: bytes, codec: str
) -> None:
    """F4: opening says it, and so does whoever looks or repairs; by the first name newer sections would be foreign."""
    lay_out(tmp_path, 20)
    _slots(tmp_path, b"torn", b"torn")
    for section in (0, 1):
        _rename_codec(tmp_path, section, f"json/{section + 1}")
    is_index = last.startswith(b"PJRNOFFS")
    change(tmp_path, "data", 2, lambda _: writer.sealed_with_crc(last[:60]) if is_index else last)
    storage = ReadOnlyFileStorage(tmp_path)
    facts = await observe(SlotFacts(None, 1, 2), Sections(storage, "orders_data"), OffsetsJournal(storage, "orders"))
    assert facts is not None
    slot = Slot(0, 0x0123_4567_89AB_CDEF, 10, codec, 20, 0)
    assert facts.slot == slot
    assert (await survey(storage, "orders")).slot == slot
    slots = await Blobs(storage, tmp_path, "orders").slots()
    assert slots is not None
    assert slots.current == slot
    verification = Verification(storage, "orders", lambda _: None)
    await verification.run()
    assert verification.slot == slot


async def test_a_checkpoint_lost_after_an_upgrade_costs_no_section(tmp_path: Path) -> None:
    """F4: sections of both names are sound to whoever looks, and a repair records the newer one."""
    lay_out(tmp_path, 25)
    for section in (0, 1, 2):
        _rename_codec(tmp_path, section, f"json/{1 + (section > 0)}")
        change(tmp_path, "offsets", section, lambda _: None)
    change(tmp_path, "checkpoint", 0, lambda _: None)
    storage = ReadOnlyFileStorage(tmp_path)
    found: list[Finding] = []
    await Verification(storage, "orders", found.append).run()
    assert [finding.what for finding in found if finding.severity is Severity.CORRUPT] == ["checkpoint"]
    seen = await survey(storage, "orders")
    assert seen.problem is None
    assert not any(section.state.is_damage for section in seen.sections)
    await carry_out(await planned(storage, "orders"), tmp_path, "orders")
    checkpoint = read_checkpoint(tmp_path, "orders")
    assert checkpoint is not None
    assert checkpoint.codec.rstrip(b"\0") == b"json/2"


async def test_a_checkpoint_lost_without_data_to_stand_in_is_corruption(tmp_path: Path) -> None:
    """Two slots that hold something else were two checkpoints once; or there is an index, and so there was data."""
    lay_out(tmp_path, 0)
    _slots(tmp_path, b"torn", b"torn")
    await assert_refused(tmp_path, Corruption)
    lay_out(tmp_path, 5)
    _slots(tmp_path, b"", b"")
    change(tmp_path, "data", 0, lambda _: None)
    await assert_refused(tmp_path, Corruption)


async def test_a_torn_first_checkpoint_is_no_journal_yet(tmp_path: Path) -> None:
    """No blob is made before it is durable: an empty journal is made."""
    lay_out(tmp_path, 0)
    _slots(tmp_path, _slot(1, 0)[:40])
    shown = await show(tmp_path)
    assert shown.is_history(0, 0)


@pytest.mark.parametrize("torn_first", [False, True])
async def test_one_torn_slot_leaves_the_other(tmp_path: Path, torn_first: bool) -> None:  # noqa: FBT001
    """The one before counts: what lies above its durable size is adopted."""
    lay_out(tmp_path, 25)
    slots = [_slot(8, 22), _slot(9, 25)[:70] + b"torn"]
    _slots(tmp_path, *(reversed(slots) if torn_first else slots))
    shown = await show(tmp_path)
    assert shown.is_history(0, 25)
    assert "slot" in shown.report.notes[0]
    checkpoint = read_checkpoint(tmp_path, "orders")
    assert checkpoint is not None
    assert (checkpoint.sequence, checkpoint.durable) == (9, 25)


# Contradictions.


@pytest.mark.parametrize(
    "config",
    [
        replace(CONFIG, items_per_section=9),
        replace(CONFIG, items_per_section=11),
        replace(CONFIG, codec=JsonCodec()),
    ],
    ids=["smaller", "larger", "codec"],
)
@pytest.mark.parametrize("size", [0, 5, 25])
async def test_another_configuration_is_refused(tmp_path: Path, config: Config[bytes], size: int) -> None:
    """The files are as they were, and the right configuration opens them; so it is when a reset is pending."""
    lay_out(tmp_path, size)
    await assert_refused(tmp_path, InvalidConfiguration, config)
    _slots(tmp_path, b"", b"torn")
    if size:
        await assert_refused(tmp_path, InvalidConfiguration, config)
    _slots(tmp_path, _slot(5, size), _slot(6, 3, boundary=3, reset=3))
    await assert_refused(tmp_path, InvalidConfiguration, config)


@pytest.mark.parametrize(
    ("fields", "section"),
    [
        ({"journal_id": 5}, 2),
        ({"journal_id": 5}, 1),
        ({"journal_id": 5}, 0),
        ({"items_per_section": 9}, 2),
        ({"section": 1}, 2),
        ({"first": 21}, 2),
        ({"codec": "json"}, 2),
    ],
    ids=["id of the last", "id of one between", "id of the first", "items per section", "section", "first", "codec"],
)
async def test_a_blob_of_another_journal_is_corruption(tmp_path: Path, fields: dict[str, object], section: int) -> None:
    """F4: a header with a good checksum that contradicts the checkpoint."""
    lay_out(tmp_path, 25)
    own: dict[str, object] = {
        "journal_id": 0x0123_4567_89AB_CDEF,
        "section": section,
        "items_per_section": 10,
        "first": section * 10,
        "salt": writer.salt_of(section),
    }
    header = writer.data_header(**{**own, **fields})  # type: ignore[arg-type]
    change(tmp_path, "data", section, lambda blob: header + blob[64:])
    await assert_refused(tmp_path, Corruption)


@pytest.mark.parametrize("part", ["data", "checkpoint"])
async def test_another_version_of_the_format_is_refused(tmp_path: Path, part: str) -> None:
    """Nothing is written to a journal of a later version."""
    lay_out(tmp_path, 5)
    if part == "checkpoint":
        _slots(tmp_path, _slot(1, 5), _slot(2, 5, version=2))
    else:
        header = writer.data_header(
            journal_id=0x0123_4567_89AB_CDEF, section=0, items_per_section=10, first=0, salt=1, version=2
        )
        change(tmp_path, "data", 0, lambda blob: header + blob[64:])
    await assert_refused(tmp_path, InvalidConfiguration)
