"""What is measured of durable streams: Penstock beside the protocol's published reference server.

Everything goes over HTTP, as the protocol has it: append, tail, catch up. Memory is compared with
memory, and SQLite with the other's file store, which syncs each append to the disk: `synced` is
SQLite doing that too. Each round is one server started, loaded and ended; what was acknowledged is
read back and compared.
"""

import functools
import http.client
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from bench import build
from bench.client import Round, check_connections, run_client
from bench.launch import Running, ServerFailed, check_fast_path, running
from bench.machine import memory_mib
from bench.peers import (
    EVENTS,
    MEMORY,
    NODE_FILE,
    NODE_MEMORY,
    PEERS,
    SQLITE,
    SQLITE_DISK,
    UVICORN,
    Peer,
)
from bench.scenarios import look_in

PAIRS = ((MEMORY, NODE_MEMORY), (SQLITE, NODE_FILE))
STORES = (MEMORY, NODE_MEMORY, SQLITE, NODE_FILE)

RECORD_BYTES = 100
WRITERS = 64
"""Connections that append: enough that the server always has a request waiting."""
STEADY_RATE = 1_000
WARM_S = 3
"""Of load before the window: Node compiles what it sees often, and at low rates that takes a while.
"""
CATCH_UP_SMALL, CATCH_UP_LARGE = 100_000, 500
LARGE_BYTES = 64_000
IDLE_STREAMS, IDLE_RECORDS = 10_000, 10
FILL_PATIENCE_S = 600.0
SETTLE_S, SETTLE_PATIENCE_S = 20.0, 90.0
"""Time in which unread streams must leave memory (Penstock: ten seconds and a sweep), and the most
that is waited for a process that goes on shrinking."""
SETTLED_MIB, SETTLED_FOR = 0.5, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class DurableScenario:
    """One table of the report."""

    name: str
    title: str
    measure: Callable[[Peer, Running, float], Round]
    peers: tuple[str, ...] = STORES
    required: tuple[str, ...] = field(default=STORES)
    once: bool = False
    offered_per_s: float = 0
    """Events a second that there should be; 0: as many as the server takes."""

    def run(self, server: str, seconds: float) -> Round:
        """One round of this server, with a window of so many seconds."""
        peer = PEERS[server]
        try:
            # On the disk of this checkout: elsewhere temporary files may lie in memory.
            with running(peer, store=build.BUILD) as process:
                result = self.measure(peer, process, seconds)
                if peer.is_ours:
                    check_fast_path(process)
        except (ServerFailed, OSError) as error:
            return {"invalid": str(error)}
        return result


# --- appending ------------------------------------------------------------------------------------


def _append(peer: Peer, server: Running, seconds: float, *, streams: int, rate: float = 0) -> Round:
    """Append small records, one a POST; `rate` 0: as fast as they are taken."""
    result = run_client(
        "append_load",
        server,
        (
            *("--path", peer.post_path or "/", "--create", "--streams", streams),
            *("--connections", WRITERS, "--bytes", RECORD_BYTES, "--rate", rate),
            *("--warm", WARM_S),
        ),
        seconds=seconds,
    )
    if result["refused"] and peer.is_ours:
        result["invalid"] = f"{result['refused']} appends were refused: {result['error']}"
    # To say no costs about what saying yes does, and is charged like it.
    taken, refused = float(result["events"]), float(result["refused_in_window"])
    result["cpu_us_per_event"] = float(result["cpu_us_per_event"]) * taken / max(taken + refused, 1)
    return {**result, **_read_back(peer, server, streams, result)}


def _read_back(peer: Peer, server: Running, streams: int, appended: Round) -> Round:
    """Read every stream; what was acknowledged must be there, once."""
    if not peer.keeps:
        return {"missing": 0, "repeated": 0}
    arguments = ("--path", peer.post_path, "--streams", streams)
    found = run_client("catchup_load", server, arguments)
    lacking = int(appended["acknowledged"]) - int(found["records"])
    if lacking == 0 and appended["index_sum"] != found["index_sum"]:
        return {"missing": 1, "repeated": 1}  # at least one of each
    return {"missing": max(lacking, 0), "repeated": max(-lacking, 0)}


# --- reading --------------------------------------------------------------------------------------


def _tail(peer: Peer, server: Running, seconds: float, *, readers: int, rate: float) -> Round:
    """Everybody reads one stream live, to which one writer appends by POST."""
    _create(server, peer.post_path)
    result = run_client(
        "load",
        server,
        (
            *("--path", peer.path, "--connections", readers),
            *("--post-path", peer.post_path, "--post-rate", rate, "--post-bytes", RECORD_BYTES),
            *("--stride", 1 if readers == 1 else 7, "--warm", WARM_S),
            *(("--many-on-a-line",) if "live=sse" in peer.path else ()),
        ),
        seconds=seconds,
        meanwhile=look_in(server) if peer.is_ours else None,
    )
    check_connections(result, readers)
    return result


