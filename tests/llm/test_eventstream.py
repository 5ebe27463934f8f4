"""AWS's framing is decoded from bytes cut anywhere, and nothing wrong with it goes unnoticed."""

from __future__ import annotations

import random
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm.reading import cut, drip, frame, string_header
from penstock.llm.eventstream import Decoder, Message


def decode(*pieces: bytes, limit: int = 10_000) -> tuple[list[Message], str]:
    decoder = Decoder(max_message_bytes=limit)
    found: list[Message] = []
    for piece in pieces:
        decoder.receive_data(piece)
        found += decoder.messages()
    return found, decoder.broken


def header(name: str, kind: int, value: bytes) -> bytes:
    return bytes([len(name)]) + name.encode() + bytes([kind]) + value


def test_headers_of_every_type_are_read() -> None:
    headers = b"".join(
        (
            header("yes", 0, b""),
            header("no", 1, b""),
            header("byte", 2, b"\xff"),
            header("short", 3, struct.pack(">h", -300)),
            header("int", 4, struct.pack(">i", 70_000)),
            header("long", 5, struct.pack(">q", -(2**40))),
            header("bytes", 6, b"\x00\x02\x00\xff"),
            header("string", 7, b"\x00\x02\xc3\xa9"),
            header("time", 8, struct.pack(">q", 1_700_000_000_000)),
            header("uuid", 9, bytes(range(16))),
        )
    )
    (message,), broken = decode(frame(headers, b"{}"))
    assert not broken
    assert message == Message(
        headers={
            "yes": True,
            "no": False,
            "byte": -1,
            "short": -300,
            "int": 70_000,
            "long": -(2**40),
            "bytes": b"\x00\xff",
            "string": "é",
            "time": 1_700_000_000_000,
            "uuid": bytes(range(16)),
        },
        payload=b"{}",
    )
    assert message.text("string") == "é"
    assert message.text("int") == message.text("absent") == ""


def test_a_message_without_headers_and_payload_is_one() -> None:
    assert decode(frame(b"", b"")) == ([Message(headers={}, payload=b"")], "")


# A busy machine must not fail a property: how long an example takes is no part of the claim.
@settings(deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=5), st.data())
def test_where_the_bytes_are_cut_changes_nothing(payloads: list[bytes], data) -> None:
    body = b"".join(frame(string_header(":event-type", "e"), one) for one in payloads)
    places = data.draw(st.lists(st.integers(0, len(body)), max_size=8), label="cuts")
    found, broken = decode(*cut(body, places))
    assert [message.payload for message in found] == payloads
    assert not broken
    assert decode(*drip(body)) == (found, "")


GOOD = frame(string_header("a", "b"), b"first")


@pytest.mark.parametrize("place", range(len(GOOD)))
def test_a_flipped_bit_anywhere_is_found_and_what_came_before_stands(place: int) -> None:
    bad = bytearray(GOOD)
    bad[place] ^= 1 << random.Random(place).randrange(8)
    for pieces in ([GOOD + bytes(bad) + GOOD], drip(GOOD + bytes(bad) + GOOD)):
        found, broken = decode(*pieces)
        assert [message.payload for message in found] == [b"first"]
        assert "checksum" in broken


def with_prelude(total: int, headers: int, rest: bytes = b"") -> bytes:
    prelude = struct.pack(">II", total, headers)
    return prelude + struct.pack(">I", zlib.crc32(prelude)) + rest


@pytest.mark.parametrize(
    ("wire", "why"),
    [
        (with_prelude(0, 0), "shorter"),
        (with_prelude(15, 0), "shorter"),
        (with_prelude(40, 30), "shorter"),
        (with_prelude(10_001, 0), "more than 10000"),
        (with_prelude(2**32 - 1, 0), "more than 10000"),
        (frame(b"\x05abc", b""), "headers"),
        (frame(b"\x01a\x0b", b""), "headers"),
        (frame(b"\x01a\x07\x00\x09abc", b""), "headers"),
        (frame(b"\x01a\x07\x00\x01\xff", b""), "headers"),
        (frame(b"\x01\xff\x00", b""), "headers"),
        (frame(b"\x01a\x04\x00", b""), "headers"),
        (frame(b"\x01a\x09\x00", b""), "headers"),
        (frame(b"\x01a", b""), "headers"),
        (b"<html>Bad gateway</html>", "checksum"),
    ],
)
def test_what_is_no_message_is_said_to_be_none(wire: bytes, why: str) -> None:
    for pieces in ([GOOD + wire + GOOD], drip(GOOD + wire + GOOD)):
        found, broken = decode(*pieces)
        assert [message.payload for message in found] == [b"first"]
        assert why in broken


def test_a_length_beyond_the_bound_is_refused_before_its_bytes_come() -> None:
    assert "more than" in decode(with_prelude(10_001, 0))[1]
