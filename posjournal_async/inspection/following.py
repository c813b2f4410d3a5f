"""Following a journal that another process writes to: what is new, and what has become of what was shown.

`follow` gives events. What it shows is durable: above the durable size of the checkpoint it has synced the blob itself
before. It changes nothing, takes no lock, and holds no file open from one look to the next.

How it knows that nothing of what it has shown was replaced between two looks: a rewind writes a checkpoint with a
lower durable size before it cuts anything, and checkpoints are numbered. As long as those in between are known, which
the two slots often tell, and none is lower, there was no rewind. Otherwise what is remembered is compared with what is
there, up to the first record that differs (`remembered.py`). After a checkpoint that was lowered the cut itself may be
still to come, so the comparison is done again at each change until the next checkpoint.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from posjournal_async.inspection.blobs import Blobs
from posjournal_async.inspection.events import Absent, Corrupt, Event, Pruned, Reset, Rewound, Shown
from posjournal_async.inspection.follower import Follower
from posjournal_async.storage.readonly import ReadOnlyFileStorage

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator, Callable

    from posjournal_async.codecs import Codec

__all__ = ["Absent", "Corrupt", "Event", "Pruned", "Reset", "Rewound", "Shown", "follow"]


async def follow(  # noqa: PLR0913 - each says something else
    root: str | os.PathLike[str],
    partition: str,
    *,
    codec_of: Callable[[str], Codec[Any]],
    newest: int = 10,
    start: int | None = None,
    interval_seconds: float = 0.25,
    when_idle: Callable[[], object] = lambda: None,
) -> AsyncGenerator[Event, None]:
    """Yield the newest items of a journal, or those from a position on, and then without end what happens to it.

    It may be cancelled or closed at any time. A look at a journal to which nothing has happened asks the system for the
    times of three files and opens none.

    Args:
        root: Root of the storage.
        partition: Base name of the journal.
        codec_of: Returns the codec to read with for the name that the journal records.
        newest: Items to begin with, unless there is a `start`.
        start: Position to begin with, in place of the newest items. If it was pruned, or the journal is not as large,
            that is the first event, as if it had happened since. A rewind names the size that was found: items below
            it may have been appended anew, of which nothing is known.
        interval_seconds: Time between two looks when there is nothing new.
        when_idle: Called when there is nothing new; what it raises ends the generator.

    Raises:
        InvalidConfiguration: Another version of the format wrote it.
        Corruption: The checkpoint is lost, and the data cannot stand in for it.
        StorageError: The system refused.
    """
    storage = ReadOnlyFileStorage(root)
    follower = Follower(Blobs(storage, storage.root, partition), codec_of, newest, start)
    while True:
        for event in await follower.look():
            yield event
        if follower.is_idle:
            when_idle()
            await asyncio.sleep(interval_seconds)
