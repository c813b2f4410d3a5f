"""What journals count, and spans of their calls, for OpenTelemetry. Needs the extra `opentelemetry`."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from posjournal_async.log import reason_of
from posjournal_async.metrics import CATALOGUE, Kind, Sources

try:
    from opentelemetry.metrics import Observation, get_meter
    from opentelemetry.trace import StatusCode, get_tracer
except ImportError as error:
    raise ImportError(
        'posjournal_async.adapters.opentelemetry needs the extra "opentelemetry": '
        "pip install 'posjournal_async[opentelemetry]'"
    ) from error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry.metrics import CallbackOptions, MeterProvider
    from opentelemetry.trace import Span, TracerProvider

    from posjournal_async.metrics import Metric

__all__ = ["OpenTelemetryMetrics"]

_UNITS = {"bytes": "By", "seconds": "s"}


class OpenTelemetryMetrics(Sources):
    """A sink for OpenTelemetry: `Context(storage, OpenTelemetryMetrics())`.

    Every instrument is called `posjournal.` and its name in `docs/metrics.md`, and has one attribute, `journal`: the
    label of the journal's context, or else its partition. Make one for a service, and share it among its journals.

    The calls `init`, `init_at_size`, `init_sync`, `sync`, `sync_data`, `prune`, `rewind` and a replay are spans, each a
    child of the span that its caller is in, whichever task does the work. A `sync` or `sync_data` that had nothing to
    wait for has none, and neither has an `append` or a `read`: they take less time than a span.

    Args:
        meter_provider: Where the instruments are made; None for the global one.
        tracer_provider: Where the spans are made; None for the global one.

    Example:
        >>> from posjournal_async import Context, MemoryStorage
        >>> from posjournal_async.adapters.opentelemetry import OpenTelemetryMetrics
        >>> context = Context(MemoryStorage(), OpenTelemetryMetrics(), "orders")
    """

    def __init__(
        self, meter_provider: MeterProvider | None = None, tracer_provider: TracerProvider | None = None
    ) -> None:
        super().__init__()
        self._tracer = get_tracer("posjournal_async", tracer_provider=tracer_provider)
        meter = get_meter("posjournal_async", meter_provider=meter_provider)
        self._counters = {
            metric.name: meter.create_counter(_name_of(metric), _unit_of(metric), metric.says)
            for metric in CATALOGUE
            if metric.kind is Kind.COUNTER and not metric.is_sampled
        }
        self._histograms = {
            metric.name: meter.create_histogram(
                _name_of(metric), _unit_of(metric), metric.says, explicit_bucket_boundaries_advisory=metric.bounds
            )
            for metric in CATALOGUE
            if metric.kind is Kind.DISTRIBUTION
        }
        for metric in CATALOGUE:
            if metric.is_sampled:
                is_gauge = metric.kind is Kind.GAUGE
                create = meter.create_observable_gauge if is_gauge else meter.create_observable_counter
                look = partial(self._gauges if is_gauge else self._totals, metric.name)
                create(_name_of(metric), [look], _unit_of(metric), metric.says)

    def count(self, name: str, amount: int, label: str) -> None:
        """Add `amount` to a counter."""
        self._counters[name].add(amount, {"journal": label})

    def observe(self, name: str, value: float, label: str) -> None:
        """Add one value to a histogram."""
        self._histograms[name].record(value, {"journal": label})

    def begin_span(self, name: str, label: str) -> Callable[[BaseException | None], None]:
        """Begin a span below the current one; return what ends it."""
        return partial(_end, self._tracer.start_span(f"posjournal.{name}", attributes={"journal": label}))

    def _gauges(self, name: str, _: CallbackOptions) -> Iterator[Observation]:
        for label, sample in self.samples().items():
            if name in sample.gauges:
                yield Observation(sample.gauges[name], {"journal": label})

    def _totals(self, name: str, _: CallbackOptions) -> Iterator[Observation]:
        for label, sample in self.samples().items():
            yield Observation(sample.totals.get(name, 0), {"journal": label})


def _end(span: Span, error: BaseException | None) -> None:
    """End a span with what ended its call. Not by `record_exception`: a traceback may quote an item."""
    if isinstance(error, asyncio.CancelledError):
        span.set_attribute("cancelled", True)  # noqa: FBT003 - the value of an attribute
    elif error is not None:
        kind = f"{type(error).__module__}.{type(error).__qualname__}"
        span.add_event("exception", {"exception.type": kind, "exception.message": reason_of(error)})
        span.set_status(StatusCode.ERROR, reason_of(error))
    span.end()


def _name_of(metric: Metric) -> str:
    return f"posjournal.{metric.name}"


def _unit_of(metric: Metric) -> str:
    return _UNITS.get(metric.unit, f"{{{metric.unit}}}")
