"""A journal whose storage fails says so and stops, and opening it again finds what was acknowledged."""

from __future__ import annotations

import asyncio
import errno
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from posjournal_async import (
    BytesCodec,
    Config,
    Context,
    FileStorage,
    Journal,
    JournalError,
    JournalFailed,
    JournalLocked,
    MemoryStorage,
    StorageError,
)
from posjournal_async.testing import FaultyStorage, GatedStorage, RecordingStorage
from posjournal_async.testing.wrapping import is_data_sync

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from posjournal_async import Storage

IPS = 4
CONFIG = Config(partition="orders", items_per_section=IPS, codec=BytesCodec(), max_open_blobs=1)

# Longer than any run below; a run that never completes is a defect of its own.
MOST_CALLS = 500

KINDS: dict[str, dict[str, Any]] = {
    "EIO once": {"code": errno.EIO, "once": True},
    "EIO for ever": {"code": errno.EIO, "once": False},
    "ENOSPC for ever": {"code": errno.ENOSPC, "once": False},
    "ENOSPC once, half written": {"code": errno.ENOSPC, "once": True, "keep": 0.5},
    "ENOSPC for ever, half written": {"code": errno.ENOSPC, "once": False, "keep": 0.5},
    "EIO once, all written": {"code": errno.EIO, "once": True, "keep": 1.0},
}


