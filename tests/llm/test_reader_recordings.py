"""Every recorded provider stream is read whole, however its bytes were cut."""

from __future__ import annotations

import base64
import copy
import functools
import json
import random
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from llm.reading import (
    answer,
    assert_in_order,
    cut,
    drip,
    frame_payload,
    frames,
    read,
    with_payload,
)
from penstock.llm.dialects import find_dialect
from penstock.llm.events import Failure, TokenEvent, as_json_text
from penstock.testing.recordings import DIALECTS as WRITTEN
from penstock.testing.recordings import VOICES, Recording, built_in, load, split_events

MISSING = "no recordings here: set PENSTOCK_RECORDINGS to a folder of <dialect>.jsonl.gz files"

# The file a dialect's recordings lie in, where it is called otherwise.
FILES = {"bedrock": "bedrock-eventstream", "ollama": "ollama-ndjson"}


class Naive(NamedTuple):
    """An answer as the plainest code reads it, from a body that is known to be whole."""

    text: str
    reasoning: str = ""
    calls: tuple[tuple[str, str], ...] = ()
    usage: tuple[int, int] | None = None


@functools.cache
def recordings(dialect: str) -> tuple[Recording, ...]:
    found = load(FILES.get(dialect, dialect))
    if not found:
        pytest.skip(MISSING)
    own = [built_in(voice).recording(dialect) for voice in VOICES if dialect in WRITTEN]
    return (*found, *own)


def pieces(dialect: str, body: bytes) -> list[bytes]:
    """A body event by event."""
    if dialect == "bedrock":
        return frames(body)
    if dialect == "ollama":
        return body.splitlines(keepends=True)
    return list(split_events(body))


def payloads(dialect: str, body: bytes) -> list[Any]:
    """The JSON of each event; of Bedrock's chunks, what they wrap."""
    found: list[Any] = []
    for piece in pieces(dialect, body):
        if dialect == "bedrock":
            payload = json.loads(frame_payload(piece))
            wrapped = payload.get("bytes")
            name = re.search(rb"\x0b:event-type\x07\x00.(\w+)\x0d:content-type", piece, re.S)
            assert name
            found.append(json.loads(base64.b64decode(wrapped)) if wrapped else payload)
            found[-1] = {"event": name[1].decode(), **found[-1]}
        elif dialect == "ollama":
            found.append(json.loads(piece))
        else:
            lines = re.split(r"\r?\n", piece.decode())
            text = "".join(one[5:].strip() for one in lines if one.startswith("data:"))
            if text not in ("", "[DONE]"):
                found.append(json.loads(text))
    return found


def naive_chat(found: list[Any]) -> Naive:
    text, reasoning, calls, usage = "", "", {}, None
    for payload in found:
        for choice in payload.get("choices", []):
            delta = choice.get("delta") or {}
            text += (delta.get("content") or "") + (delta.get("refusal") or "")
            details = [detail.get("text", "") for detail in delta.get("reasoning_details", [])]
            thought = delta.get("reasoning") or delta.get("reasoning_content")
            reasoning += thought or "".join(details)
            for call in delta.get("tool_calls") or []:
                name, arguments = calls.get(call["index"], ("", ""))
                name = name or call["function"].get("name") or ""
                arguments += call["function"].get("arguments") or ""
                calls[call["index"]] = name, arguments
        count = payload.get("usage") or payload.get("x_groq", {}).get("usage")
        if count:
            usage = count["prompt_tokens"], count["completion_tokens"]
    whole = tuple((name, arguments or "{}") for _, (name, arguments) in sorted(calls.items()))
    return Naive(text, reasoning, whole, usage)


def naive_completions(found: list[Any]) -> Naive:
    choices = [choice for payload in found for choice in payload["choices"]]
    return Naive("".join(choice.get("text", "") for choice in choices))


