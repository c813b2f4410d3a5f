"""`replay` and `replay_batches`: a snapshot, read ahead, that gives each item once and in order, or an error."""

import asyncio
import contextlib
import gc
import random
import tracemalloc
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from posjournal_async import (
    Context,
    Corruption,
    FileStorage,
    ItemOutOfRange,
    ItemPruned,
    Journal,
    JournalClosed,
    JournalError,
    MemoryStorage,
    Storage,
)
from posjournal_async.format.header import HEADER_LENGTH
from posjournal_async.format.record import RECORD_HEAD_LENGTH
from posjournal_async.testing import OrderingMonitor, RecordingStorage
from tests.handles import handles_below
from tests.journals import config_of, damage, files_below, filled, item_at, items_in, others_ended, reopened, streamed

T = TypeVar("T")

BUFFERS = [1, 2, 3, 9, 10, 100, 1_000, 256 * 1024, 2**40]


async def one_by_one(batches: AsyncGenerator[tuple[int, list[bytes]], None]) -> AsyncGenerator[tuple[int, bytes], None]:
    async for first, items in batches:
        for index, item in enumerate(items):
            yield first + index, item


async def collect(replay: AsyncGenerator[T, None], found: list[T]) -> JournalError | None:
    """Add what a replay still gives to `found`, and return the error that ends it, if one does."""
    try:
        async for given in replay:
            found.append(given)  # noqa: PERF401 - a comprehension would drop what came before an error
    except JournalError as error:
        return error
    return None


async def first_items(replay: AsyncGenerator[Any, None], count: int) -> list[Any]:
    return [await anext(replay) for _ in range(count)]


# What is given.


@pytest.mark.parametrize("buffer", BUFFERS)
@pytest.mark.parametrize("state", ["buffered", "synced", "reopened"])
async def test_a_replay_gives_every_item_from_any_start(context: Context, state: str, buffer: int) -> None:
    """Whatever the read-ahead and wherever the items are, each comes once and in order, one by one or in lists."""
    journal = await filled(context, 35)
    if state == "synced":
        await journal.sync()
    if state == "reopened":
        journal = await reopened(journal, max_open_blobs=1)
    for start in (0, 1, 9, 10, 11, 29, 30, 31, 34, 35):
        assert await streamed(journal.replay(start, buffer)) == items_in(range(start, 35))
        assert await streamed(one_by_one(journal.replay_batches(start, buffer))) == items_in(range(start, 35))
    await journal.close()


async def test_a_replay_from_the_middle_gives_the_rest(context: Context) -> None:
    """15 items replayed from 7 are exactly those from 7 to 15."""
    async with await filled(context, 15) as journal:
        assert await streamed(journal.replay(7)) == items_in(range(7, 15))


async def test_a_replay_that_starts_at_the_size_is_empty(context: Context) -> None:
    """There is nothing yet, which is no error; so it is in a new journal, and where everything was pruned."""
    async with await filled(context, 10) as journal:
        assert await streamed(journal.replay(10)) == []
        assert await streamed(journal.replay_batches(10)) == []
        await journal.prune(10)
        assert await streamed(journal.replay(10)) == []


@pytest.mark.parametrize("way", ["replay", "replay_batches"])
async def test_bounds_are_checked_by_the_call(context: Context, way: str) -> None:
    """A start that is not there is refused before anything is awaited."""
    async with await filled(context, 25) as journal:
        await journal.prune(10)
        replay = getattr(journal, way)
        with pytest.raises(ItemOutOfRange) as beyond:
            replay(26)
        assert (beyond.value.position, beyond.value.size) == (26, 25)
        with pytest.raises(ItemPruned) as before:
            replay(9)
        assert (before.value.position, before.value.oldest) == (9, 10)


async def test_a_replay_may_start_in_the_unsynced_tail(context: Context) -> None:
    """What is only in the buffer is replayed like everything else, and stays unsynced."""
    async with await filled(context, 18) as journal:
        assert journal.durable_size() == 10
        for start in range(11, 19):
            assert await streamed(journal.replay(start, 9)) == items_in(range(start, 18))
        assert journal.durable_size() == 10


