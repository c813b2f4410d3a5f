"""A process that is killed with SIGKILL: everything that it was told is there, and its lock is free."""

from __future__ import annotations

import asyncio
import importlib
import json
import random
import shutil
import signal
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest

from posjournal_async import BytesCodec, Config, Context, FileStorage, Journal
from tests.effort import effort
from tests.format.writer import read_checkpoint, read_journal
from tests.journals import contents_of
from tests.system.killer import CHECKOUT, Death, Killer, Life, Moment
from tests.system.promised import Promised

if TYPE_CHECKING:
    from pathlib import Path

# 40 and 2,000 kills.
BLOCKS = effort(5, 50)
KILLS_IN_A_BLOCK = effort(8, 40)

CUTS = ("rewind?", "prune?")
ENDS = ("close?", "closed", "reset?", "open")


def moment_of(chance: random.Random) -> Moment:
    """Choose when a process is killed: while it opens and recovers, in one of its calls, or just so."""
    word = chance.choice(["", "", "item", "item", "item", *CUTS, *ENDS])
    match word:
        case "":
            return Moment(word, 0, chance.choice([chance.uniform(0, 0.01), chance.uniform(0, 0.04)]))
        case "item":
            return Moment(word, chance.randrange(1, 40), chance.choice([0, chance.uniform(0, 0.003)]))
        case _:
            return Moment(word, chance.randrange(1, 3), chance.choice([0, chance.uniform(0, 0.006)]))


def life_of(chance: random.Random, root: Path, run: int, items_per_section: int) -> Life:
    """Choose what a process does until it is killed."""
    moment = moment_of(chance)
    return Life(
        root=str(root),
        run=run,
        seed=chance.randrange(2**32),
        tasks=chance.randrange(1, 17),
        items_per_section=items_per_section,
        write_buffer=chance.choice([1, 5_000, 2**20]),
        max_open_blobs=chance.choice([1, 3, 64]),
        compression=chance.choice([None, 1]),
        cuts=0.3 if moment.word in CUTS else chance.choice([0.05, 0.3]),
        ends=0.3 if moment.word in ENDS else 0.01,
        moment=moment,
    )


def look_at(root: Path) -> tuple[int, list[tuple[int, bytes]]]:
    """Return the boundary and the items that opening the files has to show."""
    items = read_journal(root, "orders", after_crash=True)
    checkpoint = read_checkpoint(root, "orders")
    if checkpoint is None:
        return 0, items
    return checkpoint.boundary if checkpoint.reset is None else checkpoint.reset, items


async def take_the_lock(root: Path) -> None:
    """Lock the journal as opening does, which does not wait, and let it go again."""
    lock = await FileStorage(root).lock("orders_checkpoint")
    await lock.release()


async def open_and_look(root: Path, items_per_section: int, boundary: int, items: list[tuple[int, bytes]]) -> None:
    """Open the journal, look that it shows what the independent reader found, and close it."""
    config = Config(partition="orders", items_per_section=items_per_section, codec=BytesCodec())
    async with await Journal.init(Context(FileStorage(root)), config) as journal:
        assert journal.bounds() == range(boundary, boundary + len(items))
        assert await contents_of(journal) == items
    assert read_journal(root, "orders") == items


@pytest.mark.parametrize("block", range(BLOCKS))
def test_what_a_killed_process_acknowledged_is_there(block: int, tmp_path: Path) -> None:
    """Killed at any moment, again and again: the history is what was acknowledged, the lock is free (D1 to D6, F6).

    1 to 16 tasks append, sync, fill sections, read and replay, while one of them prunes, rewinds, closes and resets.
    Half of what the kills leave is recovered here, and half by the next process, which may be killed meanwhile.
    """
    chance = random.Random(block)
    items_per_section = chance.choice([1, 3, 8, 64])
    promised = Promised(items_per_section)
    with Killer() as killer:
        for run in range(KILLS_IN_A_BLOCK):
            life = life_of(chance, tmp_path / "root", run, items_per_section)
            death = Death([], 0, was_in_time=False)
            try:
                death = killer.kill(life)
                assert (death.status, death.was_in_time) == (-signal.SIGKILL, True)
                shutil.rmtree(tmp_path / "as killed", ignore_errors=True)
                if (tmp_path / "root").exists():
                    shutil.copytree(tmp_path / "root", tmp_path / "as killed")
                    asyncio.run(take_the_lock(tmp_path / "root"))
                promised.begin(run)
                for line in death.lines:
                    promised.hear(line)
                boundary, items = look_at(tmp_path / "root")
                promised.check(boundary, items)
                if chance.random() < 0.5:
                    asyncio.run(open_and_look(tmp_path / "root", items_per_section, boundary, items))
            except BaseException as error:
                error.add_note(f"block {block} (its seed), kill {run}; the files are as killed in {tmp_path}/as killed")
                error.add_note(f"killed: {json.dumps(asdict(life))}")
                error.add_note("it said: " + ", ".join(death.lines[-200:]))
                raise
    assert promised.acknowledged


# 4 and 200 kills.
INGESTS = effort(1, 5)
KILLS_OF_AN_INGEST = effort(4, 40)


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import `examples/demo.py`, which runs `examples/ingest.py` and kills it."""
    monkeypatch.syspath_prepend(CHECKOUT / "examples")
    return importlib.import_module("demo")


@pytest.mark.parametrize("block", range(INGESTS))
def test_an_ingest_that_is_killed_again_and_again_loses_and_doubles_nothing(
    block: int, demo: Any, tmp_path: Path
) -> None:
    """64 tasks write a file, line after line; killed at any moment, each run goes on where it has to (A1, D1, O1)."""
    chance = random.Random(block)
    source, directory = tmp_path / "source", tmp_path / "journal"
    with source.open("wb") as file:
        for number in range(2_000 * KILLS_OF_AN_INGEST):
            file.write(b'{"number": %d, "text": "%s"}\n' % (number, b"x" * chance.randrange(300)))
    acknowledged: set[int] = set()
    for kill in range(KILLS_OF_AN_INGEST):
        run = demo.write(source, directory, kill_at=chance.choice([0, 0, 1, chance.randrange(1_500)]))
        try:
            assert run.was_killed
            assert not acknowledged & run.acknowledged
            assert acknowledged <= set(range(run.opened["size"]))
        except AssertionError as error:
            error.add_note(f"block {block} (its seed), kill {kill}; the files are in {tmp_path}")
            raise
        acknowledged |= run.acknowledged
    assert acknowledged
    found = asyncio.run(demo.compare(source, directory))
    assert acknowledged <= set(range(found.right))
    assert found.wrong == list(range(found.right, found.lines))
    assert not demo.write(source, directory).was_killed
    found = asyncio.run(demo.compare(source, directory))
    assert (found.right, found.wrong, found.surplus) == (found.lines, [], 0)
