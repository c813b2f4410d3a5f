"""Nothing at all: how late a ticker is on this machine by itself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from benchmarks.workloads.timing import Clock

if TYPE_CHECKING:
    from benchmarks.adapters.adapter import Adapter
    from benchmarks.cases import Case
    from benchmarks.workloads.timing import Outcome


async def do_nothing(_: Adapter, __: Case, budget: float) -> Outcome:
    """Let the time pass."""
    clock = Clock()
    await asyncio.sleep(budget)
    return clock.outcome(0)
