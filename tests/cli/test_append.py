"""`posjournal append`: what is reported is durable, whatever ends it."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import resource
import signal
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posjournal_async import BytesCodec, Config, Context, Counters, Journal, JsonCodec, MemoryStorage
from posjournal_async.cli.intake import BadLine, Intake, item_in_json_line
from posjournal_async.cli.lines import LineTooLong, lines_at_hand
from tests.cli.transcripts import agrees, items_of, made_journal, posjournal_run, started
from tests.journals import config_of

if TYPE_CHECKING:
    import subprocess
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path


def test_it_prints_what_its_transcript_says() -> None:
    """On journals in all states, for people and as JSON."""
    agrees("append")


# Lines of a stream.


async def lines_through_a_pipe(pieces: Iterable[bytes], longest: int) -> tuple[list[bytes], bool]:
    """Return the lines that come out, and whether one was too long."""
    read, write = os.pipe()
    found: list[bytes] = []
    is_too_long = False
    with os.fdopen(read, "rb") as stream:
        async with lines_at_hand(stream, longest=longest) as batches:
            for piece in pieces:
                os.write(write, piece)
            os.close(write)
            try:
                async for batch in batches:
                    assert batch
                    found += batch
            except LineTooLong:
                is_too_long = True
    return found, is_too_long


@given(st.lists(st.binary(max_size=6).map(lambda piece: piece.replace(b"\x01", b"\n"))), st.integers(0, 8))
def test_lines_are_those_of_the_whole_stream(pieces: list[bytes], longest: int) -> None:
    """However a stream comes in pieces; up to the first line that is too long."""
    whole = b"".join(pieces).split(b"\n")
    if not whole[-1]:
        whole.pop()
    good = next((number for number, line in enumerate(whole) if len(line) > longest), len(whole))
    assert asyncio.run(lines_through_a_pipe(pieces, longest)) == (whole[:good], good < len(whole))


async def test_leaving_does_not_wait_for_a_line_that_nobody_writes() -> None:
    """The thread that waits for it ends with the block."""
    read, write = os.pipe()
    os.write(write, b"one\ntw")
    with os.fdopen(read, "rb") as stream:
        async with lines_at_hand(stream, longest=9) as batches:
            assert await anext(batches) == [b"one"]
            waiting = asyncio.ensure_future(anext(batches))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
    os.close(write)


# Lines into a journal.


async def batches_of(*batches: list[bytes]) -> AsyncIterator[list[bytes]]:
    for batch in batches:
        yield batch


async def test_lines_that_are_at_hand_share_an_fsync() -> None:
    """As many as `most` says, and each is reported after the fsync that made it durable."""
    counters = Counters()
    context = Context(MemoryStorage(), metrics=counters)
    reported: list[range] = []
    async with await Journal.init(context, config_of(100)) as journal:

        def report(positions: range) -> None:
            assert journal.durable_size() >= positions.stop
            reported.append(positions)

        intake = Intake(journal, bytes, most=4, skips_blank=False, report=report)
        await intake.take(batches_of([b"%d" % number for number in range(10)], [b""], [b"a", b"b"]))
        assert reported == [range(4), range(4, 8), range(8, 10), range(10, 11), range(11, 13)]
        assert counters.totals["orders", "commits"] == 5


async def test_a_bad_line_ends_it_and_what_was_before_is_durable() -> None:
    """Also where only the codec finds out, and lines around it share an fsync with it; the numbers are the lines'."""
    for bad in (b"[", b'"\\ud800"', b"NaN"):
        context = Context(MemoryStorage())
        config: Config[Any] = Config(partition="orders", codec=JsonCodec())
        async with await Journal.init(context, config) as journal:
            intake = Intake(journal, item_in_json_line, most=100, skips_blank=True, report=lambda _: None)
            with pytest.raises(BadLine) as caught:
                await intake.take(batches_of([b"0"], [b" ", b"1", b"2", bad, b"4"], [b"5"]))
            assert caught.value.number == 5
            assert (intake.first, intake.durable) == (0, 3)
            assert [await journal.read(position) for position in journal.bounds()] == [0, 1, 2]


async def test_an_interruption_tells_what_has_become_durable() -> None:
    """Items that were appended when it struck are synced first."""
    context = Context(MemoryStorage())
    async with await Journal.init(context, config_of(100)) as journal:
        never, begun = asyncio.Event(), asyncio.Event()

        async def endless() -> AsyncIterator[list[bytes]]:
            yield [b"a", b"b"]
            await never.wait()

        def begin(line: bytes) -> bytes:
            begun.set()
            return line

        reported: list[range] = []
        intake = Intake(journal, begin, most=100, skips_blank=False, report=reported.append)
        task = asyncio.ensure_future(intake.take(endless()))
        await begun.wait()
        assert (journal.size(), reported) == (2, [])
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert intake.durable == journal.durable_size() == 2
        assert reported == [range(2)]


# Processes.


def fed(process: subprocess.Popen[bytes], numbers: Iterable[int]) -> None:
    assert process.stdin is not None
    process.stdin.write(b"".join(b'{"number":%d}\n' % number for number in numbers))
    process.stdin.flush()


