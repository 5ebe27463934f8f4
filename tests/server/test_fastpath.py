"""Taking over: when a response's transport is taken, when it is not, and what is left then.

Each condition is a test of its own, with a real uvicorn and raw sockets, on both event loops. What
must hold of the transport itself (pauses, closing, aborting) is tried on one whose peer reads only
when told to, where every interleaving can be had.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import ssl
import sys
import weakref
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httptools
import pytest
import trustme

from inprocess import HeldTransport, served, serving, turns, until, wrap_send
from penstock.core import limits
from penstock.core.subscription import Subscription
from penstock.server.app import ServerApp
from penstock.server.asgi import Message, Receive, Scope, Send
from penstock.server.fastpath import EXTENSION, Offer, Protocol, Writer
from penstock.server.hub import Hub, Stream
from raw_http import Connection, EventReader, connect, events

REQUEST = b"GET /v1/stream/a?live=events HTTP/1.1\r\nHost: localhost\r\n\r\n"
GONE_WITHIN_S = 1.0


@pytest.fixture
async def hub() -> Hub:
    return Hub()


def readers(hub: Hub) -> tuple[int, int]:
    """Open readers: by the fast path, by the portable one."""
    now = hub.snapshot()
    return now.readers_fast, now.readers_portable


def the_writer(hub: Hub) -> Writer:
    (reader,) = hub._readers
    assert isinstance(reader, Writer)
    return reader


async def opened(reader: EventReader) -> None:
    """Wait until the server has begun to stream."""
    await reader.until(b"retry:")


async def assert_portable(hub: Hub, connection: Connection) -> EventReader:
    """The response on this connection is streamed by the portable path, and carries records."""
    reader = EventReader(connection, await connection.head())
    await opened(reader)
    assert readers(hub) == (0, 1)
    await (await hub.get("a")).append(1)
    assert (await reader.next()).data == "1"
    return reader


# --- which requests are taken -------------------------------------------------------------------


async def test_a_get_is_taken_over(hub: Hub) -> None:
    async with serving(hub) as server:
        stream = await hub.create("a")
        async with events(server.port, "/v1/stream/a") as reader:
            await opened(reader)
            assert readers(hub) == (1, 0)
            await stream.append("x")
            assert (await reader.next()).data == '"x"'


async def test_a_post_whose_body_was_read_is_taken_over(hub: Hub) -> None:
    stream = await hub.create("a")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["body"] == b"prompt"
        await stream.response()(scope, receive, send)

    async with (
        hub,
        served(app) as server,
        events(server.port, "/", method="POST", body=b"prompt") as reader,
    ):
        await opened(reader)
        assert readers(hub) == (1, 0)
        await stream.append(1)
        assert (await reader.next()).data == "1"


async def test_a_post_whose_body_is_still_coming_is_not(hub: Hub) -> None:
    stream = await hub.create("a")
    async with hub, served(stream.response()) as server, connect(server.port) as connection:
        await connection.send("POST", "/", {"Content-Length": "10"})
        await connection.send_raw(b"12345")
        await assert_portable(hub, connection)
        await connection.send_raw(b"67890")


async def test_head_is_answered_without_a_reader_and_keeps_its_connection(hub: Hub) -> None:
    async with serving(hub) as server, connect(server.port) as connection:
        await hub.create("a")
        for _ in range(2):
            answer = await connection.ask("HEAD", "/v1/stream/a", {"Accept": "text/event-stream"})
            assert answer.status == 200
            assert answer["content-type"] == "text/event-stream"
            assert readers(hub) == (0, 0)


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("HEAD", [(b"connection", b"close")]),
        ("PUT", [(b"connection", b"close")]),
        ("GET", []),  # the connection would be kept
        ("GET", [(b"connection", b"close"), (b"content-length", b"4")]),
    ],
    ids=["head", "put", "keep-alive", "length"],
)
async def test_an_offer_refuses_what_is_not_a_stream(
    method: str, headers: list[tuple[bytes, bytes]]
) -> None:
    answers: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        answers.append(scope["extensions"][EXTENSION].take_over())
        await send({"type": "http.response.body", "body": b"done", "more_body": False})

    async with served(app) as server, connect(server.port) as connection:
        await connection.send(method, "/", body=b"" if method == "PUT" else None)
        await connection.head(method)
        assert await connection.body() == (b"" if method == "HEAD" else b"done")
    assert answers == [None]


async def test_an_offer_refuses_before_the_head_is_sent_and_after_the_response() -> None:
    answers: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        offer: Offer = scope["extensions"][EXTENSION]
        if scope["path"] == "/early":
            answers.append(offer.take_over())
        head = [(b"connection", b"close")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": b"done", "more_body": False})
        if scope["path"] == "/late":
            answers.append(offer.take_over())

    async with served(app) as server:
        for path in ("/early", "/late"):
            async with connect(server.port) as connection:
                assert (await connection.ask("GET", path)).body == b"done"
    assert answers == [None, None]


async def test_an_offer_is_good_once(hub: Hub) -> None:
    stream = await hub.create("a")
    again: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await stream.response()(scope, receive, send)
        again.append(scope["extensions"][EXTENSION].take_over())

    async with hub, served(app) as server, events(server.port, "/") as reader:
        await opened(reader)
        assert readers(hub) == (1, 0)
        assert again == [None]


async def test_http_1_0_is_portable_and_framed_by_its_close(hub: Hub) -> None:
    async with serving(hub) as server, connect(server.port) as connection:
        stream = await hub.create("a")
        await connection.send("GET", "/v1/stream/a?live=events", version="1.0")
        answer = await connection.head()
        assert "transfer-encoding" not in answer
        assert "content-length" not in answer
        reader = EventReader(connection, answer)
        await opened(reader)
        assert readers(hub) == (0, 1)
        await stream.append(7)
        assert (await reader.next()).data == "7"
        await stream.close()
        assert [event.type for event in await reader.rest()] == ["end"]
        assert reader.raw.startswith(b": penstock\n\n")
        await until(lambda: readers(hub) == (0, 0))


async def test_http_1_0_may_ask_to_keep_its_connection_and_still_gets_identity(hub: Hub) -> None:
    async with serving(hub) as server, connect(server.port) as connection:
        stream = await hub.create("a")
        target = "/v1/stream/a?live=events"
        await connection.send("GET", target, {"Connection": "keep-alive"}, version="1.0")
        answer = await connection.head()
        assert "transfer-encoding" not in answer
        await stream.close()
        assert [event.type for event in await EventReader(connection, answer).rest()] == ["end"]


async def test_a_request_with_another_behind_it_is_portable_and_ends_whole(hub: Hub) -> None:
    """The head said `Connection: close`, so the second is not answered (RFC 9112 9.6)."""
    async with serving(hub) as server, connect(server.port) as connection:
        stream = await hub.create("a")
        second = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        await connection.send_raw(REQUEST + second)
        reader = await assert_portable(hub, connection)
        assert reader.answer["connection"] == "close"
        await stream.close()
        assert [event.type for event in await reader.rest()] == ["end"]
        assert await connection.is_closed()


async def test_a_request_behind_an_ordinary_one_is_answered_and_taken_over(hub: Hub) -> None:
    async with serving(hub) as server, connect(server.port) as connection:
        await hub.create("a")
        first = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        await connection.send_raw(first + REQUEST)
        assert (await connection.head()).status == 200
        assert await connection.body() == b"ok\n"
        await opened(EventReader(connection, await connection.head()))
        assert readers(hub) == (1, 0)


async def test_a_request_with_part_of_another_behind_it_is_portable(hub: Hub) -> None:
    async with serving(hub) as server, connect(server.port) as connection:
        stream = await hub.create("a")
        await connection.send_raw(REQUEST + b"GET /healthz HT")
        reader = await assert_portable(hub, connection)
        await stream.close()
        assert [event.type for event in await reader.rest()] == ["end"]


@pytest.mark.parametrize("rubbish", [b"GET /healthz HT", b"?? no request\r\n\r\n"])
async def test_nothing_foreign_is_written_into_a_running_response(hub: Hub, rubbish: bytes) -> None:
    """Neither `408` for half a request nor `400` for a broken one is a part of the first's body."""
    async with serving(hub, bounds={"header_s": 0.1}) as server, connect(server.port) as connection:
        await hub.create("a")
        await connection.send_raw(REQUEST + rubbish)
        async with asyncio.timeout(10):
            everything = await connection.reader.read()
        assert everything.count(b"HTTP/1.1 ") <= 1
        await until(lambda: readers(hub) == (0, 0))


