"""A mutant: a patch of the library that puts one bug into it, below a few lines that say what it breaks.

Everything before the first `---` is the head:

    One sentence that says what is wrong.
    Breaks: D1, F2
    Killed-by: tests/test_sync.py::test_everything_appended_before_is_durable_on_return
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PATCHES", "Mutant", "Trouble", "all_mutants", "apply", "applying_tool", "mutant_of"]

PATCHES = Path(__file__).parent


class Trouble(Exception):
    """A mutant that cannot be used, as a sentence."""


@dataclass(frozen=True)
class Hunk:
    """One place that a patch changes.

    Attributes:
        file: The file, from the root of the repository.
        before: Its lines as they have to be.
        after: Its lines as they become.
        changed: How many lines go or come, whichever are more.
    """

    file: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    changed: int


@dataclass(frozen=True)
class Mutant:
    """A patch that puts a bug into the library.

    Attributes:
        name: Its name, that of the file.
        path: The patch.
        says: What is wrong.
        breaks: The guarantees that do not hold with it.
        killed_by: The tests that have to find it, as pytest takes them.
        hunks: The places that it changes.
    """

    name: str
    path: Path
    says: str
    breaks: str
    killed_by: tuple[str, ...]
    hunks: tuple[Hunk, ...]

    def check_places(self, tree: Path) -> None:
        """Refuse a patch that could be applied in more than one place: lines move, and it would move to another bug.

        Raises:
            Trouble: The lines before are not there, or are there more than once.
        """
        for hunk in self.hunks:
            lines = (tree / hunk.file).read_text().splitlines()
            length = len(hunk.before)
            places = sum(tuple(lines[at : at + length]) == hunk.before for at in range(len(lines) - length + 1))
            if places != 1:
                raise Trouble(f"{self.name}: what it changes is found {places} times in {hunk.file}")


def all_mutants(folder: Path = PATCHES) -> list[Mutant]:
    """Return the mutants of a folder by name."""
    return [mutant_of(path) for path in sorted(folder.glob("*.patch"))]


def mutant_of(path: Path) -> Mutant:
    """Read a mutant.

    Raises:
        Trouble: It is not there, or has no head.
    """
    if not path.is_file():
        raise Trouble(f"there is no mutant {path.stem!r}")
    head, dashes, rest = path.read_text().partition("\n--- ")
    breaks = re.findall(r"^Breaks: (.+)$", head, re.MULTILINE)
    lists = re.findall(r"^Killed-by: (.+)$", head, re.MULTILINE)
    says = re.match(r"(?!Breaks:|Killed-by:)\S.*", head)
    if not dashes or says is None or len(breaks) != 1 or not lists:
        raise Trouble(f"{path.name}: expected a sentence, one line `Breaks:`, lines `Killed-by:`, and a patch")
    # The parameters of a test may hold blanks.
    killed_by = tuple(test for line in lists for test in re.split(r"\s+(?=tests/)", line.strip()))
    hunks = tuple(_hunks_of((dashes + rest).lstrip("\n")))
    return Mutant(path.stem, path, says.group(), breaks[0], killed_by, hunks)


def _hunks_of(patch: str) -> list[Hunk]:
    hunks = []
    for part in re.split(r"^--- ", patch, flags=re.MULTILINE)[1:]:
        names, *bodies = re.split(r"^@@ .*\n", part, flags=re.MULTILINE)
        file = re.search(r"^\+\+\+ b/(\S+)", names, re.MULTILINE)
        if file is None:
            raise Trouble(f"expected a line `+++ b/...`, found {names!r}")
        for body in bodies:
            lines = body.splitlines()
            before = tuple(line[1:] for line in lines if line[:1] in {" ", "-"})
            after = tuple(line[1:] for line in lines if line[:1] in {" ", "+"})
            changed = max(sum(line.startswith(sign) for line in lines) for sign in "-+")
            hunks.append(Hunk(file.group(1), before, after, changed))
    return hunks


def applying_tool() -> str | None:
    """Return the tool that applies patches here, or None if there is none."""
    return shutil.which("git") or shutil.which("patch")


def apply(mutant: Mutant, tree: Path, *, only_check: bool = False) -> None:
    """Apply a mutant to a copy of the repository, or only see whether it applies.

    Raises:
        Trouble: It does not apply, or there is no tool.
    """
    tool = applying_tool()
    if tool is None:
        raise Trouble("mutants are applied by `git apply` or `patch`, and neither is installed")
    mutant.check_places(tree)
    if Path(tool).name == "git":
        command = [tool, "apply", *(["--check"] if only_check else []), str(mutant.path)]
    else:
        quietly = ["--batch", "--forward", "--fuzz=0", "--silent"]
        command = [tool, "-p1", *quietly, *(["--dry-run"] if only_check else []), "-i", str(mutant.path)]
    # A repository around the copy is none of its business.
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(tree.parent)}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Trouble(f"{mutant.name}: does not apply: {(done.stderr or done.stdout).strip()}")
