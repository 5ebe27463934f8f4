"""The file of `sqlite://`: its tables, how it is made, and how one that is not ours is refused.

Nothing here changes a file that is there: what is damaged, of somebody else or of a later version
is recognised by its header and by reading, and left byte for byte as it is. A new file is made
under another name and renamed, so that the header of what stands at the path is always whole.

The tables are meant to be read with the `sqlite3` shell. Times are milliseconds since 1970.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from contextlib import closing
from pathlib import Path
from typing import Final
from urllib.parse import quote

from penstock.core.errors import (
    DiskFull,
    PenstockError,
    StoreDamaged,
    StoreFailed,
    StoreForeign,
    StoreLocked,
)

APPLICATION_ID: Final = 0x50454E53
"""`PENS` in the header of every store (SQLite file format 1.3, offset 68)."""
VERSION: Final = 1
"""Of the tables. A later version that changes them checkpoints before anything else, so that the
header tells of it."""
CHECKED_BYTES: Final = 64 * 1024 * 1024
"""Files up to this size are checked when they are opened: a tenth of a second for each 20 MB."""
OPEN_BUSY_S: Final = 1.0
"""How long another process's hold of SQLite's own lock is waited for at opening."""
BUSY_S: Final = 5.0
"""And later: a shell's quick write passes, a forgotten transaction is told of."""

TABLES: Final = """
CREATE TABLE streams (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  content_type TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  earliest INTEGER NOT NULL,        -- what can be read lies after this position
  tail INTEGER NOT NULL,            -- and up to this one
  records INTEGER NOT NULL,
  bytes INTEGER NOT NULL,           -- payloads, types and keys of what can be read
  end_reason TEXT,                  -- NULL while the stream is open
  seq TEXT NOT NULL,                -- the last Stream-Seq
  producers INTEGER NOT NULL,       -- rows in producers
  keep_records INTEGER NOT NULL,
  keep_bytes INTEGER NOT NULL,
  keep_age_s REAL,
  ttl_s INTEGER,
  expires_at REAL,                  -- seconds since 1970, as it was given
  ended_ttl_s REAL,
  is_produced INTEGER NOT NULL,
  ended_at INTEGER,
  used_at INTEGER NOT NULL,
  over_at INTEGER,                  -- when the stream is to be forgotten
  trim_at INTEGER,                  -- when its oldest record is to be forgotten
  fork_of TEXT, fork_epoch INTEGER, fork_position INTEGER, fork_sub INTEGER,
  parent INTEGER,                   -- id of the stream this is a fork of
  base INTEGER NOT NULL,            -- positions up to this one are the parent's records
  forks INTEGER NOT NULL,           -- how many streams have this one as parent
  is_deleted INTEGER NOT NULL,      -- deleted, and kept for its forks' sake
  stored INTEGER NOT NULL,          -- bytes of this stream's own rows in records
  cut INTEGER NOT NULL              -- own rows up to here are gone, or held for forks
);
CREATE INDEX streams_over ON streams (over_at) WHERE over_at IS NOT NULL;
CREATE INDEX streams_trim ON streams (trim_at) WHERE trim_at IS NOT NULL;
CREATE INDEX streams_parent ON streams (parent) WHERE parent IS NOT NULL;
CREATE INDEX streams_waste ON streams (id) WHERE cut < earliest;
CREATE TABLE records (
  stream INTEGER NOT NULL,
  position INTEGER NOT NULL,
  at INTEGER NOT NULL,
  type TEXT NOT NULL,
  "key" TEXT NOT NULL,
  payload BLOB NOT NULL,
  PRIMARY KEY (stream, position)
) WITHOUT ROWID;
CREATE TABLE producers (
  stream INTEGER NOT NULL,
  id TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  tail INTEGER NOT NULL,            -- the stream's, after this producer's last append
  PRIMARY KEY (stream, id)
) WITHOUT ROWID;
CREATE TABLE leftovers (            -- rows of deleted streams that are still to be removed
  stream INTEGER PRIMARY KEY,
  after INTEGER NOT NULL,
  upto INTEGER NOT NULL
);
CREATE TABLE past_epochs (          -- of deleted names, oldest first
  number INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  epoch INTEGER NOT NULL
);
CREATE TABLE documents (
  kind TEXT NOT NULL,
  name TEXT NOT NULL,
  body BLOB NOT NULL,
  PRIMARY KEY (kind, name)
) WITHOUT ROWID;
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('boot', ''), ('is_clean', '1'), ('durability', 'process'), ('floor', '0');
"""


