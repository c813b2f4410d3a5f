"""`posjournal import`: what was exported comes back as it was, or not at all."""

from __future__ import annotations

import asyncio
import json
import math
import os
import resource
import sys
from contextlib import nullcontext
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import msgpack
import pytest

from posjournal_async import BytesCodec, Codec, Config, FileStorage, Journal, JsonCodec, MsgpackCodec
from posjournal_async.cli import arrow, exported, import_
from posjournal_async.cli.exported import BadEntry
from posjournal_async.cli.json_form import text_of
from posjournal_async.payloads import Payloads
from tests.cli.test_export import exact
from tests.cli.transcripts import (
    STATES,
    agrees,
    items_of,
    made_journal,
    made_states,
    posjournal_run,
    started,
    tree_hash,
)

if TYPE_CHECKING:
    from pathlib import Path

    from posjournal_async.storage.file import FileLock

# Neither ships types.
EXT_TYPE: Any = msgpack.ExtType
pa: Any = import_module("pyarrow")
pq: Any = import_module("pyarrow.parquet")

PLAIN: list[Any] = [
    None,
    True,
    0,
    -(2**63),
    2**64 - 1,
    1.5,
    -0.0,
    1.0,
    "",
    "tab\tand \x1b[31m and \x00 and \u2028 and \U0001f600",
    [],
    [[], {}],
    {"": {"a": [1, "b", None]}},
    {"base64": "not bytes"},
    {"map": [["base64", 1]]},
    {"position": 7, "item": 8},
]
ITEMS: dict[str, list[Any]] = {
    "json": [*PLAIN, 2**200, "\U0001f600" * 1000],
    "msgpack": [
        *PLAIN,
        b"",
        bytes(range(256)),
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(2026, 1, 31, 12, 30, 1, 999_999, tzinfo=UTC),
        math.nan,
        math.inf,
        {1: "a", b"b": 2, None: 3, 1.5: 4, False: 5} | {datetime(2026, 1, 31, tzinfo=UTC): [b"x", {2: 3}]},
        {"timestamp": datetime(2026, 1, 31, tzinfo=UTC)},
        EXT_TYPE(5, b"ext"),
    ],
    "bytes": [b"", b"\n", bytes(range(256)), b"text"],
}
CODECS: dict[str, Codec[Any]] = {"json": JsonCodec(), "msgpack": MsgpackCodec(), "bytes": BytesCodec()}


def payloads_of(root: Path, codec: str) -> tuple[tuple[int, int], list[Any]]:
    """Return the bounds of a journal, and its items as what `exact` makes of them."""

    async def read() -> tuple[tuple[int, int], list[Any]]:
        async with Journal.open(root / "orders", codec=CODECS[codec], items_per_section=10) as journal:
            bounds = journal.bounds()
            return (bounds.start, bounds.stop), [exact(item) async for _, item in journal.replay(bounds.start)]

    return asyncio.run(read())


def test_it_prints_what_its_transcript_says() -> None:
    """On journals in all states, for people and as JSON."""
    agrees("import")


@pytest.mark.parametrize("codec", ["json", "msgpack", "bytes"])
@pytest.mark.parametrize("first", [0, 7])
@pytest.mark.parametrize("name", ["file.jsonl", "file.parquet"])
def test_what_was_exported_comes_back_as_it_was(tmp_path: Path, codec: str, first: int, name: str) -> None:
    """Bounds, order, types and values, for each codec and both formats."""
    made_journal(tmp_path / "from", ITEMS[codec], CODECS[codec], first=first)
    file = str(tmp_path / name)
    assert posjournal_run("export", str(tmp_path / "from" / "orders"), "-o", file).exit_code == 0
    options = ("--create", "--codec", codec, "--items-per-section", "10")
    result = posjournal_run("import", str(tmp_path / "to" / "orders"), file, *options)
    assert (result.exit_code, result.stderr) == (0, "")
    found = payloads_of(tmp_path / "to", codec)
    assert found == payloads_of(tmp_path / "from", codec)
    assert found == ((first, first + len(ITEMS[codec])), [exact(item) for item in ITEMS[codec]])
    again = tmp_path / f"again-{name}"
    assert posjournal_run("export", str(tmp_path / "to" / "orders"), "-o", str(again)).exit_code == 0
    if name == "file.jsonl":
        assert again.read_bytes() == (tmp_path / name).read_bytes()


