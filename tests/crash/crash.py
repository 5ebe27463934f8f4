"""`kill -9`, again and again: what was acknowledged is there, what was shown is never taken back.

`make crash` (or, with PYTHONPATH=tests, `python -m crash.crash --rounds 10 --seed 7`) runs
`penstock serve --backend sqlite:///FILE` under a load of 200 appends a second and readers of every
kind, kills it at moments drawn from the seed, starts it again on the same file, and compares all
that it has with what writers and readers were told. The moments: under load, while it starts,
right after it serves, in the middle of a checkpoint, while it stops, twice in a row. Prints a line
every ten rounds and a table at the end; leaves with 1 when anything is wrong, and says the seed.

    --durability disk     each group is synced
    --durability eager    shown before it is committed: a restart begins a later epoch, readers are
                          told of the gap, and what was acknowledged is there all the same
    --startup             how long a restart takes with 100,000 records in 1,000 streams

The seed draws what is done and when; what a machine does in between is its own. Read `ledger.py`
for what is compared.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from crash import startup
from crash.inspection import Inspection
from crash.lanes import Lanes
from crash.ledger import FLOOD, KINDS, Ledger, Log
from crash.moments import Moments
from crash.payloads import JSON
from crash.producing import LENGTHS, STREAMS
from crash.readers import Readers
from crash.served import Served
from crash.writers import Load

APPENDS_PER_S: Final = 210
"""Turns: with those that a kill leaves without an answer, 200 a second are acknowledged."""
RETAIN_RECORDS: Final = 1_500
RETAIN_BYTES: Final = 4 * 1024 * 1024
FRESH_FILES: Final = 3
"""How often a server is killed while it makes its file, before the rounds begin."""
LINE_EVERY: Final = 10
LOAD_S: Final = (0.2, 2.0)
"""How long a round's load lasts before the kill."""
FEEDING: Final = 0.33
"""How many of the starts are of a server that feeds streams of its own."""
MAX_SHOWN: Final = 20


class Wrong(AssertionError):
    """What was found after a round."""


@dataclass(slots=True)
class Result:
    """What a run has shown."""

    rounds: int = 0
    load_s: float = 0.0
    restarts: list[float] = field(default_factory=list[float])
    counts: Counter[str] = field(default_factory=Counter[str])
    kills: Counter[str] = field(default_factory=Counter[str])


