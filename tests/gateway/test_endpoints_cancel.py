"""A hang-up does not cancel; a cancel does, at the provider within a second, whatever the dialect,
streamed or whole, before the first token and after it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from gateway.gateways import PATHS, TEXT, WHOLE, Running, body, gateway, model, until
from raw_http import PATIENCE_S, Connection, ask, connect

BEFORE = model("first_token_s=60")
AFTER = model("tokens_per_s=0&stall_after=6&stall_s=60")
STREAMED = tuple(PATHS)
CASES = [(dialect, True) for dialect in PATHS] + [(dialect, False) for dialect in WHOLE]


@asynccontextmanager
async def asking(
    running: Running, dialect: str, model: str, *, stream: bool
) -> AsyncGenerator[Connection]:
    """Ask and do not wait; leave the connection as it is at the end."""
    asked = json.dumps(body(dialect, model, stream=stream)).encode()
    key = {"Idempotency-Key": "k1", "Content-Type": "application/json"}
    async with connect(running.port) as connection:
        await connection.send("POST", PATHS[dialect], key, asked)
        yield connection


async def cancelled_within_a_second(running: Running, path: str, key: str = "") -> None:
    began = time.monotonic()
    headers = {"Idempotency-Key": key} if key else {}
    answer = await ask(running.port, "POST", path, headers, b"")
    assert answer.status in (200, 204), answer
    async with asyncio.timeout(PATIENCE_S):
        gone = await running.provider.logged("gone")
    assert float(str(gone["monotonic_s"])) - began < 1


@pytest.mark.parametrize(("dialect", "stream"), CASES)
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_cancel_reaches_the_provider(dialect: str, stream: bool, when: str) -> None:
    async with gateway() as running:
        name = BEFORE if when == "before" else AFTER
        async with asking(running, dialect, name, stream=stream) as connection:
            answer = await running.answer()
            await running.provider.logged("start")
            if when == "after":
                await answer.wait(4)
            # Its id is not known to who has no head yet; the key is.
            await cancelled_within_a_second(running, "/v1/answers/cancel", "k1")
            head = await connection.head("POST")
            has_head = stream and when == "after"
            assert head.status == (
                200 if has_head or (dialect == "openai-responses" and not stream) else 499
            )
        assert answer.end == "cancelled"


@pytest.mark.parametrize(
    ("dialect", "path"),
    [
        ("vercel", "/api/chat/chat-1/stop"),
        ("agui", "/api/agui/r1/stop"),
        ("openai-responses", "/v1/responses/resp_{id}/cancel"),
        ("openai-chat", "/v1/answers/chatcmpl-{id}/cancel"),
        ("anthropic-messages", "/v1/answers/msg_{id}/cancel"),
        ("native", "/v1/answers/{id}/cancel"),
        ("openai-chat", "/v1/cancel/answers/{id}"),
    ],
)
@pytest.mark.parametrize("name", [BEFORE, AFTER], ids=["before", "after"])
async def test_each_dialect_has_an_address_that_cancels(dialect: str, path: str, name: str) -> None:
    async with gateway() as running:
        async with asking(running, dialect, name, stream=True):
            answer = await running.answer()
            await running.provider.logged("start")
            id = answer.name.removeprefix("answers/")
            await cancelled_within_a_second(running, path.replace("{id}", id))
        assert answer.end == "cancelled"


@pytest.mark.parametrize(("dialect", "stream"), CASES)
async def test_a_hang_up_does_not_cancel(dialect: str, stream: bool) -> None:
    async with gateway() as running:
        slow = model("tokens_per_s=0&stall_after=6&stall_s=0.3")
        async with asking(running, dialect, slow, stream=stream) as connection:
            answer = await running.answer()
            await answer.wait(3)
            connection.hang_up()
        await until(lambda: answer.readers == 0)
        await until(lambda: answer.end is not None)
        assert answer.end == "complete"
        assert await running.calls() == 1


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_that_nobody_waits_for_is_cancelled_in_time(stream: bool) -> None:
    async with gateway(gateway={"unread_s": 0.2}) as running:
        async with asking(running, "openai-chat", BEFORE, stream=stream) as connection:
            answer = await running.answer()
            await running.provider.logged("start")
            await asyncio.sleep(0.5)  # longer than it may be unread: who waits reads
            assert answer.end is None
            connection.hang_up()
            async with asyncio.timeout(PATIENCE_S):
                await running.provider.logged("gone")
        await until(lambda: answer.end is not None)
        assert answer.end == "cancelled"


async def test_nothing_is_left_of_answers_that_were_cancelled() -> None:
    async with gateway() as running:
        before = len(asyncio.all_tasks())
        for round in range(1, 6):
            async with AsyncExitStack() as stack:
                for dialect, stream in CASES:
                    key = {"Idempotency-Key": f"{round}-{dialect}-{stream}"}
                    asked = json.dumps(body(dialect, BEFORE, stream=stream)).encode()
                    connection = await stack.enter_async_context(connect(running.port))
                    await connection.send("POST", PATHS[dialect], key, asked)
                await until(lambda: len(starts(running)) == round * len(CASES))  # noqa: B023
                for dialect, stream in CASES:
                    key = {"Idempotency-Key": f"{round}-{dialect}-{stream}"}
                    assert (await running.post("/v1/answers/cancel", headers=key)).status == 200
        await until(lambda: len(asyncio.all_tasks()) <= before + 2)
        gone = [entry for entry in running.provider.log if entry["event"] == "gone"]
        assert len(gone) == 5 * len(CASES)
        assert {answer.end for answer in running.answers()} == {"cancelled"}
        await until(lambda: not any(answer.readers for answer in running.answers()))


def starts(running: Running) -> list[object]:
    return [entry for entry in running.provider.log if entry["event"] == "start"]


async def test_a_stopped_chat_s_other_reader_has_the_text_so_far() -> None:
    async with gateway() as running:
        async with asking(running, "vercel", AFTER, stream=True):
            answer = await running.answer()
            await answer.wait(4)
            async with connect(running.port) as connection:
                await connection.send("GET", "/api/chat/chat-1/stream")
                head = await connection.head()
                await running.post("/api/chat/chat-1/stop")
                text = await connection.body()
        assert head.status == 200
        assert b'"type":"abort"' in text
        assert text.endswith(b"data: [DONE]\n\n")
        assert TEXT[:4].encode() in text
