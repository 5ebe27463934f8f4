"""The asynchronous client: one stream, over as many connections as it takes.

A loop around two machines: `core.resume.Resumption` says when to connect, `wire.sse.Decoder` turns
bytes into events. Bytes are read only while the caller's loop runs, into a buffer of bounded size,
so a slow `async for` slows the server. Nothing about the protocol is decided here.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Final

import aiohttp
import msgspec

from penstock.client._answers import (
    can_be_sent,
    check_address,
    check_headers,
    end_reason,
    error_body,
    refused,
    retry_after_s,
)
from penstock.core.cursor import NOW
from penstock.core.errors import EventTooLarge, Refused, Unreachable
from penstock.core.limits import MAX_EVENT_BYTES, PATIENCE_S
from penstock.core.resume import Backoff, Outcome, Resumption, Verdict
from penstock.wire.sse import Decoder

CONNECT_S: Final = 10.0
"""Time for a connection, TLS included. Half-open networks say neither yes nor no."""
READ_BYTES: Final = 64 * 1024
CONTROL: Final = frozenset({"end", "drain", "status", "cursor"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event. `id` is where to resume after it; `data` is text, JSON for JSON streams."""

    type: str
    data: str
    id: str

    def json(self) -> Any:
        """Read the data as JSON. Raises msgspec.DecodeError when it is none."""
        return msgspec.json.decode(self.data)


