"""A Responses request is read item by item, and written so that nothing of a turn is lost."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm.asking import SCHEMA, convert, write
from penstock.core.errors import RequestInexpressible, RequestMalformed
from penstock.llm.ask.dialects import read_request
from penstock.llm.ask.request import (
    CallPart,
    Format,
    MediaPart,
    Message,
    Request,
    ResultPart,
    TextPart,
    Thinking,
    ThoughtPart,
    ToolChoice,
)


def read(input: Any = "hello", **said: Any) -> Request:
    body = {"model": "gpt", "input": input, **said}
    return read_request("openai-responses", json.dumps(body).encode())


def text(said: str) -> TextPart:
    return TextPart(text=said)


def test_a_string_is_what_the_user_says_and_instructions_come_first() -> None:
    assert read(instructions="be brief").messages == (
        Message(role="system", parts=(text("be brief"),)),
        Message(role="user", parts=(text("hello"),)),
    )


def test_the_items_of_one_turn_are_one_message() -> None:
    call = {"type": "function_call", "name": "f", "arguments": "{}"}
    output = {"type": "function_call_output"}
    request = read(
        [
            {"role": "user", "content": [{"type": "input_text", "text": "q"}]},
            {
                "type": "reasoning",
                "id": "rs_1",
                "summary": [{"type": "summary_text", "text": "hm"}],
                "encrypted_content": "e",
            },
            {
                "type": "message",
                "id": "msg_1",
                "status": "completed",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "let me", "annotations": []}],
            },
            {**call, "call_id": "a"},
            {**call, "call_id": "b"},
            {**output, "call_id": "a", "output": "1"},
            {**output, "call_id": "b", "output": [{"type": "input_text", "text": "2"}]},
        ]
    )
    calls = (CallPart(id="a", name="f"), CallPart(id="b", name="f"))
    assert request.messages == (
        Message(role="user", parts=(text("q"),)),
        Message(role="assistant", parts=(ThoughtPart(text="hm", seal="e"), text("let me"), *calls)),
        Message(role="tool", parts=(ResultPart(call_id="a", content=(text("1"),)),)),
        Message(role="tool", parts=(ResultPart(call_id="b", content=(text("2"),)),)),
    )


def test_pictures_and_files_are_read_by_address_or_as_what_they_hold() -> None:
    request = read(
        [
            {
                "role": "user",
                "content": [
                    {"type": "input_image", "image_url": "https://a.test/x", "detail": "auto"},
                    {"type": "input_file", "file_url": "https://a.test/y.pdf"},
                    {
                        "type": "input_file",
                        "file_data": "data:application/pdf;base64,AA==",
                        "filename": "z.pdf",
                    },
                ],
            }
        ]
    )
    assert request.messages[0].parts == (
        MediaPart(kind="image", url="https://a.test/x"),
        MediaPart(kind="file", url="https://a.test/y.pdf"),
        MediaPart(kind="file", media_type="application/pdf", data="AA==", name="z.pdf"),
    )


@pytest.mark.parametrize(
    ("said", "name", "meant"),
    [
        ({"max_output_tokens": 99}, "max_output_tokens", 99),
        ({"reasoning": {"effort": "high", "summary": "auto"}}, "thinking", Thinking(effort="high")),
        (
            {"tool_choice": {"type": "function", "name": "f"}},
            "tool_choice",
            ToolChoice(mode="named", name="f"),
        ),
        ({"text": {"format": {"type": "json_object"}}}, "format", Format(kind="json")),
        (
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}}},
            "format",
            Format(kind="schema", name="n", schema=SCHEMA),
        ),
    ],
)
def test_every_setting_is_read(said: dict[str, Any], name: str, meant: object) -> None:
    assert getattr(read(**said), name) == meant


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"input": "a"}, "model"),
        ({"model": "m"}, "input"),
        ({"model": "m", "input": []}, "input"),
        ({"model": "m", "input": 5}, "input"),
        ({"model": "m", "input": [{"type": "function_call", "name": "f"}]}, "input[0].call_id"),
        ({"model": "m", "input": [{"role": "king", "content": "a"}]}, "input[0].role"),
        ({"model": "m", "input": "a", "text": 5}, "text"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(body: dict[str, Any], field: str) -> None:
    with pytest.raises(RequestMalformed) as caught:
        read_request("openai-responses", json.dumps(body).encode())
    assert caught.value.field == field


def test_a_conversation_that_the_provider_keeps_is_for_that_provider_alone() -> None:
    body = {"model": "m", "previous_response_id": "resp_1", "input": "and?"}
    request = read_request("openai-responses", json.dumps(body).encode())
    assert write(request, "openai-responses").body["previous_response_id"] == "resp_1"
    with pytest.raises(RequestInexpressible) as caught:
        write(request, "openai-chat")
    assert caught.value.field == "previous_response_id"


@pytest.mark.parametrize(
    ("asked", "bound", "limit"), [(None, 100, 100), (50, 100, 50), (None, 3, 16), (5, 3, 5)]
)
def test_no_bound_is_written_that_the_provider_refuses(
    asked: int | None, bound: int, limit: int
) -> None:
    request = read(max_output_tokens=asked)
    body = write(request, "openai-responses", max_output_tokens=bound).body
    assert body["max_output_tokens"] == limit


@pytest.mark.parametrize(("asked", "limit"), [(5, 16), (50, 50)])
def test_a_chats_bound_is_raised_to_the_least_that_the_provider_takes(
    asked: int, limit: int
) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "q"}], "max_tokens": asked}
    assert convert("openai-chat", body, "openai-responses")["max_output_tokens"] == limit


def test_what_another_would_not_have_kept_is_not_kept() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "q"}]}
    assert convert("openai-chat", body, "openai-responses")["store"] is False
    assert "store" not in write(read("q"), "openai-responses").body


def test_a_chat_is_written_as_items() -> None:
    function = {"name": "f", "arguments": "{}"}
    body = {
        "model": "m",
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": "q"},
            {
                "role": "assistant",
                "content": "let me",
                "tool_calls": [{"id": "a", "type": "function", "function": function}],
            },
            {"role": "tool", "tool_call_id": "a", "content": "1"},
        ],
        "tools": [{"type": "function", "function": {"name": "f"}}],
    }
    written = convert("openai-chat", body, "openai-responses")
    assert written["input"] == [
        {"role": "system", "content": [{"type": "input_text", "text": "s"}]},
        {"role": "user", "content": [{"type": "input_text", "text": "q"}]},
        {"role": "assistant", "content": "let me"},
        {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "a", "output": "1"},
    ]
    assert written["tools"] == [
        {"type": "function", "name": "f", "parameters": None, "strict": False}
    ]
