"""How much the tests try: an ordinary amount in each run, and by `python3 run.py long` what takes hours."""

from __future__ import annotations

import os
from typing import TypeVar

__all__ = ["STATES", "effort"]

T = TypeVar("T")

# The property by which a test says how many states after a crash it has tried; the run tells the sum.
STATES = "states after a crash"

IS_LONG = os.environ.get("POSJOURNAL_TESTS") == "long"


def effort(ordinary: T, long: T) -> T:
    """Return how much to try."""
    return long if IS_LONG else ordinary
