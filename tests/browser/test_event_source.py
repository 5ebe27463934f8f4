"""The browser's own `EventSource` loses nothing over cuts, gaps and restarts, and stops at the end.

The page has none of our code: `new EventSource(url)` against `penstock serve`, through a relay that
writes down every request and cuts connections where it is told.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import time
from collections.abc import AsyncGenerator, Sequence
from itertools import pairwise
from uuid import uuid4

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, Page

from browser.chromium import PATIENCE_S, until
from browser.event_source import IS_OVER, heard, open_source
from browser.front import Front, Visit, front
from browser.processes import Penstock, penstock
from penstock.core.limits import RETRY_JITTER
from raw_http import Connection, connect

pytestmark = pytest.mark.asyncio(loop_scope="session")

RETRY_MS = 400
EARLY_S = 0.02
"""A timer of the browser may fire this much before its time."""
LATE_S = 5.0
KEPT = 2_000
SEED = 20_260


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server() -> AsyncGenerator[Penstock]:
    async with penstock("serve", "--port", "0", retry_ms=RETRY_MS, retain_records=KEPT) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def relay(server: Penstock) -> AsyncGenerator[Front]:
    async with front(server.port) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def bare(profile: BrowserContext, relay: Front) -> AsyncGenerator[Page]:
    """A blank page of the relay's origin."""
    page = await profile.new_page()
    await page.goto(relay.url)
    yield page
    await page.close()


