"""What the writer of `sqlite://` knows of one stream: a row of `streams`, and what is not there.

Values and rules, no SQL statement but the columns' names. Positions of this engine are dense: a
stream's own records lie at `base + 1 … tail`, and what a fork shares at or below its `base`.
"""

from __future__ import annotations

import math
from collections import deque
from functools import lru_cache
from typing import Any, Final

from penstock.backends.interface import Fork, StreamConfig
from penstock.backends.sqlite.lineage import Place
from penstock.core.cursor import Offset
from penstock.core.limits import MAX_PRODUCERS
from penstock.core.log import Head, Retention
from penstock.core.producer import Gate
from penstock.core.record import EndReason

ROW_BYTES: Final = 40
"""What a record costs the file beside payload, type and key: its cell, its place, its time."""
HOLD_MS: Final = 5_000
"""How long an ended stream is kept at least after it was last touched."""
FAR_MS: Final = 1 << 53

HEAD_COLUMNS: Final = "epoch, earliest, tail, records, bytes, end_reason"
CONFIG_COLUMNS: Final = (
    "content_type, keep_records, keep_bytes, keep_age_s, ttl_s, expires_at, ended_ttl_s,"
    " is_produced, fork_of, fork_epoch, fork_position, fork_sub"
)
OTHER_COLUMNS: Final = (
    "seq, producers, ended_at, used_at, over_at, trim_at, parent, base, forks, is_deleted,"
    " stored, cut"
)
COLUMNS: Final = f"id, name, {HEAD_COLUMNS}, {CONFIG_COLUMNS}, {OTHER_COLUMNS}"
COLUMN_COUNT: Final = COLUMNS.count(",") + 1


def head_of(columns: tuple[Any, ...]) -> Head:
    """Read HEAD_COLUMNS."""
    epoch, earliest, tail, records, size, end = columns
    return Head(epoch, earliest, tail, records, size, None if end is None else EndReason(end))


@lru_cache(maxsize=256)
def config_of(columns: tuple[Any, ...]) -> StreamConfig:
    """Read CONFIG_COLUMNS. Streams made alike share one."""
    content_type, records, size, age_s, ttl_s, expires_at, ended_ttl_s, is_produced = columns[:8]
    source, epoch, position, sub = columns[8:]
    return StreamConfig(
        content_type=content_type,
        retention=Retention(max_records=records, max_bytes=size, max_age_s=age_s),
        ttl_s=ttl_s,
        expires_at=expires_at,
        ended_ttl_s=ended_ttl_s,
        is_produced=bool(is_produced),
        fork=None
        if source is None
        else Fork(source=source, at=None if epoch is None else Offset(epoch, position), sub=sub),
    )


def config_columns(config: StreamConfig) -> tuple[Any, ...]:
    """Write CONFIG_COLUMNS."""
    keep, fork = config.retention, config.fork
    at = None if fork is None else fork.at
    return (
        *(config.content_type, keep.max_records, keep.max_bytes, keep.max_age_s),
        *(config.ttl_s, config.expires_at, config.ended_ttl_s, config.is_produced),
        None if fork is None else fork.source,
        None if at is None else at.epoch,
        None if at is None else at.position,
        None if fork is None else fork.sub,
    )


def milliseconds(seconds: float) -> int:
    """Round a time up, so that nothing goes early."""
    return min(math.ceil(seconds * 1000), FAR_MS) if seconds < FAR_MS else FAR_MS


