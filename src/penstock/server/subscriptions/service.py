"""The subscriptions of a hub: what it tells, what subscribers ask, and the life of both.

A change is stored before anybody is told of it: a caller by the answer to its request, a receiver
by its wake.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from penstock.core.errors import Draining, WebhooksOff
from penstock.core.log import Head
from penstock.server.subscriptions.addresses import WebhookRules
from penstock.server.subscriptions.announcing import Announcer, Host
from penstock.server.subscriptions.keeping import Keeper
from penstock.server.subscriptions.machine import Answer, Claimed, Machine
from penstock.server.subscriptions.model import Config, Kind, Subscription
from penstock.server.subscriptions.signing import SigningKey

WAKE_ID_BYTES: Final = 12


class Subscriptions:
    """Every subscription of a hub. Open it before the hub's first request; the hub tells it of
    each stream that is created, appended to and deleted, in its event loop.

    State lies in the backend where that keeps documents, and in memory otherwise.
    """

    def __init__(
        self,
        host: Host,
        *,
        rules: WebhookRules | None = None,
        public_url: str = "",
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.key: SigningKey | None = None
        """What webhooks are signed with; None where none are called."""
        self.public_url = public_url.rstrip("/")
        """Where this server's addresses begin, seen from outside; "" to go by each request."""
        self._rules = rules or WebhookRules()
        self._host = host
        self._wall_clock = wall_clock
        self._machine = _new_machine()
        self._keeper = Keeper(host.backend, clock=host.clock, wall_clock=wall_clock)
        self._is_changing = asyncio.Lock()  # who follows what: one at a time
        self._announcer: Announcer | None = None
        self._is_closed = False

    # living

    async def open(self) -> None:
        """Read back what is stored, catch up with the streams, and begin. Safe to call when open.

        Raises StoreDamaged, StoreFailed.
        """
        async with self._is_changing:
            if self._announcer is None:
                await self._open()

    async def _open(self) -> None:
        self._is_closed = False
        if self._keeper.keeps or not self._machine.token_key:
            self._machine = _new_machine()
            await self._keeper.restore(self._machine.following)
            keys = await self._keeper.load_keys(with_signing=not self._rules.is_off)
            self._machine.token_key, self.key = keys
        following = self._machine.following
        if following.subscriptions:
            async for name, head in self._keeper.followed_streams(following):
                following.found(name, head)
            following.forget_lost()
            self._machine.resume(self._host.clock())
        self._announcer = Announcer(
            self._host,
            self._machine,
            self._keeper,
            rules=self._rules,
            key=self.key,
            wall_clock=self._wall_clock,
        )
        self._announcer.start()

    async def close(self) -> None:
        """Stop announcing, and store what is left to store. Safe to call twice; it can be opened
        again."""
        self._is_closed = True
        announcer, self._announcer = self._announcer, None
        if announcer is not None:
            await announcer.stop()

    # the hub tells

    def created(self, name: str, head: Head) -> None:
        """Hear of a new stream, its first records included."""
        if self._machine.following.subscriptions:
            self._look_if(self._machine.created(name, head, self._host.clock()))

    def appended(self, name: str, head: Head) -> None:
        """Hear of an append."""
        if self._machine.following.subscriptions:
            self._look_if(self._machine.appended(name, head, self._host.clock()))

    def deleted(self, name: str) -> None:
        """Hear that a stream is gone."""
        if self._machine.following.subscriptions:
            self._machine.deleted(name)
            self._look_if(self._machine.following.has_changes)

    def tick(self, now: float) -> None:
        """Do what time asks for. There is a timer for deadlines besides: calling this once a second
        is enough."""
        if self._machine.following.subscriptions or self._machine.following.has_changes:
            self._machine.expire(now)
            if self._announcer is not None:
                self._announcer.tick()

    # subscribers ask

    def get(self, id: str) -> Subscription:
        """Give a subscription. Raises SubscriptionNotFound."""
        return self._machine.following.get(id)

    async def create(self, id: str, config: Config, base_url: str) -> tuple[Subscription, bool]:
        """Create a subscription, or confirm the one there; also says which. It begins at the tail
        of every stream that is there. `base_url` is where callers reach this server's streams.

        Raises SubscriptionConflict, SubscriptionInvalid, WebhookUrlRejected, WebhooksOff,
        StoreFull, StoreFailed, Draining when closed; then there is no new one.
        """
        if self._is_closed:
            raise Draining
        await self.open()  # where nobody did
        if config.type is Kind.WEBHOOK:
            self._rules.check(config.url)
            if self.key is None:
                raise WebhooksOff("it has no key to sign them with")
        created_at = time_text(self._wall_clock())
        async with self._is_changing:
            sub, is_new = self._machine.begin_create(
                id, config, created_at=created_at, base_url=base_url
            )
            if is_new:
                await self._begin(sub)
            else:
                await self._store()
            return sub, is_new

    async def _begin(self, sub: Subscription) -> None:
        following = self._machine.following
        try:
            for name in sub.config.streams:
                following.settle(sub, name, await self._keeper.tail(name))
            if sub.glob is not None:
                async for name, head in self._keeper.every_stream():
                    following.backfill(sub, name, head.tail_offset)
            await self._store()
        except BaseException:
            self._machine.delete(sub.id)
            self._look_if(True)
            raise
        self._machine.finish_create(sub, self._host.clock())
        self._look_if(True)

    async def delete(self, id: str) -> None:
        """Forget a subscription; where there is none it changes nothing. Raises StoreFailed."""
        async with self._is_changing:
            if self._machine.delete(id):
                await self._store()

    async def follow(self, id: str, names: Sequence[str]) -> None:
        """Add explicit streams, from their tails.

        Raises SubscriptionNotFound; SubscriptionInvalid and StoreFull, and then none is added;
        StoreFailed.
        """
        async with self._is_changing:
            following = self._machine.following
            sub = following.get(id)
            try:
                # New ones first: they alone can be refused.
                for name in sorted(names, key=sub.links.__contains__):
                    following.link(sub, name, is_explicit=True, settling=True)
                for name in names:
                    following.settle(sub, name, await self._keeper.tail(name))
            except BaseException:
                following.unlink_settling(sub)
                raise
            await self._store()

    async def unfollow(self, id: str, name: str) -> None:
        """Take an explicit stream away. Raises SubscriptionNotFound, StoreFailed."""
        async with self._is_changing:
            self._machine.unfollow(id, name)
            await self._store()

    async def claim(self, id: str, worker: str) -> Claimed:
        """Take the wake of a pull-wake subscription. Raises as `Machine.claim`, StoreFailed."""
        claimed = self._machine.claim(id, worker, self._host.clock())
        await self._store()
        return claimed

    async def acknowledge(self, id: str, kind: Kind, answer: Answer) -> bool:
        """Move cursors and renew or end a wake; returns whether there is another. Raises as
        `Machine.acknowledge`, StoreFailed."""
        has_next = self._machine.acknowledge(id, kind, answer, self._host.clock())
        await self._store()
        return has_next

    async def release(self, id: str, answer: Answer) -> None:
        """Give a wake back. Raises as `Machine.release`, StoreFailed."""
        self._machine.release(id, answer, self._host.clock())
        await self._store()

    async def _store(self) -> None:
        try:
            await self._keeper.store(self._machine.following)
        finally:
            self._look_if(True)  # something may be due now, or have a deadline

    def _look_if(self, is_needed: bool) -> None:
        if is_needed and self._announcer is not None:
            self._announcer.look()


def _new_machine() -> Machine:
    return Machine(new_wake_id=lambda: f"w_{secrets.token_hex(WAKE_ID_BYTES)}", draw=random.random)


def time_text(wall: float) -> str:
    """Write seconds since 1970 as RFC 3339, in milliseconds and UTC."""
    at = datetime.fromtimestamp(wall, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"
