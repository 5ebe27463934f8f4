"""Pages: a chat of the Vercel AI SDK and a run of AG-UI, under names of their own choosing."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest

from gateway.gateways import ASKED, PATHS, TEXT, body, gateway, model, parts, shown
from penstock.gateway.endpoints.runs import KEPT
from raw_http import Answer, EventReader, ask, connect

SLOW = model("tokens_per_s=0&stall_after=12&stall_s=0.4")
STUCK = model("tokens_per_s=0&stall_after=12&stall_s=60")


def first_part(answer: Answer) -> dict[str, Any]:
    return parts(answer.body)[0][1]


async def test_a_chat_is_answered_with_the_header_its_client_wants() -> None:
    async with gateway() as running:
        answer = await running.create("vercel", model())
        assert answer["x-vercel-ai-ui-message-stream"] == "v1"
        assert shown("vercel", answer.body).text == TEXT


async def test_a_page_that_is_loaded_again_has_the_answer_from_its_beginning() -> None:
    async with gateway() as running:
        asked = json.dumps(body("vercel", SLOW)).encode()
        async with connect(running.port) as connection:
            await connection.send("POST", PATHS["vercel"], {}, asked)
            reader = EventReader(connection, await connection.head("POST"))
            await reader.until(b"text-delta")
            connection.hang_up()
        again = await running.get("/api/chat/chat-1/stream")
        assert again.status == 200
        assert again.body.startswith(reader.raw)
        assert shown("vercel", again.body).text == TEXT
        assert await running.calls() == 1


@pytest.mark.parametrize("chat", ["chat-1", "nobody", "a/b", "%F0%9F%98%80", "%ff"])
async def test_a_chat_in_which_nothing_runs_is_204(chat: str) -> None:
    async with gateway() as running:
        await running.create("vercel", model())
        answer = await running.get(f"/api/chat/{chat}/stream")
        assert answer.status == 204
        for method in ("POST", "DELETE"):
            assert (await ask(running.port, method, f"/api/chat/{chat}/stop")).status == 204


@pytest.mark.parametrize("chat", ["a/b", "ü 1", "😀", "x" * 512])
async def test_a_chat_has_whatever_name_its_page_gives_it(chat: str) -> None:
    async with gateway() as running:
        asked = json.dumps(body("vercel", STUCK, id=chat)).encode()
        async with connect(running.port) as connection:
            await connection.send("POST", PATHS["vercel"], {}, asked)
            await connection.head("POST")
            name = quote(chat, safe="/")
            async with connect(running.port) as other:
                await other.send("GET", f"/api/chat/{name}/stream")
                assert (await other.head()).status == 200
            await running.post(f"/api/chat/{name}/stop")
        assert (await running.answer()).end == "cancelled"


async def test_a_chat_is_its_caller_s() -> None:
    async with gateway() as running:
        alice, bob = ({"Authorization": f"Bearer {name}"} for name in ("alice", "bob"))
        asked = json.dumps(body("vercel", STUCK)).encode()
        async with connect(running.port) as connection:
            await connection.send("POST", PATHS["vercel"], alice, asked)
            await connection.head("POST")
            assert (await running.get("/api/chat/chat-1/stream", bob)).status == 204
            await running.post("/api/chat/chat-1/stop", headers=bob)
            assert (await running.answer()).end is None
            await running.post("/api/chat/chat-1/stop", headers=alice)
            assert (await running.answer()).end == "cancelled"


async def test_the_newest_answer_of_a_chat_is_its_stream() -> None:
    async with gateway() as running:
        for _ in range(KEPT + 1):
            await running.create("vercel", model("tokens_per_s=0&error_after=2"))
        asked = json.dumps(body("vercel", SLOW)).encode()
        async with connect(running.port) as connection:
            await connection.send("POST", PATHS["vercel"], {}, asked)
            head = await connection.head("POST")
            again = await running.get("/api/chat/chat-1/stream")
        assert again["penstock-stream"] == head["penstock-stream"]


async def test_stopping_a_chat_stops_every_answer_that_runs_in_it() -> None:
    async with gateway() as running:
        asked = json.dumps(body("vercel", STUCK)).encode()
        async with connect(running.port) as one, connect(running.port) as two:
            for connection in (one, two):
                await connection.send("POST", PATHS["vercel"], {}, asked)
                await connection.head("POST")
            await running.post("/api/chat/chat-1/stop")
        assert [answer.end for answer in running.answers()] == ["cancelled", "cancelled"]


async def test_an_answer_that_goes_on_with_a_message_has_its_id() -> None:
    async with gateway() as running:
        call = {
            "type": "tool-weather",
            "toolCallId": "c1",
            "state": "output-available",
            "input": {"city": "Oslo"},
            "output": "rain",
        }
        said = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": ASKED}]}
        mine = {"id": "a1", "role": "assistant", "parts": [{"type": "step-start"}, call]}
        answer = await running.create("vercel", model(), messages=[said, mine])
        assert first_part(answer)["messageId"] == "a1"
        other = await running.create("vercel", model(), messages=[said])
        id = other["penstock-stream"].removeprefix("answers/")
        assert first_part(other)["messageId"] == f"msg_{id}"


@pytest.mark.parametrize("chat", [7, "", "x" * 513, "a\nb"])
async def test_a_chat_s_name_that_is_none_is_400(chat: object) -> None:
    async with gateway() as running:
        answer = await running.create("vercel", model(), id=chat)
        assert answer.status == 400
        assert b"'id'" in answer.body
        assert not running.answers()


async def test_a_page_that_names_no_model_gets_the_gateway_s() -> None:
    async with gateway() as running:
        assert (await running.create("vercel", "")).status == 200
        assert (await running.create("agui", "")).status == 200
    other = model("tokens_per_s=0&burst=3")
    async with gateway(gateway={"default_model": other}) as running:
        for dialect in ("vercel", "agui"):
            assert (await running.create(dialect, "")).status == 200
        assert {entry["model"] for entry in running.provider.log} == {other}


async def test_a_run_has_the_names_its_client_gave_it() -> None:
    async with gateway() as running:
        answer = await running.create("agui", model())
        started = first_part(answer)
        assert (started["threadId"], started["runId"]) == ("t1", "r1")
        assert shown("agui", answer.body).text == TEXT


async def test_a_run_is_not_a_chat_of_the_same_name() -> None:
    async with gateway() as running:
        asked = json.dumps(body("agui", STUCK)).encode()
        async with connect(running.port) as connection:
            await connection.send("POST", PATHS["agui"], {}, asked)
            await connection.head("POST")
            await running.post("/api/chat/r1/stop")
            assert (await running.answer()).end is None
            await running.post("/api/agui/r1/stop")
            assert (await running.answer()).end == "cancelled"


async def test_a_joined_chat_is_remembered_once() -> None:
    async with gateway() as running:
        key = {"Idempotency-Key": "k1"}
        for _ in range(3):
            await running.create("vercel", model(), headers=key)
        (log,) = [stream for stream in running.hub.streams() if stream.name.startswith("chats/")]
        assert log.head.records == 1
