"""No word of a prompt or an answer, and no key, is in logs, problems, metrics or usage records, at
the log level that says most, whatever goes wrong."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gateway.gateways import PATHS, TEXT, Running, body, gateway, model, until
from gateway.providers import KEY, Provider, Said, provider, response
from penstock import Hub
from penstock.gateway.answers import Answers
from penstock.gateway.app import GatewayApp
from penstock.gateway.config import read_config
from penstock.llm.events import TokenEvent
from raw_http import Answer, ask, connect
from running_servers import in_process

PROMPT = "the-plum-is-purple"
CLIENT, OTHER, IDEMPOTENCY = "sk-client-5550123456", "sk-other-5550123456", "order-5550123456"
KEYS = {"app": {"secret": CLIENT, "user": "anna"}, "other": {"secret": OTHER, "models": ["sky-1"]}}
# Two long words of the answer that stand together: less may stand anywhere.
ANSWER = [" ".join(pair) for pair in pairwise(TEXT.split()) if min(map(len, pair)) > 4]
HIDDEN = (PROMPT, CLIENT, OTHER, IDEMPOTENCY, KEY)


def says(text: str) -> list[str]:
    """What a text says that it must not."""
    return [hidden for hidden in (*HIDDEN, *ANSWER) if hidden in text]


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    for name in ("penstock", "uvicorn", "uvicorn.access", "aiohttp", "asyncio"):
        caplog.set_level(logging.DEBUG, logger=name)
    return caplog


def printed(logged: pytest.LogCaptureFixture) -> str:
    """Everything that was logged, as a handler writes it: with tracebacks, and names of loggers.

    Not the access log of uvicorn's own: it is uvicorn's to switch off, and has addresses alone.
    """
    write = logging.Formatter("%(name)s %(message)s").format
    return "\n".join(map(write, logged.records))


def question(dialect: str, name: str, **more: Any) -> dict[str, Any]:
    text = json.dumps(body(dialect, name, **more)).replace("Why is the sky blue?", PROMPT)
    found: dict[str, Any] = json.loads(text)
    assert PROMPT in text
    return found


async def post(
    running: Running, dialect: str, name: str, key: str = CLIENT, *, idem: str = "", **more: Any
) -> Answer:
    headers = {"Authorization": f"Bearer {key}"} | ({"Idempotency-Key": idem} if idem else {})
    return await running.post(PATHS[dialect], question(dialect, name, **more), headers)


async def told_elsewhere(running: Running) -> str:
    """Metrics, usage records, and lists of what there is."""
    found = [await running.get(path) for path in ("/metrics", "/v1/usage", "/healthz")]
    assert [answer.status for answer in found] == [200, 200, 200]
    usage = await (await running.hub.get("__penstock/usage")).records()
    return "".join(answer.body.decode() for answer in found) + "".join(
        record.payload.decode() for record in usage
    )


@pytest.mark.parametrize("dialect", PATHS)
async def test_answers_are_in_no_log(dialect: str, logged: pytest.LogCaptureFixture) -> None:
    async with gateway(keys=KEYS, budgets={"answer": {"output_tokens": 400}}) as running:
        for knobs in (
            "tokens_per_s=0",
            "tokens_per_s=0&cut_after=90",
            "tokens_per_s=0&error_after=90",
            "tokens_per_s=0&error_after=90&error=garbage",
            "tokens_per_s=0&obeys_limit=0",
            "status=401",
            "status=500&error=garbage",
        ):
            answer = await post(running, dialect, model(knobs))
            assert (answer.status == 200) == knobs.startswith("tokens")
        for stream in running.answers():
            await until(lambda: stream.end is not None and not stream.is_produced)  # noqa: B023
        elsewhere = await told_elsewhere(running)
    assert not says(printed(logged))
    assert not says(elsewhere)
    # It was worth looking: something was logged of each answer.
    assert printed(logged).count('"request"') == 7


@pytest.mark.parametrize("dialect", PATHS)
async def test_refusals_say_nothing(dialect: str, logged: pytest.LogCaptureFixture) -> None:
    async with gateway(keys=KEYS, budgets={"user": {"output_tokens": 460}}) as running:
        kept = await post(running, dialect, model(), idem=IDEMPOTENCY)
        assert kept.status == 200
        refused = [
            (401, await post(running, dialect, model(), f"{OTHER}x")),
            (404, await post(running, dialect, model(), OTHER)),
            (404, await post(running, dialect, "nobody-1")),
            (422, await post(running, dialect, model("burst=2"), idem=IDEMPOTENCY)),
            (429, await post(running, dialect, model())),
            (400, await ask_raw(running, dialect, f'{{"messages": "{PROMPT}"')),
            (400, await ask_raw(running, dialect, json.dumps({"model": {PROMPT: 1}}))),
        ]
        for status, answer in refused:
            assert answer.status == status, answer
            assert not says(answer.body.decode()), answer
            assert not says(str(answer.headers)), answer
        elsewhere = await told_elsewhere(running)
    assert not says(printed(logged) + elsewhere)


async def ask_raw(running: Running, dialect: str, text: str) -> Answer:
    headers = {"x-api-key": CLIENT}
    return await ask(running.port, "POST", PATHS[dialect], headers, text.encode())


async def test_an_answer_that_is_left_or_cancelled_is_in_no_log(
    logged: pytest.LogCaptureFixture,
) -> None:
    async with gateway(keys=KEYS) as running:
        slow = model("tokens_per_s=0&stall_after=200&stall_s=60")
        headers = {"Authorization": f"Bearer {CLIENT}", "Idempotency-Key": IDEMPOTENCY}
        asked = json.dumps(question("openai-chat", slow)).encode()
        async with connect(running.port) as connection:
            await connection.send("POST", PATHS["openai-chat"], headers, asked)
            answer = await running.answer()
            await answer.wait(150)
            connection.hang_up()
        await running.post("/v1/answers/cancel", None, headers)
        await until(lambda: not answer.is_produced)
        assert answer.end == "cancelled"
        elsewhere = await told_elsewhere(running)
    assert not says(printed(logged) + elsewhere)


def broken(event: TokenEvent) -> None:
    raise RuntimeError(f"cannot stand {event}")


@pytest.mark.parametrize("is_whole", [True, False])
async def test_a_filter_that_raises_what_it_read_is_not_quoted(
    logged: pytest.LogCaptureFixture, *, is_whole: bool
) -> None:
    async with provider(hello) as one, configured(one, broken=broken) as port:
        asked = question("openai-chat", "m", stream=not is_whole)
        answer = await ask(port, "POST", PATHS["openai-chat"], {}, json.dumps(asked).encode())
        assert answer.status == 500
        assert b"secret-answer" not in answer.body
    assert "RuntimeError" in printed(logged)
    assert "secret-answer" not in printed(logged)
    assert not says(printed(logged))


async def hello(request: Said) -> bytes:
    chunk = {"id": "a", "choices": [{"index": 0, "delta": {"content": "secret-answer"}}]}
    data = b"data: " + json.dumps(chunk).encode() + b"\n\ndata: [DONE]\n\n"
    return response(200, data, "Content-Type: text/event-stream")


async def quoting(request: Said) -> bytes:
    """A provider that says back what it was asked, key and all, as some do."""
    message = f"not {request.headers['authorization']} for {request.body.decode()}"
    return response(400, json.dumps({"error": {"message": message}}).encode())


@asynccontextmanager
async def configured(one: Provider, **functions: Any) -> AsyncGenerator[int]:
    upstream = {"dialect": "openai-chat", "base_url": one.url, "api_key": KEY, "retries": 0}
    tables = {"upstreams": {"main": upstream}, "filters": [{"kind": name} for name in functions]}
    config = read_config(tables, environment={}, functions=functions)
    assert config is not None
    hub = Hub()
    app = GatewayApp(hub, Answers(hub, config))
    async with in_process(app, is_fast=True) as port:
        yield port


async def test_a_provider_that_quotes_everything_tells_its_caller_and_no_log(
    logged: pytest.LogCaptureFixture,
) -> None:
    async with provider(quoting) as one, configured(one) as port:
        for dialect in PATHS:
            asked = json.dumps(question(dialect, "m")).encode()
            answer = await ask(port, "POST", PATHS[dialect], {}, asked)
            assert answer.status == 400
            # What was wrong with the question is for who asked it; the key is for nobody.
            assert PROMPT in answer.body.decode()
            assert KEY not in answer.body.decode()
            assert "***" in answer.body.decode()
        metrics = (await ask(port, "GET", "/metrics")).body.decode()
    assert not says(printed(logged) + metrics)


async def test_the_store_has_no_key(tmp_path: Path, logged: pytest.LogCaptureFixture) -> None:
    store = tmp_path / "streams.db"
    async with gateway(keys=KEYS, hub={"backend": f"sqlite:///{store}"}) as running:
        for dialect in PATHS:
            answer = await post(running, dialect, model(), idem=IDEMPOTENCY)
            assert answer.status == 200 if dialect == "openai-chat" else 422
        await until(lambda: not any(one.is_produced for one in running.answers()))
    files = b"".join(each.read_bytes() for each in tmp_path.iterdir())
    assert TEXT.split()[0].encode() in files
    # Nor what was asked: an answer's stream has the answer alone.
    assert not [hidden for hidden in HIDDEN if hidden.encode() in files]
    assert not says(printed(logged))


def test_values_that_hold_a_secret_do_not_show_it() -> None:
    upstream = {"dialect": "openai-chat", "base_url": "http://127.0.0.1:1", "api_key": KEY}
    upstream |= {"headers": {"X-Extra": f"Token {KEY}"}}
    config = read_config({"upstreams": {"main": upstream}, "keys": KEYS}, environment={})
    assert config is not None
    hub = Hub()
    answers = Answers(hub, config)
    caller = answers.caller({"headers": [(b"authorization", f"Bearer {CLIENT}".encode())]})
    for value in (config, caller, answers, *config.upstreams.values(), *config.keys.values()):
        assert not says(repr(value) + str(value))
