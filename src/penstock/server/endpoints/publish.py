"""Writing to a stream over HTTP: create, publish, close, delete, cancel.

One request is one commit: a batch is stored whole or not at all. `Record-Type` and `Record-Key`
hold for every record of a request; `Stream-Closed: true` ends the stream with it.
"""

from __future__ import annotations

from typing import Final

from penstock.core.errors import (
    BodyMalformed,
    ContentTypeConflict,
    QueryMalformed,
    RecordFieldMalformed,
    RecordTooLarge,
)
from penstock.core.record import EndReason, NewRecord, checked
from penstock.server.asgi import Receive, Scope, Send
from penstock.server.endpoints.read import end_headers
from penstock.server.hub import Hub
from penstock.server.payload import split_body
from penstock.server.stream import Stream
from penstock.wire import http

DEFAULT_CONTENT_TYPE: Final = "application/octet-stream"


async def create(hub: Hub, name: str, scope: Scope, receive: Receive, send: Send) -> None:
    """PUT: 201 for a new stream, 200 for one that is there with the same configuration. A body
    is its first records."""
    headers: http.Headers = scope["headers"]
    content_type = http.content_type(http.header(headers, b"content-type"), DEFAULT_CONTENT_TYPE)
    closes = _closes(headers)
    body = await read_body(hub, headers, receive)
    records = split_body(body, content_type) if body else []
    checked_records = _checked(hub, headers, records)
    stream, is_new = await hub.create_or_get(name, content_type=content_type)
    if is_new:
        await hub.open_with(stream, checked_records, end=EndReason.COMPLETE if closes else None)
    location = f"{scope.get('root_path', '')}{stream.path}".encode()
    await _respond(
        send,
        201 if is_new else 200,
        stream,
        [(b"location", location), (b"content-type", content_type.encode())],
    )


async def publish(hub: Hub, name: str, scope: Scope, receive: Receive, send: Send) -> None:
    """POST: append one record, or of a JSON array one for each element; 204 once committed."""
    headers: http.Headers = scope["headers"]
    stream = hub.get(name)
    closes = _closes(headers)
    body = await read_body(hub, headers, receive)
    if not body and not closes:
        raise BodyMalformed("is empty; send at least one record")
    own = stream.config.content_type
    if body:
        given = http.content_type(http.header(headers, b"content-type"), own)
        if given != own:
            raise ContentTypeConflict(given, own)
    records = _checked(hub, headers, split_body(body, own) if body else [])
    await hub.backend.append(name, records, end=EndReason.COMPLETE if closes else None)
    if closes:
        await stream.stop_producer()
    await _respond(send, 204, stream, [])


async def delete(hub: Hub, name: str, scope: Scope, receive: Receive, send: Send) -> None:
    """DELETE: cancel the producer and forget the stream."""
    await hub.delete(name)
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def cancel(hub: Hub, name: str, scope: Scope, receive: Receive, send: Send) -> None:
    """POST to /cancel: end the stream and abort its producer. Of a stream that has ended it
    changes nothing, and says how that ended."""
    stream = hub.get(name)
    await stream.cancel()
    await _respond(send, 204, stream, [])


async def read_body(hub: Hub, headers: http.Headers, receive: Receive) -> bytes:
    """Read a request's body. Raises RecordTooLarge above the limit, before reading it all where
    its length is announced; BodyMalformed when the client leaves in the middle."""
    limit = hub.settings.max_body_bytes
    announced = _announced(headers)
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


def _announced(headers: http.Headers) -> int:
    text = http.header(headers, b"content-length") or ""
    # int() refuses thousands of digits, and twenty are above any limit.
    return int(text[:20]) if text.isascii() and text.isdecimal() else 0


def _checked(hub: Hub, headers: http.Headers, payloads: list[bytes]) -> list[NewRecord]:
    type_ = _text(headers, "type")
    key = _text(headers, "key")
    return [checked(p, type_, key, hub.settings.max_record_bytes) for p in payloads]


def _text(headers: http.Headers, field: str) -> str:
    """Read `Record-Type` or `Record-Key`, which are UTF-8; header values are bytes."""
    value = http.header(headers, b"record-" + field.encode()) or ""
    try:
        return value.encode("latin-1").decode()
    except UnicodeDecodeError:
        raise RecordFieldMalformed(field, "is no UTF-8; encode it so") from None


def _closes(headers: http.Headers) -> bool:
    value = http.header(headers, b"stream-closed")
    if value is None or value.lower() == "false":
        return False
    if value.lower() != "true":
        raise QueryMalformed("stream-closed", value, "'true' or 'false'")
    return True


async def _respond(send: Send, status: int, stream: Stream, headers: http.Headers) -> None:
    all_headers: http.Headers = [
        (b"stream-next-offset", str(stream.offset).encode()),
        (b"cache-control", b"no-store"),
        *http.SECURITY_HEADERS,
        *end_headers(stream),
        *headers,
    ]
    if status != 204:
        all_headers.append((b"content-length", b"0"))
    await send({"type": "http.response.start", "status": status, "headers": all_headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
