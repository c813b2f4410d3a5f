"""Serve MCP over streamable HTTP, with events that survive a restart: `JournalEventStore` in use.

    python examples/mcp_server.py [DIRECTORY] [PORT]

Prints the address of a server with one tool, which counts and reports its progress; serves until Ctrl-C or SIGTERM.
"""

import asyncio
import socket
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import uvicorn
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp_event_store import JournalEventStore, NamesSessions
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount

from posjournal_async import FileStorage

# How long a client waits that was cut off, before it comes again.
RETRY_MILLISECONDS = 500


def create_app(server: MCPServer, store: JournalEventStore, retry_interval: int = RETRY_MILLISECONDS) -> Starlette:
    """Return a server as a service; its lifespan opens and closes the journal of the store."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None, None]:
        async with store.opened(), server.session_manager.run():
            yield

    mcp = server.streamable_http_app(event_store=store, retry_interval=retry_interval)
    return Starlette(routes=[Mount("/", mcp)], middleware=[Middleware(NamesSessions)], lifespan=lifespan)


def serve(app: Starlette, port: int = 0) -> None:
    """Serve until the process is told to end; port 0 takes any that is free."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on", timeout_graceful_shutdown=10))
    with socket.create_server(("127.0.0.1", port)) as listener, suppress(KeyboardInterrupt):
        print(f"http://127.0.0.1:{listener.getsockname()[1]}/mcp", flush=True)
        asyncio.run(server.serve([listener]))


async def count(to: int, context: Context) -> str:
    """Count, and tell how far it is."""
    for number in range(1, to + 1):
        await asyncio.sleep(0.1)
        await context.report_progress(number, to)
    return f"counted to {to}"


def main(directory: Path, port: int = 0) -> None:
    """Serve the tool."""
    server = MCPServer("counting", log_level="WARNING")
    server.add_tool(count)
    serve(create_app(server, JournalEventStore(FileStorage(directory))), port)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