# --- what stands between ------------------------------------------------------------------------


async def test_middleware_that_holds_the_head_back_makes_it_portable(hub: Hub) -> None:
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.routing import Mount

    async def dispatch(request: Any, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["x-seen"] = "yes"
        return response

    app = Starlette(
        routes=[Mount("/v1", app=hub.asgi)],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=dispatch)],
    )
    async with hub, served(app) as server, connect(server.port) as connection:
        await hub.create("a")
        await connection.send_raw(REQUEST)
        reader = await assert_portable(hub, connection)
        assert reader.answer["x-seen"] == "yes"
        connection.hang_up()
        await until(lambda: readers(hub) == (0, 0))


async def test_middleware_that_adds_headers_does_not_stand_in_the_way(hub: Hub) -> None:
    async def add(message: Message, send: Send) -> None:
        if message["type"] == "http.response.start":
            message["headers"].append((b"x-seen", b"yes"))
        await send(message)

    async with hub, served(wrap_send(ServerApp(hub), add)) as server:
        await hub.create("a")
        async with events(server.port, "/v1/stream/a") as reader:
            await opened(reader)
            assert reader.answer["x-seen"] == "yes"
            assert readers(hub) == (1, 0)


async def test_middleware_that_sets_a_length_makes_it_portable(hub: Hub) -> None:
    async def add(message: Message, send: Send) -> None:
        if message["type"] == "http.response.start":
            message["headers"].append((b"content-length", b"100000"))
        await send(message)

    async with hub, served(wrap_send(ServerApp(hub), add)) as server:
        await hub.create("a")
        async with connect(server.port) as connection:
            await connection.send_raw(REQUEST)
            await assert_portable(hub, connection)
        await until(lambda: readers(hub) == (0, 0))


