"""A KeyboardInterrupt or a MemoryError at any line of the library: it did not happen, or the journal has failed."""

from __future__ import annotations

import asyncio
import gc
import itertools
import linecache
import os
import random
import sys
import threading
import warnings
import weakref
from contextlib import aclosing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import pytest
from typing_extensions import override

import posjournal_async
from posjournal_async import (
    BytesCodec,
    CodecError,
    Config,
    Context,
    Counters,
    FileStorage,
    Journal,
    JournalFailed,
    MemoryStorage,
    NoMetrics,
    StorageError,
)
from posjournal_async.testing import Call, FaultyStorage, WrappedStorage
from tests.effort import IS_LONG, effort
from tests.handles import handles_below
from tests.journals import name_of_section

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
    from types import FrameType

    from posjournal_async import Metrics, Storage

T = TypeVar("T")

LIBRARY = Path(posjournal_async.__file__).parent

IPS = 4
CONFIG = Config(partition="orders", items_per_section=IPS, codec=BytesCodec(), max_open_blobs=2)
NARROW = Config(partition="orders", items_per_section=IPS, codec=BytesCodec(), write_buffer=1)
WIDE = Config(partition="orders", items_per_section=2_000, codec=BytesCodec())
FEW = Config(partition="orders", items_per_section=IPS, codec=BytesCodec(), max_open_blobs=1)

# More turns of the event loop than anything below takes on memory.
MOST_TURNS = 20_000

# How long a thread may take on a machine under load.
PATIENCE_SECONDS = 20

Line: TypeAlias = tuple[str, int]


# Strike.


@cache
def name_in_library(path: str) -> str:
    """Return the name of a file of the library; "" for others, and for the kit for tests."""
    if not Path(path).is_relative_to(LIBRARY) or Path(path).is_relative_to(LIBRARY / "testing"):
        return ""
    return str(Path(path).relative_to(LIBRARY))


class Interruption:
    """Raises an error before a line of the library is executed, once.

    Args:
        at: Number of the line, from 1, in the order in which they are executed; 0 to strike at none.
        error: What to raise.
        in_threads: Whether lines are those of threads that are started while this is `installed`, instead.
        by_opcode: Whether to count the steps of the interpreter instead of lines.
        modules: Whose lines count; None for those of all. When a thread comes back is chance, and with it how many
            lines of others there are before one.

    Attributes:
        lines: The lines that were executed, in order.
    """

    def __init__(
        self,
        at: int = 0,
        error: type[BaseException] = KeyboardInterrupt,
        *,
        in_threads: bool = False,
        by_opcode: bool = False,
        modules: frozenset[str] | None = None,
    ) -> None:
        self.error = error
        self.lines: list[Line] = []
        self._at = at
        self._in_threads = in_threads
        self._event = "opcode" if by_opcode else "line"
        self._modules = modules
        self._is_armed = False

    @property
    def has_struck(self) -> bool:
        """Whether the error was raised."""
        return 0 < self._at <= len(self.lines)

    @property
    def place(self) -> str:
        """Where it was raised."""
        return "{}:{}".format(*self.lines[self._at - 1]) if self.has_struck else "nowhere"

    @property
    def may_leak(self) -> bool:
        """Whether the interpreter gives no way to release what is held at that line before the process ends.

        * CPython may leave a `with` block without leaving its context manager (https://bugs.python.org/issue29988). A
          task group that is known to all never ends then, and with it everything that it refers to.
        * A descriptor is a number that belongs to nobody between the system call and the next line.
        """
        if not self.has_struck:
            return False
        name, line = self.lines[self._at - 1]
        source = linecache.getline(str(LIBRARY / name), line).strip()
        return source.startswith("async with ") or name in {"storage/directory.py", "storage/descriptors.py"}

    @contextmanager
    def installed(self) -> Generator[None]:
        """Look at threads that are started from now on, if it is about threads."""
        threading.settrace(self._trace_call if self._in_threads else None)
        try:
            yield
        finally:
            threading.settrace(None)

    @contextmanager
    def armed(self) -> Generator[None]:
        """Count, and strike when it is time."""
        before = sys.gettrace()
        trace = self._trace_call  # referenced as long as it is in use: CPython lets go of one that raised too early
        self._is_armed = True
        if not self._in_threads:
            sys.settrace(trace)
        try:
            yield
        finally:
            if not self._in_threads:
                sys.settrace(before)
            self._is_armed = False

    def _trace_call(self, frame: FrameType, _: str, __: object) -> Any:
        name = name_in_library(frame.f_code.co_filename)
        if not name or (self._modules is not None and name not in self._modules):
            return None
        frame.f_trace_opcodes = self._event == "opcode"
        return self._trace_line

    def _cannot_fail(self, frame: FrameType) -> bool:
        """Whether nothing is done at a line: a thread is interrupted only where memory may be short."""
        source = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        return self._in_threads and (source in {"while True:", "try:"} or source.endswith("= None"))

    def _trace_line(self, frame: FrameType, event: str, _: object) -> Any:
        if event == self._event and self._is_armed and not self._cannot_fail(frame):
            self.lines.append((name_in_library(frame.f_code.co_filename), frame.f_lineno))
            if len(self.lines) == self._at:
                raise self.error
        return self._trace_line


