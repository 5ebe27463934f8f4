"""Hooks that count for Prometheus, and the text it scrapes.

Counting is adding to integers and, for the histograms, one bisection: prometheus_client's own
objects take a lock and label look-ups for each observation (about 2 µs here), and the counts
of delivered records change with every write pass. Its data model and its exposition are used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from penstock.telemetry import names
from penstock.telemetry.answers import AnswerCounts
from penstock.telemetry.hooks import AnswerFigures, Hooks, Places, Snapshot
from penstock.telemetry.labelled import Histogram
from penstock.telemetry.names import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


class PrometheusHooks(Hooks, Collector):
    """Counts in this process; `text()` is what `/metrics` answers."""

    def __init__(self) -> None:
        self._snapshot: Callable[[], Snapshot] | None = None
        self._appended = [0, 0]
        self._delivered = [0, 0]
        self._resumes: Counter[str] = Counter()
        self._gaps: Counter[str] = Counter()
        self._stream_ends: Counter[str] = Counter()
        self._reader_ends: Counter[str] = Counter()
        self._first_record = Histogram(names.FIRST_RECORD)
        self._record_gap = Histogram(names.RECORD_GAP)
        self._first_event = Histogram(names.FIRST_EVENT)
        self._answers = AnswerCounts()
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        """Everything, in Prometheus's text format."""
        return generate_latest(self._registry)

    def attach(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot

    def appended(self, records: int, size: int) -> None:
        self._appended[0] += records
        self._appended[1] += size

    def delivered(self, records: int, size: int) -> None:
        self._delivered[0] += records
        self._delivered[1] += size

    def first_record(self, seconds: float) -> None:
        self._first_record.observe(seconds)

    def record_gap(self, seconds: float) -> None:
        self._record_gap.observe(seconds)

    def first_event(self, seconds: float) -> None:
        self._first_event.observe(seconds)

    def resumed(self, outcome: str) -> None:
        self._resumes[outcome] += 1

    def gap(self, reason: str) -> None:
        self._gaps[reason] += 1

    def stream_ended(self, reason: str) -> None:
        self._stream_ends[reason] += 1

    def reader_ended(self, reason: str) -> None:
        self._reader_ends[reason] += 1

    def attach_places(self, places: Callable[[], Mapping[str, Places]]) -> None:
        self._answers.places = places

    def answer_started(self) -> None:
        self._answers.running += 1

    def budget_refused(self, budget: str, limit: str) -> None:
        self._answers.refusals.add(budget, limit)

    def upstream_attempted(self, upstream: str, kind: str, outcome: str) -> None:
        self._answers.attempts.add(upstream, kind, outcome)

    def first_token(self, upstream: str, model: str, waited_s: float, added_s: float) -> None:
        self._answers.added.observe(added_s, upstream)

    def answer_ended(self, figures: AnswerFigures) -> None:
        self._answers.end(figures)

    def collect(self) -> Iterator[Family]:
        """Give every metric of `names.METRICS`, for prometheus_client's registry."""
        yield _counter(names.APPENDED_RECORDS, self._appended[0])
        yield _counter(names.APPENDED_BYTES, self._appended[1])
        yield _counter(names.DELIVERED_RECORDS, self._delivered[0])
        yield _counter(names.DELIVERED_BYTES, self._delivered[1])
        yield _labelled(names.RESUMES, self._resumes, ("exact", "gap", "lost", "ended"))
        yield _labelled(names.GAPS, self._gaps, ("trimmed", "epoch", "ahead", "malformed"))
        ends = ("complete", "cancelled", "failed", "limit", "lost")
        yield _labelled(names.STREAM_ENDS, self._stream_ends, ends)
        left = ("ended", "gone", "drained", "aged", "stalled", "refused")
        yield _labelled(names.READER_ENDS, self._reader_ends, left)
        yield _histogram(names.FIRST_RECORD, self._first_record)
        yield _histogram(names.RECORD_GAP, self._record_gap)
        yield _histogram(names.FIRST_EVENT, self._first_event)
        yield from self._answers.families()
        if self._snapshot is not None:
            yield from _snapshot(self._snapshot())


def _snapshot(now: Snapshot) -> Iterator[Family]:
    readers = {"fast": now.readers_fast, "portable": now.readers_portable, "poll": now.polls}
    yield _gauge(names.READERS, readers)
    yield _gauge(names.STREAMS, {"running": now.streams_running, "ended": now.streams_ended})
    yield _gauge(names.STREAMS_IN_USE, now.streams_in_use)
    yield _counter(names.COMMITS, now.commits)
    yield _gauge(names.STORED_BYTES, now.stored_bytes)
    yield _gauge(names.READER_LAG_MAX, now.lag_max)
    yield _gauge(names.READERS_LAGGING, now.lagging)
    yield _gauge(names.FAST_PATH_ACTIVE, int(now.fast_path_active))


def _counter(metric: Metric, value: int) -> CounterMetricFamily:
    return CounterMetricFamily(metric.name, metric.sentence, value=value)


def _labelled(metric: Metric, counts: Counter[str], known: tuple[str, ...]) -> CounterMetricFamily:
    # Known values are exported from the start, as 0: a series that appears late has no rate.
    family = CounterMetricFamily(metric.name, metric.sentence, labels=metric.labels)
    for label in dict.fromkeys((*known, *counts)):
        family.add_metric([label], counts[label])
    return family


def _gauge(metric: Metric, value: int | dict[str, int]) -> GaugeMetricFamily:
    if isinstance(value, int):
        return GaugeMetricFamily(metric.name, metric.sentence, value=value)
    family = GaugeMetricFamily(metric.name, metric.sentence, labels=metric.labels)
    for label, count in value.items():
        family.add_metric([label], count)
    return family


def _histogram(metric: Metric, histogram: Histogram) -> HistogramMetricFamily:
    return HistogramMetricFamily(
        metric.name, metric.sentence, buckets=histogram.cumulative(), sum_value=histogram.sum
    )
