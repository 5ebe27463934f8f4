"""How an answer goes out: as a stream in the client's dialect, or whole.

A stream's head waits for the first content, so that an answer that fails before it has said
anything is an HTTP error, which SDKs raise and try again, and not a stream that breaks. It does not
wait for ever: proxies want a head, and from then on there are heartbeats. All the while the client
is watched: one that hangs up is let go, and counts as a reader no more. That does not cancel the
answer; the time that an answer may run unread does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from penstock.core.errors import Draining, OffsetGone, StreamNotFound
from penstock.core.record import EndReason
from penstock.gateway.answers import Answers
from penstock.gateway.endpoints.exchange import Exchange
from penstock.gateway.records import events_of, is_content
from penstock.llm.events import Failure, TokenEvent, as_object
from penstock.llm.write import openai_responses
from penstock.llm.write.about import RECORD_TYPE, About
from penstock.llm.write.writer import Body, failure_of
from penstock.server.dialects import DialectKind
from penstock.server.endpoints.dialect import serve_dialect
from penstock.server.stream import Stream
from penstock.server.token_records import event_of
from penstock.wire import http

REQUEST_ID: Final = {
    "openai-chat": b"x-request-id",
    "openai-responses": b"x-request-id",
    "anthropic-messages": b"request-id",
}
"""By dialect: where its SDK looks for the id that it puts into its exceptions and logs."""

PAGE_RECORDS: Final = 512
"""Records that are read in one go: five milliseconds."""

_LOOK_RECORDS: Final = 64
_LOOK_BYTES: Final = 64 * 1024


class ClientGone(Exception):
    """The client hung up before it was answered. There is nobody to be told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SoFar:
    """What there is of an answer. `end` is None while it is written."""

    about: About
    events: list[TokenEvent]
    end: EndReason | None


async def send_answer(exchange: Exchange, stream: Stream, *, is_new: bool, is_stream: bool) -> None:
    """Answer with an answer, as the client wants it."""
    headers = answer_headers(exchange, stream, is_new=is_new)
    with stream.attended():
        if not is_stream:
            await send_whole(exchange, stream, headers)
        elif await has_begun(exchange, stream, headers):
            await exchange.stop_watching()
            await send_stream(exchange, stream, headers)


async def send_stream(
    exchange: Exchange,
    stream: Stream,
    headers: http.Headers,
    *,
    starting_after: int | None = None,
) -> None:
    """Stream an answer from its beginning, in the client's dialect."""
    kind = DialectKind(exchange.dialect.name, starting_after=starting_after)
    await serve_dialect(
        stream, kind, exchange.scope, exchange.receive, exchange.send, headers=headers
    )


async def send_whole(exchange: Exchange, stream: Stream, headers: http.Headers) -> None:
    """Wait for the end of an answer, and send it as one body, or the error it ended with."""
    await until(exchange, stream, lambda: stream.end is not None)
    so_far = await read_so_far(stream)
    last = so_far.events[-1] if so_far.events else None
    if isinstance(last, Failure) and last.retry_after_s is not None:
        headers = [*headers, (b"retry-after", b"%d" % last.retry_after_s)]
    await exchange.respond(_whole(exchange, so_far), headers)


def _whole(exchange: Exchange, so_far: SoFar) -> Body:
    about, events, end = so_far.about, so_far.events, so_far.end
    write = exchange.dialect.write_whole
    assert write is not None, exchange.dialect.name
    assert end is not None
    if exchange.dialect.name == openai_responses.DIALECT:
        request = as_object(about.options.get("request"))
        return openai_responses.write_whole(about.envelope, events, end, request=request)
    return write(about.envelope, events, end)


async def has_begun(exchange: Exchange, stream: Stream, headers: http.Headers) -> bool:
    """Wait for an answer's first content, or its end, or as long as a head may wait. Where it went
    wrong before it said anything, tells so and gives False."""
    loop, backend = asyncio.get_running_loop(), exchange.hub.backend
    give_up = loop.time() + exchange.answers.config.head_wait_s
    after = 0
    failure: Failure | None = None
    while stream.end is None or stream.head.tail > after:
        has_more = partial(_has_more, stream, after)
        if not await until(exchange, stream, has_more, give_up - loop.time()):
            return True
        found = await backend.read(stream.name, after, _LOOK_RECORDS, _LOOK_BYTES)
        if not found:
            break
        for record in found:
            if is_content(record):
                return True
            event = event_of(record) if record.type == "failure" else None
            failure = event if isinstance(event, Failure) else failure
            after = record.position
    error = None if stream.end is None else failure_of(stream.end, failure)
    if error is None:
        return True
    await exchange.fail(error, headers)
    return False


