"""Whether what concurrent callers were told can be explained by their calls being made one after the other.

`explain` is the search of Wing and Gong ("Testing and Verifying Concurrent Objects", J. Parallel Distrib. Comput. 17,
1993) with the memory that Lowe added ("Testing for Linearizability", Concurrency Comput. Pract. Exper. 29, 2017): depth
first over the calls that may come next, and never twice to the same calls done with the same state.

The rest says what the calls of a journal do, one after the other: `State` is a journal at one moment, and `steps_of`
turns each recorded call into steps, each of which took effect at one moment. Most calls are one step. These are more:

* `sync` and `sync_data` ask for the size at their call, and keep the promise at their return; nothing in between shows.
* So does an append that fills a section.
* `replay` takes its snapshot at the call; each item that it gives is a step of its own, since a rewind ends the stream.

A call that was cancelled, or was under way when the power went, happened at any moment after it was made, or not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from posjournal_async import EmptyAppend, InvalidRewind, ItemOutOfRange, ItemPruned, JournalClosed

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

__all__ = [
    "END",
    "UNKNOWN",
    "Call",
    "NotLinearizable",
    "Rules",
    "Step",
    "Undecided",
    "explain",
    "item_of",
    "judge",
    "told",
]

S = TypeVar("S", bound="Hashable")

# Outcome of a call that was cancelled or has not returned; outcome of asking a stream for more when it is at its end.
UNKNOWN: Any = type("Unknown", (), {"__repr__": lambda _: "?"})()
END: Any = type("End", (), {"__repr__": lambda _: "end"})()


# The search.


@dataclass(frozen=True, slots=True, eq=False)
class Step(Generic[S]):
    """Something that took effect at one moment.

    Attributes:
        what: For people.
        since: The moment is not before this one.
        until: Nor after this one; infinity if that is not known.
        leads_to: The states after it, given the one before; none if what the caller was told contradicts it.
        is_certain: Whether it happened at all.
        is_cut: Whether something may become possible by it again that is not any more.
        is_lost_in: Whether it cannot happen in a state any more, nor later unless there is a cut before. That need not
            be known: it keeps the search from trying all ways that lead nowhere.
    """

    what: str
    since: float
    until: float
    leads_to: Callable[[S], Iterator[S]]
    is_certain: bool = True
    is_cut: bool = False
    is_lost_in: Callable[[S], bool] = lambda _: False


class NotLinearizable(AssertionError):
    """There is no order of the steps in which each of them is what its caller was told."""


class Undecided(Exception):
    """The search was given up: it is exponential in how many calls were under way at once or were cancelled."""


def explain(steps: Sequence[Step[S]], state: S, most: int = 50_000) -> list[Step[S]]:
    """Return an order of the steps that explains all of them, those that are not certain included or not.

    Raises:
        NotLinearizable: There is none.
        Undecided: Not found out in looking at so many states.
    """
    steps = sorted(steps, key=lambda step: step.since)
    certain = sum(1 << number for number, step in enumerate(steps) if step.is_certain)
    seen: set[tuple[int, S]] = set()
    longest: tuple[int, Any] = (0, None)
    # Steps done as bits, the state after them, and the way there as a chain of step numbers.
    stack: list[tuple[int, S, Any]] = [(0, state, None)]
    while stack:
        done, state, way = stack.pop()
        if len(seen) > most:
            raise Undecided
        if not certain & ~done:
            return [steps[number] for number in _unchained(way)]
        longest = max(longest, (done.bit_count(), way), key=lambda found: found[0])
        if _is_dead_end(steps, done, state):
            continue
        for number in reversed(_next_of(steps, done)):
            for after in steps[number].leads_to(state):
                reached = (done | 1 << number, after)
                if reached not in seen:
                    seen.add(reached)
                    stack.append((*reached, (number, way)))
    order = _unchained(longest[1])
    stuck = _next_of(steps, sum(1 << number for number in order))
    raise NotLinearizable(
        "\n  ".join(
            [
                "no order explains what was told; the longest beginning is",
                *(steps[number].what for number in order),
                "and then none of",
                *(steps[number].what for number in stuck),
            ]
        )
    )


def _next_of(steps: Sequence[Step[Any]], done: int) -> list[int]:
    """Return the steps that may be next: none that is left has ended before they began. The likely ones come first."""
    first_end = math.inf
    found = []
    for number in range((~done & (done + 1)).bit_length() - 1, len(steps)):
        if done >> number & 1:
            continue
        step = steps[number]
        if step.since > first_end:
            break
        found.append(number)
        if step.is_certain:
            first_end = min(first_end, step.until)
    return sorted(
        (number for number in found if steps[number].since <= first_end),
        key=lambda number: (not steps[number].is_certain, steps[number].until),
    )


def _is_dead_end(steps: Sequence[Step[S]], done: int, state: S) -> bool:
    """Say whether one of the steps that are left is lost."""
    left = [step for number, step in enumerate(steps) if not done >> number & 1]
    cut = min((step.since for step in left if step.is_cut), default=math.inf)
    return any(step.is_lost_in(state) for step in left if step.is_certain and step.until < cut)


def _unchained(way: Any) -> list[int]:
    found = []
    while way is not None:
        number, way = way
        found.append(number)
    return found[::-1]


# The journal, one call after the other.


def item_of(name: int, number: int) -> bytes:
    """Return an item of the run of that name; no other run has it, and the lengths differ."""
    return b"%d.%d:" % (name, number) + b"x" * ((name * 7 + number * 3) % 23)


class Run(NamedTuple):
    """Items that were appended by one call, as far as they are not discarded."""

    first: int
    stop: int
    name: int


class Past(NamedTuple):
    """What a crash may bring back while a rewind or a destroy is under way: at least so much, at most all of it."""

    boundary: int
    least: int
    size: int
    runs: tuple[Run, ...]


class Stream(NamedTuple):
    """The snapshot of a replay, and the lowest size that a rewind has left since."""

    size: int
    limit: int
    runs: tuple[Run, ...]


class State(NamedTuple):
    """A journal at one moment.

    Attributes:
        boundary: The pruning boundary.
        size: The size.
        runs: The items.
        durable: A size that is durable; more may be.
        phase: "open", "closed" or "destroyed".
        promises: Sizes that will be durable when a call returns, by the number of the call.
        streams: The snapshots of replays, by the number of the call.
        past: See `Past`; None when nothing is under way.
    """

    boundary: int = 0
    size: int = 0
    runs: tuple[Run, ...] = ()
    durable: int = 0
    phase: str = "open"
    promises: tuple[tuple[int, int], ...] = ()
    streams: tuple[tuple[int, Stream], ...] = ()
    past: Past | None = None

    def append(self, name: int, count: int) -> State:
        run = Run(self.size, self.size + count, name)
        return self._replace(size=self.size + count, runs=(*self.runs, run), past=None)

    def prune(self, boundary: int) -> State:
        runs = tuple(run for run in self.runs if run.stop > boundary)
        return self._replace(boundary=boundary, runs=runs, durable=self.size, past=None)

    def rewind(self, size: int) -> State:
        runs = tuple(run._replace(stop=min(run.stop, size)) for run in self.runs if run.first < size)
        promises = tuple((number, min(promised, size)) for number, promised in self.promises)
        streams = tuple((number, stream._replace(limit=min(stream.limit, size))) for number, stream in self.streams)
        return self._replace(size=size, runs=runs, durable=size, promises=promises, streams=streams, past=None)

    def destroy(self) -> State:
        return State(phase="destroyed", streams=self.streams)

    def promise(self, number: int, size: int) -> State:
        return self._replace(promises=(*self.promises, (number, size)))

    def keep(self, number: int) -> State:
        """Make durable what was promised to a call that returns."""
        promised = dict(self.promises)
        durable = max(self.durable, promised.pop(number, 0))
        return self._replace(durable=durable, promises=tuple(promised.items()))


def item_at(runs: Sequence[Run], position: int) -> bytes | None:
    """Return the item at a position; None if there is none."""
    return next((item_of(run.name, position - run.first) for run in runs if run.first <= position < run.stop), None)


@dataclass(slots=True, eq=False)
class Call:
    """A call and what came of it.

    Attributes:
        number: Of this call; a `next` has that of its `replay`.
        task: Who made it.
        what: The method; `next` for the items and the end of a replay.
        args: What it was called with. An append has the name of its run and how many items it has.
        invoked: The moment of the call.
        responded: The moment of its return.
        outcome: What it returned or raised; bounds as two numbers, since all empty ranges are equal.
    """

    number: int
    task: int
    what: str
    args: tuple[Any, ...]
    invoked: int
    responded: float = math.inf
    outcome: Any = UNKNOWN

    def __str__(self) -> str:
        args = ", ".join(map(repr, self.args))
        outcome = f"{type(self.outcome).__name__}{self.outcome.args}" if _is_error(self.outcome) else self.outcome
        return (
            f"[{self.invoked:4}..{self.responded:4}] {self.number:3} task {self.task}: {self.what}({args}) = {outcome}"
        )


def _is_error(outcome: object) -> bool:
    return isinstance(outcome, Exception)


def told(calls: Sequence[Call]) -> str:
    """Return a history for people, in the order of the calls."""
    return "\n".join(map(str, sorted(calls, key=lambda call: call.invoked)))


@dataclass(frozen=True, slots=True)
class Rules:
    """What is to be known to say what a call does.

    Attributes:
        items_per_section: Positions in a section.
        until: The moment at which the power went; infinity if it did not.
        shown: When the items of each run were first seen. What is seen later only spares the search many wrong ways.
        given: What each replay gave, as the `next` calls with its number.
    """

    items_per_section: int
    until: float = math.inf
    shown: Mapping[int, float] = field(default_factory=dict)
    given: Mapping[int, Sequence[Call]] = field(default_factory=dict)

    def floor(self, position: int) -> int:
        """Return the start of a position's section."""
        return position // self.items_per_section * self.items_per_section


