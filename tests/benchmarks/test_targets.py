"""Verdicts are computed from results, and from nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.cases import FULL, QUICK, Scale, cases_of
from benchmarks.results import Results, Row
from benchmarks.targets import TARGETS, Sense, Target, Verdict
from benchmarks.ways import OWN
from tests.benchmarks.results import RUN, made_up, without

NAMES = [f"{target.workload} {target.text}" for target in TARGETS]


@pytest.mark.parametrize("target", TARGETS, ids=NAMES)
def test_a_run_that_fulfils_a_target_says_so(target: Target) -> None:
    """Each target finds what it needs in a whole run, and a run that is good enough meets it."""
    assert target.verdict(made_up()) is Verdict.MET


@pytest.mark.parametrize("target", TARGETS, ids=NAMES)
def test_a_run_that_misses_a_target_says_so(target: Target) -> None:
    """No target is met by everything: ratios are missed at half the rate of the others, figures at a hundredfold."""
    results = made_up(times=0.5)
    rows = []
    for row in results.rows:
        is_last_opening = row.case == "W8 10000000"
        figures = {
            name: value / 100 if name == "returned_percent" else value * (10_000 if is_last_opening else 100)
            for name, value in row.figures.items()
            if name != "codec_us"
        }
        slower = row.seconds * (10 if row.case.startswith(("W11", "W6 read_many")) else 1)
        rows.append(replace(row, figures={**figures, "codec_us": 0.3}, seconds=slower))
    assert target.verdict(Results(RUN, results.titles, rows)) is Verdict.MISSED


@pytest.mark.parametrize("target", TARGETS, ids=NAMES)
def test_what_was_not_measured_is_no_miss(target: Target) -> None:
    """Without the library's own rows there is no verdict."""
    assert target.verdict(without(made_up(), OWN)) is Verdict.NOT_MEASURED
    assert target.verdict(Results(RUN, {})) is Verdict.NOT_MEASURED


def test_ratios_are_taken_within_a_repetition() -> None:
    """A spell that slows everybody down changes no ratio."""
    assert made_up(times=7).ratios("W1", ("aiosqlite",)) == pytest.approx([7, 7, 7])


def test_a_ratio_is_that_to_the_best_of_the_others() -> None:
    """One peer that is quicker than the rest is the one to be compared with."""
    results = made_up(times=8)
    row = Row(case="W1", way="apsw", repetition=0, items=4_000, seconds=1.0)
    results.rows = [
        row if (row.case, row.way, row.repetition) == (r.case, r.way, r.repetition) else r for r in results.rows
    ]
    assert results.ratios("W1", ("aiosqlite", "apsw")) == pytest.approx([2, 8, 8])
    assert results.best(["W1"], ["aiosqlite", "apsw"]) == ("W1", "aiosqlite")


def test_the_median_decides() -> None:
    """One lucky repetition does not meet a target, and one unlucky one does not miss it."""

    def verdict(values: list[float]) -> Verdict:
        return Target("W1", "", Sense.AT_LEAST, 2, "x", lambda _: values).verdict(made_up())

    assert verdict([1.0, 1.9, 50.0]) is Verdict.MISSED
    assert verdict([0.1, 2.0, 2.1]) is Verdict.MET


@pytest.mark.parametrize("scale", [FULL, QUICK], ids=["full", "quick"])
def test_every_target_has_its_case_in_each_scale(scale: Scale) -> None:
    """A quick run leaves no target without a measurement."""
    ways = {case.name: case.ways for case in cases_of(scale)}
    results = made_up()
    results.titles = {name: title for name, title in results.titles.items() if name in ways}
    results.rows = [row for row in results.rows if row.way in ways.get(row.case, ())]
    assert [target.text for target in TARGETS if target.verdict(results) is Verdict.NOT_MEASURED] == []


def test_names_of_cases_are_unique() -> None:
    """Results are found by them."""
    names = [case.name for case in cases_of(FULL)]
    assert len(set(names)) == len(names)
