"""The shipped contract holds for every backend of ours."""

from __future__ import annotations

from pathlib import Path

from penstock.backends.interface import Backend
from penstock.backends.memory import MemoryBackend
from penstock.backends.sqlite import SqliteBackend
from penstock.testing.contract import BackendContract, Bounds, Clock


class TestMemory(BackendContract):
    def make(self, directory: Path, clock: Clock, bounds: Bounds) -> Backend:
        return MemoryBackend(
            clock=clock,
            wall_clock=clock,
            max_streams=bounds.max_streams,
            max_bytes=bounds.max_bytes,
        )


class TestSqlite(BackendContract):
    can_restart = True

    def make(self, directory: Path, clock: Clock, bounds: Bounds) -> Backend:
        return SqliteBackend(
            f"{directory}.db",
            wall_clock=clock,
            max_streams=bounds.max_streams,
            max_bytes=bounds.max_bytes,
        )


class TestSqliteSynced(TestSqlite):
    """As above, with every group synced."""

    examples = 5

    def make(self, directory: Path, clock: Clock, bounds: Bounds) -> Backend:
        return SqliteBackend(
            f"{directory}.db",
            durability="disk",
            wall_clock=clock,
            max_streams=bounds.max_streams,
            max_bytes=bounds.max_bytes,
        )


class TestSqliteEager(TestSqlite):
    """As above, with records shown before their commit."""

    examples = 5

    def make(self, directory: Path, clock: Clock, bounds: Bounds) -> Backend:
        return SqliteBackend(
            f"{directory}.db",
            durability="eager",
            wall_clock=clock,
            max_streams=bounds.max_streams,
            max_bytes=bounds.max_bytes,
        )
