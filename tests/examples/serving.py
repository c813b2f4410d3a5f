"""What the tests of the examples share: an example as a module, and one that serves in a process of its own."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Generator

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def example(name: str) -> Any:
    """Return an example as a module; examples import each other by their bare names."""
    if str(EXAMPLES) not in sys.path:
        sys.path.append(str(EXAMPLES))
    return importlib.import_module(name)


def environment() -> dict[str, str]:
    """Return what a process needs to import the library and the examples."""
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(EXAMPLES)])}


class Served:
    """A service in a process of its own.

    Attributes:
        url: Where it listens: the first line that it printed.
        process: The process.
    """

    def __init__(self, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", *map(str, arguments)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        assert self.url, f"it ended with {self.process.wait()}"

    def kill(self) -> None:
        """End it by SIGKILL."""
        self.process.kill()
        self.process.wait()


def printed_by(script: str, *arguments: object) -> list[str]:
    """Run an example with warnings as errors, and return the lines that it printed."""
    command = [sys.executable, "-W", "error", str(EXAMPLES / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout.splitlines()


@contextmanager
def served(*arguments: object) -> Generator[Served, None, None]:
    """Run Python with warnings as errors: a service that prints its address first. It is killed at the end."""
    service = Served(*arguments)
    try:
        yield service
    finally:
        service.kill()
        if service.process.stdout is not None:
            service.process.stdout.close()
