"""Repairing with nothing lost: the plan, what is set aside, and what is left when it is interrupted."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import shutil
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from posjournal_async import Context, Corruption, FileStorage, ItemOutOfRange, ItemPruned, Journal
from posjournal_async.checkpoint import read_slots, slots_in
from posjournal_async.format.checkpoint_slot import SLOT_LENGTH
from posjournal_async.inspection.verification import Verification
from posjournal_async.mending.carrying_out import carry_out
from posjournal_async.mending.cutting import cut_away, cut_of
from posjournal_async.mending.plan import planned
from posjournal_async.mending.quarantine import MANIFEST, set_aside
from posjournal_async.storage.readonly import ReadOnlyFileStorage
from posjournal_async.testing import CrashStorage, Luck
from tests.damage.kinds import Kind, damages_of
from tests.damage.states import crashed_states, named_states
from tests.effort import effort
from tests.format.writer import path_of, write_journal
from tests.journals import config_of, files_below

if TYPE_CHECKING:
    from pathlib import Path

    from posjournal_async.inspection.findings import Finding
    from posjournal_async.mending.plan import Repair
    from posjournal_async.recovery.repair import RecoveryReport
    from tests.damage.states import State, Tree

STATES = [*named_states(), *crashed_states()[:: effort(80, 1)]]
DAMAGES = effort(1, 60)


def put(tree: Tree, root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    CrashStorage.holding(tree).to_files(root)
    for part in ("data", "offsets", "checkpoint"):
        (root / f"j_{part}").mkdir(parents=True, exist_ok=True)


def tree_below(root: Path) -> Tree:
    return {(path.parent.name, path.name): path.read_bytes() for path in sorted(root.glob("j_*/*"))}


async def repaired(root: Path, where: Path, repair: Repair) -> RecoveryReport | None:
    lock = await FileStorage(root).lock("j_checkpoint")
    try:
        await set_aside(ReadOnlyFileStorage(root), repair.changes, where, {"plan": repair.fields()})
        return await carry_out(repair, root, "j")
    finally:
        await lock.release()


def put_back(after: Tree, where: Path) -> Tree:
    """Make of the repaired files, and of what was set aside, the files as they were."""
    manifest = json.loads((where / MANIFEST).read_text())
    tree = dict(after)
    for created in manifest["plan"]["created"]:
        tree.pop((created["partition"], f"{created['section']:016x}"), None)
    for file in manifest["files"]:
        content = (where / file["file"]).read_bytes()
        assert len(content) == file["bytes"]
        assert hashlib.sha256(content).hexdigest() == file["sha256"]
        key = file["partition"], file["blob"]
        tree[key] = tree.get(key, b"")[: file["start"]] + content
    held = {str(path.relative_to(where)) for path in where.rglob("*") if path.is_file()}
    assert held == {MANIFEST, *(file["file"] for file in manifest["files"])}
    return tree


async def opened_by_itself(tree: Tree, state: State) -> tuple[Tree, RecoveryReport] | Corruption:
    """What opening the journal makes of the files, and says."""
    storage = CrashStorage.holding(tree)
    try:
        journal = await Journal.init(Context(storage), state.config)
    except Corruption as error:
        return error
    await journal.close()
    return storage.tree(), journal.recovery


async def check(state: State, tree: Tree, place: Path) -> bool:
    """Repair a journal, and hold the plan, the quarantine and the files against each other; return whether it could."""
    root, where = place / "root", place / "quarantine"
    shutil.rmtree(where, ignore_errors=True)
    put(tree, root)
    wanted = await opened_by_itself(tree, state)
    before = files_below(root)
    try:
        repair = await planned(ReadOnlyFileStorage(root), "j")
    except Corruption as error:
        assert isinstance(wanted, Corruption)
        assert str(error) == str(wanted)  # noqa: PT017 - whether it is raised depends on the damage
        return False
    finally:
        assert files_below(root) == before, "a plan changes nothing"
    assert not isinstance(wanted, Corruption)
    files, said = wanted
    if not repair.is_needed:
        assert said.clean
        return True
    report = await repaired(root, where, repair)
    after = tree_below(root)
    assert report == said, "it is what opening does"
    assert repair.bytes_cut == report.bytes_cut
    assert len(repair.rebuilt) == report.offsets_rebuilt
    if repair.plan is not None:
        assert repair.plan.items_dropped == report.items_dropped
        assert report.items_found == repair.plan.size - repair.plan.boundary
    assert put_back(after, where) == tree, "nothing is lost"
    checkpoint = "j_checkpoint", "0" * 16
    if not repair.damaged_slots:
        assert after == files
    else:
        assert {**after, checkpoint: b""} == {**files, checkpoint: b""}
    found: list[Finding] = []
    assert not (await planned(ReadOnlyFileStorage(root), "j")).is_needed, "once is enough"
    await Verification(ReadOnlyFileStorage(root), "j", found.append).run()
    if tree == state.tree:
        assert found == []
    return True


async def test_a_repair_does_what_it_said_and_loses_nothing(tmp_path: Path) -> None:
    """In each state: the plan is what opening does, and with what was set aside the files can be put back."""
    for state in STATES[:: effort(2, 1)]:
        try:
            assert await check(state, state.tree, tmp_path)
        except BaseException as error:
            error.add_note(f"state: {state.name}")
            raise


@pytest.mark.parametrize("kind", list(Kind))
async def test_a_repair_of_damage_does_what_it_said(tmp_path: Path, kind: Kind) -> None:
    """What opening mends is mended as it would, and what it refuses is refused with the same words."""
    for state in STATES[:: effort(8, 1)]:
        rng = random.Random(f"{state.name} {kind}")
        damages = list(damages_of(state, kind, rng, each_byte=False))
        for damage in rng.sample(damages, min(DAMAGES, len(damages))):
            try:
                await check(state, damage.make(), tmp_path)
            except BaseException as error:
                error.add_note(f"state: {state.name}\ndamage: {damage.kind.value}, {damage.keys}, {damage.what}")
                raise


async def test_a_slot_that_does_not_check_out_is_made_anew(tmp_path: Path) -> None:
    """Opening leaves it, since the other one is enough; a repair leaves two that are good."""
    state = grown()
    checkpoint = "j_checkpoint", "0" * 16
    slots = state.tree[checkpoint]
    for start in (0, SLOT_LENGTH):
        torn = slots[:start] + bytes(32) + slots[start + 32 :]
        assert torn != slots
        assert await check(state, {**state.tree, checkpoint: torn}, tmp_path)
        assert (tmp_path / "quarantine").exists(), "there was something to repair"


async def test_a_reset_that_is_done_is_taken_out_of_the_other_slot(tmp_path: Path) -> None:
    """A crash left it there; opening writes over it, and so a repair does."""
    state = grown()
    checkpoint = "j_checkpoint", "0" * 16
    (newest, place), (other, _) = slots_in(state.tree[checkpoint], "j")[0]
    slots = newest.to_bytes(), replace(other, reset=0).to_bytes()
    tree = {**state.tree, checkpoint: b"".join(slots if place == 0 else reversed(slots))}
    assert await check(state, tree, tmp_path)
    assert (tmp_path / "quarantine").exists(), "there was something to repair"


# Further than opening.


def grown() -> State:
    [state] = [state for state in named_states() if state.name == "growing: closed"]
    return state


async def test_indexes_of_sealed_sections_are_made_anew_when_asked_for(tmp_path: Path) -> None:
    """Also where opening refuses the journal because the first one is missing."""
    tree = grown().tree
    first, second = ("j_offsets", f"{0:016x}"), ("j_offsets", f"{1:016x}")
    for damaged in (
        {key: content for key, content in tree.items() if key != first},
        {**tree, second: tree[second][:-1] + b"?"},
        {**tree, first: b"", second: b"\0" * 100},
    ):
        put(damaged, tmp_path / "root")
        repair = await planned(ReadOnlyFileStorage(tmp_path / "root"), "j", with_indexes=True)
        assert repair.is_needed
        await repaired(tmp_path / "root", tmp_path / "quarantine", repair)
        assert {**tree_below(tmp_path / "root"), ("j_checkpoint", "0" * 16): b""} == {
            **tree,
            ("j_checkpoint", "0" * 16): b"",
        }
        assert put_back(tree_below(tmp_path / "root"), tmp_path / "quarantine") == damaged
        shutil.rmtree(tmp_path / "quarantine")


async def test_a_lost_first_index_is_made_anew_beside_what_a_crash_left(tmp_path: Path) -> None:
    """Its section is the last one that is whole: the creation of the next one, or a rewind of it, was interrupted."""
    root, items = tmp_path / "root", [b"item"] * 6
    for what_is_left in (b"", None):
        shutil.rmtree(root, ignore_errors=True)
        write_journal(root, "j", items=items, items_per_section=3, durable=3)
        path_of(root, "j", "offsets", 0).unlink()
        left = path_of(root, "j", "data", 1)
        left.unlink() if what_is_left is None else left.write_bytes(what_is_left)
        before = tree_below(root)
        repair = await planned(ReadOnlyFileStorage(root), "j", with_indexes=True)
        await repaired(root, tmp_path / "quarantine", repair)
        assert put_back(tree_below(root), tmp_path / "quarantine") == before
        shutil.rmtree(tmp_path / "quarantine")
        async with await Journal.init(Context(FileStorage(root)), config_of(3, partition="j")) as journal:
            assert journal.recovery.clean
            assert [item async for _, item in journal.replay(0)] == items[:3]


async def test_the_index_of_a_damaged_section_is_left_as_it_is(tmp_path: Path) -> None:
    """It is what leads to the records behind the damage."""
    tree = dict(grown().tree)
    data, index = ("j_data", f"{1:016x}"), ("j_offsets", f"{1:016x}")
    tree[data] = tree[data][:70] + b"?????" + tree[data][75:]
    tree[index] = tree[index][:-1] + b"?"
    put(tree, tmp_path)
    repair = await planned(ReadOnlyFileStorage(tmp_path), "j", with_indexes=True)
    assert (repair.is_needed, repair.damaged) == (False, (1,))


async def test_a_journal_is_cut_where_the_user_says(tmp_path: Path) -> None:
    """At each position: what lies before it stays, and what goes can be put back."""
    state = grown()
    root, where = tmp_path / "root", tmp_path / "quarantine"
    items = state.outcomes[0].items
    for position in range(0, len(items) + 1, effort(2, 1)):
        put(state.tree, root)
        repair = await planned(ReadOnlyFileStorage(root), "j", cut_at=position)
        assert repair.cut is not None
        assert repair.cut.lost == len(items) - position
        await repaired(root, where, repair)
        assert put_back(tree_below(root), where) == state.tree
        shutil.rmtree(where)
        async with await Journal.init(Context(FileStorage(root)), state.config) as journal:
            assert journal.recovery.clean
            kept = dict([pair async for pair in journal.replay(0)])
        assert kept == {at: item for at, item in items.items() if at < position}


async def test_a_cut_counts_what_sync_data_may_have_made_durable(tmp_path: Path) -> None:
    """The items above the durable size that recovery would find, or would if there were no damage before them.

    Those behind a gap too, which it would drop.
    """
    damaged = path_of(tmp_path, "j", "data", 0)
    foreign = path_of(tmp_path, "j", "data", 3)
    missing = path_of(tmp_path, "j", "data", 2)
    write_journal(tmp_path, "j", items=[b"item"] * 11, items_per_section=3, durable=4)
    storage = ReadOnlyFileStorage(tmp_path)
    for spoil, above, behind in (
        (lambda: None, 7, 0),
        (lambda: damaged.write_bytes(damaged.read_bytes()[:-1] + b"?"), 7, 0),
        (lambda: foreign.write_bytes(path_of(tmp_path, "j", "data", 1).read_bytes()), 5, 0),
        (missing.unlink, 2, 3),
    ):
        spoil()
        for position in (0, 1, 4):
            repair = await planned(storage, "j", cut_at=position)
            fields = repair.fields()
            assert (fields["positions_lost"], fields["positions_lost_above"]) == (4 - position, above)
            assert fields["items_dropped"] == behind


async def test_a_cut_gets_rid_of_what_opening_refuses(tmp_path: Path) -> None:
    """A header that is damaged, a record that is, a blob that is missing: before each of them there is a journal."""
    state = grown()
    header, record = ("j_data", f"{2:016x}"), ("j_data", f"{2:016x}")
    broken: list[tuple[Tree, int]] = [
        ({**state.tree, header: b"?" + state.tree[header][1:]}, 6),
        ({**state.tree, record: state.tree[record][:-1] + b"?"}, 7),
        ({key: content for key, content in state.tree.items() if key != header}, 6),
    ]
    for tree, position in broken:
        put(tree, tmp_path / "root")
        storage = ReadOnlyFileStorage(tmp_path / "root")
        with pytest.raises(Corruption):
            await planned(storage, "j")
        repair = await planned(storage, "j", cut_at=position)
        await repaired(tmp_path / "root", tmp_path / "quarantine", repair)
        assert put_back(tree_below(tmp_path / "root"), tmp_path / "quarantine") == tree
        shutil.rmtree(tmp_path / "quarantine")
        async with await Journal.init(Context(FileStorage(tmp_path / "root")), state.config) as journal:
            assert journal.size() == position


async def test_a_cut_that_would_not_help_is_refused(tmp_path: Path) -> None:
    """Above the durable size, below the boundary, behind damage; and nothing is changed."""
    state = grown()
    data = "j_data", f"{1:016x}"
    put({**state.tree, data: state.tree[data][:70] + b"?????" + state.tree[data][75:]}, tmp_path)
    before = files_below(tmp_path)
    storage = ReadOnlyFileStorage(tmp_path)
    with pytest.raises(ItemOutOfRange):
        await planned(storage, "j", cut_at=9)
    with pytest.raises(Corruption) as refused:
        await planned(storage, "j", cut_at=5)
    assert refused.value.position == 3
    [pruned] = [state for state in named_states() if state.name == "pruned: one section"]
    put(pruned.tree, tmp_path / "pruned")
    with pytest.raises(ItemPruned):
        await planned(ReadOnlyFileStorage(tmp_path / "pruned"), "j", cut_at=2)
    assert {name: file for name, file in files_below(tmp_path).items() if not name.startswith("pruned")} == before


async def test_a_crash_in_the_middle_of_a_cut_is_finished_by_the_same_cut(tmp_path: Path) -> None:
    """After each call to the storage the journal opens, with a size between, or the cut can be done again."""
    state = grown()
    items = state.outcomes[0].items
    put(state.tree, tmp_path / "root")
    repair = await planned(ReadOnlyFileStorage(tmp_path / "root"), "j", cut_at=2)
    assert repair.cut is not None
    storage = CrashStorage.holding(state.tree)
    photos: list[CrashStorage] = []
    rng = random.Random(0)
    storage.on_call = lambda: photos.extend([storage.photo(), storage.photo().power_cut(rng)])
    await cut_away(storage, "j", repair.cut)
    storage.on_call = None
    for luck in Luck:
        async with await Journal.init(Context(storage.photo().power_cut(rng, luck)), state.config) as journal:
            assert journal.size() == 2, "it is durable when it returns"
    for photo in photos:
        async with await Journal.init(Context(photo), state.config) as journal:
            assert 2 <= journal.size() <= len(items)
            assert dict([pair async for pair in journal.replay(0)]) == {at: items[at] for at in range(journal.size())}
    assert len(photos) > 10


async def test_a_cut_never_has_both_slots_of_the_checkpoint_at_stake() -> None:
    """The one that it goes by may be in the page cache only; it is made durable before the other one is written."""
    state = grown()
    key = "j_checkpoint", "0" * 16
    slots = state.tree[key]
    [(slot, place), _], _ = slots_in(slots, "j_checkpoint")
    start, stop = place * SLOT_LENGTH, (place + 1) * SLOT_LENGTH
    storage = CrashStorage.holding({**state.tree, key: slots[:start] + bytes(SLOT_LENGTH) + slots[stop:]})
    blob, _ = await storage.open("j_checkpoint", bytes(8))
    await blob.write_at(start, slots[start:stop])
    await blob.close()
    cut = await cut_of(storage, "j", slot, place, 2, size=slot.durable, behind=0)
    photos: list[CrashStorage] = []
    storage.on_call = lambda: photos.append(storage.photo())
    await cut_away(storage, "j", cut)
    storage.on_call = None
    rng = random.Random(0)
    for photo in photos:
        for _ in range(500):
            opened, left = await read_slots(photo.power_cut(rng), "j_checkpoint")
            await opened.close()
            assert left.current is not None


# The quarantine.


async def test_a_quarantine_has_its_name_when_it_is_complete(tmp_path: Path) -> None:
    """When copying fails nothing is left of it, and nothing was changed."""
    put(grown().tree, tmp_path / "root")
    storage = ReadOnlyFileStorage(tmp_path / "root")
    repair = await planned(storage, "j", cut_at=2)
    before = files_below(tmp_path)

    def fail(_: int) -> None:
        assert (tmp_path / "quarantine.partial").exists()
        assert not (tmp_path / "quarantine").exists()
        raise OSError(28, "no space")

    with pytest.raises(OSError, match="no space"):
        await set_aside(storage, repair.changes, tmp_path / "quarantine", {}, fail)
    assert files_below(tmp_path) == before
    assert not (tmp_path / "quarantine.partial").exists()


async def test_a_quarantine_takes_the_place_of_nothing(tmp_path: Path) -> None:
    """Neither of an earlier one nor of a part of one."""
    put(grown().tree, tmp_path / "root")
    storage = ReadOnlyFileStorage(tmp_path / "root")
    for name in ("quarantine", "quarantine.partial"):
        (tmp_path / name).mkdir()
        with pytest.raises(FileExistsError):
            await set_aside(storage, [], tmp_path / "quarantine", {})
        (tmp_path / name).rmdir()


async def test_cancelling_leaves_no_part_of_a_quarantine(tmp_path: Path) -> None:
    """As Ctrl-C does."""
    put(grown().tree, tmp_path / "root")
    storage = ReadOnlyFileStorage(tmp_path / "root")
    repair = await planned(storage, "j", cut_at=2)

    def cancel(_: int) -> None:
        copying.cancel()

    copying = asyncio.create_task(set_aside(storage, repair.changes, tmp_path / "quarantine", {}, cancel))
    with suppress(asyncio.CancelledError):
        await copying
    assert copying.cancelled()
    assert await asyncio.to_thread(os.listdir, tmp_path) == ["root"]
