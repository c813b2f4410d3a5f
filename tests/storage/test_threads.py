"""The threads on which a storage makes its calls: what was handed over is done, also when everything else ends."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import warnings
from contextlib import suppress
from errno import EAGAIN, EIO
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import finalize

import pytest

from posjournal_async import FileStorage, StorageError
from posjournal_async.storage.lane import Lane
from posjournal_async.storage.readonly import ReadOnlyFileStorage
from posjournal_async.storage.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PATIENCE_SECONDS = 30


def started_by(threads: Threads) -> list[threading.Thread]:
    return threads._crew.threads


def join(started: list[threading.Thread]) -> None:
    for thread in started:
        thread.join(PATIENCE_SECONDS)
    assert not [thread for thread in started if thread.is_alive()]


def test_nothing_is_started_before_there_is_a_job() -> None:
    """A storage that is only opened from costs no thread."""
    assert started_by(Threads(2, "t")) == []


@pytest.mark.parametrize("most", [0, -1])
def test_there_is_at_least_one_thread(tmp_path: Path, most: int) -> None:
    """Without any, each call would wait for ever."""
    with pytest.raises(ValueError, match=f"threads: expected at least 1, found {most}"):
        FileStorage(tmp_path, threads=most)


@pytest.mark.parametrize("most", [2.5, float("nan"), "2"])
def test_a_number_of_threads_is_an_integer(tmp_path: Path, most: Any) -> None:
    """No comparison with it would mean anything else."""
    with pytest.raises(TypeError):
        FileStorage(tmp_path, threads=most)


def test_jobs_are_taken_in_the_order_of_their_handing_over() -> None:
    """By one thread, which then does one after the other."""
    done: list[int] = []
    threads = Threads(1, "t")
    for number in range(1_000):
        threads.hand(lambda number=number: done.append(number))  # type: ignore[misc]
    started = started_by(threads)
    del threads
    join(started)
    assert done == list(range(1_000))
    assert len(started) == 1


def test_as_many_jobs_run_at_once_as_there_may_be_threads() -> None:
    """The jobs wait for each other, so fewer threads would not do."""
    together = threading.Barrier(3)
    met = threading.Semaphore(0)
    threads = Threads(3, "t")

    def meet() -> None:
        together.wait(PATIENCE_SECONDS)
        met.release()

    for _ in range(6):
        threads.hand(meet)
    for _ in range(6):
        assert met.acquire(timeout=PATIENCE_SECONDS)
    assert len(started_by(threads)) == 3


def test_no_more_are_started_when_several_event_loops_hand_over_at_once() -> None:
    """A storage may be shared by loops in threads of their own; what it is allowed is for all of them."""
    for _ in range(50):
        threads, at_once, may_end = Threads(2, "t"), threading.Barrier(8), threading.Event()

        def hand(threads: Threads, at_once: threading.Barrier, may_end: threading.Event) -> None:
            at_once.wait(PATIENCE_SECONDS)
            threads.hand(partial(may_end.wait, PATIENCE_SECONDS))

        loops = [threading.Thread(target=hand, args=(threads, at_once, may_end)) for _ in range(8)]
        for loop in loops:
            loop.start()
        join(loops)
        assert len(started_by(threads)) == 2
        may_end.set()
        threads.shutdown()


def test_a_thread_that_waits_is_used_again() -> None:
    """However many jobs come, as long as each comes after the one before."""
    threads = Threads(8, "t")
    for _ in range(100):
        threads.hand(lambda: None)
        while not threads._crew.idle:
            assert started_by(threads)[0].is_alive()
    assert len(started_by(threads)) == 1


def test_the_threads_end_with_their_owner_when_the_jobs_are_done() -> None:
    """Nobody waits for them, and nothing that was handed over is dropped."""
    may_go = threading.Event()
    done: list[int] = []
    threads = Threads(1, "t")
    threads.hand(lambda: may_go.wait(PATIENCE_SECONDS))
    threads.hand(lambda: done.append(1))
    started = started_by(threads)
    del threads
    gc.collect()
    assert done == []
    may_go.set()
    join(started)
    assert done == [1]


def test_a_job_is_let_go_when_it_is_done() -> None:
    """A thread that waits keeps nothing alive: a file that nobody refers to is closed."""

    class Job:
        def __call__(self) -> None:
            pass

        def __del__(self) -> None:
            gone.set()

    gone = threading.Event()
    threads = Threads(1, "t")
    threads.hand(Job())
    assert gone.wait(PATIENCE_SECONDS)


def test_where_no_other_thread_can_be_started_those_that_there_are_do_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit of processes, say; without any thread it is refused."""
    busy = threading.Event()
    done = threading.Event()
    threads = Threads(2, "t")
    threads.hand(lambda: busy.wait(PATIENCE_SECONDS))

    monkeypatch.setattr(threading.Thread, "start", _refuse)
    threads.hand(done.set)
    busy.set()
    assert done.wait(PATIENCE_SECONDS)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        Threads(1, "t").hand(done.set)


