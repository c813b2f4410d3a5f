"""`posjournal repair`."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
from typing import TYPE_CHECKING

import pytest

from tests.cli.transcripts import (
    STATES,
    agrees,
    items_of,
    made_journal,
    made_states,
    posjournal_run,
    started,
    tree_hash,
)
from tests.format.writer import checkpoint_blob, checkpoint_slot, path_of, write_journal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def torn_journal(root: Path) -> None:
    """Make a journal whose last section ends in half a record."""
    made_journal(root, list(range(25)))
    with (root / "orders_data" / f"{2:016x}").open("ab") as file:
        file.write(b"\x09\0\0\0half")


def quarantines(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if "quarantine" in path.name)


def test_it_prints_what_its_transcript_says() -> None:
    """On journals in all states, for people and as JSON."""
    agrees("repair")


@pytest.mark.parametrize("options", [(), ("--indexes",), ("--cut-at", "5", "--json")])
def test_a_dry_run_leaves_everything_as_it_was(tmp_path: Path, options: tuple[str, ...]) -> None:
    """No byte, no time and no name changes, whatever the state of the journal."""
    with made_states(tmp_path):
        (tmp_path / "torn" / "orders_offsets" / f"{2:016x}").unlink()
        (tmp_path / "corrupt" / "orders_checkpoint" / ("0" * 16)).unlink()
        before = tree_hash(tmp_path)
        codes = [posjournal_run("repair", f"{state}/orders", "--dry-run", *options).exit_code for state in STATES]
        assert tree_hash(tmp_path) == before
    assert codes == ([0, 0, 0, 1, 1, 3] if "--cut-at" in options else [0, 0, 0, 0, 0, 3])


def test_it_does_what_its_dry_run_said(tmp_path: Path) -> None:
    """The plan is the same to the letter."""
    torn_journal(tmp_path)
    path = str(tmp_path / "orders")
    planned = json.loads(posjournal_run("repair", path, "--dry-run", "--json").stdout)
    done = json.loads(posjournal_run("repair", path, "--yes", "--json").stdout)
    assert done["plan"] == planned["plan"]
    assert done["done"]["bytes_cut"] == planned["plan"]["bytes_cut"] == 8
    assert items_of(tmp_path) == [(position, position) for position in range(25)]


def test_what_goes_is_beside_the_journal_unless_told(tmp_path: Path) -> None:
    """Under a name that says when, and that no journal can have."""
    torn_journal(tmp_path)
    assert posjournal_run("repair", str(tmp_path / "orders"), "--yes").exit_code == 0
    [name] = quarantines(tmp_path)
    assert re.fullmatch(r"orders\.quarantine-\d{8}T\d{6}Z", name)
    assert (tmp_path / name / "orders_data" / f"{2:016x}.from-109").read_bytes() == b"\x09\0\0\0half"
    assert posjournal_run("info", str(tmp_path / name)).exit_code == 2


@pytest.mark.parametrize("answer", ["y", "n"])
def test_a_terminal_is_asked(tmp_path: Path, answer: str) -> None:
    """The plan is told before the question; with no as the answer nothing changes, and the exit code says so."""
    torn_journal(tmp_path)
    before = tree_hash(tmp_path)
    ours, theirs = pty.openpty()
    try:
        with started("repair", str(tmp_path / "orders"), stdin=theirs) as process:
            os.write(ours, f"{answer}\n".encode())
            _, errors = process.communicate()
    finally:
        os.close(ours)
        os.close(theirs)
    assert errors.startswith(b"cut      orders_data, section 2: 8 B from byte 109 on\nwhat goes is copied to ")
    assert process.returncode == (0 if answer == "y" else 1)
    assert len(quarantines(tmp_path)) == (answer == "y")
    if answer == "n":
        assert tree_hash(tmp_path) == before


@pytest.mark.parametrize("place", ["there", ".", "/"])
def test_a_quarantine_that_is_there_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """Nothing is repaired then."""
    torn_journal(tmp_path)
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    before = tree_hash(tmp_path)
    result = posjournal_run("repair", "orders", "--yes", "--quarantine", place)
    assert (result.exit_code, result.stdout) == (4, "")
    assert f"{place}: file exists" in result.stderr
    assert tree_hash(tmp_path) == before


def test_where_opening_refuses_it_says_what_can_be_done(tmp_path: Path) -> None:
    """The exit code says that something is found, and nothing is changed."""
    made_journal(tmp_path, list(range(25)))
    (tmp_path / "orders_data" / f"{1:016x}").unlink()
    before = tree_hash(tmp_path)
    path = str(tmp_path / "orders")
    result = posjournal_run("repair", path, "--yes")
    assert (result.exit_code, result.stdout) == (1, "")
    for command in ("verify", "cat", "repair"):
        assert f"posjournal {command} {path}" in result.stderr
    assert tree_hash(tmp_path) == before
    assert posjournal_run("repair", path, "--yes", "--cut-at", "10").exit_code == 0
    assert items_of(tmp_path) == [(position, position) for position in range(10)]


@pytest.mark.parametrize("position", [3, 2])
def test_a_cut_says_which_items_sync_data_may_have_made_durable(tmp_path: Path, position: int) -> None:
    """They lie above the durable size of the checkpoint, as a SIGKILL leaves them, and go with the cut."""
    write_journal(tmp_path, "orders", items=[b"item"] * 8, durable=3)
    path = str(tmp_path / "orders")
    said = posjournal_run("repair", path, "--cut-at", str(position), "--dry-run").stdout
    lost = [" ".join(line.split()) for line in said.splitlines() if "lose" in line]
    above = (
        "lose 5 items, positions 3..7, above the durable size of the checkpoint: sync_data may have made them durable"
    )
    assert lost == (["lose 1 item, position 2, which were durable", above] if position == 2 else [above])
    document = json.loads(posjournal_run("repair", path, "--cut-at", str(position), "--yes", "--json").stdout)
    assert (document["plan"]["positions_lost"], document["plan"]["positions_lost_above"]) == (3 - position, 5)
    assert "lose     no item\n" in posjournal_run("repair", path, "--cut-at", str(position), "--dry-run").stdout


@pytest.mark.parametrize("options", [(), ("--cut-at", "20")])
def test_a_lost_first_index_is_made_anew_rather_than_cut_away(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Opening refuses the journal, and what is told mends it without losing an item."""
    made_journal(tmp_path, list(range(25)))
    (tmp_path / "orders_offsets" / f"{0:016x}").unlink()
    path = str(tmp_path / "orders")
    result = posjournal_run("repair", path, "--yes", *options)
    assert result.exit_code == 1
    assert f"posjournal repair {path} --indexes " in result.stderr
    assert "--cut-at" not in result.stderr
    assert posjournal_run("repair", path, "--yes", "--indexes").exit_code == 0
    assert items_of(tmp_path) == [(position, position) for position in range(25)]


