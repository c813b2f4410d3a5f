"""`rewind`: items go from the end, exactly, and never come back."""

import asyncio
from pathlib import Path

import pytest

from posjournal_async import (
    Context,
    Corruption,
    FileStorage,
    InvalidRewind,
    ItemOutOfRange,
    ItemPruned,
    Journal,
    JournalClosed,
    JournalFailed,
    MemoryStorage,
    Storage,
    StorageError,
)
from posjournal_async.testing import Call, FaultyStorage, GatedStorage, RecordingStorage
from tests.journals import config_of, contents_of, damage, filled, item_at, items_in, limits_of, reopened

SIZES = [0, 1, 9, 10, 11, 19, 20, 21, 29, 30, 34, 35]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("is_reopened", [False, True])
async def test_a_rewind_leaves_exactly_the_items_before_it(context: Context, size: int, *, is_reopened: bool) -> None:
    """Wherever it goes, what is before stays, what is behind is out of range, and the next append gets the size."""
    journal = await filled(context, 35)
    if is_reopened:
        journal = await reopened(journal, max_open_blobs=1)
    await journal.rewind(size)
    assert limits_of(journal.bounds()) == (0, size)
    assert journal.oldest_retained_pos() == (0 if size else None)
    assert await contents_of(journal) == items_in(range(size))
    for position in range(size, 35):
        with pytest.raises(ItemOutOfRange):
            await journal.read(position)
    assert await journal.append(item_at(size, 1)) == size
    journal = await reopened(journal)
    assert await contents_of(journal) == items_in(range(size)) + items_in([size], 1)
    await journal.close()


@pytest.mark.parametrize("size", SIZES)
async def test_a_rewind_is_durable_when_it_returns(context: Context, size: int) -> None:
    """The new size is the durable size, as long as it is smaller than the old one."""
    async with await filled(context, 36) as journal:
        assert journal.durable_size() == 30
        await journal.rewind(size)
        assert journal.durable_size() == size


async def test_a_rewind_to_the_size_does_nothing(context: Context) -> None:
    """It changes no item, and makes none durable."""
    async with await filled(context, 15) as journal:
        await journal.rewind(15)
        assert journal.size() == 15
        assert journal.durable_size() == 10
        assert await contents_of(journal) == items_in(range(15))


@pytest.mark.parametrize(("count", "size"), [(0, 1), (10, 11), (10, 20), (15, 2**64)])
async def test_a_rewind_beyond_the_size_is_refused(context: Context, count: int, size: int) -> None:
    """There is nothing to go forward to; the journal stays as it was and goes on."""
    async with await filled(context, count) as journal:
        with pytest.raises(InvalidRewind) as refused:
            await journal.rewind(size)
        assert (refused.value.position, refused.value.size) == (size, count)
        assert await contents_of(journal) == items_in(range(count))
        assert await journal.append(item_at(count)) == count


@pytest.mark.parametrize("size", [0, 5, 9])
async def test_a_rewind_below_the_boundary_is_refused(context: Context, size: int) -> None:
    """Pruned items do not come back; the journal stays as it was and goes on."""
    async with await filled(context, 20) as journal:
        await journal.prune(10)
        with pytest.raises(ItemPruned) as refused:
            await journal.rewind(size)
        assert (refused.value.position, refused.value.oldest) == (size, 10)
        assert await contents_of(journal) == items_in(range(10, 20))
        assert await journal.append(item_at(20)) == 20


@pytest.mark.parametrize("size", [10, 11, 19, 20, 25, 30])
async def test_a_rewind_after_a_prune_keeps_the_boundary(context: Context, size: int) -> None:
    """30 items, pruned to 10, rewound: the oldest is 10 as long as anything is left."""
    journal = await filled(context, 30)
    await journal.prune(10)
    await journal.rewind(size)
    assert journal.oldest_retained_pos() == (10 if size > 10 else None)
    assert journal.bounds().start == 10
    assert await contents_of(journal) == items_in(range(10, size))
    journal = await reopened(journal)
    assert await contents_of(journal) == items_in(range(10, size))
    assert await journal.append(item_at(size)) == size
    assert journal.oldest_retained_pos() == 10
    await journal.close()


async def test_a_rewind_to_the_boundary_leaves_an_empty_journal_there(context: Context) -> None:
    """Everything after the boundary is discarded: the size stays above the pruned items, and appends go on."""
    async with await filled(context, 10) as journal:
        assert await journal.append(item_at(10)) == 10
        assert await journal.prune(10) is True
        assert journal.oldest_retained_pos() == 10
        with pytest.raises(ItemPruned):
            await journal.read(9)
        assert await journal.append(item_at(11)) == 11
        await journal.rewind(10)
        assert journal.size() == 10
        assert journal.oldest_retained_pos() is None
        assert await journal.append(item_at(10, 1)) == 10
        assert journal.oldest_retained_pos() == 10
        assert await journal.read(10) == item_at(10, 1)


