"""Find the record of a position: in memory, at once in the page cache, or through a thread.

Reading changes no file. An index that leads nowhere is made anew in memory, and a record that is not there is reported.
"""

from __future__ import annotations

from bisect import bisect_right
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from posjournal_async.errors import Corruption, StorageError
from posjournal_async.format.header import HEADER_LENGTH
from posjournal_async.format.record import parse_record
from posjournal_async.scan import LONG, claimed_end

if TYPE_CHECKING:
    from array import array
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from posjournal_async.data import DataJournal
    from posjournal_async.payloads import Payload
    from posjournal_async.sealed import SealedSections
    from posjournal_async.sealed_section import SealedSection
    from posjournal_async.tail import Tail

__all__ = ["Place", "Reader"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record is, and where those behind it are said to be.

    Attributes:
        salt: Salt of its blob.
        start: Where it starts, in bytes of the blob.
        first: Position of the first record of the section.
        starts: Where each record of the section starts, as far as the index knows.
        end: Where the last one ends.
    """

    salt: int
    start: int
    first: int
    starts: array[int]
    end: int

    def edges(self, position: int, start: int, stop: int, most: int) -> list[int]:
        """Return where the records from a position on start, and where the last of them ends, in bytes from `start`.

        At most `most` of them, and those only that end at or before `stop`. The index may be wrong, and so may this.
        """
        index = position - self.first
        last = bisect_right(self.starts, stop, index, min(index + most + 1, len(self.starts)))
        edges = [edge - start for edge in self.starts[index:last]]
        if last == len(self.starts) and len(edges) <= most and self.end <= stop:
            edges.append(self.end - start)
        return edges


class Reader:
    """Reads the records of one journal. The caller has checked that the position exists.

    Attributes:
        replayed: Records that were read for replays.
    """

    def __init__(self, data: DataJournal, sealed: SealedSections) -> None:
        self._data = data
        self._sealed = sealed
        self._items_per_section = data.items_per_section
        self.replayed = 0

    def payload_at_once(self, position: int) -> Payload | None:
        """Return a payload that is at hand; None if it is not, or if what is there has to be looked at closely."""
        tail = self._data.tail
        if position >= tail.first:
            return _unsealed_at_once(tail, position)
        section = position // self._items_per_section
        sealed = self._sealed.get(section)
        if sealed is not None:
            return _sealed_at_once(sealed, position)
        full = self._data.unsealed(section)
        return None if full is None else _unsealed_at_once(full, position)

    async def payload(self, position: int) -> Payload | None:
        """Return a payload; None if its section was removed or cut meanwhile, so that the caller has to look again.

        Raises:
            Corruption: The record is not there.
        """
        section = position // self._items_per_section
        generation = self._data.generation
        tail = self._data.unsealed(section)
        if tail is not None:
            found, start = await self._in_tail(tail, position)
        else:
            look = await self._using(section, partial(self._in_sealed, position=position))
            if look is None:
                return None
            found, start = look
        if found is None and generation == self._data.generation:
            raise self.corruption_at(position, start)
        return found

    async def _in_tail(self, tail: Tail, position: int) -> tuple[Payload | None, int]:
        start, stop = tail.bounds_of(position)
        record = tail.in_memory(start, stop)
        if record is None:
            assert tail.blob is not None
            record = await tail.blob.read_at(start, stop - start)
        return parse_record(record, tail.header.salt, position), start

    async def _in_sealed(self, sealed: SealedSection, position: int) -> tuple[Payload | None, int]:
        while True:
            bounds = sealed.bounds_of(position)
            if bounds is not None:
                start, stop = bounds
                # A wrong entry may make anything of it: nothing large is read on its word alone.
                if stop - start <= LONG or await claimed_end(sealed.blob, start) == stop:
                    record = await sealed.blob.read_at(start, stop - start)
                    payload = parse_record(record, sealed.salt, position)
                    if payload is not None:
                        return payload, start
            if sealed.bounds_of(position) != bounds:
                continue  # another reader has mended the index meanwhile
            if not await sealed.reindex():
                return None, sealed.starts[position - sealed.first]

    def corruption_at(self, position: int, start: int) -> Corruption:
        """Return the error for a record that is not where it was written."""
        return Corruption(
            "record",
            "one that checks out",
            "other bytes",
            self._data.sections.partition,
            position // self._items_per_section,
            start,
            position,
        )

    async def locate(self, position: int) -> Place | None:
        """Return where a record is, having looked that it is there; None if the caller has to look again.

        Raises:
            Corruption: The record is not there.
        """
        generation = self._data.generation
        section = position // self._items_per_section
        tail = self._data.unsealed(section)
        if tail is not None:
            return Place(tail.header.salt, tail.bounds_of(position)[0], tail.first, tail.starts, tail.end)
        look = await self._using(section, partial(self._place_in_sealed, position=position))
        if look is None:
            return None
        is_there, place = look
        if is_there:
            return place
        if generation == self._data.generation:
            raise self.corruption_at(position, place.start)
        return None

    async def _place_in_sealed(self, sealed: SealedSection, position: int) -> tuple[bool, Place]:
        is_there, start = True, HEADER_LENGTH
        if position != sealed.first:
            payload, start = await self._in_sealed(sealed, position)
            is_there = payload is not None
        return is_there, Place(sealed.salt, start, sealed.first, sealed.starts, sealed.end)

    def streaming(self, runs: AsyncGenerator[T, None]) -> AbstractAsyncContextManager[AsyncGenerator[T, None]]:
        """Return what a replay goes through its records in; they are closed when it leaves."""
        return aclosing(runs)

    def is_open(self, section: int) -> bool:
        """Say whether a section need not be opened to be read."""
        return self._data.unsealed(section) is not None or self._sealed.get(section) is not None

    def let_go(self, section: int) -> None:
        """Close a section that is not expected to be read again soon."""
        self._sealed.let_go(section)

    def fetch_at_once(self, section: int, start: int, length: int) -> bytes | None:
        """Return bytes of a section's records that are at hand, at most `length` of them; None if they are not.

        No byte comes back where the records end.
        """
        tail = self._data.unsealed(section)
        if tail is not None:
            if start >= tail.written:
                return tail.in_memory(start, start + length)
            if tail.read_at_once is None:
                return None
            return tail.read_at_once(start, min(length, tail.written - start))
        sealed = self._sealed.get(section)
        if sealed is None or sealed.read_at_once is None:
            return None
        return sealed.read_at_once(start, min(length, max(sealed.end - start, 0)))

    async def fetch(self, section: int, start: int, length: int) -> bytes | None:
        """Return bytes of a section's records, at most `length` of them; none where the records end.

        None if the section was removed or cut.
        """
        tail = self._data.unsealed(section)
        if tail is not None:
            found = tail.in_memory(start, start + length)
            if found is not None:
                return found
            assert tail.blob is not None
            return await tail.blob.read_at(start, min(length, tail.written - start))
        return await self._using(section, partial(_bytes_of, start=start, length=length))

    async def _using(self, section: int, use: Callable[[SealedSection], Awaitable[T]]) -> T | None:
        """Return what `use` makes of a sealed section; None if it was removed or cut meanwhile."""
        generation = self._data.generation
        try:
            return await self._sealed.using(section, use)
        except StorageError:
            if generation == self._data.generation:
                raise
            return None  # the blob is that of the tail since, which nobody keeps open for readers


def _sealed_at_once(sealed: SealedSection, position: int) -> Payload | None:
    if sealed.read_at_once is None:
        return None
    bounds = sealed.bounds_of(position)
    if bounds is None:
        return None
    start, stop = bounds
    if stop - start > LONG:
        return None  # copying it would hold up the event loop, and the entry may be wrong
    record = sealed.read_at_once(start, stop - start)
    return None if record is None else parse_record(record, sealed.salt, position)


def _unsealed_at_once(tail: Tail, position: int) -> Payload | None:
    start, stop = tail.bounds_of(position)
    if start >= tail.written:
        payload = tail.pending_payload(position)
        if payload is not None:
            return payload
        record = tail.in_memory(start, stop)
    elif tail.read_at_once is None or stop - start > LONG:
        return None
    else:
        record = tail.read_at_once(start, stop - start)
    return None if record is None else parse_record(record, tail.header.salt, position)


async def _bytes_of(sealed: SealedSection, start: int, length: int) -> bytes:
    return await sealed.blob.read_at(start, min(length, max(sealed.end - start, 0)))
