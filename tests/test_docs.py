"""What the documents show runs, and what they point to is there."""

from __future__ import annotations

import ast
import asyncio
import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import posjournal_async

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
MODULES = [
    "posjournal_async",
    *(found.name for found in pkgutil.walk_packages(posjournal_async.__path__, "posjournal_async.")),
]


def python_blocks() -> list[tuple[str, str]]:
    """The Python blocks of all documents: where each begins, and its code at the line where it stands."""
    blocks = []
    for document in DOCUMENTS:
        text = document.read_text()
        for block in re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
            line = text.count("\n", 0, block.start(1))
            blocks.append((f"{document.relative_to(ROOT)}:{line + 1}", "\n" * line + block[1]))
    return blocks


BLOCKS = python_blocks()


def test_the_readme_has_blocks() -> None:
    """The blocks are found: otherwise the next test would run none."""
    assert len([place for place, _ in BLOCKS if place.startswith("README.md")]) >= 2


@pytest.mark.parametrize(("place", "code"), BLOCKS, ids=[place for place, _ in BLOCKS])
def test_a_block_runs(place: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block runs by itself, in an empty directory; `await` outside a function is run by an event loop."""
    monkeypatch.chdir(tmp_path)
    compiled = compile(code, str(ROOT / place.split(":", maxsplit=1)[0]), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names: dict[str, object] = {"__name__": "__main__"}
    result = eval(compiled, names)  # noqa: S307 - our own documents
    if inspect.iscoroutine(result):
        asyncio.run(result)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_links_lead_somewhere(document: Path) -> None:
    """Each link to a file of the repository has a file."""
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text())
    assert [target for target in targets if not (document.parent / target).exists()] == []


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name: str) -> None:
    """Each example in a docstring prints what it shows."""
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


def test_docstrings_have_examples() -> None:
    """The examples are found: `Journal` has one."""
    assert next(test.examples for test in doctest.DocTestFinder().find(posjournal_async.Journal, "Journal"))
