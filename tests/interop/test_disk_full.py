"""A disk that is full refuses appends, and nothing else: on a real file system of a few megabytes,
in a name space of its own, over HTTP.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from raw_http import Answer, Connection, ask, connect, events
from running_commands import PENSTOCK, Running, environment

DISK = "6m"
BALLAST = 3 * 1024 * 1024
JSON = {"Content-Type": "application/json"}
APPENDS = 2_000
"""More than there can be room for."""

MOUNT = 'mount -t tmpfs -o size="$1" penstock-test "$0" && echo mounted && exec sleep 600'
NAME_SPACE = ("unshare", "--map-root-user", "--mount", "sh", "-c", MOUNT)
ENTER = ("nsenter", "--preserve-credentials", "--user", "--mount", "--target")


class Disk:
    """A small file system that only its keeper sees, and who enters the keeper's name space."""

    def __init__(self, keeper: subprocess.Popen[str], place: Path) -> None:
        self._keeper, self._place = keeper, place
        self.path = Path(f"/proc/{keeper.pid}/root{place}")

    def fill(self, size: int = BALLAST) -> None:
        """Take some of the room away."""
        with (self.path / "ballast").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)

    def make_room(self) -> None:
        (self.path / "ballast").unlink()

    @contextmanager
    def serving(self, **settings: str) -> Generator[Running]:
        """Run `penstock serve` with its store on this disk until the block ends."""
        folder = self._place.parent / f"process-{time.monotonic_ns()}"
        folder.mkdir()
        backend = f"sqlite:///{self._place}/streams.db"
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            process = subprocess.Popen(
                [
                    *(*ENTER, str(self._keeper.pid), PENSTOCK),
                    *("serve", "--port", "0", "--backend", backend),
                ],
                env=environment(**settings),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
        try:
            yield Running(process, folder)
        finally:
            if process.poll() is None:
                process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def disk(tmp_path: Path) -> Generator[Disk]:
    """A small disk; skips where none can be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    missing = [tool for tool in (NAME_SPACE[0], ENTER[0]) if shutil.which(tool) is None]
    if missing:
        _skip(f"install util-linux, which has {missing[0]}")
    keeper = subprocess.Popen(
        [*NAME_SPACE, str(place), DISK],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert keeper.stdout is not None
        assert keeper.stderr is not None
        if not keeper.stdout.readline():
            _skip(keeper.stderr.read().strip())
        yield Disk(keeper, place)
    finally:
        keeper.kill()
        keeper.communicate()


def _skip(why: str) -> None:
    message = f"needs the right to mount a file system in a name space of its own: {why}"
    print(message, file=sys.stderr)
    pytest.skip(message)


async def append(connection: Connection, name: str, number: int) -> Answer:
    """Append record `number`, by an idempotent producer."""
    stamp = {"Producer-Id": "p", "Producer-Epoch": "0", "Producer-Seq": str(number)}
    body = json.dumps({"n": number, "pad": "x" * 4_000}).encode()
    return await connection.ask("POST", f"/v1/stream/{name}", JSON | stamp, body)


async def fill_up(connection: Connection, name: str) -> int:
    """Append until there is no room; gives how many were acknowledged."""
    for number in range(APPENDS):
        answer = await append(connection, name, number)
        if answer.status != 200:
            assert answer.status == 507, answer
            assert answer.code == "disk-full"
            return number
    raise AssertionError("the disk never was full")


async def numbers_of(port: int, name: str) -> list[int]:
    found: list[int] = []
    place = "-1"
    while True:
        answer = await ask(port, "GET", f"/v1/stream/{name}?offset={place}")
        assert answer.status == 200, answer
        found += [record["n"] for record in answer.json]
        place = answer["stream-next-offset"]
        if "stream-up-to-date" in answer:
            return found


@pytest.mark.parametrize("durability", ["process", "disk"])
async def test_a_full_disk_refuses_appends_and_goes_on_reading(disk: Disk, durability: str) -> None:
    """Every append is refused with 507 and nothing of it is stored, what was acknowledged is read
    in every way, a reader who was there stays; with room the same producer goes on."""
    with disk.serving(PENSTOCK_DURABILITY=durability) as server:
        port = server.port
        disk.fill()
        async with connect(port) as connection:
            created = await connection.ask("PUT", "/v1/stream/a", JSON)
            assert created.status == 201
            async with events(port, "/v1/stream/a") as live:
                stored = await fill_up(connection, "a")
                assert stored > 20
                for _ in range(5):  # and it stays so
                    assert (await append(connection, "a", stored)).status == 507
                assert (await connection.ask("GET", "/readyz")).status == 200
                shown = [json.loads(event.data)["n"] for event in await live.take(stored)]
                assert shown == list(range(stored))
                assert await numbers_of(port, "a") == shown
                head = await connection.ask("HEAD", "/v1/stream/a")
                # Duplicates are known still: nothing has to be stored for them.
                assert (await append(connection, "a", stored - 1)).status == 204
                disk.make_room()
                assert (await append(connection, "a", stored)).status == 200
                assert (await append(connection, "a", stored + 1)).status == 200
                after = [json.loads(event.data)["n"] for event in await live.take(2)]
                assert after == [stored, stored + 1]
            async with events(
                port, "/v1/stream/a", {"Last-Event-ID": head["stream-next-offset"]}
            ) as resumed:
                assert json.loads((await resumed.next()).data)["n"] == stored
        assert await numbers_of(port, "a") == list(range(stored + 2))


async def test_a_batch_that_finds_no_room_is_stored_not_at_all(disk: Disk) -> None:
    with disk.serving() as server:
        port = server.port
        disk.fill()
        async with connect(port) as connection:
            assert (await connection.ask("PUT", "/v1/stream/a", JSON)).status == 201
            batch = json.dumps([{"n": number, "pad": "x" * 50_000} for number in range(20)])
            stored = 0
            while True:
                answer = await connection.ask("POST", "/v1/stream/a", JSON, batch.encode())
                if answer.status != 204:
                    break
                stored += 1
                assert stored < APPENDS
            assert (answer.status, answer.code) == (507, "disk-full")
            assert await numbers_of(port, "a") == list(range(20)) * stored
            # A stream that cannot be made whole is not made.
            assert (await connection.ask("PUT", "/v1/stream/b", JSON, batch.encode())).status == 507
            assert (await connection.ask("HEAD", "/v1/stream/b")).status == 404
            disk.make_room()
            assert (await connection.ask("PUT", "/v1/stream/b", JSON, batch.encode())).status == 201


async def test_a_server_that_is_killed_on_a_full_disk_starts_on_it_and_reads(disk: Disk) -> None:
    with disk.serving() as server:
        disk.fill()
        async with connect(server.port) as connection:
            assert (await connection.ask("PUT", "/v1/stream/a", JSON)).status == 201
            stored = await fill_up(connection, "a")
        server.send(signal.SIGKILL)
        server.wait()
    with disk.serving() as server:
        async with connect(server.port) as connection:
            assert await numbers_of(server.port, "a") == list(range(stored))
            assert (await append(connection, "a", stored)).status == 507
            disk.make_room()
            assert (await append(connection, "a", stored)).status == 200
            assert await numbers_of(server.port, "a") == list(range(stored + 1))
        assert server.interrupt() == 0
