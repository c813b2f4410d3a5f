"""`posjournal verify`."""

from __future__ import annotations

import json
import os
import pty
import signal
from typing import TYPE_CHECKING

from tests.cli.transcripts import STATES, agrees, made_journal, made_states, posjournal_run, started, tree_hash

if TYPE_CHECKING:
    from pathlib import Path


def test_it_prints_what_its_transcript_says() -> None:
    """On journals in all states, for people and as JSON."""
    agrees("verify")


def test_it_leaves_everything_as_it_was(tmp_path: Path) -> None:
    """No byte, no time and no name changes, whatever the state of the journal."""
    with made_states(tmp_path):
        (tmp_path / "torn" / "orders_offsets" / f"{2:016x}").unlink()
        (tmp_path / "corrupt" / "orders_checkpoint" / ("0" * 16)).unlink()
        before = tree_hash(tmp_path)
        codes = [posjournal_run("verify", f"{state}/orders", "--deep").exit_code for state in STATES]
        assert tree_hash(tmp_path) == before
    assert codes == [0, 1, 1, 0, 0, 0]


def test_it_needs_no_right_to_write(tmp_path: Path) -> None:
    """A directory that is read-only is no hindrance."""
    made_journal(tmp_path, list(range(25)))
    directories = [tmp_path, *tmp_path.iterdir()]
    for directory in directories:
        directory.chmod(0o500)
    try:
        assert posjournal_run("verify", str(tmp_path / "orders")).exit_code == 0
    finally:
        for directory in directories:
            directory.chmod(0o700)


def test_each_line_of_its_json_is_a_document(tmp_path: Path) -> None:
    """Findings first, as they come, and one line at the end that sums them up."""
    made_journal(tmp_path, list(range(25)))
    (tmp_path / "orders_offsets" / f"{1:016x}").unlink()
    with (tmp_path / "orders_data" / f"{2:016x}").open("ab") as file:
        file.write(bytes(5))
    result = posjournal_run("verify", str(tmp_path / "orders"), "--json")
    *findings, last = map(json.loads, result.stdout.splitlines())
    assert [(finding["schema"], finding["severity"]) for finding in findings] == [
        ("posjournal.finding/1", "stale"),
        ("posjournal.finding/1", "torn"),
    ]
    assert last["schema"] == "posjournal.verify/1"
    assert last["findings"] == {"torn": 1, "stale": 1, "corrupt": 0}
    assert result.exit_code == 1


def test_what_it_names_mends_what_it_found(tmp_path: Path) -> None:
    """The command in its last line, with --yes for --dry-run, leaves nothing to be found."""
    made_journal(tmp_path, list(range(25)))
    (tmp_path / "orders_offsets" / f"{0:016x}").write_bytes(b"")
    checkpoint = tmp_path / "orders_checkpoint" / ("0" * 16)
    checkpoint.write_bytes(b"?" + checkpoint.read_bytes()[1:])
    path = str(tmp_path / "orders")
    told = posjournal_run("verify", path).stderr.splitlines()[-1]
    named = told.removeprefix("what mends this: posjournal ").replace("--dry-run", "--yes").split()
    assert posjournal_run(*named).exit_code == 0
    assert posjournal_run("verify", path).exit_code == 0


def test_a_terminal_gets_a_bar_and_keeps_the_findings(tmp_path: Path) -> None:
    """The bar goes away, and what is printed to a pipe is not drawn into it."""
    made_journal(tmp_path, list(range(25)))
    with (tmp_path / "orders_data" / f"{2:016x}").open("ab") as file:
        file.write(bytes(5))
    ours, theirs = pty.openpty()
    try:
        with started("verify", str(tmp_path / "orders"), stderr=theirs) as process:
            output, _ = process.communicate()
    finally:
        os.close(theirs)
        os.close(ours)
    lines = output.decode().splitlines()
    assert [line.split()[0] for line in lines] == ["severity", "torn", "checked"]


def test_an_interrupt_ends_it_with_a_word(tmp_path: Path) -> None:
    """Ctrl-C: no traceback, and exit code 130. It cannot have ended before: the pipe does not hold what it finds."""
    made_journal(tmp_path, [0] * 1_500, items_per_section=1_500)
    file = tmp_path / "orders_data" / f"{0:016x}"
    content = bytearray(file.read_bytes())
    content[64 + 8 :: 18] = b"?" * len(content[64 + 8 :: 18])  # the one byte of every second payload
    file.write_bytes(content)
    with started("verify", str(tmp_path / "orders"), "--json") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert (process.returncode, errors) == (130, b"posjournal: interrupted\n")
