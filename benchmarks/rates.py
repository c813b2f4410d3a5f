"""What this machine and this disk do: rates of the main operations on a journal of 100-byte items.

    python benchmarks/rates.py [DIRECTORY]

The directory must be on the file system in question; the journal that is made there is removed again. The numbers of
one run are good for comparing them with each other only: a shared machine, and above all its disk, changes from minute
to minute.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from posjournal_async import BytesCodec, Config, Context, FileStorage, Journal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ITEM = bytes(range(100))


@dataclass(frozen=True, slots=True)
class Workload:
    """One thing to measure.

    Attributes:
        name: What it does.
        count: Items it does it to.
        run: How.
    """

    name: str
    count: int
    run: Callable[[Journal[bytes], int], Awaitable[None]]


async def append(journal: Journal[bytes], count: int) -> None:
    """Append items one by one, then sync once."""
    for _ in range(count):
        await journal.append(ITEM)
    await journal.sync()


async def append_many(journal: Journal[bytes], count: int) -> None:
    """Append a thousand items at a time, then sync once."""
    items = [ITEM] * 1_000
    for _ in range(count // 1_000):
        await journal.append_many(items)
    await journal.sync()


async def append_durably(journal: Journal[bytes], count: int) -> None:
    """Append and sync each item."""
    for _ in range(count):
        await journal.append(ITEM)
        await journal.sync_data()


def durably_from(tasks: int) -> Callable[[Journal[bytes], int], Awaitable[None]]:
    """Return a workload in which many tasks append and sync each item."""

    async def run(journal: Journal[bytes], count: int) -> None:
        await asyncio.gather(*(append_durably(journal, count // tasks) for _ in range(tasks)))

    return run


async def read(journal: Journal[bytes], count: int) -> None:
    """Read items at random positions."""
    size = journal.size()
    for _ in range(count):
        await journal.read(random.randrange(size))


async def replay(journal: Journal[bytes], count: int) -> None:
    """Stream items."""
    async for position, _ in journal.replay(0):
        if position + 1 == count:
            return


WORKLOADS = (
    Workload("append, one sync at the end", 300_000, append),
    Workload("append_many of 1,000", 300_000, append_many),
    Workload("append + sync_data, 1 task", 1_000, append_durably),
    Workload("append + sync_data, 64 tasks", 25_600, durably_from(64)),
    Workload("append + sync_data, 512 tasks", 51_200, durably_from(512)),
    Workload("read, random", 100_000, read),
    Workload("replay", 600_000, replay),
)


def fsync_microseconds(directory: str) -> float:
    """Return what a write of 100 bytes and an fdatasync take, in microseconds: no durable append can be quicker."""
    count = 200
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        start = time.perf_counter()
        for _ in range(count):
            file.write(ITEM)
            os.fdatasync(file.fileno())
        return (time.perf_counter() - start) / count * 1e6


async def main(directory: str) -> None:
    """Measure everything once, and print a line for each."""
    print(f"{'write + fdatasync, nothing else':34} {fsync_microseconds(directory):12,.1f} us")
    config = Config(partition="rates", codec=BytesCodec())
    journal = await Journal.init(Context(FileStorage(directory)), config)
    for workload in WORKLOADS:
        start, cpu = time.perf_counter(), time.process_time()
        await workload.run(journal, workload.count)
        took, used = time.perf_counter() - start, time.process_time() - cpu
        rate, each = workload.count / took, used / workload.count * 1e6
        print(f"{workload.name:34} {rate:12,.0f} items/s {each:10.2f} us of CPU each")
    await journal.close()
    start = time.perf_counter()
    journal = await Journal.init(Context(FileStorage(directory)), config)
    print(f"{'open':34} {(time.perf_counter() - start) * 1e3:12,.1f} ms")
    await journal.destroy()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else ".") as scratch:
        asyncio.run(main(scratch))
