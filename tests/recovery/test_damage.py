"""Damage each byte, each length and each file of a small journal: never another item, never another exception."""

from __future__ import annotations

import shutil
from itertools import permutations
from typing import TYPE_CHECKING

import pytest

from posjournal_async import CodecError, Corruption, InvalidConfiguration
from posjournal_async.testing import CrashStorage
from tests.format import writer
from tests.recovery.journals import CONFIG, ITEMS, lay_out, show, tree_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.recovery.journals import Shown

REFUSALS = (Corruption, InvalidConfiguration, CodecError)

SIZE = 23
FILES = [
    f"orders_{part}/{section:016x}"
    for part, sections in (("data", (0, 1, 2)), ("offsets", (0, 1, 2)), ("checkpoint", (0,)))
    for section in sections
]


class Damage:
    """A journal that is damaged again and again, and what opening it does each time."""

    def __init__(self, root: Path, durable: int, start: int) -> None:
        lay_out(root, SIZE, start=start, durable=durable)
        slots = [
            writer.checkpoint_slot(
                sequence=sequence,
                journal_id=0x0123_4567_89AB_CDEF,
                items_per_section=10,
                durable=size,
                boundary=start,
            )
            for sequence, size in ((8, durable), (9, durable))
        ]
        (root / FILES[-1]).write_bytes(writer.checkpoint_blob(slots))
        self.root = root
        self.durable = durable
        self.start = start
        self.sound = tree_of(root)
        self.checks = 0

    async def check(self, files: dict[str, bytes], what: object) -> Shown | None:
        """Open and read the journal with these files; hold the outcome against what is allowed.

        In memory, which is quick; every tenth time in files too.
        """
        self.checks += 1
        places: list[Path | CrashStorage] = [CrashStorage.holding({_key(name): files[name] for name in files})]
        if self.checks % 10 == 0:
            write_files(self.root, files)
            places.append(self.root)
        shown = None
        for place in places:
            try:
                shown = await self.check_in(place, files)
            except BaseException as error:
                error.add_note(f"damage: {what}")
                raise
        return shown

    async def check_in(self, place: Path | CrashStorage, files: dict[str, bytes]) -> Shown | None:
        opened: list[bool] = []
        try:
            shown = await show(place, when_open=lambda: opened.append(True))
        except REFUSALS:
            if not opened:
                assert _files_in(place) == files, "an opening that was refused has changed files"
            await check_refusal(place, files)
            return None
        assert shown.bounds.start == self.start
        assert self.durable <= shown.bounds.stop <= SIZE
        assert shown.is_history(self.start, shown.bounds.stop)
        if shown.bounds.stop < SIZE:
            assert not shown.report.clean
        return shown

    def without(self, name: str) -> dict[str, bytes]:
        return {other: content for other, content in self.sound.items() if other != name}


async def check_refusal(place: Path | CrashStorage, files: dict[str, bytes]) -> None:
    """See that the error comes again, that nothing changes then, and that the items were never touched."""
    before = _files_in(place)
    with pytest.raises(REFUSALS):
        await show(place)
    assert _files_in(place) == before
    for name, content in files.items():
        assert "_data" not in name or before[name] == content


def write_files(root: Path, files: dict[str, bytes]) -> None:
    shutil.rmtree(root)
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _files_in(place: Path | CrashStorage) -> dict[str, bytes]:
    if isinstance(place, CrashStorage):
        return {f"{partition}/{name}": content for (partition, name), content in place.tree().items()}
    return tree_of(place)


def _key(name: str) -> tuple[str, str]:
    partition, _, blob = name.partition("/")
    return partition, blob


@pytest.fixture(params=[(SIZE, 0), (SIZE, 7), (12, 0)], ids=["durable", "reset", "half durable"])
def damage(request: pytest.FixtureRequest, tmp_path: Path) -> Damage:
    durable, start = request.param
    return Damage(tmp_path / "root", durable, start)


def _places(name: str, length: int) -> Iterator[int]:
    """Yield each byte, and of the two slots of the checkpoint those that mean something, and some padding."""
    if "checkpoint" in name:
        yield from (at + slot for slot in (0, 4096) for at in (*range(80), 100, 4095))
    else:
        yield from range(length)


@pytest.mark.parametrize("name", FILES)
async def test_a_flipped_bit_anywhere_never_gives_another_item(damage: Damage, name: str) -> None:
    """F4, F5: one bit of each byte of each file."""
    content = damage.sound[name]
    for at in _places(name, len(content)):
        flipped = content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :]
        shown = await damage.check({**damage.sound, name: flipped}, (name, at))
        if "_offsets" in name:
            assert shown is not None, "a damaged index costs no item (A3)"
            assert shown.is_history(damage.start, SIZE)


@pytest.mark.parametrize("name", FILES)
async def test_a_file_cut_anywhere_never_gives_another_item(damage: Damage, name: str) -> None:
    """F4: each length of each file."""
    content = damage.sound[name]
    lengths = range(len(content)) if "checkpoint" not in name else (0, 1, 75, 76, 77, 4095, 4096, 4097, 4171, 4172)
    for length in lengths:
        await damage.check({**damage.sound, name: content[:length]}, (name, length))


async def test_a_deleted_file_never_gives_another_item(damage: Damage) -> None:
    """F4: each file, and each partition."""
    for name in damage.sound:
        await damage.check(damage.without(name), name)
    for part in ("data", "offsets", "checkpoint"):
        left = {name: content for name, content in damage.sound.items() if f"orders_{part}/" not in name}
        await damage.check(left, part)


async def test_swapped_files_never_give_another_item(damage: Damage) -> None:
    """F5: the content of each file in place of each other one."""
    for name, other in permutations(damage.sound, 2):
        await damage.check({**damage.sound, name: damage.sound[other]}, (name, other))
        swapped = {name: damage.sound[other], other: damage.sound[name]}
        await damage.check({**damage.sound, **swapped}, (name, other, "swapped"))


@pytest.mark.parametrize(
    "junk",
    [b"\0", bytes(600), b"junk", b"\xff" * 100, writer.record(b"forged", 0, SIZE), b"\5\0\0\0" + bytes(8)],
    ids=["zero", "zeros", "junk", "ones", "another salt", "no checksum"],
)
async def test_appended_junk_never_gives_another_item(damage: Damage, junk: bytes) -> None:
    """F5: behind each file."""
    for name in damage.sound:
        shown = await damage.check({**damage.sound, name: damage.sound[name] + junk}, name)
        if name in {FILES[2], *FILES[3:6]}:
            assert shown is not None
            assert shown.is_history(damage.start, SIZE)


async def test_a_record_of_another_place_never_passes(damage: Damage) -> None:
    """F5: each record in place of each other one of its section, index and all else as they were."""
    name, section = FILES[1], 1
    content = damage.sound[name]
    length = 8 + len(ITEMS[0])
    starts = [64 + number * length for number in range(10)]
    for at, other in permutations(starts, 2):
        forged = content[:at] + content[other : other + length] + content[at + length :]
        shown = await damage.check({**damage.sound, name: forged}, (section, at, other))
        assert shown is None or damage.durable < SIZE


def test_the_files_are_those_of_the_journal(tmp_path: Path) -> None:
    """What is damaged above is all there is."""
    assert list(Damage(tmp_path / "root", SIZE, 0).sound) == list(tree_of(tmp_path / "root"))
    assert sorted(Damage(tmp_path / "root", SIZE, 0).sound) == sorted(FILES)
    assert CONFIG.items_per_section == 10
