"""The monitor of the order of durable steps: it sees each step that a crash could punish, and nothing else."""

from __future__ import annotations

import asyncio
import errno
import random
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pytest
from typing_extensions import override

from posjournal_async import BytesCodec, Config, Context, FileStorage, Journal, JournalError, MemoryStorage
from posjournal_async.errors import StorageError
from posjournal_async.format.checkpoint_slot import SLOT_LENGTH, Slot
from posjournal_async.format.header import HEADER_LENGTH, Header, Kind
from posjournal_async.format.record import record_of
from posjournal_async.testing import CrashStorage, FaultyStorage, Luck, OrderingMonitor, OrderingViolation
from posjournal_async.testing.wrapping import Call, WrappedStorage
from tests.effort import effort
from tests.journals import name_of_section

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from posjournal_async import Storage
    from posjournal_async.storage.protocols import Blob, Lock

T = TypeVar("T")

CONFIG: Config[bytes] = Config(partition="p", items_per_section=3, codec=BytesCodec())
ID, SALT, IPS = 7, 8, 3


# By hand: each step that is wrong, after steps that are right.


class Hand:
    """A journal of 3 items in a section, written step by step through a monitor."""

    def __init__(self, storage: Storage | None = None) -> None:
        self.storage = MemoryStorage() if storage is None else storage
        self.monitor = OrderingMonitor(self.storage)
        self.slot = Slot(0, ID, IPS, "bytes", 0, 0)
        self.blobs: dict[tuple[str, int], Blob] = {}
        self.ends: dict[int, list[int]] = {}

    async def lock(self) -> None:
        """Take the lock, and open the checkpoint."""
        self.held: Lock = await self.monitor.lock("p_checkpoint")
        self.checkpoint, _ = await self.monitor.open("p_checkpoint", name_of_section(0))

    async def start(self) -> None:
        """Begin a journal."""
        await self.lock()
        await self.store(durable=0)

    async def store(self, *, is_synced: bool = True, place: int | None = None, **fields: Any) -> None:
        """Write the next checkpoint, by turns in the two places."""
        known = {"journal_id": ID, "items_per_section": IPS, "codec": "bytes"}
        old = {"durable": self.slot.durable, "boundary": self.slot.boundary}
        self.slot = Slot(**{"sequence": self.slot.sequence + 1, **known, **old, **fields})
        offset = SLOT_LENGTH * (self.slot.sequence % 2 if place is None else place)
        await self.checkpoint.write_at(offset, self.slot.to_bytes())
        if is_synced:
            await self.checkpoint.sync()

    async def make(self, section: int, *, is_synced: bool = True) -> None:
        """Make the two blobs of a section."""
        for part, kind in (("data", Kind.DATA), ("offsets", Kind.OFFSETS)):
            header = Header(kind, ID, section, IPS, max(section * IPS, self.slot.boundary), SALT, "bytes")
            blob = self.blobs[part, section] = await self.open(part, section)
            await blob.write_at(0, header.to_bytes())
            if is_synced:
                await blob.sync()
        self.ends[section] = [HEADER_LENGTH]

    async def open(self, part: str, section: int) -> Blob:
        blob, _ = await self.monitor.open(f"p_{part}", name_of_section(section))
        return blob

    async def append(self, section: int, count: int = 1, payload: bytes = b"item") -> None:
        """Write items and their entries, and sync nothing."""
        ends = self.ends[section]
        for _ in range(count):
            position = section * IPS + len(ends) - 1
            record = record_of(payload, SALT, position)
            await self.blobs["data", section].write_at(ends[-1], record)
            entry = HEADER_LENGTH + 8 * (len(ends) - 1)
            await self.blobs["offsets", section].write_at(entry, ends[-1].to_bytes(8, "little"))
            ends.append(ends[-1] + len(record))

    async def sync(self, section: int) -> None:
        await self.blobs["data", section].sync()
        await self.blobs["offsets", section].sync()

    async def fill(self, sections: int) -> None:
        """Begin a journal with so many full sections, all of it as it has to be."""
        await self.start()
        for section in range(sections):
            await self.make(section)
            await self.append(section, IPS)
            await self.sync(section)
            await self.store(durable=(section + 1) * IPS)

    async def remove(self, part: str, *sections: int) -> None:
        await self.monitor.remove_many(f"p_{part}", [name_of_section(section) for section in sections])

    async def close(self) -> None:
        for blob in (*self.blobs.values(), self.checkpoint):
            await blob.close()
        await self.held.release()
        self.blobs = {}

    async def cut(self, section: int, count: int) -> None:
        """Cut the data behind so many items, and sync nothing."""
        del self.ends[section][count + 1 :]
        await self.blobs["data", section].resize(self.ends[section][-1])


async def _vouch_for_unsynced_data(hand: Hand) -> None:
    await hand.start()
    await hand.make(0)
    await hand.append(0)
    await hand.blobs["offsets", 0].sync()
    await hand.store(durable=1)


async def _vouch_for_unsynced_offsets(hand: Hand) -> None:
    await hand.start()
    await hand.make(0)
    await hand.append(0)
    await hand.blobs["data", 0].sync()
    await hand.store(durable=1)