def judge(calls: Sequence[Call], rules: Rules, start: int = 0) -> list[Step[State]]:
    """Return an order that explains the calls of a journal that was empty at `start`.

    Raises:
        NotLinearizable: There is none.
        Undecided: See there.
    """
    rules = replace(rules, shown=_shown(calls, rules), given=_given(calls, rules))
    steps = [step for call in calls for step in steps_of(call, rules)]
    return explain(steps, State(boundary=start, size=start, durable=start))


def _shown(calls: Sequence[Call], rules: Rules) -> dict[int, float]:
    """Return when each run was seen first: an append that was cancelled happened before that."""
    found: dict[int, float] = {}
    for call in calls:
        outcome = call.outcome[1] if call.what == "reopen" else call.outcome
        items = outcome if isinstance(outcome, list) else [outcome]
        for item in items:
            if isinstance(item, bytes) and call.responded <= rules.until:
                name = int(item.partition(b".")[0])
                found[name] = min(found.get(name, math.inf), call.responded)
    return found


def _given(calls: Sequence[Call], rules: Rules) -> dict[int, list[Call]]:
    found: dict[int, list[Call]] = {}
    for call in calls:
        if call.what == "next" and call.responded <= rules.until:
            found.setdefault(call.number, []).append(call)
    return found


