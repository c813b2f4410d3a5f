"""Numbers as people read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.results import Run, Spread


def number(value: float) -> str:
    """Return a number with three digits that count, or all before the point."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def spread(found: Spread | None) -> str:
    """Return the median, and from where to where the others go."""
    if found is None:
        return "—"
    if number(found.least) == number(found.most):
        return number(found.median)
    return f"{number(found.median)} ({number(found.least)}..{number(found.most)})"


def environment(run: Run) -> str:
    """Return in one line where and when something was measured."""
    return (
        f"{run.started}, {run.machine}, {run.kernel}, {run.file_system}, {run.python}, load {run.load:.1f} at the start"
    )


def table(head: list[str], rows: list[list[str]], *, numbers: range = range(0)) -> str:
    """Return a Markdown table; `numbers` are the columns that have some."""
    rule = ["---:" if column in numbers else "---" for column in range(len(head))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, rule, *rows]) + "\n"
