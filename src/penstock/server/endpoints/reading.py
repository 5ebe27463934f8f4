"""Where a reader begins, and how it gets its body: what every read that goes on has in common.

Where it begins: `-1` is the beginning, `now` the tail, anything else an offset or an end's id. A
malformed query is the caller's mistake (400); a malformed header is a browser's memory of
something, so it gets a gap. Then the head is sent, and the body is served by the fast path where
the server offers it, else portably.
"""

from __future__ import annotations

from typing import Any

from penstock.core.cursor import BEGINNING, NOW, parse_event_id
from penstock.core.errors import OffsetGone, OffsetMalformed
from penstock.core.subscription import GapReason, State, Subscription
from penstock.server.asgi import Receive, Scope, Send
from penstock.server.fastpath import EXTENSION, Offer, Writer
from penstock.server.portable import PortableReader
from penstock.server.stream import Kind, Stream
from penstock.wire import http


def find_place(
    stream: Stream, place: str, *, is_header: bool, refuses_gap: bool = False
) -> tuple[Subscription, bool]:
    """Find where a reader that brings a place begins, and whether it has seen the end already.

    Raises OffsetMalformed, unless a header brought it, and OffsetGone where a gap is refused.
    """
    head = stream.head
    if place in ("", BEGINNING):
        # The beginning is position 0: where that is no longer kept, the reader is told.
        return Subscription(), False
    if place == NOW:
        return Subscription(head.tail), False
    try:
        offset, is_end = parse_event_id(place)
    except OffsetMalformed:
        if not is_header:
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
    if lost and refuses_gap:
        raise OffsetGone(place[:64], str(head.earliest_offset))
    return subscription, False


async def hand_over(
    stream: Stream,
    subscription: Subscription,
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    opened_at: float,
    preamble: bytes,
    headers: http.Headers | None = None,
    is_visible: bool = False,
    kind: Kind = "native",
    ends_at: float | None = None,
) -> None:
    """Send the head and the preamble, then serve until the end, the hang-up, a drain or a stall.
    The fast path goes on by itself, and this returns."""
    extensions: dict[str, Any] = scope.get("extensions") or {}
    offer: Offer | None = extensions.get(EXTENSION)
    all_headers = [*http.STREAM_HEADERS, *stream_headers(stream), *(headers or ())]
    if offer is not None:
        all_headers.append((b"connection", b"close"))
        send = offer.identity(send)
    await send({"type": "http.response.start", "status": 200, "headers": all_headers})
    transport = offer.take_over() if offer is not None else None
    view = stream.view(kind)
    if offer is not None and transport is not None:
        writer = Writer(
            stream,
            view,
            subscription,
            transport,
            opened_at=opened_at,
            is_visible=is_visible,
            ends_at=ends_at,
        )
        writer.begin(preamble, was_paused=offer.was_paused)
        return
    reader = PortableReader(
        stream, view, subscription, opened_at=opened_at, is_visible=is_visible, ends_at=ends_at
    )
    await reader.run(receive, send, preamble)


def stream_headers(stream: Stream) -> http.Headers:
    """What every read of a stream says of it."""
    headers: http.Headers = [
        (b"stream-next-offset", str(stream.offset).encode()),
        *http.SECURITY_HEADERS,
    ]
    if not http.is_text(stream.config.content_type):
        headers.append((b"stream-sse-data-encoding", b"base64"))
    return headers


async def send_empty(send: Send, status: int, headers: http.Headers) -> None:
    """Answer without a body."""
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
