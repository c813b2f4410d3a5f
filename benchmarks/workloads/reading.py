"""W5, W6 and W7: reading what is there, in the page cache and in whatever caches the libraries have."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

from benchmarks.check import NotWhatWasPutIn
from benchmarks.items import COUNT, decoder_of, items_of
from benchmarks.workloads.timing import Clock, memory_mib

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.adapters.adapter import Adapter
    from benchmarks.cases import Case
    from benchmarks.workloads.timing import Outcome

POSITIONS = 16_384
TOGETHER = 256

# Items between two looks at the clock.
RUN = 64


def _positions(case: Case) -> list[int]:
    chance = random.Random(7)
    return [chance.randrange(case.preloaded) for _ in range(POSITIONS)]


async def _warm_up(adapter: Adapter, case: Case, positions: list[int]) -> None:
    """Read all positions once, and compare some of the items with what was put in."""
    items, decode = items_of(case.kind, case.item_bytes), decoder_of(adapter)
    for number, position in enumerate(positions):
        item = await adapter.read(position)
        if number < TOGETHER and (decode(item) if decode else item) != items[position % COUNT]:
            raise NotWhatWasPutIn(f"read: position {position} gave another item")


async def read(adapter: Adapter, case: Case, budget: float) -> Outcome:
    """Read one item after the other."""
    positions = _positions(case)
    await _warm_up(adapter, case, positions)
    get, decode = adapter.read, decoder_of(adapter)
    runs = [positions[start : start + RUN] for start in range(0, POSITIONS, RUN)]
    count = 0
    clock = Clock(budget)
    while not clock.is_over:
        run = runs[count // RUN % len(runs)]
        if decode is None:
            for position in run:
                await get(position)
        else:
            for position in run:
                decode(await get(position))
        count += RUN
    return clock.outcome(count)


async def read_concurrently(adapter: Adapter, case: Case, budget: float) -> Outcome:
    """Read 256 items at the same time, and then the next."""
    positions = _positions(case)
    await _warm_up(adapter, case, positions)
    get = adapter.read
    count = 0
    clock = Clock(budget)
    while not clock.is_over:
        start = count % POSITIONS
        await asyncio.gather(*[get(position) for position in positions[start : start + TOGETHER]])
        count += TOGETHER
    return clock.outcome(count)


async def read_many(adapter: Adapter, case: Case, budget: float) -> Outcome:
    """Read 256 items by one call, and then the next."""
    positions = _positions(case)
    await _warm_up(adapter, case, positions)
    groups = [sorted(set(positions[start : start + TOGETHER])) for start in range(0, POSITIONS, TOGETHER)]
    get = adapter.read_many
    count = calls = 0
    clock = Clock(budget)
    while not clock.is_over:
        count += len(await get(groups[calls % len(groups)]))
        calls += 1
    return clock.outcome(count)


class _Memory:
    """The most memory that the process had, above what it had when this was made."""

    def __init__(self) -> None:
        self._before = memory_mib("VmRSS")

    def figures(self) -> dict[str, float]:
        peak = memory_mib("VmHWM")
        return {} if self._before is None or peak is None else {"memory_mib": peak - self._before}


async def replay(adapter: Adapter, case: Case, _: float) -> Outcome:
    """Go through all items."""
    decode = decoder_of(adapter)
    memory, clock = _Memory(), Clock()
    count, item = await (_passed(adapter) if decode is None else _decoded(adapter, decode))
    outcome = clock.outcome(count, **memory.figures())
    _check_last(case, count, item)
    return outcome


async def _passed(adapter: Adapter) -> tuple[int, Any]:
    position, item = -1, None
    async for position, item in adapter.replay():  # noqa: B007 - the last ones are wanted
        pass
    return position + 1, item


async def _decoded(adapter: Adapter, decode: Callable[[bytes], Any]) -> tuple[int, Any]:
    position, item = -1, None
    async for position, data in adapter.replay():  # noqa: B007 - the last one is wanted
        item = decode(data)
    return position + 1, item


async def replay_batches(adapter: Adapter, case: Case, _: float) -> Outcome:
    """Go through all items, list by list."""
    memory, clock = _Memory(), Clock()
    count, item = 0, None
    async for first, batch in adapter.replay_batches():
        for item in batch:  # noqa: B007 - the last one is wanted
            pass
        count = first + len(batch)
    outcome = clock.outcome(count, **memory.figures())
    _check_last(case, count, item)
    return outcome


def _check_last(case: Case, count: int, item: Any) -> None:
    if count != case.preloaded or item != items_of(case.kind, case.item_bytes)[(count - 1) % COUNT]:
        raise NotWhatWasPutIn(f"replay: {count} items where there are {case.preloaded}, or another item at the end")
