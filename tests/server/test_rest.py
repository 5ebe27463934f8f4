"""Streams at rest: what nobody reads, feeds or holds leaves memory, and nobody can tell.

A store keeps the log; the hub keeps what is in use. Time is moved by hand, and the store's answers
wait at gates, so that a read can be caught in the middle.
"""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from inprocess import Clock, HeldStore, HeldTransport, call, serving, turns, until
from penstock.backends.interface import StreamConfig
from penstock.core.errors import DiskFull, StreamNotFound
from penstock.core.log import Retention
from penstock.core.record import EndReason, NewRecord, Record
from penstock.core.subscription import Subscription
from penstock.server.fastpath import Writer
from penstock.server.hub import Hub, Stream
from penstock.server.stream import Kind
from raw_http import events as open_events

REST_S = 10.0
PATHS: dict[str, dict[str, Any]] = {"fast": {}, "portable": {"http": "httptools"}}


class Place:
    """A hub on a store, and its clocks."""

    def __init__(self, tmp_path: Path, **options: Any) -> None:
        self.clock, self.wall = Clock(1000.0), Clock()
        self.store = HeldStore(str(tmp_path / "store.db"), wall_clock=self.wall, **options)
        self.hub = Hub(self.store, clock=self.clock, rest_after_s=REST_S, drain_s=0.1)

    async def pass_time(self, seconds: float = REST_S + 1) -> None:
        """Let time pass, and have the hub look at it as often as it does."""
        for _ in range(2):
            self.clock.now += seconds / 2
            self.wall.now += seconds / 2
            await self.hub.tick(self.clock())
        await turns()
        gc.collect()
        await turns()

    async def values(self, name: str = "a") -> Any:
        answer = await call(self.hub.asgi, "GET", f"/stream/{name}", stays=True)
        return json.loads(answer.body)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncGenerator[Place]:
    place = Place(tmp_path)
    async with place.hub:
        yield place


async def filled(place: Place, name: str = "a", count: int = 3) -> weakref.ref[Stream]:
    """A stream with records; held by nobody."""
    stream = await place.hub.create(name)
    await stream.append_batch([NewRecord(b"%d" % number) for number in range(count)])
    return weakref.ref(stream)


def join(
    stream: Stream, after: int = 0, kind: Kind = "native", *, high: int = 65536
) -> HeldTransport:
    """A reader on the fast path; gives its peer."""
    transport = HeldTransport(high)
    writer = Writer(
        stream,
        stream.view(kind),
        Subscription(after),
        transport,
        opened_at=stream.hub.clock(),
    )
    writer.begin(b": hello\n\n")
    return transport


def data(peer: HeldTransport) -> list[str]:
    """What its records say, of those it took."""
    return [event.data for event in peer.events if event.type == "message"]


def kinds(peer: HeldTransport) -> list[str]:
    return [event.type for event in peer.events if event.type != "message"]


# --- leaving memory -----------------------------------------------------------------------------


async def test_idle_streams_leave_memory_with_their_listeners(place: Place) -> None:
    gone = [await filled(place, f"s{number}") for number in range(50)]
    await until(lambda: place.store.listeners == 50)
    await place.pass_time(REST_S - 1)
    assert place.hub.snapshot().streams_in_use == 50
    await place.pass_time()
    assert place.hub.snapshot().streams_in_use == 0
    assert [ref() for ref in gone] == [None] * 50
    assert place.store.listeners == 0


async def test_a_reader_that_comes_back_gets_everything(place: Place) -> None:
    gone = await filled(place)
    await place.pass_time()
    assert gone() is None
    assert await place.values() == [0, 1, 2]
    stream = await place.hub.get("a")
    peer = join(stream)
    await stream.append(3)
    await until(lambda: peer.take() or len(data(peer)) == 4)
    assert data(peer) == ["0", "1", "2", "3"]


async def test_a_stream_that_was_appended_to_meanwhile_is_not_missed(place: Place) -> None:
    await filled(place)
    await place.pass_time()
    await place.store.append("a", [NewRecord(b"3")])
    stream = await place.hub.get("a")
    peer = join(stream)
    await place.store.append("a", [NewRecord(b"4")], end=EndReason.COMPLETE)
    await until(lambda: peer.take() or peer.is_closing())
    assert data(peer) == ["0", "1", "2", "3", "4"]
    assert kinds(peer) == ["end"]


