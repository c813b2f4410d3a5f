"""`CrashStorage`: blobs in memory that remember what was synced, and what a crash may leave of the rest.

A power cut keeps what the protocol says is durable and decides anew about everything else: each write since the last
sync of its blob is there whole, torn at a byte, without its first sectors, there as zeros (the length arrived and the
bytes did not), or lost; each resize is there or lost; so is each creation or removal whose call had not returned. A
kill loses nothing that reached the page cache, and makes nothing durable either: what was pending stays pending, for a
power cut after it.

Calls that change something are counted. A test either lets the power go at call k (`crash_at`), or looks at the storage
in each of its calls (`on_call`) and takes a `photo` to crash later: one run then gives all crash points.

Deterministic: whatever is left to chance comes from the `random.Random` that the test hands in.
"""

from __future__ import annotations

import asyncio
import enum
import errno
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from posjournal_async.errors import JournalLocked, StorageError
from posjournal_async.storage.protocols import check_blob_name, check_partition_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path
    from random import Random

    from typing_extensions import Buffer

__all__ = ["CrashStorage", "Luck", "PowerCut"]


# Bytes that a device writes in one go, from the first to the last: no byte is there without those before it.
SECTOR = 512


class PowerCut(Exception):
    """The machine is off: what every call to the storage gets from then on."""


class Luck(enum.Enum):
    """What becomes of what is not durable."""

    NONE = "all of it is lost"
    ALL = "all of it is there"
    SOME = "chance decides about each piece"


@dataclass(frozen=True, slots=True)
class _Change:
    """A write of `data` at `at`, or with None a resize to `at`, in bytes."""

    at: int
    data: bytes | None = None

    def apply(self, content: bytearray) -> None:
        content.extend(bytes(max(0, self.at - len(content))))
        if self.data is None:
            del content[self.at :]
        else:
            content[self.at : self.at + len(self.data)] = self.data


@dataclass(slots=True, eq=False)
class _File:
    """What a blob holds.

    Attributes:
        durable: What is on the device for certain.
        visible: What a read gives.
        pending: What was done since the last sync, in order.
        settled: How many changes were settled before those.
        under_way: The change that is being made: pending already, and not visible yet.
    """

    durable: bytearray = field(default_factory=bytearray)
    visible: bytearray = field(default_factory=bytearray)
    pending: list[_Change] = field(default_factory=list[_Change])
    settled: int = 0
    under_way: _Change | None = None

    def copy(self) -> _File:
        return _File(self.durable[:], self.visible[:], self.pending[:], self.settled, self.under_way)

    def after_power_cut(self, rng: Random, luck: Luck) -> _File:
        content = self.durable[:]
        for change in self.pending:
            left = change if luck is Luck.ALL else None if luck is Luck.NONE else _left_of(change, content, rng)
            if left is not None:
                left.apply(content)
        return _File(content, content[:])

    def after_kill(self, rng: Random) -> _File:
        copy = self.copy()
        if copy.under_way is not None:  # the call was interrupted: before, after, or in the middle
            copy.pending.remove(copy.under_way)
            left = _torn(copy.under_way, rng) if rng.random() < 0.7 else None
            if left is not None:
                left.apply(copy.visible)
                copy.pending.append(left)
            copy.under_way = None
        return copy


def _torn(change: _Change, rng: Random) -> _Change:
    if not change.data:
        return change
    # Any byte, and often one where the bytes mean something: a slot of the checkpoint is mostly padding.
    length = len(change.data)
    keep = rng.choice((1, 8, rng.randint(1, min(length, 80)), rng.randint(1, length), length - 1, length))
    return _Change(change.at, change.data[:keep])


