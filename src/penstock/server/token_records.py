"""Records as token events: what a log holds of an answer, read back.

Records are written by the gateway, by producers of one's own, and by anybody with a POST, so
nothing is believed of them. What is no token event is None, and never an error.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from penstock.core.errors import BodyMalformed
from penstock.core.record import Record
from penstock.llm.events import (
    TOKEN_TYPES,
    Json,
    Reasoning,
    Text,
    TokenEvent,
    from_record,
    parse_object,
)

# As deep as a request may nest, of which an opening record can repeat some, and a few levels
# around it. Deeper values would exhaust the stack of who writes them, one time and not another.
_MAX_DEPTH: Final = 128

_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"')
_BRACKET: Final = re.compile(rb"[\[\]{}]")

_TEXT_BEGINS: Final = b'{"text":"'


def plain_text(payload: bytes) -> bytes | None:
    """The JSON string of a record of text, where it is on any dialect's wire as it is in the log:
    no escape in it, no character that some client takes for a line end. None elsewhere."""
    if not payload.startswith(_TEXT_BEGINS) or b"\\" in payload:
        return None
    last = len(payload) - 2
    if payload.find(b'"', len(_TEXT_BEGINS)) != last or payload[last + 1 :] != b"}":
        return None
    if not payload.isascii() and (b"\xe2\x80" in payload or b"\xc2\x85" in payload):
        return None
    return payload[len(_TEXT_BEGINS) - 1 : -1]


class _Said(msgspec.Struct):
    text: str


_decode_said = msgspec.json.Decoder(_Said).decode


def event_of(record: Record) -> TokenEvent | None:
    """The token event of a record; None where it is none: anybody may have written it."""
    type, payload = record.type, record.payload
    # Nearly every record of an answer is a few characters of text: 0.5 µs this way, 4 by the other.
    if type in ("text", "reasoning"):
        try:
            text = _decode_said(payload).text
        except msgspec.DecodeError:
            pass  # perhaps half a character, which only a laxer reader takes
        else:
            return Text(text=text) if type == "text" else Reasoning(text=text)
    elif type not in TOKEN_TYPES or is_deep(payload):
        return None
    try:
        return from_record(type, _object_of(payload))
    except BodyMalformed:
        return None


def _object_of(payload: bytes) -> dict[str, Json]:
    try:
        return parse_object(payload.decode()) or {}
    except UnicodeDecodeError:
        return {}


def is_deep(payload: bytes) -> bool:
    """Whether a JSON text nests deeper than any that we write."""
    if payload.count(b"[") + payload.count(b"{") <= _MAX_DEPTH:
        return False
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub(b"", payload)):
        depth += 1 if bracket in b"[{" else -1
        if depth > _MAX_DEPTH:
            return True
    return False
