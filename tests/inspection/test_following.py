"""Following a journal: what is shown, with the announced rewinds applied, is the history, whenever one looks."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from typing_extensions import override

from posjournal_async import BytesCodec, Config, Context, FileStorage, Journal
from posjournal_async.errors import CodecError, Corruption, InvalidConfiguration
from posjournal_async.inspection.blobs import Blobs
from posjournal_async.inspection.events import Absent, Corrupt, Pruned, Reset, Rewound, Shown
from posjournal_async.inspection.follower import Follower
from posjournal_async.inspection.following import follow
from posjournal_async.storage.readonly import ReadOnlyFileStorage
from posjournal_async.testing.wrapping import Call, WrappedStorage
from tests.effort import effort
from tests.format.writer import sealed_with_crc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from pathlib import Path

    from posjournal_async import Storage

T = TypeVar("T")


class Stepped(WrappedStorage):
    """A storage whose calls take effect one at a time, when the test says so.

    Attributes:
        is_free: Whether calls need not wait.
    """

    def __init__(self, inner: Storage) -> None:
        super().__init__(inner)
        self.is_free = True
        self._gates: deque[asyncio.Future[None]] = deque()
        self._running = 0
        self._at_rest = asyncio.Event()

    @override
    async def around(self, call: Call, go_on: Callable[[], Awaitable[T]]) -> T:
        if not self.is_free:
            gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._gates.append(gate)
            await gate
        self._running += 1
        try:
            return await go_on()
        finally:
            self._running -= 1
            self._at_rest.set()

    async def step(self) -> None:
        """Let the call that waits longest take effect, and its caller go on to the next one."""
        await settled()
        if self._gates:
            self._gates.popleft().set_result(None)
            await asyncio.sleep(0)
        await settled()
        while self._running:
            self._at_rest.clear()
            await self._at_rest.wait()
            await settled()

    def free(self) -> None:
        """Let all calls take effect."""
        self.is_free = True
        while self._gates:
            self._gates.popleft().set_result(None)


async def settled() -> None:
    """Return when everybody who could go on without a file has done so."""
    for _ in range(10):
        await asyncio.sleep(0)


class Watched(WrappedStorage):
    """The follower's storage: notes its calls, and lets the writer go on before each.

    Attributes:
        calls: What was called.
        before: Called before each call.
    """

    def __init__(self, inner: Storage) -> None:
        super().__init__(inner)
        self.calls: list[Call] = []
        self.before: Callable[[], Awaitable[None]] | None = None

    @override
    async def around(self, call: Call, go_on: Callable[[], Awaitable[T]]) -> T:
        if self.before is not None:
            await self.before()
        self.calls.append(call)
        return await go_on()


class Audience:
    """What somebody knows who sees what a follower says.

    Attributes:
        items: The item of each position that is shown and was not rewound.
        position: What has to come next.
        said: All events.
    """

    def __init__(self, follower: Follower) -> None:
        self.follower = follower
        self.items: dict[int, Any] = {}
        self.position: int | None = None
        self.said: list[object] = []

    async def look(self) -> bool:
        """Look once; return whether there was nothing new."""
        for event in await self.follower.look():
            self.hear(event)
        return self.follower.is_idle

    async def look_until_idle(self) -> None:
        """Look until there is nothing new."""
        for _ in range(1_000):
            if await self.look():
                return
        pytest.fail("it is never idle")

    def hear(self, event: object) -> None:
        """Apply what was said; refuse what cannot be."""
        self.said.append(event)
        match event:
            case Shown(first, items):
                assert items
                assert self.position in {None, first}, "skipped, or shown twice"
                self.items.update(enumerate(items, first))
                self.position = first + len(items)
            case Rewound(size):
                assert self.position is None or size < self.position
                self.items = {position: item for position, item in self.items.items() if position < size}
                self.position = size
            case Pruned(missed):
                assert missed
                assert self.position in {None, missed.start}
                self.position = missed.stop
            case Reset(start):
                self.items.clear()
                self.position = start
            case Absent():
                self.items.clear()
                self.position = None
            case _:
                pytest.fail(f"said {event}")


def config_of(**fields: Any) -> Config[bytes]:
    return Config(**{"partition": "orders", "items_per_section": 4, "codec": BytesCodec(), **fields})


def follower_of(storage: Storage, root: Path, newest: int = 1_000, start: int | None = None) -> Follower:
    return Follower(Blobs(storage, root, "orders"), lambda _: BytesCodec(), newest, start)


class Writing:
    """A journal, and what it must hold.

    Attributes:
        journal: The journal.
        history: Its items from position 0 on; None for those below the position at which it was reset.
    """

    def __init__(self, storage: Storage, chance: random.Random) -> None:
        self._storage = storage
        self._chance = chance
        self._count = 0
        self.history: list[bytes | None] = []
        self.journal: Journal[bytes] | None = None

    async def open(self) -> None:
        self.journal = await Journal.init(Context(self._storage), config_of())

    async def append(self) -> None:
        assert self.journal is not None
        for _ in range(self._chance.choice((1, 1, 2, 3, 9))):
            # Few lengths and few contents: what comes after a rewind often looks like what was there.
            item = b"%d" % (self._chance.randrange(3) if self._chance.random() < 0.7 else self._count)
            self._count += 1
            self.history.append(item)
            await self.journal.append(item)

    async def sync_data(self) -> None:
        assert self.journal is not None
        await self.journal.sync_data()

    async def sync(self) -> None:
        assert self.journal is not None
        await self.journal.sync()

    async def prune(self) -> None:
        assert self.journal is not None
        await self.journal.prune(self._chance.randint(0, self.journal.size()))

    async def rewind(self) -> None:
        assert self.journal is not None
        bounds = self.journal.bounds()
        size = self._chance.randint(max(bounds.start, bounds.stop - self._chance.choice((2, 6, 20))), bounds.stop)
        await self.journal.rewind(size)
        del self.history[size:]

    async def rewind_and_append(self) -> None:
        await self.rewind()
        await self.append()
        if self._chance.random() < 0.5:
            await self.append()
        await self._chance.choice((self.sync_data, self.sync))()

    async def reopen(self) -> None:
        assert self.journal is not None
        await self.journal.close()
        await self.open()

    async def reset(self) -> None:
        assert self.journal is not None
        size = self._chance.choice((0, self.journal.size(), self.journal.size() + 3))
        await self.journal.close()
        self.history = [None] * size
        self.journal = await Journal.init_at_size(Context(self._storage), config_of(), size)

    async def destroy(self) -> None:
        assert self.journal is not None
        await self.journal.destroy()
        self.history = []
        await self.open()

    def next(self) -> Callable[[], Coroutine[Any, Any, None]]:
        """Return what to do next."""
        often = [self.append] * 6 + [self.sync_data] * 4 + [self.sync] * 2 + [self.rewind_and_append] * 2
        return self._chance.choice([*often, self.prune, self.rewind, self.reopen, self.reset, self.destroy])


@pytest.mark.parametrize("seed", range(effort(20, 400)))
async def test_what_is_shown_is_the_history_whenever_one_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """With the announced rewinds applied it equals the history, also where looks and writes go through each other.

    So it is where little is remembered.
    """
    if seed % 2:
        monkeypatch.setattr("posjournal_async.inspection.remembered._MOST_SECTIONS", 1 + seed % 3)
    chance = random.Random(seed)
    stepped = Stepped(FileStorage(tmp_path))
    writing = Writing(stepped, chance)
    await writing.open()
    watched = Watched(ReadOnlyFileStorage(tmp_path))
    start = chance.choice((None, None, 0, 2, 9))
    audience = Audience(follower_of(watched, tmp_path, newest=chance.choice((0, 1, 3, 1_000)), start=start))
    haste = chance.choice((0.0, 0.5, 2.0, 8.0))  # steps of the writer for each call of the follower, about

    async def let_writer_go_on() -> None:
        while chance.random() < haste / (1 + haste):
            await stepped.step()

    watched.before = let_writer_go_on
    for _ in range(40):
        stepped.is_free = False
        doing = asyncio.create_task(writing.next()())
        while not doing.done():
            if chance.random() < 0.3:
                await audience.look()
            await stepped.step()
        await doing
        stepped.free()
        if chance.random() < 0.4:
            await check(audience, writing, seed)
    await check(audience, writing, seed)
    assert writing.journal is not None
    await writing.journal.sync()
    await check(audience, writing, seed)
    assert audience.follower.position == len(writing.history)
    await writing.journal.close()


async def check(audience: Audience, writing: Writing, seed: int) -> None:
    """Compare what is shown with the history while nobody writes."""
    await audience.look_until_idle()
    journal = writing.journal
    assert journal is not None
    position = audience.follower.position
    assert audience.position in {None, position}, f"seed {seed}"
    assert position >= journal.durable_size(), f"seed {seed}: durable, and not shown"
    assert position <= journal.size(), f"seed {seed}"
    boundary = journal.bounds().start
    shown = {at: item for at, item in audience.items.items() if at >= boundary}
    expected = dict(enumerate(writing.history[:position]))
    assert shown == {at: expected[at] for at in shown}, f"seed {seed}"
    if shown:
        assert list(shown) == list(range(min(shown), position)), f"seed {seed}"


# One situation at a time.


async def followed(root: Path, newest: int = 1_000, start: int | None = None) -> Audience:
    """Return somebody who has seen what there is."""
    audience = Audience(follower_of(ReadOnlyFileStorage(root), root, newest, start))
    await audience.look_until_idle()
    return audience


async def filled(root: Path, count: int, *, history: int = 0) -> Journal[bytes]:
    journal = await Journal.init(Context(FileStorage(root)), config_of())
    await appended(journal, count, history=history)
    return journal


async def appended(journal: Journal[bytes], count: int, *, history: int = 0) -> None:
    for position in range(journal.size(), journal.size() + count):
        await journal.append(b"%d of %d" % (position, history))
    await journal.sync_data()


@pytest.mark.parametrize("newest", [0, 1, 3, 4, 5, 9, 10])
async def test_it_begins_with_the_newest_items(tmp_path: Path, newest: int) -> None:
    """Wherever they lie in their sections."""
    async with await filled(tmp_path, 10):
        audience = await followed(tmp_path, newest)
    assert list(audience.items) == list(range(10 - newest, 10))


@pytest.mark.parametrize("start", range(14))
async def test_it_begins_where_it_is_asked_to(tmp_path: Path, start: int) -> None:
    """What has become of that position comes first."""
    async with await filled(tmp_path, 11) as journal:
        await journal.prune(6)
        audience = await followed(tmp_path, newest=2, start=start)
        gone = [Pruned(range(start, 4))] if start < 4 else [Rewound(11)] if start > 11 else []
        assert audience.said[: len(gone)] == gone
        assert list(audience.items) == list(range(max(start, 4), 11))
        assert sum(isinstance(event, Shown) for event in audience.said) == len(audience.said) - len(gone)
        await appended(journal, 3)
        await audience.look_until_idle()
        assert list(audience.items) == list(range(min(max(start, 4), 11), 14))


@pytest.mark.parametrize("regrown", range(8))
async def test_who_begins_one_position_earlier_sees_that_another_history_was_begun(
    tmp_path: Path, regrown: int
) -> None:
    """By the item that it knows, or by the size; of a rewind of which it knows nothing the size is what it finds."""
    async with await filled(tmp_path, 10) as journal:
        await journal.rewind(6)
        await appended(journal, regrown, history=1)
    audience = await followed(tmp_path, start=9)
    assert [event for event in audience.said if not isinstance(event, Shown)] == [Rewound(6 + regrown)] * (regrown < 3)
    assert audience.items == {position: b"%d of 1" % position for position in range(9, 6 + regrown)}


async def test_it_begins_where_it_is_asked_to_in_a_journal_that_comes_later(tmp_path: Path) -> None:
    """Also where there is none yet; after that one begins anew, the position says nothing any more."""
    audience = await followed(tmp_path, start=2)
    async with await filled(tmp_path, 5) as journal:
        await audience.look_until_idle()
        assert list(audience.items) == [2, 3, 4]
        await journal.destroy()
    await audience.look_until_idle()
    async with await filled(tmp_path, 2, history=1):
        await audience.look_until_idle()
    assert audience.said[-2:] == [Reset(0), Shown(0, [b"0 of 1", b"1 of 1"])]


async def test_what_is_shown_was_synced_before(tmp_path: Path) -> None:
    """Items above the durable size of the checkpoint are shown after the blob they were read from was synced."""
    async with await filled(tmp_path, 4) as journal:
        watched = Watched(ReadOnlyFileStorage(tmp_path))
        audience = Audience(follower_of(watched, tmp_path))
        await audience.look_until_idle()
        for _ in range(3):
            await appended(journal, 1)
            watched.calls.clear()
            await audience.look_until_idle()
            data = [call.what for call in watched.calls if call.partition == "orders_data"]
            shown = data.index("close")  # the first look is the one that shows it
            assert data[:shown] == ["open", "read_at", "read_at", "sync"]
        assert journal.size() == audience.position


async def test_what_the_checkpoint_vouches_for_is_not_synced_again(tmp_path: Path) -> None:
    """Reading what is durable does not make the writer's device work."""
    async with await filled(tmp_path, 12) as journal:
        await journal.sync()
        watched = Watched(ReadOnlyFileStorage(tmp_path))
        audience = Audience(follower_of(watched, tmp_path))
        await audience.look_until_idle()
        assert len(audience.items) == 12
        assert "sync" not in [call.what for call in watched.calls if call.partition == "orders_data"]