async def test_a_replay_crosses_from_files_to_what_is_in_flight(context: Context) -> None:
    """A tail that is partly written and partly buffered is replayed without a seam."""
    async with await filled(context, 4) as journal:
        await journal.sync_data()
        for position in range(4, 8):
            await journal.append(item_at(position))
        syncing = asyncio.create_task(journal.sync_data())
        await asyncio.sleep(0)
        await journal.append(item_at(8))
        for buffer in BUFFERS:
            assert await streamed(journal.replay(0, buffer)) == items_in(range(9))
        await syncing


@pytest.mark.parametrize("buffer", [1, 30, 3_000, 2**20])
async def test_items_larger_than_the_buffer_are_given(context: Context, buffer: int) -> None:
    """The read-ahead grows to the size of one item where it must, and the small ones around it come too."""
    items = [b"", b"x" * 5_000, b"y", bytes(300_000), b"", b"z" * 70]
    async with await Journal.init(context, config_of(4)) as journal:
        await journal.append_many(items)
        assert await streamed(journal.replay(0, buffer)) == [*enumerate(items)]
        await journal.sync()
        assert await streamed(journal.replay(0, buffer)) == [*enumerate(items)]


@pytest.mark.parametrize("compression", [None, 1])
async def test_items_of_some_mebibytes_are_found_wherever_they_are(context: Context, compression: int | None) -> None:
    """In memory, in the last section and in a sealed one, with and without an index, and by opening (A1)."""
    chance = random.Random(7)
    large = [chance.randbytes(2**21 + number) + bytes(10_000) for number in range(3)]
    items = [b"first", large[0], b"", large[1], b"middle", large[2], b"last"]
    for items_per_section in (3, 7, 8):
        config = config_of(items_per_section, compression=compression, partition=f"orders-{items_per_section}")
        async with await Journal.init(context, config) as journal:
            await journal.append_many(items)
            for _ in range(2):
                assert await streamed(journal.replay(0, 1_000)) == [*enumerate(items)]
                assert [await journal.read(position) for position in range(7)] == items
                await journal.sync()
        async with await Journal.init(context, config) as journal:
            assert journal.recovery.clean
            assert await streamed(one_by_one(journal.replay_batches(0, 1_000))) == [*enumerate(items)]
            assert [await journal.read(position) for position in range(7)] == items


@pytest.mark.parametrize("buffer", [1, 100, 2**20])
async def test_lists_are_never_empty_and_never_cross_a_section(context: Context, buffer: int) -> None:
    """Each list has an item at least, and all of one section."""
    async with await filled(context, 35) as journal:
        batches = await streamed(journal.replay_batches(3, buffer))
        for first, items in batches:
            assert items
            assert first // 10 == (first + len(items) - 1) // 10
        if buffer == 2**20:
            assert [first for first, _ in batches] == [3, 10, 20, 30]


async def test_what_is_decoded_in_one_go_does_not_grow_with_the_buffer(context: Context) -> None:
    """Others may run in between, and a storage that waits for each read is asked less often all the same (F7)."""
    chance = random.Random(3)
    lengths = [*chance.choices(range(2_000), k=3_000), 300_000, 5, 2**21, *chance.choices(range(2_000), k=1_000)]
    items = [bytes([chance.randrange(256)]) * length for length in lengths]
    recording = RecordingStorage(context.storage)
    context = Context(recording)
    config = config_of(2_500)
    async with await Journal.init(context, config) as journal:
        await journal.append_many(items)
    reads: dict[int, int] = {}
    async with await Journal.init(context, config) as journal:
        await streamed(journal.replay(0, 1))  # what it opens is open from here on
        for buffer in (100_000, 256 * 1024, 2**20, 2**40):
            recording.events.clear()
            lists = await streamed(journal.replay_batches(0, buffer))
            reads[buffer] = len(recording.calls(lambda call: call.what == "read_at"))
            assert [item for _, found in lists for item in found] == items
            assert all(sum(map(len, found)) - max(map(len, found)) <= 128 * 1024 for _, found in lists)
            assert await streamed(journal.replay(1_234, buffer)) == [*enumerate(items)][1_234:]
    if isinstance(recording.inner, MemoryStorage):
        assert reads[2**40] < reads[2**20] < reads[100_000]


