"""The helper that crashes a service at every point: it tries each moment, tells what was told, and tries again."""

from __future__ import annotations

import asyncio
import itertools
import re
import secrets
import threading
import tracemalloc
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from posjournal_async import BytesCodec, Config, Context, Journal
from posjournal_async.testing import CrashStorage, crash_points, run_interleaved
from tests.effort import effort

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

CONFIG: Config[bytes] = Config(partition="p", items_per_section=3, codec=BytesCodec())


async def small(storage: CrashStorage, tell: Callable[[str], None]) -> None:
    """Seven moments: three calls and a promise, two calls and a promise, the end."""
    blob, _ = await storage.open("p", b"n")
    await blob.write_at(0, b"ab")
    await blob.sync()
    tell("ab")
    await blob.write_at(2, b"c")
    await blob.sync()
    tell("c")


class Seen:
    """What a check was called with."""

    def __init__(self) -> None:
        self.states: list[tuple[tuple[str, ...], bytes | None]] = []

    async def check(self, storage: CrashStorage, told: Sequence[str]) -> None:
        content = next(iter(storage.tree().values()), None)
        self.states.append((tuple(told), content))


async def test_each_state_of_each_moment_is_tried_in_order() -> None:
    """At each moment the kill first, then each way of a power cut, with what was told by then (D1, D2)."""
    seen = Seen()
    count = await crash_points(small, seen.check)
    assert count == len(seen.states)
    before: tuple[str, ...] = ()
    first, both = ("ab",), ("ab", "c")
    half: list[bytes | None] = [b"", b"ab", bytes(2), b"a", b"a\0"]
    more: list[bytes | None] = [b"ab", b"abc", b"ab\0"]
    # The creation, the write, the sync; told; the write, the sync; told; the end. Of a kill chance picks one state.
    expected: list[tuple[tuple[str, ...], set[bytes | None], list[bytes | None]]] = [
        (before, {None, b""}, [None, b""]),
        (before, {b"", b"a", b"ab"}, half),
        (before, {b"ab"}, half),
        (first, {b"ab"}, [b"ab"]),
        (first, {b"ab", b"abc"}, more),
        (first, {b"abc"}, more),
        (both, {b"abc"}, [b"abc"]),
        (both, {b"abc"}, [b"abc"]),
    ]
    found = iter(seen.states)
    for told, killed, cut in expected:
        assert next(found) in {(told, content) for content in killed}
        assert Counter(next(found) for _ in cut) == Counter((told, content) for content in cut)
    assert next(found, None) is None


async def test_a_service_that_does_nothing_has_one_moment() -> None:
    """The end; and what it leaves is an empty storage."""

    async def service(_: CrashStorage, __: Callable[[Any], None]) -> None:
        pass

    seen = Seen()
    assert await crash_points(service, seen.check) == 2
    assert seen.states == [((), None)] * 2


async def test_each_promise_is_a_moment_of_its_own() -> None:
    """Also when nothing is called in between: what is told first is told although the second is not."""

    async def service(_: CrashStorage, tell: Callable[[Any], None]) -> None:
        tell("one")
        tell(["two", "parts"])

    seen = Seen()
    assert await crash_points(service, seen.check) == 6
    assert [told for told, _ in seen.states[::2]] == [("one",), ("one", ["two", "parts"]), ("one", ["two", "parts"])]


async def test_no_state_is_tried_that_the_service_goes_on_to_change() -> None:
    """Each is a copy: a check that writes does not disturb the next one, nor what was told to it."""
    seen = Seen()

    async def check(storage: CrashStorage, told: Sequence[str]) -> None:
        await seen.check(storage, told)
        blob, _ = await storage.open("p", b"n")
        await blob.write_at(0, b"xxxx")
        assert isinstance(told, list)
        told.append("x")

    undisturbed = Seen()
    await crash_points(small, undisturbed.check)
    await crash_points(small, check)
    assert seen.states == undisturbed.states


async def test_what_was_told_stays_as_it_was_told() -> None:
    """A service may go on to change it, and so may a check: another moment or state is not disturbed."""

    async def service(_: CrashStorage, tell: Callable[[Any], None]) -> None:
        answer: dict[str, list[int]] = {}
        for number, order in enumerate(("Emma", "Dune")):
            answer[order] = [number]
            tell(answer)

    seen: list[Any] = []

    async def check(_: CrashStorage, told: Sequence[Any]) -> None:
        seen.append(repr(told))
        told[-1]["Emma"].append(7)
        told[-1]["Persuasion"] = [8]

    await crash_points(service, check)
    both = "[{'Emma': [0]}, {'Emma': [0], 'Dune': [1]}]"
    assert seen == ["[{'Emma': [0]}]"] * 2 + [both] * 4


