"""A journal seen from outside: what is shown of it beside a writer, and that all of it is durable."""

# Files are looked at while nothing else is to run.

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from posjournal_async import (
    BytesCodec,
    CodecError,
    Config,
    Context,
    Corruption,
    FileStorage,
    ItemOutOfRange,
    ItemPruned,
    Journal,
    JsonCodec,
    PositionError,
)
from posjournal_async.inspection.entries import Entry, Replaced, Unreadable
from posjournal_async.inspection.given import Rewritten
from posjournal_async.inspection.states import SectionState
from posjournal_async.inspection.survey import survey
from posjournal_async.inspection.view import Decoder, JournalView
from posjournal_async.storage.readonly import BlobFacts, ReadOnlyFileStorage
from tests.format import writer
from tests.journals import config_of, filled, item_at, items_in, open_files
from tests.recovery.journals import ITEMS, change, lay_out

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

CHECKOUT = Path(__file__).parents[2]


async def entries_in(found: AsyncGenerator[Entry | Unreadable]) -> list[tuple[int, int, object]]:
    """The positions that were given, with their payload, or the kind of the error."""
    return [
        (entry.start, entry.stop, type(entry.error))
        if isinstance(entry, Unreadable)
        else (entry.position, entry.stop, entry.payload)
        async for entry in found
    ]


async def test_all_items_are_shown_of_a_journal_that_is_open(tmp_path: Path) -> None:
    """Those in its files: what is in the memory of the writer is not durable."""
    journal = await filled(Context(FileStorage(tmp_path)), 25)
    await journal.sync_data()
    await journal.append(item_at(25))
    async with await JournalView.load(tmp_path, "orders") as view:
        assert view.bounds == range(25)
        assert [pair async for pair in view.items(BytesCodec())] == items_in(range(25))
        assert view.holder == os.getpid()
        assert (await view.read(24)).payload == item_at(24)
        with pytest.raises(ItemOutOfRange):
            await view.read(25)
    await journal.close()
    async with await JournalView.load(tmp_path, "orders") as view:
        assert (view.bounds, view.holder) == (range(26), None)


