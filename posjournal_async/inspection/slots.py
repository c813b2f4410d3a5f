"""The checkpoint as somebody sees it who looks now and then: both slots, and what they tell of the time in between."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from posjournal_async.format.checkpoint_slot import Slot

__all__ = ["NEVER", "Slots", "is_other"]

# Behind every position: no item from there on is in doubt. A stray file, with the checkpoint lost, may say that there
# are positions above 2**64: up to 2**64 sections of as many.
NEVER = 2**128


@dataclass(frozen=True, slots=True)
class Slots:
    """The checkpoint.

    Attributes:
        current: What counts.
        before: The checkpoint before it, where its slot is still there.
    """

    current: Slot
    before: Slot | None

    def lowest_since(self, known: Slot) -> int:
        """Return the lowest durable size to which a checkpoint after `known` has lowered it; 0 if that is unknown."""
        current, before = self.current, self.before
        if current == known:
            return NEVER
        steps = [known, current]
        if current.sequence == known.sequence + 2 and before is not None and before.sequence == known.sequence + 1:
            steps.insert(1, before)
        elif current.sequence != known.sequence + 1:
            return 0
        lowered = [one.durable for other, one in pairwise(steps) if one.durable < other.durable]
        return min(lowered, default=NEVER)

    @property
    def pending(self) -> int:
        """Where data may still be about to be cut, because the current checkpoint begins a rewind."""
        current, before = self.current, self.before
        if current.sequence == 1:
            return NEVER
        if before is None or before.sequence != current.sequence - 1:
            return current.durable
        is_lowered = before.journal_id == current.journal_id and before.durable > current.durable
        return current.durable if is_lowered else NEVER


def is_other(known: Slot, now: Slot) -> bool:
    """Say whether a journal is not the one that was known: it was reset, or is being reset."""
    return now.journal_id != known.journal_id or now.boundary < known.boundary or now.reset is not None
