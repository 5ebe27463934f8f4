"""Google's Gemini: chunks of one candidate, line ends CRLF, every tool call whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from penstock.llm.events import Json
from penstock.testing.speech.framing import data
from penstock.testing.speech.said import Said
from penstock.testing.speech.speaker import Refusal

_STATUSES: Final = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def speak(said: Said) -> Iterator[bytes]:
    """An answer as `GenerateContentResponse`s: each counts what was read, the last one everything.

    A call that was cut does not come.
    """
    for piece in said.thought:
        yield _chunk(said, {"text": piece, "thought": True}, None)
    for piece in said.text:
        yield _chunk(said, {"text": piece}, None)
    for index, call in enumerate(said.whole_calls):
        named: Json = {"id": f"{said.id}{index}", "name": call.name, "args": call.value}
        yield _chunk(said, {"functionCall": named}, None)
    yield _chunk(said, {"text": ""}, said.reason("STOP", "MAX_TOKENS", "STOP"))


def _chunk(said: Said, part: Json, finish: str | None) -> bytes:
    candidate: dict[str, Json] = {"content": {"parts": [part], "role": "model"}, "index": 0}
    usage: dict[str, Json] = {"promptTokenCount": said.input_tokens}
    if finish:
        candidate["finishReason"] = finish
        usage["candidatesTokenCount"] = said.output_tokens - len(said.thought)
        if said.thought:
            usage["thoughtsTokenCount"] = len(said.thought)
    usage["totalTokenCount"] = said.input_tokens + (said.output_tokens if finish else 0)
    whole: dict[str, Json] = {"candidates": [candidate], "usageMetadata": usage}
    return data({**whole, "modelVersion": said.model, "responseId": said.id}, line_end="\r\n")


def refuse(status: int, message: str) -> Refusal:
    """An error in the place of a stream."""
    return Refusal(body={"error": _error(status, message)})


def fail(message: str, place: int) -> bytes:
    """An error under way."""
    return data({"error": _error(503, message)}, line_end="\r\n")


def _error(status: int, message: str) -> Json:
    return {"code": status, "message": message, "status": _STATUSES.get(status, "INTERNAL")}
