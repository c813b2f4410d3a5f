"""`close`, `destroy`, `open`, and what a journal is when it is not open."""

import asyncio
import gc
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from posjournal_async import (
    BytesCodec,
    Codec,
    CodecError,
    Config,
    Context,
    Contiguous,
    FileStorage,
    InvalidConfiguration,
    ItemTooLarge,
    Journal,
    JournalClosed,
    JournalError,
    JournalFailed,
    JournalLocked,
    JsonCodec,
    MemoryStorage,
    Storage,
    StorageError,
)
from posjournal_async.testing import FaultyStorage
from posjournal_async.testing.wrapping import is_data_sync
from tests.journals import (
    config_of,
    contents_of,
    files_below,
    filled,
    item_at,
    items_in,
    others_ended,
    reopened,
    streamed,
)

# Every public name of a journal, with a call of it that an open journal of 25 items answers.
CALLS: dict[str, Callable[[Journal[bytes]], Any]] = {
    "append": lambda journal: journal.append(b"x"),
    "append_many": lambda journal: journal.append_many([b"x"]),
    "read": lambda journal: journal.read(0),
    "read_many": lambda journal: journal.read_many([]),
    "replay": lambda journal: journal.replay(0),
    "replay_batches": lambda journal: journal.replay_batches(0),
    "prune": lambda journal: journal.prune(0),
    "rewind": lambda journal: journal.rewind(25),
    "sync_data": lambda journal: journal.sync_data(),
    "commit": lambda journal: journal.commit(),
    "sync": lambda journal: journal.sync(),
    "size": lambda journal: journal.size(),
    "oldest_retained_pos": lambda journal: journal.oldest_retained_pos(),
    "bounds": lambda journal: journal.bounds(),
    "durable_size": lambda journal: journal.durable_size(),
    "destroy": lambda journal: journal.destroy(),
    "__aenter__": lambda journal: journal.__aenter__(),
}
# What makes a journal, what only says how it was made, and what may be called again.
OTHERS = {"init", "init_at_size", "init_sync", "open", "recovery", "config", "close", "aclose"}


async def answer_of(call: Callable[[Journal[bytes]], Any], journal: Journal[bytes]) -> None:
    answer = call(journal)
    if inspect.isawaitable(answer):
        await answer
    elif inspect.isasyncgen(answer):
        await answer.aclose()


def test_every_public_name_is_tried() -> None:
    """No method is missing in the list that the tests below go through."""
    public = {name for name in dir(Journal) if not name.startswith("_")}
    assert public == {*CALLS, *OTHERS} - {"__aenter__"}


# Closing.


@pytest.mark.parametrize("name", [name for name in CALLS if name != "destroy"])
async def test_every_call_is_answered_while_the_journal_is_open(context: Context, name: str) -> None:
    """None of the calls is refused for another reason than that the journal is closed."""
    async with await filled(context, 25) as journal:
        await answer_of(CALLS[name], journal)


@pytest.mark.parametrize("ending", ["close", "aclose", "destroy"])
@pytest.mark.parametrize("name", CALLS)
async def test_every_call_on_an_ended_journal_is_refused(context: Context, name: str, ending: str) -> None:
    """After a close or a destruction each method raises `JournalClosed`."""
    journal = await filled(context, 25)
    await getattr(journal, ending)()
    with pytest.raises(JournalClosed) as refused:
        await answer_of(CALLS[name], journal)
    assert refused.value.partition == "orders"


@pytest.mark.parametrize("name", CALLS)
async def test_every_call_is_refused_from_the_moment_a_close_began(context: Context, name: str) -> None:
    """What is called after `close` is refused, although the files are still being closed."""
    journal = await filled(context, 25)
    closing = asyncio.create_task(journal.close())
    await asyncio.sleep(0)
    with pytest.raises(JournalClosed):
        await answer_of(CALLS[name], journal)
    await closing