class Events:
    """The events of one stream, in order, each once, across reconnects. Made by `connect`.

    Iterate it inside its `async with`, in one task; entered again later, it goes on after the last
    event. It ends with the stream; `end_reason` then says how: `complete`, `cancelled`, `failed`,
    `limit`, `lost`, or None when there was nothing more to tell (204). A `gap` event among the
    others says that history was lost. Raises Refused when the server says no, EventTooLarge, and
    Unreachable when `max_attempts` tries in a row brought nothing.
    """

    def __init__(
        self,
        url: str,
        *,
        last_event_id: str,
        headers: Mapping[str, str],
        backoff: Backoff,
        patience_s: float,
        max_event_bytes: int,
        session: aiohttp.ClientSession | None,
    ) -> None:
        self.url = url
        self.end_reason: str | None = None
        self.connections = 0
        self._headers = dict(headers)
        self._max_event_bytes = max_event_bytes
        self._backoff, self._patience_s = backoff, patience_s
        self._resumption = self._begin(last_event_id)
        self._session = session
        self._owns_session = session is None
        self._iterator: AsyncGenerator[Event, None] | None = None
        self._timeout: asyncio.Timeout | None = None
        self._is_open = self._is_waiting = False

    def _begin(self, last_event_id: str) -> Resumption:
        return Resumption(
            last_event_id=last_event_id, backoff=self._backoff, patience_s=self._patience_s
        )

    @property
    def last_event_id(self) -> str:
        """What to pass to `connect` to go on after the last event that was seen."""
        return self._resumption.last_event_id

    async def __aenter__(self) -> Events:
        if self._is_open:
            raise RuntimeError("these events are open already; call connect() for a second reader")
        if self._session is None:
            self._session = aiohttp.ClientSession(read_bufsize=READ_BYTES)
        self._resumption, self.end_reason = self._begin(self.last_event_id), None
        self._iterator = self._run(self._session)
        self._is_open = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connection; a loop over the events ends. The stream and its producer go on.

        May be called from another task than the one that iterates.
        """
        self._resumption.close()
        self._is_open = False
        if self._is_waiting and self._timeout is not None:
            if not self._timeout.expired():
                self._timeout.reschedule(0.0)  # the loop wakes, and sees that it is over
        elif self._iterator is not None:
            await self._iterator.aclose()
        if self._owns_session and self._session is not None:
            session, self._session = self._session, None
            await session.close()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        if self._iterator is None:
            raise RuntimeError("events are read inside `async with`")
        self._is_waiting = True
        try:
            return await anext(self._iterator)
        finally:
            self._is_waiting = False

    async def _run(self, session: aiohttp.ClientSession) -> AsyncGenerator[Event, None]:
        rules = self._resumption
        verdict = Verdict.CONNECT
        reason = "no attempt was made"
        while verdict is not Verdict.STOP:
            await self._wait()
            try:
                response = await self._request(session)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                reason = str(error) or type(error).__name__
                verdict = rules.receive_cut(time.monotonic(), _random())
                continue
            try:
                reason = f"it answered {response.status}"
                verdict = await self._judge(response)
                if verdict is Verdict.READ:
                    async with aclosing(self._read(response)) as events:
                        async for event in events:
                            yield event
                    reason = "the connection was cut"
                    verdict = rules.receive_cut(time.monotonic(), _random())
            finally:
                # Not pooled: a stream that was left in the middle cannot be used again.
                response.close()
        if rules.outcome is Outcome.EXHAUSTED:
            raise Unreachable(self.url, reason)

    def _limit(self, seconds: float) -> asyncio.Timeout:
        """Every wait has an end, which `aclose` can bring forward."""
        self._timeout = asyncio.timeout(seconds)
        return self._timeout

    async def _wait(self) -> None:
        deadline = self._resumption.next_deadline()
        if deadline is not None:
            with suppress(TimeoutError):
                async with self._limit(max(0.0, deadline - time.monotonic())):
                    await asyncio.get_running_loop().create_future()

    async def _request(self, session: aiohttp.ClientSession) -> aiohttp.ClientResponse:
        if self._resumption.outcome is not None:
            raise TimeoutError  # closed while it waited
        # Compressed, a stream waits for the compressor's block to fill.
        headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
        headers |= {"Cache-Control": "no-store", **self._headers}
        if self.last_event_id:
            if not can_be_sent(self.last_event_id):
                # The server's own, and without it everything would come again, or nothing.
                raise Refused(self.url, 200, detail="it gave an event id that no header can carry")
            headers["Last-Event-ID"] = self.last_event_id
        self.connections += 1
        async with self._limit(self._patience_s):
            # Silence is judged by the rules, and a stream has no length.
            timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_S)
            return await session.get(self.url, headers=headers, timeout=timeout)

    async def _judge(self, response: aiohttp.ClientResponse) -> Verdict:
        """Put the answer to the rules. Raises Refused for a no, and for what is no event stream."""
        rules = self._resumption
        verdict = rules.receive_response(
            response.status,
            time.monotonic(),
            _random(),
            retry_after_s=retry_after_s(response.headers.get("Retry-After", ""), time.time()),
        )
        if verdict is Verdict.READ and response.content_type != "text/event-stream":
            rules.close()
            detail = f"it is {response.content_type!r}, no stream"
            raise Refused(self.url, response.status, detail=detail)
        if rules.outcome is Outcome.REFUSED:
            body = await error_body(response, self._limit(self._patience_s))
            raise refused(self.url, response.status, body)
        if verdict is Verdict.READ and rules.last_event_id == NOW:
            # Said again after a cut, "now" would pass over what came in between.
            rules.last_event_id = response.headers.get("Stream-Next-Offset", NOW)
        return verdict

    async def _read(self, response: aiohttp.ClientResponse) -> AsyncGenerator[Event, None]:
        rules = self._resumption
        decoder = Decoder(max_event_bytes=self._max_event_bytes, last_event_id=rules.last_event_id)
        while rules.outcome is None:
            try:
                async with self._limit(rules.patience_s):
                    chunk = await response.content.readany()
            except (aiohttp.ClientError, TimeoutError, OSError):
                return
            if not chunk:
                return
            rules.receive_bytes(time.monotonic())
            excess: EventTooLarge | None = None
            try:
                decoder.receive_data(chunk)
            except EventTooLarge as error:
                excess = error  # raised after the events before it
            for event in decoder.events():
                # Before it is handed over: if the caller stops in the middle of it, it was seen.
                verdict = rules.receive_event(event.type, event.last_event_id, time.monotonic())
                if event.type == "end":
                    self.end_reason = end_reason(event.data)
                if event.type not in CONTROL and rules.outcome is None:
                    yield Event(type=event.type, data=event.data, id=event.last_event_id)
                if verdict is Verdict.STOP:
                    return
            if excess is not None:
                raise excess
            # An id changes at the end of its block, with or without an event (HTML 9.2.6).
            rules.last_event_id = decoder.last_event_id
            if decoder.retry_ms is not None:
                rules.receive_retry(decoder.retry_ms)


def connect(
    url: str,
    *,
    last_event_id: str = "",
    headers: Mapping[str, str] | None = None,
    max_attempts: int | None = None,
    backoff: Backoff | None = None,
    patience_s: float = PATIENCE_S,
    max_event_bytes: int = MAX_EVENT_BYTES,
    session: aiohttp.ClientSession | None = None,
) -> Events:
    """Read a stream: `async with connect(url) as events: async for event in events: …`.

    Reconnects with full jitter and resumes where it was, for ever unless `max_attempts` tries in a
    row bring no event. Order is the log's; each event comes once. Silence of `patience_s` seconds
    is taken for a dead connection. Cancelling the loop closes the connection and nothing else.
    Works with any SSE endpoint; one that sends no `end` event is read again after its body ends,
    until it answers 204. Raises SettingInvalid for what is no address or can be no header.
    """
    check_address(url)
    check_headers(headers or {}, last_event_id)
    backoff = backoff or Backoff()
    return Events(
        url,
        last_event_id=last_event_id,
        headers=headers or {},
        backoff=backoff if max_attempts is None else replace(backoff, max_attempts=max_attempts),
        patience_s=patience_s,
        max_event_bytes=max_event_bytes,
        session=session,
    )


def _random() -> float:
    return random.random()  # noqa: S311
