"""`prune`: whole sections go from the front, durably and at once; everything else stays."""

import asyncio
from pathlib import Path

import pytest

from posjournal_async import Context, Corruption, FileStorage, ItemPruned, Journal, MemoryStorage
from posjournal_async.testing import FaultyStorage
from tests.journals import (
    config_of,
    contents_of,
    damage,
    filled,
    item_at,
    items_in,
    limits_of,
    open_files,
    others_ended,
    reopened,
    streamed,
)


@pytest.mark.parametrize(
    ("min_position", "boundary"),
    [
        (0, 0),
        (1, 0),
        (9, 0),
        (10, 10),
        (11, 10),
        (19, 10),
        (20, 20),
        (25, 20),
        (29, 20),
        (30, 30),
        (31, 30),
        (2**64, 30),
    ],
)
async def test_a_prune_goes_down_to_the_start_of_a_section(context: Context, min_position: int, boundary: int) -> None:
    """Items below the position are removed as far as whole sections go, and never beyond the size."""
    journal = await filled(context, 30)
    assert await journal.prune(min_position) is (boundary > 0)
    assert limits_of(journal.bounds()) == (boundary, 30)
    assert journal.bounds().start == boundary
    assert await contents_of(journal) == items_in(range(boundary, 30))
    journal = await reopened(journal)
    assert journal.bounds().start == boundary
    assert await contents_of(journal) == items_in(range(boundary, 30))
    assert await journal.append(item_at(30)) == 30
    await journal.close()


async def test_prunes_one_after_the_other_move_the_boundary_up(context: Context) -> None:
    """The oldest position follows the prunes, is None when nothing is left, and the size never changes."""
    journal = await filled(context, 30)
    for min_position, oldest in ((10, 10), (25, 20), (30, None)):
        await journal.prune(min_position)
        assert journal.oldest_retained_pos() == oldest
        assert journal.size() == 30
    journal = await reopened(journal)
    assert journal.oldest_retained_pos() is None
    assert journal.bounds().start == 30
    assert journal.size() == 30
    await journal.close()


async def test_a_prune_that_removes_nothing_says_so(context: Context) -> None:
    """The second of two equal prunes is False, and so is one below the boundary."""
    async with await filled(context, 20) as journal:
        assert await journal.prune(10) is True
        assert await journal.prune(10) is False
        assert await journal.prune(19) is False
        assert await journal.prune(5) is False
        assert journal.oldest_retained_pos() == 10


async def test_a_prune_that_removes_nothing_makes_nothing_durable(context: Context) -> None:
    """It is not a sync in disguise."""
    async with await filled(context, 5) as journal:
        assert await journal.prune(5) is False
        assert journal.durable_size() == 0


async def test_a_prune_of_an_empty_journal_removes_nothing(context: Context) -> None:
    """There is nothing to remove, now and wherever it starts."""
    async with await Journal.init(context, config_of()) as journal:
        assert await journal.prune(0) is False
        assert await journal.prune(100) is False
        assert await journal.append(item_at(0)) == 0


async def test_a_prune_beyond_the_size_is_capped(context: Context) -> None:
    """10 items pruned up to 100: the size stays 10, and the next append gets 10."""
    async with await filled(context, 10) as journal:
        assert await journal.prune(100) is True
        assert journal.size() == 10
        assert await journal.append(item_at(10)) == 10
        assert journal.oldest_retained_pos() == 10


async def test_pruned_items_stay_pruned_after_a_reopen(context: Context) -> None:
    """What was pruned raises `ItemPruned`, what was not is there, and appends go on where they were."""
    journal = await filled(context, 25)
    await journal.prune(10)
    journal = await reopened(journal)
    for position in range(10):
        with pytest.raises(ItemPruned):
            await journal.read(position)
    assert await contents_of(journal) == items_in(range(10, 25))
    assert len(await streamed(journal.replay(10))) == 15
    assert await journal.append(item_at(25)) == 25
    await journal.close()


async def test_a_journal_pruned_to_its_end_goes_on_from_there(context: Context) -> None:
    """100 items, all pruned: 100..100 after a reopen, every read is refused, and the next append gets 100."""
    journal = await filled(context, 100)
    await journal.prune(100)
    journal = await reopened(journal)
    assert (journal.bounds().start, journal.size()) == (100, 100)
    for position in range(100):
        with pytest.raises(ItemPruned):
            await journal.read(position)
    assert await journal.append(item_at(100)) == 100
    journal = await reopened(journal)
    assert await contents_of(journal) == items_in([100])
    await journal.close()


async def test_sections_of_one_item_are_pruned_exactly(context: Context) -> None:
    """With one item in a section every position is a boundary."""
    journal = await filled(context, 10, config_of(1))
    assert await journal.prune(5) is True
    await journal.sync()
    journal = await reopened(journal)
    assert journal.oldest_retained_pos() == 5
    assert await journal.read(9) == item_at(9)
    await journal.append_many([item_at(position) for position in range(10, 15)])
    journal = await reopened(journal)
    assert await contents_of(journal) == items_in(range(5, 15))
    assert await journal.prune(15) is True
    with pytest.raises(ItemPruned):
        await journal.read(14)
    assert journal.oldest_retained_pos() is None
    await journal.close()


