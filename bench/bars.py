"""What must hold. Ratios are taken within one run, so that the machine's speed cancels out.

A bar is judged only on figures that count: medians of valid rounds of the servers it names. A bar
whose figures are not there is open, which is not the same as held.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from bench.peers import (
    DIRECT,
    FLOOR,
    GATEWAY,
    LITELLM,
    MEMORY,
    NCHAN,
    NODE_FILE,
    NODE_MEMORY,
    PEERS,
    PENSTOCK,
    RELAY_HTTPX,
    SQLITE,
)

Medians = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Scenario, server, metric."""

MAX_RATIO_TO_FLOOR = 1.6
MAX_RATIO_TO_NCHAN = 0.8
MIN_DELIVERED_PER_S = 450_000
MAX_IDLE_KIB = 3.0
MAX_STUCK_GROWTH_MIB = 40_000_000 / 2**20
MIN_REPLAY_MB_S = 200.0
MAX_LENGTH_DIFFERENCE = 0.005

# Durable streams: Penstock's store, the reference server's, and what part of the other's appends
# for each second of a core there must be.
STORES = ((MEMORY, NODE_MEMORY, 0.8), (SQLITE, NODE_FILE, 0.5))
MAX_RATIO_OF_READS = 1.0
MAX_STREAMS_AT_REST_MIB = 40_000_000 / 2**20