def _left_of(change: _Change, content: bytearray, rng: Random) -> _Change | None:
    """Return what is left of a change after a power cut, None for nothing; `content` is what it would be made to."""
    fate = rng.randrange(6)
    if fate < 2 or (fate == 5 and change.data is None):
        return change
    if fate == 2:
        return None
    if change.data is None:
        return change
    if fate == 3:
        return _torn(change, rng)
    if fate == 4:  # later sectors arrived, earlier ones did not: what was there before is there still, or zeros
        skip = -change.at % SECTOR + SECTOR * rng.randrange(len(change.data) // SECTOR + 1)
        return _Change(change.at + skip, change.data[skip:]) if skip < len(change.data) else None
    # Zeros only where the blob grew: bytes in place are either the old ones or the new ones.
    end = change.at + len(change.data)
    return _Change(end) if end > len(content) else None


@dataclass(slots=True, eq=False)
class _Partition:
    """Names of blobs as they are seen, and as a power cut leaves them. They differ while a call is under way."""

    visible: dict[bytes, _File] = field(default_factory=dict[bytes, "_File"])
    durable: dict[bytes, _File] = field(default_factory=dict[bytes, "_File"])

    def names(self) -> list[bytes]:
        return sorted({*self.visible, *self.durable})


class CrashStorage:
    """A storage whose machine may crash.

    Attributes:
        calls: How many calls changed, or were to change, something.
        crash_at: The number of the call, from 1, in which the power goes; None for never.
        on_call: Called in each such call, when it is under way.
        log: What was done: the call, the partition, the blob's number, and a byte or a length where there is one.
        fail_sync: Partition in which the next sync fails, as it does when the device refused pages: they go on being
            visible, count as clean from then on, and are never written unless they are changed again.
    """

    def __init__(self) -> None:
        self._partitions: dict[str, _Partition] = {}
        self._locked: set[str] = set()
        self.is_down = False
        self.calls = 0
        self.crash_at: int | None = None
        self.on_call: Callable[[], None] | None = None
        self.log: list[tuple[str, str, int, int]] = []
        self.fail_sync: str | None = None

    # Crashing.

    def photo(self) -> CrashStorage:
        """Return a copy that shares nothing with this one: locks are free, and no handle leads to it."""
        return self._rebuilt(_File.copy)

    def killed(self, rng: Random) -> CrashStorage:
        """Return what is left when the process is killed: calls under way were made, half made or not made."""
        left = self._rebuilt(lambda file: file.after_kill(rng))
        for partition in left._partitions.values():
            for name in partition.names():
                before, after = partition.durable.get(name), partition.visible.get(name)
                if before is not after and rng.random() < 0.5:
                    _set(partition.visible, name, before)
        return left

    def power_cut(self, rng: Random, luck: Luck = Luck.SOME) -> CrashStorage:
        """Return what a power cut now leaves on the device."""
        left = self._rebuilt(lambda file: file.after_power_cut(rng, luck))
        for partition in left._partitions.values():
            for name in partition.names():
                before, after = partition.durable.get(name), partition.visible.get(name)
                if before is not after:
                    is_done = rng.random() < 0.5 if luck is Luck.SOME else luck is Luck.ALL
                    _set(partition.visible, name, after if is_done else before)
            partition.durable = dict(partition.visible)
        return left

    def _rebuilt(self, left_of: Callable[[_File], _File]) -> CrashStorage:
        other = CrashStorage()
        made: dict[int, _File] = {}
        for name, partition in self._partitions.items():
            for file in (*partition.visible.values(), *partition.durable.values()):
                if id(file) not in made:
                    made[id(file)] = left_of(file)
            other._partitions[name] = _Partition(
                {key: made[id(file)] for key, file in partition.visible.items()},
                {key: made[id(file)] for key, file in partition.durable.items()},
            )
        return other

    # Looking.

    def tree(self) -> dict[tuple[str, str], bytes]:
        """Return what can be read, by partition and name in hex."""
        return {
            (name, blob.hex()): bytes(file.visible)
            for name, partition in sorted(self._partitions.items())
            for blob, file in sorted(partition.visible.items())
        }

    def durable_tree(self) -> dict[tuple[str, str], bytes]:
        """Return what the worst power cut leaves."""
        return {
            (name, blob.hex()): bytes(file.durable)
            for name, partition in sorted(self._partitions.items())
            for blob, file in sorted(partition.durable.items())
        }

    @classmethod
    def holding(cls, blobs: Mapping[tuple[str, str], bytes]) -> CrashStorage:
        """Return a storage that holds these blobs, durably; the keys are those of `tree`."""
        storage = cls()
        for (partition, name), content in blobs.items():
            there = storage._partitions.setdefault(partition, _Partition())
            file = _File(bytearray(content), bytearray(content))
            there.visible[bytes.fromhex(name)] = there.durable[bytes.fromhex(name)] = file
        return storage

    @classmethod
    def of_files(cls, root: Path) -> CrashStorage:
        """Return a storage that holds, durably, what a `FileStorage` has under `root`."""
        return cls.holding({(path.parent.name, path.name): path.read_bytes() for path in sorted(root.glob("*/*"))})

    def to_files(self, root: Path) -> None:
        """Write what can be read as a `FileStorage` would."""
        for (partition, name), content in self.tree().items():
            (root / partition).mkdir(parents=True, exist_ok=True)
            (root / partition / name).write_bytes(content)

    # The protocol.

    async def open(self, partition: str, name: bytes) -> tuple[_CrashBlob, int]:
        """Open a blob, creating it durably if it is missing."""
        check_partition_name(partition)
        check_blob_name(name)
        self.check_power()
        names = self._partitions.setdefault(partition, _Partition())
        file = names.visible.get(name)
        if file is None:
            file = names.visible[name] = _File()
            self.begin("create", partition, name)
            await asyncio.sleep(0)
            self.check_power()
            names.durable = dict(names.visible)
        return _CrashBlob(self, partition, name, file), len(file.visible)

    async def remove(self, partition: str, name: bytes | None) -> None:
        """Remove a blob or a partition, durably."""
        check_partition_name(partition)
        names = list(self._partitions.get(partition, _Partition()).visible) if name is None else [name]
        await self.remove_many(partition, names)

    async def remove_many(self, partition: str, names: Sequence[bytes]) -> None:
        """Remove blobs; while this is under way a crash may find any of the removals done."""
        check_partition_name(partition)
        for name in names:
            check_blob_name(name)
        self.check_power()
        there = self._partitions.get(partition)
        if there is None:
            return
        present = [name for name in names if there.visible.pop(name, None) is not None]
        if present:
            self.begin("remove", partition, present[0])
        await asyncio.sleep(0)
        self.check_power()
        there.durable = dict(there.visible)

    async def scan(self, partition: str) -> list[bytes]:
        """Return the names of the blobs of a partition, which are durable from then on."""
        check_partition_name(partition)
        self.check_power()
        names = self._partitions.get(partition, _Partition())
        await asyncio.sleep(0)
        names.durable = dict(names.visible)
        return list(names.visible)

    async def lock(self, partition: str) -> _CrashLock:
        """Become the one writer of a partition."""
        check_partition_name(partition)
        self.check_power()
        await asyncio.sleep(0)
        if partition in self._locked:
            raise JournalLocked(partition)
        return _CrashLock(self._locked, partition)

    # For the blobs.

    def check_power(self) -> None:
        """Raise if the machine is off."""
        if self.is_down:
            raise PowerCut

    def begin(self, call: str, partition: str, name: bytes, number: int = 0) -> None:
        """Note a call that is under way, and let the power go if it is time."""
        self.log.append((call, partition, int.from_bytes(name), number))
        self.calls += 1
        if self.on_call is not None:
            self.on_call()
        if self.calls == self.crash_at:
            self.is_down = True
        self.check_power()


def _set(names: dict[bytes, _File], name: bytes, file: _File | None) -> None:
    if file is None:
        names.pop(name, None)
    else:
        names[name] = file


class _CrashBlob:
    def __init__(self, storage: CrashStorage, partition: str, name: bytes, file: _File) -> None:
        self._storage = storage
        self._partition = partition
        self._name = name
        self._file = file
        self._is_open = True

    async def read_at(self, offset: int, length: int) -> bytes:
        self._check()
        found = bytes(self._file.visible[offset : offset + length])
        await asyncio.sleep(0)
        return found

    async def write_at(self, offset: int, data: Buffer) -> None:
        written = bytes(data)
        if written:
            await self._change("write", offset, _Change(offset, written))

    async def resize(self, length: int) -> None:
        await self._change("resize", length, _Change(length))

    async def _change(self, call: str, number: int, change: _Change) -> None:
        self._check()
        file = self._file
        file.pending.append(change)
        file.under_way = change
        self._storage.begin(call, self._partition, self._name, number)
        change.apply(file.visible)
        file.under_way = None
        await asyncio.sleep(0)
        self._storage.check_power()

    async def sync(self) -> None:
        self._check()
        file = self._file
        self._storage.begin("sync", self._partition, self._name)
        covered = file.settled + len(file.pending)
        await asyncio.sleep(0)
        self._storage.check_power()
        if self._storage.fail_sync == self._partition:
            self._storage.fail_sync = None
            file.pending = [change for change in file.pending if change.data is None]
            raise StorageError(self._partition, self._name, errno.EIO, "sync")
        _settle(file, range(file.settled, covered))

    async def close(self) -> None:
        self._is_open = False
        await asyncio.sleep(0)

    def _check(self) -> None:
        self._storage.check_power()
        if not self._is_open:
            raise StorageError(self._partition, self._name, errno.EBADF, "use after close")


def _settle(file: _File, changes: Iterable[int]) -> None:
    for _ in changes:
        file.pending.pop(0).apply(file.durable)
        file.settled += 1


class _CrashLock:
    def __init__(self, locked: set[str], partition: str) -> None:
        locked.add(partition)
        self._locked = locked
        self._partition = partition
        self._is_held = True

    async def release(self) -> None:
        if self._is_held:
            self._is_held = False
            self._locked.discard(self._partition)
        await asyncio.sleep(0)