async def test_a_look_at_what_has_not_changed_opens_nothing(tmp_path: Path) -> None:
    """Once the files are older than the steps of the clock, their times are all that is asked for."""
    async with await filled(tmp_path, 10):
        watched = Watched(ReadOnlyFileStorage(tmp_path))
        audience = Audience(follower_of(watched, tmp_path))
        async with asyncio.timeout(30):
            while watched.calls or audience.position is None:
                watched.calls.clear()
                await audience.look_until_idle()
        assert await audience.look()
        assert watched.calls == []


@pytest.mark.parametrize("size", [0, 3, 4, 9, 12, 30, 39])
async def test_a_rewind_and_more_items_than_before_are_told_apart(tmp_path: Path, size: int) -> None:
    """Also when many checkpoints came in between, so that only the items themselves can tell where histories part."""
    async with await filled(tmp_path, 40) as journal:
        audience = await followed(tmp_path)
        await journal.rewind(size)
        await appended(journal, 60, history=1)
        await audience.look_until_idle()
        told = [event for event in audience.said if isinstance(event, Rewound)]
        assert told == [Rewound(size)]
        assert audience.items == {at: b"%d of %d" % (at, at >= size) for at in range(size + 60)}


async def test_a_rewind_to_before_what_was_shown_goes_back_at_most_twice_as_far(tmp_path: Path) -> None:
    """A follower that began with the newest item does not show the whole journal again."""
    async with await filled(tmp_path, 400) as journal:
        audience = await followed(tmp_path, newest=1)
        await journal.rewind(380)
        await appended(journal, 60, history=1)
        await audience.look_until_idle()
        [told] = [event for event in audience.said if isinstance(event, Rewound)]
        assert 360 <= told.size <= 380
        assert audience.items == {at: b"%d of %d" % (at, at >= 380) for at in range(told.size, 440)}


