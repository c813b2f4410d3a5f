"""Each example runs as a script, and prints what its docstring promises."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from posjournal_async import Context, FileStorage, ItemTooLarge, Journal

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"

GOOD = "verdict     good: nothing acknowledged is missing, nothing is doubled, all in order"

# Lines that JSON and MessagePack hold as they are, those that only one of them or none does, and what becomes of them.
NESTED = b"[" * 400 + b"]" * 400
STRANGE_LINES: dict[bytes, Any] = {
    b'{"a": 1}': {"a": 1},
    b"1": 1,
    b"true": True,
    b"null": None,
    b"Infinity": float("inf"),
    b'{"line": "x"}\r': {"line": "x"},
    NESTED: json.loads(NESTED),
    b"": {"line": ""},
    b"plain text": {"line": "plain text"},
    b"[1, 2": {"line": "[1, 2"},
    b"\xff\xfe not UTF-8": {"line": b"\xff\xfe not UTF-8"},
    b"\xef\xbb\xbf{}": {"line": "\ufeff{}"},
    b"\0\0\0": {"line": "\0\0\0"},
    b'"\\ud800"': {"line": '"\\ud800"'},
    b"123456789012345678901234567890": {"line": "123456789012345678901234567890"},
    b"9" * 5_000: {"line": "9" * 5_000},
    b"[" * 5_000 + b"]" * 5_000: {"line": "[" * 5_000 + "]" * 5_000},
}


def run(name: str, *arguments: object, standard_input: bytes = b"", code: int = 0) -> str:
    """Run an example with warnings as errors, and return what it printed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, input=standard_input, capture_output=True, env=environment, check=False, timeout=120)
    assert done.returncode == code, done.stderr.decode()
    return done.stdout.decode() if code == 0 else (done.stdout + done.stderr).decode()


def load(name: str) -> Any:
    """An example as a module, under a name of its own."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for the names in their annotations
    spec.loader.exec_module(module)
    return module


def json_lines(count: int) -> bytes:
    return b"".join(json.dumps({"number": i, "text": "x" * (i % 50)}).encode() + b"\n" for i in range(count))


def test_quickstart_goes_on_where_it_ended(tmp_path: Path) -> None:
    """The second run on a directory appends behind the first one's items."""
    assert run("quickstart.py", tmp_path).splitlines() == [
        "position 0: {'order': 7, 'state': 'paid'}",
        "replayed 0: paid",
        "replayed 1: sent",
        "size 2, durable 2",
    ]
    again = run("quickstart.py", tmp_path).splitlines()
    assert again[0] == "position 2: {'order': 7, 'state': 'paid'}"
    assert again[-1] == "size 4, durable 4"


def test_custom_codec_packs_and_refuses() -> None:
    """Samples come back typed and small, and what does not fit is refused with nothing appended."""
    lines = run("custom_codec.py").splitlines()
    assert re.fullmatch(r"\d+ bytes in MessagePack, 18 packed", lines[0])
    assert lines[1:4] == ["position 1: 21.5 degrees", "position 3: 23.5 degrees", "position 5: 25.5 degrees"]
    assert lines[4].startswith("refused: ")
    assert lines[5] == "size 6"


def test_typed_orders_are_read_as_new_ones() -> None:
    """What the first version wrote comes out as an order of the second, and the first is refused after that."""
    assert run("typed_orders.py").splitlines() == [
        "version 1: FirstOrder(number=7, euros=2.5)",
        "position 0: 250 cents in EUR",
        "position 1: 1050 cents in CHF",
        "refused: codec: expected mp/2, found mp/1 (partition orders)",
    ]


def test_custom_storage_keeps_a_journal_in_sqlite(tmp_path: Path) -> None:
    """The journal is there when the file is opened again, and its pruned section is gone."""
    assert run("custom_storage.py", tmp_path / "journal.sqlite").splitlines() == [
        "appended up to position 2499",
        "found 2500 items, the last is {'order': 2499}",
        "orders_data: blobs 1, 2",
        "orders_offsets: blobs 1, 2",
        "orders_checkpoint: blobs 0",
    ]


def test_event_sourced_service_recovers_what_it_acknowledged(tmp_path: Path) -> None:
    """After the kill the balances are those acknowledged, from a snapshot and the events behind it."""
    acknowledged, snapshot, recovered, refused = run("event_sourced_service.py", tmp_path).splitlines()
    balances = {"ann": 500, "bob": 400, "eve": 100, "world": -1_000}
    assert json.loads(acknowledged.removeprefix("acknowledged:")) == balances
    assert snapshot == "snapshot at position 501, then 50 events"
    assert json.loads(recovered.removeprefix("recovered:")) == balances
    assert refused.endswith("ann has 500, not 501")
    # Sections 0 to 4 lie before the snapshot as a whole.
    assert [blob.name for blob in (tmp_path / "bank_data").glob("0*")] == [f"{5:016x}"]


@pytest.mark.parametrize("count", [0, 1, 2, 300])
def test_demo_of_a_file_finds_every_line(tmp_path: Path, count: int) -> None:
    """However few lines there are, the verdict is good, and the report counts them."""
    file = tmp_path / "lines"
    file.write_bytes(json_lines(count))
    report = run("demo.py", file)
    assert f"source      {count:,} lines: {file}\n" in report
    assert f"replay      {count:,} events compared" in report
    assert GOOD in report


