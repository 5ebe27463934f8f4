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

Sources: the provider's reference ("Streaming messages", "Errors") and recorded streams.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from penstock.llm.assemble import HELD_OVERHEAD_BYTES, Composer
from penstock.llm.events import (
    Json,
    StopReason,
    Usage,
    as_count,
    as_json_text,
    as_object,
    as_text,
    parse_object,
)
from penstock.llm.reader import SseReader, read_error

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


# Every count that is read; others come and go.
_COUNTS: Final = frozenset(
    {"input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"}
)


@dataclass(slots=True)
class _Block:
    """An open block: what is needed of it when it closes, and of most that is nothing."""

    type: str
    # Of a tool of the provider's, the block as it was opened, and the input written since.
    opened: dict[str, Json]
    written: bytearray = field(default_factory=bytearray)
    # Of a tool call, the input it was opened with; "" once a piece of it was written.
    whole_input: str = ""
    # What the block counts in its composer.
    held: int = HELD_OVERHEAD_BYTES


class Reader(SseReader):
    """Reads one answer in this dialect. See `penstock.llm.events.TokenReader` for the contract."""

    __slots__ = ("_blocks", "_counts")

    dialect = DIALECT

    def __init__(self, composer: Composer | None = None) -> None:
        super().__init__(composer)
        # The open blocks by index: what is still needed of each when it closes.
        self._blocks: dict[int, _Block] = {}
        # Usage so far: each count is cumulative, and each event names only some of them.
        self._counts: dict[str, int] = {}

    def _receive_end(self) -> None:
        self._composer.truncate(DIALECT)

    def _receive_payload(self, type: str, payload: dict[str, Json]) -> None:
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
        kind = as_text(block.get("type"))
        kept = _Block(kind, block if kind in _SERVER_TOOLS else {})
        if kind == "text":
            self._composer.text(as_text(block.get("text")))
        elif kind == "thinking":
            self._composer.reasoning(as_text(block.get("thinking")))
            self._pass("signature", block.get("signature"))
        elif kind == "tool_use":
            id, name = as_text(block.get("id")), as_text(block.get("name"))
            self._composer.call(index, id=id, name=name)
            # Some compatible servers give the whole input when they open the block.
            kept.whole_input = as_json_text(block["input"]) if block.get("input") else ""
        elif kind and kind not in _SERVER_TOOLS and kind != "compaction":
            self._composer.data(kind, block)
        kept.held += len(as_json_text(kept.opened)) + len(kept.whole_input)
        self._composer.hold(kept.held)
        self._blocks[index] = kept

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
        block = self._blocks.get(index)
        if block is None or not piece:
            return
        if block.type == "tool_use":
            block.whole_input = ""
            self._composer.call(index, arguments=piece)
        elif block.type in _SERVER_TOOLS:
            block.written += piece.encode("utf-8", "surrogatepass")
            block.held += len(piece)
            self._composer.hold(len(piece))

    def _close_block(self, index: int) -> None:
        block = self._blocks.pop(index, None)
        if block is None:
            return
        self._composer.hold(-block.held)
        if block.type == "tool_use":
            if block.whole_input:
                self._composer.call(index, arguments=block.whole_input)
            self._composer.close_call(index)
        elif block.type in _SERVER_TOOLS:
            whole = dict(block.opened)
            if written := block.written.decode("utf-8", "surrogatepass"):
                parsed = parse_object(written)
                whole["input"] = written if parsed is None else parsed
            self._composer.data(block.type, whole)

    def _receive_message_delta(self, payload: dict[str, Json]) -> None:
        raw = as_text(as_object(payload.get("delta")).get("stop_reason"))
        # The count first, so that a reader who stops at the stop has the whole price.
        self._receive_usage(as_object(payload.get("usage")), is_last=bool(raw))
        if raw:
            self._close_blocks()
            self._composer.stop(_REASONS.get(raw, "other"), raw)

    def _receive_usage(self, usage: dict[str, Json], *, is_last: bool) -> None:
        details = as_object(usage.get("output_tokens_details"))
        named = [(name, usage.get(name)) for name in _COUNTS]
        for name, value in (*named, ("thinking_tokens", details.get("thinking_tokens"))):
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
        message, code, status = read_error(error)
        self._composer.fail(message, code, status or _STATUSES.get(code))
