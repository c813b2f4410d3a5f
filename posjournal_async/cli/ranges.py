"""Runs of positions, in words."""

from __future__ import annotations

__all__ = ["fields_of", "shown_count", "shown_range"]


def shown_count(count: int, what: str) -> str:
    """Return a number of things: `1 item`, `2,000 items`."""
    return f"{count:,} {what}{'s' * (count != 1)}"


def shown_range(positions: range) -> str:
    """Return how many items a range holds, and where: `10 items, positions 0..9`; the last one is included."""
    items = shown_count(positions.stop - positions.start, "item")
    if not positions:
        return f"no items (size {positions.stop})"
    if positions.stop - positions.start == 1:
        return f"{items}, position {positions.start}"
    return f"{items}, positions {positions.start}..{positions.stop - 1}"


def fields_of(positions: range) -> dict[str, int]:
    """Return a range as JSON has it; `stop` is not included."""
    return {"start": positions.start, "stop": positions.stop}
