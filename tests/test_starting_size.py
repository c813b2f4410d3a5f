"""`init_at_size` and `init_sync`: journals that start somewhere else than at 0."""

from typing import Any

import pytest

from posjournal_async import (
    Context,
    Corruption,
    InvalidConfiguration,
    ItemOutOfRange,
    ItemPruned,
    Journal,
    JsonCodec,
    MemoryStorage,
    SizeOverflow,
    StorageError,
)
from posjournal_async.testing import FaultyStorage
from tests.journals import config_of, contents_of, damage, filled, item_at, items_in, limits_of, reopened, streamed

LARGEST = 2**64 - 1


async def parked(context: Context, size: int, count: int = 0) -> Journal[bytes]:
    """Return a journal with sections of 5 that starts at a size, with some items appended."""
    journal = await Journal.init_at_size(context, config_of(5), size)
    for position in range(size, size + count):
        assert await journal.append(item_at(position)) == position
    return journal


# At a size.


@pytest.mark.parametrize("size", [0, 1, 4, 5, 6, 7, 10, 1_000, 2**63, LARGEST - 1])
async def test_a_journal_starts_empty_at_a_size(context: Context, size: int) -> None:
    """All positions before it count as pruned, the next append gets it, and a reopen finds the same."""
    journal = await parked(context, size)
    for _ in range(2):
        assert journal.size() == size
        assert journal.durable_size() == size
        assert journal.oldest_retained_pos() is None
        assert (journal.bounds().start, journal.bounds().stop) == (size, size)
        assert await streamed(journal.replay(size)) == []
        with pytest.raises(ItemOutOfRange):
            await journal.read(size)
        if size:
            with pytest.raises(ItemPruned):
                await journal.read(size - 1)
        journal = await reopened(journal)
    assert await journal.append(item_at(size)) == size
    assert journal.oldest_retained_pos() == size
    await journal.close()


@pytest.mark.parametrize("sync", ["sync", "sync_data"])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 8, 9])
async def test_a_start_inside_a_section_is_kept(context: Context, count: int, sync: str) -> None:
    """Items from 7 on are there after a reopen, in the section that began before them and in the next, and 6 is not."""
    journal = await parked(context, 7, count)
    await getattr(journal, sync)()
    for _ in range(2):
        assert limits_of(journal.bounds()) == (7, 7 + count)
        assert await contents_of(journal) == items_in(range(7, 7 + count))
        with pytest.raises(ItemPruned):
            await journal.read(6)
        journal = await reopened(journal)
    await journal.close()


async def test_the_section_of_a_start_inside_it_is_full_when_it_ends(context: Context) -> None:
    """The first section has fewer items, and is synced when the last position of it was appended."""
    async with await parked(context, 7, 2) as journal:
        assert journal.durable_size() == 7
        assert await journal.append(item_at(9)) == 9
        assert journal.durable_size() == 10


@pytest.mark.parametrize(("min_position", "boundary"), [(7, 7), (8, 7), (9, 7), (10, 10), (11, 10), (15, 15)])
async def test_a_prune_inside_the_first_section_removes_nothing(
    context: Context, min_position: int, boundary: int
) -> None:
    """The start stays where it is until its whole section goes."""
    async with await parked(context, 7, 8) as journal:
        assert await journal.prune(min_position) is (boundary > 7)
        assert limits_of(journal.bounds()) == (boundary, 15)
        assert journal.bounds().start == boundary
        assert await contents_of(journal) == items_in(range(boundary, 15))


@pytest.mark.parametrize("size", [7, 8, 9, 10, 11])
async def test_a_rewind_goes_down_to_the_start(context: Context, size: int) -> None:
    """What was appended can be discarded down to the start, and not below it."""
    journal = await parked(context, 7, 5)
    await journal.rewind(size)
    with pytest.raises(ItemPruned):
        await journal.rewind(6)
    assert await contents_of(journal) == items_in(range(7, size))
    assert await journal.append(item_at(size, 1)) == size
    journal = await reopened(journal)
    assert await contents_of(journal) == items_in(range(7, size)) + items_in([size], 1)
    await journal.close()


