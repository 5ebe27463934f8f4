"""AG-UI: one run of an agent, which here is one answer of a model.

The protocol's client knows its run by the id it gave it, so that is what stopping goes by.
"""

from __future__ import annotations

from penstock.core.errors import RequestMalformed
from penstock.gateway.answers import Caller
from penstock.gateway.endpoints import runs
from penstock.gateway.endpoints.answering import send_answer
from penstock.gateway.endpoints.asking import read_asked, start
from penstock.gateway.endpoints.exchange import Exchange
from penstock.gateway.endpoints.vercel import with_model
from penstock.llm.ask.request import Request
from penstock.llm.events import Json, as_text


async def create(exchange: Exchange) -> None:
    """POST: run."""
    caller = exchange.caller()
    request = with_model(exchange, caller, await read_asked(exchange))
    thread_id, run_id = _name(request, "threadId"), _name(request, "runId")
    options: dict[str, Json] = {"thread_id": thread_id, "run_id": run_id}
    stream, is_new = await start(exchange, request, caller, options)
    if is_new:
        await runs.remember(exchange, _log_name(exchange, caller, run_id), stream)
    await send_answer(exchange, stream, is_new=is_new, is_stream=True)


async def stop(exchange: Exchange) -> None:
    """POST: cancel the run; 204, also where it is over."""
    log_name = _log_name(exchange, exchange.caller(), exchange.name)
    for stream in await runs.running(exchange, log_name):
        await stream.cancel()
    await exchange.respond_empty()


def _name(request: Request, field: str) -> str:
    name = as_text(request.extra.get(field))
    if not runs.is_name(name):
        raise RequestMalformed(field, f"is no text of 1 to {runs.MAX_NAME} printable characters")
    return name


def _log_name(exchange: Exchange, caller: Caller, run_id: str) -> str:
    # A line end, which no chat's id has, so that runs and chats of the same id are two.
    return exchange.answers.chat_name(caller, f"run\n{run_id}")
