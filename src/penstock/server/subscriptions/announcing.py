"""Announces wakes: stores what changed, then calls webhooks and writes wake records.

One task, the pump, does both in turn; each announcement is a task of its own with a deadline, at
most `WAKES_AT_ONCE` of them. What waits is in the machine, one wake a subscription, so nothing
here can grow. What cannot be stored is tried again whenever the hub ticks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from penstock.backends.interface import Backend
from penstock.core.errors import PenstockError
from penstock.core.limits import CHECKED_A_TICK, WAKES_AT_ONCE
from penstock.server.subscriptions.addresses import WebhookRules
from penstock.server.subscriptions.keeping import Keeper
from penstock.server.subscriptions.machine import Announcement, Machine
from penstock.server.subscriptions.model import Kind, Subscription
from penstock.server.subscriptions.signing import SigningKey
from penstock.server.subscriptions.webhooks import Delivery, call_webhook
from penstock.wire.http import stream_path

if TYPE_CHECKING:
    from penstock.server.stream import Stream

logger = logging.getLogger("penstock")

SHORTEST_WAIT_S: Final = 0.005
"""A clock that stands still must not make the timer spin."""
STOP_S: Final = 1.0
"""Time that announcements get to stop, and then the last store."""


class Host(Protocol):
    """What subscriptions need of the hub."""

    @property
    def backend(self) -> Backend: ...
    @property
    def clock(self) -> Callable[[], float]: ...
    async def get(self, name: str) -> Stream: ...


class Announcer:
    """Carries out what a machine wants announced, from `start` to `stop`."""

    def __init__(
        self,
        host: Host,
        machine: Machine,
        keeper: Keeper,
        *,
        rules: WebhookRules,
        key: SigningKey | None,
        wall_clock: Callable[[], float],
    ) -> None:
        self._host = host
        self._machine = machine
        self._keeper = keeper
        self._rules = rules
        self._key = key
        self._wall_clock = wall_clock
        self._wanted = asyncio.Event()
        self._has_ticked = False
        self._pump: asyncio.Task[None] | None = None
        self._under_way: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin."""
        self._pump = asyncio.create_task(self._run(), name="penstock:subscriptions")
        self.look()

    def look(self) -> None:
        """See soon what there is to store and to announce."""
        self._wanted.set()

    def tick(self) -> None:
        """Look, and make sure of some streams where one can be gone without a word."""
        self._has_ticked = self._keeper.forgets_silently
        self.look()

    async def stop(self) -> None:
        """Give up what is under way; whoever opens the store next announces it again."""
        if self._timer is not None:
            self._timer.cancel()
        tasks = [*self._under_way, *([] if self._pump is None else [self._pump])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_S)
        # What the store refuses now is lost as it would have been by a crash.
        with suppress(PenstockError, TimeoutError):
            async with asyncio.timeout(STOP_S):
                await self._keeper.store(self._machine.following)

    async def _run(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                if self._has_ticked:
                    self._has_ticked = False
                    await self._check_some()
                # First: nothing is announced that a restart could take back.
                await self._keeper.store(self._machine.following)
                self._announce_due()
            except PenstockError as error:
                logger.error("subscriptions could not be stored: %s", error.sentence)
            except Exception:
                # The task's outermost edge: without it nobody would be woken any more.
                logger.exception("subscriptions could not be announced")

    async def _check_some(self) -> None:
        following = self._machine.following
        for name, tail in following.some(CHECKED_A_TICK):
            is_gone = await self._keeper.tail(name) is None
            if is_gone and following.tail(name) == tail:  # not made again meanwhile
                self._machine.deleted(name)

    def _announce_due(self) -> None:
        overflowed = self._machine.following.overflowed
        while overflowed:
            logger.error("subscription %r follows too many streams for %r", *overflowed.pop())
        now = self._host.clock()
        if self._machine.expire(now):
            self.look()  # a new wake has to be stored before it is announced
        while len(self._under_way) < WAKES_AT_ONCE:
            announcement = self._machine.begin(now)
            if announcement is None:
                break
            task = asyncio.create_task(self._announce(announcement))
            self._under_way.add(task)
            task.add_done_callback(self._ended)
        self._set_timer(now)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a wake failed", exc_info=error)
        self.look()

    def _set_timer(self, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._machine.next_deadline()
        if deadline is not None:
            wait_s = max(deadline - now, SHORTEST_WAIT_S)
            self._timer = asyncio.get_running_loop().call_later(wait_s, self.look)

    # one announcement

    async def _announce(self, announcement: Announcement) -> None:
        sub = announcement.subscription
        carry_out = self._call if sub.config.type is Kind.WEBHOOK else self._write
        try:
            delivery = await carry_out(sub, announcement)
        except asyncio.CancelledError:
            self._machine.interrupted(announcement, self._host.clock())
            raise
        except Exception:
            # The task's outermost edge: a wake must not wait for ever on a mistake of ours.
            logger.exception("the wake of %r by %r failed", sub.id, announcement.cause)
            delivery = Delivery(False)
        if delivery.is_delivered:
            now = self._host.clock()
            self._machine.announced(announcement, now, is_done=delivery.is_done)
            return
        if not sub.retries:
            logger.warning("subscription %r was not woken: %s", sub.id, delivery.why)
        self._machine.failed(announcement, self._host.clock())

    async def _call(self, sub: Subscription, announcement: Announcement) -> Delivery:
        """Call a webhook."""
        if self._key is None:
            return Delivery(False, why="this server calls no webhooks now")
        body = {
            "subscription_id": sub.id,
            "wake_id": announcement.wake_id,
            "generation": announcement.generation,
            "streams": [stream._asdict() for stream in announcement.streams],
            "callback_url": f"{sub.base_url}/__ds/subscriptions/{stream_path(sub.id)}/callback",
            "callback_token": announcement.token,
        }
        return await call_webhook(
            self._rules,
            sub.config.url,
            msgspec.json.encode(body),
            key=self._key,
            wall_clock=self._wall_clock,
            within_s=announcement.within_s,
        )

    async def _write(self, sub: Subscription, announcement: Announcement) -> Delivery:
        """Append a wake record."""
        record = {
            "type": "wake",
            "subscription_id": sub.id,
            "stream": announcement.cause,
            "generation": announcement.generation,
            "ts": int(self._wall_clock() * 1000),
        }
        try:
            async with asyncio.timeout(announcement.within_s):
                stream = await self._host.get(sub.config.wake_stream)
                await stream.append(msgspec.json.encode(record))
        except PenstockError as error:
            return Delivery(False, why=error.sentence)
        except TimeoutError:
            return Delivery(False, why="its wake stream took too long")
        return Delivery(True)
