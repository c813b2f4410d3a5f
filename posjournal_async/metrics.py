"""What a journal counts, and where the counts go.

A journal reports when it has done something of weight, a commit or a repair, never for a single append or read: a sink
costs nothing on the hot path. The names:

| name | kind | unit | when |
|---|---|---|---|
| `items_committed` | count | items | a commit made them durable |
| `bytes_written` | count | bytes | the data journal handed them to the storage |
| `commits` | count | fsyncs of the data | one was done |
| `commit_waiters` | observe | callers | released by one commit |
| `sections_sealed` | count | sections | one was full and synced |
| `sections_pruned` | count | sections | a prune removed them |
| `items_rewound` | count | items | a rewind discarded them |
| `recoveries` | count | opens | an open had to repair something |
"""

from __future__ import annotations

from typing import Protocol

__all__ = ["Counters", "Metrics", "NoMetrics"]


class Metrics(Protocol):
    """A sink for what journals count.

    Called on the event loop, so it must return at once; what it raises makes the journal fail.
    """

    def count(self, name: str, amount: int, label: str) -> None:
        """Add `amount` to a counter. `label` is that of the journal's `Context`."""
        ...

    def observe(self, name: str, value: float, label: str) -> None:
        """Add one value to a distribution."""
        ...


class NoMetrics:
    """A sink that drops everything: the default."""

    def count(self, name: str, amount: int, label: str) -> None:
        """Do nothing."""

    def observe(self, name: str, value: float, label: str) -> None:
        """Do nothing."""


class Counters:
    """A sink that adds up in memory: for tests, and for a service that has a status page of its own.

    Attributes:
        totals: Sum of each counter, and for each distribution the sum of its values, by (label, name).

    Example:
        >>> counters = Counters()
        >>> counters.count("commits", 2, "orders")
        >>> counters.totals["orders", "commits"]
        2
    """

    def __init__(self) -> None:
        self.totals: dict[tuple[str, str], float] = {}

    def count(self, name: str, amount: int, label: str) -> None:
        """Add `amount` to the total."""
        self.totals[label, name] = self.totals.get((label, name), 0) + amount

    def observe(self, name: str, value: float, label: str) -> None:
        """Add `value` to the total."""
        self.totals[label, name] = self.totals.get((label, name), 0) + value
