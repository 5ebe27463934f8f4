"""A production: a source that feeds a stream, in a task of the hub's.

It belongs to the hub, not to the request that started it: it goes on when that connection is gone,
and stops when the source is done, when somebody ends the stream, or (if its starter said so) when
nobody has read it for too long. What the source yields goes to the store, through a feed where a
commit costs a write; its end is the stream's, typed, whatever the source raises.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from penstock.core.errors import (
    CallerError,
    PenstockError,
    StreamEnded,
    StreamGone,
    StreamNotFound,
)
from penstock.core.record import Batch, EndReason, NewRecord, check, checked
from penstock.server.feed import Feed
from penstock.server.payload import Payload, encode_payload

if TYPE_CHECKING:
    from penstock.backends.interface import Appended
    from penstock.server.stream import Stream

logger = logging.getLogger("penstock")
END_AGAIN_S: Final = 1.0
"""How long to wait before an end that the store could not take is tried again."""

Item = Payload | NewRecord | Batch
"""What a source may yield."""

LastWords = Callable[[EndReason], Sequence[NewRecord]]
"""Gives the records that are committed with an end which somebody else gives a stream."""


@runtime_checkable
class Pushes(Protocol):
    """A source that can give records while its iterator is waited for, without a step of the task
    that waits. Those that are refused it yields."""

    def push_to(self, commit: Callable[[Sequence[NewRecord]], bool]) -> None:
        """Take what commits records at once, and says whether it did; else nothing is done."""
        ...


class Production:
    """One source at work on one stream, from now on."""

    __slots__ = (
        "_feed",
        "_has_begun",
        "_idle_timer",
        "_last_words",
        "_source",
        "_stream",
        "_task",
        "_unread_s",
    )

    def __init__(
        self,
        stream: Stream,
        source: AsyncIterable[Item],
        unread_s: float | None,
        last_words: LastWords | None,
    ) -> None:
        self._stream = stream
        self._source = source
        self._has_begun = False
        # Where a commit costs a write, what comes while one is under way shares the next.
        backend = stream.hub.backend
        self._feed = None if stream.hub.commits_now is not None else Feed(backend, stream.name)
        self._unread_s = unread_s
        self._last_words = last_words
        self._idle_timer: asyncio.TimerHandle | None = None
        self._task = asyncio.create_task(self._run(), name=f"penstock:{stream.name}")

    @property
    def is_at_work(self) -> bool:
        """Whether the source may still yield, or its end is being stored."""
        return not self._task.done()

    def read_changed(self, *, is_read: bool) -> None:
        """Take whether anybody reads the stream: unread, the source is given its time from now."""
        self.forget()
        if not is_read and self._unread_s is not None and self.is_at_work:
            loop = asyncio.get_running_loop()
            self._idle_timer = loop.call_later(self._unread_s, self._cancel_unread)

    def touch(self) -> None:
        """Take that somebody looked at the stream: that begins the time anew, where it runs."""
        if self._idle_timer is not None:
            self.read_changed(is_read=False)

    def forget(self) -> None:
        """Let go of the timer."""
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None

    async def end(self, reason: EndReason) -> Appended:
        """End the stream in the source's place, with its last words in the same commit.

        What it gave before is committed before them. Where it has none, what was not on its way to
        the store yet is dropped. Raises as `Backend.append`.
        """
        words = self._words(reason)
        if self._feed is not None and words:
            return await self._feed.close(reason, words)
        return await self._stream.hub.backend.append(self._stream.name, words, end=reason)

    def _words(self, reason: EndReason) -> Sequence[NewRecord]:
        if self._last_words is None or not self.is_at_work:
            return []
        try:
            return self._checked(self._last_words(reason))
        except Exception:
            # It can raise anything, and readers must have an end.
            stream = self._stream
            logger.exception("the last words of %r at %s failed", stream.name, stream.offset)
            return []

    async def stop(self) -> None:
        """Cancel the source and wait for it, but no longer than the settings say."""
        self.forget()
        task, stream = self._task, self._stream
        if task.done() or task is asyncio.current_task():
            return
        task.cancel()
        _, late = await asyncio.wait([task], timeout=stream.hub.settings.cancel_s)
        if late:
            logger.warning(
                "the producer of %r at %s ignores its cancellation", stream.name, stream.offset
            )
        elif not self._has_begun:
            # Cancelled before its first step, the task could not do what it does in the end.
            self._has_begun = True
            await self._finish(self._source, EndReason.CANCELLED)

    def _cancel_unread(self) -> None:
        self._idle_timer = None
        self._stream.hub.spawn(self._stream.cancel())

    async def _run(self) -> None:
        self._has_begun = True
        stream = self._stream
        reason = EndReason.FAILED
        iterator = aiter(self._source)
        feed, now = self._feed, stream.hub.commits_now
        if isinstance(iterator, Pushes):
            iterator.push_to(self._commit_now)
        try:
            async for item in iterator:
                records, end = self._records(item)
                if end is not None:
                    await self._commit_end(records, end)
                    break
                if feed is not None:
                    await feed.put(records)
                elif records and now is not None:
                    now.append_now(stream.name, records)
            reason = EndReason.COMPLETE  # where the source did not say it itself: the first stands
        except asyncio.CancelledError:
            reason = EndReason.CANCELLED
        except StreamEnded:
            pass  # ended under the producer's hands: the first reason stands
        except Exception:
            # The task's outermost edge: a source can raise anything, and readers must have an end.
            logger.exception("the producer of %r failed at %s", stream.name, stream.offset)
        finally:
            await self._finish(iterator, reason)

    async def _finish(self, source: object, reason: EndReason) -> None:
        await close_source(source)
        self.forget()
        await self._end(reason)

    def _commit_now(self, records: Sequence[NewRecord]) -> bool:
        """Commit what a source pushes; what is wrong with it is found when it is yielded."""
        stream, now = self._stream, self._stream.hub.commits_now
        try:
            self._checked(records)
            if self._feed is not None:
                return self._feed.offer(records)
            if now is None:
                return False
            now.append_now(stream.name, records)
        except PenstockError:
            return False
        return True

    def _records(self, item: Item) -> tuple[Sequence[NewRecord], EndReason | None]:
        """What was yielded as the records of one commit, and the end that goes with them."""
        stream = self._stream
        limit = stream.hub.settings.max_record_bytes
        if isinstance(item, Batch):
            return self._checked(item.records), item.end
        if isinstance(item, NewRecord):
            return [checked(item.payload, item.type, item.key, limit)], None
        return [checked(encode_payload(item, stream.config.content_type), "", "", limit)], None

    def _checked(self, records: Sequence[NewRecord]) -> Sequence[NewRecord]:
        limit = self._stream.hub.settings.max_record_bytes
        for record in records:
            check(record, limit)
        return records

    async def _commit_end(self, records: Sequence[NewRecord], end: EndReason) -> None:
        if self._feed is not None:
            await self._feed.finish(end, records)
        else:
            await self._stream.hub.backend.append(self._stream.name, records, end=end)

    async def _end(self, reason: EndReason) -> None:
        """End the stream after its source, with what was not committed yet."""
        stream, feed = self._stream, self._feed
        try:
            if stream.end is not None and feed is not None:
                await feed.abandon()
            elif feed is not None:
                await feed.finish(reason)
            elif stream.end is None:
                await stream.hub.backend.append(stream.name, [], end=reason)
        except (StreamNotFound, StreamGone, StreamEnded):
            pass  # deleted or ended while its source took long to close
        except PenstockError as error:
            logger.error("the end of %r could not be stored: %s", stream.name, error.sentence)
            stream.hub.spawn(self._end_at_last())

    async def _end_at_last(self) -> None:
        """End a stream whose store could not take what came last, as soon as it can. Readers must
        have an end; until then they wait, and after a restart it is `lost`."""
        while True:
            await asyncio.sleep(END_AGAIN_S)
            try:
                await self._stream.hub.backend.append(self._stream.name, [], end=EndReason.FAILED)
            except CallerError:
                return
            except PenstockError:
                continue
            return


async def close_source(source: object) -> None:
    """Close a generator, so that what it holds (an upstream connection) is released now."""
    close = getattr(source, "aclose", None)
    if close is None:
        return
    try:
        await close()
    except Exception:
        logger.exception("a producer's source failed while it was closed")
