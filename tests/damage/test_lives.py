"""Damage a journal, and let it live on through crashes and failures: what was sound stays, and it can be opened."""

from __future__ import annotations

import asyncio
import random
from functools import cache
from typing import TYPE_CHECKING

import pytest

from posjournal_async import Corruption
from posjournal_async.checkpoint import slots_in
from posjournal_async.testing import CrashStorage, Luck
from tests.damage.files import CHECKPOINT, packed
from tests.damage.kinds import Kind, damages_of
from tests.damage.lives import REFUSED, Life
from tests.damage.oracle import check_untouched
from tests.damage.states import Past, named_states
from tests.effort import STATES, effort
from tests.journals import limits_of
from tests.recovery.oracle import OPERATIONS, Allowed

if TYPE_CHECKING:
    from collections.abc import Callable

    from posjournal_async.format.checkpoint_slot import Slot
    from tests.damage.kinds import Damage
    from tests.damage.states import State, Tree

# Lives of a journal, steps of a life, and calls of a step in which a crash is tried.
LIVES = effort(12, 300)
STEPS = effort(4, 8)
CRASHES = effort(4, 12)

CHANGES = (*sorted({*OPERATIONS} - {"destroy"}), "upgrade")


# One life takes a moment; what takes longer hangs.
_PATIENCE_SECONDS = 60


async def _grown() -> list[State]:
    """Return journals of some sections more than the named ones have."""
    past = Past("long")
    await past.open()
    await past.append(14)
    await past.sync()
    await past.append(1)
    await past.sync_data()
    past.note("five sections")
    await past.prune(4)
    past.note("five sections, pruned")
    await past.rewind(13)
    await past.append(4, "b")
    past.note("six sections, rewound")
    await past.leave()
    return past.named


@cache
def _states() -> list[State]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("secrets.randbits", random.Random(0).getrandbits)
        return [*named_states(), *asyncio.run(_grown())]


STATES_TRIED = _states()


