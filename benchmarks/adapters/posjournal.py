"""The library itself, with its defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.adapters.adapter import Adapter
from posjournal_async import BytesCodec, Config, Context, FileStorage, Journal, MsgpackCodec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from posjournal_async import Codec


class PosJournal(Adapter):
    """A `Journal` in files."""

    encodes = True

    async def open(self) -> None:
        """Open the journal, and hand out its own methods."""
        codec: Codec[Any] = BytesCodec() if self.kind == "bytes" else MsgpackCodec()
        config = Config(partition="bench", codec=codec)
        self.journal = await Journal.init(Context(FileStorage(self.directory)), config)
        self.append = self.journal.append
        self.append_many = self.journal.append_many
        self.sync = self.journal.sync
        self.read = self.journal.read
        self.read_many = self.journal.read_many
        self.prune = self.journal.prune

    async def close(self) -> None:
        """Close it."""
        await self.journal.close()

    async def append_durably(self, item: Any) -> None:
        """Append, and make the data durable; the index can be made again from it."""
        await self.journal.append(item)
        await self.journal.sync_data()

    def replay(self) -> AsyncIterator[tuple[int, Any]]:
        """Stream the items."""
        return self.journal.replay(0)

    def replay_batches(self) -> AsyncIterator[tuple[int, list[Any]]]:
        """Stream lists of them."""
        return self.journal.replay_batches(0)
