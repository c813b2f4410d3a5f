"""`posjournal verify`: look at every byte, and say what is wrong."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from posjournal_async.cli.codec_choice import codec_of
from posjournal_async.cli.exits import Code, end
from posjournal_async.cli.options import codec_option, json_option, path_argument
from posjournal_async.cli.ranges import shown_count
from posjournal_async.cli.shown import shown_bytes
from posjournal_async.config import Config
from posjournal_async.format.record import LONGEST_PAYLOAD
from posjournal_async.inspection.findings import Severity
from posjournal_async.inspection.survey import current_slots
from posjournal_async.inspection.verification import Verification
from posjournal_async.payloads import Payloads
from posjournal_async.storage.readonly import ReadOnlyFileStorage

if TYPE_CHECKING:
    from posjournal_async.cli.console import Output
    from posjournal_async.cli.options import JournalPath
    from posjournal_async.format.checkpoint_slot import Slot
    from posjournal_async.inspection.findings import Finding

__all__ = ["verify"]

# Columns of a table whose rows are printed before the last is known.
_WIDTHS = {"severity": 8, "partition": 10, "section": 8, "byte": 14, "position": 14}

_STYLES = {Severity.TORN: "yellow", Severity.STALE: "cyan", Severity.CORRUPT: "bold red"}

_LARGEST_ITEM = 64 * 2**20


@dataclass(slots=True)
class _Told:
    """Prints findings as they come, and counts them."""

    output: Output
    counts: Counter[Severity] = field(default_factory=Counter[Severity])
    positions: int = 0

    def __call__(self, finding: Finding) -> None:
        is_first = not self.counts
        self.counts[finding.severity] += 1
        self.positions += finding.positions
        if self.output.is_json:
            self.output.line({"schema": "posjournal.finding/1", **finding.fields()})
            return
        if is_first:
            self.output.say(_row({name: name for name in _WIDTHS}, "what"), style="bold")
        cells = {
            "severity": finding.severity.value,
            "partition": finding.partition.rpartition("_")[2],
            "section": _number(finding.section),
            "byte": _number(finding.offset),
            "position": _number(finding.position),
        }
        what = f"{finding.what}: expected {finding.expected}, found {finding.found}"
        self.output.say(_row(cells, what), style=_STYLES[finding.severity])


def _number(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


def _row(cells: dict[str, str], last: str) -> str:
    left = ("severity", "partition")
    padded = [cells[name].ljust(width) if name in left else cells[name].rjust(width) for name, width in _WIDTHS.items()]
    return "  ".join([*padded, last])


@click.command()
@path_argument
@click.option("--deep", is_flag=True, help="Also decompress and decode each item.")
@click.option(
    "--max-item-size",
    type=click.IntRange(1, LONGEST_PAYLOAD),
    default=_LARGEST_ITEM,
    metavar="BYTES",
    help="For --deep: the limit that the journal is opened with.  [default: 64 MiB]",
)
@codec_option
@json_option
@click.pass_obj
def verify(output: Output, path: JournalPath, *, deep: bool, max_item_size: int, codec: str | None) -> None:
    """Check the checkpoint, every header, every record with its checksum, and the index against the data.

    Changes nothing, and works beside a process that has the journal open. Exit code 1 means findings:

    \b
      torn     a crash explains it, and the next open mends it
      stale    the index or the checkpoint says less than the data, or something else
      corrupt  no crash explains it

    \b
    Example:
      posjournal verify data/orders --deep
    """
    if codec is not None and not deep:
        raise click.UsageError("--codec is for --deep")
    told = _Told(output)
    found = asyncio.run(_verify(output, path, told, deep=deep, max_item_size=max_item_size, codec=codec))
    _conclude(output, path, found, told, deep=deep)
    if told.counts:
        end(Code.FINDINGS)


async def _verify(  # noqa: PLR0913 - what the command was told
    output: Output, path: JournalPath, told: _Told, *, deep: bool, max_item_size: int, codec: str | None
) -> Verification:
    storage = ReadOnlyFileStorage(path.root)

    async def is_locked() -> bool:
        return await storage.lock_holder(f"{path.partition}_checkpoint") is not None

    def payloads_of(slot: Slot) -> Payloads[Any]:
        chosen = codec_of(slot.codec, codec)
        return Payloads(Config(partition=path.partition, codec=chosen, max_item_size=max_item_size))

    verification = Verification(
        storage, path.partition, told, payloads_of=payloads_of if deep else None, is_locked=is_locked
    )
    slot = (await current_slots(storage, path.partition)).current
    total = None if slot is None else max(slot.durable - slot.boundary, 0)
    with output.progress("verify", total, "items") as advance:
        verification.tally.advance = advance
        await verification.run()
    return verification


def _conclude(output: Output, path: JournalPath, found: Verification, told: _Told, *, deep: bool) -> None:
    tally = found.tally
    if output.is_json:
        output.line(
            {
                "schema": "posjournal.verify/1",
                "journal": str(path),
                "deep": deep,
                "sections": tally.sections,
                "items": tally.items,
                "decoded": tally.decoded if deep else None,
                "bytes": tally.data_bytes,
                "boundary": None if found.slot is None else found.slot.boundary,
                "durable_size": None if found.slot is None else found.slot.durable,
                "findings": {severity.value: told.counts[severity] for severity in Severity},
                "positions": told.positions,
                "beside_writer": found.is_beside_writer,
                "unsettled": tally.unsettled,
            }
        )
    else:
        decoded = f", decoded {tally.decoded:,}" if deep else ""
        amount = f"{shown_count(tally.items, 'item')}{decoded} in {shown_count(tally.sections, 'section')}"
        counts = [f"{told.counts[severity]:,} {severity.value}" for severity in Severity if told.counts[severity]]
        result = ", ".join(counts) or "nothing wrong"
        if told.positions:
            result += f"; {shown_count(told.positions, 'position')} without a sound item"
        output.say(f"checked {amount}, {shown_bytes(tally.data_bytes)}: {result}")
    if found.is_beside_writer:
        output.note("somebody has the journal open: what lies above its durable size was left to them")
    if found.is_cut_short:
        output.note("the journal was reset while it was looked at: this was the one before")
    elif tally.unsettled:
        places = shown_count(tally.unsettled, "place")
        output.note(f"{places} changed meanwhile, and nothing is said of that: verify again for certainty")
    if told.counts[Severity.TORN] or told.counts[Severity.STALE]:
        indexes = " --indexes" if told.counts[Severity.STALE] else ""
        output.note(f"what mends this: posjournal repair {path}{indexes} --dry-run")
