"""`posjournal tail`: the newest items, and with -f what a writer in another process does."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from posjournal_async.cli.exits import Code
from tests.cli.following import Lines, Reading, Writer, item_of
from tests.cli.transcripts import agrees, made_journal, made_states, posjournal_run, started, tree_hash

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

STATES = ("healthy", "torn", "corrupt", "pruned", "empty", "locked")


def following(path: Path | str, *arguments: str) -> tuple[str, ...]:
    return ("tail", str(path), "-f", "--interval", "0.001", *arguments)


def interrupted(process: subprocess.Popen[bytes]) -> tuple[str, str]:
    """Press Ctrl-C, and return the rest of what it says, and its messages."""
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert process.stderr is not None
    os.set_blocking(process.stdout.fileno(), True)
    output, errors = process.stdout.read(), process.stderr.read()
    assert process.wait() == Code.INTERRUPTED
    return output.decode(), errors.decode()


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stop a process until it gets SIGCONT; it does nothing any more when this returns."""
    process.send_signal(signal.SIGSTOP)
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)


def test_the_transcript_is_what_the_commands_print() -> None:
    """It prints what it is known to print, on journals in all states."""
    agrees("tail")


def test_nothing_is_changed(tmp_path: Path) -> None:
    """No byte, name, mode or time of a change is another afterwards, in any state."""
    with made_states(tmp_path):
        before = tree_hash(tmp_path)
        for state in STATES:
            assert posjournal_run("tail", f"{state}/orders", "-n", "100").exit_code == (state == "corrupt")
        assert tree_hash(tmp_path) == before


@pytest.mark.parametrize("state", ["torn", "locked"])
def test_following_begins_with_the_newest_items_and_changes_nothing(tmp_path: Path, state: str) -> None:
    """It shows what is there, ends with Ctrl-C and exit code 130, and has changed nothing."""
    with made_states(tmp_path):
        before = tree_hash(tmp_path)
        with started(*following(tmp_path / state / "orders", "-n", "2")) as process:
            lines = Lines(process.stdout)
            assert [lines.next() for _ in range(2)] == [
                '23  {"order": 23, "paid": false}',
                '24  {"order": 24, "paid": true}',
            ]
            assert interrupted(process) == ("", "")
        assert tree_hash(tmp_path) == before


def test_following_passes_over_what_is_damaged_and_says_so(tmp_path: Path) -> None:
    """Behind a damaged record it goes on with the next section, and names the positions in between."""
    with made_states(tmp_path), started(*following(tmp_path / "corrupt" / "orders", "-n", "15")) as process:
        lines = Lines(process.stdout)
        assert [int(lines.next().split()[0]) for _ in range(6)] == [10, 20, 21, 22, 23, 24]
        assert interrupted(process)[1] == (
            "positions 11 to 19: record: expected one that checks out, found other bytes or none"
            " (partition orders_data, section 1, offset 86, position 11)\n"
        )


def test_a_live_writer_is_followed_whatever_it_does(tmp_path: Path) -> None:
    """It rolls, prunes, rewinds, is killed, starts again and resets: what is shown is always its history."""
    path = tmp_path / "orders"
    with started(*following(path, "--json")) as process:
        reading = Reading(process.stdout)
        reading.until(lambda: reading.events == [{"event": "absent"}])
        with Writer(tmp_path) as writer:
            writer.do("append", 3)
            writer.do("sync_data")
            reading.until_shown(2, item_of(2, 0))
            writer.do("append", 10)  # rolls three times
            writer.do("sync_data")
            reading.until_shown(12, item_of(12, 0))
            assert reading.items == {position: item_of(position, 0) for position in range(13)}

            stop(process)
            writer.do("rewind", 6)
            writer.do("history", 1)
            writer.do("append", 10)  # beyond the place where it stands
            writer.do("sync_data")
            process.send_signal(signal.SIGCONT)
            reading.until_shown(15, item_of(15, 1))
            assert reading.events[1:] == [{"event": "rewound", "size": 6}]
            assert reading.items[5] == item_of(5, 0)
            assert [reading.items[position] for position in range(6, 16)] == [item_of(at, 1) for at in range(6, 16)]

            stop(process)
            writer.do("append", 20)
            writer.do("prune", 30)
            process.send_signal(signal.SIGCONT)
            reading.until_shown(35, item_of(35, 1))
            assert reading.events[2:] == [{"event": "pruned", "start": 16, "stop": 28}]

            writer.do("append", 2)
            writer.do("sync_data")
            writer.kill()
        reading.until_shown(37, item_of(37, 1))
        with (tmp_path / "orders_data" / f"{9:016x}").open("ab") as file:
            file.write(b"\x20\0\0\0torn off")
        with Writer(tmp_path) as writer:
            writer.do("append", 1)
            writer.do("sync")
            reading.until_shown(38, item_of(38, 0))
            writer.do("reset", 100)
            writer.do("append", 1)
            writer.do("sync_data")
            reading.until_shown(100, item_of(100, 0))
            assert reading.events[3:] == [{"event": "reset", "start": 100}]
        _, errors = interrupted(process)
    assert errors.splitlines() == [
        f"no journal at '{path}' yet: waiting for one",
        "rewound to 6",
        "pruned before they were seen: positions 16 to 27",
        "another journal has begun, at 100",
    ]


