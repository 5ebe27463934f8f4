"""AG-UI, the protocol of agents and the pages that show them: an answer as one run of an agent.

Each event is one JSON object without a name, and the client cuts the stream at LF LF alone; there
is no end mark beside the last event. A run is `RUN_STARTED` to `RUN_FINISHED`, which also brings
the usage, or `RUN_ERROR`; a client refuses a run that finishes while something in it is open. A
text is a message of its own, reasoning a span with one message in it, and a tool call names the
text message before it as its parent.

A cancelled answer finishes with the outcome `cancelled`. The protocol has no word for an answer
that met a limit: it finishes, and `result.stopReason` says `length`, as it says of every answer why
it stopped. What came beside the text is a `CUSTOM` event of its kind.

Sources: the protocol's reference ("Events"), its schema and its client's checks, version 1.0.
"""

from __future__ import annotations

from typing import Final

from penstock.core.record import EndReason
from penstock.llm.events import Data, Failure, Json, Usage
from penstock.llm.write.parts import Ending, Part, PartsWriter
from penstock.llm.write.writer import (
    JSON,
    Body,
    Envelope,
    as_wire_json,
    http_status,
    is_cancelled,
    known,
    sse_data,
    stop_reason,
)

DIALECT: Final = "agui"

_VERSION: Final = "1.0"

# By kind of part: the event of a piece of it, and the field that names the part.
_PIECES: Final = {
    "text": ("TEXT_MESSAGE_CONTENT", "messageId"),
    "reasoning": ("REASONING_MESSAGE_CONTENT", "messageId"),
    "call": ("TOOL_CALL_ARGS", "toolCallId"),
}


class Writer(PartsWriter):
    """Writes one answer in this dialect. See `penstock.llm.write.writer.TokenWriter`.

    `thread_id` and `run_id` are the caller's names of the conversation and of this run of it; ""
    is the envelope's id.
    """

    __slots__ = ("_last_message", "_prefix", "_run")

    def __init__(self, envelope: Envelope, *, thread_id: str = "", run_id: str = "") -> None:
        super().__init__(envelope)
        self._run: dict[str, Json] = {
            "threadId": thread_id or envelope.id,
            "runId": run_id or envelope.id,
        }
        self._last_message = ""
        # The event of a piece, as far as the piece.
        self._prefix = b""

    def _emit(self, type: str, **fields: Json) -> None:
        self._out.append(sse_data({"type": type, **fields}))

    def _write_start(self) -> None:
        self._emit("RUN_STARTED", **self._run, protocolVersion=_VERSION)

    def _open(self, part: Part) -> None:
        id = self._id(part)
        match part.kind:
            case "text":
                self._last_message = id
                self._emit("TEXT_MESSAGE_START", messageId=id, role="assistant")
            case "reasoning":
                self._emit("REASONING_START", messageId=id)
                self._emit("REASONING_MESSAGE_START", messageId=id, role="reasoning")
            case _:
                parent: dict[str, Json] = {}
                if self._last_message:
                    parent = {"parentMessageId": self._last_message}
                self._emit("TOOL_CALL_START", toolCallId=id, toolCallName=part.name, **parent)
        type, name = _PIECES[part.kind]
        front = as_wire_json({"type": type, name: id})[:-1]
        self._prefix = b'data: %b,"delta":' % front

    def _id(self, part: Part) -> str:
        return part.call_id or f"msg_{self._envelope.id}_{part.number}"

    def _write(self, part: Part, piece: str) -> None:
        self._out.append(b"%b%b}\n\n" % (self._prefix, as_wire_json(piece)))

    def _close(self, part: Part, ending: Ending) -> None:
        id = self._id(part)
        match part.kind:
            case "text":
                self._emit("TEXT_MESSAGE_END", messageId=id)
            case "reasoning":
                self._emit("REASONING_MESSAGE_END", messageId=id)
                self._emit("REASONING_END", messageId=id)
            case _:
                # A broken one too: nothing may be open in a run that finishes as cancelled.
                self._emit("TOOL_CALL_END", toolCallId=id)

    def _write_data(self, data: Data) -> None:
        self._emit("CUSTOM", name=data.kind, value=data.value)

    def _finish(self, reason: EndReason) -> None:
        result: Json = {"stopReason": stop_reason(self._stop, reason)}
        self._end_run(result=result, outcome={"type": "success"})

    def _fail(self, error: Failure) -> None:
        if is_cancelled(error):
            self._end_run(outcome={"type": "cancelled"})
        else:
            self._emit("RUN_ERROR", message=error.message, code=error.code, **self._counted())

    def _end_run(self, **fields: Json) -> None:
        self._emit("RUN_FINISHED", **self._run, **fields, **self._counted())

    def _counted(self) -> dict[str, Json]:
        if self._usage is None:
            return {}
        model: dict[str, Json] = {"model": self._model} if self._model else {}
        return {"usage": [{**model, **_usage(self._usage)}]}


def write_error(error: Failure) -> Body:
    """An error as a whole body, which the client shows as it is."""
    data = as_wire_json({"message": error.message, "code": error.code})
    return Body(status=http_status(error), media_type=JSON, data=data)


def _usage(usage: Usage) -> dict[str, Json]:
    return {
        "inputTokens": usage.input_tokens,
        "outputTokens": usage.output_tokens,
        "totalTokens": usage.input_tokens + usage.output_tokens,
        **known(
            {
                "reasoningTokens": usage.reasoning_tokens,
                "cachedInputTokens": usage.cached_tokens,
                "cacheWriteInputTokens": usage.cache_write_tokens,
            }
        ),
    }
