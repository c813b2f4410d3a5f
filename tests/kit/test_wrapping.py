"""Storages around others: what they pass on is what was called, and nothing of the wrapped one is lost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from typing_extensions import override

from posjournal_async import Context, FileStorage, MemoryStorage, StorageError
from posjournal_async.storage.protocols import ReadsAtOnce, RemovesMany, WritesDurably
from posjournal_async.testing import (
    CrashStorage,
    FaultyStorage,
    GatedStorage,
    OrderingMonitor,
    RecordingStorage,
    StorageContract,
)
from tests.journals import contents_of, filled, items_in, reopened

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from posjournal_async import Storage
    from posjournal_async.testing.wrapping import WrappedStorage

WRAPPERS: list[type[WrappedStorage]] = [FaultyStorage, GatedStorage, RecordingStorage]


class TestWrappedThreeTimes(StorageContract):
    """A storage below three wrappers is a storage like others."""

    @pytest.fixture
    def storage(self) -> Storage:
        return GatedStorage(FaultyStorage(RecordingStorage(CrashStorage())))


@pytest.mark.parametrize("wrapper", [*WRAPPERS, OrderingMonitor])
async def test_a_wrapper_offers_what_the_wrapped_one_offers(
    wrapper: Callable[[Storage], Storage], tmp_path: Path
) -> None:
    """The blobs of files write durably and read at once, those in memory do not."""
    for inner, is_fast in ((FileStorage(tmp_path), True), (MemoryStorage(), False)):
        storage = wrapper(inner)
        lock = await storage.lock("p_checkpoint")
        blob, length = await storage.open("p_checkpoint", b"n")
        assert length == 0
        assert isinstance(blob, ReadsAtOnce) == isinstance(blob, WritesDurably) == is_fast
        assert isinstance(storage, RemovesMany)
        await blob.close()
        await lock.release()


class PassingOn:
    """What has no method of its own, and passes everything on to another."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class PassingOnStorage(PassingOn):
    """A storage whose blobs pass everything on, too."""

    async def open(self, partition: str, name: bytes) -> tuple[Any, int]:
        blob, length = await self._inner.open(partition, name)
        return PassingOn(blob), length


@pytest.mark.parametrize("wrapper", [*WRAPPERS, OrderingMonitor])
async def test_a_wrapper_offers_what_the_wrapped_one_passes_on(
    wrapper: Callable[[Storage], Storage], tmp_path: Path
) -> None:
    """A journal calls it, whether or not there is a method of that name."""
    inner: Any = PassingOnStorage(FileStorage(tmp_path))
    storage = wrapper(inner)
    lock = await storage.lock("p_checkpoint")
    blob, _ = await storage.open("p_checkpoint", b"n")
    assert isinstance(blob, ReadsAtOnce)
    assert isinstance(blob, WritesDurably)
    await blob.close()
    await lock.release()


class SlowBlob:
    """A blob that offers nothing besides, around one in a file."""

    def __init__(self, inner: Any, offered: list[str]) -> None:
        self.read_at = inner.read_at
        self.write_at = inner.write_at
        self.resize = inner.resize
        self.sync = inner.sync
        self.close = inner.close
        self.inner = inner
        self.offered = offered


class DurablyWritingBlob(SlowBlob):
    """One that writes durably, and cannot read at once."""

    async def write_durably_at(self, offset: int, data: bytes) -> None:
        self.offered.append("write_durably_at")
        await self.inner.write_durably_at(offset, data)


class AtOnceReadingBlob(SlowBlob):
    """One that reads at once, and cannot write durably."""

    def read_at_once(self, offset: int, length: int) -> Any:
        self.offered.append("read_at_once")
        return self.inner.read_at_once(offset, length)


class OffersOne(FileStorage):
    """Files whose blobs are of one of these kinds, and note which call of the optional ones was made."""

    def __init__(self, root: Path, kind: type[SlowBlob]) -> None:
        super().__init__(root)
        self.kind = kind
        self.offered: list[str] = []

    @override
    async def open(self, partition: str, name: bytes) -> tuple[Any, int]:
        blob, length = await super().open(partition, name)
        return self.kind(blob, self.offered), length


@pytest.mark.parametrize("wrapper", [*WRAPPERS, OrderingMonitor])
@pytest.mark.parametrize(
    ("kind", "only"),
    [(SlowBlob, None), (DurablyWritingBlob, "write_durably_at"), (AtOnceReadingBlob, "read_at_once")],
)
async def test_a_wrapper_offers_one_thing_without_the_other(
    wrapper: Callable[[Storage], Storage], kind: type[SlowBlob], only: str | None, tmp_path: Path
) -> None:
    """A journal on the wrapper makes the calls that it makes on what is wrapped, and no others."""
    inner = OffersOne(tmp_path, kind)
    storage = wrapper(inner)
    journal = await filled(Context(storage), 35)
    await journal.sync()
    await journal.close()
    journal = await filled(Context(storage), 0)
    assert await contents_of(journal) == items_in(range(35))
    await journal.close()
    assert set(inner.offered) == ({only} if only else set())


