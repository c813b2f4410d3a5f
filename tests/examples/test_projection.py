"""The projection of the example holds what the journal says, whatever interrupts it."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from posjournal_async import Config, Context, ItemPruned, Journal, MemoryStorage
from posjournal_async.testing import GatedStorage
from posjournal_async.testing.wrapping import is_data_sync
from tests.examples.serving import example, printed_by, served

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

CONFIG: Config[Any] = Config(partition="orders", items_per_section=10)


def orders(count: int) -> list[dict[str, Any]]:
    chance = Random(7)
    return [{"customer": chance.choice("abcde"), "cents": chance.randrange(1_000)} for _ in range(count)]


def expected(events: list[dict[str, Any]]) -> list[tuple[str, int, int]]:
    counts, cents = Counter[str](), Counter[str]()
    for event in events:
        counts[event["customer"]] += 1
        cents[event["customer"]] += event["cents"]
    return [(customer, counts[customer], cents[customer]) for customer in sorted(counts)]


@asynccontextmanager
async def opened(file: Path, storage: Any) -> AsyncGenerator[tuple[Journal[Any], Any], None]:
    async with AsyncExitStack() as stack:
        journal = await stack.enter_async_context(await Journal.init(Context(storage), CONFIG))
        yield journal, await stack.enter_async_context(example("projection").Totals.open(file))


async def test_it_goes_on_where_it_ended(tmp_path: Path) -> None:
    """Opened again it applies what is new, and nothing twice."""
    storage, events = MemoryStorage(), orders(100)
    done = 0
    for part in (0, 1, 9, 10, 30, 50):
        async with opened(tmp_path / "totals", storage) as (journal, totals):
            for event in events[done : done + part]:
                await journal.append(event)
            done += part
            assert await totals.catch_up(journal) == done
            assert await totals.rows() == expected(events[:done])


async def test_interrupted_and_called_twice_at_once_it_is_the_same(tmp_path: Path) -> None:
    """Cancelled after any number of turns, with another call beside it: no event is applied twice or left out."""
    events = orders(60)
    async with opened(tmp_path / "totals", MemoryStorage()) as (journal, totals):
        await journal.append_many(events)
        for turns in range(60):
            await totals.clear()
            calls = [asyncio.create_task(totals.catch_up(journal)) for _ in range(2)]
            for _ in range(turns):
                await asyncio.sleep(0)
            calls[0].cancel()
            await asyncio.wait(calls[: 1 + turns % 2])
            await totals.catch_up(journal)
            assert await totals.rows() == expected(events)
            await asyncio.wait(calls)


async def test_a_call_that_knows_of_more_than_the_one_beside_it_applies_the_rest(tmp_path: Path) -> None:
    """Their batches begin at the same event and end at different ones: what a call returns for is projected."""
    events, goes_on = orders(8), threading.Event()
    async with opened(tmp_path / "totals", MemoryStorage()) as (journal, totals):
        totals._thread.submit(goes_on.wait, 30)
        calls = []
        for part in (events[:5], events[5:]):
            await journal.append_many(part)
            calls.append(asyncio.create_task(totals.catch_up(journal)))
            for _ in range(100):
                await asyncio.sleep(0)
        goes_on.set()
        assert await asyncio.gather(*calls) == [5, 8]
        assert await totals.rows() == expected(events)


async def test_a_batch_that_fails_leaves_the_projection_as_it_was(tmp_path: Path) -> None:
    """An event that cannot be applied: position and totals are those before its batch, and agree."""
    events = orders(25)
    async with opened(tmp_path / "totals", MemoryStorage()) as (journal, totals):
        await journal.append_many([*events, {"customer": "a", "cents": None}])
        with pytest.raises(sqlite3.IntegrityError):
            await totals.catch_up(journal)
        assert await totals._run(totals._position) == 20
        assert await totals.rows() == expected(events[:20])


async def test_a_projection_that_is_ahead_or_of_another_version_is_built_anew(tmp_path: Path) -> None:
    """Of a journal that was rewound, or by a program that read the events in another way."""
    events, file = orders(30), tmp_path / "totals"
    async with opened(file, MemoryStorage()) as (journal, totals):
        await journal.append_many(events)
        await totals.catch_up(journal)
        await journal.rewind(12)
        await totals.catch_up(journal)
        assert await totals.rows() == expected(events[:12])
        await totals._run(lambda: totals._connection.execute("PRAGMA user_version = 0"))
        async with example("projection").Totals.open(file) as newer:
            assert await newer.rows() == []
            await newer.catch_up(journal)
            assert await newer.rows() == expected(events[:12])


async def test_a_projection_that_is_not_opened_leaves_no_connection(tmp_path: Path) -> None:
    """Cancelled while it connects, or of a file that is no database: what was opened is closed again."""
    begun, goes_on = threading.Event(), threading.Event()
    opened: list[Any] = []

    class Slow(example("projection").Totals):  # type: ignore[misc]
        def _connect(self) -> None:
            opened.append(self)
            begun.set()
            goes_on.wait(30)
            super()._connect()

    opening = asyncio.create_task(Slow.open(tmp_path / "totals").__aenter__())
    await asyncio.to_thread(begun.wait, 30)
    opening.cancel()
    goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await opening
    (tmp_path / "other").write_bytes(b"no database" * 100)
    with pytest.raises(sqlite3.DatabaseError):
        await Slow.open(tmp_path / "other").__aenter__()
    for totals in opened:
        with pytest.raises(sqlite3.ProgrammingError):
            totals._connection.execute("SELECT 1")


async def test_events_that_are_gone_are_told(tmp_path: Path) -> None:
    """A projection that lacks pruned events cannot be brought up to date; one that has them can."""
    events = orders(30)
    async with opened(tmp_path / "totals", MemoryStorage()) as (journal, totals):
        await journal.append_many(events[:20])
        await totals.catch_up(journal)
        await journal.prune(20)
        await journal.append_many(events[20:])
        await totals.catch_up(journal)
        assert await totals.rows() == expected(events)
        await totals.clear()
        with pytest.raises(ItemPruned):
            await totals.catch_up(journal)


async def test_nothing_is_projected_that_a_crash_could_take_back(tmp_path: Path) -> None:
    """While the fsync of the events is under way, the projection stays where it is."""
    storage = GatedStorage(MemoryStorage())
    async with opened(tmp_path / "totals", storage) as (journal, totals):
        await journal.append_many(orders(5))
        storage.hold(is_data_sync)
        catching_up = asyncio.create_task(totals.catch_up(journal))
        try:
            await storage.until_held()
            assert await totals.rows() == []
            assert not catching_up.done()
        finally:
            storage.let_all_go()
        assert await catching_up == 5
        assert await totals.rows() == expected(orders(5))


PROCESS = """
import asyncio, sys
from pathlib import Path
from projection import Totals
from posjournal_async import Journal
from tests.examples.test_projection import orders

