"""Reading by the protocol: what is there, what comes next, and `live=sse`, on both backends.

Readers of every kind are held against the log: each record once, in order, under its own offset.
Live bodies are read on both paths; schedules are random and print their seed.
"""

from __future__ import annotations

import asyncio
import json
import random
from base64 import b64decode
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from inprocess import Called, Clock, HeldStore, call, serving, turns, until
from penstock.backends.memory import MemoryBackend
from penstock.core.cursor import Offset, parse_offset
from penstock.core.limits import CATCH_UP_BYTES
from penstock.core.log import Retention
from penstock.core.record import EndReason, NewRecord
from penstock.server.app import ServerApp
from penstock.server.endpoints.catch_up import CATCH_UP_RECORDS
from penstock.server.hub import Hub, Stream
from raw_http import Answer, EventReader, ask, connect
from raw_http import events as open_events

BACKENDS = ("memory", "sqlite")
PATHS = {"fast": {}, "portable": {"http": "httptools"}}
TEXT, JSON, BINARY = "text/plain", "application/json", "application/octet-stream"


class Place:
    """A hub whose clocks are moved by hand."""

    def __init__(self, kind: str, directory: Path, **settings: Any) -> None:
        self.clock, self.wall = Clock(1000.0), Clock()
        self.store = HeldStore(str(directory / "store.db"), wall_clock=self.wall)
        memory = MemoryBackend(clock=self.clock, wall_clock=self.wall)
        self.hub = Hub(memory if kind == "memory" else self.store, clock=self.clock, **settings)
        self.app = ServerApp(self.hub)

    async def get(
        self, query: str = "", name: str = "a", headers: dict[str, str] | None = None
    ) -> Called:
        """Read, as a client that stays for its answer."""
        pairs = [(key.lower().encode(), value.encode()) for key, value in (headers or {}).items()]
        return await call(self.app, "GET", f"/v1/stream/{name}{query}", pairs, stays=True)

    async def create(self, content_type: str = JSON, **config: Any) -> Stream:
        return await self.hub.create("a", content_type=content_type, **config)


@pytest.fixture(params=BACKENDS)
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Place]:
    place = Place(request.param, tmp_path, long_poll_s=30, max_readers=20)
    async with place.hub:
        yield place


def next_of(answer: Called | Answer) -> str:
    """Where a read ended."""
    return text_of(answer, "stream-next-offset")


def text_of(answer: Called | Answer, name: str) -> str:
    if isinstance(answer, Answer):
        return answer[name]
    value = answer.header(name.encode())
    assert value is not None, (name, answer)
    return value.decode()


def batch(first: int, count: int) -> list[NewRecord]:
    return [NewRecord(b"%d" % number) for number in range(first, first + count)]


# --- what is there ------------------------------------------------------------------------------


