"""A storage that changes nothing."""

# Files are looked at while nothing else is to run.

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from posjournal_async import FileStorage, StorageError
from posjournal_async.storage.readonly import ReadOnlyFileStorage
from tests.cli.transcripts import tree_hash

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from posjournal_async.storage.file import FileBlob


async def laid_out(root: Path) -> None:
    """Make a partition with one blob."""
    blob, _ = await FileStorage(root).open("part", b"\x01")
    await blob.write_at(0, b"hello")
    await blob.sync()
    await blob.close()


async def test_it_reads_what_is_there(tmp_path: Path) -> None:
    """As a storage that writes would show it, and a sync leaves no trace either."""
    await laid_out(tmp_path)
    before = tree_hash(tmp_path)
    storage = ReadOnlyFileStorage(tmp_path)
    assert await storage.scan("part") == [b"\x01"]
    blob, length = await storage.open("part", b"\x01")
    assert (length, await blob.read_at(1, 10), blob.read_at_once(0, 6)) == (5, b"ello", None)
    await blob.sync()
    await blob.close()
    assert tree_hash(tmp_path) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda blob: blob.write_at(0, b"x"),
        lambda blob: blob.write_durably_at(0, b"x"),
        lambda blob: blob.resize(0),
        lambda blob: blob.resize(5),
    ],
)
async def test_a_blob_cannot_be_changed(tmp_path: Path, change: Callable[[FileBlob], Awaitable[None]]) -> None:
    """As on a file system that is read-only."""
    await laid_out(tmp_path)
    before = tree_hash(tmp_path)
    blob, _ = await ReadOnlyFileStorage(tmp_path).open("part", b"\x01")
    with pytest.raises(StorageError) as raised:
        await change(blob)
    await blob.close()
    assert raised.value.errno == errno.EROFS
    assert tree_hash(tmp_path) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda storage: storage.remove("part", b"\x01"),
        lambda storage: storage.remove("part", None),
        lambda storage: storage.remove_many("part", [b"\x01"]),
        lambda storage: storage.lock("part"),
    ],
)
async def test_a_partition_cannot_be_changed(
    tmp_path: Path, change: Callable[[ReadOnlyFileStorage], Awaitable[object]]
) -> None:
    """Nor locked: somebody else may want to."""
    await laid_out(tmp_path)
    before = tree_hash(tmp_path)
    with pytest.raises(StorageError) as raised:
        await change(ReadOnlyFileStorage(tmp_path))
    assert raised.value.errno == errno.EROFS
    assert tree_hash(tmp_path) == before


@pytest.mark.parametrize(("partition", "name"), [("part", b"\x02"), ("other", b"\x01")])
async def test_what_is_missing_stays_missing(tmp_path: Path, partition: str, name: bytes) -> None:
    """Opening raises and makes nothing; a partition that is not there has no blobs."""
    await laid_out(tmp_path)
    before = tree_hash(tmp_path)
    for root in (tmp_path, tmp_path / "nowhere"):
        storage = ReadOnlyFileStorage(root)
        with pytest.raises(StorageError) as raised:
            await storage.open(partition, name)
        assert raised.value.errno == errno.ENOENT
        assert await storage.scan("other") == []
        assert await storage.survey("other", 9) == []
        assert await storage.lock_holder("other") is None
    assert tree_hash(tmp_path) == before


async def test_a_survey_tells_of_each_blob_and_opens_none_that_is_no_file(tmp_path: Path) -> None:
    """Its length, its time and its first bytes; neither through a link nor waiting for the writer of a FIFO."""
    await laid_out(tmp_path)
    directory = tmp_path / "part"
    (directory / "02").symlink_to(directory / "01")
    os.mkfifo(directory / "03")
    (directory / "no blob").touch()
    os.utime(directory / "01", ns=(5, 7))
    first, link, fifo = await ReadOnlyFileStorage(tmp_path).survey("part", 3)
    assert (first.name, first.length, first.modified_ns, first.head) == (b"\x01", 5, 7, b"hel")
    assert (link.name, link.length, link.head) == (b"\x02", 0, b"")
    assert (fifo.name, fifo.length, fifo.head) == (b"\x03", 0, b"")
    for name in (b"\x02", b"\x03"):
        with pytest.raises(StorageError) as raised:
            await ReadOnlyFileStorage(tmp_path).open("part", name)
        assert raised.value.errno == errno.ELOOP


async def test_a_partition_behind_a_link_is_refused(tmp_path: Path) -> None:
    """Nobody who can write to the root leads a reader out of it."""
    await laid_out(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "part")
    storage = ReadOnlyFileStorage(tmp_path)
    for look in (storage.scan("link"), storage.survey("link", 0), storage.open("link", b"\x01")):
        with pytest.raises(StorageError):
            await look


@pytest.mark.skipif(not hasattr(os, "O_NOATIME"), reason="only Linux can leave the time of an access as it is")
async def test_the_time_of_the_last_access_stays(tmp_path: Path) -> None:
    """Of the files and of their directories, for their owner."""
    await laid_out(tmp_path)
    places = [tmp_path, tmp_path / "part", tmp_path / "part" / "01"]
    for place in places:
        os.utime(place, ns=(10**18, 2 * 10**18))  # read before it was written: the next access would be noted
    storage = ReadOnlyFileStorage(tmp_path)
    await storage.scan("part")
    await storage.survey("part", 5)
    blob, _ = await storage.open("part", b"\x01")
    assert await blob.read_at(0, 5) == b"hello"
    await blob.close()
    assert [place.stat().st_atime_ns for place in places] == [10**18] * 3
