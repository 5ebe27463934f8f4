"""A reader that does not read costs the server its place, and no memory.

Half a gigabyte passes to another meanwhile; the log keeps 16 MB. What a queue per reader would
hold is twelve times what is allowed here.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
from multiprocessing.connection import Connection as Pipe

import psutil
import pytest

from inprocess import serving
from penstock.core import limits
from penstock.core.cursor import parse_offset
from penstock.server.hub import Hub
from raw_http import EVENT_STREAM, EventReader, connect, events

PAYLOAD = b'"' + b"x" * 32_766 + b'"'
BATCH = 25
TOTAL_BYTES = 500_000_000
COUNT = TOTAL_BYTES // len(PAYLOAD) // BATCH * BATCH
MOST_GROWTH = 40_000_000


def serve(pipe: Pipe, fast: bool) -> None:
    asyncio.run(_serve(pipe, fast))


async def _serve(pipe: Pipe, fast: bool) -> None:
    """The server's process: publish when told to, say how large it has become."""
    hub, loop = Hub(), asyncio.get_running_loop()
    options = {} if fast else {"http": "httptools"}
    async with serving(hub, **options) as server:
        stream = await hub.create("a")
        pipe.send(server.port)
        await loop.run_in_executor(None, pipe.recv)
        gc.collect()
        before = psutil.Process().memory_info().rss
        largest = before
        for number in range(COUNT // BATCH):
            # Those who read set the pace: their place in the log is never far behind.
            while hub.snapshot().lagging > 1:
                await asyncio.sleep(0.001)
            for _ in range(BATCH):
                await stream.append(PAYLOAD)
            await asyncio.sleep(0)
            if number % 20 == 0:
                largest = max(largest, psutil.Process().memory_info().rss)
        pipe.send((largest - before, str(stream.head.earliest_offset)))
        await stream.close()
        await loop.run_in_executor(None, pipe.recv)


@pytest.mark.slow
@pytest.mark.parametrize("fast", [True, False], ids=["fast", "portable"])
async def test_a_stuck_reader_holds_no_memory_and_is_told_of_its_gap(fast: bool) -> None:
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, fast), daemon=True)
    process.start()
    loop = asyncio.get_running_loop()
    try:
        port = await loop.run_in_executor(None, pipe.recv)
        async with events(port, "/v1/stream/a", receive_buffer=65536) as stuck:
            await stuck.until(b"retry:")
            is_reading = asyncio.Event()
            other = asyncio.create_task(_count(port, is_reading))
            await is_reading.wait()
            pipe.send("go")
            growth, earliest = await loop.run_in_executor(None, pipe.recv)
            assert await other == COUNT
            assert growth < MOST_GROWTH
            await _assert_gap(stuck, earliest)
        pipe.send("done")
        await loop.run_in_executor(None, process.join, 10)
        assert process.exitcode == 0
    finally:
        if process.is_alive():
            process.terminate()
        process.join(10)


async def _count(port: int, is_reading: asyncio.Event) -> int:
    """Read a stream to its end and count its records, without decoding half a gigabyte."""
    quotes = size = 0
    async with connect(port) as connection:
        await connection.send("GET", "/v1/stream/a", EVENT_STREAM)
        await connection.head()
        while data := await connection.piece():
            is_reading.set()
            size += len(data)
            quotes += data.count(b'"')
    assert size > COUNT * len(PAYLOAD)
    # A record has two quotes, and the end's own event four: {"reason":"complete"}.
    return (quotes - 4) // 2


async def _assert_gap(stuck: EventReader, earliest: str) -> None:
    got = await stuck.rest()
    kinds = [event.type for event in got]
    assert kinds.count("gap") == 1
    assert kinds[-1] == "end"
    before, after = kinds.index("gap"), len(kinds) - kinds.index("gap") - 2
    positions = [parse_offset(e.last_event_id).position for e in got if e.type == "message"]
    assert positions[:before] == list(range(1, before + 1))
    assert positions[before:] == list(range(COUNT - after + 1, positions[-1] + 1))
    assert after * len(PAYLOAD) <= limits.RETAIN_BYTES
    assert parse_offset(earliest).position == positions[before] - 1
