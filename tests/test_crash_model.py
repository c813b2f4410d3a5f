"""The crash model itself: a storage by the contract, that loses what it may lose and nothing else."""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
from typing import TYPE_CHECKING

import pytest

from posjournal_async import FileStorage, JournalLocked, StorageError
from posjournal_async.testing import CrashStorage, Luck, PowerCut, StorageContract

if TYPE_CHECKING:
    from pathlib import Path

SEEDS = range(300)


class TestCrashStorage(StorageContract):
    """While the power is on it is a storage like others."""

    @pytest.fixture
    def storage(self) -> CrashStorage:
        return CrashStorage()


def left_by_power_cuts(storage: CrashStorage) -> set[bytes | None]:
    """Return what the one blob may hold after a power cut; None where it is gone."""
    trees = [storage.power_cut(random.Random(seed)).tree() for seed in SEEDS]
    return {next(iter(tree.values()), None) for tree in trees}


def left_by_kills(storage: CrashStorage) -> set[bytes | None]:
    trees = [storage.killed(random.Random(seed)).tree() for seed in SEEDS]
    return {next(iter(tree.values()), None) for tree in trees}


async def test_what_was_synced_is_there_after_any_crash() -> None:
    """The bytes, the length, and the name."""
    storage = CrashStorage()
    blob, _ = await storage.open("p", b"n")
    await blob.write_at(0, b"hello")
    await blob.resize(4)
    await blob.sync()
    assert left_by_power_cuts(storage) == {b"hell"}
    assert left_by_kills(storage) == {b"hell"}


async def test_an_unsynced_write_may_be_whole_torn_zeros_or_lost() -> None:
    """After a power cut; a kill loses nothing of it."""
    storage = CrashStorage()
    blob, _ = await storage.open("p", b"n")
    await blob.write_at(0, b"hello")
    torn = {b"h", b"he", b"hel", b"hell"}
    expected = {b"", b"hello", bytes(5), *torn, *(short.ljust(5, b"\0") for short in torn)}
    assert {next(iter(state.tree().values())) for state in storage.states()} == expected
    assert left_by_power_cuts(storage) <= expected
    assert left_by_kills(storage) == {b"hello"}


async def test_bytes_in_place_are_the_old_or_the_new_ones() -> None:
    """Zeros are for what the blob grew by."""
    storage = CrashStorage()
    blob, _ = await storage.open("p", b"n")
    await blob.write_at(0, b"AAAA")
    await blob.sync()
    await blob.write_at(0, b"BBBB")
    assert left_by_power_cuts(storage) == {b"AAAA", b"BAAA", b"BBAA", b"BBBA", b"BBBB"}


async def test_a_lost_truncation_with_a_later_write_that_was_kept_is_possible() -> None:
    """Why a truncation is synced before the next byte is written."""
    storage = CrashStorage()
    blob, _ = await storage.open("p", b"n")
    await blob.write_at(0, b"ABC")
    await blob.sync()
    await blob.resize(1)
    await blob.write_at(1, b"x")
    assert {b"AxC", b"ABC", b"A", b"Ax"} <= left_by_power_cuts(storage)
    await blob.sync()
    assert left_by_power_cuts(storage) == {b"Ax"}


async def test_what_a_kill_left_pending_may_be_lost_later() -> None:
    """The page cache outlives the process, not the power."""
    storage = CrashStorage()
    blob, _ = await storage.open("p", b"n")
    await blob.write_at(0, b"hello")
    killed = storage.killed(random.Random(1))
    assert b"" in left_by_power_cuts(killed)
    blob, _ = await killed.open("p", b"n")
    await blob.sync()
    assert left_by_power_cuts(killed) == {b"hello"}


async def test_a_lock_that_nobody_has_any_more_is_free() -> None:
    """As with files: a service may drop a journal, and open it again."""
    storage = CrashStorage()
    lock = await storage.lock("p")
    with pytest.raises(JournalLocked):
        await storage.lock("p")
    del lock
    gc.collect()
    await (await storage.lock("p")).release()