@pytest.mark.parametrize("codec", [BytesCodec(), JsonCodec()], ids=["bytes", "json"])
@pytest.mark.parametrize("item", [object(), b"long", "long"], ids=["object", "bytes", "str"])
@pytest.mark.parametrize("ending", ["close", "failure"])
async def test_an_item_that_is_refused_does_not_hide_the_end(codec: Codec[Any], item: object, ending: str) -> None:
    """It could not be appended to an open journal either, but that the journal has ended is what its caller is told."""
    storage = FaultyStorage(MemoryStorage(), only=is_data_sync)
    journal = await Journal.init(Context(storage), Config(partition="orders", codec=codec, max_item_size=3))
    for append in (journal.append, lambda item: journal.append_many([item])):
        with pytest.raises((CodecError, ItemTooLarge)):
            await append(item)
    expected: type[JournalError] = JournalClosed
    if ending == "close":
        await journal.close()
    else:
        expected, storage.fail_at = JournalFailed, storage.count + 1
        await journal.append(b"x" if isinstance(codec, BytesCodec) else 1)
        with pytest.raises(StorageError):
            await journal.sync()
    for append in (journal.append, lambda item: journal.append_many([item])):
        with pytest.raises(expected):
            await append(item)
    if ending != "close":
        with pytest.raises(JournalFailed):
            await journal.close()


async def test_closing_is_idempotent(context: Context) -> None:
    """Closing again, at the same time or later, by either name, is fine, also after a destruction."""
    journal = await filled(context, 5)
    await asyncio.gather(journal.close(), journal.close(), journal.aclose())
    await journal.close()
    await journal.aclose()
    journal = await Journal.init(context, config_of())
    await journal.destroy()
    await journal.close()


def test_aclose_is_another_name_of_close() -> None:
    """`contextlib.aclosing` finds what it needs."""
    assert vars(Journal)["aclose"] is vars(Journal)["close"]


@pytest.mark.parametrize("count", [0, 1, 10, 25])
async def test_a_close_makes_everything_durable(context: Context, count: int) -> None:
    """Items that were never synced are there after a close, and the next open has nothing to repair."""
    await (await filled(context, count)).close()
    async with await Journal.init(context, config_of()) as journal:
        assert journal.recovery.clean
        assert journal.recovery.items_found == count
        assert journal.recovery.notes == ()
        assert await contents_of(journal) == items_in(range(count))


async def test_calls_under_way_are_finished_before_a_close(context: Context) -> None:
    """What was called before `close` succeeds, in its order."""
    journal = await filled(context, 25, config_of(write_buffer=1))
    before = [
        asyncio.create_task(journal.append(item_at(25))),
        asyncio.create_task(journal.append(item_at(26))),
        asyncio.create_task(journal.sync()),
        asyncio.create_task(journal.prune(10)),
    ]
    await asyncio.sleep(0)
    await journal.close()
    assert await asyncio.gather(*before) == [25, 26, None, True]
    async with await Journal.init(context, config_of()) as journal:
        assert await contents_of(journal) == items_in(range(10, 27))


@pytest.mark.parametrize("count", [1_024, 5_000])
async def test_a_call_of_many_steps_may_find_the_journal_closed(context: Context, count: int) -> None:
    """It ends at its next step, and appended nothing; nobody waits for all of its steps."""
    journal = await Journal.init(context, config_of(65_536))
    await journal.append_many([b"x"] * 1_000)
    under_way = [
        asyncio.create_task(journal.append_many([b"y"] * count)),
        asyncio.create_task(journal.read_many(range(1_000))),
    ]
    await asyncio.sleep(0)
    await journal.close()
    for ended in await asyncio.gather(*under_way, return_exceptions=True):
        assert isinstance(ended, JournalClosed)
    async with await Journal.init(context, config_of(65_536)) as again:
        assert again.size() == 1_000


async def test_leaving_async_with_closes(context: Context) -> None:
    """The journal is closed behind the block, and what was appended in it is there."""
    async with await Journal.init(context, config_of()) as journal:
        await journal.append(item_at(0))
    with pytest.raises(JournalClosed):
        journal.size()
    async with await Journal.init(context, config_of()) as again:
        assert await contents_of(again) == items_in(range(1))


async def test_an_exception_inside_async_with_comes_out(context: Context) -> None:
    """The journal is closed, and the exception is the caller's own."""

    async def work() -> None:
        async with await Journal.init(context, config_of()) as journal:
            await journal.append(item_at(0))
            raise LookupError("the caller's own")

    with pytest.raises(LookupError, match="the caller's own"):
        await work()
    async with await Journal.init(context, config_of()) as again:
        assert await contents_of(again) == items_in(range(1))