class Publisher:
    """One JSON stream, written to over one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.path = f"/v1/stream/browser/{uuid4().hex}"

    async def _ask(self, method: str, expected: int, body: object = None, **more: str) -> None:
        headers = {"Content-Type": "application/json"}
        headers |= {name.replace("_", "-"): value for name, value in more.items()}
        raw = b"" if body is None else json.dumps(body).encode()
        answer = await self._connection.ask(method, self.path, headers, raw)
        assert answer.status == expected, answer

    async def create(self) -> None:
        await self._ask("PUT", 201)

    async def append(self, numbers: Sequence[int]) -> None:
        """Append numbers, each a record."""
        await self._ask("POST", 204, list(numbers))

    async def end(self) -> None:
        await self._ask("POST", 204, None, Stream_Closed="true")


@pytest_asyncio.fixture(loop_scope="session")
async def publisher(server: Penstock) -> AsyncGenerator[Publisher]:
    async with connect(server.port) as connection:
        publisher = Publisher(connection)
        await publisher.create()
        yield publisher


def numbers_of(events: list[dict[str, str]]) -> list[int]:
    return [json.loads(event["data"]) for event in events if event["type"] == "message"]


async def visits_until(relay: Front, count: int) -> list[Visit]:
    """The visits, as soon as there are so many and the last of them is over."""
    async with asyncio.timeout(PATIENCE_S):
        while len(relay.visits) < count or relay.visits[count - 1].ended_s is None:
            await asyncio.sleep(0.01)
    return relay.visits


async def test_an_event_source_loses_nothing_over_cuts_and_stops_after_the_end(
    bare: Page, relay: Front, publisher: Publisher
):
    """Cut at random bytes, it comes back with its last id after the `retry:` it was told."""
    seed = random.Random(SEED).randrange(1 << 32)
    print(f"seed {seed}")
    moments = random.Random(seed)
    cuts = [moments.randrange(1_000, 6_000) for _ in range(4)]
    relay.budget = lambda _: cuts[len(relay.visits) - 1] if len(relay.visits) <= len(cuts) else None

    await open_source(bare, publisher.path)
    total = 0
    while len(relay.visits) <= len(cuts) or total < 300:
        await publisher.append([total])
        total += 1
        await asyncio.sleep(0.005)  # a model's pace: the cuts fall into a stream that goes on
    await publisher.end()
    await until(bare, IS_OVER)

    events = await heard(bare)
    assert numbers_of(events) == list(range(total))
    assert [event["type"] for event in events[total:]] == ["end"]
    assert json.loads(events[-1]["data"])["reason"] == "complete"

    visits = await visits_until(relay, len(cuts) + 2)
    assert [visit.status for visit in visits] == [200] * (len(cuts) + 1) + [204]
    assert visits[0].last_event_id is None
    assert visits[-1].last_event_id == events[-1]["last_event_id"]
    places = [event["last_event_id"] for event in events]
    for before, after in pairwise(visits):
        assert after.last_event_id in places
        came_back_as_told(before, after)
    # Nothing more comes, not even after the time in which it would have.
    await asyncio.sleep(2 * visits[-2].retry_ms / 1000)
    assert len(relay.visits) == len(visits)
    assert await bare.evaluate("watched.source.readyState") == 2


def came_back_as_told(before: Visit, after: Visit) -> None:
    assert abs(before.retry_ms - RETRY_MS) <= RETRY_JITTER * RETRY_MS
    assert before.ended_s is not None
    waited_s = after.began_s - before.ended_s
    print(f"told {before.retry_ms} ms, came back after {1000 * waited_s:.0f} ms")
    assert -EARLY_S <= waited_s - before.retry_ms / 1000 < LATE_S


async def test_an_event_source_is_told_what_it_missed(
    bare: Page, relay: Front, publisher: Publisher
):
    """Cut off while more was written than is kept, it hears of the gap, and then what is kept."""
    await open_source(bare, publisher.path)
    await publisher.append(range(10))
    await until(bare, "watched.events.length === 10")
    relay.shut()
    for start in range(10, 10 + 2 * KEPT, 1_000):
        await publisher.append(range(start, start + 1_000))
    await publisher.end()
    relay.is_shut = False
    await until(bare, IS_OVER)

    events = await heard(bare)
    assert [event["type"] for event in events[:11]] == ["message"] * 10 + ["gap"]
    gap = json.loads(events[10]["data"])
    print(f"the gap: {gap}")
    assert gap["from"] == events[9]["last_event_id"]
    assert gap["reason"] == "trimmed"
    numbers = numbers_of(events[11:])
    assert numbers == list(range(numbers[0], 10 + 2 * KEPT))
    assert 0 < len(numbers) <= KEPT
    assert events[-1]["type"] == "end"


async def test_an_event_source_is_told_that_its_stream_died_with_the_server(
    profile: BrowserContext,
):
    """The server is killed and another takes its port: the end is `lost`, and not silence."""
    async with penstock("serve", "--port", "0", retry_ms=RETRY_MS) as first:
        async with connect(first.port) as connection:
            publisher = Publisher(connection)
            await publisher.create()
            await publisher.append(range(5))
            page = await profile.new_page()
            await page.goto(f"{first.url}/healthz")
            await open_source(page, publisher.path)
            await until(page, "watched.events.length === 5")
        first.process.send_signal(signal.SIGKILL)
        await first.process.wait()
        await until(page, "watched.errors >= 2")  # the cut, and a server that is not there
    async with penstock("serve", "--port", str(first.port), retry_ms=RETRY_MS):
        began_s = time.monotonic()
        await until(page, IS_OVER)
        print(f"told {time.monotonic() - began_s:.2f} s after the new server was there")
        events = await heard(page)
    assert numbers_of(events) == list(range(5))
    assert [(event["type"], json.loads(event["data"])) for event in events[5:]] == [
        ("end", {"reason": "lost"})
    ]


async def test_an_event_source_comes_back_when_a_drained_server_told_it_to(
    profile: BrowserContext,
):
    """A server that is told to stop says so as an event, and ends the answer cleanly."""
    async with (
        penstock("serve", "--port", "0", retry_ms=RETRY_MS) as server,
        front(server.port) as relay,
        connect(server.port) as connection,
    ):
        publisher = Publisher(connection)
        await publisher.create()
        await publisher.append(range(3))
        page = await profile.new_page()
        await page.goto(relay.url)
        await open_source(page, publisher.path)
        await until(page, "watched.events.length === 3")
        assert await server.stop() == 0
        await until(page, "watched.errors >= 1")
        events = await heard(page)
        assert [event["type"] for event in events] == ["message"] * 3 + ["drain"]
        assert await page.evaluate("watched.source.readyState") == 0, "it is on its way back"
        assert relay.visits[0].answer.endswith(b"0\r\n\r\n")
        await page.close()
