"""Token events survive the way into a record and back."""

import json

import pytest

from penstock.core.errors import BodyMalformed
from penstock.llm.events import (
    TOKEN_TYPES,
    Data,
    Failure,
    Reasoning,
    Start,
    Stop,
    Text,
    TokenEvent,
    ToolCall,
    ToolCallDelta,
    Usage,
    as_count,
    from_record,
    parse_object,
    to_record,
)

RESERVED = {"end", "gap", "cursor", "status", "drain", "error", "open"}

EVENTS: list[TokenEvent] = [
    Start(id="a", model="m", role="assistant"),
    Text(text="naïve 🙂 \u2028 line"),
    Reasoning(text="hm"),
    ToolCallDelta(index=1, id="c", name="f", arguments='{"a'),
    ToolCallDelta(index=0),
    ToolCall(index=1, id="c", name="f", arguments="{", arguments_valid=False),
    Data(kind="citation", value={"url": "u", "n": [1, 2.5, None, True]}),
    Usage(input_tokens=0, output_tokens=7),
    Usage(
        input_tokens=9,
        output_tokens=7,
        reasoning_tokens=0,
        cached_tokens=2,
        cache_write_tokens=3,
        partial=True,
    ),
    Stop(reason="tool_use", raw="tool_calls"),
    Stop(reason="other"),
    Failure(message="no", code="overloaded_error", status=529),
    Failure(message="no", code="upstream-failed"),
    Failure(message="no", code="rate_limit", status=429, retry_after_s=7),
]


@pytest.mark.parametrize("event", EVENTS, ids=repr)
def test_an_event_comes_back_from_its_record_as_it_was(event: TokenEvent) -> None:
    type, payload = to_record(event)
    assert from_record(type, json.loads(json.dumps(payload))) == event


def test_the_types_of_their_records_are_listed() -> None:
    assert {to_record(event)[0] for event in EVENTS} == TOKEN_TYPES


def test_no_record_type_is_one_that_transports_use_themselves() -> None:
    types = {to_record(event)[0] for event in EVENTS}
    assert len(types) == 9
    assert not types & RESERVED


@pytest.mark.parametrize(
    ("type", "payload"),
    [
        ("end", {}),
        ("text", {}),
        ("text", {"text": 3}),
        ("usage", {"input_tokens": -1, "output_tokens": 0, "partial": False}),
        ("usage", {"input_tokens": True, "output_tokens": 0, "partial": False}),
        ("usage", {"input_tokens": 1, "output_tokens": 0}),
        ("stop", {"reason": "because"}),
        ("tool", {"index": 0, "id": "", "name": "", "arguments": ""}),
        ("failure", {"message": "m", "code": "c", "status": "x"}),
    ],
)
def test_a_record_that_no_event_wrote_is_refused(type: str, payload: dict) -> None:
    with pytest.raises(BodyMalformed):
        from_record(type, payload)


def test_an_unknown_field_of_a_record_is_ignored() -> None:
    assert from_record("text", {"text": "a", "later": 1}) == Text(text="a")


@pytest.mark.parametrize("text", ["", "null", "[1]", "{", "[" * 100_000, '{"a":1}x', "9" * 5000])
def test_what_is_no_json_object_is_none(text: str) -> None:
    assert parse_object(text) is None


def test_numbers_that_json_does_not_have_become_null() -> None:
    assert parse_object('{"a": NaN, "b": -Infinity}') == {"a": None, "b": None}


def test_a_count_is_a_whole_number_from_zero() -> None:
    assert as_count(12) == as_count(12.0) == 12
    assert [as_count(v) for v in (True, -1, 1.5, "1", None, float("inf"))] == [None] * 6
