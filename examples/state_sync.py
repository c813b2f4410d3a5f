"""Bring a second node up to date: it fetches the items that it lacks over TCP, goes on after a cut, and compares.

    python examples/state_sync.py [DIRECTORY]

Prints how many items each attempt brought; the first connection is cut half-way. What they say, all numbers 8 bytes:

    sender    "frames/1"; first and last position of what it keeps, last exclusive
    receiver  the position of the first item that it lacks
    sender    each item from there on: length, bytes; then the SHA-256 of all items that it keeps

The receiver is a copy to read, or to take over with. It is no replication: what it lacks, it has to fetch again.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
import tempfile
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path
from struct import Struct

from posjournal_async import (
    BytesCodec,
    Config,
    Context,
    FileStorage,
    ItemOutOfRange,
    ItemPruned,
    Journal,
    JournalClosed,
)

NUMBER = Struct("<Q")
GREETING = b"frames/1"

# Items are bytes here, and are sent as they are. With another codec, send what its `encode` gives of an item, and
# append what its `decode` makes of that.
CONFIG: Config[bytes] = Config(partition="frames", codec=BytesCodec(), items_per_section=1_000)

# Items received between two fsyncs: what a cut, or a crash of the receiver, makes it fetch again at most.
SYNC_EVERY = 1_000


# A receiver that goes away comes again. So does one whose next item was pruned meanwhile; or it asked for none of ours.
ENDS = (ConnectionError, asyncio.IncompleteReadError, ItemPruned, ItemOutOfRange, JournalClosed)


class Diverged(Exception):
    """The copy is not a part of what the sender has: look which of them is right, remove the other, and fetch anew."""


async def digest(journal: Journal[bytes], positions: range) -> bytes:
    """Return the SHA-256 of some items, with their lengths."""
    sha = hashlib.sha256()
    async with aclosing(journal.replay_batches(positions.start)) as batches:
        async for first, items in batches:
            for item in items[: max(positions.stop - first, 0)]:
                sha.update(NUMBER.pack(len(item)) + item)
    return sha.digest()


async def send(journal: Journal[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one receiver: the callback of `asyncio.start_server`."""
    with suppress(*ENDS):
        try:
            await journal.sync_data()  # no copy may hold what a crash could take back here
            kept = range(journal.bounds().start, journal.durable_size())
            writer.write(GREETING + NUMBER.pack(kept.start) + NUMBER.pack(kept.stop))
            [start] = NUMBER.unpack(await reader.readexactly(NUMBER.size))
            async with aclosing(journal.replay(start)) as items:
                async for position, item in items:
                    if position >= kept.stop:
                        break
                    writer.write(NUMBER.pack(len(item)) + item)
                    await writer.drain()  # a slow receiver does not fill our memory
            writer.write(await digest(journal, kept))
            await writer.drain()
        finally:
            writer.close()


async def fetch(context: Context, config: Config[bytes], host: str, port: int) -> int:
    """Make a journal the copy of the sender's, and return how many items it lacked.

    Raises:
        OSError, asyncio.IncompleteReadError: The connection was cut. What has come is kept: call it again.
        Diverged: The copy has items that the sender does not have.
    """
    reader, writer = await asyncio.open_connection(host, port)
    try:
        if await reader.readexactly(len(GREETING)) != GREETING:
            raise Diverged("whoever answers there is no sender of frames")
        [start], [stop] = [NUMBER.unpack(await reader.readexactly(NUMBER.size)) for _ in range(2)]
        async with await Journal.init(context, config) as copy:
            if copy.size() > stop:  # a sender that lost its disk must not empty its copy
                raise Diverged(f"the copy has {copy.size()} items, the sender {stop}")
        if start == stop:
            return 0  # the sender keeps nothing
        async with await Journal.init_sync(context, config, range(start, stop)) as journal:
            lacking = range(journal.size(), stop)
            writer.write(NUMBER.pack(lacking.start))
            for position in lacking:
                [length] = NUMBER.unpack(await reader.readexactly(NUMBER.size))
                if length > config.max_item_size:
                    raise Diverged(f"item {position}: expected at most {config.max_item_size} bytes, found {length}")
                await journal.append(await reader.readexactly(length))
                if (position + 1) % SYNC_EVERY == 0:
                    await journal.sync_data()
            await journal.sync()
            if await digest(journal, range(start, stop)) != await reader.readexactly(hashlib.sha256().digest_size):
                raise Diverged(f"items {start} to {stop} are not those of the sender")
            return len(lacking)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def main(directory: Path) -> None:
    """Fill a journal, and copy it over a connection that is cut once."""
    there, here = Context(FileStorage(directory / "there")), Context(FileStorage(directory / "here"))
    async with await Journal.init(there, CONFIG) as journal:
        await journal.append_many(b"frame %d" % number for number in range(5_000))
        await journal.prune(1_500)
        server = await asyncio.start_server(partial(send, journal), "127.0.0.1", 0)
        async with server:
            sender = server.sockets[0].getsockname()
            short = await asyncio.start_server(partial(cut_short, sender), "127.0.0.1", 0)
            async with short:
                for address in (short.sockets[0].getsockname(), sender, sender):
                    try:
                        print(f"fetched {await fetch(here, CONFIG, *address)} items, and both are equal")
                    except asyncio.IncompleteReadError:
                        async with await Journal.init(here, CONFIG) as copy:
                            print(f"cut: so far there are {copy.bounds()}")


async def cut_short(sender: tuple[str, int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Stand between a receiver and the sender, and let 40,000 bytes of items through."""
    there, back = await asyncio.open_connection(*sender)
    writer.write(await there.readexactly(24))
    back.write(await reader.readexactly(8))
    writer.write(await there.readexactly(40_000))
    back.close()
    writer.close()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(main(Path(sys.argv[1])))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            asyncio.run(main(Path(temporary)))