# Calls that leave everything as it is: what happened to them when nobody was told is nobody's concern.
_LOOKS = {"read", "read_many", "next", "size", "bounds", "oldest_retained_pos", "durable_size"}
_SYNCS = {"sync", "sync_data"}
_APPENDS = {"append", "append_many"}

# What is promised to an append that took its positions, filled a section, and was told `JournalClosed` all the same:
# that the journal was destroyed before the section was sealed.
_TO_BE_DESTROYED = -1


def steps_of(call: Call, rules: Rules) -> Iterator[Step[State]]:
    """Yield what a call did, and when."""
    if call.invoked > rules.until:
        return
    outcome = call.outcome if call.responded <= rules.until else UNKNOWN
    if outcome is UNKNOWN and call.what in _LOOKS | _SYNCS:
        return

    def leads_to(state: State) -> Iterator[State]:
        if isinstance(outcome, JournalClosed) and state.phase != "open":
            yield state
        elif not isinstance(outcome, JournalClosed) or call.what in _APPENDS:
            yield from _EFFECTS[call.what](state, call, outcome, rules)

    def keep(state: State) -> Iterator[State]:
        if dict(state.promises).get(call.number) != _TO_BE_DESTROYED:
            yield state.keep(call.number)

    until = _latest(call, outcome, rules)
    is_certain = outcome is not UNKNOWN or until < math.inf
    is_cut = call.what in {"rewind", "destroy"} and not _is_error(outcome)
    boundary, size = _told_bounds(call, outcome, rules)

    def is_lost_in(state: State) -> bool:
        return state.boundary > boundary or state.size > size

    yield Step(str(call), call.invoked, until, leads_to, is_certain, is_cut, is_lost_in)
    if call.what in _KEEPS and outcome is not UNKNOWN:
        yield Step(f"{call.number} returns", call.responded + 0.5, call.responded + 0.5, keep)


