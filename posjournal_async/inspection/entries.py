"""The records of one section, in order, each proved by its checksum; what cannot be read, as a run that says why."""

from __future__ import annotations

import asyncio
from array import array
from bisect import bisect_right
from dataclasses import dataclass
from errno import ENOENT
from typing import TYPE_CHECKING, Protocol

from posjournal_async.errors import (
    Corruption,
    ItemOutOfRange,
    ItemPruned,
    JournalError,
    PositionError,
    StorageError,
)
from posjournal_async.format.header import HEADER_LENGTH, BadHeader, Header
from posjournal_async.format.record import LENGTH_MASK, RECORD_HEAD, RECORD_HEAD_LENGTH, parse_records
from posjournal_async.inspection.survey import make_durable
from posjournal_async.offsets import OffsetsJournal
from posjournal_async.scan import scan_records
from posjournal_async.sections import Sections, closed_on_error, read_header
from posjournal_async.storage.protocols import reads_at_once

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from posjournal_async.format.checkpoint_slot import Slot
    from posjournal_async.inspection.states import SectionView, Survey
    from posjournal_async.storage.protocols import Blob
    from posjournal_async.storage.readonly import ReadOnlyFileStorage

__all__ = [
    "Entry",
    "Replaced",
    "Source",
    "Unreadable",
    "entries_of",
    "missing",
    "open_source",
    "read_soon",
    "why_gone",
]

# Bytes read at once.
_PIECE = 256 * 1024

# How often a position is looked for again while a live writer changes the journal meanwhile.
_LOOKS = 50


class Replaced(PositionError):
    """The position was in the journal that was looked at, which was reset or destroyed since.

    Attributes:
        partition: Base name of the journal.
    """

    def __init__(self, position: int, partition: str) -> None:
        super().__init__(position, partition)
        self.partition = partition

    def __str__(self) -> str:
        found = "that it was reset or destroyed since"
        return f"journal: expected the one that was looked at, found {found} (partition {self.partition})"


