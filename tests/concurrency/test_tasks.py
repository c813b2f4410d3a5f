"""Any number of tasks use one journal at once, on one event loop; nobody else does."""

# Files and processes are looked at while nothing else is to run.
# ruff: noqa: ASYNC222, ASYNC240

from __future__ import annotations

import asyncio
import gc
import os
import random
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from posjournal_async import (
    BytesCodec,
    Config,
    Context,
    FileStorage,
    ItemOutOfRange,
    ItemPruned,
    Journal,
    JournalClosed,
    JournalFailed,
    MemoryStorage,
    StorageError,
)
from posjournal_async.testing import Call, FaultyStorage, GatedStorage, RecordingStorage
from posjournal_async.testing.wrapping import is_data_sync

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from posjournal_async import Storage

IPS = 4
SMALL = Config(partition="orders", items_per_section=IPS, codec=BytesCodec())
WIDE = Config(partition="orders", codec=BytesCodec())


async def opened(storage: Storage, config: Config[bytes] = SMALL) -> Journal[bytes]:
    return await Journal.init(Context(storage), config)


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def all_items(journal: Journal[bytes]) -> list[bytes]:
    return [item async for _, item in journal.replay(journal.bounds().start)]


def is_data_write(call: Call) -> bool:
    """Say whether a call writes records, and not a header."""
    return call.partition == "orders_data" and call.what == "write_at" and call.offset > 0


# Group commit.


async def test_many_tasks_share_few_syncs() -> None:
    """256 tasks that each append and sync cost a few data syncs, and each of them is covered by one (I3)."""
    storage = RecordingStorage(MemoryStorage())
    journal = await opened(storage, WIDE)

    async def commit(number: int) -> int:
        position = await journal.append(b"%d" % number)
        await journal.sync_data()
        assert journal.durable_size() > position
        return position

    positions = await asyncio.gather(*(commit(number) for number in range(256)))
    assert sorted(positions) == list(range(256))
    assert len(storage.calls(is_data_sync)) <= 5
    assert await all_items(journal) == [b"%d" % number for number in range(256)]
    await journal.close()


async def test_a_sync_that_began_before_an_append_does_not_vouch_for_it() -> None:
    """Who appends during an fsync waits for the next one (I3)."""
    storage = GatedStorage(MemoryStorage())
    journal = await opened(storage, WIDE)
    await journal.append(b"early")
    await journal.sync_data()
    await journal.append(b"in the group")
    storage.hold(is_data_sync)
    first = asyncio.create_task(journal.sync_data())
    await storage.until_held()
    await journal.append(b"late")
    second = asyncio.create_task(journal.sync_data())
    await turns(5)

    storage.let_go()
    await first
    await storage.until_held()
    assert not second.done()
    assert journal.durable_size() == 2

    storage.let_all_go()
    await second
    assert journal.durable_size() == 3
    await journal.close()


@pytest.mark.parametrize("seed", range(20))
async def test_a_sync_returns_only_after_an_fsync_that_began_when_its_items_had_landed(seed: int) -> None:
    """In any schedule, the write of an acknowledged item had ended before the fsync that vouches for it began (I3)."""
    chance = random.Random(seed)
    recorder = RecordingStorage(MemoryStorage())
    gated = GatedStorage(recorder)
    journal = await opened(gated, WIDE)
    gated.hold(lambda call: call.partition == "orders_data" and call.what != "read_at")
    acknowledged: dict[int, int] = {}

    async def commit(number: int) -> None:
        await turns(chance.randrange(10))
        position = await journal.append(b"<%d>" % number)
        await journal.sync_data()
        acknowledged[position] = len(recorder.events)

    tasks = [asyncio.create_task(commit(number)) for number in range(30)]
    while not all(task.done() for task in tasks):
        gated.let_go()
        await turns(chance.randrange(1, 4))
    await asyncio.gather(*tasks)

    for position, until in acknowledged.items():
        item = await journal.read(position)
        events = recorder.events[:until]
        landed = next(at for at, event in enumerate(events) if event.phase == "end" and item in event.call.data)
        began = {event.call: at for at, event in enumerate(events) if event.phase == "begin"}
        ends = [event.call for event in events if event.phase == "end" and is_data_sync(event.call)]
        assert any(began[call] > landed for call in ends)
    gated.let_all_go()
    await journal.close()


