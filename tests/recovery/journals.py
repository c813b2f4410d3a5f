"""Journals as files, laid out by the independent writer, and what opening them shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from posjournal_async import BytesCodec, Config, Context, FileStorage, Journal
from tests.format.writer import path_of, write_journal
from tests.journals import limits_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from posjournal_async import RecoveryReport, Storage
    from tests.format.writer import Part

__all__ = ["CONFIG", "ITEMS", "Shown", "change", "lay_out", "show", "tree_of"]

CONFIG: Config[bytes] = Config(partition="orders", items_per_section=10, codec=BytesCodec())
ITEMS = [f"item {number:03}".encode() for number in range(60)]


@dataclass(frozen=True)
class Shown:
    """What an open journal shows."""

    bounds: range
    items: dict[int, bytes]
    report: RecoveryReport

    def is_history(self, start: int, stop: int) -> bool:
        """Whether it shows exactly these positions, each with its item of `ITEMS`."""
        expected = {position: ITEMS[position] for position in range(start, stop)}
        return limits_of(self.bounds) == (start, stop) and self.items == expected


def lay_out(root: Path, size: int, *, start: int = 0, durable: int | None = None) -> None:
    """Write a closed journal that holds `ITEMS` from `start` to `size`, 10 in a section."""
    write_journal(root, "orders", items=ITEMS[start:size], first=start, durable=durable)


def change(root: Path, part: Part, section: int, changed: Callable[[bytes], bytes | None]) -> None:
    """Replace a blob by what `changed` makes of it; None removes it."""
    path = path_of(root, "orders", part, section)
    content = changed(path.read_bytes() if path.exists() else b"")
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


def tree_of(root: Path) -> dict[str, bytes]:
    """Return all files with their content."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


async def show(
    where: Path | Storage, config: Config[bytes] = CONFIG, *, when_open: Callable[[], object] = lambda: None
) -> Shown:
    """Open a journal, read all of it both ways, and close it."""
    storage = FileStorage(where) if isinstance(where, Path) else where
    async with await Journal.init(Context(storage), config) as journal:
        when_open()
        bounds = journal.bounds()
        items = {position: item async for position, item in journal.replay(bounds.start)}
        assert list(items) == list(bounds)
        assert await journal.read_many(bounds) == list(items.values())
        assert journal.durable_size() == journal.size()
        return Shown(bounds, items, journal.recovery)
