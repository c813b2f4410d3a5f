"""W8 and W9: opening what is there, and dropping what is no longer wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.check import NotWhatWasPutIn
from benchmarks.items import COUNT, feed_of, items_of
from benchmarks.workloads.timing import Clock, space_mib

if TYPE_CHECKING:
    from benchmarks.adapters.adapter import Adapter
    from benchmarks.cases import Case
    from benchmarks.workloads.timing import Outcome


async def preload(adapter: Adapter, case: Case) -> Outcome:
    """Put in the items that a case begins with."""
    clock = Clock()
    items = items_of(case.kind, case.item_bytes)
    feed = feed_of(adapter)
    rest = case.preloaded
    while rest:
        batch = list(feed(items[:rest]))
        await adapter.append_many(batch)
        rest -= len(batch)
    await adapter.sync()
    return clock.outcome(case.preloaded)


async def open_and_read_last(adapter: Adapter, case: Case) -> Outcome:
    """Open, and read the last item."""
    clock = Clock()
    await adapter.open()
    opened = clock.milliseconds
    item = await adapter.read(case.preloaded - 1)
    outcome = clock.outcome(1, open_ms=opened, open_and_read_ms=clock.milliseconds)
    if item != items_of(case.kind, case.item_bytes)[(case.preloaded - 1) % COUNT]:
        raise NotWhatWasPutIn("open: the last item is another one")
    await adapter.close()
    return outcome


async def prune(adapter: Adapter, case: Case, _: float) -> Outcome:
    """Drop the first half, and then give its space back where that is another step."""
    await preload(adapter, case)
    await adapter.close()
    await adapter.open()
    before = space_mib(adapter.directory)
    clock = Clock()
    await adapter.prune(case.preloaded // 2)
    outcome = clock.outcome(case.preloaded // 2, prune_ms=clock.milliseconds)
    pruned = space_mib(adapter.directory)
    reclaiming = Clock()
    await adapter.reclaim()
    outcome.figures |= {
        "before_mib": before,
        "pruned_mib": pruned,
        "returned_percent": 100 * (before - pruned) / before,
        "reclaim_ms": reclaiming.milliseconds,
        "reclaimed_mib": space_mib(adapter.directory),
    }
    return outcome
