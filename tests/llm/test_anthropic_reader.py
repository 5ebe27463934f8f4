"""The Anthropic Messages reader gives blocks as token events, and needs `message_stop`."""

import json

import pytest

from penstock.llm.anthropic import Reader
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


def event(type: str, **fields: object) -> bytes:
    payload = json.dumps({"type": type, **fields})
    return f"event: {type}\ndata: {payload}   \n\n".encode()


def start(**usage: int) -> bytes:
    message = {"id": "msg_1", "model": "m", "role": "assistant", "usage": usage}
    return event("message_start", message=message)


def opened(index: int, **block: object) -> bytes:
    return event("content_block_start", index=index, content_block=block)


def delta(index: int, type: str, **fields: object) -> bytes:
    return event("content_block_delta", index=index, delta={"type": type, **fields})


def closed(index: int) -> bytes:
    return event("content_block_stop", index=index)


def stop(reason: str = "end_turn", **usage: int) -> bytes:
    return event("message_delta", delta={"stop_reason": reason}, usage=usage)


END = event("message_stop")


def read(*pieces: bytes) -> list[TokenEvent]:
    reader = Reader()
    for piece in pieces:
        reader.receive_data(piece)
    reader.receive_eof()
    return reader.events()


def only(kind: type, events: list[TokenEvent]) -> list:
    return [event for event in events if isinstance(event, kind)]


def test_a_plain_answer_is_start_text_usage_stop() -> None:
    assert read(
        start(input_tokens=3, output_tokens=1),
        opened(0, type="text", text="a"),
        event("ping"),
        delta(0, "text_delta", text="b"),
        closed(0),
        stop(output_tokens=7),
        END,
    ) == [
        Start(id="msg_1", model="m"),
        Usage(input_tokens=3, output_tokens=1, partial=True),
        Text(text="a"),
        Text(text="b"),
        Usage(input_tokens=3, output_tokens=7),
        Stop(reason="stop", raw="end_turn"),
    ]


@pytest.mark.parametrize("pieces", [[], [start()], [start(), stop()], [b"data: [DONE]\n\n"], [END]])
def test_an_end_before_message_stop_is_truncated(pieces: list[bytes]) -> None:
    assert read(*pieces)[-1].code == "upstream-truncated"


def test_input_counts_what_was_read_from_and_written_to_the_cache() -> None:
    events = read(
        start(input_tokens=1, cache_read_input_tokens=20, cache_creation_input_tokens=300),
        stop(output_tokens=5, output_tokens_details={"thinking_tokens": 4}),
        END,
    )
    assert only(Usage, events)[-1] == Usage(
        input_tokens=321,
        output_tokens=5,
        reasoning_tokens=4,
        cached_tokens=20,
        cache_write_tokens=300,
    )


def test_usage_in_a_message_delta_is_cumulative_and_partial_before_the_stop() -> None:
    along = event("message_delta", delta={}, usage={"output_tokens": 4})
    usages = only(Usage, read(start(input_tokens=1), along, stop(output_tokens=9), END))
    assert [(usage.output_tokens, usage.partial) for usage in usages] == [
        (0, True),
        (4, True),
        (9, False),
    ]


def test_thinking_is_reasoning_and_what_must_be_sent_back_is_data() -> None:
    redacted = {"type": "redacted_thinking", "data": "zz"}
    events = read(
        start(),
        opened(0, type="thinking", thinking="", signature=""),
        delta(0, "thinking_delta", thinking="hm"),
        delta(0, "signature_delta", signature="sig"),
        closed(0),
        opened(1, **redacted),
        closed(1),
        opened(2, type="compaction", content=None),
        delta(2, "compaction_delta", content="short"),
        closed(2),
        stop(),
        END,
    )
    assert only(Reasoning, events) == [Reasoning(text="hm")]
    assert only(Data, events) == [
        Data(kind="signature", value="sig"),
        Data(kind="redacted_thinking", value=redacted),
        Data(kind="compaction", value="short"),
    ]


def test_tool_calls_are_numbered_as_calls_and_whole_at_their_block_s_end() -> None:
    events = read(
        start(),
        opened(0, type="text", text=""),
        closed(0),
        opened(1, type="tool_use", id="x", name="f", input={}),
        delta(1, "input_json_delta", partial_json=""),
        delta(1, "input_json_delta", partial_json='{"a":'),
        delta(1, "input_json_delta", partial_json=" 1}"),
        closed(1),
        opened(2, type="tool_use", id="y", name="g", input={}),
        closed(2),
        opened(3, type="tool_use", id="z", name="h", input={"whole": "é"}),
        closed(3),
        stop("tool_use"),
        END,
    )
    assert only(ToolCallDelta, events)[:2] == [
        ToolCallDelta(index=0, id="x", name="f"),
        ToolCallDelta(index=0, arguments='{"a":'),
    ]
    assert [(c.index, c.id, c.arguments) for c in only(ToolCall, events)] == [
        (0, "x", '{"a": 1}'),
        (1, "y", "{}"),
        (2, "z", '{"whole":"é"}'),
    ]
    assert events[-1] == Stop(reason="tool_use", raw="tool_use")


