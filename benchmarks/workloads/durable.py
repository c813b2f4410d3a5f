"""W3 and W4: appending, each item durable before the next, from one task and from many."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING

from benchmarks.group_commit import GroupCommit
from benchmarks.items import feed_of, items_of
from benchmarks.workloads.timing import Clock, percentiles

if TYPE_CHECKING:
    from benchmarks.adapters.adapter import Adapter
    from benchmarks.cases import Case
    from benchmarks.workloads.timing import Outcome


async def append_durably(adapter: Adapter, case: Case, budget: float) -> Outcome:
    """Append and sync from one task."""
    items = list(feed_of(adapter)(items_of(case.kind, case.item_bytes)))
    take, took = adapter.append_durably, list[float]()
    await take(items[0])  # the first one makes files
    clock = Clock(budget)
    while not clock.is_over:
        before = perf_counter()
        await take(items[len(took) % len(items)])
        took.append(perf_counter() - before)
    return clock.outcome(len(took), **percentiles(took))


async def append_durably_together(adapter: Adapter, case: Case, budget: float) -> Outcome:
    """Append and sync from many tasks, with the help of a group commit if the case says so."""
    items = list(feed_of(adapter)(items_of(case.kind, case.item_bytes)))
    helper = GroupCommit(adapter.commit) if case.helper else None
    take = helper.append_durably if helper else adapter.append_durably_beside_others
    took: list[float] = []

    async def one(number: int) -> None:
        item = items[number % len(items)]
        while not clock.is_over:
            before = perf_counter()
            await take(item)
            took.append(perf_counter() - before)

    await take(items[0])  # the first one makes files
    clock = Clock(budget)
    await asyncio.gather(*(one(number) for number in range(case.tasks)))
    return clock.outcome(len(took), **percentiles(took))
