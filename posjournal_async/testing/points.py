"""Run a service once, crash it at every point, and check what each crash leaves."""

from __future__ import annotations

import asyncio
import copy
import secrets
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from random import Random
from typing import TYPE_CHECKING, Any, TypeAlias

from posjournal_async.testing.crash import CrashStorage
from posjournal_async.testing.interleaving import SeededLoop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
    from typing import Self

__all__ = ["check_states", "crash_points", "try_points"]

Service: TypeAlias = "Callable[[CrashStorage, Callable[[Any], None]], Awaitable[None]]"
Check: TypeAlias = "Callable[[CrashStorage, Sequence[Any]], Awaitable[None]]"

# Characters of what was told that a failure shows, from its beginning and from its end.
_LONGEST_SHOWN = 4_000

# Held by the one run that has put its seed in the place of the chance of the process.
_RUNNING = threading.Lock()


@dataclass(frozen=True, slots=True)
class _Point:
    """A moment at which the machine may stop.

    Attributes:
        what: What happens then.
        storage: The storage as it is then.
        told: What the service has told so far.
    """

    what: str
    storage: CrashStorage
    told: tuple[Any, ...]

    def is_like(self, other: _Point) -> bool:
        """Whether the same happens then, with the same bytes."""
        return self.what == other.what and self.storage.tree() == other.storage.tree()


async def crash_points(
    service: Service, check: Check, *, seed: int = 0, states: int = 64, at: tuple[int, int] | None = None
) -> int:
    """Run a service, and check each state in which a crash at any moment may leave its storage.

    The service runs once, to its end. A copy of the storage is taken in each call that changes something, and each time
    the service tells something to the world outside; nothing else that happens in between makes a difference to what
    can be left. Then each copy is crashed: the process is killed, and the power cut in each way if there are at most
    `states` ways, else in as many ways by chance.

    The same seed gives the same states if the service writes the same: what it takes from a clock, or from chance of
    its own, is for the test to hand in.

    Args:
        service: Called with the storage and with a function to tell what the service has promised somebody: that an
            order is accepted, that a payment was made. What is told is copied (`copy.deepcopy`), as it is then; what
            cannot be copied is a TypeError.
        check: Called for each state with the storage as the crash left it and with what was told before, a copy of its
            own. It opens the service again, and raises if a promise is broken.
        seed: What chance is taken from.
        states: How many ways of a power cut are tried at each moment, at least 2.
        at: Try only the state of which a failure has told the numbers of moment and state.

    Returns:
        How many states were checked.

    Raises:
        ValueError: `states` is less than 2, or there is no state with the numbers of `at`: the service, the seed or
            `states` is another than when they were told.
        RuntimeError: Another run is under way in this process: each would take from the seed of the other. Or a task
            that the service has left behind told something after it: no moment is taken any more then.
        BaseException: What the service raised; or what `check` raised, with a note that says how to try that state
            again. If the service does something else when it is run again, which is tried then, another note says so.

    Example:
        >>> import asyncio
        >>> from posjournal_async import Config, Context, Journal
        >>> from posjournal_async.testing import crash_points
        >>> async def service(storage, tell):
        ...     journal = await Journal.init(Context(storage), Config(partition="orders"))
        ...     await journal.append("an order")
        ...     await journal.sync_data()
        ...     tell("an order")
        ...     await journal.close()
        >>> async def check(storage, told):
        ...     journal = await Journal.init(Context(storage), Config(partition="orders"))
        ...     assert [await journal.read(position) for position in journal.bounds()][: len(told)] == told
        ...     await journal.close()
        >>> asyncio.run(crash_points(service, check)) > 100
        True
    """
    check_states(states)

    def again(moment: int, state: int) -> str:
        return f"crash_points(service, check, seed={seed}, states={states}, at=({moment}, {state}))"

    count = await try_points(service, check, seed=seed, states=states, at=at, again=again)
    if at is not None and not count:
        raise ValueError(f"at: expected a moment and a state that there are with this service, found {at}")
    return count


def check_states(states: int) -> None:
    """Refuse a number of states that leaves out the two extremes: all that is pending lost, and all of it there.

    Raises:
        ValueError: It does.
    """
    if states < 2:
        raise ValueError(f"states: expected at least 2, found {states}")


