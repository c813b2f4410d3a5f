"""Files that are there as a whole or not at all."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from posjournal_async.storage.descriptors import sync_file

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["replaced"]

_MODE = 0o666


@contextmanager
def replaced(path: Path) -> Generator[IO[bytes]]:
    """Give a file to write to that takes a name when the block ends without an error, durably; else nothing is left.

    What had that name is there until then. A link is followed: the file that it leads to is replaced.

    Args:
        path: The name; a regular file, or nothing yet.

    Raises:
        OSError: It cannot be written to; or the name is that of something else.
    """
    target = path.resolve()
    if target.exists() and not target.is_file():
        raise FileExistsError(f"not a regular file: '{path}'")
    fd, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    try:
        with open(fd, "wb") as file:  # noqa: PTH123 - a descriptor
            os.fchmod(fd, target.stat().st_mode & 0o777 if target.exists() else _MODE & ~_umask())
            yield file
            file.flush()
            sync_file(fd)
        Path(name).replace(target)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(name).unlink()
        raise
    directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync_file(directory)
    finally:
        os.close(directory)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
