"""A response is read again by its id, whole, as it stands, or from an event of its stream."""

from __future__ import annotations

import json

import pytest

from gateway.gateways import TEXT, Running, gateway, model, parts
from raw_http import Answer, EventReader, connect

PATH = "/v1/responses"
SLOW = model("tokens_per_s=0&stall_after=12&stall_s=60")


async def response_id(running: Running) -> str:
    return "resp_" + (await running.answer()).name.removeprefix("answers/")


async def test_a_response_can_be_read_again() -> None:
    async with gateway() as running:
        created = await running.create("openai-responses", model(), stream=False)
        again = await running.get(f"{PATH}/{created.json['id']}")
        assert again.json == created.json
        assert again.json["status"] == "completed"


async def test_a_response_is_read_whichever_dialect_asked_for_it() -> None:
    async with gateway() as running:
        await running.create("anthropic-messages", model())
        read = await running.get(f"{PATH}/{await response_id(running)}")
        assert read.json["output"][0]["content"][0]["text"] == TEXT


async def test_its_stream_goes_on_after_any_event() -> None:
    async with gateway() as running:
        whole = await running.create("openai-responses", model())
        id = await response_id(running)
        everything = parts(whole.body)
        for after in (0, 1, 5, len(everything) - 2):
            read = await running.get(f"{PATH}/{id}?stream=true&starting_after={after}")
            assert parts(read.body) == everything[after + 1 :]
        read = await running.get(f"{PATH}/{id}?stream=true")
        assert read.body == whole.body


@pytest.mark.parametrize("after", ["x", "-1", "1.5", "9" * 40])
async def test_a_place_that_is_none_is_400(after: str) -> None:
    async with gateway() as running:
        await running.create("openai-responses", model())
        id = await response_id(running)
        answer = await running.get(f"{PATH}/{id}?stream=true&starting_after={after}")
        assert answer.status == 400
        assert "starting_after" in answer.json["error"]["message"]


async def test_a_response_that_runs_says_so_and_can_be_cancelled() -> None:
    async with gateway() as running:
        created = await running.create(
            "openai-responses", SLOW, stream=False, background=True, instructions="Be brief."
        )
        assert created.status == 200
        assert created.json["status"] == "in_progress"
        assert created.json["background"] is True
        assert created.json["instructions"] == "Be brief."
        path = f"{PATH}/{created.json['id']}"
        assert (await running.get(path)).json["status"] == "in_progress"
        cancelled = await running.post(f"{path}/cancel")
        assert cancelled.json["status"] == "cancelled"
        assert (await running.get(path)).json == cancelled.json
        await running.provider.logged("gone")
        assert (await running.post(f"{path}/cancel")).json == cancelled.json


async def test_a_response_in_the_background_runs_unread() -> None:
    async with gateway(gateway={"unread_s": 0.05}) as running:
        slow = model("tokens_per_s=0&stall_after=6&stall_s=0.5")
        created = await running.create("openai-responses", slow, stream=False, background=True)
        stream = await running.answer()
        await stream.wait(2**62)
        assert stream.end == "complete"
        read = await running.get(f"{PATH}/{created.json['id']}")
        assert read.json["status"] == "completed"


async def test_a_response_can_be_forgotten() -> None:
    async with gateway() as running:
        created = await running.create("openai-responses", SLOW, stream=False, background=True)
        path = f"{PATH}/{created.json['id']}"
        async with connect(running.port) as connection:
            gone = await connection.ask("DELETE", path)
        assert gone.json == {"id": created.json["id"], "object": "response", "deleted": True}
        await running.provider.logged("gone")
        assert (await running.get(path)).status == 404


@pytest.mark.parametrize("path", ["resp_nobody", "nobody", "msg_nobody", "resp_..%2fx"])
async def test_a_response_that_is_not_there_is_404(path: str) -> None:
    async with gateway() as running:
        answer = await running.get(f"{PATH}/{path}")
        assert answer.status == 404
        assert answer.json["error"]["code"] == "stream-not-found"


async def test_a_stream_that_is_no_answer_is_not_read_as_one() -> None:
    async with gateway() as running:
        stream = await running.hub.create("answers/mine")
        await stream.append({"a": 1})
        assert (await running.get(f"{PATH}/resp_mine")).status == 404
        assert (await running.post(f"{PATH}/resp_mine/cancel")).status == 404
        assert stream.end is None


@pytest.mark.parametrize("field", ["previous_response_id", "conversation"])
async def test_what_is_kept_elsewhere_is_refused_by_name(field: str) -> None:
    async with gateway() as running:
        answer = await running.create("openai-responses", model(), **{field: "resp_1"})
        assert answer.status == 400
        assert field in answer.json["error"]["message"]


async def test_a_background_that_is_no_flag_is_400() -> None:
    async with gateway() as running:
        answer = await running.create("openai-responses", model(), background="yes")
        assert answer.status == 400


async def test_a_huge_request_is_not_repeated_in_its_response() -> None:
    async with gateway() as running:
        long = "x" * 2_000_000
        answer = await running.create(
            "openai-responses", model(), stream=False, instructions=long, user="ann"
        )
        assert answer.status == 200
        assert answer.json["instructions"] is None
        assert answer.json["user"] == "ann"


async def test_a_stream_of_a_running_response_is_resumed() -> None:
    async with gateway() as running:
        slow = model("tokens_per_s=0&stall_after=12&stall_s=0.3")
        asked = json.dumps({"model": slow, "input": "a", "background": True, "stream": True})
        async with connect(running.port) as connection:
            await connection.send("POST", PATH, {}, asked.encode())
            reader = EventReader(connection, await connection.head("POST"))
            await reader.until(b"output_text.delta")
            connection.hang_up()
        seen = reader.raw[: reader.raw.rindex(b"\n\n") + 2]
        last = parts(seen)[-1][1]["sequence_number"]
        id = reader.answer["penstock-stream"].removeprefix("answers/")
        rest: Answer = await running.get(f"{PATH}/resp_{id}?stream=true&starting_after={last}")
        numbers = [event["sequence_number"] for _, event in parts(rest.body)]
        assert numbers == [*range(last + 1, last + 1 + len(numbers))]
        assert parts(rest.body)[-1][0] == "response.completed"
