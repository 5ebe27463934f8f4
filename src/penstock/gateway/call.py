"""One try of one provider: its request, its connection and its answer, as token events.

`read` is on the way of every token, so it does one thing: wait for bytes, have the dialect's reader
read them, hand on what came. It makes no task and no timer; deadlines are the wheel's. What a
provider can do wrong is never raised. It is the answer's last event, a `Failure`.

The connection is let go of as soon as the answer is over: back to the pool after a whole body,
closed at once otherwise, since a provider goes on writing, and billing, for as long as somebody
seems to listen.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final, TypeAlias

import aiohttp

from penstock.core.limits import (
    ERROR_BODY_BYTES,
    ERROR_BODY_S,
    MAX_SILENT_EVENTS,
    UPSTREAM_LINGER_S,
)
from penstock.gateway.connections import Connections
from penstock.gateway.credentials import headers_of, url_of
from penstock.gateway.http_exchange import HttpExchange, head_of
from penstock.gateway.question import Question
from penstock.gateway.refusals import (
    TIMEOUT,
    cleaned,
    no_answer,
    no_connection,
    refusal,
    refused_body,
    retry_after_s,
    secrets_of,
)
from penstock.gateway.wheel import Wheel
from penstock.llm.dialects import find_dialect
from penstock.llm.events import (
    Failure,
    Reasoning,
    Start,
    Stop,
    Text,
    TokenEvent,
    ToolCall,
    ToolCallDelta,
)

# What is worth showing: from here on nothing can be taken back.
_CONTENT: Final = (Text, Reasoning, ToolCallDelta, ToolCall)

# Behind these an answer goes on.
_GOING_ON: Final = frozenset({Text, Reasoning, ToolCallDelta, Start})


Sink: TypeAlias = Callable[[list[TokenEvent]], bool]
"""Takes events as they come, and says whether it has dealt with them."""


class Call:
    """An answer, as it comes from its provider. `Calls.ask` makes it; one reader reads it.

    Attributes:
        upstream: the name of the upstream that answers.
        model: the model, in that upstream's words.
        left_out: what of the request was not said to it, by name.
        attempts: requests that were sent for this answer, to all upstreams.
        retry_after_s: for how long the provider wants to be left alone, where it refused.
        retry_hint: its `x-should-retry`, where it refused.
        was_stale: it failed because an idle connection had died before the request was taken.
        asked_at, content_at: by `Calls`' clock, when the request that is answered was sent and when
            its first content came; None before.
    """

    __slots__ = (
        "_between_s",
        "_clock",
        "_connections",
        "_exchange",
        "_failure",
        "_first_at",
        "_held",
        "_is_over",
        "_on_over",
        "_question",
        "_reader",
        "_ready",
        "_scope",
        "_sink",
        "_watch",
        "_whole_at",
        "asked_at",
        "attempts",
        "content_at",
        "left_out",
        "model",
        "retry_after_s",
        "retry_hint",
        "upstream",
        "was_stale",
    )

    def __init__(
        self,
        question: Question,
        connections: Connections,
        wheel: Wheel,
        clock: Callable[[], float],
    ) -> None:
        settings = question.settings
        self.upstream, self.model = settings.name, question.model
        self.left_out = question.written.left_out
        self.attempts = 0
        self.retry_after_s: float | None = None
        self.retry_hint = ""
        self.was_stale = False
        self.asked_at = clock()
        self.content_at: float | None = None
        self._question, self._connections, self._clock = question, connections, clock
        self._reader = find_dialect(settings.dialect).make_reader()
        self._between_s = settings.between_tokens_s
        self._whole_at = self.asked_at + settings.whole_s
        self._first_at = min(self.asked_at + settings.first_token_s, self._whole_at)
        self._watch = wheel.watch(self._expire)
        self._scope: asyncio.Timeout | None = None
        self._exchange: HttpExchange | None = None
        self._ready: list[TokenEvent] = []
        self._held: list[TokenEvent] | None = None
        self._sink: Sink | None = None
        self._failure: Failure | None = None
        self._is_over = False
        self._on_over: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        state = "over" if self._is_over else "answering" if self.has_content else "asked"
        return f"<Call {self.upstream!r} {self.model!r} {state}>"

    @property
    def has_content(self) -> bool:
        """Whether something came that is worth showing."""
        return self.content_at is not None

    @property
    def is_over(self) -> bool:
        """Whether the provider is done with, one way or another. Events may wait to be read."""
        return self._is_over

    @property
    def failure(self) -> Failure | None:
        """What the answer failed with, once that was read."""
        return self._failure

    async def read(self) -> Sequence[TokenEvent]:
        """The next events, at least one; none when there is nothing more.

        An answer that is not whole has a `Failure` as its last event. Cancelling closes the
        connection at once.
        """
        if self._ready or self._is_over:
            ready, self._ready = self._ready, []
            return ready
        if self.content_at is None:
            self._watch.set(self._first_at)
        else:
            self._watch.set(min(self._clock() + self._between_s, self._whole_at))
        try:
            events = await self._receive()
        except asyncio.CancelledError:
            self.abort()
            raise
        if self.content_at is None:
            self._take_note(events)
        if not self._is_over:
            # Until the next read the time is the caller's own; only the whole is bounded.
            self._watch.set(self._whole_at)
        return events

    def push_to(self, sink: Sink) -> None:
        """Have events given away as they come while `read` waits for them: a step of the reader's
        task for each token costs more than all else that is done for it here.

        `sink` says whether it has dealt with them; else `read` gives the same events.
        """
        self._sink = sink
        if self._exchange is not None:
            self._exchange.on_data = self._push

    def abort(self) -> None:
        """Close the connection at once, and give the place at the upstream back. Idempotent.

        Nothing more will be read. Without effect where the answer is over.
        """
        self._ready = []
        if not self._is_over:
            self._cut()

    def when_over(self, callback: Callable[[], None]) -> None:
        """Have this called, once, when the provider is done with: at once where it is."""
        if self._is_over:
            callback()
        else:
            self._on_over.append(callback)

    async def begin(self, *, is_eager: bool = False) -> None:
        """Ask, and read until there is content, or the answer is over without any.

        `is_eager` reads until there is anything. Cancelling closes the connection at once, whatever
        is under way.
        """
        self._watch.set(self._first_at)
        ready: list[TokenEvent] = []
        try:
            async with asyncio.timeout(None) as self._scope:
                await self._open()
                while not (self._is_over or self._take_note(ready) or (is_eager and ready)):
                    ready += await self._receive()
        except TimeoutError:
            self._fail(self._timed_out())
        except BaseException:
            self._scope = None
            self.abort()
            raise
        self._scope = None
        self._take_note(ready)
        self._ready = ready + self._ready
        if not self._is_over:
            self._watch.set(self._whole_at)

    def _take_note(self, ready: list[TokenEvent]) -> bool:
        """Whether what came is to be shown; notes when that was first so."""
        if self.content_at is None:
            kinds = _CONTENT if self._failure else (*_CONTENT, Stop)
            says_something = any(isinstance(event, kinds) for event in ready)
            if says_something or len(ready) > MAX_SILENT_EVENTS:
                self.content_at = self._clock()
        return self.content_at is not None

    async def _open(self) -> None:
        """Sends the request and takes the head of the answer."""
        question, settings = self._question, self._question.settings
        written, body = question.written, question.body
        url = url_of(settings, written)
        try:
            lent = await self._connections.take(url, settings.connect_s)
        except (aiohttp.ClientError, OSError) as error:
            self._fail(no_connection(error, settings.connect_s))
            return
        if self._is_over:  # cut off in that moment
            lent.abort()
            return
        headers = headers_of(settings, written, url, body, datetime.now(UTC))
        head = head_of(written.method, url, headers, len(body))
        exchange = self._exchange = HttpExchange(lent, head, body)
        while not exchange.status:
            if exchange.is_ended:
                self.was_stale = lent.is_reused and not exchange.is_malformed
                self._fail(no_answer(is_http=not exchange.is_malformed))
                return
            await exchange.more()
        if not 200 <= exchange.status < 300:
            await self._refuse(exchange)
        elif (failure := refused_body(exchange.headers)) is not None:
            self._fail(failure)

    async def _refuse(self, exchange: HttpExchange) -> None:
        """Takes what an error status says of itself, as far as it comes soon and is short."""
        body = b""
        try:
            async with asyncio.timeout(ERROR_BODY_S):
                while len(body := body + exchange.take()) < ERROR_BODY_BYTES:
                    if exchange.is_ended:
                        break
                    await exchange.more()
        except TimeoutError:
            pass  # the status says enough
        body = body[:ERROR_BODY_BYTES]
        self.retry_after_s = retry_after_s(exchange.headers, body, time.time())
        self.retry_hint = exchange.headers.get("x-should-retry", "")
        failure = refusal(exchange.status, exchange.reason, exchange.headers, body)
        if self.retry_after_s is not None:
            failure = replace(failure, retry_after_s=math.ceil(self.retry_after_s))
        self._fail(failure)

    async def _receive(self) -> list[TokenEvent]:
        """Reads until there are events, or nothing more will come."""
        reader, exchange = self._reader, self._exchange
        assert exchange is not None
        while True:
            data = exchange.take()
            if data:
                reader.receive_data(data)
            elif exchange.is_ended:
                # A broken body ends as a short one does: the reader knows what it lacks.
                reader.receive_eof()
            else:
                await exchange.more()
                if self._is_over:  # cut off while this waited
                    ready, self._ready = self._ready, []
                    return ready
                if self._held is None:
                    continue
            events, self._held = self._held or reader.events(), None
            if not events:
                if data and not reader.is_ended:
                    continue
                self._finish()
            elif type(events[-1]) not in _GOING_ON:
                self._look_at_end(events)
            return events

    def _push(self) -> bool:
        """What came while `read` waits; says whether it need not be woken."""
        exchange, reader, sink = self._exchange, self._reader, self._sink
        if exchange is None or sink is None or self._is_over or self.content_at is None:
            return False
        reader.receive_data(exchange.take())
        events = reader.events()
        if events and type(events[-1]) in _GOING_ON and sink(events):
            self._watch.due = min(self._clock() + self._between_s, self._whole_at)
            return True
        if not events and not reader.is_ended:
            return True
        self._held = events
        return False

    def _look_at_end(self, events: list[TokenEvent]) -> None:
        """Ends the call where its last events end the answer."""
        last = events[-1]
        if isinstance(last, Failure):
            events[-1] = self._failure = self._cleaned(last)
            self._cut()
        elif self._reader.is_ended:
            self._finish()

    def _finish(self) -> None:
        """The answer is whole, or its body ended. The connection is used again where it can be."""
        exchange = self._exchange
        if exchange is None or exchange.is_ended:
            self._watch.cancel()
        else:
            # The last bytes of the body are on their way. They are not waited for here.
            exchange.discard()
            self._watch.set(self._clock() + UPSTREAM_LINGER_S)
        self._be_over()

    def _fail(self, failure: Failure) -> None:
        """Ends the call with a failure that is ours to say."""
        if not self._is_over:
            self._failure = self._cleaned(failure)
            self._ready.append(self._failure)
            self._cut()

    def _cut(self) -> None:
        """Closes the connection, now, unless it was given back."""
        self._watch.cancel()
        self._be_over()
        if self._exchange is not None:
            self._exchange.abort()

    def _be_over(self) -> None:
        self._is_over = True
        on_over, self._on_over = self._on_over, []
        for callback in on_over:
            callback()

    def _expire(self) -> None:
        """A deadline has passed."""
        if self._watch.due < math.inf:
            return  # and was moved in the same moment
        if self._is_over:
            self._cut()  # the last bytes never came
        elif self._scope is not None:
            self._scope.reschedule(asyncio.get_running_loop().time())
        else:
            self._fail(self._timed_out())

    def _timed_out(self) -> Failure:
        settings = self._question.settings
        if self._clock() >= self._whole_at:
            said = f"the whole answer was not there within {settings.whole_s:g} s"
        elif self.has_content:
            said = f"the provider said nothing more within {settings.between_tokens_s:g} s"
        else:
            said = f"the provider gave no token within {settings.first_token_s:g} s"
        return Failure(message=said, code=TIMEOUT, status=504)

    def _cleaned(self, failure: Failure) -> Failure:
        return cleaned(failure, secrets_of(self._question.settings))
