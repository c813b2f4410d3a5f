"""Crash the outbox at every point, and see that it keeps its promises. To copy and to change: a day, and a check.

    pytest -p posjournal_async.testing.plugin examples/test_outbox.py
    pytest -p posjournal_async.testing.plugin examples/test_outbox.py --runxfail

The second line shows what the crashes make of the outboxes with a bug, and prints how to try each of them again.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from outbox import EagerOutbox, ForgetfulOutbox, HastyOutbox, Outbox

from posjournal_async import ItemPruned

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from posjournal_async.testing import CrashStorage
    from posjournal_async.testing.plugin import CrashPoints

Told = tuple[str, int, str]


async def a_day(kind: type[Outbox], storage: CrashStorage, tell: Callable[[Told], None]) -> None:
    """Do what the service does all day, and tell what the world outside sees of it."""

    async def accept(order: str) -> None:
        tell(("accepted", await outbox.accept(order), order))

    async def send(number: int, order: str) -> None:
        tell(("sent", number, order))

    async with await kind.open(storage) as outbox:
        await asyncio.gather(accept("Emma"), accept("Dune"))
        await outbox.deliver(send)
        await asyncio.gather(accept("Ulysses"), outbox.deliver(send), accept("Lolita"))
        await outbox.deliver(send)


async def check(kind: type[Outbox], storage: CrashStorage, told: Sequence[Told]) -> None:
    """Start the service again after a crash, let it go on, and hold it against what was told before."""
    sent = [(number, order) for what, number, order in told if what == "sent"]

    async def send(number: int, order: str) -> None:
        sent.append((number, order))

    async with await kind.open(storage) as outbox:
        await outbox.accept("Persuasion")
        await outbox.deliver(send)
        assert {(number, order) for what, number, order in told if what == "accepted"} <= set(sent)
        assert [number for number, _ in sorted(set(sent))] == list(range(len(set(sent))))


def bug(what: str, raises: type[BaseException]) -> Any:
    """Expect a test to fail; `--runxfail` shows how."""
    return pytest.mark.xfail(reason=what, raises=raises, strict=True)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "kind",
    [
        Outbox,
        pytest.param(HastyOutbox, marks=bug("acknowledges before it syncs", AssertionError)),
        pytest.param(EagerOutbox, marks=bug("sends orders before they are durable", AssertionError)),
        pytest.param(ForgetfulOutbox, marks=bug("drops orders before it is durable that they were sent", ItemPruned)),
    ],
)
async def test_an_accepted_order_is_delivered_whatever_crashes(kind: type[Outbox], crash_points: CrashPoints) -> None:
    """What was accepted is sent, before the crash or after it; no number stands for two orders."""
    await crash_points(partial(a_day, kind), partial(check, kind))
