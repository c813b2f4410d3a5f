"""A journal from one version of its items to the next: what is opened, refused and recorded, and each crash inside."""

from __future__ import annotations

import random
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from posjournal_async import (
    CodecError,
    Config,
    Context,
    FileStorage,
    InvalidConfiguration,
    Journal,
    JsonCodec,
    MsgpackCodec,
    StorageError,
)
from posjournal_async.testing import CrashStorage, Luck
from tests.codecs.orders import KINDS, QUOTED, Kind
from tests.format.writer import path_of, read_checkpoint, read_journal
from tests.journals import contents_of, limits_of
from tests.recovery.journals import tree_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from posjournal_async import Codec, Storage

each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.package)

STRUCTS = KINDS[0]
PER_SECTION = 3


def config_of(codec: Codec[Any], **fields: Any) -> Config[Any]:
    return Config(partition="orders", items_per_section=PER_SECTION, codec=codec, **fields)


async def write(storage: Storage, kind: Kind, version: int, count: int, **fields: Any) -> None:
    """Append so many orders as code of that version does, each numbered by its position, and close the journal."""
    async with await Journal.init(Context(storage), config_of(kind.codec(version), **fields)) as journal:
        for position in range(journal.size(), journal.size() + count):
            await journal.append(kind.order(position, version))


def orders(kind: Kind, version: int, positions: Iterable[int]) -> list[tuple[int, Any]]:
    return [(position, kind.order(position, version)) for position in positions]


async def refusal_of(storage: Storage, codec: Codec[Any]) -> InvalidConfiguration:
    with pytest.raises(InvalidConfiguration) as raised:
        await Journal.init(Context(storage), config_of(codec))
    return raised.value


def name_in_header(root: Path, section: int, part: Any = "data") -> str:
    return path_of(root, "orders", part, section).read_bytes()[52:60].rstrip(b"\0").decode()


def name_in_checkpoint(root: Path) -> str:
    checkpoint = read_checkpoint(root, "orders")
    assert checkpoint is not None
    return checkpoint.codec.rstrip(b"\0").decode()


# Opened with a newer version, and with an older one.


@each_kind
@pytest.mark.parametrize("compression", [None, 3])
async def test_a_journal_of_several_versions_shows_items_of_the_current_one(
    kind: Kind, compression: int | None, tmp_path: Path
) -> None:
    """Read and replayed, from a tail that holds two versions too, and after it was opened again."""
    storage = FileStorage(tmp_path)
    await write(storage, kind, 1, 4, compression=compression)
    await write(storage, kind, 2, 4, compression=compression)
    async with await Journal.init(Context(storage), config_of(kind.codec(3), compression=compression)) as journal:
        assert journal.recovery.clean
        assert await contents_of(journal) == orders(kind, 3, range(8))
        batches = [batch async for batch in journal.replay_batches(0)]
        assert [item for _, items in batches for item in items] == [item for _, item in orders(kind, 3, range(8))]
        await journal.append(kind.order(8, 3))
        assert await contents_of(journal) == orders(kind, 3, range(9))
    async with await Journal.init(Context(storage), config_of(kind.codec(3))) as journal:
        assert journal.recovery.clean
        assert await contents_of(journal) == orders(kind, 3, range(9))
    assert [payload[0] for _, payload in read_journal(tmp_path, "orders")] == [1] * 4 + [2] * 4 + [3]


@each_kind
async def test_opening_records_the_version(kind: Kind, tmp_path: Path) -> None:
    """The checkpoint says the newest, each blob the one under which it was made, its index the same."""
    storage = FileStorage(tmp_path)
    await write(storage, kind, 1, 4)
    assert name_in_checkpoint(tmp_path) == kind.name(1)
    await write(storage, kind, 2, 0)
    assert name_in_checkpoint(tmp_path) == kind.name(2)
    await write(storage, kind, 2, 4)
    for part in ("data", "offsets"):
        names = [name_in_header(tmp_path, section, part) for section in range(3)]
        assert names == [kind.name(1), kind.name(1), kind.name(2)]


