"""The order of durable steps: each operation makes the calls of the table in `docs/durability.md`, and no others."""

from __future__ import annotations

import asyncio
import gc
import random
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest
from typing_extensions import override

from posjournal_async import (
    BytesCodec,
    Config,
    Context,
    Corruption,
    FileStorage,
    InvalidConfiguration,
    ItemOutOfRange,
    ItemPruned,
    Journal,
    JournalFailed,
    MemoryStorage,
    SizeOverflow,
    StorageError,
)
from posjournal_async.checkpoint import slots_in
from posjournal_async.commit import _MOST_UNSYNCED
from posjournal_async.data import PIECE
from posjournal_async.format.header import HEADER_LENGTH
from posjournal_async.testing import CrashStorage, FaultyStorage, GatedStorage, Luck, OrderingMonitor, RecordingStorage
from posjournal_async.testing.wrapping import is_data_sync
from posjournal_async.waiting import refuse, resolve, retrieve, twin_of
from tests.format import writer
from tests.format.writer import path_of
from tests.journals import filled, item_at, limits_of, others_ended
from tests.recovery.journals import CONFIG, ITEMS, change, lay_out

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from pathlib import Path

    from posjournal_async import Storage
    from posjournal_async.testing import Call

IPS = 4
SMALL: Config[bytes] = Config(partition="orders", items_per_section=IPS, codec=BytesCodec())

# A change that returned is visible, and after the sync behind it durable. Each of these is over before the next begins.
CHECKPOINT = (["checkpoint 0 write"], ["checkpoint 0 sync"])


def committed(section: int) -> tuple[list[str], ...]:
    """Data and offsets at the same time, then the checkpoint."""
    both = [f"{part} {section} {what}" for part in ("data", "offsets") for what in ("write", "sync")]
    return (both, *CHECKPOINT)


def made(section: int) -> tuple[list[str], ...]:
    """The header of each blob, durable before anything is behind it."""
    return ([f"{part} {section} {what}" for part in ("data", "offsets") for what in ("write", "sync")],)


def step_of(call: Call) -> str:
    part = call.partition.rpartition("_")[2]
    if call.what == "remove_many":
        return f"{part} {','.join(str(int.from_bytes(name)) for name in call.names)} remove"
    if call.name is None:
        return f"{part} all remove"
    return f"{part} {int.from_bytes(call.name)} {call.what.removesuffix('_at')}"


class Steps:
    """What a journal changes in a storage, step by step."""

    def __init__(self, inner: MemoryStorage | CrashStorage) -> None:
        self.storage = RecordingStorage(inner)
        self._seen = 0

    def check(self, *stages: Sequence[str]) -> None:
        """Look that these were the steps since the last look: stage after stage, those in one stage together.

        A stage is over before the next begins. Steps of one stage on one part keep their order.
        """
        changes = {"write_at", "resize", "sync", "remove", "remove_many"}
        events = [event for event in self.storage.events[self._seen :] if event.call.what in changes]
        self._seen = len(self.storage.events)
        found: list[list[str]] = []
        for stage in stages:
            chunk, events = events[: 2 * len(stage)], events[2 * len(stage) :]
            assert [event.phase for event in chunk].count("end") == len(stage), (stage, found, chunk)
            found.append(in_parts([step_of(event.call) for event in chunk if event.phase == "begin"]))
        assert found == [in_parts(stage) for stage in stages]
        assert [step_of(event.call) for event in events] == []


def in_parts(steps: Sequence[str]) -> list[str]:
    """Return steps with those on each part together, in their order."""
    return sorted(steps, key=lambda step: step.partition(" ")[0])


async def started(size: int) -> tuple[Steps, Journal[bytes]]:
    """Return a journal whose last two items are not synced, and its steps from now on."""
    steps = Steps(MemoryStorage())
    journal = await Journal.init(Context(steps.storage), SMALL)
    await journal.append_many(ITEMS[: size - 2])
    await journal.sync()
    await journal.append_many(ITEMS[size - 2 : size])
    steps._seen = len(steps.storage.events)
    return steps, journal


async def test_a_section_is_made_before_its_first_record() -> None:
    """The blob by name and header, then records; `sync_data` is one write and one sync of the data (D1, D5)."""
    steps = Steps(MemoryStorage())
    journal = await Journal.init(Context(steps.storage), SMALL)
    steps.check(*CHECKPOINT)
    await journal.append(b"first")
    await journal.sync_data()
    steps.check(*made(0), ["data 0 write"], ["data 0 sync"])
    await journal.append(b"second")
    await journal.sync_data()
    steps.check(["data 0 write"], ["data 0 sync"])
    await journal.close()


async def test_the_checkpoint_vouches_for_what_is_durable() -> None:
    """`sync` and `close`: data and offsets, then the checkpoint; what `sync_data` did is not written again (D1)."""
    steps, journal = await started(7)
    await journal.sync()
    steps.check(*committed(1))
    await journal.sync()
    steps.check()
    await journal.rewind(6)
    steps.check(*CHECKPOINT, ["data 1 resize"], ["data 1 sync"], ["offsets 1 resize"], ["offsets 1 sync"])
    await journal.append(b"x")
    await journal.sync_data()
    steps.check(["data 1 write"], ["data 1 sync"])
    await journal.sync()
    steps.check(["offsets 1 write", "offsets 1 sync"], *CHECKPOINT)
    await journal.append(b"y")
    await journal.close()
    steps.check(*committed(1))


