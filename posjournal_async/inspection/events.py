"""What a follower says happens to a journal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from posjournal_async.errors import CodecError, Corruption

__all__ = ["Absent", "Corrupt", "Event", "Pruned", "Reset", "Rewound", "Shown"]


@dataclass(frozen=True, slots=True)
class Shown:
    """Items that are durable, and new.

    Attributes:
        first: Position of the first.
        items: The items, at positions one after the other.
    """

    first: int
    items: list[Any]


@dataclass(frozen=True, slots=True)
class Rewound:
    """Items that were shown are not part of the history any more. What comes next has position `size`.

    Attributes:
        size: Where what was shown and what is there part, or a position before it.
    """

    size: int


@dataclass(frozen=True, slots=True)
class Pruned:
    """Items were pruned before they were seen.

    Attributes:
        missed: Their positions.
    """

    missed: range


@dataclass(frozen=True, slots=True)
class Reset:
    """Another journal has taken the place of the one that was followed.

    Attributes:
        start: Its first position, which comes next.
    """

    start: int


@dataclass(frozen=True, slots=True)
class Absent:
    """There is no journal: not yet, or not any more."""


@dataclass(frozen=True, slots=True)
class Corrupt:
    """Items cannot be shown although they are durable. What comes next lies behind them.

    Attributes:
        positions: Their positions; up to the end of a section where its records cannot be found.
        error: Why.
    """

    positions: range
    error: Corruption | CodecError


Event = Shown | Rewound | Pruned | Reset | Absent | Corrupt
