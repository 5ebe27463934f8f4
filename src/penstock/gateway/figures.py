"""What the hooks are told of an answer: its tries, and what it came to."""

from __future__ import annotations

from penstock.gateway.config import UpstreamSettings
from penstock.llm.events import Failure
from penstock.llm.meter_record import UsageRecord
from penstock.telemetry.hooks import AnswerFigures, Hooks


class Attempts:
    """Counts the tries of one answer: what `Calls.ask` tells of each."""

    __slots__ = ("_hooks", "_last")

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        self._last = ""

    def __call__(self, upstream: UpstreamSettings, failure: Failure | None) -> None:
        """Takes a try that was decided; None where it brought content."""
        kind = "first" if not self._last else "retry" if self._last == upstream.name else "fallback"
        self._last = upstream.name
        outcome = "answered" if failure is None else "failed"
        self._hooks.upstream_attempted(upstream.name, kind, outcome)


def figures_of(record: UsageRecord) -> AnswerFigures:
    """The figures of a usage record."""
    usage, money = record.counts.usage, record.counts.money
    return AnswerFigures(
        model=record.model,
        upstream=record.upstream,
        end=record.end,
        cut_by=record.cut_by or "",
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        reasoning_tokens=usage.reasoning_tokens or 0,
        cached_tokens=usage.cached_tokens or 0,
        is_estimate=record.counts.is_estimate,
        money_units=None if money is None else money.units,
        first_token_s=record.timing.first_token_s,
        total_s=record.timing.total_s,
    )
