"""The FastAPI service answers 201 for what survives a SIGKILL, and nothing else."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fastapi import FastAPI  # noqa: TC002 - read by the fixture

from posjournal_async import Context, Counters, FileStorage, Journal, JournalFailed, MemoryStorage
from posjournal_async.testing import FaultyStorage, GatedStorage, crash_points
from posjournal_async.testing.wrapping import is_data_sync
from tests.examples.serving import EXAMPLES, Served, environment, example, served

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence
    from pathlib import Path

    from posjournal_async.testing import CrashStorage

SERVICE = EXAMPLES / "fastapi_service.py"


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncGenerator[httpx.AsyncClient, None]:
    """A client of the service in this process; the lifespan begins before it, and ends after it."""
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client,
    ):
        yield client


def app_on(context: Context, **changes: Any) -> FastAPI:
    service = example("fastapi_service")
    app: FastAPI = service.create_app(context, replace(service.CONFIG, **changes))
    return app


def events_of(body: str) -> list[tuple[int, Any]]:
    return [(line["position"], line["event"]) for line in map(json.loads, body.splitlines())]


async def test_events_come_back_by_position_and_as_a_range() -> None:
    """What was posted is there under the position of the answer, also when the service is started again."""
    context = Context(MemoryStorage())
    events = [{"number": number, "text": "ä☃"} for number in range(10)]
    async with serving(app_on(context)) as client:
        for position, event in enumerate(events):
            answer = await client.post("/events", json=event)
            assert (answer.status_code, answer.json()) == (201, {"position": position})
            assert (await client.get(answer.headers["location"])).json() == event
    async with serving(app_on(context)) as client:
        everything = await client.get("/events")
        assert everything.headers["content-type"].startswith("application/x-ndjson")
        assert events_of(everything.text) == list(enumerate(events))
        for start, stop, found in [(0, 0, []), (3, 5, [3, 4]), (9, 100, [9]), (10, 10, []), (5, 3, [])]:
            part = await client.get("/events", params={"start": start, "stop": stop})
            assert events_of(part.text) == [(position, events[position]) for position in found]


@pytest.mark.parametrize(
    ("request_line", "body", "status"),
    [
        ("GET /events/3", b"", 404),
        ("GET /events/18446744073709551616", b"", 404),
        ("GET /events/-1", b"", 422),
        ("GET /events/x", b"", 422),
        ("GET /events?start=4", b"", 404),
        ("GET /events?start=-1", b"", 422),
        ("POST /events", b"", 422),
        ("POST /events", b"[1]", 422),
        ("POST /events", b'{"a": ', 422),
        ("POST /events", b'{"a": NaN}', 422),
        ("POST /events", b'{"a": "\\ud800"}', 422),
        ("POST /events", b'{"a": "' + b"x" * 2_000 + b'"}', 413),
        ("GET /health", b"", 204),
    ],
)
async def test_what_cannot_be_is_refused_with_its_status(request_line: str, body: bytes, status: int) -> None:
    """A request that cannot be served changes nothing and says whose fault it is."""
    async with serving(app_on(Context(MemoryStorage()), max_item_size=1_000)) as client:
        for _ in range(3):
            await client.post("/events", json={})
        method, path = request_line.split()
        answer = await client.request(method, path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == status
        assert (await client.post("/events", json={})).json() == {"position": 3}


async def test_pruned_positions_are_gone() -> None:
    """A pruned position is 410, and a range without a start begins at the oldest event that is kept."""
    app = app_on(Context(MemoryStorage()), items_per_section=2)
    async with serving(app) as client:
        for number in range(5):
            await client.post("/events", json={"number": number})
        await app.state.journal.prune(3)
        assert (await client.get("/events/1")).status_code == 410
        assert (await client.get("/events", params={"start": 1})).status_code == 410
        assert [position for position, _ in events_of((await client.get("/events")).text)] == [2, 3, 4]


async def test_requests_that_are_under_way_share_an_fsync() -> None:
    """100 requests at once, and two fsyncs: one for the first, one for all that came meanwhile."""
    storage, counters = GatedStorage(MemoryStorage()), Counters()
    async with serving(app_on(Context(storage, counters))) as client:
        storage.hold(is_data_sync)
        posts = [asyncio.create_task(client.post("/events", json={"number": number})) for number in range(100)]
        try:
            await storage.until_held()
            assert not any(post.done() for post in posts)
        finally:
            storage.let_all_go()
        assert {answer.json()["position"] for answer in await asyncio.gather(*posts)} == set(range(100))
    assert counters.totals["events", "commits"] <= 3


async def test_nothing_is_acknowledged_or_shown_before_it_is_durable() -> None:
    """While the fsync is under way there is neither a 201 nor somebody who has read the event."""
    storage = GatedStorage(MemoryStorage())
    async with serving(app_on(Context(storage))) as client:
        await client.post("/events", json={"number": 0})
        storage.hold(is_data_sync)
        requests = [asyncio.create_task(client.post("/events", json={"number": 1}))]
        try:
            await storage.until_held()
            requests += [asyncio.create_task(client.get(path)) for path in ("/events/1", "/events?start=1")]
            for _ in range(100):  # turns of the loop, each enough for a step of all requests
                await asyncio.sleep(0)
            assert not any(request.done() for request in requests)
        finally:
            storage.let_all_go()
        assert [(await request).status_code for request in requests] == [201, 200, 200]


async def test_a_cancelled_request_is_kept_as_a_whole_or_not_at_all() -> None:
    """Cancelled after any number of turns of the loop: the next events get the next positions, and all can be read."""
    context = Context(MemoryStorage())
    async with serving(app_on(context)) as client:
        for turns in range(40):
            post = asyncio.create_task(client.post("/events", json={"turns": turns}))
            for _ in range(turns):
                await asyncio.sleep(0)
            post.cancel()
            await asyncio.wait([post])
        last = (await client.post("/events", json={"last": True})).json()["position"]
        events = events_of((await client.get("/events")).text)
        assert [position for position, _ in events] == list(range(last + 1))
        assert events[-1] == (last, {"last": True})
        kept = [event["turns"] for _, event in events[:-1]]
        assert kept == sorted(set(kept))


async def test_a_failed_journal_says_so_until_the_service_is_started_again() -> None:
    """After a failed fsync there is no 201 any more, `/health` says it, and a new start goes on."""
    disk = MemoryStorage()
    storage = FaultyStorage(disk, once=False, only=is_data_sync)

    async def fail() -> None:
        async with serving(app_on(Context(storage))) as client:
            assert (await client.post("/events", json={"number": 0})).status_code == 201
            storage.fail_at = storage.count + 1
            for _ in range(2):
                assert (await client.post("/events", json={"number": 1})).status_code == 503
                assert (await client.get("/health")).status_code == 503

    with pytest.raises(JournalFailed):  # closing says it once more
        await fail()
    async with serving(app_on(Context(disk))) as client:
        assert (await client.get("/events/0")).json() == {"number": 0}
        assert (await client.get("/health")).status_code == 204


async def a_day(storage: CrashStorage, tell: Callable[[tuple[int, Any]], None]) -> None:
    """Post events, two at a time, and tell what was answered."""

    async def post(number: int) -> None:
        answer = await client.post("/events", json={"number": number})
        assert answer.status_code == 201
        tell((answer.json()["position"], {"number": number}))

    async with serving(app_on(Context(storage), items_per_section=3)) as client:
        for number in range(0, 6, 2):
            await asyncio.gather(post(number), post(number + 1))


async def check(storage: CrashStorage, told: Sequence[tuple[int, Any]]) -> None:
    """Start again after a crash: what was answered is there, and there is room for more."""
    async with serving(app_on(Context(storage), items_per_section=3)) as client:
        events = dict(events_of((await client.get("/events")).text))
        assert dict(told).items() <= events.items()
        assert (await client.post("/events", json={})).json() == {"position": len(events)}


async def test_no_crash_takes_back_an_answer() -> None:
    """Crashed at every point, with anything lost that a power cut may lose: each 201 stands."""
    assert await crash_points(a_day, check, states=4) > 50


async def test_a_killed_server_has_all_that_it_acknowledged(tmp_path: Path) -> None:
    """32 clients post to a real server that is killed with SIGKILL: each 201 is an event at its position."""
    acknowledged: dict[int, Any] = {}
    for run in range(2):
        with served(SERVICE, tmp_path) as service:
            await post_until_killed(service, run, acknowledged)
        assert service.process.returncode == -signal.SIGKILL
        async with await Journal.init(Context(FileStorage(tmp_path)), example("fastapi_service").CONFIG) as journal:
            found = {position: event async for position, event in journal.replay(0)}
        assert acknowledged.items() <= found.items()
        assert list(found) == list(range(len(found)))


async def post_until_killed(service: Served, run: int, acknowledged: dict[int, Any]) -> None:
    """Post from 32 tasks, kill the service after 150 answers, and note all answers."""
    goal = len(acknowledged) + 150

    async def post(name: int) -> None:
        for number in range(1_000):
            event = {"run": run, "client": name, "number": number}
            try:
                answer = await client.post("/events", json=event)
            except httpx.TransportError:
                return
            assert answer.status_code == 201
            acknowledged[answer.json()["position"]] = event
            if len(acknowledged) == goal:
                service.process.kill()

    async with httpx.AsyncClient(base_url=service.url, timeout=30) as client:
        await asyncio.gather(*(post(name) for name in range(32)))
    assert len(acknowledged) >= goal


async def test_a_client_that_goes_away_takes_nothing_with_it(tmp_path: Path) -> None:
    """Connections that are closed right after the request: the service goes on, each event is there once at most."""
    with served(SERVICE, tmp_path) as service:
        address = httpx.URL(service.url)
        for number in range(30):
            _, writer = await asyncio.open_connection(address.host, address.port)
            body = json.dumps({"number": number}).encode()
            writer.write(b"POST /events HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n")
            writer.write(b"content-length: %d\r\n\r\n" % len(body) + body[: len(body) if number % 2 else 3])
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        async with httpx.AsyncClient(base_url=service.url) as client:
            assert (await client.post("/events", json={"number": -1})).status_code == 201
            numbers = [event["number"] for _, event in events_of((await client.get("/events")).text)]
        assert len(numbers) == len(set(numbers))
        assert all(number == -1 or number % 2 for number in numbers)
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(30) == -signal.SIGTERM
    async with await Journal.init(Context(FileStorage(tmp_path)), example("fastapi_service").CONFIG) as journal:
        assert journal.recovery.clean  # the lifespan has closed it


def test_a_second_server_on_the_same_directory_does_not_start(tmp_path: Path) -> None:
    """The journal is locked, and the second server ends with a code of its own."""
    with served(SERVICE, tmp_path):
        second = subprocess.run(
            [sys.executable, SERVICE, tmp_path], capture_output=True, check=False, env=environment(), timeout=60
        )
    assert second.returncode == 3
    assert b"JournalLocked" in second.stderr
