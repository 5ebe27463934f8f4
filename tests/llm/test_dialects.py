"""What holds for every dialect: its name, its bounds, and what is a failure everywhere."""

from __future__ import annotations

import copy
import gc
import json
import time
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm.reading import assert_in_order, chunk, cut, data, drip, failure, line, message, named, read
from penstock.llm.assemble import MAX_HELD_BYTES
from penstock.llm.dialects import ACCENTS, DIALECTS, find_dialect
from penstock.llm.events import Failure, Stop
from penstock.llm.reader import NO_MESSAGE, read_error

MIB = 1024 * 1024
SSE = [name for name, dialect in DIALECTS.items() if dialect.media_type == "text/event-stream"]


def chat(delta: dict, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return data({"id": "a", "model": "m", "choices": [choice]})


def responses(step: str, **fields: object) -> bytes:
    return named(f"response.{step}", **fields)


def converse(type: str, **fields: object) -> bytes:
    return message(type, {"contentBlockIndex": 0, **fields})


def gemini(part: dict, **more: object) -> bytes:
    return data({"candidates": [{"content": {"parts": [part]}, **more}]})


# A small body of each dialect that is whole, with text that is cut easily and a call if it has any.
TEXT = "é🙂\u2028 x"
CALL = {"id": "c", "function": {"name": "f", "arguments": '{"é":1}'}}
ANSWERS: dict[str, list[bytes]] = {
    "openai-chat": [
        b": comment\n\n",
        chat({"content": TEXT}),
        chat({"tool_calls": [{"index": 0, **CALL}]}),
        chat({}, "tool_calls"),
        b"data: [DONE]\n\n",
    ],
    "openai-responses": [
        responses("output_text.delta", output_index=0, delta=TEXT),
        responses("function_call_arguments.delta", output_index=1, delta='{"é":1}'),
        responses("completed", response={"id": "r", "status": "completed"}),
    ],
    "openai-completions": [
        data({"id": "a", "choices": [{"index": 0, "text": TEXT, "finish_reason": "stop"}]}),
        b"data: [DONE]\n\n",
    ],
    "anthropic-messages": [
        named("message_start", message={"id": "a", "model": "m"}),
        named("content_block_delta", index=0, delta={"type": "text_delta", "text": TEXT}),
        named("content_block_start", index=1, content_block={"type": "tool_use", "name": "f"}),
        named("message_delta", delta={"stop_reason": "tool_use"}),
        named("message_stop"),
    ],
    "gemini": [
        gemini({"text": TEXT}),
        gemini({"functionCall": {"name": "f", "args": {"é": 1}}}, finishReason="STOP"),
    ],
    "bedrock": [
        converse("contentBlockDelta", delta={"text": TEXT}),
        converse("contentBlockStart", start={"toolUse": {"name": "f"}}),
        converse("messageStop", stopReason="tool_use"),
        converse("metadata", usage={"inputTokens": 1, "outputTokens": 1}),
    ],
    "ollama": [line(message={"content": TEXT}), line(done=True, done_reason="stop")],
    "cohere": [
        named("message-start", id="a"),
        named("content-delta", delta={"message": {"content": {"text": TEXT}}}),
        named("tool-call-start", index=0, delta={"message": {"tool_calls": CALL}}),
        named("message-end", delta={"finish_reason": "TOOL_CALL"}),
    ],
    "replicate": [
        "event: output\ndata: é🙂\ndata:  x\n\n".encode(),
        b"event: done\ndata: {}\n\n",
    ],
    "watsonx": [data({"results": [{"generated_text": TEXT, "stop_reason": "eos_token"}]})],
}


def test_every_dialect_has_an_answer_here() -> None:
    assert set(ANSWERS) == set(DIALECTS)


@pytest.mark.parametrize("name", DIALECTS)
def test_a_dialect_is_found_by_its_name_and_each_reader_is_its_own(name: str) -> None:
    dialect = find_dialect(name)
    assert dialect.name == name
    assert dialect.make_reader() is not dialect.make_reader()
    assert dialect.media_type.count("/") == 1


def test_a_provider_with_an_accent_is_found_by_its_name_too() -> None:
    assert not set(ACCENTS) & set(DIALECTS)
    assert {find_dialect(name).name for name in ACCENTS} == {"openai-chat"}
    for provider in ("azure", "deepseek", "groq", "mistral", "openrouter", "vllm", "writer"):
        assert provider in ACCENTS


def test_an_unknown_dialect_is_refused_with_the_known_ones() -> None:
    with pytest.raises(LookupError, match=r"'morse'.*openai-responses.*bedrock"):
        find_dialect("morse")


@pytest.mark.parametrize("name", DIALECTS)
def test_a_whole_answer_is_read_and_every_front_of_it_in_order(name: str) -> None:
    wire = b"".join(ANSWERS[name])
    whole = read(name, wire)
    assert_in_order(whole)
    assert not [event for event in whole if isinstance(event, Failure)]
    is_whole: list[bool] = []
    reader = find_dialect(name).make_reader()
    for place in range(len(wire) + 1):
        reader.receive_data(wire[place - 1 : place] if place else b"")
        short = copy.deepcopy(reader)
        short.receive_eof()
        events = short.events()
        assert_in_order(events)
        failed = [event.code for event in events if isinstance(event, Failure)]
        assert failed in ([], ["upstream-truncated"])
        is_whole.append(not failed)
    # Once whole, whole: nothing that may follow takes it back.
    assert is_whole == sorted(is_whole)
    assert is_whole[-1]
    assert not is_whole[len(wire) // 3]


@settings(deadline=None, max_examples=25)
@given(st.data())
@pytest.mark.parametrize("name", DIALECTS)
def test_where_the_bytes_are_cut_changes_nothing(name: str, data: st.DataObject) -> None:
    wire = b"".join(ANSWERS[name])
    places = data.draw(st.lists(st.integers(0, len(wire)), max_size=12), label="cuts")
    assert read(name, *cut(wire, places)) == read(name, wire)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.binary(max_size=30), max_size=6))
