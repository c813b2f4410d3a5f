"""A storage that writes down what is called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from typing_extensions import override

from posjournal_async.testing.wrapping import Call, WrappedStorage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from posjournal_async.storage.protocols import Storage

__all__ = ["Event", "RecordingStorage"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to a call: "begin", then "end" or "fail"."""

    phase: str
    call: Call


class RecordingStorage(WrappedStorage):
    """A storage that writes down what is called, and when it is done.

    Attributes:
        events: Beginnings and ends of all calls, in order.
    """

    def __init__(self, inner: Storage) -> None:
        super().__init__(inner)
        self.events: list[Event] = []

    def calls(self, only: Callable[[Call], bool] = lambda _: True) -> list[Call]:
        """Return the calls that were begun, of which `only` is true."""
        return [event.call for event in self.events if event.phase == "begin" and only(event.call)]

    @override
    async def around(self, call: Call, go_on: Callable[[], Awaitable[T]]) -> T:
        self.events.append(Event("begin", call))
        try:
            result = await go_on()
        except BaseException:
            self.events.append(Event("fail", call))
            raise
        self.events.append(Event("end", call))
        return result
