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
    """What happened to a call.

    Attributes:
        phase: "begin", then "end" or "fail".
        call: The call.
    """

    phase: str
    call: Call


class RecordingStorage(WrappedStorage):
    """A storage that writes down what is called, and when it is done.

    Attributes:
        events: Beginnings and ends of all calls, in order.

    Example:
        >>> import asyncio
        >>> from posjournal_async import Config, Context, Journal, MemoryStorage
        >>> from posjournal_async.testing import RecordingStorage
        >>> async def main() -> None:
        ...     recording = RecordingStorage(MemoryStorage())
        ...     async with await Journal.init(Context(recording), Config(partition="orders")) as journal:
        ...         await journal.append("paid")
        ...         recording.events.clear()
        ...         await journal.sync_data()
        ...         data = recording.calls(lambda call: call.partition == "orders_data")
        ...         print([call.what for call in data])
        >>> asyncio.run(main())
        ['open', 'write_at', 'sync', 'write_at', 'sync']
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