class Lives:
    """Lives of one state.

    Attributes:
        count: How many crashes and failures were recovered from.
    """

    def __init__(self, state: State) -> None:
        self.count = 0
        self._state = state
        self._kinds = {kind: list(damages_of(state, kind, random.Random(state.name), each_byte=False)) for kind in Kind}

    async def try_one(self, number: int) -> None:
        """Damage the files, once or twice, and live."""
        rng = random.Random(f"{self._state.name} {number}")
        damages = [damage for damage in (self._damage(rng) for _ in range(rng.choice((1, 1, 2)))) if damage]
        tree = self._damaged(damages)
        told: list[str] = []
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("secrets.randbits", random.Random(number).getrandbits)  # as in `named_states`
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    await self._live(tree, rng, told)
        except BaseException as error:
            for damage in damages:
                error.add_note(f"damage: {damage.kind.value}, {damage.keys}, {damage.what}")
            error.add_note(f"state: {self._state.name}, life {number}: {', '.join(told)}")
            error.add_note(f"files, by tests.damage.files.unpacked: {packed(tree)}")
            raise

    def _damage(self, rng: random.Random) -> Damage | None:
        damages = self._kinds[rng.choice(list(Kind))]
        return rng.choice(damages) if damages else None

    def _damaged(self, damages: list[Damage]) -> Tree:
        """Return the files with all damages; where two are to the same file, with the last of them."""
        tree = dict(self._state.tree)
        for damage in damages:
            made = damage.make()
            tree = {key: content for key, content in tree.items() if key not in damage.keys}
            tree |= {key: made[key] for key in damage.keys if key in made}
        return tree

    async def _live(self, tree: Tree, rng: random.Random, told: list[str]) -> None:
        life = Life(CrashStorage.holding(tree), rng, compression=self._state.config.compression)
        looked_at = Life(CrashStorage.holding(tree), rng, compression=life.compression)
        try:
            async with looked_at:
                life.allowed = Allowed.exactly(*await looked_at.contents())
        except Corruption as refused:
            await self._reset(tree, rng, str(refused))
            return
        life.number_items_from(900_000)
        told.append("init")
        life.watch()  # the opening, too
        async with life:
            await self._check_crashes(life, rng)
            for _ in range(STEPS):
                operation = rng.choice(CHANGES)
                if rng.random() < 0.2:
                    told.append("rot")
                    await life.rot()
                if rng.random() < 0.3:
                    told.append(f"failing {operation}")
                    life.storage.on_call = None
                    await life.do_and_fail(operation)
                    self.count += 1
                else:
                    told.append(operation)
                    life.watch()
                    await life.do(operation)
                    await self._check_crashes(life, rng)
            life.storage.on_call = None
            life.allowed.check(*await life.contents())

    async def _check_crashes(self, life: Life, rng: random.Random) -> None:
        life.storage.on_call = None
        photos = [*life.photos, (life.storage.photo(), life.allowed)]
        life.photos.clear()
        for photo, allowed in rng.sample(photos, min(CRASHES, len(photos))):
            await self._crash(photo, allowed, life, rng)

    async def _crash(
        self,
        photo: CrashStorage,
        allowed: Allowed,
        life: Life,
        rng: random.Random,
        *,
        excuse: Callable[[Tree], bool] = lambda _: False,
    ) -> None:
        """Crash in a call, recover, and recover once more; not where there is an excuse for what the crash has left."""
        self.count += 1
        is_killed = rng.random() < 0.3
        left = photo.killed(rng) if is_killed else photo.power_cut(rng, rng.choice(list(Luck)))
        before = left.tree()
        if excuse(before):
            return
        first = Life(left, rng, compression=life.compression, version=life.version)
        first.allowed = allowed
        async with first:
            bounds, found = await first.contents()
            allowed.check(bounds, found)
            repaired = left.tree()
            check_untouched(before, repaired)
            again = left.power_cut(rng, Luck.NONE)
        async with Life(again, rng, compression=life.compression, version=life.version) as second:
            bounds_again, found_again = await second.contents()
            assert limits_of(bounds_again) == limits_of(bounds)
            # A rewind that was killed may have begun to write an index again: what is durable is as good, or better.
            lost = [pair for pair in found if pair not in found_again and not (is_killed and pair[1] == REFUSED)]
            assert not lost, f"{lost} changed after a recovery"
            undone = {key for key, content in again.tree().items() if repaired.get(key) != content}
            assert all(key[0] == "j_offsets" and is_killed for key in undone), f"{undone} changed after a recovery"

    async def _reset(self, tree: Tree, rng: random.Random, refused: str) -> None:
        """Begin a journal anew that cannot be opened; a crash leaves it as it is, or the new one."""
        life = Life(CrashStorage.holding(tree), rng, compression=self._state.config.compression)
        size = rng.randrange(12)
        life.watch()
        await life._open(size)
        begun = [photo for photo, _ in life.photos]
        life.photos.clear()
        life.allowed = Allowed({}, size, size, size)
        # The first bytes of a slot that is torn may put right what was damaged there: the old journal is back.
        healed = set(_slots_of(self._state.tree)) - set(_slots_of(tree))
        life.number_items_from(900_000)
        await life.append(2)
        await life.sync(data_only=True)
        await self._check_crashes(life, rng)
        await life.journal.close()
        new = Allowed({}, size, size, size)
        for photo in begun:
            try:
                await self._crash(photo, new, life, rng, excuse=lambda left: not healed.isdisjoint(_slots_of(left)))
            except Corruption as error:
                assert str(error) == refused  # noqa: PT017 - a crash may as well leave it done


def _slots_of(tree: Tree) -> list[Slot]:
    found, _ = slots_in(tree.get(CHECKPOINT, b""), CHECKPOINT[0])
    return [slot for slot, _ in found]


@pytest.mark.parametrize("state", STATES_TRIED, ids=[state.name for state in STATES_TRIED])
async def test_a_damaged_journal_lives_on(state: State, record_property: Callable[[str, object], None]) -> None:
    """D1 to D6, F1, F4, F5, A3: damage is no excuse for what a crash or a failure may not do."""
    lives = Lives(state)
    for number in range(LIVES):
        await lives.try_one(number)
    record_property(STATES, lives.count)
