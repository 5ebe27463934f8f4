"""The hub: named streams, their producers, and everybody who reads them.

A commit marks the stream's view dirty; one flush per turn of the event loop hands what came to
all level readers. Once a second the hub looks at what time asks for: heartbeats, readers that take
nothing, streams that are old. A hub lives in one event loop. Read `stream.py` next.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from penstock.backends.interface import Backend, StreamConfig, Trims
from penstock.backends.memory import MemoryBackend
from penstock.core.errors import (
    Draining,
    Overloaded,
    PenstockError,
    StreamExists,
    StreamNotFound,
)
from penstock.core.limits import RETRY_JITTER
from penstock.core.log import Retention
from penstock.core.record import EndReason, NewRecord, checked
from penstock.server.config import Settings, make_settings
from penstock.server.payload import Payload
from penstock.server.stream import Stream, close_source
from penstock.server.view import View
from penstock.telemetry.hooks import Hooks, Snapshot
from penstock.telemetry.prometheus import PrometheusHooks
from penstock.wire import http

if TYPE_CHECKING:
    from penstock.server.app import App, MetricsApp
    from penstock.server.reader import Reader

logger = logging.getLogger("penstock")

TICK_S: Final = 1.0
"""How often heartbeats, stalls and retention are looked at."""
TRIM_STREAMS_A_TICK: Final = 200
NAME_BYTES: Final = 16
"""Randomness of an unnamed stream's name: 128 bits, so that knowing it is the right to read it."""


