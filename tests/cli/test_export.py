"""`posjournal export`: every item in a form that says all of it, in a file that is whole or not there."""

from __future__ import annotations

import asyncio
import json
import math
import os
import resource
import stat
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING, Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posjournal_async import Config, Context, FileStorage, Journal
from posjournal_async.cli.json_form import NoJsonForm, item_in, parse_json, text_of
from posjournal_async.cli.replacing import replaced
from posjournal_async.cli.shown import json_of
from tests.cli.transcripts import STATES, agrees, made_journal, made_states, posjournal_run, started, tree_hash

if TYPE_CHECKING:
    from pathlib import Path

EXT_TYPE: Any = msgpack.ExtType

WEST = timezone(timedelta(hours=-3, minutes=-30))

KEYS = (
    st.text(max_size=4)
    | st.sampled_from(["base64", "timestamp", "ext", "float", "map", "repr", "too_deep"])
    | st.integers(-(2**63), 2**64 - 1)
    | st.binary(max_size=3)
    | st.none()
)
ITEMS = st.recursive(
    KEYS
    | st.booleans()
    | st.floats()
    | st.datetimes(allow_imaginary=False, timezones=st.sampled_from([UTC, WEST])).map(lambda time: time.replace(fold=0))
    | st.builds(EXT_TYPE, st.integers(0, 127), st.binary(max_size=3)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)


def exact(item: Any) -> Any:
    """Return what is equal for two items only if they are the same, types and order of keys included."""
    if isinstance(item, dict):
        return dict, [(exact(key), exact(value)) for key, value in item.items()]
    if isinstance(item, list):
        return list, [exact(part) for part in item]
    return type(item), repr(item.astimezone(UTC) if isinstance(item, datetime) else item)


def test_it_prints_what_its_transcript_says() -> None:
    """On journals in all states, for people and as JSON."""
    agrees("export")


# The form.


@settings(max_examples=60)
@given(ITEMS)
def test_an_item_comes_back_from_its_form(item: Any) -> None:
    """Whatever MessagePack knows; the form is one line of plain characters."""
    text = text_of(item)
    assert exact(item_in(text)) == exact(item)
    assert text.isascii()
    assert text.isprintable()


@settings(max_examples=40)
@given(ITEMS)
def test_the_form_is_that_of_the_commands_that_look(item: Any) -> None:
    """What `get` and `cat` print as JSON, `import` takes; but for the zone of a time, which is UTC here."""
    assert text_of(item) == text_of(item_in(json.dumps(json_of(item))))


@pytest.mark.parametrize(
    "item",
    [
        (1, 2),
        {1: [{2, 3}]},
        datetime(2026, 1, 31, 12, 0),  # noqa: DTZ001 - without a zone on purpose
        1j,
        type("Text", (str,), {})("text"),
    ],
)
def test_an_item_that_would_not_come_back_is_refused(item: Any) -> None:
    """Rather than written as something like it."""
    with pytest.raises(NoJsonForm, match="expected what JSON or MessagePack knows, found"):
        text_of(item)


def test_an_item_nested_too_deep_is_refused() -> None:
    """Both ways."""
    item: list[Any] = []
    for _ in range(100_000):
        item = [item]
    with pytest.raises(NoJsonForm, match="too deep"):
        text_of(item)
    with pytest.raises(NoJsonForm, match="too deep"):
        item_in("[" * 100_000 + "]" * 100_000)
    while item:  # by hand: the interpreter would follow it too deep
        item = item.pop()


@pytest.mark.parametrize(
    "text",
    [
        '{"base64":"AP8"}',
        '{"base64":"AP8=\\n"}',
        '{"base64":"\xe9"}',
        '{"base64":7}',
        '{"timestamp":"2026-01-31T12:00:00"}',
        '{"timestamp":"0001-01-01T00:00:00+10:00"}',
        '{"timestamp":7}',
        '{"ext":[1]}',
        '{"ext":[128,""]}',
        '{"ext":["1",""]}',
        '{"float":"NaN"}',
        '{"float":[]}',
        '{"map":7}',
        '{"map":["ab"]}',
        '{"map":[[1,2,3]]}',
        '{"map":[[1,2],[1,3]]}',
        '{"map":[[[],2]]}',
        '{"repr":"x"}',
        '{"too_deep":true}',
        '{"a":{"map":0}}',
        '{"a":1,"b":2,"a":3}',
        "NaN",
        "-Infinity",
        "1e400",
        "",
        "1 2",
        "{'a':1}",
    ],
)
def test_what_is_no_form_is_refused(text: str) -> None:
    """Rather than taken for something like it."""
    with pytest.raises(NoJsonForm):
        item_in(text)


@settings(max_examples=30)
@given(ITEMS)
def test_plain_json_is_taken_as_it_is(item: Any) -> None:
    """`append` sees nothing special in an object with a special key."""
    text = text_of(item)
    assert exact(parse_json(text)) == exact(json.loads(text))


# The file.


def test_nothing_of_the_journal_changes(tmp_path: Path) -> None:
    """No byte, no time and no name, whatever its state."""
    with made_states(tmp_path):
        before = tree_hash(tmp_path)
        codes = [posjournal_run("export", f"{state}/orders").exit_code for state in STATES]
        assert tree_hash(tmp_path) == before
    assert codes == [1 if state == "corrupt" else 0 for state in STATES]


def test_a_file_that_is_replaced_is_there_as_a_whole(tmp_path: Path) -> None:
    """The old one until the new one is complete; its mode stays, and a link to it leads to the new one."""
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_bytes(b"old")
    file.chmod(0o640)
    link.symlink_to(file)
    with replaced(link) as new:
        new.write(b"new")
        new.flush()
        assert file.read_bytes() == b"old"
    assert file.read_bytes() == b"new"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert link.is_symlink()
    with pytest.raises(OSError, match="no room"):
        write_and_fail(file)
    assert file.read_bytes() == b"new"
    assert sorted(tmp_path.iterdir()) == [file, link]


def write_and_fail(file: Path) -> None:
    with replaced(file) as new:
        new.write(b"newer")
        raise OSError("no room")


def test_a_new_file_has_the_mode_that_the_user_asked_for(tmp_path: Path) -> None:
    """That of the umask, not that of a temporary file."""
    mask = os.umask(0o027)
    try:
        with replaced(tmp_path / "file"):
            pass
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


@pytest.mark.parametrize("name", ["file.jsonl", "file.parquet"])
def test_a_full_disk_leaves_the_file_that_was_there(tmp_path: Path, name: str) -> None:
    """A limit on the length of a file stands for the disk: exit code 4, and nothing else in the directory."""
    made_journal(tmp_path / "journal", [os.urandom(1000) for _ in range(50)])
    target = tmp_path / "files" / name
    target.parent.mkdir()
    target.write_bytes(b"old")
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (8192, 8192))
    with started("export", str(tmp_path / "journal" / "orders"), "-o", str(target), preexec_fn=limit) as process:
        output, errors = process.communicate()
    assert (process.returncode, output) == (4, b"")
    assert b"file too large" in errors.lower()
    assert target.read_bytes() == b"old"
    assert list(target.parent.iterdir()) == [target]