async def _vouch_for_offsets_of_other_data(hand: Hand) -> None:
    await hand.start()
    await hand.make(0)
    await hand.append(0, 2)
    await hand.blobs["offsets", 0].write_at(HEADER_LENGTH + 8, (65).to_bytes(8, "little"))
    await hand.sync(0)
    await hand.store(durable=2)


async def _vouch_for_items_that_are_not_there(hand: Hand) -> None:
    await hand.start()
    await hand.make(0)
    await hand.append(0)
    await hand.sync(0)
    await hand.store(durable=2)


async def _vouch_for_a_section_without_index(hand: Hand) -> None:
    await hand.fill(1)
    hand.blobs["data", 1] = await hand.open("data", 1)
    header = Header(Kind.DATA, ID, 1, IPS, 3, SALT, "bytes")
    await hand.blobs["data", 1].write_at(0, header.to_bytes())
    await hand.blobs["data", 1].sync()
    await hand.blobs["data", 1].write_at(HEADER_LENGTH, record_of(b"item", SALT, 3))
    await hand.blobs["data", 1].sync()
    await hand.store(durable=4)


async def _vouch_after_a_sync_that_began_before_the_write(hand: Hand) -> None:
    await hand.start()
    await hand.make(0)
    await hand.append(0)
    syncing = asyncio.ensure_future(hand.sync(0))
    await asyncio.sleep(0)  # it has begun
    await hand.append(0)
    await syncing
    await hand.store(durable=2)


async def _acknowledge_before_the_sync(hand: Hand) -> None:
    await hand.start()
    await hand.make(0)
    await hand.append(0)
    await hand.blobs["data", 0].sync()
    hand.monitor.acknowledged("p", 1)
    await hand.append(0)
    hand.monitor.acknowledged("p", 2)


async def _acknowledge_before_a_sync_that_began_after_the_write(hand: Hand) -> None:
    await hand.start()
    await hand.make(0)
    await hand.append(0)
    syncing = asyncio.ensure_future(hand.sync(0))
    await asyncio.sleep(0)
    await hand.append(0)
    await syncing
    hand.monitor.acknowledged("p", 1)
    hand.monitor.acknowledged("p", 2)


async def _acknowledge_without_a_checkpoint(hand: Hand) -> None:
    await hand.lock()
    hand.monitor.acknowledged("p", 0)
    hand.monitor.acknowledged("p", 1)


async def _claim_what_is_not_synced(hand: Hand) -> None:
    class Claims:
        durable = 0

        def durable_size(self) -> int:
            return self.durable

        def bounds(self) -> range:
            return range(1)

    await hand.start()
    await hand.make(0)
    claims = Claims()
    hand.monitor.attach("p", claims)
    await hand.append(0)
    claims.durable = 1
    await hand.sync(0)


async def _write_a_checkpoint_before_the_last_is_durable(hand: Hand) -> None:
    await hand.start()
    await hand.make(0)
    await hand.append(0)
    await hand.sync(0)
    await hand.store(durable=1, is_synced=False)
    await hand.store(durable=1, boundary=0)


async def _write_a_checkpoint_over_the_one_that_counts(hand: Hand) -> None:
    await hand.start()
    await hand.store(place=hand.slot.sequence % 2)


async def _write_a_checkpoint_that_does_not_count(hand: Hand) -> None:
    await hand.start()
    await hand.store(sequence=1, place=0)


async def _write_half_a_checkpoint(hand: Hand) -> None:
    await hand.start()
    await hand.checkpoint.write_at(0, hand.slot.to_bytes()[:40])


async def _cut_the_checkpoint(hand: Hand) -> None:
    await hand.start()
    await hand.checkpoint.resize(SLOT_LENGTH)


async def _take_the_boundary_back(hand: Hand) -> None:
    await hand.fill(2)
    await hand.store(boundary=3)
    await hand.store(boundary=0)


async def _make_a_section_before_the_one_before_is_sealed(hand: Hand) -> None:
    await hand.start()
    await hand.make(0)
    await hand.append(0, IPS)
    await hand.sync(0)
    await hand.make(1)


async def _make_a_section_before_there_is_a_checkpoint(hand: Hand) -> None:
    await hand.lock()
    await hand.open("data", 0)


async def _write_a_record_while_the_checkpoint_is_not_durable(hand: Hand) -> None:
    await hand.fill(1)
    await hand.make(1)
    await hand.store(is_synced=False)
    await hand.append(1)


async def _write_a_record_before_the_header_is_synced(hand: Hand) -> None:
    await hand.start()
    await hand.make(0, is_synced=False)
    await hand.append(0)


async def _write_a_record_together_with_the_header(hand: Hand) -> None:
    await hand.start()
    blob = await hand.open("data", 0)
    header = Header(Kind.DATA, ID, 0, IPS, 0, SALT, "bytes").to_bytes()
    await blob.write_at(0, header + record_of(b"item", SALT, 0))


async def _remove_a_section_that_is_vouched_for(hand: Hand) -> None:
    await hand.fill(2)
    await hand.remove("data", 0)


