"""What measures growth goes through with small journals, and its page says what was measured."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from benchmarks import growth, latency
from benchmarks.growth import FULL, MEASURES, QUICK, Growth, Made, cases_of, report
from benchmarks.latency import SECTION, Append, figures_of
from benchmarks.results import Results, Row
from benchmarks.ways import OWN
from tests.benchmarks.results import RUN

if TYPE_CHECKING:
    from pathlib import Path

SMALL = {
    "opening": Growth(name="G", title="", measure="opening", made=Made(items=25, items_per_section=10)),
    "replay": Growth(name="G", title="", measure="replay", made=Made(items=3_000)),
    "flood": Growth(
        name="G",
        title="",
        measure="flood",
        fields={"write_buffer": 4_096, "flooded": 64 * 2 * growth.FLOODED_ITEM_BYTES},
    ),
    "random_reads": Growth(
        name="G",
        title="",
        measure="random_reads",
        made=Made(items=205, items_per_section=10),
        fields={"max_open_blobs": 3, "reads": 80},
    ),
    "append_alone": Growth(
        name="G", title="", measure="append_alone", fields={"sync_microseconds": 1, "appends": SECTION + 8}
    ),
    "append_beside": Growth(
        name="G",
        title="",
        measure="append_beside",
        fields={"sync_microseconds": 1, "appends": 80, "write_buffer": 1_000},
    ),
}


@pytest.mark.parametrize("measure", MEASURES)
async def test_each_measurement_goes_through(measure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny run of each: it counts what it did, took some time, and has a figure for each column of its table."""
    for name in ("pwrite", "fdatasync", "fsync", "sync"):
        monkeypatch.setattr(os, name, getattr(os, name))  # they are replaced, and put back after the test
    case = SMALL[measure]
    if measure in {"replay", "flood", "random_reads"} and not growth.STATUS.exists():
        pytest.skip("this system does not tell the anonymous memory of a process")
    if case.made is not None:
        monkeypatch.setattr(os, "sync", lambda: None)
        await growth.make(tmp_path, case.made)
    outcome = await MEASURES[measure](tmp_path, case)
    assert outcome.items > 0
    assert outcome.seconds > 0
    missing = growth.HEADS[measure].keys() - outcome.figures.keys() - {"rate"}
    assert {figure for figure in missing if not figure.startswith(("roll", "beside"))} == set()


def test_appends_that_fill_a_section_are_counted_apart() -> None:
    """One append waits for the section; of the others, those called meanwhile are told from those before and after."""
    roll = Append(position=SECTION - 1, start=10.0, seconds=0.1)
    before, beside, after = (
        Append(position=position, start=start, seconds=seconds)
        for position, start, seconds in ((SECTION - 2, 9.9, 1e-6), (SECTION, 10.05, 2e-6), (SECTION + 1, 10.2, 1e-6))
    )
    figures = figures_of([before, roll, beside, after])
    assert figures["roll_count"] == 1
    assert figures["roll_max_us"] == pytest.approx(1e5)
    assert figures["append_count"] == 3
    assert figures["beside_count"] == 1
    assert figures["beside_max_us"] == pytest.approx(2)


@pytest.mark.parametrize("scale", [FULL, QUICK], ids=["full", "quick"])
def test_the_page_has_a_row_for_each_measurement(scale: growth.Scale) -> None:
    """With the median of what was measured, or the reason why it was not."""
    cases = cases_of(scale)
    results = Results(RUN, {case.name: case.title for case in cases})
    assert len(results.titles) == len(cases)
    figures = {figure: 12.5 for head in growth.HEADS.values() for figure in head}
    results.rows = [Row(case=case.name, way=OWN, repetition=0, items=1, seconds=1, figures=figures) for case in cases]
    results.rows[-1] = Row(case=cases[-1].name, way=OWN, repetition=0, missing="failed: why")
    lines = report(results).splitlines()
    for case in cases[:-1]:
        assert any(line.startswith(f"| {case.title} | 12.5") for line in lines)
    assert any(line.startswith(f"| {cases[-1].title} | failed: why |") for line in lines)


def test_a_slow_disk_is_slow_in_the_thread_that_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is named takes that much longer, and does what it did."""
    slept: list[float] = []
    monkeypatch.setattr(os, "getppid", os.getppid)
    monkeypatch.setattr(latency, "sleep", slept.append)
    parent = os.getppid()
    latency.slow_down(0.5, "getppid")
    assert os.getppid() == parent
    assert slept == [0.5]
