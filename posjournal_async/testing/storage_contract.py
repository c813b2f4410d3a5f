"""What a backend has to do so that a journal can live on it, as tests; the rules are those of `storage.protocols`.

Durability is the one rule that no test inside a process can see: that what was synced survives a power cut is for the
author of the backend to prove.
"""

from __future__ import annotations

import asyncio
from array import array
from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from posjournal_async.errors import JournalLocked, StorageError
from posjournal_async.storage.protocols import reads_at_once, removes_many, writes_durably

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    from typing_extensions import Buffer

    from posjournal_async.storage.protocols import Blob, Lock, ReadsAtOnce, Storage

__all__ = ["StorageContract"]

PARTITION = "orders_data"
NAME = (7).to_bytes(8, "big")
OTHER_NAME = (8).to_bytes(8, "big")

NOT_PARTITION_NAMES = ["", ".", "..", "a/b", "/a", "a\0b", "a\n", "a b", "a.b", "ä", "a" * 65]
NOT_BLOB_NAMES = [b"", b"n" * 65]
PARTITION_NAMES = ["a", "A", "Z", "0", "-", "_", "--", "a" * 64]
BLOB_NAMES = [b"\0", b"\0\0", b"\xff", b"/", b".", b"..", b"\n", b"a", b"A", NAME, bytes(64), b"\xff" * 64]

# Names that are easily taken for another: by their beginning, by a pattern in which `_` is any letter, without regard
# to upper and lower case.
ALIKE = [PARTITION, PARTITION + "_", PARTITION[:-1], PARTITION.replace("_", "-"), PARTITION.upper()]
NAMES_ALIKE = [NAME, NAME + b"\0", NAME[:-1], b"_", b"a", b"A"]

# More than fits one page of a list or one batch of a removal, for the backends that have them.
MANY = 1_001

# More than fits one call of the system (a pipe, a page, a short write), and not a multiple of a block.
LARGE = 5 * 2**20 + 13

# How many turns of the event loop a caller waits before it is cancelled: from before its first step to about the last.
TURNS = [0, 1, 2, 3, 5, 8]

# How long a lock may take to become free that nobody holds any more.
PATIENCE_SECONDS = 30.0


