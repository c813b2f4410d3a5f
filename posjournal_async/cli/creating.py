"""Opening the journal that a command puts items into, or making it where the user says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from posjournal_async.cli.codec_choice import codec_of
from posjournal_async.cli.shown import printable
from posjournal_async.cli.writing import look_at, note_repair
from posjournal_async.config import Config, Context
from posjournal_async.inspection.survey import survey
from posjournal_async.journal import Journal
from posjournal_async.recovery.plan import Expectation, check_configuration
from posjournal_async.storage.file import FileStorage
from posjournal_async.storage.readonly import ReadOnlyFileStorage

if TYPE_CHECKING:
    from collections.abc import Callable

    from posjournal_async.cli.console import Output
    from posjournal_async.cli.options import JournalPath
    from posjournal_async.codecs import Codec
    from posjournal_async.storage.file import FileLock

__all__ = ["Keeping", "create_options", "open_or_create", "takes_bytes", "way_of_keeping"]

_Command = TypeVar("_Command", bound="Callable[..., Any]")

_NEW_CODEC = "msgpack"


def create_options(command: _Command) -> _Command:
    """Give the command `--create` as `create` and `--items-per-section` as `items_per_section`."""
    command = click.option(
        "--items-per-section",
        type=click.IntRange(1, 2**63),
        metavar="N",
        help="Items in a section of a journal that is made. [default: 65536]",
    )(command)
    return click.option("--create", is_flag=True, help="Make the journal if there is none.")(command)


@dataclass(frozen=True, slots=True)
class Keeping:
    """How a journal is kept, or will be.

    Attributes:
        path: Where.
        config: How.
        size: Position that the next item gets; None if the journal has to be made first.
    """

    path: JournalPath
    config: Config[Any]
    size: int | None


async def way_of_keeping(
    output: Output, path: JournalPath, *, create: bool, codec: str | None, items_per_section: int | None
) -> Keeping:
    """Return how a journal is kept, and change nothing.

    Args:
        output: Where to say that its items are typed.
        path: Where.
        create: Whether to make it if there is none.
        codec: What the user said behind `--codec`, or None: msgpack for one that is made.
        items_per_section: What the user said, or None.

    Raises:
        click.UsageError: There is no journal, and none is to be made; or there is no such codec.
        JournalLocked: Somebody has it open.
        JournalError: Opening it would raise this.
    """
    seen = await look_at(path)
    if seen.slot is None:
        if not create:
            raise click.UsageError(f"no journal at '{printable(str(path))}': --create makes one")
        chosen = codec_of(_NEW_CODEC, codec)
        config = Config(partition=path.partition, codec=chosen, items_per_section=items_per_section or 65_536)
        return Keeping(path, config, None)
    chosen = codec_of(seen.slot.codec, codec)
    expected = Expectation(path.partition, items_per_section or seen.slot.items_per_section, chosen.name)
    check_configuration(seen.slot, expected)
    if codec is None and "/" in seen.slot.codec:
        output.note(
            f"the items of this journal are typed ({seen.slot.codec}): nothing checks them against the type here"
        )
    config = Config(partition=path.partition, codec=chosen, items_per_section=expected.items_per_section)
    return Keeping(path, config, seen.size)


class _VacantStorage(FileStorage):
    """A storage that locks a journal only if there is none: what is made then replaces nothing that is there.

    Args:
        path: The journal.
    """

    def __init__(self, path: JournalPath) -> None:
        super().__init__(path.root)
        self._journal = path

    async def lock(self, partition: str) -> FileLock:
        """Lock it, and look then: nobody can make it after that."""
        lock = await super().lock(partition)
        try:
            await self._check_vacant()
        except BaseException:
            await lock.release()
            raise
        return lock

    async def _check_vacant(self) -> None:
        path = self._journal
        seen = await survey(ReadOnlyFileStorage(path.root), path.partition)
        if seen.problem is not None:
            raise seen.problem
        if seen.slot is not None:
            raise click.UsageError(f"somebody made '{printable(str(path))}' meanwhile: nothing was changed")


async def open_or_create(output: Output, keeping: Keeping, *, first: int = 0) -> Journal[Any]:
    """Open a journal, or make it.

    Args:
        output: Where to say what opening repaired.
        keeping: How it is kept.
        first: Position of the first item of a journal that is made.

    Raises:
        click.UsageError: It was to be made, and somebody else has made it.
    """
    if keeping.size is None and first:
        return await Journal.init_at_size(Context(_VacantStorage(keeping.path)), keeping.config, first)
    journal = await Journal.init(Context(FileStorage(keeping.path.root)), keeping.config)
    note_repair(output, journal)
    return journal


def takes_bytes(codec: Codec[Any], given: str | None) -> bool:
    """Say whether items are bytes for a codec that was chosen with what the user said behind `--codec`."""
    return codec.name == "bytes" or (given in {None, "bytes"} and codec.name.startswith("pb/"))
