"""OpenAI Responses: an answer as numbered output items, each added, filled and done.

A body is SSE whose `event:` repeats the `type` inside the JSON; the `type` is believed (Bedrock's
Mantle even writes the `data:` line first). Events of a response (`response.created`, …) carry the
whole response as it stands; events of an item name it by `output_index` and `item_id`. The answer
is whole when `response.completed` or `response.incomplete` was read; `response.failed`, `error` and
a response that was cancelled are `Failure`s; the end of the body before any of them is
`upstream-truncated`. There is no `[DONE]`, and where a gateway sends one it is no end.

What becomes what. Text and refusals of messages are `Text`, summaries and texts of reasoning are
`Reasoning`, and `function_call` and `custom_tool_call` items are tool calls, known by their
`call_id`; the input of a custom one is plain text, so its arguments are seldom valid JSON. Every
other item is passed through when it is done, kind being its type: tools that the provider runs,
approvals it asks for, reasoning that must be sent back (`encrypted_content`). Annotations are
`Data` of kind "citation", images in the making "partial_image".

A `.delta` is believed, and what a `.done` or an item repeats is not given twice. Servers that do
not really stream send no deltas: then the text comes with the first event that has it, the last of
which is the terminal one. Unknown events are ignored.

Sources: the provider's reference ("Streaming events") and its SDK's types; recorded streams of
OpenAI, DeepSeek, OpenRouter and Bedrock's Mantle.
"""

from __future__ import annotations

from typing import Final

from penstock.llm.assemble import HELD_OVERHEAD_BYTES, Composer
from penstock.llm.events import (
    Json,
    StopReason,
    Usage,
    as_count,
    as_list,
    as_object,
    as_text,
)
from penstock.llm.reader import SseReader, first_count

DIALECT: Final = "openai-responses"

_CALLS: Final = frozenset({"function_call", "custom_tool_call"})

_INCOMPLETE: Final[dict[str, StopReason]] = {
    "max_output_tokens": "length",
    "max_tokens": "length",
    "content_filter": "content_filter",
}

# Events that end a response, and the status each stands for where the response names none.
_ENDS: Final = {
    "response.completed": "completed",
    "response.done": "completed",
    "response.incomplete": "incomplete",
    "response.failed": "failed",
    "response.cancelled": "cancelled",
}

# What is written in pieces: the event's type to the channel, and to the field of its `.done`.
_TEXTS: Final = {
    "response.output_text": ("text", "text"),
    "response.refusal": ("refusal", "refusal"),
    "response.reasoning_text": ("reasoning", "text"),
    "response.reasoning_summary_text": ("summary", "text"),
    # Shorter names of the two, from servers written against the first drafts.
    "response.reasoning": ("reasoning", "text"),
    "response.reasoning_summary": ("summary", "text"),
}
_ARGUMENTS: Final = {
    "response.function_call_arguments": "arguments",
    "response.custom_tool_call_input": "input",
}

# The parts of an item that is done: their type to the channel and the field.
_PARTS: Final = {
    "output_text": ("text", "text"),
    "refusal": ("refusal", "refusal"),
    "reasoning_text": ("reasoning", "text"),
    "summary_text": ("summary", "text"),
}

# An item's place in the answer: its `output_index`, or its id where it has none.
_Place = int | str


