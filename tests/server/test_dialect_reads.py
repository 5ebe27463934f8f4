"""`?dialect=` over HTTP: on both paths and both backends, from any place, to any end.

A body is compared byte by byte with what one writer gives that is fed every record.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from inprocess import Called, Clock, HeldStore, call, scope_of, serving, turns, until
from llm.plain_clients import CLIENTS
from llm.writing import START, STOP, USAGE
from penstock.backends.memory import MemoryBackend
from penstock.core.cursor import Offset
from penstock.core.errors import StoreFailed
from penstock.core.log import Retention
from penstock.core.record import Batch, EndReason, NewRecord
from penstock.llm.events import Text
from penstock.llm.write.dialects import OUT_DIALECTS, find_out_dialect
from penstock.llm.write.writer import HEARTBEAT
from penstock.server.app import ServerApp
from penstock.server.asgi import Message
from penstock.server.dialects import MAX_DIALECTS, PAGE_RECORDS, DialectKind
from penstock.server.endpoints.dialect import WITH_IDS, serve_dialect
from penstock.server.hub import Hub, Stream
from penstock.wire.sse import Decoder, Event
from raw_http import events as open_events
from server.dialect_oracle import (
    OPENING,
    Oracle,
    record_of,
    records_of,
    small_steps,
    without_heartbeats,
)

BACKENDS = ("memory", "sqlite")
PATHS: dict[str, dict[str, Any]] = {"fast": {}, "portable": {"http": "httptools"}}
SDKS = [name for name in OUT_DIALECTS if name != "native"]
EVERY_DIALECT = pytest.mark.parametrize("dialect", OUT_DIALECTS)
EVERY_SDK = pytest.mark.parametrize("dialect", SDKS)
EVERY_PATH = pytest.mark.parametrize("path", PATHS)
HELLO = [record_of(event) for event in (START, Text(text="Hel"), Text(text="lo"), STOP, USAGE)]


class Place:
    """A hub whose clocks are moved by hand."""

    def __init__(self, kind: str, directory: Path, **settings: Any) -> None:
        self.clock, self.wall = Clock(1000.0), Clock()
        self.store = HeldStore(str(directory / "store.db"), wall_clock=self.wall)
        memory = MemoryBackend(clock=self.clock, wall_clock=self.wall)
        settings = {"drain_s": 0.1} | settings
        self.hub = Hub(memory if kind == "memory" else self.store, clock=self.clock, **settings)
        self.app = ServerApp(self.hub)

    async def get(
        self, query: str, headers: dict[str, str] | None = None, method: str = "GET"
    ) -> Called:
        """Read `a`, as a client that stays for its answer."""
        pairs = [(key.lower().encode(), value.encode()) for key, value in (headers or {}).items()]
        return await call(self.app, method, f"/v1/stream/a{query}", pairs, stays=True)

    async def answer(
        self, records: list[NewRecord] = HELLO, end: EndReason | None = EndReason.COMPLETE
    ) -> Stream:
        """The stream `a` with an answer in it."""
        stream = await self.hub.create("a")
        for start in range(0, len(records) + 1, 1000):
            page = [*([OPENING] if not start else []), *records[start : start + 1000]]
            if page:
                await stream.append_batch(page)
        if end is not None:
            await stream.close(end)
        return stream


@pytest.fixture(params=BACKENDS)
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Place]:
    place = Place(request.param, tmp_path)
    async with place.hub:
        yield place


def kind_of(dialect: str) -> DialectKind:
    """What a query that names a dialect asks for."""
    return DialectKind(dialect, has_ids=dialect in WITH_IDS)


async def wanted(stream: Stream, kind: DialectKind, after: int = 0) -> bytes:
    return Oracle(stream, await stream.records()).after(kind, after)


def events_of(body: bytes) -> list[Event]:
    decoder = Decoder()
    decoder.receive_data(body)
    return decoder.events()


# --- where a reader begins ----------------------------------------------------------------------


@EVERY_DIALECT
async def test_an_answer_is_read_as_its_client_expects_it(place: Place, dialect: str) -> None:
    stream = await place.answer()
    called = await place.get(f"?dialect={dialect}")
    assert (called.status, called.heads) == (200, 1)
    assert called.header(b"content-type") == b"text/event-stream"
    assert called.header(b"cache-control") == b"no-cache, no-store, no-transform"
    assert called.header(b"stream-next-offset") == str(stream.offset).encode()
    for name, value in find_out_dialect(dialect).headers:
        assert called.header(name.encode()) == value.encode()
    assert called.body.startswith(HEARTBEAT), "a byte of the body goes out with the head"
    assert called.body == HEARTBEAT + await wanted(stream, kind_of(dialect))
    lines = called.body.splitlines(keepends=True)[1:]
    shown = CLIENTS[dialect](b"".join(line for line in lines if not line.startswith(b"id: ")))
    assert (shown.text, shown.end) == ("Hello", "stop")


@EVERY_DIALECT
async def test_whoever_comes_at_any_record_gets_the_same_bytes(place: Place, dialect: str) -> None:
    """At each place there is, by the query, while it runs as well as afterwards."""
    records = records_of(7)
    stream = await place.answer(records, end=None)
    kind = kind_of(dialect)
    for end in (None, EndReason.COMPLETE):
        if end is not None:
            await stream.close(end)
        for position in range(stream.head.tail + 1):
            after = Offset(stream.head.epoch, position)
            expected = HEARTBEAT + await wanted(stream, kind, position)
            async with reading(place, f"?dialect={dialect}&offset={after}") as body:
                await until(lambda: len(body) >= len(expected))  # noqa: B023
                assert bytes(body) == expected


@asynccontextmanager
async def reading(place: Place, query: str) -> AsyncGenerator[bytearray]:
    """A portable reader of `a`, with what it has got so far."""
    body = bytearray()
    gone = asyncio.Event()

    async def receive() -> Message:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        body.extend(message.get("body", b""))

    scope = scope_of("GET", f"/v1/stream/a{query}".encode())
    serving = asyncio.create_task(place.app(scope, receive, send))
    try:
        yield body
    finally:
        gone.set()
        await serving


@pytest.mark.parametrize("dialect", sorted(WITH_IDS))
async def test_who_has_ids_comes_back_where_it_was(place: Place, dialect: str) -> None:
    stream = await place.answer(records_of(11))
    whole = events_of((await place.get(f"?dialect={dialect}")).body)
    seen = ""
    for number, event in enumerate(whole):
        if event.last_event_id == seen:
            continue  # not the last event of its record
        seen = event.last_event_id
        rest = await place.get(f"?dialect={dialect}", {"Last-Event-ID": seen})
        if seen == stream.offset.end_id:
            assert (rest.status, rest.body) == (204, b"")
        else:
            assert events_of(rest.body)[:1] != []
            assert [e.data for e in events_of(rest.body)] == [e.data for e in whole[number + 1 :]]
    assert seen == stream.offset.end_id
    again = await place.get(f"?dialect={dialect}", {"Last-Event-ID": str(stream.offset)})
    assert [e.data for e in events_of(again.body)] == [
        e.data for e in events_of(await wanted(stream, kind_of(dialect), stream.head.tail))
    ]


@pytest.mark.parametrize("dialect", ["openai-chat", "openai-responses"])
async def test_who_has_no_ids_begins_at_the_beginning(place: Place, dialect: str) -> None:
    """Whatever a browser remembers of another body; a query is asked on purpose."""
    stream = await place.answer()
    whole = await place.get(f"?dialect={dialect}")
    assert b"\nid: " not in whole.body
    for header in (str(stream.offset), stream.offset.end_id, "nonsense"):
        again = await place.get(f"?dialect={dialect}", {"Last-Event-ID": header})
        assert again.body == whole.body
    tail = await place.get(f"?dialect={dialect}&offset=now")
    assert tail.body == HEARTBEAT + await wanted(stream, kind_of(dialect), stream.head.tail)
    over = await place.get(f"?dialect={dialect}&last_event_id={stream.offset.end_id}")
    assert over.status == 204


async def test_responses_go_on_after_an_event_by_its_number(place: Place) -> None:
    await place.answer()
    whole = events_of((await place.get("?dialect=openai-responses")).body)
    for after in range(len(whole)):
        rest = await place.get(f"?dialect=openai-responses&starting_after={after}")
        assert [e.data for e in events_of(rest.body)] == [e.data for e in whole[after + 1 :]]
    for text in ("", "-1", "x", "1.5", "9" * 16, "%D9%A1"):
        called = await place.get(f"?dialect=openai-responses&starting_after={text}")
        assert (called.status, called.code) == (400, "query-malformed")
    # Nobody else numbers events.
    assert (await place.get("?dialect=vercel&starting_after=x")).status == 200


async def test_head_says_what_a_read_would(place: Place) -> None:
    stream = await place.answer()
    for dialect in OUT_DIALECTS:
        got = await place.get(f"?dialect={dialect}")
        head = await place.get(f"?dialect={dialect}", method="HEAD")
        assert (head.status, head.body, head.headers) == (200, b"", got.headers)
    assert stream.readers == 0


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("?dialect=morse", 400, "query-malformed"),
        ("?dialect=", 400, "query-malformed"),
        ("?dialect=OPENAI-CHAT", 400, "query-malformed"),
        ("?dialect=vercel&live=sse&offset=-1", 400, "query-malformed"),
        ("?dialect=vercel&live=long-poll&offset=-1", 400, "query-malformed"),
        ("?dialect=vercel&compact=1", 400, "query-malformed"),
        ("?dialect=vercel&heartbeat=event", 400, "query-malformed"),
        ("?dialect=vercel&offset=nonsense", 400, "offset-malformed"),
        ("?dialect=openai-chat&last_event_id=nonsense", 400, "offset-malformed"),
        ("?dialect=vercel&live=events", 200, ""),
        ("?dialect=vercel&compact=0", 200, ""),
    ],
)
async def test_what_makes_no_sense_is_refused(
    place: Place, query: str, status: int, code: str
) -> None:
    await place.answer()
    called = await place.get(query)
    assert called.status == status
    if code:
        assert called.code == code


async def test_a_stream_that_is_not_there_or_no_json_has_no_dialect(place: Place) -> None:
    for headers in ({}, {"Last-Event-ID": "1tfp311"}):
        called = await place.get("?dialect=vercel", headers)
        assert (called.status, called.code) == (404, "stream-not-found")
    await place.hub.create("a", content_type="text/plain")
    called = await place.get("?dialect=vercel")
    assert (called.status, called.code) == (400, "query-malformed")


# --- what is written around the events ----------------------------------------------------------


async def test_any_stream_can_be_read_and_says_the_same_to_everybody(place: Place) -> None:
    stream = await place.hub.create("a")
    for record in HELLO:
        await stream.append_batch([record])
    await stream.close()
    bodies: dict[str, set[bytes]] = {}
    for dialect in OUT_DIALECTS:
        for _ in range(2):
            called = await place.get(f"?dialect={dialect}")
            assert called.body == HEARTBEAT + await wanted(stream, kind_of(dialect))
            bodies.setdefault(dialect, set()).add(called.body)
            stream.drop_unread(place.clock() + 1e9, 0.0)
    assert {len(found) for found in bodies.values()} == {1}
    chunk = json.loads(events_of(bodies["openai-chat"].pop())[0].data)
    assert chunk["created"] == pytest.approx(place.wall(), abs=5), "when the stream was made"


async def test_a_stream_with_nothing_in_it_ends_as_its_dialect_ends(place: Place) -> None:
    stream = await place.hub.create("a")
    await stream.close()
    for dialect in OUT_DIALECTS:
        called = await place.get(f"?dialect={dialect}")
        assert called.body == HEARTBEAT + await wanted(stream, kind_of(dialect))
        assert len(called.body) > len(HEARTBEAT)


async def test_an_opening_that_comes_after_its_readers_is_heeded(place: Place) -> None:
    stream = await place.hub.create("a")
    async with reading(place, "?dialect=openai-chat") as early:
        await until(lambda: stream.readers)
        await stream.append_batch([OPENING, *HELLO])
        await stream.close()
        await until(lambda: b"[DONE]" in early)
        assert bytes(early) == (await place.get("?dialect=openai-chat")).body
    assert b"chatcmpl-0f5c2a9b" in early


# --- many readers, live -------------------------------------------------------------------------


async def produced(seed: int, gate: asyncio.Event) -> AsyncIterator[Batch | NewRecord]:
    """An answer that comes in batches at random moments."""
    draw = random.Random(seed)
    records = [record for _ in range(12) for record in records_of(seed)]
    await gate.wait()
    while records:
        count = draw.randint(1, 9)
        batch, records = records[:count], records[count:]
        yield batch[0] if count == 1 else Batch(batch)
        for _ in range(draw.choice([0, 0, 1, 5, 20])):
            await asyncio.sleep(0)
    yield Batch(HELLO[-1:], draw.choice([EndReason.COMPLETE, EndReason.LIMIT, EndReason.FAILED]))


@EVERY_PATH
@pytest.mark.parametrize("steps", [PAGE_RECORDS, 7])
async def test_many_readers_at_random_places_get_the_same_answer(
    place: Place, path: str, steps: int
) -> None:
    with small_steps(steps, kept=3, tail=2000) if steps < PAGE_RECORDS else nullcontext():
        await many_readers(place, path)


async def many_readers(place: Place, path: str) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    gate = asyncio.Event()
    async with serving(place.hub, **PATHS[path]) as server:
        stream = await place.hub.start("a", produced(seed, gate), opening=[OPENING])

        async def read(dialect: str, delay: int) -> tuple[str, int, bytes]:
            await turns(delay)
            position = draw.randint(0, stream.head.tail) if dialect in WITH_IDS else 0
            offset = Offset(stream.head.epoch, position)
            target = f"/v1/stream/a?dialect={dialect}&offset={offset}"
            async with open_events(server.port, target) as reader:
                while await reader.more():
                    await turns(draw.choice([0, 1, 30]))
                return dialect, position, reader.raw

        readers = [
            asyncio.create_task(read(draw.choice(list(OUT_DIALECTS)), draw.randrange(400)))
            for _ in range(24)
        ]
        gate.set()
        async with asyncio.timeout(30):
            results = await asyncio.gather(*readers)
        for dialect, position, body in results:
            expected = await wanted(stream, kind_of(dialect), position)
            assert without_heartbeats(body) == expected, (dialect, position)
    assert place.hub.snapshot().readers_fast + place.hub.snapshot().readers_portable == 0


@EVERY_PATH
async def test_a_slow_reader_that_was_paused_for_long_gets_it_all(place: Place, path: str) -> None:
    """Megabytes later, when nothing of what it lacks is ready made any more."""
    records = [record_of(Text(text=f"{number} " + "x" * 1000)) for number in range(4000)]
    async with serving(place.hub, **PATHS[path]) as server:
        stream = await place.answer([], end=None)
        targets = [f"/v1/stream/a?dialect={name}" for name in ("openai-chat", "openai-responses")]
        async with AsyncExitStack() as stack:
            slow = [
                await stack.enter_async_context(
                    open_events(server.port, target, receive_buffer=4096)
                )
                for target in targets
            ]
            await until(lambda: stream.readers == len(slow))
            for start in range(0, len(records), 100):
                await stream.append_batch(records[start : start + 100])
                await turns(3)
            await stream.close()
            for reader, name in zip(slow, ("openai-chat", "openai-responses"), strict=True):
                reader.connection.widen()
                while await reader.more():
                    pass
                assert without_heartbeats(reader.raw) == await wanted(stream, kind_of(name))


@EVERY_DIALECT
async def test_a_long_answer_is_made_once_and_a_little_at_a_time(
    place: Place, dialect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Late joiners of the same answer share what was made of it."""
    made = 0
    records = [record_of(Text(text=f"{number} ")) for number in range(PAGE_RECORDS * 3)]
    stream = await place.answer(records)
    view = stream.view(kind_of(dialect))
    write = view.form.shown  # type: ignore[attr-defined]

    def counted(run: bytes, position: int) -> bytes:
        nonlocal made
        made += 1
        return write(run, position)

    monkeypatch.setattr(view.form, "shown", counted)
    bodies = {(await place.get(f"?dialect={dialect}")).body for _ in range(3)}
    assert bodies == {HEARTBEAT + await wanted(stream, kind_of(dialect))}
    assert made == len(records)


