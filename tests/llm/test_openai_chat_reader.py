"""The OpenAI Chat Completions reader understands every accent, and never takes less for whole."""

import json

import pytest

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
from penstock.llm.openai_chat import Reader

DONE = b"data: [DONE]\n\n"


def data(payload: object) -> bytes:
    return f"data: {json.dumps(payload)}\n\n".encode()


def chunk(delta: dict | None = None, finish: str | None = None, **more: object) -> bytes:
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    return data({"id": "a", "model": "m", "choices": [choice], **more})


def read(*pieces: bytes) -> list[TokenEvent]:
    reader = Reader()
    for piece in pieces:
        reader.receive_data(piece)
    reader.receive_eof()
    return reader.events()


def only(kind: type, events: list[TokenEvent]) -> list:
    return [event for event in events if isinstance(event, kind)]


def failure(*pieces: bytes) -> Failure:
    last = read(*pieces)[-1]
    assert isinstance(last, Failure)
    return last


def test_a_plain_answer_is_start_text_stop_usage() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    assert read(
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Hi\u2028"}),
        chunk({}, "stop"),
        data({"id": "a", "choices": [], "usage": usage}),
        DONE,
    ) == [
        Start(id="a", model="m"),
        Text(text="Hi\u2028"),
        Stop(reason="stop", raw="stop"),
        Usage(input_tokens=3, output_tokens=2),
    ]


def test_azure_s_first_chunk_about_the_prompt_is_no_start() -> None:
    opening = {"id": "", "model": "", "choices": [], "prompt_filter_results": [{}]}
    assert read(data(opening), chunk({"content": "x"}), DONE)[0] == Start(id="a", model="m")


def test_a_finish_reason_ends_the_answer_without_the_done_mark() -> None:
    assert not only(Failure, read(chunk({"content": "x"}), chunk({}, "stop")))


def test_the_done_mark_ends_the_answer_without_a_finish_reason() -> None:
    assert read(chunk({"content": "x"}), DONE)[-1] == Stop(reason="other", raw="")


def test_an_end_before_both_is_truncated() -> None:
    assert failure(chunk({"content": "x"})).code == "upstream-truncated"
    assert failure(b"").code == "upstream-truncated"
    assert failure(DONE).code == "upstream-truncated"
    assert failure(b"<html>Bad gateway</html>\n\n").code == "upstream-truncated"


def test_nothing_is_read_after_the_done_mark() -> None:
    events = read(chunk({}, "stop"), DONE, chunk({"content": "late"}), b"data: {broken\n\n")
    assert not only(Text, events)
    assert not only(Failure, events)


@pytest.mark.parametrize(
    ("wire", "message", "code", "status"),
    [
        (data({"error": {"message": "m", "type": "t", "code": "c"}}), "m", "c", None),
        (data({"error": {"message": "m", "type": "BadRequestError", "code": 400}}), "m", None, 400),
        (data({"error": {"message": "m", "code": "429"}}), "m", "429", 429),
        (data({"error": "plain words"}), "plain words", "upstream-failed", None),
        (data({"error": [{"message": "m", "status": 503}]}), "m", "upstream-failed", 503),
        (data({"error": True}), None, "upstream-failed", None),
        (data({"error": {"error": {"message": "inner"}}}), "inner", "upstream-failed", None),
        (data({"object": "error", "message": "m", "code": 404}), "m", "upstream-failed", 404),
        (data({"type": "error", "message": "m", "code": "x"}), "m", "x", None),
        (b'event: error\ndata: {"error":{"message":"m","status_code":400}}\n\n', "m", None, 400),
        (b'event: error\ndata: {"message":"flat"}\n\n', "flat", "upstream-failed", None),
        (b"event: error\ndata: words only\n\n", "words only", "upstream-failed", None),
        (b'error: {"code":500,"message":"m","type":"server_error"}\n\n', "m", "server_error", 500),
        (data({"choices": [{"error": {"message": "m", "code": 502}}]}), "m", None, 502),
        (chunk({}, "error"), None, "upstream-failed", None),
        (data({"x_groq": {"id": "r", "error": "over capacity"}}), "over capacity", None, None),
        (chunk({"content": "y"}, x_groq={"error": "m"}), "m", "upstream-failed", None),
        (data({"message": "m", "type": "quota", "code": "q"}), "m", "q", None),
        (data({"detail": "m", "status": 503}), "m", None, 503),
        (data({"detail": [{"loc": ["body"], "msg": "m"}]}), "m", None, None),
        (
            data({"errors": [{"code": "down", "message": "m"}], "status_code": 502}),
            "m",
            "down",
            502,
        ),
        (data({"error": "m", "error_type": "overloaded"}), "m", "overloaded", None),
        (data({"status": 500, "error": "m", "path": "/v1"}), "m", "upstream-failed", 500),
    ],
)
@pytest.mark.parametrize("after", [b"", DONE, chunk({"content": "late"}) + DONE])
def test_an_error_in_any_shape_is_a_failure_whatever_follows(
    wire: bytes, message: str | None, code: str | None, status: int | None, after: bytes
) -> None:
    for pieces in ([chunk({"content": "x"}), wire, after], [wire + after]):
        failed = failure(*pieces)
        assert message is None or failed.message == message
        assert code is None or failed.code == code
        assert failed.status == status


