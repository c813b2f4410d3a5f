"""Items for people and for programs, and the choice of who decodes them."""

from __future__ import annotations

import dataclasses
import json
import sys
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import click
import msgpack
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posjournal_async import BytesCodec, JsonCodec, MsgpackCodec
from posjournal_async.cli.codec_choice import codec_of
from posjournal_async.cli.json_form import NoJsonForm, text_of
from posjournal_async.cli.shown import cut, json_of, json_text, printable, shown, shown_bytes, shown_time, utc_time

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=[]))
    | st.binary()
    | st.datetimes(timezones=st.just(UTC))
)
items = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner), max_leaves=8
)


@given(items, st.integers(1, 200))
def test_an_item_is_one_short_line_that_a_terminal_does_nothing_with(item: Any, width: int) -> None:
    """Whatever is in it."""
    text = shown(item, width)
    assert text.isprintable()
    assert len(text) <= width


@given(items)
def test_json_is_ascii_that_can_be_read_back(item: Any) -> None:
    """Without a control character."""
    text = json_text(json_of(item))
    assert text.isascii()
    assert text.isprintable()
    assert json.loads(text) == json_of(item)


@given(items)
def test_json_of_what_can_be_given_back_is_that_of_export(item: Any) -> None:
    """There is one form of an item, in all commands."""
    assert json_of(item) == json.loads(text_of(item))


def test_json_has_no_control_character_at_all() -> None:
    """Not even the one that JSON allows."""
    assert json_text({"a": "\x7f\x9b\u202e\ud800\n"}) == '{"a":"\\u007f\\u009b\\u202e\\ud800\\n"}'


@dataclasses.dataclass
class Point:
    x: int
    y: bytes


class Struct(msgspec.Struct):
    x: int


class Model(pydantic.BaseModel):
    x: int


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ((1, 2), [1, 2]),
        (Point(1, b"\0"), {"x": 1, "y": {"base64": "AA=="}}),
        (Struct(2), {"x": 2}),
        (Model(x=3), {"x": 3}),
        (msgpack.ExtType(5, b"\0"), {"ext": [5, "AA=="]}),
        (datetime(2026, 1, 31, tzinfo=None), {"timestamp": "2026-01-31T00:00:00"}),  # noqa: DTZ001 - on purpose
        ({"base64": "north"}, {"map": [["base64", "north"]]}),
        (3j, {"repr": "3j"}),
        (float("nan"), {"float": "nan"}),
    ],
)
def test_json_stands_for_any_item(item: Any, expected: Any) -> None:
    """Also for those that no built-in codec gives."""
    assert json_of(item) == expected
    assert shown(item)


ZONE = timezone(timedelta(hours=5))


@pytest.mark.parametrize(
    "item", [10**5_000, -(2**20_000), datetime.min.replace(tzinfo=ZONE)], ids=["long", "negative", "early"]
)
def test_what_is_beyond_the_edges_is_described(item: object) -> None:
    """Such things a codec of somebody's own may give: they are no reason to end, and nothing that export takes."""
    assert list(json_of(item)) == ["repr"]
    assert json.loads(json_text(json_of([item])))
    with pytest.raises(NoJsonForm):
        text_of([item])


@pytest.mark.parametrize("seconds", [-(10**12), -62_135_596_800, 253_402_300_799, 10**12])
def test_a_time_that_no_calendar_has_is_shown_as_the_nearest(seconds: int) -> None:
    """Some file systems keep times of any year, also such as no clock has shown."""
    for said in (shown_time(seconds * 10**9), utc_time(seconds * 10**9)):
        assert said[:4] == ("0002" if seconds < 0 else "9998")


def test_what_is_nested_too_deep_is_described() -> None:
    """Instead of running out of stack."""
    item: Any = []
    for _ in range(5_000):
        item = [item]
    assert json_text(json_of(item)).count("[") == 200
    assert shown(item, 300) == "[" * 201 + "…" + "]" * 97 + "…"


