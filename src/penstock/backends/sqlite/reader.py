"""Reading a `sqlite://` file beside its writer: two threads, each with a read-only connection.

A read sees what is committed and nothing else. Records come back as one row, glued together with
their lengths: a row a record would give Python's lock away at every one, and beside a busy event
loop that costs up to 5 ms each time.
"""

# ruff: noqa: S608  statements are put together from constants alone; values are always bound

from __future__ import annotations

import asyncio
import sqlite3
import threading
from bisect import bisect_right
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, starmap
from typing import Any, Final, NamedTuple, TypeVar, cast

from penstock.backends.interface import Joined, Listed
from penstock.backends.sqlite.courtesy import Courtesy
from penstock.backends.sqlite.lineage import Place, segments
from penstock.backends.sqlite.schema import connect, failure
from penstock.backends.sqlite.state import CONFIG_COLUMNS, HEAD_COLUMNS, config_of, head_of
from penstock.core.cursor import MAX_POSITION
from penstock.core.errors import StoreFailed
from penstock.core.record import Record

_T = TypeVar("_T")
THREADS: Final = 2
CHUNK_RECORDS: Final = 4_096
CHUNK_BYTES: Final = 4 * 1024 * 1024
"""Most that one statement gives; a longer read takes several."""

# Two steps: how many records fit, and then those. (A running sum in SQL takes ten times as long as
# in Python, and a bound on bytes alone would look at far too many rows.)
_SIZES: Final = """
SELECT min(position), group_concat(size) FROM (
  SELECT position, length(payload) AS size FROM records
  WHERE stream = ? AND position > ? AND position <= ? ORDER BY position LIMIT ?
)
"""
# Positions are dense, so the first and the number tell them all. No type or key holds a NUL.
_RECORDS: Final = """
SELECT min(position), count(*), CAST(group_concat(payload, '') AS BLOB), group_concat(at),
  group_concat(type, char(0)), group_concat("key", char(0))
FROM (SELECT * FROM records WHERE stream = ? AND position > ? AND position <= ? ORDER BY position)
"""
_JOINED: Final = """
SELECT min(position), count(*), CAST(group_concat(payload, ?4) AS BLOB)
FROM (
  SELECT position, payload FROM records
  WHERE stream = ?1 AND position > ?2 AND position <= ?3 ORDER BY position
)
"""
_TOTAL: Final = """
SELECT total(length(payload)), max(position) FROM (
  SELECT position, payload FROM records
  WHERE stream = ? AND position > ? AND position <= ? ORDER BY position LIMIT ?
)
"""
_STREAM: Final = (
    "SELECT id, earliest, tail, base, parent, is_deleted, over_at, bytes / max(records, 1)"
    " FROM streams WHERE name = ?"
)
_LIST: Final = f"""
SELECT name, over_at, {HEAD_COLUMNS}, {CONFIG_COLUMNS} FROM streams
WHERE name > ?1 AND name >= ?2 AND (?3 IS NULL OR name < ?3) AND NOT is_deleted
ORDER BY name LIMIT ?4
"""


class Found(NamedTuple):
    """What a read found: the records, and when the stream is over, as far as the file knows."""

    records: Sequence[Record]
    over_at: int | None


