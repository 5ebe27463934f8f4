"""A restart of the process: what is lost is said to be, what is kept goes on at the same offsets.

A crash is a copy of the store's files, taken while it is open: what a process that is killed leaves
behind. Nothing is told to the copy's hub but the file.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from inprocess import Called, Clock, call, serving, until
from penstock.backends.interface import StreamConfig
from penstock.backends.sqlite import SqliteBackend
from penstock.core.errors import StreamNotFound
from penstock.core.producer import Stamp
from penstock.core.record import EndReason, NewRecord
from penstock.server.hub import Hub
from penstock.wire.sse import Decoder, Event
from raw_http import events as open_events

WAYS = ("closed", "killed")


class Process:
    """One life of a server after the other, on one store."""

    def __init__(self, directory: Path, way: str, **options: Any) -> None:
        self.directory, self.way, self.options = directory, way, options
        self.wall = Clock()
        self.lives = 0

    @property
    def path(self) -> Path:
        return self.directory / f"life-{self.lives}.db"

    @asynccontextmanager
    async def life(self, **settings: Any) -> AsyncGenerator[Hub]:
        """Run a hub; what it leaves behind is the next one's."""
        store = SqliteBackend(str(self.path), wall_clock=self.wall, **self.options)
        here = self.path
        async with Hub(store, drain_s=0.1, **settings) as hub:
            yield hub
            self.lives += 1
            if self.way == "killed":
                self._copy(here)
        if self.way == "closed":
            self._copy(here)

    def _copy(self, here: Path) -> None:
        for suffix in ("", "-wal"):
            left = here.with_name(here.name + suffix)
            if left.exists():
                shutil.copy(left, self.path.with_name(self.path.name + suffix))


@pytest.fixture(params=WAYS)
def process(request: pytest.FixtureRequest, tmp_path: Path) -> Process:
    return Process(tmp_path, request.param)


async def numbers_for_ever() -> AsyncIterator[int]:
    number = 0
    while True:
        yield number
        number += 1
        await asyncio.sleep(0)


async def native(hub: Hub, name: str, after: str | None = None) -> list[Event]:
    """The events of a stream that has ended."""
    headers = [(b"accept", b"text/event-stream")]
    if after is not None:
        headers.append((b"last-event-id", after.encode()))
    called = await call(hub.asgi, "GET", f"/stream/{name}", headers, stays=True)
    assert called.status == 200, called
    decoder = Decoder()
    decoder.receive_data(called.body)
    return decoder.events()


async def put(hub: Hub, name: str, *headers: tuple[bytes, bytes]) -> Called:
    pairs = [(b"content-type", b"application/json"), *headers]
    return await call(hub.asgi, "PUT", f"/stream/{name}", pairs)


async def test_a_stream_whose_producer_is_gone_is_lost(process: Process) -> None:
    async with process.life() as hub:
        stream = await hub.start("a", numbers_for_ever())
        await until(lambda: stream.offset.position > 20)
        shown = stream.head
    async with process.life() as hub:
        *records, end = await native(hub, "a")
        assert json.loads(end.data) == {"reason": "lost"}
        assert len(records) >= shown.tail, "what was shown is there"
        assert [int(event.data) for event in records] == list(range(len(records)))
        again = await hub.get("a")
        assert (again.end, again.head.epoch) == (EndReason.LOST, shown.epoch)
        assert not again.is_produced
        # Its reader comes back with the last it saw.
        rest = await native(hub, "a", str(shown.tail_offset))
        assert [event.last_event_id for event in rest] == [
            event.last_event_id for event in [*records[shown.tail :], end]
        ]


async def test_a_stream_that_ended_before_keeps_its_reason(process: Process) -> None:
    async def source() -> AsyncIterator[str]:
        yield "whole"

    async with process.life() as hub:
        stream = await hub.start("a", source())
        await until(lambda: stream.end is not None)
    async with process.life() as hub:
        record, end = await native(hub, "a")
        assert record.data == '"whole"'
        assert json.loads(end.data) == {"reason": "complete"}


async def test_a_stream_made_by_put_stays_open_and_goes_on(process: Process) -> None:
    async with process.life() as hub:
        assert (await put(hub, "a")).status == 201
        before = await (await hub.get("a")).append(1)
    async with process.life() as hub:
        assert (await put(hub, "a")).status == 200
        stream = await hub.get("a")
        assert (stream.end, stream.offset) == (None, before)
        after = await stream.append(2)
        assert (after.epoch, after.position) == (before.epoch, before.position + 1)
    async with process.life() as hub:
        called = await call(hub.asgi, "GET", "/stream/a", stays=True)
        assert called.body == b"[1,2]"


async def test_a_native_reader_goes_on_where_it_was(process: Process) -> None:
    async with process.life() as hub, serving(hub) as server:
        stream = await hub.create("a")
        await stream.append_batch([NewRecord(b"%d" % number) for number in range(5)])
        async with open_events(server.port, "/v1/stream/a") as reader:
            seen = await reader.take(3)
    async with process.life() as hub, serving(hub) as server:
        last = {"Last-Event-ID": seen[-1].last_event_id}
        async with open_events(server.port, "/v1/stream/a", last) as reader:
            assert [event.data for event in await reader.take(2)] == ["3", "4"]
            await (await hub.get("a")).append(5)
            event = await reader.next()
            assert (event.type, event.data) == ("message", "5")