# --- signs of life, drains, gaps, stores that fail ----------------------------------------------


@EVERY_PATH
@EVERY_DIALECT
async def test_heartbeats_come_between_events_only(tmp_path: Path, path: str, dialect: str) -> None:
    place = Place("memory", tmp_path, heartbeat_s=1)
    async with serving(place.hub, **PATHS[path]) as server:
        stream = await place.answer([], end=None)
        async with open_events(server.port, f"/v1/stream/a?dialect={dialect}") as reader:
            await until(lambda: stream.readers)
            for record in HELLO:
                await stream.append_batch([record, NewRecord(b"1", "note")])
                await turns(20)
                place.clock.now += 2
                await place.hub.tick(place.clock())
                await turns(20)
            await stream.close()
            while await reader.more():
                pass
        assert reader.raw.count(b"\n" + HEARTBEAT) >= len(HELLO) - 1
        assert without_heartbeats(reader.raw) == await wanted(stream, kind_of(dialect))


async def test_records_that_show_nothing_do_not_silence_heartbeats(tmp_path: Path) -> None:
    place = Place("memory", tmp_path, heartbeat_s=10)
    async with serving(place.hub) as server:
        stream = await place.answer([], end=None)
        async with open_events(server.port, "/v1/stream/a?dialect=openai-chat") as reader:
            await until(lambda: stream.readers)
            for _ in range(5):
                await stream.append(1, type="note")
                await turns(20)
                place.clock.now += 3
                await place.hub.tick(place.clock())
            await reader.until(HEARTBEAT * 2)


