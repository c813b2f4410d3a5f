"""Items as JSON and back, without a loss: what `export` writes and `import` reads.

The form is that of `shown.json_of`, as far as it holds the whole item; what it would only describe is refused:

| item | form |
|---|---|
| what JSON knows | as it is |
| bytes | `{"base64": "aGVsbG8="}` |
| datetime with a zone | `{"timestamp": "2026-01-31T12:00:00.000001+00:00"}`, in UTC |
| NaN, infinity | `{"float": "nan"}`, `{"float": "inf"}`, `{"float": "-inf"}` |
| MessagePack extension type | `{"ext": [code, "aGVsbG8="]}` |
| dict with a key that is no string | `{"map": [[key, value], ...]}` |
| dict that looks like one of these | as a map: `{"map": "north"}` is `{"map": [["map", "north"]]}` |

So each item has one form, and each form means one item.
"""

from __future__ import annotations

import base64
import json
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import msgpack

from posjournal_async.cli.shown import json_text

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["NoJsonForm", "item_in", "parse_json", "text_of"]

_FLOATS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}

# What `shown.json_of` says of an item that it only describes.
_DESCRIPTIONS = frozenset({"repr", "too_deep"})

# msgpack ships no types.
_ExtType: Any = msgpack.ExtType


class NoJsonForm(ValueError):
    """The item has no JSON form, or the JSON is the form of no item."""


def text_of(item: Any) -> str:
    """Return the JSON form of an item: one line of ASCII without a control character.

    Raises:
        NoJsonForm: The item holds something that none of the built-in codecs gives back, or is nested too deep.
    """
    try:
        return json_text(_form_of(item))
    except RecursionError:
        raise NoJsonForm("expected an item whose nesting can be followed, found it too deep") from None
    except NoJsonForm:
        raise
    except (OverflowError, ValueError) as error:  # a time that UTC has not, an integer that Python will not spell out
        raise NoJsonForm("expected a number or a time that JSON can hold, found one beyond that") from error


def _form_of(item: Any) -> Any:
    kind = cast("type[object]", type(item))
    form: Any = item
    if kind is dict:
        form = _form_of_dict(item)
    elif kind is list:
        form = [_form_of(part) for part in item]
    elif kind is float:
        form = item if math.isfinite(item) else {"float": str(item)}
    elif kind is bytes:
        form = {"base64": base64.b64encode(item).decode("ascii")}
    elif kind is datetime and item.tzinfo is not None:
        form = {"timestamp": item.astimezone(UTC).isoformat()}
    elif kind is _ExtType:
        form = {"ext": [item.code, base64.b64encode(item.data).decode("ascii")]}
    elif item is not None and kind not in {str, int, bool}:
        raise NoJsonForm(f"expected what JSON or MessagePack knows, found {type(item).__name__}")
    return form


def _form_of_dict(item: dict[Any, Any]) -> Any:
    looks_special = len(item) == 1 and not _MARKS.isdisjoint(item)
    if not looks_special and all(type(key) is str for key in item):
        return {key: _form_of(value) for key, value in item.items()}
    return {"map": [[_form_of(key), _form_of(value)] for key, value in item.items()]}


def parse_json(text: str) -> Any:
    """Return what plain JSON says, or raise rather than change it.

    Raises:
        ValueError: It is not JSON; or a key stands twice in an object, or a number is too large for a float.
    """
    return _parse(text, _object_of)


def item_in(text: str) -> Any:
    """Return the item that a JSON form stands for.

    Raises:
        ValueError: It is not JSON, as in `parse_json`, or not the form of an item.
    """
    return _parse(text, _item_of)


def _parse(text: str, object_of: Callable[[list[tuple[str, Any]]], Any]) -> Any:
    try:
        return json.loads(text, object_pairs_hook=object_of, parse_float=_float_of, parse_constant=_refuse)
    except RecursionError:
        raise NoJsonForm("expected nesting that can be followed, found it too deep") from None
    except json.JSONDecodeError as error:
        raise NoJsonForm(f"expected JSON: {error.msg[0].lower()}{error.msg[1:]}, column {error.pos + 1}") from None


def _float_of(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise NoJsonForm(f"expected a number that a float can hold, found {digits[:40]}")
    return number


def _refuse(constant: str) -> Any:
    raise NoJsonForm(f"expected JSON, found {constant}")


def _object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for place, (key, _) in enumerate(pairs) if any(key == other for other, _ in pairs[:place]))
        raise NoJsonForm(f"expected each key once in an object, found {twice[:40]!r} twice")
    return found


def _item_of(pairs: list[tuple[str, Any]]) -> Any:
    # The parts of an object are parsed before the object itself: `value` is an item already.
    if len(pairs) != 1 or pairs[0][0] not in _MARKS:
        return _object_of(pairs)
    [(mark, value)] = pairs
    if mark in _DESCRIPTIONS:
        raise NoJsonForm(f'expected an item, found "{mark}", which describes one and does not hold it')
    try:
        return _MEANINGS[mark](value)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise NoJsonForm(f'expected what stands for an item, found "{mark}" with something else') from error


def _bytes_of(text: str) -> bytes:
    return base64.b64decode(text.encode("ascii"), validate=True) if type(text) is str else _no(text)


def _datetime_of(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.astimezone(UTC) if moment.tzinfo is not None else _no(text)


def _dict_of(pairs: list[list[Any]]) -> dict[Any, Any]:
    if type(pairs) is not list or not all(type(pair) is list for pair in pairs):
        _no(pairs)
    found = {key: value for key, value in pairs}  # noqa: C416 - each pair has to have two parts
    return found if len(found) == len(pairs) else _no(pairs)


def _special_float_of(text: str) -> float:
    return _FLOATS[text]


def _ext_of(parts: list[Any]) -> Any:
    code, text = parts
    return _ExtType(code, _bytes_of(text)) if type(code) is int else _no(code)


def _no(value: object) -> Any:
    raise TypeError(type(value).__name__)


_MEANINGS: dict[str, Callable[[Any], Any]] = {
    "base64": _bytes_of,
    "timestamp": _datetime_of,
    "ext": _ext_of,
    "float": _special_float_of,
    "map": _dict_of,
}
_MARKS = _DESCRIPTIONS.union(_MEANINGS)
