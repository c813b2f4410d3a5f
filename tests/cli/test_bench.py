"""`posjournal bench`: it measures, and leaves nothing behind."""

from __future__ import annotations

import json
import signal
import subprocess
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

import pytest

from posjournal_async.cli.measuring import BENCH_DIRECTORY, measured
from tests.cli.transcripts import made_journal, posjournal_run, started, tree_hash
from tests.system.disks import mounted

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ["fsync", "append", "durable_1", "durable_16", "durable_256", "read_cached", "read_device", "replay"]


def names_in(place: Path) -> list[str]:
    return [path.name for path in place.iterdir()]


@pytest.mark.parametrize("item_bytes", [1, 5_000])
async def test_everything_is_measured(tmp_path: Path, item_bytes: int) -> None:
    """Each thing at least once, in a directory that is gone at the end."""
    found = [one async for one in measured(tmp_path, 0.1, item_bytes)]
    assert [one.name for one in found] == NAMES
    for one in found:
        assert one.count > 0
        assert one.per_second == one.count / one.seconds
        if one.p50 is not None:
            assert one.p99 is not None
            assert 0 < one.p50 <= one.p99 <= one.seconds * 1.001
    tasks = {one.name: one.per_sync for one in found if one.per_sync is not None}
    assert list(tasks) == NAMES[2:5]
    assert tasks["durable_1"] == 1
    assert 1 < tasks["durable_16"] <= 16 < tasks["durable_256"] <= 256
    assert names_in(tmp_path) == []


async def test_who_stops_half_way_leaves_nothing(tmp_path: Path) -> None:
    """After any of the parts."""
    for name in NAMES[:-1]:
        async with aclosing(measured(tmp_path, 0.05, 10)) as measurements:
            async for one in measurements:
                assert len(names_in(tmp_path)) == 1
                if one.name == name:
                    break
        assert names_in(tmp_path) == []


def test_a_table_for_people(tmp_path: Path) -> None:
    """In the directory of a journal, which stays as it is."""
    made_journal(tmp_path, [1])
    before = tree_hash(tmp_path / "orders_data")
    result = posjournal_run("bench", str(tmp_path / "orders"), "--seconds", "0.1")
    assert result.exit_code == 0
    head, columns, *rows = result.stdout.splitlines()
    assert head.startswith(f"{tmp_path} (")
    assert head.endswith("), items of 256 B")
    assert columns.split("  ")[0] == "what"
    assert len(rows) == len(NAMES)
    assert rows[0].startswith("append 4 KiB to a file, fdatasync")
    assert tree_hash(tmp_path / "orders_data") == before


def test_json_for_programs(tmp_path: Path) -> None:
    """The names stay the same from version to version."""
    result = posjournal_run("bench", str(tmp_path), "--seconds", "0.1", "--item-bytes", "100", "--json")
    told = json.loads(result.stdout)
    assert (told["schema"], told["directory"], told["item_bytes"]) == ("posjournal.bench/1", str(tmp_path), 100)
    assert [one["name"] for one in told["measurements"]] == NAMES
    assert list(told["measurements"][0]) == [
        "name",
        "count",
        "seconds",
        "per_second",
        "p50_seconds",
        "p99_seconds",
        "items_per_fsync",
    ]


def test_a_duration_that_is_none_is_refused(tmp_path: Path) -> None:
    """As a range has it, NaN is in every range."""
    result = posjournal_run("bench", str(tmp_path), "--seconds", "nan")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "found nan" in result.stderr


@pytest.mark.parametrize("place", ["missing/missing", "file/orders"])
def test_a_place_that_is_none_is_refused(tmp_path: Path, place: str) -> None:
    """Before anything is written."""
    (tmp_path / "file").write_bytes(b"")
    result = posjournal_run("bench", str(tmp_path / place))
    assert result.exit_code == 2
    assert "is a directory" in result.stderr


def test_a_disk_without_room_is_not_filled(tmp_path: Path) -> None:
    """Exit code 4, before anything is written."""
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=1m", "tmpfs") as disk:
        result = posjournal_run("bench", str(disk))
        assert names_in(disk) == []
    assert (result.exit_code, result.stdout) == (4, "")
    assert result.stderr == f"posjournal: less than 512.0 MiB are free in '{disk}'\n"


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_leaves_nothing(tmp_path: Path, end: signal.Signals) -> None:
    """Neither Ctrl-C nor a polite end, in the middle of the measuring."""
    with started("bench", str(tmp_path), "--seconds", "60") as process:
        while not list(tmp_path.glob(f"{BENCH_DIRECTORY}*")):
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.02)
                pytest.fail(str(process.communicate()))
        process.send_signal(end)
        output, errors = process.communicate()
    assert (process.returncode, output) == (130 if end is signal.SIGINT else 143, b"")
    assert errors == (b"posjournal: interrupted\n" if end is signal.SIGINT else b"posjournal: terminated\n")
    assert names_in(tmp_path) == []
