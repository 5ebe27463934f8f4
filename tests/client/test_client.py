"""The client against the real server: what it reads, publishes and is refused, on both paths."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from inprocess import serving, until
from penstock import Hub, Retention
from penstock.client import Event, Events, connect, publish
from penstock.core.errors import (
    PenstockError,
    RecordFieldMalformed,
    RecordTypeReserved,
    Refused,
    Unreachable,
)
from penstock.core.record import EndReason
from penstock.core.resume import Backoff
from penstock.server.fastpath import Protocol

PATIENCE_S = 15.0
AT_ONCE = Backoff(base_ms=1, cap_ms=5)


@dataclass(slots=True)
class Serving:
    hub: Hub
    port: int

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/v1/stream/{name}"

    def connect(self, name: str, **options: Any) -> Events:
        return connect(self.url(name), **{"backoff": AT_ONCE, **options})

    async def read(self, name: str, **options: Any) -> tuple[list[Event], str | None]:
        async with self.connect(name, **options) as events:
            return [event async for event in events], events.end_reason


@asynccontextmanager
async def server(http: Any = Protocol, **settings: Any) -> AsyncGenerator[Serving]:
    hub = Hub(retry_ms=100, **settings)
    async with serving(hub, http=http) as listening, asyncio.timeout(PATIENCE_S):
        yield Serving(hub, listening.port)


on_both_paths = pytest.mark.parametrize("http", [Protocol, "httptools"], ids=["fast", "portable"])


@on_both_paths
async def test_a_stream_is_read_while_it_is_written(http: Any) -> None:
    async with server(http) as running:
        stream = await running.hub.create("live")
        seen: list[Event] = []
        async with running.connect("live") as events:
            for number in range(20):
                offset = await stream.append({"n": number}, type="count", key="k")
                event = await anext(events)
                assert event.id == str(offset)
                seen.append(event)
            await stream.close()
            assert await anext(events, None) is None
        assert events.end_reason == "complete"
    assert [(event.type, event.json()) for event in seen] == [
        ("count", {"n": number}) for number in range(20)
    ]


@on_both_paths
@pytest.mark.parametrize("reason", list(EndReason))
async def test_each_end_of_a_stream_arrives(http: Any, reason: EndReason) -> None:
    async with server(http) as running:
        stream = await running.hub.create("s")
        await stream.append(1)
        await stream.close(reason)
        seen, end_reason = await running.read("s")
    assert ([event.json() for event in seen], end_reason) == ([1], reason)


async def test_a_reader_resumes_after_any_event() -> None:
    async with server() as running:
        stream = await running.hub.create("s")
        for number in range(5):
            await stream.append(number)
        await stream.close()
        whole, _ = await running.read("s")
        for place, event in enumerate(whole):
            rest, reason = await running.read("s", last_event_id=event.id)
            assert rest == whole[place + 1 :]
            assert reason == "complete"


async def test_who_has_seen_the_end_is_told_nothing_more() -> None:
    async with server() as running:
        stream = await running.hub.create("s")
        await stream.append(1)
        await stream.close()
        async with running.connect("s") as events:
            assert len([event async for event in events]) == 1
        seen, reason = await running.read("s", last_event_id=events.last_event_id)
    assert (seen, reason) == ([], None)


async def test_now_is_the_tail() -> None:
    async with server() as running:
        stream = await running.hub.create("s")
        await stream.append("before")
        async with running.connect("s", last_event_id="now") as events:
            first = asyncio.ensure_future(anext(events))
            await until(lambda: stream.readers)
            await stream.append("after")
            assert (await first).json() == "after"


async def test_dropped_history_is_a_gap_and_then_what_is_kept() -> None:
    async with server() as running:
        stream = await running.hub.create("s", retention=Retention(max_records=3))
        first = await stream.append(0)
        for number in range(1, 10):
            await stream.append(number)
        await stream.close()
        seen, _ = await running.read("s", last_event_id=str(first))
    assert seen[0].type == "gap"
    assert seen[0].json()["reason"] == "trimmed"
    assert [event.json() for event in seen[1:]] == [7, 8, 9]


async def test_a_stream_that_began_again_is_a_gap() -> None:
    """The place of a log that is gone is never taken for a place in the new one."""
    async with server() as running:
        stream = await running.hub.create("s")
        for number in range(5):
            await stream.append(number)
        async with running.connect("s") as events:
            for _ in range(3):
                place = (await anext(events)).id
        await running.hub.delete("s")
        again = await running.hub.create("s")
        for word in ("new", "log"):
            await again.append(word)
        await again.close()
        seen, _ = await running.read("s", last_event_id=place)
    assert (seen[0].type, seen[0].json()["reason"]) == ("gap", "epoch")
    assert [event.json() for event in seen[1:]] == ["new", "log"]


@on_both_paths
async def test_a_drained_reader_comes_back_to_its_place(http: Any) -> None:
    """Two servers of one log, as in a deploy: the reader is handed over and misses nothing."""
    async with server(http) as running:
        stream = await running.hub.create("s")
        await stream.append(0)
        async with running.connect("s") as events:
            assert (await anext(events)).json() == 0
            await running.hub.drain()
            running.hub.is_draining = False
            await stream.append(1)
            await stream.close()
            assert [event.json() async for event in events] == [1]
            assert events.connections == 2
            assert events.end_reason == "complete"


async def test_a_full_server_is_tried_again() -> None:
    async with server(max_readers=1) as running:
        stream = await running.hub.create("s")
        await stream.append(0)
        async with running.connect("s") as first:
            await anext(first)
            async with running.connect("s") as second:
                waiting = asyncio.ensure_future(anext(second))
                await until(lambda: second.connections >= 2)
                await first.aclose()
                assert (await waiting).json() == 0


@on_both_paths
async def test_leaving_leaves_the_producer_running(http: Any) -> None:
    go_on = asyncio.Event()

    async def source() -> AsyncIterator[str]:
        yield "one"
        await go_on.wait()
        yield "two"

    async with server(http) as running:
        stream = await running.hub.start("s", source())
        async with running.connect("s") as events:
            event = await anext(events)
        await until(lambda: not stream.readers)
        assert stream.is_produced
        go_on.set()
        seen, reason = await running.read("s", last_event_id=event.id)
    assert ([event.json() for event in seen], reason) == (["two"], "complete")


async def test_a_stream_nobody_knows_is_refused_or_lost() -> None:
    """Without a place it is a wrong address; with one, a log that a restart took."""
    async with server() as running:
        with pytest.raises(Refused) as caught:
            await running.read("none")
        assert (caught.value.answer, caught.value.answer_code) == (404, "stream-not-found")
        assert await running.read("none", last_event_id="1tUvL11") == ([], "lost")


async def test_a_place_that_is_none_is_told_as_a_gap() -> None:
    async with server() as running:
        stream = await running.hub.create("s")
        await stream.append(1)
        await stream.close()
        seen, _ = await running.read("s", last_event_id="not a place")
    assert [event.type for event in seen] == ["gap", "message"]


# --- publishing ---------------------------------------------------------------------------------


async def test_publish_creates_appends_batches_and_closes() -> None:
    async with server() as running:
        url = running.url("orders/7")
        await publish(url, b'{"a":1}', create=True)
        last = await publish(url, b'[{"a":2},"three",[4]]', type="größe", key="kö/1", create=True)
        closed = await publish(url, b"5", close=True)
        seen, reason = await running.read("orders/7")
    values = [(event.type, event.json()) for event in seen]
    assert values == [
        ("message", {"a": 1}),
        ("größe", {"a": 2}),
        ("größe", "three"),
        ("größe", [4]),
        ("message", 5),
    ]
    assert [seen[3].id, seen[4].id] == [last, closed]
    assert reason == "complete"


async def test_publish_takes_text_and_bytes() -> None:
    async with server() as running:
        await publish(running.url("t"), b"a\nb", content_type="text/plain", create=True)
        kind = "application/octet-stream"
        await publish(running.url("b"), b"\x00\xff", content_type=kind, create=True)
        async with running.connect("t") as text, running.connect("b") as data:
            assert (await anext(text)).data == "a\nb"
            assert (await anext(data)).data == "AP8="  # base64, as the answer's header says


@pytest.mark.parametrize(
    ("name", "body", "options", "answer", "code"),
    [
        ("none", b"1", {}, 404, "stream-not-found"),
        ("ended", b"1", {}, 409, "stream-ended"),
        ("open", b"{", {}, 400, "body-malformed"),
        ("open", b"", {}, 400, "body-malformed"),
        ("open", b"[]", {}, 400, "body-malformed"),
        ("open", b"x", {"content_type": "text/plain"}, 409, "content-type-conflict"),
        ("open", b"x", {"content_type": "text/plain", "create": True}, 409, "stream-conflict"),
        ("open", b'"' + b"x" * 2000 + b'"', {}, 413, "record-too-large"),
        ("open", b"1", {"headers": {"Origin": "http://evil.example"}}, 403, "origin-refused"),
        ("a//b", b"1", {"create": True}, 400, "name-malformed"),
    ],
)
async def test_a_refused_publish_says_why(
    name: str, body: bytes, options: dict[str, Any], answer: int, code: str
) -> None:
    async with server(max_record_bytes=1000) as running:
        await running.hub.create("open")
        ended = await running.hub.create("ended")
        await ended.close()
        with pytest.raises(Refused) as caught:
            await publish(running.url(name), body, **options)
    error = caught.value
    assert (error.answer, error.answer_code) == (answer, code)
    assert error.detail


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"type": "a\r\nX: y"}, RecordFieldMalformed),
        ({"key": "k\n"}, RecordFieldMalformed),
        ({"type": "end"}, RecordTypeReserved),
    ],
)
async def test_publish_checks_type_and_key_before_it_sends(
    options: dict[str, str], error: type[PenstockError]
) -> None:
    async with server() as running:
        await running.hub.create("s")
        with pytest.raises(error):
            await publish(running.url("s"), b"1", **options)


async def test_publish_to_nobody_is_unreachable() -> None:
    async with server() as running:
        url = running.url("s")
    with pytest.raises(Unreachable):
        await publish(url, b"1")


async def test_json_of_any_shape_comes_back_as_it_went() -> None:
    values = ["", "\u2028\r\n\u0000", {"k": [None, True, -1.5e300, 2**63]}, [], 0, None]
    async with server() as running:
        await publish(running.url("s"), msgspec.json.encode(values), create=True, close=True)
        seen, _ = await running.read("s")
    assert [event.json() for event in seen] == values
