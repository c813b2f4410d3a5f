"""Write a stream into a journal, kill the writer half-way with SIGKILL, start it again, and compare with the source.

    python examples/demo.py                  a stream made here: one JSON line for each file of Python's library
    python examples/demo.py FILE             the lines of a file; `-` for standard input
    python examples/demo.py --journal DIR    keep the journal in DIR
    python examples/demo.py --look DIR       print what a kept journal holds

The writer is `ingest.py`, in a process of its own. Prints a report; the exit code is 0 if every line is in the
journal once, in order, and 1 if not.

SIGKILL ends the process and not the system: what was written and not synced survives it in the page cache. What a power
cut leaves is simulated by the tests.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ingest

from posjournal_async import Context, FileStorage, Journal

if TYPE_CHECKING:
    from collections.abc import Iterator

# A stream that is made here has at least so many lines, where the machine has files enough, and at most so many.
LEAST_LINES, MOST_LINES = 10_000, 20_000


def main() -> int:
    """Do what the command line says, and return the exit code."""
    parser = argparse.ArgumentParser(prog="demo", description="Write a stream, kill the writer, start again, compare.")
    parser.add_argument("file", nargs="?", metavar="FILE", help="lines to write; - for standard input")
    parser.add_argument("--journal", type=Path, metavar="DIR", help="keep the journal there")
    parser.add_argument("--look", type=Path, metavar="DIR", help="print what a kept journal holds")
    options = parser.parse_args()
    if options.look:
        return asyncio.run(look(options.look))
    if options.journal and (options.journal / "events_data").exists():
        parser.error(f"{options.journal} has a journal already; --look prints it, another directory takes a new one")
    with tempfile.TemporaryDirectory(prefix="posjournal-demo-") as temporary:
        source = Path(temporary) / "source"
        try:
            # A copy, since a file that grows meanwhile could not be compared with.
            title = copy_source(options.file, source)
        except OSError as error:
            parser.error(str(error))
        directory = options.journal or Path(temporary) / "journal"
        code = demonstrate(source, title, directory)
    if options.journal:
        row("journal", f"kept; to look at it: {sys.executable} {Path(__file__)} --look {options.journal}")
    return code


def copy_source(file: str | None, source: Path) -> str:
    """Write the stream to `source`, and return what it is."""
    with source.open("wb") as target:
        if file is None:
            for line in files_of_this_machine():
                target.write(line)
            return "files of this machine, beginning with Python's library"
        if file == "-":
            shutil.copyfileobj(sys.stdin.buffer, target)
            return "standard input"
        with Path(file).open("rb") as given:
            shutil.copyfileobj(given, target)
        return file


def files_of_this_machine() -> Iterator[bytes]:
    """Yield a JSON line for each file of Python's library; where these are few, for files of /usr/share too."""
    count = 0
    for root, enough in ((sysconfig.get_path("stdlib"), MOST_LINES), ("/usr/share", LEAST_LINES)):
        for directory, _, names in os.walk(root):
            for name in sorted(names):
                if count >= enough:
                    break
                path = Path(directory, name)
                try:
                    if not path.is_file():
                        continue
                    status = path.stat()
                    with path.open("rb") as content:
                        digest = hashlib.file_digest(content, "sha256").hexdigest()
                except OSError:
                    continue
                facts = {"path": str(path), "size": status.st_size, "mtime": status.st_mtime, "sha256": digest}
                yield json.dumps(facts).encode() + b"\n"
                count += 1


@dataclass
class Run:
    """What a run of the writer said.

    Attributes:
        opened: Size at the start, in items, and the fields of the `RecoveryReport`.
        acknowledged: Positions that it called durable.
        fsyncs: Commits of the data.
        seconds: Time from the first append to the last acknowledgement.
        was_killed: Whether it ended by the signal.
    """

    opened: dict[str, Any] = field(default_factory=dict)
    acknowledged: set[int] = field(default_factory=set)
    fsyncs: int = 0
    seconds: float = 0.0
    was_killed: bool = False


