"""The calls on one open file, one after the other, on a thread of the storage."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from dataclasses import dataclass, field
from errno import ECANCELED
from threading import get_ident
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from posjournal_async.storage.threads import Threads

__all__ = ["Lane"]


@dataclass(slots=True, eq=False)
class _Call:
    """A call in a lane.

    Attributes:
        call: What is to be called.
        result: What its caller waits for.
        tell: What tells the lane, from any thread, that the call was made.
        is_handed: Whether the threads were told of it.
        makers: The thread that makes it, under the one key there is; empty before its turn.
        is_begun: Whether that thread has begun.
        is_made: Whether that thread is done with it.
        is_sound: Whether it returned.
        value: What it returned.
        failure: What it raised.
    """

    call: Callable[[], Any]
    result: asyncio.Future[Any]
    tell: Callable[[], None]
    is_handed: bool = False
    makers: dict[str, int] = field(default_factory=dict[str, int])
    is_begun: bool = False
    is_made: bool = False
    is_sound: bool = False
    value: Any = None
    failure: BaseException | None = None

    def make(self) -> None:
        """Make the call, and tell the lane (in a thread).

        An interruption may have had it handed over twice, or has its thread do all of this again. It is made once all
        the same, by the thread that was first, and has failed unless it is known to have returned (a thread meets no
        other interruption than a MemoryError): a sync that failed must not be tried again.
        """
        me = get_ident()
        if self.makers.setdefault("first", me) != me:
            return
        if not self.is_begun:
            self.is_begun = True
            try:
                self.value = self.call()
                self.is_sound = True
            except BaseException as error:  # noqa: BLE001 - whoever waits gets it
                self.failure = error
        self.is_made = True
        # Twice: a KeyboardInterrupt in what the loop calls would leave the lane at a standstill.
        self.tell()
        self.tell()
        del self  # the traceback of a failure keeps this frame: a cycle, which would keep the file open

    def settle(self) -> None:
        """Give its caller what came of it, unless it was cancelled."""
        if not self.result.done():
            if self.is_sound:
                self.result.set_result(self.value)
            else:
                self.result.set_exception(self.failure or MemoryError("in the thread"))


class Lane:
    """Runs calls in the order in which they were submitted, one at a time, each on one of the storage's threads.

    A call goes on when the task that waits for it is cancelled, and the next one starts only after it: that is what
    keeps a write that nobody waits for any more from landing late, or in a file that was closed. All of the lane's own
    state is touched on the event loop only, so it needs no lock.

    Not `loop.run_in_executor`: cancelling its future would drop a call that has not started, and let the next one
    overtake.
    """

    __slots__ = ("_calls", "_loop", "_threads")

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._loop = asyncio.get_running_loop()
        self._calls: deque[_Call] = deque()

    def check_open(self) -> None:
        """Raise if the event loop was closed while a call waited for a thread (in the thread).

        Nobody waits for it any more, the lock may be gone, and the file somebody else's.
        """
        if self._loop.is_closed():
            raise OSError(ECANCELED, os.strerror(ECANCELED))

    def submit(self, call: Callable[[], Any]) -> asyncio.Future[Any]:
        """Take the next place in the lane; the future gets what the call returns or raises."""
        result: asyncio.Future[Any] = self._loop.create_future()
        self._calls.append(_Call(call, result, self._tell))
        self._go_on()
        return result

    def _go_on(self) -> None:
        """Settle the call that was made, and have the next one made.

        What an interruption at any line leaves undone is done by doing all of it again.
        """
        while self._calls:
            first = self._calls[0]
            if not first.is_handed:
                try:
                    self._threads.hand(first.make)
                except RuntimeError as error:  # the interpreter is shutting down
                    first.failure = error
                    first.is_made = True
                first.is_handed = True
            if not first.is_made:
                return
            first.settle()
            self._calls.popleft()

    def _tell(self) -> None:
        """Tell the loop that a call was made (in the thread that made it)."""
        try:
            self._loop.call_soon_threadsafe(self._go_on)
        except RuntimeError:
            # The loop is closed: nobody waits, and what is still in the lane must not run behind the loop's back.
            return