async def test_old_sections_are_remembered_in_less_detail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded: of a rewind to one of them some items before it are shown again, from its start."""
    monkeypatch.setattr("posjournal_async.inspection.remembered._MOST_HEADS", 8)
    async with await filled(tmp_path, 40) as journal:
        audience = await followed(tmp_path)
        await appended(journal, 1)
        await audience.look_until_idle()
        assert sum(known.heads is not None for known in audience.follower._known) <= 3
        await journal.rewind(10)
        await appended(journal, 60, history=1)
        await audience.look_until_idle()
        assert Rewound(8) in audience.said
        assert audience.items == {at: b"%d of %d" % (at, at >= 10) for at in range(70)}


@pytest.mark.parametrize("size", [2, 150, 301, 390])
async def test_what_is_remembered_is_bounded_however_many_sections_were_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Of the old ones there are two for each doubling, and a rewind seems to go back twice as far at the most."""
    monkeypatch.setattr("posjournal_async.inspection.remembered._MOST_SECTIONS", 4)
    async with await filled(tmp_path, 20) as journal:
        audience = await followed(tmp_path)
        for _ in range(95):
            await appended(journal, 4)
            await audience.look_until_idle()
        assert audience.items == {at: b"%d of 0" % at for at in range(400)}
        assert len(audience.follower._known) <= 4 + 2 * 7  # 100 sections are less than 2**7
        await journal.rewind(size)
        await appended(journal, 60, history=1)
        await audience.look_until_idle()
        told = min(event.size for event in audience.said if isinstance(event, Rewound))
        assert size - (400 - size) - 2 * 4 <= told <= size
        assert audience.items == {at: b"%d of %d" % (at, at >= size) for at in range(size + 60)}


