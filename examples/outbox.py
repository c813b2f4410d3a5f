"""An outbox: orders are accepted, delivered to somebody else, and forgotten; also thrice with a bug that crashes show.

    python examples/outbox.py [DIRECTORY]

Accepts orders from several tasks, delivers them, and prints both; a second run on the same directory goes on where the
first one ended. `test_outbox.py` beside this file crashes the outbox at every point, and finds the bugs.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from typing_extensions import override

from posjournal_async import Config, Context, FileStorage, Journal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from posjournal_async import Storage

# Small, so that a few orders fill a section, and there is something to prune.
ORDERS: Config[Any] = Config(partition="orders", items_per_section=3)
DELIVERED: Config[int] = Config(partition="delivered", items_per_section=1_000)


class Outbox:
    """Orders on their way to somebody else.

    * An order for which `accept` has returned is delivered, whatever crashes.
    * Orders are delivered in the order of their numbers. After a crash the last ones may be delivered once more.
    """

    def __init__(self, orders: Journal[Any], delivered: Journal[int], resources: AsyncExitStack) -> None:
        """Assemble an open outbox; use `open`."""
        self._orders = orders
        self._delivered = delivered
        self._resources = resources
        self._delivering = asyncio.Lock()
        self._next = 0

    @classmethod
    async def open(cls, storage: Storage) -> Self:
        """Open the outbox that the storage holds, or a new one."""
        async with AsyncExitStack() as stack:
            orders = await stack.enter_async_context(await Journal.init(Context(storage), ORDERS))
            delivered = await stack.enter_async_context(await Journal.init(Context(storage), DELIVERED))
            delivered_up_to = await delivered.read(delivered.size() - 1) if delivered.size() else 0
            outbox = cls(orders, delivered, stack.pop_all())
        outbox._next = delivered_up_to
        return outbox

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._resources.aclose()

    async def accept(self, order: Any) -> int:
        """Take an order, and return its number: from then on it is ours to deliver."""
        number = await self._orders.append(order)
        await self._orders.sync_data()
        return number

    async def deliver(self, send: Callable[[int, Any], Awaitable[None]]) -> None:
        """Send each order that waits, and forget those that were sent."""
        async with self._delivering:  # of two at once the slower one would go back to orders that are forgotten
            orders = self._orders.replay(self._next)
            await self._orders.sync_data()  # a crash could take back what is not durable: another gets its number then
            async for number, order in orders:
                await send(number, order)
                self._next = number + 1
            await self.forget()

    async def forget(self) -> None:
        """Note durably how far the orders are delivered, then drop them, as far as whole sections go."""
        await self._delivered.append(self._next)
        await self._delivered.sync_data()
        await self._orders.prune(self._next)
        await self._delivered.prune(self._delivered.size() - 1)  # the last note is all that is read


class HastyOutbox(Outbox):
    """Acknowledges an order before it is durable. Each test without a crash passes."""

    @override
    async def accept(self, order: Any) -> int:
        return await self._orders.append(order)


class EagerOutbox(Outbox):
    """Sends orders that somebody accepts at the moment. A crash takes one back, and its number goes to another."""

    @override
    async def deliver(self, send: Callable[[int, Any], Awaitable[None]]) -> None:
        async for number, order in self._orders.replay(self._next):
            await send(number, order)
            self._next = number + 1
        await self.forget()


class ForgetfulOutbox(Outbox):
    """Drops orders before it is durable that they were delivered. A crash in between, and it cannot go on."""

    @override
    async def forget(self) -> None:
        await self._delivered.append(self._next)
        await self._orders.prune(self._next)
        await self._delivered.sync_data()


async def main(directory: Path) -> None:
    """Accept orders from several tasks, and deliver them."""

    async def send(number: int, order: Any) -> None:
        print(f"delivered {number}: {order}")

    async with await Outbox.open(FileStorage(directory)) as outbox:
        numbers = await asyncio.gather(*(outbox.accept({"book": title}) for title in ("Emma", "Dune", "Ulysses")))
        print("accepted", *numbers)
        await outbox.deliver(send)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(main(Path(sys.argv[1])))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            asyncio.run(main(Path(temporary)))
