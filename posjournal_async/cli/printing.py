"""Items as `cat` and `tail` show them: as text, as a line of JSON, or as the bytes that they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from posjournal_async.cli.exits import Code, end
from posjournal_async.cli.gaps import Gaps
from posjournal_async.cli.shown import json_of, shown
from posjournal_async.errors import CodecError, ItemOutOfRange
from posjournal_async.inspection.entries import Unreadable

if TYPE_CHECKING:
    from posjournal_async.cli.console import Output
    from posjournal_async.inspection.view import Decoder, JournalView

__all__ = ["Printer", "show"]

# Items between two movements of the progress bar.
_STEP = 1000


class Printer:
    """Prints items as the user asked for them.

    Attributes:
        output: Where to.
        is_raw: Whether they are bytes that are to be written as they are.
    """

    def __init__(self, output: Output, *, is_raw: bool) -> None:
        self.output = output
        self.is_raw = is_raw
        self._width = 0
        self._room = output.room_beside(0)

    def make_room_for(self, position: int) -> None:
        """Have all positions take as many columns as this one."""
        width = len(str(position))
        if width > self._width:
            self._width, self._room = width, self.output.room_beside(width)

    def print(self, position: int, item: Any) -> None:
        """Print an item."""
        if self.is_raw:
            self.output.raw(item)
        elif self.output.is_json:
            self.output.line({"position": position, "item": json_of(item)})
        else:
            self.output.item(position, shown(item, self._room), self._width)


async def show(printer: Printer, view: JournalView, decoder: Decoder[Any], start: int, stop: int) -> None:
    """Print the items from `start` to `stop`, which is not included, and say which cannot be shown.

    Raises:
        ItemOutOfRange: `start` is beyond the size.
        click.exceptions.Exit: Some cannot, once the others are printed.
    """
    if start > view.bounds.stop:
        raise ItemOutOfRange(start, view.bounds.stop)
    printer.make_room_for(max(stop - 1, 0))
    gaps = Gaps(printer.output)
    done = start
    with printer.output.progress("reading", max(stop - start, 0), "items", is_printing=True) as advance:
        try:
            async for entry in view.entries_of_one_history(start, stop):
                if entry.stop >= done + _STEP:
                    advance(entry.stop - done)
                    done = entry.stop
                if isinstance(entry, Unreadable):
                    gaps.add(entry.start, entry.stop, entry.error)
                    continue
                try:
                    item = decoder.item_of(entry)
                except CodecError as error:
                    gaps.add(entry.position, entry.stop, error)
                    continue
                gaps.end()
                printer.print(entry.position, item)
        finally:
            gaps.end()
    if gaps.count:
        end(Code.FINDINGS)
