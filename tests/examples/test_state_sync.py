"""The second node of the example has what the first one has, however often the connection is cut."""

from __future__ import annotations

import asyncio
import gc
from contextlib import asynccontextmanager, suppress
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from posjournal_async import BytesCodec, Config, Context, FileStorage, Journal, MemoryStorage
from tests.examples.serving import example, printed_by, served

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from posjournal_async import Storage

CONFIG: Config[bytes] = Config(partition="frames", codec=BytesCodec(), items_per_section=10, max_item_size=100_000)


@asynccontextmanager
async def sender_of(storage: MemoryStorage) -> AsyncGenerator[tuple[Journal[bytes], tuple[str, int]], None]:
    """A node that serves its journal, and does not complain of what a receiver does."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, complaint: complaints.append(complaint))
    async with await Journal.init(Context(storage), CONFIG) as journal:
        server = await asyncio.start_server(partial(example("state_sync").send, journal), "127.0.0.1", 0)
        async with server:
            yield journal, server.sockets[0].getsockname()
    await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()} or {asyncio.create_task(asyncio.sleep(0))})
    gc.collect()  # some Pythons tell of a callback that raised when its task goes
    assert complaints == []


@asynccontextmanager
async def cut_after(sender: tuple[str, int], length: int) -> AsyncGenerator[tuple[str, int], None]:
    """A way to the sender on which the answer ends after so many bytes."""

    async def stand_between(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, there = await asyncio.open_connection(*sender)
        head = await back.readexactly(min(length, 24))
        writer.write(head)
        if length > 24:
            there.write(await reader.readexactly(8))
            try:
                writer.write(await back.readexactly(length - 24))
            except asyncio.IncompleteReadError as whole:
                writer.write(whole.partial)
        there.close()
        writer.close()

    server = await asyncio.start_server(stand_between, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()


async def fetch(storage: Storage, address: tuple[str, int], config: Config[bytes] = CONFIG) -> int:
    fetched: int = await example("state_sync").fetch(Context(storage), config, *address)
    return fetched


async def items_of(storage: Storage) -> dict[int, bytes]:
    async with await Journal.init(Context(storage), CONFIG) as journal:
        return {position: item async for position, item in journal.replay(journal.bounds().start)}


def numbers(*values: int) -> bytes:
    return b"".join(value.to_bytes(8, "little") for value in values)


def frames(count: int, seed: int = 1) -> list[bytes]:
    chance = Random(seed)
    return [chance.randbytes(chance.choice([0, 1, 50, 5_000])) for _ in range(count)]


@pytest.mark.parametrize("seed", range(3))
async def test_it_gets_there_through_any_number_of_cuts(seed: int) -> None:
    """Cut after 0, 1, 15 and chance lengths, while the sender grows: no item is fetched twice, and both are equal."""
    chance = Random(seed)
    items = frames(200, seed)
    there, here = MemoryStorage(), MemoryStorage()
    async with sender_of(there) as (journal, address):
        await journal.append_many(items[:100])
        lengths = [0, 1, 8, 23, 24, 25, 32, *(chance.randrange(40_000) for _ in range(20))]
        for length in lengths:
            had = await items_of(here)
            async with cut_after(address, length) as short:
                try:
                    await fetch(here, short)
                except (OSError, asyncio.IncompleteReadError):
                    pass
                else:
                    break
            assert (await items_of(here)).items() >= had.items()
        await journal.append_many(items[100:])
        lacking = 200 - len(await items_of(here))
        assert await fetch(here, address) == lacking
        assert await fetch(here, address) == 0
    assert await items_of(here) == dict(enumerate(items)) == await items_of(there)


RECEIVER = """
import asyncio, sys
from pathlib import Path
import state_sync
from posjournal_async import Context, FileStorage
from tests.examples.test_state_sync import CONFIG

