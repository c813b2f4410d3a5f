"""A journal to look at: its bounds and sections as the files show them, and its items, without changing anything."""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

from posjournal_async.checkpoint import slots_in
from posjournal_async.config import Config
from posjournal_async.errors import ItemOutOfRange, ItemPruned
from posjournal_async.format.checkpoint_slot import SLOT_LENGTH, Slot
from posjournal_async.format.record import LONGEST_PAYLOAD
from posjournal_async.inspection.entries import (
    Entry,
    Unreadable,
    entries_of,
    missing,
    read_soon,
    why_gone,
)
from posjournal_async.inspection.given import OneHistory
from posjournal_async.inspection.present import CHECKPOINT, open_if_there
from posjournal_async.inspection.source import Source, open_source
from posjournal_async.inspection.survey import MOST_HEADERS, survey
from posjournal_async.payloads import Payloads
from posjournal_async.storage.readonly import ReadOnlyFileStorage

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator, Callable
    from typing import Self

    from posjournal_async.codecs import Codec
    from posjournal_async.errors import JournalError
    from posjournal_async.inspection.states import SectionView, Survey
    from posjournal_async.storage.protocols import Blob

__all__ = ["Decoder", "JournalView"]

T = TypeVar("T")

# Sections that stay open between reads.
_MOST_OPEN = 8


class Decoder(Generic[T]):
    """Turns what a view found into items, however large: it does not know what the writer was configured to.

    Args:
        codec: The codec.
    """

    def __init__(self, codec: Codec[T]) -> None:
        self._payloads = Payloads(Config(partition="view", codec=codec, max_item_size=LONGEST_PAYLOAD))

    def item_of(self, entry: Entry) -> T:
        """Return the item.

        Raises:
            CodecError: It cannot be decompressed or decoded.
        """
        return self._payloads.decode((entry.payload, entry.is_compressed), entry.position)


