"""A disk that is full, and a system that grants few descriptors."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from posjournal_async import BytesCodec, Config, Context, FileStorage, Journal, JournalFailed, StorageError
from tests.format.writer import read_journal, write_journal

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKOUT = Path(__file__).parents[2]
SECTIONS = int(os.environ.get("POSJOURNAL_SECTIONS", "2000"))
DISK_BYTES = 512 * 1024

CONFIG = Config(partition="orders", items_per_section=64, codec=BytesCodec())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of half a megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(disk)]
    try:
        subprocess.run(mounting, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no small file system can be mounted here: {error}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)  # noqa: S607 - where it is differs


async def fill(journal: Journal[bytes], length: int) -> list[bytes]:
    """Append until the device is full; return what was acknowledged as durable."""
    durable: list[bytes] = []
    with pytest.raises(StorageError) as full:  # noqa: PT012 - which of the two fails is open
        while True:
            batch = [os.urandom(length) for _ in range(7)]
            await journal.append_many(batch)
            await journal.sync_data()
            durable += batch
    assert full.value.errno in {errno.ENOSPC, errno.EFBIG}
    return durable


async def opens_again(root: Path, durable: list[bytes]) -> None:
    """Look that a journal opens with what was durable, before its items and after, and takes more."""
    assert [item for _, item in read_journal(root, "orders", after_crash=True)][: len(durable)] == durable
    async with await Journal.init(Context(FileStorage(root)), CONFIG) as journal:
        assert await journal.read_many(range(len(durable))) == durable
        position = await journal.append(b"there is room again")
        await journal.sync()
        assert await journal.read(position) == b"there is room again"
    assert read_journal(root, "orders")[position][1] == b"there is room again"


@pytest.mark.parametrize("length", [10, 1_000, 5_000])
async def test_a_full_disk_loses_nothing_that_was_durable(length: int, small_disk: Path) -> None:
    """The journal fails, shows what is durable, and opens with it when there is space again (F1, F3)."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(DISK_BYTES // 2))
    journal = await Journal.init(Context(FileStorage(small_disk / "root")), CONFIG)
    durable = await fill(journal, length)

    assert durable
    assert await journal.read_many(range(len(durable))) == durable
    with pytest.raises(JournalFailed):
        await journal.append(b"more")
    with pytest.raises(JournalFailed):
        await journal.close()
    ballast.unlink()
    await opens_again(small_disk / "root", durable)


async def test_a_full_disk_can_be_pruned_after_opening_again(small_disk: Path) -> None:
    """Opening needs no space where nothing has to be repaired, so that a prune can make some (F3)."""
    journal = await Journal.init(Context(FileStorage(small_disk / "root")), CONFIG)
    durable = await fill(journal, 1_000)
    with pytest.raises(JournalFailed):
        await journal.close()
    async with await Journal.init(Context(FileStorage(small_disk / "root")), CONFIG) as journal:
        assert journal.size() >= len(durable)
        assert await journal.prune(128)
        assert await journal.append(b"there is room again") == journal.size() - 1


FILLING = """
import asyncio, resource, signal, sys
from tests.system.test_limits import *

async def main(root):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    journal = await Journal.init(Context(FileStorage(root)), CONFIG)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    durable = await fill(journal, 1_000)
    assert await journal.read_many(range(len(durable))) == durable
    try:
        await journal.close()
    except JournalFailed:
        print("\\n".join(item.hex() for item in durable))

asyncio.run(main(sys.argv[1]))
"""


def in_a_process(program: str, *arguments: Any) -> bytes:
    """Run a program of which limits of its own are a part; return what it printed."""
    command = [sys.executable, "-W", "error", "-c", program, *map(str, arguments)]
    return subprocess.run(command, cwd=CHECKOUT, stdout=subprocess.PIPE, check=True, timeout=600).stdout


async def test_a_file_that_may_not_grow_loses_nothing_that_was_durable(tmp_path: Path) -> None:
    """A limit that cuts a write short is met as a full disk is (F3)."""
    durable = [bytes.fromhex(line) for line in in_a_process(FILLING, tmp_path).decode().splitlines()]
    assert durable
    await opens_again(tmp_path, durable)


MANY_SECTIONS = """
import asyncio, os, resource, sys
from posjournal_async import BytesCodec, Config, Context, FileStorage, Journal

async def main(root, sections):
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    config = Config(partition="orders", items_per_section=1, codec=BytesCodec(), max_open_blobs=20)
    context = Context(FileStorage(root))
    async with await Journal.init(context, config) as journal:
        assert journal.bounds() == range(sections)
        for position in range(0, sections, max(sections // 500, 1)):
            assert await journal.read(position) == b"item %d" % position
        assert [position async for position, _ in journal.replay(0)] == list(range(sections))
        await journal.append_many([b"more"] * 100)
    async with await Journal.init(context, config) as journal:
        assert await journal.prune(sections - 10)
        assert journal.bounds() == range(sections - 10, sections + 100)
        await journal.rewind(sections)
    async with await Journal.init(context, config) as journal:
        assert journal.bounds() == range(sections - 10, sections)
        assert await journal.read(sections - 1) == b"item %d" % (sections - 1)
    # Not getrusage: its peak includes that of the process that started this one (exec keeps it).
    with open("/proc/self/status") as status:
        print(next(line.split()[1] for line in status if line.startswith("VmHWM:")))

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


MANY_READERS = """
import asyncio, resource, sys
from posjournal_async import BytesCodec, Config, Context, FileStorage, Journal

async def main(root):
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    config = Config(partition="orders", items_per_section=1, codec=BytesCodec(), max_open_blobs=20)
    async with await Journal.init(Context(FileStorage(root)), config) as journal:
        found = await asyncio.gather(*(journal.read(position) for position in journal.bounds()))
        assert found == [b"item %d" % number for number in range(500)]

asyncio.run(main(sys.argv[1]))
"""


def test_many_readers_at_once_need_few_descriptors(tmp_path: Path) -> None:
    """Five hundred tasks that each read a section of their own wait for each other's descriptors (F7)."""
    items = [b"item %d" % number for number in range(500)]
    write_journal(tmp_path, "orders", items=items, items_per_section=1)
    in_a_process(MANY_READERS, tmp_path)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc")
def test_many_sections_need_few_descriptors(tmp_path: Path) -> None:
    """Thousands of sections open, are read and pruned with 64 descriptors, and in bounded memory (F7)."""
    items = [b"item %d" % number for number in range(SECTIONS)]
    write_journal(tmp_path, "orders", items=items, items_per_section=1)
    peak = int(in_a_process(MANY_SECTIONS, tmp_path, SECTIONS))
    assert peak < 200 * 1024, "KiB"