@pytest.mark.parametrize("name", DIALECTS)
def test_any_bytes_at_all_are_an_answer_or_a_failure(name: str, pieces: list[bytes]) -> None:
    events = read(name, *ANSWERS[name][:1], *pieces)
    assert_in_order(events)
    assert read(name, *ANSWERS[name][:1], b"".join(pieces)) == events


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize(
    "body", [b"", b"\n", b"\0", b"<html>Bad gateway</html>\n\n", b"\xff" * 99, b"{}", b"[]", b"{"]
)
def test_a_body_that_is_nobody_s_answer_is_a_failure(name: str, body: bytes) -> None:
    for pieces in ([body], drip(body)):
        (failed,) = read(name, *pieces)
        assert isinstance(failed, Failure)
        assert failed.code in ("upstream-truncated", "upstream-malformed")


@pytest.mark.parametrize("name", SSE)
@pytest.mark.parametrize("indent", [None, 2])
def test_an_error_in_the_place_of_a_stream_is_read(name: str, indent: int | None) -> None:
    error = {"error": {"message": "no credit", "type": "billing", "status": 402}}
    body = b"\n " + json.dumps(error, indent=indent).encode()
    wanted = Failure(message="no credit", code="billing", status=402)
    assert failure(name, body) == failure(name, *drip(body)) == wanted
    whole = json.dumps({"choices": [], "id": "a"}).encode()
    assert failure(name, whole).code == "upstream-malformed"
    assert "no stream" in failure(name, whole).message


@pytest.mark.parametrize("name", DIALECTS)
def test_every_error_key_is_an_error(name: str) -> None:
    error = {"error": {"message": "m", "code": "c"}}
    said = {"bedrock": message("later", error), "ollama": line(**error)}
    wire = said.get(name, b"event: error\n" + data(error))
    for before in ([], ANSWERS[name][:1]):
        if is_ended(name, *before):
            continue
        assert failure(name, *before, wire, *ANSWERS[name]) == Failure(message="m", code="c")


def is_ended(name: str, *pieces: bytes) -> bool:
    reader = find_dialect(name).make_reader()
    for piece in pieces:
        reader.receive_data(piece)
    return reader.is_ended


@pytest.mark.parametrize("name", DIALECTS)
def test_nothing_is_said_twice_and_nothing_after_the_end(name: str) -> None:
    reader = find_dialect(name).make_reader()
    for piece in ANSWERS[name]:
        reader.receive_data(piece)
    reader.receive_eof()
    assert reader.is_ended
    assert any(isinstance(event, Stop) for event in reader.events())
    reader.receive_data(b"".join(ANSWERS[name]) + b"garbage\n\n")
    reader.receive_eof()
    assert reader.events() == []


# What a reader holds.


@pytest.mark.parametrize("name", DIALECTS)
def test_an_event_without_end_is_a_failure_and_not_held(name: str) -> None:
    begin = {"bedrock": ANSWERS[name][0][:12], "ollama": b'{"a":"'}.get(name, b"data: {")
    reader = find_dialect(name).make_reader()
    reader.receive_data(begin)
    block = b"x" * MIB
    tracemalloc.start()
    try:
        for _ in range(24):
            reader.receive_data(block)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    (failed,) = reader.events()
    assert isinstance(failed, Failure)
    assert failed.code == "upstream-malformed"
    assert reader.is_ended
    assert peak < 40 * MIB


