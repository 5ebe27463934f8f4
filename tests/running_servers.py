"""Real ASGI servers as processes on loopback, for tests that need what a user would run.

One line of `KINDS` is one way to serve an application: the command, the package it needs, and
which of our two paths its readers take. A process is started on a free port, waited for until it
answers, and ended by its own pid; what it printed is shown when it does not start.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from penstock.server.fastpath import Protocol

APPLICATIONS = Path(__file__).parent / "server"
"""The folder whose modules the servers import."""

START_PATIENCE_S = 30.0
STOP_PATIENCE_S = 10.0

SERVE = """
import importlib, sys
from penstock.server.serve import make_server, run

module, fast = importlib.import_module(sys.argv[1]), sys.argv[3] == "fast"
settings = module.settings.model_copy(update={"port": int(sys.argv[2])})
run(make_server(settings, hub=module.hub, app=module.app, fast=fast))
"""
"""What `penstock serve` does, with an application of a test's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One way to serve an application. `{port}` and `{module}` are filled in."""

    name: str
    package: str
    command: tuple[str, ...]
    is_fast: bool = False


KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            name="serve",
            package="penstock",
            command=("-c", SERVE, "{module}", "{port}", "fast"),
            is_fast=True,
        ),
        Kind(
            name="serve-portable",
            package="penstock",
            command=("-c", SERVE, "{module}", "{port}", "portable"),
        ),
        Kind(
            name="uvicorn",
            package="uvicorn",
            command=("-m", "uvicorn", "{module}:app", "--port", "{port}"),
        ),
        Kind(
            name="uvicorn-fast",
            package="uvicorn",
            command=(
                *("-m", "uvicorn", "{module}:app", "--port", "{port}"),
                *("--http", "penstock.server.fastpath:Protocol"),
            ),
            is_fast=True,
        ),
        Kind(
            name="granian",
            package="granian",
            command=(
                *("-m", "granian", "{module}:app", "--port", "{port}"),
                *("--interface", "asgi", "--http", "1"),
            ),
        ),
        Kind(
            name="hypercorn",
            package="hypercorn",
            command=("-m", "hypercorn", "{module}:app", "--bind", "127.0.0.1:{port}"),
        ),
    )
}


@dataclass(slots=True, kw_only=True)
class Running:
    """A server that answers. `port` is on 127.0.0.1."""

    kind: Kind
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def send(self, number: signal.Signals) -> float:
        """Send a signal; returns the moment, for measuring how long the rest takes."""
        self.process.send_signal(number)
        return time.monotonic()

    def wait(self, within_s: float) -> int:
        """Wait for the exit and give its status. Raises AssertionError after `within_s`."""
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"{self.kind.name} still runs after {within_s} s:\n{self.printed()}"
            ) from None

    def printed(self) -> str:
        """What the process has printed so far."""
        return self.log.read_text("utf-8", "replace")


def require(package: str) -> None:
    """Skip, loudly, without a package that a test runs; under PENSTOCK_STRICT=1, fail."""
    if importlib.util.find_spec(package) is not None:
        return
    message = f"needs {package!r}: install the development dependencies (make install)"
    if os.environ.get("PENSTOCK_STRICT") == "1":
        pytest.fail(message)
    pytest.skip(message)


@contextmanager
def running(
    name: str,
    module: str = "app_for_tests",
    *,
    settings: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
) -> Generator[Running]:
    """Run a server of the kind `name` with `module`'s application until the block ends.

    `settings` reach the application as `PENSTOCK_…` variables; `arguments` are the server's.
    """
    kind = KINDS[name]
    require(kind.package)
    variables = {f"PENSTOCK_{key.upper()}": str(value) for key, value in (settings or {}).items()}
    variables |= environment or {}
    with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
        server = _start(kind, module, Path(folder), variables, arguments)
        try:
            yield server
        finally:
            _end(server.process)


def _start(
    kind: Kind,
    module: str,
    folder: Path,
    variables: Mapping[str, str],
    arguments: Sequence[str],
) -> Running:
    for attempt in count():
        port = free_port()
        log = folder / f"server-{attempt}.log"
        command = [
            part.replace("{port}", str(port)).replace("{module}", module) for part in kind.command
        ]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *command, *arguments],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(APPLICATIONS), **variables},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        server = Running(kind=kind, port=port, process=process, log=log)
        if _answers(server):
            return server
        _end(process)
        # A port that was free may be taken a moment later by somebody else: try another then.
        if attempt == 2 or "address" not in server.printed().lower():
            raise AssertionError(f"{kind.name} does not start:\n{server.printed()}")
    raise AssertionError


def _answers(server: Running) -> bool:
    request = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    give_up = time.monotonic() + START_PATIENCE_S
    while time.monotonic() < give_up and server.process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", server.port), timeout=1) as connection:
                connection.sendall(request)
                if connection.recv(64).startswith(b"HTTP/1.1 200"):
                    return True
        except OSError:
            pass
        time.sleep(0.05)  # between two looks at a process that has no other way to say it is up
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process, which may have ended already, and the workers it may have left behind."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(STOP_PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@asynccontextmanager
async def in_process(app: Any, *, is_fast: bool) -> AsyncGenerator[int]:
    """Run an application under uvicorn in this very loop, so that a test can reach its hub.

    Gives the port. Streams that are open at the end are waited for no longer than two seconds.
    """
    config = uvicorn.Config(
        app,
        port=0,
        http=Protocol if is_fast else "httptools",
        log_config=None,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(START_PATIENCE_S):
            while not server.started:
                assert not serving.done(), "the server did not start"
                await asyncio.sleep(0.001)
        port: int = server.servers[0].sockets[0].getsockname()[1]
        yield port
    finally:
        server.should_exit = True
        await serving


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
