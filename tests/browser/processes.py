"""`penstock` as its users start it: a process, its address read from the line that it prints.

`demo()` adds what only the demo has: the log of its recorded upstream, a process of its own that
writes down when a call began and the moment its caller went away.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from os import environ
from pathlib import Path
from typing import Any

from raw_http import ask

START_PATIENCE_S = 45.0
STOP_PATIENCE_S = 10.0
LOOK_S = 0.02
"""Between two looks at a file that another process writes."""

COMMAND = str(Path(sys.executable).with_name("penstock"))
ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)")
SAMPLE = re.compile(r"^(\w+(?:\{[^}]*\})?) (\S+)$", re.MULTILINE)


@dataclass(slots=True, kw_only=True)
class Penstock:
    """A running `penstock`. `port` is on 127.0.0.1."""

    port: int
    process: Process
    folder: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def metrics(self) -> dict[str, float]:
        """What `/metrics` says now, by name with labels."""
        return samples((await ask(self.port, "GET", "/metrics")).body.decode())

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, wait for the exit, and give its status."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(STOP_PATIENCE_S):
            return await self.process.wait()

    async def upstream_said(self, event: str, *, request: int | None = None) -> dict[str, Any]:
        """Wait for an entry of the upstream's log: the latest, or that of one request."""
        give_up = time.monotonic() + START_PATIENCE_S
        while time.monotonic() < give_up:
            for entry in reversed(self.upstream_log()):
                if entry["event"] == event and request in (None, entry["request"]):
                    return entry
            await asyncio.sleep(LOOK_S)
        raise AssertionError(f"no {event!r} of request {request} in {self.upstream_log()}")

    def upstream_log(self) -> list[dict[str, Any]]:
        """The recorded upstream's entries so far, oldest first."""
        path = self.folder / "upstream.log"
        text = path.read_text("utf-8") if path.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def samples(text: str) -> dict[str, float]:
    """The Prometheus text format as numbers by name with labels."""
    return {name: float(value) for name, value in SAMPLE.findall(text)}


def total(numbers: Mapping[str, float], metric: str) -> float:
    """The sum of a metric over all its labels."""
    return sum(value for name, value in numbers.items() if name.partition("{")[0] == metric)


@asynccontextmanager
async def penstock(*arguments: str, **settings: object) -> AsyncGenerator[Penstock]:
    """Run `penstock` with these arguments until the block ends; settings go by environment."""
    variables = {f"PENSTOCK_{name.upper()}": str(value) for name, value in settings.items()}
    with tempfile.TemporaryDirectory(prefix="penstock-") as name:
        folder = Path(name)
        command = [part.replace("{folder}", name) for part in (COMMAND, *arguments)]
        with (folder / "stderr").open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                *command, stdout=PIPE, stderr=errors, env={**environ, **variables}
            )
        server = Penstock(port=0, process=process, folder=folder)
        try:
            assert process.stdout is not None
            async with asyncio.timeout(START_PATIENCE_S):
                line = (await process.stdout.readline()).decode()
            address = ADDRESS.search(line)
            said = (folder / "stderr").read_text("utf-8", "replace")
            assert address, f"{' '.join(command)} does not start: {line!r}\n{said}"
            server.port = int(address[1])
            yield server
        finally:
            try:
                await server.stop()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()


@asynccontextmanager
async def demo(
    *,
    model: str = "built-in:chat",
    tokens_per_s: float = 350.0,
    first_token_s: float = 0.3,
    port: int = 0,
) -> AsyncGenerator[Penstock]:
    """Run `penstock demo` over recorded answers, with the log of its upstream."""
    knobs = ("--model", model, "--pace", str(tokens_per_s), "--first-token-s", str(first_token_s))
    log = ("--upstream-log", "{folder}/upstream.log")
    async with penstock("demo", "--port", str(port), "--recorded", *knobs, *log) as running:
        yield running
