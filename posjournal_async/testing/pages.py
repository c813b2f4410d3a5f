"""A file of which not everything is durable, and what a crash may make of it."""

from __future__ import annotations

import enum
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

__all__ = ["Change", "File", "Luck"]

# Bytes that a device writes in one go, from the first to the last: no byte is there without those before it.
SECTOR = 512


class Luck(enum.Enum):
    """What becomes of what is not durable."""

    NONE = "all of it is lost"
    ALL = "all of it is there"
    SOME = "chance decides about each piece"


@dataclass(frozen=True, slots=True)
class Change:
    """A write of `data` at `at`, or with None a resize to `at`, in bytes."""

    at: int
    data: bytes | None = None

    def apply(self, content: bytearray) -> None:
        """Make the change."""
        content.extend(bytes(max(0, self.at - len(content))))
        if self.data is None:
            del content[self.at :]
        else:
            content[self.at : self.at + len(self.data)] = self.data

    def made_of(self, content: bytes) -> bytes:
        """Return what the change makes of a content."""
        made = bytearray(content)
        self.apply(made)
        return bytes(made)

    def added(self, content: bytes) -> int:
        """Return by how many bytes a write makes a content longer: it has an outcome for each of them, at least."""
        return 0 if self.data is None else self.at + len(self.data) - max(self.at, len(content))

    def outcomes(self, content: bytes) -> Iterator[bytes]:
        """Yield each content that a power cut may leave where the change was made to `content`, some of them twice.

        A resize is made or lost. Of a write there may be all, nothing, the bytes before any one of them, or all but
        some sectors, whichever. Where the blob grew, what is not there is zeros or the end of the blob; in place it is
        what was there before. So there are two to the power of the sectors that the write changes: ask for no more of
        them than are wanted.
        """
        yield content
        made = bytearray(content)
        self.apply(made)
        yield bytes(made)
        if self.data is None:
            return
        length, end = len(self.data), self.at + len(self.data)
        yield bytes(_grown(bytearray(content), end))
        for keep in range(1, length):
            place = self.at + keep - 1
            if place < len(content) and content[place] == self.data[keep - 1]:
                continue  # as with a byte less
            torn = bytearray(content)
            Change(self.at, self.data[:keep]).apply(torn)
            yield bytes(torn)
            yield bytes(_grown(torn, end))
        # Only those that differ: the others would yield the same over and over.
        sectors = self._sectors()
        changed = [(start, stop) for start, stop in sectors if _before(content, start, stop) != bytes(made[start:stop])]
        for is_lost in itertools.product((False, True), repeat=len(changed)):
            left = made[:]
            for start, stop in itertools.compress(changed, is_lost):
                left[start:stop] = _before(content, start, stop)
            yield bytes(left)

    def apply_by_chance(self, content: bytearray, rng: Random) -> None:
        """Make one of the outcomes."""
        fate = rng.randrange(8)
        if fate < 2:
            self.apply(content)
            return
        if fate == 2 or self.data is None:
            return
        if fate < 5:
            self.torn(rng).apply(content)
        if fate in {4, 5}:
            _grown(content, self.at + len(self.data))
        if fate > 5:
            sectors = self._sectors()
            if fate == 6:  # in a row: of many sectors, chance alone hardly ever loses but one, or keeps but one
                first, end = sorted(rng.sample(range(len(sectors) + 1), 2))
                lost = sectors[first:end]
            else:
                lost = [sector for sector in sectors if rng.random() < 0.5]
            before = bytes(content)
            self.apply(content)
            for start, stop in lost:
                content[start:stop] = _before(before, start, stop)

    def _sectors(self) -> list[tuple[int, int]]:
        """Return from where to where the write is to each sector."""
        assert self.data is not None
        end = self.at + len(self.data)
        edges = [self.at, *range(self.at + SECTOR - self.at % SECTOR, end, SECTOR), end]
        return list(itertools.pairwise(edges))

    def torn(self, rng: Random) -> Change:
        """Return a beginning of it."""
        if not self.data:
            return self
        # Any byte, and often one where the bytes mean something: a slot of the checkpoint is mostly padding.
        length = len(self.data)
        keep = rng.choice((1, 8, rng.randint(1, min(length, 80)), rng.randint(1, length), length - 1, length))
        return Change(self.at, self.data[:keep])


def _before(content: bytes, start: int, stop: int) -> bytes:
    """Return the bytes from `start` to `stop`, or zeros where there are none."""
    return content[start:stop].ljust(stop - start, b"\0")


def _grown(content: bytearray, length: int) -> bytearray:
    content.extend(bytes(max(0, length - len(content))))
    return content


@dataclass(slots=True, eq=False)
class File:
    """What a blob holds. Contents are never changed but replaced, so that any number of copies share their bytes.

    Attributes:
        durable: What is on the device for certain.
        visible: What a read gives.
        pending: What was done since the last sync, in order.
        settled: How many changes were settled before those.
        under_way: The change that is being made: pending already, and not visible yet.
    """

    durable: bytes = b""
    visible: bytes = b""
    pending: list[Change] = field(default_factory=list[Change])
    settled: int = 0
    under_way: Change | None = None

    @classmethod
    def holding(cls, content: bytes) -> File:
        """Return a file that holds this, durably."""
        return cls(content, content)

    def copy(self) -> File:
        """Return a file that does not change with this one."""
        return File(self.durable, self.visible, self.pending[:], self.settled, self.under_way)

    def settle(self, count: int) -> None:
        """Make the first changes that are pending durable, up to the `count`-th since the file is there."""
        while self.settled < count:
            self.durable = self.pending.pop(0).made_of(self.durable)
            self.settled += 1

    def outcomes(self, limit: int) -> list[bytes] | None:
        """Return each content that a power cut may leave, once; None if there are more than `limit`."""
        found = [self.durable]
        for change in self.pending:
            if change.added(found[0]) > limit:
                return None  # without making so many copies of what may be large
            made: dict[bytes, None] = {}
            for content in found:
                for outcome in change.outcomes(content):
                    made[outcome] = None
                    if len(made) > limit:
                        return None
            found = list(made)
        return found

    def after_power_cut(self, rng: Random, luck: Luck) -> File:
        """Return one of the outcomes of a power cut."""
        content = bytearray(self.durable)
        for change in self.pending:
            if luck is Luck.SOME:
                change.apply_by_chance(content, rng)
            elif luck is Luck.ALL:
                change.apply(content)
        return File.holding(bytes(content))

    def after_kill(self, rng: Random) -> File:
        """Return what is left when the process is killed: a change under way is made, half made or not made."""
        copy = self.copy()
        if copy.under_way is not None:
            # That one, not another one that is equal.
            copy.pending = [change for change in copy.pending if change is not copy.under_way]
            left = copy.under_way.torn(rng) if rng.random() < 0.7 else None
            if left is not None:
                copy.visible = left.made_of(copy.visible)
                copy.pending.append(left)
            copy.under_way = None
        return copy
