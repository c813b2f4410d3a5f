"""The durable steps: what is appended becomes durable, and a full section is sealed, in an order that no crash upsets.

Each step is of the oldest unsealed section, and the writer takes one after the other. The order:

* A section's blobs are created, durably, before its first record is written (`_create`).
* Data is durable before a size is reported as durable (`commit_data`, `_sync_data`).
* Data and offsets are durable before the checkpoint vouches for them (`commit_all`).
* A section is committed as a whole before the blobs of the next one are created (`seal`: the next one is the oldest
  only then).
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from posjournal_async.errors import StorageError
from posjournal_async.sealed_section import SealedSection
from posjournal_async.waiting import both

if TYPE_CHECKING:
    from collections.abc import Callable

    from posjournal_async.config import Context
    from posjournal_async.parts import Parts
    from posjournal_async.tail import Tail

__all__ = ["Steps"]


class Steps:
    """Takes the durable steps of one journal, and tells how far each has brought it.

    `on_durable` is called with the size that is durable now, `on_vouched` with the one that the checkpoint vouches for.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        context: Context,
        on_durable: Callable[[int], object],
        on_vouched: Callable[[int], object],
    ) -> None:
        self._data = parts.data
        self._offsets = parts.offsets
        self._checkpoint = parts.checkpoint
        self._sealed = parts.sealed
        self._metrics = context.metrics
        self._label = context.label
        self._on_durable = on_durable
        self._on_vouched = on_vouched

    async def write(self) -> None:
        """Hand what is buffered to the storage."""
        tail = self._data.oldest
        await self._create(tail)
        self._metrics.count("bytes_written", tail.unhanded, self._label)
        await self._data.write(tail)

    async def commit_data(self) -> None:
        """Make what is buffered durable: one write, one fsync, whoever waits for it."""
        tail = self._data.oldest
        await self._create(tail)
        self._metrics.count("bytes_written", tail.unhanded, self._label)
        self._on_durable(await self._data.write_durably(tail))

    async def commit_all(self) -> None:
        """Make what is buffered durable, and its offsets; then let the checkpoint vouch for both."""
        tail = self._data.oldest
        size = tail.size
        if size == self._checkpoint.slot.durable:
            return
        await self._create(tail)
        # The offsets may become durable first: recovery believes nothing that they say about an unsealed section.
        await both(partial(self._sync_data, tail), partial(self._offsets.sync, tail))
        await self._checkpoint.store(durable=size, boundary=self._checkpoint.slot.boundary)
        self._on_vouched(size)

    async def _sync_data(self, tail: Tail) -> None:
        if tail.unsynced:  # else there is nothing to commit
            self._metrics.count("bytes_written", tail.unhanded, self._label)
            self._on_durable(await self._data.write_durably(tail))

    async def seal(self) -> None:
        """Commit the oldest section as a whole, and keep it for reading."""
        await self.commit_all()
        tail = self._data.oldest
        assert tail.blob is not None
        assert tail.index is not None
        await tail.index.close()
        self._data.seal_oldest()
        self._sealed.keep(SealedSection(tail.header, tail.blob, tail.starts, tail.end))
        self._metrics.count("sections_sealed", 1, self._label)

    async def come_to_rest(self) -> None:
        """Return when no write goes on that was begun by a step, which may have been cancelled."""
        for blob in (*self._data.blobs(), self._checkpoint.blob):
            with suppress(StorageError):  # it was closed, which is as good; or it cannot be read
                await blob.read_at(0, 1)  # in its turn

    async def _create(self, tail: Tail) -> None:
        """Make the blobs of a section if they are missing; the one before it is sealed.

        At the same time: if a crash leaves an index without data, recovery removes it.
        """
        if tail.blob is None:
            await both(partial(self._data.create, tail), partial(self._offsets.create, tail))
