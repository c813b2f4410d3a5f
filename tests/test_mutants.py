"""The mutants: each is a small patch of the library as it is, and the command says which the tests find."""

from __future__ import annotations

import ast
import difflib
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.mutants.patches import Trouble, all_mutants, apply, applying_tool, mutant_of

ROOT = Path(__file__).resolve().parents[1]
MUTANTS = all_mutants()

QUICK = "dropped_oldest_first"
QUICK_TEST = "tests/recovery/test_decide.py::test_sections_behind_a_short_one_are_dropped_newest_first"

# What looks at journals from outside, or tries them: no item that a service appends or reads goes through it.
BESIDE = ("__main__", "cli/", "inspection/", "mending/", "storage/readonly", "testing/")

needs_a_tool = pytest.mark.skipif(applying_tool() is None, reason="neither git nor patch is installed")


def patch_of(file: str, line: str, changed: str, *, killed_by: str = QUICK_TEST) -> str:
    """Return a mutant that changes one line of a file."""
    before = (ROOT / file).read_text().splitlines(keepends=True)
    after = [changed if before_line == line else before_line for before_line in before]
    patch = "".join(difflib.unified_diff(before, after, f"a/{file}", f"b/{file}", n=1))
    return f"Something is changed.\nBreaks: nothing\nKilled-by: {killed_by}\n\n{patch}"


def test_there_are_enough() -> None:
    """At least 40, and no two of them change the same lines in the same way."""
    changes = [[(hunk.file, hunk.before, hunk.after) for hunk in mutant.hunks] for mutant in MUTANTS]
    assert len(MUTANTS) >= 40
    assert not [change for number, change in enumerate(changes) if change in changes[:number]]


def test_every_mutant_is_a_small_change_of_the_library() -> None:
    """One bug each: at most five lines, of the package and of nothing else."""
    for mutant in MUTANTS:
        assert 1 <= sum(hunk.changed for hunk in mutant.hunks) <= 5, mutant.name
        for hunk in mutant.hunks:
            assert hunk.file.startswith("posjournal_async/"), mutant.name
            assert not hunk.file.startswith("posjournal_async/testing/"), mutant.name


def test_every_mutant_says_what_is_wrong() -> None:
    """In a sentence of its own."""
    sentences = [mutant.says for mutant in MUTANTS]
    assert len(set(sentences)) == len(sentences)
    assert all(says.endswith(".") and len(says) > 20 for says in sentences)


def test_the_mutants_are_all_over_the_library() -> None:
    """Every module through which an item goes, or that decides something for it, has one."""
    mutated = {hunk.file.removeprefix("posjournal_async/") for mutant in MUTANTS for hunk in mutant.hunks}
    modules = {str(path.relative_to(ROOT / "posjournal_async")) for path in (ROOT / "posjournal_async").rglob("*.py")}
    without = {module for module in modules - mutated if not module.startswith(BESIDE)}
    # These decide nothing: names, errors, protocols, sinks for numbers.
    nothing = {"__init__.py", "contiguous.py", "codecs/protocols.py", "errors.py", "metrics.py", "parts.py"}
    assert {module for module in without if Path(module).name != "__init__.py"} <= nothing


@needs_a_tool
def test_every_mutant_applies() -> None:
    """To the library as it is, in exactly one place; else the command would say nothing about it."""
    troubles = []
    for mutant in MUTANTS:
        try:
            apply(mutant, ROOT, only_check=True)
        except Trouble as trouble:
            troubles.append(str(trouble))
    assert troubles == []


def test_every_mutant_names_tests_that_exist() -> None:
    """By file and name; the command itself finds out about parameters."""
    # What the contract suite brings into a class of tests is not in the file of that class.
    inherited = names_in("posjournal_async/testing/storage_contract.py")
    for mutant in MUTANTS:
        for test in mutant.killed_by:
            file, *names = test.partition("[")[0].split("::")
            assert (ROOT / file).is_file(), f"{mutant.name}: {test}"
            assert set(names) <= names_in(file) | (inherited if len(names) == 2 else set()), f"{mutant.name}: {test}"


@cache
def names_in(file: str) -> set[str]:
    """Return the names of the functions and classes of a file."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name for node in ast.walk(ast.parse((ROOT / file).read_text())) if isinstance(node, kinds)}


@needs_a_tool
def test_a_mutant_that_is_found_is_told_from_one_that_is_not(tmp_path: Path) -> None:
    """The command names the test that found the bug, and fails because a changed comment is found by none."""
    planted = tmp_path / "planted.patch"
    line = '"""Find the records of a data blob without an index: from the first byte on, each proving itself."""\n'
    planted.write_text(patch_of("posjournal_async/scan.py", line, line.replace("first", "very first")))
    command = [sys.executable, "-m", "tests.mutants", QUICK, str(planted)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{QUICK}: killed in " in done.stdout
    assert f" s by {QUICK_TEST}" in done.stdout
    assert "planted: SURVIVED in " in done.stdout
    assert "1 of 2 mutants were killed" in done.stdout


@needs_a_tool
def test_a_patch_that_fits_in_two_places_or_none_is_refused(tmp_path: Path) -> None:
    """Lines move as the library changes: the bug must not move to another place with them."""
    (tmp_path / "posjournal_async").mkdir()
    file = "posjournal_async/waiting.py"
    lines = (ROOT / file).read_text()
    changed = "def retrieve(work: asyncio.Future[Any]) -> object:\n"
    (tmp_path / "some.patch").write_text(patch_of(file, "def retrieve(work: asyncio.Future[Any]) -> None:\n", changed))
    mutant = mutant_of(tmp_path / "some.patch")
    (tmp_path / file).write_text(f"# a line above\n{lines}")
    apply(mutant, tmp_path)
    assert changed in (tmp_path / file).read_text()
    for other in (lines + lines, lines.replace("retrieve", "look_at")):
        (tmp_path / file).write_text(other)
        with pytest.raises(Trouble, match=r"is found [02] times"):
            apply(mutant, tmp_path)
        assert (tmp_path / file).read_text() == other


def test_a_mutant_without_a_head_or_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """As a sentence that says what is missing."""
    (tmp_path / "headless.patch").write_text("--- a/posjournal_async/data.py\n+++ b/posjournal_async/data.py\n")
    with pytest.raises(Trouble, match=r"headless\.patch: expected a sentence"):
        mutant_of(tmp_path / "headless.patch")
    with pytest.raises(Trouble, match="there is no mutant 'nowhere'"):
        mutant_of(tmp_path / "nowhere.patch")