# Look.


class Watched(WrappedStorage):
    """A storage that knows which blobs are open.

    Attributes:
        opened: Every blob that was opened and that somebody has.
    """

    def __init__(self, inner: Storage) -> None:
        super().__init__(inner)
        self.opened: weakref.WeakSet[Any] = weakref.WeakSet()

    @override
    async def around(self, call: Call, go_on: Callable[[], Awaitable[T]]) -> T:
        result: Any = await go_on()
        if call.what == "open":
            self.opened.add(result[0])
        return result  # type: ignore[no-any-return]

    def open_blobs(self) -> list[tuple[str, bytes]]:
        """Return the blobs in memory that are open."""
        return [(blob._partition, blob._name) for blob in self.opened if getattr(blob, "_is_open", False)]

    def wait_for_threads(self) -> None:
        """Return when the threads wait: one that opened something for nobody closes it when it is done."""
        if isinstance(self.inner, FileStorage):
            crew = self.inner._threads._crew
            meeting = threading.Barrier(len(crew.threads) + 1)
            for _ in crew.threads:
                crew.jobs.put(lambda: meeting.wait(PATIENCE_SECONDS))
            meeting.wait(PATIENCE_SECONDS)

    def end_process(self) -> None:
        """Forget who has what."""
        self.opened.clear()
        if isinstance(self.inner, MemoryStorage):
            self.inner._locked.clear()
        if isinstance(self.inner, FileStorage):
            for link in Path("/proc/self/fd").iterdir():
                with suppress(FileNotFoundError):  # the handle of the listing itself
                    place, root = link.readlink(), self.inner.root
                    if place.is_relative_to(root) or place == root.parent:  # where the root's name is made durable
                        os.close(int(link.name))


