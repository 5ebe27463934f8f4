"""Providers for tests of calls: what is asked, whom, and servers that say any bytes one likes."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from penstock.gateway.calls import Call, Calls
from penstock.gateway.config import UpstreamSettings
from penstock.llm.ask.dialects import read_request
from penstock.llm.ask.request import Request
from penstock.llm.events import Failure, Text, TokenEvent

KEY = "sk-secret-0123456789"
PATIENCE_S = 15.0

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """One chunk of a body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(fields: dict[str, Any]) -> bytes:
    """One event of an answer in OpenAI's dialect."""
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def said(text: str) -> bytes:
    """An event with a text."""
    return event({"id": "a", "model": "m", "choices": [{"index": 0, "delta": {"content": text}}]})


STOP = event({"id": "a", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
DONE = b"data: [DONE]\n\n"
WHOLE = HEAD + chunk(said("hello")) + chunk(STOP + DONE) + LAST
"""An answer that says hello."""


def response(status: int, body: bytes, *headers: str) -> bytes:
    """A whole response with a body of known length."""
    lines = (f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *headers)
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@dataclass(eq=False)
class Said:
    """One request, as it came over a connection, and the connection to answer over."""

    head: str
    body: bytes
    writer: asyncio.StreamWriter = field(repr=False)
    reader: asyncio.StreamReader = field(repr=False)

    @property
    def headers(self) -> dict[str, str]:
        lines = self.head.split("\r\n")[1:]
        return {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines) if n}

    @property
    def line(self) -> str:
        return self.head.partition("\r\n")[0]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    async def gone(self) -> None:
        """Waits until the client has closed the connection."""
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(self.reader.read(), PATIENCE_S)


Handler = Callable[[Said], Awaitable[bytes | None]]


class Provider:
    """A server of raw bytes. `handler` gives what is answered; None closes the connection."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._tasks: set[asyncio.Task[None]] = set()
        self.requests: list[Said] = []
        self.connections = 0
        self.open = 0
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                request = Said(head, b"", writer, reader)
                length = int(request.headers.get("content-length", 0))
                request.body = await reader.readexactly(length)
                self.requests.append(request)
                answer = await self._handler(request)
                if answer is None:
                    break
                writer.write(answer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.open -= 1
            self._tasks.discard(task)
            writer.transport.abort()


@contextlib.asynccontextmanager
async def provider(handler: Handler) -> AsyncGenerator[Provider]:
    """A provider that runs."""
    running = Provider(handler)
    server = await asyncio.start_server(running._serve, "127.0.0.1", 0, limit=1 << 26)
    running.port = server.sockets[0].getsockname()[1]
    try:
        yield running
    finally:
        server.close()
        for task in [*running._tasks]:
            task.cancel()
        await asyncio.gather(*running._tasks, return_exceptions=True)
        await server.wait_closed()


def answers(*bodies: bytes | None) -> Handler:
    """A handler that gives these in turn, and the last one ever after."""
    left = [*bodies]

    async def handle(_: Said) -> bytes | None:
        return left.pop(0) if len(left) > 1 else left[0]

    return handle


def upstream(url: str, **more: Any) -> UpstreamSettings:
    """An upstream in OpenAI's dialect."""
    fields: dict[str, Any] = {
        "name": "one",
        "dialect": "openai-chat",
        "base_url": f"{url}/v1",
        "api_key": KEY,
        "retries": 0,
    }
    return UpstreamSettings(**(fields | more))


def request(model: str = "m", text: str = "Why?", **more: Any) -> Request:
    """A question."""
    messages = [{"role": "user", "content": text}]
    return read_request("openai-chat", {"model": model, "messages": messages, **more})


async def drain(call: Call) -> list[TokenEvent]:
    """All events of a call."""
    events: list[TokenEvent] = []
    while True:
        # Not `wait_for`, which before Python 3.12 can lose a cancellation.
        async with asyncio.timeout(PATIENCE_S):
            more = await call.read()
        if not more:
            return events
        events += more


async def collect(
    calls: Calls, *upstreams: UpstreamSettings, asked: Request | None = None, **more: Any
) -> tuple[Call, list[TokenEvent]]:
    """A call and all that came of it."""
    async with asyncio.timeout(PATIENCE_S):
        call = await calls.ask(asked or request(), upstreams, **more)
    return call, await drain(call)


def text_of(events: list[TokenEvent]) -> str:
    """What an answer says."""
    return "".join(event.text for event in events if isinstance(event, Text))


def failure_of(events: list[TokenEvent]) -> Failure:
    """How an answer failed; fails where it did not."""
    last = events[-1]
    assert isinstance(last, Failure), events
    return last


async def until(is_so: Callable[[], bool]) -> None:
    """Waits for a condition."""
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():
            await asyncio.sleep(0.005)
