"""Opening what a crash may have left: observe, decide, repair.

`observe` reads and changes nothing. `decide` is a pure function from what was found to a plan: it says what a crash
explains and how to mend that, and raises `Corruption` for what no crash explains, before anything is touched. `repair`
carries the plan out,
in an order in which a crash at any step leaves something that the next open repairs to the same result:

1. The checkpoint that was read is made durable, if it was only in the page cache.
2. A reset that was begun is finished: all blobs go, then the checkpoint says so.
3. What an interrupted prune left below the boundary goes.
4. Blobs behind the longest contiguous prefix go; the last section is cut behind its last record.
5. Records above the durable size are written again and synced: that they can be read shows that the page cache has
   them, not that the device does.
6. The offsets are made to say what the data says.
7. The checkpoint vouches for all of it, under the name of the codec that opens the journal.

That name may be another than the one found: a codec may read what an older one wrote (`ReadsOlder`). No item of the new
codec is handed to the storage before the checkpoint with its name is durable, and the place of the other slot is
written only after that. So a crash before step 7 is through leaves a journal of items of the old codec, under the old
name, or the new one if that reached the device; and after it the old name is nowhere in a slot that can ever count
again. The headers of data blobs keep the name under which they were made: it is never newer than the checkpoint's, and
the items of a blob never older than its header. Where a slot that counted is lost, the header of the last blob says the
newest name that is known, and it is always looked at; items of the new codec may stand in a blob of the old one, and
`decode` of the old one must refuse them.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING

from posjournal_async.errors import Corruption, InvalidConfiguration
from posjournal_async.format.checkpoint_slot import Slot
from posjournal_async.format.header import FORMAT_VERSION, BadHeader, Header, HeaderFault, Kind
from posjournal_async.scan import Scan, scan_records
from posjournal_async.sections import closed_on_error, unbroken
from posjournal_async.tail import Tail

if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable, Mapping, Sequence

    from posjournal_async.checkpoint import Checkpoint, SlotFacts
    from posjournal_async.offsets import OffsetsJournal
    from posjournal_async.sections import Sections

__all__ = [
    "Expectation",
    "Facts",
    "Plan",
    "RecoveryReport",
    "Rewrite",
    "SectionFacts",
    "check_configuration",
    "decide",
    "finish_reset",
    "observe",
    "repair",
]

# Bytes copied between two awaits.
_COPY_PIECE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What opening a journal found and did.

    Attributes:
        items_found: Items that are retained.
        items_dropped: Items that could be read but lay behind a gap, above the durable size.
        bytes_cut: Bytes cut off data blobs: torn records, and space allocated in advance.
        offsets_rebuilt: Sections whose index was missing or said something else than the data.
        sections_removed: Data blobs removed: what an interrupted prune, rewind or creation left.
        reset_finished: Whether an `init_at_size` that was interrupted was finished.
        clean: Whether nothing had to be changed.
        notes: What else a person should know.
    """

    items_found: int = 0
    items_dropped: int = 0
    bytes_cut: int = 0
    offsets_rebuilt: int = 0
    sections_removed: int = 0
    reset_finished: bool = False
    clean: bool = True
    notes: tuple[str, ...] = ()

    def told(self) -> str:
        """Say what was done as one line: the fields that say something, in their order."""
        found = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in {"clean", "notes"}}
        said = [f"{name}={value}" for name, value in found.items() if value or name == "items_found"]
        return ", ".join([*said, *self.notes])


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
class SectionFacts:
    """What a data blob was found to hold.

    Attributes:
        header: Its header, or why there is none.
        length: Its length, in bytes.
        scan: Its records, where it may be the last section; else None.
        count: How many records it holds, where they were counted; else None.
    """

    header: Header | BadHeader
    length: int
    scan: Scan | None = None
    count: int | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found.

    Attributes:
        slot: The checkpoint; what the data says instead, with sequence number 0, where it is lost.
        damaged_slots: Slots of the checkpoint that hold something else.
        data: Sections that have a data blob, ascending.
        offsets: Sections that have an offsets blob, ascending.
        sections: The data blobs that were looked at: the first one retained, all from the one that holds the durable
            size on, and those without an index to rely on.
    """

    slot: Slot
    damaged_slots: int = 0
    data: Sequence[int] = ()
    offsets: Sequence[int] = ()
    sections: Mapping[int, SectionFacts] = field(default_factory=dict[int, SectionFacts])


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
    """What to do, in the order of the fields from `prune_data` on.

    Attributes:
        boundary: No position below it exists.
        size: Position that the next append gets.
        was_durable: The durable size as found.
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
        """Whether there is nothing to write or remove, as far as the data goes."""
        removed = self.prune_data or self.drop_data or self.prune_offsets or self.drop_offsets
        is_cut = any(rewrite.end < rewrite.length for rewrite in self.rewrites)
        return not (removed or is_cut) and self.was_durable == self.size


