"""What a diligent user writes over a library that commits one by one: some twenty lines."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class GroupCommit:
    """A list of items that wait, one committer at a time, a future for each caller.

    It shows the rate. A service would need more: what a failed commit and a cancelled caller leave is not handled.
    """

    def __init__(self, commit: Callable[[list[Any]], Awaitable[object]]) -> None:
        self._commit = commit
        self._waiting: list[tuple[Any, asyncio.Future[None]]] = []
        self._committer: asyncio.Task[None] | None = None

    async def append_durably(self, item: Any) -> None:
        """Return when the item is durable."""
        durable = asyncio.get_running_loop().create_future()
        self._waiting.append((item, durable))
        if self._committer is None:
            self._committer = asyncio.create_task(self._run())
        await durable

    async def _run(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            await self._commit([item for item, _ in batch])
            for _, durable in batch:
                durable.set_result(None)
        self._committer = None
