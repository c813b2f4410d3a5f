"""The server-sent events of the example: cut, resume, nothing missing, nothing twice."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import socket
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from posjournal_async import Config, Context, FileStorage, ItemPruned, Journal, MemoryStorage
from posjournal_async.testing import GatedStorage
from posjournal_async.testing.wrapping import is_data_sync
from tests.examples.serving import EXAMPLES, example, served

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

SERVICE = EXAMPLES / "sse_resume.py"

# The same service with small sections, and few events that are kept.
SMALL = """
import sys, dataclasses, pathlib, sse_resume
config = dataclasses.replace(sse_resume.CONFIG, items_per_section=10)
sse_resume.main(pathlib.Path(sys.argv[1]), config=config, keep=20)
"""

Event = dict[str, str]


async def events_of(response: httpx.Response) -> AsyncGenerator[Event, None]:
    """The events of a stream, each as its fields."""
    event: Event = {}
    async for line in response.aiter_lines():
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            event[name] = value
        elif event:
            yield event
            event = {}


@asynccontextmanager
async def subscribed(
    client: httpx.AsyncClient, last: int | None = None
) -> AsyncGenerator[AsyncGenerator[Event, None], None]:
    """A subscription, as a browser makes it; one that goes silent fails the test instead of stopping it."""
    headers = {} if last is None else {"last-event-id": str(last)}
    async with asyncio.timeout(60), client.stream("GET", "/events", headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        async with aclosing(events_of(response)) as events:
            yield events


async def test_a_subscriber_that_is_cut_again_and_again_gets_each_event_once(tmp_path: Path) -> None:
    """While 8 tasks publish, the connection is cut after a few events, and resumed behind the last one, to the end."""
    chance = random.Random(1)
    received: list[tuple[int, Any]] = []
    published: dict[int, Any] = {}
    with served(SERVICE, tmp_path) as service:
        async with httpx.AsyncClient(base_url=service.url, timeout=30) as client, asyncio.TaskGroup() as tasks:

            async def publish(task: int) -> None:
                for number in range(40):
                    event = {"task": task, "number": number}
                    answer = await client.post("/events", json=event)
                    assert answer.status_code == 201
                    published[answer.json()["position"]] = event

            publishers = [tasks.create_task(publish(task)) for task in range(8)]
            while len(received) < 320:
                async with subscribed(client, received[-1][0] if received else None) as events:
                    for _ in range(chance.randrange(1, 40)):
                        event = await anext(events)
                        received.append((int(event["id"]), json.loads(event["data"])))
                        if len(received) == 320:
                            break
            await asyncio.gather(*publishers)
    assert received == sorted(published.items())


async def test_what_a_subscriber_got_is_there_after_a_kill(tmp_path: Path) -> None:
    """Only durable events are sent: a killed server has each at its id, and a subscriber goes on behind it."""
    received: list[tuple[int, Any]] = []
    with served(SERVICE, tmp_path) as service:
        async with httpx.AsyncClient(base_url=service.url, timeout=30) as client:

            async def publish(task: int) -> None:
                try:
                    for number in range(10_000):
                        await client.post("/events", json=[task, number])
                except httpx.TransportError:
                    return

            async def subscribe() -> None:
                async with subscribed(client) as events:
                    try:
                        async for event in events:
                            received.append((int(event["id"]), json.loads(event["data"])))
                            if len(received) == 100:
                                service.process.kill()
                    except httpx.TransportError:
                        return

            await asyncio.gather(subscribe(), *(publish(task) for task in range(8)))
    async with await Journal.init(Context(FileStorage(tmp_path)), example("sse_resume").CONFIG) as journal:
        there = [item async for item in journal.replay(0)]
    assert there[: len(received)] == received
    with served(SERVICE, tmp_path) as service:
        async with (
            httpx.AsyncClient(base_url=service.url, timeout=30) as client,
            subscribed(client, received[-1][0]) as events,
        ):
            await client.post("/events", json="the last")
            while received[-1][1] != "the last":
                event = await anext(events)
                received.append((int(event["id"]), json.loads(event["data"])))
    assert received == [*there, (len(there), "the last")]


async def test_who_comes_too_late_is_told(tmp_path: Path) -> None:
    """Behind the last event there is nothing to resume, before the oldest one nothing any more; junk is refused."""
    with served("-c", SMALL, tmp_path) as service:
        async with httpx.AsyncClient(base_url=service.url, timeout=30) as client:
            assert (await client.post("/events", content=b"{")).status_code == 400
            for number in range(51):
                assert (await client.post("/events", json=number)).status_code == 201
            for last, status in [
                ("28", 410),
                ("29", 200),
                ("50", 200),
                ("51", 410),
                ("x", 400),
                ("-1", 400),
                ("9" * 30, 400),
            ]:
                async with client.stream("GET", "/events", headers={"last-event-id": last}) as response:
                    assert response.status_code == status, last
                    if status == 410:
                        body = json.loads(await response.aread())
                        assert (body["oldest"], body["size"]) == (30, 51)
            async with subscribed(client) as events:
                assert (await anext(events))["id"] == "30"


async def test_a_consumer_that_does_not_read_costs_no_memory_and_holds_up_nobody(tmp_path: Path) -> None:
    """It is overtaken by the pruning: it gets what was on the way, then `pruned`, and 410 when it comes back."""
    # Little room in the socket, so that a few events fill it.
    transport = httpx.AsyncHTTPTransport(socket_options=[(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)])
    with served("-c", SMALL, tmp_path) as service:
        async with httpx.AsyncClient(base_url=service.url, timeout=30, transport=transport) as client:
            status = Path(f"/proc/{service.process.pid}/status")
            size = 200_000
            async with subscribed(client) as events:
                await client.post("/events", json="x" * size)
                assert (await anext(events))["id"] == "0"
                before = peak_of(status)
                for _ in range(80):
                    await client.post("/events", json="x" * size)  # answered, whoever does not read
                after = peak_of(status)
                ids = []
                async for event in events:
                    if event.get("event") == "pruned":
                        break
                    ids.append(int(event["id"]))
            assert ids == list(range(1, len(ids) + 1))
            assert len(ids) < 60
            assert json.loads(event["data"])["oldest"] > ids[-1] + 1
            assert (await client.get("/events", headers={"last-event-id": str(ids[-1])})).status_code == 410
            # 16 MB went by; for the consumer there is a read-ahead, and one event on the way.
            assert after - before < 8_000_000


def peak_of(status: Path) -> int:
    """The most memory that a process has had, in bytes; where the system does not tell, 0."""
    if not status.exists():
        return 0
    [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


async def test_a_server_with_subscribers_ends_when_it_is_told_to(tmp_path: Path) -> None:
    """SIGTERM ends the streams, and the journal is closed."""
    with served(SERVICE, tmp_path) as service:
        async with httpx.AsyncClient(base_url=service.url, timeout=30) as client:
            async with subscribed(client) as events:
                await client.post("/events", json=1)
                await anext(events)
                service.process.send_signal(signal.SIGTERM)
                with pytest.raises((StopAsyncIteration, httpx.TransportError)):
                    await anext(events)
            assert await asyncio.to_thread(service.process.wait, 30) == -signal.SIGTERM
    async with await Journal.init(Context(FileStorage(tmp_path)), example("sse_resume").CONFIG) as journal:
        assert journal.recovery.clean


@asynccontextmanager
async def feed_on(storage: Any, keep: int = 1_000) -> AsyncGenerator[Any, None]:
    async with await Journal.init(Context(storage), Config(partition="feed", items_per_section=4)) as journal:
        yield example("sse_resume").Feed(journal, keep)


async def test_what_is_not_durable_is_not_sent() -> None:
    """A follower waits as long as the fsync is under way."""
    storage = GatedStorage(MemoryStorage())
    async with feed_on(storage) as feed, aclosing(feed.follow(0)) as items:
        await feed.publish("first")
        assert await anext(items) == (0, "first")
        storage.hold(is_data_sync)
        publishing = asyncio.create_task(feed.publish("second"))
        following = asyncio.create_task(anext(items))
        try:
            await storage.until_held()
            for _ in range(100):
                await asyncio.sleep(0)
            assert not following.done()
        finally:
            storage.let_all_go()
        assert await following == (1, "second")
        assert await publishing == 1


async def test_followers_get_what_a_cancelled_publisher_left() -> None:
    """Cancelled after any number of turns: what is in the journal reaches those who wait, without another publisher."""
    async with feed_on(MemoryStorage()) as feed:
        for turns in sorted(4 * [*range(12)]):  # in each section once with each number
            size = feed.journal.size()
            async with aclosing(feed.follow(size)) as items:
                following = asyncio.create_task(anext(items))
                await asyncio.sleep(0)  # now it waits
                publishing = asyncio.create_task(feed.publish(turns))
                for _ in range(turns):
                    await asyncio.sleep(0)
                publishing.cancel()
                await asyncio.wait([publishing])
                if feed.journal.size() > size:
                    async with asyncio.timeout(30):
                        assert await following == (size, turns)
                following.cancel()
                await asyncio.wait([following])


async def test_a_follower_that_is_overtaken_is_told() -> None:
    """Pruned under a follower: it gets no later item in place of the one that is gone."""
    async with feed_on(MemoryStorage(), keep=4) as feed, aclosing(feed.follow(0)) as items:
        await feed.publish(0)
        assert await anext(items) == (0, 0)
        for number in range(1, 20):
            await feed.publish(number)
        with pytest.raises(ItemPruned):
            await anext(items)