def naive_anthropic(found: list[Any]) -> Naive:
    text, reasoning, calls, usage = "", "", {}, {}
    for payload in found:
        if payload["type"] == "message_start":
            usage |= payload["message"]["usage"]
        elif payload["type"] == "message_delta":
            usage |= payload["usage"]
        elif payload["type"] == "content_block_start":
            text += payload["content_block"].get("text", "")
            reasoning += payload["content_block"].get("thinking", "")
            if payload["content_block"]["type"] == "tool_use":
                calls[payload["index"]] = payload["content_block"]["name"], ""
        elif payload["type"] == "content_block_delta":
            text += payload["delta"].get("text", "")
            reasoning += payload["delta"].get("thinking", "")
            if payload["index"] in calls:
                name, arguments = calls[payload["index"]]
                calls[payload["index"]] = name, arguments + payload["delta"]["partial_json"]
    cache = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    counts = sum(usage.get(name, 0) for name in cache), usage["output_tokens"]
    return Naive(text, reasoning, tuple((n, a or "{}") for n, a in calls.values()), counts)


def naive_responses(found: list[Any]) -> Naive:
    """From the terminal event, which repeats the whole answer; deltas are what is under test."""
    (response,) = [p["response"] for p in found if p["type"] == "response.completed"]
    text, reasoning, calls = "", "", []
    for item in response["output"]:
        if item["type"] == "message":
            text += "".join(part["text"] for part in item["content"])
        elif item["type"] == "reasoning":
            parts = item["summary"] + (item.get("content") or [])
            reasoning += "".join(part["text"] for part in parts)
        elif item["type"] == "function_call":
            calls.append((item["name"], item["arguments"]))
    usage = response["usage"]["input_tokens"], response["usage"]["output_tokens"]
    return Naive(text, reasoning, tuple(calls), usage)


def naive_gemini(found: list[Any]) -> Naive:
    text, reasoning, calls = "", "", []
    for payload in found:
        for part in payload["candidates"][0].get("content", {}).get("parts", []):
            if part.get("thought"):
                reasoning += part["text"]
            else:
                text += part.get("text", "")
            if call := part.get("functionCall"):
                calls.append((call["name"], as_json_text(call["args"])))
    usage = found[-1]["usageMetadata"]
    read_ = usage["promptTokenCount"] + usage.get("toolUsePromptTokenCount", 0)
    # The total is the provider's own sum.
    return Naive(text, reasoning, tuple(calls), (read_, usage["totalTokenCount"] - read_))


def naive_bedrock(found: list[Any]) -> Naive:
    if found[0]["event"] != "chunk":
        return naive_converse(found)
    if "outputText" in found[0]:
        read_ = sum(payload.get("inputTextTokenCount", 0) for payload in found)
        written = found[-1]["totalOutputTextTokenCount"]
        text = "".join(payload["outputText"] for payload in found)
        return Naive(text, usage=(int(read_), int(written)))
    return naive_anthropic(found)


def naive_converse(found: list[Any]) -> Naive:
    text, reasoning, calls, usage = "", "", {}, None
    for payload in found:
        index = payload.get("contentBlockIndex")
        if tool := payload.get("start", {}).get("toolUse"):
            calls[index] = tool["name"], ""
        delta = payload.get("delta", {})
        text += delta.get("text", "")
        reasoning += delta.get("reasoningContent", {}).get("text", "")
        if "toolUse" in delta:
            name, arguments = calls[index]
            calls[index] = name, arguments + delta["toolUse"]["input"]
        if counts := payload.get("usage"):
            usage = counts["inputTokens"], counts["outputTokens"]
    return Naive(text, reasoning, tuple(calls.values()), usage)