async def test_a_replay_starts_where_the_journal_does(context: Context) -> None:
    """A journal that started inside a section is replayed from there."""
    journal = await Journal.init_at_size(context, config_of(5), 7)
    await journal.append_many([item_at(position) for position in range(7, 18)])
    journal = await reopened(journal)
    for start in range(7, 19):
        assert await streamed(journal.replay(start, 40)) == items_in(range(start, 18))
    await journal.close()


# A snapshot.


async def test_later_appends_are_not_in_a_replay(context: Context) -> None:
    """What a replay gives was there when it was called, not when it is read."""
    async with await filled(context, 12) as journal:
        replay = journal.replay(0, 30)
        empty = journal.replay(12)
        await journal.append(item_at(12))
        assert await first_items(replay, 5) == items_in(range(5))
        await journal.append_many([item_at(position) for position in range(13, 40)])
        assert await streamed(replay) == items_in(range(5, 12))
        assert await streamed(empty) == []


async def test_replays_beside_appends_give_what_was_there(context: Context) -> None:
    """Any number of replays at once, beside appends and syncs, each give their own snapshot."""
    async with await Journal.init(context, config_of(7, max_open_blobs=2)) as journal:
        checked = 0

        async def append_all() -> None:
            for position in range(150):
                await journal.append(item_at(position))
                if position % 11 == 0:
                    await journal.sync_data()

        async def replay_all_the_time(buffer: int) -> None:
            nonlocal checked
            while journal.size() < 150:
                size = journal.size()
                assert await streamed(journal.replay(0, buffer)) == items_in(range(size))
                checked += 1
                await asyncio.sleep(0)

        await asyncio.gather(append_all(), *(replay_all_the_time(buffer) for buffer in (1, 50, 100_000)))
        assert checked >= 3


@pytest.mark.parametrize("buffer", [1, 60, 2**20])
@pytest.mark.parametrize("given", [0, 1, 15, 34])
@pytest.mark.parametrize("boundary", [10, 20, 30])
async def test_a_prune_below_a_replay_lets_it_go_on_or_ends_it(
    context: Context, boundary: int, given: int, buffer: int
) -> None:
    """The items keep coming in order, or the first that is gone is `ItemPruned`, after which there are no more."""
    async with await filled(context, 35) as journal:
        replay = journal.replay(0, buffer)
        found = await first_items(replay, given)
        assert await journal.prune(boundary) is True
        error = await collect(replay, found)
        if error is None:
            assert len(found) == 35
        else:
            assert isinstance(error, ItemPruned)
            assert error.position == len(found) < boundary
        assert found == items_in(range(len(found)))
        assert await streamed(replay) == []


@pytest.mark.parametrize("way", ["replay", "replay_batches"])
async def test_a_prune_below_what_was_given_already_changes_nothing(context: Context, way: str) -> None:
    """Only items that are still to come can be missed."""
    async with await filled(context, 35) as journal:
        replay = getattr(journal, way)(20, 1)
        await anext(replay)
        assert await journal.prune(20) is True
        assert len(await streamed(replay)) == 14


@pytest.mark.parametrize("buffer", [1, 60, 2**20])
@pytest.mark.parametrize("given", [0, 1, 11, 15, 29])
@pytest.mark.parametrize("size", [0, 5, 10, 12, 15, 20, 29])
async def test_a_rewind_into_a_replay_ends_it(context: Context, size: int, given: int, buffer: int) -> None:
    """No discarded item is given after the rewind, and none of the new history: then comes the error, and the end."""
    async with await filled(context, 30) as journal:
        replay = journal.replay(0, buffer)
        found = await first_items(replay, given)
        await journal.rewind(size)
        await journal.append_many([item_at(position, 1) for position in range(size, 30)])
        assert isinstance(await collect(replay, found), ItemOutOfRange)
        assert found == items_in(range(max(given, len(found))))
        assert len(found) <= max(given, size)
        assert await streamed(replay) == []
        history = items_in(range(size)) + items_in(range(size, 30), 1)
        assert await streamed(journal.replay(0, buffer)) == history


