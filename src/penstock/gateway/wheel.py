"""One wheel of deadlines for every running call.

A model gives a token every twenty milliseconds, and each token moves its call's deadline. A timer
for each costs more than all else that is done here for a token. So moving a deadline is writing a
number. A watch lies in the turn of the wheel in which it was due when it was put there; when that
turn comes, a watch that is due later by now is put into a later turn, so that a call that goes on
costs one step a deadline, not one a token. A deadline is noticed up to one turn late. One timer
runs while anything is watched, and none otherwise.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Final

TURN_S: Final = 0.1
"""How late a deadline may be noticed. The shortest in use is a second."""


class Wheel:
    """The deadlines of one event loop. `clock` is what they are measured by, in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._turns: dict[int, set[Watch]] = {}
        self._next = 0  # the first turn that has not come
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, on_due: Callable[[], None]) -> Watch:
        """Something to be called once its deadline has passed; it has none yet."""
        return Watch(self, on_due)

    @property
    def is_turning(self) -> bool:
        """Whether its timer runs."""
        return self._timer is not None

    def close(self) -> None:
        """Forget every deadline."""
        self._turns.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def put(self, watch: Watch, due: float) -> int:
        """Put a watch into the turn after `due`, and say which that is."""
        if self._timer is None:
            self._next = math.floor(self._clock() / TURN_S)
            self._timer = asyncio.get_running_loop().call_later(TURN_S, self._turn)
        number = max(math.ceil(due / TURN_S), self._next)
        self._turns.setdefault(number, set()).add(watch)
        return number

    def take(self, watch: Watch, number: int) -> None:
        """Take a watch out of a turn that has not come."""
        turn = self._turns.get(number)
        if turn is not None:
            turn.discard(watch)
            if not turn:
                del self._turns[number]

    def _turn(self) -> None:
        now = self._clock()
        last = math.floor(now / TURN_S)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(TURN_S, self._turn)
        come = range(self._next, last + 1)
        if len(come) > len(self._turns):  # after a machine's sleep, many turns without a watch
            come = sorted(number for number in self._turns if number <= last)
        self._next = last + 1
        for number in come:
            for watch in self._turns.pop(number, ()):
                if watch.come(now):
                    # On its own, so that what goes wrong with one keeps nobody else waiting.
                    loop.call_soon(watch.on_due)
        if not self._turns:
            self._timer.cancel()
            self._timer = None


class Watch:
    """One deadline that can be moved. `due` may be read; `set` writes it."""

    __slots__ = ("_filed", "_turn", "_wheel", "due", "on_due")

    def __init__(self, wheel: Wheel, on_due: Callable[[], None]) -> None:
        self._wheel = wheel
        self._filed = math.inf  # for when it lies in its turn; it may be due later by now
        self._turn = 0
        self.due = math.inf
        self.on_due = on_due

    def set(self, due: float) -> None:
        """Move the deadline. Costs nothing where it moves to a later time."""
        self.due = due
        if due < self._filed:
            self._file(due)

    def cancel(self) -> None:
        """Have no deadline any more, and be held by nobody."""
        self.due = math.inf
        if self._filed < math.inf:
            self._wheel.take(self, self._turn)
            self._filed = math.inf

    def come(self, now: float) -> bool:
        """Its turn has come: says whether it is due, or files it again."""
        self._filed = math.inf
        if self.due <= now:
            self.due = math.inf
            return True
        if self.due < math.inf:
            self._file(self.due)
        return False

    def _file(self, due: float) -> None:
        if self._filed < math.inf:
            self._wheel.take(self, self._turn)
        self._filed = due
        self._turn = self._wheel.put(self, due)
