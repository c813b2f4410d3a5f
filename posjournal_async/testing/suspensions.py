"""An operation that is struck at one of its suspensions: cancelled, timed out, aborted, exactly there."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

__all__ = ["StrikeAt"]

T = TypeVar("T")


class StrikeAt(Generic[T]):
    """An awaitable that does what another one does, and calls `strike` at its n-th suspension.

    An operation can be cancelled where it suspends, and nowhere else. Trying 1, 2, 3 ... until it is no longer struck
    tries all of these places. The strike comes after the operation has suspended and before anything else runs; what
    is to come in the next turn of the event loop is a strike that schedules it, as in `loop.call_soon(task.cancel)`.

    Args:
        operation: What to await.
        suspension: Number of the suspension, from 1; 0 to strike at none, and count.
        strike: What to do there: `task.cancel`, `scope.cancel`, or to let a deadline pass.

    Attributes:
        suspensions: How often the operation has suspended so far.

    Example:
        >>> import asyncio
        >>> from posjournal_async.testing import StrikeAt
        >>> async def service(done: list[str]) -> None:
        ...     done.append("read")
        ...     await asyncio.sleep(0)
        ...     done.append("stored")
        ...     await asyncio.sleep(0)
        ...     done.append("acknowledged")
        >>> async def main() -> None:
        ...     has_struck, suspension = True, 0
        ...     while has_struck:
        ...         suspension += 1
        ...         done: list[str] = []
        ...         operation = StrikeAt(service(done), suspension, lambda: task.cancel())
        ...         task = asyncio.ensure_future(operation)
        ...         await asyncio.wait([task])
        ...         print(done, "cancelled" if task.cancelled() else "complete")
        ...         has_struck = operation.has_struck
        >>> asyncio.run(main())
        ['read'] cancelled
        ['read', 'stored'] cancelled
        ['read', 'stored', 'acknowledged'] complete
    """

    def __init__(self, operation: Awaitable[T], suspension: int, strike: Callable[[], object]) -> None:
        self._operation = operation
        self._suspension = suspension
        self._strike = strike
        self.suspensions = 0

    @property
    def has_struck(self) -> bool:
        """Whether the operation suspended often enough to be struck."""
        return 0 < self._suspension <= self.suspensions

    def __await__(self) -> Generator[Any, Any, T]:
        steps: Any = self._operation.__await__()
        step: Callable[[], Any] = partial(next, steps)
        try:
            while True:
                try:
                    awaited = step()
                except StopIteration as stop:
                    result: T = stop.value
                    return result
                self.suspensions += 1
                if self.suspensions == self._suspension:
                    self._strike()
                try:
                    step = partial(steps.send, (yield awaited))
                except GeneratorExit:
                    raise
                except BaseException as error:  # noqa: BLE001 - it is the operation's to handle
                    step = partial(steps.throw, error)
        finally:
            steps.close()
