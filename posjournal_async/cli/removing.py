"""What a prune or a rewind would remove; and removing it, once the user has agreed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from posjournal_async.cli.asking import check_terminal, end_unless_agreed
from posjournal_async.cli.exits import Code, end
from posjournal_async.cli.ranges import fields_of, shown_count, shown_range
from posjournal_async.cli.shown import shown_bytes
from posjournal_async.cli.writing import look_at, open_whatever_its_codec
from posjournal_async.errors import Corruption, InvalidRewind, ItemPruned, StorageError
from posjournal_async.format.header import HEADER_LENGTH, Header
from posjournal_async.format.index import ENTRY_LENGTH
from posjournal_async.inspection.survey import current_slots, survey
from posjournal_async.scan import scan_records
from posjournal_async.sections import Sections, read_header
from posjournal_async.storage.readonly import ReadOnlyFileStorage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from posjournal_async.cli.console import Output
    from posjournal_async.cli.options import JournalPath
    from posjournal_async.inspection.states import SectionView, Survey
    from posjournal_async.journal import Journal

    GoingOf = Callable[[JournalPath, Survey, int], Coroutine[Any, Any, "Going"]]

__all__ = ["Going", "going_by_prune", "going_by_rewind", "remove"]

# How often it is looked again where a live writer removes meanwhile what is looked at.
_LOOKS = 5


@dataclass(frozen=True, slots=True)
class Going:
    """What would be removed.

    Attributes:
        positions: The positions that go.
        before: The bounds as they are.
        after: The bounds as they will be.
        sections: How many sections go as a whole.
        bytes: How many bytes of data and offsets go.
        torn_bytes: Bytes of no whole record at the end, which opening the journal cuts off.
        is_cutting: Whether a part of another section goes too.
    """

    positions: range
    before: range
    after: range
    sections: int
    bytes: int
    torn_bytes: int
    is_cutting: bool = False

    @property
    def items(self) -> int:
        """How many items go."""
        return self.positions.stop - self.positions.start  # len() knows no number beyond 2**63


def _bounds_of(seen: Survey) -> range:
    return range(seen.boundary, seen.size)


def _bytes_of(sections: list[SectionView]) -> int:
    """Return the bytes of sections, but for those of no whole record."""
    return sum((section.data_bytes or 0) + (section.offsets_bytes or 0) - section.torn_bytes for section in sections)


def _torn_bytes(seen: Survey) -> int:
    return sum(section.torn_bytes for section in seen.sections)


async def going_by_prune(path: JournalPath, seen: Survey, position: int) -> Going:
    """Return what a prune would remove: sections whose items all lie below a position.

    Raises:
        Corruption: The header of the section that would be the first one is damaged.
    """
    before = _bounds_of(seen)
    if seen.slot is None:
        return Going(range(0), before, before, 0, 0, 0)
    ips = seen.slot.items_per_section
    boundary = max(min(position, seen.size) // ips * ips, before.start)
    if before.start < boundary <= seen.durable - ips:  # a sealed section will be the first one
        await _check_first(path, boundary // ips)
    going = [section for section in seen.sections if before.start // ips <= section.section < boundary // ips]
    after = range(boundary, seen.size)
    return Going(range(before.start, boundary), before, after, len(going), _bytes_of(going), _torn_bytes(seen))


async def _check_first(path: JournalPath, section: int) -> None:
    """Refuse a section without a good header as the first one: the journal could not be opened after that.

    Raises:
        Corruption: It has none.
    """
    sections = Sections(ReadOnlyFileStorage(path.root), f"{path.partition}_data")
    async with sections.opened(section) as (blob, length):
        if not isinstance(await read_header(blob, length), Header):
            raise Corruption("first section", "a good header", "none", sections.partition, section, 0)


async def going_by_rewind(path: JournalPath, seen: Survey, size: int) -> Going:
    """Return what a rewind would remove: the items from a size on.

    Raises:
        InvalidRewind: The size is larger than the journal.
        ItemPruned: The size lies below the pruning boundary.
        Corruption: The section that would be the last one is damaged below the size.
    """
    before = _bounds_of(seen)
    if size > before.stop:
        raise InvalidRewind(size, before.stop)
    if size < before.start:
        raise ItemPruned(size, before.start)
    after = range(before.start, size)
    if size == before.stop or seen.slot is None:
        return Going(range(size, before.stop), before, after, 0, 0, _torn_bytes(seen))
    section = size // seen.slot.items_per_section
    stays = max(section * seen.slot.items_per_section, before.start) < size
    whole = [view for view in seen.sections if view.section >= section + stays]
    count = _bytes_of(whole)
    # A section that is to be the last one has to be sound, whether or not it is cut.
    cut = await _bytes_cut(path, seen, section if stays else section - 1, size) if size > before.start else 0
    return Going(
        range(size, before.stop),
        before,
        after,
        len(whole),
        count + (cut if stays else 0),
        _torn_bytes(seen),
        is_cutting=stays,
    )


async def _bytes_cut(path: JournalPath, seen: Survey, section: int, size: int) -> int:
    """Return how many bytes are cut off the section that will be the last one.

    Raises:
        Corruption: A record that would stay does not check out: the journal could not be opened after that.
    """
    partition = f"{path.partition}_data"
    view = next((view for view in seen.sections if view.section == section), None)
    if view is None or view.data_bytes is None:
        raise Corruption("last section", "a data blob", "none", partition, section)
    scan = view.scan
    if scan is None:
        async with Sections(ReadOnlyFileStorage(path.root), partition).opened(section) as (blob, length):
            header = await read_header(blob, length)  # that of a view is not read where there are many
            if not isinstance(header, Header):
                raise Corruption("last section", "a good header", "none", partition, section)
            scan = await scan_records(blob, length, header)
    kept, found = size - view.first, len(scan.starts)
    if kept > found:
        raise Corruption(
            "last section", f"{kept} records that check out", found, partition, section, scan.end, view.first + found
        )
    index = HEADER_LENGTH + kept * ENTRY_LENGTH
    return scan.end - [*scan.starts, scan.end][kept] + max((view.offsets_bytes or 0) - index, 0)


def remove(  # noqa: PLR0913 - what both commands are told
    output: Output,
    path: JournalPath,
    target: int,
    going_of: GoingOf,
    change: Callable[[Journal[Any], int], Awaitable[Any]],
    *,
    command: str,
    dry_run: bool,
    yes: bool,
) -> None:
    """Show what would go; unless that is all that was wanted, ask, and let it go.

    Args:
        output: Where to.
        path: The journal.
        target: Position or size that the command was given.
        going_of: Says what would go.
        change: Lets it go.
        command: Name of the command.
        dry_run: Whether to stop there.
        yes: Whether to do without the question.
    """
    if dry_run:
        with output.progress("looking", None, "steps"):
            going = asyncio.run(_going_now(path, target, going_of))
        _show(output, command, going, is_done=False)
        return
    with output.progress("looking", None, "steps"):
        seen = asyncio.run(look_at(path))
        going = asyncio.run(going_of(path, seen, target))
    if going.positions and not yes:
        _ask(output, command, path, going)
    if going.positions:
        asyncio.run(_carried_out(output, path, seen, going, target, change))
    _show(output, command, going, is_done=True)


async def _going_now(path: JournalPath, target: int, going_of: GoingOf) -> Going:
    storage = ReadOnlyFileStorage(path.root)
    look = 0
    while True:
        look += 1
        seen = await survey(storage, path.partition)  # beside whoever has it open
        if seen.problem is not None:
            raise seen.problem
        try:
            return await going_of(path, seen, target)
        except (Corruption, StorageError):
            # Who removes or cuts something has changed the checkpoint before: then nothing is wrong.
            if look == _LOOKS or (await current_slots(storage, path.partition)).current == seen.slot:
                raise


def _ask(output: Output, command: str, path: JournalPath, going: Going) -> None:
    check_terminal()
    output.note(f"{command} of {path} removes {_described(going)}")
    end_unless_agreed(output, "This cannot be undone. Go on?")


async def _carried_out(  # noqa: PLR0913, PLR0917 - what it brings together
    output: Output,
    path: JournalPath,
    seen: Survey,
    going: Going,
    target: int,
    change: Callable[[Journal[Any], int], Awaitable[Any]],
) -> None:
    async with await open_whatever_its_codec(output, path, seen) as journal:
        bounds = journal.bounds()
        if (bounds.start, bounds.stop) != (going.before.start, going.before.stop):
            output.note(
                f"posjournal: the journal changed meanwhile, and holds {shown_range(bounds)} now: nothing was removed"
            )
            end(Code.FINDINGS)
        with output.progress("removing", None, "steps"):
            await change(journal, target)


def _show(output: Output, command: str, going: Going, *, is_done: bool) -> None:
    if output.is_json:
        output.document(
            f"posjournal.{command}/1",
            {
                "done": is_done and bool(going.positions),
                "positions": fields_of(going.positions),
                "items": going.items,
                "sections": going.sections,
                "cuts_a_section": going.is_cutting,
                "bytes": going.bytes,
                "bounds_before": fields_of(going.before),
                "bounds_after": fields_of(going.after),
            },
        )
        return
    if not going.positions:
        output.say(f"nothing to remove: {shown_range(going.before)}")
        return
    verb = "removed" if is_done else "would remove"
    output.say(f"{verb} {_described(going)}")
    output.say(f"{'left' if is_done else 'would leave'} {shown_range(going.after)}")
    if going.torn_bytes and not is_done:
        output.note(f"opening it also cuts {going.torn_bytes:,} bytes at its end that are no whole record")


def _described(going: Going) -> str:
    whole = shown_count(going.sections, "whole section")
    place = whole
    if going.is_cutting:
        place = f"{whole} and a part of another" if going.sections else "a part of a section"
    return f"{shown_range(going.positions)}: {place}, {shown_bytes(going.bytes)}"
