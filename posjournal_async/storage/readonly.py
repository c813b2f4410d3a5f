"""Files that are only looked at: a storage that changes nothing, beside a live writer and on what is damaged."""

from __future__ import annotations

import asyncio
import os
import stat
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from errno import EROFS
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

from posjournal_async.errors import StorageError
from posjournal_async.storage.descriptors import (
    OPEN_BLOB_TO_READ,
    OPEN_DIRECTORY,
    OPEN_ROOT,
    Handle,
    closing,
    length_of_regular_file,
    open_quietly,
)
from posjournal_async.storage.directory import blobs_in, lock_holder
from posjournal_async.storage.file import claimed_blob, translated
from posjournal_async.storage.protocols import check_blob_name, check_partition_name
from posjournal_async.storage.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from posjournal_async.storage.file import FileBlob
    from posjournal_async.storage.protocols import Lock

__all__ = ["BlobFacts", "ReadOnlyFileStorage"]

T = TypeVar("T")


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

        opening = self._call(partial(_open_blob, self._root, partition, name))
        return await claimed_blob(opening, partition, name, self._threads)

    async def scan(self, partition: str) -> list[bytes]:
        """Return the names of the blobs of a partition in no particular order; `[]` when it is missing.

        Unlike those of a `FileStorage` they may not be durable.
        """
        check_partition_name(partition)
        with translated(partition, None, "scan"):
            return await self._call(partial(_scan, self._root, partition))

    async def survey(self, partition: str, head: int) -> list[BlobFacts]:
        """Return what can be known of all blobs of a partition for one look at each, by name, ascending.

        A blob that vanishes meanwhile is left out.

        Args:
            partition: Name of the partition; `[]` when it is missing.
            head: Bytes to read from the start of each blob; 0 opens none.
        """
        check_partition_name(partition)
        with translated(partition, None, "scan"):
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


# What follows runs in a thread.


@contextmanager
def _partition(root: Path, partition: str) -> Generator[int]:
    """Open the directory of a partition, never through a link below the root.

    Raises:
        FileNotFoundError: It is missing.
    """
    with closing(open_quietly(root, OPEN_ROOT)) as top:
        fd = open_quietly(partition, OPEN_DIRECTORY, dir_fd=top)
    with closing(fd) as directory:
        yield directory


def _open_blob(root: Path, partition: str, name: bytes) -> tuple[Handle, int]:
    with _partition(root, partition) as directory:
        handle = Handle(open_quietly(name.hex(), OPEN_BLOB_TO_READ, dir_fd=directory), is_read_only=True)
    with handle.closed_on_error():
        return handle, length_of_regular_file(handle.fd)


def _scan(root: Path, partition: str) -> list[bytes]:
    try:
        with _partition(root, partition) as directory:
            return blobs_in(directory)
    except FileNotFoundError:
        return []


def _survey(root: Path, partition: str, head: int) -> list[BlobFacts]:
    try:
        with _partition(root, partition) as directory:
            found: list[BlobFacts] = []
            for name in sorted(blobs_in(directory)):
                with suppress(FileNotFoundError):
                    found.append(_facts_of(directory, name, head))
            return found
    except FileNotFoundError:
        return []


def _facts_of(directory: int, name: bytes, head: int) -> BlobFacts:
    """Return what a file says of itself; there may be a hundred thousand of them."""
    file = name.hex()
    status = os.stat(file, dir_fd=directory, follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode):
        return BlobFacts(name, 0, status.st_mtime_ns, b"")
    start = b""
    if head and status.st_size:
        with closing(open_quietly(file, OPEN_BLOB_TO_READ, dir_fd=directory)) as fd:
            start = os.pread(fd, head, 0)
    return BlobFacts(name, status.st_size, status.st_mtime_ns, start)
