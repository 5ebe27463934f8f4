"""Cohere's chat, version 2: an answer as content blocks, tool calls and citations by index.

A body is SSE whose `event:` repeats the `type` inside the JSON; the `type` is believed. The answer
is whole when `message-end` was read, with the reason and the counts; `[DONE]` follows it and means
nothing more, and the end of the body before `message-end` is `upstream-truncated`. An error under
way is a `message-end` whose reason is an error, or which carries one.

Text is `Text`. What the model plans before it calls tools (`tool-plan-delta`) and its thinking are
`Reasoning`. A call is opened with id and name and written in pieces. A citation comes between the
texts and is `Data` of kind "citation".

Two counts are given: the tokens the model read and wrote, and those that are billed, which leave
out the provider's own preamble. `Usage` has the first, since the cached ones are part of them; the
second is passed through as `Data` of kind "billed_units" where it says something else.

Version 1 (JSON lines with `event_type`) is not read.

Sources: the provider's reference ("Chat with streaming") and recorded streams.
"""

from __future__ import annotations

from typing import Final

from penstock.llm.events import (
    Json,
    StopReason,
    Usage,
    as_count,
    as_object,
    as_text,
)
from penstock.llm.reader import SseReader, first_count, read_error

DIALECT: Final = "cohere"

_REASONS: Final[dict[str, StopReason]] = {
    "COMPLETE": "stop",
    "STOP_SEQUENCE": "stop",
    "MAX_TOKENS": "length",
    "TOOL_CALL": "tool_use",
    "ERROR_TOXIC": "content_filter",
}

_BREAKDOWNS: Final = frozenset({"ERROR", "ERROR_LIMIT", "TIMEOUT", "USER_CANCEL"})


class Reader(SseReader):
    """Reads one answer in this dialect. See `penstock.llm.events.TokenReader` for the contract."""

    __slots__ = ()

    dialect = DIALECT

    def _receive_payload(self, type: str, payload: dict[str, Json]) -> None:
        delta = as_object(payload.get("delta"))
        message = as_object(delta.get("message"))
        match type:
            case "content-delta" | "content-start":
                content = as_object(message.get("content"))
                self._composer.reasoning(as_text(content.get("thinking")))
                self._composer.text(as_text(content.get("text")))
            case "tool-plan-delta":
                self._composer.reasoning(as_text(message.get("tool_plan")))
            case "tool-call-start" | "tool-call-delta":
                index = as_count(payload.get("index")) or 0
                self._receive_call(index, as_object(message.get("tool_calls")))
            case "tool-call-end":
                self._composer.close_call(as_count(payload.get("index")) or 0)
            case "citation-start":
                if message.get("citations"):
                    self._composer.data("citation", message["citations"])
            case "message-start":
                role = as_text(message.get("role"))
                self._composer.start(id=as_text(payload.get("id")), role=role)
            case "message-end":
                self._receive_message_end(delta)
            case _:
                pass

    def _receive_call(self, index: int, call: dict[str, Json]) -> None:
        function = as_object(call.get("function"))
        self._composer.call(
            index,
            id=as_text(call.get("id")),
            name=as_text(function.get("name")),
            arguments=as_text(function.get("arguments")),
        )

    def _receive_message_end(self, delta: dict[str, Json]) -> None:
        raw = as_text(delta.get("finish_reason"))
        # The count first, so that a reader who stops at the stop has the whole price.
        self._receive_usage(as_object(delta.get("usage")))
        if delta.get("error"):
            message, _, status = read_error(delta["error"])
            self._composer.fail(message, raw or "ERROR", status)
        elif raw in _BREAKDOWNS:
            self._composer.fail(f"the provider gave the finish reason {raw!r}", raw)
        elif not self._composer.has_started:
            self._composer.truncate(DIALECT)
        else:
            self._composer.stop(_REASONS.get(raw, "other"), raw)
            self._is_done = True

    def _receive_usage(self, usage: dict[str, Json]) -> None:
        billed = as_object(usage.get("billed_units"))
        counted = as_object(usage.get("tokens")) or billed
        if not counted:
            return
        names = ("input_tokens", "output_tokens")
        if any(first_count(billed, name) != first_count(counted, name) for name in names):
            self._composer.data("billed_units", billed)
        self._composer.usage(
            Usage(
                input_tokens=first_count(counted, "input_tokens") or 0,
                output_tokens=first_count(counted, "output_tokens") or 0,
                cached_tokens=first_count(usage, "cached_tokens"),
            )
        )
