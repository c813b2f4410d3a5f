"""The directory of a journal as a machine may have it: by any name, behind a link, and with strange things in it."""

# Files are looked at while nothing else is to run.
# ruff: noqa: ASYNC240

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import socket
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from posjournal_async import Context, Corruption, FileStorage, Journal, JournalError, StorageError
from posjournal_async.storage.readonly import ReadOnlyFileStorage
from tests.format.writer import path_of, write_journal
from tests.journals import config_of, files_below, filled, item_at, items_in

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

# Seconds that a call may take that must not wait for anything.
PATIENCE_SECONDS = 60


async def opened(root: Path | str) -> Journal[bytes]:
    return await Journal.init(Context(FileStorage(root)), config_of())


# Names and ways.


@pytest.mark.parametrize(
    "name",
    [
        "with spaces",
        "naïve 日本語 🗄",
        "-o ro",
        "new\nline",
        "a" * 255,
        "'\"$(touch x);*?",
        "~",
        os.fsdecode(b"\xff\xfe"),
    ],
    ids=["spaces", "unicode", "option", "newline", "long", "shell", "tilde", "no text"],
)
async def test_a_root_may_have_any_name(name: str, tmp_path: Path) -> None:
    """The journal works in it, again after it was closed, and makes nothing beside it."""
    journal = await filled(Context(FileStorage(tmp_path / name)), 25)
    await journal.close()
    async with await opened(os.path.join(tmp_path, name)) as journal:  # noqa: PTH118 - a string
        assert [pair async for pair in journal.replay(0)] == items_in(range(25))
    async with Journal.open(tmp_path / name / "orders", codec=journal.config.codec, items_per_section=10) as journal:
        assert journal.size() == 25
    assert [path.name for path in tmp_path.iterdir()] == [name]


async def test_a_relative_root_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is that of the time when the storage was made; a later change of directory moves no blob."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    context = Context(FileStorage("root"))
    monkeypatch.chdir("elsewhere")
    journal = await filled(context, 15)
    monkeypatch.chdir("/")
    await journal.append_many([item_at(position) for position in range(15, 45)])
    await journal.prune(20)
    await journal.close()
    assert list((tmp_path / "elsewhere").iterdir()) == []
    async with await opened(tmp_path / "root") as journal:
        assert [pair async for pair in journal.replay(20)] == items_in(range(20, 45))