class Reader:
    """A few threads that read one file. `path` must be open for writing elsewhere."""

    def __init__(self, path: str, courtesy: Courtesy) -> None:
        self._path, self._courtesy = path, courtesy
        self._own = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._threads = ThreadPoolExecutor(THREADS, "penstock-reader", self._connect)

    async def read(self, name: str, after: int, max_records: int, max_bytes: int) -> Found | None:
        """Give records after a position, or None where the file has no such stream to read."""

        def read(connection: sqlite3.Connection) -> Found | None:
            page = _Page(max_records, max_bytes)
            is_there = page.turn(connection, name, after, MAX_POSITION)
            return Found(page.records, page.over_at) if is_there else None

        return await self._run(read)

    async def read_joined(
        self, name: str, after: int, upto: int, max_records: int, max_bytes: int, separator: bytes
    ) -> tuple[Joined, int | None] | None:
        """Give payloads after a position in one run, and when the stream is over; or None."""

        def read(connection: sqlite3.Connection) -> tuple[Joined, int | None] | None:
            page = _JoinedPage(max_records, max_bytes, separator)
            is_there = page.turn(connection, name, after, upto)
            return (page.joined(after), page.over_at) if is_there else None

        return await self._run(read)

    async def list(self, prefix: str, after: str, limit: int) -> list[tuple[Listed, int | None]]:
        """Give streams by name, each with when it is over."""
        return await self._run(lambda connection: _list(connection, prefix, after, limit))

    async def documents(self, kind: str) -> dict[str, bytes]:
        sql = "SELECT name, body FROM documents WHERE kind = ?"
        return await self._run(lambda connection: dict(connection.execute(sql, (kind,)).fetchall()))

    def close(self) -> None:
        """Wait for the reads under way, and close."""
        self._threads.shutdown()
        for connection in self._connections:
            connection.close()

    def _connect(self) -> None:
        connection = connect(self._path, mode="ro")
        connection.execute("PRAGMA cache_size=-2048")
        connection.execute("PRAGMA temp_store=MEMORY")
        self._own.connection = connection
        self._connections.append(connection)

    async def _run(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Raises StoreDamaged, StoreFailed. Cancelling lets a read that has begun end unseen."""

        def run() -> _T:
            self._courtesy.beat()
            try:
                return work(self._own.connection)
            finally:
                self._courtesy.answer()

        self._courtesy.owe()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, run)
        except sqlite3.Error as error:
            raise failure(self._path, error) from None
        except RuntimeError:  # the executor is shut down
            raise StoreFailed(self._path, "it is closed") from None
        finally:
            self._courtesy.paid()


class _Page:
    """What a read has found of a stream, and what may still come."""

    def __init__(self, max_records: int, max_bytes: int) -> None:
        self.records: list[Record] = []
        self.over_at: int | None = None
        self._count: int = 0
        self._left: int = max(max_records, 1)
        self._bytes: int = max(max_bytes, 0)

    def turn(self, connection: sqlite3.Connection, name: str, after: int, upto: int) -> bool:
        """Read what follows a position; says whether there is such a stream."""
        row = connection.execute(_STREAM, (name,)).fetchone()
        if row is None or row[5]:
            return False
        id, earliest, tail, base, parent, _, self.over_at, mean_size = row

        def ask(sql: str, values: Sequence[Any]) -> list[Any]:
            return connection.execute(sql, values).fetchall()

        after, upto = max(after, earliest), min(upto, tail)
        for segment in segments(ask, Place(id, base, parent), after, upto):
            if not self._turn_segment(connection, segment, max(mean_size, 1)):
                break
        return True

    def fetch(self, connection: sqlite3.Connection, place: tuple[int, int, int]) -> tuple[Any, ...]:
        """Give the first position, the number, and what `keep` wants of the records at a place."""
        return connection.execute(_RECORDS, place).fetchone()

    def keep(self, row: tuple[Any, ...], sizes: Sequence[int]) -> None:
        """Keep what was fetched, of which these are the payloads' sizes."""
        first, count, glued, times, types, keys = row
        payloads: list[bytes] = []
        start = 0
        for size in sizes:
            payloads.append(glued[start : start + size])
            start += size
        ats = [int(time) / 1000 for time in times.split(",")]
        positions = range(first, first + count)
        columns = (positions, payloads, types.split("\0"), keys.split("\0"), ats)
        self.records += starmap(Record, zip(*columns, strict=True))

    def _turn_segment(
        self, connection: sqlite3.Connection, segment: tuple[int, int, int], mean_size: int
    ) -> bool:
        """Add records of a segment; says whether more may come."""
        id, after, upto = segment
        while after < upto:
            # A little more than should fit, by what the stream's records measure on average.
            limit = min(self._bytes, CHUNK_BYTES) * 9 // (8 * mean_size) + 16
            limit = min(self._left, limit, CHUNK_RECORDS)
            first, glued = connection.execute(_SIZES, (id, after, upto, limit)).fetchone()
            # Rows may have been dropped between statements: what follows a hole is another read's.
            if first is None or (self._count and first != after + 1):
                return False
            sizes = list(map(int, glued.split(",")))
            fitting = self._fitting(sizes)
            if not fitting:
                return False
            stop = first + fitting - 1
            row = self.fetch(connection, (id, after, stop))
            if not row[1] or (self._count and row[0] != after + 1):
                return False
            taken = sizes[fitting - row[1] : fitting]
            self.keep(row, taken)
            self._count += len(taken)
            self._left -= len(taken)
            self._bytes -= sum(taken)
            after = stop
            if not self._left or (fitting < len(sizes) and self._bytes < CHUNK_BYTES):
                return False
        return True

    def _fitting(self, sizes: Sequence[int]) -> int:
        """How many records of these sizes may come next: the first of all always."""
        most = min(self._bytes, CHUNK_BYTES)
        if not self._count:
            most = max(most, sizes[0])
        return bisect_right(list(accumulate(sizes)), most)


class _JoinedPage(_Page):
    """As a page, with nothing but payloads, put together."""

    def __init__(self, max_records: int, max_bytes: int, separator: bytes) -> None:
        super().__init__(max_records, max_bytes)
        self._separator = separator
        self._parts: list[bytes] = []
        self._last = 0

    def _turn_segment(
        self, connection: sqlite3.Connection, segment: tuple[int, int, int], mean_size: int
    ) -> bool:
        # Most often what should fit, by the average, does: then nobody looks at each size.
        id, after, upto = segment
        limit = max(1, min(self._left, self._bytes // mean_size))
        row = connection.execute(_TOTAL, (id, after, upto, limit)).fetchone()
        total, stop = cast("tuple[float, int | None]", row)
        if stop is None or total > min(self._bytes, CHUNK_BYTES):
            return super()._turn_segment(connection, segment, mean_size)
        row = self.fetch(connection, (id, after, stop))
        count = int(row[1])
        if not count or (self._count and row[0] != after + 1):
            return False
        self.keep(row, ())
        self._count += count
        self._left -= count
        self._bytes -= int(total)
        if self._left <= 0:
            return False
        return super()._turn_segment(connection, (id, stop, upto), mean_size)

    def fetch(self, connection: sqlite3.Connection, place: tuple[int, int, int]) -> tuple[Any, ...]:
        return connection.execute(_JOINED, (*place, self._separator.decode())).fetchone()

    def keep(self, row: tuple[Any, ...], sizes: Sequence[int]) -> None:
        first, count, body = row
        self._parts.append(body)
        self._last = first + count - 1

    def joined(self, after: int) -> Joined:
        """What was found after a position."""
        body = self._separator.join(self._parts)
        return Joined(body, self._last if self._count else after, self._count)


def _list(
    connection: sqlite3.Connection, prefix: str, after: str, limit: int
) -> list[tuple[Listed, int | None]]:
    rows = connection.execute(_LIST, (after, prefix, _after_prefix(prefix), limit)).fetchall()
    return [(Listed(row[0], head_of(row[2:8]), config_of(row[8:20])), row[1]) for row in rows]


def _after_prefix(prefix: str) -> str | None:
    """The first text after all that begin with a prefix; None where there is no such text."""
    while prefix:
        code = ord(prefix[-1]) + 1
        if 0xD800 <= code <= 0xDFFF:
            code = 0xE000
        if code <= 0x10FFFF:
            return prefix[:-1] + chr(code)
        prefix = prefix[:-1]
    return None
