"""A section of a journal that is looked at, open for reading, with the places of its records as far as is known."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from dataclasses import dataclass
from errno import ENOENT
from typing import TYPE_CHECKING, Protocol

from posjournal_async.errors import Corruption, StorageError
from posjournal_async.format.header import HEADER_LENGTH, BadHeader
from posjournal_async.format.record import RECORD_HEAD_LENGTH
from posjournal_async.offsets import OffsetsJournal
from posjournal_async.scan import scan_records
from posjournal_async.sections import Sections, closed_on_error, read_header

if TYPE_CHECKING:
    from posjournal_async.format.checkpoint_slot import Slot
    from posjournal_async.format.header import Header
    from posjournal_async.inspection.states import SectionView, Survey
    from posjournal_async.storage.protocols import Blob
    from posjournal_async.storage.readonly import ReadOnlyFileStorage

__all__ = ["PIECE", "Source", "View", "open_source", "scan"]

# Bytes read at once.
PIECE = 256 * 1024


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
        until = bisect_right(self.starts, start + PIECE, index + 1, last)
        if self._end_of(until) - start > PIECE:
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
                await scan(view, source)
            else:
                source.starts = starts
    return source


async def scan(view: View, source: Source) -> None:
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