def test_a_lost_index_and_a_lost_blob_are_mended_together(tmp_path: Path) -> None:
    """What is told, followed step by step, comes to an end."""
    made_journal(tmp_path, list(range(35)))
    (tmp_path / "orders_offsets" / f"{0:016x}").unlink()
    (tmp_path / "orders_data" / f"{2:016x}").unlink()
    path = str(tmp_path / "orders")
    for options, told in (
        ((), "--cut-at POSITION"),
        (("--cut-at", "20"), "--indexes makes it anew"),
        (("--indexes",), "--cut-at POSITION"),
    ):
        result = posjournal_run("repair", path, "--yes", *options)
        assert result.exit_code == 1
        assert told in result.stderr
    assert "can be given beside a cut" in posjournal_run("repair", path, "--yes", "--cut-at", "20").stderr
    assert posjournal_run("repair", path, "--yes", "--cut-at", "20", "--indexes").exit_code == 0
    assert items_of(tmp_path) == [(number, number) for number in range(20)]


@pytest.mark.parametrize("what", ["an older checkpoint", "a lost blob"])
def test_data_that_begins_later_than_the_checkpoint_says_has_two_ways_out(tmp_path: Path, what: str) -> None:
    """Both are told: to go by the data, which keeps all items, or to begin with none."""
    packed = [bytes([number]) for number in range(25)]  # as msgpack has them
    write_journal(tmp_path, "orders", items=packed, items_per_section=10, durable=0, codec="msgpack")
    (tmp_path / "orders_data" / f"{0:016x}").unlink()
    if what == "an older checkpoint":  # of before a prune
        (tmp_path / "orders_offsets" / f"{0:016x}").unlink()
    path = str(tmp_path / "orders")
    result = posjournal_run("repair", path, "--yes")
    assert result.exit_code == 1
    assert f"With {path}_checkpoint moved away" in result.stderr
    assert f"posjournal repair {path} --cut-at 0 " in result.stderr
    cut = posjournal_run("repair", path, "--dry-run", "--cut-at", "0").stdout
    assert "drop     15 items behind a gap" in cut
    assert "lose     no item" not in cut
    (tmp_path / "orders_checkpoint").rename(tmp_path / "away")
    assert posjournal_run("repair", path, "--yes").exit_code == 0
    assert posjournal_run("verify", path).exit_code == 0
    assert items_of(tmp_path) == [(number, number) for number in range(10, 25)]


def test_a_checkpoint_of_before_a_reset_is_said_to_be_moved_away(tmp_path: Path) -> None:
    """No cut helps: it goes by that checkpoint."""
    made_journal(tmp_path, list(range(25)))
    slot = checkpoint_slot(sequence=9, journal_id=1, items_per_section=10, codec="msgpack", durable=30, boundary=30)
    path_of(tmp_path, "orders", "checkpoint").write_bytes(checkpoint_blob([slot]))
    path = str(tmp_path / "orders")
    for options in ((), ("--cut-at", "30")):
        result = posjournal_run("repair", path, "--yes", *options)
        assert result.exit_code == 1
        assert f"With {path}_checkpoint moved away" in result.stderr
        assert "--cut-at" not in result.stderr
    (tmp_path / "orders_checkpoint").rename(tmp_path / "away")
    assert posjournal_run("repair", path, "--yes").exit_code == 0
    assert items_of(tmp_path) == [(number, number) for number in range(25)]


