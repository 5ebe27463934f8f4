"""`application/vnd.amazon.eventstream`: bytes to messages, AWS's binary framing.

A message is, big endian: total length (4 bytes), headers length (4), CRC-32 of those eight (4), the
headers, the payload, CRC-32 of everything before it (4). A header is a name (1 byte of length), a
type (1 byte) and a value, whose length the type says or two bytes in front of it do. What the
headers and payloads mean is a service's own; `bedrock.py` knows one.

Both sums are checked, the first before the lengths are believed. Where one is wrong there is no way
to find the next message: `broken` says so, and nothing more is taken. Source: the AWS SDKs'
"Event stream encoding" specification (smithy.io, Amazon Event Stream).
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Final, TypeAlias

from penstock.core.limits import MAX_EVENT_BYTES

HeaderValue: TypeAlias = "bool | int | str | bytes"

_PRELUDE: Final = struct.Struct(">III")
_SUM_BYTES: Final = 4
_LEAST: Final = _PRELUDE.size + _SUM_BYTES

_INTEGERS: Final = {2: struct.Struct(">b"), 3: struct.Struct(">h"), 4: struct.Struct(">i")} | {
    kind: struct.Struct(">q")  # a long, and a timestamp in milliseconds
    for kind in (5, 8)
}
_SHORT: Final = struct.Struct(">H")
_BYTES, _STRING, _UUID = 6, 7, 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message. `headers` are by name, colon and all (":event-type")."""

    headers: dict[str, HeaderValue]
    payload: bytes

    def text(self, name: str) -> str:
        """The header of this name where it is a string, else ""."""
        value = self.headers.get(name)
        return value if isinstance(value, str) else ""


class Decoder:
    """Turns the bytes of one body into messages. Cost is linear in them, however they are cut.

    Attributes:
        broken: why nothing more can be read, "" while it can. The messages before it stand.
    """

    __slots__ = ("_buffer", "_max_message_bytes", "_needed", "_ready", "broken")

    def __init__(self, *, max_message_bytes: int = MAX_EVENT_BYTES) -> None:
        self.broken = ""
        self._max_message_bytes = max_message_bytes
        self._ready: list[Message] = []
        self._buffer = bytearray()
        # Bytes until the next step is possible: a prelude, or the message whose prelude was right.
        self._needed = _PRELUDE.size

    def receive_data(self, data: bytes) -> None:
        """Takes the next bytes of the body, cut anywhere."""
        if self.broken:
            return
        self._buffer += data
        taken = 0
        while not self.broken and len(self._buffer) - taken >= self._needed:
            if self._needed == _PRELUDE.size:
                self._take_prelude(taken)
            else:
                self._take_message(bytes(self._buffer[taken : taken + self._needed]))
                taken += self._needed
                self._needed = _PRELUDE.size
        if self.broken:
            self._buffer.clear()
        elif taken:
            del self._buffer[:taken]

    def messages(self) -> list[Message]:
        """The messages completed since the last call, in order, each exactly once."""
        ready, self._ready = self._ready, []
        return ready

    def _take_prelude(self, start: int) -> None:
        total, headers, expected = _PRELUDE.unpack_from(self._buffer, start)
        if zlib.crc32(self._buffer[start : start + _PRELUDE.size - _SUM_BYTES]) != expected:
            self.broken = "the prelude of a message has another checksum than it says"
        elif not _LEAST + headers <= total:
            self.broken = "a message is shorter than its headers"
        elif total > self._max_message_bytes:
            self.broken = f"a message has {total} bytes, more than {self._max_message_bytes}"
        else:
            self._needed = total

    def _take_message(self, message: bytes) -> None:
        _, headers_length, _ = _PRELUDE.unpack_from(message)
        (expected,) = struct.unpack(">I", message[-_SUM_BYTES:])
        if zlib.crc32(message[:-_SUM_BYTES]) != expected:
            self.broken = "a message has another checksum than it says"
            return
        start = _PRELUDE.size + headers_length
        headers = _read_headers(message[_PRELUDE.size : start])
        if headers is None:
            self.broken = "the headers of a message cannot be read"
        else:
            self._ready.append(Message(headers=headers, payload=message[start:-_SUM_BYTES]))


def _read_headers(data: bytes) -> dict[str, HeaderValue] | None:
    """The headers in these bytes, or None where they are not headers."""
    headers: dict[str, HeaderValue] = {}
    place = 0
    try:
        while place < len(data):
            size = data[place]
            name = data[place + 1 : place + 1 + size].decode()
            place += 1 + size
            headers[name], place = _read_value(data[place], data, place + 1)
    except (IndexError, KeyError, UnicodeDecodeError, struct.error):
        return None
    return headers if place == len(data) else None


def _read_value(kind: int, data: bytes, place: int) -> tuple[HeaderValue, int]:
    """A header's value, and the place behind it."""
    if kind in (0, 1):
        return kind == 0, place
    if kind == _UUID:
        return data[place : place + 16], place + 16
    if kind in (_BYTES, _STRING):
        (size,) = _SHORT.unpack_from(data, place)
        end = place + _SHORT.size + size
        value = data[place + _SHORT.size : end]
        return (value.decode() if kind == _STRING else value), end
    layout = _INTEGERS[kind]
    return layout.unpack_from(data, place)[0], place + layout.size
