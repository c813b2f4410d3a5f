"""What is there: the first step of an opening, which reads and changes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from posjournal_async.errors import Corruption
from posjournal_async.format.checkpoint_slot import Slot
from posjournal_async.format.header import BadHeader, Header, Kind
from posjournal_async.scan import Scan, scan_records
from posjournal_async.sections import read_header, unbroken
from posjournal_async.waiting import both

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from posjournal_async.checkpoint import SlotFacts
    from posjournal_async.offsets import OffsetsJournal
    from posjournal_async.sections import Sections

__all__ = ["Facts", "SectionFacts", "look_at", "observe", "stand_in", "unindexed_of"]


@dataclass(frozen=True, slots=True)
class SectionFacts:
    """What a data blob was found to hold.

    Attributes:
        header: Its header, or why there is none.
        length: Its length, in bytes.
        scan: Its records, where the durable size is in it or it may be the last section; else None.
        count: How many records it holds, where they were counted; else None.
        end: Byte after the last record, where whatever is behind it is to be cut; else None.
    """

    header: Header | BadHeader
    length: int
    scan: Scan | None = None
    count: int | None = None
    end: int | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found.

    Attributes:
        slot: The checkpoint; what the data says instead, with sequence number 0, where it is lost.
        damaged_slots: Slots of the checkpoint that hold something else.
        data: Sections that have a data blob, ascending.
        offsets: Sections that have an offsets blob, ascending.
        sections: The data blobs that were looked at: the first one retained, or of all if none is; all from the
            one that holds the durable size on; and those without an index to rely on.
        is_reset_behind: Whether the other slot of the checkpoint has a reset on record that is done.
    """

    slot: Slot
    damaged_slots: int = 0
    data: Sequence[int] = ()
    offsets: Sequence[int] = ()
    sections: Mapping[int, SectionFacts] = field(default_factory=dict[int, SectionFacts])
    is_reset_behind: bool = False


async def observe(slots: SlotFacts, data: Sections, offsets: OffsetsJournal) -> Facts | None:
    """Look at what recovery depends on, and change nothing; None if there is no journal.

    Only the sections from the durable size on are read as a whole, which is the last one unless a rewind was
    interrupted, and those that have no index to rely on. Where each record starts is kept of two sections at most, that
    of the durable size and the last: memory does not grow with the number of sections.

    Raises:
        Corruption: The checkpoint is lost, and there is no data that could stand in for it.
    """
    # Each makes directories durable, which is most of what an opening waits for.
    data_sections, offsets_sections = await both(data.scan, offsets.scan)
    slot = slots.current
    if slot is None:
        if not data_sections and not offsets_sections and slots.damaged < 2:
            return None  # nothing, or the first checkpoint was torn: no blob is made before it is durable
        slot = await _checkpoint_from_data(data, data_sections)
    ips = slot.items_per_section
    kept = [section for section in data_sections if section >= slot.boundary // ips]
    doubtful = slot.durable // ips
    unindexed = set(unindexed_of(kept, offsets_sections))
    sections: dict[int, SectionFacts] = {}
    if data_sections and not kept:
        sections[data_sections[0]] = await _look_at_header(data, data_sections[0])
    for section in kept:
        if section >= doubtful:
            found = await look_at(data, section)
            sections[section] = found if section in {doubtful, kept[-1]} else _without_starts(found)
        elif section in unindexed:
            sections[section] = replace(await look_at(data, section), scan=None, end=None)
        elif section == kept[0]:
            sections[section] = await _look_at_header(data, section)
    # The last section also where it is full and durable; what is removed, as an interrupted creation or behind one or
    # behind a gap, leaves the section before as the last.
    headless = {section for section, found in sections.items() if isinstance(found.header, BadHeader)}
    for section in unbroken(kept, headless)[-1:]:
        if section < doubtful:
            sections[section] = await look_at(data, section)
    return Facts(slot, slots.damaged, data_sections, offsets_sections, sections, slots.is_reset_behind)


def _without_starts(found: SectionFacts) -> SectionFacts:
    """Forget where each record starts: a rewind that was interrupted may leave any number of sections.

    More records than there is room for stay known, to be refused.
    """
    return found if found.scan is None or found.scan.has_extra else replace(found, scan=None)


async def _checkpoint_from_data(data: Sections, sections: Sequence[int]) -> Slot:
    async def header_of(section: int) -> Header | BadHeader:
        return (await _look_at_header(data, section)).header

    slot = await stand_in(sections, header_of)
    if slot is None:
        raise Corruption("checkpoint", "one valid slot, or a data blob to stand in", "neither", data.partition)
    return slot


async def stand_in(
    sections: Sequence[int], header_of: Callable[[int], Awaitable[Header | BadHeader | None]]
) -> Slot | None:
    """Return what the checkpoint would have said at the least, if it is lost; None if the first blob does not say it.

    That one says what journal it is. The last one whose header checks out has the newest name of the codec: by the
    first name, the sections made after an upgrade would be those of a codec that the journal does not know.

    Args:
        sections: Sections that have a data blob, ascending.
        header_of: Returns the header of a data blob, or why there is none; None if the blob is gone.
    """
    first = await header_of(sections[0]) if sections else None
    if not isinstance(first, Header) or not _is_at_home(first, sections[0], first):
        return None  # that of another section says another boundary, below which all would be removed
    codec = first.codec
    for section in reversed(sections):
        header = await header_of(section)
        if isinstance(header, Header) and _is_at_home(header, section, first):
            codec = header.codec
            break
    ips = first.items_per_section
    return Slot(0, first.journal_id, ips, codec, max(sections[-1] * ips, first.first), first.first)


def _is_at_home(header: Header, section: int, first: Header) -> bool:
    """Say whether a header is that of a section of the journal whose first one is known."""
    expected = (Kind.DATA, section, first.journal_id, first.items_per_section)
    return (header.kind, header.section, header.journal_id, header.items_per_section) == expected


async def _look_at_header(data: Sections, section: int) -> SectionFacts:
    async with data.opened(section) as (blob, length):
        return SectionFacts(await read_header(blob, length), length)


async def look_at(data: Sections, section: int) -> SectionFacts:
    """Read a data blob as a whole."""
    async with data.opened(section) as (blob, length):
        header = await read_header(blob, length)
        if isinstance(header, BadHeader):
            return SectionFacts(header, length)
        scan = await scan_records(blob, length, header)
        return SectionFacts(header, length, scan, len(scan.starts), scan.end)


def unindexed_of(data: Sequence[int], offsets: Sequence[int]) -> Sequence[int]:
    """Return the sections, ascending, that have no index to rely on.

    Indexes are made in ascending order, so a crash leaves an unbroken run of them whose last may be half-made. What is
    behind a gap is made anew with the gap.
    """
    indexed = set(offsets)
    for place, section in enumerate(data):
        if section not in indexed:
            return data[max(place - 1, 0) :]
    return ()
