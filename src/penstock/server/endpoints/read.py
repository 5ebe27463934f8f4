"""Reading a stream: as native events, as Durable Streams' SSE, or its bytes (`catch_up.py`); in a
client's dialect it is read by `dialect.py`.

Where a reader begins (`reading.py`): the header `Last-Event-ID` beats the query's `last_event_id`
beats `offset`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from penstock.core.cursor import BEGINNING, END_MARK, NOW, parse_event_id
from penstock.core.errors import (
    Draining,
    OffsetMalformed,
    Overloaded,
    QueryMalformed,
    StreamNotFound,
)
from penstock.core.subscription import State, Subscription
from penstock.server.asgi import Receive, Scope, Send
from penstock.server.endpoints.catch_up import (
    end_headers,
    place_of,
    serve_catch_up,
    serve_long_poll,
)
from penstock.server.endpoints.dialect import read_dialect
from penstock.server.endpoints.reading import find_place, hand_over, send_empty, stream_headers
from penstock.server.form import DurableForm
from penstock.server.hub import Hub
from penstock.server.stream import Stream
from penstock.wire import durable, http, native

LIVE: Final = ("events", "long-poll", "sse")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadRequest:
    """What a reader asks for. `place` is what it brought, "" for none; `live` is how the protocol
    is asked to go on, None for not at all."""

    place: str = ""
    live: str | None = None
    cursor: int | None = None
    is_compact: bool = False
    is_header: bool = False
    is_resume: bool = False
    refuses_gap: bool = False
    sees_heartbeat: bool = False
    wants_events: bool = True
    is_event_source: bool = True
    is_head: bool = False

    @classmethod
    def of(cls, scope: Scope) -> ReadRequest:
        """Read a request for a stream. Raises QueryMalformed."""
        query = http.query_parameters(scope["query_string"])
        headers: http.Headers = scope["headers"]
        place, is_header = http.last_event_id(headers, query)
        live = query.get("live")
        if live is not None and live not in LIVE:
            raise QueryMalformed("live", live, "'events', 'long-poll' or 'sse', or none")
        is_protocol = live in ("long-poll", "sse")
        if is_protocol and not place:
            raise QueryMalformed("offset", "", f"an offset, which live={live} needs")
        accepts = http.accepts_events(http.header(headers, b"accept")) and not is_protocol
        if not accepts and live != "events":
            http.refuse_many_offsets(scope["query_string"])
        return cls(
            place=place or "",
            live=live if is_protocol else None,
            cursor=durable.parse_cursor(query.get("cursor")),
            is_compact=_choice(query, "compact", "0", "1"),
            is_header=is_header,
            is_resume=is_header or query.get("last_event_id", "") not in ("", BEGINNING, NOW),
            refuses_gap=_choice(query, "gap", "event", "410"),
            sees_heartbeat=_choice(query, "heartbeat", "comment", "event"),
            wants_events=accepts or live == "events",
            is_event_source=accepts,
            is_head=scope["method"] == "HEAD",
        )

    @classmethod
    def of_response(cls, scope: Scope, last_event_id: str | None) -> ReadRequest:
        """Read the request that a stream is the response to: only its header counts."""
        place, _ = http.last_event_id(scope["headers"], {})
        chosen = last_event_id if last_event_id is not None else place
        return cls(place=chosen or "", is_header=True)


def _choice(query: dict[str, str], name: str, off: str, on: str) -> bool:
    value = query.get(name, off)
    if value not in (off, on):
        raise QueryMalformed(name, value, f"{off!r} or {on!r}")
    return value == on


async def read(hub: Hub, name: str, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer GET and HEAD of a stream's address."""
    if b"dialect" in scope["query_string"] and await read_dialect(hub, name, scope, receive, send):
        return
    request = ReadRequest.of(scope)
    try:
        stream = await hub.get(name)
    except StreamNotFound:
        if request.wants_events and request.is_resume:
            if not request.is_header:
                parse_event_id(request.place)  # in the query it is the caller's mistake
            await _serve_lost(hub, request, scope, send)
            return
        raise
    if not request.is_head:
        stream.touch()
    if request.wants_events:
        await serve_events(stream, request, scope, receive, send)
    elif request.is_head:
        await send_empty(send, 200, _metadata(stream))
    elif request.live == "sse":
        await _serve_sse(stream, request, scope, receive, send)
    elif request.live == "long-poll":
        await serve_long_poll(stream, request.place, request.cursor, scope, receive, send)
    else:
        await serve_catch_up(stream, request.place, scope, send)


