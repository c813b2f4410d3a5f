"""An event loop that runs tasks in an order taken from a seed, in virtual time: a race that was found is found again.

The order of ready callbacks is all that differs from one run of an asyncio program to the next, once threads, devices
and clocks are out of it. `SeededLoop` draws that order from its seed, so a thousand seeds are a thousand schedules, and
each of them can be run again. asyncio promises that callbacks run in the order of their `call_soon`; code that works
only because of that is found too.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import sys
from contextvars import copy_context
from functools import partial
from itertools import count
from random import Random
from threading import get_ident
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, TypeVarTuple, cast
from weakref import WeakSet

from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
    from contextvars import Context

__all__ = ["Deadlock", "SeededLoop", "run_interleaved"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

if TYPE_CHECKING:
    # All methods are there: those that are refused are set at the end of this file.
    _Interface = asyncio.SelectorEventLoop
    _Handler = Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object]
else:
    _Interface = asyncio.AbstractEventLoop

# Virtual seconds that a callback takes: time passes for a loop that waits for it without sleeping, too.
_STEP_SECONDS = 1e-6


def run_interleaved(main: Coroutine[Any, Any, T], seed: int) -> T:
    """Run a coroutine to its end as `asyncio.run` does, in the order that the seed gives; return what it returns.

    What it raises has a note with the seed.

    Example:
        A race that the usual order of tasks hides, and that each seed which finds it finds again:

        >>> import asyncio
        >>> from posjournal_async.testing import run_interleaved
        >>> async def main() -> str:
        ...     settings: dict[str, str] = {}
        ...     async def load() -> None:
        ...         settings["url"] = "db.example"
        ...     async def connect() -> str:
        ...         return settings["url"]  # without having waited for load
        ...     _, url = await asyncio.gather(load(), connect())
        ...     return url
        >>> def fails(seed: int) -> bool:
        ...     try:
        ...         return run_interleaved(main(), seed) != "db.example"
        ...     except KeyError:
        ...         return True
        >>> asyncio.run(main())
        'db.example'
        >>> found = [seed for seed in range(20) if fails(seed)]
        >>> 0 < len(found) < 20 and all(fails(seed) for seed in found)
        True

    Raises:
        Deadlock: Nothing can go on any more, and `main` has not returned.
    """
    try:
        with asyncio.Runner(loop_factory=partial(SeededLoop, seed)) as runner:
            return runner.run(main)
    except BaseException as error:
        error.add_note(f"seed {seed}: run_interleaved(..., {seed}) does the same again")
        raise


class Deadlock(RuntimeError):
    """Every task waits for another: no callback is ready, and no timer is set."""


class SeededLoop(_Interface):
    """An event loop that picks the next callback by chance, and never waits.

    Any callback that is ready may be the next one. `time` starts at 0 seconds, passes by a microsecond with each
    callback, and jumps to the next timer when nothing is ready: an hour of sleep takes no time. There is no input and
    output and there are no other threads: what needs them raises `RuntimeError`. When nothing is ready and no timer is
    set, running raises `Deadlock`, which tells where each task waits.

    For `asyncio.Runner(loop_factory=...)`, as in `run_interleaved`. What iterates over a set of tasks, or depends on
    when garbage is collected, does not follow the seed.

    Args:
        seed: What the order is drawn from: the same seed gives the same order.
    """

    def __init__(self, seed: int) -> None:
        self._chance = Random(seed)
        self._time = 0.0
        self._ready: list[_Call] = []
        self._timers: list[tuple[float, int, _Call]] = []
        self._numbers = count()
        self._thread: int | None = None
        self._is_stopping = False
        self._is_closed = False
        self._is_debugging = False
        self._on_exception: _Handler | None = None
        self._streams: WeakSet[AsyncGenerator[Any, Any]] = WeakSet()

    # Running.

    @override
    def run_forever(self) -> None:
        self._check_open()
        if self.is_running():
            raise RuntimeError("seeded loop: it is running already")
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=self._streams.add, finalizer=self._finalize)
        asyncio._set_running_loop(self)  # noqa: SLF001 - what asyncio exports for event loops to call
        self._thread = get_ident()
        try:
            while not self._is_stopping:
                self._next().run()
        finally:
            self._thread = None
            self._is_stopping = False
            asyncio._set_running_loop(None)  # noqa: SLF001
            sys.set_asyncgen_hooks(*hooks)

    @override
    def run_until_complete(self, future: Generator[Any, None, T] | Awaitable[T]) -> T:
        self._check_open()
        task = asyncio.ensure_future(cast("Awaitable[T]", future), loop=self)

        def stop(done: asyncio.Future[T]) -> None:
            if done.cancelled() or not isinstance(done.exception(), SystemExit | KeyboardInterrupt):
                self.stop()  # else these have stopped it already, and this would stop the next run

        task.add_done_callback(stop)
        try:
            self.run_forever()
        finally:
            task.remove_done_callback(stop)
        if not task.done():
            raise RuntimeError("seeded loop: it was stopped before the future was done")
        return task.result()

    def _next(self) -> _Call:
        """Take the callback that is next, letting time pass until there is one."""
        while True:
            while self._timers and self._timers[0][0] <= self._time:
                self._ready.append(heapq.heappop(self._timers)[2])
            if self._ready:
                chosen = self._chance.randrange(len(self._ready))
                self._ready[chosen], self._ready[-1] = self._ready[-1], self._ready[chosen]
                call = self._ready.pop()
                if not call.cancelled():
                    self._time += _STEP_SECONDS
                    return call
            elif self._timers:
                when, _, call = heapq.heappop(self._timers)
                if not call.cancelled():
                    self._time = when
                    self._ready.append(call)
            else:
                places = sorted(f"{task.get_name()}: {_place_of(task)}" for task in asyncio.all_tasks(self))
                raise Deadlock(
                    "\n  ".join(["nothing is ready, no timer is set, and no other thread can wake it", *places])
                )

    @override
    def stop(self) -> None:
        self._is_stopping = True

    @override
    def is_running(self) -> bool:
        return self._thread is not None

    @override
    def is_closed(self) -> bool:
        return self._is_closed

    @override
    def close(self) -> None:
        if self.is_running():
            raise RuntimeError("seeded loop: expected one that does not run any more")
        self._is_closed = True
        self._ready.clear()
        self._timers.clear()

    def _check_open(self) -> None:
        if self._is_closed:
            raise RuntimeError("Event loop is closed")  # asyncio's own words

    # Callbacks and timers.

    @override
    def time(self) -> float:
        return self._time

    @override
    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        self._check_open()
        call = _Call(self, self._time, partial(callback, *args), context)
        self._ready.append(call)
        return call

    @override
    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        if self._thread not in {None, get_ident()}:
            raise RuntimeError("seeded loop: expected a call on its own thread, found another, which no seed repeats")
        return self.call_soon(callback, *args, context=context)

    @override
    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        self._check_open()
        call = _Call(self, when, partial(callback, *args), context)
        heapq.heappush(self._timers, (when, next(self._numbers), call))
        return call

    @override
    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._time + delay, callback, *args, context=context)

    @override
    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    @override
    def create_task(self, coro: Coroutine[Any, Any, T] | Generator[Any, None, T], **options: Any) -> asyncio.Task[T]:
        self._check_open()
        return asyncio.Task(cast("Coroutine[Any, Any, T]", coro), loop=self, **options)

    @override
    def get_task_factory(self) -> None:
        return None

    # Errors that nobody waits for.

    @override
    def get_exception_handler(self) -> _Handler | None:
        return self._on_exception

    @override
    def set_exception_handler(self, handler: _Handler | None) -> None:
        self._on_exception = handler

    @override
    def default_exception_handler(self, context: dict[str, Any]) -> None:
        lines = [str(context.get("message")), *(f"{key}: {value!r}" for key, value in context.items())]
        logging.getLogger("asyncio").error("\n".join(lines), exc_info=context.get("exception"))

    @override
    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if self._on_exception is None:
            self.default_exception_handler(context)
        else:
            self._on_exception(self, context)

    @override
    def get_debug(self) -> bool:
        return self._is_debugging

    @override
    def set_debug(self, enabled: bool) -> None:
        self._is_debugging = enabled

    # Asynchronous generators that were not finished.

    def _finalize(self, stream: AsyncGenerator[Any, Any]) -> None:
        self._streams.discard(stream)
        if not self._is_closed:
            self.call_soon_threadsafe(self.create_task, stream.aclose())

    @override
    async def shutdown_asyncgens(self) -> None:
        for stream in list(self._streams):
            self._streams.discard(stream)
            try:
                await stream.aclose()
            except Exception as error:  # noqa: BLE001 - nobody waits for it, and the others are to be closed too
                self.call_exception_handler({"message": f"an error in closing {stream!r}", "exception": error})

    @override
    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Do nothing: there are no threads."""


