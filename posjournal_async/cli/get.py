"""`posjournal get`: items by their positions."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import click

from posjournal_async.cli import exits
from posjournal_async.cli.codec_choice import codec_of
from posjournal_async.cli.gaps import Gaps, reason_in_words
from posjournal_async.cli.options import codec_option, json_option, path_argument, raw_option
from posjournal_async.cli.shown import json_of, shown
from posjournal_async.errors import CodecError, Corruption, PositionError
from posjournal_async.inspection.view import Decoder, JournalView

if TYPE_CHECKING:
    from posjournal_async.cli.console import Output
    from posjournal_async.cli.options import JournalPath

__all__ = ["get"]


@click.command
@path_argument
@click.argument("positions", metavar="POS...", type=click.IntRange(min=0), nargs=-1, required=True)
@codec_option
@raw_option
@json_option
@click.pass_obj
def get(output: Output, path: JournalPath, positions: tuple[int, ...], codec: str | None, *, raw: bool) -> None:
    """Show items by their positions, in the order asked for.

    Those that are not there are named on standard error, the others are still shown. Each is looked at by itself, also
    where a writer changes the journal meanwhile. Nothing is changed, and no lock is taken.

    \b
    Examples:
      posjournal get data/orders 0 41 42
      posjournal get data/pictures 7 --raw > picture.png
    """
    asyncio.run(_get(output, path, positions, codec, is_raw=raw))


async def _get(
    output: Output, path: JournalPath, positions: tuple[int, ...], codec: str | None, *, is_raw: bool
) -> None:
    with output.progress("looking", None, "bytes") as advance:
        view = await JournalView.load(path.root, path.partition, advance=advance, is_quick=True)
    gaps = Gaps(output)
    found: list[dict[str, Any]] = []
    missing: list[dict[str, Any]] = []
    width = max(len(str(position)) for position in positions)
    async with view:
        decoder = Decoder[Any](codec_of(view.codec, codec, is_raw=is_raw))
        for position in positions:
            try:
                entry = await view.read(position)
                item = decoder.item_of(entry)
            except (Corruption, CodecError, PositionError) as error:
                gaps.add(position, position + 1, error)
                missing.append({"position": position, "reason": reason_in_words(error)})
                continue
            gaps.end()
            if is_raw:
                output.raw(item)
            elif output.is_json:
                found.append({"position": position, "item": json_of(item)})
            else:
                output.item(position, shown(item, output.room_beside(width)), width)
    gaps.end()
    if output.is_json:
        output.document("posjournal.get/1", {"items": found, "missing": missing})
    if gaps.count:
        exits.end(exits.Code.FINDINGS)