def naive_cohere(found: list[Any]) -> Naive:
    text, reasoning, calls, usage = "", "", {}, None
    for payload in found:
        delta = payload.get("delta", {})
        content = delta.get("message", {})
        if payload["type"] == "content-delta":
            text += content["content"]["text"]
        elif payload["type"] == "tool-plan-delta":
            reasoning += content["tool_plan"]
        elif payload["type"] == "tool-call-start":
            calls[payload["index"]] = content["tool_calls"]["function"]["name"], ""
        elif payload["type"] == "tool-call-delta":
            name, arguments = calls[payload["index"]]
            arguments += content["tool_calls"]["function"]["arguments"]
            calls[payload["index"]] = name, arguments
        elif payload["type"] == "message-end":
            counts = delta["usage"]["tokens"]
            usage = counts["input_tokens"], counts["output_tokens"]
    return Naive(text, reasoning, tuple(calls.values()), usage)


def naive_ollama(found: list[Any]) -> Naive:
    text = "".join(p.get("response", "") + p.get("message", {}).get("content", "") for p in found)
    return Naive(text, usage=(found[-1].get("prompt_eval_count", 0), found[-1]["eval_count"]))


def naive_watsonx(found: list[Any]) -> Naive:
    results = [payload["results"][0] for payload in found]
    read_ = sum(result["input_token_count"] for result in results)
    text = "".join(result["generated_text"] for result in results)
    return Naive(text, usage=(read_, results[-1]["generated_token_count"]))


NAIVE: dict[str, Callable[[list[Any]], Naive]] = {
    "openai-chat": naive_chat,
    "openai-responses": naive_responses,
    "openai-completions": naive_completions,
    "anthropic-messages": naive_anthropic,
    "gemini": naive_gemini,
    "bedrock": naive_bedrock,
    "cohere": naive_cohere,
    "ollama": naive_ollama,
    "watsonx": naive_watsonx,
    "writer": naive_chat,  # an accent of OpenAI's, whose end is another
}
EVERY = (*NAIVE, "replicate")
SSE = [dialect for dialect in EVERY if dialect not in ("bedrock", "ollama")]

# The event after which a body may end and the answer is whole.
END = {
    "openai-chat": rb'\[DONE\]|"finish_reason":\s*"',
    "openai-responses": rb'"type":\s*"response.completed"',
    "openai-completions": rb'\[DONE\]|"finish_reason":\s*"',
    "anthropic-messages": rb"event: message_stop",
    "gemini": rb'"finishReason":',
    "bedrock": rb"messageStop|message_stop|completionReason|totalOutputTextTokenCount",
    "cohere": rb"event: message-end",
    "ollama": rb'"done":\s*true',
    "watsonx": rb'"stop_reason":"(?!not_finished)',
    "writer": rb'"finish_reason":\s*"',
    "replicate": rb"event: done",
}


def is_end(dialect: str, piece: bytes) -> bool:
    wrapped = re.search(rb'"bytes":"([^"]+)"', piece) if dialect == "bedrock" else None
    piece += base64.b64decode(wrapped[1]) if wrapped else b""
    return re.search(END[dialect], piece) is not None


def draw_and_say_seed() -> random.Random:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    return random.Random(seed)


@pytest.mark.parametrize("dialect", NAIVE)
def test_the_answer_is_what_a_naive_reading_of_each_event_gives(dialect: str) -> None:
    for recording in recordings(dialect):
        got = answer(read(dialect, recording.body))
        wanted = NAIVE[dialect](payloads(dialect, recording.body))
        assert got.text == wanted.text, recording.sha256
        assert got.reasoning == wanted.reasoning, recording.sha256
        if not got.is_truncated:
            calls = tuple((call.name, call.arguments) for call in got.tool_calls)
            assert calls == wanted.calls, recording.sha256
        usage = got.usage and (got.usage.input_tokens, got.usage.output_tokens)
        assert usage == wanted.usage, recording.sha256


def test_replicate_s_text_is_the_data_of_its_events_line_ends_included() -> None:
    for recording in recordings("replicate"):
        blocks = [block for block in recording.body.decode().split("\n\n") if "output" in block]
        lines = [re.findall(r"^data: ?(.*)$", block, re.M) for block in blocks]
        wanted = "".join("\n".join(line) for line in lines)
        assert answer(read("replicate", recording.body)).text == wanted


