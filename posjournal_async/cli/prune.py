"""`posjournal prune`: remove whole sections from the front."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from posjournal_async.cli.asking import asking_options
from posjournal_async.cli.options import json_option, path_argument
from posjournal_async.cli.removing import going_by_prune, remove
from posjournal_async.journal import Journal

if TYPE_CHECKING:
    from posjournal_async.cli.console import Output
    from posjournal_async.cli.options import JournalPath

__all__ = ["prune"]


@click.command()
@path_argument
@click.argument("position", type=click.IntRange(min=0))
@asking_options
@json_option
@click.pass_obj
def prune(output: Output, path: JournalPath, position: int, *, dry_run: bool, yes: bool) -> None:
    """Remove the sections whose items all lie below POSITION.

    POSITION is rounded down to the start of a section; items of that section stay. Their space is back at once. Shows
    what goes and asks before it does anything; opening the journal for it repairs what a crash left.

    \b
    Example:
      posjournal prune data/orders 1000000 --dry-run
    """
    remove(output, path, position, going_by_prune, Journal.prune, command="prune", dry_run=dry_run, yes=yes)
