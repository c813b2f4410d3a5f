"""Ending a journal: closing it, or removing all of it.

The writer carries these out as its last turn, with nothing beside them. Whatever fails, everything is released.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from posjournal_async.commit import Refusal
from posjournal_async.errors import JournalFailed, StorageError
from posjournal_async.waiting import release_beside

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from posjournal_async.commit import Writer
    from posjournal_async.parts import Parts
    from posjournal_async.storage.protocols import Lock, Storage

__all__ = ["Ending"]


class Ending:
    """Closes or destroys one journal.

    Attributes:
        is_released: Whether everything was released; what an interruption left is released by closing again.
    """

    def __init__(  # noqa: PLR0913 - what it releases
        self,
        parts: Parts,
        writer: Writer,
        *,
        storage: Storage,
        partition: str,
        lock: Lock,
        on_release: Callable[[], None],
    ) -> None:
        self._data = parts.data
        self._offsets = parts.offsets
        self._checkpoint = parts.checkpoint
        self._sealed = parts.sealed
        self._writer = writer
        self._storage = storage
        self._partition = partition
        self._lock = lock
        self._on_release = on_release
        self.is_released = False

    async def close(self) -> None:
        """Make everything durable unless the journal has failed, and release it."""
        if self.is_released:
            return  # by a call before this one, whose caller was interrupted
        if self._writer.failure is None:
            await self._release_after(self._writer.commit_all)
            return
        failed = JournalFailed(self._partition, self._writer.failure)
        await release_beside(failed, self._release, "releasing the journal")
        raise Refusal(failed)

    async def destroy(self) -> None:
        """Put the end on record, then remove data, offsets and checkpoint in that order, and release everything."""
        await self._release_after(self._remove_all)

    async def _remove_all(self) -> None:
        self._writer.check_sound()
        slot = self._checkpoint.slot
        await self._checkpoint.write(replace(slot, sequence=slot.sequence + 1, durable=0, boundary=0, reset=0))
        await self._close_blobs()
        await self._data.sections.remove_all()
        await self._offsets.remove_all()
        await self._storage.remove(f"{self._partition}_checkpoint", None)

    async def _close_blobs(self) -> None:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._sealed.close)
            for blob in self._data.blobs():
                stack.push_async_callback(blob.close)

    async def _release_after(self, step: Callable[[], Awaitable[None]]) -> None:
        """Take a step, then release everything; if the step fails, that is what is told, whatever else fails."""
        try:
            await step()
        except BaseException as error:
            await release_beside(error, self._release, "releasing the journal")
            raise
        await self._release()

    async def _release(self) -> None:
        """Release everything, whatever fails; the lock last, when no file is open any more.

        Doing it again releases what an interruption left.
        """
        errors: list[Exception] = []
        for release in (self._close_blobs, self._checkpoint.close, self._lock.release):
            try:
                await release()
            except Exception as error:  # noqa: BLE001 - raised below, when everything was released
                errors.append(error)
        self.is_released = all(isinstance(error, StorageError) for error in errors)
        self._on_release()
        if errors:
            raise errors[0]