@each_kind
@pytest.mark.parametrize("count", [0, 2, 3])
async def test_a_journal_of_a_newer_version_is_refused(kind: Kind, count: int, tmp_path: Path) -> None:
    """By its name, also where no newer item was appended; the error has both names, and no file is changed."""
    storage = FileStorage(tmp_path)
    await write(storage, kind, 1, 4)
    await write(storage, kind, 3, count)
    before = tree_of(tmp_path)
    for _ in range(2):
        error = await refusal_of(storage, kind.codec(2))
        assert str(error) == f"codec: expected {kind.name(3)}, found {kind.name(2)} (partition orders)"
        assert tree_of(tmp_path) == before


@each_kind
async def test_another_encoding_is_refused(kind: Kind, tmp_path: Path) -> None:
    """Typed or not, and in both directions."""
    await write(FileStorage(tmp_path / kind.package), kind, 1, 2)
    others = [other.codec(2) for other in KINDS if other is not kind]
    for other in (*others, JsonCodec(), MsgpackCodec()):
        await refusal_of(FileStorage(tmp_path / kind.package), other)
        another = FileStorage(tmp_path / f"by {other.name.replace('/', ' ')}")
        async with await Journal.init(Context(another), config_of(other)):
            pass
        await refusal_of(another, kind.codec(2))


@each_kind
async def test_a_journal_that_may_hold_what_is_not_read_any_more_is_refused(kind: Kind, tmp_path: Path) -> None:
    """The first section that is left says how old items can be, whatever the checkpoint says; pruning it helps."""
    storage = FileStorage(tmp_path)
    await write(storage, kind, 1, 4)
    await refusal_of(storage, kind.codec(2, oldest=2))
    await write(storage, kind, 2, 6)
    before = tree_of(tmp_path)
    for codec in (kind.codec(2, oldest=2), kind.codec(3, oldest=2)):
        error = await refusal_of(storage, codec)
        assert (error.what, error.expected, error.found) == ("codec of section 0", kind.name(1), codec.name)
        assert tree_of(tmp_path) == before
    async with await Journal.init(Context(storage), config_of(kind.codec(2))) as journal:
        assert await journal.prune(6)
    async with await Journal.init(Context(storage), config_of(kind.codec(3, oldest=2))) as journal:
        assert await contents_of(journal) == orders(kind, 3, range(6, 10))


@each_kind
async def test_removing_items_keeps_the_version(kind: Kind, tmp_path: Path) -> None:
    """A rewind into a section of the old version goes on in it with the new one, and the checkpoint stays new."""
    storage = FileStorage(tmp_path)
    await write(storage, kind, 1, 5)
    async with await Journal.init(Context(storage), config_of(kind.codec(2))) as journal:
        await journal.append(kind.order(5, 2))
        await journal.append(kind.order(6, 2))
        await journal.rewind(4)
        await journal.append(kind.order(4, 2))
        assert await contents_of(journal) == orders(kind, 2, range(5))
    assert name_in_checkpoint(tmp_path) == kind.name(2)
    assert [payload[0] for _, payload in read_journal(tmp_path, "orders")] == [1, 1, 1, 1, 2]


async def test_a_reset_that_older_code_began_is_finished_under_the_new_version() -> None:
    """Killed in any call of it: the journal is the old one or empty, and code of the old version is refused."""
    storage = CrashStorage()
    await write(storage, STRUCTS, 1, 4)
    photos: list[CrashStorage] = []
    storage.on_call = lambda: photos.append(storage.photo())
    await (await Journal.init_at_size(Context(storage), config_of(STRUCTS.codec(1)), 7)).close()
    storage.on_call = None
    rng = random.Random(1)
    finished = 0
    for photo in photos:
        left = photo.killed(rng)
        async with await Journal.init(Context(left), config_of(STRUCTS.codec(2))) as journal:
            finished += journal.recovery.reset_finished
            assert limits_of(journal.bounds()) in {(0, 4), (7, 7)}
            dark = left.power_cut(rng, Luck.NONE)
        await refusal_of(dark, STRUCTS.codec(1))
    assert finished > 1


async def test_replacing_a_journal_takes_any_codec(tmp_path: Path) -> None:
    """Also an older version: nothing of the newer one is left."""
    storage = FileStorage(tmp_path)
    await write(storage, STRUCTS, 3, 4)
    async with await Journal.init_at_size(Context(storage), config_of(STRUCTS.codec(1)), 4) as journal:
        await journal.append(STRUCTS.order(4, 1))
    assert name_in_checkpoint(tmp_path) == name_in_header(tmp_path, 1) == "mp/1"


