"""Look at all files of a journal without reading its sealed sections, also while somebody changes them."""

from __future__ import annotations

import asyncio
from errno import EINVAL, ENOENT, EROFS
from typing import TYPE_CHECKING

from posjournal_async.checkpoint import SlotFacts, read_slots
from posjournal_async.errors import StorageError
from posjournal_async.format.header import HEADER_LENGTH, BadHeader, parse_header
from posjournal_async.inspection.placing import (
    Look,
    by_section,
    during_reset,
    placed,
    without_checkpoint,
)
from posjournal_async.recovery.facts import SectionFacts, stand_in
from posjournal_async.scan import scan_records
from posjournal_async.sections import Sections, read_header, unbroken

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from posjournal_async.format.checkpoint_slot import Slot
    from posjournal_async.format.header import Header
    from posjournal_async.inspection.states import Survey
    from posjournal_async.storage.protocols import Blob, Storage
    from posjournal_async.storage.readonly import BlobFacts, ReadOnlyFileStorage

__all__ = ["MOST_HEADERS", "current_slots", "make_durable", "survey"]

# Sections of which the headers are read unless somebody asks for more: a second or so on a slow device.
MOST_HEADERS = 1_000

# A live writer prunes, rewinds or resets between two of our reads: so often it is looked again, each time a bit later.
_LOOKS = 20
_PAUSE_SECONDS = 0.002


async def survey(
    storage: ReadOnlyFileStorage,
    partition: str,
    advance: Callable[[int], None] = lambda _: None,
    *,
    most_headers: int = MOST_HEADERS,
) -> Survey:
    """Look at all files of a journal, and again if a live writer changed what stands where meanwhile.

    Args:
        storage: Where it is.
        partition: Base name of the journal.
        advance: Called with the bytes of unsealed sections that were read since the last call.
        most_headers: Headers of sealed sections are read if there are at most so many sections: each is a read of its
            own from the device, and who reads an item looks at the header anyway.

    Raises:
        InvalidConfiguration: Another version of the format wrote the checkpoint.
        StorageError: The files cannot be read, or changed at each look.
    """
    look = 0
    while True:
        look += 1
        slots = await current_slots(storage, partition)
        try:
            found = await _look(storage, partition, slots, advance, most_headers=most_headers)
        except StorageError as error:
            if error.errno != ENOENT or look == _LOOKS:
                raise
        else:
            if look == _LOOKS or not (found.is_damaged or found.damaged_slots):
                return found
            # Whoever removes or cuts something has changed the checkpoint before that.
            if await current_slots(storage, partition) == slots:
                return found
        await asyncio.sleep(look * _PAUSE_SECONDS)


async def current_slots(storage: Storage, partition: str) -> SlotFacts:
    """Return what the checkpoint holds; nothing if it is missing.

    Raises:
        InvalidConfiguration: Another version of the format wrote it.
    """
    try:
        blob, slots = await read_slots(storage, f"{partition}_checkpoint")
    except StorageError as error:
        if error.errno == ENOENT:
            return SlotFacts(None, 1, 0)
        raise
    await blob.close()
    return slots


async def make_durable(blob: Blob) -> None:
    """Flush what others have written to a blob. It changes no byte and no time.

    Raises:
        StorageError: The device refused.
    """
    try:
        await blob.sync()
    except StorageError as error:
        # A file system that is read-only, or cannot be asked for it, holds nothing that is still to be written.
        if error.errno not in {EROFS, EINVAL}:
            raise


async def _look(
    storage: ReadOnlyFileStorage,
    partition: str,
    slots: SlotFacts,
    advance: Callable[[int], None],
    *,
    most_headers: int,
) -> Survey:
    has_heads = slots.current is None or len(await storage.scan(f"{partition}_data")) <= most_headers
    head = HEADER_LENGTH if has_heads else 0
    checkpoint = await storage.survey(f"{partition}_checkpoint", 0)
    data, strange_data = by_section(await storage.survey(f"{partition}_data", head))
    offsets, strange_offsets = by_section(await storage.survey(f"{partition}_offsets", 0))
    look = Look(
        partition=partition,
        slots=slots,
        data=data,
        offsets=offsets,
        has_heads=has_heads,
        strangers=(
            *(f"{partition}_data/{name}" for name in strange_data),
            *(f"{partition}_offsets/{name}" for name in strange_offsets),
        ),
        checkpoint_bytes=sum(facts.length for facts in checkpoint),
        synced_ns=max((facts.modified_ns for facts in checkpoint), default=None),
    )

    async def header_of(section: int) -> Header | BadHeader:
        return parse_header(data[section].head, data[section].length)

    slot = slots.current or await stand_in(sorted(data), header_of)
    if slot is None:
        return without_checkpoint(look)
    if slot.reset is not None:
        return during_reset(look, slot, slot.reset)
    return placed(look, slot, await _scans(storage, partition, data, slot, advance))


async def _scans(
    storage: ReadOnlyFileStorage,
    partition: str,
    data: Mapping[int, BlobFacts],
    slot: Slot,
    advance: Callable[[int], None],
) -> dict[int, SectionFacts]:
    """Read the sections that recovery would read: from the durable size on, and the one before what it would remove.

    What is above the durable size is flushed after it was read, so that what is shown will be there after a crash.
    """
    ips = slot.items_per_section
    kept = sorted(section for section in data if section >= slot.boundary // ips)
    if not data:
        return {}
    doubtful = slot.durable // ips
    blobs = Sections(storage, f"{partition}_data")
    found: dict[int, SectionFacts] = {}
    for section in kept:
        if section >= doubtful:
            found[section] = await _scan(blobs, section, slot.durable, advance)
    headless = {section for section, facts in found.items() if isinstance(facts.header, BadHeader)}
    for section in unbroken(kept, headless)[-1:]:
        if section < doubtful:
            found[section] = await _scan(blobs, section, slot.durable, advance)
    first = kept[0] if kept else min(data)
    facts = data[first]
    if first not in found and (facts.head or not facts.length):  # else it was not read
        found[first] = SectionFacts(parse_header(facts.head, facts.length), facts.length)
    return found


async def _scan(blobs: Sections, section: int, durable: int, advance: Callable[[int], None]) -> SectionFacts:
    async with blobs.opened(section) as (blob, length):
        header = await read_header(blob, length)
        if isinstance(header, BadHeader):
            return SectionFacts(header, length)
        scan = await scan_records(_Counted(blob, advance), length, header)
        if header.first + len(scan.starts) > durable:
            await make_durable(blob)
        return SectionFacts(header, length, scan, len(scan.starts))


class _Counted:
    """A blob that tells how much of it is read."""

    def __init__(self, blob: Blob, advance: Callable[[int], None]) -> None:
        self._blob = blob
        self._advance = advance
        self.write_at = blob.write_at
        self.resize = blob.resize
        self.sync = blob.sync
        self.close = blob.close

    async def read_at(self, offset: int, length: int) -> bytes:
        found = await self._blob.read_at(offset, length)
        self._advance(len(found))
        return found
