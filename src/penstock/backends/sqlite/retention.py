"""How much of a stream is kept: its oldest records go, first for readers, then from the file.

What retention by records and bytes drops is known at the append: the stream's `earliest` moves.
The rows are removed later, at the pace of the appends that made them superfluous or by the sweep,
in steps that take some milliseconds; those that a fork shares stay as long as the fork.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from penstock.backends.sqlite.group import Group
from penstock.backends.sqlite.lineage import FRONT, front
from penstock.backends.sqlite.operations import Trimmed
from penstock.backends.sqlite.state import ROW_BYTES, StreamState, milliseconds

CUT_ROWS: Final = 256
CUT_BYTES: Final = 256 * 1024
"""Rows and bytes of a stream that nobody can read any more, at which they are removed beside the
next appends; fewer wait for the sweep."""
STEP_ROWS: Final = 4_096
"""Rows that one step removes at most: some 5 ms."""
CUT_STREAMS: Final = 8


class Retention:
    """Drops what is too much and what is too old."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._store = group.store

    def expect(self, state: StreamState, before: int) -> None:
        """Note when the sweep is to look at a stream's oldest records, of which `before` were
        there before the newest."""
        age_s = state.config.retention.max_age_s
        if age_s is not None and state.trim_at is None and state.records > 1:
            # Of records that were there before, the age is not known here.
            state.trim_at = self._group.now_ms + (milliseconds(age_s) if not before else 0)

    def trim(self, state: StreamState) -> None:
        """Drop the oldest records above the bounds; the newest always stays."""
        keep = state.config.retention
        if state.bytes <= keep.max_bytes and state.records <= keep.max_records:
            return
        while state.records > 1 and (
            state.bytes > keep.max_bytes or state.records > keep.max_records
        ):
            if not state.front:
                self._read_front(state)
            assert state.front is not None
            _drop(state, state.front.popleft())
        if state.front is not None and len(state.front) > 2 * FRONT:
            state.front, state.is_whole_front = None, False
        self._note_waste(state)

    def _read_front(self, state: StreamState) -> None:
        if state.has_rows or state.is_new:
            self._store.flush()
        oldest = front(self._store.ask, state.place, state.earliest, state.tail)
        state.front = deque(size for size, _ in oldest)
        state.is_whole_front = len(oldest) == state.records

    def trim_by_age(self, state: StreamState) -> int:
        """Drop a stream's records that are too old, some of them; gives how many."""
        age_s = state.config.retention.max_age_s
        if age_s is None:
            return 0
        before, age_ms = state.records, milliseconds(age_s)
        state.front, state.is_whole_front, state.trim_at = None, False, None
        if state.records > 1:
            state.trim_at = self._group.now_ms  # look again, unless a younger one is met
            for size, at in front(self._store.ask, state.place, state.earliest, state.tail):
                if at >= self._group.now_ms - age_ms or state.records == 1:
                    state.trim_at = at + age_ms + 1
                    break
                _drop(state, size)
        if state.records <= 1:
            state.trim_at = None
        self._note_waste(state)
        if state.records < before and self._group.is_watched(state.name):
            self._group.news.append(Trimmed(state.name, state.head()))
        return before - state.records

    def _note_waste(self, state: StreamState) -> None:
        waste = state.stored - state.bytes - ROW_BYTES * state.records
        rows = state.earliest - state.cut
        if rows >= CUT_ROWS or (rows > 0 and waste >= CUT_BYTES and not state.forks):
            self._store.wasteful[state.id] = state

    def tidy(self) -> None:
        """Remove rows that nobody can read, at the pace of the appends that made them so."""
        store, budget = self._store, STEP_ROWS
        for state in list(store.wasteful.values())[:CUT_STREAMS]:
            budget -= store.cut(state, budget)
        if store.has_leftovers and budget == STEP_ROWS:
            store.cut_leftovers(CUT_ROWS)

    def sweep_rows(self) -> None:
        """Remove rows of streams that are appended to no more."""
        store, budget = self._store, STEP_ROWS
        for (name,) in store.ask("SELECT name FROM streams WHERE cut < earliest LIMIT 16"):
            state = store.find(name)
            if state is not None and budget > 0:
                budget -= store.cut(state, budget)
        while store.has_leftovers and budget > 0:
            budget -= max(store.cut_leftovers(budget), 1)


def _drop(state: StreamState, size: int) -> None:
    state.earliest += 1
    state.records -= 1
    state.bytes -= size