ENDLESS: dict[str, tuple[str, list[bytes], Callable[[int], bytes]]] = {
    "arguments of chat": (
        "openai-chat",
        [],
        lambda n: chat({"tool_calls": [{"index": 0, "function": {"arguments": "x" * 60_000}}]}),
    ),
    "calls of chat": (
        "openai-chat",
        [],
        lambda n: chat(
            {
                "tool_calls": [
                    {"index": 1000 * n + i, "function": {"name": "f"}} for i in range(1000)
                ]
            }
        ),
    ),
    "arguments of responses": (
        "openai-responses",
        [],
        lambda n: responses("function_call_arguments.delta", output_index=0, delta="x" * 60_000),
    ),
    "parts of responses": (
        "openai-responses",
        [],
        lambda n: b"".join(
            responses("output_text.delta", output_index=n, content_index=i, delta="x")
            for i in range(300)
        ),
    ),
    "input of a server tool": (
        "anthropic-messages",
        [
            named("message_start", message={}),
            named("content_block_start", index=0, content_block={"type": "server_tool_use"}),
        ],
        lambda n: named(
            "content_block_delta",
            index=0,
            delta={"type": "input_json_delta", "partial_json": "x" * 60_000},
        ),
    ),
    "open blocks": (
        "anthropic-messages",
        [named("message_start", message={})],
        lambda n: b"".join(
            named("content_block_start", index=300 * n + i, content_block={"type": "text"})
            for i in range(300)
        ),
    ),
    "pieces of gemini": (
        "gemini",
        [],
        lambda n: gemini(
            {
                "functionCall": {
                    "name": "f" if not n else "",
                    "partialArgs": [{"jsonPath": "$.a", "stringValue": "x" * 60_000}],
                    "willContinue": True,
                }
            }
        ),
    ),
    "input of bedrock": (
        "bedrock",
        [],
        lambda n: converse("contentBlockDelta", delta={"toolUse": {"input": "x" * 60_000}}),
    ),
    "input of bedrock's server tool": (
        "bedrock",
        [converse("contentBlockStart", start={"toolUse": {"type": "server_tool_use"}})],
        lambda n: converse("contentBlockDelta", delta={"toolUse": {"input": "x" * 60_000}}),
    ),
    "arguments of cohere": (
        "cohere",
        [],
        lambda n: named(
            "tool-call-delta",
            index=0,
            delta={"message": {"tool_calls": {"function": {"arguments": "x" * 60_000}}}},
        ),
    ),
}


@pytest.mark.parametrize("case", ENDLESS)
def test_what_is_begun_and_never_finished_is_bounded(case: str) -> None:
    name, begin, more = ENDLESS[case]
    reader = find_dialect(name).make_reader()
    for piece in begin:
        reader.receive_data(piece)
    gc.collect()
    tracemalloc.start()
    try:
        for n in range(400):
            reader.receive_data(more(n))
            if any(isinstance(event, Failure) for event in reader.events()):
                break
        else:
            pytest.fail("400 pieces were taken, and nothing was refused")
        reader.receive_data(more(0))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert reader.is_ended
    assert held < 4 * MAX_HELD_BYTES


@pytest.mark.parametrize("name", ["openai-responses", "anthropic-messages", "cohere", "bedrock"])
def test_what_was_finished_counts_no_longer(name: str) -> None:
    big = "x" * 100_000
    rounds = {
        "openai-responses": lambda n: (
            responses("function_call_arguments.delta", output_index=n, item_id=f"i{n}", delta=big)
            + responses("output_text.delta", output_index=n, delta="x")
            + responses("output_item.done", output_index=n, item={"type": "message"})
            + responses(
                "output_item.done", output_index=n, item={"type": "function_call", "id": f"i{n}"}
            )
        ),
        "anthropic-messages": lambda n: b"".join(
            named("content_block_start", index=n, content_block={"type": type, "name": "f"})
            + named(
                "content_block_delta",
                index=n,
                delta={"type": "input_json_delta", "partial_json": big},
            )
            + named("content_block_stop", index=n)
            for type in ("tool_use", "server_tool_use")
        ),
        "cohere": lambda n: (
            named(
                "tool-call-start",
                index=n,
                delta={"message": {"tool_calls": {"function": {"arguments": big}}}},
            )
            + named("tool-call-end", index=n)
        ),
        "bedrock": lambda n: b"".join(
            converse("contentBlockStart", start={"toolUse": {"name": "f", "type": type}})
            + converse("contentBlockDelta", delta={"toolUse": {"input": big}})
            + converse("contentBlockStop")
            for type in ("tool_use", "server_tool_use")
        ),
    }
    reader = find_dialect(name).make_reader()
    for n in range(2 * MAX_HELD_BYTES // len(big)):
        reader.receive_data(rounds[name](n))
        assert not any(isinstance(event, Failure) for event in reader.events())


# What reading costs.


def best_s(work: Callable[[], object]) -> float:
    times: list[float] = []
    for _ in range(3):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)


