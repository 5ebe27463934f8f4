"""Opening and closing a `sqlite://` file: who may, and what a process that was killed left behind.

One process at a time, by a lock on a file beside it, which the kernel lets go of with the process.
The file remembers under which boot of the machine and with which durability it was last open, and
whether it was closed: what the log may have lost since decides whether its streams go on in their
epochs.
"""

# ruff: noqa: S608  statements are put together from constants alone; values are always bound

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path
from typing import Final

from penstock.backends.sqlite.schema import (
    BUSY_S,
    OPEN_BUSY_S,
    check_content,
    check_header,
    check_place,
    connect,
    create_file,
    failure,
)
from penstock.backends.sqlite.state import milliseconds
from penstock.core.cursor import next_epoch
from penstock.core.errors import StoreFailed, StoreLocked
from penstock.core.record import EndReason

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
CACHE_KIB: Final = 8_192
LATE_MS: Final = 5_000
"""How long after its time a stream's last use may be written, at most, in a store that works."""


class Lock:
    """The right to a store: held until `release`, or until this process is gone."""

    def __init__(self, path: str) -> None:
        """Raises StoreLocked, StoreFailed."""
        check_place(path)
        self._path = Path(path + "-lock")
        self._is_ours = not self._path.exists()
        try:
            while not self._acquire():
                pass
        except BlockingIOError:
            raise StoreLocked(path) from None
        except OSError as error:
            raise StoreFailed(path, f"its lock file cannot be made ({error.strerror})") from None

    def _acquire(self) -> bool:
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever abandoned the file between the two removed it: its lock is nobody's.
            if os.path.samestat(os.fstat(self._descriptor), self._path.stat()):
                return True
        except FileNotFoundError:
            pass
        except OSError:
            os.close(self._descriptor)
            raise
        os.close(self._descriptor)
        return False

    def release(self) -> None:
        os.close(self._descriptor)

    def abandon(self) -> None:
        """Release it where nothing was opened, and leave nothing beside a file that is not ours."""
        if self._is_ours:
            self._path.unlink(missing_ok=True)
        self.release()


def open_file(path: str, durability: str, now: float) -> sqlite3.Connection:
    """Open a store for writing, or make it; the lock is held.

    Raises StoreLocked, StoreForeign, StoreDamaged, StoreFailed, and DiskFull.
    """
    if check_header(path):
        check_content(path)
    else:
        create_file(path)
    connection = connect(path, busy_s=OPEN_BUSY_S)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA temp_store=MEMORY")
        connection.execute("PRAGMA secure_delete=FAST")
        connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        _take_over(connection, durability, now)
        # In WAL mode NORMAL survives the death of the process, FULL the loss of power.
        if durability != "disk":
            connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(f"PRAGMA busy_timeout={int(BUSY_S * 1000)}")
    except sqlite3.Error as error:
        connection.close()
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
            raise StoreLocked(path) from None
        raise failure(path, error) from None
    return connection


def _take_over(connection: sqlite3.Connection, durability: str, now: float) -> None:
    """Settle what the last process left, in one synced commit: from here on an end that is not a
    clean close will be known as one."""
    run = connection.execute
    run("BEGIN IMMEDIATE")
    meta: dict[str, str] = dict(run("SELECT name, value FROM meta").fetchall())
    boot = boot_id()
    if meta["is_clean"] != "1":
        is_same_boot = boot != "" and meta["boot"] == boot
        may_have_lost = (
            meta["is_clean"] == "copy"  # what the original took after it
            or meta["durability"] == "eager"
            or (meta["durability"] != "disk" and not is_same_boot)
        )
        if may_have_lost:
            run("UPDATE streams SET epoch = max(epoch + 1, ?)", (next_epoch(now),))
        _make_up_for_lag(connection)
    _end_lost(connection, milliseconds(now))
    news = {"is_clean": "0", "boot": boot, "durability": durability}
    for name, value in news.items():
        run("UPDATE meta SET value = ? WHERE name = ?", (value, name))
    run("COMMIT")


def _make_up_for_lag(connection: sqlite3.Connection) -> None:
    """Uses of a stream may not have been written: it may live longer, never shorter."""
    late = f"(max(1000, coalesce(ttl_s, 0) * 100) + {LATE_MS})"
    connection.execute(
        f"UPDATE streams SET used_at = used_at + {late}, ended_at = ended_at + {LATE_MS},"
        f" over_at = min(over_at + {late}, coalesce(expires_at * 1000 + 1, over_at + {late}))"
        " WHERE over_at IS NOT NULL"
    )


def _end_lost(connection: sqlite3.Connection, now_ms: int) -> None:
    """End the streams whose producers went with the last process."""
    over_at = "?2 + cast(ended_ttl_s * 1000 AS INTEGER) + 1"
    connection.execute(
        "UPDATE streams SET end_reason = ?1, ended_at = ?2, over_at = CASE"
        " WHEN ended_ttl_s IS NULL THEN over_at"
        f" WHEN over_at IS NULL THEN {over_at} ELSE min(over_at, {over_at}) END"
        " WHERE is_produced AND end_reason IS NULL",
        (EndReason.LOST, now_ms),
    )


def mark_clean(connection: sqlite3.Connection) -> None:
    """Say that the store was closed, for good: synced with everything before it."""
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("UPDATE meta SET value = '1' WHERE name = 'is_clean'")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def boot_id() -> str:
    """Name this run of the machine; empty where it cannot be told from others."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""
