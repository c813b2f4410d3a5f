"""`codecs.pydantic`: what goes in comes out equal and of its class, and what would not does not go in."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import uuid  # noqa: TC003 - pydantic reads the annotations
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PydanticUserError,
    RootModel,
    SecretStr,
    ValidationError,
    computed_field,
)
from pydantic.dataclasses import dataclass

from posjournal_async.codecs.pydantic import PydanticCodec

T = TypeVar("T")


class Line(BaseModel):
    """A part of an item."""

    article: str
    price: Decimal


class Rich(BaseModel):
    """One field of each type that JSON has in a way of its own; nothing is converted when it is made."""

    model_config = ConfigDict(strict=True, extra="forbid")

    number: int
    weight: float
    name: str
    when: datetime
    day: date
    took: timedelta
    key: uuid.UUID
    lines: tuple[Line, ...]
    tags: frozenset[str]
    counts: dict[str, int]
    note: str | None = None

    @computed_field
    def twice(self) -> int:
        """Derived, so not stored; reading it would be forbidden."""
        return 2 * self.number


class Aliased(BaseModel):
    """Names for an API, of which each direction has its own."""

    number: int = Field(validation_alias="orderNumber", serialization_alias="order_no")
    inner: Line = Field(alias="innerLine")


class Raw(BaseModel):
    """Settings with which pydantic reads what it writes."""

    model_config = ConfigDict(ser_json_inf_nan="constants", ser_json_bytes="base64", val_json_bytes="base64")

    weight: float
    raw: bytes


class Placed(BaseModel):
    """One of several events."""

    kind: Literal["placed"] = "placed"
    number: int


class Paid(BaseModel):
    """Another one."""

    kind: Literal["paid"] = "paid"
    number: int
    cents: int


class PaidTwice(Paid):
    """One that is not among them."""

    again: int = 0


@dataclass
class Point:
    """An item that is no model."""

    x: int
    y: int


class Box(BaseModel, Generic[T]):
    """An item of a generic type."""

    content: T


class Late(BaseModel):
    """A model that pydantic builds when it is first used."""

    model_config = ConfigDict(defer_build=True)

    number: int


Told = Annotated[SecretStr, PlainSerializer(SecretStr.get_secret_value)]
Events = Annotated[Placed | Paid, Field(discriminator="kind")]
EVENTS: PydanticCodec[Placed | Paid] = PydanticCodec(Events)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
LINES = st.builds(Line, article=TEXT, price=st.decimals(allow_nan=False, places=2, min_value=-(10**9), max_value=10**9))
RICH = st.builds(
    Rich,
    number=st.integers(),
    weight=st.floats(allow_nan=False, allow_infinity=False),
    name=TEXT,
    when=st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)),  # noqa: DTZ001 - drawn
    day=st.dates(),
    took=st.timedeltas(timedelta(days=-10_000), timedelta(days=10_000)),
    key=st.uuids(),
    lines=st.lists(LINES, max_size=3).map(tuple),
    tags=st.frozensets(TEXT, max_size=3),
    counts=st.dictionaries(TEXT, st.integers(0, 9), max_size=3),
    note=st.none() | TEXT,
)


@given(RICH)
def test_items_come_back_equal_and_typed(item: Rich) -> None:
    """Also of a strict model, with a computed field and nothing else allowed, as JSON behind one byte."""
    codec = PydanticCodec(Rich)
    encoded = codec.encode(item)
    assert json.loads(encoded[1:]) == item.model_dump(mode="json", exclude={"twice"})
    assert codec.decode(encoded) == item


@given(RICH)
def test_an_upcaster_that_changes_nothing_changes_nothing(item: Rich) -> None:
    """A strict model takes moments and tuples from JSON, and what an upcaster returns is taken like that."""
    before, after = PydanticCodec(Rich), PydanticCodec(Rich, version=2, upcasters={1: lambda old: old})
    assert after.decode(before.encode(item)) == item


def test_aliases_are_not_used() -> None:
    """What is stored has the names of the fields, so that it can be read whatever the aliases are."""
    item = Aliased.model_validate({"orderNumber": 7, "innerLine": Line(article="a", price=Decimal(1))})
    codec = PydanticCodec(Aliased)
    encoded = codec.encode(item)
    assert json.loads(encoded[1:]) == {"number": 7, "inner": {"article": "a", "price": "1"}}
    assert codec.decode(encoded) == item


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (Box[SecretStr](content=SecretStr("hush")), Box[SecretStr](content=SecretStr("*" * 10))),
        (Box[Told](content=SecretStr("hush")), Box[Told](content=SecretStr("hush"))),
        (Box[Paid](content=PaidTwice(number=1, cents=2, again=3)), Box[Paid](content=Paid(number=1, cents=2))),
        (Box[Any](content=(1, date(2024, 5, 1))), Box[Any](content=[1, "2024-05-01"])),
    ],
    ids=["secret", "secret that is told", "subclass in a field", "anything"],
)
def test_what_comes_back_as_something_else_is_documented(item: Box[Any], expected: Box[Any]) -> None:
    """Pydantic writes these so, and says nothing; where the model writes a secret itself, it is kept."""
    codec = PydanticCodec[Any](type(item))
    assert codec.decode(codec.encode(item)) == expected


@pytest.mark.parametrize("weight", [math.inf, -math.inf, math.nan, 0.5])
def test_the_settings_that_are_documented_keep_every_float_and_byte(weight: float) -> None:
    """Without them pydantic writes null for NaN, and refuses bytes that are no UTF-8."""
    codec = PydanticCodec(Raw)
    decoded = codec.decode(codec.encode(Raw(weight=weight, raw=b"\xff\0")))
    assert decoded.raw == b"\xff\0"
    assert decoded.weight == weight or (math.isnan(decoded.weight) and math.isnan(weight))
    after = PydanticCodec(Raw, version=2, upcasters={1: lambda old: old})
    assert str(after.decode(codec.encode(decoded))) == str(decoded)


def test_an_upcaster_may_return_a_model() -> None:
    """It is written under its fields' names."""
    item = Aliased.model_validate({"orderNumber": 7, "innerLine": Line(article="a", price=Decimal(1))})
    assert PydanticCodec(Aliased, version=2, upcasters={1: lambda _: item}).decode(b"\x01null") == item


