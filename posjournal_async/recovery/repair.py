"""Doing it: the third step of an opening, in an order in which a crash at any point does no harm."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from posjournal_async.errors import Corruption
from posjournal_async.format.header import Header
from posjournal_async.recovery.facts import look_at
from posjournal_async.sections import closed_on_error
from posjournal_async.tail import Tail

if TYPE_CHECKING:
    from array import array

    from posjournal_async.checkpoint import Checkpoint
    from posjournal_async.offsets import OffsetsJournal
    from posjournal_async.recovery.facts import Facts
    from posjournal_async.recovery.plan import Plan, Rewrite
    from posjournal_async.sections import Sections

__all__ = ["RecoveryReport", "finish_reset", "repair"]

# Bytes copied between two awaits.
_COPY_PIECE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What opening a journal found and did.

    Attributes:
        items_found: Items that are retained.
        items_dropped: Items that could be read but lay behind a gap, above the durable size.
        bytes_cut: Bytes cut off data blobs: torn records, and space allocated in advance.
        offsets_rebuilt: Sections whose index was missing or said something else than the data.
        sections_removed: Data blobs removed: what an interrupted prune, rewind or creation left.
        reset_finished: Whether an `init_at_size` that was interrupted was finished.
        clean: Whether nothing had to be changed.
        notes: What else a person should know.
    """

    items_found: int = 0
    items_dropped: int = 0
    bytes_cut: int = 0
    offsets_rebuilt: int = 0
    sections_removed: int = 0
    reset_finished: bool = False
    clean: bool = True
    notes: tuple[str, ...] = ()

    def told(self) -> str:
        """Say what was done as one line: the fields that say something, in their order."""
        found = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in {"clean", "notes"}}
        said = [f"{name}={value}" for name, value in found.items() if value or name == "items_found"]
        return ", ".join([*said, *self.notes])


async def repair(
    plan: Plan, facts: Facts, data: Sections, offsets: OffsetsJournal, checkpoint: Checkpoint
) -> tuple[Tail | None, RecoveryReport]:
    """Carry out a plan; return the last section, open, if it can still grow, and what was done."""
    await checkpoint.confirm()
    if plan.finishes_reset:  # a crash came before `finish_reset` had written it there
        await checkpoint.repeat()
    await data.remove(plan.prune_data)
    await data.remove_from_end(plan.drop_data)
    for rewrite in plan.rewrites:
        await _write_again(data, rewrite)
    await offsets.remove(plan.prune_offsets)
    await offsets.remove(plan.drop_offsets)
    tail = None
    rebuilt = 0
    async with AsyncExitStack() as stack:
        for section in plan.align:
            header, starts, end = await _records_of(data, facts, section)
            was_synced = 0 < len(starts) <= plan.was_durable - header.first
            index, is_other = await offsets.align(header, starts, was_synced=was_synced)
            rebuilt += is_other
            if section == plan.tail:
                await stack.enter_async_context(closed_on_error(index))
                blob, _ = await data.open(section)
                await stack.enter_async_context(closed_on_error(blob))
                tail = Tail(header, starts, end)
                tail.index, tail.indexed = index, len(starts)
                tail.put_into(blob)
            else:
                await index.close()
        await checkpoint.store(durable=plan.size, boundary=plan.boundary, codec=plan.codec)
    report = RecoveryReport(
        items_found=plan.size - plan.boundary,
        items_dropped=plan.items_dropped,
        bytes_cut=sum(rewrite.length - rewrite.end for rewrite in plan.rewrites),
        offsets_rebuilt=rebuilt,
        sections_removed=len(plan.prune_data) + len(plan.drop_data),
        reset_finished=plan.finishes_reset,
        clean=plan.is_clean and not rebuilt and not plan.notes,
        notes=plan.notes,
    )
    return tail, report


async def _write_again(data: Sections, rewrite: Rewrite) -> None:
    """Cut a blob and make what is left durable, whatever the page cache believes of it.

    After a failed fsync the pages of a file may be marked clean and never reach the device although reads show them,
    and the next fsync succeeds (Rebello et al., "Can Applications Recover from fsync Failures?", 2020). Writing them
    makes them dirty again.
    """
    async with data.opened(rewrite.section) as (blob, _):
        # Also where it has that length already: a rewind that was killed may have cut it and not synced it.
        await blob.resize(rewrite.end)
        await blob.sync()
        for start in range(rewrite.start, rewrite.end, _COPY_PIECE):
            await blob.write_at(start, await blob.read_at(start, min(_COPY_PIECE, rewrite.end - start)))
        if rewrite.start < rewrite.end:
            await blob.sync()


async def _records_of(data: Sections, facts: Facts, section: int) -> tuple[Header, array[int], int]:
    found = facts.sections[section]
    if found.scan is None:  # counted before, and too many to keep
        found = await look_at(data, section)
    header, scan = found.header, found.scan
    if not isinstance(header, Header) or scan is None:
        raise Corruption("header", "one that checks out", "another than before", data.partition, section, 0)
    return header, scan.starts, scan.end


async def finish_reset(checkpoint: Checkpoint, data: Sections, offsets: OffsetsJournal, codec: str) -> None:
    """Remove everything that was there before a reset, then record that it is done; that it was begun is durable.

    Args:
        checkpoint: The checkpoint, which says where to.
        data: What is removed first.
        offsets: What is removed then.
        codec: Name of the codec of the items to come.
    """
    target = checkpoint.slot.reset
    assert target is not None
    await data.remove_all()
    await offsets.remove_all()
    await checkpoint.store(durable=target, boundary=target, reset=None, codec=codec)
    # Once more, in the place of the slot with the reset: if the device loses the one above, that would be done again,
    # and take the items that only `sync_data` has made durable since.
    await checkpoint.repeat()
