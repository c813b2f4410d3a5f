"""The modelled disk: the same time for each sync of each adapter, on a machine whose disk others use too."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")


class NoSlowDisk(Exception):
    """Why there is none here, as a sentence."""


def build(directory: Path) -> Path:
    """Compile it into a directory, and return the library.

    Raises:
        NoSlowDisk: There is no C compiler, it failed, or this is not Linux.
    """
    if not sys.platform.startswith("linux"):
        raise NoSlowDisk(f"the modelled disk is for Linux, and this is {sys.platform}")
    compiler = shutil.which("cc")
    if compiler is None:
        raise NoSlowDisk("the modelled disk needs a C compiler, and there is no `cc`")
    library = directory / "slow_disk.so"
    command = [compiler, "-O2", "-Wall", "-shared", "-fPIC", "-o", str(library), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoSlowDisk(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return library


def environment(library: Path, microseconds: int) -> dict[str, str]:
    """Return the environment of a process whose syncs take a time."""
    return {**os.environ, "LD_PRELOAD": str(library), "SLOW_DISK_MICROSECONDS": str(microseconds)}


def syncs() -> int | None:
    """Return how many syncs this process made; None on a real disk."""
    if "SLOW_DISK_MICROSECONDS" not in os.environ:
        return None
    counter = ctypes.CDLL(None).slow_disk_syncs
    counter.restype = ctypes.c_long
    return int(counter())
