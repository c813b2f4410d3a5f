"""How large the items of a journal are, and how fast it grew, without reading the items.

Sizes come from the indexes of the sections: a record is as long as it is from its start to the next one. Where an index
is missing or says what cannot be, the data blob is scanned instead. How fast the journal grew comes from the times at
which the data blobs of sealed sections were last written, which is when they became full: as far as these times are
what they were, since a copy or a repair changes them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from operator import sub
from typing import TYPE_CHECKING

from posjournal_async.format.header import HEADER_LENGTH, Header
from posjournal_async.format.record import RECORD_HEAD_LENGTH
from posjournal_async.inspection.present import opened_if_there
from posjournal_async.inspection.section_index import SectionIndex
from posjournal_async.inspection.states import SectionState
from posjournal_async.scan import scan_records
from posjournal_async.sections import read_header

if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable, Iterable

    from posjournal_async.inspection.states import SectionView
    from posjournal_async.inspection.view import JournalView

__all__ = ["Bucket", "Growth", "Sizes", "Statistics", "gather"]

# Entries of an index read at once.
_PIECE = 65_536

# Different sizes that are counted each; from then on they are counted to 10 binary digits.
_MOST_SIZES = 2**17
_DIGITS = 10

_NANO = 10**9


@dataclass(frozen=True, slots=True)
class Bucket:
    """Items whose payloads are about as large.

    Attributes:
        smallest: Smallest payload that belongs here, in bytes: 0, or a power of two.
        largest: Largest one, in bytes.
        items: How many there are.
    """

    smallest: int
    largest: int
    items: int


@dataclass(slots=True, eq=False)
class Sizes:
    """Lengths of payloads as they are stored: encoded, and compressed where that made them smaller.

    Attributes:
        items: How many were counted.
        payload_bytes: Bytes of all of them.
        smallest: The smallest, in bytes.
        largest: The largest, in bytes.
    """

    items: int = 0
    payload_bytes: int = 0
    smallest: int = 0
    largest: int = 0
    _counts: Counter[int] = field(default_factory=Counter[int])
    _is_rounded: bool = False

    @property
    def record_bytes(self) -> int:
        """Bytes of all records: payloads, and 8 bytes before each."""
        return self.payload_bytes + self.items * RECORD_HEAD_LENGTH

    @property
    def mean(self) -> float:
        """The mean payload, in bytes; 0 where there is none."""
        return self.payload_bytes / self.items if self.items else 0.0

    def add(self, records: Counter[int]) -> None:
        """Count records by their lengths, in bytes."""
        if not records:
            return
        smallest, largest = min(records) - RECORD_HEAD_LENGTH, max(records) - RECORD_HEAD_LENGTH
        self.smallest = min(self.smallest, smallest) if self.items else smallest
        self.largest = max(self.largest, largest)
        count = records.total()
        self.items += count
        self.payload_bytes += sum(length * times for length, times in records.items()) - count * RECORD_HEAD_LENGTH
        for length, times in records.items():
            payload = length - RECORD_HEAD_LENGTH
            self._counts[_rounded(payload) if self._is_rounded else payload] += times
        if len(self._counts) > _MOST_SIZES:
            self._is_rounded = True
            counts = Counter[int]()
            for payload, times in self._counts.items():
                counts[_rounded(payload)] += times
            self._counts = counts

    def quantile(self, share: float) -> int:
        """Return the size, in bytes, that at least this share of the payloads do not exceed; 0 where there is none.

        Of more than 131,072 different sizes, it is known to 10 binary digits.
        """
        needed = share * self.items
        seen = 0
        for payload in sorted(self._counts):
            seen += self._counts[payload]
            if seen >= needed:
                return max(payload, self.smallest)
        return self.largest

    def buckets(self) -> list[Bucket]:
        """Return how many payloads there are from one power of two to the next, from the smallest ones on."""
        items: Counter[int] = Counter()
        for payload, times in self._counts.items():
            items[payload.bit_length()] += times
        if not items:
            return []
        powers = range(min(items), max(items) + 1)
        return [Bucket(1 << power >> 1, max((1 << power) - 1, 0), items[power]) for power in powers]


def _rounded(payload: int) -> int:
    drop = max(payload.bit_length() - _DIGITS, 0)
    return payload >> drop << drop


@dataclass(frozen=True, slots=True)
class Growth:
    """What was written between two moments at which sections became full.

    Attributes:
        start: First position.
        stop: Position after the last.
        data_bytes: Bytes of the data blobs.
        began_ns: When the section before it became full, in nanoseconds since 1970.
        ended_ns: When its last section became full.
    """

    start: int
    stop: int
    data_bytes: int
    began_ns: int
    ended_ns: int

    @property
    def seconds(self) -> float:
        """How long it took, in seconds."""
        return (self.ended_ns - self.began_ns) / _NANO

    @property
    def items_per_second(self) -> float | None:
        """Items per second; None where the times are the same."""
        return (self.stop - self.start) / self.seconds if self.seconds else None

    @property
    def bytes_per_second(self) -> float | None:
        """Bytes of data blobs per second; None where the times are the same."""
        return self.data_bytes / self.seconds if self.seconds else None


@dataclass(slots=True, eq=False)
class Statistics:
    """What was found.

    Attributes:
        sizes: How large the items are.
        unknown: Positions whose sizes are not known: what is damaged, or was removed meanwhile.
        growth: For each sealed section behind the first one, when it was written; ascending.
        is_growth_doubtful: Whether a section is older than the one before it: then there is no growth.
    """

    sizes: Sizes = field(default_factory=Sizes)
    unknown: list[range] = field(default_factory=list[range])
    growth: list[Growth] = field(default_factory=list[Growth])
    is_growth_doubtful: bool = False

    def periods(self, most: int) -> list[Growth]:
        """Return the growth in at most `most` parts of as many sections each, the last of maybe fewer."""
        size = -(-len(self.growth) // most)
        parts = [self.growth[at : at + size] for at in range(0, len(self.growth), size or 1)]
        return [_joined(part) for part in parts]

    @property
    def whole(self) -> Growth | None:
        """The growth from the first to the last of them; None where there is none."""
        return _joined(self.growth) if self.growth else None


def _joined(parts: list[Growth]) -> Growth:
    first, last = parts[0], parts[-1]
    data_bytes = sum(part.data_bytes for part in parts)
    return Growth(first.start, last.stop, data_bytes, first.began_ns, last.ended_ns)


async def gather(view: JournalView, advance: Callable[[int], None] = lambda _: None) -> Statistics:
    """Return how large the items of a journal are, and how fast it grew.

    A sealed section that a live writer removes meanwhile counts with those of unknown size.

    Args:
        view: The journal.
        advance: Called with the number of items that were looked at since the last call.

    Raises:
        StorageError: The files cannot be read.
    """
    found = Statistics()
    for section in view.sections:
        if section.state in {SectionState.LEFTOVER, SectionState.BEYOND, SectionState.INTERRUPTED}:
            continue  # opening the journal removes them
        known = await _count(view, section, found.sizes, advance)
        if known < section.stop:
            advance(section.stop - known)
            found.unknown.append(range(known, section.stop))
    await _add_growth(view, found)
    return found


async def _count(view: JournalView, section: SectionView, sizes: Sizes, advance: Callable[[int], None]) -> int:
    """Count the records of a section; return the position up to which they are known."""
    if section.scan is not None:
        sizes.add(_lengths_of(section.scan.starts, section.scan.end))
        advance(section.items)
        return min(section.first + len(section.scan.starts), section.stop)
    async with opened_if_there(view.storage, f"{view.partition}_data", section.section) as found:
        if found is None:
            return section.first
        blob, length = found
        header = await read_header(blob, length)  # that of a view is not read where there are many sections
        slot = view.survey.slot
        journal_id = None if slot is None else slot.journal_id
        expected = (journal_id, section.section, section.first)
        if not isinstance(header, Header) or (header.journal_id, header.section, header.first) != expected:
            return section.first
        if section.state is SectionState.SEALED:
            counted = await _count_by_index(view, section, header)
            if counted is not None:
                sizes.add(counted)
                advance(section.items)
                return section.stop
        scan = await scan_records(blob, length, header)
    sizes.add(_lengths_of(scan.starts, scan.end))
    advance(len(scan.starts))
    return min(header.first + len(scan.starts), section.stop)


async def _count_by_index(view: JournalView, section: SectionView, header: Header) -> Counter[int] | None:
    """Return how many records of each length a full section has; None where its index cannot be true."""
    index = await SectionIndex.open(view.storage, f"{view.partition}_offsets", header)
    try:
        if index.count != section.items or section.data_bytes is None:
            return None
        counted: Counter[int] = Counter()
        last = HEADER_LENGTH
        for number in range(0, section.items, _PIECE):
            starts = await index.read(number, min(_PIECE, section.items - number))
            if not starts or (number == 0 and starts[0] != HEADER_LENGTH):
                return None
            if number:
                counted[starts[0] - last] += 1
            counted.update(_differences(starts))
            last = starts[-1]
        counted[section.data_bytes - last] += 1
    finally:
        await index.close()
    is_possible = min(counted) >= RECORD_HEAD_LENGTH and counted.total() == section.items
    return counted if is_possible else None


def _differences(starts: array[int]) -> Iterable[int]:
    return map(sub, starts[1:], starts[:-1])


def _lengths_of(starts: array[int], end: int) -> Counter[int]:
    counted = Counter(_differences(starts))
    if starts:
        counted[end - starts[-1]] += 1
    return counted


async def _add_growth(view: JournalView, found: Statistics) -> None:
    blobs = await view.storage.survey(f"{view.partition}_data", 0)
    times = {int.from_bytes(blob.name): blob.modified_ns for blob in blobs}
    before: SectionView | None = None
    for section in view.sections:
        is_full = section.state is SectionState.SEALED and section.section in times
        if is_full and before is not None and before.stop == section.first:
            began, ended = times[before.section], times[section.section]
            found.is_growth_doubtful = found.is_growth_doubtful or ended < began
            found.growth.append(Growth(section.first, section.stop, section.data_bytes or 0, began, ended))
        before = section if is_full else None
    if found.is_growth_doubtful:
        found.growth.clear()
