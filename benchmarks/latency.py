"""How long one append takes where sections follow each other: for the task that fills one, and for the others."""

from __future__ import annotations

import asyncio
import os
from bisect import bisect_right
from dataclasses import dataclass
from time import perf_counter, sleep
from typing import TYPE_CHECKING, Any

from benchmarks.workloads.timing import Clock, Outcome
from posjournal_async import BytesCodec, Config, Context, FileStorage, Journal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECTION = 1_000
ITEM = bytes(100)

# Tasks that append side by side, and how long each rests between two appends.
TASKS = 8
REST_SECONDS = 0.002

SYNCS = ("fdatasync", "fsync")


def slow_down(seconds: float, *names: str) -> None:
    """Let system calls of this process take that much longer, in the thread that makes them."""

    def slowed(really: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            sleep(seconds)
            return really(*arguments)

        return call

    for name in names:
        setattr(os, name, slowed(getattr(os, name)))


@dataclass(frozen=True, slots=True)
class Append:
    """One append.

    Attributes:
        position: What it returned.
        start: When it was called.
        seconds: How long it took.
    """

    position: int
    start: float
    seconds: float

    @property
    def fills_section(self) -> bool:
        """Whether it waited, by design, until the section was synced."""
        return self.position % SECTION == SECTION - 1


async def alone(directory: Path, sync_microseconds: int, appends: int) -> Outcome:
    """Append from one task."""
    return await _appended(directory, sync_microseconds, appends, tasks=1, rest=None)


async def beside(directory: Path, sync_microseconds: int, appends: int, write_buffer: int) -> Outcome:
    """Append from several tasks: one waits for the section that it filled, what about the others?"""
    return await _appended(
        directory, sync_microseconds, appends, tasks=TASKS, rest=REST_SECONDS, write_buffer=write_buffer
    )


async def _appended(  # noqa: PLR0913 - what is measured
    directory: Path,
    sync_microseconds: int,
    appends: int,
    *,
    tasks: int,
    rest: float | None,
    write_buffer: int = 2**20,
) -> Outcome:
    if sync_microseconds:
        slow_down(sync_microseconds / 1e6, *SYNCS)
    config = Config(partition="rolled", codec=BytesCodec(), items_per_section=SECTION, write_buffer=write_buffer)
    journal = await Journal.init(Context(FileStorage(directory)), config)
    await journal.append(ITEM)
    await journal.sync()
    made: list[Append] = []

    async def append(count: int) -> None:
        for _ in range(count):
            start = perf_counter()
            position = await journal.append(ITEM)
            made.append(Append(position, start, perf_counter() - start))
            if rest is not None:
                await asyncio.sleep(rest)

    clock = Clock()
    await asyncio.gather(*(append(appends // tasks) for _ in range(tasks)))
    outcome = clock.outcome(len(made), **figures_of(made))
    await journal.close()
    return outcome


def figures_of(made: list[Append]) -> dict[str, float]:
    """Return the latencies: of all appends that fill no section, of those called during a roll, and of the rolls."""
    rolls = sorted((append for append in made if append.fills_section), key=lambda append: append.start)
    others = [append for append in made if not append.fills_section]
    starts = [roll.start for roll in rolls]

    def is_beside(append: Append) -> bool:
        before = bisect_right(starts, append.start)
        return any(append.start < roll.start + roll.seconds for roll in rolls[max(before - 4, 0) : before])

    return {
        **_distribution("append", others),
        **_distribution("beside", [append for append in others if is_beside(append)]),
        **_distribution("roll", rolls),
    }


def _distribution(name: str, made: list[Append]) -> dict[str, float]:
    if not made:
        return {}
    ordered = sorted(append.seconds for append in made)
    return {
        f"{name}_count": len(ordered),
        f"{name}_p50_us": ordered[len(ordered) // 2] * 1e6,
        f"{name}_p99_us": ordered[int(len(ordered) * 0.99)] * 1e6,
        f"{name}_max_us": ordered[-1] * 1e6,
    }
