"""A store whose process is killed at any moment has every acknowledged append, each once and in
order, knows its producers, and has shown nothing that it takes back.

A process appends with stamps to many streams, and prints what was acknowledged and what a listener
was shown, line by line; it is killed at a random moment, and begun again on what it left.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import threading
from collections import defaultdict
from pathlib import Path

import pytest

from backends.sqlite_stores import ALL, opened
from penstock.core.errors import ProducerGap
from penstock.core.producer import Stamp
from penstock.core.record import NewRecord

ROUNDS = int(os.environ.get("PENSTOCK_KILL_ROUNDS", "12"))
STREAMS = 20
WRITER = """
import asyncio, itertools, os, sys
from penstock.backends.interface import StreamConfig
from penstock.backends.sqlite import SqliteBackend
from penstock.core.producer import Stamp
from penstock.core.record import NewRecord

class Shown:
    def __init__(self, name):
        self.name = name
    def committed(self, records, head):
        for record in records:
            say(f"shown {self.name} {head.epoch} {record.position} {record.payload.decode()}")
    def trimmed(self, head): pass
    def ended(self, head): pass
    def deleted(self): pass
    def restarted(self, head): pass

def say(line):
    os.write(1, f"{line}\\n".encode())

async def feed(backend, number):
    name = f"s{number}"
    head, _ = await backend.create(name, StreamConfig())
    backend.watch(name, 0, Shown(name))
    seq = head.tail // 2
    while True:
        batch = [NewRecord(f"{seq}.0".encode()), NewRecord(f"{seq}.1".encode())]
        done = await backend.append(name, batch, stamp=Stamp("p", 0, seq))
        say(f"acknowledged {name} {done.offset.epoch} {done.offset.position} {seq}")
        seq += 1
        await asyncio.sleep(0.001)

async def main():
    backend = SqliteBackend(sys.argv[1], durability=sys.argv[2])
    await backend.open()
    say("open")
    await asyncio.gather(*[feed(backend, number) for number in range(int(sys.argv[3]))])

asyncio.run(main())
"""


def run_and_kill(path: Path, durability: str, after_lines: int) -> list[list[str]]:
    """Let a writer run, kill it after it has said that much, and give all whole lines it said."""
    command = [sys.executable, "-c", WRITER, str(path), durability, str(STREAMS)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    said: list[bytes] = []
    try:
        assert process.stdout is not None
        while len(said) < after_lines:
            line = process.stdout.readline()
            assert line, "the writer ended by itself"
            said.append(line)
    finally:
        process.kill()
        watchdog.cancel()
    said += process.stdout.readlines()
    process.communicate()
    return [line.decode().split() for line in said if line.endswith(b"\n")]


@pytest.mark.parametrize("durability", ["process", "disk", "eager"])
def test_kills_lose_nothing_that_was_acknowledged(tmp_path: Path, durability: str) -> None:
    seed = random.SystemRandom().randrange(1 << 30)
    print("seed", seed)
    chance = random.Random(seed)
    path = tmp_path / "a.db"
    acknowledged: dict[str, int] = defaultdict(lambda: -1)
    shown: dict[tuple[str, str, int], str] = {}
    rounds = ROUNDS if durability == "process" else max(ROUNDS // 4, 2)
    for number in range(rounds):
        for line in run_and_kill(path, durability, chance.randrange(1, 3_000)):
            match line:
                case ["acknowledged", name, _, _, seq]:
                    assert int(seq) == acknowledged[name] + 1 or number > 0
                    acknowledged[name] = max(acknowledged[name], int(seq))
                case ["shown", name, epoch, position, payload]:
                    key = (name, epoch, int(position))
                    assert shown.setdefault(key, payload) == payload, "a place holds one record"
                case _:
                    assert line == ["open"]
        asyncio.run(check(path, durability, acknowledged, shown))


async def check(
    path: Path,
    durability: str,
    acknowledged: dict[str, int],
    shown: dict[tuple[str, str, int], str],
) -> None:
    async with opened(path, durability=durability) as backend:
        for name, newest in acknowledged.items():
            head, _ = await backend.head(name)
            found = await backend.read(name, 0, ALL, ALL)
            said = [record.payload.decode() for record in found]
            appended = len(said) // 2
            assert said == [f"{seq}.{half}" for seq in range(appended) for half in (0, 1)]
            assert appended > newest, "what was acknowledged is there"
            for (stream, epoch, position), payload in shown.items():
                # With eager a record may be lost that was shown; then its epoch is over.
                if stream == name and (durability != "eager" or epoch == str(head.epoch)):
                    assert epoch == str(head.epoch)
                    assert found[position - 1].payload.decode() == payload
            if appended:
                again = await backend.append(
                    name, [NewRecord(b"x")], stamp=Stamp("p", 0, appended - 1)
                )
                assert again.is_duplicate
            with pytest.raises(ProducerGap):
                await backend.append(name, [NewRecord(b"x")], stamp=Stamp("p", 0, appended + 1))
