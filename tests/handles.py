"""What a process has open, as `/proc` tells."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

__all__ = ["handles_below"]


def handles_below(root: Path) -> list[str]:
    """Return the files and directories below a path that this process has open."""
    handles = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the handle of the listing itself
            handles.append(str(link.readlink()))
    return [handle for handle in handles if handle.startswith(str(root))]
