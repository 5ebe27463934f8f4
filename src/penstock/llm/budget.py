"""Budgets: how much an answer may use, and a principal in a day.

`Limits` say how much, in output tokens, in all tokens and in money; `Amounts` are what was used. An
answer says with `Ask` what it would use, and gets a `Hold` or a `Refusal`; `budget_ledger.py` keeps
them. What is granted is always a number of output tokens, the largest that every limit leaves: it
is what a provider can be told as its maximum.

Values and arithmetic; time and days arrive as arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from penstock.llm.events import Json
from penstock.llm.meter_prices import Money, Price

LimitName = Literal["output_tokens", "total_tokens", "money"]

_DAY_S: Final = 86_400
_NOTHING: Final = Money()


def day_of(now_s: float, utc_offset_s: int = 0) -> int:
    """The day that `now_s` (seconds since 1970) lies in, counted from 1970-01-01; days begin at
    midnight of this offset from UTC."""
    return int((now_s + utc_offset_s) // _DAY_S)


def day_end_s(day: int, utc_offset_s: int = 0) -> int:
    """When `day` is over, in seconds since 1970: when its budgets are new."""
    return (day + 1) * _DAY_S - utc_offset_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """What was used, or is held."""

    output_tokens: int = 0
    total_tokens: int = 0
    money: Money = _NOTHING

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(
            output_tokens=self.output_tokens + other.output_tokens,
            total_tokens=self.total_tokens + other.total_tokens,
            money=self.money + other.money,
        )

    def __sub__(self, other: Amounts) -> Amounts:
        return Amounts(
            output_tokens=self.output_tokens - other.output_tokens,
            total_tokens=self.total_tokens - other.total_tokens,
            money=self.money - other.money,
        )

    def to_json(self) -> dict[str, Json]:
        """Plain values; money is a decimal number as text."""
        tokens: dict[str, Json] = {"output_tokens": self.output_tokens}
        return {**tokens, "total_tokens": self.total_tokens, "money": str(self.money)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much may be used; None is no limit. `output_tokens` include what the model thinks."""

    output_tokens: int | None = None
    total_tokens: int | None = None
    money: Money | None = None

    def minus(self, used: Amounts) -> Limits:
        """What is left; below zero where more was used."""
        return Limits(
            output_tokens=_minus(self.output_tokens, used.output_tokens),
            total_tokens=_minus(self.total_tokens, used.total_tokens),
            money=None if self.money is None else self.money - used.money,
        )

    def passed_by(self, used: Amounts) -> LimitName | None:
        """The limit that `used` is above, or None."""
        if self.output_tokens is not None and used.output_tokens > self.output_tokens:
            return "output_tokens"
        if self.total_tokens is not None and used.total_tokens > self.total_tokens:
            return "total_tokens"
        if self.money is not None and used.money > self.money:
            return "money"
        return None

    def max_output(self, input_tokens: int, price: Price | None) -> tuple[int | None, LimitName]:
        """The output tokens that these limits leave beside this input, and the limit that says so.

        None is any number. Without a price no money can be counted, so a limit of money leaves
        none.
        """
        least: tuple[int | None, LimitName] = self.output_tokens, "output_tokens"
        if self.total_tokens is not None:
            least = _lower(least, self.total_tokens - input_tokens, "total_tokens")
        if self.money is not None:
            affordable = 0 if price is None else price.output_for(self.money, input_tokens)
            least = _lower(least, affordable, "money")
        return least


def _minus(limit: int | None, used: int) -> int | None:
    return None if limit is None else limit - used


def _lower(
    least: tuple[int | None, LimitName], count: int | None, name: LimitName
) -> tuple[int | None, LimitName]:
    if count is None or (least[0] is not None and least[0] <= count):
        return least
    return count, name


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What an answer would use.

    Attributes:
        input_tokens: what it reads, as far as known; `estimate_tokens` gives a guess.
        output_tokens: the most it should write: what the caller asked for, or a default.
        price: what its model costs, None where nobody knows.
    """

    input_tokens: int
    output_tokens: int
    price: Price | None = None

    def amounts(self) -> Amounts:
        """The most that it can use."""
        total = self.input_tokens + self.output_tokens
        money = self.price.most(self.input_tokens, self.output_tokens) if self.price else _NOTHING
        return Amounts(output_tokens=self.output_tokens, total_tokens=total, money=money)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """What an answer that runs may use, and is not spent yet.

    Attributes:
        id: the answer.
        day: the day it is charged to, however long it runs.
        accounts: who is charged.
        granted: what was asked for, its output tokens lowered to what is left. Give those to the
            provider as its maximum.
        limits: what a meter cuts the answer at: the granted output tokens, and of all tokens and
            of money what is held, where somebody limits those.
    """

    id: str
    day: int
    accounts: tuple[str, ...]
    granted: Ask
    limits: Limits

    @property
    def amounts(self) -> Amounts:
        return self.granted.amounts()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Nothing is left.

    Attributes:
        account: whose limit it is, "" for the answer's own.
        limit: which.
        day: on which day; it may be asked again on the next, unless the limit is the answer's own.
    """

    account: str
    limit: LimitName
    day: int
