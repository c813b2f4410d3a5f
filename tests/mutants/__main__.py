"""Put each known bug into a copy of the library, and see the tests that are named for it find it.

`python3 run.py mutants` takes all of them, as many at a time as there are cores; names (or paths of patches) take these
only. First the same tests have to pass on a copy without a bug. The exit code is 1 if a mutant survives, does not
apply, or says nothing because its tests fail without it.

`python3 run.py mutants --all-tests NAME` runs all tests against a mutant instead of those that it names.
"""

from __future__ import annotations

import argparse
import enum
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.mutants.patches import PATCHES, Mutant, Trouble, all_mutants, apply, applying_tool, mutant_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ROOT = Path(__file__).resolve().parents[2]

# What the tests need beside them.
NEEDED = ("posjournal_async", "tests", "examples", "benchmarks", "docs", ".ci", "*.py", "*.toml", "*.md", "LICENSE")
_LEFT_OUT = shutil.ignore_patterns("__pycache__", ".*_cache", ".hypothesis")

# The copy that the mutants are copies of: all of the same, also while somebody works on the original.
WITHOUT_BUGS = "without bugs"

# `-x`: the first test that fails is enough.
PYTEST = ("-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "tests.mutants.origin")
ONE_BY_ONE = ("-x", "-n", "0", "--tb=no")

# So many selections of tests take longer than the workers of pytest-xdist take to start.
WORTH_WORKERS = 10

# The patches are of the library, so they do not apply to a mutant; and it would start this command again.
NOT_OF_MUTANTS = "--ignore=tests/test_mutants.py"

CHILD = "import posjournal_async; print(posjournal_async.__file__)"
PARENT = f"{CHILD}; import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}], check=True)"


_RUNNING: set[subprocess.Popen[bytes]] = set()


class Verdict(enum.Enum):
    """What became of a mutant."""

    KILLED = "killed"
    SURVIVED = "SURVIVED"
    BROKEN = "BROKEN"


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant, and how that is known."""

    mutant: Mutant
    verdict: Verdict
    how: str

    def __str__(self) -> str:
        return f"{self.verdict.value} {self.how}"


@dataclass(frozen=True)
class Tests:
    """How a run of pytest ended: `code` is None if it had to be stopped."""

    code: int | None
    seconds: float
    output: str

    @property
    def failed(self) -> list[str]:
        """The tests that failed, by the summary at the end."""
        return re.findall(r"^(?:FAILED|ERROR) (tests/.+?)(?: - .*)?$", self.output, re.MULTILINE)

    @property
    def missing(self) -> list[str]:
        """The tests that are named and not there."""
        return re.findall(r"^ERROR: not found: .*/(tests/.+)$", self.output, re.MULTILINE)

    @property
    def last_lines(self) -> str:
        """What pytest said in the end."""
        return "\n    ".join(self.output.strip().splitlines()[-15:])


def main(arguments: Sequence[str]) -> int:
    """Do what the command line says, and return the exit code."""
    parser = argparse.ArgumentParser(prog="run.py mutants", description="see the tests find each known bug")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="a mutant, or the path of a patch; all if there is none"
    )
    parser.add_argument("--all-tests", action="store_true", help="run all tests, not only those that the mutant names")
    parser.add_argument("--time-limit", type=float, default=120, metavar="SECONDS", help="for one mutant (%(default)g)")
    parser.add_argument("--at-once", type=int, default=os.cpu_count() or 1, metavar="N", help="(%(default)s)")
    parser.add_argument("--list", action="store_true", help="say what mutants there are, and what is wrong with each")
    asked = parser.parse_args(arguments)
    mutants = [_named(name) for name in asked.names] if asked.names else all_mutants()
    if asked.list:
        for mutant in mutants:
            _say(f"{mutant.name} ({mutant.breaks})\n    {mutant.says}")
        return 0
    if asked.all_tests and not asked.names:
        raise Trouble("--all-tests: expected the names of mutants")
    tool = applying_tool()
    _say(f"{len(mutants)} mutants, {asked.at_once} at a time, applied by {tool}")
    with tempfile.TemporaryDirectory(prefix="posjournal-mutants-") as folder:
        tests = (NOT_OF_MUTANTS,) if asked.all_tests else ()
        limit = asked.time_limit * (20 if asked.all_tests else 1)
        failing = _check_without_bugs(Path(folder), tests or sorted({test for m in mutants for test in m.killed_by}))
        outcomes = []
        with ThreadPoolExecutor(asked.at_once) as executor:
            runs = [executor.submit(_try, mutant, tests, failing, Path(folder), limit) for mutant in mutants]
            try:
                for number, run in enumerate(as_completed(runs), start=1):
                    outcome = run.result()
                    outcomes.append(outcome)
                    _say(f"[{number}/{len(mutants)}] {outcome.mutant.name}: {outcome}")
            except BaseException:  # interrupted: nothing is left running, and nothing more begins
                executor.shutdown(wait=False, cancel_futures=True)
                for process in list(_RUNNING):
                    _end(process)
                raise
    return _summarize(outcomes)


def _named(name: str) -> Mutant:
    return mutant_of(Path(name) if name.endswith(".patch") else PATCHES / f"{name}.patch")


def _summarize(outcomes: Iterable[Outcome]) -> int:
    ordered = sorted(outcomes, key=lambda outcome: outcome.mutant.name)
    names = max(len(outcome.mutant.name) for outcome in ordered)
    breaks = max(len(outcome.mutant.breaks) for outcome in ordered)
    _say("")
    for outcome in ordered:
        _say(f"{outcome.mutant.name:{names}}  {outcome.mutant.breaks:{breaks}}  {outcome}")
    alive = [outcome for outcome in ordered if outcome.verdict is not Verdict.KILLED]
    _say(f"\n{len(ordered) - len(alive)} of {len(ordered)} mutants were killed")
    for outcome in alive:
        _say(f"  {outcome.mutant.name}: {outcome}\n    {outcome.mutant.says}")
    return 1 if alive else 0


def _check_without_bugs(folder: Path, tests: Sequence[str]) -> list[str]:
    """Run the tests on a copy that has no bug, and return those that fail all the same."""
    tree = _copy(ROOT, folder / WITHOUT_BUGS)
    for library in _run(["-c", PARENT], folder, tree, 60).output.split("\n")[:2]:
        if not Path(library).is_relative_to(tree):
            raise Trouble(f"the tests would not see the copy, but {library}")
    # One run for all: the tests of a file that is named as a whole are not named again.
    distinct = [test for test in tests if "::" not in test or test.partition("::")[0] not in tests]
    _say(f"without bugs: {len(distinct)} selections of tests ...")
    workers = (os.cpu_count() or 1) if len(distinct) >= WORTH_WORKERS or NOT_OF_MUTANTS in distinct else 0
    found = _run([*PYTEST, "-n", str(workers), "--dist", "worksteal", *distinct], tree, tree, 3_600)
    if found.missing:
        raise Trouble(f"there are no such tests: {', '.join(found.missing)}")
    if found.code not in {0, 1}:
        raise Trouble(f"without bugs: the tests could not be run\n    {found.last_lines}")
    _say(f"without bugs: {'all passed' if not found.failed else 'some FAILED'} in {found.seconds:.1f} s")
    for test in found.failed:
        _say(f"  {test}")
    return found.failed


def _try(mutant: Mutant, tests: Sequence[str], failing: Sequence[str], folder: Path, limit: float) -> Outcome:
    """Run tests against a mutant."""
    chosen = tests or mutant.killed_by
    vain = [test for test in failing if tests or test.startswith(mutant.killed_by)]
    if vain:
        return Outcome(mutant, Verdict.BROKEN, f"its tests fail without it too: {', '.join(vain)}")
    tree = _copy(folder / WITHOUT_BUGS, folder / mutant.name)
    try:
        apply(mutant, tree)
        run = _run([*PYTEST, *ONE_BY_ONE, *chosen], tree, tree, limit)
    except Trouble as trouble:
        return Outcome(mutant, Verdict.BROKEN, str(trouble))
    finally:
        shutil.rmtree(tree)
    took = f"in {run.seconds:.1f} s"
    if run.code is None:
        return Outcome(mutant, Verdict.KILLED, f"{took}: its tests hang")
    if run.code == 0:
        return Outcome(mutant, Verdict.SURVIVED, took)
    if run.code == 1 and run.failed:
        return Outcome(mutant, Verdict.KILLED, f"{took} by {run.failed[0]}")
    return Outcome(mutant, Verdict.BROKEN, f"pytest ended with {run.code}\n    {run.last_lines}")


def _copy(original: Path, tree: Path) -> Path:
    """Copy what the tests need to a new directory."""
    tree.mkdir()
    for source in {source for pattern in NEEDED for source in original.glob(pattern)}:
        if source.is_dir():
            shutil.copytree(source, tree / source.name, ignore=_LEFT_OUT)
        else:
            shutil.copy2(source, tree)
    return tree


def _run(command: Sequence[str], here: Path, tree: Path, limit: float) -> Tests:
    """Run Python with the library of `tree`, and stop it with all its children when it takes too long."""
    # What is around this process must not change what the tests try: neither a pytest that runs it, nor a long run.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "POSJOURNAL_"))}
    # CI: hypothesis tries the same examples each time. COLUMNS: pytest does not cut the names of tests.
    own = {"PYTHONPATH": str(tree), "CI": "1", "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "400"}
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=here,
            env=kept | own,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        _RUNNING.add(process)
        try:
            code: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _RUNNING.discard(process)
            _end(process)
        output.seek(0)
        return Tests(code, time.monotonic() - began, output.read())


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of a process and of its children."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        process.wait()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        sys.exit(main(sys.argv[1:]))
    except Trouble as trouble:
        sys.exit(f"mutants: {trouble}")
