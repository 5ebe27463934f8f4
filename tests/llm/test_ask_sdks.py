"""The vendors' own SDKs: their request types accept what is written, and what they send is read.

Each SDK is unmodified and sends over loopback, to a server that keeps what came and answers 400.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import anthropic
import anthropic.types
import openai
import pydantic
import pytest
from anthropic.types import message_create_params
from hypothesis import given
from openai.types.chat import ChatCompletionMessage, completion_create_params
from openai.types.responses import ResponseFunctionToolCall, response_create_params

from llm.asking import PNG, SCHEMA, requests, write
from penstock.llm.ask.dialects import read_request
from penstock.llm.ask.request import (
    CallPart,
    Format,
    MediaPart,
    Request,
    ResultPart,
    TextPart,
    Thinking,
    ThoughtPart,
)

TYPES: dict[str, Any] = {
    "openai-chat": completion_create_params.CompletionCreateParamsStreaming,
    "openai-responses": response_create_params.ResponseCreateParamsStreaming,
    "anthropic-messages": message_create_params.MessageCreateParamsStreaming,
}
# What the version of the request that is written takes, and the SDK's own version no longer names.
OLDER = {"anthropic-messages": {"temperature", "top_p", "top_k"}}


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
        assert set(body) - set(known) <= OLDER.get(dialect, set()), "the vendor has no such field"

    accepts()


@dataclass
class Upstream:
    """A server that keeps every request."""

    url: str
    seen: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    def read(self, dialect: str) -> Request:
        """What the last SDK asked."""
        _, headers, body = self.seen[-1]
        return read_request(dialect, body, headers=headers)


@pytest.fixture(scope="module")
def serving() -> Iterator[Upstream]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            said = {name.lower(): value for name, value in self.headers.items()}
            upstream.seen.append((self.path, said, body))
            self.send_response(400)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    upstream = Upstream(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield upstream
    server.shutdown()
    thread.join(10)
    server.server_close()


@pytest.fixture
def vendor(serving: Upstream) -> Iterator[openai.OpenAI]:
    url = f"{serving.url}/v1"
    with openai.OpenAI(api_key="k", base_url=url, max_retries=0, timeout=10) as client:
        yield client


@pytest.fixture
def claude(serving: Upstream) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(
        api_key="k", base_url=serving.url, max_retries=0, timeout=10
    ) as client:
        yield client


class Answer(pydantic.BaseModel):
    city: str


def sent(serving: Upstream, send: Callable[[], object], dialect: str) -> Request:
    """What `send` asked, over the wire."""
    before = len(serving.seen)
    with pytest.raises((openai.BadRequestError, anthropic.BadRequestError)):
        send()
    assert len(serving.seen) == before + 1
    return serving.read(dialect)


def test_what_openais_sdk_sends_as_a_chat_is_read(serving: Upstream, vendor: openai.OpenAI) -> None:
    answer = ChatCompletionMessage.model_validate(
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ],
        }
    )
    request = sent(
        serving,
        lambda: vendor.chat.completions.parse(
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
                answer,  # as users put an answer into the next question
                {"role": "tool", "tool_call_id": "a", "content": "4"},
            ],
            tools=[openai.pydantic_function_tool(Answer)],
            response_format=Answer,
            reasoning_effort="low",
            extra_body={"x_vendor": 1},
        ),
        "openai-chat",
    )
    assert serving.seen[-1][0] == "/v1" + write(request, "openai-chat").path
    assert [message.role for message in request.messages] == ["system", "user", "assistant", "tool"]
    assert request.messages[1].parts[1] == MediaPart(kind="image", url="https://a.test/x")
    assert request.messages[2].parts == (CallPart(id="a", name="f"),)
    assert request.tools[0].name == "Answer"
    assert isinstance(request.format, Format)
    assert (request.format.name, request.format.is_strict) == ("Answer", True)
    assert request.thinking == Thinking(effort="low")
    assert request.extra == {"x_vendor": 1}
    assert not request.is_stream


@pytest.mark.parametrize("asked", [True, False])
def test_whether_openais_sdk_asks_for_the_usage_of_a_stream_is_known(
    serving: Upstream, vendor: openai.OpenAI, asked: bool
) -> None:
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if asked else {}
    request = sent(
        serving,
        lambda: vendor.chat.completions.create(
            model="gpt", messages=[{"role": "user", "content": "q"}], stream=True, **options
        ),
        "openai-chat",
    )
    assert (request.is_stream, request.wants_usage) == (True, asked)
    assert write(request, "openai-chat").body["stream_options"] == {"include_usage": True}


def test_what_openais_sdk_sends_as_a_response_is_read(
    serving: Upstream, vendor: openai.OpenAI
) -> None:
    call = ResponseFunctionToolCall(
        type="function_call", id="fc_1", call_id="a", name="f", arguments="{}", status="completed"
    )
    request = sent(
        serving,
        lambda: vendor.responses.create(
            model="gpt",
            instructions="brief",
            input=[
                {"role": "user", "content": "q"},
                call,
                {"type": "function_call_output", "call_id": "a", "output": "4"},
            ],
            tools=[{"type": "function", "name": "f", "parameters": SCHEMA, "strict": True}],
            stream=True,
        ),
        "openai-responses",
    )
    assert serving.seen[-1][0] == "/v1" + write(request, "openai-responses").path
    assert [message.role for message in request.messages] == ["system", "user", "assistant", "tool"]
    assert request.tools[0].is_strict
    assert request.is_stream
    assert write(request, "gemini").left_out == ("input[].id", "input[].status", "tools.strict")


def test_what_anthropics_sdk_sends_is_read(serving: Upstream, claude: anthropic.Anthropic) -> None:
    request = sent(
        serving,
        lambda: claude.messages.create(
            model="claude",
            max_tokens=9,
            system="brief",
            messages=[
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "image",
                            "source": {"type": "base64", "media_type": "image/png", "data": PNG},
                        },
                        {"type": "text", "text": "q", "cache_control": {"type": "ephemeral"}},
                    ],
                },
                {
                    "role": "assistant",
                    # As an answer of the SDK is put into the next question.
                    "content": [
                        anthropic.types.ThinkingBlock(type="thinking", thinking="", signature="s"),
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
            extra_headers={"anthropic-beta": "some-beta-2026-01-01"},
        ),
        "anthropic-messages",
    )
    assert [message.role for message in request.messages] == ["system", "user", "assistant", "tool"]
    assert request.messages[1].parts[0] == MediaPart(kind="image", data=PNG, media_type="image/png")
    assert request.messages[2].parts == (
        ThoughtPart(text="", seal="s"),
        TextPart(text="hm"),
        CallPart(id="a", name="f", arguments='{"x":1}'),
    )
    assert request.messages[3].parts == (ResultPart(call_id="a", content=(TextPart(text="4"),)),)
    path, headers, _ = serving.seen[-1]
    relayed = write(request, "anthropic-messages")
    assert path == relayed.path
    for name in ("anthropic-version", "anthropic-beta"):
        assert dict(relayed.headers)[name] == headers[name]
    other = write(request, "openai-chat")
    assert "anthropic-version" not in dict(other.headers)
    assert "header anthropic-beta" in other.left_out


def test_what_anthropics_stream_helper_sends_is_a_stream(
    serving: Upstream, claude: anthropic.Anthropic
) -> None:
    def send() -> None:
        with claude.messages.stream(
            model="claude", max_tokens=9, messages=[{"role": "user", "content": "q"}]
        ):
            pass

    assert sent(serving, send, "anthropic-messages").is_stream
