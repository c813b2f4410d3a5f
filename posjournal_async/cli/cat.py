"""`posjournal cat`: the items of a journal, one after the other."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import click

from posjournal_async.cli.codec_choice import codec_of
from posjournal_async.cli.options import codec_option, json_option, path_argument, raw_option
from posjournal_async.cli.printing import Printer, show
from posjournal_async.inspection.view import Decoder, JournalView

if TYPE_CHECKING:
    from posjournal_async.cli.console import Output
    from posjournal_async.cli.options import JournalPath

__all__ = ["cat"]


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
        decoder = Decoder[Any](codec_of(view.codec, codec, is_raw=is_raw))
        await show(Printer(output, is_raw=is_raw), view, decoder, start, stop)