async def test_a_stream_that_somebody_holds_stays_one_object(place: Place) -> None:
    held = await place.hub.create("a")
    for round_ in range(3):
        await place.pass_time()
        assert place.hub.snapshot().streams_in_use == 0
        await held.append(round_)
        assert held.head.records == round_ + 1, "it hears its log while it rests"
        assert await place.hub.get("a") is held
        assert place.hub.snapshot().streams_in_use == 1
        assert place.store.listeners == 1
    await place.hub.delete("a")
    assert held.is_deleted
    assert place.store.listeners == 0


async def test_a_held_stream_that_is_deleted_while_it_rests_is_forgotten(place: Place) -> None:
    held = await place.hub.create("a")
    await place.pass_time()
    await place.store.delete("a")
    assert held.is_deleted
    with pytest.raises(StreamNotFound):
        await place.hub.get("a")
    again = await place.hub.create("a")
    assert again is not held
    assert again.head.epoch > held.head.epoch


async def test_resting_often_costs_a_held_stream_nothing(place: Place) -> None:
    held = await place.hub.create("a")
    await place.pass_time()
    await place.hub.get("a")
    before = len(weakref.finalize._registry)  # type: ignore[attr-defined]
    for _ in range(20):
        await place.pass_time()
        await place.hub.get("a")
    assert len(weakref.finalize._registry) <= before  # type: ignore[attr-defined]
    assert held.end is None


async def test_a_stream_that_is_read_or_fed_does_not_rest(place: Place) -> None:
    async def for_ever() -> AsyncIterator[int]:
        await asyncio.Event().wait()
        yield 0

    await place.hub.start("fed", for_ever())
    read = await place.hub.create("read")
    peer = join(read)
    await place.hub.create("idle")
    for _ in range(3):
        await place.pass_time()
        assert set(place.hub.streams_in_use) == {"fed", "read"}
    peer.hang_up()
    await turns()
    await place.pass_time()
    assert set(place.hub.streams_in_use) == {"fed"}


async def test_a_reader_of_a_held_stream_that_rested_has_heartbeats(place: Place) -> None:
    held = await place.hub.create("a")
    await place.pass_time()
    peer = join(held)
    await turns()
    peer.take()
    before = peer.body
    await place.pass_time(place.hub.settings.heartbeat_s * 2 + 2)
    peer.take()
    assert b": \n\n" in peer.body[len(before) :]


async def test_a_hub_that_is_run_again_hears_its_log(place: Place) -> None:
    held = await place.hub.create("a")
    await place.pass_time()
    await place.hub.stop()
    async with place.hub:
        stream = await place.hub.get("a")
        await stream.append(1)
        assert stream.head.records == 1
        peer = join(stream)
        await until(lambda: peer.take() or data(peer) == ["1"])
    assert held.name == "a"


async def test_a_rested_stream_that_expires_is_not_found(place: Place) -> None:
    await place.hub.create("a", ttl_s=60)
    await place.pass_time(61)
    with pytest.raises(StreamNotFound):
        await place.hub.get("a")
    assert place.store.listeners == 0


async def test_a_stream_made_again_before_it_is_heard_of_is_the_new_one(place: Place) -> None:
    await filled(place)
    await place.pass_time()
    place.store.heads.shut()
    getting = asyncio.create_task(place.hub.get("a"))
    await until(lambda: place.store.heads.waiting)
    await place.store.delete("a")
    await place.store.create("a", StreamConfig(content_type="text/plain"), [NewRecord(b"new")])
    place.store.heads.open()
    stream = await getting
    head, config = await place.store.head("a")
    assert (stream.head, stream.config) == (head, config)
    assert await place.hub.get("a") is stream
    peer = join(stream)
    await stream.append("more")
    await until(lambda: peer.take() or len(data(peer)) == 2)
    assert data(peer) == ["new", "more"]
    await until(lambda: place.store.listeners == 1)


async def test_a_stream_that_is_gone_before_it_is_heard_of_is_not_found(place: Place) -> None:
    await filled(place)
    await place.pass_time()
    place.store.heads.shut()
    getting = asyncio.create_task(place.hub.get("a"))
    await until(lambda: place.store.heads.waiting)
    await place.store.delete("a")
    place.store.heads.open()
    with pytest.raises(StreamNotFound):
        await getting
    await until(lambda: not place.store.listeners)
    assert place.hub.snapshot().streams_in_use == 0


