"""A journal held in memory, to be looked at as `ReadOnlyFileStorage` shows one in files."""

from __future__ import annotations

from errno import ENOENT
from typing import TYPE_CHECKING

from posjournal_async import BytesCodec, Config, Context, Corruption, Journal, StorageError
from posjournal_async.inspection.verification import Verification
from posjournal_async.payloads import Payloads
from posjournal_async.testing import CrashStorage

if TYPE_CHECKING:
    from typing import Any

    from posjournal_async import RecoveryReport
    from posjournal_async.inspection.findings import Finding
    from posjournal_async.storage.protocols import Blob
    from tests.damage.states import Tree

__all__ = ["OnlyLookedAt", "Opening", "findings_in", "opened"]


class OnlyLookedAt:
    """A storage that creates nothing: opening what is missing raises."""

    def __init__(self, storage: CrashStorage) -> None:
        self._storage = storage
        self.scan = storage.scan
        self.remove = storage.remove
        self.lock = storage.lock

    async def open(self, partition: str, name: bytes) -> tuple[Blob, int]:
        if name not in await self._storage.scan(partition):
            raise StorageError(partition, name, ENOENT, "open")
        return await self._storage.open(partition, name)


async def findings_in(tree: Tree, *, is_deep: bool = False, **settings: Any) -> tuple[list[Finding], Verification]:
    """Return what verifying these files reports, and make sure that it changes none."""
    storage = CrashStorage.holding(tree)
    found: list[Finding] = []
    payloads = Payloads(Config(partition="j", codec=BytesCodec()))
    if is_deep:
        settings["payloads_of"] = lambda _: payloads
    verification = Verification(OnlyLookedAt(storage), "j", found.append, **settings)
    await verification.run()
    assert storage.tree() == tree
    return found, verification


class Opening:
    """What opening a journal shows, and which of its positions cannot be read."""

    def __init__(self, bounds: range, items: dict[int, bytes], report: RecoveryReport) -> None:
        self.bounds = bounds
        self.items = items
        self.report = report

    @property
    def unreadable(self) -> list[int]:
        return [position for position in self.bounds if position not in self.items]


async def opened(tree: Tree, config: Config[bytes]) -> Opening | Corruption:
    """Open a journal that these files are, and read each position."""
    try:
        journal = await Journal.init(Context(CrashStorage.holding(tree)), config)
    except Corruption as error:
        return error
    async with journal:
        items: dict[int, bytes] = {}
        for position in journal.bounds():
            try:
                items[position] = await journal.read(position)
            except Corruption:
                continue
        return Opening(journal.bounds(), items, journal.recovery)
