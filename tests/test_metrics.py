"""What a journal counts: each number of `posjournal_async.metrics`, after a life in which every one is known."""

from __future__ import annotations

import asyncio
import errno
import gc
import re
import subprocess
import sys
import threading
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import pytest

from posjournal_async import (
    CodecError,
    Context,
    Counters,
    FileStorage,
    InvalidRewind,
    Journal,
    JournalFailed,
    JsonCodec,
    MemoryStorage,
    StorageError,
)
from posjournal_async.metrics import CATALOGUE, Kind, Sample
from posjournal_async.testing import FaultyStorage, GatedStorage
from tests.journals import config_of, filled, item_at, name_of_section, others_ended, put_payload, streamed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from posjournal_async.metrics import Source

HEAD = 8  # bytes of a record before its payload
ROOT = Path(__file__).parents[1]


@dataclass
class Sink:
    """A sink that keeps each value."""

    values: dict[str, list[float]] = field(default_factory=dict[str, list[float]])

    def count(self, name: str, amount: int, label: str) -> None:
        assert label == "shop_orders"
        self.values.setdefault(name, []).append(amount)

    def observe(self, name: str, value: float, label: str) -> None:
        assert label == "shop_orders"
        self.values.setdefault(name, []).append(value)

    def total(self, name: str) -> float:
        return sum(self.values.get(name, []))

    def in_context(self, storage: Any = None) -> Context:
        return Context(storage or MemoryStorage(), self, "shop").with_label("orders")


async def test_each_number_is_counted_where_the_table_says() -> None:
    """25 items in three sections, a sync of each kind, a prune of two sections, a rewind of three items."""
    sink = Sink()
    async with await Journal.init(sink.in_context(), config_of()) as journal:
        for _ in range(22):
            await journal.append(b"x" * 12)
        assert sink.values["items_committed"] == [10, 10]
        await journal.sync_data()
        assert sink.values["sections_sealed"] == [1, 1]
        assert sink.values["items_committed"] == [10, 10, 2]
        assert sink.values["commit_items"] == [10, 10, 2]
        assert sink.values["commit_waiters"] == [0, 0, 1]
        for _ in range(3):
            await journal.append(b"x" * 12)
        await journal.sync()
        assert sink.values["items_committed"] == [10, 10, 2, 3]
        assert sink.values["commits"] == [1] * 4
        assert len(sink.values["commit_seconds"]) == 4
        assert sink.total("bytes_written") == 25 * (HEAD + 12)
        assert await journal.prune(20)
        assert sink.values["sections_pruned"] == [2]
        await journal.rewind(22)
        assert sink.values["items_rewound"] == [3]
        await journal.append(b"y" * 12)
        await journal.sync()
        assert sink.values["items_committed"] == [10, 10, 2, 3, 1]
    assert sink.total("bytes_written") == 26 * (HEAD + 12)
    assert "recoveries" not in sink.values
    assert "failures" not in sink.values


async def test_what_was_written_for_want_of_room_is_counted_once() -> None:
    """Bytes count when they are handed to the storage, whether that is a commit or not."""
    counters = Counters()
    context = Context(MemoryStorage(), counters, "orders")
    async with await Journal.init(context, config_of(1_000, write_buffer=100)) as journal:
        for _ in range(50):
            await journal.append(b"x" * 12)
        await journal.sync_data()
        assert counters.totals["orders", "bytes_written"] == 50 * (HEAD + 12)


@pytest.mark.parametrize("turns", range(6))
async def test_what_is_appended_while_a_sync_begins_is_counted(turns: int) -> None:
    """Whether the sync still takes it along or not."""
    counters = Counters()
    context = Context(MemoryStorage(), counters, "orders")
    async with await filled(context, 1, config_of(1_000)) as journal:
        await journal.sync()
        await journal.append(b"x" * 12)
        syncing = asyncio.create_task(journal.sync())
        for _ in range(turns):
            await asyncio.sleep(0)
        await journal.append(b"x" * 12)
        await syncing
        await journal.sync()
    assert counters.totals["orders", "bytes_written"] == HEAD + len(item_at(0)) + 2 * (HEAD + 12)


