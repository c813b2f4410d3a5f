"""A process that is killed while it appends: everything that it was told is durable is there."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from posjournal_async import BytesCodec, Config, Context, FileStorage, Journal
from tests.format.writer import read_journal

CHECKOUT = Path(__file__).parents[2]
KILLS = int(os.environ.get("POSJOURNAL_KILLS", "12"))

# Each line that it prints was acknowledged before: an item that is durable, a size that was rewound to (asked for with
# "?", then done), or a pruning boundary.
APPENDING = """
import asyncio, os, random, sys
from posjournal_async import BytesCodec, Config, Context, FileStorage, Journal

async def main(root, run, tasks, items_per_section, cuts):
    chance = random.Random(int(run))
    config = Config(partition="orders", items_per_section=items_per_section, codec=BytesCodec(), max_open_blobs=2)
    journal = await Journal.init(Context(FileStorage(root)), config)

    def tell(*words):
        os.write(1, (" ".join(map(str, words)) + "\\n").encode())

    async def append(task):
        number = 0
        while True:
            item = f"{run}.{task}.{number}:" + "x" * chance.randrange(200)
            if chance.random() < 0.1:
                items = [item.encode(), *(f"{run}.{task}.{number}.{more}".encode() for more in range(9))]
                position = await journal.append_many(items) - 9
            else:
                position = await journal.append(item.encode())
            if chance.random() < 0.2:
                await journal.sync()
            else:
                await journal.sync_data()
            tell("item", position, item)
            number += 1

    async def append_and_cut():
        number = 0
        while True:
            for _ in range(chance.randrange(1, 3 * items_per_section)):
                item = f"{run}.0.{number}:" + "x" * chance.randrange(50)
                position = await journal.append(item.encode())
                number += 1
                if chance.random() < 0.5:
                    await journal.sync_data()
                    tell("item", position, item)
            if chance.random() < 0.5:
                bounds = journal.bounds()
                size = chance.randrange(max(bounds.start, bounds.stop - 2 * items_per_section), bounds.stop + 1)
                tell("rewind?", size)
                await journal.rewind(size)
                tell("rewind", size)
            else:
                position = max(journal.size() - 2 * items_per_section, 0)
                tell("prune?", position)
                await journal.prune(position)
                tell("prune", position)

    await asyncio.gather(*([append_and_cut()] if cuts else [append(task) for task in range(tasks)]))

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5] == "cuts"))
"""


class Told:
    """What was acknowledged by all processes so far.

    Attributes:
        items: By position, what must be there.
        lowest: Where a rewind that was asked for and not acknowledged may have cut.
        pruned: Positions below this may be gone.
    """

    def __init__(self) -> None:
        self.items: dict[int, bytes] = {}
        self.lowest: int | None = None
        self.pruned = 0

    def hear(self, line: str) -> None:
        what, position, *item = line.split(" ")
        at = int(position)
        if what == "item":
            self.items[at] = item[0].encode()
        elif what == "rewind?":
            self.lowest = at
        elif what == "rewind":
            self.items = {kept: item for kept, item in self.items.items() if kept < at}
            self.lowest = None
        else:
            self.pruned = max(self.pruned, at)

    def check(self, found: dict[int, bytes], items_per_section: int) -> None:
        """Look that what was acknowledged is there, without a gap, and adopt what a cut that was interrupted left."""
        positions = list(found)
        size = positions[-1] + 1 if positions else 0
        if self.lowest is not None:
            assert not positions or size >= self.lowest
            self.items = {at: item for at, item in self.items.items() if at < max(self.lowest, size)}
            self.lowest = None
        if positions:
            assert positions == list(range(positions[0], size))
            assert positions[0] % items_per_section == 0
            assert positions[0] <= self.pruned
        lost = {at: item for at, item in self.items.items() if at >= self.pruned and found.get(at) != item}
        assert not lost


async def killed_after(lines: int, root: Path, run: int, *, tasks: int, items_per_section: int, how: str) -> list[str]:
    """Let a process append, kill it when it has acknowledged so much, and return all that it acknowledged."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", APPENDING, str(root), str(run), str(tasks), str(items_per_section), how),
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    heard = [await process.stdout.readline() for _ in range(lines)]
    process.kill()
    heard.append(await process.stdout.read())
    assert await process.wait() == -signal.SIGKILL
    # A pipe takes a short line as a whole or not at all.
    return b"".join(heard).decode().splitlines()


@pytest.mark.parametrize("how", ["appends", "cuts"])
async def test_what_a_killed_process_acknowledged_is_there(how: str, tmp_path: Path) -> None:
    """Killed at any moment, again and again: nothing acknowledged is lost, the lock is free (D1, D2, D4, D6, F6)."""
    chance = random.Random(how)
    items_per_section = chance.choice([5, 20])
    config = Config(partition="orders", items_per_section=items_per_section, codec=BytesCodec())
    told = Told()
    for run in range(-(-KILLS // 2)):
        lines = chance.randrange(1, 250)
        tasks = chance.randrange(1, 17)
        for line in await killed_after(lines, tmp_path, run, tasks=tasks, items_per_section=items_per_section, how=how):
            told.hear(line)

        seen = dict(read_journal(tmp_path, "orders", after_crash=True))
        async with await Journal.init(Context(FileStorage(tmp_path)), config) as journal:
            found = {position: item async for position, item in journal.replay(journal.bounds().start)}
            assert found == seen
            told.check(found, items_per_section)
        assert dict(read_journal(tmp_path, "orders")) == found
    assert told.items
