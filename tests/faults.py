"""Storages between a journal and the one under test: one that fails, one that waits, one that writes down.

Each of them can wrap another, and offers by its blobs what the blobs of the wrapped one offer.
"""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from posjournal_async.errors import StorageError
from posjournal_async.storage.protocols import ReadsAtOnce, WritesDurably

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from typing_extensions import Buffer

    from posjournal_async.storage.protocols import Blob, Lock, Storage

__all__ = ["Call", "Event", "FaultyStorage", "GatedStorage", "RecordingStorage", "WrappedStorage", "is_data_sync"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One call of a storage, a blob or a lock.

    Attributes:
        what: Its name: open, remove, scan, lock, release, read_at, write_at, write_durably_at, resize, sync or close.
        partition: The partition it is about.
        name: The blob it is about, or None.
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


def is_data_sync(call: Call) -> bool:
    """Say whether a call makes bytes of the data journal durable."""
    return call.partition.endswith("_data") and call.what in {"sync", "write_durably_at"}


class WrappedStorage:
    """A storage that passes every call on by way of `around`."""

    def __init__(self, inner: Storage) -> None:
        self.inner = inner

    async def around(self, call: Call, go_on: Callable[[], Awaitable[T]]) -> T:
        """Do what the wrapper is for, and `go_on`."""
        raise NotImplementedError

    async def open(self, partition: str, name: bytes) -> tuple[Blob, int]:
        blob, length = await self.around(Call("open", partition, name), lambda: self.inner.open(partition, name))
        kind = _FastBlob if isinstance(blob, WritesDurably) and isinstance(blob, ReadsAtOnce) else _PlainBlob
        return kind(self, blob, partition, name), length

    async def remove(self, partition: str, name: bytes | None) -> None:
        await self.around(Call("remove", partition, name), lambda: self.inner.remove(partition, name))

    async def scan(self, partition: str) -> list[bytes]:
        return await self.around(Call("scan", partition), lambda: self.inner.scan(partition))

    async def lock(self, partition: str) -> Lock:
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


class _FastBlob(_PlainBlob):
    async def write_durably_at(self, offset: int, data: Buffer) -> None:
        assert isinstance(self._inner, WritesDurably)
        inner = self._inner
        call = self._call("write_durably_at", offset, bytes(data))
        await self._around(call, lambda: inner.write_durably_at(offset, data))

    def read_at_once(self, offset: int, length: int) -> bytes | None:
        assert isinstance(self._inner, ReadsAtOnce)
        return self._inner.read_at_once(offset, length)


class _WrappedLock:
    def __init__(self, storage: WrappedStorage, inner: Lock, partition: str) -> None:
        self._storage = storage
        self._inner = inner
        self._partition = partition

    async def release(self) -> None:
        await self._storage.around(Call("release", self._partition), self._inner.release)


class FaultyStorage(WrappedStorage):
    """A storage whose calls fail from the `fail_at`-th on: that one only, or all that follow as well.

    What releases something does release it, and then fails: no system keeps a handle whose close failed.

    Args:
        inner: The storage.
        fail_at: Number of the call that fails, from 1; 0 for none.
        once: Whether only that call fails.
        code: The error number.
        keep: Part of the bytes that a failed write leaves in the blob, from 0.0 to 1.0.
        only: Which calls count.

    Attributes:
        count: Calls so far.
    """

    def __init__(
        self,
        inner: Storage,
        fail_at: int = 0,
        *,
        once: bool = True,
        code: int = errno.EIO,
        keep: float = 0.0,
        only: Callable[[Call], bool] = lambda _: True,
    ) -> None:
        super().__init__(inner)
        self.fail_at = fail_at
        self._once = once
        self._code = code
        self._keep = keep
        self._only = only
        self.count = 0

    @property
    def has_failed(self) -> bool:
        """Whether a call has failed."""
        return 0 < self.fail_at <= self.count

    async def around(self, call: Call, go_on: Callable[[], Awaitable[T]]) -> T:
        if not self._only(call):
            return await go_on()
        self.count += 1
        if not self.has_failed or (self._once and self.count > self.fail_at):
            return await go_on()
        if call.what in {"close", "release"}:
            await go_on()
        if call.data and call.blob is not None and self._keep:
            await call.blob.write_at(call.offset, call.data[: int(len(call.data) * self._keep)])
        raise StorageError(call.partition, call.name, self._code, call.what)


class GatedStorage(WrappedStorage):
    """A storage that holds calls, before they take effect, until the test lets them go.

    Attributes:
        held: The calls that wait, in the order in which they were made.
    """

    def __init__(self, inner: Storage) -> None:
        super().__init__(inner)
        self._holds: Callable[[Call], bool] = lambda _: False
        self._waiting: deque[tuple[Call, asyncio.Future[None]]] = deque()
        self._arrived = asyncio.Event()

    @property
    def held(self) -> list[Call]:
        return [call for call, gate in self._waiting if not gate.done()]

    def hold(self, holds: Callable[[Call], bool]) -> None:
        """Hold the calls of which `holds` is true from now on."""
        self._holds = holds

    async def until_held(self) -> Call:
        """Wait until a call is held, and return the one that came first."""
        async with asyncio.timeout(30):  # a call that never comes fails the test instead of stopping it
            while not self.held:
                self._arrived.clear()
                await self._arrived.wait()
        return self.held[0]

    def let_go(self) -> None:
        """Let the call go that came first."""
        while self._waiting:
            _, gate = self._waiting.popleft()
            if not gate.done():
                gate.set_result(None)
                return

    def let_all_go(self) -> None:
        """Let all calls go, and hold none any more."""
        self._holds = lambda _: False
        while self._waiting:
            self.let_go()

    async def around(self, call: Call, go_on: Callable[[], Awaitable[T]]) -> T:
        if self._holds(call):
            gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((call, gate))
            self._arrived.set()
            await gate
        return await go_on()


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to a call: "begin", then "end" or "fail"."""

    phase: str
    call: Call


class RecordingStorage(WrappedStorage):
    """A storage that writes down what is called, and when it is done.

    Attributes:
        events: Beginnings and ends of all calls, in order.
    """

    def __init__(self, inner: Storage) -> None:
        super().__init__(inner)
        self.events: list[Event] = []

    def calls(self, only: Callable[[Call], bool] = lambda _: True) -> list[Call]:
        """Return the calls that were begun, of which `only` is true."""
        return [event.call for event in self.events if event.phase == "begin" and only(event.call)]

    async def around(self, call: Call, go_on: Callable[[], Awaitable[T]]) -> T:
        self.events.append(Event("begin", call))
        try:
            result = await go_on()
        except BaseException:
            self.events.append(Event("fail", call))
            raise
        self.events.append(Event("end", call))
        return result
