"""A subscription: the rules of moving along a log.

A reader is a place in the log and nothing else: no queue, no copy. This machine decides what a
reader does next, given where the log stands:

    CATCH_UP ──level──► LIVE ──fell behind──► LAGGING ──level──► LIVE
        │                 │                      │
        └── history was dropped ──► GAP ──skip──► CATCH_UP / LAGGING
        └────────── tail reached and log ended ──► ENDED
                                   LAGGING ── lag above `max_lag` ──► LEFT

`decide(head)` names the next step; the shell carries it out and says so with `advance`, `skip`,
`finish`. While a reader is LIVE its place is the shared one of all level readers, so a shell that
serves many may keep a single place for all of them and hand each its own back with `fall_behind`.

Policies: `REPLAY` loses nothing, since what was not read waits in the log; `LATEST` gives, of the
records between two reads, the newest of each key and a count of those passed over; `LEAVE` is
REPLAY that stops when, having been level, it lags more than `max_lag`, to come back at its place
later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum

from penstock.core.cursor import Offset
from penstock.core.log import Head
from penstock.core.record import EndReason, Record


class State(Enum):
    """Where a subscription is in its life."""

    CATCH_UP = "catch-up"
    LIVE = "live"
    LAGGING = "lagging"
    GAP = "gap"
    ENDED = "ended"
    LEFT = "left"


class Policy(StrEnum):
    """What a reader wants when it is slower than the log."""

    REPLAY = "replay"
    LATEST = "latest"
    LEAVE = "leave"


class GapReason(StrEnum):
    """Why records between two places cannot be had."""

    TRIMMED = "trimmed"
    EPOCH = "epoch"
    AHEAD = "ahead"
    MALFORMED = "malformed"


@dataclass(frozen=True, slots=True)
class Read:
    """Read what follows `after`, and `advance` over it."""

    after: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do until the log grows or ends."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Tell the reader that what followed `asked` is lost, then `skip` to `resume`."""

    asked: str
    resume: int
    reason: GapReason


@dataclass(frozen=True, slots=True)
class End:
    """Tell the reader how the stream ended, then `finish`."""

    reason: EndReason


@dataclass(frozen=True, slots=True)
class Leave:
    """Tell the reader to come back later at its place, then `finish`."""

    lag: int


Step = Read | Wait | Gap | End | Leave
WAIT = Wait()


class Subscription:
    """One reader's place in one log, and what it does next."""

    __slots__ = ("_asked", "_gap", "max_lag", "policy", "position", "skipped", "state")

    def __init__(
        self, position: int = 0, *, policy: Policy = Policy.REPLAY, max_lag: int | None = None
    ) -> None:
        self.position = position
        self.policy = policy
        self.max_lag = max_lag
        self.skipped = 0  # records that LATEST passed over, in all
        self.state = State.CATCH_UP
        self._gap: GapReason | None = None
        self._asked = ""

    @classmethod
    def at(
        cls,
        offset: Offset,
        head: Head,
        *,
        policy: Policy = Policy.REPLAY,
        max_lag: int | None = None,
    ) -> Subscription:
        """Begin after an offset that a reader brought: of another epoch it is a gap."""
        subscription = cls(offset.position, policy=policy, max_lag=max_lag)
        if offset.epoch != head.epoch:
            subscription.lose(str(offset), GapReason.EPOCH)
        return subscription

    def lose(self, asked: str, reason: GapReason) -> None:
        """Note that the reader's place means nothing in this log; the next step is a gap."""
        self._asked, self._gap, self.state = asked, reason, State.GAP

    def decide(self, head: Head) -> Step:
        """Name the next step, given where the log stands. Does not change the place."""
        if self._gap is not None:
            return Gap(self._asked, head.earliest, self._gap)
        position = self.position
        if position < head.earliest:
            return self._fell_off(head, GapReason.TRIMMED)
        if position > head.tail:
            # The log lost what this reader has seen: never give it other records as its next.
            return self._fell_off(head, GapReason.AHEAD)
        lag = head.tail - position
        if lag:
            if self.state is State.LIVE:
                self.state = State.LAGGING
            # Whoever is still catching up stays: sent away, it would come back to the same lag.
            if self.state is State.LAGGING and self._lags_too_much(lag):
                return Leave(lag)
            return Read(position)
        if head.end is not None:
            return End(head.end)
        self.state = State.LIVE
        return WAIT

    def _lags_too_much(self, lag: int) -> bool:
        return self.policy is Policy.LEAVE and self.max_lag is not None and lag > self.max_lag

    def _fell_off(self, head: Head, reason: GapReason) -> Gap:
        self.lose(str(Offset(head.epoch, self.position)), reason)
        return Gap(self._asked, head.earliest, reason)

    def select(self, records: Sequence[Record]) -> Sequence[Record]:
        """Choose what the reader is shown of records it is about to pass, by its policy."""
        if self.policy is not Policy.LATEST:
            return records
        chosen = latest(records)
        self.skipped += len(records) - len(chosen)
        return chosen

    def advance(self, position: int) -> None:
        """Note that everything up to `position` was handed to the reader."""
        self.position = position

    def skip(self, position: int) -> None:
        """Note that the reader was told of the gap; it goes on at `position`."""
        self.position, self._gap, self._asked = position, None, ""
        self.state = State.CATCH_UP

    def fall_behind(self, position: int) -> None:
        """Take a place of its own again, after having been level with others up to `position`."""
        self.position, self.state = position, State.LAGGING

    def finish(self, *, left: bool = False) -> None:
        """Note that the reader was told the last thing it will be told."""
        self.state = State.LEFT if left else State.ENDED


def latest(records: Sequence[Record]) -> list[Record]:
    """Keep the newest record of each key, in the order of the log.

    Records without a key are all kept: nothing supersedes them. O(records).
    """
    newest = {record.key: record.position for record in records if record.key}
    return [record for record in records if not record.key or newest[record.key] == record.position]
