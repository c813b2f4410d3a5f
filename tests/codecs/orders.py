"""Orders in three versions, as each of the typed codecs has them.

Version 1 has `euros`, version 2 `cents`, version 3 `cents` and a `currency`. The order of a number is the same order in
all of them, so that what a codec makes of an older one can be told without asking it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.message_factory import GetMessages
from pydantic import BaseModel

from posjournal_async.codecs.msgspec import MsgspecCodec
from posjournal_async.codecs.protobuf import ProtobufCodec, Upcaster
from posjournal_async.codecs.pydantic import PydanticCodec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from posjournal_async import Codec

__all__ = ["KINDS", "NEWEST", "QUOTED", "Kind", "messages_of"]

NEWEST = 3

# What an error must not quote.
QUOTED = "4711-private"


class StructV1(msgspec.Struct):
    """As it was at first."""

    number: int
    euros: int
    note: str


class StructV2(msgspec.Struct):
    """With smaller money."""

    number: int
    cents: int
    note: str


class StructV3(msgspec.Struct):
    """As it is."""

    number: int
    cents: int
    currency: str
    note: str


class ModelV1(BaseModel):
    """As it was at first."""

    number: int
    euros: int
    note: str


class ModelV2(BaseModel):
    """With smaller money."""

    number: int
    cents: int
    note: str


class ModelV3(BaseModel):
    """As it is."""

    number: int
    cents: int
    currency: str
    note: str


def messages_of(
    package: str, classes: Mapping[str, Mapping[str, FieldDescriptorProto.Type.ValueType]], *, required: bool = False
) -> Any:
    """Return protobuf message classes with fields of these types, as `protoc` would make them of a file."""
    label = FieldDescriptorProto.LABEL_REQUIRED if required else FieldDescriptorProto.LABEL_OPTIONAL
    file = FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto2")
    for class_name, fields in classes.items():
        message = file.message_type.add(name=class_name)
        for number, (field, kind) in enumerate(fields.items(), start=1):
            message.field.add(name=field, number=number, type=kind, label=label)
    made = GetMessages([file])
    return [made[f"{package}.{class_name}"] for class_name in classes]


_INT, _STRING = FieldDescriptorProto.TYPE_INT64, FieldDescriptorProto.TYPE_STRING
MessageV1, MessageV2, MessageV3 = messages_of(
    "orders",
    {
        "OrderV1": {"number": _INT, "euros": _INT, "note": _STRING},
        "OrderV2": {"number": _INT, "cents": _INT, "note": _STRING},
        "OrderV3": {"number": _INT, "cents": _INT, "currency": _STRING, "note": _STRING},
    },
)


def cents_of(old: dict[str, Any]) -> dict[str, Any]:
    """From version 1 to 2."""
    return {"number": old["number"], "cents": old["euros"] * 100, "note": old["note"]}


def with_currency(old: dict[str, Any]) -> dict[str, Any]:
    """From version 2 to 3, in place."""
    old["currency"] = "EUR"
    return old


MAPPED: Mapping[int, Callable[[Any], Any]] = {1: cents_of, 2: with_currency}
MESSAGES: Mapping[int, Upcaster] = {
    1: Upcaster(MessageV1, lambda old: MessageV2(number=old.number, cents=old.euros * 100, note=old.note)),
    2: Upcaster(MessageV2, lambda old: MessageV3(number=old.number, cents=old.cents, note=old.note, currency="EUR")),
}


@dataclass(frozen=True)
class Kind:
    """A typed codec with its classes of orders.

    Attributes:
        encoding: What its names begin with.
        make: The codec's class.
        classes: The class of the orders of each version, from 1 on.
        upcasters: The steps between them.
        module: Where the codec is.
        package: The package that it needs, and its extra.
    """

    encoding: str
    make: Callable[..., Codec[Any]]
    classes: tuple[Callable[..., Any], ...]
    upcasters: Mapping[int, Any]
    module: str
    package: str

    def codec(self, version: int, *, oldest: int = 1) -> Codec[Any]:
        """Return the codec for orders of a version."""
        steps = {step: upcaster for step, upcaster in self.upcasters.items() if oldest <= step < version}
        return self.make(self.classes[version - 1], version=version, oldest=oldest, upcasters=steps)

    def order(self, number: int, version: int, note: str = "") -> Any:
        """Return the order of a number as a version has it."""
        money: dict[int, dict[str, Any]] = {
            1: {"euros": number},
            2: {"cents": 100 * number},
            3: {"cents": 100 * number, "currency": "EUR"},
        }
        return self.classes[version - 1](number=number, note=note, **money[version])

    def name(self, version: int) -> str:
        """Return the name on disk."""
        return f"{self.encoding}/{version}"


KINDS = [
    Kind("mp", MsgspecCodec, (StructV1, StructV2, StructV3), MAPPED, "posjournal_async.codecs.msgspec", "msgspec"),
    Kind("json", PydanticCodec, (ModelV1, ModelV2, ModelV3), MAPPED, "posjournal_async.codecs.pydantic", "pydantic"),
    Kind(
        "pb",
        ProtobufCodec,
        (MessageV1, MessageV2, MessageV3),
        MESSAGES,
        "posjournal_async.codecs.protobuf",
        "protobuf",
    ),
]