class JournalView:
    """A journal in files as it was at one moment, read-only and lock-free; also one that somebody has open.

    All that it shows is durable, and was at its position at some moment since the view was loaded. What a live writer
    has pruned, cut or reset meanwhile is reported as that, not shown as something else.

    Attributes:
        storage: The files.
        partition: Base name of the journal.
        survey: What the files were when the view was loaded.
        holder: Process that had the journal open then, where the system tells; else None.
    """

    def __init__(self, storage: ReadOnlyFileStorage, partition: str, found: Survey, holder: int | None) -> None:
        self.storage = storage
        self.partition = partition
        self.survey = found
        self.holder = holder
        self._checkpoint: Blob | None = None
        self._sources: OrderedDict[int, Source] = OrderedDict()

    @classmethod
    async def load(
        cls,
        root: str | os.PathLike[str],
        partition: str,
        *,
        advance: Callable[[int], None] = lambda _: None,
        is_quick: bool = False,
        is_thorough: bool = False,
    ) -> Self:
        """Look at a journal. Sealed sections are not read: it takes as long as reading the tail.

        Args:
            root: Root of its storage.
            partition: Its base name.
            advance: Called with the bytes of unsealed sections that were read since the last call.
            is_quick: Whether only items are asked for, so that what is wrong with a sealed section need not be known
                before it is read.
            is_thorough: Whether to read the headers of all sections, also where there are more than a thousand.

        Raises:
            InvalidConfiguration: Another version of the format wrote it.
            StorageError: The files cannot be read.
        """
        storage = ReadOnlyFileStorage(root)
        most_headers = 0 if is_quick else sys.maxsize if is_thorough else MOST_HEADERS
        found = await survey(storage, partition, advance, most_headers=most_headers)
        return cls(storage, partition, found, await storage.lock_holder(f"{partition}_checkpoint"))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the files that are open. Closing twice is fine."""
        while self._sources:
            _, source = self._sources.popitem()
            await source.blob.close()
        checkpoint, self._checkpoint = self._checkpoint, None
        if checkpoint is not None:
            await checkpoint.close()

    # What it is.

    @property
    def sections(self) -> tuple[SectionView, ...]:
        """The sections, ascending."""
        return self.survey.sections

    @property
    def bounds(self) -> range:
        """Positions that are retained, readable or not: from the pruning boundary to the size, which is not in it."""
        return range(self.survey.boundary, self.survey.size)

    @property
    def count(self) -> int:
        """How many positions that is: `len` knows no number beyond 2**63, and damage may make one."""
        return max(self.bounds.stop - self.bounds.start, 0)

    def check_explained(self) -> None:
        """Refuse a journal of which nothing says what it holds: it is damaged, and not empty.

        Raises:
            JournalError: What opening it would raise.
        """
        if self.survey.problem is not None and not self.count:
            raise self.survey.problem

    @property
    def codec(self) -> str:
        """Name of the codec that the journal records; "" if nothing says it."""
        return "" if self.survey.slot is None else self.survey.slot.codec

    @property
    def items_per_section(self) -> int | None:
        """Positions in a section; None if nothing says it."""
        return None if self.survey.slot is None else self.survey.slot.items_per_section

    # Its items.

    async def read(self, position: int) -> Entry:
        """Return the record of a position.

        Raises:
            ItemOutOfRange: It has not been appended, or is not durable.
            ItemPruned: It was pruned.
            Corruption: It is not there although it has to be.
        """
        async for found in self.entries(position, position + 1):
            if isinstance(found, Unreadable):
                raise found.error
            return found
        raise ItemOutOfRange(position, self.survey.size)

    async def entries(self, start: int | None = None, stop: int | None = None) -> AsyncGenerator[Entry | Unreadable]:
        """Yield the records of positions in order; what cannot be read comes as a run that says why, and it goes on.

        No more than a piece of 256 KiB, or one record, and the index of a section are in memory.

        Args:
            start: First position; that of the view if None.
            stop: Position after the last; the size of the view if None or beyond it.
        """
        async for part in self._parts(start, stop):
            if isinstance(part, Unreadable):
                yield part
                continue
            async for found in entries_of(self, *part):
                yield found

    async def entries_of_one_history(
        self, start: int | None = None, stop: int | None = None
    ) -> AsyncGenerator[Entry | Unreadable]:
        """Yield what `entries` does; it ends well only if all that was there was so at one moment.

        Args:
            start: First position; that of the view if None.
            stop: Position after the last; the size of the view if None or beyond it.

        Raises:
            Rewritten: A live writer has rewound behind what was given: what came after may be of another history.
            ItemPruned: What was given last was pruned, and nothing tells whether it was rewound before.
            Replaced: The journal was reset or destroyed.
        """
        history = OneHistory(self.storage, self.partition)
        try:
            async for part in self._parts(start, stop):
                if isinstance(part, Unreadable):
                    yield part
                    continue
                section, _, end = part
                note = await history.begin(section, end)
                await self._close_source(section)  # what was opened before is not seen to be removed
                async for found in entries_of(self, *part, note=note):
                    yield found
                await history.end()
            await history.check()
        finally:
            await history.close()

    async def _parts(self, start: int | None, stop: int | None) -> AsyncGenerator[tuple[int, int, int] | Unreadable]:
        """Yield each section that is to be read, its first position and the one to stop before; or what is missing."""
        bounds = self.bounds
        start = bounds.start if start is None else start
        stop = bounds.stop if stop is None else min(stop, bounds.stop)
        if start < min(bounds.start, stop):
            yield Unreadable(start, min(bounds.start, stop), ItemPruned(start, bounds.start))
            start = bounds.start
        ips = self.items_per_section or 1
        position = start
        while position < stop:
            section = position // ips
            seen = self._seen(section)
            if seen is not None and seen.section < seen.through:
                # One section after the other it might never end: a stray file of a large number makes the run.
                gap = await missing(self, section, position, min(seen.stop, stop))
                yield gap
                position = gap.stop
                continue
            end = min((section + 1) * ips, stop)
            yield section, position, end
            position = end

    async def items(
        self, codec: Codec[T], start: int | None = None, stop: int | None = None
    ) -> AsyncGenerator[tuple[int, T]]:
        """Yield positions and items of one history; the first that cannot be read or decoded is raised.

        Raises:
            Corruption: A record is not there although it has to be.
            CodecError: An item cannot be decoded.
            PositionError: A live writer pruned or rewound it meanwhile, or what was given before; as
                `entries_of_one_history`.
        """
        decoder = Decoder(codec)
        async for found in self.entries_of_one_history(start, stop):
            if isinstance(found, Unreadable):
                raise found.error
            yield found.position, decoder.item_of(found)

    async def why_gone(self, start: int, stop: int) -> JournalError | None:
        """Return what a live writer has done to positions since the view was loaded; None if nothing says that it did.

        Args:
            start: First position.
            stop: Position after the last.
        """
        gone = why_gone(self, await self.slot(), start, stop)
        return None if gone is None else gone.error

    async def slot(self) -> Slot | None:
        """Return the checkpoint as it is now; None if it is missing or lost.

        Raises:
            InvalidConfiguration: Another version of the format wrote it meanwhile.
        """
        if self._checkpoint is None:
            found = await open_if_there(self.storage, f"{self.partition}_checkpoint", CHECKPOINT)
            if found is None:
                return None
            self._checkpoint, _ = found
        slots, _ = slots_in(await read_soon(self._checkpoint, 0, 2 * SLOT_LENGTH), self.partition)
        return slots[0][0] if slots else None

    async def source(self, section: int, *, anew: bool = False) -> Source:
        """Return a section open for reading, for use until the next call.

        Args:
            section: Section number.
            anew: Whether to look at its files once more if it is open.

        Raises:
            JournalError: Its data blob is missing, or is not of this journal.
        """
        known = self._sources.pop(section, None)
        if known is not None and anew:
            await known.blob.close()
            known = None
        if known is None:
            while len(self._sources) >= _MOST_OPEN:
                _, oldest = self._sources.popitem(last=False)
                await oldest.blob.close()
            known = await open_source(self, section, None if anew else self._seen(section))
        self._sources[section] = known
        return known

    async def _close_source(self, section: int) -> None:
        source = self._sources.pop(section, None)
        if source is not None:
            await source.blob.close()

    def _seen(self, section: int) -> SectionView | None:
        """Return what was seen of a section when the view was loaded, which may be a run of missing ones; or None."""
        place = bisect_right(self.sections, section, key=lambda seen: seen.section)
        seen = self.sections[place - 1] if place else None
        return seen if seen is not None and section <= seen.through else None