@pytest.mark.parametrize("start", [0, 4])
async def test_a_section_that_was_begun_anew_before_one_of_its_items_was_seen_is_shown(
    tmp_path: Path, start: int
) -> None:
    """A rewind has removed one of which there was the header only: no damage, and nothing is passed over."""
    async with await filled(tmp_path, start) as journal:
        await journal.sync()
        await appended(journal, 1)
        blob = tmp_path / "orders_data" / f"{start // 4:016x}"
        whole = blob.read_bytes()
        blob.write_bytes(whole[:64])  # as it was before its first record was written
        audience = await followed(tmp_path)
        assert audience.follower.position == start
        blob.write_bytes(whole)
        await journal.rewind(start)
        await appended(journal, 3, history=1)
        await journal.sync()
        await audience.look_until_idle()
    assert [audience.items[at] for at in range(start, start + 3)] == [b"%d of 1" % at for at in range(start, start + 3)]


async def test_a_cut_that_comes_late_is_seen(tmp_path: Path) -> None:
    """A rewind lowers the checkpoint first: who looks in between sees the cut later, without another checkpoint."""
    stepped = Stepped(FileStorage(tmp_path))
    journal = await Journal.init(Context(stepped), config_of())
    await appended(journal, 6)
    await journal.sync()
    audience = await followed(tmp_path)
    stepped.is_free = False
    rewinding = asyncio.create_task(journal.rewind(5))
    while audience.follower._slot is None or audience.follower._slot.durable > 5:
        await stepped.step()
        await audience.look()
    assert audience.position == 6  # it is not cut yet
    stepped.free()
    await rewinding
    await appended(journal, 2, history=1)
    await audience.look_until_idle()
    assert audience.items == {at: b"%d of %d" % (at, at >= 5) for at in range(7)}
    await journal.close()


