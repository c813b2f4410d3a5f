"""`FileStorage`: the contract of a storage, and what is particular to files."""

import asyncio
import errno
import fcntl
import gc
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import ReferenceType, WeakKeyDictionary

import pytest

import posjournal_async.storage.file
from posjournal_async.errors import JournalLocked, StorageError
from posjournal_async.storage.descriptors import Handle
from posjournal_async.storage.file import FileBlob, FileStorage
from posjournal_async.storage.protocols import ReadsAtOnce, RemovesMany, WritesDurably
from posjournal_async.testing import StorageContract

CHECKOUT = Path(posjournal_async.storage.file.__file__).parents[2]
OPEN_HANDLES = Path("/proc/self/fd")

NAME = (258).to_bytes(8, "big")
FILE = "0000000000000102"

needs_proc = pytest.mark.skipif(not OPEN_HANDLES.exists(), reason="open handles are counted by /proc")
needs_nowait = pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="this system has no read that never waits")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def storage(root: Path) -> FileStorage:
    return FileStorage(root)


@pytest.fixture
def permissive_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


class TestFileStorage(StorageContract):
    """Files keep the contract."""

    @pytest.fixture
    def storage(self, tmp_path: Path) -> FileStorage:
        return FileStorage(tmp_path / "root")


class TestFileStorageOnOneThread(StorageContract):
    """Files keep the contract also where all operations queue for one thread."""

    @pytest.fixture
    def storage(self, tmp_path: Path) -> FileStorage:
        return FileStorage(tmp_path / "root", threads=1)


# Files and directories


@pytest.mark.usefixtures("permissive_umask")
async def test_directories_and_files_are_private(storage: FileStorage, root: Path) -> None:
    """Whatever the umask allows, nobody else can look in."""
    await write(storage, NAME)
    assert mode_of(root) == 0o700
    assert mode_of(root / "p") == 0o700
    assert mode_of(root / "p" / FILE) == 0o600


async def test_a_file_is_named_by_the_hex_digits_of_its_blob(storage: FileStorage, root: Path) -> None:
    """An 8-byte name is 16 lower-case digits, and nothing else is in the directory."""
    lock = await storage.lock("p")
    await write(storage, NAME, b"hello")
    await write(storage, b"\xab")
    assert sorted(path.name for path in (root / "p").iterdir()) == [FILE, "ab"]
    assert (root / "p" / FILE).read_bytes() == b"hello"
    await lock.release()


@pytest.mark.usefixtures("permissive_umask")
async def test_a_root_is_made_with_what_is_missing_above_it(tmp_path: Path) -> None:
    """No directory has to exist before, and none of those that are made is open to others."""
    await write(FileStorage(tmp_path / "a" / "b" / "c"), NAME)
    assert (tmp_path / "a" / "b" / "c" / "p" / FILE).exists()
    assert [mode_of(tmp_path / made) for made in ("a", "a/b", "a/b/c")] == [0o700] * 3


async def test_a_root_may_be_given_as_text_or_lie_behind_a_link(tmp_path: Path) -> None:
    """Links are refused below the root; how one gets to it is the user's affair."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    await write(FileStorage(str(tmp_path / "link")), NAME)
    assert (tmp_path / "real" / "p" / FILE).exists()


def turn_link(tmp_path: Path) -> None:
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to("other")


def rename(tmp_path: Path) -> None:
    (tmp_path / "real").rename(tmp_path / "away")
    (tmp_path / "other").rename(tmp_path / "real")


def rename_away(tmp_path: Path) -> None:
    (tmp_path / "real").rename(tmp_path / "away")


@pytest.mark.parametrize(("turn", "name"), [(turn_link, "link"), (rename, "real"), (rename_away, "real")])
@pytest.mark.parametrize("doing", ["open", "scan", "lock", "remove a blob", "remove many", "remove the partition"])
async def test_a_root_that_becomes_another_is_refused_while_a_lock_is_held(
    tmp_path: Path, doing: str, turn: Callable[[Path], None], name: str
) -> None:
    """The lock is not there: nothing is read, made or removed in it, until it is let go (F6)."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    await write(FileStorage(tmp_path / "other"), NAME, b"other")
    storage = FileStorage(tmp_path / name)
    lock = await storage.lock("p")
    blob, _ = await storage.open("p", NAME)
    turn(tmp_path)
    before = paths_below(tmp_path)
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "open": lambda: storage.open("p", b"new"),
        "scan": lambda: storage.scan("p"),
        "lock": lambda: storage.lock("q"),
        "remove a blob": lambda: storage.remove("p", NAME),
        "remove many": lambda: storage.remove_many("p", [NAME]),
        "remove the partition": lambda: storage.remove("p", None),
    }
    with pytest.raises(StorageError) as raised:
        await calls[doing]()
    assert (raised.value.errno, raised.value.partition) == (errno.ESTALE, "q" if doing == "lock" else "p")
    assert paths_below(tmp_path) == before
    await blob.write_at(0, b"the one that is open is where it was")
    await blob.close()
    await lock.release()
    await calls[doing]()
    await write(storage, b"new", b"new")
    assert (tmp_path / name / "p" / b"new".hex()).exists()


