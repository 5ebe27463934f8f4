"""A store is opened by one process at a time, and only if it is whole, ours and of a known format;
what is refused is left byte for byte as it is."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from backends.sqlite_stores import ALL, CONFIG, files_beside, news, opened, payloads
from penstock.backends.interface import (
    AppendsNow,
    Counts,
    Documents,
    Forks,
    Joins,
    Lists,
    Opens,
    ReadsNow,
    Sweeps,
)
from penstock.backends.sqlite import SqliteBackend
from penstock.backends.sqlite.schema import APPLICATION_ID, VERSION
from penstock.core.errors import (
    PenstockError,
    SettingInvalid,
    StoreDamaged,
    StoreFailed,
    StoreForeign,
    StoreLocked,
)


async def store_with_records(path: Path, records: int = 2_000) -> None:
    async with opened(path) as backend:
        await backend.create("a", CONFIG, news(*[b"%d" % number for number in range(records)]))


async def refused(path: Path) -> PenstockError:
    backend = SqliteBackend(str(path))
    with pytest.raises(PenstockError) as refusal:
        await backend.open()
    with pytest.raises(StoreFailed, match="closed"):
        await backend.head("a")
    await backend.close()
    assert str(path) in str(refusal.value)
    return refusal.value


def test_it_has_the_capabilities_it_is_meant_to_have(tmp_path: Path) -> None:
    backend = SqliteBackend(str(tmp_path / "a.db"))
    for capability in (Opens, AppendsNow, Joins, Forks, Sweeps, Lists, Counts, Documents):
        assert isinstance(backend, capability)
    assert not isinstance(backend, ReadsNow)


def test_a_durability_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingInvalid, match="durability"):
        SqliteBackend(str(tmp_path / "a.db"), durability="perhaps")  # type: ignore[arg-type]


async def test_a_second_opening_is_refused_at_once_and_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with opened(path) as backend:
        before = time.monotonic()
        assert isinstance(await refused(path), StoreLocked)
        assert time.monotonic() - before < 1
        await backend.create("a", CONFIG, news(b"1"))  # the first is not disturbed
    async with opened(path) as backend:
        assert await payloads(backend, "a") == [b"1"]


async def test_a_store_of_another_process_is_locked_until_that_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    code = (
        "import asyncio, sys\n"
        "from penstock.backends.sqlite import SqliteBackend\n"
        "async def main():\n"
        "    await SqliteBackend(sys.argv[1]).open()\n"
        "    print('open', flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        assert isinstance(await refused(path), StoreLocked)
    finally:
        process.kill()
        process.communicate()
    async with opened(path) as backend:
        assert (await backend.create("a", CONFIG))[1]


async def test_a_file_that_another_program_writes_is_locked(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await store_with_records(path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert isinstance(await refused(path), StoreLocked)
        other.execute("ROLLBACK")
    async with opened(path) as backend:
        assert len(await payloads(backend, "a")) == 2_000


async def test_the_lock_of_sqlite_survives_what_is_tried_in_this_process(tmp_path: Path) -> None:
    """Closing any handle of a file lets go of all POSIX locks of the process on it: a shell that
    came and went would then take the write-ahead log away with it."""
    path = tmp_path / "a.db"
    async with opened(path) as backend:
        await backend.create("a", CONFIG, news(b"1"))
        await refused(path)
        code = (
            "import sqlite3, sys\n"
            "c = sqlite3.connect(sys.argv[1])\n"
            "print(c.execute('SELECT count(*) FROM records').fetchone()[0])\n"
            "c.close()\n"
        )
        said = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, check=True, text=True
        )
        assert said.stdout == "1\n"
        assert Path(f"{path}-wal").exists()
        await backend.append("a", news(b"2"))
    async with opened(path) as backend:
        assert await payloads(backend, "a") == [b"1", b"2"]


@pytest.mark.parametrize("content", [b"not a database at all\n" * 50, b"SQLite format 3\0 short"])
async def test_what_is_no_database_is_damaged_and_left_alone(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(content)
    assert isinstance(await refused(path), StoreDamaged)
    assert files_beside(path) == {"a.db": content}
    assert [file.name for file in tmp_path.iterdir()] == ["a.db"], "nothing is left beside it"


async def test_a_database_of_another_program_is_foreign_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.executescript("PRAGMA journal_mode=WAL; CREATE TABLE mine (x); PRAGMA user_version=7")
    before = files_beside(path)
    assert isinstance(await refused(path), StoreForeign)
    assert files_beside(path) == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.db"]


async def test_a_later_format_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await store_with_records(path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as later:
        later.execute(f"PRAGMA user_version={VERSION + 1}")
        later.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = files_beside(path)
    refusal = await refused(path)
    assert isinstance(refusal, StoreForeign)
    assert f"format {VERSION + 1}" in str(refusal)
    assert files_beside(path) == before


async def test_a_later_format_that_is_only_in_the_log_beside_it_is_refused(tmp_path: Path) -> None:
    made, path = tmp_path / "made.db", tmp_path / "here" / "a.db"
    path.parent.mkdir()
    await store_with_records(made)
    with contextlib.closing(sqlite3.connect(made, isolation_level=None)) as later:
        later.execute("PRAGMA wal_autocheckpoint=0")
        later.execute(f"PRAGMA user_version={VERSION + 1}")
        for suffix in ("", "-wal"):  # as a kill would have left them
            shutil.copyfile(f"{made}{suffix}", f"{path}{suffix}")
    before = files_beside(path)
    assert set(before) == {"a.db", "a.db-wal"}
    assert isinstance(await refused(path), StoreForeign)
    assert files_beside(path) == before


@pytest.mark.parametrize("has_log", [False, True])
async def test_a_damaged_store_is_refused_and_left_alone(tmp_path: Path, has_log: bool) -> None:
    made, path = tmp_path / "made.db", tmp_path / "here" / "a.db"
    path.parent.mkdir()
    await store_with_records(made, 5_000)
    async with opened(made) as backend:
        await backend.create("b", CONFIG, news(b"in the log"))
        for suffix in ("", "-wal") if has_log else ("",):
            shutil.copyfile(f"{made}{suffix}", f"{path}{suffix}")
    seed = random.SystemRandom().randrange(1 << 30)
    print("seed", seed)
    whole = bytearray(path.read_bytes())
    pages = len(whole) // 4096
    for page in random.Random(seed).sample(range(1, pages), pages // 2):
        whole[page * 4096 : page * 4096 + 64] = b"\xee" * 64
    path.write_bytes(whole)
    before = files_beside(path)
    assert isinstance(await refused(path), StoreDamaged)
    assert files_beside(path) == before


async def test_a_store_that_was_cut_short_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await store_with_records(path, 5_000)
    path.write_bytes(path.read_bytes()[:20_000])
    before = files_beside(path)
    assert isinstance(await refused(path), StoreDamaged)
    assert files_beside(path) == before


async def test_a_log_whose_file_is_gone_is_not_taken_for_a_new_files(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    Path(f"{path}-wal").write_bytes(b"\x37\x7f\x06\x82" + b"x" * 100)
    before = files_beside(path)
    assert isinstance(await refused(path), StoreDamaged)
    assert files_beside(path) == before


async def test_a_place_where_no_file_can_be_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    for path, reason in (
        (tmp_path / "no" / "a.db", "there is no directory"),
        (tmp_path / "directory", "is a directory"),
    ):
        refusal = await refused(path)
        assert isinstance(refusal, StoreFailed)
        assert reason in str(refusal)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere; run as another user")
async def test_a_place_that_may_not_be_written_is_said_to_be_one(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await store_with_records(path)
    for what, mode in ((path, 0o444), (tmp_path, 0o555)):
        old = what.stat().st_mode
        what.chmod(mode)
        assert isinstance(await refused(path), StoreFailed)
        what.chmod(old)


async def test_an_empty_file_becomes_a_store_of_the_same_rights(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.touch(mode=0o600)
    await store_with_records(path)
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_creation_that_was_killed_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    Path(f"{path}-new").write_bytes(b"half of it")
    await store_with_records(path)
    assert {file.name for file in tmp_path.iterdir()} == {"a.db", "a.db-lock"}


async def test_the_file_can_be_read_with_the_shell(tmp_path: Path) -> None:
    path = tmp_path / "a #?%41.db"  # also a path that is no plain URI
    async with opened(path) as backend:
        await backend.create("chat/é", CONFIG, news(b'{"a":1}'))
        with contextlib.closing(sqlite3.connect(path)) as shell:
            assert shell.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
            assert shell.execute("PRAGMA user_version").fetchone() == (VERSION,)
            rows = shell.execute(
                "SELECT name, tail, end_reason, CAST(payload AS TEXT),"
                " datetime(at / 1000, 'unixepoch') > '2020' FROM streams"
                " JOIN records ON records.stream = streams.id"
            ).fetchall()
            assert rows == [("chat/é", 1, None, '{"a":1}', 1)]


async def test_opening_costs_nothing_by_the_record(tmp_path: Path) -> None:
    """1,000 streams of 100 records, closed or killed, are served again within a second."""
    made, killed = tmp_path / "made.db", tmp_path / "killed" / "a.db"
    killed.parent.mkdir()
    async with opened(made) as backend:
        for number in range(1_000):
            await backend.create(f"s{number}", CONFIG, news(*[b"x" * 100] * 100))
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{made}{suffix}", f"{killed}{suffix}")
    for path in (made, killed):
        before = time.monotonic()
        async with opened(path) as backend:
            assert len(await backend.read("s999", 0, ALL, ALL)) == 100
            assert time.monotonic() - before < 1