def test_an_error_field_is_found_wherever_it_is_cut() -> None:
    wire = chunk({"content": "x"}) + b'error: {"message":"m","code":500}\n\n' + DONE
    for cut in range(len(wire)):
        assert failure(wire[:cut], wire[cut:]).message == "m"
    assert failure(*(bytes([byte]) for byte in wire)).message == "m"


def test_a_chunk_with_choices_is_no_error_whatever_else_it_says() -> None:
    events = read(chunk({"content": "x"}, "stop", message="m", detail="d", errors=[1]), DONE)
    assert not only(Failure, events)


def test_what_follows_the_stop_is_not_part_of_the_answer() -> None:
    late = chunk({"content": "late", "reasoning": "late", **call(0, "x", "f", "{}")}, "stop")
    events = read(chunk({"content": "x"}), chunk({}, "stop"), late, DONE)
    assert events == read(chunk({"content": "x"}), chunk({}, "stop"), DONE)


def test_the_word_error_in_a_text_is_text() -> None:
    wire = chunk({"content": "error: {}\nerror: x"}, "stop") + b"event: e\n\nerr: 1\n\n"
    assert only(Text, read(*(bytes([byte]) for byte in wire))) == [Text(text="error: {}\nerror: x")]


def test_an_error_that_is_null_is_none() -> None:
    assert not only(Failure, read(chunk({"content": "x"}, "stop", error=None), DONE))


@pytest.mark.parametrize("bad", ["{", "[]", "1", "hello", "null", "[" * 5000])
def test_data_that_is_no_json_object_is_malformed(bad: str) -> None:
    failed = failure(chunk({"content": "x"}), f"data: {bad}\n\n".encode(), DONE)
    assert failed.code == "upstream-malformed"


@pytest.mark.parametrize(
    "odd",
    [
        {"choices": None},
        {"choices": "x"},
        {"choices": [None, 1]},
        {"choices": [{"delta": None}]},
        {"choices": [{"delta": {"content": 3, "tool_calls": "x", "refusal": {}}}]},
        {"choices": [{"delta": {"tool_calls": [None, {"function": None}]}}]},
        {"choices": [{"delta": {"function_call": "x", "tool_calls": {"index": 0}}}]},
        {"usage": {"prompt_tokens": "many"}, "id": 3, "model": []},
        {"p": "xxxx", "obfuscation": "yy", "later": {"a": 1}},
        {},
    ],
)
def test_fields_of_an_unexpected_kind_count_as_absent(odd: dict) -> None:
    events = read(chunk({"content": "x"}), data(odd), chunk({}, "stop"), DONE)
    assert only(Text, events) == [Text(text="x")]
    assert not only(Failure, events)
    assert not only(ToolCallDelta, events)


def test_comments_empty_data_and_unknown_events_are_ignored() -> None:
    noise = b": OPENROUTER PROCESSING\n\n:\n\ndata:\n\nevent: ping\ndata: {}\n\nretry: 5\n\n"
    assert read(noise, chunk({"content": "x"}), noise, chunk({}, "stop"), noise, DONE) == read(
        chunk({"content": "x"}), chunk({}, "stop"), DONE
    )