@dataclass
class Run:
    """A journal's life, and what of it was acknowledged.

    Attributes:
        items: What each position was given, from 0.
        unsure: Items of an append that has not returned: any prefix of them may be there.
        least: Smallest size that opening again may find.
        boundaries: Pruning boundaries that it may find.
    """

    journal: Journal[bytes]
    items: list[bytes] = field(default_factory=list)
    unsure: list[bytes] = field(default_factory=list)
    least: int = 0
    boundaries: set[int] = field(default_factory=lambda: {0})
    made: int = 0

    def make(self, count: int) -> list[bytes]:
        """Make items, each unlike all others and of another length than its neighbours."""
        self.made += count
        return [b"%d:" % number + b"x" * (number % 5) for number in range(self.made - count, self.made)]

    async def append(self) -> None:
        self.unsure = self.make(1)
        position = await self.journal.append(self.unsure[0])
        assert position == len(self.items)
        self._appended()

    async def append_many(self) -> None:
        self.unsure = self.make(9)
        last = await self.journal.append_many(self.unsure)
        assert last == len(self.items) + 8
        self._appended()

    def _appended(self) -> None:
        self.items += self.unsure
        self.unsure = []
        self.least = max(self.least, len(self.items) // IPS * IPS)

    async def sync_data(self) -> None:
        await self.journal.sync_data()
        self.least = len(self.items)

    async def sync(self) -> None:
        await self.journal.sync()
        self.least = len(self.items)

    async def prune(self) -> None:
        boundary = min(self.boundaries) + IPS
        self.boundaries.add(boundary)
        assert await self.journal.prune(boundary + 1)
        self.boundaries = {boundary}
        self.least = len(self.items)

    async def rewind_in_the_tail(self) -> None:
        assert len(self.items) % IPS > 1
        await self._rewind(len(self.items) - 1)

    async def rewind_into_a_sealed_section(self) -> None:
        assert len(self.items) % IPS != 1
        await self._rewind(len(self.items) // IPS * IPS - 1)

    async def _rewind(self, size: int) -> None:
        self.least = min(self.least, size)
        await self.journal.rewind(size)
        del self.items[size:]
        self.least = size

    async def close(self) -> None:
        await self.journal.close()
        self.least = len(self.items)

    async def read(self) -> None:
        for position in self.journal.bounds():
            assert await self.journal.read(position) == self.items[position]

    async def replay(self) -> None:
        start = self.journal.bounds().start
        found = [pair async for pair in self.journal.replay(start)]
        assert found == list(enumerate(self.items))[start:]

    def steps(self) -> list[Callable[[], Awaitable[None]]]:
        return [
            *[self.append] * 3,
            self.sync_data,
            self.append_many,
            *[self.append] * 2,
            self.sync,
            self.read,
            self.prune,
            self.rewind_in_the_tail,
            self.append_many,
            self.rewind_into_a_sealed_section,
            *[self.append] * 3,
            self.sync_data,
            self.append,
            self.replay,
            self.prune,
            self.append,
            self.close,
        ]

    async def check(self, found: Journal[bytes]) -> None:
        """Look that a journal holds what was acknowledged, in order, and nothing else."""
        bounds = found.bounds()
        assert bounds.start in self.boundaries
        assert self.least <= bounds.stop <= len(self.items) + len(self.unsure)
        history = list(enumerate(self.items + self.unsure))[: bounds.stop]
        assert [pair async for pair in found.replay(bounds.start)] == history[bounds.start :]


async def run_until_a_step_fails(run: Run, faulty: FaultyStorage) -> Callable[[], Awaitable[None]] | None:
    """Take all steps; return the one that failed, after which the journal must be failed too, or None.

    A step may also be told that what another one had left to be done behind the scenes failed.
    """
    for step in run.steps():
        try:
            await step()
        except JournalFailed:
            assert faulty.has_failed
            return step
        except StorageError:
            assert faulty.has_failed
            if step in {run.read, run.replay}:
                continue  # a failed read changes nothing, so it breaks nothing
            return step
    return None


async def check_that_it_has_failed(run: Run, *, code: int, reads_work: bool) -> None:
    """Look that a failed journal refuses every change for the same reason, and shows what is durable only."""
    journal = run.journal
    causes = []
    for change in (
        lambda: journal.append(b"late"),
        lambda: journal.append_many([b"late"]),
        journal.sync_data,
        journal.sync,
        lambda: journal.prune(journal.size()),
        lambda: journal.rewind(journal.bounds().start),
        journal.destroy,
    ):
        with pytest.raises(JournalFailed) as refused:
            await change()
        causes.append(refused.value.cause)
    assert isinstance(causes[0], StorageError)
    assert causes[0].errno == code
    assert all(cause is causes[0] for cause in causes)
    durable = journal.durable_size()
    assert durable >= run.least
    for position in range(journal.bounds().start, durable):
        with nullcontext() if reads_work else suppress(StorageError):
            assert await journal.read(position) == (run.items + run.unsure)[position]
    for position in range(max(durable, journal.bounds().start), journal.size()):
        with pytest.raises(JournalFailed):
            await journal.read(position)
    with pytest.raises(JournalFailed) as closing:
        await journal.close()
    assert closing.value.cause is causes[0]


async def fail_at(number: int, inner: Storage, kind: dict[str, Any]) -> bool:
    """Fail one call in a journal's life, check all there is to check, and say whether the life has so many calls."""
    faulty = FaultyStorage(inner, number, **kind)
    try:
        journal = await Journal.init(Context(faulty), CONFIG)
    except StorageError:
        assert faulty.has_failed
        run = None
    else:
        run = Run(journal)
        failed = await run_until_a_step_fails(run, faulty)
        if failed is None or failed == run.close:
            with suppress(JournalError):
                await journal.close()
        else:
            await check_that_it_has_failed(run, code=kind["code"], reads_work=kind["once"])
    async with await Journal.init(Context(inner), CONFIG) as found:
        if run is None:
            assert found.size() == 0
        else:
            await run.check(found)
        await found.append(b"on it goes")
        await found.sync()
    return faulty.has_failed


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
async def test_a_failure_of_any_call_loses_nothing_that_was_acknowledged(kind: dict[str, Any]) -> None:
    """Whichever call fails, the journal refuses changes, shows what is durable, and opens again with all of it (F1)."""
    for number in range(1, MOST_CALLS):
        if not await fail_at(number, MemoryStorage(), kind):
            assert number > 100, "the life has become too short to show anything"
            return
    pytest.fail("the run does not complete")


async def test_a_failure_of_any_call_on_files_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """The same holds where bytes are written and synced in one call (F1)."""
    for number in range(1, MOST_CALLS):
        if not await fail_at(number, FileStorage(tmp_path / str(number)), KINDS["EIO once"]):
            assert number > 100, "the life has become too short to show anything"
            return
    pytest.fail("the run does not complete")


@pytest.mark.parametrize("once", [True, False])
async def test_a_failure_inside_an_opening_leaves_what_was_there(once: bool) -> None:  # noqa: FBT001 - parameter
    """An opening that fails releases the lock, and the next one finds everything (F1)."""
    inner = MemoryStorage()
    async with await Journal.init(Context(inner), CONFIG) as journal:
        await journal.append_many([b"%d" % number for number in range(10)])
        await journal.prune(5)
    for number in range(1, MOST_CALLS):
        faulty = FaultyStorage(inner, number, once=once)
        try:
            journal = await Journal.init(Context(faulty), CONFIG)
        except StorageError:
            assert faulty.has_failed
            continue
        faulty.fail_at = 0
        assert [item async for _, item in journal.replay(4)] == [b"%d" % number for number in range(4, 10)]
        await journal.close()
        assert number > 5
        return
    pytest.fail("the opening does not complete")


async def test_a_failed_init_at_size_leaves_the_old_journal_or_the_new_one() -> None:
    """Whichever call of a reset fails, the next open finds all of the old items, or the new size and none (F1)."""
    for number in range(1, MOST_CALLS):
        inner = MemoryStorage()
        async with await Journal.init(Context(inner), CONFIG) as journal:
            await journal.append_many([b"%d" % number for number in range(10)])
        faulty = FaultyStorage(inner, number)
        with suppress(StorageError):
            journal = await Journal.init_at_size(Context(faulty), CONFIG, 33)
            if not faulty.has_failed:
                await journal.close()
                assert number > 5
                return
            await journal.close()
        async with await Journal.init(Context(inner), CONFIG) as found:
            assert found.bounds() in {range(10), range(33, 33)}
            assert [item async for _, item in found.replay(found.bounds().start)] == [
                b"%d" % number for number in found.bounds()
            ]
    pytest.fail("the reset does not complete")


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
