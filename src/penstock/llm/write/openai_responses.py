"""OpenAI Responses: an answer as numbered output items, each added, filled and done.

Every event has its name beside its JSON and in it, and a `sequence_number`, which is this dialect's
place in a stream: a reader that comes back names the last it saw (`starting_after`). The body opens
with `response.created` and `response.in_progress`; its last event repeats the whole response with
its output and usage, so the writer keeps what it wrote. There is no `[DONE]`.

Text is a `message` item of one `output_text`, reasoning a `reasoning` item of one summary (what the
dialect's clients show), a tool call a `function_call` item whose `call_id` is the call's. A whole
answer is `response.completed`; one that met a limit or was filtered is `response.incomplete`, a
refusal too, which the dialect otherwise tells by another kind of text. An answer that went wrong is
`response.failed`, with an error from the dialect's own short list, `type` being our code; cancelled
ones too, since the dialect has the status `cancelled` and no event for it.

Items and annotations in this dialect's own shape go out as they came; citations of others become
`url_citation`. Sources: the provider's reference, and the types of its SDK.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from penstock.core.record import EndReason
from penstock.llm.assemble import well_formed
from penstock.llm.events import (
    MAX_COUNT,
    Data,
    Failure,
    Json,
    StopReason,
    TokenEvent,
    Usage,
    as_object,
)
from penstock.llm.write.openai_errors import write_error
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

DIALECT: Final = "openai-responses"

# Why a response is incomplete; every other reason completes it.
_INCOMPLETE: Final = {
    "length": "max_output_tokens",
    "content_filter": "content_filter",
    "refusal": "content_filter",
}

# The codes of `response.error` that a provider may give for an answer under way.
_CODES: Final = frozenset({"server_error", "rate_limit_exceeded", "invalid_prompt"})

# What a response repeats of its request, and what it says where the request said nothing.
_ECHOED: Final[dict[str, Json]] = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": None,
    "safety_identifier": None,
    "service_tier": None,
    "store": True,
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": None,
    "top_p": None,
    "truncation": "disabled",
    "user": None,
}

_ANNOTATIONS: Final = frozenset(
    {"file_citation", "url_citation", "container_file_citation", "file_path"}
)

# Items of the provider's own, beside those whose type ends in one of `_ITEM_ENDS`.
_ITEMS: Final = frozenset(
    {"mcp_list_tools", "mcp_approval_request", "tool_search_output", "compaction"}
)
_ITEM_ENDS: Final = ("_call", "_call_output")

# By kind of part: what its item's id begins with, and the event of a piece of it.
_PIECES: Final = {
    "text": ("msg", "response.output_text.delta"),
    "reasoning": ("rs", "response.reasoning_summary_text.delta"),
    "call": ("fc", "response.function_call_arguments.delta"),
}


class Writer(PartsWriter):
    """Writes one answer in this dialect. See `penstock.llm.write.writer.TokenWriter`.

    `request` is what the caller asked, of which a response repeats some fields. Events up to the
    sequence number `starting_after` are not sent: the reader has them.
    """

    __slots__ = (
        "_annotations",
        "_echoed",
        "_next",
        "_output",
        "_prefix",
        "_sealed",
        "_starting_after",
        "_status",
        "_verdict",
        "_written",
    )

    def __init__(
        self,
        envelope: Envelope,
        *,
        request: Mapping[str, Json] | None = None,
        starting_after: int = -1,
    ) -> None:
        super().__init__(envelope)
        self._echoed = {
            name: default if request is None or request.get(name) is None else request[name]
            for name, default in _ECHOED.items()
        }
        self._starting_after = starting_after
        self._next = 0  # the next sequence number
        self._output: list[Json] = []
        self._status, self._verdict = "in_progress", dict[str, Json]()
        # Of the part on the wire: its pieces, what was said about a text, what a reasoning item
        # says that must be sent back with the next turn, and the event of a piece as far as it.
        self._written: list[str] = []
        self._annotations: list[Json] = []
        self._sealed: dict[str, Json] = {}
        self._prefix = b""

    @property
    def failure(self) -> Failure | None:
        """What went wrong among the events."""
        return self._failure

    def response(self) -> dict[str, Json]:
        """The response as it stands, with the items that are done."""
        return {
            "id": f"resp_{self._envelope.id}",
            "object": "response",
            "created_at": self._envelope.created_at,
            "status": self._status,
            "error": None,
            "incomplete_details": None,
            "model": self._model,
            "output": [*self._output],
            **self._echoed,
            "usage": None if self._usage is None else _usage(self._usage),
            **self._verdict,
        }

    def _write_start(self) -> None:
        response = {**self.response(), "usage": None}
        for step in ("created", "in_progress"):
            self._emit(f"response.{step}", response=response)

    def _emit(self, type: str, **fields: Json) -> None:
        number, self._next = self._next, self._next + 1
        if number > self._starting_after:
            self._out.append(sse_named(type, {**fields, "sequence_number": number}))

    def _open(self, part: Part) -> None:
        place = self._place(part)
        self._emit("response.output_item.added", output_index=part.number, item=_empty(part, place))
        if part.kind == "text":
            place |= {"content_index": 0}
            self._emit("response.content_part.added", **place, part=_output_text("", []))
            place |= {"logprobs": []}
        elif part.kind == "reasoning":
            place |= {"summary_index": 0}
            self._emit("response.reasoning_summary_part.added", **place, part=_summary(""))
        type = _PIECES[part.kind][1]
        front = as_wire_json({"type": type, **place})[:-1]
        self._prefix = b'event: %b\ndata: %b,"delta":' % (type.encode(), front)

    def _place(self, part: Part) -> dict[str, Json]:
        item_id = f"{_PIECES[part.kind][0]}_{self._envelope.id}_{part.number}"
        return {"item_id": item_id, "output_index": part.number}

    def _write(self, part: Part, piece: str) -> None:
        piece = well_formed(piece)  # so that the whole is the sum of its pieces
        self._written.append(piece)
        number, self._next = self._next, self._next + 1
        if number > self._starting_after:
            event = b'%b%b,"sequence_number":%d}\n\n' % (self._prefix, as_wire_json(piece), number)
            self._out.append(event)

    def _close(self, part: Part, ending: Ending) -> None:
        text, self._written = "".join(self._written), []
        place = self._place(part)
        item = _empty(part, place)
        if part.kind != "reasoning":
            item["status"] = "completed" if ending == "whole" else "incomplete"
        match part.kind:
            case "text":
                self._close_text(place, item, text)
            case "reasoning":
                self._close_reasoning(place, item, text)
            case _:
                item["arguments"] = text
                if ending == "broken":  # who sees a call that is done may run it
                    self._output.append(item)
                    return
                self._emit("response.function_call_arguments.done", **place, arguments=text)
        self._complete(part.number, item)

    def _close_text(self, place: dict[str, Json], item: dict[str, Json], text: str) -> None:
        annotations, self._annotations = self._annotations, []
        part = _output_text(text, annotations)
        place = {**place, "content_index": 0}
        self._emit("response.output_text.done", **place, text=text, logprobs=[])
        self._emit("response.content_part.done", **place, part=part)
        item["content"] = [part]

    def _close_reasoning(self, place: dict[str, Json], item: dict[str, Json], text: str) -> None:
        place = {**place, "summary_index": 0}
        self._emit("response.reasoning_summary_text.done", **place, text=text)
        self._emit("response.reasoning_summary_part.done", **place, part=_summary(text))
        sealed, self._sealed = self._sealed, {}
        item |= sealed
        item["summary"] = [_summary(text)]

    def _complete(self, number: int, item: dict[str, Json]) -> None:
        self._output.append(item)
        self._emit("response.output_item.done", output_index=number, item=item)

    def _write_data(self, data: Data) -> None:
        value = as_object(data.value)
        if data.kind == "reasoning" and value.get("type") == "reasoning":
            self._write_sealed(value)
        elif value.get("type") == data.kind and _is_own_item(data.kind):
            self._end_head()
            number = self._next_number()
            self._emit("response.output_item.added", output_index=number, item=value)
            self._complete(number, value)
        elif _annotations(data):
            self._attach(data)

    def _write_sealed(self, item: dict[str, Json]) -> None:
        """A reasoning item that must be sent back as it was, its id included.

        Its text was written already, maybe filtered; so the words in it are not taken.
        """
        self._sealed = {k: v for k, v in item.items() if k not in ("summary", "content")}
        if self._head is None or self._head.kind != "reasoning":
            self._end_head()
            number, sealed = self._next_number(), {**self._sealed, "summary": []}
            self._sealed = {}
            self._emit("response.output_item.added", output_index=number, item=sealed)
            self._complete(number, sealed)
        self._end_head()

    def _write_citation(self, part: Part, data: Data) -> None:
        for annotation in _annotations(data):
            self._emit(
                "response.output_text.annotation.added",
                **self._place(part),
                content_index=0,
                annotation_index=len(self._annotations),
                annotation=annotation,
            )
            self._annotations.append(annotation)

    def _finish(self, reason: EndReason) -> None:
        self._write_end(*_verdict(stop_reason(self._stop, reason)))

    def _fail(self, error: Failure) -> None:
        status = "cancelled" if is_cancelled(error) else "failed"
        self._write_end(status, {"error": _error(error)})

    def _write_end(self, status: str, fields: dict[str, Json]) -> None:
        self._status, self._verdict = status, fields
        type = "failed" if status == "cancelled" else status
        self._emit(f"response.{type}", response=self.response())


def write_whole(
    envelope: Envelope,
    events: Iterable[TokenEvent],
    reason: EndReason,
    *,
    request: Mapping[str, Json] | None = None,
) -> Body:
    """The answer as one response, or the error that it ended with; cancelled, it is a response."""
    writer = _write(envelope, events, reason, request)
    error = failure_of(reason, writer.failure)
    if error is not None and not is_cancelled(error):
        return write_error(error)
    return Body(status=200, media_type=JSON, data=as_wire_json(writer.response()))


def write_response(
    envelope: Envelope,
    events: Iterable[TokenEvent],
    reason: EndReason | None,
    *,
    request: Mapping[str, Json] | None = None,
) -> Body:
    """The response for one who asks how it stands: `reason` is None while it is written."""
    writer = _write(envelope, events, reason, request)
    return Body(status=200, media_type=JSON, data=as_wire_json(writer.response()))


def _write(
    envelope: Envelope,
    events: Iterable[TokenEvent],
    reason: EndReason | None,
    request: Mapping[str, Json] | None,
) -> Writer:
    writer = Writer(envelope, request=request, starting_after=MAX_COUNT)
    for event in events:
        writer.receive_event(event)
    if reason is not None:
        writer.end(reason)
    return writer


def _verdict(meaning: StopReason) -> tuple[str, dict[str, Json]]:
    """The status of a response that ended well, and what it says of that."""
    why = _INCOMPLETE.get(meaning)
    return ("incomplete", {"incomplete_details": {"reason": why}}) if why else ("completed", {})


def _empty(part: Part, place: dict[str, Json]) -> dict[str, Json]:
    """The item of a part with nothing in it."""
    item: dict[str, Json] = {"id": place["item_id"]}
    match part.kind:
        case "reasoning":
            return {**item, "type": "reasoning", "summary": []}
        case "call":
            item |= {"type": "function_call", "call_id": part.call_id, "name": part.name}
            return {**item, "status": "in_progress", "arguments": ""}
        case _:
            item |= {"type": "message", "role": "assistant"}
            return {**item, "status": "in_progress", "content": []}


def _output_text(text: str, annotations: list[Json]) -> dict[str, Json]:
    return {"type": "output_text", "text": text, "annotations": annotations, "logprobs": []}


def _summary(text: str) -> dict[str, Json]:
    return {"type": "summary_text", "text": text}


def _annotations(data: Data) -> list[Json]:
    if data.kind == "citation" and as_object(data.value).get("type") in _ANNOTATIONS:
        return [data.value]
    return [
        {
            "type": "url_citation",
            "url": source.url,
            "title": source.title,
            "start_index": source.start,
            "end_index": source.end,
        }
        for source in find_sources(data)
    ]


def _is_own_item(kind: str) -> bool:
    return kind in _ITEMS or kind.endswith(_ITEM_ENDS)


def _error(error: Failure) -> Json:
    code = "rate_limit_exceeded" if http_status(error) == 429 else "server_error"
    code = error.code if error.code in _CODES else code
    return {"code": code, "message": error.message, "type": error.code}


def _usage(usage: Usage) -> Json:
    # The dialect cannot leave a count out: 0 is what nobody counted.
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens or 0,
            "cache_write_tokens": usage.cache_write_tokens or 0,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens or 0},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
