"""`posjournal tail`: the newest items of a journal, and those that come."""

from __future__ import annotations

import asyncio
import os
import select
import sys
from contextlib import aclosing
from errno import EPIPE
from typing import TYPE_CHECKING, Any

import click

from posjournal_async.cli import exits
from posjournal_async.cli.codec_choice import codec_of
from posjournal_async.cli.options import codec_option, json_option, new_path_argument, raw_option
from posjournal_async.cli.printing import Printer, show
from posjournal_async.inspection.following import Absent, Corrupt, Pruned, Reset, Rewound, Shown, follow
from posjournal_async.inspection.view import Decoder, JournalView

if TYPE_CHECKING:
    from posjournal_async.cli.console import Output
    from posjournal_async.cli.options import JournalPath
    from posjournal_async.codecs import Codec
    from posjournal_async.inspection.following import Event

__all__ = ["tail"]

_PARTS = ("data", "offsets", "checkpoint")

# Items to begin with.
_NEWEST = 10


@click.command
@new_path_argument
@click.option(
    "-n", "--newest", metavar="COUNT", type=click.IntRange(min=0), help=f"Items to show. [default: {_NEWEST}]"
)
@click.option("--from", "start", metavar="POS", type=click.IntRange(min=0), help="First position, in place of -n.")
@click.option("-f", "--follow", "is_following", is_flag=True, help="Go on with what is appended, until interrupted.")
@click.option(
    "--interval",
    metavar="SECONDS",
    type=click.FloatRange(min=0, max=3600),
    default=0.25,
    show_default=True,
    help="With -f: time between two looks.",
)
@codec_option
@raw_option
@json_option
@click.pass_obj
def tail(  # noqa: PLR0913 - the options
    output: Output,
    path: JournalPath,
    *,
    newest: int | None,
    start: int | None,
    interval: float,
    codec: str | None,
    is_following: bool,
    raw: bool,
) -> None:
    """Show the newest items, or those from a position on, and with -f those that come.

    Everything shown is durable. With -f the writer may be another process: it may prune, rewind, reset the journal, be
    killed and start again. What that means for items that were shown, or that were never seen, is said on standard
    error. Nothing is changed, and no lock is taken.

    Who has seen all items before POS goes on with --from POS: if items have gone since, that is said first. What was
    rewound and appended anew meanwhile cannot be told from what was seen.

    \b
    Examples:
      posjournal tail data/orders -n 3
      posjournal tail data/orders -f --json | jq .item.state
      posjournal tail data/orders -f --json --from 1000
    """
    if not interval >= 0:  # as a range has it, NaN is in every range
        raise click.BadParameter("expected a number of seconds, found nan", param_hint="--interval")
    if newest is not None and start is not None:
        raise click.UsageError("-n and --from exclude each other")
    newest = _NEWEST if newest is None else newest
    if is_following:
        follower = _Following(Printer(output, is_raw=raw), path, codec)
        try:
            asyncio.run(follower.follow(newest, start, interval))
        except KeyboardInterrupt:
            exits.end(exits.Code.INTERRUPTED)  # that is how it ends: there is nothing to say
    elif any(path.directory(part).is_dir() for part in _PARTS):
        asyncio.run(_tail(Printer(output, is_raw=raw), path, newest, start, codec))
    else:
        raise click.UsageError(f"no journal at '{path}'; -f waits for one")


async def _tail(printer: Printer, path: JournalPath, newest: int, start: int | None, codec: str | None) -> None:
    with printer.output.progress("reading the tail", None, "bytes") as advance:
        view = await JournalView.load(path.root, path.partition, advance=advance, is_quick=True)
    async with view:
        view.check_explained()
        stop = view.bounds.stop
        if view.bounds or start is not None:
            decoder = Decoder[Any](codec_of(view.codec, codec, is_raw=printer.is_raw))
            start = max(stop - newest, view.bounds.start) if start is None else start
            await show(printer, view, decoder, start, stop)


class _Following:
    """Prints what happens to a journal."""

    def __init__(self, printer: Printer, path: JournalPath, codec: str | None) -> None:
        self._printer = printer
        self._output = printer.output
        self._path = path
        self._codec = codec
        self._was_there = False

    async def follow(self, newest: int, start: int | None, interval: float) -> None:
        """Print until interrupted."""
        events = follow(
            self._path.root,
            self._path.partition,
            codec_of=self._codec_of,
            newest=newest,
            start=start,
            interval_seconds=interval,
            when_idle=_check_reader,
        )
        async with aclosing(events):
            async for event in events:
                self._show(event)
                self._output.flush()

    def _codec_of(self, recorded: str) -> Codec[Any]:
        self._was_there = True
        return codec_of(recorded, self._codec, is_raw=self._printer.is_raw)

    def _show(self, event: Event) -> None:
        match event:
            case Shown(first, items):
                self._printer.make_room_for(first + len(items) - 1)
                for position, item in enumerate(items, first):
                    self._printer.print(position, item)
            case Rewound(size):
                self._tell(f"rewound to {size}", {"event": "rewound", "size": size})
            case Pruned(missed):
                fields = {"event": "pruned", "start": missed.start, "stop": missed.stop}
                self._tell(f"pruned before they were seen: {_named(missed)}", fields)
            case Reset(start):
                self._tell(f"another journal has begun, at {start}", {"event": "reset", "start": start})
            case Absent():
                what = "the journal is gone" if self._was_there else f"no journal at '{self._path}' yet"
                self._tell(f"{what}: waiting for one", {"event": "absent"})
            case Corrupt(positions, error):
                fields = {
                    "event": "corrupt",
                    "start": positions.start,
                    "stop": positions.stop,
                    "reason": str(error),
                }
                self._tell(f"{_named(positions)}: {error}", fields)

    def _tell(self, text: str, fields: dict[str, Any]) -> None:
        if self._output.is_json:
            self._output.line(fields)
        self._output.note(text)


def _named(positions: range) -> str:
    last = positions.stop - 1
    return f"position {last}" if positions.start == last else f"positions {positions.start} to {last}"


def _check_reader() -> None:
    """End when whoever reads standard output has gone away, also while there is nothing to write.

    Raises:
        BrokenPipeError: They have.
    """
    poll = getattr(select, "poll", None)
    if poll is None:
        return
    waiting = poll()
    try:
        waiting.register(sys.stdout.fileno(), 0)
    except (OSError, ValueError):  # no file: a program that called this one took its output
        return
    if any(happened & select.POLLERR for _, happened in waiting.poll(0)):
        raise BrokenPipeError(EPIPE, os.strerror(EPIPE))