def is_error(dialect: str, body: bytes) -> bool:
    """Whether a client of the dialect takes a body for an answer that went wrong."""
    return CLIENTS[dialect](body).end == "failed"


@EVERY_PATH
@EVERY_SDK
async def test_a_drain_is_an_error_and_no_early_end(place: Place, path: str, dialect: str) -> None:
    """Clients take an early end for a success; what they had stays as it was."""
    async with serving(place.hub, **PATHS[path]) as server:
        stream = await place.answer(HELLO[:2], end=None)
        target = f"/v1/stream/a?dialect={dialect}"
        async with open_events(server.port, target) as level:
            await level.until(b"Hel")
            await until(lambda: stream.view(kind_of(dialect)).is_read)
            before = without_heartbeats(level.raw)
            await place.hub.drain()
            while await level.more():
                pass
        body = without_heartbeats(level.raw)
        assert body.startswith(before)
        told = body[len(before) :]
        assert b"\nid: " not in told
        assert b"this server goes away" in told
        for start in (b"message_start", b"response.created", b"RUN_STARTED", b'"role"'):
            assert start not in told, "one start is enough"
        plain = b"".join(x for x in body.splitlines(keepends=True) if not x.startswith(b"id: "))
        if dialect != "openai-responses":  # whose plain client wants the whole repeated
            assert is_error(dialect, plain)


