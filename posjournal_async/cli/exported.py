"""Files that `import` reads: JSON lines or Parquet, entry by entry, as often as they are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Protocol, cast

from posjournal_async.cli.arrow import parquet_length, parquet_rows
from posjournal_async.cli.json_form import item_in

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["BadEntry", "Entry", "Exported", "JsonLines", "Parquet"]

# The JSON of an item may be six times as long as the item, where all of it is control characters, and more.
_LONGEST_LINE = 2**30


class BadEntry(Exception):
    """A place in the file where something else stands than what import takes."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One item of a file.

    Attributes:
        place: Where it stands, for people.
        position: Its position, None if the file has none.
        item: The item.
        length: What it takes of the file, in the unit of `Exported.unit`.
        text_length: Characters of its JSON form, more or less.
    """

    place: str
    position: int | None
    item: Any
    length: int
    text_length: int


class Exported(Protocol):
    """A file that was exported, or that looks so.

    Attributes:
        unit: What `total` and the lengths of entries count.
        total: How much there is.
    """

    unit: str
    total: int

    def entries(self) -> Iterator[Entry]:
        """Yield the entries from the start.

        Raises:
            BadEntry: Something else stands there.
        """
        ...


class JsonLines:
    """JSON lines: `{"position": 7, "item": ...}` each, or only the item.

    Args:
        file: The file, which can be read again from its start.
        with_positions: Whether the lines have positions.
    """

    unit = "bytes"

    def __init__(self, file: IO[bytes], *, with_positions: bool) -> None:
        self.total = file.seek(0, 2)
        self._file = file
        self._with_positions = with_positions

    def entries(self) -> Iterator[Entry]:
        """Yield the entries from the start; lines with nothing but white space are passed over."""
        self._file.seek(0)
        number = 0
        while line := self._file.readline(_LONGEST_LINE + 1):
            number += 1
            place = f"line {number}"
            if len(line) > _LONGEST_LINE:
                raise BadEntry(f"{place}: expected at most {_LONGEST_LINE:,} bytes, found more")
            if not line.strip():
                continue
            try:
                found = item_in(line.decode())
                position, item = _parts_of(found) if self._with_positions else (None, found)
            except UnicodeDecodeError as error:
                found = f"found byte 0x{line[error.start]:02x} in column {error.start + 1}"
                raise BadEntry(f"{place}: expected UTF-8, {found}") from error
            except ValueError as error:
                raise BadEntry(f"{place}: {error}") from error
            yield Entry(place, position, item, len(line), len(line))


def _parts_of(found: Any) -> tuple[int, Any]:
    if type(found) is not dict or set(found) != {"position", "item"}:  # pyright: ignore[reportUnknownArgumentType]
        raise ValueError('expected {"position": ..., "item": ...}; --items-only takes each line as an item')
    known = cast("dict[str, Any]", found)
    return _position_of(known["position"]), known["item"]


def _position_of(position: Any) -> int:
    if type(position) is not int or position < 0:
        raise ValueError("position: expected a number from 0 on")
    return position


class Parquet:
    """A Parquet file with the columns `position` and `item`, or only `item`, which is JSON as text.

    Args:
        file: The file, which can be read again from its start.
        with_positions: Whether the file has positions.

    Raises:
        BadEntry: It is no Parquet.
    """

    unit = "items"

    def __init__(self, file: IO[bytes], *, with_positions: bool) -> None:
        self._file = file
        self._with_positions = with_positions
        try:
            self.total = parquet_length(file)
        except ValueError as error:
            raise BadEntry(str(error)) from error

    def entries(self) -> Iterator[Entry]:
        """Yield the entries from the start."""
        number = 0
        try:
            for position, text in parquet_rows(self._file, with_positions=self._with_positions):
                number += 1
                yield self._entry(f"row {number}", position, text)
        except ValueError as error:
            raise BadEntry(str(error)) from error

    def _entry(self, place: str, position: int | None, text: Any) -> Entry:
        if type(text) is not str:
            raise BadEntry(f"{place}: item: expected JSON as text, found {type(text).__name__}")
        try:
            return Entry(place, _position_of(position) if self._with_positions else None, item_in(text), 1, len(text))
        except ValueError as error:
            raise BadEntry(f"{place}: {error}") from error
