"""`posjournal ls`: each state that a section can be in."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.transcripts import agrees, posjournal_run
from tests.format.writer import checkpoint_slot, data_header, path_of
from tests.recovery.journals import change, lay_out

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FOREIGN = data_header(journal_id=1, section=1, items_per_section=10, first=10, salt=3)
OTHER_VERSION = data_header(journal_id=1, section=1, items_per_section=10, first=10, salt=3, version=2)


def test_it_prints_what_its_transcript_says() -> None:
    """On journals in all states, for people and as JSON."""
    agrees("ls")


def sections_of(root: Path) -> tuple[dict[int, Any], int]:
    result = posjournal_run("ls", str(root / "orders"), "--json")
    return {row["section"]: row for row in json.loads(result.stdout)["sections"]}, result.exit_code


def moved(root: Path, source: int, target: int) -> None:
    path_of(root, "orders", "data", source).rename(path_of(root, "orders", "data", target))


@pytest.mark.parametrize(
    ("harm", "section", "state", "code"),
    [
        (lambda _: None, 0, "sealed", 0),
        (lambda _: None, 2, "tail", 0),
        (lambda root: change(root, "data", 2, lambda blob: blob + b"\0" * 9), 2, "torn", 0),
        (lambda root: change(root, "data", 2, lambda blob: blob[:-1]), 2, "torn", 0),
        (lambda root: change(root, "offsets", 1, lambda _: None), 1, "unindexed", 0),
        (lambda root: change(root, "offsets", 1, lambda blob: blob[:-1]), 1, "unindexed", 0),
        (lambda root: change(root, "data", 3, lambda _: b"PJRNDATA"), 3, "interrupted", 0),
        (lambda root: change(root, "data", 7, lambda _: FOREIGN), 7, "foreign", 1),
        (lambda root: change(root, "offsets", 7, lambda _: b""), 7, "beyond", 0),
        (lambda root: change(root, "data", 1, lambda _: None), 1, "missing", 1),
        (lambda root: moved(root, 1, 3), 1, "missing", 1),
        (lambda root: change(root, "data", 0, lambda blob: b"\0" + blob[1:]), 0, "damaged", 1),
        (
            lambda root: change(root, "data", 1, lambda blob: blob[:63] + bytes([blob[63] ^ 1]) + blob[64:]),
            1,
            "damaged",
            1,
        ),
        (lambda root: change(root, "data", 1, lambda _: b""), 1, "damaged", 1),
        (lambda root: change(root, "data", 2, lambda blob: blob[:80]), 2, "damaged", 1),
        (lambda root: change(root, "data", 1, lambda blob: FOREIGN + blob[64:]), 1, "foreign", 1),
        (lambda root: change(root, "data", 1, lambda blob: OTHER_VERSION + blob[64:]), 1, "foreign", 1),
    ],
)
def test_a_section_is_what_its_files_say(
    tmp_path: Path, harm: Callable[[Path], None], section: int, state: str, code: int
) -> None:
    """What a crash explains is shown, and what no crash explains ends with the exit code of findings."""
    lay_out(tmp_path, 25, durable=22)
    harm(tmp_path)
    found, exit_code = sections_of(tmp_path)
    assert (found[section]["state"], exit_code) == (state, code)
    for other in {0, 1, 2} - {section}:
        assert found[other]["state"] in {"sealed", "tail"}


def test_what_is_behind_a_gap_above_the_durable_size_lies_beyond(tmp_path: Path) -> None:
    """Opening the journal removes it; its items do not count."""
    lay_out(tmp_path, 35, durable=10)
    change(tmp_path, "data", 1, lambda _: None)
    found, code = sections_of(tmp_path)
    assert [(number, row["state"], row["items"]) for number, row in found.items()] == [
        (0, "sealed", 10),
        (1, "beyond", 0),
        (2, "beyond", 0),
        (3, "beyond", 0),
    ]
    assert code == 0


def test_what_a_prune_has_not_removed_yet_is_a_leftover(tmp_path: Path) -> None:
    """The boundary counts, not the files."""
    lay_out(tmp_path, 35)
    slot = checkpoint_slot(sequence=2, journal_id=0x0123_4567_89AB_CDEF, items_per_section=10, durable=35, boundary=20)
    change(tmp_path, "checkpoint", 0, lambda first: first + slot)
    found, code = sections_of(tmp_path)
    assert [row["state"] for row in found.values()] == ["leftover", "leftover", "sealed", "tail"]
    assert code == 0


def test_sections_that_are_missing_are_one_row(tmp_path: Path) -> None:
    """However many there are: a checkpoint may say anything."""
    lay_out(tmp_path, 15)
    slot = checkpoint_slot(
        sequence=2, journal_id=0x0123_4567_89AB_CDEF, items_per_section=10, durable=2**62, boundary=0
    )
    change(tmp_path, "checkpoint", 0, lambda first: first + slot)
    found, code = sections_of(tmp_path)
    assert list(found) == [0, 1, 2]
    assert (found[2]["state"], found[2]["through"], found[2]["stop"]) == ("missing", (2**62 - 1) // 10, 2**62)
    assert code == 1
    assert f"2-{(2**62 - 1) // 10}" in posjournal_run("ls", str(tmp_path / "orders")).stdout


def test_a_blob_that_is_no_section_is_named(tmp_path: Path) -> None:
    """Opening the journal would refuse it."""
    lay_out(tmp_path, 5)
    (tmp_path / "orders_data" / "00ff").write_bytes(b"")
    result = posjournal_run("ls", str(tmp_path / "orders"))
    assert (result.exit_code, result.stderr) == (1, "wrong: orders_data/00ff: its name is no section number\n")