@pytest.mark.parametrize("size", [0, 3, 5, 7, 8, 10, 12, 100])
async def test_a_start_replaces_whatever_was_there(context: Context, size: int) -> None:
    """12 items are gone, also those of the section in which the new journal starts, and none ever comes back."""
    journal = await filled(context, 12, config_of(5))
    await journal.sync()
    await journal.close()
    journal = await parked(context, size)
    assert (journal.bounds().start, journal.size()) == (size, size)
    assert await journal.append(item_at(size, 1)) == size
    await journal.sync()
    journal = await reopened(journal)
    assert await contents_of(journal) == items_in([size], 1)
    assert journal.size() == size + 1
    await journal.close()


async def test_a_start_replaces_a_start(context: Context) -> None:
    """The last one counts."""
    await (await parked(context, 5)).close()
    journal = await reopened(await parked(context, 10))
    assert (journal.bounds().start, journal.size()) == (10, 10)
    await journal.close()


async def test_a_start_may_bring_another_configuration(context: Context) -> None:
    """It replaces everything, so sections and codec may differ; the old configuration is refused from then on."""
    await (await filled(context, 12)).close()
    config: Any = config_of(3, codec=JsonCodec())
    journal: Journal[Any] = await Journal.init_at_size(context, config, 4)
    await journal.append({"id": 4})
    await journal.close()
    with pytest.raises(InvalidConfiguration):
        await Journal.init(context, config_of())
    async with await Journal.init(context, config) as journal:
        assert await contents_of(journal) == [(4, {"id": 4})]


@pytest.mark.parametrize("what", ["items_per_section", "codec"])
async def test_another_configuration_is_refused_by_init(context: Context, what: str) -> None:
    """What is recorded cannot be contradicted; the journal is as it was, and its lock is free."""
    await (await filled(context, 12)).close()
    other: Any = config_of(9) if what == "items_per_section" else config_of(codec=JsonCodec())
    for _ in range(2):
        with pytest.raises(InvalidConfiguration) as refused:
            await Journal.init(context, other)
        assert refused.value.what == what
    async with await Journal.init(context, config_of()) as journal:
        assert await contents_of(journal) == items_in(range(12))


@pytest.mark.parametrize("size", [LARGEST, LARGEST + 1, 2**70])
async def test_a_start_at_the_end_of_all_positions_is_refused(context: Context, size: int) -> None:
    """2**64 - 1 would leave no position for an append; what exists stays."""
    await (await filled(context, 3)).close()
    with pytest.raises(SizeOverflow) as refused:
        await Journal.init_at_size(context, config_of(), size)
    assert refused.value.size == size
    async with await Journal.init(context, config_of()) as journal:
        assert await contents_of(journal) == items_in(range(3))


@pytest.mark.parametrize("items_per_section", [1, 5, 10, 65_536])
async def test_the_last_position_of_all_can_be_used(context: Context, items_per_section: int) -> None:
    """One append works at 2**64 - 2; the next has no position left, and writes nothing."""
    journal = await Journal.init_at_size(context, config_of(items_per_section), LARGEST - 1)
    with pytest.raises(SizeOverflow):
        await journal.append_many([b"one", b"too many"])
    assert journal.size() == LARGEST - 1
    assert await journal.append(b"the last") == LARGEST - 1
    for _ in range(2):
        for refused in (
            journal.append(b"none"),
            journal.append_many([b"none"]),
            journal.append_many([b"none"] * 2_000),
        ):
            with pytest.raises(SizeOverflow):
                await refused
        assert journal.size() == LARGEST
        assert await streamed(journal.replay(LARGEST - 1)) == [(LARGEST - 1, b"the last")]
        assert await journal.read(LARGEST - 1) == b"the last"
        with pytest.raises(ItemOutOfRange):
            await journal.read(LARGEST)
        await journal.sync()
        assert journal.durable_size() == LARGEST
        journal = await reopened(journal)
    await journal.rewind(LARGEST - 1)
    assert await journal.append(b"another") == LARGEST - 1
    await journal.close()


# For a range.


