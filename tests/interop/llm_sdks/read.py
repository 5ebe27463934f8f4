"""The `openai` and `anthropic` packages as clients: bodies in, what they show of them out.

Each line of input is a body as {"dialect", "kind", "body"}, kind being "stream", "whole" or
"error" (with "status"); each line of output is the answer as the package showed it, or the name of
the exception it raised. Nothing of the packages is changed: their HTTP client is given a transport
that answers with the body. Every event is also held against the package's own types.

With an argument, the packages are those in that folder.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

if len(sys.argv) > 1:
    sys.path.insert(0, sys.argv[1])

import anthropic
import openai
import pydantic
from anthropic.types import Message, RawMessageStreamEvent
from anthropic.types.beta import BetaRawMessageStreamEvent
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent

ASKED: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Well?"}]}


# What an event may be. The packages build theirs without a look; these look. Anthropic's own tools
# and compaction are types of its beta alone.
EVENTS: dict[str, pydantic.TypeAdapter[Any]] = {
    "openai-chat": pydantic.TypeAdapter(ChatCompletionChunk),
    "openai-responses": pydantic.TypeAdapter(ResponseStreamEvent),
    "anthropic-messages": pydantic.TypeAdapter(RawMessageStreamEvent | BetaRawMessageStreamEvent),
}


def validate(dialect: str, body: str) -> int:
    """How many events are of the package's types; one that is not raises."""
    count = 0
    for block in body.split("\n\n"):
        data = "".join(line[6:] for line in block.split("\n") if line.startswith("data: "))
        payload = json.loads(data) if data not in ("", "[DONE]") else {"error": "none"}
        if not payload.get("error"):
            EVENTS[dialect].validate_python(payload)
            count += 1
    return count


class Answering:
    """A package's client whose HTTP client answers with what it is told. One for all bodies: to
    make one costs more than to read a stream."""

    def __init__(self, package: Any, make: Any) -> None:
        # The package's own kind of HTTP client, whichever library that comes from.
        httpx = importlib.import_module(
            package.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0]
        )
        self.asked: dict[str, Any] = {}

        def answer(request: Any) -> Any:
            is_stream = self.asked["kind"] == "stream"
            media_type = "text/event-stream" if is_stream else "application/json"
            return httpx.Response(
                self.asked.get("status", 200),
                headers={"content-type": media_type},
                content=self.asked["body"].encode(),
            )

        http = package.DefaultHttpxClient(transport=httpx.MockTransport(answer))
        base_url = "http://penstock.test"
        self.sdk = make(api_key="none", base_url=base_url, http_client=http, max_retries=0)


CLIENTS = {
    openai: Answering(openai, openai.OpenAI),
    anthropic: Answering(anthropic, anthropic.Anthropic),
}


def client(package: Any, asked: dict[str, Any]) -> Any:
    CLIENTS[package].asked = asked
    return CLIENTS[package].sdk


def shown(
    text: str, reasoning: str, calls: Any, usage: Any, end: str, failed: Any = None
) -> dict[str, Any]:
    """`failed` is what was raised, or an error that the package hands out instead."""
    named = {"text": text, "reasoning": reasoning, "calls": calls, "usage": usage}
    if failed is None:
        return {**named, "end": end}
    kind = type(failed).__name__ if isinstance(failed, Exception) else "failed"
    return {**named, "end": kind, "failed": str(failed)}


def read_chat(asked: dict[str, Any]) -> Any:
    sdk, reasoning = client(openai, asked), ""
    if asked["kind"] == "whole":
        completion = sdk.chat.completions.create(**ASKED)
        ChatCompletion.model_validate_json(asked["body"])
        return show_chat(
            completion, getattr(completion.choices[0].message, "reasoning_content", "")
        )
    state: Any = ChatCompletionStreamState()
    failed = None
    try:
        for chunk in sdk.chat.completions.create(**ASKED, stream=True):
            if chunk.choices and chunk.choices[0].index:
                continue
            state.handle_chunk(chunk)
            if chunk.choices:
                reasoning += getattr(chunk.choices[0].delta, "reasoning_content", None) or ""
    except openai.APIError as error:
        failed = error
    return show_chat(state.current_completion_snapshot, reasoning, failed)