class StreamState:
    """One stream, as it will be when what was judged is committed. The writer thread's alone."""

    __slots__ = (
        *("base", "bytes", "config", "cut", "earliest", "end", "ended_at", "epoch", "forks"),
        *("front", "gate", "id", "is_deleted", "is_new", "is_other_changed", "name"),
        *("parent", "producers", "records", "seq_at_load", "stored", "tail", "trim_at"),
        *("is_whole_front", "used_at", "written_over_at", "written_used_at", "written_trim_at"),
        *("written_end", "has_rows"),
    )

    def __init__(self, id: int, name: str, config: StreamConfig, epoch: int, now_ms: int) -> None:
        self.id, self.name, self.config, self.epoch = id, name, config, epoch
        self.earliest = self.tail = self.records = self.bytes = 0
        self.end: EndReason | None = None
        self.ended_at: int | None = None
        self.used_at = now_ms
        self.trim_at: int | None = None
        self.gate: Gate | None = None
        self.seq_at_load = ""
        self.producers = 0
        self.parent: int | None = None
        self.base = self.forks = self.stored = self.cut = 0
        self.is_deleted = False
        self.front: deque[int] | None = None
        self.is_whole_front = False
        self.is_new = True
        self.is_other_changed = self.has_rows = False
        self.written_over_at: int | None = None
        self.written_used_at = now_ms
        self.written_trim_at: int | None = None
        self.written_end: EndReason | None = None

    @classmethod
    def of_row(cls, row: tuple[Any, ...]) -> StreamState:
        """Read COLUMNS."""
        head, other = head_of(row[2:8]), row[20:]
        state = cls(row[0], row[1], config_of(row[8:20]), head.epoch, other[3])
        state.is_new = False
        state.earliest, state.tail, state.records = head.earliest, head.tail, head.records
        state.bytes, state.end = head.bytes, head.end
        state.written_end = head.end
        state.seq_at_load, state.producers, state.ended_at = other[0], other[1], other[2]
        state.written_used_at, state.written_over_at = other[3], other[4]
        state.trim_at = state.written_trim_at = other[5]
        state.parent, state.base, state.forks = other[6], other[7], other[8]
        state.is_deleted, state.stored, state.cut = bool(other[9]), other[10], other[11]
        return state

    def row(self) -> tuple[Any, ...]:
        """Write COLUMNS."""
        return (
            *(self.id, self.name, self.epoch, self.earliest, self.tail, self.records, self.bytes),
            self.end,
            *config_columns(self.config),
            *(self.seq, self.producers, self.ended_at, self.used_at, self.over_at, self.trim_at),
            *(self.parent, self.base, self.forks, self.is_deleted, self.stored, self.cut),
        )

    def head(self) -> Head:
        return Head(self.epoch, self.earliest, self.tail, self.records, self.bytes, self.end)

    @property
    def seq(self) -> str:
        return self.seq_at_load if self.gate is None else self.gate.seq

    def open_gate(self) -> Gate:
        """Who may append next; knows only the producers that were asked for."""
        if self.gate is None:
            self.gate = Gate(self.seq_at_load, MAX_PRODUCERS)
        return self.gate

    def close_gate(self) -> None:
        """Forget the producers, which the file knows."""
        self.seq_at_load, self.gate = self.seq, None

    @property
    def place(self) -> Place:
        """Where its records lie."""
        return Place(self.id, self.base, self.parent)

    @property
    def over_at(self) -> int | None:
        """When the stream is to be forgotten, by what is known now."""
        config, ends = self.config, list[int]()
        if self.is_deleted:
            return None
        if config.ttl_s is not None:
            ends.append(self.used_at + milliseconds(config.ttl_s))
        if config.expires_at is not None:
            ends.append(milliseconds(config.expires_at))
        if config.ended_ttl_s is not None and self.ended_at is not None:
            held = self.used_at + HOLD_MS if self.used_at > self.ended_at else 0
            ends.append(max(self.ended_at + milliseconds(config.ended_ttl_s), held))
        return min(ends) if ends else None

    def is_over(self, now_ms: int) -> bool:
        """Whether its time is over."""
        config = self.config
        if config.ttl_s is None and config.expires_at is None and config.ended_ttl_s is None:
            return False
        over_at = self.over_at
        return over_at is not None and now_ms >= over_at

    def use(self, now_ms: int) -> None:
        """Count a read or an append as use."""
        if now_ms > self.used_at:
            self.used_at = now_ms

    @property
    def is_life_changed(self) -> bool:
        """Whether the row's times say too little: they may lag, by a tenth of the stream's time,
        and are made up for when a store is opened that was not closed."""
        if self.end is not self.written_end or self.trim_at != self.written_trim_at:
            return True
        return self.used_at - self.written_used_at >= slack_ms(self.config.ttl_s) and (
            self.over_at != self.written_over_at
        )

    def note_written(self) -> None:
        """The row now says all of it."""
        self.written_end, self.written_trim_at = self.end, self.trim_at
        self.written_used_at, self.written_over_at = self.used_at, self.over_at


def slack_ms(ttl_s: int | None) -> int:
    """How far a row's `used_at` may lag behind."""
    return max(1000, (ttl_s or 0) * 100)
