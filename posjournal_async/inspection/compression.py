"""How much smaller compression has made the items of a journal: of all of them, or of a sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from posjournal_async.codecs import BytesCodec
from posjournal_async.errors import CodecError
from posjournal_async.inspection.entries import Unreadable
from posjournal_async.inspection.states import SectionState
from posjournal_async.inspection.view import Decoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from posjournal_async.inspection.view import JournalView

__all__ = ["Compression", "compression_of"]

# A sample is at most so many runs of records, evenly spread, each of at most so many records and so many bytes.
_RUNS = 8
_RUN_ITEMS = 128
_RUN_BYTES = 1024 * 1024

_MOST_UNREADABLE = 100


@dataclass(frozen=True, slots=True)
class Compression:
    """What was found.

    Attributes:
        items: Items that were looked at.
        compressed: Those among them whose record says that its payload is compressed.
        item_bytes: Bytes of the items as their codec encoded them.
        stored_bytes: Bytes of their payloads as they are stored.
        is_whole: Whether these are all items of the journal, not a sample.
        unreadable: Positions that could not be read, the first hundred runs of them.
    """

    items: int
    compressed: int
    item_bytes: int
    stored_bytes: int
    is_whole: bool
    unreadable: tuple[Unreadable, ...]

    @property
    def ratio(self) -> float | None:
        """Bytes of the items for each byte that is stored; None if nothing is stored."""
        return self.item_bytes / self.stored_bytes if self.stored_bytes else None


async def compression_of(
    view: JournalView, *, is_exact: bool = False, advance: Callable[[int], None] = lambda _: None
) -> Compression:
    """Read items and decompress those whose record says that they are compressed; what cannot be read is left out.

    Args:
        view: The journal.
        is_exact: Whether to read all items. Otherwise it is a sample of at most 8 runs of 128 records, from sections
            that need not be read through for that.
        advance: Called with the number of items that were read since the last call.
    """
    decoder = Decoder(BytesCodec())  # whatever the codec: what it made of the items
    items = compressed = item_bytes = stored_bytes = 0
    unreadable: list[Unreadable] = []
    for start, stop in [(view.bounds.start, view.bounds.stop)] if is_exact else _runs(view):
        run_bytes = 0
        async for entry in view.entries(start, stop):
            if isinstance(entry, Unreadable):
                unreadable.append(entry)
                continue
            try:
                length = len(decoder.item_of(entry)) if entry.is_compressed else len(entry.payload)
            except CodecError as error:
                unreadable.append(Unreadable(entry.position, entry.stop, error))
                continue
            items += 1
            compressed += entry.is_compressed
            item_bytes += length
            stored_bytes += len(entry.payload)
            run_bytes += max(length, len(entry.payload))
            advance(1)
            if run_bytes >= _RUN_BYTES and not is_exact:
                break
    return Compression(
        items=items,
        compressed=compressed,
        item_bytes=item_bytes,
        stored_bytes=stored_bytes,
        is_whole=items == view.count,
        unreadable=tuple(unreadable[:_MOST_UNREADABLE]),
    )


def _runs(view: JournalView) -> Iterator[tuple[int, int]]:
    """Yield the runs of positions that are a sample, or all of the journal where that is no more."""
    sections = [
        section
        for section in view.sections
        if section.items and (section.state is SectionState.SEALED or section.scan is not None)
    ]
    if sum(section.items for section in sections) <= _RUNS * _RUN_ITEMS and len(sections) <= _RUNS:
        yield from ((section.first, section.stop) for section in sections)
        return
    # Evenly over the positions, the ends included: a run begins at the same share of its section as of the journal.
    for number in range(_RUNS):
        share = number / (_RUNS - 1)
        section = sections[round(share * (len(sections) - 1))]
        start = section.first + int(share * max(section.items - _RUN_ITEMS, 0))
        yield start, min(start + _RUN_ITEMS, section.stop)
