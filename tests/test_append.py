"""`append` and `append_many`: positions, items of every length, what is refused, and waiting for room."""

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posjournal_async import (
    AppendError,
    BytesCodec,
    Codec,
    CodecError,
    Config,
    Context,
    EmptyAppend,
    FileStorage,
    ItemOutOfRange,
    ItemTooLarge,
    Journal,
    JournalError,
    JsonCodec,
    MsgpackCodec,
)
from posjournal_async.data import PIECE, STRETCH
from posjournal_async.format.header import HEADER_LENGTH
from posjournal_async.format.record import RECORD_HEAD_LENGTH
from posjournal_async.testing import CrashStorage
from tests.journals import config_of, contents_of, filled, item_at, items_in, limits_of, reopened, streamed

NOISE = random.Random(7).randbytes(3 * PIECE)


class PickyCodec(BytesCodec):
    """Refuses what it is told to refuse, in both directions; its name is that of the codec it stands in for."""

    def encode(self, item: Any, /) -> bytes:
        if item == b"not to be encoded":
            raise LookupError("secret of the item")
        if item == b"text":
            return "text"  # type: ignore[return-value]
        return super().encode(item)

    def decode(self, data: bytes, /) -> bytes:
        if data == b"not to be decoded":
            raise LookupError("secret of the item")
        return data


def step(coroutine: Any) -> int | None:
    """Run a coroutine to its first suspension; return what it returns, or None if it suspended."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        value: int = done.value
        return value
    return None


# Positions.


async def test_a_fresh_journal_is_empty(context: Context) -> None:
    """A new journal has size 0, retains nothing, and is fully durable."""
    async with await Journal.init(context, config_of()) as journal:
        assert journal.size() == 0
        assert journal.durable_size() == 0
        assert journal.oldest_retained_pos() is None
        assert limits_of(journal.bounds()) == (0, 0)
        assert await streamed(journal.replay(0)) == []
        with pytest.raises(ItemOutOfRange):
            await journal.read(0)


async def test_the_first_items_get_the_positions_from_zero_on(context: Context) -> None:
    """Positions start at 0 and are dense."""
    async with await Journal.init(context, config_of()) as journal:
        assert [await journal.append(b"x") for _ in range(3)] == [0, 1, 2]
        assert journal.bounds() == range(3)
        assert journal.oldest_retained_pos() == 0


@pytest.mark.parametrize("count", [1, 9, 10, 11, 20, 25])
async def test_positions_are_dense_across_sections(context: Context, count: int) -> None:
    """Each item is at the position that its append returned, on both sides of a section's end, and after a reopen."""
    journal = await filled(context, count)
    assert await contents_of(journal) == items_in(range(count))
    journal = await reopened(journal)
    assert await contents_of(journal) == items_in(range(count))
    assert await journal.append(b"next") == count
    await journal.close()


async def test_each_of_a_thousand_items_is_readable_as_soon_as_its_append_returned(context: Context) -> None:
    """An item is read right after its append, synced or not, and again at the end."""
    async with await Journal.init(context, config_of()) as journal:
        for position in range(1_000):
            assert await journal.append(item_at(position)) == position
            assert await journal.read(position) == item_at(position)
        assert await contents_of(journal) == items_in(range(1_000))


@pytest.mark.parametrize("items_per_section", [1, 2, 10, 1_000])
@pytest.mark.parametrize("write_buffer", [1, 100, 2**20])
async def test_positions_follow_the_order_of_the_calls(
    context: Context, items_per_section: int, write_buffer: int
) -> None:
    """Tasks that append at once get their positions in the order in which they called, whoever has to wait (O1)."""
    config = config_of(items_per_section, write_buffer=write_buffer)
    async with await Journal.init(context, config) as journal:
        positions = await asyncio.gather(*(journal.append(item_at(position)) for position in range(60)))
        assert positions == [*range(60)]
        assert await contents_of(journal) == items_in(range(60))


async def test_an_append_with_room_takes_its_position_without_suspending(context: Context) -> None:
    """Position and bytes are taken in one synchronous step: there is nothing to cancel in between."""
    async with await Journal.init(context, config_of(3)) as journal:
        assert step(journal.append(b"first")) == 0
        assert step(journal.append(b"second")) == 1
        assert await journal.read(1) == b"second"


