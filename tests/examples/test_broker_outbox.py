"""The relay of the example brings each order to the broker, through outages and crashes."""

from __future__ import annotations

import asyncio
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from posjournal_async import MemoryStorage, StorageError
from posjournal_async.testing import FaultyStorage, crash_points
from tests.examples.serving import example, printed_by

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from posjournal_async.testing import CrashStorage


class DownBroker:
    """A broker that is down until it is brought up; counts the attempts meanwhile."""

    def __init__(self) -> None:
        self.is_up = False
        self.attempts = 0
        self.tried = asyncio.Event()
        self.messages: list[tuple[int, Any]] = []

    async def publish(self, key: int, message: Any) -> None:
        self.attempts += 1
        self.tried.set()
        if not self.is_up:
            raise example("broker_outbox").BrokerUnavailable
        self.messages.append((key, message))


@pytest.mark.parametrize("seed", range(5))
async def test_each_order_arrives_in_order_and_repeats_have_its_key(seed: int) -> None:
    """Two of three calls fail, half of them after the broker took the message: a consumer sees each order once."""
    module = example("broker_outbox")
    broker = module.FlakyBroker(Random(seed))
    async with await module.Outbox.open(MemoryStorage()) as outbox:
        relay = module.Relay(outbox, broker, pause_seconds=0)
        async with relay.running():
            numbers = await asyncio.gather(*(relay.accept(f"order {number}") for number in range(50)))
        await relay.deliver()
    assert module.once(broker.messages) == [f"order {number}" for number in range(50)]
    assert len(broker.messages) > 50
    assert {(key, f"order {key}") for key in numbers} == set(broker.messages)


async def test_two_deliveries_at_once_send_each_order_once_and_in_order() -> None:
    """The second one begins while the first one waits for its receiver, with more orders than that knew of."""
    goes_on = asyncio.Event()
    sent: list[int] = []

    async def send(number: int, _: Any) -> None:
        await goes_on.wait()
        sent.append(number)

    async def send_at_once(number: int, _: Any) -> None:
        sent.append(number)

    storage = MemoryStorage()
    for start in (0, 14):
        async with await example("broker_outbox").Outbox.open(storage) as outbox:
            deliveries = []
            for sending in (send, send_at_once):
                for number in range(6):
                    await outbox.accept(number)
                deliveries.append(asyncio.create_task(outbox.deliver(sending)))
                for _ in range(200):
                    await asyncio.sleep(0)
            goes_on.set()
            await asyncio.gather(*deliveries)
            for number in range(2):
                await outbox.accept(number)
            await outbox.deliver(send)
            assert sent == list(range(start + 14))
            goes_on.clear()


async def test_an_outbox_that_does_not_open_frees_its_journals() -> None:
    """One of the reads that it opens with fails: both journals can be opened after that."""
    module, storage = example("broker_outbox"), MemoryStorage()

    async def send(_: int, __: Any) -> None:
        pass

    async with await module.Outbox.open(storage) as outbox:
        await outbox.accept("order")
        await outbox.deliver(send)
    failing = FaultyStorage(storage, only=lambda call: call.what == "read_at" and call.partition == "delivered_data")
    for fail_at in count(1):
        failing.fail_at, failing.count = fail_at, 0
        try:
            async with await module.Outbox.open(failing):
                break
        except StorageError:
            continue
    assert fail_at > 1


async def test_an_order_of_a_cancelled_caller_is_published_when_it_was_taken() -> None:
    """Cancelled after any number of turns: what is in the outbox is published, without another order."""
    module = example("broker_outbox")
    broker = DownBroker()
    broker.is_up = True
    async with await module.Outbox.open(MemoryStorage()) as outbox:
        relay = module.Relay(outbox, broker, pause_seconds=0)
        async with relay.running():
            for turns in range(12):
                broker.tried.clear()
                taken = outbox._orders.size()
                accepting = asyncio.create_task(relay.accept(turns))
                for _ in range(turns):
                    await asyncio.sleep(0)
                accepting.cancel()
                await asyncio.wait([accepting])
                if outbox._orders.size() > taken:
                    async with asyncio.timeout(30):
                        await broker.tried.wait()
    assert [message for _, message in broker.messages] == sorted({message for _, message in broker.messages})