@pytest.mark.parametrize(
    ("what", "size"), [("prune little", 10), ("prune little", 8), ("prune all", 10), ("rewind", 10), ("reset", 10)]
)
async def test_whatever_happens_in_the_middle_of_a_look_is_told_as_what_it_is(
    tmp_path: Path, what: str, size: int
) -> None:
    """Before each call of a look that compares in turn: a prune is no rewind, and nothing is skipped or doubled."""
    count = 1
    at = 0
    while at < count:
        root = tmp_path / str(at)
        journal = await filled(root, size)
        watched = Watched(ReadOnlyFileStorage(root))
        audience = Audience(follower_of(watched, root))
        await audience.look_until_idle()
        for _ in range(3):  # more checkpoints than the slots tell of: it has to compare
            await appended(journal, 1)
            await journal.sync()
        watched.calls.clear()
        watched.before = partial(happen, watched, journal, at, what)
        await audience.look()
        count = len(watched.calls)
        watched.before = None
        await audience.look_until_idle()
        told = [event for event in audience.said if not isinstance(event, Shown)]
        match what:
            case "prune little":
                assert told == []
                assert audience.items == {at: b"%d of 0" % at for at in range(size + 5)}
            case "prune all":
                assert [type(event) for event in told] in [[], [Pruned]]
                assert audience.items == {at: b"%d of 0" % at for at in audience.items}
                assert {*range(10), 31, 32} <= audience.items.keys()
            case "rewind":
                assert [type(event) for event in told] == [Rewound]
                assert audience.items == {at: b"%d of %d" % (at, at >= 6) for at in range(16)}
            case _:
                assert told == [Reset(0)]
                assert audience.items == {at: b"%d of 1" % at for at in range(3)}
        if what != "reset":
            await journal.close()
        at += 1
    assert count > 10


