"""Tasks that do everything a journal can do, in hundreds of schedules, each with a history that can be explained.

And the event loop that gives the schedules.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import pytest
from typing_extensions import override

from posjournal_async import (
    BytesCodec,
    Config,
    Context,
    Journal,
    JournalError,
    MemoryStorage,
    commit,
    data,
    journal,
)
from posjournal_async.storage.protocols import RemovesMany
from posjournal_async.testing import CrashStorage, GatedStorage, Luck, OrderingMonitor, WrappedStorage
from posjournal_async.testing.interleaving import Deadlock, SeededLoop, run_interleaved
from tests.concurrency.linearizability import END, Call, Rules, Undecided, item_of, judge, told
from tests.effort import effort
from tests.journals import others_ended, streamed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    from typing_extensions import Buffer

    from posjournal_async import Blob, Lock, Storage

T = TypeVar("T")

BLOCKS = 10
SEEDS = effort(30, 2_000)  # in each block

# Virtual seconds: what an operation of the storage takes at most. Tasks pause about as long between two calls.
LONGEST = 0.01


class SlowStorage:
    """A storage whose operations take any time, as those of files do: in order on each blob, cancelled or not."""

    def __init__(self, inner: Storage, chance: random.Random, *, is_quick: bool) -> None:
        self.inner = inner
        self._chance = chance
        self._is_quick = is_quick

    async def pause(self) -> None:
        fate = self._chance.random()
        if fate > 0.4:
            await asyncio.sleep(0 if fate < 0.6 else self._chance.random() * LONGEST)

    async def take(self, operation: Callable[[], Awaitable[T]]) -> T:
        await self.pause()
        result = await operation()
        await self.pause()
        return result

    async def open(self, partition: str, name: bytes) -> tuple[Blob, int]:
        blob, length = await asyncio.shield(self.take(lambda: self.inner.open(partition, name)))
        return (QuickBlob if self._is_quick else SlowBlob)(blob, self), length

    async def remove(self, partition: str, name: bytes | None) -> None:
        await asyncio.shield(self.take(lambda: self.inner.remove(partition, name)))

    async def remove_many(self, partition: str, names: Sequence[bytes]) -> None:
        if isinstance(self.inner, RemovesMany):
            inner = self.inner
            await asyncio.shield(self.take(lambda: inner.remove_many(partition, names)))
        else:
            for name in names:
                await self.remove(partition, name)

    async def scan(self, partition: str) -> list[bytes]:
        return await asyncio.shield(self.take(lambda: self.inner.scan(partition)))

    async def lock(self, partition: str) -> Lock:
        return await self.inner.lock(partition)


class SlowBlob:
    def __init__(self, inner: Any, storage: SlowStorage) -> None:
        self.inner = inner
        self.storage = storage
        self._last: asyncio.Task[Any] | None = None

    async def _in_turn(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Do it after everything that was called before, whoever waits for it."""
        before = self._last

        async def act() -> T:
            if before is not None:
                await asyncio.wait([before])
            return await self.storage.take(operation)

        acting = self._last = asyncio.create_task(act())
        return await asyncio.shield(acting)

    async def read_at(self, offset: int, length: int) -> bytes:
        return await self._in_turn(lambda: self.inner.read_at(offset, length))

    async def write_at(self, offset: int, data: Buffer) -> None:
        written = bytes(data)

        async def write() -> None:
            assert data == written, "the bytes changed while they were written"
            await self.inner.write_at(offset, data)

        await self._in_turn(write)

    async def resize(self, length: int) -> None:
        await self._in_turn(lambda: self.inner.resize(length))

    async def sync(self) -> None:
        await self._in_turn(self.inner.sync)

    async def close(self) -> None:
        await self._in_turn(self.inner.close)


