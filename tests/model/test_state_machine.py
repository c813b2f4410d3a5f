"""A journal against a plain list: whatever is done to both, they say the same."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from posjournal_async import (
    Context,
    EmptyAppend,
    FileStorage,
    InvalidRewind,
    ItemOutOfRange,
    ItemPruned,
    Journal,
    MemoryStorage,
    SizeOverflow,
)
from tests.journals import config_of, limits_of, streamed

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from posjournal_async import Config, Storage

T = TypeVar("T")

LARGEST = 2**64 - 1

ITEMS = st.binary(max_size=40)
# Places on both sides of what is retained; the numbers are taken from the model's start on.
STEPS = st.integers(-3, 14)
BUFFERS = st.sampled_from([1, 9, 40, 200, 2**20])


class Model:
    """What a journal has to be: the size, where it starts, and the items from there on."""

    def __init__(self, items_per_section: int, start: int = 0) -> None:
        self.items_per_section = items_per_section
        self.start = start
        self.items: list[bytes] = []

    @property
    def size(self) -> int:
        return self.start + len(self.items)

    @property
    def room(self) -> int:
        """How many items may still be appended."""
        return LARGEST - self.size

    def section_start_of(self, position: int) -> int:
        return position // self.items_per_section * self.items_per_section

    def prune(self, position: int) -> bool:
        boundary = self.section_start_of(min(position, self.size))
        if boundary <= self.start:
            return False
        del self.items[: boundary - self.start]
        self.start = boundary
        return True

    def rewind(self, size: int) -> None:
        del self.items[size - self.start :]


class JournalMachine(RuleBasedStateMachine):
    """Does the same to a journal and to a model."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.storage = self.make_storage()
        self.journal: Journal[bytes]
        self.model: Model
        self.durable = 0

    def make_storage(self) -> Storage:
        """Return an empty storage of the kind under test."""
        raise NotImplementedError

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def look(self, at: Callable[[], T]) -> T:
        """Return what a call that does not wait returns; the journal wants to be asked on its event loop."""

        async def work() -> T:
            return at()

        return self.run(work())

    def config(self) -> Config[bytes]:
        return config_of(
            self.model.items_per_section,
            compression=self.compression,
            write_buffer=self.write_buffer,
            max_open_blobs=self.max_open_blobs,
        )

    @initialize(
        items_per_section=st.integers(1, 4),
        compression=st.sampled_from([None, 1]),
        write_buffer=st.sampled_from([1, 64, 2**20]),
        max_open_blobs=st.sampled_from([1, 2, 64]),
    )
    def open(self, items_per_section: int, compression: int | None, write_buffer: int, max_open_blobs: int) -> None:
        self.compression = compression
        self.write_buffer = write_buffer
        self.max_open_blobs = max_open_blobs
        self.model = Model(items_per_section)
        self.journal = self.run(Journal.init(Context(self.storage), self.config()))
        assert self.journal.recovery.clean

    # What changes the journal.

    @rule(item=ITEMS)
    def append(self, item: bytes) -> None:
        if self.model.room < 1:
            with pytest.raises(SizeOverflow):
                self.run(self.journal.append(item))
            return
        assert self.run(self.journal.append(item)) == self.model.size
        self.model.items.append(item)

    @rule(items=st.lists(ITEMS, max_size=10))
    def append_many(self, items: list[bytes]) -> None:
        if not items:
            with pytest.raises(EmptyAppend):
                self.run(self.journal.append_many(items))
            return
        if self.model.room < len(items):
            with pytest.raises(SizeOverflow):
                self.run(self.journal.append_many(items))
            return
        assert self.run(self.journal.append_many(iter(items))) == self.model.size + len(items) - 1
        self.model.items.extend(items)

    @rule(items=st.lists(ITEMS, min_size=2, max_size=8))
    def append_from_many_tasks(self, items: list[bytes]) -> None:
        async def work() -> list[int | BaseException]:
            return await asyncio.gather(*(self.journal.append(item) for item in items), return_exceptions=True)

        size, count = self.model.size, min(self.model.room, len(items))
        outcomes = self.run(work())
        assert outcomes[:count] == [*range(size, size + count)]
        assert all(isinstance(outcome, SizeOverflow) for outcome in outcomes[count:])
        self.model.items.extend(items[:count])

    @rule(step=STEPS)
    def prune(self, step: int) -> None:
        position = max(self.model.start + step, 0)
        was_durable = self.look(self.journal.durable_size)
        removed = self.run(self.journal.prune(position))
        assert removed is self.model.prune(position)
        assert self.look(self.journal.durable_size) == (self.model.size if removed else was_durable)

    @rule(step=STEPS)
    def rewind(self, step: int) -> None:
        size = max(self.model.start + step, 0)
        if size > self.model.size:
            with pytest.raises(InvalidRewind):
                self.run(self.journal.rewind(size))
        elif size < self.model.start:
            with pytest.raises(ItemPruned):
                self.run(self.journal.rewind(size))
        elif size == self.model.size:
            self.run(self.journal.rewind(size))
        else:
            self.run(self.journal.rewind(size))
            self.model.rewind(size)
            assert self.look(self.journal.durable_size) == size
            self.durable = size

    @rule()
    def sync(self) -> None:
        self.run(self.journal.sync())
        assert self.look(self.journal.durable_size) == self.model.size

    @rule()
    def sync_data(self) -> None:
        self.run(self.journal.sync_data())
        assert self.look(self.journal.durable_size) == self.model.size

    @rule(compression=st.sampled_from([None, 1]), max_open_blobs=st.sampled_from([1, 64]))
    def close_and_open_again(self, compression: int | None, max_open_blobs: int) -> None:
        self.run(self.journal.close())
        self.compression, self.max_open_blobs = compression, max_open_blobs
        self.journal = self.run(Journal.init(Context(self.storage), self.config()))
        assert self.journal.recovery.clean, self.journal.recovery
        assert self.look(self.journal.durable_size) == self.model.size

    @rule(
        size=st.one_of(st.integers(0, 20), st.integers(LARGEST - 15, LARGEST - 1)), items_per_section=st.integers(1, 4)
    )
    def start_over_at_a_size(self, size: int, items_per_section: int) -> None:
        self.run(self.journal.close())
        self.model = Model(items_per_section, size)
        self.journal = self.run(Journal.init_at_size(Context(self.storage), self.config(), size))
        self.durable = size

    @rule(step=STEPS, length=st.integers(1, 12))
    def open_to_receive_a_range(self, step: int, length: int) -> None:
        start = min(max(self.model.start + step, 0), LARGEST - 1)
        model = self.model
        self.run(self.journal.close())
        self.journal = self.run(Journal.init_sync(Context(self.storage), self.config(), range(start, start + length)))
        if model.start <= start < model.size:
            model.prune(start)
            model.rewind(min(start + length, model.size))
        else:
            self.model = Model(model.items_per_section, start)
        assert self.look(self.journal.durable_size) == self.model.size
        self.durable = self.model.size

    @rule()
    def destroy_and_make_anew(self) -> None:
        self.run(self.journal.destroy())
        self.model = Model(self.model.items_per_section)
        self.journal = self.run(Journal.init(Context(self.storage), self.config()))
        assert self.journal.recovery.clean
        self.durable = 0

    # What only looks.

    @rule(step=STEPS)
    def read(self, step: int) -> None:
        position = max(self.model.start + step, 0)
        if position >= self.model.size:
            with pytest.raises(ItemOutOfRange):
                self.run(self.journal.read(position))
        elif position < self.model.start:
            with pytest.raises(ItemPruned):
                self.run(self.journal.read(position))
        else:
            assert self.run(self.journal.read(position)) == self.model.items[position - self.model.start]

    @precondition(lambda self: self.model.items)
    @rule(data=st.data())
    def read_many(self, data: st.DataObject) -> None:
        places = data.draw(st.sets(st.integers(0, len(self.model.items) - 1), max_size=12).map(sorted))
        found = self.run(self.journal.read_many([self.model.start + place for place in places]))
        assert found == [self.model.items[place] for place in places]

    @rule(step=STEPS, buffer=BUFFERS)
    def replay(self, step: int, buffer: int) -> None:
        start = max(self.model.start + step, 0)
        if start > self.model.size:
            with pytest.raises(ItemOutOfRange):
                self.journal_replay(start, buffer)
        elif start < self.model.start:
            with pytest.raises(ItemPruned):
                self.journal_replay(start, buffer)
        else:
            assert self.journal_replay(start, buffer) == [*enumerate(self.model.items)][start - self.model.start :]

    def journal_replay(self, start: int, buffer: int) -> list[tuple[int, bytes]]:
        """Return what a replay gives, with positions counted from the model's start."""

        async def work() -> list[tuple[int, bytes]]:
            return await streamed(self.journal.replay(start, buffer))

        return [(position - self.model.start, item) for position, item in self.run(work())]

    # What always holds.

    @invariant()
    def sizes_agree(self) -> None:
        assert self.look(self.journal.size) == self.model.size
        assert limits_of(self.look(self.journal.bounds)) == (self.model.start, self.model.size)
        assert self.look(self.journal.bounds).start == self.model.start
        assert self.look(self.journal.oldest_retained_pos) == (self.model.start if self.model.items else None)

    @invariant()
    def durable_size_only_grows(self) -> None:
        durable = self.look(self.journal.durable_size)
        full_sections = max(self.model.section_start_of(self.model.size), self.model.start)
        assert max(self.durable, full_sections) <= durable <= self.model.size
        self.durable = durable

    def teardown(self) -> None:
        try:
            if hasattr(self, "journal"):
                self.check_all_items()
        finally:
            self.run(self.loop.shutdown_asyncgens())
            self.loop.close()
            self.remove_storage()

    def check_all_items(self) -> None:
        try:
            assert self.journal_replay(self.model.start, 100) == [*enumerate(self.model.items)]
        finally:
            self.run(self.journal.close())
        assert not asyncio.all_tasks(self.loop)

    def remove_storage(self) -> None:
        """Remove what the storage keeps outside this process."""


class MemoryMachine(JournalMachine):
    """The machine in memory."""

    def make_storage(self) -> Storage:
        return MemoryStorage()


class FileMachine(JournalMachine):
    """The machine on files."""

    def make_storage(self) -> Storage:
        self.root = Path(tempfile.mkdtemp(prefix="posjournal-model-"))
        return FileStorage(self.root)

    def remove_storage(self) -> None:
        shutil.rmtree(self.root)


def test_a_journal_in_memory_is_a_list_with_a_start() -> None:
    """Any sequence of calls has the effect that it has on a list whose front was cut off."""
    run_state_machine_as_test(
        MemoryMachine,
        settings=settings(max_examples=150, stateful_step_count=40, suppress_health_check=[HealthCheck.too_slow]),
    )


def test_a_journal_in_files_is_a_list_with_a_start() -> None:
    """Any sequence of calls on real files has the effect that it has on a list whose front was cut off."""
    run_state_machine_as_test(
        FileMachine,
        settings=settings(max_examples=60, stateful_step_count=40, suppress_health_check=[HealthCheck.too_slow]),
    )
