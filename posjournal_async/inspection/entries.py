"""The records of one section, in order, each proved by its checksum; what cannot be read, as a run that says why."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from errno import ENOENT
from typing import TYPE_CHECKING

from posjournal_async.errors import (
    Corruption,
    ItemOutOfRange,
    ItemPruned,
    JournalError,
    PositionError,
    StorageError,
)
from posjournal_async.format.record import LENGTH_MASK, RECORD_HEAD, RECORD_HEAD_LENGTH, parse_records
from posjournal_async.inspection.source import PIECE, scan
from posjournal_async.inspection.survey import make_durable
from posjournal_async.storage.protocols import reads_at_once

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from posjournal_async.format.checkpoint_slot import Slot
    from posjournal_async.inspection.source import Source, View
    from posjournal_async.storage.protocols import Blob

__all__ = ["Entry", "Replaced", "Unreadable", "entries_of", "missing", "read_soon", "why_gone"]

# How often a position is looked for again while a live writer changes the journal meanwhile.
_LOOKS = 50


class Replaced(PositionError):
    """The position was in the journal that was looked at, which was reset or destroyed since.

    Attributes:
        partition: Base name of the journal.
    """

    def __init__(self, position: int, partition: str) -> None:
        super().__init__(position, partition)
        self.partition = partition

    def __str__(self) -> str:
        found = "that it was reset or destroyed since"
        return f"journal: expected the one that was looked at, found {found} (partition {self.partition})"


@dataclass(frozen=True, slots=True)
class Entry:
    """A record that checked out.

    Attributes:
        position: Its position.
        payload: Its payload as it is stored.
        is_compressed: Whether the payload is a zstd frame.
    """

    position: int
    payload: bytes
    is_compressed: bool

    @property
    def stop(self) -> int:
        """Position after it."""
        return self.position + 1


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Positions that follow each other and cannot be read.

    Attributes:
        start: The first one.
        stop: The one after the last.
        error: Why.
    """

    start: int
    stop: int
    error: JournalError


def _forget(_salt: int, _position: int, _start: int, _records: bytes) -> None:
    """Take records, for nothing."""


async def entries_of(
    view: View, section: int, start: int, stop: int, *, note: Callable[[int, int, int, bytes], None] = _forget
) -> AsyncGenerator[Entry | Unreadable]:
    """Yield the records of positions of one section; see `JournalView.entries`.

    Args:
        view: The journal.
        section: Section number.
        start: First position.
        stop: Position after the last.
        note: Called with the records that are yielded next: the salt of their blob, the position of the first, the byte
            at which it starts, and their bytes.
    """
    position = start
    known = view.survey.slot
    is_stale = False
    looks = 0
    while position < stop:
        found: list[Entry] = []
        end = stop
        fault: JournalError | None = None
        try:
            source = await view.source(section, anew=is_stale)
            found = await _read(view, source, position, stop, note)
            if not found and not source.is_scanned:
                await scan(view, source)
                found = await _read(view, source, position, stop, note)
            # The records behind one that is damaged may be there, if something says where.
            end = position + 1 if position + 1 < source.stop else stop
            offset = source.offset_of(position)
            fault = Corruption("record", "one that checks out", "other bytes", _data(view), section, offset, position)
        except Corruption as error:
            fault = _at(error, section, position)
        except StorageError as error:
            if error.errno != ENOENT:
                raise
            fault = _without_blob(view, section, position)
        is_stale = False
        if found:
            for entry in found:
                yield entry
            position += len(found)
            looks = 0
            continue
        now = await view.slot()
        gone = why_gone(view, now, position, end)
        if gone is None and now != known and looks < _LOOKS:
            # A live writer has cut or removed something, and may have put other items there since: look again.
            known = now
            is_stale = True
            looks += 1
            continue
        unreadable = gone or Unreadable(position, end, fault)
        yield unreadable
        position = unreadable.stop
        looks = 0


async def missing(view: View, section: int, start: int, stop: int) -> Unreadable:
    """Return what there is to say of positions of a run of sections that have no data blob, from `section` on."""
    gone = why_gone(view, await view.slot(), start, stop)
    return gone or Unreadable(start, stop, _without_blob(view, section, start))


def _without_blob(view: View, section: int, position: int) -> Corruption:
    return Corruption("section", "a data blob", "none", _data(view), section, None, position)


def _at(error: Corruption, section: int, position: int) -> Corruption:
    """Return the error with the position that was asked for, where it names none."""
    at = position if error.position is None else error.position
    return Corruption(error.what, error.expected, error.found, error.partition, section, error.offset, at)


def why_gone(view: View, now: Slot | None, start: int, stop: int) -> Unreadable | None:
    """Return what a live writer has done to positions since the view was loaded; None if nothing says that it did."""
    known = view.survey.slot
    if known is None or (now is None and not known.sequence):  # there was no checkpoint at the start either
        return None
    if now is None or now.journal_id != known.journal_id or now.reset is not None:
        return Unreadable(start, stop, Replaced(start, view.partition))
    if now.boundary > start:
        return Unreadable(start, min(stop, now.boundary), ItemPruned(start, now.boundary))
    # They were there above the durable size: a rewind may have lowered it before, and cuts them only now.
    if now.durable <= start:
        return Unreadable(start, stop, ItemOutOfRange(start, now.durable))
    return None


async def _read(
    view: View, source: Source, position: int, stop: int, note: Callable[[int, int, int, bytes], None]
) -> list[Entry]:
    """Return records that follow each other, from the first on; none if that one does not check out."""
    run = source.run_from(position, stop)
    if run is None:
        return []
    start, end, count = run
    if end - start > PIECE:
        # Nothing is read on the word of an index alone.
        head = await source.blob.read_at(start, RECORD_HEAD_LENGTH)
        if len(head) < RECORD_HEAD_LENGTH:
            return []
        word, _ = RECORD_HEAD.unpack(head)
        end = min(end, start + RECORD_HEAD_LENGTH + (word & LENGTH_MASK) - 1)
        if count > 1 or end < start + RECORD_HEAD_LENGTH:
            return []
    raw = await read_soon(source.blob, start, end - start)
    records = parse_records(raw, source.header.salt, position, count)
    if records.ends:
        await _make_durable(view, source, position + len(records.ends))
        note(source.header.salt, position, start, raw[: records.ends[-1]])
    compressed = set(records.compressed)
    return [Entry(position + number, payload, number in compressed) for number, payload in enumerate(records.payloads)]


async def read_soon(blob: Blob, offset: int, length: int) -> bytes:
    """Return bytes of a blob as `read_at` does, without the hop to a thread where they are at hand."""
    found = blob.read_at_once(offset, length) if reads_at_once(blob) else None
    if found is None:
        return await blob.read_at(offset, length)
    await asyncio.sleep(0)  # others are to have their turn all the same
    return found


async def _make_durable(view: View, source: Source, stop: int) -> None:
    """Return when what was read below `stop` is durable.

    It was when the view was loaded, but a rewind may have put other items there since.
    """
    slot = await view.slot()
    if slot is None or slot.journal_id != source.header.journal_id or slot.durable < stop:
        await make_durable(source.blob)


def _data(view: View) -> str:
    return f"{view.partition}_data"
