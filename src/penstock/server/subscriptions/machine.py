"""The rules of waking: when, whom, for how long, and who may still answer. No IO; time is given.

A subscription has work when a stream it follows has something after what was acknowledged. Work
makes a *wake*: a new generation, an id, and an announcement. There is one wake at a time, and work
that comes meanwhile waits for the next:

    no work ──append──▶ due ──begin──▶ announcing ──▶ held ──done, lease over──▶ no work, or due
                         ▲                  │
                         └─── retry later ──┘ failed

A webhook's lease begins with its announcement, which hands it the work. A wake record is only
news: whoever claims the wake has it, and its lease, from then on. Acknowledgements move cursors
and renew the lease. Everything that answers a wake carries its generation, its id and its token;
what is not of the newest wake is fenced off and changes nothing.

    receive:  created, appended, deleted, acknowledge, claim, release, announced, failed
    give out: begin (what to announce next), following.take_changes (what to store)
    time:     next_deadline, expire

Every delivery may happen twice: after a crash, and when an answer is lost. Read `following.py` for
the cursors, `service.py` for who carries this out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from penstock.core.cursor import Offset, parse_offset
from penstock.core.errors import (
    AckInvalid,
    NothingPending,
    OffsetMalformed,
    SubscriptionConflict,
    SubscriptionInvalid,
    WakeClaimed,
    WakeFenced,
)
from penstock.core.limits import (
    ANNOUNCE_S,
    WAKE_STREAMS,
    WEBHOOK_RETRY_BASE_S,
    WEBHOOK_RETRY_CAP_S,
    WEBHOOK_RETRY_JITTER,
)
from penstock.core.log import Head
from penstock.server.subscriptions.following import Following
from penstock.server.subscriptions.glob import Glob
from penstock.server.subscriptions.model import Config, Info, Kind, Subscription, Wake, info
from penstock.server.subscriptions.tokens import make_token, read_token


class Ack(NamedTuple):
    """How far the work on a stream is done."""

    stream: str
    offset: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a receiver or worker says of a wake."""

    token: str
    wake_id: str
    generation: int
    acks: Sequence[Ack] = ()
    is_done: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """A wake to be announced now, within `within_s`. `snapshot` is the tails it tells of."""

    subscription: Subscription
    wake_id: str
    generation: int
    cause: str
    token: str
    streams: Sequence[Info]
    snapshot: Mapping[str, Offset]
    within_s: float


class Claimed(NamedTuple):
    """A wake that was claimed."""

    wake_id: str
    generation: int
    token: str
    streams: Sequence[Info]
    lease_ms: int


