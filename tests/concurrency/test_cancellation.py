"""Cancelling stops the waiting, never the work, wherever it strikes."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import random
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import aclosing, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import anyio
import pytest
from typing_extensions import override

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
    JournalLocked,
    MemoryStorage,
    StorageError,
)
from posjournal_async.journal import Opening
from posjournal_async.testing import Call, GatedStorage, OrderingMonitor, WrappedStorage
from posjournal_async.testing.suspensions import StrikeAt
from tests.effort import IS_LONG, effort
from tests.format.writer import read_journal
from tests.handles import handles_below
from tests.journals import limits_of

if TYPE_CHECKING:
    from pathlib import Path

    from posjournal_async import Storage
    from posjournal_async.storage.protocols import Blob

T = TypeVar("T")

SMALL = Config(partition="orders", items_per_section=4, codec=BytesCodec(), max_open_blobs=1)
NARROW = Config(partition="orders", items_per_section=4, codec=BytesCodec(), write_buffer=1)
WIDE = Config(partition="orders", items_per_section=1_000, codec=BytesCodec(), write_buffer=4_096)

# Calls that change something.
CHANGES = {"write_at", "write_durably_at", "sync", "resize", "remove", "remove_many"}

# More turns of the event loop, and more suspensions and calls, than any operation below takes on memory.
MOST_TURNS = 2_000

# How long a thread may take on a machine under load.
PATIENCE_SECONDS = 30

# Farther in the future than any test runs.
MANY_SECONDS = 1_000


@pytest.fixture(autouse=True, scope="module")
def _only_what_is_new_is_collected() -> Iterator[None]:
    """Make collecting cheap: it is done after each of many tests."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
async def _nothing_is_left_behind() -> AsyncIterator[None]:
    """Fail a test that leaves a task, or a failure that nobody looked at."""
    problems: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, problem: problems.append(problem))
    before = asyncio.all_tasks()
    yield
    for _ in range(100):
        await asyncio.sleep(0)
    gc.collect()
    assert not problems
    assert not asyncio.all_tasks() - before - {asyncio.current_task()}


# What is tried, and what was told.


