# ruff: noqa: S608  statements are put together from constants alone; values are always bound
"""The rows of one commit, given to SQLite in as few statements as there can be, at best one.

Rows of all tables go into a temporary view, whose triggers put each where it belongs. Python gives
its lock away at every step of a statement, and beside a busy event loop it takes up to 5 ms to get
it back: 256 records and 100 heads took 24 ms in four statements there, and 10 ms in this one.

Statements come in lengths of powers of two, so that SQLite parses few of them; the rows that are
missing are empty, and no trigger takes them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from typing import Any, Final

from penstock.backends.sqlite.state import COLUMN_COUNT, COLUMNS, StreamState
from penstock.core.producer import Stamp

MAX_ROWS: Final = 4_096
_WIDTH: Final = 7
_RECORD, _HEAD, _PRODUCER, _LIFE, _OTHER = range(1, 6)
_FORGET, _CUT, _LEAVE, _LEFT, _PAST = range(1, 6)

VIEWS: Final = f"""
CREATE TEMP VIEW changes AS SELECT 0 AS kind, 0 AS id, 0 AS a, 0 AS b, 0 AS c, 0 AS d, 0 AS e;
CREATE TEMP TRIGGER of_record INSTEAD OF INSERT ON changes WHEN new.kind = {_RECORD} BEGIN
  INSERT INTO records VALUES (new.id, new.a, new.b, new.c, new.d, new.e);
END;
CREATE TEMP TRIGGER of_head INSTEAD OF INSERT ON changes WHEN new.kind = {_HEAD} BEGIN
  UPDATE streams SET earliest = new.a, tail = new.b, records = new.c, bytes = new.d,
    stored = new.e WHERE id = new.id;
END;
CREATE TEMP TRIGGER of_producer INSTEAD OF INSERT ON changes WHEN new.kind = {_PRODUCER} BEGIN
  INSERT OR REPLACE INTO producers VALUES (new.id, new.a, new.b, new.c, new.d);
END;
CREATE TEMP TRIGGER of_life INSTEAD OF INSERT ON changes WHEN new.kind = {_LIFE} BEGIN
  UPDATE streams SET end_reason = new.a, ended_at = new.b, used_at = new.c, over_at = new.d,
    trim_at = new.e WHERE id = new.id;
END;
CREATE TEMP TRIGGER of_other INSTEAD OF INSERT ON changes WHEN new.kind = {_OTHER} BEGIN
  UPDATE streams SET seq = new.a, producers = new.b, epoch = new.c, cut = new.d, forks = new.e
    WHERE id = new.id;
END;
CREATE TEMP VIEW removals AS SELECT 0 AS kind, 0 AS id, 0 AS a, 0 AS b;
CREATE TEMP TRIGGER of_forget INSTEAD OF INSERT ON removals WHEN new.kind = {_FORGET} BEGIN
  DELETE FROM streams WHERE id = new.id;
  DELETE FROM producers WHERE stream = new.id;
END;
CREATE TEMP TRIGGER of_cut INSTEAD OF INSERT ON removals WHEN new.kind = {_CUT} BEGIN
  DELETE FROM records WHERE stream = new.id AND position > new.a AND position <= new.b;
END;
CREATE TEMP TRIGGER of_leave INSTEAD OF INSERT ON removals WHEN new.kind = {_LEAVE} BEGIN
  INSERT OR REPLACE INTO leftovers VALUES (new.id, new.a, new.b);
END;
CREATE TEMP TRIGGER of_left INSTEAD OF INSERT ON removals WHEN new.kind = {_LEFT} BEGIN
  DELETE FROM leftovers WHERE stream = new.id;
END;
CREATE TEMP TRIGGER of_past INSTEAD OF INSERT ON removals WHEN new.kind = {_PAST} BEGIN
  INSERT OR REPLACE INTO past_epochs (name, epoch) VALUES (new.id, new.a);
