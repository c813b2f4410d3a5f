"""A storage that watches the order of durable steps, and objects when a journal breaks it.

It keeps a copy of what every blob of the journals holds, and knows which bytes of it no fsync has covered yet. The
order that it insists on is that of `docs/durability.md`.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NoReturn, TypeVar, cast

from typing_extensions import override

from posjournal_async.errors import JournalClosed
from posjournal_async.format.checkpoint_slot import SLOT_LENGTH, Slot, parse_slot
from posjournal_async.format.header import HEADER_LENGTH
from posjournal_async.storage.protocols import reads_at_once, writes_durably
from posjournal_async.testing.shadows import Attached, JournalShadow, Shadow
from posjournal_async.testing.wrapping import Call, WrappedStorage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from typing import Self

    from posjournal_async.storage.protocols import Blob, Storage

__all__ = ["OrderingMonitor", "OrderingViolation"]

T = TypeVar("T")

_REMOVALS = frozenset({"remove", "remove_many"})
_SYNCS = frozenset({"sync", "write_durably_at"})
_WRITES = frozenset({"write_at", "write_durably_at"})
_CHANGES = _REMOVALS | _SYNCS | _WRITES | {"resize"}


class OrderingViolation(AssertionError):
    """A step that a crash right after it could punish."""


class OrderingMonitor(WrappedStorage):
    """A storage that raises `OrderingViolation` in the call by which a journal breaks the order of durable steps.

    * No checkpoint vouches for data or offsets that are not synced, and nobody is told that they are: by a journal that
      is attached, or through `acknowledged`. An fsync covers what was called before it began. It does not cover what
      another process may have left in the page cache, or what an fsync that failed was to cover: that has to be written
      again.
    * No slot of the checkpoint is written while the one that counts is not durable, or in its place. The boundary never
      goes back.
    * No data blob is made before the section before it is sealed, and no record is written before the header of its
      blob is durable.
    * No data blob is removed before a durable checkpoint gives it up: below the boundary oldest first, above the
      durable size newest first, and that of the first section when the others are gone; and no offsets blob below the
      boundary before the data blob. What a durable checkpoint vouches for is not cut, and no other bytes are written
      there.
    * A reset ends when data and offsets are gone, and the checkpoint goes after them.
    * Nothing is written to a blob behind a truncation that is not synced.
    * Nothing is called on a closed blob.
    * A blob whose fsync failed is not synced again.
    * No checkpoint is written, and nothing is cut or removed, after a change that failed.
    * Nothing is changed without the lock, and it is not released while a blob is open or a change under way.

    A journal may take the violation for a failing device; so the first one is kept, and leaving the `with` raises it.

    Args:
        inner: The storage. Blobs that are there already are taken to be durable as far as the checkpoint vouches. Where
            calls are to fail, by a `FaultyStorage`, that is the inner one: only then it is seen that they fail.

    Attributes:
        violations: What was found, in order.

    Example:
        >>> import asyncio
        >>> from posjournal_async import Config, Context, Journal, MemoryStorage
        >>> from posjournal_async.testing import OrderingMonitor
        >>> async def main() -> None:
        ...     with OrderingMonitor(MemoryStorage()) as monitor:
        ...         journal = await Journal.init(Context(monitor), Config(partition="orders"))
        ...         monitor.attach("orders", journal)
        ...         await journal.append("an order")
        ...         await journal.sync_data()
        ...         monitor.acknowledged("orders", 1)
        ...         await journal.close()
        >>> asyncio.run(main())
    """

    def __init__(self, inner: Storage) -> None:
        super().__init__(inner)
        self._journals: dict[str, JournalShadow] = {}
        # By the `id` of the blob: the blobs of a backend may be equal to others, and need not hash. A blob is kept here
        # with its shadow, so that no other one gets its id; one without a shadow is closed.
        self._handles: dict[int, tuple[Blob, Shadow | None]] = {}
        self.violations: list[OrderingViolation] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.check()

    def attach(self, partition: str, journal: Attached) -> None:
        """Check at each call from now on that what an open journal calls durable is; one before it is let go."""
        known = self._journal(f"{partition}_data")
        known.attached = journal
        known.claimed = 0
        self._check_claim(known)

    def acknowledged(self, partition: str, size: int) -> None:
        """Say that somebody was told that the items below `size` are durable.

        Raises:
            OrderingViolation: They are not.
        """
        known = self._journal(f"{partition}_data")
        slot = known.visible_slot()
        if slot is None:
            if size:
                self.object(None, f"{size} items were acknowledged, but there is no checkpoint")
            return
        wrong = known.check_vouched(slot.boundary, size, slot.items_per_section, index=False)
        if wrong is not None:
            self.object(None, f"{size} items were acknowledged, but {wrong}")

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
    async def open(self, partition: str, name: bytes) -> tuple[Blob, int]:
        blob, length = await super().open(partition, name)
        return _WatchedBlob(self, blob, partition, name) if reads_at_once(blob) else blob, length

    @override
    async def around(self, call: Call, go_on: Callable[[], Awaitable[T]]) -> T:
        known = self._journal(call.partition)
        part = call.partition.rpartition("_")[2]
        self._check_claim(known)
        if call.what == "release":
            return await self._release(call, known, go_on)
        self._begin(call, known, part)
        shadow = self._shadow_of(call)
        covered: set[object] = set() if shadow is None else shadow.covered()
        known.busy += call.what in _CHANGES
        try:
            result = await go_on()
        except BaseException:
            if call.what in _CHANGES:
                known.has_failed = True
            if call.what in _SYNCS and shadow is not None:
                shadow.settle(covered, is_done=False)
            raise
        finally:
            known.busy -= call.what in _CHANGES
        if call.what in _SYNCS and shadow is not None:
            shadow.settle(covered, is_done=True)
        await self._end(call, known, part, result)
        self._check_claim(known)
        return result

    def _begin(self, call: Call, known: JournalShadow, part: str) -> None:
        """Look at a call before it is made."""
        shadow = self._shadow_of(call)
        if call.blob is not None and shadow is None and call.what != "close":
            self.object(call, "the blob is closed")
        if call.what in _CHANGES and not known.is_locked:
            self.object(call, "nobody has the lock")
        if call.what in _REMOVALS:
            self._begin_removal(call, known, part)
        elif call.what == "close" and call.blob is not None:
            self._handles[id(call.blob)] = call.blob, None
            known.open_blobs.discard(id(call.blob))
        elif shadow is not None and call.what in _CHANGES:
            self._begin_change(call, known, part, shadow)

    async def _release(self, call: Call, known: JournalShadow, go_on: Callable[[], Awaitable[T]]) -> T:
        """Let the lock go, and object afterwards: it would be in the way of everybody."""
        was_locked, known.is_locked = known.is_locked, False
        known.attached = None
        busy, handles = known.busy, len(known.open_blobs)
        result = await go_on()
        if was_locked and busy:
            self.object(call, "a change is under way")
        if was_locked and handles:
            self.object(call, f"{handles} blobs are open")
        return result

    def _begin_change(self, call: Call, known: JournalShadow, part: str, shadow: Shadow) -> None:
        if call.what in _SYNCS and shadow.is_refused:
            self.object(call, "an fsync of this blob has failed")
        if call.what == "sync":
            return
        if shadow.cuts and (call.what != "resize" or call.offset > len(shadow.content)):
            self.object(call, "a truncation before it is not synced")
        if call.what == "resize" and known.has_failed:
            self.object(call, "a change before it has failed")
        if part == "checkpoint":
            self._begin_checkpoint(call, known)
        elif part == "data":
            self._begin_data(call, known, shadow)
        if call.what == "resize":
            shadow.resize(call.offset)
        else:
            shadow.write(call.offset, call.data)

    def _begin_data(self, call: Call, known: JournalShadow, shadow: Shadow) -> None:
        is_cut = call.what == "resize"
        if is_cut and call.offset >= len(shadow.content):
            return
        if not is_cut and shadow.says(call.offset, call.data):
            return  # written again, which tears nothing
        section = 0 if call.name is None else int.from_bytes(call.name)
        end = known.vouched_end(section, shadow)
        if end is None:
            self.object(call, "the checkpoint is not durable")
        elif call.offset < end:
            self.object(call, f"a durable checkpoint vouches for the bytes below {end}")
        is_record = not is_cut and call.offset + len(call.data) > HEADER_LENGTH
        if is_record and (call.offset < HEADER_LENGTH or not shadow.is_synced(HEADER_LENGTH)):
            self.object(call, "the header before it is not synced")

    def _begin_checkpoint(self, call: Call, known: JournalShadow) -> None:
        if known.has_failed:
            self.object(call, "a change before it has failed")
        slot = parse_slot(call.data)
        current = known.visible_slot()
        if not isinstance(slot, Slot) or call.what == "resize" or call.offset not in {0, SLOT_LENGTH}:
            self.object(call, "this is no checkpoint")
            return
        if current is not None and current is not known.stand_in:
            place = known.slots().index(current) * SLOT_LENGTH
            if slot == current and call.offset == place:
                return  # written again, which tears nothing that counts
            if known.durable_slot() is None:
                self.object(call, "the checkpoint before it is not durable")
            if call.offset == place:
                self.object(call, "the checkpoint that counts is in that place")
            if slot.sequence <= current.sequence:
                self.object(call, "the checkpoint before it would go on counting")
        if slot.reset is None:
            self._begin_vouching(call, known, slot, current)

    def _begin_vouching(self, call: Call, known: JournalShadow, slot: Slot, current: Slot | None) -> None:
        if current is not None and current.reset is not None:
            if not {"data", "offsets"} <= known.gone:
                self.object(call, "the reset is not done: data or offsets are still there")
        elif current is not None and slot.boundary < current.boundary:
            self.object(call, f"the boundary goes back from {current.boundary} to {slot.boundary}")
        known.adopted = min(known.adopted, slot.durable)
        wrong = known.check_vouched(slot.boundary, slot.durable, slot.items_per_section, index=True)
        if wrong is not None:
            self.object(call, f"the checkpoint vouches for {slot.durable} items, but {wrong}")

    def _begin_removal(self, call: Call, known: JournalShadow, part: str) -> None:
        if known.has_failed:
            self.object(call, "a change before it has failed")
        slot = known.durable_slot()
        if slot is None:
            self.object(call, "the checkpoint is not durable")
        elif call.what == "remove" and call.name is None:
            if slot.reset is None:
                self.object(call, "no durable checkpoint says that there is a reset")
            if part == "checkpoint" and not {"data", "offsets"} <= known.gone:
                self.object(call, "data or offsets are still there")
        else:
            for section in _sections_of(call):
                if part == "offsets":
                    self._begin_offsets_removal(call, known, section, slot)
                else:
                    self._begin_data_removal(call, known, section, slot)

    def _begin_offsets_removal(self, call: Call, known: JournalShadow, section: int, slot: Slot) -> None:
        if (section + 1) * slot.items_per_section <= slot.boundary and section in known.sections:
            self.object(call, f"the data of section {section} is still there")

    def _begin_data_removal(self, call: Call, known: JournalShadow, section: int, slot: Slot) -> None:
        if slot.reset is not None:
            return
        is_pruned = (section + 1) * slot.items_per_section <= slot.boundary
        is_beyond = max(section * slot.items_per_section, slot.boundary) >= slot.durable
        is_first = section == slot.boundary // slot.items_per_section  # beside others, it may be gone and they not
        before = () if is_first else itertools.takewhile(section.__ne__, _sections_of(call))
        left = known.sections.difference(before)
        if not is_pruned and not is_beyond:
            self.object(call, f"a durable checkpoint still vouches for section {section}")
        if is_pruned and section > min(left, default=section):
            self.object(call, f"section {section} goes before an older one")
        if not is_pruned and section < max(left, default=section):
            self.object(call, f"section {section} goes before a newer one")

    async def _end(self, call: Call, known: JournalShadow, part: str, result: object) -> None:
        """Note what a call has done that has returned."""
        if call.what == "open":
            await self._opened(call, known, part, cast("tuple[Blob, int]", result))
        elif call.what == "scan" and part == "data":
            known.sections = {int.from_bytes(name) for name in cast("list[bytes]", result)}
        elif call.what == "lock":
            base = call.partition.rpartition("_")[0]
            self._journals[base] = JournalShadow()
            self._journals[base].is_locked = True
        elif call.what in _REMOVALS:
            self._removed(call, known, part)

    def _removed(self, call: Call, known: JournalShadow, part: str) -> None:
        rooms = known.data if part == "data" else known.offsets
        if part == "checkpoint":
            known.checkpoint = None
        elif call.what == "remove" and call.name is None:
            known.gone.add(part)
            rooms.clear()
            if part == "data":
                known.sections.clear()
        else:
            for section in _sections_of(call):
                rooms.pop(section, None)
                if part == "data":
                    known.sections.discard(section)

    async def _opened(self, call: Call, known: JournalShadow, part: str, result: tuple[Blob, int]) -> None:
        blob, length = result
        section = 0 if call.name is None else int.from_bytes(call.name)
        rooms: dict[int, Shadow] = known.data if part == "data" else known.offsets
        shadow = known.checkpoint if part == "checkpoint" else rooms.get(section)
        content = b""
        if shadow is None:
            try:
                if part == "data" and not length and section not in known.sections:
                    self._created(call, known, section)
                content = await blob.read_at(0, length) if length else content
            except BaseException:
                await blob.close()  # nobody else has it
                raise
            # Somebody may have opened it too meanwhile, and written to it.
            shadow = known.checkpoint if part == "checkpoint" else rooms.get(section)
        if shadow is None:
            shadow = Shadow(bytearray(content))
            if part == "checkpoint":
                known.checkpoint = shadow
                slot = known.visible_slot()
                known.adopted = 0 if slot is None else slot.durable
            else:
                rooms[section] = shadow
            known.adopt(part, section, shadow)
        known.gone.discard(part)
        if part == "data":
            known.sections.add(section)
        self._handles[id(blob)] = blob, shadow
        known.open_blobs.add(id(blob))

    def _created(self, call: Call, known: JournalShadow, section: int) -> None:
        slot = known.durable_slot()
        if slot is None:
            self.object(call, "the checkpoint is not durable")
        elif slot.durable < section * slot.items_per_section:
            self.object(call, f"the section before it is not sealed: {slot.durable} items are vouched for")

    def _check_claim(self, known: JournalShadow) -> None:
        if known.attached is None:
            return
        try:
            durable, start = known.attached.durable_size(), known.attached.bounds().start
        except (JournalClosed, RuntimeError):
            return  # it is closed, or its event loop has ended: it claims nothing any more
        slot = known.visible_slot()
        if durable == known.claimed or slot is None:
            return
        known.claimed = durable
        wrong = known.check_vouched(start, durable, slot.items_per_section, index=False)
        if wrong is not None:
            self.object(None, f"the journal calls {durable} items durable, but {wrong}")

    def object(self, call: Call | None, why: str) -> NoReturn:
        """Keep a violation, and raise it.

        Raises:
            OrderingViolation: Always.
        """
        where = "" if call is None else f"{call.what} in {call.partition} {call.name and call.name.hex()}: "
        violation = OrderingViolation(f"{where}{why}")
        self.violations.append(violation)
        raise violation

    def _shadow_of(self, call: Call) -> Shadow | None:
        """Return the shadow of the blob that a call is made on, or None if there is none or it is closed."""
        return None if call.blob is None else self._handles.get(id(call.blob), (call.blob, None))[1]

    def _journal(self, partition: str) -> JournalShadow:
        return self._journals.setdefault(partition.rpartition("_")[0], JournalShadow())


def _sections_of(call: Call) -> Iterable[int]:
    names = call.names if call.name is None else [call.name]
    return [int.from_bytes(name) for name in names]


class _WatchedBlob:
    """A blob that reads at once, which waits for nothing and so does not go by way of `around`."""

    def __init__(self, monitor: OrderingMonitor, inner: Blob, partition: str, name: bytes) -> None:
        assert reads_at_once(inner)
        self.read_at = inner.read_at
        self.write_at = inner.write_at
        if writes_durably(inner):
            self.write_durably_at = inner.write_durably_at
        self.resize = inner.resize
        self.sync = inner.sync
        self._monitor = monitor
        self._close = inner.close
        self._read_at_once = inner.read_at_once
        self._call = Call("read_at_once", partition, name)
        self._is_closed = False

    def read_at_once(self, offset: int, length: int) -> bytes | None:
        if self._is_closed:
            self._monitor.object(self._call, "the blob is closed")
        return self._read_at_once(offset, length)

    async def close(self) -> None:
        self._is_closed = True
        await self._close()