@pytest.mark.parametrize("http", ["httptools", "h11"])
async def test_a_server_that_offers_nothing_serves_portably(hub: Hub, http: str) -> None:
    async with serving(hub, http=http) as server, connect(server.port) as connection:
        stream = await hub.create("a")
        await connection.send_raw(REQUEST)
        reader = await assert_portable(hub, connection)
        await stream.close()
        assert [event.type for event in await reader.rest()] == ["end"]


# --- what the response says ---------------------------------------------------------------------


async def test_the_end_is_the_last_chunk_and_a_close(hub: Hub) -> None:
    async with serving(hub) as server, connect(server.port) as connection:
        stream = await hub.create("a")
        await connection.send_raw(REQUEST)
        head = await connection.head()
        assert head["connection"] == "close"
        assert head["transfer-encoding"] == "chunked"
        await stream.append(1)
        await stream.close()
        reader = EventReader(connection, head)
        # `rest` reads up to the chunk of length 0; anything else in its place would fail.
        assert [event.type for event in await reader.rest()] == ["message", "end"]
        assert await connection.is_closed()


async def test_a_level_reader_sees_each_record_once_up_to_the_end(hub: Hub) -> None:
    async with serving(hub) as server:
        stream = await hub.create("a")
        async with events(server.port, "/v1/stream/a") as reader:
            await opened(reader)
            for number in range(5):
                await stream.append(number)
                assert (await reader.next()).data == str(number)
            await stream.close()
            assert [event.type for event in await reader.rest()] == ["end"]


async def test_the_socket_holds_little_that_was_not_sent(hub: Hub) -> None:
    if not hasattr(socket, "TCP_NOTSENT_LOWAT"):
        pytest.skip("this system has no TCP_NOTSENT_LOWAT: nothing to set")
    async with serving(hub) as server:
        await hub.create("a")
        async with events(server.port, "/v1/stream/a") as reader:
            await opened(reader)
            raw = the_writer(hub).transport.get_extra_info("socket")
            with socket.socket(fileno=os.dup(raw.fileno())) as same:
                value = same.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
            assert value == limits.NOTSENT_LOWAT_BYTES


# --- what is left behind ------------------------------------------------------------------------


class Token:
    """Something a weak reference can be had of, put where the scope is."""


async def test_parser_cycle_scope_and_protocol_are_let_go(hub: Hub) -> None:
    left: list[weakref.ref[Any]] = []
    inner = ServerApp(hub)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        token = Token()
        scope["state"]["token"] = token
        left.extend([weakref.ref(token), weakref.ref(receive.__self__)])  # type: ignore[attr-defined]
        del token
        await inner(scope, receive, send)

    async with hub, served(app) as server:
        await hub.create("a")
        gc.collect()
        parsers = _parsers()
        async with events(server.port, "/v1/stream/a") as reader:
            await opened(reader)
            await turns()
            gc.collect()
            assert [what() for what in (*left, *server.made)] == [None] * 3
            assert _parsers() == parsers
            assert not server.server.server_state.tasks