@pytest.mark.parametrize("buffer", [1, 60, 2**20])
@pytest.mark.parametrize("size", [0, 5, 12, 29])
async def test_a_rewind_into_a_replay_ends_it_in_lists_too(context: Context, size: int, buffer: int) -> None:
    """Lists hold old items only, and none of the new history ever."""
    async with await filled(context, 30) as journal:
        replay = journal.replay_batches(0, buffer)
        first, items = await anext(replay)
        found = [*enumerate(items, first)]
        given = len(found)
        await journal.rewind(size)
        await journal.append_many([item_at(position, 1) for position in range(size, 30)])
        assert isinstance(await collect(one_by_one(replay), found), ItemOutOfRange)
        assert found == items_in(range(len(found)))
        assert len(found) <= max(given, size)


async def test_a_rewind_above_a_replay_leaves_it_alone(context: Context) -> None:
    """A rewind that discards only what came after the snapshot is none of its business."""
    async with await filled(context, 12) as journal:
        replay = journal.replay(0, 20)
        await anext(replay)
        await journal.append_many([item_at(position, 1) for position in range(12, 40)])
        await journal.rewind(12)
        assert await streamed(replay) == items_in(range(1, 12))


@pytest.mark.parametrize("ending", ["close", "destroy"])
@pytest.mark.parametrize("buffer", [1, 60, 2**20])
@pytest.mark.parametrize("given", [0, 3])
@pytest.mark.parametrize("items_per_section", [10, 100])
async def test_a_replay_in_progress_ends_with_the_journal(
    context: Context, items_per_section: int, given: int, buffer: int, ending: str
) -> None:
    """The next item of a replay is `JournalClosed` when the journal was closed or destroyed, and there are no more."""
    journal = await filled(context, 25, config_of(items_per_section))
    await journal.sync()
    replays: list[AsyncGenerator[Any, None]] = [journal.replay(0, buffer), journal.replay_batches(0, buffer)]
    await first_items(replays[0], given)
    await first_items(replays[1], given if buffer == 1 else 0)  # a large list may be all there is
    await getattr(journal, ending)()
    for replay in replays:
        assert isinstance(await collect(replay, []), JournalClosed)
        assert await streamed(replay) == []
    if ending == "destroy":
        assert await context.storage.scan("orders_data") == []


async def test_a_replay_closes_the_sections_that_it_opened(tmp_path: Path) -> None:
    """However long the journal, it leaves no more open than was open before; what others read stays open (F7)."""
    journal = await reopened(await filled(Context(FileStorage(tmp_path)), 95))
    await journal.read(33)
    before = sorted(handles_below(tmp_path))
    assert await streamed(journal.replay(0)) == items_in(range(95))
    await others_ended()
    assert sorted(handles_below(tmp_path)) == before
    await journal.close()


async def test_a_replay_that_goes_on_after_the_end_touches_no_blob(tmp_path: Path) -> None:
    """Its next piece is at hand in a blob that was closed meanwhile, and must not be asked for."""
    monitor = OrderingMonitor(FileStorage(tmp_path))
    journal = await filled(Context(monitor), 25, config_of(100))
    await journal.sync()
    replay = journal.replay_batches(0, 60)
    await anext(replay)
    await journal.close()
    assert isinstance(await collect(replay, []), JournalClosed)
    monitor.check()


# Errors and ends.


