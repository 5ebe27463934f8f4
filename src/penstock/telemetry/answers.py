"""What a gateway's answers came to, counted for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from penstock.telemetry import names
from penstock.telemetry.hooks import AnswerFigures, Places
from penstock.telemetry.labelled import Counters, Histograms

OPERATION: Final = "chat"
MONEY_UNITS: Final = 10**12
_AS_ASKED: Final = ("complete", "limit")


class AnswerCounts:
    """Counts what the hooks of a gateway are told."""

    def __init__(self) -> None:
        self.running = 0
        self.places: Callable[[], Mapping[str, Places]] = dict[str, Places]
        self.attempts = Counters(names.GATEWAY_ATTEMPTS)
        self.refusals = Counters(names.GATEWAY_REFUSALS)
        self.added = Histograms(names.GATEWAY_ADDED)
        self._usage = Histograms(names.GEN_AI_TOKENS)
        self._duration = Histograms(names.GEN_AI_DURATION)
        self._first_token = Histograms(names.GEN_AI_FIRST_TOKEN)
        self._output_token = Histograms(names.GEN_AI_OUTPUT_TOKEN)
        self._speed = Histograms(names.GATEWAY_SPEED)
        self._answers = Counters(names.GATEWAY_ANSWERS)
        self._cut_offs = Counters(names.GATEWAY_CUT_OFFS)
        self._tokens = Counters(names.GATEWAY_TOKENS)
        self._money = Counters(names.GATEWAY_MONEY)

    def end(self, figures: AnswerFigures) -> None:
        """Count an answer that is over."""
        self.running -= 1
        self._answers.add(figures.upstream, figures.end)
        if figures.cut_by:
            self._cut_offs.add(figures.cut_by)
        if figures.money_units is not None:
            self._money.add(figures.upstream, count=figures.money_units)
        self._count_tokens(figures)
        self._observe_times(figures)

    def _count_tokens(self, figures: AnswerFigures) -> None:
        kinds = {
            "input": figures.input_tokens,
            "output": figures.output_tokens,
            "reasoning": figures.reasoning_tokens,
            "cached": figures.cached_tokens,
        }
        source = "estimated" if figures.is_estimate else "reported"
        for kind, count in kinds.items():
            if count:
                self._tokens.add(figures.upstream, kind, source, count=count)
            # The conventions: what was not counted is not reported.
            if kind in ("input", "output") and not figures.is_estimate:
                self._usage.observe(count, OPERATION, figures.upstream, figures.model, kind)

    def _observe_times(self, figures: AnswerFigures) -> None:
        labels = (OPERATION, figures.upstream, figures.model)
        first_s, total_s = figures.first_token_s, figures.total_s
        if total_s is not None:
            error = "" if figures.end in _AS_ASKED else figures.end
            self._duration.observe(total_s, *labels, error)
        if first_s is None:
            return
        self._first_token.observe(first_s, *labels)
        if total_s is None or figures.end not in _AS_ASKED or figures.output_tokens < 2:
            return
        written_s = total_s - first_s
        if written_s > 0:
            self._output_token.observe(written_s / (figures.output_tokens - 1), *labels)
            speed = (figures.output_tokens - 1) / written_s
            self._speed.observe(speed, figures.upstream, figures.model)

    def families(
        self,
    ) -> Iterator[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]:
        """Every metric of a gateway."""
        yield self._usage.family()
        yield self._duration.family()
        yield self._first_token.family()
        yield self._output_token.family()
        yield self._answers.family()
        yield self._running()
        yield self._places()
        yield self.attempts.family()
        yield self._cut_offs.family()
        yield self.refusals.family()
        yield self.added.family()
        yield self._speed.family()
        yield self._tokens.family()
        yield self._money.family(MONEY_UNITS)

    def _running(self) -> GaugeMetricFamily:
        metric = names.GATEWAY_RUNNING
        return GaugeMetricFamily(metric.name, metric.sentence, value=self.running)

    def _places(self) -> GaugeMetricFamily:
        metric = names.GATEWAY_PLACES
        family = GaugeMetricFamily(metric.name, metric.sentence, labels=metric.labels)
        for upstream, places in self.places().items():
            family.add_metric([upstream, "used"], places.used)
            family.add_metric([upstream, "waiting"], places.waiting)
        return family
