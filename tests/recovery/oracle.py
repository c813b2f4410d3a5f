"""A journal on a storage that may crash, and beside it what each crash is allowed to leave."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from posjournal_async import BytesCodec, Config, Context, Journal
from posjournal_async.testing import OrderingMonitor
from tests.journals import limits_of

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Coroutine, Mapping, Sequence
    from typing import Self

    from posjournal_async.testing import CrashStorage

__all__ = ["OPERATIONS", "Allowed", "Run"]

# Two or three records of the common length fit; a long one does not fit beside anything.
WRITE_BUFFER = 48
LONG = 60


@dataclass(frozen=True)
class Allowed:
    """What a crash may leave at a moment.

    Attributes:
        items: Every item that may be found, by position.
        low: The size is at least this.
        high: The size is at most this.
        boundary: The pruning boundary.
        pruned: The boundary instead, if a prune is under way; all items are durable then.
        empty_at: If a reset or a removal is under way, the journal may be empty at this size instead.
    """

    items: Mapping[int, bytes]
    low: int = 0
    high: int = 0
    boundary: int = 0
    pruned: int | None = None
    empty_at: int | None = None

    @classmethod
    def exactly(cls, bounds: range, found: Sequence[tuple[int, bytes]]) -> Allowed:
        """Return what a journal must show that was found so, and was told to be durable."""
        return cls(dict(found), bounds.stop, bounds.stop, bounds.start)

    def check(self, bounds: range, found: Sequence[tuple[int, bytes]]) -> None:
        assert [position for position, _ in found] == list(bounds)
        if self.empty_at is not None and limits_of(bounds) == (self.empty_at, self.empty_at):
            return
        assert bounds.start in {self.boundary, self.boundary if self.pruned is None else self.pruned}
        low = self.low if bounds.start == self.boundary else self.high
        assert low <= bounds.stop <= self.high
        for position, item in found:
            assert item == self.items[position], f"position {position}"


class Run:
    """A journal on a storage that may crash, and an oracle beside it.

    Attributes:
        photos: Copies of the storage, each with what is allowed at its moment.
        lengths: Lengths of items to choose from.
    """

    def __init__(
        self, storage: CrashStorage, items_per_section: int, rng: random.Random, *, is_monitored: bool = True
    ) -> None:
        self.storage = storage
        self.config: Config[bytes] = Config(
            partition="p", items_per_section=items_per_section, codec=BytesCodec(), write_buffer=WRITE_BUFFER
        )
        self.rng = rng
        self.allowed = Allowed({})
        self.photos: list[tuple[CrashStorage, Allowed]] = []
        self.lengths: Sequence[int] = (6,)
        self._is_monitored = is_monitored
        self._serial = 0
        self._monitor: OrderingMonitor | None = None

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.storage.on_call = None
        await self.journal.close()
        self._check_order()

    async def _open(self, size: int | None = None) -> None:
        """Open the journal, or begin it anew at a size; with the monitor between it and the storage."""
        self._check_order()
        self._monitor = OrderingMonitor(self.storage) if self._is_monitored else None
        context = Context(self._monitor or self.storage)
        if size is None:
            self.journal = await Journal.init(context, self.config)
        else:
            self.journal = await Journal.init_at_size(context, self.config, size)
        if self._monitor is not None:
            self._monitor.attach(self.config.partition, self.journal)

    def _check_order(self) -> None:
        if self._monitor is not None:
            self._monitor.check()

    def watch(self) -> None:
        """Take a photo in each storage call from now on."""
        self.storage.on_call = lambda: self.photos.append((self.storage.photo(), self.allowed))

    async def contents(self) -> tuple[range, list[tuple[int, bytes]]]:
        """Return the bounds and all items that are retained."""
        bounds = self.journal.bounds()
        assert self.journal.durable_size() == bounds.stop
        return bounds, [pair async for pair in self.journal.replay(bounds.start)]

    async def do(self, operation: str) -> None:
        await OPERATIONS[operation](self)

    async def append(self, count: int, *, length: int | None = None) -> None:
        was = self.allowed
        items = [self._new_item(length) for _ in range(count)]
        appended = dict(enumerate(items, start=was.high))
        self.allowed = replace(was, items={**was.items, **appended}, high=was.high + count)
        await (self.journal.append(items[0]) if count == 1 else self.journal.append_many(items))
        sealed = self.allowed.high // self.config.items_per_section * self.config.items_per_section
        self.allowed = replace(self.allowed, low=max(was.low, sealed))

    async def sync(self, *, data_only: bool) -> None:
        await (self.journal.sync_data() if data_only else self.journal.sync())
        self.allowed = replace(self.allowed, low=self.allowed.high)

    async def prune(self, position: int) -> None:
        was = self.allowed
        boundary = max(position // self.config.items_per_section * self.config.items_per_section, was.boundary)
        self.allowed = replace(was, pruned=boundary)
        if await self.journal.prune(position):
            self.allowed = replace(was, low=was.high, boundary=boundary)
        else:
            self.allowed = was

    async def rewind(self, size: int) -> None:
        was = self.allowed
        size = max(size, was.boundary)
        self.allowed = replace(was, low=min(was.low, size))
        await self.journal.rewind(size)
        items = {position: item for position, item in was.items.items() if position < size}
        low = was.low if size == was.high else size
        self.allowed = replace(was, items=items, low=low, high=size)

    async def kill(self) -> None:
        killed = self.storage.killed(self.rng)
        on_call, self.storage.on_call = self.storage.on_call, None
        await self.journal.close()
        self.storage = killed
        self.storage.on_call = on_call and (lambda: self.photos.append((self.storage.photo(), self.allowed)))
        await self.reopen()

    async def reopen(self) -> None:
        await self._open()
        size = self.journal.size()
        assert self.allowed.low <= size <= self.allowed.high
        items = {position: item for position, item in self.allowed.items.items() if position < size}
        self.allowed = replace(self.allowed, items=items, low=size, high=size)

    async def close_and_reopen(self) -> None:
        await self.journal.close()
        self.allowed = replace(self.allowed, low=self.allowed.high)
        await self.reopen()

    async def reset(self) -> None:
        await self.journal.close()
        size = self.allowed.high + self.rng.randrange(-1, 4) if self.allowed.high else 4
        self.allowed = replace(self.allowed, low=self.allowed.high, empty_at=size)
        await self._open(size)
        self.allowed = Allowed({}, size, size, size)

    async def destroy(self) -> None:
        self.allowed = replace(self.allowed, empty_at=0)
        await self.journal.destroy()
        self.allowed = Allowed({})
        await self.reopen()

    def _new_item(self, length: int | None) -> bytes:
        # Of one length as a rule: what was discarded then lies exactly where new records end.
        self._serial += 1
        return str(self._serial).encode().rjust(length or self.rng.choice(self.lengths), b".")

    def number_items_from(self, serial: int) -> None:
        """Make the items that follow others than those of any run before."""
        self._serial = serial


OPERATIONS: dict[str, Callable[[Run], Coroutine[object, object, None]]] = {
    "append": lambda run: run.append(1),
    "append three": lambda run: run.append(3),
    "append beyond the buffer": lambda run: run.append(1, length=LONG),
    "append past a section": lambda run: run.append(run.config.items_per_section + 1),
    "sync data": lambda run: run.sync(data_only=True),
    "sync": lambda run: run.sync(data_only=False),
    "prune": lambda run: run.prune(run.allowed.high),
    "prune some": lambda run: run.prune(run.rng.randrange(run.allowed.high + 1)),
    "rewind one": lambda run: run.rewind(max(run.allowed.high - 1, 0)),
    "rewind far": lambda run: run.rewind(max(run.allowed.high - run.config.items_per_section - 1, 0)),
    "kill": Run.kill,
    "reopen": Run.close_and_reopen,
    "reset": Run.reset,
    "destroy": Run.destroy,
}
