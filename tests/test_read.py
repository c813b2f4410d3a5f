"""`read` and `read_many`: what they give, what they refuse, and what they do about bytes that are wrong."""

import asyncio
import sys
import traceback
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from posjournal_async import (
    CodecError,
    Context,
    Corruption,
    FileStorage,
    ItemOutOfRange,
    ItemPruned,
    Journal,
    PositionError,
    Storage,
)
from posjournal_async.format.header import HEADER_LENGTH
from posjournal_async.format.record import RECORD_HEAD_LENGTH
from tests.journals import (
    config_of,
    contents_of,
    damage,
    files_below,
    filled,
    item_at,
    items_in,
    name_of_section,
    open_files,
    others_ended,
    put_payload,
    reopened,
    streamed,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# A zstd frame: magic, a descriptor that says that 8 bytes of content size follow and nothing else, a window of 8 MiB,
# a claim of 8 GiB, and one last raw block that is empty.
FRAME_OF_8_GIB = b"\x28\xb5\x2f\xfd" + b"\xc0" + b"\x68" + (8 * 2**30).to_bytes(8, "little") + b"\x01\x00\x00"
FRAME = zstd.compress(b"an item")


def offset_of(index: int) -> int:
    """Return where a record starts in the blob of section 0."""
    return HEADER_LENGTH + sum(RECORD_HEAD_LENGTH + len(item_at(before)) for before in range(index))


# Bounds.


@pytest.mark.parametrize(
    ("position", "error"),
    [(0, ItemPruned), (9, ItemPruned), (10, None), (24, None), (25, ItemOutOfRange), (2**64, ItemOutOfRange)],
)
async def test_a_position_is_readable_from_the_boundary_to_the_size(
    context: Context, position: int, error: type[PositionError] | None
) -> None:
    """Below the pruning boundary it was pruned, from the size on it is out of range; in between there is an item."""
    async with await filled(context, 25) as journal:
        await journal.prune(10)
        if error is None:
            assert await journal.read(position) == item_at(position)
            assert await journal.read_many([position]) == [item_at(position)]
            return
        for reading in (journal.read(position), journal.read_many([position])):
            with pytest.raises(error) as refused:
                await reading
            assert refused.value.position == position
            assert isinstance(refused.value, IndexError)


async def test_the_errors_say_where_the_journal_ends_and_begins(context: Context) -> None:
    """`ItemOutOfRange` knows the size and `ItemPruned` the oldest position."""
    async with await filled(context, 25) as journal:
        await journal.prune(20)
        with pytest.raises(ItemOutOfRange) as beyond:
            await journal.read(25)
        assert beyond.value.size == 25
        with pytest.raises(ItemPruned) as before:
            await journal.read(19)
        assert before.value.oldest == 20


async def test_one_item_is_not_ten(context: Context) -> None:
    """In a journal of one item position 10 is out of range."""
    async with await filled(context, 1) as journal:
        with pytest.raises(ItemOutOfRange):
            await journal.read(10)


async def test_the_size_is_out_of_range_where_everything_was_pruned(context: Context) -> None:
    """The size is compared before the boundary: at the size there is nothing yet, below it nothing any more."""
    async with await Journal.init_at_size(context, config_of(), 7) as journal:
        with pytest.raises(ItemOutOfRange):
            await journal.read(7)
        with pytest.raises(ItemPruned):
            await journal.read(6)


# Many at once.


async def test_reading_no_positions_gives_no_items(context: Context) -> None:
    """`read_many([])` is `[]`, also when there is nothing to read."""
    async with await Journal.init(context, config_of()) as journal:
        assert await journal.read_many([]) == []
        assert await journal.read_many(range(0)) == []


@pytest.mark.parametrize(
    "positions",
    [[0], [24], [3, 4], [9, 10], [0, 9, 10, 19, 20, 24], range(25), range(0, 25, 7), tuple(range(2, 23))],
)
async def test_many_positions_give_their_items_in_order(context: Context, positions: Any) -> None:
    """Items come from sealed sections and from the tail alike, synced or not."""
    async with await filled(context, 25) as journal:
        assert await journal.read_many(positions) == [item_at(position) for position in positions]
        await journal.sync()
        assert await journal.read_many(positions) == [item_at(position) for position in positions]


async def test_more_positions_than_one_go_reads_are_given(context: Context) -> None:
    """A long list is read to its end."""
    async with await filled(context, 700, config_of(100)) as journal:
        assert await journal.read_many(range(700)) == [item_at(position) for position in range(700)]


@pytest.mark.parametrize("positions", [[1, 1], [2, 1], [0, 1, 2, 2], [0, 5, 4], [9, 100, 99]])
async def test_positions_that_do_not_increase_are_refused(context: Context, positions: list[int]) -> None:
    """Repeated or falling positions are a mistake of the caller, whether they exist or not."""
    async with await filled(context, 10) as journal:
        with pytest.raises(ValueError, match="positions"):
            await journal.read_many(positions)


@pytest.mark.parametrize(
    ("positions", "error"),
    [([0, 15], ItemPruned), ([9, 10], ItemPruned), ([24, 25], ItemOutOfRange), ([15, 99], ItemOutOfRange)],
)
async def test_one_position_that_is_not_there_refuses_all(
    context: Context, positions: list[int], error: type[PositionError]
) -> None:
    """There is no list with holes."""
    async with await filled(context, 25) as journal:
        await journal.prune(10)
        with pytest.raises(error):
            await journal.read_many(positions)


# Sections and handles.


async def test_one_open_blob_serves_readers_of_many_sections(tmp_path: Path) -> None:
    """With one handle for sealed sections, readers all over the journal get their items, and the handles stay few."""
    config = config_of(4, max_open_blobs=1)
    journal = await filled(Context(FileStorage(tmp_path)), 80, config)
    journal = await reopened(journal)
    positions = [(start * 37) % 80 for start in range(240)]
    items = await asyncio.gather(*(journal.read(position) for position in positions))
    assert items == [item_at(position) for position in positions]
    replays = await asyncio.gather(*(streamed(journal.replay(start, 50)) for start in range(0, 80, 7)))
    assert replays == [items_in(range(start, 80)) for start in range(0, 80, 7)]
    await journal.read(0)
    await others_ended()
    handles = [path for path in open_files() if path.startswith(str(tmp_path / "orders_data"))]
    assert len(handles) <= 2  # the sealed section, and the tail if it has a blob
    await journal.close()


@pytest.mark.parametrize("max_open_blobs", [1, 2, 64])
async def test_readers_beside_appends_see_every_item(context: Context, max_open_blobs: int) -> None:
    """An item is readable at any moment on its way from the buffer through the writer to a sealed section."""
    async with await Journal.init(context, config_of(5, max_open_blobs=max_open_blobs)) as journal:

        async def read_all_the_time() -> None:
            while journal.size() < 200:
                for position in range(max(journal.size() - 12, 0), journal.size()):
                    assert await journal.read(position) == item_at(position)
                await asyncio.sleep(0)

        async def append_all() -> None:
            for position in range(200):
                await journal.append(item_at(position))

        await asyncio.gather(append_all(), read_all_the_time(), read_all_the_time())
        assert await contents_of(journal) == items_in(range(200))


async def test_reading_changes_no_file(tmp_path: Path) -> None:
    """Reads, replays and looks leave every file as it is, its time of change included."""
    journal = await filled(Context(FileStorage(tmp_path)), 25)
    await journal.sync()
    before = files_below(tmp_path)
    assert len(before) >= 7
    assert await contents_of(journal) == items_in(range(25))
    assert await journal.prune(0) is False
    await journal.rewind(25)
    assert files_below(tmp_path) == before
    await journal.close()


# Bytes that are wrong.


@pytest.mark.parametrize("index", [0, 4, 9])
@pytest.mark.parametrize("at", [0, 3, 4, 7, RECORD_HEAD_LENGTH, RECORD_HEAD_LENGTH + 2])
async def test_a_damaged_record_is_corruption_and_its_neighbours_are_not(storage: Storage, index: int, at: int) -> None:
    """A flipped byte in length, checksum or payload is never returned as an item, and hides no other item (F4, F5)."""
    journal = await filled(Context(storage), 25)
    await journal.close()
    await damage(storage, 0, offset_of(index) + at)
    journal = await Journal.init(Context(storage), config_of())
    assert journal.recovery.clean
    for _ in range(2):
        with pytest.raises(Corruption) as found:
            await journal.read(index)
        assert (found.value.partition, found.value.section, found.value.position) == ("orders_data", 0, index)
        with pytest.raises(Corruption):
            await journal.read_many(range(10))
        for position in range(25):
            if position != index:
                assert await journal.read(position) == item_at(position)
    await journal.close()


async def test_readers_of_a_section_that_does_not_open_get_errors_of_their_own(tmp_path: Path) -> None:
    """They share its opening, and each can note and raise what it likes: nobody else sees that (I1)."""

    def depth_of(error: BaseException) -> int:
        return len(traceback.extract_tb(error.__traceback__))

    async def error_of(position: int) -> Corruption:
        with pytest.raises(Corruption) as damaged:
            await journal.read(position)
        damaged.value.add_note(f"reading {position}")
        return damaged.value

    await (await filled(Context(FileStorage(tmp_path)), 25)).close()
    await damage(FileStorage(tmp_path), 1, 20)
    async with await Journal.init(Context(FileStorage(tmp_path)), config_of()) as journal:
        alone = await error_of(10)
        errors = await asyncio.gather(*map(error_of, range(10, 20)))
    assert [error.__notes__ for error in errors] == [[f"reading {position}"] for position in range(10, 20)]
    assert all(depth_of(error) <= depth_of(alone) for error in errors)
    assert {str(error) for error in errors} == {str(alone)}


async def test_reading_damaged_records_changes_no_file(tmp_path: Path) -> None:
    """Only opening repairs: corruption stays as it was found, for whoever wants to look at it."""
    storage = FileStorage(tmp_path)
    await (await filled(Context(storage), 25)).close()
    await damage(storage, 0, offset_of(4) + RECORD_HEAD_LENGTH)
    await damage(storage, 1, HEADER_LENGTH + 1, partition="orders_offsets")
    journal = await Journal.init(Context(storage), config_of())
    before = files_below(tmp_path)
    with pytest.raises(Corruption):
        await journal.read(4)
    with pytest.raises(Corruption):
        await streamed(journal.replay(0))
    assert await streamed(journal.replay(5)) == items_in(range(5, 25))
    assert await contents_from(journal, 10) == items_in(range(10, 25))
    assert files_below(tmp_path) == before
    await journal.close()


async def contents_from(journal: Journal[bytes], start: int) -> list[tuple[int, bytes]]:
    return [(position, await journal.read(position)) for position in range(start, journal.size())]


@pytest.mark.parametrize("entry", range(10))
async def test_an_index_that_leads_nowhere_hides_no_item(storage: Storage, entry: int) -> None:
    """The offsets are derived: with a wrong one all items of the section can still be read (A3)."""
    await (await filled(Context(storage), 25)).close()
    await damage(storage, 0, HEADER_LENGTH + 8 * entry, partition="orders_offsets")
    async with await Journal.init(Context(storage), config_of()) as journal:
        assert await journal.read(entry) == item_at(entry)
        assert await contents_of(journal) == items_in(range(25))


@pytest.mark.parametrize("index", [0, 5, 9])
async def test_a_length_that_claims_two_gigabytes_is_corruption(storage: Storage, index: int) -> None:
    """The claim of a record is checked before anything of that size is allocated, by read and by replay."""
    await (await filled(Context(storage), 25)).close()
    blob, _ = await storage.open("orders_data", name_of_section(0))
    await blob.write_at(offset_of(index), b"\xff\xff\xff\x7f")
    await blob.close()
    async with await Journal.init(Context(storage), config_of()) as journal:
        tracemalloc.start()
        try:
            with pytest.raises(Corruption):
                await journal.read(index)
            replay = journal.replay(0)
            assert [await anext(replay) for _ in range(index)] == items_in(range(index))
            with pytest.raises(Corruption):
                await anext(replay)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 8 * 2**20


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"no frame at all", id="no frame"),
        pytest.param(FRAME[:-1], id="cut short"),
        pytest.param(FRAME + b"x", id="followed by more"),
        pytest.param(FRAME + FRAME, id="two frames"),
        pytest.param(FRAME_OF_8_GIB, id="claims 8 GiB"),
        pytest.param(zstd.compress(bytes(100 * 2**20)), id="holds 100 MiB"),
        pytest.param(zstd.compress(bytes(2**20 + 1)), id="holds a byte too many"),
    ],
)
async def test_a_frame_that_is_no_item_is_a_codec_error(storage: Storage, frame: bytes) -> None:
    """Whatever a frame claims or holds, at most `max_item_size` bytes are produced, and the error is a clean one."""
    config = config_of(max_item_size=2**20)
    await (await filled(Context(storage), 1, config)).close()
    await put_payload(storage, frame, compressed=True)
    async with await Journal.init(Context(storage), config) as journal:
        assert journal.size() == 1
        tracemalloc.start()
        try:
            with pytest.raises(CodecError) as refused:
                await journal.read(0)
            with pytest.raises(CodecError):
                await streamed(journal.replay(0))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert (refused.value.codec, refused.value.doing, refused.value.position) == ("zstd", "decompress", 0)
        assert peak < 8 * 2**20
        assert await journal.append(b"next") == 1
        assert await journal.read(1) == b"next"


