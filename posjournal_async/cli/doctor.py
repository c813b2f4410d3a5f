"""`posjournal doctor`: whether the place of a journal keeps what the journal promises, as far as that can be told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from posjournal_async.cli.exits import Code, end
from posjournal_async.cli.options import json_option, new_path_argument
from posjournal_async.inspection.surroundings import WARNING, checks_of

if TYPE_CHECKING:
    from posjournal_async.cli.console import Output
    from posjournal_async.cli.options import JournalPath

__all__ = ["doctor"]


@click.command()
@new_path_argument
@click.option(
    "--measure", is_flag=True, help="Measure fsync and try locks, in a file and a directory that are gone afterwards."
)
@json_option
@click.pass_obj
def doctor(output: Output, path: JournalPath, *, measure: bool) -> None:
    """Say whether the place of a journal can be relied on: file system, device, locks, limits, who has it open.

    The journal need not be there yet. Without --measure nothing is written and no lock is taken. Exit code 1 if there
    is a warning.

    No program can prove that a device keeps what it says it keeps: what is ok here is so as far as the system tells.

    \b
    Example:
      posjournal doctor data/orders --measure
    """
    with output.progress("measuring" if measure else "looking", None, "steps"):
        checks = checks_of(path.root, path.partition, measures=measure)
    if output.is_json:
        fields = [
            {"name": check.name, "state": check.state, "found": check.found, "advice": check.advice} for check in checks
        ]
        output.document("posjournal.doctor/1", {"path": str(path), "measured": measure, "checks": fields})
    else:
        for check in checks:
            said = f"{check.found}: {check.advice}" if check.advice else check.found
            style = "bold red" if check.state == WARNING else ""
            output.say(f"{check.state:<7}  {check.name:<14}  {said}", style=style)
    if any(check.state == WARNING for check in checks):
        end(Code.FINDINGS)
