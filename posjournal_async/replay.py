"""Stream items back: a snapshot of the history, read ahead piece by piece."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from posjournal_async.format.record import RECORD_HEAD_LENGTH, RecordFault, Records, parse_records, records_at
from posjournal_async.scan import LONG
from posjournal_async.turns import let_others_run
from posjournal_async.waiting import retrieve

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from posjournal_async.payloads import Payloads
    from posjournal_async.reader import Place, Reader

__all__ = ["Snapshot", "replay", "replay_batches"]

T = TypeVar("T")

# The buffer holds three things at once: the items being given out, the bytes being parsed into the next ones, and
# those being read ahead.
_SHARES = 3

# Bytes that are parsed and decoded in one go, at most, however large the buffer: some milliseconds, in which nobody
# else runs. It is more than the usual piece.
_STEP = 128 * 1024

# Bytes of a piece that takes longer to give out than the turns of the event loop that others are given behind it.
_LONG = 16 * 1024


class Snapshot:
    """The part of a history that a replay gives out.

    Attributes:
        start: First position.
        stop: Position after the last.
        limit: Position from which on the items are not there any more, or are not to be shown: `stop` as long as
            nothing happened. Lowered by a rewind, by a failure and to 0 when the journal closes.
    """

    __slots__ = ("__weakref__", "_check", "limit", "start", "stop")

    def __init__(self, start: int, stop: int, check: Callable[[int, Snapshot], None]) -> None:
        self.start = start
        self.stop = stop
        self.limit = stop
        self._check = check

    def lower(self, limit: int) -> None:
        """Show nothing from `limit` on."""
        self.limit = min(self.limit, limit)

    def check(self, position: int) -> None:
        """Raise why a position cannot be shown any more, if it cannot.

        Raises:
            ItemPruned, ItemOutOfRange, JournalClosed, JournalFailed: As reading the position would.
        """
        self._check(position, self)


async def replay(
    reader: Reader, payloads: Payloads[T], snapshot: Snapshot, items_per_section: int, buffer: int
) -> AsyncGenerator[tuple[int, T], None]:
    """Yield the items of a snapshot with their positions."""
    async with reader.streaming(_runs(reader, snapshot, items_per_section, buffer)) as runs:
        async for first, records in runs:
            items, error = payloads.decode_all(records, first)
            stop = first + len(items)
            for item in zip(range(first, stop), items, strict=True):
                if snapshot.limit < stop:
                    snapshot.check(item[0])
                yield item
            if error is not None:
                snapshot.check(stop)
                raise error


async def replay_batches(
    reader: Reader, payloads: Payloads[T], snapshot: Snapshot, items_per_section: int, buffer: int
) -> AsyncGenerator[tuple[int, list[T]], None]:
    """Yield the items of a snapshot in lists, each with the position of its first item."""
    async with reader.streaming(_runs(reader, snapshot, items_per_section, buffer)) as runs:
        async for first, records in runs:
            items, error = payloads.decode_all(records, first)
            if items:
                yield first, items
            if error is not None:
                snapshot.check(first + len(items))
                raise error


async def _runs(
    reader: Reader, snapshot: Snapshot, items_per_section: int, buffer: int
) -> AsyncGenerator[tuple[int, Records], None]:
    """Yield the records of a snapshot, some at a time, in order and each once."""
    piece = max(buffer // _SHARES, 1)
    pieces = _Pieces(reader, snapshot)
    position = snapshot.start
    try:
        while position < snapshot.stop:
            snapshot.check(position)
            section = position // items_per_section
            stop = min((section + 1) * items_per_section, snapshot.stop)
            was_open = reader.is_open(section)
            place = await reader.locate(position)
            if place is None:
                continue
            at, wanted = place.start, piece
            rest: bytes = b""
            while position < stop:
                fetched = await pieces.next(position, section, at, wanted)
                at += len(fetched)
                run: bytes = rest + fetched
                records = _parsed(place, run, position, at - len(run), min(stop, snapshot.limit) - position)
                if not records.ends:
                    if records.fault is RecordFault.BAD or not fetched:
                        raise reader.corruption_at(position, at - len(run))
                    if records.needed <= LONG:
                        rest, wanted = run, records.needed - len(run)  # one item larger than a piece
                        continue
                    large = await _large(reader, snapshot, position)
                    if large is None:
                        break  # the section was cut or removed: look again
                    records, at, run = large, at - len(run) + large.ends[0], b""
                rest, wanted = run[records.ends[-1] :], piece
                del run, fetched
                first = position
                position += len(records.ends)
                reader.replayed += len(records.ends)
                if position < stop:
                    pieces.read_ahead(section, at, wanted)
                yield first, records
            if not was_open:
                reader.let_go(section)  # else a long replay would leave as many indexes behind as may be kept
    finally:
        pieces.drop()


def _parsed(place: Place, run: bytes, position: int, start: int, most: int) -> Records:
    """Return the records that a run of bytes begins with, at most so many; it starts at a byte of the blob."""
    edges = place.edges(position, start, start + len(run), most)
    records = records_at(run, place.salt, position, edges)
    return parse_records(run, place.salt, position, most) if records is None else records


async def _large(reader: Reader, snapshot: Snapshot, position: int) -> Records | None:
    """Return a record that claims to be large, as `read` finds it: it may be damage that does; None to look again."""
    payload = await reader.payload(position)
    snapshot.check(position)
    if payload is None:
        return None
    data, is_compressed = payload
    return Records([data], [0] if is_compressed else [], [RECORD_HEAD_LENGTH + len(data)], None, 0)


class _Pieces:
    """The bytes of a snapshot piece by piece; while one is given out the next is read, unless it is at hand anyway.

    A long piece is given out step by step. Every step comes with an await, so a consumer that never waits does not
    starve the event loop. Before a blob is touched, and again after an await, the snapshot is asked: one that was
    closed or removed must not be opened again.
    """

    __slots__ = ("_ahead", "_ahead_from", "_piece", "_piece_from", "_reader", "_snapshot", "_start")

    def __init__(self, reader: Reader, snapshot: Snapshot) -> None:
        self._reader = reader
        self._snapshot = snapshot
        # What is being read, and from where: a section and a byte of it.
        self._ahead: asyncio.Task[bytes | None] | None = None
        self._ahead_from = (-1, 0)
        # What is left of a piece is its bytes from `_start` on, and where they are from.
        self._piece: bytes = b""
        self._piece_from = (-1, 0)
        self._start = 0

    async def next(self, position: int, section: int, at: int, wanted: int) -> bytes:
        """Return the next step: bytes of a section from `at` on. At most `wanted` are read, unless they were before."""
        self._snapshot.check(position)
        if self._left_from(section, at):
            await let_others_run()
            self._snapshot.check(position)
            return self._step(section, at)
        if self._ahead_from != (section, at):
            self.drop()
        ahead, self._ahead = self._ahead, None
        piece = None if ahead is not None else self._reader.fetch_at_once(section, at, min(wanted, _STEP))
        await (let_others_run() if wanted >= _LONG else asyncio.sleep(0))
        self._snapshot.check(position)
        while piece is None:
            piece = await (self._reader.fetch(section, at, wanted) if ahead is None else ahead)
            self._snapshot.check(position)
            ahead = None  # None came back: the section was cut, and is the last one again
        if len(piece) <= _STEP:
            return piece
        self._piece, self._start = piece, 0
        return self._step(section, at)

    def _left_from(self, section: int, at: int) -> int:
        """Return how many bytes from there on are left of a piece."""
        return len(self._piece) - self._start if self._piece_from == (section, at) else 0

    def _step(self, section: int, at: int) -> bytes:
        """Take a step off the piece, which is the bytes of a section from `at` on."""
        step = self._piece[self._start : self._start + _STEP]
        self._start += len(step)
        self._piece_from = (section, at + len(step))
        if self._start == len(self._piece):
            self._piece, self._start = b"", 0
        return step

    def read_ahead(self, section: int, at: int, wanted: int) -> None:
        """Begin to read the piece that comes next, if it is not begun."""
        at += self._left_from(section, at)
        if self._ahead is None and self._reader.fetch_at_once(section, at, 1) is None:
            self._ahead = asyncio.get_running_loop().create_task(self._reader.fetch(section, at, wanted))
            self._ahead_from = (section, at)
            self._ahead.add_done_callback(retrieve)

    def drop(self) -> None:
        """Stop reading ahead."""
        if self._ahead is not None:
            self._ahead.cancel()
            self._ahead = None
