"""A process that forks, is interrupted, exits or forgets what it has while a journal is open."""

# Files and processes are looked at while nothing else is to run.
# ruff: noqa: ASYNC222

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from posjournal_async import BytesCodec, Config, Context, FileStorage, Journal, JournalLocked, MemoryStorage
from tests.format.writer import path_of
from tests.handles import handles_below
from tests.journals import files_below

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from posjournal_async import Storage

CHECKOUT = Path(__file__).parents[2]

# How long a process may take that must not hang.
_PATIENCE_SECONDS = 60

CONFIG = Config(partition="orders", items_per_section=4, codec=BytesCodec())


async def opened(storage: Storage | Path, config: Config[bytes] = CONFIG) -> Journal[bytes]:
    return await Journal.init(Context(FileStorage(storage) if isinstance(storage, Path) else storage), config)


async def all_items(journal: Journal[bytes]) -> list[bytes]:
    return [item async for _, item in journal.replay(journal.bounds().start)]


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def started(program: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a program that imports what it needs from this module."""
    code = f"from {__name__} import *\n{program}"
    command = [sys.executable, "-W", "default", "-c", code, *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


# Forks.


async def test_a_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    """A fork neither releases the lock of the parent nor takes part in it (F6)."""
    journal = await opened(tmp_path)
    go_on, wait = os.pipe()
    is_there, tell = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # there are threads, and the child exits at once
        child = os.fork()
    if child == 0:  # pragma: no cover - in the child
        os.close(wait)
        os.write(tell, b"!")  # what is done in a child after a fork is done
        os.read(go_on, 1)
        os._exit(0)
    os.close(tell)
    assert os.read(is_there, 1) == b"!"
    os.close(is_there)
    with pytest.raises(JournalLocked):
        await opened(tmp_path)
    await journal.close()
    async with await opened(tmp_path) as again:
        assert again.size() == 0
    os.close(wait)
    os.close(go_on)
    os.waitpid(child, 0)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open handles are counted by /proc")
async def test_a_child_keeps_no_file_of_the_journal_open(tmp_path: Path) -> None:
    """While it lives the space of what the parent prunes would not come back."""
    async with await opened(tmp_path) as journal:
        await journal.append_many([b"%d" % number for number in range(10)])
        await journal.sync()
        await journal.read(0)
        assert handles_below(tmp_path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # there are threads, and the child exits at once
            child = os.fork()
        if child == 0:  # pragma: no cover - in the child
            os._exit(len(handles_below(tmp_path)))
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        await journal.append(b"10")
        assert await all_items(journal) == [b"%d" % number for number in range(11)]


def use_before_and_after_a_fork(root: str) -> None:
    """Use a storage, fork, and use it in the child."""
    warnings.simplefilter("ignore")
    signal.alarm(_PATIENCE_SECONDS)
    storage = FileStorage(root)

    async def append(item: bytes) -> None:
        async with await opened(storage) as journal:
            await journal.append(item)

    asyncio.run(append(b"parent's"))
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        asyncio.run(append(b"parent's again"))
        return
    signal.alarm(_PATIENCE_SECONDS)
    asyncio.run(append(b"child's"))


async def test_a_storage_that_was_used_before_a_fork_works_in_the_child(tmp_path: Path) -> None:
    """As in the workers of a program that has read its journal: the threads are not there, so others begin (I4)."""
    with started("use_before_and_after_a_fork(sys.argv[1])", tmp_path) as process:
        _, complaints = process.communicate(timeout=2 * _PATIENCE_SECONDS)
    assert (process.returncode, complaints) == (0, "")
    async with await opened(tmp_path) as journal:
        assert await all_items(journal) == [b"parent's", b"child's", b"parent's again"]


LARGE = b"large" * 5_000_000


async def fork_while_writing(root: str) -> None:
    """Fork in the middle of a write. The parent finishes it and exits; the child goes on until it is told to exit."""
    warnings.simplefilter("ignore")
    signal.alarm(_PATIENCE_SECONDS)
    journal = await opened(Path(root))
    await journal.append(b"before")
    await journal.sync()
    data = path_of(Path(root), "orders", "data")
    length = data.stat().st_size
    await journal.append(LARGE)
    syncing = asyncio.create_task(journal.sync_data())
    await asyncio.sleep(0)
    while data.stat().st_size == length:  # noqa: ASYNC110 - the file says when the thread is at it
        await asyncio.sleep(0)
    assert not syncing.done()
    if os.fork():
        await syncing
        await journal.append(b"after")
        await journal.close()
        print("the parent has closed", flush=True)  # noqa: T201 - for the process that started this one
        return
    signal.alarm(_PATIENCE_SECONDS)  # no thread is left that could finish what is begun here
    try:
        for call in (journal.append(b"no"), journal.sync(), journal.close()):
            with pytest.raises(RuntimeError):
                await call
        del journal, syncing
        collect()
    except BaseException:  # noqa: BLE001 - whatever it is: leaving asyncio.run would take the parent's selector along
        traceback.print_exc()
        os._exit(1)
    print("the child goes on", flush=True)  # noqa: T201 - for the process that started this one
    sys.stdin.read()
    sys.exit(0)  # as any program ends, and not by os._exit: what is registered for the end is called


async def test_a_child_of_a_process_that_is_writing_leaves_its_files_alone(tmp_path: Path) -> None:
    """It does not write what the parent was writing, keeps no lock, and its end changes nothing (F6, I4)."""
    with started("asyncio.run(fork_while_writing(sys.argv[1]))", tmp_path) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        said = {process.stdout.readline(), process.stdout.readline()}
        assert said == {"the parent has closed\n", "the child goes on\n"}
        assert process.wait() == 0
        async with await opened(tmp_path) as journal:
            assert journal.recovery.clean
            assert await all_items(journal) == [b"before", LARGE, b"after"]
            before = files_below(tmp_path)
            process.stdin.close()
            assert process.stdout.read() == ""  # the child has ended
            assert files_below(tmp_path) == before
            assert await journal.append(b"and more") == 3


# Signals.


async def wait_to_be_interrupted(root: str) -> None:
    async with await opened(Path(root)) as journal:
        await journal.append_many([b"%d" % number for number in range(10)])
        await journal.sync_data()
        await journal.append(b"10")
        print("ready", flush=True)  # noqa: T201 - for the process that started this one
        await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("number", "sizes"), [(signal.SIGTERM, {10}), (signal.SIGINT, {11}), (signal.SIGHUP, {10}), (signal.SIGKILL, {10})]
)
async def test_a_process_that_a_signal_ends_keeps_what_was_durable(
    number: signal.Signals, sizes: set[int], tmp_path: Path
) -> None:
    """The lock is free at once; an interruption that Python turns into an exception closes the journal (C5, D1, F6)."""
    # What a shell starts in the background ignores SIGINT, what nohup starts SIGHUP, and so would their children.
    heeding = "signal.signal(signal.SIGINT, signal.default_int_handler); signal.signal(signal.SIGHUP, signal.SIG_DFL)"
    with started(f"{heeding}; asyncio.run(wait_to_be_interrupted(sys.argv[1]))", tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait() == -number
    async with await opened(tmp_path) as journal:
        assert journal.size() in sizes
        assert journal.recovery.clean == (number == signal.SIGINT)
        assert await all_items(journal) == [b"%d" % place for place in range(journal.size())]


# The end of the interpreter.

kept: list[object] = []


async def use(root: str, leave: Callable[[Journal[bytes]], object] = lambda _: None) -> None:
    """Open a journal, append, make a part of it durable, leave something under way, and close nothing."""
    journal = await opened(Path(root))
    await journal.append_many([b"%d" % number for number in range(10)])
    await journal.sync_data()
    await journal.append(b"10")
    left = leave(journal)
    kept.extend([journal, asyncio.ensure_future(left) if asyncio.iscoroutine(left) else left])
    await turns(2)


async def use_and_exit(root: str) -> None:
    await use(root)
    sys.exit(0)


async def stream(journal: Journal[bytes]) -> None:
    streaming = journal.replay(0, 9)
    kept.append(streaming)
    async for _ in streaming:
        await asyncio.Event().wait()


async def write(journal: Journal[bytes]) -> None:
    await journal.append(LARGE)
    await journal.sync()


def forget_to_await(journal: Journal[bytes]) -> None:
    kept.append(journal.append(b"never"))


EXITS = {
    "after asyncio.run": "asyncio.run(use(root))",
    "inside asyncio.run": "asyncio.run(use_and_exit(root))",
    "with a loop that is never closed": "loop = asyncio.new_event_loop(); loop.run_until_complete(use(root))",
    "with a sync under way": "loop = asyncio.new_event_loop(); loop.run_until_complete(use(root, Journal.sync))",
    "with a sync under way that asyncio.run cancels": "asyncio.run(use(root, Journal.sync))",
    "in the middle of a write": "asyncio.run(use(root, write))",
    "with a close under way": "loop = asyncio.new_event_loop(); loop.run_until_complete(use(root, Journal.close))",
    "with a close under way that asyncio.run cancels": "asyncio.run(use(root, Journal.close))",
    "with a replay half-way": "loop = asyncio.new_event_loop(); loop.run_until_complete(use(root, stream))",
    "with a replay half-way that asyncio.run cancels": "asyncio.run(use(root, stream))",
    "with a coroutine that nobody awaits": "asyncio.run(use(root, forget_to_await))",
}

# What Python itself says about what is left behind, and the journal about itself.
FORESEEN = (
    "ResourceWarning: unclosed",
    "Task was destroyed but it is pending!",
    "task: <Task pending",
    "never awaited",
    "RuntimeWarning: Enable tracemalloc",
)


@pytest.mark.parametrize("how", EXITS.values(), ids=EXITS)
async def test_an_interpreter_exits_with_a_journal_open(how: str, tmp_path: Path) -> None:
    """It neither hangs nor prints a traceback, and what was durable is there (C5, D2)."""
    with started(f"root = sys.argv[1]\n{how}\nprint('done')", tmp_path) as process:
        _, complaints = process.communicate(timeout=60)
    assert process.returncode == 0, complaints
    lines = [line for line in complaints.splitlines() if line and not line.startswith(" ")]
    assert [line for line in lines if not any(word in line for word in FORESEEN)] == []
    async with await opened(tmp_path) as journal:
        assert journal.size() in {10, 11, 12}
        expected = [b"%d" % number for number in range(11)] + [LARGE]
        assert await all_items(journal) == expected[: journal.size()]


def test_a_loop_that_is_closed_before_the_journal_leaves_a_lock_that_is_free(tmp_path: Path) -> None:
    """The journal can only be dropped then; it warns, and another loop can open it again."""
    left: list[Journal[bytes]] = []

    async def leave() -> None:
        journal = await opened(tmp_path)
        await journal.append(b"durable")
        await journal.sync_data()
        await journal.append(b"not synced")
        left.append(journal)

    asyncio.run(leave())
    with pytest.raises(RuntimeError):
        asyncio.run(left[0].close())
    with pytest.warns(ResourceWarning, match="unclosed journal"):  # noqa: PT031 - going is what warns
        left.clear()
        collect()

    async def look() -> list[bytes]:
        async with await opened(tmp_path) as journal:
            return await all_items(journal)

    assert asyncio.run(look()) == [b"durable"]


# What nobody refers to any more.


def collect() -> None:
    for _ in range(3):
        gc.collect()


async def test_a_journal_that_is_collected_warns_and_writes_nothing_more(tmp_path: Path) -> None:
    """What was not synced is lost as in a crash; the descriptors are closed and the lock is free."""
    storage = FileStorage(tmp_path)
    journal = await opened(storage)
    await journal.append_many([b"%d" % number for number in range(9)])
    await journal.read(0)
    await journal.sync_data()
    await journal.append(b"not synced")
    await turns(5)  # the writer's task ends
    assert handles_below(tmp_path)
    files = files_below(tmp_path)

    storage._threads.shutdown()  # a thread lets go of a blob when it is done with it
    with pytest.warns(ResourceWarning, match="unclosed journal 'orders'"):  # noqa: PT031 - going is what warns
        del journal
        collect()

    await turns(20)
    assert files_below(tmp_path) == files
    assert not handles_below(tmp_path)
    async with await opened(tmp_path) as found:
        assert await all_items(found) == [b"%d" % number for number in range(9)]


async def test_a_journal_with_work_under_way_is_not_collected_before_it_is_done(tmp_path: Path) -> None:
    """A sync that is waited for is finished though nobody else has the journal in hand."""

    async def commit() -> None:
        journal = await opened(tmp_path)
        await journal.append(b"item")
        syncing = asyncio.create_task(journal.sync_data())
        await asyncio.sleep(0)
        del journal
        collect()
        await syncing

    with pytest.warns(ResourceWarning):  # noqa: PT031 - going is what warns
        await commit()
        await turns(2)  # the writer's task ends
        collect()
    async with await opened(tmp_path) as found:
        assert found.size() == 1


async def test_a_replay_keeps_its_journal(tmp_path: Path) -> None:
    """A stream comes to its end though nobody else has the journal in hand; then both go (I2)."""

    async def drop() -> None:
        journal = await opened(tmp_path)
        await journal.append_many([b"%d" % number for number in range(50)])
        await journal.sync_data()
        streaming = journal.replay(0, 9)
        assert await anext(streaming) == (0, b"0")
        del journal
        collect()
        assert [item async for _, item in streaming] == [b"%d" % number for number in range(1, 50)]

    with pytest.warns(ResourceWarning, match="unclosed journal"):  # noqa: PT031 - going is what warns
        await drop()
        collect()
    async with await opened(tmp_path) as found:
        assert found.size() == 50


async def test_abandoned_replays_leave_nothing_behind() -> None:
    """A thousand streams that are dropped after an item leave no task and no handle, and the journal closes."""
    journal = await opened(MemoryStorage(), Config(partition="orders", items_per_section=2, codec=BytesCodec()))
    await journal.append_many([b"item %d" % number for number in range(20)])
    before = asyncio.all_tasks()
    for number in range(1_000):
        streaming = journal.replay(number % 20, 9)
        assert (await anext(streaming))[0] == number % 20
        if number % 2:
            await streaming.aclose()
        del streaming
    collect()
    await turns(10)
    assert not asyncio.all_tasks() - before
    await journal.close()


CALLS: dict[str, Callable[[Journal[bytes]], Coroutine[Any, Any, Any]]] = {
    "append": lambda journal: journal.append(b"x"),
    "append_many": lambda journal: journal.append_many([b"x"] * 5),
    "read": lambda journal: journal.read(0),
    "prune": lambda journal: journal.prune(4),
    "rewind": lambda journal: journal.rewind(0),
    "sync_data": lambda journal: journal.sync_data(),
    "sync": lambda journal: journal.sync(),
    "close": lambda journal: journal.close(),
    "destroy": lambda journal: journal.destroy(),
}


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_that_nobody_awaits_does_nothing(name: str, tmp_path: Path) -> None:
    """Python warns, and the journal is as if the call had never been made (C4)."""
    async with await opened(tmp_path) as journal:
        await journal.append_many([b"%d" % number for number in range(6)])
        await journal.sync()
        files = files_below(tmp_path)
        with pytest.warns(RuntimeWarning, match="never awaited"):  # noqa: PT031 - going is what warns
            forgotten: object = CALLS[name](journal)
            del forgotten
            collect()
        await turns(10)
        assert files_below(tmp_path) == files
        assert await journal.append(b"6") == 6
        assert await all_items(journal) == [b"%d" % number for number in range(7)]
