"""What the tests of all readers share: bodies written by hand, read whole or cut, and looked at."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import TypeVar

from penstock.llm.assemble import Answer, Assembler
from penstock.llm.dialects import find_dialect
from penstock.llm.events import (
    Data,
    Failure,
    Start,
    Stop,
    TokenEvent,
    ToolCall,
    Usage,
    from_record,
    to_record,
)

E = TypeVar("E")


def read(dialect: str, *pieces: bytes) -> list[TokenEvent]:
    """The events of a body that comes in these pieces, drained after each."""
    reader = find_dialect(dialect).make_reader()
    events: list[TokenEvent] = []
    for piece in pieces:
        reader.receive_data(piece)
        events += reader.events()
    reader.receive_eof()
    return events + reader.events()


def answer(events: Iterable[TokenEvent]) -> Answer:
    assembler = Assembler()
    for event in events:
        assembler.receive_event(event)
    return assembler.answer()


def only(kind: type[E], events: Iterable[object]) -> list[E]:
    return [event for event in events if isinstance(event, kind)]


def calls(events: Iterable[TokenEvent]) -> list[tuple[str, str, str]]:
    """Id, name and arguments of every whole tool call."""
    whole = only(ToolCall, events)
    assert [call.index for call in whole] == sorted(call.index for call in whole)
    return [(call.id, call.name, call.arguments) for call in whole]


def failure(dialect: str, *pieces: bytes) -> Failure:
    last = read(dialect, *pieces)[-1]
    assert isinstance(last, Failure)
    return last


def drip(body: bytes) -> list[bytes]:
    return [bytes([byte]) for byte in body]


def cut(body: bytes, places: Sequence[int]) -> list[bytes]:
    places = sorted(places)
    return [body[a:b] for a, b in zip([0, *places], [*places, len(body)], strict=True)]


def assert_in_order(events: list[TokenEvent]) -> None:
    """The order that `events.py` promises, and that every event survives its record."""
    assert events
    kinds = [type(event) for event in events]
    assert kinds[0] in (Start, Failure)
    assert kinds.count(Start) <= 1
    assert kinds.count(Stop) <= 1
    assert Failure not in kinds[:-1]
    assert Stop in kinds or kinds[-1] is Failure
    if Stop in kinds:
        assert set(kinds[kinds.index(Stop) + 1 :]) <= {Data, Usage, Failure}
    for event in events:
        name, payload = to_record(event)
        # What cannot be UTF-8, or is no JSON, raises here.
        wire = json.dumps(payload, ensure_ascii=False, allow_nan=False).encode()
        assert from_record(name, json.loads(wire)) == event


def data(payload: object) -> bytes:
    return f"data: {json.dumps(payload)}\n\n".encode()


def named(type: str, **fields: object) -> bytes:
    """An event whose type stands beside its JSON and in it."""
    return f"event: {type}\n".encode() + data({"type": type, **fields})


def line(**fields: object) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def string_header(name: str, value: str) -> bytes:
    """A header of the type that is a string."""
    key, text = name.encode(), value.encode()
    return bytes([len(key)]) + key + b"\x07" + struct.pack(">H", len(text)) + text


def frame(headers: bytes, payload: bytes) -> bytes:
    """A message of AWS's framing with right checksums."""
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    prelude += struct.pack(">I", zlib.crc32(prelude))
    message = prelude + headers + payload
    return message + struct.pack(">I", zlib.crc32(message))


def message(type: str, payload: object, kind: str = "event") -> bytes:
    headers = string_header(f":{kind}-type", type)
    headers += string_header(":content-type", "application/json")
    headers += string_header(":message-type", kind)
    return frame(headers, json.dumps(payload).encode())


def chunk(native: object) -> bytes:
    """A model's own JSON as Bedrock wraps it."""
    wrapped = base64.b64encode(json.dumps(native).encode()).decode()
    return message("chunk", {"bytes": wrapped, "p": "abc"})


def frames(body: bytes) -> list[bytes]:
    """A body of AWS's framing, message by message."""
    found: list[bytes] = []
    while body:
        (size,) = struct.unpack(">I", body[:4])
        found.append(body[:size])
        body = body[size:]
    return found


def frame_payload(framed: bytes) -> bytes:
    (headers,) = struct.unpack(">I", framed[4:8])
    return framed[12 + headers : -4]


def with_payload(framed: bytes, payload: bytes) -> bytes:
    """The same message with another payload and right checksums."""
    (headers,) = struct.unpack(">I", framed[4:8])
    return frame(framed[12 : 12 + headers], payload)
