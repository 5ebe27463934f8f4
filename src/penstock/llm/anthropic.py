"""Anthropic Messages: an answer as numbered content blocks, each opened, filled and closed.

A body is SSE whose `event:` repeats the `type` inside the JSON; the `type` is believed, since
compatible servers leave the `event:` out. The answer is whole when `message_stop` was read; the
end of the body before it, also after a stop reason, is `Failure` `upstream-truncated`. An error
comes as `event: error` under status 200, also as the very first event.

What becomes what. Text and thinking blocks are `Text` and `Reasoning`. A `tool_use` block is a tool
call. Tools that the provider runs itself are none: their blocks, and everything that must be sent
back with the next turn (signatures, redacted thinking, compaction) or belongs to the text
(citations), are passed through as `Data`, kind being the block's type or what the field is.
Unknown events are ignored and unknown blocks passed through, as the provider asks of its clients.
"""

from __future__ import annotations

from typing import Final

from penstock.core.errors import EventTooLarge
from penstock.llm.assemble import Composer
from penstock.llm.events import (
    FAILED,
    MALFORMED,
    Json,
    StopReason,
    TokenEvent,
    Usage,
    as_count,
    as_json_text,
    as_object,
    as_text,
    parse_object,
)
from penstock.wire.sse import Decoder, Event

DIALECT: Final = "anthropic-messages"

_REASONS: Final[dict[str, StopReason]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_use",
    "refusal": "refusal",
}

# The status each error has outside of a stream, from the provider's error reference.
_STATUSES: Final = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}

# Tools that run on the provider's side: written in pieces as a tool call is, but not ours to run.
_SERVER_TOOLS: Final = frozenset({"server_tool_use", "mcp_tool_use"})