def write(source: Path, directory: Path, kill_at: int | None = None) -> Run:
    """Run the writer, and kill it as soon as `kill_at` events are acknowledged."""
    run = Run()
    command = [sys.executable, ingest.__file__, str(source), str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:  # noqa: S603 - our own file
        assert process.stdout is not None
        try:
            for line in process.stdout:
                # The kill may have cut the last line: what did not arrive was not acknowledged.
                if line.endswith(b"\n"):
                    note(json.loads(line), run)
                if kill_at is not None and run.opened and len(run.acknowledged) >= kill_at:
                    process.kill()
        except BaseException:
            process.kill()
            raise
    run.was_killed = process.returncode < 0
    if process.returncode > 0:
        sys.exit(f"the writer failed with exit code {process.returncode}; it says why above")
    return run


def note(message: dict[str, Any], run: Run) -> None:
    """Add a line of the writer to what it said so far."""
    if "opened" in message:
        run.opened = message["opened"]
    else:
        run.acknowledged.update(message["acknowledged"])
        run.fsyncs, run.seconds = int(message["fsyncs"]), message["seconds"]


@dataclass
class Comparison:
    """The lines of the source against the items of the journal, place by place.

    Attributes:
        lines: Lines of the source.
        right: Lines whose event stands at the position of their number.
        wrong: Positions that hold something else, or nothing where the source has a line.
        surplus: Items behind the last line.
        seconds: Time that the replay took, with the comparison.
    """

    lines: int = 0
    right: int = 0
    wrong: list[int] = field(default_factory=list)
    surplus: int = 0
    seconds: float = 0.0


async def compare(source: Path, directory: Path) -> Comparison:
    """Open the journal, replay it, and hold it against the source."""
    result = Comparison()
    start = time.perf_counter()
    async with await Journal.init(Context(FileStorage(directory)), ingest.CONFIG) as journal:
        replay = journal.replay(0)
        with source.open("rb") as lines:
            async for position, item in replay:
                line = lines.readline()
                if not line:
                    result.surplus += 1
                    continue
                result.lines += 1
                # Encoded, since NaN is not equal to itself, and 1 is equal to 1.0 and True.
                if position == result.lines - 1 and ingest.encode(item) == ingest.encode(ingest.event_of(line)):
                    result.right += 1
                else:
                    result.wrong.append(result.lines - 1)
            for _ in lines:
                result.wrong.append(result.lines)
                result.lines += 1
    result.seconds = time.perf_counter() - start
    return result


def demonstrate(source: Path, title: str, directory: Path) -> int:
    """Write, kill, write on, compare; print the report and return the exit code."""
    with source.open("rb") as lines:
        count = sum(1 for _ in lines)
    row("source", f"{count:,} lines: {title}")
    row("journal", f"{directory}{remark_on_file_system(directory)}")

    first = write(source, directory, kill_at=(count + 1) // 2)
    told = f"{len(first.acknowledged):,} events were acknowledged as durable"
    row("first run", f"killed (SIGKILL) when {told}" if first.was_killed else f"done before the kill arrived: {told}")

    second = write(source, directory)
    size, found = second.opened["size"], second.opened["recovery"]
    safe = sum(position < size for position in first.acknowledged)
    row("recovery", f"found {size:,} events: {safe:,} that were acknowledged, {size - safe:,} that were not yet")
    cut, dropped, rebuilt = found["bytes_cut"], found["items_dropped"], found["offsets_rebuilt"]
    row("", f"cut {cut:,} bytes, dropped {dropped:,} events, indexed {rebuilt:,} of its sections again")
    for remark in found["notes"]:
        row("", remark)
    row("second run", f"went on at position {size:,}, and wrote {len(second.acknowledged):,} events")

    durable = len(first.acknowledged) + len(second.acknowledged)
    seconds, fsyncs = first.seconds + second.seconds, first.fsyncs + second.fsyncs
    if fsyncs:
        row(
            "rate",
            f"{durable / seconds:,.0f} durable events/s from {ingest.TASKS} tasks, {durable / fsyncs:.1f} per fsync",
        )

    result = asyncio.run(compare(source, directory))
    row("replay", f"{result.right + result.surplus + len(result.wrong):,} events compared in {result.seconds:.2f} s")
    return verdict(result, first, second)


def verdict(result: Comparison, first: Run, second: Run) -> int:
    """Print what the comparison means, and return the exit code."""
    acknowledged = first.acknowledged | second.acknowledged
    lost = acknowledged.intersection(result.wrong)
    lost |= {position for position in first.acknowledged if position >= second.opened["size"]}
    if not (lost or result.wrong or result.surplus):
        row("verdict", "good: nothing acknowledged is missing, nothing is doubled, all in order")
        return 0
    row(
        "verdict",
        f"BAD: {len(lost):,} acknowledged events missing, {len(result.wrong):,} lines missing or in the wrong place, "
        f"{result.surplus:,} events too many",
    )
    return 1


async def look(directory: Path) -> int:
    """Print what a kept journal holds: its size, its first and its last events."""
    if not (directory / "events_data").exists():
        sys.exit(f"there is no journal in {directory}")
    async with await Journal.init(Context(FileStorage(directory)), ingest.CONFIG) as journal:
        row("positions", f"{journal.bounds().start:,} to {journal.size():,}, end exclusive")
        row("recovery", "nothing to repair" if journal.recovery.clean else str(journal.recovery))
        shown = sorted({*journal.bounds()[:3], *journal.bounds()[-3:]})
        for position, event in zip(shown, await journal.read_many(shown), strict=True):
            text = repr(event)
            row(f"{position:,}", text if len(text) <= 200 else f"{text[:200]}...")
    return 0


def remark_on_file_system(directory: Path) -> str:
    """Return a warning where an fsync reaches no device: then the rate says nothing."""
    mounts = Path("/proc/self/mounts")
    if not mounts.exists():
        return ""
    place = directory.resolve()
    kinds = {}
    for line in mounts.read_text(errors="replace").splitlines():
        _, mount, kind, *_ = line.split()
        kinds[Path(mount)] = kind
    kind = next((kinds[parent] for parent in (place, *place.parents) if parent in kinds), "")
    return " (in memory: an fsync costs nothing there)" if kind in ("tmpfs", "ramfs") else f" ({kind})" if kind else ""


def row(name: str, text: str) -> None:
    """Print a line of the report."""
    print(f"{name:<12}{text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