@pytest.mark.parametrize("result", [None, {}, {"number": "seven", "cents": 1}, {"kind": "placed", "number": 1}, []])
def test_what_an_upcaster_makes_wrong_is_refused(result: Any) -> None:
    """It is validated as if it had been stored."""
    codec = PydanticCodec(Paid, version=2, upcasters={1: lambda _: result})
    with pytest.raises(ValidationError):
        codec.decode(b"\x01{}")


@pytest.mark.parametrize(
    ("codec", "item"),
    [
        (EVENTS, Placed(number=1)),
        (EVENTS, Paid(number=1, cents=2)),
        (PydanticCodec(Point), Point(1, 2)),
        (PydanticCodec(Box[int]), Box[int](content=7)),
        (PydanticCodec(RootModel[list[int]]), RootModel[list[int]]([7])),
        (PydanticCodec(dict[str, Point]), {"a": Point(1, 2)}),
        (PydanticCodec(Late), Late(number=7)),
        (PydanticCodec(Paid | None), None),
    ],
    ids=["union", "union, other", "dataclass", "generic", "root", "dict", "built late", "optional"],
)
def test_any_type_that_pydantic_knows_will_do(codec: PydanticCodec[Any], item: Any) -> None:
    """Unions of models above all: a journal of events has several."""
    decoded = codec.decode(codec.encode(item))
    assert decoded == item
    assert type(decoded) is type(item)


@pytest.mark.parametrize(
    ("codec", "item", "expected"),
    [
        (PydanticCodec(Paid), {"number": 1, "cents": 2}, "Paid, found dict"),
        (PydanticCodec(Paid), PaidTwice(number=1, cents=2), "Paid, found PaidTwice"),
        (EVENTS, PaidTwice(number=1, cents=2), "Paid or Placed, found PaidTwice"),
        (EVENTS, None, "Paid or Placed, found NoneType"),
        (PydanticCodec(Point), (1, 2), "Point, found tuple"),
    ],
    ids=["dict", "subclass", "subclass in a union", "None", "dataclass"],
)
def test_an_item_of_another_class_is_refused(codec: PydanticCodec[Any], item: Any, expected: str) -> None:
    """It would be written, and come back as another one or not at all."""
    with pytest.raises(TypeError, match=f"item: expected {expected}"):
        codec.encode(item)


@pytest.mark.parametrize(
    ("codec", "item"),
    [
        (PydanticCodec(Paid), Paid(number=1, cents=2).model_copy(update={"cents": "many"})),
        (PydanticCodec(dict[str, Point]), {"a": 7}),
        (PydanticCodec(Box[bytes]), Box[bytes](content=b"\xff")),
    ],
    ids=["wrong type", "inside", "no UTF-8"],
)
def test_an_item_that_could_not_be_read_is_refused(codec: PydanticCodec[Any], item: Any) -> None:
    """Where pydantic itself would warn and write it, and refuse to read it for ever after."""
    with pytest.raises(ValueError):
        codec.encode(item)


def test_a_type_that_pydantic_does_not_know_is_refused() -> None:
    """When the codec is made."""

    class Unknown:
        pass

    with pytest.raises(PydanticUserError):
        PydanticCodec(Unknown)


def test_a_pydantic_that_would_not_read_what_it_writes_is_refused() -> None:
    """At the import, and not by the first item that is read."""
    code = "import pydantic; pydantic.VERSION = '2.10.6'; import posjournal_async.codecs.pydantic"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    needed = "PydanticCodec needs pydantic 2.11 or newer, found 2.10.6: pip install 'posjournal_async[pydantic]'"
    assert done.stderr.splitlines()[-1] == f"ImportError: {needed}"