async def test_two_locks_that_are_taken_while_a_root_becomes_another_are_in_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each looks where the other is once it is taken, so that not both stay (F6)."""
    for real in ("real", "other"):
        (tmp_path / real).mkdir()
    (tmp_path / "link").symlink_to("real")
    storage = FileStorage(tmp_path / "link")
    entered, goes = threading.Event(), threading.Event()
    flock = fcntl.flock

    def delayed(fd: int, operation: int) -> None:
        if not entered.is_set():
            entered.set()
            assert goes.wait(60)
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", delayed)
    first = asyncio.create_task(storage.lock("first"))
    assert await asyncio.to_thread(entered.wait, 60)
    turn_link(tmp_path)
    second = await storage.lock("second")
    goes.set()
    with pytest.raises(StorageError) as raised:
        await first
    assert raised.value.errno == errno.ESTALE
    await second.release()
    lock = await FileStorage(tmp_path / "real").lock("first")
    await lock.release()


async def test_a_call_asks_no_other_lock_however_many_are_held(storage: FileStorage) -> None:
    """Each is known to be in the same root: thousands of journals share a storage freely."""
    asked: list[int] = []

    class Counted(WeakKeyDictionary[Handle, tuple[int, int]]):
        def keyrefs(self) -> list[ReferenceType[Handle]]:
            found = super().keyrefs()
            asked.append(len(found))
            return found

    storage._root._locks = Counted()
    locks = [await storage.lock("first")]
    asked.clear()
    locks += [await storage.lock(f"p{number}") for number in range(10)]
    await write(storage, NAME)
    await storage.scan("p")
    await storage.remove("p", NAME)
    assert asked == []
    for lock in locks:
        await lock.release()


async def test_a_root_that_another_call_makes_and_locks_meanwhile_is_no_other(
    storage: FileStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two journals of a new storage may be opened at the same time."""
    entered, goes = threading.Event(), threading.Event()
    open_ = os.open
    looks: list[object] = []

    def delayed(*arguments: Any, **others: Any) -> int:
        try:
            return open_(*arguments, **others)
        except FileNotFoundError:
            looks.append(arguments)
            if len(looks) == 2:  # it has looked again, with no lock held
                entered.set()
                assert goes.wait(60)
            raise

    monkeypatch.setattr(os, "open", delayed)
    first = asyncio.create_task(storage.lock("first"))
    assert await asyncio.to_thread(entered.wait, 60)
    second = await storage.lock("second")
    goes.set()
    for lock in (await first, second):
        await lock.release()


@pytest.mark.parametrize("remaking", [lambda _: None, Path.mkdir], ids=["gone", "made anew"])
async def test_a_root_that_was_removed_when_nothing_was_locked_is_made_anew(
    storage: FileStorage, root: Path, remaking: Callable[[Path], object]
) -> None:
    """A storage outlives its files: what was closed before leaves no trace in it."""
    for _ in range(3):
        lock = await storage.lock("p")
        await write(storage, NAME)
        await lock.release()
        shutil.rmtree(root)
        remaking(root)
    assert await storage.scan("p") == []


async def test_a_relative_root_is_taken_when_the_storage_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changing the working directory later does not move the storage."""
    monkeypatch.chdir(tmp_path)
    storage = FileStorage("data")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    await write(storage, NAME)
    assert (tmp_path / "data" / "p" / FILE).exists()


async def test_looking_creates_nothing(storage: FileStorage, root: Path) -> None:
    """Scanning, removing, and names that are refused leave no directory behind."""
    await storage.scan("p")
    await storage.remove("p", NAME)
    await storage.remove("p", None)
    with pytest.raises(ValueError):
        await storage.open("..", NAME)
    with pytest.raises(ValueError):
        await storage.open("p", b"")
    with pytest.raises(ValueError):
        await storage.lock("a/b")
    assert list(root.parent.iterdir()) == []


async def test_foreign_files_are_not_listed(storage: FileStorage, root: Path) -> None:
    """What is not the name of a blob was not made by the storage."""
    await write(storage, NAME)
    for foreign in ("README", ".hidden", "ABCD", "abc", "zz", "00.tmp", "00\n", "ab" * 65):
        (root / "p" / foreign).touch()
    (root / "p" / "lost+found").mkdir()
    assert await storage.scan("p") == [NAME]


async def test_removing_a_partition_keeps_foreign_files(storage: FileStorage, root: Path) -> None:
    """All blobs go; the directory stays for what somebody else put there, and is used again."""
    await write(storage, NAME)
    (root / "p" / "README").touch()
    for _ in range(2):
        await storage.remove("p", None)
        assert [path.name for path in (root / "p").iterdir()] == ["README"]
    assert await storage.scan("p") == []
    await write(storage, NAME)
    assert await storage.scan("p") == [NAME]


async def test_a_partition_that_the_system_does_not_remove_is_an_error(
    storage: FileStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a directory that is not empty may stay."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "rmdir")

    await write(storage, NAME)
    monkeypatch.setattr(os, "rmdir", refuse)
    with pytest.raises(StorageError) as raised:
        await storage.remove("p", None)
    assert raised.value.errno == errno.EIO


# What is not a file


def place_link(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "precious")


def place_dangling_link(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "missing")


def place_fifo(path: Path, outside: Path) -> None:  # noqa: ARG001 - the others need it
    os.mkfifo(path)


def place_directory(path: Path, outside: Path) -> None:  # noqa: ARG001 - the others need it
    path.mkdir()


@pytest.mark.parametrize("place", [place_link, place_dangling_link, place_fifo, place_directory])
async def test_only_a_regular_file_is_opened_as_a_blob(
    storage: FileStorage, root: Path, tmp_path: Path, place: Callable[[Path, Path], None]
) -> None:
    """Anything else is an error at once: neither followed, nor waited for, nor skipped by a scan."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"kept")
    (root / "p").mkdir(parents=True)
    place(root / "p" / FILE, outside)
    async with asyncio.timeout(30):
        with pytest.raises(StorageError) as raised:
            await storage.open("p", NAME)
    assert (raised.value.partition, raised.value.blob) == ("p", NAME)
    assert raised.value.errno is not None
    assert await storage.scan("p") == [NAME]
    assert [path.name for path in outside.iterdir()] == ["precious"]
    assert (outside / "precious").read_bytes() == b"kept"


