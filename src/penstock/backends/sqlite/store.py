# ruff: noqa: S608  statements are put together from constants alone; values are always bound
"""The writer's side of a `sqlite://` file: what is known of its streams, and one commit at a time.

A commit gathers changes (`rows`) and writes them together. Whatever is asked of the file in the
middle of one sees what was gathered before. A commit that fails is forgotten, with everything that
was known of the streams it changed.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from penstock.backends.sqlite.rows import Rows
from penstock.backends.sqlite.state import COLUMNS as STREAM
from penstock.backends.sqlite.state import ROW_BYTES, StreamState
from penstock.core.cursor import next_epoch
from penstock.core.limits import MAX_PRODUCERS, OPEN_LOGS
from penstock.core.producer import Stamp

_T = TypeVar("_T")
PAST_EPOCHS: Final = 10_000
"""Deleted names whose epoch is remembered."""
CUT_AT_ONCE: Final = 512
"""Records that are removed together with their stream; of more, the rest goes step by step."""
KNOWN_PRODUCERS: Final = 256
"""Producers of a stream that stay in memory after a commit."""
ASKED_AT_ONCE: Final = 256


class Numbers(NamedTuple):
    """What is known of all streams together: how many there are, deleted ones with forks and ended
    ones among them, the bytes of their records; past epochs, the floor under all others."""

    streams: int
    gone: int
    ended: int
    stored: int
    past: int
    floor: int
    has_leftovers: bool


class Store:
    """The streams of one file. Belongs to the writer's thread."""

    def __init__(self, connection: sqlite3.Connection, beat: Callable[[], None]) -> None:
        self.connection = connection
        self.rows = Rows(connection)
        self._beat = beat
        self.next_id = 0
        self._committed = self._count()
        self.restore(self._committed)
        self.wasteful: dict[int, StreamState] = {}
        self.raised: dict[str, int] = {}  # epochs that are to be written with the next commit
        self._cache: OrderedDict[str, StreamState] = OrderedDict()
        self._absent: set[str] = set()
        self._past_epochs: dict[str, int] = {}
        self._touched: dict[int, StreamState] = {}  # changed since the last flush
        self._in_commit: dict[str, StreamState] = {}  # changed since the last commit

    def _count(self) -> Numbers:
        ask = self.connection.execute
        streams, gone, ended, stored, top = ask(
            "SELECT count(*), coalesce(sum(is_deleted), 0),"
            " count(CASE WHEN NOT is_deleted THEN end_reason END),"
            " coalesce(sum(stored), 0), coalesce(max(id), 0) FROM streams"
        ).fetchone()
        (left,) = ask("SELECT coalesce(max(stream), 0) FROM leftovers").fetchone()
        (past,) = ask("SELECT count(*) FROM past_epochs").fetchone()
        (floor,) = ask("SELECT CAST(value AS INTEGER) FROM meta WHERE name = 'floor'").fetchone()
        self.next_id = max(top, left) + 1
        return Numbers(streams, gone, ended, stored, past, floor, left > 0)

    def restore(self, numbers: Numbers) -> None:
        self.streams, self.gone, self.ended, self.stored = numbers[:4]
        self.past, self.floor, self.has_leftovers = numbers[4:]

    def numbers(self) -> Numbers:
        return Numbers(
            *(self.streams, self.gone, self.ended, self.stored),
            *(self.past, self.floor, self.has_leftovers),
        )

    # knowing

    def begin(self) -> None:
        """Begin a group: what is not there may have been asked for a group ago, and often."""
        self._absent.clear()
        self._past_epochs.clear()

    def find(self, name: str) -> StreamState | None:
        """The stream of a name, deleted ones with forks included."""
        state = self._cache.get(name)
        if state is None:
            if name in self._absent:
                return None
            self.load([name])
            return self._cache.get(name)
        self._cache.move_to_end(name)
        return state

    def load(self, names: Iterable[str]) -> None:
        """Read the streams of these names, so that finding them asks for nothing."""
        unknown = [
            n for n in dict.fromkeys(names) if n not in self._cache and n not in self._absent
        ]
        for some in _parts(unknown):
            sql = f"SELECT {STREAM} FROM streams WHERE name IN ({_marks(some)})"
            for row in self.ask(sql, some):
                self._remember(StreamState.of_row(row))
            self._absent.update(name for name in some if name not in self._cache)

    def _remember(self, state: StreamState) -> None:
        self._cache[state.name] = state
        epoch = self.raised.get(state.name, 0)
        if epoch > state.epoch:
            state.epoch = epoch
            state.is_other_changed = True

    def load_producers(self, wanted: Iterable[tuple[StreamState, str]]) -> None:
        """Read what is kept of these producers into their streams' gates."""
        unknown = {
            (state.id, producer): state
            for state, producer in wanted
            if state.producers and not state.open_gate().knows(producer)
        }
        for some in _parts(list(unknown)):
            sql = (
                "SELECT stream, id, epoch, seq FROM producers WHERE (stream, id) IN"
                f" (VALUES {_marks(some, '(?,?)')})"
            )
            for stream, producer, epoch, seq in self.ask(sql, [v for pair in some for v in pair]):
                unknown[stream, producer].open_gate().restore(Stamp(producer, epoch, seq))

    def load_past_epochs(self, names: Iterable[str]) -> None:
        """Read the epochs of deleted streams of these names, where there is none now."""
        for some in _parts([name for name in names if name in self._absent] if self.past else []):
            sql = f"SELECT name, epoch FROM past_epochs WHERE name IN ({_marks(some)})"
            self._past_epochs.update(self.ask(sql, some))

    def past_epoch(self, name: str) -> int:
        """The latest epoch that a deleted stream of this name, which was loaded, may have had."""
        return max(self.floor, self._past_epochs.get(name, 0))

    def ask(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """Ask the file, which then knows everything that was gathered."""
        self.flush()
        found = self.connection.execute(sql, values).fetchall()
        self._beat()
        return found

    # changing

    def add(self, state: StreamState) -> None:
        """Begin a stream."""
        self._absent.discard(state.name)
        self._cache[state.name] = state
        self.streams += 1
        self.change(state)

    def change(self, state: StreamState) -> None:
        """Write a stream's row with this commit."""
        self._touched[state.id] = state
        self._in_commit[state.name] = state

    def add_producer(self, state: StreamState, stamp: Stamp, *, is_new: bool) -> None:
        """Remember a producer's append with the stream."""
        self.rows.add_producer(state, stamp)
        if is_new:
            state.producers += 1
            state.is_other_changed = True

    def forget(self, state: StreamState) -> None:
        """Remove a stream's row, and its records now or step by step."""
        if state.has_rows or state.is_new:
            self.flush()
        self._in_commit[state.name] = state
        self._touched.pop(state.id, None)
        self.wasteful.pop(state.id, None)
        self._cache.pop(state.name, None)
        self._absent.add(state.name)
        self.streams -= 1
        self.stored -= state.stored
        self.rows.forget(state)
        self.past += 1
        self._past_epochs[state.name] = state.epoch
        if state.tail - state.base <= CUT_AT_ONCE:
            self.rows.cut(state.id, state.base, state.tail)
        else:
            self.rows.leave(state.id, state.base, state.tail)
            self.has_leftovers = True

    def cut(self, state: StreamState, max_rows: int) -> int:
        """Remove rows that nobody can read any more; gives how many there were at most."""
        after, upto = state.cut, min(state.earliest, state.cut + max_rows)
        if upto <= after:
            return 0
        if state.has_rows or state.is_new:
            self.flush()
        ((freed,),) = self.connection.execute(
            f"SELECT coalesce(sum(length(payload) + length(type) + length(key) + {ROW_BYTES}), 0)"
            " FROM records WHERE stream = ? AND position > ? AND position <= ?",
            (state.id, after, upto),
        ).fetchall()
        self.rows.cut(state.id, after, upto)
        state.cut = upto
        state.stored -= freed
        self.stored -= freed
        state.is_other_changed = True
        self.change(state)
        if upto == state.earliest:
            self.wasteful.pop(state.id, None)
        return upto - after

    def cut_leftovers(self, max_rows: int) -> int:
        """Remove rows of a stream that is gone; gives how many there were at most."""
        found = self.ask("SELECT stream, after, upto FROM leftovers LIMIT 1")
        if not found:
            self.has_leftovers = False
            return 0
        ((stream, after, upto),) = found
        stop = min(upto, after + max_rows)
        self.rows.cut(stream, after, stop)
        self.rows.leave(stream, stop, upto)
        return stop - after

    def run(self, sql: str, values: Sequence[Any] = ()) -> None:
        """Change the file in this commit, by a statement of its own."""
        self.flush()
        self._begin()
        self.connection.execute(sql, values)

    def raise_epoch(self, name: str, now_s: float) -> StreamState | None:
        """Begin a later epoch of a stream that lost what was shown; written when it can be."""
        state = self.find(name)
        if state is not None:
            state.epoch = self.raised[name] = next_epoch(now_s, state.epoch)
            state.is_other_changed = True
        return state

    def write_raised(self) -> None:
        """Write the epochs that could not be yet."""
        for name in list(self.raised):
            state = self.find(name)
            if state is None:
                del self.raised[name]
            else:
                self.change(state)

    # committing

    @property
    def changed(self) -> int:
        """Streams that the commit to come changes."""
        return len(self._in_commit)

    @property
    def has_changes(self) -> bool:
        return bool(self._in_commit or self.rows.has_removals or self.connection.in_transaction)

    def flush(self) -> None:
        """Put into the file what was gathered; it is not committed yet."""
        if self._touched or self.rows.has_removals:
            self._begin()
            self._write()

    def commit(self) -> None:
        """Commit what was gathered. When it fails, `roll_back`."""
        self._bound_memories()
        if not self.rows.is_one_statement(self._touched.values()):
            self._begin()
        if self._touched or self.rows.has_removals:
            self._write()
        if self.connection.in_transaction:
            self.connection.execute("COMMIT")
        for state in self._in_commit.values():
            if state.producers > KNOWN_PRODUCERS:
                state.close_gate()
        self.raised = {n: e for n, e in self.raised.items() if n not in self._in_commit}
        self._committed = self.numbers()
        self._clear()

    def roll_back(self) -> None:
        """Forget what was gathered, and what was known of the streams it changed."""
        for name, state in self._in_commit.items():
            self._cache.pop(name, None)
            self.wasteful.pop(state.id, None)
        self.rows.clear()
        self._touched.clear()
        self.restore(self._committed)
        self._clear()
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    def rest(self) -> Iterator[StreamState]:
        """Let go of the streams that were asked for longest ago, above the bound."""
        while len(self._cache) > OPEN_LOGS:
            yield self._cache.popitem(last=False)[1]

    def _begin(self) -> None:
        if not self.connection.in_transaction:
            self.connection.execute("BEGIN IMMEDIATE")
            self._beat()

    def _write(self) -> None:
        touched, self._touched = self._touched, {}
        self.rows.write(touched.values())
        self._beat()

    def _clear(self) -> None:
        self._in_commit.clear()
        self.begin()

    def _bound_memories(self) -> None:
        """Let go of the oldest names' epochs, and of the producers that came longest ago; of a
        tenth at once, so that it costs little."""
        if self.past > PAST_EPOCHS * 11 // 10:
            ((count,),) = self.ask("SELECT count(*) FROM past_epochs")
            if count > PAST_EPOCHS:
                self._bound_past_epochs(count - PAST_EPOCHS)
            self.past = min(count, PAST_EPOCHS)
        for state in list(self._in_commit.values()):
            if state.producers > MAX_PRODUCERS * 11 // 10:
                self._bound_producers(state)

    def _bound_past_epochs(self, extra: int) -> None:
        oldest = "FROM past_epochs ORDER BY number LIMIT ?"
        ((top,),) = self.ask(f"SELECT max(epoch) FROM (SELECT epoch {oldest})", (extra,))
        self.floor = max(self.floor, top)
        self.run(f"DELETE FROM past_epochs WHERE number IN (SELECT number {oldest})", (extra,))
        self.run("UPDATE meta SET value = ? WHERE name = 'floor'", (str(self.floor),))

    def _bound_producers(self, state: StreamState) -> None:
        self.run(
            "DELETE FROM producers WHERE stream = ?1 AND id IN"
            " (SELECT id FROM producers WHERE stream = ?1 ORDER BY tail LIMIT ?2)",
            (state.id, state.producers - MAX_PRODUCERS),
        )
        state.producers = MAX_PRODUCERS
        state.close_gate()
        state.is_other_changed = True
        self.change(state)


def _parts(values: list[_T]) -> Iterator[list[_T]]:
    """Cut a list into parts of few different lengths: the last value is repeated where needed."""
    for start in range(0, len(values), ASKED_AT_ONCE):
        some = values[start : start + ASKED_AT_ONCE]
        yield some + some[-1:] * ((1 << (len(some) - 1).bit_length()) - len(some))


def _marks(values: Sequence[object], mark: str = "?") -> str:
    return ",".join([mark] * len(values))
