"""The servers: what each is, what it needs, and what it is asked for.

The order here is the order of tables. How a server is started and ended is in `launch`.
"""

import functools
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench import build


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What a server is told to publish. `total` 0 means without end."""

    rate: float
    payload_bytes: int = 80
    total: int = 0
    prefill: int = 0
    log_bytes: int = 16 << 20
    streams: int = 0
    """0: one stream for everybody; else so many, each with its own publisher and `rate`."""

    def environment(self) -> dict[str, str]:
        return {
            "BENCH_RATE": f"{self.rate:.6f}",
            "BENCH_PAYLOAD_BYTES": str(self.payload_bytes),
            "BENCH_TOTAL": str(self.total),
            "BENCH_PREFILL": str(self.prefill),
            "BENCH_LOG_BYTES": str(self.log_bytes),
            "BENCH_STREAMS": str(self.streams),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One server under measurement."""

    name: str
    title: str
    command: Callable[[], list[str] | None]
    """The command line, or None when something it needs is not installed."""
    needs: str
    path: str = "/events"
    replay_path: str = ""
    post_path: str = ""
    """Where messages are published from outside; empty: the publisher is in the server."""
    environment: tuple[tuple[str, str], ...] = ()
    own_ids: bool = False
    """Its `id:` line is its own, so that its events may have another length."""
    is_ours: bool = False
    """It is Penstock: drawn in colour, and checked for its fast path."""
    is_floor: bool = False
    """It does less than what is asked of the others: drawn in grey."""
    keeps: bool = True
    """What is appended can be read back."""


def nchan_module() -> Path | None:
    """nchan's dynamic module: `$NCHAN_MODULE`, or where distributions put it."""
    places = [
        os.environ.get("NCHAN_MODULE", ""),
        "/usr/lib/nginx/modules/ngx_nchan_module.so",
        "/usr/lib64/nginx/modules/ngx_nchan_module.so",
        "/usr/local/nginx/modules/ngx_nchan_module.so",
    ]
    return next((Path(place) for place in places if place and Path(place).exists()), None)


def _program(path: Path | None) -> list[str] | None:
    return [str(path)] if path else None


def _node() -> list[str] | None:
    node = shutil.which("node")
    return [node, str(build.SERVERS / "node_server.mjs")] if node else None


def _nginx() -> list[str] | None:
    nginx = build.find_nginx()
    return [nginx] if nginx and nchan_module() else None


def _nginx_relay() -> list[str] | None:
    command, nginx = _python("bench.servers.gateway_nginx"), build.find_nginx()
    return [*command, nginx] if command and nginx else None


def _litellm() -> list[str] | None:
    python = build.litellm()
    return [str(python), "-m", "bench.servers.gateway_litellm"] if python else None


def _python(module: str, *needs: str) -> list[str] | None:
    if any(importlib.util.find_spec(name) is None for name in needs):
        return None
    return [sys.executable, "-m", module]


PENSTOCK, FLOOR, FLOOR_BATCH, NCHAN = "penstock", "c", "c-batch", "nchan"
MEMORY, SQLITE, SQLITE_DISK = "penstock-memory", "penstock-sqlite", "penstock-disk"
EVENTS, NODE_MEMORY, NODE_FILE, UVICORN = "penstock-events", "node-memory", "node-file", "uvicorn"
DIRECT, NGINX_RELAY, GO_RELAY, LITELLM = "direct", "nginx-relay", "go-relay", "litellm"
GATEWAY, GATEWAY_SQLITE = "gateway-memory", "gateway-sqlite"
RELAY_HTTPX, RELAY_AIOHTTP = "fastapi-httpx", "fastapi-aiohttp"


STREAM, LIVE = "/v1/stream/bench", "?offset=now&live=sse"


def _durable(name: str, title: str, *settings: str, path: str = f"{STREAM}{LIVE}") -> Peer:
    """Penstock, written to and read as the Durable Streams protocol has it."""
    return Peer(
        name=name,
        title=title,
        command=lambda: _python("bench.servers.penstock_durable", "penstock.server.hub"),
        needs="the package itself, installed",
        path=path,
        post_path=STREAM,
        environment=tuple(zip(("BENCH_BACKEND", "BENCH_DURABILITY"), settings, strict=False)),
        is_ours=True,
    )


def _reference(name: str, title: str, backend: str) -> Peer:
    """The protocol's own reference server."""
    return Peer(
        name=name,
        title=title,
        command=build.durable_streams_server,
        needs="the development dependencies, which bring Node",
        path=f"{STREAM}{LIVE}",
        post_path=STREAM,
        environment=(("BENCH_BACKEND", backend),),
    )


