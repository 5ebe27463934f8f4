"""Counts by label, bounded: a metric whose labels others choose must not grow with their fantasy.

A label is closed where `names.py` says its values; the others are open. Of the open ones so many
combinations are kept that all together are at most `MAX_LABEL_SETS`; what comes later is counted
under "other", so that sums stay right.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import product
from math import prod
from typing import Final

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

from penstock.telemetry.names import MAX_LABEL_SETS, Metric

OTHER: Final = "other"


class Histogram:
    """Observations of one combination of labels."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, metric: Metric) -> None:
        self.bounds = metric.buckets
        self.counts = [0] * (len(metric.buckets) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        # A bucket holds what is less than or equal to its bound.
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def cumulative(self) -> list[tuple[str, float]]:
        total, buckets = 0, list[tuple[str, float]]()
        labels = [*(repr(bound) for bound in self.bounds), "+Inf"]
        for label, count in zip(labels, self.counts, strict=True):
            total += count
            buckets.append((label, total))
        return buckets


class LabelSets:
    """Which combinations of labels a metric has."""

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self._is_open = [label not in metric.values for label in metric.labels]
        closed = prod(len(values) for values in metric.values.values())
        # One combination of the open labels is kept free for "other".
        self._most = max(MAX_LABEL_SETS // closed - 1, 1)
        self._open: set[tuple[str, ...]] = set()

    def fold(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        """The combination that these labels are counted under."""
        pairs = list(zip(labels, self._is_open, strict=True))
        own = tuple(label for label, is_open in pairs if is_open)
        if own not in self._open:
            if len(self._open) >= self._most:
                return tuple(OTHER if is_open else label for label, is_open in pairs)
            self._open.add(own)
        return labels

    def known(self) -> Iterator[tuple[str, ...]]:
        """Every combination, where all labels are closed: they are exported from the start."""
        if not any(self._is_open):
            yield from product(*(self.metric.values[label] for label in self.metric.labels))


class Counters:
    """A counter for each combination of labels."""

    def __init__(self, metric: Metric) -> None:
        self._sets = LabelSets(metric)
        self._counts: dict[tuple[str, ...], int] = dict.fromkeys(self._sets.known(), 0)

    def add(self, *labels: str, count: int = 1) -> None:
        labels = self._sets.fold(labels)
        self._counts[labels] = self._counts.get(labels, 0) + count

    def family(self, scale: int = 1) -> CounterMetricFamily:
        """What is exported, in units of `scale` of what was counted."""
        metric = self._sets.metric
        family = CounterMetricFamily(metric.name, metric.sentence, labels=metric.labels)
        for labels, count in self._counts.items():
            family.add_metric(labels, count / scale if scale > 1 else count)
        return family


class Histograms:
    """A histogram for each combination of labels."""

    def __init__(self, metric: Metric) -> None:
        self._sets = LabelSets(metric)
        self._histograms: dict[tuple[str, ...], Histogram] = {}

    def observe(self, value: float, *labels: str) -> None:
        labels = self._sets.fold(labels)
        histogram = self._histograms.get(labels)
        if histogram is None:
            histogram = self._histograms[labels] = Histogram(self._sets.metric)
        histogram.observe(value)

    def family(self) -> HistogramMetricFamily:
        """What is exported."""
        metric = self._sets.metric
        family = HistogramMetricFamily(metric.name, metric.sentence, labels=metric.labels)
        for labels, histogram in self._histograms.items():
            family.add_metric(labels, histogram.cumulative(), histogram.sum)
        return family
