"""What a journal asks of a codec: `Codec`, and what a codec may offer besides."""

from __future__ import annotations

from typing import Protocol, TypeVar

__all__ = ["Codec", "ReadsOlder"]

T = TypeVar("T")


class Codec(Protocol[T]):
    """What turns an item into bytes and back.

    Both directions run on the event loop, so they should be quick, and the same bytes must give the same item for ever.
    An exception that `encode` raises reaches the caller of `append` as `CodecError`, with nothing appended; one
    that `decode` raises reaches the reader as `CodecError`, with the item's position.

    Attributes:
        name: 1 to 8 ASCII characters, recorded on disk; opening the journal with a codec of another name is refused,
            unless that codec is a `ReadsOlder` and accepts the name.
    """

    @property
    def name(self) -> str:
        """Name that is recorded on disk: 1 to 8 printable ASCII characters."""
        ...

    def encode(self, item: T, /) -> bytes:
        """Turn an item into bytes."""
        ...

    def decode(self, data: bytes, /) -> T:
        """Turn the bytes that `encode` made into an equal item."""
        ...


class ReadsOlder(Protocol):
    """What a codec may offer besides: to go on with a journal that was written under another name.

    Opening records the codec's own name before anything is appended. So who does not accept that name, older code
    above all, never opens a journal that may hold items of it. `decode` has to tell from the bytes of an item under
    which name it was written.
    """

    def accepts(self, name: str, /) -> bool:
        """Say whether `decode` reads the items that were written under another name."""
        ...
