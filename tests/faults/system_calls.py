"""System calls of a `FileStorage` that do less than they were asked for, or fail."""

from __future__ import annotations

import fcntl
import os
import threading
from dataclasses import dataclass, field
from errno import EROFS
from functools import wraps
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

__all__ = ["CALLS", "Made", "SystemCalls", "failing", "shortening"]

CALLS = {
    "close": os,
    "fdatasync": os,
    "flock": fcntl,
    "fstat": os,
    "fsync": os,
    "ftruncate": os,
    "listdir": os,
    "mkdir": os,
    "open": os,
    "pread": os,
    "pwrite": os,
    "rmdir": os,
    "unlink": os,
}

# Not the one that stands in for it.
_close = os.close


@dataclass(frozen=True)
class Made:
    """A system call that is being made.

    Attributes:
        number: Its number, from 1.
        name: Its name.
        real: What makes it.
        args: What it is given.
        keywords: What it is given by name.
    """

    number: int
    name: str
    real: Callable[..., Any]
    args: tuple[Any, ...]
    keywords: dict[str, Any]

    def make(self) -> Any:
        """Make it."""
        return self.real(*self.args, **self.keywords)


@dataclass
class SystemCalls:
    """Stand in for system calls that the threads of any `FileStorage` make, while it is entered.

    Attributes:
        instead: What is done instead of a call.
        only: Names of the calls that count.
        made: Names of the calls that were made.
    """

    instead: Callable[[Made], Any] = Made.make
    only: frozenset[str] = frozenset(CALLS)
    made: list[str] = field(default_factory=list[str])

    def __enter__(self) -> Self:
        self._lock = threading.Lock()
        self._patch = pytest.MonkeyPatch()
        for name in self.only:
            module = CALLS[name]
            self._patch.setattr(module, name, self._around(name, getattr(module, name)))
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.undo()

    def _around(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(real)
        def call(*args: Any, **keywords: Any) -> Any:
            if not threading.current_thread().name.startswith("posjournal"):
                return real(*args, **keywords)
            with self._lock:
                self.made.append(name)
                number = len(self.made)
            return self.instead(Made(number, name, real, args, keywords))

        return call


def failing(fail_at: int, code: int, *, once: bool, takes_effect: bool) -> Callable[[Made], Any]:
    """Return how to make calls of which the `fail_at`-th fails, or all from it on; a close always closes."""

    def instead(made: Made) -> Any:
        if made.number < fail_at or (once and made.number > fail_at):
            return made.make()
        # Two threads do not take turns in the same way each time, and no system says that of a missing file.
        if made.name == "open" and code == EROFS:
            return made.make()
        if made.name == "close" or (takes_effect and made.name != "open"):
            made.make()
        elif takes_effect:
            _close(made.make())  # nobody gets the descriptor
        raise OSError(code, os.strerror(code))

    return instead


def shortening(length_of: Callable[[int], int], only: Callable[[int], bool] = lambda _: True) -> Callable[[Made], Any]:
    """Return how to make writes of which those whose number `only` holds for write less: `length_of` their length."""

    def instead(made: Made) -> Any:
        if not only(made.number):
            return made.make()
        fd, data, offset = made.args
        length = length_of(len(data))
        return made.real(fd, data[:length], offset) if length else 0

    return instead
