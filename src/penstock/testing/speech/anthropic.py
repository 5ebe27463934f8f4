"""Anthropic's messages: content blocks by index, and pings between them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from penstock.llm.events import Json
from penstock.testing.speech.framing import named
from penstock.testing.speech.said import Said
from penstock.testing.speech.speaker import Refusal

_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}

# What Anthropic seals a thought with. Nobody can read it, and this one says nothing.
_SEAL: Final = "c2VhbGVk"


def speak(said: Said) -> Iterator[bytes]:
    """An answer as the events of a message."""
    message: dict[str, Json] = {
        "id": f"msg_{said.id}",
        "type": "message",
        "role": "assistant",
        "model": said.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": said.input_tokens, "output_tokens": 1},
    }
    yield named("message_start", {"message": message})
    for index, (block, deltas) in enumerate(_blocks(said)):
        yield named("content_block_start", {"index": index, "content_block": block})
        if index == 0:
            yield named("ping", {})
        for delta in deltas:
            yield named("content_block_delta", {"index": index, "delta": delta})
        yield named("content_block_stop", {"index": index})
    reason = said.reason("end_turn", "max_tokens", "tool_use")
    end: Json = {"stop_reason": reason, "stop_sequence": None}
    usage: Json = {"output_tokens": said.output_tokens}
    yield named("message_delta", {"delta": end, "usage": usage})
    yield named("message_stop", {})


def _blocks(said: Said) -> Iterator[tuple[Json, list[Json]]]:
    """Each block as it is opened, with the deltas that fill it."""
    if said.thought:
        deltas: list[Json] = [{"type": "thinking_delta", "thinking": p} for p in said.thought]
        deltas.append({"type": "signature_delta", "signature": _SEAL})
        yield {"type": "thinking", "thinking": "", "signature": ""}, deltas
    if said.text:
        yield {"type": "text", "text": ""}, [{"type": "text_delta", "text": p} for p in said.text]
    for index, call in enumerate(said.calls):
        deltas = [{"type": "input_json_delta", "partial_json": p} for p in call.arguments]
        id = f"toolu_{said.id}{index}"
        yield {"type": "tool_use", "id": id, "name": call.name, "input": {}}, deltas


def refuse(status: int, message: str) -> Refusal:
    """An error in the place of a message."""
    error: Json = {"type": _TYPES.get(status, "api_error"), "message": message}
    return Refusal(body={"type": "error", "error": error, "request_id": "req_recorded"})


def fail(message: str, place: int) -> bytes:
    """An error under way."""
    return named("error", {"error": {"type": "overloaded_error", "message": message}})
