"""Readers of one stream, foreign and native, as one thing: an iterator of payloads and offsets.

A payload is a list of values of a JSON stream, a `str` of a text stream, and `bytes` of others.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import penstock
from raw_http import PATIENCE_S, events
from running_programs import program

PROGRAMS = Path(__file__).parent
JSON, TEXT, BYTES = "application/json", "text/plain", "application/octet-stream"
CLIENTS = {"typescript": "mjs", "python": "py"}

Batches = AsyncGenerator[tuple[Any, str]]


def whole(values: list[Any], content_type: str) -> Any:
    """What readers get of values that were written: bytes are written as base64."""
    if content_type == JSON:
        return values
    if content_type == TEXT:
        return "".join(values)
    return b"".join(map(base64.b64decode, values))


@asynccontextmanager
async def foreign(client: str, url: str, live: str, offset: str = "-1") -> AsyncGenerator[Batches]:
    """A published client. `live` is `none`, `long-poll` or `sse`."""
    async with program(PROGRAMS / f"read.{CLIENTS[client]}", url, live, offset) as reading:

        async def batches() -> Batches:
            while True:
                try:
                    line = await reading.line()
                except EOFError:
                    assert await reading.process.wait() == 0, reading.complained()
                    return
                ((kind, payload),) = [pair for pair in line.items() if pair[0] != "offset"]
                yield base64.b64decode(payload) if kind == "base64" else payload, line["offset"]

        async with aclosing(batches()) as found:
            yield found


@asynccontextmanager
async def event_source(url: str, content_type: str) -> AsyncGenerator[Batches]:
    """The standard's `EventSource`, which Node has; it comes back by itself."""
    async with program(PROGRAMS / "event_source.mjs", url) as reading:

        async def batches() -> Batches:
            while "data" in (line := await reading.line()):
                yield _payload(line["data"], content_type), line["id"]
            assert line["end"] == {"reason": "complete"}

        async with aclosing(batches()) as found:
            yield found


@asynccontextmanager
async def ours(url: str, content_type: str, offset: str = "") -> AsyncGenerator[Batches]:
    """The client of this package; it comes back by itself."""
    async with penstock.connect(url, last_event_id=offset) as reading:

        async def batches() -> Batches:
            while True:
                async with asyncio.timeout(PATIENCE_S):
                    event = await anext(reading, None)
                if event is None:
                    assert reading.end_reason == "complete"
                    return
                yield _payload(event.data, content_type), event.id

        async with aclosing(batches()) as found:
            yield found


@asynccontextmanager
async def bare(url: str, content_type: str, offset: str = "") -> AsyncGenerator[Batches]:
    """A connection that asks for native SSE and repairs nothing."""
    place = url.removeprefix("http://127.0.0.1:")
    port, _, path = place.partition("/")
    headers = {"Last-Event-ID": offset} if offset else {}
    async with events(int(port), f"/{path}", headers) as reading:

        async def batches() -> Batches:
            while (event := await reading.next()).type != "end":
                yield _payload(event.data, content_type), event.last_event_id
            assert json.loads(event.data) == {"reason": "complete"}

        async with aclosing(batches()) as found:
            yield found


def _payload(data: str, content_type: str) -> Any:
    if content_type == JSON:
        return [json.loads(data)]
    return data if content_type == TEXT else base64.b64decode(data)


async def take(reader: Batches, size: int) -> tuple[Any, str]:
    """The next payload of this size, in as many batches as it comes, and the offset after it."""
    payload, offset = await anext(reader)
    while len(payload) < size:
        more, offset = await anext(reader)
        payload += more
    return payload, offset


async def rest(reader: Batches) -> Any:
    """What comes before the end."""
    return [payload async for payload, _ in reader if payload]