async def test_a_root_behind_a_link_is_the_directory_that_it_leads_to(tmp_path: Path) -> None:
    """Links are refused below the root only; both ways to it have one lock."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    journal = await filled(Context(FileStorage(tmp_path / "link")), 25)
    with pytest.raises(JournalError, match="lock"):
        await opened(tmp_path / "real")
    await journal.close()
    async with await opened(tmp_path / "real") as journal:
        assert journal.size() == 25


async def test_a_way_that_goes_back_from_behind_a_link_leads_where_the_system_takes_it(tmp_path: Path) -> None:
    """Not where the text says: what a shell finds there, the journal finds too, and the command that looks at it."""
    (tmp_path / "elsewhere" / "real").mkdir(parents=True)
    (tmp_path / "link").symlink_to("elsewhere/real")
    journal = await filled(Context(FileStorage(tmp_path / "link" / ".." / "root")), 25)
    await journal.close()
    async with await opened(tmp_path / "elsewhere" / "root") as journal:
        assert journal.size() == 25
    storage = ReadOnlyFileStorage(tmp_path / "link" / ".." / "root")
    assert len(await storage.scan("orders_data")) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "link"]


async def test_a_link_that_is_turned_under_an_open_journal_leads_it_into_no_other(tmp_path: Path) -> None:
    """As a deployment does: both have the same name, each has its lock, and neither does anything to the other (F6)."""
    for real in ("old", "new"):
        (tmp_path / real).mkdir()
    (tmp_path / "link").symlink_to("old")
    old = await filled(Context(FileStorage(tmp_path / "link")), 15)
    await old.sync()
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to("new")
    async with await filled(Context(FileStorage(tmp_path / "link")), 35) as new:
        assert await old.read(14) == item_at(14)
        await old.append_many([item_at(position) for position in range(15, 18)])
        await old.sync()  # into the section that it has open
        await old.append_many([item_at(position) for position in range(18, 25)])
        with pytest.raises(StorageError) as refused:
            await old.sync()  # section 2 is to be made
        assert refused.value.errno == errno.ESTALE
        with suppress(JournalError):
            await old.close()
        assert [pair async for pair in new.replay(0)] == items_in(range(35))
    for real, count in (("old", 18), ("new", 35)):
        async with await opened(tmp_path / real) as journal:
            assert [pair async for pair in journal.replay(0)][:count] == items_in(range(count))


async def test_nobody_else_can_look_in(tmp_path: Path) -> None:
    """Whatever the umask allows, directories are 0700 and files 0600, those of later sections too."""
    before = os.umask(0)
    try:
        async with await filled(Context(FileStorage(tmp_path / "root")), 35) as journal:
            await journal.rewind(5)
            await journal.append_many([item_at(position) for position in range(5, 25)])
    finally:
        os.umask(before)
    modes = {
        stat.S_IFMT(path.stat().st_mode): stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "root").rglob("*")
    }
    assert modes == {stat.S_IFDIR: 0o700, stat.S_IFREG: 0o600}
    assert stat.S_IMODE((tmp_path / "root").stat().st_mode) == 0o700


# Strange things in place of a blob.


def place_link(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "precious")


def place_link_to_nothing(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "missing")


def place_link_to_itself(path: Path, _: Path) -> None:
    path.symlink_to(path.name)


def place_link_to_directory(path: Path, outside: Path) -> None:
    path.symlink_to(outside, target_is_directory=True)


def place_fifo(path: Path, _: Path) -> None:
    os.mkfifo(path)


def place_directory(path: Path, _: Path) -> None:
    path.mkdir()
    (path / "precious").touch()


def place_socket(path: Path, _: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.open(path.parent, os.O_RDONLY)
        try:
            listening.bind(f"/proc/self/fd/{here}/{path.name}")  # a path of a socket has 107 bytes at most
        finally:
            os.close(here)


def place_device(path: Path, _: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))  # /dev/zero, from which one can read for ever
    except PermissionError as error:
        pytest.skip(f"this machine lets nobody make a device: {error}")


PLACES = [
    place_link,
    place_link_to_nothing,
    place_link_to_itself,
    place_link_to_directory,
    place_fifo,
    place_directory,
    place_socket,
    place_device,
]


def kind_of(path: Path) -> tuple[int, str | None]:
    """Return what is at a path, and where it leads if it is a link."""
    return stat.S_IFMT(path.lstat().st_mode), str(path.readlink()) if path.is_symlink() else None


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """Return a directory that a link may lead to, and look afterwards that nothing happened to it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"precious")
    before = files_below(outside)
    yield outside
    assert files_below(outside) == before
    assert [path.name for path in outside.iterdir()] == ["precious"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("part", ["data", "offsets", "checkpoint"])
async def test_what_is_no_file_is_not_opened_in_place_of_a_blob(
    part: str, place: Callable[[Path, Path], None], outside: Path, tmp_path: Path
) -> None:
    """Opening names it, and neither follows it, waits for it, skips it nor removes it; with the file back it opens."""
    root = tmp_path / "root"
    write_journal(root, "orders", items=[item_at(position) for position in range(35)])
    # The last section: it is opened by every init.
    path = path_of(root, "orders", "checkpoint") if part == "checkpoint" else root / f"orders_{part}" / f"{3:016x}"
    path.rename(tmp_path / "away")
    place(path, outside)
    strange = kind_of(path)
    before = files_below(root)
    for _ in range(2):
        async with asyncio.timeout(PATIENCE_SECONDS):
            with pytest.raises(StorageError) as refused:
                await opened(root)
        assert (refused.value.partition, refused.value.blob) == (f"orders_{part}", bytes.fromhex(path.name))
        assert path.name in str(refused.value)
    assert kind_of(path) == strange
    if part != "offsets":  # of which recovery has confirmed the checkpoint before it
        assert files_below(root) == before
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
    (tmp_path / "away").rename(path)
    async with await opened(root) as journal:
        assert [pair async for pair in journal.replay(0)] == items_in(range(35))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("part", ["data", "offsets"])
async def test_what_is_no_file_is_not_read_in_place_of_a_sealed_section(
    part: str, place: Callable[[Path, Path], None], outside: Path, tmp_path: Path
) -> None:
    """Reading names it, and the rest of the journal goes on: other sections, appends, a close (F5)."""
    root = tmp_path / "root"
    write_journal(root, "orders", items=[item_at(position) for position in range(35)])
    path = root / f"orders_{part}" / f"{1:016x}"
    path.unlink()
    place(path, outside)
    strange = kind_of(path)
    async with await opened(root) as journal:
        async with asyncio.timeout(PATIENCE_SECONDS):
            with pytest.raises(StorageError) as refused:
                await journal.read(15)
            assert refused.value.partition == f"orders_{part}"
            found: list[tuple[int, bytes]] = []
            with pytest.raises(StorageError):
                found.extend([pair async for pair in journal.replay(15)])
        assert not found
        assert [pair async for pair in journal.replay(20)] == items_in(range(20, 35))
        assert await journal.append(item_at(35)) == 35
    assert kind_of(path) == strange


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("removing", ["prune", "rewind", "destroy"])
async def test_what_is_no_file_is_removed_itself_or_not_at_all(
    removing: str, place: Callable[[Path, Path], None], outside: Path, tmp_path: Path
) -> None:
    """What goes with a section is what has its name, never what a link leads to; a directory is refused (F1)."""
    root = tmp_path / "root"
    write_journal(root, "orders", items=[item_at(position) for position in range(35)])
    path = root / "orders_data" / f"{1:016x}"
    path.unlink()
    place(path, outside)
    is_directory = path.is_dir() and not path.is_symlink()
    journal = await opened(root)
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "prune": lambda: journal.prune(25),
        "rewind": lambda: journal.rewind(5),
        "destroy": journal.destroy,
    }
    async with asyncio.timeout(PATIENCE_SECONDS):
        if is_directory:
            with pytest.raises(StorageError) as refused:
                await calls[removing]()
            assert refused.value.partition == "orders_data"
            assert (path / "precious").exists()
        else:
            await calls[removing]()
            assert not os.path.lexists(path)
    if removing != "destroy":
        with suppress(JournalError):  # it has failed if it was a directory
            await journal.close()


