"""A request's head is bounded in bytes and in time; the parser itself bounds neither.

Plain sockets, since a client library would not send what is refused here.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from inprocess import Served, serving, until
from penstock.server.hub import Hub
from raw_http import connect

HEADER_BYTES = 4096
HEADER_S = 0.3
BOUNDS = {"header_bytes": HEADER_BYTES, "header_s": HEADER_S}
LINE = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"


async def everything(server: Served, *parts: bytes, pause_s: float = 0.0) -> bytes:
    """Send parts and give all that is answered until the server closes."""
    async with connect(server.port) as connection:

        async def dribble() -> None:
            for part in parts:
                connection.writer.write(part)
                await asyncio.sleep(pause_s)

        sender = asyncio.create_task(dribble())
        answered = b""
        try:
            async with asyncio.timeout(10):
                while data := await connection.reader.read(65536):
                    answered += data
        except ConnectionError:
            pass  # a reset after the answer: what was sent and not read is dropped
        finally:
            sender.cancel()
        return answered


def problem(answer: bytes) -> Any:
    """The one problem that an answer is; fails when there is anything else."""
    assert answer.count(b"HTTP/1.1 ") == 1, answer
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head
    assert b"connection: close" in head
    parsed = json.loads(body)
    assert head.startswith(f"HTTP/1.1 {parsed['status']} ".encode())
    return parsed["status"], parsed["code"]


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [b"\r\n"] * 100,
        [b"G"],
        [LINE],
        [bytes([byte]) for byte in LINE * 3],
        [LINE, *([b"X-A: b\r\n"] * 100)],
    ],
    ids=["nothing", "empty lines", "one byte", "no end", "byte by byte", "line by line"],
)
async def test_a_head_that_does_not_come_in_time_is_408(parts: list[bytes]) -> None:
    async with serving(Hub(), bounds=BOUNDS) as server:
        began = time.monotonic()
        answer = await everything(server, *parts, pause_s=0.02)
        assert problem(answer) == (408, "headers-too-slow")
        assert HEADER_S * 0.9 <= time.monotonic() - began < HEADER_S + 3
        await until(lambda: not server.connections)


HUGE = b"x" * (HEADER_BYTES * 3)


@pytest.mark.parametrize(
    "parts",
    [
        [LINE + b"X-Huge: " + HUGE + b"\r\n\r\n"],
        [LINE + b"X-Huge: " + HUGE],
        [LINE, b"X-Huge: ", *[HUGE[:512]] * 12],
        [LINE + b"X: y\r\n" * HEADER_BYTES + b"\r\n"],
        [LINE, *[b"X: y\r\n" * 50] * 30],
        [b"GET /" + HUGE + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"],
        [b"GET /", *[HUGE[:512]] * 12],
        [LINE + b"X-" + HUGE + b": y\r\n\r\n"],
    ],
    ids=[
        "one header",
        "one header without end",
        "one header dribbled",
        "many headers",
        "many headers dribbled",
        "address",
        "address dribbled",
        "name of a header",
    ],
)
async def test_a_head_of_too_many_bytes_is_431(parts: list[bytes]) -> None:
    bounds = {"header_bytes": HEADER_BYTES, "header_s": 5.0}
    async with serving(Hub(), bounds=bounds) as server:
        answer = await everything(server, *parts, pause_s=0.005)
        assert problem(answer) == (431, "headers-too-large")
        await until(lambda: not server.connections)


async def test_a_head_just_below_the_bound_is_answered() -> None:
    async with serving(Hub(), bounds=BOUNDS) as server, connect(server.port) as connection:
        answer = await connection.ask("GET", "/healthz", {"X-Large": "x" * (HEADER_BYTES - 200)})
        assert answer.status == 200


async def test_the_next_request_of_a_connection_is_bounded_too() -> None:
    async with serving(Hub(), bounds=BOUNDS) as server:
        for second, expected in (
            (LINE + b"X-Huge: " + HUGE + b"\r\n\r\n", (431, "headers-too-large")),
            (LINE, (408, "headers-too-slow")),
        ):
            async with connect(server.port) as connection:
                assert (await connection.ask("GET", "/healthz")).status == 200
                await connection.send_raw(second)
                answer = await connection.head()
                assert (answer.status, json.loads(await connection.body())["code"]) == expected
                assert await connection.is_closed()


async def test_a_large_body_is_no_large_head() -> None:
    hub = Hub()
    async with serving(hub, bounds=BOUNDS) as server, connect(server.port) as connection:
        await hub.create("a")
        body = b'"' + b"x" * 300_000 + b'"'
        headers = {"Content-Type": "application/json"}
        for _ in range(3):
            answer = await connection.ask("POST", "/v1/stream/a", headers, body)
            assert answer.status == 204


async def test_many_requests_on_one_connection_are_each_bounded_alone() -> None:
    async with serving(Hub(), bounds=BOUNDS) as server, connect(server.port) as connection:
        for _ in range(20):
            answer = await connection.ask("GET", "/healthz", {"X-Large": "x" * 1000})
            assert answer.status == 200


async def test_a_slow_body_is_no_slow_head() -> None:
    """The time bounds the head; a body may come as slowly as its client is."""
    hub = Hub()
    async with serving(hub, bounds={"header_s": 0.1}) as server, connect(server.port) as connection:
        await hub.create("a")
        head = "POST /v1/stream/a HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        await connection.send_raw(f"{head}Content-Length: 3\r\n\r\n".encode())
        for byte in (b"1", b"2", b"3"):
            await asyncio.sleep(0.1)  # longer than the head may take, in all
            await connection.send_raw(byte)
        assert (await connection.head()).status == 204


async def test_a_stream_outlives_the_time_of_a_head() -> None:
    hub = Hub()
    async with serving(hub, bounds={"header_s": 0.1}) as server, connect(server.port) as connection:
        stream = await hub.create("a")
        await connection.send("GET", "/v1/stream/a?live=events")
        assert (await connection.head()).status == 200
        await asyncio.sleep(0.25)  # a timer left armed would have fired
        await stream.close()
        assert (await connection.body()).endswith(b'data: {"reason":"complete"}\n\n')