class _Call(asyncio.TimerHandle):
    """A callback that is to be run, and may be cancelled; `asyncio.TimerHandle` has no public way to run it."""

    def __init__(self, loop: SeededLoop, when: float, callback: Callable[[], object], context: Context | None) -> None:
        context = copy_context() if context is None else context
        super().__init__(when, callback, (), loop, context)
        self._seeded = loop
        self._go: Callable[[], object] | None = partial(context.run, callback)

    @override
    def cancel(self) -> None:
        self._go = None
        asyncio.Handle.cancel(self)  # not that of TimerHandle, which tells a loop that counts its cancelled timers

    def run(self) -> None:
        assert self._go is not None
        try:
            self._go()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - as in every event loop, it goes to the handler
            context = {"message": f"an error in {self!r}", "exception": error, "handle": self}
            self._seeded.call_exception_handler(context)


def _place_of(task: asyncio.Task[Any]) -> str:
    """Return where a task waits, from the outermost of its coroutines to the innermost that can be seen."""
    places: list[str] = []
    awaited: Any = task.get_coro()
    while awaited is not None:
        kind = next((kind for kind in ("cr", "gi", "ag") if hasattr(awaited, f"{kind}_frame")), "cr")
        frame = getattr(awaited, f"{kind}_frame", None)
        if frame is not None:
            places.append(f"{frame.f_code.co_qualname}, {frame.f_code.co_filename}:{frame.f_lineno}")
        awaited = getattr(awaited, "gi_yieldfrom" if kind == "gi" else f"{kind}_await", None)
    return " > ".join(places)


def _refusal_of(name: str) -> Callable[..., NoReturn]:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise RuntimeError(f"seeded loop: expected tasks, timers and futures only, found {name}")

    return refuse


# Sockets, pipes, signals, processes and threads: all that the interface has, and that is not defined above.
for _name in set(vars(asyncio.AbstractEventLoop)) - set(vars(SeededLoop)):
    if not _name.startswith("_"):
        setattr(SeededLoop, _name, _refusal_of(_name))
