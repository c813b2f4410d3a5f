"""`turns`: how a loop that never has to wait lets others run."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from posjournal_async.turns import let_others_run
from posjournal_async.waiting import resolve

if TYPE_CHECKING:
    from collections.abc import Callable


def by_a_timer(due: asyncio.Future[None]) -> Callable[[], None]:
    """Have a future resolved by a timer that is due already."""
    loop = asyncio.get_running_loop()
    return loop.call_at(loop.time() - 1, due.set_result, None).cancel


def by_a_socket(due: asyncio.Future[None]) -> Callable[[], None]:
    """Have a future resolved by a socket that has something to read already."""
    loop = asyncio.get_running_loop()
    here, there = socket.socketpair()
    loop.add_reader(here, resolve, due, None)
    there.send(b"!")

    def end() -> None:
        loop.remove_reader(here)
        here.close()
        there.close()

    return end


@pytest.mark.parametrize("wake", [by_a_timer, by_a_socket])
async def test_a_task_that_is_due_runs_before_the_caller_goes_on(
    wake: Callable[[asyncio.Future[None]], Callable[[], None]],
) -> None:
    """It is not late by what the caller does next (L2)."""
    due = asyncio.get_running_loop().create_future()
    has_run = False

    async def wait() -> None:
        nonlocal has_run
        await due
        has_run = True

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    end = wake(due)
    try:
        await let_others_run()
        assert has_run
    finally:
        end()
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
