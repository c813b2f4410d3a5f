"""Items become payloads: what the codec hands over, and runs of them."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from posjournal_async import BytesCodec, Config, Context, Journal, MemoryStorage
from posjournal_async.payloads import Run, joined


async def test_bytes_that_say_they_are_others_are_stored_as_they_are() -> None:
    """A subclass of bytes with a mind of its own does not decide what a record holds, or how long it is (A1)."""

    class Odd(bytes):
        __slots__ = ()

        def __bytes__(self) -> bytes:
            return b"other"

        def __len__(self) -> int:
            return 2

    class OddCodec(BytesCodec):
        def encode(self, item: Any) -> bytes:
            return Odd(item)

    storage = MemoryStorage()
    for positions in (range(2), range(4)):
        async with await Journal.init(Context(storage), Config(partition="orders", codec=OddCodec())) as journal:
            await journal.append(b"item")
            await journal.append_many([b"item"])
            assert [item for _, item in [pair async for pair in journal.replay(0)]] == [b"item"] * len(positions)


@given(
    st.lists(st.tuples(st.binary(max_size=40), st.booleans()), min_size=1, max_size=60),
    st.integers(1, 70),
    st.integers(1, 200),
)
def test_the_parts_of_a_run_are_all_of_it(found: list[tuple[bytes, bool]], items: int, length: int) -> None:
    """In order, each no larger than asked for unless it is one item alone; which are compressed goes with them."""
    payloads = [payload for payload, _ in found]
    lengths = [len(payload) + 8 for payload in payloads]
    compressed = [index for index, (_, is_compressed) in enumerate(found) if is_compressed]
    run = Run(payloads, compressed, lengths, sum(lengths))
    parts = list(run.parts(items, length))
    assert joined(parts) == run
    for part in parts:
        assert 1 <= len(part) <= items
        assert part.length == sum(part.lengths)
        assert part.length <= length or len(part) == 1