async def main(directory):
    async with (
        Journal.open(directory / "orders", items_per_section=10) as journal,
        Totals.open(directory / "totals") as totals,
    ):
        print(journal.size(), flush=True)
        for start in range(journal.size(), 10_000, 7):
            await journal.append_many(orders(10_000)[start : start + 7])
            print(await totals.catch_up(journal), flush=True)

asyncio.run(main(Path(sys.argv[1])))
"""


async def test_killed_at_any_time_it_has_what_it_said_and_goes_on(tmp_path: Path) -> None:
    """Position and totals agree, the journal has the events, and the next process applies those that are missing."""
    events = orders(10_000)
    for lines in (1, 4, 17):
        with served("-c", PROCESS, tmp_path) as process:
            assert process.process.stdout is not None
            said = [int(process.process.stdout.readline()) for _ in range(lines)][-1]
            process.kill()
        async with (
            Journal.open(tmp_path / "orders", items_per_section=10) as journal,
            example("projection").Totals.open(tmp_path / "totals") as totals,
        ):
            position = await totals._run(totals._position)
            assert said <= position <= journal.size()
            assert await totals.rows() == expected(events[:position])
            await totals.catch_up(journal)
            assert await totals.rows() == expected(events[: journal.size()])


def test_the_script_shows_the_totals(tmp_path: Path) -> None:
    """The script prints the totals as they grow, and the same when they are rebuilt."""
    assert printed_by("projection.py", tmp_path) == [
        "up to position 3: ('ann', 2, 500) ('bob', 1, 250)",
        "up to position 5: ('ann', 3, 750) ('bob', 1, 250) ('eve', 1, 250)",
        "rebuilt up to 5: ('ann', 3, 750) ('bob', 1, 250) ('eve', 1, 250)",
    ]
    assert printed_by("projection.py", tmp_path)[-1].startswith("rebuilt up to 10: ('ann', 6, 1500)")
