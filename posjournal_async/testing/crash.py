"""`CrashStorage`: blobs in memory that remember what was synced, and what a crash may leave of the rest.

A power cut keeps what the protocol says is durable and decides anew about everything else: each write since the last
sync of its blob is there whole, torn at a byte, without some of its sectors, there as zeros (the length arrived and the
bytes did not), or lost; each resize is there or lost; so is each creation or removal whose call had not returned; all
of that in any combination. Real file systems keep more order than that, and none of it is promised.

A kill loses nothing that reached the page cache, and makes nothing durable either: what was pending stays pending, for
a power cut after it.

Calls that change something are counted. A test either lets the power go at call k (`crash_at`), or looks at the storage
in each of its calls (`on_call`) and takes a `photo` to crash later: one run then gives all crash points.

Deterministic: whatever is left to chance comes from the seed or the `random.Random` that the test hands in.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import re
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from posjournal_async.errors import JournalLocked, StorageError
from posjournal_async.storage.protocols import PARTITION_NAME, check_blob_name, check_partition_name
from posjournal_async.testing.pages import Change, File, Luck

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from typing_extensions import Buffer

__all__ = ["CrashStorage", "Luck", "PowerCut"]

_BLOB_FILE = re.compile(r"(?:[0-9a-f]{2}){1,64}")


class PowerCut(Exception):
    """The machine is off: what every call to the storage gets from then on."""


@dataclass(slots=True, eq=False)
class _Partition:
    """Names of blobs as they are seen, and as a power cut leaves them. They differ while a call is under way."""

    visible: dict[bytes, File] = field(default_factory=dict[bytes, "File"])
    durable: dict[bytes, File] = field(default_factory=dict[bytes, "File"])

    def names(self) -> list[bytes]:
        return sorted({*self.visible, *self.durable})


class CrashStorage:
    """A storage whose machine may crash: it remembers what was synced, and gives out what a crash may leave.

    Attributes:
        calls: How many calls changed, or were to change, something.
        crash_at: The number of the call, from 1, in which the power goes; None for never.
        on_call: Called in each such call, when it is under way.
        log: What was done: the call, the partition, the blob's number, and a byte or a length where there is one.
        fail_sync: Partition in which the next sync fails, as it does when the device refused pages: they go on being
            visible, count as clean from then on, and are never written unless they are changed again.

    Example:
        >>> import asyncio
        >>> from posjournal_async import Config, Context, Journal
        >>> from posjournal_async.testing import CrashStorage
        >>> async def main() -> None:
        ...     storage, config = CrashStorage(), Config(partition="orders")
        ...     journal = await Journal.init(Context(storage), config)
        ...     await journal.append("paid")
        ...     await journal.sync_data()
        ...     await journal.append("sent")
        ...     for left in storage.states():
        ...         async with await Journal.init(Context(left), config) as again:
        ...             print(again.bounds(), await again.read(0))
        ...     await journal.close()
        >>> asyncio.run(main())
        range(0, 1) paid
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
        """Return a copy that does not change with this one: locks are free, and no handle leads to it."""
        return self._rebuilt({file: file.copy() for file in self._files()})

    def killed(self, rng: Random) -> CrashStorage:
        """Return what is left when the process is killed: calls under way were made, half made or not made."""
        left = self._rebuilt({file: file.after_kill(rng) for file in self._files()})
        left._decide_names([rng.random() < 0.5 for _ in left._open_names()])
        return left

    def power_cut(self, rng: Random, luck: Luck = Luck.SOME) -> CrashStorage:
        """Return one of the states in which a power cut now may leave the device."""
        left = self._rebuilt({file: file.after_power_cut(rng, luck) for file in self._files()})
        left._decide_names([rng.random() < 0.5 if luck is Luck.SOME else luck is Luck.ALL for _ in left._open_names()])
        left._settle_names()
        return left

    def states(self, limit: int = 1024, seed: int = 0) -> Iterator[CrashStorage]:
        """Yield the states in which a power cut now may leave the device.

        All of them, each once, if they are at most `limit`. Otherwise the one where everything pending is lost, the one
        where everything is there, and others by chance, `limit` in all; the same seed gives the same ones.

        Raises:
            ValueError: `limit` is below 2.
        """
        if limit < 2:
            raise ValueError(f"limit: expected at least 2 states, found {limit}")
        files = self._files()
        outcomes: list[list[bytes]] = []
        count = 2 ** len(self._open_names())
        for file in files:
            found = file.outcomes(limit)
            count = limit + 1 if found is None else count * len(found)
            if found is None or count > limit:
                rng = Random(seed)
                yield self.power_cut(rng, Luck.NONE)
                yield self.power_cut(rng, Luck.ALL)
                for _ in range(limit - 2):
                    yield self.power_cut(rng)
                return
            outcomes.append(found)
        for contents in itertools.product(*outcomes):
            for is_done in itertools.product((False, True), repeat=len(self._open_names())):
                made = {file: File.holding(content) for file, content in zip(files, contents, strict=True)}
                left = self._rebuilt(made)
                left._decide_names(is_done)
                left._settle_names()
                yield left

    def _files(self) -> list[File]:
        """Return each file that has a name, or would have one after a crash."""
        named = [(*partition.visible.values(), *partition.durable.values()) for partition in self._partitions.values()]
        return list(dict.fromkeys(itertools.chain.from_iterable(named)))

    def _open_names(self) -> list[tuple[_Partition, bytes]]:
        """Return the names about which a crash decides: of creations and removals that are under way."""
        return [
            (partition, name)
            for partition in self._partitions.values()
            for name in partition.names()
            if partition.visible.get(name) is not partition.durable.get(name)
        ]

    def _decide_names(self, is_done: Sequence[bool]) -> None:
        for (partition, name), is_kept in zip(self._open_names(), is_done, strict=True):
            if not is_kept:
                before = partition.durable.get(name)
                if before is None:
                    partition.visible.pop(name)
                else:
                    partition.visible[name] = before

    def _settle_names(self) -> None:
        for partition in self._partitions.values():
            partition.durable = dict(partition.visible)

    def _rebuilt(self, made: Mapping[File, File]) -> CrashStorage:
        other = CrashStorage()
        for name, partition in self._partitions.items():
            other._partitions[name] = _Partition(
                {key: made[file] for key, file in partition.visible.items()},
                {key: made[file] for key, file in partition.durable.items()},
            )
        return other

    # Looking.

    def tree(self) -> dict[tuple[str, str], bytes]:
        """Return what can be read, by partition and name in hex."""
        return {
            (name, blob.hex()): file.visible
            for name, partition in sorted(self._partitions.items())
            for blob, file in sorted(partition.visible.items())
        }

    def durable_tree(self) -> dict[tuple[str, str], bytes]:
        """Return what the worst power cut leaves."""
        return {
            (name, blob.hex()): file.durable
            for name, partition in sorted(self._partitions.items())
            for blob, file in sorted(partition.durable.items())
        }

    @classmethod
    def holding(cls, blobs: Mapping[tuple[str, str], bytes]) -> CrashStorage:
        """Return a storage that holds these blobs, durably; the keys are those of `tree`."""
        storage = cls()
        for (partition, name), content in blobs.items():
            there = storage._partitions.setdefault(partition, _Partition())
            file = File.holding(bytes(content))
            there.visible[bytes.fromhex(name)] = there.durable[bytes.fromhex(name)] = file
        return storage

    @classmethod
    def of_files(cls, root: Path) -> CrashStorage:
        """Return a storage that holds, durably, what a `FileStorage` has under `root`; files of others are left out."""
        blobs = [
            path
            for path in sorted(root.glob("*/*"))
            if PARTITION_NAME.fullmatch(path.parent.name) and _BLOB_FILE.fullmatch(path.name)
        ]
        return cls.holding({(path.parent.name, path.name): path.read_bytes() for path in blobs})

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
            file = names.visible[name] = File()
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
        self.check_power()
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