@pytest.mark.parametrize("ending", ["close", "destroy"])
async def test_an_ending_that_fails_says_why_though_releasing_fails_too(storage: Storage, ending: str) -> None:
    """The close of a file says nothing of a full disk (F1); the lock is free in any case."""
    failing = FaultyStorage(storage, once=False, only=lambda call: call.what in {"sync", "write_durably_at", "close"})
    journal = await Journal.init(Context(failing), config_of())
    await journal.append(b"x")
    await journal.sync()
    await journal.append(b"y")
    failing.fail_at = failing.count + 1
    with pytest.raises(StorageError) as failed:
        await getattr(journal, ending)()
    assert "close" not in str(failed.value)
    assert [note for note in failed.value.__notes__ if "close" in note]
    assert {call.what for call in failing.failures} > {"close"}
    await (await Journal.init(Context(storage), config_of())).close()


async def test_a_close_that_failed_inside_async_with_is_told_once() -> None:
    """Leaving closes again, which says the same: that is not something else that failed too."""
    failing = FaultyStorage(MemoryStorage(), only=lambda call: call.what == "close")

    async def work() -> None:
        async with await Journal.init(Context(failing), config_of()) as journal:
            failing.fail_at = failing.count + 1
            await journal.close()

    with pytest.raises(StorageError) as failed:
        await work()
    assert not hasattr(failed.value, "__notes__")


@pytest.mark.parametrize("ending", ["close", "destroy"])
async def test_the_lock_is_free_when_the_journal_has_ended(context: Context, ending: str) -> None:
    """A second open is refused while the first journal lives, in the same process too, and succeeds after it (F6)."""
    journal = await filled(context, 5)
    opens: list[Callable[[], Any]] = [
        lambda: Journal.init(context, config_of()),
        lambda: Journal.init_at_size(context, config_of(), 3),
        lambda: Journal.init_sync(context, config_of(), range(3, 5)),
    ]
    for opening in opens:
        with pytest.raises(JournalLocked) as refused:
            await opening()
        assert isinstance(refused.value, OSError)
    assert await contents_of(journal) == items_in(range(5))
    await getattr(journal, ending)()
    async with await Journal.init(context, config_of()) as again:
        assert again.size() == (5 if ending == "close" else 0)


async def test_journals_of_different_partitions_share_a_storage(context: Context) -> None:
    """They neither lock nor see each other, and destroying one leaves the other."""
    async with await filled(context, 12, config_of(partition="a")) as kept:
        journal = await filled(context, 25, config_of(partition="b"))
        assert await contents_of(kept) == items_in(range(12))
        assert await contents_of(journal) == items_in(range(25))
        await journal.destroy()
        assert await contents_of(kept) == items_in(range(12))


# Destroying.


@pytest.mark.parametrize("count", [0, 5, 25])
async def test_nothing_is_left_of_a_destroyed_journal(storage: Storage, count: int) -> None:
    """All blobs are gone from the storage, and a new journal starts from nothing."""
    context = Context(storage)
    journal = await filled(context, count)
    await journal.destroy()
    for partition in ("orders_data", "orders_offsets", "orders_checkpoint"):
        assert await storage.scan(partition) == []
    async with await Journal.init(context, config_of(3)) as again:
        assert again.recovery.clean
        assert (again.size(), again.oldest_retained_pos()) == (0, None)
        assert await streamed(again.replay(0)) == []
        assert await again.append(item_at(0)) == 0


async def test_no_file_is_left_of_a_destroyed_journal(tmp_path: Path) -> None:
    """Below the root of the storage there is no file any more."""
    journal = await filled(Context(FileStorage(tmp_path)), 25)
    await journal.sync()
    await journal.prune(10)
    await journal.destroy()
    assert files_below(tmp_path) == {}


async def test_a_journal_at_a_size_leaves_nothing_either(storage: Storage) -> None:
    """The position at which it started is forgotten as well."""
    context = Context(storage)
    journal = await Journal.init_at_size(context, config_of(), 77)
    await journal.destroy()
    async with await Journal.init(context, config_of()) as again:
        assert again.size() == 0


# Opening by a path.


async def test_a_journal_is_opened_by_its_path(tmp_path: Path) -> None:
    """The last part is the partition and the rest the root; keywords go to the configuration."""
    path = tmp_path / "data" / "orders"
    async with Journal.open(path, codec=BytesCodec(), items_per_section=10) as journal:
        assert journal.config.partition == "orders"
        assert journal.config.items_per_section == 10
        assert await journal.append(item_at(0)) == 0
    with pytest.raises(JournalClosed):
        journal.size()
    async with await Journal.init(Context(FileStorage(tmp_path / "data")), config_of()) as again:
        assert await contents_of(again) == items_in(range(1))


