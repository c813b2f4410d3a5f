"""`posjournal rewind`: discard items from the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from posjournal_async.cli.asking import asking_options
from posjournal_async.cli.options import json_option, path_argument
from posjournal_async.cli.removing import going_by_rewind, remove
from posjournal_async.journal import Journal

if TYPE_CHECKING:
    from posjournal_async.cli.console import Output
    from posjournal_async.cli.options import JournalPath

__all__ = ["rewind"]


@click.command()
@path_argument
@click.argument("size", type=click.IntRange(min=0))
@asking_options
@json_option
@click.pass_obj
def rewind(output: Output, path: JournalPath, size: int, *, dry_run: bool, yes: bool) -> None:
    """Discard items from the end, so that SIZE is the position that the next append gets.

    Exact: the item at SIZE and all behind it are gone, the one before it stays. Shows what goes and asks before it does
    anything; opening the journal for it repairs what a crash left.

    \b
    Example:
      posjournal rewind data/orders 41 --dry-run
    """
    remove(output, path, size, going_by_rewind, Journal.rewind, command="rewind", dry_run=dry_run, yes=yes)
