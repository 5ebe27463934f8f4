"""The OpenAI Responses reader gives items as token events, and needs a response that is over."""

from __future__ import annotations

import pytest

from llm.reading import answer, assert_in_order, calls, cut, data, drip, named, only
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
    ToolCallDelta,
    Usage,
)

DIALECT = "openai-responses"
USAGE = {"input_tokens": 3, "output_tokens": 2}


def read(*pieces: bytes) -> list[TokenEvent]:
    events = read_dialect(DIALECT, *pieces)
    assert_in_order(events)
    return events


def failure(*pieces: bytes) -> Failure:
    return failure_of(DIALECT, *pieces)


def response(step: str, **fields: object) -> bytes:
    whole = {"id": "resp_1", "model": "m", "output": [], "error": None, **fields}
    return named(f"response.{step}", response=whole)


def item(step: str, index: int | None, **fields: object) -> bytes:
    place = {} if index is None else {"output_index": index}
    return named(f"response.output_item.{step}", item=fields, **place)


def text(delta: str, index: int = 0, part: int = 0) -> bytes:
    place = {"item_id": f"msg_{index}", "output_index": index, "content_index": part}
    return named("response.output_text.delta", delta=delta, **place)


def arguments(delta: str, **place: object) -> bytes:
    return named("response.function_call_arguments.delta", delta=delta, **place)


MESSAGE = {"id": "msg_0", "type": "message", "content": [{"type": "output_text", "text": "Hi you"}]}
CREATED = response("created") + response("in_progress")
COMPLETED = response("completed", status="completed", usage=USAGE)


def test_a_plain_answer_is_start_text_usage_stop() -> None:
    assert read(
        CREATED,
        item("added", 0, id="msg_0", type="message", content=[]),
        named("response.content_part.added", part={"type": "output_text", "text": ""}),
        text("Hi"),
        text(" you"),
        named("response.output_text.done", output_index=0, content_index=0, text="Hi you"),
        named(
            "response.content_part.done",
            output_index=0,
            content_index=0,
            part={"type": "output_text", "text": "Hi you"},
        ),
        item("done", 0, **MESSAGE),
        response("completed", usage=USAGE, output=[MESSAGE]),
    ) == [
        Start(id="resp_1", model="m"),
        Text(text="Hi"),
        Text(text=" you"),
        Usage(input_tokens=3, output_tokens=2),
        Stop(reason="stop", raw="completed"),
    ]


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [CREATED],
        [CREATED, text("x")],
        [CREATED, text("x"), item("done", 0, **MESSAGE)],
        [CREATED, text("x"), b"data: [DONE]\n\n"],
        [b"data: [DONE]\n\n"],
    ],
)
def test_an_end_before_the_response_is_over_is_truncated(pieces: list[bytes]) -> None:
    assert failure(*pieces).code == "upstream-truncated"


def test_the_order_of_event_and_data_lines_and_a_missing_event_line_change_nothing() -> None:
    wire = CREATED + text("x") + COMPLETED
    blocks = wire.split(b"\n\n")
    turned = b"\n\n".join(b"\n".join(reversed(block.split(b"\n"))) for block in blocks)
    nameless = b"\n".join(line for line in wire.split(b"\n") if not line.startswith(b"event:"))
    assert read(turned) == read(nameless) == read(wire)


def test_everything_after_the_end_is_ignored() -> None:
    wire = CREATED + text("x") + COMPLETED
    assert read(wire, b"data: [DONE]\n\n", text("late"), b"data: {broken\n\n") == read(wire)


@pytest.mark.parametrize(
    ("said", "message", "code", "status"),
    [
        (
            named("error", code="rate_limit_exceeded", message="m", param=None),
            "m",
            "rate_limit_exceeded",
            None,
        ),
        (named("error", code=None, message="m"), "m", "upstream-failed", None),
        (
            named("error", error={"type": "server_error", "code": None, "message": "m"}),
            "m",
            "server_error",
            None,
        ),
        (
            response("failed", status="failed", error={"code": "server_error", "message": "m"}),
            "m",
            "server_error",
            None,
        ),
        (response("failed"), "the response failed", "upstream-failed", None),
        (response("completed", status="failed"), "the response failed", "upstream-failed", None),
        (
            response("cancelled", status="cancelled"),
            "the response was cancelled",
            "cancelled",
            None,
        ),
        (data({"error": {"message": "m", "code": "x"}, "status_code": 429}), "m", "x", 429),
        (b"event: error\ndata: words only\n\n", "words only", "upstream-failed", None),
    ],
)
@pytest.mark.parametrize("before", [b"", CREATED, CREATED + text("x")])
def test_an_error_in_any_shape_is_a_failure_whatever_follows(
    said: bytes, message: str, code: str, status: int | None, before: bytes
) -> None:
    wanted = Failure(message=message, code=code, status=status)
    assert failure(before, said, COMPLETED) == failure(before + said + COMPLETED) == wanted


def test_a_failed_response_still_says_what_it_cost() -> None:
    events = read(CREATED, text("x"), response("failed", usage=USAGE, error={"message": "m"}))
    assert only(Usage, events) == [Usage(input_tokens=3, output_tokens=2)]
    assert isinstance(events[-1], Failure)


