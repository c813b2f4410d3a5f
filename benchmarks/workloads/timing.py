"""Time, CPU time, memory and space: what is noted while something is done."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, process_time
from typing import Self

from benchmarks import slow_disk


@dataclass(slots=True)
class Outcome:
    """What came of a measurement.

    Attributes:
        items: Items that it went through.
        seconds: Time that it took.
        cpu_seconds: CPU time of all threads of the process.
        figures: What else was noted, by name; the name ends in the unit.
    """

    items: int
    seconds: float
    cpu_seconds: float
    figures: dict[str, float] = field(default_factory=dict)


class Clock:
    """Time since it was made, on the wall and on all cores together; and syncs, where the disk is the modelled one."""

    def __init__(self, budget: float = 0.0) -> None:
        self._syncs = slow_disk.syncs()
        self._cpu = process_time()
        self._start = perf_counter()
        self._end = self._start + budget

    @property
    def is_over(self) -> bool:
        """Whether the budget is spent."""
        return perf_counter() >= self._end

    @property
    def milliseconds(self) -> float:
        """Time since it was made."""
        return (perf_counter() - self._start) * 1e3

    def outcome(self, items: int, **figures: float) -> Outcome:
        """Stop, and return what was done meanwhile."""
        outcome = Outcome(items, perf_counter() - self._start, process_time() - self._cpu, figures)
        syncs = slow_disk.syncs()
        if self._syncs is not None and syncs is not None:
            figures["syncs_per_item"] = (syncs - self._syncs) / items
        return outcome


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Return the median and p99 of how long one call took."""
    ordered = sorted(seconds)
    return {"p50_us": ordered[len(ordered) // 2] * 1e6, "p99_us": ordered[int(len(ordered) * 0.99)] * 1e6}


class Ticker:
    """A task that wants to wake up each millisecond, and notes how late it was."""

    def __init__(self) -> None:
        self._late: list[float] = []

    async def __aenter__(self) -> Self:
        """Start."""
        self._start = self._last = perf_counter()
        self._task = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        self._note()
        self._span = perf_counter() - self._start
        self._task.cancel()
        await asyncio.wait([self._task])

    def _note(self) -> None:
        now = perf_counter()
        self._late.append(max(0.0, now - self._last - 1e-3))
        self._last = now

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(1e-3)
            self._note()

    def figures(self) -> dict[str, float]:
        """Return how late it was, and how many of the expected ticks there were."""
        ordered = sorted(self._late)
        return {
            "late_p50_ms": ordered[len(ordered) // 2] * 1e3,
            "late_p99_ms": ordered[int(len(ordered) * 0.99)] * 1e3,
            "late_max_ms": ordered[-1] * 1e3,
            "ticks_percent": 100 * len(ordered) / (self._span / 1e-3),
        }


_STATUS = Path("/proc/self/status")


def memory_mib(field_name: str) -> float | None:
    """Return a field of this process's status in MiB, such as VmRSS or VmHWM; None where there is no such file."""
    if not _STATUS.exists():
        return None
    for line in _STATUS.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field_name:
            return int(value.split()[0]) / 1024
    return None


def space_mib(directory: Path) -> float:
    """Return what the files below a directory take on the disk."""
    blocks = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            blocks += (Path(folder) / name).lstat().st_blocks
    return blocks * 512 / 2**20
