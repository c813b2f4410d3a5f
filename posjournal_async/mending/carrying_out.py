"""Doing what was planned, by opening the journal, after what was asked for besides.

What goes was set aside before (`quarantine`), under the same lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from posjournal_async.checkpoint import Checkpoint, read_slots
from posjournal_async.codecs import BytesCodec
from posjournal_async.config import Config, Context
from posjournal_async.journal import Journal
from posjournal_async.mending.cutting import cut_away
from posjournal_async.mending.plan import records_in
from posjournal_async.offsets import OffsetsJournal
from posjournal_async.storage.file import FileStorage

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from posjournal_async.mending.plan import Repair
    from posjournal_async.recovery.repair import RecoveryReport
    from posjournal_async.storage.protocols import Storage

__all__ = ["Unread", "carry_out"]


class _Lent:
    """A lock that the journal gives back to whoever lent it."""

    async def release(self) -> None:
        """Leave the lock to its owner."""


class _LockedFileStorage(FileStorage):
    """A storage whose lock is held by whoever made it."""

    async def lock(self, partition: str) -> Any:
        """Lend the lock."""
        del partition
        return _Lent()


async def carry_out(repair: Repair, root: Path, partition: str) -> RecoveryReport | None:
    """Do what was planned, by opening and closing the journal; return what opening said, None if there is no journal.

    The caller holds the lock of the journal. A crash at any step leaves a journal that opens, or needs the same repair
    again.
    """
    slot = repair.slot
    if slot is None:
        return None
    storage = _LockedFileStorage(root)
    if repair.cut is not None:
        await cut_away(storage, partition, repair.cut)
    await _reindex(storage, partition, repair.reindexed)
    config = Config(partition=partition, items_per_section=slot.items_per_section, codec=Unread(slot.codec))
    async with await Journal.init(Context(storage), config) as journal:
        report = journal.recovery
    await _mend_slot(storage, partition)
    return report


async def _reindex(storage: Storage, partition: str, sections: Sequence[int]) -> None:
    """Make the indexes of sealed sections anew, the first one first: opening mends a gap behind the first one."""
    offsets = OffsetsJournal(storage, partition)
    for section in sections:
        read = await records_in(storage, partition, section)
        assert read is not None, "planned under the same lock"
        header, scan = read
        index, _ = await offsets.align(header, scan.starts, was_synced=False)
        await index.close()


async def _mend_slot(storage: Storage, partition: str) -> None:
    """Write the checkpoint once more, in the place of the slot that does not check out, if there is one."""
    blob, slots = await read_slots(storage, f"{partition}_checkpoint")
    try:
        if slots.current is not None and slots.damaged:
            checkpoint = Checkpoint(blob, slots.current, slots.place)
            await checkpoint.confirm()
            await checkpoint.repeat()
    finally:
        await blob.close()


class Unread(BytesCodec):
    """A codec that is never asked: opening looks at no item, only at the name.

    Attributes:
        name: Name that the journal records.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def accepts(self, name: str) -> bool:
        """Accept sections under any name: those of an older version of the codec."""
        del name
        return True
