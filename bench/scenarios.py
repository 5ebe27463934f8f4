"""What is measured of events that a server publishes: each scenario is a workload, what the load
client does, and who takes part.

A round is one server started, loaded and ended. It returns everything the load client said, as
plain JSON, or `{"invalid": reason}`; a round is never dropped.
"""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.client import Round, check_connections, run_client
from bench.launch import Running, ServerFailed, check_fast_path, check_readers, running
from bench.peers import FLOOR, FLOOR_BATCH, NCHAN, PEERS, PENSTOCK, REQUIRED, Peer, Workload

EVERYBODY = (FLOOR, PENSTOCK, NCHAN, "go", "node", "sse-starlette")
STUCK_EVENTS, STUCK_PAYLOAD_BYTES = 62_500, 8_000  # 500 MB to each reader
REPLAY_EVENTS = 100_000
IDLE_CONNECTIONS = 10_000
STREAMS = 500
SCRAPE_AFTER_S = 1.3  # everybody is connected, and the window has begun


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One table of the report."""

    name: str
    title: str
    workload: Workload
    connections: int
    peers: tuple[str, ...] = EVERYBODY
    load: tuple[str, ...] = ()
    """More for the load client's command line."""
    seconds: float | None = None
    """Length of the window; None: what the command line says."""
    once: bool = False
    """A property rather than a figure that varies: one round is enough."""
    publishes: bool = True
    required: tuple[str, ...] = field(default=(PENSTOCK,))

    @property
    def is_fanout(self) -> bool:
        return self.name.startswith("fanout")

    @property
    def offered_per_s(self) -> float:
        """Events a second that all subscribers of a fan-out together should get; else 0."""
        return self.connections * self.workload.rate if self.is_fanout else 0

    def run(self, server: str, seconds: float) -> Round:
        """One round of this server, with a window of so many seconds."""
        return run_round(self, server, seconds=seconds)


def _fanout(name: str, connections: int, rate: float, **more: object) -> Scenario:
    return Scenario(
        name=name,
        title=f"{connections:,} subscribers, {rate:g} events/s to each "
        f"({connections * rate:,.0f} events/s in all)",
        workload=Workload(rate=rate),
        connections=connections,
        required=REQUIRED,
        **more,  # type: ignore[arg-type]
    )


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            name="sequence",
            title="200 subscribers, 50 events/s: is every event there, once, and of equal length?",
            workload=Workload(rate=50),
            connections=200,
            peers=(*EVERYBODY, FLOOR_BATCH),
            seconds=2,
            once=True,
        ),
        _fanout("fanout-30", 1000, 30),
        _fanout("fanout-20x5000", 5000, 20),
        # 31 is coprime with the number of connections, so that all of them are sampled.
        _fanout("fanout-500", 1000, 500, peers=(*EVERYBODY, FLOOR_BATCH), load=("--stride", "31")),
        Scenario(
            name="streams",
            title=f"{STREAMS} streams with one subscriber each, 50 events/s in each",
            workload=Workload(rate=50, streams=STREAMS),
            connections=STREAMS,
            load=("--streams", str(STREAMS)),
        ),
        Scenario(
            name="idle",
            title=f"{IDLE_CONNECTIONS:,} idle connections",
            workload=Workload(rate=1),
            connections=IDLE_CONNECTIONS,
            load=("--sources", "4"),
            seconds=1,
            once=True,
            publishes=False,
        ),
        Scenario(
            name="stuck",
            title="one reader of four never reads while 500 MB pass, the log is kept to 16 MB",
            workload=Workload(rate=8000, payload_bytes=STUCK_PAYLOAD_BYTES, total=STUCK_EVENTS),
            connections=4,
            peers=(PENSTOCK, "go", "node", "sse-starlette"),
            load=("--stuck", "1", "--until-events", str(STUCK_EVENTS)),
            seconds=90,
            once=True,
        ),
        Scenario(
            name="replay",
            title=f"{REPLAY_EVENTS:,} events to one late joiner",
            # The byte limit counts what a record costs beside its payload.
            workload=Workload(rate=1, prefill=REPLAY_EVENTS, log_bytes=64 << 20),
            connections=1,
            peers=(FLOOR, PENSTOCK),
            load=("--until-events", str(REPLAY_EVENTS)),
            seconds=30,
            publishes=False,
        ),
    )
}


def run_round(scenario: Scenario, name: str, *, seconds: float) -> Round:
    """Start the server, load it, end it. What goes wrong with it is the round's result."""
    peer = PEERS[name]
    try:
        with running(peer, scenario.workload) as server:
            result = _load(scenario, peer, server, seconds)
            if peer.name == PENSTOCK:
                check_fast_path(server)
    except ServerFailed as error:
        return {"invalid": str(error)}
    return _derive(scenario, result)


def _load(scenario: Scenario, peer: Peer, server: Running, seconds: float) -> Round:
    path = peer.replay_path if scenario.workload.prefill else peer.path
    arguments = (
        *("--path", path, "--connections", scenario.connections),
        *scenario.load,
        *(_publisher(scenario, peer, server) if scenario.publishes else ()),
    )
    return run_client(
        "load",
        server,
        arguments,
        seconds=seconds if scenario.seconds is None else scenario.seconds,
        meanwhile=look_in(server) if peer.is_ours else None,
    )


def look_in(server: Running) -> Callable[[subprocess.Popen[str]], None]:
    """Scrape Penstock's metrics once in the middle, as a monitoring system would, and believe them
    only if they say that our readers are on the fast path."""

    def scrape(client: subprocess.Popen[str]) -> None:
        try:
            client.wait(SCRAPE_AFTER_S)
        except subprocess.TimeoutExpired:
            check_readers(server)

    return scrape


def _publisher(scenario: Scenario, peer: Peer, server: Running) -> tuple[str, ...]:
    work = scenario.workload
    if not peer.post_path:
        return ("--signal-pid", str(server.pids[0]))
    rate = work.rate * max(work.streams, 1)
    post = ("--post-path", peer.post_path, "--post-rate", str(rate))
    return (*post, "--post-bytes", str(work.payload_bytes))


def _derive(scenario: Scenario, result: Round) -> Round:
    """Add what follows from the load client's figures, and say when they cannot count."""
    growth_mib = float(result["rss_end_mib"]) - float(result["rss_before_mib"])
    result["rss_growth_mib"] = round(growth_mib, 2)
    result["kib_per_connection"] = round(growth_mib * 1024 / scenario.connections, 3)
    check_connections(result, scenario.connections)
    return result
