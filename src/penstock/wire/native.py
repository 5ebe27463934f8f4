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
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Final, cast

from penstock.core.cursor import DIGITS, END_MARK, Offset, offset_prefix, position_text
from penstock.core.record import Record
from penstock.wire.sse import encode_comment, encode_event, encode_retry

HEARTBEAT: Final = encode_comment()
_PAIRS: Final = [(a + b).encode() for a in DIGITS for b in DIGITS]
_BLOCK: Final = len(_PAIRS)
_SHORT: Final = [position_text(position).encode() for position in range(_BLOCK)]
_payload_of: Final = cast("Callable[[Record], bytes]", attrgetter("payload"))
_type_of: Final = cast("Callable[[Record], str]", attrgetter("type"))
_key_of: Final = cast("Callable[[Record], str]", attrgetter("key"))


class NativeEncoder:
    """Records of one epoch to events. `binary`: payloads go as base64."""

    __slots__ = ("_binary", "_prefix")

    def __init__(self, epoch: int, *, binary: bool = False) -> None:
        self._prefix = offset_prefix(epoch).encode()
        self._binary = binary

    def encode(self, records: Iterable[Record]) -> list[bytes]:
        """Give one event a record, in order.

        Workload: a token a time, to few readers each. A plain record goes through one formatting,
        0.4 µs, where checking and joining every field costs 3.
        """
        events: list[bytes] = []
        prefix = self._prefix
        for record in records:
            position, payload = record.position, record.payload
            if record.type or record.key or b"\n" in payload or b"\r" in payload or self._binary:
                events.append(self._encode_one(record))
            else:
                place = _SHORT[position] if position < _BLOCK else position_text(position).encode()
                events.append(b"id: %b%b\ndata: %b\n\n" % (prefix, place, payload))
        return events

    def encode_joined(self, records: Sequence[Record]) -> bytes:
        """Give the events of consecutive records as one run of bytes: `encode`, joined.

        Workload: replay of 100,000 records of 85 bytes to a late joiner. Making each event by
        itself and joining them costs 1.2 µs a record; here nothing is done for each record but in
        C, 0.2 µs. A payload with a line end in it sends its neighbours the slow way too.
        """
        if self._binary or not _is_dense(records):
            return b"".join(self.encode(records))
        short = len(DIGITS) - records[0].position  # ids of one digit
        if short > 0:
            return b"".join(self.encode(records[:short])) + self.encode_joined(records[short:])
        payloads = list(map(_payload_of, records))
        content = b"".join(payloads)
        if b"\n" in content or b"\r" in content:
            return b"".join(self.encode(records))
        heads = self._heads(records[0].position, records[-1].position)
        parts = [b""] * (3 * len(records))
        parts[0::3], parts[1::3], parts[2::3] = heads, _middles(records), payloads
        # Each head begins with the end of the event before it; the first has none before it.
        parts[0] = parts[0][2:]
        parts.append(b"\n\n")
        return b"".join(parts)

    def _heads(self, first: int, last: int) -> list[bytes]:
        """The `id:` lines of a dense run of positions, but for their last two digits: ids of one
        block share the rest."""
        heads: list[bytes] = []
        for block in range(first // _BLOCK, last // _BLOCK + 1):
            start = block * _BLOCK
            low, high = max(first - start, 0), min(last - start + 1, _BLOCK)
            # Of the first block, ids of two digits are meant; their count is all that is shared.
            shared = position_text(start)[:-2].encode() if start else b"2"
            heads += [b"\n\nid: " + self._prefix + shared] * (high - low)
        return heads

    def _encode_one(self, record: Record) -> bytes:
        payload = b64encode(record.payload) if self._binary else record.payload
        return encode_event(
            payload,
            id=self._prefix + position_text(record.position).encode(),
            type=record.type.encode(),
            key=record.key.encode(),
        )


def _is_dense(records: Sequence[Record]) -> bool:
    return len(records) > 0 and records[-1].position - records[0].position == len(records) - 1


def _middles(records: Sequence[Record]) -> list[bytes]:
    """What stands between each head and its payload: two digits, the names, `data: `."""
    first, count = records[0], len(records)
    low, high = first.position, first.position + count
    types, keys = list(map(_type_of, records)), list(map(_key_of, records))
    # Comparing lists of the same few strings is comparing pointers; a set would hash them all.
    if types == [first.type] * count and keys == [first.key] * count:
        tails = _tails(first.type, first.key)
        middles: list[bytes] = []
        while low < high:
            stop = min(high, (low // _BLOCK + 1) * _BLOCK)
            middles += tails[low % _BLOCK : low % _BLOCK + stop - low]
            low = stop
        return middles
    forms = {(type_, key): _form(type_, key) for type_ in set(types) for key in set(keys)}
    names = zip(types, keys, strict=True)
    return [
        _PAIRS[position % _BLOCK] + forms[name]
        for position, name in zip(range(low, high), names, strict=True)
    ]


@lru_cache(maxsize=16)
def _tails(type_: str, key: str) -> list[bytes]:
    """The middles of one block's records that have these names. 200 KB each; streams use few."""
    form = _form(type_, key)
    return [pair + form for pair in _PAIRS]


def _form(type_: str, key: str) -> bytes:
    type_line = f"\nevent: {type_}" if type_ else ""
    key_line = f"\nkey: {key}" if key else ""
    return f"{type_line}{key_line}\ndata: ".encode()


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
