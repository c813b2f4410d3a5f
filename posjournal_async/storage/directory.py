"""What `FileStorage` does to directories: plain blocking calls, each to be run on a thread.

Every path below the root is opened relative to the handle of the directory above it and never through a symbolic link,
so that nobody who can write to the root can lead the storage out of it.
"""

from __future__ import annotations

import fcntl
import os
import re
from contextlib import contextmanager, suppress
from errno import EACCES, EEXIST, EINVAL, ENOTEMPTY, EROFS, ESTALE
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from posjournal_async.storage.descriptors import (
    OPEN_BLOB,
    OPEN_BLOB_TO_READ,
    OPEN_DIRECTORY,
    OPEN_ROOT,
    Handle,
    closing,
    length_of_regular_file,
    open_descriptor,
    sync_file,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from weakref import ReferenceType

__all__ = [
    "Root",
    "blobs_in",
    "lock_holder",
    "lock_partition",
    "open_blob",
    "remove_blobs",
    "remove_partition",
    "scan_partition",
    "unlock_partition",
]

_DIRECTORY_MODE = 0o700

_BLOB_FILE = re.compile(r"(?:[0-9a-f]{2}){1,64}")


def _make(path: Path) -> None:
    """Make a directory with what is missing above it; each is durable by name before anything is made in it.

    So is the one that was there already: who made it may have been killed before that. The last one is not yet.
    """
    missing = [path]
    while not missing[-1].parent.is_dir():
        missing.append(missing[-1].parent)
    for directory in reversed(missing):
        # Opened first: where it may not be read, nothing is made whose name cannot be made durable.
        with closing(open_descriptor(directory.parent, OPEN_ROOT)) as above:
            _sync_above(above)
            with suppress(FileExistsError):  # another open was quicker
                os.mkdir(directory.name, _DIRECTORY_MODE, dir_fd=above)


def _sync_above(directory: int) -> None:
    """Make the name of a directory durable, whoever made it.

    Not where the directory above may not be read (EACCES), or where its file system knows no syncing (EINVAL, as of a
    squashfs below a volume): then this one was made for the storage, by somebody who has to see to it.
    """
    try:
        with closing(open_descriptor("..", OPEN_ROOT, dir_fd=directory)) as above:
            sync_file(above)
    except OSError as error:
        if error.errno not in {EACCES, EINVAL}:
            raise


class Root:
    """Directory of the partitions of a storage: one and the same while a lock in it is held, and durable by name.

    It is looked up by its path at each call, which may lead through links, and to another directory when somebody turns
    one of them or renames what is there. What follows a lock would then be done where that lock is not.

    Attributes:
        path: Where it is looked up.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # What is durable by name, and where the locks are, each as a device and an inode.
        self._named: tuple[int, int] | None = None
        self._locks: WeakKeyDictionary[Handle, tuple[int, int]] = WeakKeyDictionary()
        # Where all of the locks are, if that is known: there may be thousands, and each call asks.
        self._agreed: tuple[int, int] | None = None

    @contextmanager
    def opened(self, *, make: bool = False, name: bool = True) -> Generator[int]:
        """Open it, with `make` also when it is missing, and with `name` make its name durable.

        Raises:
            FileNotFoundError: It is missing.
            OSError: It is not the directory in which a lock is held (ESTALE).
        """
        try:
            fd = open_descriptor(self.path, OPEN_ROOT)
        except FileNotFoundError:
            fd = self._look_again(make=make)
        with closing(fd) as top:
            identity = _identity_of(top)
            self._check(identity)
            if name:
                self._name(top, identity)
            yield top

    def _look_again(self, *, make: bool) -> int:
        locks = self._locks.keyrefs()  # before the look: one that is taken behind it may be in what was missing
        try:
            return open_descriptor(self.path, OPEN_ROOT)
        except FileNotFoundError:
            self._check_all(None, locks)
            if not make:
                raise
        self._named = None  # it may get the inode of the one that is gone
        _make(self.path)
        return open_descriptor(self.path, OPEN_ROOT)

    def hold(self, lock: Handle, top: int) -> None:
        """Stay with a directory, whose name is durable then, until a lock in it is let go.

        Raises:
            OSError: There is a lock in another (ESTALE).
        """
        identity = _identity_of(top)
        if identity != self._agreed:
            self._agreed = None
        self._locks[lock] = identity  # before the look: of two at once, one sees the other
        self._check(identity)
        self._agreed = identity
        # For each lock: while there was none, another directory may have got the inode of the one that was named.
        self._named = None
        self._name(top, identity)

    def _name(self, top: int, identity: tuple[int, int]) -> None:
        if identity != self._named:
            _sync_above(top)
            self._named = identity

    def _check(self, identity: tuple[int, int]) -> None:
        if identity != self._agreed:
            self._check_all(identity, self._locks.keyrefs())

    def _check_all(self, identity: tuple[int, int] | None, locks: Sequence[ReferenceType[Handle]]) -> None:
        for reference in locks:  # a list, whatever other threads do to the dictionary
            lock = reference()
            if lock is not None and lock.fd >= 0 and self._locks[lock] != identity:
                raise OSError(ESTALE, os.strerror(ESTALE))


def _identity_of(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _open_partition(top: int, partition: str) -> int:
    """Open a partition's directory, making it durably if it is missing."""
    try:
        return open_descriptor(partition, OPEN_DIRECTORY, dir_fd=top)
    except FileNotFoundError:
        pass
    with suppress(FileExistsError):  # another open was quicker; its entry is synced here all the same
        os.mkdir(partition, _DIRECTORY_MODE, dir_fd=top)
    sync_file(top)
    return open_descriptor(partition, OPEN_DIRECTORY, dir_fd=top)


@contextmanager
def _found(root: Root, partition: str) -> Generator[tuple[int, int]]:
    """Open the root and a partition's directory.

    Raises:
        FileNotFoundError: One of them is missing.
    """
    with root.opened() as top, closing(open_descriptor(partition, OPEN_DIRECTORY, dir_fd=top)) as directory:
        yield top, directory


def open_blob(root: Root, partition: str, name: bytes) -> tuple[Handle, int]:
    """Open a blob's file and return it with its length in bytes; a file that was missing is made, durably."""
    with root.opened(make=True) as top, closing(_open_partition(top, partition)) as directory:
        file = name.hex()
        try:
            handle = Handle(open_descriptor(file, OPEN_BLOB, dir_fd=directory))
        except FileNotFoundError:
            handle = Handle(open_descriptor(file, OPEN_BLOB | os.O_CREAT, dir_fd=directory))
            with handle.closed_on_error():
                sync_file(directory)
        except OSError as error:
            if error.errno != EROFS:
                raise
            # As ext4 may turn after an error of its device: what is there can still be read.
            handle = Handle(open_descriptor(file, OPEN_BLOB_TO_READ, dir_fd=directory), is_read_only=True)
        with handle.closed_on_error():
            return handle, length_of_regular_file(handle.fd)


def remove_blobs(root: Root, partition: str, names: Sequence[bytes]) -> None:
    """Remove blobs in the order given, then make all removals durable at once."""
    try:
        with _found(root, partition) as (_, directory):
            _unlink(directory, names)
    except FileNotFoundError:
        return


def _unlink(directory: int, names: Sequence[bytes]) -> None:
    for name in names:
        with suppress(FileNotFoundError):
            os.unlink(name.hex(), dir_fd=directory)
    sync_file(directory)


def remove_partition(root: Root, partition: str) -> None:
    """Remove all blobs of a partition, and its directory unless something else is in it, durably."""
    try:
        with _found(root, partition) as (top, directory):
            _unlink(directory, blobs_in(directory))
            try:
                os.rmdir(partition, dir_fd=top)
            except OSError as error:
                # What is not of this storage stays, and the directory for it; the blobs are gone for good.
                if error.errno not in {ENOTEMPTY, EEXIST}:
                    raise
            else:
                sync_file(top)
    except FileNotFoundError:
        return


def scan_partition(root: Root, partition: str) -> list[bytes]:
    """Return the names of a partition's blobs; files with names that no blob has are not of this storage.

    The directories are synced first: a process that was killed between making a file and syncing its directory leaves a
    name that can be seen and is not durable, and the reader of this list relies on it.
    """
    try:
        with _found(root, partition) as (top, directory):
            sync_file(top)
            sync_file(directory)
            return blobs_in(directory)
    except FileNotFoundError:
        return []


def blobs_in(directory: int) -> list[bytes]:
    """Return the names of the blobs in an open directory of a partition."""
    files = os.listdir(directory)
    return [bytes.fromhex(file) for file in files if _BLOB_FILE.fullmatch(file)]


def lock_partition(root: Root, partition: str) -> Handle:
    """Lock a partition's directory and return the handle that holds the lock.

    The lock is on the directory itself: there is no lock file that somebody could delete to get in.

    Raises:
        BlockingIOError: Somebody has it.
    """
    while True:
        # Whoever is refused has waited for no device: the name is made durable by `hold`.
        with root.opened(make=True, name=False) as top:
            # The handle first, then the lock: a fork in between, by any thread, finds the handle to close.
            handle = Handle(_open_partition(top, partition))
            with handle.closed_on_error():
                fcntl.flock(handle.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # The holder before may have removed the directory between the open and the lock.
                if _is_same_directory(handle.fd, partition, top):
                    root.hold(handle, top)
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


def _is_same_directory(fd: int, partition: str, top: int) -> bool:
    try:
        there = os.stat(partition, dir_fd=top, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == _identity_of(fd)


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