async def test_what_cannot_be_copied_is_not_told() -> None:
    """The service gets the error where it tells."""

    async def service(_: CrashStorage, tell: Callable[[Any], None]) -> None:
        tell((1, threading.Lock()))

    with pytest.raises(TypeError, match="tell: expected what can be copied, found tuple"):
        await crash_points(service, Seen().check)


async def large(storage: CrashStorage, tell: Callable[[Any], None]) -> None:
    blob, _ = await storage.open("p", b"n")
    await blob.write_at(0, b"x" * 3_000)
    tell("x")


@pytest.mark.parametrize("states", [2, 3, 20, 500])
async def test_no_more_states_are_tried_than_were_asked_for(states: int) -> None:
    """At each moment one for the kill, and that many for the power cut where there are more."""
    seen = Seen()
    # The creation: 2. The write, right after telling and the end: many.
    assert await crash_points(large, seen.check, states=states) == 1 + 2 + 3 * (1 + states)


async def test_the_extremes_are_always_tried() -> None:
    """With two states these are what a power cut may do at worst and at best."""
    seen = Seen()
    await crash_points(large, seen.check, states=2)
    assert [content for told, content in seen.states if told] == [b"x" * 3_000, b"", b"x" * 3_000] * 2


@pytest.mark.parametrize("states", [1, 0, -1])
async def test_fewer_states_than_the_extremes_are_refused(states: int) -> None:
    """Before the service runs."""
    with pytest.raises(ValueError, match=f"states: expected at least 2, found {states}"):
        await crash_points(broken_service, Seen().check, states=states)


async def journal_of_five(storage: CrashStorage, tell: Callable[[int], None]) -> None:
    async with await Journal.init(Context(storage), CONFIG) as journal:
        for number in range(5):
            await journal.append(b"%d" % number)
            if number % 2:
                await journal.sync_data()
                tell(number)


async def read_all(storage: CrashStorage) -> list[bytes]:
    async with await Journal.init(Context(storage), CONFIG) as journal:
        return [item async for _, item in journal.replay(0)]


async def test_a_journal_keeps_what_it_was_synced_for() -> None:
    """The promise of `sync_data`, held at each point (D1, D2)."""

    async def check(storage: CrashStorage, told: Sequence[int]) -> None:
        items = await read_all(storage)
        assert items == [b"%d" % number for number in range(len(items))]
        assert len(items) > max(told, default=-1)

    assert await crash_points(journal_of_five, check, states=effort(8, 2_000)) > 100


async def tree_of(state: CrashStorage, trees: list[Any]) -> None:
    trees.append((sorted(state.tree().items()), sorted(state.durable_tree().items())))


async def test_the_same_seed_tries_the_same_bytes() -> None:
    """Also those that a journal takes from chance, its id and its salts; another seed tries others."""
    found: list[list[Any]] = []
    for seed in (1, 1, 2):
        trees: list[Any] = []

        async def check(storage: CrashStorage, _: Sequence[int], trees: list[Any] = trees) -> None:
            await tree_of(storage, trees)
            await read_all(storage)
            await tree_of(storage, trees)

        await crash_points(journal_of_five, check, seed=seed, states=4)
        found.append(trees)
    assert found[0] == found[1]
    assert found[0] != found[2]


async def test_chance_is_chance_again_afterwards() -> None:
    """A service or a check that fails leaves the random numbers of the process as they were."""
    with pytest.raises(Failure):
        await crash_points(broken_service, Seen().check)
    with pytest.raises(Failure):
        await crash_points(small, broken_check)
    assert secrets.randbits.__self__.__class__.__name__ == "SystemRandom"  # type: ignore[attr-defined]


async def test_two_runs_beside_each_other_are_refused() -> None:
    """Each would take from the chance of the other; one after the other they are fine, also after one that failed."""
    first, second = await asyncio.gather(
        crash_points(journal_of_five, no_check, states=2),
        crash_points(journal_of_five, no_check, states=2),
        return_exceptions=True,
    )
    assert isinstance(first, int)
    assert isinstance(second, RuntimeError)
    assert str(second) == "crash_points: expected one run at a time in a process, found another under way"
    with pytest.raises(Failure):
        await crash_points(broken_service, no_check)
    assert await crash_points(journal_of_five, no_check, states=2) == first


