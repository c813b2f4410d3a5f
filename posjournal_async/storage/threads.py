"""The threads on which a storage makes its blocking calls."""

from __future__ import annotations

import atexit
import os
import threading
from collections import deque
from concurrent.futures import Executor, Future
from functools import partial
from operator import index
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet, finalize

from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["NoThread", "Threads"]

T = TypeVar("T")


class NoThread(RuntimeError):
    """The system starts no thread, and there is none yet that could do the job a little later."""


class Threads(Executor):
    """Up to so many threads, started when they are needed and kept, that do jobs in the order of their handing over.

    Not a `ThreadPoolExecutor`: each durable append waits for one job, and the locks of its futures, which its thread
    still takes while the event loop would go on, are half of what the way to a thread and back costs. So there is
    `hand` beside `submit`, for a job that tells by itself what came of it.

    The threads end when this is collected. When the interpreter exits, what was handed over is done first. A forked
    child has none of them: it starts its own, and what was handed over before is the parent's to do.

    Args:
        most: Threads at most, at least 1.
        name: What their names begin with.

    Raises:
        TypeError: `most` is no integer.
        ValueError: None is allowed.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = index(most)
        if self._most < 1:
            raise ValueError(f"threads: expected at least 1, found {most}")
        self._name = name
        self._crew = _Crew()
        _crews.add(self._crew)
        finalize(self, self._crew.end).atexit = False

    def hand(self, job: Callable[[], object]) -> None:
        """Have a job done as soon as a thread is free.

        A job does not raise. A MemoryError between two lines has its thread do it again, and interrupted here it may
        have been handed over or not: a job is one that knows what of it was done.

        Raises:
            NoThread: There is no thread and none can be started.
            RuntimeError: The interpreter is shutting down.
        """
        crew = self._crew
        if crew.is_over:
            raise RuntimeError("the threads have ended")
        # First the thread, then the job: a job never lies where nobody comes.
        try:
            crew.idle.pop()
        except IndexError:
            if len(crew.threads) < self._most:
                self._start()
        crew.jobs.put(job)

    @override
    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Have a function called as soon as a thread is free; the future gets what it returns or raises."""
        future: Future[T] = Future()
        try:
            self.hand(partial(_fulfil, future, partial(fn, *args, **kwargs)))
            return future  # noqa: TRY300 - an interruption here counts too
        except BaseException:
            del future  # or the traceback keeps what the call opens, which nobody gets
            raise

    @override
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take nothing more; with `wait` return when what was handed over is done. Nothing of it is cancelled."""
        self._crew.end()
        if wait:
            self._crew.join()

    def _start(self) -> None:
        crew = self._crew
        with crew.starting:
            if len(crew.threads) >= self._most:
                return  # another event loop was quicker
            # A daemon, since the interpreter would wait for it before it calls what ends it.
            thread = threading.Thread(target=crew.work, name=f"{self._name}_{len(crew.threads)}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                if not crew.threads:
                    raise NoThread(str(error)) from error
                return  # one of those that there are does it, a little later
            crew.threads.append(thread)
            if crew.is_over:  # since it was asked: who ended the others did not know of this one, and may wait for it
                crew.jobs.put(None)
                raise RuntimeError("the threads have ended")


class _Crew:
    """What the threads share. They do not know the `Threads`, which is therefore collected while they wait for a job.

    Attributes:
        jobs: What is to be done; None is the end of the thread that takes it.
        idle: An entry for each thread that waits for a job and was not promised one.
        threads: The threads.
        starting: Held while one is started.
        is_over: Whether no job is taken any more.
    """

    def __init__(self) -> None:
        self.is_over = False
        self.begin()

    def begin(self) -> None:
        """Have no threads and nothing to do."""
        self.jobs: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self.idle: deque[None] = deque()
        self.threads: list[threading.Thread] = []
        self.starting = threading.RLock()

    def work(self) -> None:
        """Do one job after the other (in a thread)."""
        job: Callable[[], object] | None = None
        while True:
            try:
                if job is None:
                    job = self.jobs.get()
                    if job is None:
                        return
                job()
                job = None  # and with it whatever it refers to, before the next is waited for
                self.idle.append(None)
            except BaseException:  # noqa: BLE001, S112 - between two lines; whatever was missed is done again
                continue

    def end(self) -> None:
        """Have the threads end when what was handed over is done; wait for none."""
        self.is_over = True
        for _ in self.threads:
            self.jobs.put(None)

    def join(self) -> None:
        """Wait until the threads have ended."""
        for thread in self.threads:
            thread.join()


def _fulfil(future: Future[T], call: Callable[[], T]) -> None:
    """Make a call and give its future what came of it."""
    if future.running():  # begun before, and interrupted
        future.set_exception(MemoryError("in the thread"))
    elif not future.done() and future.set_running_or_notify_cancel():
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - whoever waits gets it
            future.set_exception(error)
    del future  # the traceback of a failure keeps this frame: a cycle, which keeps what the call opened


_crews: WeakSet[_Crew] = WeakSet()

# In a child, the jobs of the parent: let go, they would end the tasks that wait for them, each with its `finally`.
_left_behind: list[SimpleQueue[Callable[[], object] | None]] = []


def _end_all() -> None:
    crews = list(_crews)
    for crew in crews:
        crew.end()
    for crew in crews:
        crew.join()


def _begin_anew_in_child() -> None:
    # A fork copies what is said of the threads, not the threads: a job would wait for one that never comes. The queue
    # is another too, without the jobs of the parent, and without a lock that one of the threads may have held.
    for crew in list(_crews):
        _left_behind.append(crew.jobs)
        crew.begin()


atexit.register(_end_all)
os.register_at_fork(after_in_child=_begin_anew_in_child)
