"""The places at one upstream: so many answers at once, the others in line, first come first served.

A provider that is asked for more at once than it allows answers 429 to some, by chance; a line is
fairer, and its length and the time in it are bounded. A place is given back exactly once, whatever
happens to who had it, and goes to the first in line without ever being free in between.
"""

from __future__ import annotations

import asyncio

from penstock.core.gateway_errors import UpstreamBusy


class Slots:
    """The places at one upstream.

    `max_concurrent` is how many there are, `max_waiting` how many may stand in line. What is full
    refuses at once.
    """

    def __init__(self, upstream: str, *, max_concurrent: int, max_waiting: int) -> None:
        self._upstream = upstream
        self._max_waiting = max_waiting
        self._free = max_concurrent
        # In order. A dict, since who leaves the line may stand anywhere in it.
        self._line: dict[asyncio.Future[None], None] = {}

    @property
    def free(self) -> int:
        """Places that nobody has."""
        return self._free

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        return len(self._line)

    async def take(self, within_s: float) -> Slot:
        """A place, in turn. Cancelling leaves the line.

        Raises:
            UpstreamBusy: the line is full, or no place came within `within_s` seconds.
        """
        if self._free > 0:
            self._free -= 1
            return Slot(self)
        if len(self._line) >= self._max_waiting:
            raise UpstreamBusy(self._upstream)
        turn = asyncio.get_running_loop().create_future()
        self._line[turn] = None
        try:
            async with asyncio.timeout(within_s):
                await turn
        except TimeoutError:
            # The place may have come in the same moment; then it is taken.
            if not _is_given(turn):
                raise UpstreamBusy(self._upstream) from None
        except asyncio.CancelledError:
            if _is_given(turn):
                self.give_back()
            raise
        finally:
            self._line.pop(turn, None)
        return Slot(self)

    def give_back(self) -> None:
        """A place is free: the first in line has it. `Slot.give_back` sees to once."""
        while self._line:
            turn = next(iter(self._line))
            del self._line[turn]
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class Slot:
    """A place at an upstream, to be given back."""

    __slots__ = ("_slots",)

    def __init__(self, slots: Slots) -> None:
        self._slots: Slots | None = slots

    def give_back(self) -> None:
        """Give the place back. Again does nothing."""
        slots, self._slots = self._slots, None
        if slots is not None:
            slots.give_back()


def _is_given(turn: asyncio.Future[None]) -> bool:
    return turn.done() and not turn.cancelled()
