"""Crash in every storage call of every short sequence of operations, recover, and hold the result against an oracle.

`POSJOURNAL_CRASH_STATES` multiplies the states that are looked at: 10 for a longer run.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from posjournal_async import BytesCodec, Config, Context, Journal
from posjournal_async.testing import CrashStorage, Luck

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence
    from typing import Self

LENGTHENED = int(os.environ.get("POSJOURNAL_CRASH_STATES", "1"))

OPERATIONS = ("append", "append past a section", "sync data", "sync", "prune", "rewind one", "rewind far", "kill")
MORE_OPERATIONS = (*OPERATIONS, "append", "append three", "sync data", "reopen", "reset", "prune some", "destroy")


@dataclass(frozen=True)
class Allowed:
    """What a crash may leave at a moment.

    Attributes:
        items: Every item that may be found, by position.
        low: The size is at least this.
        high: The size is at most this.
        boundary: The pruning boundary.
        pruned: The boundary instead, if a prune is under way; all items are durable then.
        empty_at: If a reset or a removal is under way, the journal may be empty at this size instead.
    """

    items: Mapping[int, bytes]
    low: int = 0
    high: int = 0
    boundary: int = 0
    pruned: int | None = None
    empty_at: int | None = None

    def check(self, bounds: range, found: Sequence[tuple[int, bytes]]) -> None:
        assert [position for position, _ in found] == list(bounds)
        if self.empty_at is not None and bounds == range(self.empty_at, self.empty_at):
            return
        assert bounds.start in {self.boundary, self.boundary if self.pruned is None else self.pruned}
        low = self.low if bounds.start == self.boundary else self.high
        assert low <= bounds.stop <= self.high
        for position, item in found:
            assert item == self.items[position], f"position {position}"


class Run:
    """A journal on a storage that may crash, and an oracle beside it."""

    def __init__(self, storage: CrashStorage, items_per_section: int, rng: random.Random) -> None:
        self.storage = storage
        self.config: Config[bytes] = Config(partition="p", items_per_section=items_per_section, codec=BytesCodec())
        self.rng = rng
        self.allowed = Allowed({})
        self.photos: list[tuple[CrashStorage, Allowed]] = []
        self.lengths: Sequence[int] = (6,)
        self._serial = 0

    async def __aenter__(self) -> Self:
        self.journal = await Journal.init(Context(self.storage), self.config)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.storage.on_call = None
        await self.journal.close()

    def watch(self) -> None:
        """Take a photo in each storage call from now on."""
        self.storage.on_call = lambda: self.photos.append((self.storage.photo(), self.allowed))

    async def do(self, operation: str) -> None:
        await _DOES[operation](self)

    async def append(self, count: int) -> None:
        was = self.allowed
        items = [self._new_item() for _ in range(count)]
        appended = dict(enumerate(items, start=was.high))
        self.allowed = replace(was, items={**was.items, **appended}, high=was.high + count)
        await (self.journal.append(items[0]) if count == 1 else self.journal.append_many(items))
        sealed = self.allowed.high // self.config.items_per_section * self.config.items_per_section
        self.allowed = replace(self.allowed, low=max(was.low, sealed))

    async def sync(self, *, data_only: bool) -> None:
        await (self.journal.sync_data() if data_only else self.journal.sync())
        self.allowed = replace(self.allowed, low=self.allowed.high)

    async def prune(self, position: int) -> None:
        was = self.allowed
        boundary = max(position // self.config.items_per_section * self.config.items_per_section, was.boundary)
        self.allowed = replace(was, pruned=boundary)
        if await self.journal.prune(position):
            self.allowed = replace(was, low=was.high, boundary=boundary)
        else:
            self.allowed = was

    async def rewind(self, size: int) -> None:
        was = self.allowed
        size = max(size, was.boundary)
        self.allowed = replace(was, low=min(was.low, size))
        await self.journal.rewind(size)
        items = {position: item for position, item in was.items.items() if position < size}
        low = was.low if size == was.high else size
        self.allowed = replace(was, items=items, low=low, high=size)

    async def kill(self) -> None:
        killed = self.storage.killed(self.rng)
        on_call, self.storage.on_call = self.storage.on_call, None
        await self.journal.close()
        self.storage = killed
        self.storage.on_call = on_call and (lambda: self.photos.append((self.storage.photo(), self.allowed)))
        await self.reopen()

    async def reopen(self) -> None:
        self.journal = await Journal.init(Context(self.storage), self.config)
        size = self.journal.size()
        assert self.allowed.low <= size <= self.allowed.high
        items = {position: item for position, item in self.allowed.items.items() if position < size}
        self.allowed = replace(self.allowed, items=items, low=size, high=size)

    async def close_and_reopen(self) -> None:
        await self.journal.close()
        self.allowed = replace(self.allowed, low=self.allowed.high)
        await self.reopen()

    async def reset(self) -> None:
        await self.journal.close()
        size = self.allowed.high + self.rng.randrange(-1, 4) if self.allowed.high else 4
        self.allowed = replace(self.allowed, low=self.allowed.high, empty_at=size)
        self.journal = await Journal.init_at_size(Context(self.storage), self.config, size)
        self.allowed = Allowed({}, size, size, size)

    async def destroy(self) -> None:
        self.allowed = replace(self.allowed, empty_at=0)
        await self.journal.destroy()
        self.allowed = Allowed({})
        await self.reopen()

    def _new_item(self) -> bytes:
        # Of one length as a rule: what was discarded then lies exactly where new records end.
        self._serial += 1
        return str(self._serial).encode().rjust(self.rng.choice(self.lengths), b".")


_DOES: dict[str, Callable[[Run], Coroutine[object, object, None]]] = {
    "append": lambda run: run.append(1),
    "append three": lambda run: run.append(3),
    "append past a section": lambda run: run.append(run.config.items_per_section + 1),
    "sync data": lambda run: run.sync(data_only=True),
    "sync": lambda run: run.sync(data_only=False),
    "prune": lambda run: run.prune(run.allowed.high),
    "prune some": lambda run: run.prune(run.rng.randrange(run.allowed.high + 1)),
    "rewind one": lambda run: run.rewind(max(run.allowed.high - 1, 0)),
    "rewind far": lambda run: run.rewind(max(run.allowed.high - run.config.items_per_section - 1, 0)),
    "kill": Run.kill,
    "reopen": Run.close_and_reopen,
    "reset": Run.reset,
    "destroy": Run.destroy,
}


async def check(
    state: CrashStorage, allowed: Allowed, config: Config[bytes], rng: random.Random, *, go_on: bool
) -> None:
    """Recover what a crash left, hold it against what is allowed, and see that the repairs are durable and final."""
    async with Run(state, config.items_per_section, rng) as run:
        bounds = run.journal.bounds()
        found = [pair async for pair in run.journal.replay(bounds.start)]
        allowed.check(bounds, found)
        assert run.journal.durable_size() == bounds.stop
        repaired = state.tree()
        again = state.power_cut(rng, Luck.NONE)
        async with Run(again, config.items_per_section, rng) as second:
            report = second.journal.recovery
            assert (report.items_dropped, report.bytes_cut, report.sections_removed) == (0, 0, 0)
            assert again.tree() == repaired, "a crash after recovery undoes it, or a second recovery changes files"
        if not go_on:
            return
        run.allowed = Allowed(dict(found), bounds.stop, bounds.stop, bounds.start)
        run._serial = 900_000
        run.watch()
        await run.append(1)
        await run.sync(data_only=True)
        state.on_call = None
    for photo, then in run.photos:
        await check(photo.power_cut(rng), then, config, rng, go_on=False)


async def check_photos(run: Run, what: str, share: float) -> None:
    """Check states that crashes in a share of the calls that were photographed may leave."""
    rng = run.rng
    for number, (photo, allowed) in enumerate(run.photos):
        if rng.random() >= share:
            continue
        states = [("all lost", photo.power_cut(rng, Luck.NONE)), ("killed", photo.killed(rng))]
        states += [(f"power cut {nth}", photo.power_cut(rng)) for nth in range(2 * LENGTHENED)]
        for name, state in states:
            try:
                await check(state, allowed, run.config, rng, go_on=rng.random() < 0.25 or name == "killed")
            except BaseException as error:
                error.add_note(f"{what}, crash in call {number}, {name}")
                raise


async def crash_in(
    operations: Sequence[str], quiet: int, *, items_per_section: int, seed: int, lengths: Sequence[int], share: float
) -> None:
    """Run operations, and check a share of the crashes in all but the `quiet` first of them."""
    what = f"{operations}, {items_per_section} items per section, seed {seed}"
    rng = random.Random(seed)
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
    except BaseException as error:
        error.add_note(what)
        raise
    await check_photos(run, what, share * LENGTHENED)


@pytest.mark.parametrize("items_per_section", [2, 3])
@pytest.mark.parametrize("last", OPERATIONS)
def test_a_crash_in_any_call_of_a_short_sequence_leaves_what_is_allowed(last: str, items_per_section: int) -> None:
    """D1, D2, D4 and D6 for each sequence of up to three operations; the crash is in the last one."""

    async def sequences() -> None:
        for length in (0, 1, 2):
            for seed, before in enumerate(itertools.product(OPERATIONS, repeat=length)):
                share = 1.0 if length < 2 else 0.2
                await crash_in(
                    (*before, last), length, items_per_section=items_per_section, seed=seed, lengths=(6,), share=share
                )

    asyncio.run(sequences())


@pytest.mark.parametrize("seed", range(60 * LENGTHENED))
def test_a_crash_in_any_call_of_a_long_history_leaves_what_is_allowed(seed: int) -> None:
    """The same after histories with resets, reopenings, removals, and items of several lengths."""
    rng = random.Random(seed)
    operations = ["append past a section", *rng.choices(MORE_OPERATIONS, k=rng.randrange(4, 12))]
    lengths = rng.choice(((6,), (1, 6, 40, 700)))
    asyncio.run(crash_in(operations, 1, items_per_section=rng.choice((1, 2, 3)), seed=seed, lengths=lengths, share=0.3))
