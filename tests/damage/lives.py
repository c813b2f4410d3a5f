"""A damaged journal that lives on: it is changed, crashes, fails, is damaged again, and is opened again.

Where `oracle` says what may come of one damage, here the first opening of the damaged journal says what there is, and
from then on the oracle is that of the crashes (`tests.recovery.oracle`). A position that is refused stays refused, all
others keep their items, and damage is no excuse for a journal that cannot be opened any more.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from typing_extensions import override

from posjournal_async import (
    BytesCodec,
    Config,
    Context,
    Corruption,
    InvalidConfiguration,
    Journal,
    JournalFailed,
    StorageError,
)
from posjournal_async.checkpoint import read_slots, slots_in
from posjournal_async.format.checkpoint_slot import SLOT_LENGTH
from posjournal_async.format.header import Header, Kind, parse_header
from posjournal_async.mending.cutting import cut_away, cut_of
from posjournal_async.testing import CrashStorage, FaultyStorage
from tests.damage.files import CHECKPOINT, SLOT_FIELDS_LENGTH, records_in
from tests.damage.states import ITEMS_PER_SECTION
from tests.recovery.oracle import Allowed, Run

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping


__all__ = ["REFUSED", "Life"]

# What stands for the item of a position that reading refuses.
REFUSED = b"Corruption"

_BUFFERS = (48, 4096)


class _Version(BytesCodec):
    """A codec that goes on with what any older version of it wrote."""

    def __init__(self, number: int) -> None:
        self.name = f"bytes/{number}" if number else "bytes"
        self._older = {"bytes", *(f"bytes/{older}" for older in range(1, number))}

    def accepts(self, name: str) -> bool:
        return name in self._older


class Life(Run):
    """A journal whose files are damaged, on a storage that may crash and fail.

    Attributes:
        faulty: The storage as the journal sees it.
        version: Version of the codec that opens it.
    """

    def __init__(self, storage: CrashStorage, rng: random.Random, *, compression: int | None, version: int = 0) -> None:
        super().__init__(storage, ITEMS_PER_SECTION, rng, is_monitored=False)
        self.compression = compression
        self.version = version
        self.faulty = FaultyStorage(storage)

    @override
    async def _open(self, size: int | None = None) -> None:
        if self.faulty.inner is not self.storage:
            self.faulty = FaultyStorage(self.storage)
        self.config = Config(
            partition="j",
            items_per_section=ITEMS_PER_SECTION,
            codec=_Version(self.version),
            compression=self.compression,
            write_buffer=self.rng.choice(_BUFFERS),
            max_open_blobs=self.rng.choice((1, 64)),
        )
        context = Context(self.faulty)
        if size is not None:
            self.journal = await Journal.init_at_size(context, self.config, size)
            return
        try:
            self.journal = await Journal.init(context, self.config)
        except Corruption as error:
            await self._finish_rewind(error)
            self.journal = await Journal.init(context, self.config)
        assert self.journal.durable_size() == self.journal.size()

    async def _finish_rewind(self, error: Corruption) -> None:
        """End the journal where `posjournal repair --cut-at` would: a rewind over a damaged header was interrupted.

        Nothing else is an excuse for damage that an opening came past before.
        """
        if error.what != "header" or error.section is None:
            raise error
        first = error.section * ITEMS_PER_SECTION
        gone = range(first, min(first + ITEMS_PER_SECTION, self.allowed.high))
        if self.allowed.low > first or {self.allowed.items.get(position) for position in gone} != {REFUSED}:
            raise error
        blob, slots = await read_slots(self.storage, CHECKPOINT[0])
        await blob.close()
        slot = slots.current
        assert slot is not None
        cut = await cut_of(self.storage, "j", slot, slots.place, slot.durable, size=slot.durable, behind=0)
        await cut_away(self.storage, "j", cut)

    @override
    async def contents(self) -> tuple[range, list[tuple[int, bytes]]]:
        bounds = self.journal.bounds()
        found = [(position, await self._read(position)) for position in bounds]
        start = bounds.start
        while start < bounds.stop:
            replayed = await self._replayed(start)
            whole = found[start - bounds.start :][: len(replayed)]
            assert replayed == whole
            start += len(replayed)
            if start < bounds.stop:
                assert found[start - bounds.start][1] == REFUSED, "replay refused an item that can be read"
            start += 1
        return bounds, found

    async def _read(self, position: int) -> bytes:
        try:
            return await self.journal.read(position)
        except Corruption as error:
            assert error.section == position // ITEMS_PER_SECTION  # noqa: PT017 - it may as well be read
            return REFUSED

    async def _replayed(self, start: int) -> list[tuple[int, bytes]]:
        replayed: list[tuple[int, bytes]] = []
        with suppress(Corruption):
            async for pair in self.journal.replay(start):
                replayed.append(pair)  # noqa: PERF401 - those before the damage count
        return replayed

    @override
    async def prune(self, position: int) -> None:
        was = self.allowed
        try:
            await super().prune(position)
        except Corruption:  # its section would be the first: nothing was changed
            self.allowed = was

    @override
    async def rewind(self, size: int) -> None:
        was = self.allowed
        try:
            await super().rewind(size)
        except Corruption:  # its section would be the last: nothing was changed
            assert REFUSED in was.items.values()
            self.allowed = was

    @override
    async def do(self, operation: str) -> None:
        await (self.upgrade() if operation == "upgrade" else super().do(operation))

    async def upgrade(self) -> None:
        """Close the journal, and open it with the next version of the codec."""
        self.version += 1
        await self.close_and_reopen()
        older = Life(self.storage.photo(), self.rng, compression=self.compression, version=self.version - 1)
        with pytest.raises((InvalidConfiguration, Corruption)):
            await older._open()

    async def do_and_fail(self, operation: str) -> None:
        """Do something while a call of the storage fails, and open what is left."""
        faulty = self.faulty
        faulty.fail_at = faulty.count + self.rng.randrange(1, 12)
        try:
            with suppress(StorageError, JournalFailed):
                await self.do(operation)
            with suppress(StorageError, JournalFailed):
                await self.journal.close()
        finally:
            for each in (faulty, self.faulty):
                each.fail_at = 0
        await self._open()
        found = await self.contents()
        self.allowed.check(*found)
        self.allowed = Allowed.exactly(*found)

    async def rot(self) -> None:
        """Damage a file of the open journal: an index, the older slot, or a record of a sealed section."""
        await self.rng.choice((self._rot_index, self._rot_slot, self._rot_record))()

    async def _rot_index(self) -> None:
        tree = self.storage.tree()
        indexes = [key for key, content in tree.items() if key[0] == "j_offsets" and content]
        if not indexes:
            return
        key = self.rng.choice(indexes)
        first = int(key[1], 16) * ITEMS_PER_SECTION
        # Behind a damaged record only the index leads on.
        if REFUSED not in {self.allowed.items.get(first + number) for number in range(ITEMS_PER_SECTION)}:
            await self._flip(key, self.rng.randrange(len(tree[key])))

    async def _rot_slot(self) -> None:
        found, _ = slots_in(self.storage.tree().get(CHECKPOINT, b""), CHECKPOINT[0])
        for _, place in found[1:]:
            await self._flip(CHECKPOINT, place * SLOT_LENGTH + self.rng.randrange(SLOT_FIELDS_LENGTH))

    async def _rot_record(self) -> None:
        tree = self.storage.tree()
        sealed = [key for key in tree if key[0] == "j_data"][:-1]
        if not sealed:
            return
        key = self.rng.choice(sealed)
        header = parse_header(tree[key], len(tree[key]))
        records = records_in(key, tree[key])
        if not isinstance(header, Header) or not _is_index(tree.get(("j_offsets", key[1]), b""), header, records):
            return
        number = self.rng.randrange(len(records))
        start, record = list(records.items())[number]
        position = header.first + number
        if self.allowed.items.get(position, REFUSED) != REFUSED:
            await self._flip(key, start + self.rng.randrange(len(record)))
            self.allowed = replace(self.allowed, items={**self.allowed.items, position: REFUSED})

    async def _flip(self, key: tuple[str, str], at: int) -> None:
        """Turn a bit over, durably."""
        on_call, self.storage.on_call = self.storage.on_call, None
        blob, _ = await self.storage.open(key[0], bytes.fromhex(key[1]))
        [byte] = await blob.read_at(at, 1)
        await blob.write_at(at, bytes([byte ^ 1 << self.rng.randrange(8)]))
        await blob.sync()
        await blob.close()
        self.storage.on_call = on_call


def _is_index(index: bytes, header: Header, records: Mapping[int, bytes]) -> bool:
    """Say whether a file is the index of a full section, to the last byte."""
    made = replace(header, kind=Kind.OFFSETS).to_bytes() + b"".join(start.to_bytes(8, "little") for start in records)
    return index == made and header.first + len(records) == (header.section + 1) * ITEMS_PER_SECTION
