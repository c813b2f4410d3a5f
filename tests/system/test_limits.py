"""What a machine refuses: space, files, descriptors, writing at all. What was durable is there afterwards."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from posjournal_async import (
    BytesCodec,
    Config,
    Context,
    FileStorage,
    Journal,
    JournalFailed,
    MemoryStorage,
    StorageError,
)
from tests.effort import effort
from tests.format.writer import read_journal, write_journal
from tests.journals import files_below
from tests.system.disks import device_of, give_back, make_ext4, mounted, remount, take_inodes, take_space, unmount

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

CHECKOUT = Path(__file__).parents[2]
SECTIONS = effort(10_000, 100_000)
DISK_BYTES = 512 * 1024
IMAGE_BYTES = 4 * 1024 * 1024

CONFIG = Config(partition="orders", items_per_section=64, codec=BytesCodec())
SMALL = Config(partition="orders", items_per_section=10, codec=BytesCodec())


async def opened(root: Path, config: Config[bytes] = CONFIG) -> Journal[bytes]:
    return await Journal.init(Context(FileStorage(root)), config)


def in_a_process(program: Callable[..., Any], *arguments: Any) -> bytes:
    """Run an asynchronous function of this module in a process, whose limits it may change; return what it printed."""
    code = f"import asyncio, sys; from {__name__} import *; asyncio.run({program.__name__}(*sys.argv[1:]))"
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=CHECKOUT, stdout=subprocess.PIPE, check=True, timeout=3_600).stdout


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of half a megabyte and a hundred files."""
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", f"size={DISK_BYTES},nr_inodes=100", "tmpfs") as disk:
        yield disk


@pytest.fixture
def ext4(tmp_path: Path) -> Iterator[Path]:
    """Mount a small ext4 that turns read-only when it finds an error."""
    make_ext4(tmp_path / "image", IMAGE_BYTES)
    with mounted(tmp_path / "disk", "-o", "loop,errors=remount-ro", str(tmp_path / "image")) as disk:
        yield disk


@pytest.fixture(params=["tmpfs", "ext4"])
def small_disk(request: pytest.FixtureRequest) -> Path:
    """Mount a small file system in memory, then one on a device."""
    disk: Path = request.getfixturevalue(request.param)
    return disk


# A disk that fills up while items come in.


