"""Before the first content a call is tried again, or elsewhere, where that helps; never after."""

from __future__ import annotations

import asyncio
import json
import socket
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from gateway.providers import (
    DONE,
    HEAD,
    LAST,
    STOP,
    WHOLE,
    Said,
    answers,
    chunk,
    collect,
    event,
    failure_of,
    provider,
    request,
    response,
    said,
    text_of,
    upstream,
)
from penstock.core.gateway_errors import UpstreamBusy
from penstock.gateway.calls import Calls
from penstock.gateway.config import UpstreamSettings
from penstock.llm.events import Failure, Start, Usage
from penstock.testing.upstream import RecordedUpstream

NOW = "Retry-After: 0"
EVENT_STREAM = "Content-Type: text/event-stream"


def refused(status: int, *headers: str, **error: Any) -> bytes:
    """A refusal in OpenAI's form."""
    fields = {"message": f"refused with {status}", "type": "some_error", **error}
    return response(status, json.dumps({"error": fields}).encode(), *headers)


PASSING = {
    **{str(status): refused(status, NOW) for status in (408, 409, 425, 429, 500, 502, 503, 529)},
    "closed": None,
    "cut before the head": b"HTTP/1.1 200 OK\r\nConte",
    "an error first": HEAD + chunk(event({"error": {"message": "busy", "code": "overloaded"}})),
    "an error after the start": HEAD
    + chunk(event({"id": "a", "model": "m", "choices": [{"delta": {"role": "assistant"}}]}))
    + chunk(event({"error": {"message": "busy", "type": "server_error"}}))
    + LAST,
    "an empty body": HEAD + LAST,
    "a body cut before content": response(200, b": hello\n\n", EVENT_STREAM),
}


@pytest.mark.parametrize("what", PASSING)
async def test_what_may_pass_is_tried_again(what: str) -> None:
    async def answer(asked: Said) -> bytes | None:
        if len(one.requests) <= 2:
            answered = PASSING[what]
            if answered is not None:
                asked.writer.write(answered)
            if not (answered or b"").endswith(LAST) and b"Length" not in (answered or b""):
                return None
            return b""
        return WHOLE

    tries: list[Failure | None] = []
    async with provider(answer) as one, Calls() as calls:
        settings = upstream(one.url, retries=2)
        call, events = await collect(
            calls, settings, on_attempt=lambda _, failure: tries.append(failure)
        )
        assert text_of(events) == "hello"
        assert sum(isinstance(e, Start) for e in events) == 1
        assert (call.attempts, len(one.requests)) == (3, 3)
        assert [bool(failure) for failure in tries] == [True, True, False]
        assert calls.running == 0
        assert calls.slots(settings).free == settings.max_concurrent


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 413, 422, 501, 302])
async def test_what_stays_is_asked_once(status: int) -> None:
    headers = ["Location: http://127.0.0.1:1/"] if status == 302 else []
    async with provider(answers(refused(status, *headers))) as one, Calls() as calls:
        call, events = await collect(calls, upstream(one.url, retries=5))
        failure = failure_of(events)
        assert (failure.status, failure.message) == (status, f"refused with {status}")
        assert failure.code == "some_error"
        assert (call.attempts, len(one.requests)) == (1, 1)


async def test_a_used_up_quota_is_no_moment_s_matter() -> None:
    body = refused(429, NOW, code="insufficient_quota")
    async with provider(answers(body)) as one, Calls() as calls:
        await collect(calls, upstream(one.url, retries=5))
        assert len(one.requests) == 1


@pytest.mark.parametrize(("hint", "status", "asked"), [("true", 400, 2), ("false", 503, 1)])
async def test_a_provider_that_knows_better_is_believed(hint: str, status: int, asked: int) -> None:
    first = refused(status, f"x-should-retry: {hint}")
    async with provider(answers(first, WHOLE)) as one, Calls() as calls:
        await collect(calls, upstream(one.url, retries=1))
        assert len(one.requests) == asked


async def test_nobody_there_is_tried_again_and_then_unreachable() -> None:
    tries: list[Failure | None] = []
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        async with Calls() as calls:
            call, events = await collect(
                calls, upstream(url, retries=1), on_attempt=lambda _, f: tries.append(f)
            )
    failure = failure_of(events)
    assert (failure.code, failure.status) == ("upstream-unreachable", 502)
    assert "connection refused" in failure.message
    assert "127.0.0.1" not in failure.message
    assert (call.attempts, len(tries)) == (2, 2)


