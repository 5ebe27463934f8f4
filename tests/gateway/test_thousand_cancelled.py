"""A thousand answers cancelled at any moment leave nothing behind, here or at the provider.

Each is asked for by HTTP, in every dialect, streamed and whole, and cancelled at a moment drawn
between its request and its end. The seed is printed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from contextlib import AsyncExitStack
from typing import Any

import pytest

from gateway.gateways import PATHS, TEXT, WHOLE, Running, body, gateway, model, until
from penstock.gateway.account import Caller
from penstock.gateway.answers import Answers
from penstock.llm.budget import Amounts
from penstock.testing.recordings import tokens
from raw_http import PATIENCE_S, connect

ANSWERS, AT_ONCE = 1_000, 50
CASES = [(dialect, True) for dialect in PATHS] + [(dialect, False) for dialect in WHOLE]
RESERVED, BUDGET = 64, 10**9


def knobs(draw: random.Random, number: int) -> str:
    """How an answer comes: `split_seed` is its number, by which the provider's log knows it."""
    pace = draw.choice([0, 50, 200, 2_000])
    parts = {"tokens_per_s": pace, "split_seed": number, "burst": draw.choice([1, 1, 8])}
    if draw.random() < 0.4:
        parts["first_token_s"] = draw.choice([0.01, 60])
        parts["early_head"] = draw.choice([0, 1])
    if not pace or draw.random() < 0.3:
        parts |= {"stall_after": draw.randint(1, 30), "stall_s": 60}
    return "&".join(f"{name}={value}" for name, value in parts.items())


async def ask_and_cancel(running: Running, draw: random.Random, number: int) -> float | None:
    """One answer; gives when its cancel was asked for. None where nobody had begun it yet, and its
    client was gone: it ends for want of readers."""
    dialect, is_stream = draw.choice(CASES)
    name = model(knobs(draw, number))
    more: dict[str, Any] = {"id": f"c{number}"} if dialect == "vercel" else {}
    more |= {"runId": f"r{number}"} if dialect == "agui" else {}
    asked = json.dumps(body(dialect, name, stream=is_stream, **more)).encode()
    key = {"Idempotency-Key": f"k{number}", "Content-Type": "application/json"}
    stays, delay_s = draw.random() < 0.7, draw.uniform(0, 0.08)
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(connect(running.port))
        await connection.send("POST", PATHS[dialect], key, asked)
        if not stays and draw.random() < 0.5:
            connection.hang_up()  # perhaps before anything was begun
        # The moment is what is drawn: there is nothing to wait for.
        await asyncio.sleep(delay_s)
        async with asyncio.timeout(PATIENCE_S):
            at = time.monotonic()
            while (answer := await running.post("/v1/answers/cancel", None, key)).status == 404:
                if not stays:
                    return None
                at = time.monotonic()
        assert answer.status == 200, answer
        if stays:
            head = await connection.head("POST")
            assert head.status in (200, 499), head
            await connection.body()
    return at


def log_of(running: Running) -> dict[int, dict[str, float]]:
    """When each answer's call began, and when it was left or finished, by its number."""
    found: dict[int, dict[str, float]] = {}
    for entry in running.provider.log:
        number = int(str(entry["model"]).partition("split_seed=")[2].partition("&")[0])
        found.setdefault(number, {})[str(entry["event"])] = float(str(entry["monotonic_s"]))
    return found


async def test_a_thousand_cancelled_answers_leave_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    draw, began = random.Random(seed), time.monotonic()
    budgets = {"all": {"output_tokens": BUDGET}, "reserve_output_tokens": RESERVED}
    settings = {"max_streams": 2 * ANSWERS}
    async with gateway(budgets=budgets, hub=settings, gateway={"unread_s": 0.3}) as running:
        answers, hub = running.app.answers, running.hub
        await running.create("openai-chat", model())  # what is made once is made
        await until(lambda: answers.books.running == 0)
        running.provider.log.clear()
        tasks = len(asyncio.all_tasks())
        charged = answers.books.spent("all")
        cancelled: dict[int, float | None] = {}
        for start in range(0, ANSWERS, AT_ONCE):
            numbers = range(start, start + AT_ONCE)
            moments = await asyncio.gather(*(ask_and_cancel(running, draw, n) for n in numbers))
            cancelled |= dict(zip(numbers, moments, strict=True))
        await nothing_left(running, tasks)
        ends = {str(stream.end) for stream in running.answers()}
        assert "cancelled" in ends <= {"cancelled", "complete"}, ends
        late = lateness(running, cancelled)
        spent = answers.books.spent("all").output_tokens - charged.output_tokens
        assert 0 < spent <= ANSWERS * len(tokens(TEXT))
        assert await left_of_budget(answers) == BUDGET - answers.books.spent("all").output_tokens
        records = await (await hub.get("__penstock/usage")).records()
        assert len(records) == len(running.answers())
    assert not [one for one in caplog.records if one.name in ("penstock", "asyncio")], caplog.text
    took_s = time.monotonic() - began
    print(f"{took_s:.1f} s, the provider left within {max(late):.3f} s, of {len(late)} calls")
    assert took_s < 30


async def left_of_budget(answers: Answers) -> int:
    """What one more answer would be granted: all that is neither spent nor held."""
    hold = await answers.books.reserve(
        "more", caller=Caller(), model="m", price=None, ask_output=BUDGET, input_tokens=0
    )
    assert hold is not None
    return hold.granted.output_tokens


async def nothing_left(running: Running, tasks: int) -> None:
    """No answer at work, no place at the upstream taken, no connection, no task."""
    answers, hub = running.app.answers, running.hub
    upstream = answers.config.upstreams["main"]
    async with asyncio.timeout(PATIENCE_S):
        await until(lambda: not any(one.is_produced for one in running.answers()))
        await until(lambda: answers.books.running == 0)
        slots = answers.calls.slots(upstream)
        await until(lambda: (slots.free, slots.waiting) == (upstream.max_concurrent, 0))
        await until(lambda: not any(one.readers or one.polls for one in hub.streams()))
        # The provider's own tasks are a pair for each idle connection that is kept.
        await until(lambda: len(asyncio.all_tasks()) <= tasks + 2 * AT_ONCE)
    names = {task.get_name() for task in asyncio.all_tasks()}
    assert not [name for name in names if name.startswith("penstock:answers/")]
    snapshot = hub.snapshot()
    assert (snapshot.readers_fast, snapshot.readers_portable, snapshot.polls) == (0, 0, 0)
    others = [one for one in hub.streams() if not one.name.startswith("answers/")]
    assert snapshot.streams_running == len(others)  # chats, and the usage records


def lateness(running: Running, cancelled: dict[int, float | None]) -> list[float]:
    """How long after its cancel each call's client was gone; none a second."""
    late: list[float] = []
    for number, events in log_of(running).items():
        assert {"gone", "finished"} & set(events), (number, events)
        at = cancelled[number]
        if "gone" in events and at is not None:
            late.append(events["gone"] - at)
    assert late
    assert max(late) < 1, sorted(late)[-10:]
    return late


async def test_nothing_is_charged_for_what_was_never_asked() -> None:
    async with gateway(budgets={"all": {"output_tokens": 100}}) as running:
        refused = await running.create("openai-chat", "nobody-1")
        assert refused.status == 404
        assert running.app.answers.books.spent("all") == Amounts()
