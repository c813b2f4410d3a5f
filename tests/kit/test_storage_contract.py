"""The contract for storages finds what it says: each test here is one that a wrong backend must not pass."""

from __future__ import annotations

import asyncio
import re
from array import array
from typing import TYPE_CHECKING, Any

import pytest
from typing_extensions import override

from posjournal_async import JournalLocked, MemoryStorage
from posjournal_async.testing import RecordingStorage, StorageContract
from posjournal_async.testing.wrapping import WrappedStorage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from typing_extensions import Buffer

    from posjournal_async.storage.protocols import Blob, Lock
    from posjournal_async.testing import Call


class Wrong(WrappedStorage):
    """A storage in memory, to put a bug into."""

    def __init__(self) -> None:
        super().__init__(MemoryStorage())
        self.opened: set[tuple[str, bytes]] = set()

    @override
    async def around(self, call: Call, go_on: Callable[[], Awaitable[Any]]) -> Any:
        if call.what == "open" and call.name is not None:
            self.opened.add((call.partition, call.name))
        return await go_on()

    async def remove_all(self, pattern: str, name: bytes | None) -> None:
        """Remove a blob, or all, from the partitions whose name begins with a pattern."""
        for there in {there for there, _ in self.opened if re.match(pattern, there)}:
            await super().remove(there, name)


class RemovesByBeginning(Wrong):
    """Removes the partitions whose names begin alike."""

    @override
    async def remove(self, partition: str, name: bytes | None) -> None:
        await self.remove_all(partition if name is None else f"{partition}$", name)


class RemovesByPattern(Wrong):
    """Takes `_` for any letter, as LIKE of SQL does."""

    @override
    async def remove(self, partition: str, name: bytes | None) -> None:
        await self.remove_all(f"{partition.replace('_', '.')}$" if name is None else f"{partition}$", name)


class RemovesEverywhere(Wrong):
    """Removes the blobs of a name, in whichever partition."""

    @override
    async def remove(self, partition: str, name: bytes | None) -> None:
        await self.remove_all(f"{partition}$" if name is None else "", name)


class RemovesManyEverywhere(Wrong):
    """Removes the blobs of many names, in whichever partition."""

    @override
    async def remove_many(self, partition: str, names: Sequence[bytes]) -> None:
        for name in names:
            await self.remove_all("", name)


class StopsAtWhatIsMissing(Wrong):
    """Removes no more once a blob is missing."""

    @override
    async def remove_many(self, partition: str, names: Sequence[bytes]) -> None:
        for name in names:
            if name not in await self.scan(partition):
                return
            await self.remove(partition, name)


class TakesUpperForLower(Wrong):
    """Has one partition for names that differ in upper and lower case only, and one lock."""

    @override
    async def open(self, partition: str, name: bytes) -> tuple[Blob, int]:
        return await super().open(partition.lower(), name)

    @override
    async def scan(self, partition: str) -> list[bytes]:
        return await super().scan(partition.lower())

    @override
    async def lock(self, partition: str) -> Lock:
        return await super().lock(partition.lower())


class ListsOnePage(Wrong):
    """Lists a thousand names."""

    @override
    async def scan(self, partition: str) -> list[bytes]:
        return (await super().scan(partition))[:1_000]


class GoesOnRemoving(Wrong):
    """Removes what it was to remove also when nobody waits for it any more."""

    @override
    async def around(self, call: Call, go_on: Callable[[], Awaitable[Any]]) -> Any:
        if call.what not in {"remove", "remove_many"}:
            return await super().around(call, go_on)

        async def later() -> None:
            for _ in range(4):
                await asyncio.sleep(0)
            await go_on()

        return await asyncio.shield(asyncio.ensure_future(later()))


class EmptiesMany(Wrong):
    """Empties many blobs before it removes them, whoever has them open."""

    @override
    async def remove_many(self, partition: str, names: Sequence[bytes]) -> None:
        for name in names:
            blob, _ = await self.open(partition, name)
            await blob.resize(0)
            await blob.close()
        await super().remove_many(partition, names)