async def happen(watched: Watched, journal: Journal[bytes], at: int, what: str) -> None:
    """Do it before a look's call of that number."""
    if len(watched.calls) != at:
        return
    watched.before = None
    match what:
        case "prune little":
            await appended(journal, 2)
            await journal.prune(4)
        case "prune all":
            await appended(journal, 20)
            await journal.prune(31)
        case "rewind":
            await journal.rewind(6)
            await appended(journal, 10, history=1)
        case _:
            await journal.close()
            root = journal._context.storage
            async with await Journal.init_at_size(Context(root), config_of(), 0) as other:
                await appended(other, 3, history=1)


async def test_sections_pruned_before_they_were_seen_are_named(tmp_path: Path) -> None:
    """What comes next is the oldest item that is left."""
    async with await filled(tmp_path, 6) as journal:
        audience = await followed(tmp_path)
        await appended(journal, 20)
        await journal.prune(17)
        await audience.look_until_idle()
        assert audience.said[-1] == Shown(24, [b"24 of 0", b"25 of 0"])
        assert Pruned(range(6, 16)) in audience.said
        assert list(audience.items) == [*range(6), *range(16, 26)]


async def test_a_journal_that_is_destroyed_and_made_anew_is_followed_from_its_start(tmp_path: Path) -> None:
    """Both are told, and so is a journal that is not there at first."""
    audience = await followed(tmp_path)
    async with await filled(tmp_path, 3) as journal:
        await audience.look_until_idle()
        await journal.destroy()
    await audience.look_until_idle()
    assert audience.items == {}
    async with await filled(tmp_path, 2, history=1):
        await audience.look_until_idle()
    absent, shown, gone, reset, again = audience.said
    assert (absent, gone, reset) == (Absent(), Absent(), Reset(0))
    assert isinstance(shown, Shown)
    assert again == Shown(0, [b"0 of 1", b"1 of 1"])


async def test_a_reset_that_a_crash_has_interrupted_is_a_reset(tmp_path: Path) -> None:
    """While it is not finished nothing is there; afterwards the journal begins anew, also under the same id."""
    async with await filled(tmp_path, 20) as journal:
        audience = await followed(tmp_path)
        await journal.prune(9)
    await audience.look_until_idle()
    slot = audience.follower._slot
    assert slot is not None
    begun = replace(slot, sequence=slot.sequence + 1, durable=0, boundary=0, reset=0)  # as `destroy` begins
    checkpoint = tmp_path / "orders_checkpoint" / f"{0:016x}"
    checkpoint.write_bytes(begun.to_bytes() + checkpoint.read_bytes()[4096:])
    assert await audience.look()
    async with await filled(tmp_path, 2, history=1):
        await audience.look_until_idle()
    assert audience.said[-2:] == [Reset(0), Shown(0, [b"0 of 1", b"1 of 1"])]


