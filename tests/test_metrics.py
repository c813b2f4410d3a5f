"""What a journal counts: each number of `posjournal_async.metrics`, after a life in which every one is known."""

from __future__ import annotations

from dataclasses import dataclass, field

from posjournal_async import Context, Counters, Journal, MemoryStorage
from tests.journals import config_of, filled, name_of_section

HEAD = 8  # bytes of a record before its payload


@dataclass
class Sink:
    """A sink that keeps each value."""

    values: dict[str, list[float]] = field(default_factory=dict[str, list[float]])

    def count(self, name: str, amount: int, label: str) -> None:
        assert label == "shop_orders"
        self.values.setdefault(name, []).append(amount)

    def observe(self, name: str, value: float, label: str) -> None:
        self.count(name, int(value), label)

    def total(self, name: str) -> float:
        return sum(self.values.get(name, []))


async def test_each_number_is_counted_where_the_table_says() -> None:
    """25 items in three sections, a sync of each kind, a prune of two sections, a rewind of three items."""
    sink = Sink()
    async with await Journal.init(Context(MemoryStorage(), sink, "shop").with_label("orders"), config_of()) as journal:
        for _ in range(22):
            await journal.append(b"x" * 12)
        assert sink.values["items_committed"] == [10, 10]
        await journal.sync_data()
        assert sink.values["sections_sealed"] == [1, 1]
        assert sink.values["items_committed"] == [10, 10, 2]
        assert sink.values["commit_waiters"] == [0, 0, 1]
        for _ in range(3):
            await journal.append(b"x" * 12)
        await journal.sync()
        assert sink.values["items_committed"] == [10, 10, 2, 3]
        assert sink.values["commits"] == [1] * 4
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


async def test_what_was_written_for_want_of_room_is_counted_once() -> None:
    """Bytes count when they are handed to the storage, whether that is a commit or not."""
    counters = Counters()
    context = Context(MemoryStorage(), counters, "orders")
    async with await Journal.init(context, config_of(1_000, write_buffer=100)) as journal:
        for _ in range(50):
            await journal.append(b"x" * 12)
        await journal.sync_data()
        assert counters.totals["orders", "bytes_written"] == 50 * (HEAD + 12)


async def test_an_open_that_repaired_something_is_counted() -> None:
    """One that found everything in order is not."""
    storage, counters = MemoryStorage(), Counters()
    await (await filled(Context(storage, counters, "orders"), 15)).close()
    await (await Journal.init(Context(storage, counters, "orders"), config_of())).close()
    assert ("orders", "recoveries") not in counters.totals
    await storage.remove("orders_offsets", name_of_section(1))
    await (await Journal.init(Context(storage, counters, "orders"), config_of())).close()
    assert counters.totals["orders", "recoveries"] == 1
