"""A bank whose only truth is a journal: commands become events, state is what the events say, a kill loses nothing.

    python examples/event_sourced_service.py [DIRECTORY]

Starts the service in a process of its own, which transfers money, takes a snapshot, transfers again and kills itself
with SIGKILL; then opens it here. Prints what was acknowledged, the snapshot that was found, the events that were
replayed on top of it, the balances, and a command that they do not allow.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from posjournal_async import Config, Context, FileStorage, Journal

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import TracebackType

# Small, so that the example has something to prune: a snapshot frees the sections that lie before it as a whole.
CONFIG: Config[Any] = Config(partition="bank", items_per_section=100)


class Refused(Exception):
    """A command that the state does not allow. Nothing was recorded."""


class Bank:
    """Accounts that never go below zero, except the `world` that money comes from and goes to.

    What a call returned for is durable. A caller that is cancelled stops waiting; what it asked for may still be done.
    """

    def __init__(self, journal: Journal[Any], directory: Path, accounts: Counter[str], snapshot_position: int) -> None:
        """Assemble an open bank; use `open`."""
        self._journal = journal
        self._directory = directory
        self._accounts = accounts
        self._deciding = asyncio.Lock()
        self._writing = asyncio.Lock()
        self._working: set[asyncio.Task[None]] = set()
        self.snapshot_position = snapshot_position
        self.replayed = 0

    @classmethod
    async def open(cls, directory: Path) -> Self:
        """Recover the state: the snapshot, and on top of it the events from its position on."""
        async with AsyncExitStack() as stack:
            journal = await stack.enter_async_context(await Journal.init(Context(FileStorage(directory)), CONFIG))
            position, accounts = await asyncio.to_thread(read_snapshot, directory)
            bank = cls(journal, directory, accounts, position)
            async for _, event in journal.replay(position):
                bank._apply(event)
                bank.replayed += 1
            stack.pop_all()  # open, and not to be closed here
        return bank

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The journal keeps its lock until no thread writes a snapshot any more, also where this is cancelled.
        await self._finish(self._close(self._working.copy()))

    async def _close(self, working: set[asyncio.Task[None]]) -> None:
        await asyncio.gather(*working, return_exceptions=True)
        await self._journal.close()

    def balances(self) -> dict[str, int]:
        """Return all balances, including those of commands that are not acknowledged yet."""
        return dict(self._accounts)

    async def transfer(self, source: str, target: str, amount: int) -> None:
        """Move money from one account to another.

        Raises:
            Refused: The amount is not positive, or more than there is.
        """
        # A caller cancelled between an event and its effect would leave a state that the journal does not say.
        await self._finish(self._transfer(source, target, amount))
        # Outside the lock: commands that wait here share one fsync.
        await self._journal.sync_data()

    async def _transfer(self, source: str, target: str, amount: int) -> None:
        async with self._deciding:  # nobody decides on a state that is about to change
            if amount <= 0:
                raise Refused(f"an amount is more than 0, not {amount}")
            if source != "world" and self._accounts[source] < amount:
                raise Refused(f"{source} has {self._accounts[source]}, not {amount}")
            event = {"from": source, "to": target, "amount": amount}
            await self._journal.append(event)
            self._apply(event)

    def _apply(self, event: dict[str, Any]) -> None:
        """Change the state. Events have happened: there is nothing to check any more."""
        self._accounts[event["from"]] -= event["amount"]
        self._accounts[event["to"]] += event["amount"]

    async def snapshot(self) -> None:
        """Write the state to a file, then drop the events that it stands for, as far as whole sections go."""
        # A caller cancelled while a thread writes would leave the thread at it beside the next snapshot.
        await self._finish(self._snapshot())

    async def _snapshot(self) -> None:
        async with self._writing:  # an older snapshot must not take the place of a newer one, whose events are dropped
            async with self._deciding:
                position, accounts = self._journal.size(), dict(self._accounts)
            # In this order: a snapshot must not know more than the journal will after a crash, and an event must not go
            # before the snapshot that holds its effect is durable.
            await self._journal.sync_data()
            await asyncio.to_thread(write_snapshot, self._directory, position, accounts)
            await self._journal.prune(position)

    async def _finish(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something in a task of its own, which goes on when the caller is cancelled."""
        task = asyncio.create_task(work)
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        await asyncio.shield(task)


def read_snapshot(directory: Path) -> tuple[int, Counter[str]]:
    """Return the position of the first event that a snapshot does not hold, and its accounts; (0, none) without one."""
    try:
        snapshot = json.loads((directory / "snapshot.json").read_bytes())
    except FileNotFoundError:
        return 0, Counter()
    return snapshot["position"], Counter(snapshot["accounts"])


def write_snapshot(directory: Path, position: int, accounts: dict[str, int]) -> None:
    """Replace the snapshot: a crash leaves the old one or the new one, and on return it is the new one."""
    new = directory / "snapshot.json.new"
    with new.open("w") as file:
        json.dump({"position": position, "accounts": accounts}, file)
        file.flush()
        os.fsync(file.fileno())
    new.replace(directory / "snapshot.json")
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)  # the new name, too
    finally:
        os.close(handle)


async def serve_and_die(directory: Path) -> None:
    """Carry out commands from many tasks, with a snapshot between them, and end by SIGKILL."""
    bank = await Bank.open(directory)
    await bank.transfer("world", "ann", 1_000)
    await asyncio.gather(*(bank.transfer("ann", "bob", 1) for _ in range(500)))
    await bank.snapshot()
    await asyncio.gather(*(bank.transfer("bob", "eve", 2) for _ in range(50)))
    print("acknowledged:", json.dumps(bank.balances(), sort_keys=True), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


async def show(directory: Path) -> None:
    """Open what the kill left, print it, and show that its rules hold."""
    async with await Bank.open(directory) as bank:
        print(f"snapshot at position {bank.snapshot_position}, then {bank.replayed} events")
        print("recovered:   ", json.dumps(bank.balances(), sort_keys=True))
        try:
            await bank.transfer("ann", "eve", 501)
        except Refused as refused:
            print("refused:     ", refused)


def main(directory: Path) -> None:
    """Run the service until it dies, then look at what it left."""
    directory.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, __file__, "--serve", str(directory)], check=False)  # noqa: S603 - this file
    asyncio.run(show(directory))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        asyncio.run(serve_and_die(Path(sys.argv[2])))
    elif len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
