"""Blobs that may be missing, of a storage that creates none: each by the number of its section."""

from __future__ import annotations

from contextlib import asynccontextmanager
from errno import ENOENT
from typing import TYPE_CHECKING

from posjournal_async.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from posjournal_async.storage.protocols import Blob, Storage

__all__ = ["CHECKPOINT", "open_if_there", "opened_if_there"]

# The number under which its partition has the checkpoint.
CHECKPOINT = 0


async def open_if_there(storage: Storage, partition: str, section: int) -> tuple[Blob, int] | None:
    """Open a blob and return it with its length in bytes; None if it is missing."""
    try:
        return await storage.open(partition, section.to_bytes(8))
    except StorageError as error:
        if error.errno == ENOENT:
            return None
        raise


@asynccontextmanager
async def opened_if_there(storage: Storage, partition: str, section: int) -> AsyncGenerator[tuple[Blob, int] | None]:
    """Give what `open_if_there` returns; the blob is closed behind the block."""
    found = await open_if_there(storage, partition, section)
    try:
        yield found
    finally:
        if found is not None:
            await found[0].close()
