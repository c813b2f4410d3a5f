"""`posjournal get`."""

from __future__ import annotations

import asyncio
import os
import pty
from typing import TYPE_CHECKING

import pytest

from posjournal_async import BytesCodec, FileStorage
from tests.cli.transcripts import agrees, made_journal, posjournal_run, started
from tests.journals import damage
from tests.recovery.journals import change, lay_out

if TYPE_CHECKING:
    from pathlib import Path


def test_it_prints_what_its_transcript_says() -> None:
    """On journals in all states, for people and as JSON."""
    agrees("get")


def test_raw_is_the_bytes_and_nothing_else(tmp_path: Path) -> None:
    """What went in comes out, one item behind the other."""
    made_journal(tmp_path, [b"\0\xff\x1b", b"", b"line\n"], BytesCodec())
    with started("get", str(tmp_path / "orders"), "2", "1", "0", "--raw") as process:
        output, errors = process.communicate()
    assert (output, errors, process.returncode) == (b"line\n\0\xff\x1b", b"", 0)


@pytest.mark.parametrize("options", [(), ("--json",), ("--codec", "bytes")])
def test_a_terminal_gets_no_control_character(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Whatever an item holds: it is escaped, and cut where the line would be too long."""
    made_journal(tmp_path, ["\x1b]0;owned\x07 \x9b31m \u202e \x7f \r" + "x" * 500])
    output = on_terminal("get", str(tmp_path / "orders"), "0", *options)
    text = output.decode().replace("\r\n", "\n")
    assert not [character for character in text if character != "\n" and not character.isprintable()]
    assert options == ("--json",) or all(len(line) <= 80 for line in text.splitlines())


def test_raw_bytes_do_not_go_to_a_terminal(tmp_path: Path) -> None:
    """They could be commands to it."""
    made_journal(tmp_path, [b"\x1b[2J"], BytesCodec())
    output = on_terminal("get", str(tmp_path / "orders"), "0", "--raw")
    assert b"\x1b[2J" not in output
    assert b"do not go to a terminal" in output


def on_terminal(*arguments: str) -> bytes:
    """What a command prints to a terminal of 80 columns, which is its standard output and standard error."""
    ours, theirs = pty.openpty()
    try:
        environment = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "TERM": "xterm"}
        with started(*arguments, stdout=theirs, stderr=theirs, env=environment) as process:
            os.close(theirs)
            output = b""
            while part := read_from(ours):
                output += part
            process.wait()
    finally:
        os.close(ours)
    return output


def read_from(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # EIO: the other side was closed
        return b""


def test_items_behind_a_damaged_one_are_found_by_the_index(tmp_path: Path) -> None:
    """Of a sealed section, and of the last one: only what is damaged is missing."""
    lay_out(tmp_path, 25)
    for section in (1, 2):
        asyncio.run(damage(FileStorage(tmp_path), section, 64 + 2 * 16 + 9))
    result = posjournal_run("get", str(tmp_path / "orders"), "11", "12", "13", "21", "22", "24")
    assert result.stdout.split() == [
        "11",
        "b'item",
        "011'",
        "13",
        "b'item",
        "013'",
        "21",
        "b'item",
        "021'",
        "24",
        "b'item",
        "024'",
    ]
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == ["position 12", "position 22"]
    assert result.exit_code == 1


def test_without_an_index_a_section_is_searched(tmp_path: Path) -> None:
    """Up to the first record that is damaged: nothing says where those behind it begin."""
    lay_out(tmp_path, 25)
    change(tmp_path, "offsets", 1, lambda _: None)
    assert posjournal_run("get", str(tmp_path / "orders"), "19").stdout == "19  b'item 019'\n"
    asyncio.run(damage(FileStorage(tmp_path), 1, 64 + 5 * 16 + 9))
    result = posjournal_run("get", str(tmp_path / "orders"), "14", "15", "19")
    assert result.stdout == "14  b'item 014'\n"
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == ["position 15", "position 19"]


def test_an_index_that_lies_is_not_believed(tmp_path: Path) -> None:
    """The records prove themselves, and are searched for where the index leads elsewhere."""
    lay_out(tmp_path, 25)
    change(tmp_path, "offsets", 1, lambda blob: blob[:64] + blob[72:80] * 10)
    result = posjournal_run("get", str(tmp_path / "orders"), "10", "15", "19")
    assert result.stdout == "10  b'item 010'\n15  b'item 015'\n19  b'item 019'\n"
    change(tmp_path, "offsets", 1, lambda blob: blob[:64] + b"\xff" * 80)
    assert posjournal_run("get", str(tmp_path / "orders"), "10", "15", "19").stdout == result.stdout


def test_a_missing_section_is_a_finding(tmp_path: Path) -> None:
    """Its items are named, the others are shown."""
    lay_out(tmp_path, 25)
    change(tmp_path, "data", 1, lambda _: None)
    result = posjournal_run("get", str(tmp_path / "orders"), "9", "15", "20")
    assert result.stdout == " 9  b'item 009'\n20  b'item 020'\n"
    assert result.stderr == (
        "position 15: section: expected a data blob, found none (partition orders_data, section 1, position 15)\n"
    )
    assert result.exit_code == 1
