"""Ways to run an application inside the test's own process.

`call` makes one ASGI call without a server. `served` runs a real uvicorn on a free loopback port
in the test's event loop, so that a test sees both ends. `HeldTransport` is a transport whose peer
reads when the test says so; it stands for the event loop's, not for anything of ours. `HeldStore`
is the SQLite backend with gates before what it tells, and `Clock` a clock that is moved by hand.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import weakref
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from penstock.backends.interface import Appended, Joined, Listener, StreamConfig
from penstock.backends.sqlite import SqliteBackend
from penstock.core.errors import PenstockError
from penstock.core.limits import WRITE_HIGH_WATER_BYTES
from penstock.core.log import Head
from penstock.core.record import NewRecord, Record
from penstock.server.asgi import Message, Receive, Scope, Send
from penstock.server.fastpath import Protocol
from penstock.server.hub import Hub
from penstock.wire.sse import Decoder, Event

Pairs = Iterable[tuple[bytes, bytes]]
PATIENCE_S = 15.0


# --- one ASGI call ------------------------------------------------------------------------------


@dataclass(slots=True)
class Called:
    """What an application answered to one call."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    heads: int

    def header(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.headers if key == name), None)

    @property
    def code(self) -> str:
        """The code of a problem; fails when the answer is none."""
        assert self.header(b"content-type") == b"application/problem+json", self
        problem = json.loads(self.body)
        assert problem["status"] == self.status
        return str(problem["code"])


def scope_of(
    method: str,
    target: bytes,
    headers: Pairs = (),
    *,
    client: tuple[str, int] | None = ("127.0.0.1", 50_000),
) -> Scope:
    """An ASGI scope as uvicorn makes it, with a Host unless `headers` have one."""
    path, _, query = target.partition(b"?")
    pairs = list(headers)
    if not any(name == b"host" for name, _ in pairs):
        pairs.insert(0, (b"host", b"127.0.0.1:4437"))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "root_path": "",
        "path": _decoded(path),
        "raw_path": path,
        "query_string": query,
        "headers": pairs,
        "client": client,
        "server": ("127.0.0.1", 4437),
    }


async def call(
    app: Any,
    method: str,
    target: bytes | str,
    headers: Pairs = (),
    body: Iterable[bytes] | bytes = b"",
    *,
    client: tuple[str, int] | None = ("127.0.0.1", 50_000),
    stays: bool = False,
) -> Called:
    """Make one request and take its whole answer. After the body the client hangs up, unless it
    `stays` until the end of a response that ends by itself."""
    raw = target.encode() if isinstance(target, str) else target
    parts = [body] if isinstance(body, bytes) else list(body)
    sent: list[Message] = []

    async def receive() -> Message:
        if not parts:
            if stays:
                await asyncio.Event().wait()
            return {"type": "http.disconnect"}
        part = parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    async def send(message: Message) -> None:
        sent.append(message)

    async with asyncio.timeout(PATIENCE_S):
        await app(scope_of(method, raw, headers, client=client), receive, send)
    heads = [message for message in sent if message["type"] == "http.response.start"]
    body_sent = b"".join(m.get("body", b"") for m in sent if m["type"] == "http.response.body")
    return Called(heads[0]["status"], heads[0]["headers"], body_sent, len(heads))


def _decoded(path: bytes) -> str:
    from urllib.parse import unquote

    return unquote(path.decode("latin-1"))


# --- a real server in this event loop -----------------------------------------------------------


class Watched(Protocol):
    """The protocol under test, which remembers (weakly) every instance made of it."""

    made: list[weakref.ref[Protocol]]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.made.append(weakref.ref(self))


class QuietServer(uvicorn.Server):
    """uvicorn's server without its signal handlers, which belong to the test run."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


@dataclass(slots=True)
class Served:
    """A server that listens on `port` of 127.0.0.1."""

    port: int
    server: QuietServer
    made: list[weakref.ref[Protocol]] = field(default_factory=list)

    @property
    def connections(self) -> set[Any]:
        """uvicorn's own book of connections."""
        return self.server.server_state.connections


