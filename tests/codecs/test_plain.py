"""`codecs.plain`: what goes in comes out equal, and what cannot come out is refused when it goes in."""

import copy
import doctest
import json
import math
import pickle
import threading
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from posjournal_async import BytesCodec, Codec, JsonCodec, MsgpackCodec
from posjournal_async.codecs import plain

_msgpack: Any = msgpack  # it ships no types

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ZONES = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
TIMES = st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31), timezones=ZONES)  # noqa: DTZ001 - the zone is drawn
FINITE = st.floats(allow_nan=False, allow_infinity=False)


def nested(leaves: st.SearchStrategy[Any], keys: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(keys, inner), max_leaves=12)


MSGPACK_KEYS = TEXT | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=5) | st.booleans() | st.none()
MSGPACK_ITEMS = nested(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | TEXT
    | st.binary(max_size=20)
    | TIMES,
    MSGPACK_KEYS,
)
JSON_ITEMS = nested(st.none() | st.booleans() | st.integers() | FINITE | TEXT, TEXT)

ALL: list[Codec[Any]] = [BytesCodec(), JsonCodec(), MsgpackCodec()]
each_codec = pytest.mark.parametrize("codec", ALL, ids=lambda codec: codec.name)


def deep(levels: int) -> list[Any]:
    item: list[Any] = []
    for _ in range(levels - 1):
        item = [item]
    return item


def levels_of(item: list[Any]) -> int:
    levels = 1
    while item:
        [item] = item
        levels += 1
    return levels


def refuses(convert: Callable[[Any], Any], value: Any) -> bool:
    try:
        convert(value)
    except (TypeError, ValueError):
        return True
    return False


@given(MSGPACK_ITEMS)
def test_msgpack_gives_equal_items(item: Any) -> None:
    """Everything that MessagePack knows comes back equal, as bytes in between."""
    codec = MsgpackCodec()
    encoded = codec.encode(item)
    assert type(encoded) is bytes
    assert codec.decode(encoded) == item


@given(JSON_ITEMS)
def test_json_gives_equal_items(item: Any) -> None:
    """Everything that JSON knows comes back equal, as bytes in between that any JSON reader takes."""
    codec = JsonCodec()
    encoded = codec.encode(item)
    assert type(encoded) is bytes
    assert codec.decode(encoded) == item
    assert json.loads(encoded.decode("utf-8")) == item


@given(st.binary(), st.sampled_from([bytes, bytearray, memoryview]))
def test_bytes_come_back_as_they_are(item: bytes, kind: Callable[[bytes], Any]) -> None:
    """Bytes of any kind come back as equal `bytes`."""
    codec = BytesCodec()
    encoded = codec.encode(kind(item))
    assert type(encoded) is bytes
    assert codec.decode(encoded) == item


def test_bytes_are_not_copied() -> None:
    """What cannot change is stored as it is."""
    item = b"as it is"
    assert BytesCodec().encode(item) is item


def test_bytes_that_may_change_are_copied() -> None:
    """What the caller does to a buffer after the append does not reach the journal."""
    item = bytearray(b"before")
    encoded = BytesCodec().encode(item)
    item[:] = b"after!"
    assert encoded == b"before"


def test_a_view_with_gaps_is_stored_without_them() -> None:
    """A memoryview is the bytes that it shows."""
    assert BytesCodec().encode(memoryview(b"a-b-c-")[::2]) == b"abc"


def test_a_subclass_of_bytes_is_stored_as_bytes() -> None:
    """What reaches the journal has no behaviour of its own."""

    class Name(bytes):
        __slots__ = ()

    encoded = BytesCodec().encode(Name(b"plain"))
    assert type(encoded) is bytes
    assert encoded == b"plain"


@pytest.mark.parametrize("item", ["text", 7, None, [1, 2], {"a": b"b"}])
def test_bytes_refuse_what_is_not_bytes(item: Any) -> None:
    """An integer in particular is not taken for a number of zeros."""
    with pytest.raises(TypeError, match="item: expected bytes, found"):
        BytesCodec().encode(item)


