"""What Prometheus is told: exactly the metrics of `names.py`, with the right counts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from inprocess import HeldTransport, call, turns, until
from penstock.core.record import EndReason
from penstock.core.subscription import GapReason, Subscription
from penstock.server.fastpath import Writer
from penstock.server.hub import Hub
from penstock.telemetry import names
from penstock.telemetry.prometheus import CONTENT_TYPE, PrometheusHooks


def samples(hooks: PrometheusHooks) -> dict[str, float]:
    """Every sample as `name{label="value"}`."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(hooks.text().decode()):
        for sample in family.samples:
            labels = ",".join(f'{key}="{value}"' for key, value in sample.labels.items())
            found[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
    return found


@pytest.fixture
async def hub() -> Hub:
    return Hub()


@pytest.fixture
def hooks(hub: Hub) -> PrometheusHooks:
    assert isinstance(hub.hooks, PrometheusHooks)
    return hub.hooks


async def test_what_is_exported_is_what_is_listed(hooks: PrometheusHooks) -> None:
    families = {f.name: f for f in text_string_to_metric_families(hooks.text().decode())}
    assert set(families) == {metric.name for metric in names.METRICS}
    for metric in names.METRICS:
        family = families[metric.name]
        assert family.type == metric.kind
        assert family.documentation == metric.sentence
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(metric.labels)


def test_names_follow_prometheus_and_are_listed_once() -> None:
    assert len({metric.name for metric in names.METRICS}) == len(names.METRICS)
    declared = {value for value in vars(names).values() if isinstance(value, names.Metric)}
    assert declared == set(names.METRICS)
    for metric in names.METRICS:
        assert metric.name.startswith(("penstock_", "gen_ai_"))
        assert not metric.name.endswith("_total")
        assert metric.sentence.endswith(".")
        assert set(metric.values) <= set(metric.labels)
        assert bool(metric.buckets) == (metric.kind == "histogram")
        assert list(metric.buckets) == sorted(set(metric.buckets))
        if metric.kind == "histogram":
            assert metric.name.endswith(("_seconds", "_per_second", "_token_usage"))


async def test_known_labels_are_there_from_the_start(hooks: PrometheusHooks) -> None:
    found = samples(hooks)
    for reason in EndReason:
        assert found[f'penstock_stream_ends_total{{reason="{reason}"}}'] == 0
    for gap in GapReason:
        assert found[f'penstock_gaps_total{{reason="{gap}"}}'] == 0
    for outcome in ("exact", "gap", "lost", "ended"):
        assert found[f'penstock_resumes_total{{outcome="{outcome}"}}'] == 0


async def test_counts_are_right_after_a_life_of_streams_and_readers(
    hub: Hub, hooks: PrometheusHooks
) -> None:
    async with hub:
        stream = await hub.create("a")
        transports = [HeldTransport() for _ in range(3)]
        for transport in transports:
            Writer(stream, stream.view(), Subscription(), transport, opened_at=hub.clock()).begin(
                b": hello\n\n"
            )
        for _ in range(4):
            await stream.append("xy")
        await turns()
        now = samples(hooks)
        assert now['penstock_readers{transport="fast"}'] == 3
        assert now['penstock_readers{transport="portable"}'] == 0
        assert now["penstock_appended_records_total"] == 4
        assert now["penstock_appended_bytes_total"] == 16
        assert now["penstock_delivered_records_total"] == 12
        assert now["penstock_first_event_seconds_count"] == 3
        transports[0].hang_up()
        await turns()
        await stream.close()
        await turns()
        for transport in transports[1:]:
            transport.take()
        await turns()
    now = samples(hooks)
    # What a reader gets beyond records (the preamble, its end) is no delivered record's byte.
    record_bytes = sum(len(str(e.data)) for t in transports[1:] for e in t.events[:4])
    assert now["penstock_delivered_bytes_total"] > record_bytes
    assert now['penstock_reader_ends_total{reason="ended"}'] == 2
    assert now['penstock_reader_ends_total{reason="gone"}'] == 1
    assert now['penstock_stream_ends_total{reason="complete"}'] == 1
    assert now['penstock_streams{state="ended"}'] == 1
    assert now['penstock_readers{transport="fast"}'] == 0


async def test_catching_up_counts_as_much_as_being_level(hub: Hub, hooks: PrometheusHooks) -> None:
    stream = await hub.create("a")
    early, late = HeldTransport(), HeldTransport()
    clock = hub.clock()
    Writer(stream, stream.view(), Subscription(), early, opened_at=clock).begin(b": x\n\n")
    for number in range(5):
        await stream.append(number)
        await turns()
    level = samples(hooks)
    Writer(stream, stream.view(), Subscription(), late, opened_at=clock).begin(b": x\n\n")
    both = samples(hooks)
    for name in ("records", "bytes"):
        key = f"penstock_delivered_{name}_total"
        assert both[key] == level[key] * 2
    assert both["penstock_first_event_seconds_count"] == 2


async def test_resumes_are_counted_by_how_they_went(hub: Hub, hooks: PrometheusHooks) -> None:
    stream = await hub.create("a")
    await stream.append(1)
    await stream.close()
    place = str(stream.offset)
    for path, header in (
        ("a", place),
        ("a", "nonsense"),
        ("a", f"{place}~"),
        ("nobody", place),
        ("a", ""),
    ):
        headers = [(b"accept", b"text/event-stream"), (b"last-event-id", header.encode())]
        await call(hub.asgi, "GET", f"/stream/{path}", headers, stays=True)
    found = samples(hooks)
    for outcome in ("exact", "gap", "lost", "ended"):
        assert found[f'penstock_resumes_total{{outcome="{outcome}"}}'] == 1
    assert found['penstock_gaps_total{reason="malformed"}'] == 1


@settings(deadline=None, print_blob=True)
@given(st.lists(st.floats(0, 100) | st.sampled_from(names.SECONDS), max_size=30))
def test_a_bucket_holds_what_is_at_most_its_bound(observed: list[float]) -> None:
    hooks = PrometheusHooks()
    for seconds in observed:
        hooks.first_record(seconds)
    found = samples(hooks)
    for bound in names.SECONDS:
        count = sum(seconds <= bound for seconds in observed)
        assert found[f'penstock_first_record_seconds_bucket{{le="{bound!r}"}}'] == count
    assert found['penstock_first_record_seconds_bucket{le="+Inf"}'] == len(observed)
    assert found["penstock_first_record_seconds_count"] == len(observed)
    assert found["penstock_first_record_seconds_sum"] == pytest.approx(sum(observed))


async def test_the_address_answers_in_prometheus_format(hub: Hub) -> None:
    answer = await call(hub.metrics_asgi, "GET", "/metrics")
    assert answer.status == 200
    assert answer.header(b"content-type") == CONTENT_TYPE.encode()
    assert list(text_string_to_metric_families(answer.body.decode()))


async def test_a_producers_times_reach_its_histograms(hub: Hub, hooks: PrometheusHooks) -> None:
    async def source():  # type: ignore[no-untyped-def]
        for number in range(3):
            yield number

    async with hub:
        stream = await hub.start("a", source())
        await until(lambda: stream.end is not None)
    found = samples(hooks)
    assert found["penstock_first_record_seconds_count"] == 1
    assert found["penstock_record_gap_seconds_count"] == 2