def _parsers() -> int:
    return sum(type(thing) is httptools.HttpRequestParser for thing in gc.get_objects())


async def test_uvicorn_has_no_connection_and_no_timer_left(hub: Hub) -> None:
    async with serving(hub) as server, connect(server.port) as connection:
        await hub.create("a")
        # The keep-alive timer is armed by a response before this one.
        assert (await connection.ask("GET", "/healthz")).status == 200
        (protocol,) = server.connections
        assert protocol.timeout_keep_alive_task is not None
        timer = protocol.timeout_keep_alive_task
        await connection.send_raw(REQUEST)
        await opened(EventReader(connection, await connection.head()))
        assert readers(hub) == (1, 0)
        assert server.connections == set()
        assert timer.cancelled()
        assert protocol.timeout_keep_alive_task is None
        assert protocol._head_timer is None
        assert protocol.parser is protocol.cycle is protocol.scope is None


async def test_the_server_stops_without_waiting_for_a_taken_reader(hub: Hub) -> None:
    async with serving(hub) as server:
        await hub.create("a")
        async with events(server.port, "/v1/stream/a") as reader:
            await opened(reader)
            server.server.should_exit = True
            await until(lambda: not server.server.servers[0].is_serving())
            assert readers(hub) == (1, 0)


# --- hang-ups and what the client still sends ---------------------------------------------------


@pytest.mark.parametrize("how", ["reset", "close", "half-close"])
async def test_a_hang_up_is_noticed_at_once(hub: Hub, how: str) -> None:
    async with serving(hub) as server, connect(server.port) as connection:
        await hub.create("a")
        await connection.send_raw(REQUEST)
        await opened(EventReader(connection, await connection.head()))
        assert readers(hub) == (1, 0)
        if how == "reset":
            connection.hang_up()
        elif how == "close":
            connection.writer.close()
        else:
            connection.writer.write_eof()
        await until(lambda: readers(hub) == (0, 0), GONE_WITHIN_S)
        assert b'penstock_reader_ends_total{reason="gone"} 1.0' in hub.hooks.text()  # type: ignore[attr-defined]


async def test_what_a_client_sends_after_its_request_is_read_and_dropped(hub: Hub) -> None:
    async with serving(hub) as server, connect(server.port) as connection:
        stream = await hub.create("a")
        await connection.send_raw(REQUEST)
        reader = EventReader(connection, await connection.head())
        await opened(reader)
        writer = the_writer(hub)
        size = sys.getsizeof(writer)
        for _ in range(80):
            await connection.send_raw(b"GET / HTTP/1.1\r\n" * 4096)
        await until(lambda: not connection.writer.transport.get_write_buffer_size())
        assert sys.getsizeof(writer) == size
        assert not hasattr(writer, "__dict__")
        await stream.append(1)
        assert (await reader.next()).data == "1"


# --- pressure -----------------------------------------------------------------------------------


RECORD = b'"' + b"x" * 32_000 + b'"'
MANY = 400  # 12.8 MB: more than the kernel takes for a reader that does not read


async def fill(stream: Stream, count: int = MANY) -> None:
    for _ in range(count):
        await stream.append(RECORD)
        await turns(1)


async def test_a_reader_that_does_not_read_is_paused_and_loses_nothing(hub: Hub) -> None:
    async with serving(hub) as server:
        stream = await hub.create("a")
        async with events(server.port, "/v1/stream/a", receive_buffer=65536) as reader:
            await opened(reader)
            await fill(stream)
            writer = the_writer(hub)
            assert writer.is_paused
            assert writer not in writer.view.live
            most = limits.WRITE_HIGH_WATER_BYTES + limits.WRITE_BYTES + 1024
            assert writer.transport.get_write_buffer_size() <= most
            assert writer.lag
            await stream.close()
            got = await reader.rest()
            assert [event.type for event in got] == ["message"] * MANY + ["end"]
            assert len({event.last_event_id for event in got}) == MANY + 1


