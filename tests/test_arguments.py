"""What no call takes: refused before anything happens."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from posjournal_async import Context, FileStorage, Journal, JournalError, Storage
from tests.journals import config_of, contents_of, filled, items_in

NEGATIVE: list[Any] = [-1, -(2**64)]
NO_INTEGER: list[Any] = [1.0, "1", None, b"1", [1], float("nan")]

# Each place for a number of items or bytes, with a call that puts a value there.
PLACES: dict[str, Callable[[Journal[bytes], Any], Any]] = {
    "read position": lambda journal, value: journal.read(value),
    "read_many position": lambda journal, value: journal.read_many([value]),
    "read_many last position": lambda journal, value: journal.read_many([0, 1, value]),
    "replay start": lambda journal, value: journal.replay(value),
    "replay buffer": lambda journal, value: journal.replay(0, value),
    "replay_batches start": lambda journal, value: journal.replay_batches(value),
    "replay_batches buffer": lambda journal, value: journal.replay_batches(0, value),
    "prune min_position": lambda journal, value: journal.prune(value),
    "rewind size": lambda journal, value: journal.rewind(value),
}


class Number:
    """An integer by way of `__index__`, as numpy has them."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


async def answer_of(answer: Any) -> Any:
    return await answer if inspect.isawaitable(answer) else answer


@pytest.mark.parametrize(
    ("value", "error"),
    [(value, ValueError) for value in NEGATIVE] + [(value, TypeError) for value in NO_INTEGER],
)
@pytest.mark.parametrize("place", PLACES)
async def test_a_number_that_is_none_is_refused(
    storage: Storage, place: str, value: Any, error: type[Exception]
) -> None:
    """A negative number is a `ValueError` and another type a `TypeError`; the journal is as it was."""
    async with await filled(Context(storage), 15) as journal:
        with pytest.raises(error) as refused:
            await answer_of(PLACES[place](journal, value))
        assert not isinstance(refused.value, JournalError)
        assert journal.durable_size() == 10
        assert await contents_of(journal) == items_in(range(15))


@pytest.mark.parametrize("way", ["replay", "replay_batches"])
async def test_a_buffer_of_no_byte_is_refused(context: Context, way: str) -> None:
    """A read-ahead of 0 could never give an item; it is refused by the call."""
    async with await filled(context, 3) as journal:
        with pytest.raises(ValueError, match="buffer"):
            getattr(journal, way)(0, 0)


@pytest.mark.parametrize("place", ["replay start", "replay buffer", "replay_batches start", "replay_batches buffer"])
async def test_a_replay_refuses_by_the_call(context: Context, place: str) -> None:
    """The error comes before anything is awaited."""
    async with await filled(context, 3) as journal:
        with pytest.raises(ValueError, match=place.split()[1]):
            PLACES[place](journal, -1)


async def test_whatever_is_an_index_is_an_integer(context: Context) -> None:
    """Numbers of other libraries are taken where Python takes them as an index."""
    async with await filled(context, 15) as journal:
        for place, call in PLACES.items():
            if place not in {"rewind size", "read_many last position"}:
                answer = await answer_of(call(journal, Number(1)))
                if inspect.isasyncgen(answer):
                    await answer.aclose()
        await journal.rewind(Number(5))  # type: ignore[arg-type]  # what numpy has is no int for mypy either
        assert await contents_of(journal) == items_in(range(5))


@pytest.mark.parametrize("positions", [5, None, "ab", b"".join])
async def test_positions_that_are_no_positions_are_refused(context: Context, positions: Any) -> None:
    """Something else than numbers in order is a `TypeError`."""
    async with await filled(context, 15) as journal:
        with pytest.raises(TypeError):
            await journal.read_many(positions)


@pytest.mark.parametrize("items", [5, None])
async def test_items_that_are_no_items_are_refused(context: Context, items: Any) -> None:
    """What cannot be iterated is a `TypeError`, and nothing is appended."""
    async with await filled(context, 15) as journal:
        with pytest.raises(TypeError):
            await journal.append_many(items)
        assert await contents_of(journal) == items_in(range(15))


@pytest.mark.parametrize(
    ("size", "error"),
    [(value, ValueError) for value in NEGATIVE] + [(value, TypeError) for value in NO_INTEGER],
)
async def test_a_start_that_is_no_number_touches_nothing(tmp_path: Path, size: Any, error: type[Exception]) -> None:
    """It is refused before a directory is made."""
    root = tmp_path / "root"
    with pytest.raises(error):
        await Journal.init_at_size(Context(FileStorage(root)), config_of(), size)
    assert not root.exists()


@pytest.mark.parametrize(
    ("positions", "error"),
    [
        (range(0), ValueError),
        (range(7, 7), ValueError),
        (range(-1, 7), ValueError),
        (range(1, 7, 2), ValueError),
        (range(7, 1, -1), ValueError),
        ([1, 2, 3], TypeError),
        ((1, 3), TypeError),
        (5, TypeError),
        (None, TypeError),
    ],
)
async def test_a_range_that_is_none_touches_nothing(tmp_path: Path, positions: Any, error: type[Exception]) -> None:
    """It is refused before a directory is made: `ValueError` for a range that will not do, `TypeError` for no range."""
    root = tmp_path / "root"
    with pytest.raises(error):
        await Journal.init_sync(Context(FileStorage(root)), config_of(), positions)
    assert not root.exists()
