"""What a journal may hold after its process was killed, from what the process said (`tests.system.killer`)."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tests.system.killer import item_of

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["History", "Promised", "Stretch"]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive items of one process, of which item `number` is at `start`."""

    start: int
    run: int
    number: int


@dataclass(frozen=True, slots=True)
class History:
    """Items by position, and how far they have to be there.

    Attributes:
        boundary: The pruning boundary.
        durable: The size must be this at least.
        most: The size may be this at most; None where nobody knows.
        stretches: What each position holds: it is in the last stretch that starts at or before it.
    """

    boundary: int = 0
    durable: int = 0
    most: int | None = 0
    stretches: tuple[Stretch, ...] = ()

    def stretch_of(self, position: int) -> Stretch | None:
        """Return the stretch of a position; None if no item was ever appended there."""
        place = bisect_right(self.stretches, position, key=lambda stretch: stretch.start)
        return self.stretches[place - 1] if place else None

    def continued(self, size: int, run: int, number: int) -> History:
        """Return the history in which item `number` of a process comes at `size`, in place of what was there."""
        before = tuple(stretch for stretch in self.stretches if stretch.start < size)
        return replace(self, most=None, stretches=(*before, Stretch(size, run, number)))

    def objection(self, boundary: int, items: list[tuple[int, bytes]]) -> str | None:
        """Return why this is not what is found; None if it may be."""
        size = boundary + len(items)
        if boundary != self.boundary:
            return f"expected the boundary {self.boundary}, found {boundary}"
        if size < self.durable:
            return f"expected at least {self.durable} items, found {size}"
        if self.most is not None and size > self.most:
            return f"expected at most {self.most} items, found {size}"
        for expected, (position, item) in enumerate(items, boundary):
            stretch = self.stretch_of(position)
            if position != expected or stretch is None:
                return f"expected position {expected}, found {position}, of {stretch}"
            number = stretch.number + position - stretch.start
            if item != item_of(stretch.run, number):
                return f"expected item {number} of process {stretch.run} at {position}, found {item[:40]!r}"
        return None


class Promised:
    """Hears what process after process says, and says what may be found when it is killed.

    Attributes:
        now: The history if nothing is under way.
        acknowledged: How many items were acknowledged as durable.
        begun: The call of the first task that has not returned; None if there is none.
    """

    def __init__(self, items_per_section: int) -> None:
        self._items_per_section = items_per_section
        self._run = -1
        # All stretches of this process, also those that were cut, ascending in their numbers.
        self._called: list[Stretch] = []
        self.now = History()
        self.acknowledged = 0
        self.begun: str | None = None
        # The history when that call has taken effect, and if it has not, or not yet as a whole.
        self._after: Callable[[], History] = History
        self._before: Callable[[], History] = History
        self._next = 0
        self._must_be_clean = False

    def begin(self, run: int) -> None:
        """Say that a process begins."""
        self._run = run
        self._called = []

    def hear(self, line: str) -> None:  # noqa: C901, PLR0912 - a case for each word
        """Take in a line."""
        word, *numbers = line.split(" ")
        match word, [int(number) for number in numbers]:
            case "open", [boundary, size, is_clean, number]:
                if self.begun == "reset?":
                    self._take_effect()
                assert (boundary, size) == (self.now.boundary, self.now.durable)
                assert is_clean or not self._must_be_clean
                self._must_be_clean = False
                self._go_on(size, number)
            case "item", [position, number]:
                if self.begun == "rewind?" and number >= self._next:
                    self._take_effect()  # nothing is appended after a rewind that has not taken effect
                self._acknowledge(position, number)
            case "rewind?", [size, number]:
                self._rewind(size, number)
            case "prune?", [position, number]:
                self._prune(position, number)
            case "reset?", [size]:
                self._begin(word, lambda: History(size, size, size))
            case "close?", [number]:
                size = self._place_of(number)
                self._begin(word, lambda: replace(self.now, durable=size, most=size))
            case "closed", []:
                self._take_effect()
                self._must_be_clean = True
            case "rewind", []:
                if self.begun is not None:
                    self._take_effect()
            case "prune", [was_removed]:
                assert was_removed == (self._after().boundary > self.now.boundary)
                self._take_effect()
            case _:
                raise AssertionError(line)

    def check(self, boundary: int, items: list[tuple[int, bytes]]) -> None:
        """Look that what is found is what a kill may leave now, and go on from that."""
        allowed = [self.now] if self.begun is None else [self._before(), self._after()]
        objections = [history.objection(boundary, items) for history in allowed]
        assert None in objections, objections
        size = boundary + len(items)
        found = allowed[objections.index(None)]
        stretches = tuple(stretch for stretch in found.stretches if stretch.start < size)
        self.now = History(boundary, size, size, stretches)
        self.begun = None
        self._must_be_clean = False

    def _begin(self, word: str, after: Callable[[], History], before: Callable[[], History] | None = None) -> None:
        self.begun = word
        self._after = after
        self._before = before or (lambda: self.now)

    def _take_effect(self) -> None:
        assert self.begun is not None
        is_rewind = self.begun == "rewind?"
        self.now = self._after()
        self.begun = None
        if is_rewind:
            self._called.append(self.now.stretches[-1])

    def _go_on(self, size: int, number: int) -> None:
        self.now = self.now.continued(size, self._run, number)
        self._called.append(self.now.stretches[-1])

    def _place_of(self, number: int) -> int:
        """Return the position that an item of this process got, whether it was discarded since or not."""
        stretch = self._called[bisect_right(self._called, number, key=lambda stretch: stretch.number) - 1]
        return stretch.start + number - stretch.number

    def _acknowledge(self, position: int, number: int) -> None:
        assert position == self._place_of(number)
        self.acknowledged += 1
        stretch = self.now.stretch_of(position)
        assert stretch is not None
        if (stretch.run, stretch.number + position - stretch.start) == (self._run, number):
            self.now = replace(self.now, durable=max(self.now.durable, position + 1))
        else:  # it was durable, and a rewind has discarded it since
            assert number < self._called[-1].number

    def _rewind(self, size: int, number: int) -> None:
        self._next = number
        does_nothing = size == self._place_of(number)  # and so makes nothing durable either

        def after() -> History:
            durable = self.now.durable if does_nothing else size
            return replace(self.now.continued(size, self._run, number), durable=durable)

        self._begin("rewind?", after, lambda: replace(self.now, durable=min(self.now.durable, size)))

    def _prune(self, position: int, number: int) -> None:
        boundary = position // self._items_per_section * self._items_per_section
        size = self._place_of(number)

        def after() -> History:
            if boundary <= self.now.boundary:
                return self.now
            return replace(self.now, boundary=boundary, durable=max(self.now.durable, size))

        self._begin("prune?", after)
