"""The same request under the same key is one answer and one call; an answer is read again by
anybody, from any event of it."""

from __future__ import annotations

import asyncio
import json
import re

import pytest

from gateway.gateways import PATHS, TEXT, body, gateway, model, shown, until
from raw_http import EventReader, connect, events

KEY = {"Idempotency-Key": "k1"}
STREAMED = tuple(dialect for dialect in PATHS if dialect != "native")


def without_retry(body: bytes) -> bytes:
    """A body without the reconnection time, which is drawn for each reader."""
    return re.sub(rb"\A: penstock\n\nretry: \d+\n\n", b"", body)


@pytest.mark.parametrize("dialect", PATHS)
async def test_the_same_request_under_the_same_key_joins(dialect: str) -> None:
    async with gateway() as running:
        slow = model("tokens_per_s=0&stall_after=6&stall_s=0.3")
        both = await asyncio.gather(
            running.create(dialect, slow, headers=KEY), running.create(dialect, slow, headers=KEY)
        )
        late = await running.create(dialect, slow, headers=KEY)
        assert sorted("penstock-joined" in answer for answer in both) == [False, True]
        assert late["penstock-joined"] == "true"
        assert len({answer["penstock-stream"] for answer in (*both, late)}) == 1
        assert len({without_retry(answer.body) for answer in (*both, late)}) == 1
        assert await running.calls() == 1


@pytest.mark.parametrize("dialect", PATHS)
async def test_another_request_under_the_same_key_is_422(dialect: str) -> None:
    async with gateway() as running:
        await running.create(dialect, model(), headers=KEY)
        answer = await running.create(dialect, model("tokens_per_s=0&burst=2"), headers=KEY)
        assert answer.status == 422
        assert await running.calls() == 1


async def test_a_key_is_its_caller_s() -> None:
    async with gateway() as running:
        for credential in ("alice", "bob"):
            headers = {**KEY, "Authorization": f"Bearer {credential}"}
            answer = await running.create("openai-chat", model(), headers=headers)
            assert "penstock-joined" not in answer
        assert await running.calls() == 2


async def test_a_whole_answer_can_be_joined_too() -> None:
    async with gateway() as running:
        asked = [
            running.create(
                "openai-chat", model("tokens_per_s=0&first_token_s=0.2"), stream=False, headers=KEY
            )
            for _ in range(2)
        ]
        first, second = await asyncio.gather(*asked)
        assert first.body == second.body
        assert await running.calls() == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb"])
async def test_a_key_that_is_none_is_400(key: str) -> None:
    async with gateway() as running:
        answer = await running.create("openai-chat", model(), headers={"Idempotency-Key": key})
        assert answer.status == 400


@pytest.mark.parametrize("dialect", STREAMED)
async def test_a_reader_that_is_killed_at_any_event_finds_the_same_answer(dialect: str) -> None:
    async with gateway() as running:
        slow = model("tokens_per_s=3000")
        asked = json.dumps(body(dialect, slow)).encode()
        kept = await running.create(dialect, model(), headers={"Idempotency-Key": "whole"})
        count = kept.body.count(b"\n\n")
        for cut in sorted({1, 2, 3, count // 2, count - 1}):
            headers = {"Idempotency-Key": f"cut-{cut}"}
            async with connect(running.port) as connection:
                await connection.send("POST", PATHS[dialect], headers, asked)
                reader = EventReader(connection, await connection.head("POST"))
                while reader.raw.count(b"\n\n") < cut:
                    assert await reader.more()
                connection.hang_up()
            again = await running.create(dialect, slow, headers=headers)
            # The bytes that were there before the cut are those of whoever comes back.
            assert again.body.startswith(reader.raw)
            assert shown(dialect, again.body).text == TEXT
        assert await running.calls() == 1 + len({1, 2, 3, count // 2, count - 1})


async def test_two_devices_read_an_answer_that_runs() -> None:
    async with gateway() as running:
        slow = model("tokens_per_s=0&stall_after=20&stall_s=0.3")
        asked = json.dumps(body("openai-chat", slow)).encode()
        async with connect(running.port) as first:
            await first.send("POST", PATHS["openai-chat"], {}, asked)
            head = await first.head("POST")
            path = f"/v1/stream/{head['penstock-stream']}"
            async with events(running.port, f"{path}?dialect=openai-chat") as second:
                await second.rest()
            assert second.raw == await first.body()
        await until(lambda: running.answers()[0].end is not None)
        assert await running.calls() == 1


async def test_a_whole_answer_s_reader_may_come_back_for_it() -> None:
    async with gateway() as running:
        slow = model("tokens_per_s=0&first_token_s=0.3")
        asked = json.dumps(body("anthropic-messages", slow, stream=False)).encode()
        async with connect(running.port) as connection:
            await connection.send("POST", PATHS["anthropic-messages"], KEY, asked)
            await running.answer()
            connection.hang_up()
        answer = await running.create("anthropic-messages", slow, stream=False, headers=KEY)
        assert answer.json["content"][0]["text"] == TEXT
        assert answer["penstock-joined"] == "true"


async def test_an_answer_that_failed_is_asked_for_again_under_its_key() -> None:
    async with gateway() as running:
        moody = model("tokens_per_s=0&fail_times=1&status=503")
        first = await running.create("openai-chat", moody, headers=KEY)
        assert first.status == 503
        again = await running.create("openai-chat", moody, headers=KEY)
        assert again.status == 200
        assert shown("openai-chat", again.body).text == TEXT
        assert "penstock-joined" not in again
