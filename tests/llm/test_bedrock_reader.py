"""The Bedrock reader gives Converse's events and every model's own chunks as token events."""

from __future__ import annotations

import pytest

from llm.reading import (
    answer,
    assert_in_order,
    calls,
    chunk,
    cut,
    drip,
    frame,
    message,
    only,
    string_header,
)
from llm.reading import failure as failure_of
from llm.reading import read as read_dialect
from penstock.llm.bedrock import Reader
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
    events = read_dialect("bedrock", *pieces)
    assert_in_order(events)
    return events


def failure(*pieces: bytes) -> Failure:
    return failure_of("bedrock", *pieces)


START = message("messageStart", {"role": "assistant", "p": "abc"})


def delta(index: int, **fields: object) -> bytes:
    return message("contentBlockDelta", {"contentBlockIndex": index, "delta": fields})


def opened(index: int, **fields: object) -> bytes:
    return message("contentBlockStart", {"contentBlockIndex": index, "start": fields})


def closed(index: int) -> bytes:
    return message("contentBlockStop", {"contentBlockIndex": index})


def stop(reason: str = "end_turn") -> bytes:
    return message("messageStop", {"stopReason": reason})


def metadata(**usage: int) -> bytes:
    return message("metadata", {"usage": usage, "metrics": {"latencyMs": 5}})


END = stop() + metadata(inputTokens=3, outputTokens=2, totalTokens=5)


def test_a_plain_answer_is_start_text_stop_usage() -> None:
    assert read(START, delta(0, text="Hi"), delta(0, text=" you"), closed(0), END) == [
        Start(id="", model=""),
        Text(text="Hi"),
        Text(text=" you"),
        Stop(reason="stop", raw="end_turn"),
        Usage(input_tokens=3, output_tokens=2),
    ]


@pytest.mark.parametrize("pieces", [[], [START], [START, delta(0, text="x"), closed(0)]])
def test_an_end_before_the_message_stops_is_truncated(pieces: list[bytes]) -> None:
    assert failure(*pieces).code == "upstream-truncated"


def test_a_body_that_ends_before_its_counts_is_whole_and_lacks_its_price() -> None:
    got = answer(read(START, delta(0, text="x"), stop(), metadata(inputTokens=1)[:-3]))
    assert not got.is_truncated
    assert got.usage is None


def test_input_counts_what_was_read_from_and_written_to_the_cache() -> None:
    counts = metadata(
        inputTokens=1, outputTokens=5, cacheReadInputTokens=20, cacheWriteInputTokens=300
    )
    assert only(Usage, read(START, stop(), counts)) == [
        Usage(input_tokens=321, output_tokens=5, cached_tokens=20, cache_write_tokens=300)
    ]


def test_parallel_calls_are_told_by_their_blocks() -> None:
    events = read(
        START,
        opened(1, toolUse={"toolUseId": "x", "name": "f"}),
        delta(1, toolUse={"input": '{"a"'}),
        opened(2, toolUse={"toolUseId": "y", "name": "g"}),
        delta(2, toolUse={"input": ""}),
        delta(1, toolUse={"input": ": 1}"}),
        closed(1),
        closed(2),
        stop("tool_use"),
        metadata(),
    )
    assert calls(events) == [("x", "f", '{"a": 1}'), ("y", "g", "{}")]
    assert only(Stop, events) == [Stop(reason="tool_use", raw="tool_use")]


def test_a_call_that_broke_off_is_never_given_as_whole() -> None:
    events = read(START, opened(0, toolUse={"name": "f"}), delta(0, toolUse={"input": "{}"}))
    assert not only(ToolCall, events)


def test_reasoning_is_given_and_what_stands_beside_the_text_is_passed_through() -> None:
    events = read(
        START,
        delta(0, reasoningContent={"text": "hm"}),
        delta(0, reasoningContent={"signature": "sig"}),
        delta(0, reasoningContent={"redactedContent": "zz"}),
        delta(1, citation={"title": "t"}),
        opened(2, toolUse={"toolUseId": "s", "name": "search", "type": "server_tool_use"}),
        delta(2, toolUse={"input": '{"q":'}),
        delta(2, toolUse={"input": ' "x"}'}),
        closed(2),
        opened(3, toolResult={"toolUseId": "s", "status": "success"}),
        delta(3, toolResult=[{"text": "found"}]),
        closed(3),
        stop(),
        message("metadata", {"usage": {}, "trace": {"guardrail": {"actionReason": "No"}}}),
    )
    assert only(Reasoning, events) == [Reasoning(text="hm")]
    assert only(Data, events) == [
        Data(kind="signature", value="sig"),
        Data(kind="redactedContent", value="zz"),
        Data(kind="citation", value={"title": "t"}),
        Data(
            kind="server_tool_use",
            value={
                "toolUseId": "s",
                "name": "search",
                "type": "server_tool_use",
                "input": {"q": "x"},
            },
        ),
        Data(kind="toolResult", value={"toolUseId": "s", "status": "success"}),
        Data(kind="toolResult", value=[{"text": "found"}]),
        Data(kind="trace", value={"guardrail": {"actionReason": "No"}}),
    ]
    assert not only(ToolCall, events)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("guardrail_intervened", "content_filter"),
        ("content_filtered", "content_filter"),
        ("a_new_one", "other"),
    ],
)
def test_a_stop_reason_is_mapped_and_kept(raw: str, reason: str) -> None:
    assert read(START, stop(raw), metadata())[-1] == Stop(reason=reason, raw=raw)