async def test_a_frame_of_exactly_the_largest_item_is_read(storage: Storage) -> None:
    """The limit on what is decompressed is inclusive."""
    config = config_of(max_item_size=2**20)
    await (await filled(Context(storage), 1, config)).close()
    await put_payload(storage, zstd.compress(bytes(2**20)), compressed=True)
    async with await Journal.init(Context(storage), config) as journal:
        assert await journal.read(0) == bytes(2**20)


async def test_a_frame_of_one_byte_more_than_the_largest_item_is_refused(storage: Storage) -> None:
    """As a whole frame that ends where it should, and is too long all the same (F7)."""
    config = config_of(max_item_size=100)
    await (await filled(Context(storage), 1, config)).close()
    await put_payload(storage, zstd.compress(bytes(101)), compressed=True)
    async with await Journal.init(Context(storage), config) as journal:
        with pytest.raises(CodecError):
            await journal.read(0)


async def test_a_smaller_limit_hides_larger_compressed_items_only(storage: Storage) -> None:
    """`max_item_size` may change: reading refuses what decompresses to more, and nothing else."""
    journal = await Journal.init(Context(storage), config_of(compression=3))
    await journal.append_many([b"small", b"large" * 1_000, b"small again"])
    journal = await reopened(journal, max_item_size=100)
    assert await journal.read(0) == b"small"
    with pytest.raises(CodecError):
        await journal.read(1)
    assert await journal.read(2) == b"small again"
    journal = await reopened(journal, max_item_size=5_000)
    assert await journal.read(1) == b"large" * 1_000
    await journal.close()
