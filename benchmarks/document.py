"""docs/performance.md has one place that a run fills: between two markers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.report import targets
from benchmarks.wording import environment

if TYPE_CHECKING:
    from benchmarks.results import Results

BEGIN = "<!-- targets: written by `python3 run.py bench` -->"
END = "<!-- end of targets -->"


class NoMarkers(Exception):
    """The document has no place for the table."""


def filled(document: str, results: Results) -> str:
    """Return the document with the targets of these results between the markers.

    Raises:
        NoMarkers: One of the markers is not there.
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise NoMarkers(f"there is no place between {BEGIN} and {END}")
    source = f"Measured by `{results.run.command}`: {environment(results.run)}."
    return f"{before}{begin}\n\n{targets(results)}\n{source}\n\n{end}{after}"
