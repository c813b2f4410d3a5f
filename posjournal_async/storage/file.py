"""Real files: one directory for each partition, one file for each blob."""

from __future__ import annotations

import asyncio
import os
from contextlib import contextmanager
from errno import EAGAIN, EBADF, EINTR
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import aiofiles.os

from posjournal_async.errors import JournalLocked, StorageError
from posjournal_async.storage import directory
from posjournal_async.storage.descriptors import Handle, sync_file
from posjournal_async.storage.lane import Lane
from posjournal_async.storage.protocols import check_blob_name, check_partition_name
from posjournal_async.storage.threads import NoThread, Threads
from posjournal_async.waiting import claimed, finished

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Sequence

    from typing_extensions import Buffer

__all__ = ["FileBlob", "FileLock", "FileStorage", "claimed_blob", "translated"]

# Linux has preadv2 with RWF_NOWAIT; elsewhere every read goes to a thread.
_NOWAIT: int = getattr(os, "RWF_NOWAIT", 0)

_open_blob = aiofiles.os.wrap(directory.open_blob)
_scan_partition = aiofiles.os.wrap(directory.scan_partition)
_lock_partition = aiofiles.os.wrap(directory.lock_partition)
_lock_holder = aiofiles.os.wrap(directory.lock_holder)


@contextmanager
def translated(partition: str, blob: bytes | None, doing: str) -> Generator[None]:
    """Turn what the system raises into `StorageError`: the only place where that is done for files."""
    try:
        yield
    except (JournalLocked, StorageError):  # OSErrors too, and translated already
        raise
    except OSError as error:
        raise StorageError(partition, blob, error.errno, doing) from error
    except NoThread as error:
        raise StorageError(partition, blob, EAGAIN, doing) from error


