"""What feeds a stream: batches that are one commit, ends that go with them, last words, and who
waits for what comes of it. On both backends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from inprocess import Clock, HeldStore, call, turns, until
from penstock.backends.memory import MemoryBackend
from penstock.core.errors import DiskFull, RecordTypeReserved, StreamNotFound
from penstock.core.limits import FEED_BYTES
from penstock.core.log import Head
from penstock.core.record import Batch, EndReason, NewRecord, Record
from penstock.server import production
from penstock.server.hub import Hub
from penstock.server.stream import Stream


class Place:
    """A hub, and every commit of its stream `a` as a listener hears of it."""

    def __init__(self, kind: str, directory: Path, **settings: Any) -> None:
        self.kind = kind
        self.clock = Clock(1000.0)
        self.store = HeldStore(str(directory / "store.db"))
        memory = MemoryBackend(clock=self.clock, wall_clock=Clock())
        self.hub = Hub(memory if kind == "memory" else self.store, clock=self.clock, **settings)
        self.commits: list[list[bytes]] = []
        self.end: EndReason | None = None

    def listen(self, stream: Stream) -> None:
        self.hub.backend.watch(stream.name, 0, self)

    def committed(self, records: Sequence[Record], head: Head) -> None:
        self.commits.append([record.payload for record in records])

    def ended(self, head: Head) -> None:
        self.end = head.end

    def trimmed(self, head: Head) -> None: ...
    def deleted(self) -> None: ...
    def restarted(self, head: Head) -> None: ...

    @property
    def values(self) -> list[bytes]:
        return [value for commit in self.commits for value in commit]


@pytest.fixture(params=["memory", "sqlite"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Place]:
    place = Place(request.param, tmp_path, drain_s=0.1)
    async with place.hub:
        try:
            yield place
        finally:
            place.store.appends.open()


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncGenerator[Place]:
    place = Place("sqlite", tmp_path, drain_s=0.1)
    async with place.hub:
        try:
            yield place
        finally:
            place.store.failure = None
            place.store.appends.open()


def batch(*values: int, end: EndReason | None = None) -> Batch:
    return Batch([NewRecord(b"%d" % value) for value in values], end)


def words(reason: EndReason) -> list[NewRecord]:
    return [NewRecord(b'"%b"' % reason.encode(), "last"), NewRecord(b'"words"', "last")]


async def over(stream: Stream) -> EndReason:
    await until(lambda: stream.end is not None and not stream.is_produced)
    assert stream.end is not None
    return stream.end


async def values_of(stream: Stream) -> list[bytes]:
    return [record.payload for record in await stream.records()]


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


# --- batches ------------------------------------------------------------------------------------


async def test_a_batch_is_one_commit_however_much_waits(place: Place) -> None:
    async def source() -> AsyncIterator[Batch | NewRecord | int]:
        yield 0
        yield batch(1, 2, 3)
        yield batch()
        yield NewRecord(b"4")
        yield batch(5, 6)
        await asyncio.Event().wait()

    stream = await place.hub.start("a", source())
    place.listen(stream)
    await until(lambda: len(place.values) == 7)
    assert place.values == [b"%d" % n for n in range(7)]
    for together in ([b"1", b"2", b"3"], [b"5", b"6"]):
        # A commit may hold more, and never a part of it.
        assert any(together[0] in commit and together[-1] in commit for commit in place.commits)
    await stream.cancel()


@pytest.mark.parametrize("end", EndReason)
async def test_an_end_can_come_with_a_batch_in_the_same_commit(
    place: Place, end: EndReason, caplog: pytest.LogCaptureFixture
) -> None:
    closed = False

    async def source() -> AsyncIterator[Batch]:
        nonlocal closed
        try:
            yield batch(1)
            yield batch(2, 3, end=end)
            raise AssertionError("it is not asked again")
        finally:
            closed = True

    before = place.hub.snapshot().commits
    stream = await place.hub.start("a", source())
    assert await over(stream) is end
    assert closed
    assert await values_of(stream) == [b"1", b"2", b"3"]
    # One for the stream, one for the first, one for the last with the end.
    assert place.hub.snapshot().commits - before <= 3
    assert complaints(caplog) == []


async def test_an_end_alone_can_come_as_a_batch(place: Place) -> None:
    async def source() -> AsyncIterator[Batch]:
        yield Batch([], EndReason.LIMIT)

    stream = await place.hub.start("a", source())
    assert await over(stream) is EndReason.LIMIT
    assert await values_of(stream) == []


async def test_a_batch_with_a_record_that_is_none_is_not_stored_at_all(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    async def source() -> AsyncIterator[Batch]:
        yield batch(1)
        yield Batch([NewRecord(b"2"), NewRecord(b"3", "end")], EndReason.COMPLETE)

    stream = await place.hub.start("a", source())
    assert await over(stream) is EndReason.FAILED
    assert await values_of(stream) == [b"1"]
    assert RecordTypeReserved.__name__ in caplog.text


async def test_a_last_batch_waits_for_what_is_on_its_way_and_is_one_commit(sqlite: Place) -> None:
    async def source() -> AsyncIterator[Batch | int]:
        yield 0
        await until(lambda: sqlite.store.appends.waiting)
        yield 1
        yield 2
        yield batch(3, 4, end=EndReason.LIMIT)

    sqlite.store.appends.shut()
    stream = await sqlite.hub.start("a", source())
    sqlite.listen(stream)
    await until(lambda: sqlite.store.appends.waiting)
    await turns(50)
    assert stream.end is None
    sqlite.store.appends.open()
    assert await over(stream) is EndReason.LIMIT
    assert sqlite.values == [b"%d" % n for n in range(5)]
    assert any(commit[-2:] == [b"3", b"4"] for commit in sqlite.commits)


# --- pushing ------------------------------------------------------------------------------------


class Pushing:
    """A source that is only pushed into: its iterator waits until it is told to yield."""

    def __init__(self) -> None:
        self.commit: Callable[[Sequence[NewRecord]], bool] | None = None
        self.yielded: asyncio.Queue[Batch] = asyncio.Queue(maxsize=8)
        self.is_closed = False

    def push_to(self, commit: Callable[[Sequence[NewRecord]], bool]) -> None:
        self.commit = commit

    def push(self, *values: int) -> bool:
        assert self.commit is not None
        return self.commit(batch(*values).records)

    def __aiter__(self) -> Pushing:
        return self

    async def __anext__(self) -> Batch:
        return await self.yielded.get()

    async def aclose(self) -> None:
        self.is_closed = True


async def test_what_a_source_pushes_and_what_it_yields_keep_their_order(place: Place) -> None:
    source = Pushing()
    stream = await place.hub.start("a", source)
    await until(lambda: source.commit is not None)
    await turns(5)
    assert source.push(0, 1)
    assert source.push(2)
    source.yielded.put_nowait(batch(3))
    await until(source.yielded.empty)
    await turns(20)
    assert source.push(4)
    source.yielded.put_nowait(batch(5, end=EndReason.COMPLETE))
    assert await over(stream) is EndReason.COMPLETE
    assert await values_of(stream) == [b"%d" % n for n in range(6)]
    assert source.is_closed


async def test_nothing_is_pushed_behind_an_end(place: Place) -> None:
    source = Pushing()
    stream = await place.hub.start("a", source, last_words=words)
    await until(lambda: source.commit is not None)
    assert source.push(0)
    await stream.cancel()
    assert not source.push(1)
    assert await over(stream) is EndReason.CANCELLED
    assert await values_of(stream) == [b"0", *(word.payload for word in words(stream.end))]


async def test_a_record_that_is_none_is_not_pushed(place: Place) -> None:
    source = Pushing()
    stream = await place.hub.start("a", source)
    await until(lambda: source.commit is not None)
    assert source.commit is not None
    assert not source.commit([NewRecord(b"1"), NewRecord(b"2", "end")])
    assert source.push(0)
    source.yielded.put_nowait(batch(1, end=EndReason.COMPLETE))
    assert await over(stream) is EndReason.COMPLETE
    assert await values_of(stream) == [b"0", b"1"]


async def test_a_source_is_told_when_too_much_waits_for_the_store(sqlite: Place) -> None:
    source = Pushing()
    sqlite.store.appends.shut()
    stream = await sqlite.hub.start("a", source)
    await until(lambda: source.commit is not None)
    large = [NewRecord(b'"%b"' % (b"x" * 60_000))]
    assert source.commit is not None
    pushed = 0
    while source.commit(large):
        pushed += 1
        assert pushed * 60_000 < 3 * FEED_BYTES
        await turns(2)
    sqlite.store.appends.open()
    source.yielded.put_nowait(Batch(large, EndReason.COMPLETE))
    assert await over(stream) is EndReason.COMPLETE
    assert len(await values_of(stream)) == pushed + 1


async def test_nothing_is_pushed_behind_a_group_that_the_store_refused(sqlite: Place) -> None:
    source = Pushing()
    stream = await sqlite.hub.start("a", source)
    await until(lambda: source.commit is not None)
    assert source.push(0)
    await until(lambda: stream.head.records == 1)
    sqlite.store.failure = DiskFull("store.db")
    assert source.push(1)
    await until(lambda: not source.push(2))
    sqlite.store.failure = None
    source.yielded.put_nowait(batch(3))
    assert await over(stream) is EndReason.FAILED
    assert await values_of(stream) == [b"0"]


# --- last words ---------------------------------------------------------------------------------


def endless(*values: int) -> AsyncIterator[Batch]:
    async def source() -> AsyncIterator[Batch]:
        yield batch(*values)
        await asyncio.Event().wait()

    return source()


async def test_last_words_come_with_the_end_that_somebody_else_gives(place: Place) -> None:
    stream = await place.hub.start("a", endless(1), last_words=words)
    place.listen(stream)
    await until(lambda: place.values)
    assert await stream.cancel()
    assert await over(stream) is EndReason.CANCELLED
    assert await values_of(stream) == [b"1", b'"cancelled"', b'"words"']
    await until(lambda: place.end)
    assert place.commits[-1] == [b'"cancelled"', b'"words"']
    assert not await stream.cancel(), "the first stands, and is said once"
    assert len(await values_of(stream)) == 3


@pytest.mark.parametrize("reason", EndReason)
async def test_last_words_are_told_the_reason(place: Place, reason: EndReason) -> None:
    stream = await place.hub.start("a", endless(1), last_words=words)
    await stream.wait(0)
    assert await stream.close(reason)
    assert (await values_of(stream))[1] == b'"%b"' % reason.encode()


async def test_whoever_ends_it_lets_it_say_its_last_words(tmp_path: Path) -> None:
    """A server that stops, and a time that was over."""
    place = Place("memory", tmp_path)
    async with place.hub:
        stopped = await place.hub.start("stopped", endless(1), last_words=words)
        unread = await place.hub.start(
            "unread", endless(1), last_words=words, cancel_unread_after_s=0.01
        )
        assert await over(unread) is EndReason.CANCELLED
    assert stopped.end is EndReason.LOST
    for stream, word in ((stopped, b'"lost"'), (unread, b'"cancelled"')):
        records = place.hub.backend
        assert isinstance(records, MemoryBackend)
        payloads = [r.payload for r in records.read_now(stream.name, 0, 99, 999)]
        assert payloads == [b"1", word, b'"words"']


@pytest.mark.parametrize("end", [None, EndReason.LIMIT])
async def test_a_source_that_ends_by_itself_has_said_what_it_had(
    place: Place, end: EndReason | None
) -> None:
    async def source() -> AsyncIterator[Batch]:
        yield batch(1, end=end)

    stream = await place.hub.start("a", source(), last_words=words)
    assert await over(stream) is (end or EndReason.COMPLETE)
    assert await values_of(stream) == [b"1"]
    await stream.close()
    assert await values_of(stream) == [b"1"]


@pytest.mark.parametrize(
    "last_words",
    [lambda _: 1 / 0, lambda _: [NewRecord(b"1", "end")], lambda _: [NewRecord(b"x" * 2**21)]],
)
async def test_last_words_that_cannot_be_said_do_not_keep_the_end(
    place: Place, last_words: Any, caplog: pytest.LogCaptureFixture
) -> None:
    stream = await place.hub.start("a", endless(1), last_words=last_words)
    await stream.wait(0)
    assert await stream.cancel()
    assert await over(stream) is EndReason.CANCELLED
    assert await values_of(stream) == [b"1"]
    assert "the last words of 'a'" in caplog.text


async def test_readers_have_the_end_before_the_source_is_closed(place: Place) -> None:
    seen: list[object] = []

    async def source() -> AsyncIterator[Batch]:
        try:
            yield batch(1)
            await asyncio.Event().wait()
        finally:
            seen.append(stream.end)

    stream = await place.hub.start("a", source(), last_words=words)
    await stream.wait(0)
    await stream.cancel()
    assert seen == [EndReason.CANCELLED]


async def test_a_source_that_was_never_asked_is_closed_all_the_same(tmp_path: Path) -> None:
    """It may hold something since before: a place in a budget, a connection."""
    place = Place("memory", tmp_path)

    class Source:
        asked = closed = 0

        def __aiter__(self) -> Source:
            return self

        async def __anext__(self) -> Batch:
            self.asked += 1
            return batch(1)

        async def aclose(self) -> None:
            self.closed += 1

    source = Source()
    stream = await place.hub.start("a", source, last_words=words)
    assert await stream.cancel()
    assert (source.asked, source.closed) == (0, 1)
    assert await over(stream) is EndReason.CANCELLED
    assert await values_of(stream) == [b'"cancelled"', b'"words"']
    await stream.cancel()
    assert source.closed == 1


async def counting(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number
        await asyncio.sleep(0)


async def test_what_was_given_before_is_there_before_the_last_words(sqlite: Place) -> None:
    """All of it, also what waited: last words may go on where it stopped."""
    given: list[int] = []

    async def source() -> AsyncIterator[int]:
        async for number in counting(10_000):
            given.append(number)
            yield number

    following: list[int] = []

    def said(reason: EndReason) -> list[NewRecord]:
        following.append(len(given))
        return [NewRecord(b"%d" % len(given)), NewRecord(b'"last"')]

    sqlite.store.appends.shut()
    stream = await sqlite.hub.start("a", source(), last_words=said)
    await until(lambda: sqlite.store.appends.waiting)
    await turns(20)
    cancelling = asyncio.create_task(stream.cancel())
    await turns(20)
    sqlite.store.appends.open()
    assert await cancelling
    await over(stream)
    (next_,) = following
    assert next_ > 5
    assert await values_of(stream) == [*(b"%d" % n for n in range(next_ + 1)), b'"last"']
    assert len(given) <= next_ + 1, "a source that goes on is stopped by the next it gives"


@pytest.mark.parametrize("turn", range(0, 120, 10))
async def test_a_stream_that_is_cancelled_has_a_front_and_the_last_words(
    place: Place, turn: int
) -> None:
    stream = await place.hub.start("a", counting(200), last_words=words)
    await turns(turn)
    await stream.cancel()
    *numbers, first, second = await values_of(stream)
    assert (first, second) == (b'"cancelled"', b'"words"')
    assert numbers == [b"%d" % n for n in range(len(numbers))]


async def test_last_words_do_not_follow_a_group_that_the_store_refused(
    sqlite: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would hide that there is a hole."""
    monkeypatch.setattr(production, "END_AGAIN_S", 0.01)
    for failing in (True, False):  # before anybody noticed, and after
        name = f"a{failing}"
        tokens: asyncio.Queue[int] = asyncio.Queue()

        async def source(tokens: asyncio.Queue[int] = tokens) -> AsyncIterator[int]:
            while True:
                yield await tokens.get()

        stream = await sqlite.hub.start(name, source(), last_words=words)
        tokens.put_nowait(1)
        await stream.wait(0)
        await turns()
        sqlite.store.failure = DiskFull(sqlite.store.path)
        sqlite.store.appends.shut()
        tokens.put_nowait(2)
        await until(lambda: sqlite.store.appends.waiting)
        tokens.put_nowait(3)
        await turns()
        sqlite.store.failure = None
        if not failing:
            sqlite.store.appends.open()
            tokens.put_nowait(4)
            await turns()
        cancelling = asyncio.create_task(stream.cancel())
        await turns()
        sqlite.store.appends.open()
        await asyncio.wait([cancelling])
        cancelling.exception()
        await over(stream)
        assert await values_of(stream) == [b"1"], failing


