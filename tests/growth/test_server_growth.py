"""What a delivered record costs depends neither on the log's length nor on readers who are gone.

Each test does the same work on a hub with a little behind it and on one with four times as much,
and compares the processor time of the two, best of several, taken in turns. A cost that grew with
what is behind would show as a ratio near four.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator, Sequence
from time import process_time

import pytest

from inprocess import HeldTransport
from penstock.core.log import Retention
from penstock.core.record import NewRecord
from penstock.core.subscription import Subscription
from penstock.server.fastpath import Writer
from penstock.server.hub import Hub, Stream

SHORT, LONG = 5_000, 20_000
READERS = 20
RECORDS = 200
RUNS = 5
ATTEMPTS = 3
MOST_GROWTH = 1.7
KEEP_ALL = Retention(max_records=1 << 40, max_bytes=1 << 50)

Work = Callable[[], Awaitable[object]]


@pytest.fixture(autouse=True)
def _no_collector() -> Iterator[None]:
    """The collector's own passes grow with all that lives, here and in other tests."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Drain(HeldTransport):
    """A transport whose peer reads everything at once."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(len(data))


async def stream_of(length: int) -> Stream:
    stream = await Hub().create("a", content_type="text/plain", retention=KEEP_ALL)
    await stream.append_batch([NewRecord(b"x" * 50)] * length)
    return stream


def join(stream: Stream, place: int) -> Writer:
    writer = Writer(stream, stream.view(), Subscription(place), Drain(), opened_at=0.0)
    writer.begin(b": hello\n\n")
    return writer


async def leave(writers: Sequence[Writer]) -> None:
    for writer in writers:
        writer.abort()
    await asyncio.sleep(0)


async def seconds(work: Work) -> float:
    began = process_time()
    await work()
    return process_time() - began


async def assert_no_growth(short: Work, long: Work, most: float = MOST_GROWTH) -> None:
    """The second costs about what the first costs. Noise only raises a ratio: look again then."""
    ratios: list[float] = []
    for _ in range(ATTEMPTS):
        best = [float("inf")] * 2
        for _ in range(RUNS):
            for index, work in enumerate((short, long)):
                best[index] = min(best[index], await seconds(work))
        ratios.append(best[1] / best[0])
        if ratios[-1] < most:
            return
    pytest.fail(f"the same work costs {ratios} times as much")


def publish(stream: Stream) -> Work:
    """Append records one by one, each flushed to whoever is level."""

    async def work() -> None:
        for _ in range(RECORDS):
            await stream.append(b"x" * 50)
            await asyncio.sleep(0)

    return work


async def with_readers(length: int) -> Stream:
    stream = await stream_of(length)
    for _ in range(READERS):
        join(stream, stream.offset.position)
    return stream


async def with_readers_gone(count: int) -> Stream:
    stream = await stream_of(10)
    for _ in range(count // 100):
        await leave([join(stream, 0) for _ in range(100)])
    assert stream.readers == 0
    return stream


async def test_fanning_out_costs_the_same_from_a_long_log() -> None:
    await assert_no_growth(publish(await with_readers(SHORT)), publish(await with_readers(LONG)))


async def test_fanning_out_costs_the_same_after_many_readers_have_gone() -> None:
    streams = [await with_readers_gone(count) for count in (1_000, 4_000)]
    for stream in streams:
        for _ in range(READERS):
            join(stream, stream.offset.position)
    await assert_no_growth(*map(publish, streams))


async def test_appending_unread_costs_the_same_after_many_readers_have_gone() -> None:
    streams = [await with_readers_gone(count) for count in (1_000, 4_000)]
    await assert_no_growth(*map(publish, streams))


async def test_fanning_out_to_twice_the_readers_costs_at_most_twice() -> None:
    """Per delivered record nothing grows with the number of readers."""

    async def read_by(count: int) -> Stream:
        stream = await stream_of(10)
        for _ in range(count):
            join(stream, stream.offset.position)
        return stream

    few, many = await read_by(100), await read_by(200)
    await assert_no_growth(publish(few), publish(many), most=2 * 1.3)


async def test_coming_back_costs_the_same_in_a_long_log() -> None:
    def come_back(stream: Stream) -> Work:
        places = [(number * 7919) % (stream.offset.position - 20) for number in range(200)]

        async def work() -> None:
            tail = stream.offset.position
            # What follows a place is a matter of how much it is, so read a little and leave.
            for place in places:
                piece = stream.view().slice(place, min(place + 10, tail))
                assert piece is not None
                assert (piece.position, piece.records) == (place + 10, 10)
                assert piece.body

        return work

    short, long = await stream_of(SHORT), await stream_of(LONG)
    await assert_no_growth(come_back(short), come_back(long))


async def test_coming_back_near_the_tail_costs_the_same_in_a_long_log() -> None:
    def come_back(stream: Stream) -> Work:
        async def work() -> None:
            place = stream.offset.position - 10
            await leave([join(stream, place) for _ in range(200)])

        return work

    short, long = await with_readers(SHORT), await with_readers(LONG)
    await assert_no_growth(come_back(short), come_back(long))


async def test_replaying_costs_the_same_per_record_from_a_long_log() -> None:
    def replay(stream: Stream) -> Work:
        async def work() -> None:
            for _ in range(LONG // stream.offset.position):
                writer = join(stream, 0)
                while writer not in writer.view.live:
                    await asyncio.sleep(0)
                await leave([writer])

        return work

    short, long = await stream_of(SHORT), await stream_of(LONG)
    await assert_no_growth(replay(short), replay(long))


async def test_a_reader_that_left_leaves_nothing() -> None:
    stream = await with_readers_gone(1_000)
    hub, view = stream.hub, stream.view()
    await leave([])
    assert (hub._readers, hub._paused, stream.readers) == (set(), {}, 0)
    assert (view.live, view.sleepers, view.fresh) == ({}, {}, set())