def test_all_is_checked_before_anything_is_written(tmp_path: Path) -> None:
    """What is wrong with the last line is told with the journal untouched; so it is of a journal that is to be made."""
    made_journal(tmp_path, [0])
    (tmp_path / "bad").write_text("".join(f'{{"position":{n},"item":{n}}}\n' for n in range(1, 6000)) + "oops\n")
    before = tree_hash(tmp_path)
    for place, options in (("orders", ()), ("new", ("--create", "--items-only"))):
        result = posjournal_run("import", str(tmp_path / place), str(tmp_path / "bad"), *options)
        assert result.exit_code == 1
        assert "/bad: line 6000: expected JSON: expecting value, column 1\n" in result.stderr
        assert tree_hash(tmp_path) == before


def test_a_pipe_that_has_a_name_is_read_like_standard_input(tmp_path: Path) -> None:
    """It is kept meanwhile: it can be read only once, and all of it is checked before the first item is written."""
    reading, writing = os.pipe()
    try:
        os.write(writing, b'{"position":0,"item":"a"}\n{"position":1,"item":"b"}\n')
        os.close(writing)
        result = posjournal_run(
            "import", str(tmp_path / "orders"), f"/dev/fd/{reading}", "--create", "--items-per-section", "10"
        )
    finally:
        os.close(reading)
    assert (result.exit_code, result.stderr) == (0, "")
    assert items_of(tmp_path) == [(0, "a"), (1, "b")]


def test_a_dry_run_leaves_everything_as_it_was(tmp_path: Path) -> None:
    """No byte, no time and no name changes, whatever the state of the journal."""
    with made_states(tmp_path):
        before = tree_hash(tmp_path)
        results = [
            posjournal_run("import", f"{state}/orders", "-", "--items-only", "--dry-run", text="1\n")
            for state in (*STATES, "missing")
        ]
        assert tree_hash(tmp_path) == before
    assert [result.exit_code for result in results] == [0, 0, 0, 0, 0, 3, 2]


@pytest.mark.parametrize(("codec", "count"), [("json", 13), ("msgpack", 1), ("bytes", 41)])
def test_what_a_codec_would_change_is_refused(codec: str, count: int) -> None:
    """Each item that one of the codecs knows comes back from another one as it is, or is refused."""
    payloads = Payloads(Config(partition="orders", codec=CODECS[codec]))
    refused = 0
    for item in (item for items in ITEMS.values() for item in items):
        try:
            import_._check_item(payloads, item, "line 1")
        except BadEntry:
            refused += 1
        else:
            [payload] = payloads.encode([item]).payloads
            assert exact(payloads.decode((payload, False), 0)) == exact(item)
    assert refused == count


def test_a_full_disk_ends_it_and_says_what_is_there(tmp_path: Path) -> None:
    """A limit on the length of a file stands for the disk: exit code 4, the count, and how to take it back."""
    made_journal(tmp_path, [0])
    lines = "".join(json.dumps({"position": n, "item": "x" * 2**20}) + "\n" for n in range(1, 9))
    (tmp_path / "file").write_text(lines)
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (6 * 2**20, 6 * 2**20))
    path = str(tmp_path / "orders")
    with started("import", path, str(tmp_path / "file"), preexec_fn=limit) as process:
        output, errors = process.communicate()
    assert process.returncode == 4
    assert output == b"imported 5 items, positions 1..5\n"  # the last one of a batch of which no more fits
    assert errors.startswith(f"'posjournal rewind {path} 1' takes back what was imported\n".encode())
    assert [len(item) for _, item in items_of(tmp_path)[1:6]] == [2**20] * 5


def test_a_journal_that_was_made_meanwhile_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the check and the first write somebody else may have made one: it is not replaced."""
    (tmp_path / "file").write_text('{"position":7,"item":1}\n')

    def make_it(*arguments: Any) -> range:
        made_journal(tmp_path, ["somebody's"])
        return checked(*arguments)

    checked = import_._checked
    monkeypatch.setattr(import_, "_checked", make_it)
    result = posjournal_run("import", str(tmp_path / "orders"), str(tmp_path / "file"), "--create")
    assert result.exit_code == 2
    assert "meanwhile" in result.stderr
    assert items_of(tmp_path) == [(0, "somebody's")]


def test_a_journal_that_was_made_at_the_last_moment_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two imports that begin at once: the slower one finds what the other has made when it gets the lock."""
    (tmp_path / "file").write_text('{"position":7,"item":1}\n')

    async def lock_late(storage: FileStorage, partition: str) -> FileLock:
        monkeypatch.undo()
        await asyncio.to_thread(made_journal, tmp_path, ["somebody's"], first=7)
        return await storage.lock(partition)

    monkeypatch.setattr(FileStorage, "lock", lock_late)
    result = posjournal_run("import", str(tmp_path / "orders"), str(tmp_path / "file"), "--create")
    assert result.exit_code == 2
    assert "meanwhile" in result.stderr
    assert items_of(tmp_path) == [(7, "somebody's")]