@pytest.mark.parametrize(
    "item",
    [
        pytest.param(2**64, id="above 64 bits"),
        pytest.param(-(2**63) - 1, id="below 64 bits"),
        pytest.param({1, 2}, id="set"),
        pytest.param(object(), id="object"),
        pytest.param([1, {"deep": 1j}], id="inside"),
        pytest.param(datetime(2024, 5, 1), id="no zone"),  # noqa: DTZ001 - that is the point
        pytest.param("\ud800", id="lone surrogate"),
    ],
)
def test_msgpack_refuses_what_it_does_not_know(item: Any) -> None:
    """A bad item raises when it is encoded, and the next one is not affected."""
    codec = MsgpackCodec()
    with pytest.raises((TypeError, ValueError, OverflowError)):
        codec.encode(["something before", item])
    assert codec.decode(codec.encode({"next": 1})) == {"next": 1}


class Zone(tzinfo):
    """UTC, written in Python: asked for its offset it lets another thread in, until that says to go on."""

    def __init__(self) -> None:
        self.is_asked = threading.Event()
        self.goes_on = threading.Event()

    @override
    def utcoffset(self, dt: datetime | None, /) -> timedelta:
        self.is_asked.set()
        assert self.goes_on.wait(30)
        return timedelta()

    @override
    def dst(self, dt: datetime | None, /) -> None:
        return None

    @override
    def tzname(self, dt: datetime | None, /) -> str:
        return "UTC"


def test_threads_that_share_a_codec_get_their_own_items() -> None:
    """One of them encodes an item while another one is in the middle of its own."""
    codec, zone = MsgpackCodec(), Zone()
    slow = {"before": 1, "at": datetime(2024, 5, 1, tzinfo=zone), "after": [2, 3]}
    codec.encode("one before them")
    with ThreadPoolExecutor(1) as pool:
        encoding = pool.submit(codec.encode, slow)
        try:
            assert zone.is_asked.wait(30)
            quick = codec.encode({"from": "another thread"})
        finally:
            zone.goes_on.set()
        encoded = encoding.result()
    assert codec.decode(quick) == {"from": "another thread"}
    assert codec.decode(encoded) == {**slow, "at": datetime(2024, 5, 1, tzinfo=UTC)}


def test_an_item_that_is_encoded_while_another_one_is_stays_whole() -> None:
    """So does the other one: a dict of a class of its own may do anything when it is asked for what it holds."""
    codec = MsgpackCodec()
    inner: list[bytes] = []

    class Asked(dict[str, int]):
        @override
        def items(self) -> Any:
            inner.append(codec.encode("inner"))
            return super().items()

    codec.encode("one before them")
    outer = codec.encode(["outer", Asked(a=1, b=2)])
    assert [codec.decode(data) for data in inner] == ["inner"]
    assert codec.decode(outer) == ["outer", {"a": 1, "b": 2}]


@each_codec
def test_a_long_item_leaves_no_memory_behind(codec: Codec[Any]) -> None:
    """What a codec keeps for the next item does not grow with the longest one: one was there that no journal takes."""
    item: Any = b"x" * 2**24 if codec.name != "json" else "x" * 2**24
    codec.encode(item[:1])
    tracemalloc.start()
    try:
        codec.encode(item)
        codec.encode(item[:1])
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 2**20


@each_codec
def test_a_codec_that_was_used_pickles_and_is_copied(codec: Codec[Any]) -> None:
    """A configuration goes to a process of its own with its codec."""
    item = b"item" if codec.name == "bytes" else "item"
    encoded = codec.encode(item)
    copies = [copy.copy(codec), copy.deepcopy(codec)]
    copies += [pickle.loads(pickle.dumps(codec, way)) for way in range(pickle.HIGHEST_PROTOCOL + 1)]  # noqa: S301 - our own
    for copied in copies:
        assert type(copied) is type(codec)
        assert copied.encode(item) == encoded
        assert copied.decode(encoded) == item


@pytest.mark.parametrize(
    "item",
    [
        pytest.param(math.nan, id="nan"),
        pytest.param(math.inf, id="infinity"),
        pytest.param([-math.inf], id="inside"),
        pytest.param(b"bytes", id="bytes"),
        pytest.param({1, 2}, id="set"),
        pytest.param(datetime(2024, 5, 1, tzinfo=UTC), id="datetime"),
        pytest.param({(1, 2): 3}, id="key"),
        pytest.param("\ud800", id="lone surrogate"),
    ],
)
def test_json_refuses_what_it_does_not_know(item: Any) -> None:
    """A bad item raises when it is encoded, and the next one is not affected."""
    codec = JsonCodec()
    with pytest.raises((TypeError, ValueError)):
        codec.encode(["something before", item])
    assert codec.decode(codec.encode({"next": 1})) == {"next": 1}


