"""What any position-addressed journal can do, whatever keeps it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Sequence

__all__ = ["Contiguous"]

T = TypeVar("T")


class Contiguous(Protocol[T]):
    """A journal of items at dense positions: what `Journal` satisfies, and what code that uses one should ask for.

    Example:
        >>> from posjournal_async import Contiguous
        >>> async def last_item(journal: Contiguous[bytes]) -> bytes:
        ...     return await journal.read(journal.size() - 1)
    """

    async def append(self, item: T) -> int:
        """Append an item and return its position."""
        ...

    async def append_many(self, items: Iterable[T]) -> int:
        """Append items at consecutive positions and return the last one."""
        ...

    async def read(self, position: int) -> T:
        """Return the item at a position."""
        ...

    async def read_many(self, positions: Sequence[int]) -> list[T]:
        """Return the items at strictly increasing positions."""
        ...

    def replay(self, start: int, buffer: int = ...) -> AsyncGenerator[tuple[int, T], None]:
        """Stream the items from `start` on with their positions."""
        ...

    async def prune(self, min_position: int) -> bool:
        """Remove items below a position, as far as whole sections go; say whether anything was removed."""
        ...

    async def rewind(self, size: int) -> None:
        """Discard items from the end."""
        ...

    async def sync_data(self) -> None:
        """Make the items durable."""
        ...

    async def sync(self) -> None:
        """Make the items and their index durable."""
        ...

    def size(self) -> int:
        """Return the position that the next append gets."""
        ...

    def oldest_retained_pos(self) -> int | None:
        """Return the position of the oldest item, or None if there is none."""
        ...

    async def close(self) -> None:
        """Make everything durable and release the journal."""
        ...

    async def destroy(self) -> None:
        """Remove everything."""
        ...
