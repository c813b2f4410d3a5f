"""A storage around another: what the storages of this package that watch, fail or wait are made of.

Each of them can wrap another, and offers by its blobs what the blobs of the wrapped one offer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from posjournal_async.storage.protocols import (
    check_blob_name,
    check_partition_name,
    reads_at_once,
    removes_many,
    writes_durably,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from typing_extensions import Buffer

    from posjournal_async.storage.protocols import Blob, Lock, Storage

__all__ = ["Call", "WrappedStorage", "is_data_sync"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One call of a storage, a blob or a lock.

    Attributes:
        what: Its name: open, remove, remove_many, scan, lock, release, read_at, write_at, write_durably_at, resize,
            sync or close.
        partition: The partition it is about.
        name: The blob it is about, or None.
        names: The blobs that a removal of many is about.
        offset: Where it reads or writes, or the length it resizes to.
        data: What it writes.
        blob: The open blob that it is made on, or None.
    """

    what: str
    partition: str
    name: bytes | None = None
    offset: int = 0
    data: bytes = b""
    blob: Blob | None = None
    names: tuple[bytes, ...] = ()


def is_data_sync(call: Call) -> bool:
    """Say whether a call makes bytes of the data journal durable."""
    return call.partition.endswith("_data") and call.what in {"sync", "write_durably_at"}


class WrappedStorage:
    """A storage that passes every call on by way of `around`: subclass it, and say there what it is for.

    Args:
        inner: The storage that does the work.

    Example:
        >>> import asyncio
        >>> from posjournal_async import Config, Context, Journal, MemoryStorage
        >>> from posjournal_async.testing import WrappedStorage
        >>> class CountingStorage(WrappedStorage):
        ...     syncs = 0
        ...     async def around(self, call, go_on):
        ...         self.syncs += call.what == "sync"
        ...         return await go_on()
        >>> async def main() -> None:
        ...     storage = CountingStorage(MemoryStorage())
        ...     async with await Journal.init(Context(storage), Config(partition="orders")) as journal:
        ...         for order in ("paid", "sent"):
        ...             await journal.append(order)
        ...             before = storage.syncs
        ...             await journal.sync_data()
        ...         print(storage.syncs - before)
        >>> asyncio.run(main())
        1
    """

    def __init__(self, inner: Storage) -> None:
        self.inner = inner

    async def around(self, call: Call, go_on: Callable[[], Awaitable[T]]) -> T:
        """Do what the wrapper is for, and `go_on`: awaiting it makes the call, and returns what the call returns."""
        raise NotImplementedError

    async def open(self, partition: str, name: bytes) -> tuple[Blob, int]:
        """Do what the wrapped storage does."""
        blob, length = await self.around(Call("open", partition, name), lambda: self.inner.open(partition, name))
        kind = _KINDS[writes_durably(blob), reads_at_once(blob)]
        return kind(self, blob, partition, name), length

    async def remove(self, partition: str, name: bytes | None) -> None:
        """Do what the wrapped storage does."""
        await self.around(Call("remove", partition, name), lambda: self.inner.remove(partition, name))

    async def remove_many(self, partition: str, names: Sequence[bytes]) -> None:
        """Do what the wrapped storage does, or remove one after the other where it cannot remove many."""
        check_partition_name(partition)
        for name in names:
            check_blob_name(name)
        inner = self.inner

        async def remove() -> None:
            if removes_many(inner):
                await inner.remove_many(partition, names)
            else:
                for name in names:
                    await inner.remove(partition, name)

        await self.around(Call("remove_many", partition, names=tuple(names)), remove)

    async def scan(self, partition: str) -> list[bytes]:
        """Do what the wrapped storage does."""
        return await self.around(Call("scan", partition), lambda: self.inner.scan(partition))

    async def lock(self, partition: str) -> Lock:
        """Do what the wrapped storage does."""
        lock = await self.around(Call("lock", partition), lambda: self.inner.lock(partition))
        return _WrappedLock(self, lock, partition)


class _PlainBlob:
    def __init__(self, storage: WrappedStorage, inner: Blob, partition: str, name: bytes) -> None:
        self._around = storage.around
        self._inner = inner
        self._partition = partition
        self._name = name

    def _call(self, what: str, offset: int = 0, data: bytes = b"") -> Call:
        return Call(what, self._partition, self._name, offset, data, self._inner)

    async def read_at(self, offset: int, length: int) -> bytes:
        return await self._around(self._call("read_at", offset), lambda: self._inner.read_at(offset, length))

    async def write_at(self, offset: int, data: Buffer) -> None:
        await self._around(self._call("write_at", offset, bytes(data)), lambda: self._inner.write_at(offset, data))

    async def resize(self, length: int) -> None:
        await self._around(self._call("resize", length), lambda: self._inner.resize(length))

    async def sync(self) -> None:
        await self._around(self._call("sync"), self._inner.sync)

    async def close(self) -> None:
        await self._around(self._call("close"), self._inner.close)


class _DurablyWritingBlob(_PlainBlob):
    async def write_durably_at(self, offset: int, data: Buffer) -> None:
        assert writes_durably(self._inner)
        inner = self._inner
        call = self._call("write_durably_at", offset, bytes(data))
        await self._around(call, lambda: inner.write_durably_at(offset, data))


class _AtOnceReadingBlob(_PlainBlob):
    def read_at_once(self, offset: int, length: int) -> bytes | None:
        assert reads_at_once(self._inner)
        return self._inner.read_at_once(offset, length)


class _FastBlob(_DurablyWritingBlob, _AtOnceReadingBlob):
    pass


# By whether the wrapped one writes durably, and whether it reads at once.
_KINDS = {
    (False, False): _PlainBlob,
    (True, False): _DurablyWritingBlob,
    (False, True): _AtOnceReadingBlob,
    (True, True): _FastBlob,
}


class _WrappedLock:
    def __init__(self, storage: WrappedStorage, inner: Lock, partition: str) -> None:
        self._storage = storage
        self._inner = inner
        self._partition = partition

    async def release(self) -> None:
        await self._storage.around(Call("release", self._partition), self._inner.release)
