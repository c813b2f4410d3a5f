"""`codecs.msgspec`: what goes in comes out equal and of its class, and what is of another class does not go in."""

from __future__ import annotations

import copy
import pickle
import uuid  # noqa: TC003 - msgspec reads the annotations
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal  # noqa: TC003 - as above
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypedDict, TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posjournal_async.codecs.msgspec import MsgspecCodec

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")


class Line(msgspec.Struct, frozen=True, array_like=True):
    """A part of an item, stored without its field names."""

    article: str
    price: Decimal


class Rich(msgspec.Struct, kw_only=True):
    """One field of each type that is stored in a way of its own."""

    number: int
    weight: float
    name: str
    raw: bytes
    when: datetime
    day: date
    took: timedelta
    key: uuid.UUID
    lines: tuple[Line, ...]
    tags: frozenset[str]
    counts: dict[int, int]
    note: str | None = None


class Placed(msgspec.Struct, tag="placed"):
    """One of several events."""

    number: int


class Paid(msgspec.Struct, tag="paid"):
    """Another one."""

    number: int
    cents: int


class PaidTwice(Paid, tag="twice"):
    """One that is not among them."""

    again: int = 0


@dataclass
class Point:
    """An item that is no Struct."""

    x: int
    y: int


class Box(msgspec.Struct, Generic[T]):
    """An item of a generic type."""

    content: T


class Loose(TypedDict):
    """A type that no object has as its class."""

    number: int


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
LINES = st.builds(Line, TEXT, st.decimals(allow_nan=False, places=2, min_value=-(10**9), max_value=10**9))
RICH = st.builds(
    Rich,
    number=st.integers(-(2**63), 2**64 - 1),
    weight=st.floats(allow_nan=False),
    name=TEXT,
    raw=st.binary(max_size=20),
    when=st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)),  # noqa: DTZ001 - drawn
    day=st.dates(),
    took=st.timedeltas(timedelta(days=-10_000), timedelta(days=10_000)),
    key=st.uuids(),
    lines=st.lists(LINES, max_size=3).map(tuple),
    tags=st.frozensets(TEXT, max_size=3),
    counts=st.dictionaries(st.integers(-(2**63), 2**64 - 1), st.integers(0, 9), max_size=3),
    note=st.none() | TEXT,
)


@given(RICH)
def test_items_come_back_equal_and_typed(item: Rich) -> None:
    """Every type that msgspec knows, by way of MessagePack behind one byte."""
    codec = MsgspecCodec(Rich)
    encoded = codec.encode(item)
    assert encoded == b"\x01" + msgspec.msgpack.encode(item)
    assert codec.decode(encoded) == item


@given(RICH)
def test_an_upcaster_that_changes_nothing_changes_nothing(item: Rich) -> None:
    """What an upcaster gets and returns is what was stored, whatever the types: bytes, moments and keys too."""
    before, after = MsgspecCodec(Rich), MsgspecCodec(Rich, version=2, upcasters={1: lambda old: old})
    assert after.decode(before.encode(item)) == item


def test_an_upcaster_gets_builtins_and_may_return_items() -> None:
    """A dict by field name; a Struct is written as the dict that it stands for."""
    seen: list[Any] = []

    def as_paid(old: Mapping[str, Any]) -> Paid:
        seen.append(dict(old))
        return Paid(old["number"], 0)

    codec = MsgspecCodec(Paid, version=2, upcasters={1: as_paid})
    assert codec.decode(MsgspecCodec(Point).encode(Point(1, 2))[:1] + msgspec.msgpack.encode({"number": 5})) == Paid(
        5, 0
    )
    assert seen == [{"number": 5}]


@pytest.mark.parametrize("result", [None, {}, {"number": "seven", "cents": 1}, {"type": "placed", "number": 1}, []])
def test_what_an_upcaster_makes_wrong_is_refused(result: Any) -> None:
    """It is read as if it had been stored."""
    codec = MsgspecCodec(Paid, version=2, upcasters={1: lambda _: result})
    with pytest.raises(msgspec.ValidationError):
        codec.decode(b"\x01\x80")


EVENTS: MsgspecCodec[Placed | Paid] = MsgspecCodec(Placed | Paid)


