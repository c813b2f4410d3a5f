"""`codecs.protobuf`: what goes in comes out equal and of its class, and what is of another class does not go in."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto
from google.protobuf.message import EncodeError
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import BytesValue, Int32Value, Int64Value, StringValue
from hypothesis import given
from hypothesis import strategies as st

from posjournal_async.codecs.protobuf import ProtobufCodec, Upcaster
from tests.codecs.orders import messages_of

JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text("abc", max_size=3), JSON, max_size=3)


@given(OBJECTS)
def test_messages_come_back_equal(fields: dict[str, Any]) -> None:
    """Maps, lists and unions in them too, behind one byte."""
    message = Struct()
    message.update(fields)
    codec = ProtobufCodec(Struct)
    encoded = codec.encode(message)
    assert Struct.FromString(encoded[1:]) == message
    decoded = codec.decode(encoded)
    assert type(decoded) is Struct
    assert decoded == message


@given(st.binary())
def test_bytes_come_back_as_they_are(value: bytes) -> None:
    """What protobuf does not look into."""
    codec = ProtobufCodec(BytesValue)
    assert codec.decode(codec.encode(BytesValue(value=value))).value == value


def test_an_empty_message_is_an_item() -> None:
    """It has no byte of its own."""
    codec = ProtobufCodec(Timestamp)
    assert codec.encode(Timestamp()) == b"\x01"
    assert codec.decode(b"\x01") == Timestamp()


def test_an_upcaster_may_change_what_it_gets_and_return_that() -> None:
    """Where the message class is the same and its meaning another."""

    def doubled(old: Int32Value) -> Int32Value:
        old.value *= 2
        return old

    steps = {1: Upcaster(Int32Value, doubled), 2: Upcaster(Int32Value, doubled)}
    codec = ProtobufCodec(Int32Value, version=3, upcasters=steps)
    assert [codec.decode(bytes([version]) + b"\x08\x05").value for version in (1, 2, 3)] == [20, 10, 5]


@pytest.mark.parametrize("version", [1, 2])
def test_a_step_to_another_message_than_the_next_one_is_refused(version: int) -> None:
    """In the middle of the chain and at its end: another class would be read as what it is not."""
    text = StringValue(value="not a number")
    steps = {1: Upcaster(Int32Value, lambda _: text), 2: Upcaster(Int32Value, lambda _: text)}
    codec = ProtobufCodec(Int64Value, version=3, upcasters=steps)
    expected = {1: "Int32Value", 2: "Int64Value"}[version]
    with pytest.raises(TypeError, match=f"item: expected {expected}, found StringValue"):
        codec.decode(bytes([version]) + b"\x08\x05")


@pytest.mark.parametrize("item", [Int64Value(value=7), b"\x08\x07", {"value": 7}, None])
def test_an_item_of_another_class_is_refused(item: Any) -> None:
    """The bytes of most messages can be read as another one."""
    with pytest.raises(TypeError, match="item: expected Int32Value, found"):
        ProtobufCodec(Int32Value).encode(item)


def test_a_message_that_lacks_a_required_field_is_refused() -> None:
    """With nothing written."""
    [made] = messages_of("required", {"Needy": {"number": FieldDescriptorProto.TYPE_INT64}}, required=True)
    with pytest.raises(EncodeError):
        ProtobufCodec(made).encode(made())


@pytest.mark.parametrize("message", [int, Int32Value(), "Int32Value", None])
def test_what_is_no_message_class_is_refused(message: Any) -> None:
    """When the codec or the upcaster is made."""
    with pytest.raises(TypeError, match="message: expected a message class, found"):
        ProtobufCodec(message)
    with pytest.raises(TypeError, match="message: expected a message class, found"):
        Upcaster(message, lambda old: old)


def test_what_is_no_upcaster_is_refused() -> None:
    """A function alone does not say which message it takes."""
    steps: Any = {1: lambda old: old}
    with pytest.raises(TypeError, match="upcaster: expected an Upcaster, found function"):
        ProtobufCodec(Int32Value, version=2, upcasters=steps)
    with pytest.raises(TypeError, match="upcaster: expected a function, found int"):
        Upcaster(Int32Value, 7)  # type: ignore[arg-type]