@pytest.mark.parametrize("options", [(), ("--cut-at", "20")])
def test_a_lost_checkpoint_without_the_first_header_has_a_way_out(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Neither cat nor a cut helps, since nothing says what journal it is; the next blob does."""
    made_journal(tmp_path, list(range(25)))
    (tmp_path / "orders_checkpoint").rename(tmp_path / "away")
    first = path_of(tmp_path, "orders", "data", 0)
    first.write_bytes(b"?" + first.read_bytes()[1:])
    path = str(tmp_path / "orders")
    result = posjournal_run("repair", path, "--yes", *options)
    assert result.exit_code == 1
    assert f"With that one moved out of {path}_data" in result.stderr
    assert "--cut-at" not in result.stderr
    assert "posjournal cat" not in result.stderr
    first.rename(tmp_path / "damaged")
    assert posjournal_run("repair", path, "--yes").exit_code == 0
    assert items_of(tmp_path) == [(number, number) for number in range(10, 25)]


def test_damage_in_the_records_too_is_not_said_to_be_mended_by_making_indexes(tmp_path: Path) -> None:
    """Once that was tried, and the first index cannot be made, the other ways out are told."""
    made_journal(tmp_path, list(range(25)))
    (tmp_path / "orders_offsets" / f"{0:016x}").unlink()
    data = tmp_path / "orders_data" / f"{0:016x}"
    data.write_bytes(data.read_bytes()[:-1] + b"?")
    result = posjournal_run("repair", str(tmp_path / "orders"), "--yes", "--indexes")
    assert result.exit_code == 1
    assert "--cut-at POSITION" in result.stderr


def test_a_cut_inside_a_missing_section_says_where_to_cut(tmp_path: Path) -> None:
    """It is damage as any other: a finding with its position, and nothing is changed."""
    made_journal(tmp_path, list(range(35)))
    (tmp_path / "orders_data" / f"{1:016x}").unlink()
    before = tree_hash(tmp_path)
    for position in (11, 15, 19):
        result = posjournal_run("repair", str(tmp_path / "orders"), "--yes", "--cut-at", str(position))
        assert (result.exit_code, result.stdout) == (1, "")
        assert "end the journal at 10 or before" in result.stderr
        assert tree_hash(tmp_path) == before


def has_begun(root: Path) -> bool:
    return any(name.endswith(".partial") for name in quarantines(root))


def has_set_aside(root: Path) -> bool:
    return any(not name.endswith(".partial") for name in quarantines(root))


def has_removed(root: Path) -> bool:
    return len([*(root / "orders_data").iterdir()]) < 20


def has_removed_indexes(root: Path) -> bool:
    return len([*(root / "orders_offsets").iterdir()]) < 20


@pytest.mark.parametrize("moment", [has_begun, has_set_aside, has_removed, has_removed_indexes])
def test_a_kill_in_the_middle_leaves_a_journal(tmp_path: Path, moment: Callable[[Path], bool]) -> None:
    """SIGKILL as soon as something has happened: it opens, nothing before the cut is lost, and a second run ends it."""
    made_journal(tmp_path, list(range(200)))
    path = str(tmp_path / "orders")
    with started("repair", path, "--cut-at", "15", "--yes") as process:
        while process.poll() is None and not moment(tmp_path):
            os.sched_yield()
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert moment(tmp_path) or process.returncode == 0
    found = items_of(tmp_path)
    assert found == [(position, position) for position in range(len(found))]
    assert 15 <= len(found) <= 200
    assert posjournal_run("repair", path, "--cut-at", "15", "--yes", "--quarantine", f"{path}.again").exit_code == 0
    assert items_of(tmp_path) == [(position, position) for position in range(15)]
    assert posjournal_run("verify", path).exit_code == 0


def test_an_interrupt_before_anything_is_cut_changes_nothing(tmp_path: Path) -> None:
    """Ctrl-C while what goes is copied: no part of the copy is left, and exit code 130 says so."""
    made_journal(tmp_path, [b"." * 6_000] * 200)
    directories = sorted(tmp_path.iterdir())
    before = [tree_hash(directory) for directory in directories]
    with started("repair", str(tmp_path / "orders"), "--cut-at", "0", "--yes") as process:
        while process.poll() is None and not has_begun(tmp_path):
            os.sched_yield()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    if not has_set_aside(tmp_path):
        assert (process.returncode, errors) == (130, b"posjournal: interrupted\n")
        assert sorted(tmp_path.iterdir()) == directories
        assert [tree_hash(directory) for directory in directories] == before