@pytest.mark.parametrize("sync", ["sync", "sync_data", "size"])
@pytest.mark.parametrize(("size", "new_size"), [(12, 15), (12, 35), (9, 10), (20, 25), (0, 35), (10, 12), (29, 31)])
async def test_only_the_new_items_are_seen_where_old_ones_were(
    context: Context, size: int, new_size: int, sync: str
) -> None:
    """Items that were read, then rewound and replaced by others of other lengths, are seen by nobody any more."""
    expected = items_in(range(size)) + items_in(range(size, new_size), 3)
    journal = await filled(context, 35)
    assert await contents_of(journal) == items_in(range(35))
    await journal.rewind(size)
    for position in range(size, new_size):
        await journal.append(item_at(position, 3))
    assert await contents_of(journal) == expected
    synced = getattr(journal, sync)()
    if asyncio.iscoroutine(synced):
        await synced
    assert await contents_of(journal) == expected
    journal = await reopened(journal)
    assert await contents_of(journal) == expected
    await journal.close()


async def test_rewinds_one_after_the_other_leave_the_last_history(context: Context) -> None:
    """Each rewind starts a history of its own, and only the parts that were never discarded remain."""
    journal = await Journal.init(context, config_of(4, max_open_blobs=1))
    expected: list[tuple[int, bytes]] = []
    for history, (size, count) in enumerate(
        [(0, 10), (7, 9), (3, 1), (4, 12), (15, 1), (16, 3), (8, 8), (0, 5), (5, 20)]
    ):
        await journal.rewind(size)
        await journal.append_many([item_at(position, history) for position in range(size, size + count)])
        expected[size:] = items_in(range(size, size + count), history)
        assert await contents_of(journal) == expected
    journal = await reopened(journal)
    assert await contents_of(journal) == expected
    await journal.close()


async def test_a_rewind_beside_readers_shows_an_old_item_or_none(context: Context) -> None:
    """A read beside rewinds and new appends is the item of some history at its position, or out of range (I1)."""
    async with await filled(context, 23, config_of(5, max_open_blobs=1)) as journal:
        is_done = False

        async def read_all_the_time() -> None:
            while not is_done:
                for position in range(23):
                    try:
                        item = await journal.read(position)
                    except ItemOutOfRange:
                        pass
                    else:
                        assert item in {item_at(position, history) for history in range(12)}
                await asyncio.sleep(0)

        readers = [asyncio.create_task(read_all_the_time()) for _ in range(3)]
        for history in range(1, 12):
            size = (history * 9) % 23
            await journal.rewind(size)
            await journal.append_many([item_at(position, history) for position in range(size, 23)])
            assert await journal.read(size) == item_at(size, history)
        is_done = True
        await asyncio.gather(*readers)


async def test_a_read_that_a_rewind_overtakes_ends() -> None:
    """The section was opened to be read, is cut, and then read: the position is out of range; nothing spins (I1)."""

    is_taken = False

    def is_held(call: Call) -> bool:
        is_store = call.partition == "orders_checkpoint" and call.what == "write_at"
        is_read = call.partition == "orders_data" and call.what == "read_at" and call.offset > 0
        return is_store or (is_read and is_taken)

    storage = GatedStorage(MemoryStorage())
    async with await filled(Context(storage), 6, config_of(3)) as journal:
        await journal.sync()
        storage.hold(is_held)
        rewinding = asyncio.create_task(journal.rewind(4))
        await storage.until_held()  # it has read and taken the section, and stores the checkpoint
        is_taken = True
        reading = asyncio.create_task(journal.read(5))
        await storage.until_held(2)  # the reader has opened the section once more
        storage.let_go()
        await rewinding
        storage.let_all_go()
        with pytest.raises(ItemOutOfRange):
            async with asyncio.timeout(30):
                await reading


async def test_a_read_that_a_rewind_and_then_a_close_overtake_says_closed(storage: Storage) -> None:
    """The section that it is at was cut, and is closed between two looks at a long record (C3)."""
    gates = GatedStorage(storage)
    journal = await Journal.init(Context(gates), config_of(2))
    await journal.append_many([bytes(2 * 2**20), b"1", b"2"])
    await journal.sync()
    gates.hold(lambda call: call.partition == "orders_data" and call.what == "read_at")
    reading = asyncio.create_task(journal.read(0))
    await gates.until_held()  # it asks how long the record is
    gates.hold(lambda _: False)
    await journal.rewind(1)
    await journal.close()
    gates.let_all_go()
    with pytest.raises(JournalClosed):
        await reading


async def test_a_rewind_that_fails_closes_no_section_under_a_reader() -> None:
    """The checkpoint cannot be lowered while a read is between two looks at a long record, which it gets (F1, C3)."""
    item = bytes(2 * 2**20)
    gates = GatedStorage(MemoryStorage())
    storage = FaultyStorage(gates, only=lambda call: call.partition == "orders_checkpoint")
    journal = await Journal.init(Context(storage), config_of(2))
    await journal.append_many([item, b"1", b"2"])
    await journal.sync()
    gates.hold(lambda call: call.partition == "orders_data" and call.what == "read_at")
    reading = asyncio.create_task(journal.read(0))
    await gates.until_held()  # it asks how long the record is
    gates.hold(lambda _: False)
    storage.fail_at = storage.count + 1
    with pytest.raises(StorageError) as failed:
        await journal.rewind(1)
    assert failed.value.partition == "orders_checkpoint"
    gates.let_all_go()
    assert await reading == item
    assert await journal.read_many(range(3)) == [item, b"1", b"2"]
    with pytest.raises(JournalFailed):
        await journal.close()


