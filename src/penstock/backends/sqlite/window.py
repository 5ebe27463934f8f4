"""How much may wait for its commit: a bound in operations and bytes, and a queue at its door."""

from __future__ import annotations

import asyncio
from collections import deque

from penstock.core.errors import PenstockError


class Window:
    """Room for operations that wait. Who finds none waits at the door, first come first served;
    nobody overtakes. Belongs to one event loop."""

    def __init__(self, max_operations: int, max_bytes: int) -> None:
        self._max_operations, self._max_bytes = max_operations, max_bytes
        self._operations = self._bytes = 0
        self._door: deque[tuple[asyncio.Future[None], int]] = deque()

    def enter_now(self, size: int) -> bool:
        """Take room if there is some, and nobody waits for it."""
        if self._door or not self._has_room(size):
            return False
        self._operations += 1
        self._bytes += size
        return True

    async def enter(self, size: int) -> None:
        """Take room, when there is some. Cancelled, none is taken. Raises what `shut` says."""
        if self.enter_now(size):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._door.append((turn, size))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.leave(size)  # it had been let in
            raise

    def leave(self, size: int) -> None:
        """Give room back, and let in who can be."""
        self._operations -= 1
        self._bytes -= size
        while self._door:
            turn, wanted = self._door[0]
            if not turn.done():
                if not self._has_room(wanted):
                    return
                self._operations += 1
                self._bytes += wanted
                turn.set_result(None)
            self._door.popleft()

    def shut(self, error: PenstockError) -> None:
        """Turn away all who wait at the door."""
        while self._door:
            turn, _ = self._door.popleft()
            if not turn.done():
                turn.set_exception(error)

    def _has_room(self, size: int) -> bool:
        # One that is larger than the window goes alone.
        return not self._operations or (
            self._operations < self._max_operations and self._bytes + size <= self._max_bytes
        )
