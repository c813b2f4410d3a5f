"""How commands end."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import click
import pytest

from posjournal_async import (
    CodecError,
    Corruption,
    EmptyAppend,
    InvalidConfiguration,
    ItemOutOfRange,
    ItemPruned,
    JournalFailed,
    JournalLocked,
    StorageError,
)
from posjournal_async.cli import exits

if TYPE_CHECKING:
    from posjournal_async.cli.exits import Code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Corruption("record", "one", "none", "orders_data"), exits.Code.FINDINGS),
        (CodecError("json", "decode", "ValueError", 3), exits.Code.FINDINGS),
        (ItemPruned(3, 10), exits.Code.FINDINGS),
        (ItemOutOfRange(30, 10), exits.Code.FINDINGS),
        (InvalidConfiguration("codec", "json", "bytes"), exits.Code.USAGE),
        (EmptyAppend(), exits.Code.USAGE),
        (JournalLocked("orders", 17), exits.Code.LOCKED),
        (StorageError("orders_data", None, errno.EIO, "read"), exits.Code.STORAGE),
        (JournalFailed("orders", StorageError("orders_data", None, errno.EIO, "sync")), exits.Code.STORAGE),
        (OSError(errno.ENOSPC, "No space left on device"), exits.Code.STORAGE),
        (PermissionError(errno.EACCES, "Permission denied", "x\x1b"), exits.Code.STORAGE),
    ],
)
def test_each_error_has_its_code_and_a_message(
    error: Exception, code: Code, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message is one line on standard error without a control character."""
    with pytest.raises(click.exceptions.Exit) as raised, exits.translated():
        raise error
    output, errors = capsys.readouterr()
    assert (raised.value.exit_code, output) == (code, "")
    assert errors.startswith("posjournal: ")
    assert errors.endswith("\n")
    assert errors[:-1].isprintable()


def test_an_interruption_has_its_code(capsys: pytest.CaptureFixture[str]) -> None:
    """That of a shell's Ctrl-C."""
    with pytest.raises(click.exceptions.Exit) as raised, exits.translated():
        raise KeyboardInterrupt
    assert raised.value.exit_code == 130
    assert capsys.readouterr().err == "posjournal: interrupted\n"


@pytest.mark.parametrize("error", [ValueError("a defect"), click.UsageError("no")])
def test_a_defect_and_what_click_tells_itself_go_on(error: Exception) -> None:
    """Nothing is caught that is not understood."""
    with pytest.raises(type(error)), exits.translated():
        raise error


def test_a_code_that_was_chosen_is_kept() -> None:
    """What was to be said was said."""
    with pytest.raises(click.exceptions.Exit) as raised, exits.translated():
        exits.end(exits.Code.LOCKED)
    assert raised.value.exit_code == 3
