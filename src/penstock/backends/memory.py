"""`memory://`: logs in this process, gone with it. The default, and the oracle of the others.

Each stream is a `core.log.Log`; a commit is the append itself, so listeners hear of records before
`append` returns. Bounded twice: each stream by its retention, all together by `max_streams` and
`max_bytes` (record overhead included), above which creates and appends get StoreFull.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from penstock.backends.interface import Listener, StreamConfig
from penstock.core.cursor import Offset, next_epoch
from penstock.core.errors import StoreFull, StreamConflict, StreamNotFound
from penstock.core.limits import MAX_STORE_BYTES, MAX_STREAMS
from penstock.core.log import Head, Log
from penstock.core.record import EndReason, NewRecord, Record

PAST_EPOCHS = 10_000
"""Deleted names whose epoch is remembered: a megabyte."""


class _Kept:
    """One stream: its log, how it was created, who watches it."""

    __slots__ = ("config", "listeners", "log")

    def __init__(self, log: Log, config: StreamConfig) -> None:
        self.log = log
        self.config = config
        self.listeners: list[Listener] = []


class _MemoryWatch:
    __slots__ = ("_kept", "_listener")

    def __init__(self, kept: _Kept, listener: Listener) -> None:
        self._kept, self._listener = kept, listener

    def cancel(self) -> None:
        if self._listener in self._kept.listeners:
            self._kept.listeners.remove(self._listener)


class MemoryBackend:
    """Logs in memory. `clock` gives steady seconds, `wall_clock` seconds since 1970 for epochs."""

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        max_streams: int = MAX_STREAMS,
        max_bytes: int = MAX_STORE_BYTES,
    ) -> None:
        self._clock = clock
        self._wall_clock = wall_clock
        self._max_streams = max_streams
        self._max_bytes = max_bytes
        self._streams: dict[str, _Kept] = {}
        self._bytes = 0
        # Epochs of deleted names, so that one that is made again begins a later one. Bounded: what
        # is forgotten of the oldest raises the floor for every name.
        self._past_epochs: dict[str, int] = {}
        self._epoch_floor = 0
        self._trim_queue: list[str] = []

    @property
    def bytes(self) -> int:
        """What all logs cost together, overhead of the records included."""
        return self._bytes

    async def create(self, name: str, config: StreamConfig) -> tuple[Head, bool]:
        kept = self._streams.get(name)
        if kept is not None:
            if kept.config.content_type != config.content_type:
                raise StreamConflict(name, "content type")
            if kept.config != config:
                raise StreamConflict(name, "retention")
            return kept.log.head(), False
        if len(self._streams) >= self._max_streams:
            raise StoreFull("streams", self._max_streams)
        last = max(self._past_epochs.pop(name, 0), self._epoch_floor)
        log = Log(name, next_epoch(self._wall_clock(), last), config.retention)
        self._streams[name] = _Kept(log, config)
        return log.head(), True

    async def append(
        self, name: str, batch: Sequence[NewRecord], *, end: EndReason | None = None
    ) -> Offset:
        log = self._append(self._kept(name), batch, end)
        return Offset(log.epoch, log.tail)

    def append_nowait(self, name: str, batch: Sequence[NewRecord]) -> None:
        self._append(self._kept(name), batch, None)

    def _append(self, kept: _Kept, batch: Sequence[NewRecord], end: EndReason | None) -> Log:
        log = kept.log
        if batch:
            before = log.footprint
            # Asked before anything is added, and of every stream alike: also of one at its own
            # bound, which would only replace its oldest records.
            if self._bytes >= self._max_bytes:
                raise StoreFull("bytes", self._max_bytes)
            records = log.append(batch, self._clock())
            self._bytes += log.footprint - before
            if kept.listeners:
                head = log.head()
                # A copy, since a listener may cancel itself; one listener is the common case.
                for listener in kept.listeners[:]:
                    listener.committed(records, head)
        if end is not None and log.close(end):
            self._tell_end(kept)
        return log

    async def read(
        self, name: str, after: int, max_records: int, max_bytes: int
    ) -> Sequence[Record]:
        return self._kept(name).log.read(after, max_records, max_bytes)

    def read_now(self, name: str, after: int, max_records: int, max_bytes: int) -> Sequence[Record]:
        return self._kept(name).log.read(after, max_records, max_bytes)

    async def head(self, name: str) -> tuple[Head, StreamConfig]:
        kept = self._kept(name)
        return kept.log.head(), kept.config

    async def delete(self, name: str) -> None:
        kept = self._kept(name)
        del self._streams[name]
        self._remember_epoch(name, kept.log.epoch)
        self._bytes -= kept.log.footprint
        if kept.log.close(EndReason.LOST):
            self._tell_end(kept)

    def watch(self, name: str, after: int, listener: Listener) -> _MemoryWatch:
        kept = self._kept(name)
        log = kept.log
        if log.tail > after:
            listener.committed(log.read(after, log.tail - after, 1 << 62), log.head())
        kept.listeners.append(listener)
        if log.end is not None:
            listener.ended(log.head())
        return _MemoryWatch(kept, listener)

    def trim(self, max_streams: int) -> int:
        if not self._trim_queue:
            self._trim_queue = [
                name
                for name, kept in self._streams.items()
                if kept.config.retention.max_age_s is not None
            ]
        dropped = 0
        for _ in range(min(max_streams, len(self._trim_queue))):
            kept = self._streams.get(self._trim_queue.pop())
            if kept is not None:
                before = kept.log.footprint
                gone = kept.log.trim(self._clock())
                self._bytes += kept.log.footprint - before
                if gone:
                    dropped += gone
                    self._tell_trim(kept)
        return dropped

    def _tell_trim(self, kept: _Kept) -> None:
        # A reader whose place is gone must be told of the gap, not given what is left as its next.
        head = kept.log.head()
        for listener in tuple(kept.listeners):
            listener.trimmed(head)

    def _remember_epoch(self, name: str, epoch: int) -> None:
        self._past_epochs[name] = epoch
        if len(self._past_epochs) > PAST_EPOCHS:
            oldest = next(iter(self._past_epochs))
            self._epoch_floor = max(self._epoch_floor, self._past_epochs.pop(oldest))

    def _tell_end(self, kept: _Kept) -> None:
        head = kept.log.head()
        for listener in tuple(kept.listeners):
            listener.ended(head)

    def _kept(self, name: str) -> _Kept:
        kept = self._streams.get(name)
        if kept is None:
            raise StreamNotFound(name)
        return kept