async def test_a_sync_of_what_is_durable_is_no_commit() -> None:
    """It writes the index and the checkpoint, and syncs no data: neither counted nor timed."""
    sink = Sink()
    async with await Journal.init(sink.in_context(), config_of()) as journal:
        await journal.append(b"x")
        await journal.sync_data()
        await journal.sync()
        await journal.append(b"x")
        await journal.sync_data()
    assert sink.values["commits"] == [1, 1]
    assert sink.values["commit_items"] == [1, 1]
    assert len(sink.values["commit_seconds"]) == 2


async def test_an_open_that_repaired_something_is_counted() -> None:
    """One that found everything in order is not."""
    storage, counters = MemoryStorage(), Counters()
    await (await filled(Context(storage, counters, "orders"), 15)).close()
    await (await Journal.init(Context(storage, counters, "orders"), config_of())).close()
    assert ("orders", "recoveries") not in counters.totals
    await storage.remove("orders_offsets", name_of_section(1))
    await (await Journal.init(Context(storage, counters, "orders"), config_of())).close()
    assert counters.totals["orders", "recoveries"] == 1


# What takes time.


async def test_calls_that_wait_for_one_commit_are_timed_each_by_itself() -> None:
    """A call that has nothing to wait for is not, and one that is cancelled is not either."""
    sink = Sink()
    storage = GatedStorage(MemoryStorage())
    async with await Journal.init(sink.in_context(storage), config_of()) as journal:
        await journal.append(b"x")
        storage.hold(lambda call: call.what in {"sync", "write_durably_at"})
        waiting = [asyncio.create_task(journal.sync_data()) for _ in range(3)]
        await storage.until_held()
        waiting[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting[0]
        storage.let_all_go()
        await asyncio.gather(*waiting[1:])
        assert sink.values["commit_waiters"] == [2]
        await journal.sync_data()
        assert len(sink.values["sync_data_seconds"]) == 2
        assert "sync_seconds" not in sink.values
        await journal.sync()
        await journal.sync()
        assert len(sink.values["sync_seconds"]) == 1
        assert len(sink.values["sync_data_seconds"]) == 2


async def test_the_time_is_that_of_the_wait() -> None:
    """Of a commit, of those who wait for it, and of a read: at least while the storage held it, at most all of it."""
    sink = Sink()
    storage = GatedStorage(MemoryStorage())
    async with await Journal.init(sink.in_context(storage), config_of()) as journal:
        await journal.append(b"x")
        await journal.sync()  # the section is there, and what is held below is the commit itself
        names: dict[str, list[str]] = {
            "sync_data": ["sync_data_seconds", "commit_seconds"],
            "sync": ["sync_seconds", "commit_seconds"],
            "read": ["read_wait_seconds"],
        }
        calls: dict[str, Callable[[], Any]] = {
            "sync_data": journal.sync_data,
            "sync": journal.sync,
            "read": lambda: journal.read(0),
        }
        for what, call in calls.items():
            await (others_ended() if what == "read" else journal.append(b"y"))
            storage.hold(lambda held: held.partition == "orders_data")
            began = perf_counter()
            task = asyncio.create_task(call())
            await storage.until_held()
            held = perf_counter()
            for _ in range(1_000):
                perf_counter()
            least = perf_counter() - held
            storage.let_all_go()
            await task
            most = perf_counter() - began
            for name in names[what]:
                assert least <= sink.values[name][-1] <= most, name


async def test_a_read_from_memory_is_not_timed(tmp_path: Path) -> None:
    """Only one that had to wait for the storage: what is not written yet is at hand."""
    sink = Sink()
    async with await Journal.init(sink.in_context(FileStorage(tmp_path)), config_of()) as journal:
        await journal.append(b"x")
        await journal.read(0)
        assert "read_wait_seconds" not in sink.values


# What is read off the journal.


async def test_a_journal_says_how_it_is() -> None:
    """Every gauge and every counter that is read, after a life in which all of them are known."""
    counters = Counters()
    context = Context(MemoryStorage(), counters, "shop")
    journal = await filled(context, 25)
    await journal.sync_data()
    await journal.prune(10)
    await journal.append_many([b"x" * 12, b"y" * 12])
    await others_ended()
    sample = counters.samples()["shop"]
    assert sample.gauges == {
        "size": 27,
        "boundary": 10,
        "retained_items": 17,
        "durable_size": 25,
        "tail_items": 7,
        "waiting_bytes": 2 * (HEAD + 12),
        "open_blobs": 4,  # a sealed section, the tail and its index, the checkpoint
        "failed": 0,
    }
    assert sample.totals == {"items_appended": 27, "reads": 0, "replays": 0, "items_replayed": 0}
    await journal.rewind(20)
    await journal.append(b"z")
    assert (await journal.read(12), await journal.read(20))[1] == b"z"
    assert len(await journal.read_many([11, 13, 20])) == 3
    assert len(await streamed(journal.replay(11))) == 10
    assert len(await streamed(journal.replay_batches(21))) == 0
    totals = {"items_appended": 28, "reads": 5, "replays": 2, "items_replayed": 10}
    assert counters.samples()["shop"].totals == totals
    await journal.close()
    assert counters.samples() == {"shop": Sample({}, totals)}
    assert {metric.name for metric in CATALOGUE if metric.is_sampled} == {*sample.gauges, *sample.totals}


async def test_a_read_that_waits_is_counted_once(tmp_path: Path) -> None:
    """By `read` and by `read_many`, from a section that has to be opened."""
    counters = Counters()
    context = Context(FileStorage(tmp_path), counters)
    journal = await filled(context, 30, config_of(max_open_blobs=1))
    for position in (0, 10, 0):
        await journal.read(position)
    await journal.read_many([1, 11, 21])
    assert counters.samples()["orders"].totals["reads"] == 6
    assert counters.totals["orders", "read_wait_seconds"] > 0
    await journal.close()


async def test_journals_of_one_label_are_added_up_and_what_they_counted_stays() -> None:
    """Also when they are closed and opened again; a label that is empty is the partition."""
    storage, counters = MemoryStorage(), Counters()
    journals = []
    for partition, count in (("orders", 3), ("frames", 5)):
        journals.append(await filled(Context(storage, counters, "shop"), count, config_of(partition=partition)))
    async with await filled(Context(storage, counters), 7, config_of(partition="parcels")):
        samples = counters.samples()
    assert samples["shop"].gauges["size"] == 8
    assert samples["shop"].totals["items_appended"] == 8
    assert samples["parcels"].gauges["size"] == 7
    for journal in journals:
        await journal.close()
    async with await filled(Context(storage, counters, "shop"), 4, config_of(partition="orders")):
        again = counters.samples()["shop"]
    assert again.gauges["size"] == 4
    assert again.totals["items_appended"] == 9  # one more than before
    assert counters.samples()["parcels"] == Sample({}, samples["parcels"].totals)


async def test_a_sink_keeps_no_journal_alive() -> None:
    """One that is forgotten is collected with a warning, and asked no more; what it counted stays."""
    counters = Counters()
    journal = await filled(Context(MemoryStorage(), counters), 3)
    await journal.sync()
    await others_ended()
    await asyncio.sleep(0)  # for the last thing that the loop has of its writer
    assert counters.samples()["orders"].gauges["size"] == 3
    del journal
    with pytest.warns(ResourceWarning, match="unclosed journal 'orders'"):
        gc.collect()
    assert counters.samples()["orders"] == Sample({}, {**counters.samples()["orders"].totals})
    async with await filled(Context(MemoryStorage(), counters), 4):
        assert counters.samples()["orders"].totals["items_appended"] == 7
        assert len(counters._live) == 1


def test_opening_a_journal_asks_two_others_however_many_there_are() -> None:
    """Yet those that were collected unclosed are found: after a round they are gone, and what they counted stays."""
    counters = Counters()
    asked = 0
    gone: set[int] = set()

    def open_one(number: int) -> Source:
        def source() -> Sample | None:
            nonlocal asked
            asked += 1
            return None if number in gone else Sample({"size": 1}, {"reads": 1})

        counters.watch("orders", source)
        return source

    opened = [open_one(number) for number in range(100)]
    assert asked <= 200
    assert counters.samples()["orders"].totals["reads"] == 100
    for source in opened[:10]:
        counters.unwatch(source)
    gone |= set(range(10, 60))
    for number in range(100, 200):
        open_one(number)
    assert len(counters._live) == len(counters._in_turn) == 140
    assert counters.samples()["orders"] == Sample({"size": 140}, {"reads": 200})


async def test_a_journal_may_be_asked_in_another_thread() -> None:
    """While items are appended, rewound and pruned: what is counted never goes down, and nothing breaks."""
    counters = Counters()
    seen: list[Sample] = []
    troubles: list[BaseException] = []
    is_over = threading.Event()

    def scrape() -> None:
        try:
            while not is_over.is_set():
                seen.append(counters.samples()["orders"])
        except BaseException as trouble:  # noqa: BLE001 - shown below
            troubles.append(trouble)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    thread = threading.Thread(target=scrape)
    try:
        async with await Journal.init(Context(MemoryStorage(), counters), config_of()) as journal:
            thread.start()
            for _ in range(60):
                await journal.append_many([b"x"] * 12)
                await journal.rewind(journal.size() - 5)
                await journal.prune(max(journal.size() - 15, 0))
                await streamed(journal.replay(journal.bounds().start))
            is_over.set()
            await asyncio.to_thread(thread.join)
    finally:
        is_over.set()
        sys.setswitchinterval(before)
    assert not troubles
    assert len(seen) > 10
    for name in ("items_appended", "replays", "items_replayed"):
        totals = [sample.totals[name] for sample in seen]
        assert totals == sorted(totals), name
    assert counters.samples()["orders"].totals["items_appended"] == 60 * 12


def test_a_total_that_a_thread_saw_half_changed_does_not_go_down() -> None:
    """A rewind lowers the size before it counts what it discarded: until then the sum lags, and is not shown."""
    counters = Counters()
    totals = iter([{"items_appended": 12}, {"items_appended": 7}, {"items_appended": 13}])
    counters.watch("orders", lambda: Sample({}, next(totals)))
    assert [counters.samples()["orders"].totals["items_appended"] for _ in range(3)] == [12, 12, 13]


# Calls.


@dataclass
class Tracer(Counters):
    """A sink that notes which calls began, and how they ended."""

    begun: list[str] = field(default_factory=list[str])
    ended: list[tuple[str, str | None]] = field(default_factory=list[tuple[str, str | None]])

    def __post_init__(self) -> None:
        super().__init__()

    def begin_span(self, name: str, label: str) -> Callable[[BaseException | None], None]:
        assert label == "orders"
        self.begun.append(name)
        return lambda error: self.ended.append((name, None if error is None else type(error).__name__))


async def test_calls_of_weight_are_told_to_a_sink_that_traces() -> None:
    """With the error that ended them, if any; a sync that has nothing to do is none, an append and a read never are."""
    tracer = Tracer()
    storage = MemoryStorage()
    context = Context(storage, tracer)
    journal = await Journal.init(context, config_of())
    await journal.append(b"x")
    for _ in range(2):
        await journal.sync_data()
        await journal.sync()
    await journal.append_many([b"x"] * 14)
    await journal.read(2)
    await journal.prune(3)
    await journal.prune(12)
    await journal.rewind(11)
    with pytest.raises(InvalidRewind):
        await journal.rewind(12)
    await streamed(journal.replay(10))
    await streamed(journal.replay_batches(10))
    async with aclosing(journal.replay(10)) as stream:
        async for _ in stream:
            break
    journal.replay(10)  # never begun
    await journal.close()
    await (await Journal.init_sync(context, config_of(), range(10, 12))).close()
    await (await Journal.init_at_size(context, config_of(), 7)).close()
    fine = ["init", "sync_data", "sync", "prune", "prune", "rewind"]
    streams = ["replay"] * 3
    assert tracer.begun == [*fine, "rewind", *streams, "init_sync", "prune", "rewind", "init_at_size"]
    assert tracer.ended == [
        *((name, None) for name in fine),
        ("rewind", "InvalidRewind"),
        *((name, None) for name in streams),
        ("prune", None),
        ("rewind", None),
        ("init_sync", None),
        ("init_at_size", None),
    ]


async def test_calls_that_fail_are_told_with_their_error() -> None:
    """A replay that cannot decode an item, an open that is refused, a sync that fails, and one that is cancelled."""
    tracer = Tracer()
    storage = MemoryStorage()
    await (await filled(Context(storage), 1)).close()
    with pytest.raises(Exception, match="codec"):
        await Journal.init(Context(storage, tracer), config_of(codec=JsonCodec()))
    await storage.remove("orders_checkpoint", None)
    await storage.remove("orders_data", None)
    await storage.remove("orders_offsets", None)
    tracer.ended.clear()
    config = config_of(codec=JsonCodec())
    await (await filled(Context(storage), 0, config)).close()
    async with await Journal.init(Context(storage), config) as plain:
        await plain.append(1)  # type: ignore[arg-type]
    await put_payload(storage, b"no JSON", compressed=False)
    faulty = FaultyStorage(storage)
    gated = GatedStorage(faulty)
    journal = await Journal.init(Context(gated, tracer), config)
    with pytest.raises(CodecError):
        await streamed(journal.replay(0))
    await journal.append(2)  # type: ignore[arg-type]
    gated.hold(lambda call: call.what in {"sync", "write_at", "write_durably_at"})
    impatient = asyncio.create_task(journal.sync_data())
    await gated.until_held()
    impatient.cancel()
    faulty.fail_at = faulty.count + 1
    gated.let_all_go()
    with pytest.raises(StorageError):
        await journal.sync()
    with pytest.raises(JournalFailed):
        await journal.close()
    assert tracer.ended == [
        ("init", None),
        ("replay", "CodecError"),
        ("sync_data", "CancelledError"),
        ("sync", "StorageError"),
    ]


# A sink that is broken.


class Broken(Tracer):
    """A sink whose n-th call raises, in one of its methods."""

    def __init__(self, method: str, error: BaseException, at: int = 1) -> None:
        super().__init__()
        self.__post_init__()
        self._left = at
        self._method = method
        self._error = error
        self.calls_after = 0

    def _strike(self, method: str) -> None:
        if self._left <= 0:
            self.calls_after += 1
        if method == self._method:
            self._left -= 1
            if self._left == 0:
                raise self._error

    def count(self, name: str, amount: int, label: str) -> None:
        self._strike("count")
        super().count(name, amount, label)

    def observe(self, name: str, value: float, label: str) -> None:
        self._strike("observe")
        super().observe(name, value, label)

    def watch(self, label: str, source: Source) -> None:
        self._strike("watch")
        super().watch(label, source)

    def unwatch(self, source: Source) -> None:
        super().unwatch(source)
        self._strike("unwatch")

    def begin_span(self, name: str, label: str) -> Callable[[BaseException | None], None]:
        self._strike("begin_span")
        end = super().begin_span(name, label)

        def ended(error: BaseException | None) -> None:
            self._strike("end")
            end(error)

        return ended


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    """What the library has logged, as level and text."""
    with caplog.at_level("DEBUG", "posjournal_async"):
        yield lambda: [
            f"{record.levelname} {record.getMessage()}"
            for record in caplog.records
            if record.name == "posjournal_async"
        ]


@pytest.mark.parametrize("method", ["count", "observe", "watch", "unwatch", "begin_span", "end"])
@pytest.mark.parametrize("error", [ValueError("no disk for numbers"), MemoryError()], ids=repr)
async def test_a_sink_that_raises_is_switched_off_and_the_journal_goes_on(
    method: str, error: Exception, lines: Callable[[], list[str]]
) -> None:
    """It is logged once, with the traceback, and nothing is asked of it any more but to forget the journal."""
    broken = Broken(method, error)
    storage = MemoryStorage()
    journal = await filled(Context(storage, broken), 25)
    await journal.sync_data()
    await journal.sync()
    await journal.prune(10)
    await journal.rewind(20)
    await streamed(journal.replay(10))
    await journal.append(b"x")
    await journal.close()
    assert journal._writer.failure is None
    assert lines() == ["WARNING journal orders: the sink Broken raised, and is not asked any more"]
    assert broken.calls_after <= (0 if method == "unwatch" else 1)
    assert "orders" not in broken.samples() or not broken.samples()["orders"].gauges
    async with await Journal.init(Context(storage), config_of()) as again:
        assert again.recovery.clean
        assert again.bounds() == range(10, 21)


class Interruption(BaseException):
    """What is no `Exception`: as a KeyboardInterrupt, which would end the event loop of the test too."""


async def test_an_interruption_in_a_sink_is_one_of_the_writer() -> None:
    """The journal fails, what was durable before is there, and opening it again recovers (C5)."""
    storage = MemoryStorage()
    journal = await filled(Context(storage, Broken("observe", Interruption())), 3)
    with pytest.raises(JournalFailed):
        await journal.sync_data()
    with pytest.raises(JournalFailed):
        await journal.append(b"x")
    with pytest.raises(JournalFailed):
        await journal.close()
    async with await Journal.init(Context(storage), config_of()) as again:
        assert again.size() == 3


async def test_a_sink_without_more_than_the_two_methods_is_a_sink() -> None:
    """It is asked nothing else."""
    sink = Sink()
    async with await filled(sink.in_context(), 3) as journal:
        await journal.sync()
        await journal.prune(3)
    assert sink.total("items_committed") == 3


# The log.


async def test_an_open_that_repaired_something_is_one_line(lines: Callable[[], list[str]]) -> None:
    """It says what; an open that found all in order says nothing."""
    storage = MemoryStorage()
    await (await filled(Context(storage), 15)).close()
    await (await filled(Context(storage), 15)).close()
    assert lines() == []
    blob, length = await storage.open("orders_data", name_of_section(1))
    await blob.write_at(length, b"\x20\x00\x00\x00half")
    await blob.close()
    await storage.remove("orders_offsets", name_of_section(1))
    await (await filled(Context(storage), 15)).close()
    assert lines() == [
        "WARNING journal orders: opening it repaired something: items_found=15, bytes_cut=8, offsets_rebuilt=1"
    ]


async def test_a_journal_that_failed_is_one_line_without_a_byte_of_an_item(lines: Callable[[], list[str]]) -> None:
    """However many calls are refused then; it is counted once too, and shown as long as it is open."""
    counters = Counters()
    storage = FaultyStorage(MemoryStorage(), code=errno.ENOSPC)
    journal = await filled(Context(storage, counters), 0)
    await journal.append(b"secret")
    storage.fail_at = storage.count + 1
    for expected in (StorageError, JournalFailed, JournalFailed):
        with pytest.raises(expected):
            await journal.sync()
    assert counters.samples()["orders"].gauges["failed"] == 1
    with pytest.raises(JournalFailed):
        await journal.close()
    assert counters.totals["orders", "failures"] == 1
    [line] = lines()
    assert re.fullmatch(r"ERROR journal orders failed, and has to be opened again: .*no space left on device.*", line)
    assert "secret" not in line


async def test_the_error_of_somebody_else_is_named_and_not_quoted(lines: Callable[[], list[str]]) -> None:
    """A storage or an interpreter may put into it what it likes. It is told once, also when it strikes twice."""
    counters = Counters()
    journal = await filled(Context(MemoryStorage(), counters), 1)
    for _ in range(2):
        journal._writer.fail(ValueError("cannot store b'secret'"))
    assert counters.totals["orders", "failures"] == 1
    with pytest.raises(JournalFailed):
        await journal.close()
    assert lines() == ["ERROR journal orders failed, and has to be opened again: ValueError"]


def test_without_configuration_nothing_is_printed_and_nothing_is_imported() -> None:
    """A process that opens a damaged journal, and makes one fail, is silent; no extra is read in for the metrics."""
    program = """
import asyncio, sys
from posjournal_async import *
from posjournal_async.testing import FaultyStorage
async def main():
    storage = FaultyStorage(MemoryStorage())
    journal = await Journal.init(Context(storage, Counters()), Config(partition="orders"))
    await journal.append(1)
    storage.fail_at = storage.count + 1
    try:
        await journal.close()
    except StorageError:
        pass
asyncio.run(main())
assert not {"prometheus_client", "opentelemetry"} & set(sys.modules), sys.modules
assert "posjournal_async.adapters" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# What is said about it.


def test_the_document_lists_every_metric() -> None:
    """With its kind and unit, in the order of the catalogue."""
    document = (ROOT / "docs" / "metrics.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (\w+) \|", document, re.MULTILINE)
    assert rows == [(metric.name, metric.kind.value, metric.unit) for metric in CATALOGUE]


def test_every_distribution_has_bounds_that_ascend() -> None:
    """Seconds go from 50 microseconds, a fast fsync, to 10 seconds, a device that hangs."""
    for metric in CATALOGUE:
        assert (metric.kind is Kind.DISTRIBUTION) == bool(metric.bounds)
        assert list(metric.bounds) == sorted(set(metric.bounds))
        if metric.unit == "seconds":
            assert (metric.bounds[0], metric.bounds[-1]) == (5e-5, 10)
