"""A sync fails and what it refused goes on being visible; the next one says OK and makes nothing of it durable."""

from __future__ import annotations

import asyncio
import errno
import random
from typing import TYPE_CHECKING, TypeVar

import pytest
from typing_extensions import override

from posjournal_async.testing import Call, CrashStorage, Luck, OrderingMonitor, WrappedStorage
from tests.effort import effort
from tests.faults.lives import LIVES, PATIENCE_SECONDS, Life, live, opens_for_good

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


class ForgetfulStorage(WrappedStorage):
    """A storage of which one sync fails in the way of a page cache.

    Attributes:
        failures: The call that failed, once it did.
    """

    def __init__(self, crashing: CrashStorage, fail_at: int) -> None:
        super().__init__(crashing)
        self._crashing = crashing
        self._fail_at = fail_at
        self._count = 0
        self.failures: list[Call] = []

    @override
    async def around(self, call: Call, go_on: Callable[[], Awaitable[T]]) -> T:
        if call.what == "sync":
            self._count += 1
            if self._count == self._fail_at:
                self.failures.append(call)
                self._crashing.fail_sync = call.partition
        return await go_on()


async def fail_sync(number: int, name: str, rng: random.Random) -> bool:
    """Let one sync in a life fail and check all there is to check; say whether the life has so many."""
    config, steps = LIVES[name]
    storage = CrashStorage()
    forgetful = ForgetfulStorage(storage, number)
    monitor = OrderingMonitor(forgetful)
    life = Life(monitor, config, monitor=monitor)
    async with asyncio.timeout(PATIENCE_SECONDS):
        failed = await live(life, steps, forgetful.failures, code=errno.EIO)
    monitor.check()
    assert (failed is None) == (not forgetful.failures), "a failed sync was not noticed"
    for state in [*(storage.power_cut(rng, luck) for luck in effort((Luck.NONE, Luck.SOME), tuple(Luck))), storage]:
        await opens_for_good(state, config, life.oracle, rng)
    return failed is not None


@pytest.mark.parametrize("name", LIVES)
async def test_what_a_failed_sync_refused_is_never_shown_as_durable(name: str) -> None:
    """Not by the journal, whose sync is not tried again; and an opening writes it again before showing it (D3, F2)."""
    rng = random.Random(name)
    number = 0
    is_more = True
    while is_more:
        number += 1
        try:
            is_more = await fail_sync(number, name, rng)
        except BaseException as error:
            error.add_note(f"{name}: sync {number}")
            raise
    assert number > 10
