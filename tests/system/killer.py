"""Processes that use a journal in all ways at once, and a process that kills them.

`Killer` starts `python -m tests.system.killer` once. That process forks for each kill, and never has an event loop or a
thread of its own, so that a kill costs milliseconds and not the start of an interpreter. The child lives the `Life`
that it is given and says in short lines, each a single write to a pipe, what it begins and what was acknowledged to it:

    open BOUNDARY SIZE CLEAN NUMBER     a journal was opened; the next item that is appended is item NUMBER
    item POSITION NUMBER                item NUMBER is durable at POSITION
    rewind? SIZE NUMBER, rewind         a rewind begins, before item NUMBER; it has returned
    prune? POSITION NUMBER, prune WAS   a prune begins, before item NUMBER; it has returned whether anything was removed
    close? NUMBER, closed               a close begins, before item NUMBER; it has returned
    reset? SIZE                         an `init_at_size` begins, which `open` follows

Items are numbered in the order in which `append` is called, which is the order of their positions (O1). So these
lines say of each position which item it holds, whatever was not acknowledged included.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import random
import select
import signal
import struct
import subprocess
import sys
import time
import traceback
from contextlib import aclosing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from posjournal_async import (
    BytesCodec,
    Config,
    Context,
    FileStorage,
    ItemOutOfRange,
    ItemPruned,
    Journal,
    JournalClosed,
)

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["CHECKOUT", "Death", "Killer", "Life", "Moment", "config_of", "item_of"]

CHECKOUT = Path(__file__).parents[2]

# EXT4_IOC_SHUTDOWN and EXT4_GOING_FLAGS_NOLOGFLUSH of fs/ext4/ext4.h, XFS_IOC_GOINGDOWN of xfsprogs: not even the log
# of the file system is written any more.
_SHUTDOWN = 0x8004587D
_WITHOUT_FLUSHING = 2

# How long the moment of a kill may take to come on a machine under load.
_PATIENCE_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Moment:
    """When a process is killed: some seconds after it has said `count` lines that begin with a word."""

    word: str
    count: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Life:
    """What a process does until it is killed.

    Attributes:
        root: Root of the storage.
        run: Number of the process, which its items bear.
        seed: Of all its chances.
        tasks: Tasks that use the journal at once.
        items_per_section: As in `Config`.
        write_buffer: As in `Config`.
        max_open_blobs: As in `Config`.
        compression: As in `Config`.
        cuts: Share of the first task's steps that prune or rewind.
        ends: Share of the first task's steps that close the journal, which is opened again then, or reset.
        moment: When it is killed.
        disk: Where the file system is mounted whose power is cut then; None if only the process is killed.
    """

    root: str
    run: int
    seed: int
    tasks: int
    items_per_section: int
    write_buffer: int
    max_open_blobs: int
    compression: int | None
    cuts: float
    ends: float
    moment: Moment
    disk: str | None = None


@dataclass(frozen=True, slots=True)
class Death:
    """How a process ended.

    Attributes:
        lines: All that it said.
        status: As `os.waitstatus_to_exitcode` has it.
        was_in_time: Whether the moment of the kill had come.
    """

    lines: list[str]
    status: int
    was_in_time: bool


def item_of(run: int, number: int) -> bytes:
    """Return the item that a process appends as its `number`-th: its bytes tell which one it is, and how long."""
    length = 30_000 if (run + number) % 97 == 0 else (number * 7_919 + run * 104_729) % 211
    return b"%d.%d:" % (run, number) + bytes([number % 251]) * length


def config_of(life: Life) -> Config[bytes]:
    """Return the configuration of a process."""
    return Config(
        partition="orders",
        items_per_section=life.items_per_section,
        codec=BytesCodec(),
        write_buffer=life.write_buffer,
        max_open_blobs=life.max_open_blobs,
        compression=life.compression,
    )


class Killer:
    """Starts processes and kills them, one after the other."""

    def __init__(self) -> None:
        command = [sys.executable, "-W", "error", "-m", "tests.system.killer"]
        self._process = subprocess.Popen(command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def kill(self, life: Life) -> Death:
        """Start a process and kill it at its moment; it is gone when this returns."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(life)).encode() + b"\n")
        self._process.stdin.flush()
        return Death(**json.loads(self._process.stdout.readline()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()
        assert self._process.returncode == 0


# What follows runs in the process that kills.


def serve() -> None:
    """Kill a process for each line of standard input, until there is none."""
    for line in sys.stdin.buffer:
        fields = json.loads(line)
        life = Life(**{**fields, "moment": Moment(**fields["moment"])})
        sys.stdout.write(json.dumps(asdict(live_and_die(life))) + "\n")
        sys.stdout.flush()


def live_and_die(life: Life) -> Death:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            asyncio.run(Living(life, writing).live())
        except BaseException:  # noqa: BLE001 - whatever it is, it is shown, and this is not the process to go on
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(1)
    os.close(writing)
    heard, was_in_time = listen(reading, life.moment)
    if life.disk is not None:
        cut_power(child, life.disk)
    os.kill(child, signal.SIGKILL)
    while part := os.read(reading, 65_536):
        heard += part
    os.close(reading)
    _, status = os.waitpid(child, 0)
    # A pipe takes a short line as a whole or not at all.
    return Death(heard.decode().splitlines(), os.waitstatus_to_exitcode(status), was_in_time)


def cut_power(child: int, disk: str) -> None:
    """Take a file system away at once: nothing that the device does not have gets there any more.

    The process is stopped before, and so says nothing of what comes after.
    """
    os.kill(child, signal.SIGSTOP)
    os.waitpid(child, os.WUNTRACED)
    fd = os.open(disk, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", _WITHOUT_FLUSHING))
    finally:
        os.close(fd)


def listen(reading: int, moment: Moment) -> tuple[bytes, bool]:
    """Return what a process has said when its moment has come, or it has ended; and whether that was in time."""
    heard = b""
    give_up = time.monotonic() + _PATIENCE_SECONDS
    end: float | None = None
    while True:
        if end is None and sum(line.startswith(moment.word) for line in heard.decode().splitlines()) >= moment.count:
            end = time.monotonic() + moment.seconds
        left = (give_up if end is None else end) - time.monotonic()
        if left <= 0:
            return heard, end is not None
        if select.select([reading], [], [], left)[0]:
            part = os.read(reading, 65_536)
            if not part:
                return heard, True
            heard += part


# What follows runs in the process that is killed.


class Living:
    """A life. Whatever it finds wrong itself ends it, with a traceback and another status than that of a kill."""

    def __init__(self, life: Life, writing: int) -> None:
        self.life = life
        self.writing = writing
        self.chance = random.Random(life.seed)
        self.number = 0
        self.journal: Journal[bytes]

    def tell(self, *words: object) -> None:
        os.write(self.writing, (" ".join(map(str, words)) + "\n").encode())

    async def live(self) -> None:
        context = Context(FileStorage(self.life.root))
        config = config_of(self.life)
        self.journal = await Journal.init(context, config)
        while True:
            journal = self.journal
            self.tell("open", journal.bounds().start, journal.size(), int(journal.recovery.clean), self.number)
            size = journal.size()
            await asyncio.gather(*(self.work(task) for task in range(self.life.tasks)))
            if self.chance.random() < 0.4:
                ips = self.life.items_per_section
                size = self.chance.choice([0, size, size + self.chance.randrange(3 * ips), self.chance.randrange(ips)])
                self.tell("reset?", size)
                self.journal = await Journal.init_at_size(context, config, size)
            else:
                self.journal = await Journal.init(context, config)

    async def work(self, task: int) -> None:
        """Use the journal until it is closed."""
        try:
            while True:
                chance = self.chance.random()
                if task == 0 and chance < self.life.ends:
                    self.tell("close?", self.number)
                    await self.journal.close()
                    self.tell("closed")
                    return
                if task == 0 and chance < self.life.ends + self.life.cuts:
                    await (self.rewind() if self.chance.random() < 0.5 else self.prune())
                elif self.chance.random() < 0.2:
                    await self.look()
                else:
                    await self.append()
        except JournalClosed:
            assert task != 0

    async def append(self) -> None:
        chance = self.chance
        ips = self.life.items_per_section
        if self.life.tasks == 1 and ips > 50 and chance.random() < 0.05:
            count = 1_100  # a run of more than 1,024 waits while it is taken in: others could come before it
        else:
            count = chance.choice([1, 1, 1, chance.randrange(2, 2 * min(ips, 10) + 2)])
        number = self.number
        self.number += count
        if count == 1:
            position = await self.journal.append(item_of(self.life.run, number))
        else:
            items = [item_of(self.life.run, number + more) for more in range(count)]
            position = await self.journal.append_many(items)
        if (position + 1) % ips:  # else it filled a section, and is durable
            how = chance.random()
            if how < 0.2:
                return
            await (self.journal.sync() if how < 0.4 else self.journal.sync_data())
        self.tell("item", position, number + count - 1)

    async def look(self) -> None:
        """Read somewhere, or stream some of it: whatever comes is an item that was appended."""
        bounds = self.journal.bounds()
        if not bounds:
            return
        position = self.chance.choice(bounds)
        try:
            if self.chance.random() < 0.5:
                check(await self.journal.read(position))
                return
            most = self.chance.randrange(1, 100)
            async with aclosing(self.journal.replay(position, self.chance.choice([9, 1_000, 100_000]))) as stream:
                expected = position
                async for found, item in stream:
                    assert found == expected
                    check(item)
                    expected += 1
                    if expected == position + most:
                        break
        except (ItemPruned, ItemOutOfRange):  # the first task was there before
            return

    async def rewind(self) -> None:
        bounds = self.journal.bounds()
        size = self.chance.randrange(
            max(bounds.start, bounds.stop - 2 * self.life.items_per_section - 3), bounds.stop + 1
        )
        self.tell("rewind?", size, self.number)
        await self.journal.rewind(size)
        self.tell("rewind")

    async def prune(self) -> None:
        size = self.journal.size()
        position = self.chance.randrange(max(size - 4 * self.life.items_per_section, 0), size + 1)
        self.tell("prune?", position, self.number)
        self.tell("prune", int(await self.journal.prune(position)))


def check(item: bytes) -> None:
    """Look that an item is one that a process of this or an earlier run appended."""
    run, number = item.partition(b":")[0].split(b".")
    assert item == item_of(int(run), int(number))


if __name__ == "__main__":
    serve()