async def test_a_torn_record_is_waited_for_and_never_shown(tmp_path: Path) -> None:
    """Bytes behind the last record are the writer's business, until they check out."""
    async with await filled(tmp_path, 5):
        pass
    audience = await followed(tmp_path)
    with (tmp_path / "orders_data" / f"{1:016x}").open("ab") as file:
        file.write(b"\x09\0\0\0torn")
    assert await audience.look()
    async with await filled(tmp_path, 1):
        await audience.look_until_idle()
    assert list(audience.items) == list(range(6))


@pytest.mark.parametrize("how", ["record", "header", "missing"])
async def test_what_is_damaged_is_passed_over_once_and_told(tmp_path: Path, how: str) -> None:
    """It goes on with the next section, and says which positions are not shown."""
    async with await filled(tmp_path, 14):
        pass
    path = tmp_path / "orders_data" / f"{1:016x}"
    content = path.read_bytes()
    at = {"record": 64 + 2 * 14 + 9, "header": 20, "missing": None}[how]
    if at is None:
        path.unlink()
    else:
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    follower = follower_of(ReadOnlyFileStorage(tmp_path), tmp_path)
    said = [event for _ in range(20) for event in await follower.look()]
    assert follower.is_idle
    [told] = [event for event in said if isinstance(event, Corrupt)]
    assert told.positions == range({"record": 6}.get(how, 4), 8)
    assert isinstance(told.error, Corruption)
    shown = [
        at for event in said if isinstance(event, Shown) for at in range(event.first, event.first + len(event.items))
    ]
    assert shown == [at for at in range(14) if at not in told.positions]


@pytest.mark.parametrize("other", [0, 2])
@pytest.mark.parametrize("newest", [1, 1_000])
async def test_the_blob_of_another_section_is_told_once_after_a_rewind(tmp_path: Path, newest: int, other: int) -> None:
    """What is in its place is as good as no blob, also where it is compared with what was read before."""
    async with await filled(tmp_path, 15) as journal:
        await journal.rewind(13)
    blobs = tmp_path / "orders_data"
    (blobs / f"{3:016x}").write_bytes((blobs / f"{other:016x}").read_bytes())
    follower = follower_of(ReadOnlyFileStorage(tmp_path), tmp_path, newest)
    said = [event for _ in range(20) for event in await follower.look()]
    assert follower.is_idle
    assert [event.positions for event in said if isinstance(event, Corrupt)] == [range(12, 16)]
    assert not any(isinstance(event, Rewound) for event in said)


async def test_an_item_that_cannot_be_decoded_is_told_and_the_others_are_shown(tmp_path: Path) -> None:
    """The codec may be another one than the writer's."""

    class Odd(BytesCodec):
        def decode(self, data: bytes, /) -> bytes:
            if int(data.split()[0]) % 3 == 1:
                raise ValueError
            return data

    async with await filled(tmp_path, 5):
        pass
    follower = Follower(Blobs(ReadOnlyFileStorage(tmp_path), tmp_path, "orders"), lambda _: Odd(), 5)
    said = [event for _ in range(20) for event in await follower.look()]
    assert [event.positions for event in said if isinstance(event, Corrupt)] == [range(1, 2), range(4, 5)]
    assert all(isinstance(event.error, CodecError) for event in said if isinstance(event, Corrupt))
    assert [event for event in said if isinstance(event, Shown)] == [
        Shown(0, [b"0 of 0"]),
        Shown(2, [b"2 of 0", b"3 of 0"]),
    ]


