"""Lives of a journal in which a storage may fail, with an oracle that says what an opening may find after that."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from posjournal_async import (
    BytesCodec,
    Config,
    Context,
    ItemPruned,
    Journal,
    JournalClosed,
    JournalFailed,
    StorageError,
)
from posjournal_async.testing import Luck

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Coroutine, Sequence
    from typing import Any

    from posjournal_async import Storage
    from posjournal_async.testing import Call, CrashStorage, OrderingMonitor

    Step = Callable[["Life"], Coroutine[Any, Any, None]]

__all__ = ["CHANGES", "CONFIG", "IPS", "LIVES", "PATIENCE_SECONDS", "Life", "Oracle", "live", "look_at"]

IPS = 4

# Two items wait to be written, a third one waits itself.
CONFIG = Config(partition="orders", items_per_section=IPS, codec=BytesCodec(), max_open_blobs=1, write_buffer=32)

# For a run that takes milliseconds: what takes this long hangs.
PATIENCE_SECONDS = 60


@dataclass
class Oracle:
    """What an opening may find at a moment.

    Attributes:
        items: Items whose append has returned, by position.
        runs: Items of each append that has not: a prefix of them may be there, in one piece.
        base: Position of the first item that the journal was given.
        least: The smallest size.
        boundaries: The pruning boundaries.
        empty_at: Sizes at which the journal may be empty instead, while a reset or a removal is under way.
    """

    items: dict[int, bytes] = field(default_factory=dict[int, bytes])
    runs: list[list[bytes]] = field(default_factory=list[list[bytes]])
    base: int = 0
    least: int = 0
    boundaries: set[int] = field(default_factory=lambda: {0})
    empty_at: set[int] = field(default_factory=set[int])

    @property
    def returned(self) -> int:
        """The size, as far as appends have returned."""
        return max(self.items, default=self.base - 1) + 1

    def copy(self) -> Oracle:
        runs = [run[:] for run in self.runs]
        return Oracle(dict(self.items), runs, self.base, self.least, set(self.boundaries), set(self.empty_at))

    def check(self, bounds: range, found: Sequence[tuple[int, bytes]]) -> None:
        """Look that a journal holds what was acknowledged, in order, and nothing that was not appended (D1, D2)."""
        assert [position for position, _ in found] == list(bounds)
        if not bounds and bounds.start in self.empty_at:
            return
        assert bounds.start in self.boundaries
        assert self.least <= bounds.stop <= self.base + len(self.items) + sum(len(run) for run in self.runs)
        self.check_items(found)

    def check_items(self, found: Sequence[tuple[int, bytes]]) -> None:
        """Look that items are where they were appended; `found` is without a hole."""
        others = [(position, item) for position, item in found if position not in self.items]
        assert [pair for pair in found if pair not in others] == [
            (position, self.items[position]) for position, _ in found if position in self.items
        ]
        for run in self.runs:
            mine = [(position, item) for position, item in others if item in run]
            if mine:
                first = run.index(mine[0][1])
                assert not first or mine[0] == found[0], "the start of a run is missing"
                assert mine == list(enumerate(run[first:], mine[0][0]))[: len(mine)]
            others = [pair for pair in others if pair not in mine]
        assert not others, "items that nobody appended"


@dataclass
class Life:
    """A journal and what of it was acknowledged.

    Attributes:
        storage: What it runs on.
        config: How it is kept.
        oracle: What an opening may find.
        monitor: What is told of each journal that is opened.
    """

    storage: Storage
    config: Config[bytes] = CONFIG
    oracle: Oracle = field(default_factory=Oracle)
    monitor: OrderingMonitor | None = None
    _journal: Journal[bytes] | None = None
    _made: int = 0

    @property
    def is_open(self) -> bool:
        return self._journal is not None

    @property
    def journal(self) -> Journal[bytes]:
        assert self._journal is not None
        return self._journal

    def _make(self, count: int) -> list[bytes]:
        """Make items, each unlike all others and of another length than its neighbours."""
        self._made += count
        return [b"%d:" % number + b"x" * (number % 5) for number in range(self._made - count, self._made)]

    # Openings. While one is under way there is no journal.

    async def open(self) -> None:
        self._journal = None
        self._opened(await Journal.init(Context(self.storage), self.config))
        bounds = self.journal.bounds()
        found = [pair async for pair in self.journal.replay(bounds.start)]
        self.oracle.check(bounds, found)
        assert self.journal.durable_size() == bounds.stop
        self.oracle = Oracle(dict(found), [], bounds.start, bounds.stop, {bounds.start})

    async def open_at_33(self) -> None:
        self._journal = None
        self.oracle.empty_at = {33}
        self._opened(await Journal.init_at_size(Context(self.storage), self.config, 33))
        self.oracle = Oracle({}, [], 33, 33, {33})

    async def open_for_what_it_has_in_part(self) -> None:
        """Prune a section, and rewind by one item."""
        self._journal = None
        oracle = self.oracle
        start, stop = min(oracle.boundaries) + IPS, oracle.returned - 1
        oracle.boundaries.add(start)
        oracle.least = min(oracle.least, stop)
        self._opened(await Journal.init_sync(Context(self.storage), self.config, range(start + 1, stop)))
        oracle.boundaries = {start}
        oracle.least = stop
        del oracle.items[stop]

    async def open_for_what_it_has_not(self) -> None:
        self._journal = None
        size = self.oracle.returned + 5
        self.oracle.empty_at = {size}
        self._opened(await Journal.init_sync(Context(self.storage), self.config, range(size, size + 10)))
        self.oracle = Oracle({}, [], size, size, {size})

    def _opened(self, journal: Journal[bytes]) -> None:
        self._journal = journal
        if self.monitor is not None:
            self.monitor.attach(self.config.partition, journal)

    # Changes.

    async def append(self) -> None:
        await self._append(1, lambda run: self.journal.append(run[0]))

    async def append_many(self) -> None:
        await self._append(5, self.journal.append_many)

    async def append_more_than_one_slice(self) -> None:
        await self._append(1100, self.journal.append_many)

    async def _append(self, count: int, append: Callable[[list[bytes]], Awaitable[int]]) -> None:
        oracle = self.oracle
        run = self._make(count)
        oracle.runs.append(run)
        last = await append(run)
        oracle.runs.remove(run)
        first = last + 1 - count
        assert not oracle.items.keys() & set(range(first, last + 1)), "a position was given twice"
        oracle.items.update(enumerate(run, first))
        ips = self.config.items_per_section
        sealed = (last + 1) // ips * ips
        if sealed > first:
            oracle.least = max(oracle.least, sealed)

    async def sync_data(self) -> None:
        size = self.oracle.returned
        await self.journal.sync_data()
        self.oracle.least = max(self.oracle.least, size)

    async def sync(self) -> None:
        size = self.oracle.returned
        await self.journal.sync()
        self.oracle.least = max(self.oracle.least, size)

    async def commit(self) -> None:
        await self.append()
        await self.sync_data()

    async def prune(self) -> None:
        oracle = self.oracle
        boundary = min(oracle.boundaries) + IPS
        size = oracle.returned
        oracle.boundaries.add(boundary)
        assert await self.journal.prune(boundary + 1)
        oracle.boundaries = {boundary}
        oracle.least = max(oracle.least, size)

    async def rewind_in_the_tail(self) -> None:
        assert self.oracle.returned % IPS > 1
        await self._rewind(self.oracle.returned - 1)

    async def rewind_over_a_section(self) -> None:
        assert self.oracle.returned % IPS != 1
        await self._rewind(self.oracle.returned // IPS * IPS - 1)

    async def _rewind(self, size: int) -> None:
        oracle = self.oracle
        oracle.least = min(oracle.least, size)
        await self.journal.rewind(size)
        oracle.items = {position: item for position, item in oracle.items.items() if position < size}
        oracle.least = size

    async def many_at_once(self) -> None:
        """Let changes and readers run into each other; raise what the first of the changes that failed got."""
        changes = [self.commit(), self.commit(), self.append_many(), self.sync(), self.prune(), self.commit()]
        readers = [self.read(), self.replay()]
        outcomes = await asyncio.gather(*changes, *readers, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, StorageError | JournalFailed):
                raise outcome
        for outcome in [*outcomes[: len(changes)], *(one for one in outcomes if isinstance(one, JournalFailed))]:
            if outcome is not None:
                raise outcome

    # Looks.

    async def read(self) -> None:
        for position in self.journal.bounds():
            with suppress(ItemPruned):  # by another task
                item = await self.journal.read(position)
                self.oracle.check_items([(position, item)])

    async def replay(self) -> None:
        found: list[tuple[int, bytes]] = []
        try:
            async for pair in self.journal.replay(self.journal.bounds().start, 40):
                found.append(pair)  # noqa: PERF401 - what came before an error counts
        except ItemPruned:  # by another task
            pass
        finally:
            self.oracle.check_items(found)

    # Ends.

    async def close(self) -> None:
        size = self.oracle.returned
        await self.journal.close()
        self.oracle.least = size

    async def destroy(self) -> None:
        self.oracle.empty_at = {0}
        await self.journal.destroy()
        self.oracle = Oracle()


OPENINGS = (Life.open, Life.open_at_33, Life.open_for_what_it_has_in_part, Life.open_for_what_it_has_not)
LOOKS = (Life.read, Life.replay)
ENDS = (Life.close, Life.destroy)

# What cannot fail without the journal failing (F1). An opening may be one for reading.
CHANGES = ("write_at", "write_durably_at", "resize", "sync", "remove", "remove_many")

ALONE: list[Step] = [
    Life.open,
    *[Life.append] * 3,
    Life.sync_data,
    Life.append_many,
    *[Life.append] * 2,
    Life.sync,
    Life.read,
    Life.append,
    Life.prune,
    Life.sync_data,  # nothing is left to do: a prune makes durable what it retains
    Life.rewind_in_the_tail,
    Life.append_many,
    Life.rewind_over_a_section,
    *[Life.append] * 3,
    Life.sync_data,
    Life.replay,
    Life.prune,
    Life.append,
    Life.close,
]
AT_ONCE: list[Step] = [Life.open, *[Life.append] * 5, Life.many_at_once, Life.close]
OPENED_AGAIN: list[Step] = [
    Life.open,
    *[Life.append_many] * 2,
    Life.close,
    Life.open_for_what_it_has_in_part,
    Life.append_many,
    Life.close,
    Life.open,
    Life.rewind_over_a_section,
    Life.close,
    Life.open_for_what_it_has_not,
    Life.append_many,
    Life.close,
    Life.open_at_33,
    *[Life.append] * 2,
    Life.close,
    Life.open,
    Life.destroy,
]
IN_SLICES: list[Step] = [Life.open, Life.append, Life.append_more_than_one_slice, Life.sync_data, Life.close]

LIVES: dict[str, tuple[Config[bytes], list[Step]]] = {
    "alone": (CONFIG, ALONE),
    "at once": (CONFIG, AT_ONCE),
    "opened again": (CONFIG, OPENED_AGAIN),
    "in slices": (Config(partition="orders", items_per_section=700, codec=BytesCodec()), IN_SLICES),
}


async def live(
    life: Life,
    steps: Sequence[Step],
    failures: Sequence[Call] = (),
    *,
    code: int = 0,
    reads_work: bool = True,
) -> str | None:
    """Take steps until one fails; see that the journal has failed then; return the step's name, None if none did.

    In the end the journal is closed, whatever happened.

    Args:
        life: The life.
        steps: Its steps, beginning with an opening and ending with an end.
        failures: Where the calls that fail are listed, as they do.
        code: The error number of what fails.
        reads_work: Whether what is durable can be read after the failure.
    """
    for step in steps:
        before = len(failures)
        try:
            await step(life)
        except (StorageError, JournalFailed) as error:
            if step in LOOKS and isinstance(error, StorageError):
                continue  # a failed read changes nothing, so it breaks nothing
            if step in ENDS:
                await _check_that_it_is_closed(life.journal)
            elif step not in OPENINGS:
                cause = await check_that_it_has_failed(life, reads_work=reads_work)
                # Data and offsets may fail at the same time. What does not change anything may be a reader's.
                first = [(call.what, call.partition) for call in failures[before:] if call.what in CHANGES][:2]
                if failures[before:] and failures[before].what in CHANGES:
                    assert (cause.doing, cause.partition) in first, "not the first cause"
            elif life.is_open:  # it was opened, and a look at what it has failed
                with suppress(StorageError):
                    await life.journal.close()
            told = error.cause if isinstance(error, JournalFailed) else error
            assert isinstance(told, StorageError)
            assert told.errno == code
            return step.__name__
    return None


async def check_that_it_has_failed(life: Life, *, reads_work: bool) -> StorageError:
    """Look that a journal refuses every change for the same reason and shows what is durable only; close it (F1)."""
    journal, oracle = life.journal, life.oracle
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
    first = causes[0]
    assert isinstance(first, StorageError)
    assert all(cause is first for cause in causes)

    start, durable = journal.bounds().start, journal.durable_size()
    assert start in oracle.boundaries
    assert durable >= oracle.least
    oracle.least = durable  # it has been shown
    read = [position for position in range(start, durable) if await _can_read(life, position)]
    assert read == list(range(start, durable)) or not reads_work
    for position in range(max(durable, start), journal.size()):
        with pytest.raises(JournalFailed):
            await journal.read(position)
    streamed: list[tuple[int, bytes]] = []
    ends = (JournalFailed,) if reads_work else (JournalFailed, StorageError)
    with suppress(*ends):
        async for pair in journal.replay(start):
            streamed.append(pair)  # noqa: PERF401 - what came before the error counts
    assert [position for position, _ in streamed] == list(range(start, durable))[
        : None if reads_work else len(streamed)
    ]
    oracle.check_items(streamed)
    with pytest.raises(JournalFailed) as closing:
        await journal.close()
    assert closing.value.cause is first
    await _check_that_it_is_closed(journal)
    return first


async def _can_read(life: Life, position: int) -> bool:
    """Say whether an item below the durable size can be read, and look that it is the right one."""
    try:
        item = await life.journal.read(position)
    except StorageError:
        return False
    life.oracle.check_items([(position, item)])
    return True


async def _check_that_it_is_closed(journal: Journal[bytes]) -> None:
    with pytest.raises(JournalClosed):
        await journal.append(b"late")
    with pytest.raises(JournalClosed):
        journal.size()


async def look_at(storage: Storage, config: Config[bytes], oracle: Oracle) -> None:
    """Open what is left of a life and hold it against the oracle; go on for a moment."""
    life = Life(storage, config, oracle.copy(), _made=10_000)
    await life.open()
    await life.commit()
    await life.close()


async def opens_for_good(storage: CrashStorage, config: Config[bytes], oracle: Oracle, rng: random.Random) -> None:
    """Open what is left of a life, hold it against the oracle, and see that the worst power cut takes nothing of it."""
    life = Life(storage, config, oracle.copy())
    await life.open()
    shown, cut = life.oracle.copy(), storage.power_cut(rng, Luck.NONE)
    await life.close()
    await look_at(cut, config, shown)
