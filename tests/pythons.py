"""The tests of what users see, on uvloop and on every other Python that is found here.

    python3 run.py pythons [NAME...]   3.13, say, or uvloop, or newest; without one, all of them

A Python is found if it is on the PATH as python3.13, or installed by pyenv. Each gets a `.venv-3.13` of its own beside
`.venv`, with the library and the tests' dependencies, as `pyproject.toml` asks for them now.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["main"]

ROOT = Path(__file__).resolve().parents[1]

# What differs between versions and loops is how tasks, futures and threads behave, and what the standard library does.
PART = (
    *("tests/test_append.py", "tests/test_read.py", "tests/test_replay.py", "tests/test_sync.py", "tests/test_tail.py"),
    *("tests/test_prune.py", "tests/test_rewind.py", "tests/test_closing.py", "tests/codecs"),
    *("tests/test_order_of_steps.py", "tests/test_docs.py", "tests/storage", "tests/kit"),
    *("tests/concurrency/test_tasks.py", "tests/concurrency/test_failures.py", "tests/concurrency/test_event_loop.py"),
    "tests/concurrency/test_eager_tasks.py",
    *("tests/recovery/test_recovery.py", "tests/system/test_process.py"),
)
# It counts the turns of the event loop, for which it looks into that of asyncio.
ASYNCIO_ONLY = ("tests/concurrency/test_cancellation.py",)
PYTEST = ("-m", "pytest", "-q", "-n", "auto", "--dist", "worksteal", "-p", "no:cacheprovider")

OLDEST = 11
NEWEST = 16


def main(names: list[str]) -> int:
    """Run the part on what is named, or on all there is; return 1 if it failed on any."""
    found = {"uvloop": Path(sys.executable), **pythons()}
    newest = list(found)[-1:]  # uvloop on this one, where there is no other
    named = [name for given in names for name in (newest if given == "newest" else [given])]
    names = list(dict.fromkeys(named))  # each once
    unknown = [name for name in names if name not in found]
    if unknown:
        print(f"not found: {', '.join(unknown)}; there are {', '.join(found)}", file=sys.stderr)
        return 2
    failed = [name for name in names or found if not passes(name, found[name])]
    print(f"failed on {', '.join(failed)}" if failed else f"passed on {', '.join(names or found)}", flush=True)
    return 1 if failed else 0


def pythons() -> dict[str, Path]:
    """Return the Pythons of other versions than this one that run here, by version."""
    found = {}
    for minor in range(OLDEST, NEWEST):
        version = f"3.{minor}"
        if sys.version_info[:2] == (3, minor):
            continue
        by_pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"))
        on_path = shutil.which(f"python{version}")
        for python in (*([Path(on_path)] if on_path else []), *by_pyenv):
            if subprocess.run([python, "-c", "import ensurepip"], capture_output=True, check=False).returncode == 0:
                found[version] = python
                break
    return found


def passes(name: str, python: Path) -> bool:
    """Say whether the part passes on it."""
    print(f"== {name}", flush=True)
    environment = dict(os.environ)
    part: tuple[str, ...] = PART
    if name == "uvloop":
        environment["POSJOURNAL_LOOP"] = "uvloop"
    else:
        python, part = prepared(name, python), (*PART, *ASYNCIO_ONLY)
    return subprocess.run([python, *PYTEST, *part], cwd=ROOT, env=environment, check=False).returncode == 0


def prepared(version: str, python: Path) -> Path:
    """Return the Python of a virtual environment of a version, which is made if it is missing or out of date."""
    place = ROOT / f".venv-{version}"
    stamp = place / "installed"
    wanted = hashlib.sha256(f"{ROOT}\n".encode() + (ROOT / "pyproject.toml").read_bytes()).hexdigest()
    inside = place / "bin" / "python"
    if not (stamp.exists() and stamp.read_text() == wanted):
        subprocess.run([python, "-m", "venv", "--clear", place], check=True)
        pip = (inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        subprocess.run([*pip, "--upgrade", "pip>=25.1"], check=True)
        subprocess.run([*pip, "--editable", ROOT, "--group", f"{ROOT / 'pyproject.toml'}:test"], check=True)
        stamp.write_text(wanted)
    return inside


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