async def test_a_directory_in_place_of_a_blob_is_not_removed(storage: FileStorage, root: Path) -> None:
    """It may hold anything."""
    (root / "p" / FILE).mkdir(parents=True)
    with pytest.raises(StorageError):
        await storage.remove("p", NAME)
    with pytest.raises(StorageError):
        await storage.remove("p", None)
    assert (root / "p" / FILE).is_dir()


async def test_removing_a_link_leaves_what_it_leads_to(storage: FileStorage, root: Path, tmp_path: Path) -> None:
    """The link itself is what has the blob's name."""
    (tmp_path / "precious").write_bytes(b"kept")
    (root / "p").mkdir(parents=True)
    (root / "p" / FILE).symlink_to(tmp_path / "precious")
    await storage.remove("p", NAME)
    assert await storage.scan("p") == []
    assert (tmp_path / "precious").read_bytes() == b"kept"


@pytest.mark.parametrize("what", ["link", "dangling link", "file", "fifo"])
@pytest.mark.parametrize("doing", ["open", "scan", "lock", "remove a blob", "remove the partition"])
async def test_only_a_directory_is_a_partition(
    storage: FileStorage, root: Path, tmp_path: Path, what: str, doing: str
) -> None:
    """Every operation refuses anything else, and does not touch what a link leads to."""
    outside = tmp_path / "outside"
    for directory in (root, outside):
        directory.mkdir()
    (outside / FILE).write_bytes(b"kept")
    place: dict[str, Callable[[], object]] = {
        "link": lambda: (root / "p").symlink_to(outside),
        "dangling link": lambda: (root / "p").symlink_to(tmp_path / "missing"),
        "file": (root / "p").touch,
        "fifo": lambda: os.mkfifo(root / "p"),
    }
    place[what]()
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "open": lambda: storage.open("p", NAME),
        "scan": lambda: storage.scan("p"),
        "lock": lambda: storage.lock("p"),
        "remove a blob": lambda: storage.remove("p", NAME),
        "remove the partition": lambda: storage.remove("p", None),
    }
    async with asyncio.timeout(30):
        with pytest.raises(StorageError) as raised:
            await calls[doing]()
    assert raised.value.partition == "p"
    assert (outside / FILE).read_bytes() == b"kept"
    assert not (tmp_path / "missing").exists()


# Reading and writing


@needs_nowait
async def test_everything_optional_is_offered(storage: FileStorage) -> None:
    """Files have all that the journal can make use of."""
    blob, _ = await storage.open("p", NAME)
    assert isinstance(storage, RemovesMany)
    assert isinstance(blob, ReadsAtOnce)
    assert isinstance(blob, WritesDurably)
    await blob.close()


@needs_nowait
@pytest.mark.parametrize(
    ("refusal", "expected_tries"), [(errno.EAGAIN, 2), (errno.EOPNOTSUPP, 1)], ids=["not now", "not ever"]
)
async def test_reading_at_once_gives_up_where_it_would_wait(
    storage: FileStorage, monkeypatch: pytest.MonkeyPatch, refusal: int, expected_tries: int
) -> None:
    """It says None; a file system that cannot tell is not asked again, and `read_at` works either way."""
    tries = []

    def refuse(*_: object) -> int:
        tries.append(1)
        raise OSError(refusal, os.strerror(refusal))

    blob, _ = await storage.open("p", NAME)
    await blob.write_at(0, b"hello")
    monkeypatch.setattr(os, "preadv", refuse)
    assert blob.read_at_once(0, 5) is None
    assert blob.read_at_once(0, 5) is None
    assert len(tries) == expected_tries
    assert await blob.read_at(0, 5) == b"hello"
    await blob.close()


