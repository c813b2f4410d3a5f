"""The door of the repository: `python3 run.py demo`, `python3 run.py test`, and more for those who change it.

Needs Python 3.11 or newer, nothing else: the first run makes `.venv` beside this file and installs the library and the
tools there, later runs use it again until `pyproject.toml` changes.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

USAGE = """\
usage: python3 run.py demo [FILE|-]   write a stream into a journal, kill the writer half-way, start it again, compare
       python3 run.py test [ARGS]     the tests; ARGS go to pytest
       python3 run.py check           ruff, ruff format, mypy and pyright
       python3 run.py docs            build the documentation; every warning is an error
       python3 run.py long            all of the following at length: the tests, the mutants, an hour of fuzzing
       python3 run.py long ARGS       the tests at length; ARGS go to pytest
       python3 run.py mutants [NAMES] put known bugs into copies of the library, and see the tests find each
       python3 run.py fuzz [SECONDS]  throw what atheris makes up at the parsers and at whole journals;
                                      --replay TARGET FILE tries one input again
       python3 run.py pythons [NAMES] a part of the tests on uvloop, and on each other Python that is found
       python3 run.py bench [ARGS]    measure the library and what would be used instead, and write docs/performance;
                                      --quick takes a minute or two, --help tells the rest
"""

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"

# The dependency groups of pyproject.toml that a command needs; mypy looks at the tests too, and at what they import.
GROUPS: dict[str, tuple[str, ...]] = {
    "demo": (),
    "test": ("test",),
    "check": ("test", "lint"),
    "docs": ("test", "docs"),  # the reference shows the testing kit too, which needs pytest
    "long": ("test", "fuzz"),
    "mutants": ("test",),
    "fuzz": ("test", "fuzz"),
    "pythons": ("test",),
    "bench": ("bench",),
}

# Commands that are a module, which takes the arguments.
MODULES = {"mutants": "tests.mutants", "fuzz": "tests.fuzz", "pythons": "tests.pythons", "bench": "benchmarks"}

# It says that it needs Python 3.12, and runs on 3.11; pip takes that from nobody in a dependency group.
DURASTREAM = "durastream==0.0.1a3"

# One process for each core, and whoever is done helps the others.
IN_PARALLEL = ("-n", "auto", "--dist", "worksteal")

# Everything is read again, so that each warning is given again; nothing is fetched.
DOCS = ("-m", "sphinx", "-b", "html", "-E", "-a", "-n", "-W", "--keep-going", "-q")

CHECKS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy",),
    ("pyright", "--pythonpath", str(PYTHON)),
)


class Trouble(Exception):
    """What stands in the way, as a sentence."""


def main(arguments: list[str]) -> int:
    """Do what the command line says, and return the exit code."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    command, *rest = arguments
    if command not in GROUPS:
        print(USAGE, end="", file=sys.stderr)
        raise Trouble(f"there is no command {command!r}")
    alone = {"check": check, "docs": docs}
    if command in alone and rest:
        raise Trouble(f"{command} takes no arguments, and was given {' '.join(rest)}")
    prepare(GROUPS[command])
    if command == "bench":
        prepare_durastream()
    if command in alone:
        return alone[command]()
    if command == "test":
        return run("-m", "pytest", *IN_PARALLEL, *rest, cwd=ROOT)
    if command == "long":
        return at_length(rest)
    if command in MODULES:
        return run("-m", MODULES[command], *rest, cwd=ROOT)
    return run(str(ROOT / "examples" / "demo.py"), *rest)


def prepare(groups: tuple[str, ...]) -> None:
    """Make sure that `.venv` holds the library and these dependency groups, as pyproject.toml asks for them now."""
    wanted = hashlib.sha256(f"{ROOT}\n".encode() + (ROOT / "pyproject.toml").read_bytes()).hexdigest()
    stamps = {part: VENV / f"installed-{part}" for part in ("library", *groups)}
    missing = [part for part, stamp in stamps.items() if not (stamp.exists() and stamp.read_text() == wanted)]
    if not missing and PYTHON.exists():
        return
    print(f"run.py: installing into .venv, once: {', '.join(missing or stamps)} ...", file=sys.stderr, flush=True)
    if not is_usable():
        make()
        missing = list(stamps)
    # `pip install --group` came with pip 25.1; what a Python brings along is often older.
    install("--upgrade", "pip>=25.1")
    if "library" in missing:
        install("--editable", str(ROOT))
    for group in groups:
        if group in missing:
            install("--group", f"{ROOT / 'pyproject.toml'}:{group}")
    for part in missing:
        stamps[part].write_text(wanted)


