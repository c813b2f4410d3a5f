"""The calls on one open file, one after the other, on a thread of the storage."""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

__all__ = ["Lane"]


@dataclass(slots=True, eq=False)
class _Call:
    """A call in a lane.

    Attributes:
        call: What is to be called.
        result: What its caller waits for.
        making: The call as the executor has it; None before its turn.
        is_awaited: Whether the lane will be told when it was made.
    """

    call: Callable[[], Any]
    result: asyncio.Future[Any]
    making: Future[Any] | None = None
    is_awaited: bool = False


class Lane:
    """Runs calls in the order in which they were submitted, one at a time, each on a thread of an executor.

    A call goes on when the task that waits for it is cancelled, and the next one starts only after it: that is what
    keeps a write that nobody waits for any more from landing late, or in a file that was closed. All of the lane's own
    state is touched on the event loop only, so it needs no lock.

    Not `loop.run_in_executor`: cancelling its future would drop a call that has not started, and let the next one
    overtake.
    """

    __slots__ = ("_calls", "_executor", "_loop")

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._loop = asyncio.get_running_loop()
        self._calls: deque[_Call] = deque()

    def submit(self, call: Callable[[], Any]) -> asyncio.Future[Any]:
        """Take the next place in the lane; the future gets what the call returns or raises."""
        result: asyncio.Future[Any] = self._loop.create_future()
        self._calls.append(_Call(call, result))
        self._go_on()
        return result

    def _go_on(self) -> None:
        """Settle the call that was made, and have the next one made.

        What an interruption at any line leaves undone is done by doing all of it again.
        """
        while self._calls:
            first = self._calls[0]
            if first.making is None:
                try:
                    first.making = self._executor.submit(first.call)
                except RuntimeError as error:  # the interpreter is shutting down and its threads are gone
                    first.making = Future()
                    first.making.set_exception(error)
            if not first.making.done():
                if not first.is_awaited:
                    # Twice: a KeyboardInterrupt leaves a callback for good, and would leave the lane at a standstill.
                    first.making.add_done_callback(self._was_made)
                    first.making.add_done_callback(self._was_made)
                    first.is_awaited = True
                return
            if not first.result.done():  # else its waiter was cancelled
                failure = first.making.exception()
                if failure is None:
                    first.result.set_result(first.making.result())
                else:
                    first.result.set_exception(failure)
            self._calls.popleft()

    def _was_made(self, _: Future[Any]) -> None:
        """Tell the loop (in the thread that made the call)."""
        try:
            self._loop.call_soon_threadsafe(self._go_on)
        except RuntimeError:
            # The loop is closed: nobody waits, and what is still in the lane must not run behind the loop's back.
            return