async def test_short_writes_and_reads_are_continued(storage: FileStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may take or give less than was asked for; the caller does not notice."""
    pwrite, pread = os.pwrite, os.pread
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, memoryview(data)[:7], offset))
    monkeypatch.setattr(os, "pread", lambda fd, length, offset: pread(fd, min(length, 5), offset))
    data = bytes(range(256))
    blob, _ = await storage.open("p", NAME)
    await blob.write_at(3, data)
    assert await blob.read_at(0, 1_000) == bytes(3) + data
    await blob.close()


@pytest.mark.parametrize(
    ("call", "refused", "code"),
    [
        ("pwrite", lambda blob: blob.write_at(0, b"x"), errno.ENOSPC),
        ("pread", lambda blob: blob.read_at(0, 1), errno.EIO),
        ("ftruncate", lambda blob: blob.resize(9), errno.EFBIG),
        ("fdatasync", lambda blob: blob.sync(), errno.EIO),
        ("fdatasync", lambda blob: blob.write_durably_at(0, b"x"), errno.EIO),
    ],
    ids=["write", "read", "resize", "sync", "write durably"],
)
async def test_a_failure_of_the_system_is_a_storage_error(
    storage: FileStorage,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    refused: Callable[[object], Awaitable[object]],
    code: int,
) -> None:
    """It has the facts and the cause, is not retried, and what comes after it is carried out."""
    tries = []

    def fail(*_: object) -> int:
        tries.append(1)
        raise OSError(code, os.strerror(code))

    if not hasattr(os, call):
        pytest.skip(f"this system has no {call}")
    blob, _ = await storage.open("p", NAME)
    with monkeypatch.context() as patched:
        patched.setattr(os, call, fail)
        with pytest.raises(StorageError) as raised:
            await refused(blob)
    error = raised.value
    assert (error.partition, error.blob, error.errno) == ("p", NAME, code)
    assert isinstance(error.__cause__, OSError)
    assert len(tries) == 1
    await blob.write_at(0, b"hello")
    assert await blob.read_at(0, 5) == b"hello"
    await blob.close()


async def test_a_write_that_makes_no_progress_fails(storage: FileStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than being tried for ever."""
    blob, _ = await storage.open("p", NAME)
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", lambda *_: 0)
        async with asyncio.timeout(30):
            with pytest.raises(StorageError):
                await blob.write_at(0, b"hello")
    await blob.close()


@pytest.mark.parametrize(
    "call",
    [
        lambda blob: blob.read_at(-1, 1),
        lambda blob: blob.write_at(-1, b"x"),
        lambda blob: blob.write_durably_at(-1, b"x"),
        lambda blob: blob.resize(-1),
    ],
    ids=["read", "write", "write durably", "resize"],
)
async def test_negative_offsets_are_refused(storage: FileStorage, call: Callable[[object], Awaitable[object]]) -> None:
    """They are a mistake of the caller, not of the system."""
    blob, _ = await storage.open("p", NAME)
    with pytest.raises(ValueError):
        await call(blob)
    await blob.close()


# Durability, as far as calls show it


@needs_proc
async def test_a_new_blob_is_durable_by_name(
    storage: FileStorage, root: Path, synced: list[Path], tmp_path: Path
) -> None:
    """Every directory that got an entry is synced before the open returns, for the first blob and for the next."""
    await (await storage.open("p", NAME))[0].close()
    assert {tmp_path, root, root / "p"} <= set(synced)
    synced.clear()
    await (await storage.open("p", b"other"))[0].close()
    assert root / "p" in synced


@needs_proc
@pytest.mark.parametrize("made", ["a", "a/b", "a/b/c"])
async def test_what_was_there_already_above_a_root_is_durable_by_name(
    tmp_path: Path, synced: list[Path], made: str
) -> None:
    """Who made it may have been killed before it synced the directory above, or be about to (D5)."""
    (tmp_path / made).mkdir(parents=True)
    storage = FileStorage(tmp_path / "a" / "b" / "c")
    await write(storage, NAME)
    above = {(tmp_path / made).parent, tmp_path / "a" / "b"}
    assert above <= set(synced)
    assert synced.index((tmp_path / made).parent) == 0
    synced.clear()
    await write(storage, b"other")
    assert synced == [tmp_path / "a" / "b" / "c" / "p"]


@needs_proc
async def test_a_lock_is_in_a_root_that_is_durable_by_name(root: Path, synced: list[Path]) -> None:
    """It is what a journal takes first; whoever is refused waits for no device (D5)."""
    await write(FileStorage(root), NAME)
    synced.clear()
    lock = await FileStorage(root).lock("p")
    assert synced == [root.parent]
    synced.clear()
    with pytest.raises(JournalLocked):
        await FileStorage(root).lock("p")
    assert synced == []
    await lock.release()


@needs_proc
async def test_a_root_that_was_made_anew_while_nothing_was_locked_is_durable_by_name(
    storage: FileStorage, root: Path, synced: list[Path]
) -> None:
    """By whoever, and often with the inode of the one that is gone, so that it looks like that one (D5)."""
    for _ in range(3):
        synced.clear()
        lock = await storage.lock("p")
        assert root.parent in synced
        await lock.release()
        shutil.rmtree(root)
        Path.mkdir(root)


@needs_proc
async def test_a_root_behind_a_link_is_durable_where_it_is(tmp_path: Path, synced: list[Path]) -> None:
    """What is synced is the directory that has its name, not the one that has the link's (D5)."""
    (tmp_path / "somewhere" / "real").mkdir(parents=True)
    (tmp_path / "link").symlink_to("somewhere/real")
    assert await FileStorage(tmp_path / "link").scan("p") == []
    assert synced == [tmp_path / "somewhere"]


LOCK_AS_SOMEBODY = """
import asyncio, os, sys
from posjournal_async.errors import StorageError
from posjournal_async.storage.file import FileStorage

async def lock(root):
    try:
        await (await FileStorage(root).lock("p")).release()
    except StorageError as error:
        return os.strerror(error.errno)
    return "locked"

asyncio.run(lock(os.path.dirname(sys.argv[1]) + "/first"))  # which reads in what it needs
if os.geteuid() == 0:
    os.seteuid(65534)
print(asyncio.run(lock(sys.argv[1] + "/root")), flush=True)
"""


def test_a_root_is_not_made_where_its_name_cannot_be_made_durable() -> None:
    """The second open would take it for one that is; where somebody else made it, it is used (D5)."""
    with tempfile.TemporaryDirectory() as base:  # the `tmp_path` of root lies where nobody else can go
        Path(base).chmod(0o711)
        above = Path(base) / "above"
        above.mkdir()
        above.chmod(0o333)
        try:
            for _ in range(2):
                assert outcome_of(LOCK_AS_SOMEBODY, above) == os.strerror(errno.EACCES)
            (above / "root").mkdir(mode=0o700)
            if os.geteuid() == 0:
                os.chown(above / "root", 65534, -1)
            assert outcome_of(LOCK_AS_SOMEBODY, above) == "locked"
        finally:
            above.chmod(0o700)


@needs_proc
async def test_a_removal_is_synced_after_the_last_one(storage: FileStorage, root: Path, synced: list[Path]) -> None:
    """One sync of the directory covers all blobs; a removed partition is synced in the root."""
    names = [bytes([i]) for i in range(10)]
    for name in names:
        await write(storage, name)
    synced.clear()
    await storage.remove("p", names[0])
    assert synced == [root / "p"]
    synced.clear()
    await storage.remove_many("p", names[1:])
    assert synced == [root / "p"]
    synced.clear()
    await storage.remove("p", None)
    assert synced[-1] == root


@needs_proc
async def test_the_names_that_a_scan_returns_are_durable(storage: FileStorage, root: Path, synced: list[Path]) -> None:
    """A process that was killed may have made them and not synced them: blob and partition (D5)."""
    await write(storage, NAME)
    synced.clear()
    assert await storage.scan("p") == [NAME]
    assert set(synced) == {root, root / "p"}


@needs_proc
async def test_a_sync_after_a_resize_flushes_the_length(storage: FileStorage, root: Path, synced: list[Path]) -> None:
    """Only fsync(2) is sure to flush a length that became shorter."""
    blob, _ = await storage.open("p", NAME)
    await blob.write_at(0, b"hello")
    await blob.resize(1)
    synced.clear()
    await blob.sync()
    assert synced == [root / "p" / FILE]
    await blob.close()


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return the list of what is given to fsync(2), as it grows."""
    paths: list[Path] = []
    fsync = os.fsync

    def noted(fd: int) -> None:
        paths.append((OPEN_HANDLES / str(fd)).readlink())
        fsync(fd)

    monkeypatch.setattr(os, "fsync", noted)
    return paths


# Threads


async def test_the_loop_never_calls_the_file_system(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call that could wait for a disk is made on a thread of the storage."""
    threads: dict[str, set[str]] = {}

    def watch(module: Any, name: str) -> None:
        original = getattr(module, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            threads.setdefault(name, set()).add(threading.current_thread().name)
            return original(*args, **kwargs)

        monkeypatch.setattr(module, name, watched)

    async def use_everything() -> None:
        storage = FileStorage(root)
        lock = await storage.lock("p")
        with pytest.raises(JournalLocked):
            await storage.lock("p")
        blob, _ = await storage.open("p", NAME)
        await blob.write_at(0, b"hello")
        await blob.write_durably_at(0, b"hello")
        await blob.resize(3)
        await blob.sync()
        await blob.read_at(0, 3)
        await blob.close()
        await storage.scan("p")
        await storage.remove("p", NAME)
        await storage.remove("p", None)
        await lock.release()

    with monkeypatch.context():
        calls = ["open", "close", "stat", "fstat", "lstat", "mkdir", "rmdir", "unlink", "pread", "pwrite", "ftruncate"]
        for name in (*calls, "fsync", "listdir"):
            watch(os, name)
        watch(fcntl, "flock")
        await use_everything()
        monkeypatch.undo()
    assert {"open", "close", "mkdir", "rmdir", "unlink", "pread", "pwrite", "ftruncate", "fsync", "flock"} <= set(
        threads
    )
    assert {name for names in threads.values() for name in names if not name.startswith("posjournal")} == set()


async def test_no_more_threads_are_used_than_allowed(root: Path) -> None:
    """However many operations are under way."""
    before = set(threading.enumerate())
    storage = FileStorage(root, threads=2)
    await asyncio.gather(*(write(storage, bytes([i]), b"hello") for i in range(50)))
    started = [thread for thread in threading.enumerate() if thread not in before]
    assert 1 <= len(started) <= 2
    assert all(thread.name.startswith("posjournal") for thread in started)


def test_threads_end_with_the_storage(root: Path) -> None:
    """A storage that nobody refers to leaves nothing running."""

    async def use() -> list[threading.Thread]:
        before = set(threading.enumerate())
        await write(FileStorage(root), NAME)
        return [thread for thread in threading.enumerate() if thread not in before]

    started = asyncio.run(use())
    gc.collect()
    for thread in started:
        thread.join(timeout=30)
    assert [thread for thread in started if thread.is_alive()] == []


# Handles


@needs_proc
async def test_no_handle_is_left_open(storage: FileStorage, root: Path) -> None:
    """200 rounds of everything, failures included, end with as many handles as they began with."""
    await write(storage, NAME)
    (root / "p" / "00").symlink_to("elsewhere")
    (root / "link").symlink_to("p")
    (root / "p" / "01").mkdir()
    before = open_handles()
    for _ in range(200):
        await write(storage, NAME, b"hello")
        await storage.scan("p")
        lock = await storage.lock("q")
        with pytest.raises(JournalLocked):
            await storage.lock("q")
        await write(storage, NAME, partition="q")
        await storage.remove("q", None)
        await lock.release()
        for partition, name in (("p", b"\0"), ("p", b"\1"), ("link", NAME)):
            with pytest.raises(StorageError):
                await storage.open(partition, name)
    assert open_handles() == before


@needs_proc
@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8])
async def test_cancelled_calls_leave_no_handle_open(root: Path, turns: int) -> None:
    """A handle that arrives when its caller is gone is closed."""
    storage = FileStorage(root, threads=1)
    await write(storage, NAME)
    before = open_handles()
    for i in range(50):
        opening = asyncio.ensure_future(storage.open("p", NAME))
        locking = asyncio.ensure_future(storage.lock(f"q{i}"))
        for _ in range(turns):
            await asyncio.sleep(0)
        opening.cancel()
        locking.cancel()
        await asyncio.wait([opening, locking])
        if not opening.cancelled():
            await opening.result()[0].close()
        if not locking.cancelled():
            await locking.result().release()
    await storage.scan("p")  # behind all the others on the one thread
    async with asyncio.timeout(30):
        while open_handles() > before:  # noqa: ASYNC110 - nothing tells when a handle is closed
            await asyncio.sleep(0)
    assert open_handles() == before


