"""What the ordering monitor knows of a journal's blobs: what they hold, and which bytes of that may be lost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from posjournal_async.format.checkpoint_slot import SLOT_LENGTH, Slot, parse_slot
from posjournal_async.format.header import HEADER_LENGTH, Header, parse_header
from posjournal_async.format.index import ENTRY_LENGTH
from posjournal_async.format.record import parse_records

if TYPE_CHECKING:
    from collections.abc import Sequence


__all__ = ["Attached", "JournalShadow", "Shadow"]


class Attached(Protocol):
    """What the monitor wants to know of a journal."""

    def durable_size(self) -> int:
        """Return the size that it calls durable."""
        ...

    def bounds(self) -> range:
        """Return the positions that it retains."""
        ...


@dataclass(slots=True, eq=False)
class _Range:
    """Bytes from `start` inclusive to `stop` exclusive; two of them are the same only if they are one.

    Attributes:
        start: The first byte.
        stop: Where they end.
        is_stale: Whether an fsync says nothing about them: they were there when the blob was opened, or an fsync of
            them failed, so that the page cache may hold them as clean although the device never got them. Writing them
            again makes them like others.
    """

    start: int
    stop: int
    is_stale: bool = False


@dataclass(slots=True, eq=False)
class Shadow:
    """What a blob holds, and which bytes of it may be lost.

    Attributes:
        content: What a read gives.
        unsynced: What may be lost: written since the last fsync began, or stale.
        cuts: Truncations that no fsync has covered, as objects that tell them apart.
        is_refused: Whether an fsync of it failed.
    """

    content: bytearray = field(default_factory=bytearray)
    unsynced: list[_Range] = field(default_factory=list[_Range])
    cuts: list[object] = field(default_factory=list[object])
    is_refused: bool = False
    _ends: list[int] = field(default_factory=list[int])

    def write(self, offset: int, data: bytes) -> None:
        """Note a write, which no fsync has covered yet."""
        start, stop = min(offset, len(self.content)), offset + len(data)
        self._forget_from(start)
        self.content.extend(bytes(max(0, offset - len(self.content))))
        self.content[offset:stop] = data
        for old in [old for old in self.unsynced if old.is_stale and old.start < stop and start < old.stop]:
            self.unsynced.remove(old)
            left, right = _Range(old.start, start, is_stale=True), _Range(stop, old.stop, is_stale=True)
            self.unsynced += [part for part in (left, right) if part.start < part.stop]
        self.unsynced.append(_Range(start, stop))

    def resize(self, length: int) -> None:
        """Note a truncation or an extension, which no fsync has covered yet."""
        if length < len(self.content):
            self._forget_from(length)
            self.cuts.append(object())
            del self.content[length:]
            for written in self.unsynced:
                written.stop = min(written.stop, length)
            self.unsynced = [written for written in self.unsynced if written.start < written.stop]
        elif length > len(self.content):
            self.write(length, b"")

    def covered(self) -> set[object]:
        """Return what an fsync that begins now makes durable."""
        return {*self.cuts, *self.unsynced}

    def settle(self, covered: set[object], *, is_done: bool) -> None:
        """Note how an fsync has ended that began when that was pending."""
        if is_done:
            self.unsynced = [written for written in self.unsynced if written.is_stale or written not in covered]
            self.cuts = [cut for cut in self.cuts if cut not in covered]
            return
        self.is_refused = True
        for written in self.unsynced:
            written.is_stale |= written in covered

    def is_synced(self, stop: int, start: int = 0) -> bool:
        """Whether the bytes from `start` to `stop` are there and durable."""
        is_pending = any(written.start < stop and start < written.stop for written in self.unsynced)
        return stop <= len(self.content) and not is_pending

    def says(self, offset: int, data: bytes) -> bool:
        """Whether it holds these bytes there already."""
        return bytes(self.content[offset : offset + len(data)]) == data

    def header(self) -> Header | None:
        """Return its header, or None if it has none that checks out."""
        header = parse_header(bytes(self.content[:HEADER_LENGTH]), len(self.content))
        return header if isinstance(header, Header) else None

    def starts(self, count: int) -> list[int]:
        """Return where the first `count` records start, and where the last of them ends; fewer if there are fewer."""
        header = self.header()
        if header is None:
            return []
        known = self._ends[:count]
        if len(known) < count:
            at = known[-1] if known else HEADER_LENGTH
            missing = count - len(known)
            found = parse_records(bytes(self.content[at:]), header.salt, header.first + len(known), missing)
            self._ends = known = known + [at + end for end in found.ends]
        return [HEADER_LENGTH, *known]

    def _forget_from(self, offset: int) -> None:
        if offset < HEADER_LENGTH:
            self._ends = []
        while self._ends and self._ends[-1] > offset:
            self._ends.pop()


class JournalShadow:
    """What the monitor knows of one journal: its blobs by section, and the checkpoint.

    Attributes:
        data: Data blobs that were opened.
        offsets: Offsets blobs that were opened.
        checkpoint: The checkpoint's blob, once it was opened.
        stand_in: What recovery takes for the checkpoint where it is lost: all but the last section is durable.
        sections: Sections that have a data blob, as far as is known.
        gone: Parts that were removed as a whole.
        adopted: The durable size that the checkpoint said when the journal was opened, or a lower one since.
        is_locked: Whether somebody has the lock.
        busy: Calls under way that change something.
        open_blobs: The `id` of each blob that is open.
        has_failed: Whether a change has failed since the lock was taken.
        attached: The open journal, for its claims.
        claimed: What it has claimed last, and was found to be durable.
    """

    def __init__(self) -> None:
        self.data: dict[int, Shadow] = {}
        self.offsets: dict[int, Shadow] = {}
        self.checkpoint: Shadow | None = None
        self.stand_in: Slot | None = None
        self.sections: set[int] = set()
        self.gone: set[str] = set()
        self.adopted = 0
        self.is_locked = False
        self.busy = 0
        self.open_blobs: set[int] = set()
        self.has_failed = False
        self.attached: Attached | None = None
        self.claimed = 0

    def slots(self) -> list[Slot | None]:
        """Return what the two places of the checkpoint hold."""
        content = b"" if self.checkpoint is None else bytes(self.checkpoint.content)
        found = [parse_slot(content[place : place + SLOT_LENGTH]) for place in (0, SLOT_LENGTH)]
        return [slot if isinstance(slot, Slot) else None for slot in found]

    def visible_slot(self) -> Slot | None:
        """Return the checkpoint that counts, durable or not."""
        slots = [slot for slot in self.slots() if slot is not None]
        return max(slots, key=lambda slot: slot.sequence, default=self.stand_in)

    def durable_slot(self) -> Slot | None:
        """Return the checkpoint that counts, if it is durable."""
        slot = self.visible_slot()
        if slot is None or slot is self.stand_in or self.checkpoint is None:
            return slot
        at = self.slots().index(slot) * SLOT_LENGTH
        return slot if self.checkpoint.is_synced(at + SLOT_LENGTH, at) else None

    def adopt(self, part: str, section: int, shadow: Shadow) -> None:
        """Note which bytes of a blob that was there before are durable: those that the checkpoint vouches for."""
        length = len(shadow.content)
        end = 0
        header = shadow.header()
        if part != "checkpoint" and header is not None:
            if part == "data" and self.visible_slot() is None:
                durable = max(max(self.sections, default=0) * header.items_per_section, header.first)
                boundary, ips = header.first, header.items_per_section
                self.stand_in = Slot(0, header.journal_id, ips, header.codec, durable, boundary)
                self.adopted = durable
            end = self._adopted_end(part, section, shadow, header)
        shadow.unsynced = [_Range(end, length, is_stale=True)] if end < length else []

    def _adopted_end(self, part: str, section: int, shadow: Shadow, header: Header) -> int:
        stop = (section + 1) * header.items_per_section
        durable = min(self.adopted, stop) - header.first
        if durable <= 0:
            return 0
        if self.adopted >= stop:
            return len(shadow.content)
        return HEADER_LENGTH + ENTRY_LENGTH * durable if part == "offsets" else shadow.starts(durable)[-1]

    def vouched_end(self, section: int, shadow: Shadow) -> int | None:
        """Return where the bytes of a data blob end that a checkpoint vouches for; None if no checkpoint is durable."""
        slot = self.durable_slot()
        if slot is None:
            return None
        header = shadow.header()
        if slot.reset is not None or header is None:
            return 0
        count = min(slot.durable, (section + 1) * slot.items_per_section) - header.first
        return shadow.starts(count)[-1] if count > 0 else 0

    def check_vouched(self, start: int, size: int, items_per_section: int, *, index: bool) -> str | None:
        """Say what is wrong with calling the positions from `start` to `size` durable, or None."""
        if start >= size:
            return None
        for section in range(start // items_per_section, -(-size // items_per_section)):
            stop = min(size, (section + 1) * items_per_section)
            shadow, entries = self.data.get(section), self.offsets.get(section)
            if stop <= self.adopted and not (shadow and shadow.unsynced) and not (entries and entries.unsynced):
                continue  # nobody has touched it since it was durable
            header = None if shadow is None else shadow.header()
            if shadow is None or header is None:
                return f"section {section} has no header"
            count = stop - header.first
            if count <= 0:
                continue
            starts = shadow.starts(count)
            if len(starts) <= count:
                return f"section {section} holds {len(starts) - 1} of {count} items"
            if not shadow.is_synced(starts[-1]):
                return f"data of section {section} is not synced up to position {stop}"
            wrong = self._check_index(section, starts[:-1]) if index else None
            if wrong is not None:
                return wrong
        return None

    def _check_index(self, section: int, starts: Sequence[int]) -> str | None:
        shadow = self.offsets.get(section)
        if shadow is None:
            return f"section {section} has no index"
        entries = b"".join(start.to_bytes(ENTRY_LENGTH, "little") for start in starts)
        if not shadow.is_synced(HEADER_LENGTH + len(entries)):
            return f"offsets of section {section} are not synced"
        if not shadow.says(HEADER_LENGTH, entries):
            return f"offsets of section {section} are not those of the data"
        return None
