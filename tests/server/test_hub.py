"""The hub's own life: what it does with time, with producers and with readers that come and go.

The clock is moved by hand: `Hub(clock=…)` and `hub.tick(now)`. Readers have transports whose peers
read when told to.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from inprocess import HeldTransport, scope_of, turns, until
from penstock.backends.interface import StreamConfig
from penstock.core.errors import (
    Draining,
    Overloaded,
    RecordTooLarge,
    RecordTypeReserved,
    SettingInvalid,
    StoreFull,
    StreamConflict,
    StreamEnded,
    StreamExists,
    StreamNotFound,
)
from penstock.core.limits import RETRY_JITTER
from penstock.core.record import EndReason, NewRecord
from penstock.core.subscription import Subscription
from penstock.server.asgi import Message
from penstock.server.fastpath import Writer
from penstock.server.hub import Hub, Stream
from penstock.telemetry.hooks import Hooks


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Facts(Hooks):
    """Every call of a hook, in order."""

    def __init__(self) -> None:
        self.said: list[tuple[str, object]] = []

    def appended(self, records: int, size: int) -> None:
        self.said.append(("appended", (records, size)))

    def first_record(self, seconds: float) -> None:
        self.said.append(("first_record", seconds))

    def record_gap(self, seconds: float) -> None:
        self.said.append(("record_gap", seconds))

    def first_event(self, seconds: float) -> None:
        self.said.append(("first_event", seconds))

    def gap(self, reason: str) -> None:
        self.said.append(("gap", reason))

    def stream_ended(self, reason: str) -> None:
        self.said.append(("stream_ended", reason))

    def reader_ended(self, reason: str) -> None:
        self.said.append(("reader_ended", reason))

    def of(self, name: str) -> list[object]:
        return [value for said, value in self.said if said == name]


def join(stream: Stream, place: int = 0, *, visible: bool = False, high: int = 65536) -> Writer:
    transport = HeldTransport(high)
    writer = Writer(
        stream,
        stream.view(),
        Subscription(place),
        transport,
        opened_at=stream.hub.clock(),
        is_visible=visible,
    )
    writer.begin(b": hello\n\n")
    return writer


def peer(writer: Writer) -> HeldTransport:
    assert isinstance(writer.transport, HeldTransport)
    return writer.transport


async def numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


async def for_ever() -> AsyncIterator[int]:
    await asyncio.Event().wait()
    yield 0


# --- time ---------------------------------------------------------------------------------------


async def test_a_heartbeat_comes_after_silence_and_only_then() -> None:
    clock = Clock()
    hub = Hub(clock=clock, heartbeat_s=15)
    stream = await hub.create("a")
    writer, visible = join(stream), join(stream, visible=True)

    def heard() -> tuple[int, int]:
        for one in (writer, visible):
            peer(one).take()
        beats = [e for e in peer(visible).events if e.type == "status"]
        return peer(writer).body.count(b"\n\n: \n\n"), len(beats)

    clock.now += 14.9
    await hub.tick(clock.now)
    assert heard() == (0, 0)
    await stream.append(1)
    await turns()
    clock.now += 14.9
    await hub.tick(clock.now)
    assert heard() == (0, 0)
    clock.now += 0.2
    await hub.tick(clock.now)
    assert heard() == (1, 1)
    await hub.tick(clock.now)
    assert heard() == (1, 1)


async def test_nobody_level_hears_no_heartbeat_and_a_level_reader_does() -> None:
    clock = Clock()
    hub = Hub(clock=clock, heartbeat_s=1)
    stream = await hub.create("a")
    stuck = join(stream, high=50)
    await stream.append("x" * 200)
    await turns()
    assert stuck.is_paused
    held = len(peer(stuck).buffer)
    clock.now += 10
    await hub.tick(clock.now)
    assert len(peer(stuck).buffer) == held


async def test_an_ended_stream_is_forgotten_after_its_time_and_not_before() -> None:
    clock = Clock()
    hub = Hub(clock=clock, ended_ttl_s=60)
    async with hub:
        stream = await hub.start("a", numbers(1))
        kept = await hub.create("open")
        await until(lambda: stream.end is not None)
        clock.now += 59
        await hub.tick(clock.now)
        assert await hub.get("a") is stream
        clock.now += 1
        await hub.tick(clock.now)
        with pytest.raises(StreamNotFound):
            await hub.get("a")
        with pytest.raises(StreamNotFound):
            await hub.backend.head("a")
        await kept.close()
        clock.now += 10_000
        await hub.tick(clock.now)
        assert await hub.get("open") is kept


async def test_a_stream_that_is_read_is_not_forgotten() -> None:
    clock = Clock()
    hub = Hub(clock=clock, ended_ttl_s=60, stall_s=10_000)
    async with hub:
        stream = await hub.start("a", numbers(5))
        slow = join(stream, high=10)
        await until(lambda: stream.end is not None)
        clock.now += 1000
        await hub.tick(clock.now)
        assert await hub.get("a") is stream
        for _ in range(20):
            peer(slow).take()
            await turns()
        clock.now += 10
        await hub.tick(clock.now)
        assert hub.streams() == []


async def test_a_stalled_reader_is_cut_and_one_that_takes_a_little_is_not() -> None:
    clock, facts = Clock(), Facts()
    hub = Hub(clock=clock, hooks=facts, stall_s=300)
    stream = await hub.create("a")
    stuck, slow = join(stream, high=100), join(stream, high=100)
    for _ in range(50):
        await stream.append("x" * 100)
        await turns(1)
    assert stuck.is_paused
    assert slow.is_paused
    for _ in range(4):
        clock.now += 100
        peer(slow).take()
        await turns()
        await hub.tick(clock.now)
        await turns()
    assert peer(stuck).aborted == 1
    assert peer(slow).aborted == 0
    assert facts.of("reader_ended") == ["stalled"]
    assert stream.readers == 1


async def test_records_too_old_are_dropped_by_the_tick_and_a_late_reader_is_told() -> None:
    clock, facts = Clock(), Facts()
    hub = Hub(clock=clock, hooks=facts, retain_age_s=10)
    stream = await hub.create("a")
    for number in range(3):
        await stream.append(number)
    clock.now += 11
    await hub.tick(clock.now)
    assert stream.head.earliest == 2  # the newest always stays
    assert facts.of("appended") == [(1, 1)] * 3
    late = join(stream, 1)
    peer(late).take()
    assert [event.type for event in peer(late).events] == ["gap", "message"]
    assert facts.of("gap") == ["trimmed"]


async def test_a_tick_that_fails_is_logged_and_the_next_comes(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.server.hub.TICK_S", 0)
    ticks: list[float] = []

    class Failing(Hub):
        async def tick(self, now: float) -> None:
            ticks.append(now)
            raise OSError("the disk is gone")

    async with Failing():
        await until(lambda: len(ticks) > 2)
    assert "tick failed" in caplog.text


# --- producers ----------------------------------------------------------------------------------


async def test_a_producers_end_is_complete_and_is_timed() -> None:
    clock, facts = Clock(), Facts()

    async def source() -> AsyncIterator[int]:
        clock.now += 2
        yield 1
        clock.now += 3
        yield 2

    async with Hub(clock=clock, hooks=facts) as hub:
        stream = await hub.start("a", source())
        await until(lambda: stream.end is not None)
        assert stream.end is EndReason.COMPLETE
        assert not stream.is_produced
    assert facts.of("first_record") == [2.0]
    assert facts.of("record_gap") == [3.0]
    assert facts.of("stream_ended") == ["complete"]


async def test_a_producer_that_raises_ends_its_stream_as_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def source() -> AsyncIterator[int]:
        yield 1
        raise ZeroDivisionError

    async with Hub() as hub:
        stream = await hub.start("a", source())
        await until(lambda: stream.end is not None)
        assert stream.end is EndReason.FAILED
        assert stream.head.records == 1
    assert "ZeroDivisionError" in caplog.text


async def test_cancel_ends_the_stream_first_and_closes_the_source() -> None:
    closed: list[object] = []

    async def source() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            closed.append(stream.end)

    async with Hub() as hub:
        stream = await hub.start("a", source())
        await until(lambda: stream.head.records)
        assert await stream.cancel() is True
        assert closed == [EndReason.CANCELLED]
        assert await stream.cancel() is False
        assert await stream.close() is False
        assert stream.end is EndReason.CANCELLED
        with pytest.raises(StreamEnded):
            await stream.append(2)


async def test_a_source_that_ignores_its_cancellation_is_left_behind_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    release = asyncio.Event()

    async def source() -> AsyncIterator[int]:
        yield 1
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    async with Hub(cancel_s=0.05) as hub:
        stream = await hub.start("a", source())
        await until(lambda: stream.head.records)
        await stream.cancel()
        assert "ignores its cancellation" in caplog.text
        release.set()
        await until(lambda: not stream.is_produced)
        assert stream.end is EndReason.CANCELLED


async def test_what_is_still_produced_when_the_hub_stops_is_lost() -> None:
    async with Hub() as hub:
        stream = await hub.start("a", for_ever())
    assert stream.end is EndReason.LOST
    assert not stream.is_produced


async def test_an_unread_producer_is_cancelled_in_its_time_and_a_read_one_is_not() -> None:
    async with Hub() as hub:
        unread = await hub.start("unread", for_ever(), cancel_unread_after_s=0.05)
        read = await hub.start("read", for_ever(), cancel_unread_after_s=0.05)
        writer = join(read)
        await until(lambda: unread.end is not None)
        assert unread.end is EndReason.CANCELLED
        assert read.end is None
        peer(writer).hang_up()
        await until(lambda: read.end is not None)


async def test_a_second_start_of_a_name_is_refused_or_joins_and_never_iterates() -> None:
    touched: list[int] = []

    async def source() -> AsyncIterator[int]:
        touched.append(1)
        yield 1

    async with Hub() as hub:
        stream = await hub.start("a", for_ever())
        with pytest.raises(StreamExists):
            await hub.start("a", source())
        assert await hub.start("a", source(), join=True) is stream
        await turns()
        assert touched == []


async def test_two_deletes_at_once_delete_once() -> None:
    release = asyncio.Event()

    async def source() -> AsyncIterator[int]:
        yield 1
        try:
            await asyncio.Event().wait()
        finally:
            await release.wait()

    async with Hub() as hub:
        stream = await hub.start("a", source())
        await until(lambda: stream.head.records)
        both = [asyncio.create_task(hub.delete("a")) for _ in range(2)]
        await turns()
        release.set()
        await asyncio.gather(*both)
        assert hub.streams() == []
        fresh = await hub.create("a")
        assert fresh.offset.epoch > stream.offset.epoch


async def test_a_deleted_streams_readers_are_told_it_is_cancelled() -> None:
    hub = Hub()
    stream = await hub.create("a")
    writer = join(stream)
    await hub.delete("a")
    await turns()
    peer(writer).take()
    (end,) = peer(writer).events
    assert (end.type, end.data) == ("end", '{"reason":"cancelled"}')
    with pytest.raises(StreamNotFound):
        await hub.delete("a")


# --- streams ------------------------------------------------------------------------------------


async def test_unnamed_streams_have_names_nobody_can_guess() -> None:
    hub = Hub()
    names = {(await hub.create()).name for _ in range(100)}
    assert len(names) == 100
    assert all(len(name) >= 22 for name in names)


async def test_creating_again_gives_the_same_stream_and_another_type_is_refused() -> None:
    hub = Hub()
    stream, is_new = await hub.create_or_get("a", StreamConfig())
    assert is_new
    assert await hub.create_or_get("a", StreamConfig()) == (stream, False)
    with pytest.raises(StreamConflict):
        await hub.create("a", content_type="text/plain")


async def test_appends_are_checked_and_a_batch_is_stored_whole_or_not_at_all() -> None:
    hub = Hub(max_record_bytes=10)
    stream = await hub.create("a")
    with pytest.raises(RecordTooLarge):
        await stream.append("x" * 9)
    with pytest.raises(RecordTypeReserved):
        await stream.append(1, type="end")
    with pytest.raises(RecordTooLarge):
        await stream.append_batch([NewRecord(b"1"), NewRecord(b"x" * 11)])
    assert stream.head.records == 0
    stream.append_nowait({"a": 1})
    assert stream.offset.position == 1


async def test_streams_and_bytes_have_caps() -> None:
    hub = Hub(max_streams=1)
    await hub.create("a")
    with pytest.raises(StoreFull):
        await hub.create("b")
    small = Hub(max_store_bytes=1000)
    stream = await small.create("a")
    for _ in range(4):
        await stream.append("x" * 100)
    with pytest.raises(StoreFull):
        await stream.append("x" * 100)


# --- readers ------------------------------------------------------------------------------------


async def test_a_view_that_fails_does_not_keep_the_others_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    errors: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    hub = Hub()
    streams = [await hub.create(name) for name in "abc"]
    writers = [join(stream) for stream in streams]

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(streams[1].view().form, "events", fail)
    for stream in streams:
        await stream.append(1)
    await turns()
    for writer in writers:
        peer(writer).take()
    assert [len(peer(writer).events) for writer in writers] == [1, 0, 1]
    assert len(errors) == 1


async def test_no_more_readers_than_allowed_are_admitted() -> None:
    facts = Facts()
    hub = Hub(hooks=facts, max_readers=1)
    stream = await hub.create("a")
    hub.admit()
    join(stream)
    with pytest.raises(Overloaded):
        hub.admit()
    assert facts.of("reader_ended") == ["refused"]


async def test_drain_tells_each_reader_when_to_come_back_and_waits_for_it() -> None:
    facts = Facts()
    hub = Hub(hooks=facts)
    stream = await hub.create("a")
    writers = [join(stream) for _ in range(20)]
    draining = asyncio.create_task(hub.drain(5))
    await turns()
    assert not draining.done()
    with pytest.raises(Draining):
        hub.admit()
    for writer in writers:
        peer(writer).take()
    await draining
    assert facts.of("reader_ended") == ["drained"] * 20
    assert {event.type for writer in writers for event in peer(writer).events} == {"drain"}
    assert len({peer(writer).events[0].data for writer in writers}) > 10  # jitter


async def test_drain_cuts_who_does_not_go_in_time() -> None:
    hub = Hub()
    stream = await hub.create("a")
    writer = join(stream)
    await hub.drain(0.01)
    assert peer(writer).aborted == 1
    await turns()
    assert stream.readers == 0
    await hub.drain(0.01)


async def test_drain_cuts_a_portable_reader_whose_send_does_not_return() -> None:
    """A server's `send` waits for its client for as long as that takes."""
    hub = Hub()
    await hub.create("a")
    sending = asyncio.Event()

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            sending.set()
            await asyncio.Event().wait()

    request = hub.asgi(scope_of("GET", b"/stream/a?live=events"), receive, send)
    serving = asyncio.create_task(request)
    await sending.wait()
    async with asyncio.timeout(5):
        await hub.drain(0.01)
        await serving
    assert (await hub.get("a")).readers == 0


