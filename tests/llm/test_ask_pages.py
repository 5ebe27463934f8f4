"""What pages post (Vercel's chat, AG-UI) and our own dialect are read as they are meant."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from llm.ask_rules import RULES, check
from llm.asking import PNG, SCHEMA, write
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
    Role,
    TextPart,
    Thinking,
    ThoughtPart,
    Tool,
    ToolChoice,
)

RUN = {"threadId": "t", "runId": "r", "state": {"a": 1}, "forwardedProps": {}, "context": []}


def read(dialect: str, **body: Any) -> Request:
    return read_request(dialect, json.dumps(body).encode())


def text(said: str) -> TextPart:
    return TextPart(text=said)


def message(role: Role, *parts: Part) -> Message:
    return Message(role=role, parts=parts)


def test_vercels_messages_are_cut_at_their_steps() -> None:
    called = {"type": "tool-weather", "toolCallId": "a", "input": {"city": "Rome"}}
    request = read(
        "vercel",
        id="chat-1",
        trigger="submit-message",
        model="gpt",
        messages=[
            {
                "id": "m1",
                "role": "user",
                "metadata": {"at": 1},
                "parts": [
                    {"type": "text", "text": "q", "state": "done"},
                    {
                        "type": "file",
                        "mediaType": "image/png",
                        "url": f"data:image/png;base64,{PNG}",
                    },
                ],
            },
            {
                "id": "m2",
                "role": "assistant",
                "parts": [
                    {"type": "step-start"},
                    {"type": "reasoning", "text": "hm"},
                    {**called, "state": "output-available", "output": {"sun": True}},
                    {"type": "step-start"},
                    {"type": "source-url", "sourceId": "s", "url": "https://a.test"},
                    {"type": "data-note", "data": 5},
                    {"type": "text", "text": "sunny"},
                    {
                        "type": "dynamic-tool",
                        "toolName": "f",
                        "toolCallId": "b",
                        "state": "output-error",
                        "input": {},
                        "errorText": "gone",
                    },
                    {"type": "tool-f", "toolCallId": "c", "state": "input-streaming"},
                ],
            },
        ],
    )
    failed = ResultPart(call_id="b", content=(text("gone"),), is_error=True)
    weather = CallPart(id="a", name="weather", arguments='{"city":"Rome"}')
    assert request.model == "gpt"
    assert request.messages == (
        message("user", text("q"), MediaPart(kind="image", data=PNG, media_type="image/png")),
        message("assistant", ThoughtPart(text="hm"), weather),
        message("tool", ResultPart(call_id="a", content=(text('{"sun":true}'),))),
        message("assistant", text("sunny"), CallPart(id="b", name="f")),
        message("tool", failed),
    )
    written = write(request, "openai-chat")
    assert written.left_out == (
        *("messages[].id", "messages[].metadata", "id", "trigger", "earlier thoughts"),
    )


CALLED = {"type": "tool-weather", "toolCallId": "call_1", "input": {"city": "Rome"}}

# What `useChat` posts at its second question, in `ai` 5.0.277, 6.0.326 and 7.0.173 alike.
POSTED_BY_AI: dict[str, Any] = {
    "model": "gpt",
    "id": "chat-1",
    "messages": [
        {
            "parts": [
                {
                    "type": "file",
                    "mediaType": "image/png",
                    "filename": "a.png",
                    "url": f"data:image/png;base64,{PNG}",
                },
                {"type": "text", "text": "Weather in Rome?"},
            ],
            "id": "id-1",
            "role": "user",
        },
        {
            "id": "msg-2",
            "role": "assistant",
            "parts": [
                {"type": "step-start"},
                {"type": "reasoning", "id": "r", "text": "hm", "state": "done"},
                {**CALLED, "state": "output-available", "output": {"sun": True}},
                {
                    "type": "dynamic-tool",
                    "toolName": "clock",
                    "toolCallId": "call_2",
                    "state": "output-error",
                    "input": {},
                    "errorText": "gone",
                },
                {"type": "step-start"},
                {"type": "source-url", "sourceId": "s", "url": "https://a.test", "title": "A"},
                {"type": "data-note", "id": "d", "data": {"a": 1}},
                {"type": "text", "text": "Sunny.", "state": "done"},
            ],
        },
        {
            "parts": [{"type": "text", "text": "And tomorrow?"}],
            "id": "id-3",
            "role": "user",
            "metadata": {"at": 1},
        },
    ],
    "trigger": "submit-message",
}

# What the `HttpAgent` of `@ag-ui/client` 1.0.0 posts.
POSTED_BY_AGUI: dict[str, Any] = {
    "threadId": "thread-1",
    "runId": "run-1",
    "protocolVersion": "1.0",
    "state": {"a": 1},
    "messages": [
        {"id": "m1", "role": "developer", "content": "brief"},
        {
            "id": "m2",
            "role": "user",
            "content": [
                {"type": "text", "text": "q"},
                {
                    "type": "image",
                    "source": {"type": "data", "value": PNG, "mimeType": "image/png"},
                },
            ],
        },
        {"id": "m3", "role": "reasoning", "content": "hm"},
        {
            "id": "m4",
            "role": "assistant",
            "toolCalls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city":"Rome"}'},
                }
            ],
        },
        {"id": "m5", "role": "tool", "content": "sunny", "toolCallId": "call_1"},
        {"id": "m6", "role": "user", "content": "so?"},
    ],
    "tools": [{"name": "weather", "description": "the weather", "parameters": SCHEMA}],
    "context": [{"description": "place", "value": "Rome"}],
    "forwardedProps": {"model": "gpt"},
}


@pytest.mark.parametrize(
    ("dialect", "body", "roles"),
    [
        ("vercel", POSTED_BY_AI, "user assistant tool assistant user"),
        ("agui", POSTED_BY_AGUI, "system system user assistant tool user"),
    ],
)
def test_what_the_published_clients_post_is_taken_by_every_provider(
    dialect: str, body: dict[str, Any], roles: str
) -> None:
    request = read(dialect, **body)
    assert request.model == "gpt"
    assert " ".join(message.role for message in request.messages) == roles
    calls = [p for m in request.messages for p in m.parts if isinstance(p, CallPart)]
    assert calls[0] == CallPart(id="call_1", name="weather", arguments='{"city":"Rome"}')
    tools = request.tools or (Tool(name="weather"), Tool(name="clock"))
    for target in RULES:
        written = write(replace(request, tools=tools), target)
        check(target, json.loads(written.data()))
        assert "earlier thoughts" in written.left_out


@pytest.mark.parametrize(
    ("state", "approval", "denied"),
    [
        ("output-denied", {"id": "p", "approved": False, "reason": "no"}, "no"),
        ("output-denied", None, "the user denied this call"),
        ("approval-responded", {"id": "p", "approved": False}, "the user denied this call"),
        ("approval-responded", {"id": "p", "approved": True}, None),
        ("approval-requested", {"id": "p"}, None),
        ("input-available", None, None),
    ],
)
def test_a_call_that_the_user_denied_has_failed(
    state: str, approval: dict[str, Any] | None, denied: str | None
) -> None:
    part = {**CALLED, "state": state, "approval": approval}
    request = read("vercel", messages=[{"role": "assistant", "parts": [part]}])
    results = [p for m in request.messages for p in m.parts if isinstance(p, ResultPart)]
    meant = ResultPart(call_id="call_1", content=(text(denied or ""),), is_error=True)
    assert results == ([meant] if denied else [])


def test_a_tool_of_another_provider_is_refused_by_name() -> None:
    part = {**CALLED, "state": "input-available", "providerExecuted": True}
    parts = [part, {"type": "text", "text": "a"}]
    question = {"role": "user", "content": "q"}
    request = read("vercel", messages=[{"role": "assistant", "parts": parts}, question])
    with pytest.raises(RequestInexpressible, match="providerExecuted"):
        write(request, "openai-chat")


def test_a_tools_output_and_its_error_are_both_said() -> None:
    body = {"id": "1", "role": "tool", "toolCallId": "a", "content": "half", "error": "gone"}
    (said,) = read("agui", **RUN, messages=[body]).messages
    assert said.parts == (ResultPart(call_id="a", content=(text("half\n\ngone"),), is_error=True),)


def test_a_message_of_vercels_version_4_has_content() -> None:
    request = read("vercel", messages=[{"role": "user", "content": "q"}])
    assert request.messages == (message("user", text("q")),)


def test_an_agents_run_is_read_with_its_context_first_and_its_thoughts_in_place() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    source = {"type": "data", "value": PNG, "mimeType": "image/png"}
    request = read(
        "agui",
        **{
            **RUN,
            "context": [{"description": "place", "value": "Rome"}],
            "forwardedProps": {"model": "gpt", "x": 1},
        },
        tools=[{"name": "f", "description": "d", "parameters": SCHEMA}],
        messages=[
            {
                "id": "1",
                "role": "user",
                "content": [{"type": "text", "text": "q"}, {"type": "image", "source": source}],
            },
            {"id": "2", "role": "reasoning", "content": "hm"},
            {"id": "3", "role": "assistant", "toolCalls": [call]},
            {"id": "4", "role": "tool", "toolCallId": "a", "content": "", "error": "gone"},
            {"id": "5", "role": "activity", "activityType": "x", "content": {}},
        ],
    )
    assert request.model == "gpt"
    assert request.tools == (Tool(name="f", description="d", schema=SCHEMA),)
    assert request.messages == (
        message("system", text("place: Rome")),
        message("user", text("q"), MediaPart(kind="image", data=PNG, media_type="image/png")),
        message("assistant", ThoughtPart(text="hm"), CallPart(id="a", name="f")),
        message("tool", ResultPart(call_id="a", content=(text("gone"),), is_error=True)),
    )
    left_out = write(request, "anthropic-messages").left_out
    assert {"threadId", "runId", "state", "forwardedProps.x", "earlier thoughts"} <= set(left_out)


def test_our_own_dialect_says_everything_the_vocabulary_does() -> None:
    request = read(
        "native",
        model="m",
        stream=True,
        messages=[
            {"role": "system", "content": "s"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "q"},
                    {"type": "image", "url": "https://a.test/x"},
                    {"type": "file", "data": "AA==", "media_type": "application/pdf", "name": "n"},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "reasoning", "text": "hm"},
                    {"type": "tool_call", "id": "a", "name": "f", "arguments": '{"x":1}'},
                ],
            },
            {
                "role": "tool",
                "content": [
                    {"type": "tool_result", "call_id": "a", "content": "4", "is_error": True}
                ],
            },
        ],
        tools=[{"name": "f", "schema": SCHEMA, "strict": True}],
        tool_choice={"name": "f"},
        format={"kind": "schema", "schema": SCHEMA},
        thinking={"effort": "low"},
        top_k=5,
        stop="end",
        max_output_tokens=9,
    )
    assert request.messages[1].parts[2] == MediaPart(
        kind="file", data="AA==", media_type="application/pdf", name="n"
    )
    assert request.messages[3].parts == (
        ResultPart(call_id="a", content=(text("4"),), is_error=True),
    )
    assert request.tool_choice == ToolChoice(mode="named", name="f")
    assert request.format == Format(kind="schema", schema=SCHEMA)
    assert request.thinking == Thinking(effort="low")
    assert (request.sampling.top_k, request.stop, request.max_output_tokens) == (5, ("end",), 9)


@pytest.mark.parametrize(
    ("dialect", "body", "field"),
    [
        ("native", {"model": "m", "messages": [{"role": "user"}], "top_q": 1}, "top_q"),
        ("native", {"model": "m", "messages": [{"role": "user", "x": 1}]}, "messages[0].x"),
        (
            "native",
            {
                "model": "m",
                "messages": [{"role": "user", "content": [{"type": "reasoning", "text": "a"}]}],
            },
            "messages[0].content",
        ),
        ("vercel", {"messages": []}, "messages"),
        ("vercel", {"messages": [{"role": "tool", "parts": []}]}, "messages[0].role"),
        (
            "vercel",
            {"messages": [{"role": "user", "parts": [{"type": "file"}]}]},
            "messages[0].parts[0].mediaType",
        ),
        ("native", {"model": "m", "messages": [], "format": {}}, "messages"),
        (
            "native",
            {"model": "m", "messages": [{"role": "user"}], "format": {"schema": {}}},
            "format.kind",
        ),
        ("agui", {"runId": "r", "messages": []}, "threadId"),
        (
            "agui",
            {
                **RUN,
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "image", "source": {"type": "data", "value": "A"}}],
                    }
                ],
            },
            "messages[0].content[0].source.mimeType",
        ),
        ("agui", {**RUN, "messages": [{"role": "robot"}]}, "messages[0].role"),
        ("agui", {**RUN, "messages": [{"role": "tool"}]}, "messages[0].toolCallId"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(
    dialect: str, body: dict[str, Any], field: str
) -> None:
    with pytest.raises(RequestMalformed) as caught:
        read(dialect, **body)
    assert caught.value.field == field


def test_what_a_page_added_of_its_own_is_refused_unless_the_operator_lets_it_go() -> None:
    request = read("vercel", messages=[{"role": "user", "content": "q"}], web_search=True)
    with pytest.raises(RequestInexpressible, match="web_search"):
        write(request, "openai-chat")
    allowed = frozenset({"web_search"})
    assert write(request, "openai-chat", may_drop=allowed).left_out == ("web_search",)
