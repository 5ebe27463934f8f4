"""`penstock serve` at an address that stays, on a backend, to be killed and started again."""

from __future__ import annotations

import signal
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from running_commands import Running, running
from running_servers import free_port

BACKENDS = {"memory": "memory://", "sqlite": "sqlite:///{folder}/streams.db"}
LONG_POLL_S = "0.5"


class Serving:
    """A server, and the next one in its place. Use `serving`."""

    def __init__(self, backend: str, folder: Path, stack: ExitStack) -> None:
        self.port = free_port()
        self._url = BACKENDS[backend].format(folder=folder)
        self._folder, self._stack = folder, stack
        self._running = self._start()

    def _start(self) -> Running:
        command = ("serve", "--port", str(self.port), "--backend", self._url)
        variables = {"PENSTOCK_LONG_POLL_S": LONG_POLL_S}
        started = running(*command, folder=self._folder, variables=variables)
        server = self._stack.enter_context(started)
        assert server.port == self.port
        return server

    def kill(self) -> None:
        """End it as a machine that loses the process does."""
        self._running.send(signal.SIGKILL)
        self._running.wait()

    def start_again(self) -> None:
        """Start another one on the same log, at the same address."""
        self._running = self._start()

    @property
    def streams(self) -> str:
        """The address under which streams are."""
        return f"http://127.0.0.1:{self.port}/v1/stream"


@contextmanager
def serving(backend: str, folder: Path) -> Generator[Serving]:
    """Serve until the block ends."""
    with ExitStack() as stack:
        yield Serving(backend, folder, stack)