# A sealed section whose index says something else, or whose records are damaged.


@pytest.mark.parametrize("entry", [2, 6, 7, 9])
@pytest.mark.parametrize("amount", [-8, 1, 8, 256, 2**40])
async def test_a_rewind_does_not_cut_on_the_word_of_an_index(tmp_path: Path, entry: int, amount: int) -> None:
    """A wrong entry, before the cut or at it: what stays is what was, and what goes does not come back (A3, D4)."""
    await (await filled(Context(FileStorage(tmp_path)), 15)).close()
    blob = tmp_path / "orders_offsets" / bytes(8).hex()
    index = bytearray(blob.read_bytes())
    place = slice(64 + 8 * entry, 64 + 8 * entry + 8)
    index[place] = (int.from_bytes(index[place], "little") + amount).to_bytes(8, "little")
    blob.write_bytes(index)
    async with await Journal.init(Context(FileStorage(tmp_path)), config_of()) as journal:
        await journal.rewind(7)
        assert await contents_of(journal) == items_in(range(7))
        await journal.append(item_at(7, 1))
        assert [await journal.read(position) for position in range(8)] == [*map(item_at, range(7)), item_at(7, 1)]
    async with await Journal.init(Context(FileStorage(tmp_path)), config_of()) as journal:
        assert journal.recovery.clean
        assert await contents_of(journal) == items_in(range(7)) + items_in([7], 1)


async def test_an_older_index_does_not_bring_back_what_was_discarded(tmp_path: Path) -> None:
    """The device gives back the index of another history of the section; its records are found without it (A3, D4)."""
    blob = tmp_path / "orders_offsets" / bytes(8).hex()
    async with await filled(Context(FileStorage(tmp_path)), 10) as journal:
        await journal.sync()
        older = blob.read_bytes()
        await journal.rewind(3)
        await journal.append_many([b"longer than it was" + item_at(position, 1) for position in range(3, 15)])
    blob.write_bytes(older)
    async with await Journal.init(Context(FileStorage(tmp_path)), config_of()) as journal:
        kept = [await journal.read(position) for position in range(5)]
        await journal.rewind(5)
    async with await Journal.init(Context(FileStorage(tmp_path)), config_of()) as journal:
        assert [item for _, item in await contents_of(journal)] == kept


async def test_a_rewind_behind_damage_in_its_section_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    """It would make the last section of one that cannot be opened again; a rewind to the damage, or below, can (F4)."""
    await (await filled(Context(FileStorage(tmp_path)), 15)).close()
    blob = tmp_path / "orders_data" / bytes(8).hex()
    data = bytearray(blob.read_bytes())
    data[data.index(item_at(4))] ^= 1
    blob.write_bytes(data)
    async with await Journal.init(Context(FileStorage(tmp_path)), config_of()) as journal:
        for size in (5, 9, 10):  # to the edge too: its section would be the last one
            with pytest.raises(Corruption) as refused:
                await journal.rewind(size)
            assert (refused.value.section, refused.value.position) == (0, 4)
        assert blob.read_bytes() == data
        assert limits_of(journal.bounds()) == (0, 15)
        assert await journal.append(item_at(15)) == 15
        await journal.rewind(4)
        assert await contents_of(journal) == items_in(range(4))
    async with await Journal.init(Context(FileStorage(tmp_path)), config_of()) as journal:
        assert await contents_of(journal) == items_in(range(4))


async def test_a_rewind_reads_the_header_of_a_section_that_is_open_once_more(tmp_path: Path) -> None:
    """It has rotted since the section was opened: the journal could not be opened again, so it is refused (F4)."""
    async with await filled(Context(FileStorage(tmp_path)), 45) as journal:
        assert await contents_of(journal) == items_in(range(45))
        await damage(FileStorage(tmp_path), 2, 20)
        for size in (21, 29, 30):  # to the edge too: its section would be the last one
            with pytest.raises(Corruption) as refused:
                await journal.rewind(size)
            assert refused.value.section == 2
        assert await contents_of(journal) == items_in(range(45))
        await journal.rewind(20)
    async with await Journal.init(Context(FileStorage(tmp_path)), config_of()) as journal:
        assert await contents_of(journal) == items_in(range(20))


async def test_what_is_left_of_a_sealed_section_is_read_without_waiting(tmp_path: Path) -> None:
    """A read that the page cache can answer takes no hop to a thread, also in a section that was cut (L1)."""
    recorder = RecordingStorage(FileStorage(tmp_path))
    async with await filled(Context(recorder), 25) as journal:
        await journal.rewind(15)
        before = len(recorder.calls(lambda call: call.what == "read_at"))
        assert await contents_of(journal) == items_in(range(15))
        for position in range(15):
            assert await journal.read(position) == item_at(position)
        assert len(recorder.calls(lambda call: call.what == "read_at")) == before
