"""Between a journal and its sink: what keeps a broken sink away from the journal, and rooms that take the time.

Nothing here is in use without a sink: `Journal` is then assembled from the rooms as they are.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager, aclosing, nullcontext
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

from posjournal_async.commit import Writer
from posjournal_async.data import DataJournal
from posjournal_async.log import logger
from posjournal_async.metrics import NoMetrics, Sample, Traces, Watches
from posjournal_async.reader import Reader

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType
    from weakref import WeakMethod

    from posjournal_async.config import Context
    from posjournal_async.metrics import Metrics, Source
    from posjournal_async.payloads import Payload
    from posjournal_async.sealed import SealedSections
    from posjournal_async.tail import Tail

__all__ = [
    "MeasuredData",
    "MeasuredReader",
    "MeasuredWriter",
    "Sink",
    "guarded",
    "sample_of",
    "sink_of",
    "source_of",
    "span_of",
]

T = TypeVar("T")


class Sink:
    """A sink that never raises an `Exception`: the first one switches off what is behind it, and is logged.

    A KeyboardInterrupt, a SystemExit or a cancellation in it passes, and is for the caller, as at any other line.
    """

    def __init__(self, sink: Metrics, label: str) -> None:
        self._sink = sink
        self._label = label
        self._watches = sink if isinstance(sink, Watches) else None
        self._traces = sink if isinstance(sink, Traces) else None
        self._is_on = True

    def count(self, name: str, amount: int, label: str) -> None:
        """Add to a counter."""
        if self._is_on:
            try:
                self._sink.count(name, amount, label)
            except Exception:  # noqa: BLE001 - it is logged, and does not come again
                self._switch_off()

    def observe(self, name: str, value: float, label: str) -> None:
        """Add to a distribution."""
        if self._is_on:
            try:
                self._sink.observe(name, value, label)
            except Exception:  # noqa: BLE001 - as in `count`
                self._switch_off()

    def report(self, name: str, value: float) -> None:
        """Add to a distribution of the journal that this is for."""
        self.observe(name, value, self._label)

    def watch(self, source: Source) -> None:
        """Tell of a journal that was opened."""
        if self._watches is not None and self._is_on:
            try:
                self._watches.watch(self._label, source)
            except Exception:  # noqa: BLE001 - as in `count`
                self._switch_off()

    def unwatch(self, source: Source) -> None:
        """Tell of a journal that is closed; also when this is switched off, since it may have been watched before."""
        if self._watches is not None:
            try:
                self._watches.unwatch(source)
            except Exception:  # noqa: BLE001 - as in `count`
                self._switch_off()

    def begin_span(self, name: str) -> Callable[[BaseException | None], None]:
        """Tell that a call begins; return what is to be called when it ends."""
        if self._traces is not None and self._is_on:
            try:
                return partial(self._end_span, self._traces.begin_span(name, self._label))
            except Exception:  # noqa: BLE001 - as in `count`
                self._switch_off()
        return _nothing

    def _end_span(self, end: Callable[[BaseException | None], None], error: BaseException | None) -> None:
        if self._is_on:
            try:
                end(error)
            except Exception:  # noqa: BLE001 - as in `count`
                self._switch_off()

    def _switch_off(self) -> None:
        if self._is_on:
            self._is_on = False
            name = type(self._sink).__name__
            logger.warning(
                "journal %s: the sink %s raised, and is not asked any more", self._label, name, exc_info=True
            )


def _nothing(_: BaseException | None) -> None:
    """End a span that nobody has begun."""


def guarded(context: Context, partition: str) -> Context:
    """Return a context whose sink can do no harm, and whose label is the partition where there is none."""
    if isinstance(context.metrics, Sink) or type(context.metrics) is NoMetrics:
        return context
    label = context.label or partition
    return replace(context, metrics=Sink(context.metrics, label), label=label)


def sink_of(context: Context) -> Sink | None:
    """Return the sink of a guarded context; None where there is nothing to tell it."""
    return context.metrics if isinstance(context.metrics, Sink) else None


def span_of(context: Context, name: str) -> AbstractContextManager[None]:
    """Return what a call of that name is to be made in."""
    sink = sink_of(context)
    return nullcontext() if sink is None else _Span(sink, name)


class _Span(AbstractContextManager[None]):
    """A call, told to a sink; it becomes nobody's current span, so that it may end in another context."""

    def __init__(self, sink: Sink, name: str) -> None:
        self._sink = sink
        self._name = name

    def __enter__(self) -> None:
        self._end = self._sink.begin_span(self._name)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(error)