# Observe.


async def observe(slots: SlotFacts, data: Sections, offsets: OffsetsJournal) -> Facts | None:
    """Look at what recovery depends on, and change nothing; None if there is no journal.

    Only the sections from the durable size on are read as a whole, which is the last one unless a rewind was
    interrupted, and those that have no index to rely on.

    Raises:
        Corruption: The checkpoint is lost, and there is no data that could stand in for it.
    """
    data_sections = await data.scan()
    offsets_sections = await offsets.scan()
    slot = slots.current
    if slot is None:
        if not data_sections and not offsets_sections and slots.damaged < 2:
            return None  # nothing, or the first checkpoint was torn: no blob is made before it is durable
        slot = await _checkpoint_from_data(data, data_sections)
    ips = slot.items_per_section
    kept = [section for section in data_sections if section >= slot.boundary // ips]
    doubtful = min(slot.durable // ips, kept[-1]) if kept else 0
    unindexed = set(_unindexed(kept, offsets_sections))
    sections: dict[int, SectionFacts] = {}
    for section in kept:
        if section >= doubtful:
            sections[section] = await _look_at(data, section)
        elif section in unindexed:
            found = await _look_at(data, section)
            # Only the number of records is kept: a whole index may be missing, and memory does not grow with it.
            count = None if found.scan is None else len(found.scan.starts)
            sections[section] = SectionFacts(found.header, found.length, count=count)
        elif section == kept[0]:
            sections[section] = await _look_at_header(data, section)
    # What is removed, as an interrupted creation or behind one or behind a gap, leaves the section before as the last.
    headless = {section for section, found in sections.items() if isinstance(found.header, BadHeader)}
    for section in unbroken(kept, headless)[-1:]:
        if section < doubtful:
            sections[section] = await _look_at(data, section)
    return Facts(slot, slots.damaged, data_sections, offsets_sections, sections)


async def _checkpoint_from_data(data: Sections, sections: Sequence[int]) -> Slot:
    """Return what the checkpoint would have said at the least, if it is lost: the blobs say what journal it is."""
    if sections:
        header = (await _look_at_header(data, sections[0])).header
        if isinstance(header, Header):
            durable = max(sections[-1] * header.items_per_section, header.first)
            return Slot(0, header.journal_id, header.items_per_section, header.codec, durable, header.first)
    raise Corruption("checkpoint", "one valid slot, or a data blob to stand in", "neither", data.partition)


async def _look_at_header(data: Sections, section: int) -> SectionFacts:
    blob, length = await data.open(section)
    try:
        return SectionFacts(await data.read_header(blob, length), length)
    finally:
        await blob.close()


async def _look_at(data: Sections, section: int) -> SectionFacts:
    blob, length = await data.open(section)
    try:
        header = await data.read_header(blob, length)
        if isinstance(header, BadHeader):
            return SectionFacts(header, length)
        scan = await scan_records(blob, length, header)
        return SectionFacts(header, length, scan, len(scan.starts))
    finally:
        await blob.close()


def _unindexed(data: Sequence[int], offsets: Sequence[int]) -> Sequence[int]:
    """Return the sections, ascending, that have no index to rely on.

    Indexes are made in ascending order, so a crash leaves an unbroken run of them whose last may be half-made. What is
    behind a gap is made anew with the gap.
    """
    indexed = set(offsets)
    for place, section in enumerate(data):
        if section not in indexed:
            return data[max(place - 1, 0) :]
    return ()


# Decide.


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
    indexed = [section for section in facts.offsets if section >= first]
    if prefix and indexed and indexed[0] > prefix[0]:
        raise Corruption(
            "offsets",
            f"section {prefix[0]}, as in the data",
            f"section {indexed[0]}",
            f"{expectation.partition}_offsets",
        )
    doubtful = [section for section in prefix if (seen := facts.sections.get(section)) is not None and seen.scan]
    unindexed = _unindexed(prefix, indexed)
    return Plan(
        boundary=slot.boundary,
        size=size,
        was_durable=slot.durable,
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
        if found.scan is not None:
            rewrites.append(_rewrite_of(found.scan, header, slot.durable))
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


def _rewrite_of(scan: Scan, header: Header, durable: int) -> Rewrite:
    """Return what has to be done to a blob so that all of its records are durable and nothing is behind them."""
    above = durable - header.first
    start = scan.starts[above] if 0 <= above < len(scan.starts) else scan.end
    if above <= 0:
        start = 0  # nothing shows that even the header is durable
    return Rewrite(header.section, start, scan.end, scan.length)


def _offsets_to_drop(prefix: Sequence[int], indexed: Sequence[int]) -> tuple[int, ...]:
    """Return the offsets blobs, newest first, that have no data blob, and those behind a gap in the index."""
    length = 0
    for section, other in zip(prefix, indexed, strict=False):
        if section != other:
            break
        length += 1
    return tuple(reversed(indexed[length:]))


# Repair.


async def repair(
    plan: Plan, facts: Facts, data: Sections, offsets: OffsetsJournal, checkpoint: Checkpoint
) -> tuple[Tail | None, RecoveryReport]:
    """Carry out a plan; return the last section, open, if it can still grow, and what was done."""
    await checkpoint.confirm()
    await data.remove(plan.prune_data)
    await data.remove(plan.drop_data)
    for rewrite in plan.rewrites:
        await _write_again(data, rewrite)
    await offsets.remove(plan.prune_offsets)
    await offsets.remove(plan.drop_offsets)
    tail = None
    rebuilt = 0
    async with AsyncExitStack() as stack:
        for section in plan.align:
            header, starts, end = await _records_of(data, facts, section)
            was_synced = 0 < len(starts) <= plan.was_durable - header.first
            index, is_other = await offsets.align(header, starts, was_synced=was_synced)
            rebuilt += is_other
            if section == plan.tail:
                await stack.enter_async_context(closed_on_error(index))
                blob, _ = await data.open(section)
                await stack.enter_async_context(closed_on_error(blob))
                tail = Tail(header, starts, end)
                tail.index, tail.indexed = index, len(starts)
                tail.blob = blob
            else:
                await index.close()
        await checkpoint.store(durable=plan.size, boundary=plan.boundary, codec=plan.codec)
    report = RecoveryReport(
        items_found=plan.size - plan.boundary,
        items_dropped=plan.items_dropped,
        bytes_cut=sum(rewrite.length - rewrite.end for rewrite in plan.rewrites),
        offsets_rebuilt=rebuilt,
        sections_removed=len(plan.prune_data) + len(plan.drop_data),
        clean=plan.is_clean and not rebuilt and not plan.notes,
        notes=plan.notes,
    )
    return tail, report


async def _write_again(data: Sections, rewrite: Rewrite) -> None:
    """Cut a blob and make what is left durable, whatever the page cache believes of it.

    After a failed fsync the pages of a file may be marked clean and never reach the device although reads show them,
    and the next fsync succeeds (Rebello et al., "Can Applications Recover from fsync Failures?", 2020). Writing them
    makes them dirty again.
    """
    blob, _ = await data.open(rewrite.section)
    try:
        # Also where it has that length already: a rewind that was killed may have cut it and not synced it.
        await blob.resize(rewrite.end)
        await blob.sync()
        for start in range(rewrite.start, rewrite.end, _COPY_PIECE):
            await blob.write_at(start, await blob.read_at(start, min(_COPY_PIECE, rewrite.end - start)))
        if rewrite.start < rewrite.end:
            await blob.sync()
    finally:
        await blob.close()


async def _records_of(data: Sections, facts: Facts, section: int) -> tuple[Header, array[int], int]:
    found = facts.sections[section]
    if found.scan is None:  # counted before, and too many to keep
        found = await _look_at(data, section)
    header, scan = found.header, found.scan
    if not isinstance(header, Header) or scan is None:
        raise Corruption("header", "one that checks out", "another than before", data.partition, section, 0)
    return header, scan.starts, scan.end


async def finish_reset(checkpoint: Checkpoint, data: Sections, offsets: OffsetsJournal, codec: str) -> None:
    """Remove everything that was there before a reset, then record that it is done; that it was begun is durable.

    Args:
        checkpoint: The checkpoint, which says where to.
        data: What is removed first.
        offsets: What is removed then.
        codec: Name of the codec of the items to come.
    """
    target = checkpoint.slot.reset
    assert target is not None
    await data.remove_all()
    await offsets.remove_all()
    await checkpoint.store(durable=target, boundary=target, reset=None, codec=codec)
