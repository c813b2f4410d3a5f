"""The blobs of a journal that somebody else may be changing: opened for one look, and closed again."""

from __future__ import annotations

import os
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiofiles.os

from posjournal_async.checkpoint import slots_in
from posjournal_async.errors import Corruption, InvalidConfiguration
from posjournal_async.format.checkpoint_slot import SLOT_LENGTH
from posjournal_async.format.header import (
    FORMAT_VERSION,
    HEADER_LENGTH,
    BadHeader,
    Header,
    HeaderFault,
    Kind,
    parse_header,
)
from posjournal_async.inspection.present import CHECKPOINT, opened_if_there
from posjournal_async.inspection.remembered import NO_SALT, Remembered, read_records
from posjournal_async.inspection.slots import Slots
from posjournal_async.inspection.states import codec_expected
from posjournal_async.inspection.survey import make_durable
from posjournal_async.recovery.facts import stand_in

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from posjournal_async.format.checkpoint_slot import Slot
    from posjournal_async.storage.protocols import Blob, Storage

__all__ = ["Blobs", "expected_header"]

# A file that changed less than this before it was looked at may change again without another time: the clock of a file
# system advances in steps, of 10 ms at the most (CONFIG_HZ=100).
_SETTLED_NS = 100_000_000

# Slots that do not check out are read again: one may just be written.
_TRIES = 3


@dataclass(slots=True, eq=False)
class Blobs:
    """Opens what is there.

    Attributes:
        storage: Where it is.
        root: Root of the storage.
        partition: Base name of the journal.
    """

    storage: Storage
    root: Path
    partition: str

    @asynccontextmanager
    async def opened(self, section: int) -> AsyncGenerator[tuple[Blob | None, Header | BadHeader | None]]:
        """Open a section's data blob, with its header; None and None if it is missing."""
        async with opened_if_there(self.storage, f"{self.partition}_data", section) as found:
            if found is None:
                yield None, None
                return
            blob, length = found
            header = parse_header(await blob.read_at(0, HEADER_LENGTH), length)
            if isinstance(header, BadHeader) and header.fault is HeaderFault.VERSION:
                raise InvalidConfiguration("format version", FORMAT_VERSION, header.version, self.partition)
            yield blob, header

    async def _header_of(self, section: int) -> Header | BadHeader | None:
        async with self.opened(section) as (_, header):
            return header

    async def salt_of(self, slot: Slot, section: int) -> int:
        """Return the salt of a section's data blob; `NO_SALT` if it is missing or has not the header that it has to."""
        async with self.opened(section) as (_, header):
            return _salt_in(slot, section, header)

    async def parting(self, slot: Slot, entry: Remembered) -> int | None:
        """Return up to which position a section is as remembered; None if its blob is another, or it is not known."""
        async with self.opened(entry.section) as (blob, header):
            if entry.salt != _salt_in(slot, entry.section, header) or entry.heads is None:
                return None
            if blob is None:
                return entry.stop
            # Before it is compared: what is found then, and was there before, is durable.
            await make_durable(blob)
            return await entry.parting(blob)

    async def walk(self, slot: Slot, section: int, until: int) -> Remembered | None:
        """Return what a section holds, up to a position; None where it has no blob of this journal."""
        async with self.opened(section) as (blob, header):
            if blob is None or not isinstance(header, Header):
                return None
            if _salt_in(slot, section, header) == NO_SALT:
                return None
            found = Remembered.begun(section, header.first, header.salt)
            while found.stop < until:
                run, records = await read_records(blob, found, until)
                if not records.ends:
                    break
                found.add(run, records)
            return found

    async def slots(self, is_news: Callable[[Slot], bool] = lambda _: False) -> Slots | None:
        """Return the checkpoint; what the data says instead where it is lost; None where there is no journal.

        Args:
            is_news: Whether somebody will be told of this checkpoint: it is made durable before.
        """
        slots: list[Slot] = []
        async with opened_if_there(self.storage, f"{self.partition}_checkpoint", CHECKPOINT) as found:
            if found is not None:
                slots = await self._valid_slots(found[0])
                if slots and is_news(slots[0]):
                    await make_durable(found[0])
        if not slots:
            return await self._slots_from_data()
        return Slots(slots[0], slots[1] if len(slots) > 1 else None)

    async def _valid_slots(self, checkpoint: Blob) -> list[Slot]:
        """Return the slots that check out, the newest first."""
        valid: list[tuple[Slot, int]] = []
        for _ in range(_TRIES):
            valid, damaged = slots_in(await checkpoint.read_at(0, 2 * SLOT_LENGTH), self.partition)
            if not damaged:
                break
        return [slot for slot, _ in valid]

    async def _slots_from_data(self) -> Slots | None:
        """Return what the checkpoint would have said at the least, as recovery has it."""
        partition = f"{self.partition}_data"
        sections = sorted(int.from_bytes(name) for name in await self.storage.scan(partition) if len(name) == 8)
        if not sections:
            return None
        slot = await stand_in(sections, self._header_of)
        if slot is not None:
            return Slots(slot, None)
        if await self._header_of(sections[0]) is None:
            return None
        raise Corruption("checkpoint", "one valid slot, or a data blob to stand in", "neither", partition)

    async def times(self, sections: list[int]) -> tuple[object, bool]:
        """Return what becomes another when the checkpoint or one of these data blobs changes, without opening one.

        The second value says whether a later change is sure to be seen by it.
        """
        return await _times_of(self.root, self.partition, sections)


def expected_header(slot: Slot, section: int, salt: int, codec: str) -> Header:
    """Return the header that a section's data blob has to have, where it has this salt and this codec's name."""
    first = max(section * slot.items_per_section, slot.boundary)
    name = codec_expected(slot.codec, codec)
    return Header(Kind.DATA, slot.journal_id, section, slot.items_per_section, first, salt, name)


def _salt_in(slot: Slot, section: int, header: Header | BadHeader | None) -> int:
    """Return the salt that a header says, if it is the section's: that of another blob is as good as none."""
    if not isinstance(header, Header) or header != expected_header(slot, section, header.salt, header.codec):
        return NO_SALT
    return header.salt


def _look_at_files(root: os.PathLike[str], partition: str, sections: list[int]) -> tuple[object, bool]:
    paths = [f"{partition}_checkpoint/{0:016x}", *(f"{partition}_data/{section:016x}" for section in sections)]
    now = time.time_ns()
    changed = 0
    seen: list[object] = []
    for path in paths:
        try:
            status = os.stat(os.path.join(root, path), follow_symlinks=False)  # noqa: PTH116, PTH118 - once a look
        except (FileNotFoundError, NotADirectoryError):
            seen.append(path)
            continue
        changed = max(changed, status.st_ctime_ns, status.st_mtime_ns)
        seen.append((path, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    return seen, changed < now - _SETTLED_NS


_times_of = aiofiles.os.wrap(_look_at_files)
