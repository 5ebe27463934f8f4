"""Vercel AI SDK's UI message stream, version 1: an answer as the parts of a message in a page.

Each event is one chunk as JSON without a name; `[DONE]` ends the body, which needs a header of its
own (`HEADERS`). A message is one step, `start` to `finish`; texts, reasoning and tool calls have a
start, deltas and an end, and a tool call ends with its input parsed, or with an error where that is
no JSON. The SDK throws for a type it does not know, so only those of its version 5 are written.

An answer that went wrong ends with `error`, a cancelled one with `abort`, which keeps what came. An
answer that met a limit finishes with `length`. The stream has no place for usage but the message's
metadata, where it stands as `usage` under the SDK's own names. Citations are `source-url`;
everything else beside the text is a data part, `data-` and its kind.

Sources: the SDK's reference ("Stream Protocols") and its schema, versions 5 to 7.
"""

from __future__ import annotations

from typing import Final

from penstock.core.record import EndReason
from penstock.llm.assemble import is_json
from penstock.llm.events import Data, Failure, Json, StopReason, Usage, parse_object
from penstock.llm.write.parts import Ending, Part, PartsWriter
from penstock.llm.write.sources import find_sources
from penstock.llm.write.writer import (
    Body,
    Envelope,
    as_wire_json,
    http_status,
    is_cancelled,
    known,
    sse_data,
    stop_reason,
)

DIALECT: Final = "vercel"

HEADERS: Final = (("x-vercel-ai-ui-message-stream", "v1"),)

_REASONS: Final[dict[StopReason, str]] = {
    "stop": "stop",
    "length": "length",
    "tool_use": "tool-calls",
    "content_filter": "content-filter",
    "refusal": "content-filter",
    "other": "other",
}

_DONE: Final = b"data: [DONE]\n\n"
_UNUSABLE: Final = "the model's input for this tool is not a JSON value"
_CUT: Final = "the answer met its limit before the input for this tool was whole"


class Writer(PartsWriter):
    """Writes one answer in this dialect. See `penstock.llm.write.writer.TokenWriter`.

    `message_id` is the id of the message in the page, made from the envelope where it is "".
    """

    __slots__ = ("_message_id", "_prefix", "_sources")

    def __init__(self, envelope: Envelope, *, message_id: str = "") -> None:
        super().__init__(envelope)
        self._message_id = message_id or f"msg_{envelope.id}"
        self._sources = 0
        # The event of a piece, as far as the piece.
        self._prefix = b""

    def _emit(self, type: str, **fields: Json) -> None:
        self._out.append(sse_data({"type": type, **fields}))

    def _write_start(self) -> None:
        self._emit("start", messageId=self._message_id)
        self._emit("start-step")

    def _open(self, part: Part) -> None:
        if part.kind == "call":
            self._emit("tool-input-start", toolCallId=part.call_id, toolName=part.name)
            front: dict[str, Json] = {"type": "tool-input-delta", "toolCallId": part.call_id}
            self._prefix = b'data: %b,"inputTextDelta":' % as_wire_json(front)[:-1]
        else:
            id = _id(part)
            self._emit(f"{part.kind}-start", id=id)
            front = {"type": f"{part.kind}-delta", "id": id}
            self._prefix = b'data: %b,"delta":' % as_wire_json(front)[:-1]

    def _write(self, part: Part, piece: str) -> None:
        self._out.append(b"%b%b}\n\n" % (self._prefix, as_wire_json(piece)))

    def _close(self, part: Part, ending: Ending) -> None:
        if part.kind != "call":
            self._emit(f"{part.kind}-end", id=_id(part))
        elif ending != "broken":  # else its input never becomes available
            self._close_call(part, ending)

    def _close_call(self, part: Part, ending: Ending) -> None:
        text = part.text
        call: dict[str, Json] = {"toolCallId": part.call_id, "toolName": part.name}
        if is_json(text):
            self._emit("tool-input-available", **call, input=_parsed(text))
        else:
            said = _CUT if ending == "cut" else _UNUSABLE
            self._emit("tool-input-error", **call, input=text, errorText=said)

    def _write_data(self, data: Data) -> None:
        sources = find_sources(data)
        for source in sources:
            title: dict[str, Json] = {"title": source.title} if source.title else {}
            source_id = f"src_{self._envelope.id}_{self._sources}"
            self._sources += 1
            self._emit("source-url", sourceId=source_id, url=source.url, **title)
        if not sources:
            self._emit(f"data-{data.kind}", data=data.value)

    def _finish(self, reason: EndReason) -> None:
        self._emit("finish-step")
        finish = _REASONS[stop_reason(self._stop, reason)]
        self._emit("finish", finishReason=finish, **self._metadata())
        self._out.append(_DONE)

    def _fail(self, error: Failure) -> None:
        if metadata := self._metadata():
            self._emit("message-metadata", **metadata)
        if is_cancelled(error):
            self._emit("abort")
        else:
            self._emit("error", errorText=error.message)
        self._out.append(_DONE)

    def _metadata(self) -> dict[str, Json]:
        return {} if self._usage is None else {"messageMetadata": {"usage": _usage(self._usage)}}


def write_error(error: Failure) -> Body:
    """An error as a whole body: the SDK shows the text of one as it is."""
    data = error.message.encode("utf-8", "replace")
    return Body(status=http_status(error), media_type="text/plain; charset=utf-8", data=data)


def _id(part: Part) -> str:
    return f"{part.kind}_{part.number}"


def _parsed(text: str) -> Json:
    # What is JSON and no object is wrapped, to be parsed as one.
    whole = parse_object(text)
    return (parse_object(f'{{"value":{text}}}') or {}).get("value") if whole is None else whole


def _usage(usage: Usage) -> Json:
    return {
        "inputTokens": usage.input_tokens,
        "outputTokens": usage.output_tokens,
        "totalTokens": usage.input_tokens + usage.output_tokens,
        **known(
            {
                "reasoningTokens": usage.reasoning_tokens,
                "cachedInputTokens": usage.cached_tokens,
            }
        ),
    }
