"""Items become payloads: what the codec hands over, and runs of them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
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


COMPRESS_WITHOUT_MEMORY = """
import asyncio, resource
from pathlib import Path
from posjournal_async import BytesCodec, CodecError, Config, Context, Journal, MemoryStorage

async def main():
    config = Config(partition="orders", codec=BytesCodec(), compression=22)
    async with await Journal.init(Context(MemoryStorage()), config) as journal:
        await journal.append(b"there is room for this")
        item = bytes(2**23)
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + 2**24, resource.RLIM_INFINITY))
        try:
            await journal.append(item)
        except CodecError as error:
            print(error.codec, error.doing, journal.size(), await journal.append(b"and for this"))

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits its memory as Linux does")
def test_an_item_for_whose_compression_there_is_no_memory_is_refused() -> None:
    """As one that the codec refuses; a high level takes some ten times the item."""
    command = [sys.executable, "-c", COMPRESS_WITHOUT_MEMORY]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["zstd", "encode", "1", "1"]
