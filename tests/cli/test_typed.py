"""What the command makes of typed items, whose type it does not have."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec
import pytest

from posjournal_async import BytesCodec, Journal
from posjournal_async.codecs.msgspec import MsgspecCodec
from posjournal_async.inspection.states import codec_expected

if TYPE_CHECKING:
    from pathlib import Path


class First(msgspec.Struct):
    """An order as it was."""

    number: int


class Second(msgspec.Struct):
    """An order as it is."""

    number: int
    state: str


def posjournal(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "posjournal_async", *arguments]
    return subprocess.run(program, capture_output=True, text=True, input=text, check=False)


async def two_versions(root: Path) -> str:
    """Write a journal whose first sections were made by an older version of its codec, and return its path."""
    path = root / "orders"
    async with Journal.open(path, codec=MsgspecCodec(First), items_per_section=4) as journal:
        await journal.append_many([First(number) for number in range(6)])
    codec = MsgspecCodec(Second, version=2, upcasters={1: lambda old: {**old, "state": "new"}})
    async with Journal.open(path, codec=codec, items_per_section=4) as journal:
        await journal.append_many([Second(number, "paid") for number in range(6, 12)])
    return str(path)


@pytest.mark.parametrize(
    "command", [["info"], ["ls"], ["verify", "--deep"], ["stats"], ["repair", "--dry-run"], ["cat"], ["tail"]]
)
async def test_sections_of_an_older_version_are_the_journals_own(command: list[str], tmp_path: Path) -> None:
    """Their headers name the older version, and nothing is wrong with that."""
    path = await two_versions(tmp_path)
    done = posjournal(command[0], path, *command[1:])
    assert done.returncode == 0, done.stderr
    assert not {"foreign", "corrupt"} & set((done.stdout + done.stderr).replace(":", " ").split())


async def test_items_are_shown_without_their_type_and_changed_by_the_other_commands(tmp_path: Path) -> None:
    """The version that each begins with is no part of the item; a new one gets the newest."""
    path = await two_versions(tmp_path)
    assert posjournal("rewind", path, "9", "--yes").returncode == 0
    assert posjournal("append", path, text='{"number":9,"state":"sent"}\n').returncode == 0
    shown = [json.loads(line)["item"] for line in posjournal("cat", path, "--json").stdout.splitlines()]
    assert shown == [
        *({"number": number} for number in range(6)),
        *({"number": number, "state": "paid"} for number in range(6, 9)),
        {"number": 9, "state": "sent"},
    ]
    codec = MsgspecCodec(Second, version=2, upcasters={1: lambda old: {**old, "state": "new"}})
    async with Journal.open(path, codec=codec, items_per_section=4) as journal:
        assert await journal.read(9) == Second(9, "sent")


@pytest.mark.parametrize(
    ("recorded", "found", "expected"),
    [
        ("mp/2", "mp/1", "mp/1"),
        ("mp/10", "mp/9", "mp/9"),
        ("mp/2", "mp/2", "mp/2"),
        ("mp/1", "mp/2", "mp/1"),
        ("mp/2", "json/1", "mp/2"),
        ("msgpack", "json", "msgpack"),
        ("mp/2", "mp/", "mp/2"),
        ("mp/2", "mp", "mp/2"),
        ("upper", "text", "text"),
        ("upper/b", "msgpack", "msgpack"),
    ],
)
def test_only_an_older_version_of_the_same_codec_is_expected(recorded: str, found: str, expected: str) -> None:
    """A newer one, or another encoding, is what no journal of that checkpoint has, unless the codec is not ours."""
    assert codec_expected(recorded, found) == expected


class Text(BytesCodec):
    """A codec of somebody's own."""

    name = "text"


class Upper(Text):
    """Another one, which has taken over from it."""

    name = "upper"

    def accepts(self, name: str) -> bool:
        return name == "text"


async def test_a_journal_that_a_codec_of_somebodys_own_took_over_is_sound(tmp_path: Path) -> None:
    """Only the service's code can say what its codec reads; the headers are good, and are this journal's."""
    path = tmp_path / "orders"
    for codec in (Text(), Upper()):
        async with Journal.open(path, codec=codec, items_per_section=4) as journal:
            await journal.append_many([b"item"] * 6)
    looked = posjournal("verify", str(path), "--json")
    assert (looked.returncode, json.loads(looked.stdout)["findings"]) == (0, {"torn": 0, "stale": 0, "corrupt": 0})
    sections = json.loads(posjournal("info", str(path), "--json").stdout)
    assert "foreign" not in json.dumps(sections)
