"""Keep a journal in one SQLite file: a storage of your own, and a thread that keeps SQLite away from the event loop.

    python examples/custom_storage.py [FILE]

Prints what the journal holds after it was closed and opened again, and the blobs that SQLite keeps for it. The rules
that a storage has to keep are those of `posjournal_async.storage.protocols`; `tests/examples/test_custom_storage.py`
runs the contract suite of `posjournal_async.testing` on this one.
"""

from __future__ import annotations

import asyncio
import errno
import sqlite3
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from posjournal_async import Config, Context, Journal, JournalLocked, StorageError
from posjournal_async.storage.protocols import check_blob_name, check_partition_name

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from typing_extensions import Buffer

T = TypeVar("T")

# Bytes of a blob in one row.
PAGE = 16 * 1024

SCHEMA = """
CREATE TABLE IF NOT EXISTS blobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT, partition TEXT, name BLOB, length INTEGER NOT NULL, UNIQUE (partition, name)
);
CREATE TABLE IF NOT EXISTS pages (
    blob INTEGER NOT NULL REFERENCES blobs ON DELETE CASCADE, number INTEGER NOT NULL, content BLOB NOT NULL,
    PRIMARY KEY (blob, number)
) WITHOUT ROWID;
"""


class SQLiteStorage:
    """A storage in one SQLite file, which this process has for itself as long as the storage is open.

    All writes go to one transaction, and making something durable commits it. After an error nothing works any more:
    SQLite may have rolled back what others wrote.
    """

    def __init__(self, file: Path) -> None:
        """Name the file; the first operation opens it."""
        self._file = file
        # One thread: operations take effect in the order of their calls.
        self._thread = ThreadPoolExecutor(1, "sqlite")
        self._connection: sqlite3.Connection | None = None
        self._failed = False
        self._handles: Counter[int] = Counter()
        self._locked: set[str] = set()

    # What a storage has to offer.

    async def open(self, partition: str, name: bytes) -> tuple[_Blob, int]:
        """Open a blob, creating it durably if it is missing."""
        check_partition_name(partition)
        check_blob_name(name)
        number, length = await self.run(partition, name, "open", lambda: self._open(partition, name))
        return _Blob(self, partition, name, number), length

    async def remove(self, partition: str, name: bytes | None) -> None:
        """Remove one blob, or with None the whole partition, durably."""
        check_partition_name(partition)
        if name is not None:
            check_blob_name(name)
        await self.run(partition, name, "remove", lambda: self._remove(partition, name))

    async def scan(self, partition: str) -> list[bytes]:
        """Return the names of the blobs of a partition."""
        check_partition_name(partition)
        return await self.run(partition, None, "scan", lambda: self._scan(partition))

    async def lock(self, partition: str) -> _Lock:
        """Become the one writer of a partition."""
        check_partition_name(partition)
        try:
            await self.run(partition, None, "lock", lambda: None)
        except StorageError as error:
            if error.errno == errno.EBUSY:  # another process has the file
                raise JournalLocked(partition) from error
            raise
        if partition in self._locked:
            raise JournalLocked(partition)
        return _Lock(partition, self._locked)

    async def close(self) -> None:
        """Release the file; the journals on it are closed before."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    # In the thread.

    def run(self, partition: str, name: bytes | None, doing: str, work: Callable[[], T]) -> asyncio.Future[T]:
        """Do something in the thread, after all that was called before; SQLite's errors become `StorageError`."""

        def do() -> T:
            if self._failed:
                raise StorageError(partition, name, errno.EIO, doing)
            try:
                self._connect()
                return work()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode == sqlite3.SQLITE_BUSY and self._connection is None:
                    raise StorageError(partition, name, errno.EBUSY, doing) from error
                self._failed = True
                raise StorageError(partition, name, errno.EIO, doing) from error
            except sqlite3.Error as error:
                self._failed = True
                raise StorageError(partition, name, errno.EIO, doing) from error

        return asyncio.get_running_loop().run_in_executor(self._thread, do)

    def _connect(self) -> None:
        if self._connection is not None:
            return
        connection = sqlite3.connect(self._file, isolation_level=None, check_same_thread=False, timeout=0)
        try:
            for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
                connection.execute(f"PRAGMA {pragma}")
            connection.executescript(SCHEMA)
            # What was removed while it was open, and then nobody closed it.
            connection.execute("DELETE FROM blobs WHERE partition IS NULL")
            connection.execute("BEGIN IMMEDIATE")
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def query(self, statement: str, *values: object) -> list[tuple[int | bytes, ...]]:
        """Execute a statement in the open transaction."""
        assert self._connection is not None
        return self._connection.execute(statement, values).fetchall()

    def commit(self) -> None:
        """Make everything durable that was written so far."""
        self.query("COMMIT")
        self.query("BEGIN IMMEDIATE")

    def _open(self, partition: str, name: bytes) -> tuple[int, int]:
        find = "SELECT id, length FROM blobs WHERE partition = ? AND name = ?"
        if not self.query(find, partition, name):
            self.query("INSERT INTO blobs (partition, name, length) VALUES (?, ?, 0)", partition, name)
            self.commit()
        [(number, length)] = self.query(find, partition, name)
        self._handles[int(number)] += 1
        return int(number), int(length)

    def _remove(self, partition: str, name: bytes | None) -> None:
        which = "partition = ? AND name = ifnull(?, name)"
        for (number,) in self.query(f"SELECT id FROM blobs WHERE {which}", partition, name):  # noqa: S608 - no values
            if self._handles[int(number)]:
                # A handle that is open goes on reading: the blob loses its name now, and its pages with the handle.
                self.query("UPDATE blobs SET partition = NULL, name = NULL WHERE id = ?", number)
            else:
                self.query("DELETE FROM blobs WHERE id = ?", number)
        self.commit()

    def _scan(self, partition: str) -> list[bytes]:
        return [bytes(name) for (name,) in self.query("SELECT name FROM blobs WHERE partition = ?", partition)]

    def release(self, number: int) -> None:
        """Count a handle out."""
        self._handles[number] -= 1
        if not self._handles[number]:
            del self._handles[number]
            self.query("DELETE FROM blobs WHERE id = ? AND partition IS NULL", number)


