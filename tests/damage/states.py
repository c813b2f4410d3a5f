"""Small journals in each state that they can be in: made by the journal itself, and laid out by the independent writer.

Three items a section, items of a few bytes: so small that each bit, each length and each pair of files can be tried.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

from posjournal_async import BytesCodec, Config, Context, Journal
from posjournal_async.testing import CrashStorage, Luck
from tests.format import writer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

__all__ = ["ITEMS_PER_SECTION", "Key", "Outcome", "State", "Tree", "crashed_states", "named_states"]

_T = TypeVar("_T")

ITEMS_PER_SECTION = 3

# Partition and name in hex, and the content: as `CrashStorage.tree` has it.
Key = tuple[str, str]
Tree = dict[Key, bytes]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What opening a journal may show.

    Attributes:
        starts: The boundary is one of these.
        low: The size is at least this.
        items: The items, by position; what is shown is a run of these.
        if_lost: Whether it counts only if the checkpoint, which says what was under way, is lost.
    """

    starts: tuple[int, ...]
    low: int
    items: Mapping[int, bytes]
    if_lost: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """A journal as its files are at a moment.

    Attributes:
        name: What was done to it.
        config: Its configuration.
        tree: Its files.
        outcomes: What it may show, one for each side of the call that a crash interrupted, if one did.
        earlier: How the files were before, oldest first.
        ever: All items that were ever appended at a position.
    """

    name: str
    config: Config[bytes]
    tree: Tree
    outcomes: tuple[Outcome, ...]
    earlier: tuple[Tree, ...]
    ever: Mapping[int, frozenset[bytes]]

    def older_copies(self, key: Key) -> list[bytes]:
        """Return what a file held at earlier moments and does not hold now."""
        copies = dict.fromkeys(tree[key] for tree in self.earlier if key in tree)
        copies.pop(self.tree.get(key, b""), None)
        return list(copies)


