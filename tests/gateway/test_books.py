"""The books: budgets hold whatever runs at once and whatever dies; each answer is charged once."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from inprocess import Clock
from penstock.backends.interface import Documents
from penstock.core.errors import DiskFull, StoreDamaged
from penstock.core.gateway_errors import BudgetExhausted, PriceUnknown
from penstock.gateway.config import GatewayConfig, UpstreamSettings, read_config
from penstock.gateway.figures import Attempts
from penstock.gateway.keeping import BUDGET, USAGE
from penstock.gateway.usage import Books, lines
from penstock.llm.budget import Amounts
from penstock.llm.events import Failure, Usage
from penstock.llm.meter import Counts
from penstock.llm.meter_prices import Money, Price
from penstock.llm.meter_record import Timing, UsageRecord
from penstock.server.hub import Hub
from penstock.telemetry.hooks import AnswerFigures, Hooks

DAY_S = 86_400
NOON = 20_000 * DAY_S + DAY_S / 2
PRICE = Price(input=Money.read("1"), output=Money.read("2"))
UPSTREAM = {"dialect": "ollama", "base_url": "http://127.0.0.1:1"}


@dataclass(frozen=True)
class Caller:
    key: str = "app"
    user: str = "anna"


ANNA, BERT = Caller(), Caller(user="bert")


class Told(Hooks):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.started = 0
        self.refused: list[tuple[str, str]] = []
        self.ended: list[AnswerFigures] = []
        self.attempts: list[tuple[str, str, str]] = []

    def answer_started(self) -> None:
        self.started += 1

    def budget_refused(self, budget: str, limit: str) -> None:
        self.refused.append((budget, limit))

    def answer_ended(self, figures: AnswerFigures) -> None:
        self.ended.append(figures)

    def upstream_attempted(self, upstream: str, kind: str, outcome: str) -> None:
        self.attempts.append((upstream, kind, outcome))


def config(**budgets: Any) -> GatewayConfig:
    found = read_config({"upstreams": {"a": UPSTREAM}, "budgets": budgets}, environment={})
    assert found is not None
    return found


@asynccontextmanager
async def opened(
    settings: GatewayConfig, clock: Clock, backend: str = "memory://", hooks: Hooks | None = None
) -> AsyncGenerator[Books]:
    hub = Hub(backend, hooks=hooks)
    async with hub:
        books = Books(hub, settings, clock)
        await books.open()
        yield books
        await books.close()


def reserve(books: Books, id: str, caller: Caller = ANNA, **ask: Any) -> Any:
    said: dict[str, Any] = {"price": PRICE, "ask_output": 100, "input_tokens": 10, **ask}
    return books.reserve(id, caller=caller, model="gpt-5", **said)


def record(id: str, read: int = 10, written: int = 20, **more: Any) -> UsageRecord:
    usage = Usage(input_tokens=read, output_tokens=written)
    return replace(
        UsageRecord(
            request=id,
            user="anna",
            key="app",
            model="gpt-5",
            upstream="a",
            end="complete",
            counts=Counts(usage=usage, money=PRICE.cost(usage), is_estimate=False),
            timing=Timing(started_s=NOON, first_token_s=0.5, total_s=2.5),
        ),
        **more,
    )


@pytest.fixture
def clock() -> Clock:
    return Clock(NOON)


def store(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'store.db'}"


# --- reserving ----------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
async def test_fifty_answers_at_once_never_hold_more_than_a_days_limit(
    backend: str, clock: Clock, tmp_path: Path
) -> None:
    """However many there are, and whatever they end up using of what they hold."""
    limit = 2_000
    address = "memory://" if backend == "memory" else store(tmp_path)
    settings = config(user={"output_tokens": limit}, all={"total_tokens": 10 * limit})
    granted: list[int] = []
    refused = 0

    async def one(books: Books, id: str) -> None:
        nonlocal refused
        try:
            hold = await reserve(books, id, ask_output=90)
        except BudgetExhausted as error:
            assert (error.account, error.limit) == ("user:anna", "output_tokens")  # noqa: PT017
            refused += 1
            return
        granted.append(hold.granted.output_tokens)
        assert books.spent("user:anna").output_tokens + sum(granted) <= limit
        await asyncio.sleep(0)
        granted.remove(hold.granted.output_tokens)
        await books.settle(record(id, written=hold.granted.output_tokens))
        assert books.spent("user:anna").output_tokens + sum(granted) <= limit

    async with opened(settings, clock, address) as books:
        await asyncio.gather(*(one(books, f"a{number}") for number in range(50)))
        assert books.spent("user:anna").output_tokens == limit  # 22 × 90 and 20
        assert books.running == 0
        assert refused > 0


async def test_what_is_held_is_not_there_for_others_and_what_is_not_used_is_again(
    clock: Clock,
) -> None:
    async with opened(config(user={"output_tokens": 150}), clock) as books:
        first = await reserve(books, "a")
        assert first.granted.output_tokens == first.limits.output_tokens == 100
        second = await reserve(books, "b")
        assert second.granted.output_tokens == 50
        with pytest.raises(BudgetExhausted) as caught:
            await reserve(books, "c")
        assert (caught.value.account, caught.value.retry_after_s) == ("user:anna", DAY_S / 2)
        assert (await reserve(books, "d", BERT)).granted.output_tokens == 100
        await books.settle(record("a", written=1))
        assert (await reserve(books, "e")).granted.output_tokens == 99


async def test_without_budgets_nothing_is_held_and_answers_are_counted_all_the_same(
    clock: Clock,
) -> None:
    hooks = Told()
    async with opened(config(), clock, hooks=hooks) as books:
        assert await reserve(books, "a", price=None, ask_output=None) is None
        assert await books.extend("a") is None
        assert books.running == hooks.started == 1
        await books.settle(record("a"))
        assert (books.running, len(hooks.ended)) == (0, 1)


async def test_a_budget_of_money_needs_a_price(clock: Clock) -> None:
    hooks = Told()
    async with opened(config(answer={"money": "1"}), clock, hooks=hooks) as books:
        with pytest.raises(PriceUnknown):
            await reserve(books, "a", price=None)
        assert (books.running, hooks.started) == (0, 0)
        assert await reserve(books, "a")


async def test_a_refusal_names_whose_budget_and_when_there_is_more(clock: Clock) -> None:
    hooks = Told()
    settings = config(key={"total_tokens": 5}, answer={"total_tokens": 50}, day_starts_at="+01:00")
    async with opened(settings, clock, hooks=hooks) as books:
        with pytest.raises(BudgetExhausted) as caught:
            await reserve(books, "a", input_tokens=7)
        error = caught.value
        assert (error.account, error.limit) == ("key:app", "total_tokens")
        assert error.retry_after_s == DAY_S / 2 - 3_600
        with pytest.raises(BudgetExhausted) as caught:
            await reserve(books, "b", input_tokens=500)
        assert (caught.value.account, caught.value.retry_after_s) == ("", 0)
    assert hooks.refused == [("key", "total_tokens"), ("answer", "total_tokens")]
    assert hooks.started == 0


async def test_who_has_no_name_shares_one_account(clock: Clock) -> None:
    async with opened(config(user={"output_tokens": 100}), clock) as books:
        await reserve(books, "a", Caller(key="", user=""))
        with pytest.raises(BudgetExhausted):
            await reserve(books, "b", Caller(key="", user=""))


@pytest.mark.parametrize("user", ["\0", "\udc80", "a\nb", "%00", "\U0001f600" * 200, "a/../b", "."])
async def test_a_user_may_be_called_anything(user: str, clock: Clock, tmp_path: Path) -> None:
    settings = config(user={"output_tokens": 100})
    async with opened(settings, clock, store(tmp_path)) as books:
        await reserve(books, "a", Caller(user=user))
        await books.settle(record("a", written=99, user=user))
    async with opened(settings, clock, store(tmp_path)) as books:
        hold = await reserve(books, "b", Caller(user=user))
        assert hold.granted.output_tokens == 1
        assert len([line async for line in lines(books._hub)]) == 1


async def test_a_day_has_its_own_budget_and_an_answer_is_charged_to_the_day_it_began(
    clock: Clock,
) -> None:
    async with opened(config(user={"output_tokens": 100}), clock) as books:
        await reserve(books, "a")
        clock.now += DAY_S
        assert (await reserve(books, "b")).granted.output_tokens == 100
        await books.settle(record("a", written=100))
        assert books.spent("user:anna") == Amounts()
        clock.now -= DAY_S  # a clock that is set back finds what it left
        with pytest.raises(BudgetExhausted):
            await reserve(books, "c")
        clock.now += 5 * DAY_S
        await books.settle(record("b"))
        assert (await reserve(books, "d")).granted.output_tokens == 100


async def test_accounts_that_are_over_are_forgotten_also_by_the_store(
    clock: Clock, tmp_path: Path
) -> None:
    settings = config(user={"output_tokens": 100})
    async with opened(settings, clock, store(tmp_path)) as books:
        for number in range(10):
            await reserve(books, f"a{number}", Caller(user=f"u{number}"))
            await books.settle(record(f"a{number}"))
        clock.now += 3 * DAY_S
        await reserve(books, "b")
        await books.settle(record("b"))
    async with opened(settings, clock, store(tmp_path)) as books:
        backend = books._hub.backend
        assert isinstance(backend, Documents)
        assert list(await backend.load_documents(BUDGET)) == ["account/20003/user:anna"]


# --- taking more --------------------------------------------------------------------------------


async def test_an_answer_takes_more_until_its_budgets_leave_nothing(clock: Clock) -> None:
    settings = config(user={"output_tokens": 250}, reserve_output_tokens=100)
    async with opened(settings, clock) as books:
        hold = await reserve(books, "a", ask_output=None)
        assert hold.granted.output_tokens == 100
        hold = await books.extend("a")
        assert hold is not None
        assert hold.limits.output_tokens == 200
        hold = await books.extend("a")
        assert hold is not None
        assert hold.limits.output_tokens == 250
        assert await books.extend("a") is None
        await books.settle(record("a", written=251))
        assert await books.extend("a") is None
        with pytest.raises(BudgetExhausted):
            await reserve(books, "b")


async def test_a_caller_that_named_a_maximum_is_not_cut_by_an_estimate(clock: Clock) -> None:
    """The meter's estimate can pass a maximum that the provider keeps to."""
    async with opened(config(user={"total_tokens": 10_000}), clock) as books:
        hold = await reserve(books, "a", ask_output=100, input_tokens=10)
        assert hold.limits.total_tokens == 110
        hold = await books.extend("a", Amounts(output_tokens=101, total_tokens=1_101))
        assert hold is not None
        assert hold.limits.total_tokens is not None
        assert hold.limits.total_tokens > 1_101