def failure(path: str, error: sqlite3.Error) -> PenstockError:
    """Say in our words what SQLite could not do."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return DiskFull(path)
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StoreDamaged(path, str(error))
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreFailed(path, "another process holds SQLite's lock on it")
    return StoreFailed(path, str(error))


def connect(path: str, *, mode: str = "rw", busy_s: float = BUSY_S) -> sqlite3.Connection:
    """Open a file that is there, without transactions begun behind our back."""
    return sqlite3.connect(
        f"file:{quote(path)}?mode={mode}",
        uri=True,
        timeout=busy_s,
        isolation_level=None,
        check_same_thread=False,
    )


def check_place(path: str) -> None:
    """Refuse a path where no file can be. Raises StoreFailed."""
    file = Path(path)
    if file.is_dir():
        raise StoreFailed(path, "it is a directory; name a file")
    if not file.parent.is_dir():
        raise StoreFailed(path, f"there is no directory {str(file.parent)!r}; make it")


def check_header(path: str) -> bool:
    """Look at a file's first bytes; says whether there is a store.

    Only for who holds the lock: closing a file lets go of every lock of this process on it, those
    of SQLite's connections included (POSIX, fcntl). Raises StoreForeign, StoreDamaged, StoreFailed.
    """
    file, log = Path(path), Path(path + "-wal")
    try:
        if not file.exists() or not file.stat().st_size:
            if log.exists() and log.stat().st_size:
                raise StoreDamaged(path, "it is gone, and its write-ahead log is still there")
            return False
        with file.open("rb") as opened:
            head = opened.read(100)
    except OSError as error:
        raise StoreFailed(path, f"it cannot be read ({error.strerror})") from None
    if not head.startswith(b"SQLite format 3\0") or len(head) < 100:
        raise StoreDamaged(path, "it is not a database")
    version, application = struct.unpack_from(">I4xI", head, 60)
    _refuse_foreign(path, application, version)
    if not os.access(path, os.W_OK):
        raise StoreFailed(path, "it may not be written; give this user the right to")
    return True


def _refuse_foreign(path: str, application: int, version: int) -> None:
    if application != APPLICATION_ID:
        raise StoreForeign(path, "is a database of another program")
    if version > VERSION:
        raise StoreForeign(path, f"has format {version}, and this program knows up to {VERSION}")


def check_content(path: str) -> None:
    """Read a store through, if it is not too large, without changing it.

    Raises StoreForeign, StoreDamaged, StoreLocked, StoreFailed.
    """
    try:
        with closing(connect(path, mode="ro", busy_s=OPEN_BUSY_S)) as connection:
            check_format(path, connection)
            if Path(path).stat().st_size <= CHECKED_BYTES:
                said = [row[0] for row in connection.execute("PRAGMA quick_check(1)")]
                if said != ["ok"]:
                    raise StoreDamaged(path, str(said[0])[:200].replace("\n", " "))
            connection.execute("SELECT count(*) FROM meta").fetchone()
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
            raise StoreLocked(path) from None
        raise failure(path, error) from None


def check_format(path: str, connection: sqlite3.Connection) -> None:
    """Refuse a database of another program or of a later version."""
    ((application,),) = connection.execute("PRAGMA application_id").fetchall()
    ((version,),) = connection.execute("PRAGMA user_version").fetchall()
    _refuse_foreign(path, application, version)


def create_file(path: str) -> None:
    """Make an empty store: written beside, synced, and renamed."""
    side = path + "-new"
    try:
        for leftover in (side, side + "-wal", side + "-shm", side + "-journal"):
            Path(leftover).unlink(missing_ok=True)
        with closing(connect(side, mode="rwc")) as connection:
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version={VERSION}")
            connection.executescript(TABLES)
            connection.execute("PRAGMA journal_mode=WAL")
        if Path(path).exists():  # empty; whoever made it chose who may read it
            Path(side).chmod(Path(path).stat().st_mode & 0o777)
        put_in_place(side, path)
    except sqlite3.Error as error:
        raise failure(path, error) from None
    except OSError as error:
        raise StoreFailed(path, f"it cannot be made ({error.strerror})") from None


def put_in_place(side: str, path: str) -> None:
    """Rename a whole, synced file to its name, for good."""
    descriptor = os.open(side, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    Path(side).rename(path)
    directory = os.open(Path(path).parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