@pytest.mark.parametrize("delay", range(12))
async def test_a_cancel_and_the_sources_own_end_are_one_of_them(
    place: Place, delay: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Whichever comes first stands, with what belongs to it, however close they are."""
    go = asyncio.Event()

    async def source() -> AsyncIterator[Batch]:
        yield batch(1)
        await go.wait()
        yield batch(2, end=EndReason.COMPLETE)

    stream = await place.hub.start("a", source(), last_words=words)
    await stream.wait(0)
    go.set()
    await turns(delay)
    was_first = await stream.cancel()
    end = await over(stream)
    values = await values_of(stream)
    if end is EndReason.COMPLETE:
        assert values == [b"1", b"2"]
    else:
        assert end is EndReason.CANCELLED
        assert was_first
        assert values == [b"1", b'"cancelled"', b'"words"']
    assert complaints(caplog) == []


async def test_an_end_that_is_being_stored_stands_against_a_cancel(sqlite: Place) -> None:
    go = asyncio.Event()

    async def source() -> AsyncIterator[Batch]:
        yield batch(1)
        await go.wait()
        yield batch(2, end=EndReason.COMPLETE)

    stream = await sqlite.hub.start("a", source(), last_words=words)
    await stream.wait(0)
    await turns()
    # Both are on their way before anybody hears of either.
    sqlite.store.news.shut()
    sqlite.store.appends.shut()
    go.set()
    await until(lambda: sqlite.store.appends.waiting)
    cancelling = asyncio.create_task(stream.cancel())
    await turns(5)
    sqlite.store.news.open()
    sqlite.store.appends.open()
    assert not await cancelling
    assert await over(stream) is EndReason.COMPLETE
    assert await values_of(stream) == [b"1", b"2"]


async def test_a_cancel_that_cannot_be_stored_stops_the_source_all_the_same(
    sqlite: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(production, "END_AGAIN_S", 0.01)
    closed = asyncio.Event()

    async def source() -> AsyncIterator[Batch]:
        try:
            yield batch(1)
            await asyncio.Event().wait()
        finally:
            closed.set()

    stream = await sqlite.hub.start("a", source(), last_words=words)
    await stream.wait(0)
    sqlite.store.failure = DiskFull(sqlite.store.path)
    with pytest.raises(DiskFull):
        await stream.cancel()
    assert closed.is_set()
    sqlite.store.failure = None
    await over(stream)


# --- who waits ----------------------------------------------------------------------------------


async def test_waiting_ends_with_a_record_the_end_or_the_stream(place: Place) -> None:
    stream = await place.hub.create("a")
    await stream.append(1)
    await stream.wait(0)
    for act in (stream.append(2), stream.close()):
        waiting = asyncio.create_task(stream.wait(stream.head.tail))
        await turns()
        assert not waiting.done()
        await act
        async with asyncio.timeout(5):
            await waiting
    await stream.wait(2**62)
    other = await place.hub.create("b")
    waiting = asyncio.create_task(other.wait(0))
    await turns()
    await place.hub.delete("b")
    async with asyncio.timeout(5):
        await waiting
    await other.wait(0)


async def test_who_stops_waiting_leaves_nothing(place: Place) -> None:
    stream = await place.hub.create("a")
    waiting = [asyncio.create_task(stream.wait(0)) for _ in range(50)]
    await turns()
    assert len(stream.polls) == 50
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    assert not stream.polls
    assert place.hub.snapshot().polls == 0


async def test_a_drain_does_not_end_waiting(place: Place) -> None:
    stream = await place.hub.create("a")
    waiting = asyncio.create_task(stream.wait(0))
    await turns()
    await place.hub.drain(0)
    await turns()
    assert not waiting.done()
    await stream.append(1)
    async with asyncio.timeout(5):
        await waiting


async def test_records_are_all_that_is_kept_in_order(place: Place) -> None:
    stream = await place.hub.create("a")
    assert await stream.records() == []
    for start in range(0, 10_000, 1000):
        await stream.append_batch([NewRecord(b"%d" % n) for n in range(start, start + 1000)])
    records = await stream.records()
    assert [record.payload for record in records] == [b"%d" % n for n in range(10_000)]
    assert [record.position for record in records] == list(range(1, 10_001))
    assert await stream.records(9_990) == records[9_990:]
    assert await stream.records(10_000) == []
    await place.hub.delete("a")
    with pytest.raises(StreamNotFound):
        await stream.records()


class Timers:
    """The loop's timers of productions that nobody reads: they run when the test says so."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._loop = asyncio.get_running_loop()
        self._call_later = self._loop.call_later
        self._held: list[asyncio.TimerHandle] = []
        patch.setattr(self._loop, "call_later", self._hold)

    def _hold(self, delay: float, callback: Any, *args: Any, **options: Any) -> Any:
        if getattr(callback, "__name__", "") != "_cancel_unread":
            return self._call_later(delay, callback, *args, **options)
        handle = self._call_later(3600, callback, *args, **options)
        self._held.append(handle)
        return handle

    @property
    def waiting(self) -> list[asyncio.TimerHandle]:
        """Those that have not been called off."""
        return [handle for handle in self._held if not handle.cancelled()]

    def run(self) -> None:
        """Let the time of the one that waits be over."""
        (handle,) = self.waiting
        handle._run()
        handle.cancel()


async def test_who_attends_counts_as_a_reader(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    timers = Timers(monkeypatch)
    stream = await place.hub.start("a", endless(1), cancel_unread_after_s=60)
    assert len(timers.waiting) == 1
    with stream.attended():
        with stream.attended():
            assert timers.waiting == []
        assert timers.waiting == []
        assert stream.readers == 0
    timers.run()
    assert await over(stream) is EndReason.CANCELLED
    assert timers.waiting == []


async def test_who_polls_counts_as_a_reader(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long-poll that waits; and one who looks again and again has the time begin anew."""
    timers = Timers(monkeypatch)
    stream = await place.hub.start("a", endless(1), cancel_unread_after_s=60)
    await stream.wait(0)
    target = f"/stream/a?offset={stream.offset}&live=long-poll"
    poll = asyncio.create_task(call(place.hub.asgi, "GET", target, stays=True))
    await until(lambda: place.hub.snapshot().polls)
    assert timers.waiting == []
    await stream.append(2)
    assert (await poll).body == b"[2]"
    (begun,) = timers.waiting
    assert (await call(place.hub.asgi, "HEAD", "/stream/a")).status == 200
    assert timers.waiting == [begun], "looking at its head is no reading"
    assert (await call(place.hub.asgi, "GET", "/stream/a")).status == 200
    (begun_anew,) = timers.waiting
    assert begun_anew is not begun
    await stream.cancel()


async def test_a_stream_that_is_attended_does_not_rest(sqlite: Place) -> None:
    stream = await sqlite.hub.create("a")
    with stream.attended():
        for _ in range(3):
            sqlite.clock.now += 100
            await sqlite.hub.tick(sqlite.clock())
        assert sqlite.hub.streams_in_use["a"] is stream
    sqlite.clock.now += 100
    await sqlite.hub.tick(sqlite.clock())
    assert "a" not in sqlite.hub.streams_in_use
