"""Fuzz one target with atheris: `python -m tests.fuzz.child TARGET CORPUS [options of libFuzzer]`, or without atheris
try the inputs in files: `python -m tests.fuzz.child TARGET --replay FILE...`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any


def main(arguments: list[str]) -> None:
    """Do what the command line says; libFuzzer ends the process by itself."""
    name, *rest = arguments
    if rest[:1] == ["--replay"]:
        run = importlib.import_module("tests.fuzz.targets").TARGETS[name].run
        for path in rest[1:]:
            run(Path(path).read_bytes())
        return
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["posjournal_async"]):
        targets = importlib.import_module("tests.fuzz.targets")
    target = targets.TARGETS[name]

    def mutated(data: bytes, longest: int, seed: int) -> bytes:
        changed: bytes = atheris.Mutate(data, longest)
        good = target.mend(changed) if seed % 2 else changed
        return good if len(good) <= longest else changed

    atheris.Setup([sys.argv[0], *rest], target.run, custom_mutator=mutated)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
