"""What is asked: a request's body, read in time and within bounds, and the answer it starts.

The order is that of a door: who asks, then what, then whether there is a budget for it. A body is
taken for JSON whatever its type says, since some clients say nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Final

from penstock.core.errors import BodyMalformed, QueryMalformed, RecordTooLarge
from penstock.core.limits import MAX_REQUEST_BYTES
from penstock.gateway.answers import Caller
from penstock.gateway.endpoints.exchange import Exchange
from penstock.llm.ask.dialects import read_request
from penstock.llm.ask.request import Request
from penstock.llm.events import Json
from penstock.server.stream import Stream
from penstock.wire import http

BODY_S: Final = 60.0
"""Time in which a request's body must have arrived: the largest at half a megabyte a second."""

LONG_BODY_BYTES: Final = 128 * 1024
"""Longest body that is read in the event loop: 2 ms, and 20 for one that was made to cost."""

MAX_IDEMPOTENCY_KEY: Final = 255
"""Longest `Idempotency-Key`; what others who take one allow."""


async def read_asked(exchange: Exchange) -> Request:
    """Read the body as a request in the exchange's dialect. Raises RequestMalformed,
    RecordTooLarge, BodyMalformed."""
    body = await read_body(exchange)
    read = partial(read_request, exchange.dialect.name, body, headers=_said(exchange))
    # A long one takes time that other answers' readers would wait for.
    return read() if len(body) <= LONG_BODY_BYTES else await asyncio.to_thread(read)


def _said(exchange: Exchange) -> dict[str, str]:
    """The request's headers as text; those that are none of the dialect's are not looked at."""
    given = http.by_name(exchange.scope["headers"])
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in given.items()}


async def read_body(exchange: Exchange) -> bytes:
    """Read the body. Raises RecordTooLarge above the limit, before reading it where its length is
    announced; BodyMalformed when the client is too slow, or leaves in the middle."""
    announced = exchange.header(b"content-length") or ""
    # int() refuses thousands of digits, and twenty are above any limit.
    length = int(announced[:20]) if announced.isascii() and announced.isdecimal() else 0
    if length > MAX_REQUEST_BYTES:
        raise RecordTooLarge(length, MAX_REQUEST_BYTES)
    try:
        async with asyncio.timeout(BODY_S):
            return await _read_parts(exchange)
    except TimeoutError:
        raise BodyMalformed(f"did not arrive within {BODY_S:g} s; send it at once") from None


async def _read_parts(exchange: Exchange) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await exchange.receive()
        if message["type"] == "http.disconnect":
            raise BodyMalformed("ended before it was whole")
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > MAX_REQUEST_BYTES:
            raise RecordTooLarge(size, MAX_REQUEST_BYTES)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


async def start(
    exchange: Exchange,
    request: Request,
    caller: Caller,
    options: Mapping[str, Json] | None = None,
    *,
    unread_s: float | None = None,
) -> tuple[Stream, bool]:
    """Start the answer, or join the one that was started under the same `Idempotency-Key`; says
    whether it is new. Raises as `Answers.start`, and QueryMalformed for a key that is none."""
    return await exchange.answers.start(
        request,
        caller,
        dialect=exchange.dialect.name,
        options=options,
        idempotency_key=idempotency_key(exchange.scope["headers"]),
        unread_s=unread_s,
    )


def idempotency_key(headers: http.Headers) -> str | None:
    """The key under which the same request is one answer. Raises QueryMalformed."""
    key = http.header(headers, b"idempotency-key")
    if key is not None and not (0 < len(key) <= MAX_IDEMPOTENCY_KEY and key.isprintable()):
        expected = f"1 to {MAX_IDEMPOTENCY_KEY} printable characters"
        raise QueryMalformed("idempotency-key", key, expected)
    return key
