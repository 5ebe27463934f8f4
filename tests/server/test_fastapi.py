"""In anybody's application a stream is a response, whatever stands around it.

uvicorn runs in the test's own loop, so that a test can hold a source's strings in its hand; each
test runs on the fast path and on the portable one.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest
from fastapi import BackgroundTasks, FastAPI, Request
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response
from starlette.routing import Mount, Route

from penstock import EndReason, Hub, NewRecord, Stream
from penstock.core.errors import StreamExists
from penstock.server.asgi import Receive, Scope, Send
from penstock.server.response import StreamResponse
from raw_http import PATIENCE_S, EventReader, ask, events
from running_servers import in_process

WORDS = ["a penstock", "is", "a gated pipe"]


@pytest.fixture(params=["fast", "portable"])
def is_fast(request: pytest.FixtureRequest) -> bool:
    return request.param == "fast"


class Source:
    """Yields what it is given, then waits until it is let go; knows what happened to it."""

    def __init__(self, *items: str | NewRecord) -> None:
        self.items = items
        self.let_go = asyncio.Event()
        self.is_iterated = False
        self.is_closed = False

    async def __aiter__(self) -> AsyncGenerator[str | NewRecord]:
        self.is_iterated = True
        try:
            for item in self.items:
                yield item
            await self.let_go.wait()
            yield "the rest"
        finally:
            self.is_closed = True


class Unstarted:
    """A source that is its own iterator, so that closing it is seen before it was iterated."""

    def __init__(self) -> None:
        self.is_iterated = False
        self.is_closed = False

    def __aiter__(self) -> Unstarted:
        return self

    async def __anext__(self) -> str:
        self.is_iterated = True
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.is_closed = True


async def words() -> AsyncIterator[str]:
    for word in WORDS:
        yield word


def make_app(hub: Hub) -> FastAPI:
    """The README's application."""
    app = FastAPI(lifespan=hub.lifespan)
    app.mount("/v1", hub.asgi)

    @app.post("/chat/{id}")
    async def chat(id: str):
        stream = await hub.start(f"chat/{id}", words())
        return stream.response()

    return app


