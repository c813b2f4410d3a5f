"""What tests of a journal share: a small configuration, items that tell their position, and a look at all of them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from posjournal_async import BytesCodec, Config, Journal
from posjournal_async.format.header import HEADER_LENGTH, Header, parse_header
from posjournal_async.format.record import record_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Mapping

    from posjournal_async import Context, Storage

__all__ = [
    "config_of",
    "contents_of",
    "damage",
    "files_below",
    "filled",
    "item_at",
    "items_in",
    "limits_of",
    "name_of_section",
    "open_files",
    "others_ended",
    "put_payload",
    "reopened",
    "streamed",
]

T = TypeVar("T")


def config_of(items_per_section: int = 10, **fields: Any) -> Config[bytes]:
    """Return a configuration for items that are bytes, with sections so small that a test has many."""
    return Config(**{"partition": "orders", "codec": BytesCodec(), "items_per_section": items_per_section, **fields})


def item_at(position: int, history: int = 0) -> bytes:
    """Return the item of a position: its value and its length tell both the position and the history it is of."""
    return b"%d of %d:" % (position, history) + bytes([(position + history) % 256]) * ((position * 7 + history) % 23)


def items_in(positions: Iterable[int], history: int = 0) -> list[tuple[int, bytes]]:
    """Return what a replay of positions has to give."""
    return [(position, item_at(position, history)) for position in positions]


async def filled(context: Context, count: int, config: Config[bytes] | None = None) -> Journal[bytes]:
    """Return a journal with that many items appended, none of them synced on purpose."""
    journal = await Journal.init(context, config or config_of())
    for position in range(journal.size(), count):
        assert await journal.append(item_at(position)) == position
    return journal


async def reopened(journal: Journal[T], **fields: Any) -> Journal[T]:
    """Close a journal and open it again, with other values for some fields; nothing may need repair."""
    await journal.close()
    known: Mapping[str, Any] = vars(journal.config)
    again = await Journal.init(journal._context, Config(**{**known, **fields}))
    assert again.recovery.clean, again.recovery
    return again


async def streamed(replay: AsyncGenerator[T, None]) -> list[T]:
    """Return everything that a replay gives."""
    return [given async for given in replay]


async def contents_of(journal: Journal[T]) -> list[tuple[int, T]]:
    """Return all retained items with their positions, once it is sure that read and replay agree on them."""
    bounds = journal.bounds()
    replayed = await streamed(journal.replay(bounds.start))
    read = [(position, await journal.read(position)) for position in bounds]
    assert replayed == read
    assert await journal.read_many(bounds) == [item for _, item in read]
    return read


async def others_ended() -> None:
    """Return when no other task is left: a writer and the closing of handles may go on behind a call."""
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)


def limits_of(bounds: range) -> tuple[int, int]:
    """Return start and stop, for comparing: two ranges that are empty are equal wherever they are."""
    return bounds.start, bounds.stop


# Below the journal.


def name_of_section(section: int) -> bytes:
    """Return the name of a section's blobs."""
    return section.to_bytes(8, "big")


async def damage(storage: Storage, section: int, offset: int, *, partition: str = "orders_data") -> None:
    """Turn all bits of one byte of a blob around."""
    blob, length = await storage.open(partition, name_of_section(section))
    assert 0 <= offset < length
    byte = await blob.read_at(offset, 1)
    await blob.write_at(offset, bytes([byte[0] ^ 0xFF]))
    await blob.close()


async def put_payload(storage: Storage, payload: bytes, *, compressed: bool) -> None:
    """Put a record that checks out, with any payload, in the place of the only item of a closed journal."""
    blob, length = await storage.open("orders_data", name_of_section(0))
    header = parse_header(await blob.read_at(0, HEADER_LENGTH), length)
    assert isinstance(header, Header)
    record = record_of(payload, header.salt, 0, compressed=compressed)
    await blob.resize(HEADER_LENGTH)
    await blob.write_at(HEADER_LENGTH, record)
    await blob.close()


def files_below(root: Path) -> dict[str, tuple[bytes, int]]:
    """Return the content and the time of the last change of each file below a directory."""
    return {
        str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file()
    }


def open_files() -> list[str]:
    """Return the path of each file that this process has open, a removed one with "(deleted)" behind it."""
    found = []
    for handle in Path("/proc/self/fd").glob("*"):
        try:
            found.append(str(handle.readlink()))
        except FileNotFoundError:  # the handle of this very listing
            continue
    return found
