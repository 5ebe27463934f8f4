"""`Calls.ask` asks every dialect as its provider wants to be asked, and reads what it answers."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.providers import (
    KEY,
    WHOLE,
    answers,
    collect,
    drain,
    provider,
    request,
    text_of,
    upstream,
)
from penstock.core.errors import RequestInexpressible
from penstock.gateway.calls import Calls
from penstock.llm.ask.dialects import WRITERS, read_request
from penstock.llm.assemble import Assembler
from penstock.llm.events import Stop
from penstock.testing.recordings import built_in
from penstock.testing.upstream import RecordedUpstream

BASES = {
    "openai-chat": "/v1",
    "openai-responses": "/v1",
    "anthropic-messages": "",
    "gemini": "",
    "bedrock": "",
    "ollama": "",
    "cohere": "",
}


@pytest.mark.parametrize("knobs", ["tokens_per_s=0", "tokens_per_s=0&split_seed=7"])
@pytest.mark.parametrize("dialect", WRITERS)
async def test_each_dialect_s_answer_is_read_whole(dialect: str, knobs: str) -> None:
    async with RecordedUpstream() as recorded, Calls() as calls:
        settings = upstream(recorded.url, dialect=dialect, base_url=recorded.url + BASES[dialect])
        asked = request(f"built-in:granite:0?{knobs}")
        call, events = await collect(calls, settings, asked=asked)
        entry = recorded.log[0]
    assembler = Assembler()
    for event in events:
        assembler.receive_event(event)
    assert assembler.answer().text == built_in("granite").turns[0]
    assert not assembler.answer().is_truncated
    assert call.failure is None
    assert (call.upstream, call.attempts) == ("one", 1)
    assert entry["dialect"] == dialect
    assert entry["has_key"] is True


async def said_to(settings: dict[str, Any], body: dict[str, Any] | None = None) -> Any:
    """The request that an upstream with these settings is sent."""
    async with provider(answers(WHOLE)) as one, Calls() as calls:
        target = upstream(one.url, **{"base_url": one.url, **settings})
        if "{url}" in target.base_url:
            target = upstream(
                one.url, **{**settings, "base_url": target.base_url.format(url=one.url)}
            )
        asked = read_request("openai-chat", body) if body else request("m")
        await collect(calls, target, asked=asked)
        return one.requests[0]


@pytest.mark.parametrize(
    ("dialect", "base", "line", "header"),
    [
        ("openai-chat", "/v1", "/v1/chat/completions", f"authorization: Bearer {KEY}"),
        ("groq", "/openai/v1/", "/openai/v1/chat/completions", f"authorization: Bearer {KEY}"),
        ("openai-responses", "/v1", "/v1/responses", f"authorization: Bearer {KEY}"),
        ("azure", "/openai/v1", "/openai/v1/chat/completions", f"api-key: {KEY}"),
        (
            *("azure", "/openai/deployments/m?api-version=2024-10-21"),
            "/openai/deployments/m/chat/completions?api-version=2024-10-21",
            f"api-key: {KEY}",
        ),
        ("anthropic-messages", "", "/v1/messages", f"x-api-key: {KEY}"),
        (
            *("gemini", "", "/v1beta/models/m:streamGenerateContent?alt=sse"),
            f"x-goog-api-key: {KEY}",
        ),
        (
            *("gemini", "/v1?key=k", "/v1/models/m:streamGenerateContent?key=k&alt=sse"),
            f"x-goog-api-key: {KEY}",
        ),
        ("bedrock", "", "/model/m/converse-stream", f"authorization: Bearer {KEY}"),
        ("cohere", "", "/v2/chat", f"authorization: Bearer {KEY}"),
        ("mistral", "/v1", "/v1/chat/completions", f"authorization: Bearer {KEY}"),
        ("ollama", "/", "/api/chat", f"authorization: Bearer {KEY}"),
    ],
)
async def test_address_and_key_are_where_the_provider_wants_them(
    dialect: str, base: str, line: str, header: str
) -> None:
    sent = await said_to({"dialect": dialect, "base_url": "{url}" + base})
    assert sent.line == f"POST {line} HTTP/1.1"
    name, _, value = header.partition(": ")
    assert sent.headers[name] == value
    assert sum(KEY in value for value in sent.headers.values()) == 1
    assert sent.headers["accept-encoding"] == "identity"
    assert sent.headers["content-type"] == "application/json"
    assert "cookie" not in sent.headers


async def test_a_version_goes_with_anthropic_s_request() -> None:
    sent = await said_to({"dialect": "anthropic-messages"})
    assert sent.headers["anthropic-version"] == "2023-06-01"


async def test_without_a_key_nothing_is_presented() -> None:
    sent = await said_to({"dialect": "ollama", "api_key": ""})
    assert "authorization" not in sent.headers


async def test_an_access_key_signs_for_bedrock_over_the_path_as_it_is_sent() -> None:
    before = datetime.now(UTC)
    sent = await said_to(
        {
            "dialect": "bedrock",
            "api_key": "",
            "access_key_id": "AKIDEXAMPLE",
            "secret_access_key": "a-secret",
            "session_token": "a-token",
            "region": "eu-west-1",
            "rename": {"m": "anthropic.claude-v2:1"},
        }
    )
    from penstock.gateway.sigv4 import AwsKey, sign

    assert sent.line == "POST /model/anthropic.claude-v2%3A1/converse-stream HTTP/1.1"
    key = AwsKey(
        access_key_id="AKIDEXAMPLE",
        secret_access_key="a-secret",
        session_token="a-token",
        region="eu-west-1",
        service="bedrock",
    )
    stamp = datetime.strptime(sent.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    assert (stamp - before).total_seconds() < 60
    signed = {"Host": sent.headers["host"], "Content-Type": "application/json"}
    path = sent.line.split(" ")[1]
    expected = sign(key, "POST", path, "", signed, sent.body, stamp)
    assert sent.headers["authorization"] == expected["Authorization"]
    assert sent.headers["x-amz-security-token"] == "a-token"


async def test_the_settings_headers_and_fields_win() -> None:
    sent = await said_to(
        {
            "dialect": "openai-chat",
            "headers": {
                "AUTHORIZATION": "Custom one",
                "X-Team": "t",
                "host": "elsewhere",
                "Content-Length": "1",
            },
            "extra": {"temperature": 0, "provider": {"order": ["a"]}},
        },
        {"model": "m", "messages": [{"role": "user", "content": "x"}], "temperature": 1},
    )
    assert sent.head.lower().count("authorization:") == 1
    assert sent.headers["authorization"] == "Custom one"
    assert sent.headers["x-team"] == "t"
    assert sent.headers["host"] == "elsewhere"
    assert sent.head.lower().count("host:") == 1
    assert (sent.json["temperature"], sent.json["provider"]) == (0, {"order": ["a"]})


async def test_a_password_in_the_address_is_presented_and_not_part_of_it() -> None:
    async with provider(answers(WHOLE)) as one, Calls() as calls:
        url = one.url.replace("http://", "http://user:p%40ss@")
        await collect(calls, upstream(url, api_key=""))
        assert one.requests[0].headers["authorization"] == "Basic dXNlcjpwQHNz"
        assert one.requests[0].headers["host"] == f"127.0.0.1:{one.port}"


async def test_the_provider_s_name_of_the_model_is_asked_for_and_streaming_always() -> None:
    sent = await said_to(
        {"rename": {"fast": "vendor/fast-1"}},
        {"model": "fast", "messages": [{"role": "user", "content": "x"}], "stream": False},
    )
    assert sent.json["model"] == "vendor/fast-1"
    assert sent.json["stream"] is True
    assert sent.json["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    ("asked", "allowed", "granted", "sent"),
    [
        (None, None, None, None),
        (500, None, None, 500),
        (500, 100, None, 100),
        (500, 100, 30, 30),
        (20, 100, 30, 20),
        (None, None, 30, 30),
    ],
)
async def test_the_lowest_maximum_is_sent(
    asked: int | None, allowed: int | None, granted: int | None, sent: int | None
) -> None:
    async with provider(answers(WHOLE)) as one, Calls() as calls:
        settings = upstream(one.url, max_output_tokens=allowed)
        limits = {} if asked is None else {"max_completion_tokens": asked}
        await collect(calls, settings, asked=request(**limits), max_output_tokens=granted)
        assert one.requests[0].json.get("max_completion_tokens") == sent


async def test_large_requests_go_out_whole() -> None:
    text = "é" * 3_000_000
    async with provider(answers(WHOLE)) as one, Calls() as calls:
        _, events = await collect(calls, upstream(one.url), asked=request(text=text))
        assert text_of(events) == "hello"
        assert json.loads(one.requests[0].body)["messages"][0]["content"] == text


async def test_a_connection_is_used_again_after_a_whole_answer() -> None:
    async with provider(answers(WHOLE)) as one, Calls() as calls:
        for _ in range(5):
            _, events = await collect(calls, upstream(one.url))
            assert text_of(events) == "hello"
        assert len(one.requests) == 5
        assert one.connections == 1


async def test_an_upstream_that_cannot_be_asked_this_is_passed_over() -> None:
    asked = request(logit_bias={"1": 1})
    async with provider(answers(WHOLE)) as one, Calls() as calls:
        cannot = upstream(one.url, name="cannot", dialect="cohere", base_url=one.url)
        call, events = await collect(calls, cannot, upstream(one.url, name="can"), asked=asked)
        assert call.upstream == "can"
        assert isinstance(events[-1], Stop)
        with pytest.raises(RequestInexpressible):
            await calls.ask(asked, [cannot])
        assert len(one.requests) == 1
        assert calls.running == 0


async def test_what_an_upstream_cannot_be_told_is_named() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "seed": 1}
    async with provider(answers(WHOLE)) as one, Calls() as calls:
        settings = upstream(
            one.url,
            dialect="anthropic-messages",
            base_url=one.url,
            may_drop=frozenset({"seed"}),
        )
        call = await calls.ask(read_request("openai-chat", body), [settings])
        assert "seed" in call.left_out
        await drain(call)
