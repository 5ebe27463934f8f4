"""The three ways providers frame a stream: server-sent events, JSON lines, AWS's binary messages.

Each is written here, and cut into its events again, so that a body can be sent event by event. No
dialect's events and fields.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from penstock.llm.events import Json, as_json_text

_EVENT_END: Final = re.compile(rb"\n\n|\r\n\r\n|\r\r")

_LENGTH: Final = struct.Struct(">I")
_PRELUDE: Final = struct.Struct(">II")
_STRING: Final = 7


def data(payload: dict[str, Json], *, line_end: str = "\n") -> bytes:
    """An event without a name."""
    return f"data: {as_json_text(payload)}{line_end * 2}".encode()


def named(type: str, fields: dict[str, Json]) -> bytes:
    """An event whose name stands beside its JSON and in it."""
    return f"event: {type}\n".encode() + data({"type": type, **fields})


def line(payload: dict[str, Json]) -> bytes:
    """A line of JSON."""
    return f"{as_json_text(payload)}\n".encode()


def message(headers: dict[str, str], payload: dict[str, Json]) -> bytes:
    """A message of AWS's event stream: both lengths, both sums, every header a string."""
    head = b"".join(_header(name, value) for name, value in headers.items())
    body = as_json_text(payload).encode()
    lengths = _PRELUDE.pack(len(head) + len(body) + 16, len(head))
    summed = lengths + _LENGTH.pack(zlib.crc32(lengths)) + head + body
    return summed + _LENGTH.pack(zlib.crc32(summed))


def _header(name: str, value: str) -> bytes:
    text = value.encode()
    return (
        struct.pack(">B", len(name)) + name.encode() + struct.pack(">BH", _STRING, len(text)) + text
    )


def split_events(body: bytes) -> tuple[bytes, ...]:
    """An SSE body, event by event, comments included. Together they are the body."""
    return _cut(body, [match.end() for match in _EVENT_END.finditer(body)])


def split_lines(body: bytes) -> tuple[bytes, ...]:
    """A body of JSON lines, line by line. Together they are the body."""
    return _cut(body, [match.end() for match in re.finditer(rb"\n", body)])


def split_messages(body: bytes) -> tuple[bytes, ...]:
    """A binary event stream, message by message; what is no message stays with its rest."""
    ends, place = list[int](), 0
    while len(body) - place >= _LENGTH.size:
        (total,) = _LENGTH.unpack_from(body, place)
        if not 16 <= total <= len(body) - place:
            break
        place += total
        ends.append(place)
    return _cut(body, ends)


def _cut(body: bytes, ends: list[int]) -> tuple[bytes, ...]:
    if not ends or ends[-1] < len(body):
        ends = [*ends, len(body)]
    return tuple(body[start:end] for start, end in zip([0, *ends], ends, strict=False) if end)


@dataclass(frozen=True, slots=True, kw_only=True)
class Framing:
    """One way to frame a stream.

    Attributes:
        media_type: of its bodies.
        split: a body in its events. Together they are the body.
        opening: the beginning of an event that goes on for as long as something follows.
    """

    media_type: str
    split: Callable[[bytes], tuple[bytes, ...]]
    opening: bytes


# Its end is announced, since this framing cannot leave that out: 8 MiB on.
_LONG: Final = _PRELUDE.pack(2**23, 0)

SSE: Final = Framing(media_type="text/event-stream", split=split_events, opening=b'data: {"a":"')
LINES: Final = Framing(media_type="application/x-ndjson", split=split_lines, opening=b'{"a":"')
BINARY: Final = Framing(
    media_type="application/vnd.amazon.eventstream",
    split=split_messages,
    opening=_LONG + _LENGTH.pack(zlib.crc32(_LONG)),
)
