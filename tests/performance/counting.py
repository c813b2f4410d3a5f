"""Count the calls of Python functions that an operation makes on the thread of the event loop."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import posjournal_async

if TYPE_CHECKING:
    from types import FrameType
    from typing import Self

__all__ = ["Calls"]

_LIBRARY = str(Path(posjournal_async.__file__).parent)
_HERE = str(Path(__file__).parent)


class Calls:
    """Calls of functions written in Python, while it is entered. A coroutine or a generator that goes on counts again.

    What the tests call themselves is not counted, and what other threads do neither. There is no chance in it, so that
    a bound may be what was counted: newer Pythons make fewer calls for the same, never more.

    Attributes:
        library: Calls of the library's own functions, by qualified name.
        others: Calls of everything else: asyncio and the standard library.
    """

    def __init__(self) -> None:
        self.library: Counter[str] = Counter()
        self.others: Counter[str] = Counter()

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        if event != "call":
            return
        code = frame.f_code
        if code.co_filename.startswith(_LIBRARY):
            self.library[code.co_qualname] += 1
        elif not code.co_filename.startswith(_HERE):
            self.others[code.co_qualname] += 1

    def __enter__(self) -> Self:
        assert sys.getprofile() is None, "something else is counting calls"
        gc.collect()
        gc.disable()  # what is collected calls its __del__ when it likes
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        gc.enable()

    def told(self) -> str:
        """Say which functions were called how often, the library's first."""
        return f"library: {dict(self.library.most_common())}\nothers: {dict(self.others.most_common(20))}"
