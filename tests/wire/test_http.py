"""Names, queries and headers: what every HTTP transport reads out of a request."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.errors import NameMalformed, QueryMalformed
from penstock.core.limits import MAX_NAME_BYTES
from penstock.wire import http

ON_ANY_MACHINE = settings(deadline=None, print_blob=True)


def is_name(name: str) -> bool:
    try:
        http.check_name(name)
    except NameMalformed:
        return False
    return True


@ON_ANY_MACHINE
@given(st.text(min_size=1, max_size=30).filter(is_name))
def test_a_name_comes_back_from_the_path_it_is_written_as(name: str) -> None:
    path = http.stream_path(name)
    assert path.isascii()
    assert not set(path) & set(' ?#"<>\\')
    assert http.stream_name(path.encode()) == name


@ON_ANY_MACHINE
@given(
    st.binary(max_size=40)
    | st.lists(st.sampled_from([b"%", b"2", b"F", b".", b"/", b"a"])).map(b"".join)
)
def test_a_path_is_a_name_or_is_refused(raw: bytes) -> None:
    """Nothing else happens, and no name that two hops could read differently comes out."""
    try:
        name = http.stream_name(raw)
    except NameMalformed:
        return
    assert not {"", ".", ".."} & set(name.split("/"))
    assert name.isprintable()
    assert "\\" not in name
    assert http.stream_name(http.stream_path(name).encode()) == name


def test_names_are_decoded_once_and_keep_their_case() -> None:
    assert http.stream_name(b"A/%61%2520") == "A/a%20"
    assert http.stream_name(b"%C3%A9") == "é"


def test_a_name_has_a_longest_length_in_bytes() -> None:
    assert http.stream_name(b"x" * MAX_NAME_BYTES)
    assert http.stream_name(b"%c3%a9" * (MAX_NAME_BYTES // 2))
    for raw in (b"x" * (MAX_NAME_BYTES + 1), b"%c3%a9" * (MAX_NAME_BYTES // 2) + b"x"):
        with pytest.raises(NameMalformed):
            http.stream_name(raw)


def test_only_the_first_segment_is_the_protocols() -> None:
    assert http.stream_name(b"a/__ds") == "a/__ds"
    assert http.stream_name(b"__dsx") == "__dsx"


def test_of_a_parameter_given_twice_the_first_stands() -> None:
    assert http.query_parameters(b"a=1&b=&a=2&c") == {"a": "1", "b": "", "c": ""}
    assert http.query_parameters(b"a=%C3%A9+x") == {"a": "é x"}


@ON_ANY_MACHINE
@given(st.binary(max_size=30))
def test_a_query_is_read_or_refused(query: bytes) -> None:
    try:
        found = http.query_parameters(query)
    except QueryMalformed:
        return
    for key, value in found.items():
        (key + value).encode()


def test_a_headers_value_is_what_stands_between_its_white_space() -> None:
    headers = [(b"x", b" \ta b\t "), (b"x", b"second"), (b"y", b"z\x85")]
    assert http.header(headers, b"x") == "a b"
    assert http.header(headers, b"y") == "z\x85"
    assert http.header(headers, b"z") is None


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, False),
        ("", False),
        ("*/*", False),
        ("text/*", False),
        ("text/event-stream", True),
        ("Text/Event-Stream", True),
        ("application/json, text/event-stream;q=0.5", True),
        ("text/event-stream;q=0", False),
        ("text/event-stream; q=0.000", False),
        ("text/event-stream; q=0.001", True),
        ("text/event-stream; charset=utf-8", True),
        ("text/event-streams", False),
    ],
)
def test_events_are_asked_for_by_name(accept: str | None, expected: bool) -> None:
    assert http.accepts_events(accept) is expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "default/type"),
        ("  ", "default/type"),
        ("application/json", "application/json"),
        ("Application/JSON ; charset=utf-8", "application/json"),
        ("application/vnd.x+json", "application/vnd.x+json"),
    ],
)
def test_a_content_type_is_reduced_to_its_media_type(value: str | None, expected: str) -> None:
    assert http.content_type(value, "default/type") == expected


@pytest.mark.parametrize(
    "value", ["json", "a/b c", "a/", "/b", "a/b/c", "a /b", "a/b\r\nx: y", "é/a"]
)
def test_what_is_no_media_type_is_refused(value: str) -> None:
    with pytest.raises(QueryMalformed):
        http.content_type(value, "default/type")


def test_which_types_are_json_and_which_are_text() -> None:
    assert http.is_json("application/json")
    assert http.is_json("application/ld+json")
    assert not http.is_json("application/jsonl")
    assert http.is_text("text/html")
    assert http.is_text("application/x-ndjson")
    assert not http.is_text("application/octet-stream")


def test_the_header_beats_the_query_beats_the_offset() -> None:
    header = [(b"last-event-id", b" h ")]
    query = {"last_event_id": "q", "offset": "o"}
    assert http.last_event_id(header, query) == ("h", True)
    assert http.last_event_id([(b"last-event-id", b" ")], query) == ("q", False)
    assert http.last_event_id([], {"offset": "o", "last_event_id": ""}) == ("o", False)
    assert http.last_event_id([], {}) == (None, False)
    assert http.last_event_id([(b"last-event-id", b"\xff")], {}) == ("\ufffd", True)


def test_stream_headers_are_exactly_what_proxies_and_browsers_need() -> None:
    headers = dict(http.STREAM_HEADERS)
    assert headers[b"content-type"] == b"text/event-stream"
    for word in (b"no-cache", b"no-store", b"no-transform"):
        assert word in headers[b"cache-control"]
    assert headers[b"x-accel-buffering"] == b"no"
    assert headers[b"incremental"] == b"?1"
    assert headers[b"vary"] == b"accept"