async def _remove_a_section_before_the_boundary_is_durable(hand: Hand) -> None:
    await hand.fill(2)
    await hand.store(boundary=3, is_synced=False)
    await hand.remove("data", 0)


async def _prune_the_newest_first(hand: Hand) -> None:
    await hand.fill(3)
    await hand.store(boundary=6)
    await hand.remove("data", 1, 0)


async def _prune_the_newest_first_in_two_calls(hand: Hand) -> None:
    await hand.fill(3)
    await hand.store(boundary=6)
    await hand.remove("data", 1)


async def _rewind_the_oldest_first(hand: Hand) -> None:
    await hand.fill(3)
    await hand.store(durable=3)
    await hand.remove("data", 1, 2)


async def _rewind_the_first_section_beside_others(hand: Hand) -> None:
    await hand.fill(3)
    await hand.store(durable=0)
    await hand.remove("data", 2, 1, 0)


async def _prune_the_offsets_before_the_data(hand: Hand) -> None:
    await hand.fill(2)
    await hand.store(boundary=3)
    await hand.remove("offsets", 0)


async def _prune_the_offsets_while_the_data_goes(hand: Hand) -> None:
    await hand.fill(2)
    await hand.store(boundary=3)
    going = asyncio.ensure_future(hand.remove("data", 0))
    try:
        await asyncio.sleep(0)  # it has begun
        await hand.remove("offsets", 0)
    finally:
        await going


async def _remove_all_without_a_reset(hand: Hand) -> None:
    await hand.fill(1)
    await hand.monitor.remove("p_data", None)


async def _end_a_reset_while_the_data_is_there(hand: Hand) -> None:
    await hand.fill(1)
    await hand.store(durable=5, boundary=5, reset=5)
    await hand.monitor.remove("p_offsets", None)
    await hand.store(durable=5, boundary=5)


async def _end_a_reset_while_the_offsets_are_there(hand: Hand) -> None:
    await hand.fill(1)
    await hand.store(durable=5, boundary=5, reset=5)
    await hand.monitor.remove("p_data", None)
    await hand.store(durable=5, boundary=5)


async def _remove_the_checkpoint_before_the_data(hand: Hand) -> None:
    await hand.fill(1)
    await hand.store(durable=0, reset=0)
    await hand.monitor.remove("p_checkpoint", None)


async def _cut_what_is_vouched_for(hand: Hand) -> None:
    await hand.fill(1)
    await hand.cut(0, 2)


async def _write_other_bytes_where_it_is_vouched_for(hand: Hand) -> None:
    await hand.fill(1)
    await hand.blobs["data", 0].write_at(HEADER_LENGTH, record_of(b"else", SALT, 0))


async def _write_behind_a_truncation_that_is_not_synced(hand: Hand) -> None:
    await hand.fill(1)
    await hand.store(durable=1)
    await hand.cut(0, 1)
    await hand.append(0)


async def _grow_behind_a_truncation_that_is_not_synced(hand: Hand) -> None:
    await hand.fill(1)
    await hand.store(durable=1)
    await hand.cut(0, 1)
    await hand.blobs["data", 0].resize(500)


async def _write_behind_a_truncation_of_offsets_that_is_not_synced(hand: Hand) -> None:
    await hand.fill(1)
    await hand.blobs["offsets", 0].resize(HEADER_LENGTH)
    await hand.blobs["offsets", 0].write_at(HEADER_LENGTH, bytes(8))


async def _write_to_a_closed_blob(hand: Hand) -> None:
    await hand.fill(1)
    await hand.blobs["data", 0].close()
    await hand.blobs["data", 0].close()
    await hand.append(0)


async def _read_a_closed_blob(hand: Hand) -> None:
    await hand.fill(1)
    await hand.blobs["data", 0].close()
    await hand.blobs["data", 0].read_at(0, 1)


async def _sync_again_after_a_failed_sync(hand: Hand) -> None:
    await hand.start()
    await hand.make(0)
    await hand.append(0)
    await fail(hand, "data")
    await hand.blobs["data", 0].sync()


async def _sync_again_through_another_handle(hand: Hand) -> None:
    await hand.start()
    await hand.make(0)
    await hand.append(0)
    await fail(hand, "data")
    await (await hand.open("data", 0)).sync()


async def _write_a_checkpoint_after_a_failure(hand: Hand) -> None:
    await hand.start()
    await hand.make(0)
    await fail(hand, "data")
    await hand.store(durable=0)


async def _remove_after_a_failure(hand: Hand) -> None:
    await hand.fill(2)
    await hand.store(boundary=3)
    await fail(hand, "offsets")
    await hand.remove("data", 0)


async def _cut_after_a_failure(hand: Hand) -> None:
    await hand.fill(1)
    await hand.store(durable=1)
    await fail(hand, "offsets")
    await hand.cut(0, 1)


async def fail(hand: Hand, part: str) -> None:
    """Let an fsync fail."""
    assert isinstance(hand.storage, CrashStorage)
    hand.storage.fail_sync = f"p_{part}"
    with pytest.raises(StorageError):
        await hand.blobs[part, 0].sync()


