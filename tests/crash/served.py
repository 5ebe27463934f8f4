"""`penstock serve` on one file, started, killed and started again.

A start is timed from before the process is made to the first 200 of `/readyz`. The server listens
on another port each time: a port that nobody listens on would be handed to one of the clients.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from pathlib import Path

from raw_http import PATIENCE_S, BodyCut, connect
from running_commands import PENSTOCK, environment

TESTS = Path(__file__).parents[1]
POLL_S = 0.002
USUAL_START_S = 0.6
SETTINGS = {
    # Short, so that what takes a minute in life happens in every round.
    "PENSTOCK_HEARTBEAT_S": "2",
    "PENSTOCK_LONG_POLL_S": "1.5",
    "PENSTOCK_SSE_LIFETIME_S": "3",
    "PENSTOCK_REST_AFTER_S": "1",
    "PENSTOCK_RETRY_MS": "100",
    "PENSTOCK_LOG_LEVEL": "warning",
}


class Died(AssertionError):
    """The server ended by itself."""


class Served:
    """One server at a time; `up` is set while there is one to be asked."""

    def __init__(self, folder: Path, backend: str, **settings: str) -> None:
        self.folder, self.backend = folder, backend
        self.port = 0
        self.up = asyncio.Event()
        self.starts = 0
        self.settings = SETTINGS | {f"PENSTOCK_{key.upper()}": v for key, v in settings.items()}
        self._process: Process | None = None
        self._began = 0.0
        self._down_at = time.monotonic()
        self.down_s = 0.0
        """How long nothing was served, between two that did."""
        self.start_s, self.cpu_s = USUAL_START_S, 0.0
        """How long the last start took, and how much of a processor."""

    @property
    def complaints(self) -> Path:
        """What all of them wrote to standard error."""
        return self.folder / "server.err"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def begin(self, producing: str = "") -> None:
        """Start a server, and do not wait until it serves. With `producing` it is one that feeds
        streams of that prefix by itself, too."""
        assert self._process is None
        self.starts += 1
        program = [PENSTOCK, "serve"]
        if producing:
            program = [sys.executable, "-m", "crash.producing", producing]
        with self.complaints.open("ab") as complaints:
            self._began = time.perf_counter()
            self._process = await asyncio.create_subprocess_exec(
                *(*program, "--port", "0", "--backend", self.backend),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=PIPE,
                stderr=complaints,
                cwd=self.folder,
                env=environment(PYTHONPATH=_python_path(), **self.settings),
            )

    async def ready(self) -> float:
        """Wait until it serves; gives the seconds since its start."""
        process = self._process
        assert process is not None
        assert process.stdout is not None
        async with asyncio.timeout(4 * PATIENCE_S):
            line = await process.stdout.readline()
            found = re.search(rb":(\d+)\s*$", line)
            if found is None:
                raise Died(f"status {await process.wait()}: {self._last_words()}")
            port = int(found[1])
            while not await self._is_ready(port):
                await asyncio.sleep(POLL_S)
        self.start_s = time.perf_counter() - self._began
        self.cpu_s = _cpu_s(process.pid)
        self.port = port
        self.down_s += time.monotonic() - self._down_at
        self.up.set()
        return self.start_s

    async def _is_ready(self, port: int) -> bool:
        try:
            async with connect(port) as connection:
                return (await connection.ask("GET", "/readyz")).status == 200
        except (OSError, BodyCut, asyncio.IncompleteReadError):
            return False

    async def kill(self) -> None:
        """`kill -9`: it does nothing more, in the middle of whatever it did."""
        assert self._process is not None
        process, self._process = self._process, None
        # Not `process.kill()`: before Python 3.13 it may take the exit status away from the
        # thread that waits for it (python/cpython#87744).
        os.kill(process.pid, signal.SIGKILL)
        self._is_down()
        status = await process.wait()
        if status != -signal.SIGKILL:
            raise Died(f"status {status} before it was killed: {self._last_words()}")

    def shoot(self) -> None:
        """`kill -9`, and do not wait: `kill_unless_gone` does."""
        os.kill(self.pid, signal.SIGKILL)

    async def kill_unless_gone(self) -> bool:
        """`kill -9` for one that may be gone, as it was told; says whether it was killed."""
        process, self._process = self._process, None
        assert process is not None
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        self._is_down()
        status = await process.wait()
        if status not in (0, -signal.SIGKILL):
            raise Died(f"left with {status}: {self._last_words()}")
        return status != 0

    def ask_to_stop(self) -> None:
        """SIGTERM, and do not wait."""
        os.kill(self.pid, signal.SIGTERM)

    async def stop(self) -> None:
        """End it as an operator does; fails unless it leaves with 0."""
        if self._process is None:
            return
        self.ask_to_stop()
        await self.wait()

    async def wait(self) -> None:
        """Wait for the end of one that was asked to stop."""
        process, self._process = self._process, None
        assert process is not None
        async with asyncio.timeout(PATIENCE_S):
            status = await process.wait()
        self._is_down()
        if status:
            raise Died(f"left with {status}: {self._last_words()}")

    async def abandon(self) -> None:
        """End it if it still runs, whatever happened."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            os.kill(process.pid, signal.SIGKILL)
            await process.wait()

    def _is_down(self) -> None:
        if self.up.is_set():
            self._down_at = time.monotonic()
            self.up.clear()

    def _last_words(self) -> str:
        return self.complaints.read_text("utf-8", "replace")[-2000:]


def _python_path() -> str:
    """What this process has, and the tests' folder: `producing.py` is a part of them."""
    return os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH"))))


def _cpu_s(pid: int) -> float:
    """Seconds of a processor that a process has used, its own and the kernel's for it."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
