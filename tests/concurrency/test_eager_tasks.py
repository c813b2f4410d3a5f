"""A loop whose tasks begin at once (`asyncio.eager_task_factory`) changes nothing about a journal."""

from __future__ import annotations

import asyncio
import sys
from random import Random
from typing import TYPE_CHECKING

import pytest

from posjournal_async import BytesCodec, Config, Context, FileStorage, Journal, MemoryStorage
from posjournal_async.testing import CrashStorage, OrderingMonitor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from posjournal_async import Storage

pytestmark = pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks are eager from Python 3.12 on")

IPS = 64
CONFIG = Config(partition="orders", items_per_section=IPS, codec=BytesCodec(), write_buffer=10_000, max_open_blobs=2)


@pytest.fixture(autouse=True)
async def eager() -> AsyncIterator[None]:
    """Let the tasks of the test begin at once."""
    loop = asyncio.get_running_loop()
    loop.set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009 - which 3.11 does not have
    yield
    loop.set_task_factory(None)


@pytest.mark.parametrize("kind", ["memory", "file"])
async def test_a_long_run_is_appended_once_by_one_writer(kind: str, tmp_path: Path) -> None:
    """Also where its first slice fills a section while the writer has just begun (A2, I1)."""
    storage = OrderingMonitor(MemoryStorage() if kind == "memory" else FileStorage(tmp_path))
    items = [b"%d" % number for number in range(5_000)]
    async with await Journal.init(Context(storage), CONFIG) as journal:
        assert await journal.append_many(items) == 4_999
        assert journal.size() == 5_000
        await journal.sync()
    async with await Journal.init(Context(storage), CONFIG) as journal:
        assert journal.recovery.clean
        assert [item async for _, item in journal.replay(0)] == items
        assert await asyncio.gather(*(journal.read(position) for position in range(5_000))) == items


async def service(storage: Storage, chance: Random) -> int:
    """Let tasks do everything at once; return the size that was acknowledged as durable."""
    durable = 0
    async with await Journal.init(Context(storage), CONFIG) as journal:

        async def work() -> None:
            nonlocal durable
            for _ in range(6):
                await journal.append_many([b"x" * chance.randrange(90)] * chance.choice([1, 30, 1_500]))
                size = journal.size()
                await chance.choice([journal.sync_data, journal.sync])()
                durable = max(durable, size)
                await journal.read(chance.randrange(journal.bounds().start, size))

        await asyncio.gather(*(work() for _ in range(4)))
    return durable


@pytest.mark.parametrize("seed", range(5))
async def test_nothing_acknowledged_is_lost(seed: int) -> None:
    """The order of durable steps is what it is with other tasks, and a power cut leaves what was synced (D1)."""
    storage = CrashStorage()
    durable = await service(OrderingMonitor(storage), Random(seed))
    async with await Journal.init(Context(storage.power_cut(Random(seed))), CONFIG) as journal:
        assert journal.size() >= durable
        assert len([item async for _, item in journal.replay(0)]) == journal.size()