class _CrashBlob:
    def __init__(self, storage: CrashStorage, partition: str, name: bytes, file: File) -> None:
        self._storage = storage
        self._partition = partition
        self._name = name
        self._file = file
        self._is_open = True

    async def read_at(self, offset: int, length: int) -> bytes:
        self._check()
        found = self._file.visible[offset : offset + length]
        await asyncio.sleep(0)
        return found

    async def write_at(self, offset: int, data: Buffer) -> None:
        written = bytes(data)
        if written:
            await self._change("write", offset, Change(offset, written))

    async def resize(self, length: int) -> None:
        await self._change("resize", length, Change(length))

    async def _change(self, call: str, number: int, change: Change) -> None:
        self._check()
        file = self._file
        file.pending.append(change)
        file.under_way = change
        self._storage.begin(call, self._partition, self._name, number)
        file.visible = change.made_of(file.visible)
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
            kept = [change for change in file.pending if change.data is None]
            file.settled += len(file.pending) - len(kept)
            file.pending = kept
            raise StorageError(self._partition, self._name, errno.EIO, "sync")
        file.settle(covered)

    async def close(self) -> None:
        self._is_open = False
        await asyncio.sleep(0)

    def _check(self) -> None:
        self._storage.check_power()
        if not self._is_open:
            raise StorageError(self._partition, self._name, errno.EBADF, "use after close")


class _CrashLock:
    """The lock of a partition, held until it is released or nobody has this object any more, as a `FileLock` is."""

    def __init__(self, locked: set[str], partition: str) -> None:
        locked.add(partition)
        self._locked = locked
        self._partition = partition
        self._is_held = True

    def __del__(self) -> None:
        self._let_go()

    async def release(self) -> None:
        self._let_go()
        await asyncio.sleep(0)

    def _let_go(self) -> None:
        if self._is_held:
            self._is_held = False
            self._locked.discard(self._partition)