# The rooms that wait.


class MeasuredData(DataJournal):
    """A data journal that takes the time of its commits."""

    def __init__(self, sink: Sink, *parts: Any, **recorded: Any) -> None:
        super().__init__(*parts, **recorded)
        self._sink = sink

    async def write_durably(self, tail: Tail) -> int:
        """Do as the data journal does."""
        began = perf_counter()
        size = await super().write_durably(tail)
        self._sink.report("commit_seconds", perf_counter() - began)
        return size


class MeasuredReader(Reader):
    """A reader that takes the time of the reads that have to wait, and tells of replays."""

    def __init__(self, sink: Sink, *parts: Any) -> None:
        super().__init__(*parts)
        self._sink = sink

    async def payload(self, position: int) -> Payload | None:
        """Do as the reader does."""
        began = perf_counter()
        payload = await super().payload(position)
        self._sink.report("read_wait_seconds", perf_counter() - began)
        return payload

    def streaming(self, runs: AsyncGenerator[T, None]) -> AbstractAsyncContextManager[AsyncGenerator[T, None]]:
        """Do as the reader does."""
        return _Streaming(self._sink, runs)


class _Streaming(aclosing[Any]):
    """A replay, from its first item to its end."""

    def __init__(self, sink: Sink, runs: AsyncGenerator[T, None]) -> None:
        super().__init__(runs)
        self._sink = sink

    async def __aenter__(self) -> Any:
        self._end = self._sink.begin_span("replay")
        return await super().__aenter__()

    async def __aexit__(self, *exc_info: object) -> None:
        try:
            await super().__aexit__(*exc_info)
        finally:
            error = exc_info[1]
            if not isinstance(error, BaseException) or isinstance(error, GeneratorExit):
                error = None  # it came to its end, or its consumer has seen enough
            self._end(error)


class MeasuredWriter(Writer):
    """A writer that takes the time of those who wait in `sync` and `sync_data`."""

    def __init__(self, sink: Sink, *parts: Any, **fields: Any) -> None:
        super().__init__(*parts, **fields)
        self._sink = sink

    def data_durable(self) -> asyncio.Future[None] | None:
        """Do as the writer does."""
        return self._measured("sync_data", super().data_durable())

    def all_durable(self) -> asyncio.Future[None] | None:
        """Do as the writer does."""
        return self._measured("sync", super().all_durable())

    def _measured(self, name: str, waiter: asyncio.Future[None] | None) -> asyncio.Future[None] | None:
        # Called by the one who waits, in its context; the answer comes from the writer's task.
        if waiter is not None:
            end = self._sink.begin_span(name)
            waiter.add_done_callback(partial(self._was_answered, f"{name}_seconds", perf_counter(), end))
        return waiter

    def _was_answered(
        self, name: str, began: float, end: Callable[[BaseException | None], None], waiter: asyncio.Future[None]
    ) -> None:
        if waiter.cancelled():
            end(asyncio.CancelledError())
            return
        self._sink.report(name, perf_counter() - began)
        end(waiter.exception())

    def _became_durable(self, size: int) -> None:
        self._sink.report("commit_items", size - self.durable)
        super()._became_durable(size)


# What is read off a journal.


def source_of(sample: WeakMethod[Callable[[], Sample]]) -> Source:
    """Return a source that does not keep its journal alive."""

    def source() -> Sample | None:
        present = sample()
        return None if present is None else present()

    return source


def sample_of(  # noqa: PLR0913 - the rooms it looks into
    data: DataJournal,
    sealed: SealedSections,
    reader: Reader,
    writer: Writer,
    *,
    appended: int,
    reads: int,
    replays: int,
) -> Sample:
    """Return how a journal is. Only looks at attributes, since it may be called in another thread."""
    tail, oldest = data.tail, data.oldest
    size, boundary = data.size, data.boundary
    return Sample(
        gauges={
            "size": size,
            "boundary": boundary,
            "retained_items": max(size - boundary, 0),
            "durable_size": min(writer.durable, size),
            "tail_items": len(tail.starts),
            "waiting_bytes": max(data.waiting, 0),
            # Only the oldest unsealed section has blobs; and there is the checkpoint.
            "open_blobs": sealed.handles + (oldest.blob is not None) + (oldest.index is not None) + 1,
            "failed": int(writer.failure is not None),
        },
        totals={
            "items_appended": appended,
            "reads": reads,
            "replays": replays,
            "items_replayed": reader.replayed,
        },
    )