def test_a_file_that_ends_earlier_than_it_did_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody writes it anew between the check and the first write: less than was checked is not all of it."""
    made_journal(tmp_path, [0])
    file = tmp_path / "file"
    file.write_text("".join(f'{{"position":{n},"item":{n}}}\n' for n in range(1, 10)))

    def check_and_shorten(*arguments: Any) -> range:
        positions = checked(*arguments)
        file.write_text('{"position":1,"item":1}\n')
        return positions

    checked = import_._checked
    monkeypatch.setattr(import_, "_checked", check_and_shorten)
    result = posjournal_run("import", str(tmp_path / "orders"), str(file))
    assert result.exit_code == 1
    assert "the file changed meanwhile" in result.stderr
    assert items_of(tmp_path) == [(0, 0)]


def test_an_item_larger_than_most_journals_take_comes_back(tmp_path: Path) -> None:
    """What a journal is opened with says how large its items may be, and an export does not say it."""
    item = bytes(64 * 2**20 + 1)

    async def make() -> None:
        path = tmp_path / "from" / "orders"
        async with Journal.open(path, codec=BytesCodec(), items_per_section=10, max_item_size=2**30) as journal:
            await journal.append(item)

    asyncio.run(make())
    file = str(tmp_path / "file")
    assert posjournal_run("export", str(tmp_path / "from" / "orders"), "-o", file).exit_code == 0
    result = posjournal_run("import", str(tmp_path / "to" / "orders"), file, "--create", "--codec", "bytes")
    assert (result.exit_code, result.stderr) == (0, "")
    assert (tmp_path / "to" / "orders_data" / f"{0:016x}").stat().st_size == 64 + 8 + len(item)


def test_a_line_has_room_for_each_item_that_a_journal_takes_unless_configured() -> None:
    """A control character is one byte of an item, and six of the JSON that is exported."""
    largest = Config(partition="orders").max_item_size
    assert len(text_of("\0" * 1_000)) == 6 * 1_000 + len('""')
    assert 6 * largest + len(f'{{"position":{2**64},"item":""}}\n') < exported._LONGEST_LINE


def test_parquet_has_two_columns_of_known_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And notes the codec of the journal; several row groups keep the order."""
    monkeypatch.setattr(arrow, "_GROUP_ROWS", 600)
    made_journal(tmp_path, [{"n": number} for number in range(1000)])
    file = tmp_path / "file.parquet"
    assert posjournal_run("export", str(tmp_path / "orders"), "-o", str(file)).exit_code == 0
    table = pq.read_table(file)
    assert table.schema.names == ["position", "item"]
    assert table.schema.types == [pa.uint64(), pa.string()]
    assert table.schema.metadata[b"posjournal.codec"] == b"msgpack"
    assert pq.ParquetFile(file).num_row_groups == 2
    assert table["position"].to_pylist() == list(range(1000))
    assert table["item"][999].as_py() == '{"n":999}'


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"item": ["1"]}, "expected the columns position and item, found 'item'"),
        ({"position": [0], "item": [1]}, "row 1: item: expected JSON as text, found int"),
        ({"position": [0, 1], "item": ["1", None]}, "row 2: item: expected JSON as text, found NoneType"),
        ({"position": ["0"], "item": ["1"]}, "row 1: position: expected a number from 0 on"),
        ({"position": [0], "item": ["one"]}, "row 1: expected JSON: expecting value, column 1"),
    ],
)
def test_parquet_of_another_kind_is_refused(tmp_path: Path, columns: dict[str, list[Any]], message: str) -> None:
    """With what is missing, or the row."""
    pq.write_table(pa.table(columns), tmp_path / "file")
    result = posjournal_run("import", str(tmp_path / "orders"), str(tmp_path / "file"), "--create")
    assert (result.exit_code, result.stderr) == (1, f"posjournal: {tmp_path / 'file'}: {message}\n")
    assert not (tmp_path / "orders_data").exists()


def test_without_the_extra_a_sentence_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON lines still work."""
    made_journal(tmp_path, [1])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with nullcontext(str(tmp_path / "orders")) as path:
        result = posjournal_run("export", path, "-o", str(tmp_path / "file.parquet"))
        assert result.exit_code == 2
        assert "Parquet needs the extra \"arrow\": pip install 'posjournal_async[arrow]'" in result.stderr
        assert not (tmp_path / "file.parquet").exists()
        assert posjournal_run("export", path, "-o", str(tmp_path / "file.jsonl")).exit_code == 0
