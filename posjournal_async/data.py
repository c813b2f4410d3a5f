"""The data journal: the items themselves, as records in one blob for each section. The source of truth."""

from __future__ import annotations

import secrets
from collections import deque
from typing import TYPE_CHECKING

from posjournal_async.format.header import Header, Kind
from posjournal_async.sections import write_durably
from posjournal_async.tail import LARGEST_SIZE, Tail

if TYPE_CHECKING:
    from posjournal_async.payloads import Run
    from posjournal_async.sections import Sections
    from posjournal_async.storage.protocols import Blob

__all__ = ["PIECE", "STRETCH", "DataJournal"]

# Bytes buffered before the writer is called: large enough that a hop to a thread costs nothing beside them.
PIECE = 128 * 1024

# Bytes and records that are pending when they are framed, in one go, and a loop of appends gives way to other tasks:
# every millisecond or so.
STRETCH = 64 * 1024
_MOST_PENDING = 1_024


class DataJournal:
    """The unsealed sections of a journal, oldest first: records go into the last, the writer empties the first.

    Usually there is one. There are more while the writer still syncs a full section and appends go on in the next.

    Attributes:
        sections: The blobs.
        items_per_section: Positions in a section.
        write_buffer: Bytes of records that may wait to be written.
        tail: The section that the next record goes into.
        boundary: The pruning boundary: no position below it exists.
        settled: All positions from the boundary up to it exist: those of full sections. A read of one of them need not
            ask for the size.
        generation: How often items were discarded from the end: who finds it changed looks again.
    """

    def __init__(  # noqa: PLR0913 - what is recorded in each header
        self,
        sections: Sections,
        *,
        journal_id: int,
        items_per_section: int,
        codec: str,
        write_buffer: int,
        most_pending: int,
        tail: Tail | None,
        boundary: int,
        size: int,
    ) -> None:
        self.sections = sections
        self._journal_id = journal_id
        self.items_per_section = items_per_section
        self._codec = codec
        self.write_buffer = write_buffer
        self._most_pending = min(most_pending, _MOST_PENDING)
        self.boundary = boundary
        self.tail = self._new_tail(size) if tail is None else tail
        self._tails = deque([self.tail])
        # Bytes appended to all tails but the last one, and bytes of all tails that the storage has: see `waiting`.
        self._appended_before = 0
        self._landed = self.tail.end
        self._is_open = False
        self._held_size: int | None = None
        self.settled = self.tail.first
        self.generation = 0

    # Sizes, in items and in bytes.

    @property
    def size(self) -> int:
        """Position that the next append gets, as seen from outside: a run of appends under way does not show."""
        tail = self.tail
        return tail.first + len(tail.starts) if self._held_size is None else self._held_size

    @property
    def oldest(self) -> Tail:
        """The unsealed section that the writer works on."""
        return self._tails[0]

    @property
    def waiting(self) -> int:
        """Bytes that are not in the storage yet."""
        return self._appended_before + self.tail.end - self._landed

    def has_room_for(self, length: int) -> bool:
        """Say whether `length` bytes of records may be added now; anything may when nothing else waits."""
        waiting = self.waiting
        return waiting == 0 or waiting + length <= self.write_buffer

    def unsealed(self, section: int) -> Tail | None:
        """Return a section that is not sealed, or None if it is."""
        if section == self.tail.header.section:
            return self.tail
        for tail in self._tails:
            if tail.header.section == section:
                return tail
        return None

    def is_sealed(self, section: int) -> bool:
        """Say whether a section is full, synced, and neither pruned nor discarded."""
        return self.boundary // self.items_per_section <= section < self.oldest.header.section

    def first_of(self, section: int) -> int:
        """Return the position of a section's first record: its start, unless the journal started later."""
        return max(section * self.items_per_section, self.boundary)

    # Who may append without asking.

    def let_in(self, *, is_open: bool) -> None:
        """Say whether an append may go ahead without asking, and set how far it may go."""
        self._is_open = is_open
        tail = self.tail
        # What goes ahead is at most a stretch, which has fewer items than bytes: it ends below the largest size.
        if not is_open or LARGEST_SIZE - tail.size <= STRETCH:
            tail.limit = 0
            return
        room = self.write_buffer - self.waiting
        tail.limit = min(tail.end + room, tail.framed + STRETCH)
        tail.most = min(tail.stop - tail.first - 1, len(tail.starts) - len(tail.pending) + self._most_pending)

    def hold_size(self) -> None:
        """Show the size as it is now until `show_size`: what is appended meanwhile becomes visible as one."""
        self._held_size = self.tail.size

    def show_size(self) -> None:
        """Show everything that was appended."""
        self._held_size = None
        self.settled = self.tail.first

    # Appending: synchronous, no await from taking a position to buffering its bytes.

    def append_run(self, run: Run) -> int:
        """Add records one after the other, over as many sections as it takes, and return the position of the last."""
        start = 0
        while True:
            tail = self.tail
            stop = start + tail.stop - tail.size
            is_whole = start == 0 and stop >= len(run)
            position = tail.append_run(run if is_whole else run.part(start, stop))
            if tail.end - tail.framed >= STRETCH or len(tail.pending) >= self._most_pending:
                tail.frame()  # while it is little: all of a large write buffer at once would hold up the event loop
            start = stop
            if position + 1 == tail.stop:
                self.open_next()
            if stop >= len(run):
                return position

    def open_next(self) -> None:
        """Let appends go on in the next section; the full one stays until it is sealed."""
        full = self.tail
        self._appended_before += full.end
        self.tail = self._new_tail(full.stop)
        self._landed += self.tail.end  # where it begins is no record's byte
        self._tails.append(self.tail)
        if self._held_size is None:
            self.settled = self.tail.first
        self.let_in(is_open=self._is_open)

    # Writing: one call at a time, by the writer.

    async def write(self, tail: Tail) -> None:
        """Write what is buffered of a section; the blob has been created."""
        assert tail.blob is not None
        if tail.unhanded:
            await tail.blob.write_at(tail.written, tail.take_off())
            self._landed += tail.land()

    async def write_durably(self, tail: Tail) -> int:
        """Write what is buffered of a section and make all of it durable; return the size that is durable then."""
        assert tail.blob is not None
        size = tail.size
        if tail.unhanded:
            await write_durably(tail.blob, tail.written, tail.take_off())
            self._landed += tail.land()
        elif tail.unsynced:
            await tail.blob.sync()
        tail.synced = tail.written
        return size

    async def create(self, tail: Tail) -> None:
        """Make the blob of a section, durably, before the first record is written to it."""
        tail.put_into(await self.sections.create(tail.header))

    def seal_oldest(self) -> None:
        """Take the oldest section, full and durable, out of the unsealed ones."""
        self._tails.popleft()

    # Cutting.

    def cut(self, size: int, tail: Tail | None) -> None:
        """Go on at `size`, in `tail` or in a section that is to be created. Nothing may wait to be written."""
        self.generation += 1
        self.tail = self._new_tail(size) if tail is None else tail
        self.settled = self.tail.first
        self._tails = deque([self.tail])
        self._appended_before = 0
        self._landed = self.tail.end
        self.let_in(is_open=self._is_open)

    def _new_tail(self, size: int) -> Tail:
        section = size // self.items_per_section
        header = Header(
            Kind.DATA, self._journal_id, section, self.items_per_section, size, secrets.randbits(32), self._codec
        )
        return Tail(header)

    def blobs(self) -> list[Blob]:
        """Return the blobs that are open for writing, those of the offsets included."""
        return [blob for tail in self._tails for blob in (tail.blob, tail.index) if blob is not None]