@pytest.mark.parametrize(
    ("headers", "after_s"),
    [
        (["Retry-After: 11"], 11),
        (["Retry-After: 12.5"], 12.5),
        (["retry-after-ms: 15000", "Retry-After: 1"], 15),
        (["Retry-After: {date}"], 300),
        (["Retry-After: soon"], None),
        (["Retry-After: " + "9" * 400], None),
    ],
)
async def test_a_long_wish_to_be_left_alone_is_handed_on_and_not_waited_for(
    headers: list[str], after_s: float | None
) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(minutes=5))
    headers = [header.format(date=date) for header in headers]
    async with provider(answers(refused(429, *headers), WHOLE)) as one, Calls() as calls:
        async with asyncio.timeout(5):
            call, _ = await collect(calls, upstream(one.url, retries=1))
        if after_s is None:
            assert len(one.requests) == 2
        else:
            assert len(one.requests) == 1
            assert call.retry_after_s == pytest.approx(after_s, abs=20 if after_s == 300 else 0)


async def test_a_short_wish_is_waited_for() -> None:
    first = refused(429, "retry-after-ms: 250")
    async with provider(answers(first, WHOLE)) as one, Calls() as calls:
        begun = asyncio.get_running_loop().time()
        await collect(calls, upstream(one.url, retries=1))
        assert asyncio.get_running_loop().time() - begun >= 0.25
        assert len(one.requests) == 2


async def test_google_s_wish_is_in_the_error_itself() -> None:
    error = {
        "code": 429,
        "message": "Quota exceeded",
        "status": "RESOURCE_EXHAUSTED",
        "details": [
            {"@type": "type.googleapis.com/google.rpc.Help"},
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.07s"},
        ],
    }
    body = response(429, json.dumps([{"error": error}]).encode())
    async with provider(answers(body)) as one, Calls() as calls:
        settings = upstream(one.url, dialect="gemini", base_url=one.url, retries=3)
        call, events = await collect(calls, settings)
        assert call.retry_after_s == 34.07
        assert failure_of(events).code == "RESOURCE_EXHAUSTED"
        assert len(one.requests) == 1


ELSEWHERE = {
    "our key": refused(401),
    "our account": refused(402),
    "our rights": refused(403),
    "our model": refused(404),
    "a redirect": refused(307, "Location: http://127.0.0.1:1/"),
    "garbage": response(200, b"\x00\xff garbage\n\ndata: {]\n\n", EVENT_STREAM),
    "a page": response(200, b"<html><title>Welcome</title>", "Content-Type: text/html"),
    "compressed": response(200, b"\x1f\x8b\x08", EVENT_STREAM, "Content-Encoding: gzip"),
    "overload": refused(529, "Retry-After: 60"),
}


@pytest.mark.parametrize("what", ELSEWHERE)
async def test_another_upstream_is_asked_where_this_one_cannot_help(what: str) -> None:
    async with (
        provider(answers(ELSEWHERE[what])) as first,
        provider(answers(WHOLE)) as second,
        Calls() as calls,
    ):
        call, events = await collect(
            calls, upstream(first.url, retries=3), upstream(second.url, name="two")
        )
        assert text_of(events) == "hello"
        assert (call.upstream, call.attempts) == ("two", 2)
        assert (len(first.requests), len(second.requests)) == (1, 1)


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_caller_s_mistake_is_not_made_again_elsewhere(status: int) -> None:
    async with (
        provider(answers(refused(status))) as first,
        provider(answers(WHOLE)) as second,
        Calls() as calls,
    ):
        call, events = await collect(calls, upstream(first.url), upstream(second.url, name="two"))
        assert failure_of(events).status == status
        assert call.upstream == "one"
        assert not second.requests


async def test_a_caller_s_mistake_told_in_a_stream_is_asked_once() -> None:
    told = event({"error": {"message": "too long", "code": "context_length_exceeded"}})
    async with provider(answers(HEAD + chunk(told) + LAST)) as one, Calls() as calls:
        second = upstream(one.url, name="two")
        _, events = await collect(calls, upstream(one.url, retries=3), second)
        assert failure_of(events).code == "context_length_exceeded"
        assert len(one.requests) == 1


