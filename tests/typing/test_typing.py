"""A type checker knows what a journal gives back."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


FILES = ["tests/typing/journal_types.py", "tests/typing/codec_types.py"]


def needs(tool: str) -> pytest.MarkDecorator:
    is_missing = importlib.util.find_spec(tool) is None
    return pytest.mark.skipif(is_missing, reason=f"{tool} is not installed; `run.py check` has it")


@needs("mypy")
def test_mypy_sees_the_type_of_the_items() -> None:
    """The assertions and the refusals hold under mypy --strict, of the journal and of codecs for typed items."""
    command = [sys.executable, "-m", "mypy", *FILES]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@needs("pyright")
def test_pyright_sees_the_type_of_the_items(tmp_path: Path) -> None:
    """The assertions hold, and each line that is to be refused has an error without its comment; no other line has."""
    expected: set[tuple[str, int]] = set()
    copies: list[str] = []
    for file in FILES:
        lines = (ROOT / file).read_text().splitlines()
        copy = tmp_path / Path(file).name
        copy.write_text("\n".join(line.split("  # type: ignore")[0] for line in lines) + "\n")
        copies.append(str(copy))
        expected |= {(str(copy), number) for number, line in enumerate(lines) if "# type: ignore" in line}
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson", *copies]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    found = json.loads(done.stdout)["generalDiagnostics"]
    errors = {(error["file"], error["range"]["start"]["line"]) for error in found if error["severity"] == "error"}
    assert expected
    assert errors == expected, done.stdout
