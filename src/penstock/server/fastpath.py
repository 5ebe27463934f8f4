"""The fast path: a uvicorn protocol that hands a streaming response's transport to the hub.

`Protocol` is uvicorn's own httptools protocol, with bounds on the request head (httptools has
none) and one offer in `scope["extensions"]`: once the response's head is on the wire, `take_over`
gives the transport to a `Writer`, a slotted object that is all that is left of the connection.
The parser, the request cycle and the scope are let go, and uvicorn's connection set and keep-alive
timer are left clean. Measured on 10,000 idle connections: 1.6 KiB of process memory each, against
10 with the request kept open; per delivered event a third of what `await send` costs.

It leans on private attributes of uvicorn 0.54 (`cycle`, `parser`, `connections`, `flow`,
`pipeline`): the range is pinned, and a test compares each with the release installed. When a
condition of `take_over` does not hold, the portable path serves, with the same bytes.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Sized
from typing import Any, Final, cast
from urllib.parse import unquote_to_bytes

import msgspec
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

from penstock.core import limits
from penstock.core.errors import HeadersTooLarge, HeadersTooSlow, PenstockError
from penstock.core.subscription import Subscription
from penstock.server.asgi import Message, Send
from penstock.server.lane import PREFIX, Lane, Request, response
from penstock.server.reader import Reader
from penstock.server.stream import Stream
from penstock.server.view import View
from penstock.wire import http

EXTENSION: Final = "penstock.transport"
PERHAPS_OWN: Final = (PREFIX + b"_", PREFIX + b"%")
"""How an address begins that may be one of the server's own streams."""
SLICES_A_TURN: Final = 4
"""Writes one reader may make before the loop turns: a megabyte, about a millisecond."""


class Writer(Reader, asyncio.Protocol):
    """A reader with a transport of its own."""

    __slots__ = ("_reason", "transport", "write")

    transport_name = "fast"

    def __init__(
        self,
        stream: Stream,
        view: View,
        subscription: Subscription,
        transport: asyncio.Transport,
        *,
        opened_at: float,
        is_visible: bool = False,
        ends_at: float | None = None,
    ) -> None:
        Reader.__init__(
            self,
            stream,
            view,
            subscription,
            opened_at=opened_at,
            is_visible=is_visible,
            ends_at=ends_at,
        )
        self.transport = transport
        self.write = transport.write
        self._reason = "gone"

    def begin(self, preamble: bytes, *, was_paused: bool = False) -> None:
        """Take the transport and start. Call only with a transport that `take_over` gave.

        `was_paused`: a pause of before the take-over was told to the old protocol, and will not be
        told again; the resume comes to us. The buffer's size cannot replace it: a transport that
        paused stays so until it is below its low-water mark.
        """
        self.is_paused = was_paused
        self.transport.set_protocol(self)
        self.stream.hub.reader_opened(self)
        self.stream.hub.fast_path_active = True
        if preamble:
            self.write(http.chunk(preamble))
        if self.stream.hub.is_draining:
            # Admitted just before the drain began, and not among those it told.
            self.drain(self.stream.hub.draw_retry_ms())
        elif self.is_paused:
            self.stream.hub.reader_paused(self)
        else:
            self._pump()

    # asyncio calls these

    def pause_writing(self) -> None:
        self.is_paused = True
        self.stream.hub.reader_paused(self)

    def resume_writing(self) -> None:
        self.is_paused = False
        self.stream.hub.reader_resumed(self)
        if self.transport.is_closing():
            # Its last bytes are on their way, and may still stall: that clock begins anew.
            self.stream.hub.reader_closing(self)
            return
        # While level it stays in the loop of the view, which has not noticed the pause yet.
        self._pump()

    def data_received(self, data: bytes) -> None:
        """Bytes after the request are read, so that a hang-up is noticed, and dropped: the head
        said `Connection: close`."""

    def connection_lost(self, exc: Exception | None) -> None:
        self.view.live.pop(self, None)
        self.view.fresh.discard(self)
        self.stream.hub.reader_closed(self, self._reason)

    # the view and the hub call these

    def wake(self) -> None:
        # Its place was that of all level readers; it takes it along.
        if self in self.view.live:
            del self.view.live[self]
            self.fall_behind(self.view.flushed)
        if not self.is_paused and not self.is_loading:
            self._pump()

    def heartbeat(self) -> None:
        self.write(http.chunk(self.heartbeat_bytes()))

    def drain(self, retry_ms: int, reason: str = "drained") -> None:
        self.view.live.pop(self, None)
        self._finish(reason, self.view.form.drain(retry_ms, self.place))

    def abort(self) -> None:
        if self._reason == "gone":
            self._reason = "stalled"
        self.transport.abort()

    def _pump(self) -> None:
        """Write what the reader lacks until its transport pauses, or it is level, or it is done."""
        if self in self.view.live:
            return  # a resume was faster than the turn this call waited for
        for _ in range(SLICES_A_TURN):
            if self.is_paused or self.is_loading or self.transport.is_closing():
                return
            body = self.step()
            if body is None:
                self.view.live[self] = None
                if not self._had_record:
                    self.view.fresh.add(self)
                    self._had_record = True
                return
            if self.is_done:
                self._finish("ended", body)
                return
            if body:
                self.write(http.chunk(body))
        asyncio.get_running_loop().call_soon(self._pump)

    def _finish(self, reason: str, body: bytes) -> None:
        self._reason = reason
        if not self.transport.is_closing():
            self.write(http.chunk(body) + http.LAST_CHUNK if body else http.LAST_CHUNK)
            self.transport.close()
            self.stream.hub.reader_closing(self)