class QuickBlob(SlowBlob):
    """A blob that offers what a file does: write and sync in one, and a look at the page cache."""

    async def write_durably_at(self, offset: int, data: Buffer) -> None:
        async def write() -> None:
            await self.inner.write_at(offset, data)
            await self.storage.pause()
            await self.inner.sync()

        await self._in_turn(write)

    def read_at_once(self, offset: int, length: int) -> bytes | None:
        assert self.inner._is_open, "the blob is closed"
        cached = self.inner._content if hasattr(self.inner, "_content") else self.inner._file.visible
        found = bytes(cached[offset : offset + length])
        return found if len(found) == length and self.storage._chance.random() < 0.6 else None


@dataclass(frozen=True, slots=True)
class Photo:
    """What a crash left, and when it was."""

    moment: int
    storage: CrashStorage


class Story:
    """What happens in one seed: a journal, the tasks that use it, and what they were told."""

    def __init__(self, seed: int) -> None:
        chance = self.chance = random.Random(seed)
        self.clock = count()
        self.numbers = count()
        self.calls: list[Call] = []
        self.unretrieved: list[dict[str, Any]] = []
        self.inner = CrashStorage() if chance.random() < 0.7 else MemoryStorage()
        self.storage = SlowStorage(self.inner, chance, is_quick=chance.random() < 0.5)
        self.config = Config(
            partition="orders",
            items_per_section=chance.choice([1, 2, 3, 5, 8, 50]),
            codec=BytesCodec(),
            compression=chance.choice([None, None, None, 1]),
            write_buffer=chance.choice([1, 60, 400, 10_000]),
            max_open_blobs=chance.choice([1, 2, 64]),
        )
        self.start = chance.choice([0, 0, 0, 3, 7])
        self.oldest, self.reach = self.start, self.start + 2  # positions that are worth asking for
        self.hurries = chance.choice([0, 4, 8])  # how many callers may lose patience
        self.is_decided = True
        self.ends_early = chance.random() < 0.3
        # Not each story has calls of all kinds: that leaves more room for those that it has ("Swarm Testing", Groce et
        # al., ISSTA 2012).
        self.mix = {call: often * chance.choice([0, 1, 1, 3]) for call, often in CALLS.items()}
        self.mix[Story.append] += 1
        # The power goes when a call returns, or at any moment.
        self.crash_at_return = chance.randrange(60) if chance.random() < 0.6 else -1
        self.photo: Photo | None = None
        self.journal: Journal[bytes]

    @property
    def rules(self) -> Rules:
        return Rules(self.config.items_per_section)

    async def in_time(self) -> None:
        """Run, and raise if it goes on for ever: who waits for ever is seen by the loop, who never waits is not."""
        async with asyncio.timeout(10_000 * LONGEST):
            await self.run()

    async def run(self) -> None:
        """Let the tasks do what they do; check that all they were told, and what is left, can be explained."""
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.unretrieved.append(context))
        with OrderingMonitor(self.storage) as monitor:
            context = Context(monitor)
            opening = Journal.init_at_size(context, self.config, self.start) if self.start else None
            self.journal = await (opening or Journal.init(context, self.config))
            monitor.attach("orders", self.journal)
            async with asyncio.TaskGroup() as group:
                for task in range(self.chance.randint(2, 6)):
                    group.create_task(self.work(task, self.chance.randint(3, 12)))
                if self.crash_at_return < 0:
                    group.create_task(self.crash_sometime())
            await self.record(-1, "close", (), self.journal.close)
            await others_ended()
            await self.reopen(context)
        await others_ended()
        self.judge(self.calls, self.rules)
        if self.photo is not None:
            await self.look_at(self.photo)
        assert not self.unretrieved, self.unretrieved

    # What tasks do.

    async def work(self, task: int, steps: int) -> None:
        for step in range(steps):
            await self.pause()
            act = self.chance.choices(*zip(*self.mix.items(), strict=True))[0]
            if self.ends_early and step == 5:
                act = self.chance.choice([Story.close, Story.close, Story.destroy])
            if not self.hurries or self.chance.random() < 0.7:
                await act(self, task)
                continue
            self.hurries -= 1
            if self.chance.random() < 0.5:
                with anyio.move_on_after(self.chance.random() * LONGEST):
                    await act(self, task)
            else:
                try:
                    async with asyncio.timeout(self.chance.random() * LONGEST):
                        await act(self, task)
                except TimeoutError:
                    continue

    async def pause(self) -> None:
        fate = self.chance.random()
        if fate > 0.3:
            await asyncio.sleep(0 if fate < 0.6 else self.chance.random() * 3 * LONGEST)

    async def record(
        self, task: int, what: str, args: tuple[Any, ...], make: Callable[[], Awaitable[Any]], number: int | None = None
    ) -> Any:
        """Make a call, write down what came of it, and return that."""
        call = Call(next(self.numbers) if number is None else number, task, what, args, next(self.clock))
        self.calls.append(call)
        try:
            call.outcome = await make()
        except StopAsyncIteration:
            call.outcome = END
        except (JournalError, ValueError) as error:
            call.outcome = error
        call.responded = next(self.clock)
        if len(self.calls) == self.crash_at_return:
            self.crash()
        return call.outcome

    async def look(self, task: int, what: str, at: Callable[[], Any], args: tuple[Any, ...] = ()) -> int:
        """Record a call that does not wait; return its number."""
        number = next(self.numbers)

        async def make() -> Any:
            return at()

        await self.record(task, what, args, make, number)
        return number

    def position(self) -> int:
        """Return a position, often one near the end."""
        return self.chance.choice([self.chance.randrange(self.reach), max(0, self.reach - self.chance.randrange(5))])

    async def append(self, task: int) -> None:
        name = next(self.numbers)
        await self.reached(self.record(task, "append", (name, 1), lambda: self.journal.append(item_of(name, 0)), name))

    async def append_many(self, task: int) -> None:
        name = next(self.numbers)
        longest = self.config.items_per_section + 3
        many = self.chance.choice([0, 2, 3, 5, self.chance.randint(1, min(longest, 20)), 13])
        items = [item_of(name, number) for number in range(many)]
        await self.reached(
            self.record(task, "append_many", (name, many), lambda: self.journal.append_many(items), name)
        )

    async def reached(self, appending: Awaitable[Any]) -> None:
        last = await appending
        if isinstance(last, int):
            self.reach = max(self.reach, last + 2)

    async def prune(self, task: int) -> None:
        position = self.position()
        await self.record(task, "prune", (position,), lambda: self.journal.prune(position))
        self.oldest = max(self.oldest, self.rules.floor(position))

    async def rewind(self, task: int) -> None:
        size = self.position()
        await self.record(task, "rewind", (size,), lambda: self.journal.rewind(size))

    async def sync(self, task: int) -> None:
        await self.record(task, "sync", (), self.journal.sync)

    async def sync_data(self, task: int) -> None:
        await self.record(task, "sync_data", (), self.journal.sync_data)
        if self.chance.random() < 0.5:
            await self.look(task, "durable_size", self.journal.durable_size)

    async def read(self, task: int) -> None:
        position = self.position()
        await self.record(task, "read", (position,), lambda: self.journal.read(position))

    async def read_many(self, task: int) -> None:
        positions = tuple(sorted({self.position() for _ in range(self.chance.randrange(5))}))
        await self.record(task, "read_many", (positions,), lambda: self.journal.read_many(positions))

    async def replay(self, task: int) -> None:
        start, buffer = self.chance.choice([self.position(), self.oldest]), self.chance.choice([1, 9, 40, 200, 10_000])
        in_batches = self.chance.random() < 0.2
        patience = self.chance.choice([1, 3, 100, 100])  # after so many looks at the stream it is abandoned
        stream: Any = None

        def begin() -> None:
            nonlocal stream
            call = self.journal.replay_batches if in_batches else self.journal.replay
            stream = call(start, buffer)

        number = await self.look(task, "replay", begin, (start,))
        if stream is None:
            return

        if self.chance.random() < 0.5:
            await self.pause()  # the snapshot is that of the call, not of the first item
        position = start

        async def give() -> list[bytes]:
            nonlocal position
            first, found = await anext(stream)
            assert first == position
            items = found if in_batches else [found]
            position += len(items)
            return list(items)

        async with aclosing(stream):
            for _ in range(patience):
                given = await self.record(task, "next", (position,), give, number)
                if not isinstance(given, list):
                    return
                self.join_looks()
                if self.chance.random() < 0.2:
                    await self.pause()

    def join_looks(self) -> None:
        """Make one of the last two looks at a stream if nothing happened between them: that is quicker to judge."""
        if len(self.calls) < 2:
            return
        before, last = self.calls[-2:]
        if (
            isinstance(before.outcome, list)
            and isinstance(last.outcome, list)
            and before.what == last.what == "next"
            and (before.number, before.responded + 1) == (last.number, last.invoked)
            and last.responded == last.invoked + 1
        ):
            before.outcome += last.outcome
            before.responded = last.responded
            self.calls.pop()

    async def look_around(self, task: int) -> None:
        def bounds() -> tuple[int, int]:
            found = self.journal.bounds()
            return found.start, found.stop

        looks: list[tuple[str, Callable[[], Any]]] = [
            ("size", self.journal.size),
            ("bounds", bounds),
            ("durable_size", self.journal.durable_size),
            ("oldest_retained_pos", self.journal.oldest_retained_pos),
        ]
        what, at = self.chance.choice(looks)
        await self.look(task, what, at)

    async def close(self, task: int) -> None:
        await self.record(task, "close", (), self.journal.close)

    async def destroy(self, task: int) -> None:
        await self.record(task, "destroy", (), self.journal.destroy)

    # The end.

    async def crash_sometime(self) -> None:
        await asyncio.sleep(self.chance.random() * 20 * LONGEST)
        self.crash()

    def crash(self) -> None:
        """Keep what a crash in this moment would leave."""
        if isinstance(self.inner, CrashStorage):
            if self.chance.random() < 0.2:
                left = self.inner.killed(self.chance)
            else:
                left = self.inner.power_cut(self.chance, self.chance.choice(list(Luck)))
            self.photo = Photo(next(self.clock), left)

    async def reopen(self, context: Context) -> None:
        """Find what was closed as it was, with nothing to repair."""
        async with await Journal.init(context, self.config) as found:
            assert found.recovery.clean, found.recovery
            self.calls.append(await self.found(found, next(self.clock)))

    async def look_at(self, photo: Photo) -> None:
        """Find what a crash left to be what some prefix of what was told leads to."""
        async with await Journal.init(Context(photo.storage), self.config) as found:
            assert found.durable_size() == found.size()
            calls = [*self.calls, await self.found(found, photo.moment)]
        self.judge(calls, Rules(self.config.items_per_section, photo.moment))

    def judge(self, calls: list[Call], rules: Rules) -> None:
        try:
            judge(calls, rules, self.start)
        except Undecided:
            self.is_decided = False

    async def found(self, found: Journal[bytes], moment: int) -> Call:
        bounds = found.bounds()
        items = [item for _, item in await streamed(found.replay(bounds.start))]
        assert len(items) == len(bounds)
        return Call(next(self.numbers), -1, "reopen", (), moment, moment, (bounds.start, items))


