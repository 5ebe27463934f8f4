"""What goes wrong before anything was said is an HTTP error in the dialect's own shape, with the
right status; what goes wrong under way ends the stream as the dialect has it."""

from __future__ import annotations

import json

import pytest

from gateway.gateways import PATHS, WHOLE, gateway, model, shown
from raw_http import Answer, ask, connect

STREAMED = tuple(dialect for dialect in PATHS if dialect != "native")


def told(dialect: str, answer: Answer) -> tuple[str, str]:
    """The message and the kind of an error, as the dialect's client finds them."""
    match dialect:
        case "openai-chat" | "openai-responses":
            error = answer.json["error"]
            return error["message"], error["code"]
        case "anthropic-messages":
            assert answer.json["type"] == "error"
            error = answer.json["error"]
            return error["message"], error["type"]
        case "vercel":
            return answer.body.decode(), ""
        case "agui":
            return answer.json["message"], answer.json["code"]
        case _:
            assert answer["content-type"] == "application/problem+json"
            return answer.json["detail"], answer.json["code"]


@pytest.mark.parametrize("dialect", PATHS)
async def test_an_unknown_model_is_404(dialect: str) -> None:
    async with gateway() as running:
        answer = await running.create(dialect, "nobody-1")
        message, kind = told(dialect, answer)
        assert answer.status == 404
        assert "nobody-1" in message
        assert kind in ("model-unknown", "not_found_error", "")
        assert not running.answers()


@pytest.mark.parametrize("dialect", PATHS)
async def test_a_body_that_is_no_request_is_400_and_says_where(dialect: str) -> None:
    async with gateway() as running:
        path = PATHS[dialect]
        for raw, words in (
            (b"", "JSON"),
            (b"{", "JSON"),
            (b"[]", "object"),
            (b"\xff{}", "UTF-8"),
            (b'{"a":' * 500 + b"1" + b"}" * 500, "nested"),
            (b"{}", "missing"),
        ):
            answer = await ask(running.port, "POST", path, {}, raw)
            assert answer.status == 400, (raw, answer)
            assert words in told(dialect, answer)[0], (raw, answer.body)
        wrong = {"openai-responses": {"input": 7}}.get(dialect, {"messages": 7})
        answer = await running.create(dialect, model(), **wrong)
        assert answer.status == 400
        assert next(iter(wrong)) in told(dialect, answer)[0]


@pytest.mark.parametrize("dialect", PATHS)
async def test_a_body_that_is_too_large_is_413_before_it_was_sent(dialect: str) -> None:
    async with gateway() as running, connect(running.port) as connection:
        headers = {"Content-Length": str(33 * 1024 * 1024)}
        await connection.send("POST", PATHS[dialect], headers)
        head = await connection.head("POST")
        answer = Answer(head.status, head.headers, await connection.body())
        assert answer.status == 413
        assert told(dialect, answer)


async def test_a_body_that_grows_too_large_is_413() -> None:
    async with gateway() as running, connect(running.port) as connection:
        await connection.send("POST", PATHS["openai-chat"], {"Transfer-Encoding": "chunked"})
        piece = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
        for _ in range(33):
            await connection.send_raw(piece)
        assert (await connection.head("POST")).status == 413


@pytest.mark.parametrize("dialect", PATHS)
async def test_a_refused_key_is_401(dialect: str) -> None:
    keys = {"keys": {"alice": {"secret": "sk-alice"}}}
    async with gateway(**keys) as running:
        for headers in ({}, {"Authorization": "Bearer sk-bob"}, {"x-api-key": "sk-bob"}):
            answer = await running.create(dialect, model(), headers=headers)
            assert answer.status == 401
            assert answer["www-authenticate"] == "Bearer"
            assert "key" in told(dialect, answer)[0]
            assert "sk-bob" not in answer.body.decode()
        for headers in (
            {"Authorization": "Bearer sk-alice"},
            {"x-api-key": "sk-alice"},
            {"api-key": "sk-alice"},
        ):
            assert (await running.create(dialect, model(), headers=headers)).status == 200


@pytest.mark.parametrize("dialect", PATHS)
async def test_a_provider_s_status_goes_through(dialect: str) -> None:
    async with gateway() as running:
        for status in (400, 401, 403, 429, 500, 503, 529):
            for stream in (True, False) if dialect in WHOLE else (True,):
                answer = await running.create(dialect, model(f"status={status}"), stream=stream)
                assert answer.status == status
                assert answer["penstock-stream"].startswith("answers/")
                if stream or dialect != "native":
                    assert told(dialect, answer)[0]
                else:
                    assert answer.json["failure"]["message"]