# --- older records, from the store --------------------------------------------------------------


@asynccontextmanager
async def loading(place: Place, *afters: int) -> AsyncGenerator[tuple[Stream, list[HeldTransport]]]:
    """Readers of a stream that rested: what they lack is on its way from the store."""
    await filled(place, count=20)
    await place.pass_time()
    stream = await place.hub.get("a")
    place.store.reads.shut()
    place.store.read_from.clear()
    peers = [join(stream, after) for after in afters]
    await until(lambda: place.store.reads.waiting == len(set(afters)))
    yield stream, peers


async def finish(place: Place, *peers: HeldTransport) -> None:
    place.store.reads.open()
    await until(lambda: [peer.take() for peer in peers] and all(p.is_closing() for p in peers))
    for peer in peers:
        peer.take()


async def test_readers_at_the_same_place_share_one_load(place: Place) -> None:
    async with loading(place, 0, 0, 0, 7, 7) as (stream, peers):
        assert sorted(place.store.read_from) == [("a", 0), ("a", 7)]
        late = join(stream, 0)
        await turns()
        assert len(place.store.read_from) == 2, "it waits for the same"
        await stream.close()
        await finish(place, late, *peers)
        for peer, first in zip([late, *peers], [0, 0, 0, 0, 7, 7], strict=True):
            assert data(peer) == [str(number) for number in range(first, 20)]
            assert kinds(peer) == ["end"]


async def test_what_is_committed_during_the_load_comes_after_it_once(place: Place) -> None:
    async with loading(place, 0) as (stream, peers):
        for number in range(20, 25):
            await stream.append(number)
        await stream.close()
        await finish(place, *peers)
        assert data(peers[0]) == [str(number) for number in range(25)]


async def test_what_is_trimmed_during_the_load_is_a_gap(tmp_path: Path) -> None:
    place = Place(tmp_path)
    async with place.hub:
        stream = await place.hub.create("a", retention=Retention(max_records=10))
        await stream.append_batch([NewRecord(b"%d" % number) for number in range(10)])
        del stream
        await place.pass_time()
        stream = await place.hub.get("a")
        place.store.reads.shut()
        native, durable = join(stream), join(stream, 0, "durable")
        await until(lambda: place.store.reads.waiting)
        await stream.append_batch([NewRecord(b"%d" % number) for number in range(10, 14)])
        await stream.close()
        await finish(place, native, durable)
        assert kinds(native) == ["gap", "end"]
        gap = json.loads(native.events[0].data)
        assert gap["reason"] == "trimmed"
        assert data(native) == [str(number) for number in range(4, 14)]
        assert durable.events == [], "its reader asks again, and is told 410"


async def test_records_behind_a_gap_that_nobody_was_told_of_are_not_taken_for_the_next(
    tmp_path: Path,
) -> None:
    place = Place(tmp_path)
    async with place.hub:
        stream = await place.hub.create("a", retention=Retention(max_records=10))
        await stream.append_batch([NewRecord(b"%d" % number) for number in range(10)])
        del stream
        await place.pass_time()
        stream = await place.hub.get("a")
        place.store.news.shut()
        await place.store.append("a", [NewRecord(b"%d" % number) for number in range(10, 14)])
        peer = join(stream)
        await until(lambda: peer.take() or data(peer) or peer.is_closing())
        assert data(peer) == [], "it comes back, and is told of the gap"
        place.store.news.open()


async def test_a_stream_that_is_deleted_during_the_load_ends_for_its_readers(place: Place) -> None:
    async with loading(place, 0, 7) as (stream, peers):
        level = join(stream, 20)
        await place.store.delete("a")
        await finish(place, level, *peers)
        assert [kinds(peer) for peer in peers] == [["gap", "end"]] * 2
        assert kinds(level) == ["end"]
        assert [data(peer) for peer in [level, *peers]] == [[]] * 3


async def test_a_reader_that_hangs_up_during_the_load_is_gone(place: Place) -> None:
    async with loading(place, 0, 0) as (stream, peers):
        peers[0].hang_up()
        await turns()
        assert stream.readers == 1
        await stream.close()
        await finish(place, peers[1])
        assert len(data(peers[1])) == 20