class Flow(FlowControl):
    """Reads nothing while requests wait behind the one that is being answered.

    uvicorn reads on after each answer, and whenever an application waits for its body: a client
    that sends without reading makes it keep requests without bound. The request that is answered
    is whole when others wait behind it, so nothing is missed here.
    """

    def __init__(self, transport: asyncio.Transport, pipeline: Sized) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        if not self._pipeline:
            super().resume_reading()


class Protocol(HttpToolsProtocol):
    """Use it as `uvicorn --http penstock.server.fastpath:Protocol`, or by `penstock serve`."""

    header_bytes = limits.HEADER_BYTES
    header_s = limits.HEADER_S
    lane: Lane | None = None  # takes plain appends; only in a server that is all ours

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._head_size = 0
        self._read_size = 0
        self._bare_size = 0  # bytes behind a head since the last of its body
        self._head_timer: asyncio.TimerHandle | None = None
        self.is_in_head = True
        self._is_idle = True  # nothing of a request was read since the last was whole
        self._begun_at = 0
        self._refusal: PenstockError | None = None
        self._append: Request | None = None
        self._is_leaving = False  # the last answer of the connection is given

    # bounds on the request head

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = Flow(transport, self.pipeline)
        self._head_timer = self.loop.call_later(self.header_s, self._head_too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._cancel_head_timer()

    def data_received(self, data: bytes) -> None:
        if self._refusal is not None:
            return
        self._read_size = len(data)
        self._begun_at = 0 if self._is_idle else -1
        if self.is_in_head:
            self._head_size += len(data)
        super().data_received(data)
        # A head that is still open counts all bytes, and has a time; one that came whole in this
        # read was looked at when it was complete, and needs no timer.
        if not self.is_in_head:
            if self._head_timer is not None:
                self._cancel_head_timer()
            self._bare_size += len(data)
            if self._bare_size > self.header_bytes and self._refusal is None:
                # Fields behind a body in chunks, or a chunk's extensions: the parser keeps them.
                self._refuse(HeadersTooLarge(self.header_bytes))
        elif self._refusal is None:
            if self._head_size > self.header_bytes:
                self._refuse(HeadersTooLarge(self.header_bytes))
            elif self._head_timer is None:
                self._head_timer = self.loop.call_later(self.header_s, self._head_too_slow)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if not self.is_in_head:
            # All of this read is the head's where it is the first thing in it; behind something
            # else it may be a body's, and the fields tell.
            self._head_size = self._read_size if self._begun_at == 0 else 0
            self.is_in_head = True
        self._is_idle, self._begun_at = False, -1

    def on_headers_complete(self) -> None:
        if self._head_size > self.header_bytes or self._read_size > self.header_bytes:
            self._count_fields()
        self.is_in_head, self._head_size, self._bare_size = False, 0, -self._read_size
        if self._is_leaving or self._takes_append():
            return
        super().on_headers_complete()
        # The type of a scope has no extensions that are not ASGI's own.
        scope = cast("dict[str, Any] | None", self.scope)
        if scope is not None:
            scope.setdefault("extensions", {})[EXTENSION] = Offer(self, self.cycle)
        if not cast("Any", self.parser).should_upgrade():
            # Fields behind a body are none of its header's (RFC 9110 6.5.1): not the scope's list.
            self.headers = []

    def _count_fields(self) -> None:
        """Refuse a head above the bound; what was read with it may have been a body's."""
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self.header_bytes:
            self._refusal = HeadersTooLarge(self.header_bytes)
            # Raising is how a callback stops httptools; `send_400_response` then says why.
            raise self._refusal

    # appends that go below ASGI

    def _takes_append(self) -> bool:
        lane, parser = self.lane, cast("Any", self.parser)
        if lane is None or parser.get_method() != b"POST":
            return False
        if self.url.startswith(PERHAPS_OWN) and _is_own(self.url):
            return False
        cycle = cast("RequestResponseCycle | None", self.cycle)
        is_free = cycle is None or cycle.response_complete
        # A client that reads no answers is served where a task can wait for it.
        if not is_free or self.flow.write_paused or parser.get_http_version() != "1.1":
            return False
        self._append = lane.take(self.url, self.headers, is_kept=parser.should_keep_alive())
        return self._append is not None

    def on_body(self, body: bytes) -> None:
        self._bare_size = -self._read_size
        if self._append is not None and self.lane is not None:
            self.lane.receive(self._append, body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._is_idle = True
        self._bare_size = -self._read_size
        request, lane = self._append, self.lane
        if request is None or lane is None:
            super().on_message_complete()
            return
        self._append = None
        answer = lane.answer_now(request)
        if answer is not None:
            self._respond(request, *answer)
            return
        # What comes on this connection meanwhile waits, as behind any other request.
        pending = self.cycle = cast("RequestResponseCycle", Pending())
        task = self.loop.create_task(self._answer_later(lane, request, pending))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    async def _answer_later(
        self, lane: Lane, request: Request, pending: RequestResponseCycle
    ) -> None:
        answer = await lane.answer(request)
        pending.response_complete = True
        request.is_kept = request.is_kept and pending.keep_alive
        if not pending.disconnected:
            self._respond(request, *answer)

    def _respond(self, request: Request, status: int, headers: http.Headers, body: bytes) -> None:
        assert self.lane is not None
        defaults = self.server_state.default_headers
        data = response(status, headers, body, defaults, is_kept=request.is_kept)
        self.lane.deliver_soon(self, data, is_kept=request.is_kept)
        if request.is_kept:
            # What waits behind it may begin: it is answered in a later turn of the loop.
            self.on_response_complete()
        else:
            # It said that it is the last: what follows it is none.
            self._is_leaving = True
            self.cycle = cast("RequestResponseCycle", Pending(is_over=True))

    def deliver(self, data: bytes, *, is_kept: bool) -> None:
        """Write a whole response of the lane."""
        if self.transport.is_closing():
            return
        self.transport.write(data)
        if not is_kept:
            self.server_state.total_requests += 1
            self.transport.close()

    def _head_too_slow(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self._refuse(HeadersTooSlow(self.header_s))

    def _refuse(self, error: PenstockError) -> None:
        self._refusal = error
        self.send_400_response(error.sentence)

    def send_400_response(self, msg: str) -> None:
        error = self._refusal
        if self._is_answering():
            # What is wrong came after a request that is still being answered: anything written
            # here would be taken for that answer, or for a part of it.
            self.transport.close()
            return
        if error is None:
            super().send_400_response(msg)
            return
        body = msgspec.json.encode(
            {"type": "about:blank", "code": error.code, "status": error.status, "detail": msg}
        )
        head = STATUS_LINE[error.status] + (
            b"content-type: application/problem+json\r\ncontent-length: %d\r\n"
            b"connection: close\r\n\r\n" % len(body)
        )
        self.transport.write(head + body)
        self.transport.close()

    def _is_answering(self) -> bool:
        # None before the first request; uvicorn's types do not say.
        cycle = cast("RequestResponseCycle | None", self.cycle)
        if self._append is not None or cycle is None or cycle.response_complete:
            return False
        return cycle.response_started or not cycle.more_body

    def leave(self) -> None:
        """Leave uvicorn's books, and let go of what would keep a request's memory or could still
        touch the transport."""
        self.flow.resume_reading()
        self.connections.discard(self)
        self._unset_keepalive_if_required()
        self._cancel_head_timer()
        # uvicorn itself sets its parser to None when a connection is lost; its types do not say.
        for name in ("parser", "cycle", "scope", "headers"):
            setattr(self, name, None)

    def _cancel_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class Pending:
    """Stands for an append that waits for its commit, where uvicorn looks for a request's cycle."""

    __slots__ = (
        "body",
        "disconnected",
        "keep_alive",
        "message_event",
        "more_body",
        "response_complete",
        "response_started",
    )

    def __init__(self, *, is_over: bool = False) -> None:
        self.body = b""
        self.disconnected = self.response_started = False
        self.response_complete = is_over
        self.more_body = False
        self.keep_alive = True
        self.message_event = asyncio.Event()


class Offer:
    """One request's offer of its transport. Refuses whenever a condition does not hold.

    `was_paused` says, after `take_over`, whether the transport is paused already.
    """

    __slots__ = ("_cycle", "_protocol", "was_paused")

    def __init__(self, protocol: Protocol, cycle: RequestResponseCycle) -> None:
        self._protocol: Protocol | None = protocol
        self._cycle: RequestResponseCycle | None = cycle
        self.was_paused = False

    def identity(self, send: Send) -> Send:
        """Have an HTTP/1.0 response framed by its close; give the `send` to use for it.

        uvicorn would use chunks, which HTTP/1.0 has not, and it has no way to say otherwise: it
        takes whatever is not chunked for a body of known length, so it is given one without end.
        """
        cycle = self._cycle
        if cycle is None or cycle.scope["http_version"] != "1.0":
            return send
        cycle.chunked_encoding = False
        cycle.expected_content_length = sys.maxsize

        async def send_identity(message: Message) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        return send_identity

    def take_over(self) -> asyncio.Transport | None:
        """Give the transport away, after the response's head; None when that is not safe.

        The conditions are those of docs/decisions/0004: GET or POST, HTTP/1.1, request read,
        nothing pipelined, head written by uvicorn itself and said `Connection: close`, body in
        chunks, nobody gone.
        """
        protocol, cycle = self._protocol, self._cycle
        self._protocol = self._cycle = None  # an offer is good once; also breaks the circle
        if protocol is None or cycle is None or not _may_take(protocol, cycle):
            return None
        transport = protocol.transport
        protocol.leave()
        # Both: complete, so that the server does not complain; disconnected, so that middleware
        # that still sends an empty last body is not told it broke the rules.
        cycle.response_complete = cycle.disconnected = True
        cycle.message_event.set()
        _prepare_socket(transport)
        transport.set_write_buffer_limits(high=limits.WRITE_HIGH_WATER_BYTES)
        self.was_paused = protocol.flow.write_paused
        return transport


LEANED_ON: Final[dict[type, tuple[str, ...]]] = {
    HttpToolsProtocol: (
        "connections",
        "cycle",
        "flow",
        "headers",
        "loop",
        "on_body",
        "on_headers_complete",
        "on_message_begin",
        "on_message_complete",
        "on_response_complete",
        "parser",
        "pipeline",
        "scope",
        "send_400_response",
        "server_state",
        "tasks",
        "transport",
        "url",
        "_unset_keepalive_if_required",
    ),
    RequestResponseCycle: (
        "chunked_encoding",
        "disconnected",
        "expected_content_length",
        "keep_alive",
        "message_event",
        "more_body",
        "response_complete",
        "response_started",
        "scope",
    ),
}
"""What is used of uvicorn beyond what it documents, by class."""


def missing_attributes() -> list[str]:
    """Name what the fast path leans on and this uvicorn has not; empty where all is well."""
    missing: list[str] = []
    for owner, names in LEANED_ON.items():
        known = {*dir(owner), *owner.__init__.__code__.co_names}
        if owner is HttpToolsProtocol:  # made anew for each request
            known |= {*owner.on_message_begin.__code__.co_names}
        missing += [f"{owner.__name__}.{name}" for name in names if name not in known]
    return missing


def _is_own(url: bytes) -> bool:
    """Whether an address is that of one of the server's own streams: under ASGI it is refused."""
    name = unquote_to_bytes(url[len(PREFIX) :])
    return name.startswith(b"__") and name.partition(b"/")[0] != b"__ds"


def _may_take(protocol: Protocol, cycle: RequestResponseCycle) -> bool:
    scope = cycle.scope
    return (
        protocol.cycle is cycle
        and scope["method"] in ("GET", "POST")
        and scope["http_version"] == "1.1"
        and cycle.response_started
        and not cycle.response_complete
        and not cycle.disconnected
        and not cycle.more_body
        and not cycle.keep_alive
        and cycle.chunked_encoding is True
        and not protocol.pipeline
        and not protocol.is_in_head  # the next request has begun
        and not protocol.transport.is_closing()
    )


def _prepare_socket(transport: asyncio.Transport) -> None:
    raw = cast("socket.socket | None", transport.get_extra_info("socket"))
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if raw is None or option is None or raw.family == getattr(socket, "AF_UNIX", None):
        return
    raw.setsockopt(socket.IPPROTO_TCP, option, limits.NOTSENT_LOWAT_BYTES)