async def test_a_path_may_be_awaited_for_a_journal_that_stays_open(tmp_path: Path) -> None:
    """`await Journal.open(path)` gives a journal that its holder closes; a string will do, and the codec is msgpack."""
    journal = await Journal.open(f"{tmp_path}/orders")
    assert await journal.append({"id": 7}) == 0
    await journal.close()
    async with Journal.open(f"{tmp_path}/orders") as journal:
        assert await journal.read(0) == {"id": 7}


async def test_an_exception_inside_an_open_path_comes_out(tmp_path: Path) -> None:
    """The journal is closed and its lock is free."""
    with pytest.raises(LookupError, match="the caller's own"):
        async with Journal.open(tmp_path / "orders"):
            raise LookupError("the caller's own")
    async with Journal.open(tmp_path / "orders") as journal:
        assert journal.size() == 0


def test_a_path_whose_last_part_is_no_name_is_refused(tmp_path: Path) -> None:
    """It is refused by the call, before anything is opened."""
    with pytest.raises(InvalidConfiguration):
        Journal.open(tmp_path / "no name")
    assert list(tmp_path.iterdir()) == []


# What else a journal is.


async def test_a_journal_is_contiguous(context: Context) -> None:
    """Code that asks for the protocol takes a journal, and finds all that the protocol names."""
    journal: Contiguous[bytes] = await filled(context, 3)
    for name in (name for name in vars(Contiguous) if not name.startswith("_")):
        assert callable(getattr(journal, name))
    assert await journal.append(item_at(3)) == 3
    assert await streamed(journal.replay(0)) == items_in(range(4))
    await journal.close()


async def test_a_label_is_joined_to_the_one_above() -> None:
    """Each level of a service adds its own name, and the context that it came from stays as it was."""
    context = Context(MemoryStorage())
    shop = context.with_label("shop")
    assert (context.label, shop.label, shop.with_label("orders").label) == ("", "shop", "shop_orders")
    assert shop.storage is context.storage
    assert shop.metrics is context.metrics


async def test_a_journal_says_what_it_is(context: Context) -> None:
    """Its representation names the partition, the bounds and the state, also when it is closed."""
    journal = await filled(context, 25)
    await journal.prune(10)
    assert repr(journal) == "<Journal 'orders' 10..25 open>"
    await journal.close()
    assert repr(journal) == "<Journal 'orders' 10..25 closed>"
    assert journal.config == config_of(codec=journal.config.codec)
    assert journal.recovery.clean


async def test_a_journal_that_is_dropped_warns_and_writes_nothing(context: Context) -> None:
    """Collected without a close it is a `ResourceWarning`; what was not synced is lost."""
    journal = await filled(context, 10)
    await journal.append(item_at(10))
    await others_ended()  # the writer ends when it has nothing to do
    del journal
    with pytest.warns(ResourceWarning, match="unclosed journal 'orders'"):
        gc.collect()
    if isinstance(context.storage, FileStorage):
        async with await Journal.init(context, config_of()) as again:
            assert await contents_of(again) == items_in(range(10))


async def test_another_thread_is_refused(context: Context) -> None:
    """A journal belongs to the thread of its event loop (I4)."""
    async with await filled(context, 3) as journal:
        with pytest.raises(RuntimeError, match="loop"):
            await asyncio.to_thread(journal.size)
        with pytest.raises(RuntimeError, match="loop"):
            await asyncio.to_thread(asyncio.run, journal.append(b"x"))
        assert await contents_of(journal) == items_in(range(3))


def test_another_event_loop_is_refused(context: Context) -> None:
    """A journal belongs to one event loop, also when another runs on the same thread (I4)."""
    loop = asyncio.new_event_loop()
    journal = loop.run_until_complete(filled(context, 3))
    for call in CALLS.values():

        async def work(call: Callable[[Journal[bytes]], Any] = call) -> None:
            await answer_of(call, journal)

        with pytest.raises(RuntimeError, match="loop"):
            asyncio.run(work())
    assert loop.run_until_complete(contents_of(journal)) == items_in(range(3))
    loop.run_until_complete(journal.close())
    loop.close()


async def test_opening_again_and_again_changes_nothing(context: Context) -> None:
    """Opening and closing a journal any number of times leaves its items and reports nothing."""
    journal = await filled(context, 15)
    for _ in range(5):
        journal = await reopened(journal)
        assert await contents_of(journal) == items_in(range(15))
    await journal.close()