async def test_a_sync_with_nothing_new_touches_no_storage() -> None:
    """Who asks for what is durable already gets it without a sync (I3)."""
    storage = RecordingStorage(MemoryStorage())
    journal = await opened(storage)
    await journal.append(b"item")
    await journal.sync()
    before = len(storage.events)
    await journal.sync_data()
    await journal.sync()
    assert len(storage.events) == before
    await journal.close()


# Sections that fill up.


async def test_two_tasks_that_reach_a_section_boundary_at_once_both_cross_it() -> None:
    """Positions stay dense, and each item is in its section when its append returns (I1, O1)."""
    storage = MemoryStorage()
    journal = await opened(storage)
    await journal.append_many([b"0", b"1", b"2"])
    calls = [journal.append(b"3"), journal.append(b"4"), journal.append_many([b"5", b"6", b"7"]), journal.append(b"8")]
    positions = await asyncio.gather(*calls)
    assert positions == [3, 4, 7, 8]
    assert journal.durable_size() >= 8
    assert await all_items(journal) == [b"%d" % number for number in range(9)]
    await journal.close()


async def test_appends_go_on_while_a_section_is_sealed_until_the_buffer_is_full() -> None:
    """Other tasks append during the syncs of a roll as far as memory allows, then wait, and go on in order (F7, O1)."""
    storage = GatedStorage(MemoryStorage())
    config = Config(partition="orders", items_per_section=IPS, codec=BytesCodec(), write_buffer=100)
    journal = await opened(storage, config)
    await journal.append_many([b"0", b"1", b"2"])
    storage.hold(is_data_sync)
    rolling = asyncio.create_task(journal.append(b"3"))
    await storage.until_held()

    others = [asyncio.create_task(journal.append(b"x" * 32)) for _ in range(6)]
    await turns(5)
    # Two records of 40 bytes fit beside what is on its way; the others wait.
    waiting = [task for task in others if not task.done()]
    assert not rolling.done()
    assert 1 <= len(waiting) < 6
    assert journal.size() == IPS + 6 - len(waiting)
    assert waiting == others[-len(waiting) :]

    storage.let_all_go()
    assert await rolling == 3
    assert await asyncio.gather(*others) == [4, 5, 6, 7, 8, 9]
    await journal.close()


# Back-pressure.


@pytest.mark.parametrize("count", [1, 7])
async def test_memory_that_waits_is_bounded_by_the_write_buffer(count: int) -> None:
    """However many tasks append to a slow device, what is taken in is at most the buffer and one item (F7)."""
    storage = GatedStorage(MemoryStorage())
    item = b"x" * 92  # 100 bytes with the head of its record
    config = Config(partition="orders", codec=BytesCodec(), write_buffer=1_000)
    journal = await opened(storage, config)
    storage.hold(is_data_write)
    tasks = [asyncio.create_task(journal.append_many([item] * count)) for _ in range(100)]
    await storage.until_held()
    most = 0
    while not all(task.done() for task in tasks):
        landed = sum(len(call.data) for call in storage.held)
        assert landed <= 1_000 + len(item) + 8
        most = max(most, journal._data.waiting)
        storage.let_go()
        await turns(3)
    assert 600 <= most <= 1_000
    assert [task.result() for task in tasks] == [number * count - 1 for number in range(1, 101)]
    storage.let_all_go()
    await journal.close()


async def test_a_run_larger_than_the_buffer_waits_in_pieces() -> None:
    """However few items it has: only one item alone may be larger than the buffer (F7), and others have turns (L2)."""
    storage = GatedStorage(MemoryStorage())
    journal = await opened(storage, Config(partition="orders", codec=BytesCodec(), write_buffer=100_000))
    storage.hold(is_data_write)
    items = [bytes([number]) * 30_000 for number in range(40)]
    appending = asyncio.create_task(journal.append_many(items))
    most = 0
    while not appending.done():
        await turns(1)
        most = max(most, journal._data.waiting)
        if storage.held:
            storage.let_go()
    storage.let_all_go()
    assert await appending == 39
    assert most <= 100_000
    assert await all_items(journal) == items
    await journal.close()


async def test_a_large_run_is_appended_in_slices_however_large_the_buffer_is() -> None:
    """Not in one go, which would hold up the event loop (L2)."""
    journal = await opened(MemoryStorage(), Config(partition="orders", codec=BytesCodec(), write_buffer=2**30))
    appending = asyncio.create_task(journal.append_many([bytes(200_000)] * 50))
    most = 0
    while not appending.done():
        await turns(1)
        most = max(most, journal._data.waiting)
    assert await appending == 49
    assert 200_000 <= most <= 2**20
    await journal.close()


