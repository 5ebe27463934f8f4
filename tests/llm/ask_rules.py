"""What each provider demands of a request's body, written down apart from what writes it.

Each rule is one of a provider's reference or of its errors. `check` fails with the rule that a body
breaks. Unknown fields break one too: nothing that a writer makes up may get by.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

Body = dict[str, Any]


def check(dialect: str, body: Body) -> None:
    """Fails where a provider that speaks this dialect would answer 400."""
    RULES[dialect](body)


def only(value: Body, *names: str, needs: Iterable[str] = ()) -> None:
    """No fields but these, and those that are needed."""
    assert isinstance(value, dict)
    assert set(value) <= {*names, *needs}, f"unknown: {set(value) - {*names, *needs}}"
    assert set(needs) <= set(value), f"missing: {set(needs) - set(value)}"
    assert None not in value.values(), f"null in {value}"


def one(value: Body, *names: str) -> str:
    """Exactly one of these fields; which."""
    (name,) = [name for name in value if name in names]
    return name


def text(value: object, *, says: bool = False) -> None:
    assert isinstance(value, str)
    assert not says or value.strip(), "text of white space alone"


def alternate(turns: list[Body], user: str, other: str) -> None:
    assert turns, "no message"
    roles = [turn["role"] for turn in turns]
    assert set(roles) <= {user, other}
    assert all(one != next for one, next in pairwise(roles)), roles


def chat(body: Body) -> None:
    only(
        body,
        *("tools", "tool_choice", "parallel_tool_calls", "temperature", "top_p", "seed", "stop"),
        *("presence_penalty", "frequency_penalty", "max_completion_tokens", "response_format"),
        *("reasoning_effort", "user", "metadata", "store", "stream_options"),
        needs=("model", "messages", "stream"),
    )
    assert body["messages"], "no message"
    for message in body["messages"]:
        chat_message(message)
    if body["stream"]:
        assert body["stream_options"]["include_usage"] is True
    else:
        assert "stream_options" not in body
    assert len(body.get("stop", ())) <= 4
    assert ("tool_choice" in body) <= ("tools" in body)
    assert ("parallel_tool_calls" in body) <= ("tools" in body)
    assert ("metadata" in body) <= bool(body.get("store"))
    for tool in body.get("tools", ()):
        only(tool, needs=("type", "function"))
        only(tool["function"], "description", "parameters", "strict", needs=("name",))
    if "response_format" in body and body["response_format"]["type"] == "json_schema":
        schema = body["response_format"]["json_schema"]
        only(schema, "description", "schema", "strict", needs=("name",))


def chat_message(message: Body) -> None:
    role = message["role"]
    assert role in ("system", "user", "assistant", "tool")
    if role == "tool":
        only(message, needs=("role", "tool_call_id", "content"))
        assert 0 < len(message["tool_call_id"]) <= 40
        text(message["content"])
        return
    assert message["content"] is not None or message.get("tool_calls")
    assert set(message) <= {"role", "content", "tool_calls"}
    assert ("tool_calls" in message) <= (role == "assistant")
    for call in message.get("tool_calls", ()):
        only(call, needs=("id", "type", "function"))
        only(call["function"], needs=("name", "arguments"))
        text(call["function"]["arguments"], says=True)
        assert 0 < len(call["id"]) <= 40
    if isinstance(message["content"], list):
        assert message["content"]
        for part in message["content"]:
            kind = part["type"]
            assert kind == "text" or role == "user"
            only(part, needs=("type", kind))
            if kind == "file":
                only(part[kind], needs=("filename", "file_data"))
                assert part[kind]["file_data"].startswith("data:")


def mistral(body: Body) -> None:
    only(
        body,
        *("tools", "tool_choice", "parallel_tool_calls", "temperature", "top_p", "random_seed"),
        *("presence_penalty", "frequency_penalty", "max_tokens", "response_format", "stop"),
        *("reasoning_effort", "metadata"),
        needs=("model", "messages", "stream"),
    )
    assert body.get("tool_choice") != "required"
    for message in body["messages"]:
        ids = [call["id"] for call in message.get("tool_calls", ())]
        for id in (*ids, *([message["tool_call_id"]] if "tool_call_id" in message else ())):
            assert re.fullmatch(r"[A-Za-z0-9]{9}", id)


def responses(body: Body) -> None:
    only(
        body,
        *("tools", "tool_choice", "parallel_tool_calls", "temperature", "top_p", "text", "user"),
        *("max_output_tokens", "reasoning", "metadata"),
        needs=("model", "input", "stream", "store"),
    )
    assert body["input"], "no input"
    assert body.get("max_output_tokens", 16) >= 16
    assert ("tool_choice" in body) <= ("tools" in body)
    for item in body["input"]:
        responses_item(item)
    for tool in body.get("tools", ()):
        assert set(tool) <= {"type", "name", "description", "parameters", "strict"}
        assert {"type", "name", "parameters", "strict"} <= set(tool)


def responses_item(item: Body) -> None:
    match item.get("type", "message"):
        case "message":
            only(item, needs=("role", "content"))
            if item["role"] == "assistant":
                text(item["content"])
                return
            for part in item["content"]:
                assert part["type"] in ("input_text", "input_image", "input_file")
        case "function_call":
            only(item, needs=("type", "call_id", "name", "arguments"))
            assert 0 < len(item["call_id"]) <= 64
        case kind:
            assert kind == "function_call_output"
            only(item, needs=("type", "call_id", "output"))
            assert 0 < len(item["call_id"]) <= 64


def anthropic(body: Body) -> None:
    only(
        body,
        *("system", "tools", "tool_choice", "temperature", "top_p", "top_k", "stop_sequences"),
        *("thinking", "output_config", "metadata"),
        needs=("model", "messages", "max_tokens", "stream"),
    )
    assert body["max_tokens"] >= 1
    alternate(body["messages"], "user", "assistant")
    assert body["messages"][0]["role"] == "user"
    for turn in body["messages"]:
        only(turn, needs=("role", "content"))
        assert turn["content"], "a turn without content"
        kinds = [block["type"] for block in turn["content"]]
        assert kinds == sorted(kinds, key=lambda kind: kind != "tool_result"), "results come first"
        for block in turn["content"]:
            anthropic_block(block, turn["role"])
    thinks = body.get("thinking", {"type": "disabled"})
    if thinks["type"] == "enabled":
        assert 1024 <= thinks["budget_tokens"] < body["max_tokens"]
    if thinks["type"] != "disabled":
        assert body.get("temperature", 1) == 1
        assert body.get("top_p", 1) >= 0.95
        assert "top_k" not in body
        assert body.get("tool_choice", {"type": "auto"})["type"] in ("auto", "none")
    assert 0 <= body.get("temperature", 0) <= 1
    for stop in body.get("stop_sequences", ()):
        text(stop, says=True)
    assert ("tool_choice" in body) <= ("tools" in body)
    for tool in body.get("tools", ()):
        only(tool, "description", "strict", needs=("name", "input_schema"))
        assert tool["input_schema"]["type"] == "object"
    only(body.get("output_config", {}), "effort", "format")
    assert body.get("output_config", {}).get("effort", "low") in (
        *("low", "medium", "high", "xhigh", "max"),
    )


def anthropic_block(block: Body, role: str) -> None:
    match block["type"]:
        case "text":
            text(block["text"], says=True)
        case "image":
            assert role == "user"
            only(block, needs=("type", "source"))
            assert block["source"].get("media_type", "image/png") in (
                *("image/png", "image/jpeg", "image/gif", "image/webp"),
            )
        case "document":
            assert role == "user"
            only(block, "title", needs=("type", "source"))
        case "tool_use":
            assert role == "assistant"
            only(block, needs=("type", "id", "name", "input"))
            assert isinstance(block["input"], dict)
            assert re.fullmatch(r"[a-zA-Z0-9_-]+", block["id"])
        case kind:
            assert kind == "tool_result"
            assert role == "user"
            only(block, "content", "is_error", needs=("type", "tool_use_id"))
            assert re.fullmatch(r"[a-zA-Z0-9_-]+", block["tool_use_id"])
            for inner in block.get("content", ()):
                anthropic_block(inner, "user")


def gemini(body: Body) -> None:
    only(body, "systemInstruction", "tools", "toolConfig", "generationConfig", needs=("contents",))
    alternate(body["contents"], "user", "model")
    for content in body["contents"]:
        assert content["parts"]
        for part in content["parts"]:
            match one(part, "text", "inlineData", "fileData", "functionCall", "functionResponse"):
                case "functionCall":
                    only(part["functionCall"], needs=("name", "args"))
                    assert content["role"] == "model"
                case "functionResponse":
                    only(part["functionResponse"], needs=("name", "response"))
                    assert part["functionResponse"]["name"]
                    assert content["role"] == "user"
                case _:
                    pass
    config = body.get("generationConfig", {})
    only(
        config,
        *("temperature", "topP", "topK", "seed", "presencePenalty", "frequencyPenalty"),
        *("maxOutputTokens", "stopSequences", "responseMimeType", "responseJsonSchema"),
        "thinkingConfig",
    )
    assert len(config.get("stopSequences", ())) <= 5
    assert ("responseJsonSchema" in config) <= ("responseMimeType" in config)
    assert ("toolConfig" in body) <= ("tools" in body)


def bedrock(body: Body) -> None:
    only(
        body,
        *("system", "inferenceConfig", "toolConfig", "additionalModelRequestFields"),
        "requestMetadata",
        needs=("messages",),
    )
    alternate(body["messages"], "user", "assistant")
    assert body["messages"][0]["role"] == "user"
    only(body.get("inferenceConfig", {}), "maxTokens", "temperature", "topP", "stopSequences")
    names: list[str] = []
    for turn in body["messages"]:
        assert turn["content"]
        for block in turn["content"]:
            match one(block, "text", "image", "document", "toolUse", "toolResult"):
                case "text":
                    text(block["text"], says=True)
                case "document":
                    names.append(block["document"]["name"])
                case "toolUse" | "toolResult" as kind:
                    assert (kind == "toolUse") == (turn["role"] == "assistant")
                    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", block[kind]["toolUseId"])
                    assert body["toolConfig"]["tools"]
                case _:
                    assert turn["role"] == "user"
    assert len(set(names)) == len(names)
    for name in names:
        assert re.fullmatch(r"[A-Za-z0-9()\[\]-]+( [A-Za-z0-9()\[\]-]+)*", name)
    for note in body.get("requestMetadata", {}).values():
        assert re.fullmatch(r"[a-zA-Z0-9\s:_@$#=/+,.-]{0,256}", note)


def ollama(body: Body) -> None:
    only(body, "tools", "format", "options", "think", needs=("model", "messages", "stream"))
    assert body["messages"]
    for message in body["messages"]:
        only(message, "images", "tool_calls", "tool_name", needs=("role", "content"))
        text(message["content"])
        assert ("tool_name" in message) == (message["role"] == "tool")
        for call in message.get("tool_calls", ()):
            assert isinstance(call["function"]["arguments"], dict)


def cohere(body: Body) -> None:
    only(
        body,
        *("tools", "strict_tools", "tool_choice", "max_tokens", "temperature", "p", "k", "seed"),
        *("presence_penalty", "frequency_penalty", "stop_sequences", "response_format", "thinking"),
        needs=("model", "messages", "stream"),
    )
    assert 0.01 <= body.get("p", 0.75) <= 0.99
    assert 0 <= body.get("k", 0) <= 500
    for penalty in ("presence_penalty", "frequency_penalty"):
        assert 0 <= body.get(penalty, 0) <= 1
    assert len(body.get("stop_sequences", ())) <= 5
    assert body.get("tool_choice", "NONE") in ("NONE", "REQUIRED")
    for message in body["messages"]:
        assert message["role"] in ("system", "user", "assistant", "tool")
        only(message, "content", "tool_calls", "tool_call_id", needs=("role",))
        assert ("tool_call_id" in message) == (message["role"] == "tool")


RULES: dict[str, Callable[[Body], None]] = {
    "openai-chat": chat,
    "mistral": mistral,
    "openai-responses": responses,
    "anthropic-messages": anthropic,
    "gemini": gemini,
    "bedrock": bedrock,
    "ollama": ollama,
    "cohere": cohere,
}
