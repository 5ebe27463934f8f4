"""A backup is one moment of a store that is being written, checked, and in place whole or not at
all."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import pytest

from backends.sqlite_stores import CONFIG, files_beside, news, opened, payloads
from penstock.backends.interface import Fork, StreamConfig
from penstock.backends.sqlite.backup import backup
from penstock.core.errors import (
    PenstockError,
    SettingInvalid,
    StoreDamaged,
    StoreFailed,
    StoreForeign,
)
from penstock.core.producer import Stamp


async def test_a_backup_is_one_moment_of_a_store_in_use(tmp_path: Path) -> None:
    path, target = tmp_path / "a.db", tmp_path / "copy.db"
    async with opened(path) as backend:
        await backend.create("a", CONFIG, news(*[b"x" * 1_000] * 10_000))
        for name in ("b", "c"):
            await backend.create(name, CONFIG)
        is_over = asyncio.Event()

        async def write() -> None:
            """The same to both in one commit, or in two: b first."""
            seq = 0
            while not is_over.is_set():
                for name in ("b", "c"):
                    await backend.append(name, news(b"%d" % seq), stamp=Stamp("p", 0, seq))
                seq += 1

        writing = asyncio.create_task(write())
        await asyncio.to_thread(backup, str(path), str(target))
        is_over.set()
        await writing
        heads = {name: (await backend.head(name))[0] for name in ("a", "b", "c")}
    async with opened(target) as copy:
        head = (await copy.head("a"))[0]
        assert head == heads["a"]._replace(epoch=head.epoch)
        assert len(await payloads(copy, "a")) == 10_000
        b, c = await payloads(copy, "b"), await payloads(copy, "c")
        assert b == [b"%d" % number for number in range(len(b))]
        assert len(c) in (len(b), len(b) - 1)
        assert len(b) <= heads["b"].tail
        # What the original took after it is not here: its offsets must not be taken for ours.
        assert (await copy.head("b"))[0].epoch > heads["b"].epoch
        again = await copy.append("c", news(b"x"), stamp=Stamp("p", 0, max(len(c) - 1, 0)))
        assert again.is_duplicate is bool(c)


async def test_a_backup_of_a_closed_store_holds_all_of_it(tmp_path: Path) -> None:
    path, target = tmp_path / "a.db", tmp_path / "copy.db"
    async with opened(path) as backend:
        await backend.create("a", StreamConfig(ttl_s=60), news(b"1"))
        await backend.fork("f", Fork(source="a"), StreamConfig(content_type=""), news(b"2"))
        await backend.store_document("kind", "name", b"body")
    before = files_beside(path)
    backup(str(path), str(target))
    assert {name: files_beside(path)[name] for name in before} == before
    async with opened(target) as copy:
        assert await payloads(copy, "f") == [b"1", b"2"]
        assert await copy.load_documents("kind") == {"name": b"body"}


async def test_a_target_that_is_there_is_not_touched(tmp_path: Path) -> None:
    path, target = tmp_path / "a.db", tmp_path / "copy.db"
    async with opened(path) as backend:
        await backend.create("a", CONFIG)
    target.write_bytes(b"precious")
    with pytest.raises(SettingInvalid, match="is there"):
        backup(str(path), str(target))
    assert target.read_bytes() == b"precious"


async def test_what_cannot_be_copied_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with opened(path) as backend:
        await backend.create("a", CONFIG, news(*[b"x" * 100] * 5_000))
    foreign, garbage, damaged = (tmp_path / name for name in ("f.db", "g.db", "d.db"))
    with contextlib.closing(sqlite3.connect(foreign)) as other:
        other.execute("CREATE TABLE mine (x)")
    garbage.write_bytes(b"x" * 10_000)
    whole = bytearray(path.read_bytes())
    for page in range(10, len(whole) // 4096, 2):
        whole[page * 4096 : page * 4096 + 64] = b"\xee" * 64
    damaged.write_bytes(whole)
    target = tmp_path / "copy.db"
    expected: list[tuple[Path, Path, type[PenstockError]]] = [
        (tmp_path / "none.db", target, StoreFailed),
        (foreign, target, StoreForeign),
        (garbage, target, StoreDamaged),
        (damaged, target, StoreDamaged),
        (path, tmp_path / "no" / "copy.db", StoreFailed),
    ]
    for source, to, error in expected:
        with pytest.raises(error):
            backup(str(source), str(to))
    assert not [file for file in tmp_path.iterdir() if file.name.startswith("copy")]