async def test_a_codec_that_has_taken_over_reads_what_comes(tmp_path: Path) -> None:
    """A new release of the writer has opened the journal with it; it reads the items of the older one too."""

    class Newer(BytesCodec):
        name = "newer"

        def accepts(self, name: str) -> bool:
            return name == "bytes"

        @override
        def decode(self, data: bytes, /) -> bytes:
            return b"newer: " + data

    codecs: dict[str, BytesCodec] = {"bytes": BytesCodec(), "newer": Newer()}
    storage = ReadOnlyFileStorage(tmp_path)
    audience = Audience(Follower(Blobs(storage, tmp_path, "orders"), codecs.__getitem__, 1_000))
    async with await filled(tmp_path, 3):
        await audience.look_until_idle()
    async with await Journal.init(Context(FileStorage(tmp_path)), config_of(codec=Newer())) as journal:
        await appended(journal, 3)
        await audience.look_until_idle()
    assert audience.items == {
        **{position: b"%d of 0" % position for position in range(3)},
        **{position: b"newer: %d of 0" % position for position in range(3, 6)},
    }


async def test_a_large_item_and_many_small_ones_are_shown(tmp_path: Path) -> None:
    """An item may be larger than what is read at a time."""
    items = [b"small", b"x" * 3_000_000, b"small", b"y" * 300_000]
    async with await Journal.init(Context(FileStorage(tmp_path)), config_of(items_per_section=100_000)) as journal:
        await journal.append_many(items + [b"z"] * 50_000)
        await journal.sync_data()
        audience = await followed(tmp_path, newest=100_000)
    assert [audience.items[position] for position in range(4)] == items
    assert len(audience.items) == 50_004


async def test_without_a_checkpoint_the_data_says_what_there_is(tmp_path: Path) -> None:
    """A journal whose checkpoint is lost or damaged is shown all the same."""
    async with await filled(tmp_path, 10):
        pass
    checkpoint = tmp_path / "orders_checkpoint" / f"{0:016x}"
    content = checkpoint.read_bytes()
    for damaged in (None, b"", b"?" * len(content)):
        checkpoint.unlink()
        if damaged is not None:
            checkpoint.write_bytes(damaged)
        assert len((await followed(tmp_path)).items) == 10
        checkpoint.write_bytes(content)


@pytest.mark.parametrize("section", [2**40, 2**64 - 1])
async def test_a_stray_file_of_a_large_number_is_followed_to_its_end(tmp_path: Path, section: int) -> None:
    """With the checkpoint lost it makes positions above 2**64, and what was told of them is not told again."""
    async with await filled(tmp_path, 10):
        pass
    (tmp_path / "orders_checkpoint" / f"{0:016x}").unlink()
    (tmp_path / "orders_data" / f"{section:016x}").touch()
    follower = follower_of(ReadOnlyFileStorage(tmp_path), tmp_path, newest=4)
    said = [event for _ in range(20) for event in await follower.look()]
    assert follower.is_idle
    assert [event.positions for event in said if isinstance(event, Corrupt)] == [range(section * 4 - 4, section * 4)]
    assert len(said) == 1


async def test_another_format_version_is_refused(tmp_path: Path) -> None:
    """It raises what opening the journal would raise."""
    async with await filled(tmp_path, 1):
        pass
    path = tmp_path / "orders_checkpoint" / f"{0:016x}"
    content = bytearray(path.read_bytes())
    for at in (0, 4096):
        content[at + 8] = 2
        content[at : at + 76] = sealed_with_crc(bytes(content[at : at + 72]))
    path.write_bytes(content)
    with pytest.raises(InvalidConfiguration, match="format version"):
        await followed(tmp_path)


async def test_following_may_be_cancelled_at_any_moment(tmp_path: Path) -> None:
    """No file stays open and no task goes on: what the fixtures of all tests check."""
    async with await filled(tmp_path, 10):
        for turns in range(0, 60, 3):
            task = asyncio.create_task(first_event(tmp_path))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})


async def first_event(root: Path) -> None:
    async with aclosing(follow(root, "orders", codec_of=lambda _: BytesCodec(), interval_seconds=0)) as events:
        async for _ in events:
            pass
