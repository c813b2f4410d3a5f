"""Whether an adapter gives back what was put in: a benchmark of something that loses items says nothing."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

from benchmarks.group_commit import GroupCommit
from benchmarks.items import decoder_of, feed_of, items_of

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.adapters.adapter import Adapter
    from benchmarks.items import Kind
    from benchmarks.ways import Way

LENGTHS = (1, 100, 127, 128, 1_000, 20_000)
TASKS = 10


class NotWhatWasPutIn(Exception):
    """An adapter gave something else back."""


async def round_trip(way: Way, directory: Path, kind: Kind = "bytes") -> None:
    """Append in every way, and read in every way, before and after opening again.

    Raises:
        NotWhatWasPutIn: What came back differs.
        ImportError: The library is not installed.
    """
    items = _items(kind)
    adapter = way.make(directory, kind)
    put_in = list(items)
    await adapter.open()
    fed = list(feed_of(adapter)(items))
    for item in fed[:20]:
        await adapter.append(item)
    await adapter.sync()
    await adapter.append_many(fed[20:])
    await adapter.sync()
    await _compare(adapter, put_in)
    await adapter.append_durably(fed[0])
    await adapter.close()
    put_in.append(items[0])
    adapter = way.make(directory, kind)
    await adapter.open()
    await _compare(adapter, put_in)
    # Tasks may get their positions in any order; nothing is lost, and nothing comes twice.
    await asyncio.gather(*(adapter.append_durably_beside_others(item) for item in fed[:TASKS]))
    put_in += items[:TASKS]
    if not way.groups_commits:
        helper = GroupCommit(adapter.commit)
        await asyncio.gather(*(helper.append_durably(item) for item in fed[TASKS : 2 * TASKS]))
        put_in += items[TASKS : 2 * TASKS]
    found = await _replayed(adapter)
    if sorted(map(repr, found)) != sorted(map(repr, put_in)):
        raise NotWhatWasPutIn(f"{way.name}: tasks put in {len(put_in)} items, and others came back ({len(found)})")
    if "W9" not in way.lacks:
        await _prune(way, adapter)
    await adapter.close()


def _items(kind: Kind) -> list[Any]:
    if kind == "dicts":
        return items_of(kind, 0)[:240]
    chance = random.Random(240)
    return [chance.randbytes(LENGTHS[number % len(LENGTHS)]) for number in range(240)]


async def _replayed(adapter: Adapter) -> list[Any]:
    decode = decoder_of(adapter) or (lambda item: item)
    found: list[Any] = []
    async for position, item in adapter.replay():
        if position != len(found):
            raise NotWhatWasPutIn(f"replay: position {position} where {len(found)} was due")
        found.append(decode(item))
    return found


async def _compare(adapter: Adapter, expected: list[Any]) -> None:
    if await _replayed(adapter) != expected:
        raise NotWhatWasPutIn("replay: other items")
    decode = decoder_of(adapter) or (lambda item: item)
    for position in [*range(0, len(expected), 7), len(expected) - 1]:
        if decode(await adapter.read(position)) != expected[position]:
            raise NotWhatWasPutIn(f"read: position {position} gave another item")
    if adapter.encodes:
        if await adapter.read_many(list(range(len(expected)))) != expected:
            raise NotWhatWasPutIn("read_many: other items")
        batches = [item async for _, batch in adapter.replay_batches() for item in batch]
        if batches != expected:
            raise NotWhatWasPutIn("replay_batches: other items")


async def _prune(way: Way, adapter: Adapter) -> None:
    """Prune, and see that what is to be kept is kept. Sections may keep more than was asked for."""
    kept = await adapter.read(100)
    await adapter.prune(50)
    await adapter.reclaim()
    if await adapter.read(100) != kept:
        raise NotWhatWasPutIn(f"{way.name}: pruning to 50 changed the item at 100")