@pytest.mark.parametrize("dialect", EVERY)
def test_an_answer_is_whole_unless_the_provider_sent_an_error(dialect: str) -> None:
    for recording in recordings(dialect):
        got = answer(read(dialect, recording.body))
        has_error = b"event: error" in recording.body
        assert got.is_truncated == has_error, recording.sha256
        if has_error:
            assert got.failure is not None
            assert got.failure.code == "tool_use_failed"
            assert got.failure.status == 400
            continue
        assert got.stop is not None
        assert got.stop.reason != "other" or b"finish_reason" not in recording.body
        assert (got.stop.reason == "tool_use") == bool(got.tool_calls), recording.sha256
        assert all(call.arguments_valid and call.name for call in got.tool_calls)
        assert got.usage is None or not got.usage.partial, recording.sha256


@pytest.mark.parametrize("dialect", EVERY)
def test_where_the_bytes_are_cut_changes_nothing(dialect: str) -> None:
    draw = draw_and_say_seed()
    for recording in recordings(dialect):
        body = recording.body
        whole = read(dialect, body)
        count = draw.choice((3, 40, 400))
        places = [draw.randrange(len(body) + 1) for _ in range(count)]
        assert read(dialect, *cut(body, places)) == whole, recording.sha256
        assert read(dialect, *drip(body)) == whole, recording.sha256


@pytest.mark.parametrize("dialect", SSE)
def test_line_ends_change_nothing(dialect: str) -> None:
    for recording in recordings(dialect):
        body = recording.body.replace(b"\r\n", b"\n")
        whole = read(dialect, recording.body)
        assert read(dialect, body.replace(b"\n", b"\r\n")) == whole
        assert read(dialect, b"\xef\xbb\xbf" + body.replace(b"\n", b"\r")) == whole


@pytest.mark.parametrize("dialect", EVERY)
def test_events_keep_their_order_and_survive_their_records(dialect: str) -> None:
    for recording in recordings(dialect):
        assert_in_order(read(dialect, recording.body))


def codes(events: list[TokenEvent]) -> list[str]:
    return [event.code for event in events if isinstance(event, Failure)]


@pytest.mark.parametrize("dialect", EVERY)
def test_a_body_cut_after_any_event_before_its_end_is_never_whole(dialect: str) -> None:
    for recording in recordings(dialect):
        reader = find_dialect(dialect).make_reader()
        has_end = False
        failed: list[str] = []
        for place, piece in enumerate(pieces(dialect, recording.body)):
            reader.receive_data(piece)
            failed += codes(reader.events())
            has_end = has_end or is_end(dialect, piece)
            # A copy of the reader meets the end here; the reader itself goes on.
            short = copy.deepcopy(reader)
            short.receive_eof()
            found = failed + codes(short.events())
            if b"event: error" in piece:
                assert found == ["tool_use_failed"], (recording.sha256, place)
            elif not failed:
                expected = [] if has_end else ["upstream-truncated"]
                assert found == expected, (recording.sha256, place)


@pytest.mark.parametrize("dialect", EVERY)
def test_a_body_cut_at_any_byte_is_whole_only_from_its_end_on(dialect: str) -> None:
    body = min((r.body for r in recordings(dialect)), key=len)
    parts = pieces(dialect, body)
    before_end = next(n for n, piece in enumerate(parts) if is_end(dialect, piece))
    start = sum(map(len, parts[:before_end]))
    end = start + len(parts[before_end])
    reader = find_dialect(dialect).make_reader()
    # Of a long body a part of its places: around its end, all of them.
    step = len(body) // 4000 + 1
    for place in range(len(body)):
        if place % step == 0 or start - 50 <= place <= end + 50:
            short = copy.deepcopy(reader)
            short.receive_eof()
            found = codes(short.events())
            # Within the last event it depends: a line that is whole needs no line end.
            if place <= start:
                assert found == ["upstream-truncated"], place
            elif place >= end:
                assert found == [], place
        reader.receive_data(body[place : place + 1])
        reader.events()


