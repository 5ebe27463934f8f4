"""The Ollama reader gives both endpoints' lines as token events, and needs one that is done."""

from __future__ import annotations

import pytest

from llm.reading import assert_in_order, calls, cut, drip, line, only
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


def read(*pieces: bytes) -> list[TokenEvent]:
    events = read_dialect("ollama", *pieces)
    assert_in_order(events)
    return events


def failure(*pieces: bytes) -> Failure:
    return failure_of("ollama", *pieces)


def chat(content: str = "", **more: object) -> bytes:
    said = {"role": "assistant", "content": content, **more}
    return line(model="m", created_at="2025-01-01T00:00:00Z", message=said, done=False)


def generate(response: str, **more: object) -> bytes:
    return line(model="m", response=response, done=False, **more)


def done(reason: str | None = "stop", **counts: object) -> bytes:
    said = {"done_reason": reason} if reason else {}
    return line(
        model="m", message={"role": "assistant", "content": ""}, done=True, **said, **counts
    )


END = done(prompt_eval_count=3, eval_count=2, total_duration=9)


@pytest.mark.parametrize("say", [chat, generate])
def test_a_plain_answer_is_start_text_usage_stop(say) -> None:
    assert read(say("Hi"), say(" you"), END) == [
        Start(id="", model="m"),
        Text(text="Hi"),
        Text(text=" you"),
        Usage(input_tokens=3, output_tokens=2),
        Stop(reason="stop", raw="stop"),
    ]


@pytest.mark.parametrize("pieces", [[], [chat("x")], [generate("x")], [b"\n\n"]])
def test_an_end_before_a_line_that_is_done_is_truncated(pieces: list[bytes]) -> None:
    assert failure(*pieces).code == "upstream-truncated"


def test_the_last_line_needs_no_line_end_and_a_cut_one_is_left_out() -> None:
    assert read(chat("x"), END[:-1]) == read(chat("x"), END)
    assert failure(chat("x"), END[:-2]).code == "upstream-truncated"
    assert read(chat("x").replace(b"\n", b"\r\n"), b"\n\r\n", END) == read(chat("x"), END)


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        ({"error": "model crashed"}, Failure(message="model crashed", code="upstream-failed")),
        (
            {"error": "too many", "status_code": 429},
            Failure(message="too many", code="upstream-failed", status=429),
        ),
        (
            {"error": {"message": "m", "type": "api_error", "code": None}},
            Failure(message="m", code="api_error"),
        ),
    ],
)
@pytest.mark.parametrize("before", [b"", chat("x")])
def test_a_line_with_an_error_is_a_failure_whatever_follows(
    error: dict, wanted: Failure, before: bytes
) -> None:
    assert failure(before, line(**error), END) == wanted


def test_calls_come_whole_and_each_is_one() -> None:
    def call(name: str, arguments: object, **more: object) -> dict:
        return {**more, "function": {"name": name, "arguments": arguments}}

    events = read(
        chat(tool_calls=[call("f", {"a": "é"}, id="x"), call("f", {})]),
        chat(tool_calls=[call("g", '{"b":1}')]),
        END,
    )
    assert calls(events) == [("x", "f", '{"a":"é"}'), ("", "f", "{}"), ("", "g", '{"b":1}')]
    assert events[-1] == Stop(reason="tool_use", raw="stop")


def test_thinking_is_reasoning_and_other_things_are_passed_through() -> None:
    events = read(
        chat(thinking="hm"),
        generate("", thinking="so"),
        chat("x", images=["AA=="]),
        done(context=[1, 2]),
    )
    assert [thought.text for thought in only(Reasoning, events)] == ["hm", "so"]
    assert only(Data, events) == [
        Data(kind="images", value=["AA=="]),
        Data(kind="context", value=[1, 2]),
    ]


@pytest.mark.parametrize(
    ("reason", "stop"),
    [
        ("stop", Stop(reason="stop", raw="stop")),
        ("length", Stop(reason="length", raw="length")),
        ("load", Stop(reason="other", raw="load")),
        (None, Stop(reason="stop", raw="")),
    ],
)
def test_a_reason_is_mapped_and_kept(reason: str | None, stop: Stop) -> None:
    assert read(chat("x"), done(reason))[-1] == stop


def test_a_cached_prompt_is_not_counted() -> None:
    assert only(Usage, read(done(eval_count=2))) == [Usage(input_tokens=0, output_tokens=2)]
    assert not only(Usage, read(done()))


def test_nothing_is_read_after_the_line_that_is_done() -> None:
    assert read(chat("x"), END, chat("late"), b"{broken\n") == read(chat("x"), END)


@pytest.mark.parametrize("bad", [b"{\n", b"[]\n", b"hello\n", b"[" * 5000 + b"\n", b"\xff\xfe\n"])
def test_a_line_that_is_no_json_object_is_malformed(bad: bytes) -> None:
    assert failure(chat("x"), bad, END).code == "upstream-malformed"


@pytest.mark.parametrize(
    "odd",
    [
        {"message": None, "done": "true"},
        {"message": {"content": 3, "tool_calls": [None, {"function": 3}], "thinking": []}},
        {"response": {}, "model": 3},
        {},
    ],
)
def test_fields_of_an_unexpected_kind_count_as_absent(odd: dict) -> None:
    events = read(chat("x"), line(**odd), END)
    assert only(Text, events) == [Text(text="x")]
    assert not only(Failure, events)
    assert len(only(ToolCall, events)) <= 2


def test_every_cut_of_a_body_gives_the_same_events() -> None:
    wire = b"\xef\xbb\xbf" + chat("é🙂\u2028") + chat("\ud83d") + chat("\ude00") + END
    whole = read(wire)
    assert read(*drip(wire)) == whole
    assert all(read(*cut(wire, [place])) == whole for place in range(len(wire)))