@EVERY_SDK
async def test_a_drain_before_anything_came_has_a_start_too(tmp_path: Path, dialect: str) -> None:
    place = Place("memory", tmp_path)
    async with serving(place.hub) as server:
        stream = await place.answer([], end=None)
        async with open_events(server.port, f"/v1/stream/a?dialect={dialect}") as reader:
            await until(lambda: stream.readers)
            await place.hub.drain()
            while await reader.more():
                pass
    assert is_error(dialect, without_heartbeats(reader.raw))


async def test_our_own_dialect_has_words_for_a_drain_and_a_gap(place: Place) -> None:
    async with serving(place.hub) as server:
        stream = await place.hub.create("a", retention=Retention(max_records=2))
        await stream.append_batch(HELLO)
        async with open_events(server.port, "/v1/stream/a?dialect=native") as reader:
            gap, stop, usage = await reader.take(3)
            assert (gap.type, stop.type, usage.type) == ("gap", "stop", "usage")
            await place.hub.drain()
            (drain,) = await reader.rest()
            assert drain.type == "drain"


@EVERY_SDK
async def test_an_answer_whose_beginning_is_gone_is_gone(place: Place, dialect: str) -> None:
    """Nothing can be written from its middle."""
    stream = await place.hub.create("a", retention=Retention(max_records=2))
    await stream.append_batch(HELLO)
    for query in ("", f"&offset={stream.offset}"):
        called = await place.get(f"?dialect={dialect}{query}")
        assert (called.status, called.code) == (410, "offset-gone")


