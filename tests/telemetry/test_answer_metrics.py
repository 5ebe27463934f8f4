"""What Prometheus is told of a gateway's answers: by model and upstream, and bounded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from penstock.telemetry import names
from penstock.telemetry.hooks import AnswerFigures, Hooks, Places
from penstock.telemetry.labelled import OTHER, Counters, Histograms
from penstock.telemetry.names import MAX_LABEL_SETS, METRICS, Metric
from penstock.telemetry.prometheus import PrometheusHooks

FIGURES: dict[str, Any] = {
    "model": "gpt-5",
    "upstream": "fast",
    "end": "complete",
    "cut_by": "",
    "input_tokens": 100,
    "output_tokens": 41,
    "reasoning_tokens": 30,
    "cached_tokens": 0,
    "is_estimate": False,
    "money_units": 1_500_000_000_000,
    "first_token_s": 0.5,
    "total_s": 2.5,
}
GEN_AI = {
    "gen_ai_operation_name": "chat",
    "gen_ai_provider_name": "fast",
    "gen_ai_request_model": "gpt-5",
}


def figures(**changed: Any) -> AnswerFigures:
    return AnswerFigures(**{**FIGURES, **changed})


class Scrape:
    """What one scrape says."""

    def __init__(self, hooks: PrometheusHooks) -> None:
        self.families = {
            family.name: family.samples
            for family in text_string_to_metric_families(hooks.text().decode())
        }
        self.samples = [sample for samples in self.families.values() for sample in samples]

    def value(self, name: str, labels: Mapping[str, str] | None = None) -> float | None:
        """The value of the one sample that has these labels, and others or none."""
        found = [
            sample.value
            for sample in self.samples
            if sample.name == name and (labels or {}).items() <= sample.labels.items()
        ]
        assert len(found) <= 1, (name, labels)
        return found[0] if found else None

    def sets(self, metric: Metric) -> set[tuple[tuple[str, str], ...]]:
        """The label sets of a metric."""
        return {
            tuple(sorted((k, v) for k, v in sample.labels.items() if k != "le"))
            for sample in self.families.get(metric.name, [])
        }


@pytest.fixture
def hooks() -> PrometheusHooks:
    return PrometheusHooks()


def test_an_answer_is_in_every_metric_that_is_about_it(hooks: PrometheusHooks) -> None:
    hooks.answer_started()
    hooks.upstream_attempted("fast", "first", "answered")
    hooks.first_token("fast", "gpt-5-2026", 0.5, 0.0004)
    hooks.answer_ended(figures())
    now = Scrape(hooks)
    for kind, count in (("input", 100), ("output", 41)):
        labels = {**GEN_AI, "gen_ai_token_type": kind}
        assert now.value("gen_ai_client_token_usage_sum", labels) == count
        tokens = {"upstream": "fast", "type": kind, "source": "reported"}
        assert now.value("penstock_gateway_tokens_total", tokens) == count
    for name, seconds in (
        ("request_duration", 2.5),
        ("time_to_first_token", 0.5),
        ("time_per_output_token", 2 / 40),
    ):
        assert now.value(f"gen_ai_server_{name}_seconds_sum", GEN_AI) == pytest.approx(seconds)
        assert now.value(f"gen_ai_server_{name}_seconds_count", GEN_AI) == 1
    fast = {"upstream": "fast"}
    assert now.value("penstock_gateway_answers_total", {**fast, "end": "complete"}) == 1
    assert now.value("penstock_gateway_tokens_per_second_sum", fast) == pytest.approx(20)
    assert now.value("penstock_gateway_added_seconds_bucket", {**fast, "le": "0.0005"}) == 1
    assert now.value("penstock_gateway_attempts_total", {**fast, "kind": "first"}) == 1
    assert now.value("penstock_gateway_money_total", fast) == 1.5
    assert now.value("penstock_gateway_running_answers") == 0


def test_what_the_provider_did_not_count_is_estimated_and_no_usage(hooks: PrometheusHooks) -> None:
    hooks.answer_ended(figures(is_estimate=True, end="cancelled", money_units=None))
    now = Scrape(hooks)
    assert now.value("gen_ai_client_token_usage_count") is None
    assert now.value("penstock_gateway_money_total") is None
    estimated = {"type": "output", "source": "estimated"}
    assert now.value("penstock_gateway_tokens_total", estimated) == 41
    duration = "gen_ai_server_request_duration_seconds_count"
    assert now.value(duration, {"error_type": "cancelled"}) == 1
    # A broken answer says nothing of how fast a model is.
    assert now.value("gen_ai_server_time_per_output_token_seconds_count") is None


@pytest.mark.parametrize(
    "changed",
    [
        {"first_token_s": None},
        {"total_s": None},
        {"output_tokens": 0},
        {"output_tokens": 1},
        {"total_s": 0.5},
        {"upstream": "", "end": "failed", "first_token_s": None, "output_tokens": 0},
    ],
)
def test_an_answer_without_some_figure_counts_by_the_others(
    hooks: PrometheusHooks, changed: dict[str, Any]
) -> None:
    hooks.answer_ended(figures(**changed))
    now = Scrape(hooks)
    assert now.value("penstock_gateway_answers_total") == 1
    assert now.value("gen_ai_server_time_per_output_token_seconds_count") is None
    assert now.value("penstock_gateway_tokens_per_second_count") is None


def test_limits_and_refusals_are_there_from_the_start_and_counted(hooks: PrometheusHooks) -> None:
    def cut_offs() -> float | None:
        return Scrape(hooks).value("penstock_gateway_cut_offs_total", {"limit": "money"})

    def refusals() -> float | None:
        labels = {"budget": "user", "limit": "total_tokens"}
        return Scrape(hooks).value("penstock_gateway_budget_refusals_total", labels)

    assert (cut_offs(), refusals()) == (0, 0)
    hooks.answer_ended(figures(end="limit", cut_by="money"))
    hooks.budget_refused("user", "total_tokens")
    assert (cut_offs(), refusals()) == (1, 1)


def test_places_are_asked_for_when_somebody_scrapes(hooks: PrometheusHooks) -> None:
    places = {"fast": Places(used=2, waiting=0)}
    hooks.attach_places(lambda: places)
    labels = {"upstream": "fast", "state": "waiting"}
    assert Scrape(hooks).value("penstock_gateway_places", labels) == 0
    places["fast"] = Places(used=2, waiting=7)
    assert Scrape(hooks).value("penstock_gateway_places", labels) == 7


def test_names_that_callers_choose_do_not_grow_the_metrics(hooks: PrometheusHooks) -> None:
    """A thousand models, and the sums are right."""
    ends = names.GATEWAY_ANSWERS.values["end"]
    for number in range(1_000):
        upstream, model, end = f"u{number}", f"m{number}", ends[number % len(ends)]
        hooks.answer_started()
        hooks.upstream_attempted(upstream, "retry", "failed")
        hooks.first_token(upstream, model, 1.0, 0.001)
        hooks.answer_ended(figures(upstream=upstream, model=model, end=end))
    now = Scrape(hooks)
    for metric in METRICS:
        assert len(now.sets(metric)) <= MAX_LABEL_SETS, metric.name
    text = hooks.text().decode()
    assert len(text) < 3_000_000
    answers = [s for s in now.samples if s.name == "penstock_gateway_answers_total"]
    assert sum(sample.value for sample in answers) == 1_000
    others = [sample for sample in answers if sample.labels["upstream"] == OTHER]
    assert {sample.labels["end"] for sample in others} == set(ends)


LABELS = st.sampled_from(["a", "b", "c", 'q"', "n\\n", "\u2028", OTHER, ""]) | st.text(max_size=3)


@settings(deadline=None, print_blob=True)
@given(st.lists(st.tuples(LABELS, LABELS, st.sampled_from(["x", "y"])), max_size=300))
def test_however_labels_come_the_sum_is_right_and_the_bound_holds(
    labels: list[tuple[str, str, str]],
) -> None:
    values = {"closed": ("x", "y")}
    labelled = ("open", "another", "closed")
    counter = Metric(
        name="c", kind="counter", labels=labelled, values=values, sentence="A counter."
    )
    counters = Counters(counter)
    histogram = Metric(
        name="h", kind="histogram", labels=labelled, values=values, buckets=(1,), sentence="A."
    )
    histograms = Histograms(histogram)
    for each in labels:
        counters.add(*each)
        histograms.observe(1, *each)
    counted = counters.family().samples
    assert sum(sample.value for sample in counted) == len(labels)
    assert len(counted) <= MAX_LABEL_SETS
    for closed in ("x", "y"):
        expected = sum(each[2] == closed for each in labels)
        assert sum(s.value for s in counted if s.labels["closed"] == closed) == expected
    observed = [s for s in histograms.family().samples if s.name == "h_count"]
    assert sum(sample.value for sample in observed) == len(labels)


def test_hooks_of_ones_own_may_leave_everything_out() -> None:
    hooks = Hooks()
    hooks.attach_places(dict)
    hooks.answer_started()
    hooks.budget_refused("user", "money")
    hooks.upstream_attempted("a", "first", "failed")
    hooks.first_token("a", "m", 0.1, 0.1)
    hooks.answer_ended(figures())