async def test_a_transport_that_is_full_at_the_take_over_is_paused_at_once(hub: Hub) -> None:
    """Middleware wrote more than the transport takes, before the hub had it."""
    foreword = b":" + b"x" * 8_000_000 + b"\n\n"

    async def add(message: Message, send: Send) -> None:
        await send(message)
        if message["type"] == "http.response.start":
            await send({"type": "http.response.body", "body": foreword, "more_body": True})

    async with hub, served(wrap_send(ServerApp(hub), add)) as server:
        stream = await hub.create("a")
        await stream.append(RECORD)
        async with events(server.port, "/v1/stream/a", receive_buffer=65536) as reader:
            await until(lambda: readers(hub) == (1, 0))
            writer = the_writer(hub)
            assert writer.is_paused
            assert writer in hub._paused
            held = writer.transport.get_write_buffer_size()
            await fill(stream, 20)
            assert writer.transport.get_write_buffer_size() <= held
            await stream.close()
            assert [e.type for e in await reader.rest()] == ["message"] * 21 + ["end"]


# --- TLS ----------------------------------------------------------------------------------------


@asynccontextmanager
async def tls(hub: Hub) -> AsyncGenerator[tuple[Connection, EventReader]]:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    client = ssl.create_default_context()
    authority.configure_trust(client)

    def make_context(*_: object) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        return context

    async with serving(hub, ssl_context_factory=make_context) as server:
        await hub.create("a")
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", server.port, ssl=client, server_hostname="localhost", limit=65536
        )
        try:
            connection = Connection(reader, writer)
            await connection.send_raw(REQUEST)
            stream = EventReader(connection, await connection.head())
            await opened(stream)
            yield connection, stream
        finally:
            writer.transport.abort()


async def test_over_tls_it_is_taken_over_too(hub: Hub) -> None:
    async with tls(hub) as (connection, reader):
        assert readers(hub) == (1, 0)
        await (await hub.get("a")).append(1)
        assert (await reader.next()).data == "1"
        await (await hub.get("a")).close()
        assert [event.type for event in await reader.rest()] == ["end"]
        assert await connection.is_closed()


async def test_over_tls_a_hang_up_is_noticed_at_once(hub: Hub) -> None:
    async with tls(hub) as (connection, _):
        connection.hang_up()
        await until(lambda: readers(hub) == (0, 0), GONE_WITHIN_S)


async def test_over_tls_a_reader_that_does_not_read_is_paused_and_loses_nothing(hub: Hub) -> None:
    async with tls(hub) as (_, reader):
        stream = await hub.get("a")
        await fill(stream)
        assert the_writer(hub).is_paused
        await stream.close()
        got = await reader.rest()
        assert [event.type for event in got] == ["message"] * MANY + ["end"]
        assert len({event.last_event_id for event in got}) == MANY + 1


# --- the writer on a transport that is held -----------------------------------------------------


async def begun(
    hub: Hub, transport: HeldTransport, place: int = 0, *, was_paused: bool = False
) -> Writer:
    stream = await hub.create("a")
    writer = Writer(stream, stream.view(), Subscription(place), transport, opened_at=0.0)
    writer.begin(b": hello\n\n", was_paused=was_paused)
    return writer


async def test_a_pause_from_before_counts_although_the_buffer_is_below_its_mark(hub: Hub) -> None:
    """The transport does not tell a pause twice: what is written meanwhile would be unbounded."""
    stream = await hub.create("a")
    for _ in range(100):
        await stream.append(RECORD)
    transport = HeldTransport()
    transport._paused, transport.buffer = True, bytearray(b"1\r\n:\r\n" * 6_000)
    writer = await begun(hub, transport, was_paused=True)
    await turns(50)
    assert writer.is_paused
    assert transport.get_write_buffer_size() < transport.high
    for _ in range(100):
        transport.take(400_000)
        await turns(2)
    assert len(transport.events) == 100


async def test_a_resume_before_the_view_noticed_the_pause_repeats_nothing(hub: Hub) -> None:
    """Paused and resumed while it is in the loop of the view: it stays there, and level."""
    transport = HeldTransport()
    writer = await begun(hub, transport)
    stream = await hub.get("a")
    await stream.append(1)
    await turns()
    writer.pause_writing()
    assert writer in writer.view.live
    writer.resume_writing()
    assert writer in writer.view.live
    await stream.append(2)
    await turns()
    await stream.close()
    await turns()
    transport.take()
    assert [event.data for event in transport.events[:2]] == ["1", "2"]
    assert len(transport.events) == 3


