"""What is wrong with a journal: one `Finding` for each thing, in the words of the format."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

__all__ = ["Finding", "Severity"]


class Severity(enum.Enum):
    """What a finding means for whoever opens the journal next."""

    TORN = "torn"
    """A crash explains it, and the next open mends it."""
    STALE = "stale"
    """An index or the checkpoint says less than the data, or something else; no item is lost."""
    CORRUPT = "corrupt"
    """No crash explains it, and nothing mends it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as the format has it.

    Attributes:
        severity: What it means.
        what: What was looked at.
        expected: What should have been there.
        found: What was there instead.
        partition: Partition of the storage.
        section: Section number, or None.
        offset: Byte offset in the blob, or None.
        position: First position that it is about, or None.
        positions: How many positions cannot be read because of it, from `position` on.
    """

    severity: Severity
    what: str
    expected: str
    found: str
    partition: str
    section: int | None = None
    offset: int | None = None
    position: int | None = None
    positions: int = 0

    def fields(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "severity": self.severity.value,
            "what": self.what,
            "partition": self.partition,
            "section": self.section,
            "offset": self.offset,
            "position": self.position,
            "positions": self.positions,
            "expected": self.expected,
            "found": self.found,
        }