async def test_an_append_that_fills_its_section_returns_when_the_section_is_synced(context: Context) -> None:
    """What was appended before a section's end is durable when the append that reaches the end returns."""
    async with await filled(context, 9) as journal:
        assert journal.durable_size() == 0
        await journal.append(item_at(9))
        assert journal.durable_size() == 10


async def test_a_tight_loop_of_appends_lets_other_tasks_run(context: Context) -> None:
    """A task that does nothing but append gives way again and again (L2)."""
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with await Journal.init(context, config_of(65_536)) as journal:
        counting = asyncio.create_task(count_turns())
        for _ in range(2_000):
            await journal.append(NOISE[:1_000])
        counting.cancel()
        assert turns >= 2_000 * 1_000 // STRETCH - 2
        with pytest.raises(asyncio.CancelledError):
            await counting


# Items.


@pytest.mark.parametrize(
    "item",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"x", id="one byte"),
        pytest.param(b"\0" * 100, id="zeros"),
        pytest.param(NOISE[: 200 - RECORD_HEAD_LENGTH], id="exactly the write buffer"),
        pytest.param(NOISE[: 201 - RECORD_HEAD_LENGTH], id="a byte more than the write buffer"),
        pytest.param(NOISE[: PIECE - RECORD_HEAD_LENGTH], id="exactly a piece"),
        pytest.param(NOISE[: PIECE - RECORD_HEAD_LENGTH + 1], id="a byte more than a piece"),
        pytest.param(NOISE, id="several pieces"),
        pytest.param(b"compressible" * 50_000, id="compressible"),
    ],
)
@pytest.mark.parametrize("compression", [None, 3])
async def test_an_item_of_any_length_comes_back(context: Context, item: bytes, compression: int | None) -> None:
    """An item is the same in the buffer, in the storage, in a sealed section and after a reopen."""
    journal = await Journal.init(context, config_of(3, write_buffer=200, compression=compression))
    expected = [(0, b"before"), (1, item), (2, b"after"), (3, item)]
    for position, appended in expected:
        assert await journal.append(appended) == position
        assert await journal.read(position) == appended
    assert await contents_of(journal) == expected
    await journal.sync()
    assert await contents_of(journal) == expected
    journal = await reopened(journal)
    assert await contents_of(journal) == expected
    await journal.close()


async def test_a_write_buffer_of_one_byte_lets_every_item_through(context: Context) -> None:
    """An item larger than the write buffer goes through, alone (F7)."""
    journal = await filled(context, 25, config_of(write_buffer=1))
    assert await contents_of(journal) == items_in(range(25))
    await journal.append_many([item_at(position) for position in range(25, 60)])
    journal = await reopened(journal)
    assert await contents_of(journal) == items_in(range(60))
    await journal.close()


async def test_sections_of_one_item_hold_every_item(context: Context) -> None:
    """With one item in a section each append fills one."""
    journal = await filled(context, 12, config_of(1))
    assert journal.durable_size() == 12
    await journal.append_many([item_at(position) for position in range(12, 30)])
    journal = await reopened(journal)
    assert await contents_of(journal) == items_in(range(30))
    await journal.close()


@pytest.mark.parametrize(
    ("codec", "item"),
    [
        (MsgpackCodec(), {"id": 7, "tags": ["a", b"b", None], "share": 0.5}),
        (MsgpackCodec(), None),
        (JsonCodec(), {"id": 7, "name": "Zoë"}),
        (BytesCodec(), b"raw"),
    ],
)
async def test_items_pass_through_the_codec(context: Context, codec: Codec[Any], item: Any) -> None:
    """What was appended comes back equal after a reopen, as far as the codec knows it; None is an item too."""
    journal: Journal[Any] = await Journal.init(context, Config(partition="orders", codec=codec))
    await journal.append(item)
    journal = await reopened(journal)
    assert await contents_of(journal) == [(0, item)]
    await journal.close()


async def test_an_item_that_changes_after_its_append_is_kept_as_it_was(context: Context) -> None:
    """The bytes are taken when append is called: a mutable item may be used again."""
    async with await Journal.init(context, config_of()) as journal:
        item = bytearray(b"first")
        await journal.append(item)  # type: ignore[arg-type]  # the codec takes it and gives bytes back
        item[:] = b"other"
        assert await journal.read(0) == b"first"


