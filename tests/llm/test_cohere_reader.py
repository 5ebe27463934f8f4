"""The Cohere reader gives version 2's events as token events, and needs `message-end`."""

from __future__ import annotations

import pytest

from llm.reading import assert_in_order, calls, cut, data, drip, named, only
from llm.reading import failure as failure_of
from llm.reading import read as read_dialect
from penstock.llm.events import (
    Data,
    Failure,
    Reasoning,
    Start,
    Stop,
    Text,
    TokenEvent,
    ToolCall,
    Usage,
)

DONE = b"data: [DONE]\n\n"


def read(*pieces: bytes) -> list[TokenEvent]:
    events = read_dialect("cohere", *pieces)
    assert_in_order(events)
    return events


def failure(*pieces: bytes) -> Failure:
    return failure_of("cohere", *pieces)


def event(type: str, index: int | None = None, **said: object) -> bytes:
    place = {} if index is None else {"index": index}
    return named(type, delta={"message": said}, **place)


def say(text: str, index: int = 0) -> bytes:
    return event("content-delta", index, content={"text": text})


def end(reason: str | None = "COMPLETE", **more: object) -> bytes:
    return named("message-end", delta={"finish_reason": reason, **more})


USAGE = {
    "billed_units": {"input_tokens": 3, "output_tokens": 2},
    "tokens": {"input_tokens": 3, "output_tokens": 2},
}
START = named("message-start", id="i", delta={"message": {"role": "assistant", "content": []}})
END = end(usage=USAGE) + DONE


def test_a_plain_answer_is_start_text_usage_stop() -> None:
    assert read(
        START,
        event("content-start", 0, content={"type": "text", "text": ""}),
        say("Hi"),
        say(" you"),
        named("content-end", index=0),
        END,
    ) == [
        Start(id="i", model=""),
        Text(text="Hi"),
        Text(text=" you"),
        Usage(input_tokens=3, output_tokens=2),
        Stop(reason="stop", raw="COMPLETE"),
    ]


@pytest.mark.parametrize("pieces", [[], [START], [START, say("x")], [START, DONE], [DONE], [END]])
def test_an_end_before_message_end_is_truncated(pieces: list[bytes]) -> None:
    assert failure(*pieces).code == "upstream-truncated"


def test_the_done_mark_may_be_missing() -> None:
    assert read(START, say("x"), end()) == read(START, say("x"), end(), DONE)


def test_tokens_are_counted_and_what_is_billed_is_said_where_it_differs() -> None:
    usage = {
        "billed_units": {"input_tokens": 12, "output_tokens": 5},
        "tokens": {"input_tokens": 212, "output_tokens": 5},
        "cached_tokens": 208,
    }
    events = read(START, end(usage=usage))
    assert only(Data, events) == [Data(kind="billed_units", value=usage["billed_units"])]
    counted = Usage(input_tokens=212, output_tokens=5, cached_tokens=208)
    assert only(Usage, events) == [counted]
    only_billed = {"billed_units": {"input_tokens": 1.0, "output_tokens": 2.0}}
    assert only(Usage, read(START, end(usage=only_billed))) == [
        Usage(input_tokens=1, output_tokens=2)
    ]


def test_parallel_calls_are_told_by_their_index_and_whole_at_their_end() -> None:
    def call(step: str, index: int, **function: str) -> bytes:
        given = {"id": function.pop("id")} if "id" in function else {}
        return event(f"tool-call-{step}", index, tool_calls={**given, "function": function})

    events = read(
        START,
        event("tool-plan-delta", tool_plan="I will"),
        call("start", 0, id="x", name="f", arguments=""),
        call("delta", 0, arguments='{"a"'),
        call("delta", 0, arguments=": 1}"),
        named("tool-call-end", index=0),
        call("start", 1, id="y", name="g", arguments="{"),
        call("delta", 1, arguments="}"),
        named("tool-call-end", index=1),
        end("TOOL_CALL"),
    )
    assert only(Reasoning, events) == [Reasoning(text="I will")]
    assert calls(events) == [("x", "f", '{"a": 1}'), ("y", "g", "{}")]
    assert events[-1] == Stop(reason="tool_use", raw="TOOL_CALL")


def test_thinking_is_reasoning_and_a_citation_is_data() -> None:
    citation = {"start": 0, "end": 2, "text": "Hi", "sources": [{"type": "document"}]}
    events = read(
        START,
        event("content-start", 0, content={"type": "thinking", "thinking": "h"}),
        event("content-delta", 0, content={"thinking": "m"}),
        say("Hi", 1),
        event("citation-start", 0, citations=citation),
        named("citation-end", index=0),
        END,
    )
    assert [thought.text for thought in only(Reasoning, events)] == ["h", "m"]
    assert only(Data, events) == [Data(kind="citation", value=citation)]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("COMPLETE", "stop"),
        ("STOP_SEQUENCE", "stop"),
        ("MAX_TOKENS", "length"),
        ("TOOL_CALL", "tool_use"),
        ("A_NEW_ONE", "other"),
    ],
)
def test_a_finish_reason_is_mapped_and_kept(raw: str, reason: str) -> None:
    assert read(START, say("x"), end(raw))[-1] == Stop(reason=reason, raw=raw)


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (end("ERROR", error="m"), Failure(message="m", code="ERROR")),
        (end(None, error="m"), Failure(message="m", code="ERROR")),
        (
            end("ERROR"),
            Failure(message="the provider gave the finish reason 'ERROR'", code="ERROR"),
        ),
        (
            end("TIMEOUT", error={"message": "m", "status_code": 504}),
            Failure(message="m", code="TIMEOUT", status=504),
        ),
        (data({"error": {"message": "m"}}), Failure(message="m", code="upstream-failed")),
        (data({"type": "error", "message": "m"}), Failure(message="m", code="upstream-failed")),
        (b"event: error\ndata: words\n\n", Failure(message="words", code="upstream-failed")),
    ],
)
@pytest.mark.parametrize("before", [b"", START, START + say("x")])
def test_an_error_in_any_shape_is_a_failure_whatever_follows(
    said: bytes, wanted: Failure, before: bytes
) -> None:
    assert failure(before, said, END) == wanted


def test_a_call_that_broke_off_is_never_given_as_whole() -> None:
    begun = event("tool-call-start", 0, tool_calls={"id": "x", "function": {"name": "f"}})
    assert not only(ToolCall, read(START, begun))


@pytest.mark.parametrize(
    "odd",
    [
        named("later", x=1),
        named("content-delta", delta=None, index="x"),
        event("content-delta", 0, content="x"),
        event("tool-call-end", 5),
        event("citation-start", 0, citations=None),
        data({"type": None}),
    ],
)
def test_unknown_events_and_fields_of_an_unexpected_kind_do_no_harm(odd: bytes) -> None:
    assert read(START, odd, say("x"), odd, END) == read(START, say("x"), END)


def test_every_cut_of_a_body_gives_the_same_events() -> None:
    wire = START + say("é🙂\u2028") + END
    whole = read(wire)
    assert read(*drip(wire)) == whole
    assert all(read(*cut(wire, [place])) == whole for place in range(len(wire)))
