"""The storage of `examples/custom_storage.py` keeps the rules that a journal relies on."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from posjournal_async import Config, Context, Journal, JournalLocked
from posjournal_async.testing import StorageContract

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

EXAMPLE = Path(__file__).parents[2] / "examples" / "custom_storage.py"


@pytest.fixture(scope="module")
def example() -> Any:
    """The example as a module, under a name of its own."""
    spec = importlib.util.spec_from_file_location("example_custom_storage", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TestSQLiteStorage(StorageContract):
    """The contract, on SQLite."""

    @pytest.fixture
    async def storage(self, example: Any, tmp_path: Path) -> AsyncIterator[Any]:
        """An empty SQLite file."""
        async with example.opened(tmp_path / "journal.sqlite") as storage:
            yield storage


async def test_a_second_storage_on_the_same_file_is_locked_out(example: Any, tmp_path: Path) -> None:
    """The file belongs to one storage at a time, as it would to one process."""
    config = Config(partition="orders")
    file = tmp_path / "journal.sqlite"
    async with (
        example.opened(file) as first,
        example.opened(file) as second,
        await Journal.init(Context(first), config),
    ):
        with pytest.raises(JournalLocked):
            await Journal.init(Context(second), config)
