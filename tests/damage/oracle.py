"""What may come of a damage: hold it against that, and say which it was.

In general: the same items, or `Corruption`, or above the durable size that the checkpoint states fewer items and a
report. What cannot be told from a crash, or from the journal as it once was, is allowed here by name, and no more:

* The checkpoint is lost, and there is no blob else: that is a journal that never was. It opens empty at 0.
* A call was under way and its entry in the checkpoint is damaged: the call has not begun. If the whole checkpoint is
  lost, the journal begins with the first section that is left, and ends with the last: that of a prune of all items
  need not be the last one that there was.
* An older copy of the checkpoint: it says what it said then, the durable size and the boundary included. No item goes
  by that, unless it has a reset on record.
* An older copy of a data blob that was cut since then, by a rewind or by recovery: it holds what it held then.
"""

from __future__ import annotations

import asyncio
import enum
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from posjournal_async import Context, Corruption, FileStorage, Journal
from posjournal_async.testing import CrashStorage
from tests.damage.files import CHECKPOINT, find, items_in, packed, records_in, slots_in
from tests.damage.kinds import Kind
from tests.damage.states import ITEMS_PER_SECTION
from tests.journals import limits_of

if TYPE_CHECKING:
    from pathlib import Path

    from posjournal_async import RecoveryReport
    from tests.damage.kinds import Damage
    from tests.damage.states import Outcome, State, Tree

__all__ = ["Bench", "Came", "check_untouched"]

_NEW = b"an item that was never there"

# One opening takes a moment; what takes longer hangs.
_PATIENCE_SECONDS = 60


class Came(enum.Enum):
    """What came of a damage."""

    SAME = "the same items"
    FEWER = "fewer items, above the durable size"
    REFUSED = "refused to open"
    UNREADABLE = "opened, and some items refused"
    OLDER = "a journal as it once was"


@dataclass(frozen=True, slots=True)
class Shown:
    """What an open journal shows.

    Attributes:
        bounds: Its positions.
        items: Those that can be read.
        report: What opening it said.
        after: Its files when it was open.
    """

    bounds: range
    items: dict[int, bytes]
    report: RecoveryReport
    after: Tree

    @property
    def unreadable(self) -> list[int]:
        """Positions whose items were refused."""
        return [position for position in self.bounds if position not in self.items]


