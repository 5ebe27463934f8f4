"""The native representation: how a stream looks as Server-Sent Events.

One event a record: `id:` is the offset after it, `event:` its type, `key:` its key (a field that
every conforming parser ignores), `data:` its payload. Around them the events that are the
transport's own: `end`, `gap`, `drain`, `status`; comments as heartbeats; `retry:`. All of it is a
superset of nothing: a plain `EventSource` reads it, and resumes with it.

Reserved events carry a small JSON object. Those that move a reader's place (`gap`, `end`) have an
id; those that do not (`drain`, `status`) have none, so that the last one stays.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable, Mapping
from typing import Final

from penstock.core.cursor import DIGITS, END_MARK, Offset, offset_prefix, position_text
from penstock.core.record import Record
from penstock.wire.sse import encode_comment, encode_event, encode_retry

HEARTBEAT: Final = encode_comment()
_PAIRS: Final = [(a + b).encode() for a in DIGITS for b in DIGITS]
_BLOCK: Final = len(_PAIRS)


class NativeEncoder:
    """Records of one epoch to events. `binary`: payloads go as base64."""

    __slots__ = ("_binary", "_prefix")

    def __init__(self, epoch: int, *, binary: bool = False) -> None:
        self._prefix = offset_prefix(epoch).encode()
        self._binary = binary

    def encode(self, records: Iterable[Record]) -> list[bytes]:
        """Give one event a record, in order.

        Workload: replay of 100,000 records of 110 bytes to a late joiner. Writing the whole id
        for each record cost as much as the rest; ids that differ in the last two digits share
        what is before them, and plain payloads go through one formatting.
        """
        events: list[bytes] = []
        add = events.append
        block, shared = -1, b""
        for record in records:
            if self._binary:
                record = Record(record.position, b64encode(record.payload), record.type, record.key)
            payload, position = record.payload, record.position
            if (
                position < _BLOCK
                or record.type
                or record.key
                or b"\n" in payload
                or b"\r" in payload
            ):
                add(self._encode_one(record))
                continue
            upper = position // _BLOCK
            if upper != block:
                # All but the last two digits: the count of digits is that of the position.
                block = upper
                shared = self._prefix + position_text(position)[:-2].encode()
            add(b"id: %b%b\ndata: %b\n\n" % (shared, _PAIRS[position % _BLOCK], payload))
        return events

    def _encode_one(self, record: Record) -> bytes:
        return encode_event(
            record.payload,
            id=self._prefix + position_text(record.position).encode(),
            type=record.type.encode(),
            key=record.key.encode(),
        )


def preamble(retry_ms: int) -> bytes:
    """What goes out with the headers: a comment, so that no proxy holds them for want of a body
    byte, and the reconnection time."""
    return encode_comment(b"penstock") + encode_retry(retry_ms)


def end_event(tail: Offset, reason: str) -> bytes:
    """How the stream ended. Its id is the tail with the end mark."""
    return encode_event(_json({"reason": reason}), id=tail.end_id.encode(), type=b"end")


def lost_event(last_event_id: str) -> bytes:
    """The end of a stream nobody knows any more, for a reader that has seen some of it."""
    seen = last_event_id.removesuffix(END_MARK).encode()
    return encode_event(_json({"reason": "lost"}), id=seen + END_MARK.encode(), type=b"end")


def gap_event(asked: str, resume: Offset, reason: str) -> bytes:
    """History that is lost: from the place asked for (or what was sent as one) to the next kept."""
    body = {"from": asked, "to": str(resume), "reason": reason}
    return encode_event(_json(body), id=str(resume).encode(), type=b"gap")


def drain_event(retry_ms: int) -> bytes:
    """The server goes away: come back after so many milliseconds, and go on where you were."""
    return encode_retry(retry_ms) + encode_event(_json({"retry_ms": retry_ms}), type=b"drain")


def status_event(tail: Offset) -> bytes:
    """A heartbeat that a page can see."""
    return encode_event(_json({"tail": str(tail)}), type=b"status")


def _json(body: Mapping[str, str | int]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()