END;
"""


class Rows:
    """What is gathered for the next statements."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        connection.executescript(VIEWS)
        variables = connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)
        self._most = min(1 << (variables // _WIDTH).bit_length() - 1, MAX_ROWS)
        self._records: list[Any] = []
        self._producers: dict[tuple[int, str], tuple[int, int, int]] = {}
        self._removals: list[Any] = []
        self._statements: dict[tuple[str, int], str] = {}

    # gathering

    def add_record(
        self, state: StreamState, position: int, at: int, type: str, key: str, payload: bytes
    ) -> None:
        self._records += (_RECORD, state.id, position, at, type, key, payload)
        state.has_rows = True

    def add_producer(self, state: StreamState, stamp: Stamp) -> None:
        self._producers[state.id, stamp.producer] = (stamp.epoch, stamp.seq, state.tail)

    def forget(self, state: StreamState) -> None:
        """A stream's row and its producers', and remember its epoch."""
        self._removals += (_FORGET, state.id, 0, 0, _PAST, state.name, state.epoch, 0)

    def cut(self, id: int, after: int, upto: int) -> None:
        """Records between two positions."""
        self._removals += (_CUT, id, after, upto)

    def leave(self, id: int, after: int, upto: int) -> None:
        """Remember what is still to be cut of a stream that is gone."""
        if after < upto:
            self._removals += (_LEAVE, id, after, upto)
        else:
            self._removals += (_LEFT, id, 0, 0)

    @property
    def has_removals(self) -> bool:
        return bool(self._removals)

    def clear(self) -> None:
        self._records, self._removals = [], []
        self._producers.clear()

    # writing

    def is_one_statement(self, changed: Collection[StreamState]) -> bool:
        """Whether writing these is a transaction by itself."""
        if self._removals or any(state.is_new for state in changed):
            return False
        rows = len(self._records) // _WIDTH + 3 * len(changed) + len(self._producers)
        return rows <= self._most

    def write(self, changed: Collection[StreamState]) -> None:
        """Put what was gathered, and the rows of these streams, into the file."""
        if self._removals:
            removals, self._removals = self._removals, []
            self._insert("removals", 4, removals)
        created = [state for state in changed if state.is_new]
        if created:
            new = [value for state in created for value in state.row()]
            self._insert(f"streams ({COLUMNS})", COLUMN_COUNT, new, is_padded=False)
        rows, self._records = self._records, []
        for state in changed:
            _add_changes(state, rows)
        for (id, producer), (epoch, seq, tail) in self._producers.items():
            rows += (_PRODUCER, id, producer, epoch, seq, tail, None)
        self._producers.clear()
        if rows:
            self._insert("changes", _WIDTH, rows)

    def _insert(self, into: str, width: int, rows: list[Any], *, is_padded: bool = True) -> None:
        most = self._most * _WIDTH // width
        for start in range(0, len(rows), most * width):
            some = rows[start : start + most * width] if len(rows) > most * width else rows
            count = len(some) // width
            if is_padded:
                count = min(1 << (count - 1).bit_length(), most)
                some += [None] * (count * width - len(some))
            self._connection.execute(self._statement(into, width, count), some)

    def _statement(self, into: str, width: int, count: int) -> str:
        sql = self._statements.get((into, count))
        if sql is None:
            row = f"({','.join('?' * width)})"
            sql = f"INSERT INTO {into} VALUES {','.join([row] * count)}"
            if count & (count - 1) == 0:
                self._statements[into, count] = sql
        return sql


def _add_changes(state: StreamState, rows: list[Any]) -> None:
    """What of a stream's row is to change."""
    if state.is_new:
        state.note_written()
    else:
        rows += (_HEAD, state.id, state.earliest, state.tail, state.records)
        rows += (state.bytes, state.stored)
        if state.is_life_changed:
            rows += (_LIFE, state.id, state.end, state.ended_at, state.used_at)
            rows += (state.over_at, state.trim_at)
            state.note_written()
        if state.is_other_changed:
            rows += (_OTHER, state.id, state.seq, state.producers, state.epoch)
            rows += (state.cut, state.forks)
    state.is_new = state.is_other_changed = state.has_rows = False
