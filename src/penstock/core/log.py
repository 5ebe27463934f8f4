"""The log: an append-only sequence of records, with an end.

This is the idea of the project in one class. Producers append; whoever reads holds a place (an
offset) and asks for what follows it. The log knows nothing of readers: a reader that is slow,
gone, late or one of ten thousand costs it nothing. What is kept is bounded by records, bytes and
age; what falls out at the front is remembered as a number, so that a reader who comes too late is
told so.

It does no IO and has no clock: `now` is an argument, in seconds of any steady origin. It is the
heart of the memory backend and the oracle that every other backend is tested against. Read
`subscription.py` next: the rules of moving along a log.

Costs, per record: append O(1) amortised; reading O(records returned), wherever in the log; none
depends on the log's length or on readers.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from penstock.core.cursor import Offset
from penstock.core.errors import StreamEnded
from penstock.core.limits import RECORD_OVERHEAD_BYTES, RETAIN_BYTES, RETAIN_RECORDS
from penstock.core.record import EndReason, NewRecord, Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How much of a stream is kept: whichever bound is met first drops the oldest records.

    `max_bytes` counts payloads, types and keys. The newest record is always kept, so that the
    tail stays readable whatever its size.
    """

    max_records: int = RETAIN_RECORDS
    max_bytes: int = RETAIN_BYTES
    max_age_s: float | None = None


class Head(NamedTuple):
    """Where a log stands. `earliest` and `tail` are offsets' positions in `epoch`.

    What can be read lies after `earliest` and up to `tail`; they are equal when nothing is kept.
    A tuple, because one is made at every commit, and a frozen dataclass costs three times that.
    """

    epoch: int
    earliest: int
    tail: int
    records: int
    bytes: int
    end: EndReason | None = None

    @property
    def tail_offset(self) -> Offset:
        return Offset(self.epoch, self.tail)

    @property
    def earliest_offset(self) -> Offset:
        return Offset(self.epoch, self.earliest)


class Log:
    """One stream's records, in order. Not safe for use from several threads."""

    __slots__ = (
        "_dropped",
        "_ends",
        "_first",
        "_payload_bytes",
        "_records",
        "bytes",
        "end",
        "epoch",
        "name",
        "retention",
    )

    def __init__(self, name: str, epoch: int, retention: Retention | None = None) -> None:
        self.name = name
        self.epoch = epoch
        self.retention = retention or Retention()
        self.end: EndReason | None = None
        self.bytes = 0
        self._records: list[Record] = []
        self._ends: list[int] = []  # payload bytes ever appended, up to and with each record
        self._payload_bytes = 0
        self._first = 0  # entries of the list that are dropped but not yet cut off
        self._dropped = 0  # records cut off for good: position of the list's start

    # Positions of this log are dense, so a record's place in the list is its position less what
    # was cut off. Other engines skip positions; nothing outside this class may rely on density.

    @property
    def tail(self) -> int:
        """The position after the newest record."""
        return self._dropped + len(self._records)

    @property
    def earliest(self) -> int:
        """The position before the oldest record that is kept."""
        return self._dropped + self._first

    @property
    def footprint(self) -> int:
        """Bytes this log costs its process, overhead of the records included."""
        return self.bytes + RECORD_OVERHEAD_BYTES * (len(self._records) - self._first)

    def head(self) -> Head:
        """Where the log stands now."""
        dropped, count = self._dropped, len(self._records)
        first = self._first
        return Head(
            self.epoch, dropped + first, dropped + count, count - first, self.bytes, self.end
        )

    def append(self, batch: Sequence[NewRecord], now: float) -> list[Record]:
        """Add records at the tail, all of them or none, and drop what retention no longer keeps.

        Returns them in their places. Raises StreamEnded after `close`.
        """
        if self.end is not None:
            raise StreamEnded(self.name, self.end)
        position = self._dropped + len(self._records)
        added: list[Record] = []
        add, add_end = added.append, self._ends.append
        size, payload_bytes = 0, self._payload_bytes
        for new in batch:
            position += 1
            payload, type_, key = new.payload, new.type, new.key
            add(Record(position, payload, type_, key, now))
            payload_bytes += len(payload)
            add_end(payload_bytes)
            size += len(payload) + len(type_) + len(key)
        self._payload_bytes = payload_bytes
        self._records += added
        self.bytes += size
        keep = self.retention
        if (
            self.bytes > keep.max_bytes
            or len(self._records) - self._first > keep.max_records
            or keep.max_age_s is not None
        ):
            self.trim(now)
        return added

    def branch(self, name: str, epoch: int, position: int, retention: Retention) -> Log:
        """Make a log that begins with what this one keeps up to a position, and is open.

        The records are shared, their places are the same. O(records shared).
        """
        log = Log(name, epoch, retention)
        stop = max(position - self._dropped, self._first)
        log._records = self._records[self._first : stop]
        log._ends = self._ends[self._first : stop]
        log._payload_bytes = log._ends[-1] if log._ends else self._payload_bytes
        log._dropped = self.earliest
        log.bytes = sum(len(r.payload) + len(r.type) + len(r.key) for r in log._records)
        return log

    def close(self, reason: EndReason) -> bool:
        """End the log, for good. Returns whether this call ended it: the first reason stands."""
        if self.end is not None:
            return False
        self.end = reason
        return True

    def read(self, after: int, max_records: int, max_bytes: int) -> list[Record]:
        """Give what follows a position, oldest first.

        At least one record where there is one, then as many as fit in `max_records` and in
        `max_bytes` of payload. From a position that is no longer kept it gives the oldest kept:
        it is the subscription that notices and tells of the gap.
        """
        records, ends = self._records, self._ends
        start = max(after - self._dropped, self._first)
        stop = min(start + max(max_records, 1), len(records))
        if start < stop and ends[stop - 1] - ends[start] > max_bytes - len(records[start].payload):
            before = ends[start] - len(records[start].payload)
            # What fits ends where the running sum passes the limit; the first record always fits.
            stop = max(bisect_right(ends, before + max_bytes, start, stop), start + 1)
        return records[start:stop]

    def trim(self, now: float) -> int:
        """Drop the oldest records above the retention's bounds; returns how many."""
        keep = self.retention
        records, first = self._records, self._first
        last = len(records) - 1  # the newest record always stays
        oldest = None if keep.max_age_s is None else now - keep.max_age_s
        while first < last and (
            self.bytes > keep.max_bytes
            or last + 1 - first > keep.max_records
            or (oldest is not None and records[first].at < oldest)
        ):
            gone = records[first]
            self.bytes -= len(gone.payload) + len(gone.type) + len(gone.key)
            records[first] = _DROPPED  # lets the payload go now, the entry later
            first += 1
        dropped = first - self._first
        self._first = first
        # Cutting the list's front moves the rest. Doing it when an eighth is dropped keeps the
        # cost per append constant, at the price of an eighth more entries.
        if first > 64 and first * 8 > len(records):
            del records[:first], self._ends[:first]
            self._dropped += first
            self._first = 0
        return dropped


_DROPPED = Record(0, b"")