@asynccontextmanager
async def served(
    app: Any,
    *,
    http: Any = Protocol,
    bounds: dict[str, Any] | None = None,
    **config: Any,
) -> AsyncGenerator[Served]:
    """Serve an application. `http` is the protocol class or its name for uvicorn; `bounds` are
    attributes of the class (`header_bytes`, `header_s`)."""
    made: list[weakref.ref[Protocol]] = []
    if isinstance(http, type) and issubclass(http, Protocol):
        http = type("ServedProtocol", (Watched,), {"made": made, **(bounds or {})})
    config = {"lifespan": "off", "log_config": None, "access_log": False, "ws": "none"} | config
    server = QuietServer(uvicorn.Config(app, http=http, timeout_graceful_shutdown=1, **config))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            await until(lambda: server.started)
            yield Served(listener.getsockname()[1], server, made)
        finally:
            server.should_exit = True
            await task


async def until(claim: Callable[[], object], within_s: float = PATIENCE_S) -> None:
    """Turn the loop until a claim holds; fails when it does not within the time."""
    loop = asyncio.get_running_loop()
    give_up = loop.time() + within_s
    while not claim():
        assert loop.time() < give_up, f"this did not become true within {within_s} s"
        await asyncio.sleep(0.002)


async def turns(count: int = 5) -> None:
    """Let the loop turn a few times: what was scheduled has then run."""
    for _ in range(count):
        await asyncio.sleep(0)


# --- a transport whose peer reads when told to --------------------------------------------------


class HeldTransport(asyncio.Transport):
    """Takes writes as the event loop's transport does, and gives them to a peer bit by bit."""

    def __init__(self, high: int = WRITE_HIGH_WATER_BYTES) -> None:
        super().__init__()
        self.high, self.low = high, high // 4
        self.buffer = bytearray()
        self.taken = bytearray()
        self.writes: list[int] = []
        self.aborted = 0
        self._paused = False
        self._closing = False
        self._lost = False
        self._protocol: asyncio.Protocol | None = None

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol = protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._lost:
            return
        assert not self._closing, "a write after close"
        self.writes.append(len(data))
        self.buffer += data
        if not self._paused and len(self.buffer) > self.high:
            self._paused = True
            assert self._protocol is not None
            self._protocol.pause_writing()

    def take(self, size: int | None = None) -> None:
        """Have the peer read, at most so many bytes."""
        count = len(self.buffer) if size is None else min(size, len(self.buffer))
        self.taken += self.buffer[:count]
        del self.buffer[:count]
        if self._paused and len(self.buffer) <= self.low and self._protocol is not None:
            self._paused = False
            self._protocol.resume_writing()
        if self._closing and not self.buffer:
            self._lose()

    def get_write_buffer_size(self) -> int:
        return len(self.buffer)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True
        if not self.buffer:
            self._lose()

    def abort(self) -> None:
        self.aborted += 1
        self._closing = True
        self.buffer.clear()
        self._lose()

    def hang_up(self) -> None:
        """Have the peer go."""
        self.abort()
        self.aborted -= 1

    def _lose(self) -> None:
        if not self._lost:
            self._lost = True
            asyncio.get_running_loop().call_soon(self._tell_lost)

    def _tell_lost(self) -> None:
        assert self._protocol is not None
        self._protocol.connection_lost(None)
        self._protocol = None

    @property
    def body(self) -> bytes:
        """What the peer has read, out of its chunks; a chunk that is not whole is left out."""
        data, parts, start = bytes(self.taken), list[bytes](), 0
        while (end := data.find(b"\r\n", start)) >= 0:
            stop = end + 2 + int(data[start:end], 16)
            if len(data) < stop + 2:
                break
            assert data[stop : stop + 2] == b"\r\n"
            parts.append(data[end + 2 : stop])
            start = stop + 2
        return b"".join(parts)

    @property
    def events(self) -> list[Event]:
        """The events in what the peer has read."""
        decoder = Decoder()
        decoder.receive_data(self.body)
        return decoder.events()