async def test_creations_and_removals_are_durable_on_return_and_undecided_before() -> None:
    """Both outcomes while the call is under way."""
    storage = CrashStorage()
    photos: list[CrashStorage] = []
    storage.on_call = lambda: photos.append(storage.photo())
    await storage.open("p", b"n")
    assert left_by_power_cuts(storage) == {b""}
    await storage.remove("p", b"n")
    assert left_by_power_cuts(storage) == {None}
    assert [left_by_power_cuts(photo) for photo in photos] == [{b"", None}] * 2
    assert [left_by_kills(photo) for photo in photos] == [{b"", None}] * 2


async def test_a_scan_that_is_under_way_when_the_power_goes_makes_no_name_durable() -> None:
    """Nor does it answer: the creation in which the power went may be there or not."""
    storage = CrashStorage()
    await storage.open("p", b"n")
    storage.crash_at = storage.calls + 1
    scan, creation = await asyncio.gather(storage.scan("p"), storage.open("p", b"o"), return_exceptions=True)
    assert isinstance(scan, PowerCut)
    assert isinstance(creation, PowerCut)
    assert sorted(len(left.tree()) for left in storage.states()) == [1, 2]


async def test_removing_many_may_leave_any_of_them() -> None:
    """None is promised before the call returns."""
    storage = CrashStorage()
    for name in (b"1", b"2"):
        await storage.open("p", name)
    storage.crash_at = storage.calls + 1
    with pytest.raises(PowerCut):
        await storage.remove_many("p", [b"1", b"2"])
    left = {tuple(name for _, name in storage.power_cut(random.Random(seed)).tree()) for seed in SEEDS}
    assert left == {(), ("31",), ("32",), ("31", "32")}


async def test_a_write_under_way_at_a_kill_may_be_torn() -> None:
    """It is made, half made, or not made."""
    storage = CrashStorage()
    blob, _ = await storage.open("p", b"n")
    storage.crash_at = storage.calls + 1
    with pytest.raises(PowerCut):
        await blob.write_at(0, b"hello")
    assert left_by_kills(storage) == {b"", b"h", b"he", b"hel", b"hell", b"hello"}
    with pytest.raises(PowerCut):
        await blob.sync()


async def test_a_write_under_way_at_a_kill_is_told_from_an_equal_one_before_it() -> None:
    """What was written before the kill stays pending, in its order: a power cut that keeps all keeps what was read."""
    storage = CrashStorage()
    blob, _ = await storage.open("p", b"n")
    for data in (b"BBBB", b"CCCC"):
        await blob.write_at(0, data)
    storage.crash_at = storage.calls + 1
    with pytest.raises(PowerCut):
        await blob.write_at(0, b"BBBB")
    for seed in SEEDS:
        killed = storage.killed(random.Random(seed))
        assert killed.power_cut(random.Random(seed), Luck.ALL).tree() == killed.tree()


async def test_a_failed_sync_leaves_pages_that_are_clean_and_never_written() -> None:
    """They can be read, a later sync says OK, and a power cut shows that it lied; writing them again helps."""
    storage = CrashStorage()
    blob, _ = await storage.open("p", b"n")
    await blob.write_at(0, b"hello")
    storage.fail_sync = "p"
    with pytest.raises(StorageError):
        await blob.sync()
    await blob.sync()
    assert await blob.read_at(0, 5) == b"hello"
    assert left_by_power_cuts(storage) == {b""}
    await blob.write_at(0, b"hello")
    await blob.sync()
    assert left_by_power_cuts(storage) == {b"hello"}


async def test_files_of_others_are_not_taken_for_blobs(tmp_path: Path) -> None:
    """A `FileStorage` does not list them either."""
    blob, _ = await FileStorage(tmp_path).open("p", b"n")
    await blob.write_at(0, b"hello")
    await blob.close()
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "lost+found" / "6e").touch()
    for name in (".DS_Store", "6E", "6e 6f"):
        (tmp_path / "p" / name).touch()
    assert CrashStorage.of_files(tmp_path).tree() == {("p", "6e"): b"hello"}