class Crash:
    """One run, on a file in `folder`."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        durability: str = "process",
        load_s: tuple[float, float] = LOAD_S,
    ) -> None:
        self.path = folder / "streams.db"
        self.random = random.Random(seed)
        self.ledger = Ledger(is_eager=durability == "eager")
        self.served = Served(
            folder,
            f"sqlite:///{self.path}",
            durability=durability,
            retain_records=str(RETAIN_RECORDS),
            retain_bytes=str(RETAIN_BYTES),
        )
        self.load = Load(self.served, APPENDS_PER_S)
        self.moments = Moments(
            self.served, self.ledger, self.path, self.random, load_s, self._start, self._flood
        )
        self.result = Result(counts=self.ledger.counts, kills=self.moments.counts)
        self._feeding: list[Log] = []
        self._fed: list[Log] = []

    async def run(self, rounds: int) -> Result:
        """Run so many rounds. Raises Wrong after the first that shows a fault."""
        try:
            await self._make_file()
            await self.served.begin()
            await self.served.ready()
            async with asyncio.TaskGroup() as group:
                begun = asyncio.get_running_loop().create_future()
                crowd = group.create_task(_crowd(begun))
                await self._rounds(rounds, await begun)
                crowd.cancel()
        finally:
            await self.served.abandon()
        return self.result

    async def _make_file(self) -> None:
        """Kill servers that make their file: the next one can use what they left."""
        for _ in range(FRESH_FILES):
            await self.served.begin()
            # The imports come first; the file is made at the end.
            await asyncio.sleep(self.served.start_s * self.random.uniform(0.6, 1.0))
            await self.served.kill()

    async def _rounds(self, rounds: int, group: asyncio.TaskGroup) -> None:
        self._readers = Readers(self.served, group, self.random)
        self._lanes = Lanes(self.ledger, self.served, self.load, self._readers, group, self.random)
        self._lanes.start()
        for number in range(1, rounds + 1):
            self.load.open()
            began = time.monotonic() - self.served.down_s
            name = await self.moments.pass_one()
            self.result.load_s += time.monotonic() - self.served.down_s - began
            await self._inspect(f"round {number}, killed {name}")
            self.result.rounds = number
            if number % LINE_EVERY == 0 or number == rounds:
                print(self._line(), flush=True)
            await self._forget_fed()
        await self._end()

    async def _start(self) -> None:
        """Start the server again; each third time it is one that has streams to feed."""
        self._fed += self._feeding
        self.ledger.logs += self._feeding
        self._feeding = []
        if self.random.random() > FEEDING:
            await self.served.begin()
            self.result.restarts.append(await self.served.ready())
            return
        prefix = f"fed/{self.served.starts}"
        await self.served.begin(prefix)
        await self.served.ready()
        for place in range(STREAMS):
            self._feeding.append(self._expect_fed(f"{prefix}/{place}", LENGTHS[place % 2]))

    def _expect_fed(self, name: str, length: int) -> Log:
        log = self.ledger.log(name, JSON, waits=True)
        self.ledger.logs.remove(log)  # until its producer is gone: it grows while it is looked at
        log.may_end = {"lost"} if length == max(LENGTHS) else {"lost", "complete"}
        log.writer(name)
        self._readers.follow(log, 2)
        return log

    async def _flood(self) -> None:
        log = await self._lanes.create(f"{FLOOD}{self.served.starts}")
        self._readers.follow(log, 1)
        await self._lanes.flood(log)

    async def _forget_fed(self) -> None:
        """Delete what earlier servers fed, and what was flooded."""
        self.load.open()
        there = [log for log in self.ledger.logs if log in self._fed or log.name.startswith(FLOOD)]
        self._fed = []
        for log in there:
            await self._lanes.delete(log)

    async def _inspect(self, when: str) -> None:
        await self.load.settle()
        inspection = Inspection(
            self.ledger, self.served, self._readers, RETAIN_RECORDS, RETAIN_BYTES
        )
        await inspection.run(self._lanes.producers, self._lanes.deleted)
        if self.ledger.faults:
            shown = "\n".join(f"  {fault}" for fault in self.ledger.faults[:MAX_SHOWN])
            raise Wrong(f"{when}: {len(self.ledger.faults)} faults\n{shown}")

    async def _end(self) -> None:
        """Stop it as an operator does: the file is whole, and everything is there once more."""
        await self.served.stop()
        with closing(sqlite3.connect(self.path)) as connection:
            said = connection.execute("PRAGMA integrity_check").fetchall()
        assert said == [("ok",)], said
        await self._start()
        await self._inspect("the end")
        await self.served.stop()

    def _line(self) -> str:
        counts, result = self.ledger.counts, self.result
        restarts = result.restarts or [0.0]
        return (
            f"round {result.rounds:4}  {self.moments.counts['kills']} kills"
            f"  {counts['appends acknowledged']} appends acknowledged"
            f"  {counts['records shown']} records shown"
            f"  restart {statistics.median(restarts):.2f} s, worst {max(restarts):.2f} s"
        )


async def _crowd(begun: asyncio.Future[asyncio.TaskGroup]) -> None:
    """Hold everybody who writes and reads, until cancelled."""
    async with asyncio.TaskGroup() as group:
        begun.set_result(group)
        await asyncio.Event().wait()


def table(result: Result, ledger: Ledger) -> str:
    """All that was counted, and every kind of fault."""
    found = Counter(fault.kind for fault in ledger.faults)
    counts, restarts = result.counts, result.restarts or [0.0]
    rate = counts["appends acknowledged"] / max(result.load_s, 1e-9)
    rows: list[tuple[str, object]] = [
        ("rounds", result.rounds),
        *(result.kills.items()),
        *(counts.items()),
        ("appends acknowledged a second of serving", f"{rate:.0f}"),
        ("restart to serving, median", f"{statistics.median(restarts):.2f} s"),
        ("restart to serving, worst", f"{max(restarts):.2f} s"),
        *((kind, found[kind]) for kind in KINDS),
    ]
    return "\n".join(f"  {name:<44}{value:>12}" for name, value in rows)


def main() -> int:
    parser = argparse.ArgumentParser(description="kill -9, again and again")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--durability", choices=["process", "disk", "eager"], default="process")
    parser.add_argument("--startup", action="store_true")
    options = parser.parse_args()
    if options.startup:
        return startup.main()
    print(f"seed {options.seed}, durability {options.durability}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="penstock-crash-"))
    crash = Crash(folder, options.seed, options.durability)
    is_right = False
    try:
        asyncio.run(crash.run(options.rounds))
        is_right = True
    except* Wrong as wrong:
        print("\n".join(str(each) for each in _leaves(wrong)))
    except* Exception:  # noqa: BLE001 the run's outermost edge: a client that could not go on
        traceback.print_exc()
    print(table(crash.result, crash.ledger))
    if is_right:
        shutil.rmtree(folder)
        print("nothing lost, nothing taken back, nothing twice")
        return 0
    print(f"wrong with --seed {options.seed}; the store and the server's words are in {folder}")
    return 1


def _leaves(group: BaseExceptionGroup[Wrong]) -> list[Wrong]:
    found: list[Wrong] = []
    for each in group.exceptions:
        found += _leaves(each) if isinstance(each, BaseExceptionGroup) else [each]
    return found


if __name__ == "__main__":
    sys.exit(main())
