"""Daily budgets hold, whatever runs at once, and what an answer held comes back when it ends."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
)

from llm.filtering import draw_and_say_seed
from llm.reading import read
from penstock.core.errors import BodyMalformed, StoreFull
from penstock.llm.budget import Amounts, Ask, Hold, Limits, Refusal, day_end_s, day_of
from penstock.llm.budget_ledger import Ledger
from penstock.llm.events import Failure, TokenEvent
from penstock.llm.meter import Meter
from penstock.llm.meter_prices import Money, Price
from penstock.testing.recordings import VOICES, built_in

FREE = Limits()
PRICE = Price(input=Money.read("1"), output=Money.read("10"), cached=Money.read("0.1"))
ASK = Ask(input_tokens=10, output_tokens=100)


def granted(
    ledger: Ledger, id: str, ask: Ask, budgets: dict[str, Limits], own: Limits = FREE
) -> int:
    hold = ledger.reserve(id, ask, budgets, own, day=1)
    assert isinstance(hold, Hold)
    return hold.granted.output_tokens


def test_a_day_begins_at_midnight_of_the_offset() -> None:
    assert day_of(0) == day_of(86_399.9) == 0
    assert day_of(86_400) == 1
    assert day_of(86_400, -3600) == 0
    assert day_of(82_800, 3600) == 1
    for offset in (-36_000, 0, 3600):
        end = day_end_s(20_000, offset)
        assert (day_of(end - 1, offset), day_of(end, offset)) == (20_000, 20_001)


def test_what_is_granted_is_what_every_limit_leaves() -> None:
    assert granted(Ledger(), "a", ASK, {}) == 100
    assert granted(Ledger(), "a", ASK, {}, Limits(output_tokens=30)) == 30
    assert granted(Ledger(), "a", ASK, {"user": Limits(total_tokens=50)}) == 40
    ask = Ask(input_tokens=10, output_tokens=100, price=PRICE)
    both = {"user": Limits(output_tokens=60), "key": Limits(money=Money.read("0.000511"))}
    assert granted(Ledger(), "a", ask, both) == 50


@pytest.mark.parametrize(
    ("own", "budget", "refusal"),
    [
        (Limits(output_tokens=0), FREE, ("", "output_tokens")),
        (FREE, Limits(total_tokens=10), ("user", "total_tokens")),
        (FREE, Limits(money=Money.read("0.00001")), ("user", "money")),
        (Limits(money=Money.read("0.000001")), FREE, ("", "money")),
    ],
)
def test_where_no_output_token_is_left_nothing_is_held(
    own: Limits, budget: Limits, refusal: tuple[str, str]
) -> None:
    ledger = Ledger()
    ask = Ask(input_tokens=10, output_tokens=100, price=PRICE)
    refused = ledger.reserve("a", ask, {"user": budget}, own, day=1)
    assert isinstance(refused, Refusal)
    assert (refused.account, refused.limit) == refusal
    assert ledger.left("user", budget, day=1) == budget
    assert ledger.hold("a") is None


def test_a_budget_of_money_refuses_a_model_without_a_price() -> None:
    refused = Ledger().reserve("a", ASK, {"user": Limits(money=Money.read("9"))}, FREE, day=1)
    assert isinstance(refused, Refusal)
    assert refused.limit == "money"


def test_answers_hold_until_they_settle_and_then_only_what_they_used_is_gone() -> None:
    ledger, budget = Ledger(), {"user": Limits(output_tokens=150)}
    assert granted(ledger, "a", ASK, budget) == 100
    assert granted(ledger, "b", ASK, budget) == 50
    assert isinstance(ledger.reserve("c", ASK, budget, FREE, day=1), Refusal)
    ledger.settle("a", Amounts(output_tokens=20))
    assert granted(ledger, "c", ASK, budget) == 80
    assert ledger.spent("user", day=1) == Amounts(output_tokens=20)


def test_an_answer_is_charged_once() -> None:
    ledger = Ledger()
    granted(ledger, "a", ASK, {"user": FREE})
    for _ in range(3):
        ledger.settle("a", Amounts(output_tokens=20))
    ledger.settle("never", Amounts(output_tokens=20))
    assert ledger.spent("user", day=1).output_tokens == 20
    granted(ledger, "b", ASK, {})
    with pytest.raises(ValueError, match="already"):
        granted(ledger, "b", ASK, {})


def test_an_answer_is_charged_to_the_day_it_began() -> None:
    ledger, budget = Ledger(), {"user": Limits(output_tokens=100)}
    granted(ledger, "a", ASK, budget)
    assert isinstance(ledger.reserve("b", ASK, budget, FREE, day=2), Hold)
    ledger.forget_before(2)
    ledger.settle("a", Amounts(output_tokens=70))
    assert ledger.spent("user", day=1).output_tokens == 70
    assert ledger.spent("user", day=2).output_tokens == 0
    ledger.forget_before(2)
    assert ledger.spent("user", day=1).output_tokens == 0


def test_an_overspent_account_grants_nothing_more_that_day() -> None:
    ledger, budget = Ledger(), {"user": Limits(output_tokens=100)}
    granted(ledger, "a", ASK, budget)
    ledger.settle("a", Amounts(output_tokens=130))
    assert ledger.left("user", budget["user"], day=1).output_tokens == -30
    assert isinstance(ledger.reserve("b", ASK, budget, FREE, day=1), Refusal)


def test_an_answer_that_needs_more_gets_it_while_there_is_more() -> None:
    ledger, budget = Ledger(), {"user": Limits(output_tokens=150)}
    granted(ledger, "a", Ask(input_tokens=0, output_tokens=60), budget)
    granted(ledger, "b", Ask(input_tokens=0, output_tokens=60), budget)
    more = ledger.extend("a", Ask(input_tokens=0, output_tokens=120), budget, FREE)
    assert isinstance(more, Hold)
    assert more.limits.output_tokens == 90
    again = ledger.extend("b", Ask(input_tokens=0, output_tokens=120), budget, FREE)
    assert isinstance(again, Hold)
    assert again.limits.output_tokens == 60
    assert ledger.left("user", budget["user"], day=1).output_tokens == 0
    with pytest.raises(LookupError):
        ledger.extend("c", ASK, budget, FREE)


def test_a_ledger_takes_no_more_accounts_than_it_may() -> None:
    ledger = Ledger(max_accounts=2)
    granted(ledger, "a", ASK, {"user": FREE, "key": FREE})
    granted(ledger, "b", ASK, {"user": FREE})
    with pytest.raises(StoreFull):
        granted(ledger, "c", ASK, {"other": FREE})
    assert ledger.hold("c") is None


def test_what_answers_held_when_their_process_died_is_spent() -> None:
    ledger = Ledger(is_written=True)
    budget = {"user": Limits(output_tokens=500), "key": FREE}
    granted(ledger, "a", ASK, budget)
    ledger.settle("a", Amounts(output_tokens=7, total_tokens=9, money=Money.read("0.5")))
    granted(ledger, "b", ASK, budget)
    written = json.loads(json.dumps(ledger.documents()))
    for documents in (written, dict(reversed(written.items()))):
        after = Ledger.restore(documents.values())
        assert after.spent("user", day=1) == Amounts(
            output_tokens=107, total_tokens=119, money=Money.read("0.5")
        )
        changes = after.changes()
        assert changes["hold/b"] is None
        assert changes["account/1/user"] == after.documents()["account/1/user"]
        assert after.hold("b") is None


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"day": -1, "account": "a", "spent": {}},
        {"day": 1, "account": "a"},
        {"day": 1, "account": "a", "spent": {"output_tokens": 1, "total_tokens": 1, "money": 1}},
        {"day": 1, "id": "a", "accounts": ["a"], "held": {"output_tokens": "1"}},
    ],
)
def test_a_document_that_no_ledger_wrote_is_refused(document: dict) -> None:
    with pytest.raises(BodyMalformed):
        Ledger.restore([document])


def test_changes_are_kept_only_where_somebody_writes_them() -> None:
    silent = Ledger()
    granted(silent, "a", ASK, {"user": FREE})
    assert silent.changes() == {}
    assert set(silent.documents()) == {"account/1/user", "hold/a"}


# --- fifty answers at once ----------------------------------------------------------------------

STREAMS: list[list[TokenEvent]] = [
    read("openai-chat", built_in(voice).recording("openai-chat").body) for voice in VOICES
]


@pytest.mark.parametrize("step", [4, 64, 5000])
@pytest.mark.parametrize("daily", [1, 500, 3000])
def test_a_daily_budget_holds_under_fifty_answers_at_once(daily: int, step: int) -> None:
    """Answers run interleaved, each reserving `step` tokens at a time; some fail on the way."""
    draw = draw_and_say_seed()
    ledger, day = Ledger(), {"user": Limits(output_tokens=daily)}
    running: dict[str, tuple[Meter, list[TokenEvent]]] = {}
    shown: Counter[str] = Counter()
    for number in range(50):
        ask = Ask(input_tokens=0, output_tokens=step)
        hold = ledger.reserve(str(number), ask, day, FREE, day=1)
        if isinstance(hold, Hold):
            running[hold.id] = Meter(limits=hold.limits), list(draw.choice(STREAMS))
    assert running
    while running:
        id = draw.choice(list(running))
        meter, events = running[id]
        event = events.pop(0)
        if draw.random() < 0.002:
            event, events[:] = Failure(message="", code="upstream-failed"), []
        limit = meter.receive_event(event)
        if limit is not None:
            hold = ledger.hold(id)
            assert hold is not None
            most = hold.granted.output_tokens + step
            more = ledger.extend(id, Ask(input_tokens=0, output_tokens=most), day, FREE)
            meter.limits = more.limits if isinstance(more, Hold) else meter.limits
        if meter.cut_by is None:
            shown[id] = meter.counts().usage.output_tokens
        if meter.cut_by is not None or not events:
            del running[id]
            ledger.settle(id, Amounts(output_tokens=shown[id]))
        left = ledger.left("user", day["user"], day=1).output_tokens
        assert left is not None
        assert left >= 0
    assert sum(shown.values()) <= daily
    assert ledger.spent("user", day=1).output_tokens == sum(shown.values())


# --- any answers in any order -------------------------------------------------------------------

LIMITS = {
    "user": Limits(output_tokens=1000, money=Money.read("0.009")),
    "key": Limits(total_tokens=1500),
    "all": Limits(output_tokens=2500),
}


class Days(RuleBasedStateMachine):
    """Answers begin, grow, end, fail and are lost; no limit is ever passed."""

    answers = Bundle("answers")

    @initialize()
    def begin(self) -> None:
        self.ledger = Ledger(is_written=True)
        self.day = 20_000
        self.count = 0
        self.spent: dict[tuple[int, str], Amounts] = {}
        self.running: set[str] = set()
        self.kept: dict[str, dict] = {}

    @rule(
        target=answers,
        read=st.integers(0, 300),
        written=st.integers(1, 700),
        accounts=st.sets(st.sampled_from(sorted(LIMITS))),
        own=st.one_of(st.none(), st.integers(0, 400)),
    )
    def reserve(self, read: int, written: int, accounts: set[str], own: int | None) -> str:
        self.count += 1
        id = str(self.count)
        ask = Ask(input_tokens=read, output_tokens=written, price=PRICE)
        budgets = {name: LIMITS[name] for name in sorted(accounts)}
        hold = self.ledger.reserve(id, ask, budgets, Limits(output_tokens=own), day=self.day)
        if isinstance(hold, Hold):
            assert 1 <= hold.granted.output_tokens <= min(written, own or written)
            self.running.add(id)
        return id

    @rule(id=answers, more=st.integers(1, 300))
    def extend(self, id: str, more: int) -> None:
        hold = self.ledger.hold(id)
        if hold is None:
            return
        most = hold.granted.output_tokens + more
        ask = Ask(input_tokens=hold.granted.input_tokens, output_tokens=most, price=PRICE)
        self.ledger.extend(id, ask, LIMITS, FREE)
        after = self.ledger.hold(id)
        assert after is not None
        assert after.granted.output_tokens >= hold.granted.output_tokens

    @rule(id=consumes(answers), share=st.floats(0, 1))
    def settle(self, id: str, share: float) -> None:
        """Whole, cut off, cancelled or failed: some of what was granted was used."""
        hold = self.ledger.hold(id)
        assert (hold is not None) == (id in self.running)
        spent = Amounts()
        if hold is not None:
            written = int(hold.granted.output_tokens * share)
            read = hold.granted.input_tokens
            money = PRICE.most(read, written)
            spent = Amounts(output_tokens=written, total_tokens=read + written, money=money)
            for account in hold.accounts:
                before = self.spent.get((hold.day, account), Amounts())
                self.spent[hold.day, account] = before + spent
            self.running.remove(id)
        self.ledger.settle(id, spent)

    @rule()
    def write(self) -> None:
        for name, document in self.ledger.changes().items():
            if document is None:
                self.kept.pop(name, None)
            else:
                self.kept[name] = json.loads(json.dumps(document))
        assert self.kept == self.ledger.documents()

    @rule()
    def die_and_come_back(self) -> None:
        self.write()
        for id in self.running:
            hold = self.ledger.hold(id)
            assert hold is not None
            for account in hold.accounts:
                before = self.spent.get((hold.day, account), Amounts())
                self.spent[hold.day, account] = before + hold.amounts
        self.running.clear()
        self.ledger = Ledger.restore(self.kept.values())

    @rule()
    @precondition(lambda self: not self.running)
    def next_day(self) -> None:
        self.day += 1
        self.ledger.forget_before(self.day)
        self.spent = {key: spent for key, spent in self.spent.items() if key[0] >= self.day}

    @invariant()
    def no_limit_is_passed(self) -> None:
        for (day, account), spent in self.spent.items():
            assert self.ledger.spent(account, day=day) == spent
        for account, limits in LIMITS.items():
            left = self.ledger.left(account, limits, day=self.day)
            assert left.passed_by(Amounts()) is None, (account, left)

    @invariant()
    def nothing_is_held_when_nothing_runs(self) -> None:
        if not self.running:
            for account, limits in LIMITS.items():
                spent = self.ledger.spent(account, day=self.day)
                assert self.ledger.left(account, limits, day=self.day) == limits.minus(spent)


TestDays = Days.TestCase
TestDays.settings = settings(deadline=None, print_blob=True, stateful_step_count=40)