@dataclass(frozen=True, slots=True)
class Entry:
    """A record that checked out.

    Attributes:
        position: Its position.
        payload: Its payload as it is stored.
        is_compressed: Whether the payload is a zstd frame.
    """

    position: int
    payload: bytes
    is_compressed: bool

    @property
    def stop(self) -> int:
        """Position after it."""
        return self.position + 1


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Positions that follow each other and cannot be read.

    Attributes:
        start: The first one.
        stop: The one after the last.
        error: Why.
    """

    start: int
    stop: int
    error: JournalError


@dataclass(slots=True)
class Source:
    """A section that is open for reading.

    Attributes:
        header: Header of the data blob.
        blob: The data blob.
        starts: Where records start, from the first on, as far as is known.
        end: Byte after the last of them.
        is_scanned: Whether `starts` is what the data says, as far as it can be followed, and not what the index says.
    """

    header: Header
    blob: Blob
    starts: array[int]
    end: int
    is_scanned: bool

    @property
    def stop(self) -> int:
        """Position after the last record whose place is known."""
        return self.header.first + len(self.starts)

    def _end_of(self, index: int) -> int:
        return self.starts[index] if index < len(self.starts) else self.end

    def run_from(self, position: int, stop: int) -> tuple[int, int, int] | None:
        """Return where records start and end, and how many they are: one, or as many as fit a piece.

        None if that is not known, or the index says what cannot be. It may say anything: the records prove themselves.
        """
        index = position - self.header.first
        last = min(stop, self.stop) - self.header.first
        if not 0 <= index < last:
            return None
        start = self.starts[index]
        until = bisect_right(self.starts, start + _PIECE, index + 1, last)
        if self._end_of(until) - start > _PIECE:
            until = max(until - 1, index + 1)
        end = self._end_of(until)
        if HEADER_LENGTH <= start <= end - RECORD_HEAD_LENGTH and end <= self.end:
            return start, end, until - index
        return None

    def offset_of(self, position: int) -> int:
        """Return the byte at which the record of a position should start, as far as is known."""
        return self._end_of(max(position - self.header.first, 0))


class View(Protocol):
    """What is known of the journal, and its sections open for reading."""

    @property
    def storage(self) -> ReadOnlyFileStorage:
        """The files."""
        ...

    @property
    def partition(self) -> str:
        """Base name of the journal."""
        ...

    @property
    def survey(self) -> Survey:
        """What the files were when the view was loaded."""
        ...

    async def slot(self) -> Slot | None:
        """Return the checkpoint as it is now; None if it is missing or lost."""
        ...

    async def source(self, section: int, *, anew: bool = False) -> Source:
        """Return a section open for reading, for use until the next call."""
        ...


# Opening.


async def open_source(view: View, section: int, seen: SectionView | None) -> Source:
    """Open a section for reading, with the places of its records: by its index, else by scanning it.

    Args:
        view: The journal.
        section: Section number.
        seen: What was seen of the section when the view was loaded, if anything.

    Raises:
        Corruption: Its data blob is not one of this journal.
        StorageError: It is missing, or cannot be read.
    """
    slot = view.survey.slot
    assert slot is not None, "a position is asked for, so something said how many there are in a section"
    sections = Sections(view.storage, f"{view.partition}_data")
    blob, length = await sections.open(section)
    async with closed_on_error(blob):
        header = await read_header(blob, length)
        if isinstance(header, BadHeader):
            raise Corruption("header", "one that checks out", header.fault.value, sections.partition, section, 0)
        expected = (slot.journal_id, section, slot.items_per_section)
        if (header.journal_id, header.section, header.items_per_section) != expected:
            raise Corruption("header", "one of this journal and section", "another", sections.partition, section, 0)
        source = Source(header, blob, array("Q"), length, is_scanned=False)
        if seen is not None and seen.scan is not None and seen.header == header:
            source.starts, source.end, source.is_scanned = seen.scan.starts, seen.scan.end, True
            await _add_index(view, source, length)
        else:
            room = (section + 1) * header.items_per_section - header.first
            starts = await _index(view, header, room)
            if starts is None:
                await _scan(view, source)
            else:
                source.starts = starts
    return source


async def _scan(view: View, source: Source) -> None:
    """Find the places of the records in the data, and by the index only those behind one that is damaged."""
    length, known = source.end, source.starts
    scan = await scan_records(source.blob, length, source.header)
    source.starts, source.end, source.is_scanned = scan.starts, scan.end, True
    if len(scan.starts) < len(known):
        source.starts = scan.starts + array("Q", [scan.end]) + known[len(scan.starts) + 1 :]
        source.end = length
    else:
        await _add_index(view, source, length)


async def _add_index(view: View, source: Source, length: int) -> None:
    """Add the places of durable records behind one that is damaged, where the index has them."""
    header = source.header
    durable = min(view.survey.durable, (header.section + 1) * header.items_per_section)
    if source.stop >= durable:
        return
    starts = await _index(view, header, durable - header.first)
    if starts is not None:
        source.starts = source.starts + array("Q", [source.end]) + starts[len(source.starts) + 1 :]
        source.end = length


async def _index(view: View, header: Header, count: int) -> array[int] | None:
    """Return the index of a section, or None if there is none for this data blob and number of records."""
    try:
        return await OffsetsJournal(view.storage, view.partition).load(header, count)
    except StorageError as error:
        if error.errno == ENOENT:
            return None
        raise


# Reading.


def _forget(_salt: int, _position: int, _start: int, _records: bytes) -> None:
    """Take records, for nothing."""


async def entries_of(
    view: View, section: int, start: int, stop: int, *, note: Callable[[int, int, int, bytes], None] = _forget
) -> AsyncGenerator[Entry | Unreadable]:
    """Yield the records of positions of one section; see `JournalView.entries`.

    Args:
        view: The journal.
        section: Section number.
        start: First position.
        stop: Position after the last.
        note: Called with the records that are yielded next: the salt of their blob, the position of the first, the byte
            at which it starts, and their bytes.
    """
    position = start
    known = view.survey.slot
    is_stale = False
    looks = 0
    while position < stop:
        found: list[Entry] = []
        end = stop
        fault: JournalError | None = None
        try:
            source = await view.source(section, anew=is_stale)
            found = await _read(view, source, position, stop, note)
            if not found and not source.is_scanned:
                await _scan(view, source)
                found = await _read(view, source, position, stop, note)
            # The records behind one that is damaged may be there, if something says where.
            end = position + 1 if position + 1 < source.stop else stop
            offset = source.offset_of(position)
            fault = Corruption("record", "one that checks out", "other bytes", _data(view), section, offset, position)
        except Corruption as error:
            fault = _at(error, section, position)
        except StorageError as error:
            if error.errno != ENOENT:
                raise
            fault = _without_blob(view, section, position)
        is_stale = False
        if found:
            for entry in found:
                yield entry
            position += len(found)
            looks = 0
            continue
        now = await view.slot()
        gone = why_gone(view, now, position, end)
        if gone is None and now != known and looks < _LOOKS:
            # A live writer has cut or removed something, and may have put other items there since: look again.
            known = now
            is_stale = True
            looks += 1
            continue
        unreadable = gone or Unreadable(position, end, fault)
        yield unreadable
        position = unreadable.stop
        looks = 0


async def missing(view: View, section: int, start: int, stop: int) -> Unreadable:
    """Return what there is to say of positions of a run of sections that have no data blob, from `section` on."""
    gone = why_gone(view, await view.slot(), start, stop)
    return gone or Unreadable(start, stop, _without_blob(view, section, start))


def _without_blob(view: View, section: int, position: int) -> Corruption:
    return Corruption("section", "a data blob", "none", _data(view), section, None, position)


def _at(error: Corruption, section: int, position: int) -> Corruption:
    """Return the error with the position that was asked for, where it names none."""
    at = position if error.position is None else error.position
    return Corruption(error.what, error.expected, error.found, error.partition, section, error.offset, at)


def why_gone(view: View, now: Slot | None, start: int, stop: int) -> Unreadable | None:
    """Return what a live writer has done to positions since the view was loaded; None if nothing says that it did."""
    known = view.survey.slot
    if known is None or (now is None and not known.sequence):  # there was no checkpoint at the start either
        return None
    if now is None or now.journal_id != known.journal_id or now.reset is not None:
        return Unreadable(start, stop, Replaced(start, view.partition))
    if now.boundary > start:
        return Unreadable(start, min(stop, now.boundary), ItemPruned(start, now.boundary))
    # They were there above the durable size: a rewind may have lowered it before, and cuts them only now.
    if now.durable <= start:
        return Unreadable(start, stop, ItemOutOfRange(start, now.durable))
    return None


async def _read(
    view: View, source: Source, position: int, stop: int, note: Callable[[int, int, int, bytes], None]
) -> list[Entry]:
    """Return records that follow each other, from the first on; none if that one does not check out."""
    run = source.run_from(position, stop)
    if run is None:
        return []
    start, end, count = run
    if end - start > _PIECE:
        # Nothing is read on the word of an index alone.
        head = await source.blob.read_at(start, RECORD_HEAD_LENGTH)
        if len(head) < RECORD_HEAD_LENGTH:
            return []
        word, _ = RECORD_HEAD.unpack(head)
        end = min(end, start + RECORD_HEAD_LENGTH + (word & LENGTH_MASK) - 1)
        if count > 1 or end < start + RECORD_HEAD_LENGTH:
            return []
    raw = await read_soon(source.blob, start, end - start)
    records = parse_records(raw, source.header.salt, position, count)
    if records.ends:
        await _make_durable(view, source, position + len(records.ends))
        note(source.header.salt, position, start, raw[: records.ends[-1]])
    compressed = set(records.compressed)
    return [Entry(position + number, payload, number in compressed) for number, payload in enumerate(records.payloads)]


async def read_soon(blob: Blob, offset: int, length: int) -> bytes:
    """Return bytes of a blob as `read_at` does, without the hop to a thread where they are at hand."""
    found = blob.read_at_once(offset, length) if reads_at_once(blob) else None
    if found is None:
        return await blob.read_at(offset, length)
    await asyncio.sleep(0)  # others are to have their turn all the same
    return found


async def _make_durable(view: View, source: Source, stop: int) -> None:
    """Return when what was read below `stop` is durable.

    It was when the view was loaded, but a rewind may have put other items there since.
    """
    slot = await view.slot()
    if slot is None or slot.journal_id != source.header.journal_id or slot.durable < stop:
        await make_durable(source.blob)


def _data(view: View) -> str:
    return f"{view.partition}_data"