def _create(server: Running, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request("PUT", path, headers={"Content-Type": "application/json"})
        status = connection.getresponse().status
    finally:
        connection.close()
    if status != 201:
        raise ServerFailed(f"PUT {path}: {status}")


def _catch_up(
    peer: Peer, server: Running, seconds: float, *, records: int, record_bytes: int, batch: int
) -> Round:
    """Read one stream from its beginning, again and again."""
    # One writer: what it wrote is in the order of its numbers.
    written = run_client(
        "append_load",
        server,
        (
            *("--path", peer.post_path, "--create", "--connections", 1),
            *("--count", records, "--batch", batch, "--bytes", record_bytes),
        ),
    )
    result = run_client(
        "catchup_load", server, ("--path", peer.post_path, "--in-order"), seconds=seconds
    )
    lacking = int(written["acknowledged"]) - int(result["records"])
    result["missing"] = max(lacking, 0)
    result["repeated"] = max(-lacking, 0)
    if written["acknowledged"] != records or result["out_of_order"]:
        result["invalid"] = f"{result['out_of_order']} out of order; {written['error']}"
    return result


# --- resting --------------------------------------------------------------------------------------


def _idle(peer: Peer, server: Running, seconds: float) -> Round:
    """What many small streams cost that nobody reads or writes."""
    arguments = ("--create", "--count", IDLE_RECORDS, "--connections", 1)
    run_client("append_load", server, ("--path", "/v1/stream/warm", *arguments))
    before, anonymous_before = memory_mib(server.pids)
    result = run_client(
        "append_load",
        server,
        (
            *("--path", peer.post_path, "--create", "--streams", IDLE_STREAMS),
            *("--connections", WRITERS, "--bytes", RECORD_BYTES),
            *("--count", IDLE_STREAMS * IDLE_RECORDS, "--batch", IDLE_RECORDS),
        ),
        patience_s=FILL_PATIENCE_S,
    )
    filled, _ = memory_mib(server.pids)
    settled_s = _settle(server)
    after, anonymous_after = memory_mib(server.pids)
    result |= {
        "rss_filled_mib": round(filled - before, 2),
        "rss_growth_mib": round(after - before, 2),
        "anonymous_growth_mib": round(anonymous_after - anonymous_before, 2),
        "settled_s": settled_s,
    }
    return {**result, **_read_back(peer, server, IDLE_STREAMS, result)}


def _settle(server: Running) -> float:
    """Wait until the process has rested and its memory no longer changes; returns the seconds."""
    begun = time.monotonic()
    seen: list[float] = []
    while (waited := time.monotonic() - begun) < SETTLE_PATIENCE_S:
        seen = [*seen[-SETTLED_FOR:], memory_mib(server.pids)[0]]
        if waited >= SETTLE_S and max(seen) - min(seen) < SETTLED_MIB:
            break
        time.sleep(1)
    return round(waited, 1)


# --- the list -------------------------------------------------------------------------------------


def _append_scenario(streams: int) -> DurableScenario:
    many = f"{streams:,} streams" if streams > 1 else "one stream"
    return DurableScenario(
        name=f"append-{streams}",
        title=f"append to {many}: as many as the server takes, {WRITERS} writers",
        measure=functools.partial(_append, streams=streams),
        peers=(UVICORN, MEMORY, NODE_MEMORY, SQLITE, SQLITE_DISK, NODE_FILE),
    )


def _tail_scenario(readers: int, rate: float) -> DurableScenario:
    many = f"{readers:,} readers" if readers > 1 else "one reader"
    return DurableScenario(
        name=f"tail-{readers}",
        title=f"{many} of one stream, one writer with {rate:g} POSTs a second",
        measure=functools.partial(_tail, readers=readers, rate=rate),
        peers=(MEMORY, EVENTS, NODE_MEMORY, SQLITE, NODE_FILE),
        offered_per_s=readers * rate,
    )


def _catch_up_scenario(name: str, records: int, record_bytes: int, batch: int) -> DurableScenario:
    return DurableScenario(
        name=f"catch-up-{name}",
        title=f"one late joiner reads {records:,} records of {record_bytes:,} bytes in pages",
        measure=functools.partial(
            _catch_up, records=records, record_bytes=record_bytes, batch=batch
        ),
    )


DURABLE = {
    scenario.name: scenario
    for scenario in (
        *map(_append_scenario, (1, 100, 1_000)),
        DurableScenario(
            name="append-steady",
            title=f"append to 100 streams, {STEADY_RATE:,} a second",
            measure=functools.partial(_append, streams=100, rate=STEADY_RATE),
            peers=(MEMORY, NODE_MEMORY, SQLITE, SQLITE_DISK, NODE_FILE),
            offered_per_s=STEADY_RATE,
        ),
        _tail_scenario(1, 200),
        _tail_scenario(100, 100),
        _tail_scenario(1_000, 20),
        _catch_up_scenario("small", CATCH_UP_SMALL, RECORD_BYTES, 1_000),
        _catch_up_scenario("large", CATCH_UP_LARGE, LARGE_BYTES, 50),
        DurableScenario(
            name="idle-streams",
            title=f"{IDLE_STREAMS:,} streams of {IDLE_RECORDS} records that nobody reads",
            measure=_idle,
            once=True,
        ),
    )
}
