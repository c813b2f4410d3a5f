"""How many calls of Python functions an operation takes: the same on every machine, and what its time is made of.

Each bound says what it is made of. A call more on the way of each item is the regression that these find; where an
operation was made cheaper, its bound is to be lowered.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any

import pytest

from posjournal_async import BytesCodec, Config, Context, Counters, FileStorage, Journal, MemoryStorage
from tests.journals import others_ended
from tests.performance.counting import Calls

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from posjournal_async import Metrics, Storage

ITEM = b"x" * 100


async def begun(storage: Storage, sink: Metrics | None = None, **fields: Any) -> Journal[bytes]:
    """Return a journal whose section exists, and that has nothing to write."""
    config = Config(**{"partition": "orders", "codec": BytesCodec(), "write_buffer": 2**24, **fields})
    context = Context(storage) if sink is None else Context(storage, sink)
    journal = await Journal.init(context, config)
    await journal.append(ITEM)
    await journal.sync()
    return journal


async def test_an_append_is_one_call() -> None:
    """A straight append calls nothing of the library but itself, and asks the loop whether it runs."""
    async with await begun(MemoryStorage()) as journal:
        with Calls() as calls:
            for _ in range(500):
                await journal.append(ITEM)
        assert calls.library.total() <= 500, calls.told()
        assert calls.others.total() <= 500, calls.told()


async def test_what_many_appends_share_is_a_twentieth_of_a_call_each() -> None:
    """An append that ends a stretch of 64 KiB, 600 items of 108 bytes, makes some sixty calls, with the writer's."""
    count = 20_000
    async with await begun(MemoryStorage()) as journal:
        with Calls() as calls:
            for _ in range(count):
                await journal.append(ITEM)
        assert calls.library.total() <= count * 1.12, calls.told()
        assert calls.others.total() <= count * 1.12, calls.told()


async def test_append_many_takes_as_many_calls_for_five_hundred_items_as_for_ten() -> None:
    """About thirty for the call, and none for an item: what is done for each is a loop in C, or a comprehension."""
    async with await begun(MemoryStorage()) as journal:
        counted = []
        for length in (10, 250, 500):
            items = [ITEM] * length
            with Calls() as calls:
                await journal.append_many(items)
            counted.append((calls.library.total(), calls.others.total()))
            assert calls.library.total() <= 36, calls.told()
            await journal.sync_data()
        assert len(set(counted)) == 1, counted


async def test_making_records_takes_no_call_for_each() -> None:
    """A commit of five hundred appends takes as many calls as one of ten: they are framed in one go."""
    async with await begun(MemoryStorage()) as journal:
        counted = []
        for length in (10, 500):
            for _ in range(length):
                await journal.append(ITEM)
            with Calls() as calls:
                await journal.sync_data()
            counted.append(calls.library.total())
        assert counted[0] == counted[1], counted


async def test_a_waiter_in_a_commit_costs_five_calls() -> None:
    """Its append, `sync_data` twice (to wait, and to go on), what it waits for, and the size; the commit is shared."""

    async def commit(journal: Journal[bytes]) -> None:
        await journal.append(ITEM)
        await journal.sync_data()

    async with await begun(MemoryStorage()) as journal:
        counted = {}
        for count in (100, 200):
            tasks = [asyncio.create_task(commit(journal)) for _ in range(count)]
            with Calls() as calls:
                await asyncio.wait(tasks)
            counted[count] = calls.library.total()
            assert journal.durable_size() == journal.size()
        assert counted[200] - counted[100] <= 5 * 100, counted
        assert counted[100] <= 5 * 100 + 80, counted


@pytest.mark.parametrize(("is_sealed", "most"), [(True, 9), (False, 9)])
async def test_a_hot_read_takes_nine_calls(tmp_path: Path, is_sealed: bool, most: int) -> None:  # noqa: FBT001
    """Whether there is such an item, where its record is, the read itself, its check, and decoding it.

    One in 256 gives way to other tasks, and a few may go to a thread while the kernel writes their page.
    """
    async with await begun(FileStorage(tmp_path), items_per_section=1_200) as journal:
        await journal.append_many([ITEM] * (1_199 if is_sealed else 1_100))
        await journal.sync()
        await others_ended()  # a section is sealed a moment after it is full
        for position in range(1_000):
            await journal.read(position)
        with Calls() as calls:
            for position in range(1_000):
                await journal.read(position)
        assert calls.library.total() <= 1_000 * (most + 0.5), calls.told()
        assert calls.others.total() <= 1_000 * 1.5, calls.told()


async def test_a_replay_takes_one_call_for_an_item(tmp_path: Path) -> None:
    """The stream goes on; all else is done for a piece of some 800 items, and `replay_batches` does without that."""
    count = 10_000
    async with await begun(FileStorage(tmp_path), items_per_section=count) as journal:
        await journal.append_many([ITEM] * (count - 1))
        await journal.sync()
        seen = 0
        with Calls() as one_by_one:
            async for _ in journal.replay(0):
                seen += 1
        with Calls() as in_lists:
            async for _, items in journal.replay_batches(0):
                seen += len(items)
        assert seen == 2 * count
        assert one_by_one.library.total() <= count * 1.07, one_by_one.told()
        assert one_by_one.others.total() <= count * 0.1, one_by_one.told()
        assert in_lists.library.total() <= count * 0.07, in_lists.told()


