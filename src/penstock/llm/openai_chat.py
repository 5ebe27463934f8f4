"""OpenAI Chat Completions, and the many who speak it with an accent.

A body is SSE of `data:` lines, each a `chat.completion.chunk`, with `[DONE]` at its end. Azure,
Groq, OpenRouter, DeepSeek, Mistral, vLLM, llama.cpp, Writer and Ollama all answer in this shape and
each bends it; what a provider does differently is said where it is read. Nothing here asks which
provider it is: the shapes do not collide, so every accent is understood from everybody.

When an answer is whole. `[DONE]` ends it, also without a `finish_reason` (Snowflake sends none). A
`finish_reason` followed by the end of the body ends it too (Writer never sends `[DONE]`). The end
of the body before either is `Failure` `upstream-truncated`. An error in any shape is a `Failure`,
whatever follows it (vLLM sends `[DONE]` after an error, Groq nothing).

Only the first choice is the answer. Choices with an index above 0 (`n=2`) are passed through as
`Data` of kind "choice", untouched.
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
    as_list,
    as_object,
    as_text,
    parse_object,
)
from penstock.wire.sse import Decoder, Event

DIALECT: Final = "openai-chat"

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

# Fields of a delta that are passed through under their own name.
_PASSED: Final = ("annotations", "images", "audio")

# llama.cpp wrote errors as a field of its own, `error: {…}`, until its pull request 16109.
_ERROR_FIELD: Final = b"error:"
_ERROR_EVENT: Final = b"event: error\ndata:"


class Reader:
    """Reads one answer in this dialect. See `penstock.llm.events.TokenReader` for the contract."""

    __slots__ = (
        "_at_line_start",
        "_calls",
        "_citations",
        "_composer",
        "_decoder",
        "_held",
        "_is_done",
        "_last_index",
        "_refused",
        "_usage",
    )

    def __init__(self) -> None:
        self._decoder = Decoder()
        self._composer = Composer()
        self._is_done = False
        self._refused = False
        # By index: the key of the last call begun under it, and that call's id.
        self._calls: dict[int, tuple[int, str]] = {}
        self._last_index = 0
        self._citations: Json = None
        self._usage: Usage | None = None
        # For the `error:` field: the start of a line that may become one.
        self._held = b""
        self._at_line_start = True

    @property
    def is_ended(self) -> bool:
        return self._is_done or self._composer.has_failed

    def receive_data(self, data: bytes) -> None:
        if self.is_ended:
            return
        too_large: EventTooLarge | None = None
        try:
            self._decoder.receive_data(self._with_error_events(data))
        except EventTooLarge as error:
            too_large = error
        for event in self._decoder.events():
            self._receive_event(event)
        if too_large is not None:
            self._composer.fail(too_large.sentence, MALFORMED)

    def receive_eof(self) -> None:
        if self.is_ended:
            return
        self._decoder.receive_eof()
        if self._composer.has_stopped:
            self._finish()
        else:
            self._composer.truncate(DIALECT)

    def events(self) -> list[TokenEvent]:
        return self._composer.take()

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

    def _receive_event(self, event: Event) -> None:
        if self.is_ended:
            return
        text = event.data.strip()
        if text == _DONE:
            self._finish()
            return
        payload = parse_object(text)
        if event.type == "error":
            self._fail(as_object(payload).get("error") or payload or text or "no message")
        elif payload is not None:
            try:
                self._receive_payload(payload)
            except RecursionError:
                self._composer.fail("a chunk is nested too deeply", MALFORMED)
        elif text:
            self._composer.fail("a chunk is not a JSON object", MALFORMED)

    def _receive_payload(self, payload: dict[str, Json]) -> None:
        if payload.get("error"):
            self._fail(payload["error"])
            return
        if "error" in (payload.get("object"), payload.get("type")):  # older vLLM, Mistral
            self._fail(payload)
            return
        composer = self._composer
        choices = [as_object(choice) for choice in as_list(payload.get("choices"))]
        id, model = as_text(payload.get("id")), as_text(payload.get("model"))
        # Azure opens with a chunk about the prompt: no id, no model, no choice. It is no start.
        if not composer.has_started and (id or model or choices):
            composer.start(id=id, model=model, role=self._role(choices))
        citations = payload.get("citations")
        if citations and citations != self._citations:  # Perplexity repeats them in each chunk
            self._citations = citations
            composer.data("citations", citations)
        usage = payload.get("usage") or as_object(payload.get("x_groq")).get("usage")
        for choice in choices:
            if as_count(choice.get("index")):
                composer.data("choice", choice)
            else:
                self._receive_choice(choice)
                usage = usage or choice.get("usage")  # Moonshot
        if usage:
            self._receive_usage(as_object(usage), is_last=not choices or composer.has_stopped)

    def _role(self, choices: list[dict[str, Json]]) -> str:
        return as_text(as_object(choices[0].get("delta")).get("role")) if choices else ""

    def _receive_choice(self, choice: dict[str, Json]) -> None:
        if choice.get("error"):  # OpenRouter
            self._fail(choice["error"])
            return
        # Some who do not really stream send the whole message in the delta's place.
        self._receive_delta(as_object(choice.get("delta") or choice.get("message")))
        finish = as_text(choice.get("finish_reason"))
        if finish in _BREAKDOWNS:
            self._composer.fail(f"the provider gave the finish reason {finish!r}", FAILED)
        elif finish:
            self._stop(finish)

    def _stop(self, finish: str) -> None:
        reason = _REASONS.get(finish, "other")
        if reason == "stop" or not finish:
            # A forced tool call finishes with "stop", and so does a refusal.
            if self._composer.call_count:
                reason = "tool_use"
            elif self._refused:
                reason = "refusal"
        self._composer.stop(reason, finish)

    def _receive_delta(self, delta: dict[str, Json]) -> None:
        composer = self._composer
        self._receive_reasoning(delta)
        content = delta.get("content")
        if isinstance(content, str):
            composer.text(content)
        else:
            self._receive_parts(as_list(content))
        refusal = as_text(delta.get("refusal"))
        if refusal:
            self._refused = True
            composer.text(refusal)
        for call in as_list(delta.get("tool_calls")):
            self._receive_call(as_object(call))
        if legacy := as_object(delta.get("function_call")):
            self._receive_call({"index": 0, "function": legacy})
        for kind in _PASSED:
            if delta.get(kind):
                composer.data(kind, delta[kind])

    def _receive_reasoning(self, delta: dict[str, Json]) -> None:
        # Some send both fields with the same text: the first that says something is it.
        text = as_text(delta.get("reasoning")) or as_text(delta.get("reasoning_content"))
        details = [as_object(detail) for detail in as_list(delta.get("reasoning_details"))]
        if details and not text:
            text = "".join(
                as_text(detail.get("text")) or as_text(detail.get("summary")) for detail in details
            )
        if text:
            self._composer.reasoning(text)
        if not details:
            return
        # OpenRouter: what must be sent back with the next turn, and cannot be told from the text.
        opaque: list[Json] = [d for d in details if d.get("data") or d.get("signature")]
        if opaque:
            self._composer.data("reasoning_details", opaque)

    def _receive_parts(self, parts: list[Json]) -> None:
        """Content as a list of parts, which Mistral's reasoning models send."""
        for part in parts:
            fields = as_object(part)
            match fields.get("type"):
                case "text":
                    self._composer.text(as_text(fields.get("text")))
                case "thinking":
                    thinking = fields.get("thinking")
                    pieces = [thinking, *(as_object(p).get("text") for p in as_list(thinking))]
                    self._composer.reasoning("".join(as_text(piece) for piece in pieces))
                case "refusal":
                    self._refused = True
                    self._composer.text(as_text(fields.get("refusal")))
                case str() as kind:
                    self._composer.data(kind, part)
                case _:
                    self._composer.text(as_text(part))

    def _receive_call(self, call: dict[str, Json]) -> None:
        id = as_text(call.get("id"))
        function = as_object(call.get("function")) or as_object(call.get("custom"))
        name = as_text(function.get("name"))
        arguments = function.get("arguments") or function.get("input")
        if isinstance(arguments, dict):  # a whole value in the place of its text
            arguments = as_json_text(arguments)
        if not (id or name or arguments):
            return
        key = self._call_key(call, id, name)
        self._composer.call(key, id=id, name=name, arguments=as_text(arguments))

    def _call_key(self, call: dict[str, Json], id: str, name: str) -> int:
        """Which call a piece belongs to: the last begun under its index, or a new one.

        Gemini behind this dialect leaves the index out, or gives every call 0; there an id and a
        name that are both new begin a call. An id alone does not: older vLLM made a new one up for
        each piece.
        """
        given = as_count(call.get("index"))
        index = self._last_index if given is None else given
        self._last_index = index
        key, known = self._calls.get(index, (-1, ""))
        is_new = bool(name and known and id and id != known)
        if key < 0 or is_new or (given is None and name and not id):
            key, known = self._composer.call_count, ""
        self._calls[index] = key, known or id
        return key

    def _receive_usage(self, usage: dict[str, Json], *, is_last: bool) -> None:
        """Takes a count. Some count along (vLLM), some twice: each count replaces the last."""
        read = as_object(usage.get("prompt_tokens_details") or usage.get("prompt_token_details"))
        written = as_object(usage.get("completion_tokens_details"))
        before = self._usage or Usage(input_tokens=0, output_tokens=0)
        input_tokens = _first_count(usage, "prompt_tokens", "input_tokens")
        output_tokens = _first_count(usage, "completion_tokens", "output_tokens")
        cached = _first_count(read, "cached_tokens")
        if cached is None:  # DeepSeek
            cached = _first_count(usage, "prompt_cache_hit_tokens")
        self._usage = Usage(
            input_tokens=before.input_tokens if input_tokens is None else input_tokens,
            output_tokens=before.output_tokens if output_tokens is None else output_tokens,
            reasoning_tokens=_first_count(written, "reasoning_tokens"),
            cached_tokens=cached,
            cache_write_tokens=_first_count(read, "cache_write_tokens"),
            partial=not is_last,
        )
        self._composer.usage(self._usage)

    def _finish(self) -> None:
        """The dialect's end. An end before any chunk is none: nobody answered."""
        if not self._composer.has_started:
            self._composer.truncate(DIALECT)
            return
        if not self._composer.has_stopped:
            self._stop("")
        self._composer.close_calls()
        self._is_done = True

    def _fail(self, error: Json) -> None:
        """Takes an error in any shape: an object, a list of them, a bare sentence."""
        if isinstance(error, list):
            error = error[0] if error else None
        fields = as_object(error)
        inner = fields.get("error")
        if isinstance(inner, dict):
            fields = inner
        message = as_text(error) or as_text(fields.get("message")) or as_text(inner)
        code = as_text(fields.get("code")) or as_text(fields.get("type")) or FAILED
        status = _first_status(fields, "status_code", "status", "code")
        self._composer.fail(message or "the provider gave no message", code, status)


def _first_count(fields: dict[str, Json], *names: str) -> int | None:
    counts = (as_count(fields.get(name)) for name in names)
    return next((count for count in counts if count is not None), None)


def _first_status(fields: dict[str, Json], *names: str) -> int | None:
    """The first of these fields that is an HTTP status of an error, written as number or text."""
    for name in names:
        value = fields.get(name)
        if isinstance(value, str) and len(value) == 3 and value.isascii() and value.isdigit():
            value = int(value)
        status = as_count(value)
        if status is not None and 400 <= status <= 599:
            return status
    return None
