"""How long a restart takes: from the start of the process to the first 200 of `/readyz`.

The store holds 100,000 records in 1,000 streams. It is measured after a clean stop, after
`kill -9` with everything still in the write-ahead log, and with the file dropped from the kernel's
cache; beside them what Python and the imports take alone: an empty `python -c pass`, and the same
server on `memory://`. The ways take turns, so that a busy moment of the machine is not one way's.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from crash.asking import Line, path_of
from crash.payloads import JSON, body, payload
from crash.served import Served

STREAMS: Final = 1_000
RECORDS_A_STREAM: Final = 100
TIMES: Final = 9
BAR_S: Final = 1.0
"""What the median of each way must stay under."""
PAGE: Final = 1_000


class Startup:
    """One store, started again and again."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "streams.db"
        self._stored = Served(folder, f"sqlite:///{self._path}", rest_after_s="10")
        self._empty = Served(folder, "memory://")
        self.took: dict[str, list[float]] = {}
        self.cpu: dict[str, list[float]] = {}

    async def run(self, times: int = TIMES) -> None:
        """Fill the store, and start it `times` in each way."""
        ways: dict[str, Callable[[], Awaitable[tuple[float, float]]]] = {
            "python -c pass": _bare,
            "memory://": self._start_empty,
            "after a clean stop": self._start_clean,
            "after kill -9": self._start_killed,
            "after kill -9, nothing cached": self._start_cold,
        }
        try:
            await self._stored.begin()
            await self._stored.ready()
            await self._fill()
            await self._stored.kill()
            for _ in range(times):
                for name, way in ways.items():
                    seconds, cpu_s = await way()
                    self.took.setdefault(name, []).append(seconds)
                    self.cpu.setdefault(name, []).append(cpu_s)
            await self._stored.begin()
            await self._stored.ready()
            await self._check()
        finally:
            await self._stored.abandon()
            await self._empty.abandon()

    async def _fill(self) -> None:
        line = Line(self._stored)
        for number in range(STREAMS):
            name = f"stored/{number}"
            records = [payload(name, place, JSON) for place in range(RECORDS_A_STREAM)]
            answer, _ = await line.insist(
                "PUT", path_of(name), {"Content-Type": JSON}, body(records, JSON)
            )
            assert answer.status == 201, answer
        await line.hang_up()

    async def _check(self) -> None:
        """Everything is there."""
        line = Line(self._stored)
        counted, records, after = 0, 0, ""
        while True:
            answer, _ = await line.insist("GET", f"/v1/streams?limit={PAGE}{after}")
            page = answer.json
            counted += len(page["streams"])
            records += sum(stream["records"] for stream in page["streams"])
            if page["next"] is None:
                break
            after = f"&after={page['next']}"
        await line.hang_up()
        assert (counted, records) == (STREAMS, STREAMS * RECORDS_A_STREAM), (counted, records)

    async def _start_empty(self) -> tuple[float, float]:
        await self._empty.begin()
        seconds = await self._empty.ready()
        await self._empty.kill()
        return seconds, self._empty.cpu_s

    async def _start_killed(self) -> tuple[float, float]:
        """It was killed before and is killed again: nothing was moved out of the log meanwhile."""
        await self._stored.begin()
        seconds = await self._stored.ready()
        await self._stored.kill()
        return seconds, self._stored.cpu_s

    async def _start_cold(self) -> tuple[float, float]:
        for path in self._path.parent.glob(self._path.name + "*"):
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return await self._start_killed()

    async def _start_clean(self) -> tuple[float, float]:
        """Stopped before; afterwards it is as the others need it, with the log full."""
        kept = {path: path.read_bytes() for path in self._files()}
        await self._stored.begin()
        await self._stored.ready()
        await self._stored.stop()
        await self._stored.begin()
        seconds = await self._stored.ready()
        await self._stored.kill()
        for path in self._files():
            path.unlink()
        for path, content in kept.items():
            path.write_bytes(content)
        return seconds, self._stored.cpu_s

    def _files(self) -> list[Path]:
        return list(self._path.parent.glob(self._path.name + "*"))

    @property
    def is_within_bar(self) -> bool:
        return all(statistics.median(took) < BAR_S for took in self.took.values())

    def table(self) -> str:
        """Of each way the median and the worst, the processor's time, and the store's share."""
        base = statistics.median(self.took["memory://"])
        rows = [f"  {'':<32}{'median':>9}{'worst':>9}{'processor':>11}{'the store':>11}"]
        for name, took in self.took.items():
            middle, cpu = statistics.median(took), statistics.median(self.cpu[name])
            used = f"{cpu:.2f} s" if cpu else ""
            share = f"{(middle - base) * 1000:.0f} ms" if name.startswith("after") else ""
            rows.append(f"  {name:<32}{middle:>7.2f} s{max(took):>7.2f} s{used:>11}{share:>11}")
        sizes = (f"{file.name} {file.stat().st_size / 1e6:.1f} MB" for file in self._files())
        return "\n".join([*rows, f"  ({', '.join(sorted(sizes))})"])


async def _bare() -> tuple[float, float]:
    """Python alone, from its start to its end."""
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "pass")
    await process.wait()
    return time.perf_counter() - began, 0.0


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="penstock-startup-") as folder:
        startup = Startup(Path(folder))
        asyncio.run(startup.run())
        print(f"{STREAMS * RECORDS_A_STREAM:,} records in {STREAMS:,} streams, {TIMES} times each,")
        print("from the start of the process to the first 200 of /readyz:")
        print(startup.table())
    if startup.is_within_bar:
        return 0
    print(f"above the bar of {BAR_S:g} s")
    return 1
