"""What each durability promises, over kills, reboots and failed commits."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path

import pytest

from backends.sqlite_stores import CONFIG, news, opened, payloads, until
from penstock.backends.interface import StreamConfig
from penstock.backends.sqlite import Durability
from penstock.core.errors import DiskFull
from penstock.core.record import EndReason
from penstock.testing.contract import Clock
from penstock.testing.contract.place import Heard

NOW_S = 2_000_000_000.0


async def killed(made: Path, path: Path, durability: Durability) -> int:
    """Leave a store at `path` as a kill would; gives the epoch of its stream."""
    path.parent.mkdir()
    async with opened(made, durability=durability, wall_clock=lambda: NOW_S) as backend:
        head, _ = await backend.create("a", CONFIG, news(b"1"))
        await backend.create("fed", StreamConfig(is_produced=True), news(b"1"))
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{made}{suffix}", f"{path}{suffix}")
    return head.epoch


def reboot(path: Path) -> None:
    """Make a store believe that the machine was started again since."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as shell:
        shell.execute("UPDATE meta SET value = 'another' WHERE name = 'boot'")


@pytest.mark.parametrize(
    ("durability", "is_rebooted", "is_later"),
    [
        ("process", False, False),
        ("process", True, True),
        ("disk", False, False),
        ("disk", True, False),
        ("eager", False, True),
        ("eager", True, True),
    ],
)
async def test_a_kill_begins_a_later_epoch_where_records_may_be_lost(
    tmp_path: Path, durability: Durability, is_rebooted: bool, is_later: bool
) -> None:
    path = tmp_path / "killed" / "a.db"
    epoch = await killed(tmp_path / "a.db", path, durability)
    if is_rebooted:
        reboot(path)
    async with opened(path, durability="process", wall_clock=lambda: NOW_S) as backend:
        head, _ = await backend.head("a")
        assert (head.epoch > epoch) is is_later
        assert await payloads(backend, "a") == [b"1"]
        assert (await backend.head("fed"))[0].end is EndReason.LOST
        assert head.end is None
    async with opened(path, wall_clock=lambda: NOW_S) as backend:
        assert (await backend.head("a"))[0] == head, "a clean close changes nothing"


@pytest.mark.parametrize("durability", ["process", "eager"])
async def test_a_clean_close_and_a_reboot_change_nothing(
    tmp_path: Path, durability: Durability
) -> None:
    path = tmp_path / "a.db"
    async with opened(path, durability=durability) as backend:
        head, _ = await backend.create("a", CONFIG, news(b"1"))
    reboot(path)
    async with opened(path, durability=durability) as backend:
        assert (await backend.head("a"))[0] == head


async def test_a_stream_lives_longer_after_a_kill_and_never_shorter(tmp_path: Path) -> None:
    """The last uses may not have been written."""
    made, path = tmp_path / "a.db", tmp_path / "killed.db"
    clock = Clock()
    async with opened(made, wall_clock=clock) as backend:
        await backend.create("a", StreamConfig(ttl_s=100))
        for _ in range(30):
            clock.now += 7
            backend.touch("a")
            await backend.sweep(10)
        await backend.sweep(10)
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{made}{suffix}", f"{path}{suffix}")
    used = clock.now
    clock.now = used + 99
    async with opened(path, wall_clock=clock) as backend:
        await backend.head("a")
        clock.now = used + 100 + 10 + 10
        await backend.sweep(10)
        assert await backend.list("", "", 10) == []


async def test_a_use_costs_few_writes(tmp_path: Path) -> None:
    clock = Clock()
    async with opened(tmp_path / "a.db", wall_clock=clock) as backend:
        for number in range(20):
            await backend.create(f"{number}", StreamConfig(ttl_s=1_000))
        with contextlib.closing(sqlite3.connect(tmp_path / "a.db")) as shell:
            version = shell.execute("PRAGMA data_version").fetchone()[0]
            for _ in range(90):
                clock.now += 1
                for number in range(20):
                    backend.touch(f"{number}")
                await backend.sweep(100)
            assert shell.execute("PRAGMA data_version").fetchone()[0] == version
        clock.now += 990
        assert len(await backend.list("", "", 100)) == 20


async def test_a_clean_close_keeps_when_streams_were_used(tmp_path: Path) -> None:
    clock = Clock()
    async with opened(tmp_path / "a.db", wall_clock=clock) as backend:
        await backend.create("a", StreamConfig(ttl_s=1_000))
        clock.now += 90
        backend.touch("a")
    clock.now += 999
    async with opened(tmp_path / "a.db", wall_clock=clock) as backend:
        await backend.head("a")
        clock.now += 1
        assert await backend.sweep(10) == 1


async def test_eager_shows_before_it_commits_and_says_when_it_could_not(tmp_path: Path) -> None:
    """A commit that fails after its records were shown begins a later epoch, and says so."""
    async with opened(tmp_path / "a.db", durability="eager", max_pages=40) as backend:
        first, _ = await backend.create("a", CONFIG, news(b"kept"))
        heard = Heard(first.tail)
        backend.watch("a", first.tail, heard)
        with pytest.raises(DiskFull):
            await backend.append("a", news(b"x" * 1_000_000))
        assert heard.calls == "CR"
        assert heard.head is not None
        assert heard.head.epoch > first.epoch
        assert (heard.head.tail, heard.head.records) == (first.tail, 1)
        assert (await backend.head("a"))[0] == heard.head
        assert await payloads(backend, "a") == [b"kept"]
        appended = await backend.append("a", news(b"next"))
        assert appended.offset.epoch == heard.head.epoch
        await until(lambda: len(heard.records) == 2)
    async with opened(tmp_path / "a.db") as backend:
        assert (await backend.head("a"))[0].tail_offset == appended.offset
        assert await payloads(backend, "a") == [b"kept", b"next"]


async def test_eager_keeps_a_later_epoch_that_could_not_be_written(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db", durability="eager", max_pages=40) as backend:
        first, _ = await backend.create("a", CONFIG, news(b"kept"))
        heard = Heard(first.tail)
        backend.watch("a", first.tail, heard)
        with pytest.raises(DiskFull):
            await backend.append("a", news(b"x" * 1_000_000))
    async with opened(tmp_path / "a.db", durability="eager") as backend:
        assert heard.head is not None
        assert (await backend.head("a"))[0] == heard.head


@pytest.mark.parametrize("durability", ["process", "disk"])
async def test_nothing_is_shown_of_a_commit_that_failed(
    tmp_path: Path, durability: Durability
) -> None:
    async with opened(tmp_path / "a.db", durability=durability, max_pages=40) as backend:
        head, _ = await backend.create("a", CONFIG, news(b"kept"))
        heard = Heard()
        backend.watch("a", 0, heard)
        await until(lambda: len(heard.records) == 1)
        with pytest.raises(DiskFull):
            await backend.append("a", news(b"x" * 1_000_000), end=EndReason.COMPLETE)
        assert (heard.calls, heard.payloads) == ("C", [b"kept"])
        assert (await backend.head("a"))[0] == head
        await backend.append("a", news(b"next"))
        assert heard.payloads == [b"kept", b"next"]