async def test_a_turn_that_was_waited_for_does_nothing_once_the_reader_is_level(hub: Hub) -> None:
    stream = await hub.create("a")
    for _ in range(40):
        await stream.append(RECORD)
    transport = HeldTransport(high=1 << 30)
    writer = await begun(hub, transport)  # four slices, and the rest in the next turn
    assert writer not in writer.view.live
    while writer not in writer.view.live:
        writer._pump()  # a resume that comes first brings it level
    await stream.append(b"1")
    hub._flush()
    await turns(5)  # the turn that was waited for
    transport.take()
    assert len(transport.events) == 41


async def test_the_end_while_paused_is_told_after_the_resume(hub: Hub) -> None:
    transport = HeldTransport()
    writer = await begun(hub, transport)
    stream = await hub.get("a")
    await stream.append(b'"' + b"y" * 100_000 + b'"')
    await turns()
    assert writer.is_paused
    await stream.append(1)
    await stream.close()
    await turns()
    assert not transport.is_closing()
    for _ in range(5):
        transport.take()
        await turns()
    assert [event.type for event in transport.events] == ["message", "message", "end"]
    assert readers(hub) == (0, 0)


async def test_a_pause_the_view_has_not_noticed_keeps_its_place_at_the_end(hub: Hub) -> None:
    transport = HeldTransport()
    writer = await begun(hub, transport)
    stream = await hub.get("a")
    await stream.append(1)
    await turns()
    writer.pause_writing()  # as TLS may, of its own accord
    await stream.close()
    await turns()
    writer.resume_writing()
    await turns()
    transport.take()
    assert [event.type for event in transport.events] == ["message", "end"]


async def test_a_drain_while_paused_is_the_last_thing_said(hub: Hub) -> None:
    transport = HeldTransport()
    writer = await begun(hub, transport)
    await (await hub.get("a")).append(b'"' + b"y" * 100_000 + b'"')
    await turns()
    assert writer.is_paused
    writer.drain(500)
    writer.drain(500)
    assert transport.is_closing()
    await (await hub.get("a")).append(2)
    await turns()
    transport.take()
    await turns()
    assert [event.type for event in transport.events] == ["message", "drain"]
    assert bytes(transport.taken).endswith(b"\r\n0\r\n\r\n")
    assert readers(hub) == (0, 0)


async def test_a_closing_transport_that_takes_nothing_more_is_cut_in_the_end(hub: Hub) -> None:
    transport = HeldTransport()
    writer = await begun(hub, transport)
    stream = await hub.get("a")
    await stream.append(b'"' + b"y" * 100_000 + b'"')
    await turns()
    writer.drain(500)
    transport.take(90_000)  # below the low-water mark: resumed, and then stuck for good
    assert transport.buffer
    await hub.tick(hub.clock() + hub.settings.stall_s + 1)
    await turns()
    assert transport.aborted
    assert readers(hub) == (0, 0)


async def test_aborting_twice_closes_once(hub: Hub) -> None:
    transport = HeldTransport()
    writer = await begun(hub, transport)
    writer.abort()
    writer.abort()
    await turns()
    assert readers(hub) == (0, 0)
    assert (await hub.get("a")).readers == 0
    assert writer not in writer.view.live


async def test_a_connection_lost_between_two_slices_ends_the_catch_up(hub: Hub) -> None:
    stream = await hub.create("a")
    for _ in range(100):
        await stream.append(RECORD)
    transport = HeldTransport(high=1 << 30)
    await begun(hub, transport)
    written = len(transport.writes)
    transport.hang_up()
    await turns(20)
    assert len(transport.writes) == written
    assert readers(hub) == (0, 0)


async def test_a_heartbeat_that_pauses_a_reader_leaves_it_its_place(hub: Hub) -> None:
    transport = HeldTransport(high=30)
    writer = await begun(hub, transport)
    transport.take()
    stream = await hub.get("a")
    await stream.append(1)
    await turns()
    transport.take()
    for _ in range(5):
        writer.view.heartbeat(hub.clock())
    assert writer.is_paused
    assert writer not in writer.view.live
    await stream.append(2)
    await turns()
    await stream.close()
    for _ in range(5):
        await turns()
        transport.take()
    assert [event.type for event in transport.events] == ["message", "message", "end"]


def test_the_protocol_can_be_named_on_uvicorns_command_line() -> None:
    from uvicorn.importer import import_from_string

    assert import_from_string("penstock.server.fastpath:Protocol") is Protocol
