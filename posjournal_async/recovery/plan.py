"""What is to be done about it: the second step of an opening, a pure function from facts to a plan."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from posjournal_async.errors import Corruption, InvalidConfiguration
from posjournal_async.format.header import FORMAT_VERSION, BadHeader, Header, HeaderFault, Kind
from posjournal_async.recovery.facts import unindexed_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from posjournal_async.format.checkpoint_slot import Slot
    from posjournal_async.recovery.facts import Facts, SectionFacts

__all__ = ["Expectation", "Plan", "Rewrite", "check_configuration", "decide"]


@dataclass(frozen=True, slots=True)
class Expectation:
    """What the configuration says of a journal.

    Attributes:
        partition: Base name of the journal.
        items_per_section: Positions in a section.
        codec: Name of the codec.
        accepts: Says of another name whether the codec reads what was written under it; None if it reads none.
    """

    partition: str
    items_per_section: int
    codec: str
    accepts: Callable[[str], bool] | None = None

    def reads(self, codec: str) -> bool:
        """Say whether the codec reads what was written under a name."""
        return codec == self.codec or (self.accepts is not None and self.accepts(codec))


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Bytes of a data blob that are to be written again, and where the blob is to end.

    Attributes:
        section: The section.
        start: First byte to write again.
        end: Byte after the last; the blob is cut here.
        length: Length of the blob as found.
    """

    section: int
    start: int
    end: int
    length: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, in the order of the fields from `finishes_reset` on.

    Attributes:
        boundary: No position below it exists.
        size: Position that the next append gets.
        was_durable: The durable size as found.
        finishes_reset: Whether a reset that is done is to be taken off record in the other slot too.
        prune_data: Data blobs below the boundary, oldest first.
        drop_data: Data blobs behind the prefix, newest first.
        rewrites: Data blobs to cut or to write again, oldest first.
        prune_offsets: Offsets blobs below the boundary, oldest first.
        drop_offsets: Offsets blobs that are not needed, or behind a gap, newest first.
        align: Sections whose index has to be compared with their records, ascending.
        tail: The last section if it is not full, else None.
        items_dropped: Items that could be read but lay behind a gap.
        codec: Name of the codec to record, if it is another than the one found.
        notes: What a person should know.
    """

    boundary: int
    size: int
    was_durable: int
    finishes_reset: bool = False
    prune_data: tuple[int, ...] = ()
    drop_data: tuple[int, ...] = ()
    rewrites: tuple[Rewrite, ...] = ()
    prune_offsets: tuple[int, ...] = ()
    drop_offsets: tuple[int, ...] = ()
    align: tuple[int, ...] = ()
    tail: int | None = None
    items_dropped: int = 0
    codec: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def is_clean(self) -> bool:
        """Whether there is nothing to write or remove; what the indexes say is not known yet."""
        removed = self.prune_data or self.drop_data or self.prune_offsets or self.drop_offsets
        is_cut = any(rewrite.end < rewrite.length for rewrite in self.rewrites)
        return not (self.finishes_reset or removed or is_cut) and self.was_durable == self.size


def decide(facts: Facts, expectation: Expectation) -> Plan:
    """Say what is to be done about what was found.

    Raises:
        Corruption: No crash explains it.
        InvalidConfiguration: It is the journal of another configuration or version.
    """
    slot = facts.slot
    ips = slot.items_per_section
    check_configuration(slot, expectation)
    first = slot.boundary // ips
    kept = [section for section in facts.data if section >= first]
    size, length, rewrites = _longest_prefix(facts, kept, expectation)
    prefix, dropped = kept[:length], kept[length:]
    if facts.data and not kept:
        _check_pruned(facts, facts.data[0], expectation.partition)
    indexed = [section for section in facts.offsets if section >= first]
    _check_first(slot, kept, indexed, expectation.partition)
    doubtful = [section for section in prefix if (seen := facts.sections.get(section)) is not None and seen.end]
    unindexed = unindexed_of(prefix, indexed)
    return Plan(
        boundary=slot.boundary,
        size=size,
        was_durable=slot.durable,
        finishes_reset=facts.is_reset_behind,
        prune_data=tuple(section for section in facts.data if section < first),
        drop_data=tuple(reversed(dropped)),
        rewrites=rewrites,
        prune_offsets=tuple(section for section in facts.offsets if section < first),
        drop_offsets=_offsets_to_drop(prefix, indexed),
        align=tuple(sorted({*doubtful, *unindexed})),
        tail=prefix[-1] if prefix and size < (prefix[-1] + 1) * ips else None,
        items_dropped=sum(facts.sections[section].count or 0 for section in dropped),
        codec=None if slot.codec == expectation.codec else expectation.codec,
        notes=_notes_of(facts),
    )


def check_configuration(slot: Slot, expectation: Expectation) -> None:
    """Refuse a configuration that is not the journal's.

    Raises:
        InvalidConfiguration: It is not.
    """
    partition = expectation.partition
    if slot.items_per_section != expectation.items_per_section:
        raise InvalidConfiguration(
            "items_per_section", slot.items_per_section, expectation.items_per_section, partition
        )
    if not expectation.reads(slot.codec):
        raise InvalidConfiguration("codec", slot.codec, expectation.codec, partition)


def _check_first(slot: Slot, kept: Sequence[int], indexed: Sequence[int], partition: str) -> None:
    """Refuse a first section without its data, or without its index where others have one.

    The first data blob is made before all others and goes after them, and an index goes after its data. Where that of
    the data is missing alone it was lost, or a prune took it and the checkpoint is a copy of before.
    """
    first = slot.boundary // slot.items_per_section
    if kept and kept[0] > first:
        expected, found = f"section {first}", f"section {kept[0]}"
        raise Corruption("first section", expected, found, f"{partition}_data", first, None, slot.boundary)
    if kept and indexed and indexed[0] > first:
        raise Corruption("offsets", f"section {first} first", f"section {indexed[0]}", f"{partition}_offsets")


def _check_pruned(facts: Facts, section: int, partition: str) -> None:
    """Refuse to remove all data for what a prune has left where it is that of another journal.

    A reset removes the data before its boundary counts, so the checkpoint is a copy of before a reset to less. The
    first blob says it: behind it there may be one whose creation was interrupted.
    """
    slot, seen = facts.slot, facts.sections.get(section)
    if seen is not None and isinstance(seen.header, Header) and seen.header.journal_id != slot.journal_id:
        what = "data blob below the boundary"
        raise Corruption(what, "none", "one of another journal", f"{partition}_data", section, 0)


def _notes_of(facts: Facts) -> tuple[str, ...]:
    if not facts.slot.sequence:
        return ("the checkpoint is lost: the boundary is that of the data, and all but the last section was relied on",)
    if facts.damaged_slots:
        return ("one slot of the checkpoint is torn or damaged: the other one was used",)
    return ()


def _longest_prefix(
    facts: Facts, kept: Sequence[int], expectation: Expectation
) -> tuple[int, int, tuple[Rewrite, ...]]:
    """Return the size that the data has without a gap, the number of sections that hold it, and what to write in them.

    Raises:
        Corruption: The gap, or anything else that is wrong, lies below the durable size.
    """
    slot = facts.slot
    ips = slot.items_per_section
    size = slot.boundary
    rewrites: list[Rewrite] = []
    length = 0
    for section in kept:
        if section != size // ips:
            break  # a blob is missing before this one
        found = facts.sections.get(section)
        if found is None:  # below the durable size, and indexed: read when it is needed
            size = (section + 1) * ips
            length += 1
            continue
        header = _checked_header(found, section, max(section * ips, slot.boundary), slot, expectation)
        if header is None:
            break  # an interrupted creation
        length += 1
        if found.end is not None:
            rewrites.append(_rewrite_of(found, found.end, header, slot.durable))
        end = (section + 1) * ips
        size = end if found.count is None else header.first + found.count
        _check_records(found, header, size, slot.durable, expectation)
        if size < end:
            break
    if size < slot.durable:
        partition = f"{expectation.partition}_data"
        raise Corruption("data", f"{slot.durable} durable items", f"{size} items", partition, size // ips, None, size)
    return size, length, tuple(rewrites)


def _checked_header(
    found: SectionFacts, section: int, first: int, slot: Slot, expectation: Expectation
) -> Header | None:
    """Return the header of a data blob that belongs where it is; None for an interrupted creation."""
    partition = f"{expectation.partition}_data"
    header = found.header
    if isinstance(header, BadHeader):
        if header.fault is HeaderFault.VERSION:
            raise InvalidConfiguration("format version", FORMAT_VERSION, header.version, expectation.partition)
        if header.fault is HeaderFault.INTERRUPTED and slot.durable <= first:
            return None
        raise Corruption("header", "one that checks out", header.fault.value, partition, section, 0)
    expected = Header(Kind.DATA, slot.journal_id, section, slot.items_per_section, first, header.salt, slot.codec)
    if header == expected:
        return header
    if expectation.accepts is None or header != replace(expected, codec=header.codec):
        raise Corruption("header", expected, header, partition, section, 0)
    if not expectation.reads(header.codec):
        raise InvalidConfiguration(
            f"codec of section {section}", header.codec, expectation.codec, expectation.partition
        )
    return header


def _check_records(found: SectionFacts, header: Header, size: int, durable: int, expectation: Expectation) -> None:
    """Refuse a section that lacks a durable record, or has more than it has room for."""
    partition = f"{expectation.partition}_data"
    section = header.section
    end = (section + 1) * header.items_per_section
    scan = found.scan
    if size < min(durable, end):
        at = None if scan is None else scan.end
        raise Corruption("record", "one that checks out", "other bytes or none", partition, section, at, size)
    if scan is not None and scan.has_extra:
        raise Corruption("section", f"{end - header.first} records", "more", partition, section, scan.end, end)


def _rewrite_of(found: SectionFacts, end: int, header: Header, durable: int) -> Rewrite:
    """Return what has to be done to a blob so that all of its records are durable and nothing is behind them."""
    above = durable - header.first
    start = end
    if above <= 0:
        start = 0  # nothing shows that even the header is durable
    elif found.scan is not None and above < len(found.scan.starts):
        start = found.scan.starts[above]
    return Rewrite(header.section, start, end, found.length)


def _offsets_to_drop(prefix: Sequence[int], indexed: Sequence[int]) -> tuple[int, ...]:
    """Return the offsets blobs, newest first, that have no data blob, and those behind a gap in the index."""
    length = 0
    for section, other in zip(prefix, indexed, strict=False):
        if section != other:
            break
        length += 1
    return tuple(reversed(indexed[length:]))
