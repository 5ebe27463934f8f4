"""Stores for the tests of `sqlite://`: opened and closed, with a listener and a clock."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from penstock.backends.interface import StreamConfig
from penstock.backends.sqlite import SqliteBackend
from penstock.core.record import NewRecord

CONFIG = StreamConfig()
ALL = 1 << 40
PATIENCE_S = 20.0


def news(*payloads: bytes) -> list[NewRecord]:
    return [NewRecord(payload) for payload in payloads]


@contextlib.asynccontextmanager
async def opened(path: Path, **settings: Any) -> AsyncIterator[SqliteBackend]:
    backend = SqliteBackend(str(path), **settings)
    await backend.open()
    try:
        yield backend
    finally:
        await backend.close()


async def payloads(backend: SqliteBackend, name: str, after: int = 0) -> list[bytes]:
    return [record.payload for record in await backend.read(name, after, ALL, ALL)]


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():
            await asyncio.sleep(0.001)


def files_beside(path: Path) -> dict[str, bytes]:
    """The database and its write-ahead log, if there is anything in it. The shared memory beside
    them is scratch."""
    return {
        file.name: file.read_bytes()
        for file in path.parent.iterdir()
        if not file.name.endswith(("-shm", "-lock")) and file.stat().st_size
    }
