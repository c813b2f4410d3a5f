"""The event store of the example, with the server and the client of the real package, cut connections and kills."""

from __future__ import annotations

import asyncio
import signal
from collections import defaultdict
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from mcp import ClientSession, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import ClientMessageMetadata
from mcp_types import (
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    JSONRPCError,
    JSONRPCNotification,
    JSONRPCResponse,
    TextContent,
)

from posjournal_async import Context, FileStorage, Journal, MemoryStorage
from tests.examples.serving import EXAMPLES, example, served

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine
    from pathlib import Path

# A server whose tool stops until another client lets it go on, and that can be asked what is stored.
SERVER = """
import asyncio, pathlib, sys
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
import mcp_event_store, mcp_server
from posjournal_async import FileStorage

server = MCPServer("work", log_level="WARNING")
store = mcp_event_store.JournalEventStore(FileStorage(pathlib.Path(sys.argv[1])))
goes_on = asyncio.Event()

@server.tool()
async def work(context: Context) -> str:
    for step in range(1, 8):
        await context.report_progress(step)
        if step == 3:
            await goes_on.wait()
    return "all is done"

@server.tool()
async def go_on() -> str:
    goes_on.set()
    return ""

@server.tool()
async def until_stored(text: str) -> str:
    while True:
        grown = store._grown
        async for _, (_, _, message, _) in store._journal.replay(0):
            if message is not None and text in message:
                return ""
        await grown.wait()

mcp_server.serve(mcp_server.create_app(server, store, retry_interval=10))
"""

WORK = CallToolRequest(params=CallToolRequestParams(name="work"))


