"""What is to be reached, and whether it was."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from benchmarks.cases import MODELLED_MICROSECONDS, disk_name
from benchmarks.results import Spread
from benchmarks.ways import HOPPING, NOT_BLOCKING, ONE_BY_ONE, OWN, PEERS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.results import Results


class Verdict(Enum):
    """Whether a target was reached: the median decides."""

    MET = "met"
    MISSED = "missed"
    NOT_MEASURED = "not measured"


class Sense(Enum):
    """On which side of the limit it has to be."""

    AT_LEAST = "at least"
    AT_MOST = "at most"


@dataclass(frozen=True, slots=True)
class Target:
    """One thing to reach.

    Attributes:
        workload: W1 to W11.
        text: What is to be reached, for people.
        sense: On which side of the limit.
        limit: The limit.
        unit: Of the limit and of what is measured: "x" for a ratio of rates.
        measured: Finds one value for each repetition.
    """

    workload: str
    text: str
    sense: Sense
    limit: float
    unit: str
    measured: Callable[[Results], list[float]]

    def spread(self, results: Results) -> Spread | None:
        """Return what was measured."""
        return Spread.of(self.measured(results))

    def verdict(self, results: Results) -> Verdict:
        """Return whether it was reached."""
        spread = self.spread(results)
        if spread is None:
            return Verdict.NOT_MEASURED
        is_met = spread.median >= self.limit if self.sense is Sense.AT_LEAST else spread.median <= self.limit
        return Verdict.MET if is_met else Verdict.MISSED


DISK = disk_name(MODELLED_MICROSECONDS[0])
ONE_TASK = f"W3 {DISK}"
TASKS_64 = f"W4 64 {DISK}"
TASKS_512 = f"W4 512 {DISK}"


def grouped(case: str) -> str:
    """Return the name of the case in which others have the help of a hand-written group commit."""
    return f"{case} grouped"


def _faster(limit: float, case: str, than: str, others: Sequence[str], *, in_cases: Sequence[str] = ()) -> Target:
    """Return a target for the ratio of the library's rate to the best of the others."""
    return Target(
        case.split(maxsplit=1)[0],
        f"the rate of {than}",
        Sense.AT_LEAST,
        limit,
        "x",
        lambda results: results.ratios(case, others, in_cases=in_cases),
    )


def _own(case: str, figure: str) -> Callable[[Results], list[float]]:
    return lambda results: list(results.values(case, OWN, figure).values())


def _largest_of(cases: Sequence[str], figure: str) -> Callable[[Results], list[float]]:
    """The largest value in any of the cases, for each repetition that has all of them."""

    def measured(results: Results) -> list[float]:
        series = [results.values(case, OWN, figure) for case in cases]
        repetitions = set.intersection(*(set(values) for values in series))
        return [max(values[repetition] for values in series) for repetition in sorted(repetitions)]

    return measured


def _openings(results: Results) -> list[dict[int, float]]:
    """Milliseconds of W8, from the smallest journal to the largest."""
    cases = sorted((case for case in results.titles if case.startswith("W8 ")), key=lambda case: int(case.split()[1]))
    series = [results.values(case, OWN, "open_and_read_ms") for case in cases]
    return [values for values in series if values]


def _slowest_opening(results: Results) -> list[float]:
    series = _openings(results)
    return (
        [max(values[repetition] for values in series if repetition in values) for repetition in series[0]]
        if series
        else []
    )


def _largest_to_smallest(results: Results) -> list[float]:
    series = _openings(results)
    if len(series) < 2:
        return []
    return [series[-1][repetition] / series[0][repetition] for repetition in series[0] if repetition in series[-1]]


def _explained_by_the_codec(results: Results) -> list[float]:
    """What bytes and the codec alone take, over what dicts take: the least of the workloads, for each repetition."""
    shares: dict[int, list[float]] = {}
    for case in ("W1", "W2", "W5", "W7"):
        plain = results.values(case, OWN, "us")
        dicts = results.values(f"W11 {case}", OWN, "us")
        codec = results.values(f"W11 {case}", OWN, "codec_us")
        for repetition in plain.keys() & dicts.keys() & codec.keys():
            share = (plain[repetition] + codec[repetition]) / dicts[repetition]
            shares.setdefault(repetition, []).append(share)
    return [min(values) for _, values in sorted(shares.items())]


BESIDE = ("W10 W1", "W10 W4", "W10 W7")