class Reader:
    """Reads one answer in this dialect. See `penstock.llm.events.TokenReader` for the contract."""

    __slots__ = ("_blocks", "_composer", "_counts", "_decoder", "_input", "_is_done")

    def __init__(self) -> None:
        self._decoder = Decoder()
        self._composer = Composer()
        self._is_done = False
        # The open blocks as they were opened, by index, and the input written into them.
        self._blocks: dict[int, dict[str, Json]] = {}
        self._input: dict[int, list[str]] = {}
        # Usage so far: each count is cumulative, and each event names only some of them.
        self._counts: dict[str, int] = {}

    @property
    def is_ended(self) -> bool:
        return self._is_done or self._composer.has_failed

    def receive_data(self, data: bytes) -> None:
        if self.is_ended:
            return
        too_large: EventTooLarge | None = None
        try:
            self._decoder.receive_data(data)
        except EventTooLarge as error:
            too_large = error
        for event in self._decoder.events():
            self._receive_event(event)
        if too_large is not None:
            self._composer.fail(too_large.sentence, MALFORMED)

    def receive_eof(self) -> None:
        if not self.is_ended:
            self._decoder.receive_eof()
            self._composer.truncate(DIALECT)

    def events(self) -> list[TokenEvent]:
        return self._composer.take()

    def _receive_event(self, event: Event) -> None:
        if self.is_ended:
            return
        text = event.data.strip()
        payload = parse_object(text)
        if payload is not None:
            try:
                self._receive_payload(as_text(payload.get("type")) or event.type, payload)
            except RecursionError:
                self._composer.fail("an event is nested too deeply", MALFORMED)
        elif event.type == "error":
            self._composer.fail(text or "the provider gave no message", FAILED)
        # Gateways that speak several dialects close this one too with the mark of another, and a
        # ping may come without data. Neither is an end.
        elif text not in ("", "[DONE]"):
            self._composer.fail("an event's data is not a JSON object", MALFORMED)

    def _receive_payload(self, type: str, payload: dict[str, Json]) -> None:
        if type == "error" or payload.get("error"):
            self._fail(payload.get("error") or payload)
            return
        index = as_count(payload.get("index")) or 0
        match type:
            case "content_block_delta":
                self._receive_delta(index, as_object(payload.get("delta")))
            case "content_block_start":
                self._open_block(index, as_object(payload.get("content_block")))
            case "content_block_stop":
                self._close_block(index)
            case "message_start":
                self._receive_start(as_object(payload.get("message")))
            case "message_delta":
                self._receive_message_delta(payload)
            case "message_stop":
                self._finish()
            case _:  # "ping", and whatever comes next
                pass

    def _receive_start(self, message: dict[str, Json]) -> None:
        id, model = as_text(message.get("id")), as_text(message.get("model"))
        self._composer.start(id=id, model=model, role=as_text(message.get("role")))
        self._receive_usage(as_object(message.get("usage")), is_last=False)

    def _open_block(self, index: int, block: dict[str, Json]) -> None:
        self._close_block(index)
        self._blocks[index] = block
        self._input[index] = []
        match block.get("type"):
            case "text":
                self._composer.text(as_text(block.get("text")))
            case "thinking":
                self._composer.reasoning(as_text(block.get("thinking")))
                self._pass("signature", block.get("signature"))
            case "tool_use":
                id, name = as_text(block.get("id")), as_text(block.get("name"))
                self._composer.call(index, id=id, name=name)
            case str() as kind if kind not in _SERVER_TOOLS and kind != "compaction":
                self._composer.data(kind, block)
            case _:
                pass

    def _receive_delta(self, index: int, delta: dict[str, Json]) -> None:
        match delta.get("type"):
            case "text_delta":
                self._composer.text(as_text(delta.get("text")))
            case "thinking_delta":
                self._composer.reasoning(as_text(delta.get("thinking")))
            case "input_json_delta":
                self._receive_input(index, as_text(delta.get("partial_json")))
            case "citations_delta":
                self._pass("citation", delta.get("citation"))
            case "signature_delta":
                self._pass("signature", delta.get("signature"))
            case "compaction_delta":
                self._pass("compaction", delta.get("content"))
            case _:
                pass

    def _pass(self, kind: str, value: Json) -> None:
        if value:
            self._composer.data(kind, value)

    def _receive_input(self, index: int, piece: str) -> None:
        if not piece:
            return
        block = self._blocks.setdefault(index, {})
        self._input.setdefault(index, []).append(piece)
        if block.get("type") == "tool_use":
            self._composer.call(index, arguments=piece)

    def _close_block(self, index: int) -> None:
        block = self._blocks.pop(index, None)
        written = "".join(self._input.pop(index, []))
        if block is None:
            return
        type = as_text(block.get("type"))
        if type == "tool_use":
            # Some compatible servers give the whole input when they open the block.
            if not written and block.get("input"):
                self._composer.call(index, arguments=as_json_text(block["input"]))
            self._composer.close_call(index)
        elif type in _SERVER_TOOLS:
            whole: dict[str, Json] = {**block}
            if written:
                parsed = parse_object(written)
                whole["input"] = written if parsed is None else parsed
            self._composer.data(type, whole)

    def _receive_message_delta(self, payload: dict[str, Json]) -> None:
        raw = as_text(as_object(payload.get("delta")).get("stop_reason"))
        # The count first, so that a reader who stops at the stop has the whole price.
        self._receive_usage(as_object(payload.get("usage")), is_last=bool(raw))
        if raw:
            self._close_blocks()
            self._composer.stop(_REASONS.get(raw, "other"), raw)

    def _receive_usage(self, usage: dict[str, Json], *, is_last: bool) -> None:
        details = as_object(usage.get("output_tokens_details"))
        for name, value in (*usage.items(), ("thinking_tokens", details.get("thinking_tokens"))):
            count = as_count(value)
            if count is not None:
                self._counts[name] = count
        if not usage:
            return
        counts = self._counts
        cached = counts.get("cache_read_input_tokens")
        cache_write = counts.get("cache_creation_input_tokens")
        self._composer.usage(
            Usage(
                # This provider counts what it read from or wrote to its cache apart.
                input_tokens=counts.get("input_tokens", 0) + (cached or 0) + (cache_write or 0),
                output_tokens=counts.get("output_tokens", 0),
                reasoning_tokens=counts.get("thinking_tokens"),
                cached_tokens=cached,
                cache_write_tokens=cache_write,
                partial=not is_last,
            )
        )

    def _close_blocks(self) -> None:
        for index in list(self._blocks):
            self._close_block(index)

    def _finish(self) -> None:
        if not self._composer.has_started:
            self._composer.truncate(DIALECT)
            return
        self._close_blocks()
        if not self._composer.has_stopped:
            self._composer.stop("other", "")
        self._is_done = True

    def _fail(self, error: Json) -> None:
        fields = as_object(error)
        kind = as_text(fields.get("type"))
        code = kind if kind and kind != "error" else FAILED
        message = as_text(error) or as_text(fields.get("message"))
        self._composer.fail(message or "the provider gave no message", code, _STATUSES.get(code))
