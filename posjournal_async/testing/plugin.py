"""Fixtures for pytest that crash a service at every point, and the options that say how hard, and which state again.

Not loaded by itself: put this into the `conftest.py` of the root directory,

    pytest_plugins = ["posjournal_async.testing.plugin"]

or `-p posjournal_async.testing.plugin` on the command line.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest

from posjournal_async.storage.memory import MemoryStorage
from posjournal_async.testing.crash import CrashStorage
from posjournal_async.testing.monitor import OrderingMonitor
from posjournal_async.testing.points import check_states, try_points

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from posjournal_async.testing.points import Check, Service

__all__ = ["CrashPoints"]

_SEED = 0
_STATES = 64


class CrashPoints:
    """`posjournal_async.testing.crash_points` for one test, as the options of the command line say.

    An option that is given wins over what the test says, so that the line that a failure prints tries the same again.

    Attributes:
        tried: How many states were checked in this test.
    """

    def __init__(self, config: pytest.Config, test: pytest.Item) -> None:
        """Read the options; the fixture `crash_points` is what a test asks for."""
        self._seed: int | None = config.option.posjournal_seed
        self._states: int | None = config.option.posjournal_states
        self._at: tuple[int, int] | None = config.option.posjournal_at
        # The id of a test is relative to the root directory, and pytest may have been started in another one.
        file = os.path.relpath(test.path, config.invocation_params.dir)
        self._command = ["pytest", f"{file}::{test.nodeid.partition('::')[2]}"]
        if __name__ in config.option.plugins:
            self._command += ["-p", __name__]
        self.tried = 0

    async def __call__(self, service: Service, check: Check, *, seed: int = _SEED, states: int = _STATES) -> int:
        """Run a service, and check each state in which a crash at any moment may leave its storage.

        Args:
            service: Called with the storage and with a function to tell what the service has promised somebody; what is
                told is copied.
            check: Called for each state with the storage as the crash left it and with what was told before.
            seed: What chance is taken from, unless `--posjournal-seed` says otherwise.
            states: How many ways of a power cut are tried at each moment, at least 2, unless `--posjournal-states`
                says otherwise.

        Returns:
            How many states were checked.

        Raises:
            ValueError: `states` is less than 2.
            RuntimeError: Another run is under way in this process, or something was told after the service's end.
            BaseException: What the service raised; or what `check` raised, with a note that says how to try that state
                again, and one if the service does something else each time.
        """
        chosen_seed = seed if self._seed is None else self._seed
        chosen_states = states if self._states is None else self._states
        check_states(chosen_states)

        def again(moment: int, state: int) -> str:
            options = {"seed": chosen_seed, "states": chosen_states, "at": f"{moment}:{state}"}
            return shlex.join([*self._command, *(f"--posjournal-{name}={value}" for name, value in options.items())])

        async def count_and_check(storage: CrashStorage, told: Sequence[Any]) -> None:
            __tracebackhide__ = True
            self.tried += 1
            await check(storage, told)

        __tracebackhide__ = True
        return await try_points(
            service, count_and_check, seed=chosen_seed, states=chosen_states, at=self._at, again=again
        )


@pytest.fixture
def crash_storage() -> CrashStorage:
    """A storage whose machine may crash, empty."""
    return CrashStorage()


@pytest.fixture
def crash_points(request: pytest.FixtureRequest) -> Iterator[CrashPoints]:
    """Return what crashes a service at every point, and checks what is left.

    Awaited as `crash_points(service, check)`. A test that is to try one state again, and does not come by it, fails.
    """
    points = CrashPoints(request.config, request.node)
    yield points
    at = request.config.option.posjournal_at
    if at is not None and not points.tried:
        pytest.fail(f"--posjournal-at: expected a moment and a state that this test tries, found {at[0]}:{at[1]}")


@pytest.fixture
def monitored_storage() -> Iterator[OrderingMonitor]:
    """A storage in memory that watches the order of durable steps; what it objected to fails the test at its end."""
    with OrderingMonitor(MemoryStorage()) as monitor:
        yield monitor


@pytest.fixture
def posjournal_seed(pytestconfig: pytest.Config) -> int:
    """The seed of the command line, for what the test itself takes from chance."""
    return _SEED if pytestconfig.option.posjournal_seed is None else pytestconfig.option.posjournal_seed


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("posjournal", "crashing services that keep a journal (posjournal_async)")
    group.addoption(
        "--posjournal-seed",
        type=_seed_of,
        metavar="N",
        help=f"what chance is taken from (default: what the test says, else {_SEED})",
    )
    group.addoption(
        "--posjournal-states",
        type=_states_of,
        metavar="N",
        help=f"ways of a power cut tried at each moment, at least 2 (default: what the test says, else {_STATES})",
    )
    group.addoption(
        "--posjournal-at",
        type=_at_of,
        metavar="MOMENT:STATE",
        help="try only this state, of which a failure has told the numbers, with its seed and states",
    )


def pytest_report_header(config: pytest.Config) -> str:
    """Say which options hold."""
    option: Any = config.option
    seed = _SEED if option.posjournal_seed is None else option.posjournal_seed
    states = _STATES if option.posjournal_states is None else option.posjournal_states
    only = "" if option.posjournal_at is None else ", only {}:{}".format(*option.posjournal_at)
    return f"posjournal: seed {seed}, {states} states at a moment{only}"


def _seed_of(text: str) -> int:
    return _number_of(text)


def _states_of(text: str) -> int:
    states = _number_of(text)
    try:
        check_states(states)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return states


def _at_of(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+):(\d+)", text, re.ASCII)
    if found is None:
        raise argparse.ArgumentTypeError(f"expected two numbers as in 12:5, found {text!r}")
    return int(found[1]), int(found[2])


def _number_of(text: str) -> int:
    if not re.fullmatch(r"\d+", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, found {text!r}")
    return int(text)