async def test_appends_that_were_cancelled_while_they_waited_hold_no_items() -> None:
    """With a device that stalls and callers that give up, memory does not grow with what they gave up (F7)."""
    storage = GatedStorage(MemoryStorage())
    journal = await opened(storage, Config(partition="orders", codec=BytesCodec(), write_buffer=10))
    storage.hold(is_data_write)
    await journal.append(b"first")
    await turns(1)
    item = b"x" * 1_000
    before = sys.getrefcount(item)
    waiting = [asyncio.create_task(journal.append(item)) for _ in range(20)]
    waiting += [asyncio.create_task(journal.append_many([item, item])) for _ in range(20)]
    await storage.until_held()
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    del task
    waiting.clear()
    gc.collect()
    assert sys.getrefcount(item) == before
    storage.let_all_go()
    assert await journal.append(b"last") == 1
    await journal.close()


async def test_an_append_that_filled_its_section_waits_for_nothing_later() -> None:
    """Its section is sealed; that of somebody who came meanwhile, and wants more, fails, and is not its failure."""

    def is_second_sync(call: Call) -> bool:
        return is_data_sync(call) and call.name == (1).to_bytes(8, "big")

    gated = GatedStorage(FaultyStorage(MemoryStorage(), 2, only=is_second_sync))
    journal = await opened(gated)
    await journal.append_many([b"x"] * (IPS - 1))
    gated.hold(is_second_sync)

    async def more() -> None:
        await journal.append(b"more")
        await journal.sync()

    filling = asyncio.create_task(journal.append(b"fills"))
    later = asyncio.create_task(more())
    await gated.until_held()
    async with asyncio.timeout(30):
        assert await filling == IPS - 1
    gated.let_all_go()
    with pytest.raises(StorageError):
        await later
    with pytest.raises(JournalFailed):
        await journal.close()


async def test_what_came_before_a_long_run_is_committed_beside_it() -> None:
    """Somebody who waits for an item does not wait until all of a run that came later is appended."""
    recorder = RecordingStorage(MemoryStorage())
    journal = await opened(recorder, WIDE)
    await journal.append(b"before")
    appending = asyncio.create_task(journal.append_many([bytes(1_000)] * 20_000))
    await turns(10)
    syncing = asyncio.create_task(journal.sync_data())
    await asyncio.wait([syncing, appending], return_when=asyncio.FIRST_COMPLETED)
    assert not appending.done()
    await appending
    assert len(recorder.calls(is_data_sync)) >= 10  # each MiB or so, as what is appended one by one
    await journal.close()


async def test_what_waits_in_the_queue_is_framed_piece_by_piece() -> None:
    """Not all of the buffer in one go when it is written, which would hold up the event loop (L2)."""
    config = Config(partition="orders", codec=BytesCodec(), write_buffer=2**24)
    for runs in ([20_000], [1_000] * 20):
        storage = GatedStorage(MemoryStorage())
        journal = await opened(storage, config)
        storage.hold(is_data_write)
        await journal.append(b"first")
        syncing = asyncio.create_task(journal.sync_data())
        await storage.until_held()
        appending = [asyncio.create_task(journal.append_many([b"x"] * count)) for count in runs]
        storage.let_go()
        most = 0
        while not all(task.done() for task in appending):
            await turns(1)
            if storage.held:
                storage.let_go()
            most = max(most, len(journal._data.tail.pending))
        assert most <= 2_048
        storage.let_all_go()
        await syncing
        await journal.close()


async def test_an_item_larger_than_the_buffer_goes_through_alone() -> None:
    """It waits until nothing else does, and everything keeps its order (F7)."""
    journal = await opened(MemoryStorage(), Config(partition="orders", codec=BytesCodec(), write_buffer=10))
    items = [b"a", b"b" * 5_000, b"c", b"d" * 400_000, b"e"]
    assert await asyncio.gather(*(journal.append(item) for item in items)) == [0, 1, 2, 3, 4]
    assert await all_items(journal) == items
    await journal.close()


