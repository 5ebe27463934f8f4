"""Writing to a stream over HTTP: create, publish, close, delete, cancel. What an append is, is in
`server/append.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from penstock.backends.interface import Fork, StreamConfig
from penstock.core.errors import (
    BodyMalformed,
    QueryMalformed,
    RecordTooLarge,
    StreamConflict,
    StreamEnded,
    StreamGone,
)
from penstock.core.record import EndReason
from penstock.server.append import (
    NO_STORE,
    Append,
    closed_headers,
    closes,
    record_field,
    refusal,
    to_records,
)
from penstock.server.asgi import Receive, Scope, Send
from penstock.server.endpoints.catch_up import place_of
from penstock.server.hub import Hub
from penstock.server.payload import split_body
from penstock.server.stream import Stream
from penstock.wire import durable, http

DEFAULT_CONTENT_TYPE: Final = "application/octet-stream"


async def create(hub: Hub, name: str, scope: Scope, receive: Receive, send: Send) -> None:
    """PUT: 201 for a new stream, 200 for one that is there with the same configuration. A body
    is its first records; `Stream-Forked-From` makes it a fork."""
    given = http.by_name(scope["headers"])
    fork, source = await _fork(hub, given)
    # A fork has its source's type unless it says one, and then it must be the same.
    content_type = http.content_type(
        http.text_of(given, b"content-type"), "" if fork else DEFAULT_CONTENT_TYPE
    )
    ttl_s, expires_at = durable.parse_expiry(given)
    end = EndReason.COMPLETE if closes(given) else None
    type_, key = record_field(given, "type"), record_field(given, "key")
    body = await read_body(hub, given, receive)
    content_type = content_type or source
    payloads = split_body(body, content_type, allow_none=True) if body else []
    config = StreamConfig(
        content_type=content_type,
        retention=hub.settings.retention,
        ttl_s=ttl_s,
        expires_at=expires_at,
        fork=fork,
    )
    opening = to_records(payloads, type_, key, hub.settings.max_record_bytes)
    stream, is_new = await hub.create_or_get(name, config, opening, end=end)
    if not is_new and end is not None and stream.end is None:
        raise StreamConflict(name, "state: open")
    location = _location(scope, stream)
    await _respond(
        send,
        201 if is_new else 200,
        stream,
        [(b"location", location), (b"content-type", stream.config.content_type.encode())],
    )


async def _fork(hub: Hub, given: Mapping[bytes, bytes]) -> tuple[Fork | None, str]:
    """Read what a PUT says of a fork, and of which type its source is. Raises QueryMalformed,
    OffsetMalformed, NameMalformed."""
    source = http.text_of(given, b"stream-forked-from")
    # An empty number is a mistake, and not the same as none.
    sub = durable.parse_count(
        "stream-fork-sub-offset", http.text_of(given, b"stream-fork-sub-offset")
    )
    at = http.text_of(given, b"stream-fork-offset")
    if source is None:
        if sub is not None or at is not None:
            raise QueryMalformed("stream-forked-from", "", "the source of the fork")
        return None, ""
    if sub and at is None:
        raise QueryMalformed(
            "stream-fork-offset", "", "the offset that the sub-offset is counted from"
        )
    # The protocol names the source by its path; a name alone is taken too.
    raw = source.encode("latin-1").split(b"/stream/", 1)[-1]
    name = http.stream_name(raw.removeprefix(b"/"))
    try:
        stream = await hub.get(name)
    except StreamGone:
        raise StreamConflict(name, "state: deleted, with forks") from None
    offset = None if at is None else place_of(at, stream.head)
    return Fork(source=name, at=offset, sub=sub or 0), stream.config.content_type


def _location(scope: Scope, stream: Stream) -> bytes:
    """Where a stream is read: an absolute address, since readers of the protocol expect one."""
    host = http.header(scope["headers"], b"host") or ""
    origin = f"{scope.get('scheme', 'http')}://{host}" if host else ""
    return f"{origin}{scope.get('root_path', '')}{stream.path}".encode("latin-1")


async def publish(hub: Hub, name: str, scope: Scope, receive: Receive, send: Send) -> None:
    """POST: append one record, or of a JSON array one for each element; answered once committed."""
    given = http.by_name(scope["headers"])
    append = Append.of(given)
    stream = await hub.get(name)
    body = await read_body(hub, given, receive)
    try:
        records = append.records(stream, body)
        appended = await hub.backend.append(
            name, records, end=append.end, stamp=append.stamp, seq=append.seq
        )
    except StreamEnded as error:
        status, headers, told = refusal(error, stream)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": told, "more_body": False})
        return
    if append.end is not None:
        await stream.stop_producer()
    status, headers = append.answer(appended, is_new=bool(records))
    await _send_empty(send, status, headers)


async def delete(hub: Hub, name: str, scope: Scope, receive: Receive, send: Send) -> None:
    """DELETE: cancel the producer and forget the stream."""
    await hub.delete(name)
    await _send_empty(send, 204, [*NO_STORE])


async def cancel(hub: Hub, name: str, scope: Scope, receive: Receive, send: Send) -> None:
    """POST to /cancel: end the stream and abort its producer. Of a stream that has ended it
    changes nothing, and says how that ended."""
    stream = await hub.get(name)
    await stream.cancel()
    await _respond(send, 204, stream, [])


async def read_body(hub: Hub, given: Mapping[bytes, bytes], receive: Receive) -> bytes:
    """Read a request's body. Raises RecordTooLarge above the limit, before reading it all where
    its length is announced; BodyMalformed when the client leaves in the middle."""
    limit = hub.settings.max_body_bytes
    announced = _announced(given)
    if announced > limit:
        raise RecordTooLarge(announced, limit)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise BodyMalformed("ended before it was whole")
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise RecordTooLarge(size, limit)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def _announced(given: Mapping[bytes, bytes]) -> int:
    text = http.text_of(given, b"content-length") or ""
    # int() refuses thousands of digits, and twenty are above any limit.
    return int(text[:20]) if text.isascii() and text.isdecimal() else 0


async def _respond(send: Send, status: int, stream: Stream, headers: http.Headers) -> None:
    end = stream.end
    all_headers: http.Headers = [
        (b"stream-next-offset", str(stream.offset).encode()),
        *NO_STORE,
        *(closed_headers(end) if end is not None else ()),
        *headers,
    ]
    if status != 204:
        all_headers.append((b"content-length", b"0"))
    await _send_empty(send, status, all_headers)


async def _send_empty(send: Send, status: int, headers: http.Headers) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
