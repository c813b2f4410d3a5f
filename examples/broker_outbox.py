"""Bring the orders of an outbox to a broker: at least once, in order, through its outages; the position is the key.

    python examples/broker_outbox.py [DIRECTORY]

Accepts orders while a relay publishes them to a broker that fails now and then, sometimes after it took the message.
Prints what the broker got, with the repeats, and what a consumer that knows the keys makes of it. `Outbox` is the one
of `outbox.py`: its own small journal notes how far the orders are delivered.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from outbox import Outbox

from posjournal_async import FileStorage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


class BrokerUnavailable(Exception):
    """The broker did not confirm the message; it may have it all the same. Raise it for whatever your client raises."""


class Broker(Protocol):
    """What the relay needs of a broker: replace it by your own."""

    async def publish(self, key: int, message: Any) -> None:
        """Return when the broker has confirmed that the message is safe.

        Args:
            key: The same for each repeat of a message, and for no other: what consumers tell repeats by. Send it along,
                as `Nats-Msg-Id`, as a header in Kafka, as `message_id` in AMQP.
            message: What was accepted.

        Raises:
            BrokerUnavailable: Try again.
        """
        ...


class Relay:
    """Publishes what an outbox accepts, from a task of its own, until it is told to end."""

    def __init__(self, outbox: Outbox, broker: Broker, pause_seconds: float = 0.1, longest_seconds: float = 30) -> None:
        """Pause after the first failure; each further one in a row doubles the pause, up to the longest."""
        self._outbox = outbox
        self._broker = broker
        self._pause = pause_seconds
        self._longest = longest_seconds
        self._accepted = asyncio.Event()
        self._accepted.set()  # what an earlier process left behind

    async def accept(self, order: Any) -> int:
        """Return the number of the order when it is durable; it is published soon."""
        try:
            return await self._outbox.accept(order)
        finally:
            self._accepted.set()  # also when the caller was cancelled: the order may be there

    async def deliver(self) -> None:
        """Publish everything that was accepted so far, and try as long as it takes."""
        for failures in count():
            try:
                await self._outbox.deliver(self._broker.publish)  # goes on at the order that was not confirmed
            except BrokerUnavailable:
                most = min(self._pause * 2 ** min(failures, 30), self._longest)
                await asyncio.sleep(most * random.uniform(0.5, 1))  # noqa: S311 - so that relays do not come in step
            else:
                return

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """Publish in the background as long as the block lasts; what is not published then is, at the next start."""
        async with asyncio.TaskGroup() as tasks:  # a relay that fails ends the service, instead of being forgotten
            task = tasks.create_task(self._run())
            try:
                yield
            finally:
                task.cancel()

    async def _run(self) -> None:
        while True:
            await self._accepted.wait()
            self._accepted.clear()  # before the delivery: an order that comes meanwhile brings another one
            await self.deliver()


class FlakyBroker:
    """A broker in memory, of which some calls fail: one kind before the message arrived, the other after it."""

    def __init__(self, chance: random.Random) -> None:
        """Take the failures from chance."""
        self._chance = chance
        self.messages: list[tuple[int, Any]] = []

    async def publish(self, key: int, message: Any) -> None:
        """Take a message, or fail."""
        await asyncio.sleep(0)
        what = self._chance.choice(["confirmed", "refused", "confirmation lost"])
        if what != "refused":
            self.messages.append((key, message))
        if what != "confirmed":
            raise BrokerUnavailable(what)


def once(messages: list[tuple[int, Any]]) -> list[Any]:
    """Return each message once, as a consumer does that keeps the last key with its own state."""
    last, result = -1, []
    for key, message in messages:
        if key > last:  # keys grow, so the last one is all that has to be remembered
            last = key
            result.append(message)
    return result


async def main(directory: Path) -> None:
    """Accept orders, let the relay publish them, and look at both ends."""
    broker = FlakyBroker(random.Random(5))  # noqa: S311 - the same failures each time
    async with await Outbox.open(FileStorage(directory)) as outbox:
        relay = Relay(outbox, broker, pause_seconds=0.001)
        async with relay.running():
            await asyncio.gather(*(relay.accept({"book": title}) for title in ("Emma", "Dune", "Ulysses", "Lolita")))
        await relay.deliver()  # the rest, before this process ends
    print("the broker got:", *(f"{key}:{message['book']}" for key, message in broker.messages))
    print("the consumer:  ", *(message["book"] for message in once(broker.messages)))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(main(Path(sys.argv[1])))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            asyncio.run(main(Path(temporary)))