def test_a_link_that_leads_to_itself_is_refused(tmp_path: Path) -> None:
    """There is no file to replace."""
    made_journal(tmp_path, [1])
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    result = posjournal_run("export", str(tmp_path / "orders"), "-o", str(tmp_path / "loop"))
    assert result.exit_code in {2, 4}  # Pythons differ in whether they find out themselves
    assert "loop" in result.stderr


def test_standard_output_that_is_full_is_told(tmp_path: Path) -> None:
    """Exit code 4, and one line that says why."""
    made_journal(tmp_path, list(range(25)))
    with open("/dev/full", "wb") as full, started("export", str(tmp_path / "orders"), stdout=full) as process:  # noqa: PTH123
        _, errors = process.communicate()
    assert process.returncode == 4
    assert errors == b"posjournal: no space left on device\n"


def test_an_item_without_a_form_ends_it(tmp_path: Path) -> None:
    """With its position; what was to be the file is not made."""
    made_journal(tmp_path, [1, 2], Tuples())
    target = tmp_path / "file.jsonl"
    codec = "tests.cli.test_export:Tuples"
    result = posjournal_run("export", str(tmp_path / "orders"), "-o", str(target), "--codec", codec)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "posjournal: position 0: expected what JSON or MessagePack knows, found tuple\n"
    assert not target.exists()


class Tuples:
    """A codec of items that no built-in one gives back."""

    name = "tuples"

    def encode(self, item: object) -> bytes:
        return repr(item).encode()

    def decode(self, data: bytes) -> tuple[bytes]:
        return (data,)


def test_it_works_beside_a_live_writer(tmp_path: Path) -> None:
    """What the writer has made durable is exported, and the writer does not notice."""

    async def write() -> None:
        config = Config(partition="orders", items_per_section=10)
        async with await Journal.init(Context(FileStorage(tmp_path)), config) as journal:
            await journal.append_many(range(25))
            await journal.sync_data()
            with await asyncio.to_thread(started, "export", str(tmp_path / "orders"), "--items-only") as process:
                output, errors = await asyncio.to_thread(process.communicate)
            assert (process.returncode, errors) == (0, b"")
            assert [int(line) for line in output.split()] == list(range(25))
            assert await journal.append(25) == 25

    asyncio.run(write())


@pytest.mark.parametrize("command", ["export", "cat", "tail"])
def test_a_rewind_of_what_was_read_ends_it(tmp_path: Path, command: str) -> None:
    """With exit code 1: what comes after may be of another history. `cat` and `tail` end so too."""
    made_journal(tmp_path, ["old" * 10_000] * 100)
    arguments = [str(tmp_path / "orders"), *(["-n", "100"] if command == "tail" else [])]

    async def write() -> None:
        config = Config(partition="orders", items_per_section=10)
        async with await Journal.init(Context(FileStorage(tmp_path)), config) as journal:
            with await asyncio.to_thread(started, command, *arguments) as process:
                assert process.stdout is not None
                assert b"old" in await asyncio.to_thread(process.stdout.read, 100)  # no pipe takes all of it
                await journal.rewind(5)
                await journal.append_many(["new" * 10_000] * 95)
                await journal.sync()
                _, errors = await asyncio.to_thread(process.communicate)
            assert process.returncode == 1
            assert b"a rewind has discarded some" in errors

    asyncio.run(write())


def test_numbers_that_are_none_are_kept(tmp_path: Path) -> None:
    """NaN and infinities are no JSON, and are told apart in it."""
    made_journal(tmp_path, [math.nan, math.inf, -math.inf, -0.0])
    result = posjournal_run("export", str(tmp_path / "orders"), "--items-only")
    assert result.stdout == '{"float":"nan"}\n{"float":"inf"}\n{"float":"-inf"}\n-0.0\n'