@dataclass
class Ledger:
    """What a journal was given, and what it acknowledged.

    Attributes:
        config: How the journal is kept.
        tried: Items handed in.
        told: Positions that appends returned, with their items.
        least: What was told at or above this position may be gone, because a rewind was asked for; None if none was.
        boundary: Position below which a prune was asked for.
        may_be_gone: Whether the journal was to be destroyed.
    """

    config: Config[bytes] = SMALL
    tried: set[bytes] = field(default_factory=set)
    told: list[tuple[int, bytes]] = field(default_factory=list)
    least: int | None = None
    boundary: int = 0
    may_be_gone: bool = False

    def item(self) -> bytes:
        item = b"item %d" % len(self.tried)
        self.tried.add(item)
        return item

    async def append(self, journal: Journal[bytes]) -> None:
        item = self.item()
        self.told.append((await journal.append(item), item))

    async def append_many(self, journal: Journal[bytes], count: int) -> None:
        items = [self.item() for _ in range(count)]
        last = await journal.append_many(items)
        self.told += zip(range(last + 1 - count, last + 1), items, strict=True)

    async def check(self, journal: Journal[bytes]) -> None:
        """Look that what was told is there, and that everything there was handed in, once."""
        if self.may_be_gone and journal.size() == 0:
            return
        bounds = journal.bounds()
        found = dict([pair async for pair in journal.replay(bounds.start)])
        assert list(found) == list(bounds)
        assert len(set(found.values())) == len(found)
        assert set(found.values()) <= self.tried
        assert bounds.start in {0, self.boundary // self.config.items_per_section * self.config.items_per_section}
        for position, item in self.told:
            if position >= bounds.start and (self.least is None or position < self.least):
                assert found[position] == item


async def append(journal: Journal[bytes], ledger: Ledger) -> None:
    await ledger.append(journal)


async def append_beyond_the_room(journal: Journal[bytes], ledger: Ledger) -> None:
    for _ in range(3):
        await ledger.append(journal)


async def append_the_last_of_a_section(journal: Journal[bytes], ledger: Ledger) -> None:
    while journal.size() % ledger.config.items_per_section:
        await ledger.append(journal)


async def append_a_short_run_over_sections(journal: Journal[bytes], ledger: Ledger) -> None:
    await ledger.append_many(journal, 10)


async def append_a_run_that_is_encoded_in_parts(journal: Journal[bytes], ledger: Ledger) -> None:
    await ledger.append_many(journal, 600)


async def append_a_long_run(journal: Journal[bytes], ledger: Ledger) -> None:
    await ledger.append_many(journal, 1_100)


async def read_the_tail(journal: Journal[bytes], ledger: Ledger) -> None:
    for position in (12, 13):
        assert await journal.read(position) == ledger.told[position][1]


async def read_what_is_not_open(journal: Journal[bytes], ledger: Ledger) -> None:
    for position in (0, 4, 9):
        assert await journal.read(position) == ledger.told[position][1]


async def read_many(journal: Journal[bytes], ledger: Ledger) -> None:
    assert await journal.read_many(range(0, 14, 3)) == [item for _, item in ledger.told[0:14:3]]


async def replay_in_small_pieces(journal: Journal[bytes], ledger: Ledger) -> None:
    async with aclosing(journal.replay(0, 9)) as stream:
        async for position, item in stream:
            assert item in ledger.tried
            assert position >= 14 or ledger.told[position][1] == item


async def sync(journal: Journal[bytes], _: Ledger) -> None:
    await journal.sync()


async def sync_data(journal: Journal[bytes], _: Ledger) -> None:
    await journal.sync_data()


async def commit(journal: Journal[bytes], _: Ledger) -> None:
    await journal.commit()


async def prune(journal: Journal[bytes], ledger: Ledger) -> None:
    ledger.boundary = 9
    await journal.prune(9)


async def rewind(journal: Journal[bytes], ledger: Ledger) -> None:
    ledger.least = 6
    await journal.rewind(6)


async def leave(journal: Journal[bytes], ledger: Ledger) -> None:
    async with journal:
        await ledger.append(journal)


async def close(journal: Journal[bytes], _: Ledger) -> None:
    await journal.close()


async def destroy(journal: Journal[bytes], ledger: Ledger) -> None:
    ledger.may_be_gone = True
    await journal.destroy()


Operation: TypeAlias = Callable[[Journal[bytes], Ledger], Coroutine[Any, Any, None]]

OPERATIONS: dict[Operation, Config[bytes]] = {
    append: SMALL,
    append_beyond_the_room: NARROW,
    append_the_last_of_a_section: SMALL,
    append_a_short_run_over_sections: SMALL,
    append_a_run_that_is_encoded_in_parts: WIDE,
    append_a_long_run: WIDE,
    read_the_tail: SMALL,
    read_what_is_not_open: SMALL,
    read_many: SMALL,
    replay_in_small_pieces: SMALL,
    sync: SMALL,
    sync_data: SMALL,
    commit: SMALL,
    prune: SMALL,
    rewind: SMALL,
    leave: SMALL,
    close: SMALL,
    destroy: SMALL,
}

ENDINGS = {leave, close, destroy}


# The device.


class Device(WrappedStorage):
    """A storage that answers when it is told to, and that looks how its handles are used.

    Attributes:
        moments: Beginnings and ends of calls so far.
        at: Number of the moment, from 1, at which `strike` is called; 0 for none.
        strike: What to do then.
        misuses: What was closed or released although something was under way in it, or open below it.
        failures: Calls that were answered with an error.
        is_broken: Whether calls that would change something are.
    """

    def __init__(self, inner: Storage) -> None:
        super().__init__(inner)
        self.moments = 0
        self.at = 0
        self.strike: Callable[[], object] = lambda: None
        self.misuses: list[str] = []
        self.failures = 0
        self.is_broken = False
        self._answers = asyncio.Event()
        self._answers.set()
        self._under_way: Counter[Blob | bool | None] = Counter()
        self._open: set[Blob] = set()

    def stick(self) -> None:
        """Answer nothing until `go_on`, neither to calls under way nor to those that come."""
        self._answers.clear()

    def go_on(self) -> None:
        """Answer, and from now on at once."""
        self._answers.set()

    @override
    async def around(self, call: Call, go_on: Callable[[], Awaitable[T]]) -> T:
        if call.what == "close" and self._under_way[call.blob]:
            self.misuses.append(f"{call} while a call on it is under way")
        if call.what == "release" and (self._open or self._under_way.total() > self._under_way[True]):
            self.misuses.append(f"{call} while something is open: {self._open} {self._under_way}")
        holder = call.what == "lock" or call.blob  # who asks for the lock does not have it yet
        self._under_way[holder] += 1
        try:
            await self._pause()
            if self.is_broken and call.what in CHANGES:
                self.failures += 1
                raise StorageError(call.partition, call.name, errno.EIO, call.what)
            result: Any = await go_on()
            await self._pause()
        finally:
            self._under_way[holder] -= 1
        if call.what == "open":
            self._open.add(result[0])
        elif call.what == "close":
            self._open.discard(call.blob)
        return result  # type: ignore[no-any-return]

    async def _pause(self) -> None:
        self.moments += 1
        if self.moments == self.at:
            self.strike()
        await self._answers.wait()


# How it is cancelled.


@dataclass
class Strike:
    """When an operation is struck, and what else happens then.

    Attributes:
        number: Number of the moment, from 1.
        device: Strike when the storage is called or answers for this time; None for the suspensions of the operation.
        also: What happens just before.
        has_struck: Whether it was struck.
    """

    number: int
    device: Device | None = None
    also: Callable[[], object] = lambda: None
    has_struck: bool = False

    async def at(self, operation: Callable[[], Awaitable[None]], strike: Callable[[], object]) -> None:
        """Do the operation, and strike it when it is time."""

        def strike_now() -> None:
            self.has_struck = True
            self.also()
            strike()

        if self.device is None:
            await StrikeAt(operation(), self.number, strike_now)
            return
        self.device.at, self.device.strike = self.device.moments + self.number, strike_now
        try:
            await operation()
        finally:
            self.device.at = 0


async def by_cancel(operation: Callable[[], Awaitable[None]], strike: Strike) -> None:
    """Cancel a task, which is to end at once and as cancelled."""
    task = asyncio.ensure_future(strike.at(operation, lambda: task.cancel()))  # noqa: PLW0108 - there is none yet
    await asyncio.wait([task])
    assert not strike.has_struck or task.cancelled() or task.exception() is None
    if not task.cancelled():
        task.result()


async def by_cancelling_twice(operation: Callable[[], Awaitable[None]], strike: Strike) -> None:
    """Cancel a task, and again before it could see that."""
    task = asyncio.ensure_future(strike.at(operation, lambda: (task.cancel(), task.cancel())))
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()


async def by_cancelling_again(operation: Callable[[], Awaitable[None]], strike: Strike) -> None:
    """Cancel a task, and again in the next turn, when it may be cleaning up."""

    def cancel() -> None:
        task.cancel()
        asyncio.get_running_loop().call_soon(lambda: asyncio.get_running_loop().call_soon(task.cancel))

    task = asyncio.ensure_future(strike.at(operation, cancel))
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()


async def by_wait_for(operation: Callable[[], Awaitable[None]], strike: Strike) -> None:
    """Let the time of `wait_for` run out."""
    loop = asyncio.get_running_loop()
    time = loop.time
    ahead = 0

    def jump() -> None:
        nonlocal ahead
        ahead = 2 * MANY_SECONDS

    with pytest.MonkeyPatch.context() as patch, suppress(TimeoutError):
        patch.setattr(loop, "time", lambda: time() + ahead)
        await asyncio.wait_for(strike.at(operation, jump), MANY_SECONDS)


async def by_timeout(operation: Callable[[], Awaitable[None]], strike: Strike) -> None:
    """Let a deadline pass."""

    async def within_a_timeout() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(None) as timeout:
                await strike.at(operation, lambda: timeout.reschedule(0))

    await asyncio.ensure_future(within_a_timeout())


class Abort(Exception):
    """What a sibling raises."""


async def by_a_sibling(operation: Callable[[], Awaitable[None]], strike: Strike) -> None:
    """Let another task of the same group raise."""
    alarm = asyncio.Event()

    async def sibling() -> None:
        await alarm.wait()
        raise Abort

    with suppress(asyncio.CancelledError):
        try:
            async with asyncio.TaskGroup() as group:
                raising = group.create_task(sibling())
                working = group.create_task(strike.at(operation, alarm.set))
                working.add_done_callback(lambda _: None if strike.has_struck else raising.cancel())
        except* Abort:
            assert strike.has_struck


async def by_scope(operation: Callable[[], Awaitable[None]], strike: Strike) -> None:
    """Cancel a scope of anyio, which cancels what it holds again and again until it has left."""
    with anyio.CancelScope() as scope:
        await strike.at(operation, scope.cancel)


Way: TypeAlias = Callable[[Callable[[], Awaitable[None]], Strike], Coroutine[Any, Any, None]]

WAYS: list[Way] = [
    by_cancel,
    by_cancelling_twice,
    by_cancelling_again,
    by_wait_for,
    by_timeout,
    by_a_sibling,
    by_scope,
]


async def turns(count: int) -> None:
    """Let the event loop go round a number of times."""
    for _ in range(count):
        await asyncio.sleep(0)


async def soon(operation: Coroutine[Any, Any, T]) -> T:
    """Return what an operation returns, which has to come although the storage may not answer."""
    task = asyncio.ensure_future(operation)
    for _ in range(MOST_TURNS):
        if task.done():
            return task.result()
        await asyncio.sleep(0)
    # Unless it waits for a thread of a storage that does answer.
    await asyncio.wait([task], timeout=PATIENCE_SECONDS)
    assert task.done(), "nothing happens"
    return task.result()


async def neighbour(journal: Journal[bytes], ledger: Ledger) -> None:
    """Use the journal as a service would, until somebody closes it."""
    with suppress(JournalClosed):
        for _ in range(3):
            await ledger.append(journal)
            await journal.sync_data()
            with suppress(ItemPruned, ItemOutOfRange):
                assert await journal.read(1) == ledger.told[1][1]


async def opened_again(storage: Storage, config: Config[bytes]) -> Journal[bytes]:
    """Open a journal that is being closed behind the scenes."""
    for _ in range(MOST_TURNS):
        with suppress(JournalLocked):
            return await Journal.init(Context(storage), config)
        await asyncio.sleep(0)
    pytest.fail("the lock is not released")


ANSWERS = ["before", "after", "at the close"]


@dataclass(frozen=True)
class Case:
    """How an operation is cancelled.

    Attributes:
        operation: What is cancelled.
        way: How.
        by_suspension: Whether moments are suspensions of the operation, or else calls of the storage and their ends.
        neighbours: Tasks that use the journal meanwhile.
        answer: When the storage answers what is under way: "before", "after" the strike, or "at the close".
    """

    operation: Operation
    way: Way
    by_suspension: bool
    neighbours: int
    answer: str

    def __str__(self) -> str:
        moment = "suspension" if self.by_suspension else "call"
        return f"{self.operation.__name__}-{self.way.__name__}-{moment}-{self.neighbours}-{self.answer}"


def cases() -> list[Case]:
    """Return what is tried: ordinarily a part of all combinations, always the same."""
    circumstances = list(product(WAYS, (True, False), (0, 3), ANSWERS))
    rng = random.Random(1)
    return [
        Case(operation, *circumstance)
        for operation in OPERATIONS
        for circumstance in (circumstances if IS_LONG else rng.sample(circumstances, 4))
    ]


async def cut_short(case: Case, number: int, inner: Storage) -> bool:
    """Cancel an operation, use the journal on, open it again and check; say whether it was cancelled in time."""
    device = Device(inner)
    ledger = Ledger(OPERATIONS[case.operation])
    monitor = OrderingMonitor(device)
    journal = await Journal.init(Context(monitor), ledger.config)
    monitor.attach("orders", journal)
    await ledger.append_many(journal, 14)
    others = [asyncio.create_task(neighbour(journal, ledger)) for _ in range(case.neighbours)]
    strike = Strike(number, None if case.by_suspension else device)
    if case.answer != "before":
        strike.also = device.stick

    await soon(case.way(partial(case.operation, journal, ledger), strike))
    if case.answer == "at the close" and strike.has_struck:
        closing = asyncio.create_task(journal.close())
        await turns(20)
        assert not closing.done()
        device.go_on()
        await soon(asyncio.wait_for(closing, None))
    device.go_on()
    await asyncio.gather(*others)

    if journal._closing is None:
        await journal.prune(0)  # removes nothing, but comes after what goes on behind the scenes
        await ledger.check(journal)
        ledger.told = [pair async for pair in journal.replay(journal.bounds().start)]
        ledger.least = None
        await ledger.append(journal)
        await journal.sync_data()
    await journal.close()
    found = await opened_again(monitor, ledger.config)
    monitor.attach("orders", found)
    await ledger.check(found)
    await ledger.append(found)
    await found.close()
    monitor.check()
    assert not device.misuses
    return strike.has_struck


@pytest.mark.parametrize("case", cases(), ids=str)
async def test_an_operation_cancelled_anywhere_leaves_a_sound_journal(case: Case) -> None:
    """Whenever it is cancelled, nothing told is lost, nothing is written twice, and the journal works on (C1 to C4)."""
    for number in range(1, MOST_TURNS):
        try:
            has_struck = await cut_short(case, number, MemoryStorage())
        except BaseException as error:
            error.add_note(f"moment {number}")
            raise
        if not has_struck:
            return
    pytest.fail("the operation does not complete")


@pytest.mark.parametrize("operation", [prune, rewind, append_a_short_run_over_sections, sync, close])
async def test_an_operation_on_files_cancelled_anywhere_leaves_a_sound_journal(
    operation: Operation, tmp_path: Path
) -> None:
    """The same holds where the work goes on in a thread, and no descriptor is left (C1, C3)."""
    for number in range(1, MOST_TURNS, effort(5, 1)):
        case = Case(operation, by_cancel, by_suspension=False, neighbours=2, answer="before")
        if not await cut_short(case, number, FileStorage(tmp_path / str(number))):
            break
    gc.collect()
    assert not handles_below(tmp_path)


async def append_durably(journal: Journal[bytes]) -> None:
    await journal.append(b"item")
    await journal.sync()


@pytest.mark.parametrize(
    "operation",
    [append_beyond_the_room, append_the_last_of_a_section, append_a_long_run, sync, sync_data, prune, rewind],
)
@pytest.mark.parametrize("by_suspension", [True, False], ids=["suspension", "call"])
async def test_a_failure_after_the_cancellation_is_not_lost(operation: Operation, by_suspension: bool) -> None:  # noqa: FBT001
    """If the work that goes on fails, the journal has failed, and what was durable is there (C2, F1)."""
    fates = set()
    for number in range(1, MOST_TURNS):
        device = Device(MemoryStorage())
        ledger = Ledger(OPERATIONS[operation])
        monitor = OrderingMonitor(device)
        journal = await Journal.init(Context(monitor), ledger.config)
        await ledger.append_many(journal, 14)
        strike = Strike(number, None if by_suspension else device)

        def break_down(device: Device = device) -> None:
            device.is_broken = True

        strike.also = break_down
        await soon(by_cancel(partial(operation, journal, ledger), strike))
        if not strike.has_struck:
            await journal.close()
            break
        await all_others_end()
        has_failed = device.failures > 0
        fates.add(has_failed)
        ledger.told = ledger.told[: journal.durable_size()]
        with pytest.raises(JournalFailed) if has_failed else nullcontext():
            await journal.prune(0)
        with pytest.raises((JournalFailed, StorageError)):
            await append_durably(journal)
        with pytest.raises(JournalFailed):
            await journal.close()
        device.is_broken = False
        found = await opened_again(monitor, ledger.config)
        await ledger.check(found)
        await found.close()
        monitor.check()
        assert not device.misuses
    assert fates
    assert by_suspension or True in fates


# Opening.


async def init(storage: Storage) -> None:
    await (await Journal.init(Context(storage), SMALL)).close()


async def init_at_size(storage: Storage) -> None:
    await (await Journal.init_at_size(Context(storage), SMALL, 33)).close()


async def init_sync(storage: Storage) -> None:
    await (await Journal.init_sync(Context(storage), SMALL, range(5, 12))).close()


async def enter(storage: Storage) -> None:
    async with Opening(Context(storage), SMALL):
        pass


OPENINGS = [init, init_at_size, init_sync, enter]
OPENING_CASES = list(product(OPENINGS, WAYS, ["before", "after"], [True, False]))


@pytest.mark.parametrize(
    ("opening", "way", "answer", "by_suspension"),
    OPENING_CASES if IS_LONG else random.Random(2).sample(OPENING_CASES, 16),
)
async def test_an_opening_cancelled_anywhere_frees_the_lock_and_loses_nothing(
    opening: Any,
    way: Way,
    answer: str,
    by_suspension: bool,  # noqa: FBT001
) -> None:
    """What was asked for has happened or not, the caller is free at once, and the next one can open (C3, C4)."""
    outcomes = {
        init: [(0, 14)],
        enter: [(0, 14)],
        init_at_size: [(0, 14), (33, 33)],
        init_sync: [(0, 14), (4, 14), (4, 12)],
    }
    for number in range(1, MOST_TURNS):
        device = Device(MemoryStorage())
        items = [b"item %d" % position for position in range(14)]
        monitor = OrderingMonitor(device)
        async with await Journal.init(Context(monitor), SMALL) as journal:
            await journal.append_many(items)
        strike = Strike(number, None if by_suspension else device)
        if answer == "after":
            strike.also = device.stick
        await soon(way(partial(opening, monitor), strike))
        device.go_on()
        found = await opened_again(monitor, SMALL)
        bounds = found.bounds()
        assert limits_of(bounds) in (outcomes[opening] if strike.has_struck else outcomes[opening][-1:])
        assert [item async for _, item in found.replay(bounds.start)] == items[bounds.start : bounds.stop]
        await found.close()
        monitor.check()
        assert not device.misuses
        if not strike.has_struck:
            assert number > 1
            return
    pytest.fail("the opening does not complete")


# Waiting for a device that takes its time.


async def cancelled_later(scope: anyio.CancelScope) -> None:
    await turns(20)
    scope.cancel()


@pytest.mark.parametrize("operation", [append_the_last_of_a_section, sync, sync_data, prune, rewind, close, destroy])
async def test_cancelling_stops_the_waiting_at_once(operation: Operation) -> None:
    """A caller is free although the device is stuck, and until it is free again nothing spins (C1, C3)."""
    storage = GatedStorage(MemoryStorage())
    ledger = Ledger()
    journal = await Journal.init(Context(storage), SMALL)
    await ledger.append_many(journal, 13)
    await journal.prune(0)
    storage.hold(lambda call: call.what in {"sync", "write_at"})
    with anyio.CancelScope() as scope:
        waiting = asyncio.ensure_future(cancelled_later(scope))
        await operation(journal, ledger)
    await waiting
    assert scope.cancelled_caught
    assert len({call.partition for call in storage.held}) == len(storage.held) > 0, "one call at a time on a blob"
    await turns(5)
    assert not getattr(asyncio.get_running_loop(), "_ready"), "somebody polls"  # noqa: B009 - private

    storage.let_all_go()
    with suppress(JournalClosed):
        await journal.close()
    found = await opened_again(storage, SMALL)
    await ledger.check(found)
    await found.close()


async def test_an_opening_that_is_cancelled_is_undone_when_the_device_answers() -> None:
    """The caller is free at once; the lock is free as soon as the opening could be finished (C3)."""
    storage = GatedStorage(MemoryStorage())
    storage.hold(lambda call: call.what == "sync")
    opening = asyncio.create_task(Journal.init(Context(storage), SMALL))
    await storage.until_held()
    opening.cancel()
    await asyncio.wait([opening])
    assert opening.cancelled()
    with pytest.raises(JournalLocked):
        await Journal.init(Context(storage), SMALL)
    storage.let_all_go()
    await (await opened_again(storage, SMALL)).close()


async def test_a_cancelled_sync_goes_on() -> None:
    """What it was asked for becomes durable though nobody waits for it (C2)."""
    storage = GatedStorage(MemoryStorage())
    journal = await Journal.init(Context(storage), SMALL)
    await journal.append(b"item")
    storage.hold(lambda call: call.what == "sync")
    syncing = asyncio.create_task(journal.sync())
    await storage.until_held()
    syncing.cancel()
    await asyncio.wait([syncing])
    assert journal.durable_size() == 0
    storage.let_all_go()
    await turns(20)
    assert journal.durable_size() == 1
    await journal.close()


async def test_an_append_cancelled_while_it_waits_for_room_took_no_position() -> None:
    """The next one in the queue gets the position that it would have had (C1)."""
    storage = GatedStorage(MemoryStorage())
    journal = await Journal.init(Context(storage), NARROW)
    storage.hold(lambda call: call.what == "write_at")
    assert await journal.append(b"0") == 0
    waiting = [asyncio.create_task(journal.append(item)) for item in (b"a", b"b", b"c")]
    await storage.until_held()
    waiting[1].cancel()
    storage.let_all_go()
    await asyncio.wait(waiting)
    assert [waiting[0].result(), waiting[2].result()] == [1, 2]
    assert await journal.read_many(range(3)) == [b"0", b"a", b"c"]
    await journal.close()


async def test_leaving_async_with_in_a_cancelled_scope_closes_the_journal() -> None:
    """The block is left at once, and everything is durable and released behind the scenes (C3)."""
    storage = MemoryStorage()
    with anyio.move_on_after(0):
        async with await Journal.init(Context(storage), SMALL):
            pytest.fail("the opening is where the scope is left")
    with anyio.CancelScope() as scope:
        async with await opened_again(storage, SMALL) as journal:
            await journal.append(b"item")
            scope.cancel()
            await anyio.sleep_forever()
    found = await opened_again(storage, SMALL)
    assert await found.read(0) == b"item"
    await found.close()


# Work in a thread that outlives its waiter.


class Disk:
    """The calls that the library makes on descriptors; writes, reads and flushes wait while it is stuck.

    Attributes:
        entered: Set when a call has begun to wait.
        misuses: Descriptors that were closed while a call used them.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered = threading.Event()
        self.misuses: list[int] = []
        self._goes = threading.Event()
        self._goes.set()
        self._to_stick = 0
        self._in_use: Counter[int] = Counter()
        for name in ("pwrite", "pread", "fdatasync", "fsync"):
            monkeypatch.setattr(os, name, self._slow(getattr(os, name)))
        really_close = os.close

        def close(fd: int) -> None:
            if self._in_use[fd]:
                self.misuses.append(fd)
            really_close(fd)

        monkeypatch.setattr(os, "close", close)

    def _slow(self, really: Callable[..., Any]) -> Callable[..., Any]:
        def call(fd: int, *args: Any) -> Any:
            self._in_use[fd] += 1
            try:
                if not self._goes.is_set() and self._to_stick > 0:
                    self._to_stick -= 1
                    self.entered.set()
                    assert self._goes.wait(60)
                return really(fd, *args)
            finally:
                self._in_use[fd] -= 1

        return call

    def stick(self, calls: int = sys.maxsize) -> None:
        """Let the next `calls` calls wait until `let_go`."""
        self._to_stick = calls
        self.entered.clear()
        self._goes.clear()

    def let_go(self) -> None:
        self._goes.set()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


async def all_others_end() -> None:
    """Wait for what goes on behind the scenes."""
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        done, _ = await asyncio.wait(others, timeout=PATIENCE_SECONDS)
        assert done, f"these go on for ever: {others}"


@pytest.mark.parametrize("operation", [append_the_last_of_a_section, sync, sync_data, prune, rewind])
async def test_a_close_during_work_in_a_thread_waits_for_it(operation: Operation, tmp_path: Path, disk: Disk) -> None:
    """No descriptor is closed in use, however often the operation and the close are cancelled (C3)."""
    ledger = Ledger()
    journal = await Journal.init(Context(FileStorage(tmp_path)), SMALL)
    await ledger.append_many(journal, 13)
    disk.stick()
    working = asyncio.create_task(operation(journal, ledger))
    await asyncio.to_thread(disk.entered.wait)
    working.cancel()
    for _ in range(3):
        closing = asyncio.create_task(journal.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        assert closing.cancelled()
    with pytest.raises(JournalLocked):
        await Journal.init(Context(FileStorage(tmp_path)), SMALL)
    disk.let_go()
    await all_others_end()
    async with await Journal.init(Context(FileStorage(tmp_path)), SMALL) as found:
        await ledger.check(found)
    assert not disk.misuses


async def test_a_close_during_a_read_in_a_thread_waits_for_it(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers and replays that were cancelled or abandoned keep their descriptor until their read is done (C3)."""

    def not_at_hand(*_: object) -> int:
        raise BlockingIOError

    monkeypatch.setattr(os, "preadv", not_at_hand, raising=False)
    ledger = Ledger()
    journal = await Journal.init(Context(FileStorage(tmp_path)), SMALL)
    await ledger.append_many(journal, 14)
    await journal.sync()
    stream = journal.replay(0, 9)
    assert (await anext(stream))[0] == 0
    disk.stick()
    reading = asyncio.create_task(journal.read(1))
    await asyncio.to_thread(disk.entered.wait)
    reading.cancel()
    await stream.aclose()
    closing = asyncio.create_task(journal.close())
    await asyncio.wait([reading])
    assert not closing.done()
    disk.let_go()
    await closing
    assert not disk.misuses


async def test_a_write_whose_waiter_was_cancelled_lands_before_the_next(tmp_path: Path, disk: Disk) -> None:
    """Items that were handed to the storage by a cancelled sync come before those of the next one (C1)."""
    journal = await Journal.init(Context(FileStorage(tmp_path)), SMALL)
    await journal.append(b"0")
    await journal.sync_data()
    disk.stick()
    await journal.append(b"1")
    first = asyncio.create_task(journal.sync_data())
    await asyncio.to_thread(disk.entered.wait)
    first.cancel()
    await journal.append(b"2")
    second = asyncio.create_task(journal.sync_data())
    await asyncio.wait([first])
    assert not second.done()
    disk.let_go()
    await second
    assert read_journal(tmp_path, "orders", after_crash=True) == [(0, b"0"), (1, b"1"), (2, b"2")]
    await journal.close()


async def test_calls_on_a_file_keep_their_order_when_the_first_was_cancelled(tmp_path: Path, disk: Disk) -> None:
    """Neither a later write nor the close overtakes a write in a thread that nobody waits for any more (C1, C3)."""
    storage = FileStorage(tmp_path, threads=2)
    other, _ = await storage.open("p", b"other")
    blob, _ = await storage.open("p", b"blob")
    disk.stick(calls=1)
    old = asyncio.create_task(blob.write_at(0, b"old, and longer"))
    await asyncio.to_thread(disk.entered.wait)
    old.cancel()
    new = asyncio.create_task(blob.write_at(0, b"new"))
    closing = asyncio.create_task(blob.close())
    await asyncio.wait([old])
    await other.sync()  # takes its turn on the thread that is free, behind whatever was handed to it before
    assert not new.done()
    assert not closing.done()

    disk.let_go()
    await asyncio.wait([new, closing])
    assert (tmp_path / "p" / b"blob".hex()).read_bytes() == b"new, and longer"
    await other.close()
    assert not disk.misuses


async def test_a_call_that_is_cancelled_while_it_waits_for_a_thread_is_made(tmp_path: Path, disk: Disk) -> None:
    """It keeps its place: what comes after it finds it done (C1)."""
    storage = FileStorage(tmp_path, threads=1)
    other, _ = await storage.open("p", b"other")
    blob, _ = await storage.open("p", b"blob")
    disk.stick()
    holding = asyncio.create_task(other.sync())
    await asyncio.to_thread(disk.entered.wait)
    old = asyncio.create_task(blob.write_at(0, b"old, and longer"))
    await asyncio.sleep(0)
    new = asyncio.create_task(blob.write_at(0, b"new"))
    await asyncio.sleep(0)
    old.cancel()
    disk.let_go()
    await asyncio.wait([holding, old, new])
    assert old.cancelled()
    assert await blob.read_at(0, 100) == b"new, and longer"
    await blob.close()
    await other.close()


async def test_a_lock_is_not_let_go_while_a_removal_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the writer itself is cancelled, as at the end of `asyncio.run`: what goes would be somebody else's."""
    entered, goes = threading.Event(), threading.Event()
    really_unlink = os.unlink

    def unlink(*args: Any, **options: Any) -> None:
        entered.set()
        assert goes.wait(PATIENCE_SECONDS)
        really_unlink(*args, **options)

    storage = FileStorage(tmp_path, threads=2)
    other, _ = await storage.open("p", b"other")
    journal = await Journal.init(Context(storage), SMALL)
    await journal.append_many([b"item %d" % position for position in range(30)])
    monkeypatch.setattr(os, "unlink", unlink)
    rewinding = asyncio.create_task(journal.rewind(2))
    assert await asyncio.to_thread(entered.wait, PATIENCE_SECONDS)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await asyncio.wait([rewinding])
    closing = asyncio.create_task(journal.close())
    for _ in range(100):  # on the thread that is free, in turn with whatever the close has to do
        await other.sync()
    with pytest.raises(JournalLocked):
        await Journal.init(Context(FileStorage(tmp_path)), SMALL)
    goes.set()
    with pytest.raises(JournalFailed):
        await closing
    async with await Journal.init(Context(FileStorage(tmp_path)), SMALL) as found:
        assert found.size() >= 2
        assert await found.read_many(range(found.size())) == [b"item %d" % position for position in range(found.size())]
    await other.close()


@pytest.mark.filterwarnings("ignore:unclosed journal")
async def test_a_lock_is_not_let_go_while_a_write_goes_on(tmp_path: Path, disk: Disk) -> None:
    """Not even where a journal is left unclosed at the end of `asyncio.run`: it would land in somebody else's (D1)."""
    storage = FileStorage(tmp_path)
    other, _ = await storage.open("p", b"other")
    journal = await Journal.init(Context(storage), SMALL)
    await journal.append_many([b"0", b"1"])
    await journal.sync()
    disk.stick(calls=1)
    await journal.append(b"2")
    syncing = asyncio.create_task(journal.sync_data())
    await asyncio.to_thread(disk.entered.wait)
    del journal
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await asyncio.wait([syncing])
    del syncing, task
    for _ in range(100):  # on the threads that are free
        await other.sync()
    gc.collect()
    with pytest.raises(JournalLocked):
        await Journal.init(Context(storage), SMALL)

    disk.let_go()
    await all_others_end()
    gc.collect()
    async with await Journal.init(Context(storage), SMALL) as found:
        assert await found.read_many(range(found.size())) == [b"0", b"1", b"2"]
    await other.close()