class _Blob:
    """A blob as pages of equal length, the last one filled up with zeros; a page that is missing is zeros."""

    def __init__(self, storage: SQLiteStorage, partition: str, name: bytes, number: int) -> None:
        self._storage = storage
        self._partition = partition
        self._name = name
        self._number = number
        self._is_open = True
        self._is_released = False

    def read_at(self, offset: int, length: int) -> asyncio.Future[bytes]:
        return self._run("read", lambda: self._read(offset, length))

    def write_at(self, offset: int, data: Buffer) -> asyncio.Future[None]:
        copy = bytes(data)  # a caller that is cancelled is free to change its buffer
        return self._run("write", lambda: self._write(offset, copy))

    def resize(self, length: int) -> asyncio.Future[None]:
        return self._run("resize", lambda: self._resize(length))

    def sync(self) -> asyncio.Future[None]:
        return self._run("sync", self._storage.commit)

    async def close(self) -> None:
        self._is_open = False
        await self._storage.run(self._partition, self._name, "close", self._release)

    def _run(self, doing: str, work: Callable[[], T]) -> asyncio.Future[T]:
        if not self._is_open:
            raise StorageError(self._partition, self._name, errno.EBADF, doing)
        return self._storage.run(self._partition, self._name, doing, work)

    # In the thread.

    def _release(self) -> None:
        if not self._is_released:
            self._is_released = True
            self._storage.release(self._number)

    def _length(self) -> int:
        [(length,)] = self._storage.query("SELECT length FROM blobs WHERE id = ?", self._number)
        return int(length)

    def _pages(self, first: int, last: int) -> dict[int, bytes]:
        pages = "SELECT number, content FROM pages WHERE blob = ? AND number BETWEEN ? AND ?"
        return {
            int(number): bytes(content) for number, content in self._storage.query(pages, self._number, first, last)
        }

    def _store(self, number: int, content: bytes) -> None:
        self._storage.query("REPLACE INTO pages VALUES (?, ?, ?)", self._number, number, content)

    def _read(self, offset: int, length: int) -> bytes:
        stop = min(offset + length, self._length())
        if stop <= offset:
            return b""
        first, last = offset // PAGE, (stop - 1) // PAGE
        found = self._pages(first, last)
        whole = b"".join(found.get(number, bytes(PAGE)) for number in range(first, last + 1))
        return whole[offset - first * PAGE : stop - first * PAGE]

    def _write(self, offset: int, data: bytes) -> None:
        if not data:
            return
        stop = offset + len(data)
        first, last = offset // PAGE, (stop - 1) // PAGE
        edges = self._pages(first, first) | self._pages(last, last)
        before = edges.get(first, bytes(PAGE))[: offset - first * PAGE]
        behind = edges.get(last, bytes(PAGE))[stop - last * PAGE :]
        whole = before + data + behind
        for number in range(first, last + 1):
            self._store(number, whole[(number - first) * PAGE : (number - first + 1) * PAGE])
        self._storage.query("UPDATE blobs SET length = max(length, ?) WHERE id = ?", stop, self._number)

    def _resize(self, length: int) -> None:
        last = length // PAGE
        self._storage.query("DELETE FROM pages WHERE blob = ? AND number > ?", self._number, last)
        for number, content in self._pages(last, last).items():
            # Bytes that were cut must not come back when the blob grows again.
            self._store(number, content[: length - last * PAGE].ljust(PAGE, b"\0"))
        self._storage.query("UPDATE blobs SET length = ? WHERE id = ?", length, self._number)


class _Lock:
    def __init__(self, partition: str, locked: set[str]) -> None:
        locked.add(partition)
        self._partition = partition
        self._locked = locked
        self._is_held = True

    async def release(self) -> None:
        if self._is_held:
            self._is_held = False
            self._locked.discard(self._partition)


@asynccontextmanager
async def opened(file: Path) -> AsyncGenerator[SQLiteStorage, None]:
    """Hold a storage open."""
    storage = SQLiteStorage(file)
    try:
        yield storage
    finally:
        await storage.close()


async def main(file: Path) -> None:
    """Write some items, open the journal again, and look at both sides."""
    config = Config(partition="orders", items_per_section=1_000)
    async with opened(file) as storage, await Journal.init(Context(storage), config) as journal:
        last = await journal.append_many({"order": number} for number in range(2_500))
        await journal.sync_data()
        print(f"appended up to position {last}")
    async with opened(file) as storage:
        async with await Journal.init(Context(storage), config) as journal:
            print(f"found {journal.size()} items, the last is {await journal.read(journal.size() - 1)}")
            await journal.prune(1_000)
        for partition in ("orders_data", "orders_offsets", "orders_checkpoint"):
            names = sorted(await storage.scan(partition))
            print(f"{partition}: blobs {', '.join(str(int.from_bytes(name)) for name in names)}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(main(Path(sys.argv[1])))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            asyncio.run(main(Path(temporary, "journal.sqlite")))
