"""What a command prints: results on standard output, as text or JSON; messages and progress on standard error."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from threading import Timer
from typing import TYPE_CHECKING, Any, TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import DownloadColumn as BytesColumn
from rich.text import Text

from posjournal_async.cli.shown import cut, json_text, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

__all__ = ["Output"]


# How long something takes before a bar shows how far it is.
_PATIENCE_SECONDS = 0.5

# Columns between a position and its item, and the fewest that an item gets.
_GAP = 2
_NARROWEST = 20


class Output:
    """Prints what a command has found. Reached by `click.pass_obj` in commands with `options.json_option`.

    Args:
        is_json: Whether the user asked for JSON.

    Attributes:
        is_json: Whether the user asked for JSON.
    """

    def __init__(self, *, is_json: bool) -> None:
        self.is_json = is_json

    @property
    def is_terminal(self) -> bool:
        """Whether standard output is a terminal."""
        return sys.stdout.isatty()

    @property
    def width(self) -> int:
        """Columns of the terminal; 100 where standard output is none."""
        return _console(sys.stdout).width if self.is_terminal else 100

    # Standard output.

    def document(self, schema: str, fields: dict[str, Any]) -> None:
        """Print the one JSON document that a command results in.

        Args:
            schema: Its name and version, such as "posjournal.info/1", which comes first in it.
            fields: The rest.
        """
        _write(sys.stdout, json_text({"schema": schema, **fields}, indent=2))

    def line(self, fields: dict[str, Any]) -> None:
        """Print one line of JSON of a stream."""
        _write(sys.stdout, json_text(fields))

    def say(self, text: str, *, style: str = "") -> None:
        """Print text for people, in a style of rich where there is a terminal; control characters become escapes."""
        for line in text.split("\n"):
            self._say_line(printable(line), style)

    def _say_line(self, line: str, style: str) -> None:
        if style and self.is_terminal:
            _console(sys.stdout).print(Text(line, style=style), soft_wrap=True)
        else:
            _write(sys.stdout, line)

    def table(
        self, columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = (), title: str = ""
    ) -> None:
        """Print a table; on a terminal the last column is cut where the line would be too long.

        Args:
            columns: Headings.
            rows: A text for each column.
            right: Columns that are aligned to the right: numbers.
            title: What stands above it.
        """
        cells = [[printable(cell) for cell in row] for row in rows]
        widths = [max(map(cell_len, column)) for column in zip(columns, *cells, strict=True)]
        if title:
            self.say(title, style="bold")
        self._say_line(_row_of(columns, columns, widths, right, self._room), "bold")
        for row in cells:
            self._say_line(_row_of(row, columns, widths, right, self._room), "")

    def pairs(self, rows: Iterable[tuple[str, str]]) -> None:
        """Print names and values, one pair a line."""
        known = list(rows)
        width = max((len(name) for name, _ in known), default=0)
        for name, value in known:
            self.say(f"{name.ljust(width)}  {value}")

    def room_beside(self, width: int) -> int:
        """Return how many columns an item has beside positions that take `width`; no end where it is no terminal."""
        return max(self.width - width - _GAP, _NARROWEST) if self.is_terminal else sys.maxsize

    def item(self, position: int, text: str, width: int) -> None:
        """Print an item, given as `shown.shown` says, behind its position, which takes `width` columns."""
        _write(sys.stdout, f"{position:>{width}}  {text}")

    def raw(self, data: bytes) -> None:
        """Write bytes as they are."""
        sys.stdout.flush()
        sys.stdout.buffer.write(data)

    @property
    def _room(self) -> int | None:
        return self.width if self.is_terminal else None

    def flush(self) -> None:
        """Hand on what was printed: for streams that somebody waits for."""
        sys.stdout.flush()

    # Standard error.

    def note(self, text: str) -> None:
        """Print a message; control characters become escapes."""
        sys.stdout.flush()  # in the order in which it happened, where both go to one place
        for line in text.split("\n"):
            _write(sys.stderr, printable(line))

    @contextmanager
    def progress(
        self, description: str, total: int | None, unit: str, *, is_printing: bool = False
    ) -> Generator[Callable[[int], None]]:
        """Show how far something is, on standard error where it is a terminal; nothing otherwise.

        Args:
            description: What is being done.
            total: How much there is to do; None if that is not known.
            unit: What is counted; "bytes" are shown as such.
            is_printing: Whether results are printed meanwhile: then there is no bar if they go to a terminal too.

        Yields:
            What to call with the amount that was done since the last call.
        """
        if not sys.stderr.isatty() or (is_printing and self.is_terminal):
            yield lambda _: None
            return
        amount = BytesColumn(binary_units=True) if unit == "bytes" else MofNCompleteColumn()
        columns = [TextColumn("{task.description}"), BarColumn(), amount, TextColumn("" if unit == "bytes" else unit)]
        bar = Progress(
            *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=_console(sys.stderr), transient=True
        )
        task = bar.add_task(description, total=total)
        start = Timer(_PATIENCE_SECONDS, bar.start)  # what is quick does not flicker
        start.daemon = True
        start.start()
        try:
            yield lambda amount: bar.advance(task, amount)
        finally:
            start.cancel()
            start.join()
            if bar.live.is_started:
                bar.stop()


def _console(stream: TextIO) -> Console:
    return Console(file=stream, highlight=False, markup=False, emoji=False)


def _write(stream: TextIO, line: str) -> None:
    """Write a line; what the stream's encoding does not have becomes an escape."""
    try:
        stream.write(f"{line}\n")
    except UnicodeEncodeError:
        encoding = stream.encoding or "ascii"
        stream.write(f"{line.encode(encoding, 'backslashreplace').decode(encoding)}\n")


def _row_of(
    row: Sequence[str], columns: Sequence[str], widths: Sequence[int], right: Sequence[str], room: int | None
) -> str:
    parts: list[str] = []
    for cell, column, width in zip(row, columns, widths, strict=True):
        gap = " " * (width - cell_len(cell))
        parts.append(gap + cell if column in right else cell + gap)
    line = "  ".join(parts).rstrip()
    return line if room is None or cell_len(line) <= room else cut(line, room)
