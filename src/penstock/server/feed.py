"""A feed: between a producer that yields a token at a time and a store that commits in groups.

While one group is on its way to the store, what the producer yields meanwhile waits for the next:
a token does not cost a commit, and none waits for a timer. The producer may be ahead by at most
`FEED_BYTES`; then it waits. One group is under way at a time, so the order stands.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from penstock.core.limits import FEED_BYTES, RECORD_OVERHEAD_BYTES
from penstock.core.record import EndReason, NewRecord

if TYPE_CHECKING:
    from penstock.backends.interface import Backend


class Feed:
    """Appends one stream's records in groups. For one task; `finish` it or `abandon` it."""

    def __init__(self, backend: Backend, name: str) -> None:
        self._backend = backend
        self._name = name
        self._waiting: list[NewRecord] = []
        self._waiting_bytes = 0
        self._flight: asyncio.Task[None] | None = None

    async def put(self, record: NewRecord) -> None:
        """Take a record. Waits while too much is waiting; cancelled then, the record is taken.

        Raises what an earlier group's append raised.
        """
        if self._flight is not None and self._flight.done():
            self._land()
        self._waiting.append(record)
        self._waiting_bytes += len(record.payload) + RECORD_OVERHEAD_BYTES
        self._take_off()
        while self._waiting_bytes > FEED_BYTES and self._flight is not None:
            await asyncio.wait([self._flight])
            self._land()
            self._take_off()

    async def finish(self, end: EndReason) -> None:
        """Commit what waits, and the end with it. Raises as `Backend.append`."""
        if self._flight is not None:
            await asyncio.wait([self._flight])
            self._land()
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        await self._backend.append(self._name, waiting, end=end)

    async def abandon(self) -> None:
        """Let go of what waits, and of the group under way."""
        self._waiting, self._waiting_bytes = [], 0
        flight, self._flight = self._flight, None
        if flight is not None:
            flight.cancel()
            await asyncio.wait([flight])

    def _take_off(self) -> None:
        if self._waiting and self._flight is None:
            group, self._waiting, self._waiting_bytes = self._waiting, [], 0
            self._flight = asyncio.create_task(self._fly(group))

    async def _fly(self, group: list[NewRecord]) -> None:
        while group:
            await self._backend.append(self._name, group)
            # What came meanwhile goes at once, in the same task.
            group, self._waiting, self._waiting_bytes = self._waiting, [], 0

    def _land(self) -> None:
        flight, self._flight = self._flight, None
        if flight is None:
            return
        if flight.cancelled() or flight.exception() is not None:
            # What came after a group that was not stored would hide that there is a hole.
            self._waiting, self._waiting_bytes = [], 0
        flight.result()
