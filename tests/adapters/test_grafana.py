"""The dashboard: what Grafana needs to import it, and only metrics that the Prometheus adapter shows."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from posjournal_async import Context, MemoryStorage
from posjournal_async.adapters.prometheus import PrometheusMetrics
from posjournal_async.metrics import CATALOGUE
from tests.journals import filled

DOCS = Path(__file__).parents[2] / "docs"
DASHBOARD: dict[str, Any] = json.loads((DOCS / "grafana" / "posjournal.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
SHOWING = [panel for panel in PANELS if panel["type"] != "row"]
EXPRESSIONS = [target["expr"] for panel in SHOWING for target in panel["targets"]]
ALERTS = [
    found
    for row in (DOCS / "metrics.md").read_text().splitlines()
    if row.startswith("| `") and "posjournal_" in row
    for found in re.findall(r"^\| `([^`]+)`", row)
]


async def series() -> dict[str, set[str]]:
    """The labels of each series that a scrape shows, by name."""
    registry = CollectorRegistry()
    async with await filled(Context(MemoryStorage(), PrometheusMetrics(registry)), 1):
        families = list(text_string_to_metric_families(generate_latest(registry).decode()))
    return {sample.name: set(sample.labels) for family in families for sample in family.samples}


def names_in(expression: str) -> set[str]:
    return set(re.findall(r"\bposjournal_\w+", expression))


def test_it_is_of_a_form_that_grafana_imports() -> None:
    """The classic model: an id of its own for each panel, a place for each, no two in the same place."""
    assert DASHBOARD["id"] is None
    assert DASHBOARD["schemaVersion"] >= 39
    assert DASHBOARD["title"] == DASHBOARD["uid"] == "posjournal"
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    for panel in PANELS:
        place = panel["gridPos"]
        assert place["x"] >= 0
        assert place["y"] >= 0
        assert place["x"] + place["w"] <= 24
    for one, other in combinations([panel["gridPos"] for panel in PANELS], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)
    kinds = {panel["type"] for panel in SHOWING}
    assert kinds == {needed["id"] for needed in DASHBOARD["__requires"] if needed["type"] == "panel"}


def test_every_panel_says_what_it_shows_and_asks_the_source_that_was_chosen() -> None:
    """With a unit; nothing of the machine on which it was made is left in it."""
    for panel in SHOWING:
        assert panel["title"]
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["targets"]
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references)
        assert all("datasource" in asking for asking in (panel, *panel["targets"]))
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    text = json.dumps(DASHBOARD)
    assert text.count('"datasource": ') == text.count(f'"datasource": {json.dumps(chosen)}')


def test_every_variable_that_is_used_is_defined() -> None:
    """Or one that Grafana brings; and each that is defined is used."""
    text = json.dumps(SHOWING)
    used = set(re.findall(r"\$\{?(\w+)", text))
    defined = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert used - {"__rate_interval"} == defined


async def test_every_expression_uses_metrics_that_are_shown() -> None:
    """By the names and labels that a scrape of a journal really has; the alerts of the document too."""
    shown = await series()
    queries = [variable["definition"] for variable in DASHBOARD["templating"]["list"] if "definition" in variable]
    assert len(ALERTS) >= 4
    for expression in [*EXPRESSIONS, *queries, *ALERTS]:
        assert names_in(expression)
        assert names_in(expression) <= set(shown), expression
        for name, selector in re.findall(r"(posjournal_\w+)\{(\w+)", expression):
            assert selector in shown[name], expression
        for by in re.findall(r"by \(([^)]+)\)", expression):
            for name in names_in(expression):
                assert set(by.split(", ")) <= shown[name], expression


async def test_every_metric_is_on_the_dashboard() -> None:
    """What is counted and never looked at is not worth counting."""
    shown = set().union(*map(names_in, EXPRESSIONS))
    for metric in CATALOGUE:
        assert any(name.startswith(f"posjournal_{metric.name}") for name in shown), metric.name


@pytest.mark.parametrize("expression", [*EXPRESSIONS, *ALERTS])
def test_an_expression_is_well_formed(expression: str) -> None:
    """As far as can be said without a server: brackets match, quantiles are of buckets, rates of what only grows.

    Repairs are looked at as they are: a process has counted them before it is scraped for the first time.
    """
    pairs = {")": "(", "]": "[", "}": "{"}
    open_brackets: list[str] = []
    for letter in expression:
        if letter in pairs.values():
            open_brackets.append(letter)
        elif letter in pairs:
            assert open_brackets.pop() == pairs[letter]
    assert not open_brackets
    growing = ("_total", "_bucket", "_sum", "_count")
    for name in re.findall(r"(?:rate|increase)\((\w+)", expression):
        assert name.endswith(growing)
    if "histogram_quantile" in expression:
        assert all(name.endswith("_bucket") for name in names_in(expression))
    else:
        for name in names_in(expression):
            is_rated = re.search(rf"(?:rate|increase)\({name}\b", expression) is not None
            assert is_rated == (name.endswith(growing) and name != "posjournal_recoveries_total"), name
