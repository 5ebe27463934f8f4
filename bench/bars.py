"""What must hold. Ratios are taken within one run, so that the machine's speed cancels out.

A bar is judged only on figures that count: medians of valid rounds of the servers it names. A bar
whose figures are not there is open, which is not the same as held.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from bench.peers import FLOOR, NCHAN, PEERS, PENSTOCK

Medians = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Scenario, server, metric."""

MAX_RATIO_TO_FLOOR = 1.6
MAX_RATIO_TO_NCHAN = 0.8
MIN_DELIVERED_PER_S = 450_000
MAX_IDLE_KIB = 3.0
MAX_STUCK_GROWTH_MIB = 40_000_000 / 2**20
MIN_REPLAY_MB_S = 200.0
MAX_LENGTH_DIFFERENCE = 0.005


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
    }
    return [bar for name, group in groups.items() if name in medians for bar in group(medians)]


def _metric(medians: Medians, scenario: str, server: str, metric: str) -> float | None:
    return medians[scenario].get(server, {}).get(metric)


def _ratio(medians: Medians, other: str) -> float | None:
    own = _metric(medians, "fanout-30", PENSTOCK, "cpu_us_per_event")
    theirs = _metric(medians, "fanout-30", other, "cpu_us_per_event")
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
            value=_ratio(medians, other),
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