def test_what_only_sync_data_made_durable_is_followed(tmp_path: Path) -> None:
    """A writer that never writes a checkpoint is followed item by item."""
    with Writer(tmp_path) as writer:
        writer.do("append", 1)
        writer.do("sync_data")
        with started(*following(tmp_path / "orders", "--json")) as process:
            reading = Reading(process.stdout)
            reading.until_shown(0, item_of(0, 0))
            for position in (1, 2):
                writer.do("append", 1)
                writer.do("sync_data")
                reading.until_shown(position, item_of(position, 0))
            interrupted(process)


def test_following_goes_on_from_a_position(tmp_path: Path) -> None:
    """Whoever has seen all before it misses nothing that is there, and is told what is not."""
    path = tmp_path / "orders"
    with Writer(tmp_path) as writer:
        writer.do("append", 10)
        writer.do("sync_data")
        with started(*following(path, "--json", "--from", "4")) as process:
            reading = Reading(process.stdout, 4)
            reading.until_shown(9, item_of(9, 0))
            assert (list(reading.items), reading.events) == (list(range(4, 10)), [])
            interrupted(process)
        with started(*following(path, "--json", "--from", "12")) as process:
            reading = Reading(process.stdout, 12)
            reading.until(lambda: reading.events == [{"event": "rewound", "size": 10}])
            writer.do("append", 3)
            writer.do("sync_data")
            reading.until_shown(12, item_of(12, 0))
            assert list(reading.items) == [10, 11, 12]
            interrupted(process)


def test_the_items_from_a_position_on_are_shown(tmp_path: Path) -> None:
    """As `cat` shows them, and refused where `cat` refuses: a position that was pruned, or lies beyond the size."""
    made_journal(tmp_path, [8, 9, 10, 11], first=8)
    path = str(tmp_path / "orders")
    shown = posjournal_run("tail", path, "--from", "10")
    assert (shown.exit_code, shown.stdout) == (0, "10  10\n11  11\n")
    assert posjournal_run("tail", path, "--from", "12").stdout == ""
    for position in ("7", "13"):
        tail, cat = (posjournal_run(command, path, "--from", position) for command in ("tail", "cat"))
        assert (tail.exit_code, tail.stderr) == (cat.exit_code, cat.stderr)
        assert tail.exit_code == Code.FINDINGS
    assert posjournal_run("tail", path, "--from", "3", "-n", "2").exit_code == Code.USAGE


def test_it_ends_when_its_reader_is_gone(tmp_path: Path) -> None:
    """A reader that has seen enough ends it, also while there is nothing to write, and there is no complaint."""
    made_journal(tmp_path, [1, 2, 3])
    with started(*following(tmp_path / "orders")) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert Lines(process.stdout).next() == "0  1"
        process.stdout.close()
        assert process.wait(60) == Code.BROKEN_PIPE
        assert process.stderr.read() == b""


def test_an_unknown_codec_is_told_before_anything_is_followed(tmp_path: Path) -> None:
    """The journal's codec is looked for as elsewhere, and --codec names another."""

    class Strange:
        name = "strange"
        encode = staticmethod(bytes)
        decode = staticmethod(bytes)

    made_journal(tmp_path, [b"x"], Strange())
    assert posjournal_run("tail", str(tmp_path / "orders")).exit_code == Code.USAGE
    assert posjournal_run("tail", str(tmp_path / "orders"), "-f").exit_code == Code.USAGE
    assert posjournal_run("tail", str(tmp_path / "orders"), "--codec", "bytes").stdout == "0  b'x'\n"
    assert posjournal_run("tail", str(tmp_path / "orders"), "--raw").stdout == "x"
