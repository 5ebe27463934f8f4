"""The `openai` and `anthropic` packages as clients of a server: they ask, and show what they got.

Each line of input is {"id", "client", "base", "model"} and what else is asked for: {"whole": true}
for an answer that is not streamed, "max_tokens", "timeout_s", "key", "headers". Lines do not wait
for each other. Each line of output is {"id", "text", "reasoning", "calls", "usage", "end",
"failed"}, or, where the package raised before there was an answer, {"id", "raised", "status",
"message"}. Nothing of the packages is changed.

With an argument, the packages are those in that folder.
"""

from __future__ import annotations

import functools
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

if len(sys.argv) > 1:
    sys.path.insert(0, sys.argv[1])

import anthropic
import openai

QUESTION = "Why is the sky blue?"
MESSAGES: list[Any] = [{"role": "user", "content": QUESTION}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL = {"name": "get_weather", "description": "The weather of a city.", "parameters": SCHEMA}


@functools.cache
def make(make_client: Any, base_url: str, key: str, timeout_s: float) -> Any:
    """A package's client. To make one costs more than most of what is asked of it."""
    return make_client(api_key=key, base_url=base_url, max_retries=0, timeout=timeout_s)


def connect(make_client: Any, asked: dict[str, Any], path: str) -> Any:
    key, timeout_s = asked.get("key", "sk-any"), asked.get("timeout_s", 30)
    client = make(make_client, asked["base"] + path, key, timeout_s)
    return client.with_options(default_headers=asked.get("headers"))


class Shown:
    """What a package showed so far."""

    def __init__(self) -> None:
        self.said: dict[str, Any] = {
            "text": "",
            "reasoning": "",
            "calls": [],
            "usage": None,
            "end": None,
            "failed": None,
        }

    def fail(self, error: Exception) -> None:
        self.said["end"], self.said["failed"] = type(error).__name__, str(error)


def chat(asked: dict[str, Any]) -> dict[str, Any]:
    sdk = connect(openai.OpenAI, asked, "/v1")
    more = {"max_completion_tokens": asked["max_tokens"]} if "max_tokens" in asked else {}
    tools: list[Any] = [{"type": "function", "function": TOOL}]
    create = sdk.chat.completions.create
    question = {"model": asked["model"], "messages": MESSAGES, "tools": tools, **more}
    shown = Shown()
    if asked.get("whole"):
        completion = create(**question)
        choice = completion.choices[0]
        shown.said["text"] = choice.message.content or ""
        shown.said["reasoning"] = getattr(choice.message, "reasoning_content", None) or ""
        for call in choice.message.tool_calls or []:
            shown.said["calls"].append([call.function.name, call.function.arguments])
        shown.said["end"] = choice.finish_reason
        shown.said["usage"] = [completion.usage.prompt_tokens, completion.usage.completion_tokens]
        return shown.said
    stream = create(**question, stream=True, stream_options={"include_usage": True})
    try:
        for chunk in stream:
            show_chunk(chunk, shown.said)
    except openai.APIError as error:
        shown.fail(error)
    return shown.said


def show_chunk(chunk: Any, said: dict[str, Any]) -> None:
    if chunk.usage:
        said["usage"] = [chunk.usage.prompt_tokens, chunk.usage.completion_tokens]
    for choice in chunk.choices:
        said["text"] += choice.delta.content or ""
        said["reasoning"] += getattr(choice.delta, "reasoning_content", None) or ""
        for call in choice.delta.tool_calls or []:
            if call.index == len(said["calls"]):
                said["calls"].append([call.function.name, ""])
            said["calls"][call.index][1] += call.function.arguments or ""
        said["end"] = choice.finish_reason or said["end"]


def responses(asked: dict[str, Any]) -> dict[str, Any]:
    sdk = connect(openai.OpenAI, asked, "/v1")
    more = {"max_output_tokens": asked["max_tokens"]} if "max_tokens" in asked else {}
    tools: list[Any] = [{"type": "function", "strict": False, **TOOL}]
    question = {"model": asked["model"], "input": QUESTION, "tools": tools, **more}
    shown = Shown()
    if asked.get("whole"):
        show_response(sdk.responses.create(**question), shown.said)
        return shown.said
    text = ""
    stream = sdk.responses.create(**question, stream=True)
    try:
        for event in stream:
            if event.type == "response.output_text.delta":
                text += event.delta
            elif event.type in ("response.completed", "response.incomplete", "response.failed"):
                show_response(event.response, shown.said)
            elif event.type == "error":
                shown.said |= {"text": text, "end": "failed", "failed": event.message}
        assert shown.said["text"] == text, (shown.said, text)
    except openai.APIError as error:
        shown.fail(error)
        shown.said["text"] = text
    return shown.said


def show_response(response: Any, said: dict[str, Any]) -> None:
    said["text"] = response.output_text
    for item in response.output:
        if item.type == "reasoning":
            said["reasoning"] += "".join(part.text for part in item.summary)
        elif item.type == "function_call":
            said["calls"].append([item.name, item.arguments])
    if response.usage:
        said["usage"] = [response.usage.input_tokens, response.usage.output_tokens]
    said["end"] = response.status
    if response.incomplete_details:
        said["end"] = response.incomplete_details.reason
    if response.error:
        said["failed"] = response.error.message


def messages(asked: dict[str, Any]) -> dict[str, Any]:
    sdk = connect(anthropic.Anthropic, asked, "")
    tool = {"name": TOOL["name"], "description": TOOL["description"], "input_schema": SCHEMA}
    most = asked.get("max_tokens", 4096)
    question: dict[str, Any] = {"messages": MESSAGES, "tools": [tool], "max_tokens": most}
    question["model"] = asked["model"]
    shown = Shown()
    if asked.get("whole"):
        show_message(sdk.messages.create(**question), shown.said)
        return shown.said
    message = None
    with sdk.messages.stream(**question) as stream:
        try:
            for event in stream:
                if event.type != "message_stop":
                    message = stream.current_message_snapshot
            message = stream.get_final_message()
        except anthropic.APIError as error:
            shown.fail(error)
    if message is not None:
        show_message(message, shown.said)
    return shown.said


def show_message(message: Any, said: dict[str, Any]) -> None:
    for block in message.content:
        if block.type == "text":
            said["text"] += block.text
        elif block.type == "thinking":
            said["reasoning"] += block.thinking
        elif block.type == "tool_use":
            said["calls"].append([block.name, json.dumps(block.input)])
    said["usage"] = [message.usage.input_tokens, message.usage.output_tokens]
    said["end"] = said["end"] or message.stop_reason


CLIENTS = {
    "openai-chat": chat,
    "openai-responses": responses,
    "anthropic-messages": messages,
}


def answer(line: str) -> None:
    asked = json.loads(line)
    try:
        said = CLIENTS[asked["client"]](asked)
    except Exception as error:  # noqa: BLE001 - which it is, is what is asked
        said = {"raised": type(error).__name__, "message": str(error)[:2000]}
        said["status"] = getattr(error, "status_code", None)
    # In one piece, so that the lines of two threads stay lines.
    sys.stdout.write(json.dumps({**said, "id": asked["id"]}) + "\n")
    sys.stdout.flush()


def main() -> None:
    versions = {"openai": openai.__version__, "anthropic": anthropic.__version__}
    print(json.dumps(versions), flush=True)
    with ThreadPoolExecutor(max_workers=8) as threads:
        for line in sys.stdin:
            threads.submit(answer, line)


main()
