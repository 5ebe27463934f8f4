"""A stream as the server has it: its place in the hub, its producer, its views.

The log itself is the backend's; this is who appends to it and who is told. What feeds it is a
`production.py`, how it is shown a `view.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, Protocol

from penstock.backends.interface import StreamConfig, Watch
from penstock.core.cursor import Offset
from penstock.core.errors import (
    Overloaded,
    PenstockError,
    StreamEnded,
    StreamNotFound,
)
from penstock.core.log import Head
from penstock.core.record import EndReason, NewRecord, Record, checked
from penstock.server.dialects import MAX_DIALECTS, DialectKind, DialectView, make_form
from penstock.server.form import CompactForm, DurableForm, Form, NativeForm
from penstock.server.payload import Payload, encode_payload
from penstock.server.production import Item, LastWords, Production
from penstock.server.view import (
    MAX_SLICE_RECORDS,
    SLICE_PAYLOAD_BYTES,
    Loading,
    Slice,
    View,
    Waiter,
)
from penstock.wire import http

if TYPE_CHECKING:
    from penstock.server.hub import Hub
    from penstock.server.response import StreamResponse

logger = logging.getLogger("penstock")

PlainKind = Literal["native", "compact", "durable"]
Kind = PlainKind | DialectKind
"""The forms a stream is shown in."""


class Poll(Protocol):
    """Somebody who waits for the next commit or the end, once."""

    def wake(self) -> None:
        """Something came."""
        ...


class _Call:
    """One that waits, for itself, until there is something after a position."""

    __slots__ = ("_after", "_stream", "woken")

    def __init__(self, stream: Stream, after: int) -> None:
        self._stream, self._after = stream, after
        self.woken = asyncio.get_running_loop().create_future()

    def wake(self) -> None:
        # Who waits for the end is not woken for every record before it.
        if self._stream.has_passed(self._after) and not self.woken.done():
            self.woken.set_result(None)


class Stream:
    """One stream of a hub: append to it, end it, hand it to readers.

    Get one from `hub.start`, `hub.create` or `hub.get`. Offsets are those of the backend.
    """

    __slots__ = (
        "__weakref__",
        "_attending",
        "_last_append",
        "_production",
        "_started_at",
        "_views",
        "_watch",
        "config",
        "head",
        "hub",
        "is_deleted",
        "is_guarded",
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
        self.is_guarded = False  # only its producer appends
        self.used_at = hub.clock()
        self._views: dict[Kind, View] = {}
        self._watch: Watch | None = None
        self._production: Production | None = None
        self._attending = 0  # who waits for something here, and is no reader
        self._started_at: float | None = None
        self._last_append = 0.0

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
        return self._production is not None and self._production.is_at_work

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

        A producer of the hub that is still at work is cancelled. Its last words, if it has any, are
        committed with the end.
        """
        is_first = self.head.end is None
        try:
            if self._production is not None and is_first:
                appended = await self._production.end(reason)
            else:
                appended = await self.hub.backend.append(self.name, [], end=reason)
            is_first = is_first and appended.end is reason
        except StreamEnded:
            is_first = False  # while the words were on their way
        finally:
            await self.stop_producer()
        return is_first

    async def cancel(self) -> bool:
        """End the stream as `cancelled` and abort its producer, upstream call and all.

        Readers have their end before the producer has stopped. Returns whether it was running.
        """
        return await self.close(EndReason.CANCELLED)

    @contextmanager
    def attended(self) -> Generator[None]:
        """Count somebody who waits for something here as a reader, as long as that lasts: a
        producer that may not run unread goes on."""
        self.attending(1)
        try:
            yield
        finally:
            self.attending(-1)

    async def wait(self, after: int) -> None:
        """Wait until a record after a position is committed, the stream has ended, or it is
        deleted. Cancelling it changes nothing."""
        if self.has_passed(after):
            return
        call = _Call(self, after)
        self.polls.add(call)
        try:
            await call.woken
        finally:
            self.polls.discard(call)

    def has_passed(self, after: int) -> bool:
        """Whether there is a record after a position, or will never be one."""
        return self.head.tail > after or self.head.end is not None or self.is_deleted

    async def records(self, after: int = 0) -> list[Record]:
        """Give every record that is kept after a position, in order. Raises StreamNotFound,
        StreamGone, StoreFailed."""
        found: list[Record] = []
        while after < self.head.tail:
            page = await self.hub.backend.read(
                self.name, after, MAX_SLICE_RECORDS, SLICE_PAYLOAD_BYTES
            )
            # A store may have committed more than anybody was told of.
            found += [record for record in page if record.position <= self.head.tail]
            if not page:
                break
            after = page[-1].position
            await asyncio.sleep(0)  # reading memory waits for nothing
        return found

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
        """Count a read as use, where that keeps the stream; a producer that may not run unread is
        given its time anew."""
        self.keep()
        if self._production is not None:
            self._production.touch()

    def keep(self) -> None:
        """Count what goes on here as use, where that keeps the stream."""
        if self.may_be_over and self.hub.sweeps is not None:
            self.hub.sweeps.touch(self.name)

    @property
    def is_resting(self) -> bool:
        """Whether nobody here reads or feeds it: where a store keeps it, it can leave memory."""
        return not (self.readers or self.polls or self._attending or self.is_produced)

    def view(self, kind: Kind = "native") -> View:
        """This stream in one form; made when it is first read that way.

        Raises LookupError for a dialect that there is not, and Overloaded where the stream is read
        in too many dialects already.
        """
        view = self._views.get(kind)
        if view is None:
            view = self._views[kind] = self._make_view(kind)
        return view

    def _make_view(self, kind: Kind) -> View:
        hub, head = self.hub, self.head
        read_now = None if hub.reads_now is None else self._read_now
        tail_bytes, now = hub.settings.view_tail_bytes, hub.clock()
        if isinstance(kind, DialectKind):
            form = make_form(kind, self.name, head.epoch)
            self._make_room()
            hub.has_dialects(self)
            return DialectView(
                head, form, read_now, tail_bytes=tail_bytes, hooks=hub.hooks, now=now
            )
        form = self._form(kind)
        return View(head, form, read_now, tail_bytes=tail_bytes, hooks=hub.hooks, now=now)

    def _make_room(self) -> None:
        """Let go of dialect views that nobody reads when there are too many. Raises Overloaded."""
        if len(self._views) >= MAX_DIALECTS:
            self.drop_unread(self.hub.clock(), 0.0)
        if len(self._views) >= MAX_DIALECTS:
            raise Overloaded(MAX_DIALECTS)

    def drop_unread(self, now: float, after_s: float) -> bool:
        """Let go of dialect views that nobody has read for so long; returns whether any is left."""
        self._views = {
            kind: view
            for kind, view in self._views.items()
            if not isinstance(view, DialectView) or view.readers or now - view.used_at < after_s
        }
        return any(isinstance(view, DialectView) for view in self._views.values())

    def _form(self, kind: PlainKind) -> Form:
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
            self.hub.spawn(self._load(view, view.loading(after)))

    async def _load(self, view: View, loading: Loading) -> None:
        piece: Slice | None = None
        try:
            while piece is None and (records := await self._page(loading.place, view.page_records)):
                piece = loading.receive(records)
        except PenstockError as error:
            after = loading.after
            logger.warning("reading %r after %d failed: %s", self.name, after, error.sentence)
        finally:  # nobody waits for ever over a merge that raises
            view.loaded(loading.after, piece)

    async def _page(self, after: int, max_records: int) -> Sequence[Record]:
        """Read what follows a position; nothing where it is lost. Lets others have their turn."""
        await asyncio.sleep(0)
        found = await self.hub.backend.read(self.name, after, max_records, SLICE_PAYLOAD_BYTES)
        # A stream of this name may have been made anew since.
        if self.is_deleted:
            raise StreamNotFound(self.name)
        is_next = not found or found[0].position == after + 1
        return found if is_next or not await self.has_lost(after) else []

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
        if self._production is not None:
            self._production.forget()

    def rest(self) -> None:
        """Let go of what only readers need; the registration goes on."""
        self._views.clear()

    def produce(
        self,
        source: AsyncIterable[Item],
        unread_s: float | None = None,
        last_words: LastWords | None = None,
    ) -> None:
        """Start the task that feeds this stream; the hub owns it."""
        self._started_at = self.hub.clock()
        self._production = Production(self, source, unread_s, last_words)
        self.reader_count_changed(0)

    async def stop_producer(self) -> None:
        """Cancel the producer and wait for it, but no longer than the settings say."""
        if self._production is not None:
            await self._production.stop()

    def reader_count_changed(self, change: int) -> None:
        """Count a reader; a producer that may not run unread is given its time from now."""
        self.readers += change
        if self._production is not None:
            self._production.read_changed(is_read=bool(self.readers or self._attending))

    def attending(self, change: int) -> None:
        """Count somebody who waits for something here and is no reader."""
        self.hub.stream_now(self.name)  # one that rested is in use again
        self._attending += change
        self.used_at = self.hub.clock()
        self.reader_count_changed(0)

    def _record(self, payload: Payload, type: str, key: str) -> NewRecord:
        data = encode_payload(payload, self.config.content_type)
        return checked(data, type, key, self.hub.settings.max_record_bytes)

    def _read_now(self, after: int, max_records: int, max_bytes: int) -> Sequence[Record]:
        backend = self.hub.reads_now
        assert backend is not None
        if self.is_deleted:  # one of this name may have been made anew
            raise StreamNotFound(self.name)
        return backend.read_now(self.name, after, max_records, max_bytes)

    def _time_append(self, now: float) -> None:
        if self._last_append:
            self.hub.hooks.record_gap(now - self._last_append)
        elif self._started_at is not None:
            self.hub.hooks.first_record(now - self._started_at)
        self._last_append = now
