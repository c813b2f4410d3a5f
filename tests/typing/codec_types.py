"""What a type checker makes of journals of typed items: read by mypy and pyright, run by nobody."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, assert_type

import msgspec
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import BaseModel

from posjournal_async import Config, Context, Journal, ReadsOlder
from posjournal_async.codecs.msgspec import MsgspecCodec
from posjournal_async.codecs.protobuf import ProtobufCodec, Upcaster
from posjournal_async.codecs.pydantic import PydanticCodec


class Order(msgspec.Struct):
    """An item that msgspec writes."""

    number: int


class Refund(msgspec.Struct, tag=True):
    """Another one."""

    number: int


@dataclass
class Point:
    """An item that is no class of msgspec or pydantic."""

    x: int


class Payment(BaseModel):
    """An item that pydantic writes."""

    cents: int


def from_v1(old: dict[str, Any]) -> dict[str, Any]:
    """Make version 2 of version 1."""
    return {"number": old["id"]}


def duration_of(old: Timestamp) -> Duration:
    """Make version 2 of version 1."""
    return Duration(seconds=old.seconds)


async def a_struct_is_the_item(context: Context) -> None:
    """From the codec to the configuration, the journal, and what it gives back."""
    codec = MsgspecCodec(Order, version=2, upcasters={1: from_v1})
    assert_type(codec, MsgspecCodec[Order])
    config = Config(partition="orders", codec=codec)
    assert_type(config, Config[Order])
    journal = await Journal.init(context, config)
    assert_type(journal, Journal[Order])
    assert_type(await journal.read(0), Order)
    assert_type(await journal.read_many([0]), list[Order])
    assert_type(journal.replay(0), AsyncGenerator[tuple[int, Order], None])
    assert_type(await Journal.init(context, Config(partition="orders", codec=MsgspecCodec(Order))), Journal[Order])
    assert_type(MsgspecCodec(Point), MsgspecCodec[Point])
    assert_type(MsgspecCodec(list[Order]), MsgspecCodec[list[Order]])


async def a_model_is_the_item(context: Context) -> None:
    """The same with pydantic."""
    config = Config(partition="payments", codec=PydanticCodec(Payment, version=2, upcasters={1: from_v1}))
    assert_type(config, Config[Payment])
    journal = await Journal.init(context, config)
    assert_type(journal, Journal[Payment])
    assert_type((await journal.read(0)).cents, int)


async def a_message_is_the_item(context: Context) -> None:
    """The same with protobuf."""
    codec = ProtobufCodec(Duration, version=2, upcasters={1: Upcaster(Timestamp, duration_of)})
    assert_type(codec, ProtobufCodec[Duration])
    journal = await Journal.init(context, Config(partition="durations", codec=codec))
    assert_type(journal, Journal[Duration])
    assert_type((await journal.read(0)).seconds, int)


async def opening_files_knows_the_item_too() -> None:
    """With the codec as a keyword, entered and awaited."""
    async with Journal.open("./data/orders", codec=MsgspecCodec(Order), items_per_section=10) as journal:
        assert_type(journal, Journal[Order])
        assert_type(await journal.read(0), Order)
    assert_type(await Journal.open("./data/payments", codec=PydanticCodec(Payment)), Journal[Payment])
    assert_type(await Journal.open("./data/durations", codec=ProtobufCodec(Duration)), Journal[Duration])
    assert_type(await Journal.open("./data/any", items_per_section=10), Journal[Any])


async def a_union_is_said_where_the_codec_is_kept(context: Context) -> None:
    """A union is a value of another kind to a checker, so it has to be told."""
    codec: MsgspecCodec[Order | Refund] = MsgspecCodec(Order | Refund)
    journal = await Journal.init(context, Config(partition="orders", codec=codec))
    assert_type(journal, Journal[Order | Refund])
    assert_type(await journal.read(0), Order | Refund)
    models: PydanticCodec[Payment | Point] = PydanticCodec(Payment | Point)
    assert_type(await Journal.open("./data/events", codec=models), Journal[Payment | Point])


def each_reads_older_ones() -> list[ReadsOlder]:
    """All of them satisfy the optional protocol."""
    return [MsgspecCodec(Order), PydanticCodec(Payment), ProtobufCodec(Duration)]


async def what_does_not_fit_is_refused(orders: Journal[Order]) -> None:
    """Each line here is an error of its type; a checker that finds none complains about the comment."""
    await orders.append(Refund(1))  # type: ignore[arg-type]
    await orders.append({"number": 1})  # type: ignore[arg-type]
    ProtobufCodec(Order)  # type: ignore[type-var]
    ProtobufCodec(Duration, version=2, upcasters={1: duration_of})  # type: ignore[dict-item]
    ProtobufCodec(Duration, version=2, upcasters={1: Upcaster(Duration, duration_of)})  # type: ignore[arg-type]
    MsgspecCodec(Order, version=2, upcasters={1: "from_v1"})  # type: ignore[dict-item]
    MsgspecCodec(Order, version="2")  # type: ignore[call-overload]
    payments: Config[Payment] = Config(partition="orders", codec=MsgspecCodec(Order))  # type: ignore[arg-type]
    assert_type(payments, Config[Payment])