@pytest.mark.parametrize("dialect", PATHS)
async def test_a_provider_that_is_not_there_is_502(dialect: str) -> None:
    away = {
        "dialect": "openai-chat",
        "base_url": "http://127.0.0.1:1/v1",
        "models": ["away"],
        "retries": 0,
    }
    async with gateway(upstreams={"away": away}) as running:
        answer = await running.create(dialect, "away")
        assert answer.status == 502
        assert told(dialect, answer)[0]


@pytest.mark.parametrize("dialect", STREAMED)
@pytest.mark.parametrize("knobs", ["error_after=9", "cut_after=9", "cut_after=9&cut=clean"])
async def test_what_breaks_under_way_ends_as_the_dialect_has_it(dialect: str, knobs: str) -> None:
    async with gateway() as running:
        answer = await running.create(dialect, model(f"tokens_per_s=0&{knobs}"))
        assert answer.status == 200
        said = shown(dialect, answer.body)
        assert said.end == "failed"
        assert said.text
        assert (await running.answer()).end == "failed"


@pytest.mark.parametrize("dialect", WHOLE)
async def test_a_whole_answer_that_broke_is_an_error(dialect: str) -> None:
    async with gateway() as running:
        answer = await running.create(dialect, model("tokens_per_s=0&cut_after=9"), stream=False)
        assert answer.status == 502


@pytest.mark.parametrize("dialect", PATHS)
async def test_a_server_that_goes_away_says_when_to_come_back(dialect: str) -> None:
    async with gateway() as running:
        running.hub.is_draining = True
        answer = await running.create(dialect, model())
        assert answer.status == 503
        assert int(answer["retry-after"]) > 0
        assert told(dialect, answer)[0]


async def test_who_waits_for_a_whole_answer_is_told_of_a_drain() -> None:
    async with gateway() as running, connect(running.port) as connection:
        slow = json.dumps(
            {"model": model("first_token_s=60"), "messages": [{"role": "user", "content": "a"}]}
        ).encode()
        await connection.send("POST", PATHS["openai-chat"], {}, slow)
        answer = await running.answer()
        await running.provider.logged("start")
        await running.hub.drain()
        head = await connection.head("POST")
        assert head.status == 503
        assert "retry-after" in head
        assert answer.end is None


@pytest.mark.parametrize("dialect", PATHS)
async def test_a_budget_that_is_used_up_is_429_and_not_tried_again_at_once(dialect: str) -> None:
    async with gateway(budgets={"all": {"output_tokens": 1}}) as running:
        first = await running.create(dialect, model())
        assert first.status == 200
        answer = await running.create(dialect, model())
        assert answer.status == 429
        assert int(answer["retry-after"]) > 0
        assert answer["x-should-retry"] == "false"
        assert "budget" in told(dialect, answer)[0]


async def test_an_anthropic_client_that_counts_tokens_is_told_in_its_own_words() -> None:
    async with gateway() as running:
        answer = await running.post("/v1/messages/count_tokens", {"model": model()})
        assert answer.status == 404
        assert answer.json["error"]["type"] == "not_found_error"


async def test_no_word_of_a_prompt_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with gateway() as running:
        secret = "the-secret-word"
        for knobs in ("tokens_per_s=0", "status=500", "tokens_per_s=0&cut_after=9"):
            for dialect in PATHS:
                said = {"messages": [{"role": "user", "content": secret}], "input": secret}
                name = "input" if dialect == "openai-responses" else "messages"
                if dialect in ("vercel", "agui"):
                    continue
                await running.create(dialect, model(knobs), **{name: said[name]})
    assert secret not in caplog.text


async def test_what_fails_here_is_told_without_its_insides(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with gateway() as running:

        async def broken(*_: object, **__: object) -> None:
            raise RuntimeError("an inside")

        monkeypatch.setattr(running.app.answers, "start", broken)
        for dialect in PATHS:
            answer = await running.create(dialect, model())
            assert answer.status == 500
            assert b"inside" not in answer.body
            assert told(dialect, answer)[0]
    assert "an inside" in caplog.text


async def test_a_body_that_does_not_come_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("penstock.gateway.endpoints.asking.BODY_S", 0.1)
    async with gateway() as running, connect(running.port) as connection:
        await connection.send("POST", PATHS["openai-chat"], {"Content-Length": "9"})
        await connection.send_raw(b"{")
        head = await connection.head("POST")
        answer = Answer(head.status, head.headers, await connection.body())
        assert answer.status == 400
        assert "within 0.1 s" in told("openai-chat", answer)[0]


async def test_a_client_that_leaves_before_it_asked_leaves_nothing() -> None:
    async with gateway() as running:
        async with connect(running.port) as connection:
            await connection.send("POST", PATHS["openai-chat"], {"Content-Length": "9"})
            await connection.send_raw(b"{")
            connection.hang_up()
        assert (await running.create("openai-chat", model())).status == 200
        assert await running.calls() == 1