@needs_proc
@pytest.mark.parametrize(
    ("doing", "module", "call"),
    [
        (lambda storage: storage.open("p", NAME), os, "fsync"),
        (lambda storage: storage.lock("p"), fcntl, "flock"),
    ],
    ids=["open", "lock"],
)
def test_a_call_that_outlives_its_event_loop_leaves_no_handle_open(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    doing: Callable[[FileStorage], Awaitable[object]],
    module: Any,
    call: str,
) -> None:
    """The loop is closed while a thread is at work; what it then brings is let go, and a lock can be taken again."""
    storage = FileStorage(root, threads=1)
    is_under_way, may_go_on = threading.Event(), threading.Event()
    original = getattr(module, call)

    def delayed(*args: Any) -> Any:
        is_under_way.set()
        assert may_go_on.wait(timeout=30)
        return original(*args)

    async def leave_it_under_way() -> None:
        abandoned = asyncio.ensure_future(doing(storage))
        await asyncio.to_thread(is_under_way.wait, 30)
        abandoned.cancel()

    async def come_back() -> None:
        await storage.scan("p")  # behind the other call on the one thread
        lock = await storage.lock("p")
        await lock.release()

    asyncio.run(write(storage, b"other"))
    before = open_handles()
    with monkeypatch.context() as patched:
        patched.setattr(module, call, delayed)
        asyncio.run(leave_it_under_way())
        may_go_on.set()
        asyncio.run(come_back())
    gc.collect()
    assert open_handles() == before


