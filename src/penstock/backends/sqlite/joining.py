"""Payloads of a `sqlite://` file put together by SQLite itself: what a catch-up response carries.

Workload: a late joiner of 100,000 records of 100 bytes. Making a record of each and joining their
payloads costs 3 µs a record; here SQLite glues them in one step, 0.6 with the look at their sizes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import accumulate, takewhile
from typing import Any, Final

from penstock.backends.interface import Joined
from penstock.backends.sqlite.lineage import Place, segments

_STREAM: Final = (
    "SELECT id, earliest, tail, base, parent, is_deleted, over_at, bytes / max(records, 1)"
    " FROM streams WHERE name = ?"
)
_SIZES: Final = """
SELECT min(position), group_concat(size) FROM (
  SELECT position, length(payload) AS size FROM records
  WHERE stream = ? AND position > ? AND position <= ? ORDER BY position LIMIT ?
)
"""
_GLUED: Final = """
SELECT count(*), CAST(group_concat(payload, ?4) AS BLOB) FROM (
  SELECT payload FROM records
  WHERE stream = ?1 AND position > ?2 AND position <= ?3 ORDER BY position
)
"""


def read_joined(
    connection: sqlite3.Connection,
    name: str,
    after: int,
    upto: int,
    max_records: int,
    max_bytes: int,
    separator: str,
) -> tuple[Joined, int | None] | None:
    """Give payloads after a position in one run, and when the stream is over, as far as the file
    knows; None where it has no such stream to read."""
    row = connection.execute(_STREAM, (name,)).fetchone()
    if row is None or row[5]:
        return None
    id, earliest, tail, base, parent, _, over_at, average = row
    place = max(after, earliest)
    parts: list[bytes] = []
    # No more than what should fit by what records measure on average: looking at the sizes of
    # those that do not would cost as much as reading those that do.
    count, left = 0, max(1, min(max_records, max_bytes // max(average, 1)))

    def ask(sql: str, values: Sequence[Any]) -> list[Any]:
        return connection.execute(sql, values).fetchall()

    for segment in segments(ask, Place(id, base, parent), place, min(tail, upto)):
        stream, start, stop = segment
        first, sizes = connection.execute(_SIZES, (stream, start, stop, left)).fetchone()
        # Rows may have been dropped meanwhile: what follows a hole is another read's.
        if first is None or (parts and first != place + 1):
            break
        sums = list(takewhile(max_bytes.__ge__, accumulate(map(int, sizes.split(",")))))
        if not sums and parts:
            break
        last = first - 1 + max(len(sums), 1)  # positions are dense; the first always fits
        found, glued = connection.execute(_GLUED, (stream, start, last, separator)).fetchone()
        parts.append(glued or b"")
        count, left, place = count + found, left - found, last
        max_bytes -= sums[-1] if sums else max_bytes
        if left <= 0 or max_bytes <= 0 or last < stop:
            break
    body = separator.encode().join(parts)
    return Joined(body, place if count else after, count), over_at
