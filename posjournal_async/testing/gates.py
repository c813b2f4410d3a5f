"""A storage whose calls wait until a test lets them go."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, TypeVar

from typing_extensions import override

from posjournal_async.testing.wrapping import Call, WrappedStorage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from posjournal_async.storage.protocols import Storage

__all__ = ["GatedStorage"]

T = TypeVar("T")


class GatedStorage(WrappedStorage):
    """A storage that holds calls, before they take effect, until the test lets them go.

    Attributes:
        held: The calls that wait, in the order in which they were made.

    Example:
        >>> import asyncio
        >>> from posjournal_async import Config, Context, Journal, MemoryStorage
        >>> from posjournal_async.testing import GatedStorage
        >>> async def main() -> None:
        ...     gated = GatedStorage(MemoryStorage())
        ...     async with await Journal.init(Context(gated), Config(partition="orders")) as journal:
        ...         gated.hold(lambda call: call.what == "sync")
        ...         await journal.append("paid")
        ...         syncing = asyncio.ensure_future(journal.sync_data())
        ...         call = await gated.until_held()
        ...         print(call.partition, syncing.done(), journal.durable_size())
        ...         gated.let_all_go()
        ...         await syncing
        ...         print(journal.durable_size())
        >>> asyncio.run(main())
        orders_data False 0
        1
    """

    def __init__(self, inner: Storage) -> None:
        super().__init__(inner)
        self._holds: Callable[[Call], bool] = lambda _: False
        self._waiting: deque[tuple[Call, asyncio.Future[None]]] = deque()
        self._arrived = asyncio.Event()

    @property
    def held(self) -> list[Call]:
        """The calls that wait."""
        return [call for call, gate in self._waiting if not gate.done()]

    def hold(self, holds: Callable[[Call], bool]) -> None:
        """Hold the calls of which `holds` is true from now on; those that are held already stay so."""
        self._holds = holds

    async def until_held(self, count: int = 1) -> Call:
        """Wait until so many calls are held, and return the one that came first.

        Raises:
            TimeoutError: They did not come within 30 seconds.
        """
        async with asyncio.timeout(30):  # a call that never comes fails the test instead of stopping it
            while len(self.held) < count:
                self._arrived.clear()
                await self._arrived.wait()
        return self.held[0]

    def let_go(self) -> None:
        """Let the call go that came first."""
        while self._waiting:
            _, gate = self._waiting.popleft()
            if not gate.done():
                gate.set_result(None)
                return

    def let_all_go(self) -> None:
        """Let all calls go, and hold none any more."""
        self._holds = lambda _: False
        while self._waiting:
            self.let_go()

    @override
    async def around(self, call: Call, go_on: Callable[[], Awaitable[T]]) -> T:
        if self._holds(call):
            gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((call, gate))
            self._arrived.set()
            await gate
        return await go_on()
