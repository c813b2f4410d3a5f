"""What a run writes: results.json, the report, the chart, and the table in docs/performance.md."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks.chart import chart
from benchmarks.document import BEGIN, END, NoMarkers, filled
from benchmarks.report import report, targets
from benchmarks.results import Results
from benchmarks.targets import TARGETS
from tests.benchmarks.results import made_up, without

ROOT = Path(__file__).parents[2]


def test_results_survive_being_written() -> None:
    """What is read from results.json is what was written, and gives the same report."""
    results = made_up()
    again = Results.from_json(results.to_json())
    assert again.rows == results.rows
    assert again.run == results.run
    assert report(again) == report(results)


def test_each_row_says_what_it_was_made_with() -> None:
    """A row names Python and the library with its version, and the run, which names machine and command."""
    results = made_up()
    text = report(results)
    rows = [line for line in text.splitlines() if line.startswith("| aiosqlite |")]
    assert len(rows) == len([case for case in results.titles if "aiosqlite" in results.ways(case)])
    assert all("CPython 3.11.0, aiosqlite 0.1 | A |" in row for row in rows)
    run = next(line for line in text.splitlines() if line.startswith("- **A**"))
    assert all(part in run for part in ("2 cores", "Linux 0", "ext4", "python3 run.py bench --made-up"))


def test_the_report_shows_rates_and_ratios_with_their_spread() -> None:
    """Median, least and most: 1,000 items/s, 500 and 333 are shown as such, the ratio as 100."""
    row = next(line for line in report(made_up()).splitlines() if line.startswith("| aiosqlite |"))
    assert "| 500 (333..1,000) | 1.00 | 100 |" in row


def test_a_ratio_with_help_is_that_to_the_library_without() -> None:
    """The library needs no group commit by hand; its rate is that of the case beside."""
    text = report(made_up()).split("\n## W4 64 150 us grouped")[1].split("\n## ")[0]
    assert "posjournal / this" in text
    assert "| lmdb-thread | no | 500 (333..1,000) | 1.00 | 100 |" in text


def test_what_is_missing_has_a_reason() -> None:
    """The report does not leave out in silence."""
    assert "not measured: aiosqlite, apsw: is not there" in report(without(made_up(), "aiosqlite", "apsw"))


def test_the_table_has_a_row_for_each_target() -> None:
    """Head, rule, and one line for each."""
    assert len(targets(made_up()).splitlines()) == 2 + len(TARGETS)


def test_the_chart_is_a_picture() -> None:
    """It parses as XML, has two bars for each workload, and colours for dark pages."""
    text = chart(made_up())
    picture = ET.fromstring(text)  # noqa: S314 - our own
    bars = list(picture.iter("{http://www.w3.org/2000/svg}rect"))
    assert len(bars) == 2 + 2 * 8  # two of them are the legend
    assert "prefers-color-scheme: dark" in text


def test_the_chart_of_nothing_is_a_picture_too() -> None:
    """A run without peers has no bars, and no division by zero."""
    assert ET.fromstring(chart(Results(made_up().run, {}))) is not None  # noqa: S314 - our own


def test_the_chart_has_room_for_any_ratio() -> None:
    """Bars stay inside the picture, however large or small the ratio is."""
    for times in (0.001, 5_000):
        places = re.findall(r'<rect class="\w+" x="([\d.-]+)" y="\d+" width="([\d.]+)"', chart(made_up(times=times)))
        assert places
        assert all(float(x) >= 0 and float(x) + float(width) <= 860 for x, width in places)


def test_the_document_is_filled_between_its_markers() -> None:
    """What stands around them stays; filling twice is filling once."""
    document = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    results = made_up()
    once = filled(document, results)
    assert once.startswith(f"before\n{BEGIN}\n\n| ")
    assert once.endswith(f"\n{END}\nafter\n")
    assert "old" not in once
    assert filled(once, results) == once


def test_a_document_without_markers_is_refused() -> None:
    """Nothing is written into a document that has no place for it."""
    with pytest.raises(NoMarkers, match="there is no place"):
        filled(f"only {BEGIN}", made_up())


def test_the_document_has_the_markers() -> None:
    """docs/performance.md can be filled."""
    assert filled((ROOT / "docs" / "performance.md").read_text(), made_up())
