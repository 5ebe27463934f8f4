"""Whatever a provider sends, a call's events end: with a `Failure` that can be shown to anybody."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
from typing import Any

import pytest

from gateway.providers import (
    DONE,
    HEAD,
    KEY,
    LAST,
    STOP,
    WHOLE,
    Said,
    answers,
    chunk,
    collect,
    drain,
    event,
    failure_of,
    provider,
    request,
    response,
    said,
    text_of,
    upstream,
)
from penstock.gateway.calls import Calls
from penstock.llm.ask.dialects import WRITERS
from penstock.llm.events import Failure, Stop

SSE = "Content-Type: text/event-stream"
PAGE = b"<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body>x</body></html>"

GARBAGE: dict[str, tuple[bytes, str]] = {
    "no http": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "upstream-malformed"),
    "a status that is none": (b"HTTP/1.1 abc X\r\n\r\n", "upstream-malformed"),
    "a header without end": (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000, "upstream-malformed"),
    "a chunk without size": (HEAD + b"zz\r\ndata\r\n", "upstream-"),
    "a chunk without end": (HEAD + b"5\r\nhelloWORLD\r\n", "upstream-"),
    "a body of zeros": (response(200, b"\0" * 5000, SSE), "upstream-truncated"),
    "noise": (response(200, random.Random(3).randbytes(9000), SSE), "upstream-truncated"),
    "no JSON": (response(200, b"data: {]\n\n", SSE), "upstream-malformed"),
    "JSON that is deep": (response(200, b"data: " + b"[" * 99999 + b"\n\n", SSE), "upstream-"),
    "JSON in the place of a stream": (
        response(200, b'{"choices": []}', "Content-Type: application/json"),
        "upstream-malformed",
    ),
    "a page": (response(200, PAGE, "Content-Type: text/html; charset=utf-8"), "upstream-malformed"),
    "compressed": (
        response(200, gzip.compress(b"data: x\n\n"), SSE, "Content-Encoding: gzip"),
        "upstream-malformed",
    ),
    "nothing": (b"HTTP/1.1 204 No Content\r\n\r\n", "upstream-truncated"),
    "only comments": (response(200, b": hi\n\n" * 100, SSE), "upstream-truncated"),
    "too short": (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\ndata", "upstream-truncated"),
    "two lengths": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\ndata",
        "upstream-malformed",
    ),
}


@pytest.mark.parametrize("what", GARBAGE)
async def test_garbage_is_a_failure(what: str) -> None:
    sent, code = GARBAGE[what]

    async def answer(asked: Said) -> bytes | None:
        asked.writer.write(sent)
        await asked.writer.drain()
        asked.writer.write_eof()
        await asked.gone()
        return None

    async with provider(answer) as one, Calls() as calls:
        _, events = await collect(calls, upstream(one.url))
        assert failure_of(events).code.startswith(code)
        assert calls.running == 0


@pytest.mark.parametrize("what", ["no http", "a chunk without size", "a chunk without end"])
async def test_garbage_ends_the_call_also_where_the_connection_stays(what: str) -> None:
    async with provider(answers(GARBAGE[what][0])) as one, Calls() as calls:
        _, events = await collect(calls, upstream(one.url))
        assert failure_of(events).code.startswith("upstream-")


@pytest.mark.parametrize("is_closed", [True, False])
@pytest.mark.parametrize("broken", [b"zz\r\ndata\r\n", b"5\r\nhelloWORLD\r\n", b"\0\0\0"])
async def test_garbage_after_content_ends_the_call_too(broken: bytes, is_closed: bool) -> None:
    begun = asyncio.Event()

    async def answer(asked: Said) -> bytes | None:
        asked.writer.write(HEAD + chunk(said("hello")))
        await begun.wait()
        asked.writer.write(broken)
        if not is_closed:
            await asked.gone()
        return None

    async with provider(answer) as one, Calls() as calls:
        call = await calls.ask(request(), [upstream(one.url)])
        assert text_of(list(await call.read())) == "hello"
        begun.set()
        events = await drain(call)
        assert failure_of(events).code == "upstream-truncated"
        assert calls.running == 0


@pytest.mark.parametrize("dialect", WRITERS)
@pytest.mark.parametrize("seed", range(3))
async def test_noise_is_a_failure_in_every_dialect(dialect: str, seed: int) -> None:
    noise = random.Random(seed).randbytes(3000)
    async with provider(answers(response(200, noise, SSE))) as one, Calls() as calls:
        _, events = await collect(calls, upstream(one.url, dialect=dialect, base_url=one.url))
        assert isinstance(events[-1], Failure), f"seed {seed}"


async def test_an_event_without_end_is_bounded() -> None:
    async def answer(asked: Said) -> bytes | None:
        asked.writer.write(HEAD + chunk(said("hello")) + chunk(b"data: "))
        while not asked.writer.transport.is_closing():
            asked.writer.write(chunk(b"x" * 65536))
            await asked.writer.drain()
        return None

    async with provider(answer) as one, Calls() as calls:
        _, events = await collect(calls, upstream(one.url))
        assert text_of(events) == "hello"
        assert failure_of(events).code == "upstream-malformed"


async def test_a_start_without_content_is_not_held_back_for_ever() -> None:
    """What is held before the first content is bounded in number."""
    sources = event({"id": "a", "choices": [], "citations": ["x"]})

    async def answer(asked: Said) -> bytes | None:
        place = 0
        while not asked.writer.transport.is_closing():
            place += 1
            asked.writer.write(chunk(sources.replace(b'"x"', b'"x%d"' % place)))
            await asked.writer.drain()
        return None

    async def whole(asked: Said) -> bytes | None:
        asked.writer.write(HEAD)
        return await answer(asked)

    async with provider(whole) as one, Calls() as calls, asyncio.timeout(15):
        call = await calls.ask(request(), [upstream(one.url)])
        assert await call.read()
        call.abort()


ERRORS: dict[str, tuple[str, bytes, list[str], str, str]] = {
    "OpenAI": (
        "openai-chat",
        b'{"error": {"message": "no such model", "type": "t", "code": "model_not_found"}}',
        [],
        "no such model",
        "model_not_found",
    ),
    "Azure": (
        "azure",
        b'{"error": {"code": "DeploymentNotFound", "message": "no deployment"}}',
        [],
        "no deployment",
        "DeploymentNotFound",
    ),
    "Anthropic": (
        "anthropic-messages",
        b'{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}',
        [],
        "Overloaded",
        "overloaded_error",
    ),
    "Gemini": (
        "gemini",
        b'[{"error": {"code": 400, "message": "bad key", "status": "INVALID_ARGUMENT"}}]',
        [],
        "bad key",
        "INVALID_ARGUMENT",
    ),
    "AWS": (
        "bedrock",
        b'{"message": "Too many requests"}',
        ["x-amzn-ErrorType: ThrottlingException:http://internal.amazon.com/coral/"],
        "Too many requests",
        "ThrottlingException",
    ),
    "AWS, signing": (
        "bedrock",
        b'{"Message": "The security token is invalid"}',
        ["x-amzn-ErrorType: UnrecognizedClientException"],
        "The security token is invalid",
        "UnrecognizedClientException",
    ),
    "Cohere": ("cohere", b'{"message": "invalid api token"}', [], "invalid api token", ""),
    "Ollama": ("ollama", b'{"error": "model \'x\' not found"}', [], "model 'x' not found", ""),
    "vLLM": (
        "vllm",
        b'{"object": "error", "message": "too long", "type": "BadRequestError", "code": 400}',
        [],
        "too long",
        "BadRequestError",
    ),
    "FastAPI": ("vllm", b'{"detail": "Not Found"}', [], "Not Found", ""),
    "Mistral": (
        "mistral",
        b'{"object": "error", "message": {"detail": [{"msg": "field required"}]}}',
        [],
        "",
        "",
    ),
    "a page": ("openai-chat", PAGE, ["Content-Type: text/html"], "502 Bad Gateway", ""),
    "plain text": ("openai-chat", b"upstream connect error\n", [], "upstream connect error", ""),
    "a stream": ("vllm", b'data: {"error": {"message": "out of memory"}}\n\n', [], "out of", ""),
    "nothing": ("openai-chat", b"", [], "the provider answered 500", ""),
    "noise": ("openai-chat", b"<\xff\xfe\x00>", [], "the provider answered 500", ""),
    "compressed": (
        "openai-chat",
        gzip.compress(b"x"),
        ["Content-Encoding: gzip"],
        "the provider answered 500",
        "",
    ),
    "controls": (
        "openai-chat",
        b'{"error": {"message": "one\\r\\ntwo\\u001b[31m \\u202e\\u0000three", "type": "a\\nb"}}',
        [],
        "one  two [31m   three",
        "a b",
    ),
}


@pytest.mark.parametrize("what", ERRORS)
async def test_the_provider_s_own_sentence_and_word_are_given(what: str) -> None:
    dialect, body, headers, sentence, word = ERRORS[what]
    async with provider(answers(response(500, body, *headers))) as one, Calls() as calls:
        settings = upstream(one.url, dialect=dialect, base_url=one.url)
        _, events = await collect(calls, settings)
        failure = failure_of(events)
        assert failure.status == 500
        assert failure.message.startswith(sentence)
        assert failure.message
        assert failure.code == (word or "upstream-failed")


async def test_an_error_s_body_is_bounded_in_length_and_time() -> None:
    async def endless(asked: Said) -> bytes | None:
        asked.writer.write(b"HTTP/1.1 500 X\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not asked.writer.transport.is_closing():
            asked.writer.write(chunk(b"x" * 65536))
            await asked.writer.drain()
        return None

    async with provider(endless) as one, Calls() as calls:
        _, events = await collect(calls, upstream(one.url))
        assert len(failure_of(events).message) <= 1000
        assert failure_of(events).status == 500


async def test_an_error_whose_body_does_not_come_is_its_status(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("penstock.gateway.call.ERROR_BODY_S", 0.05)

    async def slow(asked: Said) -> bytes | None:
        asked.writer.write(b"HTTP/1.1 503 X\r\nContent-Length: 99\r\n\r\n{")
        await asked.gone()
        return None

    async with provider(slow) as one, Calls() as calls:
        _, events = await collect(calls, upstream(one.url))
        assert failure_of(events).status == 503


def quoting(where: str, quoted: str) -> bytes:
    told: dict[str, Any] = {"error": {"message": f"wrong key {quoted} sent", "type": quoted}}
    match where:
        case "status":
            return response(401, json.dumps(told).encode())
        case "text":
            return response(401, f"wrong key {quoted}".encode())
        case "page":
            return response(401, f"<title>wrong key {quoted}</title>".encode())
        case "header":
            return response(401, b"{}", f"x-amzn-ErrorType: wrong key {quoted}")
        case "reason":
            return f"HTTP/1.1 401 wrong key {quoted}\r\nContent-Length: 0\r\n\r\n".encode()
        case "stream":
            return HEAD + chunk(event(told)) + LAST
        case _:
            return HEAD + chunk(said("hi")) + chunk(event(told)) + LAST


@pytest.mark.parametrize(
    "where", ["status", "text", "page", "header", "reason", "stream", "mid-stream"]
)
@pytest.mark.parametrize("secret", ["key", "header", "aws"])
async def test_no_secret_is_in_anything_that_is_said(
    where: str, secret: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    more = {
        "key": {},
        "header": {"headers": {"Authorization": f"Bearer {KEY}"}, "api_key": ""},
        "aws": {"secret_access_key": KEY, "access_key_id": "AKID", "api_key": ""},
    }[secret]
    async with provider(answers(quoting(where, KEY))) as one, Calls() as calls:
        settings = upstream(one.url, **more)
        call, events = await collect(calls, settings)
        failure = failure_of(events)
        assert "***" in failure.message + failure.code
        everything = f"{events!r} {call!r} {call.failure!r} {calls!r} {settings!r} {caplog.text}"
        assert KEY not in everything


async def test_what_follows_the_end_is_not_waited_for() -> None:
    async def answer(asked: Said) -> bytes | None:
        asked.writer.write(HEAD + chunk(said("hi") + STOP + DONE))
        await asked.gone()
        return None

    async with provider(answer) as one, Calls() as calls:
        async with asyncio.timeout(0.9):
            _, events = await collect(calls, upstream(one.url))
        assert isinstance(events[-1], Stop)
        assert calls.running == 0
        # The connection is not kept for a body that never ends.
        async with asyncio.timeout(5):
            while one.open:
                await asyncio.sleep(0.01)


async def test_an_answer_that_goes_on_after_its_end_is_cut_off() -> None:
    async def answer(asked: Said) -> bytes | None:
        asked.writer.write(HEAD + chunk(said("hi") + STOP + DONE))
        while not asked.writer.transport.is_closing():
            asked.writer.write(chunk(said("more")))
            await asked.writer.drain()
        return None

    async with provider(answer) as one, Calls() as calls:
        _, events = await collect(calls, upstream(one.url))
        assert text_of(events) == "hi"
        async with asyncio.timeout(5):
            while one.open:
                await asyncio.sleep(0.01)


async def test_a_redirect_is_not_followed_and_a_cookie_not_kept() -> None:
    moved = response(302, b"", "Location: /elsewhere", "Set-Cookie: a=b")
    async with provider(answers(moved, WHOLE)) as one, Calls() as calls:
        await collect(calls, upstream(one.url))
        await collect(calls, upstream(one.url))
        assert [asked.line for asked in one.requests] == ["POST /v1/chat/completions HTTP/1.1"] * 2
        assert "cookie" not in one.requests[1].headers
