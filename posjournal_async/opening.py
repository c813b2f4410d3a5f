"""From a storage to the parts of an open journal: lock, recover, assemble; or release everything again."""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import anyio

from posjournal_async.checkpoint import Checkpoint, read_slots
from posjournal_async.format.checkpoint_slot import Slot
from posjournal_async.offsets import OffsetsJournal
from posjournal_async.recovery.facts import observe
from posjournal_async.recovery.plan import Expectation, check_configuration, decide
from posjournal_async.recovery.repair import RecoveryReport, finish_reset, repair
from posjournal_async.sections import Sections

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from posjournal_async.checkpoint import SlotFacts
    from posjournal_async.config import Config, Context
    from posjournal_async.storage.protocols import Blob, Lock
    from posjournal_async.tail import Tail

# anyio reads this in at the first use of a task group, where it would keep the event loop waiting for the disk.
with suppress(ImportError):
    import_module("anyio._backends._asyncio")

__all__ = ["Opened", "open_at_size", "open_existing"]


@dataclass(frozen=True, slots=True)
class Opened:
    """A journal that was recovered, is locked, and has its files open.

    Attributes:
        lock: The right to write.
        checkpoint: The checkpoint, whose durable size is the size of the journal.
        sections: The blobs of the data.
        offsets: The offsets journal.
        tail: The last section if it can still grow and has a blob, else None.
        report: What was found and done.
    """

    lock: Lock
    checkpoint: Checkpoint
    sections: Sections
    offsets: OffsetsJournal
    tail: Tail | None
    report: RecoveryReport


async def open_existing(stack: AsyncExitStack, context: Context, config: Config[Any]) -> Opened:
    """Lock a journal, creating it if it is missing, and recover it. Unwinding `stack` releases everything again."""
    lock, blob, slots = await _locked(stack, context, config)
    sections = Sections(context.storage, f"{config.partition}_data")
    offsets = OffsetsJournal(context.storage, config.partition)
    codec = config.codec.name
    accepts = getattr(config.codec, "accepts", None)  # a ReadsOlder
    expectation = Expectation(config.partition, config.items_per_section, codec, accepts)
    if slots.current is not None and slots.current.reset is not None:
        check_configuration(slots.current, expectation)
        checkpoint = Checkpoint(blob, slots.current, slots.place)
        await checkpoint.confirm()
        await finish_reset(checkpoint, sections, offsets, codec)
        tail, report = None, RecoveryReport(reset_finished=True, clean=False)
    else:
        facts = await observe(slots, sections, offsets)
        if facts is None:
            slot = _first_slot(config, sequence=1, size=0, reset=None)
            checkpoint = Checkpoint(blob, slot, slots.place)
            await checkpoint.write(slot)
            tail, report = None, RecoveryReport()
        else:
            plan = decide(facts, expectation)
            checkpoint = Checkpoint(blob, facts.slot, slots.place)
            tail, report = await repair(plan, facts, sections, offsets, checkpoint)
    return Opened(lock, checkpoint, sections, offsets, tail, report)


async def open_at_size(stack: AsyncExitStack, context: Context, config: Config[Any], size: int) -> Opened:
    """Lock a journal and replace whatever it holds by nothing, at `size`. Unwinding `stack` releases it again.

    The reset is on record before anything is removed: a crash before that leaves the old journal, one after it is
    finished by the next open. A reset that was on record already is overridden. The new journal has an id of its own.
    """
    lock, blob, slots = await _locked(stack, context, config)
    sections = Sections(context.storage, f"{config.partition}_data")
    offsets = OffsetsJournal(context.storage, config.partition)
    sequence = 1 if slots.current is None else slots.current.sequence + 1
    slot = _first_slot(config, sequence=sequence, size=size, reset=size)
    checkpoint = Checkpoint(blob, slots.current or slot, slots.place)
    if slots.current is not None:
        await checkpoint.confirm()  # else a crash could tear the new one and lose the old one too
    await checkpoint.write(slot)
    await finish_reset(checkpoint, sections, offsets, slot.codec)
    return Opened(lock, checkpoint, sections, offsets, None, RecoveryReport())


async def _locked(stack: AsyncExitStack, context: Context, config: Config[Any]) -> tuple[Lock, Blob, SlotFacts]:
    # Where the module above was not it: better now than in the first sync, which would fail the journal if it could not
    # be read in.
    async with anyio.create_task_group():
        pass
    partition = f"{config.partition}_checkpoint"
    # In one line: an interruption between two would leave a lock that nobody releases.
    stack.push_async_callback((lock := await context.storage.lock(partition)).release)
    blob, slots = await read_slots(context.storage, partition)
    stack.push_async_callback(blob.close)
    return lock, blob, slots


def _first_slot(config: Config[Any], *, sequence: int, size: int, reset: int | None) -> Slot:
    journal_id = secrets.randbits(64)
    return Slot(sequence, journal_id, config.items_per_section, config.codec.name, size, size, reset)
