"""Reading a stream: native SSE, and the log's bytes for whoever does not ask for events.

Where a reader begins: the header `Last-Event-ID` beats the query's `last_event_id` beats
`offset`. A malformed query is the caller's mistake (400); a malformed header is a browser's
memory of something, so it gets a gap and then the earliest that is kept. `-1` is the beginning,
`now` the tail.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from penstock.core.cursor import (
    BEGINNING,
    END_MARK,
    NOW,
    Offset,
    parse_event_id,
    parse_offset,
)
from penstock.core.errors import (
    Draining,
    OffsetGone,
    OffsetMalformed,
    Overloaded,
    QueryMalformed,
    StreamNotFound,
)
from penstock.core.limits import MAX_BODY_BYTES
from penstock.core.subscription import GapReason, State, Subscription
from penstock.server.asgi import Receive, Scope, Send
from penstock.server.fastpath import EXTENSION, Offer, Writer
from penstock.server.hub import Hub
from penstock.server.portable import PortableReader
from penstock.server.stream import Stream
from penstock.wire import http, native

CATCH_UP_RECORDS: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadRequest:
    """What a reader asks for. `place` is what it brought, "" for none."""

    place: str = ""
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
        if live not in (None, "events"):
            raise QueryMalformed("live", live, "'events', or none for what is there now")
        accepts = http.accepts_events(http.header(headers, b"accept"))
        return cls(
            place=place or "",
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
    request = ReadRequest.of(scope)
    try:
        stream = hub.get(name)
    except StreamNotFound:
        if request.wants_events and request.is_resume:
            if not request.is_header:
                parse_event_id(request.place)  # in the query it is the caller's mistake
            await _serve_lost(hub, request, scope, send)
            return
        raise
    if request.wants_events:
        await serve_events(stream, request, scope, receive, send)
    elif request.is_head:
        content_type = (b"content-type", stream.config.content_type.encode())
        headers = [content_type, *_stream_headers(stream), *end_headers(stream)]
        await _send_empty(send, 200, [*headers, (b"cache-control", b"no-store")])
    else:
        await _serve_catch_up(stream, request, send)


async def serve_events(
    stream: Stream, request: ReadRequest, scope: Scope, receive: Receive, send: Send
) -> None:
    """Stream native events from where the request says. Raises before the head is sent:
    OffsetMalformed, OffsetGone, and Overloaded or Draining for who is not an `EventSource`."""
    hub = stream.hub
    opened_at = hub.clock()
    subscription, has_seen_end = _begin(stream, request)
    if has_seen_end:
        hub.hooks.resumed("ended")
        await _send_empty(send, 204, _stream_headers(stream))
        return
    if request.is_head:
        await _send_empty(send, 200, [*http.STREAM_HEADERS, *_stream_headers(stream)])
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
    await _hand_over(
        stream,
        subscription,
        scope,
        receive,
        send,
        opened_at=opened_at,
        is_visible=request.sees_heartbeat,
    )


async def _hand_over(
    stream: Stream,
    subscription: Subscription,
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    opened_at: float,
    is_visible: bool,
) -> None:
    """Send the head, then serve by the fast path where the server offers it, else portably."""
    extensions: dict[str, Any] = scope.get("extensions") or {}
    offer: Offer | None = extensions.get(EXTENSION)
    headers = [*http.STREAM_HEADERS, *_stream_headers(stream)]
    if offer is not None:
        headers.append((b"connection", b"close"))
        send = offer.identity(send)
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    preamble = native.preamble(stream.hub.draw_retry_ms())
    transport = offer.take_over() if offer is not None else None
    if offer is not None and transport is not None:
        writer = Writer(stream, subscription, transport, opened_at=opened_at, is_visible=is_visible)
        writer.begin(preamble, was_paused=offer.was_paused)
        return
    reader = PortableReader(stream, subscription, opened_at=opened_at, is_visible=is_visible)
    await reader.run(receive, send, preamble)


def _begin(stream: Stream, request: ReadRequest) -> tuple[Subscription, bool]:
    """Find where a reader begins, and whether it has seen the end already."""
    head, place = stream.head, request.place
    if place in ("", BEGINNING):
        # The beginning is position 0: where that is no longer kept, the reader is told.
        return Subscription(), False
    if place == NOW:
        return Subscription(head.tail), False
    try:
        offset, is_end = parse_event_id(place)
    except OffsetMalformed:
        if not request.is_header:
            raise
        subscription = Subscription()
        subscription.lose(place[:64], GapReason.MALFORMED)
        offset, is_end = None, False
    else:
        subscription = Subscription.at(offset, head)
    if offset is not None and is_end and head.end is not None and offset == head.tail_offset:
        return subscription, True
    lost = subscription.state is State.GAP or not (
        head.earliest <= subscription.position <= head.tail
    )
    if lost and request.refuses_gap:
        raise OffsetGone(place[:64], str(head.earliest_offset))
    return subscription, False


async def _serve_lost(hub: Hub, request: ReadRequest, scope: Scope, send: Send) -> None:
    """Tell a reader of a stream nobody knows that it is lost: an `EventSource` must not die of a
    404 after a restart. One that was told already gets 204, which stops it."""
    if request.place.endswith(END_MARK):
        hub.hooks.resumed("ended")
        await _send_empty(send, 204, [])
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


async def _serve_catch_up(stream: Stream, request: ReadRequest, send: Send) -> None:
    """Give what the log holds after a place, and say where that ends.

    JSON streams give an array of values, others their payloads one after the other. A gap is
    410: there is no event to tell it with.
    """
    head = stream.head
    after = _catch_up_place(request.place, head.earliest_offset, head.tail_offset)
    if after.epoch != head.epoch or not head.earliest <= after.position <= head.tail:
        raise OffsetGone(request.place[:64], str(head.earliest_offset))
    records = await stream.hub.backend.read(
        stream.name, after.position, CATCH_UP_RECORDS, MAX_BODY_BYTES
    )
    next_offset = Offset(head.epoch, records[-1].position) if records else after
    is_up_to_date = next_offset.position >= head.tail
    payloads = [record.payload for record in records]
    content_type = stream.config.content_type
    is_array = http.is_json(content_type)
    body = b"[" + b",".join(payloads) + b"]" if is_array else b"".join(payloads)
    headers: http.Headers = [
        (b"content-type", content_type.encode()),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (b"vary", b"accept"),
        (b"stream-next-offset", str(next_offset).encode()),
        *http.SECURITY_HEADERS,
    ]
    if is_up_to_date:
        headers.append((b"stream-up-to-date", b"true"))
        headers += end_headers(stream)
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _catch_up_place(place: str, earliest: Offset, tail: Offset) -> Offset:
    if place in ("", BEGINNING):
        return earliest
    return tail if place == NOW else parse_offset(place.removesuffix(END_MARK))


def end_headers(stream: Stream) -> http.Headers:
    """What says that a stream has ended, and how."""
    if stream.end is None:
        return []
    return [(b"stream-closed", b"true"), (b"stream-end-reason", stream.end.encode())]


def _stream_headers(stream: Stream) -> http.Headers:
    headers: http.Headers = [
        (b"stream-next-offset", str(stream.offset).encode()),
        *http.SECURITY_HEADERS,
    ]
    if not http.is_text(stream.config.content_type):
        headers.append((b"stream-sse-data-encoding", b"base64"))
    return headers


async def _send_empty(send: Send, status: int, headers: http.Headers) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
