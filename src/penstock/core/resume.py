"""The client's rules of resuming: when to come back, from where, after how long, and when not to.

A machine without IO: the shell tells it what happened, it says what to do. It holds the last
event's id, the server's `retry:`, the number of attempts without progress, and a clock that only
moves when told. Randomness arrives as an argument too: a number in [0, 1) for each delay.

What ends it: a 204; the event `end`; a status that another try cannot change (400 to 499, but
for 401 once, 408, 425 and 429); `close`. What does not: a cut connection, a body that ends
without the event `end`, a 5xx, silence longer than the patience. Between tries it waits a random
time up to a ceiling that doubles (full jitter), and never less than a `Retry-After`; an event
that arrives sets the ceiling back. What has stopped stays stopped, for the first reason given.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from penstock.core.limits import BACKOFF_BASE_MS, BACKOFF_CAP_MS, PATIENCE_S

RETRIABLE: Final = frozenset({408, 425, 429})
"""4xx answers that say "later", not "no" (RFC 9110 15.5.9, RFC 8470 5.2, RFC 6585 4)."""


class Verdict(Enum):
    """What a client does next."""

    CONNECT = "connect"
    """Open a connection when the deadline has come."""
    READ = "read"
    """Read on."""
    STOP = "stop"
    """It is over: `outcome` says why."""


class Outcome(Enum):
    """Why a client stopped."""

    ENDED = "ended"
    NOTHING_MORE = "nothing-more"
    REFUSED = "refused"
    EXHAUSTED = "exhausted"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How long to wait between tries, in milliseconds; how many tries again without progress."""

    base_ms: int = BACKOFF_BASE_MS
    cap_ms: int = BACKOFF_CAP_MS
    max_attempts: int | None = None

    def delay_ms(self, attempt: int, retry_ms: int | None, random: float) -> float:
        """Draw the wait before a try; `attempt` counts from 0, `random` is in [0, 1).

        Full jitter: anywhere between nothing and the ceiling, which doubles with each attempt.
        The server's `retry:` is a floor for the ceiling, and half of it a floor for every wait: a
        server that says three seconds wants nobody back at once.
        """
        # The shift is bounded so that a client that tries for a week does not build huge numbers.
        ceiling = min(self.cap_ms, self.base_ms << min(attempt, 20))
        if retry_ms is None:
            return random * ceiling
        floor = retry_ms / 2
        return floor + random * (max(ceiling, retry_ms) - floor)


class Resumption:
    """One client's connection to one stream, over as many connections as it takes.

    Call `receive_*` with what happened and `now` in seconds; act on the verdict. `last_event_id`
    is what to send as `Last-Event-ID` on the next connection, "" for nothing.
    """

    __slots__ = (
        "_asked_token",
        "_attempt",
        "_deadline",
        "backoff",
        "last_event_id",
        "outcome",
        "patience_s",
        "retry_ms",
        "status",
    )

    def __init__(
        self,
        *,
        last_event_id: str = "",
        backoff: Backoff | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.last_event_id = last_event_id
        self.backoff = backoff or Backoff()
        self.patience_s = patience_s
        self.retry_ms: int | None = None
        self.outcome: Outcome | None = None
        self.status: int | None = None
        self._attempt = 0
        self._asked_token = False
        self._deadline: float | None = None

    def receive_response(
        self,
        status: int,
        now: float,
        random: float,
        *,
        retry_after_s: float | None = None,
        can_renew: bool = False,
    ) -> Verdict:
        """Note a response's status. `can_renew`: the client has a way to get a fresh token."""
        if self.outcome is not None:
            return Verdict.STOP
        self.status = status
        if status == 200:
            self._asked_token = False
            self._deadline = now + self.patience_s
            return Verdict.READ
        if status == 204:
            return self._stop(Outcome.NOTHING_MORE)
        if status == 401 and can_renew and not self._asked_token:
            # One renewal between two successes: a token that is refused twice is not the problem.
            self._asked_token = True
            self._deadline = now
            return Verdict.CONNECT
        if 400 <= status < 500 and status not in RETRIABLE:
            return self._stop(Outcome.REFUSED)
        return self._again(now, random, retry_after_s)

    def receive_event(self, event_type: str, event_id: str, now: float) -> Verdict:
        """Note an event: progress. The typed end stops the client."""
        if self.outcome is not None:
            return Verdict.STOP
        self.last_event_id = event_id
        self._attempt = 0
        self._deadline = now + self.patience_s
        if event_type == "end":
            return self._stop(Outcome.ENDED)
        return Verdict.READ

    def receive_bytes(self, now: float) -> None:
        """Note a sign of life that is no event: a comment, a part of an event."""
        if self.outcome is None:
            self._deadline = now + self.patience_s

    def receive_retry(self, retry_ms: int) -> None:
        """Note the server's `retry:`."""
        self.retry_ms = retry_ms

    def receive_cut(self, now: float, random: float) -> Verdict:
        """Note that the connection is gone: refused, broken, or its body ended without `end`."""
        return self._again(now, random, None)

    def close(self) -> Verdict:
        """The caller has enough."""
        return self._stop(Outcome.CLOSED)

    def next_deadline(self) -> float | None:
        """When to call `expire`: the wait is over, or the silence is. None: nothing is awaited."""
        return self._deadline

    def expire(self, now: float) -> bool:
        """Whether the deadline has come: open the connection, or give the silent one up."""
        return self._deadline is not None and now >= self._deadline

    def _again(self, now: float, random: float, retry_after_s: float | None) -> Verdict:
        if self.outcome is not None:
            return Verdict.STOP
        limit = self.backoff.max_attempts
        if limit is not None and self._attempt >= limit:
            return self._stop(Outcome.EXHAUSTED)
        delay_s = self.backoff.delay_ms(self._attempt, self.retry_ms, random) / 1000
        self._attempt += 1
        self._deadline = now + max(delay_s, retry_after_s or 0.0)
        return Verdict.CONNECT

    def _stop(self, outcome: Outcome) -> Verdict:
        self.outcome, self._deadline = self.outcome or outcome, None
        return Verdict.STOP