async def test_appends_that_wait_are_admitted_in_the_order_of_their_calls() -> None:
    """A small append does not overtake a large one that waits for room (O1)."""
    journal = await opened(MemoryStorage(), Config(partition="orders", codec=BytesCodec(), write_buffer=64))
    sizes = [40, 60, 1, 60, 1, 1, 40, 1]
    tasks = [asyncio.create_task(journal.append(b"x" * size)) for size in sizes]
    assert await asyncio.gather(*tasks) == list(range(8))
    assert [len(item) for item in await all_items(journal)] == sizes
    await journal.close()


async def test_a_long_run_stays_together() -> None:
    """No append comes between the items of one call, however long, and none of them shows before all do (A2, O1)."""
    journal = await opened(MemoryStorage(), Config(partition="orders", codec=BytesCodec(), write_buffer=500))
    await journal.append(b"before")
    run = [b"run %d" % number for number in range(3_000)]
    running = asyncio.create_task(journal.append_many(run))
    await asyncio.sleep(0)
    between = asyncio.create_task(journal.append(b"between"))
    sizes = set()
    while not running.done():
        sizes.add(journal.size())
        await asyncio.sleep(0)
    assert sizes <= {1, 2, 3_001, 3_002}
    assert {await running, await between} in ({3_000, 3_001}, {3_001, 1})
    items = await all_items(journal)
    start = items.index(b"run 0")
    assert items[start : start + 3_000] == run
    assert len(items) == 3_002
    await journal.close()


# Exclusive operations beside others.


async def test_a_replay_beside_a_prune_gives_each_item_or_says_that_it_was_pruned() -> None:
    """Wherever the prune comes in, what is given out is right and in order, and then the end is `ItemPruned` (I2)."""
    cut = 0
    for moment in range(60):
        journal = await opened(MemoryStorage(), Config(partition="orders", items_per_section=2, codec=BytesCodec()))
        items = [b"item %d" % number for number in range(21)]
        await journal.append_many(items)
        stream = journal.replay(0, 60)
        found = [await anext(stream)]

        async def prune(journal: Journal[bytes] = journal, moment: int = moment) -> None:
            await turns(moment)
            await journal.prune(15)

        pruning = asyncio.create_task(prune())
        try:
            async for pair in stream:
                found.append(pair)  # noqa: PERF401 - what came before the error counts
        except ItemPruned:
            cut += 1
        else:
            assert len(found) == 21
        await pruning
        assert found == list(enumerate(items))[: len(found)]
        await journal.close()
    assert 0 < cut < 60


async def test_a_read_or_replay_beside_a_rewind_never_gives_what_was_put_in_place_of_an_item() -> None:
    """A stream ends with an error at a position that was discarded; a read gives the new item or the error (I2)."""
    cut = 0
    for moment in range(60):
        journal = await opened(MemoryStorage(), Config(partition="orders", items_per_section=2, codec=BytesCodec()))
        old = [b"old %d" % number for number in range(21)]
        new = [b"the new %d" % number for number in range(12)]
        await journal.append_many(old)
        stream = journal.replay(0, 60)
        found = [await anext(stream)]

        async def rewind(journal: Journal[bytes] = journal, moment: int = moment, new: list[bytes] = new) -> None:
            await turns(moment)
            await journal.rewind(9)
            await journal.append_many(new)

        async def read(journal: Journal[bytes] = journal, old: list[bytes] = old, new: list[bytes] = new) -> None:
            for position in [20, 15, 9, 8] * 8:
                try:
                    item = await journal.read(position)
                except ItemOutOfRange:
                    assert position >= 9
                else:
                    assert item in {old[position], new[position - 9] if position >= 9 else b""}

        others = [asyncio.create_task(rewind()), asyncio.create_task(read())]
        try:
            async for pair in stream:
                found.append(pair)  # noqa: PERF401 - what came before the error counts
        except ItemOutOfRange as error:
            cut += 1
            assert error.position >= 9  # noqa: PT017 - it need not be raised
        else:
            assert len(found) == 21
        await asyncio.gather(*others)
        assert found == list(enumerate(old))[: len(found)]
        assert await all_items(journal) == old[:9] + new
        await journal.close()
    assert 0 < cut < 60


