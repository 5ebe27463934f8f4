"""What pages post (Vercel's chat, AG-UI) and our own dialect are read as they are meant."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm.asking import PNG, SCHEMA, write
from penstock.llm.ask.dialects import read_request
from penstock.llm.ask.errors import RequestInexpressible, RequestMalformed
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
    ids = ("messages[0].id", "messages[1].id")
    assert written.left_out == (*ids, "id", "trigger", "earlier thoughts")


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
        ("agui", {"runId": "r", "messages": []}, "threadId"),
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
