"""Write the lines of a file into a journal, each durable before it is acknowledged; go on where a killed run stopped.

    python examples/ingest.py FILE DIRECTORY

The position of an event is the number of its line, from 0. So a run that is started again needs no notes about how far
the last one came: it goes on at `journal.size()`.

Standard output has one JSON object a line: `opened` first, with the size and what recovery found, then `acknowledged`
with the positions that became durable, and with the fsyncs and seconds since the start.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posjournal_async import Config, Context, Counters, FileStorage, Journal, MsgpackCodec

if TYPE_CHECKING:
    from collections.abc import Generator

TASKS = 64

# Small enough that ten thousand lines fill a few sections; a line may be as long as an item may be.
CONFIG: Config[Any] = Config(partition="events", items_per_section=4_096, max_item_size=2**31 - 2)

encode = MsgpackCodec().encode


def event_of(line: bytes) -> Any:
    """Return the JSON value of a line; where it is none that MessagePack can hold, the line itself as `{"line": ...}`.

    Bytes that are not UTF-8 are kept as bytes.
    """
    line = line.removesuffix(b"\n")
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return {"line": line}
    try:
        event = json.loads(text)
        encode(event)
    except (ValueError, OverflowError, RecursionError):
        return {"line": text}
    return event


async def ingest(file: Path, directory: Path) -> None:
    """Append what the journal does not have yet, from many tasks that share each fsync."""
    counters = Counters()
    journal = await Journal.init(Context(FileStorage(directory), counters), CONFIG)
    async with journal:
        say({"opened": {"size": journal.size(), "recovery": asdict(journal.recovery)}})
        with file.open("rb", buffering=2**20) as source:
            acknowledgements = Acknowledgements(counters)
            lines = enumerate(source)
            rest = (line for line in islice(lines, journal.size(), None))
            async with asyncio.TaskGroup() as tasks:
                for _ in range(TASKS):
                    tasks.create_task(work(journal, rest, acknowledgements))


async def work(
    journal: Journal[Any], lines: Generator[tuple[int, bytes], None, None], acknowledgements: Acknowledgements
) -> None:
    """Append line after line, each durable before the next."""
    # Taking a line and calling `append` is one step for the other tasks: nothing is awaited between them. Appends take
    # their positions in the order of the calls, so the position is the number of the line.
    for number, line in lines:
        try:
            position = await journal.append(event_of(line))
        except BaseException:
            lines.close()  # whoever took the next one would get the position of this one
            raise
        assert position == number
        await journal.sync_data()
        acknowledgements.add(position)


class Acknowledgements:
    """Says which events are durable: one line for all that one fsync released."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._positions: list[int] = []
        self._start = time.perf_counter()

    def add(self, position: int) -> None:
        """Acknowledge an event together with the others of this turn of the event loop."""
        if not self._positions:
            asyncio.get_running_loop().call_soon(self._say)
        self._positions.append(position)

    def _say(self) -> None:
        seconds = time.perf_counter() - self._start
        fsyncs = self._counters.totals.get(("events", "commits"), 0)
        say({"acknowledged": self._positions, "fsyncs": fsyncs, "seconds": round(seconds, 6)})
        self._positions = []


def say(message: dict[str, Any]) -> None:
    """Print one JSON line at once."""
    print(json.dumps(message, separators=(",", ":")), flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    asyncio.run(ingest(Path(sys.argv[1]), Path(sys.argv[2])))
