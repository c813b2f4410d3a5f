"""The plugin for pytest, as a user of the journal has it: in a project of its own, on the command line."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.effort import effort

if TYPE_CHECKING:
    from collections.abc import Sequence

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
PLUGIN = "posjournal_async.testing.plugin"
EXAMPLES = ("outbox.py", "test_outbox.py")
STATES = effort(4, 200)

SERVICE = """
    import asyncio
    import pytest
    from pathlib import Path
    from posjournal_async import Config, Context, Journal, JournalError
    from posjournal_async.testing import CrashStorage, OrderingMonitor

    CONFIG = Config(partition="orders")

    async def good(storage, tell):
        async with await Journal.init(Context(storage), CONFIG) as journal:
            number = await journal.append("paid")
            await journal.sync_data()
            tell(number)

    async def hasty(storage, tell):
        async with await Journal.init(Context(storage), CONFIG) as journal:
            number = await journal.append("paid")
            tell(number)
            await journal.sync_data()

    async def check(storage, told):
        with Path("tried").open("a") as file:
            file.write(".")
        async with await Journal.init(Context(storage), CONFIG) as journal:
            for number in told:
                assert number in journal.bounds(), "an order is lost"
"""

GOOD = (
    SERVICE
    + """
    @pytest.mark.asyncio
    async def test_by_asyncio(crash_points):
        count = await crash_points(good, check)
        assert count > 300
        assert crash_points.tried == count

    @pytest.mark.asyncio
    async def test_twice(crash_points):
        first = await crash_points(good, check, states=2)
        await crash_points(good, check, states=2)
        assert crash_points.tried == 2 * first

    @pytest.fixture
    def anyio_backend():
        return "asyncio"

    @pytest.mark.anyio
    async def test_by_anyio(crash_points):
        assert await crash_points(good, check, states=2) > 30

    def test_by_itself(crash_points):
        assert asyncio.run(crash_points(good, check, states=2)) > 30

    @pytest.mark.asyncio
    async def test_as_the_test_says(crash_points):
        assert await crash_points(good, check, states=2) < await crash_points(good, check, states=3)

    def test_a_storage(crash_storage):
        assert isinstance(crash_storage, CrashStorage)
        assert crash_storage.tree() == {}

    @pytest.mark.asyncio
    async def test_a_monitor(monitored_storage):
        async with await Journal.init(Context(monitored_storage), CONFIG) as journal:
            monitored_storage.attach("orders", journal)
            await journal.append("paid")
            await journal.sync()
        assert isinstance(monitored_storage, OrderingMonitor)

    def test_a_seed(posjournal_seed):
        assert posjournal_seed == 0
"""
)

BAD = (
    SERVICE
    + """
    @pytest.mark.asyncio
    @pytest.mark.parametrize("service", [hasty, good], ids=["has ty", "good"])
    async def test_orders(service, crash_points):
        await crash_points(service, check, seed=3, states=9)

    @pytest.mark.asyncio
    async def test_monitor(monitored_storage):
        with pytest.raises(AssertionError):
            await monitored_storage.remove("orders_data", None)

    def test_a_seed(posjournal_seed):
        assert posjournal_seed == 7, "another seed"
"""
)


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project whose root conftest asks for the plugin."""
    pytester.makeconftest(f"pytest_plugins = [{PLUGIN!r}]")
    return pytester


def replayed(project: pytest.Pytester, line: str, *more: str) -> pytest.RunResult:
    """Run the line that a failure has printed, as somebody would who copies it."""
    program, *arguments = shlex.split(line)
    assert program == "pytest"
    return project.runpytest_subprocess(*arguments, *more)


def lines_again(outlines: Sequence[str]) -> list[str]:
    """Return the lines of an output that say how to try a state again."""
    return [found[1] for line in outlines if (found := re.match(r"E +again: (.*)", line))]


def states_tried(project: pytest.Pytester) -> int:
    """Return how many states were checked since this was asked last."""
    tried = project.path / "tried"
    count = len(tried.read_text()) if tried.exists() else 0
    tried.unlink(missing_ok=True)
    return count


def test_a_service_that_keeps_its_promises_passes(project: pytest.Pytester) -> None:
    """With asyncio's plugin, anyio's, and none; beside the other fixtures; in a worker of xdist."""
    project.makepyfile(GOOD)
    result = project.runpytest_subprocess("-n", "1")
    result.assert_outcomes(passed=8)
    result.stdout.fnmatch_lines(["posjournal: seed 0, 64 states at a moment"])


