"""Stream a journal to browsers as server-sent events; who was cut off goes on behind the last event that it has.

    python examples/sse_resume.py [DIRECTORY] [PORT]

    GET  /events   all events from the oldest one kept, or from the one behind `Last-Event-ID` on; then live
    POST /events   a JSON value; 201 {"position": 7} when it is durable

Prints its address, and serves until Ctrl-C or SIGTERM. The id of an event is its position, so resuming needs no table
of who has seen what. Only what is durable is sent. A consumer that does not read holds up nobody, and costs a
read-ahead buffer. One that comes back too late gets 410 and the positions that are there; one that is overtaken by a
prune while it reads gets an event `pruned`, and 410 when it comes back.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import tempfile
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from posjournal_async import AppendError, CodecError, Config, Context, FileStorage, ItemPruned, Journal, JsonCodec

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request

CONFIG: Config[Any] = Config(partition="events", items_per_section=1_000, codec=JsonCodec())

# Events kept at least; a prune takes whole sections.
KEEP = 100_000

# A consumer that takes nothing for so long is cut off. It may come back, and resume.
SEND_TIMEOUT_SECONDS = 60


class Feed:
    """A journal that can be followed: what is published goes to everybody who follows, at each one's own pace."""

    def __init__(self, journal: Journal[Any], keep: int) -> None:
        """Follow and fill a journal of which the last `keep` items are kept, at least."""
        self.journal = journal
        self._keep = keep
        self._grown = asyncio.Event()

    async def publish(self, item: Any) -> int:
        """Append an item, and return its position when it is durable."""
        try:
            position = await self.journal.append(item)
        finally:
            # Also when this caller is cancelled: the item may be there. A new event for those who wait from now on.
            self._grown.set()
            self._grown = asyncio.Event()
        await self.journal.sync_data()
        if position % self.journal.config.items_per_section == 0:
            await self.journal.prune(max(position - self._keep, 0))
        return position

    async def follow(self, position: int) -> AsyncGenerator[tuple[int, Any], None]:
        """Yield the items from `position` on, and then each new one when it is durable, until it is cancelled or left.

        Who waits for a new item is not woken when the journal is closed: end those who follow before that.

        Raises:
            ItemPruned: The consumer is so slow that what it needs next is gone.
        """
        while True:
            size, grown = self.journal.size(), self._grown  # nothing is awaited between the look and the wait
            if position == size:
                await grown.wait()
                continue
            await self.journal.sync_data()  # everything below `size` is durable now; shares the fsync of the publishers
            async with aclosing(self.journal.replay(position)) as items:
                async for place, item in items:
                    if place == size:
                        break
                    yield place, item
            position = size


async def stream(feed: Feed, position: int) -> AsyncGenerator[ServerSentEvent, None]:
    """Turn what is followed into events."""
    try:
        async with aclosing(feed.follow(position)) as items:
            async for place, item in items:
                yield ServerSentEvent(id=str(place), data=json.dumps(item))
    except ItemPruned as pruned:
        yield ServerSentEvent(event="pruned", data=json.dumps({"oldest": pruned.oldest}))


async def subscribe(request: Request) -> Response:
    """Answer `GET /events`."""
    feed: Feed = request.app.state.feed
    bounds = feed.journal.bounds()
    last = request.headers.get("last-event-id", "")
    if last and not (last.isascii() and last.isdigit() and len(last) <= 20):
        return JSONResponse({"error": "Last-Event-ID: expected a position"}, 400)
    position = int(last) + 1 if last else bounds.start
    if not bounds.start <= position <= bounds.stop:
        # Nothing else is honest: there is a gap that cannot be filled. Browsers do not try again after that.
        return JSONResponse({"error": "not there any more", "oldest": bounds.start, "size": bounds.stop}, 410)
    return EventSourceResponse(stream(feed, position), send_timeout=SEND_TIMEOUT_SECONDS)


async def publish(request: Request) -> Response:
    """Answer `POST /events`."""
    try:
        return JSONResponse({"position": await request.app.state.feed.publish(await request.json())}, 201)
    except (ValueError, AppendError, CodecError) as error:
        return JSONResponse({"error": str(error)}, 400)


def create_app(context: Context, config: Config[Any], keep: int) -> Starlette:
    """Return the service; its lifespan opens and closes the journal."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None, None]:
        async with await Journal.init(context, config) as journal:
            app.state.feed = Feed(journal, keep)
            yield

    routes = [Route("/events", subscribe), Route("/events", publish, methods=["POST"])]
    return Starlette(routes=routes, lifespan=lifespan)


def main(directory: Path, port: int = 0, config: Config[Any] = CONFIG, keep: int = KEEP) -> None:
    """Serve until the process is told to end; port 0 takes any that is free."""
    app = create_app(Context(FileStorage(directory)), config, keep)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on", timeout_graceful_shutdown=10))
    with socket.create_server(("127.0.0.1", port)) as listener, suppress(KeyboardInterrupt):
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        asyncio.run(server.serve([listener]))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