@pytest.mark.parametrize("change", [lambda blob: blob.write_at(0, b"late"), lambda blob: blob.resize(0)])
def test_a_change_that_waits_for_a_thread_when_its_event_loop_is_closed_is_not_made(
    root: Path, change: Callable[[FileBlob], Awaitable[object]]
) -> None:
    """The lock is free from then on, and the file somebody else's (F6)."""
    storage = FileStorage(root, threads=1)
    is_taken, is_free = threading.Event(), threading.Event()

    def take() -> None:
        is_taken.set()
        assert is_free.wait(timeout=30)

    async def leave_it_waiting() -> None:
        blob, _ = await storage.open("p", NAME)
        await blob.write_at(0, b"in time")
        storage._threads.hand(take)
        changing = asyncio.ensure_future(change(blob))
        await asyncio.sleep(0)
        assert not changing.done()

    async def come_back() -> None:
        await storage.scan("p")  # behind the change on the one thread

    asyncio.run(leave_it_waiting())
    assert is_taken.wait(timeout=30)
    is_free.set()
    asyncio.run(come_back())
    assert (root / "p" / FILE).read_bytes() == b"in time"
    gc.collect()  # the blob, which nobody closed


@pytest.mark.parametrize("name", [NAME, None], ids=["blob", "partition"])
def test_a_removal_that_waits_for_a_thread_when_its_event_loop_is_closed_is_not_made(
    root: Path, name: bytes | None
) -> None:
    """As after a second Ctrl-C, which does not wait for it: what is there then may be somebody else's (F6)."""
    storage = FileStorage(root, threads=1)
    is_taken, is_free = threading.Event(), threading.Event()

    def take() -> None:
        is_taken.set()
        assert is_free.wait(timeout=30)

    async def leave_it_waiting() -> Coroutine[Any, Any, None]:
        await write(storage, NAME)
        storage._threads.hand(take)
        removing = storage.remove("p", name)
        removing.send(None)
        return removing

    async def come_back() -> list[bytes]:
        return await storage.scan("p")  # behind the removal on the one thread

    loop = asyncio.new_event_loop()
    removing = loop.run_until_complete(leave_it_waiting())
    loop.close()
    assert is_taken.wait(timeout=30)
    is_free.set()
    assert asyncio.run(come_back()) == [NAME]
    removing.close()


