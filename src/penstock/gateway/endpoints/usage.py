"""What answers used, for this machine's operator.

One line of JSON an answer, as the log has them, so that a year of them is neither here nor at the
other end ever in memory at once. `since` and `until` are when an answer began: seconds since 1970,
or a date and time (RFC 3339); without an offset it is UTC's.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from penstock.core.errors import QueryMalformed
from penstock.gateway.endpoints.exchange import Exchange
from penstock.gateway.usage import lines
from penstock.server.app import refuse_strangers
from penstock.wire import http

_EXPECTED: Final = "seconds since 1970, or a time such as 2026-01-31T12:00:00Z"


async def export(exchange: Exchange) -> None:
    """GET: the usage records of that time. Raises OperatorOnly, QueryMalformed."""
    refuse_strangers(exchange.scope)
    query = exchange.query()
    since_s = _time(query, "since", -math.inf)
    until_s = _time(query, "until", math.inf)
    headers: http.Headers = [
        (b"content-type", b"application/x-ndjson"),
        (b"cache-control", b"no-store"),
        *http.SECURITY_HEADERS,
    ]
    pieces = lines(exchange.hub, since_s, until_s)
    # The first before the head: a store that cannot be read is an error, not an empty export.
    piece = await anext(pieces, b"")
    await exchange.send({"type": "http.response.start", "status": 200, "headers": headers})
    while piece:
        async with asyncio.timeout(exchange.hub.settings.stall_s):
            await exchange.send({"type": "http.response.body", "body": piece, "more_body": True})
        piece = await anext(pieces, b"")
    await exchange.send({"type": "http.response.body", "body": b"", "more_body": False})


def _time(query: dict[str, str], name: str, default: float) -> float:
    text = query.get(name)
    if text is None:
        return default
    seconds = math.nan
    with suppress(ValueError):
        seconds = _read_time(text)
    with suppress(ValueError):
        seconds = float(text)
    if not math.isfinite(seconds):
        raise QueryMalformed(name, text, _EXPECTED)
    return seconds


def _read_time(text: str) -> float:
    time = datetime.fromisoformat(text)
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