class Shares(Wrong):
    """Does once what several ask for at the same time, and is cancelled with any of them."""

    def __init__(self) -> None:
        super().__init__()
        self.shared: dict[str, asyncio.Future[Any]] = {}

    @override
    async def around(self, call: Call, go_on: Callable[[], Awaitable[Any]]) -> Any:
        if call.what not in self.shared or self.shared[call.what].done():
            self.shared[call.what] = asyncio.ensure_future(super().around(call, go_on))
        return await self.shared[call.what]


class WrongBlobs(MemoryStorage):
    """A storage in memory whose blobs may be wrong: `change` is given each that is opened.

    They offer what is optional, and that is right.
    """

    def change(self, blob: Any) -> None:
        """Put a bug into it."""

    def offer(self, blob: Any) -> None:
        """Offer what is optional."""

        def read_at_once(offset: int, length: int) -> bytes | None:
            found = bytes(blob._content[offset : offset + length]) if blob._is_open else b""
            return found if len(found) == length else None

        async def write_durably_at(offset: int, data: Buffer) -> None:
            await blob.write_at(offset, data)
            await blob.sync()

        blob.read_at_once = read_at_once
        blob.write_durably_at = write_durably_at

    @override
    async def open(self, partition: str, name: bytes) -> tuple[Any, int]:
        blob, length = await super().open(partition, name)
        self.offer(blob)
        self.change(blob)
        return blob, length


class CountsItems(WrongBlobs):
    """Takes the number of items in a buffer for that of its bytes."""

    @override
    def change(self, blob: Any) -> None:
        write = blob.write_at
        blob.write_at = lambda offset, data: write(offset, bytes(data)[: len(data)])


class KeepsWhatItRead(WrongBlobs):
    """Gives what a handle has read before."""

    @override
    def change(self, blob: Any) -> None:
        read = blob.read_at
        known: dict[tuple[int, int], bytes] = {}

        async def read_at(offset: int, length: int) -> bytes:
            if (offset, length) not in known:
                known[offset, length] = await read(offset, length)
            return known[offset, length]

        blob.read_at = read_at


class PassesOn:
    """A blob that keeps its bytes turned over, and passes on what it does not know, as a durable write."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def write_at(self, offset: int, data: Buffer) -> None:
        """Write."""
        await self._inner.write_at(offset, bytes(255 - byte for byte in bytes(data)))

    async def read_at(self, offset: int, length: int) -> bytes:
        """Read."""
        return bytes(255 - byte for byte in await self._inner.read_at(offset, length))


class PassesOnWhatIsOptional(WrongBlobs):
    """Has blobs that pass on what is optional, past what they do to the rest."""

    @override
    async def open(self, partition: str, name: bytes) -> tuple[Any, int]:
        blob, length = await super().open(partition, name)
        return PassesOn(blob), length


class CountsItemsDurably(WrongBlobs):
    """Takes the number of items in a buffer for that of its bytes, where it is to be durable at once."""

    @override
    def change(self, blob: Any) -> None:
        write = blob.write_durably_at
        blob.write_durably_at = lambda offset, data: write(offset, bytes(data)[: len(data)])


class KeepsWhatItReadAtOnce(WrongBlobs):
    """Gives at once what a handle has given before."""

    @override
    def change(self, blob: Any) -> None:
        read = blob.read_at_once
        known: dict[tuple[int, int], bytes | None] = {}
        blob.read_at_once = lambda *place: known.get(place) or known.setdefault(place, read(*place))


class GivesBuffers(WrongBlobs):
    """Gives at once what is no `bytes`."""

    @override
    def change(self, blob: Any) -> None:
        read = blob.read_at_once

        def read_at_once(offset: int, length: int) -> bytearray | None:
            found = read(offset, length)
            return None if found is None else bytearray(found)

        blob.read_at_once = read_at_once


class ClosesAll(WrongBlobs):
    """Counts the handles of a blob by the calls of `close`, and lets go of it at the last."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.blobs: list[Any] = []

    @override
    def change(self, blob: Any) -> None:
        self.count += 1
        self.blobs.append((blob, blob.close))

        async def close() -> None:
            self.count -= 1
            if self.count <= 0:
                await asyncio.gather(*(close() for _, close in self.blobs))

        blob.close = close


