"""Keep the events of an MCP server in a journal: a client that was cut off resumes, also after a restart of the server.

`mcp_server.py` beside this file runs a server with it. All streams of all sessions share one journal and its fsyncs; an
index from streams to positions is made again when it is opened. The id of an event begins with its position. Behind it
is the name of the session, which nobody knows who was not in it: positions alone could be guessed.

Resuming with `Last-Event-ID` is for clients of the protocol up to 2025-11-25; those of later ones use no event store.
"""

from __future__ import annotations

import asyncio
import secrets
from bisect import bisect_left, bisect_right
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from mcp.server.streamable_http import GET_STREAM_KEY, MCP_SESSION_ID_HEADER, EventMessage, EventStore
from mcp_types import INVALID_REQUEST, ErrorData, JSONRPCError, JSONRPCResponse, jsonrpc_message_adapter
from starlette.datastructures import Headers
from typing_extensions import override

from posjournal_async import Config, Context, ItemPruned, Journal

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from mcp.server.streamable_http import EventCallback
    from mcp_types import JSONRPCMessage
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from posjournal_async import Storage

# An item: session, stream, the message as JSON or None, and whether it ends the stream.
CONFIG: Config[list[Any]] = Config(partition="mcp", items_per_section=1_000)


class Session:
    """The name under which the events of one session are kept."""

    def __init__(self) -> None:
        self.name = secrets.token_urlsafe(16)


# An EventStore is told the stream of an event but not the session, and every session has a stream "1".
_session: ContextVar[Session] = ContextVar("session")


class NamesSessions:
    """ASGI middleware that says to which session a request, and the tasks that it starts, belong."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._sessions: WeakValueDictionary[str, Session] = WeakValueDictionary()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, in the context of its session."""
        session = Session()
        if scope["type"] == "http":
            session = self._sessions.get(Headers(scope=scope).get(MCP_SESSION_ID_HEADER, ""), session)
        _session.set(session)

        async def note(message: Message) -> None:
            if message["type"] == "http.response.start":
                number = Headers(raw=message["headers"]).get(MCP_SESSION_ID_HEADER)
                if number is not None:
                    self._sessions.setdefault(number, session)
            await send(message)

        await self._app(scope, receive, note)


class JournalEventStore(EventStore):
    """The events of an MCP server in a journal. Used inside `opened`, and behind `NamesSessions`."""

    def __init__(self, storage: Storage, keep: int = 100_000, config: Config[list[Any]] = CONFIG) -> None:
        """Name the storage, and how many events are kept at least: a prune takes whole sections."""
        self._storage = storage
        self._keep = keep
        self._config = config
        self._positions: dict[tuple[str, str], list[int]] = {}  # by session and stream, ascending
        self._stored = 0  # all positions below are in the index
        self._storing = asyncio.Lock()
        self._grown = asyncio.Event()

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[None, None]:
        """Hold the journal open."""
        async with await Journal.init(Context(self._storage), self._config) as self._journal:
            self._positions.clear()  # those of the time before, if it was open once
            async for position, (session, stream, _, _) in self._journal.replay(self._journal.bounds().start):
                self._positions.setdefault((session, stream), []).append(position)
            self._stored = self._journal.size()
            yield

    @override
    async def store_event(self, stream_id: str, message: JSONRPCMessage | None) -> str:
        """Keep an event, and return its id when it is durable: it is sent after that."""
        session = _session.get().name
        text = None if message is None else message.model_dump_json(by_alias=True, exclude_unset=True)
        is_last = isinstance(message, JSONRPCResponse | JSONRPCError) and str(message.id) == stream_id
        async with self._storing:  # the index grows in the order of the positions
            position = await self._journal.append([session, stream_id, text, is_last])
            self._positions.setdefault((session, stream_id), []).append(position)
            self._stored = position + 1
            self._grown.set()
            self._grown = asyncio.Event()
        await self._journal.sync_data()  # one fsync for all sessions that wait here
        if position % self._config.items_per_section == 0 and position > self._keep:
            await self._prune(position - self._keep)
        return f"{position}-{session}"

    async def _prune(self, position: int) -> None:
        if await self._journal.prune(position):
            oldest = self._journal.bounds().start
            rest = {stream: held[bisect_left(held, oldest) :] for stream, held in self._positions.items()}
            self._positions = {stream: held for stream, held in rest.items() if held}

    @override
    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> None:
        """Send what the client has missed, and what comes, until the stream has its answer or the client is gone.

        Returns None, so that the transport does not go on by itself: between the replay and its taking over an event
        would be lost.
        """
        try:
            await self._follow(last_event_id, send_callback)
        except (ValueError, LookupError):  # no id of ours, or ItemPruned: before, or while a slow client reads
            await send_callback(_refusal("the events after this one are not kept any more"))

    async def _follow(self, last_event_id: str, send: EventCallback) -> None:
        number, _, name = last_event_id.partition("-")
        seen = int(number)
        session, stream, _, is_last = await self._journal.read(seen)
        if not secrets.compare_digest(name.encode(), session.encode()):
            raise LookupError(last_event_id)
        while not is_last:
            stored, grown = self._stored, self._grown
            if seen == stored - 1:
                if session != _session.get().name:  # a session of before the start of this process: nothing will come
                    if stream != GET_STREAM_KEY:
                        await send(_refusal("the server was started again before it answered"))
                    return
                await grown.wait()
                continue
            if seen + 1 < (oldest := self._journal.bounds().start):
                raise ItemPruned(seen, oldest)
            held = self._positions.get((session, stream), [])
            await self._journal.sync_data()
            for position in held[bisect_right(held, seen) : bisect_left(held, stored)]:
                _, _, text, is_last = await self._journal.read(position)
                if text is not None:
                    await send(
                        EventMessage(jsonrpc_message_adapter.validate_json(text, by_name=False), f"{position}-{name}")
                    )
            seen = stored - 1


def _refusal(text: str) -> EventMessage:
    """Say why a stream ends without its answer; the client puts the id of its request in place of None."""
    return EventMessage(JSONRPCError(jsonrpc="2.0", id=None, error=ErrorData(code=INVALID_REQUEST, message=text)))
