"""The checkpoint: the small durable record of what recovery may rely on.

Two slots are written in turn and each is synced before `store` returns, so a crash leaves the new checkpoint or the one
before it. Whoever stores one has made sure of the order that `docs/durability.md` states: what it vouches for is
durable before it is raised, and it is lowered before what it vouched for is cut.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from posjournal_async.errors import InvalidConfiguration
from posjournal_async.format.checkpoint_slot import SLOT_LENGTH, Slot, UnknownVersion, parse_slot
from posjournal_async.format.header import FORMAT_VERSION
from posjournal_async.sections import closed_on_error, write_durably

if TYPE_CHECKING:
    from collections.abc import Sequence

    from posjournal_async.storage.protocols import Blob, Storage

__all__ = ["Checkpoint", "SlotFacts", "is_reset_behind", "read_slots", "slots_in"]

_NAME = (0).to_bytes(8)


@dataclass(frozen=True, slots=True)
class SlotFacts:
    """What the two slots hold.

    Attributes:
        current: The valid slot with the higher sequence number, or None.
        place: Which of the two slots that is, 0 or 1; 1 when there is none, so that slot 0 comes next.
        damaged: How many slots hold something that is not a checkpoint.
        is_reset_behind: Whether the other slot has a reset on record that the current one says is done. If the device
            loses the current one, it would be done again.
    """

    current: Slot | None
    place: int
    damaged: int
    is_reset_behind: bool = False


async def read_slots(storage: Storage, partition: str) -> tuple[Blob, SlotFacts]:
    """Open the checkpoint's blob and return it with what it holds.

    Raises:
        InvalidConfiguration: Another version of the format wrote it.
    """
    await storage.scan(partition)  # makes the name durable that a killed process may have left
    blob, length = await storage.open(partition, _NAME)
    async with closed_on_error(blob):
        slots, damaged = slots_in(await blob.read_at(0, min(length, 2 * SLOT_LENGTH)), partition)
        current, place = slots[0] if slots else (None, 1)
        return blob, SlotFacts(current, place, len(damaged), is_reset_behind(slots))


def slots_in(both: bytes, partition: str) -> tuple[list[tuple[Slot, int]], tuple[int, ...]]:
    """Return the valid slots with their places, 0 or 1, the newest first; and the places that hold something else.

    Raises:
        InvalidConfiguration: Another version of the format wrote one.
    """
    found: list[tuple[Slot, int]] = []
    damaged: list[int] = []
    for place, raw in enumerate((both[:SLOT_LENGTH], both[SLOT_LENGTH:])):
        slot = parse_slot(raw)
        if isinstance(slot, UnknownVersion):
            raise InvalidConfiguration("format version", FORMAT_VERSION, slot.version, partition)
        if slot is not None:
            found.append((slot, place))
        elif any(raw):
            damaged.append(place)
    found.sort(key=lambda at: -at[0].sequence)
    return found, tuple(damaged)


def is_reset_behind(slots: Sequence[tuple[Slot, int]]) -> bool:
    """Say whether the older of two slots, the newest first, has a reset on record that the newer one says is done."""
    return len(slots) == 2 and slots[0][0].reset is None and slots[1][0].reset is not None


class Checkpoint:
    """The checkpoint of an open journal.

    Attributes:
        blob: Where it is kept.
        slot: What was last made durable.
    """

    def __init__(self, blob: Blob, slot: Slot, place: int) -> None:
        self.blob = blob
        self.slot = slot
        self._place = place

    async def store(self, *, durable: int, boundary: int, reset: int | None = None, codec: str | None = None) -> None:
        """Make a new checkpoint durable; does nothing when it says what the last one said.

        A slot with sequence number 0 stands in for one that is not there. Without a `codec` its name stays.
        """
        codec = self.slot.codec if codec is None else codec
        slot = replace(self.slot, codec=codec, durable=durable, boundary=boundary, reset=reset)
        if slot != self.slot or not slot.sequence:
            await self.write(replace(slot, sequence=self.slot.sequence + 1))

    async def confirm(self) -> None:
        """Make durable what was read: a process that was killed may have written it and not synced it.

        Until that is done nothing may be removed on its word, and the other slot, which may be the only durable one,
        may not be written. Writing the same bytes in the same place cannot tear them.
        """
        if self.slot.sequence:
            await write_durably(self.blob, self._place * SLOT_LENGTH, self.slot.to_bytes())

    async def write(self, slot: Slot) -> None:
        """Make this very slot durable, in the place of the one before the current one."""
        place = 1 - self._place
        await write_durably(self.blob, place * SLOT_LENGTH, slot.to_bytes())
        self.slot = slot
        self._place = place

    async def repeat(self) -> None:
        """Make durable in the other slot too what was last made durable."""
        await self.write(replace(self.slot, sequence=self.slot.sequence + 1))

    async def close(self) -> None:
        """Release the blob."""
        await self.blob.close()