def _metadata(stream: Stream) -> http.Headers:
    """What HEAD says of a stream."""
    config, head = stream.config, stream.head
    headers: http.Headers = [
        (b"content-type", config.content_type.encode()),
        *stream_headers(stream),
        *end_headers(stream),
        (b"cache-control", b"no-store"),
    ]
    is_closed = stream.end is not None
    tag = durable.etag(head.earliest_offset, head.tail_offset, is_closed=is_closed)
    headers.append((b"etag", tag))
    if config.ttl_s is not None:
        headers.append((b"stream-ttl", b"%d" % config.ttl_s))
    if config.expires_at is not None:
        headers.append((b"stream-expires-at", durable.time_text(config.expires_at).encode()))
    return headers


async def _serve_sse(
    stream: Stream, request: ReadRequest, scope: Scope, receive: Receive, send: Send
) -> None:
    """Stream the protocol's SSE from where the request says. An `EventSource` that comes back
    with the end's id is stopped."""
    hub = stream.hub
    opened_at = hub.clock()
    if stream.end is not None and request.place == stream.offset.end_id:
        await send_empty(send, 204, stream_headers(stream))
        return
    subscription = Subscription(place_of(request.place, stream.head).position)
    hub.admit()
    view = stream.view("durable")
    if isinstance(view.form, DurableForm):
        view.form.has_seen(request.cursor)
    await hand_over(
        stream,
        subscription,
        scope,
        receive,
        send,
        opened_at=opened_at,
        preamble=b"",
        kind="durable",
        ends_at=opened_at + hub.settings.sse_lifetime_s,
    )


async def serve_events(
    stream: Stream, request: ReadRequest, scope: Scope, receive: Receive, send: Send
) -> None:
    """Stream native events from where the request says. Raises before the head is sent:
    OffsetMalformed, OffsetGone, and Overloaded or Draining for who is not an `EventSource`."""
    hub = stream.hub
    opened_at = hub.clock()
    subscription, has_seen_end = find_place(
        stream, request.place, is_header=request.is_header, refuses_gap=request.refuses_gap
    )
    if has_seen_end:
        hub.hooks.resumed("ended")
        await send_empty(send, 204, stream_headers(stream))
        return
    if request.is_head:
        await send_empty(send, 200, [*http.STREAM_HEADERS, *stream_headers(stream)])
        return
    try:
        hub.admit()
    except (Overloaded, Draining):
        if not request.is_event_source:
            raise
        await _send_away(hub, send)
        return
    if request.place not in ("", BEGINNING, NOW):
        hub.hooks.resumed("gap" if subscription.state is State.GAP else "exact")
    await hand_over(
        stream,
        subscription,
        scope,
        receive,
        send,
        opened_at=opened_at,
        preamble=native.preamble(hub.draw_retry_ms()),
        is_visible=request.sees_heartbeat,
        kind="compact" if request.is_compact else "native",
    )


async def _serve_lost(hub: Hub, request: ReadRequest, scope: Scope, send: Send) -> None:
    """Tell a reader of a stream nobody knows that it is lost: an `EventSource` must not die of a
    404 after a restart. One that was told already gets 204, which stops it."""
    if request.place.endswith(END_MARK):
        hub.hooks.resumed("ended")
        await send_empty(send, 204, [])
        return
    hub.hooks.resumed("lost")
    headers = [*http.STREAM_HEADERS, *http.SECURITY_HEADERS]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    body = native.preamble(hub.draw_retry_ms()) + native.lost_event(_plain(request.place))
    if scope["method"] == "HEAD":
        body = b""
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _plain(place: str) -> str:
    """What may go back into an `id:`: what was brought if it could be an offset, else nothing."""
    try:
        return str(parse_event_id(place)[0])
    except OffsetMalformed:
        return ""


async def _send_away(hub: Hub, send: Send) -> None:
    """Tell an `EventSource` to come back later, in the only way it survives: 200, `retry:`, end."""
    headers = [*http.STREAM_HEADERS, *http.SECURITY_HEADERS]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    body = native.preamble(hub.draw_retry_ms())
    await send({"type": "http.response.body", "body": body, "more_body": False})
