"""The event loop goes on, however slow the disk is."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from posjournal_async import BytesCodec, Config, Context, FileStorage, Journal, MemoryStorage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

DELAY_SECONDS = 0.1
TICK_SECONDS = 0.001

CONFIG = Config(partition="orders", items_per_section=500, codec=BytesCodec())


class SlowDisk:
    """Writes and flushes that take long, as those of a busy device do, and a timer on the event loop beside them.

    Attributes:
        ticks: How often the timer went off during each call that was made while it was watched.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ticks: list[int] = []
        self._count = 0
        self._is_watched = False
        for name in ("pwrite", "fdatasync", "fsync"):
            monkeypatch.setattr(os, name, self._slow(getattr(os, name)))

    def _slow(self, really: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            before = self._count
            time.sleep(DELAY_SECONDS)
            if self._is_watched:
                self.ticks.append(self._count - before)
            return really(*args)

        return call

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self._count += 1

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Fail if the event loop stood still as long as any of the calls took: then the call was made on it."""
        ticking = asyncio.create_task(self._tick())
        await asyncio.sleep(0)
        self._is_watched = True
        yield
        self._is_watched = False
        ticking.cancel()
        assert min(self.ticks) > 0


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> SlowDisk:
    return SlowDisk(monkeypatch)


async def test_a_flood_of_appends_to_a_slow_disk_does_not_hold_the_loop(tmp_path: Path, slow_disk: SlowDisk) -> None:
    """Writing, and waiting for room, are elsewhere (L1)."""
    config = Config(partition="orders", codec=BytesCodec(), write_buffer=300_000)
    journal = await Journal.init(Context(FileStorage(tmp_path)), config)
    async with slow_disk.watched():
        for _ in range(10_000):
            await journal.append(b"x" * 92)
    assert len(slow_disk.ticks) > 5
    await journal.close()


async def test_many_durable_appenders_on_a_slow_disk_do_not_hold_the_loop(tmp_path: Path, slow_disk: SlowDisk) -> None:
    """Flushing is elsewhere, and so is what a roll creates (L1)."""
    journal = await Journal.init(Context(FileStorage(tmp_path)), CONFIG)

    async def commit() -> None:
        for _ in range(2):
            await journal.append(b"item")
            await journal.sync_data()

    async with slow_disk.watched():
        await asyncio.gather(*(commit() for _ in range(256)))
    assert len(slow_disk.ticks) > 5
    assert journal.durable_size() == 512
    await journal.close()


async def test_a_flood_beside_durable_appenders_and_a_replay_on_a_slow_disk_does_not_hold_the_loop(
    tmp_path: Path, slow_disk: SlowDisk
) -> None:
    """All at once on one journal: each waits for the disk, and the loop for none of them (L1)."""
    config = Config(partition="orders", items_per_section=4_000, codec=BytesCodec(), write_buffer=300_000)
    journal = await Journal.init(Context(FileStorage(tmp_path)), config)
    await journal.append_many([b"x" * 92] * 5_000)

    async def flood() -> None:
        for _ in range(8_000):
            await journal.append(b"x" * 92)

    async def commit() -> None:
        await journal.append(b"item")
        await journal.sync_data()

    async def read_all() -> int:
        return len([position async for position, _ in journal.replay(0, 30_000)])

    async with slow_disk.watched():
        replayed, *_ = await asyncio.gather(read_all(), flood(), *(commit() for _ in range(256)))
    assert replayed == 5_000
    assert journal.size() == 5_000 + 8_000 + 256
    assert len(slow_disk.ticks) > 5
    await journal.close()


async def test_a_replay_and_exclusive_operations_on_a_slow_disk_do_not_hold_the_loop(
    tmp_path: Path, slow_disk: SlowDisk
) -> None:
    """Opening, reading, pruning, rewinding and closing are elsewhere too (L1)."""
    async with slow_disk.watched():
        async with await Journal.init(Context(FileStorage(tmp_path)), CONFIG) as journal:
            await journal.append_many([b"x" * 100] * 1_700)
            assert [position async for position, _ in journal.replay(0)] == list(range(1_700))
            await journal.prune(500)
            await journal.rewind(1_200)
        async with await Journal.init(Context(FileStorage(tmp_path)), CONFIG) as journal:
            assert [position async for position, _ in journal.replay(500)] == list(range(500, 1_200))
    assert len(slow_disk.ticks) > 20


# Which thread calls the system.

SYSTEM_CALLS = [
    "open",
    "close",
    "read",
    "write",
    "pread",
    "preadv",
    "pwrite",
    "pwritev",
    "fdatasync",
    "fsync",
    "ftruncate",
    "truncate",
    "unlink",
    "remove",
    "rename",
    "replace",
    "mkdir",
    "rmdir",
    "listdir",
    "scandir",
    "stat",
    "lstat",
    "fstat",
    "access",
    "readlink",
    "posix_fallocate",
    "posix_fadvise",
]


async def test_the_loop_makes_no_system_call_but_a_read_that_returns_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In all of a journal's life, the loop's own thread calls preadv with RWF_NOWAIT and nothing else (L1)."""
    loop_thread = threading.get_ident()
    on_loop: list[tuple[str, tuple[Any, ...]]] = []
    elsewhere: set[str] = set()

    def watched(name: str, really: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if threading.get_ident() == loop_thread:
                on_loop.append((name, args))
            else:
                elsewhere.add(name)
            return really(*args, **options)

        return call

    for name in SYSTEM_CALLS:
        if hasattr(os, name):
            monkeypatch.setattr(os, name, watched(name, getattr(os, name)))
    config = Config(partition="orders", items_per_section=4, codec=BytesCodec(), max_open_blobs=1)
    context = Context(FileStorage(tmp_path / "root"))

    async with await Journal.init(context, config) as journal:
        await journal.append_many([b"item %d" % number for number in range(30)])
        await journal.append(b"item 30")
        await journal.sync_data()
        await journal.sync()
        assert await journal.read(30) == b"item 30"
        assert await journal.read_many(range(0, 30, 3)) == [b"item %d" % number for number in range(0, 30, 3)]
        assert len([item async for item in journal.replay(0, 50)]) == 31
        assert await journal.prune(9)
        await journal.rewind(25)
        await journal.rewind(22)
    async with await Journal.init(context, config) as journal:
        assert len([item async for item in journal.replay(8)]) == 14
    journal = await Journal.init_sync(context, config, range(10, 20))
    await journal.close()
    journal = await Journal.init_at_size(context, config, 7)
    await journal.append(b"item")
    await journal.destroy()

    monkeypatch.undo()
    assert {name for name, _ in on_loop} == {"preadv"}
    assert {args[3] for _, args in on_loop} == {os.RWF_NOWAIT}
    assert {"open", "close", "pread", "pwrite", "fdatasync", "fsync", "ftruncate", "unlink", "mkdir"} <= elsewhere


# Loops that never wait.


async def test_a_tight_loop_of_appends_lets_others_run(tmp_path: Path) -> None:
    """Somebody else gets on for each few hundred KiB that are appended, however much room there is (L2)."""
    config = Config(partition="orders", codec=BytesCodec(), write_buffer=2**30)
    journal = await Journal.init(Context(FileStorage(tmp_path)), config)
    steps = 0

    async def others() -> None:
        nonlocal steps
        while True:
            steps += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(others())
    for _ in range(100_000):
        await journal.append(b"x" * 92)
    other.cancel()
    assert steps >= 10_000_000 / 256 / 1024
    await journal.close()


@pytest.mark.parametrize("how", ["read", "read_many"])
async def test_a_tight_loop_of_reads_lets_others_run(how: str) -> None:
    """Somebody else gets on every few hundred items, in however many calls, although none has to wait (L1)."""
    journal = await Journal.init(Context(MemoryStorage()), Config(partition="orders", codec=BytesCodec()))
    await journal.append_many([b"item"] * 100)
    steps = 0

    async def others() -> None:
        nonlocal steps
        while True:
            steps += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(others())
    for _ in range(100):
        if how == "read_many":
            await journal.read_many(range(100))
        else:
            for position in range(100):
                await journal.read(position)
    other.cancel()
    assert steps >= 10
    await journal.close()


@pytest.mark.parametrize("how", ["append_many", "read_many", "replay"])
async def test_a_call_that_handles_many_items_lets_others_run(how: str) -> None:
    """One long call takes many turns of the loop (L1)."""
    journal = await Journal.init(Context(MemoryStorage()), Config(partition="orders", codec=BytesCodec()))
    items = [b"x" * 92] * 20_000
    steps = 0

    async def others() -> None:
        nonlocal steps
        while True:
            steps += 1
            await asyncio.sleep(0)

    if how == "append_many":
        other = asyncio.create_task(others())
        await journal.append_many(items)
    else:
        await journal.append_many(items)
        await journal.sync()
        other = asyncio.create_task(others())
        if how == "read_many":
            assert await journal.read_many(range(20_000)) == items
        else:
            assert [item async for _, item in journal.replay(0)] == items
    other.cancel()
    assert steps >= 10
    await journal.close()


FIRST_USE = """
import asyncio, sys, tempfile
from posjournal_async import Config, Context, FileStorage, Journal

async def use(root):
    before = set(sys.modules)
    async with await Journal.init(Context(FileStorage(root)), Config(partition="orders")) as journal:
        await journal.append({"order": 7})
        await journal.sync()
    print(sorted(set(sys.modules) - before))

with tempfile.TemporaryDirectory() as root:
    asyncio.run(use(root))
"""


def test_the_first_journal_of_a_process_reads_no_module_in() -> None:
    """What it needs came with the library: reading a module in on the event loop waits for the disk (L1)."""
    done = subprocess.run([sys.executable, "-c", FIRST_USE], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")
