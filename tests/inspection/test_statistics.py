"""How large items are: what the indexes say is what reading the items says, and a damaged index is not believed."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from posjournal_async import BytesCodec, Config, Context, FileStorage, Journal
from posjournal_async.inspection.statistics import Sizes, Statistics, gather
from posjournal_async.inspection.view import JournalView
from tests.format.writer import write_journal
from tests.journals import damage

if TYPE_CHECKING:
    from pathlib import Path


async def made(root: Path, count: int, **fields: int) -> list[bytes]:
    """Make a closed journal of items of all sizes; return them."""
    chance = random.Random(count)
    items = [b"z" * (chance.randrange(1 << chance.randrange(13)) - 0) for _ in range(count)]
    config = Config(**{"partition": "orders", "items_per_section": 10, "codec": BytesCodec(), **fields})  # type: ignore[arg-type]
    async with await Journal.init(Context(FileStorage(root)), config) as journal:
        if items:
            await journal.append_many(items)
    return items


async def gathered(root: Path) -> tuple[Statistics, int]:
    """Return what is found, and how many items the progress was told of."""
    told: list[int] = []
    async with await JournalView.load(root, "orders") as view:
        return await gather(view, told.append), sum(told)


def agrees(sizes: Sizes, lengths: list[int]) -> None:
    """Compare with what sorting all lengths gives."""
    lengths = sorted(lengths)
    assert sizes.items == len(lengths)
    assert sizes.payload_bytes == sum(lengths)
    assert sizes.record_bytes == sum(lengths) + 8 * len(lengths)
    assert (sizes.smallest, sizes.largest) == (lengths[0], lengths[-1])
    for share in (0.01, 0.5, 0.99, 1):
        assert sizes.quantile(share) == lengths[max(-(-int(share * 100) * len(lengths) // 100), 1) - 1]
    for bucket in sizes.buckets():
        assert bucket.items == sum(bucket.smallest <= length <= bucket.largest for length in lengths)
    assert sum(bucket.items for bucket in sizes.buckets()) == len(lengths)


@pytest.mark.parametrize("count", [1, 9, 10, 11, 20, 137])
async def test_the_index_says_what_the_items_say(tmp_path: Path, count: int) -> None:
    """Counts, sums, quantiles and buckets are those of the items, whether their section is sealed or the tail."""
    items = await made(tmp_path, count)
    found, told = await gathered(tmp_path)
    agrees(found.sizes, [len(item) for item in items])
    assert found.unknown == []
    assert told == count


async def test_sizes_are_those_on_disk_where_items_are_compressed(tmp_path: Path) -> None:
    """A compressed payload counts as long as it is stored."""
    items = await made(tmp_path, 100, compression=3)
    found, _ = await gathered(tmp_path)
    assert found.sizes.items == 100
    assert found.sizes.payload_bytes < sum(map(len, items)) / 2


@pytest.mark.parametrize("offset", [0, 63, 64, 72, 80, 136])
async def test_an_index_that_cannot_be_true_is_not_believed(tmp_path: Path, offset: int) -> None:
    """Each byte of it may be damaged: the data blob is scanned then."""
    items = await made(tmp_path, 35)
    await damage(FileStorage(tmp_path), 1, offset + 7 * (offset > 63), partition="orders_offsets")
    found, _ = await gathered(tmp_path)
    agrees(found.sizes, [len(item) for item in items])


async def test_the_indexes_of_many_sections_are_used(tmp_path: Path) -> None:
    """Above a thousand sections too, whose headers are not read beforehand: no record is looked at."""
    write_journal(tmp_path, "orders", items=[b"item"] * 2_002, items_per_section=2)
    await damage(FileStorage(tmp_path), 500, 64)
    found, told = await gathered(tmp_path)
    assert found.unknown == []
    agrees(found.sizes, [4] * 2_002)
    assert told == 2_002


async def test_a_section_without_an_index_is_scanned(tmp_path: Path) -> None:
    """A missing index costs time, and nothing else."""
    items = await made(tmp_path, 35)
    (tmp_path / "orders_offsets" / f"{1:016x}").unlink()
    found, told = await gathered(tmp_path)
    agrees(found.sizes, [len(item) for item in items])
    assert told == 35


async def test_what_is_damaged_without_an_index_is_not_counted(tmp_path: Path) -> None:
    """From the damaged record to the end of its section the sizes are not known, and that is said."""
    items = await made(tmp_path, 35)
    (tmp_path / "orders_offsets" / f"{1:016x}").unlink()
    at = 64 + sum(8 + len(item) for item in items[10:14])
    await damage(FileStorage(tmp_path), 1, at)
    found, told = await gathered(tmp_path)
    assert found.unknown == [range(14, 20)]
    agrees(found.sizes, [len(item) for item in items[:14] + items[20:]])
    assert told == 35


async def test_an_empty_journal_has_no_sizes(tmp_path: Path) -> None:
    """Nothing is divided by nothing."""
    await made(tmp_path, 0)
    found, _ = await gathered(tmp_path)
    assert (found.sizes.items, found.sizes.mean, found.sizes.quantile(0.5), found.sizes.buckets()) == (0, 0.0, 0, [])
    assert found.whole is None
    assert found.periods(12) == []


def test_many_different_sizes_are_rounded_and_still_counted() -> None:
    """Memory does not grow with the number of different sizes; a quantile is then known to a thousandth."""
    sizes = Sizes()
    lengths = range(8, 8 + 300_000)
    sizes.add(Counter(lengths))
    assert sizes.payload_bytes == sum(range(300_000))
    assert sizes.largest == 299_999
    assert abs(sizes.quantile(0.5) - 150_000) < 150_000 / 512
    assert len(sizes._counts) < 2**14
    assert sum(bucket.items for bucket in sizes.buckets()) == 300_000
    sizes.add(Counter({1_000_008: 300_000}))
    assert abs(sizes.quantile(0.99) - 1_000_000) < 1_000_000 / 512
