"""A copy of a `sqlite://` file, consistent as of one moment, while a server goes on writing it.

The copy is read from one snapshot, in steps, written under another name, checked, and only then
given its own. It opens as a store that was closed.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from penstock.backends.sqlite.schema import (
    check_content,
    check_format,
    check_place,
    connect,
    failure,
    put_in_place,
)
from penstock.core.errors import SettingInvalid, StoreDamaged, StoreFailed

STEP_PAGES: Final = 1_024
COPY: Final = "copy"
"""What stands for a clean close in a copy."""


def backup(path: str, target: str) -> None:
    """Copy the store at `path` to `target`, which must not be there. Blocks; O(size).

    Raises SettingInvalid for a target that is there; DiskFull, StoreFailed, StoreForeign and
    StoreDamaged for what cannot be read or written. A copy that failed leaves nothing behind.
    """
    if not Path(path).is_file():
        raise StoreFailed(path, "there is no store")
    check_place(target)
    if Path(target).exists():
        raise SettingInvalid("target", f"names {target!r}, which is there; name another file")
    side = f"{target}-new"
    try:
        _clear(side)
        _copy(path, side, target)
        try:
            check_content(side)
        except StoreDamaged as error:  # a copy is as whole as its source
            raise StoreDamaged(path, error.reason) from None
        put_in_place(side, target)
    except OSError as error:
        raise StoreFailed(target, f"it cannot be written ({error.strerror})") from None
    finally:
        _clear(side)


def _copy(path: str, side: str, target: str) -> None:
    try:
        with closing(connect(path, mode="ro")) as reading:
            # One transaction over all steps: appends meanwhile neither show nor begin it anew.
            reading.execute("BEGIN")
            check_format(path, reading)
            reading.execute("SELECT count(*) FROM meta").fetchone()
            _write(reading, side, target)
    except sqlite3.Error as error:
        raise failure(path, error) from None


def _write(reading: sqlite3.Connection, side: str, target: str) -> None:
    try:
        with closing(connect(side, mode="rwc")) as writing:
            reading.backup(writing, pages=STEP_PAGES, sleep=0)
            writing.execute("PRAGMA synchronous=FULL")
            # Not '1': what follows in the store follows otherwise in a copy that is put in its
            # place, so a copy's first opening begins a later epoch.
            writing.execute("UPDATE meta SET value = ? WHERE name = 'is_clean'", (COPY,))
            writing.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    except sqlite3.Error as error:
        raise failure(target, error) from None


def _clear(side: str) -> None:
    for leftover in (side, f"{side}-wal", f"{side}-shm", f"{side}-journal"):
        Path(leftover).unlink(missing_ok=True)