async def test_what_was_written_for_want_of_room_is_synced_when_somebody_asks() -> None:
    """It is in the page cache only, and nothing is left to be written (D1)."""
    steps = Steps(MemoryStorage())
    journal = await Journal.init(Context(steps.storage), SMALL)
    await journal.append(bytes(PIECE))
    await others_ended()
    steps.check(*CHECKPOINT, *made(0), ["data 0 write"])
    await journal.sync_data()
    steps.check(["data 0 sync"])
    await journal.close()


async def test_what_is_appended_beside_a_sync_needs_another() -> None:
    """Also when it was written meanwhile for want of room: that wrote it to the page cache only (D1, I3)."""
    steps = Steps(MemoryStorage())
    storage = GatedStorage(steps.storage)
    journal = await Journal.init(Context(storage), SMALL)
    await journal.append(b"first")
    storage.hold(lambda call: call.partition == "orders_data" and call.what == "write_at" and bool(call.offset))
    syncing = asyncio.create_task(journal.sync_data())
    await storage.until_held()
    await journal.append(bytes(PIECE))
    storage.let_all_go()
    await syncing
    await others_ended()
    steps.check(*CHECKPOINT, *made(0), ["data 0 write"], ["data 0 sync"], ["data 0 write"])
    await journal.sync_data()
    steps.check(["data 0 sync"])
    await journal.sync_data()
    steps.check()
    await journal.close()


async def test_what_nobody_asks_to_sync_is_synced_piece_by_piece() -> None:
    """So that a section that is full has little to flush, and a crash little to take (F7)."""
    storage = RecordingStorage(MemoryStorage())
    journal = await Journal.init(Context(storage), replace(SMALL, items_per_section=10_000))
    for _ in range(6_000):
        await journal.append(bytes(1_000))
    await others_ended()
    unsynced = most = 0
    for call in storage.calls(
        lambda call: call.partition == "orders_data" and bool(call.offset or call.what == "sync")
    ):
        unsynced = 0 if call.what == "sync" else unsynced + len(call.data)
        most = max(most, unsynced)
    assert _MOST_UNSYNCED <= most < _MOST_UNSYNCED + SMALL.write_buffer
    assert journal.durable_size() > 4_000
    await journal.close()


async def test_a_rewind_leaves_nothing_to_do() -> None:
    """A commit that was asked for and done before is not asked for again when its items are gone."""
    steps, journal = await started(7)
    await journal.sync_data()
    steps.check(["data 1 write"], ["data 1 sync"])
    await journal.rewind(5)
    for _ in range(20):
        await asyncio.sleep(0)
    steps.check(
        ["offsets 1 write", "offsets 1 sync"],
        *CHECKPOINT,
        *CHECKPOINT,
        *([f"{part} 1 {what}"] for part in ("data", "offsets") for what in ("resize", "sync")),
    )
    await journal.close()


async def test_a_section_is_sealed_before_the_next_is_made() -> None:
    """The append that fills it returns when it is committed; the next one's blobs come after that (D1)."""
    steps, journal = await started(7)
    await journal.append(b"the last one")
    steps.check(*committed(1))
    await journal.append(b"the first one")
    await journal.sync_data()
    steps.check(*made(2), ["data 2 write"], ["data 2 sync"])
    await journal.close()


async def test_a_prune_goes_from_the_boundary_to_the_offsets() -> None:
    """As `sync`, the boundary, data from the oldest on, offsets (D4, scenario 33)."""
    steps, journal = await started(15)
    assert await journal.prune(9)
    steps.check(*committed(3), *CHECKPOINT, ["data 0,1 remove"], ["offsets 0,1 remove"])
    await journal.close()


async def test_a_rewind_goes_from_the_lowered_size_to_the_offsets() -> None:
    """As `sync`, the lower size, data from the newest on, the cut, then offsets likewise (D4, scenario 31)."""
    steps, journal = await started(19)
    await journal.rewind(6)
    steps.check(
        *committed(4),
        *CHECKPOINT,
        ["data 4,3 remove"],
        ["data 2 remove"],
        ["data 1 resize"],
        ["data 1 sync"],
        ["offsets 4,3,2 remove"],
        ["offsets 1 resize"],
        ["offsets 1 sync"],
    )
    await journal.rewind(5)  # of the last section, which was open: what it keeps of it is cut too
    steps.check(*CHECKPOINT, ["data 1 resize"], ["data 1 sync"], ["offsets 1 resize"], ["offsets 1 sync"])
    await journal.rewind(4)
    steps.check(*CHECKPOINT, ["data 1 remove"], ["offsets 1 remove"])
    await journal.close()