def prepare_durastream() -> None:
    """Make sure that `.venv` holds durastream; where it cannot, say so, and go on without it."""
    stamp = VENV / "installed-durastream"
    if stamp.exists() and stamp.read_text() == DURASTREAM:
        return
    try:
        install("--no-deps", "--ignore-requires-python", DURASTREAM)
    except Trouble as trouble:
        print(f"run.py: durastream is left out: {trouble}", file=sys.stderr)
        return
    stamp.write_text(DURASTREAM)


def is_usable() -> bool:
    """Whether `.venv` has a Python that runs, is new enough, and has pip."""
    return PYTHON.exists() and run("-c", "import pip, sys; sys.exit(sys.version_info < (3, 11))", quiet=True) == 0


def make() -> None:
    """Make `.venv` afresh."""
    if importlib.util.find_spec("ensurepip") is None:
        package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
        raise Trouble(f"this Python cannot make .venv: it has no ensurepip (Debian and Ubuntu: apt install {package})")
    if subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=False).returncode:
        raise Trouble(f"`{sys.executable} -m venv --clear {VENV}` failed, and says why above")


def install(*arguments: str) -> None:
    """Let the pip of `.venv` install something."""
    if run("-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments):
        raise Trouble(
            f"`pip install {' '.join(arguments)}` failed, and says why above; "
            "it needs PyPI, or a mirror that pip is configured for"
        )


def at_length(arguments: list[str]) -> int:
    """Run the tests, trying as much as hours allow; all of them, the mutants and the fuzzer if nothing is named."""
    os.environ |= {"POSJOURNAL_TESTS": "long", "PYTEST_TIMEOUT": "0"}  # a test may take an hour
    code = run("-m", "pytest", *IN_PARALLEL, *arguments, cwd=ROOT)
    if arguments:
        return code
    # Those that find something do not keep the others from looking.
    del os.environ["POSJOURNAL_TESTS"]
    return max(code, run("-m", "tests.mutants", cwd=ROOT), run("-m", "tests.fuzz", "3600", cwd=ROOT))


def check() -> int:
    """Run all checks, also after one has failed, and return 1 if any did."""
    failed = []
    for tool, *rest in CHECKS:
        print(f"$ {' '.join([tool, *rest])}", flush=True)
        if run("-m", tool, *rest, cwd=ROOT):
            failed.append(" ".join([tool, *(argument for argument in rest[:1] if argument.isalpha())]))
    print(f"failed: {', '.join(failed)}" if failed else "all checks passed")
    return 1 if failed else 0


def docs() -> int:
    """Build the pages of `docs` into `build/docs`, and say where they are; return 1 if there was a warning."""
    built = ROOT / "build" / "docs"
    shutil.rmtree(built, ignore_errors=True)  # a page that is gone would stay
    code = run(*DOCS, "docs", str(built), cwd=ROOT)
    print("the documentation has errors" if code else f"built: {built / 'index.html'}")
    return 1 if code else 0


def run(*arguments: str, cwd: Path | None = None, quiet: bool = False) -> int:
    """Run the Python of `.venv`, and return its exit code."""
    errors = subprocess.DEVNULL if quiet else None
    process = subprocess.Popen([str(PYTHON), *arguments], cwd=cwd, stderr=errors)
    while True:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            # The child was interrupted too, and ends in its own way.
            continue
        return code if code >= 0 else 128 - code


if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036 - the sentence is for those who start it with an older one
        sys.exit(f"run.py: Python 3.11 or newer is needed; this is {sys.version.split()[0]} ({sys.executable})")
    try:
        sys.exit(main(sys.argv[1:]))
    except Trouble as trouble:
        print(f"run.py: {trouble}", file=sys.stderr)
        sys.exit(2)
