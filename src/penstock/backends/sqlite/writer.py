"""The one thread that writes a `sqlite://` file.

The event loop puts operations into a queue and never waits for a disk; this thread takes everything
that waits, judges it, commits it at once and tells the loop, at once too. A group is committed
whenever the writer is free: nothing is held back for more to come. The queue is bounded by whoever
fills it (`backend.SqliteBackend`).

With `eager` the loop is told of records before their commit; when that fails, their streams go on
in a later epoch.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Container, MutableMapping, Sequence
from queue import Empty, SimpleQueue
from typing import Final, Literal

from penstock.backends.interface import Counted
from penstock.backends.sqlite.checkpoint import Checkpointer
from penstock.backends.sqlite.group import Group
from penstock.backends.sqlite.judge import Judge
from penstock.backends.sqlite.opening import Lock, mark_clean, open_file
from penstock.backends.sqlite.operations import (
    Append,
    Close,
    Committed,
    Create,
    Ended,
    Look,
    News,
    Operation,
    Outcome,
    Report,
    Restarted,
)
from penstock.backends.sqlite.schema import failure
from penstock.backends.sqlite.store import Store
from penstock.core.cursor import next_epoch
from penstock.core.errors import PenstockError, StoreFailed
from penstock.core.limits import GROUP_RECORDS
from penstock.core.log import Head

logger = logging.getLogger("penstock")
IDLE_S: Final = 1.0
"""How often a writer with nothing to do looks whether its event loop is still there."""
Durability = Literal["process", "disk", "eager"]


class _LoopGone(Exception):
    """The event loop was closed before the store was."""


class Writer:
    """A thread, and the queue before it.

    `beat` is called whenever the thread has waited for SQLite; `opened` once, with what went wrong
    or None; `reported` after each group. `reported` says whether anybody listens still, and so
    does `is_heard`. All in the writer's thread.
    """

    def __init__(
        self,
        path: str,
        durability: Durability,
        wall_clock: Callable[[], float],
        *,
        touched: MutableMapping[str, float],
        watched: Container[str],
        max_streams: int,
        max_bytes: int,
        max_pages: int | None,
        beat: Callable[[], None],
        opened: Callable[[PenstockError | None], object],
        reported: Callable[[Report], bool],
        is_heard: Callable[[], bool],
    ) -> None:
        self.queue = SimpleQueue[Operation]()
        self._path, self._durability, self._wall_clock = path, durability, wall_clock
        self._touched, self._watched = touched, watched
        self._max_streams, self._max_bytes, self._max_pages = max_streams, max_bytes, max_pages
        self._beat, self._opened, self._reported = beat, opened, reported
        self._is_heard = is_heard
        self._commits = 0
        self._thread = threading.Thread(target=self._run, name="penstock-writer", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait for the thread's end, which is near after a `Close`."""
        self._thread.join()

    def _run(self) -> None:
        try:
            lock = self._open()
        except PenstockError as error:
            self._opened(error)
            return
        try:
            self._opened(None)
            self._report([], [])
            while True:
                group = self._take()
                self._do(group)
                if isinstance(group[-1], Close):
                    self._close()
                    lock.release()
                    self._report([], [Outcome(group[-1], None)])
                    return
                if self._checkpointer.is_behind:
                    self._help_checkpoint()
        except _LoopGone:
            # The event loop is gone, and with it everybody who could be told. What was committed
            # is; the next to open the file sees that it was not closed.
            self._checkpointer.close()
            self._store.connection.close()
            lock.release()

    def _open(self) -> Lock:
        lock = Lock(self._path)
        try:
            connection = open_file(self._path, self._durability, self._wall_clock())
            if self._max_pages is not None:
                connection.execute(f"PRAGMA max_page_count={self._max_pages}")
            self._store = Store(connection, self._beat)
        except PenstockError:
            lock.abandon()
            raise
        except sqlite3.Error as error:
            lock.abandon()
            raise failure(self._path, error) from None
        group = Group(self._store, self._wall_clock, self._touched, self._watched)
        self._judge = Judge(group, self._max_streams, self._max_bytes)
        self._checkpointer = Checkpointer(self._path)
        return lock

    def _take(self) -> list[Operation]:
        """Wait for an operation, and take all that wait with it, up to a group's bound."""
        queue = self.queue
        operation = self._next()
        group, records = [operation], 0
        while True:
            if isinstance(operation, Close):
                return group
            records += len(operation.batch) if isinstance(operation, Append) else 1
            if records >= GROUP_RECORDS or queue.empty():
                return group
            operation = queue.get()
            group.append(operation)

    def _next(self) -> Operation:
        while True:
            try:
                return self.queue.get(timeout=IDLE_S)
            except Empty:
                if not self._is_heard():
                    raise _LoopGone from None

    def _do(self, group: Sequence[Operation]) -> None:
        shown: Sequence[News] = ()
        try:
            self._judge.begin(group)
            outcomes = [self._apply(op) for op in group if not isinstance(op, Close)]
            news: Sequence[News] = self._judge.group.news
            if self._store.has_changes or self._store.raised:
                if self._durability == "eager":
                    shown = [item for item in news if isinstance(item, (Committed, Ended))]
                    news = [item for item in news if not isinstance(item, (Committed, Ended))]
                    self._report(shown, [])
                self._commit(group)
            self._judge.settle()
        except sqlite3.Error as error:
            self._fail(group, failure(self._path, error), shown)
        except _LoopGone:
            raise
        except Exception as error:  # the thread's edge: nobody else would hear of it
            logger.exception("a group of %d operations on %r failed", len(group), self._path)
            self._fail(group, StoreFailed(self._path, f"a fault of ours ({error})"), shown)
        else:
            self._report(news, outcomes)

    def _apply(self, operation: Operation) -> Outcome:
        try:
            return Outcome(operation, self._judge.apply(operation))
        except PenstockError as error:
            return Outcome(operation, None, error)

    def _commit(self, group: Sequence[Operation]) -> None:
        store = self._store
        store.write_raised()
        pages = 2 * store.changed + sum([operation.size for operation in group]) // 4096 + 3
        store.commit()
        if any(isinstance(operation, (Append, Create)) for operation in group):
            self._commits += 1
        self._checkpointer.note(pages)

    def _fail(
        self, group: Sequence[Operation], error: PenstockError, shown: Sequence[News]
    ) -> None:
        """Take a group back; who only looks is served all the same."""
        self._roll_back()
        lost: dict[str, News] = {}
        for item in shown:
            lost.setdefault(item.name, item)
        news = [self._restart(item) for item in lost.values()]
        try:
            self._judge.begin([operation for operation in group if isinstance(operation, Look)])
            outcomes = [
                self._apply(op) if isinstance(op, Look) else Outcome(op, None, error)
                for op in group
                if not isinstance(op, Close)
            ]
        except sqlite3.Error:
            outcomes = [Outcome(op, None, error) for op in group if not isinstance(op, Close)]
        self._roll_back()
        self._report(news, outcomes)

    def _restart(self, lost: News) -> Restarted:
        """Begin a later epoch of a stream, from where it was before this was shown."""
        now = self._wall_clock()
        try:
            state = self._store.raise_epoch(lost.name, now)
        except sqlite3.Error:
            state = None
        if state is not None:
            return Restarted(lost.name, state.head())
        head = lost.head
        epoch = self._store.raised[lost.name] = next_epoch(now, head.epoch)
        first = lost.first if isinstance(lost, Committed) else head.tail
        earliest = min(head.earliest, first)
        return Restarted(lost.name, Head(epoch, earliest, first, first - earliest, head.bytes))

    def _roll_back(self) -> None:
        try:
            self._store.roll_back()
        except sqlite3.Error as error:
            logger.warning("rolling back %r: %s", self._path, error)

    def _report(self, news: Sequence[News], outcomes: Sequence[Outcome]) -> None:
        store = self._store
        running = store.streams - store.gone - store.ended
        counts = Counted(running, store.ended, store.stored, self._commits)
        if not self._reported(Report(news, outcomes, counts)):
            raise _LoopGone

    def _help_checkpoint(self) -> None:
        try:
            self._checkpointer.help(self._store.connection)
        except sqlite3.Error as error:
            logger.warning("checkpoint of %r failed: %s", self._path, error)

    def _close(self) -> None:
        self._checkpointer.close()
        connection = self._store.connection
        try:
            self._judge.begin([])
            self._judge.leaving.write_all_touches()
            self._store.write_raised()
            self._store.commit()
            mark_clean(connection)
        except sqlite3.Error as error:
            # What was acknowledged is committed; the next opening takes this for a crash.
            logger.warning("closing %r: %s", self._path, error)
        connection.close()
