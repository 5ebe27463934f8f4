"""Token events as records of the log.

The one place where a token becomes bytes on its way in. Most of an answer is text, a few characters
at a time, so text has a way of its own; everything else goes by `events.to_record`. The way back is
`server/token_records.py`'s.
"""

from __future__ import annotations

from collections.abc import Iterable

from penstock.core.record import NewRecord, Record
from penstock.llm.events import Reasoning, Text, TokenEvent, to_record
from penstock.llm.write.writer import as_wire_json
from penstock.server.token_records import event_of

_CONTENT_TYPES = frozenset({"text", "reasoning", "tool_delta", "tool", "data", "stop"})


def record_of(event: TokenEvent) -> NewRecord:
    """The record of a token event: its type, and its payload as JSON."""
    if type(event) is Text:
        return NewRecord(b'{"text":%b}' % as_wire_json(event.text), "text")
    if type(event) is Reasoning:
        return NewRecord(b'{"text":%b}' % as_wire_json(event.text), "reasoning")
    name, payload = to_record(event)
    return NewRecord(as_wire_json(payload), name)


def in_pieces(event: TokenEvent) -> list[TokenEvent]:
    """Two events in the place of one that is too large for a record; none where it has to be one
    record or nothing."""
    if not isinstance(event, Text | Reasoning) or len(event.text) < 2:
        return []
    kind, middle = type(event), len(event.text) // 2
    return [kind(text=event.text[:middle]), kind(text=event.text[middle:])]


def is_content(record: Record) -> bool:
    """Whether a record is something that the model said."""
    return record.type in _CONTENT_TYPES


def events_of(records: Iterable[Record]) -> list[TokenEvent]:
    """The token events among records, in order."""
    return [event for record in records if (event := event_of(record)) is not None]
