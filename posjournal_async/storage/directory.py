"""What `FileStorage` does to directories: plain blocking calls, each to be run on a thread.

Every path below the root is opened relative to the handle of the directory above it and never through a symbolic link,
so that nobody who can write to the root can lead the storage out of it.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from contextlib import contextmanager, suppress
from errno import ELOOP, EROFS
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

__all__ = [
    "lock_holder",
    "lock_partition",
    "open_blob",
    "remove_blobs",
    "remove_partition",
    "scan_partition",
    "sync_file",
    "unlock_partition",
]

_DIRECTORY_MODE = 0o700
_FILE_MODE = 0o600
_OPEN_ROOT = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_OPEN_DIRECTORY = _OPEN_ROOT | os.O_NOFOLLOW
# O_NONBLOCK: opening a FIFO that somebody put there returns instead of waiting for its other end.
_OPEN_BLOB_TO_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_OPEN_BLOB = os.O_RDWR | _OPEN_BLOB_TO_READ

_BLOB_FILE = re.compile(r"(?:[0-9a-f]{2}){1,64}")


def sync_file(fd: int) -> None:
    """Make a file durable, its length and the rest of its metadata included.

    On macOS fsync leaves the bytes in the drive's cache; F_FULLFSYNC does not (fcntl(2)). A file system that
    does not know F_FULLFSYNC gets fsync.
    """
    full_sync = getattr(fcntl, "F_FULLFSYNC", None)
    if full_sync is not None:
        try:
            fcntl.fcntl(fd, full_sync)
        except OSError:
            os.fsync(fd)
    else:
        os.fsync(fd)


@contextmanager
def _closing(fd: int) -> Generator[int]:
    """Close the descriptor of a directory.

    It is closed also when close(2) says that it failed, and nothing was written through it: that must not take the
    place of what the block returns, which may be another descriptor, or raises.
    """
    try:
        yield fd
    finally:
        with suppress(OSError):
            os.close(fd)


def _open_root(root: Path) -> int:
    """Open the root, making it and what is missing above it; the way to it may well lead through links."""
    if not root.is_dir():
        missing = [root, *(above for above in root.parents if not above.is_dir())]
        root.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
        for made in missing:
            with _closing(os.open(made.parent, _OPEN_ROOT)) as above:
                sync_file(above)
    return os.open(root, _OPEN_ROOT)


def _open_partition(root: Path, partition: str) -> int:
    """Open a partition's directory, making it durably if it is missing."""
    with _closing(_open_root(root)) as top:
        try:
            return os.open(partition, _OPEN_DIRECTORY, dir_fd=top)
        except FileNotFoundError:
            pass
        with suppress(FileExistsError):  # another open was quicker; its entry is synced here all the same
            os.mkdir(partition, _DIRECTORY_MODE, dir_fd=top)
        sync_file(top)
        return os.open(partition, _OPEN_DIRECTORY, dir_fd=top)


def _find_partition(root: Path, partition: str) -> int | None:
    """Open a partition's directory, or return None if it is missing."""
    try:
        with _closing(os.open(root, _OPEN_ROOT)) as top:
            return os.open(partition, _OPEN_DIRECTORY, dir_fd=top)
    except FileNotFoundError:
        return None


class Handle:
    """An open file descriptor that somebody owns: it is closed once, at the latest when nobody has it any more.

    A thread hands its result to an event loop, which may be gone, or to a task, which may be cancelled; what nobody
    takes is closed. So is the copy that a forked child gets, which nobody there can use.

    Attributes:
        fd: The descriptor; -1 once it is closed.
    """

    __slots__ = ("__weakref__", "_is_read_only", "fd")

    def __init__(self, fd: int, *, is_read_only: bool = False) -> None:
        self.fd = fd
        self._is_read_only = is_read_only
        _handles.add(self)

    def check_writable(self) -> None:
        """Raise what the system would say of a file system that is read-only, where the descriptor is for reading."""
        if self._is_read_only:
            raise OSError(EROFS, os.strerror(EROFS))

    def close(self) -> None:
        """Close the descriptor. Closing twice is fine."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    @contextmanager
    def closed_on_error(self) -> Generator[None]:
        """Close the descriptor at once if the block raises: the error's traceback would keep it open."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def __del__(self) -> None:
        self.close()


_handles: WeakSet[Handle] = WeakSet()


