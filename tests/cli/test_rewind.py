"""`posjournal rewind`; what it has in common with `prune` is in `test_prune.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.cli.transcripts import agrees, items_of, made_journal, posjournal_run, started
from tests.format.writer import write_journal

if TYPE_CHECKING:
    from pathlib import Path


def test_it_prints_what_its_transcript_says() -> None:
    """On journals in all states, for people and as JSON."""
    agrees("rewind")


def test_the_size_is_the_position_of_the_next_item(tmp_path: Path) -> None:
    """In a process of its own: the item at the size goes, the one before it stays, and appending goes on there."""
    made_journal(tmp_path, list(range(25)))
    with started("rewind", str(tmp_path / "orders"), "7", "--yes") as process:
        assert process.wait() == 0
    with started("append", str(tmp_path / "orders")) as process:
        output, _ = process.communicate(b'"new"\n')
    assert output == b"appended 1 item, position 7\n"
    assert items_of(tmp_path) == [*((position, position) for position in range(7)), (7, "new")]


def test_a_section_is_cut_where_there_are_many(tmp_path: Path) -> None:
    """Above a thousand sections too, whose headers are not read beforehand."""
    write_journal(tmp_path, "orders", items=[b"item"] * 2_002, items_per_section=2)
    for option, verb in (("--dry-run", "would remove"), ("--yes", "removed")):
        result = posjournal_run("rewind", str(tmp_path / "orders"), "1001", option)
        assert result.exit_code == 0, result.stderr
        assert result.stdout.startswith(
            f"{verb} 1,001 items, positions 1001..2001: 500 whole sections and a part of another"
        )
    assert len(list((tmp_path / "orders_data").iterdir())) == 501