@EVERY_PATH
@EVERY_SDK
async def test_a_reader_that_fell_off_the_log_is_told_an_error(
    tmp_path: Path, path: str, dialect: str
) -> None:
    place = Place("memory", tmp_path)
    async with serving(place.hub, **PATHS[path]) as server:
        retention = Retention(max_records=200)
        stream = await place.hub.create("a", retention=retention)
        await stream.append_batch([OPENING, record_of(START)])
        target = f"/v1/stream/a?dialect={dialect}"
        async with open_events(server.port, target, receive_buffer=4096) as slow:
            await until(lambda: stream.readers)
            await turns(50)
            long = record_of(Text(text="x" * 5000))
            for _ in range(200):
                await stream.append_batch([long] * 10)
                await turns(2)
            slow.connection.widen()
            while await slow.more():
                pass
        assert b"is kept no longer" in slow.raw[-3000:]
        assert slow.raw.endswith(b"\n\n")


@EVERY_PATH
@EVERY_SDK
async def test_a_store_that_cannot_be_read_is_an_error(
    tmp_path: Path, path: str, dialect: str
) -> None:
    class Broken(HeldStore):
        async def read(self, *args: Any) -> Any:
            raise StoreFailed(self.path, "the disk is gone")

    place = Place("sqlite", tmp_path)
    place.hub = Hub(Broken(str(tmp_path / "broken.db")))
    async with serving(place.hub, **PATHS[path]) as server:
        await place.answer()
        async with open_events(server.port, f"/v1/stream/a?dialect={dialect}") as reader:
            while await reader.more():
                pass
    assert b"cannot be read now" in reader.raw
    assert is_error(dialect, without_heartbeats(reader.raw))


