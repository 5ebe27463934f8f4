"""One listener of one stream of a `sqlite://` file: first what is there, then what is committed.

Positions are dense, so a commit that begins at the listener's place is its next, and is handed on
as it is. One that begins further on means that something lies between: it is read from the file
first, a piece at a time, and meanwhile only where the log stands is noted. So nothing piles up for
a listener that begins far behind, and nothing reaches it twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol, TypeVar

from penstock.backends.interface import Listener, StreamConfig
from penstock.backends.sqlite.operations import (
    Committed,
    Deleted,
    Ended,
    News,
    Restarted,
    Trimmed,
)
from penstock.core.errors import StreamGone, StreamNotFound, WorldError
from penstock.core.log import Head
from penstock.core.record import EndReason, Record

_T = TypeVar("_T")
PIECE_RECORDS: Final = 4_096
PIECE_BYTES: Final = 1024 * 1024
AGAIN_S: Final = 1.0
"""How long to wait before a read that failed is tried again."""


class Source(Protocol):
    """What a watch asks of its backend."""

    async def head(self, name: str) -> tuple[Head, StreamConfig]: ...

    async def read(
        self, name: str, after: int, max_records: int, max_bytes: int
    ) -> Sequence[Record]: ...


class SqliteWatch:
    """A listener's registration, and its place."""

    def __init__(
        self,
        name: str,
        after: int,
        listener: Listener,
        source: Source,
        cancelled: Callable[[SqliteWatch], None],
    ) -> None:
        self.name = name
        self._position, self._listener = after, listener
        self._source, self._cancelled = source, cancelled
        self._head: Head | None = None
        self._is_over = self._has_ended = False
        self._following: asyncio.Task[None] | None = asyncio.create_task(self._follow())

    @property
    def end(self) -> EndReason | None:
        """Why the stream ended, as far as is known here."""
        return None if self._head is None else self._head.end

    def cancel(self) -> None:
        """Stop hearing."""
        self.stop()

    def stop(self) -> asyncio.Task[None] | None:
        """Stop hearing; gives what is still to be waited for, if anything is."""
        if not self._is_over:
            self._is_over = True
            self._cancelled(self)
        following, self._following = self._following, None
        if following is not None:
            following.cancel()
        return following

    def hear(self, news: News) -> None:
        """Take what the writer tells."""
        if self._is_over:
            return
        match news:
            case Committed():
                self._committed(news)
            case Trimmed(_, head):
                self._head = head
                self._listener.trimmed(head)
            case Ended(_, head):
                self._head = head
                self._tell_end()
            case Deleted(_, head):
                self._gone(head)
            case Restarted(_, head):
                self._head, self._position = head, head.tail
                self._listener.restarted(head)

    def _committed(self, news: Committed) -> None:
        first, behind = news.first, self._position - news.first
        self._head = news.head
        if behind < 0 or behind >= len(news.batch):
            return
        records = [
            Record(position, new.payload, new.type, new.key, news.at)
            for position, new in enumerate(news.batch[behind:], first + behind + 1)
        ]
        self._position = records[-1].position
        self._listener.committed(records, news.head)

    async def _follow(self) -> None:
        """Bring the listener to where the log stands."""
        try:
            head = await self._patiently(lambda: self._source.head(self.name))
            # What the writer told meanwhile is at least as new: it may be the end.
            if self._head is None or head[0].tail > self._head.tail:
                self._head = head[0]
            while not self._is_over and self._position < self._head.tail:
                before = self._position
                records = await self._patiently(self._read)
                # A commit may have reached the listener meanwhile.
                records = [record for record in records if record.position > self._position]
                if records:
                    self._deliver(records)
                elif self._position == before:
                    return  # emptied or gone since; the news of it are on their way
            if not self._is_over:
                self._following = None
                self._tell_end()
        except (StreamNotFound, StreamGone):
            if not self._is_over:
                self._gone(self._head or Head(0, 0, 0, 0, 0))

    def _read(self) -> Awaitable[Sequence[Record]]:
        return self._source.read(self.name, self._position, PIECE_RECORDS, PIECE_BYTES)

    async def _patiently(self, ask: Callable[[], Awaitable[_T]]) -> _T:
        while True:
            try:
                return await ask()
            except WorldError:
                await asyncio.sleep(AGAIN_S)

    def _deliver(self, records: Sequence[Record]) -> None:
        head, last = self._head, records[-1].position
        assert head is not None
        self._position = last
        if head.tail != last:
            # What the log held then, as far as it matters: positions are dense.
            kept = max(head.records + last - head.tail, 0)
            head = head._replace(tail=last, records=kept, end=None)
        self._listener.committed(records, head)

    def _tell_end(self) -> None:
        head = self._head
        if head is None or head.end is None or self._has_ended:
            return
        if self._position >= head.tail:
            self._has_ended = True
            self._listener.ended(head)

    def _gone(self, head: Head) -> None:
        if not self._has_ended:
            self._has_ended = True
            self._listener.ended(head if head.end else head._replace(end=EndReason.LOST))
        following, self._following = self._following, None
        self.cancel()
        self._listener.deleted()
        if following is not None:
            following.cancel()
