"""Every recorded provider stream is read whole, however its bytes were cut."""

import copy
import functools
import json
import random
from collections.abc import Callable

import pytest

from penstock.llm import anthropic, openai_chat
from penstock.llm.assemble import Answer, Assembler
from penstock.llm.events import (
    Failure,
    Start,
    Stop,
    TokenEvent,
    TokenReader,
    from_record,
    to_record,
)
from penstock.testing.recordings import VOICES, Recording, built_in, load, split_events

READERS: dict[str, Callable[[], TokenReader]] = {
    "openai-chat": openai_chat.Reader,
    "anthropic-messages": anthropic.Reader,
}

MISSING = "no recordings here: set PENSTOCK_RECORDINGS to a folder of <dialect>.jsonl.gz files"


@functools.cache
def recordings(dialect: str) -> tuple[Recording, ...]:
    found = load(dialect)
    if not found:
        pytest.skip(MISSING)
    own = tuple(built_in(voice).recording(dialect) for voice in VOICES)
    return (*found, *own)


def read(dialect: str, pieces: list[bytes]) -> list[TokenEvent]:
    reader = READERS[dialect]()
    events: list[TokenEvent] = []
    for piece in pieces:
        reader.receive_data(piece)
        events += reader.events()
    reader.receive_eof()
    return events + reader.events()


def assemble(events: list[TokenEvent]) -> Answer:
    assembler = Assembler()
    for event in events:
        assembler.receive_event(event)
    return assembler.answer()


def payloads(body: bytes) -> list[dict]:
    lines = body.decode().split("\n")
    texts = [line[5:].strip() for line in lines if line.startswith("data:")]
    return [json.loads(text) for text in texts if text != "[DONE]"]


def naive_openai(body: bytes) -> tuple[str, str, list[str], tuple[int, int]]:
    text, reasoning, calls, usage = "", "", {}, (0, 0)
    for payload in payloads(body):
        for choice in payload.get("choices", []):
            delta = choice.get("delta") or {}
            text += (delta.get("content") or "") + (delta.get("refusal") or "")
            details = [detail.get("text", "") for detail in delta.get("reasoning_details", [])]
            thought = delta.get("reasoning") or delta.get("reasoning_content")
            reasoning += thought or "".join(details)
            for call in delta.get("tool_calls") or []:
                key = call["index"]
                calls[key] = calls.get(key, "") + (call["function"].get("arguments") or "")
        count = payload.get("usage") or payload.get("x_groq", {}).get("usage")
        if count:
            usage = count["prompt_tokens"], count["completion_tokens"]
    return text, reasoning, [calls[key] or "{}" for key in sorted(calls)], usage


def naive_anthropic(body: bytes) -> tuple[str, str, list[str], tuple[int, int]]:
    text, reasoning, calls, usage = "", "", {}, {}
    for payload in payloads(body):
        if payload["type"] == "message_start":
            usage |= payload["message"]["usage"]
        elif payload["type"] == "message_delta":
            usage |= payload["usage"]
        elif payload["type"] == "content_block_start":
            text += payload["content_block"].get("text", "")
            reasoning += payload["content_block"].get("thinking", "")
            if payload["content_block"]["type"] == "tool_use":
                calls[payload["index"]] = ""
        elif payload["type"] == "content_block_delta":
            text += payload["delta"].get("text", "")
            reasoning += payload["delta"].get("thinking", "")
            if payload["index"] in calls:
                calls[payload["index"]] += payload["delta"].get("partial_json", "")
    cache = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    counts = sum(usage.get(name, 0) for name in cache), usage["output_tokens"]
    return text, reasoning, [call or "{}" for call in calls.values()], counts


NAIVE = {"openai-chat": naive_openai, "anthropic-messages": naive_anthropic}


@pytest.mark.parametrize("dialect", READERS)
def test_the_answer_is_what_a_naive_reading_of_each_data_line_gives(dialect: str) -> None:
    for recording in recordings(dialect):
        answer = assemble(read(dialect, [recording.body]))
        text, reasoning, calls, usage = NAIVE[dialect](recording.body)
        assert answer.text == text, recording.sha256
        assert answer.reasoning == reasoning, recording.sha256
        if not answer.is_truncated:
            assert [call.arguments for call in answer.tool_calls] == calls, recording.sha256
        if answer.usage is not None:
            assert (answer.usage.input_tokens, answer.usage.output_tokens) == usage
        else:
            assert usage == (0, 0), recording.sha256


@pytest.mark.parametrize("dialect", READERS)
def test_an_answer_is_whole_unless_the_provider_sent_an_error(dialect: str) -> None:
    for recording in recordings(dialect):
        answer = assemble(read(dialect, [recording.body]))
        has_error = any(payload.get("error") for payload in payloads(recording.body))
        assert answer.is_truncated == has_error, recording.sha256
        if has_error:
            assert answer.failure is not None
            assert answer.failure.code == "tool_use_failed"
            assert answer.failure.status == 400
        else:
            assert answer.usage is None or not answer.usage.partial, recording.sha256


