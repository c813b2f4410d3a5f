"""`posjournal rewind`; what it has in common with `prune` is in `test_prune.py`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from posjournal_async import FileStorage, Journal
from posjournal_async.cli import removing
from posjournal_async.inspection.survey import survey
from tests.cli.transcripts import agrees, items_of, made_journal, posjournal_run, started
from tests.format.writer import write_journal
from tests.journals import damage

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from posjournal_async.inspection.states import Survey


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


def test_a_dry_run_refuses_what_a_rewind_to_the_start_of_a_section_would(tmp_path: Path) -> None:
    """The section before is not cut, but it will be the last one, which opening reads."""
    write_journal(tmp_path, "orders", items=[b"item"] * 25)
    asyncio.run(damage(FileStorage(tmp_path), 1, 64 + 9 * 12))
    for option in ("--dry-run", "--yes"):
        result = posjournal_run("rewind", str(tmp_path / "orders"), "20", option)
        assert result.exit_code == 1
        assert "position 19)" in result.stderr
        assert result.stdout == ""


def test_a_dry_run_beside_a_rewind_tells_of_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The section to cut has become shorter between two looks: it is what a live writer has left now that counts."""
    made_journal(tmp_path, list(range(25)))

    async def survey_and_rewind(*arguments: Any) -> Survey:
        seen = await survey(*arguments)
        monkeypatch.undo()
        async with Journal.open(tmp_path / "orders", items_per_section=10) as journal:
            await journal.rewind(11)
        return seen

    monkeypatch.setattr(removing, "survey", survey_and_rewind)
    result = posjournal_run("rewind", str(tmp_path / "orders"), "12", "--dry-run")
    assert result.stderr == "posjournal: rewind: expected a size of at most 11 items, found 12\n"
    assert result.exit_code == 1