async def _change_without_the_lock(hand: Hand) -> None:
    hand.checkpoint, _ = await hand.monitor.open("p_checkpoint", name_of_section(0))
    await hand.store(durable=0)


async def _change_after_the_lock_is_released(hand: Hand) -> None:
    await hand.fill(1)
    await hand.close()
    await hand.remove("data", 0)


async def _release_the_lock_while_a_blob_is_open(hand: Hand) -> None:
    await hand.fill(1)
    await hand.held.release()


async def _release_the_lock_while_a_write_is_under_way(hand: Hand) -> None:
    await hand.start()
    writing = asyncio.ensure_future(hand.checkpoint.write_at(SLOT_LENGTH, hand.slot.to_bytes()))
    try:
        await asyncio.sleep(0)  # it has begun
        await hand.held.release()
    finally:
        await writing


async def _sync_what_another_process_left_without_writing_it(hand: Hand) -> None:
    await hand.start()
    await hand.make(0)
    await hand.append(0)
    await again(hand)
    await confirm(hand)
    await hand.sync(0)
    await hand.store(durable=1)


async def _believe_a_checkpoint_that_was_only_read(hand: Hand) -> None:
    await hand.start()
    await again(hand)
    await hand.checkpoint.sync()
    await hand.store(durable=0)


async def _vouch_for_a_section_that_was_given_up(hand: Hand) -> None:
    await hand.fill(1)
    await again(hand)
    await confirm(hand)
    await hand.store(durable=0)
    await hand.remove("data", 0)
    await hand.remove("offsets", 0)
    await hand.store(durable=3)


async def confirm(hand: Hand) -> None:
    """Write the checkpoint that was read once more."""
    await hand.checkpoint.write_at(hand.slot.sequence % 2 * SLOT_LENGTH, hand.slot.to_bytes())
    await hand.checkpoint.sync()


async def again(hand: Hand) -> None:
    """Close the journal as it is, and open what there is of it, as the next process would."""
    sections = {section for _, section in hand.blobs}
    await hand.close()
    await hand.lock()
    for section in sections:
        for part in ("data", "offsets"):
            hand.blobs[part, section] = await hand.open(part, section)


WRONG: dict[Callable[[Hand], Awaitable[None]], str] = {
    _vouch_for_unsynced_data: "data of section 0 is not synced up to position 1",
    _vouch_for_unsynced_offsets: "offsets of section 0 are not synced",
    _vouch_for_offsets_of_other_data: "offsets of section 0 are not those of the data",
    _vouch_for_items_that_are_not_there: "section 0 holds 1 of 2 items",
    _vouch_for_a_section_without_index: "section 1 has no index",
    _vouch_after_a_sync_that_began_before_the_write: "data of section 0 is not synced up to position 2",
    _acknowledge_before_the_sync: "2 items were acknowledged, but data of section 0 is not synced",
    _acknowledge_before_a_sync_that_began_after_the_write: "2 items were acknowledged, but data of section 0",
    _acknowledge_without_a_checkpoint: "1 items were acknowledged, but there is no checkpoint",
    _claim_what_is_not_synced: "the journal calls 1 items durable, but data of section 0 is not synced",
    _write_a_checkpoint_before_the_last_is_durable: "the checkpoint before it is not durable",
    _write_a_checkpoint_over_the_one_that_counts: "the checkpoint that counts is in that place",
    _write_a_checkpoint_that_does_not_count: "the checkpoint before it would go on counting",
    _write_half_a_checkpoint: "this is no checkpoint",
    _cut_the_checkpoint: "this is no checkpoint",
    _take_the_boundary_back: "the boundary goes back from 3 to 0",
    _make_a_section_before_the_one_before_is_sealed: "the section before it is not sealed: 0 items",
    _make_a_section_before_there_is_a_checkpoint: "the checkpoint is not durable",
    _write_a_record_while_the_checkpoint_is_not_durable: "the checkpoint is not durable",
    _write_a_record_before_the_header_is_synced: "the header before it is not synced",
    _write_a_record_together_with_the_header: "the header before it is not synced",
    _remove_a_section_that_is_vouched_for: "a durable checkpoint still vouches for section 0",
    _remove_a_section_before_the_boundary_is_durable: "the checkpoint is not durable",
    _prune_the_newest_first: "section 1 goes before an older one",
    _prune_the_newest_first_in_two_calls: "section 1 goes before an older one",
    _rewind_the_oldest_first: "section 1 goes before a newer one",
    _rewind_the_first_section_beside_others: "section 0 goes before a newer one",
    _prune_the_offsets_before_the_data: "the data of section 0 is still there",
    _prune_the_offsets_while_the_data_goes: "the data of section 0 is still there",
    _remove_all_without_a_reset: "no durable checkpoint says that there is a reset",
    _end_a_reset_while_the_data_is_there: "the reset is not done",
    _end_a_reset_while_the_offsets_are_there: "the reset is not done",
    _remove_the_checkpoint_before_the_data: "data or offsets are still there",
    _cut_what_is_vouched_for: "a durable checkpoint vouches for the bytes below 100",
    _write_other_bytes_where_it_is_vouched_for: "a durable checkpoint vouches for the bytes below 100",
    _write_behind_a_truncation_that_is_not_synced: "a truncation before it is not synced",
    _grow_behind_a_truncation_that_is_not_synced: "a truncation before it is not synced",
    _write_behind_a_truncation_of_offsets_that_is_not_synced: "a truncation before it is not synced",
    _write_to_a_closed_blob: "the blob is closed",
    _read_a_closed_blob: "the blob is closed",
    _sync_again_after_a_failed_sync: "an fsync of this blob has failed",
    _sync_again_through_another_handle: "an fsync of this blob has failed",
    _write_a_checkpoint_after_a_failure: "a change before it has failed",
    _remove_after_a_failure: "a change before it has failed",
    _cut_after_a_failure: "a change before it has failed",
    _change_without_the_lock: "nobody has the lock",
    _change_after_the_lock_is_released: "nobody has the lock",
    _release_the_lock_while_a_blob_is_open: "3 blobs are open",
    _release_the_lock_while_a_write_is_under_way: "a change is under way",
    _sync_what_another_process_left_without_writing_it: "data of section 0 is not synced up to position 1",
    _vouch_for_a_section_that_was_given_up: "section 0 has no header",
    _believe_a_checkpoint_that_was_only_read: "the checkpoint before it is not durable",
}


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__.strip("_"))
async def test_a_step_that_is_wrong_is_seen(wrong: Callable[[Hand], Awaitable[None]]) -> None:
    """It raises in the call itself, is the only one, and leaving the monitor raises it again (D1, D3, D4, D5, F1)."""
    hand = Hand(CrashStorage())
    with pytest.raises(OrderingViolation, match=WRONG[wrong]) as raised:
        await wrong(hand)
    assert hand.monitor.violations == [raised.value]
    with pytest.raises(OrderingViolation, match=WRONG[wrong]), hand.monitor:
        pass