@pytest.mark.parametrize("buffer", [1, 60, 2**20])
@pytest.mark.parametrize("index", [0, 4, 9])
@pytest.mark.parametrize("at", [0, 4, RECORD_HEAD_LENGTH])
async def test_a_damaged_record_ends_a_replay(storage: Storage, index: int, at: int, buffer: int) -> None:
    """The items before it come, then one error, then nothing: it is not repeated for ever (F5)."""
    await (await filled(Context(storage), 25)).close()
    offset = HEADER_LENGTH + sum(RECORD_HEAD_LENGTH + len(item_at(position)) for position in range(index))
    await damage(storage, 0, offset + at)
    async with await Journal.init(Context(storage), config_of()) as journal:
        replay = journal.replay(0, buffer)
        assert await first_items(replay, index) == items_in(range(index))
        with pytest.raises(Corruption) as found:
            await anext(replay)
        assert (found.value.partition, found.value.section, found.value.position) == ("orders_data", 0, index)
        with pytest.raises(StopAsyncIteration):
            await anext(replay)
        assert await streamed(journal.replay(index + 1, buffer)) == items_in(range(index + 1, 25))


async def test_a_damaged_record_is_left_as_it_is(tmp_path: Path) -> None:
    """A replay that meets corruption changes no file."""
    storage = FileStorage(tmp_path)
    await (await filled(Context(storage), 25)).close()
    await damage(storage, 0, HEADER_LENGTH)
    async with await Journal.init(Context(storage), config_of()) as journal:
        before = files_below(tmp_path)
        with pytest.raises(Corruption):
            await streamed(journal.replay(0))
        assert files_below(tmp_path) == before


@pytest.mark.parametrize("given", [0, 1, 5])
async def test_abandoned_replays_leave_nothing_behind(context: Context, given: int) -> None:
    """A thousand replays, dropped at any item, leave no task, no handle and no reader behind."""
    journal = await reopened(await filled(context, 40), max_open_blobs=1)
    for number in range(1_000):
        count = 0
        async for position, item in journal.replay(number % 35, 60):
            if count == given:
                break
            assert item == item_at(position)
            count += 1
    gc.collect()
    await journal.prune(30)
    assert await streamed(journal.replay(30)) == items_in(range(30, 40))
    await journal.close()


async def test_cancelled_replays_leave_nothing_behind(context: Context) -> None:
    """A replay may be cancelled at any of its suspensions; the journal goes on."""
    journal = await reopened(await filled(context, 40), max_open_blobs=1)
    for suspensions in range(100):
        replaying = asyncio.create_task(streamed(journal.replay(0, 30)))
        for _ in range(suspensions):
            await asyncio.sleep(0)
        replaying.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            assert await replaying == items_in(range(40))
    assert await streamed(journal.replay(0)) == items_in(range(40))
    await journal.close()


async def test_a_closed_replay_gives_nothing_more(context: Context) -> None:
    """`aclose` ends a replay as it does any generator."""
    async with await filled(context, 25) as journal:
        replay = journal.replay(0, 30)
        await anext(replay)
        await replay.aclose()
        assert await streamed(replay) == []


async def test_memory_is_bounded_by_the_buffer(tmp_path: Path) -> None:
    """A replay holds about its buffer, however long the journal is (F7)."""
    async with await Journal.init(Context(FileStorage(tmp_path)), config_of(2_000)) as journal:
        await journal.append_many([b"%1000d" % position for position in range(16_000)])
        buffer = 120_000
        tracemalloc.start()
        try:
            count = 0
            async for position, item in journal.replay(0, buffer):
                assert int(item) == position
                count += 1
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert count == 16_000
        assert peak < 4 * buffer


async def test_an_item_larger_than_the_buffer_is_held_three_times_at_most(tmp_path: Path) -> None:
    """As bytes of the blob that were fetched, put together and cut out; its record is not made again (F7)."""
    length = 8 * 2**20
    async with await Journal.init(Context(FileStorage(tmp_path)), config_of(10)) as journal:
        for _ in range(3):
            await journal.append(bytes(length))
        await journal.sync()
        tracemalloc.start()
        try:
            lengths = [len(item) async for _, item in journal.replay(0)]
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert lengths == [length] * 3
        assert peak < 4.5 * length, "three, and the item before, which its consumer may still have"