@pytest.mark.parametrize(
    ("reason", "stop"),
    [
        ("max_output_tokens", Stop(reason="length", raw="max_output_tokens")),
        ("content_filter", Stop(reason="content_filter", raw="content_filter")),
        ("a_new_one", Stop(reason="other", raw="a_new_one")),
        (None, Stop(reason="other", raw="incomplete")),
    ],
)
@pytest.mark.parametrize("step", ["incomplete", "completed"])
def test_an_incomplete_response_stops_for_its_reason(
    step: str, reason: str | None, stop: Stop
) -> None:
    end = response(step, status="incomplete", incomplete_details={"reason": reason})
    assert read(CREATED, text("x"), end)[-1] == stop


def test_counts_are_read_with_their_details() -> None:
    usage = {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 1},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 5},
    }
    assert only(Usage, read(response("completed", usage=usage))) == [
        Usage(
            input_tokens=10,
            output_tokens=7,
            reasoning_tokens=5,
            cached_tokens=4,
            cache_write_tokens=1,
        )
    ]


def call(index: int | None, step: str = "added", **fields: object) -> bytes:
    given = {"type": "function_call", "id": f"fc_{index}", "call_id": f"call_{index}", "name": "f"}
    return item(step, index, **{**given, **fields})


def test_parallel_calls_are_told_by_their_places_also_interleaved() -> None:
    events = read(
        CREATED,
        call(0),
        call(1, name="g"),
        arguments('{"a"', output_index=0, item_id="fc_0"),
        arguments("[1", output_index=1, item_id="fc_1"),
        arguments(": 1}", output_index=0, item_id="fc_0"),
        named("response.function_call_arguments.done", output_index=0, arguments='{"a": 1}'),
        call(0, "done", arguments='{"a": 1}'),
        arguments("]", output_index=1, item_id="fc_1"),
        call(1, "done", name="g", arguments="[1]"),
        COMPLETED,
    )
    assert calls(events) == [("call_0", "f", '{"a": 1}'), ("call_1", "g", "[1]")]
    pieces = [(delta.index, delta.arguments) for delta in only(ToolCallDelta, events)]
    assert pieces == [(0, ""), (1, ""), (0, '{"a"'), (1, "[1"), (0, ": 1}"), (1, "]")]
    assert events[-1] == Stop(reason="tool_use", raw="completed")


def test_calls_are_told_by_ids_where_there_are_no_places() -> None:
    events = read(
        CREATED,
        call(None, id="x", call_id="cx"),
        call(None, id="y", call_id="cy"),
        arguments("{", item_id="x"),
        arguments("[", item_id="y"),
        arguments("}", item_id="x"),
        call(None, "done", id="x", call_id="cx", arguments="{}"),
        arguments("]", item_id="y"),
        call(None, "done", id="y", call_id="cy", arguments="[]"),
        COMPLETED,
    )
    assert calls(events) == [("cx", "f", "{}"), ("cy", "f", "[]")]


def test_calls_are_told_by_places_where_a_proxy_changes_the_ids() -> None:
    events = read(
        CREATED,
        call(0, id="first"),
        arguments("{", output_index=0, item_id="second"),
        arguments("}", output_index=0, item_id="third"),
        call(0, "done", id="fourth", arguments="{}"),
        COMPLETED,
    )
    assert calls(events) == [("call_0", "f", "{}")]


@pytest.mark.parametrize(
    "pieces",
    [
        [call(0), call(0, "done", arguments='{"a":1}')],
        [call(0, "done", arguments='{"a":1}')],
        [
            call(0),
            named("response.function_call_arguments.done", output_index=0, arguments='{"a":1}'),
        ],
        [call(0, name=""), arguments('{"a":1}', output_index=0), call(0, "done")],
        [arguments('{"a":1}', output_index=0), call(0, "done", arguments='{"a":1}')],
    ],
)
def test_a_call_is_whole_however_little_of_it_is_streamed(pieces: list[bytes]) -> None:
    (got,) = answer(read(CREATED, *pieces, COMPLETED)).tool_calls
    assert (got.name, got.arguments) == ("f", '{"a":1}')


def test_the_input_of_a_custom_tool_is_its_arguments_as_they_are() -> None:
    given = {"type": "custom_tool_call", "id": "ct", "call_id": "c", "name": "sh"}
    events = read(
        CREATED,
        item("added", 0, **given, input=""),
        named("response.custom_tool_call_input.delta", output_index=0, delta="ls "),
        named("response.custom_tool_call_input.delta", output_index=0, delta="-l"),
        named("response.custom_tool_call_input.done", output_index=0, input="ls -l"),
        item("done", 0, **given, input="ls -l"),
        COMPLETED,
    )
    assert only(ToolCall, events) == [
        ToolCall(index=0, id="c", name="sh", arguments="ls -l", arguments_valid=False)
    ]


def test_a_call_that_broke_off_is_never_given_as_whole() -> None:
    events = read(CREATED, call(0), arguments("{}", output_index=0))
    assert not only(ToolCall, events)
    assert [got.arguments for got in answer(events).tool_calls] == ["{}"]


