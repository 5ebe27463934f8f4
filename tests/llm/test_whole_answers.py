"""Answers that are not streamed, and errors in the place of one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm.matrix import INS, cases
from llm.plain_clients import ENVELOPE, Shown, expected, response_body
from llm.writing import CASES, FAILURE, START, STOP, TOOLS, USAGE, call
from penstock.core.record import EndReason
from penstock.llm.events import Data, Failure, Reasoning, Text
from penstock.llm.write import openai_responses
from penstock.llm.write.dialects import OUT_DIALECTS, find_out_dialect
from penstock.llm.write.writer import Body
from penstock.testing.recordings import find_directory

WHOLE = {name: out.write_whole for name, out in OUT_DIALECTS.items() if out.write_whole}
ERRORS = {name: out.write_error for name, out in OUT_DIALECTS.items() if out.write_error}
ENDED_WELL = [
    name
    for name, case in CASES.items()
    if case.reason in (EndReason.COMPLETE, EndReason.LIMIT) and case.answer.failure is None
]


def whole(dialect: str, *given: Any, reason: EndReason = EndReason.COMPLETE) -> tuple[Body, Any]:
    body = WHOLE[dialect](ENVELOPE, given, reason)
    assert body.media_type == "application/json"
    return body, json.loads(body.data)


def error_of(dialect: str, failure: Failure) -> tuple[Body, Any]:
    body = ERRORS[dialect](failure)
    return body, json.loads(body.data)


def show(dialect: str, body: Any) -> Shown:
    """A whole answer as the plainest client shows it."""
    match dialect:
        case "openai-chat":
            return _show_chat(body)
        case "anthropic-messages":
            return _show_anthropic(body)
        case "openai-responses":
            return response_body(body)
        case _:
            return _show_native(body)


def _show_chat(body: Any) -> Shown:
    (choice,) = body["choices"]
    message, usage = choice["message"], None
    if counted := body.get("usage"):
        read = counted.get("prompt_tokens_details", {})
        written = counted.get("completion_tokens_details", {})
        usage = (
            *(counted["prompt_tokens"], counted["completion_tokens"]),
            *(written.get("reasoning_tokens", 0), read.get("cached_tokens", 0)),
            read.get("cache_write_tokens", 0),
        )
    calls = tuple(
        (c["id"], c["function"]["name"], c["function"]["arguments"])
        for c in message.get("tool_calls", [])
    )
    words = {"tool_calls": "tool_use", "content_filter": "filtered"}
    end = words.get(choice["finish_reason"], choice["finish_reason"])
    return Shown(message["content"] or "", message.get("reasoning_content", ""), calls, usage, end)


def _show_anthropic(body: Any) -> Shown:
    blocks, counted = body["content"], body["usage"]
    text = "".join(block["text"] for block in blocks if block["type"] == "text")
    thought = "".join(block["thinking"] for block in blocks if block["type"] == "thinking")
    calls = [(b["id"], b["name"], b["input"]) for b in blocks if b["type"] == "tool_use"]
    read = counted["cache_read_input_tokens"] or 0
    written = counted["cache_creation_input_tokens"] or 0
    usage = (
        *(counted["input_tokens"] + read + written, counted["output_tokens"]),
        *(counted.get("output_tokens_details", {}).get("thinking_tokens", 0), read, written),
    )
    words = {"tool_use": "tool_use", "max_tokens": "length", "refusal": "filtered"}
    return Shown(text, thought, tuple(calls), usage, words.get(body["stop_reason"], "stop"))


def _show_native(body: Any) -> Shown:
    names = ("input", "output", "reasoning", "cached", "cache_write")
    counted = body["usage"]
    usage = counted and tuple(counted.get(f"{name}_tokens", 0) for name in names)
    calls = tuple((c["id"], c["name"], c["arguments"]) for c in body["tool_calls"])
    end = body["stop"]["reason"] if body["stop"] else "other"
    end = end if body["reason"] == "complete" else body["reason"]
    return Shown(body["text"], body["reasoning"], calls, usage, end)


def parsed(shown: Shown, dialect: str) -> Shown:
    """What must be shown, as this dialect has the inputs of tools; ours leaves ids as they came."""
    calls = shown.calls
    if dialect == "anthropic-messages":
        calls = tuple((id, name, json.loads(text)) for id, name, text in calls)
    if dialect == "native":
        made = f"call_{ENVELOPE.id}_"
        calls = tuple(("" if id.startswith(made) else id, name, text) for id, name, text in calls)
    return shown._replace(calls=calls)


@pytest.mark.parametrize("dialect", WHOLE)
@pytest.mark.parametrize("name", ENDED_WELL)
def test_a_whole_answer_says_what_its_stream_says(name: str, dialect: str) -> None:
    case = CASES[name]
    body, said = whole(dialect, *case.events, reason=case.reason)
    assert body.status == 200
    wanted = expected(case.answer, dialect, case.end_in(dialect))
    if case.is_call_cut and dialect == "anthropic-messages":
        (block,) = [b for b in said["content"] if b["type"] == "tool_use"]
        assert block["input"] == {"INVALID_JSON": wanted.calls[0][2]}
        wanted = wanted._replace(calls=((*wanted.calls[0][:2], json.dumps(block["input"])),))
    assert show(dialect, said) == parsed(wanted, dialect)


@pytest.mark.parametrize("dialect", INS)
def test_every_recording_is_a_whole_answer_too(dialect: str) -> None:
    if find_directory() is None:
        pytest.skip("no recordings here: set PENSTOCK_RECORDINGS to their folder")
    for case in cases(dialect):
        for out in WHOLE:
            body, said = whole(out, *case.events, reason=case.reason)
            if case.answer.failure is not None:
                assert body.status == case.answer.failure.status
            else:
                assert show(out, said) == parsed(expected(case.answer, out), out), case.sha256


@pytest.mark.parametrize("dialect", ["openai-chat", "openai-responses"])
@pytest.mark.parametrize(
    ("failure", "type"),
    [
        (Failure(message="no", code="model_not_found", status=404), "invalid_request_error"),
        (Failure(message="no", code="invalid_api_key", status=401), "authentication_error"),
        (Failure(message="no", code="not_allowed", status=403), "permission_error"),
        (Failure(message="no", code="insufficient_quota", status=429), "rate_limit_error"),
        (Failure(message="no", code="upstream-truncated"), "server_error"),
        (Failure(message="no", code="cancelled", status=499), "server_error"),
    ],
)
def test_an_error_is_openais_own(dialect: str, failure: Failure, type: str) -> None:
    body, said = error_of(dialect, failure)
    assert body.status == (failure.status or 502)
    assert said == {"error": {"message": "no", "type": type, "param": None, "code": failure.code}}


@pytest.mark.parametrize(
    ("failure", "status", "type"),
    [
        (Failure(message="no", code="x", status=400), 400, "invalid_request_error"),
        (Failure(message="no", code="x", status=401), 401, "authentication_error"),
        (Failure(message="no", code="x", status=404), 404, "not_found_error"),
        (Failure(message="no", code="x", status=422), 422, "invalid_request_error"),
        (Failure(message="no", code="x", status=429), 429, "rate_limit_error"),
        (Failure(message="no", code="x", status=503), 503, "api_error"),
        (Failure(message="no", code="overloaded_error", status=None), 502, "overloaded_error"),
        (Failure(message="no", code="upstream-malformed"), 502, "api_error"),
        (Failure(message="no", code="cancelled", status=499), 499, "api_error"),
        (Failure(message="no", code="not an error's status", status=200), 502, "api_error"),
    ],
)
def test_an_error_is_anthropics_own(failure: Failure, status: int, type: str) -> None:
    body, said = error_of("anthropic-messages", failure)
    assert body.status == status
    assert said == {
        "type": "error",
        "error": {"type": type, "message": "no"},
        "request_id": None,
    }


@pytest.mark.parametrize("dialect", WHOLE)
def test_a_whole_answer_that_failed_is_its_error(dialect: str) -> None:
    body, said = whole(dialect, START, Text(text="a"), FAILURE, reason=EndReason.FAILED)
    assert body.status == FAILURE.status
    assert FAILURE.message in str(said)
    if dialect != "native":  # ours gives what there was of it, too
        assert body == ERRORS[dialect](FAILURE)


def test_pages_and_agents_are_told_in_words() -> None:
    assert ERRORS["vercel"](FAILURE).data == b"the model is overloaded"
    said = json.loads(ERRORS["agui"](FAILURE).data)
    assert said == {"message": "the model is overloaded", "code": "overloaded_error"}


@pytest.mark.parametrize("dialect", ["openai-chat", "anthropic-messages"])
@pytest.mark.parametrize(("reason", "status"), [("cancelled", 499), ("lost", 502), ("failed", 502)])
def test_what_is_not_whole_is_an_error(dialect: str, reason: str, status: int) -> None:
    """A client that did not ask for a stream has no use for half an answer without a word."""
    body, said = whole(dialect, START, Text(text="Once"), reason=EndReason(reason))
    assert body.status == status
    assert said["error"]["message"].endswith("what came is not whole")


def test_a_response_that_was_cancelled_is_one() -> None:
    body, said = whole(
        "openai-responses", START, Text(text="Once"), USAGE, reason=EndReason.CANCELLED
    )
    assert (body.status, said["status"]) == (200, "cancelled")
    assert said["output"][0]["content"][0]["text"] == "Once"


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        (None, "in_progress"),
        (EndReason.COMPLETE, "completed"),
        (EndReason.LIMIT, "incomplete"),
        (EndReason.CANCELLED, "cancelled"),
        (EndReason.FAILED, "failed"),
        (EndReason.LOST, "failed"),
    ],
)
def test_a_response_can_be_looked_at_in_any_state(reason: EndReason | None, status: str) -> None:
    given = (START, Reasoning(text="hm"), Text(text="Once"))
    body = openai_responses.write_response(ENVELOPE, given, reason, request={"store": False})
    said = json.loads(body.data)
    assert (body.status, said["status"], said["store"]) == (200, status, False)
    assert (said["error"] is None) == (status in ("in_progress", "completed", "incomplete"))
    assert said["output"][0]["summary"][0]["text"] == "hm"


def test_anthropics_whole_keeps_the_order_of_its_blocks() -> None:
    place = {"type": "char_location", "cited_text": "x"}
    given = (
        *(START, Reasoning(text="a"), Data(kind="signature", value="sig"), Text(text="b")),
        *(Data(kind="citation", value=place), call(0, "t", "f", '{"a":[1]}'), Text(text="c")),
        Data(kind="web_search_tool_result", value={"type": "web_search_tool_result"}),
        TOOLS,
    )
    _, said = whole("anthropic-messages", *given)
    assert said["content"] == [
        {"type": "thinking", "thinking": "a", "signature": "sig"},
        {"type": "text", "text": "b", "citations": [place]},
        {"type": "tool_use", "id": "t", "name": "f", "input": {"a": [1]}},
        {"type": "text", "text": "c"},
        {"type": "web_search_tool_result"},
    ]


def test_a_completion_gathers_its_annotations() -> None:
    cited = [Data(kind="citation", value={"url": f"https://{n}.test/"}) for n in "ab"]
    _, said = whole("openai-chat", START, Text(text="x"), *cited, STOP)
    message = said["choices"][0]["message"]
    urls = [one["url_citation"]["url"] for one in message["annotations"]]
    assert urls == ["https://a.test/", "https://b.test/"]


def test_only_dialects_that_know_whole_answers_write_them() -> None:
    for name in ("vercel", "agui"):
        assert find_out_dialect(name).write_whole is None