async def test_a_codec_of_ones_own_may_accept_other_names(tmp_path: Path) -> None:
    """Whatever the names look like; one without the method accepts none."""

    class Text:
        name = "text"

        def encode(self, item: str, /) -> bytes:
            return b"t" + item.encode()

        def decode(self, data: bytes, /) -> str:
            return data[1:].decode()

    class Upper(Text):
        name = "upper"

        def accepts(self, name: str, /) -> bool:
            return name == "text"

        def encode(self, item: str, /) -> bytes:
            return b"u" + item.upper().encode()

        def decode(self, data: bytes, /) -> str:
            return data[1:].decode().upper()

    storage = FileStorage(tmp_path)
    async with await Journal.init(Context(storage), config_of(Text())) as journal:
        await journal.append_many(["a", "b", "c", "d"])
    async with await Journal.init(Context(storage), config_of(Upper())) as journal:
        await journal.append("e")
        assert [item async for _, item in journal.replay(0)] == ["A", "B", "C", "D", "E"]
    assert str(await refusal_of(storage, Text())) == "codec: expected upper, found text (partition orders)"


# Without the checkpoint, or half of it.


@each_kind
async def test_without_the_checkpoint_the_last_header_counts(kind: Kind, tmp_path: Path) -> None:
    """Older code is refused before anything is changed, and newer code goes on."""
    storage = FileStorage(tmp_path)
    await write(storage, kind, 1, 4)
    await write(storage, kind, 2, 4)
    assert name_in_header(tmp_path, 0) == kind.name(1)
    shutil.rmtree(tmp_path / "orders_checkpoint")
    before = tree_of(tmp_path)
    error = await refusal_of(storage, kind.codec(1))
    assert (error.expected, error.found) == (kind.name(2), kind.name(1))
    assert {**tree_of(tmp_path), "orders_checkpoint/0000000000000000": b""} == {
        **before,
        "orders_checkpoint/0000000000000000": b"",
    }
    async with await Journal.init(Context(storage), config_of(kind.codec(3))) as journal:
        assert "lost" in journal.recovery.notes[0]
        assert await contents_of(journal) == orders(kind, 3, range(8))
    assert name_in_checkpoint(tmp_path) == kind.name(3)


@each_kind
async def test_newer_items_in_an_old_blob_are_refused_one_by_one(kind: Kind, tmp_path: Path) -> None:
    """Nothing but the items themselves says it: the checkpoint is lost, and the blob was made by the old version."""
    storage = FileStorage(tmp_path)
    await write(storage, kind, 1, 4)
    await write(storage, kind, 2, 1)
    shutil.rmtree(tmp_path / "orders_checkpoint")
    async with await Journal.init(Context(storage), config_of(kind.codec(1))) as journal:
        assert await journal.read_many(range(4)) == [item for _, item in orders(kind, 1, range(4))]
        with pytest.raises(CodecError) as raised:
            await journal.read(4)
        assert raised.value.position == 4
        assert str(raised.value) == (
            f"decode with {kind.name(1)}: version of the item: expected 1, found 2 (position 4)"
        )
        replay = journal.replay(0)
        assert [await anext(replay) for _ in range(4)] == orders(kind, 1, range(4))
        with pytest.raises(CodecError):
            await anext(replay)
    async with await Journal.init(Context(storage), config_of(kind.codec(2))) as journal:
        assert await contents_of(journal) == orders(kind, 2, range(5))


@pytest.mark.parametrize("slot", [0, 1])
async def test_older_code_is_refused_when_a_slot_is_damaged(slot: int, tmp_path: Path) -> None:
    """Where the older slot counts again, the header of the last blob says that there are newer items."""
    storage = FileStorage(tmp_path)
    await write(storage, STRUCTS, 1, 4)
    await write(storage, STRUCTS, 2, 4)
    place = path_of(tmp_path, "orders", "checkpoint")
    content = bytearray(place.read_bytes())
    content[slot * 4096 + 30] ^= 0xFF
    place.write_bytes(content)
    before = tree_of(tmp_path)
    error = await refusal_of(storage, STRUCTS.codec(1))
    assert (error.expected, error.found) == ("mp/2", "mp/1")
    assert tree_of(tmp_path) == before
    async with await Journal.init(Context(storage), config_of(STRUCTS.codec(2))) as journal:
        assert await contents_of(journal) == orders(STRUCTS, 2, range(8))


