"""A storage that watches the order of durable steps, and objects when a journal breaks it.

It keeps a copy of what every blob of the journals holds, and knows which bytes of it no fsync has covered yet. The
order that it insists on is that of `docs/durability.md`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

from typing_extensions import override

from posjournal_async.errors import JournalClosed
from posjournal_async.format.checkpoint_slot import SLOT_LENGTH, Slot, parse_slot
from posjournal_async.format.header import HEADER_LENGTH, Header, parse_header
from posjournal_async.format.record import parse_records
from posjournal_async.testing.wrapping import Call, WrappedStorage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from typing import Self

    from posjournal_async.storage.protocols import Blob, Storage

__all__ = ["OrderingMonitor", "OrderingViolation"]

T = TypeVar("T")

_ENTRY = 8
_CHANGES = frozenset({"write_at", "write_durably_at", "resize", "sync", "remove", "remove_many"})
_SYNCS = frozenset({"sync", "write_durably_at"})


class OrderingViolation(AssertionError):
    """A step that a crash right after it could punish."""


class _Attached(Protocol):
    """What the monitor wants to know of a journal."""

    def durable_size(self) -> int: ...

    def bounds(self) -> range: ...


@dataclass(slots=True, eq=False)
class _Range:
    """Bytes from `start` inclusive to `stop` exclusive; two of them are the same only if they are one."""

    start: int
    stop: int


@dataclass(slots=True, eq=False)
class _Shadow:
    """What a blob holds, and which bytes of it may be lost.

    Attributes:
        content: What a read gives.
        unsynced: What was written since the last fsync began.
        cuts: Truncations that no fsync has covered, as objects that tell them apart.
        is_refused: Whether an fsync of it failed.
    """

    content: bytearray = field(default_factory=bytearray)
    unsynced: list[_Range] = field(default_factory=list[_Range])
    cuts: list[object] = field(default_factory=list[object])
    is_refused: bool = False

    def write(self, offset: int, data: bytes) -> None:
        start = min(offset, len(self.content))
        self.content.extend(bytes(max(0, offset - len(self.content))))
        self.content[offset : offset + len(data)] = data
        self.unsynced.append(_Range(start, offset + len(data)))

    def resize(self, length: int) -> None:
        if length < len(self.content):
            self.cuts.append(object())
            del self.content[length:]
            for written in self.unsynced:
                written.stop = min(written.stop, length)
        elif length > len(self.content):
            self.write(length, b"")

    def is_synced(self, stop: int) -> bool:
        """Whether the bytes below `stop` are there and durable."""
        return stop <= len(self.content) and all(written.start >= min(stop, written.stop) for written in self.unsynced)

    def header(self) -> Header | None:
        header = parse_header(bytes(self.content[:HEADER_LENGTH]), len(self.content))
        return header if isinstance(header, Header) else None

    def starts(self, count: int) -> list[int]:
        """Return where the first `count` records start, and where the last of them ends; fewer if there are fewer."""
        header = self.header()
        if header is None:
            return []
        found = parse_records(bytes(self.content), header.salt, header.first, count, HEADER_LENGTH)
        return [HEADER_LENGTH, *found.ends]


class _Journal:
    """What the monitor knows of one journal: its blobs by section, and the checkpoint.

    Attributes:
        data: Data blobs that were opened.
        offsets: Offsets blobs that were opened.
        checkpoint: The checkpoint's blob, once it was opened.
        sections: Sections that have a data blob, as far as is known.
        adopted: The durable size that the checkpoint said when the journal was opened.
        is_locked: Whether somebody has the lock.
        has_failed: Whether a change has failed since it was taken.
        attached: The open journal, for its claims.
        claimed: What it has claimed last, and was found to be durable.
    """

    def __init__(self) -> None:
        self.data: dict[int, _Shadow] = {}
        self.offsets: dict[int, _Shadow] = {}
        self.checkpoint: _Shadow | None = None
        self.sections: set[int] = set()
        self.adopted = 0
        self.is_locked = False
        self.has_failed = False
        self.attached: _Attached | None = None
        self.claimed = 0

    def slots(self) -> list[Slot | None]:
        """Return what the two places of the checkpoint hold."""
        content = b"" if self.checkpoint is None else bytes(self.checkpoint.content)
        found = [parse_slot(content[place : place + SLOT_LENGTH]) for place in (0, SLOT_LENGTH)]
        return [slot if isinstance(slot, Slot) else None for slot in found]

    def visible_slot(self) -> Slot | None:
        return max((slot for slot in self.slots() if slot is not None), key=lambda slot: slot.sequence, default=None)

    def durable_slot(self) -> Slot | None:
        """Return the checkpoint that counts, if it is durable."""
        slot = self.visible_slot()
        if slot is None or self.checkpoint is None:
            return None
        at = self.slots().index(slot) * SLOT_LENGTH
        is_pending = any(written.start < at + SLOT_LENGTH and at < written.stop for written in self.checkpoint.unsynced)
        return None if is_pending else slot

    def adopt(self, part: str, section: int, shadow: _Shadow) -> None:
        """Note which bytes of a blob that was there before are durable: those that the checkpoint vouches for."""
        slot = self.visible_slot()
        length = len(shadow.content)
        header = shadow.header()
        if part == "checkpoint" or slot is None or header is None:
            shadow.unsynced = [_Range(0, length)] if length else []
            return
        durable = min(slot.durable, (section + 1) * slot.items_per_section) - header.first
        if durable <= 0:
            end = 0
        elif slot.durable >= (section + 1) * slot.items_per_section:
            end = length
        else:
            end = HEADER_LENGTH + _ENTRY * durable if part == "offsets" else shadow.starts(durable)[-1]
        shadow.unsynced = [_Range(end, length)] if end < length else []

    def check_vouched(self, start: int, size: int, items_per_section: int, *, index: bool) -> str | None:
        """Say what is wrong with calling the positions from `start` to `size` durable, or None."""
        if start == size:
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
        entries = b"".join(start.to_bytes(_ENTRY, "little") for start in starts)
        if not shadow.is_synced(HEADER_LENGTH + len(entries)):
            return f"offsets of section {section} are not synced"
        if bytes(shadow.content[HEADER_LENGTH : HEADER_LENGTH + len(entries)]) != entries:
            return f"offsets of section {section} are not those of the data"
        return None


class OrderingMonitor(WrappedStorage):
    """A storage that raises `OrderingViolation` in the call by which a journal breaks the order of durable steps.

    * No checkpoint vouches for data or offsets that are not synced, and no journal that is attached claims them.
    * No slot of the checkpoint is written while the other one, that counts, is not durable.
    * No data blob is removed before a durable checkpoint gives it up: below the boundary oldest first, above the
      durable size newest first; and no offsets blob below the boundary before the data blob.
    * Nothing is written to a blob behind a truncation that is not synced.
    * Nothing is called on a closed blob.
    * A blob whose fsync failed is not synced again.
    * No checkpoint is written and nothing is removed after a change that failed.
    * Nothing is changed without the lock.

    A journal may take the violation for a failing device; so the first one is kept, and leaving the `with` raises it.

    Args:
        inner: The storage. Blobs that are there already are taken to be durable as far as the checkpoint vouches.

    Attributes:
        violations: What was found, in order.

    Example:
        >>> import asyncio
        >>> from posjournal_async import Config, Context, Journal, MemoryStorage
        >>> async def main() -> None:
        ...     with OrderingMonitor(MemoryStorage()) as monitor:
        ...         journal = await Journal.init(Context(monitor), Config(partition="orders"))
        ...         monitor.attach("orders", journal)
        ...         await journal.append("an order")
        ...         await journal.close()
        >>> asyncio.run(main())
    """

    def __init__(self, inner: Storage) -> None:
        super().__init__(inner)
        self._journals: dict[str, _Journal] = {}
        self._shadows: dict[Blob, _Shadow] = {}
        self._closed: set[Blob] = set()
        self.violations: list[OrderingViolation] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.check()

    def attach(self, partition: str, journal: _Attached) -> None:
        """Check from now on that what an open journal calls durable is; a journal before it is let go."""
        known = self._journal(f"{partition}_data")
        known.attached = journal
        known.claimed = 0
        self._check_claim(known)

    def check(self) -> None:
        """Raise the first violation, if there was one.

        Raises:
            OrderingViolation: There was.
        """
        for known in self._journals.values():
            self._check_claim(known)
        if self.violations:
            raise self.violations[0]

    @override
    async def around(self, call: Call, go_on: Callable[[], Awaitable[T]]) -> T:
        base, _, part = call.partition.rpartition("_")
        known = self._journal(call.partition)
        self._check_claim(known)
        self._begin(call, known, part)
        shadow = None if call.blob is None else self._shadows.get(call.blob)
        covered: set[object] = set() if shadow is None else {*shadow.unsynced, *shadow.cuts}
        try:
            result = await go_on()
        except BaseException:
            if call.what in _CHANGES:
                known.has_failed = True
            if call.what in _SYNCS and shadow is not None:
                shadow.is_refused = True
            raise
        if call.what == "open":
            await self._opened(call, known, part, cast("tuple[Blob, int]", result))
        elif call.what == "scan" and part == "data":
            known.sections = {int.from_bytes(name) for name in cast("list[bytes]", result)}
        elif call.what == "lock":
            self._journals[base] = _Journal()
            self._journals[base].is_locked = True
        elif call.what in _SYNCS and shadow is not None:
            shadow.unsynced = [written for written in shadow.unsynced if written not in covered]
            shadow.cuts = [cut for cut in shadow.cuts if cut not in covered]
        self._check_claim(known)
        return result

    def _begin(self, call: Call, known: _Journal, part: str) -> None:
        """Look at a call before it is made."""
        if call.blob is not None and call.blob in self._closed and call.what != "close":
            self._object(call, "the blob is closed")
        if call.what in _CHANGES and not known.is_locked:
            self._object(call, "nobody has the lock")
        if call.what in {"remove", "remove_many"}:
            self._begin_removal(call, known, part)
        elif call.what == "close" and call.blob is not None:
            self._closed.add(call.blob)
        elif call.what == "release":
            known.is_locked = False
            known.attached = None
        elif call.blob is not None and call.what in _CHANGES:
            self._begin_change(call, known, part, self._shadows[call.blob])

    def _begin_change(self, call: Call, known: _Journal, part: str, shadow: _Shadow) -> None:
        if call.what in _SYNCS and shadow.is_refused:
            self._object(call, "an fsync of this blob has failed")
        if call.what == "resize":
            shadow.resize(call.offset)
        elif call.what != "sync":
            if shadow.cuts:
                self._object(call, "a truncation before it is not synced")
            if part == "checkpoint":
                self._begin_checkpoint(call, known)
            shadow.write(call.offset, call.data)

    def _begin_checkpoint(self, call: Call, known: _Journal) -> None:
        if known.has_failed:
            self._object(call, "a change before it has failed")
        slot = parse_slot(call.data)
        current = known.visible_slot()
        if not isinstance(slot, Slot):
            self._object(call, "this is no checkpoint")
        elif current is not None and slot != current and known.durable_slot() is None:
            self._object(call, "the checkpoint before it is not durable")
        elif slot != current and slot.reset is None:
            known.adopted = min(known.adopted, slot.durable)
            wrong = known.check_vouched(slot.boundary, slot.durable, slot.items_per_section, index=True)
            if wrong is not None:
                self._object(call, f"the checkpoint vouches for {slot.durable} items, but {wrong}")

    def _begin_removal(self, call: Call, known: _Journal, part: str) -> None:
        if known.has_failed:
            self._object(call, "a change before it has failed")
        names = list(call.names) if call.name is None else [call.name]
        slot = known.durable_slot()
        if part == "checkpoint":
            known.checkpoint = None
            return
        if slot is None:
            self._object(call, "the checkpoint is not durable")
        elif call.what == "remove" and call.name is None:
            if slot.reset is None:
                self._object(call, "no durable checkpoint says that there is a reset")
            known.sections.clear()
            (known.data if part == "data" else known.offsets).clear()
        else:
            for name in names:
                self._begin_removal_of(call, known, part, int.from_bytes(name), slot)

    def _begin_removal_of(self, call: Call, known: _Journal, part: str, section: int, slot: Slot) -> None:
        ips = slot.items_per_section
        is_pruned = (section + 1) * ips <= slot.boundary
        if part == "offsets":
            if is_pruned and section in known.sections:
                self._object(call, f"the data of section {section} is still there")
            known.offsets.pop(section, None)
            return
        if slot.reset is None:
            is_beyond = max(section * ips, slot.boundary) >= slot.durable
            if not is_pruned and not is_beyond:
                self._object(call, f"a durable checkpoint still vouches for section {section}")
            if is_pruned and section > min(known.sections, default=section):
                self._object(call, f"section {section} goes before an older one")
            if not is_pruned and section < max(known.sections, default=section):
                self._object(call, f"section {section} goes before a newer one")
        known.sections.discard(section)
        known.data.pop(section, None)

    async def _opened(self, call: Call, known: _Journal, part: str, result: tuple[Blob, int]) -> None:
        blob, length = result
        section = 0 if call.name is None else int.from_bytes(call.name)
        rooms: dict[int, _Shadow] = known.data if part == "data" else known.offsets
        shadow = known.checkpoint if part == "checkpoint" else rooms.get(section)
        if shadow is None:
            shadow = _Shadow(bytearray(await blob.read_at(0, length)))
            if part == "checkpoint":
                known.checkpoint = shadow
                slot = known.visible_slot()
                known.adopted = 0 if slot is None else slot.durable
            else:
                rooms[section] = shadow
            known.adopt(part, section, shadow)
        if part == "data":
            known.sections.add(section)
        self._shadows[blob] = shadow

    def _check_claim(self, known: _Journal) -> None:
        if known.attached is None:
            return
        try:
            durable = known.attached.durable_size()
        except JournalClosed:
            return
        slot = known.visible_slot()
        if durable == known.claimed or slot is None:
            return
        known.claimed = durable
        start = known.attached.bounds().start
        wrong = known.check_vouched(start, durable, slot.items_per_section, index=False)
        if wrong is not None:
            self._object(None, f"the journal calls {durable} items durable, but {wrong}")

    def _object(self, call: Call | None, why: str) -> None:
        where = "" if call is None else f"{call.what} in {call.partition} {call.name and call.name.hex()}: "
        violation = OrderingViolation(f"{where}{why}")
        self.violations.append(violation)
        raise violation

    def _journal(self, partition: str) -> _Journal:
        return self._journals.setdefault(partition.rpartition("_")[0], _Journal())