# --- ends ---------------------------------------------------------------------------------------


@EVERY_DIALECT
async def test_an_answer_is_the_same_after_a_restart(tmp_path: Path, dialect: str) -> None:
    """One that ended, and one whose process went away: that is lost, and told as an error."""
    never = asyncio.Event()

    async def half() -> AsyncIterator[Batch]:
        yield Batch(HELLO[:3])
        await never.wait()

    place = Place("sqlite", tmp_path)
    async with place.hub:
        stream = await place.answer()
        whole = (await place.get(f"?dialect={dialect}")).body
        await place.hub.start("half", half(), opening=[OPENING])
        await until(lambda: place.hub.streams_in_use["half"].head.tail == 4)
    place = Place("sqlite", tmp_path)
    async with place.hub:
        assert (await place.get(f"?dialect={dialect}")).body == whole
        lost = await place.hub.get("half")
        assert lost.end is EndReason.LOST
        called = await call(place.app, "GET", f"/v1/stream/half?dialect={dialect}", stays=True)
        assert called.body == HEARTBEAT + await wanted(lost, kind_of(dialect))
        for after in (str(stream.offset), stream.offset.end_id):
            rest = await place.get(f"?dialect={dialect}&offset={after}")
            assert rest.status == (204 if after.endswith("~") else 200)