class Loop:
    """An event loop that goes on after an interruption, as far as it is asked to.

    Attributes:
        loop: The loop.
        problems: What its exception handler was told.
    """

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.problems: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, problem: self.problems.append(problem))

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run to the end, or fail if that does not come."""
        task = self.loop.create_task(coroutine)
        self.finish(task)
        return task.result()

    def finish(self, task: asyncio.Task[Any]) -> None:
        """Run until a task is done, or fail if that does not come."""

        async def until_done() -> None:
            for _ in range(MOST_TURNS):
                if task.done():
                    return
                await asyncio.sleep(0)
            await asyncio.wait([task], timeout=PATIENCE_SECONDS)  # for a thread

        while not task.done():
            try:
                self.loop.run_until_complete(until_done())
            except KeyboardInterrupt:  # of a task: it leaves the loop too, once for each task that waits for it
                continue
            break
        assert task.done(), f"this hangs: {task}"

    def turn(self) -> None:
        """Run what is ready: also what would stop the loop since the operation was done when the strike came."""
        stopping = self.loop.call_soon(self.loop.stop)
        try:
            self.loop.run_forever()
        except KeyboardInterrupt:  # of a task: what is ready is ready still
            stopping.cancel()
            self.turn()

    def end(self) -> None:
        """Cancel what runs and run until it is done, as `asyncio.run` does in the end."""
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        for task in tasks:
            self.finish(task)
            if not task.cancelled():
                task.exception()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


@dataclass
class Run:
    """A journal, and what it was given.

    Attributes:
        storage: Where it is.
        config: How it is kept.
        journal: The journal; None before it was opened.
        given: The item that each position has, or would get.
        least: Every position below it has to be there in the end.
        starts: Pruning boundaries that there may be.
        may_be: Bounds of an empty journal that there may be instead.
        sink: Where its metrics go.
    """

    storage: Watched
    config: Config[bytes]
    journal: Journal[bytes] | None = None
    given: dict[int, bytes] = field(default_factory=dict)
    least: int = 0
    starts: set[int] = field(default_factory=lambda: {0})
    may_be: set[range] = field(default_factory=set)
    sink: Metrics = field(default_factory=NoMetrics)
    made: int = 0

    @property
    def context(self) -> Context:
        return Context(self.storage, self.sink)

    @property
    def open(self) -> Journal[bytes]:
        assert self.journal is not None
        return self.journal

    def make(self) -> bytes:
        self.made += 1
        return b"%d:" % self.made + b"x" * (self.made * 7 % 23)

    async def append(self, count: int = 1) -> None:
        for _ in range(count):
            item = self.make()
            self.given[self.open.size()] = item
            position = await self.open.append(item)
            assert self.given[position] == item

    async def append_many(self, count: int) -> None:
        items = [self.make() for _ in range(count)]
        size = self.open.size()
        self.given.update(enumerate(items, size))
        assert await self.open.append_many(items) == size + count - 1

    async def look(self) -> dict[int, bytes]:
        """Return what can be read, once it is sure that all of it was given, and that read and replay agree."""
        journal = self.open
        has_failed = journal._writer.failure is not None
        bounds = journal.bounds()
        stop = min(bounds.stop, journal.durable_size()) if has_failed else bounds.stop
        found = {position: await journal.read(position) for position in range(bounds.start, stop)}
        replayed = {}
        with suppress(JournalFailed) if has_failed else nullcontext():
            async for position, item in journal.replay(bounds.start, 20):
                replayed[position] = item  # noqa: PERF403 - what came before the error counts
        # More only where work that goes on behind the scenes has made more durable meanwhile.
        assert replayed.items() >= found.items()
        assert len(replayed) == len(found) or has_failed
        if bounds in self.may_be:
            return {}
        assert bounds.start in self.starts
        assert stop >= self.least
        assert found == {position: self.given[position] for position in range(bounds.start, stop)}
        assert replayed == {position: self.given[position] for position in replayed}
        return found


# What is interrupted.


async def opened(run: Run) -> None:
    """Open a journal of sealed sections and a tail, of which the last item is not synced."""
    run.journal = await Journal.init(run.context, run.config)
    await run.append(13)
    await run.open.sync()
    run.least = 13
    await run.append()
    await run.open.prune(0)  # removes nothing, and comes after what the writer had to do


async def closed(run: Run) -> None:
    """Leave a journal that was closed."""
    await opened(run)
    await run.open.close()
    run.least = 14
    run.journal = None


async def nothing(run: Run) -> None:
    """Leave a storage without a journal."""


async def torn(run: Run) -> None:
    """Leave a journal whose tail ends with half a record."""
    await closed(run)
    blob, length = await run.storage.open("orders_data", (3).to_bytes(8))
    await blob.write_at(length, b"\x20\x00\x00\x00half")
    await blob.close()


async def in_need_of_repairs(run: Run) -> None:
    """Leave what an interrupted prune, an interrupted creation and a torn write leave, and lose an index."""
    await opened(run)
    await run.open.prune(4)
    await run.open.close()
    run.journal = None
    run.least, run.starts = 14, {4}
    for section in (0, 4, 5):
        blob, _ = await run.storage.open("orders_data", name_of_section(section))
        await blob.close()
    blob, length = await run.storage.open("orders_data", name_of_section(3))
    await blob.write_at(length, b"\x20\x00\x00\x00half")
    await blob.close()
    await run.storage.remove("orders_offsets", name_of_section(2))


async def half_reset(run: Run) -> None:
    """Leave a reset that is on record and not finished."""
    await closed(run)
    failing = FaultyStorage(run.storage, 1, only=lambda call: call.what == "remove")
    with pytest.raises(StorageError):
        await Journal.init_at_size(Context(failing), run.config, 33)
    run.may_be, run.starts = {range(33, 33)}, {33}


async def append_one(run: Run) -> None:
    await run.append()


async def append_the_last_of_a_section(run: Run) -> None:
    await run.append(2)


async def append_beyond_the_room(run: Run) -> None:
    await run.append(3)


async def append_a_short_run(run: Run) -> None:
    await run.append_many(6)


async def append_a_long_run(run: Run) -> None:
    await run.append_many(1_030)


async def sync(run: Run) -> None:
    await run.open.sync()
    run.least = run.open.size()


async def sync_data(run: Run) -> None:
    await run.open.sync_data()
    run.least = run.open.size()


async def prune(run: Run) -> None:
    run.starts = {0, 8}
    await run.open.prune(9)
    run.starts = {8}


async def rewind_in_the_tail(run: Run) -> None:
    run.least = 13
    await run.open.rewind(13)


async def rewind_into_a_sealed_section(run: Run) -> None:
    run.least = 6
    await run.open.rewind(6)


async def rewind_to_the_start_of_a_section(run: Run) -> None:
    run.least = 8
    await run.open.rewind(8)


async def read(run: Run) -> None:
    for position in (0, 4, 9, 13):
        assert await run.open.read(position) == run.given[position]


async def read_many(run: Run) -> None:
    assert await run.open.read_many(range(0, 14, 3)) == [run.given[position] for position in range(0, 14, 3)]


async def read_at_once(run: Run) -> None:
    """Read sections of which one may be open: the readers wait for each other."""
    reading = {position: asyncio.ensure_future(run.open.read(position)) for position in (0, 4, 8)}
    await asyncio.wait(reading.values())
    for position, item in reading.items():
        assert await item == run.given[position]


async def replay(run: Run) -> None:
    async with aclosing(run.open.replay(0, 9)) as stream:
        async for position, item in stream:
            assert item == run.given[position]


async def close(run: Run) -> None:
    await run.open.close()
    run.least = 14


async def destroy(run: Run) -> None:
    run.may_be = {range(0)}
    await run.open.destroy()
    run.least = 0


async def init(run: Run) -> None:
    run.journal = await Journal.init(run.context, run.config)


async def init_at_size(run: Run) -> None:
    run.may_be = {range(33, 33)}
    run.journal = await Journal.init_at_size(run.context, run.config, 33)
    run.starts = {33}


async def init_sync(run: Run) -> None:
    run.starts = {0, 4}
    run.least = 12
    run.journal = await Journal.init_sync(run.context, run.config, range(5, 12))


class Tracer(Counters):
    """A sink of every kind: it is told numbers, reads journals, and knows which calls are under way."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way = 0

    def begin_span(self, name: str, label: str) -> Callable[[BaseException | None], None]:
        assert name
        assert label
        self.under_way += 1
        return self._end

    def _end(self, _: BaseException | None) -> None:
        self.under_way -= 1


