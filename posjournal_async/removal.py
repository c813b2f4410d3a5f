"""Removing items: from the front by whole sections, from the end exactly.

The writer carries these out with nothing beside them. Each step is durable before the next begins, in an order that
`docs/durability.md` lists together with what a crash in between leaves.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

from posjournal_async.commit import Refusal
from posjournal_async.errors import Corruption, InvalidRewind, ItemPruned
from posjournal_async.scan import scan_records
from posjournal_async.tail import Tail

if TYPE_CHECKING:
    from collections.abc import Callable

    from posjournal_async.commit import Writer
    from posjournal_async.config import Context
    from posjournal_async.format.header import Header
    from posjournal_async.parts import Parts
    from posjournal_async.scan import Scan
    from posjournal_async.sealed_section import SealedSection

__all__ = ["Removal"]


class Removal:
    """Prunes and rewinds one journal.

    Attributes:
        discarded: How many items rewinds have discarded.
    """

    def __init__(
        self,
        parts: Parts,
        writer: Writer,
        *,
        context: Context,
        on_discard: Callable[[int], None],
    ) -> None:
        self._data = parts.data
        self._offsets = parts.offsets
        self._checkpoint = parts.checkpoint
        self._sealed = parts.sealed
        self._writer = writer
        self._metrics = context.metrics
        self._label = context.label
        self._on_discard = on_discard
        self.discarded = 0

    async def prune(self, min_position: int) -> bool:
        """Remove the sections whose items all lie below `min_position`; say whether there were any.

        What is retained is durable first, then the boundary, and then data goes before offsets.
        """
        data = self._data
        ips = data.items_per_section
        old = data.boundary
        boundary = min(min_position, data.size) // ips * ips
        if boundary <= old:
            return False
        if data.is_sealed(boundary // ips):
            await self._header_of(boundary // ips)
        await self._writer.commit_all()
        await self._checkpoint.store(durable=data.size, boundary=boundary)
        data.boundary = boundary  # nobody opens a section below it from here on
        sections = range(old // ips, boundary // ips)
        await self._sealed.forget(sections)
        await data.sections.remove(sections)
        await self._offsets.remove(sections)
        self._metrics.count("sections_pruned", len(sections), self._label)
        return True

    async def _header_of(self, section: int) -> Header:
        """Return the header of a sealed section that is to be the first or the last: opening reads it.

        Raises:
            Refusal: It does not check out.
        """
        try:
            return await self._sealed.read_header(section)
        except Corruption as corruption:
            raise Refusal(corruption) from corruption

    async def rewind(self, size: int) -> None:
        """Discard the items from `size` on.

        The checkpoint is lowered before what it vouches for is cut, and data goes before offsets. A truncation is
        durable before the next byte is written: else a crash could keep that byte and bring back discarded items
        behind it.
        """
        data = self._data
        old = data.size
        if size > old:
            raise Refusal(InvalidRewind(size, old))
        if size < data.boundary:
            raise Refusal(ItemPruned(size, data.boundary))
        if size == old:
            return
        await self._writer.commit_all()
        section, last = size // data.items_per_section, data.tail.header.section
        tail = await self._tail_at(size)
        lower = partial(self._checkpoint.store, durable=size, boundary=data.boundary)
        if tail is None or tail.blob is not None:
            await lower()
        else:
            tail.put_into((await self._sealed.take(section, lower)).blob)
        gone = data.blobs() if tail is None or section != last else []
        # From here on the discarded items are not shown, whatever happens.
        data.cut(size, tail)
        self.discarded += old - size
        self._writer.discard(size)
        self._on_discard(size)
        async with AsyncExitStack() as stack:  # closes all of them, also when one cannot be closed
            for blob in gone:
                stack.push_async_callback(blob.close)
        removed = range(section if tail is None else section + 1, last + 1)[::-1]
        # The section that was cut too: a reader may have opened it once more while the checkpoint was stored.
        await self._sealed.forget(range(section, last + 1))
        await data.sections.remove_from_end(removed)
        if tail is not None:
            assert tail.blob is not None
            await tail.blob.resize(tail.end)
            await tail.blob.sync()
        await self._offsets.remove(removed)
        if tail is not None:
            await self._cut_index(tail)
        self._metrics.count("items_rewound", old - size, self._label)

    async def _tail_at(self, size: int) -> Tail | None:
        """Return the last section as it will be at `size`; None if it will have no item and no blob.

        It has its blobs, unless it is sealed: they are taken when the checkpoint is lowered.
        """
        data = self._data
        section = size // data.items_per_section
        count = size - data.first_of(section)
        if count <= 0:
            if size > data.boundary:  # the section before will be the last one, which opening reads
                await self._proved(section - 1, size - data.first_of(section - 1))
            return None
        present = data.unsealed(section)
        if present is None:
            header, scan = await self._proved(section, count)
            starts, end = scan.starts, scan.end
        else:
            header, starts, end = present.header, present.starts, present.end
        tail = Tail(header, starts[:count], starts[count] if count < len(starts) else end)
        tail.indexed = count
        if present is not None:
            assert present.blob is not None
            tail.put_into(present.blob)
            tail.index = present.index
        return tail

    async def _cut_index(self, tail: Tail) -> None:
        """Make the index end with the section.

        That of one that was sealed is made anew, and not before the checkpoint was lowered: behind a damaged record
        only the one that is there leads on.
        """
        if tail.index is None:
            tail.index, _ = await self._offsets.align(tail.header, tail.starts, was_synced=True)
        else:
            await self._offsets.cut(tail)

    async def _proved(self, section: int, count: int) -> tuple[Header, Scan]:
        """Return the header and the records of a sealed section, of which `count` are to stay.

        What stays of the last section has to prove itself: a damaged record in it would keep the journal from being
        opened. Nor is it cut on the word of the index, which may be wrong or an older one: that would cut into what is
        durable, or keep what was to be discarded.

        Raises:
            Refusal: The header or one that is to stay is damaged.
        """
        header = await self._header_of(section)
        try:
            scan = await self._sealed.using(section, partial(_records_of, header=header))
        except Corruption as corruption:
            raise Refusal(corruption) from corruption
        assert scan is not None, "a section that is not sealed was cut"
        found = len(scan.starts)
        if found < count:
            partition, position = self._data.sections.partition, self._data.first_of(section) + found
            raise Refusal(
                Corruption("record", "one that checks out", "other bytes", partition, section, scan.end, position)
            )
        return header, scan


async def _records_of(sealed: SealedSection, header: Header) -> Scan:
    return await scan_records(sealed.blob, sealed.end, header)
