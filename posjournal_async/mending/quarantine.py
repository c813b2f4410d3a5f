"""Setting aside what a repair takes away: plain copies in a directory, durable before anything is changed.

The directory holds a copy of each run of bytes, below the name of its partition, and `manifest.json`, which says where
each one was. A blob that goes as a whole, or is written anew, is a file of the blob's name; bytes that are cut off are
a file of the blob's name with `.from-` and the byte behind it. With them the journal can be put back as it was.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
from contextlib import closing, suppress
from errno import EEXIST, EIO
from functools import partial
from typing import TYPE_CHECKING, Any

from posjournal_async.storage.descriptors import sync_file
from posjournal_async.waiting import finished

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from posjournal_async.mending.plan import Change
    from posjournal_async.storage.protocols import Storage

__all__ = ["MANIFEST", "set_aside"]

MANIFEST = "manifest.json"

# Bytes copied between two awaits.
_PIECE = 1024 * 1024


async def set_aside(
    storage: Storage,
    changes: Sequence[Change],
    where: Path,
    facts: dict[str, Any],
    advance: Callable[[int], object] = lambda _: None,
) -> None:
    """Copy the bytes that a repair takes away into a new directory, durably.

    The directory has its name when it is complete and not before: until then it is called `<name>.partial`, and is
    removed again when something goes wrong.

    Args:
        storage: Where the bytes are.
        changes: Which bytes.
        where: The directory to make.
        facts: What the manifest says besides.
        advance: Called with a number of bytes that were copied.

    Raises:
        FileExistsError: There is something of that name, or something incomplete is left of an earlier run.
        OSError: It cannot be written: the disk is full, say.
    """
    unfinished = where.parent / f"{where.name}.partial"
    for taken in (where, unfinished):
        if await _done(os.path.lexists, taken):
            raise FileExistsError(EEXIST, os.strerror(EEXIST), str(taken))
    try:
        await _done(os.mkdir, unfinished, 0o700)
        files = [await _copied(storage, change, unfinished, advance) for change in changes]
        manifest = json.dumps({"schema": "posjournal.quarantine/1", **facts, "files": files}, indent=2)
        with closing(await _done(open, unfinished / MANIFEST, "xb", 0)) as file:
            await _done(_write, file, f"{manifest}\n".encode())
            await _done(sync_file, file.fileno())
        for directory in (*sorted({unfinished / change.partition for change in changes}), unfinished):
            await _sync_directory(directory)
        await _done(os.rename, unfinished, where)
        await _sync_directory(where.parent)
    except BaseException:
        with suppress(OSError):
            shutil.rmtree(unfinished)
        raise


async def _copied(storage: Storage, change: Change, root: Path, advance: Callable[[int], object]) -> dict[str, Any]:
    """Copy a run of bytes; return its entry in the manifest."""
    name = change.section.to_bytes(8)
    file = f"{name.hex()}.from-{change.start}" if change.start else name.hex()
    await _done(partial(os.makedirs, root / change.partition, 0o700, exist_ok=True))
    digest = hashlib.sha256()
    blob, _ = await storage.open(change.partition, name)
    try:
        with closing(await _done(open, root / change.partition / file, "xb", 0)) as copy:
            for start in range(change.start, change.stop, _PIECE):
                wanted = min(_PIECE, change.stop - start)
                piece = await blob.read_at(start, wanted)
                if len(piece) != wanted:
                    raise OSError(EIO, os.strerror(EIO), str(copy.name))
                await _done(_write, copy, piece)
                digest.update(piece)
                advance(len(piece))
            await _done(sync_file, copy.fileno())
    finally:
        await blob.close()
    return {
        "file": f"{change.partition}/{file}",
        "why": change.why,
        "partition": change.partition,
        "blob": name.hex(),
        "start": change.start,
        "bytes": change.length,
        "sha256": digest.hexdigest(),
    }


def _write(file: io.FileIO, content: bytes) -> None:
    while content:  # a short write: a signal, or a disk that is about to be full
        content = content[file.write(content) :]


async def _sync_directory(path: Path) -> None:
    handle = await _done(os.open, path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        await _done(sync_file, handle)
    finally:
        os.close(handle)


async def _done(call: Callable[..., Any], *arguments: Any) -> Any:
    """Call in a thread what may wait for the disk; who is cancelled waits until it is done, and can clear up."""
    return await finished(asyncio.ensure_future(asyncio.to_thread(call, *arguments)))
