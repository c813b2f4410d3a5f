"""Looking at a journal beside its writer: what the checkpoint said all the while.

Every prune, rewind and reset begins with a checkpoint, and both slots can be read at once. So whoever looks at the
checkpoint now and then knows for which positions it has vouched without a break: what is wrong with one of these is
damage, and nothing that a writer does. What lies above them is the writer's business as long as there is one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from posjournal_async.checkpoint import is_reset_behind, slots_in
from posjournal_async.format.checkpoint_slot import SLOT_LENGTH
from posjournal_async.inspection.present import CHECKPOINT, open_if_there

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from posjournal_async.format.checkpoint_slot import Slot
    from posjournal_async.storage.protocols import Blob, Storage

__all__ = ["Watch", "never_locked"]


async def never_locked() -> bool:
    """Say that nobody has the journal open."""
    return False


class Watch:
    """The checkpoint of a journal that somebody may be writing to.

    Attributes:
        partition: Base name of the journal.
        slot: The checkpoint as last seen, or None where neither slot is valid. Who finds out what it must have said
            may set it.
        place: Which of the two slots that is, 0 or 1.
        damaged: Slots, 0 or 1, that hold something that is no checkpoint.
        is_reset_behind: Whether the other slot has a reset on record that is done.
        boundary: The highest pruning boundary seen since `begin`.
        low: The lowest durable size seen since `begin`.
        has_gap: Whether there were checkpoints since `begin` that were not seen.
        is_other: Whether the journal was reset or replaced since `begin`, or made.
        was_locked: Whether somebody had the journal open at `begin`.
        is_locked: Says whether somebody has it open.
    """

    def __init__(
        self, storage: Storage, partition: str, is_locked: Callable[[], Awaitable[bool]] = never_locked
    ) -> None:
        self.partition = partition
        self.slot: Slot | None = None
        self.place = 1
        self.damaged: tuple[int, ...] = ()
        self.is_reset_behind = False
        self.boundary = self.low = 0
        self.has_gap = self.is_other = self.was_locked = False
        self.is_locked = is_locked
        self._storage = storage
        self._blob: Blob | None = None
        self._begun: Slot | None = None

    async def open(self) -> None:
        """Open the checkpoint and look at it for the first time.

        Raises:
            InvalidConfiguration: Another version of the format wrote it.
        """
        slots = await self._read()
        if slots:
            self.slot = slots[-1]
        await self.begin()

    async def close(self) -> None:
        """Release the checkpoint."""
        if self._blob is not None:
            await self._blob.close()

    async def begin(self) -> None:
        """Forget what was seen before, and begin with what is there now."""
        self.was_locked = await self.is_locked()
        await self.look()
        slot = self._begun = self.slot
        self.has_gap = self.is_other = False
        self.boundary, self.low = (0, 0) if slot is None else (slot.boundary, slot.durable)

    async def look(self) -> None:
        """Look at the checkpoint again.

        Raises:
            InvalidConfiguration: Another version of the format wrote it.
        """
        slots = await self._read()
        last = self.slot
        if last is None:
            if slots:  # there was no journal yet
                self.slot = slots[-1]
                self.is_other = True
            return
        new = [slot for slot in slots if slot.sequence > last.sequence]
        if not slots or slots[-1].sequence < last.sequence:
            self.has_gap = self.has_gap or last.sequence > 0
        if not new:
            return
        self.has_gap = self.has_gap or new[0].sequence > last.sequence + 1
        for slot in new:
            self.is_other = self.is_other or slot.journal_id != last.journal_id or slot.reset is not None
            self.low = min(self.low, slot.durable)
            self.boundary = max(self.boundary, slot.boundary)
        self.slot = new[-1]

    def vouches_for(self, position: int) -> bool:
        """Say whether every checkpoint seen since `begin` has this position as retained and durable."""
        return not self.is_other and self.boundary <= position < self.low

    async def is_at_rest(self) -> bool:
        """Say whether nobody had the journal open at `begin`, nobody has now, and no checkpoint was written meanwhile.

        The lock is asked first, here and there: who lets it go has stored a checkpoint before, unless nothing was
        changed.
        """
        if self.was_locked or await self.is_locked():
            return False
        await self.look()
        return self.slot == self._begun and not self.is_other

    async def _read(self) -> list[Slot]:
        """Return the valid slots, by sequence number."""
        if self._blob is None:
            found = await open_if_there(self._storage, f"{self.partition}_checkpoint", CHECKPOINT)
            self._blob = None if found is None else found[0]
        both = b"" if self._blob is None else await self._blob.read_at(0, 2 * SLOT_LENGTH)
        slots, self.damaged = slots_in(both, self.partition)
        self.is_reset_behind = is_reset_behind(slots)
        if slots:
            self.place = slots[0][1]
        return [slot for slot, _ in reversed(slots)]
