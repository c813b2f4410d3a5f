"""`posjournal stats`: sizes from the index, growth from times of files.

`python -m tests.cli.test_stats` writes the transcript anew.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from posjournal_async import BytesCodec
from tests.cli.transcripts import (
    TRANSCRIPTS,
    commands_in,
    made_journal,
    made_states,
    posjournal_run,
    printed_by,
    tree_hash,
)

if TYPE_CHECKING:
    from collections.abc import Generator

_TRANSCRIPT = TRANSCRIPTS / "stats.txt"

# 2026-01-31 12:00 UTC, in nanoseconds since 1970.
_NOON = 1_769_860_800 * 10**9


@contextmanager
def states_with_times() -> Generator[None]:
    """Make the journals, each section written a minute after the one before, and look at them from UTC."""
    zone = os.environ.get("TZ")
    os.environ["TZ"] = "UTC"
    time.tzset()
    try:
        with tempfile.TemporaryDirectory() as place, made_states(Path(place)):
            for path in Path(place).glob("*/orders_data/*"):
                set_time(path, _NOON + int(path.name, 16) * 60 * 10**9)
            yield
    finally:
        del os.environ["TZ"]
        if zone is not None:
            os.environ["TZ"] = zone
        time.tzset()


def set_time(path: Path, nanoseconds: int) -> None:
    os.utime(path, ns=(nanoseconds, nanoseconds))


def transcript_of(commands: list[str]) -> str:
    with states_with_times():
        return "\n".join(f"$ {command}\n{printed_by(command)}" for command in commands)


def test_the_transcript_is_what_the_commands_print() -> None:
    """It prints what it is known to print, on journals in all states."""
    known = _TRANSCRIPT.read_text()
    assert transcript_of(commands_in(known)) == known


def test_nothing_is_changed() -> None:
    """No byte, name, mode or time of a change is another afterwards, in any state."""
    with states_with_times():
        before = tree_hash(Path.cwd())
        for state in ("healthy", "torn", "corrupt", "pruned", "empty", "locked"):
            assert posjournal_run("stats", f"{state}/orders").exit_code == 0
        assert tree_hash(Path.cwd()) == before


def test_a_section_that_is_gone_is_a_finding(tmp_path: Path) -> None:
    """What cannot be counted is named on standard error and in the JSON; the rest is counted."""
    made_journal(tmp_path, [b"x" * number for number in range(25)], BytesCodec())
    (tmp_path / "orders_data" / f"{1:016x}").unlink()
    result = posjournal_run("stats", str(tmp_path / "orders"), "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 1
    assert result.stderr == "not counted, since they cannot be read: positions 10 to 19\n"
    assert found["unknown"] == [{"start": 10, "stop": 20}]
    assert found["items"] == 15
    assert found["payload_bytes"] == sum(range(10)) + sum(range(20, 25))


def test_a_section_of_another_journal_is_a_finding(tmp_path: Path) -> None:
    """Its records check out, and are none of this one."""
    for place in ("this", "other"):
        made_journal(tmp_path / place, list(range(25)))
    name = "orders_data/0000000000000001"
    (tmp_path / "this" / name).write_bytes((tmp_path / "other" / name).read_bytes())
    result = posjournal_run("stats", str(tmp_path / "this" / "orders"))
    assert result.stdout.startswith("items     25 items")
    assert result.stderr == "not counted, since they cannot be read: positions 10 to 19\n"
    assert result.exit_code == 1


def test_growth_is_told_in_a_few_rows_and_as_a_whole(tmp_path: Path) -> None:
    """Many sections are put together, so that a large journal fits a screen."""
    made_journal(tmp_path, [b"item"] * 300, BytesCodec())
    for path in (tmp_path / "orders_data").iterdir():
        set_time(path, _NOON + int(path.name, 16) * 10**9)
    growth = json.loads(posjournal_run("stats", str(tmp_path / "orders"), "--json").stdout)["growth"]
    assert [(period["start"], period["stop"]) for period in growth["periods"]] == [
        *((start, start + 30) for start in range(10, 280, 30)),
        (280, 300),
    ]
    assert growth["whole"]["items_per_second"] == 10
    assert {period["items_per_second"] for period in growth["periods"]} == {10}
    text = posjournal_run("stats", str(tmp_path / "orders")).stdout
    assert text.splitlines()[-1].split()[:2] == ["10", "299"]


def test_times_that_do_not_ascend_give_no_growth(tmp_path: Path) -> None:
    """After a copy without the times there is no growth to tell, and it says so."""
    made_journal(tmp_path, [b"item"] * 40, BytesCodec())
    for path in (tmp_path / "orders_data").iterdir():
        set_time(path, _NOON - int(path.name, 16) * 10**9)
    assert posjournal_run("stats", str(tmp_path / "orders")).stdout.endswith(
        "growth not known: the times of the files do not ascend, as after a copy or a repair\n"
    )


if __name__ == "__main__":
    _TRANSCRIPT.write_text(transcript_of(commands_in(_TRANSCRIPT.read_text())))
