"""Anthropic Messages: an answer as numbered content blocks, each opened, filled and closed.

Every event has its name beside its JSON, without which this dialect's SDK drops it. The body opens
with `message_start`, which waits for the event after the start: some providers say then what the
prompt cost, and many clients look for it there and nowhere else. The stop reason and the usage,
which may come after the stop, stand together in `message_delta`; so that waits for the end, and
`message_stop` follows it.

Text, reasoning and tool calls are `text`, `thinking` and `tool_use` blocks, one open at a time. An
answer that went wrong ends with `event: error`, for which SDKs raise; what it cost is said before.
An answer that met a limit stops with `max_tokens`. The provider's own word for a stop is kept where
it is this dialect's too. What came beside the text in this dialect's shape (citations, signatures,
blocks of the provider's own tools) goes out as it came; citations of others become
`web_search_result_location`.

Sources: the provider's reference ("Streaming messages", "Errors"), and the types of its SDK.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from penstock.core.record import EndReason
from penstock.llm.events import (
    Data,
    Failure,
    Json,
    Stop,
    StopReason,
    TokenEvent,
    Usage,
    as_list,
    as_object,
    as_text,
    parse_object,
)
from penstock.llm.write.parts import Ending, Part, PartsWriter
from penstock.llm.write.sources import find_sources
from penstock.llm.write.writer import (
    JSON,
    Body,
    Envelope,
    as_wire_json,
    failure_of,
    http_status,
    is_cancelled,
    sse_named,
    stop_reason,
)

DIALECT: Final = "anthropic-messages"

_WORDS: Final[dict[StopReason, str]] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_use": "tool_use",
    "content_filter": "refusal",
    "refusal": "refusal",
    "other": "end_turn",
}

# This dialect's words that say more than those, and what each means.
_OWN_WORDS: Final[dict[str, StopReason]] = {
    "stop_sequence": "stop",
    "model_context_window_exceeded": "length",
    "pause_turn": "other",
}

_ERRORS: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_ERROR_NAMES: Final = frozenset(_ERRORS.values())

# What is open first, where each kind's pieces go, and the delta's type.
_BLOCKS: Final[dict[str, tuple[dict[str, Json], str, str]]] = {
    "text": ({"type": "text", "text": ""}, "text_delta", "text"),
    "reasoning": (
        {"type": "thinking", "thinking": "", "signature": ""},
        "thinking_delta",
        "thinking",
    ),
    "call": ({"type": "tool_use"}, "input_json_delta", "partial_json"),
}

# Blocks of the provider's own, beside those whose type ends in `_tool_result`.
_OWN_BLOCKS: Final = frozenset(
    {"server_tool_use", "mcp_tool_use", "redacted_thinking", "container_upload"}
)
_LOCATIONS: Final = frozenset(
    {
        *("char_location", "page_location", "content_block_location"),
        *("web_search_result_location", "search_result_location"),
    }
)


class Writer(PartsWriter):
    """Writes one answer in this dialect. See `penstock.llm.write.writer.TokenWriter`."""

    __slots__ = ("_is_begun", "_prefix")

    def __init__(self, envelope: Envelope) -> None:
        super().__init__(envelope)
        self._is_begun = False
        # The event of a piece, as far as the piece.
        self._prefix = b""

    def _write_start(self) -> None:
        pass  # waits: see above

    def _receive_usage(self) -> None:
        if self._has_started and not self._is_begun:
            self._begin()

    def _begin(self) -> None:
        self._is_begun = True
        # Nothing counted is 0: this dialect cannot leave the count out.
        usage = _usage(self._usage or Usage(input_tokens=0, output_tokens=0))
        self._emit("message_start", message=_message(self._envelope, self._model, usage))

    def _emit(self, type: str, **fields: Json) -> None:
        if not self._is_begun:
            self._begin()
        self._out.append(sse_named(type, fields))

    def _open(self, part: Part) -> None:
        block, delta, field = _BLOCKS[part.kind]
        if part.kind == "call":
            block = {**block, "id": part.call_id, "name": part.name, "input": {}}
        self._emit("content_block_start", index=part.number, content_block=block)
        self._prefix = (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
            b'"delta":{"type":"%b","%b":' % (part.number, delta.encode(), field.encode())
        )

    def _write(self, part: Part, piece: str) -> None:
        self._out.append(b"%b%b}}\n\n" % (self._prefix, as_wire_json(piece)))

    def _close(self, part: Part, ending: Ending) -> None:
        # A call that broke off stays open: who sees a closed one may run it.
        if part.kind != "call" or ending != "broken":
            self._emit("content_block_stop", index=part.number)

    def _write_data(self, data: Data) -> None:
        value = as_object(data.value)
        match data.kind:
            case "signature":
                self._write_signature(data.value)
            case "compaction":
                delta: Json = {"type": "compaction_delta", "content": data.value}
                self._write_block({"type": "compaction", "content": None}, delta)
            case kind if value.get("type") == kind and _is_own_block(kind):
                self._write_block(value)
            case _ if _citations(data):
                self._attach(data)
            case _:
                pass

    def _write_block(self, block: dict[str, Json], delta: Json = None) -> None:
        """A block of its own, between the parts."""
        self._end_head()
        index = self._next_number()
        self._emit("content_block_start", index=index, content_block=block)
        if delta is not None:
            self._emit("content_block_delta", index=index, delta=delta)
        self._emit("content_block_stop", index=index)

    def _write_signature(self, signature: Json) -> None:
        """The signature of the thinking before it, which it ends; or of thinking left unsaid."""
        delta: Json = {"type": "signature_delta", "signature": as_text(signature)}
        head = self._head
        if head is not None and head.kind == "reasoning":
            self._emit("content_block_delta", index=head.number, delta=delta)
            self._end_head()
        else:
            self._write_block(_BLOCKS["reasoning"][0], delta)

    def _write_citation(self, part: Part, data: Data) -> None:
        for citation in _citations(data):
            delta: Json = {"type": "citations_delta", "citation": citation}
            self._emit("content_block_delta", index=part.number, delta=delta)

    def _finish(self, reason: EndReason) -> None:
        self._write_message_delta(_word(self._stop, reason))
        self._emit("message_stop")

    def _fail(self, error: Failure) -> None:
        if self._usage is not None:
            self._write_message_delta(None)
        self._emit("error", error=_error(error))

    def _write_message_delta(self, word: str | None) -> None:
        delta: Json = {"stop_reason": word, "stop_sequence": None}
        counted: Json = {"output_tokens": 0} if self._usage is None else _usage(self._usage)
        self._emit("message_delta", delta=delta, usage=counted)


def write_whole(envelope: Envelope, events: Iterable[TokenEvent], reason: EndReason) -> Body:
    """The answer as one message, or the error that it ended with."""
    gatherer = _Gatherer(envelope)
    for event in events:
        gatherer.receive_event(event)
    gatherer.end(reason)
    return gatherer.body(reason)


def write_error(error: Failure) -> Body:
    """An error as a whole body."""
    data = as_wire_json({"type": "error", "error": _error(error), "request_id": None})
    return Body(status=http_status(error), media_type=JSON, data=data)


class _Gatherer(Writer):
    """Puts an answer's blocks together to one message, instead of sending them."""

    __slots__ = ("_blocks", "_written")

    def __init__(self, envelope: Envelope) -> None:
        super().__init__(envelope)
        self._blocks: list[dict[str, Json]] = []
        self._written: list[str] = []

    def body(self, reason: EndReason) -> Body:
        error = failure_of(reason, self._failure)
        if error is not None:
            return write_error(error)
        usage = _usage(self._usage or Usage(input_tokens=0, output_tokens=0))
        message = _message(self._envelope, self._model, usage)
        message |= {"content": [*self._blocks], "stop_reason": _word(self._stop, reason)}
        return Body(status=200, media_type=JSON, data=as_wire_json(message))

    def _emit(self, type: str, **fields: Json) -> None:
        match type:
            case "content_block_start":
                self._blocks.append(dict(as_object(fields["content_block"])))
            case "content_block_delta":
                self._add_delta(self._blocks[-1], as_object(fields["delta"]))
            case "content_block_stop":
                self._complete(self._blocks[-1])
            case _:
                pass

    def _write(self, part: Part, piece: str) -> None:
        self._written.append(piece)

    def _add_delta(self, block: dict[str, Json], delta: dict[str, Json]) -> None:
        if "citation" in delta:
            block["citations"] = [*as_list(block.get("citations")), delta["citation"]]
        else:
            block |= {name: value for name, value in delta.items() if name != "type"}

    def _complete(self, block: dict[str, Json]) -> None:
        text = "".join(self._written)
        self._written.clear()
        match block["type"]:
            case "text":
                block["text"] = text
            case "thinking":
                block["thinking"] = text
            case "tool_use":
                # An input must be an object; the provider's guide to broken ones wraps them so.
                parsed = parse_object(text or "{}")
                block["input"] = {"INVALID_JSON": text} if parsed is None else parsed
            case _:
                pass