class Hub:
    """Streams of one process. Use it as an async context manager, or give `hub.lifespan` to
    FastAPI or Starlette; mount `hub.asgi` where streams are to be read.

    `backend` is an address (`memory://`) or a `Backend`; `settings` and keyword arguments are those
    of `penstock.server.config.Settings`. Raises SettingInvalid.
    """

    def __init__(
        self,
        backend: str | Backend = "memory://",
        *,
        settings: Settings | None = None,
        hooks: Hooks | None = None,
        clock: Callable[[], float] = time.monotonic,
        **overrides: Any,
    ) -> None:
        values = settings.model_dump() if settings is not None else {}
        if isinstance(backend, str):
            values["backend"] = backend
        self.settings = make_settings(**values, **overrides)
        self.clock = clock
        self.hooks = hooks or PrometheusHooks()
        self.backend: Backend = self._make_backend() if isinstance(backend, str) else backend
        self.is_draining = False
        self.fast_path_active = False
        self._streams: dict[str, Stream] = {}
        self._readers: set[Reader] = set()
        self._all_gone = asyncio.Event()
        self._paused: dict[Reader, float] = {}
        self._dirty: dict[View, None] = {}
        self._is_flush_due = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ticker: asyncio.Task[None] | None = None
        self._users = 0
        self.hooks.attach(self.snapshot)

    def _make_backend(self) -> MemoryBackend:
        return MemoryBackend(
            clock=self.clock,
            wall_clock=time.time,
            max_streams=self.settings.max_streams,
            max_bytes=self.settings.max_store_bytes,
        )

    # streams

    async def create(
        self,
        name: str | None = None,
        *,
        content_type: str = "application/json",
        retention: Retention | None = None,
    ) -> Stream:
        """Create an open stream that anybody with the name may append to, or give the one there.

        Without a name it gets an unguessable one. Raises StreamConflict, StoreFull, NameMalformed.
        """
        stream, _ = await self.create_or_get(name, content_type=content_type, retention=retention)
        return stream

    async def create_or_get(
        self,
        name: str | None,
        *,
        content_type: str = "application/json",
        retention: Retention | None = None,
    ) -> tuple[Stream, bool]:
        """As `create`; also says whether the stream is new."""
        if name is None:
            name = secrets.token_urlsafe(NAME_BYTES)
        http.check_name(name)
        config = StreamConfig(
            content_type=content_type, retention=retention or self.settings.retention
        )
        head, is_new = await self.backend.create(name, config)
        stream = self._streams.get(name)
        if stream is None:
            stream = self._streams[name] = Stream(self, name, head, config)
            stream.begin(self.backend.watch(name, head.tail, stream))
        return stream, is_new

    async def start(
        self,
        name: str | None,
        source: AsyncIterable[Payload | NewRecord],
        *,
        join: bool = False,
        opening: Sequence[NewRecord] = (),
        cancel_unread_after_s: float | None = None,
        content_type: str = "application/json",
        retention: Retention | None = None,
    ) -> Stream:
        """Create a stream and feed it from `source` in a task that the hub owns.

        `opening` are records that come before the source's (a question, before its answer); they
        are there when this returns. What the source yields is appended: a JSON value, or a
        `NewRecord` with a type or key. Its end is `complete`; an exception makes it `failed`
        (logged, never shown to readers); a cancel closes the source, which must release what it
        holds. Without readers the source goes on, unless `cancel_unread_after_s` says for how
        long, counted from the start and from each time the last reader leaves. Once ended it can
        be read for `ended_ttl_s`.

        Raises StreamExists when the name is taken; with `join` the stream there is given instead
        and the new source is closed without being iterated. Raises Draining, and of the opening
        records what `Stream.append_batch` raises; then there is no stream.
        """
        if self.is_draining:
            raise Draining
        await self._ensure_ticking()
        limit = self.settings.max_record_bytes
        first = [checked(new.payload, new.type, new.key, limit) for new in opening]
        stream, is_new = await self.create_or_get(
            name, content_type=content_type, retention=retention
        )
        if not is_new:
            await close_source(aiter(source))
            if join:
                return stream
            raise StreamExists(stream.name)
        await self.open_with(stream, first)
        stream.produce(source, cancel_unread_after_s)
        return stream

    async def open_with(
        self, stream: Stream, records: Sequence[NewRecord], *, end: EndReason | None = None
    ) -> None:
        """Append a new stream's first records, or forget it: without them it was not asked for.

        Raises as `Backend.append`.
        """
        if not records and end is None:
            return
        try:
            await self.backend.append(stream.name, records, end=end)
        except PenstockError:
            await self.delete(stream.name)
            raise

    def get(self, name: str) -> Stream:
        """Give a stream. Raises StreamNotFound."""
        stream = self._streams.get(name)
        if stream is None:
            raise StreamNotFound(name)
        return stream

    def streams(self) -> list[Stream]:
        """Every stream of this hub, oldest first."""
        return list(self._streams.values())

    async def delete(self, name: str) -> None:
        """Forget a stream; its producer is cancelled, its readers are told it is `cancelled`.

        Raises StreamNotFound.
        """
        stream = self.get(name)
        await stream.cancel()
        if self._streams.get(name) is stream:  # nobody else deleted it while its producer stopped
            self._drop(stream)
            await self.backend.delete(name)

    def _drop(self, stream: Stream) -> None:
        del self._streams[stream.name]
        stream.forget()

    # living

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncGenerator[None]:
        """Run the hub for the lifetime of an application, and drain it first on Ctrl-C.

        Chains the signal handlers that are installed, so that the server's own still run. Use
        `async with hub` to have no signals touched.
        """
        from penstock.server.signals import drain_on_signals

        async with self:
            with drain_on_signals(self):
                yield

    async def __aenter__(self) -> Hub:
        await self._ensure_ticking()
        self._users += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        self._users -= 1
        if not self._users:
            await self.stop()

    async def drain(self, within_s: float | None = None) -> None:
        """Tell every reader when to come back, end their bodies, and wait until they have gone.

        New readers are sent away from now on. Readers that have not taken their last bytes by
        the deadline are cut; cancelling the drain cuts them at once. Producers go on. Safe to call
        twice.
        """
        self.is_draining = True
        for reader in list(self._readers):
            reader.drain(self.draw_retry_ms())
        try:
            if self._readers:
                self._all_gone.clear()
                wait_s = self.settings.drain_s if within_s is None else within_s
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._all_gone.wait()
        finally:
            for reader in list(self._readers):
                reader.abort()
        await asyncio.sleep(0)

    async def stop(self) -> None:
        """Drain, then cancel producers, and end what they fed. The hub can be started again."""
        await self.drain()
        running = [stream for stream in self._streams.values() if stream.is_produced]
        # Their producers vanish with this process: that is what `lost` says.
        await asyncio.gather(*(stream.close(EndReason.LOST) for stream in running))
        tasks = [task for task in (self._ticker, *self._tasks) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=self.settings.cancel_s)
        self._ticker, self.is_draining = None, False

    def spawn(self, work: Any) -> None:
        """Run a coroutine in a task that the hub owns until it ends or the hub stops."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a task of the hub failed", exc_info=error)

    # flushing

    def mark_dirty(self, view: View) -> None:
        """Have a view flushed at the end of this turn of the loop."""
        self._dirty[view] = None
        if not self._is_flush_due:
            self._is_flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        dirty, self._dirty = self._dirty, {}
        now = self.clock()
        for view in dirty:
            view.flush(now)

    # readers

    def admit(self) -> None:
        """Make sure there is room for one more reader. Raises Draining, Overloaded."""
        if self.is_draining:
            raise Draining
        if len(self._readers) >= self.settings.max_readers:
            self.hooks.reader_ended("refused")
            raise Overloaded(self.settings.max_readers)

    def draw_retry_ms(self) -> int:
        """A reconnection time with jitter, so that readers do not come back together."""
        middle = self.settings.retry_ms
        return int(middle * (1 + RETRY_JITTER * random.uniform(-1, 1)))  # noqa: S311

    def reader_opened(self, reader: Reader) -> None:
        """Count a reader. It must call `reader_closed`, once."""
        self._readers.add(reader)
        reader.stream.reader_count_changed(1)

    def reader_closed(self, reader: Reader, reason: str) -> None:
        """Forget a reader."""
        self._readers.discard(reader)
        self._paused.pop(reader, None)
        if not self._readers:
            self._all_gone.set()
        reader.stream.reader_count_changed(-1)
        self.hooks.reader_ended(reason)

    def reader_paused(self, reader: Reader) -> None:
        """Note that a reader takes nothing; it is cut when that lasts too long."""
        self._paused.setdefault(reader, self.clock())

    def reader_resumed(self, reader: Reader) -> None:
        """Note that a reader takes bytes again."""
        self._paused.pop(reader, None)

    reader_closing = reader_paused  # a closing transport that never empties is a stall too

    def snapshot(self) -> Snapshot:
        """Count what is open now. O(readers + streams)."""
        lags = [lag for reader in self._readers if (lag := reader.lag)]
        fast = sum(reader.transport_name == "fast" for reader in self._readers)
        ended = sum(stream.end is not None for stream in self._streams.values())
        return Snapshot(
            readers_fast=fast,
            readers_portable=len(self._readers) - fast,
            streams_running=len(self._streams) - ended,
            streams_ended=ended,
            stored_bytes=getattr(self.backend, "bytes", 0),
            lag_max=max(lags, default=0),
            lagging=len(lags),
            fast_path_active=self.fast_path_active,
        )

    # time

    async def _ensure_ticking(self) -> None:
        if self._ticker is None or self._ticker.done():
            self._ticker = asyncio.create_task(self._tick_for_ever(), name="penstock:ticker")

    async def _tick_for_ever(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            try:
                await self.tick(self.clock())
            except Exception:
                # The task's outermost edge: without it nobody would have heartbeats any more.
                logger.exception("the hub's tick failed")

    async def tick(self, now: float) -> None:
        """Do what time asks for: heartbeats, cutting stalled readers, forgetting old streams."""
        for stream in self.streams():
            if stream.readers:
                view = stream.view()
                if view.is_read and now - view.last_write >= self.settings.heartbeat_s:
                    view.heartbeat(now)
            elif stream.expires_at is not None and now >= stream.expires_at:
                self._drop(stream)
                await self.backend.delete(stream.name)
        for reader, since in list(self._paused.items()):
            if now - since >= self.settings.stall_s:
                reader.abort()
        if isinstance(self.backend, Trims):
            self.backend.trim(TRIM_STREAMS_A_TICK)

    # addresses

    @property
    def asgi(self) -> App:
        """The ASGI application to mount: streams, cancel, list. See `server/app.py`."""
        from penstock.server.app import App

        return App(self)

    @property
    def metrics_asgi(self) -> MetricsApp:
        """An ASGI application that answers Prometheus, to mount at `/metrics`."""
        from penstock.server.app import MetricsApp

        return MetricsApp(self)

    def with_retention(self, **bounds: Any) -> Retention:
        """The hub's retention with some bounds replaced (see `core.log.Retention`)."""
        return replace(self.settings.retention, **bounds)
