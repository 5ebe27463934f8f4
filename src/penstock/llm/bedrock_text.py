"""The plain text that some models give inside Bedrock's `chunk`: Titan, Llama and older ones.

Each chunk is one JSON object with the next text and, on the last one, the reason; a few have counts
beside them. They differ in the names of their fields, which do not collide:

    Titan    outputText, completionReason, inputTextTokenCount, totalOutputTextTokenCount
    Llama    generation, stop_reason, prompt_token_count, generation_token_count
    Mistral  outputs: [{text, stop_reason}]
    Cohere   text, finish_reason; tool_calls: [{name, parameters}]

The answer is whole when a reason was read. Titan gives none when a guardrail answers in its place;
there the total of output tokens, which only the last chunk has, is the end. What a guardrail found
is `Data` of kind "trace". Framing, errors and Bedrock's own counts are `bedrock.py`'s.

Sources: the provider's user guide ("Inference request parameters" of each model) and recorded
streams of Titan.
"""

from __future__ import annotations

from typing import Final

from penstock.llm.events import (
    Json,
    StopReason,
    Usage,
    as_json_text,
    as_list,
    as_object,
    as_text,
)
from penstock.llm.reader import DialectReader, first_count

_REASONS: Final[dict[str, StopReason]] = {
    "FINISH": "stop",
    "FINISHED": "stop",
    "STOP_CRITERIA_MET": "stop",
    "stop": "stop",
    "COMPLETE": "stop",
    "LENGTH": "length",
    "length": "length",
    "MAX_TOKENS": "length",
    "CONTENT_FILTERED": "content_filter",
    "ERROR_TOXIC": "content_filter",
    "INTERVENED": "content_filter",
}

_BREAKDOWNS: Final = frozenset({"ERROR", "ERROR_LIMIT"})


class TextReader(DialectReader):
    """Reads the chunks of one answer. They come from `bedrock.Reader`, already taken apart."""

    __slots__ = ()

    dialect = "bedrock"

    def receive_data(self, data: bytes) -> None:
        """Takes nothing: there are no bytes of this dialect on their own."""

    def _receive_payload(self, type: str, payload: dict[str, Json]) -> None:
        outputs = as_list(payload.get("outputs"))
        output = as_object(outputs[0]) if outputs else payload
        for name in ("outputText", "generation", "text"):
            self._composer.text(as_text(output.get(name)))
        for call in as_list(payload.get("tool_calls")):
            self._receive_call(as_object(call))
        raw = next(
            (
                text
                for name in ("completionReason", "stop_reason", "finish_reason")
                if (text := as_text(output.get(name)))
            ),
            "",
        )
        if not raw and first_count(payload, "totalOutputTextTokenCount") is not None:
            raw = as_text(payload.get("amazon-bedrock-guardrailAction")) or "FINISH"
        self._receive_counts(payload, is_last=bool(raw))
        if raw in _BREAKDOWNS:
            self._composer.fail(f"the provider gave the finish reason {raw!r}", raw)
        elif raw:
            reason = _REASONS.get(raw, "other")
            has_calls = reason == "stop" and self._composer.call_count
            self._composer.stop("tool_use" if has_calls else reason, raw)
        if payload.get("amazon-bedrock-trace"):
            self._composer.data("trace", payload["amazon-bedrock-trace"])

    def _receive_call(self, call: dict[str, Json]) -> None:
        key = self._composer.call_count
        arguments = as_json_text(call["parameters"]) if call.get("parameters") else ""
        self._composer.call(key, name=as_text(call.get("name")), arguments=arguments)
        self._composer.close_call(key)

    def _receive_counts(self, payload: dict[str, Json], *, is_last: bool) -> None:
        read = first_count(payload, "inputTextTokenCount", "prompt_token_count")
        written = first_count(payload, "totalOutputTextTokenCount", "generation_token_count")
        if read is None and written is None:
            return
        before = self._composer.last_usage
        self._composer.usage(
            Usage(
                input_tokens=before.input_tokens if read is None and before else read or 0,
                output_tokens=written or 0,
                partial=not is_last,
            )
        )
