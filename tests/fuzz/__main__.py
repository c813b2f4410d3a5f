"""Fuzz each target for its share of the time, each in a process of its own: `python -m tests.fuzz [SECONDS]`.

`python -m tests.fuzz --replay TARGET FILE` tries one input again, without atheris.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.targets import TARGETS

SECONDS = 60

# One input takes milliseconds; a process of Python with all it has imported needs some 100 MiB.
LIMITS = ("-timeout=20", "-rss_limit_mb=2048", "-malloc_limit_mb=1024")

# Time to start, to read the seeds, and for the last input to end.
GRACE_SECONDS = 120

ROOT = Path(__file__).parents[2]

USAGE = f"""\
usage: python3 run.py fuzz [SECONDS]               fuzz all targets; {SECONDS} s in total unless it says otherwise
       python3 run.py fuzz --replay TARGET FILE    try an input that was kept once more
targets: {", ".join(TARGETS)}
"""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of fuzzing a target.

    Attributes:
        code: The exit code of its process.
        executions: How many inputs were tried.
        coverage: How many places of the library they reached, as libFuzzer counts.
        found: Files with inputs that something was wrong with.
        output: What the process wrote.
    """

    code: int
    executions: int
    coverage: int
    found: list[Path]
    output: str


def main(arguments: list[str]) -> int:
    """Do what the command line says, and return the exit code: 1 if something was found."""
    if arguments[:1] == ["--replay"] and len(arguments) == 3 and arguments[1] in TARGETS:
        command = [
            sys.executable,
            "-m",
            "tests.fuzz.child",
            arguments[1],
            "--replay",
            str(Path(arguments[2]).resolve()),
        ]
        return subprocess.run(command, cwd=ROOT, check=False).returncode
    if len(arguments) > 1 or not all(argument.isdecimal() and int(argument) for argument in arguments):
        sys.stderr.write(USAGE)
        return 2
    seconds = int(arguments[0]) if arguments else SECONDS
    kept = Path(tempfile.mkdtemp(prefix="posjournal-fuzz-"))
    is_sound = True
    for name in TARGETS:
        result = fuzz(name, kept / name, max(seconds // len(TARGETS), 1))
        sys.stdout.write(f"{name}: {result.executions} inputs, {result.coverage} places reached\n")
        sys.stdout.flush()
        if result.code or result.found:
            is_sound = False
            sys.stderr.write(result.output)
            for path in result.found:
                sys.stdout.write(f"found: {path}\nagain: python3 run.py fuzz --replay {name} {path}\n")
    if is_sound:
        shutil.rmtree(kept)
    return 0 if is_sound else 1


def fuzz(name: str, folder: Path, seconds: int) -> Result:
    """Fuzz a target in a process of its own, and keep in `folder` what is found."""
    target = TARGETS[name]
    corpus, found = folder / "corpus", folder / "found"
    for part in (corpus, found):
        part.mkdir(parents=True)
    for number, seed in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed[: target.longest])
    limits = (*LIMITS, f"-max_total_time={seconds}", f"-max_len={target.longest}", f"-artifact_prefix={found}/")
    command = [sys.executable, "-m", "tests.fuzz.child", name, str(corpus), *limits, "-print_final_stats=1"]
    process = subprocess.run(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=seconds + GRACE_SECONDS,
        check=False,
    )
    output = process.stdout.decode(errors="replace")
    return Result(
        process.returncode,
        max(map(int, re.findall(r"^#(\d+)\s", output, re.MULTILINE)), default=0),
        max(map(int, re.findall(r"\bcov: (\d+)", output)), default=0),
        sorted(found.iterdir()),
        output,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
