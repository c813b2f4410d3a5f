"""What every way of keeping a journal looks like to a workload."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from benchmarks.items import Kind


class Adapter:
    """One way of using one library as a journal.

    Positions begin at 0 and have no gaps; `read(p)` gives what was put in p-th. An item is `bytes`, unless the adapter
    encodes items itself. Operations are attributes, so that an adapter may hand out those of its library as they are:
    whatever stands between would be measured too.

    A class defines what its library can do; `benchmarks.ways` says what it cannot, and that is not asked for.

    Attributes:
        append: Take one item.
        append_many: Take a list of items.
        sync: Make all that was taken durable before it returns.
        read: Give the item at a position.
        read_many: Give the items at increasing positions.
        replay: Give all positions and items, in order.
        replay_batches: The same as first positions and lists of items.
        commit: Take a list of items and make them durable, in as few hops as the library allows.
        prune: Drop the items below a position.
        reclaim: Give the space of dropped items back to the file system, where `prune` alone does not.
        encodes: Whether items are handed over as objects, and encoded by the library.
    """

    append: Callable[[Any], Awaitable[object]]
    append_many: Callable[[list[Any]], Awaitable[object]]
    sync: Callable[[], Awaitable[object]]
    read: Callable[[int], Awaitable[Any]]
    read_many: Callable[[list[int]], Awaitable[list[Any]]]
    replay: Callable[[], AsyncIterator[tuple[int, Any]]]
    replay_batches: Callable[[], AsyncIterator[tuple[int, list[Any]]]]
    commit: Callable[[list[Any]], Awaitable[object]]
    prune: Callable[[int], Awaitable[object]]
    encodes = False

    def __init__(self, directory: Path, kind: Kind) -> None:
        """Keep the journal in `directory`, which may not exist yet; `kind` is what the items will be."""
        self.directory = directory
        self.kind = kind

    async def open(self) -> None:
        """Open what is in the directory, or make it."""
        raise NotImplementedError

    async def close(self) -> None:
        """Let go of all files."""
        raise NotImplementedError

    async def append_durably(self, item: Any) -> None:
        """Take an item and make it durable. One task calls this."""
        await self.append(item)
        await self.sync()

    async def append_durably_beside_others(self, item: Any) -> None:
        """Take an item and make it durable. Many tasks call this at the same time."""
        await self.append_durably(item)

    async def reclaim(self) -> None:
        """Give the space of dropped items back. Nothing is left to do unless a library says otherwise."""
