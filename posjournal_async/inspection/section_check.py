"""One section, checked from its header to its last byte, beside its index.

The records are walked one after the other, in pieces, and the index is read along. Behind a record that does not check
out the walk goes on at the next one that does: where the index says that it is, or where the damaged one ends.
Beside a writer a finding counts only if the checkpoint has vouched for its position all the while; where that cannot be
told, the section is looked at again.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from posjournal_async.errors import CodecError
from posjournal_async.format.header import HEADER_LENGTH, BadHeader, Header, HeaderFault, Kind
from posjournal_async.format.index import ENTRY_LENGTH
from posjournal_async.inspection.findings import Finding, Severity
from posjournal_async.inspection.present import opened_if_there
from posjournal_async.inspection.section_index import SectionIndex
from posjournal_async.inspection.states import codec_expected
from posjournal_async.inspection.walk import Walk
from posjournal_async.sections import read_header

if TYPE_CHECKING:
    from collections.abc import Callable

    from posjournal_async.format.checkpoint_slot import Slot
    from posjournal_async.inspection.walk import Piece
    from posjournal_async.inspection.watch import Watch
    from posjournal_async.payloads import Payloads
    from posjournal_async.storage.protocols import Storage

__all__ = ["SectionCheck", "Tally"]

# How often a section is looked at that a writer changes meanwhile, before it is left alone.
_LOOKS = 5


@dataclass(slots=True)
class Tally:
    """What was looked at.

    Attributes:
        items: Records that checked out.
        decoded: Items that the codec decoded.
        data_bytes: Bytes of data blobs that were read.
        sections: Data blobs that were looked at.
        unsettled: Things that a writer changed while they were looked at, so that nothing is said of them.
        advance: Called with a number of positions that are done.
    """

    items: int = 0
    decoded: int = 0
    data_bytes: int = 0
    sections: int = 0
    unsettled: int = 0
    advance: Callable[[int], object] = lambda _: None


class _LookAgain(Exception):
    """A writer was too quick for us."""


class SectionCheck:
    """Checks one section.

    Attributes:
        size: The position behind the last record, once `run` has returned. What is damaged has been told, and counts as
            there.
        is_leftover: Whether the blob is an interrupted creation.
        is_damaged: Whether something was found that no crash explains.
    """

    def __init__(  # noqa: PLR0913 - what it looks at, what is to be there, and who is told
        self,
        storage: Storage,
        watch: Watch,
        section: int,
        *,
        first: int,
        is_doubtful: bool,
        payloads: Payloads[Any] | None,
        tally: Tally,
        report: Callable[[Finding], object],
    ) -> None:
        self.size = first
        self.is_leftover = False
        self.is_damaged = False
        self._storage = storage
        self._watch = watch
        self._section = section
        self._first = first
        self._is_doubtful = is_doubtful
        self._payloads = payloads
        self._tally = tally
        self._report = report
        self._partition = f"{watch.partition}_data"
        self._done = first  # positions below it were counted, and what is wrong with them was told
        self._told: set[Finding] = set()
        self._end = 0
        self._vouched = 0

    async def run(self) -> None:
        """Report what is wrong, in the order of the positions."""
        self._tally.sections += 1
        for _ in range(_LOOKS):
            known = self._watch.slot
            await self._watch.begin()
            slot = self._watch.slot
            assert slot is not None
            assert known is not None
            if slot.journal_id != known.journal_id or slot.reset is not None:
                self._watch.is_other = True
                return
            if slot.boundary > self._first:
                self.size = (self._section + 1) * slot.items_per_section
                return  # pruned since the blobs were listed
            self._end = (self._section + 1) * slot.items_per_section
            self._vouched = max(min(slot.durable, self._end), self._first)
            try:
                await self._look(slot)
            except _LookAgain:
                if self._watch.is_other:
                    return
                continue
            break
        else:
            self._tally.unsettled += 1
        if self.is_damaged:
            self.size = self._end

    async def _look(self, slot: Slot) -> None:
        self.size = self._vouched
        async with AsyncExitStack() as stack:
            found = await stack.enter_async_context(opened_if_there(self._storage, self._partition, self._section))
            if found is None:
                lost = self._vouched - self._first
                if lost:  # else it was rewound since the blobs were listed
                    missing = self._finding(Severity.CORRUPT, "data blob", "one", "none", None, self._first)
                    await self._settle(missing, self._first, lost)
                return
            blob, length = found
            header = await read_header(blob, length)
            if isinstance(header, BadHeader):
                await self._bad_header(header)
                return
            wrong = self._wrong_header(header, slot)
            if wrong is not None:
                await self._settle(wrong, self._first, self._vouched - self._first)
                return
            index = await SectionIndex.open(self._storage, f"{self._watch.partition}_offsets", header)
            stack.push_async_callback(index.close)
            await self._records(Walk(blob, length, header), index)

    async def _bad_header(self, header: BadHeader) -> None:
        severity, found = Severity.CORRUPT, header.fault.value
        if header.fault is HeaderFault.VERSION:
            found = f"format version {header.version}"
        elif header.fault is HeaderFault.INTERRUPTED and self._vouched == self._first:
            severity = Severity.TORN
            self.is_leftover = True
        finding = self._finding(severity, "header", "one that checks out", found, 0, self._first)
        await self._settle(finding, self._first, self._vouched - self._first)

    def _wrong_header(self, header: Header, slot: Slot) -> Finding | None:
        """Return how a header is not that of this section of this journal."""
        wanted = {
            "kind": (Kind.DATA.name, header.kind.name),
            "journal id": (f"{slot.journal_id:016x}", f"{header.journal_id:016x}"),
            "section": (self._section, header.section),
            "items per section": (slot.items_per_section, header.items_per_section),
            "first position": (self._first, header.first),
            "codec": (codec_expected(slot.codec, header.codec), header.codec),
        }
        for name, (expected, found) in wanted.items():
            if expected != found:
                what = f"header: {name}"
                return self._finding(Severity.CORRUPT, what, str(expected), str(found), 0, self._first)
        return None

    # The walk.

    async def _records(self, walk: Walk, index: SectionIndex) -> None:
        is_indexed = index.fault is None
        if index.fault is not None:
            wrong = self._finding(Severity.STALE, "index", *index.fault, None, self._first, is_index=True)
            await self._settle(wrong, self._first, 0)
        is_whole = True
        while walk.position < self._end:
            piece = await walk.next_piece(self._end)
            if piece is None:
                if walk.position >= self._vouched:
                    break  # nothing has to be here
                is_whole = False
                await self._damage(walk, index)
                continue
            if is_indexed:
                wrong_entry = await self._wrong_entry(index, piece)
                if wrong_entry is not None:
                    is_indexed = False
                    assert wrong_entry.position is not None
                    await self._settle(wrong_entry, wrong_entry.position, 0)
            if self._payloads is not None and piece.stop > self._done:
                await self._decode(self._payloads, walk, piece)
            self._tally.items += max(piece.stop - max(piece.first, self._done), 0)
            self._tally.data_bytes += piece.end - piece.starts[0]
            self._advance(piece.stop)
            await self._watch.look()
        self.size = walk.position
        await self._behind(walk)
        entries = walk.position - self._first
        if is_whole and is_indexed and index.length != HEADER_LENGTH + ENTRY_LENGTH * entries:
            offset = HEADER_LENGTH + ENTRY_LENGTH * entries
            more = f"{index.length - offset} bytes more"
            wrong = self._finding(Severity.STALE, "index", f"{entries} entries", more, offset, None, is_index=True)
            await self._settle(wrong, self._last(walk), 0)

    def _advance(self, position: int) -> None:
        self._tally.advance(max(position - self._done, 0))
        self._done = max(self._done, position)

    def _last(self, walk: Walk) -> int:
        """Return the position by which what is behind the records is judged.

        The last section is the writer's business up to its last byte, a section that is sealed is not.
        """
        return walk.position if self._is_doubtful else self._end - 1

    async def _behind(self, walk: Walk) -> None:
        """Say what is wrong behind the last record."""
        left = walk.length - walk.at
        if left <= 0:
            return
        if walk.position == self._end and await walk.is_record_at(walk.at, self._end):
            expected = f"{self._end - self._first} records"
            finding = self._finding(Severity.CORRUPT, "section", expected, "more", walk.at, self._end)
        elif self._is_doubtful:
            found = f"{await walk.what_is_here()} ({left} bytes up to the end)"
            finding = self._finding(Severity.TORN, "record", "one, or the end", found, walk.at, walk.position)
        else:
            finding = self._finding(Severity.CORRUPT, "section", "its end", f"{left} bytes more", walk.at, None)
        await self._settle(finding, self._last(walk), 0)

    async def _damage(self, walk: Walk, index: SectionIndex) -> None:
        """Report the damage that the walk stands at, and have it go on behind it."""
        position, at = walk.position, walk.at
        found = await walk.what_is_here()
        resumed = await self._resume(walk, index)
        if resumed is None:
            lost = self._vouched - position
            if lost > 1:
                found += f"; nothing leads to the {lost - 1} positions behind it"
            walk.go_to(self._vouched, walk.length)
        else:
            lost = resumed[0] - position
            if lost > 1:
                found += f"; the next that checks out is position {resumed[0]} at byte {resumed[1]}"
            walk.go_to(*resumed)
        finding = self._finding(Severity.CORRUPT, "record", "one that checks out", found, at, position)
        await self._settle(finding, position, lost)

    async def _resume(self, walk: Walk, index: SectionIndex) -> tuple[int, int] | None:
        """Return the next position whose record checks out, and where it starts; None if nothing leads to one."""
        after = walk.position + 1
        chained = await walk.end_of_this()
        if chained is not None and after < self._end and await walk.is_record_at(chained, after):
            return after, chained
        most = min(self._end, self._first + index.count)
        for position in range(after, most):
            start = await index.entry(position - self._first)
            stop = await index.entry(position + 1 - self._first) if position + 1 < most else None
            if start is not None and start > walk.at and await walk.is_record_at(start, position, stop):
                return position, start
        return None

    async def _wrong_entry(self, index: SectionIndex, piece: Piece) -> Finding | None:
        """Return the first entry of the index that is not where the record is."""
        number = piece.first - self._first
        entries = await index.read(number, len(piece.starts))
        if entries == piece.starts:
            return None
        pairs = zip_longest(piece.starts, entries)
        nth, start, entry = next((nth, start, entry) for nth, (start, entry) in enumerate(pairs) if start != entry)
        found = "none" if entry is None else f"byte {entry}"
        offset = HEADER_LENGTH + ENTRY_LENGTH * (number + nth)
        position = piece.first + nth
        return self._finding(Severity.STALE, "index entry", f"byte {start}", found, offset, position, is_index=True)

    async def _decode(self, payloads: Payloads[Any], walk: Walk, piece: Piece) -> None:
        """Report the items of a piece that cannot be decoded."""
        records = piece.records or await walk.read_again(piece)
        items, error = payloads.decode_all(records, piece.first)
        good = len(items)
        if error is not None:
            compressed = set(records.compressed)
            for nth in range(good, len(records.payloads)):
                position = piece.first + nth
                try:
                    payloads.decode((records.payloads[nth], nth in compressed), position)
                    good += 1
                except CodecError as refusal:
                    what = f"one that {refusal.codec} can {refusal.doing}"
                    finding = self._finding(
                        Severity.CORRUPT, "item", what, refusal.reason, piece.starts[nth], position, positions=1
                    )
                    # It is an item of this very journal, section and position, whatever a writer does meanwhile.
                    if position >= self._done:
                        self.is_damaged = True
                        self._report(finding)
        self._tally.decoded += good

    # Beside a writer.

    async def _settle(self, finding: Finding, position: int, lost: int) -> None:
        """Report a finding unless a writer may have caused it, which is judged by a position.

        Raises:
            _LookAgain: The writer was too quick to tell.
        """
        watch = self._watch
        await watch.look()
        if position < self._done if lost else finding in self._told:
            return  # told before
        if not await watch.is_at_rest():
            if not watch.vouches_for(position):
                if watch.was_locked and not watch.is_other and not await watch.is_locked():
                    raise _LookAgain  # the writer has gone: now it can be told
                self._tally.unsettled += watch.boundary <= position  # else it was pruned
                return
            if watch.has_gap:
                raise _LookAgain
        self._told.add(finding)
        if finding.severity is Severity.CORRUPT:
            self.is_damaged = True
        self._report(replace(finding, positions=lost))
        if lost:
            self._advance(position + lost)

    def _finding(  # noqa: PLR0913, PLR0917 - a finding carries its facts
        self,
        severity: Severity,
        what: str,
        expected: str,
        found: str,
        offset: int | None,
        position: int | None,
        *,
        is_index: bool = False,
        positions: int = 0,
    ) -> Finding:
        partition = f"{self._watch.partition}_offsets" if is_index else self._partition
        return Finding(severity, what, expected, found, partition, self._section, offset, position, positions)