@pytest.mark.parametrize("dialect", EVERY)
def test_a_body_cut_inside_an_event_is_a_body_without_it(dialect: str) -> None:
    for recording in recordings(dialect):
        parts = pieces(dialect, recording.body)
        head = b"".join(parts[: len(parts) // 2])
        half = parts[len(parts) // 2]
        assert read(dialect, head + half[: len(half) // 2]) == read(dialect, head)


def mutate(draw: random.Random, value: object) -> object:
    """`value` with something in it of another kind, where chance will have it."""
    if draw.random() < 0.04:
        odd = [None, True, -1, 1e300, 10**40, "x", "\ud800", [], {}, [None], {"type": 7}]
        return draw.choice(odd)
    if isinstance(value, dict):
        return {key: mutate(draw, item) for key, item in value.items() if draw.random() > 0.02}
    if isinstance(value, list):
        return [mutate(draw, item) for item in value]
    return value


def with_odd_payloads(draw: random.Random, dialect: str, body: bytes) -> bytes:
    odd: list[bytes] = []
    for piece in pieces(dialect, body):
        if dialect == "bedrock":
            payload = json.loads(frame_payload(piece))
            if "bytes" in payload:
                inner = mutate(draw, json.loads(base64.b64decode(payload["bytes"])))
                payload["bytes"] = base64.b64encode(json.dumps(inner).encode()).decode()
            odd.append(with_payload(piece, json.dumps(mutate(draw, payload)).encode()))
            continue
        for one in re.split(rb"(\r?\n)", piece):
            start = one.find(b"{")
            try:
                payload = json.loads(one[start:])
            except ValueError:
                odd.append(one)
            else:
                odd.append(one[:start] + json.dumps(mutate(draw, payload)).encode())
    return b"".join(odd)


@pytest.mark.parametrize("dialect", EVERY)
def test_no_payload_of_an_unexpected_shape_raises_or_breaks_the_order(dialect: str) -> None:
    draw = draw_and_say_seed()
    for recording in recordings(dialect):
        assert_in_order(read(dialect, with_odd_payloads(draw, dialect, recording.body)))


@pytest.mark.parametrize("dialect", EVERY)
def test_no_broken_byte_raises_or_breaks_the_order(dialect: str) -> None:
    draw = draw_and_say_seed()
    for recording in recordings(dialect):
        body = bytearray(recording.body)
        for _ in range(draw.choice((1, 8, 60))):
            place = draw.randrange(len(body))
            match draw.randrange(3):
                case 0:
                    body[place] = draw.randrange(256)
                case 1:
                    del body[place : place + draw.randrange(1, 40)]
                case _:
                    body[place:place] = draw.randbytes(draw.randrange(1, 20))
        assert_in_order(read(dialect, *cut(bytes(body), [draw.randrange(len(body))])))


def test_any_broken_bit_of_a_binary_body_is_found_by_its_checksums() -> None:
    draw = draw_and_say_seed()
    for recording in recordings("bedrock"):
        whole = read("bedrock", recording.body)
        parts = frames(recording.body)
        for number, piece in enumerate(parts):
            broken = bytearray(piece)
            broken[draw.randrange(len(piece))] ^= 1 << draw.randrange(8)
            head, rest = b"".join(parts[:number]), b"".join(parts[number + 1 :])
            events = read("bedrock", head + bytes(broken) + rest)
            assert codes(events) == ["upstream-malformed"], (recording.sha256, number)
            # Never anything that was not sent: what was read is the front of the whole.
            read_ = [event for event in events if not isinstance(event, Failure)]
            assert read_ == whole[: len(read_)]
