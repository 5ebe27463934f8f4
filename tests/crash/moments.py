"""When a server is killed: the moments that the crash test draws from.

Each leaves a server that serves again, on the same file. The load goes on through all of it.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Final

from crash.ledger import FLOOD, Ledger, Log
from crash.served import Served
from raw_http import PATIENCE_S

MOMENTS: Final = {
    "under load": 40,
    "while it starts": 14,
    "right after its start": 12,
    "in a checkpoint": 10,
    "once a record is shown": 6,
    "while a commit waits": 6,
    "while it stops": 7,
    "not at all: stopped": 5,
}
"""Weights."""
HOLD_S: Final = (0.05, 0.5)
STOP_S: Final = 0.15
JUST_S: Final = 0.05
CHECKPOINT_S: Final = 0.003
MANY: Final = 100
"""Records shown at once that are of a large append."""
LURKER: Final = Path(__file__).with_name("lurker.py")


class Moments:
    """Kills a server, and starts it again. `start` waits until it serves; `flood` appends much
    until it is cancelled."""

    def __init__(
        self,
        served: Served,
        ledger: Ledger,
        path: Path,
        random_: random.Random,
        load_s: tuple[float, float],
        start: Callable[[], Awaitable[None]],
        flood: Callable[[], Awaitable[None]],
    ) -> None:
        self._served, self._ledger, self._path, self._random = served, ledger, path, random_
        self._load_s, self._start, self._flood = load_s, start, flood
        self.counts: Counter[str] = Counter()

    async def pass_one(self) -> str:
        """Let one moment pass, drawn by weight; gives its name."""
        (name,) = self._random.choices(list(MOMENTS), list(MOMENTS.values()))
        await self.pass_named(name)
        return name

    async def pass_named(self, name: str) -> None:
        self.counts[name] += 1
        await asyncio.sleep(self._random.uniform(*self._load_s))
        match name:
            case "under load":
                await self._kill()
            case "while it starts":
                await self._kill_while_it_starts()
            case "right after its start":
                await self._kill_right_after()
            case "in a checkpoint":
                await self._kill_in_checkpoint()
            case "once a record is shown":
                await self._kill_once_shown()
            case "while a commit waits":
                await self._kill_while_a_commit_waits()
            case "while it stops":
                await self._kill_while_it_stops()
            case _:
                await self._served.stop()
        await self._start()

    async def _kill(self) -> None:
        await self._served.kill()
        self.counts["kills"] += 1

    async def _kill_while_it_starts(self) -> None:
        await self._kill()
        for _ in range(self._random.randint(1, 3)):
            await self._served.begin()
            await asyncio.sleep(self._random.uniform(0, self._served.start_s))
            await self._kill()

    async def _kill_right_after(self) -> None:
        for _ in range(self._random.randint(1, 2)):
            await self._kill()
            await self._start()
            await asyncio.sleep(self._random.uniform(0, JUST_S))
        await self._kill()

    async def _kill_in_checkpoint(self) -> None:
        """Append until the write-ahead log is moved into the file, and have it killed then."""
        index = self._path.with_name(self._path.name + "-shm")
        delay_s = self._random.uniform(0, CHECKPOINT_S)
        lurker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", str(LURKER), str(index), str(self._served.pid), str(delay_s)),
            stdout=asyncio.subprocess.PIPE,
        )
        assert lurker.stdout is not None
        await lurker.stdout.readline()
        async with self._flooded():
            said = await lurker.stdout.read()
            assert await lurker.wait() == 0, "no checkpoint came"
            await self._served.kill_unless_gone()
            self.counts["kills"] += 1
            self.counts["checkpoints half done"] += said == b"half done\n"

    async def _kill_once_shown(self) -> None:
        """Kill it the moment a reader is shown something of a large append: with a commit that
        comes after what it shows, this is when it is under way."""
        shown = asyncio.Event()
        left = self._random.randint(1, 3)

        def hear(log: Log, count: int) -> None:
            nonlocal left
            if count > MANY and log.name.startswith(FLOOD):
                left -= 1
                if not left:
                    self._served.shoot()
                    shown.set()

        self._ledger.hear = hear
        try:
            async with self._flooded(), asyncio.timeout(PATIENCE_S):
                await shown.wait()
                await self._served.kill_unless_gone()
                self.counts["kills"] += 1
        finally:
            self._ledger.hear = None

    async def _kill_while_a_commit_waits(self) -> None:
        """Hold SQLite's own lock on the file, as a shell may: no commit comes through, and what is
        shown then (`eager`) is lost for sure."""
        with closing(sqlite3.connect(self._path, isolation_level=None)) as shell:
            shell.execute("BEGIN IMMEDIATE")
            await asyncio.sleep(self._random.uniform(*HOLD_S))
            await self._kill()
            shell.execute("ROLLBACK")

    @asynccontextmanager
    async def _flooded(self) -> AsyncGenerator[None]:
        """Append much meanwhile, as fast as it is taken."""
        flooding = asyncio.ensure_future(self._flood())
        try:
            yield
            await asyncio.wait([flooding], timeout=1)
        finally:
            flooding.cancel()
            await asyncio.wait([flooding])

    async def _kill_while_it_stops(self) -> None:
        self._served.ask_to_stop()
        await asyncio.sleep(self._random.uniform(0, STOP_S))
        if await self._served.kill_unless_gone():
            self.counts["kills"] += 1
