"""OpenAI Chat Completions: an answer as chunks of one choice, and `[DONE]`.

The body opens with a chunk that names the role. Text is `delta.content`, reasoning
`delta.reasoning_content` (the dialect itself has none; DeepSeek, vLLM and most clients call it so),
a tool call is `delta.tool_calls` by its index: id and name once, arguments in pieces. A chunk with
the `finish_reason` follows the model's stop, then, if the caller asked, one without choices that
has the usage, which may come after the stop; so both the usage and `[DONE]` wait for the end.

An answer that went wrong ends with `data: {"error": …}`, for which SDKs raise; what it cost comes
before, since they read no further, and `[DONE]` after, for those who do. An answer that met a limit
finishes with `length`. The dialect has no finish reason for a refusal: it is `content_filter`.

What came beside the text in this dialect's own shape goes out as it came; citations of others
become `annotations`. Sources: the provider's reference, and the types of its SDK.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from penstock.core.record import EndReason
from penstock.llm.assemble import Answer, Assembler
from penstock.llm.events import (
    Data,
    Failure,
    Json,
    Reasoning,
    Stop,
    StopReason,
    Text,
    TokenEvent,
    ToolCall,
    ToolCallDelta,
    Usage,
    as_list,
    as_object,
)
from penstock.llm.write.openai_errors import error_object, write_error
from penstock.llm.write.sources import find_sources
from penstock.llm.write.writer import (
    JSON,
    Body,
    DialectWriter,
    Envelope,
    as_wire_json,
    call_id,
    failure_of,
    known,
    sse_data,
    stop_reason,
)

DIALECT: Final = "openai-chat"

_REASONS: Final[dict[StopReason, str]] = {
    "stop": "stop",
    "length": "length",
    "tool_use": "tool_calls",
    "content_filter": "content_filter",
    "refusal": "content_filter",
    "other": "stop",
}

# Fields of a delta, and of a chunk, that providers of this dialect have under these names.
_OF_DELTA: Final = frozenset(
    {"images", "audio", "executed_tools", "context", "graph_data", "web_search_data"}
)
_OF_CHUNK: Final = frozenset({"citations", "search_results"})

_CHUNK_END: Final = b'},"logprobs":null,"finish_reason":null}]}\n\n'
_DONE: Final = b"data: [DONE]\n\n"


@dataclass(slots=True)
class _Call:
    """A call that was begun: how many characters of arguments were written, and if they say any."""

    length: int = 0
    has_any: bool = False


class Writer(DialectWriter):
    """Writes one answer in this dialect. See `penstock.llm.write.writer.TokenWriter`.

    `include_usage` is what the caller asked for under `stream_options`.
    """

    __slots__ = ("_calls", "_head", "_include_usage", "_listed", "_reasoning", "_text")

    def __init__(self, envelope: Envelope, *, include_usage: bool = True) -> None:
        super().__init__(envelope)
        self._include_usage = include_usage
        self._calls: dict[int, _Call] = {}
        # By field of a delta that is a list, how many were in it.
        self._listed: dict[str, int] = {}
        self._head: dict[str, Json] = {}
        # A chunk as far as the piece of text, or of reasoning, that it brings: almost every event
        # there is. The rest of it is `_CHUNK_END`. By way of a dictionary each costs 5 µs, so 1.
        self._text = self._reasoning = b""

    def _write_start(self) -> None:
        self._head = {
            "id": f"chatcmpl-{self._envelope.id}",
            "object": "chat.completion.chunk",
            "created": self._envelope.created_at,
            "model": self._model,
        }
        begin = b'data: %b,"choices":[{"index":0,"delta":{' % as_wire_json(self._head)[:-1]
        self._text, self._reasoning = begin + b'"content":', begin + b'"reasoning_content":'
        self._write({"role": "assistant", "content": ""})

    def _write(self, delta: dict[str, Json], finish: str | None = None) -> None:
        self._write_chunk(choices=[_piece(delta, finish)])

    def _write_chunk(self, **fields: Json) -> None:
        self._out.append(sse_data({**self._head, **fields}))

    def write_text(self, piece: bytes) -> bytes | None:
        is_open = self._text and self._stop is self._failure is None and not self._has_ended
        if not is_open or self._out:
            return None
        return b"%b%b%b" % (self._text, piece, _CHUNK_END)

    def _receive_piece(self, piece: Text | Reasoning | ToolCallDelta | ToolCall) -> None:
        match piece:
            case Text(text=text):
                self._out.append(b"%b%b%b" % (self._text, as_wire_json(text), _CHUNK_END))
            case Reasoning(text=text):
                self._out.append(b"%b%b%b" % (self._reasoning, as_wire_json(text), _CHUNK_END))
            case ToolCallDelta():
                self._write_call(piece.index, piece.id, piece.name, piece.arguments)
            case ToolCall():
                self._complete_call(piece)

    def _complete_call(self, whole: ToolCall) -> None:
        """What of a call its deltas did not say: nothing, unless somebody held them back."""
        known = self._calls.get(whole.index)
        # White space is no arguments: then the whole says "{}".
        rest = whole.arguments[known.length :] if known and known.has_any else whole.arguments
        if known is None or rest:
            self._write_call(whole.index, whole.id, "" if known else whole.name, rest)

    def _write_call(self, index: int, id: str, name: str, arguments: str) -> None:
        call: dict[str, Json] = {"index": index}
        function: dict[str, Json] = {"name": name} if name else {}
        known = self._calls.get(index)
        if known is None:
            known = self._calls[index] = _Call()
            call |= {"id": call_id(self._envelope, index, id), "type": "function"}
            function = {"name": name}
        known.length += len(arguments)
        known.has_any = known.has_any or bool(arguments.strip())
        self._write({"tool_calls": [{**call, "function": {**function, "arguments": arguments}}]})

    def _receive_data(self, data: Data) -> None:
        if data.kind in _OF_CHUNK:
            # With a choice that says nothing: many programs take the first of each chunk unseen.
            self._write_chunk(choices=[_piece({})], **{data.kind: data.value})
        elif data.kind == "choice":  # a second answer to the same prompt
            self._write_chunk(choices=[data.value])
        elif fields := _fields_of(data):
            self._write({field: self._numbered(field, fields[field]) for field in fields})

    def _numbered(self, field: str, value: Json) -> Json:
        """A list with the place of each of its objects in the whole, as in `tool_calls`.

        The SDKs put the lists of deltas together by it, and raise where a second one has none.
        """
        if not isinstance(value, list):
            return value
        first = self._listed.get(field, 0)
        self._listed[field] = first + len(value)
        return [
            {"index": first + place, **item} if isinstance(item, dict) else item
            for place, item in enumerate(value)
        ]

    def _receive_stop(self, stop: Stop) -> None:
        self._write({}, _REASONS[stop.reason])

    def _write_usage(self) -> None:
        if self._include_usage and self._usage is not None:
            self._write_chunk(choices=[], usage=_usage(self._usage))

    def _end_well(self, reason: EndReason) -> None:
        if self._stop is None:
            self._write({}, _REASONS[stop_reason(None, reason)])
        self._write_usage()
        self._out.append(_DONE)

    def _end_badly(self, error: Failure) -> None:
        self._write_usage()
        self._out.append(sse_data({"error": error_object(error)}))
        self._out.append(_DONE)


def write_whole(envelope: Envelope, events: Iterable[TokenEvent], reason: EndReason) -> Body:
    """The answer as one `chat.completion`, or the error that it ended with."""
    assembler = Assembler()
    for event in events:
        assembler.receive_event(event)
    answer = assembler.answer()
    error = failure_of(reason, answer.failure)
    if error is not None:
        return write_error(error)
    body: dict[str, Json] = {
        "id": f"chatcmpl-{envelope.id}",
        "object": "chat.completion",
        "created": envelope.created_at,
        "model": envelope.model or answer.model,
        "choices": [_choice(envelope, answer, reason)],
        **{data.kind: data.value for data in answer.data if data.kind in _OF_CHUNK},
    }
    if answer.usage is not None:
        body["usage"] = _usage(answer.usage)
    return Body(status=200, media_type=JSON, data=as_wire_json(body))


def _piece(delta: dict[str, Json], finish: str | None = None) -> Json:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}


def _choice(envelope: Envelope, answer: Answer, reason: EndReason) -> Json:
    calls: list[Json] = [
        {
            "id": call_id(envelope, call.index, call.id),
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for call in answer.tool_calls
    ]
    message: dict[str, Json] = {
        "role": "assistant",
        "content": answer.text if answer.text or not calls else None,
        "refusal": None,
    }
    if answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    if calls:
        message["tool_calls"] = calls
    for data in answer.data:
        for field, value in _fields_of(data).items():
            before = message.get(field)
            message[field] = [*before, *as_list(value)] if isinstance(before, list) else value
    finish = _REASONS[stop_reason(answer.stop, reason)]
    return {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}


def _fields_of(data: Data) -> dict[str, Json]:
    """What a delta, or a message, says of something beside the text; nothing without a place."""
    if data.kind in _OF_DELTA:
        return {data.kind: data.value}
    if data.kind == "annotations":
        return {"annotations": data.value}
    if data.kind == "reasoning_details":
        return {"reasoning_details": [_without_text(detail) for detail in as_list(data.value)]}
    citations: list[Json] = [
        {
            "type": "url_citation",
            "url_citation": {
                "url": source.url,
                "title": source.title,
                "start_index": source.start,
                "end_index": source.end,
            },
        }
        for source in find_sources(data)
    ]
    return {"annotations": citations} if citations else {}


def _without_text(detail: Json) -> Json:
    """A detail of reasoning without what it repeats of the reasoning, which was written before."""
    fields = as_object(detail)
    return {**fields, **dict.fromkeys(fields.keys() & {"text", "summary"}, "")}


def _usage(usage: Usage) -> Json:
    counts: dict[str, Json] = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
    read = {"cached_tokens": usage.cached_tokens, "cache_write_tokens": usage.cache_write_tokens}
    if details := known(read):
        counts["prompt_tokens_details"] = details
    if details := known({"reasoning_tokens": usage.reasoning_tokens}):
        counts["completion_tokens_details"] = details
    return counts
