"""`memory://`: logs in this process, gone with it. The default, and the oracle of the others.

Each stream is a `core.log.Log`; a commit is the append itself, so listeners hear of records before
`append` returns. A fork shares its source's records. Bounded twice: each stream by its retention,
all together by `max_streams` and `max_bytes` (record overhead included, shared records counted for
each fork), above which creates and appends get StoreFull.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from heapq import nsmallest
from typing import Final

from penstock.backends.creating import fork_position, forked_config, refuse_conflict
from penstock.backends.interface import (
    Appended,
    Counted,
    Fork,
    Listed,
    Listener,
    StreamConfig,
)
from penstock.core.cursor import Offset, next_epoch
from penstock.core.errors import (
    ForkInvalid,
    StoreFull,
    StreamConflict,
    StreamGone,
    StreamNotFound,
)
from penstock.core.limits import MAX_STORE_BYTES, MAX_STREAMS
from penstock.core.log import Head, Log
from penstock.core.producer import Gate, Stamp
from penstock.core.record import EndReason, NewRecord, Record
from penstock.wire.http import is_json

PAST_EPOCHS: Final = 10_000
"""Deleted names whose epoch is remembered: a megabyte."""
HOLD_S: Final = 5.0
"""How long an ended stream is kept at least after it was last touched."""


class _Kept:
    """One stream: its log, how it was created, who watches it, who may append next."""

    __slots__ = ("config", "deadline", "forks", "gate", "is_gone", "listeners", "log", "source")

    def __init__(self, log: Log, config: StreamConfig, source: _Kept | None = None) -> None:
        self.log = log
        self.config = config
        self.listeners: list[Listener] = []
        self.gate: Gate | None = None
        self.deadline: float | None = None  # of the steady clock
        self.source = source
        self.forks = 0
        self.is_gone = False  # deleted, and kept for its forks' sake


class _MemoryWatch:
    __slots__ = ("_kept", "_listener")

    def __init__(self, kept: _Kept, listener: Listener) -> None:
        self._kept, self._listener = kept, listener

    def cancel(self) -> None:
        if self._listener in self._kept.listeners:
            self._kept.listeners.remove(self._listener)


class MemoryBackend:
    """Logs in memory. `clock` gives steady seconds, `wall_clock` seconds since 1970 for epochs
    and for `expires_at`."""

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
        self._ended = 0
        self._commits = 0
        # Epochs of deleted names, so that one that is made again begins a later one. Bounded: what
        # is forgotten of the oldest raises the floor for every name.
        self._past_epochs: dict[str, int] = {}
        self._epoch_floor = 0
        self._sweep_queue: list[str] = []
        self._documents: dict[str, dict[str, bytes]] = {}

    @property
    def bytes(self) -> int:
        """What all logs cost together, overhead of the records included."""
        return self._bytes

    @property
    def counts(self) -> Counted:
        running = len(self._streams) - self._ended
        return Counted(running, self._ended, self._bytes, self._commits)

    # creating

    async def create(
        self,
        name: str,
        config: StreamConfig,
        opening: Sequence[NewRecord] = (),
        *,
        end: EndReason | None = None,
    ) -> tuple[Head, bool]:
        kept = self._existing(name)
        if kept is not None:
            refuse_conflict(name, kept.config, config)
            return kept.log.head(), False
        self._refuse_full()
        last = max(self._past_epochs.pop(name, 0), self._epoch_floor)
        log = Log(name, next_epoch(self._wall_clock(), last), config.retention)
        return self._begin(_Kept(log, config), opening, end), True

    async def fork(
        self,
        name: str,
        fork: Fork,
        config: StreamConfig,
        opening: Sequence[NewRecord] = (),
        *,
        end: EndReason | None = None,
    ) -> tuple[Head, StreamConfig, bool]:
        existing = self._existing(name)
        if existing is not None:
            refuse_conflict(name, existing.config, forked_config(fork, config, existing.config))
            return existing.log.head(), existing.config, False
        source = self._existing(fork.source)
        if source is None:
            raise StreamNotFound(fork.source)
        config = forked_config(fork, config, source.config)
        self._refuse_full()
        anchor = fork_position(fork, source.log.head())
        position, prefix = self._branching(source, fork, anchor)
        last = max(self._past_epochs.pop(name, 0), self._epoch_floor)
        epoch = source.log.epoch
        if last >= epoch:
            # The name had a log of this lineage: its offsets must not be taken for this one's.
            epoch = next_epoch(self._wall_clock(), last)
        log = source.log.branch(name, epoch, position, config.retention)
        config = replace(config, fork=replace(fork, at=Offset(source.log.epoch, anchor)))
        kept = _Kept(log, config, source)
        source.forks += 1
        self._bytes += log.footprint
        return self._begin(kept, [*prefix, *opening], end), config, True

    def _branching(self, source: _Kept, fork: Fork, position: int) -> tuple[int, list[NewRecord]]:
        """Where a fork leaves its source, and what it begins with of the record after that."""
        log = source.log
        if not fork.sub:
            return position, []
        is_array = is_json(source.config.content_type)
        following = log.read(position, fork.sub if is_array else 1, 1 << 62)
        if is_array:
            if len(following) < fork.sub:
                raise ForkInvalid(fork.source, f"{fork.sub} records do not follow that offset")
            return following[-1].position, []
        if not following or len(following[0].payload) < fork.sub:
            raise ForkInvalid(fork.source, f"the next record has not {fork.sub} bytes")
        record = following[0]
        return position, [NewRecord(record.payload[: fork.sub], record.type, record.key)]

    def _existing(self, name: str) -> _Kept | None:
        try:
            return self._kept(name)
        except StreamGone:
            raise StreamConflict(name, "state: deleted, with forks") from None
        except StreamNotFound:
            return None

    def _refuse_full(self) -> None:
        if len(self._streams) >= self._max_streams:
            raise StoreFull("streams", self._max_streams)

    def _begin(self, kept: _Kept, opening: Sequence[NewRecord], end: EndReason | None) -> Head:
        self._streams[kept.log.name] = kept
        try:
            self._append(kept, opening, end, None, None)
        except StoreFull:
            self._forget(kept)
            raise
        if kept.config.expires_at is not None:
            kept.deadline = self._clock() + kept.config.expires_at - self._wall_clock()
        self._renew(kept)
        return kept.log.head()

    # appending

    async def append(
        self,
        name: str,
        batch: Sequence[NewRecord],
        *,
        end: EndReason | None = None,
        stamp: Stamp | None = None,
        seq: str | None = None,
    ) -> Appended:
        return self._append(self._kept(name), batch, end, stamp, seq)

    def append_now(
        self,
        name: str,
        batch: Sequence[NewRecord],
        *,
        end: EndReason | None = None,
        stamp: Stamp | None = None,
        seq: str | None = None,
    ) -> Appended:
        return self._append(self._kept(name), batch, end, stamp, seq)

    def append_nowait(self, name: str, batch: Sequence[NewRecord]) -> None:
        self._append(self._kept(name), batch, None, None, None)

    def _append(
        self,
        kept: _Kept,
        batch: Sequence[NewRecord],
        end: EndReason | None,
        stamp: Stamp | None,
        seq: str | None,
    ) -> Appended:
        log = kept.log
        if stamp is not None or seq is not None:
            gate = kept.gate = kept.gate or Gate()
            newest = gate.admit(log.name, log.end, stamp, seq)
            if newest is not None:
                return Appended(Offset(log.epoch, log.tail), log.end, newest, is_duplicate=True)
        if batch:
            self._append_batch(kept, batch)
        if kept.gate is not None:
            kept.gate.passed(stamp, seq)
        if end is not None and log.close(end):
            self._ended += 1
            self._tell_end(kept)
        if kept.deadline is not None or kept.config.ended_ttl_s is not None:
            self._renew(kept)
        self._commits += 1
        return Appended(Offset(log.epoch, log.tail), log.end, stamp.seq if stamp else 0)

    def _append_batch(self, kept: _Kept, batch: Sequence[NewRecord]) -> None:
        log = kept.log
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

    # reading

    async def read(
        self, name: str, after: int, max_records: int, max_bytes: int
    ) -> Sequence[Record]:
        return self._kept(name).log.read(after, max_records, max_bytes)

    def read_now(self, name: str, after: int, max_records: int, max_bytes: int) -> Sequence[Record]:
        return self._kept(name).log.read(after, max_records, max_bytes)

    async def head(self, name: str) -> tuple[Head, StreamConfig]:
        kept = self._kept(name)
        return kept.log.head(), kept.config

    async def list(self, prefix: str, after: str, limit: int) -> Sequence[Listed]:
        names = (
            name
            for name, kept in self._streams.items()
            if name > after and name.startswith(prefix) and not kept.is_gone
        )
        found = [(name, self._streams[name]) for name in nsmallest(limit, names)]
        return [Listed(name, kept.log.head(), kept.config) for name, kept in found]

    def watch(self, name: str, after: int, listener: Listener) -> _MemoryWatch:
        kept = self._kept(name)
        log = kept.log
        if log.tail > after:
            listener.committed(log.read(after, log.tail - after, 1 << 62), log.head())
        kept.listeners.append(listener)
        if log.end is not None:
            listener.ended(log.head())
        return _MemoryWatch(kept, listener)

    # going

    async def delete(self, name: str) -> None:
        self._remove(self._kept(name))

    def _remove(self, kept: _Kept) -> None:
        """Take a stream away from everybody; its forks keep its name, and what they share."""
        listeners, kept.listeners = kept.listeners, []
        if kept.log.close(EndReason.LOST):
            self._ended += 1
            for listener in listeners:
                listener.ended(kept.log.head())
        for listener in listeners:
            listener.deleted()
        if kept.forks:
            kept.is_gone, kept.deadline = True, None
            self._bytes -= kept.log.footprint
            kept.log = Log(kept.log.name, kept.log.epoch)
        else:
            self._forget(kept)

    def _forget(self, kept: _Kept) -> None:
        del self._streams[kept.log.name]
        self._remember_epoch(kept.log.name, kept.log.epoch)
        self._bytes -= kept.log.footprint
        if kept.log.end is not None or kept.is_gone:
            self._ended -= 1
        source = kept.source
        if source is not None:
            source.forks -= 1
            if source.is_gone and not source.forks:
                self._forget(source)

    def touch(self, name: str) -> None:
        kept = self._streams.get(name)
        if kept is None or kept.deadline is None:
            return
        if kept.log.end is not None and kept.config.ended_ttl_s is not None:
            kept.deadline = max(kept.deadline, self._clock() + HOLD_S)
        elif not self._is_over(kept):
            self._renew(kept)

    def _renew(self, kept: _Kept) -> None:
        config = kept.config
        if config.ttl_s is not None:
            kept.deadline = self._clock() + config.ttl_s
            if config.expires_at is not None:
                rest_s = config.expires_at - self._wall_clock()
                kept.deadline = min(kept.deadline, self._clock() + rest_s)
        elif config.ended_ttl_s is not None and kept.log.end is not None and kept.deadline is None:
            kept.deadline = self._clock() + config.ended_ttl_s

    def _is_over(self, kept: _Kept) -> bool:
        return kept.deadline is not None and self._clock() >= kept.deadline

    async def sweep(self, max_streams: int) -> int:
        if not self._sweep_queue:
            self._sweep_queue = [
                name
                for name, kept in self._streams.items()
                if kept.deadline is not None or kept.config.retention.max_age_s is not None
            ]
        gone = 0
        for _ in range(min(max_streams, len(self._sweep_queue))):
            kept = self._streams.get(self._sweep_queue.pop())
            if kept is None:
                continue
            if self._is_over(kept):
                self._remove(kept)
                gone += 1
            else:
                gone += self._trim(kept)
        return gone

    def _trim(self, kept: _Kept) -> int:
        before = kept.log.footprint
        gone = kept.log.trim(self._clock())
        self._bytes += kept.log.footprint - before
        if gone:
            # A reader whose place is gone must be told of the gap, not given what is left as its
            # next.
            head = kept.log.head()
            for listener in tuple(kept.listeners):
                listener.trimmed(head)
        return gone

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
        if self._is_over(kept):
            self._remove(kept)
            return self._kept(name)  # gone, or kept for its forks
        if kept.is_gone:
            raise StreamGone(name)
        return kept

    # documents

    async def load_documents(self, kind: str) -> dict[str, bytes]:
        return dict(self._documents.get(kind, {}))

    async def store_document(self, kind: str, name: str, body: bytes | None) -> None:
        documents = self._documents.setdefault(kind, {})
        if body is None:
            documents.pop(name, None)
        else:
            documents[name] = body
