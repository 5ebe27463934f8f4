"""AWS Bedrock: `converse-stream` and `invoke-with-response-stream`, as binary event streams.

A body is messages of AWS's framing (`eventstream.py`). A message of type "exception" or "error" is
a `Failure`, whatever came before it; the others are events.

Converse gives one shape for every model: `messageStart`, content blocks by `contentBlockIndex`
(`contentBlockStart`, `-Delta`, `-Stop`), `messageStop` with the reason, and after it `metadata`
with the counts, which ends the answer. The model has stopped at `messageStop`: a body that ends
there is whole and lacks its price, and one that ends before it is `upstream-truncated`. Text and
`reasoningContent.text` are `Text` and `Reasoning`, `toolUse` is a tool call; signatures, redacted
reasoning, citations, images, server tools with their results and a guardrail's `trace` are passed
through under their names. Neither an id nor a model is named.

Invoke wraps a model's own stream: each `chunk` holds base64 of one JSON object. Which dialect that
is shows in the object. Amazon's Nova speaks Converse's events as fields; Titan, Llama and the older
models of Mistral and Cohere give plain text and are read in `bedrock_text.py`. Whoever makes the
reader hands over readers for the rest (`natives`), so that no dialect knows another. The last chunk
carries `amazon-bedrock-invocationMetrics`, whose counts serve where the model gives none.

Input tokens are counted without those read from or written to the cache; here they are part.

Sources: the provider's API reference (ConverseStream, InvokeModelWithResponseStream, TokenUsage)
and recorded streams of both.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Final

from penstock.llm.assemble import HELD_OVERHEAD_BYTES, Composer
from penstock.llm.bedrock_text import TextReader
from penstock.llm.events import (
    MALFORMED,
    Json,
    StopReason,
    Usage,
    as_count,
    as_json_text,
    as_list,
    as_object,
    as_text,
    parse_object,
)
from penstock.llm.eventstream import Decoder, Message
from penstock.llm.reader import DialectReader, first_count, read_error

DIALECT: Final = "bedrock"

Natives = Mapping[str, Callable[[Composer], DialectReader]]
"""Readers of the dialects that models speak inside `chunk`: "messages" is Anthropic's, "choices"
that of chat completions, "completions" the same with text in the choice."""

_REASONS: Final[dict[str, StopReason]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_use",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}

# Reasons which say that what the model wrote could not be used, so that the answer lacks it.
_BREAKDOWNS: Final = frozenset({"malformed_model_output", "malformed_tool_use"})

# The status each exception has outside of a stream, from the API reference.
_STATUSES: Final = {
    "validationException": 400,
    "accessDeniedException": 403,
    "resourceNotFoundException": 404,
    "modelTimeoutException": 408,
    "modelErrorException": 424,
    "modelStreamErrorException": 424,
    "throttlingException": 429,
    "modelNotReadyException": 429,
    "internalServerException": 500,
    "serviceUnavailableException": 503,
}

# Converse's events, which Nova's own dialect has as the fields of a chunk.
_CONVERSE: Final = frozenset(
    {
        *("messageStart", "contentBlockStart", "contentBlockDelta", "contentBlockStop"),
        *("messageStop", "metadata"),
    }
)

# What may stand in a delta beside text, reasoning and tool input, and is passed through.
_PASSED: Final = ("citation", "image", "toolResult", "audio")


class Reader(DialectReader):
    """Reads one answer in this dialect. See `penstock.llm.events.TokenReader` for the contract."""

    __slots__ = ("_decoder", "_inner", "_natives", "_open")

    dialect = DIALECT

    def __init__(self, natives: Natives | None = None) -> None:
        super().__init__()
        self._decoder = Decoder()
        self._natives: Natives = natives or {}
        # The reader of the model's own dialect, once a chunk has shown which that is.
        self._inner: DialectReader | None = None
        # By index, the open calls of server tools: as opened, and the input written since.
        self._open: dict[int, tuple[dict[str, Json], bytearray]] = {}

    @property
    def is_ended(self) -> bool:
        is_over = self._inner is not None and self._inner.is_ended
        return is_over or self._is_done or self._composer.has_failed

    def receive_data(self, data: bytes) -> None:
        if self.is_ended:
            return
        self._decoder.receive_data(data)
        for message in self._decoder.messages():
            if self.is_ended:
                return
            self._receive_message(message)
        if self._decoder.broken:
            self._composer.fail(self._decoder.broken, MALFORMED)

    def receive_eof(self) -> None:
        if self.is_ended:
            return
        if self._inner is not None:
            self._inner.receive_eof()
        else:
            self._receive_end()

    def _receive_message(self, message: Message) -> None:
        payload = parse_object(message.payload.decode("utf-8", "replace"))
        kind, type = message.text(":message-type"), message.text(":event-type")
        if kind in ("exception", "error"):
            self._receive_exception(message, payload or {})
        elif payload is None:
            self._composer.fail("a message's payload is not a JSON object", MALFORMED)
        elif type == "chunk":
            self._receive_chunk(payload)
        else:
            self.receive_object(type, payload)

    def _receive_exception(self, message: Message, payload: dict[str, Json]) -> None:
        said, code, status = read_error(payload)
        name = message.text(":exception-type") or message.text(":error-code") or code
        # An error of the model's own server is told by the status that server gave.
        status = first_count(payload, "originalStatusCode") or status or _STATUSES.get(name)
        said = message.text(":error-message") or as_text(payload.get("originalMessage")) or said
        self._composer.fail(said, name, status)

    def _receive_payload(self, type: str, payload: dict[str, Json]) -> None:
        index = as_count(payload.get("contentBlockIndex")) or 0
        match type:
            case "contentBlockDelta":
                self._receive_delta(index, as_object(payload.get("delta")))
            case "contentBlockStart":
                self._open_block(index, as_object(payload.get("start")))
            case "contentBlockStop":
                self._close_block(index)
            case "messageStart":
                self._composer.start(role=as_text(payload.get("role")))
            case "messageStop":
                self._receive_stop(as_text(payload.get("stopReason")))
            case "metadata":
                self._receive_metadata(payload)
            case _:
                if type.endswith("Exception"):  # where a proxy lost the headers' word for it
                    self._composer.fail(*read_error({"code": type, **payload}))

    def _open_block(self, index: int, start: dict[str, Json]) -> None:
        self._close_block(index)
        tool = as_object(start.get("toolUse"))
        if tool.get("type") == "server_tool_use":
            self._open[index] = tool, bytearray()
            self._composer.hold(len(as_json_text(tool)) + HELD_OVERHEAD_BYTES)
        elif tool:
            id, name = as_text(tool.get("toolUseId")), as_text(tool.get("name"))
            self._composer.call(index, id=id, name=name)
        else:
            for kind, value in start.items():
                self._composer.data(kind, value)

    def _receive_delta(self, index: int, delta: dict[str, Json]) -> None:
        self._composer.text(as_text(delta.get("text")))
        reasoning = as_object(delta.get("reasoningContent"))
        self._composer.reasoning(as_text(reasoning.get("text")))
        for kind in ("signature", "redactedContent"):
            if reasoning.get(kind):
                self._composer.data(kind, reasoning[kind])
        if tool := as_object(delta.get("toolUse")):
            self._receive_input(index, as_text(tool.get("input")))
        for kind in _PASSED:
            if delta.get(kind):
                self._composer.data(kind, delta[kind])

    def _receive_input(self, index: int, piece: str) -> None:
        opened = self._open.get(index)
        if opened is None:
            self._composer.call(index, arguments=piece)
        else:
            opened[1].extend(piece.encode("utf-8", "surrogatepass"))
            self._composer.hold(len(piece))

    def _close_block(self, index: int) -> None:
        self._composer.close_call(index)
        opened = self._open.pop(index, None)
        if opened is not None:
            tool, written = opened
            text = written.decode("utf-8", "surrogatepass")
            size = len(as_json_text(tool)) + HELD_OVERHEAD_BYTES + len(text)
            self._composer.hold(-size)
            parsed = parse_object(text)
            value: Json = text if parsed is None else parsed
            self._composer.data("server_tool_use", {**tool, "input": value})

    def _receive_stop(self, raw: str) -> None:
        for index in tuple(self._open):
            self._close_block(index)
        if raw in _BREAKDOWNS:
            self._composer.fail(f"the provider gave the stop reason {raw!r}", raw)
        else:
            self._composer.stop(_REASONS.get(raw, "other"), raw)

    def _receive_metadata(self, payload: dict[str, Json]) -> None:
        usage = as_object(payload.get("usage"))
        cached = first_count(usage, "cacheReadInputTokens", "cacheReadInputTokenCount")
        cache_write = first_count(usage, "cacheWriteInputTokens", "cacheWriteInputTokenCount")
        if usage:
            self._composer.usage(
                Usage(
                    input_tokens=(first_count(usage, "inputTokens") or 0)
                    + (cached or 0)
                    + (cache_write or 0),
                    output_tokens=first_count(usage, "outputTokens") or 0,
                    cached_tokens=cached,
                    cache_write_tokens=cache_write,
                    partial=not self._composer.has_stopped,
                )
            )
        if payload.get("trace"):
            self._composer.data("trace", payload["trace"])
        self._is_done = self._composer.has_stopped

    def _receive_chunk(self, wrapper: dict[str, Json]) -> None:
        try:
            native = base64.b64decode(as_text(wrapper.get("bytes")), validate=True)
        except ValueError:
            native = b""
        payload = parse_object(native.decode("utf-8", "replace"))
        if payload is None:
            self._composer.fail("a chunk is not base64 of a JSON object", MALFORMED)
            return
        if self._inner is None and not payload.keys() & _CONVERSE:
            self._inner = self._make_inner(payload)
        if self._inner is not None:
            self._inner.receive_object("message", payload)
        else:
            for type, fields in payload.items():
                if type in _CONVERSE:
                    self.receive_object(type, as_object(fields))
        self._receive_metrics(as_object(payload.get("amazon-bedrock-invocationMetrics")))

    def _make_inner(self, payload: dict[str, Json]) -> DialectReader | None:
        native = _native_of(payload)
        if not native:
            return TextReader(self._composer)
        make = self._natives.get(native)
        if make is None:
            self._composer.fail(f"no reader was given for a model's own {native!r}", MALFORMED)
            return None
        return make(self._composer)

    def _receive_metrics(self, metrics: dict[str, Json]) -> None:
        """The counts of Bedrock itself, on the last chunk: for models that give none."""
        if metrics and self._composer.last_usage is None:
            self._composer.usage(
                Usage(
                    input_tokens=first_count(metrics, "inputTokenCount") or 0,
                    output_tokens=first_count(metrics, "outputTokenCount") or 0,
                )
            )


def _native_of(payload: dict[str, Json]) -> str:
    """Which of the readers handed over understands this chunk, "" for none of them."""
    if as_text(payload.get("type")).startswith(("message_", "content_block_", "ping")):
        return "messages"
    if "choices" not in payload:
        return ""
    choices = as_list(payload["choices"])
    return "completions" if choices and "text" in as_object(choices[0]) else "choices"
