"""Forms: what a stream is shown as, to all who read it that way.

A view serves many readers with the same bytes; its form makes them. The native form gives each
record an event of its own and tells of gaps, drains and ends; the Durable Streams form pairs a
batch with a control event, and what that protocol has no word for (a gap) it says by ending the
body: the client asks again and is told by a status. What a record looks like there depends on that
record alone; the forms in which it depends on all before it are in `dialects.py`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Protocol

from penstock.core.cursor import Offset
from penstock.core.log import Head
from penstock.core.merge import Merges
from penstock.core.record import Record
from penstock.core.subscription import GapReason
from penstock.wire import durable, native


class Form(Protocol):
    """One way to show a stream of one epoch. `is_batched`: records are only shown together;
    `is_merged`: what is replayed is shown otherwise than what comes live; `ends_at_gap`: nothing
    can be shown behind a gap."""

    @property
    def is_batched(self) -> bool: ...

    @property
    def is_merged(self) -> bool: ...

    @property
    def ends_at_gap(self) -> bool: ...

    def events(self, records: Sequence[Record], after: int) -> list[bytes] | None:
        """One run of bytes for each of the records that follow a position, which can be joined at
        will; None where records can only be shown together."""
        ...

    def joined(self, records: Sequence[Record], tail: int) -> bytes:
        """Consecutive records, at least one; `tail` is where the log stands."""
        ...

    def greeting(self, head: Head) -> bytes:
        """What a reader is told that begins level, before anything came; b"" for nothing."""
        ...

    def gap(self, asked: str, resume: Offset, reason: GapReason, place: int) -> bytes:
        """Say to a reader at a place that history is lost; b"" for nothing."""
        ...

    def end(self, tail: Offset, reason: str) -> bytes:
        """Say how the stream ended: the last of a body."""
        ...

    def drain(self, retry_ms: int, place: int) -> bytes:
        """Say to a reader at a place that the server goes away: the last of a body; b"" for
        nothing."""
        ...

    def broken(self, place: int) -> bytes:
        """Say to a reader at a place that what follows cannot be had: the last of a body; b"" where
        ending it there says so."""
        ...

    def heartbeat(self, tail: Offset, *, is_visible: bool) -> bytes:
        """A sign of life."""
        ...


class NativeForm:
    """Native events: one a record, `id:` is the offset after it."""

    is_batched = is_merged = ends_at_gap = False

    def __init__(self, epoch: int, *, is_binary: bool) -> None:
        self._encoder = native.NativeEncoder(epoch, binary=is_binary)

    def events(self, records: Sequence[Record], after: int) -> list[bytes] | None:
        return self._encoder.encode(records)

    def joined(self, records: Sequence[Record], tail: int) -> bytes:
        return self._encoder.encode_joined(records)

    def greeting(self, head: Head) -> bytes:
        return b""

    def gap(self, asked: str, resume: Offset, reason: GapReason, place: int) -> bytes:
        return native.gap_event(asked, resume, reason)

    def end(self, tail: Offset, reason: str) -> bytes:
        return native.end_event(tail, reason)

    def drain(self, retry_ms: int, place: int) -> bytes:
        return native.drain_event(retry_ms)

    def broken(self, place: int) -> bytes:
        return b""

    def heartbeat(self, tail: Offset, *, is_visible: bool) -> bytes:
        return native.status_event(tail) if is_visible else native.HEARTBEAT


class CompactForm(NativeForm):
    """Native events, but for what is replayed: there, runs of records that can be merged are one
    event, whose `id:` is the last one's. What comes live is shown as it comes."""

    is_merged = True

    def __init__(self, epoch: int, merges: Merges, *, is_binary: bool) -> None:
        super().__init__(epoch, is_binary=is_binary)
        self._merges = merges

    def joined(self, records: Sequence[Record], tail: int) -> bytes:
        return super().joined(self._merges.merged(records), tail)


class DurableForm:
    """Durable Streams' `live=sse`: a `data` event for a batch, a `control` event after it."""

    is_batched = ends_at_gap = True
    is_merged = False

    def __init__(self, epoch: int, content_type: str) -> None:
        self._epoch = epoch
        self._content_type = content_type
        self._floor = 0

    def has_seen(self, cursor: int | None) -> None:
        """Note the caching cursor a reader came with: every later one is beyond it. For all who
        share this form, since they share its bytes; a cursor ahead of its time costs nothing."""
        self._floor = max(self._floor, durable.next_cursor(time.time(), cursor, random.random()))  # noqa: S311

    def events(self, records: Sequence[Record], after: int) -> list[bytes] | None:
        return None

    def joined(self, records: Sequence[Record], tail: int) -> bytes:
        after = Offset(self._epoch, records[-1].position)
        data = durable.data_event(records, after, self._content_type)
        return data + self._control(after, is_up_to_date=after.position >= tail)

    def greeting(self, head: Head) -> bytes:
        return self._control(head.tail_offset, is_up_to_date=True)

    def gap(self, asked: str, resume: Offset, reason: GapReason, place: int) -> bytes:
        return b""

    def end(self, tail: Offset, reason: str) -> bytes:
        return durable.control_event(tail, 0, is_up_to_date=True, end=reason)

    def drain(self, retry_ms: int, place: int) -> bytes:
        return b""

    def broken(self, place: int) -> bytes:
        return b""

    def heartbeat(self, tail: Offset, *, is_visible: bool) -> bytes:
        return native.HEARTBEAT

    def _control(self, after: Offset, *, is_up_to_date: bool) -> bytes:
        cursor = max(self._floor, durable.cursor_at(time.time()))
        return durable.control_event(after, cursor, is_up_to_date=is_up_to_date)