def _latest(call: Call, outcome: Any, rules: Rules) -> float:
    """Return when a call must have happened, if it has."""
    if call.what in _SYNCS and not _is_error(outcome):
        return call.invoked
    if outcome is UNKNOWN:
        return rules.shown.get(call.args[0], math.inf) if call.what in _APPENDS else math.inf
    return call.responded


def _told_bounds(call: Call, outcome: Any, rules: Rules) -> tuple[float, float]:  # noqa: PLR0911 - one for each case
    """Return the boundary and the size that the journal had at the call, as far as its outcome tells; else infinity."""
    match outcome:
        case ItemOutOfRange() | InvalidRewind() if call.what != "next":
            return math.inf, outcome.size
        case ItemPruned():
            return outcome.oldest, math.inf
        case int() if call.what in _APPENDS:
            return math.inf, outcome + 1 - call.args[1]
        case int() if call.what == "size":
            return math.inf, outcome
        case (int(boundary), int(size)) if call.what == "bounds":
            return boundary, size
        case (int(boundary), list(items)) if call.what == "reopen" and rules.until == math.inf:
            return boundary, boundary + len(items)
        case bytes():
            return call.args[0], math.inf
        case _:
            return math.inf, math.inf


def _append(state: State, call: Call, outcome: Any, rules: Rules) -> Iterator[State]:
    name, count = call.args
    if state.phase != "open":
        return
    if isinstance(outcome, EmptyAppend):
        if not count:
            yield state
    elif isinstance(outcome, JournalClosed):
        after = state.append(name, count)
        if count and rules.floor(after.size) > state.size:
            yield after.promise(call.number, _TO_BE_DESTROYED)
    elif count and outcome in (UNKNOWN, state.size + count - 1):
        after = state.append(name, count)
        full = rules.floor(after.size)
        # Whose caller was told waited until the sections that it filled were sealed.
        yield after if full <= state.size or outcome is UNKNOWN else after.promise(call.number, full)


def _prune(state: State, call: Call, outcome: Any, rules: Rules) -> Iterator[State]:
    boundary = rules.floor(min(call.args[0], state.size))
    is_removing = boundary > state.boundary
    if state.phase == "open" and outcome in (UNKNOWN, is_removing):
        yield state.prune(boundary) if is_removing else state


def _rewind(state: State, call: Call, outcome: Any, rules: Rules) -> Iterator[State]:
    size: int = call.args[0]
    if state.phase != "open":
        return
    if size > state.size:
        if isinstance(outcome, InvalidRewind) and (outcome.position, outcome.size) == (size, state.size):
            yield state
    elif size < state.boundary:
        if isinstance(outcome, ItemPruned) and (outcome.position, outcome.oldest) == (size, state.boundary):
            yield state
    elif not _is_error(outcome):
        after = state.rewind(size) if size < state.size else state
        if outcome is UNKNOWN and rules.until < math.inf and size < state.size:
            after = after._replace(past=Past(state.boundary, size, state.size, state.runs))
        yield after


def _sync(state: State, call: Call, _: Any, __: Rules) -> Iterator[State]:
    if state.phase == "open":
        yield state.promise(call.number, state.size)


def _close(state: State, call: Call, outcome: Any, _: Rules) -> Iterator[State]:
    after = state._replace(phase="closed") if state.phase == "open" else state
    yield after if outcome is UNKNOWN else after.promise(call.number, after.size)


def _destroy(state: State, _: Call, outcome: Any, rules: Rules) -> Iterator[State]:
    if state.phase == "open":
        after = state.destroy()
        if outcome is UNKNOWN and rules.until < math.inf:
            # A rewind that is under way comes first, though others are refused from the call on.
            past = state.past or Past(state.boundary, state.durable, state.size, state.runs)
            after = after._replace(past=past)
        yield after


def _read(state: State, call: Call, outcome: Any, _: Rules) -> Iterator[State]:
    position: int = call.args[0]
    if state.phase == "open" and _reads(state, position, outcome):
        yield state


def _reads(state: State, position: int, outcome: Any) -> bool:
    if position >= state.size:
        return isinstance(outcome, ItemOutOfRange) and (outcome.position, outcome.size) == (position, state.size)
    if position < state.boundary:
        return isinstance(outcome, ItemPruned) and (outcome.position, outcome.oldest) == (position, state.boundary)
    return bool(outcome == item_at(state.runs, position))


