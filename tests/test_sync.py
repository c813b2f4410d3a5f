"""`sync_data` and `sync`: what is durable when, and for how many callers at once."""

import asyncio

import pytest

from posjournal_async import Context, Counters, Journal, Storage
from tests.journals import config_of, contents_of, filled, item_at, items_in, reopened


@pytest.mark.parametrize("sync", ["sync_data", "sync", "commit"])
@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 25])
async def test_everything_appended_before_is_durable_on_return(context: Context, count: int, sync: str) -> None:
    """The durable size is the size that the journal had at the call (D1)."""
    async with await filled(context, count) as journal:
        assert journal.durable_size() == count // 10 * 10
        await getattr(journal, sync)()
        assert journal.durable_size() == count
        await journal.append(item_at(count))
        assert journal.durable_size() == (count + 1 if (count + 1) % 10 == 0 else count)


async def test_an_append_alone_makes_nothing_durable(context: Context) -> None:
    """Without a sync and without a full section the durable size stays (D2)."""
    async with await Journal.init(context, config_of()) as journal:
        for _ in range(9):
            await journal.append(b"x")
            assert journal.durable_size() == 0


async def test_what_opening_shows_is_durable(context: Context) -> None:
    """After `init` the durable size is the size (D3)."""
    journal = await reopened(await filled(context, 17))
    assert journal.durable_size() == journal.size() == 17
    await journal.close()


def test_commit_is_another_name_of_sync_data() -> None:
    """The older name calls the very same method."""
    assert vars(Journal)["commit"] is vars(Journal)["sync_data"]


async def test_tasks_that_sync_at_once_share_their_commits(storage: Storage) -> None:
    """256 tasks that append and sync cost far fewer fsyncs than tasks, and each is covered when it goes on (I3)."""
    counters = Counters()
    context = Context(storage, counters, "shop").with_label("orders")
    async with await Journal.init(context, config_of(65_536)) as journal:

        async def append_durably(number: int) -> int:
            position = await journal.append(b"%d" % number)
            await journal.sync_data()
            assert journal.durable_size() > position
            return position

        positions = await asyncio.gather(*(append_durably(number) for number in range(256)))
        assert sorted(positions) == [*range(256)]
        assert 1 <= counters.totals["shop_orders", "commits"] <= 8
        assert counters.totals["shop_orders", "items_committed"] == 256


async def test_a_sync_of_what_is_durable_costs_no_commit(storage: Storage) -> None:
    """There is nothing to do, so nothing is done."""
    counters = Counters()
    async with await filled(Context(storage, counters, "orders"), 5) as journal:
        await journal.sync_data()
        assert counters.totals["orders", "commits"] == 1
        await journal.sync_data()
        assert counters.totals["orders", "commits"] == 1
        await journal.sync()
        committed = counters.totals["orders", "commits"]
        await journal.sync()
        await journal.sync_data()
        assert counters.totals["orders", "commits"] == committed


async def test_syncs_of_both_kinds_may_overlap_with_appends(context: Context) -> None:
    """Each returns when what came before it is durable, whatever the others do."""
    async with await Journal.init(context, config_of(7)) as journal:

        async def append_and_sync(turns: int, sync: str) -> None:
            for _ in range(turns):
                position = await journal.append(b"x")
                await getattr(journal, sync)()
                assert position < journal.durable_size() <= journal.size()

        await asyncio.gather(*(append_and_sync(12, sync) for sync in ("sync", "sync_data", "commit", "sync")))
        assert journal.durable_size() == journal.size() == 48


@pytest.mark.parametrize("sync", ["sync_data", "sync"])
async def test_a_sync_changes_no_item(context: Context, sync: str) -> None:
    """The items are the same before and after it."""
    async with await filled(context, 25) as journal:
        await getattr(journal, sync)()
        assert await contents_of(journal) == items_in(range(25))
