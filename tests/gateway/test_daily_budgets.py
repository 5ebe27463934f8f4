"""A day's budget holds under fifty answers at once, in tokens and in money, also over a restart."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.gateways import TEXT, body, config, model, until
from inprocess import Clock
from penstock import Hub
from penstock.core.gateway_errors import BudgetExhausted
from penstock.gateway.account import Caller
from penstock.gateway.answers import Answers
from penstock.gateway.records import events_of
from penstock.llm.ask.dialects import read_request
from penstock.llm.budget import Amounts
from penstock.llm.events import Text
from penstock.llm.meter_prices import Money
from penstock.server.stream import Stream
from penstock.testing.recordings import tokens
from penstock.testing.upstream import RecordedUpstream

DAY_S = 86_400
NOON = 20_000 * DAY_S + DAY_S / 2
AT_ONCE = 50
WHOLE = len(tokens(TEXT))
# What is estimated of it is a little more than the 24 that the provider counts for any question.
QUESTION = "Why is the sky blue, and not green? Why is the grass green, and not blue? Say it."
PRICES = {"built-in:*": {"input": "1", "output": "10"}}


@dataclass
class Open:
    answers: Answers
    clock: Clock

    async def ask(self, knobs: str = "tokens_per_s=0", **more: Any) -> Stream | None:
        """Have one answer, to its end; None where there was no budget for it."""
        said = {"model": model(knobs), "messages": [{"role": "user", "content": QUESTION}], **more}
        request = read_request("openai-chat", json.dumps(said).encode())
        try:
            stream, _ = await self.answers.start(
                request, Caller(user="anna", key="app"), dialect="openai-chat"
            )
        except BudgetExhausted:
            return None
        await until(lambda: stream.end is not None and not stream.is_produced)
        return stream

    async def fifty(self, knobs: str = "tokens_per_s=0", **more: Any) -> list[Stream]:
        """Have fifty at once; those there was a budget for."""
        found = await asyncio.gather(*(self.ask(knobs, **more) for _ in range(AT_ONCE)))
        return [stream for stream in found if stream is not None]

    def running(self) -> list[Stream]:
        streams = self.answers.hub.streams()
        return [one for one in streams if one.name.startswith("answers/") and one.is_produced]

    def spent(self, account: str = "all") -> Amounts:
        return self.answers.books.spent(account)


@asynccontextmanager
async def opened(
    backend: str = "memory://", clock: Clock | None = None, **tables: Any
) -> AsyncGenerator[Open]:
    clock = clock or Clock(NOON)
    async with RecordedUpstream() as provider:
        hub = Hub(backend)
        answers = Answers(hub, config(provider, **tables), clock=clock)
        try:
            async with hub:
                await answers.open()
                yield Open(answers, clock)
        finally:
            await answers.close()


async def shown(streams: list[Stream]) -> int:
    """The tokens that all readers together can have seen."""
    count = 0
    for stream in streams:
        text = [
            event.text for event in events_of(await stream.records()) if isinstance(event, Text)
        ]
        assert TEXT.startswith("".join(text))
        count += len(text)
    return count


def reasons(streams: list[Stream]) -> set[str]:
    return {str(stream.end) for stream in streams}


@pytest.fixture(params=["memory", "sqlite"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'store.db'}"


@pytest.mark.parametrize("account", ["user", "key", "all"])
async def test_fifty_at_once_spend_no_more_tokens_than_a_day_has(account: str) -> None:
    budget = 10 * 200 + 7
    name = {"user": "user:anna", "key": "key:app"}.get(account, "all")
    async with opened(budgets={account: {"output_tokens": budget}}) as open_:
        given = await open_.fifty(max_tokens=200)
        assert await shown(given) == open_.spent(name).output_tokens == budget
        assert reasons(given) == {"complete", "limit"}
        assert open_.answers.books.running == 0
        assert await open_.ask() is None


async def test_fifty_who_name_no_maximum_see_no_more_than_a_day_has(backend: str) -> None:
    """They hold a little at a time, and more while there is more: none of it is left lying."""
    budget = 10 * WHOLE + 7
    async with opened(
        backend, budgets={"all": {"output_tokens": budget}, "reserve_output_tokens": 20}
    ) as open_:
        given = await open_.fifty("tokens_per_s=2000")
        assert budget - 20 < await shown(given) <= budget
        # What a provider wrote before it could be left was shown to nobody, and is charged.
        assert open_.spent().output_tokens >= budget - 20
        assert "limit" in reasons(given) <= {"complete", "limit"}
        assert open_.answers.books.running == 0


async def test_tokens_read_are_of_the_budget_too(backend: str) -> None:
    async with opened(
        backend, budgets={"all": {"total_tokens": 1_500}, "reserve_output_tokens": 50}
    ) as open_:
        given = await open_.fifty()
        spent = open_.spent()
        assert spent.total_tokens <= 1_500
        assert spent.total_tokens > 1_000
        assert spent.total_tokens - spent.output_tokens == 24 * len(given)
        assert await shown(given) == spent.output_tokens


async def test_fifty_at_once_spend_no_more_money_than_a_day_has(backend: str) -> None:
    budget = Money.read("0.01")
    async with opened(
        backend,
        prices=PRICES,
        budgets={"all": {"money": "0.01"}, "reserve_output_tokens": 30},
    ) as open_:
        given = await open_.fifty()
        spent = open_.spent()
        assert Money() < spent.money <= budget
        assert spent.money > Money.read("0.008")
        assert await shown(given) == spent.output_tokens
        price = Money.read("0.000001").units
        assert spent.money.units == price * (24 * len(given) + 10 * spent.output_tokens)


async def test_a_caller_s_own_maximum_is_what_is_held(backend: str) -> None:
    async with opened(backend, budgets={"all": {"output_tokens": 100}}) as open_:
        given = await open_.fifty(max_tokens=9)
        # Eleven have theirs, and the twelfth what is left.
        assert len(given) == 12
        assert open_.spent().output_tokens == 100
        assert sorted(map(str, reasons(given))) == ["complete", "limit"]


async def test_a_provider_that_writes_on_is_cut_at_the_budget(backend: str) -> None:
    """What it wrote beyond is shown to nobody, and is charged."""
    async with opened(
        backend, budgets={"all": {"output_tokens": 300}, "reserve_output_tokens": 10}
    ) as open_:
        given = await open_.fifty("tokens_per_s=0&obeys_limit=0")
        assert await shown(given) <= 300
        assert open_.spent().output_tokens >= 300
        assert await open_.ask() is None


async def test_a_budget_outlives_a_restart_and_no_night(tmp_path: Path) -> None:
    backend, clock = f"sqlite:///{tmp_path / 'store.db'}", Clock(NOON)
    tables: dict[str, Any] = {
        "budgets": {"all": {"output_tokens": 2 * WHOLE}, "reserve_output_tokens": 20}
    }
    async with opened(backend, clock, **tables) as open_:
        assert await open_.ask()
        spent = open_.spent()
        assert spent.output_tokens == WHOLE
    async with opened(backend, clock, **tables) as open_:
        assert open_.spent() == spent
        given = await open_.fifty()
        assert await shown(given) == WHOLE
        assert open_.spent().output_tokens == 2 * WHOLE
    async with opened(backend, clock, **tables) as open_:
        assert await open_.ask() is None
        clock.now += DAY_S / 2 + 1
        assert (await open_.fifty())[0].end is not None
        assert open_.spent().output_tokens <= 2 * WHOLE


async def test_answers_that_are_cancelled_give_back_what_they_did_not_use(backend: str) -> None:
    async with opened(
        backend, budgets={"all": {"output_tokens": AT_ONCE * 20}, "reserve_output_tokens": 20}
    ) as open_:
        asked = [
            asyncio.create_task(open_.ask("tokens_per_s=0&stall_after=5&stall_s=60"))
            for _ in range(AT_ONCE)
        ]
        await until(lambda: len(open_.running()) == AT_ONCE)
        assert await open_.ask() is None  # all of it is held
        await asyncio.gather(*(one.wait(3) for one in open_.running()))
        await asyncio.gather(*(one.cancel() for one in open_.running()))
        await asyncio.gather(*asked)
        assert open_.answers.books.running == 0
        assert 0 < open_.spent().output_tokens <= 5 * AT_ONCE
        assert await open_.ask()


async def test_who_is_refused_is_told_when_the_day_is_over() -> None:
    async with opened(budgets={"user": {"output_tokens": 5}}) as open_:
        assert await open_.ask()
        request = read_request("openai-chat", json.dumps(body("openai-chat", "sky-1")).encode())
        with pytest.raises(BudgetExhausted) as refused:
            await open_.answers.start(request, Caller(user="anna"), dialect="openai-chat")
        assert (refused.value.account, refused.value.retry_after_s) == ("user:anna", DAY_S / 2)
        # Somebody else's budget is somebody else's.
        assert (await open_.answers.start(request, Caller(user="bert"), dialect="openai-chat"))[1]
