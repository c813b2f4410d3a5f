"""Fixtures for all tests, and the check that a test leaves nothing running and nothing open."""

from __future__ import annotations

import asyncio
import inspect
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from hypothesis import settings

from posjournal_async import Context, FileStorage, MemoryStorage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from posjournal_async import Storage

_OPEN_HANDLES = Path("/proc/self/fd")

# How long a task that was told to end may take on a machine under load; one that ends takes a moment.
_PATIENCE_SECONDS = 10

# A slow machine is no defect of the journal.
settings.register_profile("ordinary", deadline=None)
settings.load_profile("ordinary")


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
def leaves_nothing_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Refuse open files of an asynchronous test below its directory, and tasks that go on after it."""
    function = getattr(request, "function", None)
    if not inspect.iscoroutinefunction(function):
        yield
        return
    needs_files = not {"tmp_path", "storage"}.isdisjoint(request.fixturenames)
    root = request.getfixturevalue("tmp_path") if needs_files else None
    request.getfixturevalue("ends_its_tasks")
    yield
    if root is not None:
        # A call whose waiter was cancelled is still finished by its thread, which nobody can be asked to wait for.
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while (found := _open_below(root)) and time.monotonic() < give_up:
            time.sleep(0.01)
        assert not found, "files are still open"


@pytest_asyncio.fixture
async def ends_its_tasks() -> AsyncIterator[None]:
    """Refuse tasks that do not end by themselves when the test is over."""
    yield
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others, timeout=_PATIENCE_SECONDS)
    left = [task for task in others if not task.done()]
    assert not left, "tasks go on"


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