async def test_a_reset_is_on_record_from_its_beginning_to_its_end() -> None:
    """The checkpoint that is there, the reset, data, offsets, and the checkpoint without it, in both slots (D6)."""
    steps, journal = await started(7)
    await journal.close()
    steps._seen = len(steps.storage.events)
    journal = await Journal.init_at_size(Context(steps.storage), SMALL, 9)
    steps.check(*CHECKPOINT, *CHECKPOINT, ["data all remove"], ["offsets all remove"], *CHECKPOINT, *CHECKPOINT)
    await journal.append(b"first")
    await journal.sync_data()
    steps.check(*made(2), ["data 2 write"], ["data 2 sync"])
    await journal.destroy()
    steps.check(*CHECKPOINT, ["data all remove"], ["offsets all remove"], ["checkpoint all remove"])


async def test_a_pending_reset_is_durable_before_it_is_finished(tmp_path: Path) -> None:
    """What a killed process wrote and did not sync is written again before anything goes on its word (D6)."""
    lay_out(tmp_path, 25)
    reset = writer.checkpoint_slot(sequence=7, journal_id=1, items_per_section=10, durable=3, boundary=3, reset=3)
    path_of(tmp_path, "orders", "checkpoint").write_bytes(reset)
    steps = Steps(CrashStorage.of_files(tmp_path))
    async with await Journal.init(Context(steps.storage), CONFIG) as journal:
        assert journal.recovery.reset_finished
    steps.check(*CHECKPOINT, ["data all remove"], ["offsets all remove"], *CHECKPOINT, *CHECKPOINT)


async def test_opening_repairs_before_it_vouches(tmp_path: Path) -> None:
    """The checkpoint again, cut and written again from what is durable on, offsets, the checkpoint (D3, D6)."""
    lay_out(tmp_path, 25, durable=12)
    change(tmp_path, "data", 2, lambda blob: blob + b"junk")
    change(tmp_path, "offsets", 2, lambda _: None)
    change(tmp_path, "offsets", 1, lambda blob: blob[:80])
    steps = Steps(CrashStorage.of_files(tmp_path))
    journal = await Journal.init(Context(steps.storage), CONFIG)
    adopted = ("resize", "sync", "write", "sync")
    steps.check(
        *CHECKPOINT,
        *([f"data {section} {what}"] for section in (1, 2) for what in adopted),
        *([f"offsets {section} {what}"] for section in (1, 2) for what in adopted),
        *CHECKPOINT,
    )
    await journal.close()
    steps.check()


async def test_opening_removes_leftovers_in_their_order(tmp_path: Path) -> None:
    """Below the boundary the oldest first, behind a gap the newest first, data before offsets (D6)."""
    lay_out(tmp_path, 59, durable=25)
    slot = writer.checkpoint_slot(
        sequence=9, journal_id=0x0123_4567_89AB_CDEF, items_per_section=10, durable=25, boundary=20
    )
    path_of(tmp_path, "orders", "checkpoint").write_bytes(slot)
    change(tmp_path, "data", 3, lambda _: None)
    steps = Steps(CrashStorage.of_files(tmp_path))
    journal = await Journal.init(Context(steps.storage), CONFIG)
    steps.check(
        *CHECKPOINT,
        ["data 0,1 remove"],
        ["data 5 remove"],
        ["data 4 remove"],
        *([f"data 2 {what}"] for what in ("resize", "sync", "write", "sync")),
        ["offsets 0,1 remove"],
        ["offsets 5,4,3 remove"],
        ["offsets 2 write"],
        ["offsets 2 sync"],
        *CHECKPOINT,
    )
    await journal.close()


@pytest.mark.parametrize("kind", ["memory", "file", "crash"])
async def test_a_whole_life_keeps_the_order(kind: str, tmp_path: Path) -> None:
    """Nothing is vouched for, removed or written too early in a life with everything in it (D1, D3, D4, D5)."""
    storages: dict[str, Storage] = {
        "memory": MemoryStorage(),
        "file": FileStorage(tmp_path / "root"),
        "crash": CrashStorage(),
    }
    storage = storages[kind]
    config = replace(SMALL, write_buffer=100, max_open_blobs=2)
    with OrderingMonitor(storage) as monitor:
        for start in (0, 11):
            journal = await Journal.init_at_size(Context(monitor), config, start)
            for number, item in enumerate(ITEMS[:23]):
                monitor.attach("orders", journal)
                await journal.append(item)
                if number % 5 == 2:
                    await journal.sync_data()
                if number % 7 == 3:
                    await journal.sync()
                if number % 9 == 4:
                    await journal.rewind(journal.size() - 3)
                if number % 11 == 7:
                    await journal.prune(journal.size() - 5)
                if number % 13 == 6:
                    await journal.close()
                    journal = await Journal.init(Context(monitor), config)
            await journal.append_many(ITEMS)
            await journal.rewind(journal.bounds().start + 5)
            assert [item async for _, item in journal.replay(journal.bounds().start)]
            await (journal.destroy() if start else journal.close())


# What waits for what.


