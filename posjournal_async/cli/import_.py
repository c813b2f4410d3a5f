"""`posjournal import`: what `export` wrote becomes items again."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from posjournal_async.cli.arrow import is_parquet
from posjournal_async.cli.creating import create_options, open_or_create, way_of_keeping
from posjournal_async.cli.exits import Code, end
from posjournal_async.cli.exported import BadEntry, JsonLines, Parquet
from posjournal_async.cli.json_form import NoJsonForm, text_of
from posjournal_async.cli.lines import standard_input
from posjournal_async.cli.options import codec_option, json_option, new_path_argument
from posjournal_async.cli.ranges import fields_of, shown_range
from posjournal_async.errors import AppendError, CodecError, JournalFailed
from posjournal_async.format.record import LONGEST_PAYLOAD
from posjournal_async.payloads import Payloads

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from posjournal_async.cli.console import Output
    from posjournal_async.cli.creating import Keeping
    from posjournal_async.cli.exported import Exported
    from posjournal_async.cli.options import JournalPath
    from posjournal_async.journal import Journal

__all__ = ["import_"]

# What is appended together and shares one fsync: this many items, or this much text.
_BATCH_ITEMS = 4_096
_BATCH_TEXT = 4 * 2**20


@dataclass(slots=True)
class _Progress:
    """What has become of an import.

    Attributes:
        first: Position that the first item gets.
        durable: Position after the last item that is durable.
    """

    first: int
    durable: int

    @property
    def positions(self) -> range:
        return range(self.first, self.durable)


@click.command("import")
@new_path_argument
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--items-only", is_flag=True, help="FILE has no positions: each line, or the column item, is an item.")
@create_options
@codec_option
@click.option("--dry-run", is_flag=True, help="Check FILE, and change nothing.")
@json_option
@click.pass_obj
def import_(output: Output, /, path: JournalPath, file: Path, **options: Any) -> None:
    """Append the items of FILE, which export wrote: JSON lines or Parquet, told by how it begins. - is standard input.

    All of it is checked before the first item is written: the positions have to go on without a gap where the journal
    ends, and each item has to come back from the codec as it is in FILE. A journal that --create makes begins at the
    first position of FILE. The codec is not noted in JSON lines: name it by --codec when the journal is made.

    \b
    Example:
      posjournal import data/copy orders.jsonl --create --codec msgpack
    """
    try:
        with _opened(file) as stream:
            exported = (Parquet if is_parquet(stream) else JsonLines)(stream, with_positions=not options["items_only"])
            _import(output, path, exported, **options)
    except BadEntry as error:
        output.note(f"posjournal: {'standard input' if str(file) == '-' else file}: {error}")
        end(Code.FINDINGS)


@contextmanager
def _opened(file: Path) -> Generator[IO[bytes]]:
    """Give a file that can be read more than once: what comes by standard input or a pipe is put into one first."""
    if str(file) == "-":
        with _kept(standard_input()) as spool:
            yield spool
        return
    with file.open("rb") as stream:
        if stream.seekable():
            yield stream
            return
        with _kept(stream) as spool:
            yield spool


@contextmanager
def _kept(stream: IO[bytes]) -> Generator[IO[bytes]]:
    with tempfile.TemporaryFile() as spool:
        shutil.copyfileobj(stream, spool)
        spool.seek(0)
        yield spool


def _import(  # noqa: PLR0913 - what the user may say
    output: Output,
    path: JournalPath,
    exported: Exported,
    *,
    items_only: bool,
    create: bool,
    items_per_section: int | None,
    codec: str | None,
    dry_run: bool,
) -> None:
    del items_only
    keeping = asyncio.run(way_of_keeping(output, path, create=create, codec=codec, items_per_section=items_per_section))
    # Whatever a journal could hold comes back: how it was configured then is not known here.
    keeping = replace(keeping, config=replace(keeping.config, max_item_size=LONGEST_PAYLOAD))
    with output.progress("checking", exported.total, exported.unit) as advance:
        positions = _checked(exported, keeping, advance)
    done = _Progress(positions.start, positions.start)
    is_complete = False
    try:
        if not dry_run:
            with output.progress("importing", exported.total, exported.unit) as advance:
                asyncio.run(_append(output, keeping, exported, positions, done, advance))
        is_complete = True
    finally:
        _show(output, path, positions if dry_run else done.positions, is_complete=is_complete, is_done=not dry_run)


def _checked(exported: Exported, keeping: Keeping, advance: Callable[[int], None]) -> range:
    """Return the positions that the items will have.

    Raises:
        BadEntry: They do not continue the journal, or an item would not come back as it is.
    """
    payloads = Payloads(keeping.config)
    first = position = keeping.size
    for entry in exported.entries():
        if entry.position is not None:
            if position is None:
                first = position = entry.position
            elif entry.position != position:
                raise BadEntry(f"{entry.place}: expected position {position}, found {entry.position}")
        elif position is None:
            first = position = 0
        _check_item(payloads, entry.item, entry.place)
        position += 1
        advance(entry.length)
    if first is None or position is None:
        return range(0)
    return range(first, position)


def _check_item(payloads: Payloads[Any], item: Any, place: str) -> None:
    """Refuse an item that the codec does not take, or changes.

    Raises:
        BadEntry: It is one.
    """
    try:
        [payload] = payloads.encode([item]).payloads
        is_same = text_of(payloads.decode((payload, False), 0)) == text_of(item)
    except (AppendError, CodecError, NoJsonForm) as error:
        raise BadEntry(f"{place}: {error}") from error
    if not is_same:
        raise BadEntry(f"{place}: expected an item that the codec gives back as it is, found one that it changes")


async def _append(  # noqa: PLR0913, PLR0917 - what it brings together
    output: Output,
    keeping: Keeping,
    exported: Exported,
    positions: range,
    done: _Progress,
    advance: Callable[[int], None],
) -> None:
    journal = await open_or_create(output, keeping, first=positions.start)
    async with journal:
        if journal.size() != positions.start:
            raise BadEntry(f"the journal changed meanwhile: its size is {journal.size()} now, and nothing was imported")
        try:
            await _append_all(journal, exported, positions, done, advance)
        finally:
            with suppress(JournalFailed):  # the failure under way is the one to tell
                await journal.sync_data()
            done.durable = journal.durable_size()


async def _append_all(
    journal: Journal[Any], exported: Exported, positions: range, done: _Progress, advance: Callable[[int], None]
) -> None:
    items: list[Any] = []
    text_length = length = 0

    async def settle() -> None:
        nonlocal items, text_length, length
        if items:
            await journal.append_many(items)
            await journal.sync_data()
            done.durable = journal.size()
            advance(length)
        items, text_length, length = [], 0, 0

    position = positions.start
    for entry in exported.entries():
        if position == positions.stop or entry.position not in {None, position}:
            raise BadEntry(f"{entry.place}: the file changed meanwhile")
        items.append(entry.item)
        position += 1
        text_length += entry.text_length
        length += entry.length
        if len(items) >= _BATCH_ITEMS or text_length >= _BATCH_TEXT:
            await settle()
    if position != positions.stop:
        raise BadEntry("the file changed meanwhile: it is shorter now")
    await settle()


def _show(output: Output, path: JournalPath, positions: range, *, is_complete: bool, is_done: bool) -> None:
    if output.is_json:
        output.document(
            "posjournal.import/1",
            {
                "done": is_done,
                "complete": is_complete,
                "items": positions.stop - positions.start,
                "positions": fields_of(positions),
            },
        )
    else:
        output.say(f"{'imported' if is_done else 'would import'} {shown_range(positions)}")
    if not is_complete and positions:
        output.note(f"'posjournal rewind {path} {positions.start}' takes back what was imported")
