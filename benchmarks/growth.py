"""What grows with a journal and what does not: opening, memory, and latency where sections follow each other.

Part of `python3 run.py bench`; by itself it is `python -m benchmarks.growth`. The peers take no part: this is about
this library alone. Each measurement is made in a process of its own, which `python -m benchmarks.growth --job` is.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import latency, machine
from benchmarks.results import Results, Row, Spread
from benchmarks.ways import OWN
from benchmarks.wording import environment, number, spread, table
from benchmarks.workloads.timing import Clock, Outcome, Ticker
from posjournal_async import BytesCodec, Config, Context, FileStorage, Journal

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT_SECONDS = 900

SECTION = 65_536
SMALL_SECTION = 10
ITEM = bytes(range(32))
FLOODED_ITEM_BYTES = 1_024

MIB = 2**20

STATUS = Path("/proc/self/status")


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A journal to begin with.

    Attributes:
        items: How many it has, of 32 bytes.
        items_per_section: How many a section has room for.
    """

    items: int
    items_per_section: int = SECTION


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """One thing to measure.

    Attributes:
        name: What it is called in the results.
        title: The same for people.
        measure: Name of the function that does it.
        made: The journal that it begins with, or None for a fresh one.
        fields: What else the function is given.
        at_most: Repetitions that are enough.
    """

    name: str
    title: str
    measure: str
    made: Made | None = None
    fields: dict[str, int] = field(default_factory=dict)
    at_most: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much is done.

    Attributes:
        sealed: Full sections before the tail, for opening.
        sections: Small sections.
        replayed: Items of the journals that are replayed.
        flooded_mib: How much is appended to the slow disk.
        reads: Random reads.
        appends: Appends whose latency is taken.
        repetitions: How often everything is done.
    """

    sealed: tuple[int, ...]
    sections: int
    replayed: tuple[int, ...]
    flooded_mib: int
    reads: int
    appends: int
    repetitions: int


FULL = Scale(
    sealed=(0, 1, 15, 152),
    sections=100_000,
    replayed=(100_000, 1_000_000, 10_000_000),
    flooded_mib=256,
    reads=20_000,
    appends=20_000,
    repetitions=3,
)
QUICK = Scale(
    sealed=(0, 15),
    sections=2_000,
    replayed=(100_000, 1_000_000),
    flooded_mib=32,
    reads=3_000,
    appends=4_000,
    repetitions=1,
)


def cases_of(scale: Scale) -> list[Growth]:
    """Return all that is measured, in order."""
    return [*_opening(scale), *_memory(scale), *_latency(scale)]


def _opening(scale: Scale) -> Iterator[Growth]:
    made = [Made(items=10_000)]
    made += [Made(items=sections * SECTION + tail) for sections in scale.sealed for tail in (1, SECTION - 1)]
    made.append(Made(items=scale.sections * SMALL_SECTION + 1, items_per_section=SMALL_SECTION))
    for journal in made:
        sections, tail = divmod(journal.items, journal.items_per_section)
        yield Growth(
            name=f"G1 {journal.items} by {journal.items_per_section}",
            title=f"open {journal.items:,} items: {sections:,} sealed sections of {journal.items_per_section:,}, "
            f"{tail:,} in the tail",
            measure="opening",
            made=journal,
        )


def _memory(scale: Scale) -> Iterator[Growth]:
    for items in scale.replayed:
        yield Growth(
            name=f"G2 replay {items}",
            title=f"replay {items:,} items",
            measure="replay",
            made=Made(items=items),
            at_most=2,
        )
    for buffer in (1, 8):
        yield Growth(
            name=f"G2 flood {buffer}",
            title=f"append {scale.flooded_mib} MiB to a slow disk, write buffer {buffer} MiB",
            measure="flood",
            fields={"write_buffer": buffer * MIB, "flooded": scale.flooded_mib * MIB},
            at_most=2,
        )
    for blobs in (64, 512):
        yield Growth(
            name=f"G2 reads {blobs}",
            title=f"open {scale.sections:,} sections and read {scale.reads:,} items at random, max_open_blobs {blobs}",
            measure="random_reads",
            made=Made(items=scale.sections * SMALL_SECTION + 1, items_per_section=SMALL_SECTION),
            fields={"max_open_blobs": blobs, "reads": scale.reads},
            at_most=2,
        )


def _latency(scale: Scale) -> Iterator[Growth]:
    disks = {0: "the real disk", 20_000: "a disk whose sync takes 20 ms"}
    for sync, disk in disks.items():
        yield Growth(
            name=f"G3 alone {sync}",
            title=f"append from one task, a section of 1,000 after the other, {disk}",
            measure="append_alone",
            fields={"sync_microseconds": sync, "appends": scale.appends},
        )
    for sync, disk in disks.items():
        for buffer, text in ((MIB, "1 MiB"), (4_096, "4 KiB")):
            yield Growth(
                name=f"G3 beside {sync} {buffer}",
                title=f"append from 8 tasks, 2 ms of rest between two appends of each, {disk}, write buffer {text}",
                measure="append_beside",
                fields={"sync_microseconds": sync, "appends": scale.appends, "write_buffer": buffer},
            )


# In a process of its own.


def _config(items_per_section: int = SECTION, **fields: Any) -> Config[bytes]:
    return Config(partition="grown", codec=BytesCodec(), items_per_section=items_per_section, **fields)


async def make(directory: Path, made: Made) -> None:
    """Make a journal. No flush reaches the disk meanwhile: there would be several for each small section."""
    os.fsync = os.fdatasync = lambda _: None  # type: ignore[assignment]
    async with await Journal.init(Context(FileStorage(directory)), _config(made.items_per_section)) as journal:
        run = [ITEM] * 100_000
        while missing := made.items - journal.size():
            await journal.append_many(run[:missing])
    # What is dirty now would be written while something is measured.
    os.sync()


async def opening(directory: Path, growth: Growth) -> Outcome:
    """Open, and read the last item; then close, and do it again, when all modules are there."""
    first = await _opened(directory, growth)
    async with Ticker() as ticker:
        again = await _opened(directory, growth)
    first.figures |= {
        "again_ms": again.figures["open_ms"],
        "again_and_read_ms": again.figures["open_and_read_ms"],
        "again_cpu_ms": again.cpu_seconds * 1e3,
        "late_max_ms": ticker.figures()["late_max_ms"],
    }
    return first


async def _opened(directory: Path, growth: Growth) -> Outcome:
    assert growth.made is not None
    config = _config(growth.made.items_per_section)
    clock = Clock()
    journal = await Journal.init(Context(FileStorage(directory)), config)
    opened = clock.milliseconds
    item = await journal.read(growth.made.items - 1)
    outcome = clock.outcome(1, open_ms=opened, open_and_read_ms=clock.milliseconds)
    _check(journal, growth.made, item)
    await journal.close()
    return outcome


def _check(journal: Journal[bytes], made: Made, item: bytes) -> None:
    if journal.size() != made.items or item != ITEM or not journal.recovery.clean:
        raise RuntimeError(f"{journal!r}: expected {made.items} items, {journal.recovery}")


class Memory:
    """The anonymous memory of the process, above what it was when this was made: what the page cache has is not in it.

    Attributes:
        most: The most that was seen, in bytes.
    """

    def __init__(self) -> None:
        self._before = self._now()
        self.most = 0

    @staticmethod
    def _now() -> int:
        for line in STATUS.read_text().splitlines() if STATUS.exists() else ():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1_024
        raise RuntimeError("the kernel does not tell the anonymous memory of a process")

    def look(self) -> None:
        """Note what it is now."""
        self.most = max(self.most, self._now() - self._before)

    def figures(self) -> dict[str, float]:
        """Return what was seen."""
        self.look()
        return {"memory_mib": self.most / MIB}


async def replay(directory: Path, growth: Growth) -> Outcome:
    """Go through all items."""
    assert growth.made is not None
    journal = await Journal.init(Context(FileStorage(directory)), _config())
    stream = journal.replay(0)
    await anext(stream)
    memory, clock, item = Memory(), Clock(), b""
    count = 1
    async for _, item in stream:  # noqa: B007 - the last one is wanted
        count += 1
        if count % 4_096 == 0:
            memory.look()
    outcome = clock.outcome(count, **memory.figures())
    _check(journal, growth.made, item)
    await journal.close()
    return outcome


async def flood(directory: Path, growth: Growth) -> Outcome:
    """Append from 64 tasks as fast as the journal takes it, to a disk that takes 5 ms for each write and each flush."""
    latency.slow_down(0.005, "pwrite", "fdatasync", "fsync")
    config = _config(write_buffer=growth.fields["write_buffer"])
    journal = await Journal.init(Context(FileStorage(directory)), config)
    await journal.append(ITEM)
    await journal.sync()
    count = growth.fields["flooded"] // FLOODED_ITEM_BYTES // 64
    memory, clock = Memory(), Clock()

    async def append() -> None:
        for number_of_item in range(count):
            await journal.append(bytes(FLOODED_ITEM_BYTES))
            if number_of_item % 64 == 0:
                memory.look()

    await asyncio.gather(*(append() for _ in range(64)))
    await journal.sync()
    outcome = clock.outcome(64 * count, **memory.figures())
    await journal.close()
    return outcome


async def random_reads(directory: Path, growth: Growth) -> Outcome:
    """Open, and read items of all sections, from 8 tasks."""
    assert growth.made is not None
    storage = FileStorage(directory)
    config = _config(growth.made.items_per_section, max_open_blobs=growth.fields["max_open_blobs"])
    chance = random.Random(1)
    memory = Memory()
    journal = await Journal.init(Context(storage), config)
    memory.look()
    opened = memory.most
    most_files = 0
    clock = Clock()

    async def read(count: int) -> None:
        nonlocal most_files
        for number_of_read in range(count):
            item = await journal.read(chance.randrange(journal.size()))
            if item != ITEM:
                raise RuntimeError("another item")
            if number_of_read % 50 == 0:
                memory.look()
                most_files = max(most_files, len(os.listdir("/proc/self/fd")))  # noqa: PTH208 - no time for objects

    await asyncio.gather(*(read(growth.fields["reads"] // 8) for _ in range(8)))
    outcome = clock.outcome(growth.fields["reads"], **memory.figures())
    outcome.figures |= {"opened_mib": opened / MIB, "files": most_files}
    await journal.close()
    return outcome


async def append_alone(directory: Path, growth: Growth) -> Outcome:
    """Append from one task, over many sections."""
    return await latency.alone(directory, **growth.fields)


async def append_beside(directory: Path, growth: Growth) -> Outcome:
    """Append from several tasks, of which one at a time waits for a section to be sealed."""
    return await latency.beside(directory, **growth.fields)


MEASURES: dict[str, Callable[[Path, Growth], Coroutine[Any, Any, Outcome]]] = {
    "opening": opening,
    "replay": replay,
    "flood": flood,
    "random_reads": random_reads,
    "append_alone": append_alone,
    "append_beside": append_beside,
}


def perform(task: str, directory: Path, growth: Growth) -> Outcome:
    """Make the journal that something begins with, or measure it."""
    if task == "make":
        assert growth.made is not None
        asyncio.run(make(directory, growth.made))
        return Outcome(growth.made.items, 0, 0)
    return asyncio.run(MEASURES[growth.measure](directory, growth))


# In the process that starts the others.


def measured(base: Path, *, is_quick: bool, names: str = "") -> Iterator[tuple[str, Row]]:
    """Yield the title of each measurement with its row; what is made for it is below `base`, and removed again."""
    scale = QUICK if is_quick else FULL
    cases = [growth for growth in cases_of(scale) if growth.name.startswith(names)]
    directory = Path(tempfile.mkdtemp(prefix="growth-", dir=base))
    try:
        # One journal after the other: all of them at once would take some GB.
        for made in dict.fromkeys(growth.made for growth in cases):
            kept = directory / "journal"
            same = [growth for growth in cases if growth.made == made]
            answer = {} if made is None else _perform("make", kept, same[0])
            for repetition in range(scale.repetitions):
                for growth in same:
                    if repetition < growth.at_most:
                        yield growth.title, _row(growth, repetition, kept, answer)
            if kept.exists():
                shutil.rmtree(kept)
    finally:
        shutil.rmtree(directory)


def _row(growth: Growth, repetition: int, kept: Path, answer: dict[str, Any]) -> Row:
    if "error" not in answer:
        if growth.made is None and kept.exists():
            shutil.rmtree(kept)
        answer = _perform("measure", kept, growth)
    if "error" in answer:
        answer = {"missing": f"failed: {answer['error']}"}
    else:
        answer = {name: answer[name] for name in ("items", "seconds", "cpu_seconds", "figures") if name in answer}
    return Row(case=growth.name, way=OWN, repetition=repetition, **answer)


def _perform(task: str, directory: Path, growth: Growth) -> dict[str, Any]:
    job = json.dumps([task, str(directory), asdict(growth)])
    command = [sys.executable, "-m", "benchmarks.growth", "--job", job]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {TIMEOUT_SECONDS} s"}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


# The report.

HEADS = {
    "opening": {
        "open_ms": "first open, ms",
        "open_and_read_ms": "and read the last, ms",
        "again_ms": "second open, ms",
        "again_and_read_ms": "and read the last, ms",
        "again_cpu_ms": "CPU of that, ms",
        "late_max_ms": "a 1 ms ticker was late by, ms",
    },
    "replay": {"memory_mib": "memory, MiB", "rate": "items/s"},
    "flood": {"memory_mib": "memory, MiB", "rate": "items/s"},
    "random_reads": {
        "opened_mib": "memory after opening, MiB",
        "memory_mib": "memory, MiB",
        "files": "descriptors at most",
        "rate": "items/s",
    },
    "append_alone": {
        "append_p50_us": "p50, µs",
        "append_p99_us": "p99, µs",
        "append_max_us": "max, µs",
        "roll_count": "sections filled",
        "roll_p50_us": "p50 of filling, µs",
        "roll_max_us": "max of filling, µs",
    },
    "append_beside": {
        "append_p50_us": "p50, µs",
        "append_p99_us": "p99, µs",
        "append_max_us": "max, µs",
        "beside_count": "appends during a roll",
        "beside_p50_us": "their p50, µs",
        "beside_p99_us": "their p99, µs",
        "beside_max_us": "their max, µs",
        "roll_count": "sections filled",
        "roll_p50_us": "p50 of filling, µs",
        "roll_max_us": "max of filling, µs",
    },
}

COUNTS = frozenset({"files", "roll_count", "beside_count"})

TITLES = {
    "opening": "Opening",
    "replay": "Memory of a replay",
    "flood": "Memory of a flood of appends",
    "random_reads": "Memory of many small sections",
    "append_alone": "Latency of one task that fills section after section",
    "append_beside": "Latency of other tasks beside it",
}

TEXTS = {
    "opening": """\
