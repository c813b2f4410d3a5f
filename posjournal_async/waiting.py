"""Futures whose waiters may be gone: cancelling stops the waiting, and what was waited for happens all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

__all__ = ["refuse", "resolve", "retrieve"]


def resolve(future: asyncio.Future[Any], value: object) -> None:
    """Give the waiter what it waits for, if it still does."""
    if not future.done():
        future.set_result(value)


def refuse(future: asyncio.Future[Any], error: BaseException) -> None:
    """Give the waiter an error, if it still waits.

    A waiter that is cancelled in this very moment never looks at it. Whoever calls this has latched the failure, so
    that is no loss, and nothing to complain about when the future is collected.
    """
    if not future.done():
        future.set_exception(error)
        future.exception()


def retrieve(task: asyncio.Task[Any]) -> None:
    """Look at the failure of a task, as its callback: all who waited may be gone. Those who still wait get it too."""
    if not task.cancelled():
        task.exception()
