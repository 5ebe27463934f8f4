"""The body that OpenAI's two older dialects share: SSE of chunks with choices, and `[DONE]`.

A body is `data:` lines, each a JSON chunk with an id, a model and a list of choices, and `[DONE]`
at its end. Chat Completions and the legacy Completions answer so and differ in what a choice holds,
which their own files say; dozens of servers answer so too and each bends it. What a provider does
differently is said where it is read. Nothing here asks which provider it is: the shapes do not
collide, so every accent is understood from everybody.

When an answer is whole. `[DONE]` ends it, also without a `finish_reason` (Snowflake sends none). A
`finish_reason` followed by the end of the body ends it too (Writer never sends `[DONE]`). The end
of the body before either is `Failure` `upstream-truncated`. An error in any shape is a `Failure`,
whatever follows it (vLLM sends `[DONE]` after an error, Groq nothing).

Only the first choice is the answer. Choices with an index above 0 (`n=2`) are passed through as
`Data` of kind "choice", untouched.

How most of an answer is read. A provider says the same around each piece of text: its id, its
model, some nulls. What stood around one piece is the frame; an event with these bytes before and
after a string differs from that one in the string alone: it is the next piece of text and nothing
else. Only the string is parsed: 1.3 µs an event of 290 bytes, where the whole takes 8.7.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from penstock.llm.assemble import Composer
from penstock.llm.events import (
    FAILED,
    Json,
    StopReason,
    Usage,
    as_count,
    as_list,
    as_object,
    as_text,
    parse_object,
    parse_string,
)
from penstock.llm.reader import SseReader, first_count
from penstock.wire.sse import Event

_DONE: Final = "[DONE]"

_REASONS: Final[dict[str, StopReason]] = {
    "stop": "stop",
    "eos": "stop",  # Together
    "eos_token": "stop",  # Text Generation Inference
    "stop_sequence": "stop",
    "end_turn": "stop",  # Anthropic's words, behind gateways
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",  # Mistral
    "tool_calls": "tool_use",
    "tool_use": "tool_use",
    "function_call": "tool_use",
    "content_filter": "content_filter",
    "sensitive": "content_filter",  # Z.ai
    "refusal": "refusal",
}

# Words in the place of a finish_reason which say that the answer broke off on their side:
# Mistral and OpenRouter, vLLM, DeepSeek, Z.ai.
_BREAKDOWNS: Final = frozenset({"error", "abort", "insufficient_system_resource", "network_error"})

# Fields of a chunk that are passed through under their own name: Perplexity's sources, which it
# repeats in each chunk.
_PASSED: Final = ("citations", "search_results")

# What a choice can say beside its delta.
_SAYING: Final = ("index", "finish_reason", "stop_reason", "usage", "error")

# llama.cpp wrote errors as a field of its own, `error: {…}`, until its pull request 16109.
_ERROR_FIELD: Final = b"error:"
_ERROR_EVENT: Final = b"event: error\ndata:"

# A string that may be a piece of text, in a chunk.
_CONTENT: Final = re.compile(r'"content":\s*("[^"\\]*")')
_PROBE: Final = "\ue000"
# How often a frame is looked for. Providers that put something new into each chunk have none.
_FRAMES_SOUGHT: Final = 4


class _Frame(NamedTuple):
    """The bytes of an event around its text: before, after, and between two texts in one read."""

    front: bytes
    back: bytes
    seam: bytes


class ChoicesReader(SseReader):
    """A reader of chunks with choices. A dialect says in `_receive_content` what a choice holds."""

    __slots__ = ("_at_line_start", "_frame", "_held", "_is_refused", "_passed", "_sought", "_usage")

    def __init__(self, composer: Composer | None = None) -> None:
        super().__init__(composer)
        self._is_refused = False
        self._passed: dict[str, Json] = {}
        self._usage = Usage(input_tokens=0, output_tokens=0)
        # For the `error:` field: the start of a line that may become one.
        self._held = b""
        self._at_line_start = True
        self._frame: _Frame | None = None
        self._sought = 0

    def receive_data(self, data: bytes) -> None:
        frame = self._frame
        if frame is None or not self._receive_framed(data, frame):
            super().receive_data(self._with_error_events(data))

    def _receive_framed(self, data: bytes, frame: _Frame) -> bool:
        """Takes events that are all in the frame; says whether they were."""
        front, back, seam = frame
        if not (data.startswith(front) and data.endswith(back)):
            return False
        if self._held or not self._decoder.is_between or self._is_done:
            return False
        texts: list[str] = []
        for piece in data[len(front) : -len(back)].split(seam):
            text = parse_string(piece.decode("utf-8", "replace"))
            if text is None:
                return False
            texts.append(text)
        for text in texts:
            self._composer.text(text)
        return True

    def _receive_event(self, event: Event) -> None:
        super()._receive_event(event)
        if self._sought < _FRAMES_SOUGHT and self._composer.has_started:
            self._sought += 1
            self._frame = _find_frame(event) or self._frame

    def _receive_content(self, choice: dict[str, Json]) -> None:
        """What the first choice says. Its `finish_reason` is read here, after this."""
        raise NotImplementedError

    def _with_error_events(self, data: bytes) -> bytes:
        """`data` with each `error:` line as an error event, wherever it was cut.

        A line that may still become one is held back, which delays nothing: only whole lines count.
        """
        if self._held:
            data, self._held = self._held + data, b""
        last = data.rfind(b"\n") + 1
        tail = data[last : last + len(_ERROR_FIELD) + 1]
        if tail and (last or self._at_line_start) and _ERROR_FIELD.startswith(tail):
            data, self._held = data[:last], tail
        if self._at_line_start and data.startswith(_ERROR_FIELD):
            data = _ERROR_EVENT + data[len(_ERROR_FIELD) :]
        if data:
            self._at_line_start = data.endswith(b"\n")
        return data.replace(b"\n" + _ERROR_FIELD, b"\n" + _ERROR_EVENT)

    def _receive_words(self, type: str, text: str) -> None:
        if text == _DONE:
            self._finish()
        else:
            super()._receive_words(type, text)

    def _receive_payload(self, type: str, payload: dict[str, Json]) -> None:
        composer = self._composer
        groq = as_object(payload.get("x_groq"))
        if groq.get("error"):  # why it stopped the stream early
            self._fail(groq["error"])
            return
        if payload.get("object") == "error" or _is_bare_error(payload):
            self._fail(payload)
            return
        choices = [as_object(choice) for choice in as_list(payload.get("choices"))]
        if not composer.has_started:
            id, model = as_text(payload.get("id")), as_text(payload.get("model"))
            # Azure opens with a chunk about the prompt: no id, model or choice. It is no start.
            if id or model or choices:
                composer.start(id=id, model=model, role=_role(choices))
        for kind in _PASSED:
            if payload.get(kind):
                self._pass_once(kind, payload[kind])
        usage = payload.get("usage") or groq.get("usage")
        for choice in choices:
            if as_count(choice.get("index")):
                composer.data("choice", choice)
            else:
                self._receive_choice(choice)
                usage = usage or choice.get("usage")  # Moonshot
        if usage:
            self._receive_usage(as_object(usage), is_last=not choices or composer.has_stopped)

    def _receive_choice(self, choice: dict[str, Json]) -> None:
        if choice.get("error"):  # OpenRouter
            self._fail(choice["error"])
            return
        self._receive_content(choice)
        # Mistral's models on Bedrock give their reason under the other name. vLLM gives both, and
        # under that one what was met: a sequence or a token's number.
        finish = as_text(choice.get("finish_reason")) or as_text(choice.get("stop_reason"))
        if finish in _BREAKDOWNS:
            self._composer.fail(f"the provider gave the finish reason {finish!r}", FAILED)
        elif finish:
            self._stop(finish)

    def _pass_once(self, kind: str, value: Json) -> None:
        if self._passed.get(kind) != value:
            self._passed[kind] = value
            self._composer.data(kind, value)

    def _stop(self, finish: str) -> None:
        reason = _REASONS.get(finish, "other")
        if reason == "stop" or not finish:
            # A forced tool call finishes with "stop", and so does a refusal.
            if self._composer.call_count:
                reason = "tool_use"
            elif self._is_refused:
                reason = "refusal"
        self._composer.stop(reason, finish)

    def _receive_usage(self, usage: dict[str, Json], *, is_last: bool) -> None:
        """Takes a count. Some count along (vLLM), some twice: each count replaces the last."""
        read = as_object(usage.get("prompt_tokens_details") or usage.get("prompt_token_details"))
        written = as_object(usage.get("completion_tokens_details"))
        before = self._usage
        input_tokens = first_count(usage, "prompt_tokens", "input_tokens")
        output_tokens = first_count(usage, "completion_tokens", "output_tokens")
        cached = first_count(read, "cached_tokens")
        if cached is None:  # DeepSeek
            cached = first_count(usage, "prompt_cache_hit_tokens")
        self._usage = Usage(
            input_tokens=before.input_tokens if input_tokens is None else input_tokens,
            output_tokens=before.output_tokens if output_tokens is None else output_tokens,
            reasoning_tokens=first_count(written, "reasoning_tokens"),
            cached_tokens=cached,
            cache_write_tokens=first_count(read, "cache_write_tokens"),
            partial=not is_last,
        )
        self._composer.usage(self._usage)

    def _finish(self) -> None:
        """The dialect's end. An end before any chunk is none: nobody answered."""
        if not self._composer.has_started:
            self._composer.truncate(self.dialect)
            return
        if not self._composer.has_stopped:
            self._stop("")
        self._is_done = True


