"""What an item costs beside the least that Python can do for it, in the same process and at the same time.

No time is asserted, only ratios, each about twice what was measured when it was written. They catch what counting calls
does not see: work in C for each item, copies that grow with what is there. A slow or busy machine slows down both
sides; many short rounds are taken in turn, and of each side the quickest one counts, which nothing disturbed.
"""

from __future__ import annotations

import gc
import os
import random
import sys
from time import perf_counter
from typing import TYPE_CHECKING, Any

import pytest
from crc32c import crc32c

from posjournal_async import BytesCodec, Config, Context, FileStorage, Journal, MemoryStorage
from tests.journals import others_ended

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
    from pathlib import Path

    from posjournal_async import Storage

COUNT = 1_000
ITEMS = [random.Random(number).randbytes(100) for number in range(COUNT)]
RECORD = 108

ROUNDS = 150


@pytest.fixture(autouse=True)
def _undisturbed() -> Iterator[None]:
    """Refuse to compare what a tracer watches with what it does not; keep the collector out of the rounds."""
    if sys.gettrace() is not None or sys.getprofile() is not None:
        pytest.skip("a tracer, as that of coverage, slows down the library and not what it is compared with")
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def least_seconds(*sides: Callable[[], Awaitable[Any]], after: Callable[[], Awaitable[Any]]) -> list[float]:
    """Return the time of the quickest round of each side; the sides take turns, and `after` is not timed."""
    least = [float("inf")] * len(sides)
    for _ in range(ROUNDS):
        for index, side in enumerate(sides):
            start = perf_counter()
            await side()
            least[index] = min(least[index], perf_counter() - start)
            await after()
    return least


async def opened(storage: Storage, **fields: Any) -> Journal[bytes]:
    return await Journal.init(Context(storage), Config(partition="orders", codec=BytesCodec(), **fields))


async def nothing() -> None:
    """Take as long as an await of something that is done takes."""


async def await_nothing() -> None:
    for _ in ITEMS:
        await nothing()


async def check_all() -> None:
    for item in ITEMS:
        crc32c(item)


async def test_appends_cost_a_few_awaits_each() -> None:
    """Measured: 4 awaits of an empty coroutine for an append, 7.5 with its record made and committed."""
    async with await opened(MemoryStorage()) as journal:

        async def append() -> None:
            for item in ITEMS[: COUNT // 2]:  # with all of them it would be framed, and others would get their turns
                await journal.append(item)

        async def append_and_commit() -> None:
            for item in ITEMS:
                await journal.append(item)
            await journal.sync_data()

        awaits, appends, commits = await least_seconds(
            await_nothing, append, append_and_commit, after=journal.sync_data
        )
    assert appends < 8.5 * awaits / 2
    assert commits < 15 * awaits


async def test_a_commit_costs_the_same_however_much_there_is() -> None:
    """Measured: 1.0 times as much for a tail of 60,000 items as for one of none: nothing of what is there is copied."""
    async with (
        await opened(MemoryStorage()) as short,
        await opened(MemoryStorage()) as long,
    ):
        await long.append_many(ITEMS * 60)
        await long.sync()

        async def commit(journal: Journal[bytes]) -> None:
            for item in ITEMS[:100]:
                await journal.append(item)
            await journal.sync_data()

        async def cut_back() -> None:
            await short.rewind(0)
            await long.rewind(60_000)

        few, many = await least_seconds(lambda: commit(short), lambda: commit(long), after=cut_back)
    assert many < 2 * few


async def test_append_many_costs_about_two_checksums_for_an_item() -> None:
    """Measured: 1.5 checksums of 100 bytes for an item taken in, 5 with its record made and committed."""
    async with await opened(MemoryStorage(), write_buffer=2**24) as journal:

        async def append() -> None:
            await journal.append_many(ITEMS[: COUNT // 2])  # all of them would be framed at once

        async def append_and_commit() -> None:
            await journal.append_many(ITEMS)
            await journal.sync_data()

        checks, appends, commits = await least_seconds(check_all, append, append_and_commit, after=journal.sync_data)
    assert appends < 3.5 * checks / 2
    assert commits < 11 * checks


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="every read goes to a thread on this system")
async def test_a_hot_read_costs_a_few_system_calls(tmp_path: Path) -> None:
    """Measured: 3.2 times a preadv of the same bytes from a sealed section, 4 times from a tail."""
    chance = random.Random(1)
    positions = [chance.randrange(COUNT) for _ in range(100)]
    async with await opened(FileStorage(tmp_path), items_per_section=COUNT) as journal:
        await journal.append_many(ITEMS + ITEMS[:-1])
        await journal.sync()
        await others_ended()
        fd = os.open(tmp_path / "orders_data" / ("00" * 8), os.O_RDONLY)

        async def call() -> None:
            for position in positions:
                os.preadv(fd, (bytearray(RECORD),), position * RECORD)

        async def read(first: int) -> None:
            for position in positions:
                await journal.read(first + position - (position == COUNT - 1))

        calls, sealed, tail = await least_seconds(call, lambda: read(0), lambda: read(COUNT), after=nothing)
        os.close(fd)
    assert sealed < 6.5 * calls
    assert tail < 8 * calls


async def test_a_replay_costs_a_few_items_of_a_bare_generator(tmp_path: Path) -> None:
    """Measured: 5 times an asynchronous generator that does nothing, 3.6 times in lists."""

    async def bare() -> AsyncGenerator[tuple[int, bytes], None]:
        for pair in enumerate(ITEMS):
            yield pair

    async def passed(stream: AsyncGenerator[Any, None]) -> None:
        async for _ in stream:
            pass

    async with await opened(FileStorage(tmp_path), items_per_section=COUNT) as journal:
        await journal.append_many(ITEMS)
        await journal.sync()
        await others_ended()
        generator, items, lists = await least_seconds(
            lambda: passed(bare()),
            lambda: passed(journal.replay(0)),
            lambda: passed(journal.replay_batches(0)),
            after=nothing,
        )
    assert items < 10 * generator
    assert lists < 7.5 * generator
