"""Say what each section is, from what was found in the files: nothing is read here.

The rules are those of `recovery`, and whether opening would succeed is answered by `recovery.decide` itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from posjournal_async.errors import Corruption, InvalidConfiguration
from posjournal_async.format.header import HEADER_LENGTH, BadHeader, Header, HeaderFault, Kind, parse_header
from posjournal_async.format.index import ENTRY_LENGTH
from posjournal_async.inspection.states import SectionState, SectionView, Survey, codec_expected
from posjournal_async.recovery.facts import Facts, SectionFacts
from posjournal_async.recovery.plan import Expectation, decide

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from posjournal_async.checkpoint import SlotFacts
    from posjournal_async.errors import JournalError
    from posjournal_async.format.checkpoint_slot import Slot
    from posjournal_async.scan import Scan
    from posjournal_async.storage.readonly import BlobFacts

__all__ = ["Look", "by_section", "during_reset", "placed", "readable_size", "without_checkpoint"]

_NAME_LENGTH = 8

# What a header says, in the order in which it is compared, and how that is called.
_FIELDS = (
    ("kind", "kind of blob"),
    ("journal_id", "journal"),
    ("section", "section"),
    ("items_per_section", "number of items per section"),
    ("first", "first position"),
    ("codec", "codec"),
)


@dataclass(frozen=True, slots=True)
class Look:
    """What one look has found, before it is judged.

    Attributes:
        partition: Base name of the journal.
        slots: What the checkpoint holds.
        data: The data blobs by section.
        offsets: The offsets blobs by section.
        has_heads: Whether the first bytes of the data blobs were read.
        strangers: Names of blobs that are no section, with their partition.
        checkpoint_bytes: Length of the checkpoint.
        synced_ns: When the checkpoint was written last, in nanoseconds since 1970; None if it is missing.
    """

    partition: str
    slots: SlotFacts
    data: Mapping[int, BlobFacts]
    offsets: Mapping[int, BlobFacts]
    has_heads: bool
    strangers: tuple[str, ...]
    checkpoint_bytes: int
    synced_ns: int | None

    @property
    def sections(self) -> list[int]:
        """The sections that have a blob of either kind, ascending."""
        return sorted({*self.data, *self.offsets})

    def view_of(
        self, section: int, state: SectionState, positions: tuple[int, int], reason: str = "", *, through: int = -1
    ) -> SectionView:
        """Return a section with what its files say of themselves."""
        data = self.data.get(section)
        offsets = self.offsets.get(section)
        first, stop = positions
        return SectionView(
            section=section,
            through=max(through, section),
            state=state,
            first=first,
            stop=stop,
            data_bytes=None if data is None else data.length,
            offsets_bytes=None if offsets is None else offsets.length,
            reason=reason,
        )

    def survey_of(
        self, slot: Slot | None, size: int, sections: Sequence[SectionView], problem: JournalError | None
    ) -> Survey:
        """Return what was found of the journal as a whole."""
        reset = None if slot is None else slot.reset
        return Survey(
            slot=slot,
            damaged_slots=self.slots.damaged,
            boundary=0 if slot is None else slot.boundary if reset is None else reset,
            durable=0 if slot is None else slot.durable if reset is None else reset,
            size=size,
            sections=tuple(sections),
            checkpoint_bytes=self.checkpoint_bytes,
            synced_ns=self.synced_ns,
            problem=problem,
            strangers=self.strangers,
            has_heads=self.has_heads,
        )


def by_section(blobs: Sequence[BlobFacts]) -> tuple[dict[int, BlobFacts], list[str]]:
    """Return the blobs that are sections, and the names of the others."""
    sections = {int.from_bytes(blob.name): blob for blob in blobs if len(blob.name) == _NAME_LENGTH}
    return sections, [blob.name.hex() for blob in blobs if len(blob.name) != _NAME_LENGTH]


def without_checkpoint(look: Look) -> Survey:
    """Return what there is to say where not even a blob says what journal this is."""
    reason = "neither a checkpoint nor a header says what it belongs to"
    sections = [look.view_of(section, SectionState.DAMAGED, (0, 0), reason) for section in look.sections]
    problem = None
    if sections or look.slots.damaged == 2:
        partition = f"{look.partition}_data"
        problem = Corruption("checkpoint", "one valid slot, or a data blob to stand in", "neither", partition)
    return look.survey_of(None, 0, sections, problem)


def during_reset(look: Look, slot: Slot, target: int) -> Survey:
    """Return what there is while a reset is in progress: nothing but what it is about to remove."""
    ips = slot.items_per_section
    sections = [
        look.view_of(section, SectionState.LEFTOVER, (section * ips, section * ips), "removed by the reset in progress")
        for section in look.sections
    ]
    return look.survey_of(slot, target, sections, None)


def placed(look: Look, slot: Slot, scans: Mapping[int, SectionFacts]) -> Survey:
    """Say what each section is, and how far the journal reaches.

    Args:
        look: The files.
        slot: The checkpoint, or what stands in for it.
        scans: The sections that recovery would read, read.
    """
    facts = Facts(slot, look.slots.damaged, sorted(look.data), sorted(look.offsets), scans)
    problem: JournalError | None = None
    placing = _Placing(look, slot, scans)
    try:
        size = decide(facts, Expectation(look.partition, slot.items_per_section, slot.codec, lambda _: True)).size
    except (Corruption, InvalidConfiguration) as error:
        problem = error
        size = readable_size(slot, scans)
    return look.survey_of(slot, size, list(placing.sections(size)), problem)


def readable_size(slot: Slot, scans: Mapping[int, SectionFacts]) -> int:
    """Return the durable size, or where the records that follow it without a gap end.

    Args:
        slot: The checkpoint, or what stands in for it.
        scans: The sections from the one that holds the durable size on, read.
    """
    ips = slot.items_per_section
    size = slot.durable
    while True:
        section = size // ips
        facts = scans.get(section)
        if facts is None or facts.count is None or _fault_of(slot, section, facts.header) is not None:
            return size
        stop = max(section * ips, slot.boundary) + facts.count
        if stop <= size:
            return size
        size = stop


def _fault_of(slot: Slot, section: int, header: Header | BadHeader) -> tuple[SectionState, str] | None:
    """Say what is wrong with the header of a data blob, if anything."""
    first = max(section * slot.items_per_section, slot.boundary)
    if isinstance(header, BadHeader):
        if header.fault is HeaderFault.VERSION:
            return SectionState.FOREIGN, f"format version {header.version}"
        if header.fault is HeaderFault.INTERRUPTED and slot.durable <= first:
            return SectionState.INTERRUPTED, "its creation was interrupted"
        return SectionState.DAMAGED, "its header does not check out"
    codec = codec_expected(slot.codec, header.codec)
    expected = Header(Kind.DATA, slot.journal_id, section, slot.items_per_section, first, header.salt, codec)
    if header == expected:
        return None
    other = next(name for field, name in _FIELDS if getattr(header, field) != getattr(expected, field))
    return SectionState.FOREIGN, f"its header is that of another {other}"


class _Placing:
    """Puts the sections of one journal in their places."""

    def __init__(self, look: Look, slot: Slot, scans: Mapping[int, SectionFacts]) -> None:
        self._look = look
        self._slot = slot
        self._scans = scans
        self._ips = slot.items_per_section

    def sections(self, size: int) -> Iterator[SectionView]:
        """Yield all sections of the files, and the gaps where the journal needs one, ascending."""
        look, ips = self._look, self._ips
        expected = self._slot.boundary // ips
        first = expected
        # Up to here the journal has to have a data blob for each section.
        stop = -(-size // ips) if size > self._slot.boundary else first
        for section in look.sections:
            if section < first:
                yield look.view_of(
                    section, SectionState.LEFTOVER, (section * ips, section * ips), "below the pruning boundary"
                )
                continue
            if expected < min(section, stop):
                yield self._gap(expected, min(section, stop), size)
            expected = max(expected, section + 1)
            yield self._section(section, size)
        if expected < stop:
            yield self._gap(expected, stop, size)

    def _first_of(self, section: int) -> int:
        return max(section * self._ips, self._slot.boundary)

    def _gap(self, start: int, stop: int, size: int) -> SectionView:
        """Return what stands for a run of sections without any blob."""
        positions = self._first_of(start), min(stop * self._ips, size)
        return self._look.view_of(start, SectionState.MISSING, positions, "no data blob", through=stop - 1)

    def _section(self, section: int, size: int) -> SectionView:
        look = self._look
        first, end = self._first_of(section), (section + 1) * self._ips
        blob = look.data.get(section)
        if blob is None:
            if first < size:
                return look.view_of(section, SectionState.MISSING, (first, min(end, size)), "no data blob")
            return look.view_of(section, SectionState.BEYOND, (first, first), "an index without data")
        facts = self._scans.get(section)
        header = parse_header(blob.head, blob.length) if facts is None and look.has_heads else None
        header = header if facts is None else facts.header
        fault = None if header is None else _fault_of(self._slot, section, header)
        if fault is not None:
            state, reason = fault
            stop = max(min(end, size), first)
        else:
            state, reason = self._state_of(section, size)
            count = end - first if facts is None or facts.scan is None else len(facts.scan.starts)
            stop = first if state is SectionState.BEYOND else first + count
        scan = None if facts is None or fault is not None else facts.scan
        return replace(look.view_of(section, state, (first, stop), reason), header=header, scan=scan)

    def _state_of(self, section: int, size: int) -> tuple[SectionState, str]:
        """Say what a section with a good header is."""
        durable = self._slot.durable
        first, end = self._first_of(section), (section + 1) * self._ips
        facts = self._scans.get(section)
        scan = None if facts is None else facts.scan
        if first > size or (first == size and (scan is None or scan.starts or section != max(self._look.data))):
            return SectionState.BEYOND, "behind the end of the journal"
        if scan is not None and (said := _said_by(scan, (first, min(durable, end), end))) is not None:
            return said
        reason = self._why_unindexed(section)
        if not reason:
            return SectionState.SEALED, ""
        # Above the durable size it may be about to be sealed.
        return (SectionState.TAIL, "") if end > durable else (SectionState.UNINDEXED, reason)

    def _why_unindexed(self, section: int) -> str:
        """Say what can be seen of the index of a full section, unread, that is wrong; "" if nothing."""
        index = self._look.offsets.get(section)
        if index is None:
            return "its index is missing"
        count = (section + 1) * self._ips - self._first_of(section)
        return "" if index.length == HEADER_LENGTH + count * ENTRY_LENGTH else "its index has another length"


def _said_by(scan: Scan, positions: tuple[int, int, int]) -> tuple[SectionState, str] | None:
    """Say what the records of a section make of it; None if they fill it, and nothing else is there.

    Args:
        scan: Its records.
        positions: Position of the first; the one up to which they have to be there; the one after the last.
    """
    first, durable, end = positions
    stop = first + len(scan.starts)
    if stop < durable:
        return SectionState.DAMAGED, f"the record of position {stop}, at offset {scan.end}, does not check out"
    if scan.has_extra:
        return SectionState.DAMAGED, f"more than {end - first} records"
    if scan.end < scan.length:
        return SectionState.TORN, f"{scan.length - scan.end} bytes behind the last record are none"
    return None if stop == end else (SectionState.TAIL, "")
