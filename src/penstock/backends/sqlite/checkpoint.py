"""Moving what is committed from the write-ahead log into the file, beside the commits.

A checkpoint waits for the disk; done in the writer's thread it would stall every append for that
long. So it has a thread and a connection of its own. Under appends without a pause it never catches
up wholly, and only a log that is caught up with begins again at its start: when that has become
too large, the writer does the little that is left itself.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from contextlib import closing
from typing import Final

from penstock.backends.sqlite.schema import connect

logger = logging.getLogger("penstock")
PAGES: Final = 4_096
"""Pages written between two checkpoints: 16 MiB."""
MAX_PAGES: Final = 16_384
"""Pages of the write-ahead log above which the writer helps: 64 MiB."""


class Checkpointer:
    """Checkpoints one store when it is told to."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._wanted = threading.Event()
        self._is_closing = False
        self._written = 0
        self.is_behind = False
        self._thread = threading.Thread(target=self._run, name="penstock-checkpoint", daemon=True)
        self._thread.start()

    def note(self, pages: int) -> None:
        """Count pages that were written, about."""
        self._written += pages
        if self._written >= PAGES:
            self._written = 0
            self._wanted.set()

    def close(self) -> None:
        self._is_closing = True
        self._wanted.set()
        self._thread.join()

    def help(self, connection: sqlite3.Connection) -> None:
        """Do the rest with the writer's own connection, when no append can come between."""
        self.is_behind = False
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def _run(self) -> None:
        try:
            with closing(connect(self._path)) as connection:
                connection.execute("PRAGMA cache_size=-256")
                while True:
                    self._wanted.wait()
                    self._wanted.clear()
                    if self._is_closing:
                        return
                    self._checkpoint(connection)
        except sqlite3.Error:
            logger.warning("no checkpoint of %r: it grows until it is closed", self._path)

    def _checkpoint(self, connection: sqlite3.Connection) -> None:
        try:
            ((_, pages, _),) = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            self.is_behind = pages > MAX_PAGES
        except sqlite3.Error as error:
            # The commits are safe in the log, and the next attempt takes these along.
            logger.warning("checkpoint of %r failed: %s", self._path, error)
