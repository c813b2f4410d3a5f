"""Where it was measured: what has to stand beside each number."""

from __future__ import annotations

import os
import platform
import sqlite3
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.results import Run
from benchmarks.ways import WAYS


def describe(directory: Path, command: str) -> Run:
    """Return what is known about this machine, the file system of a directory, and the libraries."""
    return Run(
        command=command,
        started=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        machine=f"{_cores()} cores of {_processor()}, {_memory_gib():.0f} GiB",
        kernel=f"{platform.system()} {platform.release()}",
        file_system=file_system(directory),
        load=os.getloadavg()[0],
        versions=_versions(),
    )


def _versions() -> dict[str, str]:
    found = {"SQLite of Python": sqlite3.sqlite_version}
    for package in sorted({package for way in WAYS.values() for package in way.packages}):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def file_system(directory: Path) -> str:
    """Return the type of the file system that a directory is on, "unknown" where the kernel does not tell."""
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return "unknown"
    found, longest = "unknown", -1
    for line in mounts.read_text().splitlines():
        _, point, kind, *_ = line.split()
        # A later mount at the same place lies over the earlier one.
        if directory.resolve().is_relative_to(point) and len(point) >= longest:
            found, longest = kind, len(point)
    return found


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