async def test_a_close_beside_appends_keeps_all_that_returned() -> None:
    """An append returned, and is durable, or raised `JournalClosed`, and is not there (I1)."""
    storage = MemoryStorage()
    journal = await opened(
        storage, Config(partition="orders", items_per_section=7, codec=BytesCodec(), write_buffer=50)
    )
    told: dict[int, bytes] = {}

    async def append(number: int) -> None:
        for step in range(20):
            item = b"%d.%d" % (number, step)
            told[await journal.append(item)] = item
            await turns(number)

    tasks = [asyncio.create_task(append(number)) for number in range(5)]
    await turns(20)
    await journal.close()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} <= {JournalClosed, type(None)}
    assert JournalClosed in {type(outcome) for outcome in outcomes}
    async with await opened(storage, journal.config) as found:
        assert dict(enumerate(await all_items(found))) == told


async def test_a_replay_of_a_journal_that_is_closed_raises() -> None:
    """It does not go on, and does not end as if it had come to its end."""
    journal = await opened(MemoryStorage())
    await journal.append_many([b"%d" % number for number in range(10)])
    stream = journal.replay(0, 9)
    assert await anext(stream) == (0, b"0")
    await journal.close()
    with pytest.raises(JournalClosed):
        await anext(stream)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


# Only where it was opened.

CALLS: dict[str, Callable[[Journal[bytes]], Any]] = {
    "append": lambda journal: journal.append(b"x"),
    "append_many": lambda journal: journal.append_many([b"x"]),
    "read": lambda journal: journal.read(0),
    "read_many": lambda journal: journal.read_many([0]),
    "replay": lambda journal: journal.replay(0),
    "replay_batches": lambda journal: journal.replay_batches(0),
    "prune": lambda journal: journal.prune(0),
    "rewind": lambda journal: journal.rewind(0),
    "sync_data": lambda journal: journal.sync_data(),
    "sync": lambda journal: journal.sync(),
    "size": lambda journal: journal.size(),
    "oldest_retained_pos": lambda journal: journal.oldest_retained_pos(),
    "bounds": lambda journal: journal.bounds(),
    "durable_size": lambda journal: journal.durable_size(),
    "close": lambda journal: journal.close(),
    "aclose": lambda journal: journal.aclose(),
    "destroy": lambda journal: journal.destroy(),
    "aenter": lambda journal: journal.__aenter__(),
}


def outcome_of(call: Callable[[Journal[bytes]], Any], journal: Journal[bytes]) -> BaseException | None:
    """Make a call without an event loop of its own; it must not get as far as waiting."""
    try:
        result = call(journal)
        if asyncio.iscoroutine(result):
            try:
                result.send(None)
            finally:
                result.close()
    except BaseException as error:  # noqa: BLE001 - whatever it is
        return error
    return None


def test_every_public_method_is_among_the_calls() -> None:
    """A method that is added is tested too."""
    public = {name for name in vars(Journal) if not name.startswith("_") and callable(getattr(Journal, name))}
    assert public - {"init", "init_at_size", "init_sync", "open", "commit"} <= set(CALLS)


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_from_another_thread_raises_at_once(name: str) -> None:
    """It does not touch what the loop's own thread is at (I4)."""
    async with await opened(MemoryStorage()) as journal:
        await journal.append(b"item")
        outcomes = []
        thread = threading.Thread(target=lambda: outcomes.append(outcome_of(CALLS[name], journal)))
        thread.start()
        thread.join()
        assert type(outcomes[0]) is RuntimeError
        assert journal.size() == 1


@pytest.mark.parametrize("name", CALLS)
def test_a_call_from_another_loop_raises_at_once(name: str) -> None:
    """It does so also in the thread that the journal was opened in, while its own loop is not running (I4)."""

    async def call() -> BaseException | None:
        return outcome_of(CALLS[name], journal)

    with asyncio.Runner() as own:
        journal = own.run(opened(MemoryStorage()))
        own.run(journal.append(b"item"))
        asyncio.set_event_loop(None)
        with asyncio.Runner() as other:
            assert type(other.run(call())) is RuntimeError
        own.run(journal.close())


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_after_a_fork_raises_at_once(name: str, tmp_path: Path) -> None:
    """A child has none of the threads that work for the journal, and must not write to its files (I4)."""
    async with await opened(FileStorage(tmp_path)) as journal:
        await journal.append(b"item")
        await journal.sync()
        files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # there are threads, and the child exits at once
            child = os.fork()
        if child == 0:  # pragma: no cover - in the child
            os._exit(0 if type(outcome_of(CALLS[name], journal)) is RuntimeError else 1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files
