"""Adapters give back what was put in, and the check finds one that does not."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.adapters.raw import RawLoop
from benchmarks.cases import QUICK, Case, cases_of
from benchmarks.check import NotWhatWasPutIn, round_trip
from benchmarks.items import DICT_BYTES, Kind, decode, encode, items_of
from benchmarks.measure import MEASURES, Job, perform
from benchmarks.ways import OWN, WAYS
from posjournal_async import MsgpackCodec

if TYPE_CHECKING:
    from pathlib import Path

WITHOUT_PEERS = (OWN, "raw-loop", "raw-thread", "aiofiles", "sqlite3-thread")


@pytest.mark.parametrize("kind", ["bytes", "dicts"])
@pytest.mark.parametrize("name", WITHOUT_PEERS)
async def test_what_goes_in_comes_out(name: str, kind: Kind, tmp_path: Path) -> None:
    """Whatever the way in and the way out, before and after opening again."""
    await round_trip(WAYS[name], tmp_path / "journal", kind)


class Loses(RawLoop):
    """Forgets an item when many come at once."""

    async def append_many(self, items: list[bytes]) -> None:
        await super().append_many(items[:-1])


class Repeats(RawLoop):
    """Reads its neighbour."""

    async def read(self, position: int) -> bytes:
        return await super().read(max(position - 1, 0))


class Doubles(RawLoop):
    """Writes twice when tasks do it together."""

    async def append_durably_beside_others(self, item: Any) -> None:
        await self.append(item)
        await self.append_durably(item)


@pytest.mark.parametrize("wrong", [Loses, Repeats, Doubles])
async def test_the_check_finds_what_is_lost_or_changed(
    wrong: type[RawLoop], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An adapter that loses, mixes up or doubles items does not pass."""
    made: list[RawLoop] = []

    def make(directory: Path, kind: Kind) -> RawLoop:
        made.append(wrong(directory, kind))
        return made[-1]

    monkeypatch.setattr("benchmarks.adapters.raw.RawLoop", make)
    try:
        with pytest.raises(NotWhatWasPutIn):
            await round_trip(WAYS["raw-loop"], tmp_path / "journal")
    finally:
        await made[-1].close()


def test_dicts_have_the_length_that_is_said() -> None:
    """So that they can be compared with bytes of that length."""
    assert {len(encode(item)) for item in items_of("dicts", DICT_BYTES)} == {DICT_BYTES}


def test_the_peers_get_the_codec_of_the_library() -> None:
    """The same bytes, and the same items from them."""
    for item in [*items_of("dicts", DICT_BYTES), {1: datetime(2026, 1, 1, tzinfo=UTC)}]:
        assert encode(item) == MsgpackCodec().encode(item)
        assert decode(encode(item)) == MsgpackCodec().decode(encode(item)) == item


MEASURED = {case.measure: case for case in cases_of(QUICK)}


@pytest.mark.parametrize("measure", sorted(MEASURED))
@pytest.mark.parametrize("name", [OWN, "raw-loop"])
async def test_each_measurement_goes_through(name: str, measure: str, tmp_path: Path) -> None:
    """A tiny run of each: it counts what it did, and took some time."""
    case = MEASURED[measure]
    if name not in case.ways:
        return
    small = Case(
        name=case.name,
        title=case.title,
        measure=measure,
        tasks=min(case.tasks, 4),
        preloaded=min(case.preloaded, 1_500),
    )
    if case.preloaded and measure != "prune":
        await perform(Job("preload", name, str(tmp_path / "journal"), 0, small))
    outcome = await perform(Job("measure", name, str(tmp_path / "journal"), 0.001, small))
    assert outcome.items > 0 or measure == "do_nothing"
    assert outcome.seconds > 0


async def test_a_ticker_runs_beside_what_asks_for_it(tmp_path: Path) -> None:
    """W10 and nothing else notes how late it was."""
    for case in cases_of(QUICK):
        if case.measure == "append" and case.kind == "bytes":
            short = replace(case, least_seconds=0.0)
            outcome = await perform(Job("measure", OWN, str(tmp_path / case.name), 0.01, short))
            assert ("late_p99_ms" in outcome.figures) == (case.workload == "W10"), case.name


def test_all_measurements_are_known() -> None:
    """A case names one that there is; opening is measured from outside, since the adapter is not open yet."""
    assert set(MEASURED) == {*MEASURES, "open_and_read_last"}
    assert asyncio.iscoroutinefunction(MEASURES["append"])