def acknowledged(process: subprocess.Popen[bytes], count: int) -> list[int]:
    """Wait for so many positions, and return them."""
    assert process.stdout is not None
    return [int(process.stdout.readline()) for _ in range(count)]


def remaining(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """Wait for the end, and return what is left of standard output and error; `communicate` loses what was buffered."""
    assert process.stdout is not None
    assert process.stderr is not None
    output, errors = process.stdout.read(), process.stderr.read()
    process.wait()
    return output, errors


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_what_was_reported_survives(tmp_path: Path, kill: signal.Signals) -> None:
    """Killed or interrupted while lines are on their way, what was reported is there, and nothing else than lines."""
    made_journal(tmp_path, [])
    with started("append", str(tmp_path / "orders"), "--acknowledge", "--batch", "7") as process:
        fed(process, range(25))
        assert acknowledged(process, 25) == list(range(25))
        fed(process, range(25, 2000))
        count = 25 + len(acknowledged(process, 40))
        process.send_signal(kill)
        rest, errors = remaining(process)
    if kill is signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
        count += rest.count(b"\n")
    else:
        assert process.returncode == 130
        *more, summary = rest.decode().splitlines()
        count += len(more)
        assert summary == f"appended {count:,} items, positions 0..{count - 1}"
        assert errors == b"posjournal: interrupted\n"
    found = items_of(tmp_path)
    assert len(found) >= count
    assert found == [(number, {"number": number}) for number in range(len(found))]
    if kill is signal.SIGINT:
        assert len(found) == count


def test_a_full_disk_ends_it_and_nothing_reported_is_lost(tmp_path: Path) -> None:
    """A limit on the length of a file stands for the disk: exit code 4, the count of what is durable, and all of it."""
    made_journal(tmp_path, [])
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (8192, 8192))
    lines = b"".join(b'{"number":%d,"rest":"%s"}\n' % (number, b"x" * 900) for number in range(60))
    with started("append", str(tmp_path / "orders"), "--batch", "3", "--json", preexec_fn=limit) as process:
        output, errors = process.communicate(lines)
    assert process.returncode == 4
    assert errors.startswith(b"posjournal: write and sync: expected success, found file too large")
    told = json.loads(output)
    assert told["complete"] is False
    assert told["items"] == told["positions"]["stop"] > 0
    found = items_of(tmp_path)
    assert [number for number, _ in found] == list(range(len(found)))
    assert len(found) >= told["items"]
    assert [item["number"] for _, item in found] == list(range(len(found)))


def test_a_terminal_is_told_what_to_do(tmp_path: Path) -> None:
    """Who types is told how to end it; each line is reported when it is durable."""
    ours, theirs = pty.openpty()
    try:
        with started(
            "append", str(tmp_path / "orders"), "--create", "--codec", "bytes", "--acknowledge", stdin=theirs
        ) as process:
            os.write(ours, b"first\n")
            assert acknowledged(process, 1) == [0]
            os.write(ours, b"\x04")
            output, errors = remaining(process)
    finally:
        os.close(ours)
        os.close(theirs)
    assert output == b"appended 1 item, position 0\n"
    assert errors == b"one item a line, please; Ctrl-D ends it\n"


def test_a_reader_that_goes_away_is_no_reason_to_complain(tmp_path: Path) -> None:
    """As in `append --acknowledge | head -1`: what was appended until then is kept, and standard error is silent."""
    made_journal(tmp_path, [])
    with started("append", str(tmp_path / "orders"), "--acknowledge") as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.close()
        fed(process, range(100))
        process.stdin.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait() == 141
    assert items_of(tmp_path)[:100] == [(number, {"number": number}) for number in range(100)]


def test_typed_items_are_appended_with_a_word_of_warning(tmp_path: Path) -> None:
    """Without the type nothing can check them."""

    class Typed(JsonCodec):
        name = "json/3"

    made_journal(tmp_path, [{"a": 1}], Typed())
    result = posjournal_run("append", str(tmp_path / "orders"), text='{"a":2}\n')
    assert result.stdout == "appended 1 item, position 1\n"
    assert result.stderr.startswith("the items of this journal are typed (json/3)")


def test_bytes_are_the_lines_as_they_are(tmp_path: Path) -> None:
    """But for the line feed: a carriage return is one of them, and so is nothing at all."""
    made_journal(tmp_path, [], BytesCodec())
    text = b"\xff\r\n\n \0\nlast"
    assert posjournal_run("append", str(tmp_path / "orders"), text=text).exit_code == 0
    result = posjournal_run("export", str(tmp_path / "orders"), "--items-only")
    assert [json.loads(line)["base64"] for line in result.stdout.splitlines()] == ["/w0=", "", "IAA=", "bGFzdA=="]


def test_standard_input_that_is_closed_is_told(tmp_path: Path) -> None:
    """Exit code 4, and nothing is made."""
    with started("append", str(tmp_path / "orders"), "--create", preexec_fn=partial(os.close, 0)) as process:
        output, errors = remaining(process)
    assert (process.returncode, output, errors) == (4, b"", b"posjournal: standard input is closed\n")
    assert list(tmp_path.iterdir()) == []
