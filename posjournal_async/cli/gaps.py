"""Items that cannot be shown: one message for each run of them, on standard error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from posjournal_async.errors import ItemOutOfRange, ItemPruned

if TYPE_CHECKING:
    from posjournal_async.cli.console import Output
    from posjournal_async.errors import JournalError

__all__ = ["Gaps", "positions_in_words", "reason_in_words"]


class Gaps:
    """Says of positions that follow each other why they are not shown, when the run of them is over.

    Attributes:
        count: Positions that were not shown.
    """

    def __init__(self, output: Output) -> None:
        self.count = 0
        self._output = output
        self._start = 0
        self._stop = 0
        self._error: JournalError | None = None

    def add(self, start: int, stop: int, error: JournalError) -> None:
        """Take positions from `start` to `stop`, which is not included, that are not shown."""
        self.count += stop - start
        if self._error is not None and start == self._stop and type(error) is type(self._error):
            self._stop = stop
            return
        self.end()
        self._start, self._stop, self._error = start, stop, error

    def end(self) -> None:
        """Say what is to be said: an item is shown next, or there is none any more."""
        if self._error is None:
            return
        self._output.note(f"{positions_in_words(self._start, self._stop)}: {reason_in_words(self._error)}")
        self._error = None


def positions_in_words(start: int, stop: int) -> str:
    """Return positions from `start` to `stop`, which is not included, for people."""
    return f"position {start}" if stop - start == 1 else f"positions {start} to {stop - 1}"


def reason_in_words(error: JournalError) -> str:
    """Return why a position is not shown, for people."""
    if isinstance(error, ItemPruned):
        return f"pruned, the pruning boundary is {error.oldest}"
    if isinstance(error, ItemOutOfRange):
        return f"not there, the size is {error.size}"
    return str(error)