async def no_check(_: CrashStorage, __: Sequence[Any]) -> None:
    pass


class Failure(Exception):
    """What goes wrong in a test."""


async def broken_service(_: CrashStorage, __: Callable[[Any], None]) -> None:
    raise Failure("service")


async def broken_check(storage: CrashStorage, told: Sequence[str]) -> None:
    if told and next(iter(storage.tree().values())) == b"ab\0":
        raise Failure("check")


async def test_a_failure_tells_the_state_and_how_to_try_it_again() -> None:
    """The moment, what was told, and the numbers; with them that state is tried, and no other."""
    with pytest.raises(Failure, match="check") as raised:
        await crash_points(small, broken_check, seed=3, states=40)
    [note] = raised.value.__notes__
    assert note.splitlines() == [
        "crash at moment 4, in the write of p, blob 110, after telling ['ab']; state 3, power cut",
        "again: crash_points(service, check, seed=3, states=40, at=(4, 3))",
    ]
    with pytest.raises(Failure) as again:
        await crash_points(small, broken_check, seed=3, states=40, at=(4, 3))
    assert again.value.__notes__ == raised.value.__notes__
    seen = Seen()
    assert await crash_points(small, seen.check, seed=3, states=40, at=(4, 3)) == 1
    assert seen.states == [(("ab",), b"ab\0")]


async def test_each_state_is_tried_again_by_its_numbers() -> None:
    """Counted from 0, in the order in which all are tried."""
    all_of_them = Seen()
    await crash_points(small, all_of_them.check, seed=5)
    found = Seen()
    for moment in range(8):
        for state in range(7):
            try:
                await crash_points(small, found.check, seed=5, at=(moment, state))
            except ValueError:
                break
    assert found.states == all_of_them.states


@pytest.mark.parametrize("at", [(8, 0), (0, 3), (3, 2), (-1, 0)])
async def test_a_state_that_is_not_there_is_no_success(at: tuple[int, int]) -> None:
    """The service, the seed or the number of states is another than when it was told."""
    seen = Seen()
    with pytest.raises(
        ValueError, match=re.escape(f"at: expected a moment and a state that there are with this service, found {at}")
    ):
        await crash_points(small, seen.check, at=at)
    assert seen.states == []


async def test_a_service_that_fails_is_not_crashed() -> None:
    """Its own error, with no note, and no check was made."""
    seen = Seen()
    with pytest.raises(Failure, match="service") as raised:
        await crash_points(broken_service, seen.check)
    assert not hasattr(raised.value, "__notes__")
    assert seen.states == []


async def test_an_interruption_of_a_check_is_told_too() -> None:
    """What was tried when somebody lost patience, as with a failure."""

    async def check(_: CrashStorage, __: Sequence[str]) -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError) as raised:
        await crash_points(small, check)
    assert raised.value.__notes__[0].startswith("crash at moment 0, in the create of p, blob 110, after telling []")


async def test_tasks_of_a_service_are_crashed_together() -> None:
    """What is under way in several tasks at a moment is all undecided."""

    async def write(storage: CrashStorage, name: bytes) -> None:
        blob, _ = await storage.open("p", name)
        await blob.write_at(0, name)

    async def service(storage: CrashStorage, _: Callable[[Any], None]) -> None:
        await asyncio.gather(write(storage, b"1"), write(storage, b"2"))

    found: set[tuple[bytes, ...]] = set()

    async def check(storage: CrashStorage, _: Sequence[Any]) -> None:
        found.add(tuple(content for _, content in sorted(storage.tree().items())))

    await crash_points(service, check)
    assert {(), (b"",), (b"", b""), (b"1", b""), (b"", b"2"), (b"1", b"2")} <= found


@contextmanager
def measured() -> Iterator[Callable[[], int]]:
    """Give what tells how many bytes were in memory at most."""
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


async def test_a_moment_keeps_only_what_is_new_since_the_one_before() -> None:
    """Not a copy of all there is, at each of them: a service of some large items would need gigabytes."""
    item, items = bytes(2**18), 12

    async def service(storage: CrashStorage, __: Callable[[Any], None]) -> None:
        async with await Journal.init(Context(storage), CONFIG) as journal:
            for _ in range(items):
                await journal.append(item)
                await journal.sync_data()

    with measured() as peak:
        assert await crash_points(service, no_check, states=2) > 3 * items
        assert peak() < 10 * items * len(item)


