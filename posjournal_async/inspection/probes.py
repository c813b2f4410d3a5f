"""What trying tells about the place of a journal: how long an fsync takes, whether locks lock and reads return at once.

`reads_at_once` changes nothing; the others work on a file or a directory of their own, of which nothing is left.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from typing import TYPE_CHECKING

from posjournal_async.storage.descriptors import OPEN_BLOB_TO_READ, open_quietly

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SYNCED_BYTES", "measure_syncs", "reads_at_once", "try_lock"]

# What is written before each fsync.
SYNCED_BYTES = 4096


def reads_at_once(path: Path) -> bool | None:
    """Say whether a read that returns rather than waits works on a file; None where the file cannot tell.

    It is preadv2(2) with RWF_NOWAIT, for one byte.
    """
    nowait = getattr(os, "RWF_NOWAIT", 0)
    if not nowait:
        return False
    try:
        fd = open_quietly(path, OPEN_BLOB_TO_READ)
    except OSError:
        return None  # pruned since it was listed, or not for this user to read
    try:
        if not os.fstat(fd).st_size:
            return None
        os.preadv(fd, (bytearray(1),), 0, nowait)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def measure_syncs(directory: Path, seconds: float, most: int) -> list[float]:
    """Append 4 KiB and fdatasync it, again and again, to a file without a name; return how long each took, in seconds.

    Args:
        directory: Where; nothing is left in it.
        seconds: How long to go on; at least one is done.
        most: How many at the most, at least 1.

    Raises:
        OSError: The directory cannot be written to.
    """
    sync = getattr(os, "fdatasync", os.fsync)
    piece = os.urandom(SYNCED_BYTES)
    taken: list[float] = []
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        fd = file.fileno()
        end = time.perf_counter() + seconds
        before = 0.0
        while len(taken) < most and (before < end or not taken):
            before = time.perf_counter()
            os.write(fd, piece)
            sync(fd)
            taken.append(time.perf_counter() - before)
    return taken


def try_lock(directory: Path) -> bool:
    """Say whether flock(2) keeps a second one out of a directory of its own below `directory`, which is removed again.

    Raises:
        OSError: The directory cannot be written to, or does not know flock.
    """
    with tempfile.TemporaryDirectory(dir=directory, prefix=".posjournal-doctor-") as place:
        first = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        second = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(first)
            os.close(second)
    return False
