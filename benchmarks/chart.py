"""The chart: how many times the rate of others, for each workload, as an SVG for light and dark pages."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from benchmarks.results import Spread
from benchmarks.targets import COMPARED, DISK, Compared, best_peer
from benchmarks.wording import number

if TYPE_CHECKING:
    from benchmarks.results import Results

WIDTH = 860
LEFT, RIGHT = 250, 200
TOP, BOTTOM = 76, 44
ROW, BAR = 46, 15

# Limits of the logarithmic axis, which grow when a ratio lies outside.
LEAST, MOST = 0.5, 100.0
TICKS = (0.01, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000)

STYLE = """\
  text { font-family: system-ui, sans-serif; font-size: 13px; fill: #1f2328; }
  .title { font-size: 16px; font-weight: 600; }
  .small { font-size: 12px; fill: #59636e; }
  .grid { stroke: #d1d9e0; }
  .one { stroke: #1f2328; stroke-width: 1.5; }
  .aiosqlite { fill: #8c959f; }
  .best { fill: #0969da; }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc; }
    .small { fill: #9198a1; }
    .grid { stroke: #3d444d; }
    .one { stroke: #f0f6fc; }
    .aiosqlite { fill: #7d8590; }
    .best { fill: #4493f8; }
  }
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar.

    Attributes:
        kind: Its class in the style.
        ratio: How many times the rate of the other.
        label: What stands at its end.
    """

    kind: str
    ratio: float
    label: str


def chart(results: Results) -> str:
    """Return the picture. Workloads that were not measured are not in it."""
    rows = [(compared.title, bars) for compared in COMPARED if (bars := _bars(results, compared))]
    ratios = [bar.ratio for _, bars in rows for bar in bars]
    axis = _Axis(min([LEAST, *ratios]), max([MOST, *ratios]))
    height = TOP + ROW * len(rows) + BOTTOM
    parts = [
        _opening_tag(height),
        f"<style>\n{STYLE}</style>",
        '<title id="title">Rate of posjournal_async relative to its peers</title>',
        _text(16, 26, "How many times the rate of others (right of 1x: posjournal_async is quicker)", "title"),
        *_legend(),
        *_grid(axis, height),
    ]
    for number_of_row, (title, bars) in enumerate(rows):
        parts += _row(axis, TOP + ROW * number_of_row, title, bars)
    run = results.run
    source = f"{run.started}, {run.machine}, {run.python}; {run.command}; W3 and W4: a sync takes {DISK}"
    parts.append(_text(16, height - 10, source, "small"))
    return "\n".join([*parts, "</svg>", ""])


def _opening_tag(height: int) -> str:
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title">'


def _bars(results: Results, compared: Compared) -> list[Bar]:
    bars = []
    if found := Spread.of(results.ratios(compared.case, ("aiosqlite",))):
        bars.append(Bar("aiosqlite", found.median, f"{number(found.median)}x aiosqlite"))
    best = best_peer(results, compared)
    if best is not None:
        case, way = best
        name = f"{way}, group commit by hand" if case.endswith("grouped") else way
        if found := Spread.of(results.ratios(compared.case, (way,), in_cases=(case,))):
            bars.append(Bar("best", found.median, f"{number(found.median)}x {name}"))
    return bars


class _Axis:
    """Where a ratio lies, from left to right."""

    def __init__(self, least: float, most: float) -> None:
        self.least, self.most = least, most
        self._scale = (WIDTH - LEFT - RIGHT) / math.log(most / least)

    def x(self, ratio: float) -> float:
        return LEFT + math.log(ratio / self.least) * self._scale


def _legend() -> list[str]:
    return [
        f'<rect class="aiosqlite" x="{LEFT}" y="39" width="12" height="12" rx="2"/>',
        _text(LEFT + 18, 50, "aiosqlite, as shipped", "small"),
        f'<rect class="best" x="{LEFT + 170}" y="39" width="12" height="12" rx="2"/>',
        _text(LEFT + 188, 50, "quickest peer that leaves the event loop free", "small"),
    ]


def _grid(axis: _Axis, height: int) -> list[str]:
    parts = []
    end = height - BOTTOM
    for tick in TICKS:
        if axis.least <= tick <= axis.most:
            x = axis.x(tick)
            kind = "one" if tick == 1 else "grid"
            parts.append(f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 8}" y2="{end}"/>')
            parts.append(
                f'<text class="small" text-anchor="middle" x="{x:.1f}" y="{end + 15}">{tick:g}x</text>',
            )
    return parts


def _row(axis: _Axis, top: int, title: str, bars: list[Bar]) -> list[str]:
    parts = [_text(16, top + BAR + 4, title)]
    for number_of_bar, bar in enumerate(bars):
        y = top + number_of_bar * (BAR + 3)
        start, end = sorted((axis.x(1), axis.x(bar.ratio)))
        place = f'x="{start:.1f}" y="{y}" width="{max(end - start, 1):.1f}" height="{BAR}"'
        parts.append(f'<rect class="{bar.kind}" {place} rx="2"/>')
        parts.append(_text(end + 6, y + BAR - 3, bar.label, "small"))
    return parts


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text{style} x="{x:.1f}" y="{y}">{escape(text)}</text>'
