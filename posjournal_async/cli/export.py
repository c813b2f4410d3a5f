"""`posjournal export`: the items of a journal as JSON lines or Parquet."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from posjournal_async.cli.arrow import ParquetWriter
from posjournal_async.cli.codec_choice import codec_of
from posjournal_async.cli.exits import Code, end
from posjournal_async.cli.json_form import NoJsonForm, text_of
from posjournal_async.cli.options import codec_option, json_option, path_argument
from posjournal_async.cli.ranges import fields_of, shown_range
from posjournal_async.cli.replacing import replaced
from posjournal_async.errors import ItemOutOfRange, ItemPruned
from posjournal_async.inspection.view import JournalView

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from posjournal_async.cli.console import Output
    from posjournal_async.cli.options import JournalPath

__all__ = ["export"]

# Items between two signs of progress.
_STEP = 256

_JSONL = "jsonl"
_PARQUET = "parquet"


@dataclass(frozen=True, slots=True)
class _Wish:
    """What the user said."""

    path: JournalPath
    start: int | None
    stop: int | None
    target: Path | None
    form: str
    items_only: bool
    codec: str | None


class _NotExportable(Exception):
    """An item has no JSON form."""


@click.command()
@path_argument
@click.option(
    "--from", "start", type=click.IntRange(min=0), metavar="POS", help="First position. [default: the oldest]"
)
@click.option(
    "--to", "stop", type=click.IntRange(min=0), metavar="POS", help="Position to stop before. [default: the size]"
)
@click.option(
    "-o",
    "--output",
    "target",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write to FILE, which is there as a whole or not at all. [default: standard output]",
)
@click.option(
    "--format", "form", type=click.Choice([_JSONL, _PARQUET]), help="[default: by the ending of FILE, else jsonl]"
)
@click.option("--items-only", is_flag=True, help="Leave the positions out.")
@codec_option
@json_option
@click.pass_obj
def export(output: Output, /, **options: Any) -> None:
    """Write the items of a journal as JSON lines, or as Parquet.

    Each line is {"position": 7, "item": ...}. What JSON does not know stands in it as an object that says what it is,
    such as {"base64": "..."} for bytes; import takes it back. A file of Parquet has the columns position and item, with
    the same JSON as text; it needs the extra "arrow" and -o.

    Reads only, beside a live writer too. An item that has no such form ends it with exit code 1, and FILE is not made;
    so does a rewind of items that were read.

    \b
    Examples:
      posjournal export data/orders --from 1000 -o orders.jsonl
      posjournal export data/orders --items-only | jq .state
    """
    options["form"] = options["form"] or _form_by_name(options["target"])
    wish = _Wish(**options)
    if wish.start is not None and wish.stop is not None and wish.start > wish.stop:
        raise click.UsageError(f"--from {wish.start} lies behind --to {wish.stop}")
    if wish.form == _PARQUET and wish.target is None:
        raise click.UsageError("Parquet goes to a file: name it by -o")
    if wish.target is not None:
        _check_target(wish.path, wish.target)
    try:
        positions = asyncio.run(_export(output, wish))
    except _NotExportable as error:
        output.note(f"posjournal: {error}")
        end(Code.FINDINGS)
    if wish.target is None:
        return
    if output.is_json:
        output.document(
            "posjournal.export/1",
            {
                "file": str(wish.target),
                "format": wish.form,
                "items": positions.stop - positions.start,
                "positions": fields_of(positions),
                "bytes": wish.target.stat().st_size,
            },
        )
    else:
        output.say(f"exported {shown_range(positions)}")


def _form_by_name(target: Path | None) -> str:
    return _PARQUET if target is not None and target.suffix.lower() in {".parquet", ".pq"} else _JSONL


def _check_target(path: JournalPath, target: Path) -> None:
    """Refuse what cannot be replaced, and to write into the journal itself."""
    try:
        directory = target.resolve().parent
    except RuntimeError:  # as Python says it before 3.13
        raise click.BadParameter(f"'{target}' is a link that leads to itself", param_hint="-o") from None
    if not directory.is_dir():
        raise click.BadParameter(f"there is no directory '{target.parent}'", param_hint="-o")
    if target.exists() and not target.is_file():
        raise click.BadParameter(f"'{target}' is no regular file", param_hint="-o")
    if any(directory == path.directory(part).resolve() for part in ("data", "offsets", "checkpoint")):
        raise click.BadParameter("the file would lie in the journal itself", param_hint="-o")


async def _export(output: Output, wish: _Wish) -> range:
    async with await JournalView.load(wish.path.root, wish.path.partition) as view:
        bounds = view.bounds
        start = bounds.start if wish.start is None else wish.start
        stop = bounds.stop if wish.stop is None else min(wish.stop, bounds.stop)
        if start < bounds.start:
            raise ItemPruned(start, bounds.start)
        if start > bounds.stop:
            raise ItemOutOfRange(start, bounds.stop)
        stop = max(start, stop)
        view.check_explained()
        codec = codec_of(view.codec or "msgpack", wish.codec)
        with (
            _sink(wish, codec.name) as write,
            output.progress("exporting", stop - start, "items", is_printing=wish.target is None) as advance,
        ):
            async with aclosing(view.items(codec, start, stop)) as items:
                async for position, item in items:
                    try:
                        write(position, text_of(item))
                    except NoJsonForm as error:
                        raise _NotExportable(f"position {position}: {error}") from error
                    if (position - start) % _STEP == _STEP - 1:
                        advance(_STEP)
        return range(start, stop)


@contextmanager
def _sink(wish: _Wish, codec: str) -> Generator[Callable[[int, str], None]]:
    """Give what takes each item as its JSON form."""
    if wish.target is None:
        yield _lines(sys.stdout.buffer, items_only=wish.items_only)
        return
    with replaced(wish.target) as file:
        if wish.form == _PARQUET:
            with ParquetWriter(file, codec, with_positions=not wish.items_only) as writer:
                yield writer.add
        else:
            yield _lines(file, items_only=wish.items_only)


def _lines(file: IO[bytes], *, items_only: bool) -> Callable[[int, str], None]:
    def write(position: int, text: str) -> None:
        line = text if items_only else f'{{"position":{position},"item":{text}}}'
        file.write(f"{line}\n".encode("ascii"))

    return write
