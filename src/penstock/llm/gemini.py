"""Google Gemini, `streamGenerateContent?alt=sse`: an answer as chunks of one candidate's parts.

A body is SSE of `data:` lines, each a `GenerateContentResponse`; line ends are CRLF. There is no
mark at the end: the last chunk has a `finishReason`, and then the body ends. Some models name one
in every chunk, so the last one named counts and the `Stop` is given when the body ends; a body that
ends without one is `upstream-truncated`. A prompt that was blocked (`promptFeedback.blockReason`)
got no answer and is a `Failure`, and so are the finish reasons that say the model's output could
not be used, such as a malformed function call.

What becomes what. A part's `text` is `Text`, or `Reasoning` where it is a `thought`. A
`functionCall` comes whole, its arguments a value; Vertex can also write them in pieces
(`partialArgs`, each with a JSON path), which are put together and given as one. A signature that
must be sent back with the next turn is `Data` of kind "thoughtSignature" right after what it signs.
Every other part (images, code that Google ran and its result, server-side tools) is passed through
whole, kind being the field that names it; so are the grounding, citations and fetched addresses
of a candidate. Candidates with an index above 0 are `Data` of kind "candidate".

Counts are cumulative and on most chunks. What the model thought is counted beside the candidate's
tokens, and what Google's own tools fed it beside the prompt's; here both are part of the whole.

Sources: the provider's reference (`GenerateContentResponse`, `Candidate.FinishReason`,
`UsageMetadata`), Vertex AI's (`FunctionCall`, `PartialArg`), and recorded streams.
"""

from __future__ import annotations

import re
from typing import Final

from penstock.llm.assemble import HELD_OVERHEAD_BYTES, Composer
from penstock.llm.events import (
    Json,
    StopReason,
    Usage,
    as_count,
    as_json_text,
    as_list,
    as_object,
    as_text,
)
from penstock.llm.reader import SseReader, first_count

DIALECT: Final = "gemini"

_REASONS: Final[dict[str, StopReason]] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
    "MODEL_ARMOR": "content_filter",
    "LANGUAGE": "other",
    "OTHER": "other",
}

# Finish reasons which say that what the model wrote could not be used, so that the answer lacks it.
_BREAKDOWNS: Final = frozenset(
    {
        *("MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS"),
        *("MISSING_THOUGHT_SIGNATURE", "MALFORMED_RESPONSE"),
    }
)

# What a candidate carries beside its content.
_PASSED: Final = ("groundingMetadata", "citationMetadata", "urlContextMetadata")

# Fields of a part that say something about it, and not what it is.
_ABOUT: Final = frozenset({"thoughtSignature", "thought", "videoMetadata", "partMetadata"})

# One step of a JSON path as RFC 9535 writes it: `.name`, `['name']`, `["name"]` or `[0]`.
_STEP: Final = re.compile(r"\.([^.\[\]]+)|\['([^']*)'\]|\[\"([^\"]*)\"\]|\[(\d{1,9})\]")
_MAX_STEPS: Final = 64


