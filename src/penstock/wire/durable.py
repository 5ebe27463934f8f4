"""The Durable Streams representation: how a stream looks to the open protocol's own readers.

A body of its catch-up reads is the payloads alone: of a JSON stream an array, of any other one
after the other. Its SSE (`live=sse`) pairs each `data` event, which carries such a body, with a
`control` event that says where it ends. The caching cursor counts intervals of time, so that what
caches keep of a live read is asked for anew. (Durable Streams 1.0, 5.5 to 5.8, 8.1.)

Beyond the protocol, and ignored by its clients: the `data` event has an `id:`, the offset after
it, so that a plain `EventSource` resumes where it was; the last `control` says how the stream
ended. What may not be here: anything of the native events, which are in `native.py`.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from penstock.core.cursor import Offset
from penstock.core.errors import QueryMalformed
from penstock.core.limits import CURSOR_INTERVAL_S, MAX_KEY_BYTES
from penstock.core.producer import MAX_NUMBER, Stamp
from penstock.core.record import Record
from penstock.wire.http import is_json, is_text, text_of

CURSOR_ORIGIN_S: Final = 1_728_432_000
"""2024-10-09T00:00:00Z, from which the protocol counts its intervals."""
MOST_JITTER: Final = 3600 // CURSOR_INTERVAL_S
"""Most intervals a cursor is pushed ahead of one that came back too soon."""
MAX_TTL_S: Final = 2**31 - 1
"""Longest time-to-live: 68 years."""

ZERO: Final = "0000000000000000_0000000000000000"
"""How the reference server writes the beginning; clients and tests of it are seen to send it."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBER: Final = re.compile(r"(0|[1-9][0-9]{0,15})\Z")
_DIGITS: Final = re.compile(r"[0-9]{1,16}\Z")
_TIME: Final = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)\Z", re.IGNORECASE
)


def body(records: Sequence[Record], content_type: str) -> bytes:
    """What a catch-up response carries of these records; of none, an empty body or array."""
    payloads = [record.payload for record in records]
    if is_json(content_type):
        return b"[" + b",".join(payloads) + b"]"
    return b"".join(payloads)


def data_event(records: Sequence[Record], after: Offset, content_type: str) -> bytes:
    """Records as one `data` event. What is neither text nor JSON goes as base64."""
    payload = body(records, content_type)
    if not is_text(content_type):
        payload = b64encode(payload)
    return _event(b"data", payload, str(after))


def control_event(
    after: Offset, cursor: int, *, is_up_to_date: bool, end: str | None = None
) -> bytes:
    """Where what came before ends, and whether that is the tail; with `end`, that it is the last.

    The last one has the end's own id: an `EventSource` that comes back with it is stopped.
    """
    fields: dict[str, str | bool] = {"streamNextOffset": str(after)}
    if end is not None:
        fields |= {"streamClosed": True, "streamEndReason": end}
        return _event(b"control", _json(fields), after.end_id)
    fields["streamCursor"] = str(cursor)
    if is_up_to_date:
        fields["upToDate"] = True
    return _event(b"control", _json(fields))


def _event(type_: bytes, data: bytes, id_: str = "") -> bytes:
    """One event. After the colon of a `data:` stands no space, which readers of this protocol were
    seen to rely on, but where the line begins with one itself: parsers take one away."""
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    data = data.replace(b"\n", b"\ndata:")
    if b"data: " in data or data[:1] == b" ":
        lines = data.split(b"\ndata:")
        data = b"\ndata:".join(b" " + line if line[:1] == b" " else line for line in lines)
    head = b"id: %b\n" % id_.encode() if id_ else b""
    return b"%bevent: %b\ndata:%b\n\n" % (head, type_, data)


def cursor_at(now_s: float) -> int:
    """The interval that a moment lies in, counted from the protocol's origin."""
    return max(0, int(now_s) - CURSOR_ORIGIN_S) // CURSOR_INTERVAL_S


