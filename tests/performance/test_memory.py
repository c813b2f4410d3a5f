"""What a journal holds while much goes through it; tests/test_replay.py shows the same of a replay."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from posjournal_async import BytesCodec, Config, Context, Corruption, FileStorage, Journal, JournalFailed, StorageError
from posjournal_async.testing import FaultyStorage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
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


def turn_bit(blob: Path, offset: int, bit: int) -> None:
    """Turn one bit of a file around."""
    with blob.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))


async def most_held(call: Callable[[], Awaitable[object]]) -> int:
    """Return the most memory that a call holds, also one that finds damage."""
    gc.collect()
    tracemalloc.start()
    try:
        with suppress(Corruption):
            await call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("is_sealed", [False, True])
async def test_damage_that_claims_to_be_long_is_not_believed(tmp_path: Path, *, is_sealed: bool) -> None:
    """A length word, or an entry of an index, that says 32 MiB: no more is read into memory than what is there (F7)."""
    count = 40_000
    config = Config(partition="orders", codec=BytesCodec(), items_per_section=count if is_sealed else 2 * count)
    journal = await Journal.init(Context(FileStorage(tmp_path)), config)
    for _ in range(count // 1_000):
        await journal.append_many([bytes(1_000)] * 1_000)
    if is_sealed:
        await journal.append(b"the next section")
    await journal.close()
    record = 8 + 1_000
    turn_bit(tmp_path / "orders_data" / bytes(8).hex(), 64 + 10 * record + 3, 1)  # 2**25 of the length of item 10

    async def replay(journal: Journal[bytes]) -> None:
        async for _ in journal.replay(0, 1_000):
            pass

    if not is_sealed:
        assert await most_held(lambda: Journal.init(Context(FileStorage(tmp_path)), config)) < 4 * 2**20
        return
    turn_bit(tmp_path / "orders_offsets" / bytes(8).hex(), 64 + 8 * 21 + 3, 1)  # and of where item 20 ends
    async with await Journal.init(Context(FileStorage(tmp_path)), config) as journal:
        assert await most_held(lambda: replay(journal)) < 4 * 2**20
        assert await most_held(lambda: journal.read(10)) < 4 * 2**20
        assert await most_held(lambda: journal.read(20)) < 4 * 2**20


async def test_opening_after_an_interrupted_rewind_holds_no_more_for_more_sections(tmp_path: Path) -> None:
    """Of what the rewind was to remove, where the records are is known of two sections at a time (F7)."""
    ips = 2_000
    config = Config(partition="orders", codec=BytesCodec(), items_per_section=ips)
    held: list[int] = []
    for sections in (4, 40):
        storage = FileStorage(tmp_path / str(sections))
        faulty = FaultyStorage(storage, 1, once=False, only=lambda call: call.what == "remove_many")
        journal = await Journal.init(Context(faulty), config)
        for _ in range(sections):
            await journal.append_many([b""] * ips)
        await journal.sync()
        with pytest.raises(StorageError):
            await journal.rewind(10)
        with suppress(JournalFailed):
            await journal.close()
        opened: list[Journal[bytes]] = []

        async def reopen(storage: FileStorage = storage, opened: list[Journal[bytes]] = opened) -> None:
            opened.append(await Journal.init(Context(storage), config))

        held.append(await most_held(reopen))
        async with opened[0] as journal:
            assert journal.size() == sections * ips
    assert held[1] - held[0] < 36 * ips  # 36 sections more: an eighth of what all their records would take
