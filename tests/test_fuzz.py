"""The targets of the fuzzer, tried in each run on their seeds and on mutations of these; the fuzzer for a moment."""

from __future__ import annotations

import importlib.util
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.effort import effort
from tests.fuzz import inputs
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[1]

MUTATIONS = {"header": 3000, "record": 1500, "checkpoint": 600, "offsets": 300, "directory": 500}


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Return an input with a few places changed, as a fuzzer does it."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(changed) + 1)
        kind = rng.randrange(10)
        if kind < 6 and at < len(changed):
            changed[at] = rng.choice((0, 1, 0x80, 0xFF, changed[at] ^ 1 << rng.randrange(8), rng.randrange(256)))
        elif kind < 7:
            del changed[at:]
        elif kind < 8:
            del changed[at : at + rng.choice((1, 4, 8))]
        else:
            changed[at:at] = rng.choice((rng.randbytes(rng.choice((1, 8))), bytes(changed[at : at + 40])))
    return bytes(changed)


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_takes_its_seeds(name: str) -> None:
    """Sound inputs: nothing is wrong with them, and with their checksums made good once more they are the same."""
    target = TARGETS[name]
    seeds = target.seeds()
    assert len(set(seeds)) > 5
    for seed in seeds:
        assert len(seed) <= target.longest
        assert target.mend(seed) == seed
        target.run(seed)


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_takes_mutations_of_its_seeds(name: str) -> None:
    """F4, F5: any bytes are read right, or refused as what they are; half of them with good checksums."""
    target = TARGETS[name]
    seeds = target.seeds()
    for number in range(effort(MUTATIONS[name], 100 * MUTATIONS[name])):
        rng = random.Random(f"{name} {number}")
        data = mutated(rng.choice(seeds), rng)
        if number % 2:
            data = target.mend(data)
        try:
            target.run(data)
        except BaseException as error:
            error.add_note(f"target {name}, mutation {number}: {data.hex()}")
            raise


def test_a_journal_as_bytes_is_the_same_journal() -> None:
    """What the target for journals is given has all that the files have."""
    for seed in inputs.seeds_of_journals():
        operations, tree = inputs.unpacked(seed)
        assert inputs.packed(tree, operations) == seed


def test_an_input_that_is_wrong_is_told_from_one_that_is_not(tmp_path: Path) -> None:
    """Trying an input again needs no atheris, and says by its exit code whether something is wrong."""
    seed = tmp_path / "seed"
    seed.write_bytes(TARGETS["header"].seeds()[1])
    command = [sys.executable, "-m", "tests.fuzz", "--replay", "header"]
    assert subprocess.run([*command, str(seed)], cwd=ROOT, check=False).returncode == 0
    missing = subprocess.run([*command, str(tmp_path / "none")], cwd=ROOT, capture_output=True, text=True, check=False)
    assert missing.returncode == 1
    assert "FileNotFoundError" in missing.stderr


def test_a_wrong_command_line_is_refused() -> None:
    """With the usage, and the exit code of a wrong command line."""
    for arguments in (["0"], ["soon"], ["1", "2"], ["--replay", "nothing", "here"]):
        command = [sys.executable, "-m", "tests.fuzz", *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr.startswith("usage: python3 run.py fuzz")


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")
def test_the_fuzzer_runs() -> None:
    """Each target is fuzzed for its share of the time."""
    command = [sys.executable, "-m", "tests.fuzz", str(len(TARGETS))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == list(TARGETS)
    assert all(int(line.split()[1]) > 10 and int(line.split()[3]) > 10 for line in lines), lines
