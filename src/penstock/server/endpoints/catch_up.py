"""The protocol's reads that end: what is there now, and what comes next (long-poll).

A response begins after an offset and says where it ends. A place that is no longer kept, or of an
epoch that is over, is 410: there is no event to tell of a gap with. A long-poll at the tail waits
for the next commit or the end, at most as long as the settings say, and gives up its place when
its reader hangs up or the server drains. (Durable Streams 1.0, 5.5 and 5.6.)
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import Final

from penstock.core.cursor import BEGINNING, END_MARK, NOW, Offset, parse_offset
from penstock.core.errors import OffsetGone, StreamNotFound
from penstock.core.limits import CATCH_UP_BYTES
from penstock.core.log import Head
from penstock.server.asgi import Receive, Scope, Send
from penstock.server.stream import Stream
from penstock.wire import durable, http

CATCH_UP_RECORDS: Final = 10_000


def place_of(place: str, head: Head) -> Offset:
    """Find the offset that a reader of the protocol names. Raises OffsetMalformed, OffsetGone."""
    if place in ("", BEGINNING, durable.ZERO):
        return head.earliest_offset
    if place == NOW:
        return head.tail_offset
    after = parse_offset(place.removesuffix(END_MARK))
    _refuse_gone(after, head)
    return after


def _refuse_gone(after: Offset, head: Head) -> None:
    if after.epoch != head.epoch or not head.earliest <= after.position <= head.tail:
        raise OffsetGone(str(after), str(head.earliest_offset))


async def serve_catch_up(stream: Stream, place: str, scope: Scope, send: Send) -> None:
    """Give what the log holds after a place, and say where that ends."""
    after = place_of(place, stream.head)
    if place == NOW:
        content = durable.body([], stream.config.content_type)
        await _send(send, content, [*_body_headers(stream, after), (b"cache-control", b"no-store")])
        return
    await _serve_records(stream, after, scope, send, [])


async def serve_long_poll(
    stream: Stream, place: str, cursor: int | None, scope: Scope, receive: Receive, send: Send
) -> None:
    """Give what follows a place, or wait for it; 204 when nothing came in time."""
    after = place_of(place, stream.head)
    if after.position == stream.head.tail and stream.end is None:
        if not await _something_came(stream, receive):
            return
        if stream.is_deleted:
            raise StreamNotFound(stream.name)
        _refuse_gone(after, stream.head)
        stream.touch()
    drawn = durable.next_cursor(time.time(), cursor, random.random())  # noqa: S311
    live: http.Headers = [(b"stream-cursor", b"%d" % drawn)]
    if after.position < stream.head.tail:
        await _serve_records(stream, after, scope, send, live)
        return
    headers = [*_place_headers(stream, after), *live, (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


class _Poll:
    """One reader that waits for the next commit."""

    def __init__(self) -> None:
        self.woken = asyncio.get_running_loop().create_future()

    def wake(self) -> None:
        if not self.woken.done():
            self.woken.set_result(None)


async def _something_came(stream: Stream, receive: Receive) -> bool:
    """Wait for a commit, the end, a drain or the time; False when the reader has left."""
    hub = stream.hub
    hub.admit()
    poll = _Poll()
    gone = asyncio.ensure_future(_hang_up(receive))
    hub.poll_opened(stream, poll)
    try:
        await asyncio.wait(
            [poll.woken, gone],
            timeout=hub.settings.long_poll_s,
            return_when=asyncio.FIRST_COMPLETED,
        )
        return not gone.done()
    finally:
        hub.poll_closed(stream, poll)
        gone.cancel()
        await asyncio.wait([gone])


async def _hang_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _serve_records(
    stream: Stream, after: Offset, scope: Scope, send: Send, live: http.Headers
) -> None:
    content, position = await _content(stream, after.position)
    # What was dropped while the store was read must not be passed over in silence.
    _refuse_gone(after, stream.head)
    until = Offset(after.epoch, position)
    headers = [*_body_headers(stream, until), *live]
    is_closed = stream.end is not None and until.position >= stream.head.tail
    tag = durable.etag(after, until, is_closed=is_closed)
    headers += [(b"etag", tag), (b"cache-control", _caching(stream, until))]
    if durable.is_named(tag, http.header(scope["headers"], b"if-none-match")):
        await send({"type": "http.response.start", "status": 304, "headers": headers})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return
    await _send(send, content, headers)


async def _content(stream: Stream, after: int) -> tuple[bytes, int]:
    """What a response carries of what follows a position, and where that ends: not beyond the
    tail as it is known here, since a store may have committed more that nobody was told of."""
    hub, content_type, tail = stream.hub, stream.config.content_type, stream.head.tail
    if hub.joins is not None:
        is_array = http.is_json(content_type)
        joined = await hub.joins.read_joined(
            stream.name, after, tail, CATCH_UP_RECORDS, CATCH_UP_BYTES, b"," if is_array else b""
        )
        if joined.position - after > joined.records:
            await _refuse_lost(stream, after)
        return (b"[%b]" % joined.body if is_array else joined.body), joined.position
    records = await hub.backend.read(stream.name, after, CATCH_UP_RECORDS, CATCH_UP_BYTES)
    if records and records[0].position > after + 1:
        await _refuse_lost(stream, after)
    if records and records[-1].position > tail:
        records = [record for record in records if record.position <= tail]
    return durable.body(records, content_type), records[-1].position if records else after


async def _refuse_lost(stream: Stream, after: int) -> None:
    """Refuse a page that does not begin right after its place, where what lay between is gone."""
    if await stream.has_lost(after):
        epoch, earliest = stream.head.epoch, stream.head.earliest_offset
        raise OffsetGone(str(Offset(epoch, after)), str(earliest))


def _caching(stream: Stream, until: Offset) -> bytes:
    """What may be kept of a read. Bytes between two offsets never change, but one that reached
    the tail would hide what came since from whoever reads the same address again."""
    who = b"public" if stream.hub.settings.shared_caches else b"private"
    if until.position >= stream.head.tail:
        return who + b", no-cache"
    return who + b", max-age=60, stale-while-revalidate=300"


def _body_headers(stream: Stream, until: Offset) -> http.Headers:
    return [
        (b"content-type", stream.config.content_type.encode()),
        (b"vary", b"accept"),
        *_place_headers(stream, until),
    ]


def _place_headers(stream: Stream, until: Offset) -> http.Headers:
    headers: http.Headers = [
        (b"stream-next-offset", str(until).encode()),
        *http.SECURITY_HEADERS,
    ]
    if until.position >= stream.head.tail:
        headers.append((b"stream-up-to-date", b"true"))
        headers += end_headers(stream)
    return headers


def end_headers(stream: Stream) -> http.Headers:
    """What says that a stream has ended, and how."""
    if stream.end is None:
        return []
    return [(b"stream-closed", b"true"), (b"stream-end-reason", stream.end.encode())]


async def _send(send: Send, content: bytes, headers: http.Headers) -> None:
    headers = [*headers, (b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content, "more_body": False})
