# ruff: noqa: S608  statements are put together from constants alone; values are always bound
"""How streams go: deleted, or because their time is over; and how long a fork holds its source."""

from __future__ import annotations

from typing import Final

from penstock.backends.sqlite.group import Group
from penstock.backends.sqlite.operations import Deleted, Ended
from penstock.backends.sqlite.retention import Retention
from penstock.backends.sqlite.state import StreamState, milliseconds
from penstock.core.record import EndReason

MAX_TOUCHED: Final = 10_000
"""Streams whose last use waits to be written; above it they are written at once."""


class Leaving:
    """Ends streams, removes them, and sweeps."""

    def __init__(self, group: Group, retention: Retention) -> None:
        self._group, self._retention = group, retention
        self._store = group.store
        self._round: list[str] = []
        self._written: list[tuple[str, float]] = []

    def begin(self) -> None:
        self._written = []

    def settle(self) -> None:
        """Forget the uses that are committed."""
        touched = self._group.touched
        for name, when in self._written:
            if touched.get(name) == when:
                touched.pop(name, None)

    def end(self, state: StreamState, reason: EndReason) -> None:
        """End a stream that is open."""
        state.end, state.ended_at = reason, self._group.now_ms
        self._store.ended += 1
        if self._group.is_watched(state.name):
            self._group.news.append(Ended(state.name, state.head()))

    def remove(self, state: StreamState) -> None:
        """Take a stream away from everybody; its forks keep its name, and what they share."""
        if state.end is None:
            self.end(state, EndReason.LOST)
        if self._group.is_watched(state.name):
            self._group.news.append(Deleted(state.name, state.head()))
        if not state.forks:
            self._forget(state)
            return
        self._store.ended -= 1
        self._store.gone += 1
        state.is_deleted, state.trim_at, state.front = True, None, None
        state.earliest, state.records, state.bytes = state.tail, 0, 0
        self._store.change(state)
        self._store.run("UPDATE streams SET is_deleted = 1 WHERE id = ?", (state.id,))

    def _forget(self, state: StreamState) -> None:
        """Remove a stream, and the deleted ones it was the last fork of."""
        store = self._store
        while True:
            if state.is_deleted:
                store.gone -= 1
            else:
                store.ended -= 1
            store.forget(state)
            fork = state.config.fork
            if state.parent is None or fork is None:
                return
            parent = store.find(fork.source)
            assert parent is not None
            parent.forks -= 1
            self._release(parent)
            if not parent.is_deleted or parent.forks:
                return
            state = parent

    def hold(self, state: StreamState) -> None:
        """Keep a source's records that a new fork of it shares."""
        assert state.config.fork is not None
        parent = self._store.find(state.config.fork.source)
        assert parent is not None
        parent.forks += 1
        parent.cut = max(parent.cut, state.base)
        parent.is_other_changed = True
        self._store.change(parent)

    def _release(self, parent: StreamState) -> None:
        """Let go of what was held for a fork that is gone now."""
        ask = self._store.ask
        ((held,),) = ask("SELECT max(base) FROM streams WHERE parent = ?", (parent.id,))
        held = max(parent.base, held or 0)
        ((first,),) = ask(
            "SELECT min(position) FROM records WHERE stream = ? AND position > ?", (parent.id, held)
        )
        if first is not None:
            parent.cut = min(parent.cut, max(held, first - 1))
        parent.is_other_changed = True
        self._store.change(parent)

    # sweeping

    def sweep(self, max_streams: int) -> int:
        """Forget what is over and drop what is too old, in at most that many streams."""
        self._write_touches(max_streams, is_all=False)
        names = self._due("over_at", max_streams)
        names += self._due("trim_at", max_streams - len(names))
        self._store.load(names)
        gone = 0
        for name in dict.fromkeys(names):
            state = self._store.find(name)
            if state is None or state.is_deleted:
                continue
            if self._group.is_over(state):
                self.remove(state)
                gone += 1
            else:
                gone += self._retention.trim_by_age(state)
                self._store.change(state)
        self._retention.sweep_rows()
        return gone

    def _due(self, column: str, limit: int) -> list[str]:
        sql = f"SELECT name FROM streams WHERE {column} <= ? ORDER BY {column} LIMIT ?"
        return [row[0] for row in self._store.ask(sql, (self._group.now_ms, max(limit, 0)))]

    def write_all_touches(self) -> None:
        """Write when streams were last used, before the store is closed."""
        self._round = []
        self._write_touches(len(self._group.touched), is_all=True)

    def _write_touches(self, max_streams: int, *, is_all: bool) -> None:
        """Write when streams were last used, where the file says too little."""
        store, touched = self._store, self._group.touched
        is_all = is_all or len(touched) > MAX_TOUCHED
        if not self._round:
            self._round = list(touched)
        some = [self._round.pop() for _ in range(min(max_streams, len(self._round)))]
        store.load(some)
        for name in some:
            state, when = store.find(name), touched.get(name)
            if when is None:
                continue
            if state is not None and state.over_at is not None:
                state.use(milliseconds(when))
                if is_all:
                    state.written_used_at = 0
                elif not state.is_life_changed:
                    continue
                store.change(state)
            self._written.append((name, when))

    def rest(self) -> None:
        """Let streams leave memory that were not asked for; what is not written stays in mind."""
        for state in self._store.rest():
            if state.used_at > state.written_used_at and state.config.ttl_s is not None:
                self._group.touched.setdefault(state.name, state.used_at / 1000)
