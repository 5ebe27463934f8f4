"""What tokens cost: money that is exact, and a table of prices by model.

An amount is a whole number of 10⁻¹² of the currency. A price is named for a million tokens with at
most six decimals, so a single token costs a whole number of those, and nothing is ever rounded. No
fraction, no float, and no rounding context that somebody else could change. Which currency it is,
the caller knows; amounts of two currencies must not meet.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from penstock.core.errors import SettingInvalid
from penstock.llm.events import Usage

_DECIMALS: Final = 12
_PRICE_DECIMALS: Final = 6
_UNIT: Final = 10**_DECIMALS
_MILLION: Final = 1_000_000

_AMOUNT: Final = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,12}))?")


@dataclass(frozen=True, slots=True, order=True)
class Money:
    """An amount: `units` of 10⁻¹² of the currency, below zero where it is such a difference."""

    units: int = 0

    @classmethod
    def read(cls, text: str) -> Money:
        """The amount that `text` says as a decimal number: "12", "0.075".

        Raises:
            ValueError: it is no such number, or has more than 15 digits before its point or 12
                behind it.
        """
        found = _AMOUNT.fullmatch(text)
        if found is None:
            raise ValueError(f"{text[:40]!r} is no amount of money")
        whole, fraction = found[1], found[2] or ""
        return cls(int(whole) * _UNIT + int(fraction.ljust(_DECIMALS, "0")))

    def __add__(self, other: Money) -> Money:
        return Money(self.units + other.units)

    def __sub__(self, other: Money) -> Money:
        return Money(self.units - other.units)

    def __str__(self) -> str:
        whole, fraction = divmod(abs(self.units), _UNIT)
        decimals = f"{fraction:0{_DECIMALS}}".rstrip("0")
        sign = "-" if self.units < 0 else ""
        return f"{sign}{whole}.{decimals}" if decimals else f"{sign}{whole}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a model's tokens cost, each amount for a million of them.

    Attributes:
        input: tokens read, those with a price of their own excepted.
        output: tokens written, those with a price of their own excepted.
        cached: tokens read from a cache; None is as `input`.
        cache_write: tokens written to a cache; None is as `input`.
        reasoning: tokens thought; None is as `output`.
    """

    input: Money
    output: Money
    cached: Money | None = None
    cache_write: Money | None = None
    reasoning: Money | None = None

    def __post_init__(self) -> None:
        for price in (self.input, self.output, self.cached, self.cache_write, self.reasoning):
            if price is not None and (price.units < 0 or price.units % _MILLION):
                reason = f"is {price}; a price is not below 0 and has at most 6 decimals"
                raise SettingInvalid("prices", reason)

    def cost(self, usage: Usage) -> Money:
        """What these counts cost. Kinds that the provider does not tell apart cost the plain price.

        A provider that counts more cached than read tokens is believed on each kind, and nothing
        is counted below zero.
        """
        cached, written = usage.cached_tokens or 0, usage.cache_write_tokens or 0
        thought = usage.reasoning_tokens or 0
        units = (
            max(usage.input_tokens - cached - written, 0) * self.input.units
            + cached * _or(self.cached, self.input)
            + written * _or(self.cache_write, self.input)
            + max(usage.output_tokens - thought, 0) * self.output.units
            + min(thought, usage.output_tokens) * _or(self.reasoning, self.output)
        )
        return Money(units // _MILLION)

    def most(self, input_tokens: int, output_tokens: int) -> Money:
        """The most that so many tokens can cost, whatever kinds they turn out to be."""
        read, write = self._dearest()
        return Money(input_tokens * read + output_tokens * write)

    def output_for(self, money: Money, input_tokens: int) -> int | None:
        """How many output tokens `money` pays for beside this input, at least; None is any number.

        Below zero where it does not even pay for the input.
        """
        read, write = self._dearest()
        left = money.units - input_tokens * read
        if left < 0:
            return -1
        return left // write if write else None

    def _dearest(self) -> tuple[int, int]:
        """The dearest kind of input and of output, for one token."""
        reads = (self.input.units, _or(self.cached, self.input), _or(self.cache_write, self.input))
        writes = (self.output.units, _or(self.reasoning, self.output))
        return max(reads) // _MILLION, max(writes) // _MILLION


def _or(price: Money | None, otherwise: Money) -> int:
    return otherwise.units if price is None else price.units


class PriceTable:
    """Prices by the model's name. Patterns may have `*`; the first that matches counts."""

    __slots__ = ("_prices",)

    def __init__(self, prices: Mapping[str, Price]) -> None:
        self._prices = dict(prices)

    @classmethod
    def read(cls, settings: Mapping[str, Mapping[str, object]]) -> PriceTable:
        """The table of settings: by pattern, what a million tokens of each kind cost.

        Amounts are strings ("0.075") or whole numbers. A float is refused: 0.1 is none.

        Raises:
            SettingInvalid: an amount is no such thing, `input` or `output` is missing, or a kind
                is not one.
        """
        return cls({pattern: _read_price(pattern, kinds) for pattern, kinds in settings.items()})

    def find(self, model: str) -> Price | None:
        """The price of a model, or None where the table has none."""
        found = (price for pattern, price in self._prices.items() if matches(pattern, model))
        return next(found, None)


def _read_price(pattern: str, kinds: Mapping[str, object]) -> Price:
    place = f"prices.{pattern[:80]}"
    amounts: dict[str, Money] = {}
    for kind, value in kinds.items():
        if kind not in Price.__slots__:
            known = ", ".join(Price.__slots__)
            raise SettingInvalid(f"{place}.{kind[:40]}", f"is no kind of token; there are {known}")
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        text = str(value) if is_whole or isinstance(value, str) else ""
        try:
            amounts[kind] = Money.read(text)
        except ValueError:
            reason = 'must be an amount for a million tokens as a string, such as "0.075"'
            raise SettingInvalid(f"{place}.{kind}", reason) from None
    if not {"input", "output"} <= amounts.keys():
        raise SettingInvalid(place, "must name input and output")
    return Price(**amounts)


def matches(pattern: str, text: str) -> bool:
    """Whether `text` is what `pattern` says, where a `*` stands for any characters or none."""
    front, *rest = pattern.split("*")
    if not rest:
        return text == pattern
    *middle, back = rest
    if not text.startswith(front) or len(text) < len(front) + len(back):
        return False
    place, end = len(front), len(text) - len(back)
    for part in middle:
        found = text.find(part, place, end)
        if found < 0:
            return False
        place = found + len(part)
    return text.endswith(back)
