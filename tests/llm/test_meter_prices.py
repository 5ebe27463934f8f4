"""Money is exact: a price a million tokens is a whole amount a token, and nothing is rounded."""

from __future__ import annotations

from decimal import Decimal
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import SettingInvalid
from penstock.llm.events import Usage
from penstock.llm.meter_prices import Money, Price, PriceTable, matches

amounts = st.decimals(0, 10**9, places=6).map(lambda amount: format(amount, "f"))
counts = st.integers(0, 10**9)


def money(text: str) -> Money:
    return Money.read(text)


@pytest.mark.parametrize("text", ["0", "12", "0.075", "1.000000000001", "999999999999999"])
def test_an_amount_is_written_as_it_was_read(text: str) -> None:
    assert str(money(text)) == text


def test_zeros_at_the_end_say_nothing_and_below_zero_has_a_sign() -> None:
    assert str(money("1.50")) == "1.5"
    assert str(money("1") - money("3.25")) == "-2.25"


@pytest.mark.parametrize(
    "text", ["", "-1", "1.", ".5", "1e3", "1,5", "٣", "1" * 16, "0." + "1" * 13]
)
def test_what_is_no_decimal_number_is_no_amount(text: str) -> None:
    with pytest.raises(ValueError, match="no amount"):
        money(text)


def test_every_kind_of_token_has_its_price() -> None:
    price = Price(
        input=money("3"),
        output=money("15"),
        cached=money("0.3"),
        cache_write=money("3.75"),
        reasoning=money("60"),
    )
    usage = Usage(
        input_tokens=1000,
        output_tokens=500,
        cached_tokens=600,
        cache_write_tokens=100,
        reasoning_tokens=200,
    )
    # 300 × 3 + 600 × 0.3 + 100 × 3.75 + 300 × 15 + 200 × 60, in millionths
    assert str(price.cost(usage)) == "0.017955"


def test_kinds_without_a_price_cost_the_plain_one() -> None:
    price = Price(input=money("1"), output=money("2"))
    usage = Usage(input_tokens=10, output_tokens=20, cached_tokens=5, reasoning_tokens=20)
    assert str(price.cost(usage)) == "0.00005"


@given(amounts, amounts, amounts, counts, counts, counts)
def test_a_cost_is_what_decimal_arithmetic_says(
    input: str, output: str, cached: str, read: int, written: int, again: int
) -> None:
    price = Price(input=money(input), output=money(output), cached=money(cached))
    usage = Usage(input_tokens=read + again, output_tokens=written, cached_tokens=again)
    wanted = read * Decimal(input) + written * Decimal(output) + again * Decimal(cached)
    assert Decimal(str(price.cost(usage))) == wanted / 10**6


@given(amounts, amounts, amounts, counts, counts, st.integers(0, 10**6))
def test_the_output_that_money_pays_for_is_paid_by_it(
    input: str, output: str, budget: str, read: int, thought: int, again: int
) -> None:
    price = Price(input=money(input), output=money(output))
    most = price.output_for(money(budget), read)
    if most is None:
        assert money(output) == Money()
    elif most >= 0:
        assert price.most(read, most) <= money(budget)
        assert price.most(read, most + 1) > money(budget)
        usage = Usage(
            input_tokens=read,
            output_tokens=most,
            reasoning_tokens=min(thought, most),
            cached_tokens=min(again, read),
        )
        assert price.cost(usage) <= money(budget)


def test_a_price_below_a_millionth_is_refused() -> None:
    with pytest.raises(SettingInvalid, match="6 decimals"):
        Price(input=money("0.0000001"), output=money("1"))


TABLE = {
    "gpt-4o-mini*": {"input": "0.15", "output": "0.6", "cached": "0.075"},
    "gpt-4o*": {"input": "2.5", "output": 10},
    "*": {"input": 0, "output": 0},
}


def test_the_first_pattern_that_matches_names_the_price() -> None:
    table = PriceTable.read(TABLE)
    mini, large, free = (table.find(m) for m in ("gpt-4o-mini-2024", "gpt-4o", "llama3"))
    assert mini is not None
    assert mini.cached == money("0.075")
    assert large is not None
    assert large.output == money("10")
    assert free is not None
    assert PriceTable.read({"a": TABLE["*"]}).find("b") is None


@pytest.mark.parametrize(
    ("kinds", "where"),
    [
        ({"input": 0.1, "output": "1"}, "string"),
        ({"input": True, "output": "1"}, "string"),
        ({"input": "-1", "output": "1"}, "string"),
        ({"input": "1"}, "input and output"),
        ({"input": "1", "output": "1", "images": "1"}, "no kind"),
    ],
    ids=repr,
)
def test_a_mistake_in_the_table_is_found_when_it_is_read(kinds: dict, where: str) -> None:
    with pytest.raises(SettingInvalid, match=where):
        PriceTable.read({"m": kinds})


@given(st.text("ab*", max_size=6), st.text("ab", max_size=8))
def test_a_star_stands_for_any_characters(pattern: str, text: str) -> None:
    assert matches(pattern, text) == fnmatchcase(text, pattern)
