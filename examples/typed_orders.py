"""Keep typed orders in a journal, change what an order is, and read the old ones as new ones.

    python examples/typed_orders.py

Needs msgspec: pip install 'posjournal_async[msgspec]'. Prints an order as the first version of a service wrote it, the
orders as its second version reads them, and the refusal of the first version to open the journal after that.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from posjournal_async import Config, Context, InvalidConfiguration, Journal, MemoryStorage
from posjournal_async.codecs.msgspec import MsgspecCodec


class FirstOrder(msgspec.Struct):
    """An order, as the service had it at first."""

    number: int
    euros: float


class Order(msgspec.Struct):
    """An order, as it is now. In a service only this class is left, and the upcaster."""

    number: int
    cents: int
    currency: str


def from_version_1(old: dict[str, Any]) -> dict[str, Any]:
    """Return an order of version 2 for one of version 1, both as the dict that is stored."""
    return {"number": old["number"], "cents": round(old["euros"] * 100), "currency": "EUR"}


async def main() -> None:
    """Write with the first version, go on with the second, and try the first once more."""
    context = Context(MemoryStorage())
    first = Config(partition="orders", codec=MsgspecCodec(FirstOrder))
    async with await Journal.init(context, first) as journal:  # a Journal[FirstOrder]
        await journal.append(FirstOrder(7, 2.5))
        print("version 1:", await journal.read(0))

    second = Config(partition="orders", codec=MsgspecCodec(Order, version=2, upcasters={1: from_version_1}))
    async with await Journal.init(context, second) as orders:  # a Journal[Order]
        await orders.append(Order(8, 1_050, "CHF"))
        async for position, order in orders.replay(0):
            print(f"position {position}: {order.cents} cents in {order.currency}")

    try:
        await Journal.init(context, first)
    except InvalidConfiguration as error:
        print("refused:", error)


if __name__ == "__main__":
    asyncio.run(main())
