"""What a walk has given of one section, and whether it is still there: what a walk gives may have to be of one history.

A section is looked at again after the next one was read, and the last one at the end. If its blob has the salt that it
had, it was not removed since it was opened, and then no blob before it was touched: see `remembered`. So what was given
up to it is what the journal held at that moment, the section before being there when this one had been opened.

Where the checkpoint has vouched all the while for what was given, nothing has to be read for that.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

from posjournal_async.errors import ItemPruned, PositionError
from posjournal_async.format.header import Header
from posjournal_async.inspection.entries import Replaced
from posjournal_async.inspection.present import opened_if_there
from posjournal_async.inspection.watch import Watch
from posjournal_async.sections import read_header

if TYPE_CHECKING:
    from collections.abc import Callable

    from posjournal_async.storage.protocols import Blob, Storage

__all__ = ["OneHistory", "Rewritten"]


class Rewritten(PositionError):
    """Items were read that a rewind has discarded since: what was read before and after may be of two histories.

    Attributes:
        position: One that was read; what was discarded begins there, before it, or less than 256 KiB behind it.
        partition: Base name of the journal.
    """

    def __init__(self, position: int, partition: str) -> None:
        super().__init__(position, partition)
        self.partition = partition

    def __str__(self) -> str:
        found = f"that a rewind has discarded some, of those around position {self.position}"
        return f"journal: expected all items that were read, found {found} (partition {self.partition})"


@dataclass(frozen=True, slots=True)
class _Run:
    """Records that were given.

    Attributes:
        salt: Salt of their blob.
        position: Position of the first.
        start: Byte at which it starts.
        length: Bytes of all of them.
        digest: Stands for these bytes.
    """

    salt: int
    position: int
    start: int
    length: int
    digest: bytes

    async def is_in(self, blob: Blob) -> bool:
        """Say whether the blob has these bytes."""
        return _digest_of(await blob.read_at(self.start, self.length)) == self.digest


def _digest_of(records: bytes) -> bytes:
    # No CRC: each record has its own in it, which another record of the same length makes up for.
    return blake2b(records, digest_size=16).digest()


class _Given:
    """What was given of one section. A run of at most 256 KiB, or one record, is remembered by a hundred bytes or so.

    Attributes:
        section: Section number.
        stop: Position before which the walk leaves the section.
        watch: The checkpoint, since before the section was opened.
        runs: What was given.
    """

    def __init__(self, section: int, stop: int, watch: Watch) -> None:
        self.section = section
        self.stop = stop
        self.watch = watch
        self.runs: list[_Run] = []

    def note(self, salt: int, position: int, start: int, records: bytes) -> None:
        """Remember records that are given; see `entries_of`."""
        self.runs.append(_Run(salt, position, start, len(records), _digest_of(records)))

    async def first_lost(self, storage: Storage, partition: str) -> int | None:
        """Return the position of the first run that is not there any more; None if all are."""
        async with opened_if_there(storage, partition, self.section) as found:
            if found is None:
                return self.runs[0].position
            blob, length = found
            header = await read_header(blob, length)
            for run in self.runs:
                if not isinstance(header, Header) or header.salt != run.salt or not await run.is_in(blob):
                    return run.position
        return None


class OneHistory:
    """Sees whether all that a walk gives was in the journal at one moment. To be closed.

    Args:
        storage: Where the journal is.
        partition: Its base name.
    """

    def __init__(self, storage: Storage, partition: str) -> None:
        self._storage = storage
        self._partition = partition
        self._before: _Given | None = None  # the newest section of which something was given, but for the current one
        self._current: _Given | None = None

    async def begin(self, section: int, stop: int) -> Callable[[int, int, int, bytes], None]:
        """Return what is to note the records of the next section, before it is opened.

        Args:
            section: Section number.
            stop: Position before which the walk leaves it.
        """
        self._current = _Given(section, stop, Watch(self._storage, self._partition))
        await self._current.watch.open()
        return self._current.note

    async def end(self) -> None:
        """Look whether the section before is as it was given, now that another one was read.

        Raises:
            Rewritten, ItemPruned, Replaced: As `check`.
        """
        assert self._current is not None
        if self._current.runs:
            await self.check()
            self._before, self._current = self._current, self._before
        # Else nothing binds what comes to the section before, which goes on to answer for all that was given.
        if self._current is not None:
            await self._current.watch.close()
            self._current = None

    async def check(self) -> None:
        """Look whether the newest section that is over is as it was given, and with it all that was given up to it.

        Raises:
            Rewritten: A rewind has discarded it, or some of it.
            ItemPruned: It was pruned meanwhile, and nothing tells whether it was rewound before.
            Replaced: The journal was reset or destroyed.
        """
        given = self._before
        if given is None:
            return
        watch = given.watch
        await watch.look()
        if not watch.is_other and not watch.has_gap and given.stop <= watch.low:
            return
        lost = await given.first_lost(self._storage, f"{self._partition}_data")
        if lost is None:
            return
        await watch.look()
        if watch.is_other:
            raise Replaced(lost, self._partition)
        if lost < watch.boundary:
            raise ItemPruned(lost, watch.boundary)
        raise Rewritten(lost, self._partition)

    async def close(self) -> None:
        """Release what is open."""
        for given in (self._before, self._current):
            if given is not None:
                await given.watch.close()
