"""What is measured: each scenario is a workload, what the load client does, and who takes part.

A round is one server started, loaded and ended. It returns everything the load client said, as
plain JSON, or `{"invalid": reason}`; a round is never dropped.
"""

import functools
import json
import subprocess
from dataclasses import dataclass, field

from bench import build, machine
from bench.launch import Running, ServerFailed, check_fast_path, check_readers, running
from bench.peers import FLOOR, FLOOR_BATCH, NCHAN, PEERS, PENSTOCK, REQUIRED, Peer, Workload

Round = dict[str, float | str | bool]

EVERYBODY = (FLOOR, PENSTOCK, NCHAN, "go", "node", "sse-starlette")
STUCK_EVENTS, STUCK_PAYLOAD_BYTES = 62_500, 8_000  # 500 MB to each reader
REPLAY_EVENTS = 100_000
IDLE_CONNECTIONS = 10_000
STREAMS = 500
LOAD_PATIENCE_S = 150.0
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
        """Events a second that all subscribers together should get."""
        return self.connections * self.workload.rate


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
    window = seconds if scenario.seconds is None else scenario.seconds
    command = [
        str(build.load_client()),
        *("--port", str(server.port), "--path", path),
        *("--connections", str(scenario.connections), "--seconds", str(window)),
        *("--pids", ",".join(map(str, server.pids))),
        *scenario.load,
        *(_publisher(scenario, peer, server) if scenario.publishes else ()),
    ]
    client = subprocess.Popen(
        command,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=functools.partial(machine.take_core, machine.cores()[1]),
    )
    try:
        if peer.name == PENSTOCK:
            _check_while_running(server, client)
        output, errors = client.communicate(timeout=window + LOAD_PATIENCE_S)
    except subprocess.TimeoutExpired as error:
        raise ServerFailed("the load client did not come to an end") from error
    finally:
        client.kill()  # does nothing when it has ended
        client.wait()
    if client.returncode != 0 or not output:
        raise ServerFailed(f"the load client failed: {errors.strip()[-300:]}")
    return json.loads(output)


def _check_while_running(server: Running, client: subprocess.Popen[str]) -> None:
    """Scrape the metrics once in the middle, as a monitoring system would, and believe them only
    if they say that our readers are on the fast path."""
    try:
        client.wait(SCRAPE_AFTER_S)
    except subprocess.TimeoutExpired:
        check_readers(server)


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
    troubles = {key: result[key] for key in ("failed", "closed") if result[key]}
    if result["ready"] != scenario.connections:
        troubles["ready"] = result["ready"]
    if troubles:
        result["invalid"] = f"connections: {troubles} {result['error']}".strip()
    return result