@pytest.mark.parametrize("storage_of", [FileStorage, ReadOnlyFileStorage])
async def test_a_storage_that_can_start_no_thread_says_so(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    storage_of: Callable[[Path], FileStorage | ReadOnlyFileStorage],
) -> None:
    """As it says whatever else the system has not got, and the next call tries again."""
    storage = storage_of(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", _refuse)
        for call in (storage.scan("p"), storage.open("p", b"1")):
            with pytest.raises(StorageError) as raised:
                await call
            assert raised.value.errno == EAGAIN
        if isinstance(storage, FileStorage):
            with pytest.raises(StorageError) as raised:
                await storage.lock("p")
            assert (raised.value.errno, raised.value.doing) == (EAGAIN, "lock")
    assert await storage.scan("p") == []


async def test_a_call_for_which_there_is_no_thread_fails_and_the_next_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lane does not stop at it."""
    threads = Threads(1, "t")
    lane = Lane(threads)
    with monkeypatch.context() as patch:
        patch.setattr(threads, "hand", _refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            await lane.submit(lambda: 1)
    assert await lane.submit(lambda: 2) == 2


async def test_a_call_that_failed_is_let_go_at_once() -> None:
    """Not when the garbage is collected: it refers to a file, which is closed when nobody refers to it."""

    class File:
        def write(self) -> None:
            raise OSError(EIO, "write")

    lane = Lane(Threads(1, "t"))
    file = File()
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()
    finalize(file, loop.call_soon_threadsafe, gone.set).atexit = False
    gc.disable()
    try:
        with suppress(OSError):
            await lane.submit(file.write)
        del file
        async with asyncio.timeout(PATIENCE_SECONDS):
            await gone.wait()
    finally:
        gc.enable()


def _refuse(_: object) -> None:
    raise RuntimeError("can't start new thread")


async def test_a_call_that_is_handed_over_twice_is_made_once() -> None:
    """As after an interruption between the handing over and its being noted: the second thread leaves it alone."""
    made: list[int] = []
    may_end = threading.Event()
    threads = Threads(2, "t")
    hand = threads.hand
    loop = asyncio.get_running_loop()

    def hand_twice(job: Callable[[], object]) -> None:
        hand(job)
        hand(job)
        # By the thread that came second, and when the loop has heard what that had to say before.
        hand(partial(loop.call_soon_threadsafe, may_end.set))

    def call() -> int:
        made.append(1)
        assert may_end.wait(PATIENCE_SECONDS)
        return 5

    threads.hand = hand_twice  # type: ignore[method-assign]
    try:
        assert await Lane(threads).submit(call) == 5
    finally:
        may_end.set()
    assert made == [1]


AT_EXIT = """
import sys, threading, time
from posjournal_async.storage.threads import Threads

threads = Threads(2, "t")
begun = threading.Event()

def write() -> None:
    begun.set()
    threading.main_thread().join()  # not before the interpreter shuts down
    with open(sys.argv[1], "a") as file:
        file.write("written ")

for _ in range(3):
    threads.hand(write)
begun.wait()
"""


def test_what_was_handed_over_is_done_when_the_interpreter_exits(tmp_path: Path) -> None:
    """Begun or not: nobody who waits for a write that goes on is left, and it ends all the same."""
    out = tmp_path / "out"
    subprocess.run([sys.executable, "-c", AT_EXIT, str(out)], check=True, timeout=PATIENCE_SECONDS)
    assert out.read_text() == "written written written "


def test_what_is_submitted_tells_its_future() -> None:
    """As any executor does: what it returned, or what it raised."""
    with Threads(1, "t") as threads:
        returns = threads.submit(divmod, 7, 2)
        raises = threads.submit(divmod, 7, 0)
    assert returns.result() == (3, 1)
    with pytest.raises(ZeroDivisionError):
        raises.result()


def test_what_was_cancelled_before_its_turn_is_not_called() -> None:
    """What is under way goes on."""
    may_go = threading.Event()
    done: list[int] = []
    with Threads(1, "t") as threads:
        begun = threads.submit(may_go.wait, PATIENCE_SECONDS)
        waits = threads.submit(done.append, 1)
        assert waits.cancel()
        may_go.set()
    assert begun.result() is True
    assert done == []


def test_what_was_submitted_and_failed_is_let_go_at_once() -> None:
    """Not when the garbage is collected: it may have opened a file, which is closed when nobody refers to it."""

    class File:
        def open(self) -> None:
            raise OSError(EIO, "open")

    file = File()
    gone = threading.Event()
    finalize(file, gone.set).atexit = False
    gc.disable()
    try:
        with Threads(1, "t") as threads:
            opening = threads.submit(file.open)
        del file
        assert isinstance(opening.exception(), OSError)
        assert not gone.is_set()  # its traceback knows it
        del opening
        assert gone.is_set()
    finally:
        gc.enable()


def test_nothing_is_taken_when_the_threads_have_ended() -> None:
    """It would never be done."""
    threads = Threads(1, "t")
    threads.shutdown()
    with pytest.raises(RuntimeError, match="the threads have ended"):
        threads.hand(lambda: None)


def test_a_thread_that_is_started_while_they_are_ended_ends_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As by an event loop in a daemon thread when the interpreter exits, which would wait for it for ever."""
    threads = Threads(2, "t")
    start = threading.Thread.start

    def start_and_end(thread: threading.Thread) -> None:
        start(thread)
        threads.shutdown(wait=False)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start_and_end)
        with pytest.raises(RuntimeError, match="the threads have ended"):
            threads.hand(lambda: None)
    join(started_by(threads))


def test_a_forked_child_starts_threads_of_its_own_and_leaves_the_jobs_of_the_parent_alone() -> None:
    """Of the threads it gets only what is said of them; what waits for the jobs is not to be ended there either."""
    begun, may_go = threading.Event(), threading.Event()
    done, note = os.pipe()

    def wait() -> None:
        begun.set()
        may_go.wait(PATIENCE_SECONDS)

    class Job:
        def __call__(self) -> None:
            os.write(note, b"parent's ")

        def __del__(self) -> None:
            os.write(note, b"let go ")

    threads = Threads(1, "t")
    threads.hand(wait)
    threads.hand(Job())
    assert begun.wait(PATIENCE_SECONDS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # there are threads
        child = os.fork()
    if child == 0:  # pragma: no cover - in the child
        own = threading.Event()
        threads.hand(lambda: os.write(note, b"child's "))
        threads.hand(own.set)
        os._exit(0 if own.wait(PATIENCE_SECONDS) else 1)
    _, status = os.waitpid(child, 0)
    may_go.set()
    threads.shutdown()
    os.close(note)
    with os.fdopen(done, "rb") as noted:
        assert noted.read() == b"child's parent's let go "
    assert os.waitstatus_to_exitcode(status) == 0
