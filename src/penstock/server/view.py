"""A view: one stream in one form, and everybody who reads it that way.

Readers that are level share one place, `flushed`, and nothing else: a flush encodes what was
committed since, joins it once, and hands the same bytes to each of them. That loop over
`live` is the hot path of the whole server. A reader whose transport pauses leaves the loop with a
place of its own and is not written to, nor queued for, until its transport resumes; then it is
brought up to `flushed` in slices and joins the loop again.

Encoded events of the recent past are kept, at most `tail_bytes`, for readers a little behind;
older ones are encoded from the log again: at once where it lies in memory, else when the store
has read them, once for all readers at the same place. Nothing is encoded while nobody reads.

Here the bytes of a record depend on that record alone. Where they depend on all before it, the view
is a `dialects.DialectView`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from penstock.core.limits import WRITE_BYTES
from penstock.core.log import Head
from penstock.core.record import Record
from penstock.server.form import Form
from penstock.telemetry.hooks import Hooks
from penstock.wire import http

ReadNow = Callable[[int, int, int], Sequence[Record]]
MAX_SLICE_RECORDS = 4096
SLICE_PAYLOAD_BYTES = WRITE_BYTES // 2
"""Payload read for one write of older events: what stands around a payload (an id, a type, base64)
is seldom more than the payload itself."""


class Slice(NamedTuple):
    """Events after one position: their bytes, the position after the last, how many records."""

    body: bytes
    position: int
    records: int


class Sleeper(Protocol):
    """A level reader that goes on by itself when it is woken."""

    def wake(self) -> None:
        """The tail moved, or the end came: go on."""
        ...

    def heartbeat(self) -> None:
        """Show a sign of life."""
        ...


class Sink(Sleeper, Protocol):
    """A level reader that a flush writes to."""

    @property
    def write(self) -> Callable[[bytes], object]:
        """Takes bytes in chunked framing; the reader may be paused when it returns."""
        ...

    @property
    def is_paused(self) -> bool:
        """Whether the transport took the last bytes only into its buffer."""
        ...

    @property
    def opened_at(self) -> float:
        """The hub's clock at the reader's request."""
        ...

    def fall_behind(self, position: int) -> None:
        """Take a place of its own: the transport paused with everything up to here in it."""
        ...


class Waiter(Protocol):
    """A reader that waits for older events to be read from the store."""

    def loaded(self, after: int, piece: Slice | None) -> None:
        """Take what follows a position; None: nothing could be read."""
        ...


class Loading:
    """What is read from the store to make a write of older events, for those who wait for it.
    `place` is where to read on; `receive` takes what was read there."""

    __slots__ = ("_view", "after", "place")

    def __init__(self, view: View, after: int, place: int) -> None:
        self._view = view
        self.after = after
        self.place = place

    def receive(self, records: Sequence[Record]) -> Slice | None:
        """Take records from `place` on, at least one; None when more have to be read."""
        return self._view.encode(records, self.after, self._view.flushed)


class View:
    """One stream in one form. `read_now` reads the log where it lies in memory; None elsewhere."""

    __slots__ = (
        "_events",
        "_first",
        "_hooks",
        "_positions",
        "_read_now",
        "_start",
        "_tail_bytes",
        "_tail_size",
        "_waiting",
        "flushed",
        "form",
        "fresh",
        "head",
        "last_write",
        "live",
        "loads",
        "readers",
        "sleepers",
        "used_at",
    )

    page_records = MAX_SLICE_RECORDS
    """Most records that are read for one write."""

    def __init__(
        self,
        head: Head,
        form: Form,
        read_now: ReadNow | None,
        *,
        tail_bytes: int,
        hooks: Hooks,
        now: float,
    ) -> None:
        self.head = head
        self.form = form
        self.flushed = head.tail
        self.last_write = self.used_at = now
        self.readers = 0  # all of them; `used_at` is when there was one last
        self.live: dict[Sink, None] = {}  # level, written to by flush
        self.sleepers: dict[Sleeper, None] = {}  # level, woken by flush (the portable path)
        self.fresh: set[Sink] = set()  # live, and have had no record yet
        self.loads: dict[int, list[Waiter]] = {}  # who waits for what follows a position
        self._read_now = read_now
        self._tail_bytes = tail_bytes
        self._hooks = hooks
        self._waiting: list[Record] = []  # committed and not flushed
        # The tail: events and the positions after them, from `_first` on; `_start` is the
        # position before the first of them.
        self._events: list[bytes] = []
        self._positions: list[int] = []
        self._first = 0
        self._tail_size: int = 0
        self._start = head.tail

    @property
    def is_read(self) -> bool:
        """Whether anybody is level, so that a commit has somebody to go to."""
        return bool(self.live or self.sleepers)

    @property
    def seen(self) -> Head:
        """The log as level readers know it: its tail is what was flushed."""
        head = self.head
        if head.tail == self.flushed:
            return head
        return Head(
            epoch=head.epoch,
            earliest=min(head.earliest, self.flushed),
            tail=self.flushed,
            records=head.records,
            bytes=head.bytes,
        )

    def committed(self, records: Sequence[Record], head: Head) -> bool:
        """Take records of a commit; returns whether a flush is due for them."""
        self.head = head
        if self.is_read:
            self._waiting += records
            return True
        # Nobody is level: let go of the tail and stay at the log's. Whoever was level until a
        # moment ago may have left records waiting; they are behind that place now.
        self.flushed = self._start = head.tail
        self._waiting = []
        self._clear_tail()
        return False

    def trimmed(self, head: Head) -> None:
        """Take where the log begins, after records were dropped without a commit."""
        self.head = head

    def ended(self, head: Head) -> None:
        """Take the log's end."""
        self.head = head

    def settle(self, now: float) -> None:
        """Flush what waits, so that `seen` is the log as it is: for who joins, and may hold a place
        that the level readers have not been shown yet."""
        if self._waiting:
            self.flush(now)

    def flush(self, now: float) -> None:
        """Hand what was committed since the last flush to every level reader."""
        records = self._waiting
        if records:
            self._waiting = []
            self._write_all(records, now)
        for sleeper in list(self.sleepers):
            sleeper.wake()
        if self.head.end is not None:
            for sink in list(self.live):
                sink.wake()

    def _write_all(self, records: list[Record], now: float) -> None:
        events = self.form.events(records, self.flushed)
        if events is None:
            self._write_together(records, now)
            return
        whole = b"".join(events)
        if len(whole) <= WRITE_BYTES:  # nearly always: one commit or a few
            self._write_slice(whole, records, now)
        else:
            start = 0
            while start < len(events):
                stop = slice_end(events, start)
                self._write_slice(b"".join(events[start:stop]), records[start:stop], now)
                start = stop
        self._remember(events, records, len(whole))

    def _write_together(self, records: list[Record], now: float) -> None:
        """Write records that are only shown in batches, as many in each as a write takes."""
        start, tail = 0, records[-1].position
        while start < len(records):
            size, stop = 0, start
            while stop < len(records) and (stop == start or size <= SLICE_PAYLOAD_BYTES):
                size += len(records[stop].payload)
                stop += 1
            batch = records[start:stop]
            body = self.form.joined(batch, tail)
            self._write_slice(body, batch, now)
            self._remember([body], batch[-1:], len(body))
            start = stop

    def _write_slice(self, body: bytes, records: list[Record], now: float) -> None:
        """Write the same bytes to every level reader: the hot path."""
        live = self.live
        position = self.flushed = records[-1].position
        if not body:  # nothing of them is shown; and an empty chunk would end every body
            return
        self.last_write = now
        if not live:
            return
        framed = http.chunk(body)
        for sink in live:
            sink.write(framed)
        self._hooks.delivered(len(records) * len(live), len(body) * len(live))
        self._drop_paused(position)
        if self.fresh:
            for sink in self.fresh:
                self._hooks.first_event(now - sink.opened_at)
            self.fresh.clear()

    def _remember(self, events: list[bytes], records: list[Record], size: int) -> None:
        """Keep the newest events ready, at most `tail_bytes` of them; each ends at a record."""
        self._events += events
        self._positions += [record.position for record in records]
        size += self._tail_size
        first, limit = self._first, self._tail_bytes
        kept = self._events
        last = len(kept)
        while size > limit and first < last:
            size -= len(kept[first])
            self._start = self._positions[first]
            kept[first] = b""
            first += 1
        self._tail_size, self._first = size, first
        # As in the log: the front is cut off when an eighth of the list is gone.
        if first > 64 and first * 8 > last:
            del self._events[:first], self._positions[:first]
            self._first = 0

    def _clear_tail(self) -> None:
        if self._events:
            self._events, self._positions = [], []
            self._first = self._tail_size = 0

    def slice(self, after: int, before: int, *, is_live: bool = False) -> Slice | None:
        """Give events after one position and up to another: at most 256 KiB, at least one; None
        where the store has to be asked. `is_live`: to who was level when they came."""
        is_as_it_came = is_live or not self.form.is_merged
        if is_as_it_came and after >= self._start and self._events:
            first = bisect_right(self._positions, after, self._first)
            stop = bisect_right(self._positions, before, first)
            stop = slice_end(self._events, first, stop)
            if stop > first and self._begins_at(first, after):
                body = b"".join(self._events[first:stop])
                return Slice(body, self._positions[stop - 1], stop - first)
        if self._read_now is None:
            return None
        return self.encode(
            self._read_now(after, MAX_SLICE_RECORDS, SLICE_PAYLOAD_BYTES), after, before
        )

    def make_ready(self, position: int) -> bool:
        """Whether what follows a position, or the end there, can be made at once; False where the
        store has to be asked for what is before it."""
        return True

    def _begins_at(self, index: int, after: int) -> bool:
        """Whether an event of the tail begins after a position: one that holds a batch may begin
        before it."""
        if not self.form.is_batched:
            return True
        return after == (self._positions[index - 1] if index > self._first else self._start)

    def encode(self, records: Sequence[Record], after: int, before: int) -> Slice:
        """Make one write of records that were read from the log."""
        if records and records[-1].position > before:
            records = [record for record in records if record.position <= before]
        if not records:
            return Slice(b"", before, 0)
        tail = self.head.tail
        body = self.form.joined(records, tail)
        while len(body) > WRITE_BYTES and len(records) > 1:
            # Types and keys that are longer than their payloads: rare, so halving is good enough.
            records = records[: len(records) // 2]
            body = self.form.joined(records, tail)
        return Slice(body, records[-1].position, len(records))

    def wait_for(self, after: int, waiter: Waiter) -> bool:
        """Register who waits for what follows a position; returns whether it has to be read."""
        waiters = self.loads.setdefault(after, [])
        waiters.append(waiter)
        return len(waiters) == 1

    def loading(self, after: int) -> Loading:
        """Begin to read what follows a position."""
        return Loading(self, after, after)

    def loaded(self, after: int, piece: Slice | None) -> None:
        """Hand what was read from the store to everybody who waited for it; None: nothing was."""
        for waiter in self.loads.pop(after, []):
            waiter.loaded(after, piece)

    def heartbeat(self, now: float) -> None:
        """Have every level reader shown a sign of life."""
        self.last_write = now
        for reader in [*self.live, *self.sleepers]:
            reader.heartbeat()
        self._drop_paused(self.flushed)

    def _drop_paused(self, position: int) -> None:
        for sink in [sink for sink in self.live if sink.is_paused]:
            del self.live[sink]
            sink.fall_behind(position)


def slice_end(events: list[bytes], start: int, stop: int | None = None) -> int:
    """Find where a write of at most 256 KiB that begins at `start` ends: at least one event."""
    stop = len(events) if stop is None else stop
    size = 0
    for index in range(start, stop):
        size += len(events[index])
        if size > WRITE_BYTES and index > start:
            return index
    return stop