async def test_a_provider_is_told_what_is_left_unless_some_model_refuses_so_much(
    clock: Clock,
) -> None:
    settings = config(user={"output_tokens": 10_000}, answer={"total_tokens": 9_000})
    async with opened(settings, clock) as books:
        named = await reserve(books, "a", ask_output=8_000)
        assert books.told(named, 8_000) == 8_000
        unnamed = await reserve(books, "b", ask_output=None)
        assert unnamed.granted.output_tokens == 2_000
        assert books.told(unnamed, None) == 2_000
        await books.settle(record("a", written=0))
        assert books.told(unnamed, None) is None  # 9,990 by the day, 8,990 by the answer
        other = await reserve(books, "c", ask_output=None, input_tokens=8_000)
        assert books.told(other, None) == 1_000


# --- settling -----------------------------------------------------------------------------------


async def test_an_answer_is_charged_and_recorded_once(clock: Clock) -> None:
    hooks = Told()
    async with opened(config(all={"money": "1"}), clock, hooks=hooks) as books:
        await reserve(books, "a")
        await asyncio.gather(*(books.settle(record("a")) for _ in range(3)))
        await books.settle(record("never reserved"))
        assert books.spent("all").money == Money.read("0.00005")
        (line,) = [line async for line in lines(books._hub)]
        assert json.loads(line) == record("a").to_json()
    (figures,) = hooks.ended
    assert (figures.input_tokens, figures.output_tokens) == (10, 20)
    assert figures.money_units == 50_000_000
    assert (figures.first_token_s, figures.total_s) == (0.5, 2.5)


