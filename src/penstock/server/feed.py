"""A feed: between a producer that yields a token at a time and a store that commits in groups.

While one group is on its way to the store, what the producer yields meanwhile waits for the next:
a token does not cost a commit, and none waits for a timer. The producer may be ahead by at most
`FEED_BYTES`; then it waits. One group is under way at a time, so the order stands. What the
producer gave together is never in two groups, and nothing follows a group that was not stored: it
would hide that there is a hole.

The stream ends by the producer (`finish`) or by somebody else in its place (`close`); the first of
them stands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from penstock.core.errors import PenstockError, StreamEnded
from penstock.core.limits import FEED_BYTES, RECORD_OVERHEAD_BYTES
from penstock.core.record import EndReason, NewRecord

if TYPE_CHECKING:
    from penstock.backends.interface import Appended, Backend


class Feed:
    """Appends one stream's records in groups. For one task; `finish` it or `abandon` it."""

    def __init__(self, backend: Backend, name: str) -> None:
        self._backend = backend
        self._name = name
        self._waiting: list[NewRecord] = []
        self._waiting_bytes = 0
        self._flight: asyncio.Task[None] | None = None
        self._has_hole = False  # something was not stored
        self._closed_as: EndReason | None = None  # by somebody else
        self._is_finishing = False
        self._finishing = asyncio.Lock()

    async def put(self, records: Sequence[NewRecord]) -> None:
        """Take records. Waits while too much is waiting; cancelled then, the records are taken.

        Raises what an earlier group's append raised, and StreamEnded after `close`.
        """
        self._refuse_closed()
        if self._flight is not None and self._flight.done():
            self._land()
        self._take(records)
        while self._waiting_bytes > FEED_BYTES and self._flight is not None:
            await asyncio.wait([self._flight])
            self._land()
            self._take_off()

    def offer(self, records: Sequence[NewRecord]) -> bool:
        """Take records where nothing has to be waited for, nor anything is wrong; else takes none
        and says so."""
        if self._closed_as is not None or self._has_hole or self._is_finishing:
            return False
        flight = self._flight
        if flight is not None and flight.done():
            if flight.cancelled() or flight.exception() is not None:
                return False
            self._land()
        if self._waiting_bytes > FEED_BYTES:
            return False
        self._take(records)
        return True

    def _take(self, records: Sequence[NewRecord]) -> None:
        for record in records:
            self._waiting.append(record)
            self._waiting_bytes += len(record.payload) + RECORD_OVERHEAD_BYTES
        self._take_off()

    async def finish(self, end: EndReason, records: Sequence[NewRecord] = ()) -> None:
        """Commit what waits, some last records, and the end with them; the end alone where
        something before them is missing. Raises as `Backend.append`, and StreamEnded after
        `close`."""
        if not self._has_hole:
            self._refuse_closed()
        self._is_finishing = True
        async with self._finishing:
            if self._flight is not None:
                await asyncio.wait([self._flight])
                self._land()
            last = [] if self._has_hole else [*self._take_waiting(), *records]
            await self._backend.append(self._name, last, end=end)

    async def close(self, end: EndReason, last: Sequence[NewRecord]) -> Appended:
        """End the stream in the producer's place: commit what waits, some last records, and the
        end with them. From now on nothing more is taken.

        Raises as `Backend.append`, and what the append of the group under way raised.
        """
        if self._is_finishing or self._has_hole:
            async with self._finishing:  # the producer's own end comes first
                return await self._backend.append(self._name, [], end=end)
        self._closed_as = end
        waiting, flight = self._take_waiting(), self._flight
        try:
            if flight is not None:
                await asyncio.wait([flight])
                flight.result()
            return await self._backend.append(self._name, [*waiting, *last], end=end)
        except PenstockError:
            self._has_hole = True
            raise

    async def abandon(self) -> None:
        """Let go of what waits, and of the group under way."""
        self._take_waiting()
        flight, self._flight = self._flight, None
        if flight is not None:
            flight.cancel()
            await asyncio.wait([flight])

    def _refuse_closed(self) -> None:
        if self._closed_as is not None:
            raise StreamEnded(self._name, self._closed_as)

    def _take_waiting(self) -> list[NewRecord]:
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        return waiting

    def _take_off(self) -> None:
        if self._waiting and self._flight is None:
            self._flight = asyncio.create_task(self._fly(self._take_waiting()))

    async def _fly(self, group: list[NewRecord]) -> None:
        while group:
            await self._backend.append(self._name, group)
            # What came meanwhile goes at once, in the same task.
            group = self._take_waiting()

    def _land(self) -> None:
        flight, self._flight = self._flight, None
        if flight is None:
            return
        if flight.cancelled() or flight.exception() is not None:
            self._has_hole = True
            self._take_waiting()
        flight.result()
