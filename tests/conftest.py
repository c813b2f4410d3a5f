"""Fixtures for all tests, and the check that a test leaves nothing running and nothing open."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from hypothesis import settings

from posjournal_async import Context, FileStorage, MemoryStorage
from tests.effort import STATES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from posjournal_async import Storage

_OPEN_HANDLES = Path("/proc/self/fd")

# How long a task that was told to end may take on a machine under load; one that ends takes a moment.
_PATIENCE_SECONDS = 10

# A slow machine is no defect of the journal. In CI the examples are the same each time, so that what is red there can
# be seen here; elsewhere every run tries others.
settings.register_profile("ordinary", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("ordinary")

# What a shell starts in the background ignores SIGINT, and so would the processes that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Nor is a defect to be hidden that only shows where the output of a process is buffered, as it is for users.
os.environ.pop("PYTHONUNBUFFERED", None)

# Another event loop for all tests but those that bring their own: POSJOURNAL_LOOP=uvloop.
if os.environ.get("POSJOURNAL_LOOP") == "uvloop":
    import uvloop

    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())


@pytest.fixture(params=["memory", "file"])
def storage(request: pytest.FixtureRequest) -> Storage:
    """A storage, empty: in memory, then in files."""
    if request.param == "memory":
        return MemoryStorage()
    root: Path = request.getfixturevalue("tmp_path")
    return FileStorage(root / "root")


@pytest.fixture
def context(storage: Storage) -> Context:
    """What a journal runs on, on each storage."""
    return Context(storage)


@pytest.fixture(autouse=True)
def asynchronous_tests_leave_nothing_behind(request: pytest.FixtureRequest) -> None:
    """Apply the check to tests that run on an event loop; the others have none."""
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("leaves_nothing_behind")


@pytest_asyncio.fixture
async def leaves_nothing_behind(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """Refuse tasks that do not end by themselves when the test is over, and files below its directory that stay open.

    What a cancelled caller left is finished by a thread, and then by the loop: both get the time for it.
    """
    needs_files = not {"tmp_path", "storage"}.isdisjoint(request.fixturenames)
    root = request.getfixturevalue("tmp_path") if needs_files else None
    yield
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others, timeout=_PATIENCE_SECONDS)
    left = [task for task in others if not task.done()]
    assert not left, "tasks go on"
    if root is not None:
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while (found := _open_below(root)) and time.monotonic() < give_up:
            gc.collect()  # a handle that a failing storage would not close goes with its owner
            await asyncio.sleep(0)
        assert not found, "files are still open"


def _open_below(root: Path) -> list[str]:
    if not _OPEN_HANDLES.exists():
        return []
    found = []
    for handle in _OPEN_HANDLES.iterdir():
        try:
            target = str(handle.readlink())
        except FileNotFoundError:  # the handle of this very listing
            continue
        if target.startswith(str(root)):
            found.append(target)
    return found


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell how many states after a crash were tried, in all processes of the run together."""
    found = [report for reports in terminalreporter.stats.values() for report in reports]
    reports = [report for report in found if getattr(report, "when", None) == "call"]
    properties = [pair for report in reports for pair in getattr(report, "user_properties", ()) if pair[0] == STATES]
    if properties:
        terminalreporter.write_line(f"{STATES}: {sum(count for _, count in properties):,}")
