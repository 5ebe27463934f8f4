"""Our own address for answers: ask, and read the stream itself, its offsets and all.

What is streamed here is what `/v1/stream/` shows of the same stream, so it is resumed there, or
here with the same `Idempotency-Key`, from the id that was seen last. An answer can also be begun
and left: `Prefer: respond-async` (RFC 7240) says so, and its address is given at once.
"""

from __future__ import annotations

from typing import Final

import msgspec

from penstock.core.errors import QueryMalformed
from penstock.core.record import EndReason
from penstock.gateway.answers import Answers
from penstock.gateway.endpoints.answering import (
    answer_headers,
    find_answer,
    has_begun,
    read_so_far,
    send_answer,
)
from penstock.gateway.endpoints.asking import idempotency_key, read_asked, start
from penstock.gateway.endpoints.exchange import Exchange
from penstock.llm.write import native
from penstock.llm.write.writer import JSON, Body
from penstock.server.asgi import Message
from penstock.server.endpoints.read import ReadRequest, serve_events
from penstock.server.stream import Stream
from penstock.wire import http

PREFIXES: Final = ("chatcmpl-", "resp_", "msg_", "")
"""What ids of answers begin with in some dialects: a client that knows an answer by one of those
can use it here as it is."""


async def create(exchange: Exchange) -> None:
    """POST: ask a model."""
    caller = exchange.caller()
    request = await read_asked(exchange)
    stream, is_new = await start(exchange, request, caller)
    if _is_async(exchange):
        await _accept(exchange, stream, is_new=is_new)
    elif request.is_stream or http.accepts_events(exchange.header(b"accept")):
        await _stream(exchange, stream, is_new=is_new)
    else:
        await send_answer(exchange, stream, is_new=is_new, is_stream=False)


async def retrieve(exchange: Exchange) -> None:
    """GET: the answer as it stands."""
    stream = await find_answer(exchange, *PREFIXES)
    await _send_state(exchange, stream)


async def cancel(exchange: Exchange) -> None:
    """POST: end the answer, and give it as it is then."""
    stream = await find_answer(exchange, *PREFIXES)
    await read_so_far(stream)
    await stream.cancel()
    await _send_state(exchange, stream)


async def cancel_by_key(exchange: Exchange) -> None:
    """POST: end the answer that this caller asked for under an `Idempotency-Key`. A client whose
    SDK still waits for an answer knows no other name of it."""
    key = idempotency_key(exchange.scope["headers"])
    if key is None:
        raise QueryMalformed("idempotency-key", "", "the key that the answer was asked for with")
    stream = await exchange.answers.find(exchange.caller(), key)
    await stream.cancel()
    await _send_state(exchange, stream)


async def delete(exchange: Exchange) -> None:
    """DELETE: forget the answer; one that runs is cancelled."""
    stream = await find_answer(exchange, *PREFIXES)
    await read_so_far(stream)
    await exchange.hub.delete(stream.name)
    await exchange.respond_empty()


def _is_async(exchange: Exchange) -> bool:
    wishes = (exchange.header(b"prefer") or "").lower().split(",")
    return any(wish.partition(";")[0].strip() == "respond-async" for wish in wishes)


async def _accept(exchange: Exchange, stream: Stream, *, is_new: bool) -> None:
    id = Answers.id_of(stream)
    location = f"{exchange.root}/v1/answers/{id}"
    headers = answer_headers(exchange, stream, is_new=is_new)
    headers += [(b"location", location.encode()), (b"preference-applied", b"respond-async")]
    value = {"id": id, "stream": stream.name, "url": f"{exchange.root}/v1{stream.path}"}
    await exchange.respond_json(value, status=202, headers=headers)


async def _stream(exchange: Exchange, stream: Stream, *, is_new: bool) -> None:
    headers = answer_headers(exchange, stream, is_new=is_new)
    place, _ = http.last_event_id(exchange.scope["headers"], {})
    request = ReadRequest(place=place or "", is_header=True, is_event_source=False)

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *headers]}
        await exchange.send(message)

    with stream.attended():
        if await has_begun(exchange, stream, headers):
            await exchange.stop_watching()
            await serve_events(stream, request, exchange.scope, exchange.receive, send)


async def _send_state(exchange: Exchange, stream: Stream) -> None:
    so_far = await read_so_far(stream)
    end = so_far.end or EndReason.COMPLETE
    data = native.write_whole(so_far.about.envelope, so_far.events, end).data
    if so_far.end is None:
        data = msgspec.json.encode({**msgspec.json.decode(data), "reason": None})
    # That the answer could be read is a success, whatever became of it.
    body = Body(status=200, media_type=JSON, data=data)
    await exchange.respond(body, answer_headers(exchange, stream))
