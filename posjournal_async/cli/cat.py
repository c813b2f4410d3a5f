"""`posjournal cat`: the items of a journal, one after the other."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import click

from posjournal_async.cli import exits
from posjournal_async.cli.codec_choice import codec_of
from posjournal_async.cli.gaps import Gaps
from posjournal_async.cli.options import codec_option, json_option, path_argument, raw_option
from posjournal_async.cli.shown import json_of, shown
from posjournal_async.errors import CodecError, ItemOutOfRange
from posjournal_async.inspection.entries import Unreadable
from posjournal_async.inspection.view import Decoder, JournalView

if TYPE_CHECKING:
    from collections.abc import Callable

    from posjournal_async.cli.console import Output
    from posjournal_async.cli.options import JournalPath

__all__ = ["cat"]

# Items between two movements of the progress bar.
_STEP = 1000


@click.command
@path_argument
@click.option(
    "--from", "start", metavar="POS", type=click.IntRange(min=0), help="First position. [default: the oldest]"
)
@click.option(
    "--to", "stop", metavar="POS", type=click.IntRange(min=0), help="Position to stop before. [default: the size]"
)
@codec_option
@raw_option
@json_option
@click.pass_obj
def cat(  # noqa: PLR0913 - what the user may say
    output: Output, path: JournalPath, start: int | None, stop: int | None, codec: str | None, *, raw: bool
) -> None:
    """Show items in order, all or those of a range.

    The range begins at --from, and ends before --to. With --json each item is a line: {"position": 7, "item": ...}.
    Those that cannot be read are named on standard error, the others are still shown. What is appended meanwhile is
    not; a rewind behind what was shown ends it with exit code 1. Nothing is changed, and no lock is taken.

    \b
    Examples:
      posjournal cat data/orders --from 1000 --to 1010
      posjournal cat data/orders --json | jq .item.state
    """
    if start is not None and stop is not None and start > stop:
        raise click.UsageError(f"--from {start} lies behind --to {stop}")
    asyncio.run(_cat(output, path, (start, stop), codec, is_raw=raw))


async def _cat(
    output: Output, path: JournalPath, wanted: tuple[int | None, int | None], codec: str | None, *, is_raw: bool
) -> None:
    with output.progress("looking", None, "bytes") as advance:
        view = await JournalView.load(path.root, path.partition, advance=advance, is_quick=True)
    async with view:
        view.check_explained()
        start = view.bounds.start if wanted[0] is None else wanted[0]
        stop = view.bounds.stop if wanted[1] is None else min(wanted[1], view.bounds.stop)
        if start > view.bounds.stop:
            raise ItemOutOfRange(start, view.bounds.stop)
        decoder = Decoder[Any](codec_of(view.codec, codec, is_raw=is_raw))
        printer = _Printer(output, decoder, len(str(max(stop - 1, 0))), is_raw=is_raw)
        with output.progress("reading", max(stop - start, 0), "items", is_printing=True) as advance:
            await printer.print(view, start, stop, advance)
    if printer.gaps.count:
        exits.end(exits.Code.FINDINGS)


class _Printer:
    """Prints items as the user asked for them."""

    def __init__(self, output: Output, decoder: Decoder[Any], width: int, *, is_raw: bool) -> None:
        self.gaps = Gaps(output)
        self._output = output
        self._decoder = decoder
        self._width = width
        self._room = output.room_beside(width)
        self._print: Callable[[int, Any], None] = self._text
        if is_raw:
            self._print = self._raw
        elif output.is_json:
            self._print = self._line

    async def print(self, view: JournalView, start: int, stop: int, advance: Callable[[int], None]) -> None:
        """Print the items from `start` to `stop`, which is not included."""
        done = 0
        try:
            async for entry in view.entries_of_one_history(start, stop):
                if isinstance(entry, Unreadable):
                    self.gaps.add(entry.start, entry.stop, entry.error)
                    continue
                try:
                    item = self._decoder.item_of(entry)
                except CodecError as error:
                    self.gaps.add(entry.position, entry.stop, error)
                    continue
                self.gaps.end()
                self._print(entry.position, item)
                done += 1
                if done % _STEP == 0:
                    advance(_STEP)
        finally:
            self.gaps.end()

    def _text(self, position: int, item: Any) -> None:
        self._output.item(position, shown(item, self._room), self._width)

    def _line(self, position: int, item: Any) -> None:
        self._output.line({"position": position, "item": json_of(item)})

    def _raw(self, _: int, item: bytes) -> None:
        self._output.raw(item)
