"""What a journal looks like from outside: the states of sections, and all that one look at its files has found."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from posjournal_async.errors import JournalError
    from posjournal_async.format.checkpoint_slot import Slot
    from posjournal_async.format.header import BadHeader, Header
    from posjournal_async.scan import Scan

__all__ = ["SectionState", "SectionView", "Survey", "codec_expected"]

# The codecs of this library, by what docs/format.md calls them: a plain one reads its own items only, and a typed one
# those of its older versions.
_PLAIN = ("bytes", "json", "msgpack")
_TYPED = ("json", "mp", "pb")


class SectionState(enum.Enum):
    """What a section is. The values are words of the command's JSON."""

    SEALED = "sealed"  # full, and its index is there, in its length
    TAIL = "tail"  # it can still grow, or is about to be sealed
    TORN = "torn"  # as the tail, with bytes behind its last record that are none
    UNINDEXED = "unindexed"  # full, and its index is missing or too short or long: rebuilt when it is needed
    INTERRUPTED = "interrupted"  # its creation was interrupted; nothing is in it
    LEFTOVER = "leftover"  # what a prune or a reset has not removed yet
    BEYOND = "beyond"  # behind a gap above the durable size: removed when the journal is opened
    MISSING = "missing"  # it has no data blob, and the journal needs one
    DAMAGED = "damaged"  # its header, or a durable record in it, does not check out
    FOREIGN = "foreign"  # its header is good, and is that of another journal, section or version

    @property
    def is_damage(self) -> bool:
        """Whether no crash explains it."""
        return self in _DAMAGE


_DAMAGE = frozenset({SectionState.MISSING, SectionState.DAMAGED, SectionState.FOREIGN})


@dataclass(frozen=True, slots=True)
class SectionView:
    """A section as its files show it.

    Attributes:
        section: Section number.
        through: The last section, where this stands for a run of sections that are missing; else the same.
        state: What it is.
        first: Position of its first record.
        stop: Position after its last one; of a full section by its place, of any other by counting.
        data_bytes: Length of its data blob; None if there is none.
        offsets_bytes: Length of its offsets blob; None if there is none.
        header: Header of the data blob, or why there is none; None if there is no blob, or it was not looked at.
        scan: Its records, where they were looked for: from the durable size on.
        reason: What is to be said about it, "" if nothing.
    """

    section: int
    through: int
    state: SectionState
    first: int
    stop: int
    data_bytes: int | None = None
    offsets_bytes: int | None = None
    header: Header | BadHeader | None = None
    scan: Scan | None = None
    reason: str = ""

    @property
    def items(self) -> int:
        """How many items it holds."""
        return self.stop - self.first

    @property
    def torn_bytes(self) -> int:
        """Bytes behind its last record that are none."""
        return 0 if self.scan is None or self.state is not SectionState.TORN else self.scan.length - self.scan.end


@dataclass(frozen=True, slots=True)
class Survey:
    """A journal as its files show it.

    Attributes:
        slot: The checkpoint; what the data says instead, with sequence number 0, where it is lost. None if there is
            nothing to make one of, as before the first item of a journal is synced.
        damaged_slots: Slots of the checkpoint that hold something else.
        boundary: The pruning boundary.
        durable: The durable size: what the checkpoint vouches for.
        size: Position after the last item that can be read; what is above the durable size was made durable by this
            look at it.
        sections: The sections, ascending.
        checkpoint_bytes: Length of the checkpoint.
        synced_ns: When the checkpoint was written last, in nanoseconds since 1970; None if it is missing.
        problem: What opening the journal would raise, where that can be seen without reading sealed sections; or None.
        strangers: Names of blobs that are no section, with their partition.
        has_heads: Whether the headers of sealed sections were read.
    """

    slot: Slot | None
    damaged_slots: int
    boundary: int
    durable: int
    size: int
    sections: tuple[SectionView, ...]
    checkpoint_bytes: int
    synced_ns: int | None
    problem: JournalError | None
    strangers: tuple[str, ...]
    has_heads: bool

    @property
    def is_damaged(self) -> bool:
        """Whether something is wrong that no crash explains."""
        lost = self.slot is not None and not self.slot.sequence
        return bool(lost or self.problem or self.strangers or any(section.state.is_damage for section in self.sections))


def codec_expected(recorded: str, found: str) -> str:
    """Return the name that a section's header has to have, where `found` is the one that it has.

    It is the one that the checkpoint records, or that of an older version of the same typed codec, such as "mp/1". A
    codec of somebody's own may have taken over from any other: which, only its code can say.
    """
    encoding, slash, version = found.partition("/")
    same_encoding, _, newest = recorded.partition("/")
    is_ours = recorded in _PLAIN or (same_encoding in _TYPED and newest.isdecimal())
    if not is_ours:
        return found
    is_version = slash and encoding == same_encoding and version.isdecimal() and newest.isdecimal()
    return found if is_version and int(version) < int(newest) else recorded
