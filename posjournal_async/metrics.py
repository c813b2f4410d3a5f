"""What a journal counts, and where the counts go: sinks, and the protocols between them and journals.

A journal tells its sink when it has done something of weight: a commit, a repair, a wait that is over. What can be read
off it at any time, such as its size and how many items were appended, it does not tell: a sink that wants to know asks
(`Watches`), so that appends, reads from memory and replays cost the same with a sink as without one.

`CATALOGUE` lists everything; `docs/metrics.md` explains it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, TypeAlias, runtime_checkable

__all__ = [
    "CATALOGUE",
    "Counters",
    "Kind",
    "Metric",
    "Metrics",
    "NoMetrics",
    "Sample",
    "Source",
    "Sources",
    "Traces",
    "Watches",
]

# From a fast device with a power-safe cache to one that hangs.
_SECONDS = (5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_ITEMS = (1.0, 4.0, 16.0, 64.0, 256.0, 1_024.0, 4_096.0, 16_384.0, 65_536.0)
_CALLERS = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0)


class Kind(Enum):
    """What the values of a metric mean.

    Attributes:
        COUNTER: They are added up, and the sum never goes down.
        GAUGE: The last one counts, and there is none when the journal is closed.
        DISTRIBUTION: Each counts by itself.
    """

    COUNTER = "counter"
    GAUGE = "gauge"
    DISTRIBUTION = "distribution"


@dataclass(frozen=True, slots=True)
class Metric:
    """One thing that is counted.

    Attributes:
        name: How journals and sinks call it.
        kind: What its values mean.
        unit: What one of it is.
        says: What it tells a person.
        is_sampled: Whether it is read off the journal (`Watches`); else the journal tells it (`Metrics`).
        bounds: Upper bounds of the buckets that fit a distribution, inclusive, ascending.
    """

    name: str
    kind: Kind
    unit: str
    says: str
    is_sampled: bool = False
    bounds: tuple[float, ...] = ()


CATALOGUE = (
    Metric("size", Kind.GAUGE, "items", "position that the next append gets", is_sampled=True),
    Metric("boundary", Kind.GAUGE, "items", "pruning boundary: no position below it exists", is_sampled=True),
    Metric("retained_items", Kind.GAUGE, "items", "items that can be read", is_sampled=True),
    Metric("durable_size", Kind.GAUGE, "items", "every position below it survives any crash", is_sampled=True),
    Metric("tail_items", Kind.GAUGE, "items", "items of the section that appends go into", is_sampled=True),
    Metric("waiting_bytes", Kind.GAUGE, "bytes", "bytes of records not given to the storage yet", is_sampled=True),
    Metric("open_blobs", Kind.GAUGE, "blobs", "blobs open: each a file, where the storage has files", is_sampled=True),
    Metric("failed", Kind.GAUGE, "journals", "1 when it has failed and has to be opened again", is_sampled=True),
    Metric("items_appended", Kind.COUNTER, "items", "items that got a position", is_sampled=True),
    Metric("reads", Kind.COUNTER, "items", "positions looked up by read and read_many", is_sampled=True),
    Metric("replays", Kind.COUNTER, "calls", "calls of replay and replay_batches", is_sampled=True),
    Metric("items_replayed", Kind.COUNTER, "items", "items read for replays, a piece at a time", is_sampled=True),
    Metric("items_committed", Kind.COUNTER, "items", "items that a commit made durable"),
    Metric("bytes_written", Kind.COUNTER, "bytes", "bytes of records given to the storage"),
    Metric("commits", Kind.COUNTER, "commits", "fsyncs of the data"),
    Metric("sections_sealed", Kind.COUNTER, "sections", "sections that were full, and were synced"),
    Metric("sections_pruned", Kind.COUNTER, "sections", "sections that a prune removed"),
    Metric("items_rewound", Kind.COUNTER, "items", "items that a rewind discarded"),
    Metric("recoveries", Kind.COUNTER, "opens", "opens that had to repair something"),
    Metric("failures", Kind.COUNTER, "journals", "journals that failed"),
    Metric("commit_seconds", Kind.DISTRIBUTION, "seconds", "one commit: write and fsync of the data", bounds=_SECONDS),
    Metric("commit_items", Kind.DISTRIBUTION, "items", "items that one commit made durable", bounds=_ITEMS),
    Metric("commit_waiters", Kind.DISTRIBUTION, "callers", "sync_data calls that one commit let go", bounds=_CALLERS),
    Metric("sync_data_seconds", Kind.DISTRIBUTION, "seconds", "a call of sync_data that had to wait", bounds=_SECONDS),
    Metric("sync_seconds", Kind.DISTRIBUTION, "seconds", "a call of sync that had to wait", bounds=_SECONDS),
    Metric(
        "read_wait_seconds", Kind.DISTRIBUTION, "seconds", "a read that had to wait for the storage", bounds=_SECONDS
    ),
)


class Metrics(Protocol):
    """A sink for what journals count. It may be a `Watches` and a `Traces` too.

    Called on the event loop, so it must return at once. What it raises is logged once, and the journal asks nothing of
    it any more: a broken sink does not stop a journal. Only what is no `Exception` goes on to where it struck, as
    anywhere: a `KeyboardInterrupt` in a commit makes the journal fail.
    """

    def count(self, name: str, amount: int, label: str) -> None:
        """Add `amount` to a counter. `label` is that of the journal's `Context`; its partition where that is empty."""
        ...

    def observe(self, name: str, value: float, label: str) -> None:
        """Add one value to a distribution."""
        ...