async def until(condition: Any) -> None:
    """Wait for what must come, and give every other task a turn meanwhile."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.001)


def data(found: list[Any]) -> list[Any]:
    return [json.loads(event.data) for event in found]


async def body_of(port: int, target: str, **arguments: Any) -> EventReader:
    """Read a stream to its end."""
    async with events(port, target, **arguments) as reader:
        await reader.rest()
        return reader


# a stream as a response


async def test_a_post_streams_its_answer_and_a_reload_resumes_it(is_fast: bool) -> None:
    hub = Hub()
    async with in_process(make_app(hub), is_fast=is_fast) as port:
        async with events(port, "/chat/42", method="POST", body=b"") as reader:
            assert reader.answer["content-type"] == "text/event-stream"
            assert reader.answer["cache-control"] == "no-cache, no-store, no-transform"
            *found, end = await reader.rest()
        assert data(found) == WORDS
        assert end.type == "end"
        header = {"Last-Event-ID": found[0].last_event_id}
        async with events(port, "/v1/stream/chat/42", header) as reader:
            *found, end = await reader.rest()
        assert data(found) == WORDS[1:]
        done = await ask(port, "GET", "/v1/stream/chat/42", {"Last-Event-ID": end.last_event_id})
        assert done.status == 200  # nobody asked for events: these are the log's bytes


async def test_a_post_can_be_repeated_with_the_id_it_has_seen(is_fast: bool) -> None:
    """What `fetch`-based clients do: they resume by sending the same request again."""
    hub = Hub()
    app = FastAPI(lifespan=hub.lifespan)

    @app.post("/chat")
    async def chat():
        return (await hub.start("chat", words(), join=True)).response()

    async with in_process(app, is_fast=is_fast) as port:
        first = await body_of(port, "/chat", method="POST", body=b"")
        place = first.raw.split(b"id: ")[1].split(b"\n")[0].decode()
        async with events(port, "/chat", {"Last-Event-ID": place}, method="POST") as reader:
            *found, _ = await reader.rest()
    assert data(found) == WORDS[1:]


async def test_a_response_can_begin_where_its_endpoint_says(is_fast: bool) -> None:
    hub = Hub()
    app = FastAPI(lifespan=hub.lifespan)
    stream: list[Stream] = []

    @app.get("/tail")
    async def tail():
        return stream[0].response(last_event_id=str(stream[0].offset))

    async with in_process(app, is_fast=is_fast) as port:
        stream.append(await hub.create("log"))
        await stream[0].append("old")
        async with events(port, "/tail") as reader:
            await until(lambda: stream[0].readers)
            await stream[0].append("new")
            assert data(await reader.take(1)) == ["new"]


async def test_a_place_no_longer_kept_is_a_gap_in_a_response_too(is_fast: bool) -> None:
    hub = Hub()
    async with in_process(make_app(hub), is_fast=is_fast) as port:
        header = {"Last-Event-ID": "0000011"}
        async with events(port, "/chat/1", header, method="POST", body=b"") as reader:
            gap, *found, _ = await reader.rest()
    assert (gap.type, json.loads(gap.data)["reason"]) == ("gap", "epoch")
    assert data(found) == WORDS


async def test_background_tasks_run_once(is_fast: bool) -> None:
    hub = Hub()
    app = FastAPI(lifespan=hub.lifespan)
    ran: list[str] = []

    @app.get("/own")
    async def own():
        response: Any = (await hub.start("own", words())).response()
        response.background = BackgroundTask(ran.append, "own")
        return response

    @app.get("/injected")
    async def injected(tasks: BackgroundTasks):
        tasks.add_task(ran.append, "injected")
        return (await hub.start("injected", words())).response()

    async with in_process(app, is_fast=is_fast) as port:
        await body_of(port, "/own")
        await until(lambda: ran == ["own"])
        await body_of(port, "/injected")
        await until(lambda: ran == ["own", "injected"])


async def test_it_works_in_starlette_below_any_mount(is_fast: bool) -> None:
    hub = Hub()

    async def endpoint(request: Request) -> Any:
        return (await hub.start(None, words())).response()

    app = Starlette(
        routes=[Route("/chat", endpoint), Mount("/api", routes=[Mount("/v1", hub.asgi)])],
        lifespan=hub.lifespan,
    )
    async with in_process(app, is_fast=is_fast) as port:
        async with events(port, "/chat") as reader:
            *found, _ = await reader.rest()
        assert data(found) == WORDS
        path = "/api/v1/stream/%D1%97/a%20b"
        created = await ask(port, "PUT", path, {"Content-Type": "application/json"}, b"[1]")
        assert (created.status, created["location"]) == (201, f"http://127.0.0.1{path}")
        assert (await hub.get("ї/a b")).offset.position == 1
        async with events(port, path) as reader:
            assert data(await reader.take(1)) == [1]


@pytest.mark.parametrize("is_starlettes", [False, True])
async def test_it_works_as_plain_asgi(is_fast: bool, is_starlettes: bool) -> None:
    hub = Hub()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await hub.asgi(scope, receive, send)
            return
        stream = await hub.start("plain", words(), join=True)
        response = stream.response() if is_starlettes else StreamResponse(stream)
        await response(scope, receive, send)

    async with in_process(app, is_fast=is_fast) as port, events(port, "/") as reader:
        *found, end = await reader.rest()
        assert data(found) == WORDS
        assert end.type == "end"


async def test_a_response_after_a_record_just_appended_begins_right_there(is_fast: bool) -> None:
    """Others who are level have not been handed the record yet; that is nobody's gap."""
    hub = Hub()
    stream: list[Stream] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] != "/ask":
            await hub.asgi(scope, receive, send)
            return
        offset = await stream[0].append("question")
        place = "now" if scope["query_string"] else str(offset)
        await stream[0].response(last_event_id=place)(scope, receive, send)

    async with in_process(app, is_fast=is_fast) as port:
        stream.append(await hub.create("talk"))
        async with events(port, "/stream/talk") as level:
            await until(lambda: stream[0].readers == 1)
            async with events(port, "/ask") as one, events(port, "/ask?now") as two:
                await until(lambda: stream[0].readers == 3)
                await stream[0].append("answer")
                assert data(await one.take(2)) == ["question", "answer"]
                assert data(await two.take(1)) == ["answer"]
                assert data(await level.take(3)) == ["question", "question", "answer"]


