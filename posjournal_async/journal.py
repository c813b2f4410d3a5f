"""The journal: what a service holds in its hands."""

from __future__ import annotations

import asyncio
import os
import warnings
from contextlib import AsyncExitStack
from functools import partial
from itertools import islice, pairwise
from operator import index
from pathlib import Path
from threading import get_ident
from typing import TYPE_CHECKING, Any, Generic, overload
from weakref import WeakMethod, WeakSet

from typing_extensions import TypeVar

from posjournal_async.commit import Writer
from posjournal_async.config import Config, Context
from posjournal_async.data import DataJournal
from posjournal_async.ending import Ending
from posjournal_async.errors import (
    EmptyAppend,
    ItemOutOfRange,
    ItemPruned,
    JournalClosed,
    JournalFailed,
    SizeOverflow,
)
from posjournal_async.format.record import RECORD_HEAD_LENGTH
from posjournal_async.log import logger, reason_of
from posjournal_async.measuring import (
    MeasuredData,
    MeasuredReader,
    MeasuredWriter,
    guarded,
    sample_of,
    sink_of,
    source_of,
    span_of,
)
from posjournal_async.opening import Opened, open_at_size, open_existing
from posjournal_async.parts import Parts
from posjournal_async.payloads import Payloads, joined
from posjournal_async.reader import Reader
from posjournal_async.removal import Removal
from posjournal_async.replay import Snapshot, replay, replay_batches
from posjournal_async.sealed import SealedSections
from posjournal_async.storage.file import FileStorage
from posjournal_async.tail import LARGEST_SIZE
from posjournal_async.turns import let_others_run
from posjournal_async.waiting import release_beside, retrieve, task_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Iterable, Iterator, Sequence
    from types import TracebackType

    from posjournal_async.codecs import Codec
    from posjournal_async.metrics import Sample
    from posjournal_async.payloads import Payload, Run
    from posjournal_async.recovery.repair import RecoveryReport

__all__ = ["Journal"]

T = TypeVar("T", default=Any)
U = TypeVar("U")  # of the class methods: a bare `Journal` is a `Journal[Any]`, and `Journal.init` is none

_DEFAULT_BUFFER = 256 * 1024

# Items encoded or read between two looks at the event loop: a millisecond or so.
_ENCODED = 1_024
_COMPRESSED = 128
_READ = 256


