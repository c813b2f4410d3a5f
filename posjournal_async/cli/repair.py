"""`posjournal repair`: what opening would change, shown first, done when it is wanted, and with nothing thrown away."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from posjournal_async.cli.asking import asking_options, check_terminal, end_unless_agreed
from posjournal_async.cli.options import json_option, path_argument
from posjournal_async.cli.ranges import shown_count, shown_range
from posjournal_async.cli.shown import shown_bytes
from posjournal_async.errors import Corruption, JournalLocked
from posjournal_async.mending.carrying_out import carry_out
from posjournal_async.mending.plan import planned
from posjournal_async.mending.quarantine import set_aside
from posjournal_async.storage.file import FileStorage
from posjournal_async.storage.readonly import ReadOnlyFileStorage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from posjournal_async.cli.console import Output
    from posjournal_async.cli.options import JournalPath
    from posjournal_async.format.checkpoint_slot import Slot
    from posjournal_async.mending.cutting import Cut
    from posjournal_async.mending.plan import Repair
    from posjournal_async.recovery.plan import Plan
    from posjournal_async.recovery.repair import RecoveryReport

__all__ = ["repair"]


@click.command()
@path_argument
@click.option(
    "--quarantine",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Directory to make for what goes.  [default: PATH.quarantine- and the time in UTC]",
)
@click.option(
    "--cut-at",
    type=click.IntRange(min=0),
    metavar="POSITION",
    help="End the journal before this position: all items from it on are lost to it, durable or not.",
)
@click.option("--indexes", is_flag=True, help="Also make the index of each sealed section anew that differs.")
@asking_options
@json_option
@click.pass_obj
def repair(  # noqa: PLR0913 - what the command is told
    output: Output,
    path: JournalPath,
    *,
    quarantine: Path | None,
    cut_at: int | None,
    indexes: bool,
    dry_run: bool,
    yes: bool,
) -> None:
    """Do what opening the journal would do after a crash, and keep a copy of all that it takes away.

    Shows the plan and asks before anything is changed. What is cut, removed or written over is copied into a
    quarantine directory first. What no crash explains is not mended by a guess: posjournal cat gets out what is sound,
    and --cut-at makes a journal that ends before the damage.

    \b
    Examples:
      posjournal repair data/orders --dry-run
      posjournal repair data/orders --cut-at 131136
    """
    plan = asyncio.run(_plan(output, path, cut_at=cut_at, with_indexes=indexes))
    if dry_run or not plan.is_needed:
        _conclude(output, path, plan, None, None, is_dry=dry_run)
        return
    where = quarantine or _place_beside(path)
    if not yes:
        _ask(output, path, plan, where)
    report = asyncio.run(_repair(output, path, plan, where, cut_at=cut_at, with_indexes=indexes))
    _conclude(output, path, plan, report, where, is_dry=False)


def _place_beside(path: JournalPath) -> Path:
    """Return a name that no journal can have, and nothing else has yet."""
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    return path.root / f"{path.partition}.quarantine-{now}"


async def _plan(output: Output, path: JournalPath, *, cut_at: int | None, with_indexes: bool) -> Repair:
    storage = ReadOnlyFileStorage(path.root)
    holder = await storage.lock_holder(f"{path.partition}_checkpoint")
    if holder is not None:
        raise JournalLocked(f"{path.partition}_checkpoint", holder)
    try:
        total = len(await storage.scan(f"{path.partition}_data")) if with_indexes else None
        with output.progress("compare", total, "sections") as advance:
            return await planned(storage, path.partition, cut_at=cut_at, with_indexes=with_indexes, advance=advance)
    except Corruption as error:
        output.note(_ways_out(path, error, cut_at=cut_at, with_indexes=with_indexes))
        raise


def _ways_out(path: JournalPath, error: Corruption, *, cut_at: int | None, with_indexes: bool) -> str:
    """Say what can be done about what opening refuses."""
    if cut_at is not None and error.position is not None and error.position < cut_at:
        return f"an item before {cut_at:,} does not check out: end the journal at {error.position:,} or before"
    refused = "no crash explains what is there, so opening refuses it"
    if error.what == "first section":
        return (
            f"{refused}: data blobs are missing, or the checkpoint is an older copy.\n"
            f"With {path}_checkpoint moved away, the journal begins where its data does;\n"
            f"with posjournal repair {path} --cut-at {error.position} it is empty"
        )
    if error.what == "checkpoint":
        return (
            f"{refused}: the checkpoint is lost, and the first data blob\n"
            f"does not say what journal it is. With that one moved out of {path}_data,\n"
            "the journal begins with the next one"
        )
    if error.what == "data blob below the boundary":
        return (
            f"{refused}: the checkpoint is an older copy, of before the journal\n"
            f"was begun anew. With {path}_checkpoint moved away, the journal is what its data says"
        )
    if error.what == "offsets" and not with_indexes:
        return (
            f"{refused}; but it is an index:\n"
            f"posjournal repair {path} --indexes makes it anew where the records check out, and loses no item;\n"
            "it can be given beside a cut"
        )
    return (
        f"{refused}, and nothing is mended by a guess:\n"
        f"posjournal verify {path} says what is wrong, posjournal cat {path} --json gets out what is sound,\n"
        f"and posjournal repair {path} --cut-at POSITION ends the journal before that"
    )


def _ask(output: Output, path: JournalPath, plan: Repair, where: Path) -> None:
    check_terminal()
    for step in _steps_of(plan):
        output.note(step)
    output.note(f"what goes is copied to {where} first")
    end_unless_agreed(output, f"Repair {path}?")


async def _repair(  # noqa: PLR0913 - what the command is told
    output: Output, path: JournalPath, plan: Repair, where: Path, *, cut_at: int | None, with_indexes: bool
) -> RecoveryReport | None:
    lock = await FileStorage(path.root).lock(f"{path.partition}_checkpoint")
    try:
        storage = ReadOnlyFileStorage(path.root)
        if await planned(storage, path.partition, cut_at=cut_at, with_indexes=with_indexes) != plan:
            raise click.ClickException("the journal changed since the plan was made: nothing was repaired")
        total = sum(change.length for change in plan.changes)
        facts = {
            "journal": path.partition,
            "root": str(path.root.absolute()),
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "plan": plan.fields(),
        }
        with output.progress("quarantine", total, "bytes") as advance:
            await set_aside(storage, plan.changes, where, facts, advance)
        with output.progress("repair", None, "steps"):
            return await carry_out(plan, path.root, path.partition)
    finally:
        await lock.release()


def _conclude(  # noqa: PLR0913 - what there is to say
    output: Output,
    path: JournalPath,
    plan: Repair,
    report: RecoveryReport | None,
    where: Path | None,
    *,
    is_dry: bool,
) -> None:
    if output.is_json:
        output.document(
            "posjournal.repair/1",
            {
                "journal": str(path),
                "dry_run": is_dry,
                "plan": plan.fields(),
                "quarantine": None if where is None else str(where),
                "done": None if report is None else asdict(report),
            },
        )
        return
    if not plan.is_needed:
        output.say("nothing to repair: opening the journal changes nothing")
        output.note(f"whether each item is sound is for posjournal verify {path} to say")
    elif report is None:
        output.say(f"repairing {path} would")
        for step in _steps_of(plan):
            output.say(f"  {step}")
    else:
        for step in _steps_of(plan):
            output.say(step)
        output.say(f"repaired: {shown_count(report.items_found, 'item')} retained; what went is in {where}")
    for section in plan.damaged:
        output.note(f"section {section}: not all of its records check out, so its index was left as it is")


def _steps_of(plan: Repair) -> Iterator[str]:
    """Yield what is done, in words, in the order in which it is done."""
    if plan.cut is not None:
        yield from _losses_of(plan.cut)
    if plan.reset is not None:
        yield f"finish   the reset to size {plan.reset:,} that was begun"
    for change in plan.changes:
        amount = f"{change.partition}, section {change.section}: {shown_bytes(change.length)}"
        if change.why == "cut":
            yield f"cut      {amount} from byte {change.start:,} on"
        elif change.why == "removed":
            yield f"remove   {amount}"
        elif not change.partition.endswith("_checkpoint"):
            yield f"rebuild  {amount} that say something else than the data"
    for partition, section in plan.created:
        if not partition.endswith("_checkpoint"):
            yield f"rebuild  {partition}, section {section}: there is none"
    if plan.plan is not None and plan.slot is not None:
        yield from _last_steps_of(plan, plan.plan, plan.slot)


def _losses_of(cut: Cut) -> Iterator[str]:
    if cut.lost:
        yield f"lose     {shown_range(range(cut.position, cut.slot.durable))}, which were durable"
    if cut.lost_above:
        above = shown_range(range(cut.slot.durable, cut.size))
        yield f"lose     {above}, above the durable size of the checkpoint: sync_data may have made them durable"
    if not cut.lost and not cut.lost_above and not cut.behind:
        yield "lose     no item"


def _last_steps_of(repair: Repair, plan: Plan, slot: Slot) -> Iterator[str]:
    if repair.items_dropped:
        yield f"drop     {shown_count(repair.items_dropped, 'item')} behind a gap, above the durable size"
    if plan.size != slot.durable or not slot.sequence or repair.damaged_slots or plan.finishes_reset:
        was = f", was {slot.durable:,}" if slot.sequence else ", was lost"
        yield f"write    the checkpoint: durable size {plan.size:,}{was}"
    for note in plan.notes:
        yield f"note     {note}"