@dataclass(slots=True)
class Bench:
    """Damages the files of one state, and looks what comes of it.

    Attributes:
        state: The state.
        root: A directory of its own, for files.
        came: How often what came.
    """

    state: State
    root: Path
    came: Counter[Came] = field(default_factory=Counter[Came])
    sound: Shown = field(init=False)

    async def prepare(self) -> None:
        """Look at the state without damage."""
        state = self.state
        shown = await self._show(CrashStorage.holding(state.tree))
        assert isinstance(shown, Shown), shown
        assert not shown.unreadable
        assert any(_fits(shown, outcome) for outcome in state.outcomes if not outcome.if_lost), shown
        self.sound = shown

    async def check(self, damage: Damage, *, in_files: bool = False) -> None:
        """Damage the files, open and read them twice, and refuse what may not come of it."""
        tree = damage.make()
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                came = await self._came_of(damage, tree, in_files=in_files)
        except BaseException as error:
            error.add_note(f"state: {self.state.name}\ndamage: {damage.kind.value}, {damage.keys}, {damage.what}")
            error.add_note(f"files, by tests.damage.files.unpacked: {packed(tree)}")
            raise
        self.came[came] += 1

    async def check_change(self, damage: Damage, turn: int) -> None:
        """Rewind, append and prune where files are damaged: refused, or right; and it can be opened after that."""
        tree = damage.make()
        place = CrashStorage.holding(tree)
        first = await self._show(place)
        if isinstance(first, Corruption):
            return
        sizes = range(first.bounds.start, first.bounds.stop + 1)
        size = sizes[turn % len(sizes)]
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._change(place, first, size)
        except BaseException as error:
            error.add_note(f"state: {self.state.name}\ndamage: {damage.kind.value}, {damage.keys}, {damage.what}")
            error.add_note(f"rewind to {size}\nfiles, by tests.damage.files.unpacked: {packed(tree)}")
            raise

    async def _change(self, place: CrashStorage, first: Shown, size: int) -> None:
        async with await Journal.init(Context(place), self.state.config) as journal:
            try:
                await journal.rewind(size)
            except Corruption:  # nothing was changed
                size = first.bounds.stop
            assert await journal.append(_NEW) == size
            await journal.sync()
            kept = {position: item for position, item in first.items.items() if position < size}
            for position, item in kept.items():
                assert await journal.read(position) == item
            with suppress(Corruption):
                await journal.prune(max(size - ITEMS_PER_SECTION, 0))
            bounds = journal.bounds()
        shown = await self._show(place)
        assert isinstance(shown, Shown), "it cannot be opened any more"
        assert shown.bounds == bounds
        kept = {position: item for position, item in kept.items() if position in bounds}
        assert {position: shown.items.get(position) for position in kept} == kept
        assert shown.items[size] == _NEW
        gone = set(first.items) - set(kept)
        assert not gone & set(shown.items) - {size}, "a discarded item is back"

    async def _came_of(self, damage: Damage, tree: Tree, *, in_files: bool) -> Came:
        place: FileStorage | CrashStorage = CrashStorage.holding(tree)
        if in_files:
            place = FileStorage(self.root / "journal")
            await self._put(place, tree)
        first = await self._show(place)
        left = self._tree_in(place)
        again = await self._show(place)
        assert self._tree_in(place) == left, "opening it again changed files (D6)"
        if isinstance(first, Corruption):
            # An empty checkpoint in the place of one that was deleted is as good as none.
            assert left in (tree, {CHECKPOINT: b"", **tree}), "an opening that was refused has changed files (F4)"
            assert str(again) == str(first), "the same error comes at the next try (F4)"
            return Came.REFUSED
        assert isinstance(again, Shown), again
        assert (limits_of(again.bounds), again.items) == (limits_of(first.bounds), first.items)
        assert first.after == left, "reading or closing changed files"
        check_untouched(tree, first.after)
        return self._judge(damage, tree, first)

    # What is allowed.

    def _judge(self, damage: Damage, tree: Tree, shown: Shown) -> Came:
        for position, item in shown.items.items():
            assert item in self.state.ever.get(position, ()), f"position {position}: an item that was never there"
        self._check_report(tree, shown)
        if damage.kind is Kind.OLDER:
            return self._judge_older(damage, tree, shown)
        self._check_unreadable(damage, shown)
        if (limits_of(shown.bounds), shown.items) == (limits_of(self.sound.bounds), self.sound.items):
            return Came.SAME
        if CHECKPOINT in damage.keys:
            return self._judge_checkpoint(tree, shown)
        assert any(partition == "j_data" for partition, _ in damage.keys), "an index is no item (A3)"
        assert self._is_prefix(shown), f"expected {self.sound}, found {shown}"
        return Came.UNREADABLE if shown.unreadable else Came.FEWER

    def _is_prefix(self, shown: Shown) -> bool:
        """Whether it shows the sound journal, some positions refused, or fewer above the durable size."""
        slots = slots_in(self.state.tree)
        low = slots[0].durable if slots and slots[0].reset is None else 0
        return (
            shown.bounds.start == self.sound.bounds.start
            and max(low, shown.bounds.start) <= shown.bounds.stop <= self.sound.bounds.stop
            and all(self.sound.items[position] == item for position, item in shown.items.items())
        )

    def _judge_checkpoint(self, tree: Tree, shown: Shown) -> Came:
        """Another journal is shown, and the checkpoint is damaged."""
        slots = slots_in(tree)
        if shown.unreadable:
            assert not slots, "the checkpoint alone makes no item unreadable"
            assert any(_fits(shown, outcome) for outcome in self.state.outcomes)
            return Came.UNREADABLE
        outcomes = [outcome for outcome in self.state.outcomes if not outcome.if_lost or not slots]
        if len(outcomes) > 1 and any(_fits(shown, outcome) for outcome in outcomes):
            return Came.OLDER
        assert not slots, f"expected {self.sound}, found {shown}"
        assert set(tree) <= {CHECKPOINT}, "where there is a blob else there was a journal"
        assert limits_of(shown.bounds) == (0, 0)
        return Came.OLDER

    def _judge_older(self, damage: Damage, tree: Tree, shown: Shown) -> Came:
        self._check_unreadable(damage, shown)
        slots = slots_in(tree)
        if damage.keys == (CHECKPOINT,) and slots and slots[0].reset is None:
            assert shown.items.keys() >= self.sound.items.keys(), "an older checkpoint is found, or costs no item"
        if self._is_prefix(shown) or any(
            _fits(shown, outcome) for outcome in self.state.outcomes if not outcome.if_lost
        ):
            if shown.unreadable:
                return Came.UNREADABLE
            return Came.SAME if shown.items == self.sound.items else Came.FEWER
        was_cut = [
            key
            for key in damage.keys
            if key[0] == "j_data" and not self.state.tree.get(key, b"").startswith(tree.get(key, b""))
        ]
        assert was_cut or CHECKPOINT in damage.keys, f"expected {self.sound}, found {shown}"
        if not slots_in(tree) and set(tree) <= {CHECKPOINT}:
            assert limits_of(shown.bounds) == (0, 0)
            return Came.OLDER
        found = find(tree, self.root / "looked at")
        assert found is not None or shown.unreadable, "the independent reader refuses this"
        held = items_in(tree)
        assert all(held[position] == item for position, item in shown.items.items())
        if shown.unreadable:
            return Came.UNREADABLE
        assert found is not None
        assert (shown.bounds.start, shown.items) == (found.start, found.items)
        assert shown.bounds.stop >= found.low
        return Came.OLDER

    def _check_unreadable(self, damage: Damage, shown: Shown) -> None:
        """Refuse that damage to some sections makes others unreadable, or one record its neighbours."""
        sections = {int(name, 16) for partition, name in damage.keys if partition == "j_data"}
        assert {position // ITEMS_PER_SECTION for position in shown.unreadable} <= sections
        if damage.kind is Kind.FLIP and sections:
            (key,) = damage.keys
            at = int(damage.what.partition(".")[0])
            content = self.state.tree[key]
            first = int.from_bytes(content[40:48], "little")
            records = records_in(key, content)
            hit = [first + n for n, (start, record) in enumerate(records.items()) if start <= at < start + len(record)]
            assert not hit or shown.unreadable in ([], hit)

    def _check_report(self, tree: Tree, shown: Shown) -> None:
        """Refuse that something is lost, or changed, and not reported."""
        if shown.report.clean:
            changed = {key for key in {**tree, **shown.after} if tree.get(key) != shown.after.get(key)}
            assert changed <= {CHECKPOINT}, f"a clean opening has changed {changed}"
            slots = slots_in(tree)
            vouched_for = (slots[0].boundary, slots[0].durable) if slots else (0, 0)
            assert limits_of(shown.bounds) == vouched_for, "something was lost or adopted, and not reported"

    # Looking.

    async def _show(self, place: FileStorage | CrashStorage) -> Shown | Corruption:
        """Open the journal, replay it, read each position, and close it."""
        try:
            journal = await Journal.init(Context(place), self.state.config)
        except Corruption as error:
            return error
        async with journal:
            after = self._tree_in(place)
            bounds = journal.bounds()
            items: dict[int, bytes] = {}
            for position in bounds:
                try:
                    items[position] = await journal.read(position)
                except Corruption as error:
                    assert error.section == position // ITEMS_PER_SECTION  # noqa: PT017 - it may as well be read
            replayed: dict[int, bytes] = {}
            try:
                async for position, item in journal.replay(bounds.start):
                    assert position not in replayed
                    replayed[position] = item
            except Corruption:
                assert len(items) < len(bounds), "replay refused an item that can be read"
            whole = bounds.start
            while whole in items:
                whole += 1
            assert replayed == {position: items[position] for position in range(bounds.start, whole)}
            return Shown(bounds, items, journal.recovery, after)

    def _tree_in(self, place: FileStorage | CrashStorage) -> Tree:
        if isinstance(place, CrashStorage):
            return place.tree()
        return CrashStorage.of_files(self.root / "journal").tree()

    async def _put(self, place: FileStorage, tree: Tree) -> None:
        for partition in ("j_data", "j_offsets", "j_checkpoint"):
            await place.remove(partition, None)
        CrashStorage.holding(tree).to_files(self.root / "journal")


def check_untouched(before: Tree, after: Tree) -> None:
    """Refuse that an opening has changed a byte of a retained item below the durable size."""
    slots = slots_in(before)
    if not slots or slots[0].reset is not None:
        return
    for key, content in before.items():
        section = int(key[1], 16)
        first = max(section * ITEMS_PER_SECTION, slots[0].boundary)
        if key[0] != "j_data" or first >= slots[0].durable or section < slots[0].boundary // ITEMS_PER_SECTION:
            continue
        count = min(slots[0].durable, (section + 1) * ITEMS_PER_SECTION) - first
        ends = [start + len(record) for start, record in records_in(key, content).items()]
        end = ends[count - 1] if count <= len(ends) else len(content)
        assert after.get(key, b"")[:end] == content[:end], f"{key} was changed below the durable size (F4)"


def _fits(shown: Shown, outcome: Outcome) -> bool:
    """Whether this is what a journal of before or behind the call may show."""
    return (
        shown.bounds.start in outcome.starts
        and shown.bounds.stop >= outcome.low
        and all(outcome.items.get(position) is not None for position in shown.unreadable)
        and all(outcome.items.get(position) == item for position, item in shown.items.items())
    )