async def test_producers_go_on_during_a_drain() -> None:
    async with Hub() as hub:
        stream = await hub.start("a", for_ever())
        await hub.drain(0)
        assert stream.is_produced
        with pytest.raises(Draining):
            await hub.start("b", for_ever())


async def test_the_reconnection_time_is_jittered_around_its_middle() -> None:
    hub = Hub(retry_ms=1000)
    drawn = [hub.draw_retry_ms() for _ in range(500)]
    assert 1000 * (1 - RETRY_JITTER) <= min(drawn) < 700
    assert 1300 < max(drawn) <= 1000 * (1 + RETRY_JITTER)


async def test_the_snapshot_counts_what_is_open() -> None:
    hub = Hub()
    one, two = await hub.create("a"), await hub.create("b")
    join(one)
    lagging = join(one, high=10)
    for _ in range(5):
        await one.append("x")
        await turns()
    await two.close()
    now = hub.snapshot()
    assert (now.readers_fast, now.readers_portable) == (2, 0)
    assert (now.streams_running, now.streams_ended) == (1, 1)
    assert (now.lag_max, now.lagging) == (lagging.lag, 1)
    assert lagging.lag == 5
    assert now.stored_bytes > 5


async def test_a_hub_can_be_used_again_after_it_stopped() -> None:
    hub = Hub()
    for _ in range(2):
        async with hub:
            stream = await hub.start(None, numbers(2))
            await until(lambda stream=stream: stream.end is not None)
            assert stream.end is EndReason.COMPLETE
    assert hub._ticker is None


async def test_a_hub_says_which_setting_is_wrong() -> None:
    with pytest.raises(SettingInvalid, match="heartbeat_s"):
        Hub(heartbeat_s=0)
    with pytest.raises(SettingInvalid, match="backend"):
        Hub("nonsense://")


async def test_a_stream_whose_opening_records_cannot_be_kept_is_not_there() -> None:
    """Neither one that is too large nor one for which the store has no room leaves a stream."""

    async def source() -> AsyncIterator[str]:
        yield "never"

    async with Hub(max_record_bytes=10, max_store_bytes=1) as hub:
        with pytest.raises(RecordTooLarge):
            await hub.start("large", source(), opening=[NewRecord(b"x" * 11)])
        assert hub.streams() == []
        await (await hub.create("full")).append("fills")
        with pytest.raises(StoreFull):
            await hub.start("more", source(), opening=[NewRecord(b'"a"')])
        assert [stream.name for stream in hub.streams()] == ["full"]
