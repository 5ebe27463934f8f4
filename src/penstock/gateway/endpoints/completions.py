"""OpenAI chat completions and Anthropic messages: one request, one answer, nothing kept.

What these dialects have beside that (stored completions, batches, counting tokens) is the
provider's own and is not here; `app.py` says so in the dialect's own words.
"""

from __future__ import annotations

from typing import Final

from penstock.gateway.endpoints.answering import send_answer
from penstock.gateway.endpoints.asking import read_asked, start
from penstock.gateway.endpoints.exchange import Exchange
from penstock.llm.events import Json
from penstock.llm.write import openai_chat

_OPENAI: Final = openai_chat.DIALECT


async def create(exchange: Exchange) -> None:
    """POST: ask a model, and answer with its answer."""
    caller = exchange.caller()
    request = await read_asked(exchange)
    options: dict[str, Json] = {}
    if exchange.dialect.name == _OPENAI:
        options["include_usage"] = request.wants_usage
    stream, is_new = await start(exchange, request, caller, options)
    await send_answer(exchange, stream, is_new=is_new, is_stream=request.is_stream)
