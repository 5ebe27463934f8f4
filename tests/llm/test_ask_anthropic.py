"""A messages request is read as its reference says, and written as its provider demands."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from llm.asking import PNG, SCHEMA, convert, write
from penstock.llm.ask.dialects import read_request
from penstock.llm.ask.errors import RequestMalformed
from penstock.llm.ask.request import (
    CallPart,
    Format,
    MediaPart,
    Message,
    Part,
    Request,
    ResultPart,
    TextPart,
    Thinking,
    ThoughtPart,
    ToolChoice,
)

HELLO = {"role": "user", "content": "hello"}


def read(*messages: dict[str, Any], **said: Any) -> Request:
    body = {"model": "claude", "max_tokens": 2048, "messages": list(messages) or [HELLO], **said}
    return read_request("anthropic-messages", json.dumps(body).encode())


def block(role: str, **said: Any) -> Part:
    return read({"role": role, "content": [said]}).messages[0].parts[0]


@pytest.mark.parametrize(
    ("role", "said", "meant"),
    [
        ("user", {"type": "text", "text": "a"}, TextPart(text="a")),
        (
            "user",
            {"type": "image", "source": {"type": "url", "url": "https://a.test/x"}},
            MediaPart(kind="image", url="https://a.test/x"),
        ),
        (
            "user",
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/png", "data": PNG},
            },
            MediaPart(kind="image", media_type="image/png", data=PNG),
        ),
        (
            "user",
            {
                "type": "document",
                "title": "t",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "AA=="},
            },
            MediaPart(kind="file", media_type="application/pdf", data="AA==", name="t"),
        ),
        (
            "user",
            {
                "type": "document",
                "source": {"type": "text", "media_type": "text/plain", "data": "words"},
            },
            TextPart(text="words"),
        ),
        (
            "assistant",
            {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}},
            CallPart(id="t", name="f", arguments='{"a":1}'),
        ),
        (
            "user",
            {"type": "tool_result", "tool_use_id": "t", "content": "4"},
            ResultPart(call_id="t", content=(TextPart(text="4"),)),
        ),
        (
            "assistant",
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            ThoughtPart(text="hm", seal="s"),
        ),
        (
            "assistant",
            {"type": "redacted_thinking", "data": "d"},
            ThoughtPart(text="", seal="d", is_hidden=True),
        ),
    ],
)
def test_every_kind_of_block_is_read(role: str, said: dict[str, Any], meant: Part) -> None:
    assert block(role, **said) == meant


@pytest.mark.parametrize(
    ("said", "name", "meant"),
    [
        ({"tool_choice": {"type": "any"}}, "tool_choice", ToolChoice(mode="required")),
        (
            {"tool_choice": {"type": "tool", "name": "f"}},
            "tool_choice",
            ToolChoice(mode="named", name="f"),
        ),
        (
            {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
            "is_parallel",
            False,
        ),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 1024}},
            "thinking",
            Thinking(budget_tokens=1024),
        ),
        ({"thinking": {"type": "disabled"}}, "thinking", Thinking(effort="none")),
        ({"thinking": {"type": "adaptive"}}, "thinking", Thinking(budget_tokens=-1)),
        ({"output_config": {"effort": "low"}}, "thinking", Thinking(effort="low")),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
            "format",
            Format(kind="schema", schema=SCHEMA),
        ),
        ({"stop_sequences": ["a"]}, "stop", ("a",)),
        ({"metadata": {"user_id": "u"}}, "user", "u"),
    ],
)
def test_every_setting_is_read(said: dict[str, Any], name: str, meant: object) -> None:
    assert getattr(read(**said), name) == meant


def test_the_system_prompt_is_the_first_message_in_either_form() -> None:
    for said in ("be brief", [{"type": "text", "text": "be brief"}]):
        assert read(system=said).messages[0] == Message(
            role="system", parts=(TextPart(text="be brief"),)
        )


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"model": "m", "messages": [HELLO]}, "max_tokens"),
        ({"model": "m", "max_tokens": 5}, "messages"),
        ({"model": "m", "max_tokens": 5, "messages": []}, "messages"),
        ({"model": "m", "max_tokens": 5, "messages": [{"role": "tool"}]}, "messages[0].role"),
        (
            {
                "model": "m",
                "max_tokens": 5,
                "messages": [
                    {"role": "assistant", "content": [{"type": "tool_result", "tool_use_id": "t"}]}
                ],
            },
            "messages[0].content",
        ),
        (
            {"model": "m", "max_tokens": 5, "messages": [HELLO], "tool_choice": {"type": "f"}},
            "tool_choice.type",
        ),
        ({"model": "m", "max_tokens": 5, "messages": [HELLO], "system": 5}, "system"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(body: dict[str, Any], field: str) -> None:
    with pytest.raises(RequestMalformed) as caught:
        read_request("anthropic-messages", json.dumps(body).encode())
    assert caught.value.field == field


def chat(*messages: dict[str, Any], **said: Any) -> dict[str, Any]:
    body = {"model": "m", "messages": list(messages) or [HELLO], **said}
    return convert("openai-chat", body, "anthropic-messages")


def test_the_request_has_its_version_and_no_key() -> None:
    written = write(read(), "anthropic-messages")
    assert written.path == "/v1/messages"
    assert dict(written.headers)["anthropic-version"] == "2023-06-01"
    assert not {"authorization", "x-api-key"} & {name.lower() for name, _ in written.headers}


def test_a_limit_is_written_also_where_the_client_named_none() -> None:
    assert chat()["max_tokens"] == 4096
    assert chat(reasoning_effort="low")["max_tokens"] == 4096 + 2048
    assert chat(max_tokens=9)["max_tokens"] == 9


@pytest.mark.parametrize(
    ("bound", "limit", "thinking"),
    [
        (9_000, 9_000, {"type": "enabled", "budget_tokens": 8_000}),
        (2_000, 2_000, {"type": "enabled", "budget_tokens": 1_999}),
        (1_000, 1_000, {"type": "disabled"}),
    ],
)
def test_the_budget_for_thinking_is_lowered_with_the_bound(
    bound: int, limit: int, thinking: dict[str, Any]
) -> None:
    request = read(max_tokens=10_000, thinking={"type": "enabled", "budget_tokens": 8_000})
    written = write(request, "anthropic-messages", max_output_tokens=bound)
    assert (written.body["max_tokens"], written.body["thinking"]) == (limit, thinking)


def test_instructions_are_lifted_out_and_results_of_tools_are_one_turn() -> None:
    def call(id: str) -> dict[str, Any]:
        return {"id": id, "type": "function", "function": {"name": "f", "arguments": ""}}

    body = chat(
        {"role": "system", "content": "one"},
        HELLO,
        {"role": "assistant", "content": "", "tool_calls": [call("a"), call("b")]},
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "developer", "content": "two"},
        {"role": "tool", "tool_call_id": "b", "content": ""},
        {"role": "user", "content": "so?"},
    )
    assert body["system"] == "one\n\ntwo"
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]
    assert body["messages"][1]["content"] == [
        {"type": "tool_use", "id": id, "name": "f", "input": {}} for id in ("a", "b")
    ]
    assert [part["type"] for part in body["messages"][2]["content"]] == [
        "tool_result",
        "tool_result",
        "text",
    ]


def test_calling_alone_is_part_of_the_choice() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    body = chat(tools=tools, parallel_tool_calls=False)
    assert body["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    assert body["tools"][0]["input_schema"]["type"] == "object"


def test_thoughts_go_back_to_the_provider_that_sealed_them_and_to_no_other() -> None:
    thought = {"type": "thinking", "thinking": "", "signature": "s"}
    hidden = {"type": "redacted_thinking", "data": "d"}
    answer = {"role": "assistant", "content": [thought, hidden, {"type": "text", "text": "a"}]}
    request = replace(read(HELLO, answer), origin=None)
    blocks = write(request, "anthropic-messages").body["messages"]
    assert isinstance(blocks, list)
    assert blocks[1] == answer
    other = write(request, "openai-chat")
    assert other.left_out == ("earlier thoughts",)
    assert "signature" not in other.data().decode()
