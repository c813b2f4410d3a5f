"""Errors that strace injects into the system calls of another process: the parent looks at what that one left."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from posjournal_async import Context, FileStorage, Journal
from tests.effort import effort
from tests.faults.worker import CONFIG, item_at
from tests.format.writer import read_journal
from tests.system.test_strace import why_not

CHECKOUT = Path(__file__).parents[2]

# The calls that are about a journal's files, and the errors that they give.
# `close` is not among them: strace would leave the descriptor open, which no system does. Nor is EROFS of `openat`,
# after which what is there is opened for reading: no system says so of a file that is missing.
ERRORS = {
    "fdatasync": ["EIO", "ENOSPC", "EDQUOT"],
    "fsync": ["EIO", "ENOSPC", "EROFS"],
    "ftruncate": ["EIO", "EROFS"],
    "flock": ["EIO"],
    "getdents64": ["EIO"],
    "mkdirat": ["ENOSPC", "EDQUOT", "EROFS"],
    "openat": ["EMFILE", "ENOSPC", "EIO"],
    "pread64": ["EIO"],
    "pwrite64": ["ENOSPC", "EIO", "EDQUOT"],
    "unlinkat": ["EIO", "EROFS"],
}


@pytest.fixture(autouse=True)
def _strace() -> None:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)


def paths_of(root: Path) -> list[str]:
    """Return strace's options for the calls that are about the journal's directories and files, and no others."""
    partitions = [root / f"orders_{part}" for part in ("data", "offsets", "checkpoint")]
    files = [partition / f"{section:016x}" for partition in partitions for section in range(4)]
    return [option for path in (root, *partitions, *files) for option in ("-P", str(path))]


def run(root: Path, *options: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Run the worker with calls traced and injected into; return what it said, and the calls."""
    trace = root.with_name(f"{root.name} trace")
    tracing = ["strace", "-f", "-qq", "-o", str(trace), *paths_of(root), *options]
    program = [sys.executable, "-m", "tests.faults.worker", str(root)]
    ended = subprocess.run([*tracing, *program], cwd=CHECKOUT, check=True, timeout=120, stdout=subprocess.PIPE)
    return [json.loads(line) for line in ended.stdout.splitlines()], trace.read_text().splitlines()


@pytest.fixture(scope="module")
def counts(tmp_path_factory: pytest.TempPathFactory) -> Counter[str]:
    """How often the worker makes each call when nothing is injected."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    said, calls = run(tmp_path_factory.mktemp("injection") / "root", "-e", f"trace={','.join(ERRORS)}")
    assert said[-1] == {"least": 14}
    # A call that another thread interrupts in the trace is listed a second time, as resumed.
    return Counter(found[1] for call in calls if (found := re.match(r"\d+ +(\w+)\(", call)))


async def check(root: Path, said: list[dict[str, Any]], error: str) -> None:
    """Hold what the worker left against what it said."""
    facts: dict[str, Any] = {"least": 0, "most": 0, "boundaries": [0]}
    for line in said:
        facts |= line
    failures = [facts[how] for how in ("not_opened", "failed", "not_closed") if how in facts]
    assert failures == [error]
    if "failed" in facts:
        assert [line["refused"] for line in said if "refused" in line] == [error] * 4
        assert facts["durable"] >= facts["least"]
        facts["least"] = facts["durable"]  # it was shown
    found = read_journal(root, "orders", after_crash=True)
    async with await Journal.init(Context(FileStorage(root)), CONFIG) as journal:
        bounds = journal.bounds()
        assert [pair async for pair in journal.replay(bounds.start)] == found
        assert bounds.start in facts["boundaries"]
        assert facts["least"] <= bounds.stop <= facts["most"]
        assert found == [(position, item_at(position)) for position in bounds]
        assert await journal.append(b"on it goes") == bounds.stop
        await journal.sync()
    assert read_journal(root, "orders") == [*found, (bounds.stop, b"on it goes")]


def chosen(name: str, count: int) -> list[tuple[int, str, bool]]:
    """Return which call of a name is to fail, with what, and whether all that follow fail too."""
    errors = ERRORS[name]
    every = [
        (number, errors[number % len(errors)], is_ever) for number in range(1, count + 1) for is_ever in (False, True)
    ]
    return effort([every[2 * (count // 2)], every[-1]], every)


@pytest.mark.parametrize("name", ERRORS)
async def test_an_error_of_a_real_system_call_loses_nothing(name: str, counts: Counter[str], tmp_path: Path) -> None:
    """What the other process was told to be durable is in its files; it stopped, and said why (D1, F1, F3)."""
    assert counts[name], "the call is not made"
    for number, error, is_ever in chosen(name, counts[name]):
        injected = f"{name}:error={error}:when={number}{'+' if is_ever else ''}"
        root = tmp_path / injected
        said, calls = run(root, "-e", f"trace={name}", "-e", f"inject={injected}")
        try:
            assert any(call.endswith("(INJECTED)") for call in calls)
            await check(root, said, error)
        except BaseException as failure:
            failure.add_note(f"{injected}: {said}")
            raise