# Compression.


async def test_compression_may_change_between_opens(context: Context) -> None:
    """Each record says itself whether it is compressed: old ones stay readable, in the same section too."""
    journal = await Journal.init(context, config_of(8))
    items = [b"%d" % position * 500 for position in range(12)]
    for start, level in ((0, 3), (3, None), (6, 19), (9, -5)):
        journal = await reopened(journal, compression=level)
        await journal.append_many(items[start : start + 3])
        assert await contents_of(journal) == [*enumerate(items[: start + 3])]
    journal = await reopened(journal, compression=None)
    assert await contents_of(journal) == [*enumerate(items)]
    await journal.close()


async def test_a_compressed_item_takes_less_space(tmp_path: Path) -> None:
    """With a level set, the file grows by what zstd leaves of the item."""
    journal = await Journal.init(Context(FileStorage(tmp_path)), config_of(compression=3))
    await journal.append(b"again and " * 100_000)
    await journal.close()
    assert data_file_of(tmp_path).stat().st_size < 10_000


async def test_an_item_that_does_not_shrink_is_stored_as_it_is(tmp_path: Path) -> None:
    """Compression never makes a record larger."""
    journal = await Journal.init(Context(FileStorage(tmp_path)), config_of(compression=19))
    await journal.append(NOISE)
    await journal.append(b"")
    await journal.close()
    content = data_file_of(tmp_path).read_bytes()
    assert len(content) == HEADER_LENGTH + 2 * RECORD_HEAD_LENGTH + len(NOISE)
    assert NOISE in content


def data_file_of(root: Path) -> Path:
    [path] = (root / "orders_data").iterdir()
    return path


# What is refused.


@pytest.mark.parametrize("compression", [None, 3])
async def test_an_item_of_the_largest_size_is_taken(context: Context, compression: int | None) -> None:
    """`max_item_size` is inclusive, and is the length before compression."""
    async with await Journal.init(context, config_of(max_item_size=100, compression=compression)) as journal:
        assert await journal.append(b"x" * 100) == 0
        assert await journal.read(0) == b"x" * 100


@pytest.mark.parametrize("compression", [None, 3])
async def test_an_item_above_the_largest_size_is_refused(context: Context, compression: int | None) -> None:
    """One byte more is `ItemTooLarge`, however small it would compress; nothing is appended, and the next goes on."""
    async with await Journal.init(context, config_of(max_item_size=100, compression=compression)) as journal:
        with pytest.raises(ItemTooLarge) as refused:
            await journal.append(b"x" * 101)
        assert (refused.value.length, refused.value.limit) == (101, 100)
        assert isinstance(refused.value, AppendError)
        assert journal.size() == 0
        assert await journal.append(b"next") == 0


@pytest.mark.parametrize("item", [b"not to be encoded", b"text", 7], ids=["raises", "gives text", "another type"])
async def test_an_item_that_the_codec_refuses_leaves_the_journal_as_it_was(context: Context, item: Any) -> None:
    """A codec that raises or gives something else than bytes is a `CodecError`, without a byte of the item."""
    journal = await filled(context, 5, config_of(codec=PickyCodec()))
    with pytest.raises(CodecError) as refused:
        await journal.append(item)
    assert (refused.value.codec, refused.value.doing, refused.value.position) == ("bytes", "encode", None)
    assert "secret" not in str(refused.value)
    with pytest.raises(CodecError):
        await journal.append_many([b"good", item, b"good"])
    assert await journal.append(item_at(5)) == 5
    journal = await reopened(journal)
    assert await contents_of(journal) == items_in(range(6))
    await journal.close()


async def test_an_item_that_the_codec_does_not_decode_hides_no_other(context: Context) -> None:
    """Reading it is a `CodecError` with its position, which ends a replay; the items around it can be read."""
    async with await filled(context, 3, config_of(codec=PickyCodec())) as journal:
        await journal.append(b"not to be decoded")
        await journal.append(item_at(4))
        with pytest.raises(CodecError) as refused:
            await journal.read(3)
        assert (refused.value.codec, refused.value.doing, refused.value.position) == ("bytes", "decode", 3)
        assert await journal.read(4) == item_at(4)
        replay = journal.replay(0)
        assert [await anext(replay) for _ in range(3)] == items_in(range(3))
        with pytest.raises(CodecError):
            await anext(replay)
        assert await streamed(replay) == []


