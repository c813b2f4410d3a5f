"""The question that a command asks before it takes something away."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeVar

import click

from posjournal_async.cli.exits import Code, end

if TYPE_CHECKING:
    from collections.abc import Callable

    from posjournal_async.cli.console import Output

__all__ = ["asking_options", "check_terminal", "end_unless_agreed"]

_Command = TypeVar("_Command", bound="Callable[..., Any]")


def asking_options(command: _Command) -> _Command:
    """Give the command `--dry-run` as `dry_run` and `--yes` as `yes`."""
    command = click.option("--yes", "-y", is_flag=True, help="Do not ask.")(command)
    return click.option("--dry-run", is_flag=True, help="Say what would go, and change nothing.")(command)


def check_terminal() -> None:
    """Refuse to ask where nobody can answer.

    Raises:
        click.UsageError: Standard input is no terminal.
    """
    if sys.stdin is None or not sys.stdin.isatty():  # None: it is closed
        raise click.UsageError("standard input is no terminal to ask at: --yes does without the question")


def end_unless_agreed(output: Output, question: str) -> None:
    """Ask at the terminal; end the command where the answer is no, or the end of the input, or Ctrl-C."""
    try:
        is_agreed = click.confirm(question, err=True)
    except click.Abort as abort:
        output.note("")  # behind the question
        if isinstance(abort.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        is_agreed = False
    if not is_agreed:
        output.note("nothing was changed")
        end(Code.FINDINGS)