@pytest.mark.parametrize("wrapper", [*WRAPPERS, OrderingMonitor])
async def test_a_journal_lives_on_a_wrapper_as_on_what_it_wraps(
    wrapper: Callable[[Storage], Storage], storage: Storage
) -> None:
    """What it writes is there, through the wrapper and without it (D1)."""
    journal = await filled(Context(wrapper(storage)), 35)
    assert await journal.prune(12)
    await journal.rewind(31)
    await journal.close()
    journal = await filled(Context(storage), 0)
    assert await contents_of(journal) == items_in(range(10, 31))
    journal = await reopened(journal)
    await journal.close()


async def test_a_recording_tells_begin_and_end_of_each_call(storage: Storage) -> None:
    """In order, with the bytes and the place; the arguments of removals, too."""
    recording = RecordingStorage(storage)
    lock = await recording.lock("p")
    blob, _ = await recording.open("p", b"n")
    await blob.write_at(3, b"abc")
    await blob.resize(5)
    await blob.sync()
    assert await blob.read_at(0, 9) == b"\0\0\0ab"
    await blob.close()
    await recording.scan("p")
    await recording.remove_many("p", [b"n", b"m"])
    await recording.remove("p", None)
    await lock.release()
    calls = [(call.what, call.name, call.offset, call.data, call.names) for call in recording.calls()]
    assert calls == [
        ("lock", None, 0, b"", ()),
        ("open", b"n", 0, b"", ()),
        ("write_at", b"n", 3, b"abc", ()),
        ("resize", b"n", 5, b"", ()),
        ("sync", b"n", 0, b"", ()),
        ("read_at", b"n", 0, b"", ()),
        ("close", b"n", 0, b"", ()),
        ("scan", None, 0, b"", ()),
        ("remove_many", None, 0, b"", (b"n", b"m")),
        ("remove", None, 0, b"", ()),
        ("release", None, 0, b"", ()),
    ]
    assert [event.phase for event in recording.events] == ["begin", "end"] * len(calls)
    assert {call.partition for call in recording.calls()} == {"p"}
    assert recording.calls(lambda call: call.what == "sync") == [recording.events[8].call]


async def test_a_recording_tells_which_call_failed() -> None:
    """Its error goes on to the caller."""
    recording = RecordingStorage(FaultyStorage(MemoryStorage(), 2))
    blob, _ = await recording.open("p", b"n")
    with pytest.raises(StorageError):
        await blob.write_at(0, b"abc")
    await blob.sync()
    assert [(event.phase, event.call.what) for event in recording.events] == [
        ("begin", "open"),
        ("end", "open"),
        ("begin", "write_at"),
        ("fail", "write_at"),
        ("begin", "sync"),
        ("end", "sync"),
    ]


async def test_a_gate_holds_what_it_is_told_to_and_lets_it_go_in_order() -> None:
    """A call that is held has done nothing; one let go is done, and the others wait on."""
    gated = GatedStorage(MemoryStorage())
    blob, _ = await gated.open("p", b"n")
    gated.hold(lambda call: call.what == "write_at")
    writes = [asyncio.ensure_future(blob.write_at(place, b"x")) for place in range(3)]
    first = await gated.until_held()
    assert (first.what, first.offset) == ("write_at", 0)
    assert await blob.read_at(0, 9) == b""
    assert [call.offset for call in gated.held] == [0, 1, 2]
    gated.let_go()
    await writes[0]
    assert [call.offset for call in gated.held] == [1, 2]
    assert await blob.read_at(0, 9) == b"x"
    gated.let_all_go()
    await asyncio.gather(*writes)
    await blob.write_at(3, b"x")  # nothing is held any more
    assert await blob.read_at(0, 9) == b"xxxx"
    gated.let_go()  # nobody is there


async def test_a_held_call_that_is_cancelled_does_nothing_and_stands_in_nobodys_way() -> None:
    """The next one is the first then."""
    gated = GatedStorage(MemoryStorage())
    blob, _ = await gated.open("p", b"n")
    gated.hold(lambda call: call.what == "write_at")
    writes = [asyncio.ensure_future(blob.write_at(place, b"x")) for place in range(2)]
    await gated.until_held()
    writes[0].cancel()
    await asyncio.wait([writes[0]])
    assert [call.offset for call in gated.held] == [1]
    gated.let_go()
    await writes[1]
    assert await blob.read_at(0, 9) == b"\0x"


async def test_a_journal_that_waits_at_a_gate_has_told_nobody() -> None:
    """No acknowledgement before the fsync has returned; those who came meanwhile wait for the next one (D1, I3)."""
    gated = GatedStorage(MemoryStorage())
    journal = await filled(Context(gated), 1)
    await journal.sync_data()
    syncs: list[asyncio.Future[Any]] = []
    gated.hold(lambda call: call.what == "sync" and call.partition == "orders_data")
    for count in (1, 2):
        await journal.append(b"item")
        syncs.append(asyncio.ensure_future(journal.sync_data()))
        await gated.until_held()
        assert len(gated.held) == 1
        assert journal.durable_size() == 1
        assert [sync.done() for sync in syncs] == [False] * count
    gated.let_go()
    await syncs[0]
    await gated.until_held()
    assert journal.durable_size() == 2
    assert not syncs[1].done()
    gated.let_all_go()
    await syncs[1]
    assert journal.durable_size() == 3
    await journal.close()