def test_content_may_be_a_list_of_parts() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}], "closed": True}
    reference = {"type": "reference", "reference_ids": [1]}
    events = read(
        chunk({"content": [thinking]}),
        chunk({"content": [{"type": "text", "text": "x"}, reference]}),
        chunk({"content": "y"}, "stop"),
    )
    assert events[1:-1] == [
        Reasoning(text="hm"),
        Text(text="x"),
        Data(kind="reference", value=reference),
        Text(text="y"),
    ]


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_reasoning_comes_in_either_field_and_once(name: str) -> None:
    assert only(Reasoning, read(chunk({name: "a"}), DONE)) == [Reasoning(text="a")]
    both = {"reasoning": "a", "reasoning_content": "a", "reasoning_details": [{"text": "a"}]}
    assert only(Reasoning, read(chunk(both), DONE)) == [Reasoning(text="a")]


def test_the_first_choice_is_told_by_its_index_and_others_are_passed_through() -> None:
    other = {"index": 1, "delta": {"content": "B"}, "finish_reason": "stop"}
    first = {"index": 0, "delta": {"content": "A"}, "finish_reason": None}
    events = read(data({"id": "a", "choices": [other, first]}))
    assert only(Text, events) == [Text(text="A")]
    assert only(Data, events) == [Data(kind="choice", value=other)]
    assert events[-1].code == "upstream-truncated"  # the other choice's end is not the answer's


def test_a_refusal_is_text_with_a_stop_that_says_so() -> None:
    events = read(chunk({"refusal": "I "}), chunk({"refusal": "can't"}), chunk({}, "stop"), DONE)
    assert "".join(event.text for event in only(Text, events)) == "I can't"
    assert events[-1] == Stop(reason="refusal", raw="stop")


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("stop", "stop"),
        ("eos_token", "stop"),
        ("length", "length"),
        ("model_length", "length"),
        ("tool_calls", "tool_use"),
        ("function_call", "tool_use"),
        ("content_filter", "content_filter"),
        ("a_new_one", "other"),
    ],
)
def test_a_finish_reason_is_mapped_and_kept(raw: str, reason: str) -> None:
    assert read(chunk({"content": "x"}, raw), DONE)[-1] == Stop(reason=reason, raw=raw)


def call(index: int | None, id: str | None, name: str | None, arguments: object) -> dict:
    given = {"function": {"name": name, "arguments": arguments}, "id": id, "index": index}
    return {"tool_calls": [{key: value for key, value in given.items() if value is not None}]}


def calls(*deltas: dict) -> list[tuple[int, str, str, str]]:
    events = read(*(chunk(delta) for delta in deltas), chunk({}, "stop"), DONE)
    assert only(Stop, events)[0].reason == "tool_use"
    return [(c.index, c.id, c.name, c.arguments) for c in only(ToolCall, events)]


def test_tool_calls_are_joined_by_index_also_interleaved() -> None:
    assert calls(
        call(0, "x", "f", ""),
        call(1, "y", "g", "[1"),
        call(0, None, None, '{"a"'),
        call(1, "", None, "]"),
        call(0, None, None, ":1}"),
    ) == [(0, "x", "f", '{"a":1}'), (1, "y", "g", "[1]")]


def test_calls_that_share_an_index_are_told_by_id_and_name() -> None:
    two = [(0, "x", "f", "{}"), (1, "y", "f", "[]")]
    assert calls(call(0, "x", "f", "{}"), call(0, "y", "f", "["), call(0, None, None, "]")) == two
    assert calls(call(None, "x", "f", "{}"), call(None, "y", "f", "[]")) == two


def test_an_id_made_up_anew_for_each_piece_begins_no_call() -> None:
    assert calls(call(0, "x", "f", "{"), call(0, "z", None, "}")) == [(0, "x", "f", "{}")]


def test_arguments_may_be_a_value_null_or_nothing() -> None:
    assert calls(call(0, "x", "f", {"a": "é"})) == [(0, "x", "f", '{"a":"é"}')]
    assert calls(call(0, "x", "f", None)) == [(0, "x", "f", "{}")]


def test_the_legacy_function_call_is_a_tool_call() -> None:
    assert calls(
        {"function_call": {"name": "f", "arguments": ""}}, {"function_call": {"arguments": "{}"}}
    ) == [(0, "", "f", "{}")]


def test_a_call_that_broke_off_is_never_given_as_whole() -> None:
    events = read(chunk(call(0, "x", "f", "{}")))
    assert only(ToolCallDelta, events)
    assert not only(ToolCall, events)


