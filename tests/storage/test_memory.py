"""`MemoryStorage`: the contract of a storage, and what is particular to memory."""

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable

import pytest

from posjournal_async.errors import JournalLocked, StorageError
from posjournal_async.storage.memory import MemoryStorage
from posjournal_async.storage.protocols import Blob, ReadsAtOnce, RemovesMany, WritesDurably
from posjournal_async.testing import StorageContract


@pytest.fixture
def storage() -> MemoryStorage:
    return MemoryStorage()


class TestMemoryStorage(StorageContract):
    """Blobs in memory keep the contract."""

    @pytest.fixture
    def storage(self) -> MemoryStorage:
        return MemoryStorage()


async def test_nothing_optional_is_offered(storage: MemoryStorage) -> None:
    """A journal on it shows that it needs none of the optional protocols."""
    blob, _ = await storage.open("p", b"n")
    assert not isinstance(storage, RemovesMany)
    assert not isinstance(blob, ReadsAtOnce | WritesDurably)


async def test_each_operation_lets_other_tasks_run(storage: MemoryStorage) -> None:
    """Every call suspends once, so that tests on it meet every interleaving of whole operations."""
    blob, _ = await storage.open("p", b"n")
    lock = await storage.lock("q")
    operations = {
        "open": storage.open("p", b"n"),
        "scan": storage.scan("p"),
        "lock": storage.lock("p"),
        "release": lock.release(),
        "write": blob.write_at(0, b"x"),
        "read": blob.read_at(0, 1),
        "resize": blob.resize(2),
        "sync": blob.sync(),
        "close": blob.close(),
        "remove": storage.remove("p", b"n"),
    }
    seen: list[str] = []
    for name, operation in operations.items():
        asyncio.get_running_loop().call_soon(seen.append, name)
        await operation
    assert seen == list(operations)


async def test_a_write_takes_effect_at_its_first_step(storage: MemoryStorage) -> None:
    """Its order among others is that of the calls, whoever is resumed first, and cancelling it is too late."""
    blob, _ = await storage.open("p", b"n")
    writing = asyncio.ensure_future(blob.write_at(0, b"x"))
    await asyncio.sleep(0)
    writing.cancel()
    assert await blob.read_at(0, 1) == b"x"
    assert writing.cancelled()


def test_blobs_outlast_the_event_loop(storage: MemoryStorage) -> None:
    """A journal may be opened again in another event loop."""

    async def write() -> None:
        blob, _ = await storage.open("p", b"n")
        await blob.write_at(0, b"kept")

    async def read() -> bytes:
        blob, length = await storage.open("p", b"n")
        return await blob.read_at(0, length)

    asyncio.run(write())
    assert asyncio.run(read()) == b"kept"


async def test_storages_share_nothing(storage: MemoryStorage) -> None:
    """Blobs and locks are of one storage object."""
    await storage.open("p", b"n")
    await storage.lock("p")
    other = MemoryStorage()
    assert await other.scan("p") == []
    await other.lock("p")


async def test_a_held_lock_names_its_holder(storage: MemoryStorage) -> None:
    """It can only be this process."""
    held = await storage.lock("p")
    with pytest.raises(JournalLocked) as raised:
        await storage.lock("p")
    await held.release()
    assert (raised.value.partition, raised.value.holder) == ("p", os.getpid())


async def test_a_removed_partition_stays_locked(storage: MemoryStorage) -> None:
    """The lock is the right to write to the name, not to the blobs that happen to be there."""
    lock = await storage.lock("p")
    await storage.remove("p", None)
    with pytest.raises(JournalLocked):
        await storage.lock("p")
    await lock.release()


async def test_an_operation_on_a_closed_blob_fails_like_one_on_a_closed_file(storage: MemoryStorage) -> None:
    """The error has the facts: where, what, and EBADF."""
    blob, _ = await storage.open("p", b"n")
    await blob.close()
    with pytest.raises(StorageError) as raised:
        await blob.sync()
    error = raised.value
    assert (error.partition, error.blob, error.errno, error.doing) == ("p", b"n", errno.EBADF, "sync")


@pytest.mark.parametrize(
    "call",
    [
        lambda blob: blob.read_at(-1, 1),
        lambda blob: blob.read_at(0, -1),
        lambda blob: blob.write_at(-1, b"x"),
        lambda blob: blob.resize(-1),
    ],
    ids=["read offset", "read length", "write offset", "resize length"],
)
async def test_negative_offsets_and_lengths_are_refused(
    storage: MemoryStorage, call: Callable[[Blob], Awaitable[object]]
) -> None:
    """They do not count from the end, as they would in a slice."""
    blob, _ = await storage.open("p", b"n")
    await blob.write_at(0, b"hello")
    with pytest.raises(ValueError):
        await call(blob)
    assert await blob.read_at(0, 10) == b"hello"


async def test_writing_nothing_beyond_the_end_leaves_the_length(storage: MemoryStorage) -> None:
    """As pwrite(2) does."""
    blob, _ = await storage.open("p", b"n")
    await blob.write_at(10, b"")
    _, length = await storage.open("p", b"n")
    assert length == 0
