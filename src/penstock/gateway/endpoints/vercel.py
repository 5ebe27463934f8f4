"""Vercel AI SDK's chat: what `useChat` asks of its transport, under its default address.

A page posts its messages and is streamed the answer; one that is loaded again asks for its chat's
stream and is given the running answer from its beginning, since the SDK has no place to go on
from. Its stop only closes a connection, so that other readers keep theirs; the address that stops
the answer is called beside it.
"""

from __future__ import annotations

from dataclasses import replace

from penstock.core.errors import RequestMalformed
from penstock.core.gateway_errors import ModelUnknown
from penstock.gateway.answers import Caller
from penstock.gateway.endpoints import runs
from penstock.gateway.endpoints.answering import answer_headers, send_answer, send_stream
from penstock.gateway.endpoints.asking import read_asked, start
from penstock.gateway.endpoints.exchange import Exchange
from penstock.llm.ask.request import Request
from penstock.llm.events import Json, as_list, as_object, as_text


async def create(exchange: Exchange) -> None:
    """POST: answer a chat."""
    caller = exchange.caller()
    request = with_model(exchange, caller, await read_asked(exchange))
    chat_id = _chat_id(request)
    options: dict[str, Json] = {"message_id": _message_id(request)}
    stream, is_new = await start(exchange, request, caller, options)
    if chat_id and is_new:
        await runs.remember(exchange, exchange.answers.chat_name(caller, chat_id), stream)
    await send_answer(exchange, stream, is_new=is_new, is_stream=True)


async def resume(exchange: Exchange) -> None:
    """GET: the chat's running answer, from its beginning; 204 where none runs."""
    streams = await runs.running(exchange, _log_name(exchange))
    if not streams:
        await exchange.respond_empty()
        return
    await send_stream(exchange, streams[-1], answer_headers(exchange, streams[-1]))


async def stop(exchange: Exchange) -> None:
    """POST or DELETE: cancel what runs in the chat; 204, also where nothing does."""
    for stream in await runs.running(exchange, _log_name(exchange)):
        await stream.cancel()
    await exchange.respond_empty()


def with_model(exchange: Exchange, caller: Caller, request: Request) -> Request:
    """A request of a dialect that need not name its model, with the gateway's own where it does
    not. Raises ModelUnknown where the gateway has none to give."""
    if request.model:
        return request
    models = exchange.answers.models(caller)
    model = exchange.answers.config.default_model or (models[0] if models else "")
    if not model:
        raise ModelUnknown(model)
    return replace(request, model=model)


def _log_name(exchange: Exchange) -> str:
    return exchange.answers.chat_name(exchange.caller(), exchange.name)


def _chat_id(request: Request) -> str:
    """The chat's id; "" where the page names none, and then its answer cannot be found by it."""
    value = request.extra.get("id")
    if value is None:
        return ""
    if not isinstance(value, str) or not runs.is_name(value):
        raise RequestMalformed("id", f"is no text of 1 to {runs.MAX_NAME} printable characters")
    return value


def _message_id(request: Request) -> str:
    """The message that the answer goes on with, as after a tool of the page has given its result:
    the page knows by its id that it is the same."""
    messages = as_list((request.origin or {}).get("messages"))
    last = as_object(messages[-1]) if messages else {}
    id = as_text(last.get("id")) if last.get("role") == "assistant" else ""
    return id if runs.is_name(id) else ""
