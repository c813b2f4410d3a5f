"""The OpenTelemetry adapter against the real SDK, whose readers and exporters keep what they get in memory."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from posjournal_async import CodecError, Context, Journal, JournalFailed, MemoryStorage, StorageError
from posjournal_async.adapters.opentelemetry import OpenTelemetryMetrics
from posjournal_async.metrics import CATALOGUE, Kind
from posjournal_async.testing import FaultyStorage, GatedStorage
from tests.journals import config_of, filled, streamed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.sdk.trace import ReadableSpan

UNITS = {"bytes": "By", "seconds": "s"}


@dataclass
class Telemetry:
    """An SDK, and a sink for it."""

    reader: InMemoryMetricReader = field(default_factory=InMemoryMetricReader)
    exporter: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)

    def __post_init__(self) -> None:
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.tracers.get_tracer("the service")
        self.sink = OpenTelemetryMetrics(self.meters, self.tracers)

    def metrics(self) -> dict[str, Any]:
        """What is exported now, by name."""
        data = self.reader.get_metrics_data()
        if data is None:
            return {}
        [resource] = data.resource_metrics
        [scope] = resource.scope_metrics
        return {metric.name: metric for metric in scope.metrics}

    def values_of(self, name: str) -> dict[str, float]:
        """The values of an instrument by its attribute `journal`, which has to be the only one."""
        metric = self.metrics().get(f"posjournal.{name}")
        points = [] if metric is None else metric.data.data_points
        assert all(list(point.attributes) == ["journal"] for point in points)
        return {point.attributes["journal"]: point.value for point in points}

    def spans(self) -> list[tuple[str, ReadableSpan]]:
        """The spans of the library that have ended, in that order, with the name of the span that each is below."""
        spans = self.exporter.get_finished_spans()
        names = {span.context.span_id: span.name for span in spans if span.context is not None}
        return [
            (names[span.parent.span_id] if span.parent is not None else "", span)
            for span in spans
            if span.name.startswith("posjournal.")
        ]


class Quoting:
    """A codec whose errors quote what they are about."""

    name = "quoting"

    def encode(self, item: bytes) -> bytes:
        return item

    def decode(self, data: bytes) -> bytes:
        raise ValueError(f"cannot decode {data!r}")


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    """An SDK, shut down in the end."""
    telemetry = Telemetry()
    yield telemetry
    telemetry.meters.shutdown()
    telemetry.tracers.shutdown()


async def test_every_metric_is_an_instrument_with_its_unit(telemetry: Telemetry) -> None:
    """Under its name, with a word about it, and the buckets that fit."""
    storage = MemoryStorage()
    async with await filled(Context(storage, telemetry.sink), 25) as journal:
        await journal.sync_data()
        await journal.append(b"x")
        await journal.sync()
        await journal.prune(10)
        await journal.rewind(22)
        await journal.read(11)
        metrics = telemetry.metrics()
    never = {"recoveries", "failures"}
    assert {name: (metric.unit, metric.description) for name, metric in metrics.items()} == {
        f"posjournal.{metric.name}": (UNITS.get(metric.unit, f"{{{metric.unit}}}"), metric.says)
        for metric in CATALOGUE
        if metric.name not in never
    }
    for metric in CATALOGUE:
        if metric.kind is Kind.DISTRIBUTION:
            [point] = metrics[f"posjournal.{metric.name}"].data.data_points
            assert point.explicit_bounds == metric.bounds


async def test_the_numbers_are_those_of_the_journal(telemetry: Telemetry) -> None:
    """Counters go on when it is closed and opened again; gauges are gone in between."""
    context = Context(MemoryStorage(), telemetry.sink, "shop")
    async with await filled(context, 25) as journal:
        await journal.rewind(23)
        assert telemetry.values_of("size") == {"shop": 23}
        assert telemetry.values_of("items_appended") == {"shop": 25}
        assert telemetry.values_of("items_committed") == {"shop": 25}
    assert telemetry.values_of("size") == {}
    assert telemetry.values_of("items_appended") == {"shop": 25}
    async with await filled(context, 24):
        assert telemetry.values_of("size") == {"shop": 24}
        assert telemetry.values_of("items_appended") == {"shop": 26}


async def test_each_caller_of_a_group_commit_has_a_span_below_its_own(telemetry: Telemetry) -> None:
    """One fsync, done by the task of the writer, which is in the context of whoever came first."""
    storage = GatedStorage(MemoryStorage())
    async with await Journal.init(Context(storage, telemetry.sink), config_of(100)) as journal:
        await journal.append(b"x")
        await journal.sync()
        telemetry.exporter.clear()

        async def request(number: int) -> None:
            with telemetry.tracer.start_as_current_span(f"request {number}"):
                await journal.append(b"x")
                await journal.sync_data()

        storage.hold(lambda call: call.what in {"sync", "write_durably_at"})
        first = asyncio.create_task(request(0))
        await storage.until_held()
        others = [asyncio.create_task(request(number)) for number in range(1, 9)]
        await asyncio.sleep(0)
        storage.let_all_go()
        await asyncio.gather(first, *others)
        [commits] = telemetry.values_of("commits").values()
        assert commits == 1 + 2  # the sync, the first request, all others together
    spans = telemetry.spans()
    assert [span.name for _, span in spans] == ["posjournal.sync_data"] * 9
    assert sorted(parent for parent, _ in spans) == [f"request {number}" for number in range(9)]
    assert all(span.attributes == {"journal": "orders"} for _, span in spans)
    assert all(span.status.status_code is StatusCode.UNSET for _, span in spans)


async def test_each_call_of_weight_is_a_span_below_the_current_one(telemetry: Telemetry) -> None:
    """Also where a task of its own does the work; an append and a read are none."""
    context = Context(MemoryStorage(), telemetry.sink)
    with telemetry.tracer.start_as_current_span("opening"):
        journal = await Journal.init(context, config_of())
    with telemetry.tracer.start_as_current_span("working"):
        await journal.append_many([b"x"] * 15)
        await journal.read(3)
        await journal.sync()
        await journal.prune(10)
        await journal.rewind(12)
        await streamed(journal.replay(10))
    await journal.close()
    assert [(parent, span.name) for parent, span in telemetry.spans()] == [
        ("opening", "posjournal.init"),
        ("working", "posjournal.sync"),
        ("working", "posjournal.prune"),
        ("working", "posjournal.rewind"),
        ("working", "posjournal.replay"),
    ]
    for _, span in telemetry.spans():
        assert span.start_time is not None
        assert span.end_time is not None
        assert span.start_time <= span.end_time


async def test_a_span_says_how_its_call_failed_without_a_byte_of_an_item(telemetry: Telemetry) -> None:
    """An error is an event and the status; the codec's own error, which quotes the item, is not in it."""
    storage = MemoryStorage()
    config = config_of(codec=Quoting())
    async with await Journal.init(Context(storage), config) as plain:
        await plain.append(b"secret")
    faulty = FaultyStorage(storage)
    gated = GatedStorage(faulty)
    journal = await Journal.init(Context(gated, telemetry.sink), config)
    with pytest.raises(CodecError):
        await streamed(journal.replay(0))
    await journal.append(b"x")
    gated.hold(lambda call: call.what in {"sync", "write_at", "write_durably_at"})
    impatient = asyncio.create_task(journal.sync_data())
    await gated.until_held()
    impatient.cancel()
    gated.let_all_go()
    await journal.sync()
    await journal.append(b"x")
    faulty.fail_at = faulty.count + 1
    with pytest.raises(StorageError) as caught:
        await journal.sync_data()
    with pytest.raises(JournalFailed):
        await journal.close()
    spans = {span.name: span for _, span in telemetry.spans()}
    cancelled = next(span for _, span in telemetry.spans() if span.attributes and "cancelled" in span.attributes)
    assert cancelled.name == "posjournal.sync_data"
    assert cancelled.status.status_code is StatusCode.UNSET
    replay, sync_data = spans["posjournal.replay"], spans["posjournal.sync_data"]
    assert replay.status.description == "decode with quoting: ValueError (position 0)"
    assert sync_data.status.description == str(caught.value)
    for span, kind in ((replay, "CodecError"), (sync_data, "StorageError")):
        assert span.status.status_code is StatusCode.ERROR
        [event] = span.events
        assert event.name == "exception"
        assert event.attributes is not None
        assert event.attributes["exception.type"] == f"posjournal_async.errors.{kind}"
        assert "secret" not in span.to_json()


async def test_without_an_sdk_nothing_happens() -> None:
    """The API alone is a sink that drops everything."""
    async with await filled(Context(MemoryStorage(), OpenTelemetryMetrics()), 15) as journal:
        await journal.sync()
        assert journal.durable_size() == 15
