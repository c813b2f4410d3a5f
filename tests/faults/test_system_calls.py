"""System calls below a `FileStorage` do less than they should, or fail: the journal is as good as its files."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import secrets
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from posjournal_async import Context, FileStorage, Journal
from tests.effort import effort
from tests.faults.lives import LIVES, PATIENCE_SECONDS, Life, live, look_at
from tests.faults.system_calls import CALLS, SystemCalls, failing, shortening
from tests.format.writer import read_checkpoint, read_journal
from tests.journals import open_files
from tests.recovery.journals import tree_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.faults.system_calls import Made

CODES = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE)
SHORTER: dict[str, Callable[[int], int]] = {
    "nothing": lambda _: 0,
    "one byte": lambda _: 1,
    "half": lambda length: length // 2,
    "all but one": lambda length: length - 1,
}
PWRITE = frozenset({"pwrite"})

# Calls that may fail unnoticed: those of readers, and what releases directories and handles that were only read.
QUIET = {"close", "fstat", "open", "pread"}


# Short writes.


async def files_of_a_life(root: Path, instead: Callable[[Made], Any]) -> tuple[dict[str, bytes], int]:
    """Live with writes that are made in another way; return the files, and how many writes were made."""
    config, steps = LIVES["alone"]
    with pytest.MonkeyPatch.context() as patch, SystemCalls(instead, PWRITE) as calls:
        patch.setattr(secrets, "randbits", random.Random(7).getrandbits)
        assert await live(Life(FileStorage(root), config), steps) is None
    return tree_of(root), len(calls.made)


async def test_a_write_that_is_cut_short_is_continued(tmp_path: Path) -> None:
    """Whichever write stores a part only, or nothing once, the files are in the end what they would have been (A1)."""
    whole, count = await files_of_a_life(tmp_path / "whole", shortening(lambda length: length))
    assert count > 30
    names = list(SHORTER)
    for number in range(1, count + 1):
        for name in effort([names[number % len(names)]], names):
            short = shortening(SHORTER[name], number.__eq__)
            found, made = await files_of_a_life(tmp_path / f"{number} {name}", short)
            assert found == whole, f"write {number}, {name}"
            assert made == count + 1, f"write {number}, {name}"


@pytest.mark.parametrize("name", ["one byte", "half", "all but one"])
async def test_writes_that_are_all_cut_short_are_continued(name: str, tmp_path: Path) -> None:
    """A device that takes little at a time gets the same bytes (A1)."""
    whole, count = await files_of_a_life(tmp_path / "whole", shortening(lambda length: length))
    found, made = await files_of_a_life(tmp_path / "short", shortening(lambda length: max(1, SHORTER[name](length))))
    assert found == whole
    assert made >= 2 * count


def nothing_from(number: int) -> Callable[[Made], int]:
    """Return how to make writes that store nothing from the given one on."""

    def instead(made: Made) -> int:
        assert made.number < number + 4, "it is tried over and over"
        return 0 if made.number >= number else made.make()

    return instead


async def test_a_device_that_takes_nothing_fails_the_journal(tmp_path: Path) -> None:
    """A write that stores nothing again and again is an error, not a loop (F1, F3)."""
    config, steps = LIVES["alone"]
    _, count = await files_of_a_life(tmp_path / "whole", shortening(lambda length: length))
    for number in range(1, count + 1, effort(5, 1)):
        root = tmp_path / str(number)
        life = Life(FileStorage(root), config)
        async with asyncio.timeout(PATIENCE_SECONDS):
            with SystemCalls(nothing_from(number), PWRITE):
                failed = await live(life, steps, code=errno.EINTR)
        assert failed is not None
        await look_at(FileStorage(root), config, life.oracle)


# Failures.


async def calls_of(name: str, root: Path) -> list[str]:
    """Return the system calls of a life in which nothing fails."""
    config, steps = LIVES[name]
    with SystemCalls() as calls:
        assert await live(Life(FileStorage(root), config), steps) is None
    return calls.made


def chosen(calls: list[str], turn: int) -> list[int]:
    """Return the numbers of calls that are to fail: some of each name, or all when there is time."""
    numbers: list[int] = []
    for name in sorted(set(calls)):
        those = [number for number, called in enumerate(calls, 1) if called == name]
        stride = effort(max(1, len(those) // 3), 1)
        numbers += those[turn % stride :: stride]
    return numbers


def kinds_for(name: str, turn: int) -> list[tuple[int, bool]]:
    """Return error numbers, and whether the failed call has taken effect; they take turns unless there is time.

    Without EROFS of `open`, after which what is there is opened for reading: no system says so of a missing file.
    """
    codes = [code for code in CODES if (name, code) != ("open", errno.EROFS)]
    kinds = [(code, takes_effect) for code in codes for takes_effect in (False, True)]
    return effort([kinds[turn * 7 % len(kinds)]], kinds)


async def fail_at(root: Path, name: str, number: int, code: int, *, once: bool, takes_effect: bool) -> list[str]:
    """Let a system call in a life fail and check all there is to check; return the files that are left open."""
    config, steps = LIVES[name]
    instead = failing(number, code, once=once, takes_effect=takes_effect)
    life = Life(FileStorage(root), config)
    async with asyncio.timeout(PATIENCE_SECONDS):
        with SystemCalls(instead) as calls:
            failed = await live(life, steps, code=code, reads_work=once)
    # A directory that is there was made, whatever the call said.
    quiet = QUIET | {"mkdir"} if takes_effect else QUIET
    # Where tasks do all of it at once, it may take a call less than the time before.
    assert failed is not None or {*calls.made[number - 1 : number]} <= quiet, "a failure was not noticed"
    left_open = [file for file in open_files() if file.startswith(str(root))]
    found = read_journal(root, "orders", after_crash=True)
    checkpoint = read_checkpoint(root, "orders")
    if checkpoint is not None and checkpoint.reset is None:
        life.oracle.check(range(checkpoint.boundary, checkpoint.boundary + len(found)), found)
    async with await Journal.init(Context(FileStorage(root)), config) as journal:
        shown = [pair async for pair in journal.replay(journal.bounds().start)]
    assert shown == found, "recovery finds something else than the independent reader"
    await look_at(FileStorage(root), config, life.oracle)
    return left_open


@pytest.mark.parametrize("once", [True, False], ids=["once", "for ever"])
@pytest.mark.parametrize("name", ["alone", "at once", "opened again"])
async def test_a_failure_of_any_system_call_loses_nothing_that_was_acknowledged(
    name: str,
    once: bool,  # noqa: FBT001 - parameter
    tmp_path: Path,
) -> None:
    """The journal stops, lets everything go, and its files hold what it promised (D1, D2, D5, F1, F3)."""
    calls = await calls_of(name, tmp_path / "whole")
    assert set(calls) <= set(CALLS)
    left_open: Counter[str] = Counter()
    for number in chosen(calls, once):
        for code, takes_effect in kinds_for(calls[number - 1], number):
            what = f"{name}: call {number}, {calls[number - 1]}, {errno.errorcode[code]}, takes effect: {takes_effect}"
            root = tmp_path / f"{number} {code} {takes_effect}"
            try:
                left = await fail_at(root, name, number, code, once=once, takes_effect=takes_effect)
            except BaseException as error:
                error.add_note(what)
                raise
            if left:
                left_open[what] += 1
    assert not left_open


@pytest.mark.parametrize("code", [errno.EIO, errno.EOPNOTSUPP, errno.EAGAIN])
async def test_reads_at_once_that_fail_are_made_by_a_thread(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the one call on the event loop says, the items are read (F1, L1)."""
    failed = 0

    def preadv(*_: object) -> int:
        nonlocal failed
        failed += 1
        raise OSError(code, "no")

    monkeypatch.setattr(os, "preadv", preadv)
    config, steps = LIVES["alone"]
    assert await live(Life(FileStorage(tmp_path), config), steps) is None
    assert failed > 0
