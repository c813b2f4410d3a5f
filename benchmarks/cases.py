"""What is measured: each workload as one or more cases, and who takes part in which."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from benchmarks.items import DICT_BYTES
from benchmarks.ways import OWN, OWN_ON_UVLOOP, PEERS, WAYS

if TYPE_CHECKING:
    from benchmarks.items import Kind

WORKLOADS = {
    "W1": "append one by one, one sync at the end",
    "W2": "append_many of 1,000, one sync at the end",
    "W3": "append + sync_data, one task",
    "W4": "append + sync_data, many tasks",
    "W5": "random read, hot, one after the other",
    "W6": "256 concurrent reads; read_many of 256",
    "W7": "replay",
    "W8": "open, and read the last item",
    "W9": "prune half",
    "W10": "lateness of a 1 ms ticker beside W1, W4 and W7",
    "W11": "W1, W2, W5 and W7 with dicts, encoded by msgpack",
}

# What a sync takes on the modelled disks: an SSD with a protected cache, and one without.
MODELLED_MICROSECONDS = (150, 1_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One thing to measure with several adapters.

    Attributes:
        name: What it is called in the results; begins with the workload.
        title: The same for people.
        measure: The function in `benchmarks.workloads` that does it.
        ways: Names of those who take part.
        kind: What the items are.
        item_bytes: Length of an item.
        preloaded: Items that are there before it begins.
        tasks: Tasks that do it at the same time.
        helper: Whether a hand-written group commit stands between.
        sync_microseconds: What a sync takes on the modelled disk; None for the real one.
        ticker: Whether a ticker runs beside it.
        least_seconds: Time that it goes on at least, whatever the budget.
        at_most: Repetitions that are enough.
    """

    name: str
    title: str
    measure: str
    ways: tuple[str, ...] = (OWN, OWN_ON_UVLOOP, *PEERS)
    kind: Kind = "bytes"
    item_bytes: int = 100
    preloaded: int = 0
    tasks: int = 1
    helper: bool = False
    sync_microseconds: int | None = None
    ticker: bool = False
    least_seconds: float = 0.0
    at_most: int = 1_000

    @property
    def workload(self) -> str:
        """The workload it belongs to: W1 to W11."""
        return self.name.split()[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much is done.

    Attributes:
        seconds: Budget of a measurement that could go on for ever.
        repetitions: How often everything is done.
        replayed: Items for W5, W6, W7.
        opened: Sizes for W8; the last is tried by few, and once.
        pruned: Items for W9.
        modelled: What syncs take on the modelled disks.
        few: Who takes part where nothing is compared with all.
    """

    seconds: float
    repetitions: int
    replayed: int
    opened: tuple[int, ...]
    pruned: int
    modelled: tuple[int, ...]
    ticker_seconds: float
    few: tuple[str, ...]


FULL = Scale(
    seconds=0.4,
    repetitions=3,
    replayed=1_000_000,
    opened=(100_000, 1_000_000, 10_000_000),
    pruned=262_144,
    modelled=MODELLED_MICROSECONDS,
    ticker_seconds=1.0,
    few=(OWN, "raw-loop", "aiosqlite", "lmdb-loop", "durastream"),
)
QUICK = Scale(
    seconds=0.15,
    repetitions=1,
    replayed=200_000,
    opened=(100_000, 1_000_000),
    pruned=131_072,
    modelled=MODELLED_MICROSECONDS[:1],
    ticker_seconds=0.4,
    few=(OWN, "aiosqlite", "lmdb-loop"),
)


def cases_of(scale: Scale) -> list[Case]:
    """Return all cases, in the order in which they are measured."""
    appending = [
        Case(name="W1", title=WORKLOADS["W1"], measure="append"),
        Case(name="W2", title=WORKLOADS["W2"], measure="append_many"),
    ]
    reading = [
        Case(name="W5", title=WORKLOADS["W5"], measure="read", preloaded=scale.replayed),
        Case(name="W7", title=WORKLOADS["W7"], measure="replay", preloaded=scale.replayed),
    ]
    return [
        *appending,
        *(case for disk in (*scale.modelled, None) for case in _durable(disk, scale)),
        reading[0],
        Case(name="W6", title="256 concurrent reads", measure="read_concurrently", preloaded=scale.replayed),
        Case(
            name="W6 read_many",
            title="read_many of 256",
            measure="read_many",
            ways=(OWN,),
            preloaded=scale.replayed,
        ),
        reading[1],
        Case(
            name="W7 batches",
            title="replay_batches",
            measure="replay_batches",
            ways=(OWN,),
            preloaded=scale.replayed,
        ),
        *_opening(scale),
        Case(
            name="W9",
            title=f"prune the first half of {scale.pruned:,} x 1 KiB",
            measure="prune",
            ways=tuple(name for name in _those_who_can("W9") if scale is FULL or name in scale.few),
            item_bytes=1_024,
            preloaded=scale.pruned,
            at_most=2,
        ),
        *_ticking(scale),
        *(_with_dicts(case, scale) for case in (*appending, *reading)),
    ]


def _those_who_can(workload: str) -> tuple[str, ...]:
    return tuple(name for name, way in WAYS.items() if workload not in way.lacks)


def disk_name(microseconds: int | None) -> str:
    """Return what a disk is called in the name of a case."""
    if microseconds is None:
        return "real disk"
    return f"{microseconds} us" if microseconds < 1_000 else f"{microseconds // 1_000} ms"


def _durable(microseconds: int | None, scale: Scale) -> list[Case]:
    """W3 and W4 on one disk. The targets are for the modelled one with the quick sync."""
    disk = disk_name(microseconds)
    is_target = microseconds == MODELLED_MICROSECONDS[0]
    ways = (OWN, OWN_ON_UVLOOP, *PEERS) if is_target or scale is FULL else scale.few
    one = Case(
        name=f"W3 {disk}",
        title=f"{WORKLOADS['W3']}, {disk}",
        measure="append_durably",
        sync_microseconds=microseconds,
        ways=ways,
        at_most=1_000 if is_target else 2 if microseconds is None else 1,
    )
    found = [one]
    for tasks in (64, 512) if is_target or microseconds is None else (64,):
        title = f"append + sync_data, {tasks} tasks, {disk}"
        many = replace(one, name=f"W4 {tasks} {disk}", title=title, measure="append_durably_together", tasks=tasks)
        helped = tuple(name for name in ways if not WAYS[name].groups_commits)
        found.append(many)
        found.append(
            replace(
                many,
                name=f"{many.name} grouped",
                title=f"{title}, through a hand-written group commit",
                helper=True,
                ways=helped,
            )
        )
    return found


def _opening(scale: Scale) -> list[Case]:
    found = []
    for items in scale.opened:
        is_large = items > (1_000_000 if scale is FULL else 100_000)
        found.append(
            Case(
                name=f"W8 {items}",
                title=f"{WORKLOADS['W8']}: {items:,} items",
                measure="open_and_read_last",
                ways=(OWN, "lmdb-loop") if is_large else (OWN, *PEERS) if scale is FULL else scale.few,
                item_bytes=32 if items > 1_000_000 else 100,
                preloaded=items,
                at_most=2,
            )
        )
    return found


def _ticking(scale: Scale) -> list[Case]:
    idle = Case(
        name="W10 nothing",
        title="a 1 ms ticker beside nothing: what the machine does by itself",
        measure="do_nothing",
        ways=(OWN,),
        ticker=True,
        least_seconds=scale.ticker_seconds,
        at_most=2,
    )
    beside = replace(idle, ways=scale.few)
    return [
        idle,
        replace(beside, name="W10 W1", title="a 1 ms ticker beside W1", measure="append"),
        replace(
            beside,
            name="W10 W4",
            title="a 1 ms ticker beside W4, 64 tasks, real disk",
            measure="append_durably_together",
            tasks=64,
        ),
        replace(beside, name="W10 W7", title="a 1 ms ticker beside W7", measure="replay", preloaded=scale.replayed),
    ]


def _with_dicts(case: Case, scale: Scale) -> Case:
    return replace(
        case,
        name=f"W11 {case.name}",
        title=f"{case.title}, dicts",
        kind="dicts",
        item_bytes=DICT_BYTES,
        ways=scale.few,
    )
