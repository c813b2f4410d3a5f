"""The commands under one name. Each stands in a file of its own; what it raises ends here as a message and a code."""

from __future__ import annotations

from typing import Any

import click

from posjournal_async.cli import exits
from posjournal_async.cli.append import append
from posjournal_async.cli.bench import bench
from posjournal_async.cli.cat import cat
from posjournal_async.cli.doctor import doctor
from posjournal_async.cli.export import export
from posjournal_async.cli.get import get
from posjournal_async.cli.import_ import import_
from posjournal_async.cli.info import info
from posjournal_async.cli.ls import ls
from posjournal_async.cli.prune import prune
from posjournal_async.cli.repair import repair
from posjournal_async.cli.rewind import rewind
from posjournal_async.cli.stats import stats
from posjournal_async.cli.tail import tail
from posjournal_async.cli.verify import verify

__all__ = ["posjournal"]


class _Commands(click.Group):
    """A group whose commands end with the exit codes of `exits`, in the order in which they were added."""

    def make_context(self, *arguments: Any, **settings: Any) -> click.Context:
        """Read the arguments up to the command, which prints where they ask for help."""
        with exits.translated():
            return super().make_context(*arguments, **settings)

    def invoke(self, ctx: click.Context) -> Any:
        """Call the command that was named."""
        with exits.translated():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the help."""
        del ctx
        return list(self.commands)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="posjournal_async", message="posjournal %(version)s")
def posjournal() -> None:
    """See, check and change journals of posjournal_async.

    PATH names a journal as Journal.open does: data/orders is the journal whose directories are data/orders_data,
    data/orders_offsets and data/orders_checkpoint.

    Exit codes: 0 fine, 1 findings, 2 usage, 3 locked, 4 I/O.
    """


# In the order of the help.
COMMANDS: list[click.Command] = [
    info,
    ls,
    get,
    cat,
    tail,
    stats,
    verify,
    repair,
    append,
    prune,
    rewind,
    export,
    import_,
    bench,
    doctor,
]

for _command in COMMANDS:
    posjournal.add_command(_command)
