"""One measurement in a process of its own: `python -m benchmarks.measure JOB`, where JOB is JSON, prints JSON.

Nothing that an earlier measurement left, in memory, in caches or in threads, is there.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

from benchmarks.cases import Case
from benchmarks.check import round_trip
from benchmarks.items import decode, encode, items_of
from benchmarks.ways import WAYS
from benchmarks.workloads import appending, durable, idle, keeping, reading
from benchmarks.workloads.timing import Outcome, Ticker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks.adapters.adapter import Adapter

MEASURES: dict[str, Callable[[Adapter, Case, float], Awaitable[Outcome]]] = {
    "append": appending.append,
    "append_many": appending.append_many,
    "append_durably": durable.append_durably,
    "append_durably_together": durable.append_durably_together,
    "read": reading.read,
    "read_concurrently": reading.read_concurrently,
    "read_many": reading.read_many,
    "replay": reading.replay,
    "replay_batches": reading.replay_batches,
    "prune": keeping.prune,
    "do_nothing": idle.do_nothing,
}


@dataclass(frozen=True, slots=True)
class Job:
    """What one process is to do.

    Attributes:
        task: Measure the case, put in what it begins with, or see whether the adapter gives back what was put in.
        way: Who.
        directory: Where the journal is.
        seconds: Budget of a measurement that could go on for ever.
        case: What.
    """

    task: Literal["measure", "preload", "check"]
    way: str
    directory: str
    seconds: float
    case: Case

    def to_json(self) -> str:
        """Return it as an argument for the process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Return what `to_json` was given."""
        fields = json.loads(text)
        return cls(**{**fields, "case": Case(**fields["case"])})


async def perform(job: Job) -> Outcome:
    """Do it.

    Raises:
        ImportError: The library is not installed.
        NotWhatWasPutIn: The adapter gave something else back.
    """
    way, directory = WAYS[job.way], Path(job.directory)
    if job.task == "check":
        await round_trip(way, directory / "bytes", "bytes")
        await round_trip(way, directory / "dicts", "dicts")
        return Outcome(0, 0, 0)
    adapter = way.make(directory, job.case.kind)
    if job.case.measure == "open_and_read_last" and job.task == "measure":
        return await keeping.open_and_read_last(adapter, job.case)
    await adapter.open()
    outcome = await (keeping.preload(adapter, job.case) if job.task == "preload" else _measured(adapter, job))
    await adapter.close()
    return outcome


async def _measured(adapter: Adapter, job: Job) -> Outcome:
    measure, budget = MEASURES[job.case.measure], max(job.seconds, job.case.least_seconds)
    # What was made so far stays: the collector need not look at it again and again.
    gc.collect()
    gc.freeze()
    if job.case.ticker:
        async with Ticker() as ticker:
            outcome = await measure(adapter, job.case, budget)
        outcome.figures |= ticker.figures()
    else:
        outcome = await measure(adapter, job.case, budget)
    if job.case.kind == "dicts":
        outcome.figures["codec_us"] = _codec_microseconds(job.case)
    return outcome


def _codec_microseconds(case: Case) -> float:
    """Return what encoding, or decoding, takes for one item when nothing else is done; the best of some tries."""
    items = items_of(case.kind, case.item_bytes)
    work: Callable[[Any], Any] = encode
    if case.measure in {"read", "replay"}:
        items, work = [encode(item) for item in items], decode
    tries = []
    for _ in range(20):
        start = perf_counter()
        for item in items:
            work(item)
        tries.append((perf_counter() - start) / len(items))
    return min(tries) * 1e6


def main(argument: str) -> None:
    """Do a job, and print what came of it."""
    answer: dict[str, Any]
    try:
        job = Job.from_json(argument)
        run = importlib.import_module("uvloop").run if WAYS[job.way].on_uvloop else asyncio.run
        answer = asdict(run(perform(job)))
    except ImportError as error:
        answer = {"missing": str(error)}
    print(json.dumps(answer), flush=True)
    # Threads that a library keeps are not waited for.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
