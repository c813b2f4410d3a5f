"""What a backend implements: `Storage` and `Blob`, and the small protocols by which it may offer more.

The rules that a journal relies on. `posjournal_async.testing` checks what a test inside a process can see of them,
which is all but what has to be durable:

* Operations on one blob take effect in the order in which they were called, also when a caller was cancelled while it
  waited.
* Cancelling a call stops the waiting. The operation takes effect as a whole or not at all. A removal is the exception:
  nothing is removed after the call has ended, since the names may be somebody else's then.
* `Blob.sync` returns after everything that was called on the blob before it is durable: its bytes and its length.
* When `Storage.open` has created a blob, its name is durable before it returns; the names that `Storage.scan` returns
  are durable, also those that a killed process left; when `Storage.remove` returns, the removal is durable.
* Handles of one blob read the same bytes, whichever of them wrote these.
* A handle that is open goes on reading what was removed.
* Failures are raised as `StorageError`.

What is optional is offered by whoever has the method, be it one that `__getattr__` passes on to another object: a blob
that does something to its bytes does it there too, or has None in that place.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from typing_extensions import TypeIs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from typing_extensions import Buffer

__all__ = [
    "PARTITION_NAME",
    "Blob",
    "Lock",
    "ReadsAtOnce",
    "RemovesMany",
    "Storage",
    "WritesDurably",
    "check_blob_name",
    "check_partition_name",
    "reads_at_once",
    "removes_many",
    "writes_durably",
]

PARTITION_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

_LONGEST_BLOB_NAME = 64


def check_partition_name(partition: str) -> None:
    """Refuse a name that is not 1 to 64 of `A-Z a-z 0-9 _ -`, before any path is built from it.

    Raises:
        ValueError: The name is not a partition name.
    """
    if not PARTITION_NAME.fullmatch(partition):
        raise ValueError(f"partition: expected 1 to 64 of A-Z a-z 0-9 _ -, found {partition!r}")


def check_blob_name(name: bytes) -> None:
    """Refuse a name that is not 1 to 64 bytes.

    Raises:
        ValueError: The name is empty or too long.
    """
    if not 1 <= len(name) <= _LONGEST_BLOB_NAME:
        raise ValueError(f"blob name: expected 1 to {_LONGEST_BLOB_NAME} bytes, found {len(name)} bytes")


class Blob(Protocol):
    """A byte sequence that is open. Offsets and lengths are in bytes, from 0.

    A call that fails raises `StorageError`; so does any but `close` on a blob that was closed.
    """

    def read_at(self, offset: int, length: int) -> Awaitable[bytes]:
        """Return the bytes from `offset` on: `length` of them, fewer only where the blob ends."""
        ...

    def write_at(self, offset: int, data: Buffer) -> Awaitable[None]:
        """Write all of `data` at `offset`; a gap before it reads as zeros. `data` must not change until it is done."""
        ...

    def resize(self, length: int) -> Awaitable[None]:
        """Cut the blob to `length`, or extend it with zeros."""
        ...

    def sync(self) -> Awaitable[None]:
        """Return when everything called before is durable."""
        ...

    def close(self) -> Awaitable[None]:
        """Release the handle when everything called before is done; makes nothing durable. Closing twice is fine."""
        ...


class Lock(Protocol):
    """The right to write to a partition."""

    async def release(self) -> None:
        """Let others take it. Releasing twice is fine."""
        ...


class Storage(Protocol):
    """Where partitions of named blobs are kept.

    A partition is named by 1 to 64 of `A-Z a-z 0-9 _ -`, a blob by 1 to 64 bytes: other names raise `ValueError`,
    before anything happens. What fails raises `StorageError`.
    """

    async def open(self, partition: str, name: bytes) -> tuple[Blob, int]:
        """Open a blob, creating it (durably) if it is missing; return it with its length in bytes."""
        ...

    async def remove(self, partition: str, name: bytes | None) -> None:
        """Remove one blob, or with None the whole partition, durably. What is missing already is fine."""
        ...

    async def scan(self, partition: str) -> list[bytes]:
        """Return the names of the blobs of a partition in no particular order; `[]` when it is missing."""
        ...

    async def lock(self, partition: str) -> Lock:
        """Become the one writer of a partition, creating it if it is missing. The lock ends with the process.

        Raises:
            JournalLocked: Somebody has it.
        """
        ...


@runtime_checkable
class ReadsAtOnce(Protocol):
    """A blob that can say at once what it has at hand, without waiting for a device."""

    def read_at_once(self, offset: int, length: int) -> bytes | None:
        """Return exactly `length` bytes from `offset` on; None if that would have to wait or the blob ends before."""
        ...


@runtime_checkable
class WritesDurably(Protocol):
    """A blob that can write and sync in one operation, for one hop to a thread where two would be needed."""

    def write_durably_at(self, offset: int, data: Buffer) -> Awaitable[None]:
        """Do `write_at`, then `sync`."""
        ...


@runtime_checkable
class RemovesMany(Protocol):
    """A storage that can remove many blobs with one wait for the device."""

    async def remove_many(self, partition: str, names: Sequence[bytes]) -> None:
        """Remove the blobs in the order given; all removals are durable on return, none is promised before."""
        ...


# Not isinstance, which from Python 3.12 on does not see what an object passes on to another by `__getattr__`: what a
# journal calls has to be what a wrapper offers, and what the contract is run on.


def reads_at_once(blob: object) -> TypeIs[ReadsAtOnce]:
    """Say whether a blob can read at once."""
    return getattr(blob, "read_at_once", None) is not None


def writes_durably(blob: object) -> TypeIs[WritesDurably]:
    """Say whether a blob can write and sync in one operation."""
    return getattr(blob, "write_durably_at", None) is not None


def removes_many(storage: object) -> TypeIs[RemovesMany]:
    """Say whether a storage can remove many blobs with one wait for the device."""
    return getattr(storage, "remove_many", None) is not None