class Past:
    """A journal that is written to, and each state that it comes through."""

    def __init__(self, name: str, *, compression: int | None = None, seed: int = 0) -> None:
        self.name = name
        self.config: Config[bytes] = Config(
            partition="j", items_per_section=ITEMS_PER_SECTION, codec=BytesCodec(), compression=compression
        )
        self.named: list[State] = []
        self.crashed: list[State] = []
        self._padding = b"" if compression is None else b"-" * 60
        self._storage = CrashStorage()
        self._rng = random.Random(f"{name} {seed}")
        self._items: dict[int, bytes] = {}
        self._ever: dict[int, set[bytes]] = defaultdict(set)
        self._boundary = 0
        self._low = 0  # the durable size that the checkpoint states
        self._outcomes: tuple[Outcome, ...] = (self._now(),)
        self._trees: list[Tree] = []
        self._during_last: dict[tuple[str, str], tuple[CrashStorage, State]] = {}
        self._journal: Journal[bytes]

    # What is done.

    async def open(self) -> None:
        self._storage.on_call = self._photo
        await self._during(self._init())

    async def _init(self) -> None:
        self._journal = await Journal.init(Context(self._storage), self.config)
        assert dict([pair async for pair in self._journal.replay(self._journal.bounds().start)]) == self._items
        self._low = self._journal.size()

    async def append(self, count: int, history: str = "a", *, padding: bytes = b"") -> None:
        """Append items that name their position and their history; they stay in memory until something is synced."""
        for position in range(self._journal.size(), self._journal.size() + count):
            item = b"%d%s%s" % (position, history.encode() * (position % 3 + 1), self._padding + padding)
            self._items[position] = item
            self._ever[position].add(item)
            self._outcomes = (self._now(),)
            assert await self._journal.append(item) == position
            self._low = max(self._low, (position + 1) // ITEMS_PER_SECTION * ITEMS_PER_SECTION)
        self._outcomes = (self._now(),)

    async def sync_data(self) -> None:
        await self._during(self._journal.sync_data())

    async def sync(self) -> None:
        await self._during(self._journal.sync())
        self._low = self._journal.size()
        self._outcomes = (self._now(),)

    async def prune(self, position: int) -> None:
        was, size = self._boundary, self._journal.size()
        now = position // ITEMS_PER_SECTION * ITEMS_PER_SECTION
        sections = tuple(range(was // ITEMS_PER_SECTION * ITEMS_PER_SECTION, now + 1, ITEMS_PER_SECTION))
        # One flush of the directory removes them: any of them may be left, and without the others maybe the last.
        half_done = replace(self._now(sections, size if now < size else 0), if_lost=True)
        await self._during(self._journal.prune(position), self._now(), self._now((now,), size), half_done)
        self._boundary, self._low = now, size
        self._items = {at: item for at, item in self._items.items() if at >= now}
        self._outcomes = (self._now(),)

    async def rewind(self, size: int) -> None:
        self._low = min(self._low, size)
        await self._during(self._journal.rewind(size))
        self._low = size
        self._items = {at: item for at, item in self._items.items() if at < size}
        self._outcomes = (self._now(),)

    async def restart(self, size: int) -> None:
        """Close the journal as a crash would, and start it anew at a size."""
        await self.crash(Luck.ALL)
        outcomes = (self._now(), Outcome((size,), size, {}), self._half_removed())
        self._journal = await self._during(Journal.init_at_size(Context(self._storage), self.config, size), *outcomes)
        self._boundary = self._low = size
        self._items = {}
        self._outcomes = (self._now(),)

    async def close(self) -> None:
        await self._during(self._journal.close())
        self._low = self._boundary + len(self._items)
        self._outcomes = (self._now(),)

    async def destroy(self) -> None:
        await self._during(self._journal.destroy(), self._now(), Outcome((0,), 0, {}), self._half_removed())
        self._boundary = self._low = 0
        self._items = {}
        self._outcomes = (self._now(),)

    async def crash(self, luck: Luck) -> None:
        """Cut the power; what the journal wrote meanwhile is as it may be, and the journal of before is left alone."""
        self._storage.on_call = None
        after = self._storage.power_cut(self._rng, luck)
        await self._journal.close()
        self._storage = after
        found = await _items_of(after.photo(), self.config)
        self._items = {at: item for at, item in self._items.items() if at in found}
        self._outcomes = (self._now(),)
        self._storage.on_call = self._photo

    async def leave(self) -> None:
        """Let go of the journal; nothing of that is looked at."""
        self._storage.on_call = None
        await self._journal.close()

    def note(self, what: str) -> None:
        """Have the state of this moment tried under this name."""
        self.named.append(self._state(f"{self.name}: {what}", self._storage.tree(), self._outcomes))

    def note_during(self, what: str, call: str, partition: str, luck: Luck | None = None) -> None:
        """Have the state tried under this name that the last call of this kind was in the middle of.

        Without `luck` as it could be read then, else as a power cut left it.
        """
        photo, state = self._during_last[call, partition]
        tree = state.tree if luck is None else photo.power_cut(self._rng, luck).tree()
        self.named.append(replace(state, name=f"{self.name}: {what}", tree=tree))

    # What is kept.

    def _now(self, starts: tuple[int, ...] | None = None, low: int | None = None) -> Outcome:
        return Outcome(starts or (self._boundary,), self._low if low is None else low, dict(self._items))

    def _half_removed(self) -> Outcome:
        """Return what blobs that are being removed look like: whole sections that follow each other."""
        size = self._boundary + len(self._items)
        sections = range(self._boundary // ITEMS_PER_SECTION, size // ITEMS_PER_SECTION + 1)
        starts = tuple(max(section * ITEMS_PER_SECTION, self._boundary) for section in sections)
        return Outcome(starts, 0, dict(self._items), if_lost=True)

    def _state(self, name: str, tree: Tree, outcomes: Sequence[Outcome]) -> State:
        ever = {at: frozenset(items) for at, items in self._ever.items()}
        return State(name, self.config, tree, tuple(outcomes), tuple(self._trees), ever)

    async def _during(self, call: Awaitable[_T], *outcomes: Outcome) -> _T:
        self._outcomes = outcomes or (self._now(),)
        return await call

    def _photo(self) -> None:
        """Keep what a kill or a power cut now leaves, each different tree once."""
        call, partition, number, _ = self._storage.log[-1]
        what = f"{self.name}: call {self._storage.calls}, {call} {partition} {number}"
        photo = self._storage.photo()
        left = {
            "killed": photo,
            "all lost": photo.power_cut(self._rng, Luck.NONE),
            "power cut": photo.power_cut(self._rng),
            "power cut again": photo.power_cut(self._rng),
        }
        self._during_last[call, partition] = photo, self._state(what, photo.tree(), self._outcomes)
        known = [state.tree for state in self.crashed]
        for how, storage in left.items():
            tree = storage.tree()
            if tree not in known:
                known.append(tree)
                self.crashed.append(self._state(f"{what}, {how}", tree, self._outcomes))
        if photo.tree() not in self._trees:
            self._trees.append(photo.tree())


async def _items_of(storage: CrashStorage, config: Config[bytes]) -> dict[int, bytes]:
    async with await Journal.init(Context(storage), config) as journal:
        return dict([pair async for pair in journal.replay(journal.bounds().start)])


# What is done to journals.


async def _grow(past: Past) -> None:
    await past.open()
    past.note("empty")
    await past.append(1)
    await past.sync_data()
    past.note_during("one item, written and not synced", "sync", "j_data")
    past.note("one item, its data synced")
    await past.sync()
    past.note("one item, synced")
    await past.append(2)
    past.note("a full last section without a successor")
    await past.append(1)
    await past.sync()
    await past.append(1)
    await past.sync_data()
    past.note("the tail partly vouched for by the checkpoint")
    await past.append(3)
    await past.sync()
    past.note("several sections")
    await past.close()
    past.note("closed")


async def _prune(past: Past) -> None:
    await past.open()
    await past.append(8)
    await past.prune(4)
    past.note("one section")
    await past.append(1)
    await past.prune(9)
    past.note_during("on record, and nothing removed", "remove", "j_data", Luck.NONE)
    past.note_during("on record, and the data removed", "remove", "j_data")
    past.note("all")
    await past.append(1)
    await past.sync_data()
    past.note("all, and one item, its data synced")
    await past.close()
    past.note("all, and closed with one item")


async def _rewind(past: Past) -> None:
    await past.open()
    await past.append(8)
    await past.rewind(7)
    past.note("in the tail")
    await past.append(1, "b")
    await past.sync_data()
    past.note("in the tail, and written again with its data synced")
    await past.rewind(4)
    past.note_during("on record, and nothing cut", "remove", "j_data", Luck.NONE)
    past.note("over a section")
    await past.append(1, "b")
    await past.sync()
    past.note("over a section, and one item in its place")
    await past.append(5, "b", padding=b"longer")
    await past.sync()
    past.note("over a section, and grown again to more")
    await past.rewind(0)
    past.note("to nothing")
    await past.append(2, "c")
    await past.close()
    past.note("to nothing, and closed with two items")


async def _start(past: Past) -> None:
    await past.open()
    await past.restart(4)
    past.note("in the middle of a section")
    await past.append(1)
    await past.sync_data()
    past.note("in the middle, and one item, its data synced")
    await past.append(3)
    await past.sync()
    past.note("in the middle, and grown over its section")
    await past.append(4)
    await past.prune(7)
    past.note("in the middle, and pruned")


async def _reset(past: Past) -> None:
    await past.open()
    await past.append(7)
    await past.sync()
    await past.restart(7)
    past.note_during("on record, and nothing removed", "remove", "j_data", Luck.NONE)
    past.note_during("on record, and some of the data removed", "remove", "j_data", Luck.SOME)
    past.note_during("on record, and the data removed", "remove", "j_data")
    past.note("done")
    await past.append(1, "b")
    await past.sync_data()
    past.note("done, and one item, its data synced")
    await past.sync()
    await past.restart(7)
    past.note("done twice, and at the same size")
    await past.append(3, "c")
    await past.close()
    past.note("done twice, and closed with items")
    await past.open()
    await past.restart(1)
    await past.append(4, "d")
    await past.sync()
    past.note("done at less than before")


async def _recover(past: Past) -> None:
    await past.open()
    await past.append(4)
    await past.sync()
    await past.append(1)
    await past.sync_data()
    past.note("a checkpoint behind the data, an index shorter than it")
    await past.crash(Luck.NONE)
    await past.open()
    past.note("opened after a crash")
    await past.append(1, "b")
    await past.crash(Luck.SOME)
    await past.open()
    await past.append(3, "b")
    await past.sync_data()
    past.note("opened after a crash, and grown again")


async def _destroy(past: Past) -> None:
    await past.open()
    await past.append(5)
    await past.destroy()


_PASTS: tuple[tuple[str, int | None, Callable[[Past], Awaitable[None]]], ...] = (
    ("growing", None, _grow),
    ("compressed", 3, _grow),
    ("pruned", None, _prune),
    ("rewound", None, _rewind),
    ("started", None, _start),
    ("reset", None, _reset),
    ("recovered", None, _recover),
    ("destroyed", None, _destroy),
)


def named_states() -> list[State]:
    """Return one state of each kind."""
    return [*(state for past in _pasts() for state in past.named), *_laid_out()]


def crashed_states() -> list[State]:
    """Return what a kill or a power cut leaves in each call of all the above, and in more."""
    return [state for past in _pasts() for state in past.crashed]


@cache
def _pasts() -> list[Past]:
    # The salts are bytes that may be torn, and so decide how many states there are: the same in each run and process.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("secrets.randbits", random.Random(0).getrandbits)
        return asyncio.run(_live())


async def _live() -> list[Past]:
    pasts = []
    for name, compression, does in _PASTS:
        past = Past(name, compression=compression)
        await does(past)
        await past.leave()
        pasts.append(past)
    return pasts


def _laid_out() -> list[State]:
    """Return journals that the library had no hand in."""
    config: Config[bytes] = Config(partition="j", items_per_section=ITEMS_PER_SECTION, codec=BytesCodec())
    items = {position: b"item %d" % position for position in range(8)}
    states = []
    for what, start, durable in (("all durable", 0, 8), ("started in a section", 4, 8), ("half durable", 0, 4)):
        with tempfile.TemporaryDirectory() as name:
            root = Path(name)
            kept = {position: item for position, item in items.items() if position >= start}
            writer.write_journal(
                root, "j", items=list(kept.values()), first=start, items_per_section=ITEMS_PER_SECTION, durable=durable
            )
            tree = CrashStorage.of_files(root).tree()
        ever = {position: frozenset({item}) for position, item in kept.items()}
        outcome = Outcome((start,), durable, kept)
        states.append(State(f"laid out: {what}", config, tree, (outcome,), (), ever))
    return states
