"""Verifying a journal from its checkpoint to its last byte, without changing any.

No finding means: opening has nothing to mend, and every item can be read. The rules are those of `recovery`, applied
to all sections instead of the last; what they are is written down once more here, and tests hold both against each
other.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from posjournal_async.format.checkpoint_slot import SLOT_LENGTH
from posjournal_async.format.header import BadHeader, Header
from posjournal_async.inspection.findings import Finding, Severity
from posjournal_async.inspection.present import opened_if_there
from posjournal_async.inspection.section_check import SectionCheck, Tally
from posjournal_async.inspection.watch import Watch, never_locked
from posjournal_async.recovery.facts import stand_in
from posjournal_async.sections import read_header, unbroken

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from posjournal_async.format.checkpoint_slot import Slot
    from posjournal_async.payloads import Payloads
    from posjournal_async.storage.protocols import Storage

__all__ = ["Verification"]

_NAME_LENGTH = 8


class Verification:
    """Looks at everything that a journal consists of, and reports what is not as the format has it.

    What is reported is sure: beside a writer nothing is said of what that writer may be changing, and `tally.unsettled`
    counts what was left alone. Memory does not grow with the journal, nor with the number of findings.

    Attributes:
        slot: The checkpoint as it was when the verification began; what the data says instead, with sequence number 0,
            where it is lost; None if there is neither.
        tally: What was looked at.
        is_beside_writer: Whether somebody had the journal open.
        is_cut_short: Whether the journal was reset or replaced while it was looked at.

    Args:
        storage: Where the journal is: one that creates nothing, so that opening what is missing raises (ENOENT).
        partition: Base name of the journal.
        report: Called with each finding, as soon as it is known.
        payloads_of: Returns with what to decode the items of a journal; None for leaving that out.
        is_locked: Says whether somebody has the journal open.
    """

    def __init__(
        self,
        storage: Storage,
        partition: str,
        report: Callable[[Finding], object],
        *,
        payloads_of: Callable[[Slot], Payloads[Any]] | None = None,
        is_locked: Callable[[], Awaitable[bool]] = never_locked,
    ) -> None:
        self.slot: Slot | None = None
        self.tally = Tally()
        self.is_beside_writer = False
        self.is_cut_short = False
        self._storage = storage
        self._partition = partition
        self._report = report
        self._payloads_of = payloads_of
        self._payloads: Payloads[Any] | None = None
        self._watch = Watch(storage, partition, is_locked)
        # The checkpoint when the blobs were listed.
        self._listed: Slot | None = None
        self._is_damaged = False

    async def run(self) -> None:
        """Report all findings: the checkpoint, then the sections in ascending order.

        Raises:
            InvalidConfiguration: Another version of the format wrote the checkpoint.
            StorageError: Something could not be read.
        """
        try:
            await self._watch.open()
            self._listed = self._watch.slot
            self.is_beside_writer = self._watch.was_locked
            await self._check()
        finally:
            await self._watch.close()

    async def _check(self) -> None:
        data = await self._sections("data")
        offsets = await self._sections("offsets")
        if self._watch.slot is None:
            await self._watch.look()
            if self._watch.is_other:  # it was made while the blobs were listed
                self.is_cut_short = True
                return
        slot = self.slot = self._listed = await self._checkpoint(data, offsets)
        if slot is None:
            return
        if self._payloads_of is not None:
            self._payloads = self._payloads_of(slot)
        at = self._watch.place * SLOT_LENGTH
        if slot.reset is not None:
            found = f"one to size {slot.reset}"
            await self._tell(Severity.TORN, "reset in progress", "none", found, "checkpoint", None, at)
            return
        first = slot.boundary // slot.items_per_section
        kept = [section for section in data if section >= first]
        indexed = [section for section in offsets if section >= first]
        if data and not kept and await self._is_other(slot, data[0]):
            what, found = "data blob below the boundary", "one of another journal"
            await self._tell(Severity.CORRUPT, what, "none", found, "data", data[0], 0)
        else:
            await self._tell_below(first, data=data, offsets=offsets)
        size = await self._walk(slot, kept, indexed)
        if slot.sequence and size > slot.durable and not self._is_damaged:
            what = "durable size"
            await self._tell(Severity.STALE, what, str(size), str(slot.durable), "checkpoint", None, at, slot.durable)

    async def _checkpoint(self, data: Sequence[int], offsets: Sequence[int]) -> Slot | None:
        """Report what is wrong with the checkpoint; return it, or what stands in for it, or None if nothing does."""
        watch = self._watch
        if watch.slot is not None or (not data and not offsets and len(watch.damaged) < 2):
            # Without a slot nothing was ever made durable: the first one may be torn.
            for place in watch.damaged:
                at = place * SLOT_LENGTH
                await self._tell(Severity.TORN, "slot", "a checkpoint", "other bytes", "checkpoint", None, at)
            if watch.is_reset_behind:
                at = (1 - watch.place) * SLOT_LENGTH
                await self._tell(Severity.TORN, "slot", "no reset", "one that is done", "checkpoint", None, at)
            return watch.slot
        found = "neither" if len(watch.damaged) < 2 else "two that do not check out"
        await self._tell(Severity.CORRUPT, "checkpoint", "a valid slot", found, "checkpoint", None, 0)
        if watch.slot is None:
            watch.slot = await self._stand_in(data)
            await watch.begin()
        return watch.slot

    async def _walk(self, slot: Slot, kept: Sequence[int], indexed: Sequence[int]) -> int:
        """Check the sections that are there; return the position behind the last record without a gap before it."""
        ips = slot.items_per_section
        size = slot.boundary
        is_over = False  # what is behind a gap above the durable size is not looked into: opening removes it
        doubtful = await self._first_doubtful(slot, kept)
        orphans = deque(sorted({*indexed}.difference(kept)))
        if kept and indexed and indexed[0] > kept[0] == slot.boundary // ips:
            await self._tell_first_index(slot, indexed[0])
        for section in kept:
            if self._watch.is_other:
                self.is_cut_short = True
                return size
            while orphans and orphans[0] < section:
                await self._tell_orphan(orphans.popleft(), ips)
            first = max(section * ips, slot.boundary)
            if first > size and not is_over:
                is_over = size >= slot.durable and section != kept[0]  # the first one is never missing alone
                if not is_over:
                    await self._tell_missing(slot, size, min(first, slot.durable) if size < slot.durable else first)
            if is_over:
                await self._tell_behind_gap(section, first, is_indexed=section in indexed)
                continue
            check = await self._check_section(section, first, is_doubtful=section >= doubtful)
            size = check.size
            is_over = check.is_leftover or size < (section + 1) * ips
        self.is_cut_short = self._watch.is_other
        for section in orphans:
            await self._tell_orphan(section, ips)
        if size < slot.durable:
            await self._tell_missing(slot, size, slot.durable)
        return size

    async def _check_section(self, section: int, first: int, *, is_doubtful: bool) -> SectionCheck:
        check = SectionCheck(
            self._storage,
            self._watch,
            section,
            first=first,
            is_doubtful=is_doubtful,
            payloads=self._payloads,
            tally=self.tally,
            report=self._report_of_section,
        )
        await check.run()
        return check

    async def _first_doubtful(self, slot: Slot, kept: Sequence[int]) -> int:
        """Return the first section that opening reads from end to end: those before it are sealed."""
        doubtful = slot.durable // slot.items_per_section
        looked_at = [section for section in kept if section >= doubtful]
        headless = {section for section in looked_at if isinstance(await self._header_of(section), BadHeader)}
        return min([doubtful, *unbroken(kept, headless)[-1:]])

    async def _header_of(self, section: int) -> Header | BadHeader | None:
        """Return the header of a data blob, or why there is none; None if there is no blob."""
        async with opened_if_there(self._storage, f"{self._partition}_data", section) as found:
            return None if found is None else await read_header(*found)

    async def _is_other(self, slot: Slot, section: int) -> bool:
        """Say whether a data blob is of another journal than the checkpoint: of one after it, which was a copy."""
        header = await self._header_of(section)
        return isinstance(header, Header) and header.journal_id != slot.journal_id

    async def _stand_in(self, data: Sequence[int]) -> Slot | None:
        """Return what the checkpoint would have said at the least, also where the first headers are damaged."""
        for place, section in enumerate(data):
            if isinstance(await self._header_of(section), Header):
                slot = await stand_in(data[place:], self._header_of)
                if slot is None or not place:
                    return slot
                # The sections before it are damaged, and not pruned.
                boundary = data[0] * slot.items_per_section
                return replace(slot, boundary=boundary, durable=max(data[-1] * slot.items_per_section, boundary))
        return None

    async def _sections(self, part: str) -> list[int]:
        """Return the sections of a partition, ascending, and report the names that are none."""
        sections: list[int] = []
        for name in sorted(await self._storage.scan(f"{self._partition}_{part}")):
            if len(name) == _NAME_LENGTH:
                sections.append(int.from_bytes(name))
            else:
                expected = f"{_NAME_LENGTH} bytes"
                await self._tell(Severity.CORRUPT, "blob name", expected, name.hex(), part, None, None)
        return sections

    # Telling.

    async def _tell_missing(self, slot: Slot, start: int, stop: int) -> None:
        ips = slot.items_per_section
        if await self._header_of(start // ips) is not None:  # it was made since the blobs were listed
            self.tally.unsettled += 1
            return
        section, last = start // ips, (stop - 1) // ips
        found = "none" if section == last else f"none, up to section {last}"
        await self._tell(
            Severity.CORRUPT,
            "data blob",
            "one",
            found,
            "data",
            section,
            None,
            start,
            positions=stop - start,
            can_be_vouched=True,
        )

    async def _tell_first_index(self, slot: Slot, found: int) -> None:
        first = slot.boundary // slot.items_per_section
        expected = f"section {first}, as in the data"
        what, at = f"section {found}", slot.boundary
        await self._tell(Severity.CORRUPT, "first index", expected, what, "offsets", first, None, at)

    async def _tell_below(self, first: int, **parts: Sequence[int]) -> None:
        for part, sections in parts.items():
            for section in sections:
                if section < first:
                    what = f"{part} blob below the boundary"
                    await self._tell(Severity.TORN, what, "none", "one", part, section, None)

    async def _tell_behind_gap(self, section: int, first: int, *, is_indexed: bool) -> None:
        await self._tell(Severity.TORN, "data blob behind a gap", "none", "one", "data", section, None, first)
        if is_indexed:
            await self._tell(Severity.STALE, "index behind a gap", "none", "one", "offsets", section, None, first)

    async def _tell_orphan(self, section: int, ips: int) -> None:
        await self._tell(Severity.STALE, "index without data", "none", "one", "offsets", section, None, section * ips)

    def _report_of_section(self, finding: Finding) -> None:
        self._is_damaged = self._is_damaged or finding.severity is Severity.CORRUPT
        self._report(finding)

    async def _tell(  # noqa: PLR0913, PLR0917 - a finding carries its facts
        self,
        severity: Severity,
        what: str,
        expected: str,
        found: str,
        part: str,
        section: int | None,
        offset: int | None,
        position: int | None = None,
        *,
        positions: int = 0,
        can_be_vouched: bool = False,
    ) -> None:
        """Report what stands outside of the sections, unless a writer may have caused it."""
        watch = self._watch
        await watch.look()
        is_vouched = can_be_vouched and position is not None and watch.vouches_for(position) and not watch.has_gap
        is_at_rest = not self.is_beside_writer and await watch.is_at_rest() and watch.slot == self._listed
        if not is_vouched and not is_at_rest:
            self.tally.unsettled += position is None or watch.boundary <= position  # else it was pruned
            return
        self._is_damaged = self._is_damaged or severity is Severity.CORRUPT
        partition = f"{self._partition}_{part}"
        self._report(Finding(severity, what, expected, found, partition, section, offset, position, positions))