async def test_a_drain_during_the_load_sends_the_reader_away(place: Place) -> None:
    async with loading(place, 0) as (_, peers):
        drain = asyncio.create_task(place.hub.drain())
        await turns()
        await finish(place, *peers)
        await drain
        assert kinds(peers[0]) == ["drain"]
        assert data(peers[0]) == []


async def test_stopping_the_hub_during_the_load_leaves_nothing_behind(place: Place) -> None:
    async with loading(place, 0) as (_, peers):
        stop = asyncio.create_task(place.hub.stop())
        await until(lambda: peers[0].take() or peers[0].is_closing())
        place.store.reads.open()
        await stop
        assert place.store.listeners == 0
        assert place.hub.snapshot().streams_in_use == 0


async def test_a_read_that_fails_ends_the_body_to_be_resumed(tmp_path: Path) -> None:
    class Failing(HeldStore):
        async def read(
            self, name: str, after: int, max_records: int, max_bytes: int
        ) -> Sequence[Record]:
            raise DiskFull(self.path)

    place = Place(tmp_path)
    place.store = Failing(str(tmp_path / "other.db"))
    place.hub = Hub(place.store, clock=place.clock, drain_s=0.1)
    async with place.hub:
        await filled(place)
        await place.pass_time()
        peer = join(await place.hub.get("a"))
        await until(lambda: peer.take() or peer.is_closing())
        assert peer.events == []


@pytest.mark.parametrize("path", PATHS)
async def test_readers_of_a_rested_stream_see_all_of_it_over_http(
    tmp_path: Path, path: str
) -> None:
    place = Place(tmp_path)
    payload = "x" * 1000
    async with serving(place.hub, **PATHS[path]) as server:
        stream = await place.hub.create("a")
        for start in range(0, 3000, 500):
            await stream.append_batch(
                [NewRecord(b'[%d,"%b"]' % (n, payload.encode())) for n in range(start, start + 500)]
            )
        del stream
        await place.pass_time()
        assert place.store.listeners == 0

        async def read() -> list[int]:
            async with open_events(server.port, "/v1/stream/a") as reader:
                return [json.loads(e.data)[0] for e in await reader.rest() if e.type == "message"]

        reading = [asyncio.create_task(read()) for _ in range(5)]
        await until(lambda: "a" in place.hub.streams_in_use)
        stream = await place.hub.get("a")
        for number in range(3000, 3100):
            await stream.append([number, payload])
        await stream.close()
        for values in await asyncio.gather(*reading):
            assert values == list(range(3100))
        del stream
        await until(lambda: not place.hub.snapshot().readers_fast)
        await place.pass_time()
        assert place.store.listeners == 0


# --- a log that took records back ---------------------------------------------------------------


async def test_readers_of_a_log_that_took_records_back_return_and_are_told_of_the_gap(
    tmp_path: Path,
) -> None:
    place = Place(tmp_path, durability="eager", max_pages=60)
    async with place.hub:
        stream = await place.hub.create("a")
        kept = await stream.append("kept")
        native, durable = join(stream), join(stream, 0, "durable")
        await until(lambda: native.take() or data(native))
        poll = asyncio.create_task(
            call(place.hub.asgi, "GET", f"/stream/a?offset={kept}&live=long-poll", stays=True)
        )
        await until(lambda: stream.polls)
        # Shown before its commit, which has no room.
        with pytest.raises(DiskFull):
            await stream.append("x" * 500_000)
        await until(lambda: (native.take(), durable.take()) and native.is_closing())
        assert kinds(native) == ["drain"]
        assert durable.is_closing()
        assert stream.head.epoch > kept.epoch
        assert (await poll).status in (200, 410)
        # They come back with a place of the log that was shown.
        shown = native.events[-2].last_event_id
        for target, expected in (
            (f"/stream/a?offset={shown}&live=sse", 410),
            (f"/stream/a?offset={shown}", 410),
            (f"/stream/a?offset={shown}&gap=410&live=events", 410),
        ):
            assert (await call(place.hub.asgi, "GET", target)).status == expected
        await stream.append("after")
        await stream.close()
        answer = await call(
            place.hub.asgi,
            "GET",
            "/stream/a",
            [(b"accept", b"text/event-stream"), (b"last-event-id", shown.encode())],
            stays=True,
        )
        assert b'"reason":"epoch"' in answer.body
        assert answer.body.count(b'data: "kept"') == 1
        assert answer.body.count(b'data: "after"') == 1