@dataclass(frozen=True)
class Scenario:
    """What is made ready, and what is interrupted then."""

    prepare: Callable[[Run], Coroutine[Any, Any, None]]
    operate: Callable[[Run], Coroutine[Any, Any, None]]
    config: Config[bytes] = CONFIG
    is_measured: bool = False

    def __str__(self) -> str:
        return f"{self.operate.__name__}, {self.prepare.__name__}{', measured' * self.is_measured}"


SCENARIOS = [
    Scenario(opened, append_one),
    Scenario(opened, append_the_last_of_a_section),
    Scenario(opened, append_beyond_the_room, NARROW),
    Scenario(opened, append_a_short_run),
    Scenario(opened, append_a_long_run, WIDE),
    Scenario(opened, sync),
    Scenario(opened, sync_data),
    Scenario(opened, prune),
    Scenario(opened, rewind_in_the_tail),
    Scenario(opened, rewind_into_a_sealed_section),
    Scenario(opened, rewind_to_the_start_of_a_section),
    Scenario(opened, read),
    Scenario(opened, read_many),
    Scenario(opened, replay),
    Scenario(opened, close),
    Scenario(opened, destroy),
    Scenario(nothing, init),
    Scenario(closed, init),
    Scenario(torn, init),
    Scenario(in_need_of_repairs, init),
    Scenario(half_reset, init),
    Scenario(closed, init_at_size),
    Scenario(closed, init_sync),
    Scenario(opened, sync_data, is_measured=True),
    Scenario(opened, sync, is_measured=True),
    Scenario(opened, append_the_last_of_a_section, is_measured=True),
    Scenario(opened, rewind_into_a_sealed_section, is_measured=True),
    Scenario(opened, replay, is_measured=True),
    Scenario(opened, close, is_measured=True),
    Scenario(in_need_of_repairs, init, is_measured=True),
]


# Tried at all of its lines, since few of them are about releasing once more what was not released.
ALL_OF_THEM = {Scenario(opened, close)}

# Of which at least one line is executed in a thread.
FILE_SCENARIOS = [
    scenario
    for scenario in SCENARIOS
    if scenario.operate not in {append_one, append_a_long_run} and not scenario.is_measured
]