@needs_proc
async def test_a_blob_that_nobody_closed_is_closed_when_it_is_collected(storage: FileStorage) -> None:
    """A blob that was lost costs its handle no longer than it lives."""
    await write(storage, NAME)
    before = open_handles()
    blob, _ = await storage.open("p", NAME)
    assert open_handles() == before + 1
    del blob
    gc.collect()
    assert open_handles() == before


USE_WITHOUT_STANDARD_DESCRIPTORS = """
import asyncio, os, sys
from posjournal_async.storage.file import FileStorage
from posjournal_async.storage.readonly import ReadOnlyFileStorage

async def main():
    storage = FileStorage(sys.argv[1])
    out = os.dup(1)
    os.closerange(0, 3)
    opened = [await storage.lock("p")]
    for name in (b"1", b"2", b"1"):
        blob, _ = await storage.open("p", name)
        opened.append(blob)
    reading, _ = await ReadOnlyFileStorage(sys.argv[1]).open("p", b"1")
    await opened[1].write_durably_at(0, b"written")
    print("not into a blob", flush=False)
    low = [each for each in [*opened, reading] if each._handle.fd < 3]
    inherited = [each for each in [*opened, reading] if os.get_inheritable(each._handle.fd)]
    left = [file for file in os.listdir("/proc/self/fd") if int(file) < 3]
    read = await reading.read_at(0, 100)
    os.write(out, repr((low, inherited, left, read)).encode() + b"\\n")
    os._exit(0)

asyncio.run(main())
"""


@needs_proc
def test_nothing_is_opened_as_a_standard_descriptor(root: Path) -> None:
    """In a process that has closed its own, a print would land in a blob; children get none of them either."""
    assert outcome_of(USE_WITHOUT_STANDARD_DESCRIPTORS, root) == repr(([], [], ["0"], b"written"))


# Locks

HOLD = """
import asyncio, sys
from posjournal_async.storage.file import FileStorage

async def main():
    lock = await FileStorage(sys.argv[1]).lock("p")
    print("locked", flush=True)
    sys.stdin.read()

asyncio.run(main())
"""

TRY = """
import asyncio, sys
from posjournal_async.errors import JournalLocked
from posjournal_async.storage.file import FileStorage

async def attempt():
    try:
        await FileStorage(sys.argv[1]).lock("p")
    except JournalLocked:
        return "refused"
    return "locked"
"""

TRY_ELSEWHERE = TRY + "print(asyncio.run(attempt()), flush=True)"

TRY_AFTER_FORK = (
    TRY
    + """
import os

async def main():
    return await FileStorage(sys.argv[1]).lock("p")

lock = asyncio.run(main())
child = os.fork()
if child == 0:
    print(asyncio.run(attempt()), flush=True)
    os._exit(0)
os.waitpid(child, 0)
print("child is gone", flush=True)
sys.stdin.read()
"""
)

FORK_AND_DIE = """
import asyncio, os, signal, sys
from posjournal_async.storage.file import FileStorage

async def main():
    return await FileStorage(sys.argv[1]).lock("p")

lock = asyncio.run(main())
if os.fork() == 0:
    print("forked", flush=True)
    sys.stdin.read()
    print("still there", flush=True)
    os._exit(0)
signal.pause()
"""

FORK_WHILE_LOCKING = """
import asyncio, fcntl, os, signal, sys
from posjournal_async.storage.file import FileStorage

flock = fcntl.flock

def lock_and_fork(fd, operation):
    flock(fd, operation)
    if os.fork() == 0:
        print("forked", flush=True)
        sys.stdin.read()
        print("still there", flush=True)
        os._exit(0)
    signal.pause()

fcntl.flock = lock_and_fork
asyncio.run(FileStorage(sys.argv[1]).lock("p"))
"""


async def test_a_held_lock_names_its_holder(storage: FileStorage, root: Path) -> None:
    """Where the system tells, it is the process that has the lock."""
    with python(HOLD, root) as holder:
        assert line_of(holder) == "locked"
        with pytest.raises(JournalLocked) as raised:
            await storage.lock("p")
    assert raised.value.partition == "p"
    assert raised.value.holder in (holder.pid, None)


async def test_a_lock_is_refused_to_other_processes(storage: FileStorage, root: Path) -> None:
    """One writer on the machine, not one in the process."""
    lock = await storage.lock("p")
    assert outcome_of(TRY_ELSEWHERE, root) == "refused"
    await lock.release()
    assert outcome_of(TRY_ELSEWHERE, root) == "locked"


