"""A store that cannot be written says so, keeps what it has, goes on reading, and goes on writing
when it can; nothing is torn, nobody else's call fails, nothing grows without bound."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from backends.sqlite_stores import ALL, CONFIG, news, opened, payloads, until
from penstock.backends.interface import Fork, StreamConfig
from penstock.backends.sqlite import SqliteBackend
from penstock.backends.sqlite.window import Window
from penstock.core.errors import (
    AppendWindowFull,
    DiskFull,
    NameMalformed,
    PenstockError,
    QueryMalformed,
    RecordFieldMalformed,
    StoreFailed,
    StreamEnded,
)
from penstock.core.limits import APPEND_WINDOW, APPEND_WINDOW_BYTES, MAX_PRODUCERS, OPEN_LOGS
from penstock.core.log import Retention
from penstock.core.producer import Stamp
from penstock.core.record import EndReason, NewRecord
from penstock.testing.contract.place import Heard


async def test_a_full_file_refuses_keeps_reading_and_takes_records_when_there_is_room(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path / "a.db", max_pages=300) as backend:
        await backend.create("a", CONFIG, news(b"first"))
        await backend.create("big", CONFIG)
        stored = 0
        refusal: DiskFull | None = None
        while refusal is None:
            try:
                await backend.append("big", news(b"x" * 50_000), stamp=Stamp("p", 0, stored))
                stored += 1
            except DiskFull as error:
                refusal = error
        assert str(tmp_path / "a.db") in str(refusal)
        assert refusal.status == 507
        assert stored > 10
        counted = backend.counts
        assert await payloads(backend, "a") == [b"first"]
        assert len(await payloads(backend, "big")) == stored
        assert (await backend.head("big"))[0].records == stored
        assert backend.counts == counted
        await backend.delete("big")
        await backend.sweep(10)
        await backend.append("a", news(b"x" * 50_000))
        assert len(await payloads(backend, "a")) == 2


async def test_a_full_disk_is_told_of_and_leaves_the_store_whole(tmp_path: Path) -> None:
    """On a real file system of 1 MiB, in a namespace of its own."""
    script = tmp_path / "fill.py"
    script.write_text(
        "import asyncio, os, sys\n"
        "from penstock.backends.interface import Fork, StreamConfig\n"
        "from penstock.backends.sqlite import SqliteBackend\n"
        "from penstock.core.errors import DiskFull\n"
        "from penstock.core.record import NewRecord\n"
        "async def main(path):\n"
        "    backend = SqliteBackend(path)\n"
        "    await backend.open()\n"
        "    await backend.create('a', StreamConfig(), [NewRecord(b'first')])\n"
        "    stored = 1\n"
        "    while True:\n"
        "        try:\n"
        "            await backend.append('a', [NewRecord(b'x' * 9_000)])\n"
        "        except DiskFull:\n"
        "            break\n"
        "        stored += 1\n"
        "    os.remove(sys.argv[2])\n"
        "    found = await backend.read('a', 0, 10_000, 1 << 40)\n"
        "    await backend.append('a', [NewRecord(b'after')])\n"
        "    await backend.close()\n"
        "    await backend.open()\n"
        "    again = await backend.read('a', 0, 10_000, 1 << 40)\n"
        "    print(stored, len(found), len(again), again[-1].payload)\n"
        "    await backend.close()\n"
        "asyncio.run(main(sys.argv[1]))\n"
    )
    place = tmp_path / "disk"
    place.mkdir()
    command = (
        f"mount -t tmpfs -o size=1m none {place} && "
        f"dd if=/dev/zero of={place}/ballast bs=1k count=600 status=none && "
        f"{sys.executable} {script} {place}/a.db {place}/ballast"
    )
    said = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", command],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if "unshare:" in said.stderr or "mount:" in said.stderr:
        pytest.skip(f"no file system can be mounted here ({said.stderr.strip()})")
    assert said.returncode == 0, said.stderr
    stored, found, again, last = said.stdout.split()
    assert int(stored) == int(found) == int(again) - 1
    assert int(stored) > 5
    assert last == "b'after'"


async def test_a_lock_that_others_hold_fails_appends_and_not_reads(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with opened(path) as backend:
        await backend.create("a", CONFIG, news(b"1"))
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            waiting = asyncio.create_task(backend.append("a", news(b"2")))
            assert await payloads(backend, "a") == [b"1"]
            with pytest.raises(StoreFailed, match="another process"):
                await waiting
            other.execute("ROLLBACK")
        await backend.append("a", news(b"3"))
        assert await payloads(backend, "a") == [b"1", b"3"]


async def test_a_batch_that_cannot_be_kept_as_text_does_not_disturb_its_group(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path / "a.db") as backend:
        await backend.create("a", CONFIG)
        bad = [
            backend.append("a", [NewRecord(b"x", "\ud800")]),
            backend.append("a", [NewRecord(b"ok"), NewRecord(b"x", "", "a\0b")]),
            backend.append("\udfff", news(b"x")),
            backend.append("a", news(b"x"), seq="\ud800"),
            backend.append("a", news(b"x"), stamp=Stamp("p", 1 << 70, 0)),
        ]
        good = [backend.append("a", news(b"%d" % number)) for number in range(5)]
        results = await asyncio.gather(*bad, *good, return_exceptions=True)
        assert [type(result) for result in results[:5]] == [
            *(RecordFieldMalformed, RecordFieldMalformed, NameMalformed),
            *(QueryMalformed, QueryMalformed),
        ]
        assert await payloads(backend, "a") == [b"0", b"1", b"2", b"3", b"4"]


async def test_the_caller_may_change_its_batch_after_an_append_without_waiting(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path / "a.db") as backend:
        await backend.create("a", CONFIG)
        batch = news(b"1")
        backend.append_nowait("a", batch)
        batch[0] = NewRecord(b"another")
        batch.append(NewRecord(b"more"))
        await backend.append("a", news(b"2"))
        assert await payloads(backend, "a") == [b"1", b"2"]


async def test_what_waits_is_bounded_and_served_in_order(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db") as backend:
        await backend.create("a", CONFIG)
        for number in range(APPEND_WINDOW):
            backend.append_nowait("a", news(b"%d" % number))
        with pytest.raises(AppendWindowFull):
            backend.append_nowait("a", news(b"no"))
        later = [asyncio.create_task(backend.append("a", news(b"+%d" % n))) for n in range(100)]
        await asyncio.sleep(0)
        later[50].cancel()
        await asyncio.gather(*later, return_exceptions=True)
        backend.append_nowait("a", news(b"last"))
        await backend.head("a")
        expected = [b"%d" % number for number in range(APPEND_WINDOW)]
        expected += [b"+%d" % number for number in range(100)]
        found = await payloads(backend, "a")
        if later[50].cancelled() and b"+50" not in found:  # it may have been on its way
            expected.remove(b"+50")
        assert found == [*expected, b"last"]


async def test_nobody_overtakes_who_waits_at_the_door() -> None:
    window = Window(2, 100)
    assert window.enter_now(500), "alone, one may be larger than the window"
    assert not window.enter_now(0)
    turns: list[int] = []

    async def wait(number: int, size: int) -> None:
        await window.enter(size)
        turns.append(number)

    tasks = [asyncio.create_task(wait(number, 60)) for number in range(4)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    window.leave(500)
    assert not window.enter_now(1), "there is room, and others wait for it"
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert turns == [0]
    window.leave(60)
    tasks[2].cancel()  # let in, and gone before it knew: the next is let in
    await asyncio.gather(*tasks, return_exceptions=True)
    assert turns == [0, 3]
    waiting = asyncio.create_task(window.enter(60))
    await asyncio.sleep(0)
    window.shut(StoreFailed("a.db", "it is closed"))
    with pytest.raises(StoreFailed):
        await waiting
    window.leave(60)
    assert window.enter_now(500), "everything was given back"


async def test_bytes_that_wait_are_bounded(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db") as backend:
        await backend.create("a", StreamConfig(retention=Retention(max_records=1)))
        whole = b"x" * APPEND_WINDOW_BYTES
        backend.append_nowait("a", news(whole + b"x"))  # alone it may be larger
        with pytest.raises(AppendWindowFull):
            backend.append_nowait("a", news(b"x"))
        await asyncio.gather(*[backend.append("a", news(whole[: 1 << 20])) for _ in range(40)])
        assert (await backend.head("a"))[0].records == 1


async def test_appends_of_many_tasks_are_committed_together(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db") as backend:
        for number in range(100):
            await backend.create(f"s{number}", CONFIG)
        before = backend.counts.commits
        for _ in range(10):
            await asyncio.gather(
                *[backend.append(f"s{number}", news(b"x")) for number in range(100)]
            )
        assert backend.counts.commits - before <= 100


async def test_closing_commits_what_waits_and_turns_away_what_comes(tmp_path: Path) -> None:
    backend = SqliteBackend(str(tmp_path / "a.db"))
    await backend.open()
    await backend.create("a", CONFIG)
    heard = Heard()
    watch = backend.watch("a", 0, heard)
    tasks = [asyncio.create_task(backend.append("a", news(b"%d" % n))) for n in range(50)]
    await asyncio.sleep(0)
    await asyncio.gather(backend.close(), backend.close())
    assert not [task for task in tasks if task.exception()]
    for attempt in (backend.append("a", news(b"x")), backend.head("a"), backend.read("a", 0, 1, 1)):
        with pytest.raises(StoreFailed, match="closed"):
            await attempt
    with pytest.raises(StoreFailed, match="closed"):
        backend.append_nowait("a", news(b"x"))
    with pytest.raises(StoreFailed, match="closed"):
        backend.watch("a", 0, Heard())
    watch.cancel()
    assert not Path(f"{tmp_path}/a.db-wal").exists(), "the log is moved into the file"
    await asyncio.gather(backend.open(), backend.open())
    assert await payloads(backend, "a") == [b"%d" % number for number in range(50)]
    await backend.close()


async def test_an_opening_that_was_cancelled_can_be_begun_again(tmp_path: Path) -> None:
    backend = SqliteBackend(str(tmp_path / "a.db"))
    for turns in range(3):
        opening = asyncio.create_task(backend.open())
        for _ in range(turns):
            await asyncio.sleep(0)
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
    await backend.open()
    await backend.create("a", CONFIG, news(b"1"))
    await backend.close()


def test_a_loop_that_ends_without_closing_leaves_a_store_that_opens(tmp_path: Path) -> None:
    path = tmp_path / "a.db"

    async def leave() -> None:
        backend = SqliteBackend(str(path))
        await backend.open()
        await backend.create("a", CONFIG, news(b"1"))
        backend.append_nowait("a", news(b"2"))

    async def come_back() -> list[bytes]:
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(PenstockError):
                    async with opened(path) as backend:
                        return await payloads(backend, "a")
                await asyncio.sleep(0.01)

    asyncio.run(leave())
    assert asyncio.run(come_back()) in ([b"1"], [b"1", b"2"])


async def test_a_busy_loop_does_not_starve_the_writer_or_the_readers(tmp_path: Path) -> None:
    """Python gives its lock back to who let go of it a moment ago, for seconds on end."""
    is_over = False

    async def work() -> None:
        while not is_over:
            until_s = time.perf_counter() + 0.002
            while time.perf_counter() < until_s:
                pass
            await asyncio.sleep(0)

    async with opened(tmp_path / "a.db") as backend:
        await backend.create("a", CONFIG)
        working = asyncio.create_task(work())
        before = time.monotonic()
        for number in range(50):
            await backend.append("a", news(b"%d" % number))
            assert (await backend.read("a", number, 1, 1))[0].payload == b"%d" % number
        took = time.monotonic() - before
        is_over = True
        await working
    assert took < 8  # 1 s here; 3 s for one append alone without the courtesy


async def test_a_listeners_fault_is_nobody_elses(tmp_path: Path) -> None:
    class Broken(Heard):
        def committed(self, records: object, head: object) -> None:
            raise ValueError("a fault")

    faults: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: faults.append(str(context["exception"])))
    async with opened(tmp_path / "a.db") as backend:
        await backend.create("a", CONFIG)
        heard = Heard()
        backend.watch("a", 0, Broken())
        backend.watch("a", 0, heard)
        await backend.append("a", news(b"1"))
        assert heard.payloads == [b"1"]
        assert faults == ["a fault"]


async def test_a_commit_is_heard_before_its_append_returns(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db") as backend:
        heard = Heard()
        await backend.create("a", CONFIG)
        backend.watch("a", 0, heard)
        for number in range(1, 50):
            await backend.append("a", news(b"x"))
            assert len(heard.records) == number


async def test_an_append_without_waiting_to_a_watched_ended_stream_is_refused_at_once(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path / "a.db") as backend:
        await backend.create("a", CONFIG)
        backend.watch("a", 0, Heard())
        await backend.append("a", [], end=EndReason.COMPLETE)
        with pytest.raises(StreamEnded):
            backend.append_nowait("a", news(b"x"))


async def test_streams_that_rest_leave_memory_and_are_found_again(tmp_path: Path) -> None:
    count = OPEN_LOGS + 500
    async with opened(tmp_path / "a.db", max_streams=count) as backend:
        await asyncio.gather(
            *[
                backend.create(f"s{n}", StreamConfig(ttl_s=1_000), news(b"%d" % n))
                for n in range(count)
            ]
        )
        stamped = [
            backend.append(f"s{n}", news(b"+"), stamp=Stamp("p", 0, 0)) for n in range(count)
        ]
        await asyncio.gather(*stamped)
        writer = backend._writer
        assert writer is not None
        assert len(writer._store._cache) <= OPEN_LOGS
        for number in (0, 1, count - 1):
            again = await backend.append(f"s{number}", news(b"+"), stamp=Stamp("p", 0, 0))
            assert again.is_duplicate
            assert await payloads(backend, f"s{number}") == [b"%d" % number, b"+"]


async def test_producers_are_bounded_and_the_newest_are_known(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db") as backend:
        await backend.create("a", CONFIG)
        count = MAX_PRODUCERS * 12 // 10
        for start in range(0, count, 1_000):
            await asyncio.gather(
                *[
                    backend.append("a", news(b"x"), stamp=Stamp(f"p{number}", 0, 0))
                    for number in range(start, min(start + 1_000, count))
                ]
            )
        with contextlib.closing(sqlite3.connect(tmp_path / "a.db")) as shell:
            (kept,) = shell.execute("SELECT count(*) FROM producers").fetchone()
            assert (kept,) == shell.execute("SELECT producers FROM streams").fetchone()
        assert MAX_PRODUCERS <= kept <= MAX_PRODUCERS * 11 // 10
        for number in (count - 1, count - MAX_PRODUCERS + 1_000):
            again = await backend.append("a", news(b"x"), stamp=Stamp(f"p{number}", 0, 0))
            assert again.is_duplicate
        assert not (await backend.append("a", news(b"x"), stamp=Stamp("p0", 0, 0))).is_duplicate


async def test_what_nobody_can_read_leaves_the_file(tmp_path: Path) -> None:
    """Retention moves the beginning at once; the rows follow, at the pace of the appends or by the
    sweep, also those of deleted streams."""
    path = tmp_path / "a.db"
    async with opened(path) as backend:
        few = StreamConfig(retention=Retention(max_records=10))
        await backend.create("a", few)
        for number in range(100):
            await backend.append("a", news(*[b"%d" % number] * 50))
        with contextlib.closing(sqlite3.connect(path)) as shell:

            def rows() -> int:
                return shell.execute("SELECT count(*) FROM records").fetchone()[0]

            assert rows() < 1_000
            await backend.sweep(10)
            assert rows() == 10
            assert backend.counts.bytes == 10 * (40 + 2)
            await backend.create("b", CONFIG, news(*[b"x"] * 10_000))
            await backend.delete("b")
            assert rows() > 5_000
            assert backend.counts.bytes == 10 * (40 + 2)
            for _ in range(4):
                await backend.sweep(10)
            assert rows() == 10
            assert shell.execute("SELECT count(*) FROM leftovers").fetchone() == (0,)


async def test_rows_that_forks_held_leave_the_file_with_them(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 30)
    print("seed", seed)
    chance = random.Random(seed)
    path = tmp_path / "a.db"
    async with opened(path) as backend:
        few = StreamConfig(retention=Retention(max_records=20))
        await backend.create("a", few, news(b"0"))
        forks: list[str] = []
        for number in range(60):
            await backend.append("a", news(*[b"x"] * chance.randrange(1, 40)))
            if chance.random() < 0.3:
                source = chance.choice(["a", *forks])
                forks.append(f"f{number}")
                await backend.fork(forks[-1], Fork(source=source), few, news(b"own"))
            if forks and chance.random() < 0.2:
                await backend.delete(forks.pop(chance.randrange(len(forks))))
            await backend.sweep(10)
        expected = {name: await payloads(backend, name) for name in forks}
        await backend.delete("a")
        for _ in range(5):
            await backend.sweep(100)
        assert {name: await payloads(backend, name) for name in forks} == expected
        for name in forks:
            await backend.delete(name)
        for _ in range(5):
            await backend.sweep(100)
        with contextlib.closing(sqlite3.connect(path)) as shell:
            for table in ("streams", "records", "leftovers", "producers"):
                assert shell.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table
        assert backend.counts[:3] == (0, 0, 0)


async def test_the_bytes_counted_are_those_of_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with opened(path) as backend:
        for number in range(5):
            config = StreamConfig(retention=Retention(max_records=3 + number * 200))
            await backend.create(f"{number}", config)
            for size in range(50):
                await backend.append(f"{number}", news(*[b"x" * size] * 20))
        await backend.delete("4")
        for _ in range(10):
            await backend.sweep(10)
        with contextlib.closing(sqlite3.connect(path)) as shell:
            (stored,) = shell.execute(
                "SELECT sum(length(payload) + length(type) + length(key) + 40) FROM records"
            ).fetchone()
        assert backend.counts.bytes == stored
    async with opened(path) as backend:
        await until(lambda: backend.counts.bytes == stored)


async def test_a_copy_of_a_store_in_use_is_whole(tmp_path: Path) -> None:
    """A plain copy of file and log is what a kill leaves: it opens with what was committed."""
    path, copy = tmp_path / "a.db", tmp_path / "copy.db"
    async with opened(path) as backend:
        await backend.create("a", CONFIG, news(b"1"))
        shutil.copyfile(path, copy)
        shutil.copyfile(f"{path}-wal", f"{copy}-wal")
        async with opened(copy) as other:
            assert await payloads(other, "a") == [b"1"]


async def test_a_large_read_is_given_in_pieces_that_fit_together(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db") as backend:
        await backend.create("a", CONFIG)
        for _ in range(12):
            await backend.append("a", news(*[b"x" * 1_000] * 1_000))
        found = await backend.read("a", 0, ALL, ALL)
        assert [record.position for record in found] == list(range(1, 12_001))
