"""`posjournal info`: what a journal is, at a glance."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from posjournal_async.cli import exits
from posjournal_async.cli.gaps import positions_in_words
from posjournal_async.cli.options import headers_option, json_option, path_argument
from posjournal_async.cli.shown import shown_bytes, shown_time, utc_time
from posjournal_async.errors import PositionError
from posjournal_async.format.header import FORMAT_VERSION
from posjournal_async.inspection.compression import Compression, compression_of
from posjournal_async.inspection.states import SectionState
from posjournal_async.inspection.view import JournalView

if TYPE_CHECKING:
    from posjournal_async.cli.console import Output
    from posjournal_async.cli.options import JournalPath
    from posjournal_async.inspection.states import Survey

__all__ = ["info"]


@click.command
@path_argument
@click.option("--exact", is_flag=True, help="Read every item for the compression ratio, instead of a sample.")
@headers_option
@json_option
@click.pass_obj
def info(output: Output, path: JournalPath, *, exact: bool, headers: bool) -> None:
    """Show what a journal is: bounds, sizes, codec, lock, damage.

    Nothing is changed, and no lock is taken: it works beside a live writer, and on a damaged journal.

    \b
    Example:
      posjournal info data/orders
    """
    asyncio.run(_info(output, path, is_exact=exact, is_thorough=headers))


async def _info(output: Output, path: JournalPath, *, is_exact: bool, is_thorough: bool) -> None:
    with output.progress("looking", None, "bytes") as advance:
        view = await JournalView.load(path.root, path.partition, advance=advance, is_thorough=is_thorough)
    async with view:
        with output.progress("reading", view.count if is_exact else None, "items") as advance:
            compression = await compression_of(view, is_exact=is_exact, advance=advance)
    survey = view.survey
    findings = [*findings_of(survey), *_unreadable_in(compression)]
    if output.is_json:
        output.document("posjournal.info/1", _fields_of(view, compression, findings))
    else:
        output.pairs(_pairs_of(path, view, compression))
        say_findings(output, survey, findings)
    if findings:
        exits.end(exits.Code.FINDINGS)


def say_findings(output: Output, survey: Survey, findings: list[str]) -> None:
    """Say on standard error what is wrong, and what was not looked at."""
    for finding in findings:
        output.note(f"wrong: {finding}")
    if not survey.has_heads:
        output.note(f"the headers of {len(survey.sections):,} sections were not read; --headers reads them")


def findings_of(survey: Survey) -> list[str]:
    """Return what is wrong that no crash explains, as far as can be seen without reading sealed sections."""
    found: list[str] = []
    if survey.slot is not None and not survey.slot.sequence:
        found.append("the checkpoint is lost; what the data says stands in for it")
    for section in survey.sections:
        if section.state.is_damage:
            name = f"section {section.section}"
            if section.through != section.section:
                name = f"sections {section.section} to {section.through}"
            found.append(f"{name}: {section.state.value}: {section.reason}")
    found += [f"{stranger}: its name is no section number" for stranger in survey.strangers]
    if survey.problem is not None:
        found.append(f"opening it would fail: {survey.problem}")
    return found


def _unreadable_in(compression: Compression) -> list[str]:
    """Return what could not be read of the items that were looked at; what a live writer has removed is not wrong."""
    return [
        f"{positions_in_words(gap.start, gap.stop)}: {gap.error}"
        for gap in compression.unreadable
        if not isinstance(gap.error, PositionError)
    ]


def _fields_of(view: JournalView, compression: Compression, findings: list[str]) -> dict[str, Any]:
    survey = view.survey
    slot = survey.slot
    states = Counter(section.state.value for section in survey.sections)
    ratio = compression.ratio
    return {
        "partition": view.partition,
        "format_version": None if slot is None else FORMAT_VERSION,
        "codec": None if slot is None else slot.codec,
        "items_per_section": view.items_per_section,
        "boundary": survey.boundary,
        "durable_size": survey.durable,
        "size": survey.size,
        "items": view.count,
        "sections": _count_of(survey),
        "states": {state.value: states[state.value] for state in SectionState if states[state.value]},
        "bytes": _bytes_of(survey),
        "torn_bytes": sum(section.torn_bytes for section in survey.sections),
        "compression": {
            "ratio": None if ratio is None else round(ratio, 3),
            "items": compression.items,
            "compressed_items": compression.compressed,
            "is_whole": compression.is_whole,
        },
        "lock_holder": view.holder,
        "last_sync": None if survey.synced_ns is None else utc_time(survey.synced_ns),
        "reset_target": None if slot is None else slot.reset,
        "headers_read": survey.has_heads,
        "damaged_slots": survey.damaged_slots,
        "findings": findings,
    }


def _count_of(survey: Survey) -> int:
    return sum(section.data_bytes is not None for section in survey.sections)


def _bytes_of(survey: Survey) -> dict[str, int]:
    return {
        "data": sum(section.data_bytes or 0 for section in survey.sections),
        "offsets": sum(section.offsets_bytes or 0 for section in survey.sections),
        "checkpoint": survey.checkpoint_bytes,
    }


def _pairs_of(path: JournalPath, view: JournalView, compression: Compression) -> list[tuple[str, str]]:
    survey = view.survey
    slot = survey.slot
    lengths = _bytes_of(survey)
    states = Counter(section.state.value for section in survey.sections)
    of_states = ", ".join(f"{states[state.value]:,} {state.value}" for state in SectionState if states[state.value])
    pairs = [
        ("journal", str(path)),
        ("format", "not known" if slot is None else f"version {FORMAT_VERSION}"),
        ("codec", "not known" if slot is None else slot.codec),
        ("bounds", f"{survey.boundary:,} to {survey.size:,}, {view.count:,} items"),
        ("size", _size_of(survey)),
        ("durable size", f"{survey.durable:,}, by the checkpoint"),
        ("sections", f"{_count_of(survey):,}" + (f": {of_states}" if of_states else "")),
        ("section size", "not known" if slot is None else f"{slot.items_per_section:,} items"),
        ("data", shown_bytes(lengths["data"])),
        ("offsets", shown_bytes(lengths["offsets"])),
        ("checkpoint", shown_bytes(lengths["checkpoint"])),
        ("compression", _compression_in_words(compression)),
        ("lock", "nobody is seen to have it" if view.holder is None else f"held by process {view.holder}"),
        ("last sync", "never" if survey.synced_ns is None else shown_time(survey.synced_ns)),
    ]
    torn = sum(section.torn_bytes for section in survey.sections)
    if torn:
        pairs.append(("torn tail", f"{shown_bytes(torn)} behind the last record, cut when it is opened"))
    if slot is not None and slot.reset is not None:
        pairs.append(("reset", f"in progress, to size {slot.reset:,}; finished when it is opened"))
    if survey.damaged_slots and slot is not None and slot.sequence:
        pairs.append(("torn slot", "one slot of the checkpoint is torn or damaged; the other one counts"))
    return pairs


def _size_of(survey: Survey) -> str:
    above = survey.size - survey.durable
    if above <= 0:
        return f"{survey.size:,}"
    return f"{survey.size:,}, {above:,} of them above the durable size of the checkpoint"


def _compression_in_words(compression: Compression) -> str:
    ratio = compression.ratio
    if ratio is None:
        return "no items to measure"
    of = f"all {compression.items:,} items" if compression.is_whole else f"a sample of {compression.items:,} items"
    if not compression.compressed:
        return f"none, in {of}"
    return f"{ratio:.2f} to 1, in {of}, {compression.compressed:,} of them compressed"