def test_usage_that_counts_along_is_partial_until_the_end() -> None:
    def usage(n: int) -> dict:
        return {"prompt_tokens": 3, "completion_tokens": n}

    events = read(
        chunk({"content": "x"}, usage=usage(1)),
        chunk({"content": "y"}, usage=usage(2)),
        chunk({}, "stop", usage=usage(2)),
        chunk({}, "stop", usage=usage(2)),
        DONE,
    )
    counts = [(event.output_tokens, event.partial) for event in only(Usage, events)]
    assert counts == [(1, True), (2, True), (2, False)]


def test_usage_is_found_where_each_provider_puts_it() -> None:
    groq = chunk({}, "stop", x_groq={"usage": {"prompt_tokens": 1, "completion_tokens": 2}})
    deepseek = {"prompt_tokens": 5, "completion_tokens": 6, "prompt_cache_hit_tokens": 4}
    details = {
        "prompt_tokens": 5,
        "completion_tokens": 6,
        "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }
    moonshot = {"index": 0, "delta": {}, "finish_reason": "stop", "usage": deepseek}
    assert only(Usage, read(groq)) == [Usage(input_tokens=1, output_tokens=2)]
    cached = Usage(input_tokens=5, output_tokens=6, cached_tokens=4)
    assert only(Usage, read(chunk({}, "stop", usage=deepseek))) == [cached]
    assert only(Usage, read(data({"choices": [moonshot]}))) == [cached]
    assert only(Usage, read(chunk({}, "stop"), data({"choices": [], "usage": details}))) == [
        Usage(
            input_tokens=5,
            output_tokens=6,
            reasoning_tokens=2,
            cached_tokens=4,
            cache_write_tokens=1,
        )
    ]


def test_a_stop_reason_stands_in_for_a_finish_reason_and_never_against_it() -> None:
    def choice(**fields: object) -> bytes:
        return data({"id": "a", "choices": [{"index": 0, "delta": {"content": "x"}, **fields}]})

    assert read(choice(stop_reason="length"))[-1] == Stop(reason="length", raw="length")
    met = choice(finish_reason="stop", stop_reason="</end>")
    assert read(met)[-1] == Stop(reason="stop", raw="stop")
    token = choice(finish_reason=None, stop_reason=128009)
    assert read(token)[-1].code == "upstream-truncated"


def test_what_providers_add_to_a_delta_is_passed_through_unless_it_says_nothing() -> None:
    tools = [{"index": 0, "type": "search"}]
    nothing = {"sources": None, "status": None}
    events = read(chunk({"executed_tools": tools, "graph_data": nothing, "context": {}}), DONE)
    assert only(Data, events) == [Data(kind="executed_tools", value=tools)]


def test_azure_s_filter_results_before_and_after_the_answer_are_no_part_of_it() -> None:
    late = {"index": 0, "content_filter_offsets": {}, "content_filter_results": {}}
    opening = {"id": "", "model": "", "choices": [], "prompt_filter_results": [{}]}
    plain = read(chunk({"content": "x"}), chunk({}, "stop"), DONE)
    assert (
        read(
            data(opening),
            chunk({"content": "x"}),
            chunk({}, "stop"),
            data({"id": "", "model": "", "choices": [{**late, "finish_reason": None}]}),
            DONE,
        )
        == plain
    )


def test_a_whole_message_in_the_delta_s_place_is_read() -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}
    assert only(Text, read(data({"id": "a", "choices": [choice]}))) == [Text(text="x")]


def test_citations_that_repeat_are_given_once() -> None:
    more = {"citations": ["u"]}
    events = read(chunk({"content": "x"}, **more), chunk({"content": "y"}, "stop", **more))
    assert only(Data, events) == [Data(kind="citations", value=["u"])]


def test_an_event_beyond_the_bound_is_a_failure_and_no_error() -> None:
    big = b"data: " + b"x" * (9 * 1024 * 1024)
    reader = Reader()
    reader.receive_data(chunk({"content": "x"}))
    reader.receive_data(big)
    reader.receive_data(b"more")
    reader.receive_eof()
    events = reader.events()
    assert only(Text, events)
    assert events[-1].code == "upstream-malformed"
    assert reader.is_ended
