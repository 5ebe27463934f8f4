"""The lane: an append answered below ASGI is answered as above it, byte for byte but for the date.

Each request goes to two servers that differ in nothing but the lane; what they answer and what
their streams hold afterwards is compared. What only one of them has to bear (hang-ups, commits that
take long, clients that never read) is tried with a store whose answers wait at a gate.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from inprocess import Clock, HeldStore, Served, serving, turns, until
from penstock.backends.interface import Backend, Fork, StreamConfig
from penstock.backends.memory import MemoryBackend
from penstock.backends.sqlite import SqliteBackend
from penstock.core.errors import StreamNotFound
from penstock.server.app import ServerApp
from penstock.server.config import make_settings
from penstock.server.hub import Hub
from penstock.server.lane import Lane, Request
from penstock.server.serve import make_server
from penstock.wire import http
from raw_http import ask, connect

pytestmark = pytest.mark.asyncio(loop_scope="module")
MAX_BODY, MAX_RECORD = 30_000, 2000
LINE_END = b"\r\n"


class Counting(Lane):
    """A lane that keeps what it took."""

    def __init__(self, hub: Hub) -> None:
        super().__init__(hub)
        self.taken: list[Request] = []

    def take(self, url: bytes, headers: http.Headers, *, is_kept: bool) -> Request | None:
        request = super().take(url, headers, is_kept=is_kept)
        if request is not None:
            self.taken.append(request)
        return request


@dataclass(slots=True)
class Side:
    """A hub that is served, with the lane or without."""

    hub: Hub
    server: Served
    lane: Counting | None

    async def talk(self, *segments: bytes, answers: int = 1) -> list[bytes]:
        """Send segments one after the other, and give so many whole answers."""
        async with connect(self.server.port) as connection:
            for segment in segments:
                await connection.send_raw(segment)
                if len(segments) > 1:
                    await turns(4)
            return [_undated(await connection.raw_answer()) for _ in range(answers)]

    async def held(self) -> list[Any]:
        """What the streams hold."""
        backend = self.hub.backend
        return [
            (
                name,
                await backend.head(name),
                [r[1:4] for r in await backend.read(name, 0, 999, 1 << 30)],
            )
            for name in ("a", "text", "binary", "ended")
        ]


@dataclass(slots=True)
class Both:
    laned: Side
    plain: Side

    async def assert_alike(
        self, *segments: bytes, answers: int = 1, taken: int | None = None
    ) -> list[bytes]:
        """Both answer the same and hold the same; `taken` requests went by the lane."""
        assert self.laned.lane is not None
        before = len(self.laned.lane.taken)
        by_lane = await self.laned.talk(*segments, answers=answers)
        by_asgi = await self.plain.talk(*segments, answers=answers)
        assert by_lane == by_asgi
        assert await self.laned.held() == await self.plain.held()
        if taken is not None:
            assert len(self.laned.lane.taken) - before == taken
        return by_lane


def _undated(answer: bytes) -> bytes:
    return re.sub(rb"\r\ndate: [^\r]+", b"\r\ndate: -", answer)


async def for_ever() -> AsyncIterator[int]:
    await asyncio.Event().wait()
    yield 0


async def _fill(hub: Hub) -> None:
    for name in ("a", "text", "binary", "ended", "fork", "produced"):
        with suppress(StreamNotFound):
            await hub.delete(name)
    for name, content_type in (
        ("a", "application/json"),
        ("text", "text/plain"),
        ("binary", "application/octet-stream"),
        ("ended", "application/json"),
        ("gone", "application/json"),
    ):
        await hub.create(name, content_type=content_type)
    await (await hub.get("ended")).close()
    await hub.create_or_get("fork", StreamConfig(fork=Fork(source="gone")))
    await hub.delete("gone")
    await hub.start("produced", for_ever())


@asynccontextmanager
async def side_of(backend: Backend, *, with_lane: bool, **options: Any) -> AsyncGenerator[Side]:
    settings: dict[str, Any] = {"max_body_bytes": MAX_BODY, "max_record_bytes": MAX_RECORD}
    settings |= {"allowed_origins": ("https://page.example",)} | options
    hub = Hub(backend, **settings)
    lane = Counting(hub) if with_lane else None
    async with serving(hub, bounds={"lane": lane}, server_header=False) as server:
        yield Side(hub, server, lane)


@pytest_asyncio.fixture(params=["memory", "sqlite"], scope="module", loop_scope="module")
async def sides(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Both]:
    directory = tmp_path_factory.mktemp("lane")

    def make(name: str) -> Backend:
        clock = Clock()
        if request.param == "memory":
            return MemoryBackend(clock=clock, wall_clock=clock)
        return SqliteBackend(str(directory / f"{name}.db"), wall_clock=clock)

    async with AsyncExitStack() as stack:
        laned, plain = [
            await stack.enter_async_context(side_of(make(name), with_lane=name == "lane"))
            for name in ("lane", "asgi")
        ]
        yield Both(laned, plain)


@pytest_asyncio.fixture(loop_scope="module")
async def both(sides: Both) -> Both:
    """The same servers for all tests, since each takes long to stop; with streams of their own."""
    for side in (sides.laned, sides.plain):
        await _fill(side.hub)
    return sides


def post(
    body: bytes = b"1",
    *headers: bytes,
    path: bytes = b"/v1/stream/a",
    content_type: bytes | None = b"application/json",
    host: bytes | None = b"127.0.0.1",
    version: bytes = b"1.1",
    length: bool = True,
) -> bytes:
    lines = [b"POST %b HTTP/%b" % (path, version)]
    if host is not None:
        lines.append(b"Host: " + host)
    if content_type is not None:
        lines.append(b"Content-Type: " + content_type)
    if length:
        lines.append(b"Content-Length: %d" % len(body))
    return LINE_END.join([*lines, *headers, b"", body])


def chunked(*parts: bytes, trailer: bytes = b"", extension: bytes = b"") -> bytes:
    chunks = [b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part in parts]
    body = b"".join(chunks) + b"0\r\n" + trailer + b"\r\n"
    return post(body, b"Transfer-Encoding: chunked", length=False)


def stamped(producer: bytes, epoch: int, seq: int, *headers: bytes, body: bytes = b"1") -> bytes:
    stamp = (b"Producer-Id: " + producer, b"Producer-Epoch: %d" % epoch, b"Producer-Seq: %d" % seq)
    return post(body, *stamp, *headers)


GET = b"GET /v1/stream/a HTTP/1.1\r\nHost: localhost\r\n\r\n"

TAKEN: dict[str, tuple[int, Sequence[bytes]]] = {
    "one": (204, [post(b'{"n":1}')]),
    "batch": (204, [post(b' [1, "two",\r\n{"n":3}] ')]),
    "a name that is written otherwise": (204, [post(path=b"/v1/stream/%61")]),
    "text": (204, [post("é\r\n".encode(), path=b"/v1/stream/text", content_type=b"text/plain")]),
    "text with a charset": (
        204,
        [post(b"x", path=b"/v1/stream/text", content_type=b"Text/Plain; charset=utf-8")],
    ),
    "binary": (
        204,
        [post(b"\0\xff", path=b"/v1/stream/binary", content_type=b"application/octet-stream")],
    ),
    "type and key": (204, [post(b"1", "Record-Type: tökén".encode(), b"Record-Key:  k \t")]),
    "host with a port": (204, [post(host=b"localhost:4437")]),
    "host of six": (204, [post(host=b"[::1]:80")]),
    "closing": (204, [post(b"[1,2]", b"Stream-Closed: TRUE")]),
    "closing without records": (204, [post(b"", b"Stream-Closed: true", content_type=None)]),
    "not closing": (204, [post(b"1", b"Stream-Closed: false")]),
    "closing what has ended": (
        204,
        [post(b"", b"Stream-Closed: true", path=b"/v1/stream/ended", content_type=None)],
    ),
    "in sequence": (204, [post(b"1", b"Stream-Seq: b"), post(b"2", b"Stream-Seq: c")]),
    "out of sequence": (409, [post(b"1", b"Stream-Seq: b"), post(b"2", b"Stream-Seq: b")]),
    "stamped": (200, [stamped(b"p", 0, 0), stamped(b"p", 0, 1)]),
    "stamped again": (204, [stamped(b"p", 0, 0), stamped(b"p", 0, 0)]),
    "stamped with a gap": (409, [stamped(b"p", 0, 0), stamped(b"p", 0, 7)]),
    "stamped and fenced": (403, [stamped(b"p", 3, 0), stamped(b"p", 2, 0)]),
    "stamped in a new epoch that begins late": (400, [stamped(b"p", 0, 0), stamped(b"p", 1, 4)]),
    "stamped and closing": (200, [stamped(b"p", 0, 0, b"Stream-Closed: true")]),
    "stamped again after the end": (
        204,
        [stamped(b"p", 0, 0, b"Stream-Closed: true"), stamped(b"p", 0, 0)],
    ),
    "stamped after the end": (
        409,
        [stamped(b"p", 0, 0, b"Stream-Closed: true"), stamped(b"q", 0, 0)],
    ),
    "stamped close without records": (
        204,
        [stamped(b"p", 0, 0, b"Stream-Closed: true", body=b"")],
    ),
    "half a stamp": (400, [post(b"1", b"Producer-Id: p")]),
    "a stamp of no numbers": (400, [post(b"1", b"Producer-Id: p", b"Producer-Epoch: x")]),
    "nothing": (400, [post(b"")]),
    "nothing, to what has ended": (400, [post(b"", path=b"/v1/stream/ended")]),
    "broken json": (400, [post(b'[1,2,{"n":]')]),
    "no json within": (400, [post(b"[1,2] 3")]),
    "an empty array": (400, [post(b" [ ] ")]),
    "no utf-8": (400, [post(b'"\xff"')]),
    "no content type": (400, [post(content_type=None)]),
    "another content type": (409, [post(content_type=b"text/plain")]),
    "a malformed content type": (400, [post(content_type=b"text")]),
    "a reserved type": (400, [post(b"1", b"Record-Type: end")]),
    "a malformed type": (400, [post(b"1", b"Record-Type: \xff")]),
    "a long key": (400, [post(b"1", b"Record-Key: " + b"k" * 257)]),
    "a malformed close": (400, [post(b"1", b"Stream-Closed: yes")]),
    "an unknown stream": (404, [post(path=b"/v1/stream/none")]),
    "an unknown stream, and nothing": (404, [post(b"", path=b"/v1/stream/none")]),
    "a stream that lives on in its fork": (410, [post(path=b"/v1/stream/gone")]),
    "a stream that has ended": (409, [post(path=b"/v1/stream/ended")]),
    "a stream that has ended, and no json": (409, [post(b"{", path=b"/v1/stream/ended")]),
    "a stream with a producer": (204, [post(path=b"/v1/stream/produced")]),
    "closing a stream with a producer": (
        204,
        [post(b"1", b"Stream-Closed: true", path=b"/v1/stream/produced")],
    ),
    "no name": (400, [post(path=b"/v1/stream/")]),
    "an encoded slash": (400, [post(path=b"/v1/stream/a%2Fb")]),
    "two dots": (400, [post(path=b"/v1/stream/a/../b")]),
    "an empty segment": (400, [post(path=b"/v1/stream/a//b")]),
    "a record too large": (413, [post(b'"%b"' % (b"x" * MAX_RECORD))]),
    "a malformed name and a malformed stamp": (
        400,
        [post(b"1", b"Producer-Id: p", path=b"/v1/stream/a//b")],
    ),
    "a name of no utf-8": (400, [post(path=b"/v1/stream/%ff")]),
    "the protocol's own name": (400, [post(path=b"/v1/stream/%5f_ds/x")]),
    "a long name": (400, [post(path=b"/v1/stream/" + b"x" * 513)]),
    "a header twice": (204, [post(b"1", b"Record-Type: one", b"Record-Type: two")]),
    "a connection to keep": (204, [post(b"1", b"Connection: keep-alive")]),
    "a last request": (204, [post(b"1", b"Connection: close")]),
    "a last request, refused": (400, [post(b"", b"Connection: Close, x")]),
}

LEFT: dict[str, tuple[int, bytes]] = {
    "a query": (204, post(path=b"/v1/stream/a?x=1")),
    "an empty query": (204, post(path=b"/v1/stream/a?")),
    "a fragment": (204, post(path=b"/v1/stream/a#x")),
    "a whole address": (204, post(path=b"http://127.0.0.1/v1/stream/a")),
    "another address": (405, post(path=b"/v1/streams/a")),
    "another spelling of the address": (404, post(path=b"/v1//stream/a")),
    "a cancel": (204, post(path=b"/v1/cancel/a")),
    "a page of its own": (204, post(b"1", b"Origin: http://127.0.0.1")),
    "a page that is allowed": (204, post(b"1", b"Origin: https://page.example")),
    "a page that is allowed, refused": (400, post(b"", b"Origin: https://page.example")),
    "a foreign page": (403, post(b"1", b"Origin: https://evil.example")),
    "a foreign host": (403, post(host=b"evil.example")),
    "no host": (403, post(host=None)),
    "a host in capitals": (204, post(host=b"LOCALHOST")),
    "an older version": (204, post(version=b"1.0")),
    "an older version that is kept": (204, post(b"1", b"Connection: keep-alive", version=b"1.0")),
    "an older version, refused": (400, post(b"", version=b"1.0")),
    "a body as large as may be": (204, post(b"[%b]" % b",".join([b"1"] * (MAX_BODY // 2 - 1)))),
    "a body too large": (413, post(b"1" * (MAX_BODY + 1))),
    "a body too large, to nobody": (404, post(b"1" * (MAX_BODY + 1), path=b"/v1/stream/none")),
    "chunks": (204, chunked(b'{"n"', b":", b"1}")),
    "chunks with extensions": (204, chunked(b"[1,", b"2]", extension=b';q="\\"x"')),
    "chunks with a trailer": (204, chunked(b"1", trailer=b"Record-Type: late\r\n")),
    "no chunks": (400, chunked()),
    "chunks too large": (413, chunked(b"1" * (MAX_BODY + 1))),
    "chunks to what has ended": (409, chunked(b"1").replace(b"/a ", b"/ended ")),
    "another protocol": (400, post(b"1", b"Connection: upgrade", b"Upgrade: websocket")),
}


def status_of(answer: bytes) -> int:
    return int(answer[9:12])


@pytest.mark.parametrize("name", TAKEN)
async def test_an_append_by_the_lane_is_answered_as_any_other(both: Both, name: str) -> None:
    status, requests = TAKEN[name]
    answers = [await both.assert_alike(request, taken=1) for request in requests]
    assert status_of(answers[-1][0]) == status


@pytest.mark.parametrize("name", LEFT)
async def test_what_is_not_plain_goes_the_ordinary_way(both: Both, name: str) -> None:
    status, request = LEFT[name]
    (answer,) = await both.assert_alike(request, taken=0)
    assert status_of(answer) == status


async def test_who_waits_for_100_is_told_to_go_on(both: Both) -> None:
    request = post(b"12", b"Expect: 100-continue")
    told, answer = await both.assert_alike(request[:-2], request[-2:], answers=2, taken=0)
    assert (status_of(told), status_of(answer)) == (100, 204)


async def test_a_refused_append_keeps_its_connection(both: Both) -> None:
    both_bad = post(b"{") + post(path=b"/v1/stream/none") + post(b"1" * (MAX_BODY + 1)) + post(b"7")
    answers = await both.assert_alike(both_bad, answers=4)
    assert [status_of(answer) for answer in answers] == [400, 404, 413, 204]


# --- bytes that come as they like ---------------------------------------------------------------


@pytest.mark.parametrize("request_", [post(b'[{"n":1},2]'), chunked(b"[1", b",2]")])
async def test_a_request_may_be_cut_at_every_byte(both: Both, request_: bytes) -> None:
    whole = await both.laned.talk(request_)
    assert status_of(whole[0]) == 204
    await both.plain.talk(request_)
    for place in range(1, len(request_)):
        await both.assert_alike(request_[:place], request_[place:])


async def test_a_request_may_come_byte_by_byte(both: Both) -> None:
    request = stamped(b"p", 0, 0, b"Stream-Closed: true", body=b"[1,2]")
    (answer,) = await both.assert_alike(*[bytes([byte]) for byte in request], taken=1)
    assert status_of(answer) == 200


async def test_answers_come_in_the_order_of_their_requests(both: Both) -> None:
    requests = [post(b"1"), GET, post(b'[2,"x"]'), GET, post(b"{"), post(b"3"), GET]
    answers = await both.assert_alike(b"".join(requests), answers=len(requests))
    assert [status_of(answer) for answer in answers] == [204, 200, 204, 200, 400, 204, 200]
    assert [answer.rpartition(b"\r\n\r\n")[2] for answer in answers[1::2][:2]] == [
        b"[1]",
        b'[1,2,"x"]',
    ]
    assert answers[-1].endswith(b'[1,2,"x",3]')


async def test_pipelined_requests_may_be_cut_anywhere(both: Both) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(12):
        requests = [
            rng.choice(
                [
                    post(b"1"),
                    GET,
                    chunked(b"[2", b"]"),
                    post(b"{"),
                    post(b"1", path=b"/v1/stream/no"),
                ]
            )
            for _ in range(rng.randint(2, 8))
        ]
        stream = b"".join(requests)
        cuts = sorted(rng.randrange(len(stream)) for _ in range(rng.randint(0, 6)))
        parts = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
        await both.assert_alike(*filter(None, parts), answers=len(requests))


async def test_nothing_is_done_after_a_request_that_is_the_last(both: Both) -> None:
    requests = post(b"1", b"Connection: close") + post(b"2") + GET
    for side in (both.laned, both.plain):
        async with connect(side.server.port) as connection:
            await connection.send_raw(requests)
            assert status_of(await connection.raw_answer()) == 204
            assert await connection.is_closed()
    assert await both.laned.held() == await both.plain.held()
    assert (await both.laned.hub.get("a")).head.records == 1


async def test_garbage_behind_an_append_closes_the_connection(both: Both) -> None:
    for side in (both.laned, both.plain):
        async with connect(side.server.port) as connection:
            await connection.send_raw(post(b"1"))
            assert status_of(await connection.raw_answer()) == 204
            await connection.send_raw(b"garbage\r\n\r\n")
            assert status_of(await connection.raw_answer()) == 400
            assert await connection.is_closed()


async def test_a_chunk_that_is_none_is_refused_and_nothing_appended(both: Both) -> None:
    request = chunked(b"[1").replace(b"0\r\n\r\n", b"zz\r\n")
    (answer,) = await both.assert_alike(request)
    assert status_of(answer) == 400
    assert (await both.laned.hub.get("a")).head.records == 0


async def test_a_body_above_the_limit_is_refused_before_all_of_it_came(both: Both) -> None:
    endless = post(b"", b"Transfer-Encoding: chunked", length=False) + b"7fff\r\n"
    endless += b"1" * 0x7FFF
    for side in (both.laned, both.plain):
        async with connect(side.server.port) as connection:
            await connection.send_raw(endless)
            assert status_of(await connection.raw_answer()) == 413
        assert (await side.hub.get("a")).head.records == 0


async def test_an_announced_length_above_the_limit_is_refused_at_once(both: Both) -> None:
    request = post(b"1", length=False)[:-3] + b"Content-Length: 99999999\r\n\r\n"
    for side in (both.laned, both.plain):
        async with connect(side.server.port) as connection:
            await connection.send_raw(request)
            assert status_of(await connection.raw_answer()) == 413


@pytest.mark.parametrize(
    "field", [b"X: " + b"y" * 1000 + b"\r\n", b"y" * 1000], ids=["many", "one"]
)
async def test_fields_behind_a_body_are_bounded(both: Both, field: bytes) -> None:
    begun = post(b"", b"Transfer-Encoding: chunked", length=False) + b"1\r\n1\r\n0\r\nX: "
    for side in (both.laned, both.plain):
        async with connect(side.server.port) as connection:
            await connection.send_raw(begun)
            answering = asyncio.create_task(connection.raw_answer())
            with suppress(ConnectionError):
                for _ in range(200):
                    await connection.send_raw(field)
                    await turns(2)
            assert status_of(await answering) == 431
            assert await connection.is_closed()
        assert (await side.hub.get("a")).head.records == 0


# --- clients that go, and that do not read ------------------------------------------------------


@pytest.mark.parametrize("request_", [post(b'[1,"two"]'), chunked(b"[1", b"]")])
async def test_a_body_that_is_not_whole_appends_nothing(both: Both, request_: bytes) -> None:
    side = both.laned
    head = request_.index(b"\r\n\r\n") + 4
    for place in range(head, len(request_)):
        async with connect(side.server.port) as connection:
            await connection.send_raw(request_[:place])
            await turns(4)
            connection.hang_up()
        await until(lambda: not side.server.connections)
    assert (await side.hub.get("a")).head.records == 0


async def test_a_client_that_reads_no_answers_costs_a_bounded_buffer(both: Both) -> None:
    side = both.laned
    requests = post(b"1") * 1000
    async with connect(side.server.port, receive_buffer=4096) as connection:
        transport = connection.writer.transport
        sent = still = 0
        while still < 200 and sent < 200 * len(requests):
            if transport.get_write_buffer_size() == 0:
                connection.writer.write(requests)
                sent, still = sent + len(requests), 0
            await turns(2)
            still += 1
        (protocol,) = [made() for made in side.server.made if made() is not None][-1:]
        assert protocol is not None
        assert still == 200, "its requests are not read any more"
        assert protocol.transport.get_write_buffer_size() < 512 * 1024
        assert len(protocol.pipeline) < 4000
        records = (await side.hub.get("a")).head.records
        assert records * len(post(b"1")) < sent
        # What was sent is answered when it is read.
        connection.widen()
        for _ in range(records):
            assert status_of(await connection.raw_answer()) == 204


@asynccontextmanager
async def held_side(
    tmp_path: Path, *, with_lane: bool = True
) -> AsyncGenerator[tuple[Side, HeldStore]]:
    store = HeldStore(str(tmp_path / "store.db"))
    async with side_of(store, with_lane=with_lane) as side:
        await side.hub.create("a")
        try:
            yield side, store
        finally:
            store.appends.open()


async def test_who_hangs_up_during_the_commit_has_appended_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    async with held_side(tmp_path) as (side, store):
        store.appends.shut()
        async with connect(side.server.port) as connection:
            await connection.send_raw(post(b"1"))
            await until(lambda: store.appends.waiting)
            connection.hang_up()
        await until(lambda: not side.server.connections)
        store.appends.open()
        await until(lambda: not side.server.server.server_state.tasks)
        assert (await side.hub.get("a")).head.records == 1
        assert (await side.talk(post(b"2")))[0].startswith(b"HTTP/1.1 204")


async def test_who_hangs_up_with_requests_behind_the_commit_leaves_nothing(tmp_path: Path) -> None:
    async with held_side(tmp_path) as (side, store):
        store.appends.shut()
        async with connect(side.server.port) as connection:
            await connection.send_raw(post(b"1") + GET + post(b"2") + GET)
            await until(lambda: store.appends.waiting)
            connection.hang_up()
        store.appends.open()
        await until(lambda: not side.server.connections)
        await until(lambda: not side.server.server.server_state.tasks)
        assert (await side.talk(post(b"3")))[0].startswith(b"HTTP/1.1 204")


async def test_what_comes_during_the_commit_is_answered_after_it(tmp_path: Path) -> None:
    async with held_side(tmp_path) as (side, store), connect(side.server.port) as connection:
        store.appends.shut()
        await connection.send_raw(post(b"1"))
        await until(lambda: store.appends.waiting)
        await connection.send_raw(GET + post(b"2"))
        await turns(10)
        assert store.appends.waiting == 1
        store.appends.open()
        assert status_of(await connection.raw_answer()) == 204
        assert (await connection.raw_answer()).endswith(b"[1]")
        assert status_of(await connection.raw_answer()) == 204


async def test_an_append_that_waits_for_its_commit_is_answered_before_the_server_stops(
    tmp_path: Path,
) -> None:
    async with held_side(tmp_path) as (side, store):
        store.appends.shut()
        async with connect(side.server.port) as waiting, connect(side.server.port) as idle:
            await idle.send_raw(post(b"1")[:40])
            await waiting.send_raw(post(b"1"))
            await until(lambda: store.appends.waiting)
            side.server.server.should_exit = True
            assert await idle.is_closed()
            store.appends.open()
            answer = await waiting.raw_answer()
            assert status_of(answer) == 204
            assert b"\r\nconnection: close\r\n" in answer
            assert await waiting.is_closed()


async def test_a_server_that_may_not_wait_any_longer_lets_go_of_an_append(tmp_path: Path) -> None:
    async with held_side(tmp_path) as (side, store):
        store.appends.shut()
        async with connect(side.server.port) as waiting:
            await waiting.send_raw(post(b"1"))
            await until(lambda: store.appends.waiting)
            side.server.server.should_exit = True
            await until(lambda: not store.appends.waiting)
            await until(lambda: not side.server.server.server_state.tasks)


@pytest.mark.parametrize("with_lane", [True, False])
async def test_a_body_that_is_still_coming_when_the_server_stops_is_answered_or_not_appended(
    tmp_path: Path, with_lane: bool
) -> None:
    request = post(b'{"n":1}')
    async with held_side(tmp_path, with_lane=with_lane) as (side, _):
        async with connect(side.server.port) as connection:
            await connection.send_raw(request[:-2])
            await until(lambda: side.server.connections)
            await turns(10)
            side.server.server.should_exit = True
            await until(lambda: not side.server.server.servers[0].is_serving())
            try:
                await connection.send_raw(request[-2:])
                is_answered = status_of(await connection.raw_answer()) == 204
            except (asyncio.IncompleteReadError, ConnectionError):
                is_answered = False
        assert (await side.hub.backend.head("a"))[0].records == int(is_answered)


# --- the lane's place ---------------------------------------------------------------------------


async def test_an_append_by_the_lane_is_the_connections_own_until_the_next(both: Both) -> None:
    async with connect(both.laned.server.port) as connection:
        for number in range(50):
            await connection.send_raw(post(b"%d" % number))
            assert status_of(await connection.raw_answer()) == 204
        assert (await connection.ask("GET", "/v1/stream/a")).json == list(range(50))
        # And the connection can still be given away to a reader.
        await connection.send("GET", "/v1/stream/a?live=events")
        assert (await connection.head()).status == 200


async def test_appends_are_counted_as_any_other(both: Both) -> None:
    grown: list[int] = []
    for side in (both.laned, both.plain):
        before = await appended_records(side)
        await side.talk(post(b"[1,2,3]"))
        grown.append(await appended_records(side) - before)
    assert grown == [3, 3]


async def appended_records(side: Side) -> int:
    text = (await ask(side.server.port, "GET", "/metrics")).body
    found = re.search(rb"^penstock_appended_records_total (\d+)", text, re.M)
    return int(found[1]) if found else 0


async def test_only_a_server_that_is_all_ours_has_a_lane() -> None:
    settings = make_settings(port=0)
    ours = make_server(settings)
    assert ours.config.http.lane is not None  # type: ignore[union-attr]
    theirs = make_server(settings, app=ServerApp(Hub()))
    assert theirs.config.http.lane is None, "their middleware must see each request"  # type: ignore[union-attr]


async def test_what_follows_a_request_that_said_it_is_the_last_is_dropped(both: Both) -> None:
    last = post(b"1", b"Connection: close") + post(b"2") + post(b"3")
    (answer,) = await both.assert_alike(last, answers=1)
    assert status_of(answer) == 204
