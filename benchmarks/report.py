"""The report in Markdown: all that was measured, and the table of targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.results import Spread
from benchmarks.targets import TARGETS, Verdict
from benchmarks.ways import OWN, WAYS, Place
from benchmarks.wording import environment, number, spread, table

if TYPE_CHECKING:
    from benchmarks.results import Results, Run

# Figures that have a column of their own, where a case has them.
COLUMNS = {
    "p50_us": "p50 of one, µs",
    "p99_us": "p99 of one, µs",
    "syncs_per_item": "syncs per item",
    "last_sync_ms": "of which the sync, ms",
    "memory_mib": "memory, MiB",
    "codec_us": "codec alone, µs",
    "open_ms": "open, ms",
    "open_and_read_ms": "open and read, ms",
    "prune_ms": "prune, ms",
    "before_mib": "before, MiB",
    "pruned_mib": "pruned, MiB",
    "reclaim_ms": "reclaim, ms",
    "reclaimed_mib": "reclaimed, MiB",
    "late_p50_ms": "late p50, ms",
    "late_p99_ms": "late p99, ms",
    "late_max_ms": "late max, ms",
    "ticks_percent": "ticks that came, %",
}

# A rate says nothing where one thing is done once.
WITHOUT_RATE = frozenset({"W8", "W9"})

# What stands for the machine and the command in each row.
RUN = "A"

HOW_TO_READ = f"""\
Rates are items per second: the median of the repetitions, and the least and the most in brackets. The ratio is the rate
of {OWN} over the rate of the row, taken within each repetition; above 1, {OWN} is quicker. CPU is that of all threads
of the process. What a peer needs to be as durable, and what the numbers do not say, is in docs/performance.md.
"""


def report(results: Results) -> str:
    """Return all of it."""
    run = results.run
    parts = [
        "# What was measured\n",
        f"Made by `{run.command}`.\n",
        f"- **{RUN}**: {environment(run)}; `{run.command}`\n- libraries: {_versions(run)}\n",
        HOW_TO_READ,
    ]
    if run.left_out:
        parts.append("\n".join(f"- left out: {way}: {reason}" for way, reason in run.left_out.items()) + "\n")
    parts += ["## Targets\n", targets(results)]
    for case, title in results.titles.items():
        parts += [f"## {case}: {title}\n", _case(results, case)]
    return "\n".join(parts)


def targets(results: Results) -> str:
    """Return the table of what was to be reached, and what was."""
    rows = []
    for target in TARGETS:
        limit = f"{target.sense.value} {target.limit:g} {target.unit}".replace(" x", "x").replace(" %", "%")
        found = target.spread(results)
        measured = spread(found)
        verdict = target.verdict(results)
        shown = f"**{verdict.value}**" if verdict is Verdict.MISSED else verdict.value
        rows.append([target.workload, target.text, limit, measured, shown])
    return table(["", "target", "limit", "measured: median (least..most)", ""], rows)


def _case(results: Results, case: str) -> str:
    has_rate = case.split(maxsplit=1)[0] not in WITHOUT_RATE
    figures = [name for name in COLUMNS if any(name in row.figures for row in results.rows if row.case == case)]
    head = ["way", "blocks the loop"]
    if has_rate:
        head += ["items/s", "CPU, µs per item", f"{OWN} / this"]
    head += [*(COLUMNS[name] for name in figures), "made with", "run"]
    rows = []
    reasons = {}
    for way in results.ways(case):
        if reason := results.why_missing(case, way):
            reasons[way] = reason
            continue
        cells = [way, "yes" if WAYS[way].place is Place.LOOP else "no"]
        if has_rate:
            cells += _rates(results, case, way)
        for name in figures:
            found = Spread.of(results.values(case, way, name).values())
            cells.append(number(found.median) if found else "—")
        rows.append([*cells, _made_with(results.run, way), RUN])
    text = table(head, rows, numbers=range(2, len(head) - 2)) if rows else ""
    lines = [f"- not measured: {', '.join(ways)}: {reason}" for reason, ways in _by_reason(reasons).items()]
    return text + "".join(f"\n{line}\n" for line in lines)


def _rates(results: Results, case: str, way: str) -> list[str]:
    rate = Spread.of(results.values(case, way).values())
    cpu = Spread.of(results.values(case, way, "cpu_us").values())
    # The library has no help of its own, since it needs none: its rate is that of the case itself.
    own_case = case.removesuffix(" grouped")
    ratio = Spread.of(results.ratios(own_case, (way,), in_cases=(case,))) if way != OWN else None
    return [spread(rate), number(cpu.median) if cpu else "—", spread(ratio)]


def _by_reason(reasons: dict[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for way, reason in reasons.items():
        found.setdefault(reason, []).append(way)
    return found


def _made_with(run: Run, way: str) -> str:
    packages = [f"{package} {run.versions.get(package, '')}".strip() for package in WAYS[way].packages]
    if way == "sqlite3-thread":
        packages = [f"SQLite {run.versions.get('SQLite of Python', '')}".strip()]
    return ", ".join([run.python, *packages])


def _versions(run: Run) -> str:
    return ", ".join(f"{library} {version}" for library, version in run.versions.items())
