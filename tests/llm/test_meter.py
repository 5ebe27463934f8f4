"""A meter counts as the provider does where it says so, estimates where not, and cuts in time."""

from __future__ import annotations

import json

import pytest

from llm.filtering import START, STOP
from penstock.llm.budget import Amounts, Limits
from penstock.llm.events import (
    Data,
    Failure,
    Reasoning,
    Stop,
    Text,
    TokenEvent,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from penstock.llm.meter import Meter
from penstock.llm.meter_estimate import CALL_TOKENS, Estimate, estimate_tokens
from penstock.llm.meter_prices import Money, Price
from penstock.llm.meter_record import Timing, UsageRecord

PRICE = Price(input=Money.read("1"), output=Money.read("10"))
WORD = Text(text="word ")


def partial(output: int, input: int = 10) -> Usage:
    return Usage(input_tokens=input, output_tokens=output, partial=True)


def final(output: int, input: int = 10) -> Usage:
    return Usage(input_tokens=input, output_tokens=output)


def run(meter: Meter, *events: TokenEvent) -> int | None:
    """The place of the event that the meter cuts at."""
    for place, event in enumerate(events):
        if meter.receive_event(event) is not None:
            return place
    return None


def output_of(*events: TokenEvent) -> int:
    meter = Meter()
    run(meter, *events)
    return meter.counts().usage.output_tokens


def test_short_events_are_a_token_each() -> None:
    assert output_of(START, *[WORD] * 40) == 40


def test_long_events_are_counted_by_their_bytes() -> None:
    text = "a sentence of thirty-three bytes." * 10
    assert output_of(Text(text=text)) == estimate_tokens(text) == 100
    assert output_of(Text(text="日本語" * 11)) == 30


def test_what_the_model_thinks_and_calls_counts_and_what_only_repeats_does_not() -> None:
    call = ToolCall(index=0, id="i", name="f", arguments="{}", arguments_valid=True)
    begun = ToolCallDelta(index=0, id="i", name="f")
    assert output_of(Reasoning(text="hm"), begun, call, Data(kind="x", value="y" * 99)) == (
        2 + CALL_TOKENS
    )


def test_an_estimate_never_goes_down() -> None:
    estimate = Estimate()
    seen = []
    for event in [Text(text="x" * 60), *[Text(text="x")] * 50]:
        estimate.receive_event(event)
        seen.append(estimate.tokens)
    assert seen == sorted(seen)


def test_a_partial_count_replaces_what_was_estimated_before_it() -> None:
    assert output_of(*[WORD] * 10, partial(3), *[WORD] * 2) == 5


@pytest.mark.parametrize("late", [partial(0), partial(3)])
def test_a_count_that_does_not_go_on_sets_nothing_back(late: Usage) -> None:
    assert output_of(WORD, partial(3), *[WORD] * 10, late, late, WORD) == 14


def test_a_final_count_stands_above_everything() -> None:
    meter = Meter(price=PRICE)
    run(meter, START, partial(50), *[WORD] * 10, STOP, final(7, input=3), partial(90))
    counts = meter.counts()
    assert counts.usage == final(7, input=3)
    assert not counts.is_estimate
    assert str(counts.money) == "0.000073"
    assert counts.amounts == Amounts(output_tokens=7, total_tokens=10, money=Money.read("0.000073"))


def test_an_answer_that_nobody_counted_is_an_estimate() -> None:
    meter = Meter(input_tokens=30)
    run(meter, START, WORD, Failure(message="", code="upstream-truncated"))
    counts = meter.counts()
    assert counts.is_estimate
    assert (counts.usage.input_tokens, counts.usage.output_tokens) == (30, 1)
    assert counts.money is None


def test_the_event_that_passes_the_limit_is_cut_and_one_that_meets_it_is_not() -> None:
    meter = Meter(limits=Limits(output_tokens=5))
    assert run(meter, START, *[WORD] * 5, STOP) is None
    meter = Meter(limits=Limits(output_tokens=5))
    assert run(meter, START, *[WORD] * 9) == 6
    assert meter.cut_by == "output_tokens"
    assert meter.receive_event(WORD) == "output_tokens"


def test_a_partial_count_cuts_and_a_final_one_does_not() -> None:
    limits = Limits(output_tokens=5)
    assert run(Meter(limits=limits), START, WORD, partial(6)) == 2
    assert run(Meter(limits=limits), START, WORD, final(600), STOP) is None
    assert run(Meter(limits=limits), START, WORD, STOP, partial(600)) is None


def test_all_tokens_and_money_cut_too() -> None:
    assert run(Meter(input_tokens=7, limits=Limits(total_tokens=10)), *[WORD] * 9) == 3
    limits = Limits(money=Money.read("0.000047"))
    meter = Meter(input_tokens=7, price=PRICE, limits=limits)
    assert run(meter, *[WORD] * 9) == 4
    assert meter.cut_by == "money"
    assert run(Meter(limits=Limits(total_tokens=10)), START, partial(1, input=10)) == 1


def test_thoughts_and_caches_with_a_price_of_their_own_count_as_they_are_counted() -> None:
    dear = Price(input=Money.read("1"), output=Money.read("10"), reasoning=Money.read("100"))
    meter = Meter(price=dear, limits=Limits(money=Money.read("0.001")))
    assert run(meter, START, *[WORD] * 100) is None
    assert run(meter, WORD) == 0


def test_money_that_nobody_can_count_is_not_given_away() -> None:
    assert run(Meter(limits=Limits(money=Money.read("5"))), START, WORD) == 1


def test_an_answer_that_is_granted_more_goes_on() -> None:
    meter = Meter(limits=Limits(output_tokens=2))
    assert run(meter, *[WORD] * 3) == 2
    meter.limits = Limits(output_tokens=2)
    assert meter.cut_by == "output_tokens"
    meter.limits = Limits(output_tokens=3)
    assert meter.cut_by is None
    assert run(meter, WORD) == 0


def test_a_count_that_comes_after_the_cut_still_counts() -> None:
    meter = Meter(limits=Limits(output_tokens=2))
    run(meter, *[WORD] * 3)
    assert meter.receive_event(final(40)) == "output_tokens"
    assert meter.counts().usage == final(40)


def test_a_record_is_one_flat_object_without_a_word_of_the_answer() -> None:
    meter = Meter(price=PRICE)
    run(meter, Text(text="secret"), Stop(reason="stop"), final(7))
    record = UsageRecord(
        request="r",
        user="u",
        key="k",
        model="m",
        upstream="up",
        end="complete",
        counts=meter.counts(),
        timing=Timing(started_s=12.5, first_token_s=0.25),
    )
    written = json.dumps(record.to_json())
    assert "secret" not in written
    assert json.loads(written) == {
        "request": "r",
        "user": "u",
        "key": "k",
        "model": "m",
        "upstream": "up",
        "end": "complete",
        "cut_by": None,
        "input_tokens": 10,
        "output_tokens": 7,
        "reasoning_tokens": None,
        "cached_tokens": None,
        "cache_write_tokens": None,
        "is_estimate": False,
        "money": "0.00008",
        "started_s": 12.5,
        "first_token_s": 0.25,
        "total_s": None,
    }