def test_demo_of_standard_input_keeps_strange_lines() -> None:
    """Lines that are no JSON, broken bytes, no newline at the end: all are kept and compared."""
    report = run("demo.py", "-", standard_input=b"\n".join(STRANGE_LINES))
    assert f"source      {len(STRANGE_LINES)} lines: standard input\n" in report
    assert GOOD in report


def test_demo_of_a_very_long_line_finds_it(tmp_path: Path) -> None:
    """A line longer than the write buffer is an event like any other."""
    file = tmp_path / "lines"
    file.write_bytes(b"short\n" + b"x" * (5 * 2**20) + b"\nshort\n")
    assert GOOD in run("demo.py", file)


def test_demo_keeps_a_journal_on_request(tmp_path: Path) -> None:
    """A kept journal can be looked at, and is not written to by another demo."""
    report = run("demo.py", "-", "--journal", tmp_path / "kept", standard_input=json_lines(10))
    assert f"--look {tmp_path / 'kept'}" in report
    looked = run("demo.py", "--look", tmp_path / "kept")
    assert "positions   0 to 10, end exclusive" in looked
    assert re.findall(r"^(\d+) +\{'number': \1, ", looked, re.MULTILINE) == ["0", "1", "2", "7", "8", "9"]
    assert "has a journal already" in run("demo.py", "-", "--journal", tmp_path / "kept", code=2)
    assert "no journal" in run("demo.py", "--look", tmp_path, code=1)


def test_demo_of_a_missing_file_says_so(tmp_path: Path) -> None:
    """A name that is no file is an error of the command line."""
    assert "No such file" in run("demo.py", tmp_path / "missing", code=2)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (b"a\nb\nc\nd\n", "1 acknowledged events missing, 1 lines missing or in the wrong place, 0 events too many"),
        (b"a\nb\n", "0 acknowledged events missing, 0 lines missing or in the wrong place, 1 events too many"),
        (b"a\nc\nb\n", "2 acknowledged events missing, 2 lines missing or in the wrong place, 0 events too many"),
    ],
    ids=["lost", "doubled", "swapped"],
)
def test_the_verdict_of_the_demo_can_be_bad(
    tmp_path: Path, source: bytes, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A journal that does not hold the source line by line is found out."""
    run("demo.py", "-", "--journal", tmp_path / "kept", standard_input=b"a\nb\nc\n")
    (tmp_path / "source").write_bytes(source)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    demo = load("demo")
    acknowledged = set(range(source.count(b"\n")))
    result = demo.asyncio.run(demo.compare(tmp_path / "source", tmp_path / "kept"))
    first = demo.Run(opened={"size": 0}, acknowledged=acknowledged)
    assert demo.verdict(result, first, demo.Run(opened={"size": len(acknowledged)})) == 1
    assert expected in capsys.readouterr().out


def test_ingest_acknowledges_every_position_once(tmp_path: Path) -> None:
    """The positions on standard output are those of all lines; a second run has nothing to do."""
    file = tmp_path / "lines"
    file.write_bytes(json_lines(1_000))
    messages = [json.loads(line) for line in run("ingest.py", file, tmp_path / "journal").splitlines()]
    assert messages[0]["opened"]["size"] == 0
    positions = [position for message in messages[1:] for position in message["acknowledged"]]
    assert sorted(positions) == list(range(1_000))
    assert messages[-1]["fsyncs"] < 500  # many tasks share one
    [opened] = run("ingest.py", file, tmp_path / "journal").splitlines()
    assert json.loads(opened)["opened"]["size"] == 1_000


@pytest.mark.parametrize("at", [0, 1, 70, 199])
async def test_ingest_puts_no_line_in_the_place_of_one_that_was_refused(tmp_path: Path, at: int) -> None:
    """Where an item may be refused, as too large here, the journal ends before it, and the next run begins with it."""
    ingest = load("ingest")
    lines = json_lines(200).splitlines(keepends=True)
    lines[at] = b"x" * 100 + b"\n"
    file = tmp_path / "lines"
    file.write_bytes(b"".join(lines))
    events = [ingest.event_of(line) for line in lines]
    for config, size in ((replace(ingest.CONFIG, max_item_size=90), at), (ingest.CONFIG, 200)):
        ingest.CONFIG = config
        try:
            await ingest.ingest(file, tmp_path / "journal")
        except* ItemTooLarge:
            assert size == at
        async with await Journal.init(Context(FileStorage(tmp_path / "journal")), config) as journal:
            assert [event async for _, event in journal.replay(0)] == events[:size]


@pytest.mark.parametrize(("line", "event"), STRANGE_LINES.items(), ids=range(len(STRANGE_LINES)))
def test_ingest_makes_an_event_of_every_line(line: bytes, event: Any) -> None:
    """What is no JSON, and JSON that MessagePack cannot hold, is kept as the line itself."""
    ingest = load("ingest")
    assert ingest.event_of(line + b"\n") == event


@pytest.mark.parametrize("depth", [500, 510, 511, 512, 600, 900, 990, 1_000, 1_023, 1_024, 1_025, 2_000])
def test_ingest_makes_events_that_can_be_read_again(depth: int) -> None:
    """However deep a line is nested, what is written can be decoded."""
    ingest = load("ingest")
    encoded = ingest.encode(ingest.event_of(b"[" * depth + b"]" * depth))
    assert ingest.encode(ingest.MsgpackCodec().decode(encoded)) == encoded
