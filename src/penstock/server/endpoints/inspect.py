"""What there is: the list of streams, and one of them in detail. For this machine's operator.

Answers are JSON; nothing a user said is in them.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from penstock.core.errors import QueryMalformed
from penstock.server.asgi import Receive, Scope, Send
from penstock.server.hub import Hub
from penstock.server.stream import Stream
from penstock.wire import http

MAX_LISTED: Final = 1000


async def list_streams(hub: Hub, name: str, scope: Scope, receive: Receive, send: Send) -> None:
    """GET: streams in the order of their names, from after `after`, at most `limit`, those whose
    names begin with `prefix`. `next` is what to pass as `after` for the rest."""
    query = http.query_parameters(scope["query_string"])
    prefix, after = query.get("prefix", ""), query.get("after", "")
    limit = _limit(query.get("limit", "100"))
    found = sorted(
        (stream for stream in hub.streams() if stream.name.startswith(prefix)),
        key=lambda stream: stream.name,
    )
    page = [stream for stream in found if stream.name > after][: limit + 1]
    more = len(page) > limit
    body: dict[str, Any] = {
        "streams": [describe(stream) for stream in page[:limit]],
        "next": page[limit - 1].name if more else None,
    }
    await _send_json(send, scope, body)


async def inspect(hub: Hub, name: str, scope: Scope, receive: Receive, send: Send) -> None:
    """GET: one stream. Raises StreamNotFound."""
    await _send_json(send, scope, describe(hub.get(name)))


def describe(stream: Stream) -> dict[str, Any]:
    """Say where a stream stands, as JSON values."""
    head, retention = stream.head, stream.config.retention
    return {
        "name": stream.name,
        "path": stream.path,
        "content_type": stream.config.content_type,
        "state": "running" if head.end is None else "ended",
        "end_reason": head.end,
        "is_produced": stream.is_produced,
        "earliest": str(head.earliest_offset),
        "tail": str(head.tail_offset),
        "records": head.records,
        "bytes": head.bytes,
        "readers": stream.readers,
        "retention": {
            "max_records": retention.max_records,
            "max_bytes": retention.max_bytes,
            "max_age_s": retention.max_age_s,
        },
    }


def _limit(text: str) -> int:
    is_number = text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_LISTED))
    if not (is_number and 1 <= int(text) <= MAX_LISTED):
        raise QueryMalformed("limit", text, f"a number from 1 to {MAX_LISTED}")
    return int(text)


async def _send_json(send: Send, scope: Scope, body: dict[str, Any]) -> None:
    data = msgspec.json.encode(body)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(data)),
        (b"cache-control", b"no-store"),
        *http.SECURITY_HEADERS,
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    data = b"" if scope["method"] == "HEAD" else data
    await send({"type": "http.response.body", "body": data, "more_body": False})
