"""The sealed sections that are open for reading: a bounded number of handles, each closed when nobody is at it."""

from __future__ import annotations

import asyncio
from array import array
from collections import OrderedDict, deque
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

from posjournal_async.errors import Corruption
from posjournal_async.format.header import Header, Kind
from posjournal_async.scan import scan_records
from posjournal_async.sealed_section import SealedSection
from posjournal_async.sections import closed_on_error, read_header
from posjournal_async.waiting import retrieve, task_of, twin_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable

    from posjournal_async.offsets import OffsetsJournal
    from posjournal_async.sections import Sections
    from posjournal_async.storage.protocols import Blob

__all__ = ["SealedSections"]

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Use:
    """One reader of a section, from before it asks until it is done.

    Attributes:
        opening: The opening that it waits for, or waited for.
        sealed: The section that it was given.
    """

    opening: _Opening | None = None
    sealed: SealedSection | None = None


class _Opening:
    """A section that is being opened, and the readers that wait for it."""

    __slots__ = ("task", "waiters")

    def __init__(self, open_section: Callable[[_Opening], Coroutine[Any, Any, SealedSection]]) -> None:
        self.waiters: set[_Use] = set()
        # Last, so that the maker of this object has it on record before the task runs.
        self.task = task_of(open_section(self))


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
        # Those of them that may have a handle already.
        self._begun: set[_Opening] = set()
        # Every section with an open handle: kept, or retired and still in use or being closed.
        self._handles: set[SealedSection] = set()
        # Openings that wait for a handle to become free, and what `close` waits for: see `_tell`.
        self._in_line: deque[asyncio.Future[None]] = deque()
        self._has_changed = asyncio.Event()
        self._is_closed = False

    @property
    def handles(self) -> int:
        """How many sections are open."""
        return len(self._handles)

    def get(self, section: int) -> SealedSection | None:
        """Return a section that is kept open, for use before the next await; or None."""
        sealed = self._kept.get(section)
        if sealed is not None:
            self._kept.move_to_end(section)
        return sealed

    async def using(self, section: int, use: Callable[[SealedSection], Awaitable[T]]) -> T | None:
        """Return what `use` makes of a sealed section, which stays open meanwhile; None if there is no such section.

        Raises:
            Corruption: The blob is not what was sealed.
        """
        reader = _Use()
        try:
            try:
                sealed = await self._acquire(section, reader)
                return None if sealed is None else await use(sealed)
            finally:
                self._release(reader)
        finally:
            self._release(reader)  # an interruption may have struck in the first, and nobody else knows this reader

    async def _acquire(self, section: int, reader: _Use) -> SealedSection | None:
        """Return a sealed section that stays open until `_release`, opening it if need be; None if there is none.

        Nothing is awaited between asking whether it is and putting its opening on record, where `forget` finds it:
        a section that is gone must not be opened, since opening makes a blob that is missing.
        """
        sealed = self.get(section)
        if sealed is not None:
            reader.sealed = sealed
            sealed.users.add(reader)
            return sealed
        if self._is_closed or not self._is_sealed(section):
            return None
        opening = self._openings.get(section)
        if opening is None or opening.task.done():  # done and on record: it failed, and was interrupted
            # Asked now: a prune may move the boundary beyond this section while it is being opened.
            first = self._first_of(section)
            opening = self._openings[section] = _Opening(partial(self._open, section, first))
            opening.task.add_done_callback(partial(self._was_opened, section, opening))
        reader.opening = opening
        opening.waiters.add(reader)
        try:
            return await asyncio.shield(opening.task)
        except Exception as error:
            if len(opening.waiters) > 1:
                raise twin_of(error)  # noqa: B904 - it has its cause
            raise

    def _release(self, reader: _Use) -> None:
        """Let a reader go, if it is there. Doing it again does what an interruption left undone."""
        if reader.opening is not None:
            reader.opening.waiters.discard(reader)
        sealed = reader.sealed
        if sealed is None:
            return
        sealed.users.discard(reader)
        if not sealed.users:
            self._tell()
            if sealed in self._handles and self._kept.get(sealed.header.section) is not sealed:
                self._close_soon(sealed)
        reader.sealed = None

    def keep(self, sealed: SealedSection) -> None:
        """Keep a section that is open, and let go of the one that was used longest ago if there are too many."""
        self._handles.add(sealed)
        self._kept[sealed.header.section] = sealed
        while len(self._kept) > self._most:
            self._retire(next(iter(self._kept.values())))

    def let_go(self, section: int) -> None:
        """Close a section that is kept open, unless somebody is at it: it is not expected to be read again soon."""
        sealed = self._kept.get(section)
        if sealed is not None and not sealed.users:
            self._retire(sealed)

    async def take(self, section: int, prepare: Callable[[], Awaitable[None]]) -> SealedSection:
        """Return a sealed section whose blob belongs to the caller from now on; readers that are at it may finish.

        Nothing is taken before `prepare` has succeeded.
        """
        taken = await self.using(section, partial(self._hand_over, prepare))
        assert taken is not None, "a section that is not sealed was taken"
        return taken

    async def _hand_over(self, prepare: Callable[[], Awaitable[None]], sealed: SealedSection) -> SealedSection:
        await prepare()
        # It may have been retired for want of room while this call waited, and even opened once more by another
        # reader. Nobody but the caller closes it from now on, and nobody finds another handle of a section that is cut.
        self._handles.discard(sealed)
        self._tell()
        kept = self._kept.get(sealed.header.section)
        if kept is sealed:
            del self._kept[sealed.header.section]
        elif kept is not None:
            self._retire(kept)
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
                self._retire(self._kept[section])

    async def close(self) -> None:
        """Close everything, when those who are reading are done; nothing is opened any more."""
        self._is_closed = True
        await self.forget([*self._openings, *self._kept])
        while self._handles:
            for sealed in self._handles:
                self._retire(sealed)  # once more: an interruption may have struck in the first
            self._has_changed.clear()
            await self._has_changed.wait()

    def _retire(self, sealed: SealedSection) -> None:
        """Have a section closed when its readers are done, and let nobody find it any more."""
        if self._kept.get(sealed.header.section) is sealed:
            del self._kept[sealed.header.section]
        if not sealed.users:
            self._close_soon(sealed)

    def _close_soon(self, sealed: SealedSection) -> None:
        if sealed.closing is None:
            sealed.closing = task_of(self._close(sealed))
            sealed.closing.add_done_callback(partial(self._was_closed, sealed))

    async def _close(self, sealed: SealedSection) -> None:
        try:
            await sealed.blob.close()
        finally:
            self._was_closed(sealed)

    def _was_closed(self, sealed: SealedSection, closing: asyncio.Task[None] | None = None) -> None:
        self._handles.discard(sealed)
        self._tell()
        if closing is not None:
            retrieve(closing)

    def _was_opened(self, section: int, opening: _Opening, task: asyncio.Task[SealedSection]) -> None:
        """Let those go on who wait for room, and take the opening off the record if it failed."""
        if self._openings.get(section) is opening:
            del self._openings[section]
        self._begun.discard(opening)
        self._tell()
        retrieve(task)

    def _tell(self) -> None:
        """Let `close` look again, and the first in line: a handle may be free, or nobody may be at one any more.

        Not all in line: each of them would look, and all but one would find that another was first.
        """
        self._has_changed.set()
        while self._in_line and self._in_line[0].done():
            self._in_line.popleft()
        if self._in_line:
            self._in_line[0].set_result(None)

    async def _open(self, section: int, first: int, opening: _Opening) -> SealedSection:
        try:
            await self._wait_for_room()
            self._begun.add(opening)
            blob, length = await self._sections.open(section)
            async with closed_on_error(blob):
                sealed = await self._read(section, first, blob, length)
            for reader in opening.waiters:
                reader.sealed = sealed
            sealed.users |= opening.waiters
            self.keep(sealed)
            del self._openings[section]  # in this step: who comes later was not given the section
            return sealed
        finally:
            self._tell()  # not only when it is done: an interruption may have struck before `_was_opened` was asked for

    async def _wait_for_room(self) -> None:
        """Return when one more handle may be opened, letting go of one that nobody uses if need be.

        Readers use a handle for one read, and none while they wait here, so there will be one.
        """
        stand = self._in_line.append
        while len(self._handles) + self._underway >= self._most:
            # Also among those not kept any more: an interruption may have struck before they were closed.
            idle = next((sealed for sealed in chain(self._kept.values(), self._handles) if not sealed.users), None)
            if idle is not None:
                self._retire(idle)
            turn = asyncio.get_running_loop().create_future()
            try:
                stand(turn)
                await turn
            except BaseException:
                turn.cancel()  # it is nobody's
                raise
            stand = self._in_line.appendleft  # who was told, and finds none free, stays the first

    @property
    def _underway(self) -> int:
        """Handles that are being opened."""
        return sum(not opening.task.done() for opening in self._begun)

    async def read_header(self, section: int) -> Header:
        """Return the header of a sealed section as it is now, whatever it was when the section was opened.

        Raises:
            Corruption: It is not what it has to be.
        """
        first = self._first_of(section)
        async with self._sections.opened(section) as (blob, length):
            return await self._header_of(section, first, blob, length)

    async def _header_of(self, section: int, first: int, blob: Blob, length: int) -> Header:
        partition = self._sections.partition
        header = await read_header(blob, length)
        if not isinstance(header, Header):
            raise Corruption(
                "header of a sealed section", "one that checks out", header.fault.value, partition, section
            )
        expected = (Kind.DATA, self._journal_id, section, self._items_per_section, first)
        if header.place != expected:
            what = "kind, journal id, section, items per section and first position"
            raise Corruption(what, expected, header.place, partition, section)
        return header

    async def _read(self, section: int, first: int, blob: Blob, length: int) -> SealedSection:
        header = await self._header_of(section, first, blob, length)
        count = (section + 1) * self._items_per_section - header.first
        starts = await self._offsets.load(header, count)
        if starts is not None:
            return SealedSection(header, blob, starts, length)
        scan = await scan_records(blob, length, header)
        missing = count - len(scan.starts)
        if not missing:
            return SealedSection(header, blob, scan.starts, scan.end, is_scanned=True)
        # A record is damaged, and nothing leads to those behind it: each of them is said to start where it does, which
        # no record there confirms. Those before it can be read.
        return SealedSection(header, blob, scan.starts + array("Q", [scan.end]) * missing, length, is_scanned=True)
