"""What opening a journal would change, byte by byte; nothing is changed here.

The plan is the one that opening makes: `recovery.observe` and `recovery.decide`, on files that are only read. Two
things go further than opening does: a slot of the checkpoint that does not check out is written anew, and if that is
wanted, so is each index of a sealed section that differs from the data.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from posjournal_async.format.header import HEADER_LENGTH, Header, Kind
from posjournal_async.format.index import ENTRY_LENGTH
from posjournal_async.inspection.placing import readable_size
from posjournal_async.inspection.section_index import SectionIndex
from posjournal_async.inspection.survey import current_slots
from posjournal_async.mending.cutting import AsCut, Cut, cut_of
from posjournal_async.offsets import OffsetsJournal
from posjournal_async.recovery.facts import Facts, observe
from posjournal_async.recovery.plan import Expectation, Plan, decide
from posjournal_async.scan import Scan, scan_records
from posjournal_async.sections import Sections, read_header

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from posjournal_async.checkpoint import SlotFacts
    from posjournal_async.format.checkpoint_slot import Slot
    from posjournal_async.storage.protocols import Storage

__all__ = ["Change", "Repair", "planned", "records_in"]

_CHECKPOINT = 0


@dataclass(frozen=True, slots=True)
class Change:
    """Bytes that a repair takes away or writes over.

    Attributes:
        why: "removed", "cut" or "rewritten".
        partition: Partition of the storage.
        section: Number of the blob; 0 for the checkpoint.
        start: First byte; 0 unless it is cut.
        stop: Byte after the last: the length of the blob.
    """

    why: str
    partition: str
    section: int
    start: int
    stop: int

    @property
    def length(self) -> int:
        """How many bytes."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Repair:
    """What is to be done to a journal.

    Attributes:
        slot: The checkpoint; what the data says instead, with sequence number 0, where it is lost. None if there is no
            journal yet.
        damaged_slots: Slots of the checkpoint that hold something else.
        reset: Size at which a reset that was begun leaves the journal, or None.
        plan: What recovery does; None if there is no journal, or a reset to be finished.
        rebuilt: Sections whose index recovery makes anew.
        reindexed: Sealed sections whose index is made anew before that, because it was asked for.
        damaged: Sections whose index cannot be made anew, since not all of their records check out.
        changes: The bytes that go or are written over, in order.
        created: Blobs that are made, as partition and section.
        cut: Where the journal is made to end before all that, because it was asked for; or None.
        facts: What was found.
    """

    slot: Slot | None
    damaged_slots: int = 0
    reset: int | None = None
    plan: Plan | None = None
    rebuilt: tuple[int, ...] = ()
    reindexed: tuple[int, ...] = ()
    damaged: tuple[int, ...] = ()
    changes: tuple[Change, ...] = ()
    created: tuple[tuple[str, int], ...] = ()
    cut: Cut | None = None
    facts: Facts | None = field(default=None, compare=False, repr=False)

    @property
    def is_needed(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.changes or self.created)

    @property
    def items_dropped(self) -> int:
        """Items that can be read but lie behind a gap, above the durable size."""
        by_cut = 0 if self.cut is None else self.cut.behind
        return by_cut + (0 if self.plan is None else self.plan.items_dropped)

    @property
    def bytes_cut(self) -> int:
        """Bytes cut off data blobs."""
        return sum(change.length for change in self.changes if change.why == "cut")

    def fields(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        plan = self.plan
        return {
            "needed": self.is_needed,
            "durable_size": None if self.slot is None else self.slot.durable,
            "boundary": None if self.slot is None else self.slot.boundary,
            "checkpoint_lost": self.slot is not None and not self.slot.sequence,
            "damaged_slots": self.damaged_slots,
            "reset_to": self.reset,
            "cut_at": None if self.cut is None else self.cut.position,
            "positions_lost": 0 if self.cut is None else self.cut.lost,
            "positions_lost_above": 0 if self.cut is None else self.cut.lost_above,
            "size": self.reset if plan is None else plan.size,
            "items_dropped": self.items_dropped,
            "bytes_cut": self.bytes_cut,
            "changes": [
                {
                    "why": change.why,
                    "partition": change.partition,
                    "section": change.section,
                    "start": change.start,
                    "stop": change.stop,
                }
                for change in self.changes
            ],
            "indexes_rebuilt": sorted({*self.reindexed, *self.rebuilt}),
            "indexes_left": list(self.damaged),
            "created": [{"partition": partition, "section": section} for partition, section in self.created],
            "notes": [] if plan is None else list(plan.notes),
        }


async def planned(
    storage: Storage,
    partition: str,
    *,
    cut_at: int | None = None,
    with_indexes: bool = False,
    advance: Callable[[int], object] = lambda _: None,
) -> Repair:
    """Say what is to be done to a journal, and change nothing.

    Args:
        storage: Where it is; one that creates nothing, so that opening what is missing raises (ENOENT).
        partition: Its base name.
        cut_at: Position before which the journal is to end; None for where recovery finds the end.
        with_indexes: Whether to compare the index of each sealed section with its records too, which reads all of them.
        advance: Called with a number of sections that were compared.

    Raises:
        Corruption: No crash explains what is there, and opening refuses it.
        InvalidConfiguration: It is of another version of the format.
        PositionError: The journal cannot end at `cut_at`.
    """
    slots = await current_slots(storage, partition)
    current = slots.current
    if current is not None and current.reset is not None:
        return await _finishing_reset(storage, partition, slots, current)
    data, offsets = Sections(storage, f"{partition}_data"), OffsetsJournal(storage, partition)
    facts = await observe(slots, data, offsets)
    if facts is None:
        return Repair(None, slots.damaged)
    if cut_at is not None:
        size = readable_size(facts.slot, facts.sections)
        ips = facts.slot.items_per_section
        behind = sum(found.count or 0 for section, found in facts.sections.items() if section * ips > size)
        cut = await cut_of(storage, partition, facts.slot, slots.place, cut_at, size=size, behind=behind)
        rest = await planned(AsCut(storage, partition, cut), partition, with_indexes=with_indexes, advance=advance)
        return await _with_cut(storage, partition, cut, rest)
    expectation = Expectation(partition, facts.slot.items_per_section, facts.slot.codec, lambda _: True)
    reindexed: tuple[int, ...] = ()
    damaged: tuple[int, ...] = ()
    if with_indexes:
        reindexed, damaged = await _wrong_indexes(storage, partition, facts, advance)
        facts = replace(facts, offsets=sorted({*facts.offsets, *reindexed}))
    plan = decide(facts, expectation)
    rebuilt = [section for section in plan.align if not await _is_indexed(storage, partition, facts, section)]
    rebuilt = sorted({*rebuilt, *plan.drop_offsets} & {*plan.align})
    changes, created = await _changes_of(storage, data, offsets, plan, sorted({*rebuilt, *reindexed}))
    is_mended = facts.damaged_slots or plan.finishes_reset
    is_written = plan.size != plan.was_durable or not facts.slot.sequence or is_mended
    if changes or created or is_written:  # it is set aside whatever else there is to do
        await _note_checkpoint(storage, partition, changes, created)
    return Repair(
        slot=facts.slot,
        damaged_slots=facts.damaged_slots,
        plan=plan,
        rebuilt=tuple(rebuilt),
        reindexed=reindexed,
        damaged=damaged,
        changes=tuple(changes),
        created=tuple(created),
        facts=facts,
    )


async def _changes_of(
    storage: Storage, data: Sections, offsets: OffsetsJournal, plan: Plan, made_anew: Sequence[int]
) -> tuple[list[Change], list[tuple[str, int]]]:
    """Return the bytes of data and offsets that a plan takes away or writes over, and the indexes that were missing."""
    there = set(await offsets.scan())
    changes = [
        *[await _whole(storage, data.partition, section) for section in (*plan.prune_data, *plan.drop_data)],
        *[
            Change("cut", data.partition, rewrite.section, rewrite.end, rewrite.length)
            for rewrite in plan.rewrites
            if rewrite.end < rewrite.length
        ],
        *[
            await _whole(storage, offsets.partition, section)
            for section in (*plan.prune_offsets, *plan.drop_offsets)
            if section not in made_anew
        ],
        *[await _whole(storage, offsets.partition, section, "rewritten") for section in made_anew if section in there],
    ]
    return changes, [(offsets.partition, section) for section in made_anew if section not in there]


async def _finishing_reset(storage: Storage, partition: str, slots: SlotFacts, slot: Slot) -> Repair:
    changes = [
        await _whole(storage, name, section)
        for name in (f"{partition}_data", f"{partition}_offsets")
        for section in await Sections(storage, name).scan()
    ]
    created: list[tuple[str, int]] = []
    await _note_checkpoint(storage, partition, changes, created)
    return Repair(slot, slots.damaged, reset=slot.reset, changes=tuple(changes), created=tuple(created))


async def _with_cut(storage: Storage, partition: str, cut: Cut, rest: Repair) -> Repair:
    """Return the repair of a journal that is cut first."""
    data, offsets = f"{partition}_data", f"{partition}_offsets"
    changes = [
        await _whole(storage, name, section)
        for name in (data, offsets)
        for section in sorted({*cut.gone} & {*await Sections(storage, name).scan()}, reverse=True)
    ]
    if cut.section is not None and cut.end < cut.length:
        changes.append(Change("cut", data, cut.section, cut.end, cut.length))
    created: list[tuple[str, int]] = []
    await _note_checkpoint(storage, partition, changes, created)
    own = f"{partition}_checkpoint"
    changes += [change for change in rest.changes if change.partition != own]
    created += [made for made in rest.created if made[0] != own]
    return replace(rest, slot=cut.slot, cut=cut, changes=tuple(changes), created=tuple(created))


async def _note_checkpoint(
    storage: Storage, partition: str, changes: list[Change], created: list[tuple[str, int]]
) -> None:
    """Put on record that the checkpoint is written."""
    name = f"{partition}_checkpoint"
    if _CHECKPOINT in await Sections(storage, name).scan():
        changes.append(await _whole(storage, name, _CHECKPOINT, "rewritten"))
    else:
        created.append((name, _CHECKPOINT))


async def _whole(storage: Storage, partition: str, section: int, why: str = "removed") -> Change:
    async with Sections(storage, partition).opened(section) as (_, length):
        return Change(why, partition, section, 0, length)


# Indexes.


async def _is_indexed(storage: Storage, partition: str, facts: Facts, section: int) -> bool:
    """Say whether the index of a section is what its records say."""
    found = facts.sections.get(section)
    if found is not None and isinstance(found.header, Header) and found.scan is not None:
        return await _says(storage, partition, found.header, found.scan)
    read = await records_in(storage, partition, section)
    return read is not None and await _says(storage, partition, *read)


async def _says(storage: Storage, partition: str, header: Header, scan: Scan) -> bool:
    index = await SectionIndex.open(storage, f"{partition}_offsets", header)
    try:
        if index.fault is not None or index.length != HEADER_LENGTH + ENTRY_LENGTH * len(scan.starts):
            return False
        return await index.read(0, len(scan.starts)) == scan.starts
    finally:
        await index.close()


async def records_in(storage: Storage, partition: str, section: int) -> tuple[Header, Scan] | None:
    """Return the header of a data blob, and its records up to what does not check out; None where it has no header."""
    async with Sections(storage, f"{partition}_data").opened(section) as (blob, length):
        header = await read_header(blob, length)
        return (header, await scan_records(blob, length, header)) if isinstance(header, Header) else None


async def _wrong_indexes(
    storage: Storage, partition: str, facts: Facts, advance: Callable[[int], object]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the sealed sections whose index differs from their records, and those whose records do not check out."""
    slot = facts.slot
    ips = slot.items_per_section
    wrong: list[int] = []
    damaged: list[int] = []
    for section in facts.data:
        if slot.boundary // ips <= section < slot.durable // ips:
            read = await records_in(storage, partition, section)
            if read is None or not _is_sealed(*read, slot, section):
                damaged.append(section)
            elif not await _says(storage, partition, *read):
                wrong.append(section)
        advance(1)
    return tuple(wrong), tuple(damaged)


def _is_sealed(header: Header, scan: Scan, slot: Slot, section: int) -> bool:
    ips = slot.items_per_section
    expected = (Kind.DATA, slot.journal_id, section, ips, max(section * ips, slot.boundary))
    return header.place == expected and header.first + len(scan.starts) == (section + 1) * ips