class Journal(Generic[T]):
    """An append-only journal of items at dense positions, for one writer, on one event loop.

    Any number of tasks may use it at once. What has not been synced may be lost in a crash, from the end and never from
    the middle; what `sync_data` or `sync` returned for is there after any crash, at the position that `append` gave it.

    Made by `init`, `init_at_size`, `init_sync` or `open`, and closed by `close` or by leaving `async with`. Using it
    from another event loop or thread, or in a forked child, raises `RuntimeError`. After `close` every call raises
    `JournalClosed`. After a write, an fsync or a removal failed the journal has *failed*: what would change it raises
    `JournalFailed`, reads below the durable size go on, and opening it again recovers.

    Not made to be subclassed: what makes a journal returns a `Journal`, whatever class it is called on. To add to one,
    hold it in an object of your own; `Contiguous` is the type of what takes its place.

    Example:
        >>> import asyncio
        >>> from posjournal_async import Config, Context, Journal, MemoryStorage
        >>> async def main() -> None:
        ...     async with await Journal.init(Context(MemoryStorage()), Config(partition="orders")) as journal:
        ...         position = await journal.append({"order": 7, "state": "paid"})
        ...         await journal.sync_data()
        ...         print(position, await journal.read(position))
        ...         async for position, item in journal.replay(0):
        ...             print(position, item["state"])
        >>> asyncio.run(main())
        0 {'order': 7, 'state': 'paid'}
        0 paid
    """

    def __init__(self, context: Context, config: Config[T], opened: Opened) -> None:
        """Assemble a journal from its open parts; services call `init`."""
        sink = sink_of(context)
        self._context = context
        self._config = config
        self._is_running = asyncio.get_running_loop().is_running
        self._thread = get_ident()
        self._recovery = opened.report
        slot = opened.checkpoint.slot
        self._payloads = Payloads(config)
        self._encode = None if self._payloads.takes_bytes else config.codec.encode
        self._plain = self._payloads.plain
        self._batch = _ENCODED if config.compression is None else _COMPRESSED
        self._data = (DataJournal if sink is None else partial(MeasuredData, sink))(
            opened.sections,
            journal_id=slot.journal_id,
            items_per_section=slot.items_per_section,
            codec=slot.codec,
            write_buffer=config.write_buffer,
            most_pending=self._batch,
            tail=opened.tail,
            boundary=slot.boundary,
            size=slot.durable,
        )
        self._sealed = SealedSections(
            opened.sections,
            opened.offsets,
            journal_id=slot.journal_id,
            items_per_section=slot.items_per_section,
            first_of=self._data.first_of,
            is_sealed=self._data.is_sealed,
            most=config.max_open_blobs,
        )
        parts = Parts(self._data, opened.offsets, opened.checkpoint, self._sealed)
        self._reader = (Reader if sink is None else partial(MeasuredReader, sink))(self._data, self._sealed)
        self._writer = (Writer if sink is None else partial(MeasuredWriter, sink))(
            parts,
            context=context,
            partition=config.partition,
            durable=slot.durable,
            on_failure=self._has_failed,
        )
        self._removal = Removal(parts, self._writer, context=context, on_discard=self._lower_snapshots)
        self._ending = Ending(
            parts,
            self._writer,
            storage=context.storage,
            partition=config.partition,
            lock=opened.lock,
            on_release=self._has_released,
        )
        self._snapshots: WeakSet[Snapshot] = WeakSet()
        self._reads = 0
        self._replays = 0
        self._opened_at = slot.durable
        self._closing: asyncio.Task[None] | None = None
        self._is_failure_told = False
        _journals.add(self)
        self._sink = sink
        self._source = source_of(WeakMethod(self._sample))
        if sink is not None:
            sink.watch(self._source)
        if not opened.report.clean:
            context.metrics.count("recoveries", 1, context.label)
            logger.warning("journal %s: opening it repaired something: %s", config.partition, opened.report.told())

    # Opening.

    @classmethod
    async def init(cls, context: Context, config: Config[U]) -> Journal[U]:
        """Open a journal, creating it if it is missing, and repair what a crash left.

        Everything that it shows is durable when this returns. Cancelling stops the waiting; the opening is then
        finished and undone behind the scenes, and the lock is free after that. A crash inside loses nothing.

        Args:
            context: What the journal runs on.
            config: How it is kept; a new journal records its `items_per_section` and the name of its codec.

        Raises:
            Corruption: What is stored is not what was written, and no crash explains it; nothing was changed.
            InvalidConfiguration: The journal was made with another `items_per_section`, or a codec that this one does
                not accept.
            JournalLocked: Somebody has it open.
            StorageError: The storage failed.
        """
        return await _opened(context, config, "init", partial(_assembled, open_parts=open_existing))

    @classmethod
    async def init_at_size(cls, context: Context, config: Config[U], size: int) -> Journal[U]:
        """Replace whatever exists by an empty journal whose next append gets position `size`.

        All positions below `size` count as pruned. A crash inside leaves the old journal whole, or a reset that the
        next `init` finishes. A cancelled call is finished behind the scenes, and the lock is free after that.

        Args:
            context: What the journal runs on.
            config: How it is kept; `items_per_section` and codec may differ from those of what is replaced.
            size: Size in items, `0 <= size < 2**64 - 1`.

        Raises:
            SizeOverflow: `size` is 2**64 - 1 or more.
            JournalLocked: Somebody has it open.
            StorageError: The storage failed.
        """
        if _count(size, "size") >= LARGEST_SIZE:
            raise SizeOverflow(size)
        open_parts = partial(open_at_size, size=size)
        return await _opened(context, config, "init_at_size", partial(_assembled, open_parts=open_parts))

    @classmethod
    async def init_sync(cls, context: Context, config: Config[U], positions: range) -> Journal[U]:
        """Open a journal to receive the items of `positions` from somebody who has them.

        What it holds of them is kept: items before the section of `positions.start` are pruned, items from
        `positions.stop` on are discarded. A journal that is empty, ends at or before the start, or begins after it, is
        reset to the start. A crash inside leaves what one in `prune`, `rewind` or `init_at_size` leaves, and doing it
        again does the rest. A cancelled call is finished behind the scenes, and the lock is free after that.

        Args:
            context: What the journal runs on.
            config: How it is kept.
            positions: A range with step 1 that is not empty.

        Raises:
            ValueError: The range is empty, negative, or has another step.
            SizeOverflow: Its start is 2**64 - 1 or more.
            TypeError: It is no range.
            Corruption: As `init`.
            InvalidConfiguration: As `init`.
            JournalLocked: As `init`.
            StorageError: As `init`.
        """
        if not isinstance(positions, range):
            raise TypeError(f"positions: expected a range, found {type(positions).__name__}")
        if not positions or positions.step != 1 or positions.start < 0:
            raise ValueError(f"positions: expected a range of at least one position with step 1, found {positions}")
        if positions.start >= LARGEST_SIZE:
            raise SizeOverflow(positions.start)
        return await _opened(context, config, "init_sync", partial(_brought_to, positions=positions))

    @overload
    @classmethod
    def open(cls, path: str | os.PathLike[str], *, codec: Codec[U], **config: Any) -> Opening[U]: ...

    @overload
    @classmethod
    def open(cls, path: str | os.PathLike[str], **config: Any) -> Opening[Any]: ...

    @classmethod
    def open(cls, path: str | os.PathLike[str], **config: Any) -> Opening[Any]:
        """Open a journal in files: `async with Journal.open("./data/orders") as journal`.

        The last part of the path is the partition, the rest the root of a `FileStorage`. The keywords are those of
        `Config`, and a wrong one is refused at once, as there. What comes back can be entered, or awaited for a journal
        that its holder closes; either does what `init` does, and raises what it raises.

        Example:
            >>> import asyncio, tempfile
            >>> from posjournal_async import Journal
            >>> async def main(root: str) -> None:
            ...     async with Journal.open(f"{root}/orders", items_per_section=1_000) as journal:
            ...         print(await journal.append("paid"))
            >>> with tempfile.TemporaryDirectory() as root:
            ...     asyncio.run(main(root))
            0
        """
        place = Path(path)
        return Opening(Context(FileStorage(place.parent)), Config(partition=place.name, **config))

    # Appending.

    async def append(self, item: T) -> int:
        """Append an item and return its position.

        The item can be read at once, and survives a crash when a `sync_data` or `sync` that was called afterwards has
        returned. Waits only when the write buffer is full, behind a prune, a rewind or an `append_many` of more than
        1,024 items, 1 MiB or the write buffer, and when the item filled its section, which is then synced before this
        returns. A cancelled append either took its position, completely, or took none.

        Raises:
            CodecError: The codec refused the item, or there is no memory to compress it; nothing was appended.
            ItemTooLarge: It is longer than `Config.max_item_size` when encoded; nothing was appended.
            SizeOverflow: The journal has 2**64 - 1 items; nothing was appended.
            StorageError: The section that it filled could not be synced; the journal has failed.
            JournalFailed: It had failed before, or failed while this waited; nothing was appended.
        """
        if get_ident() != self._thread or not self._is_running():
            self._check_here()
        data: Any = item
        if self._encode is not None:
            try:
                data = self._encode(item)
            except Exception as error:
                self._check_changeable()
                raise self._payloads.refusal(error) from error
        # The straight way, one synchronous step: nothing is in the way, there is room, and the section does not get
        # full. Writer.append does the same with all questions asked, and Tail.append_run adds a run as this adds one.
        if type(data) is bytes:
            tail = self._data.tail
            starts = tail.starts
            count = len(starts)
            length = len(data)
            end = tail.end + RECORD_HEAD_LENGTH + length
            if end <= tail.limit and count < tail.most and length <= self._plain:
                try:
                    starts.append(tail.end)
                    tail.pending.append(data)
                    tail.end = end
                except BaseException as error:
                    self._writer.fail(error)
                    raise
                return tail.first + count
        self._check_changeable()
        run = self._payloads.encode([item]) if self._encode is None else self._payloads.checked([data])
        return await self._writer.append(run)

    async def append_many(self, items: Iterable[T]) -> int:
        """Append items at consecutive positions and return the last one.

        All items are encoded before the first is appended, and no other append comes between them. What an iterator
        gives is encoded before the next is asked for, so it may be one object that changes. A crash may keep a prefix
        of them. A cancelled call either took all their positions or none.

        Raises:
            EmptyAppend: There is no item.
            CodecError: As `append`.
            ItemTooLarge: As `append`.
            SizeOverflow: As `append`.
            StorageError: As `append`; otherwise nothing was appended.
            JournalFailed: As `append`.
        """
        self._check_here()
        self._check_changeable()
        runs: list[Run] = []
        rest: Iterator[Any] = iter(items)
        encode: Callable[[list[Any]], Run] = self._payloads.encode
        if not isinstance(items, (list, tuple)):
            # It may give one object again and again, changed each time: each is encoded before the next is asked for.
            rest, encode = map(self._payloads.encoded, rest), self._payloads.checked
        while batch := list(islice(rest, self._batch)):
            runs.append(encode(batch))
            if len(batch) < self._batch:
                break  # a short run is appended in the order of the calls: nothing is awaited before
            await let_others_run()
        if not runs:
            raise EmptyAppend
        self._check_open()
        return await self._writer.append(joined(runs))

    # Reading.

    async def read(self, position: int) -> T:
        """Return the item at a position, synced or not.

        Raises:
            ItemOutOfRange: `position` is not below the size.
            ItemPruned: `position` is below the pruning boundary.
            Corruption: The record is not what was written; nothing was changed.
            CodecError: The codec or the decompression refused the bytes.
            StorageError: The storage could not read; the journal has not failed.
            JournalFailed: The journal has failed, and the position is not below the durable size.
        """
        if get_ident() != self._thread or not self._is_running():
            self._check_here()
        if type(position) is not int or position < 0:
            position = _count(position, "position")
        self._reads += 1
        if self._reads % _READ == 0:
            await let_others_run()  # a loop of reads that never wait would starve everybody else
        payload = self._payload_at_once(position)
        while payload is None:
            payload = await self._reader.payload(position)
            if payload is None:
                payload = self._payload_at_once(position)  # the section was removed or cut: look again
        return self._payloads.decode(payload, position)

    async def read_many(self, positions: Sequence[int]) -> list[T]:
        """Return the items at strictly increasing positions, all of one history; none for none.

        Raises:
            ValueError: The positions do not increase.
            PositionError: `ItemOutOfRange` or `ItemPruned`, as `read`.
            Corruption: As `read`.
            CodecError: As `read`.
            StorageError: As `read`.
            JournalFailed: As `read`.
        """
        self._check_here()
        self._check_open()
        wanted = [_count(position, "position") for position in positions]
        for before, after in pairwise(wanted):
            if before >= after:
                raise ValueError(f"positions: expected each to be larger than the one before, found {before}, {after}")
        for position in wanted[-1:] + wanted[:1]:
            self._check_readable(position)
        while True:
            generation = self._data.generation
            items: list[T] = []
            for position in wanted:
                self._reads += 1
                if self._reads % _READ == 0:
                    await let_others_run()  # as in `read`
                payload = self._payload_at_once(position)
                if payload is None:
                    self._reads -= 1  # `read` counts it once more
                items.append(await self.read(position) if payload is None else self._payloads.decode(payload, position))
            if generation == self._data.generation:
                return items  # else a rewind came between: they may be of two histories

    def _payload_at_once(self, position: int) -> Payload | None:
        """Return the payload of a position that can be read, or None if it is not at hand.

        Raises:
            PositionError, JournalClosed, JournalFailed: It cannot be read.
        """
        data = self._data
        if (
            position < data.boundary
            or (position >= data.settled and position >= data.size)
            or self._closing
            or self._writer.failure
        ):
            self._check_readable(position)
        return self._reader.payload_at_once(position)

    def replay(self, start: int, buffer: int = _DEFAULT_BUFFER) -> AsyncGenerator[tuple[int, T], None]:
        """Stream the items from `start` to the size that the journal has now, each with its position.

        The bounds are checked by this call, not at the first item. What is appended later is not in the stream. A prune
        or a rewind that removes what has not been given out yet ends the stream with an error; it never gives out a
        wrong, repeated or skipped item. Reading is ahead of the consumer by at most `buffer` bytes, plus one item. Left
        early, close it: `async with aclosing(journal.replay(0)) as items`.

        Args:
            start: First position; equal to the size it is an empty stream.
            buffer: Bytes of read-ahead, at least 1; 256 KiB unless given. A large one pays where each read takes long;
                what is decoded in one go, for which other tasks wait, is a third of it and at most 128 KiB.

        Raises:
            ItemOutOfRange: `start` is beyond the size; or in the stream, the position was discarded by `rewind`.
            ItemPruned: `start` is below the pruning boundary; or in the stream, the position was pruned.
            Corruption: In the stream, at the position concerned, which ends it.
            CodecError: In the stream, likewise.
            StorageError: In the stream, likewise.
            JournalClosed: In the stream, when the journal was closed meanwhile.
            JournalFailed: In the stream, when the journal failed and the position is not below the durable size.
        """
        snapshot, buffer = self._snapshot(start, buffer)
        return replay(self._reader, self._payloads, snapshot, self._data.items_per_section, buffer)

    def replay_batches(self, start: int, buffer: int = _DEFAULT_BUFFER) -> AsyncGenerator[tuple[int, list[T]], None]:
        """Stream the items as `replay` does, in lists with the position of the first item in each; cheaper per item.

        A list holds what a third of `buffer` bytes hold and at most 128 KiB, or one item more; at least one item, and
        all of one section. What was pruned or discarded meanwhile is seen between two lists. Arguments and errors are
        those of `replay`.
        """
        snapshot, buffer = self._snapshot(start, buffer)
        return replay_batches(self._reader, self._payloads, snapshot, self._data.items_per_section, buffer)

    def _snapshot(self, start: int, buffer: int) -> tuple[Snapshot, int]:
        self._check_here()
        self._check_open()
        start = _count(start, "start")
        if _count(buffer, "buffer") < 1:
            raise ValueError(f"buffer: expected at least 1 byte, found {buffer}")
        size = self._data.size
        if start > size:
            raise ItemOutOfRange(start, size)
        if start < self._data.boundary:
            raise ItemPruned(start, self._data.boundary)
        snapshot = Snapshot(start, size, self._check_snapshot)
        if self._writer.failure is not None:
            snapshot.lower(self._writer.durable)
        self._snapshots.add(snapshot)
        self._replays += 1
        return snapshot, buffer

    # Removing.

    async def prune(self, min_position: int) -> bool:
        """Remove sections whose items all lie below `min_position`, and say whether there were any.

        Capped at the size, and rounded down to the start of a section. Everything retained is durable before anything
        is removed. Durable when it returns, and the space is back. A crash inside leaves the old boundary or the new
        one. A cancelled prune does not happen, or is finished behind the scenes.

        Args:
            min_position: The first position that has to stay, in items; the section that it lies in stays as a whole.

        Raises:
            Corruption: The header of the section that would be the first does not check out: no journal is opened
                without that. Nothing was changed.
            StorageError: The storage failed, and with it the journal.
            JournalFailed: It had failed before, or failed while this waited; nothing was removed.
        """
        self._check_here()
        self._check_open()
        operation = partial(self._removal.prune, _count(min_position, "min_position"))
        with span_of(self._context, "prune"):
            removed: bool = await self._writer.exclusively(operation)
        return removed

    async def rewind(self, size: int) -> None:
        """Discard items from the end, so that the next append gets position `size`.

        Durable when it returns; no position yields a discarded item after that, nor after any crash. A crash inside
        leaves a size between `size` and the old one. A cancelled rewind does not happen, or is finished behind the
        scenes. A rewind into a sealed section, or to its edge, reads that section.

        Args:
            size: New size in items, `boundary <= size <= size()`; equal to `size()` does nothing.

        Raises:
            InvalidRewind: `size` is larger than the journal.
            ItemPruned: `size` lies below the pruning boundary.
            Corruption: The header of the section that would be the last, or a record in it below `size`, does not check
                out: no journal is opened with that. Nothing was changed.
            StorageError: The storage failed, and with it the journal.
            JournalFailed: It had failed before, or failed while this waited; nothing was discarded.
        """
        self._check_here()
        self._check_open()
        operation = partial(self._removal.rewind, _count(size, "size"))
        with span_of(self._context, "rewind"):
            await self._writer.exclusively(operation)

    # Durability.

    async def sync_data(self) -> None:
        """Make durable every item whose append had returned before this call: they survive any crash.

        Calls that overlap share one fsync of the data; nothing else is written. A cancelled call stops waiting, and the
        commit goes on.

        Raises:
            StorageError: The data could not be synced, and the journal has failed. An fsync is never tried again.
            JournalFailed: It had failed before.
        """
        if get_ident() != self._thread or not self._is_running():
            self._check_here()
        if self._closing is not None:
            self._check_open()
        waiter = self._writer.data_durable()
        if waiter is not None:
            await waiter

    async def sync(self) -> None:
        """Do what `sync_data` does, and leave nothing for the next open to rebuild.

        Data and offsets are synced at the same time, then the checkpoint. A cancelled call stops waiting, and the sync
        goes on.

        Raises:
            StorageError: As `sync_data`.
            JournalFailed: As `sync_data`.
        """
        self._check_here()
        self._check_open()
        waiter = self._writer.all_durable()
        if waiter is not None:
            await waiter

    commit = sync_data

    # Looking.

    def size(self) -> int:
        """Return the position that the next append gets, in items; pruned items count."""
        self._check_here()
        self._check_open()
        return self._data.size

    def oldest_retained_pos(self) -> int | None:
        """Return the position of the oldest item that can be read, or None if there is none."""
        bounds = self.bounds()
        return bounds.start if bounds else None

    def bounds(self) -> range:
        """Return the positions that can be read; its start is the pruning boundary also when there are none."""
        self._check_here()
        self._check_open()
        return range(self._data.boundary, self._data.size)

    def durable_size(self) -> int:
        """Return the size up to which every item survives any crash: each position below it, in items."""
        self._check_here()
        self._check_open()
        return min(self._writer.durable, self._data.size)

    @property
    def recovery(self) -> RecoveryReport:
        """What opening found and repaired."""
        return self._recovery

    @property
    def config(self) -> Config[T]:
        """How the journal is kept."""
        return self._config

    # Ending.

    async def close(self) -> None:
        """Make everything durable, then release the files and the lock.

        Every call after this one raises `JournalClosed`. Calls that wait for their turn or for a sync are finished
        first. Those that take many steps may raise `JournalClosed` at the next one: a replay, a `read_many`, and an
        `append_many` of 1,024 items or more, or 128 that are compressed, of which none is appended then. A cancelled
        close is finished behind the scenes. Closing again waits for the same end, and says the same.

        Raises:
            JournalFailed: The journal had failed; everything is released nevertheless.
            StorageError: Something could not be made durable or released.
        """
        self._check_here()
        closing = self._closing
        if closing is None or (closing.done() and not self._ending.is_released):  # the one before was interrupted
            closing = self._end_with(self._ending.close)
        await asyncio.shield(closing)

    aclose = close

    async def destroy(self) -> None:
        """Remove everything, then release the lock: nothing of the journal is left.

        A crash inside leaves the journal whole, or one that the next `init` finds empty at size 0. A cancelled call is
        finished behind the scenes.

        Raises:
            JournalFailed: It had failed before, or failed while this waited: open it again first; nothing was removed.
            StorageError: The storage failed.
        """
        self._check_here()
        self._check_open()
        self._writer.check_sound()
        await asyncio.shield(self._end_with(self._ending.destroy))

    def _end_with(self, operation: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        # On record from the first moment on: what an interruption leaves undone here is done in the task.
        self._closing = closing = task_of(self._end(operation))
        closing.add_done_callback(retrieve)
        self._refuse_all()
        return closing

    def _refuse_all(self) -> None:
        self._writer.shut()
        self._lower_snapshots(0)

    async def _end(self, operation: Callable[[], Awaitable[None]]) -> None:
        self._refuse_all()
        try:
            await self._writer.exclusively(operation, is_last=True)
        except Exception:
            if not self._ending.is_released:  # the writer was interrupted before, or while it released
                await self._writer.exclusively(self._ending.close, is_last=True)
            raise

    def _has_released(self) -> None:
        if self._sink is not None:
            self._sink.unwatch(self._source)

    async def __aenter__(self) -> Journal[T]:
        self._check_here()
        self._check_open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            await self.close()
        else:
            await release_beside(error, self.close, "closing the journal")

    def __del__(self) -> None:
        # An attribute that is missing: opening failed before there was anything to close.
        if getattr(self, "_closing", self) is None:
            warnings.warn(f"unclosed journal {self._config.partition!r}", ResourceWarning, source=self, stacklevel=2)

    def __repr__(self) -> str:
        state = "closed" if self._closing is not None else "failed" if self._writer.failure is not None else "open"
        bounds = f"{self._data.boundary}..{self._data.size}"
        return f"<Journal {self._config.partition!r} {bounds} {state}>"

    # Checks.

    def _check_here(self) -> None:
        """Refuse use from where the journal was not opened: no part of it is safe there."""
        if get_ident() != self._thread or not self._is_running():
            raise RuntimeError(
                "journal: expected use on the event loop that opened it, found another loop, thread or process"
            )

    def _check_open(self) -> None:
        if self._closing is not None:
            raise JournalClosed(self._config.partition)

    def _check_changeable(self) -> None:
        """Refuse what cannot be appended, whatever it is."""
        self._check_open()
        self._writer.check_sound()

    def _check_readable(self, position: int) -> None:
        self._check_open()
        size = self._data.size
        if position >= size:
            raise ItemOutOfRange(position, size)
        if position < self._data.boundary:
            raise ItemPruned(position, self._data.boundary)
        if self._writer.failure is not None and position >= self._writer.durable:
            raise JournalFailed(self._config.partition, self._writer.failure)

    def _check_snapshot(self, position: int, snapshot: Snapshot) -> None:
        self._check_here()
        self._check_readable(position)
        if position >= snapshot.limit:
            # A step that an interrupted writer left under way may make more durable than there was when it failed.
            self._writer.check_sound()
            raise ItemOutOfRange(position, snapshot.limit)

    def _lower_snapshots(self, limit: int) -> None:
        for snapshot in self._snapshots:
            snapshot.lower(limit)

    def _has_failed(self) -> None:
        self._lower_snapshots(self._writer.durable)
        failure = self._writer.failure
        if failure is not None and not self._is_failure_told:
            self._is_failure_told = True
            self._context.metrics.count("failures", 1, self._context.label)
            logger.error(
                "journal %s failed, and has to be opened again: %s", self._config.partition, reason_of(failure)
            )

    def _sample(self) -> Sample:
        return sample_of(
            self._data,
            self._sealed,
            self._reader,
            self._writer,
            appended=self._data.size - self._opened_at + self._removal.discarded,
            reads=self._reads,
            replays=self._replays,
        )

    def _leave_behind(self) -> None:
        self._thread = 0


class Opening(Generic[T]):
    """A journal that is about to be opened: enter it with `async with`, or await it and close it yourself."""

    def __init__(self, context: Context, config: Config[T]) -> None:
        self._context = context
        self._config = config
        self._journal: Journal[T] | None = None

    def __await__(self) -> Generator[Any, None, Journal[T]]:
        return Journal.init(self._context, self._config).__await__()

    async def __aenter__(self) -> Journal[T]:
        self._journal = await Journal.init(self._context, self._config)
        return self._journal

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._journal is not None
        await self._journal.__aexit__(kind, error, trace)


def _count(value: int, what: str) -> int:
    """Return a number of items or bytes as an int.

    Raises:
        TypeError: It is not an integer.
        ValueError: It is negative.
    """
    number = index(value)
    if number < 0:
        raise ValueError(f"{what}: expected at least 0, found {number}")
    return number


async def _assembled(
    context: Context, config: Config[T], open_parts: Callable[[AsyncExitStack, Context, Config[T]], Awaitable[Opened]]
) -> Journal[T]:
    """Return a journal, or release everything again."""
    stack = AsyncExitStack()
    try:
        return Journal(context, config, await open_parts(stack, context, config))
    except BaseException as error:
        await release_beside(error, stack.aclose, "releasing the journal")
        raise


async def _brought_to(context: Context, config: Config[T], positions: range) -> Journal[T]:
    """Return a journal that is prepared for a range of positions, as `init_sync` says."""
    journal = None
    try:
        journal = await _assembled(context, config, open_existing)
        bounds = journal.bounds()
        if bounds.start <= positions.start < bounds.stop:
            await journal.prune(positions.start)
            await journal.rewind(min(positions.stop, bounds.stop))
            return journal
        await journal.close()
    except BaseException as error:
        if journal is not None:
            await release_beside(error, journal.close, "closing the journal")
        raise
    return await _assembled(context, config, partial(open_at_size, size=positions.start))


async def _opened(
    context: Context,
    config: Config[T],
    call: str,
    opening: Callable[[Context, Config[T]], Coroutine[Any, Any, Journal[T]]],
) -> Journal[T]:
    """Wait for an opening in a task of its own, so that cancelling cannot leave a lock or a file behind."""
    context = guarded(context, config.partition)
    task = None
    try:
        task = task_of(_measured(context, call, partial(opening, context, config)))
        return await asyncio.shield(task)
    except BaseException:
        if task is not None:
            task.add_done_callback(_close_unclaimed)
        raise


async def _measured(context: Context, call: str, opening: Callable[[], Coroutine[Any, Any, Journal[T]]]) -> Journal[T]:
    """Open a journal inside a span; an interruption while the span ends must not lose it open."""
    journal = None
    try:
        with span_of(context, call):
            journal = await opening()
        return journal  # noqa: RET504, TRY300 - inside of the try: there is no line at which it gets lost
    except BaseException as error:
        if journal is not None:
            await release_beside(error, journal.close, "closing the journal")
        raise


def _close_unclaimed(opening: asyncio.Task[Journal[Any]]) -> None:
    """Close a journal that nobody waits for any more. Nothing but the event loop refers to it: it may end with that."""
    if not opening.cancelled() and opening.exception() is None:
        journal = opening.result()
        journal._end_with(journal._ending.close)  # noqa: SLF001 - of this module


# A forked child has copies of all journals, and none of the threads that work for them.
_journals: WeakSet[Journal[Any]] = WeakSet()


def _leave_all_behind() -> None:
    for journal in list(_journals):
        journal._leave_behind()  # noqa: SLF001 - of this module


os.register_at_fork(after_in_child=_leave_all_behind)