async def test_a_cold_read_takes_as_many_calls_however_many_wait_for_a_handle_beside_it() -> None:
    """Each time that a handle is free one of them is told, not all."""
    counted: list[float] = []
    for count in (100, 400):
        async with await begun(MemoryStorage(), items_per_section=1, max_open_blobs=4) as journal:
            await journal.append_many([ITEM] * count)
            with Calls() as calls:
                await asyncio.gather(*(journal.read(position) for position in range(count)))
            counted.append(calls.library.total() / count)
    assert counted[1] < 1.1 * counted[0], counted


# A sink for metrics.


async def test_without_a_sink_nothing_of_the_measuring_is_called(tmp_path: Path) -> None:
    """Not even to find that there is none: the journal is made of the rooms as they are."""
    async with await begun(FileStorage(tmp_path), items_per_section=100) as journal:
        with Calls() as calls:
            await journal.append_many([ITEM] * 150)
            await journal.sync_data()
            await journal.sync()
            await journal.read(3)
            async for _ in journal.replay(0):
                pass
    assert calls.library["Journal.sync_data"]
    assert not [
        name for name in calls.library if name.startswith(("Measured", "Sink", "Sources", "_Stream", "_Watched"))
    ]


async def test_a_sink_costs_appends_reads_at_hand_and_replays_no_call(tmp_path: Path) -> None:
    """What they count is read off the journal when somebody asks: all that is called once more is for the commits."""
    counted = []
    for number, sink in enumerate((None, Counters())):
        async with await begun(FileStorage(tmp_path / str(number)), sink, items_per_section=2_000) as journal:
            with Calls() as appends:
                for _ in range(500):
                    await journal.append(ITEM)
            with Calls() as reads:
                for position in range(500):
                    await journal.read(position)  # from memory: nothing was committed yet
            with Calls() as replays:
                async for _ in journal.replay(0):
                    pass
            counted.append([appends.library.total(), reads.library.total(), replays.library.total()])
    without, with_sink = counted
    assert with_sink[0] == without[0]
    # One read in 256 lets others run, and the loop may then have something of the library to finish.
    assert with_sink[1] - without[1] <= 5, counted
    # The stream is entered and left: its coroutines, its end, and what a sink that makes no spans is asked.
    assert with_sink[2] - without[2] <= 10, counted


async def test_a_sink_costs_a_commit_some_twenty_calls_and_a_waiter_eight() -> None:
    """Of the library and of the sink: five numbers for the commit, one for each who waits."""

    async def commit(journal: Journal[bytes]) -> None:
        await journal.append(ITEM)
        await journal.sync_data()

    counted: dict[tuple[bool, int], int] = {}
    for sink in (None, Counters()):
        async with await begun(MemoryStorage(), sink) as journal:
            for count in (1, 101):
                tasks = [asyncio.create_task(commit(journal)) for _ in range(count)]
                with Calls() as calls:
                    await asyncio.wait(tasks)
                counted[sink is not None, count] = calls.library.total()
    more = {count: counted[True, count] - counted[False, count] for count in (1, 101)}
    assert more[1] <= 22, more
    assert more[101] - more[1] <= 100 * 8, more


# Turns of the event loop, and tasks.


class Turns(selectors.DefaultSelector):
    """A selector that counts how often the loop asks it: once in each turn."""

    count = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.count += 1
        return super().select(timeout)


def on_a_loop(selector: selectors.BaseSelector, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        runner.run(main())


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_durable_append_takes_three_turns_of_the_loop_and_no_task(tmp_path: Path, kind: str) -> None:
    """The writer waits twice in memory or once for a thread, and both go on; one task writes for all of them.

    A thread wakes the loop twice, and the second time may come late, which makes a turn more.
    """
    turns = Turns()
    created = 0

    def create(loop: asyncio.AbstractEventLoop, coroutine: Any, **fields: Any) -> asyncio.Task[Any]:
        nonlocal created
        created += 1
        return asyncio.Task(coroutine, loop=loop, **fields)

    async def main() -> None:
        async with await begun(MemoryStorage() if kind == "memory" else FileStorage(tmp_path)) as journal:
            asyncio.get_running_loop().set_task_factory(create)
            before = turns.count
            with Calls() as calls:
                for _ in range(100):
                    await journal.append(ITEM)
                    await journal.sync_data()
            taken = turns.count - before
            asyncio.get_running_loop().set_task_factory(None)
        assert created == 0
        assert calls.library["Writer._kick"] <= 1  # which makes the task of the writer
        assert taken <= (3 if kind == "memory" else 4.2) * 100
        # A commit: the queue of the writer, the tail, the data journal, the metrics, and in files the lane.
        assert calls.library.total() <= (66 if kind == "memory" else 64) * 100, calls.told()

    on_a_loop(turns, main)
