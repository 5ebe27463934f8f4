"""OpenAI Responses: an answer that is read again, resumed, cancelled and deleted by its id.

`resp_` and the answer's id is the response's. A stream is resumed by the number of the last event
that was seen. In the background an answer is nobody's: it goes on however long nobody reads it.
The input of a response is not kept, so one cannot be continued by naming it: a client sends the
conversation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from penstock.core.errors import QueryMalformed, RequestMalformed
from penstock.gateway.endpoints.answering import (
    SoFar,
    answer_headers,
    find_answer,
    read_so_far,
    send_answer,
    send_stream,
)
from penstock.gateway.endpoints.asking import read_asked, start
from penstock.gateway.endpoints.exchange import Exchange
from penstock.llm.ask.request import Request
from penstock.llm.events import Json, as_json_text, as_object
from penstock.llm.write import openai_responses
from penstock.llm.write.writer import Body
from penstock.server.stream import Stream

PREFIX: Final = "resp_"

_KEPT_ELSEWHERE: Final = ("previous_response_id", "conversation")
_NOT_ECHOED: Final = frozenset({"input", "model", "stream", "stream_options", "include"})
_LONG: Final = ("instructions", "tools", "text", "metadata")

MAX_ECHO_CHARACTERS: Final = 128 * 1024
"""Longest JSON of what a response repeats of its request: beyond it, what is long is left out."""


async def create(exchange: Exchange) -> None:
    """POST: ask a model."""
    caller = exchange.caller()
    request = await read_asked(exchange)
    for field in _KEPT_ELSEWHERE:
        if request.extra.get(field) is not None:
            raise RequestMalformed(field, "is not kept here; send the conversation in 'input'")
    echoed = _echoed(request.origin or {})
    request, is_background = _in_background(request)
    stream, is_new = await start(
        exchange,
        request,
        caller,
        {"request": echoed},
        unread_s=float("inf") if is_background else None,
    )
    if is_background and not request.is_stream:
        await _send_state(exchange, stream, is_new=is_new)
    else:
        await send_answer(exchange, stream, is_new=is_new, is_stream=request.is_stream)


async def retrieve(exchange: Exchange) -> None:
    """GET: the response as it stands, or its stream, after an event if one is named."""
    stream = await find_answer(exchange, PREFIX)
    query = exchange.query()
    if query.get("stream", "false") != "true":
        await _send_state(exchange, stream)
        return
    await read_so_far(stream)  # so that what is no answer is said before the head
    headers = answer_headers(exchange, stream)
    after = _starting_after(query.get("starting_after"))
    await send_stream(exchange, stream, headers, starting_after=after)


async def cancel(exchange: Exchange) -> None:
    """POST: end the answer, and give the response as it is then."""
    stream = await find_answer(exchange, PREFIX)
    await read_so_far(stream)
    await stream.cancel()
    await _send_state(exchange, stream)


async def delete(exchange: Exchange) -> None:
    """DELETE: forget the answer; one that runs is cancelled."""
    stream = await find_answer(exchange, PREFIX)
    await read_so_far(stream)
    await exchange.hub.delete(stream.name)
    await exchange.respond_json({"id": exchange.name, "object": "response", "deleted": True})


def _in_background(request: Request) -> tuple[Request, bool]:
    """Whether nobody needs to read the answer, and the request without saying so: it is we who
    keep the answer, not the provider, which is asked for a stream and left when it is cancelled."""
    value = request.extra.get("background")
    if value is None:
        return request, False
    if not isinstance(value, bool):
        raise RequestMalformed("background", "is neither true nor false")
    origin = _without(request.origin or {})
    return replace(request, extra=_without(request.extra), origin=origin), value


def _without(fields: Mapping[str, Json]) -> dict[str, Json]:
    return {name: value for name, value in fields.items() if name != "background"}


def _echoed(body: Mapping[str, Json]) -> dict[str, Json]:
    """What the response may repeat of its request; the record that holds it must not be huge."""
    echoed = {name: value for name, value in body.items() if name not in _NOT_ECHOED}
    if len(as_json_text(echoed)) > MAX_ECHO_CHARACTERS:
        echoed = {name: value for name, value in echoed.items() if name not in _LONG}
    return echoed if len(as_json_text(echoed)) <= MAX_ECHO_CHARACTERS else {}


def _starting_after(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 15):
        raise QueryMalformed("starting_after", text, "the sequence_number of an event")
    return int(text)


async def _send_state(exchange: Exchange, stream: Stream, *, is_new: bool = True) -> None:
    headers = answer_headers(exchange, stream, is_new=is_new)
    await exchange.respond(_state(await read_so_far(stream)), headers)


def _state(so_far: SoFar) -> Body:
    about = so_far.about
    request = as_object(about.options.get("request"))
    return openai_responses.write_response(
        about.envelope, so_far.events, so_far.end, request=request
    )