class Reader(SseReader):
    """Reads one answer in this dialect. See `penstock.llm.events.TokenReader` for the contract."""

    __slots__ = ("_calls", "_has_output", "_is_refused", "_streamed", "_written")

    dialect = DIALECT

    def __init__(self, composer: Composer | None = None) -> None:
        super().__init__(composer)
        self._has_output = self._is_refused = False
        # Of the items that are not done: the key of each tool call by its place and by its id, the
        # calls with arguments so far, and the parts with text so far.
        self._calls: dict[_Place, int] = {}
        self._written: set[int] = set()
        self._streamed: dict[_Place, set[tuple[str, int]]] = {}

    def _receive_payload(self, type: str, payload: dict[str, Json]) -> None:
        name, _, step = type.rpartition(".")
        if step in ("delta", "done") and name in _TEXTS:
            channel, field = _TEXTS[name]
            text = as_text(payload.get("delta" if step == "delta" else field))
            number = first_count(payload, "content_index", "summary_index") or 0
            self._write(channel, _place(payload), number, text, is_whole=step == "done")
        elif step in ("delta", "done") and name in _ARGUMENTS:
            field = "delta" if step == "delta" else _ARGUMENTS[name]
            key = self._call_key(payload)
            self._write_call(key, as_text(payload.get(field)), is_whole=step == "done")
        elif type in _ENDS:
            self._receive_end_of(as_object(payload.get("response")), _ENDS[type])
        else:
            self._receive_other(type, payload)

    def _receive_other(self, type: str, payload: dict[str, Json]) -> None:
        match type:
            case "response.output_item.added":
                self._has_output = True
                item = as_object(payload.get("item"))
                if as_text(item.get("type")) in _CALLS:
                    self._open_call(_place(payload), item)
            case "response.output_item.done":
                self._receive_item(_place(payload), as_object(payload.get("item")))
            case "response.content_part.done" | "response.reasoning_summary_part.done":
                number = first_count(payload, "content_index", "summary_index") or 0
                self._receive_part(_place(payload), number, as_object(payload.get("part")))
            case "response.output_text.annotation.added":
                self._composer.data("citation", payload.get("annotation"))
            case "response.image_generation_call.partial_image":
                self._composer.data("partial_image", payload)
            case "response.error":
                self._fail(payload)
            case "response.created" | "response.queued" | "response.in_progress":
                self._start(as_object(payload.get("response")))
            case _:
                pass

    def _start(self, response: dict[str, Json]) -> None:
        id, model = as_text(response.get("id")), as_text(response.get("model"))
        self._composer.start(id=id, model=model)

    def _write(
        self, channel: str, place: _Place, number: int, text: str, *, is_whole: bool = False
    ) -> None:
        """Gives a piece of text, or the whole of a part where none of its pieces came before."""
        self._has_output = True
        if not text:
            return
        streamed = self._streamed.setdefault(place, set())
        part = (channel, number)
        if part not in streamed:
            streamed.add(part)
            self._composer.hold(HELD_OVERHEAD_BYTES)
        elif is_whole:
            return
        if channel in ("text", "refusal"):
            self._is_refused = self._is_refused or channel == "refusal"
            self._composer.text(text)
        else:
            self._composer.reasoning(text)

    def _receive_part(self, place: _Place, number: int, part: dict[str, Json]) -> None:
        known = _PARTS.get(as_text(part.get("type")))
        if known is not None:
            channel, field = known
            self._write(channel, place, number, as_text(part.get(field)), is_whole=True)

    def _receive_item(self, place: _Place, item: dict[str, Json]) -> None:
        """An item is done: what of it did not come before, and whatever is passed through."""
        self._has_output = True
        type = as_text(item.get("type"))
        if type in _CALLS:
            self._close_call(place, item)
            return
        for number, part in enumerate(as_list(item.get("summary"))):
            self._receive_part(place, number, as_object(part))
        for number, part in enumerate(as_list(item.get("content"))):
            self._receive_part(place, number, as_object(part))
        self._composer.hold(-HELD_OVERHEAD_BYTES * len(self._streamed.pop(place, ())))
        if type and type != "message" and (type != "reasoning" or item.get("encrypted_content")):
            self._composer.data(type, item)

    def _open_call(self, place: _Place, item: dict[str, Json]) -> int:
        key = self._composer.call_count
        id = as_text(item.get("call_id")) or as_text(item.get("id"))
        self._composer.call(key, id=id, name=as_text(item.get("name")))
        self._calls[place] = key
        item_id = as_text(item.get("id"))
        if item_id and item_id != place:
            self._calls[item_id] = key
            self._composer.hold(HELD_OVERHEAD_BYTES + len(item_id))
        return key

    def _call_key(self, payload: dict[str, Json]) -> int:
        """The open call that a piece belongs to. A proxy may change the ids, or drop the places."""
        item_id = as_text(payload.get("item_id"))
        key = self._calls.get(_place(payload))
        key = self._calls.get(item_id) if key is None else key
        if key is None:
            named: dict[str, Json] = {"id": item_id, "name": payload.get("name")}
            key = self._open_call(_place(payload), named)
        return key

    def _write_call(self, key: int, arguments: str, *, is_whole: bool) -> None:
        if arguments and not (is_whole and key in self._written):
            self._written.add(key)
            self._composer.call(key, arguments=arguments)

    def _close_call(self, place: _Place, item: dict[str, Json]) -> None:
        item_id = as_text(item.get("id"))
        key = self._calls.get(place, self._calls.get(item_id))
        if key is None:
            key = self._open_call(place, item)
        else:
            # The name may only now be known; what was said before is not said again.
            id = as_text(item.get("call_id"))
            self._composer.call(key, id=id, name=as_text(item.get("name")))
        whole = as_text(item.get("arguments")) or as_text(item.get("input"))
        self._write_call(key, whole, is_whole=True)
        self._composer.close_call(key)
        self._written.discard(key)
        self._calls.pop(place, None)
        if item_id != place and self._calls.pop(item_id, None) is not None:
            self._composer.hold(-HELD_OVERHEAD_BYTES - len(item_id))

    def _receive_end_of(self, response: dict[str, Json], status: str) -> None:
        """The response is over. Its own status is believed before the event's name."""
        self._start(response)
        if not self._has_output:
            for place, item in enumerate(as_list(response.get("output"))):
                self._receive_item(place, as_object(item))
        self._receive_usage(as_object(response.get("usage")))
        named = as_text(response.get("status"))
        status = named if named in ("incomplete", "failed", "cancelled") else status
        reason = as_text(as_object(response.get("incomplete_details")).get("reason"))
        if status == "failed" or response.get("error"):
            self._fail(response.get("error") or "the response failed")
        elif status == "cancelled":
            self._composer.fail("the response was cancelled", "cancelled")
        elif status == "incomplete":
            self._composer.stop(_INCOMPLETE.get(reason, "other"), reason or status)
        else:
            self._composer.stop(self._reason(), status)
        self._is_done = True

    def _reason(self) -> StopReason:
        """Why a completed response stopped: the dialect does not say it, its output does."""
        if self._composer.call_count:
            return "tool_use"
        return "refusal" if self._is_refused else "stop"

    def _receive_usage(self, usage: dict[str, Json]) -> None:
        if not usage:
            return
        read = as_object(usage.get("input_tokens_details"))
        written = as_object(usage.get("output_tokens_details"))
        self._composer.usage(
            Usage(
                input_tokens=first_count(usage, "input_tokens", "prompt_tokens") or 0,
                output_tokens=first_count(usage, "output_tokens", "completion_tokens") or 0,
                reasoning_tokens=first_count(written, "reasoning_tokens"),
                cached_tokens=first_count(read, "cached_tokens"),
                cache_write_tokens=first_count(read, "cache_write_tokens"),
            )
        )


def _place(payload: dict[str, Json]) -> _Place:
    index = as_count(payload.get("output_index"))
    if index is not None:
        return index
    return as_text(payload.get("item_id")) or as_text(as_object(payload.get("item")).get("id"))