async def test_readers_of_the_protocol_go_on_where_they_were(process: Process) -> None:
    async with process.life() as hub:
        stream = await hub.create("a")
        place = await stream.append(1)
        await stream.append(2)
        called = await call(hub.asgi, "GET", "/stream/a", stays=True)
        tag = called.header(b"etag")
        assert tag is not None
    async with process.life() as hub:
        for live in ("", "&live=long-poll"):
            called = await call(hub.asgi, "GET", f"/stream/a?offset={place}{live}", stays=True)
            assert (called.status, called.body) == (200, b"[2]")
        named = [(b"if-none-match", tag)]
        assert (await call(hub.asgi, "GET", "/stream/a", named, stays=True)).status == 304
        stream = await hub.get("a")
        await stream.close()
        called = await call(hub.asgi, "GET", f"/stream/a?offset={place}&live=sse", stays=True)
        assert b"data:[2]" in called.body
        assert b'"streamClosed":true' in called.body


async def test_a_producer_that_tries_again_appends_once(process: Process) -> None:
    async with process.life() as hub:
        await hub.create("a")
        for seq in range(3):
            await hub.backend.append("a", [NewRecord(b"%d" % seq)], stamp=Stamp("p", 4, seq))
    async with process.life() as hub:
        again = await hub.backend.append("a", [NewRecord(b"2")], stamp=Stamp("p", 4, 2))
        assert (again.is_duplicate, again.seq) == (True, 2)
        await hub.backend.append("a", [NewRecord(b"3")], stamp=Stamp("p", 4, 3))
        called = await call(hub.asgi, "GET", "/stream/a", stays=True)
        assert called.body == b"[0,1,2,3]"


async def test_an_expiry_goes_on_counting(process: Process) -> None:
    async with process.life() as hub:
        assert (await put(hub, "sliding", (b"stream-ttl", b"600"))).status == 201
        at = b"2033-05-18T03:43:20Z"  # ten minutes from now, by the test's clock
        assert (await put(hub, "fixed", (b"stream-expires-at", at))).status == 201
        assert (await put(hub, "kept")).status == 201
    process.wall.now += 300
    async with process.life() as hub:
        for name in ("sliding", "fixed", "kept"):
            assert (await hub.get(name)).end is None
        head = await call(hub.asgi, "HEAD", "/stream/sliding")
        assert head.header(b"stream-ttl") == b"600"
        head = await call(hub.asgi, "HEAD", "/stream/fixed")
        assert head.header(b"stream-expires-at") == b"2033-05-18T03:43:20.000Z"
        await (await hub.get("sliding")).append(1)  # which counts as use
    process.wall.now += 301
    async with process.life() as hub:
        assert (await hub.get("sliding")).offset.position == 1
        with pytest.raises(StreamNotFound):
            await hub.get("fixed")
    process.wall.now += 700
    async with process.life() as hub:
        with pytest.raises(StreamNotFound):
            await hub.get("sliding")
        assert (await hub.get("kept")).end is None
        listed = await call(hub.asgi, "GET", "/streams", stays=True)
        assert [stream["name"] for stream in json.loads(listed.body)["streams"]] == ["kept"]


async def test_a_lost_stream_is_kept_as_long_as_any_that_ended(process: Process) -> None:
    async with process.life(ended_ttl_s=600) as hub:
        await hub.start("a", numbers_for_ever())
    process.wall.now += 500
    async with process.life(ended_ttl_s=600) as hub:
        assert (await hub.get("a")).end is EndReason.LOST
    process.wall.now += 1200
    async with process.life(ended_ttl_s=600) as hub:
        with pytest.raises(StreamNotFound):
            await hub.get("a")


async def test_an_event_source_of_a_stream_that_expired_meanwhile_is_told_it_is_lost(
    process: Process,
) -> None:
    async with process.life() as hub:
        place = await (await hub.create("a", ttl_s=60)).append(1)
    process.wall.now += 120
    async with process.life() as hub:
        (end,) = await native(hub, "a", str(place))
        assert json.loads(end.data) == {"reason": "lost"}
        called = await call(
            hub.asgi,
            "GET",
            "/stream/a",
            [(b"accept", b"text/event-stream"), (b"last-event-id", end.last_event_id.encode())],
        )
        assert called.status == 204


async def test_a_name_that_is_made_again_has_a_later_epoch(process: Process) -> None:
    async with process.life() as hub:
        before = await (await hub.create("a")).append(1)
        await hub.delete("a")
    async with process.life() as hub:
        stream = await hub.create("a")
        assert stream.head.epoch > before.epoch
        called = await call(hub.asgi, "GET", f"/stream/a?offset={before}", stays=True)
        assert called.status == 410


async def test_what_is_eager_begins_a_later_epoch_after_a_kill(tmp_path: Path) -> None:
    process = Process(tmp_path, "killed", durability="eager")
    async with process.life() as hub:
        before = await (await hub.create("a")).append(1)
    async with process.life() as hub:
        stream = await hub.get("a")
        assert stream.head.epoch > before.epoch
        await stream.close()
        gap, record, _ = await native(hub, "a", str(before))
        assert json.loads(gap.data)["reason"] == "epoch"
        assert record.data == "1"


async def test_many_streams_and_their_kinds_are_there_again(process: Process) -> None:
    async with process.life() as hub:
        for number in range(100):
            config = StreamConfig(content_type="text/plain", is_produced=number % 2 == 0)
            opening = [NewRecord(b"%d" % number)]
            await hub.create_or_get(f"s{number}", config, opening)
    async with process.life() as hub:
        for number in range(100):
            stream = await hub.get(f"s{number}")
            assert stream.config.content_type == "text/plain"
            assert stream.end is (EndReason.LOST if number % 2 == 0 else None)
            called = await call(hub.asgi, "GET", f"/stream/s{number}", stays=True)
            assert called.body == b"%d" % number
