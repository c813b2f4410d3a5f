"""How a command ends: its exit code, and the message on standard error that says why."""

from __future__ import annotations

import enum
import os
import sys
from contextlib import contextmanager, suppress
from errno import EBADF, EPIPE
from typing import TYPE_CHECKING, NoReturn

import click

from posjournal_async.cli.shown import printable
from posjournal_async.errors import (
    AppendError,
    CodecError,
    Corruption,
    InvalidConfiguration,
    JournalFailed,
    JournalLocked,
    PositionError,
    StorageError,
)

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["Code", "end", "translated"]


class Code(enum.IntEnum):
    """What the exit code of `posjournal` says."""

    FINE = 0
    FINDINGS = 1
    USAGE = 2
    LOCKED = 3
    STORAGE = 4
    INTERRUPTED = 130  # 128 + SIGINT, as shells have it
    BROKEN_PIPE = 141  # 128 + SIGPIPE


def end(code: Code) -> NoReturn:
    """End the command with this code; what is to be said was said."""
    raise click.exceptions.Exit(code)


@contextmanager
def translated() -> Generator[None]:
    """Turn what can go wrong into a message on standard error and the exit code that stands for it.

    Standard output is flushed inside, so that a full disk or a reader that went away is met here. What is none of the
    library's errors, of the system's or of the user's is a defect of this program, and is not caught.
    """
    try:
        _check_output()
        yield
        sys.stdout.flush()
    except KeyboardInterrupt:
        _say("interrupted")
        end(Code.INTERRUPTED)
    except JournalLocked as error:
        _say(str(error))
        end(Code.LOCKED)
    except (InvalidConfiguration, AppendError) as error:
        _say(str(error))
        end(Code.USAGE)
    except (Corruption, CodecError, PositionError) as error:
        _say(str(error))
        end(Code.FINDINGS)
    except JournalFailed as error:
        _say(str(error))
        end(Code.STORAGE)
    except OSError as error:  # a StorageError too
        if error.errno == EPIPE:
            end(Code.BROKEN_PIPE)  # without a word: whoever read standard output has what they wanted
        _say(str(error) if isinstance(error, StorageError) else _told(error))
        end(Code.STORAGE)
    finally:
        _let_go_of_output()


def _check_output() -> None:
    """Refuse to do what nobody would be told of.

    Raises:
        OSError: Standard output is closed.
    """
    if sys.stdout is None:  # pyright: ignore[reportUnnecessaryComparison]
        raise OSError(EBADF, "standard output is closed")


def _told(error: OSError) -> str:
    """Return what the system says, and of what; nothing is named where it is standard input or output."""
    reason = (error.strerror or str(error)).lower()
    return reason if error.filename is None else f"{error.filename}: {reason}"


def _say(message: str) -> None:
    with suppress(OSError):  # nobody is left to be told
        click.echo(f"posjournal: {printable(message)}", err=True)


def _let_go_of_output() -> None:
    """Drop what standard output does not take: the interpreter flushes it again when it ends, and would complain."""
    if sys.stdout is None:  # pyright: ignore[reportUnnecessaryComparison]
        return
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
