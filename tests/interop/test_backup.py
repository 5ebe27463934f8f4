"""`penstock backup` copies a store while a server takes appends, and `penstock serve` opens no file
that it should not: both are run as a user runs them.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager, asynccontextmanager, closing
from pathlib import Path

import pytest

from penstock.core.cursor import Offset, parse_offset
from raw_http import Answer, Connection, ask, connect, events
from running_commands import PENSTOCK, Done, Running, environment, run, running

FAILED, CALLED_WRONGLY = 1, 2
STREAMS = 6
JSON = {"Content-Type": "application/json"}
APPLICATION_ID = 0x50454E53
LATER_VERSION = 99


def store(path: Path) -> str:
    return f"sqlite:///{path}"


def serving(path: Path, folder: Path) -> AbstractContextManager[Running]:
    return running("serve", "--port", "0", "--backend", store(path), folder=folder)


def refusal(path: Path, folder: Path) -> Done:
    """What `penstock serve` says to a store; fails when it serves it."""
    return run("serve", "--port", "0", "--backend", store(path), folder=folder)


def backup(source: Path, target: Path, folder: Path) -> Done:
    return run("backup", store(source), str(target), folder=folder)


def content_of(folder: Path) -> dict[str, bytes]:
    """Every file of a folder that says something. A lock says that somebody was there, an index of
    the write-ahead log is shared memory, and SQLite makes an empty log wherever it looks."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not path.name.endswith(("-lock", "-shm"))
        and not (path.name.endswith("-wal") and not path.stat().st_size)
    }


class Appender:
    """An idempotent producer of two streams, which appends to the second what it has to the first:
    at any one moment the second has as many records, or one less."""

    def __init__(self, place: int) -> None:
        self.names = (f"a/{place}", f"b/{place}")
        self.acknowledged = [0, 0]
        self.offsets: list[dict[int, Offset]] = [{}, {}]

    async def run(self, port: int) -> None:
        async with connect(port) as connection:
            for name in self.names:
                answer = await connection.ask("PUT", f"/v1/stream/{name}", JSON)
                assert answer.status == 201
            while True:
                for which in (0, 1):
                    await self._append(connection, which)

    async def _append(self, connection: Connection, which: int) -> None:
        number = self.acknowledged[which]
        answer = await send(connection, self.names[which], number)
        assert answer.status == 200, answer
        self.acknowledged[which] = number + 1
        self.offsets[which][number + 1] = parse_offset(answer["stream-next-offset"])


async def send(connection: Connection, name: str, number: int) -> Answer:
    """Append a producer's record of this number."""
    stamp = {"Producer-Id": "p", "Producer-Epoch": "0", "Producer-Seq": str(number)}
    body = b'{"n":%d,"pad":"%b"}' % (number, b"x" * (number % 500))
    return await connection.ask("POST", f"/v1/stream/{name}", JSON | stamp, body)


async def numbers_of(port: int, name: str) -> tuple[list[int], Offset]:
    """Read a stream by the protocol, to its tail."""
    found: list[int] = []
    place = "-1"
    async with connect(port) as connection:
        while True:
            answer = await connection.ask("GET", f"/v1/stream/{name}?offset={place}")
            assert answer.status == 200, answer
            found += [record["n"] for record in answer.json]
            place = answer["stream-next-offset"]
            if "stream-up-to-date" in answer:
                return found, parse_offset(place)


@asynccontextmanager
async def appending(port: int) -> AsyncGenerator[list[Appender]]:
    """Have all streams appended to while the block runs; each has some records when it begins."""
    appenders = [Appender(place) for place in range(STREAMS)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each.run(port)) for each in appenders]
        async with asyncio.timeout(20):
            while min(min(each.acknowledged) for each in appenders) < 20:
                await asyncio.sleep(0.01)
        yield appenders
        for task in tasks:
            task.cancel()


async def backup_beside(source: Path, target: Path, folder: Path) -> Done:
    """`penstock backup` while this loop goes on."""
    return await asyncio.to_thread(backup, source, target, folder)


async def test_a_copy_of_a_store_in_use_is_one_moment_of_all_its_streams(tmp_path: Path) -> None:
    path, copy = tmp_path / "streams.db", tmp_path / "copy" / "streams.db"
    copy.parent.mkdir()
    with serving(path, tmp_path) as server:
        async with appending(server.port) as appenders:
            before = [list(each.acknowledged) for each in appenders]
            done = await backup_beside(path, copy, tmp_path)
            after = [list(each.acknowledged) for each in appenders]
            assert done.status == 0, done
        # It was a copy of a store in use.
        assert sum(map(sum, after)) > sum(map(sum, before))
    assert [file.name for file in copy.parent.iterdir()] == ["streams.db"]
    with serving(copy, tmp_path) as server:
        for each, known in zip(appenders, before, strict=True):
            first, second = [await numbers_of(server.port, name) for name in each.names]
            # Every record that was acknowledged before is there, in order, none twice.
            assert first[0] == list(range(len(first[0])))
            assert second[0] == list(range(len(second[0])))
            assert len(first[0]) >= known[0]
            assert len(second[0]) >= known[1]
            # One moment for all streams.
            assert len(second[0]) in (len(first[0]), len(first[0]) - 1)


