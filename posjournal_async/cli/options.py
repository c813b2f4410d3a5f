"""What several commands are told in the same way: the journal, `--json`, `--codec`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from posjournal_async.cli.console import Output
from posjournal_async.cli.shown import printable
from posjournal_async.config import Config
from posjournal_async.errors import InvalidConfiguration

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "JournalPath",
    "codec_option",
    "headers_option",
    "json_option",
    "new_path_argument",
    "path_argument",
    "raw_option",
]

_Command = TypeVar("_Command", bound="Callable[..., Any]")

_PARTS = ("data", "offsets", "checkpoint")


@dataclass(frozen=True, slots=True)
class JournalPath:
    """Where a journal is.

    Attributes:
        root: Root of its storage.
        partition: Its base name.
    """

    root: Path
    partition: str

    def __str__(self) -> str:
        return str(self.root / self.partition)

    def directory(self, part: str) -> Path:
        """Return one of its three directories, by "data", "offsets" or "checkpoint"."""
        return self.root / f"{self.partition}_{part}"


if TYPE_CHECKING:
    _ParamType = click.ParamType[JournalPath]
else:
    _ParamType = click.ParamType  # generic since click 8.2


class _JournalPathType(_ParamType):
    """PATH as `Journal.open` takes it: the last part is the base name, the rest the root of the storage."""

    name = "path"

    def __init__(self, *, must_exist: bool) -> None:
        self._must_exist = must_exist

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> JournalPath:
        if isinstance(value, JournalPath):
            return value
        place = Path(value)
        path = JournalPath(place.parent, place.name)
        base, _, part = place.name.rpartition("_")
        if base and part in _PARTS and place.is_dir() and not _exists(path):
            journal = place.parent / base
            self.fail(
                f"{_quoted(place)} is the {part} directory of a journal; the journal is {_quoted(journal)}", param, ctx
            )
        try:
            Config(partition=place.name)
        except InvalidConfiguration as error:
            self.fail(f"{_quoted(place)} names no journal: {error}", param, ctx)
        if self._must_exist and not _exists(path):
            self.fail(f"no journal at {_quoted(place)}{_others(place)}", param, ctx)
        return path


def _exists(path: JournalPath) -> bool:
    """Say whether one of the three directories is there, or cannot be looked for."""
    try:
        return any(path.directory(part).is_dir() for part in _PARTS)
    except PermissionError:
        return True  # reading it will say so


def _others(place: Path) -> str:
    """Say which journals are in the directory that was named, or beside the one that is missing."""
    for root in (place, place.parent):
        names = sorted({path.name.removesuffix("_checkpoint") for path in root.glob("?*_checkpoint")})
        if names:
            shown = ", ".join(_quoted(root / name) for name in names[:5])
            return f"; there is {shown}" + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return ""


def _quoted(path: Path) -> str:
    return f"'{printable(str(path))}'"


def path_argument(command: _Command) -> _Command:
    """Give the command the journal that it is about as `path`, a `JournalPath`; it must be there."""
    return click.argument("path", type=_JournalPathType(must_exist=True))(command)


def new_path_argument(command: _Command) -> _Command:
    """Give the command the journal that it is about as `path`, a `JournalPath`; it need not be there yet."""
    return click.argument("path", type=_JournalPathType(must_exist=False))(command)


def json_option(command: _Command) -> _Command:
    """Give the command `--json`; it gets its `Output` by `click.pass_obj`."""

    def choose(context: click.Context, _: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's signature
        context.obj = Output(is_json=value)

    option = click.option(
        "--json",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=choose,
        help="Print JSON, as docs/command-line.md describes it.",
    )
    return option(command)


def codec_option(command: _Command) -> _Command:
    """Give the command `--codec` as `codec`, for `codec_choice.codec_of`; None unless it is given."""
    option = click.option(
        "--codec",
        metavar="CODEC",
        help="msgpack, json, bytes, or module:attribute of a codec of your own. [default: the one in the header]",
    )
    return option(command)


def headers_option(command: _Command) -> _Command:
    """Give the command `--headers` as `headers`: whether to read those of all sections, however many there are."""
    option = click.option(
        "--headers", is_flag=True, help="Read the header of each section also where there are more than 1,000."
    )
    return option(command)


def raw_option(command: _Command) -> _Command:
    """Give the command `--raw` as `raw`: the bytes of items as their codec made them, for pipes and files."""

    def check(context: click.Context, parameter: click.Parameter, value: bool) -> bool:  # noqa: FBT001 - click's signature
        if value and sys.stdout.isatty():
            raise click.BadParameter("bytes as they are do not go to a terminal", context, parameter)
        if value and isinstance(context.obj, Output) and context.obj.is_json:
            raise click.BadParameter("choose one of --raw and --json", context, parameter)
        return value

    option = click.option(
        "--raw",
        is_flag=True,
        callback=check,
        help="Write the bytes of the items as their codec made them, and nothing else.",
    )
    return option(command)