@pytest.mark.parametrize("place", [*PLACES[:5], PLACES[6], PLACES[7]])
@pytest.mark.parametrize("part", ["data", "offsets", "checkpoint"])
async def test_what_is_no_directory_is_not_a_partition(
    part: str, place: Callable[[Path, Path], None], outside: Path, tmp_path: Path
) -> None:
    """Opening names the partition, and neither follows what is there, waits for it nor replaces it."""
    root = tmp_path / "root"
    write_journal(root, "orders", items=[item_at(position) for position in range(35)])
    path = root / f"orders_{part}"
    path.rename(tmp_path / "away")
    place(path, outside)
    strange = kind_of(path)
    async with asyncio.timeout(PATIENCE_SECONDS):
        with pytest.raises(StorageError) as refused:
            await opened(root)
    assert refused.value.partition == f"orders_{part}"
    assert kind_of(path) == strange
    path.unlink()
    (tmp_path / "away").rename(path)
    async with await opened(root) as journal:
        assert [pair async for pair in journal.replay(0)] == items_in(range(35))


@pytest.mark.parametrize(
    "place", [place_link, place_link_to_nothing, place_link_to_itself, place_fifo, place_socket, place_device]
)
async def test_what_is_no_directory_is_not_a_root(
    place: Callable[[Path, Path], None], outside: Path, tmp_path: Path
) -> None:
    """Opening says so, and leaves what is there."""
    root = tmp_path / "root"
    place(root, outside)
    strange = kind_of(root)
    async with asyncio.timeout(PATIENCE_SECONDS):
        with pytest.raises(StorageError) as refused:
            await opened(root)
    assert refused.value.partition == "orders_checkpoint"
    assert kind_of(root) == strange


@pytest.mark.parametrize("part", ["data", "offsets", "checkpoint"])
@pytest.mark.parametrize("call", ["destroy", "init_at_size", "init_sync"])
async def test_a_journal_is_reset_or_destroyed_beside_the_files_of_others(call: str, part: str, tmp_path: Path) -> None:
    """What a desktop, an editor or NFS leaves in a directory stays there, and stands in the way of nothing."""
    context = Context(FileStorage(tmp_path))
    await (await filled(context, 35)).close()
    foreign = tmp_path / f"orders_{part}" / ".DS_Store"
    foreign.touch()
    for _ in range(2):
        if call == "destroy":
            await (await Journal.init(context, config_of())).destroy()
        elif call == "init_at_size":
            await (await Journal.init_at_size(context, config_of(), 100)).close()
        else:
            await (await Journal.init_sync(context, config_of(), range(100, 115))).close()
        async with await Journal.init(context, config_of()) as journal:
            assert journal.bounds() == (range(0) if call == "destroy" else range(100, 100))
        assert foreign.exists()


# Directories that go while they are in use.


@pytest.mark.parametrize("gone", ["orders_data", "orders_offsets", "orders_checkpoint", "."])
@pytest.mark.parametrize("call", ["read", "append", "prune", "rewind", "sync", "destroy"])
async def test_a_directory_that_is_removed_under_an_open_journal_never_makes_it_lie(
    call: str, gone: str, tmp_path: Path
) -> None:
    """Calls come to an end; what opening shows afterwards, if it opens, are items at their positions (F5)."""
    root = tmp_path / "root"
    journal = await filled(Context(FileStorage(root)), 35)
    await journal.sync()
    shutil.rmtree(root / gone)
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "read": lambda: journal.read(5),
        "append": lambda: journal.append_many([item_at(position) for position in range(35, 65)]),
        "prune": lambda: journal.prune(25),
        "rewind": lambda: journal.rewind(5),
        "sync": journal.sync,
        "destroy": journal.destroy,
    }
    async with asyncio.timeout(PATIENCE_SECONDS):
        with suppress(StorageError, Corruption):
            found = await calls[call]()
            assert call != "read" or found == item_at(5)
        with suppress(JournalError):
            await journal.close()
        try:
            journal = await opened(root)
        except Corruption:
            return
    async with journal:
        bounds = journal.bounds()
        with suppress(Corruption):
            assert [pair async for pair in journal.replay(bounds.start)] == items_in(bounds)