@pytest.mark.parametrize("ended_by", [StopIteration, LookupError])
async def test_a_codec_that_ends_an_iteration_loses_no_item(context: Context, ended_by: type[Exception]) -> None:
    """A StopIteration, as `next` raises it, is one of the item and not the end of many: none is left out in silence."""

    class Ended(BytesCodec):
        def encode(self, item: Any, /) -> bytes:
            if item == b"not to be encoded":
                raise ended_by
            return bytes(item)

        def decode(self, data: bytes, /) -> bytes:
            if data == b"not to be decoded":
                raise ended_by
            return data

    async with await Journal.init(context, config_of(codec=Ended())) as journal:
        for items in ([b"first", b"not to be encoded", b"last"], [b"not to be encoded"]):
            with pytest.raises(CodecError) as refused:
                await journal.append_many(items)
            assert (refused.value.doing, refused.value.reason) == ("encode", ended_by.__name__)
            assert journal.size() == 0
        await journal.append_many([b"first", b"not to be decoded", b"last"])
        for replay, first in ((journal.replay(0), (0, b"first")), (journal.replay_batches(0), (0, [b"first"]))):
            assert await anext(replay) == first
            with pytest.raises(CodecError) as refused:
                await anext(replay)
            assert (refused.value.position, refused.value.reason) == (1, ended_by.__name__)
        assert await journal.read(2) == b"last"


# Many at once.


@given(
    runs=st.lists(st.lists(st.binary(max_size=60), min_size=1, max_size=9), min_size=1, max_size=8),
    items_per_section=st.integers(1, 12),
    compression=st.sampled_from([None, 1]),
)
def test_items_one_by_one_and_in_runs_leave_the_same_bytes(
    runs: list[list[bytes]], items_per_section: int, compression: int | None
) -> None:
    """The straight way of an append, and the way on which all questions are asked, differ in what they cost only."""
    config = config_of(items_per_section, compression=compression)

    async def left(*, one_by_one: bool) -> dict[tuple[str, str], bytes]:
        storage = CrashStorage()
        async with await Journal.init(Context(storage), config) as journal:
            for run in runs:
                if one_by_one:
                    for item in run:
                        await journal.append(item)
                else:
                    await journal.append_many(run)
                assert await journal.read(journal.size() - 1) == run[-1]
        return storage.tree()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("secrets.randbits", lambda _: 7)  # salts and the journal's id
        assert asyncio.run(left(one_by_one=True)) == asyncio.run(left(one_by_one=False))


@pytest.mark.parametrize(
    ("items_per_section", "count"),
    [
        (10, 1),
        (10, 9),
        (10, 10),
        (10, 11),
        (10, 35),
        (1, 5),
        (65_536, 1_024),
        (65_536, 1_025),
        (100, 2_500),
        (7, 1_100),
    ],
)
@pytest.mark.parametrize("before", [0, 3])
async def test_many_items_get_one_run_of_positions(
    context: Context, items_per_section: int, count: int, before: int
) -> None:
    """The position of the last one comes back, and the items lie before it, over as many sections as it takes (A2)."""
    journal = await filled(context, before, config_of(items_per_section))
    size = before + count
    assert await journal.append_many([item_at(position) for position in range(before, size)]) == size - 1
    assert journal.durable_size() >= size // items_per_section * items_per_section
    assert await contents_of(journal) == items_in(range(size))
    journal = await reopened(journal)
    assert await contents_of(journal) == items_in(range(size))
    await journal.close()


@pytest.mark.parametrize("count", [1, 10, 3_000])
async def test_many_items_may_come_from_a_generator(context: Context, count: int) -> None:
    """Any iterable will do, read once."""
    async with await Journal.init(context, config_of(100)) as journal:
        assert await journal.append_many(item_at(position) for position in range(count)) == count - 1
        assert await contents_of(journal) == items_in(range(count))