def _gateway(name: str, title: str, backend: str) -> Peer:
    """Penstock, between a provider and its clients."""
    return Peer(
        name=name,
        title=title,
        command=lambda: _python("bench.servers.gateway_penstock", "penstock.gateway.app"),
        needs="the package itself, installed",
        environment=(("BENCH_BACKEND", backend),),
        is_ours=True,
    )


def _relay(name: str, client: str) -> Peer:
    """A relay as anybody would write it."""
    return Peer(
        name=name,
        title=f"FastAPI relay with {client}",
        command=lambda: _python("bench.servers.gateway_relay", "fastapi", client),
        needs="the development dependencies",
        environment=(("BENCH_CLIENT", client),),
    )


PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            name=FLOOR,
            title="C epoll (floor)",
            command=lambda: _program(build.floor()),
            needs="a C compiler",
            replay_path="/replay",
            is_floor=True,
        ),
        Peer(
            name=FLOOR_BATCH,
            title="C epoll, a send per tick",
            command=lambda: _program(build.floor()),
            needs="a C compiler",
            replay_path="/replay",
            is_floor=True,
            environment=(("BENCH_BATCH", "1"),),
        ),
        Peer(
            name=PENSTOCK,
            title="Penstock",
            command=lambda: _python("bench.servers.penstock_server", "penstock.server.hub"),
            needs="the package itself, installed",
            path="/v1/stream/bench",
            replay_path="/v1/stream/bench",
            is_ours=True,
        ),
        Peer(
            name=NCHAN,
            title="nginx with nchan",
            command=_nginx,
            needs="nginx with its nchan module",
            post_path="/publish",
            own_ids=True,
        ),
        Peer(
            name="go",
            title="Go net/http",
            command=lambda: _program(build.go_server()),
            needs="Go 1.21 or newer",
        ),
        Peer(name="node", title="Node http", command=_node, needs="Node 18 or newer"),
        Peer(
            name="sse-starlette",
            title="sse-starlette",
            command=lambda: _python("bench.servers.sse_starlette_server", "sse_starlette"),
            needs="the development dependencies",
        ),
        Peer(
            name=UVICORN,
            title="bare uvicorn, keeps nothing",
            command=lambda: _python("bench.servers.uvicorn_post", "uvicorn"),
            needs="uvicorn",
            is_floor=True,
            keeps=False,
        ),
        _durable(MEMORY, "Penstock, memory", "memory"),
        _durable(EVENTS, "Penstock, memory, native SSE", "memory", path=f"{STREAM}?live=events"),
        _reference(NODE_MEMORY, "Node reference, memory", "memory"),
        _durable(SQLITE, "Penstock, SQLite", "sqlite"),
        _durable(SQLITE_DISK, "Penstock, SQLite, synced", "sqlite", "disk"),
        _reference(NODE_FILE, "Node reference, file store", "file"),
        Peer(
            name=DIRECT,
            title="no relay: the provider itself",
            command=lambda: _program(build.gateway_upstream()),
            needs="a C compiler",
            is_floor=True,
        ),
        Peer(
            name=NGINX_RELAY,
            title="nginx, bytes only",
            command=_nginx_relay,
            needs="nginx",
            is_floor=True,
        ),
        Peer(
            name=GO_RELAY,
            title="Go reverse proxy, bytes only",
            command=lambda: _program(build.go_relay()),
            needs="Go 1.21 or newer",
            is_floor=True,
        ),
        _gateway(GATEWAY, "Penstock, memory", "memory"),
        _gateway(GATEWAY_SQLITE, "Penstock, SQLite", "sqlite"),
        _relay(RELAY_AIOHTTP, "aiohttp"),
        _relay(RELAY_HTTPX, "httpx"),
        Peer(
            name=LITELLM,
            title="LiteLLM proxy",
            command=_litellm,
            needs="uv, of the development dependencies, and a package registry on the first run",
        ),
    )
}

REQUIRED = (PENSTOCK, FLOOR, NCHAN, "node", "go")
"""Without all of these beside each other, a fan-out figure does not count."""


@functools.cache
def missing(name: str) -> str | None:
    """What is not installed for this server to run, or None."""
    try:
        command = PEERS[name].command()
    except ModuleNotFoundError:
        command = None
    return None if command else f"{PEERS[name].title} needs {PEERS[name].needs}"