async def try_points(  # noqa: PLR0913 - what `crash_points` takes
    service: Service,
    check: Check,
    *,
    seed: int,
    states: int,
    at: tuple[int, int] | None,
    again: Callable[[int, int], str],
) -> int:
    """Do what `crash_points` does; return 0 where there is no such state as `at`.

    Args:
        service: As there.
        check: As there.
        seed: As there.
        states: As there.
        at: As there.
        again: Says how to try a state again, given the numbers of moment and state.
    """
    count = 0
    with _seeded() as rng:
        rng.seed(seed)
        run = await _Run.of(service)
        for moment, point in enumerate(run.points):
            if at is not None and at[0] != moment:
                continue
            for number, state in enumerate(_states_of(point.storage, states, seed + moment)):
                if at is not None and at[1] != number:
                    continue
                count += 1
                rng.seed(f"{seed}:{moment}:{number}")
                try:
                    await check(state, copy.deepcopy(list(point.told)))
                except BaseException as error:
                    how = "power cut" if number else "process killed"
                    error.add_note(
                        f"crash at moment {moment}, {point.what}, after telling {_shown(point.told)}; "
                        f"state {number}, {how}\nagain: {again(moment, number)}"
                    )
                    if isinstance(error, Exception):  # not an interruption: whoever makes one does not want to wait
                        rng.seed(seed)
                        await run.note_what_differs(service, error)
                    raise
        run.check_end()
    return count


def _shown(told: Sequence[Any]) -> str:
    text = repr(list(told))
    half = _LONGEST_SHOWN // 2
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:half]} ... {text[-half:]}"


@contextmanager
def _seeded() -> Generator[Random]:
    """Put a `Random` in the place from which a journal takes its id and its salts.

    They are bytes on disk, so the ways in which a write may be torn depend on them: they come from the seed, so that a
    state has the same number the next time. The place is one for the whole process, so there is one run at a time.
    """
    if not _RUNNING.acquire(blocking=False):
        raise RuntimeError("crash_points: expected one run at a time in a process, found another under way")
    rng, chance = Random(), secrets.randbits

    def randbits(k: int) -> int:
        return rng.getrandbits(k)

    secrets.randbits = randbits
    try:
        yield rng
    finally:
        secrets.randbits = chance
        _RUNNING.release()


class _Run:
    """One run of a service, with all its moments.

    Attributes:
        points: The moments, in order.
    """

    def __init__(self) -> None:
        self.points: list[_Point] = []
        self._storage = CrashStorage()
        self._told: list[Any] = []
        self._is_over = False
        self._late = 0

    @classmethod
    async def of(cls, service: Service) -> Self:
        """Run a service to its end."""
        run = cls()
        run._storage.on_call = run._note_call
        await service(run._storage, run._tell)
        run._storage.on_call = None
        run._note("at the end")
        run._is_over = True
        return run

    def _note(self, what: str) -> None:
        self.points.append(_Point(what, self._storage.photo(), tuple(self._told)))

    def _note_call(self) -> None:
        call, partition, blob, _ = self._storage.log[-1]
        self._note(f"in the {call} of {partition}, blob {blob}")

    def _tell(self, promise: Any) -> None:
        if self._is_over:
            self._late += 1
            self.check_end()
        try:
            self._told.append(copy.deepcopy(promise))  # the service may go on to change it
        except Exception as error:
            raise TypeError(f"tell: expected what can be copied, found {type(promise).__name__}") from error
        self._note("right after telling")

    def check_end(self) -> None:
        """Refuse a service that went on after its end.

        Raises:
            RuntimeError: Something was told since.
        """
        if self._late:
            raise RuntimeError(f"tell: expected nothing once the service has returned, found {self._late} promises")

    async def note_what_differs(self, service: Service, error: Exception) -> None:
        """Add a note to an error if a service does something else when it runs again.

        Not on a seeded loop, which goes on to another order, and does the same when it is made anew.
        """
        if isinstance(asyncio.get_running_loop(), SeededLoop):
            return
        try:
            again = (await self.of(service)).points
        except Exception as raised:  # noqa: BLE001 - it did not raise the first time, which is all that matters here
            error.add_note(f"not the same again: the service raised {raised!r} when it was run once more")
            return
        for moment, (one, other) in enumerate(zip_longest(self.points, again)):
            if one is None or other is None or not one.is_like(other):
                error.add_note(
                    f"not the same again: from moment {moment} on the service did something else when it was run once "
                    "more; what it takes from a clock or from chance has to be the same each time"
                )
                return


def _states_of(storage: CrashStorage, limit: int, seed: int) -> Iterator[CrashStorage]:
    yield storage.killed(Random(seed))
    yield from storage.states(limit, seed)
