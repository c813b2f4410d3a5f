"""Whichever call of the storage fails, and however: the journal stops, and opening it again finds what it promised."""

from __future__ import annotations

import asyncio
import errno
import gc
import itertools
import random
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from posjournal_async import FileStorage, MemoryStorage
from posjournal_async.testing import CrashStorage, FaultyStorage, Luck, OrderingMonitor, RecordingStorage
from tests.effort import effort
from tests.faults.lives import CHANGES, LIVES, PATIENCE_SECONDS, Life, live, look_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from posjournal_async import Storage
    from posjournal_async.testing import Call, WrappedStorage

CODES = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE)
IN_PART = {"write_at", "write_durably_at", "remove_many"}
AS_A_WHOLE = {"open", "remove", "resize", "sync"}
KEEPS: dict[str, Callable[[int], int]] = {
    "none": lambda _: 0,
    "one byte": lambda _: 1,
    "half": lambda length: length // 2,
    "all but one": lambda length: length - 1,
    "all": lambda length: length,
}


@dataclass(frozen=True)
class Kind:
    """How a call fails."""

    once: bool
    code: int
    keep: str = "none"
    takes_effect: bool = False

    def of(self, inner: Storage, number: int) -> FaultyStorage:
        return FaultyStorage(
            inner,
            number,
            once=self.once,
            code=self.code,
            keep=KEEPS[self.keep],
            takes_effect=self.takes_effect,
        )


def kinds_for(what: str, turn: int, *, once: bool) -> list[Kind]:
    """Return the ways in which a call can fail; they take turns from call to call unless there is time for all."""
    effects: list[dict[str, Any]] = [{}]
    if what in IN_PART:
        effects = [{"keep": keep} for keep in KEEPS]
    elif what in AS_A_WHOLE:
        effects = [{"takes_effect": False}, {"takes_effect": True}]
    kinds = [Kind(once, code, **effect) for effect in effects for code in CODES]
    return effort([kinds[turn * 7 % len(kinds)]], kinds)


def leaked(recorder: RecordingStorage) -> Counter[str]:
    """Return how many handles of each partition were opened and not closed."""
    opened = Counter(
        event.call.partition for event in recorder.events if event.phase == "end" and event.call.what == "open"
    )
    closed = {(id(call.blob), call.partition) for call in recorder.calls(lambda call: call.what == "close")}
    return opened - Counter(partition for _, partition in closed)


def check_that_no_sync_is_tried_again(recorder: RecordingStorage) -> None:
    """Look that a blob whose sync failed is not synced again by the same journal (F2)."""
    failed: set[tuple[str, bytes | None]] = set()
    for event in recorder.events:
        call = event.call
        if call.what == "lock":
            failed.clear()  # another journal
        if call.what not in {"sync", "write_durably_at"}:
            continue
        if event.phase == "begin":
            assert (call.partition, call.name) not in failed, "an fsync was tried again"
        elif event.phase == "fail":
            failed.add((call.partition, call.name))


async def fail_at(number: int, inner: Storage, name: str, kind: Kind) -> tuple[FaultyStorage, Counter[str]]:
    """Let one call in a life fail, and see what the journal makes of it; return also the handles that are left open."""
    config, steps = LIVES[name]
    faulty = kind.of(inner, number)
    monitor = monitor_of(inner, faulty)
    recorder = RecordingStorage(monitor or faulty)
    life = Life(recorder, config, monitor=monitor)
    async with asyncio.timeout(PATIENCE_SECONDS):
        failed = await live(life, steps, faulty.failures, code=kind.code, reads_work=kind.once)
    if failed is None:
        changes = [call for call in faulty.failures if call.what in CHANGES]
        assert not changes, "a change failed, and the journal did not"
    if monitor is not None:
        monitor.check()
    check_that_no_sync_is_tried_again(recorder)
    for left in states_left(inner, number):
        await look_at(left, config, life.oracle)
    return faulty, leaked(recorder)


