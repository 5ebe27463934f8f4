"""Properties of the SSE codec that hold for every input, checked against a slow reference.

The reference below is written from the standard's prose, byte by byte and without a thought for
speed; the shipped decoder must agree with it on any bytes and however they are cut.
"""

from __future__ import annotations

from dataclasses import astuple

from hypothesis import example, given, note, settings
from hypothesis import strategies as st

from penstock.core.errors import EventTooLarge, RecordFieldMalformed
from penstock.wire.sse import Decoder, encode_comment, encode_event

Outcome = tuple[list[tuple[str, str, str]], str, int | None, int, bool]

ATOMS = [
    b"\r",
    b"\n",
    b"\r\n",
    b":",
    b" ",
    b"\0",
    b"0",
    b"7",
    b"-",
    b"\t",
    b"\xef",
    b"\xbb",
    b"\xbf",
]
ATOMS += [b"data", b"data: ", b"data:", b"id", b"event", b"retry", b": ", b"\n\n", b"\n\ndata: "]
ATOMS += ["é".encode(), "€".encode(), "😀".encode(), b"\xe2\x82", b"\xf0\x9f", b"\xff", b"\x80"]
ATOMS += ["\u2028".encode(), "\u0085".encode(), b"\x0b", b"\x0c", b"\x1c", "٣".encode(), b"message"]
streams = st.lists(st.sampled_from(ATOMS), max_size=40).map(b"".join)
plain_streams = st.lists(st.sampled_from(["a", "é", "\n\ndata: ", "\n", "data: ", "\n\n"])).map(
    lambda parts: ("data: " + "".join(parts) + "\n\n").encode()
)
any_stream = streams | plain_streams
# A busy machine must not fail a property: how long an example takes is no part of the claim.
ON_ANY_MACHINE = settings(deadline=None)
fields = st.binary(max_size=12) | st.sampled_from([b"a\nb", b"\r", b"a\0", b"1\n\ndata: x\n\n"])


def cut(data: st.DataObject, stream: bytes) -> list[bytes]:
    places = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8), label="cuts"))
    return [stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True)]


def decode(chunks: list[bytes], *, max_event_bytes: int = 10_000) -> Outcome:
    decoder, events, failed = Decoder(max_event_bytes=max_event_bytes), [], False
    try:
        for chunk in chunks:
            decoder.receive_data(chunk)
            events += decoder.events()
        decoder.receive_eof()
    except EventTooLarge:
        failed = True
    events += decoder.events()
    tuples = [astuple(event) for event in events]
    return tuples, decoder.last_event_id, decoder.retry_ms, decoder.comments, failed


def reference_lines(stream: bytes) -> list[bytes]:
    """The ended lines of a stream, one byte at a time."""
    lines, line, position = [], b"", 0
    while position < len(stream):
        byte = stream[position : position + 1]
        if byte == b"\r" and stream[position + 1 : position + 2] == b"\n":
            position += 1
        if byte in (b"\r", b"\n"):
            lines.append(line)
            line = b""
        else:
            line += byte
        position += 1
    return [*lines, line]


def reference(stream: bytes, *, max_event_bytes: int = 10_000) -> Outcome:
    if stream.startswith(b"\xef\xbb\xbf"):
        stream = stream[3:]
    *lines, unended = reference_lines(stream)
    events, data, kind, id_buffer, last_id, retry, comments, held = [], "", "", "", "", None, 0, 0
    for raw in lines:
        is_comment = raw.startswith(b":")
        if raw and held + len(raw) + (0 if is_comment else 1) > max_event_bytes:
            return events, last_id, retry, comments, True
        line = raw.decode("utf-8", "replace")
        if line == "":
            held = 0
            last_id = id_buffer
            if data != "":
                events.append((kind or "message", data[:-1], last_id))
            data = kind = ""
            continue
        if is_comment:
            comments += 1
            continue
        held += len(raw) + 1
        colon = line.find(":")
        name, value = (line, "") if colon < 0 else (line[:colon], line[colon + 1 :])
        if value != "" and value[0] == " ":
            value = value[1:]
        if name == "data":
            data = data + value + "\n"
        elif name == "event":
            kind = value
        elif name == "id" and "\0" not in value:
            id_buffer = value
        elif name == "retry" and value != "" and all(digit in "0123456789" for digit in value):
            retry = min(int(value), 2**31 - 1)
    return events, last_id, retry, comments, held + len(unended) > max_event_bytes


