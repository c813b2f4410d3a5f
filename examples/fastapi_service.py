"""Accept events over HTTP, and answer 201 when they are durable: a FastAPI service on a journal.

    python examples/fastapi_service.py [DIRECTORY] [PORT]

    POST /events              a JSON object; 201 {"position": 7} when it survives any crash
    GET  /events/7            the event; 404 when there is none yet, 410 when it was pruned
    GET  /events?start=&stop= the events of a range, stop exclusive, one JSON line each
    GET  /health              204; 503 when the journal has failed and the process has to be started again

Prints its address, and serves until Ctrl-C or SIGTERM. All requests that are under way share each fsync. A client that
goes away takes nothing with it: its event is there as a whole or not at all.
"""

import asyncio
import json
import socket
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path as FilePath
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI, Path, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from posjournal_async import (
    CodecError,
    Config,
    Context,
    FileStorage,
    ItemOutOfRange,
    ItemPruned,
    ItemTooLarge,
    Journal,
    JournalError,
    JsonCodec,
)

# JSON in, JSON on disk: what cannot be given back is refused at the door.
CONFIG: Config[Any] = Config(partition="events", codec=JsonCodec(), max_item_size=2**20)

# Whose fault it is. What is not here is ours: the journal has failed, or is closed because the service ends.
STATUSES: dict[type[JournalError], int] = {CodecError: 422, ItemOutOfRange: 404, ItemPruned: 410, ItemTooLarge: 413}


async def journal_of(request: Request) -> Journal[Any]:
    """Return the journal that the lifespan has opened."""
    journal: Journal[Any] = request.app.state.journal
    return journal


Events = Annotated[Journal[Any], Depends(journal_of)]
Position = Annotated[int | None, Query(ge=0)]


def create_app(context: Context, config: Config[Any] = CONFIG) -> FastAPI:
    """Return the service; its lifespan opens the journal, and closes it when the last request is answered."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        async with await Journal.init(context, config) as app.state.journal:
            yield

    app = FastAPI(title="events", lifespan=lifespan)

    @app.post("/events", status_code=201)
    async def post(event: dict[str, Any], events: Events, response: Response) -> dict[str, int]:
        position = await events.append(event)
        await events.sync_data()
        response.headers["Location"] = f"/events/{position}"
        return {"position": position}

    @app.get("/events/{position}")
    async def get(position: Annotated[int, Path(ge=0)], events: Events) -> JSONResponse:
        event = await events.read(position)
        await events.sync_data()  # nobody is shown what a crash could take back; costs nothing when it is durable
        return JSONResponse(event)

    @app.get("/events")
    async def stream(events: Events, start: Position = None, stop: Position = None) -> StreamingResponse:
        bounds = events.bounds()
        first = bounds.start if start is None else start
        batches = events.replay_batches(first)  # checks the position here, where the status can still say so
        await events.sync_data()
        last = bounds.stop if stop is None else min(stop, bounds.stop)
        return StreamingResponse(lines(batches, last), media_type="application/x-ndjson")

    @app.get("/health", status_code=204)
    async def health(events: Events) -> None:
        await events.sync_data()

    @app.exception_handler(JournalError)
    async def refuse(_: Request, error: JournalError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, STATUSES.get(type(error), 503))

    return app


async def lines(batches: AsyncGenerator[tuple[int, list[Any]], None], stop: int) -> AsyncGenerator[str, None]:
    """Write the events below `stop` as JSON lines.

    An error, such as a prune that overtakes a slow client, breaks the connection off: the client sees that the range
    is not complete.
    """
    async with aclosing(batches):
        async for first, batch in batches:
            wanted = batch[: max(stop - first, 0)]
            yield "".join(
                json.dumps({"position": position, "event": event}, ensure_ascii=False) + "\n"
                for position, event in enumerate(wanted, first)
            )
            if len(wanted) < len(batch):
                return


def main(directory: FilePath, port: int = 0) -> None:
    """Serve until the process is told to end; port 0 takes any that is free."""
    app = create_app(Context(FileStorage(directory)))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on", timeout_graceful_shutdown=10))
    with socket.create_server(("127.0.0.1", port)) as listener, suppress(KeyboardInterrupt):
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        asyncio.run(server.serve([listener]))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(FilePath(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(FilePath(temporary))