async def test_a_lock_is_refused_to_other_storages_on_the_same_root(storage: FileStorage, root: Path) -> None:
    """It belongs to the directory, not to the object."""
    lock = await storage.lock("p")
    with pytest.raises(JournalLocked):
        await FileStorage(root).lock("p")
    await lock.release()


async def test_a_killed_process_leaves_its_lock_free(storage: FileStorage, root: Path) -> None:
    """SIGKILL lets no code run, and none is needed."""
    with python(HOLD, root) as holder:
        assert line_of(holder) == "locked"
        with pytest.raises(JournalLocked):
            await storage.lock("p")
        holder.kill()
        holder.wait()
        lock = await storage.lock("p")
        await lock.release()


async def test_a_process_that_is_being_started_does_not_keep_the_lock(storage: FileStorage) -> None:
    """Until it begins its program it has a copy of each handle; the lock is free all the same."""
    lock = await storage.lock("p")
    copy = os.dup(lock._handle.fd)
    try:
        await lock.release()
        again = await storage.lock("p")
        await lock.release()  # which leaves the lock of others alone
        with pytest.raises(JournalLocked):
            await storage.lock("p")
        await again.release()
    finally:
        os.close(copy)


async def test_a_forked_child_is_refused_and_leaves_the_lock_alone(storage: FileStorage, root: Path) -> None:
    """It does not inherit the lock, and its end does not free it."""
    with python(TRY_AFTER_FORK, root) as holder:
        assert line_of(holder) == "refused"
        assert line_of(holder) == "child is gone"
        with pytest.raises(JournalLocked):
            await storage.lock("p")


@pytest.mark.parametrize("script", [FORK_AND_DIE, FORK_WHILE_LOCKING], ids=["locked", "while it is locked"])
async def test_a_forked_child_does_not_keep_the_lock_of_a_dead_parent(
    storage: FileStorage, root: Path, script: str
) -> None:
    """A worker that outlives the journal's process does not stand in the way of the next one (F6)."""
    with python(script, root) as holder:
        assert line_of(holder) == "forked"
        with pytest.raises(JournalLocked):
            await storage.lock("p")
        holder.kill()
        holder.wait()
        lock = await storage.lock("p")
        await lock.release()
        output, _ = holder.communicate()
        assert output == "still there\n"


async def test_deleting_files_lets_nobody_in(storage: FileStorage, root: Path) -> None:
    """No file in the partition is the lock."""
    lock = await storage.lock("p")
    await write(storage, NAME)
    for path in (root / "p").iterdir():
        path.unlink()
    with pytest.raises(JournalLocked):
        await storage.lock("p")
    assert outcome_of(TRY_ELSEWHERE, root) == "refused"
    await lock.release()


async def test_a_lock_on_a_directory_that_was_just_removed_is_not_taken(
    storage: FileStorage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening the directory and locking it, its holder may remove it: then the lock is on the new one."""
    flock = fcntl.flock
    removed: list[int] = []

    def overtaken(fd: int, operation: int) -> None:
        if not removed:
            (root / "p").rmdir()
            removed.append(fd)
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", overtaken)
    lock = await storage.lock("p")
    assert (root / "p").is_dir()
    with pytest.raises(JournalLocked):
        await storage.lock("p")
    await lock.release()


async def write(storage: FileStorage, name: bytes, data: bytes = b"", partition: str = "p") -> None:
    blob, _ = await storage.open(partition, name)
    await blob.write_at(0, data)
    await blob.close()


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def paths_below(path: Path) -> list[Path]:
    return sorted(path.rglob("*"))


def open_handles() -> int:
    return len(list(OPEN_HANDLES.iterdir()))


@contextmanager
def python(script: str, root: Path) -> Generator[subprocess.Popen[str], None, None]:
    """Run a script in a process of its own, which is gone afterwards, and after a minute at the latest."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        text=True,
    )
    limit = threading.Timer(60, process.kill)
    limit.start()
    try:
        yield process
    finally:
        limit.cancel()
        limit.join()
        process.kill()
        process.communicate()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def outcome_of(script: str, root: Path) -> str:
    with python(script, root) as process:
        return line_of(process)


async def test_a_lock_that_comes_when_its_caller_was_cancelled_is_free_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only when the garbage is collected that the cancelled call has left (C4, F6)."""
    storage = FileStorage(tmp_path, threads=1)
    entered, goes = threading.Event(), threading.Event()
    really_flock = fcntl.flock

    def flock(fd: int, operation: int) -> None:
        entered.set()
        assert goes.wait(60)
        really_flock(fd, operation)

    gc.disable()
    try:
        monkeypatch.setattr(fcntl, "flock", flock)
        locking = asyncio.create_task(storage.lock("p"))
        assert await asyncio.to_thread(entered.wait, 60)
        locking.cancel()
        await asyncio.wait([locking])
        monkeypatch.undo()
        goes.set()
        await storage.scan("p")  # on the one thread there is: the lock has been taken by then
        for _ in range(10):
            await asyncio.sleep(0)
        lock = await storage.lock("p")
        await lock.release()
    finally:
        gc.enable()
