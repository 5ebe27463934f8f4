"""The plainest clients of every dialect that is written, and what an answer must look like to them.

Each reads a whole body as its dialect's reference says and nothing more: no state is shared with
the readers of `penstock.llm`. A client shows an answer as `Shown`, and `expected` says what it must
show of one, dialect by dialect: which word a dialect has no room for is written here, and nowhere
else in the tests.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from penstock.llm.assemble import Answer
from penstock.llm.events import StopReason, Usage
from penstock.llm.write.writer import Envelope, call_id

ENVELOPE = Envelope(id="0f5c2a9be1d74c68", created_at=1_767_225_600, model="penstock-test")


class Shown(NamedTuple):
    """An answer as a client shows it.

    `calls` are id, name and arguments; `usage` the tokens in, out, of reasoning, from and to a
    cache; `end` is "stop", "length", "tool_use", "filtered", "other", "cancelled" or "failed".
    """

    text: str
    reasoning: str
    calls: tuple[tuple[str, str, str], ...]
    usage: tuple[int, ...] | None
    end: str


def expected(answer: Answer, dialect: str, end: str = "") -> Shown:
    """What a client of this dialect must show of an answer that ended so."""
    calls = tuple(
        (call_id(ENVELOPE, call.index, call.id), call.name, call.arguments)
        for call in answer.tool_calls
    )
    if not end:
        reason = answer.stop.reason if answer.stop else "other"
        end = "failed" if answer.failure else _end(reason, dialect)
    usage = _counts(answer.usage) if answer.usage else None
    if dialect == "anthropic-messages" and usage is None:
        usage = (0, 0, 0, 0, 0)  # it cannot be left out
    if dialect == "vercel" and usage is not None:
        usage = (*usage[:4], 0)  # what a cache was given has no name there
    return Shown(answer.text, answer.reasoning, calls, usage, end)


def _end(reason: StopReason, dialect: str) -> str:
    if dialect == "native":
        return reason
    if dialect == "agui":
        return {"content_filter": "filtered", "refusal": "filtered"}.get(reason, reason)
    words = {"content_filter": "filtered", "refusal": "filtered"}
    if dialect != "vercel":
        words["other"] = "stop"
    return words.get(reason, reason)


def _counts(usage: Usage) -> tuple[int, ...]:
    return (
        usage.input_tokens,
        usage.output_tokens,
        usage.reasoning_tokens or 0,
        usage.cached_tokens or 0,
        usage.cache_write_tokens or 0,
    )


def events(body: bytes) -> list[tuple[str, Any]]:
    """Name and JSON of every event; `[DONE]` is None. Each is one `data:` line, LF only."""
    assert b"\r" not in body
    assert not body or body.endswith(b"\n\n")
    found: list[tuple[str, Any]] = []
    for block in body.decode().split("\n\n")[:-1]:
        name, data = "", ""
        for line in block.split("\n"):
            field, _, value = line.partition(": ")
            assert field in ("event", "data"), line
            name, data = (value, data) if field == "event" else (name, data + value)
        # Whoever cuts lines as a language does, and not as the standard does, gets the same.
        assert len(data.splitlines()) == 1, data
        found.append((name, None if data == "[DONE]" else json.loads(data)))
    return found


def chat(body: bytes) -> Shown:
    text, reasoning, end, usage = "", "", "failed", None
    calls: dict[int, list[str]] = {}
    found = events(body)
    assert found[-1] == ("", None)
    for _, chunk in found[:-1]:
        if "error" in chunk:
            end = "cancelled" if chunk["error"]["code"] == "cancelled" else "failed"
            break
        if counted := chunk.get("usage"):
            assert chunk["choices"] == []
            read = counted.get("prompt_tokens_details", {})
            written = counted.get("completion_tokens_details", {})
            usage = (
                *(counted["prompt_tokens"], counted["completion_tokens"]),
                *(written.get("reasoning_tokens", 0), read.get("cached_tokens", 0)),
                read.get("cache_write_tokens", 0),
            )
        for choice in chunk["choices"]:
            if choice["index"]:
                continue
            delta = choice["delta"]
            text += delta.get("content") or ""
            reasoning += delta.get("reasoning_content", "")
            for call in delta.get("tool_calls", []):
                known = calls.setdefault(call["index"], ["", "", ""])
                function = call["function"]
                known[0] += call.get("id", "")
                known[1] += function.get("name", "")
                known[2] += function["arguments"]
            if finish := choice["finish_reason"]:
                words = {"tool_calls": "tool_use", "content_filter": "filtered"}
                end = words.get(finish, finish)
    whole = tuple((id, name, arguments) for id, name, arguments in calls.values())
    return Shown(text, reasoning, whole, usage, end)


def responses(body: bytes) -> Shown:
    """From the deltas; the terminal event must repeat them."""
    pieces: dict[tuple[int, str], str] = {}
    items: dict[int, Any] = {}
    found = events(body)
    assert [payload["sequence_number"] for _, payload in found] == [*range(len(found))]
    for name, payload in found:
        assert payload["type"] == name
        if name == "response.output_item.done":
            items[payload["output_index"]] = payload["item"]
        elif name.endswith(".delta"):
            key = (payload["output_index"], name)
            pieces[key] = pieces.get(key, "") + payload["delta"]
    response = found[-1][1]["response"]
    assert set(map(json.dumps, items.values())) <= set(map(json.dumps, response["output"]))
    shown = response_body(response)
    for channel, text in (("output_text", shown.text), ("reasoning_summary_text", shown.reasoning)):
        wanted = f"response.{channel}.delta"
        assert "".join(text for (_, name), text in sorted(pieces.items()) if name == wanted) == text
    wanted = "response.function_call_arguments.delta"
    written = [text for (_, name), text in sorted(pieces.items()) if name == wanted]
    assert written == [arguments for _, _, arguments in shown.calls]
    return shown


def response_body(response: Any) -> Shown:
    text, reasoning, calls = "", "", []
    for item in response["output"]:
        if item["type"] == "message":
            text += "".join(part["text"] for part in item["content"])
        elif item["type"] == "reasoning":
            reasoning += "".join(part["text"] for part in item["summary"])
        elif item["type"] == "function_call":
            calls.append((item["call_id"], item["name"], item["arguments"]))
    usage = None
    if counted := response["usage"]:
        read, written = counted["input_tokens_details"], counted["output_tokens_details"]
        usage = (
            *(counted["input_tokens"], counted["output_tokens"], written["reasoning_tokens"]),
            *(read["cached_tokens"], read["cache_write_tokens"]),
        )
    match response["status"]:
        case "completed":
            end = "tool_use" if calls else "stop"
        case "incomplete":
            why = response["incomplete_details"]["reason"]
            end = "length" if why == "max_output_tokens" else "filtered"
        case status:
            assert response["error"]
            end = status
    return Shown(text, reasoning, tuple(calls), usage, end)


_ANTHROPIC_WORDS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "tool_use": "tool_use",
    "refusal": "filtered",
}


def anthropic(body: bytes) -> Shown:
    text, reasoning, end, usage = "", "", "failed", dict[str, Any]()
    calls: dict[int, list[str]] = {}
    opened, is_open = -1, False
    for name, payload in events(body):
        assert payload["type"] == name
        match name:
            case "message_start":
                usage |= payload["message"]["usage"]
            case "message_delta":
                usage |= payload["usage"]
                word = payload["delta"]["stop_reason"]
                end = _ANTHROPIC_WORDS[word] if word else end
            case "content_block_start":
                assert (payload["index"], is_open) == (opened + 1, False)
                opened, is_open = payload["index"], True
                block = payload["content_block"]
                if block["type"] == "tool_use":
                    calls[opened] = [block["id"], block["name"], ""]
            case "content_block_delta":
                assert (payload["index"], is_open) == (opened, True)
                delta = payload["delta"]
                text += delta.get("text", "")
                reasoning += delta.get("thinking", "")
                if opened in calls:
                    calls[opened][2] += delta["partial_json"]
            case "content_block_stop":
                assert (payload["index"], is_open) == (opened, True)
                is_open = False
            case "error":
                is_cancelled = "cancelled" in payload["error"]["message"]
                end = "cancelled" if is_cancelled else "failed"
            case "message_stop":
                assert end != "failed"
            case _:
                raise AssertionError(name)
    whole = tuple((id, name, arguments or "{}") for id, name, arguments in calls.values())
    return Shown(text, reasoning, whole, _anthropic_usage(usage), end)


def _anthropic_usage(usage: dict[str, Any]) -> tuple[int, ...]:
    read = usage.get("cache_read_input_tokens") or 0
    written = usage.get("cache_creation_input_tokens") or 0
    thinking = (usage.get("output_tokens_details") or {}).get("thinking_tokens", 0)
    counts = (usage["input_tokens"] + read + written, usage["output_tokens"])
    return (*counts, thinking, read, written)


def vercel(body: bytes) -> Shown:
    text, reasoning, end, usage = "", "", "failed", None
    calls: dict[str, list[str]] = {}
    opened: set[str] = set()
    found = events(body)
    assert found[0][1]["type"] == "start"
    assert found[-1] == ("", None)
    for _, part in found[:-1]:
        if counted := part.get("messageMetadata", {}).get("usage"):
            usage = (
                *(counted["inputTokens"], counted["outputTokens"]),
                *(counted.get("reasoningTokens", 0), counted.get("cachedInputTokens", 0), 0),
            )
        match part["type"]:
            case "text-start" | "reasoning-start":
                assert part["id"] not in opened
                opened.add(part["id"])
            case "text-delta" | "reasoning-delta":
                assert part["id"] in opened
                text += part["delta"] if part["type"] == "text-delta" else ""
                reasoning += part["delta"] if part["type"] == "reasoning-delta" else ""
            case "text-end" | "reasoning-end":
                opened.remove(part["id"])
            case "tool-input-start":
                calls[part["toolCallId"]] = [part["toolName"], ""]
            case "tool-input-delta":
                calls[part["toolCallId"]][1] += part["inputTextDelta"]
            case "tool-input-available":
                assert json.loads(calls[part["toolCallId"]][1]) == part["input"]
            case "tool-input-error":
                assert calls[part["toolCallId"]][1] == part["input"]
            case "finish":
                assert not opened
                words = {"tool-calls": "tool_use", "content-filter": "filtered"}
                end = words.get(part["finishReason"], part["finishReason"])
            case "abort":
                end = "cancelled"
            case "error":
                assert part["errorText"]
            case _:
                pass
    whole = tuple((id, name, arguments) for id, (name, arguments) in calls.items())
    return Shown(text, reasoning, whole, usage, end)


def agui(body: bytes) -> Shown:
    text, reasoning, end, usage = "", "", "failed", None
    calls: dict[str, list[str]] = {}
    opened: set[tuple[str, str]] = set()
    found = events(body)
    assert found[0][1]["type"] == "RUN_STARTED"
    for _, event in found:
        for counted in event.get("usage", []):
            usage = (
                *(counted["inputTokens"], counted["outputTokens"]),
                *(counted.get("reasoningTokens", 0), counted.get("cachedInputTokens", 0)),
                counted.get("cacheWriteInputTokens", 0),
            )
        kind, _, step = event["type"].rpartition("_")
        id = event.get("messageId") or event.get("toolCallId", "")
        match event["type"]:
            case "TOOL_CALL_ARGS" | "TEXT_MESSAGE_CONTENT" | "REASONING_MESSAGE_CONTENT":
                assert (kind, id) in opened
                if kind == "TOOL_CALL":
                    calls[id][1] += event["delta"]
                elif kind == "TEXT_MESSAGE":
                    text += event["delta"]
                else:
                    reasoning += event["delta"]
            case "RUN_FINISHED":
                assert not opened
                end = event["outcome"]["type"]
                if end == "success":
                    end = event["result"]["stopReason"]
                    end = "filtered" if end in ("content_filter", "refusal") else end
            case "RUN_ERROR":
                assert event["message"]
            case _ if step == "START":
                opened.add((kind, id))
                if kind == "TOOL_CALL":
                    calls[id] = [event["toolCallName"], ""]
            case _ if step == "END":
                opened.remove((kind, id))
            case _:
                assert event["type"] in ("RUN_STARTED", "CUSTOM")
    whole = tuple((id, name, arguments) for id, (name, arguments) in calls.items())
    return Shown(text, reasoning, whole, usage, end)


def native(body: bytes) -> Shown:
    *found, (last, payload) = events(body)
    assert last == "end"
    said: dict[str, list[Any]] = {}
    for name, record in found:
        said.setdefault(name, []).append(record)
    calls: dict[int, list[str]] = {}
    for record in said.get("tool_delta", []):
        known = calls.setdefault(record["index"], ["", "", ""])
        for place, field in enumerate(("id", "name", "arguments")):
            known[place] += record.get(field, "")
    for record in said.get("tool", []):
        calls[record["index"]] = [record["id"], record["name"], record["arguments"]]
    whole = tuple((call_id(ENVELOPE, at, id), name, text) for at, (id, name, text) in calls.items())
    usage = None
    if counted := said.get("usage", [{}])[-1]:
        names = ("input", "output", "reasoning", "cached", "cache_write")
        usage = tuple(counted.get(f"{name}_tokens", 0) for name in names)
    end = payload["reason"]
    if "failure" in said:
        end = "failed"
    elif end == "complete":
        end = said["stop"][0]["reason"] if "stop" in said else "other"
    text = "".join(record["text"] for record in said.get("text", []))
    reasoning = "".join(record["text"] for record in said.get("reasoning", []))
    return Shown(text, reasoning, whole, usage, end)


CLIENTS: dict[str, Callable[[bytes], Shown]] = {
    "openai-chat": chat,
    "openai-responses": responses,
    "anthropic-messages": anthropic,
    "vercel": vercel,
    "agui": agui,
    "native": native,
}
"""By the dialect they read."""