async def test_luck_decides_about_everything_at_once() -> None:
    """The worst and the best power cut."""
    storage = CrashStorage()
    blob, _ = await storage.open("p", b"n")
    await blob.write_at(0, b"hello")
    rng = random.Random(1)
    assert storage.power_cut(rng, Luck.NONE).tree() == storage.durable_tree() == {("p", "6e"): b""}
    assert storage.power_cut(rng, Luck.ALL).tree() == storage.tree() == {("p", "6e"): b"hello"}


async def test_all_states_are_tried_where_they_are_few() -> None:
    """Each once, over all blobs and names together (D5)."""
    storage = CrashStorage()
    first, _ = await storage.open("p", b"1")
    second, _ = await storage.open("p", b"2")
    await first.write_at(0, b"ab")
    await first.sync()
    await first.resize(1)  # made or lost
    await second.write_at(0, b"c")  # nothing, a zero, the byte
    storage.crash_at = storage.calls + 1
    with pytest.raises(PowerCut):
        await storage.remove("p", b"2")  # made or lost
    states = [tuple(sorted(state.tree().items())) for state in storage.states()]
    kept = {(("p", "31"), one) for one in (b"a", b"ab")}
    other = {(("p", "32"), one) for one in (b"", b"\0", b"c")}
    assert set(states) == {(one,) for one in kept} | {(one, two) for one in kept for two in other}
    assert len(list(storage.states(limit=12))) == 12
    assert [state.tree() for state in storage.states(limit=12)] == [state.tree() for state in storage.states(12)]


async def test_some_states_are_tried_where_they_are_many() -> None:
    """The worst and the best first, then as many as were asked for, the same for the same seed."""
    storage = CrashStorage()
    blob, _ = await storage.open("p", b"n")
    await blob.write_at(0, b"x" * 2_000)
    trees = [[state.tree() for state in storage.states(20, seed)] for seed in (1, 1, 2)]
    assert [len(found) for found in trees] == [20, 20, 20]
    assert trees[0][:2] == [{("p", "6e"): b""}, {("p", "6e"): b"x" * 2_000}]
    assert trees[0] == trees[1] != trees[2]


async def test_any_sectors_of_a_write_may_be_missing() -> None:
    """In place they hold what was there before; where the blob grew, zeros."""
    storage = CrashStorage()
    blob, _ = await storage.open("p", b"n")
    await blob.write_at(0, b"a" * 1_024)
    await blob.sync()
    await blob.write_at(256, b"b" * 1_024)
    left = {next(iter(state.tree().values())) for state in storage.states(10_000)}
    new, old, none = b"b" * 256, b"a" * 256, bytes(256)
    for first in (old, new):
        for second in (old + old, new + new):
            for third in (none, new):
                assert (b"a" * 256 + first + second + third) in left
    assert left_by_power_cuts(storage) <= left


async def test_sectors_are_missing_here_and_there_also_where_the_states_are_many() -> None:
    """Chance comes by each of the combinations, not only by those with one hole."""
    storage = CrashStorage()
    blob, _ = await storage.open("p", b"n")
    await blob.write_at(0, b"o" * 2_560)
    await blob.sync()
    await blob.write_at(0, b"N" * 2_560)
    left = {next(iter(state.tree().values()))[511::512] for state in storage.states(2_000)}
    assert left == {bytes(sectors) for sectors in itertools.product(b"oN", repeat=5)}


async def test_sectors_that_a_write_leaves_as_they_were_make_no_states() -> None:
    """Of many of them there would be more than can be counted."""
    storage = CrashStorage()
    blob, _ = await storage.open("p", b"n")
    await blob.write_at(0, bytes(100_000))
    await blob.sync()
    await blob.write_at(0, bytes(99_999) + b"x")
    assert len(list(storage.states(2))) == 2