TARGETS = (
    _faster(50, "W1", "the best peer that hops to a thread for each call", HOPPING),
    _faster(2, "W1", "durastream", ("durastream",)),
    _faster(1.2, "W1", "LMDB in the loop", ("lmdb-loop",)),
    _faster(2, "W1", "the raw file in the loop", ("raw-loop",)),
    _faster(0.7, "W2", "the raw file in the loop", ("raw-loop",)),
    _faster(4.5, "W2", "aiosqlite", ("aiosqlite",)),
    _faster(0.95, "W2", "LMDB, in the loop or in a thread", ("lmdb-loop", "lmdb-thread")),
    _faster(0.95, ONE_TASK, "apsw", ("apsw",)),
    _faster(0.75, ONE_TASK, "the raw file in the loop", ("raw-loop",)),
    Target("W3", "one sync for each commit", Sense.AT_MOST, 1.02, "syncs", _own(ONE_TASK, "syncs_per_item")),
    _faster(25, TASKS_64, "the best peer that commits one by one, 64 tasks", ONE_BY_ONE),
    _faster(50, TASKS_512, "the best peer that commits one by one, 512 tasks", ONE_BY_ONE),
    _faster(2.5, TASKS_64, "aiosqlite as shipped, 64 tasks", ("aiosqlite",)),
    _faster(4, TASKS_512, "aiosqlite as shipped, 512 tasks", ("aiosqlite",)),
    _faster(0.9, TASKS_64, "the best hand-written group commit, 64 tasks", HOPPING, in_cases=(grouped(TASKS_64),)),
    _faster(0.9, TASKS_512, "the best hand-written group commit, 512 tasks", HOPPING, in_cases=(grouped(TASKS_512),)),
    _faster(12, "W5", "the best peer that does not block the loop", NOT_BLOCKING),
    _faster(0.6, "W5", "the raw file in the loop", ("raw-loop",)),
    _faster(3, "W6", "the best peer that does not block the loop", NOT_BLOCKING),
    _faster(4, "W6 read_many", "256 concurrent reads, by read_many of 256", (OWN,), in_cases=("W6",)),
    _faster(1.7, "W7", "aiosqlite", ("aiosqlite",)),
    _faster(0.7, "W7", "the raw file, read and parsed in the loop", ("raw-loop",)),
    Target(
        "W7", "memory above the baseline", Sense.AT_MOST, 16, "MiB", _largest_of(("W7", "W7 batches"), "memory_mib")
    ),
    Target("W8", "open and read the last, the slowest size", Sense.AT_MOST, 50, "ms", _slowest_opening),
    Target("W8", "the largest journal over the smallest", Sense.AT_MOST, 2, "x", _largest_to_smallest),
    Target("W9", "prune half", Sense.AT_MOST, 50, "ms", _own("W9", "prune_ms")),
    Target("W9", "space that is back at once", Sense.AT_LEAST, 49, "%", _own("W9", "returned_percent")),
    Target("W10", "p99, the worst of three", Sense.AT_MOST, 3, "ms", _largest_of(BESIDE, "late_p99_ms")),
    Target("W10", "the latest tick of all", Sense.AT_MOST, 10, "ms", _largest_of(BESIDE, "late_max_ms")),
    Target("W11", "bytes and the codec, over dicts", Sense.AT_LEAST, 0.9, "x", _explained_by_the_codec),
)


@dataclass(frozen=True, slots=True)
class Compared:
    """A workload for the chart: where the library's rate is taken from, and who else could be best.

    Attributes:
        case: Where the library's rate is taken from.
        title: For people.
        in_cases: Cases in which the others are looked for.
    """

    case: str
    title: str
    in_cases: tuple[str, ...]


COMPARED = (
    Compared("W1", "W1  append", ("W1",)),
    Compared("W2", "W2  append_many of 1,000", ("W2",)),
    Compared(ONE_TASK, "W3  append + sync_data, 1 task", (ONE_TASK,)),
    Compared(TASKS_64, "W4  append + sync_data, 64 tasks", (TASKS_64, grouped(TASKS_64))),
    Compared(TASKS_512, "W4  append + sync_data, 512 tasks", (TASKS_512, grouped(TASKS_512))),
    Compared("W5", "W5  read, one after the other", ("W5",)),
    Compared("W6", "W6  256 concurrent reads", ("W6",)),
    Compared("W7", "W7  replay", ("W7",)),
)


def best_peer(results: Results, compared: Compared) -> tuple[str, str] | None:
    """Return the case and the name of the quickest peer that leaves the loop free; None if none was measured."""
    return results.best(compared.in_cases, [name for name in PEERS if name in NOT_BLOCKING])
