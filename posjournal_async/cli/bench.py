"""`posjournal bench`: what a journal does on the user's own disk."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from posjournal_async.cli.exits import Code, end
from posjournal_async.cli.measuring import measured
from posjournal_async.cli.options import json_option
from posjournal_async.cli.shown import shown_bytes
from posjournal_async.inspection.filesystem import kind_of, mount_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from posjournal_async.cli.console import Output
    from posjournal_async.cli.measuring import Measurement

__all__ = ["bench"]

# More than all parts together write.
_NEEDED_BYTES = 512 * 2**20

# 128 + SIGTERM, as shells have it.
_TERMINATED = 143


def _directory(_: click.Context, __: click.Parameter, place: Path) -> Path:
    """Return the directory that PLACE is, or the one that the journal at PLACE lies in."""
    for directory in (place, place.parent):
        if directory.is_dir():
            return directory
    raise click.BadParameter(f"neither '{place}' nor '{place.parent}' is a directory")


@click.command()
@click.argument("place", type=click.Path(path_type=Path), callback=_directory)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 120),
    default=10,
    show_default=True,
    metavar="S",
    help="How long all of it shall take.",
)
@click.option(
    "--item-bytes",
    type=click.IntRange(1, 2**20),
    default=256,
    show_default=True,
    metavar="N",
    help="Length of an item. Items are bytes that do not compress.",
)
@json_option
@click.pass_obj
def bench(output: Output, place: Path, seconds: float, item_bytes: int) -> None:
    """Measure what a journal does on the disk of PLACE: a directory, or the path of a journal.

    First how long an fsync takes, which everything durable has to wait for; then appends, durable appends of 1, 16 and
    256 tasks, reads and replay. It works on a temporary journal in that directory, which is removed at the end, also
    after Ctrl-C. At most 512 MiB are written.

    \b
    Example:
      posjournal bench data --seconds 30
    """
    if not seconds >= 0:  # NaN is in every range
        raise click.BadParameter("expected a number of seconds, found nan", param_hint="--seconds")
    status = os.statvfs(place)
    if status.f_bavail * status.f_frsize < _NEEDED_BYTES:
        output.note(f"posjournal: less than {shown_bytes(_NEEDED_BYTES)} are free in '{place}'")
        end(Code.STORAGE)
    mount = mount_of(place)
    kind = "unknown" if mount is None else mount.kind
    remark = "" if mount is None or kind_of(kind).state != "warning" else kind_of(kind).text
    if remark:
        output.note(f"this is {kind}: {remark}")
    with output.progress("measuring", 8, "parts") as advance:
        try:
            found = asyncio.run(_measurements(place, seconds, item_bytes, advance))
        except asyncio.CancelledError:
            output.note("posjournal: terminated")
            raise click.exceptions.Exit(_TERMINATED) from None
    if output.is_json:
        output.document(
            "posjournal.bench/1",
            {
                "directory": str(place.absolute()),
                "file_system": kind,
                "item_bytes": item_bytes,
                "measurements": [_fields_of(one) for one in found],
            },
        )
        return
    output.say(f"{place.absolute()} ({kind}), items of {shown_bytes(item_bytes)}")
    rows = [
        (
            one.title,
            f"{one.per_second:,.0f}",
            _milliseconds(one.p50),
            _milliseconds(one.p99),
            "" if one.per_sync is None else f"{one.per_sync:.1f}",
        )
        for one in found
    ]
    columns = ("what", "per second", "median ms", "99 % ms", "items per fsync")
    output.table(columns, rows, right=columns[1:])


async def _measurements(
    place: Path, seconds: float, item_bytes: int, advance: Callable[[int], None]
) -> list[Measurement]:
    task = asyncio.current_task()
    assert task is not None
    # A polite end removes the temporary journal too; SIGINT does by itself.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    found: list[Measurement] = []
    async with aclosing(measured(place, seconds, item_bytes)) as measurements:
        async for one in measurements:
            found.append(one)
            advance(1)
    return found


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1e3:.3f}"


def _fields_of(one: Measurement) -> dict[str, object]:
    return {
        "name": one.name,
        "count": one.count,
        "seconds": round(one.seconds, 6),
        "per_second": round(one.per_second, 1),
        "p50_seconds": one.p50 and round(one.p50, 9),
        "p99_seconds": one.p99 and round(one.p99, 9),
        "items_per_fsync": one.per_sync and round(one.per_sync, 2),
    }
