"""`posjournal stats`: how large the items of a journal are, and how fast it grew."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import click

from posjournal_async.cli import exits
from posjournal_async.cli.gaps import positions_in_words, reason_in_words
from posjournal_async.cli.options import json_option, path_argument
from posjournal_async.cli.ranges import fields_of, shown_range
from posjournal_async.cli.shown import shown_bytes, shown_time
from posjournal_async.inspection.statistics import gather
from posjournal_async.inspection.view import JournalView

if TYPE_CHECKING:
    from posjournal_async.cli.console import Output
    from posjournal_async.cli.options import JournalPath
    from posjournal_async.inspection.statistics import Bucket, Growth, Statistics

__all__ = ["stats"]

# Rows of the table of growth.
_PERIODS = 12

# Columns of the longest bar of the histogram.
_BAR = 30


@click.command
@path_argument
@json_option
@click.pass_obj
def stats(output: Output, path: JournalPath) -> None:
    """Show how large items are, and how fast the journal grew.

    Sizes are those of payloads as they are stored: encoded, and compressed where that is so. They come from the index;
    no item is read. Growth comes from the times at which the files of full sections were last written: a copy of the
    files, or a repair, changes these. The last row is all of it. Nothing is changed, and no lock is taken.

    \b
    Example:
      posjournal stats data/orders
    """
    asyncio.run(_stats(output, path))


async def _stats(output: Output, path: JournalPath) -> None:
    with output.progress("reading the tail", None, "bytes") as advance:
        view = await JournalView.load(path.root, path.partition, advance=advance)
    async with view:
        view.check_explained()
        bounds = view.bounds
        with output.progress("measuring", view.count, "items") as advance:
            found = await gather(view, advance)
        reasons = [await view.why_gone(positions.start, positions.stop) for positions in found.unknown]
    if output.is_json:
        output.document("posjournal.stats/1", _fields_of(bounds, found))
    else:
        _print(output, bounds, found)
    for positions, reason in zip(found.unknown, reasons, strict=True):
        if reason is None:
            output.note(f"not counted, since they cannot be read: positions {positions.start} to {positions.stop - 1}")
        else:
            where = positions_in_words(positions.start, positions.stop)
            output.note(f"not counted: {where}: {reason_in_words(reason)}")
    if found.unknown:
        exits.end(exits.Code.FINDINGS)


def _print(output: Output, bounds: range, found: Statistics) -> None:
    sizes = found.sizes
    output.pairs(
        [
            ("items", shown_range(bounds)),
            ("payloads", f"{shown_bytes(sizes.payload_bytes)}, {shown_bytes(sizes.record_bytes)} as records"),
            ("mean", f"{sizes.mean:,.1f} B"),
            ("p50", shown_bytes(sizes.quantile(0.5))),
            ("p99", shown_bytes(sizes.quantile(0.99))),
            ("largest", shown_bytes(sizes.largest)),
        ]
    )
    if buckets := sizes.buckets():
        output.say("")
        most = max(bucket.items for bucket in buckets)
        rows = [_row_of(bucket, most, sizes.items) for bucket in buckets]
        output.table(("payload", "items", "share", ""), rows, right=("payload", "items", "share"))
    output.say("")
    _print_growth(output, found)


def _row_of(bucket: Bucket, most: int, items: int) -> tuple[str, str, str, str]:
    size = (
        f"{bucket.smallest:,} B" if bucket.smallest >= bucket.largest else f"{bucket.smallest:,}-{bucket.largest:,} B"
    )
    bar = "#" * -(-bucket.items * _BAR // most)
    return size, f"{bucket.items:,}", f"{bucket.items / items:.1%}", bar


def _print_growth(output: Output, found: Statistics) -> None:
    whole = found.whole
    if found.is_growth_doubtful:
        output.say("growth not known: the times of the files do not ascend, as after a copy or a repair")
    elif whole is None:
        output.say("growth not known: it takes two full sections")
    else:
        output.say("growth by the times of the files of full sections, which a copy or a repair changes")
        periods = found.periods(_PERIODS)
        parts = [*periods, whole] if len(periods) > 1 else periods
        columns = ("first", "last", "full at", "items", "data", "items/s", "data/s")
        rows = [_growth_row(part) for part in parts]
        output.table(columns, rows, right=("first", "last", "items", "data", "items/s", "data/s"))


def _growth_row(growth: Growth) -> tuple[str, ...]:
    items, data = growth.items_per_second, growth.bytes_per_second
    return (
        f"{growth.start:,}",
        f"{growth.stop - 1:,}",
        shown_time(growth.ended_ns),
        f"{growth.stop - growth.start:,}",
        shown_bytes(growth.data_bytes),
        "-" if items is None else _rate(items),
        "-" if data is None else shown_bytes(round(data)),
    )


def _rate(items: float) -> str:
    """Return items per second with three digits, and all of those before the point."""
    return f"{items:,.0f}" if items >= 100 else f"{items:.3g}"


def _fields_of(bounds: range, found: Statistics) -> dict[str, Any]:
    sizes = found.sizes
    return {
        "bounds": fields_of(bounds),
        "items": sizes.items,
        "payload_bytes": sizes.payload_bytes,
        "record_bytes": sizes.record_bytes,
        "smallest": sizes.smallest,
        "mean": round(sizes.mean, 3),
        "p50": sizes.quantile(0.5),
        "p99": sizes.quantile(0.99),
        "largest": sizes.largest,
        "histogram": [
            {"smallest": bucket.smallest, "largest": bucket.largest, "items": bucket.items}
            for bucket in sizes.buckets()
        ],
        "growth": {
            "based_on": "times of files",
            "is_doubtful": found.is_growth_doubtful,
            "whole": None if found.whole is None else _growth_fields(found.whole),
            "periods": [_growth_fields(part) for part in found.periods(_PERIODS)],
        },
        "unknown": [fields_of(positions) for positions in found.unknown],
    }


def _growth_fields(growth: Growth) -> dict[str, Any]:
    items, data = growth.items_per_second, growth.bytes_per_second
    return {
        "start": growth.start,
        "stop": growth.stop,
        "data_bytes": growth.data_bytes,
        "began_ns": growth.began_ns,
        "ended_ns": growth.ended_ns,
        "items_per_second": None if items is None else round(items, 3),
        "bytes_per_second": None if data is None else round(data, 3),
    }
