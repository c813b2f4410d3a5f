"""Files that are only looked at: a storage that changes nothing, beside a live writer and on what is damaged."""

from __future__ import annotations

import asyncio
import os
import re
import stat
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from errno import EAGAIN, ELOOP, EROFS
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

from posjournal_async.errors import StorageError
from posjournal_async.storage.directory import Handle, lock_holder, open_descriptor
from posjournal_async.storage.file import FileBlob
from posjournal_async.storage.lane import Lane
from posjournal_async.storage.protocols import check_blob_name, check_partition_name
from posjournal_async.storage.threads import NoThread, Threads
from posjournal_async.waiting import claimed

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from posjournal_async.storage.protocols import Lock

__all__ = ["BlobFacts", "ReadOnlyFileStorage"]

T = TypeVar("T")

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO that somebody put there returns instead of waiting for its other end.
_OPEN_BLOB = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
# Linux leaves the time of the last access as it is, for the owner of a file only (open(2)).
_NO_ACCESS_TIME: int = getattr(os, "O_NOATIME", 0)

_BLOB_FILE = re.compile(r"(?:[0-9a-f]{2}){1,64}")


@dataclass(frozen=True, slots=True)
class BlobFacts:
    """What a file says of itself without being read through.

    Attributes:
        name: Name of the blob.
        length: Its length, in bytes; 0 where it is not a regular file.
        modified_ns: When it was last written to, in nanoseconds since 1970.
        head: Its first bytes.
    """

    name: bytes
    length: int
    modified_ns: int
    head: bytes


