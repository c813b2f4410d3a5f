"""W1 and W2: appending, with one sync at the end, which belongs to the time that is taken."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING

from benchmarks.items import feed_of, items_of
from benchmarks.workloads.timing import Clock

if TYPE_CHECKING:
    from benchmarks.adapters.adapter import Adapter
    from benchmarks.cases import Case
    from benchmarks.workloads.timing import Outcome

# Whoever buffers without end would take all memory.
MOST_BYTES_ONE_BY_ONE = 256 * 2**20
MOST_BYTES_BY_MANY = 400 * 2**20

# Items between two looks at the clock; a divisor of how many there are.
RUN = 50


async def append(adapter: Adapter, case: Case, budget: float) -> Outcome:
    """Append one item after the other."""
    items = items_of(case.kind, case.item_bytes)
    runs = cycle([items[start : start + RUN] for start in range(0, len(items), RUN)])
    feed, take = feed_of(adapter), adapter.append
    most = MOST_BYTES_ONE_BY_ONE // case.item_bytes
    count = 0
    clock = Clock(budget)
    while count < most and not clock.is_over:
        for item in feed(next(runs)):
            await take(item)
        count += RUN
    return await _synced(adapter, clock, count)


async def append_many(adapter: Adapter, case: Case, budget: float) -> Outcome:
    """Append a thousand items at a time."""
    items = items_of(case.kind, case.item_bytes)
    feed, take = feed_of(adapter), adapter.append_many
    most = MOST_BYTES_BY_MANY // case.item_bytes
    count = 0
    clock = Clock(budget)
    while count < most and not clock.is_over:
        await take(list(feed(items)))
        count += len(items)
    return await _synced(adapter, clock, count)


async def _synced(adapter: Adapter, clock: Clock, count: int) -> Outcome:
    before = clock.milliseconds
    await adapter.sync()
    return clock.outcome(count, last_sync_ms=clock.milliseconds - before)