async def test_an_append_beside_an_exclusive_operation_waits_for_its_end() -> None:
    """An append that comes while a rewind is under way takes its position behind it (I1)."""
    storage = GatedStorage(MemoryStorage())
    async with await Journal.init(Context(storage), SMALL) as journal:
        await journal.append_many(ITEMS[:3])
        storage.hold(lambda call: call.what == "resize")
        rewinding = asyncio.create_task(journal.rewind(1))
        await storage.until_held()
        appending = asyncio.create_task(journal.append(b"new"))
        await asyncio.sleep(0)
        is_early = appending.done()
        storage.let_all_go()
        await rewinding
        assert not is_early
        assert await appending == 1
        assert await journal.read(1) == b"new"


async def test_an_exclusive_operation_that_is_cancelled_while_it_waits_does_not_happen() -> None:
    """It waits behind a commit, is cancelled, and the commit is done: nothing was removed (C1)."""
    storage = GatedStorage(MemoryStorage())
    async with await Journal.init(Context(storage), SMALL) as journal:
        await journal.append_many(ITEMS[:10])
        storage.hold(is_data_sync)
        syncing = asyncio.create_task(journal.sync_data())
        await storage.until_held()
        waiting = [asyncio.create_task(operation) for operation in (journal.prune(8), journal.rewind(9))]
        await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        storage.let_all_go()
        await syncing
        assert not await journal.prune(0)  # this one comes after all that were before it
        assert journal.bounds() == range(10)


async def test_a_close_waits_for_those_who_read_a_sealed_section() -> None:
    """The blob is closed and the lock released when the read is done, not before (C3)."""
    recorder = RecordingStorage(MemoryStorage())
    storage = GatedStorage(recorder)
    journal = await Journal.init(Context(storage), SMALL)
    await journal.append_many(ITEMS[:10])
    await journal.sync()
    storage.hold(lambda call: call.what == "read_at")
    reading = asyncio.create_task(journal.read(1))
    await storage.until_held()
    closing = asyncio.create_task(journal.close())
    for _ in range(100):
        await asyncio.sleep(0)
    is_early = closing.done() or recorder.calls(lambda call: call.what == "release")
    storage.let_all_go()
    await closing
    assert not is_early
    assert await reading == ITEMS[1]
    assert recorder.events[-1].call.what == "release"


async def test_a_close_waits_for_the_commit_under_way() -> None:
    """It begins when the commit is done: nothing is written twice, and no blob is closed in use (C1, C3)."""
    steps = Steps(MemoryStorage())
    storage = GatedStorage(steps.storage)
    journal = await Journal.init(Context(storage), SMALL)
    await journal.append_many(ITEMS[:3])
    storage.hold(lambda call: call.partition == "orders_data" and call.what == "write_at" and bool(call.offset))
    syncing = asyncio.create_task(journal.sync_data())
    await storage.until_held()
    closing = asyncio.create_task(journal.close())
    for _ in range(50):
        await asyncio.sleep(0)
    steps.check(*CHECKPOINT, *made(0))
    storage.let_all_go()
    await syncing
    await closing
    steps.check(["data 0 write"], ["data 0 sync"], ["offsets 0 write", "offsets 0 sync"], *CHECKPOINT)


