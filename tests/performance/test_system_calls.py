"""What the kernel is asked for by each way of using a journal, as strace sees it: counts, never times.

The table says what each workload may cost, and a system call that is not in it may not be made at all. What is exact
is written as it is; the rest has headroom, and says for what. How often a thread waits for another (futex) depends on
who runs first, so it is not counted. tests/system/test_strace.py has the flushes of larger runs.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.system.test_strace import why_not

if TYPE_CHECKING:
    from collections.abc import Mapping

CHECKOUT = Path(__file__).parents[2]

# Flushes and data, both ways of the socket by which a thread wakes the event loop, and the loop's own wait.
TRACED = (
    "fdatasync,fsync,sync_file_range,msync,pwrite64,pwritev,pread64,preadv,preadv2,read,write,ftruncate,openat,"
    "sendto,recvfrom,?epoll_wait,?epoll_pwait"
)

# Each workload begins with a line to standard error, which the trace shows among the calls.
PROGRAM = """
import asyncio, os, random, sys
from posjournal_async import BytesCodec, Config, Context, FileStorage, Journal

ITEM = b"x" * 100

def now(workload):
    os.write(2, b"<%s>" % workload.encode())

async def main(root):
    config = Config(partition="orders", codec=BytesCodec(), write_buffer=2**24)
    async with await Journal.init(Context(FileStorage(root)), config) as journal:
        await journal.append(b"the first one creates the section")
        await journal.sync()

        async def commit(count):
            for _ in range(count):
                await journal.append(ITEM)
                await journal.sync_data()

        now("one task")
        await commit(1_000)
        now("many tasks")
        await asyncio.gather(*(commit(4) for _ in range(256)))
        now("runs")
        for _ in range(100):
            await journal.append_many([ITEM] * 1_000)
        await journal.sync()
        chance = random.Random(1)
        positions = [chance.randrange(1, journal.size()) for _ in range(1_000)]
        now("reads")
        for position in positions:
            assert await journal.read(position) == ITEM
        now("replay")
        stream = journal.replay(1_000)
        for _ in range(10_000):
            await anext(stream)
        now("end")
        await stream.aclose()

asyncio.run(main(sys.argv[1]))
"""

MOST: dict[str, dict[str, int]] = {
    # Each commit: one hop to a thread with one write and one flush. It wakes the loop twice, so that an interruption
    # cannot lose one; a loop that is slow may take each from the socket by itself, and then finds that it is empty.
    # The loop goes round four times: the writer begins, waits, hears that it is done, and the task goes on.
    "one task": {
        "fdatasync": 1_000,
        "pwrite64": 1_000,
        "sendto": 2_020,
        "recvfrom": 4_000,
        "epoll_wait": 5_200,
    },
    # 4 commits, one for each round; twice as many, for a task that misses its group.
    "many tasks": {"fdatasync": 8, "pwrite64": 8, "sendto": 16, "recvfrom": 32, "epoll_wait": 60},
    # 8 flushes: data, offsets and checkpoint when the section is full, the headers of the next one, and the first
    # three again at the end; one more for each of the 10 MiB, which nobody asked for; the two directories for the names
    # of what is created. The writer is called for each piece of 128 KiB at the most, which is 85 times, and writes one
    # piece then; the rest are those 8, and one for each of the two.
    "runs": {
        "fdatasync": 18,
        "fsync": 2,
        "pwrite64": 95,
        "openat": 10,
        "sendto": 220,
        "recvfrom": 440,
        "epoll_wait": 350,
    },
    # One each, on the loop. Every 256th gives way to other tasks. Twenty may go to a thread: the kernel may say that
    # it would have to wait when it happens to be writing that very page.
    "reads": {"preadv2": 1_000, "pread64": 20, "sendto": 40, "recvfrom": 80, "epoll_wait": 50},
    # 13 pieces of a third of 256 KiB, each with a look whether the next one is at hand; where the stream begins is
    # found by a read in a thread. As for the reads, some more may go there.
    "replay": {"preadv2": 28, "pread64": 8, "sendto": 16, "recvfrom": 32, "epoll_wait": 50},
}


@pytest.fixture(scope="module")
def counts(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Counter[str]]:
    """How often each system call was made in each workload, all in one process; flushes succeed and do nothing."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    directory = tmp_path_factory.mktemp("traced")
    trace = directory / "trace"
    options = ["-f", "-qq", "-e", f"trace={TRACED}", "-e", "inject=fdatasync,fsync:retval=0", "-o", str(trace)]
    program = [sys.executable, "-c", PROGRAM, str(directory / "root")]
    subprocess.run(["strace", *options, *program], cwd=CHECKOUT, check=True, timeout=120, stderr=subprocess.DEVNULL)  # noqa: S607
    workload, found = "start", dict[str, Counter[str]]()
    # A call that another thread interrupts in the trace is listed a second time, as resumed.
    for call, arguments in re.findall(r"^\d+ +(\w+)\((.*)$", trace.read_text(), re.MULTILINE):
        begins = re.match(r'2, "<([a-z ]+)>"', arguments) if call == "write" else None
        if begins:
            workload = begins[1]
        else:
            found.setdefault(workload, Counter())[call.replace("epoll_pwait", "epoll_wait")] += 1
    return found


@pytest.mark.parametrize("workload", MOST)
def test_no_more_is_asked_of_the_kernel_than_the_table_says(workload: str, counts: Mapping[str, Counter[str]]) -> None:
    """A second flush, a write of its own for each item, a hop more: each makes a count larger than its bound."""
    most, found = MOST[workload], counts[workload]
    assert {call: count for call, count in found.items() if count > most.get(call, 0)} == {}


def test_what_is_exact_is_exact(counts: Mapping[str, Counter[str]]) -> None:
    """Nothing is left out either: each commit has its flush, and each read its look at the page cache (D1, L1)."""
    assert counts["one task"]["fdatasync"] == 1_000
    assert counts["one task"]["pwrite64"] == 1_000
    assert counts["many tasks"]["fdatasync"] >= 4
    assert counts["runs"]["fdatasync"] > 8
    assert counts["runs"]["fsync"] == 2
    assert counts["reads"]["preadv2"] == 1_000