async def test_the_ways_of_a_large_write_are_not_all_made_to_be_counted() -> None:
    """Where there are more than are tried: each is as large as the blob."""

    async def service(storage: CrashStorage, __: Callable[[Any], None]) -> None:
        blob, _ = await storage.open("p", b"n")
        await blob.write_at(0, bytes(range(1, 129)) * 2**13)

    with measured() as peak:
        assert await crash_points(service, no_check, states=100) > 200
        assert peak() < 20 * 2**20


async def test_a_task_that_tells_after_its_service_is_refused() -> None:
    """It would make moments for ever, and none of them could be tried again."""
    errors: list[RuntimeError] = []

    async def go_on(tell: Callable[[str], None]) -> None:
        for _ in range(100):
            await asyncio.sleep(0)
            try:
                tell("late")
            except RuntimeError as error:
                errors.append(error)
                break

    tasks: list[asyncio.Future[None]] = []

    async def service(_: CrashStorage, tell: Callable[[str], None]) -> None:
        tasks.append(asyncio.ensure_future(go_on(tell)))

    async def check(__: CrashStorage, told: Sequence[str]) -> None:
        assert told == []
        for _ in range(3):
            await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="tell: expected nothing once the service has returned, found 1 promises"):
        await crash_points(service, check)
    await tasks[0]
    assert [str(error) for error in errors] == [
        "tell: expected nothing once the service has returned, found 1 promises"
    ]


@pytest.mark.parametrize("differs", ["bytes", "calls", "end", "error"])
async def test_a_service_that_is_another_each_time_is_told(differs: str) -> None:
    """Its failure could not be tried again, or would seem to be mended."""
    runs = itertools.count()

    async def service(storage: CrashStorage, tell: Callable[[str], None]) -> None:
        run = next(runs)
        if run and differs == "error":
            raise Failure("again")
        blob, _ = await storage.open("p", b"n")
        await blob.write_at(0, b"%d" % (run if differs == "bytes" else 0))
        if run or differs != "calls":
            await blob.sync()
        tell("done")
        if run and differs == "end":
            tell("twice")

    with pytest.raises(Failure, match="check") as raised:
        await crash_points(service, fails_once_told)
    assert len(raised.value.__notes__) == 2
    expected = {
        "bytes": "not the same again: from moment 2 on the service did something else",
        "calls": "not the same again: from moment 2 on the service did something else",
        "end": "not the same again: from moment 4 on the service did something else",
        "error": "not the same again: the service raised Failure('again') when it was run once more",
    }
    assert raised.value.__notes__[1].startswith(expected[differs])


async def fails_once_told(_: CrashStorage, told: Sequence[str]) -> None:
    if told:
        raise Failure("check")


async def test_a_failure_shows_the_beginning_and_the_end_of_much_that_was_told() -> None:
    """A line of megabytes would hide the rest of what it says."""

    async def service(_: CrashStorage, tell: Callable[[str], None]) -> None:
        tell("first" + "x" * 10**6 + "last")

    with pytest.raises(Failure) as raised:
        await crash_points(service, fails_once_told)
    [note] = raised.value.__notes__
    assert len(note) < 5_000
    assert note.startswith("crash at moment 0, right after telling, after telling ['firstxxx")
    assert "xxxlast']; state 0, process killed\nagain: " in note


def test_a_service_is_crashed_in_the_order_of_a_seed() -> None:
    """And its failure is found again by the numbers of moment and state with that seed, which is not doubted."""

    async def service(storage: CrashStorage, tell: Callable[[int], None]) -> None:
        async def accept(number: int) -> None:
            position = await journal.append(b"%d" % number)
            tell(position)
            await journal.sync_data()

        async with await Journal.init(Context(storage), CONFIG) as journal:
            await asyncio.gather(*map(accept, range(5)))

    notes: list[list[str]] = []
    for at in (None, None, (3, 0)):
        with pytest.raises(Failure) as raised:
            run_interleaved(crash_points(service, fails_once_told, states=4, at=at), 1)
        notes.append(raised.value.__notes__)
    assert notes[0] == notes[1] == notes[2]
    crash, seed = notes[0]
    assert crash.startswith("crash at moment 3, right after telling")
    assert seed == "seed 1: run_interleaved(..., 1) does the same again"