@pytest.mark.parametrize("count", [10, 3_000])
async def test_a_generator_may_give_the_same_object_changed_each_time(context: Context, count: int) -> None:
    """The bytes are taken when it is given: a buffer that is filled again and again needs no copies."""

    def items() -> Iterator[bytearray]:
        item = bytearray()
        for position in range(count):
            item[:] = item_at(position)
            yield item

    async with await Journal.init(context, config_of(100)) as journal:
        assert await journal.append_many(items()) == count - 1  # type: ignore[arg-type]  # as above
        assert await contents_of(journal) == items_in(range(count))


@pytest.mark.parametrize("nothing", [list, tuple, lambda: iter(())], ids=["list", "tuple", "iterator"])
async def test_no_items_are_refused(context: Context, nothing: Callable[[], Any]) -> None:
    """There is no position of the last of none."""
    async with await filled(context, 3) as journal:
        with pytest.raises(EmptyAppend) as refused:
            await journal.append_many(nothing())
        assert isinstance(refused.value, AppendError)
        assert journal.size() == 3


@pytest.mark.parametrize("count", [2, 30, 2_000])
async def test_nothing_is_appended_when_one_of_many_is_refused(context: Context, count: int) -> None:
    """Everything is encoded before the first is appended: the last item decides about all."""
    async with await filled(context, 3, config_of(max_item_size=100)) as journal:
        with pytest.raises(ItemTooLarge):
            await journal.append_many([b"good"] * (count - 1) + [b"x" * 101])
        assert journal.size() == 3
        assert await journal.append(item_at(3)) == 3
        assert await contents_of(journal) == items_in(range(4))


async def test_nothing_is_appended_when_the_items_run_into_an_error(context: Context) -> None:
    """What the iterable raises comes out as it is, with nothing appended."""

    def items() -> Iterator[bytes]:
        yield b"good"
        raise LookupError("no more")

    async with await filled(context, 3) as journal:
        with pytest.raises(LookupError, match="no more"):
            await journal.append_many(items())
        assert await contents_of(journal) == items_in(range(3))


@pytest.mark.parametrize("write_buffer", [1, 2_000, 2**20])
@pytest.mark.parametrize("length", [5, 40, 1_500])
async def test_no_other_append_comes_between_many_items(context: Context, length: int, write_buffer: int) -> None:
    """Runs of several tasks and single appends follow each other; no run is torn apart."""
    async with await Journal.init(context, config_of(64, write_buffer=write_buffer)) as journal:

        async def append_run(name: int) -> tuple[int, int]:
            last = await journal.append_many([b"%d" % name] * length)
            return last - length + 1, last

        runs = await asyncio.gather(
            append_run(1), journal.append(b"x"), append_run(2), journal.append(b"y"), append_run(3)
        )
        items = [item for _, item in await contents_of(journal)]
        assert len(items) == 3 * length + 2
        for name, run in ((1, runs[0]), (2, runs[2]), (3, runs[4])):
            assert items[run[0] : run[1] + 1] == [b"%d" % name] * length
        assert (items[runs[1]], items[runs[3]]) == (b"x", b"y")


@pytest.mark.parametrize("count", [20, 5_000])
async def test_many_items_become_visible_as_one(context: Context, count: int) -> None:
    """Nobody ever sees a size in the middle of a run, nor reads an item of it before all of it is there (A2, I1)."""
    sizes = set()
    async with await Journal.init(context, config_of(2_048)) as journal:
        appending = asyncio.create_task(journal.append_many([b"x"] * count))
        while not appending.done():
            sizes.add(journal.size())
            with suppress(ItemOutOfRange):
                await journal.read(0)
                assert journal.size() == count
            await asyncio.sleep(0)
        assert await appending == count - 1
        assert sizes <= {0, count}
        assert 0 in sizes


async def test_every_refusal_has_the_one_root(context: Context) -> None:
    """Whoever catches `JournalError` has caught what an append raises on purpose."""
    async with await Journal.init(context, config_of(max_item_size=1)) as journal:
        refusals: list[Any] = [journal.append(b"xx"), journal.append(7), journal.append_many([])]  # type: ignore[arg-type]
        for refused in refusals:
            with pytest.raises(JournalError):
                await refused
