"""Programs of other makers' clients, driven by tests over their standard input and output.

A program is a file of JavaScript, run by the Node that .venv brings, or of Python. It speaks in
lines of JSON; every wait for one has a deadline, and what the program complained of is in the
failure. `scripts/node-tests` installs what the JavaScript ones import, once.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest

ROOT = Path(__file__).parents[1]
PATIENCE_S = 30.0
INSTALL_PATIENCE_S = 420.0
MAX_LINE_BYTES = 16 * 1024 * 1024


@functools.cache
def _install() -> tuple[str, str]:
    """The path of Node and nothing, or nothing and why not."""
    done = subprocess.run(
        [ROOT / "scripts" / "node-tests"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=INSTALL_PATIENCE_S,
        check=False,
    )
    return (done.stdout.strip(), "") if done.returncode == 0 else ("", done.stderr.strip())


def node() -> str:
    """The path of Node, with every package installed; skips loudly, or fails, without."""
    path, complaint = _install()
    if path:
        return path
    message = f"needs Node packages, and scripts/node-tests cannot install them: {complaint}"
    if os.environ.get("PENSTOCK_STRICT") == "1":
        pytest.fail(message)
    pytest.skip(message)


@dataclass(slots=True)
class Program:
    """A program that runs."""

    process: asyncio.subprocess.Process
    complaints: IO[bytes]

    async def say(self, line: object) -> None:
        """Give it a line of input."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(line).encode() + b"\n")
        async with asyncio.timeout(PATIENCE_S):
            await self.process.stdin.drain()

    async def line(self) -> Any:
        """The next line that it prints. Raises EOFError when there is none: it has ended."""
        assert self.process.stdout is not None
        try:
            async with asyncio.timeout(PATIENCE_S):
                line = await self.process.stdout.readline()
        except TimeoutError:
            raise AssertionError(f"it stays silent:\n{self.complained()}") from None
        if not line:
            raise EOFError(self.complained())
        return json.loads(line)

    async def rest(self) -> list[Any]:
        """What it prints until it ends, which it does well."""
        found: list[Any] = []
        with suppress(EOFError):
            while True:
                found.append(await self.line())
        async with asyncio.timeout(PATIENCE_S):
            assert await self.process.wait() == 0, self.complained()
        return found

    def complained(self) -> str:
        """What it has written to its standard error."""
        return os.pread(self.complaints.fileno(), MAX_LINE_BYTES, 0).decode("utf-8", "replace")

    async def kill(self) -> None:
        """End it as a closed tab does: at once, saying goodbye to nobody."""
        if self.process.returncode is None:
            # Not `process.kill()`: before Python 3.13 it may take the exit status away from the
            # thread that waits for it (python/cpython#87744).
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGKILL)
        await self.process.wait()


@asynccontextmanager
async def program(file: Path, *arguments: str) -> AsyncGenerator[Program]:
    """Run a program until the block ends; it is killed if it still runs then."""
    # EventSource is behind a flag in Node 24, and is the standard's own.
    runs = [sys.executable] if file.suffix == ".py" else [node(), "--experimental-eventsource"]
    with tempfile.TemporaryFile() as complaints:
        process = await asyncio.create_subprocess_exec(
            *runs,
            str(file),
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=complaints,
            limit=MAX_LINE_BYTES,
        )
        started = Program(process, complaints)
        try:
            yield started
        finally:
            await started.kill()