@ON_ANY_MACHINE
@given(stream=any_stream, data=st.data())
@example(stream=b"\xef\xbb", data=None)
def test_the_decoder_agrees_with_the_reference_however_it_is_cut(
    stream: bytes, data: st.DataObject | None
):
    expected = reference(stream)
    note(f"reference: {expected}")
    assert decode([stream]) == expected
    assert decode([stream[i : i + 1] for i in range(len(stream))]) == expected
    if data is not None:
        assert decode(cut(data, stream)) == expected


@ON_ANY_MACHINE
@given(stream=any_stream, bound=st.integers(1, 40), data=st.data())
def test_the_bound_fails_at_the_same_byte_however_the_stream_is_cut(
    stream: bytes, bound: int, data: st.DataObject
):
    expected = reference(stream, max_event_bytes=bound)
    # A stream that ends inside a would-be BOM holds those bytes back, uncounted.
    if not b"\xef\xbb\xbf".startswith(stream):
        assert decode([stream], max_event_bytes=bound) == expected
        assert decode(cut(data, stream), max_event_bytes=bound) == expected
        single = [stream[i : i + 1] for i in range(len(stream))]
        assert decode(single, max_event_bytes=bound) == expected


@ON_ANY_MACHINE
@given(stream=st.binary(max_size=200), data=st.data())
def test_any_bytes_decode_the_same_however_they_are_cut(stream: bytes, data: st.DataObject):
    assert decode(cut(data, stream)) == decode([stream]) == reference(stream)


@ON_ANY_MACHINE
@given(text=st.text(st.characters(exclude_characters="\r", codec="utf-8")), data=st.data())
def test_what_is_encoded_is_decoded(text: str, data: st.DataObject):
    name = st.text(st.characters(exclude_characters="\r\n\0", codec="utf-8"), min_size=1)
    id, type, key = data.draw(name), data.draw(name), data.draw(name)
    body = encode_event(text.encode(), id=id.encode(), type=type.encode(), key=key.encode())
    assert decode(cut(data, body))[0] == [(type, text, id)]


@ON_ANY_MACHINE
@given(text=st.lists(st.sampled_from(["a", "\r", "\n", " ", ":", "\0"])).map("".join))
def test_every_line_end_in_data_comes_back_as_lf(text: str):
    expected = text.replace("\r\n", "\n").replace("\r", "\n")
    assert decode([encode_event(text.encode())])[0] == [("message", expected, "")]


@ON_ANY_MACHINE
@given(data=st.binary() | streams, id=fields, type=fields, key=fields)
def test_no_argument_makes_a_second_event_or_field(data: bytes, id: bytes, type: bytes, key: bytes):
    try:
        body = encode_event(data, id=id, type=type, key=key)
    except RecordFieldMalformed as refusal:
        value = {"id": id, "type": type, "key": key}[refusal.field]
        assert set(value) & {0, 10, 13}
        return
    assert b"\r" not in body
    events, last_event_id, retry_ms, comments, failed = decode([body, b": behind\n"])
    text = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").decode("utf-8", "replace")
    id_text, type_text = id.decode("utf-8", "replace"), type.decode("utf-8", "replace")
    assert events == [(type_text or "message", text, id_text)]
    assert (last_event_id, retry_ms, comments, failed) == (id_text, None, 1, False)


@ON_ANY_MACHINE
@given(text=fields)
def test_a_comment_is_one_comment_or_refused(text: bytes):
    try:
        body = encode_comment(text)
    except RecordFieldMalformed:
        assert set(text) & {0, 10, 13}
        return
    assert decode([b"id: 1\n", body]) == ([], "1", None, 1, False)