async def test_everything_retained_is_durable_when_a_prune_returns(context: Context) -> None:
    """The unsynced items at or above the boundary are made durable first: they may be why the caller pruned."""
    async with await filled(context, 15) as journal:
        assert journal.durable_size() == 10
        assert await journal.prune(10) is True
        assert journal.durable_size() == 15
        assert await contents_of(journal) == items_in(range(10, 15))


@pytest.mark.parametrize("boundary", [10, 20, 30])
async def test_the_space_is_back_when_a_prune_returns(tmp_path: Path, boundary: int) -> None:
    """The files of pruned sections are gone, of data and of offsets, and no handle keeps their space."""
    journal = await filled(Context(FileStorage(tmp_path)), 35)
    for position in range(35):
        assert await journal.read(position) == item_at(position)
    await journal.prune(boundary)
    sections = [f"{section:016x}" for section in range(boundary // 10, 4)]
    assert sorted(path.name for path in (tmp_path / "orders_data").iterdir()) == sections
    assert sorted(path.name for path in (tmp_path / "orders_offsets").iterdir()) == sections
    await others_ended()
    assert not [path for path in open_files() if path.startswith(str(tmp_path)) and path.endswith("(deleted)")]
    await journal.close()


async def test_prunes_beside_appends_and_reads_remove_nothing_else(context: Context) -> None:
    """While one task prunes behind it, another appends, and a third reads every item or finds it pruned (I1)."""
    async with await Journal.init(context, config_of(5, max_open_blobs=2)) as journal:

        async def append_all() -> None:
            for position in range(150):
                assert await journal.append(item_at(position)) == position

        async def prune_behind() -> None:
            while journal.size() < 150:
                await journal.prune(max(journal.size() - 12, 0))
                await asyncio.sleep(0)

        async def read_around() -> None:
            while journal.size() < 150:
                for position in range(max(journal.bounds().start - 3, 0), journal.size()):
                    try:
                        assert await journal.read(position) == item_at(position)
                    except ItemPruned as pruned:
                        assert position == pruned.position < journal.bounds().start  # noqa: PT017 - it may be readable too
                await asyncio.sleep(0)

        await asyncio.gather(append_all(), prune_behind(), read_around())
        bounds = journal.bounds()
        assert bounds.start >= 100
        assert await contents_of(journal) == items_in(bounds)


@pytest.mark.parametrize("damaged", ["a bit of the header", "the index in its place"])
async def test_a_prune_does_not_make_a_damaged_section_the_first(tmp_path: Path, damaged: str) -> None:
    """It could not be opened again: refused before anything changed; one before it, or of all of it, is not (D4)."""
    async with await filled(Context(FileStorage(tmp_path)), 45) as journal:
        await journal.sync()
    blob, index = (tmp_path / f"orders_{part}" / (2).to_bytes(8).hex() for part in ("data", "offsets"))
    data = bytearray(blob.read_bytes())
    data[20] ^= 1
    blob.write_bytes(data if damaged == "a bit of the header" else index.read_bytes())
    async with await Journal.init(Context(FileStorage(tmp_path)), config_of()) as journal:
        with pytest.raises(Corruption) as refused:
            await journal.prune(25)
        assert refused.value.section == 2
        assert limits_of(journal.bounds()) == (0, 45)
        assert await journal.prune(15)
        assert limits_of(journal.bounds()) == (10, 45)
        await journal.append(item_at(45))
        assert await journal.prune(30)
    async with await Journal.init(Context(FileStorage(tmp_path)), config_of()) as journal:
        assert limits_of(journal.bounds()) == (30, 46)
        assert await contents_of(journal) == items_in(range(30, 46))


async def test_a_prune_that_meets_damage_says_so_though_a_close_fails_too() -> None:
    """It is refused as damage, and the journal goes on: nothing was changed (F4)."""
    storage = FaultyStorage(MemoryStorage(), only=lambda call: call.what == "close")
    async with await filled(Context(storage), 45) as journal:
        await damage(storage, 2, 20)
        storage.fail_at = storage.count + 1
        with pytest.raises(Corruption) as refused:
            await journal.prune(25)
        assert [note for note in refused.value.__notes__ if "close" in note]
        assert await journal.prune(30)


async def test_a_prune_reads_the_header_of_a_section_that_is_open_once_more(tmp_path: Path) -> None:
    """It has rotted since the section was opened: the journal could not be opened again, so it is refused (D4)."""
    async with await filled(Context(FileStorage(tmp_path)), 45) as journal:
        assert await contents_of(journal) == items_in(range(45))
        await damage(FileStorage(tmp_path), 2, 20)
        with pytest.raises(Corruption) as refused:
            await journal.prune(25)
        assert refused.value.section == 2
        assert limits_of(journal.bounds()) == (0, 45)
        assert await journal.prune(30)
    async with await Journal.init(Context(FileStorage(tmp_path)), config_of()) as journal:
        assert await contents_of(journal) == items_in(range(30, 45))
