"""What a producer yields goes to a store in groups: fewer commits than tokens, in their order,
never far ahead, and with an end whatever becomes of the store."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from inprocess import HeldStore, turns, until
from penstock.core.errors import DiskFull
from penstock.core.limits import FEED_BYTES, RECORD_OVERHEAD_BYTES
from penstock.core.record import EndReason, NewRecord
from penstock.server import production
from penstock.server.hub import Hub, Stream

ALL = 1 << 30


@asynccontextmanager
async def opened(
    tmp_path: Path, *, max_pages: int | None = None, **settings: Any
) -> AsyncGenerator[tuple[Hub, HeldStore]]:
    store = HeldStore(str(tmp_path / "store.db"), max_pages=max_pages)
    async with Hub(store, **settings) as hub:
        try:
            yield hub, store
        finally:
            store.appends.open()
            store.reads.open()


async def numbers(count: int, *, turns_each: int = 1) -> AsyncIterator[int]:
    for number in range(count):
        yield number
        await turns(turns_each)


async def values_of(hub: Hub, name: str = "a") -> list[bytes]:
    return [record.payload for record in await hub.backend.read(name, 0, ALL, ALL)]


async def ended(stream: Stream) -> EndReason:
    await until(lambda: stream.end is not None and not stream.is_produced)
    assert stream.end is not None
    return stream.end


async def test_tokens_share_commits(tmp_path: Path) -> None:
    async with opened(tmp_path) as (hub, store):
        before = store.counts.commits
        stream = await hub.start("a", numbers(2000))
        assert await ended(stream) is EndReason.COMPLETE
        assert await values_of(hub) == [b"%d" % number for number in range(2000)]
        commits = store.counts.commits - before
        assert 1 < commits < 700, commits


async def test_a_token_that_comes_alone_waits_for_nothing(tmp_path: Path) -> None:
    tokens: asyncio.Queue[int] = asyncio.Queue()

    async def source() -> AsyncIterator[int]:
        while True:
            yield await tokens.get()

    async with opened(tmp_path) as (hub, _):
        stream = await hub.start("a", source())
        for number in range(3):
            tokens.put_nowait(number)
            await until(lambda: stream.offset.position > number)  # noqa: B023
        await stream.cancel()


async def test_one_group_is_under_way_at_a_time_and_what_waits_goes_together(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as (hub, store):
        store.appends.shut()
        stream = await hub.start("a", numbers(100, turns_each=0))
        await until(lambda: store.appends.waiting)
        await turns(300)
        assert store.appends.waiting == 1
        before = store.counts.commits
        store.appends.open()
        assert await ended(stream) is EndReason.COMPLETE
        assert store.counts.commits - before <= 2, "the other ninety-nine, and the end"
        assert await values_of(hub) == [b"%d" % number for number in range(100)]


async def test_a_producer_is_ahead_by_no_more_than_the_window(tmp_path: Path) -> None:
    payload = "x" * 1000
    yielded = 0

    async def source() -> AsyncIterator[str]:
        nonlocal yielded
        while yielded < 3000:
            yielded += 1
            yield payload

    async with opened(tmp_path) as (hub, store):
        store.appends.shut()
        stream = await hub.start("a", source())
        await until(lambda: store.appends.waiting)
        await turns(50)
        most = FEED_BYTES // (len(payload) + 2 + RECORD_OVERHEAD_BYTES) + 3
        assert yielded <= most
        store.appends.open()
        assert await ended(stream) is EndReason.COMPLETE
        assert len(await values_of(hub)) == 3000


async def test_a_record_larger_than_the_window_goes_through(tmp_path: Path) -> None:
    async def source() -> AsyncIterator[str]:
        for letter in "abc":
            yield letter * (2 * FEED_BYTES)

    async with opened(tmp_path) as (hub, _):
        stream = await hub.start("a", source())
        assert await ended(stream) is EndReason.COMPLETE
        assert [value[1:2] for value in await values_of(hub)] == [b"a", b"b", b"c"]


async def test_any_pace_keeps_the_order(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)

    async def source(name: str) -> AsyncIterator[NewRecord]:
        for number in range(600):
            yield NewRecord(b"%d" % number, "token", name)
            for _ in range(rng.choice([0, 0, 0, 1, 5, 30])):
                await asyncio.sleep(0)

    async with opened(tmp_path) as (hub, _):
        streams = [await hub.start(f"s{k}", source(f"s{k}")) for k in range(5)]
        for stream in streams:
            assert await ended(stream) is EndReason.COMPLETE
            records = await hub.backend.read(stream.name, 0, ALL, ALL)
            assert [int(record.payload) for record in records] == list(range(600))
            assert {(record.type, record.key) for record in records} == {("token", stream.name)}


async def test_what_was_yielded_before_a_failure_is_kept(tmp_path: Path) -> None:
    async def source() -> AsyncIterator[int]:
        for number in range(5):
            yield number
        raise RuntimeError("upstream")

    async with opened(tmp_path) as (hub, store):
        store.appends.shut()
        stream = await hub.start("a", source())
        await until(lambda: store.appends.waiting)
        await turns()
        store.appends.open()
        assert await ended(stream) is EndReason.FAILED
        assert await values_of(hub) == [b"0", b"1", b"2", b"3", b"4"]


async def test_what_is_no_record_fails_the_stream_after_those_before_it(tmp_path: Path) -> None:
    async def source() -> AsyncIterator[Any]:
        yield 1
        yield NewRecord(b"2", "end")
        yield 3

    async with opened(tmp_path) as (hub, _):
        stream = await hub.start("a", source())
        assert await ended(stream) is EndReason.FAILED
        assert await values_of(hub) == [b"1"]


# --- cancelling ---------------------------------------------------------------------------------


async def test_a_cancel_while_a_group_is_under_way_ends_the_stream_and_its_source(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    is_closed = False

    async def source() -> AsyncIterator[int]:
        nonlocal is_closed
        try:
            for number in range(1000):
                yield number
                await asyncio.sleep(0)
        finally:
            is_closed = True

    async with opened(tmp_path) as (hub, store):
        store.appends.shut()
        stream = await hub.start("a", source())
        await until(lambda: store.appends.waiting)
        await turns(20)
        cancelling = asyncio.create_task(stream.cancel())
        await until(lambda: stream.end is not None)
        store.appends.open()
        assert await cancelling
        assert await ended(stream) is EndReason.CANCELLED
        assert is_closed
        values = await values_of(hub)
        assert values == [b"%d" % number for number in range(len(values))]
        assert 1 <= len(values) < 1000
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_producer_whose_stream_was_ended_by_another_stops_without_complaint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, said: complaints.append(said))
    tokens: asyncio.Queue[int] = asyncio.Queue()

    async def source() -> AsyncIterator[int]:
        while True:
            yield await tokens.get()

    async with opened(tmp_path) as (hub, store):
        stream = await hub.start("a", source())
        tokens.put_nowait(1)
        await until(lambda: stream.offset.position == 1)
        # The end goes to the store first, the token after it: its group is refused.
        closing = asyncio.create_task(store.append("a", [], end=EndReason.COMPLETE))
        await turns(1)
        tokens.put_nowait(2)
        await closing
        await turns(20)
        await stream.stop_producer()
        assert await ended(stream) is EndReason.COMPLETE
        assert await values_of(hub) == [b"1"]
    gc.collect()
    await turns()
    assert complaints == []
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_stream_that_is_deleted_stops_its_producer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(tmp_path) as (hub, _):
        stream = await hub.start("a", numbers(100_000))
        await until(lambda: stream.offset.position > 5)
        await hub.delete("a")
        await until(lambda: not stream.is_produced)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_stopping_the_hub_ends_a_stream_as_lost_with_all_that_was_committed(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as (hub, _):
        stream = await hub.start("a", numbers(100_000))
        await until(lambda: stream.offset.position > 5)
    async with Hub(f"sqlite:///{tmp_path}/store.db") as hub:
        head, _ = await hub.backend.head("a")
        assert head.end is EndReason.LOST
        values = await values_of(hub)
        assert values == [b"%d" % number for number in range(head.tail)]


# --- a store that is full -----------------------------------------------------------------------


async def test_a_full_disk_fails_the_stream_once_there_is_room_for_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(production, "END_AGAIN_S", 0.01)
    yielded = 0

    async def source() -> AsyncIterator[str]:
        nonlocal yielded
        while True:
            yielded += 1
            yield f"{yielded} " + "x" * 20_000
            await asyncio.sleep(0)

    async with opened(tmp_path, max_pages=300) as (hub, _):
        ballast = await hub.create("ballast", content_type="text/plain")
        for _ in range(10):
            await ballast.append("b" * 40_000)
        stream = await hub.start("a", source())
        await until(lambda: not stream.is_produced)
        # Meanwhile its readers wait, and what was committed is there.
        values = await values_of(hub)
        assert [int(value[1:].split()[0]) for value in values] == list(range(1, len(values) + 1))
        await hub.delete("ballast")
        assert await ended(stream) is EndReason.FAILED
        assert await values_of(hub) == values
        # The service goes on.
        other = await hub.create("other", content_type="text/plain")
        await other.append("there is room")
    assert "is full" in caplog.text


async def test_an_end_that_cannot_be_stored_is_tried_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(production, "END_AGAIN_S", 0.01)
    async with opened(tmp_path) as (hub, store):
        store.appends.shut()
        stream = await hub.start("a", numbers(3, turns_each=0))
        await until(lambda: store.appends.waiting)
        store.failure = DiskFull(store.path)
        store.appends.open()
        await until(lambda: not stream.is_produced)
        assert stream.end is None, "its readers wait"
        await turns(50)
        store.failure = None
        assert await ended(stream) is EndReason.FAILED
        assert await values_of(hub) == [b"0"]


async def test_nothing_follows_a_group_that_the_store_refused(tmp_path: Path) -> None:
    """What came after it might fit, and would hide that there is a hole."""
    tokens: asyncio.Queue[int] = asyncio.Queue()

    async def source() -> AsyncIterator[int]:
        while True:
            yield await tokens.get()

    async with opened(tmp_path) as (hub, store):
        stream = await hub.start("a", source())
        tokens.put_nowait(1)
        await until(lambda: stream.offset.position == 1)
        store.failure = DiskFull(store.path)
        store.appends.shut()
        tokens.put_nowait(2)
        await until(lambda: store.appends.waiting)
        tokens.put_nowait(3)
        await turns(10)
        store.failure = None
        store.appends.open()
        await turns(10)
        tokens.put_nowait(4)
        assert await ended(stream) is EndReason.FAILED
        assert await values_of(hub) == [b"1"]
