"""Opening a journal to change it: what has to be known before, and what is to be said of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from posjournal_async.config import Config, Context
from posjournal_async.errors import JournalLocked
from posjournal_async.inspection.survey import survey
from posjournal_async.journal import Journal
from posjournal_async.mending.carrying_out import Unread
from posjournal_async.storage.file import FileStorage
from posjournal_async.storage.readonly import ReadOnlyFileStorage

if TYPE_CHECKING:
    from posjournal_async.cli.console import Output
    from posjournal_async.cli.options import JournalPath
    from posjournal_async.inspection.states import Survey

__all__ = ["look_at", "note_repair", "open_whatever_its_codec"]


async def look_at(path: JournalPath) -> Survey:
    """Return what a journal's files show, with nothing changed; who has it open is told first.

    Raises:
        JournalLocked: A process has it open.
        JournalError: Opening it would raise this.
    """
    storage = ReadOnlyFileStorage(path.root)
    holder = await storage.lock_holder(f"{path.partition}_checkpoint")
    if holder is not None:
        raise JournalLocked(f"{path.partition}_checkpoint", holder)
    seen = await survey(storage, path.partition)
    if seen.problem is not None:
        raise seen.problem
    return seen


async def open_whatever_its_codec(output: Output, path: JournalPath, seen: Survey) -> Journal[Any]:
    """Open a journal that is there, for commands that look at no item."""
    assert seen.slot is not None
    config = Config(
        partition=path.partition,
        items_per_section=seen.slot.items_per_section,
        codec=Unread(seen.slot.codec),
    )
    journal = await Journal.init(Context(FileStorage(path.root)), config)
    note_repair(output, journal)
    return journal


def note_repair(output: Output, journal: Journal[Any]) -> None:
    """Say what opening a journal has repaired, if anything."""
    report = journal.recovery
    if report.clean:
        return
    found = [
        (report.items_dropped, "item dropped", "items dropped"),
        (report.bytes_cut, "byte cut", "bytes cut"),
        (report.offsets_rebuilt, "index rebuilt", "indexes rebuilt"),
        (report.sections_removed, "section removed", "sections removed"),
        (int(report.reset_finished), "reset finished", "resets finished"),
    ]
    said = [f"{count:,} {one if count == 1 else many}" for count, one, many in found if count]
    output.note("opening repaired what a crash left: " + ", ".join([*(said or ["the checkpoint"]), *report.notes]))
