"""Futures whose waiters may be gone: cancelling stops the waiting, and what was waited for happens all the same."""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

__all__ = [
    "Waiters",
    "both",
    "claimed",
    "finished",
    "refuse",
    "release_beside",
    "resolve",
    "retrieve",
    "task_of",
    "twin_of",
]

T = TypeVar("T")
U = TypeVar("U")


def task_of(work: Coroutine[Any, Any, T], name: str | None = None) -> asyncio.Task[T]:
    """Return a task that begins when its maker has it on record, in a later turn of the event loop.

    Not by the loop's factory of tasks: `asyncio.eager_task_factory` would begin it at once, and whoever it calls would
    find that there is none.
    """
    return asyncio.Task(work, loop=asyncio.get_running_loop(), name=name)


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


class Waiters:
    """Those who wait until a size is reached, in ascending order.

    Attributes:
        wanted: The largest size that was asked for. It stays when all who wait for it were cancelled: what was started
            is finished.
        waiting: Sizes, and the futures of those who wait for them.
        new_future: Makes such a future, on the running event loop.
    """

    def __init__(self) -> None:
        self.wanted = 0
        self.waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self.new_future: Callable[[], asyncio.Future[None]] = asyncio.get_running_loop().create_future

    def wait(self, size: int) -> asyncio.Future[None]:
        """Return what to await until a size is reached."""
        future = self.new_future()
        # Ascending, as `release` lets them go: an append that filled a section asks when it gets its turn again, and
        # must not wait behind somebody who came meanwhile and wants more.
        place = len(self.waiting)
        while place and self.waiting[place - 1][0] > size:
            place -= 1
        self.waiting.insert(place, (size, future))
        return future

    def release(self, size: int) -> int:
        """Let those go who wait for no more than a size; return how many still waited."""
        waiting = self.waiting
        count = 0
        while waiting and waiting[0][0] <= size:
            future = waiting[0][1]
            if not future.done():
                future.set_result(None)
                count += 1
            waiting.popleft()  # after it was answered: nobody is forgotten by an interruption
        return count

    def let_all_go(self) -> None:
        """Let everybody go, whatever they wait for."""
        for _, future in self.waiting:
            resolve(future, None)
        self.waiting.clear()

    def refuse_all(self, error: Callable[[], BaseException]) -> None:
        """Give everybody an error of their own."""
        for _, future in self.waiting:
            refuse(future, error())
        self.waiting.clear()


def retrieve(work: asyncio.Future[Any]) -> None:
    """Look at how work has failed, as its callback: all who waited may be gone. Those who still wait get it too."""
    if not work.cancelled():
        work.exception()


def twin_of(error: Exception) -> Exception:
    """Return a copy of an error for one of many who wait, with the error as its cause; the error if it has none.

    One that all of them raise would collect their tracebacks and their notes.
    """
    try:
        twin = copy.copy(error)
    except Exception:  # noqa: BLE001 - of a class that makes no copies
        return error
    notes = getattr(error, "__notes__", None)
    if notes is not None:
        twin.__notes__ = [*notes]  # else the two would share the list
    twin.__cause__ = error
    return twin


async def both(first: Callable[[], Awaitable[T]], second: Callable[[], Awaitable[U]]) -> tuple[T, U]:
    """Do two things at the same time, and return what comes of them.

    Both are done when this ends, also when one of them fails; its failure is raised, as itself and not in a group.
    """
    found: list[Any] = [None, None]
    failures: list[BaseException] = []

    async def take(place: int, step: Callable[[], Awaitable[object]]) -> None:
        try:
            found[place] = await step()
        except BaseException as error:  # noqa: BLE001 - raised below
            failures.append(error)

    async with anyio.create_task_group() as group:
        group.start_soon(take, 0, first)
        group.start_soon(take, 1, second)
    if failures:
        raise failures[0]
    return found[0], found[1]


async def release_beside(error: BaseException, release: Callable[[], Awaitable[object]], doing: str) -> None:
    """Release something beside an error, which is the one to tell: it gets a note if releasing fails too."""
    try:
        await release()
    except Exception as failure:  # noqa: BLE001 - it is in the note
        if failure is not error:  # closing again raises what the first close raised
            error.add_note(f"{doing} failed too: {failure}")


async def finished(work: asyncio.Future[T]) -> T:
    """Return what comes of work, and not before it is done: a caller that is cancelled is told so only then.

    For work that must not go on behind the back of whoever comes next.
    """
    cancellation = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as error:
            cancellation = error
    try:
        if cancellation is not None:
            work.exception()
            raise cancellation
        return work.result()
    finally:
        del cancellation  # a cycle with its traceback


async def claimed(opening: Awaitable[T], own: Callable[[T], U], give_up: Callable[[T], object]) -> U:
    """Wait for what a thread opens, and return what owns it; what nobody gets is given up as soon as it is there.

    What nobody refers to would be closed too when it is collected. But the futures between thread and loop are a cycle,
    which may take long, and a lock that nobody has must be free before that.
    """
    task = None
    try:
        task = asyncio.ensure_future(opening)
        return own(await asyncio.shield(task))
    except BaseException:
        if task is not None and task.done():
            _give_up(give_up, task)
        elif task is not None:
            task.add_done_callback(partial(_give_up, give_up))
        raise


def _give_up(give_up: Callable[[T], object], task: asyncio.Future[T]) -> None:
    if not task.cancelled() and task.exception() is None:
        give_up(task.result())