def test_broken_arguments_are_given_and_marked() -> None:
    block = opened(0, type="tool_use", id="x", name="f")
    events = read(start(), block, delta(0, "input_json_delta", partial_json="{"), closed(0))
    assert [(c.arguments, c.arguments_valid) for c in only(ToolCall, events)] == [("{", False)]


@pytest.mark.parametrize("kind", ["server_tool_use", "mcp_tool_use"])
def test_a_tool_the_provider_runs_is_data_and_no_call(kind: str) -> None:
    result = {"type": "web_search_tool_result", "content": [{"url": "u"}]}
    events = read(
        start(),
        opened(0, type=kind, id="s", name="search", input={}),
        delta(0, "input_json_delta", partial_json='{"q": "x"}'),
        closed(0),
        opened(1, **result),
        closed(1),
        stop(),
        END,
    )
    whole = {"type": kind, "id": "s", "name": "search", "input": {"q": "x"}}
    assert only(Data, events) == [
        Data(kind=kind, value=whole),
        Data(kind="web_search_tool_result", value=result),
    ]
    assert not only(ToolCall, events)


def test_a_citation_is_data_between_the_texts_it_belongs_to() -> None:
    citation = {"type": "char_location", "cited_text": "c"}
    events = read(
        start(),
        opened(0, type="text", text="", citations=[]),
        delta(0, "citations_delta", citation=citation),
        delta(0, "text_delta", text="x"),
        stop(),
        END,
    )
    assert Data(kind="citation", value=citation) in events


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_use"),
        ("refusal", "refusal"),
        ("pause_turn", "other"),
    ],
)
def test_a_stop_reason_is_mapped_and_kept(raw: str, reason: str) -> None:
    assert read(start(), stop(raw), END)[-1] == Stop(reason=reason, raw=raw)


@pytest.mark.parametrize("before", [[], [start()], [start(), stop()]])
def test_an_error_event_is_a_failure_at_any_place(before: list[bytes]) -> None:
    error = event("error", error={"type": "overloaded_error", "message": "Overloaded"})
    failed = read(*before, error, END)[-1]
    assert failed == Failure(message="Overloaded", code="overloaded_error", status=529)


@pytest.mark.parametrize(
    ("wire", "message", "code"),
    [
        (b'data: {"error":{"message":"m"}}\n\n', "m", "upstream-failed"),
        (b'data: {"type":"error","message":"m"}\n\n', "m", "upstream-failed"),
        (b"event: error\ndata: words\n\n", "words", "upstream-failed"),
        (b'event: error\ndata: {"message":"flat"}\n\n', "flat", "upstream-failed"),
        (b'data: {"error":"words"}\n\n', "words", "upstream-failed"),
    ],
)
def test_errors_of_compatible_servers_are_failures(wire: bytes, message: str, code: str) -> None:
    assert read(start(), wire, END)[-1] == Failure(message=message, code=code)


def test_events_are_understood_without_names_and_without_types() -> None:
    wire = start() + opened(0, type="text", text="x") + stop() + END
    nameless = b"\n".join(line for line in wire.split(b"\n") if not line.startswith(b"event:"))
    typeless = wire.replace(b'"type": "message_stop"', b'"a": 1')
    assert read(nameless) == read(typeless) == read(wire)


def test_unknown_events_blocks_and_deltas_do_no_harm() -> None:
    events = read(
        b": comment\n\n",
        event("later", x=1),
        event("content_block_delta", index=5, delta={"type": "text_delta", "text": "x"}),
        start(),
        opened(0, type="hologram", data="d"),
        delta(0, "hologram_delta", data="d"),
        delta(1, "input_json_delta", partial_json="{"),
        closed(0),
        opened(2, type=["hologram"]),
        closed(2),
        closed(9),
        event("content_block_start", index="x", content_block=None),
        event("message_delta", delta=None, usage=[]),
        b"event: ping\ndata:\n\n",
        stop(),
        END,
    )
    assert only(Text, events) == [Text(text="x")]
    assert only(Data, events) == [Data(kind="hologram", value={"type": "hologram", "data": "d"})]
    assert not only(Failure, events)


@pytest.mark.parametrize("bad", ["{", "[]", "hello", "[" * 5000])
def test_data_that_is_no_json_object_is_malformed(bad: str) -> None:
    assert read(start(), f"data: {bad}\n\n".encode(), END)[-1].code == "upstream-malformed"


def test_nothing_is_read_after_message_stop() -> None:
    reader = Reader()
    reader.receive_data(start() + stop() + END + b"data: {broken\n\n")
    reader.receive_data(b"data: {broken\n\n")
    reader.receive_eof()
    assert reader.is_ended
    assert not only(Failure, reader.events())
