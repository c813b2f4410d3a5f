"""Crash in every storage call of every short sequence of operations, recover, and hold the result against an oracle.

A state is a storage as one crash leaves it, and what is allowed at that moment; one that has been tried in its sequence
is not tried again. Each is opened under the ordering monitor and held against the oracle, loses all that the recovery
has not made durable, and is opened again: same files. For some of them each storage call inside the recovery is crashed
in turn, and for some the first append after it; what these leave are states too.

The seeds are fixed. An ordinary run tries more than 100,000 states and says how many at its end; a long one,
`python3 run.py long tests/recovery/test_crash_points.py`, more than 1,000,000.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import TYPE_CHECKING

import pytest

from posjournal_async.testing import CrashStorage, Luck
from tests.effort import STATES, effort
from tests.recovery.oracle import OPERATIONS, Allowed, Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SHORT = (
    *("append", "append beyond the buffer", "append past a section", "sync", "sync data"),
    *("prune", "rewind one", "rewind far", "reopen"),
)
LONGER = (*SHORT, "append", "append three", "sync data", "kill", "reset", "prune some", "destroy")

# Ways of a power cut that are tried in one storage call of a sequence of one, two and three operations.
WAYS = effort({1: 250, 2: 24, 3: 5}, {1: 1024, 2: 300, 3: 80})

# Blocks of random sequences, how many are in one, and of how many of their storage calls the crashes are tried.
BLOCKS = 30
SEQUENCES = effort(10, 30)
SHARE = effort(0.13, 1.0)


class Checker:
    """Checks states, each once.

    Attributes:
        count: How many were checked.
    """

    def __init__(self, items_per_section: int, rng: random.Random) -> None:
        self._items_per_section = items_per_section
        self._rng = rng
        self._seen: set[int] = set()
        self.count = 0

    async def check_photos(self, run: Run, ways: int, *, share: float = 1.0) -> None:
        """Check what crashes in a share of the calls that were photographed leave."""
        for call, (photo, allowed) in enumerate(run.photos):
            if self._rng.random() >= share:
                continue
            for way, (name, state) in enumerate(crashes(photo, ways, self._rng)):
                # What a kill leaves is more than can be read: what is pending stays so.
                key = hash((frozenset(state.tree().items()), id(allowed), call if name == "killed" else None))
                if key in self._seen:
                    continue
                self._seen.add(key)
                try:
                    await self.check(state, allowed, is_killed=name == "killed")
                except BaseException as error:
                    error.add_note(f"crash in call {call}, {name}, way {way} of {ways}")
                    raise

    async def check(self, state: CrashStorage, allowed: Allowed, *, is_killed: bool) -> None:
        """Recover what a crash left, hold it against what is allowed, and see that repairs are durable and final."""
        self.count += 1
        chance = self._rng.random()
        is_crashed_again = chance < 0.04
        run = Run(state, self._items_per_section, self._rng)
        if is_crashed_again:
            run.watch()
        async with run:
            state.on_call = None
            bounds, found = await run.contents()
            allowed.check(bounds, found)
            repaired = state.tree()
            again = state.power_cut(self._rng, Luck.NONE)
            async with self._unmonitored(again) as second:
                report = second.journal.recovery
                assert (report.items_dropped, report.bytes_cut, report.sections_removed) == (0, 0, 0)
                assert again.tree() == repaired, "a crash after recovery undoes it, or a second recovery changes files"
            if is_crashed_again:
                settled = Allowed.exactly(bounds, found)
                await self._check_second_crashes(run, allowed if is_killed else settled)
            elif chance > (0.7 if is_killed else 0.98):
                await self._go_on(run, Allowed.exactly(bounds, found))

    async def _check_second_crashes(self, run: Run, allowed: Allowed) -> None:
        """Check what crashes inside the recovery leave: after a power cut, exactly what it gives without them."""
        for call, (photo, _) in enumerate(run.photos):
            for left in (photo.killed(self._rng), photo.power_cut(self._rng), photo.power_cut(self._rng)):
                self.count += 1
                try:
                    async with self._unmonitored(left) as second:
                        allowed.check(*await second.contents())
                except BaseException as error:
                    error.add_note(f"second crash in call {call} of the recovery")
                    raise

    async def _go_on(self, run: Run, allowed: Allowed) -> None:
        """Append after the recovery, and crash that."""
        run.allowed = allowed
        run.number_items_from(900_000)
        run.photos.clear()
        run.watch()
        await run.append(1)
        await run.sync(data_only=True)
        run.storage.on_call = None
        for photo, then in run.photos:
            self.count += 1
            async with self._unmonitored(photo.power_cut(self._rng)) as second:
                then.check(*await second.contents())

    def _unmonitored(self, state: CrashStorage) -> Run:
        return Run(state, self._items_per_section, self._rng, is_monitored=False)


def crashes(photo: CrashStorage, ways: int, rng: random.Random) -> Iterator[tuple[str, CrashStorage]]:
    """Yield what a kill, and power cuts, leave."""
    yield "killed", photo.killed(rng)
    for state in photo.states(ways, rng.randrange(2**32)):
        yield "power cut", state


async def crash_in(
    operations: Sequence[str],
    quiet: int,
    *,
    items_per_section: int,
    seed: int,
    lengths: Sequence[int],
    ways: int,
    share: float = 1.0,
) -> int:
    """Run operations, check the crashes in all but the `quiet` first of them, and return how many states that were."""
    rng = random.Random(seed)
    checker = Checker(items_per_section, rng)
    try:
        run = Run(CrashStorage(), items_per_section, rng)
        run.lengths = lengths
        async with run:
            for number, operation in enumerate(operations):
                if number == quiet:
                    run.watch()
                await run.do(operation)
            run.photos.append((run.storage.photo(), run.allowed))
            run.storage.on_call = None
        await checker.check_photos(run, ways, share=share)
    except BaseException as error:
        error.add_note(f"{operations}, {items_per_section} items per section, seed {seed}, {lengths}, {ways} ways")
        raise
    return checker.count


@pytest.mark.parametrize("items_per_section", [2, 3])
@pytest.mark.parametrize("last", SHORT)
def test_a_crash_in_any_call_of_a_short_sequence_leaves_what_is_allowed(
    last: str, items_per_section: int, record_property: Callable[[str, object], None]
) -> None:
    """Of each sequence of up to three operations; the crash is in the last one (D1 to D6, A1, A2, A3, O1, O2)."""

    async def sequences() -> int:
        count = 0
        for length in (1, 2, 3):
            for seed, before in enumerate(itertools.product(SHORT, repeat=length - 1)):
                count += await crash_in(
                    (*before, last),
                    length - 1,
                    items_per_section=items_per_section,
                    seed=seed,
                    lengths=(6,),
                    ways=WAYS[length],
                )
        return count

    count = asyncio.run(sequences())
    assert count > 1_000
    record_property(STATES, count)


@pytest.mark.parametrize("block", range(BLOCKS))
def test_a_crash_in_any_call_of_a_long_history_leaves_what_is_allowed(
    block: int, record_property: Callable[[str, object], None]
) -> None:
    """The same after histories with resets, kills, removals, and items of several lengths."""

    async def sequences() -> int:
        count = 0
        for seed in range(block * SEQUENCES, (block + 1) * SEQUENCES):
            rng = random.Random(seed)
            operations = ["append past a section", *rng.choices(LONGER, k=rng.randrange(7, 24))]
            count += await crash_in(
                operations,
                1,
                items_per_section=rng.choice((1, 2, 3)),
                seed=seed,
                lengths=rng.choice(((6,), (1, 6, 40, 700))),
                ways=effort(3, 12),
                share=SHARE,
            )
        return count

    count = asyncio.run(sequences())
    assert count > 200
    record_property(STATES, count)


def test_the_sequences_use_all_operations() -> None:
    """None is forgotten."""
    assert set(LONGER) == set(OPERATIONS)
