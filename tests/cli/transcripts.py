"""What a command prints, beside what it is known to print, and journals in all states to try it on.

A transcript is a file of commands as one types them, each followed by what it prints: standard output as it is,
standard error behind `! `, and the exit code where it is not 0. `python -m tests.cli.transcripts NAME` writes one anew
from its commands; what has changed in it is then for somebody to read.
"""

from __future__ import annotations

import asyncio
import codecs
import fcntl
import hashlib
import os
import re
import shlex
import subprocess
import sys
import tempfile
from contextlib import ExitStack, chdir, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner, Result

from posjournal_async import Config, Context, FileStorage, Journal, MsgpackCodec
from posjournal_async.cli.app import posjournal
from tests.journals import damage

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = [
    "STATES",
    "agrees",
    "commands_in",
    "items_of",
    "locked",
    "made_journal",
    "made_states",
    "posjournal_run",
    "printed_by",
    "started",
    "transcript_of",
    "tree_hash",
]

CHECKOUT = Path(__file__).parents[2]
TRANSCRIPTS = Path(__file__).parent / "transcripts"

# The journals that `made_states` makes.
STATES = ("healthy", "torn", "corrupt", "pruned", "empty", "locked")

_INPUT = re.compile(r"printf '(?P<text>[^']*)' \| (?P<command>.*)")


def made_journal(
    root: Path, items: list[Any], codec: Any = None, *, first: int = 0, items_per_section: int = 10
) -> None:
    """Make a journal `orders` with these items, closed."""

    async def make() -> None:
        config = Config(partition="orders", codec=codec or MsgpackCodec(), items_per_section=items_per_section)
        context = Context(FileStorage(root))
        journal = await (Journal.init_at_size(context, config, first) if first else Journal.init(context, config))
        async with journal:
            if items:
                await journal.append_many(items)

    asyncio.run(make())


def items_of(root: Path) -> list[tuple[int, Any]]:
    """Return what opening the journal `orders` finds."""

    async def read() -> list[tuple[int, Any]]:
        async with Journal.open(root / "orders", items_per_section=10) as journal:
            return [pair async for pair in journal.replay(journal.bounds().start)]

    return asyncio.run(read())


@contextmanager
def made_states(place: Path) -> Generator[None]:
    """Make a journal `orders` in a directory for each state, of 25 orders in sections of 10, and go there."""
    items = [{"order": number, "paid": number % 2 == 0} for number in range(25)]
    for state in STATES:
        made_journal(place / state, [] if state == "empty" else items)
    with (place / "torn" / "orders_data" / "0000000000000002").open("ab") as file:
        file.write(b"\x20\0\0\0torn off")
    asyncio.run(damage(FileStorage(place / "corrupt"), 1, 100))

    async def prune() -> None:
        async with Journal.open(place / "pruned" / "orders", items_per_section=10) as journal:
            await journal.prune(12)

    asyncio.run(prune())
    with ExitStack() as stack:
        stack.enter_context(chdir(place))
        stack.enter_context(locked(Path("locked")))
        yield


@contextmanager
def locked(root: Path) -> Generator[None]:
    """Hold the lock of the journal `orders`."""
    lock = os.open(root / "orders_checkpoint", os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def posjournal_run(*arguments: str, text: str | bytes | None = None) -> Result:
    """Call the command in this process; what is a defect of it is raised here."""
    result = CliRunner().invoke(posjournal, list(arguments), input=text, prog_name="posjournal")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def commands_in(transcript: str) -> list[str]:
    """Return the commands of a transcript."""
    return [line.removeprefix("$ ") for line in transcript.splitlines() if line.startswith("$ ")]


def printed_by(line: str) -> str:
    """Return what a command prints, as a transcript has it."""
    text = b""
    command = line
    if found := _INPUT.fullmatch(line):
        text, command = codecs.decode(found["text"], "unicode_escape").encode("latin-1"), found["command"]
    name, *arguments = shlex.split(command)
    assert name == "posjournal"
    result = posjournal_run(*arguments, text=text)
    errors = "".join(f"! {told}\n" for told in result.stderr.splitlines())
    code = f"[exit {result.exit_code}]\n" if result.exit_code else ""
    return _same_everywhere(f"{result.stdout}{errors}{code}")


def _same_everywhere(text: str) -> str:
    """Return what a command printed, without what differs from run to run."""
    text = text.replace(f"process {os.getpid()}", "process 4711")
    text = text.replace(f'"lock_holder": {os.getpid()}', '"lock_holder": 4711')
    text = re.sub(r'(last_sync": "|last sync +)[-0-9T :+]{25}', r"\g<1>2026-01-31 12:00:00+00:00", text)
    return re.sub(r'"seconds":( ?)[0-9.]+', r'"seconds":\g<1>0.001', text)


def transcript_of(commands: list[str]) -> str:
    """Return the transcript of commands that are carried out one after the other on journals in all states."""
    with tempfile.TemporaryDirectory() as place, made_states(Path(place)):
        return "\n".join(f"$ {command}\n{printed_by(command)}" for command in commands)


def agrees(name: str) -> None:
    """Check that the commands of a transcript print what it says."""
    known = (TRANSCRIPTS / f"{name}.txt").read_text()
    assert transcript_of(commands_in(known)) == known


def tree_hash(root: Path) -> str:
    """Return what tells two trees apart: names, modes, lengths, times of changes, and contents."""
    found = hashlib.sha256()
    for path in sorted([root, *root.rglob("*")]):
        status = path.lstat()
        told = (str(path), status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        found.update(repr(told).encode())
        if path.is_file():
            found.update(path.read_bytes())
    return found.hexdigest()


@contextmanager
def started(*arguments: str, **options: Any) -> Generator[subprocess.Popen[bytes]]:
    """Start the command in a process of its own, which does not outlive the block."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(
        [sys.executable, "-m", "posjournal_async", *arguments], cwd=CHECKOUT, **{**pipes, **options}
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def main(names: list[str]) -> None:
    """Write transcripts anew."""
    for name in names:
        file = TRANSCRIPTS / f"{name}.txt"
        file.write_text(transcript_of(commands_in(file.read_text())))


if __name__ == "__main__":
    main(sys.argv[1:])