class StorageContract:
    """The rules of `Storage` and `Blob`, to be run on a backend: subclass it and override the fixture `storage`.

    A backend that offers an optional protocol is held to that too; the tests of those it does not offer are skipped.

    Example:
        >>> import pytest
        >>> from posjournal_async import MemoryStorage
        >>> from posjournal_async.testing import StorageContract
        >>> class TestMemoryStorage(StorageContract):
        ...     @pytest.fixture
        ...     def storage(self) -> MemoryStorage:
        ...         return MemoryStorage()
    """

    pytestmark = pytest.mark.asyncio

    @pytest.fixture
    def storage(self) -> Storage:
        """Return an empty storage. Override this."""
        raise NotImplementedError("override the fixture `storage` and return an empty storage")

    # Opening

    async def test_opening_a_missing_blob_creates_it_empty(self, storage: Storage) -> None:
        """A new blob has 0 bytes and is listed."""
        blob, length = await storage.open(PARTITION, NAME)
        await blob.close()
        assert length == 0
        assert await storage.scan(PARTITION) == [NAME]

    async def test_opening_again_finds_length_and_bytes(self, storage: Storage) -> None:
        """What was written is there after a close, and the length is the number of bytes."""
        async with _opened(storage) as blob:
            await blob.write_at(0, b"hello")
            await blob.sync()
        blob, length = await storage.open(PARTITION, NAME)
        assert length == 5
        assert await blob.read_at(0, 5) == b"hello"
        await blob.close()

    async def test_opening_a_missing_blob_at_the_same_time_creates_one(self, storage: Storage) -> None:
        """All who open a missing blob at once get the same bytes."""
        opened = await asyncio.gather(*(storage.open(PARTITION, NAME) for _ in range(8)))
        blobs = [blob for blob, _ in opened]
        await blobs[0].write_at(0, b"shared")
        assert [length for _, length in opened] == [0] * 8
        assert await asyncio.gather(*(blob.read_at(0, 6) for blob in blobs)) == [b"shared"] * 8
        assert await storage.scan(PARTITION) == [NAME]
        await asyncio.gather(*(blob.close() for blob in blobs))

    async def test_blobs_are_told_apart_by_partition_and_name(self, storage: Storage) -> None:
        """Blobs share bytes only when both names are equal; many may be open at once."""
        places = [(partition, name) for partition in PARTITION_NAMES for name in BLOB_NAMES]
        opened = await asyncio.gather(*(storage.open(*place) for place in places))
        marks = [repr(place).encode() for place in places]
        await asyncio.gather(*(blob.write_at(0, mark) for (blob, _), mark in zip(opened, marks, strict=True)))
        assert await asyncio.gather(*(blob.read_at(0, 1_000) for blob, _ in opened)) == marks
        for partition in PARTITION_NAMES:
            assert sorted(await storage.scan(partition)) == sorted(BLOB_NAMES)
        await asyncio.gather(*(blob.close() for blob, _ in opened))

    @pytest.mark.parametrize("turns", TURNS)
    async def test_a_cancelled_open_leaves_no_blob_or_an_empty_one(self, storage: Storage, turns: int) -> None:
        """Cancelling an open does not stand in the way of the next one."""
        opening = await _cancelled_after(turns, storage.open(PARTITION, NAME))
        if not opening.cancelled():
            await opening.result()[0].close()
        blob, length = await storage.open(PARTITION, NAME)
        assert length == 0
        await blob.write_at(0, b"hello")
        assert await blob.read_at(0, 5) == b"hello"
        await blob.close()

    # Names

    @pytest.mark.parametrize("partition", NOT_PARTITION_NAMES)
    async def test_what_is_no_partition_name_is_refused(self, storage: Storage, partition: str) -> None:
        """Every operation raises ValueError, whatever else is wrong."""
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: storage.open(partition, NAME),
            lambda: storage.remove(partition, NAME),
            lambda: storage.remove(partition, None),
            lambda: storage.scan(partition),
            lambda: storage.lock(partition),
        ]
        if removes_many(storage):
            calls.append(lambda: storage.remove_many(partition, []))
        for call in calls:
            with pytest.raises(ValueError):  # noqa: PT011 - its message is not a promise
                await call()

    @pytest.mark.parametrize("name", NOT_BLOB_NAMES)
    async def test_what_is_no_blob_name_is_refused_before_anything_happens(self, storage: Storage, name: bytes) -> None:
        """Opening and removing raise ValueError; no partition is made, and no other blob is removed."""
        with pytest.raises(ValueError):  # noqa: PT011 - its message is not a promise
            await storage.open(PARTITION, name)
        assert await storage.scan(PARTITION) == []
        await _create(storage, NAME)
        with pytest.raises(ValueError):  # noqa: PT011 - its message is not a promise
            await storage.remove(PARTITION, name)
        assert await storage.scan(PARTITION) == [NAME]

    # Reading

    @pytest.mark.parametrize(
        ("offset", "length", "expected"),
        [
            (0, 5, b"hello"),
            (1, 3, b"ell"),
            (0, 0, b""),
            (4, 1, b"o"),
            (4, 2, b"o"),
            (0, 2**20, b"hello"),
            (5, 0, b""),
            (5, 1, b""),
            (6, 1, b""),
            (2**40, 8, b""),
        ],
    )
    async def test_a_read_is_short_only_where_the_blob_ends(
        self, storage: Storage, offset: int, length: int, expected: bytes
    ) -> None:
        """Reads give all bytes there are in the range, as `bytes`, and none beyond the end."""
        async with _opened(storage) as blob:
            await blob.write_at(0, b"hello")
            found = await blob.read_at(offset, length)
            assert type(found) is bytes
            assert found == expected

    async def test_reading_an_empty_blob_gives_nothing(self, storage: Storage) -> None:
        """An empty blob ends at 0."""
        async with _opened(storage) as blob:
            assert await blob.read_at(0, 8) == b""

    # Writing

    async def test_writing_inside_keeps_the_bytes_around(self, storage: Storage) -> None:
        """A write changes its own range only, and grows the blob only as far as needed."""
        async with _opened(storage) as blob:
            await blob.write_at(0, b"0123456789")
            await blob.write_at(2, b"ab")
            await blob.write_at(9, b"xy")
            assert await blob.read_at(0, 100) == b"01ab45678xy"

    @pytest.mark.parametrize("gap", [1, 4_096, 2**20 + 1])
    async def test_a_gap_before_a_write_reads_as_zeros(self, storage: Storage, gap: int) -> None:
        """Writing beyond the end fills what lies between with zeros."""
        async with _opened(storage) as blob:
            await blob.write_at(0, b"a")
            await blob.write_at(1 + gap, b"b")
            assert await blob.read_at(0, gap + 100) == b"a" + bytes(gap) + b"b"

    @pytest.mark.parametrize(
        "data",
        [
            b"hello!",
            bytearray(b"hello!"),
            memoryview(b"hello!"),
            memoryview(bytearray(b"+hello!+"))[1:7],
            array("H", b"hello!"),
        ],
        ids=["bytes", "bytearray", "memoryview", "part of a memoryview", "array of two bytes each"],
    )
    async def test_a_write_takes_any_buffer(self, storage: Storage, data: Buffer) -> None:
        """Bytes that can be written need not be `bytes`."""
        async with _opened(storage) as blob:
            await blob.write_at(3, data)
            assert await blob.read_at(0, 100) == b"\0\0\0hello!"

    async def test_a_buffer_may_change_once_its_write_is_done(self, storage: Storage) -> None:
        """The backend keeps no reference that shows later changes, and a bytearray can be resized again."""
        data = bytearray(b"hello")
        async with _opened(storage) as blob:
            await blob.write_at(0, data)
            data[:] = b"overwritten"
            assert await blob.read_at(0, 100) == b"hello"

    async def test_a_read_result_does_not_change_with_the_blob(self, storage: Storage) -> None:
        """What was read is a copy."""
        async with _opened(storage) as blob:
            await blob.write_at(0, b"hello")
            found = await blob.read_at(0, 5)
            await blob.write_at(0, b"other")
            assert found == b"hello"

    async def test_large_writes_and_reads_are_whole(self, storage: Storage) -> None:
        """Several MiB arrive in one write and come back in one read."""
        data = Random(1).randbytes(LARGE)
        async with _opened(storage) as blob:
            await blob.write_at(3, data)
            await blob.sync()
            assert await blob.read_at(3, LARGE + 1) == data

    # Resizing

    @pytest.mark.parametrize("length", [0, 1, 4, 5, 6, 5_000])
    async def test_resizing_cuts_or_extends_with_zeros(self, storage: Storage, length: int) -> None:
        """The blob has exactly the new length, also when it is opened again."""
        async with _opened(storage) as blob:
            await blob.write_at(0, b"hello")
            await blob.resize(length)
            await blob.sync()
            assert await blob.read_at(0, 10_000) == b"hello"[:length] + bytes(max(0, length - 5))
        blob, found = await storage.open(PARTITION, NAME)
        await blob.close()
        assert found == length

    @pytest.mark.parametrize("is_resized", [True, False], ids=["by a resize", "by a write"])
    async def test_bytes_that_were_cut_do_not_come_back(self, storage: Storage, *, is_resized: bool) -> None:
        """After a cut, extending by a resize or by a write beyond the end gives zeros, not the old bytes."""
        async with _opened(storage) as blob:
            await blob.write_at(0, b"x" * 8_192)
            await blob.resize(1)
            if is_resized:
                await blob.resize(9_000)
            await blob.write_at(8_999, b"y")
            assert await blob.read_at(0, 10_000) == b"x" + bytes(8_998) + b"y"

    # Syncing and closing

    async def test_syncing_changes_nothing_and_may_be_repeated(self, storage: Storage) -> None:
        """Any number of syncs may be under way, also of an empty blob."""
        async with _opened(storage) as blob:
            await blob.sync()
            await blob.write_at(0, b"hello")
            await asyncio.gather(*(blob.sync() for _ in range(8)))
            assert await blob.read_at(0, 100) == b"hello"

    async def test_closing_twice_is_fine(self, storage: Storage) -> None:
        """The second close does nothing, at once or later."""
        blob, _ = await storage.open(PARTITION, NAME)
        await asyncio.gather(blob.close(), blob.close())
        await blob.close()

    @pytest.mark.parametrize("doing", ["read_at", "write_at", "resize", "sync"])
    async def test_a_closed_blob_refuses_operations(self, storage: Storage, doing: str) -> None:
        """Everything but closing raises StorageError that names the blob, and nothing happens."""
        blob, _ = await storage.open(PARTITION, NAME)
        await blob.write_at(0, b"hello")
        await blob.close()
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "read_at": lambda: blob.read_at(0, 5),
            "write_at": lambda: blob.write_at(0, b"other"),
            "resize": lambda: blob.resize(0),
            "sync": blob.sync,
        }
        with pytest.raises(StorageError) as raised:
            await calls[doing]()
        assert (raised.value.partition, raised.value.blob) == (PARTITION, NAME)
        assert await _content(storage) == b"hello"

    async def test_handles_of_one_blob_see_the_same_bytes(self, storage: Storage) -> None:
        """What one has written or cut is what another reads, also where that has read before."""
        async with _opened(storage) as one, _opened(storage) as other:
            for content in (b"hello", b"HELLO, world", b"HELLO"):
                await one.resize(len(content))
                await one.write_at(0, content)
                assert await other.read_at(0, 100) == content

    async def test_closing_one_handle_leaves_the_others(self, storage: Storage) -> None:
        """Each open has a handle of its own, however often another one is closed."""
        async with _opened(storage) as kept:
            async with _opened(storage) as other:
                await other.close()
            await kept.write_at(0, b"hello")
            assert await kept.read_at(0, 5) == b"hello"

    async def test_closing_waits_for_what_was_called_before(self, storage: Storage) -> None:
        """Operations under way are carried out, the close fails none of them, and all have landed when it returns."""
        blob, _ = await storage.open(PARTITION, NAME)
        written = _started(*(blob.write_at(i * LARGE, bytes([i]) * LARGE) for i in range(3)), blob.read_at(0, 1))
        await asyncio.gather(*_started(blob.close()))
        assert all(operation.done() for operation in written)
        assert await asyncio.gather(*written) == [None, None, None, b"\0"]
        assert await _content(storage) == b"".join(bytes([i]) * LARGE for i in range(3))

    @pytest.mark.parametrize("turns", TURNS)
    async def test_closing_again_after_a_cancelled_close_waits_as_well(self, storage: Storage, turns: int) -> None:
        """When the last close returns, nothing called before it can land any more: a new handle's write stays."""
        blob, _ = await storage.open(PARTITION, NAME)
        written = _started(blob.write_at(0, b"a" * LARGE), blob.write_at(0, b"b" * LARGE))
        await _cancelled_after(turns, blob.close())
        await blob.close()
        async with _opened(storage) as reopened:
            await reopened.write_at(0, b"c" * LARGE)
            await asyncio.gather(*written)
            assert await reopened.read_at(0, LARGE) == b"c" * LARGE

    # Order and cancelling

    @pytest.mark.parametrize("seed", range(20))
    async def test_operations_take_effect_in_the_order_of_their_calls(self, storage: Storage, seed: int) -> None:
        """Writes, resizes and reads that were called without waiting act like the same calls made one by one."""
        random, model = Random(seed), bytearray()
        calls: list[Awaitable[object]] = []
        expected: list[object] = []
        async with _opened(storage) as blob:
            for _ in range(100):
                offset, length = random.randrange(20_000), random.randrange(20_000)
                match random.choice(["write", "write", "read", "resize", "sync"]):
                    case "write":
                        data = random.randbytes(1 + length)
                        calls.append(blob.write_at(offset, data))
                        model.extend(bytes(max(0, offset - len(model))))
                        model[offset : offset + len(data)] = data
                        expected.append(None)
                    case "read":
                        calls.append(blob.read_at(offset, length))
                        expected.append(bytes(model[offset : offset + length]))
                    case "resize":
                        calls.append(blob.resize(length))
                        model[length:] = bytes(max(0, length - len(model)))
                        expected.append(None)
                    case _:
                        calls.append(blob.sync())
                        expected.append(None)
            found = await asyncio.gather(*_started(*calls))
            assert found == expected
            assert await blob.read_at(0, 50_000) == bytes(model)

    @pytest.mark.parametrize("turns", TURNS)
    async def test_a_cancelled_write_lands_whole_or_not_at_all(self, storage: Storage, turns: int) -> None:
        """After a sync it is decided which; and the write is not made later."""
        async with _opened(storage) as blob:
            await blob.write_at(0, b"a" * LARGE)
            await _cancelled_after(turns, blob.write_at(0, b"b" * LARGE))
            await blob.sync()
            found = await blob.read_at(0, LARGE + 1)
            assert found in (b"a" * LARGE, b"b" * LARGE)
        assert await _content(storage) == found

    @pytest.mark.parametrize("turns", TURNS)
    async def test_a_write_after_a_cancelled_write_wins(self, storage: Storage, turns: int) -> None:
        """The cancelled write cannot overtake what was called after it, on this handle or on the next."""
        async with _opened(storage) as blob:
            await _cancelled_after(turns, blob.write_at(0, b"a" * LARGE))
            await blob.write_at(0, b"b" * LARGE)
            assert await blob.read_at(0, LARGE + 1) == b"b" * LARGE
        assert await _content(storage) == b"b" * LARGE

    @pytest.mark.parametrize("turns", TURNS)
    async def test_a_write_after_a_cancelled_resize_wins(self, storage: Storage, turns: int) -> None:
        """The blob is not cut behind the back of the write that came after."""
        async with _opened(storage) as blob:
            await blob.write_at(0, b"hello")
            await _cancelled_after(turns, blob.resize(0))
            await blob.write_at(0, b"other")
            assert await blob.read_at(0, 100) == b"other"

    @pytest.mark.parametrize("doing", ["open", "scan", "read_at", "sync"])
    @pytest.mark.parametrize("turns", TURNS)
    async def test_who_asks_for_the_same_is_not_cancelled_with_others(
        self, storage: Storage, turns: int, doing: str
    ) -> None:
        """The first of several callers is cancelled: a backend that does it once for all of them still does it."""
        async with _opened(storage, OTHER_NAME) as blob:
            await blob.write_at(0, b"hello")
            calls: dict[str, Callable[[], Awaitable[Any]]] = {
                "open": lambda: storage.open(PARTITION, NAME),
                "scan": lambda: storage.scan(PARTITION),
                "read_at": lambda: blob.read_at(0, 5),
                "sync": blob.sync,
            }
            same = _started(*(calls[doing]() for _ in range(4)))
            await _turns(turns)
            same[0].cancel()
            await asyncio.wait(same)
            assert not any(call.cancelled() for call in same[1:])
            if doing == "open":
                await asyncio.gather(*(call.result()[0].close() for call in same if not call.cancelled()))

    @pytest.mark.parametrize("turns", TURNS)
    async def test_cancelled_callers_do_not_disturb_the_others(self, storage: Storage, turns: int) -> None:
        """Every other write of many is cancelled: the rest land in order, these whole or not at all."""
        slot = 4_096
        async with _opened(storage) as blob, _complaints() as complaints:
            calls = [blob.write_at((i % 50) * slot, bytes([1 + i]) * slot) for i in range(100)]
            writes = _started(*calls)
            await _turns(turns)
            for write in writes[::2]:
                write.cancel()
            await asyncio.wait(writes)
            await blob.sync()
            assert all(write.exception() is None for write in writes[1::2])
            for i in range(50):
                found = await blob.read_at(i * slot, slot)
                # Call i wrote to the slot, then call i + 50: none of the two was cancelled, or both were.
                marks = [1 + i + 50] if i % 2 else [0, 1 + i, 1 + i + 50]
                assert found in [bytes([mark]) * slot for mark in marks]
        assert complaints == []

    async def test_blobs_do_not_wait_for_each_other_for_ever(self, storage: Storage) -> None:
        """Far more operations than any backend has threads are under way on many blobs, and all finish."""
        opened = await asyncio.gather(*(storage.open(PARTITION, i.to_bytes(8, "big")) for i in range(64)))
        blobs = [blob for blob, _ in opened]
        calls: list[Awaitable[Any]] = []
        for blob in blobs:
            calls += [blob.write_at(0, b"hello"), blob.sync(), blob.read_at(0, 5), blob.close()]
        found = await asyncio.gather(*_started(*calls))
        assert found[2::4] == [b"hello"] * 64

    # Removing

    async def test_a_removed_blob_is_gone_and_the_others_stay(self, storage: Storage) -> None:
        """It is not listed any more, and opening it starts afresh."""
        await _create(storage, NAME, b"hello")
        await _create(storage, OTHER_NAME, b"other")
        await storage.remove(PARTITION, NAME)
        assert await storage.scan(PARTITION) == [OTHER_NAME]
        assert await _content(storage, OTHER_NAME) == b"other"
        assert await _content(storage, NAME) == b""

    @pytest.mark.parametrize("removed", ["blob", "partition", "many"])
    @pytest.mark.parametrize("turns", TURNS)
    async def test_a_cancelled_removal_removes_nothing_later(self, storage: Storage, turns: int, removed: str) -> None:
        """What is created when the call has ended stays: it may be somebody else's."""
        for name in BLOB_NAMES:
            await _create(storage, name, b"old")
        await _cancelled_after(turns, _removal(storage, removed, BLOB_NAMES[: 1 if removed == "blob" else None]))
        for name in BLOB_NAMES:
            await _create(storage, name, b"new")
        assert sorted(await storage.scan(PARTITION)) == sorted(BLOB_NAMES)
        assert [await _content(storage, name) for name in BLOB_NAMES] == [b"new"] * len(BLOB_NAMES)

    async def test_a_removed_partition_is_gone_and_the_others_stay(self, storage: Storage) -> None:
        """All its blobs go with it, and opening one starts afresh."""
        await _create(storage, NAME, b"hello")
        await _create(storage, OTHER_NAME, b"other")
        await _create(storage, NAME, b"elsewhere", partition="customers_data")
        await storage.remove(PARTITION, None)
        assert await storage.scan(PARTITION) == []
        assert await _content(storage, NAME) == b""
        assert await _content(storage, NAME, partition="customers_data") == b"elsewhere"

    async def test_removing_what_is_missing_is_fine(self, storage: Storage) -> None:
        """Neither a missing blob nor a missing partition is an error, and removing creates nothing."""
        await storage.remove(PARTITION, NAME)
        await storage.remove(PARTITION, None)
        await _create(storage, NAME)
        await storage.remove(PARTITION, OTHER_NAME)
        assert await storage.scan(PARTITION) == [NAME]
        await storage.remove(PARTITION, NAME)
        await storage.remove(PARTITION, NAME)
        assert await storage.scan(PARTITION) == []
        await storage.remove(PARTITION, None)
        await storage.remove(PARTITION, None)

    @pytest.mark.parametrize("removed", ["blob", "partition", "many"])
    async def test_only_what_is_named_is_removed(self, storage: Storage, removed: str) -> None:
        """Nothing else whose name looks like it, and no blob of that name in another partition."""
        for partition in ALIKE:
            for name in NAMES_ALIKE:
                await _create(storage, name, partition=partition)
        await _removal(storage, removed, NAMES_ALIKE[:1])
        for partition in ALIKE[1:]:
            assert sorted(await storage.scan(partition)) == sorted(NAMES_ALIKE)
        kept = [] if removed == "partition" else NAMES_ALIKE[1:]
        assert sorted(await storage.scan(PARTITION)) == sorted(kept)

    async def test_a_removed_blob_does_not_come_back_with_its_handle(self, storage: Storage) -> None:
        """Neither what was not synced when it was removed, nor the close of the handle, makes the name anew."""
        async with _opened(storage) as blob:
            await blob.write_at(0, b"hello")
            await storage.remove(PARTITION, NAME)
        assert await storage.scan(PARTITION) == []

    @pytest.mark.parametrize("removed", ["blob", "partition", "many"])
    async def test_an_open_handle_goes_on_reading_what_was_removed(self, storage: Storage, removed: str) -> None:
        """Its bytes are those of the removed blob, also beside a new one of the same name; closing it is fine."""
        async with _opened(storage) as old:
            await old.write_at(0, b"old")
            await _removal(storage, removed, [NAME])
            assert await old.read_at(0, 100) == b"old"
            async with _opened(storage) as new:
                assert await new.read_at(0, 100) == b""
                await new.write_at(0, b"new")
                assert await old.read_at(0, 100) == b"old"
            await old.sync()
        assert await _content(storage) == b"new"

    # Scanning

    async def test_a_missing_partition_has_no_blobs(self, storage: Storage) -> None:
        """Scanning it is no error, and does not make it."""
        assert await storage.scan(PARTITION) == []
        assert await storage.scan(PARTITION) == []

    async def test_a_scan_lists_each_name_once(self, storage: Storage) -> None:
        """All names come back byte for byte, in any order."""
        for name in BLOB_NAMES:
            await _create(storage, name)
        found = await storage.scan(PARTITION)
        assert all(type(name) is bytes for name in found)
        assert sorted(found) == sorted(BLOB_NAMES)

    async def test_many_blobs_are_all_listed_and_all_removed(self, storage: Storage) -> None:
        """However many there are in a partition."""
        names = [number.to_bytes(8, "big") for number in range(MANY)]
        for start in range(0, MANY, 50):
            opened = await asyncio.gather(*(storage.open(PARTITION, name) for name in names[start : start + 50]))
            await asyncio.gather(*(blob.close() for blob, _ in opened))
        assert sorted(await storage.scan(PARTITION)) == names
        await storage.remove(PARTITION, None)
        assert await storage.scan(PARTITION) == []

    # Locking

    async def test_a_lock_has_one_holder(self, storage: Storage) -> None:
        """Of all who try at once one gets it; the others, and whoever tries later, are told who they lost against."""
        tried = await asyncio.gather(*(storage.lock(PARTITION) for _ in range(8)), return_exceptions=True)
        locks = [lock for lock in tried if not isinstance(lock, BaseException)]
        refused = [error for error in tried if isinstance(error, BaseException)]
        assert len(locks) == 1
        assert {(type(error), getattr(error, "partition", None)) for error in refused} == {(JournalLocked, PARTITION)}
        with pytest.raises(JournalLocked):
            await storage.lock(PARTITION)
        await locks[0].release()

    async def test_a_released_lock_can_be_taken_again(self, storage: Storage) -> None:
        """Any number of times, with and without blobs in the partition."""
        for name in (NAME, OTHER_NAME):
            lock = await storage.lock(PARTITION)
            await _create(storage, name)
            await lock.release()
        lock = await storage.lock(PARTITION)
        await lock.release()

    async def test_releasing_twice_does_not_release_the_next_holder(self, storage: Storage) -> None:
        """A lock that was released already has no say."""
        first = await storage.lock(PARTITION)
        await asyncio.gather(first.release(), first.release())
        second = await storage.lock(PARTITION)
        await first.release()
        with pytest.raises(JournalLocked):
            await storage.lock(PARTITION)
        await second.release()

    async def test_locks_of_other_partitions_are_independent(self, storage: Storage) -> None:
        """Names that begin alike are other names."""
        locks = [await storage.lock(partition) for partition in ALIKE]
        await locks[0].release()
        with pytest.raises(JournalLocked):
            await storage.lock(PARTITION + "_")
        for lock in locks:
            await lock.release()

    async def test_a_lock_makes_no_blob(self, storage: Storage) -> None:
        """However a backend keeps its locks, a scan does not show it, and a missing partition can be locked."""
        lock = await storage.lock(PARTITION)
        assert await storage.scan(PARTITION) == []
        await _create(storage, NAME)
        assert await storage.scan(PARTITION) == [NAME]
        await lock.release()

    async def test_the_holder_may_remove_what_it_locked(self, storage: Storage) -> None:
        """Releasing the lock of a removed partition is fine, and the partition can be locked again."""
        lock = await storage.lock(PARTITION)
        await _create(storage, NAME)
        await storage.remove(PARTITION, NAME)
        with pytest.raises(JournalLocked):
            await storage.lock(PARTITION)
        await storage.remove(PARTITION, None)
        await lock.release()
        lock = await storage.lock(PARTITION)
        await lock.release()

    @pytest.mark.parametrize("turns", TURNS)
    async def test_a_lock_whose_caller_was_cancelled_is_not_lost(self, storage: Storage, turns: int) -> None:
        """Either the caller has it, or it becomes free: nobody could release it."""
        locking = await _cancelled_after(turns, storage.lock(PARTITION))
        if not locking.cancelled():
            await locking.result().release()
        lock = await _lock_patiently(storage)
        await lock.release()

    @pytest.mark.parametrize("turns", TURNS)
    async def test_a_cancelled_release_can_be_repeated(self, storage: Storage, turns: int) -> None:
        """When a release has returned, the lock is free."""
        lock = await storage.lock(PARTITION)
        await _cancelled_after(turns, lock.release())
        await lock.release()
        lock = await storage.lock(PARTITION)
        await lock.release()

    # Optional protocols

    async def test_reading_at_once_gives_all_or_none(self, storage: Storage) -> None:
        """`ReadsAtOnce`: what it returns is what `read_at` returns, and never less than was asked for."""
        async with _opened(storage) as blob:
            if not reads_at_once(blob):
                pytest.skip("the blobs of this storage do not read at once")
            data = Random(1).randbytes(10_000)
            await blob.write_at(0, data)
            for offset, length in ((0, 1), (0, 10_000), (4_095, 2), (9_999, 1)):
                found = blob.read_at_once(offset, length)
                assert found is None or type(found) is bytes
                assert found in (None, data[offset : offset + length])
            for offset, length in ((0, 10_001), (9_999, 2), (10_000, 1), (2**40, 1)):
                assert blob.read_at_once(offset, length) is None

    async def test_reading_at_once_gives_what_is_there_now(self, storage: Storage) -> None:
        """`ReadsAtOnce`: nothing that was there before a write or a cut, by this handle or by another one."""
        async with _opened(storage) as one, _opened(storage) as other:
            if not reads_at_once(one) or not reads_at_once(other):
                pytest.skip("the blobs of this storage do not read at once")
            for content in (b"hello", b"HELLO", b"hell", b"Hello", b""):
                await one.resize(len(content))
                await one.write_at(0, content)
                expected = content if len(content) == 5 else None
                for blob in (one, other):
                    assert blob.read_at_once(0, 5) in (None, expected)

    async def test_reading_a_closed_blob_at_once_reads_nothing(self, storage: Storage) -> None:
        """`ReadsAtOnce`: from the call of close on it gives None or an error, never the bytes of some other file."""
        blob, _ = await storage.open(PARTITION, NAME)
        await blob.write_at(0, b"hello")
        if not reads_at_once(blob):
            await blob.close()
            pytest.skip("the blobs of this storage do not read at once")
        closing = _started(blob.write_at(5, bytes(LARGE)), blob.close())
        await _turns(1)
        found = [_read_at_once(blob)]
        await asyncio.gather(*closing)
        async with _opened(storage, OTHER_NAME) as other:
            await other.write_at(0, b"other")
            found.append(_read_at_once(blob))
        assert found == [None, None]

    async def test_writing_durably_writes_in_order(self, storage: Storage) -> None:
        """`WritesDurably`: `write_at`, then `sync`, in order with all other operations, and refused when closed."""
        async with _opened(storage) as blob:
            if not writes_durably(blob):
                pytest.skip("the blobs of this storage do not write durably")
            data = array("H", b"bbbb")
            calls = (blob.write_at(0, b"aaaa"), blob.write_durably_at(1, data), blob.write_at(2, b"cc"))
            await asyncio.gather(*_started(*calls))
            assert await blob.read_at(0, 100) == b"abccb"
            await blob.close()
            with pytest.raises(StorageError):
                await blob.write_durably_at(0, b"late")
        assert await _content(storage) == b"abccb"

    async def test_removing_many_removes_these(self, storage: Storage) -> None:
        """`RemovesMany`: what is listed goes, missing or not; what is not listed stays."""
        if not removes_many(storage):
            pytest.skip("this storage does not remove many blobs at once")
        await storage.remove_many(PARTITION, [NAME])
        for name in BLOB_NAMES:
            await _create(storage, name)
        await storage.remove_many(PARTITION, [])
        assert sorted(await storage.scan(PARTITION)) == sorted(BLOB_NAMES)
        await storage.remove_many(PARTITION, [OTHER_NAME, *BLOB_NAMES[1:], OTHER_NAME])
        assert await storage.scan(PARTITION) == BLOB_NAMES[:1]

    @pytest.mark.parametrize("name", NOT_BLOB_NAMES)
    async def test_removing_many_checks_all_names_first(self, storage: Storage, name: bytes) -> None:
        """`RemovesMany`: one that is no name is refused before anything is removed."""
        if not removes_many(storage):
            pytest.skip("this storage does not remove many blobs at once")
        await _create(storage, NAME)
        with pytest.raises(ValueError):  # noqa: PT011 - its message is not a promise
            await storage.remove_many(PARTITION, [NAME, name])
        assert await storage.scan(PARTITION) == [NAME]


