"""`init_at_size`, `prune`, `rewind` and `destroy`, interrupted: the state before or the one after."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest

from posjournal_async import Config, Context, FileStorage, Journal, JournalFailed, JsonCodec
from posjournal_async.checkpoint import slots_in
from posjournal_async.format.checkpoint_slot import SLOT_LENGTH
from posjournal_async.testing import CrashStorage, Luck, PowerCut
from tests.format import writer
from tests.format.writer import path_of, read_checkpoint, read_journal
from tests.journals import limits_of
from tests.recovery.journals import CONFIG, ITEMS, change, lay_out, show, tree_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

SEEDS = range(12)


def crashes(storage: CrashStorage, seed: int) -> Iterator[CrashStorage]:
    """Yield what a power cut, and what a kill, leaves."""
    rng = random.Random(seed)
    yield storage.power_cut(rng)
    yield storage.killed(rng)
    if seed == SEEDS[0]:
        yield storage.power_cut(rng, Luck.NONE)
        yield storage.power_cut(rng, Luck.ALL)


async def count_calls(root: Path, operation: Callable[[CrashStorage], Awaitable[None]]) -> int:
    storage = CrashStorage.of_files(root)
    await operation(storage)
    return storage.calls


async def crash_in(root: Path, operation: Callable[[CrashStorage], Awaitable[None]], crash_at: int) -> CrashStorage:
    storage = CrashStorage.of_files(root)
    storage.crash_at = crash_at
    with pytest.raises((PowerCut, JournalFailed)):
        await operation(storage)
    return storage


async def reset_to_7(storage: CrashStorage) -> None:
    journal = await Journal.init_at_size(Context(storage), CONFIG, 7)
    await journal.close()


async def destroy(storage: CrashStorage) -> None:
    journal = await Journal.init(Context(storage), CONFIG)
    try:
        await journal.destroy()
    except PowerCut:
        assert journal.recovery.clean
        raise


# Resets.


@pytest.mark.parametrize(("start", "size"), [(0, 0), (0, 12), (7, 25), (20, 25), (7, 7)])
async def test_a_crash_in_a_reset_leaves_the_old_journal_or_a_finished_reset(
    tmp_path: Path, start: int, size: int
) -> None:
    """The old one whole, or empty at 7 and the report says so; what comes next is at 7 and stays."""
    lay_out(tmp_path, size, start=start)
    calls = await count_calls(tmp_path, reset_to_7)
    assert calls >= 4
    outcomes = set()
    for crash_at in range(1, calls + 1):
        storage = await crash_in(tmp_path, reset_to_7, crash_at)
        for seed in SEEDS:
            for left in crashes(storage, seed):
                shown = await show(left)
                where = f"call {crash_at}, seed {seed}"
                outcomes.add((limits_of(shown.bounds), shown.report.reset_finished))
                assert shown.is_history(start, size) or limits_of(shown.bounds) == (7, 7), where
                if limits_of(shown.bounds) == (7, 7) and (start, size) != (7, 7):
                    assert {partition for partition, _ in left.tree()} == {"orders_checkpoint"}, where
    assert {bounds for bounds, _ in outcomes} == {(start, size), (7, 7)}
    assert ((7, 7), True) in outcomes


async def test_what_a_reset_replaced_never_comes_back() -> None:
    """The old position 8 is of the same section, and the same length; only the new one is ever seen."""
    storage = CrashStorage()
    async with await Journal.init(Context(storage), CONFIG) as journal:
        await journal.append_many(ITEMS[:12])
    photos: list[CrashStorage] = []
    async with await Journal.init_at_size(Context(storage), CONFIG, 7) as journal:
        storage.on_call = lambda: photos.append(storage.photo())
        await journal.append_many([b"new item", b"newer it"])
        await journal.sync_data()
        storage.on_call = None
        photos.append(storage.photo())
    assert len(photos) > 5
    for photo in photos:
        for seed in SEEDS:
            for left in crashes(photo, seed):
                shown = await show(left)
                assert shown.bounds.start == 7
                assert list(shown.items.values()) == [b"new item", b"newer it"][: len(shown.items)]
    assert (await show(photos[-1].power_cut(random.Random(1), Luck.NONE))).bounds == range(7, 9)


@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, items_per_section=5, codec=JsonCodec())])
async def test_a_newer_reset_overrides_a_pending_one(tmp_path: Path, config: Config[bytes]) -> None:
    """10..10, never 5, whatever call the newer one is interrupted in; it may bring another configuration."""

    async def reset_to_10(storage: CrashStorage) -> None:
        journal = await Journal.init_at_size(Context(storage), config, 10)
        await journal.close()

    lay_out(tmp_path, 25)
    slot = writer.checkpoint_slot(
        sequence=2, journal_id=0x0123_4567_89AB_CDEF, items_per_section=10, durable=5, boundary=5, reset=5
    )
    path_of(tmp_path, "orders", "checkpoint").write_bytes(slot)
    assert limits_of((await show(CrashStorage.of_files(tmp_path))).bounds) == (5, 5)
    calls = await count_calls(tmp_path, reset_to_10)
    for crash_at in range(1, calls + 1):
        storage = await crash_in(tmp_path, reset_to_10, crash_at)
        for seed in SEEDS:
            for left in crashes(storage, seed):
                if crash_at > 4:  # the record of the older one was made durable, then that of this one
                    assert limits_of((await show(left, config)).bounds) == (10, 10)
                elif config is CONFIG:
                    assert limits_of((await show(left)).bounds) in {(5, 5), (10, 10)}


@pytest.mark.parametrize("size", [12, None])
async def test_an_opening_after_a_kill_in_a_reset_cannot_lose_both_checkpoints(size: int | None) -> None:
    """The slot that the killed process wrote is made durable before the other one, the only durable one, is written."""

    async def open_again(storage: CrashStorage) -> Journal[bytes]:
        if size is None:
            return await Journal.init(Context(storage), CONFIG)
        return await Journal.init_at_size(Context(storage), CONFIG, size)

    storage = CrashStorage()
    await (await Journal.init_at_size(Context(storage), CONFIG, 5)).close()
    photos: list[CrashStorage] = []
    storage.on_call = lambda: photos.append(storage.photo())
    await (await Journal.init_at_size(Context(storage), CONFIG, 9)).close()
    storage.on_call = None
    syncs = [photo for photo, (call, *_) in zip(photos, storage.log[-len(photos) :], strict=True) if call == "sync"]
    kills = [photo for photo in syncs if photo.tree() != photo.durable_tree()]
    assert len(kills) == 3  # the record of the reset, and that it is done, in both slots
    for killed in kills:
        later: list[CrashStorage] = []
        killed.on_call = partial(_take, killed, later)
        await (await open_again(killed)).close()
        for cut in later:
            for left in cut.states():
                assert (await show(left)).bounds.start in {5, 9, size}


def _take(storage: CrashStorage, photos: list[CrashStorage]) -> None:
    photos.append(storage.photo())


@pytest.mark.parametrize("place", [0, 1])
async def test_a_slot_that_is_lost_after_a_reset_does_not_bring_it_back(place: int) -> None:
    """It would remove what `sync_data` has acknowledged since (D1)."""
    storage = CrashStorage()
    await (await Journal.init_at_size(Context(storage), CONFIG, 3)).close()
    journal = await Journal.init_at_size(Context(storage), CONFIG, 7)
    await journal.append(ITEMS[7])
    await journal.sync_data()
    tree = storage.tree()
    await journal.close()
    key = ("orders_checkpoint", "0" * 16)
    slots = bytearray(tree[key])
    slots[place * SLOT_LENGTH + 16] ^= 1
    shown = await show(CrashStorage.holding({**tree, key: bytes(slots)}))
    assert shown.is_history(7, 8)
    assert not shown.report.reset_finished


async def test_a_reset_that_a_crash_left_in_a_slot_does_not_come_back() -> None:
    """The next open finishes it: else a slot that is lost later would bring it back, as above (D1)."""
    storage = CrashStorage()
    await (await Journal.init(Context(storage), CONFIG)).close()
    photos: list[CrashStorage] = []
    storage.on_call = lambda: photos.append(storage.photo())
    await (await Journal.init_at_size(Context(storage), CONFIG, 7)).close()
    key = ("orders_checkpoint", "0" * 16)
    for left in (photo.power_cut(random.Random(0), Luck.NONE) for photo in photos):
        journal = await Journal.init(Context(left), CONFIG)
        bounds, said = journal.bounds(), journal.recovery
        assert (limits_of(bounds) == (7, 7)) == said.reset_finished
        await journal.append(ITEMS[bounds.stop])
        await journal.sync_data()
        tree = left.tree()
        await journal.close()
        (newest, place) = slots_in(tree[key], "orders")[0][0]
        assert newest.durable == bounds.stop, "the item is above what the checkpoint vouches for"
        slots = bytearray(tree[key])
        slots[place * SLOT_LENGTH + 16] ^= 1
        shown = await show(CrashStorage.holding({**tree, key: bytes(slots)}))
        assert shown.is_history(bounds.stop, bounds.stop + 1)


async def test_a_pending_reset_is_finished_in_files(tmp_path: Path) -> None:
    """Nothing of the old journal is left, and the files are those of an empty one."""
    lay_out(tmp_path, 25)
    slot = writer.checkpoint_slot(
        sequence=2, journal_id=0x0123_4567_89AB_CDEF, items_per_section=10, durable=5, boundary=5, reset=5
    )
    path_of(tmp_path, "orders", "checkpoint").write_bytes(slot)
    shown = await show(tmp_path)
    assert limits_of(shown.bounds) == (5, 5)
    assert shown.report.reset_finished
    assert not shown.report.clean
    assert list(tree_of(tmp_path)) == ["orders_checkpoint/0000000000000000"]
    assert read_journal(tmp_path, "orders") == []
    checkpoint = read_checkpoint(tmp_path, "orders")
    assert checkpoint is not None
    assert (checkpoint.boundary, checkpoint.durable, checkpoint.reset) == (5, 5, None)
    assert (await show(tmp_path)).report.clean


@pytest.mark.parametrize("appended", [0, 1, 3, 8])
async def test_a_journal_that_starts_inside_a_section_survives_the_loss_of_its_index(
    tmp_path: Path, appended: int
) -> None:
    """7 and what follows are there, 6 is pruned, whether or not the offsets are."""
    async with await Journal.init_at_size(Context(FileStorage(tmp_path)), CONFIG, 7) as journal:
        for item in ITEMS[7 : 7 + appended]:
            await journal.append(item)
    storage = CrashStorage.of_files(tmp_path)
    without = CrashStorage.holding({key: blob for key, blob in storage.tree().items() if "offsets" not in key[0]})
    for state in (storage, without):
        assert (await show(state)).is_history(7, 7 + appended)
    assert read_journal(tmp_path, "orders") == list(enumerate(ITEMS[7 : 7 + appended], start=7))


async def test_a_crash_while_the_first_section_is_made_leaves_the_start(tmp_path: Path) -> None:
    """7..7, and the next append gets 7, whatever part of the blobs arrived."""

    async def append_one(storage: CrashStorage) -> None:
        journal = await Journal.init(Context(storage), CONFIG)
        try:
            await journal.append(b"item")
            await journal.sync()
        finally:
            await journal.close()

    lay_out(tmp_path, 7, start=7)
    calls = await count_calls(tmp_path, append_one)
    for crash_at in range(1, calls + 1):
        storage = await crash_in(tmp_path, append_one, crash_at)
        for seed in SEEDS:
            for left in crashes(storage, seed):
                bounds = (await show(left)).bounds
                assert limits_of(bounds) in {(7, 7), (7, 8)}
                async with await Journal.init(Context(left), CONFIG) as journal:
                    assert await journal.append(b"next") == bounds.stop


# Destroying.


@pytest.mark.parametrize(("start", "size"), [(0, 0), (0, 25), (7, 25), (20, 20)])
async def test_a_crash_while_destroying_leaves_the_journal_or_an_empty_one(
    tmp_path: Path, start: int, size: int
) -> None:
    """Whole, or empty at 0: never a part of it, and never an error."""
    lay_out(tmp_path, size, start=start)
    calls = await count_calls(tmp_path, destroy)
    outcomes = set()
    for crash_at in range(1, calls + 1):
        storage = await crash_in(tmp_path, destroy, crash_at)
        for seed in SEEDS:
            for left in crashes(storage, seed):
                shown = await show(left)
                outcomes.add(limits_of(shown.bounds))
                where = f"call {crash_at}, seed {seed}"
                assert shown.is_history(start, size) or limits_of(shown.bounds) == (0, 0), where
    assert outcomes == {(start, size), (0, 0)}


async def test_nothing_is_left_of_a_destroyed_journal(tmp_path: Path) -> None:
    """Not a file; the next opening makes a new one at 0."""
    lay_out(tmp_path, 25)
    journal = await Journal.init(Context(FileStorage(tmp_path)), CONFIG)
    await journal.destroy()
    assert tree_of(tmp_path) == {}
    shown = await show(tmp_path)
    assert shown.is_history(0, 0)
    assert shown.report.clean


# A kill, which makes nothing durable, then a power cut while the next opening repairs what it sees.


async def rewind_to_12(storage: CrashStorage) -> None:
    journal = await Journal.init(Context(storage), CONFIG)
    try:
        await journal.rewind(12)
    finally:
        await journal.close()


async def prune_to_20(storage: CrashStorage) -> None:
    journal = await Journal.init(Context(storage), CONFIG)
    try:
        await journal.prune(20)
    finally:
        await journal.close()


async def open_and_close(storage: CrashStorage) -> None:
    journal = await Journal.init(Context(storage), CONFIG)
    await journal.close()


@pytest.mark.parametrize(
    ("operation", "allowed"),
    [
        (reset_to_7, [range(25), range(7, 7)]),
        (destroy, [range(25), range(0)]),
        (rewind_to_12, [range(size) for size in range(12, 26)]),
        (prune_to_20, [range(25), range(20, 25)]),
    ],
    ids=["reset", "destroy", "rewind", "prune"],
)
async def test_a_power_cut_while_recovering_from_a_kill_leaves_what_is_allowed(
    tmp_path: Path, operation: Callable[[CrashStorage], Awaitable[None]], allowed: list[range]
) -> None:
    """D6: what was read is made durable before anything is removed or written on its word."""
    lay_out(tmp_path, 25)
    calls = await count_calls(tmp_path, operation)
    for crash_at in range(1, calls + 1):
        storage = await crash_in(tmp_path, operation, crash_at)
        for seed in SEEDS:
            rng = random.Random(seed)
            killed = storage.killed(rng)
            again = killed.photo()
            await open_and_close(again)
            for second in range(1, again.calls + 1):
                opening = killed.photo()
                opening.crash_at = second
                with pytest.raises((PowerCut, JournalFailed)):
                    await open_and_close(opening)
                left = opening.power_cut(rng, rng.choice(list(Luck)))
                try:
                    shown = await show(left)
                    assert any(bounds == shown.bounds and bounds.start == shown.bounds.start for bounds in allowed)
                    assert shown.is_history(shown.bounds.start, shown.bounds.stop)
                except BaseException as error:
                    error.add_note(f"killed in call {crash_at}, power cut in call {second}, seed {seed}")
                    raise


# Prune and rewind.


async def test_a_crash_anywhere_in_a_rewind_leaves_a_prefix_of_the_old_history(tmp_path: Path) -> None:
    """D4: 12 to 25 items, and after the first append that follows none of the discarded ones is seen."""
    lay_out(tmp_path, 25)
    calls = await count_calls(tmp_path, rewind_to_12)
    sizes = set()
    for crash_at in range(1, calls + 1):
        storage = await crash_in(tmp_path, rewind_to_12, crash_at)
        for seed in SEEDS:
            for left in crashes(storage, seed):
                shown = await show(left)
                size = shown.bounds.stop
                sizes.add(size)
                assert 12 <= size <= 25
                assert shown.is_history(0, size)
                await append_and_crash(left, size, random.Random(seed))
    assert {12, 25} <= sizes


async def append_and_crash(storage: CrashStorage, size: int, rng: random.Random) -> None:
    """Append an item as long as the discarded ones, crash in each call, and see old items below it and none behind."""
    photos: list[CrashStorage] = []
    async with await Journal.init(Context(storage), CONFIG) as journal:
        storage.on_call = lambda: photos.append(storage.photo())
        await journal.append(b"replaced")
        await journal.sync_data()
        storage.on_call = None
        photos.append(storage.photo())
    for photo in photos:
        shown = await show(photo.power_cut(rng))
        found = list(shown.items.values())
        assert found in (ITEMS[:size], [*ITEMS[:size], b"replaced"])
    assert shown.bounds.stop == size + 1


async def test_a_crash_in_a_rewind_keeps_what_only_an_index_leads_to(tmp_path: Path) -> None:
    """The index of the section that is cut goes after the checkpoint: the old size is there, or the items are gone."""
    lay_out(tmp_path, 25)
    change(tmp_path, "data", 1, lambda blob: blob.replace(ITEMS[13], ITEMS[14]))
    storage = CrashStorage.of_files(tmp_path)
    photos: list[CrashStorage] = []
    async with await Journal.init(Context(storage), CONFIG) as journal:
        storage.on_call = lambda: photos.append(storage.photo())
        await journal.rewind(12)
        storage.on_call = None
    for photo in photos:
        for luck in Luck:
            async with await Journal.init(Context(photo.power_cut(random.Random(0), luck)), CONFIG) as journal:
                for position in {*journal.bounds()} - {13}:
                    assert await journal.read(position) == ITEMS[position]


@pytest.mark.parametrize("position", [10, 19, 20, 25])
async def test_a_crash_anywhere_in_a_prune_keeps_everything_retained(tmp_path: Path, position: int) -> None:
    """D4: the boundary is the old one or the new one, and unsynced items above it are there with the new one."""

    async def append_and_prune(storage: CrashStorage) -> None:
        journal = await Journal.init(Context(storage), CONFIG)
        try:
            await journal.append_many(ITEMS[25:28])
            await journal.prune(position)
        finally:
            await journal.close()

    lay_out(tmp_path, 25)
    new = position // 10 * 10
    calls = await count_calls(tmp_path, append_and_prune)
    starts = set()
    for crash_at in range(1, calls + 1):
        storage = await crash_in(tmp_path, append_and_prune, crash_at)
        for seed in SEEDS:
            for left in crashes(storage, seed):
                shown = await show(left)
                starts.add(shown.bounds.start)
                assert shown.bounds.start in {0, new}
                assert shown.bounds.stop in ({28} if shown.bounds.start else {25, 26, 27, 28})
                assert shown.is_history(shown.bounds.start, shown.bounds.stop)
                assert not any(
                    partition != "orders_checkpoint" and int(name, 16) * 10 < shown.bounds.start
                    for partition, name in left.tree()
                )
    assert starts == {0, new}


async def test_a_cancelled_prune_is_not_begun_or_is_finished(tmp_path: Path) -> None:
    """C1: whatever step it is cancelled in, the next opening leaves no blob below the boundary, and none comes back."""
    lay_out(tmp_path, 25)
    starts = set()
    for steps in range(40):
        storage = CrashStorage.of_files(tmp_path)
        journal = await Journal.init(Context(storage), CONFIG)
        pruning = asyncio.ensure_future(journal.prune(20))
        for _ in range(steps):
            await asyncio.sleep(0)
        pruning.cancel()
        await asyncio.wait([pruning])
        left = [storage.photo().power_cut(random.Random(steps)), storage.killed(random.Random(steps)), storage]
        await journal.close()
        found = []
        for state in left:
            shown = await show(state)
            start = shown.bounds.start
            found.append(start)
            assert shown.is_history(start, 25)
            names = {name for partition, name in state.tree() if partition != "orders_checkpoint"}
            assert names == {f"{section:016x}" for section in range(start // 10, 3)}
        assert found[2] >= max(found), "a pruned section came back"
        assert pruning.cancelled() or found == [20, 20, 20]
        starts |= set(found)
    assert starts == {0, 20}
