"""A chat completion is read as its reference says, and written so that providers take it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from llm.asking import PNG, SCHEMA, convert, write
from penstock.core.errors import RequestInexpressible, RequestMalformed
from penstock.llm.ask.dialects import read_request
from penstock.llm.ask.request import (
    CallPart,
    Format,
    MediaPart,
    Message,
    Request,
    ResultPart,
    Sampling,
    TextPart,
    Thinking,
    ThoughtPart,
    Tool,
    ToolChoice,
)

HELLO = {"role": "user", "content": "hello"}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}


def read(*messages: dict[str, Any], **said: Any) -> Request:
    body = {"model": "gpt", "messages": list(messages) or [HELLO], **said}
    return read_request("openai-chat", json.dumps(body).encode())


def parts(message: dict[str, Any]) -> tuple[object, ...]:
    return read(message).messages[0].parts


def text(said: str) -> TextPart:
    return TextPart(text=said)


@pytest.mark.parametrize(
    ("message", "meant"),
    [
        (HELLO, Message(role="user", parts=(text("hello"),))),
        ({"role": "developer", "content": "d"}, Message(role="system", parts=(text("d"),))),
        ({"role": "system", "content": "s"}, Message(role="system", parts=(text("s"),))),
        (
            {"role": "user", "content": [{"type": "text", "text": "a"}]},
            Message(role="user", parts=(text("a"),)),
        ),
        (
            {"role": "assistant", "content": None, "refusal": "no"},
            Message(role="assistant", parts=(text("no"),)),
        ),
        (
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            Message(role="assistant", parts=(CallPart(id="c1", name="f", arguments='{"a":1}'),)),
        ),
        (
            {"role": "assistant", "content": "so", "reasoning_content": "hm"},
            Message(role="assistant", parts=(ThoughtPart(text="hm"), text("so"))),
        ),
        (
            {"role": "tool", "tool_call_id": "c1", "content": "4"},
            Message(role="tool", parts=(ResultPart(call_id="c1", content=(text("4"),)),)),
        ),
    ],
)
def test_every_kind_of_message_is_read(message: dict[str, Any], meant: Message) -> None:
    assert read(message).messages == (meant,)


def test_pictures_and_files_are_read_by_address_or_as_what_they_hold() -> None:
    def image(url: str) -> dict[str, Any]:
        return {"type": "image_url", "image_url": {"url": url, "detail": "low"}}

    file = {"file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"}
    message = {
        "role": "user",
        "content": [
            image("https://a.test/x"),
            image(f"data:image/png;base64,{PNG}"),
            {"type": "file", "file": file},
        ],
    }
    assert parts(message) == (
        MediaPart(kind="image", url="https://a.test/x"),
        MediaPart(kind="image", media_type="image/png", data=PNG),
        MediaPart(kind="file", media_type="application/pdf", data="AAAA", name="a.pdf"),
    )


@pytest.mark.parametrize(
    ("said", "name", "meant"),
    [
        ({"max_tokens": 5}, "max_output_tokens", 5),
        ({"max_tokens": 5, "max_completion_tokens": 7}, "max_output_tokens", 7),
        ({"stop": "a"}, "stop", ("a",)),
        ({"stop": ["a", "b"]}, "stop", ("a", "b")),
        ({"stop": None}, "stop", ()),
        ({"temperature": 0.5, "seed": 7}, "sampling", Sampling(temperature=0.5, seed=7)),
        ({"tool_choice": "required"}, "tool_choice", ToolChoice(mode="required")),
        (
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
            "tool_choice",
            ToolChoice(mode="named", name="f"),
        ),
        ({"response_format": {"type": "text"}}, "format", None),
        ({"response_format": {"type": "json_object"}}, "format", Format(kind="json")),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": SCHEMA, "strict": True},
                }
            },
            "format",
            Format(kind="schema", name="n", schema=SCHEMA, is_strict=True),
        ),
        ({"reasoning_effort": "low"}, "thinking", Thinking(effort="low")),
        ({"parallel_tool_calls": False}, "is_parallel", False),
        ({"metadata": {"a": "b"}}, "metadata", {"a": "b"}),
        ({"stream": True}, "is_stream", True),
        ({}, "wants_usage", False),
        ({"stream_options": {"include_usage": True}}, "wants_usage", True),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}]},
            "tools",
            (Tool(name="f", schema=SCHEMA),),
        ),
        ({"logit_bias": {"5": 1}}, "extra", {"logit_bias": {"5": 1}}),
    ],
)
def test_every_setting_is_read(said: dict[str, Any], name: str, meant: object) -> None:
    assert getattr(read(**said), name) == meant


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"messages": [HELLO]}, "model"),
        ({"model": "", "messages": [HELLO]}, "model"),
        ({"model": 5, "messages": [HELLO]}, "model"),
        ({"model": "a\nb", "messages": [HELLO]}, "model"),
        ({"model": "m" * 513, "messages": [HELLO]}, "model"),
        ({"model": "m"}, "messages"),
        ({"model": "m", "messages": []}, "messages"),
        ({"model": "m", "messages": {}}, "messages"),
        ({"model": "m", "messages": ["hi"]}, "messages[0]"),
        ({"model": "m", "messages": [{"content": "a"}]}, "messages[0].role"),
        ({"model": "m", "messages": [{"role": "wizard", "content": "a"}]}, "messages[0].role"),
        ({"model": "m", "messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        (
            {"model": "m", "messages": [{"role": "user", "content": [{"text": "a"}]}]},
            "messages[0].content[0].type",
        ),
        (
            {"model": "m", "messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content[0].text",
        ),
        ({"model": "m", "messages": [{"role": "tool"}]}, "messages[0].tool_call_id"),
        ({"model": "m", "messages": [HELLO], "temperature": "hot"}, "temperature"),
        ({"model": "m", "messages": [HELLO], "temperature": True}, "temperature"),
        ({"model": "m", "messages": [HELLO], "max_tokens": 0}, "max_tokens"),
        ({"model": "m", "messages": [HELLO], "max_tokens": 1.5}, "max_tokens"),
        ({"model": "m", "messages": [HELLO], "seed": 1e300}, "seed"),
        ({"model": "m", "messages": [HELLO], "stop": [1]}, "stop"),
        ({"model": "m", "messages": [HELLO], "stream": "yes"}, "stream"),
        ({"model": "m", "messages": [HELLO], "metadata": {"a": 1}}, "metadata"),
        ({"model": "m", "messages": [HELLO], "tool_choice": "f"}, "tool_choice"),
        ({"model": "m", "messages": [HELLO], "tools": [{"function": {}}]}, "tools[0].type"),
        (
            {"model": "m", "messages": [HELLO], "tools": [{"type": "function", "function": {}}]},
            "tools[0].function.name",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_place(body: dict[str, Any], field: str) -> None:
    with pytest.raises(RequestMalformed) as caught:
        read_request("openai-chat", json.dumps(body).encode())
    assert caught.value.field == field
    assert field in str(caught.value)
    assert caught.value.status == 400


def test_usage_is_always_asked_for_in_a_stream_and_never_without_one() -> None:
    request = read(stream_options={"include_obfuscation": False})
    streamed = write(request, "openai-chat").body["stream_options"]
    assert streamed == {"include_obfuscation": False, "include_usage": True}
    assert "stream_options" not in write(request, "openai-chat", is_stream=False).body


@pytest.mark.parametrize(
    ("said", "dialect", "meant"),
    [
        ({}, "openai-chat", {"max_completion_tokens": 10}),
        ({}, "vllm", {"max_tokens": 10}),
        ({"max_tokens": 50}, "openai-chat", {"max_tokens": 10}),
        ({"max_tokens": 5}, "openai-chat", {"max_tokens": 5}),
        ({"max_completion_tokens": 50}, "deepseek", {"max_completion_tokens": 10}),
        (
            {"max_completion_tokens": 50, "max_tokens": 3},
            "openai-chat",
            {"max_completion_tokens": 10, "max_tokens": 3},
        ),
    ],
)
def test_the_bound_lowers_the_field_that_is_there(
    said: dict[str, Any], dialect: str, meant: dict[str, Any]
) -> None:
    body = write(read(**said), dialect, max_output_tokens=10).body
    assert {name: value for name, value in body.items() if "max" in name} == meant


def test_mistral_is_spoken_with_its_accent() -> None:
    body = write(
        read(
            HELLO,
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": "4"},
            seed=7,
            tool_choice="required",
            max_completion_tokens=9,
            safe_prompt=True,
        ),
        "mistral",
    ).body
    call_id = body["messages"][1]["tool_calls"][0]["id"]
    assert len(call_id) == 9
    assert body["messages"][2]["tool_call_id"] == call_id
    assert (body["random_seed"], body["tool_choice"], body["max_tokens"]) == (7, "any", 9)
    assert body["safe_prompt"] is True
    assert not {"seed", "stream_options", "max_completion_tokens"} & set(body)


def test_a_bodys_own_fields_outlive_a_change_of_what_is_asked() -> None:
    request = replace(read(logit_bias={"5": 1}), origin=None, stop=("x",))
    body = write(request, "openai-chat").body
    assert (body["logit_bias"], body["stop"]) == ({"5": 1}, ["x"])


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"n": 2}, "n"),
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0].type"),
        ({"seed": 7}, "seed"),
        ({"response_format": {"type": "json_object"}}, "response format of any JSON"),
    ],
)
def test_what_the_other_cannot_say_is_refused_by_name_unless_the_operator_lets_it_go(
    said: dict[str, Any], field: str
) -> None:
    request = read(**said)
    with pytest.raises(RequestInexpressible) as caught:
        write(request, "anthropic-messages")
    assert caught.value.field == field
    allowed = frozenset({field, "tools[].custom"})
    left_out = write(request, "anthropic-messages", may_drop=allowed).left_out
    assert field.replace("[0]", "[]") in left_out


def test_what_may_be_dropped_is_named_without_its_place() -> None:
    named = [{**HELLO, "name": "ann"}, {**HELLO, "name": "bob"}]
    request = read(*named)
    with pytest.raises(RequestInexpressible) as caught:
        write(request, "gemini")
    assert caught.value.field == "messages[0].name"
    written = write(request, "gemini", may_drop=frozenset({"messages[].name"}))
    assert written.left_out == ("messages[].name",)


def test_a_file_that_does_not_say_what_it_is_is_for_the_same_dialect_alone() -> None:
    file = {"type": "file", "file": {"file_data": "JVBERi0=", "filename": "a.pdf"}}
    request = read({"role": "user", "content": [file]}, HELLO)
    messages = write(request, "openai-chat").body["messages"]
    assert messages == [{"role": "user", "content": [file]}, HELLO]
    with pytest.raises(RequestInexpressible, match="file_data"):
        write(request, "gemini")


def test_ids_of_calls_that_are_too_long_are_written_so_that_they_still_match() -> None:
    long = "fc_" + "0" * 50
    use = {"type": "tool_use", "id": long, "name": "f", "input": {}}
    result = {"type": "tool_result", "tool_use_id": long, "content": "4"}
    body = {
        "model": "m",
        "max_tokens": 9,
        "messages": [
            HELLO,
            {"role": "assistant", "content": [use]},
            {"role": "user", "content": [result]},
        ],
    }
    messages = convert("anthropic-messages", body, "openai-chat")["messages"]
    assert messages[1]["tool_calls"][0]["id"] == messages[2]["tool_call_id"]
    assert len(messages[2]["tool_call_id"]) <= 40
    items = convert("anthropic-messages", body, "openai-responses")["input"]
    assert items[1]["call_id"] == items[2]["call_id"] == long


def test_notes_are_written_where_the_answer_is_to_be_stored() -> None:
    request = replace(read(metadata={"a": "b"}, store=True), origin=None)
    assert write(request, "openai-chat").body["metadata"] == {"a": "b"}
    body = {"model": "m", "input": "q", "metadata": {"a": "b"}, "store": True}
    other = write(read_request("openai-responses", body), "openai-chat")
    assert "metadata" not in other.body
    assert other.left_out == ("store", "metadata")


def test_mistral_is_not_told_what_it_refuses_to_hear() -> None:
    request = read(user="u", store=True, metadata={"a": "b"}, x_own=1)
    written = write(request, "mistral")
    assert written.left_out == ("user", "store")
    assert not {"user", "store", "stream_options"} & set(written.body)
    assert (written.body["metadata"], written.body["x_own"]) == ({"a": "b"}, 1)


@pytest.mark.parametrize("value", ["a\r\nx: y", "b" * 1_025, "\u00e4"])
def test_a_header_that_is_none_is_told(value: str) -> None:
    body = {"model": "gpt", "messages": [HELLO]}
    with pytest.raises(RequestMalformed) as caught:
        read_request("openai-chat", body, headers={"openai-beta": value, "cookie": "\n"})
    assert caught.value.field == "header openai-beta"


def test_only_the_headers_of_the_dialect_are_handed_on() -> None:
    body = {"model": "gpt", "messages": [HELLO]}
    said = {"openai-beta": "x=v1", "authorization": "Bearer secret", "cookie": "secret"}
    request = read_request("openai-chat", body, headers=said)
    assert request.headers == {"openai-beta": "x=v1"}
    assert ("openai-beta", "x=v1") in write(request, "openai-chat").headers
    assert "secret" not in repr(request)


def test_nothing_that_was_said_is_in_a_requests_repr() -> None:
    said = repr(read({"role": "user", "content": "my secret"}, user="my name", stop="my word"))
    assert "my " not in said


def test_hints_are_left_out_by_name_and_neutral_values_are_no_loss() -> None:
    request = read(store=False, n=1, logprobs=False, presence_penalty=0, prompt_cache_key="k")
    assert write(request, "anthropic-messages").left_out == ("store", "prompt_cache_key")


def test_a_tools_failure_is_said_in_its_text() -> None:
    result = {"type": "tool_result", "tool_use_id": "t", "content": "gone", "is_error": True}
    body = {
        "model": "m",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": [result, {"type": "text", "text": "so?"}]}],
    }
    assert convert("anthropic-messages", body, "openai-chat")["messages"] == [
        {"role": "tool", "tool_call_id": "t", "content": "error: gone"},
        {"role": "user", "content": "so?"},
    ]
