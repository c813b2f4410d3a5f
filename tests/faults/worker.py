"""What the test of injected errors runs in a process of its own: a journal's life, told line by line on stdout."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import sys

from posjournal_async import BytesCodec, Config, Context, FileStorage, Journal, JournalFailed, StorageError

CONFIG = Config(partition="orders", items_per_section=4, codec=BytesCodec())


def say(**facts: object) -> None:
    """Tell the parent, at once: what was said holds whatever happens next."""
    os.write(1, json.dumps(facts).encode() + b"\n")


def name_of(error: StorageError | JournalFailed) -> str:
    """Return the name of the error number of the first failure."""
    first = error.cause if isinstance(error, JournalFailed) else error
    assert isinstance(first, StorageError)
    assert first.errno is not None
    return errno.errorcode[first.errno]


def item_at(position: int) -> bytes:
    return b"item %d" % position


async def append(journal: Journal[bytes], stop: int) -> None:
    say(most=stop)
    await journal.append_many([item_at(position) for position in range(journal.size(), stop)])


async def live(journal: Journal[bytes]) -> None:
    await append(journal, 3)
    await journal.sync_data()
    say(least=3)
    await append(journal, 9)
    say(least=8)
    await journal.sync()
    say(least=9)
    await append(journal, 11)
    say(boundaries=[0, 4], least=9)
    assert await journal.prune(5)
    say(boundaries=[4], least=11)
    say(least=10)
    await journal.rewind(10)
    say(most=10)
    say(least=7)
    await journal.rewind(7)
    say(most=7)
    await append(journal, 14)
    await journal.sync_data()
    say(least=14)


async def look_at_what_failed(journal: Journal[bytes]) -> None:
    """Look that nothing can be changed, and that what is durable is shown as far as it can be read."""
    durable = journal.durable_size()
    say(durable=durable)
    for position in range(journal.bounds().start, durable):
        try:
            assert await journal.read(position) == item_at(position)
        except StorageError:
            say(unread=position)
    for change in (lambda: journal.append(b"late"), journal.sync_data, journal.sync, journal.close):
        try:
            await change()
        except JournalFailed as refusal:
            say(refused=name_of(refusal))


async def main(root: str) -> None:
    try:
        # With one thread all calls are made by one tracee, for each of which strace counts anew.
        journal = await Journal.init(Context(FileStorage(root, threads=1)), CONFIG)
    except StorageError as error:
        say(not_opened=name_of(error))
        return
    try:
        await live(journal)
    except (StorageError, JournalFailed) as error:
        say(failed=name_of(error))
        await look_at_what_failed(journal)
        return
    try:
        await journal.close()
    except StorageError as error:
        say(not_closed=name_of(error))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
