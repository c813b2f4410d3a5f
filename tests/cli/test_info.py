"""`posjournal info`."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from posjournal_async import Config, Context, FileStorage, Journal, MsgpackCodec
from tests.cli.transcripts import agrees, made_journal, posjournal_run
from tests.format.writer import checkpoint_slot, write_journal
from tests.recovery.journals import change, lay_out

if TYPE_CHECKING:
    from pathlib import Path


def info_of(path: Path, *options: str, code: int = 0) -> Any:
    """What `info --json` prints, once it ended with this code."""
    result = posjournal_run("info", str(path), "--json", *options)
    assert result.exit_code == code, result.stderr
    return json.loads(result.stdout)


def test_it_prints_what_its_transcript_says() -> None:
    """On journals in all states, for people and as JSON."""
    agrees("info")


def test_what_the_checkpoint_does_not_vouch_for_is_counted_apart(tmp_path: Path) -> None:
    """Records above the durable size are in the size, and not in the durable size."""
    lay_out(tmp_path, 25, durable=22)
    found = info_of(tmp_path / "orders")
    assert (found["durable_size"], found["size"], found["items"]) == (22, 25, 25)
    assert "25, 3 of them above the durable size" in posjournal_run("info", str(tmp_path / "orders")).stdout


def test_a_lost_checkpoint_is_a_finding_and_the_data_stands_in(tmp_path: Path) -> None:
    """Both slots gone: the bounds are those of the data, and the exit code says that something is wrong."""
    lay_out(tmp_path, 25)
    change(tmp_path, "checkpoint", 0, lambda _: b"\1" * 8192)
    found = info_of(tmp_path / "orders", code=1)
    assert (found["boundary"], found["durable_size"], found["size"]) == (0, 20, 25)
    assert found["findings"] == ["the checkpoint is lost; what the data says stands in for it"]


def test_one_torn_slot_is_told_and_no_finding(tmp_path: Path) -> None:
    """A crash may tear a slot: the other one counts."""
    lay_out(tmp_path, 25)
    change(tmp_path, "checkpoint", 0, lambda slot: slot + b"\1" * 4096)
    assert info_of(tmp_path / "orders")["damaged_slots"] == 1
    assert "one slot of the checkpoint is torn" in posjournal_run("info", str(tmp_path / "orders")).stdout


def test_a_reset_in_progress_is_told(tmp_path: Path) -> None:
    """What is still there is about to go: the journal is empty at the target."""
    lay_out(tmp_path, 25)
    slot = checkpoint_slot(sequence=2, journal_id=9, items_per_section=10, durable=40, boundary=40, reset=40)
    change(tmp_path, "checkpoint", 0, lambda first: first + slot)
    found = info_of(tmp_path / "orders")
    assert (found["reset_target"], found["boundary"], found["size"], found["items"]) == (40, 40, 40, 0)
    assert found["states"] == {"leftover": 3}


def test_a_checkpoint_of_another_version_is_refused(tmp_path: Path) -> None:
    """What it says cannot be known: that is a matter of usage, not of damage."""
    lay_out(tmp_path, 5)
    slot = checkpoint_slot(sequence=2, journal_id=9, items_per_section=10, durable=5, boundary=0, version=2)
    change(tmp_path, "checkpoint", 0, lambda first: first + slot)
    result = posjournal_run("info", str(tmp_path / "orders"))
    assert (result.exit_code, result.stdout) == (2, "")
    assert "format version: expected 1, found 2" in result.stderr


def test_nothing_but_a_torn_first_checkpoint_is_an_empty_journal(tmp_path: Path) -> None:
    """As opening it would find."""
    lay_out(tmp_path, 0)
    change(tmp_path, "checkpoint", 0, lambda slot: slot[:40])
    found = info_of(tmp_path / "orders")
    assert (found["size"], found["codec"], found["sections"], found["findings"]) == (0, None, 0, [])


def test_data_that_nothing_explains_is_a_finding(tmp_path: Path) -> None:
    """Neither a checkpoint nor a header says what journal it is."""
    lay_out(tmp_path, 5)
    change(tmp_path, "checkpoint", 0, lambda _: None)
    change(tmp_path, "data", 0, lambda blob: b"\0" + blob[1:])
    found = info_of(tmp_path / "orders", code=1)
    assert found["states"] == {"damaged": 1}
    assert found["findings"][-1].startswith("opening it would fail: checkpoint: ")


def test_the_compression_ratio_of_all_items_is_exact(tmp_path: Path) -> None:
    """A sample says that it is one; --exact reads all, and gives what the items and their records say."""
    items = [{"text": "x" * (number % 50)} for number in range(3_000)]

    async def make() -> None:
        config: Config[Any] = Config(partition="orders", items_per_section=100, compression=3)
        async with await Journal.init(Context(FileStorage(tmp_path)), config) as journal:
            await journal.append_many(items)

    asyncio.run(make())
    encoded = sum(len(MsgpackCodec().encode(item)) for item in items)
    stored = sum(path.stat().st_size - 64 for path in (tmp_path / "orders_data").iterdir()) - 8 * len(items)
    exact = info_of(tmp_path / "orders", "--exact")["compression"]
    assert (exact["ratio"], exact["items"], exact["is_whole"]) == (round(encoded / stored, 3), 3_000, True)
    sample = info_of(tmp_path / "orders")["compression"]
    assert sample["items"] == 8 * 100
    assert not sample["is_whole"]
    assert 1 < sample["ratio"] < 4


def test_headers_of_many_sections_are_read_on_request(tmp_path: Path) -> None:
    """Above a thousand sections it says that it has not read them; with --headers a damaged one is found."""
    write_journal(tmp_path, "orders", items=[b""] * 1_001, items_per_section=1)
    change(tmp_path, "data", 500, lambda blob: b"\0" + blob[1:])
    assert info_of(tmp_path / "orders")["headers_read"] is False
    assert info_of(tmp_path / "orders", "--headers", code=1)["states"] == {"sealed": 1_000, "damaged": 1}
    assert "the headers of 1,001 sections were not read" in posjournal_run("info", str(tmp_path / "orders")).stderr


@pytest.mark.parametrize(
    "command",
    [("info",), ("info", "--exact"), ("info", "--json"), ("ls",), ("cat",), ("tail",), ("stats",), ("verify",)],
)
def test_a_stray_file_of_the_largest_number_is_a_finding(tmp_path: Path, command: tuple[str, ...]) -> None:
    """With the checkpoint lost it makes a journal of more positions than `len` can say; each command ends."""
    made_journal(tmp_path, list(range(25)))
    (tmp_path / "orders_checkpoint" / f"{0:016x}").unlink()
    (tmp_path / "orders_data" / f"{2**64 - 1:016x}").touch()
    result = posjournal_run(*command, str(tmp_path / "orders"))
    assert (result.exit_code, type(result.exception)) == (1, SystemExit)
    assert len(result.stderr.splitlines()) < 10
