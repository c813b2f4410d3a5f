"""A type checker knows what a journal gives back."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed; `run.py check` has it")
def test_mypy_sees_the_type_of_the_items() -> None:
    """The assertions and the refusals of `journal_types.py` hold under mypy --strict."""
    command = [sys.executable, "-m", "mypy", "tests/typing/journal_types.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
