"""Requests to the recorded upstream in every dialect, and what our readers make of an answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

import aiohttp

from penstock.llm.assemble import Answer, Assembler
from penstock.llm.dialects import find_dialect
from penstock.llm.events import TokenEvent

# Where each dialect has its address, and its maximum of output tokens.
PATHS = {
    "openai-chat": "/v1/chat/completions",
    "anthropic-messages": "/v1/messages",
    "openai-responses": "/v1/responses",
    "openai-completions": "/v1/completions",
    "gemini": "/v1beta/models/{model}:streamGenerateContent?alt=sse",
    "bedrock": "/model/{model}/converse-stream",
    "ollama": "/api/chat",
    "cohere": "/v2/chat",
}
LIMITS = {
    "openai-chat": ("max_completion_tokens",),
    "anthropic-messages": ("max_tokens",),
    "openai-responses": ("max_output_tokens",),
    "openai-completions": ("max_tokens",),
    "gemini": ("generationConfig", "maxOutputTokens"),
    "bedrock": ("inferenceConfig", "maxTokens"),
    "ollama": ("options", "num_predict"),
    "cohere": ("max_tokens",),
}


class Got(NamedTuple):
    """A response. `is_whole` says whether its body ended as HTTP says it must."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    is_whole: bool


def limited(dialect: str, count: int) -> dict[str, Any]:
    """The field of a body that asks for so many tokens at most."""
    *outer, field = LIMITS[dialect]
    return {outer[0]: {field: count}} if outer else {field: count}


async def ask(
    url: str, dialect: str, model: str, *, headers: Mapping[str, str] | None = None, **body: Any
) -> Got:
    """Asks for an answer, the model where the dialect has it."""
    path = PATHS[dialect].replace("{model}", quote(model, safe=""))
    if "{model}" not in PATHS[dialect]:
        body["model"] = model
    async with (
        aiohttp.ClientSession() as session,
        session.post(url + path, json=body, headers=headers) as response,
    ):
        data, is_whole = bytearray(), True
        try:
            async for piece in response.content.iter_any():
                data += piece
        except aiohttp.ClientPayloadError:
            is_whole = False
        return Got(response.status, response.headers, bytes(data), is_whole)


def read(dialect: str, body: bytes) -> list[TokenEvent]:
    reader = find_dialect(dialect).make_reader()
    reader.receive_data(body)
    reader.receive_eof()
    return reader.events()


def assemble(dialect: str, body: bytes) -> Answer:
    assembler = Assembler()
    for event in read(dialect, body):
        assembler.receive_event(event)
    return assembler.answer()
