"""Reading a stream in a client's dialect: `?dialect=`, and what a gateway answers with.

The body is what the client's SDK expects of its provider: no preamble but a comment, the dialect's
own end, and where it has to stop early the dialect's own error. With ids a reader can come back
where it was; without, it begins at the beginning, as those SDKs do.
"""

from __future__ import annotations

from typing import Final

from penstock.core.cursor import BEGINNING, NOW
from penstock.core.errors import OffsetGone, QueryMalformed
from penstock.core.subscription import State
from penstock.llm.write import agui, anthropic, native, openai_responses, vercel
from penstock.llm.write.dialects import find_out_dialect
from penstock.llm.write.writer import HEARTBEAT
from penstock.server.asgi import Receive, Scope, Send
from penstock.server.dialects import DialectKind
from penstock.server.endpoints.reading import find_place, hand_over, send_empty, stream_headers
from penstock.server.hub import Hub
from penstock.server.stream import Stream
from penstock.wire import http

WITH_IDS: Final = frozenset({native.DIALECT, anthropic.DIALECT, vercel.DIALECT, agui.DIALECT})
"""Dialects whose clients stand an `id:`; those of OpenAI take each field they do not know amiss."""

# What is asked of the stream's own representations, and the value that says no.
_OTHERS: Final = {"live": "events", "compact": "0", "heartbeat": "comment"}
_MAX_DIGITS: Final = 15


async def read_dialect(hub: Hub, name: str, scope: Scope, receive: Receive, send: Send) -> bool:
    """Answer GET and HEAD of a stream's address where the query names a dialect; returns whether
    it does. Raises QueryMalformed, StreamNotFound, and what `serve_dialect` raises."""
    query = http.query_parameters(scope["query_string"])
    if "dialect" not in query:
        return False
    kind = _kind(query)
    for parameter, plain in _OTHERS.items():
        if (value := query.get(parameter, plain)) != plain:
            raise QueryMalformed(parameter, value, f"{plain!r}, or none, with a dialect")
    # Who has no ids comes with a header all the same: of another body, maybe.
    headers: http.Headers = scope["headers"] if kind.has_ids else []
    place, is_header = http.last_event_id(headers, query)
    stream = await hub.get(name)
    if scope["method"] != "HEAD":
        stream.touch()
    await serve_dialect(stream, kind, scope, receive, send, place=place or "", is_header=is_header)
    return True


def _kind(query: dict[str, str]) -> DialectKind:
    name, after = query["dialect"], query.get("starting_after")
    try:
        find_out_dialect(name)
    except LookupError as error:
        raise QueryMalformed("dialect", name, str(error).rpartition("there are ")[2]) from None
    if after is None or name != openai_responses.DIALECT:
        return DialectKind(name, has_ids=name in WITH_IDS)
    if not (after.isascii() and after.isdecimal() and len(after) <= _MAX_DIGITS):
        raise QueryMalformed("starting_after", after, "the sequence_number of an event")
    return DialectKind(name, starting_after=int(after))


async def serve_dialect(
    stream: Stream,
    kind: DialectKind,
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    headers: http.Headers | None = None,
    place: str = "",
    is_header: bool = False,
) -> None:
    """Stream the answer that a stream is, in a dialect, from its beginning or after a place.

    `headers` are sent beside the dialect's own; `is_header` says that a header brought the place.
    Returns at the end of the body, or on the fast path when that goes on by itself. Raises before
    the head is sent: QueryMalformed for a stream that is no JSON, OffsetMalformed, OffsetGone where
    the answer's beginning is kept no longer, Overloaded, Draining.
    """
    hub = stream.hub
    opened_at = hub.clock()
    content_type = stream.config.content_type
    if not http.is_json(content_type):
        raise QueryMalformed("dialect", kind.name, f"none: this stream is {content_type!r}")
    subscription, has_seen_end = find_place(stream, place, is_header=is_header)
    own = [(name.encode(), value.encode()) for name, value in find_out_dialect(kind.name).headers]
    if has_seen_end:
        hub.hooks.resumed("ended")
        await send_empty(send, 204, [*stream_headers(stream), *(headers or ())])
        return
    head = stream.head
    if head.earliest and kind.name != native.DIALECT:
        raise OffsetGone(place[:64] or BEGINNING, str(head.earliest_offset))
    if scope["method"] == "HEAD":
        all_headers = [*http.STREAM_HEADERS, *stream_headers(stream), *own, *(headers or ())]
        await send_empty(send, 200, all_headers)
        return
    hub.admit()
    stream.view(kind)  # while it can be said that there is no room
    if place not in ("", BEGINNING, NOW):
        hub.hooks.resumed("gap" if subscription.state is State.GAP else "exact")
    await hand_over(
        stream,
        subscription,
        scope,
        receive,
        send,
        opened_at=opened_at,
        preamble=HEARTBEAT,
        headers=[*own, *(headers or ())],
        kind=kind,
    )
