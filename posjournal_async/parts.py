"""What every change of an open journal works in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from posjournal_async.checkpoint import Checkpoint
    from posjournal_async.data import DataJournal
    from posjournal_async.offsets import OffsetsJournal
    from posjournal_async.sealed import SealedSections

__all__ = ["Parts"]


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of an open journal that have files.

    Attributes:
        data: The data journal.
        offsets: The offsets journal.
        checkpoint: The checkpoint.
        sealed: The sealed sections that are open for reading.
    """

    data: DataJournal
    offsets: OffsetsJournal
    checkpoint: Checkpoint
    sealed: SealedSections
