"""The command: `python3 run.py bench`, which is `python -m benchmarks` in the environment that has the peers."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import growth, machine
from benchmarks.cases import FULL, QUICK, WORKLOADS, cases_of
from benchmarks.chart import chart
from benchmarks.document import filled
from benchmarks.report import report, targets
from benchmarks.results import Results
from benchmarks.runner import ROOT, Runner, WrongAnswer, count_of
from benchmarks.ways import WAYS
from benchmarks.wording import number

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from benchmarks.results import Row

DOCS = ROOT / "docs"

# Each of these keeps what is "written" in memory, where a sync costs nothing.
IN_MEMORY = frozenset({"tmpfs", "ramfs"})


def main(arguments: list[str]) -> int:
    """Do what the command line says, and return the exit code: 1 if something failed."""
    parser = _parser()
    options = parser.parse_args(arguments)
    directory: Path = options.dir or ROOT / ".bench"
    existing = next(parent for parent in (directory.resolve(), *directory.resolve().parents) if parent.exists())
    if (kind := machine.file_system(existing)) in IN_MEMORY:
        parser.error(f"{directory} is on {kind}, which is no disk; --dir names a directory on one")
    scale = QUICK if options.quick else FULL
    cases = [case for case in cases_of(scale) if case.workload in options.workloads]
    repetitions = options.repetitions or scale.repetitions
    with closing(Runner(directory, options.seconds or scale.seconds)) as runner:
        try:
            left_out = _check(runner, options.adapters)
        except WrongAnswer as trouble:
            print(f"bench: {trouble}", file=sys.stderr)
            return 1
        if options.check:
            return 0
        ways = [way for way in options.adapters if way not in left_out]
        command = " ".join(["python3 run.py bench", *arguments])
        run = machine.describe(runner.directory, command)
        run.left_out.update(left_out)
        results = Results(run, {case.name: case.title for case in cases})
        count = count_of(cases, ways, repetitions)
        for done, row in enumerate(runner.measure(cases, ways, repetitions), 1):
            print(f"[{done:4}/{count}] {row.repetition + 1} {row.case:28} {row.way:17} {_shown(row)}", flush=True)
            results.rows.append(row)
        is_whole = set(options.workloads) == set(WORKLOADS) and set(options.adapters) == set(WAYS)
        grown = Results(run, {})
        for title, row in growth.measured(runner.directory, is_quick=options.quick) if is_whole else ():
            print(f"growth: {row.repetition + 1} {title}: {_shown(row)}", flush=True)
            grown.titles[row.case] = title
            grown.rows.append(row)
    _write(results, grown, options.out, is_whole=is_whole)
    return 1 if any(row.missing.startswith(("failed", "could not")) for row in results.rows) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 run.py bench",
        description="Measure this library and its peers, and write docs/performance.",
        epilog=f"adapters: {', '.join(WAYS)}. "
        + "; ".join(f"{name}: {what}" for name, what in WORKLOADS.items())
        + ". A run of only some of them is written nowhere unless --out says where.",
        allow_abbrev=False,
    )
    parser.add_argument("--quick", action="store_true", help="a minute or two: one repetition, less data, fewer peers")
    parser.add_argument("--check", action="store_true", help="only see whether each gives back what was put in")
    parser.add_argument("--adapters", type=_names_of("adapter", WAYS), default=list(WAYS), metavar="A,B")
    parser.add_argument("--workloads", type=_names_of("workload", WORKLOADS), default=list(WORKLOADS), metavar="W1,W2")
    parser.add_argument("--repetitions", type=_at_least_one, metavar="N")
    parser.add_argument("--seconds", type=float, help="how long a measurement goes on that could do so for ever")
    parser.add_argument("--dir", type=Path, help="where the data goes meanwhile; on a disk")
    parser.add_argument("--out", type=Path, help="where the results go, in place of docs/performance")
    return parser


def _names_of(what: str, known: Collection[str]) -> Callable[[str], list[str]]:
    """Return what argparse turns a list of names with."""

    def parse(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"there is no {what} {name!r}; there are {', '.join(known)}")
        return [name for name in known if name in names]

    return parse


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, found {text!r}")
    return int(text)


def _check(runner: Runner, ways: Sequence[str]) -> dict[str, str]:
    """Return who cannot take part, and why; say so."""
    left_out = {}
    for way in ways:
        reason = runner.check(way)
        print(f"check {way:17} {f'left out: {reason}' if reason else 'gives back what was put in'}", flush=True)
        if reason:
            left_out[way] = reason
    if runner.no_slow_disk:
        print(f"no modelled disk: {runner.no_slow_disk}")
    return left_out


def _shown(row: Row) -> str:
    if row.missing:
        return row.missing
    rate = row.value("rate")
    shown = f"{rate:12,.0f}/s" if rate and row.items > 1 else ""
    figures = [f"{name}={number(value)}" for name, value in row.figures.items()]
    return " ".join([shown, *figures])


def _write(results: Results, grown: Results, out: Path | None, *, is_whole: bool) -> None:
    """Write the results where they belong, and print the targets."""
    print(f"\n{targets(results)}")
    if out is None and not is_whole:
        print("a run of only some adapters or workloads is written nowhere; --out DIR keeps it")
        return
    directory = out or DOCS / "performance"
    directory.mkdir(parents=True, exist_ok=True)
    if grown.rows:
        (directory / "growth.md").write_text(growth.report(grown))
        results.rows += grown.rows
        print(f"written: {directory}/growth.md")
    (directory / "results.json").write_text(results.to_json())
    (directory / "report.md").write_text(report(results))
    (directory / "rates.svg").write_text(chart(results))
    print(f"written: {directory}/results.json, report.md, rates.svg")
    if out is None:
        document = DOCS / "performance.md"
        document.write_text(filled(document.read_text(), results))
        print(f"written: the targets in {document}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
