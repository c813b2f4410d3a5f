"""`posjournal rewind`; what it has in common with `prune` is in `test_prune.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.cli.transcripts import agrees, items_of, made_journal, started

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
