"""A small HTTP/1.1 client that hides nothing: heads, chunks and cuts as they are on the wire.

Ordinary clients repair, retry, pool and merge; a test of a transport must see what was sent. Every
wait has a deadline, so that a server that stays silent is a failure and not a hang.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from penstock.wire.sse import Decoder, Event

PATIENCE_S = 15.0
"""How long to wait for something that takes milliseconds when nothing else runs."""

EVENT_STREAM = {"Accept": "text/event-stream"}


class BodyCut(Exception):
    """The connection ended in the middle of a body."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response. Header names are in lower case, in the order of the wire."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""

    def all(self, name: str) -> list[str]:
        """Every value of a header."""
        return [value for key, value in self.headers if key == name]

    def __getitem__(self, name: str) -> str:
        """The one value of a header: fails when it is missing or there twice."""
        (value,) = self.all(name)
        return value

    def __contains__(self, name: str) -> bool:
        return bool(self.all(name))

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of a problem; fails when the answer is none."""
        assert self["content-type"] == "application/problem+json", self
        problem = self.json
        assert problem["status"] == self.status
        return str(problem["code"])


class Connection:
    """One TCP connection that speaks HTTP/1.1. Use `connect`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._is_chunked = False
        self._left: int | None = None
        self._in_chunk = 0

    async def send(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        *,
        version: str = "1.1",
    ) -> None:
        """Send a request; with `body`, its length."""
        lines = {"Host": "127.0.0.1", **(headers or {})}
        if body is not None:
            lines["Content-Length"] = str(len(body))
        head = [f"{method} {target} HTTP/{version}"]
        head += [f"{name}: {value}" for name, value in lines.items()]
        await self.send_raw("\r\n".join([*head, "", ""]).encode("utf-8") + (body or b""))

    async def send_raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)
        async with asyncio.timeout(PATIENCE_S):
            await self.writer.drain()

    async def head(self, method: str = "GET") -> Answer:
        """Read a response's head. `method` is the request's: HEAD has no body."""
        async with asyncio.timeout(PATIENCE_S):
            raw = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = raw.decode("latin-1")[:-4].split("\r\n")
        status = int(first.split(" ")[1])
        pairs = [line.split(":", 1) for line in lines]
        answer = Answer(status, [(name.lower(), value.strip()) for name, value in pairs])
        self._is_chunked = "chunked" in answer.all("transfer-encoding")
        length = answer.all("content-length")
        self._left = int(length[0]) if length else None
        if method == "HEAD" or status in (204, 304):
            self._is_chunked, self._left = False, 0
        self._in_chunk = 0
        return answer

    async def piece(self) -> bytes:
        """Read some more of the body; nothing at its end. Raises BodyCut when it is cut off."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                return await (self._chunk() if self._is_chunked else self._plain())
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                raise BodyCut from error

    async def _chunk(self) -> bytes:
        if not self._in_chunk:
            line = await self.reader.readuntil(b"\r\n")
            self._in_chunk = int(line, 16)
            if not self._in_chunk:
                await self.reader.readexactly(2)
                self._is_chunked, self._left = False, 0
                return b""
        data = await self.reader.read(self._in_chunk)
        if not data:
            raise BodyCut
        self._in_chunk -= len(data)
        if not self._in_chunk:
            await self.reader.readexactly(2)
        return data

    async def _plain(self) -> bytes:
        if self._left == 0:
            return b""
        data = await self.reader.read(65536 if self._left is None else self._left)
        if self._left is not None:
            if not data:
                raise BodyCut
            self._left -= len(data)
        return data

    async def body(self) -> bytes:
        """Read the body to its end."""
        parts: list[bytes] = []
        while part := await self.piece():
            parts.append(part)
        return b"".join(parts)

    async def raw_answer(self, method: str = "GET") -> bytes:
        """Read one whole response, and give its bytes as they came. Only its length or its chunks
        may frame it."""
        async with asyncio.timeout(PATIENCE_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            status, fields = int(head[9:12]), head.lower()
            if method == "HEAD" or status in (204, 304) or status < 200:
                return head
            if length := re.search(rb"\r\ncontent-length: (\d+)\r\n", fields):
                return head + await self.reader.readexactly(int(length[1]))
            assert b"\r\ntransfer-encoding: chunked\r\n" in fields, head
            return head + await self.reader.readuntil(b"\r\n0\r\n\r\n")

    async def ask(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """Send a request and read all of its response; the connection can be used again."""
        await self.send(method, target, headers, body)
        answer = await self.head(method)
        return Answer(answer.status, answer.headers, await self.body())

    async def is_closed(self) -> bool:
        """Whether the server has closed the connection, and sent nothing more."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                return await self.reader.read(1) == b""
            except ConnectionError:
                return True

    def widen(self) -> None:
        """Give a connection that was opened with a small kernel buffer a large one."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)

    def hang_up(self) -> None:
        """Go without a word: a reset, as a process that is killed leaves behind."""
        self.writer.transport.abort()


class EventReader:
    """A response of events, with everything of it that came so far."""

    def __init__(self, connection: Connection, answer: Answer) -> None:
        self.connection = connection
        self.answer = answer
        self.raw = b""
        self.decoder = Decoder()
        self._ready: list[Event] = []
        self._is_over = False

    async def more(self) -> bool:
        """Read on; False at the clean end of the body."""
        data = await self.connection.piece()
        if not data:
            self._is_over = True
            return False
        self.raw += data
        self.decoder.receive_data(data)
        self._ready += self.decoder.events()
        return True

    async def next(self) -> Event:
        """Give the next event."""
        while not self._ready:
            assert await self.more(), f"the body ended: {self.raw[-500:]!r}"
        return self._ready.pop(0)

    async def take(self, count: int) -> list[Event]:
        """Give the next events, so many."""
        return [await self.next() for _ in range(count)]

    async def rest(self) -> list[Event]:
        """Give every event up to the clean end of the body."""
        while not self._is_over:
            await self.more()
        events, self._ready = self._ready, []
        return events

    async def until(self, text: bytes) -> None:
        """Read on until these bytes were in the body."""
        while text not in self.raw:
            assert await self.more(), f"the body ended: {self.raw[-500:]!r}"

    @property
    def retry_ms(self) -> int | None:
        return self.decoder.retry_ms

    @property
    def without_preamble(self) -> bytes:
        """The body without its first comment, `retry:` (which is drawn) and heartbeats."""
        body = re.sub(rb"\A: penstock\n\nretry: \d+\n\n", b"", self.raw)
        return body.replace(b": \n\n", b"")


@asynccontextmanager
async def connect(port: int, *, receive_buffer: int | None = None) -> AsyncGenerator[Connection]:
    """Open a connection to 127.0.0.1; `receive_buffer` is the kernel's, in bytes."""
    raw = socket.socket()
    try:
        if receive_buffer is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", port))
        reader, writer = await asyncio.open_connection(
            sock=raw, limit=65536 if receive_buffer is None else receive_buffer
        )
    except BaseException:
        raw.close()
        raise
    try:
        yield Connection(reader, writer)
    finally:
        # A reset, so that hundreds of connections do not wait for each other's last words.
        writer.transport.abort()


async def ask(
    port: int,
    method: str,
    target: str,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> Answer:
    """Make one request on a connection of its own."""
    async with connect(port) as connection:
        return await connection.ask(method, target, headers, body)


@asynccontextmanager
async def events(
    port: int,
    target: str,
    headers: Mapping[str, str] | None = None,
    *,
    method: str = "GET",
    body: bytes | None = None,
    receive_buffer: int | None = None,
) -> AsyncGenerator[EventReader]:
    """Open a stream as an `EventSource` would; `headers` are added to its own."""
    async with connect(port, receive_buffer=receive_buffer) as connection:
        await connection.send(method, target, {**EVENT_STREAM, **(headers or {})}, body)
        yield EventReader(connection, await connection.head(method))