class ReadOnlyFileStorage:
    """The files of a `FileStorage`, to be looked at: nothing is created, written, removed, synced or locked.

    What is missing stays so: opening it raises. No byte, name, mode or time of a change is altered, and where the
    system lets this user, no time of an access either. It works in directories that cannot be written to, and beside a
    process that has the journal open.

    The one thing that reaches the device is `sync` of a blob that is open, which flushes what others have written; it
    changes no byte and no time.

    Args:
        root: Directory of the partitions.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._root = Path(root).absolute()
        self._threads = Threads(8, "posjournal-reading")

    def __repr__(self) -> str:
        return f"ReadOnlyFileStorage({str(self._root)!r})"

    @property
    def root(self) -> Path:
        """Directory of the partitions."""
        return self._root

    async def open(self, partition: str, name: bytes) -> tuple[FileBlob, int]:
        """Open a blob for reading; return it with its length in bytes. Writing to it raises StorageError (EROFS).

        Raises:
            StorageError: It is missing (ENOENT), the system refused, or something else than a regular file has that
                name.
        """
        check_partition_name(partition)
        check_blob_name(name)

        def own(opened: tuple[Handle, int]) -> tuple[FileBlob, int]:
            handle, length = opened
            return FileBlob(handle, partition, name, Lane(self._threads)), length

        with _translated(partition, name, "open"):
            opening = self._call(partial(_open_blob, self._root, partition, name))
            return await claimed(opening, own, lambda opened: opened[0].close())

    async def scan(self, partition: str) -> list[bytes]:
        """Return the names of the blobs of a partition in no particular order; `[]` when it is missing.

        Unlike those of a `FileStorage` they may not be durable.
        """
        check_partition_name(partition)
        with _translated(partition, None, "scan"):
            return await self._call(partial(_scan, self._root, partition))

    async def survey(self, partition: str, head: int) -> list[BlobFacts]:
        """Return what can be known of all blobs of a partition for one look at each, by name, ascending.

        A blob that vanishes meanwhile is left out.

        Args:
            partition: Name of the partition; `[]` when it is missing.
            head: Bytes to read from the start of each blob; 0 opens none.
        """
        check_partition_name(partition)
        with _translated(partition, None, "scan"):
            return await self._call(partial(_survey, self._root, partition, head))

    async def lock_holder(self, partition: str) -> int | None:
        """Return the process that has the lock of a partition where the system tells (proc_locks(5)), else None."""
        check_partition_name(partition)
        return await self._call(partial(lock_holder, self._root, partition))

    async def remove(self, partition: str, name: bytes | None) -> NoReturn:
        """Refuse.

        Raises:
            StorageError: Always (EROFS).
        """
        raise StorageError(partition, name, EROFS, "remove")

    async def remove_many(self, partition: str, names: Sequence[bytes]) -> NoReturn:
        """Refuse.

        Raises:
            StorageError: Always (EROFS).
        """
        raise StorageError(partition, names[0] if len(names) == 1 else None, EROFS, "remove")

    async def lock(self, partition: str) -> Lock:
        """Refuse.

        Raises:
            StorageError: Always (EROFS).
        """
        raise StorageError(partition, None, EROFS, "lock")

    async def _call(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)


@contextmanager
def _translated(partition: str, blob: bytes | None, doing: str) -> Generator[None]:
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(partition, blob, error.errno, doing) from error
    except NoThread as error:
        raise StorageError(partition, blob, EAGAIN, doing) from error


# What follows runs in a thread.


def _open_quietly(path: str | Path, flags: int, dir_fd: int | None = None) -> Handle:
    """Open without leaving a trace in the time of the last access, where that is allowed."""
    if _NO_ACCESS_TIME:
        with suppress(PermissionError):  # not the owner, or no right to read: the second try tells
            return Handle(open_descriptor(path, flags | _NO_ACCESS_TIME, dir_fd=dir_fd), is_read_only=True)
    return Handle(open_descriptor(path, flags, dir_fd=dir_fd), is_read_only=True)


@contextmanager
def _partition(root: Path, partition: str) -> Generator[int]:
    """Open the directory of a partition, never through a link below the root.

    Raises:
        FileNotFoundError: It is missing.
    """
    top = _open_quietly(root, _OPEN_DIRECTORY)
    try:
        directory = _open_quietly(partition, _OPEN_DIRECTORY | os.O_NOFOLLOW, top.fd)
    finally:
        top.close()
    try:
        yield directory.fd
    finally:
        directory.close()


def _open_blob(root: Path, partition: str, name: bytes) -> tuple[Handle, int]:
    with _partition(root, partition) as directory:
        handle = _open_quietly(name.hex(), _OPEN_BLOB, directory)
    with handle.closed_on_error():
        status = os.fstat(handle.fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(ELOOP, "not a regular file")
        return handle, status.st_size


def _scan(root: Path, partition: str) -> list[bytes]:
    try:
        with _partition(root, partition) as directory:
            files = os.listdir(directory)  # noqa: PTH208 - a handle, not a path
    except FileNotFoundError:
        return []
    return [bytes.fromhex(file) for file in files if _BLOB_FILE.fullmatch(file)]


def _survey(root: Path, partition: str, head: int) -> list[BlobFacts]:
    try:
        with _partition(root, partition) as directory:
            files = sorted(filter(_BLOB_FILE.fullmatch, os.listdir(directory)))  # noqa: PTH208 - a handle, not a path
            found: list[BlobFacts] = []
            for file in files:
                with suppress(FileNotFoundError):
                    found.append(_facts_of(directory, file, head))
            return found
    except FileNotFoundError:
        return []


def _facts_of(directory: int, file: str, head: int) -> BlobFacts:
    """Return what a file says of itself; there may be a hundred thousand of them."""
    status = os.stat(file, dir_fd=directory, follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode):
        return BlobFacts(bytes.fromhex(file), 0, status.st_mtime_ns, b"")
    start = b""
    if head and status.st_size:
        try:
            fd = open_descriptor(file, _OPEN_BLOB | _NO_ACCESS_TIME, dir_fd=directory)
        except PermissionError:
            fd = open_descriptor(file, _OPEN_BLOB, dir_fd=directory)
        try:
            start = os.pread(fd, head, 0)
        finally:
            os.close(fd)
    return BlobFacts(bytes.fromhex(file), status.st_size, status.st_mtime_ns, start)