def next_cursor(now_s: float, seen: int | None, random: float) -> int:
    """Draw a response's cursor: the current interval, and always beyond the one the client has
    seen. `random` is in [0, 1)."""
    current = cursor_at(now_s)
    if seen is None or seen < current:
        return current
    return seen + 1 + int(random * MOST_JITTER)


def parse_cursor(text: str | None) -> int | None:
    """Read the `cursor` of a query. Raises QueryMalformed for what no server gave."""
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 16 and int(text) < MAX_NUMBER):
        raise QueryMalformed("cursor", text, "the Stream-Cursor of an earlier response")
    return int(text)


def parse_stamp(given: Mapping[bytes, bytes]) -> Stamp | None:
    """Read an idempotent producer's three headers: all of them or none. Raises QueryMalformed."""
    producer = text_of(given, b"producer-id")
    epoch = text_of(given, b"producer-epoch")
    seq = text_of(given, b"producer-seq")
    if producer is None and epoch is None and seq is None:
        return None
    if producer is None or epoch is None or seq is None:
        raise QueryMalformed("producer-id", producer or "", "Producer-Epoch and -Seq with it")
    if not producer or not producer.isprintable() or len(producer.encode()) > MAX_KEY_BYTES:
        raise QueryMalformed("producer-id", producer, f"text of 1 to {MAX_KEY_BYTES} bytes")
    return Stamp(producer, _number("producer-epoch", epoch), _number("producer-seq", seq))


def _number(name: str, text: str) -> int:
    if not _DIGITS.match(text) or int(text) > MAX_NUMBER:
        raise QueryMalformed(name, text, "a whole number from 0 to 2^53 - 1")
    return int(text)


def parse_count(name: str, text: str | None) -> int | None:
    """Read a number without sign, leading zeros or exponent. Raises QueryMalformed."""
    if text is None:
        return None
    if not _NUMBER.match(text) or int(text) > MAX_NUMBER:
        raise QueryMalformed(name, text, "a whole number without leading zeros")
    return int(text)


def parse_expiry(given: Mapping[bytes, bytes]) -> tuple[int | None, float | None]:
    """Read `Stream-TTL`, in seconds, or `Stream-Expires-At`, as seconds since 1970; not both.

    Raises QueryMalformed.
    """
    ttl_s = parse_count("stream-ttl", text_of(given, b"stream-ttl"))
    text = text_of(given, b"stream-expires-at")
    if ttl_s is not None and text is not None:
        raise QueryMalformed("stream-ttl", str(ttl_s), "it or Stream-Expires-At, not both")
    if ttl_s is not None and ttl_s > MAX_TTL_S:
        raise QueryMalformed("stream-ttl", str(ttl_s), f"at most {MAX_TTL_S} seconds")
    return ttl_s, None if text is None else _time(text)


def _time(text: str) -> float:
    try:
        if not _TIME.match(text):
            raise ValueError(text)
        seconds = datetime.fromisoformat(text.upper()).timestamp()
        time_text(seconds)  # what is taken is told again: its zone may lead beyond all years
    except (ValueError, OverflowError):
        raise QueryMalformed("stream-expires-at", text, "a time as RFC 3339 has it") from None
    return seconds


def time_text(seconds: float) -> str:
    """Write seconds since 1970 as RFC 3339 has it, in UTC and milliseconds."""
    moment = _EPOCH + timedelta(seconds=seconds)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def etag(after: Offset, until: Offset, *, is_closed: bool) -> bytes:
    """The entity tag of a read: what it begins after, where it ends, and whether that is the end
    of the stream. The same offsets name the same bytes for ever, so it is a strong one."""
    return f'"{after}.{until}{".c" if is_closed else ""}"'.encode()


def is_named(tag: bytes, asked: str | None) -> bool:
    """Whether an `If-None-Match` names a tag. It is compared weakly (RFC 9110 13.1.2): who
    compresses on the way makes a strong tag a weak one."""
    if asked is None:
        return False
    if asked == "*":
        return True
    return tag.decode() in (item.strip(" \t").removeprefix("W/") for item in asked.split(","))


def _json(fields: dict[str, str | bool]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode()