async def fill(journal: Journal[bytes], length: int) -> list[bytes]:
    """Append until the device is full; return what was acknowledged as durable."""
    durable: list[bytes] = []
    with pytest.raises(StorageError) as full:  # noqa: PT012 - which of the two fails is open
        while True:
            batch = [os.urandom(length) for _ in range(max(1_000 // length, 7))]
            await journal.append_many(batch)
            await journal.sync_data()
            durable += batch
    assert full.value.errno in {errno.ENOSPC, errno.EFBIG}
    return durable


async def opens_again(root: Path, durable: list[bytes]) -> None:
    """Look that a journal opens with what was durable, before its items and after, and takes more."""
    assert [item for _, item in read_journal(root, "orders", after_crash=True)][: len(durable)] == durable
    async with await opened(root) as journal:
        assert await journal.read_many(range(len(durable))) == durable
        position = await journal.append(b"there is room again")
        await journal.sync()
        assert await journal.read(position) == b"there is room again"
    assert read_journal(root, "orders")[position][1] == b"there is room again"


@pytest.mark.parametrize("length", [10, 1_000, 5_000])
async def test_a_full_disk_loses_nothing_that_was_durable(length: int, small_disk: Path) -> None:
    """The journal fails, shows what is durable, and opens with it when there is space again (F1, F3)."""
    take_space(small_disk, DISK_BYTES // 2 // os.statvfs(small_disk).f_frsize)
    journal = await opened(small_disk / "root")
    durable = await fill(journal, length)

    assert durable
    assert await journal.read_many(range(len(durable))) == durable
    with pytest.raises(JournalFailed):
        await journal.append(b"more")
    with pytest.raises(JournalFailed):
        await journal.close()
    give_back(small_disk)
    await opens_again(small_disk / "root", durable)


async def test_a_full_disk_can_be_pruned_after_opening_again(tmpfs: Path) -> None:
    """Opening needs no space where nothing has to be repaired, so that a prune can make some (F3)."""
    journal = await opened(tmpfs / "root")
    durable = await fill(journal, 1_000)
    with pytest.raises(JournalFailed):
        await journal.close()
    async with await opened(tmpfs / "root") as journal:
        assert journal.size() >= len(durable)
        assert await journal.prune(128)
        assert await journal.append(b"there is room again") == journal.size() - 1


async def fill_files(root: str) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    journal = await opened(Path(root))
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    durable = await fill(journal, 1_000)
    assert await journal.read_many(range(len(durable))) == durable
    with pytest.raises(JournalFailed):
        await journal.close()
    print("\n".join(item.hex() for item in durable))  # noqa: T201 - for the process that started this one


async def test_a_file_that_may_not_grow_loses_nothing_that_was_durable(tmp_path: Path) -> None:
    """A limit that cuts a write short is met as a full disk is (F3)."""
    durable = [bytes.fromhex(line) for line in in_a_process(fill_files, tmp_path).decode().splitlines()]
    assert durable
    await opens_again(tmp_path, durable)


# A disk that is full before a call, or has room for a part of what the call needs.

# Items that are durable before it, and items that were appended; 31 of them the checkpoint vouches for.
DURABLE, APPENDED = 35, 38

# A journal may have any of these sizes, by its boundary.
Sizes = dict[int, range]


def item_at(position: int) -> bytes:
    return b"%d:" % position + bytes([position % 251]) * 2_500


def items_at(positions: range) -> list[bytes]:
    return [item_at(position) for position in positions]


async def left_by_a_crash(root: Path) -> None:
    """Lay out a journal whose last section has records that the checkpoint does not vouch for."""
    journal = await opened(root, SMALL)
    await journal.append_many(items_at(range(31)))
    await journal.sync()
    await journal.append_many(items_at(range(31, DURABLE)))
    await journal.sync_data()
    shutil.copytree(root, root.with_name("crashed"))
    await journal.close()
    shutil.rmtree(root)
    root.with_name("crashed").rename(root)


async def look(root: Path, allowed: Sizes) -> None:
    """Look that a journal opens, has one of these sizes and the items that belong there, and takes more."""
    async with await opened(root, SMALL) as journal:
        bounds = journal.bounds()
        assert bounds.stop in allowed[bounds.start]
        assert await journal.read_many(bounds) == items_at(bounds)
        assert await journal.append(item_at(bounds.stop)) == bounds.stop
    assert read_journal(root, "orders") == [
        (position, item_at(position)) for position in range(bounds.start, bounds.stop + 1)
    ]


async def opens_or_says_why_not(root: Path, allowed: Sizes) -> None:
    """Open twice on a full disk: whether that succeeds or not, it leaves the lock free."""
    for _ in range(2):
        try:
            async with await opened(root, SMALL) as journal:
                assert journal.size() in allowed[journal.bounds().start]
        except StorageError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017 - it need not be raised


async def outcome_of(call: Awaitable[object]) -> StorageError | None:
    """Return how the disk refused a call, or None if it did not."""
    try:
        await call
    except StorageError as error:
        assert error.errno == errno.ENOSPC  # noqa: PT017 - it need not be raised
        return error
    return None


async def appended_and(journal: Journal[bytes], count: int, then: Callable[[], Awaitable[object]]) -> None:
    await journal.append_many(items_at(range(APPENDED, APPENDED + count)))
    await then()


@dataclass(frozen=True)
class Call:
    """A call on a journal with `DURABLE` items that are durable and `APPENDED` in all.

    Attributes:
        make: Makes it.
        leaves: What it may leave if it fails.
        done: What it leaves.
        needs: What it fails without; nothing else that is missing stops it.
    """

    make: Callable[[Journal[bytes]], Awaitable[object]]
    leaves: Sizes
    done: Sizes
    needs: frozenset[str] = frozenset({"space"})


def growing_to(size: int, make: Callable[[Journal[bytes]], Awaitable[object]], *needs: str) -> Call:
    return Call(make, {0: range(DURABLE, size + 1)}, {0: range(size, size + 1)}, frozenset({"space", *needs}))


CALLS: dict[str, Call] = {
    "sync_data": growing_to(38, lambda journal: journal.sync_data()),
    "sync": growing_to(38, lambda journal: journal.sync()),
    "an append that fills a section": growing_to(40, lambda journal: journal.append_many(items_at(range(38, 40)))),
    "appends in new sections": growing_to(53, lambda journal: appended_and(journal, 15, journal.sync_data), "files"),
    "prune": Call(lambda journal: journal.prune(20), {0: range(DURABLE, 39), 20: range(38, 39)}, {20: range(38, 39)}),
    "rewind": Call(lambda journal: journal.rewind(15), {0: range(15, 39)}, {0: range(15, 16)}),
    "rewind of what is durable": Call(lambda journal: journal.rewind(33), {0: range(33, 39)}, {0: range(33, 34)}),
    "close": growing_to(38, lambda journal: journal.close()),
}

SHORTAGES = [("space", take_space), ("files", take_inodes)]
NEVER = 100


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(("what", "take"), SHORTAGES, ids=["no space", "no inodes"])
async def test_a_call_on_a_full_disk_loses_nothing_that_was_durable(
    what: str, take: Callable[[Path, int], None], name: str, tmpfs: Path
) -> None:
    """With room for nothing that the call needs, for a part of it, and so on until it succeeds (D4, F1, F3)."""
    call = CALLS[name]
    root = tmpfs / "root"
    for room in range(NEVER):
        await left_by_a_crash(root)
        journal = await opened(root, SMALL)
        await journal.append_many(items_at(range(DURABLE, APPENDED)))
        take(tmpfs, room)
        failure = await outcome_of(call.make(journal))
        try:
            if failure is None:
                assert room or what not in call.needs
                give_back(tmpfs)
                await journal.close()
                await look(root, call.done)
                return
            assert what in call.needs
            if name != "close":
                await shows_what_is_durable(journal)
            await opens_or_says_why_not(root, call.leaves)
            give_back(tmpfs)
            await look(root, call.leaves)
        except BaseException as error:
            error.add_note(f"with {room} left, the call raised {failure!r}")
            raise
        shutil.rmtree(root)
    pytest.fail("it never succeeds")


async def shows_what_is_durable(journal: Journal[bytes]) -> None:
    """Look that a journal has failed: it shows what is durable, and refuses to be changed."""
    with pytest.raises(JournalFailed):
        await journal.append(b"more")
    durable = range(journal.bounds().start, journal.durable_size())
    assert await journal.read_many(durable) == items_at(durable)
    with pytest.raises(JournalFailed):
        await journal.close()


async def init(root: Path) -> None:
    async with await opened(root, SMALL):
        pass


async def init_at_size(root: Path) -> None:
    journal = await Journal.init_at_size(Context(FileStorage(root)), SMALL, 1_000)
    await journal.close()


@dataclass(frozen=True)
class Opening:
    """A call that opens what a crash left.

    Attributes:
        make: Makes it, and closes what it opened.
        lost: What is removed before it.
        leaves: What it may leave if it fails.
        done: What it leaves.
        needs: What it fails without.
    """

    make: Callable[[Path], Awaitable[object]] = init
    lost: str | None = None
    leaves: Sizes = field(default_factory=lambda: {0: range(DURABLE, DURABLE + 1)})
    done: Sizes = field(default_factory=lambda: {0: range(DURABLE, DURABLE + 1)})
    needs: frozenset[str] = frozenset({"space", "files"})


OPENINGS: dict[str, Opening] = {
    "after a crash": Opening(needs=frozenset()),
    "without the index": Opening(lost="orders_offsets"),
    "without the checkpoint": Opening(lost="orders_checkpoint"),
    "of nothing": Opening(lost=".", leaves={0: range(1)}, done={0: range(1)}),
    "at a size": Opening(
        init_at_size,
        leaves={0: range(DURABLE, DURABLE + 1), 1_000: range(1_000, 1_001)},
        done={1_000: range(1_000, 1_001)},
        needs=frozenset(),
    ),
}


@pytest.mark.parametrize("name", OPENINGS)
@pytest.mark.parametrize(("what", "take"), SHORTAGES, ids=["no space", "no inodes"])
async def test_opening_on_a_full_disk_loses_nothing(
    what: str, take: Callable[[Path, int], None], name: str, tmpfs: Path
) -> None:
    """It succeeds or says why not, at the next try too; with enough room it succeeds, and all is there (D6, F3)."""
    opening = OPENINGS[name]
    root = tmpfs / "root"
    for room in range(NEVER):
        await left_by_a_crash(root)
        if opening.lost is not None:
            shutil.rmtree(root / opening.lost)
        take(tmpfs, room)
        failure = await outcome_of(opening.make(root))
        try:
            if failure is None:
                assert room or what not in opening.needs
                give_back(tmpfs)
                await look(root, opening.done)
                return
            assert what in opening.needs
            if name != "of nothing":
                await opens_or_says_why_not(root, opening.leaves)
            give_back(tmpfs)
            await look(root, opening.leaves)
        except BaseException as error:
            error.add_note(f"with {room} left, opening raised {failure!r}")
            raise
        shutil.rmtree(root)
    pytest.fail("it never succeeds")


# A file system that does not let anybody write.


async def test_a_journal_on_a_read_only_disk_is_not_opened_and_not_changed(tmpfs: Path) -> None:
    """Opening says that the file system is read-only, and succeeds when it is not any more (F3)."""
    root = tmpfs / "root"
    await left_by_a_crash(root)
    before = files_below(root)
    remount(tmpfs, "ro")
    for call in (init, init_at_size, init):
        with pytest.raises(StorageError) as refused:
            await call(root)
        assert refused.value.errno == errno.EROFS
        assert refused.value.partition == "orders_checkpoint"
    assert files_below(root) == before
    remount(tmpfs, "rw")
    await look(root, {0: range(DURABLE, DURABLE + 1)})


def make_read_only(root: Path, stack: ExitStack) -> None:
    """Let nobody make, remove or open for writing a blob, until the stack is left; those that are open stay so."""
    for part in ("data", "offsets"):
        stack.enter_context(mounted(root / f"orders_{part}", "--bind", str(root / f"orders_{part}")))
        remount(root / f"orders_{part}", "bind,ro")


@pytest.mark.parametrize(
    ("call", "leaves"),
    [
        (lambda journal: journal.append_many(items_at(range(38, 60))), {0: range(40, 61)}),
        (lambda journal: journal.prune(20), {20: range(38, 39)}),
        (lambda journal: journal.rewind(15), {0: range(15, 39)}),
    ],
    ids=["append", "prune", "rewind"],
)
async def test_a_directory_that_turns_read_only_fails_the_journal(
    call: Callable[[Journal[bytes]], Awaitable[object]], leaves: Sizes, tmpfs: Path
) -> None:
    """What has to make or remove a blob fails, what is durable is shown, and a later open finishes it (F1)."""
    root = tmpfs / "root"
    await left_by_a_crash(root)
    journal = await opened(root, SMALL)
    await journal.append_many(items_at(range(DURABLE, APPENDED)))
    with ExitStack() as stack:
        make_read_only(root, stack)
        await journal.sync_data()
        with pytest.raises(StorageError) as refused:
            await call(journal)
        assert refused.value.errno == errno.EROFS
        with pytest.raises(JournalFailed):
            await journal.append(b"more")
        with pytest.raises(JournalFailed):
            await journal.close()
        with pytest.raises(StorageError):
            await init(root)
    await look(root, leaves)


async def test_sections_are_read_in_a_directory_that_turned_read_only(tmpfs: Path) -> None:
    """Nothing has to be written for that (F1)."""
    await left_by_a_crash(tmpfs / "root")
    async with await opened(tmpfs / "root", SMALL) as journal:
        with ExitStack() as stack:
            make_read_only(tmpfs / "root", stack)
            assert await journal.read(11) == item_at(11)
            assert [item async for _, item in journal.replay(0)] == items_at(range(DURABLE))


async def test_an_ext4_that_turns_read_only_loses_nothing_that_was_durable(ext4: Path, tmp_path: Path) -> None:
    """An error of the device stops all writing; mounted again, the journal has what was durable (F1, F3)."""
    trigger = Path("/sys/fs/ext4") / device_of(ext4) / "trigger_fs_error"
    if not trigger.exists():
        pytest.skip("this kernel has no trigger_fs_error")
    root = ext4 / "root"
    journal = await opened(root, SMALL)
    await journal.append_many(items_at(range(DURABLE)))
    await journal.sync_data()
    trigger.write_text("an error")
    await journal.append(item_at(DURABLE))
    with pytest.raises(StorageError) as refused:
        await journal.sync_data()
    assert refused.value.errno in {errno.EROFS, errno.EIO}
    await shows_what_is_durable(journal)
    with pytest.raises(StorageError):
        await init(root)
    del journal, refused
    unmount(ext4)
    with mounted(ext4, "-o", "loop", str(tmp_path / "image")):
        await look(root, {0: range(DURABLE, DURABLE + 2)})


# Few descriptors.


def all_descriptors() -> list[int]:
    """Take all descriptors that the process may still have."""
    taken = []
    while True:
        try:
            taken.append(os.open(os.devnull, os.O_RDONLY))
        except OSError as error:
            assert error.errno == errno.EMFILE  # noqa: PT017 - it ends the loop
            return taken


def give_up(taken: list[int]) -> None:
    for fd in taken:
        os.close(fd)


async def run_out_of_descriptors(root: str, what: str) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    async with await Journal.init(Context(MemoryStorage()), SMALL):
        pass  # what Python reads in at the first use is no concern of the storage
    taken = all_descriptors()
    with pytest.raises(StorageError) as refused:
        await init(Path(root))
    assert refused.value.errno == errno.EMFILE
    give_up(taken)

    few = Config(partition="orders", items_per_section=10, codec=BytesCodec(), max_open_blobs=1)
    journal = await opened(Path(root), few)
    await journal.append(item_at(DURABLE))
    taken = all_descriptors()
    for _ in range(2):
        with pytest.raises(StorageError) as refused:
            await journal.read(0)
        assert refused.value.errno == errno.EMFILE
        with pytest.raises(StorageError) as refused:
            assert [position async for position, _ in journal.replay(5)] == []
        assert refused.value.errno == errno.EMFILE
    await journal.sync()
    give_up(taken)

    # Reading failed, and the journal has not: it goes on as if nothing had been.
    bounds = journal.bounds()
    assert [item async for _, item in journal.replay(0)] == items_at(bounds)
    await journal.append(item_at(DURABLE + 1))
    await journal.sync()

    taken = all_descriptors()
    with pytest.raises(StorageError) as refused:  # noqa: PT012 - which of the two fails is open
        match what:
            case "roll":
                await journal.append_many(items_at(range(DURABLE + 2, DURABLE + 10)))
                await journal.sync_data()
            case "prune":
                await journal.prune(20)
            case "rewind":
                await journal.rewind(15)
    assert refused.value.errno == errno.EMFILE
    with pytest.raises(JournalFailed):
        await journal.sync()
    with pytest.raises(JournalFailed):
        await journal.close()
    give_up(taken)


@pytest.mark.parametrize(
    ("what", "leaves"),
    [("roll", {0: range(40, 46)}), ("prune", {0: range(37, 38)}), ("rewind", {0: range(15, 38)})],
)
async def test_a_process_that_uses_all_its_descriptors_loses_nothing(what: str, leaves: Sizes, tmp_path: Path) -> None:
    """Opening says so and leaves the lock free, reading says so and goes on later, a change fails the journal (F1)."""
    await left_by_a_crash(tmp_path / "root")
    in_a_process(run_out_of_descriptors, tmp_path / "root", what)
    await look(tmp_path / "root", leaves)


def peak_kib() -> int:
    """Return the most memory that this process ever had."""
    # Not getrusage: its peak includes that of the process that started this one (exec keeps it).
    with Path("/proc/self/status").open() as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))


async def use_many_sections(root: str, count: str) -> None:
    sections = int(count)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    config = Config(partition="orders", items_per_section=1, codec=BytesCodec(), max_open_blobs=20)
    streamed = effort(2_000, sections)
    async with await opened(Path(root), config) as journal:
        assert journal.bounds() == range(sections)
        for position in range(0, sections, sections // 500):
            assert await journal.read(position) == b"item %d" % position
        expected = sections - streamed
        async for position, item in journal.replay(expected):
            assert (position, item) == (expected, b"item %d" % expected)
            expected += 1
        assert expected == sections
        await journal.append_many([b"more"] * 100)
    async with await opened(Path(root), config) as journal:
        assert await journal.prune(sections - 10)
        assert journal.bounds() == range(sections - 10, sections + 100)
        await journal.rewind(sections)
    async with await opened(Path(root), config) as journal:
        assert journal.bounds() == range(sections - 10, sections)
        assert await journal.read(sections - 1) == b"item %d" % (sections - 1)
    print(peak_kib())  # noqa: T201 - for the process that started this one


@pytest.fixture
def quick_root(tmp_path: Path) -> Iterator[Path]:
    """Return a directory in memory if there is one: an ext4 with `discard` takes a minute to remove 20,000 files.

    For the long run, whose files would need a gigabyte of memory, it is one on the disk.
    """
    memory = Path("/dev/shm")  # noqa: S108 - the directory in it has a name of its own
    with tempfile.TemporaryDirectory(dir=effort(memory if memory.is_dir() else tmp_path, tmp_path)) as directory:
        yield Path(directory)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc")
def test_many_sections_need_few_descriptors(quick_root: Path) -> None:
    """Ten thousand sections open, are read, pruned and cut with 64 descriptors, and in bounded memory (F7)."""
    write_journal(quick_root, "orders", items=[b"item %d" % number for number in range(SECTIONS)], items_per_section=1)
    assert int(in_a_process(use_many_sections, quick_root, SECTIONS)) < 200 * 1024, "KiB"
    assert [position for position, _ in read_journal(quick_root, "orders")] == list(range(SECTIONS - 10, SECTIONS))


async def read_all_at_once(root: str) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    config = Config(partition="orders", items_per_section=1, codec=BytesCodec(), max_open_blobs=20)
    async with await opened(Path(root), config) as journal:
        found = await asyncio.gather(*(journal.read(position) for position in journal.bounds()))
        assert found == [b"item %d" % number for number in range(500)]


def test_many_readers_at_once_need_few_descriptors(tmp_path: Path) -> None:
    """Five hundred tasks that each read a section of their own wait for each other's descriptors (F7)."""
    items = [b"item %d" % number for number in range(500)]
    write_journal(tmp_path, "orders", items=items, items_per_section=1)
    in_a_process(read_all_at_once, tmp_path)