async def test_an_abandoned_replay_does_not_wait_for_the_device() -> None:
    """What it was reading ahead is let go at once, however long the device takes to answer (scenario 39)."""
    storage = GatedStorage(MemoryStorage())
    async with await Journal.init(Context(storage), replace(SMALL, items_per_section=100)) as journal:
        await journal.append_many(ITEMS)
        await journal.sync()
        stream = journal.replay(0, 100)
        storage.hold(lambda call: call.what == "read_at" and call.offset > HEADER_LENGTH)
        assert await anext(stream) == (0, ITEMS[0])
        await storage.until_held()
        await stream.aclose()
        await asyncio.sleep(0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        storage.let_all_go()
        assert not left


async def test_a_rewind_frees_the_room_of_what_it_discards() -> None:
    """After sections were filled and rewound nothing waits to be written, so there is room for all (F7)."""
    config = replace(SMALL, write_buffer=60)
    async with await Journal.init(Context(MemoryStorage()), config) as journal:
        await journal.append_many(ITEMS[:25])
        for size in (22, 6, 0):
            await journal.rewind(size)
            assert journal._data.waiting == 0
            await journal.append_many(ITEMS[:3])


async def test_a_read_beside_a_rewind_looks_again() -> None:
    """It finds other bytes where its record was, and that is no damage: the position may be nobody's now (I1)."""
    for size, new in ((5, True), (2, False)):
        storage = GatedStorage(MemoryStorage())
        async with await Journal.init(Context(storage), replace(SMALL, items_per_section=100)) as journal:
            await journal.append_many(ITEMS[:10])
            await journal.sync()
            storage.hold(lambda call: call.what == "read_at")
            reading = asyncio.create_task(journal.read(5))
            await storage.until_held()
            await journal.rewind(size)
            if new:
                await journal.append_many([b"new"] * 4)
            await journal.sync()
            storage.let_all_go()
            if new:
                assert await reading == b"new"
            else:
                with pytest.raises(ItemOutOfRange):
                    await reading


async def sealed_and_closed(storage: Storage) -> Journal[bytes]:
    """Return a journal of ten items whose sections nobody has read since it was opened."""
    async with await Journal.init(Context(storage), SMALL) as journal:
        await journal.append_many(ITEMS[:10])
    return await Journal.init(Context(storage), SMALL)


async def test_a_prune_waits_for_a_section_that_is_being_opened() -> None:
    """The opening would make the blob again that the prune had removed (D4, C3)."""
    storage = GatedStorage(MemoryStorage())
    journal = await sealed_and_closed(storage)
    first = bytes(8)  # and not the next one: the prune looks at its header
    storage.hold(lambda call: call.what == "open" and call.partition == "orders_data" and call.name == first)
    reading = asyncio.create_task(journal.read(0))
    await storage.until_held()
    pruning = asyncio.create_task(journal.prune(4))
    for _ in range(50):
        await asyncio.sleep(0)
    storage.let_all_go()
    assert await pruning
    await asyncio.wait([reading])
    assert reading.exception() is None or isinstance(reading.exception(), ItemPruned)
    assert sorted(int.from_bytes(name) for name in await storage.scan("orders_data")) == [1, 2]
    await journal.close()


async def test_a_reader_who_leaves_stops_no_other_and_keeps_nothing() -> None:
    """The opening goes on, and the section is idle when the others are done: it can be closed for room (F7, C4)."""
    storage = GatedStorage(MemoryStorage())
    journal = await sealed_and_closed(storage)
    storage.hold(lambda call: call.what == "open" and call.partition == "orders_data")
    readers = [asyncio.create_task(journal.read(position)) for position in (0, 1)]
    await storage.until_held()
    readers[0].cancel()
    await asyncio.wait(readers[:1])
    storage.let_all_go()
    assert await readers[1] == ITEMS[1]
    await others_ended()
    sealed = journal._sealed.get(0)
    assert sealed is not None
    assert not sealed.users
    await journal.close()


async def test_a_section_that_is_cut_is_open_once() -> None:
    """A reader who opened it again while the rewind was under way keeps no handle with the old index (D4, F7)."""

    def is_held(call: Call) -> bool:
        is_first = call.what == "open" and call.partition == "orders_data" and call.name == bytes(8)
        return is_first or (call.what == "write_at" and call.partition == "orders_checkpoint" and is_rewinding)

    is_rewinding = False
    storage = GatedStorage(MemoryStorage())
    async with await filled(Context(storage), 7, SMALL):
        pass
    journal = await Journal.init(Context(storage), replace(SMALL, max_open_blobs=1))
    storage.hold(is_held)
    opening = asyncio.create_task(journal.read(0))
    await storage.until_held()
    await journal.append(item_at(7))  # the next section is full, and there is one open
    is_rewinding = True
    rewinding = asyncio.create_task(journal.rewind(6))
    await storage.until_held(2)
    storage.let_go()
    assert await opening == item_at(0)  # which is kept in its place
    reading = asyncio.create_task(journal.read(4))
    for _ in range(50):
        await asyncio.sleep(0)
    storage.let_all_go()
    await rewinding
    assert await reading == item_at(4)
    await others_ended()
    assert journal._sealed.get(1) is None
    assert await journal.append_many([b"new", b"new"]) == 7
    assert await journal.read_many(range(4, 8)) == [item_at(4), item_at(5), b"new", b"new"]
    await journal.close()


@pytest.mark.parametrize("kind", ["memory", "file"])
async def test_no_byte_more_waits_than_the_write_buffer_holds(kind: str, tmp_path: Path) -> None:
    """To the byte, by `append` and by `append_many`, over sections; what is written waits no more (F7)."""
    storage = MemoryStorage() if kind == "memory" else FileStorage(tmp_path / "root")
    for first, second, waits in ((32, 52, 100), (32, 53, 61), (92, 0, 100), (93, 1, 9), (1, 84, 9 + 92), (1, 83, 100)):
        config = replace(SMALL, items_per_section=100, write_buffer=100)
        async with await Journal.init_at_size(Context(storage), config, 0) as journal:
            for append in (journal.append, lambda item: journal.append_many([item])):
                for other in (journal.append, lambda item: journal.append_many([item])):
                    await journal.sync_data()
                    assert journal._data.waiting == 0
                    await append(bytes(first))
                    if second:
                        await other(bytes(second))
                    assert journal._data.waiting == (waits if waits <= 100 else second + 8)
    async with await Journal.init_at_size(Context(storage), SMALL, 0) as journal:
        await journal.append_many(ITEMS)
        await journal.sync_data()
        assert journal._data.waiting == 0


async def test_appends_that_wait_are_let_in_as_far_as_there_is_room() -> None:
    """Each write makes room for as many as it wrote, and for no more (F7)."""
    storage = GatedStorage(MemoryStorage())
    async with await Journal.init(Context(storage), replace(SMALL, items_per_section=100, write_buffer=100)) as journal:
        storage.hold(lambda call: call.what == "write_at" and call.offset >= HEADER_LENGTH)
        tasks = [asyncio.create_task(journal.append(bytes(32))) for _ in range(20)]
        most = 0
        while not all(task.done() for task in tasks):
            await storage.until_held()
            storage.let_go()
            for _ in range(10):
                await asyncio.sleep(0)
            most = max(most, journal._data.waiting)
        storage.let_all_go()
        assert most == 80


async def test_a_replay_does_not_give_what_a_failure_left_in_doubt() -> None:
    """Items that it has parsed already, and that are not durable when the journal fails, are not given out (F1)."""
    faulty = FaultyStorage(MemoryStorage(), 2, only=is_data_sync)  # the first one is the header's
    journal = await Journal.init(Context(faulty), SMALL)
    await journal.append_many(ITEMS[:3])
    stream = journal.replay(0)
    assert await anext(stream) == (0, ITEMS[0])
    with pytest.raises(StorageError):
        await journal.sync_data()
    with pytest.raises(JournalFailed):
        await anext(stream)
    with pytest.raises(JournalFailed):
        await journal.close()


async def test_a_replay_that_begins_after_a_failure_ends_where_durability_ends() -> None:
    """Also where the bytes behind it are in the storage, written and not synced (F1)."""
    faulty = FaultyStorage(MemoryStorage(), 3, only=is_data_sync)  # the first one is the header's
    journal = await Journal.init(Context(faulty), replace(SMALL, items_per_section=1_000))
    await journal.append_many(ITEMS[:2])
    await journal.sync_data()
    await journal.append_many([bytes(PIECE // 100)] * 100)
    await others_ended()  # they are written, though nobody asked
    with pytest.raises(StorageError):
        await journal.sync_data()
    found = []
    with pytest.raises(JournalFailed):  # noqa: PT012 - what came before the error counts
        async for _, item in journal.replay(0, 4 * PIECE):  # many of them are read with the first ones
            found.append(item)
    assert found == ITEMS[:2]
    with pytest.raises(JournalFailed):
        await journal.close()


@asynccontextmanager
async def turns_of_others() -> AsyncGenerator[list[int]]:
    """Count the turns that another task has meanwhile: the length of the list."""
    turns: list[int] = []

    async def count() -> None:
        while True:
            turns.append(len(turns))
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    try:
        yield turns
    finally:
        counting.cancel()


async def test_a_tight_loop_of_appends_lets_others_run_however_large_the_write_buffer_is() -> None:
    """Others have their turns with each 64 KiB or so, also where nothing ever waits for room (L2)."""
    config = replace(SMALL, items_per_section=10**6, write_buffer=2**30)
    async with await Journal.init(Context(MemoryStorage()), config) as journal:
        async with turns_of_others() as turns:
            for _ in range(20 * PIECE // 1_000):
                await journal.append(bytes(1_000))
        assert len(turns) >= 10


async def test_a_tight_loop_of_appends_that_are_compressed_lets_others_run_sooner() -> None:
    """What is compressed takes as long as ten items that are not, and few bytes: others have a turn earlier (L2)."""
    config = replace(SMALL, items_per_section=10**6, compression=1)
    async with await Journal.init(Context(MemoryStorage()), config) as journal:
        async with turns_of_others() as turns:
            for _ in range(1_000):
                await journal.append(bytes(100))
        assert len(turns) >= 7


async def test_a_long_run_lets_others_run_and_shows_as_a_whole() -> None:
    """Between its slices others have a turn, who see neither a part of it nor durability beyond the size (L2, A2)."""
    for count, items_per_section, write_buffer, slices in ((4_096, 64, 10_000, 4), (20_480, 10**6, 2**20, 20)):
        config = replace(SMALL, items_per_section=items_per_section, write_buffer=write_buffer)
        async with await Journal.init(Context(MemoryStorage()), config) as journal:
            run = journal._payloads.encode([b"x"] * count)
            running = asyncio.create_task(journal._writer.append(run))
            turns = 0
            while not running.done():
                await asyncio.sleep(0)
                assert journal.size() in {0, count}
                assert journal.durable_size() <= journal.size()
                turns += 1
            assert turns >= slices
            assert await running == count - 1


async def test_encoding_many_items_lets_others_run() -> None:
    """A turn for each 1,024 of them, before any of them is appended (L2)."""
    async with await Journal.init(Context(MemoryStorage()), SMALL) as journal:
        running = asyncio.create_task(journal.append_many([b"x"] * 1_024 * 30))
        for _ in range(30):
            await asyncio.sleep(0)
            assert journal._data.tail.size == 0
        assert await running == 1_024 * 30 - 1


async def test_a_long_run_beyond_the_largest_size_is_refused_as_a_whole() -> None:
    """Nothing of it is appended, and the journal goes on."""
    start = 2**64 - 1_100
    config = replace(SMALL, items_per_section=65_536)
    async with await Journal.init_at_size(Context(MemoryStorage()), config, start) as journal:
        with pytest.raises(SizeOverflow):
            await journal.append_many([b""] * 1_100)
        assert journal.size() == start
        assert await journal.append_many([b""] * 1_099) == 2**64 - 2


async def test_a_replay_of_what_is_in_memory_lets_others_run() -> None:
    """Each piece comes with a turn for the others, though nothing is waited for (L2)."""
    async with await Journal.init(Context(MemoryStorage()), replace(SMALL, items_per_section=100)) as journal:
        await journal.append_many(ITEMS)
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        assert len([pair async for pair in journal.replay(0, 50)]) == len(ITEMS)
        counting.cancel()
        assert turns >= len(ITEMS)


async def test_a_write_and_sync_that_failed_is_not_tried_again(tmp_path: Path) -> None:
    """Also where both are one call: the first failure is the last (F2)."""
    faulty = FaultyStorage(FileStorage(tmp_path / "root"), 2, only=is_data_sync)  # the first one is the header's
    journal = await Journal.init(Context(faulty), SMALL)
    await journal.append(b"item")
    with pytest.raises(StorageError):
        await journal.sync_data()
    for late in (lambda: journal.append(b"late"), lambda: journal.append_many([b"late"]), journal.sync_data):
        with pytest.raises(JournalFailed):
            await late()
    with pytest.raises(JournalFailed):
        await journal.close()
    assert faulty.count == 2


@pytest.mark.parametrize("part", ["data", "offsets"])
async def test_a_checkpoint_is_not_written_after_a_sync_that_failed(part: str) -> None:
    """Whichever of the two at a time it is: the caller gets it, and nothing vouches for what it left (F1)."""
    recorder = RecordingStorage(MemoryStorage())
    failing = FaultyStorage(recorder, 2, only=lambda call: call.what == "sync" and call.partition.endswith(part))
    journal = await Journal.init(Context(failing), SMALL)
    written = len(recorder.calls(lambda call: call.partition == "orders_checkpoint" and call.what == "write_at"))
    await journal.append(b"item")
    with pytest.raises(StorageError):
        await journal.sync()
    with pytest.raises(JournalFailed):
        await journal.close()
    after = recorder.calls(lambda call: call.partition == "orders_checkpoint" and call.what == "write_at")
    assert len(after) == written


# What is told.


class Backwards(MemoryStorage):
    """A storage that lists the names of blobs from the last to the first."""

    @override
    async def scan(self, partition: str) -> list[bytes]:
        return (await super().scan(partition))[::-1]


async def test_the_order_in_which_blobs_are_listed_is_of_no_account() -> None:
    """Directories list as they like: nothing is repaired, and everything is there (A3)."""
    context = Context(Backwards())
    async with await Journal.init(context, SMALL) as journal:
        await journal.append_many(ITEMS[:14])
    async with await Journal.init(context, SMALL) as journal:
        assert journal.recovery.clean
        assert [item async for _, item in journal.replay(0)] == ITEMS[:14]


async def test_a_journal_that_ends_where_a_range_begins_is_reset_to_it() -> None:
    """It holds nothing of the range, so nothing of it stays, also where the start lies inside a section."""
    context = Context(MemoryStorage())
    await (await filled(context, 10, SMALL)).close()
    async with await Journal.init_sync(context, SMALL, range(10, 20)) as journal:
        assert limits_of(journal.bounds()) == (10, 10)


async def test_a_checkpoint_that_was_lost_is_made_again(tmp_path: Path) -> None:
    """Also where it says what the data said: the next opening finds it (D6)."""
    lay_out(tmp_path, 25)
    change(tmp_path, "data", 2, lambda blob: blob[:HEADER_LENGTH])
    path_of(tmp_path, "orders", "checkpoint").write_bytes(b"")
    for is_lost in (True, False):
        async with await Journal.init(Context(FileStorage(tmp_path)), CONFIG) as journal:
            assert limits_of(journal.bounds()) == (0, 20)
            assert bool(journal.recovery.notes) == is_lost


async def test_each_journal_has_an_id_of_its_own() -> None:
    """Also the one that takes the place of another: a blob of the old one is none of the new one (F4)."""
    ids = set()
    for _ in range(2):
        storage = CrashStorage()
        for opening in (Journal.init, partial(Journal.init_at_size, size=0)):
            async with await opening(Context(storage), SMALL):
                slots, _ = slots_in(storage.tree()["orders_checkpoint", "0" * 16], "orders")
            ids.add(slots[0][0].journal_id)
    assert len(ids) == 4


@pytest.mark.parametrize("damaged", [0, 4, 9])
async def test_without_an_index_a_section_is_read_up_to_the_damage(tmp_path: Path, damaged: int) -> None:
    """Nothing leads to what is behind a record that is no more; each of those is reported as itself (A3, F4)."""
    lay_out(tmp_path, 25)
    size = (tmp_path / "orders_data" / bytes(8).hex()).stat().st_size
    cut = 64 + sum(8 + len(ITEMS[position]) for position in range(damaged)) + 8
    change(tmp_path, "data", 0, lambda blob: blob[:cut] if damaged == 9 else blob[:cut] + bytes(size - cut))
    change(tmp_path, "offsets", 0, lambda blob: blob[:-1])
    async with await Journal.init(Context(FileStorage(tmp_path)), CONFIG) as journal:
        for position in range(25):
            if damaged <= position < 10:
                with pytest.raises(Corruption) as raised:
                    await journal.read(position)
                assert (raised.value.section, raised.value.position) == (0, position)
            else:
                assert await journal.read(position) == ITEMS[position]
        given = []
        with pytest.raises(Corruption) as raised:  # noqa: PT012 - it ends somewhere inside
            async for position, item in journal.replay(0):
                given.append((position, item))
        assert raised.value.position == damaged
        assert given == [(position, ITEMS[position]) for position in range(damaged)]


async def test_a_failure_that_nobody_looks_at_is_not_complained_about() -> None:
    """Who waited was cancelled in that very moment; the journal has the failure on record (C2)."""
    loop = asyncio.get_running_loop()
    complaints: list[object] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    future = loop.create_future()
    refuse(future, ValueError())
    refuse(future, ValueError())
    resolve(future, 1)

    async def fail() -> None:
        raise ValueError

    task = asyncio.create_task(fail())
    task.add_done_callback(retrieve)
    await asyncio.wait([task])
    del future, task
    gc.collect()
    assert complaints == []


def test_a_twin_of_an_error_has_its_notes_and_no_list_in_common() -> None:
    """What one waiter notes is not seen by the others; an error that makes no copies is shared (F1)."""

    class Unique(Exception):
        def __copy__(self) -> None:
            raise TypeError

    error = StorageError("orders_data", None, None, "open")
    error.add_note("closing a blob failed too")
    first, second = twin_of(error), twin_of(error)
    first.add_note("seen by one")
    assert error.__notes__ == second.__notes__ == ["closing a blob failed too"]
    assert first.__cause__ is second.__cause__ is error
    assert str(first) == str(error)
    unique = Unique()
    assert twin_of(unique) is unique
    assert unique.__cause__ is None


# What is let go.


async def test_a_close_closes_all_that_was_opened() -> None:
    """Every blob, those of sections that were sealed, pruned, cut or read included, and then it releases the lock."""
    recorder = RecordingStorage(MemoryStorage())
    for size in (None, 9):
        if size is None:
            opening = Journal.init(Context(recorder), replace(SMALL, max_open_blobs=2))
        else:
            opening = Journal.init_at_size(Context(recorder), SMALL, size)
        journal = await opening
        await journal.append_many(ITEMS[:30])
        await journal.rewind(journal.size() - 7)
        await journal.prune(journal.size() - 9)
        await journal.read_many(journal.bounds())
        await journal.append_many(ITEMS[:3])
        await journal.close()
        opened = recorder.calls(lambda call: call.what == "open")
        assert len(opened) == len(recorder.calls(lambda call: call.what == "close"))
        assert recorder.events[-1].call.what == "release"


async def test_an_open_that_is_refused_closes_all_that_it_opened(tmp_path: Path) -> None:
    """Every blob that was opened is closed before the lock is released, and that before the error is seen (F6, F7)."""
    lay_out(tmp_path, 25)
    for refused in (
        replace(CONFIG, items_per_section=9),
        CONFIG,
    ):
        storage = CrashStorage.of_files(tmp_path)
        if refused is CONFIG:
            await storage.remove("orders_data", bytes(7) + b"\1")
        recorder = RecordingStorage(storage)
        with pytest.raises((InvalidConfiguration, Corruption)):
            await Journal.init(Context(recorder), refused)
        opened = recorder.calls(lambda call: call.what == "open")
        assert len(opened) == len(recorder.calls(lambda call: call.what == "close")) > 0
        assert recorder.events[-1].call.what == "release"


async def test_the_name_of_the_checkpoint_is_durable_before_it_is_relied_on() -> None:
    """A process was killed while it made the blob: the next one's checkpoint is not lost with its name (D5)."""
    storage = CrashStorage()
    making: list[CrashStorage] = []
    storage.on_call = lambda: making.append(storage.photo())
    await (await Journal.init(Context(storage), SMALL)).close()
    killed = [making[0].killed(random.Random(seed)) for seed in range(20)]
    assert {tuple(state.tree()) for state in killed} == {(), (("orders_checkpoint", "00" * 8),)}
    for state in killed:
        async with await Journal.init_at_size(Context(state), SMALL, 7):
            left = state.power_cut(random.Random(1), Luck.NONE)
        async with await Journal.init(Context(left), SMALL) as journal:
            assert limits_of(journal.bounds()) == (7, 7)


async def test_a_blob_that_is_no_section_is_corruption(tmp_path: Path) -> None:
    """Its name is not a number of eight bytes: it is refused, and left alone (F4)."""
    lay_out(tmp_path, 25)
    stray = tmp_path / "orders_data" / "02"
    stray.write_bytes(b"whatever")
    for _ in range(2):
        with pytest.raises(Corruption) as refused:
            await Journal.init(Context(FileStorage(tmp_path)), CONFIG)
        assert (refused.value.what, refused.value.found) == ("blob name", "02")
    assert stray.read_bytes() == b"whatever"
