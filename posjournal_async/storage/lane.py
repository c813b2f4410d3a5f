"""The calls on one open file, one after the other, on a thread of the storage."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

__all__ = ["Lane"]


class Lane:
    """Runs calls in the order in which they were submitted, one at a time, each on a thread of an executor.

    A call goes on when the task that waits for it is cancelled, and the next one starts only after it: that is what
    keeps a write that nobody waits for any more from landing late, or in a file that was closed. All of the lane's own
    state is touched on the event loop only, so it needs no lock.

    Not `loop.run_in_executor`: cancelling its future would drop a call that has not started, and let the next one
    overtake.
    """

    __slots__ = ("_calls", "_executor", "_is_busy", "_loop")

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._loop = asyncio.get_running_loop()
        self._calls: deque[tuple[asyncio.Future[Any], Callable[[], Any]]] = deque()
        self._is_busy = False

    def submit(self, call: Callable[[], Any]) -> asyncio.Future[Any]:
        """Take the next place in the lane; the future gets what the call returns or raises."""
        result: asyncio.Future[Any] = self._loop.create_future()
        self._calls.append((result, call))
        if not self._is_busy:
            self._start_next()
        return result

    def _start_next(self) -> None:
        result, call = self._calls.popleft()
        self._is_busy = True
        try:
            self._executor.submit(self._run, result, call)
        except RuntimeError as error:  # the interpreter is shutting down and its threads are gone
            self._finish(result, None, error)

    def _run(self, result: asyncio.Future[Any], call: Callable[[], Any]) -> None:
        """Make the call (in the thread) and hand the outcome to the loop."""
        value, error = None, None
        try:
            value = call()
        except BaseException as raised:  # noqa: BLE001 - whatever it is, it belongs to the one who waits
            error = raised
        try:
            self._loop.call_soon_threadsafe(self._finish, result, value, error)
        except RuntimeError:
            # The loop is closed: nobody waits, and what is still in the lane must not run behind the loop's back.
            return

    def _finish(self, result: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
        self._is_busy = False
        if self._calls:
            self._start_next()
        if result.done():  # its waiter was cancelled
            return
        if error is None:
            result.set_result(value)
        else:
            result.set_exception(error)
