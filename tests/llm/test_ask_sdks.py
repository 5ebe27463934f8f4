"""The vendors' own SDKs: their request types accept what is written, and what they send is read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import anthropic.types
import httpx
import openai
import pydantic
import pytest
from anthropic.types import message_create_params
from hypothesis import given
from openai.types.chat import completion_create_params
from openai.types.responses import response_create_params

from llm.asking import SCHEMA, requests, write
from penstock.llm.ask.dialects import read_request
from penstock.llm.ask.request import (
    CallPart,
    Format,
    MediaPart,
    Request,
    ResultPart,
    TextPart,
    Thinking,
)

TYPES: dict[str, Any] = {
    "openai-chat": completion_create_params.CompletionCreateParamsStreaming,
    "openai-responses": response_create_params.ResponseCreateParamsStreaming,
    "anthropic-messages": message_create_params.MessageCreateParamsStreaming,
}


def exhaust(value: object) -> object:
    """Goes through what pydantic only checks when it is iterated."""
    if isinstance(value, dict):
        return {name: exhaust(inner) for name, inner in value.items()}
    if isinstance(value, str | bytes) or not hasattr(value, "__iter__"):
        return value
    return [exhaust(inner) for inner in value]


@pytest.fixture(scope="module", params=TYPES)
def checked(request: pytest.FixtureRequest) -> tuple[str, pydantic.TypeAdapter[Any]]:
    return request.param, pydantic.TypeAdapter(TYPES[request.param])


def test_the_vendors_types_accept_what_is_written(
    checked: tuple[str, pydantic.TypeAdapter[Any]],
) -> None:
    dialect, adapter = checked

    @given(requests())
    def accepts(request: Request) -> None:
        body = json.loads(write(request, dialect, max_output_tokens=50_000).data())
        known = exhaust(adapter.validate_python(body))
        assert isinstance(known, dict)
        assert set(body) <= set(known), "a field the vendor does not know"

    accepts()


class Caught(Exception):
    """What an SDK sent, in the place of an answer to it."""


def catch(request: httpx.Request) -> httpx.Response:
    raise Caught(request.content)


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with httpx.Client(transport=httpx.MockTransport(catch)) as client:
        yield client


@pytest.fixture
def vendor(http: httpx.Client) -> openai.OpenAI:
    return openai.OpenAI(
        api_key="k", base_url="http://upstream.test/v1", http_client=http, max_retries=0
    )


class Answer(pydantic.BaseModel):
    city: str


def sent_by(error: BaseException) -> bytes:
    while not isinstance(error, Caught):
        assert error.__cause__ is not None
        error = error.__cause__
    (body,) = error.args
    assert isinstance(body, bytes)
    return body


def test_what_openais_sdk_sends_as_a_chat_is_read(vendor: openai.OpenAI) -> None:
    with pytest.raises(openai.APIConnectionError) as caught:
        vendor.chat.completions.parse(
            model="gpt",
            messages=[
                {"role": "developer", "content": "brief"},
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "q"},
                        {"type": "image_url", "image_url": {"url": "https://a.test/x"}},
                    ],
                },
                {
                    "role": "assistant",
                    "tool_calls": [
                        {
                            "id": "a",
                            "type": "function",
                            "function": {"name": "f", "arguments": "{}"},
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": "a", "content": "4"},
            ],
            tools=[openai.pydantic_function_tool(Answer)],
            response_format=Answer,
            reasoning_effort="low",
            extra_body={"x_vendor": 1},
        )
    request = read_request("openai-chat", sent_by(caught.value))
    assert [message.role for message in request.messages] == ["system", "user", "assistant", "tool"]
    assert request.messages[1].parts[1] == MediaPart(kind="image", url="https://a.test/x")
    assert request.messages[2].parts == (CallPart(id="a", name="f"),)
    assert request.tools[0].name == "Answer"
    assert isinstance(request.format, Format)
    assert (request.format.name, request.format.is_strict) == ("Answer", True)
    assert request.thinking == Thinking(effort="low")
    assert request.extra == {"x_vendor": 1}


def test_what_openais_sdk_sends_as_a_response_is_read(vendor: openai.OpenAI) -> None:
    with pytest.raises(openai.APIConnectionError) as caught:
        vendor.responses.create(
            model="gpt",
            instructions="brief",
            input=[
                {"role": "user", "content": "q"},
                {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "a", "output": "4"},
            ],
            tools=[{"type": "function", "name": "f", "parameters": SCHEMA, "strict": True}],
            stream=True,
        )
    request = read_request("openai-responses", sent_by(caught.value))
    assert [message.role for message in request.messages] == ["system", "user", "assistant", "tool"]
    assert request.tools[0].is_strict
    assert request.is_stream
    assert request.extra == {}


def test_what_anthropics_sdk_sends_is_read(http: httpx.Client) -> None:
    client = anthropic.Anthropic(
        api_key="k", base_url="http://upstream.test", http_client=http, max_retries=0
    )
    with pytest.raises(anthropic.APIConnectionError) as caught:
        client.messages.create(
            model="claude",
            max_tokens=9,
            system="brief",
            messages=[
                {"role": "user", "content": "q"},
                {
                    "role": "assistant",
                    # As an answer of the SDK is put into the next question.
                    "content": [
                        anthropic.types.TextBlock(type="text", text="hm", citations=None),
                        anthropic.types.ToolUseBlock(
                            type="tool_use", id="a", name="f", input={"x": 1}
                        ),
                    ],
                },
                {
                    "role": "user",
                    "content": [{"type": "tool_result", "tool_use_id": "a", "content": "4"}],
                },
            ],
            tools=[{"name": "f", "input_schema": {"type": "object"}}],
        )
    request = read_request("anthropic-messages", sent_by(caught.value))
    assert [message.role for message in request.messages] == ["system", "user", "assistant", "tool"]
    assert request.messages[2].parts[1] == CallPart(id="a", name="f", arguments='{"x":1}')
    assert request.messages[3].parts == (ResultPart(call_id="a", content=(TextPart(text="4"),)),)
