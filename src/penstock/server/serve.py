"""`penstock serve`: uvicorn's server with the fast path, and with signals of our own.

Stock uvicorn, told to stop, waits for open streams for ever, and exits with 143 when it was asked
politely. Here a signal drains the hub first (readers are told when to come back), stuck readers
are cut at the deadline, and the exit status is 0. A second signal cuts everything at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.util
import logging
import resource
import signal
import socket
from collections.abc import Callable, Generator
from typing import Any, Final

import uvicorn

from penstock.core.errors import SettingInvalid
from penstock.server.app import ServerApp
from penstock.server.config import Settings, is_loopback, refuse_open_door
from penstock.server.fastpath import Protocol, missing_attributes
from penstock.server.hub import Hub
from penstock.server.lane import Lane

logger = logging.getLogger("penstock")
BACKLOG: Final = 4096
"""Connections the kernel holds for us: a thousand readers that come back in the same second."""
UVICORN_GRACE_S: Final = 1
GC_THRESHOLDS: Final = (5_000, 10, 10)
"""Allocations before the collector's youngest generation is looked at, and how many of those
before the next: a saturated append path costs a twentieth less than at the default 700."""


class Server(uvicorn.Server):
    """uvicorn's server, which drains a hub when it is told to stop."""

    def __init__(self, config: uvicorn.Config, hub: Hub) -> None:
        super().__init__(config)
        self.hub = hub
        self.on_started: Callable[[], None] | None = None
        self._stopping: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Install our handlers instead of uvicorn's, for as long as the server runs."""
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM)
        for number in numbers:
            loop.add_signal_handler(number, self._stop_soon)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening, and say so."""
        await super().startup(sockets=sockets)
        if self.started and self.on_started is not None:
            self.on_started()

    def _stop_soon(self) -> None:
        if self._stopping is not None:
            self.force_exit = self.should_exit = True
            self._stopping.cancel()
            return
        self._stopping = asyncio.create_task(self._drain_and_stop())

    async def _drain_and_stop(self) -> None:
        logger.info("stopping: readers are told to come back")
        try:
            for server in self.servers:
                server.close()
            await self.hub.drain()
        finally:
            self.should_exit = True


def make_server(
    settings: Settings,
    *,
    hub: Hub | None = None,
    app: Callable[..., Any] | None = None,
    fast: bool = True,
    has_lane: bool | None = None,
) -> Server:
    """Make the server of a hub, ready for `await server.serve()`.

    `app` replaces the application (it must run the hub); `fast=False` leaves the fast path out.
    `has_lane` says whether plain appends to `/v1/stream/` are answered below the application; by
    default not where there is an `app`, whose middleware must see them.
    Raises SettingInvalid for an address that strangers can reach without being asked who they are.
    """
    refuse_open_door(settings)
    hub = hub or make_hub(settings)
    if fast and (missing := missing_attributes()):
        logger.warning("the fast path is off: uvicorn has no %s", ", ".join(missing))
        fast = False
    elif not fast:
        logger.warning("the fast path is off: readers are served by ASGI send")
    protocol = type(
        "ServeProtocol",
        (Protocol,),
        {
            "header_bytes": settings.header_bytes,
            "header_s": settings.header_s,
            # An application of the caller's own sees every request; ours needs not see appends.
            "lane": Lane(hub) if (app is None if has_lane is None else has_lane) else None,
        },
    )
    config = uvicorn.Config(
        app or ServerApp(hub),
        host=settings.host,
        port=settings.port,
        http=protocol if fast else "httptools",
        loop="uvloop" if _has_uvloop() else "asyncio",
        log_level=settings.log_level,
        access_log=False,
        backlog=BACKLOG,
        # Every byte of a response head counts on a stream of one short answer; we say who we are
        # in the documentation, and time is of no use to a stream.
        server_header=False,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=UVICORN_GRACE_S,
    )
    hub.fast_path_active = fast
    return Server(config, hub)


def make_hub(settings: Settings) -> Hub:
    """Make the hub of a server that listens where these settings say. Raises SettingInvalid."""
    return Hub(settings.backend, settings=_answering_to_own_name(settings))


def run(server: Server, *, on_ready: Callable[[str], None] | None = None) -> None:
    """Run a server until a signal stops it. Calls `on_ready` with its address once it listens.

    Raises SettingInvalid when the address cannot be listened on, and what `Hub.open` raises.
    """
    _raise_file_limit()
    _settle_memory()
    config = server.config
    sockets = [_listen(config.host, config.port)]
    host, port = sockets[0].getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(_serve(server, sockets, f"http://{shown}:{port}", on_ready))


async def _serve(
    server: Server,
    sockets: list[socket.socket],
    address: str,
    on_ready: Callable[[str], None] | None,
) -> None:
    if on_ready is not None:
        server.on_started = lambda: on_ready(address)
    # Before uvicorn, which takes an application whose lifespan fails for one that has none.
    await server.hub.open()
    await server.serve(sockets=sockets)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host.strip("[]"), port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise SettingInvalid("port", f"{host}:{port} cannot be used: {error.strerror}") from None
    listener.setblocking(False)
    return listener


def _answering_to_own_name(settings: Settings) -> Settings:
    """Answer to the address we listen on, when it is one: `--host 10.0.0.5` means that name."""
    if is_loopback(settings.host) or settings.host in ("0.0.0.0", "::"):  # noqa: S104
        return settings
    hosts = (*settings.allowed_hosts, settings.host.lower())
    return settings.model_copy(update={"allowed_hosts": hosts})


def _raise_file_limit() -> None:
    """Take as many descriptors as we may: a reader is one, and 1,024 is nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _settle_memory() -> None:
    """Have the collector look less often, and never at what is there before the first request.

    Records are many and hold no cycles; at the default every 700 of them cost a look.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def _has_uvloop() -> bool:
    return importlib.util.find_spec("uvloop") is not None
