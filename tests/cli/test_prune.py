"""`posjournal prune`, and what it has in common with `rewind`: the question."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from functools import partial
from pathlib import Path

import pytest

from posjournal_async.cli import removing
from tests.cli.transcripts import (
    STATES,
    agrees,
    items_of,
    locked,
    made_journal,
    made_states,
    posjournal_run,
    started,
    tree_hash,
)
from tests.format.writer import write_journal


def test_it_prints_what_its_transcript_says() -> None:
    """On journals in all states, for people and as JSON."""
    agrees("prune")


@pytest.mark.parametrize("command", [("prune", "15"), ("rewind", "12")])
def test_a_dry_run_leaves_everything_as_it_was(tmp_path: Path, command: tuple[str, str]) -> None:
    """No byte, no time and no name changes, whatever the state of the journal."""
    name, target = command
    with made_states(tmp_path):
        before = tree_hash(tmp_path)
        results = [posjournal_run(name, f"{state}/orders", target, "--dry-run") for state in STATES]
        assert tree_hash(tmp_path) == before
    expected = [0, 0, 0, 0, 0, 0] if name == "prune" else [0, 0, 1, 0, 1, 0]
    assert [result.exit_code for result in results] == expected


def test_a_dry_run_refuses_what_a_prune_would(tmp_path: Path) -> None:
    """The section that would be the first one has no good header: no journal is opened without that."""
    write_journal(tmp_path, "orders", items=[b"item"] * 25)
    (tmp_path / "orders_data" / f"{1:016x}").write_bytes(bytes(200))
    for option in ("--dry-run", "--yes"):
        result = posjournal_run("prune", str(tmp_path / "orders"), "10", option)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith("posjournal: first section: expected a good header")
    assert posjournal_run("prune", str(tmp_path / "orders"), "20", "--dry-run").exit_code == 0


@pytest.mark.parametrize("command", [("prune", "10"), ("rewind", "15")])
@pytest.mark.parametrize("answer", ["y", "n"])
def test_a_terminal_is_asked(tmp_path: Path, command: tuple[str, str], answer: str) -> None:
    """What goes is told before the question; with no as the answer nothing goes, and the exit code says so."""
    made_journal(tmp_path, list(range(25)))
    before = tree_hash(tmp_path)
    ours, theirs = pty.openpty()
    name, target = command
    try:
        with started(name, str(tmp_path / "orders"), target, stdin=theirs) as process:
            os.write(ours, f"{answer}\n".encode())
            output, errors = process.communicate()
    finally:
        os.close(ours)
        os.close(theirs)
    assert b" removes 10 items, positions " in errors
    assert b"This cannot be undone. Go on? [y/N]" in errors
    if answer == "y":
        assert process.returncode == 0
        assert output.startswith(b"removed 10 items, positions ")
        left = range(10, 25) if name == "prune" else range(15)
        assert items_of(tmp_path) == [(position, position) for position in left]
    else:
        assert (process.returncode, output) == (1, b"")
        assert errors.endswith(b"nothing was changed\n")
        assert tree_hash(tmp_path) == before


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="Linux tells what a process waits for")
@pytest.mark.parametrize("answer", ["Ctrl-C", "Ctrl-D"])
@pytest.mark.parametrize("command", [("prune", "10"), ("repair", "--cut-at", "20")])
def test_no_answer_is_no(tmp_path: Path, command: tuple[str, ...], answer: str) -> None:
    """The end of the input is an answer like no; Ctrl-C is what it is everywhere."""
    made_journal(tmp_path, list(range(25)))
    before = tree_hash(tmp_path)
    ours, theirs = pty.openpty()
    name, *target = command
    try:
        with started(name, str(tmp_path / "orders"), *target, stdin=theirs) as process:
            assert process.stderr is not None
            errors = b""
            while not errors.endswith(b"[y/N]:"):
                errors += process.stderr.read(1)
            if answer == "Ctrl-C":
                while not _waits(process):  # an interruption just before it reads would be met by the next key only
                    os.sched_yield()
                process.send_signal(signal.SIGINT)
            else:
                os.write(ours, b"\x04")
            errors = process.stderr.read()
            process.wait()
    finally:
        os.close(ours)
        os.close(theirs)
    if answer == "Ctrl-C":
        assert (errors.lstrip(), process.returncode) == (b"posjournal: interrupted\n", 130)
    else:
        assert (errors.lstrip(), process.returncode) == (b"nothing was changed\n", 1)
    assert tree_hash(tmp_path) == before


def _waits(process: subprocess.Popen[bytes]) -> bool:
    """Say whether the system has it sleep, as while it reads from a terminal (proc_pid_stat(5))."""
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


@pytest.mark.parametrize("command", [("prune", "10"), ("repair", "--cut-at", "20")])
def test_where_nobody_can_be_asked_it_is_a_matter_of_usage(tmp_path: Path, command: tuple[str, ...]) -> None:
    """With standard input closed too, and nothing is changed."""
    made_journal(tmp_path, list(range(25)))
    before = tree_hash(tmp_path)
    name, *target = command
    for options in ({"stdin": subprocess.DEVNULL}, {"preexec_fn": partial(os.close, 0)}):
        with started(name, str(tmp_path / "orders"), *target, **options) as process:
            _, errors = process.communicate()
        assert process.returncode == 2
        assert b"standard input is no terminal to ask at" in errors
    assert tree_hash(tmp_path) == before


@pytest.mark.parametrize("command", [("prune", "10"), ("rewind", "15")])
def test_who_has_it_open_is_told_before_the_question(tmp_path: Path, command: tuple[str, str]) -> None:
    """Nobody has to think about an answer that cannot be carried out."""
    made_journal(tmp_path, list(range(25)))
    with locked(tmp_path):
        result = posjournal_run(command[0], str(tmp_path / "orders"), command[1])
    assert result.exit_code == 3
    assert f"process {os.getpid()}" in result.stderr


def test_a_codec_that_nobody_knows_is_no_hindrance(tmp_path: Path) -> None:
    """What is removed is not looked at."""
    made_journal(tmp_path, [b"x"] * 25, Odd())
    assert posjournal_run("prune", str(tmp_path / "orders"), "10", "--yes").exit_code == 0
    assert posjournal_run("rewind", str(tmp_path / "orders"), "12", "--yes").exit_code == 0
    result = posjournal_run("prune", str(tmp_path / "orders"), "20", "--dry-run")
    assert result.stdout == "nothing to remove: 2 items, positions 10..11\n"


class Odd:
    """A codec that no command knows."""

    name = "odd"

    def encode(self, item: bytes) -> bytes:
        return item

    def decode(self, data: bytes) -> bytes:
        return data


def test_the_bytes_that_were_told_are_those_that_come_back(tmp_path: Path) -> None:
    """What a dry run says of a closed journal is what its files are shorter by."""
    made_journal(tmp_path, [{"order": number} for number in range(35)])
    for name, target in (("prune", "10"), ("rewind", "27"), ("rewind", "20"), ("prune", "20")):
        before = _length_below(tmp_path)
        told = posjournal_run(name, str(tmp_path / "orders"), target, "--dry-run").stdout
        done = posjournal_run(name, str(tmp_path / "orders"), target, "--yes").stdout
        went = before - _length_below(tmp_path)
        assert went > 0
        assert f", {went:,} B\n" in told
        assert done.splitlines()[0] == told.splitlines()[0].replace("would remove", "removed")


def _length_below(root: Path) -> int:
    return sum(file.stat().st_size for file in root.glob("*/*"))


@pytest.mark.parametrize("command", [("prune", "10"), ("rewind", "15")])
def test_what_changed_after_it_was_shown_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, str]
) -> None:
    """While somebody thinks about the answer, another process may open the journal, append to it, and close it."""
    made_journal(tmp_path, list(range(25)))

    def append_meanwhile(*_: object) -> None:
        assert posjournal_run("append", str(tmp_path / "orders"), text="25\n").exit_code == 0

    monkeypatch.setattr(removing, "_ask", append_meanwhile)
    result = posjournal_run(command[0], str(tmp_path / "orders"), command[1])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "holds 26 items, positions 0..25 now: nothing was removed" in result.stderr
    assert items_of(tmp_path) == [(position, position) for position in range(26)]