@pytest.mark.parametrize("codec", [JsonCodec(), MsgpackCodec()], ids=["json", "msgpack"])
def test_an_item_that_contains_itself_is_refused(codec: Codec[Any]) -> None:
    """An endless item is an error, not an endless loop."""
    item: list[Any] = []
    item.append(item)
    with pytest.raises(ValueError):
        codec.encode(item)


def test_msgpack_reads_what_is_nested_as_deep_as_documented() -> None:
    """1,024 levels go through, 512 with msgpack 1.1; one more is not written, or not read, as each version has it."""
    codec = MsgpackCodec()
    most = 1_024 if _msgpack.version >= (1, 2) else 512
    assert levels_of(codec.decode(codec.encode(deep(most)))) == most
    assert refuses(lambda item: codec.decode(codec.encode(item)), deep(most + 1))


def test_msgpack_cannot_read_a_tuple_as_a_key() -> None:
    """The key is packed as an array, which comes back as a list, which no dict can hold."""
    codec = MsgpackCodec()
    assert refuses(codec.decode, codec.encode({(1, 2): "pair"}))


@pytest.mark.parametrize(
    "moment",
    [
        datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-5))),
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5))),
    ],
    ids=["after", "before"],
)
def test_msgpack_cannot_read_a_moment_that_is_none_in_utc(moment: datetime) -> None:
    """It is packed as a number of seconds, for which there is no datetime; the last and the first of UTC go through."""
    codec = MsgpackCodec()
    encoded = codec.encode(moment)
    with pytest.raises(OverflowError):
        codec.decode(encoded)
    for edge in (datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)):
        assert codec.decode(codec.encode(edge)) == edge


def test_msgpack_has_documented_conversions() -> None:
    """Tuples come back as lists, and moments in UTC."""
    codec = MsgpackCodec()
    moment = datetime(2024, 5, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    decoded = codec.decode(codec.encode((1, (2,), moment)))
    assert decoded == [1, [2], moment]
    assert decoded[2].tzinfo is UTC


def test_json_is_compact_utf8() -> None:
    """No byte is spent on spaces or escapes."""
    assert JsonCodec().encode({"a": [1, "é"]}) == '{"a":[1,"é"]}'.encode()


@pytest.mark.parametrize(
    ("codec", "data"),
    [
        pytest.param(MsgpackCodec(), b"", id="msgpack-nothing"),
        pytest.param(MsgpackCodec(), b"\xc1", id="msgpack-never used"),
        pytest.param(MsgpackCodec(), b"\x92\x01", id="msgpack-cut"),
        pytest.param(MsgpackCodec(), b"\x01\x02", id="msgpack-two items"),
        pytest.param(MsgpackCodec(), b"\xdd\xff\xff\xff\xff", id="msgpack-claims 4 Gi items"),
        pytest.param(JsonCodec(), b"", id="json-nothing"),
        pytest.param(JsonCodec(), b"[1,", id="json-cut"),
        pytest.param(JsonCodec(), b"1 2", id="json-two items"),
        pytest.param(JsonCodec(), b"\xff\xfe\xfd", id="json-no text"),
    ],
)
def test_bytes_of_no_item_are_refused(codec: Codec[Any], data: bytes) -> None:
    """What `encode` never makes raises when it is decoded."""
    with pytest.raises(ValueError):
        codec.decode(data)


@each_codec
def test_a_name_fits_the_disk(codec: Codec[Any]) -> None:
    """Every name is 1 to 8 printable ASCII characters."""
    assert 1 <= len(codec.name) <= 8
    assert codec.name.isascii()
    assert codec.name.isprintable()


def test_names_tell_the_codecs_apart() -> None:
    """The name on disk says which codec wrote it: it must never change."""
    assert [codec.name for codec in ALL] == ["bytes", "json", "msgpack"]


def test_the_examples_of_the_documentation_run() -> None:
    """What the docstrings show is what happens."""
    outcome = doctest.testmod(plain)
    assert outcome.attempted > 0
    assert outcome.failed == 0
