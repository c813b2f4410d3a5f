"""A writer in a process of its own, and somebody who reads what `posjournal tail -f` says meanwhile.

Run as a program it is the writer: it carries out one command a line of standard input, and says when that is done.
"""

from __future__ import annotations

import asyncio
import json
import os
import selectors
import subprocess
import sys
import time
from typing import IO, TYPE_CHECKING, Any

from posjournal_async import Config, Context, FileStorage, Journal
from tests.cli.transcripts import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Self

__all__ = ["Reading", "Writer", "item_of"]

# How long an answer may take on a machine under load.
_PATIENCE_SECONDS = 60


def item_of(position: int, history: int) -> bytes:
    """Return the item of a position; a history begins with each rewind."""
    return b"item %04d of history %d" % (position, history)


class Lines:
    """The lines of a pipe, each waited for only so long."""

    def __init__(self, pipe: IO[bytes] | None) -> None:
        assert pipe is not None
        self._pipe = pipe
        self._rest = b""
        os.set_blocking(pipe.fileno(), False)

    def next(self) -> str:
        """Return the next line without its end; "" when there is none any more."""
        give_up = time.monotonic() + _PATIENCE_SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(self._pipe, selectors.EVENT_READ)
            while b"\n" not in self._rest:
                left = give_up - time.monotonic()
                assert left > 0, f"nothing is said any more, after {self._rest!r}"
                if selector.select(left):
                    piece = os.read(self._pipe.fileno(), 65_536)
                    if not piece:
                        return ""
                    self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()


class Writer:
    """A process that has the journal open."""

    def __init__(self, root: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.cli.following", str(root)],
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._lines = Lines(self._process.stdout)

    def __enter__(self) -> Self:
        assert self._lines.next() == "open"
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def do(self, what: str, *numbers: int) -> None:
        """Have something done; return when it is."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{json.dumps([what, *numbers])}\n".encode())
        self._process.stdin.flush()
        assert self._lines.next() == what

    def kill(self) -> None:
        """Kill the process, whatever it does; it is gone then."""
        self._process.kill()
        with self._process:
            self._process.wait()


class Reading:
    """What somebody knows who reads the JSON lines of `posjournal tail -f`.

    Attributes:
        items: The item of each position that is shown.
        position: What comes next, or None if that is not known.
        events: What was said beside items.
    """

    def __init__(self, pipe: IO[bytes] | None, position: int | None = None) -> None:
        self._lines = Lines(pipe)
        self.items: dict[int, bytes] = {}
        self.position = position
        self.events: list[dict[str, Any]] = []

    def until(self, is_enough: Callable[[], bool]) -> None:
        """Read line after line, at least one, until something holds."""
        while True:
            line = self._lines.next()
            assert line, f"it ended: {self.events}"
            self._hear(json.loads(line))
            if is_enough():
                return

    def until_shown(self, position: int, item: bytes) -> None:
        """Read until this is the last item shown."""
        self.until(lambda: self.position == position + 1 and self.items[position] == item)

    def _hear(self, said: dict[str, Any]) -> None:
        if "position" in said:
            assert self.position in {None, said["position"]}, f"skipped, or shown twice: {said}"
            self.items[said["position"]] = said["item"].encode()
            self.position = said["position"] + 1
            return
        self.events.append(said)
        match said["event"]:
            case "rewound":
                assert self.position is not None
                assert said["size"] < self.position
                self.items = {at: item for at, item in self.items.items() if at < said["size"]}
                self.position = said["size"]
            case "pruned":
                assert said["start"] == self.position
                self.position = said["stop"]
            case "reset":
                self.items.clear()
                self.position = said["start"]
            case "absent":
                self.items.clear()
                self.position = None


async def write(root: str) -> None:
    """Do what standard input says."""
    context = Context(FileStorage(root))
    config = Config(partition="orders", items_per_section=4)
    journal = await Journal.init(context, config)
    history = 0
    say("open")
    for line in iter(sys.stdin.readline, ""):
        what, *numbers = json.loads(line)
        match what:
            case "append":
                for position in range(journal.size(), journal.size() + numbers[0]):
                    await journal.append(item_of(position, history).decode())
            case "history":
                history = numbers[0]
            case "reset":
                await journal.close()
                journal = await Journal.init_at_size(context, config, numbers[0])
            case _:
                await getattr(journal, what)(*numbers)
        say(what)


def say(word: str) -> None:
    """Tell the test."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(write(sys.argv[1]))
