"""Answers are kept for their readers: not for strangers to write in, nor to keep new ones out."""

from __future__ import annotations

import pytest

from gateway.gateways import gateway, model, until
from raw_http import ask

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize("is_fast", [True, False])
@pytest.mark.parametrize("headers", [{}, {"Stream-Closed": "true"}], ids=["append", "close"])
async def test_nobody_but_its_producer_appends_to_an_answer(
    is_fast: bool, headers: dict[str, str]
) -> None:
    async with gateway(is_fast=is_fast) as running:
        asked = {"model": model("stall_after=3&stall_s=60"), "messages": []}
        asked["messages"] = [{"role": "user", "content": "?"}]
        begun = await running.post("/v1/answers", asked, {"Prefer": "respond-async"})
        answer = await running.answer()
        path = f"/v1/stream/{begun['penstock-stream']}"
        refused = await ask(running.port, "POST", path, {**JSON, **headers}, b'"forged"')
        assert (refused.status, refused.code) == (409, "stream-conflict")
        closed = await ask(running.port, "POST", path, {"Stream-Closed": "true"}, b"")
        assert closed.status == 409
        assert answer.end is None
        assert (await running.post(f"/v1/cancel/{begun['penstock-stream']}")).status == 204
        await until(lambda: answer.end == "cancelled")


async def test_the_oldest_answers_make_room_for_new_ones() -> None:
    async with gateway(hub={"max_streams": 8}) as running:
        for _ in range(30):
            assert (await running.create("openai-chat", model())).status == 200
        assert len(running.answers()) <= 8


async def test_an_answer_that_is_read_makes_no_room() -> None:
    async with gateway(hub={"max_streams": 8}) as running:
        await running.create("openai-chat", model())
        first = running.answers()[0]
        with first.attended():
            for _ in range(20):
                assert (await running.create("openai-chat", model())).status == 200
            assert first in running.answers()


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_how_long_a_provider_wants_to_be_left_alone_is_passed_on(stream: bool) -> None:
    async with gateway() as running:
        refused = model("status=429&retry_after_s=7")
        answer = await running.create("openai-chat", refused, stream=stream)
        assert (answer.status, answer["retry-after"]) == (429, "7")
