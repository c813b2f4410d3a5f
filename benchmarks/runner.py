"""Do all measurements: each in a fresh process, the repetitions outermost."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import slow_disk
from benchmarks.cases import Case
from benchmarks.measure import Job
from benchmarks.results import Row

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parents[1]

TIMEOUT_SECONDS = 180

# What these measure is there before, and the same for all repetitions.
READING = frozenset({"read", "read_concurrently", "read_many", "replay", "replay_batches", "open_and_read_last"})


class Runner:
    """Runs jobs in a directory of its own, which is gone when it is left.

    Attributes:
        directory: Where all data is.
    """

    def __init__(self, base: Path, seconds: float) -> None:
        self._seconds = seconds
        self._preloaded: dict[tuple[str, str, int, int], str] = {}
        base.mkdir(parents=True, exist_ok=True)
        self.directory = Path(tempfile.mkdtemp(prefix="run-", dir=base))
        self._library: Path | None = None
        self.no_slow_disk = ""
        try:
            self._library = slow_disk.build(self.directory)
        except slow_disk.NoSlowDisk as reason:
            self.no_slow_disk = str(reason)

    def close(self) -> None:
        """Remove all data, and the directory above it where that was made for it and is empty."""
        shutil.rmtree(self.directory)
        base = self.directory.parent
        if base.parent == ROOT and not any(base.iterdir()):
            base.rmdir()

    def check(self, way: str) -> str:
        """Return why a way cannot take part, "" if it gives back what was put in.

        Raises:
            WrongAnswer: It does not.
        """
        case = Case(name="check", title="", measure="")
        answer = self._perform("check", way, case, self.directory / f"check-{way}")
        if "error" in answer:
            raise WrongAnswer(f"{way}: {answer['error']}")
        return str(answer.get("missing", ""))

    def measure(self, cases: Sequence[Case], ways: Sequence[str], repetitions: int) -> Iterator[Row]:
        """Yield a row for each measurement; a slow spell of the machine hits all that are compared.

        Another one comes first in each repetition, so that nobody always follows the same neighbour's writes.
        """
        for repetition in range(repetitions):
            for case in cases:
                if repetition < case.at_most:
                    those = [way for way in ways if way in case.ways]
                    turn = repetition * len(those) // repetitions
                    for way in those[turn:] + those[:turn]:
                        yield self._measure(case, way, repetition)

    def _measure(self, case: Case, way: str, repetition: int) -> Row:
        row = Row(case=case.name, way=way, repetition=repetition)
        if case.sync_microseconds is not None and self._library is None:
            answer: dict[str, Any] = {"missing": self.no_slow_disk}
        elif case.measure in READING:
            answer = self._measure_preloaded(case, way)
        else:
            fresh = Path(tempfile.mkdtemp(dir=self.directory)) / "journal"
            answer = self._perform("measure", way, case, fresh)
            shutil.rmtree(fresh.parent)
        if "error" in answer:
            answer = {"missing": f"failed: {answer['error']}"}
        return Row(**{"case": row.case, "way": row.way, "repetition": repetition, **answer})

    def _measure_preloaded(self, case: Case, way: str) -> dict[str, Any]:
        key = (way, case.kind, case.item_bytes, case.preloaded)
        directory = self.directory / "-".join(map(str, key))
        if key not in self._preloaded:
            answer = self._perform("preload", way, case, directory)
            self._preloaded[key] = str(answer.get("error", answer.get("missing", "")))
        if self._preloaded[key]:
            return {"missing": f"could not be filled: {self._preloaded[key]}"}
        return self._perform("measure", way, case, directory)

    def _perform(self, task: Any, way: str, case: Case, directory: Path) -> dict[str, Any]:
        job = Job(task, way, str(directory), self._seconds, case)
        microseconds = case.sync_microseconds
        environment = None
        if microseconds is not None and self._library is not None:
            environment = slow_disk.environment(self._library, microseconds)
        command = [sys.executable, "-m", "benchmarks.measure", job.to_json()]
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=environment,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return {"error": f"not done after {TIMEOUT_SECONDS} s"}
        if done.returncode:
            return {"error": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]}
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer


class WrongAnswer(Exception):
    """An adapter does not give back what was put in, or fails otherwise: what it does is no measure."""


def count_of(cases: Sequence[Case], ways: Sequence[str], repetitions: int) -> int:
    """Return how many measurements there will be."""
    return sum(min(repetitions, case.at_most) * sum(way in case.ways for way in ways) for case in cases)
