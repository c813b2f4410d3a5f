"""Run a service once, crash it at every point, and check what each crash leaves."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, TypeAlias

from posjournal_async.testing.crash import CrashStorage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

__all__ = ["crash_points"]

Service: TypeAlias = "Callable[[CrashStorage, Callable[[Any], None]], Awaitable[None]]"
Check: TypeAlias = "Callable[[CrashStorage, Sequence[Any]], Awaitable[None]]"


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


async def crash_points(
    service: Service, check: Check, *, seed: int = 0, states: int = 64, at: tuple[int, int] | None = None
) -> int:
    """Run a service, and check each state in which a crash at any moment may leave its storage.

    The service runs once, to its end. A copy of the storage is taken in each call that changes something, and each time
    the service tells something to the world outside; nothing else that happens in between makes a difference to what
    can be left. Then each copy is crashed: the process is killed, and the power cut in each way if there are at most
    `states` ways, else in as many ways by chance.

    Args:
        service: Called with the storage and with a function to tell what the service has promised somebody: that an
            order is accepted, that a payment was made.
        check: Called for each state with the storage as the crash left it and with what was told before. It opens the
            service again, and raises if a promise is broken.
        seed: What chance is taken from.
        states: How many ways of a power cut are tried at each moment.
        at: Try the one state of which a failure has told the numbers of moment and state.

    Returns:
        How many states were checked.

    Raises:
        BaseException: What `check` raised, with a note that says how to try that state again.

    Example:
        >>> import asyncio
        >>> from posjournal_async import Config, Context, Journal
        >>> async def service(storage: CrashStorage, tell: Callable[[str], None]) -> None:
        ...     journal = await Journal.init(Context(storage), Config(partition="orders"))
        ...     await journal.append("an order")
        ...     await journal.sync_data()
        ...     tell("an order")
        ...     await journal.close()
        >>> async def check(storage: CrashStorage, told: Sequence[str]) -> None:
        ...     journal = await Journal.init(Context(storage), Config(partition="orders"))
        ...     assert [await journal.read(position) for position in journal.bounds()][: len(told)] == list(told)
        ...     await journal.close()
        >>> asyncio.run(crash_points(service, check)) > 100
        True
    """
    count = 0
    for moment, point in enumerate(await _points_of(service)):
        for number, state in enumerate(_states_of(point.storage, states, seed + moment)):
            if at is not None and at != (moment, number):
                continue
            count += 1
            try:
                await check(state, list(point.told))
            except BaseException as error:
                error.add_note(
                    f"crash at moment {moment}, {point.what}, after telling {list(point.told)}; state {number}\n"
                    f"again: crash_points(service, check, seed={seed}, states={states}, at=({moment}, {number}))"
                )
                raise
    return count


async def _points_of(service: Service) -> list[_Point]:
    storage = CrashStorage()
    points: list[_Point] = []
    told: list[Any] = []

    def note(what: str) -> None:
        points.append(_Point(what, storage.photo(), tuple(told)))

    def note_call() -> None:
        call, partition, blob, _ = storage.log[-1]
        note(f"in the {call} of {partition} {blob}")

    def tell(promise: Any) -> None:
        told.append(promise)
        note("right after telling")

    storage.on_call = note_call
    await service(storage, tell)
    storage.on_call = None
    note("at the end")
    return points


def _states_of(storage: CrashStorage, limit: int, seed: int) -> Iterator[CrashStorage]:
    yield storage.killed(Random(seed))
    yield from storage.states(limit, seed)
