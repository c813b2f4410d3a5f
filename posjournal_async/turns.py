"""How a loop that never has to wait lets others run."""

from __future__ import annotations

import asyncio

__all__ = ["let_others_run"]


async def let_others_run() -> None:
    """Let other tasks run, also those whose timer is due or whose socket has something.

    That takes three turns of the event loop, in each of which the caller comes first: one in which the loop finds out
    what is due and wakes the task, and one in which that task comes behind the caller, who has to step back once more.
    With one turn a task that sleeps would be late by two stretches of the caller's work more.
    """
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
