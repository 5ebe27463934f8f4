"""Whatever is asked: the same dialect loses nothing, another says the same, and garbage is told."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from growth.test_sse_growth import assert_linear
from llm.ask_bodies import body_of
from llm.ask_rules import RULES, check
from llm.asking import anything, essence, requests, said, write
from penstock.core.errors import RequestInexpressible, RequestMalformed
from penstock.core.limits import MAX_REQUEST_DEPTH
from penstock.llm.ask.dialects import READERS, WRITERS, read_request
from penstock.llm.ask.request import Request
from penstock.llm.dialects import ACCENTS, DIALECTS
from penstock.llm.events import Json
from penstock.llm.write.dialects import OUT_DIALECTS

BOTH = sorted(set(READERS) & set(WRITERS))
PAIRS = [(one, other) for one in BOTH for other in BOTH]

# The models of which the writers know something.
MODELS: dict[str, tuple[str, ...]] = {
    "anthropic-messages": ("m", "claude-haiku-4-5", "claude-opus-4-6", "claude-sonnet-5"),
    "bedrock": ("amazon.nova-pro-v1:0", "anthropic.claude-opus-4-8", "eu.anthropic.claude-3-5"),
    "gemini": ("gemini-2.5-pro", "gemini-3-pro"),
}

LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-9, 9), st.just(1e300), st.text(max_size=3)
)
GARBAGE: st.SearchStrategy[Any] = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)

SEEDS: dict[str, dict[str, Any]] = {
    "openai-chat": {
        "model": "m",
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "a"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
                    {"type": "file", "file": {"file_data": "data:a/b;base64,AA"}},
                ],
            },
            {
                "role": "assistant",
                "tool_calls": [
                    {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
                ],
            },
            {"role": "tool", "tool_call_id": "a", "content": "b"},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}},
        "stream_options": {"include_usage": True},
        "metadata": {"a": "b"},
        "max_tokens": 5,
        "stop": ["a"],
    },
    "anthropic-messages": {
        "model": "m",
        "max_tokens": 5,
        "system": [{"type": "text", "text": "a"}],
        "messages": [
            {"role": "user", "content": "a"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "a", "signature": "b"},
                    {"type": "tool_use", "id": "a", "name": "f", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "a", "content": []},
                    {"type": "document", "source": {"type": "url", "url": "u"}},
                ],
            },
        ],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "output_config": {"format": {"type": "json_schema", "schema": {}}},
        "tools": [{"name": "f", "input_schema": {}}],
        "tool_choice": {"type": "tool", "name": "f"},
    },
    "openai-responses": {
        "model": "m",
        "input": [
            {"role": "user", "content": [{"type": "input_image", "image_url": "u"}]},
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "a"}]},
            {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "a", "output": "b"},
        ],
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {}}},
        "reasoning": {"effort": "low"},
        "tools": [{"type": "function", "name": "f", "parameters": {}}],
    },
    "vercel": {
        "id": "c",
        "messages": [
            {"role": "user", "parts": [{"type": "file", "mediaType": "a/b", "url": "u"}]},
            {
                "role": "assistant",
                "parts": [
                    {"type": "text", "text": "a"},
                    {
                        "type": "tool-f",
                        "toolCallId": "a",
                        "state": "output-available",
                        "input": {},
                        "output": 5,
                    },
                ],
            },
        ],
    },
    "agui": {
        "threadId": "t",
        "runId": "r",
        "messages": [
            {"role": "user", "content": [{"type": "binary", "mimeType": "a/b", "url": "u"}]},
            {"role": "reasoning", "content": "a"},
            {"role": "tool", "toolCallId": "a", "content": "b"},
        ],
        "tools": [{"name": "f", "parameters": {}}],
        "context": [{"description": "a", "value": "b"}],
        "forwardedProps": {"model": "m"},
    },
    "native": {
        "model": "m",
        "messages": [
            {"role": "user", "content": [{"type": "image", "url": "u"}]},
            {"role": "tool", "content": [{"type": "tool_result", "call_id": "a"}]},
        ],
        "format": {"kind": "schema", "schema": {}},
        "thinking": {"effort": "low"},
    },
}


@st.composite
def broken(draw: st.DrawFn) -> tuple[str, Any]:
    """A body of some dialect with something else in one place of it."""
    dialect = draw(st.sampled_from(sorted(SEEDS)))
    body: Any = copy.deepcopy(SEEDS[dialect])
    place = body
    while True:
        keys = sorted(place) if isinstance(place, dict) else range(len(place))
        key = draw(st.sampled_from([*keys]))
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or draw(st.booleans()):
            break
        place = inner
    place[key] = draw(GARBAGE)
    return dialect, body


def read(dialect: str, body: Any) -> Request:
    return read_request(dialect, json.dumps(body).encode())


def test_every_dialect_out_can_be_asked_in_and_every_writer_has_a_reader_of_answers() -> None:
    assert set(READERS) == set(OUT_DIALECTS)
    assert set(WRITERS) <= set(DIALECTS)
    assert {ACCENTS.get(name, name) for name in ACCENTS} <= set(WRITERS)
    assert set(SEEDS) == set(READERS)


@pytest.mark.parametrize("dialect", SEEDS)
def test_the_seeds_of_what_is_broken_are_whole(dialect: str) -> None:
    assert read(dialect, SEEDS[dialect]).messages


@pytest.mark.parametrize(("one", "other"), PAIRS)
@given(request=requests())
def test_what_two_dialects_can_say_survives_both(one: str, other: str, request: Request) -> None:
    """Text, calls, results, tools and settings are the same after each of them."""
    asked = request
    for dialect in (one, other):
        asked = read(dialect, json.loads(write(asked, dialect).data()))
        assert asked.messages[-1].role == "user"
        assert said(asked) == said(request)
    assert essence(asked) == replace(essence(request), model="m")


@pytest.mark.parametrize("one", READERS)
@settings(max_examples=150)
@given(other=st.sampled_from(sorted(RULES)), request=anything(), is_stream=st.booleans())
def test_what_is_asked_is_written_as_the_provider_demands_or_refused_by_name(
    one: str, other: str, request: Request, is_stream: bool
) -> None:
    try:
        body = json.dumps(body_of(request, one)).encode()
    except RequestInexpressible:  # no client of this dialect could ask it either
        return
    asked = read_request(one, body)
    for model in MODELS.get(other, ("m",)):
        try:
            written = write(asked, other, model=model, is_stream=is_stream)
        except RequestInexpressible:
            continue
        if one != other:
            check(other, json.loads(written.data()))


@given(
    request=requests(), bound=st.one_of(st.none(), st.integers(16, 99_999)), is_stream=st.booleans()
)
def test_the_same_dialect_is_told_the_same_but_for_model_stream_and_bound(
    request: Request, bound: int | None, is_stream: bool
) -> None:
    for dialect in BOTH:
        body = {**write(request, dialect).body, "x_vendor": {"deep": [1, None, 1.0, 10**30]}}
        del body["stream"]
        before = json.dumps(body)
        read = read_request(dialect, before.encode())
        written = write(read, dialect, model="n", max_output_tokens=bound, is_stream=is_stream)
        assert json.dumps(read.origin) == before, "a caller's body was changed"
        left = json.loads(written.data())
        assert (left.pop("model"), left.pop("stream")) == ("n", is_stream)
        if dialect == "openai-chat":
            options = left.pop("stream_options", None)
            assert options == ({"include_usage": True} if is_stream else None)
            del body["stream_options"]
        if bound is not None:
            for name in ("max_tokens", "max_completion_tokens", "max_output_tokens", "thinking"):
                assert (name in left) == (name in body)
                left.pop(name, None)
                body.pop(name, None)
        else:
            assert written.left_out == ()
        del body["model"]
        assert json.dumps(left) == json.dumps(body)


@given(broken())
def test_a_broken_body_is_read_or_told_and_nothing_else_is_raised(case: tuple[str, Any]) -> None:
    dialect, body = case
    try:
        request = read(dialect, body)
    except RequestMalformed:
        return
    for target in (*WRITERS, "mistral"):
        try:
            json.loads(write(request, target).data())
        except RequestInexpressible:
            continue


@given(st.binary(max_size=40))
def test_bytes_that_are_no_request_are_told(data: bytes) -> None:
    for dialect in READERS:
        with pytest.raises(RequestMalformed):
            read_request(dialect, data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not JSON"),
        (b"[]", "not a JSON object"),
        (b'{"model":"m"', "not JSON"),
        (b'{"a":NaN}', "not JSON"),
        (b'{"a":1e999}', "not finite"),
        (b'{"a":' + b"9" * 5_000 + b"}", "not JSON"),
        (b'{"a":"\xff"}', "not UTF-8"),
        (b'{"a":' + b"[" * MAX_REQUEST_DEPTH + b"]" * MAX_REQUEST_DEPTH + b"}", "deeper"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "deeper"),
        (b'{"a":"' + b"a" * 100 + b'"}', "more than 64 bytes"),
    ],
)
def test_a_body_that_cannot_be_read_says_why(data: bytes, reason: str) -> None:
    limit = 64 if "64" in reason else 1_000_000
    with pytest.raises(RequestMalformed, match=reason):
        read_request("openai-chat", data, max_bytes=limit)


def test_the_deepest_schema_that_is_read_is_written_too() -> None:
    """It stands four deep in the request: body, tools, tool, function."""
    schema = '{"properties":' * (MAX_REQUEST_DEPTH - 4) + "1" + "}" * (MAX_REQUEST_DEPTH - 4)
    tool = f'{{"type":"function","function":{{"name":"f","parameters":{schema}}}}}'
    body = f'{{"model":"m","messages":[{{"role":"user","content":"a"}}],"tools":[{tool}]}}'
    request = read_request("openai-chat", body.encode())
    for target in RULES:
        check(target, json.loads(write(request, target).data()))
    deeper = body.replace(schema, f'{{"properties":{schema}}}')
    with pytest.raises(RequestMalformed, match="deeper"):
        read_request("openai-chat", deeper.encode())


@pytest.mark.parametrize("dialect", READERS)
def test_half_a_character_is_carried_to_any_provider_without_harm(dialect: str) -> None:
    seed = json.dumps(SEEDS[dialect]).replace('"a"', '"\\ud83d"')
    try:
        request = read_request(dialect, seed.encode())
    except RequestMalformed:
        return
    for target in (*WRITERS, "mistral"):
        try:
            assert json.loads(write(request, target).data())
        except RequestInexpressible:
            continue


def _chat(n: int) -> bytes:
    function: Json = {"name": "f", "parameters": {}}
    call: Json = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    turn: list[Json] = [
        {"role": "user", "content": [{"type": "text", "text": "word " * 20, "cache_control": 1}]},
        {"role": "assistant", "content": "b", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": "c"},
    ]
    tools: Json = [{"type": "function", "function": function}]
    body: Json = {"model": "m", "messages": [*turn * n, turn[0]], "tools": tools}
    return json.dumps(body).encode()


@pytest.mark.parametrize("target", [*WRITERS, "mistral"])
def test_a_conversation_of_twice_the_turns_costs_twice(target: str) -> None:
    def run(n: int) -> Callable[[], object]:
        body = _chat(n)
        return lambda: write(read_request("openai-chat", body), target).data()

    assert_linear(run, 300)
