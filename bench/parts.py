"""The parts of the benchmark: each has its scenarios, its report and its pictures.

`events`: what a server publishes by itself, to many. `durable`: what goes through the Durable
Streams protocol. `gateway`: what stands between a model's provider and its clients. Names of
scenarios are unique over all.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from bench import launch, machine
from bench.client import Round
from bench.durable import DURABLE
from bench.gateway import GATEWAYS
from bench.peers import NCHAN
from bench.scenarios import SCENARIOS


class Measured(Protocol):
    """What the runner and the report know of a scenario."""

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def peers(self) -> tuple[str, ...]: ...
    @property
    def required(self) -> tuple[str, ...]: ...
    @property
    def once(self) -> bool: ...
    @property
    def offered_per_s(self) -> float: ...

    def run(self, server: str, seconds: float) -> Round: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """Horizontal bars of one metric, a panel for each scenario."""

    label: str
    scenarios: tuple[str, ...]
    """Names, or what they begin with."""
    metric: str
    unit: str
    is_logarithmic: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One report."""

    name: str
    title: str
    result: str
    """What its files in `results/` are called."""
    scenarios: Mapping[str, Measured]
    rounds: int
    seconds: float = 4.0
    """Length of a measured window."""
    versions: Callable[[], dict[str, str]]
    pictures: tuple[Picture, ...]
    floor: str = ""
    """The server that others' cost is a multiple of in the tables."""

    @property
    def peers(self) -> set[str]:
        return {name for scenario in self.scenarios.values() for name in scenario.peers}


def _publishers() -> dict[str, str]:
    try:
        nchan = launch.nchan_version()
    except (launch.ServerFailed, AssertionError):
        nchan = "not installed"
    return {**machine.publishers(), NCHAN: nchan}


PARTS = {
    part.name: part
    for part in (
        Part(
            name="events",
            title="Measurements",
            result="latest",
            scenarios=SCENARIOS,
            rounds=5,
            versions=_publishers,
            floor="c",
            pictures=(
                Picture(
                    label="cpu",
                    scenarios=("fanout",),
                    metric="cpu_us_per_event",
                    unit="server CPU per delivered event, µs",
                ),
                Picture(
                    label="p99",
                    scenarios=("fanout",),
                    metric="p99_ms",
                    unit="99th percentile of latency, ms (logarithmic)",
                    is_logarithmic=True,
                ),
                Picture(
                    label="idle",
                    scenarios=("idle",),
                    metric="kib_per_connection",
                    unit="process memory per idle connection, KiB",
                ),
            ),
        ),
        Part(
            name="durable",
            title="Measurements of durable streams",
            result="durable",
            scenarios=DURABLE,
            rounds=3,
            versions=machine.stores,
            pictures=(
                Picture(
                    label="append",
                    scenarios=("append-1",),
                    metric="cpu_us_per_event",
                    unit="server CPU per append, µs (logarithmic)",
                    is_logarithmic=True,
                ),
                Picture(
                    label="tail",
                    scenarios=("tail-",),
                    metric="cpu_us_per_event",
                    unit="server CPU per delivered event, µs (logarithmic)",
                    is_logarithmic=True,
                ),
                Picture(
                    label="p99",
                    scenarios=("append-steady", "tail-"),
                    metric="p99_ms",
                    unit="99th percentile of latency, ms (logarithmic)",
                    is_logarithmic=True,
                ),
                Picture(
                    label="catch-up",
                    scenarios=("catch-up-",),
                    metric="cpu_us_per_mb",
                    unit="server CPU per MB read, µs",
                ),
                Picture(
                    label="idle",
                    scenarios=("idle-streams",),
                    metric="rss_growth_mib",
                    unit="process memory of 10,000 streams at rest, MiB",
                ),
            ),
        ),
        Part(
            name="gateway",
            title="Measurements of the gateway",
            result="gateway",
            scenarios=GATEWAYS,
            rounds=3,
            seconds=10.0,  # a hundred answers begin in five seconds, and each has one first token
            versions=machine.relays,
            pictures=(
                Picture(
                    label="cpu",
                    scenarios=("relay-",),
                    metric="cpu_us_per_event",
                    unit="relay's CPU per token, µs (logarithmic)",
                    is_logarithmic=True,
                ),
                Picture(
                    label="first",
                    scenarios=("relay-",),
                    metric="first_p99_ms",
                    unit="99th percentile of what is added to the first token, ms (logarithmic)",
                    is_logarithmic=True,
                ),
            ),
        ),
    )
}
