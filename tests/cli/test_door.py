"""The door of the command: where it is found, what it needs, and that looking leaves no trace."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click
import pytest

import posjournal_async
from posjournal_async import FileStorage
from posjournal_async.cli.app import posjournal
from posjournal_async.inspection.view import JournalView
from tests.cli.transcripts import CHECKOUT, STATES, made_journal, made_states, posjournal_run, started, tree_hash
from tests.journals import damage

SITE_PACKAGES = Path(click.__file__).parents[1]

LOOKS = [
    ("info",),
    ("info", "--exact", "--headers", "--json"),
    ("ls",),
    ("ls", "--json"),
    ("get", "0", "11", "24", "99"),
    ("get", "0", "--raw"),
    ("cat",),
    ("cat", "--json", "--from", "5"),
]


def look(look: tuple[str, ...], path: str) -> tuple[str, ...]:
    return look[0], path, *look[1:]


@pytest.mark.parametrize("command", LOOKS, ids=" ".join)
def test_looking_leaves_everything_as_it_was(tmp_path: Path, command: tuple[str, ...]) -> None:
    """No byte, no time of a change, no mode and no name is another afterwards, whatever the state of the journal."""
    with made_states(tmp_path):
        before = tree_hash(tmp_path)
        results = [posjournal_run(*look(command, f"{state}/orders")) for state in STATES]
        assert tree_hash(tmp_path) == before
    assert all(result.exit_code in {0, 1} for result in results)


def test_a_missing_journal_is_not_made(tmp_path: Path) -> None:
    """Nor anything of it."""
    for command in LOOKS:
        assert posjournal_run(*look(command, str(tmp_path / "orders"))).exit_code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", LOOKS, ids=" ".join)
def test_a_directory_that_must_not_be_written_to_is_looked_at(tmp_path: Path, command: tuple[str, ...]) -> None:
    """Nobody needs more than the right to read."""
    made_journal(tmp_path, list(range(25)))
    for place in (*tmp_path.rglob("*"), tmp_path):
        place.chmod(stat.S_IRUSR | (stat.S_IXUSR if place.is_dir() else 0))
    try:
        arguments = [*without_privileges(), sys.executable, "-m", "posjournal_async"]
        found = subprocess.run(
            [*arguments, *look(command, str(tmp_path / "orders"))], cwd=CHECKOUT, capture_output=True, check=False
        )
        has_all = "99" not in command
        assert found.returncode == (0 if has_all else 1), found.stderr
        assert found.stdout
    finally:
        for place in (tmp_path, *tmp_path.rglob("*")):
            place.chmod(stat.S_IRWXU)


def test_what_must_not_be_read_is_a_matter_of_the_system(tmp_path: Path) -> None:
    """The exit code of I/O, and what the system says."""
    made_journal(tmp_path, list(range(25)))
    path = tmp_path / "orders_data" / "0000000000000001"
    path.chmod(0)
    found = subprocess.run(
        [*without_privileges(), sys.executable, "-m", "posjournal_async", "cat", str(tmp_path / "orders")],
        cwd=CHECKOUT,
        capture_output=True,
        check=False,
    )
    assert found.returncode == 4
    assert found.stdout.startswith(b" 0  0\n")
    assert b"permission denied (partition orders_data, blob 0000000000000001)" in found.stderr


def test_output_that_is_closed_is_told_before_anything_is_done(tmp_path: Path) -> None:
    """As `>&-` has it: nobody would be told what became of it."""
    made_journal(tmp_path, [0])
    before = tree_hash(tmp_path)
    for command in (("append",), ("cat",), ("get", "0"), ("--help",)):
        name, *arguments = command
        paths = [] if name == "--help" else [str(tmp_path / "orders")]
        with started(name, *paths, *arguments, preexec_fn=partial(os.close, 1)) as process:
            _, errors = process.communicate(b"1\n")
        assert (errors, process.returncode) == (b"posjournal: standard output is closed\n", 4)
    assert tree_hash(tmp_path) == before


@pytest.mark.parametrize(
    ("command", "output", "code"),
    [
        (("get", "0", "99"), b" 0  0\n", 1),
        (("append",), b"appended 1 item, position 25\n", 0),
        (("prune", "10"), b"", 2),
    ],
)
def test_messages_that_nobody_wants_keep_nothing_from_being_done(
    tmp_path: Path, command: tuple[str, ...], output: bytes, code: int
) -> None:
    """As `2>&-` has it: the results and the exit code are those that there are with messages."""
    made_journal(tmp_path, list(range(25)))
    with started(*look(command, str(tmp_path / "orders")), preexec_fn=partial(os.close, 2)) as process:
        found, _ = process.communicate(b"25\n")
    assert (found, process.returncode) == (output, code)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
@pytest.mark.parametrize("command", ["--help", "--version"])
def test_help_that_finds_no_room_is_told(command: str) -> None:
    """The exit code of I/O, as with every other result, and no traceback."""
    with Path("/dev/full").open("wb") as full, started(command, stdout=full) as process:
        _, errors = process.communicate()
    assert (errors, process.returncode) == (b"posjournal: no space left on device\n", 4)


def test_an_interruption_before_the_command_is_there_ends_it_with_a_word(tmp_path: Path) -> None:
    """Ctrl-C while it is still being imported, for which a package stands that is struck by it."""
    (tmp_path / "click.py").write_text("raise KeyboardInterrupt")
    with started("info", "x", env={**os.environ, "PYTHONPATH": str(tmp_path)}) as process:
        output, errors = process.communicate()
    assert (output, errors, process.returncode) == (b"", b"posjournal: interrupted\n", 130)


def as_root() -> bool:
    return os.geteuid() == 0


def without_privileges() -> list[str]:
    """What starts a command as somebody to whom modes apply: root is asked to do without its capabilities."""
    if not as_root():
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("root may do everything, and setpriv, which takes that away, is not here")
    return [setpriv, "--bounding-set=-all", "--inh-caps=-all"]


def test_without_the_extra_a_sentence_names_it(tmp_path: Path) -> None:
    """In an environment that has all the library needs, and neither click nor rich."""
    for path in SITE_PACKAGES.iterdir():
        if not path.name.startswith(("click", "rich", "__pycache__")) and path.suffix != ".pth":
            (tmp_path / path.name).symlink_to(path)
    environment = {"PYTHONPATH": f"{tmp_path}:{CHECKOUT}", "PYTHONDONTWRITEBYTECODE": "1"}
    found = subprocess.run(
        [sys.executable, "-S", "-m", "posjournal_async", "info", "x"], capture_output=True, env=environment, check=False
    )
    assert found.stderr == b"posjournal needs the extra \"cli\": pip install 'posjournal_async[cli]'\n"
    assert (found.returncode, found.stdout) == (2, b"")
    library = subprocess.run(
        [sys.executable, "-S", "-c", "import posjournal_async, posjournal_async.inspection.view"],
        capture_output=True,
        env=environment,
        check=False,
    )
    assert (library.returncode, library.stderr) == (0, b"")
    (tmp_path / "msgpack").unlink()
    broken = subprocess.run(
        [sys.executable, "-S", "-m", "posjournal_async", "info", "x"], capture_output=True, env=environment, check=False
    )
    assert b"No module named 'msgpack'" in broken.stderr


def test_it_says_its_version() -> None:
    """That of the installed library."""
    result = posjournal_run("--version")
    assert result.stdout.startswith("posjournal ")
    assert result.exit_code == 0


@pytest.mark.parametrize("name", list(posjournal.commands))
def test_each_command_explains_itself(name: str) -> None:
    """By -h and --help, with an example; and it has --json."""
    short, long = posjournal_run(name, "-h"), posjournal_run(name, "--help")
    assert short.stdout == long.stdout
    assert "Example" in short.stdout
    assert f"posjournal {name} " in short.stdout.split("Example")[1]
    assert "--json" in short.stdout


def test_each_command_is_in_the_help() -> None:
    """With what it is for."""
    printed = posjournal_run("--help").stdout.split("Commands:")[1]
    assert [line.split()[0] for line in printed.splitlines() if line[2:3].strip()] == list(posjournal.commands)


@pytest.mark.parametrize("name", list(posjournal.commands))
def test_the_help_of_a_command_ends_with_lines_to_copy(name: str) -> None:
    """Its examples keep their lines, and no mark of how they are kept is shown."""
    printed = posjournal_run(name, "--help").stdout
    assert "\\b" not in printed
    assert f"\n    posjournal {name} " in printed


def test_a_lock_is_neither_taken_nor_needed(tmp_path: Path) -> None:
    """A second process that looks does not keep the journal from being opened, nor the other way round."""
    made_journal(tmp_path, ["x" * 1_000] * 300)
    with started("cat", str(tmp_path / "orders")) as process:
        assert process.stdout is not None
        os.read(process.stdout.fileno(), 1)
        asyncio.run(open_once(tmp_path))
        output, errors = process.communicate()
    assert (len(output.splitlines()), errors, process.returncode) == (300, b"", 0)


@pytest.mark.parametrize("command", ["cat", "tail", "stats", "export"])
def test_a_journal_that_nothing_explains_is_not_taken_for_an_empty_one(tmp_path: Path, command: str) -> None:
    """Neither a checkpoint nor a header is left: there are items, and nothing leads to them."""
    made_journal(tmp_path, list(range(5)))
    for blob in (tmp_path / "orders_checkpoint" / "0000000000000000", tmp_path / "orders_data" / "0000000000000000"):
        blob.write_bytes(b"?" * blob.stat().st_size)
    result = posjournal_run(command, str(tmp_path / "orders"))
    assert (result.stdout, result.exit_code) == ("", 1)
    assert result.stderr.startswith("posjournal: checkpoint: expected one valid slot")


@pytest.mark.parametrize("is_destroyed", [False, True])
@pytest.mark.parametrize(
    ("command", "code"), [(("get", "3"), 1), (("cat",), 1), (("export",), 1), (("stats",), 1), (("info",), 0)]
)
def test_a_reset_while_somebody_looks_is_told_as_that(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
    code: int,
    is_destroyed: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """Positions that were asked for are not there any more; nothing is wrong, and no option was. So it is destroyed."""
    made_journal(tmp_path, list(range(25)))
    load = JournalView.load

    async def load_and_reset(*arguments: Any, **settings: Any) -> JournalView:
        view = await load(*arguments, **settings)
        config = posjournal_async.Config(partition="orders", items_per_section=10)
        context = posjournal_async.Context(FileStorage(tmp_path))
        async with await posjournal_async.Journal.init_at_size(context, config, 0) as other:
            await other.append_many(["another"] * 25)
            if is_destroyed:
                await other.destroy()
        return view

    monkeypatch.setattr(JournalView, "load", load_and_reset)
    result = posjournal_run(*look(command, str(tmp_path / "orders")))
    assert "another" not in result.stdout
    assert result.exit_code == code
    assert ("that it was reset or destroyed since" in result.stderr) == bool(code)


async def open_once(root: Path) -> None:
    async with posjournal_async.Journal.open(root / "orders", items_per_section=10) as journal:
        await journal.append("more")


def test_a_damaged_checkpoint_does_not_keep_it_from_looking(tmp_path: Path) -> None:
    """Wherever its bytes are damaged, the items that are there are shown."""
    made_journal(tmp_path, list(range(25)))
    for offset in (0, 20, 60, 4_096, 4_160):
        asyncio.run(damage(FileStorage(tmp_path), 0, offset, partition="orders_checkpoint"))
        result = posjournal_run("cat", str(tmp_path / "orders"))
        assert result.stdout.split() == [str(number // 2) for number in range(50)]