async def test_orders_are_accepted_while_the_broker_is_down_and_published_when_it_is_back() -> None:
    """An outage holds up no caller; what was not published before the end of the process is, after the next start."""
    module = example("broker_outbox")
    storage = MemoryStorage()
    broker = DownBroker()
    async with await module.Outbox.open(storage) as outbox:
        relay = module.Relay(outbox, broker, pause_seconds=0)
        async with relay.running():
            assert [await relay.accept(number) for number in range(10)] == list(range(10))
            while broker.attempts < 5:
                broker.tried.clear()
                await broker.tried.wait()
    assert broker.messages == []
    broker.is_up = True
    async with await module.Outbox.open(storage) as outbox:
        relay = module.Relay(outbox, broker, pause_seconds=0)
        async with asyncio.timeout(30), relay.running():
            while len(broker.messages) < 10:
                broker.tried.clear()
                await broker.tried.wait()
    assert broker.messages == [(number, number) for number in range(10)]


async def test_a_broker_with_a_bug_ends_the_service() -> None:
    """What is no outage is not tried for ever: it comes out of the block in which the relay runs."""
    module = example("broker_outbox")

    class Broken(DownBroker):
        async def publish(self, key: int, message: Any) -> None:  # noqa: ARG002 - as the broker
            raise ZeroDivisionError

    async def run() -> None:
        async with asyncio.timeout(30), await module.Outbox.open(MemoryStorage()) as outbox:
            relay = module.Relay(outbox, Broken(), pause_seconds=0)
            async with relay.running():
                await relay.accept(1)
                await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup) as caught:
        await run()
    assert caught.group_contains(ZeroDivisionError)


def test_the_script_repeats_and_forgets_nothing(tmp_path: Path) -> None:
    """The script prints what the broker got, and goes on with the next numbers when it is run again."""
    got, consumed = printed_by("broker_outbox.py", tmp_path)
    assert got == "the broker got: 0:Emma 0:Emma 0:Emma 0:Emma 0:Emma 0:Emma 0:Emma 1:Dune 2:Ulysses 2:Ulysses 3:Lolita"
    assert consumed == "the consumer:   Emma Dune Ulysses Lolita"
    again, _ = printed_by("broker_outbox.py", tmp_path)
    assert again.startswith("the broker got: 4:Emma ")


async def a_day(storage: CrashStorage, tell: Callable[[tuple[str, int, str]], None]) -> None:
    """Accept and publish, through a broker that fails."""
    module = example("broker_outbox")

    class Telling(module.FlakyBroker):  # type: ignore[misc, name-defined]
        async def publish(self, key: int, message: Any) -> None:
            try:
                await super().publish(key, message)
            finally:
                if (key, message) in self.messages:
                    tell(("published", key, message))

    async with await module.Outbox.open(storage) as outbox:
        relay = module.Relay(outbox, Telling(Random(3)), pause_seconds=0)
        for orders in (("Emma", "Dune"), ("Ulysses", "Lolita")):
            for order in orders:
                tell(("accepted", await relay.accept(order), order))
            await relay.deliver()


async def a_busy_day(storage: CrashStorage, tell: Callable[[tuple[str, int, str]], None]) -> None:
    """Accept one order after the other while the relay publishes those before."""
    module = example("broker_outbox")

    class Telling(DownBroker):
        async def publish(self, key: int, message: Any) -> None:
            await super().publish(key, message)
            tell(("published", key, message))

    async with await module.Outbox.open(storage) as outbox:
        broker = Telling()
        broker.is_up = True
        relay = module.Relay(outbox, broker, pause_seconds=0)

        async def accept(order: str, turns: int) -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            tell(("accepted", await relay.accept(order), order))

        async with relay.running():
            orders = ("Emma", "Dune", "Ulysses", "Lolita")
            await asyncio.gather(*(accept(order, 3 * number) for number, order in enumerate(orders)))
        await relay.deliver()


async def check(storage: CrashStorage, told: Sequence[tuple[str, int, str]]) -> None:
    """Start again, take one more, and bring everything to a broker that has what it was told before."""
    module = example("broker_outbox")
    broker = DownBroker()
    broker.is_up = True
    broker.messages = [(key, message) for what, key, message in told if what == "published"]
    async with await module.Outbox.open(storage) as outbox:
        relay = module.Relay(outbox, broker, pause_seconds=0)
        await relay.accept("Persuasion")
        await relay.deliver()
    assert {(key, order) for what, key, order in told if what == "accepted"} <= set(broker.messages)
    assert len(dict(broker.messages)) == len(set(broker.messages))  # no key stands for two orders
    *consumed, last = module.once(broker.messages)
    assert (consumed, last) == (["Emma", "Dune", "Ulysses", "Lolita"][: len(consumed)], "Persuasion")


@pytest.mark.parametrize("service", [a_day, a_busy_day])
async def test_no_crash_loses_an_order_or_gives_its_key_to_another(service: Any) -> None:
    """Crashed at every point: what was accepted is published, before the crash or after it."""
    assert await crash_points(service, check, states=8) > 100