# A crash in the opening that upgrades, or behind it.


async def _closed(storage: CrashStorage) -> None:
    """The last section has room for two items: in it nothing but the items and the checkpoint tells the version."""
    await write(storage, STRUCTS, 1, 4)


async def _empty(storage: CrashStorage) -> None:
    await write(storage, STRUCTS, 1, 0)


async def _full(storage: CrashStorage) -> None:
    await write(storage, STRUCTS, 1, 3)


async def _unsynced(storage: CrashStorage) -> None:
    """A process that was killed: five durable items, two that may be."""
    journal = await Journal.init(Context(storage), config_of(STRUCTS.codec(1), write_buffer=1))
    for position in range(7):
        await journal.append(STRUCTS.order(position, 1))
        if position == 4:
            await journal.sync_data()
    left = storage.killed(random.Random(7))
    await journal.close()
    storage._partitions = left._partitions


async def _without_checkpoint(storage: CrashStorage) -> None:
    await write(storage, STRUCTS, 1, 5)
    await storage.remove("orders_checkpoint", None)


async def _reset(storage: CrashStorage) -> None:
    await write(storage, STRUCTS, 1, 4)
    await (await Journal.init_at_size(Context(storage), config_of(STRUCTS.codec(1)), 4)).close()


BEFORE = [_closed, _empty, _full, _unsynced, _without_checkpoint, _reset]


async def show_as_version_1(storage: CrashStorage) -> list[tuple[int, Any]] | None:
    """Return what code of version 1 shows of a copy; None if it is refused, because of the version."""
    with suppress(InvalidConfiguration):
        async with await Journal.init(Context(storage.photo()), config_of(STRUCTS.codec(1))) as journal:
            return [(position, await journal.read(position)) for position in journal.bounds()]
    error = await refusal_of(storage.photo(), STRUCTS.codec(1))
    assert (error.expected, error.found) == ("mp/2", "mp/1")
    return None


@pytest.mark.parametrize("before", BEFORE, ids=lambda before: before.__name__.strip("_"))
async def test_a_crash_anywhere_in_an_upgrade_shows_newer_items_to_newer_code_only(
    before: Callable[[CrashStorage], Any],
) -> None:
    """In each storage call of the first opening and of what is appended then; killed, and the power cut in many ways.

    What is left shows a prefix of what was appended with all that was acknowledged to code of version 2, and the same
    to code of version 1 unless it is refused; it is always refused where an item of version 2 is left.
    """
    storage = CrashStorage()
    await before(storage)
    photos: list[tuple[CrashStorage, int]] = []
    acknowledged = 0
    storage.on_call = lambda: photos.append((storage.photo(), acknowledged))
    async with await Journal.init(Context(storage), config_of(STRUCTS.codec(2))) as journal:
        start, was = journal.bounds().start, journal.size()
        acknowledged = was
        for position in range(was, was + 4):
            await journal.append(STRUCTS.order(position, 2))
            await journal.sync_data()
            acknowledged = position + 1
    storage.on_call = None
    photos.append((storage.photo(), acknowledged))

    rng = random.Random(before.__name__)
    refused = 0
    for number, (photo, promised) in enumerate(photos):
        states = [*(photo.killed(rng) for _ in range(3)), *photo.states(6, number)]
        for state in states:
            shown = await show_as_version_1(state)
            refused += shown is None
            async with await Journal.init(Context(state), config_of(STRUCTS.codec(2))) as newer:
                size = newer.size()
                assert size >= promised
                expected = orders(STRUCTS, 2, range(start, size))
                assert await contents_of(newer) == expected
                if shown is not None:
                    assert size <= was
                    assert shown == orders(STRUCTS, 1, range(start, size))
                await newer.append(STRUCTS.order(size, 2))
                await newer.sync_data()
                dark = state.power_cut(rng, Luck.NONE)
            assert await show_as_version_1(dark) is None
            async with await Journal.init(Context(dark), config_of(STRUCTS.codec(2))) as newer:
                assert await contents_of(newer) == orders(STRUCTS, 2, range(start, size + 1))
    assert 0 < refused < len(photos) * 9


