"""What the claims stand on: a backend with a clock that is moved by hand, and a listener that
keeps what it hears and objects to what no listener may hear."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, TypeVar

import pytest

from penstock.backends.interface import Backend, Opens, StreamConfig
from penstock.core.log import Head
from penstock.core.record import EndReason, NewRecord, Record

_C = TypeVar("_C")
BEGINNING_S: Final = 2_000_000_000.0
PATIENCE_S: Final = 10.0
"""How long what must come is waited for."""
ALL: Final = 1 << 40


class Clock:
    """Seconds since 1970, moved by hand."""

    def __init__(self) -> None:
        self.now = BEGINNING_S

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a backend is to keep at most. `max_bytes` counts payloads and a cost a record of the
    backend's choice."""

    max_streams: int = 10_000
    max_bytes: int = 1 << 30


class Make(Protocol):
    """How a backend is made."""

    def __call__(self, directory: Path, clock: Clock, bounds: Bounds) -> Backend: ...


class Heard:
    """A listener that keeps what it heard, in `records` and in `calls` (one letter each: Commit,
    Trim, End, Delete, Restart)."""

    def __init__(self, after: int = 0) -> None:
        self.records: list[Record] = []
        self.calls = ""
        self.head: Head | None = None
        self._after = after

    def committed(self, records: Sequence[Record], head: Head) -> None:
        self._hear("C", head)
        assert records, "a commit has records"
        for record in records:
            assert record.position > self._after, "each record is heard once, in order"
            self._after = record.position
        assert head.tail == self._after, "the head is that after the records"
        self.records += records

    def trimmed(self, head: Head) -> None:
        self._hear("T", head)

    def ended(self, head: Head) -> None:
        self._hear("E", head)
        assert head.end is not None
        assert self.calls.count("E") == 1, "the end is heard once"

    def deleted(self) -> None:
        self._hear("D", None)
        assert "E" in self.calls, "the end is heard before the deletion"

    def restarted(self, head: Head) -> None:
        self._hear("R", head)
        self._after = head.tail

    def _hear(self, call: str, head: Head | None) -> None:
        assert "D" not in self.calls, "nothing is heard after the deletion"
        self.calls += call
        self.head = head or self.head

    @property
    def payloads(self) -> list[bytes]:
        return [record.payload for record in self.records]

    @property
    def end(self) -> EndReason | None:
        return None if self.head is None else self.head.end


class Place:
    """A backend of its own for one claim."""

    def __init__(self, make: Make, directory: Path, can_restart: bool, has_bounds: bool) -> None:
        self._make, self._directory = make, directory
        self.can_restart, self.has_bounds = can_restart, has_bounds
        self.clock = Clock()
        self.backend = make(directory / "here", self.clock, Bounds())
        self._count = 0

    async def __aenter__(self) -> Place:
        await self._open(self.backend)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._close(self.backend)

    @staticmethod
    async def _open(backend: Backend) -> None:
        if isinstance(backend, Opens):
            await backend.open()

    @staticmethod
    async def _close(backend: Backend) -> None:
        if isinstance(backend, Opens):
            await backend.close()

    def having(self, capability: type[_C]) -> _C:
        """The backend, which has a capability; without it the claim is skipped."""
        if not isinstance(self.backend, capability):
            pytest.skip(f"the backend has not the capability {capability.__name__}")
        return self.backend

    @contextlib.asynccontextmanager
    async def bounded(self, bounds: Bounds) -> AsyncGenerator[Backend]:
        """Another backend, that keeps less."""
        if not self.has_bounds:
            pytest.skip("the backend has no bounds of its own (`has_bounds`)")
        self._count += 1
        backend = self._make(self._directory / f"bounded-{self._count}", self.clock, bounds)
        await self._open(backend)
        try:
            yield backend
        finally:
            await self._close(backend)

    async def restart(self) -> None:
        """Close the backend and go on with another one in the same place."""
        if not self.can_restart:
            pytest.skip("the backend forgets when it is closed (`can_restart`)")
        await self._close(self.backend)
        self.backend = self._make(self._directory / "here", self.clock, Bounds())
        await self._open(self.backend)

    async def create(self, name: str, *payloads: bytes, config: StreamConfig | None = None) -> Head:
        """Make a stream that holds these, and give its head."""
        return (await self.backend.create(name, config or StreamConfig(), news(*payloads)))[0]

    async def payloads(self, name: str, after: int = 0) -> list[bytes]:
        """What follows a position."""
        return [record.payload for record in await self.backend.read(name, after, ALL, ALL)]

    async def positions(self, name: str) -> list[int]:
        """Where what is kept lies."""
        return [record.position for record in await self.backend.read(name, 0, ALL, ALL)]

    @staticmethod
    async def until(is_so: Callable[[], bool]) -> None:
        """Wait for what must come."""
        async with asyncio.timeout(PATIENCE_S):
            while not is_so():  # noqa: ASYNC110 a backend has no event to wait for
                await asyncio.sleep(0.001)


def news(*payloads: bytes) -> list[NewRecord]:
    """Records without type or key."""
    return [NewRecord(payload) for payload in payloads]
