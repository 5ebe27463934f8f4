"""Calls to model providers: a request to one of several upstreams, and its answer.

`Calls` holds what calls share: the pool of connections, the places at each upstream, the wheel of
deadlines. It asks, again where that can help and elsewhere where it cannot, until the first
content; then the `Call` is handed out, and what goes wrong from there on is the answer's. When it
asks again, and when not, is `retrying.py`'s to say.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self, TypeAlias

import aiohttp

from penstock.core.errors import RequestInexpressible
from penstock.core.gateway_errors import UpstreamBusy
from penstock.gateway.call import Call
from penstock.gateway.config import UpstreamSettings
from penstock.gateway.connections import Connections
from penstock.gateway.question import Question
from penstock.gateway.retrying import may_ask_again, may_ask_another, wait_s
from penstock.gateway.slots import Slots
from penstock.gateway.wheel import Wheel
from penstock.llm.ask.request import Request
from penstock.llm.events import Failure

__all__ = ["Call", "Calls", "OnAttempt"]

OnAttempt: TypeAlias = Callable[[UpstreamSettings, Failure | None], None]
"""Told of each try when it is decided: None where it brought content, else what it failed with."""


class Calls:
    """What one process's calls share. Use it as a context; leaving it cuts off what runs.

    `clock` measures every deadline, in seconds. `connector` lends its connections; without one, the
    calls have their own.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        connector: aiohttp.BaseConnector | None = None,
    ) -> None:
        self._clock = clock
        self._connector = connector
        self._connections: Connections | None = None
        self._wheel = Wheel(clock)
        self._slots: dict[str, Slots] = {}
        self._running: set[Call] = set()

    async def __aenter__(self) -> Self:
        self._connections = Connections(self._connector)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for call in [*self._running]:
            call.abort()
        self._wheel.close()
        connections, self._connections = self._connections, None
        if connections is not None:
            await connections.close()

    @property
    def running(self) -> int:
        """Calls whose providers are not done with."""
        return len(self._running)

    @property
    def connections(self) -> int:
        """Connections that calls have: those that run, and for a moment those that are over."""
        return 0 if self._connections is None else self._connections.lent

    def slots(self, settings: UpstreamSettings) -> Slots:
        """The places at an upstream."""
        slots = self._slots.get(settings.name)
        if slots is None:
            slots = self._slots[settings.name] = Slots(
                settings.name,
                max_concurrent=settings.max_concurrent,
                max_waiting=settings.max_waiting,
            )
        return slots

    async def ask(
        self,
        request: Request,
        upstreams: Sequence[UpstreamSettings],
        *,
        max_output_tokens: int | None = None,
        on_attempt: OnAttempt | None = None,
    ) -> Call:
        """Ask the first of `upstreams` that can answer, and wait for its first content.

        Never raises for what a provider does: where none of them answers, the call's last event is
        the `Failure` of the one that was asked last. An upstream that cannot be asked this, or has
        no place for it, is passed over. `max_output_tokens` is the most the answer may have,
        whatever was asked for.

        Cancelling closes the connection at once, and leaves the line.

        Raises:
            UpstreamBusy: no place came free in time, and nobody was asked.
            RequestInexpressible: none of the upstreams can be asked this.
        """
        if not upstreams:
            raise ValueError("no upstreams; give at least one")
        asked: Call | None = None
        busy: UpstreamBusy | None = None
        inexpressible: RequestInexpressible | None = None
        attempts = 0
        for settings in upstreams:
            try:
                question = Question.write(request, settings, max_output_tokens)
                slot = await self.slots(settings).take(settings.wait_s)
            except RequestInexpressible as error:
                inexpressible = inexpressible or error
                continue
            except UpstreamBusy as error:
                busy = busy or error
                continue
            try:
                asked = await self._ask_one(question, attempts, on_attempt)
            except BaseException:
                slot.give_back()
                raise
            asked.when_over(slot.give_back)
            attempts = asked.attempts
            if asked.failure is None or asked.has_content or not may_ask_another(asked.failure):
                return asked
        if asked is not None:
            return asked
        refused = busy or inexpressible
        assert refused is not None
        raise refused

    async def ask_once(self, request: Request, settings: UpstreamSettings) -> Call:
        """Ask one upstream, once; the call comes with its first event, content or not.

        Raises as `ask` does.
        """
        question = Question.write(request, settings, None)
        slot = await self.slots(settings).take(settings.wait_s)
        try:
            call = await self._try(question, is_eager=True)
        except BaseException:
            slot.give_back()
            raise
        call.attempts = 1
        call.when_over(slot.give_back)
        return call

    async def _ask_one(
        self, question: Question, attempts: int, on_attempt: OnAttempt | None
    ) -> Call:
        """Ask one upstream, as often as its settings allow and it can help."""
        settings, tries, was_stale = question.settings, 0, False
        while True:
            call = await self._try(question)
            attempts += 1
            call.attempts = attempts
            if call.was_stale and not was_stale:
                # The provider closed an idle connection as we took it. Asked on another, at once.
                was_stale = True
                continue
            tries += 1
            failure = None if call.has_content else call.failure
            if on_attempt is not None:
                on_attempt(settings, failure)
            if failure is None or tries > settings.retries:
                return call
            delay_s = wait_s(tries, call.retry_after_s)
            if delay_s is None or not may_ask_again(failure, call.retry_hint):
                return call
            await asyncio.sleep(delay_s)

    async def _try(self, question: Question, *, is_eager: bool = False) -> Call:
        if self._connections is None:
            raise RuntimeError("Calls is not open; use it as a context")
        call = Call(question, self._connections, self._wheel, self._clock)
        self._running.add(call)
        call.when_over(lambda: self._running.discard(call))
        await call.begin(is_eager=is_eager)
        return call
