"""Every guarantee has tests that name it, and `docs/testing.md` says which."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

GUARANTEES = [
    *(f"D{number}" for number in range(1, 7)),
    *("A1", "A2", "A3", "O1", "O2"),
    *(f"I{number}" for number in range(1, 5)),
    *(f"C{number}" for number in range(1, 6)),
    *(f"F{number}" for number in range(1, 8)),
    *("L1", "L2"),
]
ID = re.compile(r"\b[DAOICFL][1-7]\b")
RANGE = re.compile(r"\b([DAOICFL])([1-7]) to \1([1-7])\b")


def ids_in(text: str) -> set[str]:
    """Return the guarantees that a text names, one by one or as a range."""
    ranges = [
        f"{letter}{number}"
        for letter, first, last in RANGE.findall(text)
        for number in range(int(first), int(last) + 1)
    ]
    return {*ID.findall(text), *ranges} & set(GUARANTEES)


def docstrings() -> dict[str, str]:
    """Return the docstring of each test: by file and name."""
    found = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                found[f"{path.relative_to(ROOT / 'tests')}::{node.name}"] = ast.get_docstring(node) or ""
    return found


DOCSTRINGS = docstrings()


def rows() -> dict[str, list[str]]:
    """Return the tests that the table of `docs/testing.md` gives for each guarantee."""
    text = (ROOT / "docs" / "testing.md").read_text()
    return {
        row[1]: re.findall(r"`([^`]+\.py::test_\w+)`", row[2])
        for row in re.finditer(r"^\| ([A-Z]\d) \|(.*)\|$", text, re.MULTILINE)
    }


ROWS = rows()


def test_the_table_has_all_guarantees_in_order() -> None:
    """None is missing, none is invented."""
    assert list(ROWS) == GUARANTEES


@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_a_guarantee_has_tests_that_name_it(guarantee: str) -> None:
    """Those of the table are there, and say in their docstring that they show it."""
    tests = ROWS[guarantee]
    assert tests
    assert [test for test in tests if guarantee not in ids_in(DOCSTRINGS.get(test, ""))] == []
