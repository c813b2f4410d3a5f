"""What journals count, for Prometheus. Needs the extra `prometheus`."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from posjournal_async.metrics import CATALOGUE, Kind, Sources

try:
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.registry import Collector
except ImportError as error:
    raise ImportError(
        'posjournal_async.adapters.prometheus needs the extra "prometheus": '
        "pip install 'posjournal_async[prometheus]'"
    ) from error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric as Family

    from posjournal_async.metrics import Sample, Source

__all__ = ["PrometheusMetrics"]


class PrometheusMetrics:
    """A sink for a registry of `prometheus_client`: `Context(storage, PrometheusMetrics())`.

    Every metric is called `posjournal_` and its name in `docs/metrics.md`, counters with `_total` behind it. It has one
    label, `journal`: the label of the journal's context, or else its partition. Any number of journals may share a
    sink, and any number of sinks a registry. Gauges are read when somebody scrapes, in whatever thread, and are gone
    when the journal is closed; counters and histograms stay.

    Args:
        registry: Where the metrics are registered.

    Example:
        >>> from prometheus_client import CollectorRegistry
        >>> from posjournal_async.adapters.prometheus import PrometheusMetrics
        >>> registry = CollectorRegistry()
        >>> PrometheusMetrics(registry).count("commits", 2, "orders")
        >>> registry.get_sample_value("posjournal_commits_total", {"journal": "orders"})
        2.0
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        journals = _registered.get(registry)
        if journals is None:
            journals = _Journals()
            registry.register(journals)
            _registered[registry] = journals
        self._journals = journals

    def count(self, name: str, amount: int, label: str) -> None:
        """Add `amount` to a counter."""
        self._journals.counters[name].labels(label).inc(amount)

    def observe(self, name: str, value: float, label: str) -> None:
        """Add one value to a histogram."""
        self._journals.histograms[name].labels(label).observe(value)

    def watch(self, label: str, source: Source) -> None:
        """Read this journal too when somebody scrapes, and show what it counts from now on, from 0."""
        for metric in (*self._journals.counters.values(), *self._journals.histograms.values()):
            metric.labels(label)
        self._journals.watch(label, source)

    def unwatch(self, source: Source) -> None:
        """Read this journal for the last time."""
        self._journals.unwatch(source)


class _Journals(Sources, Collector):
    """What a registry has of all journals.

    Attributes:
        counters: What journals tell, by name.
        histograms: The same.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counters = {
            metric.name: Counter(f"posjournal_{metric.name}", metric.says, ["journal"], registry=None)
            for metric in CATALOGUE
            if metric.kind is Kind.COUNTER and not metric.is_sampled
        }
        self.histograms = {
            metric.name: Histogram(
                f"posjournal_{metric.name}", metric.says, ["journal"], registry=None, buckets=metric.bounds
            )
            for metric in CATALOGUE
            if metric.kind is Kind.DISTRIBUTION
        }

    def collect(self) -> Iterator[Family]:
        """Yield all metrics as they are now."""
        yield from self._families(self.samples())

    def describe(self) -> Iterator[Family]:
        """Yield all metrics without asking a journal: the registry wants to know their names."""
        yield from self._families({})

    def _families(self, samples: dict[str, Sample]) -> Iterator[Family]:
        for told in (self.counters, self.histograms):
            for metric in told.values():
                yield from metric.collect()
        for sampled in (metric for metric in CATALOGUE if metric.is_sampled):
            name = f"posjournal_{sampled.name}"
            if sampled.kind is Kind.GAUGE:
                gauge = GaugeMetricFamily(name, sampled.says, labels=["journal"])
                for label, sample in samples.items():
                    if sampled.name in sample.gauges:
                        gauge.add_metric([label], sample.gauges[sampled.name])
                yield gauge
            else:
                counter = CounterMetricFamily(name, sampled.says, labels=["journal"])
                for label, sample in samples.items():
                    counter.add_metric([label], sample.totals.get(sampled.name, 0))
                yield counter


# What each registry has: two sinks made for it are two ways to the same numbers.
_registered: WeakKeyDictionary[CollectorRegistry, _Journals] = WeakKeyDictionary()