def test_output_that_could_not_be_used_is_a_failure() -> None:
    assert failure(START, stop("malformed_tool_use"), metadata()).code == "malformed_tool_use"


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (
            message("throttlingException", {"message": "slow down"}, kind="exception"),
            Failure(message="slow down", code="throttlingException", status=429),
        ),
        (
            message(
                "modelStreamErrorException",
                {"message": "m", "originalStatusCode": 503, "originalMessage": "overloaded"},
                kind="exception",
            ),
            Failure(message="overloaded", code="modelStreamErrorException", status=503),
        ),
        (
            message("aNewException", {}, kind="exception"),
            Failure(message="the provider gave no message", code="aNewException"),
        ),
        (
            frame(
                string_header(":message-type", "error")
                + string_header(":error-code", "InternalFailure")
                + string_header(":error-message", "m"),
                b"",
            ),
            Failure(message="m", code="InternalFailure"),
        ),
        (
            message("serviceUnavailableException", {"message": "m"}),
            Failure(message="m", code="serviceUnavailableException"),
        ),
    ],
)
@pytest.mark.parametrize("before", [b"", START, START + delta(0, text="x"), START + stop()])
def test_an_exception_is_a_failure_at_any_place(
    said: bytes, wanted: Failure, before: bytes
) -> None:
    assert failure(before, said, END) == wanted


@pytest.mark.parametrize(
    "bad",
    [
        b"<html>Bad gateway</html>",
        b'{"message":"no"}',
        frame(string_header(":event-type", "messageStop"), b"[]"),
        frame(string_header(":event-type", "messageStop"), b"\xff"),
        message("chunk", {"bytes": "***"}),
        message("chunk", {"bytes": "W10="}),
        message("chunk", {}),
    ],
)
def test_what_is_no_message_with_json_is_malformed(bad: bytes) -> None:
    assert failure(START, bad, END).code == "upstream-malformed"


@pytest.mark.parametrize(
    "odd",
    [
        message("later", {"x": 1}),
        message("contentBlockDelta", {"delta": None, "contentBlockIndex": "x"}),
        message("contentBlockDelta", {"delta": {"text": 3, "toolUse": "x"}}),
        message("contentBlockStart", {"start": 7}),
        message("contentBlockStop", {"contentBlockIndex": 99}),
        message("metadata", {"usage": []}),
        frame(b"", b"{}"),
    ],
)
def test_unknown_events_and_fields_of_an_unexpected_kind_do_no_harm(odd: bytes) -> None:
    assert only(Text, read(START, odd, delta(0, text="x"), odd, END)) == [Text(text="x")]


def native(type: str, **fields: object) -> bytes:
    return chunk({"type": type, **fields})


METRICS = {"amazon-bedrock-invocationMetrics": {"inputTokenCount": 4, "outputTokenCount": 6}}