async def test_where_all_fail_the_last_one_s_failure_is_the_answer() -> None:
    begun = chunk(event({"id": "a", "model": "m", "choices": [], "usage": {"prompt_tokens": 9}}))
    broken = HEAD + begun + chunk(event({"error": {"message": "broke down"}})) + LAST
    async with (
        provider(answers(refused(401))) as first,
        provider(answers(broken)) as second,
        Calls() as calls,
    ):
        call, events = await collect(
            calls, upstream(first.url), upstream(second.url, name="two", retries=1)
        )
        assert call.upstream == "two"
        assert failure_of(events).message == "broke down"
        assert any(isinstance(e, Usage) for e in events)  # what it cost is known
        assert call.attempts == 3
        assert calls.running == 0


async def test_nothing_is_tried_again_after_content() -> None:
    cut = HEAD + chunk(said("half "))
    async with (
        provider(answers(cut + chunk(event({"error": {"message": "broke"}})), WHOLE)) as one,
        Calls() as calls,
    ):
        settings = upstream(one.url, retries=5)
        call, events = await collect(calls, settings, upstream(one.url, name="two"))
        assert text_of(events) == "half "
        assert failure_of(events).message == "broke"
        assert (call.attempts, len(one.requests)) == (1, 1)


async def test_an_answer_that_says_nothing_and_stops_is_an_answer() -> None:
    async with provider(answers(HEAD + chunk(STOP + DONE) + LAST)) as one, Calls() as calls:
        call, events = await collect(calls, upstream(one.url, retries=5))
        assert call.failure is None
        assert len(one.requests) == 1
        assert not text_of(events)


async def test_an_idle_connection_that_died_costs_no_try() -> None:
    async def answer(_: Said) -> bytes | None:
        return None if len(one.requests) == 2 else WHOLE

    async with provider(answer) as one, Calls() as calls:
        for _ in range(2):
            call, events = await collect(calls, upstream(one.url, retries=0))
            assert text_of(events) == "hello"
        assert (call.attempts, len(one.requests), one.connections) == (2, 3, 2)


async def test_a_new_connection_that_dies_costs_one() -> None:
    async with provider(answers(None)) as one, Calls() as calls:
        _, events = await collect(calls, upstream(one.url, retries=0))
        assert failure_of(events).code == "upstream-unreachable"
        assert len(one.requests) == 1


async def test_an_upstream_with_no_place_is_passed_over() -> None:
    async def wait(asked: Said) -> bytes | None:
        await asked.gone()
        return None

    async with provider(wait) as first, provider(answers(WHOLE)) as second, Calls() as calls:
        full = upstream(first.url, max_concurrent=1, max_waiting=0)
        waiting = asyncio.create_task(calls.ask(request(), [full]))
        while not first.requests:
            await asyncio.sleep(0.001)
        call, _ = await collect(calls, full, upstream(second.url, name="two"))
        assert call.upstream == "two"
        with pytest.raises(UpstreamBusy):
            await calls.ask(request(), [full])
        waiting.cancel()
        await asyncio.wait([waiting])
        assert calls.slots(full).free == 1


@pytest.mark.parametrize(
    "dialect", ["openai-chat", "openai-responses", "anthropic-messages", "gemini", "bedrock"]
)
async def test_an_error_first_is_tried_again_in_every_dialect(dialect: str) -> None:
    async with RecordedUpstream() as recorded, Calls() as calls:
        base = f"{recorded.url}/v1" if dialect.startswith("openai") else recorded.url
        settings = upstream(recorded.url, dialect=dialect, base_url=base, retries=2)
        asked = request("built-in:granite:0?tokens_per_s=0&error_after=0&fail_times=2")
        call, events = await collect(calls, settings, asked=asked)
        assert call.attempts == 3
        assert text_of(events)
        assert call.failure is None


async def test_attempts_are_told_as_they_are_decided() -> None:
    told: list[tuple[str, int | None]] = []

    def note(settings: UpstreamSettings, failure: Failure | None) -> None:
        told.append((settings.name, failure and failure.status))

    async with (
        provider(answers(refused(503, NOW))) as first,
        provider(answers(WHOLE)) as second,
        Calls() as calls,
    ):
        await collect(
            calls,
            upstream(first.url, retries=1),
            upstream(second.url, name="two"),
            on_attempt=note,
        )
    assert told == [("one", 503), ("one", 503), ("two", None)]