async def test_steps_that_are_right_are_no_violations() -> None:
    """The life that the wrong ones leave: fill, prune, rewind, cut, append, open again, reset, remove (D1, D4)."""
    hand = Hand(CrashStorage())
    with hand.monitor:
        await hand.fill(4)
        hand.monitor.acknowledged("p", 12)
        await hand.store(boundary=6)
        await hand.remove("data", 0, 1)
        await hand.remove("offsets", 0, 1)
        await hand.store(durable=8)
        await hand.remove("data", 3)
        await hand.cut(2, 2)
        await hand.blobs["data", 2].sync()
        await hand.blobs["offsets", 2].resize(HEADER_LENGTH + 16)
        await hand.blobs["offsets", 2].sync()
        await hand.append(2)
        await hand.sync(2)
        hand.monitor.acknowledged("p", 9)
        await hand.store(durable=9)
        for part in ("data", "offsets"):
            for section in (0, 1, 3):
                await hand.blobs.pop((part, section)).close()
        await again(hand)
        await confirm(hand)
        await hand.store(durable=4, boundary=4, reset=4)
        for part in ("data", "offsets"):
            await hand.blobs.pop((part, 2)).close()
            await hand.monitor.remove(f"p_{part}", None)
        await hand.store(durable=4, boundary=4)
        await hand.make(1)
        await hand.blobs["data", 1].write_at(HEADER_LENGTH, record_of(b"item", SALT, 4))
        await hand.blobs["offsets", 1].write_at(HEADER_LENGTH, HEADER_LENGTH.to_bytes(8, "little"))
        await hand.sync(1)
        await hand.store(durable=5)
        await hand.store(durable=0, boundary=0, reset=0)
        for part in ("data", "offsets"):
            await hand.blobs.pop((part, 1)).close()
            await hand.monitor.remove(f"p_{part}", None)
        await hand.monitor.remove("p_checkpoint", None)
        await hand.close()


class FailsLate(WrappedStorage):
    """A storage whose next sync fails when others have begun meanwhile."""

    is_armed = False

    @override
    async def around(self, call: Call, go_on: Callable[[], Awaitable[T]]) -> T:
        if call.what == "sync" and self.is_armed:
            self.is_armed = False
            await asyncio.sleep(0)
            raise StorageError(call.partition, call.name, errno.EIO, "sync")
        return await go_on()


async def test_a_sync_that_failed_takes_from_another_what_both_were_to_cover() -> None:
    """The pages are clean then, and the other one says OK of bytes that the device never got (F2, I3)."""
    late = FailsLate(MemoryStorage())
    hand = Hand(late)
    await hand.start()
    await hand.make(0)
    await hand.append(0)
    late.is_armed = True
    blob = hand.blobs["data", 0]
    failed, done = await asyncio.gather(blob.sync(), blob.sync(), return_exceptions=True)
    assert isinstance(failed, StorageError)
    assert done is None
    with pytest.raises(OrderingViolation, match="1 items were acknowledged, but data of section 0 is not synced"):
        hand.monitor.acknowledged("p", 1)


