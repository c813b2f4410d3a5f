"""A journal whose storage fails says so to everybody who waits, and stops; `tests/faults` lets every call fail."""

from __future__ import annotations

import asyncio
from errno import EIO
from typing import TYPE_CHECKING, Any

import pytest

from posjournal_async import (
    BytesCodec,
    Config,
    Context,
    Journal,
    JournalFailed,
    JournalLocked,
    MemoryStorage,
    StorageError,
)
from posjournal_async.testing import FaultyStorage, GatedStorage, RecordingStorage
from posjournal_async.testing.wrapping import is_data_sync

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

CONFIG = Config(partition="orders", items_per_section=4, codec=BytesCodec(), max_open_blobs=1)

# A failed fsync.


async def test_a_failed_fsync_fails_everybody_who_waits_and_is_never_tried_again() -> None:
    """The group that it served, and the group that gathered meanwhile, get the error; no sync follows (F2)."""
    recorder = RecordingStorage(MemoryStorage())
    gated = GatedStorage(recorder)
    faulty = FaultyStorage(gated, 2, only=is_data_sync)  # the first one is that of the header
    journal = await Journal.init(Context(faulty), CONFIG)
    gated.hold(lambda call: call.what == "write_at" and call.partition == "orders_data" and call.offset > 0)

    async def commit(item: bytes) -> None:
        await journal.append(item)
        await journal.sync_data()

    group = [asyncio.create_task(commit(b"first")), asyncio.create_task(commit(b"second"))]
    await gated.until_held()
    late = asyncio.create_task(commit(b"third"))
    await asyncio.sleep(0)
    gated.let_all_go()
    outcomes = await asyncio.gather(*group, late, return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [StorageError] * 3
    assert journal.durable_size() == 0
    for _ in range(3):
        with pytest.raises(JournalFailed):
            await journal.sync_data()
        with pytest.raises(JournalFailed):
            await journal.read(0)
    with pytest.raises(JournalFailed):
        await journal.close()
    assert len(recorder.calls(is_data_sync)) == 1, "only the header was synced by the storage below"
    assert faulty.count == 2


async def test_waiters_get_errors_of_their_own() -> None:
    """Each of many waiters raises an exception of its own, so that none collects the tracebacks of the others (F1)."""
    faulty = FaultyStorage(MemoryStorage(), 2, only=is_data_sync)
    journal = await Journal.init(Context(faulty), CONFIG)
    await journal.append(b"item")
    outcomes = await asyncio.gather(*(journal.sync_data() for _ in range(5)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {StorageError}
    assert len({id(outcome) for outcome in outcomes}) == 5
    with pytest.raises(JournalFailed):
        await journal.close()


class OfABackend(StorageError):
    """An error of somebody's backend, made of other things than its base: copying it raises."""

    def __init__(self, *, region: str) -> None:
        super().__init__("orders_data", None, EIO, "put")
        self.region = region


class Broken(MemoryStorage):
    """Raises such an error from the second blob that it makes on."""

    count = 0

    async def open(self, partition: str, name: bytes) -> tuple[Any, int]:
        if partition == "orders_data":
            self.count += 1
            if self.count > 1:
                raise OfABackend(region="north")
        return await super().open(partition, name)


@pytest.mark.parametrize("what", ["sync_data", "sync", "prune", "rewind", "append", "close"])
async def test_an_error_that_cannot_be_copied_keeps_nobody_waiting(what: str) -> None:
    """Whoever waits when the journal fails is told so, whatever the backend has raised (F1)."""
    journal = await Journal.init(Context(Broken()), CONFIG)
    await journal.append_many([b"item"] * 3)
    await journal.sync()
    filling = asyncio.create_task(journal.append_many([b"item"] * 2))
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "sync_data": journal.sync_data,
        "sync": journal.sync,
        "prune": lambda: journal.prune(4),
        "rewind": lambda: journal.rewind(1),
        "append": lambda: journal.append_many([b"item"] * 2_000),
        "close": journal.close,
    }
    async with asyncio.timeout(30):
        assert await filling == 4
        with pytest.raises(JournalFailed) as failed:
            await calls[what]()
        assert isinstance(failed.value.cause, OfABackend)
        with pytest.raises(JournalFailed):
            await journal.close()


async def test_appends_that_wait_for_room_are_refused_when_the_write_fails() -> None:
    """Those in the queue took no position, and learn that the journal has failed (F1)."""
    gated = GatedStorage(MemoryStorage())
    faulty = FaultyStorage(gated, 1, only=lambda call: call.what == "write_at" and call.offset > 64)
    config = Config(partition="orders", codec=BytesCodec(), write_buffer=1)
    journal = await Journal.init(Context(faulty), config)
    await journal.append(b"first")
    await journal.sync_data()
    await journal.append(b"second")
    waiting = [asyncio.create_task(journal.append(b"more")) for _ in range(4)]
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {JournalFailed}
    assert journal.size() == 2
    assert await journal.read(0) == b"first"
    with pytest.raises(JournalFailed):
        await journal.read(1)
    with pytest.raises(JournalFailed):
        await journal.close()


async def test_a_replay_of_a_failed_journal_ends_where_durability_ends() -> None:
    """What is durable is given out, also by a replay that began before; what is not raises (F1)."""
    faulty = FaultyStorage(MemoryStorage())
    journal = await Journal.init(Context(faulty), Config(partition="orders", codec=BytesCodec()))
    await journal.append_many([b"0", b"1"])
    await journal.sync_data()
    await journal.append_many([b"2", b"3"])
    before = journal.replay(0)
    faulty.fail_at = faulty.count + 1
    with pytest.raises(StorageError):
        await journal.sync_data()
    for stream in (before, journal.replay(0)):
        found = []
        with pytest.raises(JournalFailed):  # noqa: PT012 - what came before the error counts
            async for _, item in stream:
                found.append(item)
        assert found == [b"0", b"1"]
    with pytest.raises(JournalFailed):
        await journal.close()


async def test_a_replay_ends_where_durability_ended_though_more_became_durable() -> None:
    """A commit that an interrupted writer left under way finishes behind the scenes; the replay tells why it ends."""
    faulty = FaultyStorage(MemoryStorage())
    journal = await Journal.init(Context(faulty), Config(partition="orders", codec=BytesCodec()))
    await journal.append_many([b"0", b"1"])
    await journal.sync_data()
    await journal.append_many([b"2", b"3"])
    stream = journal.replay(0)
    assert await anext(stream) == (0, b"0")
    faulty.fail_at = faulty.count + 1
    with pytest.raises(StorageError):
        await journal.sync_data()
    journal._writer._became_durable(4)
    assert await anext(stream) == (1, b"1")
    with pytest.raises(JournalFailed):
        await anext(stream)
    assert await journal.read(3) == b"3"
    with pytest.raises(JournalFailed):
        await journal.close()


# Leaving `async with`.


async def test_leaving_async_with_raises_what_closing_raises() -> None:
    """A journal that cannot be made durable does not leave silently."""
    faulty = FaultyStorage(MemoryStorage())
    with pytest.raises(StorageError):  # noqa: PT012 - leaving the block is what raises
        async with await Journal.init(Context(faulty), CONFIG) as journal:
            await journal.append(b"item")
            faulty.fail_at = faulty.count + 1


@pytest.mark.parametrize("under_way", [KeyError("body"), asyncio.CancelledError(), KeyboardInterrupt()])
async def test_leaving_async_with_keeps_the_exception_under_way(under_way: BaseException) -> None:
    """The error of closing is a note on the exception that left the block, never in its place."""
    faulty = FaultyStorage(MemoryStorage())

    async def body() -> None:
        async with await Journal.init(Context(faulty), CONFIG) as journal:
            await journal.append(b"item")
            faulty.fail_at = faulty.count + 1
            raise under_way

    with pytest.raises(type(under_way)) as raised:
        await body()
    assert raised.value is under_way
    assert any("closing" in note for note in raised.value.__notes__)


async def test_closing_a_failed_journal_says_so_each_time_and_frees_the_lock() -> None:
    """Closing releases everything even if releasing fails, then tells why; closing again tells the same (F1, F6)."""
    inner = MemoryStorage()
    faulty = FaultyStorage(inner, once=False)
    journal = await Journal.init(Context(faulty), CONFIG)
    await journal.append(b"item")
    with pytest.raises(JournalLocked):
        await Journal.init(Context(inner), CONFIG)
    faulty.fail_at = faulty.count + 1
    with pytest.raises(StorageError):
        await journal.sync()
    for _ in range(2):
        with pytest.raises(JournalFailed):
            await journal.close()
    async with await Journal.init(Context(inner), CONFIG) as found:
        assert found.size() == 0


# Limits.


@pytest.mark.parametrize("at_once", [False, True], ids=["one by one", "at once"])
async def test_handles_of_sealed_sections_are_bounded(at_once: bool) -> None:  # noqa: FBT001 - parameter
    """However many sections are read by however many tasks, the number that is open follows the configuration (F7)."""
    recorder = RecordingStorage(MemoryStorage())
    config = Config(partition="orders", items_per_section=2, codec=BytesCodec(), max_open_blobs=3)
    async with await Journal.init(Context(recorder), config) as journal:
        await journal.append_many([b"%d" % number for number in range(81)])
        reads = [journal.read(position) for position in [*range(81), *range(0, 81, 7)]]
        found = await asyncio.gather(*reads) if at_once else [await read for read in reads]
        assert found[:81] == [b"%d" % number for number in range(81)]
    is_open = 0
    most = 0
    for event in recorder.events:
        if event.phase == "end" and event.call.partition == "orders_data":
            is_open += (event.call.what == "open") - (event.call.what == "close")
            most = max(most, is_open)
    assert is_open == 0
    # As many again may be on their way in or out, and there is the tail.
    assert 3 <= most <= 3 + 3 + 2