async def test_a_copy_goes_on_in_a_later_epoch(tmp_path: Path) -> None:
    """What came after it may have been shown, so no offset of the store names a place in its copy:
    a reader is told of the gap. Producers are known: the last again is a duplicate, the next is
    taken."""
    path, copy = tmp_path / "streams.db", tmp_path / "copy.db"
    with serving(path, tmp_path) as server:
        async with appending(server.port) as appenders:
            assert (await backup_beside(path, copy, tmp_path)).status == 0
    name, offsets = appenders[0].names[0], appenders[0].offsets[0]
    with serving(copy, tmp_path) as server:
        numbers, tail = await numbers_of(server.port, name)
        assert tail.epoch > offsets[10].epoch
        async with connect(server.port) as connection:
            assert (await send(connection, name, numbers[-1])).status == 204
            assert (await send(connection, name, numbers[-1] + 2)).status == 409
            assert (await send(connection, name, numbers[-1] + 1)).status == 200
            gone = await connection.ask("GET", f"/v1/stream/{name}?offset={offsets[10]}")
            assert (gone.status, gone.code) == (410, "offset-gone")
        place = {"Last-Event-ID": str(offsets[10])}
        async with events(server.port, f"/v1/stream/{name}", place) as reading:
            gap, first = await reading.take(2)
        assert gap.type == "gap"
        assert json.loads(gap.data)["reason"] == "epoch"
        assert json.loads(first.data)["n"] == 0


async def test_a_copy_of_a_store_that_was_killed_holds_all_of_it(tmp_path: Path) -> None:
    """Everything is in the write-ahead log, and nobody has the file open."""
    path, copy = tmp_path / "streams.db", tmp_path / "copy.db"
    with serving(path, tmp_path) as server:
        async with appending(server.port) as appenders:
            pass
        server.send(signal.SIGKILL)
        server.wait()
    assert backup(path, copy, tmp_path).status == 0
    with serving(copy, tmp_path) as server:
        for each in appenders:
            for which, name in enumerate(each.names):
                numbers, _ = await numbers_of(server.port, name)
                assert len(numbers) >= each.acknowledged[which]


async def test_a_backup_that_is_killed_leaves_no_copy_and_the_next_one_works(
    tmp_path: Path,
) -> None:
    path, copy = tmp_path / "streams.db", tmp_path / "copy.db"
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    with serving(path, tmp_path) as server:
        async with appending(server.port):
            command = [PENSTOCK, "backup", store(path), str(copy)]
            for _ in range(4):
                process = subprocess.Popen(command, cwd=tmp_path, env=environment())
                await asyncio.sleep(random.Random(seed).uniform(0.2, 0.5))
                process.kill()
                if process.wait() == 0:
                    copy.unlink()  # it was done
                assert not copy.exists()
            assert (await backup_beside(path, copy, tmp_path)).status == 0
    left = sorted(file.name for file in tmp_path.glob("copy.db*"))
    assert left == ["copy.db"]
    with serving(copy, tmp_path) as server:
        assert (await numbers_of(server.port, "a/0"))[0]


# what cannot be copied, or served


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with some records, closed. Tests copy it."""
    folder = tmp_path_factory.mktemp("filled")
    with serving(folder / "streams.db", folder) as server:
        asyncio.run(_fill(server.port))
        assert server.interrupt() == 0
    return folder / "streams.db"


async def _fill(port: int) -> None:
    body = b"[" + b",".join(b'{"n":%d}' % number for number in range(5_000)) + b"]"
    for name in ("a", "b"):
        assert (await ask(port, "PUT", f"/v1/stream/{name}", JSON, body)).status == 201


@pytest.fixture
def there(filled: Path, tmp_path: Path) -> Path:
    """A copy of that store in a folder of its own."""
    path = tmp_path / "there" / "streams.db"
    path.parent.mkdir()
    shutil.copy(filled, path)
    return path


def damage(path: Path) -> None:
    """Write over the beginnings of half of a store's pages."""
    whole = bytearray(path.read_bytes())
    for page in range(2, len(whole) // 4096, 2):
        whole[page * 4096 : page * 4096 + 64] = b"\xee" * 64
    path.write_bytes(whole)


def make_foreign(path: Path) -> None:
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (a)")
        connection.commit()


def make_newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={LATER_VERSION}")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for beside in ("-wal", "-shm"):
        path.with_name(path.name + beside).unlink(missing_ok=True)


def make_text(path: Path) -> None:
    path.write_text("dear diary\n" * 1_000, encoding="utf-8")


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])


