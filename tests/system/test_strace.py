"""What the kernel is asked for, as strace sees it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from posjournal_async.mending.quarantine import MANIFEST
from tests.cli.test_repair import torn_journal

CHECKOUT = Path(__file__).parents[2]

COMMITTING = """
import asyncio, sys
from posjournal_async import BytesCodec, Config, Context, FileStorage, Journal

async def main(root, commits, tasks):
    config = Config(partition="orders", codec=BytesCodec())
    async with await Journal.init(Context(FileStorage(root)), config) as journal:
        await journal.append(b"the first one creates the section")
        await journal.sync()

        async def commit():
            for _ in range(commits // tasks):
                await journal.append(b"x" * 100)
                await journal.sync_data()

        await asyncio.gather(*(commit() for _ in range(tasks)))
        assert journal.durable_size() == commits // tasks * tasks + 1

asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
"""


@cache
def why_not() -> str | None:
    """Return why system calls cannot be traced here, or None."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run(["strace", "-f", "-o", os.devnull, "true"], capture_output=True, check=False)  # noqa: S607
    return None if tried.returncode == 0 else f"strace does not work here: {tried.stderr.decode().strip()}"


@pytest.fixture(autouse=True)
def _strace() -> None:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)


def calls_of(tmp_path: Path, commits: int, tasks: int) -> dict[str, int]:
    """Return how often a process that makes so many commits in so many tasks flushes and writes files."""
    trace = tmp_path / f"trace of {commits}"
    command = ["strace", "-f", "-qq", "-e", "trace=fdatasync,fsync,sync_file_range,msync,pwrite64", "-o", str(trace)]
    program = [sys.executable, "-c", COMMITTING, str(tmp_path / f"root of {commits}"), str(commits), str(tasks)]
    subprocess.run([*command, *program], cwd=CHECKOUT, check=True, timeout=120)
    # A call that another thread interrupts in the trace is listed a second time, as resumed.
    names = re.findall(r"^\d+ +(\w+)\(", trace.read_text(), re.MULTILINE)
    return {name: names.count(name) for name in set(names)}


def steps_of(tmp_path: Path, *command: str) -> list[tuple[str, str]]:
    """Return what a command of `posjournal` flushes and changes: system calls, each with the first path it names."""
    trace = tmp_path / "trace"
    calls = "fsync,fdatasync,pwrite64,ftruncate,unlink,unlinkat,rename,renameat,renameat2"
    tracing = ["strace", "-f", "-qq", "-y", "-e", f"trace={calls}", "-o", str(trace)]
    program = [sys.executable, "-m", "posjournal_async", *command]
    subprocess.run([*tracing, *program], cwd=CHECKOUT, check=True, capture_output=True, timeout=120)
    return re.findall(r"""^\d+ +(\w+)\((?:\d+<|")(.*?)[>"]""", trace.read_text(), re.MULTILINE)


def test_what_a_repair_takes_away_is_durable_elsewhere_before_it_goes(tmp_path: Path) -> None:
    """Each copy and each directory is flushed, the quarantine gets its name, durably; then the journal is touched."""
    # Not in one directory: that of the root is flushed too, for the root's name.
    root, aside = tmp_path / "root", tmp_path / "elsewhere" / "aside"
    aside.parent.mkdir()
    torn_journal(root)
    steps = steps_of(tmp_path, "repair", str(root / "orders"), "--cut-at", "5", "--yes", "--quarantine", str(aside))
    named = steps.index(("rename", f"{aside}.partial"))
    touched = next(number for number, (_, path) in enumerate(steps) if path.startswith(f"{root}/orders_"))
    copies = [str(path.relative_to(aside)) for path in aside.rglob("*")]
    assert {path.split("/")[0] for path in copies} == {MANIFEST, "orders_checkpoint", "orders_data", "orders_offsets"}
    flushed = {path for call, path in steps[:named] if call == "fsync"}
    assert flushed >= {f"{aside}.partial", *(f"{aside}.partial/{copy}" for copy in copies)}
    assert ("fsync", str(aside.parent)) in steps[named:touched]


def test_one_task_costs_one_fdatasync_and_one_write_a_commit(tmp_path: Path) -> None:
    """A thousand commits are a thousand flushes of the data, and nothing else is written or flushed (D1)."""
    idle = calls_of(tmp_path, 0, 1)
    busy = calls_of(tmp_path, 1_000, 1)
    assert idle["fdatasync"] > 0
    # Closing has something to commit now: data and offsets are durable again, and the checkpoint says so.
    assert busy["fdatasync"] - idle["fdatasync"] in range(1_000, 1_004)
    assert busy["pwrite64"] - idle["pwrite64"] in range(1_000, 1_004)
    assert busy["fsync"] == idle["fsync"]
    assert set(busy) == {"fdatasync", "fsync", "pwrite64"}


def test_many_tasks_share_their_flushes(tmp_path: Path) -> None:
    """256 tasks cost at most one flush for twenty commits (I3)."""
    idle = calls_of(tmp_path, 0, 256)
    busy = calls_of(tmp_path, 5_120, 256)
    assert busy["fdatasync"] - idle["fdatasync"] <= 5_120 / 20
    assert busy["pwrite64"] - idle["pwrite64"] <= 5_120 / 20