@pytest.mark.parametrize("content_type", [JSON, TEXT, BINARY])
async def test_pages_joined_are_the_log(place: Place, content_type: str) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    stream = await place.create(content_type)
    payloads = [b"%d" % number for number in range(CATCH_UP_RECORDS + 2000)]
    payloads += [b'"%b"' % (b"x" * rng.randint(1, CATCH_UP_BYTES // 2)) for _ in range(12)]
    payloads += [b'"%b"' % (b"y" * (CATCH_UP_BYTES - 2)), b'"%b"' % (b"z" * (CATCH_UP_BYTES - 2))]
    payloads += [b"1"]
    rng.shuffle(payloads)
    for start in range(0, len(payloads), 500):
        await stream.append_batch([NewRecord(payload) for payload in payloads[start : start + 500]])
    await stream.close()

    found: list[bytes] = []
    after, pages = "-1", 0
    while True:
        answer = await place.get(f"?offset={after}")
        pages += 1
        position = parse_offset(next_of(answer)).position
        taken = payloads[len(found) : position]
        expected = b"[" + b",".join(taken) + b"]" if content_type == JSON else b"".join(taken)
        assert answer.body == expected
        assert taken, "a page has a record where there is one"
        assert len(taken) <= CATCH_UP_RECORDS
        assert len(taken) == 1 or sum(map(len, taken)) <= CATCH_UP_BYTES
        found, after = found + taken, next_of(answer)
        if answer.header(b"stream-up-to-date"):
            break
        assert answer.header(b"stream-closed") is None, "more follows"
        assert b"max-age" in (answer.header(b"cache-control") or b"")
    assert found == payloads
    assert pages >= 3
    assert text_of(answer, "stream-closed") == "true"
    assert text_of(answer, "stream-end-reason") == "complete"
    assert b"no-cache" in (answer.header(b"cache-control") or b"")
    rest = await place.get(f"?offset={after}")
    assert rest.body == (b"[]" if content_type == JSON else b"")
    assert next_of(rest) == after


async def test_now_is_the_tail_and_nothing_before_it(place: Place) -> None:
    stream = await place.create()
    await stream.append(1)
    answer = await place.get("?offset=now")
    assert (answer.status, answer.body) == (200, b"[]")
    assert next_of(answer) == str(stream.offset)
    assert answer.header(b"etag") is None
    assert text_of(answer, "cache-control") == "no-store"
    await stream.append(2)
    assert (await place.get(f"?offset={next_of(answer)}")).body == b"[2]"


async def test_a_read_has_a_tag_that_changes_with_what_it_says(place: Place) -> None:
    stream = await place.create()
    await stream.append(1)
    first = await place.get()
    tag = text_of(first, "etag")
    assert text_of(await place.get(), "etag") == tag

    for asked in (tag, f'"x", {tag}', f"W/{tag}", f'"x",W/{tag} , "y"', "*"):
        again = await place.get(headers={"If-None-Match": asked})
        assert (again.status, again.body) == (304, b""), asked
        assert text_of(again, "etag") == tag
        assert next_of(again) == next_of(first)
        assert again.header(b"content-length") is None
    for asked in ('"x"', tag.strip('"'), tag[:-2] + '"'):
        assert (await place.get(headers={"If-None-Match": asked})).status == 200, asked

    await stream.append(2)
    longer = await place.get(headers={"If-None-Match": tag})
    assert (longer.status, longer.body) == (200, b"[1,2]")
    later = await place.get(f"?offset={next_of(first)}")
    assert len({tag, text_of(longer, "etag"), text_of(later, "etag")}) == 3

    await stream.close()
    closed = await place.get(headers={"If-None-Match": text_of(longer, "etag")})
    assert (closed.status, closed.body) == (200, b"[1,2]")
    assert text_of(closed, "stream-closed") == "true"
    again = await place.get(headers={"If-None-Match": text_of(closed, "etag")})
    assert again.status == 304
    assert text_of(again, "stream-closed") == "true"


async def test_a_full_page_keeps_its_tag_when_the_log_grows(place: Place) -> None:
    stream = await place.create()
    for start in range(0, CATCH_UP_RECORDS + 1, 2000):
        await stream.append_batch(batch(start, 2000))
    tag = text_of(await place.get(), "etag")
    await stream.append("more")
    assert (await place.get(headers={"If-None-Match": tag})).status == 304


# --- places that are gone -----------------------------------------------------------------------

LIVES = ("", "&live=long-poll", "&live=sse")


async def assert_gone(place: Place, offset: object, earliest: Offset) -> None:
    for live in LIVES:
        answer = await place.get(f"?offset={offset}{live}")
        assert (answer.status, answer.code) == (410, "offset-gone"), live
        assert text_of(answer, "stream-earliest-offset") == str(earliest)


async def test_a_place_that_was_trimmed_is_gone(place: Place) -> None:
    stream = await place.create(retention=Retention(max_records=3))
    for number in range(10):
        await stream.append(number)
    earliest = stream.head.earliest_offset
    assert earliest.position == 7
    await assert_gone(place, Offset(stream.head.epoch, 6), earliest)
    assert (await place.get(f"?offset={earliest}")).body == b"[7,8,9]"
    assert (await place.get("?offset=-1")).body == b"[7,8,9]"


async def test_a_place_beyond_the_tail_is_gone(place: Place) -> None:
    stream = await place.create()
    await stream.append(1)
    await assert_gone(place, Offset(stream.head.epoch, 2), stream.head.earliest_offset)


async def test_a_place_of_a_stream_that_was_deleted_is_gone(place: Place) -> None:
    before = await (await place.create()).append(1)
    await place.hub.delete("a")
    stream = await place.create()
    await stream.append(2)
    assert stream.head.epoch > before.epoch
    await assert_gone(place, before, stream.head.earliest_offset)


async def test_a_place_that_is_none_is_malformed(place: Place) -> None:
    stream = await place.create()
    for text in ("x", "0", f"{stream.offset}x", str(stream.offset)[:-1], "%00", "~", "-2", "Now"):
        for live in LIVES:
            answer = await place.get(f"?offset={text}{live}")
            assert (answer.status, answer.code) == (400, "offset-malformed"), (text, live)
    for live in LIVES[1:]:
        assert (await place.get(f"?{live[1:]}")).code == "query-malformed"


# --- long-poll ----------------------------------------------------------------------------------


@asynccontextmanager
async def polling(place: Place, query: str) -> AsyncGenerator[asyncio.Task[Called]]:
    """A long-poll that waits."""
    before = place.hub.snapshot().polls
    task = asyncio.create_task(place.get(query))
    try:
        await until(lambda: place.hub.snapshot().polls > before)
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_long_poll_behind_the_tail_is_answered_at_once(place: Place) -> None:
    stream = await place.create()
    first = await stream.append(1)
    await stream.append(2)
    answer = await place.get(f"?offset={first}&live=long-poll")
    assert (answer.status, answer.body) == (200, b"[2]")
    assert text_of(answer, "stream-up-to-date") == "true"
    assert int(text_of(answer, "stream-cursor")) > 0
    assert place.hub.snapshot().polls == 0


async def test_a_long_poll_at_the_tail_waits_for_the_next_commit(place: Place) -> None:
    stream = await place.create()
    place.store.reads.shut()
    async with polling(place, "?offset=now&live=long-poll&cursor=99999999999") as answer:
        await stream.append_batch(batch(1, 2))
        place.store.reads.open()
        called = await answer
    assert (called.status, called.body) == (200, b"[1,2]")
    assert next_of(called) == str(stream.offset)
    assert int(text_of(called, "stream-cursor")) > 99999999999
    assert place.hub.snapshot().polls == 0


async def test_a_long_poll_ends_with_the_stream(place: Place) -> None:
    stream = await place.create()
    async with polling(place, "?offset=now&live=long-poll") as answer:
        await stream.close(EndReason.FAILED)
        called = await answer
    for ended in (called, await place.get(f"?offset={stream.offset}&live=long-poll")):
        assert (ended.status, ended.body) == (204, b"")
        assert text_of(ended, "stream-closed") == "true"
        assert text_of(ended, "stream-end-reason") == "failed"
        assert text_of(ended, "stream-up-to-date") == "true"
        assert next_of(ended) == str(stream.offset)


async def test_a_last_commit_and_the_end_reach_a_long_poll_together(place: Place) -> None:
    await place.create()
    async with polling(place, "?offset=now&live=long-poll") as answer:
        await place.hub.backend.append("a", batch(1, 1), end=EndReason.COMPLETE)
        called = await answer
    assert (called.status, called.body) == (200, b"[1]")
    assert text_of(called, "stream-closed") == "true"


async def test_a_long_poll_that_nothing_comes_to_is_204(tmp_path: Path) -> None:
    place = Place("memory", tmp_path, long_poll_s=0.01)
    stream = await place.create()
    answer = await place.get("?offset=now&live=long-poll&cursor=5")
    assert (answer.status, answer.body) == (204, b"")
    assert text_of(answer, "stream-up-to-date") == "true"
    assert text_of(answer, "cache-control") == "no-store"
    assert answer.header(b"stream-closed") is None
    assert next_of(answer) == str(stream.offset)
    assert place.hub.snapshot().polls == 0


async def test_a_drain_answers_long_polls_and_takes_no_more(place: Place) -> None:
    await place.create()
    async with polling(place, "?offset=now&live=long-poll") as answer:
        await place.hub.drain()
        assert (await answer).status == 204
    refused = await place.get("?offset=now&live=long-poll")
    assert (refused.status, refused.code) == (503, "draining")


async def test_a_long_poll_whose_stream_is_deleted_is_told_there_is_none(place: Place) -> None:
    await place.create()
    async with polling(place, "?offset=now&live=long-poll") as answer:
        await place.hub.backend.delete("a")
        called = await answer
    assert (called.status, called.code) == (404, "stream-not-found")
    assert place.hub.snapshot().polls == 0


async def test_long_polls_are_admitted_up_to_the_limit(place: Place) -> None:
    stream = await place.create()
    async with AsyncExitStack() as stack:
        tasks = [
            await stack.enter_async_context(polling(place, "?offset=now&live=long-poll"))
            for _ in range(20)
        ]
        refused = await place.get("?offset=now&live=long-poll")
        assert (refused.status, refused.code) == (503, "overloaded")
        assert int(text_of(refused, "retry-after")) > 0
        await stream.append(1)
        assert {(await task).body for task in tasks} == {b"[1]"}
    assert place.hub.snapshot().polls == 0


@pytest.mark.parametrize("path", PATHS)
async def test_a_long_poll_that_hangs_up_leaves_nothing(tmp_path: Path, path: str) -> None:
    place = Place("sqlite", tmp_path, long_poll_s=30, rest_after_s=5)
    async with serving(place.hub, **PATHS[path]) as server:
        await place.create()
        async with connect(server.port) as connection:
            await connection.send("GET", "/v1/stream/a?offset=now&live=long-poll")
            await until(lambda: place.hub.snapshot().polls == 1)
            connection.hang_up()
            await until(lambda: place.hub.snapshot().polls == 0)
        await until(lambda: not server.server.server_state.tasks)
        place.clock.now += 6
        await place.hub.tick(place.clock())
        await until(lambda: place.store.listeners == 0)


# --- live=sse -----------------------------------------------------------------------------------


class Durable:
    """A reader of `live=sse`: pairs each batch with its control, and keeps what it was told."""

    def __init__(self, reader: EventReader) -> None:
        self.reader = reader
        self.values: list[Any] = []
        self.place = ""
        self.cursor = -1
        self.is_up_to_date = self.is_closed = False

    async def step(self) -> bool:
        """Take one control, with its data; False at the end of the body."""
        try:
            event = await self.reader.next()
        except AssertionError:
            return False
        values: list[Any] = []
        is_binary = "stream-sse-data-encoding" in self.reader.answer
        place = None
        if event.type == "data":
            values = [b64decode(event.data)] if is_binary else json.loads(event.data)
            place = event.last_event_id
            event = await self.reader.next()
        assert event.type == "control"
        said = json.loads(event.data)
        assert place in (None, said["streamNextOffset"]), "a batch ends where its control says"
        self.values += values
        self.place = said["streamNextOffset"]
        self.is_up_to_date = said.get("upToDate", False)
        self.is_closed = said.get("streamClosed", False)
        if self.is_closed:
            assert event.last_event_id == f"{self.place}~"
        else:
            self.cursor = int(said["streamCursor"])
        return True

    async def until(self, claim: Callable[[], object]) -> None:
        while not claim():
            assert await self.step(), "the body ended"

    async def rest(self) -> None:
        while await self.step():
            pass


@asynccontextmanager
async def live(
    port: int, offset: object, headers: dict[str, str] | None = None, **options: Any
) -> AsyncGenerator[Durable]:
    target = f"/v1/stream/a?offset={offset}&live=sse"
    async with open_events(port, target, headers, **options) as reader:
        assert reader.answer.status == 200, reader.answer
        assert reader.answer["content-type"] == "text/event-stream"
        yield Durable(reader)


@pytest.fixture(params=PATHS)
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    return PATHS[request.param]


async def test_a_reader_at_the_tail_is_told_so_and_then_what_comes(
    place: Place, options: dict[str, Any]
) -> None:
    stream = await place.create()
    await stream.append(1)
    async with serving(place.hub, **options) as server, live(server.port, "now") as reader:
        await reader.step()
        assert reader.reader.raw.startswith(b"event: control\ndata:"), "and nothing before it"
        assert (reader.values, reader.is_up_to_date) == ([], True)
        assert reader.place == str(stream.offset)
        await stream.append_batch(batch(2, 2))
        await reader.step()
        assert (reader.values, reader.is_up_to_date) == ([2, 3], True)
        await stream.close()
        await reader.rest()
        assert reader.is_closed
        if not options:
            assert await reader.reader.connection.is_closed()


async def test_binary_is_base64_in_events(place: Place, options: dict[str, Any]) -> None:
    stream = await place.create(BINARY)
    await stream.append(b"\0\1")
    await stream.append(b"\xff\n")
    await stream.close()
    async with serving(place.hub, **options) as server, live(server.port, "-1") as reader:
        await reader.rest()
        assert b"".join(reader.values) == b"\0\1\xff\n"


async def read_native(port: int, offset: str) -> tuple[list[int], list[int]]:
    """Every value from a place to the end, with its position."""
    headers = {} if offset == "-1" else {"Last-Event-ID": offset}
    async with open_events(port, "/v1/stream/a", headers) as reader:
        *records, end = await reader.rest()
        assert end.type == "end"
        assert {event.type for event in records} <= {"message"}
        positions = [parse_offset(event.last_event_id).position for event in records]
        return [int(event.data) for event in records], positions


async def read_sse(
    port: int, offset: str, rng: random.Random, **options: Any
) -> tuple[list[int], list[int]]:
    """The same by `live=sse`, hanging up now and then, and resuming where it was."""
    values: list[int] = []
    ends: list[int] = []
    while True:
        async with live(port, offset, **options) as reader:
            stays = rng.random() < 0.5
            while await reader.step():
                values, reader.values = values + reader.values, []
                offset = reader.place
                ends.append(parse_offset(offset).position)
                if reader.is_closed:
                    return values, ends
                if not stays and rng.random() < 0.2:
                    break


async def read_by_polls(port: int, offset: str) -> tuple[list[int], list[int]]:
    """The same by catch-up and long-polls."""
    values: list[int] = []
    ends: list[int] = []
    async with connect(port) as connection:
        while True:
            answer = await connection.ask("GET", f"/v1/stream/a?offset={offset}&live=long-poll")
            assert answer.status in (200, 204)
            values += answer.json if answer.status == 200 else []
            offset = next_of(answer)
            ends.append(parse_offset(offset).position)
            if "stream-closed" in answer:
                return values, ends


async def test_readers_of_every_kind_get_each_record_once(
    place: Place, options: dict[str, Any]
) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    count = 4000
    stream = await place.create()
    await stream.append_batch(batch(0, 500))
    async with serving(place.hub, **options) as server:

        async def read(kind: str) -> None:
            while stream.end is None and rng.random() < 0.7:
                await asyncio.sleep(0.005)
            place_ = rng.randint(0, stream.offset.position)
            after = str(Offset(stream.head.epoch, place_)) if place_ else "-1"
            if kind == "native":
                values, ends = await read_native(server.port, after)
                assert ends == list(range(place_ + 1, count + 501))
            elif kind == "sse":
                values, ends = await read_sse(server.port, after, rng)
            elif kind == "slow":
                values, ends = await read_sse(server.port, after, rng, receive_buffer=2048)
            else:
                values, ends = await read_by_polls(server.port, after)
            assert values == list(range(place_, count + 500)), kind
            assert ends == sorted(ends)
            assert ends[-1] == count + 500

        kinds = ["native", "sse", "sse", "slow", "poll"] * 3
        readers = [asyncio.create_task(read(kind)) for kind in kinds]
        numbers = [NewRecord(b"%d" % number) for number in range(500, count + 500)]
        await feed(stream, numbers, rng)
        async with asyncio.timeout(30):
            await asyncio.gather(*readers)
        snapshot = place.hub.snapshot
        await until(lambda: not snapshot().readers_fast + snapshot().readers_portable)
        assert snapshot().polls == 0


async def feed(stream: Stream, records: list[NewRecord], rng: random.Random) -> None:
    """Append in batches of all sizes, together and one after the other, and close."""
    works: list[asyncio.Task[Offset]] = []
    while records:
        size = rng.choice([1, 1, 1, 2, 5, 40, 300])
        works.append(asyncio.create_task(stream.append_batch(records[:size])))
        records = records[size:]
        if rng.random() < 0.3:
            await asyncio.gather(*works)
            works.clear()
        for _ in range(rng.randint(0, 6)):
            await asyncio.sleep(rng.choice([0, 0, 0.001]))
    await asyncio.gather(*works)
    await stream.close()


async def test_a_slow_reader_gets_everything_in_its_own_time(
    place: Place, options: dict[str, Any]
) -> None:
    stream = await place.create()
    payload = "x" * 10_000
    async with (
        serving(place.hub, **options) as server,
        live(server.port, "now", receive_buffer=4096) as slow,
        live(server.port, "now") as quick,
    ):
        await slow.step()
        for number in range(600):
            await stream.append([number, payload])
        await stream.close()
        await quick.rest()
        assert [value[0] for value in quick.values] == list(range(600))
        slow.reader.connection.widen()
        await slow.rest()
        assert [value[0] for value in slow.values] == list(range(600))
        assert slow.is_closed


async def test_a_body_that_is_old_ends_and_is_resumed_where_it_was(
    place: Place, options: dict[str, Any]
) -> None:
    stream = await place.create()
    lifetime_s = place.hub.settings.sse_lifetime_s
    async with serving(place.hub, **options) as server:
        async with (
            live(server.port, "-1") as reader,
            open_events(server.port, "/v1/stream/a") as native,
        ):
            await stream.append(1)
            await reader.until(lambda: reader.values == [1])
            place.clock.now += lifetime_s - 0.1
            await place.hub.tick(place.clock())
            await stream.append(2)
            await reader.until(lambda: reader.values == [1, 2])
            place.clock.now += 0.2
            await place.hub.tick(place.clock())
            await reader.rest()
            assert reader.values == [1, 2]
            assert not reader.is_closed
            await stream.append(3)
            assert [event.data for event in await native.take(3)] == ["1", "2", "3"]
        async with live(server.port, reader.place) as again:
            await again.step()
            assert again.values == [3]


async def test_an_event_source_resumes_after_the_last_batch_and_is_stopped_by_the_end(
    place: Place, options: dict[str, Any]
) -> None:
    stream = await place.create()
    first = await stream.append(1)
    await stream.append(2)
    async with serving(place.hub, **options) as server:
        # It asks the same address each time: its header wins over the query.
        async with live(server.port, "-1", {"Last-Event-ID": str(first)}) as reader:
            await reader.step()
            assert reader.values == [2]
            await stream.close()
            await reader.rest()
            assert reader.is_closed
        bare = {"Last-Event-ID": str(stream.offset), "Accept": "text/event-stream"}
        async with live(server.port, "-1", bare) as again:
            await again.rest()
            assert (again.values, again.is_closed) == ([], True)
        marked = {"Last-Event-ID": stream.offset.end_id, "Accept": "text/event-stream"}
        answer = await ask(server.port, "GET", "/v1/stream/a?offset=-1&live=sse", marked)
        assert answer.status == 204
        in_query = await ask(
            server.port, "GET", f"/v1/stream/a?offset={stream.offset.end_id}&live=sse"
        )
        assert in_query.status == 204


async def test_the_mark_of_an_end_stops_nobody_while_the_stream_is_open(place: Place) -> None:
    stream = await place.create()
    await stream.append(1)
    async with serving(place.hub) as server, live(server.port, stream.offset.end_id) as reader:
        await reader.step()
        await stream.append(2)
        await reader.step()
        assert reader.values == [2]


async def test_a_gap_under_a_live_reader_ends_its_body(
    place: Place, options: dict[str, Any]
) -> None:
    stream = await place.create(retention=Retention(max_bytes=100_000))
    payload = "x" * 10_000
    async with serving(place.hub, **options) as server:
        async with live(server.port, "now", receive_buffer=4096) as reader:
            await reader.step()
            for number in range(1000):
                await stream.append([number, payload])
            reader.reader.connection.widen()
            await reader.rest()
            numbers = [value[0] for value in reader.values]
            assert numbers == list(range(len(numbers))), "no record in the place of a lost one"
            assert len(numbers) < 1000
            assert not reader.is_closed
        gone = await ask(server.port, "GET", f"/v1/stream/a?offset={reader.place}&live=sse")
        assert (gone.status, gone.code) == (410, "offset-gone")


async def test_a_reader_is_told_of_the_end_when_its_stream_is_deleted(
    place: Place, options: dict[str, Any]
) -> None:
    stream = await place.create()
    await stream.append(1)
    async with serving(place.hub, **options) as server, live(server.port, "-1") as reader:
        await reader.until(lambda: reader.values)
        await place.hub.delete("a")
        await reader.rest()
        assert reader.values == [1]
        assert reader.is_closed


async def test_a_drain_ends_a_body_without_an_end(place: Place, options: dict[str, Any]) -> None:
    stream = await place.create()
    await stream.append(1)
    async with serving(place.hub, **options) as server, live(server.port, "-1") as reader:
        await reader.until(lambda: reader.values)
        await place.hub.drain()
        await reader.rest()
        assert not reader.is_closed
        refused = await ask(server.port, "GET", "/v1/stream/a?offset=-1&live=sse")
        assert (refused.status, refused.code) == (503, "draining")


async def test_every_later_cursor_is_beyond_the_one_a_reader_came_with(
    place: Place, options: dict[str, Any]
) -> None:
    stream = await place.create()
    async with (
        serving(place.hub, **options) as server,
        live(server.port, "now") as other,
        live(server.port, "now&cursor=88888888888") as reader,
    ):
        for number in range(3):
            await stream.append(number)
            await reader.step()
            assert reader.cursor > 88888888888
        await other.until(lambda: len(other.values) == 3)
        assert other.cursor > 88888888888
    await turns()


# --- while the store is read --------------------------------------------------------------------


async def test_what_is_trimmed_while_a_page_is_read_is_gone(tmp_path: Path) -> None:
    place = Place("sqlite", tmp_path)
    async with place.hub:
        stream = await place.create(retention=Retention(max_records=5))
        await stream.append_batch(batch(0, 5))
        place.store.reads.shut()
        answer = asyncio.create_task(place.get("?offset=-1"))
        await until(lambda: place.store.reads.waiting)
        await stream.append_batch(batch(5, 3))
        place.store.reads.open()
        assert (await answer).code == "offset-gone"


async def test_a_page_does_not_begin_behind_records_that_are_gone(tmp_path: Path) -> None:
    """The store has dropped them, and nobody was told of it yet."""
    place = Place("sqlite", tmp_path)
    async with place.hub:
        stream = await place.create(retention=Retention(max_records=5))
        await stream.append_batch(batch(0, 5))
        place.store.news.shut()
        await stream.append_batch(batch(5, 3))
        for live in LIVES[:2]:
            assert (await place.get(f"?offset={stream.head.earliest_offset}{live}")).status == 410
        place.store.news.open()
        assert (await place.get()).body == b"[3,4,5,6,7]"


async def test_no_page_hides_that_records_before_it_are_gone(tmp_path: Path) -> None:
    """The store trims while it is read: whoever reads on gets its next record, or 410."""
    place = Place("sqlite", tmp_path)
    async with place.hub:
        stream = await place.create(retention=Retention(max_records=40))
        await stream.append_batch(batch(0, 40))
        is_over = False

        async def read() -> int:
            pages = 0
            while not is_over:
                after = stream.head.earliest_offset
                for _ in range(3):
                    answer = await place.get(f"?offset={after}")
                    if answer.status == 410:
                        break
                    values = json.loads(answer.body)
                    expected = list(range(after.position, after.position + len(values)))
                    assert values == expected, "a page begins with the record after its place"
                    after = parse_offset(next_of(answer))
                    pages += 1
            return pages

        readers = [asyncio.create_task(read()) for _ in range(4)]
        number = 40
        for _ in range(400):
            await stream.append_batch(batch(number, 30))
            number += 30
        is_over = True
        assert sum(await asyncio.gather(*readers)) > 0