async def test_an_answer_that_failed_before_a_word_costs_nothing(clock: Clock) -> None:
    counts = Counts(
        usage=Usage(input_tokens=10, output_tokens=0, partial=True),
        money=Money.read("0.00001"),
        is_estimate=True,
    )
    async with opened(config(user={"total_tokens": 1_000}), clock) as books:
        for id, end, spent in (("a", "failed", 0), ("b", "cancelled", 10)):
            await reserve(books, id)
            await books.settle(record(id, end=end, counts=counts, upstream=""))
            assert books.spent("user:anna").total_tokens == spent
        found = [json.loads(line) async for piece in lines(books._hub) for line in piece.split()]
        assert [(one["input_tokens"], one["money"]) for one in found] == [
            (0, "0"),
            (10, "0.00001"),
        ]


async def test_the_log_has_a_line_for_each_answer(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "penstock")
    async with opened(config(), clock) as books:
        await reserve(books, "a")
        await books.settle(record("a", model="x\ny\u2028z"))
    (line,) = [entry.getMessage() for entry in caplog.records if "answer " in entry.getMessage()]
    assert len(line.splitlines()) == 1
    assert json.loads(line.removeprefix("answer "))["model"] == "x\ny\u2028z"


async def test_records_of_a_time_are_those_of_answers_that_began_in_it(clock: Clock) -> None:
    async with opened(config(), clock) as books:
        for number in range(5):
            await reserve(books, f"a{number}")
            timing = Timing(started_s=NOON + number)
            await books.settle(record(f"a{number}", timing=timing))
        pieces = [piece async for piece in lines(books._hub, NOON + 1, NOON + 3)]
        found = [json.loads(line)["request"] for line in b"".join(pieces).splitlines()]
        assert found == ["a1", "a2"]


