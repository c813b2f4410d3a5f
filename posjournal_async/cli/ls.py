"""`posjournal ls`: the sections of a journal."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import click

from posjournal_async.cli import exits
from posjournal_async.cli.info import findings_of, say_findings
from posjournal_async.cli.options import headers_option, json_option, path_argument
from posjournal_async.inspection.view import JournalView

if TYPE_CHECKING:
    from posjournal_async.cli.console import Output
    from posjournal_async.cli.options import JournalPath
    from posjournal_async.inspection.states import SectionView

__all__ = ["ls"]

_COLUMNS = ("section", "first", "last", "items", "data", "offsets", "state", "what")
_NUMBERS = ("section", "first", "last", "items", "data", "offsets")


@click.command
@path_argument
@headers_option
@json_option
@click.pass_obj
def ls(output: Output, path: JournalPath, *, headers: bool) -> None:
    """List the sections of a journal: positions, items, bytes, state.

    Nothing is changed, and no lock is taken: it works beside a live writer, and on a damaged journal.

    \b
    Example:
      posjournal ls data/orders
    """
    asyncio.run(_ls(output, path, is_thorough=headers))


async def _ls(output: Output, path: JournalPath, *, is_thorough: bool) -> None:
    with output.progress("looking", None, "bytes") as advance:
        view = await JournalView.load(path.root, path.partition, advance=advance, is_thorough=is_thorough)
    findings = findings_of(view.survey)
    if output.is_json:
        output.document(
            "posjournal.ls/1",
            {
                "sections": [_fields_of(section) for section in view.sections],
                "headers_read": view.survey.has_heads,
                "findings": findings,
            },
        )
    else:
        output.table(_COLUMNS, [_row_of(section) for section in view.sections], right=_NUMBERS)
        say_findings(output, view.survey, findings)
    if findings:
        exits.end(exits.Code.FINDINGS)


def _fields_of(section: SectionView) -> dict[str, Any]:
    return {
        "section": section.section,
        "through": section.through,
        "first": section.first,
        "stop": section.stop,
        "items": section.items,
        "data_bytes": section.data_bytes,
        "offsets_bytes": section.offsets_bytes,
        "state": section.state.value,
        "reason": section.reason,
    }


def _row_of(section: SectionView) -> list[str]:
    number = str(section.section)
    if section.through != section.section:
        number += f"-{section.through}"
    has_items = section.items > 0
    return [
        number,
        f"{section.first:,}" if has_items else "-",
        f"{section.stop - 1:,}" if has_items else "-",
        f"{section.items:,}",
        "-" if section.data_bytes is None else f"{section.data_bytes:,}",
        "-" if section.offsets_bytes is None else f"{section.offsets_bytes:,}",
        section.state.value,
        section.reason,
    ]