def _message(envelope: Envelope, model: str, usage: Json) -> dict[str, Json]:
    return {
        "id": f"msg_{envelope.id}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }


def _word(stop: Stop | None, reason: EndReason) -> str:
    meaning = stop_reason(stop, reason)
    if stop is not None and _OWN_WORDS.get(stop.raw) == meaning:
        return stop.raw
    return _WORDS[meaning]


def _usage(usage: Usage) -> dict[str, Json]:
    """Counts in this dialect, which counts what a cache gave or took beside the input."""
    cached, cache_write = usage.cached_tokens, usage.cache_write_tokens
    counts: dict[str, Json] = {
        "input_tokens": max(0, usage.input_tokens - (cached or 0) - (cache_write or 0)),
        "cache_creation_input_tokens": cache_write,
        "cache_read_input_tokens": cached,
        "output_tokens": usage.output_tokens,
    }
    if usage.reasoning_tokens is not None:
        counts["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    return counts


def _error(error: Failure) -> Json:
    name = error.code if error.code in _ERROR_NAMES else _ERRORS.get(http_status(error))
    if name is None:
        is_callers = http_status(error) < 500 and not is_cancelled(error)
        name = "invalid_request_error" if is_callers else "api_error"
    return {"type": name, "message": error.message}


def _citations(data: Data) -> list[Json]:
    if as_object(data.value).get("type") in _LOCATIONS:
        return [data.value]
    return [
        {
            "type": "web_search_result_location",
            "url": source.url,
            "title": source.title,
            "cited_text": "",
            "encrypted_index": "",
        }
        for source in find_sources(data)
    ]


def _is_own_block(kind: str) -> bool:
    return kind in _OWN_BLOCKS or kind.endswith("_tool_result")
