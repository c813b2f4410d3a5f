"""Blobs in memory: for tests, for a first try, and to show that a journal needs none of the optional protocols."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import TYPE_CHECKING

from posjournal_async.errors import JournalLocked, StorageError
from posjournal_async.storage.protocols import check_blob_name, check_partition_name

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["MemoryStorage"]


class MemoryStorage:
    """A storage that lives as long as this object: its blobs outlast the journals that write them, not the process.

    It behaves as files do: a handle that is open goes on working on a blob that was removed, and one journal at a time
    has the lock of a partition. Each operation on a blob takes effect at its first step, so that they keep their order,
    and then lets other tasks run once.

    Example:
        >>> import asyncio
        >>> from posjournal_async import MemoryStorage
        >>> async def main() -> bytes:
        ...     storage = MemoryStorage()
        ...     blob, length = await storage.open("orders_data", b"first")
        ...     await blob.write_at(length, b"hello")
        ...     await blob.close()
        ...     blob, length = await storage.open("orders_data", b"first")
        ...     return await blob.read_at(0, length)
        >>> asyncio.run(main())
        b'hello'
    """

    def __init__(self) -> None:
        self._partitions: dict[str, dict[bytes, bytearray]] = {}
        self._locked: dict[str, object] = {}

    async def open(self, partition: str, name: bytes) -> tuple[_MemoryBlob, int]:
        """Open a blob, creating it if it is missing; return it with its length in bytes.

        Raises:
            ValueError: `partition` or `name` is no name.
        """
        check_partition_name(partition)
        check_blob_name(name)
        content = self._partitions.setdefault(partition, {}).setdefault(name, bytearray())
        opened = _MemoryBlob(partition, name, content), len(content)
        await _let_others_run()
        return opened

    async def remove(self, partition: str, name: bytes | None) -> None:
        """Remove one blob, or with None the whole partition. What is missing already is fine.

        Raises:
            ValueError: `partition` or `name` is no name.
        """
        check_partition_name(partition)
        if name is None:
            self._partitions.pop(partition, None)
        else:
            check_blob_name(name)
            self._partitions.get(partition, {}).pop(name, None)
        await _let_others_run()

    async def scan(self, partition: str) -> list[bytes]:
        """Return the names of the blobs of a partition; `[]` when it is missing.

        Raises:
            ValueError: `partition` is no name.
        """
        check_partition_name(partition)
        names = list(self._partitions.get(partition, ()))
        await _let_others_run()
        return names

    async def lock(self, partition: str) -> _MemoryLock:
        """Become the one writer of a partition.

        Raises:
            JournalLocked: Another journal of this process has it.
            ValueError: `partition` is no name.
        """
        check_partition_name(partition)
        # Here the others run first: a caller that is cancelled meanwhile must not leave a lock that nobody can release.
        await _let_others_run()
        if partition in self._locked:
            raise JournalLocked(partition, os.getpid())
        return _MemoryLock(partition, self._locked)


class _MemoryBlob:
    def __init__(self, partition: str, name: bytes, content: bytearray) -> None:
        self._partition = partition
        self._name = name
        self._content = content
        self._is_open = True

    async def read_at(self, offset: int, length: int) -> bytes:
        self._check("read", offset, length)
        found = bytes(self._content[offset : offset + length])
        await _let_others_run()
        return found

    async def write_at(self, offset: int, data: Buffer) -> None:
        written = bytes(data)
        self._check("write", offset)
        gap = offset - len(self._content)
        if written and gap > 0:
            written, offset = bytes(gap) + written, len(self._content)
        # One assignment, so that running out of memory leaves the blob as it was.
        if written:
            self._content[offset : offset + len(written)] = written
        await _let_others_run()

    async def resize(self, length: int) -> None:
        self._check("resize", length)
        self._content[length:] = bytes(max(0, length - len(self._content)))
        await _let_others_run()

    async def sync(self) -> None:
        self._check("sync")
        await _let_others_run()

    async def close(self) -> None:
        self._is_open = False
        await _let_others_run()

    def _check(self, doing: str, *places: int) -> None:
        if not self._is_open:
            raise StorageError(self._partition, self._name, errno.EBADF, doing)
        for place in places:
            if place < 0:
                raise ValueError(f"{doing}: expected an offset and a length of at least 0 bytes, found {place}")


class _MemoryLock:
    """The lock of a partition, held until it is released or nobody has this object any more, as a `FileLock` is."""

    def __init__(self, partition: str, locked: dict[str, object]) -> None:
        self._partition = partition
        self._locked = locked
        self._key = locked[partition] = object()

    def __del__(self) -> None:
        self._let_go()

    async def release(self) -> None:
        """Let others take it. Releasing twice is fine, also when somebody else has it by then."""
        self._let_go()
        await _let_others_run()

    def _let_go(self) -> None:
        if self._locked.get(self._partition) is self._key:
            del self._locked[self._partition]


async def _let_others_run() -> None:
    """Suspend once, as an operation on a device would: tasks interleave, and cancelling has a place to strike."""
    await asyncio.sleep(0)