async def test_what_the_checkpoint_does_not_vouch_for_is_flushed_before_it_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blob that holds it, after it was read; and none that the checkpoint vouches for."""
    lay_out(tmp_path, 25, durable=22)
    flushed: list[str] = []
    fdatasync = os.fdatasync

    def noting(fd: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{fd}").readlink().name)
        fdatasync(fd)

    monkeypatch.setattr(os, "fdatasync", noting)
    async with await JournalView.load(tmp_path, "orders") as view:
        assert flushed == ["0000000000000002"]
        flushed.clear()
        await view.read(21)
        assert flushed == []
        await view.read(24)
        assert flushed == ["0000000000000002"]


async def test_a_view_that_is_closed_has_no_file_open(tmp_path: Path) -> None:
    """However many sections were read: no more than a few are open at a time."""
    lay_out(tmp_path, 60)
    for number in range(6, 20):
        change(tmp_path, "data", number, lambda _: b"")
    view = await JournalView.load(tmp_path, "orders")
    assert not below(tmp_path)
    for position in range(60):
        assert (await view.read(position)).payload == ITEMS[position]
    assert 0 < len(below(tmp_path)) <= 9
    await view.close()
    await view.close()
    assert not below(tmp_path)


def below(root: Path) -> list[str]:
    return [name for name in open_files() if name.startswith(str(root))]


async def test_what_was_pruned_meanwhile_is_told(tmp_path: Path) -> None:
    """As that, not as damage; what is still there is shown."""
    journal = await filled(Context(FileStorage(tmp_path)), 45)
    await journal.sync()
    async with await JournalView.load(tmp_path, "orders") as view:
        await journal.prune(25)
        found = await entries_in(view.entries())
        assert found[0] == (0, 10, ItemPruned)
        assert found[1] == (10, 20, ItemPruned)
        assert [start for start, *_ in found[2:]] == list(range(20, 45))
    await journal.close()


async def test_what_was_rewound_meanwhile_is_told(tmp_path: Path) -> None:
    """Also where other items took the positions: those are shown, once they are durable."""
    journal = await filled(Context(FileStorage(tmp_path)), 45)
    await journal.sync()
    async with await JournalView.load(tmp_path, "orders") as view:
        await journal.rewind(15)
        assert await entries_in(view.entries(14)) == [
            (14, 15, item_at(14)),
            (15, 20, ItemOutOfRange),
            (20, 30, ItemOutOfRange),
            (30, 40, ItemOutOfRange),
            (40, 45, ItemOutOfRange),
        ]
        await journal.append_many([item_at(position, 1) for position in range(15, 25)])
        await journal.sync()
        found = await entries_in(view.entries(14, 25))
        assert found == [(14, 15, item_at(14)), *((at, at + 1, item_at(at, 1)) for at in range(15, 25))]
    await journal.close()


async def test_a_tail_that_was_cut_and_went_on_is_searched_anew(tmp_path: Path) -> None:
    """Its records are elsewhere than when the view was loaded."""
    journal = await filled(Context(FileStorage(tmp_path)), 16)
    await journal.sync()
    async with await JournalView.load(tmp_path, "orders") as view:
        await journal.rewind(11)
        longer = [b"%d" % position * 20 for position in range(11, 16)]
        await journal.append_many(longer)
        await journal.sync()
        expected = [(10, 11, item_at(10)), *((at, at + 1, longer[at - 11]) for at in range(11, 16))]
        assert await entries_in(view.entries(10)) == expected
    await journal.close()


@pytest.mark.parametrize("syncs", [0, 4])
@pytest.mark.parametrize("size", [0, 5, 10, 15, 20, 25, 40, 43])
@pytest.mark.parametrize("given", [1, 10, 11, 20, 21, 30, 41, 45])
async def test_a_walk_that_ends_well_is_of_one_history(tmp_path: Path, given: int, size: int, syncs: int) -> None:
    """Wherever it is when the writer rewinds; also where there are more checkpoints meanwhile than can be seen."""
    journal = await filled(Context(FileStorage(tmp_path)), 45)
    await journal.sync()
    old = items_in(range(45))
    new = [*old[:size], *((at, item_at(at, 1)) for at in range(size, 45))]
    found: list[tuple[int, bytes]] = []
    is_refused = False
    async with await JournalView.load(tmp_path, "orders") as view:
        assert (await view.read(44)).payload == item_at(44)  # a section may be open already
        try:
            async for pair in view.items(BytesCodec()):
                found.append(pair)
                if len(found) == given:
                    await journal.rewind(size)
                    await journal.append_many([item for _, item in new[size:]])
                    await journal.sync()
                    for _ in range(syncs):
                        await journal.append(b"more")
                        await journal.sync()
        except Rewritten:
            is_refused = True
    await journal.close()
    assert is_refused or found in {"old": old, "new": new}.values()
    # What was read comes by the section: nothing is refused that was rewound before.
    assert not is_refused or size < -(-given // 10) * 10
    assert is_refused or not size < given < 45


@pytest.mark.parametrize("syncs", [0, 4])
async def test_a_walk_goes_on_beside_a_writer_that_rewinds_nothing(tmp_path: Path, syncs: int) -> None:
    """However much it appends and syncs; and what was read may be pruned, if no checkpoint was missed meanwhile."""
    journal = await filled(Context(FileStorage(tmp_path)), 45)
    found: list[tuple[int, bytes]] = []
    async with await JournalView.load(tmp_path, "orders") as view:
        stop = view.bounds.stop
        assert stop > 30
        async for pair in view.items(BytesCodec()):
            found.append(pair)
            for _ in range(syncs):
                await journal.append(b"more")
                await journal.sync()
            if len(found) == 20 and not syncs:
                await journal.prune(10)
    await journal.close()
    assert found == items_in(range(stop))


async def test_what_was_pruned_behind_a_walk_is_not_taken_for_unchanged(tmp_path: Path) -> None:
    """Where checkpoints were missed: the rewind before it has left no other trace."""
    journal = await filled(Context(FileStorage(tmp_path)), 45)
    await journal.sync()
    async with await JournalView.load(tmp_path, "orders") as view:
        walk = view.items(BytesCodec())
        assert [await anext(walk) for _ in range(20)] == items_in(range(20))
        await journal.rewind(5)
        await journal.append_many([b"other"] * 40)
        await journal.sync()
        await journal.prune(20)
        with pytest.raises(ItemPruned):
            [_ async for _ in walk]
    await journal.close()


@pytest.mark.parametrize("partition", ["orders_data", "orders_offsets"])
async def test_a_look_during_which_sections_went_is_taken_again(tmp_path: Path, partition: str) -> None:
    """The checkpoint was changed before they went: nothing is missing."""
    journal = await filled(Context(FileStorage(tmp_path)), 45)
    await journal.sync()

    class Disturbed(ReadOnlyFileStorage):
        """A storage in which sections are pruned just before a partition is listed for the first time."""

        async def survey(self, partition_: str, head: int) -> list[BlobFacts]:
            if partition_ == partition:
                await journal.prune(25)
            return await super().survey(partition_, head)

    found = await survey(Disturbed(tmp_path), "orders")
    assert (found.boundary, found.is_damaged, found.problem) == (20, False, None)
    assert [section.section for section in found.sections] == [2, 3, 4]
    await journal.close()


async def test_what_was_reset_meanwhile_is_told(tmp_path: Path) -> None:
    """Items of the journal that took its place are not shown as those of the one that was looked at."""
    context = Context(FileStorage(tmp_path))
    journal = await filled(context, 25)
    await journal.close()
    async with await JournalView.load(tmp_path, "orders") as view:
        async with await Journal.init_at_size(context, config_of(), 0) as other:
            await other.append_many([b"another"] * 25)
        assert await entries_in(view.entries()) == [
            (0, 10, Replaced),
            (10, 20, Replaced),
            (20, 25, Replaced),
        ]


async def test_a_range_may_begin_below_the_boundary(tmp_path: Path) -> None:
    """What is missing there comes first, as one run."""
    lay_out(tmp_path, 25, start=10)
    async with await JournalView.load(tmp_path, "orders") as view:
        assert (await entries_in(view.entries(3, 11))) == [(3, 10, ItemPruned), (10, 11, ITEMS[10])]
        assert (await entries_in(view.entries(3, 5))) == [(3, 5, ItemPruned)]
        assert await entries_in(view.entries(25)) == []
        with pytest.raises(ItemPruned):
            await view.read(9)


@pytest.mark.parametrize("what_goes", ["behind a gap", "an interrupted creation"])
async def test_the_section_before_what_opening_removes_is_read_as_the_last_one(tmp_path: Path, what_goes: str) -> None:
    """What is torn in it is seen as opening sees it."""
    lay_out(tmp_path, 25, durable=10)
    change(tmp_path, "data", 0, lambda blob: blob + b"torn")
    if what_goes == "behind a gap":
        change(tmp_path, "data", 1, lambda _: None)
    else:
        change(tmp_path, "data", 1, lambda _: b"")
    async with await JournalView.load(tmp_path, "orders") as view:
        assert view.bounds == range(10)
        assert (view.sections[0].state, view.sections[0].reason) == (
            SectionState.TORN,
            "4 bytes behind the last record are none",
        )


@pytest.mark.parametrize("length", [0, 1, 63])
async def test_a_first_section_without_its_header_is_what_opening_refuses(tmp_path: Path, length: int) -> None:
    """Whatever is left of it."""
    lay_out(tmp_path, 25)
    change(tmp_path, "data", 0, lambda blob: blob[:length])
    found = await survey(ReadOnlyFileStorage(tmp_path), "orders")
    with pytest.raises(Corruption) as refused:
        await Journal.init(Context(FileStorage(tmp_path)), config_of())
    assert str(found.problem) == str(refused.value)


async def test_data_of_another_journal_below_the_boundary_is_what_opening_refuses(tmp_path: Path) -> None:
    """The checkpoint is one of before a reset to less."""
    lay_out(tmp_path, 25)
    slot = writer.checkpoint_slot(sequence=9, journal_id=1, items_per_section=10, durable=30, boundary=30)
    change(tmp_path, "checkpoint", 0, lambda _: writer.checkpoint_blob([slot]))
    found = await survey(ReadOnlyFileStorage(tmp_path), "orders")
    with pytest.raises(Corruption) as refused:
        await Journal.init(Context(FileStorage(tmp_path)), config_of())
    assert str(found.problem) == str(refused.value)


async def test_items_end_at_the_first_that_cannot_be_read_or_decoded(tmp_path: Path) -> None:
    """With its error; entries go on behind it."""
    lay_out(tmp_path, 25)
    change(tmp_path, "data", 1, lambda blob: blob[:70] + bytes([blob[70] ^ 1]) + blob[71:])
    async with await JournalView.load(tmp_path, "orders") as view:
        items = view.items(BytesCodec())
        for position in range(10):
            assert await anext(items) == (position, ITEMS[position])
        with pytest.raises(Corruption) as raised:
            await anext(items)
        assert (raised.value.section, raised.value.offset, raised.value.position) == (1, 64, 10)
        with pytest.raises(CodecError, match="position 0"):
            await anext(view.items(JsonCodec()))


async def test_a_compressed_item_is_shown_as_it_was(tmp_path: Path) -> None:
    """And its payload as it is stored."""
    config: Config[bytes] = config_of(compression=3)
    async with await Journal.init(Context(FileStorage(tmp_path)), config) as journal:
        await journal.append(b"x" * 1_000)
    async with await JournalView.load(tmp_path, "orders") as view:
        entry = await view.read(0)
        assert (entry.is_compressed, len(entry.payload) < 100) == (True, True)
        assert Decoder(BytesCodec()).item_of(entry) == b"x" * 1_000


async def test_memory_does_not_grow_with_the_journal(tmp_path: Path) -> None:
    """A walk holds a piece, or one item, and an index."""
    async with await Journal.init(Context(FileStorage(tmp_path)), config_of(items_per_section=50)) as journal:
        for _ in range(400):
            await journal.append(bytes(50_000))
    tracemalloc.start()
    try:
        async with await JournalView.load(tmp_path, "orders") as view:
            length = 0
            async for entry in view.entries():
                assert isinstance(entry, Entry)
                length += len(entry.payload)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert length == 20_000_000
    assert peak < 3_000_000


async def test_a_lying_index_makes_nobody_read_a_whole_blob(tmp_path: Path) -> None:
    """A record's own length is asked before more than a piece is read on the word of an index."""
    async with await Journal.init(Context(FileStorage(tmp_path)), config_of(items_per_section=4)) as journal:
        await journal.append_many([bytes(5_000_000)] * 4 + [b"tail"])
    change(tmp_path, "offsets", 0, lambda blob: blob[:64] + blob[64:72] + blob[88:96] * 3)
    async with await JournalView.load(tmp_path, "orders") as view:
        tracemalloc.start()
        try:
            assert (await view.read(0)).payload == bytes(5_000_000)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 16_000_000


