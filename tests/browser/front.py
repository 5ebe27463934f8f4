"""What stands between the browser and the server: one blank page, and a relay that cuts.

Every other request goes on to the server byte for byte, on a connection of its own, and is written
down: what the browser asked, what it was answered, and when the connection went. So a test sees
what an `EventSource` does, and cuts it off anywhere, in the middle of an event too.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

PAGE = b"<!doctype html><title>blank</title><link rel=icon href=data:,>"
RETRY = re.compile(rb"^retry: (\d+)$", re.MULTILINE)


@dataclass(slots=True, kw_only=True)
class Visit:
    """One request that was relayed."""

    target: str
    last_event_id: str | None
    began_s: float
    answer: bytearray = field(default_factory=bytearray)
    ended_s: float | None = None

    @property
    def status(self) -> int:
        return int(self.answer.split(b" ", 2)[1])

    @property
    def retry_ms(self) -> int:
        """The reconnection time that this answer set."""
        return int(RETRY.findall(self.answer)[-1])


class Front:
    """The relay. `budget(visit)` says how many bytes of an answer pass before it is cut, if any.

    A cut answer is reset or closed in turn: both happen to connections.
    """

    def __init__(self, server_port: int) -> None:
        self.server_port = server_port
        self.port = 0
        self.visits: list[Visit] = []
        self.budget: Callable[[Visit], int | None] = lambda _: None
        self.is_shut = False
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def shut(self) -> None:
        """Cut every connection, and let nobody through until `is_shut` is false again."""
        self.is_shut = True
        for writer in self._open:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                head = await reader.readuntil(b"\r\n\r\n")
                target = head.split(b" ", 2)[1].decode()
                if target == "/":
                    length = b"Content-Length: %d\r\n" % len(PAGE)
                    kind = b"Content-Type: text/html\r\nConnection: close\r\n\r\n"
                    writer.write(b"HTTP/1.1 200 OK\r\n" + length + kind + PAGE)
                    await writer.drain()
                elif not self.is_shut:
                    await self._relay(target, head, writer)
        finally:
            self._open.discard(writer)
            writer.close()

    async def _relay(self, target: str, head: bytes, writer: asyncio.StreamWriter) -> None:
        seen = re.search(rb"^last-event-id: *([^\r]*)", head, re.MULTILINE | re.IGNORECASE)
        last_event_id = seen[1].decode() if seen else None
        visit = Visit(target=target, last_event_id=last_event_id, began_s=time.monotonic())
        self.visits.append(visit)
        budget = self.budget(visit)
        reader, onward = await asyncio.open_connection("127.0.0.1", self.server_port)
        try:
            onward.write(re.sub(rb"(?i)connection: keep-alive", b"Connection: close", head))
            while data := await reader.read(65536):
                is_spent = budget is not None and len(visit.answer) + len(data) >= budget
                passing = data[: budget - len(visit.answer)] if is_spent and budget else data
                visit.answer += passing
                writer.write(passing)
                await writer.drain()
                if is_spent:
                    if len(self.visits) % 2:
                        writer.transport.abort()
                    return
        finally:
            visit.ended_s = time.monotonic()
            onward.transport.abort()


@asynccontextmanager
async def front(server_port: int) -> AsyncGenerator[Front]:
    """Run a front before the server on this port."""
    relay = Front(server_port)
    listening = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
    relay.port = listening.sockets[0].getsockname()[1]
    async with listening:
        yield relay
        relay.shut()