The journal was closed, and is in the page cache. Opening reads the last section, whatever there is before it: so a tail
that is nearly full is the worst case. It is done twice in one process, the second time beside the ticker.
""",
    "replay": """\
Anonymous memory of the process at most, above what it had after the first item. A replay has one section open at a
time, with eight bytes for each of its items.
""",
    "flood": """\
64 tasks append items of 1 KiB to a disk that takes 5 ms more for each write and each flush.
""",
    "random_reads": """\
Anonymous memory at most, above what the process had before it opened the journal. Sections of 10 items, 8 tasks.
""",
    "append_alone": """\
An append that fills its section waits until the section is synced; those are counted apart.
""",
    "append_beside": """\
An append is during a roll when it was called while another task waited for the section that it had filled. It need not
wait for the disk as long as what was appended meanwhile fits into the write buffer.
""",
}

HOW_TO_READ = """\
Each value is the median of the repetitions, with the least and the most in brackets where they differ.
"""


def report(results: Results) -> str:
    """Return the tables of what was measured, as a page."""
    measures = {growth.name: growth.measure for scale in (FULL, QUICK) for growth in cases_of(scale)}
    parts = [
        "# What grows with a journal\n",
        f"Made by `{results.run.command}`: {environment(results.run)}.\n",
        HOW_TO_READ,
    ]
    for measure, head in HEADS.items():
        cases = [name for name in results.titles if measures.get(name) == measure]
        if cases:
            parts += [f"## {TITLES[measure]}\n", TEXTS[measure], _table(results, cases, head)]
    return "\n".join(parts)


def _table(results: Results, cases: list[str], head: dict[str, str]) -> str:
    rows = []
    for case in cases:
        reason = results.why_missing(case, OWN)
        cells = [reason or "—"] * len(head)
        if not reason:
            cells = [_cell(results, case, figure) for figure in head]
        rows.append([results.titles[case], *cells])
    return table(["", *head.values()], rows, numbers=range(1, len(head) + 1))


def _cell(results: Results, case: str, figure: str) -> str:
    found = Spread.of(results.values(case, OWN, figure).values())
    if found is not None and figure in COUNTS:
        return f"{found.median:,.0f}"
    return spread(found)


def main(arguments: list[str]) -> int:
    """Measure growth alone, or do one job of it, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__, allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="under a minute: smaller journals, one repetition")
    parser.add_argument("--only", default="", metavar="PREFIX", help="only what is called so: G1, G2 flood")
    parser.add_argument("--dir", type=Path, default=ROOT / ".bench", help="where the data goes meanwhile; on a disk")
    parser.add_argument("--out", type=Path, help="where growth.md and growth.json go; otherwise they are printed")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.job:
        task, directory, fields = json.loads(options.job)
        made = fields.pop("made")
        growth = Growth(**fields, made=made and Made(**made))
        print(json.dumps(asdict(perform(task, Path(directory), growth))), flush=True)
        return 0
    options.dir.mkdir(parents=True, exist_ok=True)
    results = Results(machine.describe(options.dir, " ".join(["python -m benchmarks.growth", *arguments])), {})
    for title, row in measured(options.dir, is_quick=options.quick, names=options.only):
        results.titles[row.case] = title
        results.rows.append(row)
        print(f"{row.repetition + 1} {title}: {row.missing or shown(row)}", file=sys.stderr, flush=True)
    text = report(results)
    if options.out is None:
        print(text)
    else:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "growth.md").write_text(text)
        (options.out / "growth.json").write_text(results.to_json())
    return 1 if any(row.missing for row in results.rows) else 0


def shown(row: Row) -> str:
    """Return the figures of a measurement in one line."""
    return " ".join(f"{name}={number(value)}" for name, value in row.figures.items())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
