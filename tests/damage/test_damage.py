"""Damage each bit, each length and each file of a small journal in each state: never another item, never a surprise."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from posjournal_async import Context, Corruption, FileStorage, Journal
from posjournal_async.testing import CrashStorage
from tests.damage.files import SLOT_FIELDS_LENGTH, records_in, slots_in
from tests.damage.kinds import Kind, damages_of
from tests.damage.oracle import Bench, Came
from tests.damage.states import ITEMS_PER_SECTION, crashed_states, named_states
from tests.effort import IS_LONG, effort
from tests.format import writer

if TYPE_CHECKING:
    from collections import Counter
    from pathlib import Path

    from tests.damage.states import State

NAMED = named_states()
CRASHED = crashed_states()

# How many damages of a kind are tried in each state; all of them by `python3 run.py long`.
MOST = {
    Kind.FLIP: 150,
    Kind.CUT: 90,
    Kind.JUNK: 50,
    Kind.RECORD: 40,
    Kind.COPY: 20,
    Kind.SWAP: 12,
    Kind.NEIGHBOUR: 12,
    Kind.DELETE: 12,
    Kind.OLDER: 80,
}

# One of so many is tried in files too; the others are in memory, which is quick.
IN_FILES = 100

# One of so many is also rewound, appended to and pruned; at length all but the bits and lengths, of which there are
# thousands in each state.
CHANGED = {kind: effort(3, 16 if kind in {Kind.FLIP, Kind.CUT} else 1) for kind in Kind}

# The states after a crash that are tried: each so manieth, and that share of the damages.
CRASHED_STEP = effort(16, 1)
CRASHED_SHARE = 0.25


async def damaged(state: State, root: Path, share: float = 1) -> Counter[Came]:
    """Try damages of each kind, spread over all there are, and return how often what came of them."""
    rng = random.Random(state.name)
    bench = Bench(state, root)
    await bench.prepare()
    number = 0
    for kind in Kind:
        damages = list(damages_of(state, kind, rng, each_byte=IS_LONG and share == 1))
        for damage in rng.sample(damages, effort(min(round(MOST[kind] * share), len(damages)), len(damages))):
            number += 1
            await bench.check(damage, in_files=number % IN_FILES == 0)
            if number % CHANGED[kind] == 0:
                await bench.check_change(damage, number // CHANGED[kind])
    return bench.came


@pytest.mark.parametrize("state", NAMED, ids=[state.name for state in NAMED])
async def test_damage_never_gives_another_item(state: State, tmp_path: Path) -> None:
    """F4, F5, A3, D6: the same items, or Corruption, or fewer above the durable size and a report."""
    came = await damaged(state, tmp_path)
    assert came[Came.SAME], "damage to a file that nobody has to rely on"
    if state.tree.keys() & {("j_data", f"{section:016x}") for section in range(4)}:
        assert came[Came.REFUSED] + came[Came.FEWER] + came[Came.UNREADABLE], "damage to items"


@pytest.mark.parametrize("state", CRASHED[::CRASHED_STEP], ids=[state.name for state in CRASHED[::CRASHED_STEP]])
async def test_damage_after_a_crash_never_gives_another_item(state: State, tmp_path: Path) -> None:
    """F4, F5, A3, D6: what a crash has left of a call is no excuse for what the crash did not do."""
    await damaged(state, tmp_path, CRASHED_SHARE)


def laid_out(root: Path, count: int, *, durable: int | None = None) -> dict[str, bytearray]:
    """Lay out a journal, closed if all is durable, and return its files to be damaged, by partition and section."""
    items = [b"item %d" % position for position in range(count)]
    writer.write_journal(root, "j", items=items, items_per_section=ITEMS_PER_SECTION, durable=durable)
    return {f"{path.parent.name} {int(path.name, 16)}": bytearray(path.read_bytes()) for path in root.glob("*/*")}


async def opened(root: Path, files: dict[str, bytearray]) -> Journal[bytes]:
    for name, content in files.items():
        partition, _, section = name.partition(" ")
        (root / partition / f"{int(section):016x}").write_bytes(content)
    return await Journal.init(Context(FileStorage(root)), NAMED[0].config)


@pytest.mark.parametrize("what_goes", ["creation", "creation and more", "gap and more"])
async def test_an_index_before_what_opening_removes_is_mended_at_once(tmp_path: Path, what_goes: str) -> None:
    """D6: the section before an interrupted creation or a gap is looked at as the last one is."""
    files = laid_out(tmp_path, 3 * ITEMS_PER_SECTION, durable=ITEMS_PER_SECTION)
    files["j_offsets 0"][-1] ^= 1
    files["j_data 1"].clear()
    gone = {"creation": ["j_data 2"], "creation and more": [], "gap and more": ["j_data 1"]}[what_goes]
    for name in gone:
        del files[name]
        (tmp_path / "j_data" / f"{int(name[-1]):016x}").unlink()
    async with await opened(tmp_path, files) as journal:
        assert journal.bounds() == range(ITEMS_PER_SECTION)
    left = CrashStorage.of_files(tmp_path).tree()
    async with await opened(tmp_path, {}) as journal:
        assert journal.recovery.clean
    assert CrashStorage.of_files(tmp_path).tree() == left


async def test_a_record_before_a_damaged_one_is_read_without_its_index(tmp_path: Path) -> None:
    """A3, F4: replay shows it, so a read has to."""
    files = laid_out(tmp_path, 2 * ITEMS_PER_SECTION)
    files["j_data 0"][-1] ^= 1
    files["j_offsets 0"][writer.HEADER_LENGTH :] = bytes(8 * ITEMS_PER_SECTION)
    async with await opened(tmp_path, files) as journal:
        with pytest.raises(Corruption):
            await journal.read(2)
        assert [await journal.read(position) for position in (0, 1)] == [b"item 0", b"item 1"]


async def test_the_last_record_is_read_between_a_damaged_one_and_other_bytes(tmp_path: Path) -> None:
    """F4: replay shows it, so a read has to."""
    files = laid_out(tmp_path, 2 * ITEMS_PER_SECTION)
    files["j_data 0"] += bytes(9)
    files["j_data 0"][writer.HEADER_LENGTH] ^= 1
    async with await opened(tmp_path, files) as journal:
        with pytest.raises(Corruption):
            await journal.read(0)
        assert [item async for item in journal.replay(1)][:2] == [(1, b"item 1"), (2, b"item 2")]
        assert [await journal.read(position) for position in (1, 2)] == [b"item 1", b"item 2"]


async def test_a_header_without_items_per_section_is_corrupt(tmp_path: Path) -> None:
    """F4: where the checkpoint is lost, the first header stands in for it, if it can."""
    files = laid_out(tmp_path, ITEMS_PER_SECTION)
    files["j_data 0"][32:40] = bytes(8)
    files["j_data 0"][:64] = writer.sealed_with_crc(bytes(files["j_data 0"][:60]))
    files["j_checkpoint 0"].clear()
    with pytest.raises(Corruption):
        await opened(tmp_path, files)


def test_the_states_are_of_each_kind() -> None:
    """The crashes leave what recovery is for, and each kind of damage is done somewhere."""
    data, index, checkpoint = (f"j_{part}" for part in ("data", "offsets", "checkpoint"))
    found = set()
    for state in CRASHED:
        slots = slots_in(state.tree)
        damaged_slots = [
            slot
            for slot in (state.tree.get((checkpoint, "0" * 16), b"")[at:][:SLOT_FIELDS_LENGTH] for at in (0, 4096))
            if any(slot) and writer._checkpoint_of(slot) is None
        ]
        found |= {"torn checkpoint"} if damaged_slots else set()
        found |= {"no checkpoint"} if not slots else {"reset"} if slots[0].reset is not None else set()
        for key, content in state.tree.items():
            records = records_in(key, content)
            if key[0] == index and (data, key[1]) not in state.tree:
                found.add("index without data")
            if key[0] != data or not slots:
                continue
            first = int(key[1], 16) * ITEMS_PER_SECTION
            found |= {"short header"} if len(content) < writer.HEADER_LENGTH else set()
            found |= {"behind the boundary"} if first < slots[0].boundary else set()
            found |= {"checkpoint behind"} if records and first + len(records) > slots[0].durable else set()
            found |= {"torn record"} if writer.HEADER_LENGTH + sum(map(len, records.values())) < len(content) else set()
            entries = (len(state.tree.get((index, key[1]), b"")) - writer.HEADER_LENGTH) // 8
            found.add("no index" if entries < 0 else "short index" if entries < len(records) else "index")
            found |= {"long index"} if entries > len(records) else set()
    assert found == {
        *("torn checkpoint", "no checkpoint", "reset", "index without data", "short header", "behind the boundary"),
        *("checkpoint behind", "torn record", "no index", "short index", "index", "long index"),
    }
    for kind in Kind:
        assert any(next(damages_of(state, kind, random.Random(0), each_byte=False), None) for state in NAMED), kind
