"""A stream as the server has it: its place in the hub, its producer, its view.

A producer belongs to the hub, not to the request that started it: it goes on when the request's
connection is gone, and stops when it is done, cancelled, or (if its starter said so) unread for
too long. The log itself is the backend's; this is who appends to it and who is told.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from typing import TYPE_CHECKING, Final, Literal, Protocol

from penstock.backends.interface import StreamConfig, Watch
from penstock.core.cursor import Offset
from penstock.core.errors import (
    CallerError,
    PenstockError,
    StreamEnded,
    StreamGone,
    StreamNotFound,
)
from penstock.core.log import Head
from penstock.core.record import EndReason, NewRecord, Record, checked
from penstock.server.feed import Feed
from penstock.server.form import CompactForm, DurableForm, Form, NativeForm
from penstock.server.payload import Payload, encode_payload
from penstock.server.view import MAX_SLICE_RECORDS, SLICE_PAYLOAD_BYTES, View, Waiter
from penstock.wire import http

if TYPE_CHECKING:
    from penstock.server.hub import Hub
    from penstock.server.response import StreamResponse

logger = logging.getLogger("penstock")
END_AGAIN_S: Final = 1.0
"""How long to wait before an end that the store could not take is tried again."""

Kind = Literal["native", "compact", "durable"]
"""The forms a stream is shown in."""


class Poll(Protocol):
    """Somebody who waits for the next commit or the end, once."""

    def wake(self) -> None:
        """Something came."""
        ...


class Stream:
    """One stream of a hub: append to it, end it, hand it to readers.

    Get one from `hub.start`, `hub.create` or `hub.get`. Offsets are those of the backend.
    """

    __slots__ = (
        "__weakref__",
        "_idle_timer",
        "_last_append",
        "_producer",
        "_started_at",
        "_unread_s",
        "_views",
        "_watch",
        "config",
        "head",
        "hub",
        "is_deleted",
        "name",
        "polls",
        "readers",
        "used_at",
    )

    def __init__(self, hub: Hub, name: str, head: Head, config: StreamConfig) -> None:
        self.hub = hub
        self.name = name
        self.config = config
        self.head = head
        self.readers = 0
        self.polls: set[Poll] = set()
        self.is_deleted = False
        self.used_at = hub.clock()
        self._views: dict[Kind, View] = {}
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
        record = self._record(payload, type, key)
        return (await self.hub.backend.append(self.name, [record])).offset

    async def append_batch(self, batch: Sequence[NewRecord]) -> Offset:
        """Append records in one commit: all of them or none. Payloads are bytes as stored."""
        limit = self.hub.settings.max_record_bytes
        records = [checked(new.payload, new.type, new.key, limit) for new in batch]
        return (await self.hub.backend.append(self.name, records)).offset

    def append_nowait(self, payload: Payload, *, type: str = "", key: str = "") -> None:
        """Append one record without waiting for its commit. Raises as `append`, and
        AppendWindowFull when too much waits."""
        backend = self.hub.appends_now
        if backend is None:
            raise TypeError("this backend has no append_nowait; await append() instead")
        backend.append_nowait(self.name, [self._record(payload, type, key)])

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

    @property
    def may_be_over(self) -> bool:
        """Whether its time can be over: then the backend has to be asked for it."""
        config = self.config
        if config.ttl_s is not None or config.expires_at is not None:
            return True
        return self.head.end is not None and config.ended_ttl_s is not None

    def touch(self) -> None:
        """Count a read as use, where that keeps the stream."""
        if self.may_be_over and self.hub.sweeps is not None:
            self.hub.sweeps.touch(self.name)

    @property
    def is_resting(self) -> bool:
        """Whether nobody here reads or feeds it: where a store keeps it, it can leave memory."""
        return not (self.readers or self.polls or self.is_produced)

    def view(self, kind: Kind = "native") -> View:
        """This stream in one form; made when it is first read that way."""
        view = self._views.get(kind)
        if view is None:
            hub = self.hub
            view = self._views[kind] = View(
                self.head,
                self._form(kind),
                None if hub.reads_now is None else self._read_now,
                tail_bytes=hub.settings.view_tail_bytes,
                hooks=hub.hooks,
                now=hub.clock(),
            )
        return view

    def _form(self, kind: Kind) -> Form:
        epoch, content_type = self.head.epoch, self.config.content_type
        if kind == "durable":
            return DurableForm(epoch, content_type)
        is_binary = not http.is_text(content_type)
        if kind == "compact":
            return CompactForm(epoch, self.hub.merges, is_binary=is_binary)
        return NativeForm(epoch, is_binary=is_binary)

    def load(self, view: View, after: int, waiter: Waiter) -> None:
        """Have a view's older events read from the store, once for all who wait for them."""
        if view.wait_for(after, waiter):
            self.hub.spawn(self._load(view, after))

    async def _load(self, view: View, after: int) -> None:
        records: Sequence[Record] | None = None
        try:
            found = await self.hub.backend.read(
                self.name, after, MAX_SLICE_RECORDS, SLICE_PAYLOAD_BYTES
            )
            if not found or found[0].position == after + 1 or not await self.has_lost(after):
                records = found
        except PenstockError as error:
            logger.warning("reading %r after %d failed: %s", self.name, after, error.sentence)
        finally:
            view.loaded(after, records)

    async def has_lost(self, after: int) -> bool:
        """Whether what followed a position is gone, as the store has it. It may have dropped
        records that nobody was told of yet; those behind them must not be taken for the next."""
        head, _ = await self.hub.backend.head(self.name)
        return head.epoch != self.head.epoch or head.earliest > after

    # the backend calls these

    def committed(self, records: Sequence[Record], head: Head) -> None:
        self.head = head
        hub = self.hub
        hub.hooks.appended(len(records), sum([len(record.payload) for record in records]))
        if self._started_at is not None:
            self._time_append(hub.clock())
        for view in self._views.values():
            if view.committed(records, head):
                hub.mark_dirty(view)
        if self.polls:
            self._wake_polls()
        hub.subscriptions.appended(self.name, head)

    def ended(self, head: Head) -> None:
        assert head.end is not None
        if self.head.end is None:
            self.hub.hooks.stream_ended(head.end)
        self.head = head
        for view in self._views.values():
            view.ended(head)
            self.hub.mark_dirty(view)
        self._wake_polls()

    def trimmed(self, head: Head) -> None:
        self.head = head
        for view in self._views.values():
            view.trimmed(head)

    def deleted(self) -> None:
        # What was not read yet cannot be: a reader that is behind is told so, then of the end.
        self.is_deleted = True
        self.trimmed(self.head._replace(earliest=self.head.tail, records=0, bytes=0))
        self._wake_polls()
        self.hub.stream_deleted(self)

    def restarted(self, head: Head) -> None:
        # What readers were shown is not the log any more: they come back with a place of an epoch
        # that is over, and are told of the gap.
        self.head = head
        self._views.clear()
        self.hub.send_away(self)
        self._wake_polls()
        self.hub.subscriptions.appended(self.name, head)

    def _wake_polls(self) -> None:
        for poll in list(self.polls):
            poll.wake()

    # the hub calls these

    def begin(self, watch: Watch) -> None:
        """Take the registration that tells this stream of commits."""
        self._watch = watch

    def heartbeat(self, now: float) -> None:
        """Show level readers a sign of life, where they saw none for long."""
        for view in self._views.values():
            if view.is_read and now - view.last_write >= self.hub.settings.heartbeat_s:
                view.heartbeat(now)

    def forget(self) -> None:
        """Let go of the registration and the timer: the stream is gone."""
        if self._watch is not None:
            self._watch.cancel()
        self._cancel_idle_timer()

    def rest(self) -> None:
        """Let go of what only readers need; the registration goes on."""
        self._views.clear()

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
        backend = self.hub.backend
        # Where a commit costs a write, what comes while one is under way shares the next.
        feed = None if self.hub.commits_now is not None else Feed(backend, self.name)
        try:
            async for item in iterator:
                record = self._item_record(item)
                if feed is None:
                    await backend.append(self.name, [record])
                else:
                    await feed.put(record)
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
            await self._end(reason, feed)

    async def _end(self, reason: EndReason, feed: Feed | None) -> None:
        """End the stream after its producer, with what was not committed yet."""
        backend = self.hub.backend
        try:
            if self.head.end is not None and feed is not None:
                await feed.abandon()
            elif feed is not None:
                await feed.finish(reason)
            elif self.head.end is None:
                await backend.append(self.name, [], end=reason)
        except (StreamNotFound, StreamGone, StreamEnded):
            pass  # deleted or ended while its source took long to close
        except PenstockError as error:
            logger.error("the end of %r could not be stored: %s", self.name, error.sentence)
            self.hub.spawn(self._end_at_last())

    async def _end_at_last(self) -> None:
        """End a stream whose store could not take what came last, as soon as it can. Readers must
        have an end; until then they wait, and after a restart it is `lost`."""
        while True:
            await asyncio.sleep(END_AGAIN_S)
            try:
                await self.hub.backend.append(self.name, [], end=EndReason.FAILED)
            except CallerError:
                return
            except PenstockError:
                continue
            return

    def _item_record(self, item: Payload | NewRecord) -> NewRecord:
        if isinstance(item, NewRecord):
            return checked(item.payload, item.type, item.key, self.hub.settings.max_record_bytes)
        return self._record(item, "", "")

    def _record(self, payload: Payload, type: str, key: str) -> NewRecord:
        data = encode_payload(payload, self.config.content_type)
        return checked(data, type, key, self.hub.settings.max_record_bytes)

    def _read_now(self, after: int, max_records: int, max_bytes: int) -> Sequence[Record]:
        backend = self.hub.reads_now
        assert backend is not None
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