class Line:
    """The line between a client and a server: it can be cut, and stays dead until it is mended.

    Attributes:
        url: Where the client connects.
        resumed: Requests with a `Last-Event-ID` that came by.
    """

    def __init__(self, server: str) -> None:
        self._server = httpx.URL(server)
        self.url = ""
        self._works = asyncio.Event()
        self._works.set()
        self._ends: list[asyncio.StreamWriter] = []
        self.resumed = 0

    @classmethod
    @asynccontextmanager
    async def to(cls, url: str) -> AsyncGenerator[Line, None]:
        line = cls(url)
        listener = await asyncio.start_server(line._connect, "127.0.0.1", 0)
        host, port = listener.sockets[0].getsockname()
        line.url = f"http://{host}:{port}/mcp"
        async with listener:
            yield line
            line.cut()
            line.mend()

    def cut(self) -> None:
        self._works.clear()
        for end in self._ends:
            end.transport.abort()
        self._ends.clear()

    def mend(self) -> None:
        self._works.set()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._works.wait()
        with suppress(ConnectionError):
            back, there = await asyncio.open_connection(self._server.host, self._server.port)
            self._ends += [writer, there]
            await asyncio.gather(self._pass_on(reader, there), self._pass_on(back, writer))

    async def _pass_on(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await source.read(65_536):
                self.resumed += data.lower().count(b"last-event-id:")
                target.write(data)
                await target.drain()
        target.close()


@asynccontextmanager
async def session_with(url: str) -> AsyncGenerator[ClientSession, None]:
    """A client that has made its handshake."""
    async with AsyncExitStack() as stack:
        read, write = await stack.enter_async_context(streamable_http_client(url, terminate_on_close=False))
        session = await stack.enter_async_context(ClientSession(read, write, read_timeout_seconds=60))
        await session.initialize()
        yield session


class Caller:
    """A client that calls the tool `work`.

    Attributes:
        steps: What it was told of the progress.
        token: The id of the last event that it got.
        told: Set when it has all events up to the step at which the tool stops.
    """

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.token: str | None = None
        self.told = asyncio.Event()
        self._events = 0

    async def call(self, session: ClientSession, *, resume: bool = False) -> str:
        """Call it, or take up a call that was made before, and return the answer."""
        metadata = ClientMessageMetadata(self.token if resume else None, self._note)
        result = await session.send_request(WORK, CallToolResult, metadata=metadata, progress_callback=self._progress)
        [content] = result.content
        assert isinstance(content, TextContent)
        return content.text

    async def _note(self, token: str) -> None:
        self.token = token
        self._events += 1
        self._look()

    async def _progress(self, progress: float, total: float | None, message: str | None) -> None:  # noqa: ARG002
        self.steps.append(progress)
        self._look()

    def _look(self) -> None:
        # The steps come by another way than the ids; the first id is that of the opening of the stream.
        if len(self.steps) >= 3 and self._events >= 4:
            self.told.set()


@pytest.mark.parametrize("mended_early", [False, True], ids=["after the answer", "before the answer"])
async def test_a_client_that_was_cut_off_gets_what_it_missed(tmp_path: Path, *, mended_early: bool) -> None:
    """The client resumes by itself: each step once, and the answer, whether they were stored before or come later."""
    with served("-c", SERVER, tmp_path) as service:
        async with (
            Line.to(service.url) as line,
            session_with(line.url) as session,
            session_with(service.url) as another,
        ):
            caller = Caller()
            calling = asyncio.create_task(caller.call(session))
            await caller.told.wait()
            line.cut()
            if mended_early:
                line.mend()
            await another.call_tool("go_on")
            await another.call_tool("until_stored", {"text": "all is done"})
            line.mend()
            assert await calling == "all is done"
            assert caller.steps == [1, 2, 3, 4, 5, 6, 7]
            assert line.resumed >= 1


async def test_a_client_gets_what_it_missed_from_a_server_that_was_killed_and_started_again(tmp_path: Path) -> None:
    """A new session with the id of the last event: the steps that were missed, and the answer."""
    caller = Caller()
    with served("-c", SERVER, tmp_path) as service:
        async with session_with(service.url) as another:
            async with Line.to(service.url) as line, session_with(line.url) as session:
                calling = asyncio.create_task(caller.call(session))
                await caller.told.wait()
                line.cut()
                calling.cancel()
                await asyncio.wait([calling])
            await another.call_tool("go_on")
            await another.call_tool("until_stored", {"text": "all is done"})
            service.kill()
    assert caller.steps == [1, 2, 3]
    with served("-c", SERVER, tmp_path) as service:
        async with session_with(service.url) as session:
            assert await caller.call(session, resume=True) == "all is done"
        assert caller.steps == [1, 2, 3, 4, 5, 6, 7]
        async with session_with(service.url) as session:
            caller.token = "1-guessed"  # noqa: S105 - it is not a secret, that is the point
            with pytest.raises(MCPError, match="not kept any more"):
                await caller.call(session, resume=True)


async def test_the_server_of_the_example_counts(tmp_path: Path) -> None:
    """The script serves its tool, with progress."""
    steps: list[float] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:  # noqa: ARG001
        steps.append(progress)

    with served(EXAMPLES / "mcp_server.py", tmp_path) as service:
        async with session_with(service.url) as session:
            result = await session.call_tool("count", {"to": 2}, progress_callback=note)
        service.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(service.process.wait, 30) == -signal.SIGTERM
    assert result.structured_content == {"result": "counted to 2"}
    assert steps == [1, 2]
    module = example("mcp_event_store")
    async with await Journal.init(Context(FileStorage(tmp_path)), module.CONFIG) as journal:
        assert journal.recovery.clean
        assert journal.size() >= 5  # two openings, two steps, an answer


async def test_a_call_that_a_kill_has_ended_is_answered_by_an_error(tmp_path: Path) -> None:
    """The server was killed in the middle of the tool: who resumes is not left waiting."""
    caller = Caller()
    with served("-c", SERVER, tmp_path) as service:
        async with Line.to(service.url) as line, session_with(line.url) as session:
            calling = asyncio.create_task(caller.call(session))
            await caller.told.wait()
            service.kill()
            line.cut()
            calling.cancel()
            await asyncio.wait([calling])
    with served("-c", SERVER, tmp_path) as service:
        async with session_with(service.url) as session:
            with pytest.raises(MCPError, match="started again before it answered"):
                await caller.call(session, resume=True)


@asynccontextmanager
async def store_on(storage: MemoryStorage, keep: int = 1_000, items_per_section: int = 4) -> AsyncGenerator[Any, None]:
    """A store, without a server."""
    module = example("mcp_event_store")
    store = module.JournalEventStore(storage, keep, replace(module.CONFIG, items_per_section=items_per_section))
    async with store.opened():
        yield store


class Member:
    """What a session does with the store, in the context of the session."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._session = example("mcp_event_store").Session()

    async def store(self, stream: str, text: str | None) -> str:
        """Store a notification with a text, or the answer of the stream for "answer", or for None its opening."""
        message: JSONRPCNotification | JSONRPCResponse | None = None
        if text == "answer":
            message = JSONRPCResponse(jsonrpc="2.0", id=int(stream), result={})
        elif text is not None:
            message = JSONRPCNotification(jsonrpc="2.0", method=text)
        return str(await self._here(self._store.store_event(stream, message)))

    async def replay(self, last: str, stop: int = 1_000) -> list[str]:
        """Return what comes after an event: texts, "answer", or "error"; no more than `stop`."""
        found: list[str] = []
        enough = asyncio.Event()

        async def take(event: Any) -> None:
            kinds: dict[type, str] = {JSONRPCNotification: "method", JSONRPCResponse: "answer", JSONRPCError: "error"}
            kind = kinds[type(event.message)]
            found.append(event.message.method if kind == "method" else kind)
            assert (event.event_id is None) == (kind == "error")
            if len(found) == stop:
                enough.set()
                await asyncio.Event().wait()  # a client that takes no more

        replaying = asyncio.create_task(self._here(self._store.replay_events_after(last, take)))
        waiting = asyncio.create_task(enough.wait())
        await asyncio.wait([replaying, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if not replaying.done():
            replaying.cancel()
            await asyncio.wait([replaying])
        else:
            assert replaying.result() is None
        return found

    async def _here(self, call: Coroutine[Any, Any, Any]) -> Any:
        async def within() -> Any:
            example("mcp_event_store")._session.set(self._session)
            return await call

        return await asyncio.create_task(within())


async def test_sessions_and_streams_are_kept_apart() -> None:
    """Every session has a stream "1", and a standalone one: each gets its own events, in order, from any of them on."""
    ids: defaultdict[tuple[int, str], list[str]] = defaultdict(list)
    async with store_on(MemoryStorage()) as store:
        members = [Member(store) for _ in range(3)]
        streams = [(place, stream) for place in range(3) for stream in ("1", "2", "_GET_stream")]
        for number in range(6):
            for place, stream in streams:
                text = f"{place} {stream} {number}" if number else None
                ids[place, stream].append(await members[place].store(stream, text))
        answers = [await members[place].store(stream, "answer") for place, stream in streams if len(stream) == 1]
        for place, stream in streams:
            everything = [f"{place} {stream} {number}" for number in range(6)] + ["answer"] * (len(stream) == 1)
            for after in range(5):
                expected = everything[after + 1 :]
                assert await members[place].replay(ids[place, stream][after], len(expected)) == expected
        # Who has the id was in the session, and has a new one now.
        assert await members[1].replay(ids[0, "1"][4]) == ["0 1 5", "answer"]
        assert await members[0].replay(answers[0]) == []


async def test_an_id_that_nobody_was_given_opens_nothing() -> None:
    """Guessed, foreign, cut, beyond the end: an error, and no event of anybody."""
    async with store_on(MemoryStorage()) as store:
        member, other = Member(store), Member(store)
        await member.store("1", "secret")
        name = (await member.store("1", "secret")).partition("-")[2]
        theirs = (await other.store("1", "theirs")).partition("-")[2]
        forms = [
            "0",
            "0-",
            "0-x",
            "",
            "-",
            "-1",
            "0-{0}x",
            "x-{0}",
            "99-{0}",
            "-1-{0}",
            "²-{0}",
            "0-{1}",
            "2-{0}",
            "0-ä",
        ]
        for last in [*forms, "9" * 5_000 + "-{0}"]:
            assert await other.replay(last.format(name, theirs)) == ["error"]


async def test_a_resumed_stream_goes_on_with_what_comes() -> None:
    """A client that has caught up gets each later event as it is stored, and its stream ends with the answer."""
    async with store_on(MemoryStorage()) as store:
        member, other = Member(store), Member(store)
        opening = await member.store("1", None)
        replaying = asyncio.create_task(member.replay(opening))
        for number in range(20):
            await other.store("1", "of somebody else")
            await member.store("1", str(number))
        await member.store("1", "answer")
        async with asyncio.timeout(30):
            assert await replaying == [*map(str, range(20)), "answer"]


async def test_events_are_kept_over_a_restart_and_pruned_in_the_end() -> None:
    """The index is made again from the journal; what is not kept is refused, and the memory of it goes too."""
    storage = MemoryStorage()
    async with store_on(storage, keep=10) as store:
        member = Member(store)
        ids = [await member.store("_GET_stream", str(number)) for number in range(22)]
    async with store_on(storage, keep=10) as store:
        member = Member(store)
        assert await member.replay(ids[7]) == ["error"]
        assert await member.replay(ids[8]) == [str(number) for number in range(9, 22)]
        for number in range(100):
            await member.store(str(number), "answer")
        assert await member.replay(ids[21]) == ["error"]
        assert sum(map(len, store._positions.values())) == len(store._journal.bounds()) <= 10 + 2 * 4


async def test_a_store_that_is_opened_again_sends_each_event_once() -> None:
    """Its index is that of the journal, and not that of the time before besides."""
    async with store_on(MemoryStorage()) as store:
        member = Member(store)
        ids = [await member.store("1", str(number)) for number in range(3)]
    async with store.opened():
        await asyncio.gather(*(member.store("1", str(number)) for number in range(3, 6)))
        await member.store("1", "answer")
        assert await member.replay(ids[0]) == ["1", "2", "3", "4", "5", "answer"]


@pytest.mark.parametrize("after", [1, 3])
async def test_a_client_that_is_slower_than_the_pruning_is_told(after: int) -> None:
    """Events go while others are sent, or between two looks: an error comes in place of the first that is gone."""
    async with store_on(MemoryStorage(), keep=4) as store:
        member = Member(store)
        ids = [await member.store("1", str(number)) for number in range(4)]
        found: list[Any] = []

        async def take(event: Any) -> None:
            found.append(event.message)
            if len(found) == after:
                for number in range(20):
                    await member.store("1", str(number))

        async with asyncio.timeout(30):
            await member._here(store.replay_events_after(ids[0], take))
        assert isinstance(found.pop(), JSONRPCError)
        assert [message.method for message in found] == ["1", "2", "3"][:after]


async def test_a_store_without_the_middleware_refuses() -> None:
    """Better an error than the events of all sessions in one."""
    async with store_on(MemoryStorage()) as store:
        with pytest.raises(LookupError):
            await store.store_event("1", None)
