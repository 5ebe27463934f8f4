"""AWS Bedrock's ConverseStream: content blocks by index, in binary messages, padded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from penstock.llm.events import Json
from penstock.testing.speech.framing import message
from penstock.testing.speech.said import Said
from penstock.testing.speech.speaker import Refusal

_NAMES: Final = {
    400: "ValidationException",
    401: "UnrecognizedClientException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    408: "ModelTimeoutException",
    424: "ModelErrorException",
    429: "ThrottlingException",
    503: "ServiceUnavailableException",
}

_JSON: Final = "application/json"

# Bedrock pads its messages, so that their lengths do not tell what is in them.
_PADDING: Final = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def speak(said: Said) -> Iterator[bytes]:
    """An answer as the messages of a stream; the counts come after the stop."""
    yield _event("messageStart", {"role": "assistant"})
    for index, (start, deltas) in enumerate(_blocks(said)):
        place: dict[str, Json] = {"contentBlockIndex": index}
        if start:
            yield _event("contentBlockStart", {**place, "start": start})
        for delta in deltas:
            yield _event("contentBlockDelta", {**place, "delta": delta})
        yield _event("contentBlockStop", place)
    reason = said.reason("end_turn", "max_tokens", "tool_use")
    yield _event("messageStop", {"stopReason": reason})
    usage: Json = {
        "inputTokens": said.input_tokens,
        "outputTokens": said.output_tokens,
        "totalTokens": said.input_tokens + said.output_tokens,
    }
    yield _event("metadata", {"usage": usage, "metrics": {"latencyMs": 1}})


def _blocks(said: Said) -> Iterator[tuple[Json, list[Json]]]:
    """Each block as it is opened, None where nothing opens it, with the deltas that fill it."""
    if said.thought:
        yield None, [{"reasoningContent": {"text": piece}} for piece in said.thought]
    if said.text:
        yield None, [{"text": piece} for piece in said.text]
    for index, call in enumerate(said.calls):
        opened: Json = {"toolUse": {"toolUseId": f"tooluse_{said.id}{index}", "name": call.name}}
        yield opened, [{"toolUse": {"input": piece}} for piece in call.arguments]


def _event(type: str, payload: dict[str, Json]) -> bytes:
    headers = {":event-type": type, ":content-type": _JSON, ":message-type": "event"}
    padding = _PADDING[: len(str(payload)) % len(_PADDING)]
    return message(headers, {**payload, "p": padding})


def refuse(status: int, sentence: str) -> Refusal:
    """An error in the place of a stream: its name is a header."""
    name = _NAMES.get(status, "InternalServerException")
    return Refusal(body={"message": sentence}, headers={"x-amzn-ErrorType": name})


def fail(sentence: str, place: int) -> bytes:
    """An error under way: a message that is an exception."""
    headers = {
        ":exception-type": "serviceUnavailableException",
        ":content-type": _JSON,
        ":message-type": "exception",
    }
    return message(headers, {"message": sentence})
