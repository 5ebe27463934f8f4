"""What each operation on a `sqlite://` file does: validated first, gathered for a commit after.

An operation that is refused has changed nothing, so it does not disturb the others of its group.
The rules are those of `memory://`, which is the oracle; runs in the writer's thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from penstock.backends.creating import fork_position, forked_config, refuse_conflict
from penstock.backends.interface import Appended, Fork, StreamConfig
from penstock.backends.sqlite.group import Group
from penstock.backends.sqlite.leaving import Leaving
from penstock.backends.sqlite.lineage import record_at, size_between
from penstock.backends.sqlite.operations import (
    Append,
    Committed,
    Create,
    Delete,
    Look,
    Operation,
    StoreDocument,
    Sweep,
)
from penstock.backends.sqlite.retention import Retention
from penstock.backends.sqlite.state import ROW_BYTES, StreamState
from penstock.core.cursor import Offset, next_epoch
from penstock.core.errors import (
    ForkInvalid,
    RecordFieldMalformed,
    StoreFull,
    StreamConflict,
    StreamEnded,
    StreamGone,
    StreamNotFound,
)
from penstock.core.log import Head
from penstock.core.producer import Stamp
from penstock.core.record import EndReason, NewRecord
from penstock.wire.http import is_json


class Judge:
    """Applies operations to a store, within its bounds."""

    def __init__(self, group: Group, max_streams: int, max_bytes: int) -> None:
        self.group = group
        self.store = group.store
        self._retention = Retention(group)
        self.leaving = Leaving(group, self._retention)
        self._max_streams, self._max_bytes = max_streams, max_bytes

    def begin(self, operations: Sequence[Operation]) -> None:
        """Read at once what a group will ask for, operation by operation."""
        self.group.begin()
        self.leaving.begin()
        self.store.begin()
        names: list[str] = []
        created: list[str] = []
        stamped: list[tuple[str, str]] = []
        for operation in operations:
            match operation:
                case Append(name, _, _, stamp):
                    names.append(name)
                    if stamp is not None:
                        stamped.append((name, stamp.producer))
                case Create(name, fork=fork):
                    created.append(name)
                    if fork is not None:
                        names.append(fork.source)
                case Look(name) | Delete(name):
                    names.append(name)
                case _:
                    pass
        store = self.store
        store.load([*names, *created])
        store.load_past_epochs(created)
        if stamped:
            found = [(store.find(name), producer) for name, producer in stamped]
            store.load_producers((state, producer) for state, producer in found if state)
        self._retention.tidy()

    def settle(self) -> None:
        """Take note that a group is committed."""
        self.leaving.settle()
        self.leaving.rest()

    def apply(self, operation: Operation) -> object:
        """Do one operation; gives what its caller waits for. Raises what the interface says."""
        match operation:
            case Append(name, batch, end, stamp, seq):
                return self._append(self._live(name), batch, end, stamp, seq)
            case Create():
                return self._create(operation)
            case Look(name):
                state = self._live(name)
                return state.head(), state.config
            case Delete(name):
                return self.leaving.remove(self._live(name))
            case Sweep(max_streams):
                return self.leaving.sweep(max_streams)
            case StoreDocument(kind, name, body):
                return self._store_document(kind, name, body)
            case _:
                return None

    # finding

    def _live(self, name: str) -> StreamState:
        state = self.store.find(name)
        if state is None:
            raise StreamNotFound(name)
        if not state.is_deleted and self.group.is_over(state):
            self.leaving.remove(state)
            return self._live(name)  # gone, or kept for its forks
        if state.is_deleted:
            raise StreamGone(name)
        return state

    def _existing(self, name: str) -> StreamState | None:
        try:
            return self._live(name)
        except StreamGone:
            raise StreamConflict(name, "state: deleted, with forks") from None
        except StreamNotFound:
            return None

    # creating

    def _create(self, asked: Create) -> tuple[Head, StreamConfig, bool]:
        existing = self._existing(asked.name)
        fork, config = asked.fork, asked.config
        if existing is not None:
            if fork is not None:
                config = forked_config(fork, config, existing.config)
            refuse_conflict(asked.name, existing.config, config)
            return existing.head(), existing.config, False
        if fork is not None:
            state, opening = self._branch(asked.name, fork, config, asked.opening)
        else:
            epoch = next_epoch(self.group.now, self.store.past_epoch(asked.name))
            state, opening = self._new(asked.name, config, epoch), asked.opening
        self._refuse_full(opening)
        _refuse_malformed(opening)
        self.store.next_id += 1
        self.store.add(state)
        if state.parent is not None:
            self.leaving.hold(state)
        self._append(state, opening, asked.end, None, None)
        return state.head(), state.config, True

    def _new(self, name: str, config: StreamConfig, epoch: int) -> StreamState:
        return StreamState(self.store.next_id, name, config, epoch, self.group.now_ms)

    def _refuse_full(self, opening: Sequence[NewRecord]) -> None:
        if self.store.streams >= self._max_streams:
            raise StoreFull("streams", self._max_streams)
        if opening and self.store.stored >= self._max_bytes:
            raise StoreFull("bytes", self._max_bytes)

    def _branch(
        self, name: str, fork: Fork, config: StreamConfig, opening: Sequence[NewRecord]
    ) -> tuple[StreamState, Sequence[NewRecord]]:
        """A fork before its first own record, and what those are."""
        source = self._existing(fork.source)
        if source is None:
            raise StreamNotFound(fork.source)
        config = forked_config(fork, config, source.config)
        at = fork_position(fork, source.head())
        base, opening = self._sub(source, fork, at, opening)
        config = replace(config, fork=replace(fork, at=Offset(source.epoch, at)))
        epoch, last = source.epoch, self.store.past_epoch(name)
        if last >= epoch:
            # The name had a log of this lineage: its offsets must not be taken for this one's.
            epoch = next_epoch(self.group.now, last)
        state = self._new(name, config, epoch)
        state.parent, state.base, state.cut, state.tail = source.id, base, base, base
        state.earliest, state.records = source.earliest, base - source.earliest
        state.bytes = source.bytes
        if base != source.tail:
            state.bytes = size_between(self.store.ask, source.place, source.earliest, base)
        self._retention.expect(state, state.records)
        return state, opening

    def _sub(
        self, source: StreamState, fork: Fork, at: int, opening: Sequence[NewRecord]
    ) -> tuple[int, Sequence[NewRecord]]:
        """Go on from a fork's offset by records or bytes; gives its base and first own records."""
        if not fork.sub:
            return at, opening
        if is_json(source.config.content_type):
            if at + fork.sub > source.tail:
                raise ForkInvalid(fork.source, f"{fork.sub} records do not follow that offset")
            return at + fork.sub, opening
        found = record_at(self.store.ask, source.place, at + 1) if at < source.tail else None
        if found is None or len(found[0]) < fork.sub:
            raise ForkInvalid(fork.source, f"the next record has not {fork.sub} bytes")
        payload, type_, key = found
        return at, [NewRecord(payload[: fork.sub], type_, key), *opening]

    # appending

    def _append(
        self,
        state: StreamState,
        batch: Sequence[NewRecord],
        end: EndReason | None,
        stamp: Stamp | None,
        seq: str | None,
    ) -> Appended:
        if stamp is not None or seq is not None:
            newest = state.open_gate().admit(state.name, state.end, stamp, seq)
            if newest is not None:
                here = Offset(state.epoch, state.tail)
                return Appended(here, state.end, newest, is_duplicate=True)
        if batch:
            if state.end is not None:
                raise StreamEnded(state.name, state.end)
            if self.store.stored >= self._max_bytes:
                raise StoreFull("bytes", self._max_bytes)
            _refuse_malformed(batch)
            self._append_batch(state, batch)
        if stamp is not None or seq is not None:
            self._pass_gate(state, stamp, seq)
        if state.end is None:
            state.use(self.group.now_ms)
            if end is not None:
                self.leaving.end(state, end)
            if batch or end is not None or stamp is not None or seq is not None:
                self.store.change(state)
        return Appended(Offset(state.epoch, state.tail), state.end, stamp.seq if stamp else 0)

    def _pass_gate(self, state: StreamState, stamp: Stamp | None, seq: str | None) -> None:
        gate = state.open_gate()
        if stamp is not None:
            self.store.add_producer(state, stamp, is_new=not gate.knows(stamp.producer))
        gate.passed(stamp, seq)
        if seq is not None:
            state.is_other_changed = True

    def _append_batch(self, state: StreamState, batch: Sequence[NewRecord]) -> None:
        first, before, at = state.tail, state.records, self.group.now_ms
        position, size, add = first, 0, self.store.rows.add_record
        front = state.front if state.is_whole_front else None
        for new in batch:
            position += 1
            payload, type_, key = new.payload, new.type, new.key
            add(state, position, at, type_, key, payload)
            length = len(payload) + len(type_) + len(key)
            size += length
            if front is not None:
                front.append(length)
        cost = size + ROW_BYTES * len(batch)
        state.tail = position
        state.records += len(batch)
        state.bytes += size
        state.stored += cost
        self.store.stored += cost
        self.store.change(state)
        self._retention.expect(state, before)
        self._retention.trim(state)
        if self.group.is_watched(state.name):
            self.group.news.append(Committed(state.name, first, batch, at / 1000, state.head()))

    def _store_document(self, kind: str, name: str, body: bytes | None) -> None:
        if body is None:
            self.store.run("DELETE FROM documents WHERE kind = ? AND name = ?", (kind, name))
        else:
            self.store.run("INSERT OR REPLACE INTO documents VALUES (?, ?, ?)", (kind, name, body))


def _refuse_malformed(batch: Sequence[NewRecord]) -> None:
    """Refuse what cannot be kept as text. One that cannot must not fail the others of a group."""
    for new in batch:
        if new.type or new.key:
            for field, text in (("type", new.type), ("key", new.key)):
                if "\0" in text:
                    raise RecordFieldMalformed(field, "has a NUL; use printable text")
                try:
                    text.encode()
                except UnicodeEncodeError:
                    raise RecordFieldMalformed(field, "has an unpaired surrogate") from None