def monitor_of(inner: Storage, faulty: WrappedStorage) -> OrderingMonitor | None:
    """Return a monitor around a storage that fails; none on a `MemoryStorage`, for the sake of time."""
    return None if isinstance(inner, MemoryStorage) else OrderingMonitor(faulty)


def states_left(inner: Storage, seed: int) -> Iterator[Storage]:
    """Yield what the next opening may come upon: what is there, or what power cuts leave of it."""
    if isinstance(inner, CrashStorage):
        for luck in effort([(Luck.NONE, Luck.SOME)[seed % 2]], list(Luck)):
            yield inner.power_cut(random.Random(seed), luck)
    yield inner


async def calls_of(name: str, inner: Storage) -> list[Call]:
    """Return the storage calls of a life in which nothing fails."""
    recorder = RecordingStorage(inner)
    config, steps = LIVES[name]
    life = Life(monitor_of(inner, recorder) or recorder, config)
    assert await live(life, steps) is None
    return recorder.calls()


async def fail_each(
    name: str, storage_of: Callable[[], Storage], *, once: bool, only: Callable[[int, Call], bool]
) -> Counter[str]:
    """Let each call in a life fail for which `only` holds; return the handles that are left open after all that."""
    calls = await calls_of(name, storage_of())
    left_open: Counter[str] = Counter()
    kind = Kind(once, errno.EIO)
    for number, call in enumerate(calls, 1):
        if not only(number, call):
            continue
        for kind in kinds_for(call.what, number, once=once):
            try:
                faulty, leaks = await fail_at(number, storage_of(), name, kind)
                assert faulty.failures[0].what == call.what, "the life is not the same each time"
            except BaseException as error:
                error.add_note(f"{name}: call {number} of {len(calls)}, {call.what} in {call.partition}, {kind}")
                raise
            left_open += leaks
    faulty, leaks = await fail_at(len(calls) + 1, storage_of(), name, kind)
    assert not faulty.failures
    return left_open + leaks


@pytest.mark.parametrize("once", [True, False], ids=["once", "for ever"])
@pytest.mark.parametrize("name", LIVES)
@pytest.mark.parametrize("storage_of", [MemoryStorage, CrashStorage])
async def test_a_failure_of_any_call_loses_nothing_that_was_acknowledged(
    storage_of: Callable[[], Storage],
    name: str,
    once: bool,  # noqa: FBT001 - parameter
) -> None:
    """The journal refuses changes, shows what is durable, lets everything go, and opens again (D1, D2, F1, F2, F3)."""
    problems: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, problem: problems.append(problem))
    # On the simpler storage half of the calls fail once, and the others for ever, unless there is time for all.
    turns = effort(2 if storage_of is MemoryStorage else 1, 1)
    left_open = await fail_each(name, storage_of, once=once, only=lambda number, _: (number + once) % turns == 0)
    gc.collect()  # a failure that nobody looked at is complained about when it is collected
    assert not problems
    assert not left_open


@pytest.mark.parametrize("once", [True, False], ids=["once", "for ever"])
async def test_a_failure_of_any_write_and_sync_in_one_loses_nothing(once: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """The same holds on files, where bytes are written and synced in one call (D1, D2, F1, F2)."""
    roots = (tmp_path / str(number) for number in itertools.count())
    left_open = await fail_each(
        "alone", lambda: FileStorage(next(roots)), once=once, only=lambda _, call: call.what == "write_durably_at"
    )
    assert not left_open


async def test_the_lives_make_every_kind_of_call() -> None:
    """What the test above lets fail is all that a storage can do; otherwise it would show less than it says."""
    made = {call.what for name in LIVES for call in await calls_of(name, MemoryStorage())}
    blob = {"read_at", "write_at", "resize", "sync", "close"}
    assert made == blob | {"open", "scan", "remove", "remove_many", "lock", "release"}
