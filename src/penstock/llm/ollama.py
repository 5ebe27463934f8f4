"""Ollama's own `/api/chat` and `/api/generate`: NDJSON, one object a line, the last one `done`.

Chat lines hold a `message` with the next `content`, `thinking` and whole `tool_calls`; generate
lines hold the next `response` and `thinking`. Both are read by the same reader, since the fields do
not collide. The answer is whole when a line with `"done": true` was read, with the reason and the
counts; the end of the body before it is `upstream-truncated`. An error under way is a line with
`error` and no `done`, under status 200. Arguments of a tool call are a value, not its text. A
prompt that was cached is not counted, so `prompt_eval_count` may be missing.

The `context` of generate, which continues a conversation, and images are passed through under
their names. OpenAI's dialects are also spoken by Ollama (`/v1`); they are read in their own files.

Sources: the provider's reference ("Chat", "Generate", "Streaming", "Errors") and recorded streams.
"""

from __future__ import annotations

from typing import Final

from penstock.llm.events import (
    Json,
    StopReason,
    Usage,
    as_json_text,
    as_list,
    as_object,
    as_text,
)
from penstock.llm.reader import LineReader, first_count

DIALECT: Final = "ollama"

# "load" and "unload" answer a request without a prompt, which only loads or unloads the model.
_REASONS: Final[dict[str, StopReason]] = {"stop": "stop", "length": "length"}

_PASSED: Final = ("context", "images", "image")


class Reader(LineReader):
    """Reads one answer in this dialect. See `penstock.llm.events.TokenReader` for the contract."""

    __slots__ = ()

    dialect = DIALECT

    def _receive_payload(self, type: str, payload: dict[str, Json]) -> None:
        message = as_object(payload.get("message"))
        if model := as_text(payload.get("model")):
            self._composer.start(model=model, role=as_text(message.get("role")))
        for fields in (message, payload):
            self._composer.reasoning(as_text(fields.get("thinking")))
            self._composer.text(as_text(fields.get("content")) or as_text(fields.get("response")))
            for call in as_list(fields.get("tool_calls")):
                self._receive_call(as_object(call))
            for kind in _PASSED:
                if fields.get(kind):
                    self._composer.data(kind, fields[kind])
        if payload.get("done") is True:
            self._receive_done(payload)

    def _receive_call(self, call: dict[str, Json]) -> None:
        function = as_object(call.get("function"))
        arguments = function.get("arguments")
        if arguments and not isinstance(arguments, str):
            arguments = as_json_text(arguments)
        key = self._composer.call_count
        self._composer.call(
            key,
            id=as_text(call.get("id")),
            name=as_text(function.get("name")),
            arguments=as_text(arguments),
        )
        self._composer.close_call(key)

    def _receive_done(self, payload: dict[str, Json]) -> None:
        read, written = (
            first_count(payload, "prompt_eval_count"),
            first_count(payload, "eval_count"),
        )
        if read is not None or written is not None:
            self._composer.usage(Usage(input_tokens=read or 0, output_tokens=written or 0))
        raw = as_text(payload.get("done_reason"))
        # Old versions say `done` and no reason.
        reason = _REASONS.get(raw, "other") if raw else "stop"
        if reason == "stop" and self._composer.call_count:
            reason = "tool_use"
        self._composer.stop(reason, raw)
        self._is_done = True
