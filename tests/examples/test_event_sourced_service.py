"""The bank of the example keeps every transfer, however its snapshots are called."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from posjournal_async import JournalLocked, MemoryStorage
from tests.examples.serving import example

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_snapshot_that_was_given_up_does_not_replace_a_newer_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread goes on when its caller is cancelled; the events that it lacks are dropped behind the next one."""
    module = example("event_sourced_service")
    storage = MemoryStorage()
    began, goes_on = threading.Event(), threading.Event()
    inside: list[int] = []
    most = 0

    def write_snapshot(directory: Path, position: int, accounts: dict[str, int]) -> None:
        nonlocal most
        inside.append(position)
        most = max(most, len(inside))
        began.set()
        assert goes_on.wait(30)
        write(directory, position, accounts)
        inside.remove(position)

    write = module.write_snapshot
    monkeypatch.setattr(module, "write_snapshot", write_snapshot)
    monkeypatch.setattr(module, "FileStorage", lambda _: storage)
    async with await module.Bank.open(tmp_path) as bank:
        await bank.transfer("world", "ann", 150)
        given_up = asyncio.create_task(bank.snapshot())
        assert await asyncio.to_thread(began.wait, 30)
        given_up.cancel()
        await asyncio.wait([given_up])
        await asyncio.gather(*(bank.transfer("ann", "bob", 1) for _ in range(150)))
        next_one = asyncio.create_task(bank.snapshot())
        for _ in range(200):
            await asyncio.sleep(0)
        goes_on.set()
        await next_one
    assert most == 1
    async with await module.Bank.open(tmp_path) as bank:
        assert (bank.snapshot_position, bank.replayed) == (151, 0)
        assert bank.balances() == {"world": -150, "ann": 0, "bob": 150}


async def test_a_bank_that_does_not_open_frees_its_journal(tmp_path: Path) -> None:
    """A snapshot that cannot be read keeps nobody from trying again, once it is mended."""
    module = example("event_sourced_service")
    async with await module.Bank.open(tmp_path) as bank:
        await bank.transfer("world", "ann", 1)
    snapshot = tmp_path / "snapshot.json"
    snapshot.write_text("{")
    caught: list[Any] = []
    for _ in range(2):
        with pytest.raises(ValueError, match="Expecting") as error:
            await module.Bank.open(tmp_path)
        caught.append(error)  # and with it all that its traceback refers to
    snapshot.unlink()
    async with await module.Bank.open(tmp_path) as bank:
        assert bank.balances() == {"world": -1, "ann": 1}


async def test_a_bank_whose_end_is_cancelled_is_closed_when_its_snapshot_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then nobody opens it: an older snapshot could take the place of one of the next bank."""
    module = example("event_sourced_service")
    began, goes_on, has_written = threading.Event(), threading.Event(), threading.Event()

    def write_snapshot(directory: Path, position: int, accounts: dict[str, int]) -> None:
        began.set()
        assert goes_on.wait(30)
        write(directory, position, accounts)
        has_written.set()

    write = module.write_snapshot
    monkeypatch.setattr(module, "write_snapshot", write_snapshot)
    bank = await module.Bank.open(tmp_path)
    await bank.transfer("world", "ann", 1)
    snapshot = asyncio.create_task(bank.snapshot())
    assert await asyncio.to_thread(began.wait, 30)
    leaving = asyncio.create_task(bank.__aexit__(None, None, None))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait([leaving])
    with pytest.raises(JournalLocked):
        await module.Bank.open(tmp_path)
    goes_on.set()
    await snapshot
    assert has_written.is_set()
    await bank.__aexit__(None, None, None)  # waits for the end that is under way
    async with await module.Bank.open(tmp_path) as again:
        assert (again.snapshot_position, again.balances()) == (1, {"world": -1, "ann": 1})
