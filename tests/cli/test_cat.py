"""`posjournal cat`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from posjournal_async import BytesCodec, FileStorage, JsonCodec
from tests.cli.transcripts import agrees, made_journal, posjournal_run, started
from tests.journals import damage
from tests.recovery.journals import ITEMS, change, lay_out

if TYPE_CHECKING:
    from collections.abc import Callable


def test_it_prints_what_its_transcript_says() -> None:
    """On journals in all states, for people and as JSON."""
    agrees("cat")


@pytest.mark.parametrize("start", [0, 9, 10, 11, 25])
@pytest.mark.parametrize("stop", [None, 10, 11, 24, 25, 30])
def test_a_range_ends_before_its_last_position(tmp_path: Path, start: int, stop: int | None) -> None:
    """As `range` has it, and no further than the journal."""
    lay_out(tmp_path, 25)
    options = [] if stop is None else ["--to", str(max(stop, start))]
    result = posjournal_run("cat", str(tmp_path / "orders"), "--from", str(start), *options, "--json")
    positions = [json.loads(line)["position"] for line in result.stdout.splitlines()]
    assert positions == list(range(start, 25 if stop is None else min(max(stop, start), 25)))
    assert (result.exit_code, result.stderr) == (0, "")


def test_items_come_out_as_json_that_says_what_they_were(tmp_path: Path) -> None:
    """Each on a line of its own, in ASCII."""
    items = [None, 1.5, "ä\u2028\n", {"a": [b"\0", {1: float("inf")}]}]
    made_journal(tmp_path, items)
    lines = posjournal_run("cat", str(tmp_path / "orders"), "--json").stdout.splitlines()
    assert [json.loads(line)["item"] for line in lines] == [
        None,
        1.5,
        "ä\u2028\n",
        {"a": [{"base64": "AA=="}, {"map": [[1, {"float": "inf"}]]}]},
    ]
    assert all(line.isascii() for line in lines)


def test_raw_is_all_bytes_in_a_row(tmp_path: Path) -> None:
    """Of items larger than what is read at once, too."""
    items = [bytes([number]) * (100_000 * number) for number in range(6)]
    made_journal(tmp_path, items, BytesCodec(), items_per_section=4)
    with started("cat", str(tmp_path / "orders"), "--raw") as process:
        output, errors = process.communicate()
    assert (output, errors) == (b"".join(items), b"")


@pytest.mark.parametrize(
    ("harm", "gaps"),
    [
        (lambda root: change(root, "data", 1, lambda _: None), "positions 10 to 19: section: "),
        (lambda root: change(root, "data", 1, lambda blob: b"\0" + blob[1:]), "positions 10 to 19: header: "),
        (lambda root: change(root, "data", 1, lambda blob: blob[:80]), "positions 11 to 19: record: "),
        (lambda root: asyncio.run(damage(FileStorage(root), 1, 70)), "position 10: record: "),
        (lambda root: asyncio.run(damage(FileStorage(root), 2, 70)), "position 20: record: "),
        (lambda root: change(root, "data", 2, lambda blob: blob[:80]), "positions 21 to 24: record: "),
    ],
)
def test_what_is_damaged_is_left_out_and_named(tmp_path: Path, harm: Callable[[Path], None], gaps: str) -> None:
    """Everything else is shown, each item at its position, and the exit code says that something is missing."""
    lay_out(tmp_path, 25)
    harm(tmp_path)
    result = posjournal_run("cat", str(tmp_path / "orders"))
    first, *last = (int(word) for word in gaps.split(":", maxsplit=1)[0].split() if word.isdigit())
    left_out = range(first, (last[0] if last else first) + 1)
    assert result.stdout.splitlines() == [
        f"{position:>2}  {ITEMS[position]!r}" for position in range(25) if position not in left_out
    ]
    assert result.stderr.startswith(gaps)
    assert (result.stderr.count("\n"), result.exit_code) == (1, 1)


def test_an_item_that_its_codec_refuses_is_left_out_and_named(tmp_path: Path) -> None:
    """Neighbours of its kind are one message."""
    made_journal(tmp_path, [b"1", b"{", b"}", b"4"], BytesCodec())
    result = posjournal_run("cat", str(tmp_path / "orders"), "--codec", "json")
    assert result.stdout == "0  1\n3  4\n"
    assert result.stderr == "positions 1 to 2: decode with json: JSONDecodeError (position 1)\n"
    assert result.exit_code == 1


def test_a_reader_that_goes_away_ends_it_in_silence(tmp_path: Path) -> None:
    """As any command in front of `head`: exit code 141, and no word."""
    made_journal(tmp_path, ["x" * 1_000] * 3_000, JsonCodec(), items_per_section=1_000)
    with started("cat", str(tmp_path / "orders")) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b'   0  "xxx')
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


def test_an_interruption_ends_it_with_a_word(tmp_path: Path) -> None:
    """Ctrl-C: exit code 130, and no traceback."""
    made_journal(tmp_path, ["x" * 1_000] * 3_000, JsonCodec(), items_per_section=1_000)
    with started("cat", str(tmp_path / "orders")) as process:
        assert process.stdout is not None
        os.read(process.stdout.fileno(), 1)  # it is at it, and waits for the pipe sooner or later
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
        assert (errors, process.returncode) == (b"posjournal: interrupted\n", 130)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
def test_a_full_disk_is_told(tmp_path: Path) -> None:
    """The exit code of I/O, and no traceback."""
    lay_out(tmp_path, 5)
    with Path("/dev/full").open("wb") as full, started("cat", str(tmp_path / "orders"), stdout=full) as process:
        _, errors = process.communicate()
    assert (errors, process.returncode) == (b"posjournal: no space left on device\n", 4)


def test_an_encoding_that_lacks_a_character_is_no_failure(tmp_path: Path) -> None:
    """The character is escaped."""
    made_journal(tmp_path, ["naïve 日本"], JsonCodec())
    with started(
        "cat", str(tmp_path / "orders"), env={"PYTHONIOENCODING": "ascii"}, stderr=subprocess.STDOUT
    ) as process:
        output, _ = process.communicate()
    assert output == b'0  "na\\xefve \\u65e5\\u672c"\n'