class WritesBack(WrongBlobs):
    """Writes a blob to its place when it is closed, whether or not that was removed."""

    @override
    def change(self, blob: Any) -> None:
        close, there = blob.close, self._partitions

        async def close_and_write() -> None:
            await close()
            there.setdefault(blob._partition, {}).setdefault(blob._name, blob._content)

        blob.close = close_and_write


contract = StorageContract()
ONLY_NAMED = contract.test_only_what_is_named_is_removed
LATER = contract.test_a_cancelled_removal_removes_nothing_later
SAME = contract.test_who_asks_for_the_same_is_not_cancelled_with_others


@pytest.mark.parametrize(
    ("kind", "test", "values"),
    [
        (RemovesByBeginning, ONLY_NAMED, {"removed": "partition"}),
        (RemovesByPattern, ONLY_NAMED, {"removed": "partition"}),
        (RemovesEverywhere, ONLY_NAMED, {"removed": "blob"}),
        (RemovesManyEverywhere, ONLY_NAMED, {"removed": "many"}),
        (StopsAtWhatIsMissing, contract.test_removing_many_removes_these, {}),
        (GoesOnRemoving, LATER, {"turns": 1, "removed": "blob"}),
        (GoesOnRemoving, LATER, {"turns": 1, "removed": "partition"}),
        (GoesOnRemoving, LATER, {"turns": 1, "removed": "many"}),
        (EmptiesMany, contract.test_an_open_handle_goes_on_reading_what_was_removed, {"removed": "many"}),
        (TakesUpperForLower, contract.test_blobs_are_told_apart_by_partition_and_name, {}),
        (TakesUpperForLower, contract.test_locks_of_other_partitions_are_independent, {}),
        (ListsOnePage, contract.test_many_blobs_are_all_listed_and_all_removed, {}),
        (Shares, SAME, {"turns": 1, "doing": "open"}),
        (Shares, SAME, {"turns": 1, "doing": "scan"}),
        (Shares, SAME, {"turns": 1, "doing": "read_at"}),
        (Shares, SAME, {"turns": 1, "doing": "sync"}),
        (CountsItems, contract.test_a_write_takes_any_buffer, {"data": array("H", b"hello!")}),
        (KeepsWhatItRead, contract.test_handles_of_one_blob_see_the_same_bytes, {}),
        (PassesOnWhatIsOptional, contract.test_writing_durably_writes_in_order, {}),
        (PassesOnWhatIsOptional, contract.test_reading_at_once_gives_all_or_none, {}),
        (CountsItemsDurably, contract.test_writing_durably_writes_in_order, {}),
        (KeepsWhatItReadAtOnce, contract.test_reading_at_once_gives_what_is_there_now, {}),
        (GivesBuffers, contract.test_reading_at_once_gives_all_or_none, {}),
        (ClosesAll, contract.test_closing_one_handle_leaves_the_others, {}),
        (WritesBack, contract.test_a_removed_blob_does_not_come_back_with_its_handle, {}),
    ],
)
async def test_a_backend_that_is_wrong_is_seen(
    kind: Callable[[], Any], test: Callable[..., Awaitable[None]], values: dict[str, Any]
) -> None:
    """And one that is right passes that test."""
    await test(RecordingStorage(WrongBlobs()), **values)
    try:
        with pytest.raises((AssertionError, JournalLocked, OSError)):
            await test(kind(), **values)
    except pytest.skip.Exception as skipped:
        pytest.fail(f"it was not held to it: {skipped}")


async def test_the_contract_leaves_the_event_loop_as_it_was() -> None:
    """It may be that of other tests too, whose errors nobody would be told of."""
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    await contract.test_cancelled_callers_do_not_disturb_the_others(MemoryStorage(), 1)
    assert loop.get_exception_handler() is before