# The gateway.
MAX_FIRST_P50_MS, MAX_FIRST_P99_MS = 1.0, 5.0
RELAYS = ((LITELLM, 0.2), (RELAY_HTTPX, 0.5))
MIN_RELAYED = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One claim, what was measured, and whether it holds; `value` None: it was not measured."""

    claim: str
    value: float | None
    limit: float
    at: Literal["most", "least"]

    @property
    def verdict(self) -> Literal["held", "BROKEN", "open"]:
        if self.value is None:
            return "open"
        held = self.value <= self.limit if self.at == "most" else self.value >= self.limit
        return "held" if held else "BROKEN"


def judge(medians: Medians) -> list[Bar]:
    """Every bar of the scenarios that were run."""
    groups = {
        "sequence": _sequence,
        "fanout-30": _fanout_30,
        "fanout-500": _fanout_500,
        "idle": _idle,
        "stuck": _stuck,
        "replay": _replay,
        **{f"append-{streams}": partial(_append, streams) for streams in (1, 100, 1_000)},
        **{f"tail-{readers}": partial(_tail, readers) for readers in (100, 1_000)},
        **{f"catch-up-{size}": partial(_catch_up, size) for size in ("small", "large")},
        "idle-streams": _idle_streams,
        "relay-100": _relay_100,
        "relay-500": _relay_500,
    }
    bars = [bar for name, group in groups.items() if name in medians for bar in group(medians)]
    return [*bars, *_acknowledged(medians), *_relayed(medians)]


def _metric(medians: Medians, scenario: str, server: str, metric: str) -> float | None:
    return medians[scenario].get(server, {}).get(metric)


def _ratio(
    medians: Medians, scenario: str, server: str, other: str, metric: str = "cpu_us_per_event"
) -> float | None:
    own = _metric(medians, scenario, server, metric)
    theirs = _metric(medians, scenario, other, metric)
    return own / theirs if own and theirs else None


def _sequence(medians: Medians) -> Iterator[Bar]:
    scenario = medians["sequence"]
    for name, metrics in scenario.items():
        yield Bar(
            claim=f"{PEERS[name].title}: events missing or repeated",
            value=metrics["missing"] + metrics["repeated"],
            limit=0,
            at="most",
        )
    lengths = [
        metrics["body_bytes_per_event"]
        for name, metrics in scenario.items()
        if not PEERS[name].own_ids
    ]
    yield Bar(
        claim="difference in length of the events of servers with given ids",
        value=max(lengths) / min(lengths) - 1 if len(lengths) > 1 and min(lengths) else None,
        limit=MAX_LENGTH_DIFFERENCE,
        at="most",
    )


def _fanout_30(medians: Medians) -> Iterator[Bar]:
    for other, limit in ((FLOOR, MAX_RATIO_TO_FLOOR), (NCHAN, MAX_RATIO_TO_NCHAN)):
        yield Bar(
            claim=f"CPU per delivered event at 1,000 × 30/s, as a multiple of {PEERS[other].title}",
            value=_ratio(medians, "fanout-30", PENSTOCK, other),
            limit=limit,
            at="most",
        )


def _fanout_500(medians: Medians) -> Iterator[Bar]:
    yield Bar(
        claim="events/s delivered by one process at 1,000 × 500/s",
        value=_metric(medians, "fanout-500", PENSTOCK, "events_s"),
        limit=MIN_DELIVERED_PER_S,
        at="least",
    )


def _idle(medians: Medians) -> Iterator[Bar]:
    yield Bar(
        claim="KiB of process memory per idle connection",
        value=_metric(medians, "idle", PENSTOCK, "kib_per_connection"),
        limit=MAX_IDLE_KIB,
        at="most",
    )


def _stuck(medians: Medians) -> Iterator[Bar]:
    yield Bar(
        claim="MiB the server grew while a reader did not read",
        value=_metric(medians, "stuck", PENSTOCK, "rss_growth_mib"),
        limit=MAX_STUCK_GROWTH_MIB,
        at="most",
    )
    yield Bar(
        claim="events lost without a word, the stuck reader's included",
        value=_metric(medians, "stuck", PENSTOCK, "missing"),
        limit=0,
        at="most",
    )
    yield Bar(
        claim="stuck reader came level once it read again (1: yes)",
        value=_metric(medians, "stuck", PENSTOCK, "stuck_level"),
        limit=1,
        at="least",
    )


def _replay(medians: Medians) -> Iterator[Bar]:
    yield Bar(
        claim="MB/s of replay to a late joiner",
        value=_metric(medians, "replay", PENSTOCK, "body_mb_s"),
        limit=MIN_REPLAY_MB_S,
        at="least",
    )


def _append(streams: int, medians: Medians) -> Iterator[Bar]:
    noun = "stream" if streams == 1 else "streams"
    for own, other, limit in STORES:
        # Appends for a second of a core are what one append costs, upside down.
        value = _ratio(medians, f"append-{streams}", other, own)
        yield Bar(
            claim=f"appends per core, {streams:,} {noun}: {_beside(own, other)}",
            value=value,
            limit=limit,
            at="least",
        )


def _tail(readers: int, medians: Medians) -> Iterator[Bar]:
    for own, other, _ in STORES:
        yield Bar(
            claim=f"CPU per event delivered to {readers:,} readers: {_beside(own, other)}",
            value=_ratio(medians, f"tail-{readers}", own, other),
            limit=MAX_RATIO_OF_READS,
            at="most",
        )


def _catch_up(size: str, medians: Medians) -> Iterator[Bar]:
    for own, other, _ in STORES:
        yield Bar(
            claim=f"CPU per MB caught up with, {size} records: {_beside(own, other)}",
            value=_ratio(medians, f"catch-up-{size}", own, other, "cpu_us_per_mb"),
            limit=MAX_RATIO_OF_READS,
            at="most",
        )


def _beside(own: str, other: str) -> str:
    return f"{PEERS[own].title}, as a multiple of {PEERS[other].title}"


def _idle_streams(medians: Medians) -> Iterator[Bar]:
    yield Bar(
        claim="MiB that 10,000 streams at rest cost on SQLite",
        value=_metric(medians, "idle-streams", SQLITE, "rss_growth_mib"),
        limit=MAX_STREAMS_AT_REST_MIB,
        at="most",
    )


def _relay_100(medians: Medians) -> Iterator[Bar]:
    limits = {"first_p50_ms": MAX_FIRST_P50_MS, "first_p99_ms": MAX_FIRST_P99_MS}
    for metric, limit in limits.items():
        relayed = _metric(medians, "relay-100", GATEWAY, metric)
        direct = _metric(medians, "relay-100", DIRECT, metric)
        yield Bar(
            claim=f"ms added to the first token, 100 answers, {metric.split('_')[1]}",
            value=None if relayed is None or direct is None else max(relayed - direct, 0),
            limit=limit,
            at="most",
        )
    for other, limit in RELAYS:
        yield Bar(
            claim=f"CPU per token, 100 answers: {_beside(GATEWAY, other)}",
            value=_ratio(medians, "relay-100", GATEWAY, other),
            limit=limit,
            at="most",
        )


def _relay_500(medians: Medians) -> Iterator[Bar]:
    yield Bar(
        claim="of 500 answers × 50 tokens/s, relayed by one core",
        value=_metric(medians, "relay-500", GATEWAY, "delivered"),
        limit=MIN_RELAYED,
        at="least",
    )


def _relayed(medians: Medians) -> Iterator[Bar]:
    """Of all scenarios of the gateway: is every token there, once and in order?"""
    found = [
        metrics["missing"] + metrics["repeated"]
        for scenario, servers in medians.items()
        for server, metrics in servers.items()
        if scenario.startswith("relay-") and PEERS[server].is_ours
    ]
    if found:
        yield Bar(
            claim="Penstock: tokens missing or repeated, all scenarios",
            value=max(found),
            limit=0,
            at="most",
        )


def _acknowledged(medians: Medians) -> Iterator[Bar]:
    """Of all scenarios that write over HTTP: is it there, once?"""
    kinds = ("append-", "tail-", "catch-up-", "idle-streams")
    found = [
        metrics["missing"] + metrics["repeated"]
        for scenario, servers in medians.items()
        for server, metrics in servers.items()
        if scenario.startswith(kinds) and PEERS[server].is_ours
    ]
    if found:
        yield Bar(
            claim="Penstock: acknowledged records missing or repeated, all scenarios",
            value=max(found),
            limit=0,
            at="most",
        )