# --- time and a store, both held ----------------------------------------------------------------


class Clock:
    """Seconds, moved by hand: since 1970, or steady ones."""

    def __init__(self, now: float = 2_000_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Gate:
    """Where what was done waits to be told while it is shut; `waiting` says how many do."""

    def __init__(self) -> None:
        self._opened = asyncio.Event()
        self._opened.set()
        self._held: list[Callable[[], None]] = []
        self.waiting = 0

    def shut(self) -> None:
        self._opened.clear()

    def open(self) -> None:
        self._opened.set()
        held, self._held = self._held, []
        for tell in held:
            tell()

    async def pass_through(self) -> None:
        self.waiting += 1
        try:
            await self._opened.wait()
        finally:
            self.waiting -= 1

    def hold(self, tell: Callable[[], None]) -> None:
        """Call something now, or when it is opened."""
        if self._opened.is_set():
            tell()
        else:
            self._held.append(tell)


class _Heard:
    """Passes on to a listener what it is told through a gate."""

    def __init__(self, listener: Listener, gate: Gate) -> None:
        self._listener, self._gate = listener, gate

    def committed(self, records: Sequence[Record], head: Head) -> None:
        self._gate.hold(lambda: self._listener.committed(records, head))

    def trimmed(self, head: Head) -> None:
        self._gate.hold(lambda: self._listener.trimmed(head))

    def ended(self, head: Head) -> None:
        self._gate.hold(lambda: self._listener.ended(head))

    def deleted(self) -> None:
        self._gate.hold(self._listener.deleted)

    def restarted(self, head: Head) -> None:
        self._gate.hold(lambda: self._listener.restarted(head))


class HeldStore(SqliteBackend):
    """The SQLite backend. An append that is committed, a read that is done, and what listeners
    hear, are told of when their gate is open. What is appended while there is a `failure` fails."""

    def __init__(self, path: str, **options: Any) -> None:
        super().__init__(path, **options)
        self.appends, self.reads, self.heads, self.news = Gate(), Gate(), Gate(), Gate()
        self.read_from: list[tuple[str, int]] = []
        self.failure: PenstockError | None = None

    async def append(self, name: str, batch: Sequence[NewRecord], **options: Any) -> Appended:
        failure, appended = self.failure, None
        if failure is None:
            appended = await super().append(name, batch, **options)
        await self.appends.pass_through()
        if appended is None:
            assert failure is not None
            raise failure
        return appended

    async def read(
        self, name: str, after: int, max_records: int, max_bytes: int
    ) -> Sequence[Record]:
        self.read_from.append((name, after))
        records = await super().read(name, after, max_records, max_bytes)
        await self.reads.pass_through()
        return records

    async def read_joined(
        self, name: str, after: int, upto: int, max_records: int, max_bytes: int, separator: bytes
    ) -> Joined:
        self.read_from.append((name, after))
        joined = await super().read_joined(name, after, upto, max_records, max_bytes, separator)
        await self.reads.pass_through()
        return joined

    async def head(self, name: str) -> tuple[Head, StreamConfig]:
        found = await super().head(name)
        await self.heads.pass_through()
        return found

    def watch(self, name: str, after: int, listener: Listener) -> Any:
        return super().watch(name, after, _Heard(listener, self.news))

    @property
    def listeners(self) -> int:
        """How many are registered."""
        return sum(map(len, self._watched.values()))


# --- small applications -------------------------------------------------------------------------


def wrap_send(app: Any, change: Callable[[Message, Send], Any]) -> Any:
    """Pure ASGI middleware: `change` is awaited with each message and the server's `send`."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        async def changed(message: Message) -> None:
            await change(message, send)

        await app(scope, receive, changed)

    return wrapped


@asynccontextmanager
async def serving(hub: Hub, **options: Any) -> AsyncGenerator[Served]:
    """Run a hub and serve its addresses at `/v1`, as `penstock serve` does."""
    from penstock.server.app import ServerApp

    async with hub, served(ServerApp(hub), **options) as server:
        yield server