def _close_in_child() -> None:
    # A lock belongs to the open directory, of which a forked child gets a copy: it would keep the lock when the parent
    # dies, and the space of a file that is removed. Closing the copy leaves the parent's lock as it is (flock(2)).
    for handle in list(_handles):
        with suppress(OSError):
            handle.close()


os.register_at_fork(after_in_child=_close_in_child)


def open_blob(root: Path, partition: str, name: bytes) -> tuple[Handle, int]:
    """Open a blob's file and return it with its length in bytes; a file that was missing is made, durably."""
    with _closing(_open_partition(root, partition)) as directory:
        file = name.hex()
        try:
            handle = Handle(os.open(file, _OPEN_BLOB, dir_fd=directory))
        except FileNotFoundError:
            handle = Handle(os.open(file, _OPEN_BLOB | os.O_CREAT, _FILE_MODE, dir_fd=directory))
            with handle.closed_on_error():
                sync_file(directory)
        except OSError as error:
            if error.errno != EROFS:
                raise
            # As ext4 may turn after an error of its device: what is there can still be read.
            handle = Handle(os.open(file, _OPEN_BLOB_TO_READ, dir_fd=directory), is_read_only=True)
        with handle.closed_on_error():
            return handle, _length_of_regular_file(handle.fd)


def _length_of_regular_file(fd: int) -> int:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(ELOOP, "not a regular file")
    return status.st_size


def remove_blobs(root: Path, partition: str, names: Sequence[bytes]) -> None:
    """Remove blobs in the order given, then make all removals durable at once."""
    directory = _find_partition(root, partition)
    if directory is None:
        return
    with _closing(directory):
        for name in names:
            try:
                os.unlink(name.hex(), dir_fd=directory)
            except FileNotFoundError:
                continue
        sync_file(directory)


def remove_partition(root: Path, partition: str) -> None:
    """Remove a partition with all its blobs, durably."""
    remove_blobs(root, partition, scan_partition(root, partition))
    try:
        with _closing(os.open(root, _OPEN_ROOT)) as top:
            os.rmdir(partition, dir_fd=top)
            sync_file(top)
    except FileNotFoundError:
        return


def scan_partition(root: Path, partition: str) -> list[bytes]:
    """Return the names of a partition's blobs; files with names that no blob has are not of this storage.

    The directories are synced first: a process that was killed between making a file and syncing its directory leaves a
    name that can be seen and is not durable, and the reader of this list relies on it.
    """
    directory = _find_partition(root, partition)
    if directory is None:
        return []
    with _closing(directory):
        with _closing(os.open(root, _OPEN_ROOT)) as top:
            sync_file(top)
        sync_file(directory)
        return [
            bytes.fromhex(file)
            for file in os.listdir(directory)  # noqa: PTH208 - a handle, not a path
            if _BLOB_FILE.fullmatch(file)
        ]


def lock_partition(root: Path, partition: str) -> Handle:
    """Lock a partition's directory and return the handle that holds the lock.

    The lock is on the directory itself: there is no lock file that somebody could delete to get in.

    Raises:
        BlockingIOError: Somebody has it.
    """
    while True:
        # The handle first, then the lock: a fork in between, by any thread, finds the handle to close.
        handle = Handle(_open_partition(root, partition))
        with handle.closed_on_error():
            fcntl.flock(handle.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The holder before may have removed the directory between the open and the lock.
            if _is_same_directory(handle.fd, root / partition):
                return handle
        handle.close()


def unlock_partition(handle: Handle) -> None:
    """Let a lock go, and close the handle that held it.

    First for all copies of the handle: a process that is just being started has one until it begins its program, and
    would keep the lock as long (flock(2)).
    """
    try:
        if handle.fd >= 0:
            fcntl.flock(handle.fd, fcntl.LOCK_UN)
    finally:
        handle.close()


def _is_same_directory(fd: int, path: Path) -> bool:
    try:
        there = path.lstat()
    except FileNotFoundError:
        return False
    here = os.fstat(fd)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def lock_holder(root: Path, partition: str) -> int | None:
    """Return the process that holds the lock of a partition where the system tells (proc_locks(5)), else None."""
    try:
        status = (root / partition).stat()
        locks = Path("/proc/locks").read_text(encoding="ascii")
    except OSError:
        return None
    inode = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for line in locks.splitlines():
        fields = line.split()
        if fields[1] == "FLOCK" and fields[5] == inode and int(fields[4]) > 0:
            return int(fields[4])
    return None