def test_anthropic_s_own_events_are_read_by_its_reader_inside_chunks() -> None:
    events = read(
        native("message_start", message={"id": "i", "model": "m", "usage": {"input_tokens": 3}}),
        native("ping"),
        native("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        native("content_block_delta", index=0, delta={"type": "text_delta", "text": "Hi"}),
        native("content_block_stop", index=0),
        native("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 2}),
        native("message_stop", **METRICS),
    )
    assert events == [
        Start(id="i", model="m"),
        Usage(input_tokens=3, output_tokens=0, partial=True),
        Text(text="Hi"),
        Usage(input_tokens=3, output_tokens=2),
        Stop(reason="stop", raw="end_turn"),
    ]


def test_a_chunk_stream_that_breaks_off_is_truncated_and_its_exceptions_are_failures() -> None:
    begun = native("message_start", message={"id": "i"})
    assert failure(begun).code == "upstream-truncated"
    thrown = message("modelTimeoutException", {"message": "m"}, kind="exception")
    assert failure(begun, thrown).status == 408
    error = native("error", error={"type": "overloaded_error", "message": "m"})
    assert failure(begun, error).code == "overloaded_error"


def test_chunks_with_choices_are_read_as_chat_completions() -> None:
    def choice(**fields: object) -> bytes:
        return chunk({"choices": [{"index": 0, **fields}]})

    events = read(
        choice(message={"role": "assistant", "content": "Hi"}, stop_reason=None),
        choice(message={"content": ""}, stop_reason="length"),
        chunk({"choices": [], **METRICS}),
    )
    assert only(Text, events) == [Text(text="Hi")]
    assert only(Stop, events) == [Stop(reason="length", raw="length")]
    assert only(Usage, events) == [Usage(input_tokens=4, output_tokens=6)]
    texts = read(choice(text="a", stop_reason=None), choice(text="b", stop_reason="stop"))
    assert [piece.text for piece in only(Text, texts)] == ["a", "b"]


def test_nova_s_own_events_are_converse_s_as_fields() -> None:
    events = read(
        chunk({"messageStart": {"role": "assistant"}}),
        chunk({"contentBlockDelta": {"delta": {"text": "Hi"}, "contentBlockIndex": 0}}),
        chunk({"messageStop": {"stopReason": "max_tokens"}}),
        chunk({"metadata": {"usage": {"inputTokens": 3, "outputTokens": 2}}, **METRICS}),
    )
    assert events[1:] == [
        Text(text="Hi"),
        Stop(reason="length", raw="max_tokens"),
        Usage(input_tokens=3, output_tokens=2),
    ]


@pytest.mark.parametrize(
    ("chunks", "stop", "usage"),
    [
        (
            [
                {"outputText": "Hi", "inputTextTokenCount": 3.0, "completionReason": None},
                {"outputText": "", "completionReason": "LENGTH", "totalOutputTextTokenCount": 2},
            ],
            Stop(reason="length", raw="LENGTH"),
            Usage(input_tokens=3, output_tokens=2),
        ),
        (
            [
                {
                    "outputText": "Hi",
                    "inputTextTokenCount": 3,
                    "totalOutputTextTokenCount": 2,
                    "amazon-bedrock-guardrailAction": "INTERVENED",
                }
            ],
            Stop(reason="content_filter", raw="INTERVENED"),
            Usage(input_tokens=3, output_tokens=2),
        ),
        (
            [
                {"generation": "Hi", "prompt_token_count": 3, "generation_token_count": 1},
                {"generation": "", "generation_token_count": 2, "stop_reason": "stop"},
            ],
            Stop(reason="stop", raw="stop"),
            Usage(input_tokens=3, output_tokens=2),
        ),
        (
            [
                {"outputs": [{"text": "Hi", "stop_reason": None}]},
                {"outputs": [{"text": "", "stop_reason": "stop"}], **METRICS},
            ],
            Stop(reason="stop", raw="stop"),
            Usage(input_tokens=4, output_tokens=6),
        ),
        (
            [
                {"event_type": "text-generation", "text": "Hi", "is_finished": False},
                {
                    "event_type": "stream-end",
                    "finish_reason": "COMPLETE",
                    "response": {"text": "Hi"},
                    **METRICS,
                },
            ],
            Stop(reason="stop", raw="COMPLETE"),
            Usage(input_tokens=4, output_tokens=6),
        ),
    ],
    ids=["titan", "titan with a guardrail", "llama", "mistral", "cohere"],
)
def test_models_with_plain_text_are_read(chunks: list[dict], stop: Stop, usage: Usage) -> None:
    wire = [chunk(one) for one in chunks]
    got = answer(read(*wire))
    assert (got.text, got.stop, got.usage) == ("Hi", stop, usage)
    if len(wire) > 1:
        assert failure(*wire[:-1]).code == "upstream-truncated"


def test_a_call_in_plain_chunks_is_whole_and_an_error_among_them_a_failure() -> None:
    call = {"name": "f", "parameters": {"a": 1}}
    events = read(chunk({"tool_calls": [call]}), chunk({"finish_reason": "COMPLETE"}))
    assert calls(events) == [("", "f", '{"a":1}')]
    assert events[-1] == Stop(reason="tool_use", raw="COMPLETE")
    assert failure(chunk({"text": "x"}), chunk({"finish_reason": "ERROR"})).code == "ERROR"


def test_a_reader_without_readers_for_a_model_s_own_dialect_says_so() -> None:
    reader = Reader()
    reader.receive_data(native("message_start", message={}))
    reader.receive_data(native("message_stop"))
    reader.receive_eof()
    assert [event.code for event in only(Failure, reader.events())] == ["upstream-malformed"]
    assert reader.is_ended


def test_every_cut_of_a_body_gives_the_same_events() -> None:
    wire = START + delta(0, text="é🙂") + opened(1, toolUse={"name": "f"}) + closed(1) + END
    whole = read(wire)
    assert read(*drip(wire)) == whole
    assert all(read(*cut(wire, [place])) == whole for place in range(len(wire)))
