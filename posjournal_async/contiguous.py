"""What any position-addressed journal can do, whatever keeps it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Sequence

__all__ = ["Contiguous"]

T = TypeVar("T")


class Contiguous(Protocol[T]):
    """A journal of items at dense positions: what `Journal` satisfies, and what code that uses one should ask for.

    Each method promises what the method of `Journal` with its name does, with the same errors; what keeps the items is
    open. Positions and sizes are in items, from 0.

    Example:
        >>> import asyncio
        >>> from posjournal_async import Config, Context, Contiguous, Journal, MemoryStorage
        >>> async def last_item(journal: Contiguous[str]) -> str:
        ...     return await journal.read(journal.size() - 1)
        >>> async def main() -> None:
        ...     async with await Journal.init(Context(MemoryStorage()), Config(partition="orders")) as journal:
        ...         await journal.append_many(["paid", "sent"])
        ...         print(await last_item(journal))
        >>> asyncio.run(main())
        sent
    """

    async def append(self, item: T) -> int:
        """Append an item and return its position. It can be read at once, and survives a crash when it was synced."""
        ...

    async def append_many(self, items: Iterable[T]) -> int:
        """Append items at consecutive positions and return the last one; at least one item is needed."""
        ...

    async def read(self, position: int) -> T:
        """Return the item at a position, synced or not; the position is below the size, and not pruned."""
        ...

    async def read_many(self, positions: Sequence[int]) -> list[T]:
        """Return the items at strictly increasing positions, in their order; none for none."""
        ...

    def replay(self, start: int, buffer: int = ...) -> AsyncGenerator[tuple[int, T], None]:
        """Stream the items from `start` to the size as it is now, with their positions; reads ahead `buffer` bytes."""
        ...

    async def prune(self, min_position: int) -> bool:
        """Remove items below a position, durably, as far as whole sections go; say whether anything was removed."""
        ...

    async def rewind(self, size: int) -> None:
        """Discard items from the end, durably, so that the next append gets position `size`."""
        ...

    async def sync_data(self) -> None:
        """Make durable every item whose append had returned before this call: they survive any crash."""
        ...

    async def sync(self) -> None:
        """Do what `sync_data` does, and leave nothing for the next open to rebuild."""
        ...

    def size(self) -> int:
        """Return the position that the next append gets; pruned items count."""
        ...

    def oldest_retained_pos(self) -> int | None:
        """Return the position of the oldest item that can be read, or None if there is none."""
        ...

    async def close(self) -> None:
        """Make everything durable and release the journal; closing again does nothing."""
        ...

    async def destroy(self) -> None:
        """Remove everything, and release the journal."""
        ...