def _read_at_once(blob: ReadsAtOnce) -> bytes | None:
    """Read the first 5 bytes at once, with None for a refusal."""
    try:
        return blob.read_at_once(0, 5)
    except StorageError:
        return None


@asynccontextmanager
async def _opened(storage: Storage, name: bytes = NAME, partition: str = PARTITION) -> AsyncGenerator[Blob, None]:
    """Open a blob for a while."""
    blob, _ = await storage.open(partition, name)
    try:
        yield blob
    finally:
        await blob.close()


async def _create(storage: Storage, name: bytes, data: bytes = b"", partition: str = PARTITION) -> None:
    async with _opened(storage, name, partition) as blob:
        await blob.write_at(0, data)


def _removal(storage: Storage, removed: str, names: Sequence[bytes]) -> Awaitable[None]:
    """Return what removes the partition, or some of its blobs: one, or many in one call."""
    if removed != "many":
        return storage.remove(PARTITION, names[0] if removed == "blob" else None)
    if not removes_many(storage):
        pytest.skip("this storage does not remove many blobs at once")
    return storage.remove_many(PARTITION, names)


async def _content(storage: Storage, name: bytes = NAME, partition: str = PARTITION) -> bytes:
    """Return all bytes of a blob, by a handle of its own."""
    blob, length = await storage.open(partition, name)
    try:
        content = await blob.read_at(0, length + 1)
    finally:
        await blob.close()
    assert len(content) == length
    return content


@asynccontextmanager
async def _complaints() -> AsyncGenerator[list[dict[str, Any]], None]:
    """Collect what the event loop complains of, for a while: it may be the one of other tests too."""
    loop, complaints = asyncio.get_running_loop(), list[dict[str, Any]]()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    try:
        yield complaints
    finally:
        loop.set_exception_handler(before)


def _started(*operations: Awaitable[Any]) -> Sequence[asyncio.Future[Any]]:
    """Start operations in the order in which they were called, and wait for none."""
    return [asyncio.ensure_future(operation) for operation in operations]


async def _turns(count: int) -> None:
    """Let the event loop go round a number of times."""
    for _ in range(count):
        await asyncio.sleep(0)


async def _cancelled_after(turns: int, operation: Awaitable[Any]) -> asyncio.Future[Any]:
    """Start an operation, cancel its caller some turns later, and return the outcome: cancelled, or done already."""
    (started,) = _started(operation)
    await _turns(turns)
    started.cancel()
    await asyncio.wait([started])
    return started


async def _lock_patiently(storage: Storage) -> Lock:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                return await storage.lock(PARTITION)
            except JournalLocked:
                await _turns(1)
