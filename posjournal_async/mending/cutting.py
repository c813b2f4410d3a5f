"""Ending a journal before damage that opening refuses: what that means, and what the journal is then.

Nothing is decided here. The user names the position, and everything from it on goes, as a rewind has it: the
checkpoint is lowered first, then the data goes, the newest first, then the offsets. What recovery will make of the rest
is found out beforehand, on a view of the files as they will be.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from posjournal_async.checkpoint import Checkpoint, read_slots
from posjournal_async.errors import Corruption, ItemOutOfRange, ItemPruned
from posjournal_async.format.checkpoint_slot import SLOT_LENGTH, Slot
from posjournal_async.format.header import Header
from posjournal_async.inspection.present import opened_if_there
from posjournal_async.scan import scan_records
from posjournal_async.sections import Sections, read_header
from posjournal_async.storage.memory import MemoryStorage

if TYPE_CHECKING:
    from posjournal_async.storage.protocols import Blob, Storage

__all__ = ["AsCut", "Cut", "cut_away", "cut_of"]


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a journal is to end, and what goes.

    Attributes:
        position: The first position that goes: the size of the journal then.
        slot: The checkpoint as it is; what the data says instead, with sequence number 0, where it is lost.
        place: Which of the two slots that is.
        size: Position after the last item that can be read without a gap: the durable size, or above it.
        behind: Items that can be read but lie behind a gap above that, where opening would drop them.
        gone: Sections whose blobs go as a whole, newest first.
        section: The section that is cut, or None.
        end: Byte at which its data blob is cut.
        length: Length of that blob.
    """

    position: int
    slot: Slot
    place: int
    size: int
    behind: int
    gone: tuple[int, ...]
    section: int | None = None
    end: int = 0
    length: int = 0

    @property
    def lost(self) -> int:
        """Positions below the durable size that go."""
        return max(self.slot.durable - self.position, 0)

    @property
    def lost_above(self) -> int:
        """Items that go from the durable size on, where `sync_data` may have acknowledged them."""
        return self.size - self.slot.durable

    @property
    def after(self) -> Slot:
        """The checkpoint that is written first."""
        return replace(self.slot, sequence=self.slot.sequence + 1, durable=self.position)


async def cut_of(  # noqa: PLR0913 - what is known of the journal
    storage: Storage, partition: str, slot: Slot, place: int, position: int, *, size: int, behind: int
) -> Cut:
    """Say what goes when a journal is to end before a position.

    Raises:
        ItemPruned: The position lies below the pruning boundary.
        ItemOutOfRange: It lies above the durable size, where opening itself finds the end.
        Corruption: A record before it, in its section, does not check out, or the section has no data blob.
    """
    if position < slot.boundary:
        raise ItemPruned(position, slot.boundary)
    if position > slot.durable:
        raise ItemOutOfRange(position, slot.durable)
    sections = Sections(storage, f"{partition}_data")
    ips = slot.items_per_section
    section = position // ips
    first = max(section * ips, slot.boundary)
    stays = position > first
    there = {*await sections.scan(), *await Sections(storage, f"{partition}_offsets").scan()}
    gone = tuple(sorted((other for other in there if other >= section + stays), reverse=True))
    if not stays:
        return Cut(position, slot, place, size, behind, gone)
    async with opened_if_there(storage, sections.partition, section) as found:
        if found is None:
            raise Corruption("data blob", "one", "none", sections.partition, section, None, first)
        blob, length = found
        header = await read_header(blob, length)
        if not isinstance(header, Header) or header.first != first:
            raise Corruption("header", "one that checks out", "another", sections.partition, section, 0, first)
        scan = await scan_records(blob, length, header)
    if len(scan.starts) < position - first:
        at = first + len(scan.starts)
        raise Corruption("record", "one that checks out", "other bytes", sections.partition, section, scan.end, at)
    end = [*scan.starts, scan.end][position - first]
    return Cut(position, slot, place, size, behind, gone, section, end, length)


async def cut_away(storage: Storage, partition: str, cut: Cut) -> None:
    """Do it, durably. A crash inside leaves a journal that ends between the position and where it ended, or the damage.

    In the latter case the same cut finishes it.
    """
    blob, slots = await read_slots(storage, f"{partition}_checkpoint")
    try:
        checkpoint = Checkpoint(blob, cut.slot, slots.place)
        await checkpoint.confirm()
        await checkpoint.store(durable=cut.position, boundary=cut.slot.boundary)
    finally:
        await blob.close()
    data = Sections(storage, f"{partition}_data")
    await data.remove_from_end(cut.gone)
    if cut.section is not None:
        async with data.opened(cut.section) as (blob, _):
            await blob.resize(cut.end)
            await blob.sync()
    await Sections(storage, f"{partition}_offsets").remove(cut.gone)


class AsCut:
    """A view of a storage in which a journal was cut. It is for reading only."""

    def __init__(self, storage: Storage, partition: str, cut: Cut) -> None:
        self._storage = storage
        self._partition = partition
        self._cut = cut
        self._gone = {section.to_bytes(8) for section in cut.gone}
        self.remove = storage.remove
        self.lock = storage.lock

    async def scan(self, partition: str) -> list[bytes]:
        """Return the names that will be left."""
        names = await self._storage.scan(partition)
        if partition == f"{self._partition}_checkpoint":
            return names or [(0).to_bytes(8)]
        return [name for name in names if name not in self._gone]

    async def open(self, partition: str, name: bytes) -> tuple[Blob, int]:
        """Open a blob as it will be."""
        cut = self._cut
        if partition == f"{self._partition}_checkpoint":
            return await self._checkpoint(partition, name)
        blob, length = await self._storage.open(partition, name)
        if partition == f"{self._partition}_data" and cut.section is not None and name == cut.section.to_bytes(8):
            return _Shortened(blob, cut.end), cut.end
        return blob, length

    async def _checkpoint(self, partition: str, name: bytes) -> tuple[Blob, int]:
        both = bytes(2 * SLOT_LENGTH)
        if name in await self._storage.scan(partition):
            blob, _ = await self._storage.open(partition, name)
            try:
                both = (await blob.read_at(0, 2 * SLOT_LENGTH)).ljust(2 * SLOT_LENGTH, b"\0")
            finally:
                await blob.close()
        at = (1 - self._cut.place) * SLOT_LENGTH
        both = both[:at] + self._cut.after.to_bytes() + both[at + SLOT_LENGTH :]
        shown = MemoryStorage()
        copy, _ = await shown.open(partition, name)
        await copy.write_at(0, both)
        return copy, len(both)


class _Shortened:
    """A blob of which only the beginning is shown. It is for reading only."""

    def __init__(self, blob: Blob, length: int) -> None:
        self._blob = blob
        self._length = length
        self.write_at = blob.write_at
        self.resize = blob.resize
        self.sync = blob.sync
        self.close = blob.close

    async def read_at(self, offset: int, length: int) -> bytes:
        return await self._blob.read_at(offset, max(min(length, self._length - offset), 0))