def _read_many(state: State, call: Call, outcome: Any, _: Rules) -> Iterator[State]:
    positions: Sequence[int] = call.args[0]
    if state.phase != "open":
        return
    if not _is_error(outcome):
        if all(state.boundary <= position < state.size for position in positions) and outcome == [
            item_at(state.runs, position) for position in positions
        ]:
            yield state
    elif outcome.position in positions and _reads(state, outcome.position, outcome):
        yield state


def _replay(state: State, call: Call, outcome: Any, rules: Rules) -> Iterator[State]:
    start: int = call.args[0]
    if state.phase != "open":
        return
    if start > state.size:
        is_told = isinstance(outcome, ItemOutOfRange) and (outcome.position, outcome.size) == (start, state.size)
    elif start < state.boundary:
        is_told = isinstance(outcome, ItemPruned) and (outcome.position, outcome.oldest) == (start, state.boundary)
    else:
        stream = Stream(state.size, state.size, state.runs)
        is_told = outcome is None and all(_gives(stream, given) for given in rules.given.get(call.number, ()))
        state = state._replace(streams=(*state.streams, (call.number, stream)))
    if is_told:
        yield state


def _gives(stream: Stream, given: Call) -> bool:
    """Say whether a snapshot has what a replay gave."""
    position: int = given.args[0]
    if given.outcome is END:
        return position == stream.size
    if not isinstance(given.outcome, list):
        return True
    there = range(position, position + len(given.outcome))
    return there.stop <= stream.size and given.outcome == [item_at(stream.runs, place) for place in there]


def _next(state: State, call: Call, outcome: Any, _: Rules) -> Iterator[State]:
    """Give items of the snapshot, or the end: a prune may leave them readable, a rewind and a close may not."""
    position: int = call.args[0]
    streams = dict(state.streams)
    stream = streams[call.number]
    if isinstance(outcome, list):
        if state.phase == "open" and position + len(outcome) <= stream.limit and _gives(stream, call):
            yield state
        return
    if outcome is END:
        is_told = _gives(stream, call)
    elif isinstance(outcome, ItemPruned):
        is_told = outcome.position == position < state.boundary == outcome.oldest
    elif isinstance(outcome, ItemOutOfRange):
        is_told = outcome.position == position >= stream.limit and outcome.size in {state.size, stream.limit}
    else:
        is_told = False
    if is_told and (state.phase == "open" or outcome is END):
        del streams[call.number]
        yield state._replace(streams=tuple(streams.items()))


def _look(what: Callable[[State], Any]) -> Callable[[State, Call, Any, Rules], Iterator[State]]:
    def leads_to(state: State, _: Call, outcome: Any, __: Rules) -> Iterator[State]:
        if state.phase == "open" and outcome == what(state):
            yield state

    return leads_to


def _durable_size(state: State, _: Call, outcome: Any, __: Rules) -> Iterator[State]:
    if state.phase == "open" and state.durable <= outcome <= state.size:
        yield state._replace(durable=outcome)


def _reopen(state: State, _: Call, outcome: Any, rules: Rules) -> Iterator[State]:
    """Find, in the end, everything after a close, and what had to be durable after a crash."""
    start, items = outcome
    size = start + len(items)

    def is_found(boundary: int, least: int, most: int, runs: Sequence[Run]) -> bool:
        if start != boundary or not least <= size <= most:
            return False
        return bool(items == [item_at(runs, position) for position in range(start, size)])

    least = state.durable if rules.until < math.inf else state.size
    past = state.past
    if is_found(state.boundary, least, state.size, state.runs) or (
        past is not None and is_found(past.boundary, past.least, past.size, past.runs)
    ):
        yield state


_KEEPS = {*_APPENDS, "close", *_SYNCS}
_EFFECTS: dict[str, Callable[[State, Call, Any, Rules], Iterator[State]]] = {
    "append": _append,
    "append_many": _append,
    "prune": _prune,
    "rewind": _rewind,
    "sync": _sync,
    "sync_data": _sync,
    "close": _close,
    "destroy": _destroy,
    "read": _read,
    "read_many": _read_many,
    "replay": _replay,
    "next": _next,
    "size": _look(lambda state: state.size),
    "bounds": _look(lambda state: (state.boundary, state.size)),
    "oldest_retained_pos": _look(lambda state: state.boundary if state.boundary < state.size else None),
    "durable_size": _durable_size,
    "reopen": _reopen,
}