@dataclass(frozen=True, slots=True)
class Sample:
    """What is read off a journal at one time.

    Attributes:
        gauges: Values by name.
        totals: Counters by name, since the journal was opened.
    """

    gauges: dict[str, float] = field(default_factory=dict[str, float])
    totals: dict[str, int] = field(default_factory=dict[str, int])


# Says how a journal is; None when there is no such journal any more. It only looks at attributes, and may be called in
# any thread: a number may then be one that is just being changed.
Source: TypeAlias = Callable[[], Sample | None]


@runtime_checkable
class Watches(Protocol):
    """A sink that asks journals how they are, when it wants to know."""

    def watch(self, label: str, source: Source) -> None:
        """Note a journal that was opened."""
        ...

    def unwatch(self, source: Source) -> None:
        """Forget a journal that is being closed. The source still answers, for the last time."""
        ...


@runtime_checkable
class Traces(Protocol):
    """A sink that is told when a call begins and ends: of init, sync, prune and such, never of append or read."""

    def begin_span(self, name: str, label: str) -> Callable[[BaseException | None], None]:
        """Note that a call begins, in the context of its caller; return what is to be called when it ends.

        That is called once, with the error that ended the call or None, in whatever context.
        """
        ...


class NoMetrics:
    """A sink that drops everything: the default."""

    def count(self, name: str, amount: int, label: str) -> None:
        """Do nothing."""

    def observe(self, name: str, value: float, label: str) -> None:
        """Do nothing."""


class Sources:
    """The journals that a sink may ask: half of a sink (`Watches`). Other threads may call `samples` at any time.

    Journals with the same label are added up. What a journal counted stays when it is closed, and its gauges go.
    """

    # There is no lock: an interruption in the wrong place would leave it locked, and the event loop waiting for it. So
    # what moves from one journal to what the closed ones have counted is missed for a moment, and never seen twice; and
    # no total is shown that is less than one before.

    def __init__(self) -> None:
        self._live: dict[Source, _Watched] = {}
        self._in_turn: deque[Source] = deque()  # those that are live, and some that were
        self._ended: dict[str, dict[str, int]] = {}
        self._shown: dict[tuple[str, str], int] = {}

    def watch(self, label: str, source: Source) -> None:
        """Ask this journal too, from now on."""
        # Two of the others are looked at, and not all: however many there are, opening one more costs the same.
        for _ in range(min(len(self._in_turn), 2)):
            known = self._in_turn.popleft()
            if known() is None:  # collected, and never closed
                self.unwatch(known)
            if known in self._live:
                self._in_turn.append(known)
        self._live[source] = _Watched(label)
        self._in_turn.append(source)

    def unwatch(self, source: Source) -> None:
        """Ask this journal for the last time."""
        last = source()
        watched = self._live.pop(source, None)
        if watched is not None:
            ended = dict(self._ended.get(watched.label, {}))
            _add((last or watched.sample).totals, ended)
            self._ended[watched.label] = ended

    def samples(self) -> dict[str, Sample]:
        """Return how the journals are now, by label."""
        samples = {label: Sample(totals=dict(totals)) for label, totals in list(self._ended.items())}
        for source, watched in list(self._live.items()):
            sample = samples.setdefault(watched.label, Sample())
            if watched.look(source):
                _add(watched.sample.gauges, sample.gauges)
            _add(watched.sample.totals, sample.totals)
        for label, sample in samples.items():
            for name, total in sample.totals.items():
                shown = self._shown[label, name] = max(total, self._shown.get((label, name), 0))
                sample.totals[name] = shown
        return samples


@dataclass(slots=True)
class _Watched:
    """A journal that is asked, and its last answer."""

    label: str
    sample: Sample = field(default_factory=Sample)

    def look(self, source: Source) -> bool:
        """Ask it; say whether it is there."""
        sample = source()
        if sample is not None:
            self.sample = sample
        return sample is not None


def _add(amounts: dict[str, int] | dict[str, float], totals: dict[str, int] | dict[str, float]) -> None:
    for name, amount in amounts.items():
        totals[name] = totals.get(name, 0) + amount  # type: ignore[assignment]


class Counters(Sources):
    """A sink that adds up in memory: for tests, and for a service that has a status page of its own.

    What is read off the journals is in `samples()`.

    Attributes:
        totals: Sum of each counter, and for each distribution the sum of its values, by (label, name).

    Example:
        >>> from posjournal_async import Counters
        >>> counters = Counters()
        >>> counters.count("commits", 2, "orders")
        >>> counters.totals["orders", "commits"]
        2
    """

    def __init__(self) -> None:
        super().__init__()
        self.totals: dict[tuple[str, str], float] = {}

    def count(self, name: str, amount: int, label: str) -> None:
        """Add `amount` to the total."""
        self.totals[label, name] = self.totals.get((label, name), 0) + amount

    def observe(self, name: str, value: float, label: str) -> None:
        """Add `value` to the total."""
        self.totals[label, name] = self.totals.get((label, name), 0) + value
