"""File descriptors: how they are opened, who closes them, and when what was written through them is durable."""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import contextmanager, suppress
from errno import ELOOP, EROFS
from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

__all__ = [
    "OPEN_BLOB",
    "OPEN_BLOB_TO_READ",
    "OPEN_DIRECTORY",
    "OPEN_ROOT",
    "Handle",
    "closing",
    "length_of_regular_file",
    "open_descriptor",
    "open_quietly",
    "sync_file",
]

_FILE_MODE = 0o600
OPEN_ROOT = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
OPEN_DIRECTORY = OPEN_ROOT | os.O_NOFOLLOW
# O_NONBLOCK: opening a FIFO that somebody put there returns instead of waiting for its other end.
OPEN_BLOB_TO_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
OPEN_BLOB = os.O_RDWR | OPEN_BLOB_TO_READ

# Linux leaves the time of the last access as it is, for the owner of a file only (open(2)).
_NO_ACCESS_TIME: int = getattr(os, "O_NOATIME", 0)

_LAST_STANDARD = 2  # stdin, stdout, stderr


def open_descriptor(path: str | Path, flags: int, *, dir_fd: int | None = None) -> int:
    """Open, as a descriptor that is none of 0, 1 and 2.

    A process that has closed its standard descriptors gets these first, and whatever still prints in it would write
    into the journal.
    """
    fd = os.open(path, flags, _FILE_MODE, dir_fd=dir_fd)
    if fd > _LAST_STANDARD:
        return fd
    with closing(fd):
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _LAST_STANDARD + 1)


def open_quietly(path: str | Path, flags: int, *, dir_fd: int | None = None) -> int:
    """Open without leaving a trace in the time of the last access, where the system lets this user."""
    try:
        return open_descriptor(path, flags | _NO_ACCESS_TIME, dir_fd=dir_fd)
    except PermissionError:  # not the owner, or no right to read: the second try tells
        return open_descriptor(path, flags, dir_fd=dir_fd)


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
def closing(fd: int) -> Generator[int]:
    """Close a descriptor behind the block, through which nothing was written.

    It is closed also when close(2) says that it failed. That must not take the place of what the block returns, which
    may be another descriptor, or raises.
    """
    try:
        yield fd
    finally:
        with suppress(OSError):
            os.close(fd)


def length_of_regular_file(fd: int) -> int:
    """Return the length in bytes of what is open, which is refused if it is no regular file (ELOOP)."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(ELOOP, "not a regular file")
    return status.st_size


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