def test_of_a_large_item_no_more_is_looked_at_than_is_shown() -> None:
    """Neither of its parts nor of their bytes."""

    class Counted(dict[int, bytes]):
        """A dict that counts how far somebody has come in it."""

        seen = 0

        def items(self) -> Any:
            for pair in super().items():
                self.seen += 1
                yield pair

    item = Counted(dict.fromkeys(range(100_000), b"x" * 10**7))
    assert len(shown(item, 50)) == 50
    assert item.seen < 5


def test_an_escape_is_python_s() -> None:
    """As in its string literals, so that it can be pasted."""
    assert printable("a\x1b\n\u202e\ud800é") == "a\\x1b\\n\\u202e\\ud800é"


@pytest.mark.parametrize(("text", "width", "expected"), [("abc", 3, "abc"), ("abcd", 3, "ab…"), ("ab", 1, "…")])
def test_what_is_too_long_ends_in_an_ellipsis(text: str, width: int, expected: str) -> None:
    """And is never longer than asked for."""
    assert cut(text, width) == expected


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, "0 B"), (9_999, "9,999 B"), (10_240, "10.0 KiB"), (5 * 2**30, "5.0 GiB"), (2**60, "1,024.0 PiB")],
)
def test_bytes_have_a_unit(count: int, expected: str) -> None:
    """A power of 1,024."""
    assert shown_bytes(count) == expected


def test_a_moment_says_how_far_it_is_from_utc() -> None:
    """For people and for programs."""
    assert utc_time(1_769_860_800 * 10**9) == "2026-01-31T12:00:00+00:00"
    assert datetime.fromisoformat(shown_time(1_769_860_800 * 10**9)) == datetime(2026, 1, 31, 12, tzinfo=UTC)


# The choice of a codec.


@pytest.mark.parametrize(
    ("recorded", "given", "kind"),
    [
        ("msgpack", None, MsgpackCodec),
        ("json", None, JsonCodec),
        ("bytes", None, BytesCodec),
        ("json", "bytes", BytesCodec),
        ("", None, BytesCodec),
        ("strange", "posjournal_async:JsonCodec", JsonCodec),
    ],
)
def test_a_codec_is_known_by_the_recorded_name_or_named(recorded: str, given: str | None, kind: type) -> None:
    """What the user says counts."""
    assert type(codec_of(recorded, given)) is kind


@pytest.mark.parametrize(
    ("recorded", "data", "item"),
    [("mp/3", b"\x03\x01", 1), ("json/255", b"\xff[1]", [1]), ("pb/12", b"\x0c\x01", b"\x01")],
)
def test_a_typed_codec_is_read_without_its_type(recorded: str, data: bytes, item: Any) -> None:
    """By the encoding that its name says, behind the byte of the version; it goes on under that name."""
    codec = codec_of(recorded, None)
    assert (codec.name, codec.decode(data), codec.encode(item)) == (recorded, item, data)


def test_raw_bytes_need_no_codec() -> None:
    """Whatever the journal records."""
    assert type(codec_of("strange", None, is_raw=True)) is BytesCodec


@pytest.mark.parametrize(
    "named", ["toml", "json:", ":loads", "json:dumps", "no_such_module:x", "json:nothing", "os:x.y"]
)
def test_what_is_no_codec_is_a_matter_of_usage(named: str) -> None:
    """The message says what is wrong with it."""
    with pytest.raises(click.UsageError, match="--codec"):
        codec_of("json", named)


@pytest.mark.parametrize("recorded", ["strange", "mp/", "mp/x", "xx/1", "\x1b"])
def test_an_unknown_codec_has_to_be_named(recorded: str) -> None:
    """And is told without a control character."""
    with pytest.raises(click.UsageError, match="--codec") as raised:
        codec_of(recorded, None)
    assert raised.value.message.isprintable()


def test_a_codec_of_the_user_is_found_in_the_current_directory(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `python -m` would find it; a class is called, an object is taken."""
    (tmp_path / "mine_of_a_test.py").write_text(
        "class Codec:\n    name = 'mine'\n    encode = decode = staticmethod(bytes)\nready = Codec()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert codec_of("mine", "mine_of_a_test:Codec").decode(b"a") == b"a"
    assert codec_of("mine", "mine_of_a_test:ready").name == "mine"