def show_chat(completion: Any, reasoning: str, failed: Any = None) -> dict[str, Any]:
    message, counted = completion.choices[0].message, completion.usage
    calls = [(c.id, c.function.name, c.function.arguments) for c in message.tool_calls or []]
    usage = None
    if counted:
        read, written = counted.prompt_tokens_details, counted.completion_tokens_details
        usage = [
            *(counted.prompt_tokens, counted.completion_tokens),
            *(written.reasoning_tokens if written else 0, read.cached_tokens if read else 0),
            getattr(read, "cache_write_tokens", 0),
        ]
        usage = [count or 0 for count in usage]
    finish = completion.choices[0].finish_reason
    return shown(message.content or "", reasoning, calls, usage, finish, failed)


def read_responses(asked: dict[str, Any]) -> Any:
    sdk = client(openai, asked)
    if asked["kind"] == "whole":
        response = sdk.responses.create(model="m", input="Well?")
        Response.model_validate_json(asked["body"])
        return show_response(response, "")
    text = reasoning = ""
    response = None
    # The package's helper asserts that every delta is of an item and a part that was added.
    with sdk.responses.stream(model="m", input="Well?") as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                text += event.delta
            elif event.type == "response.reasoning_summary_text.delta":
                reasoning += event.delta
            elif event.type in (
                *("response.completed", "response.incomplete"),
                *("response.failed", "response.cancelled"),
            ):
                response = event.response
    assert response is not None
    assert response.output_text == text
    return show_response(response, reasoning)


def show_response(response: Any, reasoning: str) -> dict[str, Any]:
    calls = [(i.call_id, i.name, i.arguments) for i in response.output if i.type == "function_call"]
    summaries = [i.summary for i in response.output if i.type == "reasoning"]
    thought = "".join(part.text for summary in summaries for part in summary)
    assert reasoning in ("", thought)
    usage = None
    if counted := response.usage:
        read, written = counted.input_tokens_details, counted.output_tokens_details
        usage = [
            *(counted.input_tokens, counted.output_tokens, written.reasoning_tokens),
            *(read.cached_tokens, getattr(read, "cache_write_tokens", 0) or 0),
        ]
    why = response.incomplete_details.reason if response.incomplete_details else ""
    failed = response.error and response.error.message
    return shown(response.output_text, thought, calls, usage, why or response.status, failed)


def read_anthropic(asked: dict[str, Any]) -> Any:
    sdk, message, failed = client(anthropic, asked), None, None
    if asked["kind"] == "whole":
        message = sdk.messages.create(**ASKED, max_tokens=1)
        Message.model_validate_json(asked["body"])
        return show_message(message)
    try:
        with sdk.messages.stream(**ASKED, max_tokens=1) as stream:
            for event in stream:
                if event.type != "message_stop":
                    message = stream.current_message_snapshot
            message = stream.get_final_message()
    except anthropic.APIError as error:
        failed = error
    return show_message(message, failed)


def show_message(message: Any, failed: Any = None) -> dict[str, Any]:
    text = "".join(block.text for block in message.content if block.type == "text")
    thought = "".join(block.thinking for block in message.content if block.type == "thinking")
    calls = [(b.id, b.name, b.input) for b in message.content if b.type == "tool_use"]
    counted = message.usage
    read = counted.cache_read_input_tokens or 0
    written = counted.cache_creation_input_tokens or 0
    details = getattr(counted, "output_tokens_details", None)
    # The packages of 0.x keep what they have no type for as it came.
    thinking = details.get("thinking_tokens") if isinstance(details, dict) else details
    thinking = getattr(thinking, "thinking_tokens", thinking) or 0
    counts = [counted.input_tokens + read + written, counted.output_tokens]
    usage = [*counts, thinking, read, written]
    return shown(text, thought, calls, usage, message.stop_reason, failed)


READERS = {
    "openai-chat": read_chat,
    "openai-responses": read_responses,
    "anthropic-messages": read_anthropic,
}


def main() -> None:
    print(
        json.dumps({"openai": openai.__version__, "anthropic": anthropic.__version__}), flush=True
    )
    for line in sys.stdin:
        asked = json.loads(line)
        said: dict[str, Any] = {}
        try:
            if asked.get("validate"):
                said["validated"] = validate(asked["dialect"], asked["body"])
            said |= READERS[asked["dialect"]](asked)
        except Exception as error:  # noqa: BLE001 - which it is, is what is asked
            said["raised"] = type(error).__name__
            said["status"] = getattr(error, "status_code", None)
            said["message"] = str(error)[:2000]
        print(json.dumps(said), flush=True)


main()
