"""The judge of histories: it takes what a journal may say, and nothing else."""

from __future__ import annotations

import math
from itertools import permutations, product
from typing import TYPE_CHECKING, Any

import pytest

from posjournal_async import InvalidRewind, ItemOutOfRange, ItemPruned, JournalClosed
from tests.concurrency.linearizability import (
    END,
    UNKNOWN,
    Call,
    NotLinearizable,
    Rules,
    Step,
    explain,
    item_of,
    judge,
    told,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

RULES = Rules(items_per_section=2)

A, B, C = item_of(1, 0), item_of(2, 0), item_of(3, 0)
RUN = [item_of(5, number) for number in range(3)]
A_THEN_RUN = ("append", (1, 1), 0, 1, 0), ("append_many", (5, 3), 2, 3, 3)


def calls_of(*rows: tuple[Any, ...]) -> list[Call]:
    """Make calls of rows of a method, its arguments, two moments and an outcome; `next` belongs to the last replay."""
    calls = []
    replay = 0
    for row, (what, args, invoked, responded, outcome) in enumerate(rows):
        if what == "replay":
            replay = 100 + row
        number = replay if what == "next" else args[0] if what.startswith("append") else 100 + row
        calls.append(Call(number, row, what, args, invoked, responded, outcome))
    return calls


def is_linearizable(*rows: tuple[Any, ...], until: float = math.inf) -> bool:
    try:
        judge(calls_of(*rows), Rules(RULES.items_per_section, until))
    except NotLinearizable:
        return False
    return True


RIGHT: dict[str, list[tuple[Any, ...]]] = {
    "nothing": [],
    "appends at the same time in any order": [("append", (1, 1), 0, 3, 1), ("append", (2, 1), 1, 2, 0)],
    "a read of an append that has not returned": [("append", (1, 1), 0, 3, 0), ("read", (0,), 1, 2, A)],
    "a read before an append that has begun": [
        ("append", (1, 1), 0, 3, 0),
        ("read", (0,), 1, 2, ItemOutOfRange(0, 0)),
    ],
    "a cancelled append that happened": [
        ("append", (1, 1), 0, math.inf, UNKNOWN),
        ("append", (2, 1), 2, 3, 1),
        ("read", (0,), 4, 5, A),
    ],
    "a cancelled append that did not": [("append", (1, 1), 0, math.inf, UNKNOWN), ("append", (2, 1), 2, 3, 0)],
    "a snapshot without what came later": [
        ("append", (1, 1), 0, 1, 0),
        ("replay", (0,), 2, 3, None),
        ("append", (2, 1), 4, 5, 1),
        ("next", (0,), 6, 7, [A]),
        ("next", (1,), 8, 9, END),
    ],
    "a stream that a rewind ends": [
        *A_THEN_RUN,
        ("replay", (0,), 4, 5, None),
        ("next", (0,), 6, 7, [A]),
        ("rewind", (1,), 8, 9, None),
        ("next", (1,), 10, 11, ItemOutOfRange(1, 1)),
    ],
    "a stream that goes on beside a prune": [
        *A_THEN_RUN,
        ("replay", (0,), 4, 5, None),
        ("prune", (2,), 6, 7, True),
        ("next", (0,), 8, 9, [A, RUN[0]]),
        ("next", (2,), 10, 11, [RUN[1], RUN[2]]),
        ("next", (4,), 12, 13, END),
    ],
    "a stream that a prune ends": [
        *A_THEN_RUN,
        ("replay", (0,), 4, 5, None),
        ("prune", (2,), 6, 7, True),
        ("next", (0,), 8, 9, ItemPruned(0, 2)),
    ],
    "an append before a close at the same time": [
        ("append", (1, 1), 0, 5, 0),
        ("close", (), 1, 6, None),
        ("size", (), 2, 3, JournalClosed("orders")),
    ],
    "an append that was destroyed before its section was sealed": [
        ("append_many", (1, 2), 0, 6, JournalClosed("orders")),
        ("read", (1,), 1, 2, item_of(1, 1)),
        ("destroy", (), 3, 5, None),
    ],
    "a durable size between what is promised and the size": [
        ("append", (1, 1), 0, 1, 0),
        ("sync", (), 2, 5, None),
        ("append", (2, 1), 3, 20, 1),
        ("durable_size", (), 6, 7, 1),
    ],
    "a sync under way shows or does not": [
        ("append", (1, 1), 0, 1, 0),
        ("sync_data", (), 2, 9, None),
        ("durable_size", (), 3, 4, 0),
        ("durable_size", (), 5, 6, 1),
    ],
    "the end of it all": [
        *A_THEN_RUN,
        ("prune", (3,), 4, 5, True),
        ("close", (), 6, 7, None),
        ("reopen", (), 8, 8, (2, RUN[1:])),
    ],
}

WRONG: dict[str, list[tuple[Any, ...]]] = {
    "a lost update": [("append", (1, 1), 0, 3, 0), ("append", (2, 1), 1, 2, 0)],
    "a hole": [("append", (1, 1), 0, 1, 1)],
    "positions against the order of the calls": [("append", (1, 1), 0, 1, 1), ("append", (2, 1), 2, 3, 0)],
    "a stale read": [("append", (1, 1), 0, 1, 0), ("read", (0,), 2, 3, ItemOutOfRange(0, 0))],
    "a read of what was discarded": [
        ("append", (1, 1), 0, 1, 0),
        ("rewind", (0,), 2, 3, None),
        ("append", (2, 1), 4, 5, 0),
        ("read", (0,), 6, 7, A),
    ],
    "a read of another item": [("append", (1, 1), 0, 1, 0), ("read", (0,), 2, 3, B)],
    "a read of what was pruned": [*A_THEN_RUN, ("prune", (2,), 4, 5, True), ("read", (1,), 6, 7, RUN[0])],
    "an append between the items of a run": [
        ("append_many", (5, 2), 0, 3, 2),
        ("append", (2, 1), 1, 2, 1),
    ],
    "half a run": [("append_many", (5, 3), 0, 3, 2), ("size", (), 1, 2, 1)],
    "reads of many that no moment has": [
        ("append_many", (5, 3), 0, 1, 2),
        ("read_many", ((0, 2),), 2, 9, [RUN[0], item_of(6, 2)]),
        ("rewind", (0,), 3, 4, None),
        ("append_many", (6, 3), 5, 6, 2),
    ],
    "a cancelled append that happened twice": [
        ("append", (1, 1), 0, math.inf, UNKNOWN),
        ("read", (0,), 2, 3, A),
        ("read", (1,), 4, 5, A),
    ],
    "half of a cancelled run": [("append_many", (5, 3), 0, math.inf, UNKNOWN), ("size", (), 2, 3, 1)],
    "a cancelled append that is there, gone and there": [
        ("append", (1, 1), 0, math.inf, UNKNOWN),
        ("size", (), 2, 3, 1),
        ("size", (), 4, 5, 0),
        ("size", (), 6, 7, 1),
    ],
    "a replay with what came later": [
        ("append", (1, 1), 0, 1, 0),
        ("replay", (0,), 2, 3, None),
        ("append", (2, 1), 4, 5, 1),
        ("next", (0,), 6, 7, [A, B]),
    ],
    "a replay with a hole": [*A_THEN_RUN, ("replay", (0,), 4, 5, None), ("next", (0,), 6, 7, [A, RUN[1]])],
    "a replay that ends early": [*A_THEN_RUN, ("replay", (0,), 4, 5, None), ("next", (0,), 6, 7, END)],
    "a replay that goes on after a rewind": [
        *A_THEN_RUN,
        ("replay", (0,), 4, 5, None),
        ("rewind", (1,), 6, 7, None),
        ("next", (0,), 8, 9, [A, RUN[0]]),
    ],
    "a replay that goes on after a close": [
        ("append", (1, 1), 0, 1, 0),
        ("replay", (0,), 2, 3, None),
        ("close", (), 4, 5, None),
        ("next", (0,), 6, 7, [A]),
    ],
    "a replay that ends with what was not pruned": [
        *A_THEN_RUN,
        ("replay", (0,), 4, 5, None),
        ("next", (0,), 6, 7, ItemPruned(0, 2)),
    ],
    "a prune of nothing that says it removed": [("append", (1, 1), 0, 1, 0), ("prune", (1,), 2, 3, True)],
    "a prune of something that says it did not": [*A_THEN_RUN, ("prune", (2,), 4, 5, False)],
    "a rewind refused without a reason": [*A_THEN_RUN, ("rewind", (1,), 4, 5, InvalidRewind(1, 0))],
    "a rewind beyond the end": [("rewind", (1,), 0, 1, None)],
    "an append after a close": [("close", (), 0, 1, None), ("append", (1, 1), 2, 3, 0)],
    "a closed journal that nobody closed": [("size", (), 0, 1, JournalClosed("orders"))],
    "an append that was refused by a close and is there": [
        ("append_many", (1, 2), 0, 6, JournalClosed("orders")),
        ("read", (1,), 1, 2, item_of(1, 1)),
        ("close", (), 3, 5, None),
    ],
    "a sync that does not show": [
        ("append", (1, 1), 0, 1, 0),
        ("sync_data", (), 2, 3, None),
        ("durable_size", (), 4, 5, 0),
    ],
    "a full section that is not durable": [("append_many", (1, 2), 0, 1, 1), ("durable_size", (), 2, 3, 1)],
    "more durable than there is": [("append", (1, 1), 0, 1, 0), ("durable_size", (), 2, 3, 2)],
    "bounds of another journal": [("bounds", (), 0, 1, (1, 1))],
    "an item lost by a close": [("append", (1, 1), 0, 1, 0), ("close", (), 2, 3, None), ("reopen", (), 4, 4, (0, []))],
    "something left by a destroy": [
        ("append", (1, 1), 0, 1, 0),
        ("destroy", (), 2, 3, None),
        ("reopen", (), 4, 4, (0, [A])),
    ],
}


@pytest.mark.parametrize("rows", RIGHT.values(), ids=RIGHT)
def test_what_a_journal_may_say_is_explained(rows: list[tuple[Any, ...]]) -> None:
    """A history that one call after the other explains is taken (I1)."""
    assert is_linearizable(*rows)


@pytest.mark.parametrize("rows", WRONG.values(), ids=WRONG)
def test_what_a_journal_must_not_say_is_refused(rows: list[tuple[Any, ...]]) -> None:
    """A history that no order explains is refused, with what was told (I1)."""
    with pytest.raises(NotLinearizable, match="no order explains"):
        judge(calls_of(*rows), RULES)


CLOSED = ("size", (), 8, 9, JournalClosed("orders"))
DESTROYED_BESIDE_A_REWIND = ("rewind", (0,), 6, 40, None), ("destroy", (), 7, 50, None), CLOSED
DESTROYED_AFTER_A_REWIND = ("rewind", (1,), 6, 7, None), ("destroy", (), 7.5, 50, None), CLOSED
APPENDED = ("append", (1, 1), 0, 1, 0), ("append", (2, 1), 2, 3, 1), ("append", (3, 1), 4, 5, 2)


@pytest.mark.parametrize(
    ("rows", "found", "is_allowed"),
    [
        (APPENDED, (0, [A, B]), True),  # the second filled a section
        (APPENDED, (0, [A, B, C]), True),
        (APPENDED, (0, [A]), False),
        (APPENDED, (0, [A, C]), False),
        (APPENDED, (0, [A, B, C, A]), False),
        ((*APPENDED, ("sync_data", (), 6, 7, None)), (0, [A, B]), False),
        ((*APPENDED, ("sync_data", (), 6, 50, None)), (0, [A, B]), True),
        ((*APPENDED, ("durable_size", (), 6, 7, 3)), (0, [A, B]), False),
        ((*APPENDED, ("rewind", (1,), 6, 50, None)), (0, [A]), True),
        ((*APPENDED, ("rewind", (1,), 6, 50, None)), (0, [A, B, C]), True),
        ((*APPENDED, ("rewind", (1,), 6, 50, None)), (0, []), False),
        ((*APPENDED, ("rewind", (1,), 6, 50, None), ("size", (), 7, 8, 1)), (0, [A, B]), True),
        ((*APPENDED, ("rewind", (1,), 6, 7, None)), (0, [A, B]), False),
        ((*APPENDED, ("prune", (2,), 6, 50, True)), (2, [C]), True),
        ((*APPENDED, ("prune", (2,), 6, 50, True)), (2, []), False),
        ((*APPENDED, ("prune", (2,), 6, 50, True)), (0, [A, B]), True),
        ((*APPENDED, ("prune", (2,), 6, 7, True)), (0, [A, B, C]), False),
        ((*APPENDED, ("destroy", (), 6, 50, None)), (0, []), True),
        ((*APPENDED, ("destroy", (), 6, 50, None)), (0, [A, B]), True),
        ((*APPENDED, ("destroy", (), 6, 50, None)), (0, [A]), False),
        ((*APPENDED, ("destroy", (), 6, 7, None)), (0, [A, B]), False),
        ((*APPENDED, *DESTROYED_BESIDE_A_REWIND), (0, [A, B]), True),
        ((*APPENDED, *DESTROYED_BESIDE_A_REWIND), (0, [A]), True),
        ((*APPENDED, *DESTROYED_BESIDE_A_REWIND), (0, []), True),
        ((*APPENDED, *DESTROYED_BESIDE_A_REWIND), (0, [B]), False),
        ((*APPENDED, *DESTROYED_AFTER_A_REWIND), (0, [A]), True),
        ((*APPENDED, *DESTROYED_AFTER_A_REWIND), (0, [A, B]), False),
        ((*APPENDED, ("append", (4, 1), 30, 31, 3)), (0, [A, B, C]), True),
        ((*APPENDED, ("append", (4, 1), 30, 31, 3)), (0, [A, B, C, item_of(4, 0)]), False),
    ],
)
def test_a_crash_leaves_what_was_durable_and_nothing_from_after_it(
    rows: tuple[tuple[Any, ...], ...], found: tuple[int, list[bytes]], *, is_allowed: bool
) -> None:
    """A crash at moment 20 leaves a prefix that has all that was promised by then (D1, D2, D4)."""
    assert is_linearizable(*rows, ("reopen", (), 20, 20, found), until=20) == is_allowed


def write(value: int) -> Callable[[int], Iterator[int]]:
    def leads_to(_: int) -> Iterator[int]:
        yield value

    return leads_to


def read(value: int) -> Callable[[int], Iterator[int]]:
    def leads_to(state: int) -> Iterator[int]:
        if state == value:
            yield state

    return leads_to


def explains(order: Sequence[Step[int]]) -> bool:
    """Say whether this very order does, for steps that lead to one state at most."""
    if any(late.until < early.since for at, early in enumerate(order) for late in order[at + 1 :]):
        return False
    states = [0]
    for step in order:
        states = [after for state in states for after in step.leads_to(state)]
    return bool(states)


def test_the_search_finds_an_order_where_trying_all_of_them_does() -> None:
    """On 1,875 histories of four calls on a register, the search and the trial of all orders agree."""
    spans = [(0.0, 1.5), (0.1, 3.5), (2.0, 3.6), (1.0, 5.5)]
    agreed = {True: 0, False: 0}
    for actions in product([write(1), write(2), read(0), read(1), read(2)], repeat=4):
        for places in [(0, 1, 2, 3), (3, 1, 0, 2), (1, 2, 3, 0)]:
            steps = [Step("", *spans[place], action) for place, action in zip(places, actions, strict=True)]
            try:
                found = explains(explain(steps, 0))
            except NotLinearizable:
                found = False
            assert found == any(explains(order) for order in permutations(steps))
            agreed[found] += 1
    assert min(agreed.values()) > 100


def test_a_history_is_told_in_the_order_of_the_calls() -> None:
    """A failure shows each call with its moments, its task and its outcome."""
    [first, second] = told(calls_of(("size", (), 2, 3, 1), ("rewind", (9,), 0, 1, InvalidRewind(9, 0)))).splitlines()
    assert "0..   1" in first
    assert "rewind(9) = InvalidRewind(9, 0)" in first
    assert second.endswith("task 0: size() = 1")
