"""Opening what a crash left while the storage fails, crashing again, and opening once more."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from posjournal_async import Context, InvalidConfiguration, Journal, MemoryStorage, StorageError
from posjournal_async.testing import CrashStorage, FaultyStorage, Luck, OrderingMonitor, RecordingStorage
from tests.effort import effort
from tests.faults.lives import LIVES, PATIENCE_SECONDS, Life, live, opens_for_good
from tests.faults.test_failed_syncs import ForgetfulStorage
from tests.faults.test_storage_calls import kinds_for, leaked
from tests.format import writer

if TYPE_CHECKING:
    from posjournal_async import Config
    from posjournal_async.testing import Call
    from tests.faults.lives import Oracle
    from tests.faults.test_storage_calls import Kind

# The machine crashes in one of so many calls of a life that change something, and one of so many calls of the opening
# after that fails, or of its syncs; which ones differs from crash to crash.
CRASHES = effort(4, 1)
CALLS = effort(6, 1)
SYNCS = effort(3, 1)


@dataclass
class Crash:
    """What a crash left, and what recovery may find in it."""

    call: int
    left: CrashStorage
    oracle: Oracle
    config: Config[bytes]


async def crashes_in(name: str, rng: random.Random, *, killed: float) -> list[Crash]:
    """Live, and let the machine crash in every call that changes something, or in one of `CRASHES`.

    A share of the crashes, from 0 to 1, only kills the process: what was not synced can still be read.
    """
    storage = CrashStorage()
    config, steps = LIVES[name]
    life = Life(storage, config)
    crashes: list[Crash] = []

    def crash() -> None:
        if storage.calls % CRASHES == 0:
            left = storage.killed(rng) if rng.random() < killed else storage.power_cut(rng)
            crashes.append(Crash(storage.calls, left, life.oracle.copy(), config))

    storage.on_call = crash
    assert await live(life, steps) is None
    return crashes


async def calls_of_opening(crash: Crash) -> list[Call]:
    """Return the calls of an opening in which nothing fails."""
    recorder = RecordingStorage(crash.left.photo())
    journal = await Journal.init(Context(OrderingMonitor(recorder)), crash.config)
    calls = recorder.calls()
    await journal.close()
    return calls


async def fail_in_recovery(crash: Crash, number: int, kind: Kind) -> CrashStorage:
    """Let one call of an opening fail, and see that it lets go of everything; return what it left."""
    storage = crash.left.photo()
    faulty = kind.of(storage, number)
    monitor = OrderingMonitor(faulty)
    recorder = RecordingStorage(monitor)
    async with asyncio.timeout(PATIENCE_SECONDS):
        with pytest.raises(StorageError) as failed:
            await Journal.init(Context(recorder), crash.config)
    assert failed.value.errno == kind.code
    assert len(faulty.failures) > 0
    monitor.check()
    assert not leaked(recorder), "handles are open"
    return storage


@pytest.mark.parametrize("once", [True, False], ids=["once", "for ever"])
@pytest.mark.parametrize("name", ["alone", "at once", "opened again"])
async def test_a_failure_of_any_call_of_a_recovery_loses_nothing(name: str, once: bool) -> None:  # noqa: FBT001 - parameter
    """Fail, crash, and open again: what was acknowledged is there, and what is shown stays (D1, D2, D3, D6, F3)."""
    rng = random.Random(name)
    crashes = await crashes_in(name, rng, killed=0.25)
    for crash in crashes:
        calls = await calls_of_opening(crash)
        for number in range(1 + crash.call // CRASHES % CALLS, len(calls) + 1, CALLS):
            call = calls[number - 1]
            for kind in kinds_for(call.what, number, once=once):
                try:
                    left = await fail_in_recovery(crash, number, kind)
                    for state in states_left(left, rng):
                        await opens_for_good(state, crash.config, crash.oracle, rng)
                except BaseException as error:
                    error.add_note(f"{name}: crash in call {crash.call}, then call {number}, {call.what}, {kind}")
                    raise
    assert len(crashes) > 50 // CRASHES


@pytest.mark.parametrize("name", ["alone", "at once", "opened again"])
async def test_what_a_failed_sync_of_a_recovery_refused_is_written_again(name: str) -> None:
    """The next opening writes it anew, although it can be read and a sync alone would say OK (D3, F2)."""
    rng = random.Random(name)
    failed = 0
    for crash in await crashes_in(name, rng, killed=1.0):
        syncs = [call for call in await calls_of_opening(crash) if call.what == "sync"]
        for number in range(1 + crash.call // CRASHES % SYNCS, len(syncs) + 1, SYNCS):
            storage = crash.left.photo()
            with OrderingMonitor(ForgetfulStorage(storage, number)) as monitor, pytest.raises(StorageError):
                await Journal.init(Context(monitor), crash.config)
            failed += 1
            for state in states_left(storage, rng):
                try:
                    await opens_for_good(state, crash.config, crash.oracle, rng)
                except BaseException as error:
                    error.add_note(f"{name}: crash in call {crash.call}, then sync {number}")
                    raise
    assert failed > 10


def states_left(storage: CrashStorage, rng: random.Random) -> list[CrashStorage]:
    """Return what the next opening may come upon: what is there, or what a power cut leaves of it."""
    cut = storage.power_cut(rng, rng.choice(tuple(Luck)))
    return effort([rng.choice((storage, cut, cut))], [storage, cut])


async def test_an_opening_that_is_refused_says_why_though_a_close_fails_too() -> None:
    """Who is told of the close only would try again for ever; the lock is free in any case (F4)."""
    config, _ = LIVES["alone"]
    storage = MemoryStorage()
    await (await Journal.init(Context(storage), config)).close()
    failing = FaultyStorage(storage, 1, only=lambda call: call.what == "close")
    other = replace(config, items_per_section=config.items_per_section + 1)
    with pytest.raises(InvalidConfiguration) as refused:
        await Journal.init(Context(failing), other)
    assert [note for note in refused.value.__notes__ if "close" in note]
    await (await Journal.init(Context(storage), config)).close()


async def test_a_journal_of_a_later_version_is_refused_as_that_though_a_close_fails_too() -> None:
    """The checkpoint says so before anything else is opened; the lock is free in any case (F4)."""
    config, _ = LIVES["alone"]
    later = writer.checkpoint_slot(sequence=1, journal_id=1, items_per_section=10, durable=0, boundary=0, version=2)
    storage = CrashStorage.holding({(f"{config.partition}_checkpoint", "00" * 8): writer.checkpoint_blob([later])})
    failing = FaultyStorage(storage, 1, only=lambda call: call.what == "close")
    with pytest.raises(InvalidConfiguration) as refused:
        await Journal.init(Context(failing), config)
    assert [note for note in refused.value.__notes__ if "close" in note]
    await (await storage.lock(f"{config.partition}_checkpoint")).release()