SPOILT = {
    "damaged": (damage, FAILED, "is damaged"),
    "cut short": (cut_short, FAILED, "is damaged"),
    "no database": (make_text, FAILED, "is damaged"),
    "foreign": (make_foreign, CALLED_WRONGLY, "of another program"),
    "newer": (make_newer, CALLED_WRONGLY, f"has format {LATER_VERSION}"),
}


@pytest.mark.parametrize("what", SPOILT)
def test_a_file_that_is_no_whole_store_of_ours_is_not_copied(
    there: Path, tmp_path: Path, what: str
) -> None:
    spoil, status, words = SPOILT[what]
    spoil(there)
    before = content_of(there.parent)
    backup(there, tmp_path / "copy.db", tmp_path).refuses(status, str(there), words)
    assert content_of(there.parent) == before
    assert not list(tmp_path.glob("copy.db*"))


@pytest.mark.parametrize("what", SPOILT)
def test_a_file_that_is_no_whole_store_of_ours_is_not_served(
    there: Path, tmp_path: Path, what: str
) -> None:
    spoil, status, words = SPOILT[what]
    spoil(there)
    before = content_of(there.parent)
    refusal(there, tmp_path).refuses(status, str(there), words)
    assert content_of(there.parent) == before


def test_a_target_that_is_there_is_not_written_over(there: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    target.write_bytes(b"mine")
    before = content_of(tmp_path)
    for taken in (target, there):
        backup(there, taken, tmp_path).refuses(CALLED_WRONGLY, str(taken), "which is there")
    backup(there, tmp_path, tmp_path).refuses(FAILED, str(tmp_path), "is a directory")
    assert content_of(tmp_path) == before


def test_a_source_or_a_target_that_cannot_be_is_said_to_be_none(
    there: Path, tmp_path: Path
) -> None:
    backup(tmp_path / "none.db", tmp_path / "copy.db", tmp_path).refuses(FAILED, "none.db")
    backup(there, tmp_path / "no" / "copy.db", tmp_path).refuses(FAILED, "there is no directory")
    done = run("backup", "memory://", str(tmp_path / "copy.db"), folder=tmp_path)
    done.refuses(CALLED_WRONGLY, "memory://", "sqlite:///path")
    assert not list(tmp_path.glob("copy.db*"))
    assert not (tmp_path / "none.db").exists()


async def test_a_store_in_use_is_not_served_twice(there: Path, tmp_path: Path) -> None:
    with serving(there, tmp_path) as first:
        assert first.address
        before = content_of(there.parent)
        refusal(there, tmp_path).refuses(FAILED, str(there), "in use by another process")
        assert content_of(there.parent) == before
        answer = await ask(first.port, "POST", "/v1/stream/a", JSON, b"1")
        assert answer.status == 204
        first.send(signal.SIGKILL)
        first.wait()
    with serving(there, tmp_path) as second:  # what it held went with it
        assert (await ask(second.port, "HEAD", "/v1/stream/a")).status == 200


def test_a_place_where_no_file_can_be_is_refused(tmp_path: Path) -> None:
    refusal(tmp_path / "no" / "a.db", tmp_path).refuses(FAILED, "there is no directory", "make it")
    assert not (tmp_path / "no").exists()
    (tmp_path / "folder").mkdir()
    refusal(tmp_path / "folder", tmp_path).refuses(FAILED, "is a directory")
    assert not list((tmp_path / "folder").iterdir())


@pytest.mark.parametrize("has_store", [True, False])
def test_a_place_that_may_not_be_written_is_refused(
    there: Path, tmp_path: Path, has_store: bool
) -> None:
    if not has_store:
        there.unlink()
    before = content_of(there.parent)
    with_no_right_to_write(there, tmp_path).refuses(FAILED, str(there))
    assert content_of(there.parent) == before


def with_no_right_to_write(path: Path, folder: Path) -> Done:
    """`penstock serve` where the store's folder may only be read. Root may write everything, so
    for root it is a file system that is mounted read-only, in a name space of its own."""
    if os.geteuid() != 0:
        path.parent.chmod(0o555)
        try:
            return refusal(path, folder)
        finally:
            path.parent.chmod(0o755)
    place = path.parent
    script = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
    done = subprocess.run(
        [
            *("unshare", "--mount", "sh", "-c", script, str(place)),
            *(PENSTOCK, "serve", "--port", "0", "--backend", store(path)),
        ],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if done.stderr.startswith(("unshare:", "mount:")):
        message = f"needs a user who is not root, or the right to mount: {done.stderr.strip()}"
        print(message, file=sys.stderr)
        pytest.skip(message)
    return Done(done.returncode, done.stdout, done.stderr)