async def test_records_that_are_not_kept_any_more_are_told_of(clock: Clock) -> None:
    async with opened(config(), clock) as books:
        hub = books._hub
        await hub.create(USAGE, retention=hub.with_retention(max_records=2))
        for number in range(5):
            await reserve(books, f"a{number}")
            timing = Timing(started_s=NOON + number)
            await books.settle(record(f"a{number}", timing=timing))
        found = b"".join([piece async for piece in lines(hub)]).splitlines()
        assert json.loads(found[0]) == {"kept_since_s": NOON + 3}
        assert [json.loads(line)["request"] for line in found[1:]] == ["a3", "a4"]
        later = b"".join([piece async for piece in lines(hub, NOON + 3)]).splitlines()
        assert later == found[1:]


async def test_without_a_record_there_are_no_lines() -> None:
    async with Hub() as hub:
        assert [piece async for piece in lines(hub)] == []


async def test_tries_are_counted_by_why_they_were_made(clock: Clock) -> None:
    hooks = Told()
    attempts = Attempts(hooks)
    first, second = (
        UpstreamSettings(name=name, dialect="ollama", base_url="http://x") for name in ("a", "b")
    )
    failure = Failure(message="no", code="no")
    for upstream, why in ((first, failure), (first, failure), (second, failure), (second, None)):
        attempts(upstream, why)
    assert hooks.attempts == [
        ("a", "first", "failed"),
        ("a", "retry", "failed"),
        ("b", "fallback", "failed"),
        ("b", "retry", "answered"),
    ]


# --- stores that fail, and servers that die -----------------------------------------------------