def _has_more(stream: Stream, after: int) -> bool:
    return stream.head.tail > after or stream.end is not None


class _Call:
    """A waiter of `until`: told of each commit, it costs a step only when what is waited for is
    there."""

    __slots__ = ("_holds", "woken")

    def __init__(self, holds: Callable[[], bool]) -> None:
        self._holds = holds
        self.woken = asyncio.get_running_loop().create_future()

    def wake(self) -> None:
        if self._holds():
            self.rouse()

    def rouse(self, _: object = None) -> None:
        if not self.woken.done():
            self.woken.set_result(None)


async def until(
    exchange: Exchange,
    stream: Stream,
    holds: Callable[[], bool],
    within_s: float | None = None,
) -> bool:
    """Wait until something holds of a stream, and say whether it did in time.

    From here on the exchange watches for the hang-up, until it is told to stop. Raises ClientGone
    when the client hangs up first, Draining when the server goes away, and StreamNotFound when the
    stream is deleted.
    """
    if holds():
        return True
    hub = exchange.hub
    call = _Call(lambda: holds() or stream.is_deleted or hub.is_draining)
    hang_up = exchange.watch()
    hang_up.add_done_callback(call.rouse)
    timer = None
    if within_s is not None:
        timer = asyncio.get_running_loop().call_later(within_s, call.rouse)
    hub.poll_opened(stream, call)
    try:
        call.wake()
        await call.woken
    finally:
        hub.poll_closed(stream, call)
        hang_up.remove_done_callback(call.rouse)
        if timer is not None:
            timer.cancel()
    if holds():
        return True
    if hang_up.done():
        raise ClientGone
    if stream.is_deleted:
        raise StreamNotFound(stream.name)
    if hub.is_draining:
        raise Draining
    return False


async def read_so_far(stream: Stream) -> SoFar:
    """Read what there is of an answer. Raises StreamNotFound for a stream that is none, and
    OffsetGone where an answer's beginning is kept no longer."""
    end = stream.end
    records = await stream.records()
    if stream.head.earliest:
        raise OffsetGone("-1", str(stream.head.earliest_offset))
    if not records or records[0].type != RECORD_TYPE:
        raise StreamNotFound(stream.name)
    about = About.from_record(records[0])
    events: list[TokenEvent] = []
    for first in range(1, len(records), PAGE_RECORDS):
        events += events_of(records[first : first + PAGE_RECORDS])
        await asyncio.sleep(0)  # others' readers do not wait for a long answer's
    return SoFar(about=about, events=events, end=end)


def answer_headers(exchange: Exchange, stream: Stream, *, is_new: bool = True) -> http.Headers:
    """What says which stream an answer is, and where it can be read in any dialect."""
    address = f'<{exchange.root}/v1{stream.path}>; rel="alternate"'
    headers: http.Headers = [
        (b"penstock-stream", stream.name.encode()),
        (b"link", address.encode()),
    ]
    if not is_new:
        headers.append((b"penstock-joined", b"true"))
    if request_id := REQUEST_ID.get(exchange.dialect.name):
        headers.append((request_id, Answers.id_of(stream).encode()))
    return headers


async def find_answer(exchange: Exchange, *prefixes: str) -> Stream:
    """The answer that an address names by its id, after a prefix of a dialect's ids where there
    are some. Who asks must be somebody. Raises KeyRefused, StreamNotFound."""
    exchange.caller()
    id = exchange.name
    if prefixes:
        prefix = next((each for each in prefixes if id.startswith(each)), None)
        if prefix is None:
            raise StreamNotFound(id)
        id = id.removeprefix(prefix)
    return await exchange.hub.get(Answers.name_of(id))
