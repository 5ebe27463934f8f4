"""Which token events can be one: consecutive deltas of the same thing.

A late joiner of an answer of 2,000 tokens is shown what they say, in a handful of records. The
functions work on records' payloads, as `to_record` wrote them; what they do not recognise they
leave apart.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Final

from penstock.llm.events import Json, parse_object


def merge_text(first: bytes, second: bytes) -> bytes | None:
    """One delta of text, or of reasoning, for two."""
    a, b = _text_of(first), _text_of(second)
    return None if a is None or b is None else _payload({"text": a + b})


def merge_tool_delta(first: bytes, second: bytes) -> bytes | None:
    """One delta of a tool call for two of the same: the second brings only arguments."""
    a, b = _object_of(first), _object_of(second)
    if a is None or b is None or set(b) != {"index", "arguments"} or a.get("index") != b["index"]:
        return None
    begun, more = a.get("arguments", ""), b["arguments"]
    if not isinstance(begun, str) or not isinstance(more, str):
        return None
    return _payload({**a, "arguments": begun + more})


MERGES: Final[Mapping[str, Callable[[bytes, bytes], bytes | None]]] = {
    "text": merge_text,
    "reasoning": merge_text,
    "tool_delta": merge_tool_delta,
}
"""By record type."""


def _text_of(payload: bytes) -> str | None:
    value = _object_of(payload)
    if value is None or set(value) != {"text"}:
        return None
    text = value["text"]
    return text if isinstance(text, str) else None


def _object_of(payload: bytes) -> dict[str, Json] | None:
    try:
        return parse_object(payload.decode())
    except UnicodeDecodeError:
        return None


def _payload(value: dict[str, Json]) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        # Half a character, which only an escape can say; its other half may come with the next.
        return json.dumps(value, separators=(",", ":")).encode()
