"""The Prometheus adapter against the real package: what its own parser reads in the page that is scraped."""

from __future__ import annotations

import asyncio
import urllib.request
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from posjournal_async import Context, FileStorage, MemoryStorage
from posjournal_async.adapters.prometheus import PrometheusMetrics
from posjournal_async.metrics import CATALOGUE, Kind
from tests.journals import config_of, filled, others_ended, streamed

if TYPE_CHECKING:
    from pathlib import Path

    from prometheus_client.core import Metric as Family

KINDS = {Kind.COUNTER: "counter", Kind.GAUGE: "gauge", Kind.DISTRIBUTION: "histogram"}


def scraped(registry: CollectorRegistry) -> dict[str, Family]:
    """What a scrape shows, by name; without the times at which counters were made."""
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {family.name: family for family in families if not family.name.endswith("_created")}


def values_of(family: Family) -> dict[str, float]:
    """The values of a family that are no histogram by the label `journal`, which has to be the only one."""
    assert all(list(sample.labels) == ["journal"] for sample in family.samples)
    return {sample.labels["journal"]: sample.value for sample in family.samples}


async def test_every_metric_is_shown_with_its_kind_and_a_word_about_it() -> None:
    """From the moment on that a journal is open, with 0 where nothing has happened; in both formats."""
    registry = CollectorRegistry()
    async with await filled(Context(MemoryStorage(), PrometheusMetrics(registry)), 0):
        families = scraped(registry)
        assert {name: (family.type, family.documentation) for name, family in families.items()} == {
            f"posjournal_{metric.name}": (KINDS[metric.kind], metric.says) for metric in CATALOGUE
        }
        openly = list(parse_openmetrics(generate_openmetrics(registry).decode()))  # type: ignore[no-untyped-call]
        assert {family.name for family in openly} == set(families)
    for metric in CATALOGUE:
        family = families[f"posjournal_{metric.name}"]
        assert {sample.labels["journal"] for sample in family.samples} == {"orders"}
        expected = 1 if metric.name == "open_blobs" else 0  # the checkpoint
        assert {sample.value for sample in family.samples} == {expected}


async def test_the_numbers_are_those_of_the_journal(tmp_path: Path) -> None:
    """After a life in which each is known."""
    registry = CollectorRegistry()
    context = Context(FileStorage(tmp_path), PrometheusMetrics(registry), "shop").with_label("orders")
    async with await filled(context, 25) as journal:
        await journal.sync_data()
        await journal.prune(10)
        await journal.rewind(22)
        await journal.append(b"x")
        await streamed(journal.replay(12))
        await journal.read(22)
        await others_ended()
        families = scraped(registry)
    expected = {
        "size": 23,
        "boundary": 10,
        "retained_items": 13,
        "durable_size": 22,
        "tail_items": 3,
        "waiting_bytes": 9,
        "open_blobs": 4,
        "failed": 0,
        "items_appended": 26,
        "reads": 1,
        "replays": 1,
        "items_replayed": 11,
        "items_committed": 25,
        "commits": 3,
        "sections_sealed": 2,
        "sections_pruned": 1,
        "items_rewound": 3,
        "recoveries": 0,
        "failures": 0,
    }
    for name, value in expected.items():
        assert values_of(families[f"posjournal_{name}"]) == {"shop_orders": value}, name
    for name, count in (("commit_seconds", 3), ("commit_items", 3), ("commit_waiters", 3), ("sync_data_seconds", 1)):
        samples = families[f"posjournal_{name}"].samples
        assert [sample.value for sample in samples if sample.name.endswith("_count")] == [count]
    [items] = [s.value for s in families["posjournal_commit_items"].samples if s.labels.get("le") == "4.0"]
    assert items == 0  # of three commits: 10, 10 and 5; before the prune all was durable


async def test_buckets_fit_an_fsync() -> None:
    """From 50 microseconds to 10 seconds, with bounds that are inclusive."""
    registry = CollectorRegistry()
    sink = PrometheusMetrics(registry)
    for seconds in (5e-5, 0.003, 10, 11):
        sink.observe("commit_seconds", seconds, "orders")
    samples = scraped(registry)["posjournal_commit_seconds"].samples
    buckets = {float(sample.labels["le"]): sample.value for sample in samples if "le" in sample.labels}
    assert (min(buckets), buckets[5e-5], buckets[0.0025], buckets[0.005]) == (5e-5, 1, 1, 2)
    assert (buckets[10], buckets[float("inf")]) == (3, 4)


@pytest.mark.parametrize("sinks", [1, 2])
async def test_journals_share_a_registry(sinks: int) -> None:
    """Through one sink or through one each, in one page without a line that is there twice."""
    registry = CollectorRegistry()
    made = [PrometheusMetrics(registry) for _ in range(sinks)]
    storage = MemoryStorage()
    async with (
        await filled(Context(storage, made[0]), 3) as orders,
        await filled(Context(storage, made[-1]), 5, config_of(partition="frames")) as frames,
    ):
        await orders.sync()
        await frames.sync()
        families = scraped(registry)
        for name in ("size", "items_appended", "items_committed"):
            assert values_of(families[f"posjournal_{name}"]) == {"orders": 3, "frames": 5}
        lines = [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]
        assert len({line.rsplit(" ", 1)[0] for line in lines}) == len(lines)


async def test_the_gauges_of_a_closed_journal_are_gone_and_its_counters_stay() -> None:
    """And go on when it is opened again."""
    registry = CollectorRegistry()
    context = Context(MemoryStorage(), PrometheusMetrics(registry))
    await (await filled(context, 3)).close()
    families = scraped(registry)
    for metric in CATALOGUE:
        if metric.kind is Kind.GAUGE:
            assert values_of(families[f"posjournal_{metric.name}"]) == {}
    assert values_of(families["posjournal_items_appended"]) == {"orders": 3}
    async with await filled(context, 5):
        assert values_of(scraped(registry)["posjournal_items_appended"]) == {"orders": 5}
        assert values_of(scraped(registry)["posjournal_size"]) == {"orders": 5}


async def test_a_server_in_another_thread_is_scraped_while_the_journal_works() -> None:
    """That of the package, over HTTP."""
    registry = CollectorRegistry()
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        async with await filled(Context(MemoryStorage(), PrometheusMetrics(registry)), 0) as journal:
            url = f"http://127.0.0.1:{server.server_port}/metrics"
            asked = asyncio.create_task(asyncio.to_thread(lambda: urllib.request.urlopen(url).read()))
            while not asked.done():
                await journal.append(b"x")
                await asyncio.sleep(0)
            sizes = [
                family for family in text_string_to_metric_families((await asked).decode()) if "size" in family.name
            ]
            assert 0 <= values_of(sizes[0])["orders"] <= journal.size()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