class FileStorage:
    """Partitions as directories below a root, blobs as files in them.

    Blocking calls run on threads of the storage's own, never on the event loop and never on its default executor; the
    one call made on the loop is a read that returns rather than waits (`FileBlob.read_at_once`). Directories are made
    with mode 0700 and files with 0600. The threads end when the storage is no longer referenced.

    The way to the root may lead through links, and is taken anew at each call. Where it leads to another directory, or
    none, while a lock is held, calls raise StorageError (ESTALE): the lock is not there.

    Args:
        root: Directory of the partitions; made when something is first opened, with what is missing above it.
        threads: Calls that may be under way at once, at least 1.

    Raises:
        TypeError: `threads` is no integer.
        ValueError: `threads` is less.

    Example:
        >>> import asyncio, tempfile
        >>> from posjournal_async import FileStorage
        >>> async def main(root: str) -> bytes:
        ...     blob, _ = await FileStorage(root).open("notes", b"first")
        ...     await blob.write_at(0, b"hello")
        ...     await blob.sync()
        ...     read = await blob.read_at(0, 5)
        ...     await blob.close()
        ...     return read
        >>> with tempfile.TemporaryDirectory() as root:
        ...     asyncio.run(main(root))
        b'hello'
    """

    def __init__(self, root: str | os.PathLike[str], *, threads: int = 8) -> None:
        self._root = directory.Root(Path(root).absolute())
        self._threads = Threads(threads, "posjournal")

    def __repr__(self) -> str:
        return f"FileStorage({str(self._root.path)!r})"

    @property
    def root(self) -> Path:
        """Directory of the partitions."""
        return self._root.path

    async def open(self, partition: str, name: bytes) -> tuple[FileBlob, int]:
        """Open a blob, creating it (durably) if it is missing; return it with its length in bytes.

        A cancelled call may have created the blob; it leaves no handle open.

        Raises:
            StorageError: The system refused, or something else than a regular file has that name.
        """
        check_partition_name(partition)
        check_blob_name(name)

        opening = _open_blob(self._root, partition, name, executor=self._threads)
        return await claimed_blob(opening, partition, name, self._threads)

    async def remove(self, partition: str, name: bytes | None) -> None:
        """Remove one blob, or with None the whole partition, durably. What is missing already is fine.

        Files that are no blobs stay, and so does the directory of the partition if there is one in it. A cancelled call
        ends when the removal has ended: nothing is removed after it, when somebody else may have the lock.
        """
        if name is not None:
            await self.remove_many(partition, [name])
            return
        check_partition_name(partition)
        with translated(partition, None, "remove"):
            await self._removed(partial(directory.remove_partition, self._root, partition))

    async def remove_many(self, partition: str, names: Sequence[bytes]) -> None:
        """Remove the blobs in the order given; all removals are durable on return, none is promised before.

        A cancelled call ends as that of `remove`.
        """
        check_partition_name(partition)
        for name in names:
            check_blob_name(name)
        with translated(partition, names[0] if len(names) == 1 else None, "remove"):
            await self._removed(partial(directory.remove_blobs, self._root, partition, list(names)))

    async def _removed(self, remove: Callable[[], None]) -> None:
        # In a lane, since an interruption cannot lose what it tells: nothing else ends the waiting.
        lane = Lane(self._threads)

        def remove_in_time() -> None:
            lane.check_open()
            remove()

        await finished(lane.submit(remove_in_time))

    async def scan(self, partition: str) -> list[bytes]:
        """Return the names of the blobs of a partition in no particular order; `[]` when it is missing."""
        check_partition_name(partition)
        with translated(partition, None, "scan"):
            return await _scan_partition(self._root, partition, executor=self._threads)

    async def lock(self, partition: str) -> FileLock:
        """Become the one writer of a partition, creating it if it is missing, by flock(2) on its directory.

        The system lets the lock go when the process dies. A forked child does not inherit it.

        Raises:
            JournalLocked: Somebody has it.
        """
        check_partition_name(partition)

        def own(handle: Handle) -> FileLock:
            return FileLock(handle, partition, Lane(self._threads))

        with translated(partition, None, "lock"):
            try:
                locking = _lock_partition(self._root, partition, executor=self._threads)
                return await claimed(locking, own, Handle.close)
            except BlockingIOError:
                holder = await _lock_holder(self._root.path, partition, executor=self._threads)
                raise JournalLocked(partition, holder) from None