@pytest.mark.parametrize("partition", ["orders_checkpoint", "orders_data"])
async def test_an_upgrade_that_fails_leaves_a_journal_of_either_version(partition: str) -> None:
    """The device refuses a sync: the opening fails, nothing is left open, and nothing newer was written."""
    storage = CrashStorage()
    await _unsynced(storage)
    storage.fail_sync = partition
    with pytest.raises(StorageError):
        await Journal.init(Context(storage), config_of(STRUCTS.codec(2)))
    for left in (storage.killed(random.Random(1)), storage.power_cut(random.Random(1), Luck.NONE)):
        shown = await show_as_version_1(left)
        async with await Journal.init(Context(left), config_of(STRUCTS.codec(2))) as journal:
            assert journal.size() >= 5
            assert await contents_of(journal) == orders(STRUCTS, 2, range(journal.size()))
            if shown is not None:
                assert shown == orders(STRUCTS, 1, range(journal.size()))


# Errors.


@each_kind
async def test_an_item_that_cannot_be_encoded_is_refused_with_nothing_appended(kind: Kind, tmp_path: Path) -> None:
    """The error has the name of the codec, and nothing of the item."""
    async with await Journal.init(Context(FileStorage(tmp_path)), config_of(kind.codec(2))) as journal:
        wrong = kind.order(0, 1, note=QUOTED)
        for append in (journal.append(wrong), journal.append_many([kind.order(0, 2), wrong])):
            with pytest.raises(CodecError) as raised:
                await append
            assert str(raised.value) == f"encode with {kind.name(2)}: TypeError"
            assert QUOTED not in str(raised.value.__cause__)
        assert journal.size() == 0


@each_kind
@pytest.mark.parametrize("version", [1, 2])
async def test_an_item_that_does_not_fit_its_type_is_told_with_its_position(
    kind: Kind, version: int, tmp_path: Path
) -> None:
    """In the current version, and on the way from an old one. The error itself holds nothing of the item."""

    class Damaged:
        name = kind.name(version)

        def encode(self, item: bytes, /) -> bytes:
            return bytes([version]) + item

        def decode(self, data: bytes, /) -> bytes:
            return data

    # JSON, MessagePack and protobuf all take a text where there should be a number, or no message, for an error.
    garbage = {
        "mp": b"\xa6" + QUOTED[:6].encode(),
        "json": b'"%s"' % QUOTED.encode(),
        "pb": b"\x0a\xff" + QUOTED.encode(),
    }
    async with await Journal.init(Context(FileStorage(tmp_path)), config_of(Damaged())) as damaged:
        await damaged.append(kind.codec(version).encode(kind.order(0, version))[1:])
        await damaged.append(garbage[kind.encoding])
    async with await Journal.init(Context(FileStorage(tmp_path)), config_of(kind.codec(2))) as journal:
        assert await journal.read(0) == kind.order(0, 2)
        with pytest.raises(CodecError) as raised:
            await journal.read(1)
        error = raised.value
        assert (error.codec, error.doing, error.position) == (kind.name(2), "decode", 1)
        assert QUOTED not in str(error)
        assert error.reason == type(error.__cause__).__name__


async def test_an_upcaster_that_raises_is_told_with_the_position(tmp_path: Path) -> None:
    """And the items around it can be read."""

    def upcast(old: dict[str, Any]) -> dict[str, Any]:
        if old["number"] == 1:
            raise LookupError(QUOTED)
        return {"number": old["number"], "cents": 0, "note": ""}

    storage = FileStorage(tmp_path)
    await write(storage, STRUCTS, 1, 3)
    codec = STRUCTS.make(STRUCTS.classes[1], version=2, upcasters={1: upcast})
    async with await Journal.init(Context(storage), config_of(codec)) as journal:
        assert [(await journal.read(position)).number for position in (0, 2)] == [0, 2]
        with pytest.raises(CodecError, match=r"^decode with mp/2: LookupError \(position 1\)$"):
            await journal.read(1)
