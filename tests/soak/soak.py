"""A long run of what goes wrong all day: cut connections, slow readers, streams that come and go.

`make soak` (or `python tests/soak/soak.py --seconds 600 --seed 7`) runs one `penstock serve`, and
in this process publishers, and clients whose connections are cut at random moments. Every client
must see every record of its stream once and in order, up to the typed end; at the end nobody may
still be counted as a reader, and the server's memory must not have grown with time. Prints a line
every ten seconds, and its seed.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import aiohttp

from penstock import connect
from penstock.client import publish

STREAMS_AT_ONCE = 12
READERS_A_STREAM = 4
RECORDS_A_STREAM = 400
CUT_AFTER_BYTES = (200, 40_000)
GROWTH_MB = 40


class Cutter:
    """A TCP proxy on loopback that cuts each connection after a random number of bytes."""

    def __init__(self, upstream: int, random_: random.Random) -> None:
        self._upstream = upstream
        self._random = random_
        self._server: asyncio.Server | None = None
        self.cuts = 0

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            back, there = await asyncio.open_connection("127.0.0.1", self._upstream)
            left = self._random.randint(*CUT_AFTER_BYTES)
            up = asyncio.create_task(self._copy(reader, there, 1 << 60))
            try:
                if await self._copy(back, writer, left):
                    self.cuts += 1
            finally:
                up.cancel()
                there.transport.abort()
        writer.transport.abort()

    async def _copy(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, left: int
    ) -> bool:
        """Pass bytes on; True when the limit was reached, False at the end."""
        with suppress(OSError):
            while left > 0 and (data := await source.read(min(left, 4096))):
                sink.write(data)
                await sink.drain()
                left -= len(data)
            return left <= 0
        return False


class Soak:
    """One run: what was seen, and what was wrong."""

    def __init__(self, port: int, seed: int) -> None:
        self.port = port
        self.random = random.Random(seed)
        self.streams = self.events = self.connections = 0
        self.cutter = Cutter(port, self.random)
        self.through = 0

    async def run(self, until: float) -> None:
        self.through = await self.cutter.start()
        try:
            async with asyncio.TaskGroup() as group:
                for place in range(STREAMS_AT_ONCE):
                    group.create_task(self._lane(place, until))
        finally:
            await self.cutter.stop()

    async def _lane(self, place: int, until: float) -> None:
        number = 0
        while time.monotonic() < until:
            name = f"soak/{place}/{number}"
            number += 1
            url = f"http://127.0.0.1:{self.port}/v1/stream/{name}"
            await publish(url, b'{"n":0}', create=True)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._publish(url))
                for _ in range(READERS_A_STREAM):
                    group.create_task(self._read(name))
            async with aiohttp.ClientSession() as session, session.delete(url) as response:
                assert response.status == 204, response.status
            self.streams += 1

    async def _publish(self, url: str) -> None:
        sent = 1
        while sent < RECORDS_A_STREAM:
            batch = range(sent, min(sent + self.random.randint(1, 20), RECORDS_A_STREAM))
            body = ",".join(f'{{"n":{number},"pad":"{"x" * (number % 97)}"}}' for number in batch)
            sent = batch.stop
            await publish(url, f"[{body}]".encode(), close=sent == RECORDS_A_STREAM)
            await asyncio.sleep(self.random.uniform(0, 0.05))

    async def _read(self, name: str) -> None:
        url = f"http://127.0.0.1:{self.through}/v1/stream/{name}"
        await asyncio.sleep(self.random.uniform(0, 0.5))
        expected = 0
        slow = self.random.random() < 0.25
        async with connect(url) as events:
            async for event in events:
                assert event.type == "message", f"{name}: {event}"
                assert event.json()["n"] == expected, f"{name}: {event} after {expected - 1}"
                expected += 1
                if slow and expected % 50 == 0:
                    await asyncio.sleep(0.05)
        assert expected == RECORDS_A_STREAM, f"{name}: {expected} records, then the end"
        assert events.end_reason == "complete", events.end_reason
        self.events += expected
        self.connections += events.connections


async def main(seconds: float, seed: int) -> None:
    print(f"seed {seed}", flush=True)
    penstock = Path(sys.executable).with_name("penstock")
    # A short reconnection time: what is soaked is coming back, not waiting.
    server = subprocess.Popen(
        [penstock, "serve", "--port", "0", "--log-level", "warning"],
        stdout=subprocess.PIPE,
        text=True,
        env={"PENSTOCK_RETRY_MS": "100"},
    )
    assert server.stdout is not None
    found = re.search(r":(\d+)\s*$", server.stdout.readline())
    assert found, "the server did not start"
    try:
        soak = Soak(int(found[1]), seed)
        started = time.monotonic()
        running = asyncio.create_task(soak.run(started + seconds))
        early: float | None = None
        while not running.done():
            await asyncio.wait([running], timeout=10)
            now = time.monotonic() - started
            if early is None and now > min(seconds / 4, 60):
                early = _rss_mb(server.pid)
            print(_line(soak, now, server.pid), flush=True)
        await running
        await _check(soak, server.pid, early or 0.0)
    finally:
        server.terminate()
        status = server.wait(10)
    assert status == 0, f"the server left with {status}"
    print("whole, in order, and nothing left behind")


def _line(soak: Soak, seconds: float, pid: int) -> str:
    return (
        f"{seconds:6.0f} s  {soak.streams} streams  {soak.events} events read  "
        f"{soak.connections} connections  {soak.cutter.cuts} cuts  {_rss_mb(pid):.0f} MB"
    )


async def _check(soak: Soak, pid: int, early_mb: float) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{soak.port}/metrics") as response,
    ):
        text = await response.text()
    readers = re.findall(r"^penstock_readers\{.*\} (\S+)$", text, re.MULTILINE)
    assert [float(count) for count in readers] == [0, 0], readers
    grown = _rss_mb(pid) - early_mb
    assert grown < GROWTH_MB, f"the server grew by {grown:.0f} MB"


def _rss_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text("utf-8")
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    asyncio.run(main(options.seconds, options.seed))
