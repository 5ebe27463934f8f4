"""A messages request is read as its reference says, and written as its provider demands."""

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
    assert chat()["max_tokens"] == 16_384
    assert chat(reasoning_effort="low")["max_tokens"] == 16_384 + 2_048
    assert chat(max_tokens=9)["max_tokens"] == 9


@pytest.mark.parametrize(
    ("bound", "limit", "thinking"),
    [
        (9_000, 9_000, {"type": "enabled", "budget_tokens": 8_000}),
        (4_000, 4_000, {"type": "enabled", "budget_tokens": 2_000}),
        (2_000, 2_000, {"type": "enabled", "budget_tokens": 1_024}),
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
    request = replace(read(HELLO, answer, HELLO), origin=None)
    blocks = write(request, "anthropic-messages").body["messages"]
    assert isinstance(blocks, list)
    assert blocks[1] == answer
    other = write(request, "openai-chat")
    assert other.left_out == ("earlier thoughts",)
    assert "signature" not in other.data().decode()


EFFORT: dict[str, Any] = {"reasoning_effort": "low"}
OLD = {"type": "enabled", "budget_tokens": 2_048}


@pytest.mark.parametrize(
    ("model", "thinking", "output"),
    [
        ("claude-3-7-sonnet-20250219", OLD, None),
        ("claude-opus-4-20250514", OLD, None),
        ("claude-haiku-4-5", OLD, None),
        ("claude-sonnet-4-5@20250929", OLD, None),
        ("claude-opus-4-6", {"type": "adaptive"}, {"effort": "low"}),
        ("anthropic/claude-sonnet-5-5", {"type": "adaptive"}, {"effort": "low"}),
        ("my-alias", {"type": "adaptive"}, {"effort": "low"}),
    ],
)
def test_how_much_to_think_is_told_as_the_model_takes_it(
    model: str, thinking: dict[str, Any], output: dict[str, Any] | None
) -> None:
    request = read_request("openai-chat", {"model": "m", "messages": [HELLO]} | EFFORT)
    body = write(request, "anthropic-messages", model=model).body
    assert (body["thinking"], body.get("output_config")) == (thinking, output)


@pytest.mark.parametrize(
    ("model", "said", "field"),
    [
        ("claude-opus-4-6", {"temperature": 0.5}, None),
        ("claude-opus-4-6", {"temperature": 1.5}, "temperature"),
        ("claude-opus-4-6", {"temperature": 0.5, "top_p": 1}, None),
        ("claude-opus-4-6", {"temperature": 0.5, "top_p": 0.9}, "top_p"),
        ("claude-3-haiku-20240307", {"temperature": 0.5, "top_p": 0.9}, None),
        ("claude-opus-4-7", {"temperature": 0.5}, "temperature"),
        ("claude-opus-4-7", {"temperature": 1}, None),
        ("claude-sonnet-5", {"top_p": 0.9}, "top_p"),
        ("claude-fable-5-2", {"top_k": 5}, "top_k"),
        ("claude-opus-4-6", {"top_k": 5} | EFFORT, "top_k"),
        ("claude-opus-4-6", {"temperature": 0.5} | EFFORT, "temperature"),
        ("claude-opus-4-6", {"top_p": 0.5} | EFFORT, "top_p"),
        ("claude-opus-4-6", {"top_p": 0.95} | EFFORT, None),
        ("claude-opus-4-6", {"tool_choice": "required"} | EFFORT, "tool_choice"),
        ("claude-opus-4-6", {"stop": "\n"}, "stop"),
    ],
)
def test_what_a_model_refuses_is_refused_before_it_is_asked(
    model: str, said: dict[str, Any], field: str | None
) -> None:
    request = read_request("openai-chat", {"model": "m", "messages": [HELLO]} | said)
    if field is None:
        assert write(request, "anthropic-messages", model=model).left_out == ()
        return
    with pytest.raises(RequestInexpressible) as caught:
        write(request, "anthropic-messages", model=model)
    assert caught.value.field == field
    written = write(request, "anthropic-messages", model=model, may_drop=frozenset({field}))
    assert (written.left_out, written.body.get(field)) == ((field,), None)


def test_an_answer_that_is_begun_is_gone_on_with_here_and_nowhere_else() -> None:
    begun = {"role": "assistant", "content": "The best is ("}
    request = read(HELLO, begun)
    assert request.is_begun
    again = write(replace(request, origin=None), "anthropic-messages").body["messages"]
    assert isinstance(again, list)
    assert len(again) == 2
    with pytest.raises(RequestInexpressible, match="answer that is begun"):
        write(request, "openai-chat")
    with pytest.raises(RequestInexpressible, match="assistant's last message"):
        chat(HELLO, begun)


def test_a_cache_can_be_warmed_without_an_answer_here_and_nowhere_else() -> None:
    request = read(max_tokens=0)
    written = write(request, "anthropic-messages", max_output_tokens=100)
    assert written.body["max_tokens"] == 0
    with pytest.raises(RequestInexpressible) as caught:
        write(request, "openai-chat")
    assert caught.value.field == "max_tokens"


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([{"role": "system", "content": "s"}], "conversation in which only the system speaks"),
        ([{"role": "user", "content": " \n"}], "conversation in which only the system speaks"),
        ([{"role": "assistant", "content": "a"}, HELLO], "assistant's first message"),
        (
            [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}, HELLO],
            "messages[0].content[0].type",
        ),
        (
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": "data:image/tiff;base64,AA"}}
                    ],
                }
            ],
            "an image of type 'image/tiff'",
        ),
    ],
)
def test_a_conversation_that_the_provider_would_refuse_is_refused_by_name(
    messages: list[dict[str, Any]], field: str
) -> None:
    with pytest.raises(RequestInexpressible) as caught:
        chat(*messages)
    assert caught.value.field == field


def test_ids_of_calls_that_other_providers_made_are_written_so_that_they_still_match() -> None:
    call = {"id": "functions.f:0", "type": "function", "function": {"name": "f"}}
    body = chat(
        HELLO,
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "functions.f:0", "content": "4"},
    )
    (use,), (result,) = body["messages"][1]["content"], body["messages"][2]["content"]
    assert use["id"] == result["tool_use_id"]
    assert use["id"].isalnum()


@pytest.mark.parametrize("url", ["data:text/plain;base64,aGk=", "data:,hi", "data:text/plain,h%69"])
def test_a_document_of_plain_text_is_text(url: str) -> None:
    file = {"type": "file", "file": {"file_data": url, "filename": "n"}}
    source = {"type": "text", "media_type": "text/plain", "data": "hi"}
    body = chat({"role": "user", "content": [file]})
    assert body["messages"][0]["content"] == [{"type": "document", "source": source, "title": "n"}]