class FileBlob:
    """An open file. Its calls run one after the other, in the order in which they were made, on threads."""

    def __init__(self, handle: Handle, partition: str, name: bytes, lane: Lane) -> None:
        self._handle = handle
        self._partition = partition
        self._name = name
        self._lane = lane
        self._closing: asyncio.Future[None] | None = None
        self._can_read_at_once = _NOWAIT != 0
        self._was_resized = False

    def __del__(self) -> None:
        # Not left to the handle: the thread that opened it may hold it a moment longer. No call is under way here,
        # since a call holds the blob.
        self._handle.close()

    def read_at_once(self, offset: int, length: int) -> bytes | None:
        """Return exactly `length` bytes from `offset` on; None if that would have to wait or the blob ends before.

        The read is preadv2(2) with RWF_NOWAIT: it takes what is in the page cache and never waits for the device.
        """
        if self._closing is not None or not self._can_read_at_once:
            return None
        buffer = bytearray(length)
        try:
            count = os.preadv(self._handle.fd, (buffer,), offset, _NOWAIT)
        except BlockingIOError:
            return None
        except OSError:
            # This file system cannot say whether it would wait (EOPNOTSUPP), or there is a real error,
            # which the read in the thread will then meet and report.
            self._can_read_at_once = False
            return None
        return bytes(buffer) if count == length else None

    async def read_at(self, offset: int, length: int) -> bytes:
        """Return the bytes from `offset` on: `length` of them, fewer only where the blob ends."""
        _check_offset(offset)
        with self._doing("read"):
            read: bytes = await self._lane.submit(partial(self._read, offset, length))
            return read

    async def write_at(self, offset: int, data: Buffer) -> None:
        """Write all of `data` at `offset`; a gap before it reads as zeros. `data` must not change until it is done."""
        _check_offset(offset)
        with self._doing("write"):
            await self._lane.submit(partial(self._write, offset, data))

    async def write_durably_at(self, offset: int, data: Buffer) -> None:
        """Do `write_at`, then `sync`, in one visit to a thread."""
        _check_offset(offset)
        with self._doing("write and sync"):
            await self._lane.submit(partial(self._write_and_sync, offset, data))

    async def resize(self, length: int) -> None:
        """Cut the file to `length` bytes, or extend it with zeros."""
        _check_offset(length)
        with self._doing("resize"):
            await self._lane.submit(partial(self._resize, length))

    async def sync(self) -> None:
        """Return when everything called before is durable: the bytes and the length of the file."""
        with self._doing("sync"):
            await self._lane.submit(self._sync)

    async def close(self) -> None:
        """Release the handle when everything called before is done; makes nothing durable. Closing twice is fine."""
        if self._closing is None:
            self._closing = self._lane.submit(self._handle.close)
        with translated(self._partition, self._name, "close"):
            await asyncio.shield(self._closing)

    @contextmanager
    def _doing(self, what: str) -> Generator[None]:
        if self._closing is not None:
            raise StorageError(self._partition, self._name, EBADF, what)
        with translated(self._partition, self._name, what):
            yield

    # What follows runs in a thread.

    def _read(self, offset: int, length: int) -> bytes:
        parts: list[bytes] = []
        while length > 0:
            part = os.pread(self._handle.fd, length, offset)
            if not part:
                break
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _write(self, offset: int, data: Buffer) -> None:
        self._handle.check_writable()
        self._lane.check_open()
        with memoryview(data) as view, view.cast("B") as rest:
            written = os.pwrite(self._handle.fd, rest, offset)
            while written < len(rest):  # a short write: a signal, or a disk that is about to be full
                count = os.pwrite(self._handle.fd, rest[written:], offset + written)
                if count == 0:
                    raise OSError(EINTR, "nothing written")
                written += count

    def _write_and_sync(self, offset: int, data: Buffer) -> None:
        self._write(offset, data)
        self._sync()

    def _resize(self, length: int) -> None:
        self._handle.check_writable()
        self._lane.check_open()
        self._was_resized = True
        os.ftruncate(self._handle.fd, length)

    def _sync(self) -> None:
        # fdatasync(2) flushes a length only as far as later reads need it: enough for a file that grew by writes.
        # After a truncation nothing but fsync(2) is sure to flush it.
        if self._was_resized or not hasattr(os, "fdatasync"):
            sync_file(self._handle.fd)
            self._was_resized = False
        else:
            os.fdatasync(self._handle.fd)


async def claimed_blob(
    opening: Awaitable[tuple[Handle, int]], partition: str, name: bytes, threads: Threads
) -> tuple[FileBlob, int]:
    """Wait for the file of a blob that a thread opens; return the blob with its length in bytes."""

    def own(opened: tuple[Handle, int]) -> tuple[FileBlob, int]:
        handle, length = opened
        return FileBlob(handle, partition, name, Lane(threads)), length

    with translated(partition, name, "open"):
        return await claimed(opening, own, lambda opened: opened[0].close())


def _check_offset(offset: int) -> None:
    if offset < 0:
        raise ValueError(f"offset or length: expected at least 0, found {offset}")


class FileLock:
    """The lock of a partition's directory, held by an open handle of it."""

    def __init__(self, handle: Handle, partition: str, lane: Lane) -> None:
        self._handle = handle
        self._partition = partition
        self._lane = lane

    def __del__(self) -> None:
        self._handle.close()

    async def release(self) -> None:
        """Let others take it. Releasing twice is fine."""
        with translated(self._partition, None, "unlock"):
            await self._lane.submit(partial(directory.unlock_partition, self._handle))