async def test_handles_of_one_blob_are_watched_together() -> None:
    """What is written through one is what is synced through another, also if both were opened at once."""
    hand = Hand()
    await hand.start()
    await hand.make(0)
    with hand.monitor:
        await hand.close()
        await hand.lock()
        await confirm(hand)
        first, second = await asyncio.gather(hand.open("data", 0), hand.open("data", 0))
        header = Header(Kind.DATA, ID, 0, IPS, 0, SALT, "bytes")
        await first.write_at(0, header.to_bytes())
        await second.sync()
        await first.write_at(HEADER_LENGTH, record_of(b"item", SALT, 0))
        await second.sync()
        hand.monitor.acknowledged("p", 1)


async def test_opening_without_a_checkpoint_may_remove_what_a_crash_left() -> None:
    """The data stands in for it: all sections but the last are vouched for (A3)."""
    storage = MemoryStorage()
    journal = await Journal.init(Context(storage), CONFIG)
    await journal.append_many([b"item"] * 3)
    await journal.close()
    await storage.remove("p_checkpoint", None)
    await (await storage.open("p_data", name_of_section(1)))[0].close()  # a creation that was interrupted
    with OrderingMonitor(storage) as monitor:
        journal = await Journal.init(Context(monitor), CONFIG)
        assert journal.recovery.sections_removed == 1
        monitor.acknowledged("p", 3)
        await journal.close()


@dataclass
class Lookalike:
    """A blob of a backend whose blobs are all equal, and cannot be hashed."""

    inner: Any = field(compare=False)

    def __post_init__(self) -> None:
        self.read_at = self.inner.read_at
        self.write_at = self.inner.write_at
        self.resize = self.inner.resize
        self.sync = self.inner.sync
        self.close = self.inner.close


@dataclass(unsafe_hash=True)
class HashedLookalike(Lookalike):
    """One that can be hashed, alike for all."""


class Lookalikes(MemoryStorage):
    """A storage of such blobs."""

    def __init__(self, kind: type[Lookalike]) -> None:
        super().__init__()
        self.kind = kind

    @override
    async def open(self, partition: str, name: bytes) -> tuple[Any, int]:
        blob, length = await super().open(partition, name)
        return self.kind(blob), length


@pytest.mark.parametrize("kind", [Lookalike, HashedLookalike])
async def test_blobs_that_look_alike_are_told_apart(kind: type[Lookalike]) -> None:
    """A blob is what a call was made on, whatever it is equal to: one is closed, and the others are not."""
    with OrderingMonitor(Lookalikes(kind)) as monitor:
        for _ in range(2):
            journal = await Journal.init(Context(monitor), CONFIG)
            monitor.attach("p", journal)
            await journal.append_many([b"item"] * 7)
            await journal.prune(3)
            await journal.rewind(5)
            await journal.close()


async def test_a_read_at_once_of_a_closed_blob_is_seen(tmp_path: Path) -> None:
    """Also the one call that waits for nothing, and would read whatever file has the handle by then (C3)."""
    hand = Hand(FileStorage(tmp_path))
    await hand.fill(1)
    blob: Any = hand.blobs["data", 0]
    assert blob.read_at_once(0, 8) in {b"PJRNDATA", None}
    await hand.close()
    with pytest.raises(OrderingViolation, match="read_at_once in p_data 0000000000000000: the blob is closed"):
        blob.read_at_once(0, 8)


async def test_one_write_and_sync_in_one_call_is_both(tmp_path: Path) -> None:
    """What a storage does in one operation counts as two (D1)."""
    hand = Hand(FileStorage(tmp_path))
    await hand.start()
    await hand.make(0)
    data: Any = hand.blobs["data", 0]
    await data.write_durably_at(HEADER_LENGTH, record_of(b"item", SALT, 0))
    hand.monitor.acknowledged("p", 1)
    await data.write_at(HEADER_LENGTH + 12, record_of(b"item", SALT, 1))
    with pytest.raises(OrderingViolation):
        hand.monitor.acknowledged("p", 2)
    await hand.close()


# Whole journals that are wrong: what stands between a right one and the monitor leaves something out.


class Careless(WrappedStorage):
    """What makes a right journal a wrong one: some calls are not made, or made otherwise."""

    def __init__(self, inner: Storage, wrong: Callable[[Careless, Call], Awaitable[bool]]) -> None:
        super().__init__(inner)
        self._wrong = wrong
        self.written: dict[tuple[str, bytes | None], bytearray] = {}

    @override
    async def around(self, call: Call, go_on: Callable[[], Awaitable[T]]) -> T:
        if await self._wrong(self, call):
            return cast("T", None)  # of calls that return nothing
        return await go_on()


def without(what: str, part: str) -> Callable[[Careless, Call], Awaitable[bool]]:
    """Leave all calls of a kind out."""

    async def is_left_out(_: Careless, call: Call) -> bool:
        return call.what == what and call.partition == f"p_{part}"

    return is_left_out


async def _no_sync_of_a_truncation(careless: Careless, call: Call) -> bool:
    if call.what == "resize":
        careless.written[call.partition, call.name] = bytearray()
    return call.what == "sync" and careless.written.pop((call.partition, call.name), None) is not None