CALLS: dict[Callable[[Story, int], Awaitable[None]], int] = {
    Story.append: 6,
    Story.append_many: 5,
    Story.read: 5,
    Story.read_many: 3,
    Story.replay: 4,
    Story.prune: 2,
    Story.rewind: 3,
    Story.sync: 2,
    Story.sync_data: 4,
    Story.look_around: 4,
}


def played(seed: int, patch: pytest.MonkeyPatch) -> Story:
    """Run a seed and return what happened; a failure tells it."""
    story = Story(seed)
    # Numbers that say only when a long call lets others in, or when the writer is called: small ones try that often.
    piece = story.chance.choice([40, 300, data.PIECE])
    patch.setattr(commit, "PIECE", piece)
    patch.setattr(data, "PIECE", piece)
    patch.setattr(data, "STRETCH", max(piece // 2, 1))
    patch.setattr(commit, "_RUN_SLICE", story.chance.choice([2, 5, commit._RUN_SLICE]))
    patch.setattr(journal, "_ENCODED", story.chance.choice([2, journal._ENCODED]))
    patch.setattr(journal, "_READ", story.chance.choice([2, journal._READ]))
    patch.setattr(data, "_MOST_PENDING", story.chance.choice([1, 2, data._MOST_PENDING]))
    try:
        run_interleaved(story.in_time(), seed)
    except BaseException as error:
        crash = "" if story.photo is None else f"\na crash at {story.photo.moment}"
        error.add_note(f"seed {seed}, {story.config}, empty at {story.start}{crash}\n{told(story.calls)}")
        raise
    return story


@pytest.mark.parametrize("block", range(BLOCKS))
def test_what_tasks_are_told_is_explained_by_one_call_after_the_other(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever 2 to 6 tasks call, in any schedule, crash or not: the history is linearizable (I1, I2, I3, O1, C1)."""
    undecided = 0
    for seed in range(block * SEEDS, (block + 1) * SEEDS):
        with monkeypatch.context() as patch:
            undecided += not played(seed, patch).is_decided
    assert undecided <= 1 + SEEDS // 100


def test_a_story_is_the_same_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A seed that fails fails again: nothing but the seed decides what happens."""
    for seed in range(10):
        with monkeypatch.context() as patch:
            first = told(played(seed, patch).calls)
        with monkeypatch.context() as patch:
            assert told(played(seed, patch).calls) == first


async def test_items_that_are_read_together_are_of_one_history() -> None:
    """A rewind and an append beside `read_many` come before all of its items or after: never in between (I1)."""
    storage = GatedStorage(MemoryStorage())
    config = Config(partition="orders", items_per_section=4, codec=BytesCodec())
    async with await Journal.init(Context(storage), config) as used:
        await used.append_many([b"old"] * 10)
        await used.sync()
        second = (1).to_bytes(8, "big")  # not the one that the rewind makes the last: it reads that
        storage.hold(lambda call: call.partition == "orders_data" and call.what == "read_at" and call.name == second)
        reading = asyncio.create_task(used.read_many([5, 9]))
        await storage.until_held()
        await used.rewind(4)
        await used.append_many([b"new"] * 6)
        storage.let_all_go()
        assert len(set(await reading)) == 1


class AtOnce(WrappedStorage):
    """A storage that never suspends: all that tasks wait for is each other."""

    @override
    async def around(self, call: Any, go_on: Callable[[], Awaitable[T]]) -> T:
        steps = go_on().__await__()
        while True:
            try:
                next(steps)
            except StopIteration as done:
                value: T = done.value
                return value


def test_an_append_whose_section_a_rewind_discards_waits_for_nothing() -> None:
    """The section that it filled may be sealed and cut before it has its turn again: then nobody seals it (I1)."""

    async def fill_and_cut() -> None:
        config = Config(partition="orders", items_per_section=4, codec=BytesCodec())
        async with await Journal.init(Context(AtOnce(MemoryStorage())), config) as used:
            await used.append_many([b"item"] * 3)
            await used.sync()
            await asyncio.gather(used.append(b"the last one"), used.rewind(1))

    for seed in range(100):
        run_interleaved(fill_and_cut(), seed)


# The event loop.


async def orders(tasks: int = 5) -> list[int]:
    """Return the order in which tasks came to their turns."""
    order: list[int] = []

    async def act(number: int) -> None:
        for _ in range(3):
            order.append(number)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for number in range(tasks):
            group.create_task(act(number))
    return order


def test_a_seed_gives_one_order_and_seeds_give_many() -> None:
    """The order is drawn from the seed: the same one again, and others for others."""
    found = [tuple(run_interleaved(orders(), seed)) for seed in range(50)]
    assert found == [tuple(run_interleaved(orders(), seed)) for seed in range(50)]
    assert len(set(found)) == 50


def test_every_order_of_a_few_tasks_comes_up() -> None:
    """No order is left out: three tasks begin in each of six orders, none of them rarely."""

    async def main() -> tuple[int, ...]:
        order: list[int] = []

        async def act(number: int) -> None:
            order.append(number)

        await asyncio.gather(*map(act, range(3)))
        return tuple(order)

    found = Counter(run_interleaved(main(), seed) for seed in range(300))
    assert len(found) == 6
    assert min(found.values()) > 20


def test_a_year_of_sleep_takes_no_time_and_keeps_its_order() -> None:
    """Time is virtual: it jumps to the next timer, and timers end in the order of their times."""

    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        ended: list[float] = []

        async def sleep(seconds: float) -> None:
            await asyncio.sleep(seconds)
            ended.append(loop.time() - began)

        await asyncio.gather(*map(sleep, [31e6, 3600, 0.5, 60]))
        return ended

    assert run_interleaved(main(), 3) == pytest.approx([0.5, 60, 3600, 31e6], abs=0.001)


def test_time_passes_for_a_loop_that_does_not_sleep() -> None:
    """Who waits for a time by turns gets there, beside timers that are due meanwhile."""

    async def main() -> int:
        turns = 0
        async with asyncio.timeout(0.01) as patience:
            while not patience.expired():
                turns += 1
                await asyncio.sleep(0)
        return turns

    with pytest.raises(TimeoutError):
        run_interleaved(main(), 1)


def test_a_deadlock_is_told_at_once_with_where_each_task_waits() -> None:
    """When nothing can go on, running raises, and names the tasks, their places and the seed."""

    async def take(first: asyncio.Lock, second: asyncio.Lock) -> None:
        async with first:
            await asyncio.sleep(1)
            async with second:
                pass

    async def main() -> None:
        one, two = asyncio.Lock(), asyncio.Lock()
        async with asyncio.TaskGroup() as group:
            group.create_task(take(one, two), name="north")
            group.create_task(take(two, one), name="south")

    with pytest.raises(Deadlock) as caught:
        run_interleaved(main(), 7)
    places = str(caught.value).splitlines()
    assert [place.strip().split(":")[0] for place in places[1:]][1:] == ["north", "south"]
    assert all("take" in place and "Lock.acquire" in place for place in places[2:])
    assert any("seed 7" in note for note in caught.value.__notes__)


def test_a_task_group_of_each_kind_is_cancelled_by_a_timeout_of_each_kind() -> None:
    """asyncio's and anyio's task groups, timeouts and cancellations work, in any order."""

    async def main() -> list[str]:
        ended: list[str] = []

        async def wait(name: str) -> None:
            try:
                await asyncio.sleep(100)
            finally:
                ended.append(name)

        with anyio.move_on_after(1):
            async with anyio.create_task_group() as group:
                group.start_soon(wait, "anyio")
                group.start_soon(wait, "anyio")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1), asyncio.TaskGroup() as tasks:
                tasks.create_task(wait("asyncio"))
        task = asyncio.create_task(wait("task"))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(asyncio.Event().wait()), 1)
        assert asyncio.get_running_loop().time() == pytest.approx(3.1, abs=0.01)
        return ended

    for seed in range(50):
        assert run_interleaved(main(), seed) == ["anyio", "anyio", "asyncio", "task"]


def test_an_error_in_a_callback_goes_to_the_handler_and_the_loop_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """As in every event loop: to the handler that was set, else to the log."""
    found: list[Any] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(int, "one")
        await asyncio.sleep(1)
        loop.set_exception_handler(lambda _, context: found.append(context["exception"]))
        assert loop.get_exception_handler() is not None
        loop.call_later(1, int, "two")
        loop.call_later(1, found.append, "cancelled").cancel()
        await asyncio.sleep(2)

    run_interleaved(main(), 0)
    assert [str(error) for error in found] == ["invalid literal for int() with base 10: 'two'"]
    assert "invalid literal for int() with base 10: 'one'" in caplog.text


def test_an_interruption_ends_the_run() -> None:
    """KeyboardInterrupt leaves the loop at once, and what is left is cancelled."""
    ended: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    async def main() -> None:
        waiting = asyncio.create_task(wait())
        await asyncio.sleep(1)
        assert not waiting.done()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_interleaved(main(), 0)
    assert ended == ["cancelled"]


def test_a_callback_runs_in_its_context() -> None:
    """Each task has a copy of the context in which it was made, and a callback that of its `call_soon`."""
    name: ContextVar[str] = ContextVar("name", default="nobody")

    async def main() -> list[str]:
        found: list[str] = []

        async def act(own: str) -> None:
            name.set(own)
            await asyncio.sleep(0)
            asyncio.get_running_loop().call_soon(lambda: found.append(name.get()))
            await asyncio.sleep(1)
            found.append(name.get())

        await asyncio.gather(act("one"), act("two"))
        asyncio.get_running_loop().call_soon(lambda: found.append(name.get()), context=copy_context())
        await asyncio.sleep(1)
        return found

    for seed in range(10):
        assert sorted(run_interleaved(main(), seed)) == ["nobody", "one", "one", "two", "two"]


def test_asynchronous_generators_are_closed() -> None:
    """One that is dropped is closed soon, and one that is still there when the loop is closed, then."""
    closed: list[str] = []

    async def give(name: str) -> AsyncGenerator[int]:
        try:
            while True:
                yield 1
        finally:
            await asyncio.sleep(1)
            closed.append(name)

    kept = give("kept")

    async def main() -> None:
        dropped = give("dropped")
        assert await anext(dropped) + await anext(kept) == 2
        del dropped
        await asyncio.sleep(2)
        assert closed == ["dropped"]

    run_interleaved(main(), 0)
    assert closed == ["dropped", "kept"]


def test_what_no_seed_repeats_is_refused() -> None:
    """Threads, sockets, signals and other threads' calls raise, and say why."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(RuntimeError, match="found run_in_executor"):
            await asyncio.to_thread(print)
        with pytest.raises(RuntimeError, match="found create_connection"):
            await asyncio.open_connection("localhost", 1)
        with pytest.raises(RuntimeError, match="found add_signal_handler"):
            loop.add_signal_handler(2, print)
        with ThreadPoolExecutor(1) as threads, pytest.raises(RuntimeError, match="on its own thread"):
            threads.submit(loop.call_soon_threadsafe, print).result()
        with pytest.raises(RuntimeError, match="running already"):
            loop.run_forever()
        with pytest.raises(RuntimeError, match="does not run any more"):
            loop.close()

    run_interleaved(main(), 0)


def test_a_loop_may_run_again_until_it_is_closed() -> None:
    """It is stopped and goes on where it was; closed, it refuses everything."""
    loop = SeededLoop(0)
    future = loop.create_future()
    loop.call_later(5, loop.stop)
    loop.call_later(9, future.set_result, "done")
    with pytest.raises(RuntimeError, match="stopped before"):
        loop.run_until_complete(future)
    assert loop.run_until_complete(future) == "done"
    assert loop.time() == pytest.approx(9, abs=0.01)
    assert not loop.is_running()
    loop.close()
    assert loop.is_closed()
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_soon(print)
    with pytest.raises(RuntimeError, match="closed"):
        loop.run_forever()
