"""The lane: appends answered below ASGI, by `penstock serve`.

Workload: many small appends, one a request, over connections that are kept. Under ASGI each costs
a task, a request cycle, an event, a scope and two `send` calls, more than the append itself. Here
a POST to a stream whose request is plain (HTTP/1.1, no query, no Origin, nothing else under way on
its connection) is read by the parser's callbacks and answered with one write. Measured at
saturation on memory://, on a quiet machine: 79 µs of CPU an append by ASGI (decision 0011).

What an append is and how it is answered is `append.py`'s, the same for both. Whatever is not plain
goes the ordinary way, and so does everything in an application of somebody else's, whose
middleware must see it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, Protocol

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from penstock.core.errors import PenstockError
from penstock.server.append import Append, refusal
from penstock.server.problem import internal, problem
from penstock.wire import http

if TYPE_CHECKING:
    from penstock.server.hub import Hub
    from penstock.server.stream import Stream

PREFIX: Final = b"/v1/stream/"
NOT_PLAIN: Final = frozenset({b"origin", b"expect", b"upgrade", b"transfer-encoding"})
"""Fields of requests that are left to ASGI. A body in chunks is: it has no length to be judged by
before it is read."""


class Request:
    """One append on its way: what its connection has read of it."""

    __slots__ = ("body", "given", "is_kept", "path")

    def __init__(self, path: bytes, given: dict[bytes, bytes], *, is_kept: bool) -> None:
        self.path = path
        self.given = given
        self.is_kept = is_kept  # whether the connection is, after the answer
        self.body: list[bytes] = []


class Deliverer(Protocol):
    """A connection that a response goes to."""

    def deliver(self, data: bytes, *, is_kept: bool) -> None:
        """Write a whole response, and close where the connection is not kept."""
        ...


class Lane:
    """Takes plain appends of one hub."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._max_digits = len(str(hub.settings.max_body_bytes)) - 1
        self._hosts = frozenset(host.encode() for host in hub.settings.allowed_hosts)
        self._outbox: list[tuple[Deliverer, bytes, bool]] = []

    def deliver_soon(self, to: Deliverer, data: bytes, *, is_kept: bool) -> None:
        """Have a response written at the end of this turn of the loop, with those of the other
        connections that were read in it: a client that is woken once for all of them instead of
        once for each costs a third less here (a wake-up is paid by who writes)."""
        if not self._outbox:
            asyncio.get_running_loop().call_soon(self._deliver)
        self._outbox.append((to, data, is_kept))

    def _deliver(self) -> None:
        outbox, self._outbox = self._outbox, []
        for to, data, is_kept in outbox:
            to.deliver(data, is_kept=is_kept)

    def take(self, url: bytes, headers: http.Headers, *, is_kept: bool) -> Request | None:
        """Take a POST, or leave it to ASGI."""
        if not url.startswith(PREFIX) or b"?" in url or b"#" in url:
            return None
        if url.startswith(b"__ds", len(PREFIX)):
            return None
        given = http.by_name(headers)
        if not NOT_PLAIN.isdisjoint(given):
            return None
        if not self._is_ours(given.get(b"host", b"")):
            return None
        if len(given.get(b"content-length", b"")) > self._max_digits:
            return None  # perhaps above the limit, which is said before the body is read
        return Request(url[len(PREFIX) :], given, is_kept=is_kept)

    def _is_ours(self, host: bytes) -> bool:
        # Exactly as configured, or with a port; anything else is judged the ordinary way.
        hosts = self._hosts
        return b"*" in hosts or host in hosts or host.rpartition(b":")[0] in hosts

    def receive(self, request: Request, part: bytes) -> None:
        """Take a part of a request's body, whose length is within the limit."""
        request.body.append(part)

    def answer_now(self, request: Request) -> tuple[int, http.Headers, bytes] | None:
        """Append and answer, where nothing has to be waited for; else None, and nothing is done."""
        hub = self._hub
        backend = hub.commits_now
        if backend is None:
            return None
        stream: Stream | None = None
        try:
            name = http.stream_name(request.path)
            stream = hub.stream_now(name)
            if stream is None or stream.may_be_over or stream.is_produced:
                return None
            append = Append.of(request.given)
            records = append.records(stream, self._body(request))
            appended = backend.append_now(
                name, records, end=append.end, stamp=append.stamp, seq=append.seq
            )
        except PenstockError as error:
            return refusal(error, stream)
        except Exception as error:  # noqa: BLE001 - a request's outermost edge, as in `answer`
            return problem(internal(error, (PREFIX + request.path).decode("latin-1")))
        return *append.answer(appended, is_new=bool(records)), b""

    async def answer(self, request: Request) -> tuple[int, http.Headers, bytes]:
        """Append and answer."""
        hub = self._hub
        stream: Stream | None = None
        try:
            name = http.stream_name(request.path)
            append = Append.of(request.given)
            stream = await hub.get(name)
            records = append.records(stream, self._body(request))
            appended = await hub.backend.append(
                stream.name, records, end=append.end, stamp=append.stamp, seq=append.seq
            )
            if append.end is not None:
                await stream.stop_producer()
        except PenstockError as error:
            return refusal(error, stream)
        except Exception as error:  # noqa: BLE001 - logged with its path, told without its insides
            return problem(internal(error, (PREFIX + request.path).decode("latin-1")))
        return *append.answer(appended, is_new=bool(records)), b""

    def _body(self, request: Request) -> bytes:
        body = request.body
        return body[0] if len(body) == 1 else b"".join(body)


def response(
    status: int,
    headers: http.Headers,
    body: bytes,
    default_headers: Iterable[tuple[bytes, bytes]],
    *,
    is_kept: bool,
) -> bytes:
    """A whole response as bytes (RFC 9112 4 to 6)."""
    parts = [STATUS_LINE[status]]
    for name, value in default_headers:
        parts += (name, b": ", value, b"\r\n")
    for name, value in headers:
        parts += (name, b": ", value, b"\r\n")
    parts.append(b"\r\n" if is_kept else b"connection: close\r\n\r\n")
    parts.append(body)
    return b"".join(parts)