class Broken:
    """Has documents refused, while it is broken."""

    def __init__(self, backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_broken = False
        self.stored = 0
        store_document, append = backend.store_document, backend.append

        async def broken_store(kind: str, name: str, body: bytes | None) -> None:
            if self.is_broken:
                raise DiskFull("store.db")
            self.stored += 1
            await store_document(kind, name, body)

        async def broken_append(name: str, *rest: Any, **more: Any) -> Any:
            if self.is_broken:
                raise DiskFull("store.db")
            return await append(name, *rest, **more)

        monkeypatch.setattr(backend, "store_document", broken_store)
        monkeypatch.setattr(backend, "append", broken_append)


async def test_what_cannot_be_stored_is_not_held(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(config(user={"output_tokens": 100}), clock, store(tmp_path)) as books:
        broken = Broken(books._hub.backend, monkeypatch)
        broken.is_broken = True
        with pytest.raises(DiskFull):
            await reserve(books, "a")
        assert books.running == 0
        broken.is_broken = False
        assert (await reserve(books, "a")).granted.output_tokens == 100


async def test_what_was_charged_while_the_store_failed_is_stored_later(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = config(user={"output_tokens": 1_000})
    async with opened(settings, clock, store(tmp_path)) as books:
        broken = Broken(books._hub.backend, monkeypatch)
        for number in range(5):
            await reserve(books, f"a{number}")
        broken.is_broken = True
        for number in range(5):
            await books.settle(record(f"a{number}", written=10))
        assert books.spent("user:anna").output_tokens == 50
        told = [entry for entry in caplog.records if "usage records wait" in entry.getMessage()]
        assert len(told) == 1  # not at every answer
        broken.is_broken = False
        await reserve(books, "b")
        await books.settle(record("b", written=10))
    async with opened(settings, clock, store(tmp_path)) as books:
        assert books.spent("user:anna").output_tokens == 60
        found = b"".join([piece async for piece in lines(books._hub)]).splitlines()
        assert [json.loads(line)["request"] for line in found] == [
            *(f"a{number}" for number in range(5)),
            "b",
        ]


async def test_a_reservation_that_is_cancelled_holds_nothing_and_a_settlement_is_made(
    clock: Clock, tmp_path: Path
) -> None:
    settings = config(user={"output_tokens": 100})
    hooks = Told()
    async with opened(settings, clock, store(tmp_path), hooks) as books:
        task = asyncio.create_task(reserve(books, "a"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (books.running, hooks.started) == (0, 0)
        await reserve(books, "b")
        task = asyncio.create_task(books.settle(record("b", written=30)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    async with opened(settings, clock, store(tmp_path)) as books:
        assert books.spent("user:anna").output_tokens == 30
        assert len([line async for line in lines(books._hub)]) == 1


async def test_answers_that_begin_together_share_their_commits(
    clock: Clock, tmp_path: Path
) -> None:
    async with opened(config(all={"output_tokens": 10**6}), clock, store(tmp_path)) as books:
        backend: Any = books._hub.backend
        before = backend.counts.commits
        await asyncio.gather(*(reserve(books, f"a{number}") for number in range(50)))
        assert backend.counts.commits - before <= 6
        for number in range(50):
            await books.settle(record(f"a{number}"))


KILLED = """
import asyncio, sys
sys.path[:0] = {path!r}
from gateway.test_books import *

async def main():
    clock = Clock(NOON)
    settings = config(user={{"output_tokens": 1_000}}, all={{"money": "1"}})
    async with opened(settings, clock, {store!r}) as books:
        await reserve(books, "done")
        await books.settle(record("done", written=7))
        await reserve(books, "runs", ask_output=400)
        await reserve(books, "runs too", BERT, ask_output=100)
        await books.extend("runs")
        print("held", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_after_a_kill_what_was_held_counts_as_spent(clock: Clock, tmp_path: Path) -> None:
    """By `kill -9`, and once: however often it starts again."""
    script = tmp_path / "killed.py"
    path = [str(Path(__file__).parents[1])]
    script.write_text(KILLED.format(path=path, store=store(tmp_path)))
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        process.send_signal(signal.SIGKILL)
    settings = config(user={"output_tokens": 1_000}, all={"money": "1"})
    held = PRICE.most(10, 1_000) + PRICE.most(10, 100)
    for _ in range(2):
        async with opened(settings, clock, store(tmp_path)) as books:
            assert books.spent("user:anna").output_tokens == 1_000
            assert books.spent("user:bert").output_tokens == 100
            used = PRICE.cost(Usage(input_tokens=10, output_tokens=7))
            assert books.spent("all").money.units <= (held + used).units
            assert books.spent("all").money.units > held.units - PRICE.most(0, 8).units
            with pytest.raises(BudgetExhausted):
                await reserve(books, "more")
            assert await reserve(books, "other", BERT)
            await books.settle(record("other", written=0, end="failed"))


async def test_documents_that_are_none_refuse_the_start(clock: Clock, tmp_path: Path) -> None:
    async with Hub(store(tmp_path)) as hub:
        backend = hub.backend
        assert isinstance(backend, Documents)
        for body in (b"[]", b"{}", b'{"day": 1, "account": "all", "spent": {}}'):
            await backend.store_document(BUDGET, "account/1/all", body)
            with pytest.raises(StoreDamaged):
                await Books(hub, config(all={"money": "1"}), clock).open()
