"""Cohere's chat, version 2: content blocks, and calls beside them by an index of their own."""

from __future__ import annotations

from collections.abc import Iterator

from penstock.llm.events import Json
from penstock.testing.speech.framing import named
from penstock.testing.speech.said import Said
from penstock.testing.speech.speaker import Refusal


def speak(said: Said) -> Iterator[bytes]:
    """An answer as the events of a chat."""
    message: dict[str, Json] = {"role": "assistant", "content": [], "tool_plan": ""}
    message |= {"tool_calls": [], "citations": []}
    yield named("message-start", {"id": said.id, "delta": {"message": message}})
    index = 0
    for kind, pieces in (("thinking", said.thought), ("text", said.text)):
        if pieces:
            yield from _content(index, kind, pieces)
            index += 1
    for place, call in enumerate(said.calls):
        function: Json = {"name": call.name, "arguments": ""}
        opened: Json = {"id": f"{call.name}_{said.id}{place}", "type": "function"}
        yield _call("start", place, {**opened, "function": function})
        for piece in call.arguments:
            yield _call("delta", place, {"function": {"arguments": piece}})
        yield named("tool-call-end", {"index": place})
    yield named("message-end", {"delta": _end(said)})
    yield b"data: [DONE]\n\n"


def _content(index: int, kind: str, pieces: tuple[str, ...]) -> Iterator[bytes]:
    opened: Json = {"message": {"content": {"type": kind, kind: ""}}}
    yield named("content-start", {"index": index, "delta": opened})
    for piece in pieces:
        delta: Json = {"message": {"content": {kind: piece}}}
        yield named("content-delta", {"index": index, "delta": delta})
    yield named("content-end", {"index": index})


def _call(step: str, index: int, call: Json) -> bytes:
    delta: Json = {"message": {"tool_calls": call}}
    return named(f"tool-call-{step}", {"index": index, "delta": delta})


def _end(said: Said) -> Json:
    counts: Json = {"input_tokens": said.input_tokens, "output_tokens": said.output_tokens}
    reason = said.reason("COMPLETE", "MAX_TOKENS", "TOOL_CALL")
    return {"finish_reason": reason, "usage": {"billed_units": counts, "tokens": counts}}


def refuse(status: int, message: str) -> Refusal:
    """An error in the place of a stream."""
    return Refusal(body={"id": "recorded", "message": message})


def fail(message: str, place: int) -> bytes:
    """An error under way: an end whose reason it is."""
    return named("message-end", {"delta": {"finish_reason": "ERROR", "error": message}})