def test_a_provider_that_never_sends_the_done_mark_is_read_whole() -> None:
    found = load("writer")
    if not found:
        pytest.skip(MISSING)
    for recording in found:
        answer = assemble(read("openai-chat", [recording.body]))
        text, _, calls, usage = naive_openai(recording.body)
        assert answer.text == text
        assert [call.arguments for call in answer.tool_calls] == calls
        assert not answer.is_truncated
        assert answer.usage is not None
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == usage
        assert not answer.usage.partial


@pytest.mark.parametrize("dialect", READERS)
def test_where_the_bytes_are_cut_changes_nothing(dialect: str) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    for recording in recordings(dialect):
        body = recording.body
        whole = read(dialect, [body])
        cuts = sorted(draw.randrange(len(body) + 1) for _ in range(draw.choice((3, 40, 400))))
        pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
        assert read(dialect, pieces) == whole, recording.sha256
    short = min(recordings(dialect), key=lambda recording: len(recording.body)).body
    assert read(dialect, [bytes([byte]) for byte in short]) == read(dialect, [short])


@pytest.mark.parametrize("dialect", READERS)
def test_line_ends_change_nothing(dialect: str) -> None:
    for recording in recordings(dialect):
        whole = read(dialect, [recording.body])
        assert read(dialect, [recording.body.replace(b"\n", b"\r\n")]) == whole
        assert read(dialect, [b"\xef\xbb\xbf" + recording.body.replace(b"\n", b"\r")]) == whole


@pytest.mark.parametrize("dialect", READERS)
def test_events_keep_their_order_and_survive_their_records(dialect: str) -> None:
    for recording in recordings(dialect):
        events = read(dialect, [recording.body])
        assert isinstance(events[0], Start)
        assert sum(isinstance(event, Start) for event in events) == 1
        assert sum(isinstance(event, Stop) for event in events) <= 1
        assert not any(isinstance(event, Failure) for event in events[:-1])
        for event in events:
            type, payload = to_record(event)
            assert from_record(type, json.loads(json.dumps(payload).encode())) == event


def is_end(dialect: str, event: bytes) -> bool:
    if dialect == "anthropic-messages":
        return b"event: message_stop" in event
    return b"[DONE]" in event or b'"finish_reason":"' in event


@pytest.mark.parametrize("dialect", READERS)
def test_a_body_cut_after_any_event_before_its_end_is_never_whole(dialect: str) -> None:
    for recording in recordings(dialect):
        reader = READERS[dialect]()
        has_end = False
        failed: list[str] = []
        for place, event in enumerate(split_events(recording.body)):
            reader.receive_data(event)
            failed += [e.code for e in reader.events() if isinstance(e, Failure)]
            has_end = has_end or is_end(dialect, event)
            # A copy of the reader meets the end here; the reader itself goes on.
            cut = copy.deepcopy(reader)
            cut.receive_eof()
            codes = failed + [e.code for e in cut.events() if isinstance(e, Failure)]
            if b"event: error" in event:
                assert codes == ["tool_use_failed"], (recording.sha256, place)
            elif not failed:
                expected = [] if has_end else ["upstream-truncated"]
                assert codes == expected, (recording.sha256, place)


@pytest.mark.parametrize("dialect", READERS)
def test_a_body_cut_inside_an_event_is_a_body_without_it(dialect: str) -> None:
    for recording in recordings(dialect):
        events = split_events(recording.body)
        head = b"".join(events[: len(events) // 2])
        half = events[len(events) // 2]
        assert read(dialect, [head + half[: len(half) // 2]]) == read(dialect, [head])


def mutate(draw: random.Random, value: object) -> object:
    """`value` with something in it of another kind, where chance will have it."""
    if draw.random() < 0.04:
        return draw.choice([None, True, -1, 1e300, "x", "\ud800", [], {}, [None], {"type": 7}])
    if isinstance(value, dict):
        return {key: mutate(draw, item) for key, item in value.items() if draw.random() > 0.02}
    if isinstance(value, list):
        return [mutate(draw, item) for item in value]
    return value


@pytest.mark.parametrize("dialect", READERS)
def test_no_payload_of_an_unexpected_shape_raises_or_breaks_the_order(dialect: str) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    for recording in recordings(dialect):
        odd = [mutate(draw, payload) for payload in payloads(recording.body)]
        wire = "".join(f"data: {json.dumps(payload)}\n\n" for payload in odd).encode()
        events = read(dialect, [wire])
        assert isinstance(events[0], Start | Failure)
        assert isinstance(events[-1], Failure) or any(isinstance(e, Stop) for e in events)
        assert not any(isinstance(event, Failure) for event in events[:-1])
        for event in events:
            type, payload = to_record(event)
            # What cannot be UTF-8 raises here.
            json.dumps(payload, ensure_ascii=False).encode()
            assert from_record(type, payload) == event
