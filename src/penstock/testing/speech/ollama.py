"""Ollama's `/api/chat` and `/api/generate`: a line of JSON a piece, the last one `done`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from penstock.llm.events import Json
from penstock.testing.speech.framing import line
from penstock.testing.speech.said import Said
from penstock.testing.speech.speaker import Refusal

_WHEN: Final = "2026-01-01T00:00:00.000000Z"


def speak(said: Said) -> Iterator[bytes]:
    """An answer as lines of a chat; every call comes whole, and one that was cut does not come."""

    def say(**message: Json) -> bytes:
        whole: Json = {"role": "assistant", "content": "", **message}
        return line({**_head(said), "message": whole, "done": False})

    for piece in said.thought:
        yield say(thinking=piece)
    for piece in said.text:
        yield say(content=piece)
    for call in said.whole_calls:
        function: Json = {"name": call.name, "arguments": call.value}
        yield say(tool_calls=[{"function": function}])
    yield line({**_head(said), "message": {"role": "assistant", "content": ""}, **_end(said)})


def generate(said: Said) -> Iterator[bytes]:
    """An answer's thought and text as lines of `/api/generate`."""
    for piece in said.thought:
        yield line({**_head(said), "response": "", "thinking": piece, "done": False})
    for piece in said.text:
        yield line({**_head(said), "response": piece, "done": False})
    yield line({**_head(said), "response": "", **_end(said)})


def _head(said: Said) -> dict[str, Json]:
    return {"model": said.model, "created_at": _WHEN}


def _end(said: Said) -> dict[str, Json]:
    return {
        "done": True,
        "done_reason": said.reason("stop", "length", "stop"),
        "total_duration": 1_000_000,
        "prompt_eval_count": said.input_tokens,
        "eval_count": said.output_tokens,
    }


def refuse(status: int, message: str) -> Refusal:
    """An error in the place of a stream."""
    return Refusal(body={"error": message})


def fail(message: str, place: int) -> bytes:
    """An error under way."""
    return line({"error": message})
