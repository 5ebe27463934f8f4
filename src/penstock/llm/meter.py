"""Metering one answer: what it has used so far, and whether that is more than it may.

A `Meter` reads the events of the provider, before any filter, since what is filtered is paid too.
Counts the provider gives stand above every estimate: a partial count replaces what was estimated up
to it, a final one everything. Where neither comes, or the answer is broken off, the estimate is the
count and says so.

The meter cuts: when an event brings the answer above its limits, that event must not be shown, and
the answer ends as the model's own maximum would end it. What was shown is then at most the limit as
the meter counts. As the provider counts it can be more by what the estimate is short of, which is
less than one event of the provider (`meter_estimate.py` says from what that is known).

`meter_record.py` says what is kept of it afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from penstock.llm.budget import Amounts, LimitName, Limits
from penstock.llm.events import (
    Reasoning,
    Stop,
    Text,
    TokenEvent,
    ToolCallDelta,
    Usage,
)
from penstock.llm.meter_estimate import Estimate
from penstock.llm.meter_prices import Money, Price

WRITTEN: Final = (Text, Reasoning, ToolCallDelta)
"""The kinds of event that bring something the model wrote."""

CUT: Final = Stop(reason="length", raw="penstock-limit")
"""How an answer that the meter cut ends for its readers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What an answer used.

    Attributes:
        usage: the counts; those the provider never gave are estimates or None.
        money: what that costs, None where the model has no price.
        is_estimate: at least the output was not counted by the provider to its end.
    """

    usage: Usage
    money: Money | None
    is_estimate: bool

    @property
    def amounts(self) -> Amounts:
        """What a ledger is charged."""
        return Amounts(
            output_tokens=self.usage.output_tokens,
            total_tokens=self.usage.input_tokens + self.usage.output_tokens,
            money=self.money or Money(),
        )


class Meter:
    """Counts one answer against its limits.

    Attributes:
        cut_by: the limit that cut it, None while none has.
    """

    __slots__ = ("_base", "_estimate", "_has_stopped", "_limits", "_price", "_safe", "cut_by")

    def __init__(
        self, *, input_tokens: int = 0, price: Price | None = None, limits: Limits | None = None
    ) -> None:
        """`input_tokens` is what the prompt is thought to have, until the provider says it."""
        self.cut_by: LimitName | None = None
        self._limits = limits or Limits()
        self._price = price
        # What the provider counted so far, and what is estimated of all that came after that.
        self._base = Usage(input_tokens=input_tokens, output_tokens=0, partial=True)
        self._estimate = Estimate()
        self._has_stopped = False
        self._safe = self._find_safe()

    @property
    def limits(self) -> Limits:
        """What the answer may use.

        May be set while it runs: an answer that meets its limit, and is then granted more, goes on.
        """
        return self._limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self._limits = limits
        self._safe = self._find_safe()
        self.cut_by = None
        self._check()

    def receive_event(self, event: TokenEvent) -> LimitName | None:
        """Takes the provider's next event; gives the limit that it passes, if it does.

        Such an event is not for showing, and no later one either, unless `limits` are raised. A
        final count, or one after the model's own stop, passes nothing: the answer is whole.
        """
        if type(event) is Text:  # nearly all of them
            self._estimate.count(event.text)
            if self._safe is not None and self.cut_by is None:
                self._check()
            return self.cut_by
        if isinstance(event, WRITTEN):
            self._estimate.receive_event(event)
        elif isinstance(event, Usage):
            self._receive_usage(event)
        elif isinstance(event, Stop):
            self._has_stopped = True
        if self.cut_by is None:
            self._check()
        return self.cut_by

    def is_far(self, events: int, characters: int) -> bool:
        """Whether so many more events of so many characters pass no limit, however they count."""
        if self.cut_by is not None:
            return False
        written = self._base.output_tokens + self._estimate.most_after(events, characters)
        return self._safe is None or written <= self._safe

    def counts(self) -> Counts:
        """What was used up to now."""
        usage = self._base
        if usage.partial and self._estimate.tokens:
            output = usage.output_tokens + self._estimate.tokens
            usage = replace(usage, output_tokens=output)
        money = None if self._price is None else self._price.cost(usage)
        return Counts(usage=usage, money=money, is_estimate=usage.partial)

    def _check(self) -> None:
        written = self._base.output_tokens + self._estimate.tokens
        # Most events are far from every limit, and then this is all they cost.
        if self._safe is None or written <= self._safe or not self._is_open:
            return
        self.cut_by = self._limits.passed_by(self.counts().amounts)
        if self._limits.money is not None and self._price is None:
            self.cut_by = "money"  # what nobody can count is not given away

    @property
    def _is_open(self) -> bool:
        return self._base.partial and not self._has_stopped

    def _receive_usage(self, usage: Usage) -> None:
        if not usage.partial:
            self._base, self._estimate = usage, Estimate()
        elif self._base.partial:
            # A provider that counts in rounds, or sends a count of nothing beside its text, must
            # not set the meter back: only a count that went on replaces the estimate.
            if usage.output_tokens > self._base.output_tokens:
                self._estimate = Estimate()
            output = max(usage.output_tokens, self._base.output_tokens)
            read = usage.input_tokens or self._base.input_tokens
            self._base = replace(usage, input_tokens=read, output_tokens=output)
        self._safe = self._find_safe()

    def _find_safe(self) -> int | None:
        """The output tokens that pass no limit, whatever they cost; None is any number."""
        return self._limits.max_output(self._base.input_tokens, self._price)[0]