@pytest.mark.parametrize("seed", range(2))
async def test_beside_a_process_that_writes_every_item_is_the_one_of_its_position(tmp_path: Path, seed: int) -> None:
    """While it rolls, prunes and rewinds: what was shown was there, and what is not is told as pruned or rewound."""
    command = [sys.executable, "-m", "tests.inspection.writer", str(tmp_path / "orders"), str(seed)]
    with subprocess.Popen(  # noqa: ASYNC220 - nothing else is to run
        command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"going\n"
            shown = 0
            for _ in range(30):
                async with await JournalView.load(tmp_path, "orders") as view:
                    assert not view.survey.is_damaged, (seed, view.survey)
                    assert view.holder in {writer.pid, None}
                    shown += await check(view, seed)
            assert shown > 500
            assert writer.poll() is None
        finally:
            writer.communicate()
    assert writer.returncode == 0
    async with await JournalView.load(tmp_path, "orders") as view:
        assert await check(view, seed) == len(view.bounds)
        assert not view.survey.is_damaged


async def check(view: JournalView, seed: int) -> int:
    """Refuse anything but the items of all positions in order, or that they are gone; return how many are there."""
    position, shown, history = view.bounds.start, 0, 0
    async for entry in view.entries():
        if isinstance(entry, Unreadable):
            assert isinstance(entry.error, PositionError), (seed, entry)
            assert entry.start == position, (seed, entry)
        else:
            at, _, of = entry.payload.decode().partition(" of ")
            assert (int(at), entry.position) == (position, position), (seed, entry)
            assert int(of) >= history, (seed, entry)
            history = int(of)
            shown += 1
        position = entry.stop
    assert position == view.bounds.stop, (seed, position)
    return shown


@pytest.mark.parametrize("start", [0, 12, 31])
async def test_a_run_of_missing_sections_is_told_once_however_long_it_is(tmp_path: Path, start: int) -> None:
    """Also from its middle on, and where a stray file with the checkpoint lost makes a run that no walk would end."""
    lay_out(tmp_path, 60)
    for section in (1, 2, 3):
        change(tmp_path, "data", section, lambda _: None)
        change(tmp_path, "offsets", section, lambda _: None)
    async with await JournalView.load(tmp_path, "orders") as view:
        found = await entries_in(view.entries(start, 45))
        assert [entry for entry in found if entry[2] is Corruption] == [(max(start, 10), 40, Corruption)]
        assert [entry for entry in found if entry[0] >= 40] == [(at, at + 1, ITEMS[at]) for at in range(40, 45)]
    change(tmp_path, "checkpoint", 0, lambda _: None)
    change(tmp_path, "data", 2**64 - 1, lambda _: b"")
    end = (2**64 - 1) * 10
    async with await JournalView.load(tmp_path, "orders") as view:
        assert (view.bounds.stop, view.count) == (end, end)
        found = await entries_in(view.entries(40 + start))
        assert found[-1] == (max(40 + start, 60), end, Corruption)
        assert len(found) == max(20 - start, 0) + 1