@EVERY_PATH
@EVERY_DIALECT
async def test_a_cancel_shows_the_last_words_and_then_the_end(
    place: Place, path: str, dialect: str
) -> None:
    async def source() -> AsyncIterator[Batch]:
        yield Batch(HELLO[:2])
        await asyncio.Event().wait()

    async with serving(place.hub, **PATHS[path]) as server:
        stream = await place.hub.start(
            "a", source(), opening=[OPENING], last_words=lambda _: [record_of(USAGE)]
        )
        async with open_events(server.port, f"/v1/stream/a?dialect={dialect}") as reader:
            await reader.until(b"Hel")
            assert await stream.cancel()
            while await reader.more():
                pass
        assert (await stream.records())[-1].type == "usage"
        assert without_heartbeats(reader.raw) == await wanted(stream, kind_of(dialect))
        plain = b"".join(
            line
            for line in without_heartbeats(reader.raw).splitlines(keepends=True)
            if not line.startswith(b"id: ")
        )
        shown = CLIENTS[dialect](plain)
        assert shown.end == "cancelled"
        assert shown.usage is not None


async def test_a_stream_that_is_deleted_is_an_error_for_who_was_behind(place: Place) -> None:
    await place.answer(HELLO[:2], end=None)
    async with reading(place, "?dialect=openai-chat") as body:
        await until(lambda: b"Hel" in body)
        await place.hub.delete("a")
        await until(lambda: b"[DONE]" in body)
        assert b'"error"' in body


# --- how much at once ---------------------------------------------------------------------------


async def test_a_stream_is_read_in_so_many_ways_at_once(place: Place) -> None:
    stream = await place.answer([], end=None)
    async with AsyncExitStack() as stack:
        for after in range(MAX_DIALECTS):
            query = f"?dialect=openai-responses&starting_after={after}"
            await stack.enter_async_context(reading(place, query))
        await until(lambda: stream.readers == MAX_DIALECTS)
        refused = await place.get("?dialect=vercel")
        assert (refused.status, refused.code) == (503, "overloaded")
        assert (await place.get("?dialect=openai-responses&starting_after=1", method="HEAD")).status
    await until(lambda: not stream.readers)
    # What nobody reads any more makes room at once.
    await stream.close()
    assert (await place.get("?dialect=vercel")).status == 200


async def test_what_nobody_reads_is_let_go_of_in_time(place: Place) -> None:
    stream = await place.answer()
    kind = kind_of("vercel")
    await place.get("?dialect=vercel")
    view = stream.view(kind)
    await place.hub.tick(place.clock())
    assert stream.view(kind) is view, "a page that is loaded again finds it ready made"
    place.clock.now += place.hub.settings.rest_after_s + 1
    async with reading(place, "?dialect=native&offset=now"):
        await place.hub.tick(place.clock())
    assert stream.view(kind) is not view


async def test_a_server_that_is_full_or_goes_away_says_so_with_a_status(tmp_path: Path) -> None:
    place = Place("memory", tmp_path, max_readers=1)
    async with place.hub:
        stream = await place.answer([], end=None)
        async with reading(place, "?dialect=vercel"):
            await until(lambda: stream.readers)
            events = {"Accept": "text/event-stream"}
            called = await place.get("?dialect=vercel", events)
            assert (called.status, called.code) == (503, "overloaded")
        place.hub.is_draining = True
        called = await place.get("?dialect=vercel", events)
        assert (called.status, called.code) == (503, "draining")
        place.hub.is_draining = False


async def test_a_post_can_be_answered_with_a_stream_in_a_dialect(place: Place) -> None:
    """As a gateway does, with headers of its own."""
    stream = await place.answer()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        kind = DialectKind("openai-chat")
        await serve_dialect(stream, kind, scope, receive, send, headers=[(b"x-own", b"1")])

    called = await call(app, "POST", "/v1/chat/completions", body=b"{}", stays=True)
    assert called.header(b"x-own") == b"1"
    assert called.body == HEARTBEAT + await wanted(stream, DialectKind("openai-chat"))
