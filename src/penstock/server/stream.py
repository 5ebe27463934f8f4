"""A stream as the server has it: its place in the hub, its producer, its view.

A producer belongs to the hub, not to the request that started it: it goes on when the request's
connection is gone, and stops when it is done, cancelled, or (if its starter said so) unread for
too long. The log itself is the backend's; this is who appends to it and who is told.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from penstock.backends.interface import AppendsNow, ReadsNow, StreamConfig, Watch
from penstock.core.cursor import Offset
from penstock.core.errors import StreamEnded, StreamNotFound
from penstock.core.log import Head
from penstock.core.record import EndReason, NewRecord, Record, checked
from penstock.server.payload import Payload, encode_payload
from penstock.server.view import View
from penstock.wire import http

if TYPE_CHECKING:
    from penstock.server.hub import Hub
    from penstock.server.response import StreamResponse

logger = logging.getLogger("penstock")


class Stream:
    """One stream of a hub: append to it, end it, hand it to readers.

    Get one from `hub.start`, `hub.create` or `hub.get`. Offsets are those of the backend.
    """

    __slots__ = (
        "_idle_timer",
        "_last_append",
        "_producer",
        "_started_at",
        "_unread_s",
        "_view",
        "_watch",
        "config",
        "expires_at",
        "head",
        "hub",
        "name",
        "readers",
    )

    def __init__(self, hub: Hub, name: str, head: Head, config: StreamConfig) -> None:
        self.hub = hub
        self.name = name
        self.config = config
        self.head = head
        self.readers = 0
        self.expires_at: float | None = None
        self._view: View | None = None
        self._watch: Watch | None = None
        self._producer: asyncio.Task[None] | None = None
        self._started_at: float | None = None
        self._last_append = 0.0
        self._unread_s: float | None = None
        self._idle_timer: asyncio.TimerHandle | None = None

    @property
    def path(self) -> str:
        """Where the stream is read, below the address the hub is mounted at."""
        return f"/stream/{http.stream_path(self.name)}"

    @property
    def offset(self) -> Offset:
        """The tail: what is appended next follows it."""
        return self.head.tail_offset

    @property
    def end(self) -> EndReason | None:
        """How the stream ended; None while it is open."""
        return self.head.end

    @property
    def is_produced(self) -> bool:
        """Whether a producer of the hub is still at work on it."""
        return self._producer is not None and not self._producer.done()

    async def append(self, payload: Payload, *, type: str = "", key: str = "") -> Offset:
        """Append one record; returns the offset after it, once it is committed.

        `payload` of a JSON stream: any JSON value (a str is a JSON string), or bytes that are JSON
        already; of a text stream: str or bytes; of any other: bytes. Raises StreamEnded,
        RecordTooLarge, RecordTypeReserved, RecordFieldMalformed, StoreFull.
        """
        return await self.hub.backend.append(self.name, [self._record(payload, type, key)])

    async def append_batch(self, batch: Sequence[NewRecord]) -> Offset:
        """Append records in one commit: all of them or none. Payloads are bytes as stored."""
        limit = self.hub.settings.max_record_bytes
        records = [checked(new.payload, new.type, new.key, limit) for new in batch]
        return await self.hub.backend.append(self.name, records)

    def append_nowait(self, payload: Payload, *, type: str = "", key: str = "") -> None:
        """Append one record without waiting for its commit. Raises as `append`, and
        AppendWindowFull when too much waits."""
        if not isinstance(self.hub.backend, AppendsNow):
            raise TypeError("this backend has no append_nowait; await append() instead")
        self.hub.backend.append_nowait(self.name, [self._record(payload, type, key)])

    async def close(self, reason: EndReason = EndReason.COMPLETE) -> bool:
        """End the stream, for good; returns whether this call did: the first reason stands.

        A producer of the hub that is still at work is cancelled.
        """
        before = self.head.end
        await self.hub.backend.append(self.name, [], end=reason)
        await self.stop_producer()
        return before is None

    async def cancel(self) -> bool:
        """End the stream as `cancelled` and abort its producer, upstream call and all.

        Readers have their end before the producer has stopped. Returns whether it was running.
        """
        return await self.close(EndReason.CANCELLED)

    def response(self, *, last_event_id: str | None = None) -> StreamResponse:
        """Give a response that streams this to whoever made the request: return it from a FastAPI
        or Starlette endpoint, or await it as an ASGI application.

        It begins at the beginning, or after `last_event_id`. The reader's leaving does not stop
        the producer.
        """
        from penstock.server.response import make_response

        return make_response(self, last_event_id)

    def view(self) -> View:
        """The native view of this stream; made when it is first read."""
        if self._view is None:
            self._view = View(
                self.head,
                self._read_now,
                binary=not http.is_text(self.config.content_type),
                tail_bytes=self.hub.settings.view_tail_bytes,
                hooks=self.hub.hooks,
                now=self.hub.clock(),
            )
        return self._view

    # the backend calls these

    def committed(self, records: Sequence[Record], head: Head) -> None:
        self.head = head
        hub = self.hub
        hub.hooks.appended(len(records), sum([len(record.payload) for record in records]))
        if self._started_at is not None:
            self._time_append(hub.clock())
        if self._view is not None and self._view.committed(records, head):
            hub.mark_dirty(self._view)

    def ended(self, head: Head) -> None:
        self.head = head
        assert head.end is not None
        self.hub.hooks.stream_ended(head.end)
        if self._view is not None:
            self._view.ended(head)
            self.hub.mark_dirty(self._view)
        if self._started_at is not None:
            self.expires_at = self.hub.clock() + self.hub.settings.ended_ttl_s

    def trimmed(self, head: Head) -> None:
        self.head = head
        if self._view is not None:
            self._view.trimmed(head)

    # the hub calls these

    def begin(self, watch: Watch) -> None:
        """Take the registration that tells this stream of commits."""
        self._watch = watch

    def forget(self) -> None:
        """Let go of the registration and the timer: the stream is gone."""
        if self._watch is not None:
            self._watch.cancel()
        self._cancel_idle_timer()

    def produce(self, source: AsyncIterable[Payload | NewRecord], unread_s: float | None) -> None:
        """Start the task that feeds this stream; the hub owns it."""
        self._started_at = self.hub.clock()
        self._unread_s = unread_s
        self._producer = asyncio.create_task(self._produce(source), name=f"penstock:{self.name}")
        self.reader_count_changed(0)

    async def stop_producer(self) -> None:
        """Cancel the producer and wait for it, but no longer than the settings say."""
        self._cancel_idle_timer()
        task = self._producer
        if task is None or task.done() or task is asyncio.current_task():
            return
        task.cancel()
        _, late = await asyncio.wait([task], timeout=self.hub.settings.cancel_s)
        if late:
            logger.warning(
                "the producer of %r at %s ignores its cancellation", self.name, self.offset
            )

    def reader_count_changed(self, change: int) -> None:
        """Count a reader; a producer that may not run unread is given its time from now."""
        self.readers += change
        self._cancel_idle_timer()
        if not self.readers and self._unread_s is not None and self.is_produced:
            self._idle_timer = asyncio.get_running_loop().call_later(
                self._unread_s, self._cancel_unread
            )

    def _cancel_unread(self) -> None:
        self._idle_timer = None
        self.hub.spawn(self.cancel())

    def _cancel_idle_timer(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None

    async def _produce(self, source: AsyncIterable[Payload | NewRecord]) -> None:
        reason = EndReason.FAILED
        iterator = aiter(source)
        try:
            async for item in iterator:
                await self._append_item(item)
            reason = EndReason.COMPLETE
        except asyncio.CancelledError:
            reason = EndReason.CANCELLED
        except StreamEnded:
            pass  # ended under the producer's hands: the first reason stands
        except Exception:
            # The task's outermost edge: a source can raise anything, and readers must have an end.
            logger.exception("the producer of %r failed at %s", self.name, self.offset)
        finally:
            await close_source(iterator)
            self._cancel_idle_timer()
            if self.head.end is None:
                with suppress(StreamNotFound):  # deleted while its source took long to close
                    await self.hub.backend.append(self.name, [], end=reason)

    async def _append_item(self, item: Payload | NewRecord) -> None:
        if isinstance(item, NewRecord):
            await self.append_batch([item])
        else:
            await self.append(item)

    def _record(self, payload: Payload, type: str, key: str) -> NewRecord:
        data = encode_payload(payload, self.config.content_type)
        return checked(data, type, key, self.hub.settings.max_record_bytes)

    def _read_now(self, after: int, max_records: int, max_bytes: int) -> Sequence[Record]:
        backend = self.hub.backend
        assert isinstance(backend, ReadsNow)
        return backend.read_now(self.name, after, max_records, max_bytes)

    def _time_append(self, now: float) -> None:
        if self._last_append:
            self.hub.hooks.record_gap(now - self._last_append)
        elif self._started_at is not None:
            self.hub.hooks.first_record(now - self._started_at)
        self._last_append = now


async def close_source(iterator: AsyncIterator[object]) -> None:
    """Close a generator, so that what it holds (an upstream connection) is released now."""
    close = getattr(iterator, "aclose", None)
    if close is None:
        return
    try:
        await close()
    except Exception:
        logger.exception("a producer's source failed while it was closed")
