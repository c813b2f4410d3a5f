"""A small made-up run, in which every number is easy to follow."""

from __future__ import annotations

from benchmarks.cases import FULL, cases_of
from benchmarks.results import Results, Row, Run
from benchmarks.ways import OWN

RUN = Run(
    command="python3 run.py bench --made-up",
    started="2026-01-01 00:00 UTC",
    python="CPython 3.11.0",
    machine="2 cores of nothing, 1 GiB",
    kernel="Linux 0",
    file_system="ext4",
    load=0.0,
    versions={"SQLite of Python": "3.0", "aiosqlite": "0.1"},
)

# What would fulfil every target: the library is that many times as quick as all others.
FIGURES = {
    "syncs_per_item": 1.0,
    "memory_mib": 3.0,
    "codec_us": 0.3,
    "open_and_read_ms": 4.0,
    "prune_ms": 5.0,
    "returned_percent": 50.0,
    "late_p99_ms": 1.0,
    "late_max_ms": 2.0,
}


def made_up(*, times: float = 100.0, repetitions: int = 3) -> Results:
    """A run in which the library is `times` as quick as all others, and the n-th repetition is 1/n as quick for all."""
    results = Results(RUN, {case.name: case.title for case in cases_of(FULL)})
    for repetition in range(repetitions):
        for case in cases_of(FULL):
            for way in case.ways:
                rate = 1_000 * (times if way == OWN else 1)
                if case.name == "W6 read_many":
                    rate *= 4
                results.rows.append(
                    Row(
                        case=case.name,
                        way=way,
                        repetition=repetition,
                        items=1_000,
                        seconds=1_000 / rate * (repetition + 1),
                        cpu_seconds=0.001,
                        figures=FIGURES,
                    )
                )
    return results


def without(results: Results, *ways: str, reason: str = "is not there") -> Results:
    """The same run, in which some are missing."""
    rows = [
        Row(case=row.case, way=row.way, repetition=row.repetition, missing=reason) if row.way in ways else row
        for row in results.rows
    ]
    return Results(results.run, results.titles, rows)