def test_reasoning_comes_as_text_or_summary_and_what_must_be_sent_back_is_data() -> None:
    place = {"output_index": 0, "item_id": "rs"}
    done = {
        "type": "reasoning",
        "id": "rs",
        "summary": [{"type": "summary_text", "text": "ab"}, {"type": "summary_text", "text": "c"}],
        "encrypted_content": "zz",
    }
    events = read(
        CREATED,
        item("added", 0, type="reasoning", id="rs", summary=[]),
        named("response.reasoning_summary_text.delta", summary_index=0, delta="a", **place),
        named("response.reasoning_summary_text.delta", summary_index=0, delta="b", **place),
        named("response.reasoning_summary_text.done", summary_index=0, text="ab", **place),
        item("done", 0, **done),
        named("response.reasoning_text.delta", output_index=1, content_index=0, delta="raw"),
        item("done", 1, type="reasoning", content=[{"type": "reasoning_text", "text": "raw"}]),
        named("response.reasoning_summary.delta", output_index=2, delta="old"),
        COMPLETED,
    )
    thoughts = [thought.text for thought in only(Reasoning, events)]
    assert thoughts == ["a", "b", "c", "raw", "old"]
    assert only(Data, events) == [Data(kind="reasoning", value=done)]


def test_a_refusal_is_text_with_a_stop_that_says_so() -> None:
    events = read(
        CREATED,
        named("response.refusal.delta", output_index=0, content_index=0, delta="I can't"),
        named("response.refusal.done", output_index=0, content_index=0, refusal="I can't"),
        COMPLETED,
    )
    assert only(Text, events) == [Text(text="I can't")]
    assert events[-1] == Stop(reason="refusal", raw="completed")


@pytest.mark.parametrize(
    "pieces",
    [
        [named("response.output_text.done", output_index=0, content_index=0, text="Hi you")],
        [named("response.content_part.done", output_index=0, part=MESSAGE["content"][0])],
        [item("done", 0, **MESSAGE)],
        [],
    ],
)
def test_text_that_was_not_streamed_comes_with_the_first_event_that_has_it(
    pieces: list[bytes],
) -> None:
    events = read(CREATED, *pieces, response("completed", output=[MESSAGE]))
    assert only(Text, events) == [Text(text="Hi you")]


def test_two_parts_of_a_message_are_told_apart() -> None:
    parts = [{"type": "output_text", "text": "one"}, {"type": "output_text", "text": "two"}]
    whole = {"type": "message", "content": parts}
    events = read(CREATED, text("one", part=0), item("done", 0, **whole), COMPLETED)
    assert [piece.text for piece in only(Text, events)] == ["one", "two"]


def test_items_of_tools_that_the_provider_runs_are_passed_through_when_done() -> None:
    search = {"type": "web_search_call", "id": "ws", "status": "completed", "action": {"q": "x"}}
    citation = {"type": "url_citation", "url": "u"}
    events = read(
        CREATED,
        item("added", 0, type="web_search_call", id="ws"),
        named("response.web_search_call.searching", output_index=0),
        named("response.mcp_call_arguments.delta", output_index=0, delta="{}"),
        item("done", 0, **search),
        text("x", 1),
        named("response.output_text.annotation.added", annotation=citation),
        COMPLETED,
    )
    assert only(Data, events) == [
        Data(kind="web_search_call", value=search),
        Data(kind="citation", value=citation),
    ]
    assert events[-1] == Stop(reason="stop", raw="completed")


@pytest.mark.parametrize(
    "odd",
    [
        named("response.later", x=1),
        named("keepalive", sequence_number=3),
        named("response.output_item.added", item=None),
        named("response.output_item.done", item=3, output_index="x"),
        named("response.output_text.delta", delta=None, content_index=-1),
        named("response.content_part.done", part="x"),
        named("response.created", response=[]),
        data({"type": ["response"], "delta": {}}),
        b": comment\n\n\nretry: 5\n\nevent: ping\ndata:\n\n",
    ],
)
def test_unknown_events_and_fields_of_an_unexpected_kind_do_no_harm(odd: bytes) -> None:
    plain = read(CREATED, text("x"), COMPLETED)
    assert read(CREATED, odd, text("x"), odd, COMPLETED) == plain


@pytest.mark.parametrize("bad", ["{", "[]", "hello", "[" * 5000])
def test_data_that_is_no_json_object_is_malformed(bad: str) -> None:
    bad_event = f"data: {bad}\n\n".encode()
    assert failure(CREATED, bad_event, COMPLETED).code == "upstream-malformed"


def test_every_cut_of_a_body_with_everything_gives_the_same_events() -> None:
    wire = CREATED + text("é🙂\u2028") + call(1) + arguments('{"é": "\\ud83d', output_index=1)
    wire += arguments('\\ude00"}', output_index=1) + COMPLETED
    whole = read(wire)
    assert read(*drip(wire)) == whole
    assert all(read(*cut(wire, [place])) == whole for place in range(len(wire)))
