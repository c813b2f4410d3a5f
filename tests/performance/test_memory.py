"""What a journal holds while much goes through it; tests/test_replay.py shows the same of a replay."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from typing import TYPE_CHECKING

from posjournal_async import BytesCodec, Config, Context, FileStorage, Journal

if TYPE_CHECKING:
    from pathlib import Path

ITEM_BYTES = 1_000
WRITE_BUFFER = 300_000


async def flooded(root: Path, count: int) -> tuple[int, int]:
    """Append items from 32 tasks as fast as they are taken; return the most memory held, and what stays at the end."""
    config = Config(partition="orders", codec=BytesCodec(), write_buffer=WRITE_BUFFER, items_per_section=1_000)
    async with await Journal.init(Context(FileStorage(root)), config) as journal:

        async def append(share: int) -> None:
            for _ in range(share):
                await journal.append(bytes(ITEM_BYTES))  # an object of its own each time

        await append(1)
        await journal.sync()
        gc.collect()
        tracemalloc.start()
        try:
            await asyncio.gather(*(append(count // 32) for _ in range(32)))
            await journal.sync()
            gc.collect()
            kept, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    return peak, kept


async def test_a_flood_holds_its_write_buffer_and_no_more(tmp_path: Path) -> None:
    """What waits, and what is on its way, each as items, as records and once more while it is put together.

    However long it goes on: what stays is the index of the sections that are open, eight bytes for an item (F7).
    """
    for count in (6_400, 12_800):
        peak, kept = await flooded(tmp_path / str(count), count)
        assert peak < 5 * WRITE_BUFFER < count * ITEM_BYTES / 4, count
        assert kept < 10 * count + 40_000, count