async def _no_bytes_twice(_: Careless, call: Call) -> bool:
    """What can be read is not written again."""
    if call.what != "write_at" or call.blob is None:
        return False
    return await call.blob.read_at(call.offset, len(call.data)) == call.data


async def _checkpoints_in_one_place(_: Careless, call: Call) -> bool:
    if call.what != "write_at" or call.partition != "p_checkpoint" or not call.offset:
        return False
    assert call.blob is not None
    await call.blob.write_at(0, call.data)
    return True


async def _removals_the_other_way_round(careless: Careless, call: Call) -> bool:
    if call.what != "remove_many" or len(call.names) < 2:
        return False
    assert isinstance(careless.inner, OrderingMonitor)
    await careless.inner.remove_many(call.partition, call.names[::-1])
    return True


async def _no_lock(_: Careless, call: Call) -> bool:
    return call.what == "release"


async def _a_sync_that_failed_again(_: Careless, call: Call) -> bool:
    if call.what != "sync":
        return False
    assert call.blob is not None
    try:
        await call.blob.sync()
    except StorageError:
        await call.blob.sync()
    return True


async def _a_failure_that_nobody_notices(_: Careless, call: Call) -> bool:
    if call.what != "sync":
        return False
    assert call.blob is not None
    try:
        await call.blob.sync()
    except StorageError:
        assert call.what == "sync"
    return True


CARELESS: dict[str, tuple[Callable[[Careless, Call], Awaitable[bool]], str]] = {
    "no sync of data": (without("sync", "data"), "header before it is not synced"),
    "no sync of offsets": (without("sync", "offsets"), r"offsets of section \d+ are not synced"),
    "no sync of the checkpoint": (without("sync", "checkpoint"), "the checkpoint( before it)? is not durable"),
    "no checkpoint": (without("write_at", "checkpoint"), "the checkpoint is not durable"),
    "no removal of data": (without("remove_many", "data"), r"the data of section \d+ is still there"),
    "no index": (without("write_at", "offsets"), r"offsets of section \d+ are not synced"),
    "no sync of a truncation": (_no_sync_of_a_truncation, "a truncation before it is not synced"),
    "no bytes twice": (_no_bytes_twice, "not synced|not durable"),
    "checkpoints in one place": (_checkpoints_in_one_place, "the checkpoint that counts is in that place"),
    "removals the other way round": (_removals_the_other_way_round, "goes before an older one|goes before a newer one"),
    "a sync that failed again": (_a_sync_that_failed_again, "an fsync of this blob has failed"),
    "a failure that nobody notices": (_a_failure_that_nobody_notices, "has failed|not synced|not durable"),
}


@pytest.mark.parametrize("name", CARELESS)
async def test_a_journal_that_is_wrong_is_seen(name: str) -> None:
    """A right journal from which one kind of step is missing: leaving the monitor raises, whatever the journal said."""
    wrong, message = CARELESS[name]
    found = 0
    for seed in range(20):
        rng = random.Random(seed)
        faulty = FaultyStorage(
            MemoryStorage(), rng.randrange(40) if "fail" in name else 0, only=lambda call: call.what == "sync"
        )
        monitor = OrderingMonitor(faulty)
        life = Life(Careless(monitor, wrong), rng, monitor=monitor)
        try:
            await life.live(30)
        except (JournalError, OrderingViolation):
            found += bool(monitor.violations)
        await life.end()
        if monitor.violations:
            with pytest.raises(OrderingViolation, match=message):
                monitor.check()
    assert found > 3


async def test_a_violation_that_the_journal_takes_for_a_failure_is_raised_at_the_end() -> None:
    """Nothing that the service catches hides it."""
    monitor = OrderingMonitor(MemoryStorage())
    with pytest.raises(OrderingViolation, match="the header before it is not synced"), monitor:
        await _serve_and_catch(Careless(monitor, without("sync", "data")))
    assert len(monitor.violations) == 1


async def _serve_and_catch(storage: Storage) -> None:
    journal = await Journal.init(Context(storage), CONFIG)
    await journal.append(b"item")
    with pytest.raises(OrderingViolation):
        await journal.sync_data()
    with pytest.raises(JournalError):
        await journal.close()


# Whole journals that are right.