async def test_without_any_lifespan_a_hub_around_the_server_drains_its_readers(
    is_fast: bool,
) -> None:
    hub = Hub()
    source = Source("one")
    async with in_process(hub.asgi, is_fast=is_fast) as port, hub:
        stream = await hub.start("s", aiter(source))
        async with events(port, "/stream/s") as reader:
            await until(lambda: stream.readers and stream.offset.position)
            await hub.stop()
            *_, last = await reader.rest()
    assert last.type == "drain"
    assert source.is_closed


# what stands around it


class Passing(BaseHTTPMiddleware):
    """A user's middleware of the costly kind: it reads the response from another task."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["x-passed"] = "yes"
        return response


MIDDLEWARE: dict[str, tuple[type[Any], dict[str, Any], tuple[str, str] | None]] = {
    "cors": (
        CORSMiddleware,
        {"allow_origins": ["https://example.com"]},
        ("access-control-allow-origin", "https://example.com"),
    ),
    "gzip": (GZipMiddleware, {"minimum_size": 1}, None),
    "base": (Passing, {}, ("x-passed", "yes")),
}


@pytest.mark.parametrize("name", MIDDLEWARE)
async def test_middleware_changes_no_byte_of_a_stream(is_fast: bool, name: str) -> None:
    middleware, arguments, header = MIDDLEWARE[name]
    hub, plain = Hub(), Hub()
    app = make_app(hub)
    app.add_middleware(middleware, **arguments)
    asking = {"Origin": "https://example.com", "Accept-Encoding": "gzip, br"}
    async with in_process(app, is_fast=is_fast) as port:
        async with events(port, "/chat/1", asking, method="POST", body=b"") as reader:
            await reader.rest()
            assert reader.answer["content-type"] == "text/event-stream"
            assert "content-encoding" not in reader.answer
            if header is not None:
                assert reader.answer[header[0]] == header[1]
        again = await body_of(port, "/v1/stream/chat/1", headers=asking)
    async with in_process(make_app(plain), is_fast=is_fast) as port:
        expected = await body_of(port, "/chat/1", method="POST", body=b"")
    own, other = (
        str((await hub.get("chat/1")).offset)[:5],
        str((await plain.get("chat/1")).offset)[:5],
    )
    untouched = expected.without_preamble.replace(other.encode(), own.encode())
    assert reader.raw.startswith(b": penstock\n\nretry: ")
    assert reader.without_preamble == again.without_preamble == untouched


@pytest.mark.parametrize("name", MIDDLEWARE)
async def test_through_middleware_records_come_at_once_and_a_hang_up_is_noticed(
    is_fast: bool, name: str
) -> None:
    middleware, arguments, _ = MIDDLEWARE[name]
    hub = Hub()
    app = make_app(hub)
    app.add_middleware(middleware, **arguments)
    async with in_process(app, is_fast=is_fast) as port:
        stream = await hub.create("live")
        asking = {"Accept-Encoding": "gzip"}
        async with events(port, "/v1/stream/live", asking) as reader:
            await reader.until(b"retry: ")
            await until(lambda: stream.readers == 1)
            for word in WORDS:
                await stream.append(word)
                assert data(await reader.take(1)) == [word]
            reader.connection.hang_up()
            await until(lambda: stream.readers == 0)


# producers


async def test_a_producer_survives_its_requests_hang_up(is_fast: bool) -> None:
    hub, source = Hub(), Source("first")
    app = make_app(hub)

    @app.post("/slow")
    async def slow():
        return (await hub.start("slow", aiter(source))).response()

    async with in_process(app, is_fast=is_fast) as port:
        async with events(port, "/slow", method="POST", body=b"") as reader:
            assert data(await reader.take(1)) == ["first"]
            reader.connection.hang_up()
            stream = await hub.get("slow")
            await until(lambda: not stream.readers)
        assert stream.is_produced
        source.let_go.set()
        async with events(port, "/v1/stream/slow") as reader:
            *found, end = await reader.rest()
        assert data(found) == ["first", "the rest"]
        assert data([end]) == [{"reason": "complete"}]


async def test_an_unread_producer_is_cancelled_when_its_starter_said_so(is_fast: bool) -> None:
    hub, source = Hub(), Source("first")
    app = make_app(hub)
    async with in_process(app, is_fast=is_fast) as port:
        stream = await hub.start("short", aiter(source), cancel_unread_after_s=0.5)
        async with events(port, "/v1/stream/short") as reader:
            assert data(await reader.take(1)) == ["first"]
            # Read, it goes on for longer than that.
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.7):
                    await reader.more()
            assert stream.is_produced
        await until(lambda: source.is_closed)
        assert stream.end is EndReason.CANCELLED


async def test_a_producer_that_nobody_ever_reads_is_cancelled_too() -> None:
    source = Source("first")
    async with Hub() as hub:
        stream = await hub.start("unread", aiter(source), cancel_unread_after_s=0.05)
        await until(lambda: source.is_closed)
        assert stream.end is EndReason.CANCELLED


async def test_a_second_start_of_a_name_is_an_error_and_its_source_is_closed_unread() -> None:
    async with Hub() as hub:
        await hub.start("one", aiter(Source("first")))
        second = Unstarted()
        with pytest.raises(StreamExists, match="'one'"):
            await hub.start("one", second)
        assert second.is_closed
        assert not second.is_iterated


async def test_join_gives_the_stream_that_is_there_and_never_iterates_the_second_source() -> None:
    async with Hub() as hub:
        first = await hub.start("one", aiter(Source("first")), join=True)
        second = Unstarted()
        assert await hub.start("one", second, join=True) is first
        assert second.is_closed
        assert not second.is_iterated
        assert first.is_produced


async def test_a_source_that_raises_ends_its_stream_failed_and_shows_nothing_of_it(
    is_fast: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken() -> AsyncIterator[str]:
        yield "fine so far"
        raise RuntimeError("the key is s3cret")

    hub = Hub()
    async with in_process(make_app(hub), is_fast=is_fast) as port:
        await hub.start("broken", broken())
        async with events(port, "/v1/stream/broken") as reader:
            record, end = await reader.rest()
    assert data([record, end]) == ["fine so far", {"reason": "failed"}]
    assert b"s3cret" not in reader.raw
    assert b"RuntimeError" not in reader.raw
    (logged,) = [entry for entry in caplog.records if entry.levelno >= logging.ERROR]
    assert "'broken'" in logged.getMessage()
    assert logged.exc_info is not None


async def test_a_source_that_ignores_its_cancellation_holds_up_nobody(
    is_fast: bool, caplog: pytest.LogCaptureFixture
) -> None:
    let_go = asyncio.Event()

    async def stubborn() -> AsyncIterator[str]:
        yield "mine"
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue
        yield "too late"

    hub = Hub(cancel_s=0.05)
    async with in_process(make_app(hub), is_fast=is_fast) as port:
        stream = await hub.start("stubborn", stubborn())
        async with events(port, "/v1/stream/stubborn") as reader:
            await reader.take(1)
            assert await stream.cancel()
            (end,) = await reader.rest()
            assert data([end]) == [{"reason": "cancelled"}]
        assert "ignores its cancellation" in caplog.text
        let_go.set()
        await until(lambda: not stream.is_produced)
        # What it said afterwards is in nobody's log.
        assert stream.head.records == 1


async def test_a_source_can_yield_records_with_types_and_keys() -> None:
    async def typed() -> AsyncIterator[str | NewRecord]:
        yield NewRecord(b'"hi"', "token", "k")
        yield "plain"

    async with Hub() as hub:
        stream = await hub.start(None, typed())
        await until(lambda: stream.end)
        first, second = await hub.backend.read(stream.name, 0, 10, 1000)
    assert (first.type, first.key, first.payload) == ("token", "k", b'"hi"')
    assert second.payload == b'"plain"'
    assert len(stream.name) >= 22  # unguessable: 128 bits
