"""One look at a journal after the other: what is new, and what has become of what was shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from posjournal_async.config import Config
from posjournal_async.errors import CodecError, Corruption
from posjournal_async.format.header import BadHeader, Header
from posjournal_async.format.record import LONGEST_PAYLOAD
from posjournal_async.inspection.blobs import expected_header
from posjournal_async.inspection.events import Absent, Corrupt, Pruned, Reset, Rewound, Shown
from posjournal_async.inspection.remembered import NO_SALT, Remembered, read_records, save_memory
from posjournal_async.inspection.slots import NEVER, is_other
from posjournal_async.inspection.survey import make_durable
from posjournal_async.payloads import Payloads

if TYPE_CHECKING:
    from collections.abc import Callable

    from posjournal_async.codecs import Codec
    from posjournal_async.format.checkpoint_slot import Slot
    from posjournal_async.format.record import Records
    from posjournal_async.inspection.blobs import Blobs
    from posjournal_async.inspection.events import Event
    from posjournal_async.inspection.slots import Slots

__all__ = ["Follower"]

# In doubt from here on is also a section that begins at 0 and of which nothing was read.
_EVERYTHING = -1


@dataclass(slots=True, eq=False)
class _Piece:
    """What was read in one look.

    Attributes:
        entry: What was read before of their section.
        run: Bytes that begin with the records.
        records: The records; None where there is not even a blob that could hold them.
        fault: Why there is nothing more.
    """

    entry: Remembered
    run: bytes = b""
    records: Records | None = None
    fault: str = ""


@dataclass(slots=True, eq=False)
class Follower:
    """Looks at a journal again and again.

    Attributes:
        blobs: Where it is.
        codec_of: Returns the codec to read with for the name that the journal records.
        newest: Items to begin with, unless there is a `start`.
        start: Position to begin with, or None.
        position: What comes next.
        is_idle: Whether the last look found nothing new.
    """

    blobs: Blobs
    codec_of: Callable[[str], Codec[Any]]
    newest: int = 10
    start: int | None = None
    position: int = 0
    is_idle: bool = False
    _slot: Slot | None = None  # the checkpoint up to which all rewinds are known
    _doubt: int = NEVER  # what is remembered from this position on has to be compared
    _known: list[Remembered] = field(default_factory=list[Remembered])  # by section, ascending
    _payloads: Payloads[Any] | None = None
    _was_there: bool = False
    _is_absent: bool = False
    _signature: object = None

    async def look(self) -> list[Event]:
        """Return what happened since the last look; at most some 256 KiB of items, so look again unless it is idle.

        Raises:
            InvalidConfiguration, Corruption, StorageError: As `following.follow`.
        """
        signature, is_settled = await self._times()
        if signature == self._signature:
            self.is_idle = True
            return []
        self._signature = None
        events = await self._look()
        self.is_idle = events == []
        if self.is_idle and is_settled:
            self._signature = signature
        return events or []

    async def _look(self) -> list[Event] | None:
        """Return what happened; `[]` if nothing has, None if it has to look again to tell."""
        slots = await self.blobs.slots(self._is_news)
        if slots is None:
            return self._vanished()
        slot = slots.current
        if slot.reset is not None:
            return []  # nothing is there until it is finished
        if self._slot is None or is_other(self._slot, slot):
            return await self._begin(slots)
        if slot.boundary > self.position:
            missed = range(self.position, slot.boundary)
            self.position = slot.boundary
            self._known.clear()
            return [Pruned(missed)]
        self._known = [known for known in self._known if (known.section + 1) * slot.items_per_section > slot.boundary]
        return await self._read_on(slot)

    def _vanished(self) -> list[Event]:
        if self._is_absent:
            return []
        self._is_absent = True
        self._slot = None
        self._known.clear()
        return [Absent()]

    def _is_news(self, slot: Slot) -> bool:
        return self._slot is None or is_other(self._slot, slot) or slot.boundary > self.position

    async def _times(self) -> tuple[object, bool]:
        """Return what becomes another when there may be something new, and whether that is sure."""
        sections: set[int] = set()
        if self._slot is not None:
            ips = self._slot.items_per_section
            # The section before too: a rewind may cut it when the next one is not there yet.
            sections = {self.position // ips, max(self.position - 1, 0) // ips}
        return await self.blobs.times(sorted(sections))

    # Where to begin.

    async def _begin(self, slots: Slots) -> list[Event] | None:
        """Begin with a journal that was not followed so far: the first one where it was asked for."""
        slot = slots.current
        start = slot.boundary
        known: list[Remembered] = []
        if not self._was_there and (self.start is not None or not self._is_absent):
            size = await self._find_size(slot)
            start = max(slot.boundary, size - self.newest if self.start is None else min(self.start, size))
            known = await self._anchors(slot, start)
            found = await self._recall(slot, start)
            if found is not None:
                if found.stop < start and await self.blobs.slots() != slots:
                    return None  # it has changed meanwhile
                found.stop = start
                known.append(found)
        self._take(slot)
        self._doubt = slots.pending
        self._known = known
        self.position = start
        self._is_absent = False
        was_there, self._was_there = self._was_there, True
        return [Reset(start)] if was_there else self._started(start)

    def _started(self, start: int) -> list[Event] | None:
        """Return what has become of the position that was to be the first, where another one is."""
        if self.start is None or self.start == start:
            return None
        return [Pruned(range(self.start, start)) if self.start < start else Rewound(start)]

    def _take(self, slot: Slot) -> None:
        """Go on with a checkpoint; its codec may be one that has taken over, and reads the older items too."""
        if self._slot is None or self._slot.codec != slot.codec:
            codec = self.codec_of(slot.codec)
            config = Config(partition=self.blobs.partition, codec=codec, max_item_size=LONGEST_PAYLOAD)
            self._payloads = Payloads(config)
        self._slot = slot

    async def _find_size(self, slot: Slot) -> int:
        """Return the size: what is durable, and the records behind that in the sections from there on."""
        ips = slot.items_per_section
        size = slot.durable
        while True:
            section = size // ips
            found = await self.blobs.walk(slot, section, (section + 1) * ips)
            if found is None:
                return size
            size = max(size, found.stop)
            if found.stop < (section + 1) * ips:
                return size

    async def _anchors(self, slot: Slot, start: int) -> list[Remembered]:
        """Return sections before `start` by whose salts one can tell how far back a rewind went.

        They are 1, 2, 4 and so on before it, so that there are few, and no more than twice of what was rewound is shown
        again.
        """
        ips = slot.items_per_section
        last = (start - 1) // ips
        anchors: list[Remembered] = []
        distance = 1
        while (section := last - distance) >= slot.boundary // ips:
            salt = await self.blobs.salt_of(slot, section)
            anchors.append(Remembered(section, max(section * ips, slot.boundary), salt, None, 0, (section + 1) * ips))
            distance *= 2
        anchors.reverse()
        return anchors

    async def _recall(self, slot: Slot, position: int) -> Remembered | None:
        """Return the section that holds the item before `position` as far as it can be read up to there."""
        if position <= slot.boundary:
            return None
        return await self.blobs.walk(slot, (position - 1) // slot.items_per_section, position)

    # What is new.

    async def _read_on(self, slot: Slot) -> list[Event] | None:
        """Return what lies at the current position and on."""
        piece = await self._read_piece(slot)
        again = await self.blobs.slots()
        if again is None or is_other(slot, again.current):
            return None
        assert self._slot is not None
        self._doubt = min(self._doubt, again.lowest_since(self._slot))
        self._take(again.current)
        if again.current.boundary > self.position:
            return None
        entry = piece.entry
        if entry.stop < self.position:  # its section could not be read when it was passed
            self.position = entry.stop
            return [Rewound(entry.stop)]
        is_new = piece.records is not None and not self._is_newest(entry)
        if is_new:
            self._known.append(entry)
        if piece.records is not None:
            entry.add(piece.run, piece.records)
        stop = entry.stop
        was_known = self._is_newest(entry)
        if self._doubt < entry.stop:
            compared = await self._compare(again, entry if is_new else None)
            if compared is None:
                if is_new:
                    self._known.pop()
                elif piece.records is not None:
                    entry.cut(self.position)
                return None
            stop = compared
        is_forgotten = was_known and not self._is_newest(entry)
        return self._moved(piece, stop, slot, is_same=slot == again.current, is_forgotten=is_forgotten)

    def _is_newest(self, entry: Remembered) -> bool:
        return bool(self._known) and self._known[-1] is entry

    def _moved(self, piece: _Piece, stop: int, slot: Slot, *, is_same: bool, is_forgotten: bool) -> list[Event] | None:
        """Return what it means that the history reaches to `stop` for now.

        Args:
            piece: What was read.
            stop: Position.
            slot: The checkpoint when it was read.
            is_same: Whether that is the checkpoint still.
            is_forgotten: Whether its section was known, and has another blob now, of which nothing was read.
        """
        if stop < self.position:
            self.position = stop
            return [Rewound(stop)]
        save_memory(self._known)
        if stop > self.position:
            assert piece.records is not None
            return self._events(piece.records, stop - self.position)
        if is_forgotten or not is_same:
            return None
        return [self._pass_over(piece, slot)] if self.position < slot.durable else []

    async def _read_piece(self, slot: Slot) -> _Piece:
        """Read the next records and make them durable, if the checkpoint does not vouch for them."""
        section = self.position // slot.items_per_section
        end = (section + 1) * slot.items_per_section
        newest = self._known[-1] if self._known else None
        async with self.blobs.opened(section) as (blob, header):
            is_continued = newest is not None and newest.section == section
            if blob is None or not isinstance(header, Header):
                entry = newest if is_continued and newest is not None else _unread(slot, section)
                reason = header.fault.value if isinstance(header, BadHeader) else "no blob"
                if is_continued:
                    self._doubt = _EVERYTHING
                return _Piece(entry, fault=reason)
            if newest is not None and is_continued:
                entry = newest
                if header != expected_header(slot, section, newest.salt, header.codec):
                    self._doubt = _EVERYTHING
                    return _Piece(entry, fault="the header of another blob")
            elif header != expected_header(slot, section, header.salt, header.codec):
                return _Piece(_unread(slot, section), fault="the header of another blob")
            else:
                entry = Remembered.begun(section, header.first, header.salt)
            run, records = await read_records(blob, entry, end)
            if entry.stop + len(records.ends) > slot.durable and records.ends:
                await make_durable(blob)
            return _Piece(entry, run, records, "other bytes or none")

    def _events(self, records: Records, count: int) -> list[Event]:
        """Return the first `count` records as items, those that cannot be decoded as such."""
        assert self._payloads is not None
        events: list[Event] = []
        items: list[Any] = []
        compressed = set(records.compressed)
        for index, payload in enumerate(records.payloads[:count]):
            position = self.position + index
            try:
                items.append(self._payloads.decode((payload, index in compressed), position))
            except CodecError as error:
                if items:
                    events.append(Shown(position - len(items), items))
                    items = []
                events.append(Corrupt(range(position, position + 1), error))
        self.position += count
        if items:
            events.append(Shown(self.position - len(items), items))
        return events

    def _pass_over(self, piece: _Piece, slot: Slot) -> Corrupt:
        """Go on behind a section whose records cannot be found from here on: what is durable is damaged."""
        entry = piece.entry
        if piece.records is None and not self._is_newest(entry):
            self._known.append(entry)
        start, stop = self.position, (entry.section + 1) * slot.items_per_section
        self.position = entry.stop = stop
        what = "header" if entry.salt == NO_SALT else "record"
        error = Corruption(
            what, "one that checks out", piece.fault, f"{self.blobs.partition}_data", entry.section, entry.end, start
        )
        return Corrupt(range(start, stop), error)

    # What has become of what was shown.

    async def _compare(self, slots: Slots, new: Remembered | None) -> int | None:
        """Return up to which position the history is the one remembered, and forget what is not.

        None if there was a prune or a reset meanwhile: nothing can be said then, and nothing is forgotten.

        Args:
            slots: The checkpoint.
            new: A section that was begun just now, which says nothing of those before it.
        """
        slot = slots.current
        kept = [known for known in self._known if known is not new]
        stop = await self._search(slot, kept)
        if new is not None and stop == new.first and (here := await self.blobs.parting(slot, new)) is not None:
            kept.append(new)
            stop = here
        found = None
        if not kept or kept[-1].stop < stop:
            found = await self._recall(slot, stop)
            stop = stop if found is None else found.stop
        again = await self.blobs.slots()
        if again is None or is_other(slot, again.current) or again.current.boundary > slot.boundary:
            return None
        if kept and stop < kept[-1].stop:
            kept[-1].cut(stop)
        if found is not None:
            kept.append(found)
        self._known = kept
        self._doubt = slots.pending
        return stop

    async def _search(self, slot: Slot, kept: list[Remembered]) -> int:
        """Return up to which position the history is the one remembered in `kept`, less what is not there any more."""
        stop = kept[-1].stop if kept else self.position
        is_changed = False
        while kept:
            here = await self.blobs.parting(slot, kept[-1])
            if here is not None:
                return here
            gone = kept.pop()
            if await self.blobs.salt_of(slot, gone.section) == gone.salt:
                # What it held is not known in detail, and what comes behind it has changed.
                return min(max(gone.first, self._doubt), stop)
            stop = gone.first
            is_changed = True
        return max(slot.boundary, min(self._doubt, stop)) if is_changed else stop


def _unread(slot: Slot, section: int) -> Remembered:
    return Remembered.begun(section, max(section * slot.items_per_section, slot.boundary), NO_SALT)