class Life:
    """A journal that a chance makes do everything, with a monitor below that is told what is acknowledged."""

    def __init__(self, storage: Storage, rng: random.Random, *, monitor: OrderingMonitor | None = None) -> None:
        self.monitor = OrderingMonitor(storage) if monitor is None else monitor
        self.storage = self.monitor if monitor is None else storage
        self.rng = rng
        self.journal: Journal[bytes] | None = None

    async def open(self, size: int | None = None) -> None:
        context = Context(self.storage)
        if size is None:
            self.journal = await Journal.init(context, CONFIG)
        else:
            self.journal = await Journal.init_at_size(context, CONFIG, size)
        self.monitor.attach("p", self.journal)
        self.monitor.acknowledged("p", self.journal.size())

    async def end(self) -> None:
        """Close what is open, also where that fails."""
        if self.journal is not None:
            try:
                await self.journal.close()
            except (JournalError, OrderingViolation):
                assert self.monitor.violations

    async def live(self, steps: int) -> None:
        await self.open()
        for _ in range(steps):
            await self.step()

    async def step(self) -> None:
        rng, journal = self.rng, self.journal
        assert journal is not None
        size = journal.size()
        what = rng.randrange(14)
        if what < 4:
            await journal.append_many(bytes(rng.randrange(9)) for _ in range(rng.choice((1, 1, 2, 8))))
        elif what < 6:
            await journal.sync_data()
            self.monitor.acknowledged("p", size)
        elif what == 6:
            await journal.sync()
            self.monitor.acknowledged("p", size)
        elif what == 7:
            await asyncio.gather(*(self.append_and_sync() for _ in range(rng.randrange(2, 7))))
        elif what == 8:
            await journal.prune(rng.randrange(size + 1))
        elif what in {9, 10}:
            await journal.rewind(rng.randrange(max(journal.bounds().start, size - 7), size + 1))
        elif what == 11 and size:
            positions = rng.sample(journal.bounds(), min(5, len(journal.bounds())))
            await asyncio.gather(*map(journal.read, positions))
        else:
            await self.begin_again()

    async def append_and_sync(self) -> None:
        assert self.journal is not None
        position = await self.journal.append(b"shared")
        await self.journal.sync_data()
        self.monitor.acknowledged("p", position + 1)

    async def begin_again(self) -> None:
        """Close and open again, at another size, or after losing the index or the checkpoint."""
        assert self.journal is not None
        how = self.rng.randrange(6)
        if how == 0:
            await self.journal.destroy()
        else:
            await self.journal.close()
        if how == 1:
            indexed = sorted(await self.monitor.inner.scan("p_offsets"))
            await self.monitor.inner.remove("p_offsets", self.rng.choice([None, *indexed[-1:]]))
        if how == 2 and await self.monitor.inner.scan("p_data"):
            await self.monitor.inner.remove("p_checkpoint", name_of_section(0))
        await self.open(self.rng.randrange(20) if how == 3 else None)


async def _live(storage: Storage, seed: int) -> None:
    life = Life(storage, random.Random(seed))
    try:
        with life.monitor:
            await life.live(30)
            await life.end()
    except BaseException as error:
        error.add_note(f"seed {seed}")
        raise


@pytest.mark.parametrize("kind", [MemoryStorage, CrashStorage])
async def test_a_journal_that_is_right_is_no_violation(kind: Callable[[], Storage]) -> None:
    """Whatever it does, also when the index or the checkpoint is lost in between (D1, D4, D6)."""
    for seed in range(effort(25, 20_000)):
        await _live(kind(), seed)


async def test_a_journal_in_files_is_no_violation(tmp_path: Path) -> None:
    """With handles that read at once, and writes and syncs in one call (D1, D4, D6)."""
    for seed in range(effort(4, 2_000)):
        await _live(FileStorage(tmp_path / str(seed)), seed)


async def test_opening_what_a_crash_left_is_no_violation() -> None:
    """After a kill, and after a power cut, in any call; and the life after that (D3, D6)."""
    for seed in range(effort(4, 3_000)):
        rng = random.Random(seed)
        storage = CrashStorage()
        photos: list[CrashStorage] = []

        def take(storage: CrashStorage = storage, photos: list[CrashStorage] = photos) -> None:
            photos.append(storage.photo())

        storage.on_call = take
        await _live(storage, seed)
        storage.on_call = None
        for number in sorted(rng.sample(range(len(photos)), min(6, len(photos)))):
            for state in (photos[number].killed(rng), photos[number].power_cut(rng, rng.choice(list(Luck)))):
                try:
                    await _live(state, seed)
                except BaseException as error:
                    error.add_note(f"after a crash in call {number}")
                    raise


def test_what_an_open_journal_claims_can_be_asked_for_no_more_when_its_loop_is_over() -> None:
    """A test that fails with its journal open is told why, not that the monitor came too late."""
    monitor = OrderingMonitor(MemoryStorage())
    kept: list[Journal[bytes]] = []

    async def open_and_leave() -> None:
        journal = await Journal.init(Context(monitor), CONFIG)
        monitor.attach("p", journal)
        kept.append(journal)
        await journal.close()

    asyncio.run(open_and_leave())
    monitor.attach("p", kept[0])
    monitor.check()


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 1_000])
async def test_a_journal_that_starts_at_a_size_is_no_violation(size: int) -> None:
    """In the middle of a section and at its edges; and again when the index is lost, and the checkpoint."""
    storage = MemoryStorage()
    for lost in (None, "p_offsets", "p_checkpoint"):
        with OrderingMonitor(storage) as monitor:
            opened: Callable[..., Awaitable[Journal[bytes]]] = Journal.init
            if lost is None:
                opened = partial(Journal.init_at_size, size=size)
            else:
                await storage.remove(lost, None)
            journal = await opened(Context(monitor), CONFIG)
            monitor.attach("p", journal)
            for _ in range(5):
                await journal.append(b"item")
                await journal.sync_data()
                monitor.acknowledged("p", journal.size())
            await journal.close()
            assert journal.recovery.items_found == (0 if lost is None else 5 if lost == "p_offsets" else 10)