@pytest.mark.parametrize(
    ("start", "count", "wanted", "found"),
    [
        pytest.param(None, 0, range(10, 26), range(10, 10), id="nothing on disk"),
        pytest.param(0, 20, range(8, 31), range(5, 20), id="overlap at the front"),
        pytest.param(0, 20, range(5, 20), range(5, 20), id="exactly"),
        pytest.param(0, 30, range(8, 20), range(5, 20), id="overlap on both sides"),
        pytest.param(0, 10, range(15, 26), range(15, 15), id="entirely below"),
        pytest.param(0, 10, range(10, 26), range(10, 10), id="ends where it starts"),
        pytest.param(30, 0, range(10, 26), range(10, 10), id="empty above"),
        pytest.param(30, 0, range(30, 40), range(30, 30), id="empty at the start"),
        pytest.param(9, 0, range(7, 20), range(7, 7), id="empty inside"),
        pytest.param(9, 5, range(7, 20), range(7, 7), id="begins above"),
        pytest.param(7, 8, range(8, 12), range(7, 12), id="begins inside its first section"),
        pytest.param(0, 20, range(1), range(1), id="one position"),
        pytest.param(0, 20, range(19, 20), range(15, 20), id="the last position"),
        pytest.param(0, 20, range(20, 21), range(20, 20), id="the next position"),
    ],
)
async def test_what_a_journal_holds_of_a_range_is_kept(
    context: Context, start: int | None, count: int, wanted: range, found: range
) -> None:
    """Overlapping items stay from the section's start to the stop; without any the journal starts at the range."""
    if start is not None:
        await (await parked(context, start, count)).close()
    journal = await Journal.init_sync(context, config_of(5), wanted)
    for _ in range(2):
        assert (journal.bounds().start, journal.size()) == (found.start, found.stop)
        assert journal.durable_size() == found.stop
        assert await contents_of(journal) == items_in(found)
        journal = await reopened(journal)
    assert await journal.append(item_at(found.stop, 1)) == found.stop
    journal = await reopened(journal)
    assert await contents_of(journal) == items_in(found) + items_in([found.stop], 1)
    await journal.close()


@pytest.mark.parametrize("wanted", [range(0), range(5, 5), range(20, 8), range(10, 20, 2), range(-1, 5)])
async def test_a_range_without_positions_is_refused(context: Context, wanted: range) -> None:
    """An empty range, one with holes and one below zero are mistakes of the caller; what exists stays."""
    await (await filled(context, 12, config_of(5))).close()
    with pytest.raises(ValueError, match="positions"):
        await Journal.init_sync(context, config_of(5), wanted)
    async with await Journal.init(context, config_of(5)) as journal:
        assert await contents_of(journal) == items_in(range(12))


async def test_a_range_that_starts_beyond_the_last_position_is_refused(context: Context) -> None:
    """No position lies beyond 2**64 - 2, so none can be received there; what exists stays."""
    await (await filled(context, 12, config_of(5))).close()
    with pytest.raises(SizeOverflow):
        await Journal.init_sync(context, config_of(5), range(2**64 - 1, 2**64 + 5))
    async with await Journal.init(context, config_of(5)) as journal:
        assert await contents_of(journal) == items_in(range(12))


@pytest.mark.parametrize("what", ["remove_many", "resize"])
async def test_a_failure_inside_init_sync_is_the_one_that_is_told(what: str) -> None:
    """What failed, not that the journal has failed by it; the lock is free, and the next try succeeds (F1)."""
    storage = MemoryStorage()
    journal = await filled(Context(storage), 18, config_of(5))
    await journal.close()
    faulty = FaultyStorage(storage, 1, only=lambda call: call.what == what)
    with pytest.raises(StorageError):
        await Journal.init_sync(Context(faulty), config_of(5), range(7, 12))
    assert faulty.failures
    async with await Journal.init_sync(Context(storage), config_of(5), range(7, 12)) as journal:
        assert await contents_of(journal) == items_in(range(5, 12))


async def test_damage_that_init_sync_meets_is_told_though_a_close_fails_too() -> None:
    """Who is told of the close only would try again for ever; the lock is free in any case (F4)."""
    storage = MemoryStorage()
    await (await filled(Context(storage), 18, config_of(5))).close()
    await damage(storage, 1, 20)
    faulty = FaultyStorage(storage, 1, only=lambda call: (call.what, call.partition) == ("close", "orders_checkpoint"))
    with pytest.raises(Corruption) as refused:
        await Journal.init_sync(Context(faulty), config_of(5), range(7, 12))
    assert [note for note in refused.value.__notes__ if "close" in note]
    await (await Journal.init(Context(storage), config_of(5))).close()