state_sync.SYNC_EVERY = 7
print("fetching", flush=True)
asyncio.run(state_sync.fetch(Context(FileStorage(Path(sys.argv[1]))), CONFIG, "127.0.0.1", int(sys.argv[2])))
"""


@pytest.mark.parametrize("length", [24, 100, 20_000, 100_000])
async def test_a_receiver_that_is_killed_goes_on_with_what_it_had(tmp_path: Path, length: int) -> None:
    """Killed when so many bytes of items were on their way: what is there is the beginning, and the rest is fetched."""
    items, there, here = frames(200), MemoryStorage(), FileStorage(tmp_path)

    async def stand_between(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, there = await asyncio.open_connection(*address)
        writer.write(await back.readexactly(24))
        there.write(await reader.readexactly(8))
        writer.write(await back.readexactly(length))
        with suppress(ConnectionError):  # the kill
            await writer.drain()
            arrived.set()
            await reader.read()
        there.close()
        writer.close()

    arrived = asyncio.Event()
    async with sender_of(there) as (journal, address):
        await journal.append_many(items)
        async with await asyncio.start_server(stand_between, "127.0.0.1", 0) as between:
            with served("-c", RECEIVER, tmp_path, between.sockets[0].getsockname()[1]) as receiver:
                await arrived.wait()
                receiver.kill()
        async with await Journal.init(Context(here), CONFIG) as copy:
            had = [item async for _, item in copy.replay(0)]
        assert had == items[: len(had)]
        assert await fetch(here, address) == 200 - len(had)
        assert await items_of(here) == dict(enumerate(items))


async def test_what_the_sender_has_pruned_goes_here_too() -> None:
    """A new node begins at the sender's boundary; one that was there before prunes up to it."""
    there, here, new = MemoryStorage(), MemoryStorage(), MemoryStorage()
    async with sender_of(there) as (journal, address):
        assert await fetch(new, address) == 0  # there is nothing to fetch
        await journal.append_many(frames(60))
        assert await fetch(here, address) == 60
        await journal.prune(35)
        assert await fetch(new, address) == 30
        assert await fetch(here, address) == 0
        await journal.prune(60)
        await journal.append_many(frames(5))
        assert await fetch(here, address) == 5
        expected = dict(enumerate(frames(5), 60))
    assert await items_of(here) == expected
    async with await Journal.init(Context(new), CONFIG) as copy:
        assert copy.bounds() == range(30, 60)


async def test_a_copy_that_is_not_part_of_the_original_is_found_out() -> None:
    """Other items, or more of them: an error, and no item is overwritten or removed."""
    diverged = example("state_sync").Diverged
    for own in (frames(20, seed=2), frames(31)):
        there, here = MemoryStorage(), MemoryStorage()
        async with await Journal.init(Context(here), CONFIG) as copy:
            await copy.append_many(own)
        async with sender_of(there) as (journal, address):
            await journal.append_many(frames(30))
            with pytest.raises(diverged):
                await fetch(here, address)
        assert (await items_of(here)).items() >= dict(enumerate(own)).items()


async def test_a_sender_that_lost_its_journal_does_not_empty_its_copy() -> None:
    """An empty journal in place of the original is no reason to remove what is here."""
    here = MemoryStorage()
    async with await Journal.init(Context(here), CONFIG) as copy:
        await copy.append_many(frames(20))
    async with sender_of(MemoryStorage()) as (_, address):
        with pytest.raises(example("state_sync").Diverged):
            await fetch(here, address)
    assert len(await items_of(here)) == 20


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (b"", "0 bytes read"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "no sender of frames"),
        (b"frames/1" + numbers(5, 6), "the copy has 20 items, the sender 6"),
        (b"frames/1" + numbers(22, 21), "expected a range of at least one position"),
        (b"frames/1" + numbers(0, 21, 2**64 - 1), "expected at most 100000 bytes"),
        (b"frames/1" + numbers(0, 21, 0) + bytes(32), "not those of the sender"),
    ],
)
async def test_a_sender_that_talks_nonsense_does_no_harm(answer: bytes, complaint: str) -> None:
    """Each answer ends in an error that says why, and what was here before stays."""
    here = MemoryStorage()
    async with await Journal.init(Context(here), CONFIG) as copy:
        await copy.append_many(frames(20))

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        with pytest.raises(Exception, match=complaint):
            await fetch(here, server.sockets[0].getsockname())
    assert (await items_of(here)).items() >= dict(enumerate(frames(20))).items()


async def test_a_receiver_that_asks_for_what_is_not_there_is_sent_away() -> None:
    """Beyond the size, below the boundary, or nothing: the connection ends, and the sender goes on."""
    async with sender_of(MemoryStorage()) as (journal, address):
        await journal.append_many(frames(30))
        await journal.prune(20)
        for request in (b"", b"\x01", bytes(8), b"\x63" + bytes(7), b"\xff" * 8):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(request)
            writer.write_eof()
            assert len(await reader.read()) == 24
            writer.close()
        assert await fetch(MemoryStorage(), address) == 10


async def test_the_sender_shuts_down_under_a_receiver() -> None:
    """Its journal is closed while it sends: the receiver is cut off, and nothing is raised there."""
    here: Any = MemoryStorage()
    async with sender_of(MemoryStorage()) as (journal, address):
        await journal.append_many([bytes(50_000)] * 400)
        fetching = asyncio.create_task(fetch(here, address))
        reader, writer = await asyncio.open_connection(*address)  # one that does not read
        writer.write(bytes(8))
        await reader.readexactly(24)
        await fetching
        await journal.close()
        with pytest.raises(asyncio.IncompleteReadError):
            await reader.readexactly(2**30)
        writer.close()


def test_the_script_goes_on_after_the_cut(tmp_path: Path) -> None:
    """The script is cut once, goes on, and has nothing more to fetch then."""
    assert printed_by("state_sync.py", tmp_path) == [
        "cut: so far there are range(1000, 3222)",
        "fetched 1778 items, and both are equal",
        "fetched 0 items, and both are equal",
    ]