class Machine:
    """Every subscription of a hub and its wakes.

    `new_wake_id` gives ids that nobody can guess, `draw` numbers from 0 to 1 for the jitter of
    retries, `token_key` signs tokens.
    """

    def __init__(
        self, *, new_wake_id: Callable[[], str], draw: Callable[[], float], token_key: bytes = b""
    ) -> None:
        self.following = Following()
        self.token_key = token_key
        self._new_wake_id = new_wake_id
        self._draw = draw
        self._due: dict[str, None] = {}  # subscriptions to be announced, first come first served
        self._soonest = math.inf

    # subscriptions

    def begin_create(
        self, id: str, config: Config, *, created_at: str, base_url: str
    ) -> tuple[Subscription, bool]:
        """Take a new subscription, not open yet; or give the one there, which must be the same.

        Say next of every stream whether it is there (`following.settle` for explicit ones,
        `following.backfill` for others), then `finish_create`. Raises SubscriptionConflict,
        SubscriptionInvalid, StoreFull; then there is no new one.
        """
        found = self.following.subscriptions.get(id)
        if found is not None:
            if found.config != config:
                raise SubscriptionConflict(id)
            if base_url != found.base_url:
                found.base_url = base_url
                self.following.changed[id] = None
            return found, False
        glob = Glob(config.pattern) if config.pattern else None
        sub = Subscription(id, config, created_at, base_url, glob)
        self.following.add(sub)
        try:
            for name in config.streams:
                self.following.link(sub, name, is_explicit=True, settling=True)
        except BaseException:
            self.delete(id)
            raise
        return sub, True

    def finish_create(self, sub: Subscription, now: float) -> None:
        """Open a subscription: what came since it was asked for wakes it."""
        self.following.opened(sub)
        self._wake_if_idle(sub, now)

    def delete(self, id: str) -> bool:
        """Forget a subscription; its wake is over. Returns whether it was there."""
        sub = self.following.subscriptions.get(id)
        if sub is None:
            return False
        self._due.pop(id, None)
        self.following.remove(sub)
        return True

    def unfollow(self, id: str, name: str) -> None:
        """Take an explicit link away. Raises SubscriptionNotFound."""
        sub = self.following.get(id)
        self.following.remove_explicit(sub, name)
        self._drop_empty(sub)

    # streams

    def created(self, name: str, head: Head, now: float) -> bool:
        """Take a new stream, its first records included; returns whether that woke anybody."""
        return self._wake_all(self.following.created(name, head), name, now)

    def appended(self, name: str, head: Head, now: float) -> bool:
        """Take an append; returns whether it woke anybody."""
        return self._wake_all(self.following.appended(name, head), name, now)

    def deleted(self, name: str) -> None:
        """Take a delete: what was to be done of that stream is not."""
        for sub in self.following.deleted(name):
            self._drop_empty(sub)

    # answers

    def claim(self, id: str, worker: str, now: float) -> Claimed:
        """Give a worker the wake that is there, and its lease.

        Raises SubscriptionNotFound, SubscriptionInvalid, WakeClaimed, NothingPending.
        """
        sub = self._of_kind(id, Kind.PULL_WAKE)
        wake = sub.wake
        if wake is not None and wake.holder:
            raise WakeClaimed(wake.holder, wake.generation)
        if wake is None or not sub.pending:
            raise NothingPending(id)
        self._due.pop(id, None)
        wake.holder, wake.due_at = worker, None
        self._lease(sub, wake, now)
        token = make_token(self.token_key, id, wake.generation, wake.id)
        return Claimed(wake.id, wake.generation, token, show(sub), sub.config.lease_ms)

    def acknowledge(self, id: str, kind: Kind, answer: Answer, now: float) -> bool:
        """Move cursors, all of them or none, and renew the lease or end the wake; returns whether
        there is a next one.

        Raises SubscriptionNotFound, SubscriptionInvalid, WakeTokenInvalid, WakeFenced, AckInvalid.
        """
        sub = self._of_kind(id, kind)
        wake = self._fence(sub, answer)
        for name, offset in [self._checked(sub, ack) for ack in answer.acks]:
            self.following.ack(sub, name, offset)
        # A receiver that failed its delivery and calls back has the work after all.
        self._due.pop(id, None)
        wake.is_answered, wake.due_at = True, None
        if answer.is_done:
            return self._finish(sub, now)
        self._lease(sub, wake, now)
        return False

    def release(self, id: str, answer: Answer, now: float) -> None:
        """Give a wake back as it is. Raises as `acknowledge`."""
        sub = self._of_kind(id, Kind.PULL_WAKE)
        self._fence(sub, answer)
        self._finish(sub, now)

    # announcing

    def begin(self, now: float) -> Announcement | None:
        """Give the next wake to announce, or None. Report it with `announced` or `failed`.

        A wake whose subscription is not stored yet waits: a restart must not use its generation
        again for another.
        """
        for id in self._due:
            if self.following.is_stored(id):
                break
        else:
            return None
        del self._due[id]
        sub = self.following.subscriptions[id]
        wake = sub.wake
        assert wake is not None, "a subscription that is due has a wake"
        sub.announcing, wake.due_at, wake.is_answered = wake.id, None, False
        if sub.config.type is Kind.WEBHOOK:
            wake.lease_until = now + sub.lease_s
        streams = show(sub)
        return Announcement(
            subscription=sub,
            wake_id=wake.id,
            generation=wake.generation,
            cause=wake.cause,
            token=make_token(self.token_key, id, wake.generation, wake.id),
            streams=streams,
            snapshot={s.path: tail for s in streams if (tail := sub.links[s.path].tail)},
            within_s=min(sub.lease_s, ANNOUNCE_S),
        )

    def announced(self, announcement: Announcement, now: float, *, is_done: bool = False) -> None:
        """Take that a wake was delivered; `is_done` when the answer said that its work is."""
        sub, wake = self._landed(announcement)
        if sub is None:
            return
        sub.retries = 0
        self.following.changed[sub.id] = None
        if wake is None:
            return
        if is_done:
            for name, tail in announcement.snapshot.items():
                self.following.ack(sub, name, tail)
            self._finish(sub, now)

    def failed(self, announcement: Announcement, now: float) -> None:
        """Take that a wake was not delivered: it is tried again later, and later each time."""
        sub, wake = self._landed(announcement)
        if sub is None or wake is None:
            return
        if wake.is_answered or wake.holder:
            return  # somebody has the work all the same
        # The exponent is bounded: 2.0 ** 1100 is an OverflowError.
        delay = min(WEBHOOK_RETRY_BASE_S * 2.0 ** min(sub.retries, 30), WEBHOOK_RETRY_CAP_S)
        sub.retries += 1
        wake.due_at = now + delay * (1 + WEBHOOK_RETRY_JITTER * (2 * self._draw() - 1))
        wake.lease_until = None
        self.following.changed[sub.id] = None
        self._note(wake)

    def interrupted(self, announcement: Announcement, now: float) -> None:
        """Take that a delivery was given up, whatever came of it: it is made again."""
        sub, wake = self._landed(announcement)
        if sub is not None and wake is not None and not wake.is_answered and not wake.holder:
            wake.due_at, wake.lease_until = now, None
            self._due[sub.id] = None
            self.following.changed[sub.id] = None

    # time

    def next_deadline(self) -> float | None:
        """When `expire` should be called next; it may come early."""
        return None if self._soonest == math.inf else self._soonest

    def expire(self, now: float) -> bool:
        """Do what time asks for: end leases that are over, make due what was put off. Returns
        whether there is something to store or announce. O(subscriptions) when a deadline came."""
        if now < self._soonest:
            return False
        self._soonest = math.inf
        has_changed = False
        for sub in self.following.subscriptions.values():
            wake = sub.wake
            if wake is None or sub.announcing or (deadline := wake.deadline) is None:
                continue
            if deadline > now:
                self._note(wake)
            elif wake.due_at is not None:
                self._due[sub.id] = None
                has_changed = True
            else:
                self._finish(sub, now)
                has_changed = True
        return has_changed

    def resume(self, now: float) -> None:
        """Open what was restored, once it is known where every stream stands."""
        for sub in self.following.subscriptions.values():
            self.following.opened(sub)
            if sub.wake is not None:
                self._note(sub.wake)
            self._drop_empty(sub)
            self._wake_if_idle(sub, now)
        self.expire(now)

    # within

    def _of_kind(self, id: str, kind: Kind) -> Subscription:
        sub = self.following.get(id)
        if sub.config.type is not kind:
            raise SubscriptionInvalid(
                f"is of type {sub.config.type.value!r}, which has no such call"
            )
        return sub

    def _fence(self, sub: Subscription, answer: Answer) -> Wake:
        of_token = read_token(self.token_key, sub.id, answer.token)
        wake = sub.wake
        current = None if wake is None else (wake.generation, wake.id)
        if wake is None or not of_token == current == (answer.generation, answer.wake_id):
            raise WakeFenced(sub.generation)
        return wake

    def _checked(self, sub: Subscription, ack: Ack) -> tuple[str, Offset]:
        link = sub.links.get(ack.stream)
        if link is None:
            raise AckInvalid(ack.stream, "is of a stream the subscription does not follow")
        try:
            offset = parse_offset(ack.offset)
        except OffsetMalformed:
            raise AckInvalid(ack.stream, "has an offset this server did not give") from None
        if link.acked is not None and offset < link.acked:
            raise AckInvalid(ack.stream, f"goes back behind {link.acked}")
        if link.tail is None or offset > link.tail:
            raise AckInvalid(ack.stream, "goes beyond the stream's tail")
        return ack.stream, offset

    def _wake_all(self, subs: Iterable[Subscription], cause: str, now: float) -> bool:
        has_woken = False
        for sub in subs:
            has_woken |= self._wake_if_idle(sub, now, cause)
        return has_woken

    def _wake_if_idle(self, sub: Subscription, now: float, cause: str = "") -> bool:
        if sub.wake is not None or not sub.pending or not sub.is_open:
            return False
        sub.generation += 1
        first = cause if cause in sub.pending else next(iter(sub.pending))
        sub.wake = Wake(self._new_wake_id(), sub.generation, first, now)
        self.following.changed[sub.id] = None
        if not sub.announcing:  # else it becomes due when that is over
            self._due[sub.id] = None
        return True

    def _finish(self, sub: Subscription, now: float) -> bool:
        """End a wake; returns whether there is work for another."""
        sub.wake = None
        self.following.changed[sub.id] = None
        return self._wake_if_idle(sub, now)

    def _drop_empty(self, sub: Subscription) -> None:
        """Take back a wake that nobody has and that has no work any more."""
        wake = sub.wake
        if wake is None or sub.pending or wake.holder or wake.lease_until is not None:
            return
        sub.wake = None
        self._due.pop(sub.id, None)
        self.following.changed[sub.id] = None

    def _landed(self, announcement: Announcement) -> tuple[Subscription | None, Wake | None]:
        """End an announcement: whose it was, and its wake where that is not over."""
        sub = announcement.subscription
        if self.following.subscriptions.get(sub.id) is not sub:
            return None, None
        sub.announcing = ""
        wake = sub.wake
        if wake is None:
            return sub, None
        self._note(wake)  # `expire` has passed over it until now
        if wake.id == announcement.wake_id:
            return sub, wake
        # It was answered before it was delivered, and this is the next one.
        if wake.due_at is not None:
            self._due[sub.id] = None
        return sub, None

    def _lease(self, sub: Subscription, wake: Wake, now: float) -> None:
        wake.lease_until = now + sub.lease_s
        self.following.changed[sub.id] = None
        self._note(wake)

    def _note(self, wake: Wake) -> None:
        if (deadline := wake.deadline) is not None:
            self._soonest = min(self._soonest, deadline)


def show(sub: Subscription) -> list[Info]:
    """The followed streams to name in a wake: those with work first, no more than the limit."""
    names = list(sub.pending)[:WAKE_STREAMS]
    for name in sub.links:
        if len(names) >= WAKE_STREAMS:
            break
        if name not in sub.pending:
            names.append(name)
    return [info(name, sub.links[name]) for name in names]
