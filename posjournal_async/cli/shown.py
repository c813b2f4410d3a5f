"""Items for people, escaped and cut, and for programs, as JSON: whatever an item is, something stands for it."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgpack

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["cut", "json_of", "json_text", "printable", "shown", "shown_bytes", "shown_time", "utc_time"]

# msgpack ships no types.
_ExtType: Any = msgpack.ExtType

# Nesting beyond which a value is described instead of given.
_DEEPEST = 200

# The years 2 to 9998, so that the time is one in every zone.
_FIRST_SECOND = int(datetime(2, 1, 2, tzinfo=UTC).timestamp())
_LAST_SECOND = int(datetime(9998, 12, 30, tzinfo=UTC).timestamp())

# Bits of an integer that is described: Python refuses to say those of more than 4,300 digits.
_LONG_INTEGER = 10_000

# Keys of the objects of `json_form` that stand for what JSON does not know.
_WORDS = frozenset({"base64", "timestamp", "map", "float", "ext", "repr", "too_deep"})


def printable(text: str) -> str:
    """Return text without a control character: what a terminal would not show as it is becomes an escape."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _escaped(character) for character in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def cut(text: str, width: int) -> str:
    """Return at most `width` characters, the last an ellipsis where there were more."""
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"


def shown(item: object, width: int = 120) -> str:
    """Return an item on one line of at most `width` characters, without a control character.

    What JSON knows looks like JSON; bytes, times and other things look as Python shows them. No more of a large item is
    looked at than is shown.
    """
    parts: list[str] = []
    _write(item, parts, width + 1, 0)
    return cut(printable("".join(parts)), width)


def _write(value: Any, parts: list[str], room: int, depth: int) -> int:
    """Add the text of a value to `parts` until there is no room; return how much room is left."""
    if room <= 0:
        return 0
    if depth > _DEEPEST:
        return _add("…", parts, room)
    if issubclass(type(value), dict):
        return _write_all(value.items(), "{}", parts, room, depth + 1)
    if type(value) in {list, tuple}:
        return _write_all(value, "[]", parts, room, depth + 1)
    return _add(_text_of(value, room), parts, room)


def _write_all(values: Iterable[Any], brackets: str, parts: list[str], room: int, depth: int) -> int:
    room = _add(brackets[0], parts, room)
    for number, value in enumerate(values):
        if room <= 0:
            return 0
        if number:
            room = _add(", ", parts, room)
        if brackets == "{}":
            room = _add(": ", parts, _write(value[0], parts, room, depth))
            room = _write(value[1], parts, room, depth)
        else:
            room = _write(value, parts, room, depth)
    return _add(brackets[1], parts, room)


def _add(text: str, parts: list[str], room: int) -> int:
    parts.append(text)
    return max(room - len(text), 0)


def _text_of(value: object, room: int) -> str:
    if isinstance(value, str):
        return json.dumps(value[:room], ensure_ascii=False)
    if isinstance(value, (bytes, bytearray)):
        return repr(bytes(value[:room]))
    if value is None or isinstance(value, (bool, float)):
        return json.dumps(value)
    if isinstance(value, int):
        return _text_of_integer(value)
    if isinstance(value, datetime):
        return value.isoformat()
    return repr(value)[:room]


def _text_of_integer(value: int) -> str:
    return str(value) if value.bit_length() < _LONG_INTEGER else f"an integer of {value.bit_length()} bits"


def json_of(item: object, depth: int = 0) -> Any:
    """Return what `json.dumps` takes, for any item.

    What `json_form.text_of` writes comes out the same. Of the rest, dataclasses and the models of msgspec and pydantic
    are given as objects, tuples as arrays, and times without a zone as they are. What is left is described:
    `{"repr": "..."}` says how Python shows it, and `{"too_deep": true}` stands for what is nested deeper than 200
    levels.
    """
    if isinstance(item, int) and item.bit_length() >= _LONG_INTEGER:
        return {"repr": _text_of_integer(item)}
    if item is None or isinstance(item, (bool, int, str)):
        return item
    if isinstance(item, float):
        return item if math.isfinite(item) else {"float": str(item)}
    form = _form_of(item)
    if form is not None:
        return form
    return {"too_deep": True} if depth >= _DEEPEST else _json_of_container(item, depth + 1)


def _form_of(item: Any) -> dict[str, Any] | None:
    """Return the object that stands for a single thing which JSON does not know; None for anything else."""
    if issubclass(type(item), (bytes, bytearray, memoryview)):
        return {"base64": base64.b64encode(item).decode("ascii")}
    if isinstance(item, datetime):
        try:
            return {"timestamp": (item if item.tzinfo is None else item.astimezone(UTC)).isoformat()}
        except OverflowError:  # at the edge of what can be said, and in another zone beyond it
            return {"repr": repr(item)}
    if isinstance(item, _ExtType):
        return {"ext": [item.code, base64.b64encode(item.data).decode("ascii")]}
    return None


def _json_of_container(item: Any, depth: int) -> Any:
    # issubclass: what is known of the item stays Any, which isinstance would narrow to containers of unknown things.
    if issubclass(type(item), (list, tuple)):
        return [json_of(value, depth) for value in item]
    if issubclass(type(item), dict):
        if all(isinstance(key, str) for key in item) and not (len(item) == 1 and _WORDS.issuperset(item)):
            return {key: json_of(value, depth) for key, value in item.items()}
        return {"map": [[json_of(key, depth), json_of(value, depth)] for key, value in item.items()]}
    fields = _fields_of(item)
    return {"repr": repr(item)} if fields is None else json_of(fields, depth)


def _fields_of(item: Any) -> dict[str, Any] | None:
    """Return what a typed item holds; None where that is not known."""
    if dataclasses.is_dataclass(item):
        return {field.name: getattr(item, field.name) for field in dataclasses.fields(item)}
    dump = getattr(item, "model_dump", None)  # pydantic
    if callable(dump):
        dumped: Any = dump()
        return dict(dumped)
    names: Any = getattr(item, "__struct_fields__", None)  # msgspec
    return None if names is None else {name: getattr(item, name) for name in names}


def json_text(value: Any, *, indent: int | None = None) -> str:
    """Return JSON in ASCII without a control character other than the line ends of an indentation.

    Lone surrogates and whatever else a terminal would act on are escapes in it.
    """
    separators = (",", ":") if indent is None else (",", ": ")
    return json.dumps(value, indent=indent, separators=separators)


def shown_bytes(count: int) -> str:
    """Return a number of bytes for people: `1,234 B`, `5.0 MiB`."""
    if count < 10_000:
        return f"{count:,} B"
    size = float(count)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        size /= 1024
        if size < 1024:
            return f"{size:.1f} {unit}"
    return f"{size / 1024:,.1f} PiB"


def shown_time(nanoseconds: int) -> str:
    """Return a moment, in nanoseconds since 1970, as local time with its distance from UTC, to the second."""
    return datetime.fromtimestamp(_seconds_of(nanoseconds)).astimezone().isoformat(sep=" ")


def utc_time(nanoseconds: int) -> str:
    """Return a moment, in nanoseconds since 1970, in UTC as ISO 8601 has it, to the second."""
    return datetime.fromtimestamp(_seconds_of(nanoseconds), UTC).isoformat()


def _seconds_of(nanoseconds: int) -> int:
    """Return whole seconds, as far as a time can be said: some file systems keep those of any year."""
    return min(max(nanoseconds // 10**9, _FIRST_SECOND), _LAST_SECOND)