@pytest.mark.parametrize(
    ("codec", "item"),
    [
        (EVENTS, Placed(1)),
        (EVENTS, Paid(1, 2)),
        (MsgspecCodec(Point), Point(1, 2)),
        (MsgspecCodec(Box[int]), Box(7)),
        (MsgspecCodec(Annotated[Paid, "noted"]), Paid(1, 2)),
        (MsgspecCodec(Loose), {"number": 7}),
        (MsgspecCodec(dict[str, Point]), {"a": Point(1, 2)}),
        (MsgspecCodec(int), 7),
        (MsgspecCodec(Paid | None), None),
    ],
    ids=["union", "union, other", "dataclass", "generic", "annotated", "typed dict", "dict", "int", "optional"],
)
def test_any_type_that_msgspec_knows_will_do(codec: MsgspecCodec[Any], item: Any) -> None:
    """Unions of Structs above all: a journal of events has several."""
    decoded = codec.decode(codec.encode(item))
    assert decoded == item
    assert type(decoded) is type(item)


@pytest.mark.parametrize(
    ("codec", "item", "expected"),
    [
        (MsgspecCodec(Paid), {"number": 1, "cents": 2}, "Paid, found dict"),
        (MsgspecCodec(Paid), PaidTwice(1, 2, 3), "Paid, found PaidTwice"),
        (EVENTS, PaidTwice(1, 2, 3), "Paid or Placed, found PaidTwice"),
        (EVENTS, None, "Paid or Placed, found NoneType"),
        (MsgspecCodec(Point), (1, 2), "Point, found tuple"),
        (MsgspecCodec(Box[int]), 7, "Box, found int"),
        (MsgspecCodec(Annotated[Paid, "noted"]), Placed(1), "Paid, found Placed"),
    ],
    ids=["dict", "subclass", "subclass in a union", "None", "dataclass", "generic", "annotated"],
)
def test_an_item_of_another_class_is_refused(codec: MsgspecCodec[Any], item: Any, expected: str) -> None:
    """It would be written, and come back as another one or not at all."""
    with pytest.raises(TypeError, match=f"item: expected {expected}"):
        codec.encode(item)


def test_hooks_take_what_msgspec_does_not_know() -> None:
    """In both directions, and on the way through an upcaster."""

    class Signal(msgspec.Struct):
        value: complex

    def enc_hook(value: Any) -> Any:
        return [value.real, value.imag]

    def dec_hook(kind: type[Any], value: Any) -> Any:
        return kind(*value)

    old = MsgspecCodec(Signal, enc_hook=enc_hook, dec_hook=dec_hook)
    encoded = old.encode(Signal(1 + 2j))
    assert old.decode(encoded) == Signal(1 + 2j)
    new = MsgspecCodec(
        Signal,
        version=2,
        upcasters={1: lambda stored: {"value": complex(*stored["value"]) * 2}},
        enc_hook=enc_hook,
        dec_hook=dec_hook,
    )
    assert new.decode(encoded) == Signal(2 + 4j)


def numbered(old: dict[str, Any]) -> dict[str, Any]:
    return {"number": old["x"], "cents": old["y"]}


def parts_of(value: complex) -> list[float]:
    return [value.real, value.imag]


def complex_of(kind: type[complex], parts: list[float]) -> complex:
    return kind(*parts)


@pytest.mark.parametrize(
    ("codec", "item"),
    [
        (MsgspecCodec(Paid, version=2, upcasters={1: numbered}), Paid(1, 2)),
        (EVENTS, Placed(1)),
        (MsgspecCodec(Box[int]), Box(7)),
        (MsgspecCodec(complex, enc_hook=parts_of, dec_hook=complex_of), 1 + 2j),
    ],
    ids=["versions", "union", "generic", "hooks"],
)
def test_a_codec_pickles_and_is_copied(codec: MsgspecCodec[Any], item: Any) -> None:
    """A configuration goes to a process of its own with its codec, its versions and its hooks."""
    copies = [copy.copy(codec), copy.deepcopy(codec)]
    copies += [pickle.loads(pickle.dumps(codec, way)) for way in range(2, pickle.HIGHEST_PROTOCOL + 1)]  # noqa: S301 - our own
    for copied in copies:
        assert copied.name == codec.name
        assert copied.accepts(codec.name)
        assert copied.decode(codec.encode(item)) == codec.decode(copied.encode(item)) == item
        if codec.name == "mp/2":
            assert copied.decode(MsgspecCodec(Point).encode(Point(1, 2))) == Paid(1, 2)


def test_what_msgspec_cannot_write_is_refused() -> None:
    """And the next item is not affected."""
    codec = MsgspecCodec(Paid)
    with pytest.raises(TypeError):
        codec.encode(Paid(1, object()))  # type: ignore[arg-type]
    assert codec.decode(codec.encode(Paid(1, 2))) == Paid(1, 2)


def test_a_type_that_msgspec_does_not_know_is_refused() -> None:
    """When the codec is made."""
    with pytest.raises(TypeError):
        MsgspecCodec(Placed | Paid | Point)  # a Struct and a dataclass cannot be told apart
