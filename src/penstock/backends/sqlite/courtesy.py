"""Giving the interpreter to the threads of a store, where a busy event loop keeps it from them.

A thread that wants Python's lock waits 5 ms and then asks for it; but when the lock was let go of
in between, if only for the microsecond of a `select` that finds events at once, it waits anew. An
event loop that always has something to do lets go so often, and so briefly, that a thread may wait
for seconds (measured with callbacks of 2 ms: three seconds and more for one commit; with this,
7 ms). No setting of the switch interval helps against that.

So the loop looks every millisecond while a thread owes it something. Where it was busy all the
while and no thread has moved, it waits for the thread, for at most another millisecond. A loop
that has time to spare, and a thread that waits for a disk, cost next to nothing.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Final

LOOK_S: Final = 0.001
WAIT_S: Final = 0.001
MAX_LOOK_S: Final = 0.016
"""How rarely a loop looks whose waiting did not help: the thread is not waiting for it."""
BUSY: Final = 0.8
"""Share of the time that a loop must have worked to be the one that is in the way."""


class Courtesy:
    """Between one event loop and the threads that work for it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._owed = 0
        self._beats = 0
        self._seen = 0
        self._looked_at = self._worked = 0.0
        self._look_s = LOOK_S
        self._timer: asyncio.TimerHandle | None = None
        self._answered = threading.Event()

    # the loop's side

    def owe(self) -> None:
        """Something was asked of a thread."""
        self._owed += 1
        if self._timer is None:
            self._arm(LOOK_S)

    def paid(self) -> None:
        """The answer is here."""
        self._owed -= 1

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # the threads' side

    def beat(self) -> None:
        """A thread has the interpreter, and goes on."""
        self._beats += 1

    def answer(self) -> None:
        """A thread has done what was asked."""
        self._beats += 1
        self._answered.set()

    def _arm(self, look_s: float) -> None:
        self._look_s, self._seen = look_s, self._beats
        self._looked_at, self._worked = time.monotonic(), time.thread_time()
        self._timer = self._loop.call_later(look_s, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._owed <= 0:
            return
        elapsed = time.monotonic() - self._looked_at
        is_busy = time.thread_time() - self._worked > BUSY * elapsed
        if self._beats != self._seen or not is_busy:
            self._arm(LOOK_S)
            return
        before = self._beats
        self._answered.clear()
        self._answered.wait(WAIT_S)
        self._arm(LOOK_S if self._beats != before else min(2 * self._look_s, MAX_LOOK_S))