class Reader(SseReader):
    """Reads one answer in this dialect. See `penstock.llm.events.TokenReader` for the contract."""

    __slots__ = ("_finish", "_open_key", "_partial", "_partial_held", "_passed")

    dialect = DIALECT

    def __init__(self, composer: Composer | None = None) -> None:
        super().__init__(composer)
        self._finish = ""
        self._passed: dict[str, Json] = {}
        # The call whose arguments come in pieces: its key, and the pieces by their paths.
        self._open_key: int | None = None
        self._partial: dict[str, list[Json]] = {}
        self._partial_held = 0

    def _receive_end(self) -> None:
        if not self._finish:
            self._composer.truncate(DIALECT)
            return
        self._close_call()
        reason = _REASONS.get(self._finish, "other")
        if reason == "stop" and self._composer.call_count:
            reason = "tool_use"
        self._composer.stop(reason, self._finish)
        self._is_done = True

    def _receive_payload(self, type: str, payload: dict[str, Json]) -> None:
        candidates = [as_object(candidate) for candidate in as_list(payload.get("candidates"))]
        id, model = as_text(payload.get("responseId")), as_text(payload.get("modelVersion"))
        if id or model or candidates:
            self._composer.start(id=id, model=model)
        for candidate in candidates:
            if as_count(candidate.get("index")):
                self._composer.data("candidate", candidate)
            else:
                self._receive_candidate(candidate)
        self._receive_usage(as_object(payload.get("usageMetadata")))
        feedback = as_object(payload.get("promptFeedback"))
        if blocked := as_text(feedback.get("blockReason")):
            said = as_text(feedback.get("blockReasonMessage"))
            self._composer.fail(f"the prompt was blocked: {said or blocked}", blocked)
        elif self._finish in _BREAKDOWNS:
            said = [as_text(candidate.get("finishMessage")) for candidate in candidates]
            self._composer.fail(
                next(filter(None, said), f"the provider gave the finish reason {self._finish!r}"),
                self._finish,
            )

    def _receive_candidate(self, candidate: dict[str, Json]) -> None:
        for part in as_list(as_object(candidate.get("content")).get("parts")):
            self._receive_part(as_object(part))
        for kind in _PASSED:
            value = candidate.get(kind)
            if value and self._passed.get(kind) != value:
                self._passed[kind] = value
                self._composer.data(kind, value)
        self._finish = as_text(candidate.get("finishReason")) or self._finish

    def _receive_part(self, part: dict[str, Json]) -> None:
        text = as_text(part.get("text"))
        if part.get("thought") is True:
            self._composer.reasoning(text)
        else:
            self._composer.text(text)
        call = part.get("functionCall")
        if isinstance(call, dict):
            self._receive_call(call)
        kind = next((name for name in part if name not in _ABOUT), "")
        if kind not in ("", "text", "functionCall"):
            self._composer.data(kind, part)
        elif signature := part.get("thoughtSignature"):
            self._composer.data("thoughtSignature", signature)

    def _receive_call(self, call: dict[str, Json]) -> None:
        name, args, pieces = as_text(call.get("name")), call.get("args"), call.get("partialArgs")
        # While a call goes on, pieces are its own, named or not; a name without one begins another.
        if self._open_key is None or (name and not pieces):
            self._close_call()
            self._open_key = self._composer.call_count
        self._composer.call(self._open_key, id=as_text(call.get("id")), name=name)
        for piece in as_list(pieces):
            self._receive_piece(as_object(piece))
        if args:
            whole = args if isinstance(args, str) else as_json_text(args)
            self._composer.call(self._open_key, arguments=whole)
        if call.get("willContinue") is not True:
            self._close_call()

    def _receive_piece(self, piece: dict[str, Json]) -> None:
        """A piece of one argument: of a text, the next part; of anything else, the whole."""
        path = as_text(piece.get("jsonPath"))
        for kind in ("stringValue", "numberValue", "boolValue"):
            if kind in piece:
                self._add(path, piece[kind], len(as_json_text(piece[kind])))
                return
        if "nullValue" in piece:
            self._add(path, None, 0)

    def _add(self, path: str, value: Json, size: int) -> None:
        size += HELD_OVERHEAD_BYTES if path not in self._partial else 64
        self._partial.setdefault(path, []).append(value)
        self._partial_held += size
        self._composer.hold(size)

    def _close_call(self) -> None:
        if self._open_key is None:
            return
        if self._partial:
            arguments = as_json_text(_assembled(self._partial))
            self._partial = {}
            self._composer.hold(-self._partial_held)
            self._partial_held = 0
            self._composer.call(self._open_key, arguments=arguments)
        self._composer.close_call(self._open_key)
        self._open_key = None

    def _receive_usage(self, usage: dict[str, Json]) -> None:
        if not usage:
            return
        thoughts = first_count(usage, "thoughtsTokenCount")
        self._composer.usage(
            Usage(
                input_tokens=(first_count(usage, "promptTokenCount") or 0)
                + (first_count(usage, "toolUsePromptTokenCount") or 0),
                output_tokens=(first_count(usage, "candidatesTokenCount") or 0) + (thoughts or 0),
                reasoning_tokens=thoughts,
                cached_tokens=first_count(usage, "cachedContentTokenCount"),
                partial=not self._finish,
            )
        )


def _assembled(partial: dict[str, list[Json]]) -> Json:
    """The arguments that these pieces make, by their paths in the order they first came."""
    root: Json = {}
    for path, pieces in partial.items():
        texts = [piece for piece in pieces if isinstance(piece, str)]
        value = "".join(texts) if texts else pieces[-1]
        steps = [
            int(number) if number else name or quoted or double
            for name, quoted, double, number in _STEP.findall(path)[:_MAX_STEPS]
        ]
        _put(root, steps, value)
    return root


def _put(root: Json, steps: list[str | int], value: Json) -> None:
    """Writes `value` at the end of these steps and makes what is missing on the way.

    A number beyond a list's end appends: a path must not cost more than it says.
    """
    place = root
    for step, following in zip(steps, (*steps[1:], None), strict=False):
        made: Json = value
        if following is not None:
            known = _at(place, step)
            made = known if isinstance(known, dict | list) else [] if _is_place(following) else {}
        if isinstance(place, dict):
            place[str(step)] = made
        elif not isinstance(place, list) or not isinstance(step, int):
            return
        elif step < len(place):
            place[step] = made
        else:
            place.append(made)
        place = made


def _at(place: Json, step: str | int) -> Json:
    """What is at this step already."""
    if isinstance(place, dict):
        return place.get(str(step))
    if isinstance(place, list) and isinstance(step, int) and step < len(place):
        return place[step]
    return None


def _is_place(step: str | int) -> bool:
    return isinstance(step, int)
