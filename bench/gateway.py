"""What is measured of the gateway: what it adds to the time of a token, and what a token costs.

Between a provider that speaks OpenAI's chat completions (`servers/gateway_upstream.c`) and many
clients of it (`gateway_load.c`) stands one of the peers: Penstock, LiteLLM's proxy, the relay that
anybody would write, or one that only passes bytes on. Provider and clients share a core, the
relay has the other.
"""

import contextlib
import dataclasses
import functools
import json
import select
import subprocess
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from bench import build, machine
from bench.client import Round, run_client
from bench.launch import Running, ServerFailed, check_fast_path, running
from bench.peers import (
    DIRECT,
    GATEWAY,
    GATEWAY_SQLITE,
    GO_RELAY,
    LITELLM,
    NGINX_RELAY,
    PEERS,
    RELAY_AIOHTTP,
    RELAY_HTTPX,
    Peer,
)
from bench.scenarios import look_in

OURS = (GATEWAY, GATEWAY_SQLITE)
BYTE_RELAYS = (DIRECT, NGINX_RELAY, GO_RELAY)
PLAIN_RELAYS = (RELAY_AIOHTTP, RELAY_HTTPX)

TOKENS, RATE = 250, 50.0
"""Of each answer: five seconds of it. The first token comes after one interval, and the next answer
is asked for when one is whole, so that so many answers times the rate is what is offered."""
MODEL = f"bench-{TOKENS}-{RATE:g}"
START_PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayScenario:
    """One table of the report: so many answers at a time."""

    answers: int
    peers: tuple[str, ...]
    required: tuple[str, ...]
    once: bool = False

    @property
    def name(self) -> str:
        return f"relay-{self.answers}"

    @property
    def title(self) -> str:
        return (
            f"{self.answers} answers at a time, {RATE:g} tokens/s in each "
            f"({self.offered_per_s:,.0f} tokens/s in all)"
        )

    @property
    def offered_per_s(self) -> float:
        return self.answers * RATE

    def run(self, server: str, seconds: float) -> Round:
        """One round of this relay, with a window of so many seconds."""
        try:
            with _provider() as provider:
                if server == DIRECT:
                    return _load(self, provider, provider, seconds)
                peer = _in_front_of(PEERS[server], provider)
                # On the disk of this checkout: elsewhere temporary files may lie in memory.
                with running(peer, store=build.BUILD) as relay:
                    result = _load(self, relay, provider, seconds, ours=peer.is_ours)
                    if peer.is_ours:
                        check_fast_path(relay)
        except (ServerFailed, OSError) as error:
            return {"invalid": str(error)}
        return result


@contextlib.contextmanager
def _provider() -> Generator[Running]:
    """Start the provider on the client's core, and end it afterwards."""
    program = build.gateway_upstream()
    assert program is not None, "the load client has been compiled too"
    process = subprocess.Popen(
        [str(program)],
        stdout=subprocess.PIPE,
        preexec_fn=functools.partial(machine.take_core, machine.cores()[1]),
    )
    assert process.stdout is not None
    try:
        readable, _, _ = select.select([process.stdout], [], [], START_PATIENCE_S)
        if not readable:
            raise ServerFailed("the provider did not start")
        yield Running(port=json.loads(process.stdout.readline())["port"], pids=(process.pid,))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _in_front_of(peer: Peer, provider: Running) -> Peer:
    address = f"http://127.0.0.1:{provider.port}"
    environment = (*peer.environment, ("BENCH_UPSTREAM", address), ("BENCH_MODEL", MODEL))
    return dataclasses.replace(peer, environment=environment)


def _load(
    scenario: GatewayScenario,
    relay: Running,
    provider: Running,
    seconds: float,
    *,
    ours: bool = False,
) -> Round:
    family = Running(port=relay.port, pids=_family(relay.pids[0]))
    result = run_client(
        "gateway_load",
        family,
        (
            *("--connections", scenario.answers, "--tokens", TOKENS, "--rate", RATE),
            *(() if relay is provider else ("--upstream-pid", provider.pids[0])),
        ),
        seconds=seconds,
        meanwhile=look_in(relay) if ours else None,
    )
    if _family(relay.pids[0]) != family.pids:
        result["invalid"] = "it has started processes that were not counted"
    if troubles := {key: result[key] for key in ("failed", "broken") if result[key]}:
        result["invalid"] = f"answers: {troubles} {result['error']}".strip()
    return result


def _family(pid: int) -> tuple[int, ...]:
    """A process and all that descend from it."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    children = [int(child) for t in threads for child in (t / "children").read_text().split()]
    return (pid, *(one for child in children for one in _family(child)))


GATEWAYS = {
    scenario.name: scenario
    for scenario in (
        # What everybody can take; LiteLLM is at the end of its core with a little more.
        GatewayScenario(
            answers=20,
            peers=(*OURS, *PLAIN_RELAYS, LITELLM),
            required=(GATEWAY, RELAY_HTTPX, LITELLM),
        ),
        GatewayScenario(
            answers=100,
            peers=(*BYTE_RELAYS, *OURS, *PLAIN_RELAYS, LITELLM),
            required=(DIRECT, GATEWAY, GATEWAY_SQLITE, RELAY_HTTPX, RELAY_AIOHTTP, LITELLM),
        ),
        GatewayScenario(
            answers=500,
            peers=(*BYTE_RELAYS, *OURS, RELAY_AIOHTTP),
            required=(GATEWAY, GATEWAY_SQLITE),
        ),
    )
}
