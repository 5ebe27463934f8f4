"""Payloads: what is stored of what a caller or a request hands over."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.errors import BodyMalformed
from penstock.server.payload import encode_payload, split_body

JSON, TEXT, BINARY = "application/json", "text/plain", "application/octet-stream"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text() | st.floats(-1e9, 1e9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
ON_ANY_MACHINE = settings(deadline=None, print_blob=True)


@ON_ANY_MACHINE
@given(json_values)
def test_a_json_value_is_stored_in_one_line_that_reads_back_as_it(value: Any) -> None:
    stored = encode_payload(value, JSON)
    assert json.loads(stored) == value
    assert b"\n" not in stored
    assert b"\r" not in stored


def test_a_str_of_a_json_stream_is_a_json_string_and_bytes_are_taken_as_they_are() -> None:
    assert encode_payload("a", JSON) == b'"a"'
    assert encode_payload(b"[1]", "application/vnd.x+json") == b"[1]"
    assert encode_payload(None, JSON) == b"null"


def test_text_and_binary_streams_store_what_they_are_given() -> None:
    assert encode_payload("é\n", TEXT) == "é\n".encode()
    assert encode_payload(b"\xff", BINARY) == b"\xff"


@pytest.mark.parametrize(
    ("payload", "content_type"), [("x", BINARY), (1, TEXT), ({"a": 1}, BINARY), ({1j}, JSON)]
)
def test_a_payload_that_does_not_fit_its_stream_is_refused(payload: Any, content_type: str) -> None:
    with pytest.raises(BodyMalformed):
        encode_payload(payload, content_type)


@ON_ANY_MACHINE
@given(st.lists(json_values, min_size=1, max_size=5), st.sampled_from([None, 1, 4]))
def test_each_element_of_an_array_is_a_record(values: list[Any], indent: int | None) -> None:
    """However the body is laid out, a record has no raw line ends."""
    payloads = split_body(json.dumps(values, indent=indent).encode(), JSON)
    assert [json.loads(payload) for payload in payloads] == values
    assert not any(b"\n" in payload or b"\r" in payload for payload in payloads)


@ON_ANY_MACHINE
@given(json_values.filter(lambda value: not isinstance(value, list)))
def test_a_value_that_is_no_array_is_one_record(value: Any) -> None:
    (payload,) = split_body(b" \r\n" + json.dumps(value, indent=2).encode() + b"\n", JSON)
    assert json.loads(payload) == value


def test_a_number_is_kept_as_it_was_written() -> None:
    digits = b"0.1234567890123456789012345678901234567890"
    assert split_body(digits, JSON) == [digits]
    assert split_body(b"[1e3, 1.50]", JSON) == [b"1e3", b"1.50"]


@pytest.mark.parametrize("body", [b"", b" ", b"{", b"[]", b"[1,]", b"nul", b"\xff", b"1 2", b"[[]"])
def test_a_body_that_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(BodyMalformed):
        split_body(body, JSON)


@ON_ANY_MACHINE
@given(st.binary(max_size=200))
def test_no_body_breaks_the_splitting(body: bytes) -> None:
    for content_type in (JSON, TEXT, BINARY):
        try:
            payloads = split_body(body, content_type)
        except BodyMalformed:
            continue
        assert payloads
        if content_type != JSON:
            assert payloads == [body]


def test_a_deeply_nested_body_is_refused_and_does_not_break_the_process() -> None:
    with pytest.raises(BodyMalformed, match="JSON"):
        split_body(b"[" * 100_000 + b"]" * 100_000, JSON)


def test_a_deeply_nested_value_is_refused_too() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(BodyMalformed, match="JSON"):
        encode_payload(value, JSON)


@pytest.mark.parametrize("content_type", [JSON, TEXT])
def test_half_a_character_is_refused(content_type: str) -> None:
    with pytest.raises(BodyMalformed):
        encode_payload("\ud800", content_type)


def test_text_must_be_utf_8_and_binary_may_be_anything() -> None:
    with pytest.raises(BodyMalformed):
        split_body(b"\xff", TEXT)
    assert split_body(b"\xff", BINARY) == [b"\xff"]