def test_a_planted_bug_is_found_and_tried_again_from_its_seed(project: pytest.Pytester) -> None:
    """The failure names moment, promises and state; the line that it prints fails alike, and tries no more."""
    project.makepyfile(BAD)
    result = project.runpytest_subprocess()
    result.assert_outcomes(passed=2, failed=2, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*OrderingViolation: remove in orders_data None: nobody has the lock",
            "*AssertionError: an order is lost*",
            "E * crash at moment *, right after telling, after telling [[]0[]]; state 0, process killed",
        ]
    )
    assert states_tried(project) > 100
    [again] = lines_again(result.outlines)
    assert re.fullmatch(
        r"pytest '\S+::test_orders\[has ty\]' --posjournal-seed=3 --posjournal-states=9 --posjournal-at=\d+:0", again
    )
    second = replayed(project, again)
    second.assert_outcomes(failed=1)
    second.stdout.fnmatch_lines(["posjournal: seed 3, 9 states at a moment, only *:0"])
    assert lines_again(second.outlines) == [again]
    assert states_tried(project) == 1
    # What the command line says wins over what the test says.
    third = project.runpytest_subprocess("--posjournal-seed=7", "--posjournal-states=5")
    third.assert_outcomes(passed=3, failed=1, errors=1)
    assert "--posjournal-seed=7 --posjournal-states=5" in lines_again(third.outlines)[0]


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_state_is_tried_again_where_pytest_was_started(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, workers: str
) -> None:
    """In a directory below the root, too: the line names the test as it is called from there."""
    project.makeini("[pytest]")
    file = project.makepyfile(BAD)
    folder = project.mkdir("orders")
    file.rename(folder / "test_orders.py")
    monkeypatch.chdir(folder)
    result = project.runpytest_subprocess("-n", workers, "-k", "has")
    result.assert_outcomes(failed=1)
    [again] = lines_again(result.outlines)
    assert again.startswith("pytest 'test_orders.py::test_orders[has ty]' ")
    second = replayed(project, again)
    second.assert_outcomes(failed=1)
    assert lines_again(second.outlines) == [again]


def test_a_state_that_is_not_there_fails_the_test(project: pytest.Pytester) -> None:
    """Otherwise a bug that moved to another moment would count as mended; tests that crash nothing do not care."""
    project.makepyfile(GOOD)
    result = project.runpytest_subprocess("--posjournal-at=9999:0", "-k", "by_itself or a_seed or by_asyncio")
    result.assert_outcomes(passed=1, failed=2, errors=2)
    expected = "*Failed: --posjournal-at: expected a moment and a state that this test tries, found 9999:0"
    result.stdout.fnmatch_lines([expected])
    assert states_tried(project) == 0


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--posjournal-seed=one", "expected a number of at least 0, found 'one'"),
        ("--posjournal-seed=-1", "expected a number of at least 0, found '-1'"),
        ("--posjournal-states=1", "states: expected at least 2, found 1"),
        ("--posjournal-states=1.5", "expected a number of at least 0, found '1.5'"),
        ("--posjournal-at=5", "expected two numbers as in 12:5, found '5'"),
        ("--posjournal-at=5:-1", "expected two numbers as in 12:5, found '5:-1'"),
        ("--posjournal-at=", "expected two numbers as in 12:5, found ''"),
    ],
)
def test_a_value_that_is_none_is_refused(pytester: pytest.Pytester, option: str, message: str) -> None:
    """Before any test runs, with a sentence that says what was expected."""
    with pytest.raises(pytest.UsageError, match=f"{option.partition('=')[0]}: {re.escape(message)}"):
        pytester.parseconfig("-p", PLUGIN, option)


def test_a_wrong_value_ends_with_the_code_of_a_usage_error(pytester: pytest.Pytester) -> None:
    """As any other wrong use of the command line does."""
    result = pytester.runpytest_subprocess("-p", PLUGIN, "--posjournal-at=here")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*argument --posjournal-at: expected two numbers as in 12:5, found 'here'"])


def test_nobody_has_the_plugin_who_does_not_ask_for_it(pytester: pytest.Pytester) -> None:
    """The library without the extra `testing` breaks no pytest."""
    with pytest.raises(pytest.UsageError, match="unrecognized arguments: --posjournal-seed=1"):
        pytester.parseconfig("--posjournal-seed=1")


@pytest.fixture
def outbox(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project that has the example copied, and no conftest."""
    for name in EXAMPLES:
        (pytester.path / name).write_text((ROOT / "examples" / name).read_text())
    return pytester


def test_the_bugs_of_the_example_are_found_and_tried_again(outbox: pytest.Pytester) -> None:
    """The right outbox passes; the lines that the others print ask for the plugin as the first run did."""
    result = outbox.runpytest_subprocess("-p", PLUGIN, "--runxfail", f"--posjournal-states={STATES}")
    result.assert_outcomes(passed=1, failed=3)
    result.stdout.fnmatch_lines(
        [
            "*Extra items in the left set:",
            "E * crash at moment *, right after telling, after telling [[]('accepted', *state *, *",
            "E *assert [[]0, 1, 2, 2[]] == [[]0, 1, 2, 3[]]",
            "E * crash at moment *, after telling *'sent'*state *, *",
            "E *ItemPruned: position: expected one from the pruning boundary 3 on, found 2",
            "E * crash at moment *, in the * of *, after telling *'sent'*state *, *",
        ]
    )
    hasty, _, forgetful = lines_again(result.outlines)
    assert f"-p {PLUGIN} --posjournal-seed=0 --posjournal-states={STATES} --posjournal-at=" in hasty
    again = replayed(outbox, forgetful, "--runxfail")
    again.assert_outcomes(failed=1)
    assert lines_again(again.outlines) == [forgetful]
    replayed(outbox, hasty).assert_outcomes(xfailed=1)


def test_the_example_goes_on_where_it_ended(tmp_path: Path) -> None:
    """A second run on a directory delivers what is new, under the numbers that follow."""
    for first in (0, 3):
        command = [sys.executable, str(ROOT / "examples" / "outbox.py"), str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        assert done.stdout.splitlines() == [
            f"accepted {first} {first + 1} {first + 2}",
            f"delivered {first}: {{'book': 'Emma'}}",
            f"delivered {first + 1}: {{'book': 'Dune'}}",
            f"delivered {first + 2}: {{'book': 'Ulysses'}}",
        ]
