"""What there is: the list of streams, and one of them in detail. For this machine's operator.

Answers are JSON; nothing a user said is in them.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from penstock.backends.interface import Listed, Lists
from penstock.core.errors import NotSupported, QueryMalformed
from penstock.server.asgi import Receive, Scope, Send
from penstock.server.hub import Hub
from penstock.server.stream import Stream
from penstock.wire import durable, http

MAX_LISTED: Final = 1000


async def list_streams(hub: Hub, name: str, scope: Scope, receive: Receive, send: Send) -> None:
    """GET: streams in the order of their names, from after `after`, at most `limit`, those whose
    names begin with `prefix`. `next` is what to pass as `after` for the rest."""
    query = http.query_parameters(scope["query_string"])
    prefix, after = query.get("prefix", ""), query.get("after", "")
    limit = _limit(query.get("limit", "100"))
    if not isinstance(hub.backend, Lists):
        raise NotSupported("list streams")
    page = await hub.backend.list(prefix, after, limit + 1)
    body: dict[str, Any] = {
        "streams": [
            describe(listed, hub.streams_in_use.get(listed.name)) for listed in page[:limit]
        ],
        "next": page[limit - 1].name if len(page) > limit else None,
    }
    await _send_json(send, scope, body)


async def inspect(hub: Hub, name: str, scope: Scope, receive: Receive, send: Send) -> None:
    """GET: one stream. Raises StreamNotFound."""
    stream = await hub.get(name)
    await _send_json(send, scope, describe(Listed(name, stream.head, stream.config), stream))


def describe(listed: Listed, stream: Stream | None) -> dict[str, Any]:
    """Say where a stream stands, as JSON values; `stream` is it where it is in use here."""
    head, config = listed.head, listed.config
    retention, fork = config.retention, config.fork
    return {
        "name": listed.name,
        "path": f"/stream/{http.stream_path(listed.name)}",
        "content_type": config.content_type,
        "state": "running" if head.end is None else "ended",
        "end_reason": head.end,
        "is_produced": stream is not None and stream.is_produced,
        "earliest": str(head.earliest_offset),
        "tail": str(head.tail_offset),
        "records": head.records,
        "bytes": head.bytes,
        "readers": 0 if stream is None else stream.readers,
        "ttl_s": config.ttl_s,
        "expires_at": None if config.expires_at is None else durable.time_text(config.expires_at),
        "forked_from": None if fork is None else fork.source,
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
