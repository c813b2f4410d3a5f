"""Sealed sections that are open for reading: a bounded number of handles, each with its index."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from posjournal_async.errors import Corruption
from posjournal_async.format.header import HEADER_LENGTH, Header
from posjournal_async.format.record import RECORD_HEAD_LENGTH
from posjournal_async.scan import scan_records
from posjournal_async.waiting import retrieve

if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable, Iterable

    from posjournal_async.offsets import OffsetsJournal
    from posjournal_async.sections import Sections
    from posjournal_async.storage.protocols import Blob

__all__ = ["SealedSection", "SealedSections"]


@dataclass(slots=True, eq=False)
class SealedSection:
    """A full section, open for reading.

    Attributes:
        header: Header of the data blob.
        blob: The data blob.
        starts: Where each record starts.
        end: Byte after the last record.
        is_scanned: Whether `starts` was found by parsing the data, not taken from the index.
        users: Readers that are at it; the blob is not closed before they are done.
        is_retired: Whether the blob is to be closed when the last of them is done.
        read_at_once: How to read the blob without waiting; None where it cannot.
    """

    header: Header
    blob: Blob
    starts: array[int]
    end: int
    is_scanned: bool = False
    users: int = 0
    is_retired: bool = False
    read_at_once: Callable[[int, int], bytes | None] | None = field(init=False)

    def __post_init__(self) -> None:
        self.read_at_once = getattr(self.blob, "read_at_once", None)

    def bounds_of(self, position: int) -> tuple[int, int] | None:
        """Return where the record of a position starts and ends, or None if the index says what cannot be."""
        index = position - self.header.first
        starts = self.starts
        start = starts[index]
        stop = starts[index + 1] if index + 1 < len(starts) else self.end
        if HEADER_LENGTH <= start <= stop - RECORD_HEAD_LENGTH and stop <= self.end:
            return start, stop
        return None


class _Opening:
    """A section that is being opened, and how many readers wait for it."""

    __slots__ = ("sealed", "task", "waiters")

    def __init__(self) -> None:
        self.task: asyncio.Task[SealedSection]
        self.sealed: SealedSection | None = None
        self.waiters = 0


class SealedSections:
    """Opens sealed sections when somebody reads them, and keeps the ones used last.

    Opening is shared: readers that come while a section is being opened wait for the same opening, and a cancelled
    reader does not stop it.
    """

    def __init__(  # noqa: PLR0913 - who it asks, and what a header must say
        self,
        sections: Sections,
        offsets: OffsetsJournal,
        *,
        journal_id: int,
        items_per_section: int,
        first_of: Callable[[int], int],
        is_sealed: Callable[[int], bool],
        most: int,
    ) -> None:
        self._sections = sections
        self._offsets = offsets
        self._journal_id = journal_id
        self._items_per_section = items_per_section
        self._first_of = first_of
        self._is_sealed = is_sealed
        self._most = most
        self._kept: OrderedDict[int, SealedSection] = OrderedDict()
        self._openings: dict[int, _Opening] = {}
        # Every section with an open handle: kept, or retired and still in use or being closed.
        self._handles: set[SealedSection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._underway = 0
        # Set whenever a handle may have become free, for those who wait for room and for the end.
        self._has_changed = asyncio.Event()
        self._is_closed = False

    def get(self, section: int) -> SealedSection | None:
        """Return a section that is kept open, for use before the next await; or None."""
        sealed = self._kept.get(section)
        if sealed is not None:
            self._kept.move_to_end(section)
        return sealed

    async def acquire(self, section: int) -> SealedSection | None:
        """Return a sealed section that stays open until `release`, opening it if need be; None if there is none.

        Nothing is awaited between asking whether it is and putting its opening on record, where `forget` finds it:
        a section that is gone must not be opened, since opening makes a blob that is missing.

        Raises:
            Corruption: The blob is not what was sealed.
        """
        sealed = self.get(section)
        if sealed is not None:
            sealed.users += 1
            return sealed
        if self._is_closed or not self._is_sealed(section):
            return None
        opening = self._openings.get(section)
        if opening is None:
            opening = self._openings[section] = _Opening()
            # Asked now: a prune may move the boundary beyond this section while it is being opened.
            first = self._first_of(section)
            opening.task = asyncio.get_running_loop().create_task(self._open(section, first, opening))
            opening.task.add_done_callback(retrieve)
        opening.waiters += 1
        try:
            return await asyncio.shield(opening.task)
        except BaseException:
            opening.waiters -= 1
            if opening.sealed is not None:  # it was opened for this reader too, which was cancelled then
                self.release(opening.sealed)
            raise

    def release(self, sealed: SealedSection) -> None:
        """Say that one `acquire` is done with."""
        sealed.users -= 1
        if not sealed.users:
            self._has_changed.set()
            if sealed.is_retired:
                self._close_soon(sealed)

    def keep(self, sealed: SealedSection) -> None:
        """Keep a section that is open, and let go of the one that was used longest ago if there are too many."""
        self._kept[sealed.header.section] = sealed
        self._handles.add(sealed)
        while len(self._kept) > self._most:
            self._retire(next(iter(self._kept)))

    async def take(self, section: int) -> SealedSection:
        """Return a sealed section whose blob belongs to the caller from now on; readers that are at it may finish."""
        sealed = await self.acquire(section)
        assert sealed is not None, "a section that is not sealed was taken"
        sealed.users -= 1
        # It may have been retired for want of room while this call waited, and even opened once more by another
        # reader. Nobody but the caller closes it from now on, and nobody finds another handle of a section that is cut.
        sealed.is_retired = False
        self._handles.discard(sealed)
        self._has_changed.set()
        kept = self._kept.get(section)
        if kept is sealed:
            del self._kept[section]
        elif kept is not None:
            self._retire(section)
        return sealed

    async def forget(self, sections: Iterable[int]) -> None:
        """Let go of sections that are about to be removed; nobody asks for them any more.

        An opening that is under way is waited for: it must not make again the blob that is removed next.
        """
        for section in sections:
            opening = self._openings.get(section)
            if opening is not None:
                await asyncio.wait([opening.task])
            if section in self._kept:
                self._retire(section)

    async def close(self) -> None:
        """Close everything, when those who are reading are done; nothing is opened any more."""
        self._is_closed = True
        await self.forget([*self._openings, *self._kept])
        while self._handles:
            self._has_changed.clear()
            await self._has_changed.wait()

    def _retire(self, section: int) -> None:
        sealed = self._kept.pop(section)
        sealed.is_retired = True
        if not sealed.users:
            self._close_soon(sealed)

    def _close_soon(self, sealed: SealedSection) -> None:
        closing = asyncio.get_running_loop().create_task(self._close(sealed))
        self._tasks.add(closing)
        closing.add_done_callback(self._tasks.discard)
        closing.add_done_callback(retrieve)

    async def _close(self, sealed: SealedSection) -> None:
        try:
            await sealed.blob.close()
        finally:
            self._handles.discard(sealed)
            self._has_changed.set()

    async def reindex(self, sealed: SealedSection) -> bool:
        """Find the records of a section whose index did not lead to one; say whether that is worth another try.

        Reading repairs nothing: what is found is kept in memory only.
        """
        if sealed.is_scanned:
            return False
        scan = await scan_records(sealed.blob, sealed.end, sealed.header)
        sealed.is_scanned = True
        if len(scan.starts) != len(sealed.starts):
            return False  # a record is damaged; the index leads to those behind it
        sealed.starts, sealed.end = scan.starts, scan.end
        return True

    async def _open(self, section: int, first: int, opening: _Opening) -> SealedSection:
        try:
            await self._wait_for_room()
            self._underway += 1
            try:
                blob, length = await self._sections.open(section)
                try:
                    sealed = await self._read(section, first, blob, length)
                except BaseException:
                    await blob.close()
                    raise
            finally:
                self._underway -= 1
                self._has_changed.set()
            opening.sealed = sealed
            sealed.users = opening.waiters
            self.keep(sealed)
            return sealed
        finally:
            del self._openings[section]

    async def _wait_for_room(self) -> None:
        """Return when one more handle may be opened, letting go of one that nobody uses if need be.

        Readers use a handle for one read, and none while they wait here, so there will be one.
        """
        while len(self._handles) + self._underway >= self._most:
            idle = next((section for section, sealed in self._kept.items() if not sealed.users), None)
            if idle is not None:
                self._retire(idle)
            self._has_changed.clear()
            await self._has_changed.wait()

    async def _read(self, section: int, first: int, blob: Blob, length: int) -> SealedSection:
        partition = self._sections.partition
        header = await self._sections.read_header(blob, length)
        if not isinstance(header, Header):
            raise Corruption(
                "header of a sealed section", "one that checks out", header.fault.value, partition, section
            )
        expected = (self._journal_id, section, self._items_per_section, first)
        found = (header.journal_id, header.section, header.items_per_section, header.first)
        if found != expected:
            what = "journal id, section, items per section and first position"
            raise Corruption(what, expected, found, partition, section)
        count = (section + 1) * self._items_per_section - header.first
        starts = await self._offsets.load(header, count)
        if starts is not None:
            return SealedSection(header, blob, starts, length)
        scan = await scan_records(blob, length, header)
        if len(scan.starts) != count:
            position = header.first + len(scan.starts)
            raise Corruption(
                "sealed section", f"{count} records", f"{len(scan.starts)}", partition, section, scan.end, position
            )
        return SealedSection(header, blob, scan.starts, scan.end, is_scanned=True)