def assert_linear(at: Callable[[int], Callable[[], object]], n: int) -> None:
    """Twice the input costs about twice as much: a square would cost four times. As in growth/."""
    small, large = at(n), at(2 * n)
    ratios: list[float] = []
    for _ in range(4):
        gc.collect()
        ratios.append(best_s(large) / best_s(small))
        if ratios[-1] < 3:
            return
    pytest.fail(f"twice the input costs {ratios} times as much, so it is not linear")


@pytest.mark.parametrize("name", ["openai-chat", "gemini", "bedrock", "ollama"])
def test_one_big_event_in_small_reads_is_linear(name: str) -> None:
    wide = {
        "openai-chat": lambda text: chat({"content": text}),
        "gemini": lambda text: gemini({"text": text}),
        "bedrock": lambda text: converse("contentBlockDelta", delta={"text": text}),
        "ollama": lambda text: line(message={"content": text}),
    }[name]

    def at(n: int) -> Callable[[], object]:
        wire = wide("x" * n)
        pieces = cut(wire, range(0, len(wire), 20))
        return lambda: read(name, *pieces)

    assert_linear(at, 400_000)


@pytest.mark.parametrize(
    ("name", "piece", "end"),
    [
        (
            "openai-chat",
            chat({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "abcdef"}}]}),
            chat({}, "stop"),
        ),
        (
            "openai-responses",
            responses("function_call_arguments.delta", output_index=0, delta="abcdef"),
            ANSWERS["openai-responses"][-1],
        ),
        (
            "gemini",
            gemini(
                {
                    "functionCall": {
                        "partialArgs": [{"jsonPath": "$.a", "stringValue": "abcdef"}],
                        "willContinue": True,
                    }
                }
            ),
            gemini({"functionCall": {}}, finishReason="STOP"),
        ),
        ("bedrock", chunk({"outputText": "abcdef"}), chunk({"completionReason": "FINISH"})),
        ("ollama", line(message={"content": "abcdef"}), line(done=True)),
    ],
    ids=["openai-chat", "openai-responses", "gemini", "bedrock", "ollama"],
)
def test_a_call_or_text_in_many_pieces_in_one_read_is_linear(
    name: str, piece: bytes, end: bytes
) -> None:
    def at(n: int) -> Callable[[], object]:
        wire = piece * n + end
        return lambda: read(name, wire)

    assert_linear(at, 4000)


# Errors in any shape.


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        ("words", ("words", "upstream-failed", None)),
        (["words"], ("words", "upstream-failed", None)),
        ([], (NO_MESSAGE, "upstream-failed", None)),
        (None, (NO_MESSAGE, "upstream-failed", None)),
        (True, (NO_MESSAGE, "upstream-failed", None)),
        ({"message": "m", "code": 503}, ("m", "upstream-failed", 503)),
        ({"message": "m", "code": "503"}, ("m", "503", 503)),
        ({"message": "m", "code": 200}, ("m", "upstream-failed", None)),
        ({"Message": "m"}, ("m", "upstream-failed", None)),
        ({"detail": "m"}, ("m", "upstream-failed", None)),
        ({"detail": {"message": "m"}}, ("m", "upstream-failed", None)),
        ({"error": {"error": {"message": "m", "type": "t"}}}, ("m", "t", None)),
        ({"error": {"message": "m"}, "status_code": 429}, ("m", "upstream-failed", 429)),
        ({"error": {"message": "m", "type": "error"}, "code": "c"}, ("m", "c", None)),
        ({"errors": ["m"], "code": "c"}, ("m", "c", None)),
        ({"errors": [{"message": "m"}, {"message": "n"}]}, ("m", "upstream-failed", None)),
        ({"message": {"text": "m"}, "code": []}, (NO_MESSAGE, "upstream-failed", None)),
    ],
)
def test_an_error_in_any_shape_has_message_code_and_status(error, wanted: tuple) -> None:
    assert read_error(error) == wanted