def _role(choices: list[dict[str, Json]]) -> str:
    return as_text(as_object(choices[0].get("delta")).get("role")) if choices else ""


def _find_frame(event: Event) -> _Frame | None:
    """The frame of an event that brings text and nothing else; None for any other.

    Whether the string that was found is the text is tried: another in its place must be the only
    thing that changes.
    """
    found = _CONTENT.search(event.data)
    if found is None or event.type != "message":
        return None
    front, back = event.data[: found.start(1)], event.data[found.end(1) :]
    chunk, tried = parse_object(event.data) or {}, parse_object(f'{front}"{_PROBE}"{back}')
    delta = _delta_of_text(chunk)
    if delta is None:
        return None
    delta["content"] = _PROBE
    if chunk != tried:
        return None
    before, after = f"data: {front}".encode(), f"{back}\n\n".encode()
    return _Frame(before, after, after + before)


def _delta_of_text(chunk: dict[str, Json]) -> dict[str, Json] | None:
    """The delta of a chunk that says nothing but text."""
    choices = as_list(chunk.get("choices"))
    choice = as_object(choices[0]) if len(choices) == 1 else {}
    delta = as_object(choice.get("delta"))
    says = {name for name, value in delta.items() if value and name != "role"}
    beside = [chunk.get("usage"), chunk.get("x_groq"), *map(choice.get, _SAYING)]
    return delta if says == {"content"} and not any(beside) else None


def _is_bare_error(payload: dict[str, Json]) -> bool:
    """Whether this is an error without a wrapper, as Cerebras and web frameworks send it."""
    if "choices" in payload:
        return False
    return bool(as_text(payload.get("message")) or payload.get("detail") or payload.get("errors"))
