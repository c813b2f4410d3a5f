"""`posjournal append`: lines from standard input become items."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from posjournal_async.cli.creating import create_options, open_or_create, takes_bytes, way_of_keeping
from posjournal_async.cli.exits import Code, end
from posjournal_async.cli.intake import BadLine, Intake, item_in_json_line
from posjournal_async.cli.lines import LineTooLong, lines_at_hand, standard_input
from posjournal_async.cli.options import codec_option, json_option, new_path_argument
from posjournal_async.cli.ranges import fields_of, shown_range

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from posjournal_async.cli.console import Output
    from posjournal_async.cli.options import JournalPath

__all__ = ["append"]

_SCHEMA = "posjournal.append/1"

# A line of JSON may be longer than the item that it stands for, by its escapes.
_LONGEST_JSON = 256 * 2**20


@dataclass(frozen=True, slots=True)
class _Wish:
    """What the user said."""

    path: JournalPath
    codec: str | None
    items_per_section: int | None
    create: bool
    batch: int
    acknowledge: bool


@click.command()
@new_path_argument
@codec_option
@create_options
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=4096,
    show_default=True,
    metavar="N",
    help="Lines that share one fsync at the most. Lines that are not there yet are never waited for.",
)
@click.option("--acknowledge", is_flag=True, help="Print the position of each item as soon as it is durable.")
@json_option
@click.pass_obj
def append(output: Output, /, **options: Any) -> None:
    """Append lines of standard input, each durable before it is reported.

    Each line is one item in JSON, taken as it is; with the codec bytes it is the bytes of the line, without the line
    feed. Lines with nothing but white space are passed over, but for the codec bytes, where they are empty items.

    A line that is no item ends it with exit code 1: the lines before it are durable, and are told. So it is after
    Ctrl-C, and when the disk is full.

    \b
    Examples:
      posjournal append data/orders < orders.jsonl
      tail -F service.log | posjournal append data/log --create --codec bytes
    """
    wish = _Wish(**options)
    intakes: list[Intake] = []
    trouble: ValueError | BadLine | None = None
    is_complete = False
    start = time.monotonic()
    stream = standard_input()
    if stream.isatty():
        output.note("one item a line, please; Ctrl-D ends it")
    try:
        asyncio.run(_take(output, wish, stream, intakes))
        is_complete = True
    except (BadLine, LineTooLong) as error:
        trouble = error
    finally:
        if intakes:  # else the journal was not opened, and the error says why
            seconds = time.monotonic() - start
            _show(output, intakes[0], seconds, is_complete=is_complete, is_stream=wish.acknowledge)
    if trouble is not None:
        place = f"line {intakes[0].lines + 1}: " if isinstance(trouble, LineTooLong) else ""
        output.note(f"posjournal: standard input, {place}{trouble}")
        end(Code.FINDINGS)


async def _take(output: Output, wish: _Wish, stream: BinaryIO, intakes: list[Intake]) -> None:
    keeping = await way_of_keeping(
        output, wish.path, create=wish.create, codec=wish.codec, items_per_section=wish.items_per_section
    )
    journal = await open_or_create(output, keeping)
    are_bytes = takes_bytes(journal.config.codec, wish.codec)
    total = _length_of(stream)
    async with journal:
        with output.progress(
            "appending", total, "items" if total is None else "bytes", is_printing=wish.acknowledge
        ) as advance:

            def report(positions: range) -> None:
                if total is None:
                    advance(len(positions))
                if wish.acknowledge:
                    _acknowledge(output, positions)

            intake = Intake(
                journal,
                bytes if are_bytes else item_in_json_line,
                most=wish.batch,
                skips_blank=not are_bytes,
                report=report,
            )
            intakes.append(intake)
            longest = journal.config.max_item_size if are_bytes else _LONGEST_JSON
            async with lines_at_hand(stream, longest=longest) as batches:
                await intake.take(batches if total is None else _counted(batches, advance))


def _length_of(stream: BinaryIO) -> int | None:
    """Return how many bytes are still to be read from a file; None for what is no file."""
    try:
        fd = stream.fileno()
        status = os.fstat(fd)
        return status.st_size - os.lseek(fd, 0, os.SEEK_CUR) if stat.S_ISREG(status.st_mode) else None
    except OSError:  # a stream in memory has no descriptor
        return None


async def _counted(batches: AsyncIterator[list[bytes]], advance: Callable[[int], None]) -> AsyncGenerator[list[bytes]]:
    async for lines in batches:
        yield lines
        advance(sum(map(len, lines)) + len(lines))


def _acknowledge(output: Output, positions: range) -> None:
    for position in positions:
        if output.is_json:
            output.line({"position": position})
        else:
            output.say(str(position))
    output.flush()


def _show(output: Output, intake: Intake, seconds: float, *, is_complete: bool, is_stream: bool) -> None:
    positions = range(intake.first, intake.durable)
    if output.is_json:
        found = {
            "complete": is_complete,
            "items": len(positions),
            "positions": fields_of(positions),
            "seconds": round(seconds, 3),
        }
        if is_stream:  # one line like those before it
            output.line({"schema": _SCHEMA, **found})
        else:
            output.document(_SCHEMA, found)
        return
    output.say(f"appended {shown_range(positions)}")
    if sys.stderr.isatty():
        output.note(f"{seconds:.1f} s, {len(positions) / max(seconds, 0.001):,.0f} items/s")
