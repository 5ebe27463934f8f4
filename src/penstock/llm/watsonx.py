"""IBM watsonx.ai, `text/generation_stream`: a prompt that is continued, result by result.

A body is SSE with ids and `event: message`, each a JSON object with the model and one result: the
next text, the reason, and the counts, of which the output's is cumulative and the input's stands in
the first event only. While the model goes on the reason is "not_finished"; any other is its stop,
and then the body ends. There is no mark of the end: a body that ends before a reason was read is
`upstream-truncated`. Errors are `errors: [{code, message}]`, and the reasons "error", "cancelled".

`text/chat_stream` of the same provider is OpenAI's chat completions. Moderations of a result are
passed through under that name; the system's warnings are not part of the answer.

Sources: the provider's reference ("Infer text event stream") and recorded streams.
"""

from __future__ import annotations

from typing import Final

from penstock.llm.assemble import Composer
from penstock.llm.events import (
    FAILED,
    Json,
    StopReason,
    Usage,
    as_list,
    as_object,
    as_text,
)
from penstock.llm.reader import SseReader, first_count

DIALECT: Final = "watsonx"

_REASONS: Final[dict[str, StopReason]] = {
    "eos_token": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "token_limit": "length",
    "time_limit": "length",
}

_BREAKDOWNS: Final = {"error": FAILED, "cancelled": "cancelled"}


class Reader(SseReader):
    """Reads one answer in this dialect. See `penstock.llm.events.TokenReader` for the contract."""

    __slots__ = ("_input_tokens", "_output_tokens")

    dialect = DIALECT

    def __init__(self, composer: Composer | None = None) -> None:
        super().__init__(composer)
        self._input_tokens = self._output_tokens = 0

    def _receive_payload(self, type: str, payload: dict[str, Json]) -> None:
        if payload.get("errors"):
            self._fail(payload)
            return
        results = as_list(payload.get("results"))
        if not results:
            return
        result = as_object(results[0])
        self._composer.start(model=as_text(payload.get("model_id")))
        self._composer.text(as_text(result.get("generated_text")))
        if result.get("moderations"):
            self._composer.data("moderations", result["moderations"])
        # Documented in small letters, with the advice to compare without regard to case.
        raw = as_text(result.get("stop_reason")).lower()
        is_last = raw not in ("", "not_finished")
        self._receive_counts(result, is_last=is_last)
        if raw in _BREAKDOWNS:
            self._composer.fail(f"the provider gave the stop reason {raw!r}", _BREAKDOWNS[raw])
        elif is_last:
            self._composer.stop(_REASONS.get(raw, "other"), raw)

    def _receive_counts(self, result: dict[str, Json], *, is_last: bool) -> None:
        read = first_count(result, "input_token_count")
        written = first_count(result, "generated_token_count")
        if read is None and written is None:
            return
        # Both only grow; where one is not counted again it is 0.
        self._input_tokens = max(self._input_tokens, read or 0)
        self._output_tokens = max(self._output_tokens, written or 0)
        self._composer.usage(
            Usage(
                input_tokens=self._input_tokens,
                output_tokens=self._output_tokens,
                partial=not (is_last or self._composer.has_stopped),
            )
        )