def interrupted(
    scenario: Scenario, interruption: Interruption, *, goes_on: bool = True, storage: Storage | None = None
) -> None:
    """Interrupt an operation; then use the journal on, or end the loop; then open the journal again and look."""
    sink = Tracer() if scenario.is_measured else NoMetrics()
    run = Run(Watched(storage or MemoryStorage()), scenario.config, sink=sink)
    with interruption.installed():
        _interrupted(run, scenario, interruption, goes_on=goes_on)
    run.journal = None
    run.storage.wait_for_threads()
    if run.storage.open_blobs() or not goes_on or interruption.may_leak:
        gc.collect()
    if interruption.may_leak:
        run.storage.end_process()
    assert not run.storage.open_blobs()
    loop = Loop()
    loop.run(open_again(run))
    loop.end()


def _interrupted(run: Run, scenario: Scenario, interruption: Interruption, *, goes_on: bool) -> None:
    loop = Loop()
    loop.run(scenario.prepare(run))
    task = loop.loop.create_task(scenario.operate(run))
    with (
        interruption.armed(),
        suppress(interruption.error, JournalFailed, CodecError, BaseExceptionGroup),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", RuntimeWarning)  # of a coroutine that was made, and not begun
        loop.loop.run_until_complete(asyncio.wait([task], timeout=PATIENCE_SECONDS))
    loop.turn()
    if goes_on:
        loop.finish(task)
        error = task.exception()
        if isinstance(error, BaseExceptionGroup):
            (error,) = error.exceptions
        assert error is None or isinstance(error, (interruption.error, JournalFailed, CodecError)), repr(error)
        del error
        if run.journal is not None:
            loop.run(use_on(run, interruption))
    loop.end()


async def use_on(run: Run, interruption: Interruption) -> None:
    """Look that the journal goes on as if nothing had happened, or refuses to; and close it."""
    journal = run.open
    if journal._closing is None:
        found = await run.look()
        if journal._writer.failure is None:
            assert len(found) == len(journal.bounds())
            await run.append()
            await journal.sync()
            found = await run.look()
            run.least = journal.size()
            await run.append()
            await journal.close()
            run.least += 1
        else:
            for refused in (journal.append(b"-"), journal.sync(), journal.prune(14), journal.rewind(0)):
                with pytest.raises(JournalFailed):
                    await refused
            with pytest.raises(JournalFailed):
                await journal.close()
    else:
        with suppress(JournalFailed, interruption.error, BaseExceptionGroup):
            await journal.close()


async def open_again(run: Run) -> None:
    run.journal = await Journal.init(run.context, run.config)
    await run.look()
    await run.append()
    await run.open.close()
    run.journal = None


def try_lines(scenario: Scenario, error: type[BaseException], count: int, **how: Any) -> None:
    """Interrupt an operation at some of its lines, or all: the first and the last time that each is executed."""
    storage_of = how.pop("storage_of", lambda: None)
    goes_on = how.pop("goes_on", True)
    counting = Interruption(error=error, **how)
    interrupted(scenario, counting, storage=storage_of())
    numbers = range(1, len(counting.lines) + 1)
    first = {line: number for number, line in reversed(list(zip(numbers, counting.lines, strict=True)))}
    last = dict(zip(counting.lines, numbers, strict=True))
    chosen = numbers if IS_LONG or how.get("by_opcode") else sorted({*first.values(), *last.values()})
    if count < len(chosen):
        chosen = sorted(random.Random(f"{scenario} {error} {goes_on}").sample(chosen, count))
    assert chosen
    for number in chosen:
        interruption = Interruption(number, error, **how)
        try:
            interrupted(scenario, interruption, goes_on=goes_on, storage=storage_of())
        except BaseException as problem:
            problem.add_note(f"{error.__name__} at line {number}, {interruption.place}, goes on: {goes_on}")
            raise


def try_lines_on_files(
    scenario: Scenario, error: type[BaseException], root: Path, count: int = sys.maxsize, **how: Any
) -> None:
    """Do `try_lines` where each try has a directory of its own, and leaves no handle open that is not garbage."""

    def storage_of() -> FileStorage:
        gc.collect()
        assert not handles_below(root)
        return FileStorage(next(roots))

    roots = (root / str(number) for number in itertools.count())
    # Nothing is collected unasked: a thread of the storage may be about it, with files still to be closed, and asking
    # has no effect meanwhile.
    gc.disable()
    try:
        try_lines(scenario, error, count, storage_of=storage_of, **how)
        storage_of()
    finally:
        gc.enable()


@pytest.fixture(autouse=True, scope="module")
def _only_what_is_new_is_collected() -> Iterator[None]:
    """Make collecting cheap: it is done after many runs."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _nothing_else_is_said(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let errors pass that strike in a `__del__`, where the interpreter drops them, and journals that are left open."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    yield
    gc.collect()  # else what is garbage by now is collected in a test of others, which fails for it


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
@pytest.mark.parametrize(
    ("error", "goes_on"), [(KeyboardInterrupt, True), (KeyboardInterrupt, False), (MemoryError, True)]
)
def test_an_operation_interrupted_at_a_line_did_not_happen_or_the_journal_failed(
    scenario: Scenario,
    error: type[BaseException],
    goes_on: bool,  # noqa: FBT001
) -> None:
    """Nothing acknowledged is lost, nothing wrong is read, nothing hangs, and it opens again (C5, D2, O1, F6)."""
    try_lines(scenario, error, effort(sys.maxsize if scenario in ALL_OF_THEM else 8, sys.maxsize), goes_on=goes_on)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_readers_go_on_where_one_is_interrupted_that_others_wait_for() -> None:
    """Whoever waits for its handle is told, at whatever line of the room of the handles it strikes (C5)."""
    scenario = Scenario(opened, read_at_once, FEW)
    try_lines(scenario, KeyboardInterrupt, sys.maxsize, modules=frozenset({"sealed.py"}))


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_append_interrupted_at_a_step_of_the_interpreter_did_not_happen_or_the_journal_failed(
    error: type[BaseException],
) -> None:
    """The same holds between any two steps of the way that most appends go (C5)."""
    try_lines(Scenario(opened, append_one), error, effort(100, sys.maxsize), by_opcode=True)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize(
    ("error", "in_threads"), [(KeyboardInterrupt, False), (MemoryError, False), (MemoryError, True)]
)
@pytest.mark.parametrize("scenario", FILE_SCENARIOS, ids=str)
def test_an_operation_on_files_interrupted_at_a_line_did_not_happen_or_the_journal_failed(
    scenario: Scenario,
    error: type[BaseException],
    in_threads: bool,  # noqa: FBT001
    tmp_path: Path,
) -> None:
    """The same holds where threads do the work, for their lines too (C5, C3)."""
    try_lines_on_files(scenario, error, tmp_path, effort(1, sys.maxsize), in_threads=in_threads)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_opening_interrupted_where_a_thread_hands_over_frees_the_lock(
    error: type[BaseException], tmp_path: Path
) -> None:
    """At each line of the storage on the event loop, where a lock or a file is nobody's for a moment (F6)."""
    modules = frozenset({"waiting.py", "storage/file.py", "storage/threads.py"})
    try_lines_on_files(Scenario(closed, init), error, tmp_path, in_threads=False, modules=modules)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize(
    ("error", "in_threads"), [(KeyboardInterrupt, False), (MemoryError, False), (MemoryError, True)]
)
def test_a_call_interrupted_on_its_way_to_a_thread_and_back_keeps_nobody_waiting(
    error: type[BaseException],
    in_threads: bool,  # noqa: FBT001
    tmp_path: Path,
) -> None:
    """At each line of the lane and of the threads: those behind it are made, each once, in their order (C5, C3)."""
    modules = frozenset({"storage/lane.py", "storage/threads.py"})
    try_lines_on_files(Scenario(opened, sync), error, tmp_path, in_threads=in_threads, modules=modules)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_opening_to_receive_a_range_frees_the_lock_when_it_is_interrupted(
    error: type[BaseException], tmp_path: Path
) -> None:
    """At each line of the journal's own, where what was opened is nobody's for a moment (F6)."""
    modules = frozenset({"journal.py"})
    try_lines_on_files(Scenario(closed, init_sync), error, tmp_path, in_threads=False, modules=modules)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_an_opening_interrupted_while_its_span_ends_frees_the_lock(tmp_path: Path) -> None:
    """The journal is open by then, and nobody has it (F6)."""
    scenario = Scenario(nothing, init, is_measured=True)
    storages = (FileStorage(tmp_path / str(number)) for number in itertools.count())
    counting = Interruption(error=MemoryError, in_threads=False)
    interrupted(scenario, counting, storage=next(storages))
    ending = [number for number, (module, _) in enumerate(counting.lines, 1) if module == "measuring.py"][-1]
    for number in range(ending, len(counting.lines) + 1):
        interrupted(scenario, Interruption(number, MemoryError, in_threads=False), storage=next(storages))
