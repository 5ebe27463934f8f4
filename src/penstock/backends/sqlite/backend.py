"""The backend as the hub has it: the event loop's side of a `sqlite://` file.

One thread writes (`writer`), two read (`reader`), and the event loop, which is here,
waits for neither: an operation goes into the writer's queue and its answer comes back after the
commit, together with those of everything that was committed with it. Listeners hear of a commit
before who appended does.

The queue is bounded by `limits.APPEND_WINDOW` and `APPEND_WINDOW_BYTES`: above them `append` waits
for room, in order, and `append_nowait` raises AppendWindowFull. A stream that nobody watches costs
nothing here.

What `durability` promises: "process" survives the death of this process, "disk" also a loss of
power (each group is synced before anybody hears of it), "eager" shows records before their commit;
a restart that may have lost what was shown begins a later epoch.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from penstock.backends.interface import (
    Appended,
    Counted,
    Fork,
    Joined,
    Listed,
    Listener,
    StreamConfig,
)
from penstock.backends.sqlite.checks import (
    check_config,
    check_name,
    check_sequence,
    payload_size,
)
from penstock.backends.sqlite.courtesy import Courtesy
from penstock.backends.sqlite.operations import (
    Append,
    Create,
    Delete,
    Look,
    News,
    Operation,
    Report,
    StoreDocument,
    Sweep,
)
from penstock.backends.sqlite.operations import Close as CloseStore
from penstock.backends.sqlite.reader import Reader
from penstock.backends.sqlite.watch import SqliteWatch
from penstock.backends.sqlite.window import Window
from penstock.backends.sqlite.writer import Durability, Writer
from penstock.core.errors import (
    AppendWindowFull,
    CallerError,
    PenstockError,
    SettingInvalid,
    StoreFailed,
    StreamEnded,
)
from penstock.core.limits import APPEND_WINDOW, APPEND_WINDOW_BYTES, MAX_STORE_BYTES, MAX_STREAMS
from penstock.core.log import Head
from penstock.core.producer import Stamp
from penstock.core.record import EndReason, NewRecord, Record

MAX_FAILED: Final = 1_000
"""Streams whose failed `append_nowait` waits to be told of."""
NOTHING: Final = Counted(0, 0, 0, 0)


class SqliteBackend:
    """Logs in a file. `wall_clock` gives seconds since 1970; `max_bytes` counts payloads, types
    and keys and 40 bytes a record; `max_pages` bounds the file itself, in pages of 4 KiB."""

    def __init__(
        self,
        path: str,
        *,
        durability: Durability = "process",
        wall_clock: Callable[[], float] = time.time,
        max_streams: int = MAX_STREAMS,
        max_bytes: int = MAX_STORE_BYTES,
        max_pages: int | None = None,
    ) -> None:
        if durability not in ("process", "disk", "eager"):
            raise SettingInvalid("durability", 'is none of "process", "disk", "eager"')
        self.path = path
        self.durability: Durability = durability
        self._wall_clock = wall_clock
        self._max_streams, self._max_bytes, self._max_pages = max_streams, max_bytes, max_pages
        self._writer: Writer | None = None
        self._reader: Reader | None = None
        self._opening: asyncio.Future[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._courtesy: Courtesy | None = None
        self._counts = NOTHING
        self._watched: dict[str, list[SqliteWatch]] = {}
        self._touched: dict[str, float] = {}
        self._failed: dict[str, PenstockError] = {}
        self._window = Window(APPEND_WINDOW, APPEND_WINDOW_BYTES)

    # opening and closing

    async def open(self) -> None:
        if self._closing is not None:
            await asyncio.shield(self._closing)
        if self._opening is None:
            self._start()
        assert self._opening is not None
        await asyncio.shield(self._opening)
        if self._reader is None:
            assert self._courtesy is not None
            self._reader = Reader(self.path, self._courtesy)

    def _start(self) -> None:
        loop = asyncio.get_running_loop()
        opening = self._opening = loop.create_future()
        courtesy = self._courtesy = Courtesy(loop)
        self._writer = Writer(
            *(self.path, self.durability, self._wall_clock),
            touched=self._touched,
            watched=self._watched,
            max_streams=self._max_streams,
            max_bytes=self._max_bytes,
            max_pages=self._max_pages,
            beat=courtesy.beat,
            opened=lambda error: _tell(loop, lambda: self._opened(opening, error)),
            reported=lambda report: _tell(loop, lambda: self._take(report), courtesy),
            is_heard=lambda: not loop.is_closed(),
        )

    def _opened(self, opening: asyncio.Future[None], error: PenstockError | None) -> None:
        if error is None:
            _resolve(opening, None, None)
            return
        self._opening = self._writer = None
        _resolve(opening, None, error)
        opening.exception()  # whoever waited may be gone

    async def close(self) -> None:
        if self._closing is None and self._opening is not None:
            self._closing = asyncio.create_task(self._close())
        if self._closing is not None:
            await asyncio.shield(self._closing)

    async def _close(self) -> None:
        try:
            opening, self._opening = self._opening, None
            assert opening is not None
            await asyncio.wait([opening])
            writer, self._writer = self._writer, None
            reader, self._reader = self._reader, None
            self._window.shut(self._is_closed())
            following = [w.stop() for watches in list(self._watched.values()) for w in watches[:]]
            await asyncio.gather(*filter(None, following), return_exceptions=True)
            if reader is not None:
                await asyncio.to_thread(reader.close)
            if writer is not None:
                closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                writer.queue.put(CloseStore(closed))
                await closed
                writer.join()
            if self._courtesy is not None:
                self._courtesy.close()
        finally:
            self._closing = None

    def _is_closed(self) -> StoreFailed:
        return StoreFailed(self.path, "it is closed")

    # what the interface asks

    async def create(
        self,
        name: str,
        config: StreamConfig,
        opening: Sequence[NewRecord] = (),
        *,
        end: EndReason | None = None,
    ) -> tuple[Head, bool]:
        head, _, is_new = await self._create(name, config, opening, end, None)
        return head, is_new

    async def fork(
        self,
        name: str,
        fork: Fork,
        config: StreamConfig,
        opening: Sequence[NewRecord] = (),
        *,
        end: EndReason | None = None,
    ) -> tuple[Head, StreamConfig, bool]:
        return await self._create(name, config, opening, end, fork)

    async def _create(
        self,
        name: str,
        config: StreamConfig,
        opening: Sequence[NewRecord],
        end: EndReason | None,
        fork: Fork | None,
    ) -> tuple[Head, StreamConfig, bool]:
        check_name(name)
        if fork is not None:
            check_name(fork.source)
        check_config(config)
        own = tuple(opening)
        size = payload_size(own)
        return await self._ask(
            lambda answer: Create(name, config, own, end, fork, size, answer), size
        )

    async def append(
        self,
        name: str,
        batch: Sequence[NewRecord],
        *,
        end: EndReason | None = None,
        stamp: Stamp | None = None,
        seq: str | None = None,
    ) -> Appended:
        self._raise_failed(name)
        check_name(name)
        check_sequence(stamp, seq)
        own = tuple(batch)  # the caller may change theirs before the writer comes to it
        size = payload_size(own)
        return await self._ask(
            lambda answer: Append(name, own, end, stamp, seq, size, answer), size
        )

    def append_nowait(self, name: str, batch: Sequence[NewRecord]) -> None:
        """As the capability says. What is not known here without asking the file (that there is no
        such stream, that it has ended while nobody watched, a full disk) is raised by the next
        append to the same stream."""
        self._raise_failed(name)
        check_name(name)
        for watch in self._watched.get(name, ()):
            if watch.end is not None:
                raise StreamEnded(name, watch.end)
        size = payload_size(batch)
        if self._writer is None:
            raise self._is_closed()
        if not self._window.enter_now(size):
            raise AppendWindowFull(name, APPEND_WINDOW)
        self._queue(self._writer, Append(name, tuple(batch), None, None, None, size, None))

    async def read(
        self, name: str, after: int, max_records: int, max_bytes: int
    ) -> Sequence[Record]:
        check_name(name)
        while True:
            if self._reader is None:
                raise self._is_closed()
            found = await self._reader.read(name, after, max_records, max_bytes)
            if found is not None:
                if found.over_at is not None and self._is_past(found.over_at):
                    await self.head(name)  # the writer knows when it was last used
                return found.records
            await self.head(name)  # says why not; or it was made just now

    async def read_joined(
        self, name: str, after: int, upto: int, max_records: int, max_bytes: int, separator: bytes
    ) -> Joined:
        check_name(name)
        while True:
            if self._reader is None:
                raise self._is_closed()
            found = await self._reader.read_joined(
                name, after, upto, max_records, max_bytes, separator
            )
            if found is not None:
                joined, over_at = found
                if over_at is not None and self._is_past(over_at):
                    await self.head(name)  # the writer knows when it was last used
                return joined
            await self.head(name)  # says why not; or it was made just now

    async def head(self, name: str) -> tuple[Head, StreamConfig]:
        check_name(name)
        return await self._ask(lambda answer: Look(name, answer))

    async def delete(self, name: str) -> None:
        check_name(name)
        await self._ask(lambda answer: Delete(name, answer))

    def watch(self, name: str, after: int, listener: Listener) -> SqliteWatch:
        """As the interface says; of a stream that is not there the listener hears that it is
        deleted. What is there already is delivered soon, not before this returns."""
        check_name(name)
        if self._writer is None:
            raise self._is_closed()
        watch = SqliteWatch(name, after, listener, self, self._unwatch)
        self._watched.setdefault(name, []).append(watch)
        return watch

    def _unwatch(self, watch: SqliteWatch) -> None:
        watches = self._watched.get(watch.name, [])
        if watch in watches:
            watches.remove(watch)
        if not watches:
            self._watched.pop(watch.name, None)

    def touch(self, name: str) -> None:
        self._touched[name] = self._wall_clock()

    async def sweep(self, max_streams: int) -> int:
        return await self._ask(lambda answer: Sweep(max_streams, answer))

    async def list(self, prefix: str, after: str, limit: int) -> Sequence[Listed]:
        found: list[Listed] = []
        while len(found) < limit:
            if self._reader is None:
                raise self._is_closed()
            rows = await self._reader.list(prefix, after, limit - len(found))
            found += [
                listed
                for listed, over_at in rows
                if over_at is None or not self._is_past(over_at) or await self._is_there(listed)
            ]
            if not rows:
                break
            after = rows[-1][0].name
        return found

    async def _is_there(self, listed: Listed) -> bool:
        try:
            await self.head(listed.name)
        except CallerError:
            return False
        return True

    @property
    def counts(self) -> Counted:
        return self._counts

    async def load_documents(self, kind: str) -> dict[str, bytes]:
        if self._reader is None:
            raise self._is_closed()
        return await self._reader.documents(kind)

    async def store_document(self, kind: str, name: str, body: bytes | None) -> None:
        check_name(name)
        size = len(body or b"")
        await self._ask(lambda answer: StoreDocument(kind, name, body, answer, size), size)

    def _is_past(self, at_ms: int) -> bool:
        return self._wall_clock() * 1000 >= at_ms

    # the queue

    async def _ask(self, make: Callable[[asyncio.Future[Any]], Operation], size: int = 0) -> Any:
        """Queue an operation when there is room, and wait for what comes of it.

        Cancelled, it was not queued, or it is done as if it had not been cancelled.
        """
        await self._window.enter(size)
        if self._writer is None:
            self._window.leave(size)
            raise self._is_closed()
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._queue(self._writer, make(answer))
        return await answer

    def _queue(self, writer: Writer, operation: Operation) -> None:
        writer.queue.put(operation)
        if self._courtesy is not None:
            self._courtesy.owe()

    # what the writer tells

    def _take(self, report: Report) -> None:
        self._counts = report.counts
        for item in report.news:
            self._tell_watches(item)
        for operation, value, error in report.outcomes:
            if not isinstance(operation, CloseStore):
                self._window.leave(operation.size)
                if self._courtesy is not None:
                    self._courtesy.paid()
            if operation.answer is not None:
                _resolve(operation.answer, value, error)
            elif error is not None and isinstance(operation, Append):
                self._failed[operation.name] = error
                if len(self._failed) > MAX_FAILED:
                    del self._failed[next(iter(self._failed))]

    def _tell_watches(self, news: News) -> None:
        for watch in self._watched.get(news.name, ())[:]:
            try:
                watch.hear(news)
            except Exception as error:  # noqa: BLE001 a listener's fault must not become others'
                asyncio.get_running_loop().call_exception_handler(
                    {"message": f"a listener of {news.name!r} failed", "exception": error}
                )

    def _raise_failed(self, name: str) -> None:
        if self._failed:
            error = self._failed.pop(name, None)
            if error is not None:
                raise error


def _tell(
    loop: asyncio.AbstractEventLoop, what: Callable[[], None], courtesy: Courtesy | None = None
) -> bool:
    """Call something in the loop; says whether there is one still."""
    try:
        loop.call_soon_threadsafe(what)
    except RuntimeError:
        return False
    if courtesy is not None:
        courtesy.answer()
    return True


def _resolve(answer: asyncio.Future[Any], value: object, error: PenstockError | None) -> None:
    if answer.done():
        return  # cancelled
    if error is None:
        answer.set_result(value)
    else:
        answer.set_exception(error)
