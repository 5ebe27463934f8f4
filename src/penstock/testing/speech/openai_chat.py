"""OpenAI's chat completions and the completions before them, with what DeepSeek added: thoughts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from penstock.llm.events import Json
from penstock.testing.speech.framing import data
from penstock.testing.speech.said import CREATED_AT, Said
from penstock.testing.speech.speaker import Refusal

_DONE: Final = b"data: [DONE]\n\n"

# By status: type and code.
_WORDS: Final = {
    401: ("invalid_request_error", "invalid_api_key"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("requests", "rate_limit_exceeded"),
}


def speak(said: Said) -> Iterator[bytes]:
    """An answer as chunks of a chat completion, the usage at the end."""

    def chunk(delta: dict[str, Json], finish: str | None = None) -> bytes:
        choice: Json = {"index": 0, "delta": delta, "finish_reason": finish}
        return data({**head, "choices": [choice]})

    head = _head(said, f"chatcmpl-{said.id}", "chat.completion.chunk")
    yield chunk({"role": "assistant", "content": ""})
    for piece in said.thought:
        yield chunk({"reasoning_content": piece})
    for piece in said.text:
        yield chunk({"content": piece})
    for index, call in enumerate(said.calls):
        function: Json = {"name": call.name, "arguments": ""}
        opened: Json = {"index": index, "id": f"call_{said.id}{index}", "type": "function"}
        yield chunk({"tool_calls": [{**opened, "function": function}]})
        for piece in call.arguments:
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    yield chunk({}, said.reason("stop", "length", "tool_calls"))
    yield data({**head, "choices": [], "usage": _usage(said)})
    yield _DONE


def continue_text(said: Said) -> Iterator[bytes]:
    """An answer's text as chunks of a completion: there are no thoughts and no tools in it."""
    head = _head(said, f"cmpl-{said.id}", "text_completion")
    for piece in said.text:
        yield data({**head, "choices": [{"index": 0, "text": piece, "finish_reason": None}]})
    finish = said.reason("stop", "length", "stop")
    yield data({**head, "choices": [{"index": 0, "text": "", "finish_reason": finish}]})
    yield data({**head, "choices": [], "usage": _usage(said)})
    yield _DONE


def _head(said: Said, id: str, kind: str) -> dict[str, Json]:
    return {"id": id, "object": kind, "created": CREATED_AT, "model": said.model}


def _usage(said: Said) -> Json:
    details: dict[str, Json] = {"reasoning_tokens": len(said.thought)}
    return {
        "prompt_tokens": said.input_tokens,
        "completion_tokens": said.output_tokens,
        "total_tokens": said.input_tokens + said.output_tokens,
        **({"completion_tokens_details": details} if said.thought else {}),
    }


def refuse(status: int, message: str) -> Refusal:
    """An error of either API, and of the Responses API."""
    default = ("server_error" if status >= 500 else "invalid_request_error", None)
    type, code = _WORDS.get(status, default)
    error: Json = {"message": message, "type": type, "param": None, "code": code}
    return Refusal(body={"error": error})


def fail(message: str, place: int) -> bytes:
    """An error under way, wherever that is."""
    return data({"error": {"type": "overloaded_error", "message": message}})
