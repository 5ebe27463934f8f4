"""Every dialect is answered at its own address, as a stream and whole, on either path; and the
answer is a stream that anybody with its name can read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.gateways import PATHS, TEXT, WHOLE, Running, body, gateway, model, shown
from raw_http import EventReader, connect, events

STREAMED = tuple(dialect for dialect in PATHS if dialect != "native")


@pytest.fixture(params=["fast", "portable"])
def is_fast(request: pytest.FixtureRequest) -> bool:
    return request.param == "fast"


def whole_text(dialect: str, value: Any) -> str:
    """What a whole answer says."""
    match dialect:
        case "openai-chat":
            return value["choices"][0]["message"]["content"]
        case "openai-responses":
            return value["output"][0]["content"][0]["text"]
        case "anthropic-messages":
            return value["content"][0]["text"]
        case _:
            return value["text"]


async def test_every_dialect_is_streamed_to(is_fast: bool) -> None:
    async with gateway(is_fast=is_fast) as running:
        for number, dialect in enumerate(STREAMED):
            answer = await running.create(dialect, model())
            assert answer.status == 200, answer
            assert answer["content-type"].startswith("text/event-stream")
            said = shown(dialect, answer.body)
            assert (said.text, said.end) == (TEXT, "stop"), dialect
            stream = await running.answer(number)
            assert answer["penstock-stream"] == stream.name
            assert answer["link"] == f'</v1/stream/{stream.name}>; rel="alternate"'
            assert stream.end == "complete"
            assert "penstock-joined" not in answer


async def test_every_dialect_that_knows_whole_answers_gives_them(is_fast: bool) -> None:
    async with gateway(is_fast=is_fast) as running:
        for number, dialect in enumerate(WHOLE):
            answer = await running.create(dialect, model(), stream=False)
            assert answer.status == 200, answer
            assert answer["content-type"] == "application/json"
            assert whole_text(dialect, answer.json) == TEXT
            assert answer["penstock-stream"] == (await running.answer(number)).name


async def test_an_answer_s_id_is_where_its_sdk_looks() -> None:
    async with gateway() as running:
        chat = await running.create("openai-chat", model(), stream=False)
        message = await running.create("anthropic-messages", model())
        first, second = [stream.name.removeprefix("answers/") for stream in running.answers()]
        assert chat["x-request-id"] == first
        assert chat.json["id"] == f"chatcmpl-{first}"
        assert message["request-id"] == second


async def test_an_accept_of_json_does_not_change_what_the_body_asks_for() -> None:
    async with gateway() as running:
        asked = {"Accept": "application/json"}
        answer = await running.create("openai-chat", model(), headers=asked)
        assert answer["content-type"].startswith("text/event-stream")


async def test_a_native_answer_is_streamed_as_its_stream_is_read(is_fast: bool) -> None:
    async with gateway(is_fast=is_fast) as running:
        asked = json.dumps(body("native", model())).encode()
        async with events(running.port, "/v1/answers", method="POST", body=asked) as reader:
            posted = await reader.rest()
        name = reader.answer["penstock-stream"]
        async with events(running.port, f"/v1/stream/{name}") as reader:
            assert await reader.rest() == posted
        assert [event.type for event in posted[:2]] == ["answer", "start"]
        assert posted[-1].type == "end"
        # Wherever it was cut, it goes on from there.
        place = {"Last-Event-ID": posted[5].last_event_id}
        async with events(running.port, f"/v1/stream/{name}", place) as reader:
            assert await reader.rest() == posted[6:]


async def test_a_native_stream_can_be_asked_for_by_the_body_alone() -> None:
    async with gateway() as running:
        answer = await running.create("native", model(), stream=True)
        assert answer["content-type"] == "text/event-stream"


async def test_an_answer_that_is_not_waited_for_has_an_address(is_fast: bool) -> None:
    async with gateway(is_fast=is_fast) as running:
        prefer = {"Prefer": "wait=1, respond-async"}
        slow = model("tokens_per_s=0&stall_after=5&stall_s=30")
        answer = await running.create("native", slow, stream=False, headers=prefer)
        assert answer.status == 202
        assert answer["preference-applied"] == "respond-async"
        stream = await running.answer()
        id = stream.name.removeprefix("answers/")
        assert answer["location"] == f"/v1/answers/{id}"
        await stream.wait(3)
        so_far = await running.get(answer["location"])
        assert so_far.status == 200
        assert so_far.json["reason"] is None
        assert so_far.json["text"]
        assert TEXT.startswith(so_far.json["text"])
        over = await running.post(f"{answer['location']}/cancel")
        assert over.json["reason"] == "cancelled"
        assert (await running.get(answer["location"])).json["reason"] == "cancelled"
        connection = await forget(running, answer["location"])
        assert connection == 204
        assert (await running.get(answer["location"])).code == "stream-not-found"


async def forget(running: Running, path: str) -> int:
    async with connect(running.port) as connection:
        return (await connection.ask("DELETE", path)).status


async def test_an_answer_is_read_in_any_dialect_by_its_stream_s_name(is_fast: bool) -> None:
    async with gateway(is_fast=is_fast) as running:
        answer = await running.create("anthropic-messages", model())
        for dialect in STREAMED:
            path = f"/v1/stream/{answer['penstock-stream']}?dialect={dialect}"
            assert shown(dialect, (await running.get(path)).body).text == TEXT


async def test_an_http_1_0_client_is_answered() -> None:
    async with gateway() as running:
        for stream in (True, False):
            asked = json.dumps(body("openai-chat", model(), stream=stream)).encode()
            async with connect(running.port) as connection:
                path, json_type = PATHS["openai-chat"], {"Content-Type": "application/json"}
                await connection.send("POST", path, json_type, asked, version="1.0")
                answer = await connection.head("POST")
                text = await connection.body()
            assert answer.status == 200
            assert "transfer-encoding" not in answer
            assert text.endswith(b"data: [DONE]\n\n") if stream else json.loads(text)


async def test_a_slow_answer_s_head_does_not_wait_for_it_for_ever(is_fast: bool) -> None:
    more = {"gateway": {"head_wait_s": 0.05}}
    async with gateway(is_fast=is_fast, hub={"heartbeat_s": 0.5}, **more) as running:
        asked = json.dumps(body("openai-chat", model("first_token_s=30"))).encode()
        async with connect(running.port) as connection:
            await connection.send("POST", PATHS["openai-chat"], {}, asked)
            reader = EventReader(connection, await connection.head("POST"))
            assert reader.answer.status == 200
            await reader.until(b":\n:\n")
            await (await running.answer()).cancel()
            await reader.rest()
        # A heartbeat is a comment of one line, which these SDKs' parsers stand.
        assert b":\n\n" not in reader.raw
        assert reader.raw.replace(b":\n", b"").endswith(b"data: [DONE]\n\n")
