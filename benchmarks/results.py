"""What was measured, as it is kept in results.json, and the ratios between it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.ways import OWN

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measurement.

    Attributes:
        case: Name of the case.
        way: Who.
        repetition: In which round, from 0.
        items: Items that it went through.
        seconds: Time that it took.
        cpu_seconds: CPU time of all threads of the process.
        figures: What else was noted, by name.
        missing: Why there is no measurement; "" if there is one.
    """

    case: str
    way: str
    repetition: int
    items: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    figures: dict[str, float] = field(default_factory=dict)
    missing: str = ""

    def value(self, figure: str) -> float | None:
        """Return a figure: `rate` in items/s, `cpu_us` of an item, `us` of an item, or one of `figures`."""
        if self.missing:
            return None
        if figure in self.figures:
            return self.figures[figure]
        if not self.items:
            return None
        computed = {
            "rate": self.items / self.seconds,
            "us": self.seconds / self.items * 1e6,
            "cpu_us": self.cpu_seconds / self.items * 1e6,
        }
        return computed.get(figure)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Where, when and how it was measured.

    Attributes:
        command: What was typed.
        started: Date and time, UTC.
        python: Implementation and version.
        machine: Processor, cores that the process may use, and memory.
        kernel: System and release.
        file_system: Type of the file system that had the data.
        load: Load average when it began: what others did.
        versions: Of the libraries.
        left_out: Ways that could not take part, and why.
    """

    command: str
    started: str
    python: str
    machine: str
    kernel: str
    file_system: str
    load: float
    versions: dict[str, str]
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Spread:
    """Values of several repetitions: the one in the middle, and how far the others are from it."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        """Return it, or None for no values."""
        found = list(values)
        return cls(median(found), min(found), max(found)) if found else None


class Results:
    """All measurements of a run, found by case and way.

    Attributes:
        run: Where, when and how.
        titles: Of the cases, by name, in the order in which they were measured.
        rows: The measurements.
    """

    def __init__(self, run: Run, titles: dict[str, str], rows: Sequence[Row] = ()) -> None:
        self.run = run
        self.titles = titles
        self.rows: list[Row] = list(rows)

    def to_json(self) -> str:
        """Return all of it as text."""
        content = {"run": asdict(self.run), "cases": self.titles, "rows": [asdict(row) for row in self.rows]}
        return json.dumps(content, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Results:
        """Return what `to_json` was given."""
        content = json.loads(text)
        return cls(Run(**content["run"]), content["cases"], [Row(**row) for row in content["rows"]])

    def values(self, case: str, way: str, figure: str = "rate") -> dict[int, float]:
        """Return a figure by repetition; where it was not measured there is nothing."""
        found = {}
        for row in self.rows:
            if row.case == case and row.way == way and (value := row.value(figure)) is not None:
                found[row.repetition] = value
        return found

    def ways(self, case: str) -> list[str]:
        """Return who was measured, or is missing, in a case."""
        return list(dict.fromkeys(row.way for row in self.rows if row.case == case))

    def why_missing(self, case: str, way: str) -> str:
        """Return why there is no measurement, "" if there is one."""
        reasons = [row.missing for row in self.rows if row.case == case and row.way == way]
        return reasons[0] if reasons and all(reasons) else ""

    def best(self, cases: Iterable[str], ways: Iterable[str]) -> tuple[str, str] | None:
        """Return the case and the way with the highest median rate; None if none was measured."""
        ways = list(ways)
        rates = {
            (case, way): spread.median
            for case in cases
            for way in ways
            if (spread := Spread.of(self.values(case, way).values()))
        }
        return max(rates, key=lambda pair: rates[pair]) if rates else None

    def ratios(self, case: str, others: Iterable[str], *, in_cases: Sequence[str] = ()) -> list[float]:
        """Return the library's rate over the highest rate of the others, for each repetition.

        Args:
            case: Where the library's rate is taken from.
            others: Ways to compare with.
            in_cases: Cases where theirs are taken from; the same case for none.
        """
        found = []
        series = [self.values(other_case, way) for other_case in in_cases or (case,) for way in others]
        for repetition, own in self.values(case, OWN).items():
            rates = [values[repetition] for values in series if repetition in values]
            if rates:
                found.append(own / max(rates))
        return found
